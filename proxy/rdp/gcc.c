/*
 * GCC conference create, T.124, and the settings blocks in it, 2.2.1.3 and 2.2.1.4. The client's
 * blocks go on to the target as they came, but for what two legs make necessary.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define MONITORS_MAX    16
#define MONITOR_PRIMARY 0x1u
#define MONITOR_SIDE    0x8000
#define BLOCK_HEAD      4

/* offsets in CS_CORE, its head included */
#define CORE_MIN         132 /* up to postBeta2ColorDepth: what every client has sent since 1999 */
#define CORE_AT_DEPTH    140
#define CORE_AT_EARLY    144
#define CORE_AT_SELECTED 212
#define CORE_AT_CLUSTER  4

#define COLOR_8BPP 0xca01

#define CLUSTER_REDIRECTION_SUPPORTED 0x00000001u
#define CLUSTER_SESSION_ID_VALID      0x00000002u
#define CLUSTER_VERSION               0x0000003cu
#define CLUSTER_VERSION4              0x0000000cu /* REDIRECTION_VERSION4 */
#define SC_VERSION                    0x00080004u /* RDP 5 to 8.1 */

static const uint8_t t124_key[] = {0x00, 0x05, 0x00, 0x14, 0x7c, 0x00, 0x01};
static const uint8_t request_head[] = {0x00, 0x08, 0x00, 0x10, 0x00, 0x01,
                                       0xc0, 0x00, 'D',  'u',  'c',  'a'};
static const uint8_t response_head[] = {0x14, 0x76, 0x0a, 0x01, 0x01, 0x00, 0x01,
                                        0xc0, 0x00, 'M',  'c',  'D',  'n'};

static bool take_bytes(struct cursor *c, const uint8_t *bytes, size_t len)
{
    const uint8_t *p;

    return cursor_take(c, len, &p) && memcmp(p, bytes, len) == 0;
}

/* PER length of the rest: 7 bits, or 15 behind a set bit. */
static bool take_len(struct cursor *c, size_t *len)
{
    uint8_t high, low = 0;

    if (!cursor_u8(c, &high) || (high & 0x80 && !cursor_u8(c, &low)))
        return false;
    *len = high & 0x80 ? (size_t)(high & 0x7f) << 8 | low : high;
    return true;
}

struct block {
    uint16_t type;
    const uint8_t *data; /* head included */
    size_t len;
};

static bool next_block(struct cursor *c, struct block *out)
{
    uint16_t len;

    out->data = c->at;
    if (!cursor_le16(c, &out->type) || !cursor_le16(c, &len) || len < BLOCK_HEAD ||
        !cursor_skip(c, (size_t)len - BLOCK_HEAD))
        return false;
    out->len = len;
    return true;
}

static struct cursor block_body(const struct block *b)
{
    return cursor_of(b->data + BLOCK_HEAD, b->len - BLOCK_HEAD);
}

/* ---- the client's ---- */

static bool parse_core(const struct block *b, struct gcc_client *out)
{
    struct cursor c = block_body(b), name;
    uint16_t sas;

    if (b->len < CORE_MIN || !cursor_le32(&c, &out->version) || !cursor_le16(&c, &out->width) ||
        !cursor_le16(&c, &out->height) || !cursor_le16(&c, &out->bpp) || !cursor_le16(&c, &sas) ||
        !cursor_le32(&c, &out->keyboard) || !cursor_le32(&c, &out->build) ||
        !cursor_sub(&c, 32, &name))
        return false;
    if (!utf16_to_utf8(name, out->name, sizeof(out->name)))
        out->name[0] = '\0';
    /* 2.2.1.3.2: three fields one over the other; the newest that is there says it in bits */
    out->bpp = out->bpp == COLOR_8BPP ? 8 : 16;
    if (b->len >= CORE_AT_DEPTH + 2)
        out->bpp = (uint16_t)(b->data[CORE_AT_DEPTH] | b->data[CORE_AT_DEPTH + 1] << 8);
    if (b->len >= CORE_AT_EARLY + 2)
        out->early_flags = (uint16_t)(b->data[CORE_AT_EARLY] | b->data[CORE_AT_EARLY + 1] << 8);
    return true;
}

