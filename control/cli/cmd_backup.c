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

#include "control/cli/cli.h"
#include "control/cli/fetch.h"
#include "control/cli/output.h"

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
    struct fetch received;
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
    received = (struct fetch){.name = c.path, .fd = c.fd};
    rc = fetch_all(cli, "backup", NULL, &received);
    c.bytes = received.bytes;
    if (rc == CLI_DONE)
        rc = name_it(&c);
    (void)unlink(c.part);
    (void)close(c.fd);
    free(c.part);
    if (rc == CLI_DONE)
        tell(cli, &c);
    return rc;
}
