/*
 * libssh as this folder uses it. Some calls of the message queue are marked deprecated in favour of
 * server callbacks, which must answer before they return: a broker's or a target's answer takes
 * longer, so the queue it is.
 */
#ifndef SSH_LIBSSH_H
#define SSH_LIBSSH_H

#define SSH_SUPPRESS_DEPRECATED 1

#include <libssh/callbacks.h>
#include <libssh/libssh.h>
#include <libssh/server.h>

#endif
