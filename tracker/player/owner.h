/*
 * Whose connection it is: a loopback port can be reached by every user of the machine, and a
 * recording is not everybody's. The kernel says who owns the other end.
 */
#ifndef PLAYER_OWNER_H
#define PLAYER_OWNER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct owner {
    int fd;        /* /proc/net/tcp */
    uint16_t port; /* of the listener */
    uint32_t own, other;
};

/* other: a second user who may connect, UINT32_MAX for none. Before the sandbox. */
MUST_CHECK int owner_init(struct owner *o, int listener, uint32_t other);
void owner_finish(struct owner *o);
/* May the peer of a connection that was just accepted be served? *uid is its user, UINT32_MAX when
 * that cannot be found. */
bool owner_may(const struct owner *o, const struct sockaddr_in *peer, uint32_t *uid);

/* The same from the text of /proc/net/tcp; its own end is the remote one there. */
bool owner_find(const char *table, const struct sockaddr_in *peer, uint16_t port, uint32_t *uid);

#endif
