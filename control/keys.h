/*
 * Public keys as people paste them: one line of an OpenSSH public key file, read, checked and
 * written. Users' keys and targets' host keys go through the same function. An RDP target's is its
 * certificate's public key: "tls-spki BASE64", the SubjectPublicKeyInfo in DER. Pure.
 */
#ifndef CONTROL_KEYS_H
#define CONTROL_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/fingerprint.h>
#include <sallyport/link.h>

#define KEY_LINE_MAX 16384 /* of text from outside */
#define KEY_RSA_MIN  2048
#define KEY_RSA_MAX  16384

enum key_use { KEY_OF_USER, KEY_OF_HOST, KEY_OF_TLS_HOST };

struct public_key {
    char type[64];
    uint8_t blob[LINK_KEY_MAX]; /* RFC 4253 §6.6 format, or DER */
    uint16_t blob_len;
    char fingerprint[FINGERPRINT_MAX];
    char comment[128]; /* cut, in printable UTF-8 as it came */
};

/*
 * line  "TYPE BASE64 [COMMENT]"; surrounding blanks and one newline are fine
 *
 * ERR_INVALID with a sentence that says what to do when it is something else, a type not in the
 * list (PROTOCOL.md), a blob whose inner type differs or that does not parse to its end, an RSA key
 * under KEY_RSA_MIN bits.
 */
MUST_CHECK int public_key_parse(const char *line, enum key_use use, struct public_key *out,
                                char *err, size_t err_len);

/* "TYPE BASE64[ COMMENT]" for a blob; NULL when memory is out. The caller frees. */
char *public_key_line(const char *type, const uint8_t *blob, size_t blob_len, const char *comment);

/*
 * A private key that a target is to be logged in with: PEM or OpenSSH text, without a passphrase.
 * Only its wrapping is looked at; the relay's library reads it. ERR_INVALID with a sentence.
 */
MUST_CHECK int private_key_check(const char *text, char *err, size_t err_len);
bool private_key_is(const char *text); /* does it look like one? */

/* A user certificate for such a key: the line of a *-cert.pub file. Writes "TYPE BASE64" to dst.
 * The target judges it; here only its shape is looked at. ERR_INVALID with a sentence. */
MUST_CHECK int certificate_check(const char *line, char *dst, size_t dst_len, char *err,
                                 size_t err_len);

#endif
