/*
 * One RDP connection as the folder's files share it: the user leg, the target leg, what each side
 * said of itself, and how it ends. proxy/rdp/session.c owns it and takes turns; every other file is
 * a group of steps that a turn calls. Callbacks of the loop and of the broker only note what
 * happened and ask for a turn.
 *
 * Late splice: the client is served up to its Client Info with numbers of our own, then the same
 * steps are walked at the target, and from licensing on whole PDUs go through, with the numbers of
 * users and channels exchanged in place. Lock-step, when NLA told user and target before MCS: the
 * target is walked up to MCS first, and from there on the client gets the target's own answers.
 */
#ifndef RDP_SESSION_H
#define RDP_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>
#include <sallyport/login.h>
#include <sallyport/secret.h>

#include "proxy/rdp/chunks.h"
#include "proxy/rdp/leg.h"
#include "proxy/rdp/notices.h"
#include "proxy/rdp/record.h"
#include "proxy/rdp/redirect.h"
#include "proxy/rdp/wire.h"
#include "proxy/relay/relay.h"
#include "proxy/relay/turn.h"

struct credssp;

enum phase {
    PHASE_NEGOTIATE, /* preconnection blob, X.224 */
    PHASE_SECURITY,  /* the broker says whether NLA is for this client */
    PHASE_USER_TLS,
    PHASE_USER_NLA,
    PHASE_CONNECT,     /* MCS Connect Initial */
    PHASE_JOIN,        /* user, channels, Client Info */
    PHASE_AUTH,        /* the broker checks the password */
    PHASE_SCREEN,      /* the user is asked, in a session of our own */
    PHASE_ROUTING,     /* the broker resolves and connects */
    PHASE_REDIRECTING, /* the target sends the session on: the broker connects */
    PHASE_TARGET,      /* the same steps at the target */
    PHASE_BACK,        /* it failed, and the broker is told that another one may be chosen */
    PHASE_RELAYING,
    PHASE_ENDING, /* last words */
    PHASE_OVER    /* relay_finish() was called */
};

/* NLA at our door; front.c. */
struct front {
    int fd; /* to the process of the attempt; -1: none */
    struct event *readable;
    bool has_spoken; /* the client, a first whole TSRequest */
    bool is_denied;  /* by the broker, with these words: said when the client has spoken */
    char why[SESSION_TEXT_MAX];
    bool is_waiting; /* for the answer to a token */
    bool has_login;  /* the client's password came: who it is is in user_side */
    bool is_known;   /* and the broker agreed: no other login is asked for */
    bool has_last;   /* it failed, and `last` is what the client gets */
    struct buffer last;
    struct secret *early; /* owned: the password until the broker agrees */
    bool is_partial;      /* something else must follow, said when the client can hear it */
    int64_t lost_by_ms; /* the process is gone: the broker's word must come by then; 0: it is not */
};

/* The client, as it came. */
struct user_side {
    bool is_past_blob;
    uint32_t selected; /* PROTOCOL_ bit: what the client and we speak */
    struct x224_request request;
    char wanted[NAME_MAX_LEN + 1]; /* target of blob or routing token; "" for none */
    uint8_t *initial;              /* owned: the frame that `connect` and `client` borrow from */
    struct mcs_connect connect;
    struct gcc_client client;
    struct gcc_server ids; /* the numbers that it was given */
    uint16_t user_id;
    uint32_t join_count;
    uint8_t *info; /* owned, secret: the Client Info; gone when the target has its own */
    size_t info_len;
    struct login login;
    struct secret *password; /* owned: for passthrough; gone as `info` */
};

enum rdp_target_step {
    TARGET_SECRET, /* the user is asked for the account's password */
    TARGET_X224,
    TARGET_TLS,
    TARGET_PINNING, /* accept-new: the broker pins the key */
    TARGET_NLA,
    TARGET_CLIENT, /* lock-step: until the client's MCS Connect Initial came */
    TARGET_CONNECT,
    TARGET_ATTACH,
    TARGET_JOIN,
    TARGET_LOCKSTEP, /* the client's own steps go through, up to its Client Info */
    TARGET_DONE
};

