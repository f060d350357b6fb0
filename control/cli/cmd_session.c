/*
 * `session ls|show|stats|message`: looking at sessions and talking into them. Ending them is in
 * cmd_end.c, the live table in top.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/buffer.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/session.h"

#define REDRAW_MS     2000 /* durations go on without events */
#define SETTLE_MS     100  /* changes come in bursts: draw once */
#define HISTORY_LIMIT 1000 /* PROTOCOL.md: what session ls --all gives without a limit */

bool session_is_id(const char *text)
{
    uint64_t id;

    return text_parse_u64(text, &id) && id > 0;
}

static const char *const filters[] = {"all",    "user",  "target", "account", "type",
                                      "status", "since", "until",  "search",  "flagged"};

/* The column's field for the daemon, "-" in front kept. False with an error told. */
static bool put_sort(const struct cli *cli, json_t *args)
{
    const char *by = cli_value(cli, "sort");
    const struct column *column;

    if (!by)
        return true;
    column = output_find(&session_columns, by + (*by == '-'), strlen(by + (*by == '-')));
    if (!column) { /* sorting nothing tells which columns there are */
        json_t *none = json_array();
        bool ok = output_sort(cli, &session_columns, none, by);
        json_decref(none);
        return ok;
    }
    json_object_set_new(args, "sort", json_sprintf("%s%s", *by == '-' ? "-" : "", column->key));
    return true;
}

static json_t *list_args(const struct cli *cli)
{
    json_t *args = json_object();

    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        cli_put_option(cli, args, filters[i]);
    return args;
}

static bool has_history(const struct cli *cli)
{
    const char *status = cli_value(cli, "status");

    return cli_has(cli, "all") || (status && strcmp(status, "disconnected") == 0);
}

static int list_once(struct cli *cli)
{
    json_t *args = list_args(cli), *rows;
    int rc;

    cli_put_option(cli, args, "limit");
    if (!put_sort(cli, args)) {
        json_decref(args);
        return CLI_USAGE;
    }
    rc = cli_call(cli, "session ls", args, &rows);
    if (rc != CLI_DONE)
        return rc;
    rc = output_rows(cli, &session_columns, rows, has_history(cli), true);
    if (has_history(cli) && !cli_has(cli, "limit") && json_array_size(rows) >= HISTORY_LIMIT)
        cli_say("The newest %d; --limit N shows more.", HISTORY_LIMIT);
    json_decref(rows);
    return rc;
}

/* ---- --watch ---- */

/* Start the subscription. Its rows are the snapshot. */
static int watch_start(struct cli *cli, int64_t *id, json_t **rows)
{
    json_t *args = list_args(cli);
    int rc;

    json_object_set_new(args, "watch", json_true());
    rc = cli_call(cli, "session ls", args, rows);
    *id = cli->conn.last_id;
    return rc;
}

static void print_event(const json_t *event)
{
    json_dumpf(event, stdout, JSON_COMPACT);
    fputc('\n', stdout);
    fflush(stdout);
}

/* One event a line; the sessions that are there already come first, as changes. */
static int watch_events(struct cli *cli)
{
    struct conn_error e = {.code = ""};
    json_t *rows, *line = NULL;
    int64_t id;
    int rc = watch_start(cli, &id, &rows);

    if (rc != CLI_DONE)
        return rc;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *event =
            json_pack("{s:s,s:O}", "type", "change", "session", json_array_get(rows, i));
        print_event(event);
        json_decref(event);
    }
    json_decref(rows);
    while (!ferror(stdout)) {
        rc = conn_read(&cli->conn, -1, &line);
        if (rc == ERR_AGAIN)
            continue;
        if (rc < 0)
            return cli_report(cli, rc, &e);
        if (json_object_get(line, "event"))
            print_event(json_object_get(line, "event"));
        json_decref(line);
    }
    return CLI_FAILED;
}

/* Wait for something to draw: an event (and those right behind it), or time passing. */
static int watch_wait(struct cli *cli)
{
    int timeout_ms = REDRAW_MS, rc;

    for (;;) {
        json_t *line = NULL;
        rc = conn_read(&cli->conn, timeout_ms, &line);
        if (rc == ERR_AGAIN)
            return 0;
        if (rc < 0)
            return rc;
        json_decref(line);
        timeout_ms = SETTLE_MS;
    }
}

static int watch_table(struct cli *cli)
{
    struct conn_error e = {.code = ""};
    json_t *rows;
    int64_t id;
    int rc = watch_start(cli, &id, &rows);

    if (rc != CLI_DONE)
        return rc;
    json_decref(rows);
    for (;;) {
        fputs("\033[H\033[2J", stdout);
        rc = list_once(cli);
        fflush(stdout);
        if (rc != CLI_DONE)
            return rc;
        rc = watch_wait(cli);
        if (rc < 0)
            return cli_report(cli, rc, &e);
    }
}

int cmd_session_ls(struct cli *cli)
{
    if (!cli_has(cli, "watch"))
        return list_once(cli);
    if (cli->format == FORMAT_JSONL)
        return watch_events(cli);
    if (cli->format != FORMAT_TABLE && cli->format != FORMAT_WIDE)
        return cli_usage(cli, "--watch goes with a table or with -o jsonl");
    if (!isatty(STDOUT_FILENO))
        return cli_usage(cli, "--watch redraws a terminal; without one use -o jsonl");
    return watch_table(cli);
}

/* ---- show, stats, message ---- */

