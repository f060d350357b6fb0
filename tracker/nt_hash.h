/*
 * The NT hash of a password, MS-NLMP 3.3.1 NTOWFv1: MD4 of its UTF-16LE. It is as good as the
 * password for NTLM, and quickly guessed: kept only for users who have NLA on, encrypted.
 */
#ifndef TRACKER_NT_HASH_H
#define TRACKER_NT_HASH_H

#include <stdint.h>

#include <sallyport/errors.h>

#define NT_HASH_LEN          16
#define NT_HASH_PASSWORD_MAX 512 /* bytes of UTF-8 */

/* ERR_INVALID: no UTF-8, empty or too long. ERR_CRYPTO: the TLS library has no MD4 (its legacy
 * provider is missing). */
MUST_CHECK int nt_hash(const char *password, uint8_t hash[NT_HASH_LEN]);

#endif
