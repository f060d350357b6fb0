/*
 * The shapes that most commands have: see simple.h.
 */
#include "control/cli/simple.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/prompt.h"

json_t *simple_name_args(const struct cli *cli)
{
    return json_pack("{s:s}", "name", cli_operand(cli, 0));
}

int simple_list(struct cli *cli, const char *command, json_t *args, const struct columns *columns)
{
    json_t *rows;
    int rc = cli_call(cli, command, args, &rows);

    if (rc != CLI_DONE)
        return rc;
    rc = output_rows(cli, columns, rows, false, false);
    json_decref(rows);
    return rc;
}

int simple_object(struct cli *cli, const char *command, json_t *args, const struct columns *columns)
{
    json_t *data;
    int rc = cli_call(cli, command, args, &data);

    if (rc != CLI_DONE)
        return rc;
    rc = output_object(cli, columns, data);
    json_decref(data);
    return rc;
}

int simple_change(struct cli *cli, const char *command, json_t *args, const char *done)
{
    json_t *data;
    int rc = cli_call(cli, command, args, &data);

    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL)
        output_json(cli, data);
    else
        cli_say("%s %s.", cli_operand(cli, 0), done);
    json_decref(data);
    return rc;
}

bool simple_may_remove(struct cli *cli, const char *what)
{
    char question[256], shown[160];
    const char *name = cli_operand(cli, 0);

    if (cli_has(cli, "yes") || !prompt_is_possible())
        return true;
    snprintf(question, sizeof(question), "Remove %s %s? [y/N]", what,
             text_escape(shown, sizeof(shown), name, strlen(name)));
    if (prompt_yes(question))
        return true;
    cli_say("Nothing was removed.");
    return false;
}

bool simple_check_name(const struct cli *cli, const char *what)
{
    const char *name = cli_operand(cli, 0);

    if (text_is_name(name))
        return true;
    cli_usage(cli, "\"%s\" cannot name a %s: letters, digits, . _ and -, at most 64", name, what);
    return false;
}
