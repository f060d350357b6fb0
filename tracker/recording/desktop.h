/*
 * What a recording of an RDP session holds: records of what the client's screen was sent, in the
 * container of recording.h. tracker/FORMAT.md is the reference. Three parts: the codec (pure:
 * desktop.c), the writer (in the relay: desktop_writer.c) and reading (reader.c). Nothing of RDP is
 * decoded here.
 */
#ifndef TRACKER_RECORDING_DESKTOP_H
#define TRACKER_RECORDING_DESKTOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/errors.h>
#include <sallyport/policy.h>

#include "tracker/recording/recording.h"

/* ---- the codec ---- */

#define DESKTOP_HEAD_LEN     16
#define DESKTOP_BODY_MAX     (RECORDING_FRAME_BYTES - DESKTOP_HEAD_LEN)
#define DESKTOP_CHANNELS_MAX 31
#define DESKTOP_NAME_MAX     8
#define DESKTOP_INPUT_LEN    8
#define DESKTOP_SIZE_LEN     12

enum desktop_type {
    DESKTOP_FACTS = 1, /* a JSON object: who, where, which client; the first record */
    DESKTOP_CHANNELS,  /* struct desktop_channels */
    DESKTOP_TARGET,    /* whole PDUs, framing included, as the client got them */
    DESKTOP_CONFIRM,   /* the client's Confirm Active, from its share control header on */
    DESKTOP_SIZE,      /* struct desktop_size; the Demand Active that says so comes next */
    DESKTOP_INPUT,     /* events of DESKTOP_INPUT_LEN bytes each: struct desktop_input */
    DESKTOP_NOTICE     /* UTF-8: what Sallyport showed, or a remark about the recording */
};

#define DESKTOP_OURS    0x01 /* TARGET: drawn by Sallyport, not sent by the target */
#define DESKTOP_DAMAGED 0x80 /* NOTICE: of the reader, in the place of a damaged frame */

struct desktop_record {
    uint8_t type; /* enum desktop_type, or one of a later format, to be skipped */
    uint8_t flags;
    uint64_t at_us; /* since the first record */
    struct cursor body;
};

/* Write the head of a record before its `len` bytes of body; returns the new end. */
uint8_t *desktop_put_head(uint8_t *dst, enum desktop_type type, uint8_t flags, uint32_t len,
                          uint64_t at_us);
/* The next record of a frame's plain bytes, which hold whole ones only: PARSE_MORE at their end,
 * PARSE_BAD when they do not fit. */
enum parse desktop_next(struct cursor *plain, struct desktop_record *out);

#define DESKTOP_CHANNEL_RECORDED 0x01 /* its PDUs are in the recording */
#define DESKTOP_CHANNEL_DROPPED  0x02 /* by policy: it led nowhere */

struct desktop_channels {
    uint16_t user;    /* the client's own MCS user */
    uint16_t io;      /* the I/O channel */
    uint16_t message; /* the message channel; 0: none. Never recorded */
    size_t count;
    struct desktop_channel {
        uint16_t number;
        uint8_t flags;
        uint32_t options; /* CHANNEL_DEF.options, as the client asked */
        char name[DESKTOP_NAME_MAX + 1];
    } list[DESKTOP_CHANNELS_MAX];
};
void desktop_channels_put(struct buffer *b, const struct desktop_channels *c);
enum parse desktop_channels_parse(struct cursor body, struct desktop_channels *out);

struct desktop_size {
    uint16_t width, height, bpp;
    uint32_t share_id;
};
/* DESKTOP_SIZE_LEN bytes. */
void desktop_size_put(uint8_t *dst, const struct desktop_size *s);
enum parse desktop_size_parse(struct cursor body, struct desktop_size *out);

enum desktop_input_kind {
    DESKTOP_INPUT_KEY = 1, /* code: the scan code */
    DESKTOP_INPUT_UNICODE, /* code: a UTF-16 unit */
    DESKTOP_INPUT_MOVE,    /* x, y */
    DESKTOP_INPUT_BUTTON,  /* code: 1 left, 2 right, 3 middle, 4 and 5; x, y */
    DESKTOP_INPUT_WHEEL,   /* code: steps, two's complement; x, y */
    DESKTOP_INPUT_TOUCH    /* touch or pen: that it was used */
};

#define DESKTOP_INPUT_RELEASE    0x01 /* key or button went up */
#define DESKTOP_INPUT_EXTENDED   0x02 /* key: with E0 */
#define DESKTOP_INPUT_EXTENDED1  0x04 /* key: with E1 */
#define DESKTOP_INPUT_HORIZONTAL 0x08 /* wheel */
#define DESKTOP_INPUT_WITHHELD   0x80 /* key, unicode: policy keeps the code out; it is 0 */

struct desktop_input {
    uint8_t kind, flags;
    uint16_t code;
    uint16_t x, y;
};
void desktop_input_put(uint8_t *dst, const struct desktop_input *i);
/* The next of a DESKTOP_INPUT body; PARSE_MORE at its end. */
enum parse desktop_input_next(struct cursor *body, struct desktop_input *out);

/* ---- the writer ---- */

struct desktop_writer;

/* What FACTS says. Texts are borrowed for the call. */
struct desktop_head {
    uint64_t session_id;
    uint32_t channel;
    int64_t started_wall_us;
    const char *user, *account, *target;
    const char *client; /* its name, as it says */
    uint32_t build;
    uint16_t width, height, bpp; /* as it asked */
    const char *client_security, *target_security;
    enum policy_input input;
};

/* As recording_writer_create(): fd is owned from here on, also on failure; NULL: no memory. Nothing
 * is written before the first record. */
struct desktop_writer *desktop_writer_create(int fd, const struct desktop_head *head,
                                             recording_frame_fn on_frame, void *arg);
/*
 * Each returns 0 or ERR_SYSTEM (errno of the write), after which the writer is failed and accepts
 * nothing more. now_us is monotonic. May block as long as the disk does. A body is at most
 * DESKTOP_BODY_MAX; body is copied once, into the open frame.
 */
MUST_CHECK int desktop_write(struct desktop_writer *w, enum desktop_type type, uint8_t flags,
                             const void *body, size_t len, int64_t now_us);
/* As recording_tick(), but in the writer's microseconds: *due_ms are still milliseconds. */
MUST_CHECK int desktop_tick(struct desktop_writer *w, int64_t now_us, int64_t *due_ms);
MUST_CHECK int desktop_close(struct desktop_writer *w, const char *reason, int64_t now_us);
/* Frees and closes the descriptor, without writing. NULL is fine. */
void desktop_writer_destroy(struct desktop_writer *w);

/* ---- reading, over recording_reader_open() ---- */

/* False: a terminal's, for recording_reader_next(). Of a desktop, that one gives notices only,
 * recording_reader_header() is the JSON of FACTS, and recording_reader_size() its size. */
bool recording_reader_is_desktop(const struct recording_reader *r);

/* 1 a record, 0 the end (see recording_reader_end), negative on error. What it borrows holds until
 * the next call. Memory is bounded whatever the file holds; types that are not known are given out,
 * malformed records are damage. A damaged frame is left out: a NOTICE with DESKTOP_DAMAGED stands
 * in its place, behind which pictures may be wrong until the next SIZE. */
MUST_CHECK int recording_reader_next_record(struct recording_reader *r, struct desktop_record *out);

#endif
