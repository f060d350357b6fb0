/*
 * What a recording may do to the terminal that plays it: the allow-list by example, and two claims
 * about any input: chunks do not matter, and what came out passes unchanged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sallyport/buffer.h>

#include "control/cli/play_filter.h"

static void filter(const char *data, size_t len, size_t chunk, struct buffer *out)
{
    struct play_filter f;

    play_filter_init(&f);
    buffer_reset(out);
    for (size_t at = 0; at < len; at += chunk)
        play_filter_feed(&f, (const uint8_t *)data + at, chunk < len - at ? chunk : len - at, out);
}

static void check(const char *in, size_t in_len, const char *want)
{
    struct buffer out;

    buffer_init(&out, 1 << 20);
    for (size_t chunk = 1; chunk < 4; chunk++) {
        filter(in, in_len, chunk, &out);
        assert_int_equal(out.len, strlen(want));
        assert_memory_equal(out.data ? out.data : (const uint8_t *)"", want, out.len);
    }
    filter(want, strlen(want), 1000, &out); /* what passed once passes again */
    assert_int_equal(out.len, strlen(want));
    assert_memory_equal(out.data ? out.data : (const uint8_t *)"", want, out.len);
    buffer_finish(&out);
}

#define CHECK(in, want) check(in, sizeof(in) - 1, want)

static void test_text_passes(void **state)
{
    (void)state;
    CHECK("hello\r\n\tworld\b\a", "hello\r\n\tworld\b\a");
    CHECK("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x9a\xaa", "gr\xc3\xbc\xc3\x9f \xe2\x82\xac "
                                                              "\xf0\x9f\x9a\xaa");
    CHECK("", "");
}

static void test_screen_control_passes(void **state)
{
    (void)state;
    CHECK("\033[2J\033[H\033[12;40H\033[3A\033[K", "\033[2J\033[H\033[12;40H\033[3A\033[K");
    CHECK("\033[1;31;48;5;200m\033[38:2::1:2:3m\033[m",
          "\033[1;31;48;5;200m\033[38:2::1:2:3m\033[m");
    CHECK("\033[5;20r\033[4h\033[4l\033[?7l\033[?7h", "\033[5;20r\033[4h\033[4l\033[?7l\033[?7h");
    CHECK("\033[?1049h\033[?25l\033[?1049l", "\033[?1049h\033[?25l\033[?1049l");
    CHECK("\0337\0338\033D\033M\033E\033H", "\0337\0338\033D\033M\033E\033H");
    CHECK("\033(0lqk\033(B\016x\017", "\033(0lqk\033(B\016x\017");
    CHECK("\033[2 q\033[!p\033#8", "\033[2 q\033[!p\033#8");
}

static void test_strings_are_dropped(void **state)
{
    (void)state;
    CHECK("a\033]52;c;ZXZpbA==\007b", "ab"); /* clipboard */
    CHECK("a\033]0;title\033\\b", "ab");     /* title */
    CHECK("a\033]8;;http://x/\033\\l\033]8;;\033\\b", "alb");
    CHECK("a\033P$qm\033\\b", "ab");         /* DECRQSS */
    CHECK("a\033P+q544e\033\\b", "ab");      /* XTGETTCAP */
    CHECK("a\033_Gf=100;AAAA\033\\b", "ab"); /* APC: pictures */
    CHECK("a\033^pm\033\\b", "ab");
    CHECK("a\033Xsos\033\\b", "ab");
    CHECK("a\033]0;never closed\nb", "a\nb");  /* cannot hide the next line */
    CHECK("a\033]0;x\030b", "ab");             /* CAN */
    CHECK("a\033]0;x\033[31mb", "a\033[31mb"); /* another sequence ends it */
    CHECK("a\xc2\x9d"
          "0;title\007b",
          "ab"); /* the 8-bit spelling in UTF-8 */
    CHECK("a\xc2\x90q\xc2\x9c\033\\b", "ab");
}

static void test_questions_are_dropped(void **state)
{
    (void)state;
    CHECK("\033[c\033[0c\033[>c\033[=c", "");     /* DA */
    CHECK("\033[5n\033[6n\033[?6n", "");          /* DSR */
    CHECK("\033[18t\033[21t\033[22;0t", "");      /* window reports, titles */
    CHECK("\033[?1$p\033[x\033[>q\033Z\005", ""); /* DECRQM, DECREQTPARM, XTVERSION, DECID, ENQ */
    CHECK("\033[?u\033[>1u\033[<u", "");          /* keyboard protocol */
    CHECK("\xc2\x9b"
          "6n\xc2\x9a",
          ""); /* CSI and DECID in C1 */
}

