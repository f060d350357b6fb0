/*
 * Destinations of forwarded connections and the patterns that allow them: "any", or HOST:PORT where
 * HOST may hold * (any run of characters) and ? (one), and PORT is a number, a range (8000-8099) or
 * *. An IPv6 address stands in brackets. Pure functions; nothing is resolved, since the target does
 * that: what counts is the text that the client sent, without regard to case.
 */
#ifndef SALLYPORT_DESTINATION_H
#define SALLYPORT_DESTINATION_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define DESTINATION_MAX 264 /* HOST:PORT with its NUL; a longer host is shown cut */

MUST_CHECK bool destination_is_pattern(const char *text);
/* pattern as destination_is_pattern() accepts it; anything else allows nothing. */
MUST_CHECK bool destination_matches(const char *pattern, const char *host, uint16_t port);

/* "db01:5432", "[::1]:80"; odd bytes escaped. Returns dst. */
const char *destination_text(char dst[DESTINATION_MAX], const char *host, uint16_t port);

#endif
