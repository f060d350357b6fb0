/*
 * sallyctl without a daemon: the command line, times, CSV, cells, and that the command table, the
 * long options, the columns and the man page agree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <sallyport/clock.h>
#include <sallyport/policy.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/when.h"

#define WORDS_MAX 16

/* ---- the command line ---- */

/* Split at blanks. */
static int split(const char *line, char *copy, const char *argv[WORDS_MAX])
{
    int argc = 0;
    char *at = copy;

    text_copy(copy, 512, line);
    argv[argc++] = "sallyctl";
    while (*at && argc < WORDS_MAX) {
        size_t len = strcspn(at, " ");
        argv[argc++] = at;
        at += len;
        if (*at)
            *at++ = '\0';
    }
    return argc;
}

static int parse(struct cli_args *a, const char *line, char *copy, char *err, size_t len)
{
    const char *argv[WORDS_MAX];
    int argc = *line ? split(line, copy, argv) : 1;

    argv[0] = "sallyctl";
    err[0] = '\0';
    return cli_args_parse(a, argc, argv, err, len);
}

/* The whole result as one line: "words|operands|options". */
static void describe(const struct cli_args *a, char *dst, size_t len)
{
    size_t n = (size_t)snprintf(dst, len, "%s", a->command ? a->command->words : "-");

    for (size_t i = 0; i < a->operand_count; i++)
        n += (size_t)snprintf(dst + n, len - n, "|%s", a->operands[i]);
    for (size_t i = 0; i < a->given_count; i++)
        n += (size_t)snprintf(dst + n, len - n, " %s%s%s", a->given[i].option->name,
                              a->given[i].value ? "=" : "",
                              a->given[i].value ? a->given[i].value : "");
}

static void test_lines_that_parse(void **state)
{
    static const struct {
        const char *line, *want;
    } cases[] = {
        {"session ls", "session ls"},
        {"ls", "session ls"},
        {"-o json ls", "session ls output=json"},
        {"ls -ojson", "session ls output=json"},
        {"ls --output=csv", "session ls output=csv"},
        {"session -o wide ls --all", "session ls output=wide all"},
        {"--user alice session ls", "session ls user=alice"},
        {"ls -aqw", "session ls all quiet watch"},
        {"ls -aq -u alice", "session ls all quiet user=alice"},
        {"ls --sort=-in", "session ls sort=-in"},
        {"ls --sort -in", "session ls sort=-in"},
        {"end 42 43 --reason x -y", "session end|42|43 reason=x yes"},
        {"end --dry_run 42", "session end|42 dry-run"},
        {"end --in 5m --all", "session end in=5m all"},
        {"session message 42 hello there", "session message|42|hello|there"},
        {"session message 42 -- --all", "session message|42|--all"},
        {"play 42.2 --speed=2 --at 1:30", "recording play|42.2 speed=2 at=1:30"},
        {"recording export 42 -", "recording export|42|-"},
        {"user key add alice -", "user key add|alice|-"},
        {"user key ls alice", "user key ls|alice"},
        {"user add alice --role admin --password-stdin", "user add|alice role=admin "
                                                         "password-stdin"},
        {"target add w --address h:22 idle_after=10m", "target add|w|idle_after=10m "
                                                       "address=h:22"},
        {"target set w --idle-after 10m --max_duration=4h", "target set|w idle-after=10m "
                                                            "max-duration=4h"},
        {"grant add @ops * --account=* counts=input", "grant add|@ops|*|counts=input account=*"},
        {"event tail -f --since 2h", "event tail follow since=2h"},
        {"event -f tail", "event tail follow"},
        {"-f event tail", "event tail follow"},
        {"-f file.json apply", "apply file=file.json"},
        {"apply -f file.json -n", "apply file=file.json dry-run"},
        {"apply -f - --prune", "apply file=- prune"},
        {"store rotate-key", "store rotate-key"},
        {"shutdown --in 5m -y", "shutdown in=5m yes"},
        {"help session end", "help|session|end"},
        {"--version", "- version"},
        {"session --help", "-|session help"},
        {"session end --help", "session end help"},
        {"session show --help", "session show help"}, /* operands do not matter then */
        {"", "-"},
    };
    char copy[512], err[1024], got[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cli_args a;
        int rc = parse(&a, cases[i].line, copy, err, sizeof(err));
        if (rc != 0)
            fail_msg("%s: %s", cases[i].line, err);
        describe(&a, got, sizeof(got));
        assert_string_equal(got, cases[i].want);
        cli_args_finish(&a);
    }
}

