/*
 * A FIDO authenticator in software, for tests: OpenSSH's middleware interface (PROTOCOL.u2f,
 * sk-api.h of OpenSSH 8.9 and newer), loaded by ssh-sk-helper through SecurityKeyProvider. The key
 * handle is the private key. SP_SK_FLAGS sets the flags that are claimed, 1: touched.
 */
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define API_VERSION 0x000a0000
#define ALG_ECDSA   0
#define ALG_ED25519 1
#define COUNTER     7

struct sk_option;

struct sk_enroll_response {
    uint8_t flags;
    uint8_t *public_key;
    size_t public_key_len;
    uint8_t *key_handle;
    size_t key_handle_len;
    uint8_t *signature;
    size_t signature_len;
    uint8_t *attestation_cert;
    size_t attestation_cert_len;
    uint8_t *authdata;
    size_t authdata_len;
};

struct sk_sign_response {
    uint8_t flags;
    uint32_t counter;
    uint8_t *sig_r;
    size_t sig_r_len;
    uint8_t *sig_s;
    size_t sig_s_len;
};

struct sk_resident_key;

uint32_t sk_api_version(void);
int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application,
              uint8_t flags, const char *pin, struct sk_option **options,
              struct sk_enroll_response **out);
int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application,
            const uint8_t *handle, size_t handle_len, uint8_t flags, const char *pin,
            struct sk_option **options, struct sk_sign_response **out);
int sk_load_resident_keys(const char *pin, struct sk_option **options,
                          struct sk_resident_key ***keys, size_t *count);

uint32_t sk_api_version(void)
{
    return API_VERSION;
}

static uint8_t *copy(const void *data, size_t len)
{
    uint8_t *out = malloc(len ? len : 1);

    if (out)
        memcpy(out, data, len);
    return out;
}

static EVP_PKEY *new_key(uint32_t alg)
{
    return alg == ALG_ED25519 ? EVP_PKEY_Q_keygen(NULL, NULL, "ED25519")
                              : EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
}

static int public_of(uint32_t alg, EVP_PKEY *key, uint8_t out[65], size_t *len)
{
    *len = 65;
    if (alg == ALG_ED25519)
        return EVP_PKEY_get_raw_public_key(key, out, len);
    return EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, out, 65, len);
}

int sk_enroll(uint32_t alg, const uint8_t *challenge, size_t challenge_len, const char *application,
              uint8_t flags, const char *pin, struct sk_option **options,
              struct sk_enroll_response **out)
{
    struct sk_enroll_response *r = calloc(1, sizeof(*r));
    EVP_PKEY *key = new_key(alg);
    uint8_t public[65], *handle = NULL;
    size_t public_len = 0;
    int handle_len;

    (void)challenge, (void)challenge_len, (void)application, (void)pin, (void)options;
    if (!r || !key || public_of(alg, key, public, &public_len) != 1)
        return -1;
    handle_len = i2d_PrivateKey(key, &handle);
    if (handle_len <= 0)
        return -1;
    r->flags = flags;
    r->public_key = copy(public, public_len);
    r->public_key_len = public_len;
    r->key_handle = copy(handle, (size_t)handle_len);
    r->key_handle_len = (size_t)handle_len;
    r->signature = copy("none", 4);
    r->signature_len = 4;
    *out = r;
    OPENSSL_free(handle);
    EVP_PKEY_free(key);
    return 0;
}

/* SHA-256(application), flags, counter, SHA-256(data) */
static void to_be_signed(const char *application, uint8_t flags, const uint8_t *data, size_t len,
                         uint8_t out[69])
{
    const uint8_t counter[4] = {0, 0, 0, COUNTER};

    EVP_Digest(application, strlen(application), out, NULL, EVP_sha256(), NULL);
    out[32] = flags;
    memcpy(out + 33, counter, 4);
    EVP_Digest(data, len, out + 37, NULL, EVP_sha256(), NULL);
}

static int split_ecdsa(const uint8_t *der, size_t len, struct sk_sign_response *r)
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    uint8_t number[32];

    if (!sig)
        return -1;
    r->sig_r_len = (size_t)BN_bn2bin(ECDSA_SIG_get0_r(sig), number);
    r->sig_r = copy(number, r->sig_r_len);
    r->sig_s_len = (size_t)BN_bn2bin(ECDSA_SIG_get0_s(sig), number);
    r->sig_s = copy(number, r->sig_s_len);
    ECDSA_SIG_free(sig);
    return 0;
}

int sk_sign(uint32_t alg, const uint8_t *data, size_t data_len, const char *application,
            const uint8_t *handle, size_t handle_len, uint8_t flags, const char *pin,
            struct sk_option **options, struct sk_sign_response **out)
{
    struct sk_sign_response *r = calloc(1, sizeof(*r));
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &handle, (long)handle_len);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t message[69], sig[128];
    size_t sig_len = sizeof(sig);
    const char *claimed = getenv("SP_SK_FLAGS");

    (void)pin, (void)options;
    r->flags = claimed ? (uint8_t)strtoul(claimed, NULL, 10) : flags;
    r->counter = COUNTER;
    to_be_signed(application, r->flags, data, data_len, message);
    if (!key || !ctx ||
        EVP_DigestSignInit_ex(ctx, NULL, alg == ALG_ED25519 ? NULL : "SHA256", NULL, NULL, key,
                              NULL) != 1 ||
        EVP_DigestSign(ctx, sig, &sig_len, message, sizeof(message)) != 1)
        return -1;
    if (alg == ALG_ED25519) {
        r->sig_r = copy(sig, sig_len);
        r->sig_r_len = sig_len;
    } else if (split_ecdsa(sig, sig_len, r) < 0) {
        return -1;
    }
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(key);
    *out = r;
    return 0;
}

int sk_load_resident_keys(const char *pin, struct sk_option **options,
                          struct sk_resident_key ***keys, size_t *count)
{
    (void)pin, (void)options, (void)keys;
    *count = 0;
    return -1;
}
