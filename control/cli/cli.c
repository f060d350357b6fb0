/*
 * sallyctl's start, its talk to the user, and the call of a command of the daemon. What a command
 * does is in the cmd_*.c files.
 */
#include "control/cli/cli.h"

#include <errno.h>
#include <locale.h>
#include <malloc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/buffer.h>
#include <sallyport/policy.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "control/cli/when.h"

#define TALK_MAX (256 * 1024)

/* ---- talk ---- */

/* Each line on its own, so that what the daemon passes on can neither drive the terminal nor look
 * like a line of ours. */
static void put_talk(const char *prefix, const char *text)
{
    struct buffer b;

    buffer_init(&b, TALK_MAX);
    while (*text) {
        size_t len = strcspn(text, "\n");
        buffer_put_str(&b, prefix);
        text_escape_append(&b, text, len);
        buffer_put_str(&b, "\n");
        prefix = *prefix ? "  " : "";
        text += len + (text[len] == '\n');
    }
    fflush(stdout);
    if (buffer_cstr(&b))
        fputs(buffer_cstr(&b), stderr);
    buffer_finish(&b);
}

static void talk(const char *prefix, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

static void talk(const char *prefix, const char *fmt, va_list ap)
{
    char *text = NULL;

    if (vasprintf(&text, fmt, ap) >= 0)
        put_talk(prefix, text);
    free(text);
}

void cli_error(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    talk("sallyctl: ", fmt, ap);
    va_end(ap);
}

void cli_say(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    talk("", fmt, ap);
    va_end(ap);
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    const struct cli_command *c = cli->args.command;
    va_list ap;

    va_start(ap, fmt);
    talk("sallyctl: ", fmt, ap);
    va_end(ap);
    if (cli_is_door())
        cli_say("Try: help, or help and a word");
    else if (c && c->run != cmd_help)
        cli_say("Try: sallyctl help %s", c->words);
    else
        cli_say("Try: sallyctl help");
    return CLI_USAGE;
}

bool cli_has(const struct cli *cli, const char *option)
{
    return cli_args_has(&cli->args, option);
}

const char *cli_value(const struct cli *cli, const char *option)
{
    return cli_args_value(&cli->args, option);
}

const char *cli_operand(const struct cli *cli, size_t index)
{
    return index < cli->args.operand_count ? cli->args.operands[index] : NULL;
}

bool cli_is_door(void)
{
    const char *socket = getenv("SALLYPORT_SOCKET");

    return socket && strncmp(socket, "fd:", 3) == 0;
}

bool cli_may_use_file(const char *path)
{
    if (!cli_is_door() || strcmp(path, "-") == 0)
        return true;
    cli_error("there are no files of yours at this end: say - for %s, and use < or > on your side",
              path);
    return false;
}

/* ---- the daemon ---- */

static int unreachable(const struct cli *cli, const struct conn_error *e)
{
    const char *path = cli->socket_path;
    struct stat st;

    switch (e->system) {
    case ENOENT:
    case ENOTDIR:
        cli_error("no sallyportd at %s (no such socket)", path);
        break;
    case ECONNREFUSED:
        if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
            cli_error("%s is not a socket", path);
        else
            cli_error("the sallyportd of %s is not running (nobody listens on the socket)", path);
        break;
    case EACCES:
    case EPERM:
        cli_error("you may not open %s; ask an admin, or use sudo", path);
        return CLI_NOT_PERMITTED;
    case EBADF:
        cli_error("the connection to the daemon is gone; run the command again");
        return CLI_UNREACHABLE;
    case ENAMETOOLONG:
        cli_error("%s is too long for a socket's path (107 bytes at most)", path);
        return CLI_USAGE;
    default:
        cli_error("cannot connect to %s: %s", path, strerror(e->system));
    }
    cli_say("Start it with `systemctl start sallyport`, or `scripts/run.sh` in a checkout.\n"
            "If it runs elsewhere, name its socket: --socket PATH or SALLYPORT_SOCKET=PATH.");
    return CLI_UNREACHABLE;
}

int cli_report(const struct cli *cli, int error, const struct conn_error *e)
{
    if (strcmp(e->code, "not_permitted") == 0) {
        cli_error("not permitted: %s", e->message ? e->message : "ask an admin");
        return CLI_NOT_PERMITTED;
    }
    if (e->code[0]) {
        cli_error("%s", e->message ? e->message : e->code);
        if (strcmp(e->code, "usage") == 0 || strcmp(e->code, "invalid") == 0)
            return CLI_USAGE;
        return CLI_FAILED;
    }
    switch (error) {
    case ERR_SYSTEM:
        return unreachable(cli, e);
    case ERR_AGAIN:
        cli_error("the daemon at %s does not answer; look at its log", cli->socket_path);
        return CLI_UNREACHABLE;
    case ERR_CLOSED:
        cli_error("the daemon closed the connection; look at its log, then try again");
        return CLI_UNREACHABLE;
    case ERR_VERSION:
        cli_error("%s is not a control socket of this Sallyport (version " SALLYPORT_VERSION ")",
                  cli->socket_path);
        return CLI_UNREACHABLE;
    case ERR_CORRUPT:
        cli_error("%s sends what is not the control protocol", cli->socket_path);
        return CLI_UNREACHABLE;
    default:
        cli_error("%s", error_text(error));
        return CLI_FAILED;
    }
}

int cli_connect(struct cli *cli)
{
    struct conn_error e;
    int rc;

    if (cli->is_connected)
        return CLI_DONE;
    rc = conn_open(&cli->conn, cli->socket_path, CONN_HELLO_MS, &e);
    if (rc < 0) {
        rc = cli_report(cli, rc, &e);
        conn_error_finish(&e);
        return rc;
    }
    cli->is_connected = true;
    return CLI_DONE;
}

int cli_call(struct cli *cli, const char *command, json_t *args, json_t **reply)
{
    struct conn_error e = {.code = ""};
    int64_t id;
    int rc = cli_connect(cli);

    *reply = NULL;
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    rc = conn_send(&cli->conn, command, args, &id);
    if (rc == 0 || rc == ERR_CLOSED) /* closed: perhaps with a word why */
        rc = conn_reply(&cli->conn, rc == 0 ? id : -1, reply, &e);
    if (rc < 0) {
        json_decref(*reply);
        *reply = NULL;
        rc = cli_report(cli, rc, &e);
        conn_error_finish(&e);
        return rc;
    }
    return CLI_DONE;
}

/* ---- arguments of a request ---- */

static const struct cli_option *given_option(const struct cli *cli, const char *name)
{
    for (size_t i = 0; i < cli->args.given_count; i++) {
        if (strcmp(cli->args.given[i].option->name, name) == 0)
            return cli->args.given[i].option;
    }
    return NULL;
}

void cli_put_option(const struct cli *cli, json_t *args, const char *name)
{
    const struct cli_option *o = given_option(cli, name);
    const char *value = cli_value(cli, name);
    char key[64], text[TIME_TEXT_MAX];
    uint64_t number = 0;
    int64_t wall_us = 0;
    size_t i = 0;

    if (!o)
        return;
    for (; name[i] && i + 1 < sizeof(key); i++)
        key[i] = name[i] == '-' ? '_' : name[i];
    key[i] = '\0';
    switch (o->kind) {
    case VALUE_NONE:
        json_object_set_new(args, key, json_true());
        break;
    case VALUE_COUNT:
        if (text_parse_u64(value, &number))
            json_object_set_new(args, key, json_integer((json_int_t)number));
        break;
    case VALUE_TIME:
        if (when_parse(value, &wall_us, text, sizeof(text)))
            json_object_set_new(args, key, json_string(text_time_utc(text, sizeof(text), wall_us)));
        break;
    default:
        json_object_set_new(args, key, json_string(value));
    }
}

static const struct policy_key *policy_find(const char *name, size_t len)
{
    for (size_t i = 0; i < policy_key_count; i++) {
        const char *key = policy_keys[i].key;
        size_t at = 0;
        while (at < len && key[at] && key[at] == (name[at] == '-' ? '_' : name[at]))
            at++;
        if (at == len && key[at] == '\0')
            return &policy_keys[i];
    }
    return NULL;
}

static bool put_policy(const struct cli *cli, json_t *policy, const struct policy_key *key,
                       const char *value)
{
    uint64_t number;
    char why[256] = "";

    if (*value && policy_parse_value(key, value, &number, why, sizeof(why)) < 0) {
        cli_usage(cli, "%s: %s", key->key, why);
        return false;
    }
    if (json_object_get(policy, key->key)) {
        cli_usage(cli, "%s is given twice", key->key);
        return false;
    }
    json_object_set_new(policy, key->key, json_string(value));
    return true;
}

static void tell_policy_keys(const struct cli *cli, const char *typed)
{
    const char *names[64], *near;
    char list[1024] = "";
    size_t count = 0;

    for (; count < policy_key_count && count < 64; count++) {
        size_t len = strlen(list);
        names[count] = policy_keys[count].key;
        snprintf(list + len, sizeof(list) - len, "%s%s", count ? ", " : "", names[count]);
    }
    near = text_nearest(typed, names, count);
    if (near)
        cli_usage(cli, "no policy key \"%s\" (did you mean %s=...?)", typed, near);
    else
        cli_usage(cli, "no policy key \"%s\"; there are %s", typed, list);
}

static bool put_policy_word(const struct cli *cli, json_t *policy, const char *word)
{
    size_t len = strcspn(word, "=");
    const struct policy_key *key = policy_find(word, len);
    char typed[64];

    if (key && word[len] == '=')
        return put_policy(cli, policy, key, word + len + 1);
    snprintf(typed, sizeof(typed), "%.*s", (int)(len < 63 ? len : 63), word);
    if (key)
        cli_usage(cli, "%s needs a value: %s=%s", key->key, key->key, key->def);
    else if (word[len] == '=')
        tell_policy_keys(cli, typed);
    else
        cli_usage(cli, "\"%s\" is one word too many, or no KEY=VALUE of a policy", word);
    return false;
}

json_t *cli_policy_args(const struct cli *cli, size_t first)
{
    json_t *policy = json_object();
    bool ok = policy != NULL;

    for (size_t i = first; ok && i < cli->args.operand_count; i++)
        ok = put_policy_word(cli, policy, cli->args.operands[i]);
    for (size_t i = 0; ok && i < policy_key_count; i++) {
        const struct cli_option *o = cli_policy_option(i);
        const char *value = o && given_option(cli, o->name) == o ? cli_value(cli, o->name) : NULL;
        if (value)
            ok = put_policy(cli, policy, &policy_keys[i], value);
    }
    if (ok)
        return policy;
    json_decref(policy);
    return NULL;
}

/* ---- start ---- */

static void wiping_free(void *p)
{
    if (p)
        memory_wipe(p, malloc_usable_size(p)); /* JSON may hold passwords and keys */
    free(p);
}

static bool wants_colour(FILE *stream)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    return isatty(fileno(stream)) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

static void set_up(struct cli *cli)
{
    static const char *const formats[] = {"table", "wide", "json", "jsonl", "csv"};
    const char *format = cli_value(cli, "output");
    const char *socket = cli_value(cli, "socket");
    const char *from_env = getenv("SALLYPORT_SOCKET");

    for (size_t i = 0; format && i < sizeof(formats) / sizeof(formats[0]); i++) {
        if (strcmp(format, formats[i]) == 0)
            cli->format = (enum cli_format)i;
    }
    if (socket && !cli_is_door())
        cli->socket_path = socket;
    else if (from_env && *from_env)
        cli->socket_path = from_env;
    else
        cli->socket_path = CLI_DEFAULT_SOCKET;
}

static void set_locale(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    bool is_chosen = false;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = getenv(names[i]);
        is_chosen = is_chosen || (value && *value);
    }
    setlocale(LC_ALL, "");
    if (!is_chosen) /* a bare environment: terminals speak UTF-8 nowadays */
        setlocale(LC_CTYPE, "C.UTF-8");
}

