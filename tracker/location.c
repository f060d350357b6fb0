/*
 * Address classes, one table of prefixes (IANA special-purpose registries, RFC 6890 and its
 * updates). Everything is looked up as IPv6: an IPv4 address is ::ffff:a.b.c.d, which IPv4-mapped
 * clients of a dual-stack listener are anyway. Pure; the tracker and the replies call it.
 */
#include "tracker/location.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define V4(a, b, c, d)                                       \
    {                                                        \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d \
    }

static const struct {
    uint8_t prefix[16];
    uint8_t bits;
    const char *name;
} classes[] = {
    /* the first that fits */
    {V4(127, 0, 0, 0), 96 + 8, "loopback"},
    {V4(10, 0, 0, 0), 96 + 8, "private"},
    {V4(172, 16, 0, 0), 96 + 12, "private"},
    {V4(192, 168, 0, 0), 96 + 16, "private"},
    {V4(100, 64, 0, 0), 96 + 10, "carrier-nat"},
    {V4(169, 254, 0, 0), 96 + 16, "link-local"},
    {V4(192, 0, 2, 0), 96 + 24, "documentation"},
    {V4(198, 51, 100, 0), 96 + 24, "documentation"},
    {V4(203, 0, 113, 0), 96 + 24, "documentation"},
    {V4(224, 0, 0, 0), 96 + 4, "multicast"},
    {V4(0, 0, 0, 0), 96 + 8, ""}, /* "this network" is nobody's address */
    {V4(0, 0, 0, 0), 96, "public"},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, "loopback"},
    {{0}, 128, ""},
    {{0xfe, 0x80}, 10, "link-local"},
    {{0xfc}, 7, "unique-local"},
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "documentation"},
    {{0x3f, 0xff}, 20, "documentation"},
    {{0xff}, 8, "multicast"},
    {{0}, 0, "public"},
};

static bool has_prefix(const uint8_t address[16], const uint8_t prefix[16], unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(address, prefix, whole) != 0)
        return false;
    return !rest || ((address[whole] ^ prefix[whole]) >> (8 - rest)) == 0;
}

static bool parse(const char *text, uint8_t out[16])
{
    static const uint8_t mapped[16] = V4(0, 0, 0, 0);
    char plain[64];
    size_t len = strcspn(text, "%"); /* fe80::1%eth0 */

    if (len >= sizeof(plain))
        return false;
    memcpy(plain, text, len);
    plain[len] = '\0';
    memcpy(out, mapped, sizeof(mapped));
    return inet_pton(AF_INET, plain, out + 12) == 1 || inet_pton(AF_INET6, plain, out) == 1;
}

const char *location_of(const char *numeric_address)
{
    uint8_t address[16];

    if (!numeric_address || !parse(numeric_address, address))
        return "";
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (has_prefix(address, classes[i].prefix, classes[i].bits))
            return classes[i].name;
    }
    return "";
}
