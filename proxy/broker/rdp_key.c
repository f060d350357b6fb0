/* See rdp_key.h. */
#include "proxy/broker/rdp_key.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

bool rdp_key_find(const struct secret *pem, struct rdp_key *out)
{
    BIO *bio = BIO_new_mem_buf(pem->data, pem->len);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    X509_PUBKEY *spki = certificate ? X509_get_X509_PUBKEY(certificate) : NULL;
    const uint8_t *key;
    int len;

    out->len = 0;
    if (spki && X509_PUBKEY_get0_param(NULL, &key, &len, NULL, spki) == 1 && len > 0 &&
        (size_t)len <= sizeof(out->data)) {
        out->len = (size_t)len;
        memcpy(out->data, key, out->len);
    }
    X509_free(certificate);
    BIO_free(bio);
    return out->len > 0;
}
