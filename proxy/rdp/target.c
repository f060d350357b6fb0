/*
 * The relay as a client of the target: X.224, TLS, the pinned key before any credential, MCS with
 * the client's own settings, and Client Info with the account's credentials. Every failure is a
 * sentence for the user. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/redirection.h"
#include "proxy/rdp/screen.h"
#include "proxy/rdp/tls.h"

#define TARGET_LOGIN_MS 30000
#define SECRET_MS       60000 /* to type a password; more, and a target may have given up */
#define ANSWER_MAX      16384u

static void fail(struct rdp_session *s, const char *sentence)
{
    log_info("target login failed: %s", sentence);
    if (!rdp_screen_failed(s, sentence))
        rdp_end(s, END_TARGET_UNREACHABLE, "target", sentence, sentence);
}

static void PRINTF_LIKE(2, 3) failf(struct rdp_session *s, const char *fmt, ...)
{
    char text[SESSION_TEXT_MAX];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fail(s, text);
}

static void send_all(struct rdp_session *s, struct buffer *b)
{
    if (b->failed)
        fail(s, "out of memory");
    else
        rdp_leg_send(&s->target, b->data, b->len);
    buffer_finish(b);
}

/* ---- X.224 ---- */

/* HOST of HOST:PORT, without brackets. */
void rdp_host_of(const char *address, char *dst, size_t len)
{
    const char *start = address[0] == '[' ? address + 1 : address;
    const char *end = strrchr(address, ':');
    size_t n;

    if (address[0] == '[')
        end = strchr(address, ']');
    n = end && end > start ? (size_t)(end - start) : strlen(start);
    if (n >= len)
        n = len - 1;
    memcpy(dst, start, n);
    dst[n] = '\0';
}

/* Without a password of ours the target shows its own login, which NLA knows nothing of. */
static bool wants_nla(const struct rdp_session *s)
{
    return s->t.route->auth != TARGET_AUTH_NONE;
}

static void step_x224(struct rdp_session *s)
{
    struct x224_confirm confirm;
    char host[SESSION_ADDRESS_MAX];
    struct frame f;
    enum parse r = rdp_frame(&s->target, ANSWER_MAX, &f);

    if (r == PARSE_MORE)
        return;
    if (r != PARSE_OK || f.kind != FRAME_TPKT ||
        x224_confirm_parse(frame_body(&f), &confirm) != PARSE_OK) {
        failf(s, "%s does not speak RDP", s->t.name);
        return;
    }
    rdp_leg_use(&s->target, f.len);
    if (!confirm.has_negotiation) {
        failf(s, "%s offers only the old RDP security, without TLS", s->t.name);
    } else if (confirm.is_failure) {
        failf(s, "%s cannot be used: %s", s->t.name, x224_failure_text(confirm.value));
    } else if (confirm.value != PROTOCOL_SSL_BIT &&
               !(confirm.value == PROTOCOL_HYBRID_BIT && wants_nla(s))) {
        failf(s, "%s chose a security that was not offered", s->t.name);
    } else {
        s->t.selected = confirm.value;
        s->t.has_extended = confirm.flags & X224_EXTENDED_CLIENT_DATA;
        s->t.has_graphics = confirm.flags & X224_DYNVC_GFX;
        rdp_host_of(s->t.route->address, host, sizeof(host));
        if (rdp_leg_begin_tls(&s->target, tls_client(s->target.fd, host)) < 0) {
            failf(s, "%s does not wait for TLS", s->t.name);
            return;
        }
        s->t.step = TARGET_TLS;
        rdp_leg_drive(&s->target);
    }
}

/* ---- the key ---- */

static void fail_mismatch(struct rdp_session *s, const uint8_t *key, size_t len)
{
    const struct link_route_result *route = s->t.route;
    char expected[FINGERPRINT_MAX], got[FINGERPRINT_MAX], text[SENTENCE_MAX];

    fingerprint_sha256(expected, route->host_key.data, route->host_key.len);
    fingerprint_sha256(got, key, len);
    snprintf(text, sizeof(text), "the certificate of %s has changed: expected %s, got %s",
             s->t.name, expected, got);
    relay_event(s->relay, "host-key-mismatch", text);
    fail(s, text);
}

