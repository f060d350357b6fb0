/*
 * Address classes, one table of prefixes (IANA special-purpose registries, RFC 6890 and its
 * updates). Everything is looked up as IPv6: an IPv4 address is ::ffff:a.b.c.d, which IPv4-mapped
 * clients of a dual-stack listener are anyway. Pure; the tracker and the replies call it.
 */
#include "tracker/location.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sallyport/network.h>

#define V4(a, b, c, d)                                       \
    {                                                        \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d \
    }

static const struct {
    struct network network;
    const char *name;
} classes[] = {
    /* the first that fits */
    {{V4(127, 0, 0, 0), 96 + 8, true}, "loopback"},
    {{V4(10, 0, 0, 0), 96 + 8, true}, "private"},
    {{V4(172, 16, 0, 0), 96 + 12, true}, "private"},
    {{V4(192, 168, 0, 0), 96 + 16, true}, "private"},
    {{V4(100, 64, 0, 0), 96 + 10, true}, "carrier-nat"},
    {{V4(169, 254, 0, 0), 96 + 16, true}, "link-local"},
    {{V4(192, 0, 2, 0), 96 + 24, true}, "documentation"},
    {{V4(198, 51, 100, 0), 96 + 24, true}, "documentation"},
    {{V4(203, 0, 113, 0), 96 + 24, true}, "documentation"},
    {{V4(224, 0, 0, 0), 96 + 4, true}, "multicast"},
    {{V4(0, 0, 0, 0), 96 + 8, true}, ""}, /* "this network" is nobody's address */
    {{V4(0, 0, 0, 0), 96, true}, "public"},
    {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, false}, "loopback"},
    {{{0}, 128, false}, ""},
    {{{0xfe, 0x80}, 10, false}, "link-local"},
    {{{0xfc}, 7, false}, "unique-local"},
    {{{0x20, 0x01, 0x0d, 0xb8}, 32, false}, "documentation"},
    {{{0x3f, 0xff}, 20, false}, "documentation"},
    {{{0xff}, 8, false}, "multicast"},
    {{{0}, 0, false}, "public"},
};

static bool parse(const char *text, uint8_t out[16])
{
    char plain[NETWORK_TEXT_MAX];
    size_t len = strcspn(text, "%"); /* fe80::1%eth0 */

    if (len >= sizeof(plain))
        return false;
    memcpy(plain, text, len);
    plain[len] = '\0';
    return network_address(plain, out);
}

const char *location_of(const char *numeric_address)
{
    uint8_t address[16];

    if (!numeric_address || !parse(numeric_address, address))
        return "";
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        if (network_contains(&classes[i].network, address))
            return classes[i].name;
    }
    return "";
}
