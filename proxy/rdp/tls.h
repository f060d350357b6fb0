/*
 * TLS for both legs: what the gate prepares (certificate, contexts), and what a leg asks for. TLS
 * 1.2 and 1.3, no renegotiation, no resumption, no tickets. A target's certificate is not judged
 * here: its public key is compared with the pinned one by proxy/rdp/target.c.
 */
#ifndef RDP_TLS_H
#define RDP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include <sallyport/errors.h>

#define TLS_KEY_TYPE "tls-spki" /* what a pinned key of a target is called */

/* Gate: a certificate, its chain or its private key, PEM; one blob may hold all of them. */
MUST_CHECK int tls_load(const char *pem, size_t len);
/* Gate, after the last tls_load(): make the contexts and rehearse a handshake, so that every relay
 * inherits what the library builds at first use. Negative after the reason was logged. */
MUST_CHECK int tls_prepare(void);

/* The same for a process that is a client only. */
MUST_CHECK int tls_prepare_client(void);
/* Instead of tls_load() and tls_prepare(): a key and a certificate of this process's own, for
 * `host`. */
MUST_CHECK int tls_make(const char *host);

/* A new connection over the non-blocking socket fd (borrowed), or NULL when out of memory. */
SSL *tls_server(int fd);
SSL *tls_client(int fd, const char *host);

/* The peer's public key (SubjectPublicKeyInfo, DER); 0 when there is none or it does not fit. */
size_t tls_peer_key(const SSL *ssl, uint8_t *dst, size_t cap);

/* The library's own words for the last failure. Returns dst. */
const char *tls_error(char *dst, size_t len);

#endif
