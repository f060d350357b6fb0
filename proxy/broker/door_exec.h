/*
 * The start of a command of the user's own door: a process without rights, with the four
 * descriptors that it is to have and nothing else. door.c decides; this only starts.
 */
#ifndef BROKER_DOOR_EXEC_H
#define BROKER_DOOR_EXEC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <sallyport/errors.h>

#include "proxy/broker/privileges.h"

#define DOOR_CONTROL_FD 3

struct door_exec {
    const struct identity *identity;
    const char *program;
    const char *const *argv; /* the whole of it, NULL behind the last */
    bool has_pty;
    uint16_t cols, rows;
    const char *term;
    int control_fd; /* borrowed: becomes DOOR_CONTROL_FD */
};

struct door_process {
    pid_t pid;
    int fds[3]; /* for the relay: the terminal's master and -1s, or stdin, stdout and stderr */
};

/* Start it. ERR_SYSTEM with nothing left open. The caller owns the descriptors. */
MUST_CHECK int door_exec(const struct door_exec *e, struct door_process *out);

#endif
