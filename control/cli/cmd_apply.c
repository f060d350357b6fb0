/*
 * `apply` and `dump`: users, roles, targets and grants as one JSON file.
 */
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"

#define DOCUMENT_MAX (1024 * 1024)

static const char *const sections[] = {"roles", "users", "targets", "grants"};

/* ---- dump ---- */

static void print_item(const json_t *item, bool is_last)
{
    fputs("    ", stdout);
    json_dumpf(item, stdout, 0);
    puts(is_last ? "" : ",");
}

/* An item a line, so that a diff of two dumps reads well. */
static void print_document(const json_t *document)
{
    size_t count = sizeof(sections) / sizeof(sections[0]);

    puts("{");
    for (size_t i = 0; i < count; i++) {
        const json_t *items = json_object_get(document, sections[i]);
        size_t size = json_array_size(items);
        printf("  \"%s\": [%s", sections[i], size ? "\n" : "");
        for (size_t n = 0; n < size; n++)
            print_item(json_array_get(items, n), n + 1 == size);
        printf("%s]%s\n", size ? "  " : "", i + 1 < count ? "," : "");
    }
    puts("}");
}

int cmd_dump(struct cli *cli)
{
    json_t *rows, *document;
    int rc = cli_call(cli, "dump", NULL, &rows);

    if (rc != CLI_DONE)
        return rc;
    document = json_object();
    for (size_t i = 0; i < sizeof(sections) / sizeof(sections[0]); i++)
        json_object_set_new(document, sections[i], json_array());
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *section = json_string_value(json_object_get(row, "section"));
        json_array_append(section ? json_object_get(document, section) : NULL,
                          json_object_get(row, "item"));
    }
    if (cli->format == FORMAT_JSONL)
        output_json(cli, document);
    else
        print_document(document);
    json_decref(document);
    json_decref(rows);
    return rc;
}

/* ---- apply ---- */

static json_t *load_document(struct cli *cli, const char *path)
{
    struct buffer text;
    json_error_t error;
    json_t *document = NULL;

    buffer_init_secret(&text, DOCUMENT_MAX);
    if (prompt_read_file(path, &text) == 0) {
        document = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &error);
        if (!document)
            cli_error("%s:%d:%d: %s (apply takes what `sallyctl dump` prints)", path, error.line,
                      error.column, error.text);
        else if (!json_is_object(document))
            cli_error("%s holds no JSON object; apply takes what `sallyctl dump` prints", path);
    }
    buffer_finish(&text);
    if (document && !json_is_object(document)) {
        json_decref(document);
        document = NULL;
    }
    (void)cli;
    return document;
}

static void print_changes(struct cli *cli, json_t *rows)
{
    if (cli->format != FORMAT_TABLE && cli->format != FORMAT_WIDE) {
        output_rows(cli, &change_columns, rows, false, true);
        return;
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        const char *change = json_string_value(json_object_get(row, "change"));
        const char *colour = !change || *change == '~' ? "\033[33m"
                             : *change == '+'          ? "\033[32m"
                                                       : "\033[31m";
        fputs(cli->is_colour ? colour : "", stdout);
        for (const struct column *c = change_columns.list; c->head; c++) {
            char *text = output_cell(c, row, false);
            if (text && *text)
                printf("%s%s", c == change_columns.list ? "" : " ", text);
            free(text);
        }
        puts(cli->is_colour ? "\033[m" : "");
    }
}

static int call_apply(struct cli *cli, json_t *document, bool dry_run, json_t **rows)
{
    json_t *args = json_pack("{s:O,s:b,s:b}", "document", document, "dry_run", dry_run, "prune",
                             cli_has(cli, "prune"));
    struct conn_error e = {.code = ""};
    int64_t id;
    int rc = cli_connect(cli);

    *rows = NULL;
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    rc = conn_send(&cli->conn, "apply", args, &id);
    if (rc == 0 || rc == ERR_CLOSED)
        rc = conn_reply(&cli->conn, rc == 0 ? id : -1, rows, &e);
    if (rc == 0)
        return CLI_DONE;
    if (json_array_size(*rows)) { /* what was done before it failed */
        print_changes(cli, *rows);
        cli_say("The changes above were made; then:");
    }
    rc = cli_report(cli, rc, &e);
    conn_error_finish(&e);
    json_decref(*rows);
    *rows = NULL;
    return rc;
}

/* --prune takes things away that the file does not name: look first, and ask. */
static int confirm_prune(struct cli *cli, json_t *document)
{
    size_t removed = 0;
    char question[128];
    json_t *rows;
    int rc;

    if (!cli_has(cli, "prune") || cli_has(cli, "yes") || cli_has(cli, "dry-run"))
        return CLI_DONE;
    rc = call_apply(cli, document, true, &rows);
    if (rc != CLI_DONE)
        return rc;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *change = json_string_value(json_object_get(json_array_get(rows, i), "change"));
        removed += change && *change == '-';
    }
    if (removed && !prompt_is_possible()) {
        rc = cli_usage(cli,
                       "--prune would remove %zu; there is no terminal to ask on: add -y, or "
                       "--dry-run to see what",
                       removed);
    } else if (removed) {
        print_changes(cli, rows);
        snprintf(question, sizeof(question), "Remove %zu of these? [y/N]", removed);
        rc = prompt_yes(question) ? CLI_DONE : CLI_FAILED;
        if (rc != CLI_DONE)
            cli_say("Nothing was changed.");
    }
    json_decref(rows);
    return rc;
}

int cmd_apply(struct cli *cli)
{
    const char *path = cli_value(cli, "file");
    bool dry_run = cli_has(cli, "dry-run");
    json_t *document, *rows;
    int rc;

    if (!path)
        return cli_usage(cli, "which file? Give -f FILE (- is stdin)");
    document = load_document(cli, path);
    if (!document)
        return CLI_FAILED;
    rc = confirm_prune(cli, document);
    if (rc == CLI_DONE)
        rc = call_apply(cli, document, dry_run, &rows);
    json_decref(document);
    if (rc != CLI_DONE)
        return rc;
    print_changes(cli, rows);
    if (json_array_size(rows) == 0)
        cli_say("Everything is as the file says; nothing to change.");
    else if (dry_run)
        cli_say("Nothing was changed (--dry-run).");
    json_decref(rows);
    return rc;
}
