/*
 * Password hashes (yescrypt by libxcrypt) off the loop. Checking an unknown user costs the same as
 * a known one: the caller passes no hash and a dummy is used.
 */
#ifndef BROKER_HASHER_H
#define BROKER_HASHER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/secret.h>

struct workers;

/* Prepare the dummy hash: blocks some 80 ms, once, at start-up. */
MUST_CHECK int hasher_init(void);

typedef void (*hasher_check_fn)(bool is_right, void *arg);
typedef void (*hasher_make_fn)(const char *hash, void *arg); /* "" when it failed */

/*
 * hash      "" for an unknown user: the answer is false after the same work
 * password  copied, and wiped in the copy
 * lane      the source it came from, see workers.h; not 0
 *
 * ERR_FULL when too many wait. The answer comes from the loop, never before the call returns.
 */
MUST_CHECK int hasher_check(struct workers *w, const char *hash, const void *password, size_t len,
                            uint64_t lane, hasher_check_fn done, void *arg);
MUST_CHECK int hasher_make(struct workers *w, const struct secret *password, hasher_make_fn done,
                           void *arg);

#endif
