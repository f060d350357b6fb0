/* The login screen without a client: keys, layouts, fields, list, mouse, and its pixels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/events.h"
#include "proxy/rdp/form.h"
#include "proxy/rdp/keyboard.h"
#include "proxy/rdp/rle.h"

#define ACCENT 0x2a6db0u

static const uint16_t screens[][2] = {{100, 100},  {320, 200},   {640, 480},   {800, 600},
                                      {1366, 768}, {1920, 1080}, {3840, 2160}, {8192, 8192},
                                      {8192, 100}, {200, 8192},  {1, 1}};

static enum form_action key(struct form *f, enum form_key k, bool is_shift)
{
    const struct form_input in = {.kind = FORM_KEY, .key = k, .is_shift = is_shift};

    return form_input(f, &in);
}

static enum form_action type(struct form *f, const char *text)
{
    enum form_action a = FORM_NOTHING;

    for (; *text; text++) {
        const struct form_input in = {.kind = FORM_CHAR, .character = (uint8_t)*text};

        a = form_input(f, &in);
    }
    return a;
}

static enum form_action mouse(struct form *f, enum form_input_kind kind, int x, int y, int64_t ms)
{
    const struct form_input in = {.kind = kind, .x = x, .y = y, .now_ms = ms};

    return form_input(f, &in);
}

static enum form_action click(struct form *f, const struct rect *r)
{
    (void)mouse(f, FORM_PRESS, r->x + r->width / 2, r->y + r->height / 2, 1);
    return mouse(f, FORM_RELEASE, r->x + r->width / 2, r->y + r->height / 2, 2);
}

static void expect_field(const struct form *f, unsigned i, const char *expected)
{
    char text[FORM_FIELD_MAX * 4 + 8];

    assert_true(form_field_text(&f->fields[i], text, sizeof(text)));
    assert_string_equal(text, expected);
}

static void open_login(struct form *f, uint16_t width, uint16_t height)
{
    form_init(f, width, height);
    form_open(f, FORM_LOGIN, "Sallyport", "");
    form_set_label(f, 0, "User", false);
    form_set_label(f, 1, "Password", true);
}

static void open_list(struct form *f, size_t count)
{
    struct link_target_row row;

    form_init(f, 800, 600);
    form_open(f, FORM_TARGETS, "Choose", "");
    for (size_t i = 0; i < count; i++) {
        memset(&row, 0, sizeof(row));
        snprintf(row.target, sizeof(row.target), "win%03zu", i);
        snprintf(row.account, sizeof(row.account), "%s", i % 2 ? "CORP\\bob" : "eve");
        row.last_used_wall_us = i == 7 ? 1000 : 0;
        assert_true(form_add_rows(f, &row, 1, count));
    }
}

/* ---- fields ---- */