struct target_side {
    enum rdp_target_step step;
    bool is_lockstep;
    struct link_route_result *route; /* owned, secret; gone when Client Info is sent */
    char name[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    int64_t deadline_ms;
    uint32_t selected;                   /* PROTOCOL_SSL_BIT or PROTOCOL_HYBRID_BIT */
    struct credssp *nla;                 /* owned, while it runs */
    bool has_extended;                   /* X224_EXTENDED_CLIENT_DATA */
    bool has_graphics;                   /* X224_DYNVC_GFX */
    uint32_t allowed;                    /* POLICY_RDP_ bits */
    bool is_dropped[MCS_CHANNELS_MAX];   /* by policy: the client's channels that lead nowhere */
    uint16_t channels[MCS_CHANNELS_MAX]; /* the target's number of each; 0 when dropped */
    struct gcc_server ids;
    uint16_t user_id;
    uint16_t joins[MCS_CHANNELS_MAX + 3];
    size_t join_count, joined;
};

/* What is known of the desktop; splice.c learns it. */
struct desktop {
    struct share_facts facts;
    bool has_demand;     /* the target's licensing is over */
    bool wants_confirm;  /* after a stage: nothing of the client passes before it */
    bool is_active;      /* capabilities exchanged: updates may be sent */
    bool wants_exit;     /* the client asked to shut down */
    bool is_bye;         /* the client said the ultimatum */
    uint32_t error_info; /* what the target gave as its reason; 0 none */
    struct dvc_state dvc;
    struct chunks dynamic, devices; /* of drdynvc from the target, of rdpdr from the client */
    struct input_state input;
    /* of the run that is looked at */
    bool is_human;         /* somebody typed or clicked */
    struct buffer instead; /* goes in the place of a dropped PDU */
};

enum end_step {
    END_STEP_BEGIN,
    END_STEP_SETTLE,    /* until a fragmented update is whole */
    END_STEP_HANDSHAKE, /* a session of our own, to draw in */
    END_STEP_HOLD,      /* the sentence can be read */
    END_STEP_FLUSH
};

struct ending {
    enum end_reason reason;
    char author[NAME_MAX_LEN + 16];
    char text[SESSION_TEXT_MAX];
    char sentence[SENTENCE_MAX]; /* what the user is shown; "" for nothing */
    enum end_step step;
    bool is_pending;     /* it waits until the client can hear it, for which it is served on */
    enum phase from;     /* where it was */
    int64_t step_ms;     /* the step's time is up */
    int64_t deadline_ms; /* everything's; 0: our own time */
};

struct rdp_session {
    struct relay *relay;
    struct turn turn;
    int64_t relax_at_ms; /* when memory is given back; 0: not armed */
    uint64_t relaxed;    /* bytes of both legs then */
    bool is_in_turn, has_spoken;
    char separators[8];
    enum phase phase;
    struct leg user, target;
    struct front front;
    struct user_side u;
    struct target_side t;
    struct desktop desktop;
    struct rdp_record record;
    struct notice notice;
    struct ending ending;
    struct redirect redirect;
    struct stage *stage;   /* owned: a session of our own, while there is one; stage.c */
    struct screen *screen; /* owned: what is shown there; screen.c */
    char *banner;          /* owned: above the login; NULL none */
};

/* ---- session.c ---- */
void rdp_want_turn(struct rdp_session *s); /* soon, from the loop */
void rdp_wake(void *session);              /* now; only from callbacks of the loop */
void rdp_want_timer(struct rdp_session *s, int64_t at_ms);
/* Begin the end. sentence: what the user is shown ("" nothing). The first call counts. */
void rdp_end(struct rdp_session *s, enum end_reason reason, const char *author, const char *text,
             const char *sentence);
/* A frame from a leg, of at most `max` bytes: PARSE_OK leaves it in the leg's input. */
enum parse rdp_frame(const struct leg *l, size_t max, struct frame *out);

/* ---- user.c: serving the client up to Client Info, and its login ---- */
void rdp_user_step(struct rdp_session *s);
void rdp_user_result(struct rdp_session *s, const struct link_auth_result *result);
/* The security is chosen, 0 for none: tell the client, begin TLS. failure: X224_FAILURE_ */
void rdp_user_secure(struct rdp_session *s, uint32_t selected, uint32_t failure);
/* The client's MCS Connect Initial, when it is there: false when it is not, or was refused. */
bool rdp_user_take_initial(struct rdp_session *s);
/* Answer it with numbers of our own, and take the joins. */
void rdp_user_serve(struct rdp_session *s);
/* Answer it with the numbers in user_side. */
void rdp_user_answer_connect(struct rdp_session *s);
/* Keep a Client Info for the target. */
bool rdp_user_keep_info(struct rdp_session *s, const struct mcs_pdu *pdu, struct client_info *info);
/* Who wants to log in where: from a name, a domain, and what came before; "?" for no user. */
const char *rdp_user_name(struct rdp_session *s, const char *name, const char *domain);
void rdp_user_keep_password(struct user_side *u, const char *password);
void rdp_user_nonsense(struct rdp_session *s, const char *what);
void rdp_user_forget(struct rdp_session *s); /* credentials */
void rdp_user_finish(struct rdp_session *s);

/* ---- front.c: NLA at our door, whose accepting side is another process ---- */
void front_init(struct rdp_session *s);
void front_ask(struct rdp_session *s); /* which security? */
void front_chosen(struct rdp_session *s, enum link_nla choice);
void front_begin(struct rdp_session *s); /* TLS is up */
void front_begun(struct rdp_session *s, int fd);
void front_step(struct rdp_session *s);
/* What the broker says of it; false: no login by NLA is under way. */
bool front_result(struct rdp_session *s, const struct link_auth_result *result);
void front_finish(struct rdp_session *s);

/* ---- lockstep.c: the client's own steps at the target ---- */
/* False when a refusal must wait until the client can be told. */
bool lockstep_can_end(struct rdp_session *s);
/* The user must be asked before the target is: go on as late splice. */
void lockstep_leave(struct rdp_session *s);
/* Logged in at the target: MCS is next. */
void lockstep_wait(struct rdp_session *s);
/* The client's Connect Initial, when it is there. */
bool lockstep_take_initial(struct rdp_session *s);
/* The target's Connect Response was read into t.ids. */
void lockstep_answered(struct rdp_session *s);
/* Frames of the client up to Client Info; true when that came and is kept. */
bool lockstep_from_user(struct rdp_session *s);
void lockstep_from_target(struct rdp_session *s, const struct mcs_pdu *pdu);

/* ---- target.c: the same steps as a client of the target ---- */
void rdp_target_routed(struct rdp_session *s, const struct link_route_result *route, int fd);
/* What the user typed, asked for in TARGET_SECRET. */
void rdp_target_secret(struct rdp_session *s, const char *password);
/* As before rdp_target_routed(): the session was given back. */
void rdp_target_reset(struct rdp_session *s);
/* HOST of HOST:PORT, without brackets. */
void rdp_host_of(const char *address, char *dst, size_t len);
/* "DOM\\user" or "user": the user, and its domain or "". */
const char *rdp_split_account(const char *account, char *domain, size_t len);
/* Where the session is sent on, with s->t.route filled in. */
void rdp_target_again(struct rdp_session *s, int fd);
/* The client left lock-step to be asked for the account's password, and is there. */
void rdp_target_resume(struct rdp_session *s);
void rdp_target_pinned(struct rdp_session *s, bool is_ok, const char *text);
void rdp_target_step(struct rdp_session *s, int64_t now_ms);
void rdp_target_finish(struct rdp_session *s);

/* ---- nla.c: CredSSP at the target ---- */
enum nla_state { NLA_FAILED, NLA_MORE, NLA_DONE };

/* False, as NLA_FAILED: nla_why() is the end of a sentence that begins with the target's name. */
bool nla_begin(struct rdp_session *s, const char *domain, const char *user, const char *password);
enum nla_state nla_step(struct rdp_session *s);
const char *nla_why(const struct rdp_session *s);
void nla_finish(struct rdp_session *s);

/* ---- channels.c: what may be shared beside the desktop ---- */
/* Which of the client's channels lead nowhere; before the target is told of them. */
void channels_choose(struct rdp_session *s, uint64_t allowed);
/* Somebody has to be able to read them: policy, or a recording. */
bool channels_are_read(const struct rdp_session *s);
/* "desktop,clipboard,sound" */
void channels_describe(const struct rdp_session *s, char *dst, size_t len);
/* In a capability PDU at `at` (the frame f): virtual channels are not compressed. */
void channels_stay_readable(enum share_type which, const struct share_pdu *pdu,
                            const struct frame *f, uint8_t *at);
/* The target's data on drdynvc must not go on: it opens what is not allowed, and was answered, or
 * is not whole yet; what goes on is in `instead`. The frame f, at `at`, may be changed. */
bool channels_block_dynamic(struct rdp_session *s, const struct mcs_pdu *pdu, uint16_t user_channel,
                            const struct frame *f, uint8_t *at);
/* The client's data on rdpdr must not go on; what does is in `instead`, which may stay empty. */
bool channels_filter_devices(struct rdp_session *s, uint16_t channel, struct cursor data,
                             struct buffer *instead);

/* ---- splice.c: whole PDUs both ways ---- */
void splice_step(struct rdp_session *s);
/* Only the target's PDUs, until no fragment is open. */
void splice_settle(struct rdp_session *s);

/* ---- ending.c ---- */
void ending_step(struct rdp_session *s, int64_t now_ms);

#endif
