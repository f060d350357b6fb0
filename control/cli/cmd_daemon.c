/*
 * The daemon itself: status, reload, drain, shutdown, key rotation; and its event log.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

int cmd_status(struct cli *cli)
{
    return simple_object(cli, "status", NULL, &status_columns);
}

int cmd_reload(struct cli *cli)
{
    const json_t *report;
    json_t *data;
    int rc = cli_call(cli, "reload", NULL, &data);

    if (rc != CLI_DONE)
        return rc;
    report = json_object_get(data, "report");
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        output_json(cli, data);
    } else if (json_array_size(report) == 0) {
        cli_say("Read again; nothing changed.");
    }
    for (size_t i = 0; i < json_array_size(report) && cli->format <= FORMAT_WIDE; i++) {
        const char *line = json_string_value(json_array_get(report, i));
        char shown[1024];
        puts(text_escape(shown, sizeof(shown), line ? line : "", line ? strlen(line) : 0));
    }
    json_decref(data);
    return rc;
}

static int drain(struct cli *cli, const char *command, const char *said)
{
    json_t *data;
    int rc = cli_call(cli, command, NULL, &data);

    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL)
        output_json(cli, data);
    else
        cli_say("%s", said);
    json_decref(data);
    return rc;
}

int cmd_drain(struct cli *cli)
{
    return drain(cli, "drain",
                 "Draining: no new sessions; live ones go on. Back: sallyctl undrain");
}

int cmd_undrain(struct cli *cli)
{
    return drain(cli, "undrain", "New sessions are taken again.");
}

/* On a terminal, ask when sessions are live. */
static bool may_shut_down(struct cli *cli)
{
    char question[160];
    json_t *status;
    json_int_t sessions;

    if (cli_has(cli, "yes") || !prompt_is_possible())
        return true;
    if (cli_call(cli, "status", NULL, &status) != CLI_DONE)
        return false;
    sessions = json_integer_value(json_object_get(status, "sessions"));
    json_decref(status);
    if (sessions == 0)
        return true;
    snprintf(question, sizeof(question),
             "This ends %" JSON_INTEGER_FORMAT " live session%s and stops the daemon. Go on? [y/N]",
             sessions, sessions == 1 ? "" : "s");
    if (prompt_yes(question))
        return true;
    cli_say("Nothing was done.");
    return false;
}

int cmd_shutdown(struct cli *cli)
{
    const char *in = cli_value(cli, "in");
    json_t *args, *data;
    int rc = cli_connect(cli);

    if (rc != CLI_DONE)
        return rc;
    if (!may_shut_down(cli))
        return CLI_FAILED;
    args = json_object();
    cli_put_option(cli, args, "in");
    rc = cli_call(cli, "shutdown", args, &data);
    if (rc != CLI_DONE)
        return rc;
    json_decref(data);
    if (in)
        cli_say("Shutting down in %s; the users are told.", in);
    else
        cli_say("Shutting down.");
    return rc;
}

int cmd_store_rotate_key(struct cli *cli)
{
    json_t *data;
    int rc = cli_call(cli, "store rotate-key", NULL, &data);

    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL)
        output_json(cli, data);
    else
        cli_say("A new master key is in use; %" JSON_INTEGER_FORMAT
                " secrets were encrypted again. "
                "Back up the key file.",
                json_integer_value(json_object_get(data, "rewritten")));
    json_decref(data);
    return rc;
}

/* ---- events ---- */

/* One event as a line of its own: what follows cannot be aligned with what was printed before. */
static void print_event_line(const json_t *event)
{
    static const struct {
        const char *head;
        size_t width;
    } widths[] = {{"TIME", 19},   {"KIND", 17},   {"USER", 12},
                  {"SOURCE", 16}, {"SESSION", 7}, {"TEXT", 0}};

    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        const struct column *c =
            output_find(&event_columns, widths[i].head, strlen(widths[i].head));
        char *text = output_cell(c, event, false);
        size_t width = text ? output_width(text) : 0;
        fputs(text ? text : "", stdout);
        for (; i + 1 < sizeof(widths) / sizeof(widths[0]) && width < widths[i].width; width++)
            fputc(' ', stdout);
        fputc(i + 1 < sizeof(widths) / sizeof(widths[0]) ? ' ' : '\n', stdout);
        free(text);
    }
}

static void print_event(const struct cli *cli, const json_t *event)
{
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        json_dumpf(event, stdout, JSON_COMPACT);
        fputc('\n', stdout);
    } else if (cli->format == FORMAT_CSV) {
        for (const struct column *c = event_columns.list; c->head; c++) {
            char *text = output_raw(c, event);
            if (c != event_columns.list)
                fputc(',', stdout);
            output_csv_field(stdout, text ? text : "");
            free(text);
        }
        fputs("\r\n", stdout);
    } else {
        print_event_line(event);
    }
    fflush(stdout);
}

static int follow(struct cli *cli, const json_t *rows)
{
    struct conn_error e = {.code = ""};
    int rc = 0;

    for (size_t i = 0; i < json_array_size(rows); i++)
        print_event(cli, json_array_get(rows, i));
    while (!ferror(stdout)) {
        json_t *line = NULL;
        const json_t *event;
        rc = conn_read(&cli->conn, -1, &line);
        if (rc == ERR_AGAIN)
            continue;
        if (rc < 0)
            return cli_report(cli, rc, &e);
        event = json_object_get(json_object_get(line, "event"), "event");
        if (event)
            print_event(cli, event);
        json_decref(line);
    }
    return CLI_FAILED;
}

int cmd_event_tail(struct cli *cli)
{
    static const char *const options[] = {"since", "user", "kind", "session", "limit", "follow"};
    json_t *args = json_object(), *rows;
    int rc;

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        cli_put_option(cli, args, options[i]);
    rc = cli_call(cli, "event tail", args, &rows);
    if (rc != CLI_DONE)
        return rc;
    if (cli_has(cli, "follow"))
        rc = follow(cli, rows);
    else
        rc = output_rows(cli, &event_columns, rows, false, true);
    json_decref(rows);
    return rc;
}
