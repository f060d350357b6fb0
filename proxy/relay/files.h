/*
 * What was done to files, on its way to the broker: rows are collected here and go in batches, so
 * that ten thousand small files are a hundred messages and never hold up another message of the
 * session. Bounded: past FILES_PENDING_MAX rows are counted instead, and one row says how many.
 * Paced by relay.c's turn; does no I/O.
 */
#ifndef RELAY_FILES_H
#define RELAY_FILES_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/file_row.h>
#include <sallyport/link.h>

#define LINK_FILES_SINCE  3 /* version of the link */
#define FILES_PENDING_MAX (1024u * 1024u)
#define FILES_BATCH_ROWS  128 /* in one message while the session lives... */
#define FILES_EVERY_MS    100 /* ...and how often one goes: below what the broker reads at ease */

struct files {
    struct buffer pending; /* u16 length and row, again and again */
    uint64_t lost;         /* rows that did not fit */
    int64_t next_ms;       /* no batch before */
};

void files_init(struct files *f);
void files_finish(struct files *f);
void files_add(struct files *f, const struct file_row *row);

static inline bool files_is_empty(const struct files *f)
{
    return f->pending.len == 0 && f->lost == 0;
}

/* Fill one message, of at most max_rows; false when there is nothing. */
bool files_take(struct files *f, size_t max_rows, struct link_files *out);

#endif
