/* See nt_hash.h. Called by control where passwords are set, and at logins that tell one. */
#include "tracker/nt_hash.h"

#include <iconv.h>
#include <stdbool.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/provider.h>

#include <sallyport/secret.h>

/* MD4 lives in a provider that nobody else should find algorithms in: a context of its own. */
static bool md4(const void *data, size_t len, uint8_t hash[NT_HASH_LEN])
{
    OSSL_LIB_CTX *ctx = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *legacy = ctx ? OSSL_PROVIDER_load(ctx, "legacy") : NULL;
    EVP_MD *md = legacy ? EVP_MD_fetch(ctx, "MD4", NULL) : NULL;
    bool is_ok = md && EVP_Digest(data, len, hash, NULL, md, NULL) == 1;

    EVP_MD_free(md);
    if (legacy)
        OSSL_PROVIDER_unload(legacy);
    OSSL_LIB_CTX_free(ctx);
    return is_ok;
}

int nt_hash(const char *password, uint8_t hash[NT_HASH_LEN])
{
    char copy[NT_HASH_PASSWORD_MAX], wide[2 * NT_HASH_PASSWORD_MAX], *in = copy, *out = wide;
    size_t in_left = strlen(password), out_left = sizeof(wide);
    int r = ERR_INVALID;
    iconv_t cd;

    memset(hash, 0, NT_HASH_LEN);
    if (in_left == 0 || in_left > sizeof(copy))
        return ERR_INVALID;
    cd = iconv_open("UTF-16LE", "UTF-8");
    if (cd == (iconv_t)-1) /* NOLINT: iconv's own way to say it */
        return ERR_CRYPTO;
    memcpy(copy, password, in_left);
    if (iconv(cd, &in, &in_left, &out, &out_left) != (size_t)-1 && in_left == 0)
        r = md4(wide, sizeof(wide) - out_left, hash) ? 0 : ERR_CRYPTO;
    iconv_close(cd);
    memory_wipe(copy, sizeof(copy));
    memory_wipe(wide, sizeof(wide));
    return r;
}
