/*
 * What the files of control/ share: the server, its clients, the caller behind each, the request
 * that is being carried out, and how a handler answers. Nobody outside includes it but the unit
 * test and the fuzzer.
 *
 * Ownership: struct control owns the clients, a client owns its current request and its
 * subscriptions. A request whose client went away while it waits for the daemon (a password being
 * hashed) is an orphan and owned by nobody but the callback that will come. Nothing is freed in a
 * callback of libevent's for the thing itself: a client is marked dead and reaped by an event of
 * the server.
 */
#ifndef CONTROL_PRIV_H
#define CONTROL_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <jansson.h>

#include <sallyport/login.h>
#include <sallyport/session.h>

#include "control/args.h"
#include "control/control.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define CONTROL_PROTOCOL_VERSION  1
#define CONTROL_CLIENTS_MAX       64
#define CONTROL_CLIENTS_PER_UID   16
#define CONTROL_CLIENTS_KEPT      8 /* of them for admins, whoever else is there */
#define CONTROL_SUBSCRIPTIONS_MAX 8
#define CONTROL_WATCHES_MAX       8
#define CONTROL_LINE_MAX          (1024 * 1024)
#define CONTROL_DEPTH_MAX         32
#define CONTROL_OUTPUT_PAUSE      (256 * 1024)      /* pages are not produced above this */
#define CONTROL_OUTPUT_MAX        (4 * 1024 * 1024) /* a client is dropped above this */
#define CONTROL_PAGE_ROWS         200
#define CONTROL_LINE_MS           10000 /* to finish a line */
#define CONTROL_CLOSE_S           5     /* to read the last words */

struct bufferevent;
struct evbuffer;
struct evconnlistener;
struct event;

/* ---- who is calling ---- */

enum control_access { ACCESS_ANY, ACCESS_SELF, ACCESS_AUDIT, ACCESS_ADMIN };

#define PEER_GROUPS_MAX 256

struct peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    gid_t groups[PEER_GROUPS_MAX];
    size_t group_count;
    bool is_guest; /* `guest` says who it is; the uid is nobody's */
    struct control_guest guest;
};

struct caller {
    enum control_access access; /* ACCESS_ANY: nobody, is refused */
    uid_t uid;
    char name[NAME_MAX_LEN + 1];    /* the local account, "uid 1000" when it has no name */
    char user[NAME_MAX_LEN + 1];    /* the proxy user linked to it, "" for none */
    char author[NAME_MAX_LEN + 16]; /* as session_info.ended_by */
    char why[192];                  /* refused: the sentence */
    bool is_guest;                  /* has no uid */
    char source[64];                /* of a guest: the client's address */
};

const char *control_access_name(enum control_access access);
/* The peer of a connected UNIX socket. */
MUST_CHECK int control_peer_of(int fd, struct peer *out);
/* Decide; looks at the store, so call it outside the store's callbacks. *out is zeros or what an
 * earlier call said. */
void control_caller_of(struct control *c, const struct peer *peer, struct caller *out);
bool control_is_uncounted(const struct control *c, uid_t uid); /* root, owner: no cap by uid */

/* ---- the command table ---- */

struct request;

struct command {
    const char *words;
    enum control_access access;
    void (*run)(struct request *r);
    const struct argument *args; /* ends with a row without a name */
    const char *help;
};

const struct command *control_command_find(const char *words);
const struct command *control_command_nearest(const char *words);
const struct command *control_command_table(size_t *count);

/* ---- parsing a line (pure; the fuzzer's door) ---- */

struct parsed {
    json_t *root; /* owned; the values borrow from it */
    json_t *id;   /* borrowed from root; NULL when it could not be read */
    const struct command *command;
    struct arg_values args;
};

/* One line without its newline. 0, or ERR_INVALID with *f; *out is filled as far as it went and is
 * finished by the caller either way. is_fatal: the line is not of this protocol at all. */
MUST_CHECK int control_parse(const char *line, size_t len, struct parsed *out, struct failure *f);
void control_parsed_finish(struct parsed *p);

