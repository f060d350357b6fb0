/*
 * Auto-reconnect cookies, 2.2.4 and 5.5: the target gives random bytes, the client shows their HMAC
 * later; under TLS the client's random number is all zeroes, so both sides' hash here is the same.
 */
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include <sallyport/secret.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/redirection.h"

#define ARC_LEN        28
#define ARC_RANDOM     16
#define CLIENT_RANDOM  32
#define TIME_ZONE      172
#define SESSION_PERF   8 /* clientSessionId and performanceFlags */
#define HASH_LABEL     "sallyport reconnect"
#define HASH_LABEL_LEN (sizeof(HASH_LABEL) - 1)

/* Of the logon id and the verifier: what is kept of a cookie opens nothing. */
static bool put_hash(uint32_t logon_id, const uint8_t verifier[ARC_RANDOM],
                     uint8_t hash[LINK_COOKIE])
{
    uint8_t text[HASH_LABEL_LEN + 4 + ARC_RANDOM];
    unsigned len = 0;
    bool is_ok;

    memcpy(text, HASH_LABEL, HASH_LABEL_LEN);
    put_le32(text + HASH_LABEL_LEN, logon_id);
    memcpy(text + HASH_LABEL_LEN + 4, verifier, ARC_RANDOM);
    is_ok = EVP_Digest(text, sizeof(text), hash, &len, EVP_sha256(), NULL) == 1;
    memory_wipe(text, sizeof(text));
    return is_ok && len == LINK_COOKIE;
}

/* ARC_CS_PRIVATE_PACKET; the server's, which looks the same, is logon_cookie_parse()'s. */
static bool take_arc(struct cursor *c, uint32_t *logon_id, const uint8_t **bytes)
{
    uint32_t len, version;

    return cursor_le32(c, &len) && len == ARC_LEN && cursor_le32(c, &version) && version == 1 &&
           cursor_le32(c, logon_id) && cursor_take(c, ARC_RANDOM, bytes);
}

bool arc_given(struct cursor body, uint8_t hash[LINK_COOKIE])
{
    static const uint8_t zeroes[CLIENT_RANDOM];
    uint8_t verifier[EVP_MAX_MD_SIZE];
    struct logon_cookie cookie;
    unsigned got = 0;

    if (!logon_cookie_parse(body, &cookie))
        return false;
    if (!HMAC(EVP_md5(), cookie.bits, ARC_RANDOM, zeroes, sizeof(zeroes), verifier, &got) ||
        got != ARC_RANDOM)
        return false;
    return put_hash(cookie.logon_id, verifier, hash);
}

/* The cookie and the length in front of it, in the extended part. */
static bool find(const struct client_info *info, struct cursor *cookie)
{
    struct cursor c = info->extended;
    uint16_t family, len;

    return cursor_le16(&c, &family) && cursor_le16(&c, &len) && cursor_skip(&c, len) &&
           cursor_le16(&c, &len) && cursor_skip(&c, len) && cursor_skip(&c, TIME_ZONE) &&
           cursor_skip(&c, SESSION_PERF) && cursor_le16(&c, &len) && len > 0 &&
           cursor_sub(&c, len, cookie);
}

bool arc_shown(const struct client_info *info, uint8_t hash[LINK_COOKIE])
{
    const uint8_t *verifier;
    struct cursor cookie;
    uint32_t logon_id;

    return find(info, &cookie) && take_arc(&cookie, &logon_id, &verifier) &&
           put_hash(logon_id, verifier, hash);
}

size_t arc_strip(uint8_t *data, size_t len, const struct client_info *info)
{
    struct cursor cookie;
    size_t at, n;

    if (!find(info, &cookie))
        return len;
    at = (size_t)(cookie.at - data);
    n = cursor_left(&cookie);
    put_le16(data + at - 2, 0);
    memmove(data + at, data + at + n, len - at - n);
    memory_wipe(data + len - n, n);
    return len - n;
}
