/*
 * `target ...` and `grant ...`.
 */
#include <stdio.h>
#include <string.h>

#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"
#include "control/cli/target_key.h"

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

/* The certificate of the key, as ssh-keygen -s writes it beside it. */
static int put_certificate(const struct cli *cli, json_t *args)
{
    const char *path = cli_value(cli, "cert-file");
    struct buffer line;
    json_t *text = NULL;
    int rc;

    if (!path)
        return 0;
    buffer_init(&line, 16384);
    rc = prompt_read_file(path, &line);
    if (rc == 0) {
        while (line.len && strchr(" \t\r\n", (char)line.data[line.len - 1]))
            line.len--;
        if (!line.len || memchr(line.data, '\n', line.len) ||
            !(text = json_stringn((const char *)line.data, line.len))) {
            cli_error("%s is no certificate (one line, as ssh-keygen writes it)", path);
            rc = ERR_INVALID;
        }
    }
    buffer_finish(&line);
    if (text)
        json_object_set_new(args, "certificate", text);
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
    static const char *const plain[] = {"address", "account", "auth", "accept-new", "via"};
    const char *host_key = cli_value(cli, "host-key");
    bool is_word = host_key && (strcmp(host_key, "fetch") == 0 || strcmp(host_key, "none") == 0);
    json_t *policy;

    if (excludes(cli, "secret-stdin", "key-file") || excludes(cli, "no-secret", "key-file") ||
        excludes(cli, "no-secret", "secret-stdin") || excludes(cli, "accept-new", "no-accept-new"))
        return CLI_USAGE;
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++)
        cli_put_option(cli, args, plain[i]);
    if (cli_has(cli, "no-accept-new"))
        json_object_set_new(args, "accept_new", json_false());
    if (host_key && strcmp(host_key, "none") == 0)
        json_object_set_new(args, "host_key", json_string(""));
    else if (host_key && !is_word)
        json_object_set_new(args, "host_key", json_string(skip_host(host_key)));
    policy = cli_policy_args(cli, 1);
    if (!policy)
        return CLI_USAGE;
    if (json_object_size(policy))
        json_object_set(args, "policy", policy);
    json_decref(policy);
    if (put_secret(cli, args) < 0 || put_certificate(cli, args) < 0)
        return CLI_FAILED;
    return CLI_DONE;
}

/* Is the server to be asked for its key? */
static bool wants_fetch(const struct cli *cli)
{
    const char *host_key = cli_value(cli, "host-key");

    return cli_has(cli, "host-key-fingerprint") || (host_key && strcmp(host_key, "fetch") == 0);
}

/* Ask the server, unless the key was given or is to be taken as it comes. */
static int new_host_key(struct cli *cli, bool is_rdp, json_t *args)
{
    json_t *where;

    if (!wants_fetch(cli) &&
        (cli_has(cli, "host-key") || cli_has(cli, "accept-new") || !prompt_is_possible()))
        return CLI_DONE;
    where = json_pack("{s:O,s:s}", "address", json_object_get(args, "address"), "type",
                      is_rdp ? "rdp" : "ssh");
    if (json_object_get(args, "via"))
        json_object_set(where, "via", json_object_get(args, "via"));
    return target_key_fetch(cli, where, !wants_fetch(cli), args);
}

static int changed_host_key(struct cli *cli, json_t *args)
{
    json_t *where;

    if (!wants_fetch(cli))
        return CLI_DONE;
    where = json_pack("{s:s}", "name", cli_operand(cli, 0));
    if (json_object_get(args, "address"))
        json_object_set(where, "address", json_object_get(args, "address"));
    if (json_object_get(args, "via"))
        json_object_set(where, "via", json_object_get(args, "via"));
    return target_key_fetch(cli, where, false, args);
}

/* A target that is logged in to with a password needs it at once: asked, when nothing gave it. */
static int new_secret(struct cli *cli, json_t *args)
{
    const char *auth = cli_value(cli, "auth"), *account = cli_value(cli, "account");
    struct secret secret = {0};
    char question[256];
    json_t *text = NULL;
    int rc;

    if (!auth || strcmp(auth, "password") != 0 || cli_has(cli, "no-secret") ||
        json_object_get(args, "secret"))
        return CLI_DONE;
    snprintf(question, sizeof(question),
             "Password of %s at %s: ", account ? account : "the account", cli_operand(cli, 0));
    rc = prompt_password(question, &secret);
    if (rc == ERR_NOT_FOUND)
        return cli_usage(cli, "--auth password needs the password: give --secret-stdin and a line");
    if (rc == 0)
        text = json_stringn((const char *)secret.data, secret.len);
    secret_wipe(&secret);
    if (rc == 0 && !text)
        cli_error("the secret is not valid UTF-8");
    return text && json_object_set_new(args, "secret", text) == 0 ? CLI_DONE : CLI_FAILED;
}

int cmd_target_add(struct cli *cli)
{
    const char *type = cli_value(cli, "type"), *name = cli_operand(cli, 0);
    bool is_rdp = type && strcmp(type, "rdp") == 0, has_key;
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
    if (rc == CLI_DONE)
        rc = new_secret(cli, args);
    if (rc == CLI_DONE)
        rc = new_host_key(cli, is_rdp, args);
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    has_key = json_object_get(args, "host_key") || cli_has(cli, "accept-new");
    rc = simple_change(cli, "target add", args, "was added");
    if (rc == CLI_DONE && is_rdp && !has_key)
        cli_say("Its certificate is not known yet, so nobody gets in. Next: sallyctl target set %s "
                "--host-key fetch (look at it), or --accept-new (trust the first connection).",
                name);
    if (rc == CLI_DONE && !is_rdp && !has_key)
        cli_say("Its host key is not known yet, so nobody gets in. Next: sallyctl target set %s "
                "--host-key fetch (look at it), or --accept-new (trust the first connection).",
                name);
    return rc;
}

int cmd_target_set(struct cli *cli)
{
    json_t *args = simple_name_args(cli);
    int rc = target_args(cli, args);
    bool keeps_key;

    if (rc == CLI_DONE)
        rc = changed_host_key(cli, args);
    if (rc == CLI_DONE && json_object_size(args) == 1)
        rc = cli_usage(cli, "nothing to change: give an option or KEY=VALUE");
    if (rc != CLI_DONE) {
        json_decref(args);
        return rc;
    }
    keeps_key = cli_has(cli, "accept-new") && !json_object_get(args, "host_key");
    rc = simple_change(cli, "target set", args, "was changed");
    if (rc == CLI_DONE && keeps_key)
        cli_say("A host key that is pinned stays: to trust a new one, give --host-key fetch, or "
                "--host-key none with --accept-new.");
    return rc;
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
