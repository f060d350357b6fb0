/*
 * What counts as a human at the client, 2.2.8.1.1.3 and 2.2.8.1.2: keys and buttons that go down,
 * wheels, a pointer that moves by more than a tremble. Not: releases, synchronize, time stamps.
 */
#include <stdlib.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define MOVE_MIN 4 /* pixels, both axes together, from where it last counted */

#define POINTER_MOVE   0x0800
#define POINTER_DOWN   0x8000
#define POINTER_WHEELS 0x0600 /* vertical and horizontal */
#define SLOW_RELEASE   0x8000
#define FAST_RELEASE   0x01

enum { FAST_SCANCODE, FAST_MOUSE, FAST_MOUSEX, FAST_SYNC, FAST_UNICODE, FAST_RELMOUSE, FAST_QOE };

enum {
    SLOW_SYNC = 0x0000,
    SLOW_UNUSED = 0x0002,
    SLOW_SCANCODE = 0x0004,
    SLOW_UNICODE = 0x0005,
    SLOW_MOUSE = 0x8001,
    SLOW_MOUSEX = 0x8002,
    SLOW_RELMOUSE = 0x8004
};

static bool has_moved(struct input_state *s, uint16_t x, uint16_t y)
{
    if (s->has_point && abs(x - s->x) + abs(y - s->y) < MOVE_MIN)
        return false;
    s->x = x;
    s->y = y;
    /* the first point is where it stood: a client tells it when its window gets the focus */
    return s->has_point ? true : (s->has_point = true, false);
}

static bool is_human_pointer(struct input_state *s, uint16_t flags, uint16_t x, uint16_t y)
{
    bool moved = flags & POINTER_MOVE && has_moved(s, x, y);

    return moved || flags & POINTER_DOWN || flags & POINTER_WHEELS;
}

static bool take_pointer(struct cursor *c, struct input_state *s, bool is_extended, bool *is_human)
{
    uint16_t flags, x, y;

    if (!cursor_le16(c, &flags) || !cursor_le16(c, &x) || !cursor_le16(c, &y))
        return false;
    *is_human |= is_extended ? (flags & POINTER_DOWN) != 0 : is_human_pointer(s, flags, x, y);
    return true;
}

/* Relative movement: buttons as above, any distance counts. */
static bool take_relative(struct cursor *c, bool *is_human)
{
    uint16_t flags, dx, dy;

    if (!cursor_le16(c, &flags) || !cursor_le16(c, &dx) || !cursor_le16(c, &dy))
        return false;
    *is_human |=
        flags & POINTER_DOWN || flags & POINTER_WHEELS || (flags & POINTER_MOVE && (dx || dy));
    return true;
}

static bool take_fast(struct cursor *c, struct input_state *s, bool *is_human)
{
    uint8_t head, key;
    uint16_t code;

    if (!cursor_u8(c, &head))
        return false;
    switch (head >> 5) {
    case FAST_SCANCODE:
        *is_human |= !(head & FAST_RELEASE);
        return cursor_u8(c, &key);
    case FAST_UNICODE:
        *is_human |= !(head & FAST_RELEASE);
        return cursor_le16(c, &code);
    case FAST_MOUSE:
        return take_pointer(c, s, false, is_human);
    case FAST_MOUSEX:
        return take_pointer(c, s, true, is_human);
    case FAST_RELMOUSE:
        return take_relative(c, is_human);
    case FAST_SYNC:
        return true;
    case FAST_QOE:
        return cursor_skip(c, 4);
    default:
        return false;
    }
}

enum parse input_fastpath_scan(uint8_t first, struct cursor body, struct input_state *s,
                               bool *is_human)
{
    uint8_t count = first >> 2 & 0xf;

    *is_human = false;
    if (count == 0 && !cursor_u8(&body, &count))
        return PARSE_BAD;
    for (uint8_t i = 0; i < count; i++)
        if (!take_fast(&body, s, is_human))
            return PARSE_BAD;
    return cursor_at_end(&body) ? PARSE_OK : PARSE_BAD;
}

static bool take_slow(struct cursor *c, struct input_state *s, bool *is_human)
{
    uint32_t time;
    uint16_t type, flags;

    if (!cursor_le32(c, &time) || !cursor_le16(c, &type))
        return false;
    switch (type) {
    case SLOW_SCANCODE:
    case SLOW_UNICODE:
        if (!cursor_le16(c, &flags))
            return false;
        *is_human |= !(flags & SLOW_RELEASE);
        return cursor_skip(c, 4);
    case SLOW_MOUSE:
        return take_pointer(c, s, false, is_human);
    case SLOW_MOUSEX:
        return take_pointer(c, s, true, is_human);
    case SLOW_RELMOUSE:
        return take_relative(c, is_human);
    case SLOW_SYNC:
    case SLOW_UNUSED:
        return cursor_skip(c, 6);
    default:
        return false;
    }
}

enum parse input_slowpath_scan(struct cursor body, struct input_state *s, bool *is_human)
{
    uint16_t count, pad;

    *is_human = false;
    if (!cursor_le16(&body, &count) || !cursor_le16(&body, &pad))
        return PARSE_BAD;
    for (uint16_t i = 0; i < count; i++)
        if (!take_slow(&body, s, is_human))
            return PARSE_BAD;
    return PARSE_OK;
}
