/*
 * `user totp ...` and `self totp ...`: second factors, with the picture to scan in the terminal;
 * and `source ...`, the addresses that failed logins block. The daemon draws the picture.
 */
#include <stdio.h>
#include <string.h>

#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

#define TRIES 3

static bool is_self(const struct cli *cli)
{
    return strncmp(cli->args.command->words, "self ", 5) == 0;
}

/* The command of the daemon: "user totp enable" or "self totp enable". */
static const char *command_of(const struct cli *cli, const char *verb, char dst[48])
{
    snprintf(dst, 48, "%s totp %s", is_self(cli) ? "self" : "user", verb);
    return dst;
}

static json_t *args_of(const struct cli *cli)
{
    return is_self(cli) ? json_object() : simple_name_args(cli);
}

static bool is_for_machines(const struct cli *cli)
{
    return cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
}

static const char *text_in(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

static void print_codes(const struct cli *cli, const json_t *data)
{
    const json_t *codes = json_object_get(data, "recoveryCodes");
    size_t i;
    json_t *code;

    if (is_for_machines(cli)) {
        output_json(cli, data);
        return;
    }
    cli_say("Recovery codes: each lets in once when the device is lost. They are not shown again.");
    json_array_foreach(codes, i, code)
    {
        puts(json_string_value(code));
    }
}

/* Whoever has a second factor shows a code of it before he changes his own. */
static int put_present_code(struct cli *cli, json_t *args)
{
    char command[48], code[64];
    const char *given = cli_value(cli, "code");
    json_t *data;
    bool is_enrolled;
    int rc;

    if (!is_self(cli))
        return CLI_DONE;
    rc = cli_call(cli, command_of(cli, "show", command), NULL, &data);
    if (rc != CLI_DONE)
        return rc;
    is_enrolled = json_is_true(json_object_get(data, "enrolled"));
    json_decref(data);
    if (!is_enrolled)
        return CLI_DONE;
    if (!given) {
        if (!prompt_line("A code of your present second factor, or a recovery code:", code,
                         sizeof(code)))
            return cli_usage(cli, "a code of your present second factor is needed: give --code");
        given = code;
    }
    rc = json_object_set_new(args, "code", json_string(given)) == 0 ? CLI_DONE : CLI_FAILED;
    memory_wipe(code, sizeof(code));
    return rc;
}

/* A change that takes args, and a present code when it is one's own; *data is its reply. */
static int change(struct cli *cli, const char *verb, json_t **data)
{
    char command[48];
    json_t *args = args_of(cli);
    int rc = put_present_code(cli, args);

    if (rc == CLI_DONE)
        return cli_call(cli, command_of(cli, verb, command), args, data);
    json_decref(args);
    return rc;
}

static int confirm(struct cli *cli, const char *code)
{
    char command[48];
    json_t *args = args_of(cli), *data;
    int rc;

    json_object_set_new(args, "code", json_string(code));
    rc = cli_call(cli, command_of(cli, "confirm", command), args, &data);
    if (rc != CLI_DONE)
        return rc;
    if (!is_for_machines(cli))
        cli_say("The second factor of %s is in use from now on.", text_in(data, "user"));
    print_codes(cli, data);
    json_decref(data);
    return CLI_DONE;
}

int cmd_totp_confirm(struct cli *cli)
{
    return confirm(cli, cli_operand(cli, is_self(cli) ? 0 : 1));
}

/* Nothing is changed before a code of the new one was right. */
static int ask_to_confirm(struct cli *cli, const char *user)
{
    char code[64];
    int rc = CLI_FAILED;

    for (int i = 0; i < TRIES; i++) {
        if (!prompt_line("Code that the app shows:", code, sizeof(code)) || !code[0]) {
            cli_say("Not in use yet. When the app has it: %s totp confirm %s%sCODE",
                    is_self(cli) ? "self" : "sallyctl user", is_self(cli) ? "" : user,
                    is_self(cli) ? "" : " ");
            return CLI_FAILED;
        }
        rc = confirm(cli, code);
        memory_wipe(code, sizeof(code));
        if (rc != CLI_NOT_PERMITTED)
            return rc;
    }
    return rc;
}

int cmd_totp_enable(struct cli *cli)
{
    json_t *data;
    int rc = change(cli, "enable", &data);

    if (rc != CLI_DONE)
        return rc;
    if (is_for_machines(cli)) {
        output_json(cli, data);
    } else {
        printf("%s\n%s\nkey: %s\n\n", text_in(data, "picture"), text_in(data, "uri"),
               text_in(data, "secret"));
        fflush(stdout);
        rc = ask_to_confirm(cli, text_in(data, "user"));
    }
    json_decref(data);
    return rc;
}

/* What to do about it, for those who read a table. */
static void say_next(const struct cli *cli, const json_t *data)
{
    const char *user = text_in(data, "user");
    bool is_required = json_is_true(json_object_get(data, "required"));

    if (json_is_true(json_object_get(data, "enrolled")))
        return;
    if (is_required)
        cli_say("%s has no second factor yet; the next login asks for one.", user);
    else
        cli_say("%s has no second factor. To have one: totp enable%s%s", user,
                is_self(cli) ? "" : " ", is_self(cli) ? "" : user);
}

int cmd_totp_show(struct cli *cli)
{
    char command[48];
    json_t *data;
    int rc = cli_call(cli, command_of(cli, "show", command), args_of(cli), &data);

    if (rc != CLI_DONE)
        return rc;
    rc = output_object(cli, &totp_columns, data);
    if (cli->format == FORMAT_TABLE || cli->format == FORMAT_WIDE)
        say_next(cli, data);
    json_decref(data);
    return rc;
}

int cmd_totp_disable(struct cli *cli)
{
    json_t *data;
    int rc = change(cli, "disable", &data);

    if (rc != CLI_DONE)
        return rc;
    if (is_for_machines(cli))
        output_json(cli, data);
    else
        cli_say("%s has no second factor any more.", text_in(data, "user"));
    json_decref(data);
    return CLI_DONE;
}

int cmd_totp_recovery(struct cli *cli)
{
    json_t *data;
    int rc = change(cli, "recovery", &data);

    if (rc != CLI_DONE)
        return rc;
    print_codes(cli, data);
    json_decref(data);
    return CLI_DONE;
}

/* ---- sources ---- */

int cmd_source_ls(struct cli *cli)
{
    json_t *args = json_object();

    cli_put_option(cli, args, "all");
    return simple_list(cli, "source ls", args, &source_columns);
}

int cmd_source_unblock(struct cli *cli)
{
    const char *address = cli_operand(cli, 0);
    json_t *args = json_object(), *data;
    int rc;

    if (!address == !cli_has(cli, "all")) {
        json_decref(args);
        return cli_usage(cli, "give an address, or --all");
    }
    cli_put_option(cli, args, "all");
    if (address)
        json_object_set_new(args, "address", json_string(address));
    rc = cli_call(cli, "source unblock", args, &data);
    if (rc != CLI_DONE)
        return rc;
    if (is_for_machines(cli))
        output_json(cli, data);
    else
        cli_say("%lld unblocked.",
                (long long)json_integer_value(json_object_get(data, "unblocked")));
    json_decref(data);
    return CLI_DONE;
}
