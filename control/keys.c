/*
 * Reads key lines. One table of types, each with a function that walks the inside of its blob with
 * a cursor; everything is bounded by the blob. Called by the commands that take keys.
 */
#include "control/keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <sallyport/cursor.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

/* RFC 4251 §5: string */
static bool take_string(struct cursor *c, struct cursor *out)
{
    uint32_t len;

    return cursor_be32(c, &len) && cursor_sub(c, len, out);
}

static bool take_string_of(struct cursor *c, size_t len)
{
    struct cursor s;

    return take_string(c, &s) && cursor_left(&s) == len;
}

static bool take_string_is(struct cursor *c, const char *text)
{
    struct cursor s;

    return take_string(c, &s) && cursor_left(&s) == strlen(text) &&
           !memcmp(s.at, text, strlen(text));
}

/* RFC 4251 §5: mpint, positive; its bits. */
static bool take_mpint(struct cursor *c, size_t *bits)
{
    struct cursor s;
    uint8_t top;

    if (!take_string(c, &s) || cursor_at_end(&s) || (*s.at & 0x80))
        return false;
    while (!cursor_at_end(&s) && *s.at == 0)
        s.at++;
    if (cursor_at_end(&s))
        return false;
    top = *s.at;
    *bits = (cursor_left(&s) - 1) * 8;
    for (; top; top >>= 1)
        (*bits)++;
    return true;
}

static bool fail(char *err, size_t err_len, const char *text)
{
    text_copy(err, err_len, text);
    return false;
}

struct key_type;
typedef bool (*blob_fn)(const struct key_type *type, struct cursor *c, char *err, size_t err_len);

struct key_type {
    const char *name;
    bool is_for_hosts;
    blob_fn check;
    const char *curve; /* ECDSA */
    size_t point_len;
};

/* RFC 8709 §4 */
static bool check_ed25519(const struct key_type *type, struct cursor *c, char *err, size_t err_len)
{
    (void)type;
    return take_string_of(c, 32) || fail(err, err_len, "the key's inside is damaged");
}

/* RFC 5656 §3.1; the point is uncompressed (SEC 1, 2.3.3) */
static bool check_ecdsa(const struct key_type *type, struct cursor *c, char *err, size_t err_len)
{
    struct cursor point;

    if (!take_string_is(c, type->curve) || !take_string(c, &point) ||
        cursor_left(&point) != type->point_len || *point.at != 4)
        return fail(err, err_len, "the key's inside is damaged");
    return true;
}

/* RFC 4253 §6.6: e, n */
static bool check_rsa(const struct key_type *type, struct cursor *c, char *err, size_t err_len)
{
    size_t e_bits, n_bits;

    (void)type;
    if (!take_mpint(c, &e_bits) || !take_mpint(c, &n_bits) || e_bits < 2 || e_bits > 64)
        return fail(err, err_len, "the key's inside is damaged");
    if (n_bits >= KEY_RSA_MIN && n_bits <= KEY_RSA_MAX)
        return true;
    snprintf(err, err_len, "an RSA key of %zu bits; it must have %d to %d (ed25519 is better)",
             n_bits, KEY_RSA_MIN, KEY_RSA_MAX);
    return false;
}

/* OpenSSH PROTOCOL.u2f: the plain key and the application */
static bool check_sk(const struct key_type *type, struct cursor *c, char *err, size_t err_len)
{
    struct cursor application;
    bool is_ok =
        type->curve ? check_ecdsa(type, c, err, err_len) : check_ed25519(type, c, err, err_len);

    if (is_ok && !take_string(c, &application))
        return fail(err, err_len, "the key's inside is damaged");
    return is_ok;
}

#define TLS_KEY_TYPE "tls-spki" /* as proxy/rdp/tls.h has it */

/* RFC 5280 §4.1: SubjectPublicKeyInfo */
static bool check_spki(const struct public_key *key, char *err, size_t err_len)
{
    const unsigned char *at = key->blob;
    EVP_PKEY *parsed = d2i_PUBKEY(NULL, &at, key->blob_len);
    bool is_whole = parsed && at == key->blob + key->blob_len;

    EVP_PKEY_free(parsed);
    return is_whole || fail(err, err_len, "the key's inside is damaged");
}

static const struct key_type types[] = {
    {TLS_KEY_TYPE, true, NULL, NULL, 0},
    {"ssh-ed25519", true, check_ed25519, NULL, 0},
    {"ecdsa-sha2-nistp256", true, check_ecdsa, "nistp256", 65},
    {"ecdsa-sha2-nistp384", true, check_ecdsa, "nistp384", 97},
    {"ecdsa-sha2-nistp521", true, check_ecdsa, "nistp521", 133},
    {"ssh-rsa", true, check_rsa, NULL, 0},
    {"sk-ssh-ed25519@openssh.com", false, check_sk, NULL, 0},
    {"sk-ecdsa-sha2-nistp256@openssh.com", false, check_sk, "nistp256", 65},
};

