/*
 * A relay's user logs in: passwords and keys are judged here, attempts are counted on the link and
 * on the source. Called by the dispatch of links.c.
 */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/dial.h"
#include "proxy/broker/hasher.h"
#include "proxy/broker/links_parts.h"
#include "proxy/broker/nla.h"
#include "proxy/broker/pam.h"
#include "proxy/broker/recordings.h"
#include "proxy/broker/ticket.h"
#include "proxy/broker/user_ca.h"
#include "tracker/nt_hash.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define FAILURES_A_MIN 300 /* rows of failed logins; the rest is counted in one */

/* ---- answers ---- */

/* What may go on: once the first factor was right, the second one. */
static uint8_t methods_of(const struct relay_link *l)
{
    return l->login.first ? LINK_METHOD_KEYBOARD : LINK_METHODS;
}

void link_login_reply(struct relay_link *l, enum link_auth result, const char *text)
{
    struct link_auth_result *a = &link_begin(l, LINK_AUTH_RESULT)->auth_result;

    a->result = (uint8_t)result;
    a->methods = methods_of(l);
    text_copy(a->user, sizeof(a->user), l->user);
    text_copy(a->text, sizeof(a->text), text);
    link_put_ticket(l, &a->ticket.len, a->ticket.data);
    link_say(l);
}

static void wipe_secret(struct secret **secret)
{
    if (*secret)
        secret_wipe(*secret);
    free(*secret);
    *secret = NULL;
}

/* What one request of the client left behind; the first factor stays. */
static void forget_request(struct relay_link *l)
{
    l->login.ask = ASK_NOTHING;
    l->login.info[0] = '\0';
    wipe_secret(&l->login.answer);
    pam_end(l->login.pam);
    l->login.pam = NULL;
    nla_attempt_end(l->login.nla);
    l->login.nla = NULL;
}

void link_login_stop(struct relay_link *l)
{
    forget_request(l);
    wipe_secret(&l->login.key);
    if (l->login.late)
        event_del(l->login.late);
}

void link_login_free(struct relay_link *l)
{
    if (l->login.late)
        event_free(l->login.late);
    l->login.late = NULL;
}

void link_login_ask(struct relay_link *l, const struct link_question *q)
{
    struct link_auth_prompt *p = &link_begin(l, LINK_AUTH_PROMPT)->auth_prompt;

    l->login.ask = q->ask;
    p->has_prompt = 1;
    p->has_echo = q->has_echo;
    p->more_s = q->more_s;
    text_copy(p->banner, sizeof(p->banner), q->banner ? q->banner : "");
    text_copy(p->instruction, sizeof(p->instruction), q->instruction ? q->instruction : "");
    text_copy(p->prompt, sizeof(p->prompt), q->prompt);
    link_say(l);
}

static struct source_limits source_limits(const struct broker *b)
{
    return (struct source_limits){b->config->source_failures, b->config->source_block_s};
}

void link_failures_cb(evutil_socket_t fd, short what, void *arg)
{
    struct links *all = arg;
    char text[96];

    (void)fd, (void)what;
    if (!all->failures_held)
        return;
    snprintf(text, sizeof(text), "%u more failed logins have no row of their own",
             all->failures_held);
    broker_event(all->broker, "login-failed", "", "", 0, text);
    all->failures_held = 0;
}

/* Strangers can fail from ever new addresses: past a number of rows a minute they are counted. */
static void failure_event(struct relay_link *l, const char *text)
{
    struct links *all = l->links;
    struct timeval minute = {60, 0};
    int64_t now_ms = clock_mono_ms();

    if (!all->failures_ms || now_ms - all->failures_ms >= 60000) {
        link_failures_cb(-1, 0, all);
        all->failures_ms = now_ms;
        all->failure_rows = 0;
    }
    if (all->failure_rows < FAILURES_A_MIN) {
        all->failure_rows++;
        link_note(l, "login-failed", text);
    } else if (all->failures_held++ == 0) {
        event_add(all->failures, &minute);
    }
}

static void late_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay_link *l = arg;

    (void)fd, (void)what;
    l->is_busy = false;
    if (l->state == STATE_LOGIN && l->fd >= 0)
        link_login_reply(l, l->login.late_result, l->login.late_text);
}

/* Whoever fails again and again waits; nobody else does. */
static void refuse_late(struct relay_link *l, enum link_auth result, const char *text)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    uint32_t wait_ms = sources_delay_ms(&b->sources, l->client_address, &sl, clock_mono_ms());
    struct timeval in = {wait_ms / 1000, (suseconds_t)(wait_ms % 1000) * 1000};

    if (wait_ms && !l->login.late)
        l->login.late = event_new(b->base, -1, 0, late_cb, l);
    if (!wait_ms || !l->login.late || event_add(l->login.late, &in) < 0) {
        link_login_reply(l, result, text);
        return;
    }
    l->is_busy = true;
    l->login.late_result = result;
    text_copy(l->login.late_text, sizeof(l->login.late_text), text);
}

