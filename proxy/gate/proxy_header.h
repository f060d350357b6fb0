/*
 * The header that a load balancer puts before a connection: the PROXY protocol, versions 1 and 2.
 * Pure; fuzzed.
 */
#ifndef GATE_PROXY_HEADER_H
#define GATE_PROXY_HEADER_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/cursor.h>

#define PROXY_HEADER_MAX \
    2048 /* version 1 has 107 at most; version 2 may carry more than addresses */

struct proxy_header {
    bool is_own; /* LOCAL or UNKNOWN: the balancer speaks for itself, or does not know for whom */
    uint8_t address[16]; /* the client's, as in sallyport/network.h */
    uint16_t port;
};

/* PARSE_OK moves the cursor behind the header. */
enum parse proxy_header_parse(struct cursor *c, struct proxy_header *out);

#endif