static void test_modes_are_dropped(void **state)
{
    (void)state;
    CHECK("\033[?1000h\033[?1002h\033[?1003h\033[?1006h\033[?9h", ""); /* mouse */
    CHECK("\033[?1004h\033[?2004h", "");                               /* focus, paste */
    CHECK("\033[?1h\033=\033>\033[?66h", "");                          /* keys */
    CHECK("\033[?25;1000;1049h", "\033[?25h\033[?1049h");              /* one by one */
    CHECK("\033[?3h\033[?69h\033[?2026h\033[20h", "");
    CHECK("\033[5i\033[?5i", "");                     /* print */
    CHECK("\033%G\033%@\033 F\033n\033(K\033$B", ""); /* character sets */
    CHECK("\033[5;20s\033[1;2;3;4;5T", "");           /* side margins, mouse tracking */
}

static void test_parts_are_written_again(void **state)
{
    (void)state;
    CHECK("\033[999999999999A", "\033[9999A");
    CHECK("a\033[100000b", "a\033[1000b");
    CHECK("\033[;5H", "\033[;5H");
    CHECK("\033[0001;002H", "\033[1;2H");
    CHECK("\033[1;2;3H", "");        /* too many parameters */
    CHECK("\033[1?25h", "");         /* a mark in the wrong place */
    CHECK("\033[2\nJ", "\n\033[2J"); /* controls inside act at once */
    CHECK("\033[2\033[3J", "\033[3J");
    CHECK("\033[3\xc3\xa9J", "\xc3\xa9J"); /* not part of any sequence */
    CHECK("\033[31", "");                  /* unfinished */
    CHECK("x\033cy", "x\033[?1049l\033[!p\033[?7h\033[2J\033[1;1Hy");
}

static void test_bad_utf8_is_replaced(void **state)
{
    (void)state;
    CHECK("a\xff"
          "b\x80"
          "c",
          "a\xef\xbf\xbd"
          "b\xef\xbf\xbd"
          "c");
    CHECK("\xc3(", "\xef\xbf\xbd(");
    CHECK("\xe2\x82", "");                   /* perhaps more to come */
    CHECK("\xe0\x80\xaf!", "\xef\xbf\xbd!"); /* overlong */
    CHECK("\xed\xa0\x80!", "\xef\xbf\xbd!"); /* surrogate */
    CHECK("\xc2\x85x", "\033Ex");            /* NEL */
    CHECK("\x9b"
          "6n",
          "\xef\xbf\xbd"
          "6n"); /* a raw C1 byte is not UTF-8 */
    CHECK("a\0b\x7f"
          "c\021\023",
          "abc");
}

static void test_long_strings_end(void **state)
{
    size_t len = PLAY_FILTER_STRING_MAX + 100;
    char *data = malloc(len);
    struct buffer out;

    (void)state;
    assert_non_null(data);
    memset(data, 'x', len);
    memcpy(data, "\033P", 2);
    buffer_init(&out, len);
    filter(data, len, 4096, &out);
    assert_in_range(out.len, 1, 200); /* text again, behind the limit */
    buffer_finish(&out);
    free(data);
}

static void test_counts_and_reset(void **state)
{
    struct play_filter f;
    struct buffer out;

    (void)state;
    buffer_init(&out, 4096);
    play_filter_init(&f);
    play_filter_feed(&f, (const uint8_t *)"\033]0;t\007\033[6n\033[?1049hx", 20, &out);
    assert_int_equal(f.dropped, 2);
    assert_true(f.is_alternate);
    buffer_reset(&out);
    play_filter_reset(&f, &out);
    assert_non_null(memmem(out.data, out.len, "\033[?1049l", 8));
    assert_non_null(memmem(out.data, out.len, "\033[?25h", 6));
    buffer_reset(&out);
    play_filter_reset(&f, &out); /* not on: leaving it would move the cursor */
    assert_null(memmem(out.data, out.len, "\033[?1049l", 8));
    buffer_finish(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_passes),          cmocka_unit_test(test_screen_control_passes),
        cmocka_unit_test(test_strings_are_dropped),  cmocka_unit_test(test_questions_are_dropped),
        cmocka_unit_test(test_modes_are_dropped),    cmocka_unit_test(test_parts_are_written_again),
        cmocka_unit_test(test_bad_utf8_is_replaced), cmocka_unit_test(test_long_strings_end),
        cmocka_unit_test(test_counts_and_reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
