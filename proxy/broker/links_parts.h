/*
 * The record of a relay's link, as links.c and its parts share it: links.c owns records and the
 * dispatch; links_login.c, links_route.c and links_session.c are the handlers.
 */
#ifndef BROKER_LINKS_PARTS_H
#define BROKER_LINKS_PARTS_H

#include <event2/util.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sallyport/link.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/hops.h"
#include "tracker/store/store.h"

#define LINK_TERMINALS_MAX 16 /* of a session, that are remembered */

enum link_state {
    STATE_HELLO = 1,    /* connected, has said nothing */
    STATE_LOGIN = 2,    /* not authenticated */
    STATE_CHOOSING = 4, /* authenticated, no target */
    STATE_DIALING = 8,  /* a session, connecting to its target */
    STATE_SESSION = 16,
    STATE_ENDED = 32 /* CLOSED came */
};

/* What the next AUTH_ANSWER is an answer to. */
enum link_ask {
    ASK_NOTHING,
    ASK_PASSWORD,
    ASK_PAM,
    ASK_CODE,      /* of the second factor */
    ASK_ENROL,     /* the first code of a new one */
    ASK_CODES_KEPT /* the recovery codes were shown */
};

struct nla_attempt;
struct pam_conversation;

/* How far an attempt by NLA is. */
enum link_nla_state {
    NLA_ASKED,  /* begun; nobody is named */
    NLA_JUDGED, /* the hash was given */
    NLA_PROVED  /* and fits; the client may know */
};

/* A login under way; links_login.c and the files beside it. Zeroes before it and after. */
struct link_login {
    enum link_ask ask;
    bool is_keyboard;      /* the last request was keyboard-interactive: questions may be asked */
    const char *first;     /* static: the first factor, when it was right; NULL before */
    char how[200];         /* for the event: which certificate */
    unsigned tries;        /* codes for a new second factor */
    struct secret *key;    /* owned: a new second factor */
    struct secret *answer; /* owned: the password for the first thing that PAM asks */
    struct pam_conversation *pam; /* owned */
    const char *pam_method;       /* static: what is checked by it */
    bool is_answered;             /* something was said to PAM */
    struct nla_attempt *nla;      /* owned */
    enum link_nla_state nla_state;
    bool nla_is_own;      /* the hash that was given is the user's: it can be proved */
    const char *nla_note; /* static: why it cannot work, for the admin; "" for nothing */
    char info[1024];      /* texts of PAM for the next question */
    uint32_t cert_denies; /* as ticket.denies */
    struct event *late;   /* owned: a refusal that is told later */
    char late_text[SESSION_TEXT_MAX];
    enum link_auth late_result;
};

struct relay_link {
    TAILQ_ENTRY(relay_link) entry;
    struct links *links; /* not owned */
    uint64_t serial;     /* what jobs remember; never reused */
    enum link_state state;
    int fd;
    int pidfd;
    int32_t pid;
    struct event *event;
    struct event *timer; /* HELLO must come; END's deadline; after CLOSED it must leave */
    struct event *exit;  /* the process is gone; watched after CLOSED only */
    struct event *pause; /* talks too much: read again after this */
    int64_t talk_ms;     /* when talk_left was filled up */
    uint32_t talk_left;
    uint8_t version;
    bool is_adopted;        /* came by the scan */
    bool is_busy;           /* an attempt is being checked, or its refusal waits */
    bool is_asking;         /* whether there is room to record: a route waits */
    bool is_settled;        /* the gate was told */
    bool is_end_sent;       /* END */
    bool is_ready;          /* logged in at the target: its host key is settled */
    bool has_second_factor; /* was proved at this login */
    char path[128];         /* relay/<pid>.sock, to remove at the end */
    char user[NAME_MAX_LEN + 1];
    char tried_user[NAME_MAX_LEN + 1]; /* of the first attempt */
    char client_address[64];
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];
    uint32_t attempts;
    struct link_login login;
    uint64_t session_id;
    char account[ACCOUNT_MAX_LEN + 1];
    char target[NAME_MAX_LEN + 1];
    struct policy policy;
    uint32_t channel_count[CHANNEL_KIND_COUNT]; /* open ones */
    uint32_t terminals[LINK_TERMINALS_MAX];     /* their channels, the newest last */
    uint8_t terminal_count;
    int page_fd; /* between open and ROUTE_RESULT */
    uint8_t protocol;
    /* RDP */
    bool keeps_cookie; /* `cookie` was shown with the route, and is good */
    bool has_cookie;
    uint8_t cookie[LINK_COOKIE]; /* with which its client may come back */
    bool is_redirecting;         /* where its target sends it on is dialed */
    unsigned redirects;
    /* jumps */
    bool is_outer;       /* has carried some */
    uint32_t jump_count; /* that it carries now */
    int32_t outer_pid;   /* the relay that carries this one; 0: it has a socket of its own */
    uint32_t outer_channel;
    bool is_detached; /* what becomes of the outer connection is nothing to it any more */
    char jump_target[NAME_MAX_LEN + 1];
};
TAILQ_HEAD(link_list, relay_link);