/* ---- a request being carried out ---- */

/* Puts up to CONTROL_PAGE_ROWS rows into the array: 1 there is more, 0 that was all, negative: an
 * error, *f is filled in. May put none and return 1 (it looked at enough for one turn). */
typedef int (*rows_fn)(struct request *r, json_t *rows, struct failure *f);

enum request_state { REQUEST_WAITING, REQUEST_STREAMING, REQUEST_DONE };

struct request {
    TAILQ_ENTRY(request) link;     /* of the orphans */
    struct control *control;       /* not owned; NULL when the server is gone */
    struct control_client *client; /* not owned; NULL for an orphan */
    struct parsed parsed;          /* owned */
    struct caller caller;
    enum request_state state;
    bool is_pending; /* the daemon will call back */
    rows_fn fill;
    void *rows_state; /* owned through free_state */
    void (*free_state)(void *state);
    void (*then)(struct request *r); /* what waits for a password to be checked */
    struct passing *passing;         /* owned: a reply with descriptors that waits to be alone */
};

#define PASSING_FDS_MAX 2

struct passing {
    char *line;
    size_t len;
    int fds[PASSING_FDS_MAX];
    size_t count;
};

/* cmd_watch.c: send it, now that nothing is before it; free it unsent. */
void control_passing_send(struct request *r, int sock);
void control_passing_finish(struct request *r);
/* End the watches of a client that needs more than `access` for them. */
void control_watches_check(struct control_client *client, enum control_access access);

/* A handler calls exactly one of these, or sets is_pending and sees to it that one is called
 * later. JSON arguments are taken over; NULL stands for "no memory". */
