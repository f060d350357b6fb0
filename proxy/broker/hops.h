/*
 * The servers on the way to a target: the targets that its `via` names, nearest to the proxy first.
 * A user needs no grant for them: who may reach a target may reach it on its way.
 */
#ifndef BROKER_HOPS_H
#define BROKER_HOPS_H

#include <stddef.h>

#include <sallyport/errors.h>
#include <sallyport/link.h>

#include "tracker/store/store.h"

struct hops {
    size_t count;
    struct store_target at[LINK_HOPS_MAX]; /* 0 is the one that the proxy connects to */
};

/* ERR_INVALID or an error of the store with a sentence that names the hop. *out is large: keep it
 * off the stack of what calls deep. */
MUST_CHECK int hops_find(struct store *s, const struct store_target *target, struct hops *out,
                         char *err, size_t err_len);

/* Where to connect to first: of the first hop, or of the target itself. */
const char *hops_address(const struct hops *h, const struct store_target *target);

/* "a, b": for events. */
void hops_describe(const struct hops *h, char *dst, size_t len);

/* Everything that is needed to log in at t, its secret too (wipe the message). account: for a
 * target without one. ERR_CRYPTO and the like when the secret cannot be read. */
MUST_CHECK int hops_fill(struct store *s, const struct store_target *t, const char *account,
                         uint8_t number, struct link_hop *out);

#endif
