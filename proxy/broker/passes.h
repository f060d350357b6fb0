/*
 * The passes that are out: each lets one relay of a jump in, once. Kept here from the moment when
 * the broker makes one until the relay shows it or its life is over. Pure data under a clock that
 * the caller gives; a pass that an earlier broker made is taken once as well, within its life.
 */
#ifndef BROKER_PASSES_H
#define BROKER_PASSES_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "proxy/broker/ticket.h"

#define PASS_LIFE_MS    60000
#define PASSES_MAX      4096
#define PASSES_PER_USER 64

struct passes;

/* started_ms: passes from before it are of an earlier broker. NULL when out of memory. */
struct passes *passes_create(int64_t started_ms);
void passes_destroy(struct passes *p);

/* Fill nonce and issued_ms of a pass whose other fields are set, and remember it. ERR_FULL when too
 * many are out, in all or of this user; ERR_SYSTEM without random numbers. */
MUST_CHECK int passes_issue(struct passes *p, struct pass *pass, int64_t now_ms);

/* Somebody shows it: 0 once, then ERR_DENIED for ever. The caller has checked its HMAC. */
MUST_CHECK int passes_take(struct passes *p, const struct pass *pass, int64_t now_ms);

/* Out now; for tests and limits. */
size_t passes_count(const struct passes *p);

#endif
