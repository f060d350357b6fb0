/* Escaping, names, durations, sizes, times and "did you mean"; the small tables of base too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/errors.h>
#include <sallyport/login.h>
#include <sallyport/secret.h>
#include <sallyport/session.h>
#include <sallyport/text.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void copies_and_cuts(void **unused)
{
    char dst[4] = "xxx";

    (void)unused;
    assert_true(text_copy(dst, sizeof(dst), "abc"));
    assert_string_equal(dst, "abc");
    assert_false(text_copy(dst, sizeof(dst), "abcd"));
    assert_string_equal(dst, "abc");
    assert_false(text_copy(dst, 0, ""));
}

static const struct {
    const char *raw;
    size_t len;
    const char *escaped;
} escapes[] = {
    {"", 0, ""},
    {"plain text", 10, "plain text"},
    {"a\\b", 3, "a\\\\b"},
    {"a\nb\r\t\0", 6, "a\\x0ab\\x0d\\x09\\x00"},
    {"\x1b[31m\x7f", 6, "\\x1b[31m\\x7f"},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"},
    {"\xc2\x9b", 2, "\\u{009B}"},     /* C1: CSI */
    {"\xe2\x80\xae", 3, "\\u{202E}"}, /* right-to-left override */
    {"\xe2\x81\xa6\xe2\x81\xa9", 6, "\\u{2066}\\u{2069}"},
    {"\xd8\x9c\xe2\x80\x8f", 5, "\\u{061C}\\u{200F}"},
    {"\xe2\x80\xa8", 3, "\\u{2028}"},                /* line separator */
    {"\xff\xfe", 2, "\\xff\\xfe"},                   /* never in UTF-8 */
    {"\xc0\xaf", 2, "\\xc0\\xaf"},                   /* overlong */
    {"\xe0\x80\xaf", 3, "\\xe0\\x80\\xaf"},          /* overlong */
    {"\xed\xa0\x80", 3, "\\xed\\xa0\\x80"},          /* surrogate */
    {"\xf4\x90\x80\x80", 4, "\\xf4\\x90\\x80\\x80"}, /* past U+10FFFF */
    {"\xf8\x88\x80\x80\x80", 5, "\\xf8\\x88\\x80\\x80\\x80"},
    {"\xe2\x82", 2, "\\xe2\\x82"}, /* cut */
    {"\xe2(\xa1", 3, "\\xe2(\\xa1"},
    {"\x80", 1, "\\x80"},
};

static void escapes_what_drives_a_terminal(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(escapes); i++) {
        char dst[128];
        struct buffer b;

        text_escape(dst, sizeof(dst), escapes[i].raw, escapes[i].len);
        assert_string_equal(dst, escapes[i].escaped);
        buffer_init(&b, 1000);
        text_escape_append(&b, escapes[i].raw, escapes[i].len);
        assert_string_equal(buffer_cstr(&b), escapes[i].escaped);
        buffer_finish(&b);
    }
}

static void escape_is_cut_at_a_whole_one(void **unused)
{
    char dst[8];

    (void)unused;
    assert_string_equal(text_escape(dst, 8, "ab\n\n", 4), "ab\\x0a");
    assert_string_equal(text_escape(dst, 6, "ab\nc", 4), "ab");
    assert_string_equal(text_escape(dst, 3, "a\xc3\xa9", 3), "a");
    assert_string_equal(text_escape(dst, 1, "a", 1), "");
    assert_string_equal(text_escape(dst, 0, "a", 1), "");
}

static void knows_names_and_accounts(void **unused)
{
    char long_name[200];

    (void)unused;
    assert_true(text_is_name("alice"));
    assert_true(text_is_name("Web-01_x.example"));
    assert_true(text_is_name("..."));
    assert_false(text_is_name(""));
    assert_false(text_is_name("."));
    assert_false(text_is_name(".."));
    assert_false(text_is_name("a b"));
    assert_false(text_is_name("a/b"));
    assert_false(text_is_name("a+b"));
    assert_false(text_is_name("\xc3\xa9"));
    memset(long_name, 'a', sizeof(long_name));
    long_name[64] = 0;
    assert_true(text_is_name(long_name));
    long_name[64] = 'a';
    long_name[65] = 0;
    assert_false(text_is_name(long_name));
    assert_true(text_is_account(long_name));
    assert_true(text_is_account("DOM\\bob"));
    assert_true(text_is_account("J\xc3\xb6rg @home"));
    assert_false(text_is_account(""));
    assert_false(text_is_account("a+b"));
    assert_false(text_is_account("a\tb"));
    assert_false(text_is_account("a\x7f"));
    assert_false(text_is_account("a\xc2\x85"));
    assert_false(text_is_account("a\xff"));
    memset(long_name, 'a', sizeof(long_name));
    long_name[128] = 0;
    assert_true(text_is_account(long_name));
    long_name[128] = 'a';
    long_name[129] = 0;
    assert_false(text_is_account(long_name));
}