void link_login_failed(struct relay_link *l, const char *method, const char *shown)
{
    static struct log_limit limit;
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    char text[160];

    forget_request(l);
    l->attempts++;
    sources_failed(&b->sources, l->client_address, &sl, clock_mono_ms());
    snprintf(text, sizeof(text), "%s, attempt %u", method, l->attempts);
    failure_event(l, text);
    if (log_limit_allows(&limit, 30, "failed logins"))
        log_info("login failed user=%s source=%s method=%s attempt=%u", l->tried_user,
                 l->client_address, method, l->attempts);
    if (l->attempts >= b->config->auth_attempts)
        refuse_late(l, LINK_AUTH_DISCONNECT, "Too many authentication failures");
    else
        refuse_late(l, LINK_AUTH_DENIED, shown);
}

/* PAM is slow to say no and quick to say yes: who leaves at once would know, and be counted never.
 * NLA says yes before it is over. */
void link_login_left(struct relay_link *l)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    bool is_nla = link_nla_is_untold(l);
    char text[160];

    if (is_nla || (l->login.pam && l->is_busy && l->login.is_answered)) {
        sources_failed(&b->sources, l->client_address, &sl, clock_mono_ms());
        snprintf(text, sizeof(text), "%s, left before the answer",
                 is_nla ? "nla" : l->login.pam_method);
        failure_event(l, text);
    }
    link_login_stop(l);
}

void link_logged_in(struct relay_link *l, const char *how)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    char text[SESSION_TEXT_MAX];

    if (!link_user_may_log_in(b, l->tried_user)) { /* locked between two factors */
        link_login_failed(l, how, "");
        return;
    }
    link_login_stop(l);
    l->login.first = NULL;
    text_copy(l->user, sizeof(l->user), l->tried_user);
    link_enter(l, STATE_CHOOSING);
    sources_succeeded(&b->sources, l->client_address, &sl, clock_mono_ms());
    store_user_logged_in(b->store, l->user, clock_wall_us());
    if (l->login.how[0])
        snprintf(text, sizeof(text), "%s (%s)", how, l->login.how);
    link_note(l, "login", l->login.how[0] ? text : how);
    log_debug("login user=%s source=%s method=%s", l->user, l->client_address, how);
    l->is_settled = true;
    gates_settled(b->gates, l->pid);
    link_login_reply(l, LINK_AUTH_OK, "");
}

void link_first_factor(struct relay_link *l, const char *method)
{
    struct broker *b = l->links->broker;
    struct store_factor factor;

    forget_request(l);
    if (!link_user_may_log_in(b, l->tried_user) ||
        store_factor_get(b->store, l->tried_user, &factor) < 0) {
        link_login_failed(l, method, "");
        return;
    }
    if (!factor.is_required && !factor.is_enrolled) {
        link_logged_in(l, method);
        return;
    }
    l->login.first = method;
    if (l->version < 3)
        link_login_reply(l, LINK_AUTH_DISCONNECT,
                         "This connection began before an update: connect again");
    else if (l->login.is_keyboard)
        link_factor_ask(l);
    else
        link_login_reply(l, LINK_AUTH_PARTIAL, "");
}

bool link_login_may_try(struct relay_link *l, const char *user, const char *device)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    bool is_first;
    uint32_t wait_s;
    char text[128];

    text_copy(l->device, sizeof(l->device), device);
    if (!l->tried_user[0])
        text_copy(l->tried_user, sizeof(l->tried_user), user);
    if (strcmp(l->tried_user, user) != 0 && l->protocol != PROTOCOL_RDP) {
        link_login_reply(l, LINK_AUTH_DISCONNECT, "the user name may not change during a login");
        return false;
    }
    if (strcmp(l->tried_user, user) != 0) { /* the login screen has a field for it */
        text_copy(l->tried_user, sizeof(l->tried_user), user);
        l->login.first = NULL;
        wipe_secret(&l->login.key);
    }
    if (l->attempts >= b->config->auth_attempts) {
        link_login_reply(l, LINK_AUTH_DISCONNECT, "Too many authentication failures");
        return false;
    }
    wait_s = sources_blocked_s(&b->sources, l->client_address, &sl, clock_mono_ms(), &is_first);
    if (!wait_s)
        return true;
    snprintf(text, sizeof(text), "Too many failed logins from your address: try again in %u s",
             wait_s);
    if (is_first) {
        log_warn("source blocked source=%s seconds=%u", l->client_address, wait_s);
        link_note(l, "source-blocked", text);
    }
    link_login_reply(l, LINK_AUTH_DISCONNECT, text);
    return false;
}

