/* User certificates; see user_cert.h. What OpenSSH's sshkey.c and auth2-pubkey.c ask of one. */
#include "proxy/broker/user_cert.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdio.h>
#include <string.h>

#include <sallyport/network.h>
#include <sallyport/text.h>

#define CERT_USER     1
#define RSA_BITS_MIN  2048
#define RSA_BITS_MAX  16384
#define CERT_ALWAYS   UINT64_MAX
#define SIGNATURE_MAX (RSA_BITS_MAX / 8)
#define SK_SIGNED_LEN (32 + 1 + 4 + 32)

/* RFC 4251 §5: string */
static bool take_string(struct cursor *c, struct cursor *out)
{
    uint32_t len;
    struct cursor work = *c;

    if (!cursor_be32(&work, &len) || !cursor_sub(&work, len, out))
        return false;
    *c = work;
    return true;
}

static bool is_text(const struct cursor *c, const char *text)
{
    size_t len = strlen(text);

    return cursor_left(c) == len && memcmp(c->at, text, len) == 0;
}

/* A positive mpint without its leading zeros; its bits, 0 when it is none. */
static size_t mpint_bits(struct cursor *c)
{
    size_t bits;

    if (cursor_at_end(c) || (*c->at & 0x80))
        return 0;
    while (!cursor_at_end(c) && *c->at == 0)
        c->at++;
    if (cursor_at_end(c))
        return 0;
    bits = (cursor_left(c) - 1) * 8;
    for (unsigned top = *c->at; top; top >>= 1)
        bits++;
    return bits;
}

/* ---- public keys ---- */

/* A plain key as its blob has it: what follows the type's name. */
struct key_parts {
    struct cursor first, second; /* point or key; e and n */
    struct cursor application;   /* of FIDO keys */
};

struct key_type {
    const char *name;
    const char *curve; /* ECDSA, as SSH calls it */
    const char *group; /* as OpenSSL does */
    size_t point_len;
    bool is_rsa, is_sk;
    const char *digest;
};

static const struct key_type key_types[] = {
    {"ssh-ed25519", NULL, NULL, 32, false, false, NULL},
    {"ecdsa-sha2-nistp256", "nistp256", "P-256", 65, false, false, "SHA256"},
    {"ecdsa-sha2-nistp384", "nistp384", "P-384", 97, false, false, "SHA384"},
    {"ecdsa-sha2-nistp521", "nistp521", "P-521", 133, false, false, "SHA512"},
    {"ssh-rsa", NULL, NULL, 0, true, false, NULL},
    {"sk-ssh-ed25519@openssh.com", NULL, NULL, 32, false, true, NULL},
    {"sk-ecdsa-sha2-nistp256@openssh.com", "nistp256", "P-256", 65, false, true, "SHA256"},
};

/* name of a certificate, the type of the key in it */
static const struct {
    const char *name;
    const char *key;
} cert_types[] = {
    {"ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519"},
    {"ecdsa-sha2-nistp256-cert-v01@openssh.com", "ecdsa-sha2-nistp256"},
    {"ecdsa-sha2-nistp384-cert-v01@openssh.com", "ecdsa-sha2-nistp384"},
    {"ecdsa-sha2-nistp521-cert-v01@openssh.com", "ecdsa-sha2-nistp521"},
    {"ssh-rsa-cert-v01@openssh.com", "ssh-rsa"},
    {"sk-ssh-ed25519-cert-v01@openssh.com", "sk-ssh-ed25519@openssh.com"},
    {"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"},
};

static const struct key_type *key_type_of(const struct cursor *name)
{
    for (size_t i = 0; i < sizeof(key_types) / sizeof(key_types[0]); i++) {
        if (is_text(name, key_types[i].name))
            return &key_types[i];
    }
    return NULL;
}

/* The members of a key, checked as far as lengths go. */
static bool take_key(struct cursor *c, const struct key_type *type, struct key_parts *out)
{
    struct cursor curve, e, n;

    memset(out, 0, sizeof(*out));
    if (type->is_rsa) {
        size_t bits;

        if (!take_string(c, &out->first) || !take_string(c, &out->second))
            return false;
        e = out->first;
        n = out->second;
        bits = mpint_bits(&e);
        if (bits < 2 || bits > 64)
            return false;
        bits = mpint_bits(&n);
        return bits >= RSA_BITS_MIN && bits <= RSA_BITS_MAX;
    }
    if (type->curve && (!take_string(c, &curve) || !is_text(&curve, type->curve)))
        return false;
    if (!take_string(c, &out->first) || cursor_left(&out->first) != type->point_len ||
        (type->curve && *out->first.at != 4))
        return false;
    return !type->is_sk || take_string(c, &out->application);
}

