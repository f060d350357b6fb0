/*
 * Failed logins by source address (IPv6 by /64): a bucket of failures that drains with time. A
 * source whose bucket is full is refused until it has drained; nobody else is, and no account is
 * ever locked by strangers. Bounded: the quietest entry makes room.
 */
#ifndef BROKER_SOURCES_H
#define BROKER_SOURCES_H

#include <stdbool.h>
#include <stdint.h>

#define SOURCES_MAX 4096

struct source {
    uint8_t key[16];
    int64_t updated_ms;
    uint32_t milli_failures; /* thousandths, so that the drain is smooth */
    uint32_t refused;        /* since it filled up: one log line a burst */
};

struct sources {
    struct source rows[SOURCES_MAX];
    uint32_t count;
};

/* How many failures a source may have, and how long a full bucket takes to drain; burst 0: no
 * limit. */
struct source_limits {
    uint32_t burst;
    uint32_t drain_s;
};

/* 0 when the source may try now, else the seconds until it may. is_first: it just filled up. */
uint32_t sources_blocked_s(struct sources *s, const char *address, const struct source_limits *l,
                           int64_t now_ms, bool *is_first);
void sources_failed(struct sources *s, const char *address, const struct source_limits *l,
                    int64_t now_ms);
/* A login that worked forgives one failure, so that a shared address is not held up by typos. */
void sources_succeeded(struct sources *s, const char *address, const struct source_limits *l,
                       int64_t now_ms);
/* A number for an address that is the same for one source; never 0. */
uint64_t sources_lane(const char *address);

#endif
