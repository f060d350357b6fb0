/* The words of the user's own door: splitting, the table, and what becomes of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sallyport/door.h>

#include "control/cli/cli.h"

static struct door_line line;
static char err[128];

/* Words joined by |. */
static const char *split(const char *command)
{
    static char joined[8192];
    size_t at = 0;

    err[0] = joined[0] = '\0';
    if (door_split(&line, command, err, sizeof(err)) < 0)
        return NULL;
    for (size_t i = 0; i < line.count; i++)
        at +=
            (size_t)snprintf(joined + at, sizeof(joined) - at, "%s%s", i ? "|" : "", line.words[i]);
    assert_null(line.words[line.count]);
    return joined;
}

static void test_split(void **state)
{
    static const struct {
        const char *command, *words;
    } rows[] = {
        {"", ""},
        {" \t ", ""},
        {"sessions", "sessions"},
        {"  sessions \t -o  json ", "sessions|-o|json"},
        {"end 5 --reason 'off duty'", "end|5|--reason|off duty"},
        {"a\"b c\"d'e f'g\\ h", "ab cde fg h"},
        {"'' \"\"", "|"},
        {"\"\\\"\\\\\\x\\$\"", "\"\\\\x$"},
        {"'\\n' \\' \\\"", "\\n|'|\""},
        {"$HOME * ~ `id` # x=1 {a,b}", "$HOME|*|~|`id`|#|x=1|{a,b}"},
        {"'|' \";\" \\&", "||;|&"},
        {"a\\", "a\\"},
        {"J\xc3\xbcrgen", "J\xc3\xbcrgen"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_non_null(split(rows[i].command));
        assert_string_equal(split(rows[i].command), rows[i].words);
    }
}

static void test_split_refuses(void **state)
{
    static const struct {
        const char *command, *why;
    } rows[] = {
        {"a | b", "\"|\" does nothing here"},
        {"a;b", "\";\""},
        {"a &", "\"&\""},
        {"a > f", "\">\""},
        {"a<f", "\"<\""},
        {"(a)", "\"(\""},
        {"'a", "no end"},
        {"\"a\\\"", "no end"},
        {"a\nb", "one line"},
        {"a\033b", "one line"},
        {"a\177", "one line"},
    };
    char *big = malloc(LINK_COMMAND_MAX + 1);

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_null(split(rows[i].command));
        assert_non_null(strstr(err, rows[i].why));
    }
    assert_non_null(big);
    memset(big, 'x', LINK_COMMAND_MAX);
    big[LINK_COMMAND_MAX] = '\0';
    assert_null(split(big));
    assert_non_null(strstr(err, "too long"));
    big[LINK_COMMAND_MAX - 1] = '\0';
    assert_non_null(split(big));
    for (size_t i = 1; i < LINK_COMMAND_MAX - 1; i += 2)
        big[i] = ' ';
    assert_null(split(big));
    assert_non_null(strstr(err, "too many words"));
    free(big);
}

static const char *mapped(const char *command)
{
    static char joined[4096];
    const char *argv[DOOR_WORDS_MAX + 8];
    const struct door_word *row;
    char scratch[64];
    size_t used, at = 0, count;

    assert_non_null(split(command));
    row = door_find(&line, &used);
    if (!row)
        return NULL;
    count = door_argv(&line, row, used, scratch, sizeof(scratch), argv, DOOR_WORDS_MAX + 8);
    joined[0] = '\0';
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(joined + at, sizeof(joined) - at, "%s%s", i ? " " : "", argv[i]);
    return joined;
}

static void test_mapping(void **state)
{
    (void)state;
    assert_string_equal(mapped("sessions -o json"), "session ls -o json");
    assert_string_equal(mapped("end 5 6"), "session end --yes 5 6");
    assert_string_equal(mapped("keys"), "self key ls");
    assert_string_equal(mapped("keys add x"), "self key add x");
    assert_string_equal(mapped("keys addx"), "self key ls addx");
    assert_string_equal(mapped("totp"), "self totp show");
    assert_string_equal(mapped("totp enable"), "self totp enable");
    assert_string_equal(mapped("admin"), "");
    assert_string_equal(mapped("admin session top --user bob"), "session top --user bob");
    assert_null(mapped(""));
    assert_null(mapped("session ls"));
    assert_null(mapped("session"));
    assert_null(mapped("keysadd"));
    assert_null(mapped("'keys add'"));
    assert_null(mapped("Sessions"));
}

/* What the table maps to exists, and no word hides another. */
static void test_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < door_word_count; i++) {
        const struct door_word *row = &door_words[i];
        size_t used;
        bool is_command = row->is_admin;

        for (size_t n = 0; n < cli_command_count; n++) {
            size_t len = strlen(cli_commands[n].words);
            is_command = is_command || (strncmp(row->words, cli_commands[n].words, len) == 0 &&
                                        (row->words[len] == '\0' || row->words[len] == ' '));
        }
        assert_true(is_command);
        assert_non_null(split(row->word));
        assert_ptr_equal(door_find(&line, &used), row);
        assert_true(row->is_admin == (row->words[0] == '\0'));
    }
}

static void test_list(void **state)
{
    char text[160];

    (void)state;
    door_list(text, sizeof(text), false);
    assert_string_equal(text, "sessions, end, targets, config, passwd, keys, totp, help");
    door_list(text, sizeof(text), true);
    assert_non_null(strstr(text, "keys, totp, admin, help"));
    door_list(text, 10, true);
    assert_true(strlen(text) < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_split),   cmocka_unit_test(test_split_refuses),
        cmocka_unit_test(test_mapping), cmocka_unit_test(test_table),
        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
