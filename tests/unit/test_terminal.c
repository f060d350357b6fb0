/* The terminal follower: where text may be put in, what is on, and what a notice sends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "proxy/relay/terminal.h"

static void feed(struct terminal *t, const char *text)
{
    terminal_output(t, (const uint8_t *)text, strlen(text));
}

static void ground_is_known(void **state)
{
    static const struct {
        const char *text;
        bool is_ground;
    } cases[] = {
        {"", true},
        {"plain text\r\n", true},
        {"\033", false},
        {"\033[", false},
        {"\033[1;31", false},
        {"\033[1;31m", true},
        {"\033[1;31\030", true},
        {"\033[31\033", false},
        {"\033[31\033[m", true},
        {"\033[3\n1m", true},
        {"\033(", false},
        {"\033(B", true},
        {"\033#8", true},
        {"\0337", true},
        {"\033]0;title", false},
        {"\033]0;title\007", true},
        {"\033]0;title\033", false},
        {"\033]0;title\033\\", true},
        {"\033]0;title\033[m", true},
        {"\033P+q544e", false},
        {"\033P+q544e\007", false}, /* BEL ends OSC only */
        {"\033P+q544e\033\\", true},
        {"\033Ptmux;\033\033]52;c;aGk=\007", false},
        {"\033Ptmux;\033\033]52;c;aGk=\007\033\\", true},
        {"\033_Gi=1;AAAA", false},
        {"\033_Gi=1;AAAA\033\\", true},
        {"\033^x\033\\", true},
        {"\033Xx\032", true},
        {"\xC3", false},
        {"\xC3\xA4", true},
        {"\xE2\x82", false},
        {"\xE2\x82\xAC", true},
        {"\xF0\x9F\x98", false},
        {"\xF0\x9F\x98\x80", true},
        {"abc\xF0\x9F\x98\x80", true},
        {"\xF0\x9F\033[m", true},
        {"\xC3x", true},
        {"\x9B", true}, /* no C1 in UTF-8 */
        {"\x80\x80\x80\x80", true},
        {"\xFF\xFE", true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t len = strlen(cases[i].text);

        for (size_t cut = 0; cut <= len; cut++) { /* in one piece, and in any two */
            struct terminal t;

            terminal_init(&t, 80, 24);
            terminal_output(&t, (const uint8_t *)cases[i].text, cut);
            terminal_output(&t, (const uint8_t *)cases[i].text + cut, len - cut);
            if (terminal_is_ground(&t) != cases[i].is_ground)
                print_error("case %zu cut at %zu\n", i, cut);
            assert_int_equal(terminal_is_ground(&t), cases[i].is_ground);
        }
    }
}

static void modes_are_followed(void **state)
{
    struct terminal t;

    (void)state;
    terminal_init(&t, 0, 0);
    assert_int_equal(t.cols, 80);
    assert_int_equal(t.rows, 24);
    feed(&t, "\033[?1049;1;25;2004h\033=");
    assert_true(t.on_alternate && t.app_cursor && t.bracketed_paste && t.app_keypad);
    assert_false(t.cursor_hidden);
    feed(&t, "\033[?25l\033[?1000;1002;1006h");
    assert_true(t.cursor_hidden);
    assert_int_equal(t.mouse_modes, 1 << 1 | 1 << 2 | 1 << 6);
    feed(&t, "\033[?1002l");
    assert_int_equal(t.mouse_modes, 1 << 1 | 1 << 6);
    feed(&t, "\033[!p");
    assert_true(t.on_alternate && t.bracketed_paste);
    assert_false(t.cursor_hidden || t.app_cursor || t.app_keypad);
    feed(&t, "\033[?1049l");
    assert_false(t.on_alternate);
    feed(&t, "\033[?47h");
    assert_true(t.on_alternate);
    feed(&t, "\033c");
    assert_false(t.on_alternate || t.bracketed_paste || t.mouse_modes);
    /* not these modes, although the numbers are the same */
    feed(&t, "\033[1049h\033[>1049h\033[?1049$p\033[?1049s");
    assert_false(t.on_alternate);
    /* numbers that wrap round, and more than are kept */
    feed(&t, "\033[?66585h\033[?4294968345h\033[?1;2;3;4;5;6;7;8;1049h");
    assert_false(t.on_alternate);
    assert_true(t.app_cursor);
    feed(&t, "\033[>4;2m");
    assert_true(t.modified_keys);
    feed(&t, "\033[>4;0m\033[>1u");
    assert_false(t.modified_keys);
    assert_true(t.kitty_keys);
    /* what stands in a string sets nothing */
    feed(&t, "\033]0;\x9B?1049h\007");
    assert_false(t.on_alternate);
}

