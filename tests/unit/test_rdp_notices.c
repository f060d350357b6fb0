/* What notices know of a desktop, and what they write: pointers, palettes, surfaces, compression.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/banner.h"
#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/gfx.h"
#include "proxy/rdp/le.h"
#include "proxy/rdp/planes.h"
#include "proxy/rdp/pointer.h"
#include "proxy/rdp/rle.h"

/* ---- what the target draws ---- */

static struct output_facts fast(const char *bytes, size_t len)
{
    struct output_facts o = {0};

    assert_int_equal(fastpath_output_scan(cursor_of(bytes, len), &o), PARSE_OK);
    return o;
}

#define FAST(text) fast(text, sizeof(text) - 1)

static void test_pointers_of_the_fast_path(void **state)
{
    struct output_facts o = FAST("\x05\0\0");

    (void)state;
    assert_true(o.has_pointer && !o.has_drawn && o.pointer.kind == POINTER_HIDDEN);
    o = FAST("\x06\0\0");
    assert_true(o.has_pointer && o.pointer.kind == POINTER_DEFAULT);
    o = FAST("\x08\x04\0\1\2\3\4"); /* it moves: no other shape */
    assert_false(o.has_pointer || o.has_drawn);
    o = FAST("\x0a\x02\0\x07\0");
    assert_true(o.has_pointer && o.pointer.kind == POINTER_CACHED);
    assert_int_equal(o.pointer.slot, 7);
    o = FAST("\x09\x04\0\x03\0zz"); /* colors: the slot first */
    assert_int_equal(o.pointer.slot, 3);
    o = FAST("\x0b\x06\0\x20\0\x04\0zz"); /* new: behind the depth */
    assert_int_equal(o.pointer.slot, 4);
    o = FAST("\x2c\x06\0\x20\0\x05\0zz"); /* large, the first fragment */
    assert_true(o.is_open && o.pointer.slot == 5);
    o = FAST("\x1c\x02\0zz"); /* and the last: nothing to read in it */
    assert_false(o.has_pointer || o.is_open);
    o = FAST("\x8b\x20\x06\0\x20\0\x04\0zz"); /* compressed */
    assert_int_equal(o.pointer.kind, POINTER_UNREADABLE);
    o = FAST("\x8b\x00\x06\0\x20\0\x04\0zz"); /* it might have been */
    assert_int_equal(o.pointer.kind, POINTER_CACHED);
    o = FAST("\x0b\x03\0\x20\0\x04"); /* too short */
    assert_int_equal(o.pointer.kind, POINTER_UNREADABLE);
    o = FAST("\x01\x01\0z\x0a\x02\0\x07\0");
    assert_true(o.has_drawn && o.has_pointer);
    o = FAST("\x03\0\0");
    assert_false(o.has_drawn || o.has_pointer);
}

static struct output_facts slow(uint8_t type, bool is_compressed, const char *bytes, size_t len)
{
    struct share_pdu pdu = {.type = SHARE_DATA,
                            .data_type = type,
                            .is_compressed = is_compressed,
                            .body = cursor_of(bytes, len)};
    struct output_facts o = {.is_open = true};

    slowpath_output_scan(&pdu, &o);
    assert_true(o.is_open); /* of the fast path: not touched */
    return o;
}

static void test_pointers_of_the_slow_path(void **state)
{
    struct output_facts o = slow(DATA_POINTER, false, "\1\0\0\0\0\0\0\0", 8);

    (void)state;
    assert_int_equal(o.pointer.kind, POINTER_HIDDEN);
    o = slow(DATA_POINTER, false, "\1\0\0\0\0\x7f\0\0", 8);
    assert_true(o.has_pointer && o.pointer.kind == POINTER_DEFAULT);
    o = slow(DATA_POINTER, false, "\7\0\0\0\x09\0", 6);
    assert_int_equal(o.pointer.slot, 9);
    o = slow(DATA_POINTER, false, "\10\0\0\0\x20\0\x0b\0", 8);
    assert_int_equal(o.pointer.slot, 11);
    o = slow(DATA_POINTER, false, "\3\0\0\0\1\0\1\0", 8);
    assert_false(o.has_pointer);
    o = slow(DATA_POINTER, true, "\10\0\0\0\x20\0\x0b\0", 8);
    assert_int_equal(o.pointer.kind, POINTER_UNREADABLE);
    o = slow(DATA_POINTER, false, "\10\0", 2);
    assert_false(o.has_pointer);
    o = slow(DATA_UPDATE, false, "\1\0", 2);
    assert_true(o.has_drawn && !o.has_pointer);
    o = slow(DATA_CONTROL, false, "\1\0", 2);
    assert_false(o.has_drawn);
}