static void test_lines_that_do_not(void **state)
{
    static const struct {
        const char *line, *said;
    } cases[] = {
        {"sesion ls", "did you mean \"session\"?"},
        {"session list", "did you mean \"session ls\"?"},
        {"user delete bob", "did you mean \"user rm\"?"},
        {"users ls", "did you mean \"user\"?"},
        {"kill 42", "did you mean \"end\"?"},
        {"session", "needs a word more: ls, show"},
        {"user key", "needs a word more: add, ls, rm"},
        {"nonsense", "there are session, recording"},
        {"ls --usr bob", "did you mean --user?"},
        {"ls --limit ten", "--limit takes a number"},
        {"ls --status alive", "--status is one of connecting|active|idle|disconnected"},
        {"-o yaml ls", "--output is one of table|wide|json|jsonl|csv"},
        {"ls --since lunchtime", "is no time"},
        {"end 1 --in soon", "--in takes a duration"},
        {"ls --user", "--user needs a value"},
        {"ls -u", "-u needs a value"},
        {"ls --all=yes", "--all takes no value"},
        {"ls --user a --user b", "--user is given twice"},
        {"ls -Z", "no option -Z"},
        {"ls extra", "takes no words; \"extra\" is one word too many"},
        {"session show", "session show needs ID"},
        {"session show 1 2", "\"2\" is one word too many"},
        {"status --prune", "status has no option --prune"},
        {"\033[31m", "no command \"\\x1b[31m\""},
        {"ls --\033x", "\\x1bx"},
    };
    char copy[512], err[1024];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cli_args a;
        int rc = parse(&a, cases[i].line, copy, err, sizeof(err));
        if (rc >= 0 || !strstr(err, cases[i].said))
            fail_msg("%s: %d, \"%s\" lacks \"%s\"", cases[i].line, rc, err, cases[i].said);
        cli_args_finish(&a);
    }
}

/* ---- the table ---- */

static void test_table_is_sound(void **state)
{
    (void)state;
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *c = &cli_commands[i];
        const struct cli_option *o, *other;
        assert_non_null(c->run);
        assert_true(c->operands_min <= c->operands_max);
        assert_true(strlen(c->help) > 10 && c->help[strlen(c->help) - 1] == '.');
        for (size_t n = 0; (o = cli_option_at(c, n)); n++) {
            for (size_t m = 0; m < n; m++) { /* no name or letter twice in one command */
                other = cli_option_at(c, m);
                if (strcmp(other->name, o->name) == 0 || (o->letter && other->letter == o->letter))
                    fail_msg("%s: --%s and --%s", c->words, o->name, other->name);
            }
            for (size_t k = 0; k < cli_command_count; k++) { /* long names agree on values */
                for (size_t m = 0; (other = cli_option_at(&cli_commands[k], m)); m++) {
                    if (strcmp(other->name, o->name) == 0 &&
                        (other->kind == VALUE_NONE) != (o->kind == VALUE_NONE))
                        fail_msg("--%s differs between %s and %s", o->name, c->words,
                                 cli_commands[k].words);
                }
            }
        }
    }
}

static void test_policy_keys_are_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < policy_key_count; i++)
        assert_non_null(cli_policy_option(i));
    assert_null(cli_policy_option(policy_key_count));
}

static char *read_whole(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, 1 << 20);

    assert_non_null(f);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 20) - 1, f) > 0);
    fclose(f);
    return text;
}