static void test_editing(void **state)
{
    struct form f;

    (void)state;
    open_login(&f, 800, 600);
    type(&f, "alicia");
    key(&f, FORM_KEY_BACKSPACE, false);
    key(&f, FORM_KEY_BACKSPACE, false);
    type(&f, "ce");
    expect_field(&f, 0, "alicce");
    key(&f, FORM_KEY_LEFT, false);
    key(&f, FORM_KEY_BACKSPACE, false);
    expect_field(&f, 0, "alice");
    key(&f, FORM_KEY_HOME, false);
    key(&f, FORM_KEY_BACKSPACE, false);
    key(&f, FORM_KEY_DELETE, false);
    expect_field(&f, 0, "lice");
    key(&f, FORM_KEY_END, false);
    key(&f, FORM_KEY_DELETE, false);
    key(&f, FORM_KEY_RIGHT, false);
    type(&f, "!");
    expect_field(&f, 0, "lice!");
    form_set_field(&f, 0, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x91");
    assert_int_equal(f.fields[0].len, 6);
    expect_field(&f, 0, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x91");
    form_set_field(&f, 0, "ab\xff\xff");
    expect_field(&f, 0, "ab");
    for (int i = 0; i < 2 * FORM_FIELD_MAX; i++)
        type(&f, "x");
    assert_int_equal(f.fields[0].len, FORM_FIELD_MAX);
    form_finish(&f);
}

static void test_what_cannot_be_typed(void **state)
{
    static const uint32_t bad[] = {0, 7, '\n', 0x7f, 0x9b, 0xd800, 0xdfff, 0x110000, 0xffffffff};
    struct form f;

    (void)state;
    open_login(&f, 800, 600);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct form_input in = {.kind = FORM_CHAR, .character = bad[i]};

        (void)form_input(&f, &in);
    }
    assert_int_equal(f.fields[0].len, 0);
    form_finish(&f);
}

/* Tab goes round, Enter to what is missing; nothing is sent without a password. */
static void test_the_way_through(void **state)
{
    static const enum form_part order[] = {FORM_PART_SECOND, FORM_PART_OK, FORM_PART_CANCEL,
                                           FORM_PART_FIELD};
    struct form f;

    (void)state;
    open_login(&f, 800, 600);
    for (size_t i = 0; i < 4; i++) {
        key(&f, FORM_KEY_TAB, false);
        assert_int_equal(f.focus, order[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        key(&f, FORM_KEY_TAB, true);
        assert_int_equal(f.focus, order[(6 - i) % 4]);
    }
    key(&f, FORM_KEY_TAB, false);
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_NOTHING);
    assert_int_equal(f.focus, FORM_PART_FIELD);
    type(&f, "alice");
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_NOTHING);
    assert_int_equal(f.focus, FORM_PART_SECOND);
    assert_int_equal(type(&f, "secret"), FORM_NOTHING);
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_SUBMIT);
    key(&f, FORM_KEY_TAB, false);
    assert_int_equal(type(&f, " "), FORM_SUBMIT);
    key(&f, FORM_KEY_TAB, false);
    assert_int_equal(type(&f, " "), FORM_CANCEL);
    assert_int_equal(key(&f, FORM_KEY_ESCAPE, false), FORM_CANCEL);
    form_finish(&f);
}

/* While something is checked only leaving is possible. */
static void test_busy(void **state)
{
    struct form_layout l;
    struct form f;

    (void)state;
    open_login(&f, 800, 600);
    type(&f, "alice\tx");
    form_set_status(&f, "Checking ...", false, true);
    form_layout(&f, &l);
    type(&f, "more");
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_NOTHING);
    assert_int_equal(click(&f, &l.ok), FORM_NOTHING);
    assert_int_equal(click(&f, &l.field[1]), FORM_NOTHING);
    assert_int_equal(f.focus, FORM_PART_FIELD);
    assert_int_equal(click(&f, &l.cancel), FORM_CANCEL);
    assert_int_equal(key(&f, FORM_KEY_ESCAPE, false), FORM_CANCEL);
    form_finish(&f);
}

static void test_mouse(void **state)
{
    struct form_layout l;
    struct form f;

    (void)state;
    open_login(&f, 1024, 768);
    form_set_keyboard(&f, "de");
    form_layout(&f, &l);
    form_set_field(&f, 0, "alice");
    click(&f, &l.field[1]);
    assert_int_equal(f.focus, FORM_PART_SECOND);
    (void)mouse(&f, FORM_PRESS, l.field[0].x + 2, l.field[0].y + 5, 1);
    assert_int_equal(f.focus, FORM_PART_FIELD);
    assert_int_equal(f.fields[0].caret, 0);
    (void)mouse(&f, FORM_PRESS, l.field[0].x + l.field[0].width - 2, l.field[0].y + 5, 1);
    assert_int_equal(f.fields[0].caret, 5);
    assert_int_equal(click(&f, &l.keyboard), FORM_NOTHING); /* the press toggled */
    assert_int_equal(mouse(&f, FORM_PRESS, l.keyboard.x + 1, l.keyboard.y + 1, 1),
                     FORM_TOGGLE_KEYBOARD);
    assert_int_equal(click(&f, &l.ok), FORM_NOTHING);
    assert_int_equal(f.focus, FORM_PART_SECOND); /* that is missing */
    type(&f, "x");
    assert_int_equal(click(&f, &l.ok), FORM_SUBMIT);
    (void)mouse(&f, FORM_PRESS, l.cancel.x + 1, l.cancel.y + 1, 1);
    assert_int_equal(mouse(&f, FORM_RELEASE, 1, 1, 2), FORM_NOTHING);
    form_finish(&f);
}

