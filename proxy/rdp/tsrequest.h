/*
 * The messages of CredSSP, [MS-CSSP] 2.2.1: pure, bytes in and bytes out; OpenSSL's ASN.1 templates
 * do the DER. Fuzzed.
 */
#ifndef RDP_TSREQUEST_H
#define RDP_TSREQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/errors.h>

#define TSREQUEST_MAX       65536u
#define TSREQUEST_NONCE_LEN 32

/* TSRequest. What is empty is not there. */
struct tsrequest {
    uint32_t version;
    struct cursor nego_token;   /* the first of negoTokens */
    struct cursor auth_info;    /* TSCredentials, sealed */
    struct cursor pub_key_auth; /* sealed */
    bool has_error, has_nonce;
    uint32_t error_code; /* NTSTATUS */
    uint8_t nonce[TSREQUEST_NONCE_LEN];
};

/* TSPasswordCreds, UTF-8; a text that is too long or no UTF-16 is refused. */
struct tscredentials {
    char domain[512], user[512], password[1024];
};

/* How long the DER value at the cursor is; PARSE_BAD: no SEQUENCE, or longer than max. */
enum parse tsrequest_frame(const struct cursor *c, size_t max, size_t *len);

/* One whole message. The parts are copied to `keep`, from which they are borrowed. */
enum parse tsrequest_parse(struct cursor c, struct tsrequest *r, struct buffer *keep);
void tsrequest_put(struct buffer *b, const struct tsrequest *r);

enum parse tscredentials_parse(struct cursor c, struct tscredentials *t); /* wipe afterwards */
void tscredentials_put(struct buffer *b, const struct tscredentials *t);

/* The NTLM message inside a SPNEGO token (RFC 4178), or the token itself; empty: neither. */
struct cursor spnego_unwrap(struct cursor token, bool *is_wrapped);
/* NegTokenResp, accept-incomplete, with our NTLM message. */
void spnego_wrap(struct buffer *b, const uint8_t *token, size_t len);

#endif
