/*
 * Who may be forked, who waits, who goes: the policy for connections that are not logged in. Pure
 * data structures under a clock that the caller gives; no system calls, so that the tests can play
 * days of attacks in a millisecond. gate.c does what parking_next() says.
 *
 * A guest is one accepted connection: PARKED while it has no process, FORKED while its relay is
 * not logged in, EVICTED from the kill until the process is gone. At login it leaves the books.
 */
#ifndef GATE_PARKING_H
#define GATE_PARKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sallyport/errors.h>

#define PARKING_NEVER         INT64_MAX
#define PARKING_SILENT_MIN_MS 1000 /* a younger relay has had no time to hear its client */
#define PARKING_LEEWAY_MS     5000 /* past login grace a relay that has not ended itself is ended */

/* Who a client is, by its socket or by the PROXY header before its first byte. */
struct client_name {
    uint8_t address[16]; /* as in sallyport/network.h */
    uint16_t port;
};

struct parking;
struct parking_source;

/* Where a connection comes from, as limits see it: an IPv4 address, an IPv6 /64. */
struct source_key {
    uint8_t family; /* 4 or 6 */
    uint8_t address[8];
};
struct source_key source_key_of(const uint8_t address[16]);

struct parking_limits {
    uint32_t max_total;      /* processes that are not logged in, at least 1 */
    uint32_t max_per_source; /* of these, from one source, at least 1 */
    uint32_t max_parked;
    uint32_t login_grace_s;
};

enum guest_state { GUEST_PARKED, GUEST_FORKED, GUEST_EVICTED };

struct guest {
    TAILQ_ENTRY(guest) entry; /* in arrival order while parked, in fork order later */
    enum guest_state state;   /* parking.c sets it */
    struct parking_source *source;
    int64_t accepted_ms, forked_ms;
    bool has_spoken;                /* while parked: bytes are waiting */
    const volatile uint8_t *spoken; /* while forked: set by the relay at the first byte */
    int pid;                        /* 0 while parked */
    bool is_gone;                   /* while parked: the client went away */

    /* visitors.c's own */
    int fd; /* -1 once forked */
    struct client_name client;
    void *event;
    void *owner;
};

enum parking_what {
    PARKING_WAIT,  /* nothing is due before wake_ms */
    PARKING_FORK,  /* a place is free for `guest`: parking_forked() or parking_remove() it */
    PARKING_EVICT, /* end the process of `guest`, which parking_next() has marked */
    PARKING_CLOSE  /* gone, parked too long, or too many: close and parking_remove() it */
};

struct parking_step {
    enum parking_what what;
    struct guest *guest;
    int64_t wake_ms;
};

struct parking *parking_create(const struct parking_limits *limits, uint64_t seed);
void parking_destroy(struct parking *p); /* frees all guests; their descriptors are the caller's */
void parking_set_limits(struct parking *p, const struct parking_limits *limits);

/* A connection was accepted. NULL when out of memory. */
struct guest *parking_add(struct parking *p, const struct source_key *key, int64_t now_ms);
/* Bytes of a parked guest are there. */
void parking_spoke(struct parking *p, struct guest *g);
/* A parked guest's client went away: parking_next() will close it. */
void parking_gone(struct parking *p, struct guest *g);
/* The first of the newest parked guests that nobody watches for bytes yet (`event` is NULL). */
struct guest *parking_unwatched(struct parking *p);
/* It has a process now. */
void parking_forked(struct parking *p, struct guest *g, int pid, const volatile uint8_t *spoken,
                    int64_t now_ms);
/* By process; NULL when it is not in the books (any more). */
struct guest *parking_find(struct parking *p, int pid);
/* Logged in, gone or closed: out of the books, freed. */
void parking_remove(struct parking *p, struct guest *g);

/* The parked guest that can best be spared when descriptors run out, or NULL. */
struct guest *parking_sparable(struct parking *p);

/* What to do now; call it again until it says PARKING_WAIT. */
struct parking_step parking_next(struct parking *p, int64_t now_ms);

uint32_t parking_forked_count(const struct parking *p); /* evicted ones included */
uint32_t parking_parked_count(const struct parking *p);

#endif