static void line_starts_are_guessed(void **state)
{
    struct terminal t;

    (void)state;
    terminal_init(&t, 80, 24);
    assert_true(t.at_line_start);
    feed(&t, "x");
    assert_false(t.at_line_start);
    feed(&t, "\r");
    assert_false(t.at_line_start);
    feed(&t, "\n\r\033[0m\007");
    assert_true(t.at_line_start);
    feed(&t, "50%\r");
    assert_false(t.at_line_start);
    feed(&t, "\n\xC3");
    assert_false(t.at_line_start);
    feed(&t, "\xA4\n");
    assert_true(t.at_line_start);
}

static const char *notice(struct terminal *t, const char *text, bool is_final)
{
    static struct buffer b;
    static bool is_used;
    bool redraw = false, was_alternate = t->on_alternate;

    if (is_used)
        buffer_finish(&b);
    is_used = true;
    buffer_init(&b, 4096);
    if (is_final) {
        terminal_final_notice(t, text, &b);
    } else {
        terminal_notice(t, text, &b, &redraw);
        assert_int_equal(redraw, was_alternate);
    }
    assert_false(b.failed);
    return buffer_cstr(&b);
}

static void notices_on_a_normal_screen(void **state)
{
    struct terminal t;

    (void)state;
    terminal_init(&t, 80, 24);
    assert_string_equal(notice(&t, "hello", false), "\rhello\r\n");
    feed(&t, "$ ");
    assert_string_equal(notice(&t, "hel\033[2Jlo\n", false), "\r\nhel\\x1b[2Jlo\\x0a\r\n");
    assert_string_equal(notice(&t, "again", false), "\ragain\r\n");
    feed(&t, "\033[31mred");
    assert_string_equal(notice(&t, "x", false), "\033[0m\r\nx\r\n");
}

static void notices_on_the_alternate_screen(void **state)
{
    struct terminal t;

    (void)state;
    terminal_init(&t, 12, 5);
    feed(&t, "\033[?1049h");
    assert_string_equal(notice(&t, "hello", false),
                        "\0337\033[?6l\033(B\017\033[5;1H\033[0m\033[2K\033[7mhello\033[0m\0338");
    assert_non_null(strstr(notice(&t, "0123456789abcdef", false), "[7m0123456789ab\033[0m"));
    /* what may be wide counts as two, and no character is cut */
    assert_non_null(strstr(notice(&t,
                                  "\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0"
                                  "x\xE4\xBD\xA0",
                                  false),
                           "[7m\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0\xE4\xBD\xA0"
                           "x\033[0m"));
    terminal_resize(&t, 100, 40);
    assert_non_null(strstr(notice(&t, "hello", false), "\033[40;1H"));
}

static void the_final_notice_leaves_a_sane_terminal(void **state)
{
    struct terminal t;

    (void)state;
    terminal_init(&t, 80, 24);
    assert_string_equal(notice(&t, "bye", true), "\rbye\r\n");
    feed(&t, "$ \033[?2004h");
    assert_string_equal(notice(&t, "bye", true), "\033[?2004l\033(B\017\033[0m\r\nbye\r\n");
    feed(&t, "\033[?1049h\033[?1h\033=\033[?25l\033[?1000h\033[?1006h\033[>4;2m\033]0;ti");
    assert_string_equal(notice(&t, "bye", true),
                        "\030\033\\\033[r\033[?1049l\033[?1000l\033[?1006l\033[?1l\033>\033[>4m"
                        "\033[?25h\033(B\017\033[0m\r\nbye\r\n");
    /* and all of it is undone for the follower too */
    assert_string_equal(notice(&t, "bye", true), "\rbye\r\n");
    feed(&t, "\033[?47h\033[>1u");
    assert_string_equal(notice(&t, "bye", true),
                        "\033[<99u\033[r\033[?47l\033[<99u\033(B\017\033[0m\r\nbye\r\n");
}

static void pieces_do_not_matter(void **state)
{
    static const char text[] = "a\xC3\xA4\033[?1049h\033[1;2H\xF0\x9F\x98\x80\033]0;x\033\\\n"
                               "\033[?1000;25l\033Pq\033\\\r\nz\033[?2004h";
    struct terminal whole, bytes;

    (void)state;
    terminal_init(&whole, 80, 24);
    terminal_init(&bytes, 80, 24);
    feed(&whole, text);
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        terminal_output(&bytes, (const uint8_t *)text + i, 1);
    assert_memory_equal(&whole, &bytes, sizeof(whole));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ground_is_known),
        cmocka_unit_test(modes_are_followed),
        cmocka_unit_test(line_starts_are_guessed),
        cmocka_unit_test(notices_on_a_normal_screen),
        cmocka_unit_test(notices_on_the_alternate_screen),
        cmocka_unit_test(the_final_notice_leaves_a_sane_terminal),
        cmocka_unit_test(pieces_do_not_matter),
    };

    return cmocka_run_group_tests_name("terminal", tests, NULL, NULL);
}
