/*
 * RDP is little-endian above MCS: what sallyport/cursor.h and buffer.h lack for that.
 */
#ifndef RDP_LE_H
#define RDP_LE_H

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>

MUST_CHECK static inline bool cursor_le16(struct cursor *c, uint16_t *out)
{
    const uint8_t *p;

    if (!cursor_take(c, 2, &p))
        return false;
    *out = (uint16_t)(p[0] | p[1] << 8);
    return true;
}

MUST_CHECK static inline bool cursor_le32(struct cursor *c, uint32_t *out)
{
    const uint8_t *p;

    if (!cursor_take(c, 4, &p))
        return false;
    *out = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    return true;
}

MUST_CHECK static inline bool cursor_skip(struct cursor *c, size_t n)
{
    const uint8_t *p;

    return cursor_take(c, n, &p);
}

static inline void put_le16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)v;
    at[1] = (uint8_t)(v >> 8);
}

static inline void put_le32(uint8_t *at, uint32_t v)
{
    put_le16(at, (uint16_t)v);
    put_le16(at + 2, (uint16_t)(v >> 16));
}

static inline void put_be16(uint8_t *at, uint16_t v)
{
    at[0] = (uint8_t)(v >> 8);
    at[1] = (uint8_t)v;
}

static inline void buffer_put_le16(struct buffer *b, uint16_t v)
{
    uint8_t bytes[2];

    put_le16(bytes, v);
    buffer_put(b, bytes, sizeof(bytes));
}

static inline void buffer_put_le32(struct buffer *b, uint32_t v)
{
    uint8_t bytes[4];

    put_le32(bytes, v);
    buffer_put(b, bytes, sizeof(bytes));
}

static inline void buffer_put_u8(struct buffer *b, uint8_t v)
{
    buffer_put(b, &v, 1);
}

#endif