struct links {
    struct broker *broker; /* not owned */
    struct link_list live, dead;
    struct event *accept_event; /* pending while there is room */
    struct event *resume;       /* accepts again after a shortage of descriptors */
    struct event *sweep;
    struct event *failures; /* end of a minute of failed logins of which some have no row */
    uint32_t failure_rows, failures_held;
    int64_t failures_ms; /* when the minute began */
    int listen_fd;
    uint32_t count, max_count;
    uint32_t unanswered; /* adopted ones that have not said HELLO */
    uint64_t adopted;
    uint64_t next_serial;
    uint64_t next_watch;
    struct passes *passes;
    struct cookies *cookies;
    struct link_message in, out; /* scratch: messages are large */
    struct hops hops;            /* scratch: of the route that is being made */
};

/* ---- links.c ---- */
/* The scratch message, empty and of this type; fill it, then say it. */
struct link_message *link_begin(struct relay_link *l, enum link_type type);
void link_say(struct relay_link *l);
void link_say_fds(struct relay_link *l, const int *fds, size_t count);
void link_put_ticket(struct relay_link *l, uint16_t *len, uint8_t *data);
/* An event of this link's user, source and session. */
void link_note(struct relay_link *l, const char *kind, const char *text);
void link_enter(struct relay_link *l, enum link_state to);
/* The relay is gone, or must go. */
void link_drop(struct relay_link *l, const char *why);
void link_session_over(struct relay_link *l, enum end_reason reason, const char *author,
                       const char *text);
/* NULL: gone meanwhile. */
struct relay_link *link_by_serial(struct links *all, uint64_t serial);
/* Target and policy of the link's route, as they are now. */
int link_resolve(struct relay_link *l, struct policy *policy, struct store_target *target);

/* ---- links_login.c ---- */
/* The user exists and is not locked. */
bool link_user_may_log_in(struct broker *b, const char *user);
/* The first factor was right: asks for the second one, or lets in. method: static. */
void link_first_factor(struct relay_link *l, const char *method);
/* All that is needed was right. how: for the event. */
void link_logged_in(struct relay_link *l, const char *how);
/* An attempt failed; it is counted and, after some, answered later. text: shown to the user. */
void link_login_failed(struct relay_link *l, const char *method, const char *text);
/* Answer the pending request of a login. */
void link_login_reply(struct relay_link *l, enum link_auth result, const char *text);
/* Ask a question; zeroes and "" where there is nothing to say. */
struct link_question {
    enum link_ask ask;
    const char *banner, *instruction, *prompt;
    bool has_echo;
    uint32_t more_s;
};
void link_login_ask(struct relay_link *l, const struct link_question *q);
/* A request begins. False: answered already, or not to be answered. user: "" when NLA has to tell,
 * which asks link_login_may_try() then. */
bool link_login_begin(struct relay_link *l, const char *user, const char *device, bool is_keyboard);
/* What every attempt passes first. False: answered already. */
bool link_login_may_try(struct relay_link *l, const char *user, const char *device);
/* Take from a policy what the login (a certificate) does not permit. */
void link_limit_policy(const struct relay_link *l, struct policy *policy);
/* Forget what is under way; the link's own end too. */
void link_login_stop(struct relay_link *l);
/* The client has gone; an attempt whose result it did not wait for counts as one that failed. */
void link_login_left(struct relay_link *l);
void link_login_free(struct relay_link *l); /* in the sweep */

/* ---- links_factor.c: the second factor ---- */
extern const struct source_limits link_code_limits; /* of wrong codes, by user */
void link_factor_ask(struct relay_link *l);
void link_factor_answer(struct relay_link *l, const char *text);

/* ---- links_pam.c ---- */
/* Does PAM check this user's password? */
bool link_is_pam_user(const struct relay_link *l);
/* Begin; password NULL: questions go to the user, else it answers the first one. account_only: a
 * key was right, is the account? method: static. */
