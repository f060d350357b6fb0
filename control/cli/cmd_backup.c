/*
 * `backup`: the copy of the store comes in the reply and is written here, so that FILE is wherever
 * the caller may write. It is complete or not there: written beside it first, synced, then given
 * its name, which nothing may have yet.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <sallyport/secret.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"

#define CHUNK_MAX (1024 * 1024) /* of base64 in one row */

struct copy {
    const char *path;
    char *part;
    int fd;
    long long bytes;
};

static int failed(const struct copy *c, const char *what)
{
    cli_error("cannot %s %s: %s", what, c->path, strerror(errno));
    return CLI_FAILED;
}

static int write_all(struct copy *c, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(c->fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(c, "write");
        data += n;
        len -= (size_t)n;
        c->bytes += n;
    }
    return CLI_DONE;
}

static int write_row(struct copy *c, const json_t *row)
{
    const json_t *text = json_object_get(row, "data");
    size_t len = json_string_length(text), padding = 0;
    const char *base64 = json_string_value(text);
    uint8_t *data;
    int n, rc;

    if (!base64 || !len || len % 4 || len > CHUNK_MAX) {
        cli_error("the daemon sent no copy of its store");
        return CLI_FAILED;
    }
    while (padding < 2 && base64[len - 1 - padding] == '=')
        padding++;
    data = malloc(len);
    n = data ? EVP_DecodeBlock(data, (const unsigned char *)base64, (int)len) : -1;
    if (n < (int)padding) {
        free(data);
        cli_error("the copy came damaged");
        return CLI_FAILED;
    }
    rc = write_all(c, data, (size_t)n - padding);
    memory_wipe(data, len); /* password hashes are in there */
    free(data);
    return rc;
}

static int receive(struct cli *cli, struct copy *c)
{
    struct conn_error e = {.code = ""};
    int more, rc = CLI_DONE;
    json_t *rows, *row;
    int64_t id;
    size_t i;

    more = conn_send(&cli->conn, "backup", NULL, &id);
    if (more == 0)
        more = 1;
    while (more == 1 && rc == CLI_DONE) {
        more = conn_page(&cli->conn, id, &rows, &e);
        json_array_foreach(rows, i, row)
        {
            if (more >= 0 && rc == CLI_DONE)
                rc = write_row(c, row);
        }
        json_decref(rows);
    }
    if (more < 0)
        rc = cli_report(cli, more, &e);
    conn_error_finish(&e);
    return rc;
}

/* link(), not rename(): what has come to be at FILE meanwhile is left alone. */
static int name_it(struct copy *c)
{
    if (fsync(c->fd) < 0)
        return failed(c, "write");
    return link(c->part, c->path) < 0 ? failed(c, "make") : CLI_DONE;
}

static void tell(const struct cli *cli, const struct copy *c)
{
    json_t *data;

    if (cli->format != FORMAT_JSON && cli->format != FORMAT_JSONL) {
        cli_say("%s: %lld bytes. Keep the store's key file too: without it the secrets in the copy "
                "cannot be read.",
                c->path, c->bytes);
        return;
    }
    data = json_pack("{s:s, s:I}", "path", c->path, "bytes", (json_int_t)c->bytes);
    output_json(cli, data);
    json_decref(data);
}

int cmd_backup(struct cli *cli)
{
    struct copy c = {.path = cli_operand(cli, 0), .fd = -1};
    int rc = cli_may_use_file(c.path) ? cli_connect(cli) : CLI_FAILED;

    if (rc != CLI_DONE)
        return rc;
    if (access(c.path, F_OK) == 0) {
        cli_error("%s is there already; a backup never overwrites", c.path);
        return CLI_FAILED;
    }
    if (asprintf(&c.part, "%s.part-XXXXXX", c.path) < 0)
        return CLI_FAILED;
    c.fd = mkstemp(c.part); /* mode 0600 */
    if (c.fd < 0) {
        rc = failed(&c, "make");
        free(c.part);
        return rc;
    }
    rc = receive(cli, &c);
    if (rc == CLI_DONE)
        rc = name_it(&c);
    (void)unlink(c.part);
    (void)close(c.fd);
    free(c.part);
    if (rc == CLI_DONE)
        tell(cli, &c);
    return rc;
}
