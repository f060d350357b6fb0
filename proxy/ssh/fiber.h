/*
 * A function with a stack of its own that can stop in the middle and go on later, for the one call
 * of libssh that waits inside itself (a user's agent). One thread, no system call but mmap's: it
 * works inside the sandbox, and nothing runs at the same time as anything else.
 */
#ifndef SSH_FIBER_H
#define SSH_FIBER_H

#include <stdbool.h>

struct fiber;

/* NULL when out of memory. run(arg) begins at the first fiber_resume(). */
struct fiber *fiber_create(void (*run)(void *arg), void *arg);
/* Go on until it yields or ends. Not from inside a fiber, not after its end. */
void fiber_resume(struct fiber *f);
/* From inside: back to who resumed. */
void fiber_yield(void);
bool fiber_is_done(const struct fiber *f);
/* It must be done, or never begun. NULL is fine. */
void fiber_destroy(struct fiber *f);

#endif