/* ---- reading ---- */

bool user_cert_is(const uint8_t *blob, size_t len)
{
    struct cursor c = cursor_of(blob, len), name;

    return take_string(&c, &name) && memmem(name.at, cursor_left(&name), "-cert-v0", 8);
}

static const char *key_name_of_cert(const struct cursor *name)
{
    for (size_t i = 0; i < sizeof(cert_types) / sizeof(cert_types[0]); i++) {
        if (is_text(name, cert_types[i].name))
            return cert_types[i].key;
    }
    return NULL;
}

/* Strings to the end, `step` of them belong together; how many such there are, -1 when damaged. */
static int count_strings(struct cursor c, int step)
{
    struct cursor one;
    int count = 0;

    while (!cursor_at_end(&c)) {
        for (int i = 0; i < step; i++) {
            if (!take_string(&c, &one))
                return -1;
        }
        if (++count > USER_CERT_PRINCIPALS_MAX)
            return -1;
    }
    return count;
}

/* Unknown extensions are skipped, as PROTOCOL.certkeys says. */
static unsigned read_permits(struct cursor c)
{
    static const struct {
        const char *name;
        unsigned permit;
    } known[] = {{"permit-X11-forwarding", CERT_PERMIT_X11},
                 {"permit-agent-forwarding", CERT_PERMIT_AGENT},
                 {"permit-port-forwarding", CERT_PERMIT_FORWARD},
                 {"permit-pty", CERT_PERMIT_PTY}};
    struct cursor name, data;
    unsigned permits = 0;

    while (take_string(&c, &name) && take_string(&c, &data)) {
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            if (is_text(&name, known[i].name))
                permits |= known[i].permit;
        }
    }
    return permits;
}

static bool take_lists(struct cursor *c, struct user_cert *out)
{
    struct cursor extensions, reserved;

    if (!take_string(c, &out->principals) || !cursor_be64(c, &out->valid_after_s) ||
        !cursor_be64(c, &out->valid_before_s) || !take_string(c, &out->options) ||
        !take_string(c, &extensions) || !take_string(c, &reserved))
        return false;
    if (count_strings(out->principals, 1) < 0 || count_strings(out->options, 2) < 0 ||
        count_strings(extensions, 2) < 0)
        return false;
    out->permits = read_permits(extensions);
    return true;
}

int user_cert_parse(const uint8_t *blob, size_t len, struct user_cert *out)
{
    struct cursor c = cursor_of(blob, len), name, nonce, inner;
    const char *key_name;
    const struct key_type *type;
    struct key_parts parts;

    memset(out, 0, sizeof(*out));
    if (!take_string(&c, &name) || !(key_name = key_name_of_cert(&name)))
        return ERR_INVALID;
    inner = cursor_of(key_name, strlen(key_name));
    type = key_type_of(&inner);
    memcpy(out->type, name.at, cursor_left(&name)); /* one of the list: fits */
    if (!type || !take_string(&c, &nonce) || !take_key(&c, type, &parts) ||
        !cursor_be64(&c, &out->serial) || !cursor_be32(&c, &out->kind) ||
        !take_string(&c, &out->key_id) || !take_lists(&c, out) || !take_string(&c, &out->ca))
        return ERR_INVALID;
    out->signed_part = cursor_of(blob, (size_t)(c.at - blob));
    if (!take_string(&c, &out->signature) || !cursor_at_end(&c) ||
        user_cert_is(out->ca.at, cursor_left(&out->ca)))
        return ERR_INVALID; /* a certificate signs no certificate */
    return 0;
}

/* ---- the CA's signature ---- */

static bool push_rsa(OSSL_PARAM_BLD *build, const struct key_parts *parts, BIGNUM **e, BIGNUM **n)
{
    *e = BN_bin2bn(parts->first.at, (int)cursor_left(&parts->first), NULL);
    *n = BN_bin2bn(parts->second.at, (int)cursor_left(&parts->second), NULL);
    return *e && *n && OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, *e) == 1 &&
           OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, *n) == 1;
}

static bool push_ec(OSSL_PARAM_BLD *build, const struct key_type *type,
                    const struct key_parts *parts)
{
    return OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, type->group, 0) ==
               1 &&
           OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, parts->first.at,
                                            cursor_left(&parts->first)) == 1;
}

