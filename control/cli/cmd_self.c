/*
 * `self ...`: what a user does for himself. These are also the words of his own door
 * (`ssh USER@BASTION targets`), where sallyctl runs at the bastion with a connection that says who
 * he is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/door.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/prompt.h"
#include "control/cli/simple.h"

/* ---- targets ---- */

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "";
}

/* Last used first, then by name. ISO 8601 texts sort as times. */
static int compare_use(const void *left, const void *right)
{
    const json_t *a = *(json_t *const *)left, *b = *(json_t *const *)right;
    int by_time = strcmp(text_of(b, "lastUsed"), text_of(a, "lastUsed"));

    return by_time ? by_time : strcmp(text_of(a, "name"), text_of(b, "name"));
}

static json_t *sorted_by_use(const json_t *rows)
{
    size_t count = json_array_size(rows);
    json_t **list = calloc(count + 1, sizeof(*list)), *sorted = json_array();

    for (size_t i = 0; list && i < count; i++)
        list[i] = json_array_get(rows, i);
    if (list)
        qsort(list, count, sizeof(*list), compare_use);
    for (size_t i = 0; list && i < count; i++)
        json_array_append(sorted, list[i]);
    free(list);
    return sorted;
}

int cmd_self_targets(struct cli *cli)
{
    json_t *rows, *sorted;
    int rc = cli_call(cli, "self targets", NULL, &rows);

    if (rc != CLI_DONE)
        return rc;
    sorted = sorted_by_use(rows);
    rc = output_rows(cli, &reach_columns, sorted, false, false);
    json_decref(sorted);
    json_decref(rows);
    return rc;
}

/* ---- config ---- */

struct address {
    char host[256];
    char port[8];
};

/* HOST, HOST:PORT, [HOST]:PORT or a bare IPv6 address. */
static bool split_address(const char *text, struct address *out)
{
    const char *colon = strrchr(text, ':');
    size_t len = strlen(text);

    text_copy(out->port, sizeof(out->port), "22");
    if (text[0] == '[') {
        const char *end = strchr(text, ']');
        if (!end)
            return false;
        colon = end[1] == ':' ? end + 1 : NULL;
        len = (size_t)(end - text) - 1;
        text++;
    } else if (colon && strchr(text, ':') == colon) {
        len = (size_t)(colon - text);
    } else {
        colon = NULL;
    }
    if (len == 0 || len >= sizeof(out->host))
        return false;
    memcpy(out->host, text, len);
    out->host[len] = '\0';
    return !colon || text_copy(out->port, sizeof(out->port), colon + 1);
}

/* What a line of ssh_config can hold without quotes or surprises. */
static bool is_plain(const char *text)
{
    return *text && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                 "._-@:") == strlen(text);
}

static void put_target(const json_t *target, const char *user, const char *name)
{
    const char *host = text_of(target, "name"), *account = text_of(target, "account");

    if (strcmp(text_of(target, "type"), "ssh") != 0)
        return;
    printf("\nHost %s.%s\n    User %s+%s\n", host, name, user, host);
    if (is_plain(account))
        printf("Host %s.%s-jump\n    HostName %s\n    User %s\n", host, name, host, account);
}

static void put_config(const json_t *data, const struct address *at, const char *name)
{
    const char *user = text_of(data, "user");
    const json_t *targets = json_object_get(data, "targets");
    size_t i;
    json_t *target;

    printf("# What %s reaches through %s. Put it into a file of its own, then\n"
           "#   ssh -F FILE TARGET.%s          (scp, sftp, rsync, git and ansible as well)\n"
           "#   ssh -F FILE TARGET.%s-jump     the same through ProxyJump\n"
           "# or say `Include FILE` at the top of ~/.ssh/config.\n\n",
           user, text_of(data, "node"), name, name);
    printf("Host %s *.%s\n    HostName %s\n    Port %s\n", name, name, at->host, at->port);
    printf("Host *.%s-jump\n    ProxyJump %s\n", name, name);
    /* one key for all: the proxy's, known by one name */
    printf("Host %s *.%s *.%s-jump\n    HostKeyAlias %s.%s\n", name, name, name, name,
           text_of(data, "node"));
    printf("Host %s\n    User %s\n", name, user);
    json_array_foreach(targets, i, target)
    {
        put_target(target, user, name);
    }
}

int cmd_self_config(struct cli *cli)
{
    const char *name = cli_value(cli, "name") ? cli_value(cli, "name") : "bastion";
    struct address at = {.host = ""};
    json_t *data;
    int rc;

    if (!text_is_name(name))
        return cli_usage(cli, "--name takes letters, digits, . _ and -, not \"%s\"", name);
    rc = cli_call(cli, "self config", NULL, &data);
    if (rc != CLI_DONE)
        return rc;
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        output_json(cli, data);
    } else if (!split_address(text_of(data, "address"), &at) || !is_plain(at.host) ||
               !is_plain(at.port)) {
        cli_error("the daemon does not know its own address; an admin can set [ssh] "
                  "public_address");
        rc = CLI_FAILED;
    } else {
        put_config(data, &at, name);
    }
    json_decref(data);
    return rc;
}

