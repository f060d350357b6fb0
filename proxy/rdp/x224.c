/*
 * X.224 Connection Request and Confirm with the negotiation of the security protocol, 2.2.1.1 and
 * 2.2.1.2. Also the three bytes in front of every MCS PDU are X.224; those are mcs.c's.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define TYPE_REQUEST 0xe0
#define TYPE_CONFIRM 0xd0
#define NEG_REQUEST  1
#define NEG_RESPONSE 2
#define NEG_FAILURE  3
#define NEG_LEN      8
#define FIXED        6 /* type, two references, class: what LI counts at least */

static const char cookie_prefix[] = "Cookie: mstshash=";

const char *x224_failure_text(uint32_t code)
{
    switch (code) {
#define X(value, name, text) \
    case value:              \
        return text;
        X224_FAILURE_LIST(X)
#undef X
    default:
        return "it gives a reason that is not known here";
    }
}

uint32_t x224_choose(uint32_t offered, enum link_nla nla, uint32_t *failure)
{
    uint32_t tls = offered & PROTOCOL_SSL_BIT, hybrid = 0;

    if (nla != LINK_NLA_OFF && offered & PROTOCOL_HYBRID_EX_BIT)
        hybrid = PROTOCOL_HYBRID_EX_BIT;
    else if (nla != LINK_NLA_OFF && offered & PROTOCOL_HYBRID_BIT)
        hybrid = PROTOCOL_HYBRID_BIT;
    *failure = nla == LINK_NLA_ONLY ? X224_FAILURE_HYBRID_REQUIRED : X224_FAILURE_SSL_REQUIRED;
    switch (nla) {
    case LINK_NLA_OFF:
    case LINK_NLA_LAST:
        return tls ? tls : hybrid;
    case LINK_NLA_FIRST:
        return hybrid ? hybrid : tls;
    case LINK_NLA_ONLY:
        return hybrid;
    }
    return 0;
}

/* The length indicator counts all that follows it. */
static bool take_head(struct cursor *body, uint8_t type)
{
    uint8_t li, got;

    return cursor_u8(body, &li) && li >= FIXED && li == cursor_left(body) &&
           cursor_u8(body, &got) && (got & 0xf0) == type && cursor_skip(body, FIXED - 1);
}

static void keep(char *dst, size_t cap, const uint8_t *from, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (from[i] < 0x20 || from[i] > 0x7e)
            return;
    if (len < cap) {
        memcpy(dst, from, len);
        dst[len] = '\0';
    }
}

/* A line that ends with CRLF, when there is one. */
static void take_token(struct cursor *body, struct x224_request *out)
{
    size_t left = cursor_left(body), prefix = sizeof(cookie_prefix) - 1;
    const uint8_t *start = body->at, *eol;
    size_t len;

    if (left < 2 || !(eol = memmem(start, left, "\r\n", 2)))
        return;
    len = (size_t)(eol - start);
    if (len >= prefix && memcmp(start, cookie_prefix, prefix) == 0)
        keep(out->cookie, sizeof(out->cookie), start + prefix, len - prefix);
    else
        keep(out->token, sizeof(out->token), start, len);
    body->at = eol + 2;
}

enum parse x224_request_parse(struct cursor body, struct x224_request *out)
{
    uint8_t type;
    uint16_t len;

    memset(out, 0, sizeof(*out));
    if (!take_head(&body, TYPE_REQUEST))
        return PARSE_BAD;
    take_token(&body, out);
    if (cursor_at_end(&body))
        return PARSE_OK;
    if (!cursor_u8(&body, &type) || type != NEG_REQUEST || !cursor_u8(&body, &out->flags) ||
        !cursor_le16(&body, &len) || len != NEG_LEN || !cursor_le32(&body, &out->protocols))
        return PARSE_BAD;
    out->has_negotiation = true; /* correlation info may follow: not used */
    return PARSE_OK;
}

static void put(struct buffer *b, uint8_t type, const char *token, uint8_t neg, uint8_t flags,
                uint32_t value)
{
    size_t extra = token[0] ? strlen(token) + 2 : 0;

    buffer_put_be(b, 0x0300, 2);
    buffer_put_be(b, TPKT_HEADER + 1 + FIXED + extra + NEG_LEN, 2);
    buffer_put_u8(b, (uint8_t)(FIXED + extra + NEG_LEN));
    buffer_put_u8(b, type);
    buffer_put_be(b, 0, 2);
    buffer_put_be(b, type == TYPE_CONFIRM ? 0x1234 : 0, 2);
    buffer_put_u8(b, 0);
    if (extra) {
        buffer_put_str(b, token);
        buffer_put_str(b, "\r\n");
    }
    buffer_put_u8(b, neg);
    buffer_put_u8(b, flags);
    buffer_put_le16(b, NEG_LEN);
    buffer_put_le32(b, value);
}

void x224_request_put(struct buffer *b, const char *token, uint32_t protocols)
{
    put(b, TYPE_REQUEST, strlen(token) <= X224_TOKEN_MAX ? token : "", NEG_REQUEST, 0, protocols);
}

enum parse x224_confirm_parse(struct cursor body, struct x224_confirm *out)
{
    uint8_t type;
    uint16_t len;

    memset(out, 0, sizeof(*out));
    if (!take_head(&body, TYPE_CONFIRM))
        return PARSE_BAD;
    if (cursor_at_end(&body))
        return PARSE_OK;
    if (!cursor_u8(&body, &type) || (type != NEG_RESPONSE && type != NEG_FAILURE) ||
        !cursor_u8(&body, &out->flags) || !cursor_le16(&body, &len) || len != NEG_LEN ||
        !cursor_le32(&body, &out->value) || !cursor_at_end(&body))
        return PARSE_BAD;
    out->has_negotiation = true;
    out->is_failure = type == NEG_FAILURE;
    return PARSE_OK;
}

void x224_confirm_put(struct buffer *b, uint8_t flags, uint32_t protocol)
{
    put(b, TYPE_CONFIRM, "", NEG_RESPONSE, flags, protocol);
}

void x224_failure_put(struct buffer *b, uint32_t code)
{
    put(b, TYPE_CONFIRM, "", NEG_FAILURE, 0, code);
}