/* 2.2.1.3.4.1: a name has at most seven characters and a NUL; more is as good as a wrong one. */
static bool parse_channels(const struct block *b, struct gcc_client *out)
{
    struct cursor c = block_body(b);
    const uint8_t *name;
    uint32_t count;

    if (!cursor_le32(&c, &count) || count > MCS_CHANNELS_MAX || out->has_channels)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        struct gcc_channel *channel = &out->channels[i];

        if (!cursor_take(&c, 8, &name) || !cursor_le32(&c, &channel->options) ||
            !memchr(name, '\0', 8))
            return false;
        memcpy(channel->name, name, 8);
    }
    out->channel_count = count;
    out->has_channels = true;
    return true;
}

/* 2.2.1.3.6: the corner of all monitors may be left of and above the primary one's. */
static void take_monitors(const struct block *b, struct gcc_client *out)
{
    int32_t corner_x = INT32_MAX, corner_y = INT32_MAX;
    uint32_t flags, count, at[5];
    struct gcc_monitor found = {0};
    int32_t x = 0, y = 0;
    struct cursor c = block_body(b);

    if (!cursor_le32(&c, &flags) || !cursor_le32(&c, &count) || count > MONITORS_MAX)
        return;
    for (uint32_t i = 0; i < count; i++) {
        for (size_t n = 0; n < 5; n++)
            if (!cursor_le32(&c, &at[n]))
                return;
        corner_x = (int32_t)at[0] < corner_x ? (int32_t)at[0] : corner_x;
        corner_y = (int32_t)at[1] < corner_y ? (int32_t)at[1] : corner_y;
        if (!(at[4] & MONITOR_PRIMARY) || at[2] - at[0] >= MONITOR_SIDE ||
            at[3] - at[1] >= MONITOR_SIDE)
            continue;
        x = (int32_t)at[0];
        y = (int32_t)at[1];
        found.width = (uint16_t)(at[2] - at[0] + 1);
        found.height = (uint16_t)(at[3] - at[1] + 1);
    }
    if (count < 2 || (int64_t)x - corner_x >= MONITOR_SIDE || (int64_t)y - corner_y >= MONITOR_SIDE)
        return;
    found.left = (uint16_t)(x - corner_x);
    found.top = (uint16_t)(y - corner_y);
    out->primary = found;
}

static bool parse_client_block(const struct block *b, struct gcc_client *out)
{
    switch (b->type) {
    case CS_CORE:
        return out->version == 0 && parse_core(b, out) && out->version != 0;
    case CS_NET:
        return parse_channels(b, out);
    case CS_CLUSTER:
        return b->len >= BLOCK_HEAD + 8;
    case CS_MONITOR:
        take_monitors(b, out);
        return true;
    case CS_MSGCHANNEL:
        out->has_message_channel = true;
        return true;
    default:
        return true;
    }
}

enum parse gcc_client_parse(struct cursor gcc, struct gcc_client *out)
{
    struct cursor c;
    struct block b;
    size_t len;

    memset(out, 0, sizeof(*out));
    if (!take_bytes(&gcc, t124_key, sizeof(t124_key)) || !take_len(&gcc, &len) ||
        !take_bytes(&gcc, request_head, sizeof(request_head)) || !take_len(&gcc, &len) ||
        !cursor_sub(&gcc, len, &out->blocks) || !cursor_at_end(&gcc))
        return PARSE_BAD;
    c = out->blocks;
    while (!cursor_at_end(&c))
        if (!next_block(&c, &b) || !parse_client_block(&b, out))
            return PARSE_BAD;
    return out->version ? PARSE_OK : PARSE_BAD;
}

