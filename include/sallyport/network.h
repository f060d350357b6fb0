/*
 * Networks as people write them ("10.0.0.0/8", "2001:db8::/32", "192.0.2.7") and whether an address
 * is in one. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d, so that there is one way to compare;
 * ::/0 holds no IPv4 address all the same. Pure.
 */
#ifndef SALLYPORT_NETWORK_H
#define SALLYPORT_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define NETWORK_TEXT_MAX 64

struct sockaddr;

struct network {
    uint8_t address[16];
    uint8_t bits; /* of the 128 */
    bool is_v4;
};

/* ERR_INVALID: no address, or a prefix that does not fit it. Bits behind the prefix are ignored. */
MUST_CHECK int network_parse(const char *text, struct network *out);
bool network_contains(const struct network *n, const uint8_t address[16]);

/* ::ffff:a.b.c.d, which is how IPv4 is written here. */
bool network_is_v4(const uint8_t address[16]);

/* False: neither IPv4 nor IPv6. */
bool network_address(const char *text, uint8_t out[16]);
bool network_address_of(const struct sockaddr *sa, uint8_t out[16], uint16_t *port);
/* As text, IPv4 with dots. dst has NETWORK_TEXT_MAX bytes. Returns dst. */
const char *network_address_text(const uint8_t address[16], char *dst);

#endif