static const struct key_type *type_find(const char *name, size_t len)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strlen(types[i].name) == len && !memcmp(types[i].name, name, len))
            return &types[i];
    }
    return NULL;
}

/* Why the first word is no key type that is taken. */
static void explain_type(const char *word, size_t len, char *err, size_t err_len)
{
    char quoted[96];

    if (len >= 5 && !memcmp(word, "-----", 5))
        text_copy(err, err_len,
                  "that is a private key or a certificate file; give the line of the "
                  ".pub file");
    else if (len == 7 && !memcmp(word, "ssh-dss", 7))
        text_copy(err, err_len, "DSA keys are not taken any more; make an ed25519 key");
    else if (memmem(word, len, "-cert-v01", 9))
        text_copy(err, err_len, "certificates are not taken; give the plain public key");
    else if (memchr(word, '=', len) || memchr(word, ',', len))
        text_copy(err, err_len, "options before a key are not taken; give \"TYPE BASE64 COMMENT\"");
    else
        snprintf(err, err_len,
                 "\"%s\" is no key type; give a line such as \"ssh-ed25519 AAAA... comment\"",
                 text_escape(quoted, sizeof(quoted), word, len));
}

/* RFC 4648 §4 with padding, and nothing else. */
static bool decode_base64(const char *text, size_t len, uint8_t *out, size_t out_max,
                          size_t *out_len)
{
    size_t padding = 0;
    int n;

    if (!len || len % 4 || len / 4 * 3 > out_max)
        return false;
    while (padding < 2 && text[len - 1 - padding] == '=')
        padding++;
    for (size_t i = 0; i < len - padding; i++) {
        char ch = text[i];
        if (!((ch >= 'A' && ch <= 'Z') || (ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') ||
              ch == '+' || ch == '/'))
            return false;
    }
    n = EVP_DecodeBlock(out, (const unsigned char *)text, (int)len);
    if (n < 0 || (size_t)n < padding)
        return false;
    *out_len = (size_t)n - padding;
    return true;
}

static bool check_blob(const struct key_type *type, const struct public_key *key, char *err,
                       size_t err_len)
{
    struct cursor c = cursor_of(key->blob, key->blob_len);

    if (!type->check)
        return check_spki(key, err, err_len);
    if (!take_string_is(&c, type->name))
        return fail(err, err_len, "the key's type and its inside differ; paste the line again");
    if (!type->check(type, &c, err, err_len))
        return false;
    return cursor_at_end(&c) || fail(err, err_len, "there is something behind the key's end");
}

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t");
}

/* The rest of the line, without blanks around it and cut at a whole character. */
static bool take_comment(const char *at, struct public_key *out)
{
    size_t len = strlen(at);

    while (len && strchr(" \t\r\n", at[len - 1]))
        len--;
    if (len >= sizeof(out->comment)) {
        len = sizeof(out->comment) - 1;
        while (len && ((unsigned char)at[len] & 0xc0) == 0x80)
            len--;
    }
    memcpy(out->comment, at, len);
    out->comment[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)out->comment[i] < 0x20 || out->comment[i] == 0x7f)
            return false;
    }
    return true;
}

int public_key_parse(const char *line, enum key_use use, struct public_key *out, char *err,
                     size_t err_len)
{
    uint8_t scratch[LINK_KEY_MAX + 3];
    const struct key_type *type;
    const char *word = line + strspn(line, " \t\r\n"), *base64;
    size_t word_len = strcspn(word, " \t\r\n"), base64_len, blob_len;

    *out = (struct public_key){0};
    type = type_find(word, word_len);
    if (!type) {
        explain_type(word, word_len, err, err_len);
        return ERR_INVALID;
    }
    if ((use == KEY_OF_TLS_HOST) != (type->check == NULL)) {
        text_copy(err, err_len,
                  type->check ? "an RDP target has a certificate: give \"tls-spki BASE64\", its "
                                "public key, or --accept-new"
                              : "tls-spki is the key of an RDP target's certificate");
        return ERR_INVALID;
    }
    if (use == KEY_OF_HOST && !type->is_for_hosts) {
        snprintf(err, err_len, "%s keys are users' keys, not host keys", type->name);
        return ERR_INVALID;
    }
    base64 = skip_blanks(word + word_len);
    base64_len = strcspn(base64, " \t\r\n");
    if (!decode_base64(base64, base64_len, scratch, sizeof(scratch), &blob_len) ||
        blob_len > sizeof(out->blob)) {
        text_copy(err, err_len, "the key is cut or damaged; paste the whole line again");
        return ERR_INVALID;
    }
    memcpy(out->blob, scratch, blob_len);
    out->blob_len = (uint16_t)blob_len;
    text_copy(out->type, sizeof(out->type), type->name);
    if (!check_blob(type, out, err, err_len))
        return ERR_INVALID;
    if (!take_comment(skip_blanks(base64 + base64_len), out)) {
        text_copy(err, err_len,
                  "give one key, on one line, its comment without control characters");
        return ERR_INVALID;
    }
    fingerprint_sha256(out->fingerprint, out->blob, out->blob_len);
    return 0;
}

