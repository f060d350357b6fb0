/*
 * Text helpers: escaping what came from outside, durations, sizes, times, names. Pure functions.
 */
#ifndef SALLYPORT_TEXT_H
#define SALLYPORT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

#define DURATION_TEXT_MAX 32
#define TIME_TEXT_MAX     40

/* Copy with truncation, always NUL-terminated. Returns false when it did not fit. */
bool text_copy(char *dst, size_t dst_len, const char *src);

/*
 * Escape for one line of a log, table or terminal: control characters (C0, DEL, C1), bidirectional
 * overrides and bytes that are not valid UTF-8 become \xNN or \u{NNNN}; a backslash becomes \\.
 * What is printed can drive no terminal and ends no line. Returns dst, NUL-terminated, cut at a
 * whole escape when dst is too small.
 */
const char *text_escape(char *dst, size_t dst_len, const char *src, size_t src_len);
void text_escape_append(struct buffer *b, const char *src, size_t src_len);

/* True when text is non-empty, at most 64 bytes and made of [A-Za-z0-9._-] only, and is neither
 * "." nor "..": user, target and role names. */
bool text_is_name(const char *text);

/* True when text is 1..128 bytes without '+' and control characters, in valid UTF-8: an account. */
bool text_is_account(const char *text);

/* `45s`, `32m`, `2h 30m`, `2d 4h`: CONTRACT's duration texts, whole units cut, never rounded. */
const char *text_duration(char *dst, size_t dst_len, uint64_t seconds);

/* The same in words for notices: `30 minutes`, `1 hour 30 minutes`, `45 seconds`. */
const char *text_duration_words(char *dst, size_t dst_len, uint64_t seconds);

/* `30s`, `10m`, `4h`, `2d`, `1h30m`, `0`; a bare number is seconds. False when it is none. */
MUST_CHECK bool text_parse_duration(const char *text, uint64_t *seconds);

/* `4096`, `64K`, `256M`, `1G` (powers of 1024). */
MUST_CHECK bool text_parse_size(const char *text, uint64_t *bytes);
const char *text_size(char *dst, size_t dst_len, uint64_t bytes); /* `64K`, parses back */

MUST_CHECK bool text_parse_u64(const char *text, uint64_t *value); /* decimal digits only */

/* ISO 8601 UTC with milliseconds and Z: 2026-11-22T05:31:07.120Z. wall_us as in clock.h. */
const char *text_time_utc(char *dst, size_t dst_len, int64_t wall_us);

/* Closest of `count` names to `text` by edit distance (at most 3), or NULL: "did you mean". */
const char *text_nearest(const char *text, const char *const *names, size_t count);

#endif
