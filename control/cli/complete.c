/*
 * The hidden `sallyctl __complete WORD...`, called by the shells' completion scripts: prints what
 * the last word may be, one candidate a line, "word<TAB>help". Ids, users and targets are asked
 * from the daemon; when it does not answer within a second there are none, and nothing is said.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/policy.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"

#define ANSWER_MS 1000
#define WORDS_MAX 256

/* What "@name" stands for: a list of the daemon and the field that is the word. */
static const struct source {
    const char *name, *command, *field, *help_field, *help_field2;
} sources[] = {
    {"@sessions", "session ls", "id", "user", "resourceName"},
    {"@recordings", "recording ls", "id", "user", "resourceName"},
    {"@users", "user ls", "name", "role", NULL},
    {"@roles", "role ls", "name", NULL, NULL},
    {"@targets", "target ls", "name", "type", "address"},
    {"@grants", "grant ls", "id", "subject", "target"},
    {"@sources", "source ls", "address", "until", NULL},
    {"@keys", "user key ls", "id", "type", "comment"},
};

static const char *head = ""; /* goes before each candidate: "--status=" */

static void candidate(const char *prefix, const char *word, const char *help)
{
    char shown[256];

    if (!word || strncmp(word, prefix, strlen(prefix)) != 0)
        return;
    for (const char *c = word; *c; c++) { /* a word that a shell would take apart is left out */
        if ((unsigned char)*c <= ' ' || *c == 0x7f)
            return;
    }
    printf("%s%s", head, word);
    if (help && *help)
        printf("\t%s", text_escape(shown, sizeof(shown), help, strlen(help)));
    fputc('\n', stdout);
}

static void choices(const char *prefix, const char *list)
{
    while (*list) {
        size_t len = strcspn(list, "|");
        char word[64];
        snprintf(word, sizeof(word), "%.*s", (int)len, list);
        candidate(prefix, word, NULL);
        list += len + (list[len] == '|');
    }
}

static json_t *ask(struct cli *cli, const struct source *source)
{
    struct conn_error e = {.code = ""};
    json_t *args = NULL, *reply = NULL;
    int64_t id;

    if (!cli->is_connected) {
        if (conn_open(&cli->conn, cli->socket_path, ANSWER_MS, &e) < 0) {
            conn_error_finish(&e);
            return NULL;
        }
        cli->is_connected = true;
    }
    if (strcmp(source->name, "@keys") == 0 && cli_operand(cli, 0))
        args = json_pack("{s:s}", "name", cli_operand(cli, 0));
    if (conn_send(&cli->conn, source->command, args, &id) == 0 &&
        conn_reply(&cli->conn, id, &reply, &e) < 0) {
        json_decref(reply);
        reply = NULL;
    }
    conn_error_finish(&e);
    return reply;
}

static void from_daemon(struct cli *cli, const char *prefix, const char *name)
{
    for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
        const struct source *s = &sources[i];
        json_t *rows;
        if (strcmp(s->name, name) != 0)
            continue;
        rows = ask(cli, s);
        for (size_t n = 0; n < json_array_size(rows); n++) {
            const json_t *row = json_array_get(rows, n);
            const char *a =
                s->help_field ? json_string_value(json_object_get(row, s->help_field)) : NULL;
            const char *b =
                s->help_field2 ? json_string_value(json_object_get(row, s->help_field2)) : NULL;
            char help[256];
            snprintf(help, sizeof(help), "%s%s%s", a ? a : "", a && b ? " " : "", b ? b : "");
            candidate(prefix, json_string_value(json_object_get(row, s->field)), help);
        }
        json_decref(rows);
    }
}

static void policy_words(const char *prefix)
{
    for (size_t i = 0; i < policy_key_count; i++) {
        const struct policy_key *key = &policy_keys[i];
        char word[128];
        const char *at = key->choices ? key->choices : "";
        if (!key->choices) {
            snprintf(word, sizeof(word), "%s=", key->key);
            candidate(prefix, word, key->help);
        }
        while (*at) {
            size_t len = strcspn(at, "|");
            snprintf(word, sizeof(word), "%s=%.*s", key->key, (int)len, at);
            candidate(prefix, word, key->help);
            at += len + (at[len] == '|');
        }
    }
}

/* The column names of a list, for --sort. */
static void sort_words(const struct cli *cli, const char *prefix)
{
    static const struct {
        const char *words;
        const struct columns *columns;
    } lists[] = {
        {"session ls", &session_columns}, {"session top", &session_columns},
        {"user ls", &user_columns},       {"user key ls", &key_columns},
        {"role ls", &role_columns},       {"target ls", &target_columns},
        {"grant ls", &grant_columns},     {"recording ls", &recording_columns},
    };

    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        if (strcmp(lists[i].words, cli->args.command->words) != 0)
            continue;
        for (const struct column *c = lists[i].columns->list; c->head; c++)
            candidate(prefix, c->head, NULL);
    }
}

/* One word of a kind: "@users", "@files", "a|b". The shells complete file names themselves when
 * told ":files". */