static int run(struct cli *cli)
{
    const struct cli_args *a = &cli->args;

    if (cli_has(cli, "version")) {
        puts("sallyctl " SALLYPORT_VERSION);
        return CLI_DONE;
    }
    if (cli_has(cli, "help")) {
        cli_help(stdout, a->command, a->noun);
        return CLI_DONE;
    }
    if (!a->command) {
        cli_help(stderr, NULL, NULL);
        return CLI_USAGE;
    }
    if (cli_is_door() && cli_has(cli, "socket"))
        return cli_usage(cli, "--socket is not for this end: there is one daemon here");
    return a->command->run(cli);
}

int cli_main(int argc, char **argv)
{
    struct cli cli = {.conn.fd = -1};
    char err[2048] = "";
    int rc;

    signal(SIGPIPE, SIG_DFL); /* `sallyctl ls | head` ends quietly; sends use MSG_NOSIGNAL */
    json_set_alloc_funcs(malloc, wiping_free);
    set_locale();
    cli.is_colour = wants_colour(stdout);
    cli.is_talk_colour = wants_colour(stderr);
    if (argc > 1 && strcmp(argv[1], "__complete") == 0)
        return cli_complete(&cli, argc - 2, (const char *const *)argv + 2);
    rc = cli_args_parse(&cli.args, argc, (const char *const *)argv, err, sizeof(err));
    set_up(&cli);
    if (rc == 0)
        rc = run(&cli);
    else
        rc = cli_usage(&cli, "%s", rc == ERR_MEMORY ? error_text(rc) : err);
    if (cli.is_connected)
        conn_close(&cli.conn);
    cli_args_finish(&cli.args);
    if ((fflush(stdout) != 0 || ferror(stdout)) && rc == CLI_DONE) {
        cli_error("cannot write: %s", strerror(errno));
        rc = CLI_FAILED;
    }
    return rc;
}
