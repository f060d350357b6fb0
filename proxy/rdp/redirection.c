/*
 * Server Redirection, 2.2.13.1: an address, a routing token, credentials and a certificate for the
 * next server; see redirection.h. redirect.c acts on it.
 */
#include "proxy/rdp/redirection.h"

#include <openssl/evp.h>
#include <string.h>

#include <sallyport/secret.h>

#include "proxy/rdp/le.h"

#define LB_TARGET_NETBIOS     0x00000200u
#define LB_NET_ADDRESSES      0x00000800u
#define LB_CLIENT_TSV_URL     0x00001000u
#define LB_REDIRECTION_GUID   0x00008000u
#define LB_TARGET_CERTIFICATE 0x00010000u

#define ELEMENT_CERTIFICATE 32 /* of TARGET_CERTIFICATE_CONTAINER */
#define ENCODING_DER        1
#define BASE64_MAX          (REDIRECTION_CERT_MAX * 4 / 3 + 64)

/* The fields in their order, each with a length in front. */
struct field {
    uint32_t flag;
    struct cursor value;
};

static bool take_field(struct cursor *c, uint32_t flags, struct field *f)
{
    uint32_t len;

    f->value = cursor_of(c->at, 0);
    if (!(flags & f->flag))
        return true;
    return cursor_le32(c, &len) && cursor_sub(c, len, &f->value);
}

/* False when it is there and cannot be a text. */
static bool put_text(char dst[REDIRECTION_TEXT_MAX], const struct field *f)
{
    return cursor_at_end(&f->value) || utf16_to_utf8(f->value, dst, REDIRECTION_TEXT_MAX);
}

/* One printable line, whose end is optional. */
static bool put_token(struct redirection *out, struct cursor token)
{
    size_t len = cursor_left(&token);

    if (len >= 2 && memcmp(token.at + len - 2, "\r\n", 2) == 0)
        len -= 2;
    if (len > X224_TOKEN_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (token.at[i] < 0x20 || token.at[i] > 0x7e)
            return false;
    memcpy(out->token, token.at, len);
    return true;
}

enum parse redirection_parse(struct cursor data, struct redirection *out)
{
    enum { ADDRESS, TOKEN, USER, DOMAIN, PASSWORD, FQDN, NETBIOS, TSV, GUID, CERTIFICATE, COUNT };
    struct field f[COUNT] = {
        [ADDRESS] = {.flag = LB_TARGET_NET_ADDRESS},
        [TOKEN] = {.flag = LB_LOAD_BALANCE_INFO},
        [USER] = {.flag = LB_USERNAME},
        [DOMAIN] = {.flag = LB_DOMAIN},
        [PASSWORD] = {.flag = LB_PASSWORD},
        [FQDN] = {.flag = LB_TARGET_FQDN},
        [NETBIOS] = {.flag = LB_TARGET_NETBIOS},
        [TSV] = {.flag = LB_CLIENT_TSV_URL},
        [GUID] = {.flag = LB_REDIRECTION_GUID},
        [CERTIFICATE] = {.flag = LB_TARGET_CERTIFICATE},
    };
    uint16_t mark, len;

    memset(out, 0, sizeof(*out));
    if (!cursor_le16(&data, &mark) || mark != SEC_REDIRECTION_PKT || !cursor_le16(&data, &len) ||
        !cursor_le32(&data, &out->session_id) || !cursor_le32(&data, &out->flags))
        return PARSE_BAD;
    for (size_t i = 0; i < COUNT; i++)
        if (!take_field(&data, out->flags, &f[i]))
            return PARSE_BAD;
    if (f[TOKEN].value.at != f[TOKEN].value.end) /* balances where it was */
        f[ADDRESS].value = f[FQDN].value = cursor_of(data.at, 0);
    if (!put_token(out, f[TOKEN].value) || !put_text(out->user, &f[USER]) ||
        !put_text(out->domain, &f[DOMAIN]) ||
        !put_text(out->host, cursor_at_end(&f[ADDRESS].value) ? &f[FQDN] : &f[ADDRESS]))
        return PARSE_BAD;
    if (!(out->flags & LB_PASSWORD_IS_PK_ENCRYPTED) && !put_text(out->password, &f[PASSWORD]))
        return PARSE_BAD;
    out->certificate = f[CERTIFICATE].value;
    return PARSE_OK;
}

/* Base64 in UTF-16; returns the bytes behind it, 0 for none. */
static size_t take_base64(struct cursor field, uint8_t *dst, size_t cap)
{
    uint8_t text[BASE64_MAX];
    size_t len = 0, padding;
    uint16_t unit;
    int n;

    while (cursor_le16(&field, &unit) && unit) {
        if (unit > 0x7e || len == sizeof(text))
            return 0;
        if (unit > 0x20)
            text[len++] = (uint8_t)unit;
    }
    if (len == 0 || len % 4 || len / 4 * 3 > cap)
        return 0;
    padding = (text[len - 1] == '=') + (size_t)(text[len - 2] == '=');
    n = EVP_DecodeBlock(dst, text, (int)len);
    return n < 0 || (size_t)n < padding ? 0 : (size_t)n - padding;
}

size_t redirection_certificate(struct cursor field, uint8_t der[REDIRECTION_CERT_MAX])
{
    uint8_t container[REDIRECTION_CERT_MAX + 64];
    struct cursor c = cursor_of(container, take_base64(field, container, sizeof(container))), body;
    uint32_t type, encoding, len;

    while (cursor_le32(&c, &type) && cursor_le32(&c, &encoding) && cursor_le32(&c, &len) &&
           cursor_sub(&c, len, &body)) {
        if (type != ELEMENT_CERTIFICATE || encoding != ENCODING_DER || len > REDIRECTION_CERT_MAX)
            continue;
        memcpy(der, body.at, len);
        return len;
    }
    return 0;
}
