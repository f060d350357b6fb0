/*
 * `user ...` and `role ...`.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

#define KEY_FILE_MAX (64 * 1024)

/* --local-uid: a number, or none where that is allowed. */
static bool put_local_uid(const struct cli *cli, json_t *args, bool may_be_none)
{
    const char *text = cli_value(cli, "local-uid");
    uint64_t uid;

    if (!text)
        return true;
    if (may_be_none && strcmp(text, "none") == 0) {
        json_object_set_new(args, "local_uid", json_null());
        return true;
    }
    if (!text_parse_u64(text, &uid) || uid >= UINT32_MAX) {
        cli_usage(cli, "--local-uid takes a number such as `id -u NAME` prints%s, not \"%s\"",
                  may_be_none ? ", or none" : "", text);
        return false;
    }
    json_object_set_new(args, "local_uid", json_integer((json_int_t)uid));
    return true;
}

static int put_password(json_t *args, struct secret *password)
{
    json_t *text = json_stringn((const char *)password->data, password->len);

    secret_wipe(password);
    if (!text) {
        cli_error("the password is not valid UTF-8");
        return ERR_INVALID;
    }
    return json_object_set_new(args, "password", text);
}

static void put_login_keys(const struct cli *cli, json_t *args)
{
    cli_put_option(cli, args, "second-factor");
    cli_put_option(cli, args, "auth-source");
    cli_put_option(cli, args, "rdp-nla");
    cli_put_option(cli, args, "cert-principals");
}

int cmd_user_add(struct cli *cli)
{
    struct secret password = {0};
    json_t *args = simple_name_args(cli);
    bool has_password;
    int rc = 0;

    if (!simple_check_name(cli, "user") || !put_local_uid(cli, args, false)) {
        json_decref(args);
        return CLI_USAGE;
    }
    cli_put_option(cli, args, "role");
    cli_put_option(cli, args, "locked");
    put_login_keys(cli, args);
    if (cli_has(cli, "password-stdin")) {
        rc = prompt_stdin_secret(&password);
        rc = rc == 0 ? put_password(args, &password) : rc;
    } else if (!cli_has(cli, "no-password") && prompt_is_possible()) {
        rc = prompt_new_password(cli_operand(cli, 0), &password);
        rc = rc == 0 ? put_password(args, &password) : rc;
    }
    if (rc < 0) {
        json_decref(args);
        return CLI_FAILED;
    }
    has_password = json_object_get(args, "password") != NULL;
    rc = simple_change(cli, "user add", args, "was added");
    if (rc == CLI_DONE && !has_password)
        cli_say("There is no password. Next: sallyctl user key add %s FILE", cli_operand(cli, 0));
    return rc;
}

int cmd_user_ls(struct cli *cli)
{
    return simple_list(cli, "user ls", NULL, &user_columns);
}

int cmd_user_show(struct cli *cli)
{
    json_t *user, *keys;
    int rc = cli_call(cli, "user show", simple_name_args(cli), &user);

    if (rc != CLI_DONE)
        return rc;
    rc = output_object(cli, &user_columns, user);
    keys = json_object_get(user, "keys");
    if (json_array_size(keys) && (cli->format == FORMAT_TABLE || cli->format == FORMAT_WIDE)) {
        puts("");
        output_table(cli, stdout, &key_columns, keys, false);
    }
    json_decref(user);
    return rc;
}

/* NLA is on, and works once a password is known. */
static void say_pending(struct cli *cli)
{
    json_t *user;

    if (cli_call(cli, "user show", simple_name_args(cli), &user) != CLI_DONE)
        return;
    if (strcmp(json_string_value(json_object_get(user, "rdpNla")), "pending") == 0)
        cli_say("NLA works for %s from the next time that the password is set, or used to log in; "
                "or now: sallyctl user set %s --rdp-nla on --password-stdin",
                cli_operand(cli, 0), cli_operand(cli, 0));
    json_decref(user);
}

static bool turns_nla_on(const struct cli *cli)
{
    const char *nla = cli_value(cli, "rdp-nla");

    return nla && strcmp(nla, "on") == 0;
}

int cmd_user_set(struct cli *cli)
{
    struct secret password = {0};
    json_t *args = simple_name_args(cli);
    int rc;

    cli_put_option(cli, args, "role");
    put_login_keys(cli, args);
    if (!put_local_uid(cli, args, true)) {
        json_decref(args);
        return CLI_USAGE;
    }
    if (json_object_size(args) == 1) {
        json_decref(args);
        return cli_usage(cli, "nothing to change: give --role, --local-uid, --second-factor, "
                              "--auth-source, --rdp-nla or --cert-principals");
    }
    if (cli_has(cli, "password-stdin")) {
        if (!turns_nla_on(cli)) {
            json_decref(args);
            return cli_usage(cli, "--password-stdin goes with --rdp-nla on; to change the "
                                  "password: sallyctl user passwd");
        }
        rc = prompt_stdin_secret(&password);
        rc = rc == 0 ? put_password(args, &password) : rc;
        if (rc < 0) {
            json_decref(args);
            return CLI_FAILED;
        }
    }
    rc = simple_change(cli, "user set", args, "was changed");
    if (rc == CLI_DONE && turns_nla_on(cli))
        say_pending(cli);
    return rc;
}