/* ---- the list ---- */

static void test_list(void **state)
{
    struct form_layout l;
    struct form f;

    (void)state;
    open_list(&f, 40);
    assert_true(form_rows_are_complete(&f));
    assert_string_equal(form_selected(&f)->target, "win007"); /* used last */
    key(&f, FORM_KEY_DOWN, false);
    assert_string_equal(form_selected(&f)->target, "win000");
    form_layout(&f, &l);
    key(&f, FORM_KEY_PAGE_DOWN, false);
    assert_int_equal(f.selected, 1 + l.rows);
    key(&f, FORM_KEY_TAB, false);
    key(&f, FORM_KEY_END, false);
    assert_int_equal(f.selected, 39);
    assert_int_equal(f.top, 40 - l.rows);
    key(&f, FORM_KEY_DOWN, false);
    assert_int_equal(f.selected, 39);
    key(&f, FORM_KEY_HOME, false);
    assert_int_equal(f.top, 0);
    type(&f, "02");                      /* goes to the filter */
    assert_int_equal(f.shown_count, 11); /* 2, and from 20 on */
    assert_string_equal(form_selected(&f)->target, "win002");
    key(&f, FORM_KEY_DOWN, false);
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_SUBMIT);
    assert_string_equal(form_selected(&f)->target, "win020");
    type(&f, "nothing");
    assert_null(form_selected(&f));
    assert_int_equal(key(&f, FORM_KEY_ENTER, false), FORM_NOTHING);
    assert_int_equal(key(&f, FORM_KEY_ESCAPE, false), FORM_NOTHING);
    assert_int_equal(f.shown_count, 40);
    assert_int_equal(key(&f, FORM_KEY_ESCAPE, false), FORM_CANCEL);
    type(&f, "eve");
    assert_int_equal(f.shown_count, 20);
    form_finish(&f);
}

static void test_list_by_mouse(void **state)
{
    struct form_input wheel = {.kind = FORM_WHEEL, .rows = 1};
    struct form_layout l;
    struct form f;
    int x, y;

    (void)state;
    open_list(&f, 40);
    form_layout(&f, &l);
    x = l.list.x + 20;
    y = l.list.y + 2 * l.row + 3;
    assert_int_equal(mouse(&f, FORM_PRESS, x, y, 1000), FORM_NOTHING);
    assert_int_equal(f.selected, 2);
    assert_int_equal(mouse(&f, FORM_PRESS, x, y, 5000), FORM_NOTHING); /* too late */
    assert_int_equal(mouse(&f, FORM_PRESS, x, y + l.row, 5100), FORM_NOTHING);
    assert_int_equal(mouse(&f, FORM_PRESS, x, y + l.row, 5200), FORM_SUBMIT);
    for (int i = 0; i < 30; i++)
        (void)form_input(&f, &wheel);
    assert_int_equal(f.top, 40 - l.rows);
    assert_int_equal(f.selected, 3); /* the wheel selects nothing */
    wheel.rows = -1;
    for (int i = 0; i < 30; i++)
        (void)form_input(&f, &wheel);
    assert_int_equal(f.top, 0);
    type(&f, "win001");
    assert_int_equal(mouse(&f, FORM_PRESS, x, y, 9000), FORM_NOTHING);
    assert_int_equal(mouse(&f, FORM_PRESS, x, y, 9001), FORM_NOTHING); /* no row there */
    assert_int_equal(f.selected, 0);
    form_finish(&f);
}

static void test_pages_of_rows(void **state)
{
    struct link_target_row rows[3] = {{.target = "a"}, {.target = "b"}, {.target = "c"}};
    struct form f;

    (void)state;
    form_init(&f, 800, 600);
    form_open(&f, FORM_TARGETS, "", "");
    assert_false(form_rows_are_complete(&f));
    assert_true(form_add_rows(&f, rows, 2, 3));
    assert_false(form_rows_are_complete(&f));
    assert_true(form_add_rows(&f, rows + 2, 1, 3));
    assert_true(form_rows_are_complete(&f));
    form_forget_rows(&f);
    assert_true(form_add_rows(&f, NULL, 0, 9)); /* whatever it says */
    assert_true(form_rows_are_complete(&f));
    assert_null(form_selected(&f));
    form_finish(&f);
}

