/*
 * Recordings: the writer (in the relay, on a descriptor that the broker opened) and the reader
 * (offline, in the CLI). The container is documented in tracker/FORMAT.md: independent zstd frames
 * whose plain text is one asciicast v2 file, and zstd skippable frames that hold what asciicast
 * cannot: exact bytes of invalid UTF-8, the index, the hash chain.
 *
 * The writer only ever calls write() on the descriptor; it never seeks, truncates or opens. A frame
 * is closed every 256 KiB of plain text or 1 s; its compressor is made at its first byte and freed
 * at its end (level 1, window 64 KiB), so an idle recording holds next to no memory.
 */
#ifndef TRACKER_RECORDING_H
#define TRACKER_RECORDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/policy.h>

#define RECORDING_FRAME_BYTES (256 * 1024)
#define RECORDING_FRAME_MS    1000
#define RECORDING_EXEC_CAP    (4 * 1024 * 1024) /* output of a command without a pty */
#define RECORDING_CHAIN_LEN   32

struct recording_writer;

struct recording_head {
    uint64_t session_id;
    uint32_t channel;
    int64_t started_wall_us; /* of the recording */
    bool has_pty;
    uint16_t cols, rows; /* 80x24 when there is no pty */
    const char *user;    /* borrowed for the call, here and below */
    const char *account;
    const char *target;
    const char *command; /* "" for a shell */
    const char *term;
};

/* Called after a frame was written in full. */
typedef void (*recording_frame_fn)(uint64_t sequence, uint64_t file_len,
                                   const uint8_t chain[RECORDING_CHAIN_LEN], void *arg);

/* fd is owned from here on, also on failure. input: what to keep of typed text. NULL: no memory.
 * Nothing is written before the first event. */
struct recording_writer *recording_writer_create(int fd, const struct recording_head *head,
                                                 enum policy_input input,
                                                 recording_frame_fn on_frame, void *arg);

/*
 * Each returns 0 or ERR_SYSTEM (errno of the write, ENOSPC say), after which the writer is failed
 * and accepts nothing more. now_ms is clock_mono_ms(). May block as long as the disk does.
 */
MUST_CHECK int recording_output(struct recording_writer *w, const void *data, size_t len,
                                bool is_stderr, int64_t now_ms);
MUST_CHECK int recording_input(struct recording_writer *w, const void *data, size_t len,
                               int64_t now_ms);
MUST_CHECK int recording_resize(struct recording_writer *w, uint16_t cols, uint16_t rows,
                                int64_t now_ms);
MUST_CHECK int recording_notice(struct recording_writer *w, const char *text, int64_t now_ms);
/* What somebody else than the user typed: always kept, with his name beside it (AUTHOR_MAX bytes at
 * most). */
#define RECORDING_AUTHOR_MAX 96
MUST_CHECK int recording_typed(struct recording_writer *w, const char *author, const void *data,
                               size_t len, int64_t now_ms);

/* Where a recording stands when its open frame was written early: whoever reads file_len bytes has
 * everything so far, but for the beginning of a character whose rest has not come. */
struct recording_position {
    uint64_t sequence, file_len;
    uint8_t held[4];
    size_t held_len;
};
MUST_CHECK int recording_flush(struct recording_writer *w, int64_t now_ms,
                               struct recording_position *out);

/* Close the open frame when it is old enough; returns the milliseconds until it will be (-1: no
 * frame is open) in *due_ms. */
MUST_CHECK int recording_tick(struct recording_writer *w, int64_t now_ms, int64_t *due_ms);
/* Write the end record and the last frame; reason is an end reason's name. */
MUST_CHECK int recording_close(struct recording_writer *w, const char *reason, int64_t now_ms);
/* Frees and closes the descriptor, without writing. NULL is fine. */
void recording_writer_destroy(struct recording_writer *w);

/* ---- reading ---- */

struct recording_reader;

enum recording_event_kind {
    RECORDING_EVENT_OUTPUT, /* "o" */
    RECORDING_EVENT_STDERR, /* "o" with a mark beside it */
    RECORDING_EVENT_INPUT,  /* "i" */
    RECORDING_EVENT_RESIZE, /* "r" */
    RECORDING_EVENT_NOTICE  /* "m" */
};

struct recording_event {
    double at_s;
    enum recording_event_kind kind;
    const uint8_t *data; /* the exact bytes, borrowed until the next call */
    size_t len;
    uint16_t cols, rows; /* RESIZE: clamped to 1..1000 */
    const char *author;  /* INPUT: who typed it when that was not the user; else "" */
};

enum recording_end { RECORDING_COMPLETE, RECORDING_CUT, RECORDING_DAMAGED };

struct recording_reader *recording_reader_open(const char *path, char *err, size_t err_len);
/* Of the first file_len bytes, of a recording that is being written. fd is owned from here, also
 * on failure, and stands at its beginning. */
struct recording_reader *recording_reader_open_part(int fd, uint64_t file_len, char *err,
                                                    size_t err_len);
/* The asciicast header's text, without newline. */
const char *recording_reader_header(const struct recording_reader *r);
void recording_reader_size(const struct recording_reader *r, uint16_t *cols, uint16_t *rows);
/* 1 an event, 0 the end (see recording_reader_end), negative on error. Memory is bounded whatever
 * the file holds. */
MUST_CHECK int recording_reader_next(struct recording_reader *r, struct recording_event *e);
/* After the end: whether the end record was there, the file was cut, or a frame is damaged (its
 * number in *frame). text explains. */
enum recording_end recording_reader_end(const struct recording_reader *r, uint64_t *frame,
                                        char *text, size_t text_len);
/* After the end: how long it lasted, by its end record; 0 without one. */
uint64_t recording_reader_duration_ms(const struct recording_reader *r);
/* After the end: the chain of the last good frame, RECORDING_CHAIN_LEN bytes, borrowed. */
const uint8_t *recording_reader_chain(const struct recording_reader *r);
void recording_reader_close(struct recording_reader *r);

/* The whole as plain asciicast v2 to out (a FILE of stdio, borrowed), at_s > 0 starts there. */
MUST_CHECK int recording_export(const char *path, void *out_file, double at_s, char *err,
                                size_t err_len);

#endif