int cmd_user_passwd(struct cli *cli)
{
    struct secret password = {0};
    json_t *args = simple_name_args(cli);
    int rc;

    if (cli_has(cli, "remove")) {
        json_object_set_new(args, "remove", json_true());
        return simple_change(cli, "user passwd", args, "has no password any more");
    }
    if (cli_has(cli, "password-stdin"))
        rc = prompt_stdin_secret(&password);
    else
        rc = prompt_new_password(cli_operand(cli, 0), &password);
    if (rc == 0)
        rc = put_password(args, &password);
    if (rc < 0) {
        json_decref(args);
        if (rc == ERR_NOT_FOUND)
            return cli_usage(cli, "there is no terminal to ask on: use --password-stdin");
        return CLI_FAILED;
    }
    return simple_change(cli, "user passwd", args, "has a new password");
}

int cmd_user_lock(struct cli *cli)
{
    return simple_change(cli, "user lock", simple_name_args(cli), "is locked");
}

int cmd_user_unlock(struct cli *cli)
{
    return simple_change(cli, "user unlock", simple_name_args(cli), "is unlocked");
}

int cmd_user_rm(struct cli *cli)
{
    if (!simple_may_remove(cli, "with keys and grants the user"))
        return CLI_FAILED;
    return simple_change(cli, "user rm", simple_name_args(cli), "was removed");
}

/* The first line of a key file that is not empty and no comment. */
static char *key_line(const char *text)
{
    while (*text) {
        size_t len = strcspn(text, "\r\n");
        const char *at = text + strspn(text, " \t");
        if (len && *at != '#' && (size_t)(at - text) < len)
            return strndup(at, len - (size_t)(at - text));
        text += len + (text[len] != '\0');
    }
    return NULL;
}

int key_read(struct cli *cli, const char *from, char **out)
{
    struct buffer text;
    char *key = NULL;

    buffer_init(&text, KEY_FILE_MAX);
    if (strchr(from, ' ')) { /* "ssh-ed25519 AAAA... comment" in quotes */
        key = key_line(from);
    } else if (prompt_read_file(from, &text) < 0) {
        buffer_finish(&text);
        return CLI_FAILED;
    } else if (text.len && memmem(text.data, text.len, "PRIVATE KEY", 11)) {
        cli_error("%s is a private key, which must never leave its owner; give the public one, "
                  "%s.pub",
                  from, from);
        buffer_finish(&text);
        return CLI_FAILED;
    } else if (text.len && buffer_cstr(&text)) {
        key = key_line(buffer_cstr(&text));
    }
    buffer_finish(&text);
    if (!key)
        return cli_usage(cli,
                         "%s holds no key; give a public key file such as "
                         "~/.ssh/id_ed25519.pub",
                         from);
    *out = key;
    return CLI_DONE;
}

int cmd_user_key_add(struct cli *cli)
{
    const char *from = cli_operand(cli, 1) ? cli_operand(cli, 1) : "-";
    char *key = NULL;
    json_t *args;
    int rc = key_read(cli, from, &key);

    if (rc != CLI_DONE)
        return rc;
    args = json_pack("{s:s,s:s}", "name", cli_operand(cli, 0), "key", key);
    free(key);
    if (!args)
        return cli_usage(cli, "the key is not valid UTF-8");
    return simple_change(cli, "user key add", args, "has one key more");
}

int cmd_user_key_ls(struct cli *cli)
{
    return simple_list(cli, "user key ls", simple_name_args(cli), &key_columns);
}

int cmd_user_key_rm(struct cli *cli)
{
    return simple_change(
        cli, "user key rm",
        json_pack("{s:s,s:s}", "name", cli_operand(cli, 0), "key", cli_operand(cli, 1)),
        "has one key less");
}

/* ---- roles ---- */

static int change_role(struct cli *cli, const char *command, const char *done)
{
    json_t *policy = cli_policy_args(cli, 1), *args;

    if (!policy)
        return CLI_USAGE;
    args = json_pack("{s:s,s:o}", "name", cli_operand(cli, 0), "policy", policy);
    cli_put_option(cli, args, "second-factor");
    return simple_change(cli, command, args, done);
}

int cmd_role_add(struct cli *cli)
{
    return simple_check_name(cli, "role") ? change_role(cli, "role add", "was added") : CLI_USAGE;
}

int cmd_role_set(struct cli *cli)
{
    if (cli->args.operand_count == 1 && cli->args.given_count == 0)
        return cli_usage(cli, "nothing to change: give KEY=VALUE");
    return change_role(cli, "role set", "was changed");
}

int cmd_role_ls(struct cli *cli)
{
    return simple_list(cli, "role ls", NULL, &role_columns);
}

int cmd_role_show(struct cli *cli)
{
    return simple_object(cli, "role show", simple_name_args(cli), &role_columns);
}

int cmd_role_rm(struct cli *cli)
{
    if (!simple_may_remove(cli, "the role"))
        return CLI_FAILED;
    return simple_change(cli, "role rm", simple_name_args(cli), "was removed");
}
