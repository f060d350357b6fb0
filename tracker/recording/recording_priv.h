/*
 * What the files of this folder share: the layout of the container (container.c), asciicast lines
 * (cast.c) and the `echoed` heuristic (input.c). Nothing here touches a descriptor. The parsers are
 * pure and fuzzed. FORMAT.md is the reference for every number below.
 */
#ifndef TRACKER_RECORDING_PRIV_H
#define TRACKER_RECORDING_PRIV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/cursor.h>

#include "tracker/recording/recording.h"

/* ---- container.c ---- */

#define CONTAINER_VERSION     1
#define CONTAINER_SKIP_HEADER 8 /* RFC 8878 §3.1.2: magic and length of a skippable frame */
#define CONTAINER_HEAD_LEN    32
#define CONTAINER_TRAILER_LEN 116
#define CONTAINER_HASHED_LEN  52 /* of the trailer: the fields before the hash */
#define CONTAINER_END_MAX     (45 + 255)

/* What a reader accepts. */
#define CONTAINER_HEAD_MAX    4096
#define CONTAINER_SIDE_MAX    (1024 * 1024)
#define CONTAINER_PLAIN_MAX   (1024 * 1024)
#define CONTAINER_SEGMENT_MAX (4 * 1024 * 1024)

#define SIDE_EXACT  1
#define SIDE_STDERR 2
#define SIDE_AUTHOR 3

#define CONTAINER_PTY     0x01 /* the channel has a pty */
#define CONTAINER_DESKTOP 0x02 /* RDP: the plain bytes are desktop.h's records */

struct container_head {
    uint8_t flags; /* CONTAINER_ */
    uint64_t session_id;
    uint32_t channel;
    int64_t started_wall_us;
    uint16_t cols, rows; /* of a desktop: width and height */
};

struct container_trailer {
    uint64_t sequence;
    uint64_t offset;
    uint32_t plain_len;
    uint32_t event_count;
    uint64_t first_ms, last_ms;
    int64_t wall_us;
    uint8_t hash[RECORDING_CHAIN_LEN];
    uint8_t chain[RECORDING_CHAIN_LEN];
};

struct container_end {
    uint64_t duration_ms;
    uint64_t output_bytes, stderr_bytes;
    uint64_t output_unrecorded, stderr_unrecorded;
    char reason[256];
};

/* One segment, borrowed from where it was parsed. Absent parts are empty. */
struct container_segment {
    const uint8_t *start;
    size_t len;
    size_t hashed_len;   /* bytes from start that the hash covers */
    struct cursor head;  /* payload */
    struct cursor frame; /* a whole zstd frame */
    struct cursor side;  /* records, without the letters */
    struct cursor end;   /* payload */
    struct container_trailer trailer;
};

/* Append to dst, which has room; return the new end. */
uint8_t *container_put_head(uint8_t *dst, const struct container_head *h);
uint8_t *container_put_side(uint8_t *dst, const uint8_t *records, size_t len);
uint8_t *container_put_end(uint8_t *dst, const struct container_end *e);
/* Everything of the trailer before the hash, and then the rest. */
uint8_t *container_put_trailer(uint8_t *dst, const struct container_trailer *t);
uint8_t *container_put_hashes(uint8_t *dst, const struct container_trailer *t);

/* Frames one whole segment. BAD: no reader can go on here. MORE consumes nothing. */
enum parse container_segment(struct cursor *in, struct container_segment *out);
enum parse container_head(struct cursor payload, struct container_head *out);
enum parse container_end(struct cursor payload, struct container_end *out);
/* Moves behind the next trailer for resynchronising; false when there is none, *in is then at the
 * first byte that a trailer could still begin with. */
bool container_find_trailer(struct cursor *in, struct container_trailer *out);

/* One record of a side frame. False at the end or when it is malformed. */
bool container_side_record(struct cursor *side, uint8_t *type, uint32_t *event,
                           struct cursor *body);
/* Put the exact bytes of one event back, in place: text becomes shorter. False: the runs do not fit
 * the text. */
bool container_side_apply(struct cursor runs, uint8_t *text, size_t *len);

/* ---- cast.c ---- */

/* The side records of the open frame, while they are written. */
struct side_log {
    uint8_t *data;
    size_t len;
    size_t record_at; /* of the open exact record; SIZE_MAX: none */
    size_t run_at;    /* of its last run */
    size_t next_raw;  /* offset in the event's bytes after that run */
};

#define CAST_ESCAPE_MAX      6 /* bytes of JSON for one byte of data, at most */
#define CAST_EVENT_MAX       (16 * 1024)
#define CAST_LINE_MAX        (256 * 1024)
#define CAST_EVENT_OVERHEAD  64                 /* time, code, quotes, newline */
#define CAST_SIDE_MAX(bytes) (2 * (bytes) + 64) /* bytes of side records for so much data */

/* Where escaped text goes; the caller made room. side may be NULL: then exact bytes are lost. */
struct cast_out {
    uint8_t *at;
    struct side_log *side;
    uint32_t event; /* number in the frame, for the side records */
    size_t raw;     /* bytes of this event so far */
};

