/*
 * `target rdpfile`: what to give a user of mstsc or Remmina, so that a double click connects. The
 * target travels in the routing token, so that the user name stays the user's own; with NLA in the
 * user name.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/simple.h"

#define PORT_DEFAULT "3389"

/* The port of the first RDP listener, "rdp [::]:3389" in the daemon's status. */
static int find_port(struct cli *cli, char *dst, size_t len)
{
    json_t *status, *one;
    size_t i;
    int rc = cli_call(cli, "status", NULL, &status);

    if (rc != CLI_DONE)
        return rc;
    dst[0] = '\0';
    json_array_foreach(json_object_get(status, "listeners"), i, one)
    {
        const char *text = json_string_value(one), *colon = text ? strrchr(text, ':') : NULL;

        if (!dst[0] && text && strncmp(text, "rdp ", 4) == 0)
            text_copy(dst, len, colon ? colon + 1 : text + 4);
    }
    json_decref(status);
    if (!dst[0])
        text_copy(dst, len, PORT_DEFAULT);
    return CLI_DONE;
}

/* HOST[:PORT] that users reach the proxy at. */
static int find_address(struct cli *cli, char *dst, size_t len)
{
    const char *given = cli_value(cli, "address");
    char host[256] = "", port[16];
    int rc;

    if (given) {
        if (strpbrk(given, "\r\n") || !text_copy(dst, len, given))
            return cli_usage(cli, "--address takes HOST or HOST:PORT");
        return CLI_DONE;
    }
    rc = find_port(cli, port, sizeof(port));
    if (rc != CLI_DONE)
        return rc;
    if (gethostname(host, sizeof(host) - 1) < 0)
        text_copy(host, sizeof(host), "localhost");
    snprintf(dst, len, "%s:%s", host, port);
    return CLI_DONE;
}

/* Whether NLA works for the user: not for one who is not there yet, which is no error. */
static bool has_nla(struct cli *cli, const char *user)
{
    struct conn_error e = {.code = ""};
    json_t *data = NULL;
    const char *nla;
    bool is_on;
    int64_t id;
    int rc = conn_send(&cli->conn, "user show", json_pack("{s:s}", "name", user), &id);

    if (rc == 0)
        rc = conn_reply(&cli->conn, id, &data, &e);
    conn_error_finish(&e);
    nla = rc == 0 ? json_string_value(json_object_get(data, "rdpNla")) : NULL;
    is_on = nla && strcmp(nla, "on") == 0;
    json_decref(data);
    return is_on;
}

/* Without NLA mstsc sends a password only when it asks for it itself. With it the target is in the
 * user name, because a routing token takes the place of the cookie, by which NLA is chosen. */
static void print(const char *address, const char *user, const char *target, bool is_nla)
{
    printf("full address:s:%s\r\n", address);
    if (is_nla) {
        printf("username:s:%s+%s\r\n", user, target);
    } else {
        printf("username:s:%s\r\n", user);
        printf("loadbalanceinfo:s:target=%s\r\n", target);
    }
    printf("prompt for credentials on client:i:1\r\n");
    printf("enablecredsspsupport:i:%d\r\n", is_nla);
    printf("negotiate security layer:i:1\r\n");
    printf("authentication level:i:2\r\n");
    printf("use redirection server name:i:1\r\n");
}

int cmd_target_rdpfile(struct cli *cli)
{
    const char *user = cli_value(cli, "user"), *type;
    char address[300];
    json_t *target;
    int rc;

    if (!user || !text_is_name(user))
        return cli_usage(cli, "whose file? Give --user USER");
    rc = cli_call(cli, "target show", simple_name_args(cli), &target);
    if (rc != CLI_DONE)
        return rc;
    type = json_string_value(json_object_get(target, "type"));
    if (!type || strcmp(type, "rdp") != 0) {
        cli_error("%s is no rdp target", cli_operand(cli, 0));
        rc = CLI_FAILED;
    } else {
        rc = find_address(cli, address, sizeof(address));
    }
    json_decref(target);
    if (rc == CLI_DONE)
        print(address, user, cli_operand(cli, 0), has_nla(cli, user));
    return rc;
}
