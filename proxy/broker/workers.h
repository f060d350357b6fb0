/*
 * A pool of threads for what blocks: password hashes, name look-ups and connects, fdatasync. A job
 * runs in a thread, its `done` runs in the loop. Threads are made when all are busy, up to the
 * maximum; jobs past the queue's cap are refused. Jobs own their memory and share nothing.
 */
#ifndef BROKER_WORKERS_H
#define BROKER_WORKERS_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct event_base;
struct workers;

struct job {
    struct job *next;              /* the pool's */
    uint64_t lane;                 /* jobs of one lane take turns with those of other lanes */
    void (*run)(struct job *job);  /* in a thread; touches the job only */
    void (*done)(struct job *job); /* in the loop; frees the job */
};

/* Returns NULL when out of memory or descriptors. */
struct workers *workers_create(struct event_base *base, unsigned max_threads, size_t max_queued);
/* Waits a moment for what is running and queued, then calls `done` for every job that was taken,
 * run or not. A thread that hangs in a dead name service or disk is left behind, with its job: the
 * process is about to end, and must not wait for it. */
void workers_destroy(struct workers *w);

/* Takes the job; ERR_FULL leaves it with the caller. A job of a lane with nothing running goes
 * before a further job of a lane that has, so one source cannot make the others wait. */
MUST_CHECK int workers_submit(struct workers *w, struct job *job);
size_t workers_waiting(struct workers *w);

#endif
