/*
 * The lists of algorithms and the rules for users' keys; algorithms.h. Pure but for the calls that
 * hand the lists to libssh.
 */
#include "proxy/ssh/algorithms.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/cursor.h>
#include <sallyport/text.h>

#include "proxy/ssh/blob.h"
#include "proxy/ssh/libssh.h"

#define PQ_KEX "mlkem768x25519-sha256,sntrup761x25519-sha512,sntrup761x25519-sha512@openssh.com"

/* No SHA-1, no group below 2048 bits, no group exchange (it would need a file of moduli), and
 * group18 is left out for its price. */
#define KEX_FIRST PQ_KEX ",curve25519-sha256,curve25519-sha256@libssh.org"
#define KEX_LAST  "diffie-hellman-group16-sha512,diffie-hellman-group14-sha256"
static const char server_kex[] = KEX_FIRST "," KEX_LAST;
/* The NIST curves are for targets only: every client of the last ten years has a better one. */
static const char client_kex[] =
    KEX_FIRST ",ecdh-sha2-nistp256,ecdh-sha2-nistp384,ecdh-sha2-nistp521," KEX_LAST;

/* AEAD first: with AES in hardware it costs half of anything else. No CBC. The two plain MACs come
 * last, for libssh2 before 1.11 (curl) and Dropbear before 2020, which have nothing better than
 * counter mode with them. */
static const char ciphers[] = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,"
                              "chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr";
static const char macs[] = "hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,"
                           "hmac-sha2-256,hmac-sha2-512";

static const char host_keys[] = "ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
                                "ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256";

/* type of the key's blob, the signature algorithms it may be used with */
#define USER_KEYS(X)                                                              \
    X("ssh-ed25519", "ssh-ed25519")                                               \
    X("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519@openssh.com")                 \
    X("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256")                               \
    X("ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384")                               \
    X("ecdsa-sha2-nistp521", "ecdsa-sha2-nistp521")                               \
    X("sk-ecdsa-sha2-nistp256@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com") \
    X("ssh-rsa", "rsa-sha2-512,rsa-sha2-256")

struct key_row {
    const char *type;
    const char *signatures;
};

static const struct key_row user_keys[] = {
#define X(type, signatures) {type, signatures},
    USER_KEYS(X)
#undef X
};

/* The same list as libssh wants it, and as it is told to clients in server-sig-algs. */
static const char signatures[] =
#define X(type, signatures) "," signatures
    USER_KEYS(X)
#undef X
    ;

/* Towards a target with a certificate too; CAs are its business. */
static const char client_signatures[] =
#define X(type, signatures) signatures ","
    USER_KEYS(X)
#undef X
        "ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v01@openssh.com,"
        "ecdsa-sha2-nistp384-cert-v01@openssh.com,ecdsa-sha2-nistp521-cert-v01@openssh.com,"
        "rsa-sha2-512-cert-v01@openssh.com,rsa-sha2-256-cert-v01@openssh.com";

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Certificates of the types above: the broker reads and judges them, libssh checks the signature
 * with the key inside, whose algorithm is in the list above. */
static const char *const user_certs[] = {
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ssh-rsa-cert-v01@openssh.com",
};

struct server_row {
    enum ssh_bind_options_e option;
    const char *list;
};

int algorithms_set_server(ssh_bind bind)
{
    static const struct server_row rows[] = {
        {SSH_BIND_OPTIONS_KEY_EXCHANGE, server_kex},
        {SSH_BIND_OPTIONS_CIPHERS_C_S, ciphers},
        {SSH_BIND_OPTIONS_CIPHERS_S_C, ciphers},
        {SSH_BIND_OPTIONS_HMAC_C_S, macs},
        {SSH_BIND_OPTIONS_HMAC_S_C, macs},
        {SSH_BIND_OPTIONS_HOSTKEY_ALGORITHMS, host_keys},
        {SSH_BIND_OPTIONS_PUBKEY_ACCEPTED_KEY_TYPES, signatures + 1},
    };
    int rsa_bits = ALGORITHMS_RSA_MIN_BITS;

    for (size_t i = 0; i < COUNT(rows); i++) {
        if (ssh_bind_options_set(bind, rows[i].option, rows[i].list) != SSH_OK)
            return ERR_CRYPTO;
    }
    return ssh_bind_options_set(bind, SSH_BIND_OPTIONS_RSA_MIN_SIZE, &rsa_bits) == SSH_OK
               ? 0
               : ERR_CRYPTO;
}

