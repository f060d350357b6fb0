/*
 * A build of the previous version of the link: it neither writes nor reads what came later, and
 * refuses a message that says it is newer. What the current build writes for it is given as bytes.
 */
#define LINK_VERSION 1

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/link/link.c"

static struct link_message m;

static void writes_without_the_new_fields(void **unused)
{
    struct buffer b;

    (void)unused;
    m.type = LINK_READY;
    memcpy(m.ready.target_version, "OpenSSH", 7);
    buffer_init(&b, LINK_MESSAGE_MAX);
    link_encode(&m, 1, &b);
    assert_false(b.failed);
    assert_int_equal(b.len, 2);
    assert_memory_equal(b.data, "\x01\x07", 2);
    buffer_reset(&b);
    link_encode(&m, 2, &b);
    assert_true(b.failed);
    buffer_finish(&b);
}

static void reads_its_own_version_only(void **unused)
{
    (void)unused;
    memset(&m, 0xaa, sizeof(m));
    assert_int_equal(link_decode(&m, (const uint8_t *)"\x01\x07", 2), 0);
    assert_string_equal(m.ready.target_version, "");
    assert_int_equal(link_decode(&m, (const uint8_t *)"\x01\x07\x00\x01x", 5), ERR_INVALID);
    assert_int_equal(link_decode(&m, (const uint8_t *)"\x02\x07\x00\x01x", 5), ERR_VERSION);
    assert_int_equal(link_decode(&m, (const uint8_t *)"\x01\x08\0\0\0\1\0\1\0\x50\0\x18\0\0", 14),
                     0);
    assert_int_equal(m.record_open.cols, 80);
    assert_int_equal(m.record_open.rows, 24);
    assert_string_equal(m.record_open.term, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(writes_without_the_new_fields),
        cmocka_unit_test(reads_its_own_version_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