/* ---- the password ---- */

/* Old, new, and new again: asked, or three lines of stdin. */
static int read_passwords(struct secret *old, struct secret *fresh)
{
    struct secret again = {0};
    int rc = prompt_password("Old password: ", old);

    if (rc == 0)
        return prompt_new_password("the new login", fresh);
    if (rc != ERR_NOT_FOUND)
        return rc;
    if (cli_is_door())
        cli_say(
            "Three lines: old password, new one, new one again. (ssh -t asks without showing.)");
    rc = prompt_stdin_secret(old);
    rc = rc == 0 ? prompt_stdin_secret(fresh) : rc;
    rc = rc == 0 ? prompt_stdin_secret(&again) : rc;
    if (rc == 0 && (again.len != fresh->len || memcmp(again.data, fresh->data, fresh->len) != 0)) {
        cli_error("the two new passwords differ; nothing was changed");
        rc = ERR_INVALID;
    }
    secret_wipe(&again);
    return rc;
}

int cmd_self_passwd(struct cli *cli)
{
    struct secret old = {0}, fresh = {0};
    json_t *args = NULL, *data = NULL;
    int rc = read_passwords(&old, &fresh);

    if (rc == 0) {
        args = json_pack("{s:s#, s:s#}", "old", (const char *)old.data, (int)old.len, "password",
                         (const char *)fresh.data, (int)fresh.len);
        if (!args)
            cli_error("a password is not valid UTF-8");
    }
    secret_wipe(&old);
    secret_wipe(&fresh);
    if (!args)
        return CLI_FAILED;
    rc = cli_call(cli, "self passwd", args, &data);
    if (rc == CLI_DONE)
        cli_say("Your password was changed.");
    json_decref(data);
    return rc;
}

/* ---- public keys ---- */

int cmd_self_key_ls(struct cli *cli)
{
    return simple_list(cli, "self key ls", NULL, &key_columns);
}

int cmd_self_key_add(struct cli *cli)
{
    const char *from = cli_operand(cli, 0) ? cli_operand(cli, 0) : "-";
    char *key = NULL;
    json_t *args, *data = NULL;
    int rc = key_read(cli, from, &key);

    if (rc != CLI_DONE)
        return rc;
    args = json_pack("{s:s}", "key", key);
    free(key);
    if (!args)
        return cli_usage(cli, "the key is not valid UTF-8");
    rc = cli_call(cli, "self key add", args, &data);
    if (rc == CLI_DONE)
        cli_say("Added %s, your key %s.", text_of(data, "fingerprint"), text_of(data, "id"));
    json_decref(data);
    return rc;
}

int cmd_self_key_rm(struct cli *cli)
{
    json_t *data = NULL;
    int rc = cli_call(cli, "self key rm", json_pack("{s:s}", "key", cli_operand(cli, 0)), &data);

    if (rc == CLI_DONE)
        cli_say("Key %s was removed.", cli_operand(cli, 0));
    json_decref(data);
    return rc;
}

/* ---- help ---- */

static const struct cli_command *command_of(const struct door_word *row)
{
    for (size_t i = 0; i < cli_command_count; i++) {
        size_t len = strlen(cli_commands[i].words);
        if (strncmp(row->words, cli_commands[i].words, len) == 0 &&
            (row->words[len] == '\0' || row->words[len] == ' '))
            return &cli_commands[i];
    }
    return NULL;
}

static void list_words(void)
{
    printf("ssh USER@BASTION WORD... does something for you at the bastion itself:\n\n");
    for (size_t i = 0; i < door_word_count; i++) {
        const struct door_word *row = &door_words[i];
        if (row->help)
            printf("  %-8s %-15s %s\n", row->word, row->operands, row->help);
    }
    printf("\nssh USER+TARGET@BASTION goes to a target, as does choosing one from the menu of\n"
           "ssh -t USER@BASTION. More: help WORD\n");
}

int cmd_self_help(struct cli *cli)
{
    struct door_line line = {.count = 0};
    const struct door_word *row;
    const struct cli_command *command;
    size_t used;

    while (line.count < cli->args.operand_count) {
        line.words[line.count] = cli_operand(cli, line.count);
        line.count++;
    }
    if (line.count == 0) {
        list_words();
        return CLI_DONE;
    }
    row = door_find(&line, &used);
    if (!row)
        return cli_usage(cli, "there is no word \"%s\"", line.words[0]);
    command = command_of(row);
    if (command && command->run != cmd_self_help)
        cli_help(stdout, command, NULL);
    else if (row->is_admin)
        cli_help(stdout, NULL, line.count > used ? line.words[used] : NULL);
    else
        list_words();
    return CLI_DONE;
}