static void begin_login(struct rdp_session *s);
static void begin_mcs(struct rdp_session *s);

static void check_key(struct rdp_session *s)
{
    const struct link_route_result *route = s->t.route;
    uint8_t key[LINK_KEY_MAX];
    size_t len = tls_peer_key(s->target.ssl, key, sizeof(key));
    enum redirect_key judged;

    if (len == 0) {
        failf(s, "the certificate of %s cannot be read", s->t.name);
    } else if ((judged = rdp_redirect_judge_key(s, key, len)) != REDIRECT_KEY_UNKNOWN) {
        if (judged == REDIRECT_KEY_RIGHT)
            begin_login(s);
    } else if (route->host_key_type[0]) {
        if (strcmp(route->host_key_type, TLS_KEY_TYPE) == 0 && route->host_key.len == len &&
            memcmp(route->host_key.data, key, len) == 0)
            begin_login(s);
        else
            fail_mismatch(s, key, len);
    } else if (route->accept_new) {
        s->t.step = TARGET_PINNING;
        relay_pin_host_key(s->relay, 0, TLS_KEY_TYPE, key, len);
    } else {
        failf(s,
              "no certificate is pinned for %s; an admin can pin it with: sallyctl target set "
              "%s --accept-new",
              s->t.name, s->t.name);
    }
}

void rdp_target_pinned(struct rdp_session *s, bool is_ok, const char *text)
{
    if (s->phase != PHASE_TARGET || s->t.step != TARGET_PINNING)
        return;
    if (is_ok)
        begin_login(s);
    else
        fail(s, text[0] ? text : "the target's certificate was not accepted");
    rdp_want_turn(s);
}

/* ---- MCS ---- */

static void begin_connect(struct rdp_session *s)
{
    struct gcc_patch patch = {.selected = s->t.selected,
                              .has_extended = s->t.has_extended,
                              .session_id = s->redirect.to ? s->redirect.to->session_id : 0,
                              .is_dropped = s->t.is_dropped};
    struct buffer gcc, b;

    buffer_init(&gcc, TPKT_MAX);
    buffer_init(&b, TPKT_MAX);
    gcc_client_put(&gcc, &s->u.client, &patch);
    mcs_connect_initial_put(&b, &s->u.connect, gcc.data, gcc.len);
    b.failed |= gcc.failed;
    buffer_finish(&gcc);
    s->t.step = TARGET_CONNECT;
    send_all(s, &b);
}

/* In lock-step the client has not said yet what it wants of the target. */
static void begin_mcs(struct rdp_session *s)
{
    if (s->t.is_lockstep)
        lockstep_wait(s);
    else
        begin_connect(s);
}

/* The target numbers the channels that it was told of, in that order; or none, when it has none
 * (xrdp with allow_channels=false): then they lead nowhere. */
static bool take_numbers(struct target_side *t, const struct gcc_client *c)
{
    size_t next = 0;

    for (size_t i = 0; i < c->channel_count; i++) {
        if (t->is_dropped[i])
            continue;
        t->is_dropped[i] = t->ids.channel_count == 0;
        if (t->is_dropped[i])
            continue;
        if (next >= t->ids.channel_count)
            return false;
        t->channels[i] = t->ids.channels[next++];
    }
    return true;
}

static void take_response(struct rdp_session *s, const struct frame *f)
{
    struct target_side *t = &s->t;
    struct cursor gcc;
    struct buffer b;
    uint8_t result;

    if (mcs_connect_response_parse(frame_body(f), &result, &gcc) != PARSE_OK) {
        failf(s, "%s does not speak RDP as it is understood here", t->name);
    } else if (result != 0) {
        failf(s, "%s refused the connection (MCS result %u)", t->name, result);
    } else if (gcc_server_parse(gcc, &t->ids) != PARSE_OK || t->ids.method || t->ids.level ||
               !take_numbers(t, &s->u.client)) {
        failf(s, "%s does not speak RDP as it is understood here", t->name);
    } else if (t->is_lockstep) {
        lockstep_answered(s);
    } else {
        buffer_init(&b, 64);
        mcs_erect_put(&b);
        mcs_attach_request_put(&b);
        t->step = TARGET_ATTACH;
        send_all(s, &b);
    }
}

