/* Messages of static channels in chunks, and the devices that a client announces in them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/chunks.h"
#include "proxy/rdp/le.h"

#define FIRST  1u
#define LAST   2u
#define PACKED 0x200000u

/* 'h' is held, 'd' dropped, all else passes. */
static enum chunks_verdict judge(struct cursor begin, bool is_all)
{
    if (cursor_at_end(&begin))
        return is_all ? CHUNKS_PASS : CHUNKS_DROP;
    return *begin.at == 'h' ? CHUNKS_WHOLE : *begin.at == 'd' ? CHUNKS_DROP : CHUNKS_PASS;
}

static enum chunks_verdict take(struct chunks *c, uint32_t flags, const char *text,
                                struct cursor *whole)
{
    static struct buffer b;
    enum chunks_verdict v;

    buffer_finish(&b);
    buffer_init(&b, TPKT_MAX);
    buffer_put_le32(&b, 99); /* the length that it tells is not looked at */
    buffer_put_le32(&b, flags);
    buffer_put(&b, text, strlen(text));
    v = chunks_take(c, cursor_of(b.data, b.len), judge, whole);
    return v;
}

static void test_order(void **state)
{
    struct chunks c;
    struct cursor whole;

    (void)state;
    chunks_init(&c);
    assert_int_equal(take(&c, FIRST | LAST, "pass", &whole), CHUNKS_PASS);
    assert_int_equal(take(&c, FIRST | LAST, "", &whole), CHUNKS_PASS);
    assert_int_equal(take(&c, FIRST | LAST, "drop", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "hold", &whole), CHUNKS_WHOLE);
    assert_memory_equal(whole.at, "hold", 4);

    /* held from the first to the last */
    assert_int_equal(take(&c, FIRST, "he", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, 0, "ld", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, LAST, "!", &whole), CHUNKS_WHOLE);
    assert_int_equal(cursor_left(&whole), 5);
    assert_memory_equal(whole.at, "held!", 5);

    /* what passes goes on, whatever its middle looks like */
    assert_int_equal(take(&c, FIRST, "p", &whole), CHUNKS_PASS);
    assert_int_equal(take(&c, 0, "h", &whole), CHUNKS_PASS);
    assert_int_equal(take(&c, LAST, "d", &whole), CHUNKS_PASS);

    /* a middle or an end of nothing */
    assert_int_equal(take(&c, 0, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, LAST, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "p", &whole), CHUNKS_PASS);

    /* too short to be judged */
    assert_int_equal(take(&c, FIRST, "", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, LAST, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "p", &whole), CHUNKS_PASS);

    /* a beginning inside */
    assert_int_equal(take(&c, FIRST, "p", &whole), CHUNKS_PASS);
    assert_int_equal(take(&c, FIRST, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, LAST, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "p", &whole), CHUNKS_PASS);

    /* compressed */
    assert_int_equal(take(&c, FIRST | LAST | PACKED, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | PACKED, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, LAST, "p", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "p", &whole), CHUNKS_PASS);
    chunks_finish(&c);
}

static void test_bound(void **state)
{
    static char big[CHUNKS_HELD_MAX / 2];
    struct chunks c;
    struct cursor whole;

    (void)state;
    memset(big, 'h', sizeof(big) - 1);
    chunks_init(&c);
    assert_int_equal(take(&c, FIRST, big, &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, 0, big, &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, 0, big, &whole), CHUNKS_DROP); /* one too many */
    assert_int_equal(take(&c, LAST, "h", &whole), CHUNKS_DROP);
    assert_int_equal(take(&c, FIRST | LAST, "h", &whole), CHUNKS_WHOLE);
    chunks_finish(&c);
}

/* What is written is read back, whatever its length. */
static void test_pieces(void **state)
{
    static uint8_t message[3 * CHUNKS_PIECE];
    static const size_t lens[] = {1, CHUNKS_PIECE, CHUNKS_PIECE + 1, sizeof(message)};

    (void)state;
    memset(message, 'h', sizeof(message));
    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        enum chunks_verdict v = CHUNKS_DROP;
        struct cursor c, whole = {0};
        struct chunks chunks;
        struct mcs_pdu pdu;
        struct frame f;
        struct buffer b;

        buffer_init(&b, TPKT_MAX);
        chunks_init(&chunks);
        chunks_put(&b, MCS_DATA_INDICATION, 1002, 1004, cursor_of(message, lens[i]));
        assert_false(b.failed);
        c = cursor_of(b.data, b.len);
        while (!cursor_at_end(&c)) {
            assert_int_equal(v, CHUNKS_DROP);
            assert_int_equal(frame_next(&c, TPKT_MAX, &f), PARSE_OK);
            assert_int_equal(mcs_parse(frame_body(&f), &pdu), PARSE_OK);
            assert_int_equal(pdu.channel, 1004);
            v = chunks_take(&chunks, pdu.data, judge, &whole);
        }
        assert_int_equal(v, CHUNKS_WHOLE);
        assert_int_equal(cursor_left(&whole), lens[i]);
        chunks_finish(&chunks);
        buffer_finish(&b);
    }
}

/* A drive and a printer. */
static const char announce[] = "rDAD\x02\0\0\0"
                               "\x08\0\0\0\x01\0\0\0SHARE\0\0\0\x02\0\0\0xy"
                               "\x04\0\0\0\x02\0\0\0PRN1\0\0\0\0\0\0\0\0";

static void test_devices(void **state)
{
    const size_t len = sizeof(announce) - 1;
    struct cursor all = cursor_of(announce, len);
    struct buffer b;

    (void)state;
    buffer_init(&b, TPKT_MAX);
    assert_int_equal(devices_judge(all, true), CHUNKS_WHOLE);
    assert_int_equal(devices_judge(cursor_of(announce, 3), false), CHUNKS_DROP);
    assert_int_equal(devices_judge(cursor_of(announce, 3), true), CHUNKS_PASS);
    assert_int_equal(devices_judge(cursor_of("rDCI", 4), false), CHUNKS_PASS);
    assert_true(devices_filter(all, DEVICE_PRINT, &b));
    assert_int_equal(b.len, 8 + 20);
    assert_int_equal(b.data[4], 1);
    assert_memory_equal(b.data + 16, "PRN1", 4);
    buffer_reset(&b);
    assert_true(devices_filter(all, 0, &b));
    assert_int_equal(b.len, 8);
    buffer_reset(&b);
    assert_true(devices_filter(all, DEVICE_PRINT | DEVICE_FILESYSTEM, &b));
    assert_int_equal(b.len, len);
    assert_memory_equal(b.data, announce, len);
    assert_false(devices_filter(cursor_of("rDCI\0\0\0\0", 8), DEVICE_PRINT, &b));
    for (size_t n = 0; n < len; n++) /* cut anywhere, nothing of it goes on */
        assert_false(devices_filter(cursor_of(announce, n), DEVICE_PRINT, &b));
    buffer_finish(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_devices),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
