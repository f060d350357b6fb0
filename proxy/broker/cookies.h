/*
 * Reconnect cookies of RDP sessions that ended, by their hashes. A client that shows one again may
 * go on at the target without a password there, so the cookie goes on to the target only when its
 * session was cut off by the network, and only for the same user and target; that of a session that
 * was ended leads nowhere. Bounded: of those that ended long ago nothing is known, which denies.
 */
#ifndef BROKER_COOKIES_H
#define BROKER_COOKIES_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/link.h>

#define COOKIES_MAX 1024

struct cookies;

/* NULL when out of memory. */
struct cookies *cookies_create(void);
void cookies_destroy(struct cookies *c); /* NULL is fine */

/* The session of this cookie is over; is_lost: its client was lost. */
void cookies_ended(struct cookies *c, const uint8_t cookie[LINK_COOKIE], const char *user,
                   const char *target, bool is_lost);
bool cookies_may_return(const struct cookies *c, const uint8_t cookie[LINK_COOKIE],
                        const char *user, const char *target);

#endif
