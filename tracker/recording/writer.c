/*
 * The writer of a terminal's recording: gathers events as asciicast text in the open frame of
 * segment.c, with side records for what asciicast cannot hold. Frames are closed when they are full
 * or old. It runs in the relay; a failed write is final.
 */
#include "tracker/recording/recording_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEVEL       1
#define FLOOD_MS    100 /* a frame that fills faster than this is compressed in haste */
#define FLOOD_LEVEL (-1)
#define TYPED_MAX   1024 /* of one event of what somebody else typed */
#define CHUNK_MIN   2048 /* less room than for this much data: close the frame */
#define CAP_NOTICE  "output over the cap is not recorded"

enum stream_id { STREAM_OUTPUT, STREAM_STDERR, STREAM_INPUT, STREAM_COUNT };

static const char stream_codes[STREAM_COUNT] = {'o', 'o', 'i'};

struct stream {
    uint8_t held[4]; /* the beginning of a character, at most 3 bytes */
    size_t held_len;
    uint64_t bytes; /* recorded */
    uint64_t unrecorded;
};

struct recording_writer {
    struct segment_writer seg;
    bool has_pty;
    uint8_t *header; /* the asciicast header line, until the first frame took it */
    size_t header_len;
    enum policy_input input;
    struct echo *echo;
    struct stream streams[STREAM_COUNT];
    bool is_over_cap;

    /* the open event, of which the closing quote is not written yet */
    bool is_event_open;
    enum stream_id event_stream;
    int64_t event_ms;
    size_t event_raw;
};

struct recording_writer *recording_writer_create(int fd, const struct recording_head *head,
                                                 enum policy_input input,
                                                 recording_frame_fn on_frame, void *arg)
{
    struct recording_writer *w = calloc(1, sizeof(*w));
    struct recording_head h = *head;
    struct container_head segments;

    if (!w) {
        close(fd);
        return NULL;
    }
    if (!h.has_pty || h.cols == 0 || h.rows == 0) {
        h.cols = 80;
        h.rows = 24;
    }
    w->has_pty = h.has_pty;
    w->input = input;
    segments = (struct container_head){
        .flags = h.has_pty ? CONTAINER_PTY : 0,
        .session_id = h.session_id,
        .channel = h.channel,
        .started_wall_us = h.started_wall_us,
        .cols = h.cols,
        .rows = h.rows,
    };
    segment_init(&w->seg, fd, &segments, on_frame, arg);
    w->header = cast_header(&h, &w->header_len);
    if (input == INPUT_ECHOED && h.has_pty)
        w->echo = echo_create();
    if (!w->header || (input == INPUT_ECHOED && h.has_pty && !w->echo)) {
        recording_writer_destroy(w);
        return NULL;
    }
    return w;
}

void recording_writer_destroy(struct recording_writer *w)
{
    if (!w)
        return;
    segment_finish(&w->seg);
    echo_destroy(w->echo);
    free(w->header);
    free(w);
}

/* Every public call begins here. */
static int check_usable(struct recording_writer *w)
{
    return segment_check(&w->seg);
}

/* ---- the frame ---- */

static int frame_open(struct recording_writer *w, int64_t now_ms)
{
    if (segment_open(&w->seg, now_ms) < 0)
        return ERR_SYSTEM;
    if (w->header) {
        if (w->header_len > RECORDING_FRAME_BYTES / 2)
            return segment_fail(&w->seg, E2BIG);
        memcpy(w->seg.plain, w->header, w->header_len);
        w->seg.plain_len = w->header_len;
        free(w->header);
        w->header = NULL;
    }
    return 0;
}

static void event_end(struct recording_writer *w)
{
    if (!w->is_event_open)
        return;
    w->seg.plain_len = (size_t)(cast_event_end(w->seg.plain + w->seg.plain_len) - w->seg.plain);
    side_log_event_end(&w->seg.side);
    w->seg.event_count++;
    w->is_event_open = false;
}

static void event_begin(struct recording_writer *w, char code, int64_t ms)
{
    uint8_t *at = w->seg.plain + w->seg.plain_len;

    w->seg.plain_len = (size_t)(cast_event_begin(at, ms, code) - w->seg.plain);
    w->event_raw = 0;
    w->is_event_open = true;
}