/*
 * Escape data for the inside of a JSON string. Returns the bytes consumed: up to three are left
 * when they begin a character that may go on, unless is_last.
 */
size_t cast_escape(struct cast_out *out, const uint8_t *data, size_t len, bool is_last);

/* 1 to 3 bytes that are the beginning of one character and nothing else. */
bool cast_is_partial(const uint8_t *data, size_t len);

void side_log_event_end(struct side_log *side);
void side_log_stderr(struct side_log *side, uint32_t event);
void side_log_author(struct side_log *side, uint32_t event, const char *author, size_t len);

/* `, "key": "text"`, nothing for an empty text; returns the new end. */
uint8_t *cast_member(uint8_t *dst, const char *key, const char *text);

/* `[1.234, "o", "`; returns the new end. */
uint8_t *cast_event_begin(uint8_t *dst, int64_t ms, char code);
uint8_t *cast_event_end(uint8_t *dst);

/* The header line with newline; malloc'd, NULL: out of memory. */
uint8_t *cast_header(const struct recording_head *head, size_t *len);

struct cast_event {
    int64_t ms;
    char code;
    size_t len;
};

/* Parse one event line without its newline; the text is unescaped into data (line length bytes are
 * always enough). False: malformed. */
bool cast_parse_event(struct cursor line, struct cast_event *e, uint8_t *data, size_t data_cap);
/* "80x24", clamped. */
bool cast_parse_size(const uint8_t *data, size_t len, uint16_t *cols, uint16_t *rows);

/* ---- segment.c: the writing end of the container ---- */

#define SEGMENT_SIDE_BYTES (128 * 1024)

struct frame_memory;
struct ZSTD_CCtx_s;

struct segment_writer {
    int fd;
    int failed; /* errno; 0: good */
    bool is_closed;
    struct container_head head;
    recording_frame_fn on_frame;
    void *arg;

    /* time */
    bool is_started;
    int64_t start_ms; /* of the first event, on the caller's clock */
    int64_t last_ms;  /* of the last one, since then */

    /* the chain */
    uint64_t sequence; /* of the last frame written */
    uint64_t file_len;
    uint8_t chain[RECORDING_CHAIN_LEN];

    /* the open frame */
    struct frame_memory *m;
    size_t m_len;
    struct ZSTD_CCtx_s *compressor; /* in the mapping; NULL until its first frame */
    bool is_open;
    int64_t opened_ms;
    int64_t kept_until_ms; /* no frame open, mapping kept until then */
    int64_t opened_wall_us;
    int level;         /* of the compressor, as the caller wants it */
    uint8_t *plain;    /* RECORDING_FRAME_BYTES, while there is memory: the caller writes here, */
    size_t plain_len;  /* and counts, */
    size_t packed_len; /* of the last frame, compressed */
    uint32_t event_count;
    struct side_log side;
};

/* fd is owned from here. */
void segment_init(struct segment_writer *w, int fd, const struct container_head *head,
                  recording_frame_fn on_frame, void *arg);
void segment_finish(struct segment_writer *w); /* closes the descriptor */
void segment_release(struct segment_writer *w);
/* Returns ERR_SYSTEM, with errno. */
int segment_fail(struct segment_writer *w, int error);
/* Whether anything may still be written; 0 or ERR_SYSTEM. */
MUST_CHECK int segment_check(struct segment_writer *w);
/* Milliseconds since the first event; never goes back. */
int64_t segment_time(struct segment_writer *w, int64_t now_ms);
MUST_CHECK int segment_open(struct segment_writer *w, int64_t now_ms);
/* Put the whole segment together, hash it and write it. The frame is over afterwards; it must have
 * been open. */
MUST_CHECK int segment_write(struct segment_writer *w, const struct container_end *end);
/* The same for a frame that is full: its memory waits for the next one. */
MUST_CHECK int segment_write_full(struct segment_writer *w, int64_t now_ms);
bool segment_is_old(const struct segment_writer *w, int64_t now_ms);
/* Milliseconds until there is something to do, -1: nothing. Gives memory back that was kept. */
int64_t segment_due(struct segment_writer *w, int64_t now_ms);

/* ---- input.c ---- */

#define ECHO_HELD_MAX   4096
#define ECHO_PENDING_MS 5000

struct echo;

/* NULL: no memory. */
struct echo *echo_create(void);
void echo_destroy(struct echo *e);

/* What was typed. */
void echo_input(struct echo *e, const uint8_t *data, size_t len, int64_t now_ms);
/*
 * Follow output. Stops behind each line feed that decides a typed line; returns the bytes consumed.
 * When the line came back, *line (borrowed until the next call) and *line_len are set, else *line
 * is NULL.
 */
size_t echo_output(struct echo *e, const uint8_t *data, size_t len, const uint8_t **line,
                   size_t *line_len);
/* Throw away what waited too long. Returns the milliseconds until there is more to do, or -1. */
int64_t echo_tick(struct echo *e, int64_t now_ms);

/* ---- reader.c ---- */

/* As recording_reader_open, on a descriptor that is owned from here, also on failure. */
struct recording_reader *recording_reader_open_fd(int fd, char *err, size_t err_len);

#endif
