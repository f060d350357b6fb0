/*
 * Input events, fast-path and slow-path, one after the other; events.h.
 */
#include "proxy/rdp/events.h"

#include <string.h>

#include "proxy/rdp/le.h"

/* KBDFLAGS_, 2.2.8.1.1.3.1.1.1 and 2.2.8.1.2.2.1 */
#define SLOW_EXTENDED  0x0300 /* both */
#define SLOW_EXTENDED1 0x0200
#define SLOW_RELEASE   0x8000
#define FAST_RELEASE   0x01
#define FAST_EXTENDED  0x06
#define FAST_EXTENDED1 0x04

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

bool input_begin_fast(struct input_reader *r, uint8_t first, struct cursor body)
{
    uint8_t count = first >> 2 & 0xf;

    *r = (struct input_reader){.is_fast = true};
    if (count == 0 && !cursor_u8(&body, &count))
        return false;
    r->c = body;
    r->left = count;
    return true;
}

bool input_begin_slow(struct input_reader *r, struct cursor body)
{
    uint16_t pad;

    *r = (struct input_reader){.is_fast = false};
    if (!cursor_le16(&body, &r->left) || !cursor_le16(&body, &pad))
        return false;
    r->c = body;
    return true;
}

static bool take_pointer(struct cursor *c, enum input_kind kind, struct input_event *out)
{
    uint16_t flags;

    if (!cursor_le16(c, &flags) || !cursor_le16(c, &out->x) || !cursor_le16(c, &out->y))
        return false;
    out->flags = flags;
    out->kind = kind;
    return true;
}

static bool take_fast(struct cursor *c, struct input_event *out)
{
    uint8_t head, code;

    if (!cursor_u8(c, &head))
        return false;
    out->is_release = head & FAST_RELEASE;
    switch (head >> 5) {
    case FAST_SCANCODE:
        if (!cursor_u8(c, &code))
            return false;
        out->kind = INPUT_SCANCODE;
        out->is_extended = head & FAST_EXTENDED;
        out->is_extended1 = head & FAST_EXTENDED1;
        out->code = code;
        return true;
    case FAST_UNICODE:
        out->kind = INPUT_UNICODE;
        return cursor_le16(c, &out->code);
    case FAST_MOUSE:
        return take_pointer(c, INPUT_POINTER, out);
    case FAST_MOUSEX:
        return take_pointer(c, INPUT_BUTTONS, out);
    case FAST_RELMOUSE:
        return take_pointer(c, INPUT_NONE, out);
    case FAST_SYNC:
        out->kind = INPUT_SYNC;
        out->flags = head & 0x1f;
        return true;
    case FAST_QOE:
        return cursor_skip(c, 4);
    default:
        return false;
    }
}

static bool take_slow_key(struct cursor *c, enum input_kind kind, struct input_event *out)
{
    uint16_t flags, pad;

    if (!cursor_le16(c, &flags) || !cursor_le16(c, &out->code) || !cursor_le16(c, &pad))
        return false;
    out->kind = kind;
    out->is_release = flags & SLOW_RELEASE;
    out->is_extended = kind == INPUT_SCANCODE && flags & SLOW_EXTENDED;
    out->is_extended1 = kind == INPUT_SCANCODE && flags & SLOW_EXTENDED1;
    return true;
}

static bool take_slow(struct cursor *c, struct input_event *out)
{
    uint32_t time;
    uint16_t type, pad;

    if (!cursor_le32(c, &time) || !cursor_le16(c, &type))
        return false;
    switch (type) {
    case SLOW_SCANCODE:
        return take_slow_key(c, INPUT_SCANCODE, out);
    case SLOW_UNICODE:
        return take_slow_key(c, INPUT_UNICODE, out);
    case SLOW_MOUSE:
        return take_pointer(c, INPUT_POINTER, out);
    case SLOW_MOUSEX:
        return take_pointer(c, INPUT_BUTTONS, out);
    case SLOW_RELMOUSE:
        return take_pointer(c, INPUT_NONE, out);
    case SLOW_SYNC:
        out->kind = INPUT_SYNC;
        return cursor_le16(c, &pad) && cursor_le32(c, &out->flags);
    case SLOW_UNUSED:
        return cursor_skip(c, 6);
    default:
        return false;
    }
}

enum parse input_next(struct input_reader *r, struct input_event *out)
{
    memset(out, 0, sizeof(*out));
    if (r->left == 0)
        return r->is_fast && !cursor_at_end(&r->c) ? PARSE_BAD : PARSE_MORE;
    r->left--;
    return (r->is_fast ? take_fast(&r->c, out) : take_slow(&r->c, out)) ? PARSE_OK : PARSE_BAD;
}
