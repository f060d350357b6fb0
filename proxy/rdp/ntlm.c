/*
 * NTLM by WinPR; ntlm.h. A WinPR context is fed and asked here and nowhere else. WinPR keeps the
 * accepted names in the credential handle, so that each login has a handle of its own.
 */
#include "proxy/rdp/ntlm.h"

#include <stdlib.h>
#include <string.h>

#include <winpr/crypto.h>
#include <winpr/ntlm.h>
#include <winpr/ssl.h>
#include <winpr/sspi.h>
#include <winpr/version.h>
#include <winpr/wlog.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CONNECT_FLAGS \
    (ISC_REQ_MUTUAL_AUTH | ISC_REQ_CONFIDENTIALITY | ISC_REQ_USE_SESSION_KEY | ISC_REQ_INTEGRITY)
#define ACCEPT_FLAGS                                                             \
    (ASC_REQ_MUTUAL_AUTH | ASC_REQ_CONFIDENTIALITY | ASC_REQ_CONNECTION |        \
     ASC_REQ_USE_SESSION_KEY | ASC_REQ_REPLAY_DETECT | ASC_REQ_SEQUENCE_DETECT | \
     ASC_REQ_EXTENDED_ERROR)
#define SIGNATURE_LEN 16u /* MS-NLMP 2.2.2.9 */
#define SEALED_MAX    65536u
#define AT_DOMAIN     28 /* of AUTHENTICATE_MESSAGE: DomainNameFields, UserNameFields */
#define AT_USER       36

struct ntlm {
    SecurityFunctionTableA *api; /* borrowed */
    CredHandle credentials;
    CtxtHandle context;
    SEC_WINNT_AUTH_IDENTITY identity; /* connecting side */
    bool is_accepting, has_credentials, has_context, is_done;
    uint8_t
        *response; /* owned, accepting side: the client's last token, which waits for the hash */
    size_t response_len;
    char user[NTLM_NAME_MAX], domain[NTLM_NAME_MAX]; /* in it */
    uint32_t sealed, unsealed;                       /* sequence numbers */
};

static char package[] = "NTLM";

/* ---- a login's life ---- */

static struct ntlm *ntlm_new(bool is_accepting)
{
    struct ntlm *n = calloc(1, sizeof(*n));

    if (!n)
        return NULL;
    n->is_accepting = is_accepting;
    SecInvalidateHandle(&n->context);
    n->api = InitSecurityInterfaceExA(0);
    if (!n->api) {
        free(n);
        return NULL;
    }
    return n;
}

static struct ntlm *acquire(struct ntlm *n)
{
    TimeStamp expiry;

    if (n->api->AcquireCredentialsHandleA(
            NULL, package, n->is_accepting ? SECPKG_CRED_INBOUND : SECPKG_CRED_OUTBOUND, NULL,
            n->is_accepting ? NULL : &n->identity, NULL, NULL, &n->credentials,
            &expiry) == SEC_E_OK) {
        n->has_credentials = true;
        return n;
    }
    ntlm_finish(n);
    return NULL;
}

struct ntlm *ntlm_connect(const char *domain, const char *user, const char *password)
{
    struct ntlm *n = ntlm_new(false);

    if (!n)
        return NULL;
    if (sspi_SetAuthIdentity(&n->identity, user, *domain ? domain : NULL, password) < 0) {
        ntlm_finish(n);
        return NULL;
    }
    return acquire(n);
}

struct ntlm *ntlm_accept(void)
{
    struct ntlm *n = ntlm_new(true);

    return n ? acquire(n) : NULL;
}

static void wipe_identity(SEC_WINNT_AUTH_IDENTITY *i)
{
    if (i->Password)
        memory_wipe(i->Password, i->PasswordLength * sizeof(*i->Password));
    free(i->User);
    free(i->Domain);
    free(i->Password);
    memory_wipe(i, sizeof(*i));
}

void ntlm_finish(struct ntlm *n)
{
    if (!n)
        return;
    if (n->has_context)
        n->api->DeleteSecurityContext(&n->context);
    if (n->has_credentials)
        n->api->FreeCredentialsHandle(&n->credentials);
    wipe_identity(&n->identity);
    free(n->response);
    memory_wipe(n, sizeof(*n));
    free(n);
}

/* ---- who it is ---- */

/* A text of AUTHENTICATE_MESSAGE, MS-NLMP 2.2.1.3: at `at` are its length and where it begins. */
static bool take_text(struct cursor token, size_t at, char dst[NTLM_NAME_MAX])
{
    struct cursor head = token, text;
    uint16_t len, most;
    uint32_t offset;

    return cursor_skip(&head, at) && cursor_le16(&head, &len) && cursor_le16(&head, &most) &&
           cursor_le32(&head, &offset) && cursor_skip(&token, offset) &&
           cursor_sub(&token, len, &text) && len % 2 == 0 &&
           utf16_to_utf8(text, dst, NTLM_NAME_MAX);
}

/* The library wants the hash before it looks at the token (WinPR 3), and so do we want the names.
 */
