/*
 * A borrowed, read-only window over bytes that came from outside. Every getter either moves the
 * cursor and succeeds, or fails and leaves everything as it was. The comparison is always against
 * what is left, never a sum of positions, so it cannot wrap. All integers are big-endian.
 */
#ifndef SALLYPORT_CURSOR_H
#define SALLYPORT_CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <sallyport/errors.h>

/* What a framing function says: BAD ends the peer, MORE consumed nothing, OK moved the cursor. */
enum parse { PARSE_BAD = -1, PARSE_MORE = 0, PARSE_OK = 1 };

struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static inline struct cursor cursor_of(const void *data, size_t len)
{
    struct cursor c = {(const uint8_t *)data, (const uint8_t *)data + len};
    return c;
}

static inline size_t cursor_left(const struct cursor *c)
{
    return (size_t)(c->end - c->at);
}

static inline bool cursor_at_end(const struct cursor *c)
{
    return c->at == c->end;
}

/* Borrow the next n bytes. */
MUST_CHECK static inline bool cursor_take(struct cursor *c, size_t n, const uint8_t **out)
{
    if (n > cursor_left(c))
        return false;
    *out = c->at;
    c->at += n;
    return true;
}

/* A cursor over exactly the next n bytes. */
MUST_CHECK static inline bool cursor_sub(struct cursor *c, size_t n, struct cursor *out)
{
    const uint8_t *p;

    if (!cursor_take(c, n, &p))
        return false;
    *out = cursor_of(p, n);
    return true;
}

/* An n-byte big-endian integer, n <= 8. */
MUST_CHECK static inline bool cursor_be(struct cursor *c, size_t n, uint64_t *out)
{
    const uint8_t *p;
    uint64_t v = 0;

    if (n > 8 || !cursor_take(c, n, &p))
        return false;
    for (size_t i = 0; i < n; i++)
        v = v << 8 | p[i];
    *out = v;
    return true;
}

MUST_CHECK static inline bool cursor_u8(struct cursor *c, uint8_t *out)
{
    const uint8_t *p;

    if (!cursor_take(c, 1, &p))
        return false;
    *out = *p;
    return true;
}

MUST_CHECK static inline bool cursor_be16(struct cursor *c, uint16_t *out)
{
    uint64_t v;

    if (!cursor_be(c, 2, &v))
        return false;
    *out = (uint16_t)v;
    return true;
}

MUST_CHECK static inline bool cursor_be32(struct cursor *c, uint32_t *out)
{
    uint64_t v;

    if (!cursor_be(c, 4, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

MUST_CHECK static inline bool cursor_be64(struct cursor *c, uint64_t *out)
{
    return cursor_be(c, 8, out);
}

#endif
