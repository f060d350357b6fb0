/*
 * NLA at our door, as far as a relay sees it: which security the client gets, and carrying its
 * CredSSP messages to the process of sallyport-nla that holds the hash, one at a time. That process
 * tells who it is and the password; whether that is a login is the broker's word, which hears from
 * that process itself. Steps of a turn of proxy/rdp/session.c, called by proxy/rdp/user.c.
 */
#include "proxy/rdp/session.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/x509.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/nla_talk.h>
#include <sallyport/text.h>

#include "proxy/rdp/credssp.h"
#include "proxy/rdp/le.h"

/* 2.2.10.2 Early User Authorization Result */
#define AUTHZ_SUCCESS       0u
#define AUTHZ_ACCESS_DENIED 5u

#define LOST_MS 3000 /* longer than a refusal is held back */

static struct nla_talk message; /* scratch, wiped after use; large */

void front_init(struct rdp_session *s)
{
    s->front.fd = -1;
    buffer_init_secret(&s->front.last, NLA_TALK_DATA_MAX);
}

static void let_go(struct front *f)
{
    if (f->readable)
        event_free(f->readable);
    f->readable = NULL;
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static void forget_early(struct front *f)
{
    if (!f->early)
        return;
    secret_wipe(f->early);
    free(f->early);
    f->early = NULL;
}

void front_finish(struct rdp_session *s)
{
    let_go(&s->front);
    forget_early(&s->front);
    buffer_finish(&s->front.last);
}

/* ---- which security ---- */

void front_ask(struct rdp_session *s)
{
    s->phase = PHASE_SECURITY;
    if (!relay_nla_ask(s->relay, s->u.request.cookie))
        front_chosen(s, LINK_NLA_OFF);
}

void front_chosen(struct rdp_session *s, enum link_nla choice)
{
    uint32_t failure = 0, selected;

    if (s->phase != PHASE_SECURITY)
        return;
    selected = x224_choose(s->u.request.protocols, choice, &failure);
    log_debug("security requested=%#x selected=%#x", s->u.request.protocols, selected);
    rdp_user_secure(s, selected, failure);
    rdp_want_turn(s);
}

/* ---- the client's side ---- */

static void tell_client(struct rdp_session *s, const void *data, size_t len)
{
    if (len > 0)
        rdp_leg_send(&s->user, data, len);
}

static void tell_authorized(struct rdp_session *s, uint32_t result)
{
    uint8_t bytes[4];

    if (s->u.selected != PROTOCOL_HYBRID_EX_BIT)
        return;
    put_le32(bytes, result);
    tell_client(s, bytes, sizeof(bytes));
}

/* What the process had no words for: clients of version 3, 4 and 6 understand it. */
static void tell_failure(struct rdp_session *s)
{
    const struct tsrequest r = {
        .version = CREDSSP_VERSION, .has_error = true, .error_code = STATUS_LOGON_FAILURE};
    struct buffer b;

    buffer_init(&b, 64);
    tsrequest_put(&b, &r);
    tell_client(s, b.data, b.len);
    buffer_finish(&b);
}

static void break_off(struct rdp_session *s, const char *why)
{
    let_go(&s->front);
    tell_failure(s);
    rdp_end(s, END_POLICY, "relay", why, "");
}

void front_begin(struct rdp_session *s)
{
    const X509 *certificate;
    X509_PUBKEY *spki;
    const uint8_t *key;
    int len;

    if (s->u.selected == PROTOCOL_SSL_BIT) {
        s->phase = PHASE_CONNECT;
        return;
    }
    s->phase = PHASE_USER_NLA;
    certificate = SSL_get_certificate(s->user.ssl);
    spki = certificate ? X509_get_X509_PUBKEY(certificate) : NULL;
    if (!spki || X509_PUBKEY_get0_param(NULL, &key, &len, NULL, spki) != 1 || len <= 0)
        break_off(s, "our own certificate cannot be read");
    else
        relay_nla_login(s->relay, key, (size_t)len);
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    rdp_wake(arg);
}

void front_begun(struct rdp_session *s, int fd)
{
    struct front *f = &s->front;

    if (s->phase != PHASE_USER_NLA || f->fd >= 0 || f->has_login || f->is_waiting) {
        close(fd);
        if (s->phase == PHASE_USER_NLA) /* another broker: what was said cannot be said again */
            break_off(s, "the login was interrupted");
        return;
    }
    f->fd = fd;
    f->readable = event_new(relay_base(s->relay), fd, EV_READ | EV_PERSIST, readable_cb, s);
    if (!f->readable || event_add(f->readable, NULL) < 0)
        break_off(s, "out of memory");
    rdp_want_turn(s);
}

static void deny(struct rdp_session *s)
{
    struct front *f = &s->front;

    if (f->has_login) /* CredSSP is over: there is only this word left */
        tell_authorized(s, AUTHZ_ACCESS_DENIED);
    else if (f->has_last && !f->last.failed) /* empty for versions that know no error */
        tell_client(s, f->last.data, f->last.len);
    else
        tell_failure(s);
    rdp_end(s, END_POLICY, "policy", f->why[0] ? f->why : "the login failed", "");
}

/* One whole TSRequest, when the last one was answered. */
static void carry_token(struct rdp_session *s)
{
    struct cursor in = rdp_leg_input(&s->user);
    size_t len;
    enum parse r;
    int sent;

    if ((s->front.fd < 0 && !s->front.is_denied) || s->front.is_waiting || s->front.has_login)
        return;
    r = tsrequest_frame(&in, NLA_TALK_DATA_MAX, &len);
    if (r == PARSE_MORE)
        return;
    if (r != PARSE_OK) {
        break_off(s, "the client's NLA cannot be understood");
        return;
    }
    s->front.has_spoken = true;
    if (s->front.is_denied) {
        rdp_leg_use_secret(&s->user, len);
        deny(s);
        return;
    }
    message.type = NLA_TALK_TOKEN;
    message.data_len = (uint16_t)len;
    memcpy(message.data, in.at, len);
    rdp_leg_use_secret(&s->user, len);
    sent = nla_talk_send(s->front.fd, &message, NULL);
    memory_wipe(&message, sizeof(message));
    s->front.is_waiting = true;
    if (sent < 0)
        break_off(s, "the process of the login takes nothing more");
}

/* ---- the process's side ---- */

static void take_login(struct rdp_session *s)
{
    struct front *f = &s->front;

    f->has_login = true;
    (void)rdp_user_name(s, message.user, message.domain);
    f->early = malloc(sizeof(*f->early));
    if (f->early)
        (void)secret_set(f->early, message.password, strlen(message.password));
}

static void take_message(struct rdp_session *s)
{
    struct front *f = &s->front;

    switch (message.type) {
    case NLA_TALK_TOKEN:
        f->is_waiting = false;
        tell_client(s, message.data, message.data_len);
        break;
    case NLA_TALK_LOGIN:
        take_login(s);
        break;
    case NLA_TALK_FAILED: /* told to the client when the broker has judged, which may take a while
                           */
        log_debug("nla failed: %s", message.text);
        f->has_last = true;
        buffer_put(&f->last, message.data, message.data_len);
        break;
    default:
        break_off(s, "the process of the login is out of step");
        break;
    }
}

/* All that is there. */
static void hear(struct rdp_session *s)
{
    int r = 0;

    while (s->front.fd >= 0 && s->phase == PHASE_USER_NLA &&
           (r = nla_talk_receive(s->front.fd, &message, NULL)) == 0) {
        take_message(s);
        memory_wipe(&message, sizeof(message));
    }
    if (s->front.fd < 0 || r == 0 || r == ERR_AGAIN)
        return;
    let_go(&s->front);
    s->front.lost_by_ms = clock_mono_ms() + LOST_MS;
    rdp_want_timer(s, s->front.lost_by_ms);
}

void front_step(struct rdp_session *s)
{
    struct ending *e = &s->ending;

    if (e->is_pending && s->phase < PHASE_ENDING) { /* see lockstep_can_end() */
        if (clock_mono_ms() >= e->step_ms)
            rdp_end(s, e->reason, e->author, e->text, e->sentence);
        else
            rdp_want_timer(s, e->step_ms);
    }
    if (s->phase != PHASE_USER_NLA)
        return;
    hear(s);
    if (s->phase == PHASE_USER_NLA)
        carry_token(s);
    if (s->phase == PHASE_USER_NLA && s->front.lost_by_ms &&
        clock_mono_ms() >= s->front.lost_by_ms) /* and no broker has a word for it */
        break_off(s, "the process of the login is gone");
}

/* ---- the broker's word ---- */

/* Whoever has not spoken yet would take an answer for a broken connection. */
static void denied(struct rdp_session *s, const struct link_auth_result *result)
{
    struct front *f = &s->front;

    text_copy(f->why, sizeof(f->why), result->text);
    f->is_denied = true;
    if (f->has_spoken) {
        deny(s);
    } else {
        f->lost_by_ms = clock_mono_ms() + LOST_MS;
        rdp_want_timer(s, f->lost_by_ms);
    }
}

static void let_in(struct rdp_session *s, bool is_partial)
{
    struct front *f = &s->front;
    const struct login *l = &s->u.login;

    f->is_known = true;
    f->is_partial = is_partial;
    s->u.password = f->early;
    f->early = NULL;
    tell_authorized(s, AUTHZ_SUCCESS);
    if (is_partial || !l->target[0]) {
        s->phase = PHASE_CONNECT; /* late splice: the client can be asked in a desktop only */
        return;
    }
    s->t.is_lockstep = true;
    s->phase = PHASE_ROUTING;
    relay_route(s->relay, l->account, l->target);
}

bool front_result(struct rdp_session *s, const struct link_auth_result *result)
{
    if (s->phase != PHASE_USER_NLA)
        return false;
    hear(s); /* what the process said, it said before the broker knew */
    if (s->phase != PHASE_USER_NLA)
        return true;
    let_go(&s->front);
    if ((result->result == LINK_AUTH_OK || result->result == LINK_AUTH_PARTIAL) &&
        s->front.has_login)
        let_in(s, result->result == LINK_AUTH_PARTIAL);
    else
        denied(s, result);
    rdp_want_turn(s);
    return true;
}
