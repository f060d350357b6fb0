/*
 * One SSH connection as the folder's files share it: the user leg, the target leg, the channels
 * between them and what the broker was asked. proxy/ssh/session.c owns it and takes turns; every
 * other file is a group of steps that a turn calls. Callbacks of libssh, of the loop and of the
 * broker only note what happened and ask for a turn.
 */
#ifndef SSH_SESSION_H
#define SSH_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>
#include <sallyport/login.h>
#include <sallyport/secret.h>

#include "proxy/relay/relay.h"
#include "proxy/relay/terminal.h"
#include "proxy/relay/turn.h"
#include "proxy/ssh/leg.h"
#include "proxy/ssh/libssh.h"

struct agent_login;
struct asking;
struct channel;
struct door;
struct jumps;
struct listens;
struct menu;
struct hop;
struct recording_position;
struct recording_writer;
struct watcher;
struct way;
struct sftp_audit;

#define SENTENCE_MAX      512
#define SPOOL_MAX         (256u * 1024u)
#define HELD_MAX          (2u * 1280000u) /* twice the window that libssh offers */
#define CHANNEL_ENV_MAX   200
#define CHANNEL_QUEUE_MAX 256 /* requests that wait for the target */

enum phase {
    PHASE_LOGIN,    /* key exchange and user authentication */
    PHASE_CHOOSING, /* no target yet: menu, or one line of help */
    PHASE_ROUTING,  /* the broker resolves and connects */
    PHASE_TARGET,   /* key exchange and login at the target */
    PHASE_BACK,     /* the login failed, the session is being given back: the menu again */
    PHASE_RELAYING,
    PHASE_ENDING, /* notices and disconnect are on their way */
    PHASE_OVER    /* relay_finish() was called */
};

/* Bytes that came on a channel and were not passed on yet. */
struct spool {
    uint8_t *data;
    uint32_t start, len, cap;
};

/* One side of a channel pair. */
struct half {
    struct channel *channel; /* not owned */
    ssh_channel ssh;         /* NULL while not open, and after the session is gone */
    struct leg *leg;         /* not owned */
    struct spool in[2];      /* what the peer sent: data, and extended data (stderr) */
    uint32_t held[2];        /* what libssh still keeps, because the spool is full */
    bool got_eof, got_close;
    bool sent_eof, sent_close;
    struct ssh_channel_callbacks_struct callbacks;
};

enum channel_state {
    CHANNEL_WAITING, /* for the target leg; the client waits for the open's answer */
    CHANNEL_OPENING, /* the target was asked */
    CHANNEL_LOCAL,   /* accepted without a target: the menu, or one line of help */
    CHANNEL_OPEN,
    CHANNEL_DONE /* swept at the end of the turn */
};

/* A request of the client that the target must answer, or has not been sent yet. */
struct request {
    STAILQ_ENTRY(request) link;
    const struct request_row *row;
    ssh_message message; /* owned; NULL: nobody waits for the answer */
    bool is_single;      /* x11-req: for one connection only */
    uint32_t screen;     /* x11-req */
    char *text;          /* terminal type, variable, command, subsystem, signal or X11 protocol */
    char *value;         /* of the variable; the X11 cookie */
    uint16_t cols, rows;
    bool is_own;  /* ours, not the client's */
    bool is_sent; /* the target was asked */
};
STAILQ_HEAD(request_list, request);

enum record_state {
    RECORD_NONE, /* not asked yet */
    RECORD_ASKED,
    RECORD_OFF, /* nothing to record, or given up */
    RECORD_ON,
    RECORD_REFUSED
};

/* A forwarded connection's ends, as whoever opened the channel named them. */
struct forward {
    char *host; /* where it goes; of a -R, where the target listens; "" when it has none */
    char *origin;
    uint16_t port, origin_port;
};

struct channel {
    TAILQ_ENTRY(channel) link;
    struct session *session; /* not owned */
    enum channel_state state;
    uint32_t number;         /* 1 for the first of the session */
    ssh_message opening;     /* owned: the open that waits for its answer */
    struct forward *forward; /* owned; NULL: a session channel */
    bool is_reverse;         /* the target opened it */
    struct half user, target;
    struct request_list requests;
    size_t request_count, env_count;

    bool has_pty, has_started, is_told;
    bool is_holding; /* counted by relay_hold() */
    enum link_channel_kind kind;
    char *command; /* "" until exec or subsystem */
    char term[64];
    uint16_t cols, rows;