static size_t event_escape(struct recording_writer *w, const uint8_t *data, size_t len,
                           bool is_last)
{
    struct cast_out out = {
        .at = w->seg.plain + w->seg.plain_len,
        .side = &w->seg.side,
        .event = w->seg.event_count,
        .raw = w->event_raw,
    };
    size_t used = cast_escape(&out, data, len, is_last);

    w->seg.plain_len = (size_t)(out.at - w->seg.plain);
    w->event_raw = out.raw;
    return used;
}

/* How much data the open frame can surely take in one more event. */
static size_t frame_room(const struct recording_writer *w)
{
    size_t plain = RECORDING_FRAME_BYTES - w->seg.plain_len;
    size_t side = SEGMENT_SIDE_BYTES - w->seg.side.len;

    plain =
        plain > 2 * CAST_EVENT_OVERHEAD ? (plain - 2 * CAST_EVENT_OVERHEAD) / CAST_ESCAPE_MAX : 0;
    side = side > CAST_SIDE_MAX(0) ? (side - CAST_SIDE_MAX(0)) / 2 : 0;
    return plain < side ? plain : side;
}

/* Nobody reads text that comes so fast; what counts is that it comes. */
static bool is_flood(const struct recording_writer *w)
{
    return w->seg.plain_len > RECORDING_FRAME_BYTES / 2 &&
           w->seg.start_ms + w->seg.last_ms - w->seg.opened_ms < FLOOD_MS;
}

static int frame_write(struct recording_writer *w, const struct container_end *end)
{
    w->seg.level = is_flood(w) ? FLOOD_LEVEL : LEVEL;
    return segment_write(&w->seg, end);
}

/* The frame is full. Begun characters wait for the next one, and so does the mapping. */
static int frame_close_full(struct recording_writer *w, int64_t now_ms)
{
    event_end(w);
    w->seg.level = is_flood(w) ? FLOOD_LEVEL : LEVEL;
    return segment_write_full(&w->seg, now_ms);
}

static int frame_need(struct recording_writer *w, int64_t now_ms)
{
    if (w->seg.is_open && frame_room(w) < CHUNK_MIN && frame_close_full(w, now_ms) < 0)
        return ERR_SYSTEM;
    return w->seg.is_open ? 0 : frame_open(w, now_ms);
}

/* Have an event of that stream open, with room for *room bytes of data. */
static int event_need(struct recording_writer *w, enum stream_id id, int64_t now_ms, size_t *room)
{
    int64_t ms;

    if (frame_need(w, now_ms) < 0)
        return ERR_SYSTEM;
    ms = segment_time(&w->seg, now_ms);
    if (w->is_event_open && (w->event_stream != id || w->event_ms != ms ||
                             w->event_raw + sizeof(w->streams[id].held) >= CAST_EVENT_MAX))
        event_end(w);
    if (!w->is_event_open) {
        if (id == STREAM_STDERR)
            side_log_stderr(&w->seg.side, w->seg.event_count);
        event_begin(w, stream_codes[id], ms);
        w->event_stream = id;
        w->event_ms = ms;
    }
    *room = frame_room(w);
    if (*room > CAST_EVENT_MAX - w->event_raw)
        *room = CAST_EVENT_MAX - w->event_raw;
    return 0;
}

/* The pieces of characters that were held back go out as exact bytes. */
static int flush_held(struct recording_writer *w, int64_t now_ms)
{
    for (size_t id = 0; id < STREAM_COUNT; id++) {
        struct stream *s = &w->streams[id];
        size_t room;

        if (s->held_len == 0)
            continue;
        if (event_need(w, (enum stream_id)id, now_ms, &room) < 0)
            return ERR_SYSTEM;
        (void)event_escape(w, s->held, s->held_len, true);
        s->held_len = 0;
    }
    return 0;
}

/* The frame is old, or the recording ends. */
static int frame_close_old(struct recording_writer *w, int64_t now_ms)
{
    if (flush_held(w, now_ms) < 0)
        return ERR_SYSTEM;
    event_end(w);
    if (frame_write(w, NULL) < 0)
        return ERR_SYSTEM;
    segment_release(&w->seg);
    return 0;
}

static int frame_close_if_old(struct recording_writer *w, int64_t now_ms)
{
    return segment_is_old(&w->seg, now_ms) ? frame_close_old(w, now_ms) : 0;
}

/* ---- events ---- */