static EVP_PKEY *key_from_params(const struct key_type *type, const struct key_parts *parts)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type->is_rsa ? "RSA" : "EC", NULL);
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params = NULL;
    BIGNUM *e = NULL, *n = NULL;
    EVP_PKEY *key = NULL;
    bool ok = ctx && build &&
              (type->is_rsa ? push_rsa(build, parts, &e, &n) : push_ec(build, type, parts));

    if (ok)
        params = OSSL_PARAM_BLD_to_param(build);
    if (!params || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        key = NULL;
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    BN_free(e);
    BN_free(n);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static EVP_PKEY *make_key(const struct key_type *type, const struct key_parts *parts)
{
    if (type->is_rsa || type->curve)
        return key_from_params(type, parts);
    return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, parts->first.at,
                                       cursor_left(&parts->first));
}

/* RFC 5656 §3.1.2: two mpints; OpenSSL wants them as DER. Returns its length, 0 when damaged. */
static int ecdsa_der(struct cursor c, uint8_t *der, size_t der_max)
{
    struct cursor r, s;
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *br = NULL, *bs = NULL;
    int len = 0;

    if (sig && take_string(&c, &r) && take_string(&c, &s) && cursor_at_end(&c) &&
        mpint_bits(&r) > 0 && mpint_bits(&s) > 0 && cursor_left(&r) <= 66 &&
        cursor_left(&s) <= 66) {
        br = BN_bin2bn(r.at, (int)cursor_left(&r), NULL);
        bs = BN_bin2bn(s.at, (int)cursor_left(&s), NULL);
    }
    if (br && bs && ECDSA_SIG_set0(sig, br, bs) == 1) {
        uint8_t *at = der;

        br = bs = NULL; /* sig's now */
        len = i2d_ECDSA_SIG(sig, NULL);
        len = len > 0 && (size_t)len <= der_max ? i2d_ECDSA_SIG(sig, &at) : 0;
    }
    BN_free(br);
    BN_free(bs);
    ECDSA_SIG_free(sig);
    return len;
}

static bool verify(EVP_PKEY *key, const char *digest, const uint8_t *sig, size_t sig_len,
                   const uint8_t *data, size_t len)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = key && ctx &&
              EVP_DigestVerifyInit_ex(ctx, NULL, digest, NULL, NULL, key, NULL) == 1 &&
              EVP_DigestVerify(ctx, sig, sig_len, data, len) == 1;

    EVP_MD_CTX_free(ctx);
    return ok;
}

/* The algorithm that a signature names, for a key of this type: its digest. False: does not fit.
 * SHA-1 is no choice. */
static bool signature_digest(const struct key_type *type, const struct cursor *name,
                             const char **digest)
{
    *digest = type->digest;
    if (!type->is_rsa)
        return is_text(name, type->name);
    *digest = is_text(name, "rsa-sha2-512") ? "SHA512" : "SHA256";
    return is_text(name, "rsa-sha2-512") || is_text(name, "rsa-sha2-256");
}

/* OpenSSH PROTOCOL.u2f: what a FIDO key signs instead. tail: flags and counter. */
static bool sk_signed(const struct key_parts *parts, const struct cursor *data,
                      const struct cursor *tail, uint8_t out[SK_SIGNED_LEN])
{
    if (EVP_Digest(parts->application.at, cursor_left(&parts->application), out, NULL, EVP_sha256(),
                   NULL) != 1 ||
        EVP_Digest(data->at, cursor_left(data), out + 37, NULL, EVP_sha256(), NULL) != 1)
        return false;
    memcpy(out + 32, tail->at, 5);
    return true;
}

bool user_cert_is_signed(const struct user_cert *c, const uint8_t *ca, size_t ca_len)
{
    struct cursor at = c->ca, name, sig = c->signature, sig_name, sig_data, data = c->signed_part;
    const struct key_type *type;
    struct key_parts parts;
    const char *digest;
    uint8_t der[160], sk[SK_SIGNED_LEN];
    EVP_PKEY *key;
    bool ok;

    if (cursor_left(&c->ca) != ca_len || memcmp(c->ca.at, ca, ca_len) != 0 ||
        !take_string(&at, &name) || !(type = key_type_of(&name)) || !take_key(&at, type, &parts) ||
        !cursor_at_end(&at) || !take_string(&sig, &sig_name) || !take_string(&sig, &sig_data) ||
        !signature_digest(type, &sig_name, &digest) || cursor_left(&sig_data) > SIGNATURE_MAX)
        return false;
    if (type->is_sk) {
        if (cursor_left(&sig) != 5 || !sk_signed(&parts, &data, &sig, sk))
            return false;
        data = cursor_of(sk, sizeof(sk));
    } else if (!cursor_at_end(&sig)) {
        return false;
    }
    if (type->curve) {
        int len = ecdsa_der(sig_data, der, sizeof(der));

        sig_data = cursor_of(der, (size_t)len);
    }
    key = make_key(type, &parts);
    ok = verify(key, digest, sig_data.at, cursor_left(&sig_data), data.at, cursor_left(&data));
    EVP_PKEY_free(key);
    return ok;
}

