/*
 * When a protocol's session takes a turn: soon, when something asked for one, and at the nearest
 * time that somebody named. One turn does all the work there is; whoever wants another asks again.
 */
#ifndef RELAY_TURN_H
#define RELAY_TURN_H

#include <stdint.h>

#include <sallyport/errors.h>

struct event;
struct event_base;

struct turn {
    struct event *soon, *timer; /* owned */
    int64_t at_ms;              /* 0: no time is named */
    void (*take)(void *arg);
    void *arg;
};

/* ERR_MEMORY; turn_finish() is due all the same. */
MUST_CHECK int turn_init(struct turn *t, struct event_base *base, void (*take)(void *arg),
                         void *arg);
void turn_finish(struct turn *t); /* zeroed or finished is fine */

/* From the loop, never at once. */
void turn_want(struct turn *t);
/* No later than at_ms (clock_mono_ms). */
void turn_want_at(struct turn *t, int64_t at_ms);

#endif
