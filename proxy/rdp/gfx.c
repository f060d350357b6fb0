/*
 * Scanning is over the heads of chunks and messages only: a message's length stands in its first
 * chunk, so that the rest is counted and not looked at. Our own messages have one uncompressed
 * segment each, [MS-RDPEGFX] 2.2.5.1, so that every client can take them.
 */
#include "proxy/rdp/gfx.h"

#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CHUNK_MAX      1600
#define STRIPE_MAX     60000 /* bytes of pixels; a segment has 65535 at most */
#define SEGMENT_SINGLE 0xe0
#define SEGMENT_RDP8   0x04
#define SEGMENT_PACKED 0x20
#define OWN_SURFACE    0x7ff0
#define OWN_FRAME      0x7ffffff0u
#define PIXELS_XRGB    0x20
#define SIDE_MAX       32766
#define PDU_HEAD       8

enum {
    GFX_WIRE_TO_SURFACE_1 = 0x0001,
    GFX_CREATE_SURFACE = 0x0009,
    GFX_START_FRAME = 0x000b,
    GFX_END_FRAME = 0x000c,
    GFX_FRAME_ACKNOWLEDGE = 0x000d,
    GFX_RESET_GRAPHICS = 0x000e,
    GFX_MAP_SURFACE_TO_OUTPUT = 0x000f
};

/* ---- reading ---- */

/* A chunk of the static channel. body: behind its head; false when it cannot be read. */
struct chunk {
    uint32_t total, flags;
    struct cursor body;
};

static bool take_chunk(struct cursor data, struct chunk *out)
{
    if (!cursor_le32(&data, &out->total) || !cursor_le32(&data, &out->flags))
        return false;
    out->body = data;
    return true;
}

static void close_channel(struct gfx_state *g)
{
    g->is_asked = g->is_open = g->is_live = false;
    g->left = 0;
}

/* MESSAGE: the length of the whole message, which a first message has. */
static bool take_length(struct cursor *c, uint8_t sp, uint32_t *out)
{
    uint16_t middle;
    uint8_t low;

    if (sp == 0) {
        if (!cursor_u8(c, &low))
            return false;
        *out = low;
        return true;
    }
    if (sp == 1) {
        if (!cursor_le16(c, &middle))
            return false;
        *out = middle;
        return true;
    }
    return cursor_le32(c, out);
}

/* The size of the output, where a reset is the first of a message and was not compressed. */
static void look_for_reset(struct cursor c, struct gfx_state *g)
{
    uint8_t descriptor, header;
    uint16_t command, flags;
    uint32_t len, width, height;

    if (cursor_u8(&c, &descriptor) && cursor_u8(&c, &header) && cursor_le16(&c, &command) &&
        cursor_le16(&c, &flags) && cursor_le32(&c, &len) && cursor_le32(&c, &width) &&
        cursor_le32(&c, &height) && descriptor == SEGMENT_SINGLE && !(header & SEGMENT_PACKED) &&
        command == GFX_RESET_GRAPHICS && width <= SIDE_MAX && height <= SIDE_MAX) {
        g->width = width;
        g->height = height;
    }
}

/* total: of the message of drdynvc, its head included. */
static void take_data(const struct dvc_head *h, struct cursor c, uint32_t total, size_t head,
                      struct gfx_state *g)
{
    const uint8_t *start = c.at;
    uint64_t data;
    uint32_t len;

    if (h->cmd == DVC_DATA_FIRST) {
        if (!take_length(&c, h->sp, &len)) {
            g->is_opaque = true;
            return;
        }
        g->left = len;
    }
    head += (size_t)(c.at - start);
    data = total > head ? total - head : 0;
    if (g->left == 0 || h->cmd == DVC_DATA_FIRST)
        look_for_reset(c, g);
    g->left = g->left > data ? g->left - data : 0;
}

