/* HMAC-SHA256 over a short binary text; see ticket.h. */
#include "proxy/broker/ticket.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/text.h>

#define TICKET_MAC  32
#define TICKET_HEAD (1 + 8 + 4 + 4) /* version, session, pid, attempts; the user follows */

size_t ticket_make(const uint8_t key[32], const struct ticket *t, uint8_t *out)
{
    struct buffer b;
    unsigned mac_len = 0;
    size_t len;

    buffer_init(&b, LINK_TICKET_MAX);
    buffer_put_be(&b, 1, 1);
    buffer_put_be(&b, t->session_id, 8);
    buffer_put_be(&b, (uint32_t)t->pid, 4);
    buffer_put_be(&b, t->attempts, 4);
    buffer_put_str(&b, t->user);
    if (b.failed) {
        buffer_finish(&b);
        return 0;
    }
    memcpy(out, b.data, b.len);
    len = b.len;
    buffer_finish(&b);
    if (!HMAC(EVP_sha256(), key, 32, out, len, out + len, &mac_len) || mac_len != TICKET_MAC)
        return 0;
    return len + TICKET_MAC;
}

int ticket_read(const uint8_t key[32], const uint8_t *data, size_t len, struct ticket *out)
{
    uint8_t mac[EVP_MAX_MD_SIZE], version;
    unsigned mac_len = 0;
    struct cursor c;
    uint32_t pid;
    const uint8_t *user;
    size_t user_len;

    memset(out, 0, sizeof(*out));
    if (len < TICKET_HEAD + TICKET_MAC || len > LINK_TICKET_MAX)
        return ERR_DENIED;
    if (!HMAC(EVP_sha256(), key, 32, data, len - TICKET_MAC, mac, &mac_len) ||
        CRYPTO_memcmp(mac, data + len - TICKET_MAC, TICKET_MAC) != 0)
        return ERR_DENIED;
    c = cursor_of(data, len - TICKET_MAC);
    if (!cursor_u8(&c, &version) || version != 1 || !cursor_be64(&c, &out->session_id) ||
        !cursor_be32(&c, &pid) || !cursor_be32(&c, &out->attempts))
        return ERR_DENIED;
    out->pid = (int32_t)pid;
    user_len = cursor_left(&c);
    if (user_len > NAME_MAX_LEN || !cursor_take(&c, user_len, &user))
        return ERR_DENIED;
    memcpy(out->user, user, user_len);
    return 0;
}