    bool has_status, has_signal, sent_status;
    uint32_t exit_status;
    char exit_signal[32], exit_text[128];
    bool exit_core;

    uint64_t bytes_in, bytes_out;
    int64_t started_ms;       /* when something began to run */
    struct sftp_audit *audit; /* owned; NULL when it carries no SFTP */
    uint32_t watchers;        /* of the session's that look at this one */
    uint8_t watch_held[4];    /* the beginning of a character, for them */
    size_t watch_held_len;

    struct door *door; /* owned: a command of the user's own runs here; NULL otherwise */

    enum record_state record;
    struct recording_writer *writer;
    struct terminal terminal;
    struct buffer notice; /* texts that wait for a good moment, NUL-separated */
    int64_t stuck_at_ms;  /* since when output stands inside a sequence, and a notice waits; 0 */
    uint64_t stuck_bytes; /* what had been passed on then */
    bool needs_redraw;    /* a notice stands on the alternate screen */
    int64_t redraw_at_ms; /* the next step of the nudge; 0 none */
    bool is_shrunk;       /* its first half is done */
};
TAILQ_HEAD(channel_list, channel);

/* What user.c keeps while somebody logs in. */
struct user_login {
    bool is_accepted;    /* service accepted, banner sent */
    bool is_named;       /* name and login are set */
    char name[256];      /* the whole login name, as sent */
    struct login login;  /* its parts */
    const char *user;    /* what the broker is told: login.user, or "?" for an impossible name */
    ssh_message message; /* owned: waits for the broker */
    bool is_offer;
    uint8_t methods;                 /* enum link_auth_methods: what may go on */
    struct link_auth_prompt *prompt; /* owned: to be asked */
    bool is_asked, has_echo;         /* an answer must come; it is typed in sight */
    bool has_result;
    struct link_auth_result result;
    uint32_t failures, offers;
    uint64_t handled_bytes;   /* io->received when the last message was taken */
    int64_t unanswered_at_ms; /* when bytes came that made no message; 0 none */
    struct secret *password;  /* owned: for passthrough; wiped when the target is logged in to */
};

struct ending {
    enum end_reason reason;
    char author[NAME_MAX_LEN + 16];
    char text[SESSION_TEXT_MAX];
    char sentence[SENTENCE_MAX]; /* what the user is told; "" for nothing */
    bool has_begun;              /* notices are written */
    bool has_asked;              /* has the client shown what was written? */
    bool has_said;               /* SSH_MSG_DISCONNECT is out */
    int64_t flush_by_ms, show_by_ms, close_by_ms;
};

struct session {
    struct relay *relay;
    struct turn turn;
    bool is_in_turn, has_spoken;
    struct link_welcome limits;
    enum phase phase;
    struct leg user, target;
    struct user_login login;
    struct way *way;           /* owned: servers to log in to, and those in front of the target */
    struct agent_login *agent; /* owned, while the user's agent logs in */
    struct asking *asking;     /* owned, while the user is asked for a server */
    bool wants_user;           /* a login needs a channel of the user's before the target is up */
    bool has_agent;            /* the client offers one */
    bool asking_has_started;   /* a shell or a command was asked for on: */
    struct channel *asking_channel; /* not owned; accepted before the target was up */
    char account[ACCOUNT_MAX_LEN + 1], target_name[NAME_MAX_LEN + 1];
    struct channel_list channels;
    uint32_t last_number;
    uint32_t turn_number; /* of the channel that went first in the last turn */
    struct jumps *jumps;  /* owned; NULL until one is asked for */
    bool is_inner;        /* came through a jump */
    int64_t
        outer_word_by_ms; /* how long the broker may take to say what became of that; 0 not yet */
    struct listens *listens;       /* owned; NULL until one is asked for */
    bool passes_agent, passes_x11; /* the target was asked to forward them: it may open channels */
    uint64_t told_refused;         /* bits of enum policy_channel: the terminal has said so */
    struct menu *menu;
    struct channel *menu_channel; /* not owned */
    struct ending ending;
    int64_t keepalive_at_ms;
    int64_t drain_by_ms;    /* the target is gone: how long its last words may take; 0 not yet */
    uint64_t relaxed_bytes; /* received by both legs when memory was last given back */
    TAILQ_HEAD(watcher_list, watcher) watchers;
    uint32_t watcher_count;
};

