/*
 * Rows about files that wait for the link; see files.h. Called by requests.c (a protocol has one),
 * and by relay.c, which decides when a batch goes.
 */
#include "proxy/relay/files.h"

#include <assert.h>
#include <string.h>

#define ROW_MAX (2 * FILE_PATH_MAX + 64)

static_assert(ROW_MAX * 2 < LINK_FILES_MAX, "a message holds at least one row and a count");

void files_init(struct files *f)
{
    buffer_init(&f->pending, FILES_PENDING_MAX);
    f->lost = 0;
    f->next_ms = 0;
}

void files_finish(struct files *f)
{
    buffer_finish(&f->pending);
}

void files_add(struct files *f, const struct file_row *row)
{
    struct buffer one;

    buffer_init(&one, ROW_MAX);
    file_row_put(&one, row);
    if (one.failed || f->pending.len + one.len + 2 > FILES_PENDING_MAX) {
        f->lost++;
    } else {
        buffer_put_be(&f->pending, one.len, 2);
        buffer_put(&f->pending, one.data, one.len);
    }
    buffer_finish(&one);
    if (f->pending.failed) { /* no memory: what is there cannot be trusted to be whole rows */
        buffer_finish(&f->pending);
        buffer_init(&f->pending, FILES_PENDING_MAX);
        f->lost++;
    }
}

/* Those that are missing stand behind those that came before them, and only when these are gone. */
static size_t put_lost(struct files *f, uint8_t *dst, size_t room)
{
    struct file_row row = {.operation = FILE_UNLISTED, .bytes_in = f->lost};
    struct buffer b;
    size_t len = 0;

    buffer_init(&b, room);
    file_row_put(&b, &row);
    if (!b.failed) {
        memcpy(dst, b.data, b.len);
        len = b.len;
        f->lost = 0;
    }
    buffer_finish(&b);
    return len;
}

bool files_take(struct files *f, size_t max_rows, struct link_files *out)
{
    struct cursor c = cursor_of(f->pending.data, f->pending.len);
    size_t used = 0, at = 0;
    const uint8_t *row;
    uint16_t len;

    for (size_t i = 0; i < max_rows; i++) {
        if (!cursor_be16(&c, &len) || at + len > sizeof(out->rows.data) ||
            !cursor_take(&c, len, &row))
            break;
        memcpy(out->rows.data + at, row, len);
        at += len;
        used += 2u + len;
    }
    if (used > 0)
        buffer_consume(&f->pending, used);
    if (f->pending.len == 0) {
        buffer_finish(&f->pending);
        buffer_init(&f->pending, FILES_PENDING_MAX);
        if (f->lost > 0)
            at += put_lost(f, out->rows.data + at, sizeof(out->rows.data) - at);
    }
    out->rows.len = (uint16_t)at;
    return at > 0;
}
