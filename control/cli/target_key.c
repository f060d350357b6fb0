/*
 * Looking at a target: its host key before it is trusted (target_key.h), and `target test`.
 */
#include "control/cli/target_key.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

/* Is it the one that was named on the line? */
static int compare(const struct cli *cli, const json_t *key)
{
    const char *wanted = cli_value(cli, "host-key-fingerprint");
    const char *got = text_of(key, "hostKeyFingerprint");

    if (strcmp(wanted, got) == 0 ||
        (strncmp(wanted, "SHA256:", 7) != 0 && strcmp(wanted, got + 7) == 0))
        return CLI_DONE;
    cli_error("its key has another fingerprint: %s %s; nothing was changed",
              text_of(key, "hostKeyType"), got);
    return CLI_FAILED;
}

static int ask(const struct cli *cli, const json_t *key)
{
    const char *print = text_of(key, "hostKeyFingerprint");

    if (!prompt_is_possible())
        return cli_usage(cli, "without a terminal nobody can say whether its key is right: "
                              "give --host-key-fingerprint SHA256:..., --host-key KEY or "
                              "--accept-new");
    cli_say("The %s of %s:",
            strcmp(text_of(key, "hostKeyType"), "tls-spki") == 0 ? "certificate's key" : "host key",
            cli_operand(cli, 0));
    cli_say("  %s %s", text_of(key, "hostKeyType"), print);
    if (prompt_yes_or("Is it the right one (yes/no/fingerprint)?", print))
        return CLI_DONE;
    cli_say("Nothing was changed.");
    return CLI_FAILED;
}

int target_key_fetch(struct cli *cli, json_t *where, bool may_go_on, json_t *args)
{
    bool has_print = cli_has(cli, "host-key-fingerprint");
    json_t *key;
    int rc;

    if (!has_print && !prompt_is_possible()) { /* before the server is bothered */
        json_decref(where);
        return ask(cli, NULL);
    }
    rc = cli_call(cli, "target host-key", where, &key);
    if (rc == CLI_FAILED && may_go_on) {
        if (prompt_yes("Go on without it? Nobody gets in until it is pinned [y/N]"))
            return CLI_DONE;
        cli_say("Nothing was changed.");
    }
    if (rc != CLI_DONE)
        return rc;
    rc = has_print ? compare(cli, key) : ask(cli, key);
    if (rc == CLI_DONE)
        json_object_set(args, "host_key", json_object_get(key, "hostKey"));
    json_decref(key);
    return rc;
}

int cmd_target_test(struct cli *cli)
{
    json_t *args = simple_name_args(cli), *data;
    int rc;

    cli_put_option(cli, args, "account");
    rc = cli_call(cli, "target test", args, &data);
    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL)
        output_json(cli, data);
    else
        rc = output_rows(cli, &step_columns, json_object_get(data, "steps"), false, true);
    if (rc == CLI_DONE && !json_is_true(json_object_get(data, "ok")))
        rc = CLI_FAILED;
    json_decref(data);
    return rc;
}