void link_pam_begin(struct relay_link *l, const char *method, const struct secret *password,
                    bool account_only);
void link_pam_answer(struct relay_link *l, const void *text, size_t len);

/* ---- links_nla.c ---- */
/* Its client may know whether the password was right, and nobody was told. */
bool link_nla_is_untold(const struct relay_link *l);

/* ---- links_files.c ---- */
/* The event of a channel that was opened, closed or refused; kind: what it is called. */
void link_note_channel(struct relay_link *l, const struct link_channel *c, const char *kind);

/* ---- links_jump.c ---- */
struct ticket;
/* It shows a pass: true when it is who the pass says, and may choose. */
bool link_jump_hello(struct relay_link *l, const struct link_hello *h);
void link_jump_adopted(struct relay_link *l, const struct ticket *t);
void link_jump_welcome(struct relay_link *l, struct link_welcome *w);
/* Its user may reach the target, but not as this account, which is his own name when he gave none:
 * the sentence that helps. False when that is not why. */
bool link_jump_refusal(const struct relay_link *l, const char *account, char *text, size_t len);
/* Its end ends what it carries, with the same reason. */
void link_jump_outer_over(struct relay_link *l, enum end_reason reason, const char *author,
                          const char *text);
/* The event of an outer connection's end; false when it is none. */
bool link_jump_closed_note(struct relay_link *l, const struct link_closed *c);
/* End a connection that has no session; what it carries has the time to say why. */
void link_end_choosing(struct relay_link *l, enum end_reason reason, const char *author,
                       const char *text);

/* ---- links_watch.c ---- */
/* A terminal was opened or closed. */
void link_note_terminal(struct relay_link *l, uint32_t channel, bool is_open);

/* ---- handlers: one a message ---- */
void link_on_jump(struct relay_link *l, struct link_message *m, int *fds);
void link_on_jump_closed(struct relay_link *l, struct link_message *m, int *fds);
void link_on_auth_password(struct relay_link *l, struct link_message *m, int *fds);
void link_on_nla_ask(struct relay_link *l, struct link_message *m, int *fds);
void link_on_nla_login(struct relay_link *l, struct link_message *m, int *fds);
void link_on_auth_key(struct relay_link *l, struct link_message *m, int *fds);
void link_on_auth_keyboard(struct relay_link *l, struct link_message *m, int *fds);
void link_on_auth_answer(struct relay_link *l, struct link_message *m, int *fds);
void link_on_route(struct relay_link *l, struct link_message *m, int *fds);
void link_on_targets(struct relay_link *l, struct link_message *m, int *fds);
void link_on_host_key(struct relay_link *l, struct link_message *m, int *fds);
void link_on_ready(struct relay_link *l, struct link_message *m, int *fds);
void link_on_record_open(struct relay_link *l, struct link_message *m, int *fds);
void link_on_channel(struct relay_link *l, struct link_message *m, int *fds);
void link_on_frame(struct relay_link *l, struct link_message *m, int *fds);
void link_on_recording_state(struct relay_link *l, struct link_message *m, int *fds);
void link_on_resumed(struct relay_link *l, struct link_message *m, int *fds);
void link_on_desktop(struct relay_link *l, struct link_message *m, int *fds);
void link_on_redirect(struct relay_link *l, struct link_message *m, int *fds);
void link_on_reconnect(struct relay_link *l, struct link_message *m, int *fds);
/* The session is over: what becomes of its reconnect cookie. */
void link_cookie_ended(struct relay_link *l, enum end_reason reason);
/* Does the cookie that a client showed belong to a session that this user may go on in? It is the
 * new session's, then. */
bool link_cookie_may_return(struct relay_link *l, const struct link_route *route);
void link_on_event(struct relay_link *l, struct link_message *m, int *fds);
void link_on_watch_closed(struct relay_link *l, struct link_message *m, int *fds);
void link_on_files(struct relay_link *l, struct link_message *m, int *fds);
void link_on_door(struct relay_link *l, struct link_message *m, int *fds);
void link_on_back(struct relay_link *l, struct link_message *m, int *fds);
/* Count the open channels from the text of the session's row, as an adopted relay's link does. */
void link_count_channels(struct relay_link *l, const char *channels);
void link_on_closed(struct relay_link *l, struct link_message *m, int *fds);
/* The minute of failed logins without a row is over. */
void link_failures_cb(evutil_socket_t fd, short what, void *links);

#endif