static void put_core(struct buffer *b, const struct block *core, const struct gcc_patch *p)
{
    size_t at = b->len;
    uint16_t early;

    buffer_put(b, core->data, core->len);
    if (b->failed)
        return;
    if (core->len >= CORE_AT_EARLY + 2) {
        early = (uint16_t)(b->data[at + CORE_AT_EARLY] | b->data[at + CORE_AT_EARLY + 1] << 8);
        put_le16(b->data + at + CORE_AT_EARLY,
                 (uint16_t)(early & ~(unsigned)CS_EARLY_SKIP_CHANNELJOIN));
    }
    if (core->len >= CORE_AT_SELECTED + 4)
        put_le32(b->data + at + CORE_AT_SELECTED, p->selected);
}

static void put_channels(struct buffer *b, const struct gcc_client *c, const struct gcc_patch *p)
{
    uint32_t count = 0;

    for (size_t i = 0; i < c->channel_count; i++)
        count += !p->is_dropped[i];
    buffer_put_le16(b, CS_NET);
    buffer_put_le16(b, (uint16_t)(BLOCK_HEAD + 4 + 12 * count));
    buffer_put_le32(b, count);
    for (size_t i = 0; i < c->channel_count; i++) {
        if (p->is_dropped[i])
            continue;
        buffer_put(b, c->channels[i].name, 8);
        buffer_put_le32(b, c->channels[i].options);
    }
}

/* We can be sent on, whatever the client can (redirect.c). */
static void put_cluster(struct buffer *b, const struct block *cluster, const struct gcc_patch *p)
{
    size_t at = b->len + CORE_AT_CLUSTER;
    uint32_t flags;

    buffer_put(b, cluster->data, cluster->len);
    if (b->failed || cluster->len < CORE_AT_CLUSTER + 8)
        return;
    flags = b->data[at] | CLUSTER_REDIRECTION_SUPPORTED;
    if ((flags & CLUSTER_VERSION) < CLUSTER_VERSION4)
        flags = (flags & ~CLUSTER_VERSION) | CLUSTER_VERSION4;
    if (p->session_id) {
        flags |= CLUSTER_SESSION_ID_VALID;
        put_le32(b->data + at + 4, p->session_id);
    }
    b->data[at] = (uint8_t)flags;
}

static void put_client_block(struct buffer *b, const struct block *block,
                             const struct gcc_client *c, const struct gcc_patch *p)
{
    switch (block->type) {
    case CS_CORE:
        put_core(b, block, p);
        break;
    case CS_NET:
        put_channels(b, c, p);
        break;
    case CS_CLUSTER:
        put_cluster(b, block, p);
        break;
    case CS_MULTITRANSPORT: /* UDP would go beside the proxy */
        break;
    case CS_MONITOR:
    case CS_MONITOR_EX:
    case CS_MSGCHANNEL:
        if (p->has_extended)
            buffer_put(b, block->data, block->len);
        break;
    default:
        buffer_put(b, block->data, block->len);
        break;
    }
}

static void put_len(struct buffer *b, size_t len)
{
    if (len >= 0x80)
        buffer_put_be(b, 0x8000 | len, 2);
    else
        buffer_put_u8(b, (uint8_t)len);
    if (len > 0x7fff)
        b->failed = true;
}

static void put_gcc(struct buffer *b, const uint8_t *head, size_t head_len,
                    const struct buffer *blocks)
{
    size_t len = blocks->len;

    buffer_put(b, t124_key, sizeof(t124_key));
    put_len(b, head_len + (len >= 0x80 ? 2 : 1) + len);
    buffer_put(b, head, head_len);
    put_len(b, len);
    buffer_put(b, blocks->data, len);
    b->failed |= blocks->failed;
}

