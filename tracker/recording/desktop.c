/*
 * The records of an RDP session's recording, byte by byte as FORMAT.md has them. Pure: no I/O, no
 * allocation but of the caller's buffer. The writer, the reader, the player and the exporter call
 * it; fuzz_desktop feeds it.
 */
#include "tracker/recording/desktop.h"

#include <string.h>

static uint8_t *put_be(uint8_t *dst, uint64_t value, size_t bytes)
{
    for (size_t i = bytes; i-- > 0;)
        *dst++ = (uint8_t)(value >> (8 * i));
    return dst;
}

/* ---- records ---- */

uint8_t *desktop_put_head(uint8_t *dst, enum desktop_type type, uint8_t flags, uint32_t len,
                          uint64_t at_us)
{
    dst = put_be(dst, type, 1);
    dst = put_be(dst, flags, 1);
    dst = put_be(dst, 0, 2);
    dst = put_be(dst, len, 4);
    return put_be(dst, at_us, 8);
}

enum parse desktop_next(struct cursor *plain, struct desktop_record *out)
{
    struct cursor c = *plain;
    uint16_t zero;
    uint32_t len;

    if (cursor_at_end(&c))
        return PARSE_MORE;
    if (!cursor_u8(&c, &out->type) || !cursor_u8(&c, &out->flags) || !cursor_be16(&c, &zero) ||
        !cursor_be32(&c, &len) || !cursor_be64(&c, &out->at_us) || out->type == 0 ||
        out->at_us > INT64_MAX || !cursor_sub(&c, len, &out->body))
        return PARSE_BAD;
    *plain = c;
    return PARSE_OK;
}

/* ---- channels ---- */

void desktop_channels_put(struct buffer *b, const struct desktop_channels *c)
{
    buffer_put_be(b, c->user, 2);
    buffer_put_be(b, c->io, 2);
    buffer_put_be(b, c->message, 2);
    buffer_put_be(b, c->count, 2);
    for (size_t i = 0; i < c->count; i++) {
        char name[DESKTOP_NAME_MAX] = "";

        memcpy(name, c->list[i].name, strnlen(c->list[i].name, sizeof(name)));
        buffer_put_be(b, c->list[i].number, 2);
        buffer_put_be(b, c->list[i].flags, 1);
        buffer_put_be(b, 0, 1);
        buffer_put_be(b, c->list[i].options, 4);
        buffer_put(b, name, sizeof(name));
    }
}

static enum parse parse_channel(struct cursor *c, struct desktop_channel *out)
{
    const uint8_t *name;
    uint8_t zero;

    if (!cursor_be16(c, &out->number) || !cursor_u8(c, &out->flags) || !cursor_u8(c, &zero) ||
        !cursor_be32(c, &out->options) || !cursor_take(c, DESKTOP_NAME_MAX, &name))
        return PARSE_BAD;
    memcpy(out->name, name, DESKTOP_NAME_MAX);
    out->name[DESKTOP_NAME_MAX] = '\0';
    return PARSE_OK;
}

enum parse desktop_channels_parse(struct cursor body, struct desktop_channels *out)
{
    uint16_t count;

    memset(out, 0, sizeof(*out));
    if (!cursor_be16(&body, &out->user) || !cursor_be16(&body, &out->io) ||
        !cursor_be16(&body, &out->message) || !cursor_be16(&body, &count) ||
        count > DESKTOP_CHANNELS_MAX)
        return PARSE_BAD;
    for (; out->count < count; out->count++)
        if (parse_channel(&body, &out->list[out->count]) != PARSE_OK)
            return PARSE_BAD;
    return PARSE_OK;
}

/* ---- sizes ---- */

void desktop_size_put(uint8_t *dst, const struct desktop_size *s)
{
    dst = put_be(dst, s->width, 2);
    dst = put_be(dst, s->height, 2);
    dst = put_be(dst, s->bpp, 2);
    dst = put_be(dst, 0, 2);
    (void)put_be(dst, s->share_id, 4);
}

enum parse desktop_size_parse(struct cursor body, struct desktop_size *out)
{
    uint16_t zero;

    return cursor_be16(&body, &out->width) && cursor_be16(&body, &out->height) &&
                   cursor_be16(&body, &out->bpp) && cursor_be16(&body, &zero) &&
                   cursor_be32(&body, &out->share_id)
               ? PARSE_OK
               : PARSE_BAD;
}

/* ---- input ---- */

void desktop_input_put(uint8_t *dst, const struct desktop_input *i)
{
    dst = put_be(dst, i->kind, 1);
    dst = put_be(dst, i->flags, 1);
    dst = put_be(dst, i->code, 2);
    dst = put_be(dst, i->x, 2);
    (void)put_be(dst, i->y, 2);
}

enum parse desktop_input_next(struct cursor *body, struct desktop_input *out)
{
    struct cursor c = *body;

    if (cursor_at_end(&c))
        return PARSE_MORE;
    if (!cursor_u8(&c, &out->kind) || !cursor_u8(&c, &out->flags) || !cursor_be16(&c, &out->code) ||
        !cursor_be16(&c, &out->x) || !cursor_be16(&c, &out->y))
        return PARSE_BAD;
    *body = c;
    return PARSE_OK;
}
