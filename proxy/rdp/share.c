/*
 * Licensing (only the one PDU that ends it), share control and share data headers, and the facts of
 * the capability exchange that notices need, 2.2.1.12, 2.2.1.13 and 2.2.8.1.1.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CONTROL_HEAD       6
#define DATA_HEAD          12
#define FLOW_MARK          0x8000
#define FLOW_LEN           8
#define PDU_VERSION        0x10
#define COMPRESSED         0x20
#define CAP_GENERAL        1
#define CAP_BITMAP         2
#define CAP_ORDER          3
#define CAP_SHARE          9
#define CAP_INPUT          13
#define CAP_FONT           14
#define CAP_VIRTUAL        20
#define FASTPATH_OUTPUT    0x0001
#define INPUT_FLAGS        0x013d /* scancodes, mousex, fast-path (both kinds), unicode, wheel */
#define SOURCE_TEXT        "RDP"
#define LICENCE_ANSWER_LEN 256

/* ---- share control ---- */

static bool take_data_head(struct share_pdu *out)
{
    uint8_t pad, stream, compression;
    uint16_t uncompressed, compressed;

    if (!cursor_le32(&out->body, &out->share_id) || !cursor_u8(&out->body, &pad) ||
        !cursor_u8(&out->body, &stream) || !cursor_le16(&out->body, &uncompressed) ||
        !cursor_u8(&out->body, &out->data_type) || !cursor_u8(&out->body, &compression) ||
        !cursor_le16(&out->body, &compressed))
        return false;
    out->is_compressed = compression & COMPRESSED;
    return true;
}

enum parse share_next(struct cursor *data, struct share_pdu *out)
{
    struct cursor c = *data, pdu;
    uint16_t len, type;

    memset(out, 0, sizeof(*out));
    if (!cursor_le16(&c, &len))
        return PARSE_BAD;
    if (len == FLOW_MARK) {
        out->type = SHARE_FLOW;
        out->len = FLOW_LEN;
        return cursor_sub(data, FLOW_LEN, &out->body) ? PARSE_OK : PARSE_BAD;
    }
    if (len < CONTROL_HEAD || !cursor_sub(data, len, &pdu))
        return PARSE_BAD;
    if (!cursor_skip(&pdu, 2) || !cursor_le16(&pdu, &type) || !cursor_le16(&pdu, &out->source))
        return PARSE_BAD;
    out->type = (enum share_type)(type & 0xf);
    out->version = (uint8_t)(type >> 4);
    out->len = len;
    out->body = pdu;
    if (out->type == SHARE_DATA && !take_data_head(out))
        return PARSE_BAD;
    return PARSE_OK;
}

bool error_info_parse(struct cursor body, uint32_t *code)
{
    return cursor_le32(&body, code);
}

/* ---- capabilities ---- */

static uint16_t le16_at(struct cursor body, size_t at)
{
    uint16_t v = 0;

    return cursor_skip(&body, at) && cursor_le16(&body, &v) ? v : 0;
}

static void take_fact(uint16_t type, struct cursor body, struct share_facts *out)
{
    switch (type) {
    case CAP_GENERAL:
        out->has_fastpath_output = le16_at(body, 10) & FASTPATH_OUTPUT;
        out->has_refresh = le16_at(body, 18) & 0xff;
        out->has_suppress = le16_at(body, 18) >> 8;
        break;
    case CAP_BITMAP:
        out->bpp = le16_at(body, 0);
        out->width = le16_at(body, 8);
        out->height = le16_at(body, 10);
        break;
    default:
        break;
    }
}

/* What the lengths leave over (sessionId) is not read. */
static enum parse parse_sets(struct cursor c, uint16_t source_len, struct share_facts *out)
{
    uint16_t count, pad, type, len;
    struct cursor set;

