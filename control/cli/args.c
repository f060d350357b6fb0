/*
 * The command line of sallyctl: which command, which operands, which options. Pure: it looks at
 * the command table and at argv, prints nothing and asks nobody. Options may stand anywhere.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/policy.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/when.h"

#define WORDS_MAX  3 /* of a command: "user key add" */
#define NAMES_MAX  96
#define OPTION_MAX 64

/* What people type who come from other tools, and what it is called here. */
static const struct {
    const char *typed, *word;
} synonyms[] = {
    {"list", "ls"},
    {"delete", "rm"},
    {"del", "rm"},
    {"remove", "rm"},
    {"kill", "end"},
    {"terminate", "end"},
    {"disconnect", "end"},
    {"close", "end"},
    {"create", "add"},
    {"new", "add"},
    {"get", "show"},
    {"info", "show"},
    {"describe", "show"},
    {"sessions", "session"},
    {"users", "user"},
    {"targets", "target"},
    {"grants", "grant"},
    {"roles", "role"},
    {"events", "event"},
    {"log", "event"},
    {"recordings", "recording"},
    {"ps", "ls"},
    {"stop", "shutdown"},
    {"replay", "play"},
    {"password", "passwd"},
    {"edit", "set"},
    {"export", "recording export"},
    {"modify", "set"},
    {"update", "set"},
    {"host", "target"},
    {"server", "target"},
    {"hosts", "target"},
    {"servers", "target"},
    {"permission", "grant"},
    {"version", "--version"},
};

struct parser {
    struct cli_args *args;
    const char *const *argv;
    int argc;
    char *err;
    size_t err_len;
};

static void fail(const struct parser *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void fail(const struct parser *p, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(p->err, p->err_len, fmt, ap);
    va_end(ap);
}

/* ---- finding options ---- */

/* `len` bytes of typed text against a name; '_' counts as '-'. */
static bool name_is(const char *name, const char *typed, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = typed[i] == '_' ? '-' : typed[i];
        if (name[i] == '\0' || name[i] != c)
            return false;
    }
    return name[len] == '\0';
}

static const struct cli_option *find_long(const struct cli_command *command, const char *typed,
                                          size_t len)
{
    const struct cli_option *o;

    for (size_t i = 0; (o = cli_option_at(command, i)); i++) {
        if (name_is(o->name, typed, len))
            return o;
    }
    return NULL;
}

static const struct cli_option *find_letter(const struct cli_command *command, char letter)
{
    const struct cli_option *o;

    for (size_t i = 0; (o = cli_option_at(command, i)); i++) {
        if (o->letter == letter)
            return o;
    }
    return NULL;
}

/* Does this option of any command take a value? Long names agree between commands (tested);
 * letters need not: -f follows in one and names a file in another. */
static bool long_takes_value(const char *typed, size_t len)
{
    const struct cli_option *o = find_long(NULL, typed, len);

    for (size_t i = 0; !o && i < cli_command_count; i++)
        o = find_long(&cli_commands[i], typed, len);
    return o && o->kind != VALUE_NONE;
}

static bool letter_takes_value(char letter, bool when_unsure)
{
    bool with = false, without = false;

    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_option *o = find_letter(&cli_commands[i], letter);
        with = with || (o && o->kind != VALUE_NONE);
        without = without || (o && o->kind == VALUE_NONE);
    }
    return with && (when_unsure || !without);
}

/* ---- finding the command ---- */

/* The first words of the line, options left out: which arguments they are. */
static size_t first_words(const struct parser *p, bool unsure_takes_value, int at[WORDS_MAX])
{
    size_t count = 0;

    for (int i = 1; i < p->argc && count < WORDS_MAX; i++) {
        const char *a = p->argv[i];
        if (strcmp(a, "--") == 0)
            break;
        if (a[0] == '-' && a[1] == '-') {
            if (!strchr(a, '=') && long_takes_value(a + 2, strlen(a + 2)))
                i++;
        } else if (a[0] == '-' && a[1]) {
            if (letter_takes_value(a[1], unsure_takes_value) && !a[2])
                i++;
        } else {
            at[count++] = i;
        }
    }
    return count;
}

