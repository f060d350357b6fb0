/*
 * The writer of a desktop's recording: puts records into the open frame of segment.c, whole ones
 * only, and closes it when the next one does not fit or it is old. Pictures come compressed already
 * and many of them: how hard the frames are compressed follows from how fast they come and what it
 * brought. It runs in the relay; a failed write is final.
 */
#include "tracker/recording/desktop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tracker/recording/recording_priv.h"

#define US_PER_MS   1000
#define CALM_LEVEL  1
#define BUSY_LEVEL  (-1)
#define FLOOD_LEVEL (-7)
#define FLOOD_MS    60 /* a frame that fills faster than this is compressed in haste */
#define BUSY_MS     600

struct desktop_writer {
    struct segment_writer seg;
    char *facts; /* until the first frame took them */
    size_t facts_len;
    bool has_begun;
    int64_t start_us;
    uint64_t last_us;
    uint64_t bytes; /* of TARGET records */
};

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* The JSON of the FACTS record. */
static char *make_facts(const struct desktop_head *h, size_t *len)
{
    const struct {
        const char *key, *text;
    } texts[] = {
        {"user", or_empty(h->user)},
        {"account", or_empty(h->account)},
        {"target", or_empty(h->target)},
        {"client", or_empty(h->client)},
        {"clientSecurity", or_empty(h->client_security)},
        {"targetSecurity", or_empty(h->target_security)},
        {"input", h->input == INPUT_ALL ? "all" : "kinds"},
    };
    size_t room = 512, count = sizeof(texts) / sizeof(texts[0]);
    uint8_t *text, *to;
    int n;

    for (size_t i = 0; i < count; i++)
        room += CAST_ESCAPE_MAX * strlen(texts[i].text) + 64;
    text = malloc(room);
    if (!text)
        return NULL;
    n = snprintf((char *)text, room,
                 "{\"protocol\": \"rdp\", \"session\": \"%" PRIu64 "\", \"channel\": %" PRIu32
                 ", \"timestamp\": %" PRId64
                 ", \"width\": %u, \"height\": %u, \"bpp\": %u, \"build\": %" PRIu32,
                 h->session_id, h->channel, h->started_wall_us / 1000000, h->width, h->height,
                 h->bpp, h->build);
    to = text + n;
    for (size_t i = 0; i < count; i++)
        to = cast_member(to, texts[i].key, texts[i].text);
    *to++ = '}';
    *len = (size_t)(to - text);
    return (char *)text;
}

struct desktop_writer *desktop_writer_create(int fd, const struct desktop_head *head,
                                             recording_frame_fn on_frame, void *arg)
{
    struct desktop_writer *w = calloc(1, sizeof(*w));
    struct container_head h = {
        .flags = CONTAINER_DESKTOP,
        .session_id = head->session_id,
        .channel = head->channel,
        .started_wall_us = head->started_wall_us,
        .cols = head->width,
        .rows = head->height,
    };
    struct segment_writer seg;

    segment_init(&seg, fd, &h, on_frame, arg);
    if (!w) {
        segment_finish(&seg);
        return NULL;
    }
    w->seg = seg;
    w->facts = make_facts(head, &w->facts_len);
    if (w->facts && w->facts_len <= DESKTOP_BODY_MAX / 2)
        return w;
    desktop_writer_destroy(w);
    return NULL;
}

void desktop_writer_destroy(struct desktop_writer *w)
{
    if (!w)
        return;
    segment_finish(&w->seg);
    free(w->facts);
    free(w);
}

/* Microseconds since the first record; never goes back. */
static uint64_t record_time(struct desktop_writer *w, int64_t now_us)
{
    if (!w->has_begun) {
        w->has_begun = true;
        w->start_us = now_us;
    }
    if (now_us > w->start_us && (uint64_t)(now_us - w->start_us) > w->last_us)
        w->last_us = (uint64_t)(now_us - w->start_us);
    return w->last_us;
}

static void put(struct desktop_writer *w, enum desktop_type type, uint8_t flags, const void *body,
                size_t len, uint64_t at_us)
{
    uint8_t *to = w->seg.plain + w->seg.plain_len;

    to = desktop_put_head(to, type, flags, (uint32_t)len, at_us);
    memcpy(to, body, len);
    w->seg.plain_len += DESKTOP_HEAD_LEN + len;
    w->seg.event_count++;
}

