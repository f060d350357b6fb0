/*
 * `sallyport-rdp --probe`: try a target out for an admin. The broker hands over the connected
 * socket; this process is in a relay's sandbox before the first byte from there. It asks for the
 * security that a session would ask for, shakes hands, shows the certificate's key, and logs in
 * when the target does that before the session (NLA) and a password is stored.
 */
#include <event2/event.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/ntlm.h"
#include "proxy/rdp/rdp.h"
#include "proxy/rdp/session.h"
#include "proxy/rdp/tls.h"
#include "proxy/relay/probing.h"

#define ANSWER_MAX 16384u

struct probe {
    struct event_base *base;
    struct event *timer, *link;
    struct rdp_session session; /* only its target's side */
    struct link_hop target;
    struct link_message message; /* scratch */
    bool only_key, is_in_turn, is_over;
    int64_t until_ms;
};

static struct probe the_probe; /* large, and there is one */

/* ---- what it says ---- */

static void PRINTF_LIKE(5, 6) say(struct probe *p, enum link_probe_step step,
                                  enum link_probe_result result, bool is_last, const char *fmt, ...)
{
    struct link_probe_step_msg *m = &p->message.probe_step;
    va_list args;

    m->step = (uint8_t)step;
    m->result = (uint8_t)result;
    m->is_last = is_last;
    va_start(args, fmt);
    vsnprintf(m->text, sizeof(m->text), fmt, args);
    va_end(args);
    if (!probing_say(&p->message) || is_last)
        p->is_over = true;
}

static void fail(struct probe *p, enum link_probe_step step, const char *text)
{
    say(p, step, PROBE_FAILED, true, "%s", text);
}

/* ---- X.224 and TLS ---- */

static bool may_log_in(const struct probe *p)
{
    return p->only_key || p->target.auth != TARGET_AUTH_NONE;
}

static void begin_tls(struct probe *p, const struct x224_confirm *confirm)
{
    struct rdp_session *s = &p->session;
    char host[SESSION_ADDRESS_MAX];

    s->t.selected = confirm->value;
    say(p, PROBE_BANNER, PROBE_OK, false, "RDP, %s",
        confirm->value == PROTOCOL_HYBRID_BIT ? "with NLA" : "without NLA");
    rdp_host_of(p->target.address, host, sizeof(host));
    if (rdp_leg_begin_tls(&s->target, tls_client(s->target.fd, host)) < 0) {
        fail(p, PROBE_KEY_EXCHANGE, "it does not wait for TLS");
        return;
    }
    s->t.step = TARGET_TLS;
    rdp_leg_drive(&s->target);
}

static void step_x224(struct probe *p)
{
    struct rdp_session *s = &p->session;
    struct x224_confirm confirm;
    struct frame f;
    enum parse r = rdp_frame(&s->target, ANSWER_MAX, &f);

    if (r == PARSE_MORE)
        return;
    if (r != PARSE_OK || f.kind != FRAME_TPKT ||
        x224_confirm_parse(frame_body(&f), &confirm) != PARSE_OK) {
        fail(p, PROBE_BANNER, "it does not speak RDP");
        return;
    }
    rdp_leg_use(&s->target, f.len);
    if (!confirm.has_negotiation)
        fail(p, PROBE_BANNER, "it offers only the old RDP security, without TLS");
    else if (confirm.is_failure)
        fail(p, PROBE_BANNER, x224_failure_text(confirm.value));
    else if (confirm.value != PROTOCOL_SSL_BIT &&
             !(confirm.value == PROTOCOL_HYBRID_BIT && may_log_in(p)))
        fail(p, PROBE_BANNER, "it chose a security that was not offered");
    else
        begin_tls(p, &confirm);
}

/* ---- the key ---- */

