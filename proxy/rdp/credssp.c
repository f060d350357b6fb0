/*
 * CredSSP's sequence for either side; credssp.h. NTLM is proxy/rdp/ntlm.c's, the messages are
 * proxy/rdp/tsrequest.c's.
 */
#include "proxy/rdp/credssp.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <sallyport/secret.h>

/* [MS-CSSP] 3.1.5: hashed with their NUL */
#define CLIENT_MAGIC "CredSSP Client-To-Server Binding Hash"
#define SERVER_MAGIC "CredSSP Server-To-Client Binding Hash"
#define VERSION_HASH 5u /* from here on hashes with a nonce; before, the key itself */

enum step {
    STEP_BEGIN,
    STEP_NTLM,
    STEP_JUDGE,  /* accepting: the hash is awaited */
    STEP_KEY,    /* connecting: the server's proof */
    STEP_SECRET, /* accepting: TSCredentials */
    STEP_OVER
};

struct credssp {
    enum step step;
    bool is_accepting, is_wrapped;
    uint32_t version; /* the lower of both */
    struct ntlm *ntlm;
    struct tscredentials who;
    uint8_t key[CREDSSP_KEY_MAX];
    size_t key_len;
    uint8_t nonce[TSREQUEST_NONCE_LEN];
    bool has_nonce;
    struct buffer proof; /* accepting: the client's sealed pubKeyAuth, until it can be opened */
    uint32_t status;
    const char *why;
};

/* ---- a login's life ---- */

static struct credssp *credssp_new(const uint8_t *key, size_t len)
{
    struct credssp *c = len > 0 && len <= CREDSSP_KEY_MAX ? calloc(1, sizeof(*c)) : NULL;

    if (!c)
        return NULL;
    c->version = CREDSSP_VERSION;
    c->why = "it broke the login off";
    memcpy(c->key, key, len);
    c->key_len = len;
    buffer_init(&c->proof, TSREQUEST_MAX);
    return c;
}

struct credssp *credssp_connect(const struct tscredentials *who, const uint8_t *key, size_t len)
{
    struct credssp *c = credssp_new(key, len);

    if (!c)
        return NULL;
    c->who = *who;
    c->ntlm = ntlm_connect(who->domain, who->user, who->password);
    if (c->ntlm && RAND_bytes(c->nonce, sizeof(c->nonce)) == 1)
        return c;
    credssp_finish(c);
    return NULL;
}

struct credssp *credssp_accept(const uint8_t *key, size_t len)
{
    struct credssp *c = credssp_new(key, len);

    if (!c)
        return NULL;
    c->is_accepting = true;
    if ((c->ntlm = ntlm_accept()))
        return c;
    credssp_finish(c);
    return NULL;
}

void credssp_finish(struct credssp *c)
{
    if (!c)
        return;
    ntlm_finish(c->ntlm);
    buffer_finish(&c->proof);
    memory_wipe(c, sizeof(*c));
    free(c);
}

static enum credssp_state fail(struct credssp *c, const char *why)
{
    c->step = STEP_OVER;
    c->why = why;
    return CREDSSP_FAILED;
}

/* Accepting: the client is told, as far as its version knows how. */
static enum credssp_state refuse(struct credssp *c, struct buffer *out)
{
    struct tsrequest r = {
        .version = c->version, .has_error = true, .error_code = STATUS_LOGON_FAILURE};

    if (c->version != 2 && c->version != 5)
        tsrequest_put(out, &r);
    return fail(c, "its user or password is wrong");
}

/* ---- the proof that both see the same TLS ---- */

static bool hash_key(const struct credssp *c, bool is_of_client, uint8_t out[32])
{
    const char *magic = is_of_client ? CLIENT_MAGIC : SERVER_MAGIC;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool is_ok = md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) == 1 &&
                 EVP_DigestUpdate(md, magic, strlen(magic) + 1) == 1 &&
                 EVP_DigestUpdate(md, c->nonce, sizeof(c->nonce)) == 1 &&
                 EVP_DigestUpdate(md, c->key, c->key_len) == 1 &&
                 EVP_DigestFinal_ex(md, out, NULL) == 1;

    EVP_MD_CTX_free(md);
    return is_ok;
}

/* What pubKeyAuth holds, before it is sealed. The server's answer to old clients is the key with
 * one added to its first byte. */
static bool proof(const struct credssp *c, bool is_of_client, struct buffer *out)
{
    uint8_t hash[32];

    if (c->version >= VERSION_HASH) {
        if (!hash_key(c, is_of_client, hash))
            return false;
        buffer_put(out, hash, sizeof(hash));
    } else {
        buffer_put(out, c->key, c->key_len);
        if (!out->failed && !is_of_client)
            out->data[0]++;
    }
    return !out->failed;
}