static const struct {
    uint64_t seconds;
    const char *text;
    const char *words;
} durations[] = {
    {0, "0s", "0 seconds"},
    {1, "1s", "1 second"},
    {45, "45s", "45 seconds"},
    {59, "59s", "59 seconds"},
    {60, "1m", "1 minute"},
    {119, "1m", "1 minute"},
    {1920, "32m", "32 minutes"},
    {1800, "30m", "30 minutes"},
    {3599, "59m", "59 minutes"},
    {3600, "1h", "1 hour"},
    {3659, "1h", "1 hour"},
    {3660, "1h 1m", "1 hour 1 minute"},
    {5400, "1h 30m", "1 hour 30 minutes"},
    {9000, "2h 30m", "2 hours 30 minutes"},
    {86399, "23h 59m", "23 hours 59 minutes"},
    {86400, "1d", "1 day"},
    {88200, "1d", "1 day"},
    {187200, "2d 4h", "2 days 4 hours"},
    {31536000, "365d", "365 days"},
};

static void writes_durations(void **unused)
{
    char dst[64], shortest[DURATION_TEXT_MAX];

    (void)unused;
    for (size_t i = 0; i < COUNT(durations); i++) {
        assert_string_equal(text_duration(dst, sizeof(dst), durations[i].seconds),
                            durations[i].text);
        assert_string_equal(text_duration_words(dst, sizeof(dst), durations[i].seconds),
                            durations[i].words);
    }
    assert_string_equal(text_duration(shortest, sizeof(shortest), UINT64_MAX),
                        "213503982334601d 7h");
}

static void parses_durations(void **unused)
{
    static const struct {
        const char *text;
        uint64_t seconds;
    } good[] = {{"0", 0},      {"90", 90},        {"30s", 30},     {"10m", 600},
                {"4h", 14400}, {"2d", 172800},    {"1h30m", 5400}, {"1d2h3m4s", 93784},
                {"0s", 0},     {"365d", 31536000}};
    static const char *const bad[] = {"",
                                      " 1s",
                                      "1 s",
                                      "1s ",
                                      "s",
                                      "-1s",
                                      "1x",
                                      "1.5h",
                                      "1h30",
                                      "1m1h",
                                      "1m1m",
                                      "1hm",
                                      "+1s",
                                      "1H",
                                      "18446744073709551616",
                                      "18446744073709551615d",
                                      "18446744073709551615s1s"};
    uint64_t v;

    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_true(text_parse_duration(good[i].text, &v));
        assert_int_equal(v, good[i].seconds);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(text_parse_duration(bad[i], &v));
}

static void parses_and_writes_sizes(void **unused)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *written;
    } good[] = {{"0", 0, "0"},
                {"4095", 4095, "4095"},
                {"4096", 4096, "4K"},
                {"64K", 65536, "64K"},
                {"64k", 65536, "64K"},
                {"256M", 268435456, "256M"},
                {"1G", 1073741824, "1G"},
                {"1536", 1536, "1536"},
                {"2T", UINT64_C(2199023255552), "2T"},
                {"4096T", UINT64_C(4503599627370496), "4096T"},
                {"18446744073709551615", UINT64_MAX, "18446744073709551615"}};
    static const char *const bad[] = {
        "", "K", "1KB", "1 K", "-1", "1.5M", "1P", "1K1", "18446744073709551616", "16777216T"};
    char dst[32];
    uint64_t v;

    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_true(text_parse_size(good[i].text, &v));
        assert_int_equal(v, good[i].bytes);
        assert_string_equal(text_size(dst, sizeof(dst), v), good[i].written);
    }
    for (size_t i = 0; i < COUNT(bad); i++)
        assert_false(text_parse_size(bad[i], &v));
}

static void parses_numbers(void **unused)
{
    uint64_t v = 7;

    (void)unused;
    assert_true(text_parse_u64("18446744073709551615", &v));
    assert_true(v == UINT64_MAX);
    assert_true(text_parse_u64("007", &v));
    assert_int_equal(v, 7);
    assert_false(text_parse_u64("18446744073709551616", &v));
    assert_false(text_parse_u64("", &v));
    assert_false(text_parse_u64("-1", &v));
    assert_false(text_parse_u64("1x", &v));
    assert_int_equal(v, 7); /* untouched */
}