/* ---- session.c ---- */
void session_want_turn(struct session *s); /* soon, from the loop */
void session_wake(void *session);          /* now; only from callbacks of the loop */
/* The timer fires no later than at_ms (clock_mono_ms); a turn follows. */
void session_want_timer(struct session *s, int64_t at_ms);
/* Begin the end. sentence: what the user is told ("" nothing). The first call counts. */
void session_end(struct session *s, enum end_reason reason, const char *author, const char *text,
                 const char *sentence);
/* The user's own host keys: set once by the gate, before the fork. */
ssh_bind session_bind(void);

/* ---- user.c: the user logs in ---- */
void user_service(struct session *s, ssh_message message);
void user_auth(struct session *s, ssh_message message);
void user_result(struct session *s, const struct link_auth_result *result);
/* A text for the person who logs in, before the login is over. */
void user_show(struct session *s, const char *text);
void user_step(struct session *s, int64_t now_ms);
void user_finish(struct session *s);

/* ---- keyboard.c: keyboard-interactive. False: not taken, the message is the caller's ---- */
bool keyboard_begin(struct session *s, ssh_message message);
bool keyboard_answer(struct session *s, ssh_message message);
void keyboard_prompt(struct session *s, const struct link_auth_prompt *prompt);
void keyboard_step(struct session *s);
void keyboard_forget(struct user_login *l);

/* ---- target.c: we log in at the target ---- */
void target_hop(struct session *s, const struct link_hop *hop, const int fds[2]);
void target_routed(struct session *s, const struct link_route_result *route, int fd);
void target_pinned(struct session *s, bool is_ok, const char *text);
void target_drive(struct session *s);  /* the legs of the target's side, before a turn's steps */
void target_settle(struct session *s); /* and after them */
void target_step(struct session *s, int64_t now_ms);
/* The server on the way whose connection is gone, or NULL. */
const char *target_lost_way(const struct session *s);
void target_stop(struct session *s); /* no login goes on */
void target_disconnect(struct session *s);
void target_close(struct session *s); /* as if there had been no target */

/* ---- agent.c: the user's agent logs in ---- */
int agent_login(struct session *s, struct hop *h); /* see struct hop_ops */
void agent_stop(struct session *s);

/* ---- ask.c: the user answers what a server asks ---- */
int ask_questions(struct session *s, struct hop *h); /* see struct hop_ops */
void ask_for_channel(struct session *s);             /* a login needs one before the target is up */
void ask_step(struct session *s);
/* A request came on a channel without a target: true when it is the one for questions. */
bool ask_request(struct channel *c, bool starts);
void ask_stop(struct session *s);

/* ---- channel.c: pairs of channels ---- */
/* The kind is CHANNEL_SHELL until more is known; opening is owned from here. NULL: out of memory,
 * and the message is the caller's. */
struct channel *channel_create(struct session *s, ssh_message opening);
void channel_open_message(struct session *s, ssh_message message);
/* Refuse an open, which is freed; the log and the events say why, now and then. */
void channel_refuse(struct session *s, ssh_message message, const char *why);
void channel_tell(struct channel *c, enum link_channel_change change);
void channel_target_is_up(struct session *s);
void channel_step(struct channel *c, int64_t now_ms);
void channel_sweep(struct session *s);
void channel_detach(struct session *s, const struct leg *leg); /* before libssh frees them */
void channel_free_all(struct session *s);
struct channel *channel_find(struct session *s, ssh_channel user);
bool channel_is_ended(const struct channel *c);
bool channel_any_open(const struct session *s);
/* Accept the client's open without a target. */
void channel_accept_local(struct channel *c);
void channel_exit_local(struct channel *c, uint32_t status);

/* ---- forward.c: channels that are forwarded connections ---- */
void forward_open_message(struct session *s, ssh_message message); /* of the client */
void forward_target_opens(struct session *s, ssh_message message);
/* As the policy stands: false, the channel is done and the client was told. */
bool forward_is_allowed(struct channel *c);
int forward_open(struct channel *c); /* SSH_OK, SSH_AGAIN or SSH_ERROR */
void forward_opened(struct channel *c);
void forward_free(struct forward *f);

/* ---- listen.c: what the target listens for on the client's behalf (-R) ---- */
void listen_message(struct session *s, ssh_message message);
void listen_step(struct session *s);
/* The address as the client asked for it, or NULL: nobody asked. */
const char *listen_find(const struct session *s, const char *address, uint16_t port);
void listen_free_all(struct session *s);

/* ---- refuse.c: what the policy does not allow ---- */
bool refuse_is_allowed(const struct session *s, enum policy_channel kind);
/* Tell the client (a debug message, a line on its terminals once a kind) and the broker (an event,
 * now and then). what: "forwarding to db01:5432". */