/* ---- pixels ---- */

static size_t paint_all(const struct form *f, uint32_t color, int step)
{
    struct picture p = {.width = 256, .height = 64};
    size_t hits = 0;

    p.pixels = calloc((size_t)p.width * p.height, sizeof(*p.pixels));
    assert_non_null(p.pixels);
    for (int y = 0; y < f->height; y += 64 * step)
        for (int x = 0; x < f->width; x += 256 * step) {
            form_paint(f, &p, x, y);
            for (size_t i = 0; i < (size_t)p.width * p.height; i++)
                hits += p.pixels[i] == color;
        }
    free(p.pixels);
    return hits;
}

static void check_layout(const struct form *f)
{
    struct form_layout l;

    form_layout(f, &l);
    if (f->width < 320 || f->height < 300)
        return; /* nothing breaks, that is all */
    assert_true(l.panel.x >= 0 && l.panel.x + l.panel.width <= f->width);
    assert_true(l.panel.y >= 0 && l.panel.y + l.panel.height <= f->height);
    assert_true(l.field[0].y >= l.text.y + l.text.height);
    assert_true(l.status.y >= l.field[0].y + l.field[0].height);
    assert_true(l.list.height == 0 || l.status.y >= l.list.y + l.list.height);
    assert_true(l.ok.y >= l.status.y + l.status.height - f->size);
    assert_true(l.ok.x + l.ok.width <= l.cancel.x);
    assert_true(l.cancel.x + l.cancel.width <= l.panel.x + l.panel.width);
}