/* How many of the words the command's own words match, 0 when they are not all there. */
static size_t words_match(const char *words, const struct parser *p, const int at[WORDS_MAX],
                          size_t count)
{
    size_t matched = 0;

    while (*words) {
        size_t len = strcspn(words, " ");
        const char *typed = matched < count ? p->argv[at[matched]] : NULL;
        if (!typed || strlen(typed) != len || strncmp(typed, words, len) != 0)
            return 0;
        matched++;
        words += len + (words[len] == ' ');
    }
    return matched;
}

static const struct cli_command *find_command(const struct parser *p, const int at[WORDS_MAX],
                                              size_t count, size_t *used)
{
    const struct cli_command *best = NULL;

    *used = 0;
    for (size_t i = 0; i < cli_command_count; i++) {
        size_t n = words_match(cli_commands[i].words, p, at, count);
        if (n > *used) {
            best = &cli_commands[i];
            *used = n;
        }
    }
    for (size_t i = 0; !best && i < cli_command_count; i++) {
        if (cli_commands[i].shortcut && words_match(cli_commands[i].shortcut, p, at, count)) {
            best = &cli_commands[i];
            *used = 1;
        }
    }
    return best;
}

/* The words that may come after `prefix` ("" for the first), each once. */
static size_t next_words(const char *prefix, char names[NAMES_MAX][OPTION_MAX])
{
    size_t count = 0, len = strlen(prefix);

    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *c = &cli_commands[i];
        const char *rest = c->words + len + (len > 0);
        size_t word;
        if (c->flags & CLI_HIDDEN)
            continue;
        if (strncmp(c->words, prefix, len) != 0 || (len && c->words[len] != ' '))
            continue;
        word = strcspn(rest, " ");
        if (count && strlen(names[count - 1]) == word && strncmp(names[count - 1], rest, word) == 0)
            continue;
        if (count < NAMES_MAX && word < OPTION_MAX) {
            memcpy(names[count], rest, word);
            names[count++][word] = '\0';
        }
    }
    return count;
}

/* `end` and its like may have been meant too. Returns the new count. */
static size_t add_shortcuts(char names[NAMES_MAX][OPTION_MAX], size_t count)
{
    for (size_t i = 0; i < cli_command_count && count < NAMES_MAX; i++) {
        if (cli_commands[i].shortcut)
            text_copy(names[count++], OPTION_MAX, cli_commands[i].shortcut);
    }
    return count;
}

static const char *nearest_word(const char *typed, char names[NAMES_MAX][OPTION_MAX], size_t count,
                                bool is_first)
{
    const char *list[NAMES_MAX];
    const char *synonym = NULL;

    for (size_t i = 0; i < sizeof(synonyms) / sizeof(synonyms[0]); i++) {
        if (strcmp(synonyms[i].typed, typed) == 0)
            synonym = synonyms[i].word;
    }
    for (size_t i = 0; i < count; i++) {
        list[i] = names[i];
        if (synonym && strcmp(synonym, names[i]) == 0)
            return synonym;
    }
    if (synonym && is_first && strpbrk(synonym, " -"))
        return synonym;
    return text_nearest(typed, list, count);
}

/* How many of the typed words exist, one behind the other. prefix becomes those, names what may
 * come next. */
static size_t follow_words(const struct parser *p, const int at[WORDS_MAX], size_t count,
                           char *prefix, size_t prefix_len, char names[NAMES_MAX][OPTION_MAX],
                           size_t *name_count)
{
    size_t known = 0, used = 0;

    *name_count = next_words("", names);
    while (known < count) {
        const char *typed = p->argv[at[known]];
        size_t i = 0;
        while (i < *name_count && strcmp(names[i], typed) != 0)
            i++;
        if (i == *name_count)
            break;
        used +=
            (size_t)snprintf(prefix + used, prefix_len - used, "%s%s", known ? " " : "", names[i]);
        known++;
        *name_count = next_words(prefix, names);
    }
    return known;
}

/* No command fits: say which words there are, or which one was meant. ERR_AGAIN when the words are
 * right and only lack the next. */