static void begin_login(struct probe *p)
{
    const struct link_hop *t = &p->target;
    struct rdp_session *s = &p->session;
    char domain[ACCOUNT_MAX_LEN + 1];
    const char *user = rdp_split_account(t->account, domain, sizeof(domain));
    struct secret password = {0};

    if (s->t.selected != PROTOCOL_HYBRID_BIT) {
        say(p, PROBE_LOGIN, PROBE_SKIPPED, true,
            "it asks for the login in the session: only a session can try");
    } else if (t->auth == TARGET_AUTH_PASSTHROUGH) {
        say(p, PROBE_LOGIN, PROBE_SKIPPED, true,
            "it is logged in to with the user's own password: only a session can try");
    } else if (t->secret.len == 0 || !secret_set(&password, t->secret.data, t->secret.len)) {
        say(p, PROBE_LOGIN, PROBE_SKIPPED, true,
            "no password is stored: the user is asked, and only a session can try");
    } else {
        s->t.step = TARGET_NLA;
        if (!nla_begin(s, domain, user, (const char *)password.data))
            fail(p, PROBE_LOGIN, nla_why(s));
    }
    secret_wipe(&password);
}

static void judge_key(struct probe *p, const uint8_t *key, size_t len, const char *print)
{
    const struct link_hop *t = &p->target;
    struct link_probe_step_msg *m = &p->message.probe_step;
    const char *judged = t->accept_new ? "not pinned yet; the first session pins it" : NULL;
    char expected[FINGERPRINT_MAX];

    if (t->host_key_type[0]) {
        bool is_pinned = strcmp(t->host_key_type, TLS_KEY_TYPE) == 0 && t->host_key.len == len &&
                         memcmp(t->host_key.data, key, len) == 0;

        fingerprint_sha256(expected, t->host_key.data, t->host_key.len);
        if (!is_pinned) {
            say(p, PROBE_HOST_KEY, PROBE_FAILED, true,
                "the certificate has changed: expected %s, got %s", expected, print);
            return;
        }
        judged = "as pinned";
    }
    if (!p->only_key && !judged) {
        say(p, PROBE_HOST_KEY, PROBE_FAILED, true, TLS_KEY_TYPE " %s, not pinned", print);
        return;
    }
    text_copy(m->key_type, sizeof(m->key_type), TLS_KEY_TYPE);
    m->key.len = (uint16_t)len;
    memcpy(m->key.data, key, len);
    say(p, PROBE_HOST_KEY, PROBE_OK, p->only_key, TLS_KEY_TYPE " %s%s%s", print,
        p->only_key ? "" : ", ", p->only_key ? "" : judged);
    if (!p->is_over)
        begin_login(p);
}

static void check_key(struct probe *p)
{
    struct rdp_session *s = &p->session;
    uint8_t key[LINK_KEY_MAX];
    size_t len = tls_peer_key(s->target.ssl, key, sizeof(key));
    char print[FINGERPRINT_MAX];

    s->t.step = TARGET_PINNING;
    say(p, PROBE_KEY_EXCHANGE, PROBE_OK, false, "%s, %s", SSL_get_version(s->target.ssl),
        SSL_get_cipher_name(s->target.ssl));
    fingerprint_sha256(print, key, len);
    if (len == 0)
        fail(p, PROBE_HOST_KEY, "its certificate cannot be read");
    else
        judge_key(p, key, len, print);
}

static void step_nla(struct probe *p)
{
    switch (nla_step(&p->session)) {
    case NLA_MORE:
        break;
    case NLA_DONE:
        say(p, PROBE_LOGIN, PROBE_OK, true, "%s by NLA", p->target.account);
        break;
    case NLA_FAILED:
        fail(p, PROBE_LOGIN, nla_why(&p->session));
        break;
    }
}

/* ---- the loop ---- */

static enum link_probe_step at_step(const struct probe *p)
{
    switch (p->session.t.step) {
    case TARGET_X224:
        return PROBE_BANNER;
    case TARGET_TLS:
        return PROBE_KEY_EXCHANGE;
    default:
        return PROBE_LOGIN;
    }
}

