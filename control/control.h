/*
 * The control server: control.sock, newline-delimited JSON (control/PROTOCOL.md), one command
 * table. Peer credentials decide who the caller is; identity is never a field. It acts through the
 * tracker, the store and the few verbs of the daemon below, and never touches a leg.
 */
#ifndef CONTROL_CONTROL_H
#define CONTROL_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/secret.h>

struct event_base;
struct store;
struct tracker;
struct control;

struct control_status {
    char version[32];
    char node[65];
    int32_t pid;
    int64_t started_wall_us;
    bool is_draining;
    uint32_t sessions; /* live */
    uint32_t links;    /* relays connected, sessions or not */
    uint32_t unauthenticated, parked;
    uint64_t accepted, evicted, adopted;
    uint64_t history_queued, history_lost;
    uint64_t recording_free; /* bytes free where recordings go */
    char config_path[256];
    int64_t config_loaded_wall_us;
    char listeners[512]; /* "ssh [::]:2222, ..." */
    char
        ssh_address[300]; /* HOST[:PORT] that users reach the SSH door at; "" when not configured */
    char ssh_fallback[300]; /* what it is likely to be: this host's name and the port */
};

/* A password hash is ready (hash "" when hashing failed). Called from the loop. */
typedef void (*control_hashed_fn)(const char *hash, void *arg);
/* A password was compared. Called from the loop. */
typedef void (*control_checked_fn)(bool is_right, void *arg);

/* An address from which logins failed. */
struct control_source {
    const char *address; /* borrowed for the call */
    uint32_t failures;
    uint32_t blocked_s; /* so much longer; 0: is not */
};
typedef bool (*control_source_fn)(const struct control_source *source, void *arg);

struct store_target;

/* What a test of a target tried: one row a step, each server on the way before the target. */
struct control_probe_row {
    char target[65];
    uint8_t step;   /* enum link_probe_step */
    uint8_t result; /* enum link_probe_result */
    char text[256];
};

struct control_probe_report {
    const struct control_probe_row *rows; /* borrowed for the call */
    size_t count;
    bool is_ok;         /* it came to its end and nothing failed for good */
    char key_type[64];  /* the host key that the target showed; "" when it did not come to that */
    const uint8_t *key; /* RFC 4253 §6.6 format */
    size_t key_len;
};
typedef void (*control_probed_fn)(const struct control_probe_report *report, void *arg);

/* What the daemon does for commands. */
struct control_host {
    void *arg;
    void (*status)(void *arg, struct control_status *out);
    /* Reload as SIGHUP does; the report (one line a change, or the errors) goes to `report`. */
    int (*reload)(void *arg, struct buffer *report);
    void (*drain)(void *arg, bool on, const char *author);
    /* Drain, then end sessions with a notice after in_s, then stop. */
    void (*shutdown)(void *arg, uint32_t in_s, const char *author);
    /* yescrypt off the loop; the secret is copied and wiped. ERR_FULL when too many wait. */
    int (*hash_password)(void *arg, const struct secret *password, control_hashed_fn done,
                         void *done_arg);
    /* Is this the user's password? source: the address that asks, "" when it is this machine; a
     * wrong one counts there as a failed login does. The secret is copied and wiped. ERR_FULL. */
    int (*check_password)(void *arg, const char *user, const char *source,
                          const struct secret *password, control_checked_fn done, void *done_arg);
    /* Users, targets, grants or roles changed: policies of live sessions are resolved again, and
     * sessions whose user is locked or gone, or whose grant is gone, end as `revoked`. */
    void (*access_changed)(void *arg, const char *author);
    const char *(*recording_dir)(void *arg);
    /* Look on in a live session's channel (0: the newest terminal); may_type: and type there.
     * Fills descriptors that are the caller's, fds[1] -1 when it is not recorded; negative with a
     * sentence in err. */
    int (*watch)(void *arg, uint64_t session_id, uint32_t *channel, bool may_type, const char *who,
                 int fds[2], uint64_t *watch, char *err, size_t err_len);
    /* Whoever asked for it is gone, or may not any more. */
    void (*unwatch)(void *arg, uint64_t session_id, uint64_t watch);
    /* A code of the user's second factor, or a recovery code; used up when it is right. 0,
     * ERR_DENIED, ERR_FULL after too many wrong ones, ERR_SYSTEM. */
    int (*check_code)(void *arg, const char *user, const char *code);
    /* Sources with failed logins; and forget those of one (NULL: all): ERR_INVALID when it is no
     * address. *count: how many were blocked. */
    void (*sources)(void *arg, control_source_fn fn, void *fn_arg);
    int (*source_unblock)(void *arg, const char *address, uint32_t *count);
    /* Reach a target and log in there as `account` in a process of its own; only_key: no further
     * than its host key. The target need not be in the store, those on its way must. The answer
     * comes from the loop. ERR_FULL when too many are under way. */
    int (*probe)(void *arg, const struct store_target *target, const char *account, bool only_key,
                 control_probed_fn done, void *done_arg);
};

struct control_options {
    const char *socket_path;
    const char *admin_group;   /* a missing group is a warning */
    uid_t owner_uid;           /* of an unprivileged daemon: an admin; (uid_t)-1 for none */
    const uid_t *refused_uids; /* of gates and relays */
    size_t refused_uid_count;
};

/* Bind the socket (umask, mode, an existing socket of ours is replaced, anything else is refused)
 * and serve. Up to 64 clients, each bounded; a slow reader is dropped with a reason. */
struct control *control_create(struct event_base *base, struct tracker *tracker,
                               struct store *store, const struct control_host *host,
                               const struct control_options *options, char *err, size_t err_len);
/* A caller who is no local account: a proxy user who is logged in by a protocol of the proxy. */
struct control_guest {
    char user[65];
    char source[64];  /* the client's address */
    char address[96]; /* what the client connected to, as the relay says: for `self config` only */
    bool may_have_role;    /* the rights of the user's role; without it those of any user */
    bool may_not_add_keys; /* the login ends by itself: by a certificate */
};

/* Serve a connected stream socket whose other end speaks for the guest. fd is owned from here.
 * ERR_FULL when there are too many clients, ERR_MEMORY. */
MUST_CHECK int control_adopt(struct control *c, int fd, const struct control_guest *guest);

/* Stop serving and unlink the socket. NULL is fine. */
void control_destroy(struct control *c);

#endif
