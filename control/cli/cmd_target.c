/*
 * `target ...` and `grant ...`.
 */
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

/* The secret for the target: a password from stdin or a key from a file. */
static int put_secret(const struct cli *cli, json_t *args)
{
    const char *key_file = cli_value(cli, "key-file");
    json_t *text = NULL;
    int rc = 0;

    if (cli_has(cli, "secret-stdin")) {
        struct secret secret = {0};
        rc = prompt_stdin_secret(&secret);
        if (rc == 0)
            text = json_stringn((const char *)secret.data, secret.len);
        secret_wipe(&secret);
    } else if (key_file) {
        struct buffer key;
        buffer_init_secret(&key, SECRET_MAX);
        rc = prompt_read_file(key_file, &key);
        if (rc == 0 && !(key.len && memmem(key.data, key.len, "PRIVATE KEY", 11))) {
            cli_error("%s is no private key (PEM, as ssh-keygen writes it)", key_file);
            rc = ERR_INVALID;
        }
        if (rc == 0)
            text = json_stringn((const char *)key.data, key.len);
        buffer_finish(&key);
    } else if (cli_has(cli, "no-secret")) {
        text = json_string("");
    } else {
        return 0;
    }
    if (rc == 0 && !text) {
        cli_error("the secret is not valid UTF-8");
        rc = ERR_INVALID;
    }
    if (rc == 0)
        json_object_set_new(args, "secret", text);
    return rc;
}

/* A line of ssh-keyscan or known_hosts has the host in front of the type. */
static const char *skip_host(const char *line)
{
    const char *behind = strchr(line, ' ');
    bool begins_with_type = strncmp(line, "ssh-", 4) == 0 || strncmp(line, "ecdsa-", 6) == 0 ||
                            strncmp(line, "sk-", 3) == 0;

    if (begins_with_type || !behind)
        return line;
    behind++;
    return strncmp(behind, "ssh-", 4) == 0 || strncmp(behind, "ecdsa-", 6) == 0 ? behind : line;
}

static bool excludes(const struct cli *cli, const char *a, const char *b)
{
    if (!cli_has(cli, a) || !cli_has(cli, b))
        return false;
    cli_usage(cli, "--%s and --%s exclude each other", a, b);
    return true;
}

/* What `add` and `set` have in common. Returns an exit code; args is borrowed. */
static int target_args(const struct cli *cli, json_t *args)
{
    static const char *const plain[] = {"address", "account", "auth", "accept-new"};
    const char *host_key = cli_value(cli, "host-key");
    json_t *policy;

    if (excludes(cli, "secret-stdin", "key-file") || excludes(cli, "no-secret", "key-file") ||
        excludes(cli, "no-secret", "secret-stdin") || excludes(cli, "accept-new", "no-accept-new"))
        return CLI_USAGE;
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        cli_put_option(cli, args, plain[i]);
    if (cli_has(cli, "no-accept-new"))
        json_object_set_new(args, "accept_new", json_false());
    if (host_key)
        json_object_set_new(args, "host_key", json_string(skip_host(host_key)));
    policy = cli_policy_args(cli, 1);
    if (!policy)
        return CLI_USAGE;
    if (json_object_size(policy))
        json_object_set(args, "policy", policy);
    json_decref(policy);
    return put_secret(cli, args) < 0 ? CLI_FAILED : CLI_DONE;
}

int cmd_target_add(struct cli *cli)
{
    const char *type = cli_value(cli, "type"), *name = cli_operand(cli, 0);
    json_t *args = simple_name_args(cli);
    int rc;

    if (!simple_check_name(cli, "target")) {
        json_decref(args);
        return CLI_USAGE;
    }
    if (!cli_has(cli, "address")) {
        json_decref(args);
        return cli_usage(cli, "where is it? Give --address HOST:PORT");
    }
    json_object_set_new(args, "type", json_string(type ? type : "ssh"));
    rc = target_args(cli, args);
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    rc = simple_change(cli, "target add", args, "was added");
    if (rc == CLI_DONE && !(type && strcmp(type, "rdp") == 0) && !cli_has(cli, "host-key") &&
        !cli_has(cli, "accept-new"))
        cli_say("Its host key is not known yet, so nobody gets in. Next: sallyctl target set %s "
                "--accept-new (trust the first connection), or --host-key \"ssh-ed25519 ...\".",
                name);
    return rc;
}

int cmd_target_set(struct cli *cli)
{
    json_t *args = simple_name_args(cli);
    int rc = target_args(cli, args);

    if (rc == CLI_DONE && json_object_size(args) == 1)
        rc = cli_usage(cli, "nothing to change: give an option or KEY=VALUE");
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    return simple_change(cli, "target set", args, "was changed");
}

int cmd_target_ls(struct cli *cli)
{
    json_t *args = json_object();

    cli_put_option(cli, args, "type");
    return simple_list(cli, "target ls", args, &target_columns);
}

int cmd_target_show(struct cli *cli)
{
    return simple_object(cli, "target show", simple_name_args(cli), &target_columns);
}

int cmd_target_rm(struct cli *cli)
{
    if (!simple_may_remove(cli, "with its grants the target"))
        return CLI_FAILED;
    return simple_change(cli, "target rm", simple_name_args(cli), "was removed");
}

/* ---- grants ---- */

int cmd_grant_add(struct cli *cli)
{
    json_t *policy = cli_policy_args(cli, 2), *args, *grant;
    int rc;

    if (!policy)
        return CLI_USAGE;
    args = json_pack("{s:s,s:s}", "subject", cli_operand(cli, 0), "target", cli_operand(cli, 1));
    cli_put_option(cli, args, "account");
    if (json_object_size(policy))
        json_object_set(args, "policy", policy);
    json_decref(policy);
    rc = cli_call(cli, "grant add", args, &grant);
    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        output_json(cli, grant);
    } else {
        const char *id = json_string_value(json_object_get(grant, "id"));
        bool is_any = strcmp(cli_operand(cli, 1), "*") == 0;
        cli_say("%s may reach %s (grant %s).", cli_operand(cli, 0),
                is_any ? "every target" : cli_operand(cli, 1), id ? id : "?");
    }
    json_decref(grant);
    return rc;
}

int cmd_grant_ls(struct cli *cli)
{
    json_t *args = json_object();

    cli_put_option(cli, args, "subject");
    cli_put_option(cli, args, "target");
    return simple_list(cli, "grant ls", args, &grant_columns);
}

int cmd_grant_rm(struct cli *cli)
{
    const char *id = cli_operand(cli, 0);
    uint64_t number;
    json_t *data;
    int rc;

    if (!text_parse_u64(id, &number))
        return cli_usage(cli, "\"%s\" is no grant's id; `sallyctl grant ls` shows them", id);
    if (!simple_may_remove(cli, "grant"))
        return CLI_FAILED;
    rc = cli_call(cli, "grant rm", json_pack("{s:s}", "id", id), &data);
    if (rc != CLI_DONE)
        return rc;
    json_decref(data);
    cli_say("Grant %s was withdrawn.", id);
    return rc;
}