/* Each command has its paragraph in the man page, with each of its options. */
static void test_man_page_agrees(void **state)
{
    char *page = read_whole(SALLYPORT_SOURCE_DIR "/docs/man/sallyctl.1.scd"), wanted[256];

    (void)state;
    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *c = &cli_commands[i];
        const struct cli_option *o;
        const char *at, *end;
        snprintf(wanted, sizeof(wanted), "\n*%s*", c->words);
        at = strstr(page, wanted);
        if (!at)
            fail_msg("the man page has no paragraph for \"%s\"", c->words);
        end = strstr(at + 1, "\n*");
        for (size_t n = 0; (o = cli_option_at(c, n)) && o != cli_option_at(NULL, 0); n++) {
            const char *found;
            bool is_list = (c->flags & CLI_LIST) && strstr("quiet sort limit", o->name);
            bool is_policy = (c->flags & CLI_POLICY) && o == cli_policy_option(0);
            if (is_policy)
                n += policy_key_count - 1; /* said once for all commands */
            snprintf(wanted, sizeof(wanted), "--%s", o->name);
            found = strstr(at, wanted);
            if (!is_list && !is_policy && (!found || (end && found > end)))
                fail_msg("the man page's \"%s\" lacks --%s", c->words, o->name);
        }
    }
    for (size_t i = 0; i < policy_key_count; i++) {
        snprintf(wanted, sizeof(wanted), "*%s*", policy_keys[i].key);
        if (!strstr(page, wanted))
            fail_msg("the man page lacks the policy key %s", policy_keys[i].key);
    }
    free(page);
}

/* ---- times ---- */

static int64_t local_us(int year, int month, int day, int hour, int minute, int second)
{
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second,
                    .tm_isdst = -1};

    return (int64_t)mktime(&tm) * 1000000;
}

static void test_times(void **state)
{
    char err[256];
    int64_t us;

    (void)state;
    setenv("TZ", "America/Mexico_City", 1);
    tzset();
    assert_true(when_parse("2026-11-22 10:00", &us, err, sizeof(err)));
    assert_int_equal(us, local_us(2026, 11, 22, 10, 0, 0));
    assert_true(when_parse("2026-11-22T10:00:05.5", &us, err, sizeof(err)));
    assert_int_equal(us, local_us(2026, 11, 22, 10, 0, 5) + 500000);
    assert_true(when_parse("2026-11-22", &us, err, sizeof(err)));
    assert_int_equal(us, local_us(2026, 11, 22, 0, 0, 0));
    assert_true(when_parse("2026-11-22T05:31:07.120Z", &us, err, sizeof(err)));
    assert_int_equal(us, 1795325467120000LL);
    assert_true(when_parse("2026-11-22T07:31:07+02:00", &us, err, sizeof(err)));
    assert_int_equal(us, 1795325467000000LL);
    assert_true(when_parse("2h", &us, err, sizeof(err)));
    assert_in_range((uint64_t)(clock_wall_us() - us), 7199000000ULL, 7201000000ULL);
    assert_true(when_parse("1h30m", &us, err, sizeof(err)));
    assert_true(when_parse("today", &us, err, sizeof(err)));
    assert_true(us <= clock_wall_us());
    assert_true(when_parse("now", &us, err, sizeof(err)));
    for (size_t i = 0; i < 10; i++) {
        static const char *const bad[] = {
            "",           "noon",  "2026-13-01",    "2026-04-31", "25:00", "2026-11-22x",
            "1969-01-01", "10:60", "2026-11-22 10", "12"};
        assert_false(when_parse(bad[i], &us, err, sizeof(err)));
        assert_non_null(strstr(err, "is no time"));
    }
    assert_true(when_parse_iso("2026-11-22T05:31:07.120Z", &us));
    assert_false(when_parse_iso("2026-11-22 05:31:07", &us));
}

static void test_positions(void **state)
{
    static const struct {
        const char *text;
        long ms; /* -1: refused */
    } cases[] = {
        {"90", 90000}, {"1:30", 90000}, {"01:00:00", 3600000}, {"1:02.5", 62500},
        {"0", 0},      {"90s", 90000},  {"2m", 120000},        {"", -1},
        {":", -1},     {"1:60", -1},    {"1:2:3:4", -1},       {"x", -1},
        {"-1", -1},    {"1:", -1},      {"1e9", -1},           {"99999999999", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double s = 0;
        bool ok = when_parse_position(cases[i].text, &s);
        assert_int_equal(ok, cases[i].ms >= 0);
        if (ok)
            assert_int_equal((long)(s * 1000 + 0.5), cases[i].ms);
    }
}

/* ---- output ---- */

static void csv(const char *text, const char *want)
{
    char *got = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&got, &len);

    assert_non_null(f);
    output_csv_field(f, text);
    fclose(f);
    assert_string_equal(got, want);
    free(got);
}

