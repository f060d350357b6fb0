/* SHA256 fingerprints; see fingerprint.h. */
#include <sallyport/fingerprint.h>

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <string.h>

const char *fingerprint_sha256(char dst[FINGERPRINT_MAX], const void *blob, size_t len)
{
    static const char prefix[] = "SHA256:";
    uint8_t hash[SHA256_DIGEST_LENGTH];
    char *out = dst + sizeof(prefix) - 1;

    memcpy(dst, prefix, sizeof(prefix));
    SHA256(blob, len, hash);
    EVP_EncodeBlock((unsigned char *)out, hash, sizeof(hash));
    out[strcspn(out, "=")] = '\0';
    return dst;
}
