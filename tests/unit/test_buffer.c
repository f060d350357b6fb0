/* The growing buffer: order of bytes, the cap, the sticky failure, secrets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <sallyport/buffer.h>

static void allocates_nothing_before_the_first_byte(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init(&b, 100);
    assert_null(b.data);
    buffer_put(&b, NULL, 0);
    buffer_consume(&b, 0);
    assert_false(b.failed);
    buffer_finish(&b);
    assert_string_equal(buffer_cstr(&b), "");
    buffer_finish(&b);
}

static void writes_big_endian(void **unused)
{
    static const uint8_t want[] = {0x01, 0x02, 0x03, 0x00, 0x00, 0x00, 0x04, 0xff,
                                   0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe};
    struct buffer b;

    (void)unused;
    buffer_init(&b, 100);
    buffer_put_be(&b, 1, 1);
    buffer_put_be(&b, 0x0203, 2);
    buffer_put_be(&b, 4, 4);
    buffer_put_be(&b, UINT64_MAX - 1, 8);
    assert_int_equal(b.len, sizeof(want));
    assert_memory_equal(b.data, want, sizeof(want));
    buffer_put_be(&b, 256, 1); /* does not fit: never cut in silence */
    assert_true(b.failed);
    buffer_finish(&b);
    buffer_put_be(&b, 0, 9);
    assert_true(b.failed);
    buffer_finish(&b);
}

static void grows_to_its_cap_and_no_further(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init(&b, 1000);
    for (int i = 0; i < 1000; i++)
        buffer_put(&b, "x", 1);
    assert_false(b.failed);
    assert_int_equal(b.len, 1000);
    assert_int_equal(strlen(buffer_cstr(&b)), 1000); /* the NUL is beyond the cap */
    buffer_put(&b, "y", 1);
    assert_true(b.failed);
    assert_int_equal(b.len, 1000);
    assert_null(buffer_cstr(&b));
    buffer_reset(&b);
    assert_false(b.failed);
    buffer_put_str(&b, "again");
    assert_string_equal(buffer_cstr(&b), "again");
    buffer_finish(&b);
}

static void failure_sticks(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init(&b, 4);
    buffer_put_str(&b, "12345");
    assert_true(b.failed);
    buffer_put_str(&b, "1"); /* would fit, but the message has a hole */
    buffer_printf(&b, "%d", 1);
    buffer_put_be(&b, 1, 1);
    assert_int_equal(b.len, 0);
    buffer_finish(&b);
    buffer_init(&b, SIZE_MAX);
    buffer_put_str(&b, "x");
    assert_false(b.failed);
    buffer_finish(&b);
}

static void prints(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init(&b, 20);
    buffer_printf(&b, "%s=%d", "key", 42);
    buffer_printf(&b, " %010d", 7);
    assert_string_equal(buffer_cstr(&b), "key=42 0000000007");
    buffer_printf(&b, "%s", "four"); /* 17 + 4 > 20 */
    assert_true(b.failed);
    buffer_finish(&b);
}

static void consumes_from_the_front(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init_secret(&b, 100);
    buffer_put_str(&b, "abcdef");
    buffer_consume(&b, 2);
    assert_string_equal(buffer_cstr(&b), "cdef");
    assert_int_equal(b.data[5], 0); /* the moved tail is wiped */
    buffer_consume(&b, 4);
    assert_int_equal(b.len, 0);
    buffer_put_str(&b, "x");
    assert_string_equal(buffer_cstr(&b), "x");
    buffer_finish(&b);
}

static void secrets_are_wiped_on_reset(void **unused)
{
    struct buffer b;

    (void)unused;
    buffer_init_secret(&b, 1000);
    for (int i = 0; i < 50; i++)
        buffer_put_str(&b, "password"); /* moves several times */
    assert_int_equal(b.len, 400);
    assert_memory_equal(b.data + 392, "password", 8);
    buffer_reset(&b);
    for (size_t i = 0; i < b.cap; i++)
        assert_int_equal(b.data[i], 0);
    buffer_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocates_nothing_before_the_first_byte),
        cmocka_unit_test(writes_big_endian),
        cmocka_unit_test(grows_to_its_cap_and_no_further),
        cmocka_unit_test(failure_sticks),
        cmocka_unit_test(prints),
        cmocka_unit_test(consumes_from_the_front),
        cmocka_unit_test(secrets_are_wiped_on_reset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
