/*
 * MCS, T.125: the connect PDUs in BER and the domain PDUs in PER, as far as RDP uses them.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CONNECT_INITIAL  0x65 /* behind 0x7f: application 101 */
#define CONNECT_RESPONSE 0x66
#define BER_BOOLEAN      0x01
#define BER_INTEGER      0x02
#define BER_OCTETS       0x04
#define BER_ENUMERATED   0x0a
#define BER_SEQUENCE     0x30
#define PARAMETERS_MAX   64 /* eight integers of at most 6 bytes with head */

static bool take_x224_data(struct cursor *c)
{
    uint8_t li, type, eot;

    return cursor_u8(c, &li) && li == 2 && cursor_u8(c, &type) && type == 0xf0 &&
           cursor_u8(c, &eot) && eot == 0x80;
}

/* ---- BER ---- */

static bool take_ber_len(struct cursor *c, size_t *len)
{
    uint8_t first;
    uint64_t value;

    if (!cursor_u8(c, &first))
        return false;
    if (first < 0x80) {
        *len = first;
        return true;
    }
    if ((first & 0x7f) < 1 || (first & 0x7f) > 2 || !cursor_be(c, first & 0x7f, &value))
        return false;
    *len = (size_t)value;
    return true;
}

static bool take_ber(struct cursor *c, uint8_t tag, struct cursor *out)
{
    uint8_t got;
    size_t len;

    return cursor_u8(c, &got) && got == tag && take_ber_len(c, &len) && cursor_sub(c, len, out);
}

static size_t ber_head(size_t len)
{
    return len < 0x80 ? 2 : len < 0x100 ? 3 : 4;
}

static void put_ber_head(struct buffer *b, uint8_t tag, size_t len)
{
    buffer_put_u8(b, tag);
    if (len >= 0x100) {
        buffer_put_u8(b, 0x82);
        buffer_put_be(b, len, 2);
    } else {
        if (len >= 0x80)
            buffer_put_u8(b, 0x81);
        buffer_put_u8(b, (uint8_t)len);
    }
    if (len > 0xffff)
        b->failed = true;
}

static bool take_connect(struct cursor *body, uint8_t which, struct cursor *out)
{
    uint8_t tag, got;
    size_t len;

    return take_x224_data(body) && cursor_u8(body, &tag) && tag == 0x7f && cursor_u8(body, &got) &&
           got == which && take_ber_len(body, &len) && len == cursor_left(body) &&
           cursor_sub(body, len, out);
}

enum parse mcs_connect_initial_parse(struct cursor body, struct mcs_connect *out)
{
    struct cursor c, selector, upward;

    if (!take_connect(&body, CONNECT_INITIAL, &c) || !take_ber(&c, BER_OCTETS, &selector) ||
        !take_ber(&c, BER_OCTETS, &selector) || !take_ber(&c, BER_BOOLEAN, &upward))
        return PARSE_BAD;
    for (size_t i = 0; i < 3; i++)
        if (!take_ber(&c, BER_SEQUENCE, &out->parameters[i]) ||
            cursor_left(&out->parameters[i]) > PARAMETERS_MAX)
            return PARSE_BAD;
    return take_ber(&c, BER_OCTETS, &out->gcc) && cursor_at_end(&c) ? PARSE_OK : PARSE_BAD;
}

enum parse mcs_connect_response_parse(struct cursor body, uint8_t *result, struct cursor *gcc)
{
    struct cursor c, value, ignored;

    if (!take_connect(&body, CONNECT_RESPONSE, &c) || !take_ber(&c, BER_ENUMERATED, &value) ||
        !cursor_u8(&value, result) || !take_ber(&c, BER_INTEGER, &ignored) ||
        !take_ber(&c, BER_SEQUENCE, &ignored) || !take_ber(&c, BER_OCTETS, gcc))
        return PARSE_BAD;
    return PARSE_OK;
}

static void put_head(struct buffer *b, size_t len)
{
    buffer_put_be(b, 0x0300, 2);
    buffer_put_be(b, len, 2);
    buffer_put_be(b, 0x02f080, 3);
    if (len > TPKT_MAX)
        b->failed = true;
}

static void put_connect(struct buffer *b, uint8_t which, size_t len)
{
    size_t head = len < 0x80 ? 3 : len < 0x100 ? 4 : 5;

    put_head(b, TPKT_HEADER + 3 + head + len);
    buffer_put_u8(b, 0x7f);
    put_ber_head(b, which, len);
}

static void put_ber(struct buffer *b, uint8_t tag, struct cursor content)
{
    put_ber_head(b, tag, cursor_left(&content));
    buffer_put(b, content.at, cursor_left(&content));
}

void mcs_connect_initial_put(struct buffer *b, const struct mcs_connect *c, const void *gcc,
                             size_t len)
{
    static const uint8_t head[] = {BER_OCTETS, 1, 1, BER_OCTETS, 1, 1, BER_BOOLEAN, 1, 0xff};
    size_t total = sizeof(head) + ber_head(len) + len;

    for (size_t i = 0; i < 3; i++)
        total += ber_head(cursor_left(&c->parameters[i])) + cursor_left(&c->parameters[i]);
    put_connect(b, CONNECT_INITIAL, total);
    buffer_put(b, head, sizeof(head));
    for (size_t i = 0; i < 3; i++)
        put_ber(b, BER_SEQUENCE, c->parameters[i]);
    put_ber(b, BER_OCTETS, cursor_of(gcc, len));
}

void mcs_connect_response_put(struct buffer *b, struct cursor parameters, const void *gcc,
                              size_t len)
{
    static const uint8_t head[] = {BER_ENUMERATED, 1, 0, BER_INTEGER, 1, 0};
    size_t p = cursor_left(&parameters);

    put_connect(b, CONNECT_RESPONSE, sizeof(head) + ber_head(p) + p + ber_head(len) + len);
    buffer_put(b, head, sizeof(head));
    put_ber(b, BER_SEQUENCE, parameters);
    put_ber(b, BER_OCTETS, cursor_of(gcc, len));
}