void gcc_client_put(struct buffer *b, const struct gcc_client *c, const struct gcc_patch *p)
{
    struct cursor at = c->blocks;
    struct buffer blocks;
    struct block block;

    buffer_init(&blocks, TPKT_MAX);
    while (!cursor_at_end(&at) && next_block(&at, &block))
        put_client_block(&blocks, &block, c, p);
    put_gcc(b, request_head, sizeof(request_head), &blocks);
    buffer_finish(&blocks);
}

/* ---- the server's ---- */

static bool parse_net(const struct block *b, struct gcc_server *out)
{
    struct cursor c = block_body(b);
    uint16_t count;

    if (!cursor_le16(&c, &out->io_channel) || !cursor_le16(&c, &count) || count > MCS_CHANNELS_MAX)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!cursor_le16(&c, &out->channels[i]))
            return false;
    out->channel_count = count;
    return out->io_channel != 0;
}

static bool parse_server_block(const struct block *b, struct gcc_server *out)
{
    struct cursor c = block_body(b);

    switch (b->type) {
    case SC_SECURITY:
        return cursor_le32(&c, &out->method) && cursor_le32(&c, &out->level);
    case SC_NET:
        return parse_net(b, out);
    case SC_MSGCHANNEL:
        return cursor_le16(&c, &out->message_channel);
    default:
        return true;
    }
}

/* Servers are careless with the lengths that clients do not read: only the blocks must be right. */
static bool take_response(struct cursor *gcc)
{
    uint16_t node;
    uint8_t choice, tag_len, result;
    size_t len;

    return take_bytes(gcc, t124_key, sizeof(t124_key)) && take_len(gcc, &len) &&
           cursor_u8(gcc, &choice) && choice == response_head[0] && cursor_be16(gcc, &node) &&
           cursor_u8(gcc, &tag_len) && cursor_skip(gcc, tag_len) && cursor_u8(gcc, &result) &&
           result == 0 && take_bytes(gcc, response_head + 6, sizeof(response_head) - 6) &&
           take_len(gcc, &len);
}

enum parse gcc_server_parse(struct cursor gcc, struct gcc_server *out)
{
    struct block b;

    memset(out, 0, sizeof(*out));
    if (!take_response(&gcc))
        return PARSE_BAD;
    while (!cursor_at_end(&gcc))
        if (!next_block(&gcc, &b) || !parse_server_block(&b, out))
            return PARSE_BAD;
    return out->io_channel ? PARSE_OK : PARSE_BAD;
}

void gcc_server_put(struct buffer *b, const struct gcc_server *s, uint32_t requested)
{
    size_t padding = s->channel_count % 2 * 2;
    struct buffer blocks;

    buffer_init(&blocks, TPKT_MAX);
    buffer_put_le16(&blocks, SC_CORE);
    buffer_put_le16(&blocks, 16);
    buffer_put_le32(&blocks, SC_VERSION);
    buffer_put_le32(&blocks, requested);
    buffer_put_le32(&blocks, 0); /* early capabilities: the client joins its channels */
    buffer_put_le16(&blocks, SC_SECURITY);
    buffer_put_le16(&blocks, 12);
    buffer_put_le32(&blocks, 0);
    buffer_put_le32(&blocks, 0);
    buffer_put_le16(&blocks, SC_NET);
    buffer_put_le16(&blocks, (uint16_t)(8 + 2 * s->channel_count + padding));
    buffer_put_le16(&blocks, s->io_channel);
    buffer_put_le16(&blocks, (uint16_t)s->channel_count);
    for (size_t i = 0; i < s->channel_count; i++)
        buffer_put_le16(&blocks, s->channels[i]);
    if (padding)
        buffer_put_le16(&blocks, 0);
    if (s->message_channel) {
        buffer_put_le16(&blocks, SC_MSGCHANNEL);
        buffer_put_le16(&blocks, 6);
        buffer_put_le16(&blocks, s->message_channel);
    }
    put_gcc(b, response_head, sizeof(response_head), &blocks);
    buffer_finish(&blocks);
}
