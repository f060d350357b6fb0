/*
 * The index of a desktop's recording: pictures of it, whole and without loss, with the times
 * between which they stood. A later question about a moment is answered from it, without decoding
 * the recording from its front. It belongs to one state of one recording, and is thrown away with
 * it.
 *
 * The file, all integers big-endian:
 *   head    "SPIX", u8 version 1, 3 x 0, u64 length of the recording, its last 32 bytes (the head
 * of its chain), u64 0 record  u8 type, u8 flags, u16 0, u32 length, then so many bytes type 1  a
 * picture: u64 at_us, u64 until_us, u16 width, u16 height, u32 0, a zstd frame of the pixels; flag
 * 1: of their difference (exclusive or) to the picture before type 2  the end: u64 covered_us, u64
 * end_us of the recording. A file without it is no index.
 */
#ifndef EXPORT_INDEX_H
#define EXPORT_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/cursor.h>
#include <sallyport/errors.h>

#include "tracker/export/shot.h"

#define INDEX_TAIL    32
#define INDEX_MAX     ((uint64_t)64 * 1024 * 1024) /* of a file, about */
#define INDEX_NEAR_US 2000000u /* a picture this much older still answers, when asked for that */

/* Which recording, as it was. */
struct index_identity {
    uint64_t length;
    uint8_t tail[INDEX_TAIL];
};
/* Of the file behind fd, whose position stays. */
MUST_CHECK int index_identify(int fd, struct index_identity *out);

/* ---- reading: pure ---- */

struct index_key {
    uint64_t at_us, until_us; /* it stood from here to there */
    uint16_t width, height;
    bool is_difference;
    struct cursor packed; /* borrowed */
};
struct index_end {
    uint64_t begin_us, covered_us, end_us;
};

/* PARSE_OK, or PARSE_BAD when it is none, or of another recording. */
enum parse index_head(struct cursor *c, const struct index_identity *identity);
/* OK: a picture. MORE: none is left, and end is set. BAD: not complete, or damaged. */
enum parse index_next(struct cursor *c, struct index_key *key, struct index_end *end);

/* The newest picture that is not younger than at_us into *out and *key. ERR_NOT_FOUND: there is
 * none, or the index does not reach that far; ERR_CORRUPT: it is damaged. */
MUST_CHECK int index_find(struct cursor file, const struct index_identity *identity, uint64_t at_us,
                          struct shot *out, struct index_key *key);
/* When the picture came that stood longest, of an index of the whole recording. */
MUST_CHECK int index_longest(struct cursor file, const struct index_identity *identity,
                             uint64_t *at_us);
/* Where the recording ends, of an index that reaches that far. */
MUST_CHECK int index_end_time(struct cursor file, const struct index_identity *identity,
                              uint64_t *end_us);

/* ---- writing ---- */

struct index_writer;

/* fd is borrowed, empty, and stays at its end. NULL: no memory. */
struct index_writer *index_writer_create(int fd, const struct index_identity *identity);
/* For each picture in order of time, when it went: keeps those that stood a second or more, and
 * otherwise one a second; rarer the larger the file. A failed write is remembered. */
void index_writer_add(struct index_writer *w, uint64_t at_us, uint64_t until_us,
                      const struct shot *s);
/* Frees. 0, or ERR_SYSTEM: the file is no index. */
MUST_CHECK int index_writer_finish(struct index_writer *w, const struct index_end *end);

#endif