/* Commands and files, each as a table under its head; nothing when there were none. */
static void show_list(struct cli *cli, const struct columns *columns, json_t *rows, json_t *total,
                      const char *head)
{
    json_int_t all = json_integer_value(total);
    size_t shown = json_array_size(rows);

    if (shown == 0)
        return;
    if (all > (json_int_t)shown)
        printf("\n%s (the newest %zu of %lld):\n", head, shown, (long long)all);
    else
        printf("\n%s:\n", head);
    output_table(cli, stdout, columns, rows, false);
}

/* What two fields of a command say in one cell. */
static void merge_command(json_t *row)
{
    json_t *ms = json_object_get(row, "durationMs");
    json_t *status = json_object_get(row, "exitStatus"), *name = json_object_get(row, "exitSignal");
    char text[DURATION_TEXT_MAX + 64];

    if (json_is_string(name)) {
        snprintf(text, sizeof(text), "SIG%.32s", json_string_value(name));
        json_object_set_new(row, "exit", json_string(text));
    } else if (json_is_integer(status)) {
        snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(status));
        json_object_set_new(row, "exit", json_string(text));
    }
    if (json_is_integer(ms) && json_integer_value(ms) < 10000)
        snprintf(text, sizeof(text), "%.3fs", (double)json_integer_value(ms) / 1000);
    else
        text_duration(text, sizeof(text), (uint64_t)json_integer_value(ms) / 1000);
    json_object_set_new(row, "lasted", json_string(json_is_integer(ms) ? text : "runs"));
}

static void show_activity(struct cli *cli, const json_t *session)
{
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(session, "commands"), i, row) merge_command(row);
    json_array_foreach(json_object_get(session, "files"), i, row) json_object_set(
        row, "to", json_object_get(row, json_object_get(row, "set") ? "set" : "path2"));
    show_list(cli, &command_columns, json_object_get(session, "commands"),
              json_object_get(session, "commandsTotal"), "Commands");
    show_list(cli, &file_columns, json_object_get(session, "files"),
              json_object_get(session, "filesTotal"), "Files");
}

int cmd_session_show(struct cli *cli)
{
    const char *id = cli_operand(cli, 0);
    json_t *session;
    int rc;

    if (!session_is_id(id))
        return cli_usage(cli, "\"%s\" is no session's id; `sallyctl ls` shows them", id);
    rc = cli_call(cli, "session show", json_pack("{s:s}", "id", id), &session);
    if (rc != CLI_DONE)
        return rc;
    rc = output_object(cli, &session_columns, session);
    if (rc == CLI_DONE && (cli->format == FORMAT_TABLE || cli->format == FORMAT_WIDE))
        show_activity(cli, session);
    json_decref(session);
    return rc;
}

int cmd_session_stats(struct cli *cli)
{
    json_t *stats;
    int rc = cli_call(cli, "session stats", NULL, &stats);

    if (rc != CLI_DONE)
        return rc;
    rc = output_object(cli, &stats_columns, stats);
    json_decref(stats);
    return rc;
}

int session_print_results(struct cli *cli, json_t *rows, bool are_named)
{
    static const char *const good[] = {"ended", "scheduled", "would-end",
                                       "sent",  "cancelled", "would-cancel"};
    size_t failed = 0;
    int rc;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *result = json_string_value(json_object_get(json_array_get(rows, i), "result"));
        bool ok = !are_named && result && strcmp(result, "already-ended") == 0;
        for (size_t g = 0; result && g < sizeof(good) / sizeof(good[0]); g++)
            ok = ok || strcmp(result, good[g]) == 0;
        failed += !ok;
    }
    rc = output_rows(cli, &result_columns, rows, false, true);
    return rc == CLI_DONE && failed ? CLI_SOME_FAILED : rc;
}

/* The text of a message: its words behind the ids, put together as typed. A message is one line of
 * text: line ends and other control characters become blanks. */
static bool join_text(const struct cli *cli, size_t from, struct buffer *text)
{
    for (size_t i = from; i < cli->args.operand_count; i++) {
        buffer_put_str(text, i > from ? " " : "");
        buffer_put_str(text, cli->args.operands[i]);
    }
    while (text->len && text->data[text->len - 1] <= ' ')
        text->len--;
    for (size_t i = 0; i < text->len; i++)
        text->data[i] = text->data[i] < ' ' || text->data[i] == 0x7f ? ' ' : text->data[i];
    return text->len && buffer_cstr(text);
}

int cmd_session_message(struct cli *cli)
{
    json_t *args = json_object(), *ids = json_array(), *rows;
    size_t first = 0, count = cli->args.operand_count;
    bool to_all = cli_has(cli, "all");
    struct buffer text;
    int rc;

    buffer_init(&text, 4096);
    while (!to_all && first + 1 < count && session_is_id(cli_operand(cli, first)))
        json_array_append_new(ids, json_string(cli_operand(cli, first++)));
    if (!to_all && count == 1 && session_is_id(cli_operand(cli, 0))) {
        rc = cli_usage(cli, "the message is missing");
    } else if (!to_all && first == 0) {
        rc = cli_usage(cli, "to whom? Give ids and a text (`sallyctl ls` shows ids), or --all");
    } else if (!join_text(cli, first, &text)) {
        rc = cli_usage(cli, "the message is missing, or longer than 4096 bytes");
    } else {
        if (to_all)
            json_object_set_new(args, "all", json_true());
        else
            json_object_set(args, "ids", ids);
        json_object_set_new(args, "text", json_string(buffer_cstr(&text)));
        rc = cli_call(cli, "session message", json_incref(args), &rows);
        if (rc == CLI_DONE) {
            if (json_array_size(rows) == 0)
                cli_say("No live sessions.");
            else
                rc = session_print_results(cli, rows, !to_all);
            json_decref(rows);
        }
    }
    buffer_finish(&text);
    json_decref(ids);
    json_decref(args);
    return rc;
}