static void join_next(struct rdp_session *s)
{
    struct target_side *t = &s->t;
    struct buffer b;

    buffer_init(&b, 64);
    mcs_join_request_put(&b, t->user_id, t->joins[t->joined]);
    send_all(s, &b);
}

static void begin_joins(struct rdp_session *s, uint16_t user_id)
{
    struct target_side *t = &s->t;

    t->user_id = user_id;
    t->joins[t->join_count++] = user_id;
    t->joins[t->join_count++] = t->ids.io_channel;
    if (t->ids.message_channel)
        t->joins[t->join_count++] = t->ids.message_channel;
    for (size_t i = 0; i < s->u.client.channel_count; i++)
        if (t->channels[i])
            t->joins[t->join_count++] = t->channels[i];
    t->step = TARGET_JOIN;
    join_next(s);
}

/* ---- Client Info ---- */

/* "DOM\user" or "user". */
const char *rdp_split_account(const char *account, char *domain, size_t len)
{
    const char *back = strchr(account, '\\');
    size_t n = back ? (size_t)(back - account) : 0;

    domain[0] = '\0';
    if (!back || n >= len)
        return account;
    memcpy(domain, account, n);
    domain[n] = '\0';
    return back + 1;
}

/* NULL after a failure was said. */
static const char *credential(struct rdp_session *s, struct secret *own)
{
    const struct link_route_result *route = s->t.route;

    switch ((enum link_target_auth)route->auth) {
    case TARGET_AUTH_NONE: /* the target shows its own login */
        return "";
    case TARGET_AUTH_PASSWORD:
    case TARGET_AUTH_PROMPT:
        if (route->secret.len > 0 && secret_set(own, route->secret.data, route->secret.len))
            return (const char *)own->data;
        break;
    case TARGET_AUTH_PASSTHROUGH:
        if (s->u.password && s->u.password->len > 0)
            return (const char *)s->u.password->data;
        break;
    default:
        failf(s, "%s is set to log in with a key, which RDP cannot", s->t.name);
        return NULL;
    }
    failf(s, "no password is stored for %s", s->t.name);
    return NULL;
}

/* The key is the pinned one: credentials may leave. */
static void begin_login(struct rdp_session *s)
{
    char domain[ACCOUNT_MAX_LEN + 1];
    const char *user = rdp_split_account(s->t.route->account, domain, sizeof(domain)), *password;
    struct secret own = {0};

    if (s->t.selected != PROTOCOL_HYBRID_BIT) {
        begin_mcs(s);
        return;
    }
    s->t.step = TARGET_NLA;
    if ((password = credential(s, &own)) && !nla_begin(s, domain, user, password))
        failf(s, "%s cannot be logged in to: %s", s->t.name, nla_why(s));
    secret_wipe(&own);
}

/* Each side speaks in its turn: there is never more than one message. */
static void step_nla(struct rdp_session *s)
{
    enum nla_state r = s->phase == PHASE_TARGET ? nla_step(s) : NLA_MORE;

    if (r == NLA_DONE)
        begin_mcs(s);
    else if (r == NLA_FAILED)
        failf(s, "%s cannot be logged in to: %s", s->t.name, nla_why(s));
}

static void forget_route(struct rdp_session *s)
{
    if (s->t.route) {
        memory_wipe(s->t.route, sizeof(*s->t.route));
        free(s->t.route);
        s->t.route = NULL;
    }
}

