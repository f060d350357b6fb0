/*
 * Times as people type and read them: local times, ages, positions in a recording. Pure but for
 * the clock and the time zone.
 */
#ifndef CONTROL_CLI_WHEN_H
#define CONTROL_CLI_WHEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

/*
 * "2026-11-22", "2026-11-22 10:00[:05]" and "10:00[:05]" (today) in local time, the same with a T,
 * with Z or an offset (+02:00) ISO 8601, "now", "today", "yesterday", or an age: "2h" is two hours
 * ago. Writes what to do to err when it is none of these.
 */
MUST_CHECK bool when_parse(const char *text, int64_t *wall_us, char *err, size_t err_len);

/* ISO 8601 UTC as the daemon writes it; false when it is not. */
MUST_CHECK bool when_parse_iso(const char *text, int64_t *wall_us);

/* A position: SS, MM:SS or HH:MM:SS, each with an optional fraction. Or with a unit: 90s, 2m. */
MUST_CHECK bool when_parse_position(const char *text, double *seconds);

/* Seconds as typed for a speed or a pause: "2", "0.5", "2s", "1m". */
MUST_CHECK bool when_parse_seconds(const char *text, double *seconds);

/* Local time: "2026-11-22 10:31:07"; is_short leaves the date out when it is today's, and the
 * seconds when it is not. Returns dst. */
const char *when_local(char *dst, size_t dst_len, int64_t wall_us, bool is_short);

#endif