char *public_key_line(const char *type, const uint8_t *blob, size_t blob_len, const char *comment)
{
    size_t type_len = strlen(type), comment_len = strlen(comment);
    size_t len = type_len + 1 + (blob_len + 2) / 3 * 4 + 1 + comment_len + 1;
    char *line = malloc(len), *at = line;

    if (!line)
        return NULL;
    memcpy(at, type, type_len);
    at += type_len;
    *at++ = ' ';
    at += EVP_EncodeBlock((unsigned char *)at, blob, (int)blob_len);
    if (comment_len) {
        *at++ = ' ';
        memcpy(at, comment, comment_len);
        at += comment_len;
    }
    *at = '\0';
    return line;
}

bool private_key_is(const char *text)
{
    text += strspn(text, " \t\r\n");
    return !strncmp(text, "-----BEGIN ", 11) && strstr(text, "PRIVATE KEY-----");
}

/* openssh-key-v1 (OpenSSH PROTOCOL.key): magic, then the cipher's name. */
static bool openssh_has_passphrase(const char *text)
{
    static const char begin[] = "-----BEGIN OPENSSH PRIVATE KEY-----", magic[] = "openssh-key-v1";
    const char *at = strstr(text, begin);
    char base64[61] = "";
    uint8_t head[48];
    size_t n = 0, len;
    struct cursor c, cipher;
    const uint8_t *p;
    bool has;

    if (!at)
        return false;
    for (at += sizeof(begin) - 1; *at && *at != '-' && n < 60; at++) {
        if (!strchr(" \t\r\n", *at))
            base64[n++] = *at;
    }
    if (n < 60 || !decode_base64(base64, n, head, sizeof(head), &len))
        return false; /* too short for any key: the relay will say so */
    c = cursor_of(head, len);
    has = cursor_take(&c, sizeof(magic), &p) && !memcmp(p, magic, sizeof(magic)) &&
          take_string(&c, &cipher) &&
          (cursor_left(&cipher) != 4 || memcmp(cipher.at, "none", 4) != 0);
    memory_wipe(base64, sizeof(base64));
    memory_wipe(head, sizeof(head));
    return has;
}

int private_key_check(const char *text, char *err, size_t err_len)
{
    if (!private_key_is(text) || !strstr(text, "-----END ")) {
        text_copy(err, err_len,
                  "the secret is no private key; give the whole file, from -----BEGIN "
                  "to -----END");
        return ERR_INVALID;
    }
    if (strstr(text, "ENCRYPTED") || openssh_has_passphrase(text)) {
        text_copy(err, err_len,
                  "the private key has a passphrase, which nobody could type; give one "
                  "without (the store encrypts it)");
        return ERR_INVALID;
    }
    return 0;
}

/* OpenSSH PROTOCOL.certkeys: the type's name, then a nonce. */
int certificate_check(const char *line, char *dst, size_t dst_len, char *err, size_t err_len)
{
    static const char ending[] = "-cert-v01@openssh.com";
    uint8_t blob[LINK_KEY_MAX + 3];
    const char *word = line + strspn(line, " \t\r\n"), *base64;
    size_t word_len = strcspn(word, " \t\r\n"), base64_len, blob_len;
    struct cursor c, name, nonce;

    base64 = skip_blanks(word + word_len);
    base64_len = strcspn(base64, " \t\r\n");
    if (word_len <= sizeof(ending) ||
        memcmp(word + word_len - (sizeof(ending) - 1), ending, sizeof(ending) - 1) != 0) {
        text_copy(err, err_len, "that is no certificate; give the line of the *-cert.pub file");
        return ERR_INVALID;
    }
    if (!decode_base64(base64, base64_len, blob, sizeof(blob), &blob_len)) {
        text_copy(err, err_len, "the certificate is cut, damaged or too long");
        return ERR_INVALID;
    }
    c = cursor_of(blob, blob_len);
    if (!take_string(&c, &name) || cursor_left(&name) != word_len ||
        memcmp(name.at, word, word_len) != 0 || !take_string(&c, &nonce)) {
        text_copy(err, err_len, "the certificate's type and its inside differ");
        return ERR_INVALID;
    }
    if ((size_t)snprintf(dst, dst_len, "%.*s %.*s", (int)word_len, word, (int)base64_len, base64) >=
        dst_len) {
        text_copy(err, err_len, "the certificate is too long");
        return ERR_INVALID;
    }
    return 0;
}
