/* Networks and addresses, and the PROXY protocol's header. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <sallyport/network.h>

#include "proxy/gate/proxy_header.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void networks(void **state)
{
    static const struct {
        const char *network, *address;
        bool is_in;
    } rows[] = {
        {"10.0.0.0/8", "10.255.1.2", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.0.0.0/8", "::ffff:10.1.1.1", true},
        {"10.9.9.9/8", "10.1.1.1", true}, /* bits behind the prefix are ignored */
        {"0.0.0.0/0", "192.0.2.1", true},
        {"0.0.0.0/0", "2001:db8::1", false},
        {"192.0.2.7", "192.0.2.7", true},
        {"192.0.2.7", "192.0.2.6", false},
        {"192.0.2.0/31", "192.0.2.1", true},
        {"192.0.2.0/31", "192.0.2.2", false},
        {"2001:db8::/32", "2001:db8:ffff::1", true},
        {"2001:db8::/33", "2001:db8:8000::1", false},
        {"::/0", "2001:db8::1", true},
        {"::/0", "192.0.2.1", false}, /* written as IPv6, meant as IPv6 */
        {"::1", "::1", true},
    };
    static const char *const bad[] = {
        "",       "10.0.0.0/33", "10.0.0/8", "::/129",      "10.0.0.0/",
        "host/8", "10.0.0.0/-1", "/8",       "10.0.0.0/8x", "1:2:3:4:5:6:7:8:9"};
    struct network n;
    uint8_t address[16];

    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_int_equal(network_parse(rows[i].network, &n), 0);
        assert_true(network_address(rows[i].address, address));
        if (network_contains(&n, address) != rows[i].is_in)
            fail_msg("%s in %s", rows[i].address, rows[i].network);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        if (network_parse(bad[i], &n) == 0)
            fail_msg("\"%s\" is taken for a network", bad[i]);
}

struct header_row {
    const char *bytes;
    size_t len;
    enum parse r;
    bool is_own;
    const char *address;
    uint16_t port;
};

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define ROW(text, ...)                      \
    {                                       \
        text, sizeof(text) - 1, __VA_ARGS__ \
    }

static const struct header_row headers[] = {
    ROW("PROXY TCP4 192.0.2.9 10.0.0.1 51022 22\r\n", PARSE_OK, false, "192.0.2.9", 51022),
    ROW("PROXY TCP6 2001:db8::9 ::1 1 65535\r\n", PARSE_OK, false, "2001:db8::9", 1),
    ROW("PROXY UNKNOWN\r\n", PARSE_OK, true, NULL, 0),
    ROW("PROXY UNKNOWN ff ff 1 1 and more\r\n", PARSE_OK, true, NULL, 0),
    ROW("PROXY TCP4 192.0.2.9 10.0.0.1 51022\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP4 192.0.2.9 10.0.0.1 51022 22 1\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP4 2001:db8::9 ::1 51022 22\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP6 192.0.2.9 10.0.0.1 51022 22\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP4 192.0.2.9 10.0.0.1 65536 22\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP4  192.0.2.9 10.0.0.1 1 22\r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY TCP4 192.0.2.9 10.0.0.1 1 22\n", PARSE_BAD, false, NULL, 0),
    ROW("PROXY \r\n", PARSE_BAD, false, NULL, 0),
    ROW("PROX", PARSE_MORE, false, NULL, 0),
    ROW("", PARSE_MORE, false, NULL, 0),
    ROW("SSH-2.0-x\r\n", PARSE_BAD, false, NULL, 0),
    ROW("proxy TCP4 192.0.2.9 10.0.0.1 1 22\r\n", PARSE_BAD, false, NULL, 0),
    ROW(V2 "\x21\x11\0\x0c\xc0\0\x02\x09\x0a\0\0\x01\xc7\x4e\0\x16", PARSE_OK, false, "192.0.2.9",
        51022),
    ROW(V2 "\x21\x11\0\x0f\xc0\0\x02\x09\x0a\0\0\x01\xc7\x4e\0\x16\x04\0\0", PARSE_OK, false,
        "192.0.2.9", 51022), /* with what else it has to say */
    ROW(V2 "\x21\x21\0\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x09"
           "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\x01\0\x16",
        PARSE_OK, false, "2001:db8::9", 1),
    ROW(V2 "\x20\0\0\0", PARSE_OK, true, NULL, 0),   /* LOCAL: a health check */
    ROW(V2 "\x21\x31\0\0", PARSE_OK, true, NULL, 0), /* from a UNIX socket */
    ROW(V2 "\x21\x11\0\x08\xc0\0\x02\x09\x0a\0\0\x01", PARSE_BAD, false, NULL, 0),
    ROW(V2 "\x11\x11\0\0", PARSE_BAD, false, NULL, 0),
    ROW(V2 "\x22\x11\0\0", PARSE_BAD, false, NULL, 0),
    ROW(V2 "\x21\x11\xff\xff", PARSE_BAD, false, NULL, 0),
};

static void proxy_headers(void **state)
{
    uint8_t address[16];

    (void)state;
    for (size_t i = 0; i < COUNT(headers); i++) {
        const struct header_row *row = &headers[i];
        struct cursor c = cursor_of(row->bytes, row->len);
        struct proxy_header h;
        enum parse r = proxy_header_parse(&c, &h);

        if (r != row->r)
            fail_msg("row %zu: %d", i, (int)r);
        if (r != PARSE_OK)
            continue;
        assert_true(cursor_at_end(&c));
        assert_int_equal(h.is_own, row->is_own);
        if (row->is_own)
            continue;
        assert_true(network_address(row->address, address));
        assert_memory_equal(h.address, address, sizeof(address));
        assert_int_equal(h.port, row->port);
    }
}

/* A header comes in pieces, and what follows it is the client's. */
static void headers_in_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(headers); i++) {
        uint8_t data[256];
        struct proxy_header h;

        if (headers[i].r != PARSE_OK)
            continue;
        memcpy(data, headers[i].bytes, headers[i].len);
        memcpy(data + headers[i].len, "SSH-2.0", 7);
        for (size_t n = 0; n <= headers[i].len + 7; n++) {
            struct cursor c = cursor_of(data, n);

            assert_int_equal(proxy_header_parse(&c, &h),
                             n < headers[i].len ? PARSE_MORE : PARSE_OK);
            assert_int_equal(c.at - data, n < headers[i].len ? 0 : headers[i].len);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks),
        cmocka_unit_test(proxy_headers),
        cmocka_unit_test(headers_in_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