bool link_login_begin(struct relay_link *l, const char *user, const char *device, bool is_keyboard)
{
    if (l->is_busy)
        return false;
    forget_request(l);
    l->login.is_keyboard = is_keyboard;
    if (!l->login.first) {
        l->login.cert_denies = 0;
        l->login.how[0] = '\0';
    }
    if (!link_login_may_try(l, user, device))
        return false;
    if (!l->login.first || is_keyboard)
        return true;
    link_login_failed(l, "the first factor again", ""); /* what may go on was said */
    return false;
}

/* ---- passwords ---- */

struct password_check {
    struct links *links;
    uint64_t serial;
    bool has_nt_hash; /* NLA waits for it, and this may be the password */
    uint8_t nt_hash[NT_HASH_LEN];
    char hash[STORE_HASH_MAX]; /* that it was checked against; "" for none */
};

void link_limit_policy(const struct relay_link *l, struct policy *policy)
{
    policy->channels &= ~(uint64_t)l->login.cert_denies;
}

bool link_user_may_log_in(struct broker *b, const char *user)
{
    struct store_user u;

    return store_user_get(b->store, user, &u) == 0 && !u.is_locked;
}

/* Not when it was changed while the old one was checked: whoever has that one may not leave its NT
 * hash behind. */
static bool is_still_set(struct relay_link *l, const struct password_check *check)
{
    char now[STORE_HASH_MAX];
    bool is_same = store_user_hash(l->links->broker->store, l->tried_user, now) == 0 &&
                   strcmp(now, check->hash) == 0;

    memory_wipe(now, sizeof(now));
    return is_same;
}

static void password_checked(bool is_right, void *arg)
{
    struct password_check *check = arg;
    struct relay_link *l = link_by_serial(check->links, check->serial);

    is_right = is_right && l && is_still_set(l, check);
    if (l && is_right && check->has_nt_hash &&
        store_user_set_nt_hash(l->links->broker->store, l->tried_user, check->nt_hash) == 0)
        link_note(l, "user-set", "an NT hash is kept for NLA");
    memory_wipe(check, sizeof(*check));
    free(check);
    if (!l || l->state != STATE_LOGIN)
        return;
    l->is_busy = false;
    if (is_right && link_user_may_log_in(l->links->broker, l->tried_user))
        link_first_factor(l, "password");
    else
        link_login_failed(l, "password", "");
}

/* NLA that was turned on without a password works from the first login that brings it. */
static void prepare_nla(struct relay_link *l, struct password_check *check, const void *password,
                        size_t len)
{
    char copy[NT_HASH_PASSWORD_MAX + 1];
    struct store_user user;

    if (store_user_get(l->links->broker->store, l->tried_user, &user) < 0 || !user.has_nla ||
        user.has_nt_hash || len >= sizeof(copy) || memchr(password, '\0', len))
        return;
    memcpy(copy, password, len);
    copy[len] = '\0';
    check->has_nt_hash = nt_hash(copy, check->nt_hash) == 0;
    memory_wipe(copy, sizeof(copy));
}

static void check_password(struct relay_link *l, const void *password, size_t len)
{
    struct broker *b = l->links->broker;
    struct password_check *check = calloc(1, sizeof(*check));

    if (!check) {
        link_login_failed(l, "password", "");
        return;
    }
    check->links = l->links;
    check->serial = l->serial;
    prepare_nla(l, check, password, len);
    if (store_user_hash(b->store, l->tried_user, check->hash) < 0)
        check->hash[0] = '\0'; /* unknown, or has none: the same work, and false */
    if (hasher_check(b->hash_workers, check->hash, password, len, sources_lane(l->client_address),
                     password_checked, check) < 0) {
        memory_wipe(check, sizeof(*check));
        free(check);
        link_login_failed(l, "password", "");
    } else {
        l->is_busy = true;
    }
}

void link_on_auth_password(struct relay_link *l, struct link_message *m, int *fds)
{
    struct link_auth_password *a = &m->auth_password;
    struct secret *password;

    (void)fds;
    if (!link_login_begin(l, a->user, a->device, false))
        return;
    if (!link_is_pam_user(l)) {
        check_password(l, a->password.data, a->password.len);
        return;
    }
    password = malloc(sizeof(*password));
    if (!password || !secret_set(password, a->password.data, a->password.len)) {
        free(password);
        link_login_failed(l, "password", "");
        return;
    }
    link_pam_begin(l, "password", password, false);
    wipe_secret(&password);
}

/* ---- keys and certificates ---- */