static void send_info(struct rdp_session *s)
{
    struct client_info info;
    struct secret own = {0};
    struct buffer pdu, b;
    char domain[ACCOUNT_MAX_LEN + 1];
    const char *user = rdp_split_account(s->t.route->account, domain, sizeof(domain));
    const char *password = credential(s, &own);

    if (password)
        rdp_redirect_keep(s, password);
    rdp_cookie_judged(s, s->t.route->keeps_cookie);
    if (password && client_info_parse(cursor_of(s->u.info, s->u.info_len), &info) == PARSE_OK) {
        buffer_init_secret(&pdu, TPKT_MAX);
        buffer_init_secret(&b, TPKT_MAX);
        info.flags = rdp_record_info_flags(s, info.flags);
        client_info_put(&pdu, &info, domain, user, password);
        mcs_data_put(&b, MCS_DATA_REQUEST, s->t.user_id, s->t.ids.io_channel, pdu.data, pdu.len);
        b.failed |= pdu.failed;
        buffer_finish(&pdu);
        s->t.step = TARGET_DONE;
        s->t.deadline_ms = clock_mono_ms() + TARGET_LOGIN_MS;
        s->phase = PHASE_RELAYING;
        rdp_record_begin(s);
        send_all(s, &b);
    }
    secret_wipe(&own);
    if (s->phase == PHASE_RELAYING)
        forget_route(s);
    if (!s->screen) /* which may have to try another one; splice.c wipes it then */
        rdp_user_forget(s);
}

static void take_confirm(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    struct target_side *t = &s->t;

    if (pdu->type == MCS_ULTIMATUM)
        failf(s, "%s refused the connection", t->name);
    else if (t->step == TARGET_LOCKSTEP)
        lockstep_from_target(s, pdu);
    else if (t->step == TARGET_ATTACH && pdu->type == MCS_ATTACH_CONFIRM && pdu->result == 0)
        begin_joins(s, pdu->user);
    else if (t->step != TARGET_JOIN || pdu->type != MCS_JOIN_CONFIRM || pdu->result != 0)
        failf(s, "%s refused a channel of the connection", t->name);
    else if (++t->joined < t->join_count)
        join_next(s);
    else
        send_info(s);
}

static void step_mcs(struct rdp_session *s)
{
    struct mcs_pdu pdu;
    struct frame f;
    enum parse r;

    while (s->phase == PHASE_TARGET && (r = rdp_frame(&s->target, ANSWER_MAX, &f)) != PARSE_MORE) {
        if (r != PARSE_OK || f.kind != FRAME_TPKT) {
            failf(s, "%s does not speak RDP as it is understood here", s->t.name);
            return;
        }
        rdp_leg_use(&s->target, f.len); /* before: a failure in lock-step closes the leg */
        if (s->t.step == TARGET_CONNECT)
            take_response(s, &f);
        else if (mcs_parse(frame_body(&f), &pdu) != PARSE_OK)
            failf(s, "%s does not speak RDP as it is understood here", s->t.name);
        else
            take_confirm(s, &pdu);
    }
}

/* ---- from outside ---- */

static void begin_target(struct rdp_session *s)
{
    struct buffer b;

    s->t.step = TARGET_X224;
    s->t.deadline_ms = clock_mono_ms() + TARGET_LOGIN_MS;
    rdp_want_timer(s, s->t.deadline_ms);
    buffer_init(&b, 256);
    x224_request_put(&b, s->redirect.to ? s->redirect.to->token : "",
                     PROTOCOL_SSL_BIT | (wants_nla(s) ? PROTOCOL_HYBRID_BIT : 0));
    send_all(s, &b);
}

void rdp_target_again(struct rdp_session *s, int fd)
{
    s->phase = PHASE_TARGET;
    if (rdp_leg_open(&s->target, fd, relay_base(s->relay), rdp_wake, s) < 0)
        fail(s, "out of memory");
    else
        begin_target(s);
}

/* Nobody stored the account's password: the user has it. */
static bool must_ask(const struct rdp_session *s)
{
    return s->t.route->secret.len == 0 &&
           (s->t.route->auth == TARGET_AUTH_PASSWORD || s->t.route->auth == TARGET_AUTH_PROMPT);
}

static void ask_secret(struct rdp_session *s)
{
    s->t.step = TARGET_SECRET;
    s->t.deadline_ms = clock_mono_ms() + SECRET_MS;
    rdp_want_timer(s, s->t.deadline_ms);
    if (s->t.is_lockstep)
        lockstep_leave(s); /* and rdp_target_resume() when the client can be asked */
    else
        rdp_screen_ask_secret(s);
}