static bool seal_proof(struct credssp *c, bool is_of_client, struct buffer *out)
{
    struct buffer plain;
    bool is_ok;

    buffer_init(&plain, TSREQUEST_MAX);
    is_ok = proof(c, is_of_client, &plain) && ntlm_seal(c->ntlm, plain.data, plain.len, out);
    buffer_finish(&plain);
    return is_ok;
}

static bool check_proof(struct credssp *c, bool is_of_client, struct cursor sealed)
{
    struct buffer expected, got;
    bool is_ok;

    buffer_init(&expected, TSREQUEST_MAX);
    buffer_init(&got, TSREQUEST_MAX);
    is_ok = proof(c, is_of_client, &expected) &&
            ntlm_unseal(c->ntlm, sealed.at, cursor_left(&sealed), &got) &&
            got.len == expected.len && CRYPTO_memcmp(got.data, expected.data, got.len) == 0;
    buffer_finish(&expected);
    buffer_finish(&got);
    return is_ok;
}

/* ---- the connecting side ---- */

static struct cursor cursor_in(const struct buffer *b)
{
    return cursor_of(b->data, b->len);
}

/* The first token, or the second one with our proof beside it. */
static enum credssp_state connect_token(struct credssp *c, struct cursor token, struct buffer *out)
{
    struct tsrequest r = {.version = CREDSSP_VERSION};
    struct buffer answer, sealed;
    enum ntlm_state s;
    bool is_ok;

    buffer_init(&answer, NTLM_TOKEN_MAX);
    buffer_init(&sealed, TSREQUEST_MAX);
    s = ntlm_step(c->ntlm, token.at, cursor_left(&token), &answer);
    is_ok = (s == NTLM_MORE && c->step == STEP_BEGIN) || (s == NTLM_DONE && c->step == STEP_NTLM);
    if (is_ok && s == NTLM_DONE) {
        is_ok = seal_proof(c, true, &sealed);
        r.has_nonce = c->version >= VERSION_HASH;
        memcpy(r.nonce, c->nonce, sizeof(r.nonce));
        r.pub_key_auth = cursor_in(&sealed);
    }
    r.nego_token = cursor_in(&answer);
    if (is_ok)
        tsrequest_put(out, &r);
    buffer_finish(&answer);
    buffer_finish(&sealed);
    if (!is_ok || out->failed)
        return fail(c, "its NTLM is not understood here");
    c->step = s == NTLM_DONE ? STEP_KEY : STEP_NTLM;
    return CREDSSP_MORE;
}

static enum credssp_state connect_credentials(struct credssp *c, const struct tsrequest *in,
                                              struct buffer *out)
{
    struct tsrequest r = {.version = CREDSSP_VERSION};
    struct buffer plain, sealed;
    bool is_ok;

    if (!check_proof(c, false, in->pub_key_auth))
        return fail(c, "it does not see the same TLS connection: somebody may be in between");
    buffer_init_secret(&plain, TSREQUEST_MAX);
    buffer_init(&sealed, TSREQUEST_MAX);
    tscredentials_put(&plain, &c->who);
    is_ok = !plain.failed && ntlm_seal(c->ntlm, plain.data, plain.len, &sealed);
    r.auth_info = cursor_in(&sealed);
    if (is_ok)
        tsrequest_put(out, &r);
    buffer_finish(&plain);
    buffer_finish(&sealed);
    c->step = STEP_OVER;
    return is_ok && !out->failed ? CREDSSP_DONE : fail(c, "out of memory");
}

