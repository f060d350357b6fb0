/*
 * Failed logins by source address (IPv6 by /64): a bucket of failures that drains with time. After
 * the first failures answers come later and later; a source whose bucket is full is refused until
 * half of it has drained; nobody else is, and no account is ever locked by strangers. Bounded: the
 * quietest entry makes room. A second table counts wrong codes by user: those come only from people
 * who had the first factor right. There the "address" is the user's name.
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
    bool is_blocked;         /* since it filled up, until half of it has drained */
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
/* How long the answer to a failure waits, after it was counted: the first ones cost nothing, later
 * ones more and more, bounded. */
uint32_t sources_delay_ms(struct sources *s, const char *address, const struct source_limits *l,
                          int64_t now_ms);
void sources_failed(struct sources *s, const char *address, const struct source_limits *l,
                    int64_t now_ms);
/* A login that worked forgives one failure, so that a shared address is not held up by typos. */
void sources_succeeded(struct sources *s, const char *address, const struct source_limits *l,
                       int64_t now_ms);
/* Forget a source's failures; NULL: everybody's. Returns how many were blocked. */
uint32_t sources_forget(struct sources *s, const char *address, const struct source_limits *l,
                        int64_t now_ms);

struct source_row {
    char address[64]; /* IPv6 as "2001:db8:1:2::/64" */
    uint32_t failures;
    uint32_t blocked_s; /* 0: may try */
};
typedef bool (*source_fn)(const struct source_row *row, void *arg);
/* Sources with failures that are not forgotten yet. */
void sources_each(struct sources *s, const struct source_limits *l, int64_t now_ms, source_fn fn,
                  void *arg);

/* A number for an address that is the same for one source; never 0. */
uint64_t sources_lane(const char *address);

#endif