void rdp_target_resume(struct rdp_session *s)
{
    s->phase = PHASE_TARGET;
    channels_choose(s, s->t.allowed); /* now that there are some */
    ask_secret(s);
}

void rdp_target_routed(struct rdp_session *s, const struct link_route_result *route, int fd)
{
    if (s->phase != PHASE_ROUTING || !(s->t.route = malloc(sizeof(*s->t.route)))) {
        close(fd);
        return;
    }
    *s->t.route = *route;
    text_copy(s->t.name, sizeof(s->t.name), route->target);
    text_copy(s->t.account, sizeof(s->t.account), route->account);
    rdp_record_ask(s);
    channels_choose(s, route->policy.rdp_channels);
    s->phase = PHASE_TARGET;
    if (rdp_leg_open(&s->target, fd, relay_base(s->relay), rdp_wake, s) < 0)
        fail(s, "out of memory");
    else if (must_ask(s))
        ask_secret(s);
    else
        begin_target(s);
}

void rdp_target_secret(struct rdp_session *s, const char *password)
{
    struct link_route_result *route = s->t.route;
    size_t len = strlen(password);

    if (s->phase != PHASE_TARGET || s->t.step != TARGET_SECRET)
        return;
    if (len == 0 || len > sizeof(route->secret.data)) {
        fail(s, "no password was given");
        return;
    }
    memcpy(route->secret.data, password, len);
    route->secret.len = (uint16_t)len;
    begin_target(s);
    rdp_want_turn(s);
}

void rdp_target_reset(struct rdp_session *s)
{
    nla_finish(s);
    forget_route(s);
    rdp_redirect_reset(s);
    rdp_leg_close(&s->target);
    rdp_leg_init(&s->target, "target");
    memset(&s->t, 0, sizeof(s->t));
}

static void target_is_gone(struct rdp_session *s)
{
    char why[128];

    text_escape(why, sizeof(why), s->target.error, strlen(s->target.error));
    if (s->t.step == TARGET_TLS)
        failf(s, "TLS with %s failed: %s", s->t.name, why);
    else if (s->t.step == TARGET_NLA)
        failf(s, "%s broke the login off", s->t.name);
    else if (s->t.step == TARGET_SECRET)
        failf(s, "%s did not wait for the password", s->t.name);
    else
        failf(s, "%s closed the connection before the login", s->t.name);
}

/* Between the login and the desktop there is licensing, which no human takes part in. */
static void wait_for_desktop(struct rdp_session *s, int64_t now_ms)
{
    if (s->phase != PHASE_RELAYING || s->desktop.has_demand)
        return;
    if (now_ms >= s->t.deadline_ms)
        failf(s, "%s did not show a desktop in time", s->t.name);
    else
        rdp_want_timer(s, s->t.deadline_ms);
}

void rdp_target_step(struct rdp_session *s, int64_t now_ms)
{
    wait_for_desktop(s, now_ms);
    if (s->phase != PHASE_TARGET)
        return;
    if (s->t.step == TARGET_X224)
        step_x224(s);
    if (s->t.step == TARGET_TLS && s->target.state == LEG_UP && rdp_record_is_ready(s))
        check_key(s); /* a session that must be recorded gives no credential away before it is */
    if (s->t.step == TARGET_NLA)
        step_nla(s);
    if (s->t.step == TARGET_CLIENT && lockstep_take_initial(s))
        begin_connect(s);
    if (s->t.step >= TARGET_CONNECT)
        step_mcs(s);
    if (s->t.step == TARGET_LOCKSTEP && s->phase == PHASE_TARGET && lockstep_from_user(s))
        send_info(s);
    if (s->phase != PHASE_TARGET)
        return;
    if (s->target.state == LEG_DEAD)
        target_is_gone(s);
    else if (now_ms >= s->t.deadline_ms)
        failf(s,
              s->t.step == TARGET_SECRET ? "the password of %s was not typed in time"
                                         : "%s did not finish the login in time",
              s->t.name);
    else
        rdp_want_timer(s, s->t.deadline_ms);
}

void rdp_target_finish(struct rdp_session *s)
{
    nla_finish(s);
    forget_route(s);
    rdp_user_forget(s);
}
