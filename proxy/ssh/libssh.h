/*
 * libssh as this folder uses it. Some calls of the message queue are marked deprecated in favour of
 * server callbacks, which must answer before they return: a broker's or a target's answer takes
 * longer, so the queue it is.
 */
#ifndef SSH_LIBSSH_H
#define SSH_LIBSSH_H

#define SSH_SUPPRESS_DEPRECATED 1

#include <stdbool.h>
#include <string.h>

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>

/* Bytes past the window: libssh 0.10 hands them over all the same; 0.11 loses them, goes on, and
 * says so here only. */
static inline bool libssh_has_lost_bytes(ssh_session ssh)
{
    return strncmp(ssh_get_error(ssh), "Window exceeded", 15) == 0;
}

#endif
