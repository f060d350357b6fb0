/*
 * Client Info, 2.2.1.11: who the client is at the proxy, and the same PDU with other credentials
 * for the target. Also UTF-16LE, which its texts are in.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

/* ---- UTF-16LE ---- */

static size_t utf8_put(char *dst, uint32_t cp)
{
    if (cp < 0x80) {
        dst[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        dst[0] = (char)(0xc0 | cp >> 6);
        dst[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        dst[0] = (char)(0xe0 | cp >> 12);
        dst[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        dst[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    dst[0] = (char)(0xf0 | cp >> 18);
    dst[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    dst[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    dst[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

/* One code point; surrogates must come in pairs. */
static bool take_utf16(struct cursor *in, uint32_t *cp)
{
    uint16_t a, b;

    if (!cursor_le16(in, &a))
        return false;
    *cp = a;
    if (a < 0xd800 || a > 0xdfff)
        return true;
    if (a > 0xdbff || !cursor_le16(in, &b) || b < 0xdc00 || b > 0xdfff)
        return false;
    *cp = 0x10000 + ((uint32_t)(a - 0xd800) << 10 | (uint32_t)(b - 0xdc00));
    return true;
}

bool utf16_to_utf8(struct cursor in, char *dst, size_t cap)
{
    size_t at = 0;
    uint32_t cp;

    dst[0] = '\0';
    while (!cursor_at_end(&in)) {
        if (!take_utf16(&in, &cp) || at + 5 > cap) {
            dst[0] = '\0';
            return false;
        }
        if (cp == 0)
            break;
        at += utf8_put(dst + at, cp);
    }
    dst[at] = '\0';
    return true;
}

/* One code point of UTF-8, shortest forms only; 0 when invalid. */
static uint32_t take_utf8(const uint8_t **at)
{
    const uint8_t *p = *at;
    size_t more = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    uint32_t cp = more == 0 ? *p : *p & (0x3fu >> more);

    if ((*p & 0xc0) == 0x80 || *p > 0xf4)
        return 0;
    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (p[i] & 0x3f);
    }
    if (cp < least[more] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return 0;
    *at += more + 1;
    return cp;
}

void utf16_put(struct buffer *b, const char *utf8)
{
    const uint8_t *at = (const uint8_t *)utf8;

    while (*at) {
        uint32_t cp = take_utf8(&at);

        if (cp == 0) {
            b->failed = true;
            return;
        }
        if (cp >= 0x10000) {
            buffer_put_le16(b, (uint16_t)(0xd800 + ((cp - 0x10000) >> 10)));
            buffer_put_le16(b, (uint16_t)(0xdc00 + ((cp - 0x10000) & 0x3ff)));
        } else {
            buffer_put_le16(b, (uint16_t)cp);
        }
    }
}

/* ---- Client Info ---- */

static bool take_text(struct cursor *c, const struct client_info *i, uint16_t len,
                      struct cursor *out)
{
    bool is_wide = i->flags & INFO_UNICODE;

    if (len > INFO_TEXT_MAX || (is_wide && len % 2))
        return false;
    return cursor_sub(c, len, out) && cursor_skip(c, is_wide ? 2 : 1);
}

enum parse client_info_parse(struct cursor data, struct client_info *out)
{
    struct cursor *texts[] = {&out->domain, &out->user, &out->password, &out->shell,
                              &out->directory};
    uint16_t flags, flags_high, lens[5];

    memset(out, 0, sizeof(*out));
    if (!cursor_le16(&data, &flags) || !cursor_le16(&data, &flags_high) ||
        !(flags & SEC_INFO_PKT) || !cursor_le32(&data, &out->code_page) ||
        !cursor_le32(&data, &out->flags))
        return PARSE_BAD;
    for (size_t i = 0; i < 5; i++)
        if (!cursor_le16(&data, &lens[i]))
            return PARSE_BAD;
    for (size_t i = 0; i < 5; i++)
        if (!take_text(&data, out, lens[i], texts[i]))
            return PARSE_BAD;
    out->extended = data;
    return PARSE_OK;
}

bool client_info_text(const struct client_info *i, struct cursor text, char *dst, size_t cap)
{
    size_t at = 0;
    bool is_ok;

    /* some clients count more than they send: the first NUL is the end */
    if (i->flags & INFO_UNICODE)
        return utf16_to_utf8(text, dst, cap);
    /* a client of the last century: its code page is taken for Latin-1 */
    is_ok = cap > cursor_left(&text) * 2;
    for (size_t n = 0; is_ok && n < cursor_left(&text) && text.at[n]; n++)
        at += utf8_put(dst + at, text.at[n]);
    dst[is_ok ? at : 0] = '\0';
    return is_ok;
}

static void put_wide(struct buffer *b, const struct client_info *i, struct cursor text)
{
    if (i->flags & INFO_UNICODE)
        buffer_put(b, text.at, cursor_left(&text));
    else
        for (size_t n = 0; n < cursor_left(&text); n++)
            buffer_put_le16(b, text.at[n]);
}

void client_info_put(struct buffer *b, const struct client_info *i, const char *domain,
                     const char *user, const char *password)
{
    const char *texts[3] = {domain, user, password};
    uint32_t flags = i->flags & ~(INFO_PASSWORD_IS_SC_PIN | INFO_USING_SAVED_CREDS);
    size_t at = b->len, start;

    flags |= INFO_UNICODE | INFO_LOGONERRORS;
    flags = password[0] ? flags | INFO_AUTOLOGON : flags & ~INFO_AUTOLOGON;
    buffer_put_le16(b, SEC_INFO_PKT);
    buffer_put_le16(b, 0);
    buffer_put_le32(b, i->code_page);
    buffer_put_le32(b, flags);
    for (size_t n = 0; n < 5; n++)
        buffer_put_le16(b, 0); /* lengths: below */
    for (size_t n = 0; n < 5; n++) {
        start = b->len;
        if (n < 3)
            utf16_put(b, texts[n]);
        else
            put_wide(b, i, n == 3 ? i->shell : i->directory);
        if (b->failed)
            return;
        put_le16(b->data + at + 12 + 2 * n, (uint16_t)(b->len - start));
        buffer_put_le16(b, 0);
    }
    buffer_put(b, i->extended.at, cursor_left(&i->extended));
}