static int explain_words(const struct parser *p, const int at[WORDS_MAX], size_t count)
{
    char names[NAMES_MAX][OPTION_MAX], list[1024] = "", shown[256], prefix[256] = "";
    size_t n, known = follow_words(p, at, count, prefix, sizeof(prefix), names, &n);
    const char *typed = known < count ? p->argv[at[known]] : "", *near = NULL;
    const char *blank = known ? " " : "";

    for (size_t i = 0, len = 0; i < n && len < sizeof(list); i++)
        len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s", i ? ", " : "", names[i]);
    if (known == count) {
        fail(p, "\"%s\" needs a word more: %s", prefix, list);
        return ERR_AGAIN;
    }
    text_escape(shown, sizeof(shown), typed, strlen(typed));
    near = nearest_word(typed, names, known ? n : add_shortcuts(names, n), known == 0);
    if (near)
        fail(p, "no command \"%s%s%s\" (did you mean \"%s%s%s\"?)", prefix, blank, shown, prefix,
             blank, near);
    else
        fail(p, "no command \"%s%s%s\"; there are %s", prefix, blank, shown, list);
    return ERR_INVALID;
}

/* ---- options and operands ---- */

static int explain_option(const struct parser *p, const char *typed, size_t len)
{
    const struct cli_command *command = p->args->command;
    const char *names[NAMES_MAX * 2];
    char name[OPTION_MAX] = "", shown[256];
    const struct cli_option *o;
    const char *near;
    size_t count = 0;

    for (size_t i = 0; (o = cli_option_at(command, i)) && count < NAMES_MAX * 2; i++)
        names[count++] = o->name;
    snprintf(name, sizeof(name), "%.*s", (int)(len < OPTION_MAX ? len : OPTION_MAX), typed);
    text_escape(shown, sizeof(shown), typed, len);
    near = text_nearest(name, names, count);
    if (near)
        fail(p, "%s%sno option --%s (did you mean --%s?)", command ? command->words : "",
             command ? " has " : "", shown, near);
    else
        fail(p, "%s%sno option --%s", command ? command->words : "", command ? " has " : "", shown);
    return ERR_INVALID;
}

static bool in_choices(const char *choices, const char *value)
{
    size_t len = strlen(value);

    while (*choices) {
        size_t n = strcspn(choices, "|");
        if (n == len && strncmp(choices, value, n) == 0)
            return true;
        choices += n + (choices[n] == '|');
    }
    return false;
}

static int check_value(const struct parser *p, const struct cli_option *o, const char *value)
{
    char shown[256], why[256];
    uint64_t number;
    int64_t wall_us;

    text_escape(shown, sizeof(shown), value, strlen(value));
    switch (o->kind) {
    case VALUE_CHOICE:
        if (in_choices(o->choices, value))
            return 0;
        fail(p, "--%s is one of %s, not \"%s\"", o->name, o->choices, shown);
        return ERR_INVALID;
    case VALUE_COUNT:
        if (text_parse_u64(value, &number))
            return 0;
        fail(p, "--%s takes a number, not \"%s\"", o->name, shown);
        return ERR_INVALID;
    case VALUE_DURATION:
        if (text_parse_duration(value, &number))
            return 0;
        fail(p, "--%s takes a duration such as 30s, 10m or 1h30m, not \"%s\"", o->name, shown);
        return ERR_INVALID;
    case VALUE_TIME:
        if (when_parse(value, &wall_us, why, sizeof(why)))
            return 0;
        fail(p, "--%s: %s", o->name, why);
        return ERR_INVALID;
    default:
        return 0;
    }
}

static int give(struct parser *p, const struct cli_option *o, const char *value)
{
    struct cli_args *a = p->args;

    for (size_t i = 0; i < a->given_count; i++) {
        if (a->given[i].option == o && value) {
            fail(p, "--%s is given twice", o->name);
            return ERR_INVALID;
        }
    }
    a->given[a->given_count++] = (struct cli_given){.option = o, .value = value};
    return value ? check_value(p, o, value) : 0;
}

static int take_long(struct parser *p, int *i)
{
    const char *typed = p->argv[*i] + 2;
    size_t len = strcspn(typed, "=");
    const struct cli_option *o = find_long(p->args->command, typed, len);
    const char *value = typed[len] == '=' ? typed + len + 1 : NULL;

    if (!o)
        return explain_option(p, typed, len);
    if (o->kind == VALUE_NONE) {
        if (!value)
            return give(p, o, NULL);
        fail(p, "--%s takes no value", o->name);
        return ERR_INVALID;
    }
    if (!value && *i + 1 < p->argc)
        value = p->argv[++*i];
    if (!value) {
        fail(p, "--%s needs a value: --%s %s", o->name, o->name, o->metavar);
        return ERR_INVALID;
    }
    return give(p, o, value);
}

