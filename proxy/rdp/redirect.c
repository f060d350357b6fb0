/*
 * A target that sends its session on, and reconnect cookies; see redirect.h. The target's leg is
 * closed, the broker connects to where the session goes when policy allows, and the steps of
 * target.c are walked there with the client's own settings. What the client says meanwhile was
 * meant for a server that is gone. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/redirect.h"

#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/redirection.h"
#include "proxy/rdp/session.h"
#include "proxy/rdp/tls.h"

#define REDIRECTS_MAX    3 /* of one session */
#define INFO_COMPRESSION 0x00000080u

static void fail(struct rdp_session *s, const char *text)
{
    char sentence[SENTENCE_MAX];

    log_info("the session is not sent on: %s", text);
    snprintf(sentence, sizeof(sentence), "You have been disconnected: %s", text);
    rdp_end(s, END_TARGET_CLOSED, "target", text, sentence);
}

static void forget_to(struct redirect *r)
{
    if (r->to) {
        memory_wipe(r->to, sizeof(*r->to));
        free(r->to);
        r->to = NULL;
    }
}

static void forget_password(struct redirect *r)
{
    if (r->password) {
        secret_wipe(r->password);
        free(r->password);
        r->password = NULL;
    }
}

/* ---- what is kept of the login ---- */

/* The client's settings, without who it is. */
static void keep_info(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;
    struct client_info info;
    struct buffer b;

    if (client_info_parse(cursor_of(s->u.info, s->u.info_len), &info) != PARSE_OK)
        return;
    buffer_init(&b, TPKT_MAX);
    info.flags &= ~INFO_COMPRESSION; /* the client's history is the first target's */
    client_info_put(&b, &info, "", "", "");
    if (!b.failed && (r->info = malloc(b.len))) {
        memcpy(r->info, b.data, b.len);
        r->info_len = b.len;
        if (client_info_parse(cursor_of(r->info, r->info_len), &info) == PARSE_OK)
            r->info_len = arc_strip(r->info, r->info_len, &info);
    }
    buffer_finish(&b);
}

void rdp_redirect_keep(struct rdp_session *s, const char *password)
{
    struct redirect *r = &s->redirect;
    size_t len = strlen(password);

    if (r->count > 0)
        return; /* what counts is what the user gave for the first one */
    text_copy(r->account, sizeof(r->account), s->t.route->account);
    r->auth = s->t.route->auth;
    forget_password(r);
    if (len > 0 && (r->password = malloc(sizeof(*r->password))))
        (void)secret_set(r->password, password, len);
    if (!r->info)
        keep_info(s);
}

void rdp_redirect_reset(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;

    forget_to(r);
    forget_password(r);
    free(r->key);
    r->key = NULL;
    r->count = 0;
}

void rdp_redirect_finish(struct rdp_session *s)
{
    rdp_redirect_reset(s);
    free(s->redirect.info);
    s->redirect.info = NULL;
}

/* ---- the target wants it ---- */

/* The public key of the certificate that it names. */
static void take_certificate(struct redirect *r)
{
    uint8_t der[REDIRECTION_CERT_MAX], *key = NULL;
    const uint8_t *at = der;
    size_t len = redirection_certificate(r->to->certificate, der);
    X509 *cert = len ? d2i_X509(NULL, &at, (long)len) : NULL;
    int key_len = cert ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &key) : 0;

    free(r->key);
    r->key = NULL;
    if (key_len > 0 && (r->key = malloc((size_t)key_len))) {
        memcpy(r->key, key, (size_t)key_len);
        r->key_len = (size_t)key_len;
    }
    OPENSSL_free(key);
    X509_free(cert);
    r->to->certificate = cursor_of(NULL, 0); /* borrowed no longer */
}

static const char *why_not(const struct rdp_session *s)
{
    const struct redirect *r = &s->redirect;

    if (r->count >= REDIRECTS_MAX)
        return "the target sends the session on again and again";
    if (r->to->flags & LB_PASSWORD_IS_PK_ENCRYPTED)
        return "the target sends the session on with a password for RDSTLS, which this proxy does "
               "not speak";
    if (r->to->flags & LB_SMARTCARD_LOGON)
        return "the target sends the session on to a login by smart card";
    if (!r->info)
        return "out of memory";
    if ((r->auth == TARGET_AUTH_PASSTHROUGH || r->auth == TARGET_AUTH_PROMPT) && !r->password &&
        !r->to->password[0])
        return "the target sends the session on without a password, and the user's is gone";
    return NULL;
}

