/*
 * Fingerprints of SSH public keys as `ssh-keygen -l` prints them: SHA256:BASE64 without padding.
 */
#ifndef SALLYPORT_FINGERPRINT_H
#define SALLYPORT_FINGERPRINT_H

#include <stddef.h>

#define FINGERPRINT_MAX 64 /* "SHA256:" + 43 + NUL fit */

/* blob: the public key in the format of RFC 4253 §6.6. Returns dst. */
const char *fingerprint_sha256(char dst[FINGERPRINT_MAX], const void *blob, size_t len);

#endif
