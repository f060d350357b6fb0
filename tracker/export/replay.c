/*
 * See replay.h. Time is cut into ticks of 40 ms: when something was sent in a tick, the decoder is
 * asked at its end whether that drew anything. A recording that stands still costs nothing.
 */
#include "tracker/export/replay.h"

#include <stdio.h>
#include <string.h>

#include "tracker/export/server.h"

struct state {
    const struct replay *r;
    struct server *server;
    struct shot screens[2]; /* the newest, and the one before */
    unsigned newest;
    bool has_picture;
    uint64_t picture_us; /* when the newest came */
    bool is_due;         /* something came that may have drawn */
    uint64_t due_us;
    uint16_t x, y; /* of the pointer */
    bool has_pointer, has_moved;
    uint64_t number; /* of the record */
    uint64_t at_us;  /* of the record */
};

static uint64_t tick_after(uint64_t at_us)
{
    return (at_us / REPLAY_TICK_US + 1) * REPLAY_TICK_US;
}

static void draw_pointer(const struct state *s, struct shot *screen)
{
    struct decoder_pointer pointer;

    if (!s->has_pointer)
        return;
    decoder_pointer(s->r->decoder, &pointer);
    shot_draw(screen, &pointer, s->x, s->y);
}

/* The desktop is at rest: give it out, if it changed. */
static int take(struct state *s, uint64_t at_us)
{
    bool has_changed = decoder_take_change(s->r->decoder);
    struct decoder_screen seen;
    unsigned next = s->newest ^ 1u;
    uint64_t before_us = s->picture_us;
    int r;

    if (decoder_take_position(s->r->decoder, &s->x, &s->y))
        s->has_moved = s->has_pointer = true;
    if ((!has_changed && !s->has_moved) || !decoder_screen(s->r->decoder, &seen))
        return 0;
    r = shot_copy(&s->screens[next], &seen);
    if (r < 0)
        return r;
    draw_pointer(s, &s->screens[next]);
    s->has_moved = false;
    r = s->r->on_picture(s->r->arg, at_us, &s->screens[next], before_us,
                         s->has_picture ? &s->screens[s->newest] : NULL);
    s->newest = next;
    s->has_picture = true;
    s->picture_us = at_us;
    return r;
}

/* now_us: how far time went; nothing comes before that. */
static int sample(struct state *s, uint64_t at_us, uint64_t now_us)
{
    int r;

    if (!server_can_sync(s->server)) { /* in the middle of something: look again later */
        s->due_us = tick_after(now_us);
        return 0;
    }
    s->is_due = false;
    r = server_sync(s->server);
    return r < 0 ? r : take(s, at_us);
}

static void expect(struct state *s, uint64_t at_us)
{
    if (s->is_due)
        return;
    s->is_due = true;
    s->due_us = tick_after(at_us);
}

static void on_input(struct state *s, const struct desktop_record *record)
{
    struct cursor body = record->body;
    struct desktop_input input;

    while (desktop_input_next(&body, &input) == PARSE_OK) {
        if (input.kind != DESKTOP_INPUT_MOVE && input.kind != DESKTOP_INPUT_BUTTON)
            continue;
        if (s->has_pointer && input.x == s->x && input.y == s->y)
            continue;
        s->x = input.x;
        s->y = input.y;
        s->has_pointer = s->has_moved = true;
        expect(s, record->at_us);
    }
}

static int on_record(struct state *s, const struct desktop_record *record)
{
    switch (record->type) {
    case DESKTOP_TARGET:
        if (s->number < s->r->scan->restart_record && s->r->from_us > 0)
            return 0;
        expect(s, record->at_us);
        return server_feed(s->server, record->body);
    case DESKTOP_INPUT:
        on_input(s, record);
        return 0;
    default:
        return 0;
    }
}

static int feed_all(struct state *s)
{
    const struct replay *r = s->r;
    struct desktop_record record;
    int n = 0, e = 0;

    while (e == 0 && (n = recording_reader_next_record(r->reader, &record)) > 0) {
        if (record.at_us > r->until_us)
            break;
        while (e == 0 && s->is_due && record.at_us >= s->due_us)
            e = sample(s, s->due_us, record.at_us);
        if (e == 0)
            e = on_record(s, &record);
        s->number++;
        s->at_us = record.at_us;
        r->on_progress(r->arg, record.at_us);
    }
    return e < 0 ? e : n < 0 ? n : 0;
}

/* Why decoding stopped before its end. */
static void explain(int code, const struct state *s, char *err, size_t err_len)
{
    unsigned at_s = (unsigned)(s->at_us / 1000000);

    if (code == ERR_CLOSED || code == ERR_BUSY)
        snprintf(err, err_len,
                 "what was sent at %02u:%02u:%02u cannot be decoded: it is damaged, or of a kind "
                 "that the FreeRDP library does not know",
                 at_s / 3600, at_s / 60 % 60, at_s % 60);
    else
        snprintf(err, err_len, "%s", error_text(code));
}

static int run(struct state *s)
{
    const struct scan *scan = s->r->scan;
    bool is_restart = s->r->from_us > 0;
    int e = decoder_start(s->r->decoder, is_restart ? scan->restart_width : scan->first_width,
                          is_restart ? scan->restart_height : scan->first_height);

    if (e == 0)
        e = server_connect(s->server);
    if (e == 0)
        e = feed_all(s);
    if (e == 0 && s->is_due && server_can_sync(s->server))
        e = sample(s, s->at_us, s->at_us);
    return e;
}

static int finish(struct state *s, bool is_early)
{
    uint64_t end_us = s->r->scan->end_us < s->r->until_us ? s->r->scan->end_us : s->r->until_us;

    if (is_early && s->at_us < end_us)
        end_us = s->at_us;
    if (end_us < s->picture_us)
        end_us = s->picture_us;
    return s->r->on_end(s->r->arg, s->picture_us, &s->screens[s->newest], end_us);
}

int replay_run(const struct replay *r, char *err, size_t err_len)
{
    struct state s = {.r = r};
    bool is_early;
    int e;

    err[0] = '\0';
    s.server = server_create(r->fd, r->decoder, &r->scan->channels);
    e = s.server ? run(&s) : ERR_MEMORY;
    is_early = e == ERR_CLOSED || e == ERR_BUSY;
    if (e < 0)
        explain(e, &s, err, err_len);
    if (is_early && s.has_picture)
        e = 0;
    if (e == 0 && !s.has_picture) {
        snprintf(err, err_len, "nothing is on the screen yet at that time");
        e = ERR_NOT_FOUND;
    }
    return e < 0 ? e : finish(&s, is_early);
}