/* What a certificate does not permit, as far as there is a kind of channel for it. */
static uint32_t denied_by(const struct user_cert *cert)
{
    static const struct {
        uint32_t permit, channels;
    } rows[] = {{CERT_PERMIT_X11, POLICY_CHANNEL_X11},
                {CERT_PERMIT_AGENT, POLICY_CHANNEL_AGENT},
                {CERT_PERMIT_FORWARD, POLICY_CHANNEL_FORWARD | POLICY_CHANNEL_REMOTE_FORWARD |
                                          POLICY_CHANNEL_STREAMLOCAL}};
    uint32_t denied = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (!(cert->permits & rows[i].permit))
            denied |= rows[i].channels;
    }
    return denied;
}

/* Whoever holds a certificate of our CA is told what is wrong with it, and the log is. */
static void note_refused(struct relay_link *l, const struct user_cert *cert, const char *why,
                         char *shown, size_t shown_len)
{
    char about[200], text[SESSION_TEXT_MAX];

    user_cert_describe(cert, about, sizeof(about));
    snprintf(text, sizeof(text), "certificate %.120s: %.110s", about, why);
    failure_event(l, text);
    snprintf(shown, shown_len, "The certificate was not accepted: %s.", why);
}

static bool cert_fits(struct relay_link *l, const struct link_auth_key *a, char *shown,
                      size_t shown_len)
{
    struct broker *b = l->links->broker;
    struct user_cert cert;
    struct store_user user;
    char why[200];

    if (user_cert_parse(a->key.data, a->key.len, &cert) < 0 ||
        !user_cas_signed(b->user_cas, &cert) ||
        store_user_get(b->store, l->tried_user, &user) < 0 || user.is_locked)
        return false;
    if (user_cert_refusal(&cert, user.cert_principals[0] ? user.cert_principals : user.name,
                          l->client_address, clock_wall_us() / 1000000, why, sizeof(why))) {
        note_refused(l, &cert, why, shown, shown_len);
        return false;
    }
    l->login.cert_denies = denied_by(&cert) | DENY_KEYS;
    user_cert_describe(&cert, l->login.how, sizeof(l->login.how));
    return true;
}

void link_on_auth_key(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_auth_key *a = &m->auth_key;
    struct broker *b = l->links->broker;
    char shown[SESSION_TEXT_MAX] = "";
    bool is_known, is_cert = user_cert_is(a->key.data, a->key.len);
    const char *method = is_cert ? "certificate" : "publickey";

    (void)fds;
    if (l->protocol == PROTOCOL_RDP) { /* its clients have none, and none could prove it there */
        log_warn("relay pid=%d claims a key at the RDP door and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    if (!link_login_begin(l, a->user, a->device, false))
        return;
    is_known = is_cert ? cert_fits(l, a, shown, sizeof(shown))
                       : store_key_check(b->store, a->user, a->key.data, a->key.len) == 0;
    if (!a->is_signed) /* an offer leaves no trace */
        link_login_reply(l, is_known ? LINK_AUTH_OFFER_OK : LINK_AUTH_DENIED, shown);
    else if (!is_known)
        link_login_failed(l, method, shown);
    else if (link_is_pam_user(l))
        link_pam_begin(l, method, NULL, true);
    else
        link_first_factor(l, method);
}

/* ---- keyboard-interactive: the questions are ours ---- */

void link_on_auth_keyboard(struct relay_link *l, struct link_message *m, int *fds)
{
    static const struct link_question password = {.ask = ASK_PASSWORD, .prompt = "Password: "};
    const struct link_auth_keyboard *a = &m->auth_keyboard;

    (void)fds;
    if (!link_login_begin(l, a->user, a->device, true))
        return;
    if (l->login.first)
        link_factor_ask(l);
    else if (link_is_pam_user(l))
        link_pam_begin(l, "keyboard-interactive", NULL, false);
    else
        link_login_ask(l, &password);
}

void link_on_auth_answer(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_auth_answer *a = &m->auth_answer;
    enum link_ask ask = l->login.ask;
    char text[sizeof(a->answer.data) + 1];

    (void)fds;
    if (l->is_busy)
        return;
    l->login.ask = ASK_NOTHING;
    memcpy(text, a->answer.data, a->answer.len);
    text[a->answer.len] = '\0'; /* a code with a NUL inside is a short one: no code */
    switch (ask) {
    case ASK_NOTHING: /* asked by the broker before this one */
        link_login_reply(l, LINK_AUTH_DENIED, "");
        break;
    case ASK_PASSWORD:
        check_password(l, a->answer.data, a->answer.len);
        break;
    case ASK_PAM:
        link_pam_answer(l, a->answer.data, a->answer.len);
        break;
    case ASK_CODE:
    case ASK_ENROL:
    case ASK_CODES_KEPT:
        l->login.ask = ask;
        link_factor_answer(l, text);
        break;
    }
    memory_wipe(text, sizeof(text));
}
