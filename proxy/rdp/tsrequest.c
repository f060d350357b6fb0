/*
 * TSRequest and TSCredentials of [MS-CSSP] 2.2.1, and the shell of SPNEGO (RFC 4178) around NTLM;
 * tsrequest.h. The sequence rules are proxy/rdp/credssp.c's.
 */
#include "proxy/rdp/tsrequest.h"

#include <string.h>

#include <openssl/asn1t.h>
#include <openssl/crypto.h>
#include <openssl/objects.h>

#include <sallyport/secret.h>

#include "proxy/rdp/wire.h"

/* ---- the schema ---- */

typedef struct {
    ASN1_OCTET_STRING *token;
} NEGO_TOKEN;

DECLARE_ASN1_FUNCTIONS(NEGO_TOKEN)
DEFINE_STACK_OF(NEGO_TOKEN)

typedef struct {
    ASN1_INTEGER *version;
    STACK_OF(NEGO_TOKEN) * tokens;
    ASN1_OCTET_STRING *auth_info;
    ASN1_OCTET_STRING *pub_key_auth;
    ASN1_INTEGER *error_code;
    ASN1_OCTET_STRING *nonce;
} TS_REQUEST;

DECLARE_ASN1_FUNCTIONS(TS_REQUEST)

typedef struct {
    ASN1_OCTET_STRING *domain, *user, *password;
} TS_PASSWORD;

DECLARE_ASN1_FUNCTIONS(TS_PASSWORD)

typedef struct {
    ASN1_INTEGER *type;
    ASN1_OCTET_STRING *credentials;
} TS_CREDENTIALS;

DECLARE_ASN1_FUNCTIONS(TS_CREDENTIALS)

/* NegTokenResp; what NTLM needs of it */
typedef struct {
    ASN1_ENUMERATED *state;
    ASN1_OBJECT *mech;
    ASN1_OCTET_STRING *token;
    ASN1_OCTET_STRING *mic;
} NEG_RESPONSE;

DECLARE_ASN1_FUNCTIONS(NEG_RESPONSE)

/* clang-format off */
ASN1_SEQUENCE(NEGO_TOKEN) = {
    ASN1_EXP(NEGO_TOKEN, token, ASN1_OCTET_STRING, 0),
} ASN1_SEQUENCE_END(NEGO_TOKEN)

ASN1_SEQUENCE(TS_REQUEST) = {
    ASN1_EXP(TS_REQUEST, version, ASN1_INTEGER, 0),
    ASN1_EXP_SEQUENCE_OF_OPT(TS_REQUEST, tokens, NEGO_TOKEN, 1),
    ASN1_EXP_OPT(TS_REQUEST, auth_info, ASN1_OCTET_STRING, 2),
    ASN1_EXP_OPT(TS_REQUEST, pub_key_auth, ASN1_OCTET_STRING, 3),
    ASN1_EXP_OPT(TS_REQUEST, error_code, ASN1_INTEGER, 4),
    ASN1_EXP_OPT(TS_REQUEST, nonce, ASN1_OCTET_STRING, 5),
} ASN1_SEQUENCE_END(TS_REQUEST)

ASN1_SEQUENCE(TS_PASSWORD) = {
    ASN1_EXP(TS_PASSWORD, domain, ASN1_OCTET_STRING, 0),
    ASN1_EXP(TS_PASSWORD, user, ASN1_OCTET_STRING, 1),
    ASN1_EXP(TS_PASSWORD, password, ASN1_OCTET_STRING, 2),
} ASN1_SEQUENCE_END(TS_PASSWORD)

ASN1_SEQUENCE(TS_CREDENTIALS) = {
    ASN1_EXP(TS_CREDENTIALS, type, ASN1_INTEGER, 0),
    ASN1_EXP(TS_CREDENTIALS, credentials, ASN1_OCTET_STRING, 1),
} ASN1_SEQUENCE_END(TS_CREDENTIALS)