static void writes_times_in_utc(void **unused)
{
    char dst[TIME_TEXT_MAX];

    (void)unused;
    setenv("TZ", "Asia/Tokyo", 1);
    assert_string_equal(text_time_utc(dst, sizeof(dst), INT64_C(1795325467120999)),
                        "2026-11-22T05:31:07.120Z");
    assert_string_equal(text_time_utc(dst, sizeof(dst), 0), "1970-01-01T00:00:00.000Z");
    assert_string_equal(text_time_utc(dst, sizeof(dst), -1), "1969-12-31T23:59:59.999Z");
    assert_string_equal(text_time_utc(dst, sizeof(dst), -1000), "1969-12-31T23:59:59.999Z");
    assert_string_equal(text_time_utc(dst, sizeof(dst), -1000001), "1969-12-31T23:59:58.999Z");
    assert_string_equal(text_time_utc(dst, sizeof(dst), INT64_C(1709164800000000)),
                        "2024-02-29T00:00:00.000Z");
    text_time_utc(dst, sizeof(dst), INT64_MAX);
    assert_true(strlen(dst) < sizeof(dst));
    text_time_utc(dst, sizeof(dst), INT64_MIN);
    assert_true(strlen(dst) < sizeof(dst));
}

static void finds_the_nearest_name(void **unused)
{
    static const char *const names[] = {"idle_after", "warn_after", "ssh", "listen", "input"};
    char long_text[100];

    (void)unused;
    assert_string_equal(text_nearest("idle_aftr", names, 5), "idle_after");
    assert_string_equal(text_nearest("idleafter", names, 5), "idle_after");
    assert_string_equal(text_nearest("lisetn", names, 5), "listen");
    assert_string_equal(text_nearest("shh", names, 5), "ssh");
    assert_string_equal(text_nearest("input", names, 5), "input");
    assert_null(text_nearest("rdp", names, 5)); /* three edits of three letters */
    assert_null(text_nearest("bananas", names, 5));
    assert_null(text_nearest("", names, 5));
    assert_null(text_nearest("ssh", names, 0));
    memset(long_text, 'a', sizeof(long_text));
    long_text[99] = 0;
    assert_null(text_nearest(long_text, names, 5));
}

static void names_of_tables_round_trip(void **unused)
{
    (void)unused;
    for (int i = 0; i < SESSION_STATE_COUNT; i++)
        assert_int_equal(session_state_from_name(session_state_name((enum session_state)i)), i);
    for (int i = 0; i < END_REASON_COUNT; i++) {
        assert_int_equal(end_reason_from_name(end_reason_name((enum end_reason)i)), i);
        assert_true(strlen(end_reason_text((enum end_reason)i)) > 0);
    }
    for (int i = 0; i < PROTOCOL_COUNT; i++)
        assert_int_equal(protocol_from_name(protocol_name((enum protocol)i)), i);
    for (int i = 0; i <= RECORDING_FAILED; i++)
        assert_int_equal(recording_state_from_name(recording_state_name((enum recording_state)i)),
                         i);
    assert_string_equal(end_reason_name(END_IDLE_TIMEOUT), "idle-timeout");
    assert_string_equal(end_reason_name((enum end_reason)99), "unknown");
    assert_int_equal(session_state_from_name("unknown"), -1);
    assert_int_equal(end_reason_from_name(""), -1);
    assert_string_equal(error_text(0), "ok");
    assert_string_equal(error_text(12), "ok");
    assert_string_equal(error_text(ERR_FULL), "limit reached");
    assert_string_equal(error_text(-999), "unknown error");
}

static void clocks_go_forward(void **unused)
{
    int64_t before = clock_mono_ms();

    (void)unused;
    assert_true(clock_mono_ms() >= before);
    assert_true(clock_wall_us() > INT64_C(1700000000000000)); /* microseconds, not milliseconds */
    assert_true(clock_wall_us() < INT64_C(32503680000000000));
}

static void secrets_are_wiped(void **unused)
{
    static struct secret s;
    static uint8_t big[SECRET_MAX + 1];

    (void)unused;
    memset(big, 'k', sizeof(big));
    assert_true(secret_set(&s, big, SECRET_MAX));
    assert_int_equal(s.len, SECRET_MAX);
    assert_int_equal(s.data[SECRET_MAX], 0);
    assert_true(secret_set(&s, "pw", 2));
    assert_string_equal((const char *)s.data, "pw");
    for (size_t i = 2; i < sizeof(s.data); i++) /* nothing of the longer one is left */
        assert_int_equal(s.data[i], 0);
    assert_false(secret_set(&s, big, SECRET_MAX + 1));
    assert_int_equal(s.len, 0);
    assert_int_equal(s.data[0], 0);
    secret_wipe(&s);
    secret_wipe(&s);
    memory_wipe(NULL, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_and_cuts),
        cmocka_unit_test(escapes_what_drives_a_terminal),
        cmocka_unit_test(escape_is_cut_at_a_whole_one),
        cmocka_unit_test(knows_names_and_accounts),
        cmocka_unit_test(writes_durations),
        cmocka_unit_test(parses_durations),
        cmocka_unit_test(parses_and_writes_sizes),
        cmocka_unit_test(parses_numbers),
        cmocka_unit_test(writes_times_in_utc),
        cmocka_unit_test(finds_the_nearest_name),
        cmocka_unit_test(names_of_tables_round_trip),
        cmocka_unit_test(clocks_go_forward),
        cmocka_unit_test(secrets_are_wiped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
