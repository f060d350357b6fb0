/* An SFTP channel of any kind: records of u8 direction (bit 0: from the client), u16 length, bytes.
 * In one piece and byte by byte the audit must say the same; every row must be one that the link
 * can carry; and at most one says that it stopped. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/file_row.h>

#include "proxy/ssh/sftp_audit.h"

#define SAID_MAX (8 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

struct said {
    struct buffer rows;
    unsigned stopped;
};

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void on_row(struct file_row *row, void *arg)
{
    struct said *said = arg;
    static struct file_row back;
    struct cursor c;
    size_t before = said->rows.len;

    check(row->operation < FILE_OPERATION_COUNT);
    said->stopped += row->operation == FILE_STOPPED;
    file_row_put(&said->rows, row);
    check(!said->rows.failed);
    c = cursor_of(said->rows.data + before, said->rows.len - before);
    check(file_row_take(&c, &back) && cursor_at_end(&c));
    check(back.operation == row->operation && strcmp(back.path, row->path) == 0);
}

static void play(const uint8_t *data, size_t len, size_t piece, struct said *said)
{
    struct sftp_audit *a = sftp_audit_create(on_row, said);
    struct cursor c = cursor_of(data, len);
    const uint8_t *bytes;
    uint16_t n;
    uint8_t way;

    check(a != NULL);
    while (cursor_u8(&c, &way) && cursor_be16(&c, &n)) {
        size_t left = n < cursor_left(&c) ? n : cursor_left(&c);

        check(cursor_take(&c, left, &bytes));
        while (left > 0) {
            size_t now = left < piece ? left : piece;

            sftp_audit_feed(a, way & 1, bytes, now);
            bytes += now;
            left -= now;
        }
    }
    check(sftp_audit_is_stopped(a) == (said->stopped == 1) && said->stopped <= 1);
    sftp_audit_destroy(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct said whole = {.stopped = 0}, pieces = {.stopped = 0};

    if (len > 70000) /* so that the rows of the smallest requests fit */
        return 0;
    buffer_init(&whole.rows, SAID_MAX);
    buffer_init(&pieces.rows, SAID_MAX);
    play(data, len, SIZE_MAX, &whole);
    play(data, len, 1, &pieces);
    check(whole.rows.len == pieces.rows.len);
    check(whole.rows.len == 0 || memcmp(whole.rows.data, pieces.rows.data, whole.rows.len) == 0);
    buffer_finish(&whole.rows);
    buffer_finish(&pieces.rows);
    return 0;
}