static void by_kind(struct cli *cli, const char *prefix, const char *kind)
{
    if (strcmp(kind, "@files") == 0) {
        puts(":files");
    } else if (strcmp(kind, "@policy") == 0) {
        policy_words(prefix);
    } else if (strcmp(kind, "@columns") == 0) {
        sort_words(cli, prefix);
    } else if (strcmp(kind, "@subjects") == 0) {
        json_t *roles = ask(cli, &sources[3]);
        for (size_t i = 0; i < json_array_size(roles); i++) {
            const json_t *name = json_object_get(json_array_get(roles, i), "name");
            char word[128];
            snprintf(word, sizeof(word), "@%s",
                     json_is_string(name) ? json_string_value(name) : "");
            candidate(prefix, word, "role");
        }
        json_decref(roles);
        from_daemon(cli, prefix, "@users");
    } else if (*kind == '@') {
        from_daemon(cli, prefix, kind);
    } else if (*kind) {
        choices(prefix, kind);
    }
}

/* Words of the table that may come next. */
static void command_words(const char *const *words, size_t count, const char *prefix)
{
    const char *last = "";

    for (size_t i = 0; i < cli_command_count; i++) {
        const struct cli_command *c = &cli_commands[i];
        const char *at = c->words;
        char word[64];
        size_t n = 0;
        while (n < count && strlen(words[n]) == strcspn(at, " ") &&
               strncmp(words[n], at, strlen(words[n])) == 0) {
            at += strcspn(at, " ");
            at += *at == ' ';
            n++;
        }
        if (n < count || !*at || (c->flags & CLI_HIDDEN))
            continue;
        snprintf(word, sizeof(word), "%.*s", (int)strcspn(at, " "), at);
        if (strncmp(last, at, strlen(word)) != 0 || last[strlen(word)] != ' ')
            candidate(prefix, word, strchr(at, ' ') || strcmp(word, at) != 0 ? NULL : c->help);
        last = at;
        if (count == 0 && c->shortcut)
            candidate(prefix, c->shortcut, c->help);
    }
}

static void option_words(const struct cli_command *command, const char *prefix)
{
    const struct cli_option *o;

    for (size_t i = 0; (o = cli_option_at(command, i)); i++) {
        char word[64];
        snprintf(word, sizeof(word), "--%s", o->name);
        candidate(prefix, word, o->help);
    }
}

/* The n-th word of a command's `complete` ("@users @targets"), the last one for all behind it. */
static void operand_kind(const char *complete, size_t place, char *kind, size_t len)
{
    while (place-- && strchr(complete, ' '))
        complete = strchr(complete, ' ') + 1;
    snprintf(kind, len, "%.*s", (int)strcspn(complete, " "), complete);
}

/* The option whose value the last word is, from the word before it; NULL when there is none. */
static const struct cli_option *open_option(const struct cli_command *command, const char *before)
{
    const struct cli_option *o;

    for (size_t i = 0; before && before[0] == '-' && (o = cli_option_at(command, i)); i++) {
        bool is_long = before[1] == '-' && strcmp(before + 2, o->name) == 0;
        bool is_short = o->letter && before[1] == o->letter && before[2] == '\0';
        if (o->kind != VALUE_NONE && (is_long || is_short))
            return o;
    }
    return NULL;
}

/* "--status=act": the value, with the option in front of each candidate again. */
static void option_value(struct cli *cli, const char *typed, const char *equals)
{
    char name[64], whole[72];
    const struct cli_option *o;

    snprintf(name, sizeof(name), "%.*s", (int)(equals - typed), typed);
    snprintf(whole, sizeof(whole), "%s=", name);
    o = open_option(cli->args.command, name);
    head = whole;
    by_kind(cli, equals + 1, o && o->choices ? o->choices : "");
    head = "";
}

static void operand_words(struct cli *cli, const char *typed)
{
    const struct cli_command *c = cli->args.command;
    size_t place = cli->args.operand_count;
    char kind[64];

    operand_kind(c->complete, place, kind, sizeof(kind));
    if (c->run == cmd_help)
        command_words(cli->args.operands, place, typed);
    else if (place < c->operands_max)
        by_kind(cli, typed, kind);
}

static void complete_word(struct cli *cli, const char *before, const char *typed)
{
    const struct cli_option *o = open_option(cli->args.command, before);
    const char *equals = strncmp(typed, "--", 2) == 0 ? strchr(typed, '=') : NULL;

    if (o)
        by_kind(cli, typed, o->choices ? o->choices : "");
    else if (equals)
        option_value(cli, typed, equals);
    else if (*typed == '-')
        option_words(cli->args.command, typed);
    else if (cli->args.command)
        operand_words(cli, typed);
    else
        command_words(cli->args.operands, cli->args.operand_count, typed);
}

int cli_complete(struct cli *cli, int argc, const char *const *argv)
{
    const char *line[WORDS_MAX] = {"sallyctl"};
    char err[1024];
    int count = 1;

    for (int i = 0; i < argc - 1 && count < WORDS_MAX; i++)
        line[count++] = argv[i];
    /* an unfinished line does not parse, but tells its command and options up to there */
    if (cli_args_parse(&cli->args, count, line, err, sizeof(err)) == ERR_MEMORY)
        return CLI_FAILED;
    cli->socket_path = cli_value(cli, "socket");
    if (!cli->socket_path)
        cli->socket_path = getenv("SALLYPORT_SOCKET");
    if (!cli->socket_path)
        cli->socket_path = CLI_DEFAULT_SOCKET;
    complete_word(cli, argc > 1 ? argv[argc - 2] : NULL, argc > 0 ? argv[argc - 1] : "");
    if (cli->is_connected)
        conn_close(&cli->conn);
    cli_args_finish(&cli->args);
    return CLI_DONE;
}
