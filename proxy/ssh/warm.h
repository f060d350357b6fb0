/*
 * Rehearsal in the gate: a handshake with ourselves, so that what libssh and OpenSSL build at first
 * use exists before the fork and is shared by every relay.
 */
#ifndef SSH_WARM_H
#define SSH_WARM_H

#include "proxy/ssh/libssh.h"

/* Best effort; leaves nothing open. */
void warm_up(ssh_bind bind);

#endif