static void test_palettes(void **state)
{
    char update[8 + PALETTE_LEN] = {2, 0, 0, 0, 0, 1, 0, 0};
    char pdu[3 + sizeof(update)] = {2, 8, 3};
    struct output_facts o;

    (void)state;
    memset(update + 8, 'p', PALETTE_LEN);
    memcpy(pdu + 3, update, sizeof(update));
    o = fast(pdu, sizeof(pdu));
    assert_int_equal(cursor_left(&o.palette), PALETTE_LEN);
    o = slow(DATA_UPDATE, false, update, sizeof(update));
    assert_int_equal(cursor_left(&o.palette), PALETTE_LEN);
    o = slow(DATA_UPDATE, false, update, sizeof(update) - 1);
    assert_true(cursor_at_end(&o.palette));
    update[5] = 2;
    o = slow(DATA_UPDATE, false, update, sizeof(update));
    assert_true(cursor_at_end(&o.palette));
}

/* ---- pointers of ours ---- */

static void test_the_last_slot_is_taken(void **state)
{
    uint8_t usual[] = {1, 0, 20, 0, 21, 0}, more[] = {1, 0, 25, 0, 20, 0},
            one[] = {1, 0, 1, 0, 1, 0};

    (void)state;
    assert_int_equal(pointer_reserve(usual), 20);
    assert_memory_equal(usual, ((uint8_t[]){1, 0, 20, 0, 20, 0}), 6);
    assert_int_equal(pointer_reserve(more), 19);
    assert_memory_equal(more, ((uint8_t[]){1, 0, 19, 0, 19, 0}), 6);
    assert_int_equal(pointer_reserve(one), 0);
    assert_memory_equal(one, ((uint8_t[]){1, 0, 1, 0, 1, 0}), 6);
}

static void test_pointers_of_ours_can_be_read(void **state)
{
    const struct pointer kinds[] = {
        {POINTER_DEFAULT, 0}, {POINTER_HIDDEN, 0}, {POINTER_CACHED, 12}};

    (void)state;
    for (size_t i = 0; i < 8; i++) {
        struct bitmap_target t = {.bpp = 32, .is_fastpath = i < 4, .io_channel = 1003};
        struct output_facts o = {0};
        struct buffer b;
        struct cursor c;
        struct frame f;

        buffer_init(&b, TPKT_MAX);
        if (i % 4 == 3)
            pointer_badge_put(&b, &t, 19);
        else
            pointer_put(&b, &t, &kinds[i % 4]);
        assert_false(b.failed);
        c = cursor_of(b.data, b.len);
        assert_int_equal(frame_next(&c, TPKT_MAX, &f), PARSE_OK);
        assert_true(cursor_at_end(&c));
        if (f.kind == FRAME_FASTPATH) {
            assert_int_equal(fastpath_output_scan(frame_body(&f), &o), PARSE_OK);
        } else {
            struct share_pdu share;
            struct mcs_pdu pdu;

            assert_int_equal(mcs_parse(frame_body(&f), &pdu), PARSE_OK);
            assert_int_equal(share_next(&pdu.data, &share), PARSE_OK);
            slowpath_output_scan(&share, &o);
        }
        assert_true(o.has_pointer);
        assert_int_equal(o.pointer.kind, i % 4 == 3 ? POINTER_CACHED : kinds[i % 4].kind);
        if (o.pointer.kind == POINTER_CACHED)
            assert_int_equal(o.pointer.slot, i % 4 == 3 ? 19 : 12);
        buffer_finish(&b);
    }
}

/* ---- the graphics channel ---- */

static bool server(struct gfx_state *g, const char *bytes, size_t len)
{
    return gfx_server_scan(cursor_of(bytes, len), g);
}

static void client(struct gfx_state *g, const char *bytes, size_t len)
{
    gfx_client_scan(cursor_of(bytes, len), g);
}