bool gfx_server_scan(struct cursor data, struct gfx_state *g)
{
    struct chunk chunk;
    struct dvc_head h;
    struct cursor c;

    if (!take_chunk(data, &chunk) || chunk.flags & CHANNEL_COMPRESSED) {
        g->is_opaque = true;
        return gfx_is_live(g);
    }
    g->is_chunk = !(chunk.flags & CHANNEL_LAST);
    if (!(chunk.flags & CHANNEL_FIRST))
        return gfx_is_live(g);
    c = chunk.body;
    if (!dvc_head_parse(&c, &h))
        return false;
    if (h.cmd == DVC_CREATE) {
        if (cursor_left(&c) >= sizeof(DVC_NAME_GRAPHICS) &&
            memcmp(c.at, DVC_NAME_GRAPHICS, sizeof(DVC_NAME_GRAPHICS)) == 0) {
            close_channel(g);
            g->id = h.channel;
            g->is_asked = true;
            g->is_opaque = false;
            g->width = g->height = 0;
        }
        return false;
    }
    if (!g->is_asked || h.channel != g->id)
        return false;
    if (h.cmd == DVC_CLOSE)
        close_channel(g);
    else if (h.cmd == DVC_DATA_FIRST_COMPRESSED || h.cmd == DVC_DATA_COMPRESSED)
        g->is_opaque = true;
    else if (h.cmd == DVC_DATA_FIRST || h.cmd == DVC_DATA)
        take_data(&h, c, chunk.total, (size_t)(c.at - chunk.body.at), g);
    return gfx_is_live(g);
}

void gfx_client_scan(struct cursor data, struct gfx_state *g)
{
    struct chunk chunk;
    struct dvc_head h;
    uint32_t value;
    uint16_t command;

    if (!g->is_asked || !take_chunk(data, &chunk) || !(chunk.flags & CHANNEL_FIRST) ||
        chunk.flags & CHANNEL_COMPRESSED || !dvc_head_parse(&chunk.body, &h) || h.channel != g->id)
        return;
    switch (h.cmd) {
    case DVC_CREATE: /* the answer: a status, whose highest bit says no */
        g->is_open = cursor_le32(&chunk.body, &value) && !(value & 0x80000000u);
        break;
    case DVC_CLOSE:
        close_channel(g);
        break;
    case DVC_DATA_FIRST:
    case DVC_DATA:
        if ((h.cmd == DVC_DATA || take_length(&chunk.body, h.sp, &value)) &&
            cursor_le16(&chunk.body, &command) && command == GFX_FRAME_ACKNOWLEDGE)
            g->is_live = true;
        break;
    default:
        break;
    }
}

/* ---- writing ---- */

struct writer {
    struct buffer *out;
    const struct gfx_state *g;
    uint16_t channel;
};

/* 1, 2 or 4 bytes, as the numbers of dynamic channels are. */
static uint8_t id_code(uint32_t id)
{
    return id <= 0xff ? 0 : id <= 0xffff ? 1 : 2;
}

static void put_id(struct buffer *b, uint32_t id)
{
    static const size_t lens[] = {1, 2, 4};

    for (size_t i = 0; i < lens[id_code(id)]; i++)
        buffer_put_u8(b, (uint8_t)(id >> 8 * i));
}

static void put_chunk(struct writer *w, struct buffer *message, struct buffer *chunk)
{
    buffer_reset(chunk);
    buffer_put_le32(chunk, (uint32_t)message->len);
    buffer_put_le32(chunk, CHANNEL_FIRST | CHANNEL_LAST);
    buffer_put(chunk, message->data, message->len);
    mcs_data_put(w->out, MCS_DATA_INDICATION, MCS_SERVER_USER, w->channel, chunk->data, chunk->len);
    w->out->failed |= chunk->failed || message->failed;
}

/* One message of the graphics channel: in one piece when it is short, in a first and more of them
 * otherwise. */
