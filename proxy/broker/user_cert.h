/*
 * OpenSSH user certificates (OpenSSH PROTOCOL.certkeys): read, and judged against the trusted CAs.
 * Bytes in, verdict out: no file, no clock, no store; the fuzzer calls it as it is. That whoever
 * shows the certificate holds its key is not seen here: the relay's library checks that signature.
 */
#ifndef BROKER_USER_CERT_H
#define BROKER_USER_CERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/cursor.h>
#include <sallyport/errors.h>

#define USER_CERT_PRINCIPALS_MAX 256 /* as OpenSSH */

/* Extensions that mean something here. */
enum user_cert_permit {
    CERT_PERMIT_X11 = 1,
    CERT_PERMIT_AGENT = 2,
    CERT_PERMIT_FORWARD = 4,
    CERT_PERMIT_PTY = 8
};

/* Cursors borrow from the blob. */
struct user_cert {
    char type[64]; /* "ssh-ed25519-cert-v01@openssh.com" */
    uint64_t serial;
    uint32_t kind;        /* 1 user, 2 host */
    struct cursor key_id; /* free text of the CA's */
    struct cursor principals;
    uint64_t valid_after_s, valid_before_s; /* since 1970; UINT64_MAX: for ever */
    struct cursor options;                  /* critical ones */
    unsigned permits;                       /* enum user_cert_permit, a set */
    struct cursor ca;                       /* public key blob of the signer */
    struct cursor signature;
    struct cursor signed_part;
};

/* Does this blob call itself a certificate? */
bool user_cert_is(const uint8_t *blob, size_t len);

/* ERR_INVALID for what is not exactly one certificate of a known type with a sane key in it. */
MUST_CHECK int user_cert_parse(const uint8_t *blob, size_t len, struct user_cert *out);

/* Is the signature right? `ca` is one that we trust, byte for byte the one in the certificate. */
MUST_CHECK bool user_cert_is_signed(const struct user_cert *c, const uint8_t *ca, size_t ca_len);

/*
 * principals  those that are asked for: "alice" or "alice,ops"
 * address     of the client, in numbers
 * now_s       seconds since 1970
 *
 * NULL when it lets in, else the sentence why not, in why.
 */
MUST_CHECK const char *user_cert_refusal(const struct user_cert *c, const char *principals,
                                         const char *address, int64_t now_s, char *why,
                                         size_t why_len);

/* "ID "laptop of alice" serial 7", escaped, for events. */
void user_cert_describe(const struct user_cert *c, char *dst, size_t dst_len);

#endif