static void check_sizes(void)
{
    char longest[FORM_TEXT_MAX];
    struct form f;

    memset(longest, 'w', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    for (size_t i = 0; i < sizeof(screens) / sizeof(screens[0]); i++) {
        open_login(&f, screens[i][0], screens[i][1]);
        form_set_keyboard(&f, "de");
        form_set_field(&f, 0,
                       "a name that is longer than any field of a screen is wide, so that it is "
                       "seen from behind, where its caret is");
        form_set_status(&f, longest, true, false);
        check_layout(&f);
        if (screens[i][0] >= 640 && screens[i][1] >= 480)
            assert_true(paint_all(&f, ACCENT, 1) > 200);
        form_open(&f, FORM_QUESTION, longest, longest);
        form_set_label(&f, 0, longest, true);
        form_set_field(&f, 0, "dots");
        (void)paint_all(&f, ACCENT, 3);
        form_open(&f, FORM_TARGETS, "", "");
        check_layout(&f);
        (void)paint_all(&f, ACCENT, 3);
        form_finish(&f);
    }
}

static void test_sizes(void **state)
{
    (void)state;
    draw_load_font(NULL);
    check_sizes();
    draw_unload_font();
    check_sizes();
}

/* A QR code keeps its shape: cells of whole pixels, twice as high as wide. */
static void test_a_picture_in_the_text(void **state)
{
    char text[4096] = "Scan this:\n";
    struct form f;

    (void)state;
    draw_load_font(NULL);
    for (int row = 0; row < 23; row++) {
        for (int i = 0; i < 45; i++)
            strcat(text, i % 2 ? "\xe2\x96\x88" : "\xe2\x96\x80");
        strcat(text, "\n");
    }
    for (size_t i = 2; i < 7; i++) {
        form_init(&f, screens[i][0], screens[i][1]);
        form_open(&f, FORM_QUESTION, "t", text);
        assert_true(f.cell >= 6 && f.cell % 2 == 0);
        check_layout(&f);
        assert_true(paint_all(&f, 0, 1) > 1000);
        form_finish(&f);
    }
    draw_unload_font();
}

/* What a change marks is small, and inside the screen; all is marked when a page begins. */
static void test_what_is_drawn_anew(void **state)
{
    struct form f;
    struct rect r;
    int area = 0;

    (void)state;
    open_login(&f, 3840, 2160);
    assert_true(form_take_dirty(&f, &r));
    assert_true(r.x == 0 && r.y == 0 && r.width == 3840 && r.height == 2160);
    while (form_take_dirty(&f, &r))
        ;
    type(&f, "a");
    while (form_take_dirty(&f, &r))
        area += r.width * r.height;
    assert_true(area > 1000 && area < 3840 * 2160 / 20);
    for (int i = 0; i < 1000; i++)
        key(&f, FORM_KEY_TAB, false);
    assert_true(f.dirty_count <= FORM_DIRTY_MAX);
    while (form_take_dirty(&f, &r))
        assert_true(r.x >= 0 && r.y >= 0 && r.x + r.width <= 3840 && r.y + r.height <= 2160);
    r = (struct rect){-50, -50, 10000, 100};
    form_mark(&f, &r);
    assert_true(form_take_dirty(&f, &r));
    assert_true(r.x == 0 && r.y == 0 && r.width == 3840 && r.height == 50);
    assert_false(form_take_dirty(&f, &r));
    form_finish(&f);
}

/* ---- keyboards ---- */

static uint32_t press(struct keyboard *k, uint16_t code)
{
    struct form_input in;
    struct input_event e = {.kind = INPUT_SCANCODE, .code = code};
    bool is_some = keyboard_event(k, &e, &in);

    return is_some && in.kind == FORM_CHAR ? in.character : 0;
}

static void hold(struct keyboard *k, uint16_t code, bool is_extended, bool is_release)
{
    struct form_input in;
    struct input_event e = {
        .kind = INPUT_SCANCODE, .code = code, .is_extended = is_extended, .is_release = is_release};

    assert_false(keyboard_event(k, &e, &in));
}

static void test_layouts(void **state)
{
    struct keyboard k;

    (void)state;
    keyboard_init(&k, 0x409);
    assert_false(keyboard_can_toggle(&k));
    assert_int_equal(press(&k, 0x15), 'y');
    hold(&k, 0x2a, false, false);
    assert_int_equal(press(&k, 0x15), 'Y');
    assert_int_equal(press(&k, 0x03), '@');
    hold(&k, 0x2a, false, true);
    keyboard_init(&k, 0x12345678); /* not known */
    assert_int_equal(press(&k, 0x15), 'y');
    keyboard_init(&k, 0x407);
    assert_string_equal(keyboard_name(&k), "de");
    assert_int_equal(press(&k, 0x15), 'z');
    assert_int_equal(press(&k, 0x28), 0xe4);
    hold(&k, 0x38, true, false); /* AltGr */
    assert_int_equal(press(&k, 0x10), '@');
    assert_int_equal(press(&k, 0x56), '|');
    hold(&k, 0x38, true, true);
    hold(&k, 0x1d, false, false); /* Ctrl and Alt are the same */
    assert_int_equal(press(&k, 0x10), 0);
    hold(&k, 0x38, false, false);
    assert_int_equal(press(&k, 0x10), '@');
    hold(&k, 0x38, false, true);
    hold(&k, 0x1d, false, true);
    hold(&k, 0x3a, false, false); /* Caps Lock */
    hold(&k, 0x3a, false, true);
    assert_int_equal(press(&k, 0x10), 'Q');
    assert_int_equal(press(&k, 0x02), '1');
    assert_true(keyboard_toggle(&k));
    assert_string_equal(keyboard_name(&k), "us");
    assert_int_equal(press(&k, 0x15), 'Y');
    keyboard_init(&k, 0x40c);
    assert_int_equal(press(&k, 0x10), 'a');
    keyboard_init(&k, 0x419);
    assert_int_equal(press(&k, 0x10), 0x439);
}

static void test_dead_keys(void **state)
{
    struct keyboard k;

    (void)state;
    keyboard_init(&k, 0x407);
    assert_int_equal(press(&k, 0x0d), 0); /* acute */
    assert_int_equal(press(&k, 0x12), 0xe9);
    assert_int_equal(press(&k, 0x12), 'e');
    assert_int_equal(press(&k, 0x29), 0); /* circumflex */
    assert_int_equal(press(&k, 0x16), 0xfb);
    assert_int_equal(press(&k, 0x29), 0);
    assert_int_equal(press(&k, 0x39), '^');
    assert_int_equal(press(&k, 0x29), 0);
    assert_int_equal(press(&k, 0x10), 'q'); /* they make nothing */
}

static void test_locks_and_pads(void **state)
{
    struct form_input in;
    struct input_event sync = {.kind = INPUT_SYNC, .flags = INPUT_SYNC_NUM | INPUT_SYNC_CAPS};
    struct input_event pad = {.kind = INPUT_SCANCODE, .code = 0x47};
    struct keyboard k;

    (void)state;
    keyboard_init(&k, 0x409);
    assert_true(keyboard_event(&k, &pad, &in) && in.kind == FORM_KEY && in.key == FORM_KEY_HOME);
    hold(&k, 0x36, false, false);
    assert_false(keyboard_event(&k, &sync, &in)); /* the keys that are held are told anew */
    assert_int_equal(press(&k, 0x10), 'Q');
    assert_int_equal(press(&k, 0x47), '7');
    pad.is_extended = true;
    assert_true(keyboard_event(&k, &pad, &in) && in.key == FORM_KEY_HOME);
    pad.code = 0x1c;
    assert_true(keyboard_event(&k, &pad, &in) && in.key == FORM_KEY_ENTER);
    pad.code = 0x35;
    assert_true(keyboard_event(&k, &pad, &in) && in.character == '/');
    hold(&k, 0x5b, true, false); /* nothing */
}

static void test_characters_as_such(void **state)
{
    static const uint16_t key_of_lock[] = {0xd83d, 0xdd11};
    struct form_input in;
    struct input_event e = {.kind = INPUT_UNICODE};
    struct keyboard k;

    (void)state;
    keyboard_init(&k, 0x409);
    e.code = key_of_lock[0];
    assert_false(keyboard_event(&k, &e, &in));
    e.code = key_of_lock[1];
    assert_true(keyboard_event(&k, &e, &in) && in.character == 0x1f511);
    assert_false(keyboard_event(&k, &e, &in)); /* a second half alone */
    e.code = '\r';
    assert_true(keyboard_event(&k, &e, &in) && in.key == FORM_KEY_ENTER);
    e.code = 0x7;
    assert_false(keyboard_event(&k, &e, &in));
}

/* ---- input PDUs ---- */

static void test_events(void **state)
{
    static const uint8_t fast[] = {0x02, 0x1e, 0x03, 0x1e, 0x20, 0,    0x90, 5, 0, 6,
                                   0,    0x64, 0x80, 0xe4, 0,    0xc0, 1,    2, 3, 4};
    static const uint8_t slow[] = {2, 0, 0, 0, 9, 9, 9, 9, 4, 0, 0, 0x81, 0x1e, 0,
                                   0, 0, 9, 9, 9, 9, 0, 0, 0, 0, 4, 0,    0,    0};
    struct input_reader r;
    struct input_event e;

    (void)state;
    assert_true(input_begin_fast(&r, 6 << 2, cursor_of(fast, sizeof(fast))));
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_SCANCODE && e.is_extended && !e.is_release && e.code == 0x1e);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.is_release);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_POINTER && e.flags == 0x9000 && e.x == 5 && e.y == 6);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_SYNC && e.flags == INPUT_SYNC_CAPS);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_UNICODE && e.code == 0xe4);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_int_equal(e.kind, INPUT_NONE);
    assert_int_equal(input_next(&r, &e), PARSE_MORE);
    for (size_t cut = 1; cut < sizeof(fast); cut++) {
        enum parse p = PARSE_OK;

        assert_true(input_begin_fast(&r, 6 << 2, cursor_of(fast, sizeof(fast) - cut)));
        while (p == PARSE_OK)
            p = input_next(&r, &e);
        assert_int_equal(p, PARSE_BAD);
    }
    assert_true(input_begin_fast(&r, 1 << 2, cursor_of(fast, sizeof(fast))));
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_int_equal(input_next(&r, &e), PARSE_BAD); /* more than it says */
    assert_true(input_begin_slow(&r, cursor_of(slow, sizeof(slow))));
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_SCANCODE && e.is_release && e.is_extended && e.code == 0x1e);
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_true(e.kind == INPUT_SYNC && e.flags == INPUT_SYNC_CAPS);
    assert_int_equal(input_next(&r, &e), PARSE_MORE);
    assert_true(input_begin_slow(&r, cursor_of(slow, sizeof(slow) - 1)));
    assert_int_equal(input_next(&r, &e), PARSE_OK);
    assert_int_equal(input_next(&r, &e), PARSE_BAD);
    assert_false(input_begin_slow(&r, cursor_of(slow, 3)));
    assert_false(input_begin_fast(&r, 0, cursor_of(fast, 0)));
}

