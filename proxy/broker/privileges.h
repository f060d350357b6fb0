/*
 * The broker's identity. Started by root it becomes `user`, keeping only what it needs to start
 * gates (CAP_SETUID, CAP_SETGID, CAP_SYS_CHROOT, for them to give up), to kill relays of another
 * uid (CAP_KILL) and to bind ports below 1024 after a reload (CAP_NET_BIND_SERVICE).
 */
#ifndef BROKER_PRIVILEGES_H
#define BROKER_PRIVILEGES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <sallyport/errors.h>

struct identity {
    bool is_root; /* started by root */
    uid_t uid;    /* of the broker */
    gid_t gid;
    uid_t relay_uid;
    gid_t relay_gid;
};

/* Look the two users up when started by root; otherwise everything is the caller's. */
MUST_CHECK int identity_find(struct identity *id, const char *user, const char *relay_user,
                             char *err, size_t err_len);
/* Become the broker's user, for good. Nothing to do unless started by root. */
MUST_CHECK int identity_take(const struct identity *id, char *err, size_t err_len);
/* In a forked child that is about to exec a gate: pass the gate's capabilities on, drop the rest.
 */
MUST_CHECK int identity_prepare_gate(const struct identity *id);

/* Make a directory of the broker's user with this mode, or check that the one that is there
 * belongs to it. Before identity_take(). */
MUST_CHECK int identity_make_dir(const struct identity *id, const char *path, mode_t mode,
                                 char *err, size_t err_len);

#endif
