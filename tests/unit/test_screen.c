/* The watched terminal: what goes in as bytes is there as cells, and nothing else is drawn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "control/cli/screen.h"

struct fixture {
    struct screen *screen;
    struct buffer out;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->screen = screen_create(20, 5, true);
    buffer_init(&f->out, 1 << 20);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    screen_destroy(f->screen);
    buffer_finish(&f->out);
    free(f);
    return 0;
}

static void feed(struct fixture *f, const char *text)
{
    screen_feed(f->screen, (const uint8_t *)text, strlen(text));
}

static const char *draw(struct fixture *f, uint16_t cols, uint16_t lines)
{
    buffer_reset(&f->out);
    screen_draw(f->screen, cols, lines, "status", &f->out);
    return buffer_cstr(&f->out);
}

static void text_is_drawn_once(void **state)
{
    struct fixture *f = *state;

    feed(f, "hello\r\nworld");
    assert_non_null(strstr(draw(f, 20, 6), "hello "));
    assert_non_null(strstr((const char *)f->out.data, "world "));
    assert_non_null(strstr((const char *)f->out.data, "status"));
    assert_non_null(strstr((const char *)f->out.data, "\033[2;6H\033[?25h")); /* the cursor */
    assert_null(strstr(draw(f, 20, 6), "hello"));
    feed(f, "!");
    assert_non_null(strstr(draw(f, 20, 6), "world!"));
    assert_null(strstr((const char *)f->out.data, "hello"));
    screen_redraw(f->screen);
    assert_non_null(strstr(draw(f, 20, 6), "hello"));
}

static void nothing_else_passes(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"\033]", "\033P", "\033[c", "\033[6n", "1000h", "\302\233"};

    feed(f, "\033]0;title\007\033]52;c;ZQ==\007\033[c\033[6n\033[?1000h\033P+q\033\\\302\2336nok");
    feed(f, "\342\200\256reversed");
    draw(f, 20, 6);
    assert_non_null(strstr(buffer_cstr(&f->out), "ok"));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_null(strstr(buffer_cstr(&f->out), bad[i]));
    assert_null(strstr(buffer_cstr(&f->out), "\342\200\256"));
}

static void words_that_the_emulator_does_not_know(void **state)
{
    struct fixture *f = *state;

    feed(f, "x\033[3by\033[s\033[5;1Hz\033[uY");
    assert_non_null(strstr(draw(f, 20, 6), "xxxxyY "));
    feed(f, "\033[?1049h\0337inner\033[3;3H\033[?1049lZ");
    assert_non_null(strstr(draw(f, 20, 6), "xxxxyYZ "));
    feed(f, "\033[?47hinner");
    assert_null(strstr(draw(f, 20, 6), "xxxx"));
    feed(f, "\033[?47l");
    assert_non_null(strstr(draw(f, 20, 6), "xxxx"));
}

static void colours_come_through(void **state)
{
    struct fixture *f = *state;

    feed(f, "\033[1;31mred\033[0;48;5;200mpink\033[0;38;2;1;2;3mrgb");
    draw(f, 20, 6);
    assert_non_null(strstr(buffer_cstr(&f->out), "\033[0;1;38;5;1mred"));
    assert_non_null(strstr(buffer_cstr(&f->out), "\033[0;48;5;200mpink"));
    assert_non_null(strstr(buffer_cstr(&f->out), "\033[0;38;2;1;2;3mrgb"));
}

static void many_attributes_in_one_sequence(void **state)
{
    struct fixture *f = *state;

    feed(f, "\033[1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;1;3;38;2;1;2;3;48;5;9;4mmany");
    assert_non_null(strstr(draw(f, 20, 6), "\033[0;1;3;4;38;2;1;2;3;48;5;9mmany"));
    feed(f, "\033[m\033[38mplain");
    assert_non_null(strstr(draw(f, 20, 6), "\033[0mplain"));
}

static void a_small_terminal_shows_the_cursor(void **state)
{
    struct fixture *f = *state;

    feed(f, "row1\r\nrow2\r\nrow3\r\nrow4\r\nrow5-and-much-more");
    draw(f, 8, 3);
    assert_null(strstr(buffer_cstr(&f->out), "row1"));
    assert_non_null(strstr(buffer_cstr(&f->out), "ch-more"));
    assert_non_null(strstr(buffer_cstr(&f->out), "\033[2;8H\033[?25h"));
    feed(f, "\033[H");
    assert_non_null(strstr(draw(f, 8, 3), "row1"));
}

static void sizes_change(void **state)
{
    struct fixture *f = *state;
    uint16_t cols, rows;

    feed(f, "before");
    screen_resize(f->screen, 40, 10);
    screen_size(f->screen, &cols, &rows);
    assert_int_equal(cols, 40);
    assert_int_equal(rows, 10);
    feed(f, "\033[10;30Hthere");
    assert_non_null(strstr(draw(f, 40, 11), "there"));
    screen_resize(f->screen, 0, 0);
    screen_resize(f->screen, 65535, 65535);
    screen_size(f->screen, &cols, &rows);
    assert_int_equal(cols, 1000);
    draw(f, 0, 0);
    draw(f, 1, 1);
    draw(f, 80, 24);
}

static void notices_are_shown(void **state)
{
    struct fixture *f = *state;

    feed(f, "prompt$ ");
    screen_notice(f->screen, "be warned\033[6n", 14);
    assert_non_null(strstr(draw(f, 20, 6), "be warned\\x1b[6n"));
    assert_string_equal(screen_last_notice(f->screen), "");
    feed(f, "\033[?1049h\033[2J\033[Hinner");
    screen_notice(f->screen, "again", 5);
    assert_null(strstr(draw(f, 20, 6), "again"));
    assert_string_equal(screen_last_notice(f->screen), "again");
}

static void commands_have_bare_line_ends(void **state)
{
    struct fixture *f = *state;

    screen_destroy(f->screen);
    f->screen = screen_create(20, 5, false);
    feed(f, "one\ntwo\n");
    assert_non_null(strstr(draw(f, 20, 6), "\033[2;1H\033[0mtwo "));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(text_is_drawn_once),
        TEST(nothing_else_passes),
        TEST(words_that_the_emulator_does_not_know),
        TEST(colours_come_through),
        TEST(many_attributes_in_one_sequence),
        TEST(a_small_terminal_shows_the_cursor),
        TEST(sizes_change),
        TEST(notices_are_shown),
        TEST(commands_have_bare_line_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