/* One argument of letters: -q, -wq, -o json, -ojson. */
static int take_letters(struct parser *p, int *i)
{
    const char *typed = p->argv[*i] + 1;
    const struct cli_command *command = p->args->command;

    for (; *typed; typed++) {
        const struct cli_option *o = find_letter(command, *typed);
        const char *value = typed[1] ? typed + 1 : NULL;
        char shown[16];
        int rc;
        if (!o) {
            fail(p, "%s%sno option -%s", command ? command->words : "", command ? " has " : "",
                 text_escape(shown, sizeof(shown), typed, 1));
            return ERR_INVALID;
        }
        if (o->kind == VALUE_NONE) {
            rc = give(p, o, NULL);
            if (rc < 0)
                return rc;
            continue;
        }
        if (!value && *i + 1 < p->argc)
            value = p->argv[++*i];
        if (!value) {
            fail(p, "-%c needs a value: -%c %s", o->letter, o->letter, o->metavar);
            return ERR_INVALID;
        }
        return give(p, o, value);
    }
    return 0;
}

static int take_all(struct parser *p, const int at[WORDS_MAX], size_t used)
{
    struct cli_args *a = p->args;
    bool only_operands = false;
    size_t word = 0;

    for (int i = 1; i < p->argc; i++) {
        const char *arg = p->argv[i];
        int rc = 0;
        if (!only_operands && strcmp(arg, "--") == 0)
            only_operands = true;
        else if (!only_operands && arg[0] == '-' && arg[1] == '-')
            rc = take_long(p, &i);
        else if (!only_operands && arg[0] == '-' && arg[1])
            rc = take_letters(p, &i);
        else if (word < used && at[word] == i)
            word++;
        else
            a->operands[a->operand_count++] = arg;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check_operands(const struct parser *p)
{
    const struct cli_args *a = p->args;
    const struct cli_command *c = a->command;
    char shown[256];

    if (a->operand_count < c->operands_min) {
        fail(p, "%s needs %s", c->words, c->operands);
        return ERR_INVALID;
    }
    if (a->operand_count > c->operands_max) {
        const char *extra = a->operands[c->operands_max];
        fail(p, "%s takes %s; \"%s\" is one word too many", c->words,
             c->operands_max ? c->operands : "no words",
             text_escape(shown, sizeof(shown), extra, strlen(extra)));
        return ERR_INVALID;
    }
    return 0;
}

int cli_args_parse(struct cli_args *a, int argc, const char *const *argv, char *err, size_t err_len)
{
    struct parser p = {.args = a, .argv = argv, .argc = argc, .err = err, .err_len = err_len};
    int at[WORDS_MAX];
    size_t count, used = 0, most = 1;
    int rc;

    memset(a, 0, sizeof(*a));
    a->operands = calloc((size_t)argc + 1, sizeof(*a->operands));
    for (int i = 1; i < argc; i++) /* a letter each at most */
        most += argv[i][0] == '-' ? strlen(argv[i]) : 1;
    a->given = calloc(most, sizeof(*a->given));
    if (!a->operands || !a->given)
        return ERR_MEMORY;
    count = first_words(&p, true, at);
    a->command = find_command(&p, at, count, &used);
    if (!a->command) { /* -f may have eaten a word of it */
        count = first_words(&p, false, at);
        a->command = find_command(&p, at, count, &used);
    }
    rc = take_all(&p, at, used);
    if (!a->command && count) { /* a wrong word says more than its options */
        rc = explain_words(&p, at, count);
        if (rc == ERR_AGAIN && cli_args_has(a, "help")) {
            a->noun = argv[at[0]];
            return 0;
        }
        return ERR_INVALID;
    }
    if (rc < 0 || !a->command || cli_args_has(a, "help") || cli_args_has(a, "version"))
        return rc;
    return check_operands(&p);
}

void cli_args_finish(struct cli_args *a)
{
    free(a->operands);
    free(a->given);
    memset(a, 0, sizeof(*a));
}

bool cli_args_has(const struct cli_args *a, const char *option)
{
    for (size_t i = 0; i < a->given_count; i++) {
        if (strcmp(a->given[i].option->name, option) == 0)
            return true;
    }
    return false;
}

const char *cli_args_value(const struct cli_args *a, const char *option)
{
    for (size_t i = 0; i < a->given_count; i++) {
        if (strcmp(a->given[i].option->name, option) == 0)
            return a->given[i].value;
    }
    return NULL;
}
