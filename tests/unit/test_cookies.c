/* Which reconnect cookies of ended sessions may be used again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/broker/cookies.h"

static const uint8_t *cookie(unsigned n)
{
    static uint8_t bytes[LINK_COOKIE];

    memset(bytes, 0, sizeof(bytes));
    bytes[0] = (uint8_t)n;
    bytes[31] = (uint8_t)(n >> 8);
    return bytes;
}

static void test_lost_only(void **state)
{
    struct cookies *c = cookies_create();

    (void)state;
    assert_false(cookies_may_return(c, cookie(1), "alice", "win01"));
    cookies_ended(c, cookie(1), "alice", "win01", true);
    cookies_ended(c, cookie(2), "alice", "win01", false);
    assert_true(cookies_may_return(c, cookie(1), "alice", "win01"));
    assert_false(cookies_may_return(c, cookie(2), "alice", "win01"));
    assert_false(cookies_may_return(c, cookie(1), "bob", "win01"));
    assert_false(cookies_may_return(c, cookie(1), "alice", "win02"));
    assert_false(cookies_may_return(c, cookie(0), "", ""));
    cookies_destroy(c);
}

/* It came back and was ended then: that is the end of the cookie, whatever follows. */
static void test_ended_stays(void **state)
{
    struct cookies *c = cookies_create();

    (void)state;
    cookies_ended(c, cookie(1), "alice", "win01", true);
    cookies_ended(c, cookie(1), "alice", "win01", false);
    assert_false(cookies_may_return(c, cookie(1), "alice", "win01"));
    cookies_ended(c, cookie(1), "alice", "win01", true);
    assert_false(cookies_may_return(c, cookie(1), "alice", "win01"));
    cookies_destroy(c);
}

static void test_bounded(void **state)
{
    struct cookies *c = cookies_create();

    (void)state;
    for (unsigned n = 0; n <= COOKIES_MAX; n++)
        cookies_ended(c, cookie(n), "alice", "win01", true);
    assert_false(cookies_may_return(c, cookie(0), "alice", "win01"));
    assert_true(cookies_may_return(c, cookie(1), "alice", "win01"));
    assert_true(cookies_may_return(c, cookie(COOKIES_MAX), "alice", "win01"));
    cookies_destroy(c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_only),
        cmocka_unit_test(test_ended_stays),
        cmocka_unit_test(test_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
