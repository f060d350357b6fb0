/*
 * Framing: TPKT, fast-path PDUs and the preconnection blob. The only place that may say MORE.
 */
#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define TPKT_MIN     7 /* TPKT header and the shortest X.224 */
#define FASTPATH_MIN 3

static enum parse tpkt(struct cursor *c, size_t max, uint16_t *len)
{
    uint8_t version, reserved;

    if (!cursor_u8(c, &version) || !cursor_u8(c, &reserved) || !cursor_be16(c, len))
        return PARSE_MORE;
    return *len >= TPKT_MIN && *len <= max ? PARSE_OK : PARSE_BAD;
}

/* 2.2.8.1.2, 2.2.9.1.2: under TLS neither encryption nor checksum, so bits 6 and 7 are zero. */
static enum parse fastpath(struct cursor *c, size_t max, uint16_t *len)
{
    uint8_t first, high, low;

    if (!cursor_u8(c, &first))
        return PARSE_MORE;
    if (first & 0xc0)
        return PARSE_BAD;
    if (!cursor_u8(c, &high))
        return PARSE_MORE;
    *len = high;
    if (high & 0x80) {
        if (!cursor_u8(c, &low))
            return PARSE_MORE;
        *len = (uint16_t)((high & 0x7f) << 8 | low);
    }
    return *len >= FASTPATH_MIN && *len <= max ? PARSE_OK : PARSE_BAD;
}

enum parse frame_next(struct cursor *in, size_t max, struct frame *out)
{
    struct cursor c = *in; /* on a copy: MORE must consume nothing */
    uint16_t len = 0;
    enum parse r;

    if (cursor_at_end(&c))
        return PARSE_MORE;
    out->kind = (*c.at & 3) == 0 ? FRAME_FASTPATH : FRAME_TPKT;
    if (out->kind == FRAME_TPKT && *c.at != 3)
        return PARSE_BAD;
    r = out->kind == FRAME_TPKT ? tpkt(&c, max, &len) : fastpath(&c, max, &len);
    if (r != PARSE_OK)
        return r;
    out->data = in->at;
    out->len = len;
    out->head = (size_t)(c.at - in->at);
    if (len < out->head)
        return PARSE_BAD;
    return cursor_skip(in, len) ? PARSE_OK : PARSE_MORE;
}

enum parse preconnection_next(struct cursor *in, struct preconnection *out)
{
    struct cursor c = *in, pdu;
    uint32_t size, flags, version;
    uint16_t chars;

    if (cursor_left(&c) < 2)
        return PARSE_MORE;
    if (c.at[0] == 3 && c.at[1] == 0) /* a TPKT; no blob is 3 or 65539 bytes long */
        return PARSE_BAD;
    if (!cursor_le32(&c, &size))
        return PARSE_MORE;
    if (size < 16 || size > PRECONNECTION_MAX)
        return PARSE_BAD;
    c = *in;
    if (!cursor_sub(&c, size, &pdu))
        return PARSE_MORE;
    if (!cursor_skip(&pdu, 4) || !cursor_le32(&pdu, &flags) || !cursor_le32(&pdu, &version) ||
        !cursor_le32(&pdu, &out->id) || flags != 0 || (version != 1 && version != 2))
        return PARSE_BAD;
    out->blob = cursor_of(pdu.at, 0);
    if (version == 2) {
        if (!cursor_le16(&pdu, &chars) || !cursor_sub(&pdu, (size_t)chars * 2, &out->blob))
            return PARSE_BAD;
    }
    if (!cursor_at_end(&pdu))
        return PARSE_BAD;
    *in = c;
    return PARSE_OK;
}
