/*
 * Chunks of static virtual channels; see chunks.h. channels.c calls it where policy is less than
 * everything.
 */
#include "proxy/rdp/chunks.h"

#include "proxy/rdp/le.h"

#define CHUNK_FIRST  0x00000001u
#define CHUNK_LAST   0x00000002u
#define CHUNK_SHOWN  0x00000010u /* CHANNEL_FLAG_SHOW_PROTOCOL: heads stay on */
#define CHUNK_PACKED 0x00200000u

void chunks_init(struct chunks *c)
{
    c->state = CHUNKS_IDLE;
    buffer_init(&c->held, CHUNKS_HELD_MAX);
}

void chunks_finish(struct chunks *c)
{
    buffer_finish(&c->held);
    c->state = CHUNKS_IDLE;
}

static enum chunks_verdict skip(struct chunks *c, bool is_last)
{
    c->state = is_last ? CHUNKS_IDLE : CHUNKS_DROPPING;
    return CHUNKS_DROP;
}

static enum chunks_verdict begin(struct chunks *c, struct cursor data, bool is_last,
                                 chunks_judge_fn judge, struct cursor *whole)
{
    enum chunks_verdict v = judge(data, is_last);

    if (v == CHUNKS_DROP)
        return skip(c, is_last);
    if (v == CHUNKS_PASS) {
        c->state = is_last ? CHUNKS_IDLE : CHUNKS_PASSING;
        return CHUNKS_PASS;
    }
    c->state = is_last ? CHUNKS_IDLE : CHUNKS_HOLDING;
    *whole = data;
    if (is_last)
        return CHUNKS_WHOLE;
    buffer_reset(&c->held);
    buffer_put(&c->held, data.at, cursor_left(&data));
    return c->held.failed ? skip(c, false) : CHUNKS_DROP;
}

static enum chunks_verdict go_on(struct chunks *c, struct cursor data, bool is_last,
                                 struct cursor *whole)
{
    if (c->state == CHUNKS_PASSING) {
        c->state = is_last ? CHUNKS_IDLE : CHUNKS_PASSING;
        return CHUNKS_PASS;
    }
    if (c->state != CHUNKS_HOLDING) /* the middle of nothing, or of what is not wanted */
        return skip(c, is_last || c->state == CHUNKS_IDLE);
    buffer_put(&c->held, data.at, cursor_left(&data));
    if (c->held.failed)
        return skip(c, is_last);
    if (!is_last)
        return CHUNKS_DROP;
    c->state = CHUNKS_IDLE;
    *whole = cursor_of(c->held.data, c->held.len);
    return CHUNKS_WHOLE;
}

enum chunks_verdict chunks_take(struct chunks *c, struct cursor data, chunks_judge_fn judge,
                                struct cursor *whole)
{
    uint32_t total, flags;
    bool is_last;

    if (!cursor_le32(&data, &total) || !cursor_le32(&data, &flags))
        return CHUNKS_DROP;
    is_last = flags & CHUNK_LAST;
    /* nobody was told that he may compress */
    if (flags & CHUNK_PACKED || (flags & CHUNK_FIRST && c->state != CHUNKS_IDLE))
        return skip(c, is_last);
    return flags & CHUNK_FIRST ? begin(c, data, is_last, judge, whole)
                               : go_on(c, data, is_last, whole);
}

void chunks_put(struct buffer *b, enum mcs_type type, uint16_t user, uint16_t channel,
                struct cursor message)
{
    uint32_t total = (uint32_t)cursor_left(&message), flags = CHUNK_FIRST | CHUNK_SHOWN;
    struct buffer piece;
    struct cursor part;

    buffer_init(&piece, CHUNKS_PIECE + 8);
    do {
        size_t left = cursor_left(&message), len = left < CHUNKS_PIECE ? left : CHUNKS_PIECE;

        buffer_reset(&piece);
        buffer_put_le32(&piece, total);
        buffer_put_le32(&piece, len == left ? flags | CHUNK_LAST : flags);
        if (cursor_sub(&message, len, &part))
            buffer_put(&piece, part.at, len);
        mcs_data_put(b, type, user, channel, piece.data, piece.len);
        b->failed |= piece.failed;
        flags = CHUNK_SHOWN;
    } while (!cursor_at_end(&message) && !b->failed);
    buffer_finish(&piece);
}