/* ---- the frame ---- */

static int frame_open(struct desktop_writer *w, int64_t now_us)
{
    if (segment_open(&w->seg, now_us / US_PER_MS) < 0)
        return ERR_SYSTEM;
    if (w->facts) {
        put(w, DESKTOP_FACTS, 0, w->facts, w->facts_len, record_time(w, now_us));
        free(w->facts);
        w->facts = NULL;
    }
    return 0;
}

/* Video does not become smaller, and what comes fast has to be gone fast. */
static void choose_level(struct desktop_writer *w)
{
    int64_t took_ms = w->seg.start_ms + w->seg.last_ms - w->seg.opened_ms;
    bool is_large = w->seg.plain_len > RECORDING_FRAME_BYTES / 4;

    w->seg.level = !is_large || took_ms >= BUSY_MS ? CALM_LEVEL
                   : took_ms >= FLOOD_MS           ? BUSY_LEVEL
                                                   : FLOOD_LEVEL;
}

static int frame_close(struct desktop_writer *w, const struct container_end *end)
{
    choose_level(w);
    return segment_write(&w->seg, end);
}

static int frame_close_if_old(struct desktop_writer *w, int64_t now_ms)
{
    if (!segment_is_old(&w->seg, now_ms))
        return 0;
    if (frame_close(w, NULL) < 0)
        return ERR_SYSTEM;
    segment_release(&w->seg);
    return 0;
}

/* Have a frame open with room for a record of so many bytes. */
static int frame_need(struct desktop_writer *w, size_t len, int64_t now_us)
{
    size_t need = DESKTOP_HEAD_LEN + len;

    if (len > DESKTOP_BODY_MAX)
        return segment_fail(&w->seg, E2BIG);
    for (int tries = 0; tries < 2; tries++) { /* the facts may fill the first one */
        if (!w->seg.is_open && frame_open(w, now_us) < 0)
            return ERR_SYSTEM;
        if (need <= RECORDING_FRAME_BYTES - w->seg.plain_len)
            return 0;
        choose_level(w);
        if (segment_write_full(&w->seg, now_us / US_PER_MS) < 0)
            return ERR_SYSTEM;
    }
    return frame_open(w, now_us);
}

/* ---- records ---- */

int desktop_write(struct desktop_writer *w, enum desktop_type type, uint8_t flags, const void *body,
                  size_t len, int64_t now_us)
{
    uint64_t at_us;

    if (segment_check(&w->seg) < 0)
        return ERR_SYSTEM;
    at_us = record_time(w, now_us);
    if (frame_close_if_old(w, now_us / US_PER_MS) < 0 || frame_need(w, len, now_us) < 0)
        return ERR_SYSTEM;
    (void)segment_time(&w->seg, now_us / US_PER_MS);
    put(w, type, flags, body, len, at_us);
    if (type == DESKTOP_TARGET)
        w->bytes += len;
    return 0;
}

int desktop_tick(struct desktop_writer *w, int64_t now_us, int64_t *due_ms)
{
    int64_t now_ms = now_us / US_PER_MS;

    *due_ms = -1;
    if (segment_check(&w->seg) < 0 || frame_close_if_old(w, now_ms) < 0)
        return ERR_SYSTEM;
    *due_ms = segment_due(&w->seg, now_ms);
    return 0;
}

int desktop_close(struct desktop_writer *w, const char *reason, int64_t now_us)
{
    struct container_end end = {0};

    if (segment_check(&w->seg) < 0 || (!w->seg.is_open && frame_open(w, now_us) < 0))
        return ERR_SYSTEM;
    end.duration_ms = (uint64_t)segment_time(&w->seg, now_us / US_PER_MS);
    end.output_bytes = w->bytes;
    memcpy(end.reason, reason, strnlen(reason, sizeof(end.reason) - 1));
    if (frame_close(w, &end) < 0)
        return ERR_SYSTEM;
    w->seg.is_closed = true;
    segment_release(&w->seg);
    return 0;
}