#define SERVER(g, text) server(g, text, sizeof(text) - 1)
#define CLIENT(g, text) client(g, text, sizeof(text) - 1)
#define CREATE          "\x24\0\0\0\3\0\0\0\x10\x07" DVC_NAME_GRAPHICS "\0"
#define ACKNOWLEDGE     "\x0e\0\0\0\3\0\0\0\x30\x07\x0d\0\0\0\x14\0\0\0"

static void test_frames_or_bitmaps(void **state)
{
    struct gfx_state g = {0};

    (void)state;
    CLIENT(&g, ACKNOWLEDGE);
    assert_false(gfx_is_live(&g));
    SERVER(&g, CREATE);
    CLIENT(&g, "\x06\0\0\0\3\0\0\0\x10\x07\1\0\0\xc0"); /* the client would not */
    CLIENT(&g, ACKNOWLEDGE);
    assert_false(gfx_is_live(&g));
    SERVER(&g, CREATE);
    CLIENT(&g, "\x06\0\0\0\3\0\0\0\x10\x07\0\0\0\0");
    CLIENT(&g, "\x0e\0\0\0\3\0\0\0\x30\x07\x12\0\0\0\x14\0\0\0"); /* capabilities: no frame yet */
    CLIENT(&g, "\x0e\0\0\0\3\0\0\0\x30\x08\x0d\0\0\0\x14\0\0\0"); /* of another channel */
    assert_false(gfx_is_live(&g));
    assert_false(SERVER(&g, "\x03\0\0\0\3\0\0\0\x30\x07z"));
    CLIENT(&g, ACKNOWLEDGE);
    assert_true(gfx_is_live(&g));
    assert_true(SERVER(&g, "\x03\0\0\0\3\0\0\0\x30\x07z"));
    assert_false(SERVER(&g, "\x03\0\0\0\3\0\0\0\x30\x08z"));
    SERVER(&g, "\x02\0\0\0\3\0\0\0\x40\x07");
    assert_false(gfx_is_live(&g));
}

static void test_between_messages(void **state)
{
    struct gfx_state g = {0};

    (void)state;
    SERVER(&g, CREATE);
    assert_true(gfx_is_between(&g));
    SERVER(&g, "\x06\0\0\0\3\0\0\0\x24\x07\x08\0zz"); /* two of eight */
    assert_false(gfx_is_between(&g));
    SERVER(&g, "\x06\0\0\0\3\0\0\0\x24\x08\x08\0zz"); /* of another channel */
    SERVER(&g, "\x05\0\0\0\3\0\0\0\x30\x07zzz");
    assert_int_equal(g.left, 3);
    SERVER(&g, "\x05\0\0\0\1\0\0\0\x30\x07z"); /* in two chunks */
    assert_int_equal(g.left, 0);
    assert_false(gfx_is_between(&g));
    SERVER(&g, "\x05\0\0\0\2\0\0\0zz");
    assert_true(gfx_is_between(&g));
    SERVER(&g, "\x06\0\0\0\3\0\0\0\x64\x07\x08\0zz"); /* compressed: who knows */
    assert_false(gfx_is_between(&g));
    SERVER(&g, CREATE);
    assert_true(gfx_is_between(&g));
    SERVER(&g, "\x06\0\0\0\3\0\x20\0zzzzzz");
    assert_false(gfx_is_between(&g));
}

static void test_a_reset(void **state)
{
    static const char reset[] = "\x16\0\0\0\3\0\0\0\x30\x07\xe0\x04\x0e\0\0\0\x54\1\0\0"
                                "\x20\3\0\0\x58\2\0\0";
    struct gfx_state g = {0};

    (void)state;
    SERVER(&g, CREATE);
    server(&g, reset, sizeof(reset) - 1);
    assert_int_equal(g.width, 800);
    assert_int_equal(g.height, 600);
    assert_int_equal(g.left, 0);
}