static void put_message(struct writer *w, const struct buffer *segment)
{
    size_t at = 0, len = segment->len, part;
    struct buffer message, chunk;

    buffer_init(&message, CHUNK_MAX + 16);
    buffer_init(&chunk, CHUNK_MAX + 32);
    while (at < len) {
        bool is_first = at == 0 && len + 5 > CHUNK_MAX;

        buffer_reset(&message);
        buffer_put_u8(&message,
                      (uint8_t)((is_first ? DVC_DATA_FIRST << 4 | 2 << 2 : DVC_DATA << 4) |
                                id_code(w->g->id)));
        put_id(&message, w->g->id);
        if (is_first)
            buffer_put_le32(&message, (uint32_t)len);
        part = CHUNK_MAX - message.len < len - at ? CHUNK_MAX - message.len : len - at;
        buffer_put(&message, segment->data + at, part);
        put_chunk(w, &message, &chunk);
        at += part;
    }
    w->out->failed |= segment->failed;
    buffer_finish(&message);
    buffer_finish(&chunk);
}

static void begin_pdu(struct buffer *b, uint16_t command, size_t len)
{
    buffer_reset(b);
    buffer_put_u8(b, SEGMENT_SINGLE);
    buffer_put_u8(b, SEGMENT_RDP8);
    buffer_put_le16(b, command);
    buffer_put_le16(b, 0);
    buffer_put_le32(b, (uint32_t)(PDU_HEAD + len));
}

static void put_surface(struct writer *w, struct buffer *b, const struct picture *p, uint16_t x,
                        uint16_t y)
{
    begin_pdu(b, GFX_CREATE_SURFACE, 7);
    buffer_put_le16(b, OWN_SURFACE);
    buffer_put_le16(b, p->width);
    buffer_put_le16(b, p->height);
    buffer_put_u8(b, PIXELS_XRGB);
    put_message(w, b);
    begin_pdu(b, GFX_MAP_SURFACE_TO_OUTPUT, 12);
    buffer_put_le16(b, OWN_SURFACE);
    buffer_put_le16(b, 0);
    buffer_put_le32(b, x);
    buffer_put_le32(b, y);
    put_message(w, b);
}

/* Rows from the top down, here. */
static void put_stripe(struct writer *w, struct buffer *b, const struct picture *p, uint16_t first,
                       uint16_t count)
{
    size_t len = (size_t)p->width * count * 4;

    begin_pdu(b, GFX_WIRE_TO_SURFACE_1, 17 + len);
    buffer_put_le16(b, OWN_SURFACE);
    buffer_put_le16(b, 0); /* uncompressed */
    buffer_put_u8(b, PIXELS_XRGB);
    buffer_put_le16(b, 0);
    buffer_put_le16(b, first);
    buffer_put_le16(b, p->width); /* exclusive */
    buffer_put_le16(b, (uint16_t)(first + count));
    buffer_put_le32(b, (uint32_t)len);
    for (size_t i = 0; i < (size_t)p->width * count; i++)
        buffer_put_le32(b, p->pixels[(size_t)p->width * first + i] | 0xff000000u);
    put_message(w, b);
}

static void put_frame_mark(struct writer *w, struct buffer *b, bool is_start)
{
    begin_pdu(b, is_start ? GFX_START_FRAME : GFX_END_FRAME, is_start ? 8 : 4);
    if (is_start)
        buffer_put_le32(b, 0); /* time stamp */
    buffer_put_le32(b, OWN_FRAME);
    put_message(w, b);
}

void gfx_picture_put(struct buffer *b, const struct gfx_state *g, uint16_t channel,
                     const struct picture *p, uint16_t x, uint16_t y)
{
    struct writer w = {.out = b, .g = g, .channel = channel};
    size_t row_len = (size_t)p->width * 4;
    uint16_t rows = (uint16_t)(row_len < STRIPE_MAX ? STRIPE_MAX / row_len : 1);
    struct buffer segment;

    buffer_init(&segment, TPKT_MAX * 2);
    put_surface(&w, &segment, p, x, y);
    put_frame_mark(&w, &segment, true);
    for (uint16_t first = 0; first < p->height; first = (uint16_t)(first + rows)) {
        uint16_t count = p->height - first < rows ? (uint16_t)(p->height - first) : rows;

        put_stripe(&w, &segment, p, first, count);
    }
    put_frame_mark(&w, &segment, false);
    buffer_finish(&segment);
}