static void look_at_end(struct probe *p, int64_t now_ms)
{
    struct leg *l = &p->session.target;
    char why[128];

    if (p->is_over)
        return;
    if (now_ms >= p->until_ms) {
        fail(p, at_step(p), "it was not done in time");
    } else if (l->state == LEG_DEAD) {
        text_escape(why, sizeof(why), l->error, strlen(l->error));
        fail(p, at_step(p), strcmp(why, "closed") == 0 ? "it closed the connection" : why);
    }
}

static void turn(void *arg)
{
    struct probe *p = arg;
    struct rdp_session *s = &p->session;
    struct timeval in = {0, 200000}; /* short: an admin waits, and it lives for seconds */

    if (p->is_in_turn || p->is_over)
        return;
    p->is_in_turn = true;
    rdp_leg_drive(&s->target);
    if (s->t.step == TARGET_X224)
        step_x224(p);
    if (!p->is_over && s->t.step == TARGET_TLS && s->target.state == LEG_UP)
        check_key(p);
    if (!p->is_over && s->t.step == TARGET_NLA)
        step_nla(p);
    look_at_end(p, clock_mono_ms());
    rdp_leg_settle(&s->target);
    (void)event_add(p->timer, &in);
    if (p->is_over)
        event_base_loopbreak(p->base);
    p->is_in_turn = false;
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    turn(arg);
}

/* Nothing is said to a probe once it has begun: this is the broker's end, or its change of mind. */
static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;

    (void)fd, (void)what;
    p->is_over = true;
}

/* ---- the start ---- */

/* RDP goes through no other server: there is the target only. */
static int take_hop(void *arg, struct link_hop *hop, int *fds)
{
    struct probe *p = arg;

    (void)fds;
    if (hop->number != 0)
        return ERR_INVALID;
    p->target = *hop;
    return 0;
}

static int begin(void *arg, const struct link_probe *start, int *fds)
{
    struct probe *p = arg;
    struct leg *l = &p->session.target;
    int fd = fds[0], flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
    struct buffer b;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || start->hops > 0 ||
        !p->target.address[0])
        return ERR_INVALID;
    fds[0] = -1;
    p->only_key = start->only_key;
    if (p->only_key) /* any key is of interest, not only one like the old one */
        p->target.host_key_type[0] = '\0';
    p->until_ms = clock_mono_ms() + (int64_t)start->timeout_s * 1000;
    p->session.t.step = TARGET_X224;
    rdp_leg_init(l, "target");
    if (rdp_leg_open(l, fd, p->base, turn, p) < 0)
        return ERR_MEMORY;
    buffer_init(&b, 64);
    x224_request_put(&b, "", PROTOCOL_SSL_BIT | (may_log_in(p) ? PROTOCOL_HYBRID_BIT : 0));
    rdp_leg_send(l, b.data, b.len);
    buffer_finish(&b);
    return 0;
}

static int warm_up(void)
{
    return ntlm_prepare() < 0 ? ERR_CRYPTO : tls_prepare_client();
}

int rdp_probe_main(int argc, char **argv)
{
    static const struct probing_ops ops = {take_hop, begin};
    struct probe *p = &the_probe;
    int r = probing_start(argc, argv, warm_up);

    if (r < 0)
        return -r;
    p->base = event_base_new();
    p->timer = p->base ? event_new(p->base, -1, 0, timer_cb, p) : NULL;
    if (!p->timer || probing_listen(&ops, p, &p->message) < 0) {
        log_error("probe: it cannot begin");
        return 1;
    }
    p->link = event_new(p->base, PROBING_LINK_FD, EV_READ, link_cb, p);
    if (!p->link || event_add(p->link, NULL) < 0)
        return 1;
    turn(p);
    while (!p->is_over)
        if (event_base_loop(p->base, EVLOOP_ONCE) < 0)
            return 1;
    memory_wipe(&p->target, sizeof(p->target));
    nla_finish(&p->session);
    rdp_leg_shutdown(&p->session.target);
    rdp_leg_close(&p->session.target);
    return 0; /* what is left goes with the process */
}
