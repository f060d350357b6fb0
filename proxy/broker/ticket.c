/* HMAC-SHA256 over a short binary text; see ticket.h. */
#include "proxy/broker/ticket.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/text.h>

#define TICKET_MAC 32

/* The first byte, so that one is never taken for another. */
enum { KIND_TICKET = 1, KIND_TICKET_OF_JUMP = 2, KIND_PASS = 3 };
#define KIND_HAS_LOGIN 16 /* with what is special about the login, which most have nothing of */

/* Take what b holds and its HMAC to out; returns the length, 0 when something failed. */
static size_t seal(const uint8_t key[32], struct buffer *b, uint8_t *out)
{
    unsigned mac_len = 0;
    size_t len = b->failed || b->len + TICKET_MAC > LINK_TICKET_MAX ? 0 : b->len;

    if (len)
        memcpy(out, b->data, len);
    buffer_finish(b);
    if (!len || !HMAC(EVP_sha256(), key, 32, out, len, out + len, &mac_len) ||
        mac_len != TICKET_MAC)
        return 0;
    return len + TICKET_MAC;
}

/* What stands before a HMAC that is right. */
static int unseal(const uint8_t key[32], const uint8_t *data, size_t len, struct cursor *c)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_len = 0;

    if (len < 1 + TICKET_MAC || len > LINK_TICKET_MAX)
        return ERR_DENIED;
    if (!HMAC(EVP_sha256(), key, 32, data, len - TICKET_MAC, mac, &mac_len) ||
        CRYPTO_memcmp(mac, data + len - TICKET_MAC, TICKET_MAC) != 0)
        return ERR_DENIED;
    *c = cursor_of(data, len - TICKET_MAC);
    return 0;
}

static void put_name(struct buffer *b, const char *name)
{
    buffer_put_be(b, strlen(name), 1);
    buffer_put_str(b, name);
}

static bool get_name(struct cursor *c, char name[NAME_MAX_LEN + 1])
{
    const uint8_t *data;
    uint8_t len;

    if (!cursor_u8(c, &len) || len > NAME_MAX_LEN || !cursor_take(c, len, &data))
        return false;
    memcpy(name, data, len);
    name[len] = '\0';
    return true;
}

/* The last field of a ticket has no length. */
static bool get_rest(struct cursor *c, char name[NAME_MAX_LEN + 1])
{
    const uint8_t *data;
    size_t len = cursor_left(c);

    if (len > NAME_MAX_LEN || !cursor_take(c, len, &data))
        return false;
    memcpy(name, data, len);
    name[len] = '\0';
    return true;
}

static void put_login(struct buffer *b, uint32_t denies, bool has_second_factor)
{
    buffer_put_be(b, denies, 4);
    buffer_put_be(b, has_second_factor, 1);
}

static bool get_login(struct cursor *c, uint32_t *denies, bool *has_second_factor)
{
    uint8_t flag;

    if (!cursor_be32(c, denies) || !cursor_u8(c, &flag) || flag > 1)
        return false;
    *has_second_factor = flag;
    return true;
}

size_t ticket_make(const uint8_t key[32], const struct ticket *t, uint8_t *out)
{
    struct buffer b;

    bool has_login = t->denies || t->has_second_factor;
    unsigned kind = t->outer_pid ? KIND_TICKET_OF_JUMP : KIND_TICKET;

    buffer_init(&b, LINK_TICKET_MAX);
    buffer_put_be(&b, has_login ? kind | KIND_HAS_LOGIN : kind, 1);
    buffer_put_be(&b, t->session_id, 8);
    buffer_put_be(&b, (uint32_t)t->pid, 4);
    buffer_put_be(&b, t->attempts, 4);
    if (has_login)
        put_login(&b, t->denies, t->has_second_factor);
    if (t->outer_pid) {
        buffer_put_be(&b, (uint32_t)t->outer_pid, 4);
        buffer_put_be(&b, t->outer_channel, 4);
        put_name(&b, t->jump_target);
    }
    buffer_put_str(&b, t->user);
    return seal(key, &b, out);
}

static bool get_jump(struct cursor *c, struct ticket *out)
{
    uint32_t pid;

    if (!cursor_be32(c, &pid) || pid == 0 || !cursor_be32(c, &out->outer_channel) ||
        !get_name(c, out->jump_target))
        return false;
    out->outer_pid = (int32_t)pid;
    return true;
}

int ticket_read(const uint8_t key[32], const uint8_t *data, size_t len, struct ticket *out)
{
    uint8_t kind, has_login;
    struct cursor c;
    uint32_t pid;

    memset(out, 0, sizeof(*out));
    if (unseal(key, data, len, &c) < 0 || !cursor_u8(&c, &kind))
        return ERR_DENIED;
    has_login = kind & KIND_HAS_LOGIN;
    kind = (uint8_t)(kind & ~KIND_HAS_LOGIN);
    if ((kind != KIND_TICKET && kind != KIND_TICKET_OF_JUMP) ||
        !cursor_be64(&c, &out->session_id) || !cursor_be32(&c, &pid) ||
        !cursor_be32(&c, &out->attempts) ||
        (has_login && !get_login(&c, &out->denies, &out->has_second_factor)))
        return ERR_DENIED;
    out->pid = (int32_t)pid;
    if ((kind == KIND_TICKET_OF_JUMP && !get_jump(&c, out)) || !get_rest(&c, out->user))
        return ERR_DENIED;
    return 0;
}

size_t pass_make(const uint8_t key[32], const struct pass *p, uint8_t *out)
{
    struct buffer b;

    buffer_init(&b, LINK_TICKET_MAX);
    buffer_put_be(&b, KIND_PASS, 1);
    buffer_put_be(&b, p->nonce, 8);
    buffer_put_be(&b, (uint64_t)p->issued_ms, 8);
    buffer_put_be(&b, (uint32_t)p->outer_pid, 4);
    buffer_put_be(&b, p->outer_channel, 4);
    put_login(&b, p->denies, p->has_second_factor);
    put_name(&b, p->user);
    put_name(&b, p->target);
    return seal(key, &b, out);
}

int pass_read(const uint8_t key[32], const uint8_t *data, size_t len, struct pass *out)
{
    uint8_t kind;
    struct cursor c;
    uint64_t issued;
    uint32_t pid;

    memset(out, 0, sizeof(*out));
    if (unseal(key, data, len, &c) < 0 || !cursor_u8(&c, &kind) || kind != KIND_PASS ||
        !cursor_be64(&c, &out->nonce) || !cursor_be64(&c, &issued) || issued > INT64_MAX ||
        !cursor_be32(&c, &pid) || pid == 0 || !cursor_be32(&c, &out->outer_channel) ||
        !get_login(&c, &out->denies, &out->has_second_factor) || !get_name(&c, out->user) ||
        !get_name(&c, out->target) || !cursor_at_end(&c))
        return ERR_DENIED;
    out->issued_ms = (int64_t)issued;
    out->outer_pid = (int32_t)pid;
    return out->user[0] ? 0 : ERR_DENIED;
}

bool pass_is(const uint8_t *data, size_t len)
{
    return len > 0 && data[0] == KIND_PASS;
}