/* ---- bitmaps ---- */

/* [MS-RDPBCGR] 3.1.9, as far as it is written. Returns the pixels that came out. */
static size_t unpack(const uint8_t *at, size_t len, unsigned bytes, uint32_t *out, size_t max)
{
    const uint8_t *end = at + len;
    size_t count = 0;

    while (at < end) {
        bool is_run = *at == 0xf3 || (*at & 0xe0) == 0x60;
        size_t n = *at == 0xf3 || *at == 0xf4 ? (size_t)(at[1] | at[2] << 8) : *at & 0x1fu;
        size_t head = *at == 0xf3 || *at == 0xf4 ? 3 : 1;

        assert_true(is_run || *at == 0xf4 || (*at & 0xe0) == 0x80);
        if (n == 0 && head == 1) {
            n = at[1] + 32u;
            head = 2;
        }
        at += head;
        assert_true(n > 0 && count + n <= max);
        for (size_t i = 0; i < n; i++) {
            out[count] = 0;
            for (unsigned b = 0; b < bytes; b++)
                out[count] |= (uint32_t)at[b] << 8 * b;
            count++;
            at += is_run ? 0 : bytes;
        }
        at += is_run ? bytes : 0;
    }
    return count;
}

static uint32_t as_sent(uint16_t bpp, uint32_t rgb)
{
    uint32_t red = rgb >> 16 & 0xff, green = rgb >> 8 & 0xff, blue = rgb & 0xff;

    return bpp == 24   ? rgb
           : bpp == 16 ? red >> 3 << 11 | green >> 2 << 5 | blue >> 3
                       : red >> 3 << 10 | green >> 3 << 5 | blue >> 3;
}