/* What was written is whole messages, which come to the pixels of the picture. */
static void check_surface(uint32_t id)
{
    struct gfx_state g = {.is_asked = true, .is_open = true, .is_live = true, .id = id};
    size_t pixels = 0, frames = 0;
    struct picture p;
    struct cursor c;
    struct buffer b;
    struct frame f;

    assert_int_equal(draw_box(&p, "You have been disconnected", 1920, 1080), 0);
    buffer_init(&b, 8u << 20);
    gfx_picture_put(&b, &g, 1007, &p, 10, 20);
    assert_false(b.failed);
    c = cursor_of(b.data, b.len);
    while (frame_next(&c, TPKT_MAX, &f) == PARSE_OK) {
        struct mcs_pdu pdu;
        struct dvc_head h;
        uint32_t len;

        frames++;
        assert_int_equal(mcs_parse(frame_body(&f), &pdu), PARSE_OK);
        assert_int_equal(pdu.channel, 1007);
        assert_true(cursor_left(&pdu.data) <= 1608);
        gfx_server_scan(pdu.data, &g);
        assert_false(g.is_opaque || g.is_chunk);
        assert_true(cursor_skip(&pdu.data, 8) && dvc_head_parse(&pdu.data, &h));
        assert_int_equal(h.channel, id);
        if (h.cmd == DVC_DATA_FIRST)
            assert_true(cursor_le32(&pdu.data, &len) && len <= 65535);
        pixels += cursor_left(&pdu.data);
    }
    assert_true(cursor_at_end(&c));
    assert_true(gfx_is_between(&g));
    assert_true(frames > 5 && pixels > (size_t)p.width * p.height * 4);
    buffer_finish(&b);
    picture_finish(&p);
}

static void test_a_surface(void **state)
{
    (void)state;
    check_surface(7);
    check_surface(700);
    check_surface(0x12345);
}

/* ---- compression ---- */

/* As clients read it. Returns false when it does not fill the picture exactly. */
static bool read_planes(struct cursor c, uint8_t *out, size_t width, size_t height)
{
    uint8_t format, control, value;

    if (!cursor_u8(&c, &format) || format != 0x30)
        return false;
    for (size_t plane = 0; plane < 3; plane++)
        for (size_t row = 0; row < height; row++) {
            size_t x = 0;
            uint8_t *line = out + (plane * height + row) * width;

            for (value = 0; x < width;) {
                size_t run, raws;

                if (!cursor_u8(&c, &control))
                    return false;
                run = control & 15u;
                raws = control >> 4;
                if (run == 1 || run == 2) {
                    run = run * 16 + raws;
                    raws = 0;
                }
                if (x + run + raws > width)
                    return false;
                while (raws-- > 0) {
                    if (!cursor_u8(&c, &value))
                        return false;
                    line[x++] = value;
                }
                while (run-- > 0)
                    line[x++] = value;
            }
            for (x = 0; row > 0 && x < width; x++) {
                int delta = line[x] & 1 ? -(line[x] >> 1) - 1 : line[x] >> 1;

                line[x] = (uint8_t)(line[x - width] + delta);
            }
        }
    return cursor_at_end(&c);
}

static void check_planes(const struct picture *p)
{
    uint8_t *planes = malloc((size_t)3 * p->width * p->height);
    struct buffer b;

    buffer_init(&b, 8u << 20);
    planes_put(&b, p);
    assert_false(b.failed);
    assert_non_null(planes);
    assert_true(read_planes(cursor_of(b.data, b.len), planes, p->width, p->height));
    for (size_t i = 0; i < (size_t)p->width * p->height; i++) {
        size_t row = p->height - 1u - i / p->width, at = row * p->width + i % p->width;

        for (size_t plane = 0; plane < 3; plane++)
            assert_int_equal(planes[plane * p->width * p->height + at],
                             p->pixels[i] >> (16 - 8 * plane) & 0xff);
    }
    buffer_finish(&b);
    free(planes);
}

static void test_planes(void **state)
{
    uint32_t pixels[64 * 40];
    struct picture p, noise = {64, 40, pixels};

    (void)state;
    srand(1);
    for (int round = 0; round < 50; round++) {
        for (size_t i = 0; i < sizeof(pixels) / sizeof(pixels[0]); i++)
            pixels[i] = i && rand() % (round + 1) ? pixels[i - 1] : (uint32_t)rand() & 0xffffff;
        check_planes(&noise);
    }
    assert_int_equal(draw_box(&p, "Idle for 1 minute", 1024, 768), 0);
    check_planes(&p);
    picture_finish(&p);
}