void refuse_tell(struct session *s, enum policy_channel kind, const char *what);
/* The same for something that would run on this channel: on its stderr, and it ends with status 1.
 */
void refuse_start(struct channel *c, enum policy_channel kind, const char *what);

/* ---- overheard.c: what libssh refuses without asking ---- */
void overheard_begin(void);
void overheard_end(struct session *s);

/* ---- pump.c: bytes ---- */
void pump_attach(struct half *h);
void pump_step(struct channel *c);
void pump_relax(struct channel *c); /* give empty spools back */
bool pump_is_empty(const struct half *h);
void spool_finish(struct spool *s);
/* Fetch what libssh kept because the spool was full. */
void pump_refill(struct half *h, int stream);
/* Bytes that pump_show() takes now. */
uint32_t pump_room(const struct channel *c);
/* Straight to the user's screen, after what went before; false when it did not fit. */
bool pump_show(struct channel *c, const void *data, size_t len, bool is_stderr);
/* What somebody else types, towards the target; returns the bytes that it took. */
size_t pump_type(struct channel *c, const void *data, size_t len);

/* ---- request.c ---- */
void request_message(struct session *s, ssh_message message);
void request_step(struct channel *c);
void request_add_signal(struct channel *c, const char *name);
void request_add_agent(struct channel *c);
void request_add_resize(struct channel *c, uint16_t cols, uint16_t rows);
void request_clear(struct channel *c);

/* ---- record.c ---- */
/* False while the broker's answer is awaited. */
bool record_is_ready(struct channel *c);
void record_answer(struct session *s, const struct link_recording *answer, int fd);
void record_output(struct channel *c, const void *data, size_t len, bool is_stderr);
void record_input(struct channel *c, const void *data, size_t len);
void record_resize(struct channel *c);
void record_notice(struct channel *c, const char *text);
/* What somebody else typed; always kept. */
void record_typed(struct channel *c, const char *author, const void *data, size_t len);
/* A remark in the recording that nobody is shown. */
void record_mark(struct channel *c, const char *text);
/* Write the open frame now; false when the channel is not recorded. */
bool record_flush(struct channel *c, struct recording_position *at);
void record_tick(struct channel *c, int64_t now_ms);
void record_close(struct channel *c);

/* ---- audit.c: file transfers ---- */
void audit_start(struct channel *c); /* something runs */
void audit_bytes(struct channel *c, bool is_input, const void *data, size_t len);
void audit_close(struct channel *c);

/* ---- notice.c ---- */
void notice_add(struct session *s, const char *text);
void notice_step(struct channel *c, int64_t now_ms);
void notice_final(struct session *s, const char *text);
void notice_user_key(struct channel *c, int64_t now_ms);

/* ---- jump.c: what leads from a connection without a target to targets ---- */
void jump_open_message(struct session *s, ssh_message message);
void jump_result(struct session *s, const struct link_jump_result *result, int fd);
void jump_step(struct session *s, int64_t now_ms);
bool jump_any_open(const struct session *s);
void jump_relax(struct session *s);  /* give empty memory back */
void jump_detach(struct session *s); /* before libssh frees the channels */
void jump_free_all(struct session *s);

/* ---- inner.c: what came through a jump ---- */
void inner_begin(struct session *s); /* once the limits are known */
void inner_auth(struct session *s, ssh_message message);
/* The client is gone, and why may still be told: false when that is not waited for (any more). */
bool inner_waits(struct session *s, int64_t now_ms);

/* ---- door.c: commands of the user's own, without a target ---- */
/* Ask for the command of a channel. False: there are none here. */
bool door_begin(struct channel *c);
void door_result(struct session *s, const struct link_door_result *result, const int fds[3]);
void door_exit(struct session *s, const struct link_door_exit *end);
void door_broker_lost(struct session *s);
void door_resize(struct channel *c);
void door_step(struct channel *c);
void door_free(struct channel *c);

/* ---- choose.c: no target in the login name ---- */
/* A request came on a channel without a target: something starts, or the window changed. */
void choose_request(struct channel *c, bool starts);
void choose_input(struct channel *c);
void choose_targets(struct session *s, const struct link_target_row *rows, size_t count,
                    size_t total);
void choose_failed(struct session *s, const char *text);
/* The login at a target that was chosen from the menu failed: back to it. False: there is none. */
bool choose_again(struct session *s, const char *text);
void choose_given_back(struct session *s);
void choose_done(struct session *s);

#endif
