/*
 * Output of a target, 2.2.9.1.1 and 2.2.9.1.2: only what notices need. Whether a fragmented update
 * is open after a PDU, because nothing of ours may stand between its fragments; whether something
 * was drawn, which may have covered a notice; which pointer and which palette were set.
 */
#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define FRAGMENT_SINGLE   0
#define FRAGMENT_FIRST    2
#define FRAGMENT_NEXT     3
#define COMPRESSION_USED  0x80
#define PACKET_COMPRESSED 0x20
#define SLOW_PALETTE      2
#define POINTER_SYSTEM    1
#define SYSTEM_NULL       0

enum {
    FAST_PALETTE = 2,
    FAST_SYNCHRONIZE = 3,
    FAST_POINTER_NULL = 5,
    FAST_POINTER_DEFAULT = 6,
    FAST_POINTER_POSITION = 8,
    FAST_POINTER_COLOR = 9,
    FAST_POINTER_CACHED = 10,
    FAST_POINTER_NEW = 11,
    FAST_POINTER_LARGE = 12
};

/* 2.2.9.1.1.3.1.1.1: numberColors is always 256. */
static void take_palette(struct cursor body, struct output_facts *out)
{
    uint32_t pad, count;

    if (cursor_le32(&body, &pad) && cursor_le32(&body, &count) && count == PALETTE_LEN / 3)
        (void)!cursor_sub(&body, PALETTE_LEN, &out->palette);
}

/* kind: as the fast path numbers it. Color and cached pointers begin with the slot, the newer
 * kinds with the colour depth. */
static void take_pointer(uint8_t kind, bool is_readable, struct cursor body,
                         struct output_facts *out)
{
    struct pointer *p = &out->pointer;
    uint16_t bpp;

    out->has_pointer = true;
    p->slot = 0;
    if (kind == FAST_POINTER_NULL || kind == FAST_POINTER_DEFAULT)
        p->kind = kind == FAST_POINTER_NULL ? POINTER_HIDDEN : POINTER_DEFAULT;
    else if (is_readable && (kind < FAST_POINTER_NEW || cursor_le16(&body, &bpp)) &&
             cursor_le16(&body, &p->slot))
        p->kind = POINTER_CACHED;
    else
        p->kind = POINTER_UNREADABLE;
}

static void take_update(uint8_t head, bool is_compressed, struct cursor body,
                        struct output_facts *out)
{
    uint8_t code = head & 0xf, fragment = head >> 4 & 3;
    bool is_first = fragment == FRAGMENT_SINGLE || fragment == FRAGMENT_FIRST;

    out->is_open = fragment == FRAGMENT_FIRST || fragment == FRAGMENT_NEXT;
    if (code >= FAST_POINTER_NULL && code <= FAST_POINTER_LARGE) {
        if (is_first && code != FAST_POINTER_POSITION)
            take_pointer(code, !is_compressed, body, out);
        return;
    }
    if (code == FAST_PALETTE && !is_compressed && fragment == FRAGMENT_SINGLE)
        take_palette(body, out);
    out->has_drawn |= code != FAST_SYNCHRONIZE && code != FAST_PALETTE;
}

static void begin(struct output_facts *out)
{
    out->has_drawn = out->has_pointer = false;
    out->palette = cursor_of(NULL, 0);
}

enum parse fastpath_output_scan(struct cursor body, struct output_facts *out)
{
    uint8_t head, compression;
    struct cursor update;
    uint16_t size;

    begin(out);
    while (!cursor_at_end(&body)) {
        compression = 0;
        if (!cursor_u8(&body, &head) ||
            (head & COMPRESSION_USED && !cursor_u8(&body, &compression)) ||
            !cursor_le16(&body, &size) || !cursor_sub(&body, size, &update))
            return PARSE_BAD;
        take_update(head, compression & PACKET_COMPRESSED, update, out);
    }
    return PARSE_OK;
}

/* 2.2.9.1.1.4: the slow path numbers the kinds of pointers in its own way. */
static void take_slow_pointer(const struct share_pdu *pdu, struct output_facts *out)
{
    static const uint8_t kinds[] = {[6] = FAST_POINTER_COLOR,
                                    [7] = FAST_POINTER_CACHED,
                                    [8] = FAST_POINTER_NEW,
                                    [9] = FAST_POINTER_LARGE};
    struct cursor c = pdu->body;
    uint16_t type, pad;
    uint32_t system;

    if (pdu->is_compressed) {
        take_pointer(FAST_POINTER_NEW, false, c, out);
        return;
    }
    if (!cursor_le16(&c, &type) || !cursor_le16(&c, &pad))
        return;
    if (type == POINTER_SYSTEM && cursor_le32(&c, &system))
        take_pointer(system == SYSTEM_NULL ? FAST_POINTER_NULL : FAST_POINTER_DEFAULT, true, c,
                     out);
    else if (type < sizeof(kinds) && kinds[type])
        take_pointer(kinds[type], true, c, out);
}

void slowpath_output_scan(const struct share_pdu *pdu, struct output_facts *out)
{
    struct cursor c = pdu->body;
    uint16_t type;

    begin(out);
    if (pdu->type != SHARE_DATA)
        return;
    if (pdu->data_type == DATA_POINTER)
        take_slow_pointer(pdu, out);
    if (pdu->data_type != DATA_UPDATE)
        return;
    out->has_drawn = true;
    if (!pdu->is_compressed && cursor_le16(&c, &type) && type == SLOW_PALETTE)
        take_palette(pdu->body, out);
}
