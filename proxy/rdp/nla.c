/*
 * Network level authentication at the target: CredSSP inside TLS, before MCS. Called from
 * proxy/rdp/target.c, whose sentences it uses; the rules are proxy/rdp/credssp.c's.
 */
#include "proxy/rdp/session.h"

#include <string.h>

#include <openssl/x509.h>

#include <sallyport/secret.h>

#include "proxy/rdp/credssp.h"

/* The bits of the server's SubjectPublicKey, borrowed: what both sides prove to have seen. */
static bool server_key(const SSL *ssl, const uint8_t **key, int *len)
{
    const X509 *certificate = SSL_get0_peer_certificate(ssl);
    X509_PUBKEY *spki = certificate ? X509_get_X509_PUBKEY(certificate) : NULL;

    return spki && X509_PUBKEY_get0_param(NULL, key, len, NULL, spki) == 1 && *len > 0;
}

/* True when the login goes on; false: nla_why() has the sentence's end, or it is done. */
static enum credssp_state say(struct rdp_session *s, struct cursor message)
{
    struct buffer out;
    enum credssp_state state;

    buffer_init_secret(&out, TSREQUEST_MAX);
    state = credssp_step(s->t.nla, message, &out);
    if (out.len > 0)
        rdp_leg_send(&s->target, out.data, out.len);
    buffer_finish(&out);
    return state;
}

bool nla_begin(struct rdp_session *s, const char *domain, const char *user, const char *password)
{
    struct tscredentials who = {0};
    const uint8_t *key;
    int len;

    if (strlen(domain) < sizeof(who.domain) && strlen(user) < sizeof(who.user) &&
        strlen(password) < sizeof(who.password) && server_key(s->target.ssl, &key, &len)) {
        memcpy(who.domain, domain, strlen(domain));
        memcpy(who.user, user, strlen(user));
        memcpy(who.password, password, strlen(password));
        s->t.nla = credssp_connect(&who, key, (size_t)len);
    }
    memory_wipe(&who, sizeof(who));
    return s->t.nla && say(s, cursor_of(NULL, 0)) == CREDSSP_MORE;
}

enum nla_state nla_step(struct rdp_session *s)
{
    struct cursor in = rdp_leg_input(&s->target);
    enum credssp_state state;
    enum parse r;
    size_t len;

    r = tsrequest_frame(&in, TSREQUEST_MAX, &len);
    if (r == PARSE_MORE)
        return NLA_MORE;
    if (r != PARSE_OK)
        return NLA_FAILED;
    state = say(s, cursor_of(in.at, len));
    rdp_leg_use(&s->target, len);
    if (state == CREDSSP_DONE)
        nla_finish(s);
    return state == CREDSSP_DONE ? NLA_DONE : state == CREDSSP_MORE ? NLA_MORE : NLA_FAILED;
}

const char *nla_why(const struct rdp_session *s)
{
    return s->t.nla ? credssp_why(s->t.nla) : "its key or the account's name cannot be used";
}

void nla_finish(struct rdp_session *s)
{
    credssp_finish(s->t.nla);
    s->t.nla = NULL;
}