    if (!cursor_skip(&c, source_len) || !cursor_le16(&c, &count) || !cursor_le16(&c, &pad))
        return PARSE_BAD;
    for (uint16_t i = 0; i < count; i++) {
        if (!cursor_le16(&c, &type) || !cursor_le16(&c, &len) || len < 4 ||
            !cursor_sub(&c, (size_t)len - 4, &set))
            return PARSE_BAD;
        take_fact(type, set, out);
    }
    return PARSE_OK;
}

enum parse demand_active_parse(struct cursor body, struct share_facts *out)
{
    uint16_t source_len, sets_len;

    memset(out, 0, sizeof(*out));
    if (!cursor_le32(&body, &out->share_id) || !cursor_le16(&body, &source_len) ||
        !cursor_le16(&body, &sets_len))
        return PARSE_BAD;
    return parse_sets(body, source_len, out);
}

enum parse confirm_active_parse(struct cursor body, struct share_facts *out)
{
    uint16_t originator, source_len, sets_len;

    memset(out, 0, sizeof(*out));
    if (!cursor_le32(&body, &out->share_id) || !cursor_le16(&body, &originator) ||
        !cursor_le16(&body, &source_len) || !cursor_le16(&body, &sets_len))
        return PARSE_BAD;
    return parse_sets(body, source_len, out);
}

const uint8_t *capability_find(enum share_type which, struct cursor body, uint16_t type,
                               size_t least)
{
    uint16_t source_len, sets_len, count, pad, got, len;
    uint32_t share_id;
    struct cursor set;

    if (!cursor_le32(&body, &share_id) ||
        (which == SHARE_CONFIRM_ACTIVE && !cursor_le16(&body, &pad)) ||
        !cursor_le16(&body, &source_len) || !cursor_le16(&body, &sets_len) ||
        !cursor_skip(&body, source_len) || !cursor_le16(&body, &count) || !cursor_le16(&body, &pad))
        return NULL;
    for (uint16_t i = 0; i < count; i++) {
        if (!cursor_le16(&body, &got) || !cursor_le16(&body, &len) || len < 4 ||
            !cursor_sub(&body, (size_t)len - 4, &set))
            return NULL;
        if (got == type)
            return cursor_left(&set) >= least ? set.at : NULL;
    }
    return NULL;
}

/* ---- writing ---- */

void licence_valid_put(struct buffer *b)
{
    static const uint8_t valid[] = {0x80, 0, 0, 0, 0xff, 0x03, 0x10, 0, 0x07, 0,
                                    0,    0, 2, 0, 0,    0,    4,    0, 0,    0};

    buffer_put(b, valid, sizeof(valid));
}

void licence_answer_put(struct buffer *b)
{
    static const uint8_t head[] = {0x80, 0, 0, 0, 0x13, 0x03};
    uint8_t body[LICENCE_ANSWER_LEN - 4] = {0};

    buffer_put(b, head, sizeof(head));
    buffer_put_le16(b, LICENCE_ANSWER_LEN);
    buffer_put(b, body, sizeof(body));
}

enum licence_kind licence_parse(struct cursor c, uint32_t *error)
{
    uint16_t flags, len;
    uint8_t type, version;

    *error = 0;
    if (!cursor_le16(&c, &flags) || !cursor_u8(&c, &type) || !cursor_u8(&c, &version) ||
        !cursor_le16(&c, &len))
        return LICENCE_NONE;
    if (type == LICENCE_ALERT && !cursor_le32(&c, error))
        return LICENCE_NONE;
    switch (type) {
    case LICENCE_REQUEST:
    case LICENCE_CHALLENGE:
    case LICENCE_NEW:
    case LICENCE_UPGRADE:
    case LICENCE_ALERT:
        return (enum licence_kind)type;
    default:
        return LICENCE_NONE;
    }
}

static void put_control(struct buffer *b, size_t len, enum share_type type, uint16_t source)
{
    buffer_put_le16(b, (uint16_t)len);
    buffer_put_le16(b, (uint16_t)(PDU_VERSION | type));
    buffer_put_le16(b, source);
}