bool rdp_redirect_wanted(struct rdp_session *s, struct cursor packet)
{
    struct redirect *r = &s->redirect;
    const char *why;

    forget_to(r);
    if (!(r->to = calloc(1, sizeof(*r->to)))) {
        fail(s, "out of memory");
        return true;
    }
    if (redirection_parse(packet, r->to) != PARSE_OK) {
        fail(s, "the target sends the session on in a way that cannot be understood");
        return true;
    }
    if (r->to->flags & LB_NOREDIRECT) {
        forget_to(r);
        return false;
    }
    if ((why = why_not(s))) {
        fail(s, why);
        return true;
    }
    take_certificate(r);
    r->count++;
    r->is_asked = false;
    if (s->desktop.has_demand)
        r->share_id = s->desktop.facts.share_id;
    r->is_licensed |= r->has_licence || s->desktop.has_demand;
    s->phase = PHASE_REDIRECTING;
    rdp_want_turn(s);
    return true;
}

/* ---- between two targets ---- */

/* Of what the client says only its good-bye counts. */
static void drop_input(struct rdp_session *s)
{
    struct mcs_pdu pdu;
    struct frame f;
    enum parse r;

    while ((r = rdp_frame(&s->user, TPKT_MAX, &f)) == PARSE_OK) {
        if (f.kind == FRAME_TPKT && mcs_parse(frame_body(&f), &pdu) == PARSE_OK &&
            pdu.type == MCS_ULTIMATUM)
            s->desktop.is_bye = true;
        rdp_leg_use(&s->user, f.len);
    }
    if (r == PARSE_BAD)
        rdp_end(s, END_POLICY, "client", "the client sent what is not RDP", "");
}

static void leave_target(struct rdp_session *s)
{
    struct buffer b;

    buffer_init(&b, 16);
    mcs_ultimatum_put(&b, MCS_REASON_USER);
    rdp_leg_send(&s->target, b.data, b.len);
    buffer_finish(&b);
    rdp_leg_shutdown(&s->target);
    rdp_leg_close(&s->target);
    rdp_leg_stop(&s->user, false); /* it waited for that one */
}

void rdp_redirect_step(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;
    bool needs_secret;

    if (r->count == 0 || (s->phase != PHASE_REDIRECTING && s->phase != PHASE_TARGET))
        return;
    drop_input(s);
    if (s->phase != PHASE_REDIRECTING || r->is_asked)
        return;
    r->is_asked = true;
    leave_target(s);
    needs_secret = r->auth == TARGET_AUTH_PASSWORD && !r->password && !r->to->password[0];
    if (!relay_redirect(s->relay, r->to->host, needs_secret))
        fail(s, "the target sends the session on, which the daemon that runs does not follow yet");
}

/* ---- the next target ---- */

static void put_secret(struct link_route_result *route, const void *data, size_t len)
{
    route->auth = TARGET_AUTH_PASSWORD;
    route->secret.len = (uint16_t)len;
    memcpy(route->secret.data, data, len);
}

/* "DOMAIN\\user"; a name that is too long is none of ours to cut: the login fails. */
static void put_account(struct link_route_result *route, const struct redirect *r)
{
    const struct redirection *to = r->to;
    size_t len = strlen(to->domain);

    if (!to->user[0]) {
        text_copy(route->account, sizeof(route->account), r->account);
    } else if (len + 1 + strlen(to->user) < sizeof(route->account)) {
        memcpy(route->account, to->domain, len);
        route->account[len] = '\\';
        text_copy(route->account + (len ? len + 1 : 0), sizeof(route->account) - len - 1, to->user);
    }
}

static bool fill_route(struct rdp_session *s, const struct link_redirected *result)
{
    const struct redirection *to = s->redirect.to;
    const struct secret *kept = s->redirect.password;
    struct link_route_result *route = calloc(1, sizeof(*route));

    s->t.route = route;
    if (!route)
        return false;
    route->is_ok = 1;
    route->auth = s->redirect.auth;
    text_copy(route->target, sizeof(route->target), s->t.name);
    text_copy(route->address, sizeof(route->address), result->address);
    put_account(route, &s->redirect);
    if (to->password[0])
        put_secret(route, to->password, strlen(to->password));
    else if (kept)
        put_secret(route, kept->data, kept->len);
    else if (result->secret.len > 0)
        put_secret(route, result->secret.data, result->secret.len);
    route->host_key.len = result->host_key.len;
    memcpy(route->host_key.data, result->host_key.data, result->host_key.len);
    return true;
}