ASN1_SEQUENCE(NEG_RESPONSE) = {
    ASN1_EXP_OPT(NEG_RESPONSE, state, ASN1_ENUMERATED, 0),
    ASN1_EXP_OPT(NEG_RESPONSE, mech, ASN1_OBJECT, 1),
    ASN1_EXP_OPT(NEG_RESPONSE, token, ASN1_OCTET_STRING, 2),
    ASN1_EXP_OPT(NEG_RESPONSE, mic, ASN1_OCTET_STRING, 3),
} ASN1_SEQUENCE_END(NEG_RESPONSE)

IMPLEMENT_ASN1_FUNCTIONS(NEGO_TOKEN)
IMPLEMENT_ASN1_FUNCTIONS(TS_REQUEST)
IMPLEMENT_ASN1_FUNCTIONS(TS_PASSWORD)
IMPLEMENT_ASN1_FUNCTIONS(TS_CREDENTIALS)
IMPLEMENT_ASN1_FUNCTIONS(NEG_RESPONSE)
    /* clang-format on */

    /* ---- messages ---- */

    enum parse tsrequest_frame(const struct cursor *c, size_t max, size_t *len)
{
    struct cursor head = *c;
    uint8_t tag, first;
    uint64_t body;

    if (!cursor_u8(&head, &tag) || !cursor_u8(&head, &first))
        return PARSE_MORE;
    if (tag != (V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED) || first == 0x80 || first > 0x83)
        return PARSE_BAD;
    if (first < 0x80)
        body = first;
    else if (!cursor_be(&head, first & 0x7fu, &body))
        return PARSE_MORE;
    *len = (size_t)(head.at - c->at) + (size_t)body;
    if (*len > max)
        return PARSE_BAD;
    return *len <= cursor_left(c) ? PARSE_OK : PARSE_MORE;
}

/* Keep a part's bytes; offsets first, since the buffer moves while it grows. */
struct span {
    size_t at, len;
};

static struct span keep_part(struct buffer *keep, const ASN1_OCTET_STRING *part)
{
    struct span s = {keep->len, part ? (size_t)ASN1_STRING_length(part) : 0};

    if (s.len)
        buffer_put(keep, ASN1_STRING_get0_data(part), s.len);
    return s;
}

static struct cursor span_cursor(const struct buffer *keep, struct span s)
{
    return cursor_of(s.len ? keep->data + s.at : NULL, s.len);
}

static bool take_numbers(const TS_REQUEST *ts, struct tsrequest *r)
{
    int64_t value;

    if (ASN1_INTEGER_get_int64(&value, ts->version) != 1 || value < 2 || value > 255)
        return false;
    r->version = (uint32_t)value;
    if (ts->error_code) { /* an NTSTATUS, which DER takes for a negative number */
        if (ASN1_INTEGER_get_int64(&value, ts->error_code) != 1)
            return false;
        r->error_code = (uint32_t)value;
        r->has_error = true;
    }
    if (ts->nonce) {
        if (ASN1_STRING_length(ts->nonce) != TSREQUEST_NONCE_LEN)
            return false;
        memcpy(r->nonce, ASN1_STRING_get0_data(ts->nonce), TSREQUEST_NONCE_LEN);
        r->has_nonce = true;
    }
    return true;
}

enum parse tsrequest_parse(struct cursor c, struct tsrequest *r, struct buffer *keep)
{
    const uint8_t *at = c.at;
    TS_REQUEST *ts = NULL;
    NEGO_TOKEN *nego;
    struct span token, info, key;
    bool is_ok;

    memset(r, 0, sizeof(*r));
    if (cursor_left(&c) > TSREQUEST_MAX)
        return PARSE_BAD;
    ts = d2i_TS_REQUEST(NULL, &at, (long)cursor_left(&c));
    is_ok = ts && at == c.end && take_numbers(ts, r);
    if (is_ok) {
        nego = ts->tokens ? sk_NEGO_TOKEN_value(ts->tokens, 0) : NULL;
        token = keep_part(keep, nego ? nego->token : NULL);
        info = keep_part(keep, ts->auth_info);
        key = keep_part(keep, ts->pub_key_auth);
        r->nego_token = span_cursor(keep, token);
        r->auth_info = span_cursor(keep, info);
        r->pub_key_auth = span_cursor(keep, key);
        is_ok = !keep->failed;
    }
    TS_REQUEST_free(ts);
    return is_ok ? PARSE_OK : PARSE_BAD;
}

