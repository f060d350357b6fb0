/* A leg's memory, when what stood in it was a reason to close it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#include "proxy/rdp/leg.h"

static void wake(void *arg)
{
    (void)arg;
}

static void closed_by_what_stood_in_it(void **state)
{
    struct event_base *base = event_base_new();
    struct leg leg;
    int pair[2];

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
    rdp_leg_init(&leg, "test");
    assert_int_equal(rdp_leg_open(&leg, pair[0], base, wake, NULL), 0);
    assert_int_equal(write(pair[1], "0123456789", 10), 10);
    leg.is_due = true;
    rdp_leg_drive(&leg);
    assert_int_equal(leg.in_len, 10);
    rdp_leg_use_secret(&leg, 4);
    assert_int_equal(leg.in_len, 6);
    rdp_leg_close(&leg);
    rdp_leg_use(&leg, 3);
    rdp_leg_use_secret(&leg, 3);
    assert_int_equal(leg.in_len, 0);
    assert_int_equal(leg.in_start, 0);
    close(pair[1]);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_by_what_stood_in_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
