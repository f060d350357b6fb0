/* Boxes of text as pictures, with the font and without, and as bitmap updates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/wire.h"

static const uint16_t screens[][2] = {{100, 100},  {320, 200},   {640, 480},   {800, 600},
                                      {1024, 768}, {1920, 1080}, {3840, 2160}, {8192, 8192}};

static size_t count(const struct picture *p, uint32_t color)
{
    size_t n = 0;

    for (size_t i = 0; i < (size_t)p->width * p->height; i++)
        n += p->pixels[i] == color;
    return n;
}

static void check_boxes(void)
{
    char longest[1200];
    struct picture p;

    memset(longest, 'w', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < sizeof(screens) / sizeof(screens[0]); i++) {
        const char *texts[] = {
            "You have been disconnected: idle for 30 minutes", "",      "x",
            "gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x91 \xff bytes",  longest, "two\nlines"};

        for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
            assert_int_equal(draw_box(&p, texts[t], screens[i][0], screens[i][1]), 0);
            assert_true(p.width <= screens[i][0] && p.height <= screens[i][1]);
            assert_int_equal(p.width % 4, 0);
            if (t == 0 && screens[i][0] >= 320)
                assert_true(count(&p, 0xffffff) > 50);
            picture_finish(&p);
        }
    }
    assert_int_equal(draw_box(&p, "x", 99, 99), ERR_INVALID);
    assert_int_equal(draw_box(&p, "x", 0, 0), ERR_INVALID);
}

static void test_with_font(void **state)
{
    (void)state;
    draw_load_font(NULL);
    check_boxes();
    draw_unload_font();
}

static void test_without_font(void **state)
{
    (void)state;
    draw_load_font("/nonexistent");
    check_boxes();
}

/* Every update is a whole frame of one rectangle, and together they are the picture. */
static void check_updates(uint16_t bpp, bool is_fastpath)
{
    uint8_t palette[PALETTE_LEN];
    struct bitmap_target t = {
        .bpp = bpp, .palette = palette, .is_fastpath = is_fastpath, .io_channel = 1003};
    struct picture p;
    struct buffer b;
    struct cursor c;
    struct frame f;
    size_t frames = 0;
    struct output_facts facts = {0};

    palette_fill(palette);
    assert_int_equal(draw_box(&p, "You have been disconnected", 1920, 1080), 0);
    buffer_init(&b, 16u << 20);
    bitmap_put(&b, &t, &p, 10, 20);
    assert_false(b.failed);
    c = cursor_of(b.data, b.len);
    while (frame_next(&c, TPKT_MAX, &f) == PARSE_OK) {
        frames++;
        assert_true(f.len < 13000);
        assert_int_equal(f.kind, is_fastpath ? FRAME_FASTPATH : FRAME_TPKT);
        if (is_fastpath) {
            assert_int_equal(fastpath_output_scan(frame_body(&f), &facts), PARSE_OK);
            assert_false(facts.is_open);
        } else {
            struct mcs_pdu pdu;

            assert_int_equal(mcs_parse(frame_body(&f), &pdu), PARSE_OK);
            assert_int_equal(pdu.channel, 1003);
        }
    }
    assert_true(cursor_at_end(&c));
    assert_true(frames >= 2);
    assert_true(bpp == 8 || b.len < (size_t)p.width * p.height * ((bpp + 7u) / 8u) / 2);
    buffer_finish(&b);
    picture_finish(&p);
}

static void test_updates(void **state)
{
    static const uint16_t depths[] = {8, 15, 16, 24, 32};

    (void)state;
    for (size_t i = 0; i < 5; i++) {
        assert_true(bitmap_can_show(depths[i]));
        check_updates(depths[i], true);
        check_updates(depths[i], false);
    }
    assert_false(bitmap_can_show(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_with_font),
        cmocka_unit_test(test_without_font),
        cmocka_unit_test(test_updates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