/* True when there is nothing to set, too. */
static bool set_part(ASN1_OCTET_STRING **part, const void *data, size_t len)
{
    if (len == 0)
        return true;
    return (*part || (*part = ASN1_OCTET_STRING_new())) && len <= TSREQUEST_MAX &&
           ASN1_OCTET_STRING_set(*part, data, (int)len) == 1;
}

static bool set_cursor(ASN1_OCTET_STRING **part, struct cursor c)
{
    return set_part(part, c.at, cursor_left(&c));
}

static bool set_token(TS_REQUEST *ts, struct cursor token)
{
    NEGO_TOKEN *nego;

    if (cursor_at_end(&token))
        return true;
    if (!(ts->tokens = sk_NEGO_TOKEN_new_null()) || !(nego = NEGO_TOKEN_new()))
        return false;
    if (set_cursor(&nego->token, token) && sk_NEGO_TOKEN_push(ts->tokens, nego) > 0)
        return true;
    NEGO_TOKEN_free(nego);
    return false;
}

static bool set_error(TS_REQUEST *ts, const struct tsrequest *r)
{
    return !r->has_error || ((ts->error_code = ASN1_INTEGER_new()) &&
                             ASN1_INTEGER_set_int64(ts->error_code, (int32_t)r->error_code) == 1);
}

/* Append what an i2d function made; frees it. */
static void put_der(struct buffer *b, unsigned char *der, int len)
{
    if (len > 0)
        buffer_put(b, der, (size_t)len);
    else
        b->failed = true;
    OPENSSL_clear_free(der, len > 0 ? (size_t)len : 0);
}

void tsrequest_put(struct buffer *b, const struct tsrequest *r)
{
    TS_REQUEST *ts = TS_REQUEST_new();
    unsigned char *der = NULL;

    if (ts && ASN1_INTEGER_set_int64(ts->version, r->version) == 1 &&
        set_token(ts, r->nego_token) && set_cursor(&ts->auth_info, r->auth_info) &&
        set_cursor(&ts->pub_key_auth, r->pub_key_auth) && set_error(ts, r) &&
        set_part(&ts->nonce, r->nonce, r->has_nonce ? sizeof(r->nonce) : 0)) {
        int len = i2d_TS_REQUEST(ts, &der);
        put_der(b, der, len);
    } else {
        b->failed = true;
    }
    TS_REQUEST_free(ts);
}

/* ---- credentials ---- */

static bool take_text(const ASN1_OCTET_STRING *from, char *dst, size_t cap)
{
    return utf16_to_utf8(cursor_of(ASN1_STRING_get0_data(from), (size_t)ASN1_STRING_length(from)),
                         dst, cap);
}

static void wipe_part(ASN1_OCTET_STRING *part)
{
    if (part && ASN1_STRING_length(part) > 0)
        OPENSSL_cleanse(part->data, (size_t)part->length);
}

enum parse tscredentials_parse(struct cursor c, struct tscredentials *t)
{
    const uint8_t *at = c.at, *inner;
    TS_CREDENTIALS *outer = NULL;
    TS_PASSWORD *p = NULL;
    int64_t type = 0;
    bool is_ok = false;

    memset(t, 0, sizeof(*t));
    if (cursor_left(&c) <= TSREQUEST_MAX)
        outer = d2i_TS_CREDENTIALS(NULL, &at, (long)cursor_left(&c));
    if (outer && ASN1_INTEGER_get_int64(&type, outer->type) == 1 && type == 1) {
        inner = ASN1_STRING_get0_data(outer->credentials);
        p = d2i_TS_PASSWORD(NULL, &inner, ASN1_STRING_length(outer->credentials));
    }
    if (p)
        is_ok = take_text(p->domain, t->domain, sizeof(t->domain)) &&
                take_text(p->user, t->user, sizeof(t->user)) &&
                take_text(p->password, t->password, sizeof(t->password));
    if (p)
        wipe_part(p->password);
    if (outer)
        wipe_part(outer->credentials);
    TS_PASSWORD_free(p);
    TS_CREDENTIALS_free(outer);
    return is_ok ? PARSE_OK : PARSE_BAD;
}