static enum ntlm_state keep_response(struct ntlm *n, uint8_t *token, size_t len)
{
    struct cursor c = cursor_of(token, len);

    n->response = token;
    n->response_len = len;
    return take_text(c, AT_DOMAIN, n->domain) && take_text(c, AT_USER, n->user) ? NTLM_HASH
                                                                                : NTLM_FAILED;
}

/* ---- tokens ---- */

static SecBuffer buffer_for(ULONG type, void *data, size_t len)
{
    SecBuffer b = {.cbBuffer = (ULONG)len, .BufferType = type, .pvBuffer = data};
    return b;
}

static SECURITY_STATUS exchange(struct ntlm *n, SecBufferDesc *in, SecBufferDesc *out)
{
    ULONG flags = 0;
    TimeStamp expiry;

    if (n->is_accepting)
        return n->api->AcceptSecurityContext(&n->credentials, n->has_context ? &n->context : NULL,
                                             in, ACCEPT_FLAGS, SECURITY_NATIVE_DREP, &n->context,
                                             out, &flags, &expiry);
    return n->api->InitializeSecurityContextA(&n->credentials, n->has_context ? &n->context : NULL,
                                              NULL, CONNECT_FLAGS, 0, SECURITY_NATIVE_DREP, in, 0,
                                              &n->context, out, &flags, &expiry);
}

static enum ntlm_state state_of(struct ntlm *n, SECURITY_STATUS status)
{
    switch (status) {
    case SEC_E_OK:
        n->is_done = true;
        return NTLM_DONE;
    case SEC_I_CONTINUE_NEEDED:
        return NTLM_MORE;
    default:
        return NTLM_FAILED;
    }
}

static SECURITY_STATUS feed(struct ntlm *n, uint8_t *token, size_t len, struct buffer *out)
{
    uint8_t *answer = calloc(1, NTLM_TOKEN_MAX);
    SecBuffer in = buffer_for(SECBUFFER_TOKEN, token, len);
    SecBuffer back = buffer_for(SECBUFFER_TOKEN, answer, NTLM_TOKEN_MAX);
    SecBufferDesc in_desc = {SECBUFFER_VERSION, 1, &in}, out_desc = {SECBUFFER_VERSION, 1, &back};
    SECURITY_STATUS status = SEC_E_INSUFFICIENT_MEMORY;

    if (answer) {
        status = exchange(n, len ? &in_desc : NULL, &out_desc);
        n->has_context |= SecIsValidHandle(&n->context); /* a failure makes one, too */
        if ((status == SEC_E_OK || status == SEC_I_CONTINUE_NEEDED) &&
            back.cbBuffer <= NTLM_TOKEN_MAX)
            buffer_put(out, answer, back.cbBuffer);
    }
    free(answer);
    return status;
}

enum ntlm_state ntlm_step(struct ntlm *n, const uint8_t *token, size_t len, struct buffer *out)
{
    enum ntlm_state state = NTLM_FAILED;
    uint8_t *copy;

    if (len > NTLM_TOKEN_MAX || n->is_done || n->response || !(copy = malloc(len ? len : 1)))
        return NTLM_FAILED;
    if (len)
        memcpy(copy, token, len); /* the library may write to it */
    if (n->is_accepting && n->has_context)
        return keep_response(n, copy, len);
    state = state_of(n, feed(n, copy, len, out));
    free(copy);
    return state;
}

/* ---- the accepting side ---- */

bool ntlm_identity(struct ntlm *n, char user[NTLM_NAME_MAX], char domain[NTLM_NAME_MAX])
{
    if (!n->response)
        return false;
    text_copy(user, NTLM_NAME_MAX, n->user);
    text_copy(domain, NTLM_NAME_MAX, n->domain);
    return true;
}

/* The names by which the library judged are those that we were asked for. */
static bool is_same_identity(struct ntlm *n)
{
    SecPkgContext_AuthIdentity id = {0};

    return n->api->QueryContextAttributesA(&n->context, SECPKG_ATTR_AUTH_IDENTITY, &id) ==
               SEC_E_OK &&
           strncmp((const char *)id.User, n->user, sizeof(id.User)) == 0 &&
           strncmp((const char *)id.Domain, n->domain, sizeof(id.Domain)) == 0;
}

enum ntlm_state ntlm_judge(struct ntlm *n, const uint8_t hash[NTLM_HASH_LEN])
{
    SecPkgContext_AuthNtlmHash attribute = {.Version = 1};
    SECURITY_STATUS status = SEC_E_INVALID_HANDLE;
    struct buffer nothing;

    buffer_init(&nothing, NTLM_TOKEN_MAX);
    memcpy(attribute.NtlmHash, hash, NTLM_HASH_LEN);
    if (n->response && !n->is_done)
        status = n->api->SetContextAttributesA(&n->context, SECPKG_ATTR_AUTH_NTLM_HASH, &attribute,
                                               sizeof(attribute));
    memory_wipe(&attribute, sizeof(attribute));
    if (status == SEC_E_OK)
        status = feed(n, n->response, n->response_len, &nothing);
    if (status == SEC_I_COMPLETE_NEEDED) /* WinPR 2; 3 is done by then */
        status = n->api->CompleteAuthToken(&n->context, NULL);
    buffer_finish(&nothing);
    return status == SEC_E_OK && is_same_identity(n) ? state_of(n, status) : NTLM_FAILED;
}