/* What was learned of the old one goes; what policy took away stays away. */
static void forget_target(struct rdp_session *s)
{
    struct target_side *t = &s->t, old = *t;

    rdp_target_finish(s);
    memset(t, 0, sizeof(*t));
    memcpy(t->name, old.name, sizeof(t->name));
    memcpy(t->is_dropped, old.is_dropped, sizeof(t->is_dropped));
    t->allowed = old.allowed;
}

static void forget_desktop(struct desktop *d)
{
    d->has_demand = false; /* the client's own is still there, to draw on */
    d->error_info = 0;
    memset(&d->dvc, 0, sizeof(d->dvc));
    chunks_finish(&d->dynamic);
    chunks_finish(&d->devices);
    chunks_init(&d->dynamic);
    chunks_init(&d->devices);
}

static bool restore_info(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;

    rdp_user_forget(s);
    s->u.info = malloc(r->info_len);
    if (!s->u.info)
        return false;
    memcpy(s->u.info, r->info, r->info_len);
    s->u.info_len = r->info_len;
    return true;
}

void rdp_redirect_result(struct rdp_session *s, const struct link_redirected *result, int fd)
{
    struct redirect *r = &s->redirect;

    if (s->phase != PHASE_REDIRECTING || !r->to || !result->is_ok || fd < 0) {
        if (fd >= 0)
            close(fd);
        if (s->phase == PHASE_REDIRECTING)
            fail(s, result->text[0] ? result->text : "where the session is sent cannot be reached");
        rdp_want_turn(s);
        return;
    }
    forget_target(s);
    forget_desktop(&s->desktop);
    rdp_notice_leave(s);
    text_copy(r->address, sizeof(r->address), result->address);
    if (!fill_route(s, result) || !restore_info(s)) {
        close(fd);
        fail(s, "out of memory");
    } else {
        rdp_target_again(s, fd);
    }
    rdp_want_turn(s);
}

enum redirect_key rdp_redirect_judge_key(struct rdp_session *s, const uint8_t *key, size_t len)
{
    const struct redirect *r = &s->redirect;
    const struct link_route_result *route = s->t.route;
    char text[SESSION_TEXT_MAX];

    if (r->count == 0)
        return REDIRECT_KEY_UNKNOWN;
    if ((r->key && r->key_len == len && memcmp(r->key, key, len) == 0) ||
        (route->host_key.len == len && memcmp(route->host_key.data, key, len) == 0))
        return REDIRECT_KEY_RIGHT;
    snprintf(text, sizeof(text),
             "the certificate of %.100s, to which %.64s sends the session on, is not known",
             r->address, s->t.name);
    relay_event(s->relay, "host-key-mismatch", text);
    fail(s, text);
    return REDIRECT_KEY_WRONG;
}

void rdp_redirect_arrived(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;
    struct buffer body, b;

    forget_password(r);
    forget_to(r);
    if (r->share_id == 0)
        return;
    rdp_dynamic_close(s);
    buffer_init(&body, 64);
    buffer_init(&b, 64);
    deactivate_all_put(&body, s->redirect.share_id);
    mcs_data_put(&b, MCS_DATA_INDICATION, MCS_SERVER_USER, s->u.ids.io_channel, body.data,
                 body.len);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&body);
    buffer_finish(&b);
    s->redirect.share_id = 0;
    s->desktop.is_active = false;
    s->desktop.wants_confirm = true;
}

/* ---- reconnect cookies ---- */

void rdp_cookie_shown(struct rdp_session *s)
{
    struct client_info info;
    uint8_t hash[LINK_COOKIE];

    if (client_info_parse(cursor_of(s->u.info, s->u.info_len), &info) == PARSE_OK &&
        arc_shown(&info, hash))
        relay_show_cookie(s->relay, hash);
}

void rdp_cookie_judged(struct rdp_session *s, bool may_pass)
{
    struct client_info info;

    if (may_pass || !s->u.info ||
        client_info_parse(cursor_of(s->u.info, s->u.info_len), &info) != PARSE_OK)
        return;
    s->u.info_len = arc_strip(s->u.info, s->u.info_len, &info);
}

void rdp_cookie_given(struct rdp_session *s, struct cursor body)
{
    uint8_t hash[LINK_COOKIE];

    if (arc_given(body, hash))
        relay_reconnect(s->relay, hash);
}