static bool set_text(ASN1_OCTET_STRING *part, const char *utf8)
{
    struct buffer b;
    bool is_ok;

    buffer_init_secret(&b, 4096);
    utf16_put(&b, utf8);
    is_ok = !b.failed &&
            ASN1_OCTET_STRING_set(part, b.len ? b.data : (const uint8_t *)"", (int)b.len) == 1;
    buffer_finish(&b);
    return is_ok;
}

void tscredentials_put(struct buffer *b, const struct tscredentials *t)
{
    TS_PASSWORD *p = TS_PASSWORD_new();
    TS_CREDENTIALS *outer = TS_CREDENTIALS_new();
    unsigned char *inner = NULL, *der = NULL;
    int len = 0;

    if (p && outer && set_text(p->domain, t->domain) && set_text(p->user, t->user) &&
        set_text(p->password, t->password) && (len = i2d_TS_PASSWORD(p, &inner)) > 0 &&
        ASN1_INTEGER_set_int64(outer->type, 1) == 1 &&
        ASN1_OCTET_STRING_set(outer->credentials, inner, len) == 1) {
        int outer_len = i2d_TS_CREDENTIALS(outer, &der);
        put_der(b, der, outer_len);
    } else {
        b->failed = true;
    }
    OPENSSL_clear_free(inner, len > 0 ? (size_t)len : 0);
    if (p)
        wipe_part(p->password);
    if (outer)
        wipe_part(outer->credentials);
    TS_PASSWORD_free(p);
    TS_CREDENTIALS_free(outer);
}

/* ---- SPNEGO ---- */

static const uint8_t ntlm_signature[8] = {'N', 'T', 'L', 'M', 'S', 'S', 'P', '\0'};

/* The mechanism's token is an OCTET STRING that reaches to its end or further in, never past it:
 * what follows the signature is NTLM's own to judge. */
struct cursor spnego_unwrap(struct cursor token, bool *is_wrapped)
{
    const uint8_t *at;

    *is_wrapped = false;
    if (cursor_left(&token) < sizeof(ntlm_signature))
        return cursor_of(NULL, 0);
    if (memcmp(token.at, ntlm_signature, sizeof(ntlm_signature)) == 0)
        return token;
    at = memmem(token.at, cursor_left(&token), ntlm_signature, sizeof(ntlm_signature));
    if (!at)
        return cursor_of(NULL, 0);
    *is_wrapped = true;
    return cursor_of(at, (size_t)(token.end - at));
}

void spnego_wrap(struct buffer *b, const uint8_t *token, size_t len)
{
    NEG_RESPONSE *r = NEG_RESPONSE_new();
    unsigned char *body = NULL;
    int body_len = 0;

    if (r && (r->state = ASN1_ENUMERATED_new()) && ASN1_ENUMERATED_set(r->state, 1) == 1 &&
        (r->mech = OBJ_txt2obj("1.3.6.1.4.1.311.2.2.10", 1)) && set_part(&r->token, token, len))
        body_len = i2d_NEG_RESPONSE(r, &body);
    if (body_len > 0) { /* NegotiationToken: CHOICE, [1] negTokenResp */
        int total = ASN1_object_size(1, body_len, 1);
        unsigned char *head = total > 0 ? OPENSSL_malloc((size_t)total) : NULL, *to = head;

        if (head)
            ASN1_put_object(&to, 1, body_len, 1, V_ASN1_CONTEXT_SPECIFIC);
        buffer_put(b, head, head ? (size_t)(to - head) : 0);
        b->failed |= !head;
        OPENSSL_free(head);
    }
    put_der(b, body, body_len);
    NEG_RESPONSE_free(r);
}