void control_reply_data(struct request *r, json_t *data);
void control_reply_rows(struct request *r, json_t *rows);
void control_reply_stream(struct request *r, rows_fn fill, void *state, void (*free_state)(void *));
void control_reply_error(struct request *r, const char *code, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
void control_reply_failure(struct request *r, const struct failure *f);
/* A negative result of the store: code and sentence from it. "%s" of fmt says what failed. */
void control_reply_store(struct request *r, int result, const char *fmt, ...) PRINTF_LIKE(3, 4);
void control_failure_store(struct failure *f, struct store *s, int result, const char *what);
/* A pending request was answered: go on with its client. Frees the request of an orphan. */
void control_request_resume(struct request *r);

/* Leave an event row with the author, and a log line. user: whom it is about, or "". */
void control_event(struct request *r, const char *kind, const char *user, uint64_t session_id,
                   const char *fmt, ...) PRINTF_LIKE(5, 6);
/* Users, roles, targets or grants changed: callers are looked up again, the daemon is told. */
void control_access_changed(struct request *r);

/* ---- subscriptions ---- */

enum subscription_kind { SUBSCRIPTION_SESSIONS, SUBSCRIPTION_EVENTS };

struct session_filter {
    char user[NAME_MAX_LEN + 1]; /* "" any, likewise below */
    char target[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    int protocol;                         /* -1 any */
    int state;                            /* -1 any */
    int64_t since_wall_us, until_wall_us; /* 0: open */
    char search[129];                     /* lower case */
    bool only_flagged;
    bool has_ended; /* ended ones fit too */
};

struct event_filter {
    char user[NAME_MAX_LEN + 1];
    char kind[32];
    uint64_t session_id;
    int64_t since_wall_us;
};

struct subscription {
    TAILQ_ENTRY(subscription) link;
    enum subscription_kind kind;
    struct control_client *client; /* not owned */
    json_t *id;                    /* owned reference */
    struct session_filter sessions;
    uint64_t *shown; /* ids of sessions the client thinks are there; owned */
    size_t shown_count, shown_cap;
    struct event_filter events;
    uint64_t last_event;
};

/* NULL after answering with an error (too many). Freed with the client. */
struct subscription *control_subscribe(struct request *r, enum subscription_kind kind);
/* Queue {"id":..,"event":event} (taken over). */
void control_publish(struct subscription *s, json_t *event);
/* False: no memory. */
bool control_shown_add(struct subscription *s, uint64_t id);
bool control_shown_remove(struct subscription *s, uint64_t id); /* was it there? */

/* cmd_session.c: tell subscriptions; a tracker_watch_fn. arg is the control. */
void control_session_changed(const struct session_info *info, bool is_end, void *arg);
/* cmd_record.c: the recordings of a session (0: the newest `limit` of all), NULL with *f. */
json_t *control_recordings_json(struct request *r, uint64_t session_id, size_t limit,
                                struct failure *f);
/* activity.c: `commands` and `files` of a session; 0 or an error of the store. */
int control_activity_put(struct request *r, uint64_t session_id, json_t *data);
/* cmd_record.c: deliver new events to followers of a client. */
void control_follow_events(struct control *c, struct subscription *s);

/* ---- server and clients ---- */

struct control_client {
    TAILQ_ENTRY(control_client) link;
    struct control *control; /* not owned */
    struct bufferevent *bev;
    struct event *work;  /* takes lines, produces pages, frees requests */
    struct event *timer; /* half a line, or the last words */
    struct peer peer;
    struct caller caller;
    struct request *current;
    struct evbuffer *held; /* events that wait for the end of a reply */
    TAILQ_HEAD(, subscription) subscriptions;
    size_t subscription_count;
    struct client_watch {
        uint64_t session_id, watch;
        enum control_access needs;
    } watches[CONTROL_WATCHES_MAX];
    size_t watch_count;
    size_t scanned; /* bytes of the input that hold no newline */
    bool is_line_timed;
    bool is_eof;
    bool is_closing; /* says its last words, takes no more lines */
    bool is_dead;    /* waits for the reaper */
};

TAILQ_HEAD(control_clients, control_client);

struct control {
    struct event_base *base; /* not owned, likewise the next three */
    struct tracker *tracker;
    struct store *store;
    struct control_host host; /* copied */
    char *socket_path;
    char *admin_group;
    gid_t admin_gid;
    bool has_admin_gid;
    int64_t admin_gid_again_ms; /* when to ask for the group again */
    uid_t owner_uid;
    uid_t *refused_uids;
    size_t refused_uid_count;
    struct evconnlistener *listener;
    struct event *accept_again; /* after running out of descriptors */
    struct event *reaper;
    struct event *follow; /* while somebody follows events */
    struct tracker_watch *watch;
    dev_t socket_dev; /* so that only our own socket is unlinked */
    ino_t socket_ino;
    struct control_clients clients;
    unsigned line_ms; /* to finish a line; tests are less patient */
    size_t client_count;
    size_t event_followers;
};

/* client.c */
void control_client_start(struct control *c, int fd, const struct peer *peer,
                          const struct caller *caller);
void control_client_destroy(struct control_client *client); /* reaper and server only */
void control_client_kill(struct control_client *client);    /* marks it dead */
/* Say why and close once it is read. */
void control_client_close(struct control_client *client, const char *code, const char *text);
void control_client_send(struct control_client *client, json_t *line); /* borrowed */
void control_client_work(struct control_client *client);               /* soon */
size_t control_client_queued(const struct control_client *client);
/* Look the caller up again; closes it when access is gone. */
void control_client_refresh(struct control_client *client);
json_t *control_error_line(json_t *id, const char *code, const char *text);

/* The server goes away: requests that wait for the daemon must not touch it any more. */
void control_orphans_disown(const struct control *c);

/* server.c: somebody follows events. */
void control_follow_arm(struct control *c);

/* ---- JSON of things (reply.c) ---- */

json_t *control_json_text(const char *text);         /* bytes that are not UTF-8 are escaped */
json_t *control_json_text_or_null(const char *text); /* "" is null */
json_t *control_json_time(int64_t wall_us);          /* 0 is null */
json_t *control_json_id(uint64_t id);                /* decimal text; 0 is null */
json_t *control_json_policy(const char *overlay_text);
json_t *control_session_json(const struct session_info *info);

/* Lay what `change` names over `old` (both may be NULL): the overlay's text, or *f. */
MUST_CHECK int control_policy_text(const char *old, json_t *change, char out[STORE_POLICY_TEXT_MAX],
                                   struct failure *f);

/* cmd_daemon.c: the bytes of a file as rows {"data":"BASE64"}. fd is owned from here. */
void control_reply_file(struct request *r, int fd);

/* cmd_self.c: is the command about the caller's own user, whatever its arguments? */
bool control_is_about_self(const struct request *r);
/* cmd_user.c: hash the argument `password`, then make it the password of whom it is about. The
 * request is pending. */
void control_set_password(struct request *r);

/* ---- cmd_nla.c: NLA at the RDP door ---- */
/* Go on with `then`, once a `password` that came with rdp_nla on was found to be the user's. */
void control_nla_check(struct request *r, const char *name, void (*then)(struct request *r));
/* Set what rdp_nla says; source: the auth_source that the same request sets, or NULL. The result is
 * a store's. */
MUST_CHECK int control_set_nla(struct request *r, const char *name, const char *source);
/* Keep the hash of the request's password, when there is one and NLA is on for the user. */
void control_keep_nt_hash(struct request *r, const char *name);

/* cmd_user.c, for apply too */
MUST_CHECK int control_hash_check(const char *hash, struct failure *f);

/* cmd_target.c, for apply and dump too. Rows of the values: type, address, account, auth, secret,
 * host_key, accept_new, policy. *t is the target as it is (name "" for a new one) and becomes what
 * the arguments make of it; *secret the new secret when *has_secret_change. from_document: what
 * `policy` does not name is unset, and a secret may be missing, since a dump holds none. */
MUST_CHECK int control_target_change(const struct arg_values *values, bool from_document,
                                     struct store_target *t, struct secret *secret,
                                     bool *has_secret_change, struct failure *f);
const char *control_auth_name(enum link_target_auth auth);

/* via.c: may the targets be reached through each other as `changes` (name to via, "" none) says,
 * laid over the store? ERR_INVALID with *f: an unknown or another kind of target, a loop, too many
 * one behind the other. */
MUST_CHECK int control_check_vias(struct control *c, json_t *changes, struct failure *f);

/* handlers */
#define CONTROL_HANDLERS(X) \
    X(apply)                \
    X(backup)               \
    X(drain)                \
    X(dump)                 \
    X(event_tail)           \
    X(grant_add)            \
    X(grant_ls)             \
    X(grant_rm)             \
    X(help)                 \
    X(ping)                 \
    X(recording_ls)         \
    X(recording_read)       \
    X(reload)               \
    X(role_add)             \
    X(role_ls)              \
    X(role_rm)              \
    X(role_set)             \
    X(role_show)            \
    X(self_config)          \
    X(self_key_add)         \
    X(self_key_ls)          \
    X(self_key_rm)          \
    X(self_passwd)          \
    X(self_targets)         \
    X(source_ls)            \
    X(source_unblock)       \
    X(session_end)          \
    X(session_ls)           \
    X(session_join)         \
    X(session_message)      \
    X(session_show)         \
    X(session_stats)        \
    X(session_watch)        \
    X(shutdown)             \
    X(status)               \
    X(store_rotate_key)     \
    X(target_add)           \
    X(target_host_key)      \
    X(target_ls)            \
    X(target_rm)            \
    X(target_set)           \
    X(target_show)          \
    X(target_test)          \
    X(undrain)              \
    X(user_add)             \
    X(user_key_add)         \
    X(user_key_ls)          \
    X(user_key_rm)          \
    X(user_lock)            \
    X(user_ls)              \
    X(user_passwd)          \
    X(user_rm)              \
    X(user_set)             \
    X(user_show)            \
    X(user_totp_confirm)    \
    X(user_totp_disable)    \
    X(user_totp_enable)     \
    X(user_totp_recovery)   \
    X(user_totp_show)       \
    X(user_unlock)

#define X(name) void control_do_##name(struct request *r);
CONTROL_HANDLERS(X)
#undef X

#endif