int algorithms_set_accepted(ssh_session ssh)
{
    return ssh_options_set(ssh, SSH_OPTIONS_COMPRESSION_C_S, "none") == SSH_OK &&
                   ssh_options_set(ssh, SSH_OPTIONS_COMPRESSION_S_C, "none") == SSH_OK
               ? 0
               : ERR_CRYPTO;
}

struct client_row {
    enum ssh_options_e option;
    const char *list;
};

int algorithms_set_client(ssh_session ssh, const char *host_key_type)
{
    static const struct client_row rows[] = {
        {SSH_OPTIONS_KEY_EXCHANGE, client_kex},
        {SSH_OPTIONS_CIPHERS_C_S, ciphers},
        {SSH_OPTIONS_CIPHERS_S_C, ciphers},
        {SSH_OPTIONS_HMAC_C_S, macs},
        {SSH_OPTIONS_HMAC_S_C, macs},
        {SSH_OPTIONS_COMPRESSION_C_S, "none"},
        {SSH_OPTIONS_COMPRESSION_S_C, "none"},
        {SSH_OPTIONS_PUBLICKEY_ACCEPTED_TYPES, client_signatures},
    };
    const char *wanted = host_keys;
    int rsa_bits = ALGORITHMS_RSA_MIN_BITS;

    if (host_key_type[0] != '\0') {
        if (!algorithms_is_host_key(host_key_type))
            return ERR_INVALID;
        wanted =
            strcmp(host_key_type, "ssh-rsa") == 0 ? "rsa-sha2-512,rsa-sha2-256" : host_key_type;
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (ssh_options_set(ssh, rows[i].option, rows[i].list) != SSH_OK)
            return ERR_CRYPTO;
    }
    if (ssh_options_set(ssh, SSH_OPTIONS_HOSTKEYS, wanted) != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_RSA_MIN_SIZE, &rsa_bits) != SSH_OK)
        return ERR_CRYPTO;
    return 0;
}

bool algorithms_have_post_quantum(void)
{
    ssh_session ssh = ssh_new();
    bool have;

    if (!ssh)
        return false;
    have = ssh_options_set(ssh, SSH_OPTIONS_KEY_EXCHANGE, PQ_KEX) == SSH_OK;
    ssh_free(ssh);
    return have;
}

/* True when name is one of the comma separated items of list. */
static bool is_listed(const char *list, const char *name)
{
    size_t len = strlen(name);

    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, len) == 0 && (at[len] == ',' || at[len] == '\0'))
            return len > 0;
    }
    return false;
}

bool algorithms_is_host_key(const char *name)
{
    return strcmp(name, "ssh-rsa") == 0 ||
           (strncmp(name, "rsa-", 4) != 0 && !strchr(name, ',') && is_listed(host_keys, name));
}

static bool take_string(struct cursor *c, struct cursor *out)
{
    uint32_t len;

    return cursor_be32(c, &len) && cursor_sub(c, len, out);
}

/* Bits of a positive mpint (RFC 4251 §5), 0 when it is none. */
static size_t mpint_bits(struct cursor c)
{
    size_t bits;

    while (cursor_left(&c) > 0 && *c.at == 0)
        c.at++;
    if (cursor_left(&c) == 0)
        return 0;
    bits = (cursor_left(&c) - 1) * 8;
    for (unsigned top = *c.at; top != 0; top >>= 1)
        bits++;
    return bits;
}

static const struct key_row *find_user_key(const char *type)
{
    for (size_t i = 0; i < COUNT(user_keys); i++) {
        if (strcmp(user_keys[i].type, type) == 0)
            return &user_keys[i];
    }
    return NULL;
}

static bool is_user_cert(const char *type)
{
    for (size_t i = 0; i < COUNT(user_certs); i++) {
        if (strcmp(user_certs[i], type) == 0)
            return true;
    }
    return false;
}

const char *algorithms_check_key(const uint8_t *blob, size_t len, char *type, size_t type_len)
{
    struct cursor c = cursor_of(blob, len), name, e, n;

    if (!blob_type(blob, len, type, type_len))
        return "the key cannot be read";
    if (is_user_cert(type))
        return NULL;
    if (!find_user_key(type))
        return "keys of this type are not accepted";
    if (strcmp(type, "ssh-rsa") != 0)
        return NULL;
    if (!take_string(&c, &name) || !take_string(&c, &e) || !take_string(&c, &n))
        return "the key cannot be read";
    if (mpint_bits(n) < ALGORITHMS_RSA_MIN_BITS)
        return "RSA keys below 2048 bits are not accepted";
    return NULL;
}
