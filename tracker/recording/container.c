/*
 * The layout of a recording's segments, byte by byte as FORMAT.md has it: writing the skippable
 * frames and parsing segments. Pure: no I/O, no allocation, no compression. The writer and the
 * reader call it; fuzz_recording feeds it.
 */
#include "tracker/recording/recording_priv.h"

#include <string.h>

#include <zstd.h>
#include <zstd_errors.h>

#define MAGIC_SKIPPABLE UINT32_C(0x184D2A50)
#define MAGIC_OURS      UINT32_C(0x184D2A5A)
#define TAG_LEN         4

static uint8_t *put_be(uint8_t *dst, uint64_t value, size_t bytes)
{
    for (size_t i = bytes; i-- > 0;)
        *dst++ = (uint8_t)(value >> (8 * i));
    return dst;
}

static uint8_t *put_bytes(uint8_t *dst, const void *data, size_t len)
{
    memcpy(dst, data, len);
    return dst + len;
}

static uint8_t *put_le32(uint8_t *dst, uint32_t value)
{
    for (size_t i = 0; i < 4; i++)
        *dst++ = (uint8_t)(value >> (8 * i));
    return dst;
}

static uint8_t *put_skippable(uint8_t *dst, const char *tag, size_t payload_len)
{
    dst = put_le32(dst, MAGIC_OURS);
    dst = put_le32(dst, (uint32_t)payload_len);
    return put_bytes(dst, tag, TAG_LEN);
}

uint8_t *container_put_head(uint8_t *dst, const struct container_head *h)
{
    dst = put_skippable(dst, "SPRC", CONTAINER_HEAD_LEN);
    dst = put_be(dst, CONTAINER_VERSION, 1);
    dst = put_be(dst, h->flags, 1);
    dst = put_be(dst, 0, 2);
    dst = put_be(dst, h->session_id, 8);
    dst = put_be(dst, h->channel, 4);
    dst = put_be(dst, (uint64_t)h->started_wall_us, 8);
    dst = put_be(dst, h->cols, 2);
    return put_be(dst, h->rows, 2);
}

uint8_t *container_put_side(uint8_t *dst, const uint8_t *records, size_t len)
{
    dst = put_skippable(dst, "SPRS", TAG_LEN + len);
    return put_bytes(dst, records, len);
}

uint8_t *container_put_end(uint8_t *dst, const struct container_end *e)
{
    size_t reason_len = strnlen(e->reason, sizeof(e->reason) - 1);

    dst = put_skippable(dst, "SPRE", 45 + reason_len);
    dst = put_be(dst, e->duration_ms, 8);
    dst = put_be(dst, e->output_bytes, 8);
    dst = put_be(dst, e->stderr_bytes, 8);
    dst = put_be(dst, e->output_unrecorded, 8);
    dst = put_be(dst, e->stderr_unrecorded, 8);
    dst = put_be(dst, reason_len, 1);
    return put_bytes(dst, e->reason, reason_len);
}

uint8_t *container_put_trailer(uint8_t *dst, const struct container_trailer *t)
{
    dst = put_skippable(dst, "SPRT", CONTAINER_TRAILER_LEN);
    dst = put_be(dst, t->sequence, 8);
    dst = put_be(dst, t->offset, 8);
    dst = put_be(dst, t->plain_len, 4);
    dst = put_be(dst, t->event_count, 4);
    dst = put_be(dst, t->first_ms, 8);
    dst = put_be(dst, t->last_ms, 8);
    return put_be(dst, (uint64_t)t->wall_us, 8);
}

uint8_t *container_put_hashes(uint8_t *dst, const struct container_trailer *t)
{
    dst = put_bytes(dst, t->hash, RECORDING_CHAIN_LEN);
    return put_bytes(dst, t->chain, RECORDING_CHAIN_LEN);
}

/* ---- parsing ---- */