static const char *status_text(uint32_t status)
{
    /* [MS-ERREF] 2.3.1 */
    static const struct {
        uint32_t status;
        const char *text;
    } rows[] = {
        {STATUS_LOGON_FAILURE, "it does not accept the user or password"},
        {0xc000006au, "it does not accept the password"},
        {0xc0000064u, "it does not know the user"},
        {0xc000006eu, "the account is restricted there"},
        {0xc000006fu, "the account may not log in at this hour"},
        {0xc0000071u, "the account's password has expired there"},
        {0xc0000072u, "the account is disabled there"},
        {0xc0000193u, "the account has expired there"},
        {0xc0000224u, "the account's password must be changed there first"},
        {0xc0000234u, "the account is locked out there"},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        if (rows[i].status == status)
            return rows[i].text;
    return "it refused the login";
}

static enum credssp_state connect_step(struct credssp *c, const struct tsrequest *r,
                                       struct buffer *out)
{
    bool is_wrapped;

    if (r->has_error) {
        c->status = r->error_code;
        return fail(c, status_text(r->error_code));
    }
    if (c->step == STEP_NTLM)
        return connect_token(c, spnego_unwrap(r->nego_token, &is_wrapped), out);
    return connect_credentials(c, r, out);
}

/* ---- the accepting side ---- */

static enum credssp_state accept_token(struct credssp *c, const struct tsrequest *in,
                                       struct buffer *out)
{
    struct tsrequest r = {.version = CREDSSP_VERSION};
    struct buffer answer, wrapped;
    struct cursor token = spnego_unwrap(in->nego_token, &c->is_wrapped);
    enum ntlm_state s;

    buffer_init(&answer, NTLM_TOKEN_MAX);
    buffer_init(&wrapped, TSREQUEST_MAX);
    s = ntlm_step(c->ntlm, token.at, cursor_left(&token), &answer);
    if (s == NTLM_MORE) {
        if (c->is_wrapped)
            spnego_wrap(&wrapped, answer.data, answer.len);
        r.nego_token = cursor_in(c->is_wrapped ? &wrapped : &answer);
        tsrequest_put(out, &r);
        c->step = STEP_NTLM;
    } else if (s == NTLM_HASH) {
        if (in->has_nonce)
            memcpy(c->nonce, in->nonce, sizeof(c->nonce));
        c->has_nonce = in->has_nonce;
        buffer_put(&c->proof, in->pub_key_auth.at, cursor_left(&in->pub_key_auth));
        c->step = STEP_JUDGE;
    }
    buffer_finish(&answer);
    buffer_finish(&wrapped);
    if (out->failed || c->proof.failed || s == NTLM_FAILED || s == NTLM_DONE)
        return fail(c, "its NTLM is not understood here");
    return s == NTLM_HASH ? CREDSSP_HASH : CREDSSP_MORE;
}

bool credssp_identity(struct credssp *c, char user[NTLM_NAME_MAX], char domain[NTLM_NAME_MAX])
{
    return c->step == STEP_JUDGE && ntlm_identity(c->ntlm, user, domain);
}

enum credssp_state credssp_judge(struct credssp *c, const uint8_t hash[NTLM_HASH_LEN],
                                 struct buffer *out)
{
    struct tsrequest r = {.version = CREDSSP_VERSION};
    struct buffer sealed;
    bool is_ok;

    if (c->step != STEP_JUDGE)
        return fail(c, "it is out of step");
    if (ntlm_judge(c->ntlm, hash) != NTLM_DONE)
        return refuse(c, out);
    if ((c->version >= VERSION_HASH && !c->has_nonce) ||
        !check_proof(c, true, cursor_in(&c->proof)))
        return fail(c, "it does not see the same TLS connection: somebody may be in between");
    buffer_init(&sealed, TSREQUEST_MAX);
    is_ok = seal_proof(c, false, &sealed);
    r.pub_key_auth = cursor_in(&sealed);
    if (is_ok)
        tsrequest_put(out, &r);
    buffer_finish(&sealed);
    if (!is_ok || out->failed)
        return fail(c, "out of memory");
    c->step = STEP_SECRET;
    return CREDSSP_MORE;
}

static enum credssp_state accept_credentials(struct credssp *c, const struct tsrequest *in)
{
    struct buffer plain;
    bool is_ok;

    buffer_init_secret(&plain, TSREQUEST_MAX);
    is_ok = ntlm_unseal(c->ntlm, in->auth_info.at, cursor_left(&in->auth_info), &plain) &&
            tscredentials_parse(cursor_in(&plain), &c->who) == PARSE_OK;
    buffer_finish(&plain);
    c->step = STEP_OVER;
    return is_ok ? CREDSSP_DONE : fail(c, "its credentials cannot be read");
}

static enum credssp_state accept_step(struct credssp *c, const struct tsrequest *r,
                                      struct buffer *out)
{
    if (r->has_error) {
        c->status = r->error_code;
        return fail(c, "it broke the login off");
    }
    if (c->step == STEP_BEGIN || c->step == STEP_NTLM)
        return accept_token(c, r, out);
    if (c->step == STEP_SECRET)
        return accept_credentials(c, r);
    return fail(c, "it is out of step");
}

const struct tscredentials *credssp_credentials(const struct credssp *c)
{
    return &c->who;
}

/* ---- either ---- */

enum credssp_state credssp_step(struct credssp *c, struct cursor message, struct buffer *out)
{
    struct buffer keep;
    struct tsrequest r;
    enum credssp_state s;

    if (c->step == STEP_OVER)
        return fail(c, "it is out of step");
    if (!c->is_accepting && c->step == STEP_BEGIN)
        return connect_token(c, cursor_of(NULL, 0), out);
    buffer_init_secret(&keep, TSREQUEST_MAX);
    if (tsrequest_parse(message, &r, &keep) != PARSE_OK || r.version < CREDSSP_VERSION_MIN) {
        s = fail(c, "it does not speak CredSSP as it is understood here");
    } else {
        if (r.version < c->version)
            c->version = r.version;
        s = c->is_accepting ? accept_step(c, &r, out) : connect_step(c, &r, out);
    }
    buffer_finish(&keep);
    return s;
}

uint32_t credssp_status(const struct credssp *c)
{
    return c->status;
}

const char *credssp_why(const struct credssp *c)
{
    return c->why;
}