/* ---- monitors ---- */

static struct gcc_monitor primary_of(const int32_t monitors[][5], uint32_t count, uint32_t told)
{
    bool is_dropped[MCS_CHANNELS_MAX] = {false};
    struct gcc_patch patch = {.selected = 1, .has_extended = true, .is_dropped = is_dropped};
    struct gcc_client c = {0}, out;
    uint8_t core[140] = {0x01, 0xc0, 140, 0, 4, 0, 8, 0};
    struct buffer blocks, b;

    buffer_init(&blocks, TPKT_MAX);
    buffer_init(&b, TPKT_MAX);
    buffer_put(&blocks, core, sizeof(core));
    buffer_put_le16(&blocks, CS_MONITOR);
    buffer_put_le16(&blocks, (uint16_t)(12 + 20 * count));
    buffer_put_le32(&blocks, 0);
    buffer_put_le32(&blocks, told);
    for (uint32_t i = 0; i < count; i++)
        for (size_t n = 0; n < 5; n++)
            buffer_put_le32(&blocks, (uint32_t)monitors[i][n]);
    c.blocks = cursor_of(blocks.data, blocks.len);
    gcc_client_put(&b, &c, &patch);
    assert_int_equal(gcc_client_parse(cursor_of(b.data, b.len), &out), PARSE_OK);
    buffer_finish(&blocks);
    buffer_finish(&b);
    return out.primary;
}

static void test_the_primary_monitor(void **state)
{
    static const int32_t left[][5] = {{0, 0, 1919, 1079, 1}, {-1280, -24, -1, 999, 0}};
    static const int32_t right[][5] = {{0, 0, 1919, 1079, 1}, {1920, 0, 3839, 1079, 0}};
    static const int32_t none[][5] = {{0, 0, 99, 99, 0}, {100, 0, 199, 99, 0}};
    static const int32_t lies[][5] = {{INT32_MAX, INT32_MIN, INT32_MIN, INT32_MAX, 1},
                                      {INT32_MIN, INT32_MIN, 0, 0, 1}};
    struct gcc_monitor m = primary_of(left, 2, 2);

    (void)state;
    assert_int_equal(m.left, 1280);
    assert_int_equal(m.top, 24);
    assert_int_equal(m.width, 1920);
    assert_int_equal(m.height, 1080);
    m = primary_of(right, 2, 2);
    assert_true(m.left == 0 && m.top == 0 && m.width == 1920);
    assert_int_equal(primary_of(right, 1, 1).width, 0);
    assert_int_equal(primary_of(right, 2, 3).width, 0);
    assert_int_equal(primary_of(right, 2, 0xffffffff).width, 0);
    assert_int_equal(primary_of(none, 2, 2).width, 0);
    assert_int_equal(primary_of(lies, 2, 2).width, 0);
}

static void test_banner(void **state)
{
    static const uint16_t sizes[][2] = {{100, 100}, {640, 480}, {1920, 1080}, {8192, 8192}};
    char longest[500];
    struct picture p;

    (void)state;
    memset(longest, 'w', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    draw_load_font(NULL);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(banner_draw(&p, longest, sizes[i][0], sizes[i][1]), 0);
        assert_true(p.width <= sizes[i][0] && p.height <= sizes[i][1] && p.width % 4 == 0);
        picture_finish(&p);
        assert_int_equal(banner_draw(&p, "Idle for 1 minute", sizes[i][0], sizes[i][1]), 0);
        assert_true(p.height < sizes[i][1]);
        picture_finish(&p);
    }
    assert_int_equal(banner_draw(&p, "x", 99, 200), ERR_INVALID);
    draw_unload_font();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pointers_of_the_fast_path),
        cmocka_unit_test(test_pointers_of_the_slow_path),
        cmocka_unit_test(test_palettes),
        cmocka_unit_test(test_the_last_slot_is_taken),
        cmocka_unit_test(test_pointers_of_ours_can_be_read),
        cmocka_unit_test(test_frames_or_bitmaps),
        cmocka_unit_test(test_between_messages),
        cmocka_unit_test(test_a_reset),
        cmocka_unit_test(test_a_surface),
        cmocka_unit_test(test_planes),
        cmocka_unit_test(test_the_primary_monitor),
        cmocka_unit_test(test_banner),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
