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
#include "proxy/broker/recordings.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define FAILURES_A_MIN 300 /* rows of failed logins; the rest is counted in one */
static void auth_reply(struct relay_link *l, enum link_auth result, const char *text)
{
    struct link_auth_result *a = &link_begin(l, LINK_AUTH_RESULT)->auth_result;

    a->result = (uint8_t)result;
    text_copy(a->user, sizeof(a->user), l->user);
    text_copy(a->text, sizeof(a->text), text);
    link_put_ticket(l, &a->ticket.len, a->ticket.data);
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

static void auth_failed(struct relay_link *l, const char *method)
{
    static struct log_limit limit;
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    char text[160];

    l->attempts++;
    sources_failed(&b->sources, l->client_address, &sl, clock_mono_ms());
    snprintf(text, sizeof(text), "%s, attempt %u", method, l->attempts);
    failure_event(l, text);
    if (log_limit_allows(&limit, 30, "failed logins"))
        log_info("login failed user=%s source=%s method=%s attempt=%u", l->tried_user,
                 l->client_address, method, l->attempts);
    if (l->attempts >= b->config->auth_attempts)
        auth_reply(l, LINK_AUTH_DISCONNECT, "Too many authentication failures");
    else
        auth_reply(l, LINK_AUTH_DENIED, "");
}

static void auth_succeeded(struct relay_link *l, const char *method)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);

    text_copy(l->user, sizeof(l->user), l->tried_user);
    link_enter(l, STATE_CHOOSING);
    sources_succeeded(&b->sources, l->client_address, &sl, clock_mono_ms());
    store_user_logged_in(b->store, l->user, clock_wall_us());
    link_note(l, "login", method);
    log_debug("login user=%s source=%s method=%s", l->user, l->client_address, method);
    l->is_settled = true;
    gates_settled(b->gates, l->pid);
    auth_reply(l, LINK_AUTH_OK, "");
}

/* What every attempt passes first. False: answered already. */
static bool auth_may_try(struct relay_link *l, const char *user, const char *device)
{
    struct broker *b = l->links->broker;
    struct source_limits sl = source_limits(b);
    bool is_first;
    uint32_t wait_s;
    char text[128];

    text_copy(l->device, sizeof(l->device), device);
    if (!l->tried_user[0])
        text_copy(l->tried_user, sizeof(l->tried_user), user);
    if (strcmp(l->tried_user, user) != 0) {
        auth_reply(l, LINK_AUTH_DISCONNECT, "the user name may not change during a login");
        return false;
    }
    if (l->attempts >= b->config->auth_attempts) {
        auth_reply(l, LINK_AUTH_DISCONNECT, "Too many authentication failures");
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
    auth_reply(l, LINK_AUTH_DISCONNECT, text);
    return false;
}

struct password_check {
    struct links *links;
    uint64_t serial;
};

bool link_user_may_log_in(struct broker *b, const char *user)
{
    struct store_user u;

    return store_user_get(b->store, user, &u) == 0 && !u.is_locked;
}

static void password_checked(bool is_right, void *arg)
{
    struct password_check *check = arg;
    struct relay_link *l = link_by_serial(check->links, check->serial);

    free(check);
    if (!l || l->state != STATE_LOGIN)
        return;
    l->is_busy = false;
    if (is_right && link_user_may_log_in(l->links->broker, l->tried_user))
        auth_succeeded(l, "password");
    else
        auth_failed(l, "password");
}

void link_on_auth_password(struct relay_link *l, struct link_message *m, int *fds)
{
    struct link_auth_password *a = &m->auth_password;
    struct broker *b = l->links->broker;
    struct password_check *check;
    char hash[STORE_HASH_MAX] = "";

    (void)fds;
    if (l->is_busy || !auth_may_try(l, a->user, a->device))
        return;
    check = malloc(sizeof(*check));
    if (!check) {
        auth_failed(l, "password");
        return;
    }
    check->links = l->links;
    check->serial = l->serial;
    if (store_user_hash(b->store, a->user, hash) < 0)
        hash[0] = '\0'; /* unknown, or has none: the same work, and false */
    if (hasher_check(b->hash_workers, hash, a->password.data, a->password.len,
                     sources_lane(l->client_address), password_checked, check) < 0) {
        free(check);
        auth_failed(l, "password");
    } else {
        l->is_busy = true;
    }
    memory_wipe(hash, sizeof(hash));
}

void link_on_auth_key(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_auth_key *a = &m->auth_key;
    struct broker *b = l->links->broker;
    bool is_known;

    (void)fds;
    if (!auth_may_try(l, a->user, a->device))
        return;
    is_known = store_key_check(b->store, a->user, a->key.data, a->key.len) == 0;
    if (!a->is_signed) { /* an offer leaves no trace */
        auth_reply(l, is_known ? LINK_AUTH_OFFER_OK : LINK_AUTH_DENIED, "");
        return;
    }
    if (is_known)
        auth_succeeded(l, "publickey");
    else
        auth_failed(l, "publickey");
}
