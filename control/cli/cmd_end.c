/*
 * `session end`: first asks the daemon what would end, shows it, asks the person, and then ends
 * exactly those. `--cancel` takes announced ends back, without a question.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/session.h"

#define ASK_NUMBER_ABOVE 10

/* ids, user, target or all, exactly one of them; NULL with a usage error told. */
static json_t *selection(const struct cli *cli)
{
    json_t *args = json_object(), *ids;
    size_t count = cli->args.operand_count;
    int ways = (count > 0) + cli_has(cli, "user") + cli_has(cli, "target") + cli_has(cli, "all");

    if (ways != 1) {
        cli_usage(cli, ways ? "give ids, --user, --target or --all: only one of them"
                            : "which sessions? Give ids (`sallyctl ls` shows them), --user, "
                              "--target or --all");
        json_decref(args);
        return NULL;
    }
    ids = json_array();
    for (size_t i = 0; i < count; i++) {
        const char *id = cli_operand(cli, i);
        if (!session_is_id(id)) {
            cli_usage(cli, "\"%s\" is no session's id; `sallyctl ls` shows them", id);
            json_decref(ids);
            json_decref(args);
            return NULL;
        }
        json_array_append_new(ids, json_string(id));
    }
    if (count)
        json_object_set(args, "ids", ids);
    json_decref(ids);
    cli_put_option(cli, args, "user");
    cli_put_option(cli, args, "target");
    cli_put_option(cli, args, "all");
    return args;
}

static bool would_end(const json_t *row)
{
    const char *result = json_string_value(json_object_get(row, "result"));

    return result && strcmp(result, "would-end") == 0;
}

/* The rows that would end, as sessions with all their columns. */
static json_t *sessions_of(struct cli *cli, const json_t *preview)
{
    json_t *live = NULL, *by_id = json_object(), *found = json_array();

    if (cli_call(cli, "session ls", NULL, &live) != CLI_DONE)
        live = NULL;
    for (size_t i = 0; i < json_array_size(live); i++) {
        json_t *session = json_array_get(live, i);
        const char *id = json_string_value(json_object_get(session, "id"));
        if (id)
            json_object_set(by_id, id, session);
    }
    for (size_t i = 0; i < json_array_size(preview); i++) {
        json_t *row = json_array_get(preview, i), *session;
        const char *id = json_string_value(json_object_get(row, "id"));
        if (!would_end(row) || !id)
            continue;
        session = json_object_get(by_id, id);
        json_array_append(found, session ? session : row);
    }
    json_decref(by_id);
    json_decref(live);
    return found;
}

/* Show what will end and ask. True to go on. */
static bool confirm(struct cli *cli, const json_t *preview, size_t count)
{
    json_t *sessions = sessions_of(cli, preview);
    const char *in = cli_value(cli, "in");
    char question[128];

    if (in)
        cli_say("These sessions will end in %s:", in);
    else
        cli_say("These sessions will end:");
    output_table(cli, stderr, &session_columns, sessions, false);
    json_decref(sessions);
    if (cli_has(cli, "yes"))
        return true;
    if (cli_has(cli, "all") || count > ASK_NUMBER_ABOVE) {
        snprintf(question, sizeof(question), "Type the number of sessions (%zu) to end %s:", count,
                 count == 1 ? "it" : "them all");
        return prompt_number(question, count);
    }
    return prompt_yes(count == 1 ? "End this session? [y/N]" : "End these sessions? [y/N]");
}

static json_t *end_args(const struct cli *cli, const json_t *preview)
{
    json_t *args = json_object(), *ids = json_array();

    for (size_t i = 0; i < json_array_size(preview); i++) {
        json_t *row = json_array_get(preview, i);
        if (would_end(row))
            json_array_append(ids, json_object_get(row, "id"));
    }
    json_object_set_new(args, "ids", ids);
    cli_put_option(cli, args, "reason");
    cli_put_option(cli, args, "in");
    return args;
}

/* Rows that failed in the preview come back with the results of the others. */
static void add_failures(json_t *results, const json_t *preview)
{
    for (size_t i = 0; i < json_array_size(preview); i++) {
        json_t *row = json_array_get(preview, i);
        if (!would_end(row))
            json_array_append(results, row);
    }
}

static int end_previewed(struct cli *cli, json_t *preview)
{
    bool are_named = cli->args.operand_count > 0;
    json_t *results = NULL;
    size_t count = 0;
    int rc = CLI_DONE;

    for (size_t i = 0; i < json_array_size(preview); i++)
        count += would_end(json_array_get(preview, i));
    if (json_array_size(preview) == 0) {
        cli_say("No live sessions fit; nothing to end.");
        return CLI_DONE;
    }
    if (cli_has(cli, "dry-run"))
        return session_print_results(cli, preview, are_named);
    if (count && !confirm(cli, preview, count)) {
        cli_say("Nothing was ended.");
        return CLI_FAILED;
    }
    if (count)
        rc = cli_call(cli, "session end", end_args(cli, preview), &results);
    else
        results = json_array();
    if (rc != CLI_DONE)
        return rc;
    add_failures(results, preview);
    rc = session_print_results(cli, results, are_named);
    json_decref(results);
    return rc;
}

static int cancel(struct cli *cli, json_t *args)
{
    json_t *results = NULL;
    int rc;

    if (cli_has(cli, "in") || cli_has(cli, "reason")) {
        json_decref(args);
        return cli_usage(cli, "--cancel goes with neither --in nor --reason");
    }
    json_object_set_new(args, "cancel", json_true());
    cli_put_option(cli, args, "dry-run");
    rc = cli_call(cli, "session end", args, &results);
    if (rc != CLI_DONE)
        return rc;
    rc = session_print_results(cli, results, cli->args.operand_count > 0);
    json_decref(results);
    return rc;
}

int cmd_session_end(struct cli *cli)
{
    json_t *args = selection(cli), *preview = NULL;
    int rc;

    if (!args)
        return CLI_USAGE;
    if (cli_has(cli, "cancel"))
        return cancel(cli, args);
    if (!cli_has(cli, "yes") && !cli_has(cli, "dry-run") && !prompt_is_possible()) {
        json_decref(args);
        return cli_usage(cli, "there is no terminal to ask on: add -y to end sessions without a "
                              "question, or --dry-run to see which");
    }
    json_object_set_new(args, "dry_run", json_true());
    cli_put_option(cli, args, "reason");
    cli_put_option(cli, args, "in");
    rc = cli_call(cli, "session end", args, &preview);
    if (rc != CLI_DONE)
        return rc;
    rc = end_previewed(cli, preview);
    json_decref(preview);
    return rc;
}