static bool take_le32(struct cursor *c, uint32_t *out)
{
    const uint8_t *p;

    if (!cursor_take(c, 4, &p))
        return false;
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

/* Borrow n bytes and copy them out. */
static bool take_copy(struct cursor *c, uint8_t *dst, size_t n)
{
    const uint8_t *p;

    if (!cursor_take(c, n, &p))
        return false;
    memcpy(dst, p, n);
    return true;
}

static bool take_i64(struct cursor *c, int64_t *out)
{
    uint64_t v;

    if (!cursor_be64(c, &v))
        return false;
    *out = (int64_t)v;
    return true;
}

static bool take_tag(struct cursor *c, const char *tag)
{
    struct cursor copy = *c;
    const uint8_t *p;

    if (!cursor_take(&copy, TAG_LEN, &p) || memcmp(p, tag, TAG_LEN) != 0)
        return false;
    *c = copy;
    return true;
}

static bool is_skippable(uint32_t magic)
{
    return (magic & UINT32_C(0xFFFFFFF0)) == MAGIC_SKIPPABLE;
}

enum parse container_head(struct cursor c, struct container_head *out)
{
    uint8_t version;
    uint16_t zero;

    if (!take_tag(&c, "SPRC") || !cursor_u8(&c, &version) || version != CONTAINER_VERSION)
        return PARSE_BAD;
    if (!cursor_u8(&c, &out->flags) || !cursor_be16(&c, &zero) ||
        !cursor_be64(&c, &out->session_id) || !cursor_be32(&c, &out->channel) ||
        !take_i64(&c, &out->started_wall_us) || !cursor_be16(&c, &out->cols) ||
        !cursor_be16(&c, &out->rows))
        return PARSE_BAD;
    return PARSE_OK;
}

enum parse container_end(struct cursor c, struct container_end *out)
{
    uint8_t reason_len;
    const uint8_t *reason;

    if (!take_tag(&c, "SPRE") || !cursor_be64(&c, &out->duration_ms) ||
        !cursor_be64(&c, &out->output_bytes) || !cursor_be64(&c, &out->stderr_bytes) ||
        !cursor_be64(&c, &out->output_unrecorded) || !cursor_be64(&c, &out->stderr_unrecorded) ||
        !cursor_u8(&c, &reason_len) || !cursor_take(&c, reason_len, &reason))
        return PARSE_BAD;
    memcpy(out->reason, reason, reason_len);
    out->reason[reason_len] = '\0';
    return PARSE_OK;
}

static bool parse_trailer(struct cursor c, struct container_trailer *out)
{
    return take_tag(&c, "SPRT") && cursor_be64(&c, &out->sequence) &&
           cursor_be64(&c, &out->offset) && cursor_be32(&c, &out->plain_len) &&
           cursor_be32(&c, &out->event_count) && cursor_be64(&c, &out->first_ms) &&
           cursor_be64(&c, &out->last_ms) && take_i64(&c, &out->wall_us) &&
           take_copy(&c, out->hash, RECORDING_CHAIN_LEN) &&
           take_copy(&c, out->chain, RECORDING_CHAIN_LEN) && cursor_at_end(&c);
}

/* A payload of our own magic. PARSE_OK with out->len set: that was the trailer. */
static enum parse segment_part(struct cursor payload, struct container_segment *out, bool *is_last)
{
    struct cursor after_tag = payload;
    size_t len = cursor_left(&payload);

    if (take_tag(&after_tag, "SPRC")) {
        if (out->head.at || out->frame.at || len > CONTAINER_HEAD_MAX)
            return PARSE_BAD;
        out->head = payload;
    } else if (take_tag(&after_tag, "SPRS")) {
        if (out->side.at || len > CONTAINER_SIDE_MAX)
            return PARSE_BAD;
        out->side = after_tag;
    } else if (take_tag(&after_tag, "SPRE")) {
        if (out->end.at)
            return PARSE_BAD;
        out->end = payload;
    } else if (take_tag(&after_tag, "SPRT")) {
        if (!parse_trailer(payload, &out->trailer))
            return PARSE_BAD;
        *is_last = true;
    }
    return PARSE_OK;
}

/* The zstd frame at c: its extent is found by walking its blocks; it is not decoded. */
static enum parse segment_frame(struct cursor *c, struct container_segment *out)
{
    size_t len = ZSTD_findFrameCompressedSize(c->at, cursor_left(c));

    if (ZSTD_isError(len))
        return ZSTD_getErrorCode(len) == ZSTD_error_srcSize_wrong ? PARSE_MORE : PARSE_BAD;
    if (out->frame.at || len > ZSTD_compressBound(CONTAINER_PLAIN_MAX))
        return PARSE_BAD;
    return cursor_sub(c, len, &out->frame) ? PARSE_OK : PARSE_BAD;
}

enum parse container_segment(struct cursor *in, struct container_segment *out)
{
    struct cursor c = *in; /* MORE must consume nothing */
    bool is_last = false;

    memset(out, 0, sizeof(*out));
    while (!is_last) {
        struct cursor item = c, payload;
        uint32_t magic, len;
        enum parse r;

        if ((size_t)(c.at - in->at) > CONTAINER_SEGMENT_MAX)
            return PARSE_BAD;
        if (!take_le32(&item, &magic))
            return PARSE_MORE;
        if (magic == ZSTD_MAGICNUMBER) {
            r = segment_frame(&c, out);
            if (r != PARSE_OK)
                return r;
            continue;
        }
        if (!is_skippable(magic))
            return PARSE_BAD;
        if (!take_le32(&item, &len))
            return PARSE_MORE;
        if (len > CONTAINER_SIDE_MAX)
            return PARSE_BAD;
        if (!cursor_sub(&item, len, &payload))
            return PARSE_MORE;
        if (magic == MAGIC_OURS && segment_part(payload, out, &is_last) != PARSE_OK)
            return PARSE_BAD;
        c = item;
    }
    out->start = in->at;
    out->len = (size_t)(c.at - in->at);
    out->hashed_len = out->len - (CONTAINER_TRAILER_LEN - CONTAINER_HASHED_LEN);
    *in = c;
    return PARSE_OK;
}

bool container_find_trailer(struct cursor *in, struct container_trailer *out)
{
    static const uint8_t wanted[] = {0x5A, 0x2A, 0x4D, 0x18, CONTAINER_TRAILER_LEN, 0, 0, 0,
                                     'S',  'P',  'R',  'T'};

    while (cursor_left(in) >= CONTAINER_SKIP_HEADER + CONTAINER_TRAILER_LEN) {
        struct cursor c = *in, payload;
        uint32_t magic, len;

        if (memcmp(in->at, wanted, sizeof(wanted)) == 0 && take_le32(&c, &magic) &&
            take_le32(&c, &len) && cursor_sub(&c, len, &payload) && parse_trailer(payload, out)) {
            *in = c;
            return true;
        }
        in->at++;
    }
    return false;
}

bool container_side_record(struct cursor *side, uint8_t *type, uint32_t *event, struct cursor *body)
{
    uint32_t len;

    return cursor_u8(side, type) && cursor_be32(side, &len) && cursor_sub(side, len, body) &&
           cursor_be32(body, event);
}

bool container_side_apply(struct cursor runs, uint8_t *text, size_t *len)
{
    static const uint8_t replacement[3] = {0xEF, 0xBF, 0xBD};
    struct cursor in = cursor_of(text, *len);
    uint8_t *to = text; /* never passes `in`: what is put in is a third of what is taken out */
    const uint8_t *from;

    while (!cursor_at_end(&runs)) {
        uint8_t skip, n;
        const uint8_t *bytes;

        if (!cursor_u8(&runs, &skip) || !cursor_u8(&runs, &n) || !cursor_take(&runs, n, &bytes) ||
            !cursor_take(&in, skip, &from))
            return false;
        memmove(to, from, skip);
        to += skip;
        for (size_t i = 0; i < n; i++) {
            if (!cursor_take(&in, sizeof(replacement), &from) ||
                memcmp(from, replacement, sizeof(replacement)) != 0)
                return false;
            *to++ = bytes[i];
        }
    }
    memmove(to, in.at, cursor_left(&in));
    *len = (size_t)(to - text) + cursor_left(&in);
    return true;
}