/* ---- messages ---- */

bool ntlm_seal(struct ntlm *n, const uint8_t *data, size_t len, struct buffer *out)
{
    uint8_t signature[SIGNATURE_LEN] = {0}, *copy;
    SecBuffer parts[2];
    SecBufferDesc desc = {SECBUFFER_VERSION, 2, parts};
    bool is_ok;

    if (!n->is_done || len == 0 || len > SEALED_MAX || !(copy = malloc(len)))
        return false;
    memcpy(copy, data, len);
    parts[0] = buffer_for(SECBUFFER_TOKEN, signature, sizeof(signature));
    parts[1] = buffer_for(SECBUFFER_DATA, copy, len);
    is_ok = n->api->EncryptMessage(&n->context, 0, &desc, n->sealed++) == SEC_E_OK;
    if (is_ok) {
        buffer_put(out, signature, sizeof(signature));
        buffer_put(out, copy, len);
    }
    memory_wipe(copy, len);
    free(copy);
    return is_ok && !out->failed;
}

bool ntlm_unseal(struct ntlm *n, const uint8_t *data, size_t len, struct buffer *out)
{
    uint8_t *copy;
    SecBuffer parts[2];
    SecBufferDesc desc = {SECBUFFER_VERSION, 2, parts};
    ULONG quality = 0;
    bool is_ok;

    if (!n->is_done || len <= SIGNATURE_LEN || len > SEALED_MAX || !(copy = malloc(len)))
        return false;
    memcpy(copy, data, len);
    parts[0] = buffer_for(SECBUFFER_TOKEN, copy, SIGNATURE_LEN);
    parts[1] = buffer_for(SECBUFFER_DATA, copy + SIGNATURE_LEN, len - SIGNATURE_LEN);
    is_ok = n->api->DecryptMessage(&n->context, &desc, n->unsealed++, &quality) == SEC_E_OK;
    if (is_ok)
        buffer_put(out, copy + SIGNATURE_LEN, len - SIGNATURE_LEN);
    memory_wipe(copy, len);
    free(copy);
    return is_ok && !out->failed;
}

/* ---- the gate ---- */

bool ntlm_hash(const char *password, uint8_t hash[NTLM_HASH_LEN])
{
    char *copy = strdup(password);
    size_t len = strlen(password);
    bool is_ok = copy && len <= UINT32_MAX / 4 && NTOWFv1A(copy, (UINT32)len, hash);

    if (copy) {
        memory_wipe(copy, len);
        free(copy);
    }
    return is_ok;
}

/* One login between two contexts of our own; true when a sealed message came through. */
static bool rehearse(struct ntlm *a, struct ntlm *b, const char *password)
{
    struct buffer to_b, to_a, text;
    uint8_t hash[NTLM_HASH_LEN];
    bool is_ok;

    buffer_init(&to_b, NTLM_TOKEN_MAX);
    buffer_init(&to_a, NTLM_TOKEN_MAX);
    buffer_init(&text, NTLM_TOKEN_MAX);
    is_ok = ntlm_step(a, NULL, 0, &to_b) == NTLM_MORE &&
            ntlm_step(b, to_b.data, to_b.len, &to_a) == NTLM_MORE;
    buffer_reset(&to_b);
    is_ok = is_ok && ntlm_step(a, to_a.data, to_a.len, &to_b) == NTLM_DONE &&
            ntlm_step(b, to_b.data, to_b.len, &to_a) == NTLM_HASH && ntlm_hash(password, hash) &&
            ntlm_judge(b, hash) == NTLM_DONE;
    buffer_reset(&to_b);
    is_ok = is_ok && ntlm_seal(a, (const uint8_t *)"rehearsal", 9, &to_b) &&
            ntlm_unseal(b, to_b.data, to_b.len, &text) && text.len == 9 &&
            memcmp(text.data, "rehearsal", 9) == 0;
    buffer_finish(&to_b);
    buffer_finish(&to_a);
    buffer_finish(&text);
    return is_ok;
}

int ntlm_prepare(void)
{
    struct ntlm *a, *b;
    bool is_ok;

    (void)WLog_SetLogLevel(WLog_GetRoot(), WLOG_OFF); /* strangers' tokens are no log of ours */
    if (!winpr_InitializeSSL(WINPR_SSL_INIT_DEFAULT)) {
        log_error("NTLM: the legacy algorithms of the TLS library cannot be loaded");
        return ERR_CRYPTO;
    }
    a = ntlm_connect("DOMAIN", "user", "a password");
    b = ntlm_accept();
    is_ok = a && b && rehearse(a, b, "a password");
    ntlm_finish(a);
    ntlm_finish(b);
    if (is_ok)
        return 0;
    log_error("NTLM: the library failed its own test");
    return ERR_CRYPTO;
}
