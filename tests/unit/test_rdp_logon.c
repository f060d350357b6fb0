/* The secret of automatic reconnection in Save Session Info is found, and nothing else is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

static size_t make(uint8_t *body, uint32_t type, uint32_t fields, uint32_t version)
{
    memset(body, 0xee, 64);
    put_le32(body, type);
    put_le16(body + 4, 42);
    put_le32(body + 6, fields);
    put_le32(body + 10, 28);
    put_le32(body + 14, 28);
    put_le32(body + 18, version);
    put_le32(body + 22, 7);
    return 42;
}

static void the_cookie_is_found(void **state)
{
    struct logon_cookie cookie;
    uint8_t body[64];
    size_t len = make(body, 3, 1, 1);

    (void)state;
    assert_true(logon_cookie_parse(cursor_of(body, len), &cookie));
    assert_ptr_equal(cookie.bits, body + 26);
    assert_int_equal(cookie.logon_id, 7);
    for (size_t n = 0; n < len; n++)
        assert_false(logon_cookie_parse(cursor_of(body, n), &cookie));
}

static void what_is_none(void **state)
{
    static const uint32_t rows[][3] = {{0, 1, 1}, {2, 1, 1}, {3, 2, 1}, {3, 1, 2}};
    struct logon_cookie cookie;
    uint8_t body[64];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len = make(body, rows[i][0], rows[i][1], rows[i][2]);

        assert_false(logon_cookie_parse(cursor_of(body, len), &cookie));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cookie_is_found),
        cmocka_unit_test(what_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