/* Everything so far is still only the beginning of a character: no event for that. */
static bool hold_back(struct stream *s, const uint8_t *data, size_t len)
{
    uint8_t joined[sizeof(s->held)];

    if (s->held_len + len >= sizeof(joined))
        return false;
    memcpy(joined, s->held, s->held_len);
    memcpy(joined + s->held_len, data, len);
    if (!cast_is_partial(joined, s->held_len + len))
        return false;
    s->held_len += len;
    memcpy(s->held, joined, s->held_len);
    return true;
}

/* Complete the character that the stream's last data began; returns the bytes used of data. */
static size_t join_held(struct recording_writer *w, struct stream *s, const uint8_t *data,
                        size_t len)
{
    uint8_t joined[8];
    size_t more = len < 3 ? len : 3, used, was = s->held_len;

    memcpy(joined, s->held, was);
    memcpy(joined + was, data, more);
    used = event_escape(w, joined, was + more, false);
    if (used == 0) { /* still only a beginning, and all of data is in it */
        memcpy(s->held, joined, was + more);
        s->held_len = was + more;
        return more;
    }
    s->held_len = 0; /* a beginning is never used in part */
    return used - was;
}

static int put_stream(struct recording_writer *w, enum stream_id id, const uint8_t *data,
                      size_t len, int64_t now_ms)
{
    struct stream *s = &w->streams[id];

    if (len > 0 && hold_back(s, data, len))
        return frame_need(w, now_ms); /* so that the frame's age lets it out */
    while (len > 0) {
        size_t room, n, used;

        if (event_need(w, id, now_ms, &room) < 0)
            return ERR_SYSTEM;
        if (s->held_len > 0) {
            used = join_held(w, s, data, len);
        } else {
            n = len < room ? len : room;
            used = event_escape(w, data, n, false);
            if (used < n && n - used <= 3 && n == len) { /* ends within a character */
                memcpy(s->held, data + used, n - used);
                s->held_len = n - used;
                used = n;
            } else if (used == 0) { /* the event's end is within a character: to the next one */
                event_end(w);
            }
        }
        data += used;
        len -= used;
    }
    return 0;
}

static int put_event(struct recording_writer *w, char code, const char *text, size_t len,
                     int64_t now_ms)
{
    if (frame_need(w, now_ms) < 0)
        return ERR_SYSTEM;
    event_end(w);
    if (len > frame_room(w))
        len = frame_room(w);
    event_begin(w, code, segment_time(&w->seg, now_ms));
    (void)event_escape(w, (const uint8_t *)text, len, true);
    event_end(w);
    return 0;
}

/* How much of len a channel without a pty may still record; the rest is counted. */
static int apply_cap(struct recording_writer *w, enum stream_id id, size_t *len, int64_t now_ms)
{
    uint64_t used = id == STREAM_INPUT
                        ? w->streams[STREAM_INPUT].bytes
                        : w->streams[STREAM_OUTPUT].bytes + w->streams[STREAM_STDERR].bytes;
    size_t over;

    if (w->has_pty || *len <= RECORDING_EXEC_CAP - used)
        return 0;
    over = *len - (size_t)(RECORDING_EXEC_CAP - used);
    *len -= over;
    w->streams[id].unrecorded += over;
    if (w->is_over_cap || id == STREAM_INPUT)
        return 0;
    w->is_over_cap = true;
    return put_event(w, 'm', CAP_NOTICE, strlen(CAP_NOTICE), now_ms);
}

static int put_echoed(struct recording_writer *w, const uint8_t *data, size_t len, int64_t now_ms)
{
    const uint8_t *line;
    size_t line_len;

    while (len > 0) {
        size_t n = echo_output(w->echo, data, len, &line, &line_len);

        if (line) {
            w->streams[STREAM_INPUT].bytes += line_len;
            if (put_stream(w, STREAM_INPUT, line, line_len, now_ms) < 0)
                return ERR_SYSTEM;
            event_end(w); /* each line is an event */
        }
        data += n;
        len -= n;
    }
    return 0;
}

int recording_output(struct recording_writer *w, const void *data, size_t len, bool is_stderr,
                     int64_t now_ms)
{
    enum stream_id id = is_stderr ? STREAM_STDERR : STREAM_OUTPUT;

    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    if (len > 0 && w->echo && put_echoed(w, data, len, now_ms) < 0)
        return ERR_SYSTEM;
    if (apply_cap(w, id, &len, now_ms) < 0)
        return ERR_SYSTEM;
    if (len == 0)
        return 0;
    w->streams[id].bytes += len;
    return put_stream(w, id, data, len, now_ms);
}