/* ---- what it says ---- */

static bool in_list(const char *list, const struct cursor *word)
{
    while (*list) {
        size_t len = strcspn(list, ",");

        if (len == cursor_left(word) && memcmp(list, word->at, len) == 0)
            return len > 0;
        list += len + (list[len] == ',');
    }
    return false;
}

static bool has_principal(const struct user_cert *c, const char *wanted)
{
    struct cursor list = c->principals, one;

    while (take_string(&list, &one)) {
        if (in_list(wanted, &one))
            return true;
    }
    return false;
}

/* A list of networks with commas between; one that is damaged fits nobody, as with OpenSSH. */
static bool fits_sources(struct cursor list, const char *address)
{
    char text[2048], *at = text, *end;
    uint8_t numbers[16];
    bool fits = false;

    if (cursor_left(&list) >= sizeof(text) || memchr(list.at, 0, cursor_left(&list)) ||
        !network_address(address, numbers))
        return false;
    memcpy(text, list.at, cursor_left(&list));
    text[cursor_left(&list)] = '\0';
    for (; at; at = end ? end + 1 : NULL) {
        struct network one;

        end = strchr(at, ',');
        if (end)
            *end = '\0';
        if (network_parse(at, &one) < 0)
            return false;
        fits |= network_contains(&one, numbers);
    }
    return fits;
}

static const char *refuse_option(const struct cursor *name, const struct cursor *data,
                                 const char *address, char *why, size_t why_len)
{
    struct cursor inner = *data, value;
    char shown[64];

    if (is_text(name, "source-address")) {
        if (take_string(&inner, &value) && cursor_at_end(&inner) && fits_sources(value, address))
            return NULL;
        snprintf(why, why_len, "it may not be used from %s", address);
    } else if (is_text(name, "force-command")) {
        snprintf(why, why_len,
                 "it has a force-command, which this proxy cannot keep: sign one "
                 "without, and let a grant say what may be done");
    } else if (is_text(name, "verify-required")) {
        snprintf(why, why_len,
                 "it has verify-required, which this proxy cannot check: sign one "
                 "without");
    } else {
        snprintf(why, why_len, "it has the critical option %s, which is not known here",
                 text_escape(shown, sizeof(shown), (const char *)name->at, cursor_left(name)));
    }
    return why;
}

static const char *refuse_options(const struct user_cert *c, const char *address, char *why,
                                  size_t why_len)
{
    struct cursor list = c->options, name, data;
    const char *refusal = NULL;

    while (!refusal && take_string(&list, &name) && take_string(&list, &data))
        refusal = refuse_option(&name, &data, address, why, why_len);
    return refusal;
}

const char *user_cert_refusal(const struct user_cert *c, const char *principals,
                              const char *address, int64_t now_s, char *why, size_t why_len)
{
    char when[TIME_TEXT_MAX];
    uint64_t now = now_s < 0 ? 0 : (uint64_t)now_s;

    if (c->kind != CERT_USER) {
        snprintf(why, why_len, "it is a host certificate");
    } else if (now < c->valid_after_s) {
        snprintf(why, why_len, "it is not valid yet");
    } else if (c->valid_before_s != CERT_ALWAYS && now >= c->valid_before_s) {
        text_time_utc(when, sizeof(when),
                      c->valid_before_s < INT64_MAX / 1000000 ? (int64_t)c->valid_before_s * 1000000
                                                              : 0);
        snprintf(why, why_len, "it expired at %s", when);
    } else if (!has_principal(c, principals)) {
        snprintf(why, why_len, "it does not name the user as a principal");
    } else {
        return refuse_options(c, address, why, why_len);
    }
    return why;
}

void user_cert_describe(const struct user_cert *c, char *dst, size_t dst_len)
{
    char id[128];
    size_t len = cursor_left(&c->key_id);

    snprintf(dst, dst_len, "ID \"%s\" serial %llu",
             text_escape(id, sizeof(id), (const char *)c->key_id.at, len),
             (unsigned long long)c->serial);
}