void deactivate_all_put(struct buffer *b, uint32_t share_id)
{
    put_control(b, CONTROL_HEAD + 7, SHARE_DEACTIVATE_ALL, MCS_SERVER_USER);
    buffer_put_le32(b, share_id);
    buffer_put_le16(b, 1);
    buffer_put_u8(b, 0);
}

void share_data_put(struct buffer *b, uint16_t source, uint32_t share_id, enum share_data_type type,
                    const void *body, size_t len)
{
    put_control(b, CONTROL_HEAD + DATA_HEAD + len, SHARE_DATA, source);
    buffer_put_le32(b, share_id);
    buffer_put_u8(b, 0);
    buffer_put_u8(b, 1);                     /* low priority stream */
    buffer_put_le16(b, (uint16_t)(len + 4)); /* FreeRDP and Windows count from pduType2 on */
    buffer_put_u8(b, (uint8_t)type);
    buffer_put_u8(b, 0);
    buffer_put_le16(b, 0);
    buffer_put(b, body, len);
}

static void put_set(struct buffer *b, uint16_t type, const uint16_t *words, size_t count)
{
    buffer_put_le16(b, type);
    buffer_put_le16(b, (uint16_t)(4 + 2 * count));
    for (size_t i = 0; i < count; i++)
        buffer_put_le16(b, words[i]);
}

/* A desktop that can show bitmaps and nothing else. */
static void put_sets(struct buffer *b, const struct share_facts *f)
{
    const uint16_t general[] = {1, 3, 0x200, 0, 0, 0x0415, 0, 0, 0, 0x0101};
    const uint16_t bitmap[] = {f->bpp, 1, 1, 1, f->width, f->height, 0, 1, 1, 0x0800, 1, 0};
    const uint16_t order[42] = {[10] = 1, [11] = 20, [13] = 1, [15] = 0x002a};
    const uint16_t pointer[] = {1, 20, 20};
    const uint16_t share[] = {MCS_SERVER_USER, 0};
    const uint16_t input[42] = {[0] = INPUT_FLAGS};
    const uint16_t font[] = {1, 0};
    const uint16_t virtual_channel[] = {0, 0, 1600, 0};

    put_set(b, CAP_GENERAL, general, sizeof(general) / 2);
    put_set(b, CAP_BITMAP, bitmap, sizeof(bitmap) / 2);
    put_set(b, CAP_ORDER, order, sizeof(order) / 2);
    put_set(b, CAPABILITY_POINTER, pointer, sizeof(pointer) / 2);
    put_set(b, CAP_SHARE, share, sizeof(share) / 2);
    put_set(b, CAP_INPUT, input, sizeof(input) / 2);
    put_set(b, CAP_FONT, font, sizeof(font) / 2);
    put_set(b, CAP_VIRTUAL, virtual_channel, sizeof(virtual_channel) / 2);
}

void demand_active_put(struct buffer *b, const struct share_facts *f)
{
    const size_t source = sizeof(SOURCE_TEXT); /* with its NUL */
    struct buffer sets;

    buffer_init(&sets, TPKT_MAX);
    put_sets(&sets, f);
    put_control(b, CONTROL_HEAD + 8 + source + 4 + sets.len + 4, SHARE_DEMAND_ACTIVE,
                MCS_SERVER_USER);
    buffer_put_le32(b, f->share_id);
    buffer_put_le16(b, (uint16_t)source);
    buffer_put_le16(b, (uint16_t)(sets.len + 4));
    buffer_put(b, SOURCE_TEXT, source);
    buffer_put_le16(b, 8); /* sets */
    buffer_put_le16(b, 0);
    buffer_put(b, sets.data, sets.len);
    buffer_put_le32(b, 0); /* session id */
    b->failed |= sets.failed;
    buffer_finish(&sets);
}
