/*
 * Bytes that come in a reply: fetch.h.
 */
#include "control/cli/fetch.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <sallyport/secret.h>

#define CHUNK_MAX (1024 * 1024) /* of base64 in one row */

static int write_all(struct fetch *f, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t n = write(f->fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            cli_error("cannot write %s: %s", f->name, strerror(errno));
            return CLI_FAILED;
        }
        data += n;
        len -= (size_t)n;
        f->bytes += n;
    }
    return CLI_DONE;
}

static int write_row(struct fetch *f, const json_t *row)
{
    const json_t *text = json_object_get(row, "data");
    size_t len = json_string_length(text), padding = 0;
    const char *base64 = json_string_value(text);
    uint8_t *data;
    int n, rc;

    if (!base64 || !len || len % 4 || len > CHUNK_MAX) {
        cli_error("the daemon sent something else than %s", f->name);
        return CLI_FAILED;
    }
    while (padding < 2 && base64[len - 1 - padding] == '=')
        padding++;
    data = malloc(len);
    n = data ? EVP_DecodeBlock(data, (const unsigned char *)base64, (int)len) : -1;
    if (n < (int)padding) {
        free(data);
        cli_error("%s came damaged", f->name);
        return CLI_FAILED;
    }
    rc = write_all(f, data, (size_t)n - padding);
    memory_wipe(data, len); /* password hashes may be in there */
    free(data);
    return rc;
}

int fetch_all(struct cli *cli, const char *command, json_t *args, struct fetch *f)
{
    struct conn_error e = {.code = ""};
    int more, rc = CLI_DONE;
    json_t *rows, *row;
    int64_t id;
    size_t i;

    more = conn_send(&cli->conn, command, args, &id);
    if (more == 0)
        more = 1;
    while (more == 1 && rc == CLI_DONE) {
        more = conn_page(&cli->conn, id, &rows, &e);
        json_array_foreach(rows, i, row)
        {
            if (more >= 0 && rc == CLI_DONE)
                rc = write_row(f, row);
        }
        json_decref(rows);
    }
    if (more < 0)
        rc = cli_report(cli, more, &e);
    conn_error_finish(&e);
    return rc;
}