/* ---- domain PDUs ---- */

static bool take_user(struct cursor *c, uint16_t *user)
{
    if (!cursor_be16(c, user) || *user > 0xffff - MCS_BASE_CHANNEL)
        return false;
    *user = (uint16_t)(*user + MCS_BASE_CHANNEL);
    return true;
}

/* PER: 7 bits, or 15 behind a set bit. */
static bool take_per_len(struct cursor *c, size_t *len)
{
    uint8_t high, low = 0;

    if (!cursor_u8(c, &high) || (high & 0x80 && !cursor_u8(c, &low)))
        return false;
    *len = high & 0x80 ? (size_t)(high & 0x7f) << 8 | low : high;
    return true;
}

static bool take_data(struct cursor *c, struct mcs_pdu *out)
{
    uint8_t priority;
    size_t len;

    return take_user(c, &out->user) && cursor_be16(c, &out->channel) && cursor_u8(c, &priority) &&
           take_per_len(c, &len) && len == cursor_left(c) && cursor_sub(c, len, &out->data);
}

/* The reason's three bits lie across two bytes. */
static bool take_ultimatum(struct cursor *c, uint8_t first, struct mcs_pdu *out)
{
    uint8_t second;

    if (!cursor_u8(c, &second))
        return false;
    out->result = (uint8_t)((first & 3) << 1 | second >> 7);
    return true;
}

static bool take_confirm(struct cursor *c, uint8_t first, struct mcs_pdu *out)
{
    uint16_t requested;

    if (!cursor_u8(c, &out->result))
        return false;
    if (out->result != 0) /* then the rest may be missing */
        return true;
    if (!(first & 2) || !take_user(c, &out->user))
        return false;
    return out->type == MCS_ATTACH_CONFIRM ||
           (cursor_be16(c, &requested) && cursor_be16(c, &out->channel));
}

enum parse mcs_parse(struct cursor body, struct mcs_pdu *out)
{
    uint8_t first;
    bool is_ok = false;

    memset(out, 0, sizeof(*out));
    if (!take_x224_data(&body) || !cursor_u8(&body, &first))
        return PARSE_BAD;
    out->type = (enum mcs_type)(first >> 2);
    switch (out->type) {
    case MCS_ERECT_DOMAIN:
    case MCS_ATTACH_REQUEST:
        is_ok = true;
        break;
    case MCS_ULTIMATUM:
        is_ok = take_ultimatum(&body, first, out);
        break;
    case MCS_JOIN_REQUEST:
        is_ok = take_user(&body, &out->user) && cursor_be16(&body, &out->channel);
        break;
    case MCS_ATTACH_CONFIRM:
    case MCS_JOIN_CONFIRM:
        is_ok = take_confirm(&body, first, out);
        break;
    case MCS_DATA_REQUEST:
    case MCS_DATA_INDICATION:
        is_ok = take_data(&body, out);
        break;
    }
    return is_ok ? PARSE_OK : PARSE_BAD;
}

void mcs_erect_put(struct buffer *b)
{
    put_head(b, 12);
    buffer_put_be(b, 0x0401000100, 5); /* height 0, interval 0 */
}

void mcs_attach_request_put(struct buffer *b)
{
    put_head(b, 8);
    buffer_put_u8(b, MCS_ATTACH_REQUEST << 2);
}

void mcs_attach_confirm_put(struct buffer *b, uint16_t user)
{
    put_head(b, 11);
    buffer_put_u8(b, MCS_ATTACH_CONFIRM << 2 | 2);
    buffer_put_u8(b, 0);
    buffer_put_be(b, (uint16_t)(user - MCS_BASE_CHANNEL), 2);
}

void mcs_join_request_put(struct buffer *b, uint16_t user, uint16_t channel)
{
    put_head(b, 12);
    buffer_put_u8(b, MCS_JOIN_REQUEST << 2);
    buffer_put_be(b, (uint16_t)(user - MCS_BASE_CHANNEL), 2);
    buffer_put_be(b, channel, 2);
}

void mcs_join_confirm_put(struct buffer *b, uint16_t user, uint16_t channel)
{
    put_head(b, 15);
    buffer_put_u8(b, MCS_JOIN_CONFIRM << 2 | 2);
    buffer_put_u8(b, 0);
    buffer_put_be(b, (uint16_t)(user - MCS_BASE_CHANNEL), 2);
    buffer_put_be(b, channel, 2);
    buffer_put_be(b, channel, 2);
}

void mcs_ultimatum_put(struct buffer *b, uint8_t reason)
{
    put_head(b, 9);
    buffer_put_u8(b, (uint8_t)(MCS_ULTIMATUM << 2 | reason >> 1));
    buffer_put_u8(b, (uint8_t)(reason << 7));
}

void mcs_data_put(struct buffer *b, enum mcs_type type, uint16_t user, uint16_t channel,
                  const void *data, size_t len)
{
    size_t head = len < 0x80 ? 14 : 15;

    put_head(b, head + len);
    buffer_put_u8(b, (uint8_t)(type << 2));
    buffer_put_be(b, (uint16_t)(user - MCS_BASE_CHANNEL), 2);
    buffer_put_be(b, channel, 2);
    buffer_put_u8(b, 0x70); /* high priority, whole */
    if (len >= 0x80)
        buffer_put_be(b, 0x8000 | len, 2);
    else
        buffer_put_u8(b, (uint8_t)len);
    buffer_put(b, data, len);
    if (len > 0x7fff)
        b->failed = true;
}
