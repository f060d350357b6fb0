/*
 * The activity page: one sealed page of shared memory a session, made by the broker. The relay
 * writes its half at every byte, without a message; the tracker reads. It outlives a killed relay,
 * so totals are exact. A relay is not trusted: what the tracker reads is clamped like any input.
 *
 * No wake-up is missed: the relay stores the input time, then a seq_cst fence, then loads `flags`
 * and says RESUMED when idle or warned is set. The broker sets the flag, fence, then reads the
 * input time again and clears the flag if it is newer.
 */
#ifndef SALLYPORT_ACTIVITY_H
#define SALLYPORT_ACTIVITY_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define ACTIVITY_MAGIC   UINT32_C(0x53504143) /* "SPAC" */
#define ACTIVITY_VERSION 1
#define ACTIVITY_SIZE    4096

#define ACTIVITY_FLAG_IDLE   1u
#define ACTIVITY_FLAG_WARNED 2u

struct activity_page {
    /* written once by the broker, before the relay sees the page */
    uint32_t magic;
    uint32_t version;
    uint64_t session_id;
    int64_t started_mono_ms;
    int64_t started_wall_us;

    /* the relay's cache lines */
    alignas(64) _Atomic uint64_t bytes_in;
    _Atomic uint64_t bytes_out;
    _Atomic int64_t last_input_ms; /* clock_mono_ms; what `input` counts */
    _Atomic int64_t last_output_ms;
    _Atomic int64_t last_activity_ms; /* what the policy's `counts` counts; drives idle */
    _Atomic uint32_t holds_active;    /* channels that are active by themselves (running exec) */
    _Atomic uint32_t channels_open;

    /* the broker's cache line */
    alignas(64) _Atomic uint32_t flags;
};

/* Broker: make, seal and map a page. Returns the mapping (unmap with activity_unmap) and the
 * descriptor in *fd (close-on-exec, the caller closes), or NULL with errno. */
struct activity_page *activity_create(uint64_t session_id, int *fd);

/* Map a page that came from another process: checks seals, exact size, magic and version.
 * Returns NULL when any is wrong. fd is borrowed. */
struct activity_page *activity_map(int fd);
void activity_unmap(struct activity_page *page);

/* Relay: count bytes and stamp activity. Returns true when the broker has set idle or warned since:
 * then say RESUMED. */
MUST_CHECK bool activity_input(struct activity_page *page, uint64_t bytes, bool is_activity,
                               int64_t now_ms);
MUST_CHECK bool activity_output(struct activity_page *page, uint64_t bytes, bool is_activity,
                                int64_t now_ms);

/* Broker: set `flag` unless activity newer than seen_ms arrived meanwhile; true when it was set. */
MUST_CHECK bool activity_flag(struct activity_page *page, uint32_t flag, int64_t seen_ms);
void activity_unflag(struct activity_page *page, uint32_t flags);

/* Broker: the last activity, clamped to [started, now]; `now` while a channel holds it active. */
int64_t activity_last_ms(const struct activity_page *page, int64_t now_ms);

#endif