static void test_csv(void **state)
{
    (void)state;
    csv("plain", "plain");
    csv("", "");
    csv("a,b", "\"a,b\"");
    csv("say \"hi\"", "\"say \"\"hi\"\"\"");
    csv("two\nlines", "\"two\nlines\"");
    csv("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\"");
    csv("+1+2", "\"'+1+2\"");
    csv("@SUM(A1)", "\"'@SUM(A1)\"");
    csv("-2+3", "\"'-2+3\"");
    csv("-5", "-5"); /* a number is no formula */
    csv("\t=1", "\"'\t=1\"");
    csv("a=b", "a=b");
}

static void cell(enum column_kind kind, const char *json, const char *want)
{
    struct column column = {"X", "x", kind, 0};
    json_t *row = json_loads(json, 0, NULL);
    char *text;

    assert_non_null(row);
    text = output_cell(&column, row, false);
    assert_string_equal(text, want);
    free(text);
    json_decref(row);
}

static void test_cells(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    tzset();
    cell(COLUMN_TEXT, "{\"x\":\"a\\u001b[31m\\\\b\"}", "a\\x1b[31m\\\\b");
    cell(COLUMN_TEXT, "{\"x\":null}", "");
    cell(COLUMN_TEXT, "{}", "");
    cell(COLUMN_NUMBER, "{\"x\":42}", "42");
    cell(COLUMN_NUMBER, "{\"x\":\"42\"}", "42");
    cell(COLUMN_BYTES, "{\"x\":1023}", "1023");
    cell(COLUMN_BYTES, "{\"x\":1536}", "1.5K");
    cell(COLUMN_BYTES, "{\"x\":88210}", "86K");
    cell(COLUMN_BYTES, "{\"x\":5368709120}", "5.0G");
    cell(COLUMN_SECONDS, "{\"x\":9000}", "2h 30m");
    cell(COLUMN_SECONDS, "{\"x\":-1}", "");
    cell(COLUMN_TIME, "{\"x\":\"2026-11-22T05:31:07.120Z\"}", "2026-11-22 05:31:07");
    cell(COLUMN_TIME, "{\"x\":\"garbage\"}", "");
    cell(COLUMN_BOOL, "{\"x\":true}", "yes");
    cell(COLUMN_BOOL, "{\"x\":false}", "");
    cell(COLUMN_LIST, "{\"x\":[\"session\",\"session\"]}", "session x2");
    cell(COLUMN_POLICY, "{\"x\":{\"idle_after\":\"10m\"}}", "idle_after=10m");
}

static void test_columns_are_found(void **state)
{
    (void)state;
    assert_non_null(output_find(&session_columns, "id", 2));
    assert_non_null(output_find(&session_columns, "bytesin", 7));
    assert_non_null(output_find(&session_columns, "STARTED", 7));
    assert_null(output_find(&session_columns, "start", 5));
}

static void test_sort(void **state)
{
    struct cli cli = {.conn.fd = -1};
    json_t *rows = json_loads("[{\"id\":\"9\",\"user\":\"b\"},{\"id\":\"10\",\"user\":\"A\"},"
                              "{\"id\":\"1\",\"user\":null}]",
                              0, NULL);

    (void)state;
    assert_true(output_sort(&cli, &session_columns, rows, "id"));
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "id")), "1");
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 2), "id")), "10");
    assert_true(output_sort(&cli, &session_columns, rows, "-ID"));
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 0), "id")), "10");
    assert_true(output_sort(&cli, &session_columns, rows, "user"));
    assert_string_equal(json_string_value(json_object_get(json_array_get(rows, 2), "id")), "9");
    json_decref(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_that_parse),
        cmocka_unit_test(test_lines_that_do_not),
        cmocka_unit_test(test_table_is_sound),
        cmocka_unit_test(test_policy_keys_are_options),
        cmocka_unit_test(test_man_page_agrees),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_cells),
        cmocka_unit_test(test_columns_are_found),
        cmocka_unit_test(test_sort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