static void check_packed(uint16_t bpp, const struct picture *p)
{
    size_t count = (size_t)p->width * p->height;
    uint32_t *out = calloc(count, sizeof(*out));
    struct buffer b;

    assert_non_null(out);
    buffer_init(&b, 1 << 20);
    rle_put(&b, bpp, p);
    assert_false(b.failed);
    assert_int_equal(unpack(b.data, b.len, (bpp + 7u) / 8u, out, count), count);
    for (size_t i = 0; i < count; i++) {
        size_t row = p->height - 1u - i / p->width;

        assert_int_equal(out[i], as_sent(bpp, p->pixels[row * p->width + i % p->width]));
    }
    buffer_finish(&b);
    free(out);
}

static void test_packing(void **state)
{
    static uint32_t pixels[512 * 140];
    struct picture p = {.width = 512, .height = 140, .pixels = pixels};
    uint32_t x = 1;

    (void)state;
    for (unsigned density = 1; density <= 64; density *= 4)
        for (uint16_t bpp = 15; bpp <= 24; bpp = (uint16_t)(bpp == 15 ? 16 : bpp + 8)) {
            for (size_t i = 0; i < 512 * 140; i++) {
                x = x * 1664525u + 1013904223u;
                pixels[i] = (x >> 16) % density ? 0x336699 : x >> 8;
            }
            check_packed(bpp, &p);
        }
    memset(pixels, 0, sizeof(pixels)); /* one run, longer than one can be */
    check_packed(24, &p);
    p.width = 4;
    p.height = 1;
    check_packed(16, &p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_editing),
        cmocka_unit_test(test_what_cannot_be_typed),
        cmocka_unit_test(test_the_way_through),
        cmocka_unit_test(test_busy),
        cmocka_unit_test(test_mouse),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_list_by_mouse),
        cmocka_unit_test(test_pages_of_rows),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_a_picture_in_the_text),
        cmocka_unit_test(test_what_is_drawn_anew),
        cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_dead_keys),
        cmocka_unit_test(test_locks_and_pads),
        cmocka_unit_test(test_characters_as_such),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_packing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