int recording_input(struct recording_writer *w, const void *data, size_t len, int64_t now_ms)
{
    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    if (w->echo)
        echo_input(w->echo, data, len, now_ms);
    if (w->input != INPUT_ALL || apply_cap(w, STREAM_INPUT, &len, now_ms) < 0)
        return w->seg.failed ? ERR_SYSTEM : 0;
    w->streams[STREAM_INPUT].bytes += len;
    return put_stream(w, STREAM_INPUT, data, len, now_ms);
}

int recording_typed(struct recording_writer *w, const char *author, const void *data, size_t len,
                    int64_t now_ms)
{
    const uint8_t *at = data;
    size_t name_len = strnlen(author, RECORDING_AUTHOR_MAX);

    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    w->streams[STREAM_INPUT].bytes += len;
    while (len > 0) {
        size_t n = len < TYPED_MAX ? len : TYPED_MAX;

        if (frame_need(w, now_ms) < 0)
            return ERR_SYSTEM;
        if (frame_room(w) < n + RECORDING_AUTHOR_MAX &&
            (frame_close_full(w, now_ms) < 0 || frame_open(w, now_ms) < 0))
            return ERR_SYSTEM;
        event_end(w);
        side_log_author(&w->seg.side, w->seg.event_count, author, name_len);
        event_begin(w, 'i', segment_time(&w->seg, now_ms));
        (void)event_escape(w, at, n, true);
        event_end(w);
        at += n;
        len -= n;
    }
    return 0;
}

int recording_flush(struct recording_writer *w, int64_t now_ms, struct recording_position *out)
{
    const struct stream *s = &w->streams[STREAM_OUTPUT];

    if (check_usable(w) < 0 || (w->seg.is_open && frame_close_full(w, now_ms) < 0))
        return ERR_SYSTEM;
    out->sequence = w->seg.sequence;
    out->file_len = w->seg.file_len;
    out->held_len = s->held_len;
    memcpy(out->held, s->held, s->held_len);
    return 0;
}

int recording_resize(struct recording_writer *w, uint16_t cols, uint16_t rows, int64_t now_ms)
{
    char text[16], *to = text + sizeof(text);

    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    do
        *--to = (char)('0' + rows % 10);
    while ((rows = (uint16_t)(rows / 10)) > 0);
    *--to = 'x';
    do
        *--to = (char)('0' + cols % 10);
    while ((cols = (uint16_t)(cols / 10)) > 0);
    return put_event(w, 'r', to, (size_t)(text + sizeof(text) - to), now_ms);
}

int recording_notice(struct recording_writer *w, const char *text, int64_t now_ms)
{
    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    return put_event(w, 'm', text, strnlen(text, CHUNK_MIN), now_ms);
}

int recording_tick(struct recording_writer *w, int64_t now_ms, int64_t *due_ms)
{
    int64_t echo_due;

    *due_ms = -1;
    if (check_usable(w) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    *due_ms = segment_due(&w->seg, now_ms);
    echo_due = w->echo ? echo_tick(w->echo, now_ms) : -1;
    if (echo_due >= 0 && (*due_ms < 0 || echo_due < *due_ms))
        *due_ms = echo_due;
    return 0;
}

int recording_close(struct recording_writer *w, const char *reason, int64_t now_ms)
{
    struct container_end end = {0};

    if (check_usable(w) < 0)
        return ERR_SYSTEM;
    if (flush_held(w, now_ms) < 0 || (!w->seg.is_open && frame_open(w, now_ms) < 0))
        return ERR_SYSTEM;
    event_end(w);
    end.duration_ms = (uint64_t)segment_time(&w->seg, now_ms);
    end.output_bytes = w->streams[STREAM_OUTPUT].bytes;
    end.stderr_bytes = w->streams[STREAM_STDERR].bytes;
    end.output_unrecorded = w->streams[STREAM_OUTPUT].unrecorded;
    end.stderr_unrecorded = w->streams[STREAM_STDERR].unrecorded;
    memcpy(end.reason, reason, strnlen(reason, sizeof(end.reason) - 1));
    if (frame_write(w, &end) < 0)
        return ERR_SYSTEM;
    w->seg.is_closed = true;
    segment_release(&w->seg);
    return 0;
}
