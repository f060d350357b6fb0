/*
 * Life without a broker, as a decision: given what the relay knows, what is due now and when to
 * look again. Pure; relay.c asks and acts. The sentences are those of the broker.
 */
#ifndef RELAY_ALONE_H
#define RELAY_ALONE_H

#include <stdint.h>

#include <sallyport/policy.h>

#define ALONE_NEVER INT64_MAX

enum alone_verdict {
    ALONE_WAIT,
    ALONE_WARN, /* say so once for this `last_ms` */
    ALONE_END_IDLE,
    ALONE_END_MAX_DURATION,
    ALONE_END_BROKER_LOST
};

/* All times are clock_mono_ms(). */
struct alone_view {
    int64_t since_ms;      /* when the broker went */
    int64_t started_ms;    /* of the session */
    int64_t last_ms;       /* last activity; now while a channel holds the session active or it is
                              not yet logged in at its target */
    int64_t warned_for_ms; /* last_ms of the newest warning; 0 for none */
    uint32_t broker_lost_after_s; /* 0: never */
    const struct policy *policy;
};

/* *wake_ms: when to ask again, ALONE_NEVER when only activity can change anything. */
enum alone_verdict alone_check(const struct alone_view *v, int64_t now_ms, int64_t *wake_ms);

/* The sentence of an end or of the warning. */
const char *alone_sentence(char *dst, size_t dst_len, enum alone_verdict verdict,
                           const struct alone_view *v);

#endif
