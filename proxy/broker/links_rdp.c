/*
 * What only relays of RDP sessions tell and ask: their desktops, their reconnect cookies, and where
 * their targets send them on. Called by the dispatch of links.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/network.h>
#include <sallyport/text.h>

#include "proxy/broker/cookies.h"
#include "proxy/broker/dial.h"
#include "proxy/broker/links_parts.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define REDIRECTS_MAX 3 /* of one session */

void link_on_desktop(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)fds;
    tracker_channels(l->links->broker->tracker, l->session_id, m->desktop.channels);
    if (m->desktop.device[0]) {
        text_copy(l->device, sizeof(l->device), m->desktop.device);
        tracker_device(l->links->broker->tracker, l->session_id, l->device);
    }
    link_note(l, "desktop", m->desktop.text);
}

/* ---- reconnect cookies ---- */

void link_on_reconnect(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)fds;
    l->has_cookie = m->reconnect.cookie.len == LINK_COOKIE;
    if (l->has_cookie)
        memcpy(l->cookie, m->reconnect.cookie.data, LINK_COOKIE);
}

void link_cookie_ended(struct relay_link *l, enum end_reason reason)
{
    /* a client tries again and again, and its target may be down for a while: that ends nothing */
    bool was_in_vain = !l->is_ready && !l->is_end_sent && reason == END_TARGET_UNREACHABLE;

    if (l->has_cookie && !was_in_vain)
        cookies_ended(l->links->cookies, l->cookie, l->user, l->target,
                      reason == END_NETWORK_LOST && !l->is_end_sent);
    l->has_cookie = false;
}

/* Also of a session which does not know yet that its client was lost. */
static bool may_return(const struct relay_link *l, const uint8_t *cookie, const char *target)
{
    const struct relay_link *other;

    TAILQ_FOREACH (other, &l->links->live, entry)
        if (other->has_cookie && memcmp(other->cookie, cookie, LINK_COOKIE) == 0)
            return !other->is_end_sent && strcmp(other->user, l->user) == 0 &&
                   strcmp(other->target, target) == 0;
    return cookies_may_return(l->links->cookies, cookie, l->user, target);
}

bool link_cookie_may_return(struct relay_link *l, const struct link_route *route)
{
    if (route->cookie.len != LINK_COOKIE || !may_return(l, route->cookie.data, route->target))
        return false;
    memcpy(l->cookie, route->cookie.data, LINK_COOKIE);
    return true;
}

/* ---- redirection ---- */

struct redirect_dial {
    struct links *links;
    uint64_t serial, session_id;
    bool needs_secret;
    char address[SESSION_ADDRESS_MAX];
};

static void refuse(struct relay_link *l, const char *text)
{
    log_info("relay pid=%d redirection refused: %s", l->pid, text);
    text_copy(link_begin(l, LINK_REDIRECTED)->redirected.text, SESSION_TEXT_MAX, text);
    link_say(l);
}

struct pinned {
    char type[64];
    struct link_redirected *out;
};

static bool take_key(const struct store_target *t, void *arg)
{
    struct pinned *p = arg;

    if (t->protocol != PROTOCOL_RDP || strcmp(t->host_key_type, p->type) != 0)
        return true;
    p->out->host_key.len = (uint16_t)t->host_key_len;
    memcpy(p->out->host_key.data, t->host_key, t->host_key_len);
    return false;
}

/* The key that is pinned for where it goes: of another target with that address, or the target's
 * own, since the servers of a farm may share one. */
static void put_key(struct store *store, const struct store_target *target, const char *address,
                    struct link_redirected *out)
{
    struct pinned p = {.out = out};

    text_copy(p.type, sizeof(p.type), target->host_key_type);
    out->host_key.len = (uint16_t)target->host_key_len;
    memcpy(out->host_key.data, target->host_key, target->host_key_len);
    if (p.type[0] && strcasecmp(address, target->address) != 0 &&
        store_targets_called(store, "", address, take_key, &p) < 0)
        log_warn("targets at %s cannot be looked up: %s", address, store_error(store));
}

static void redirect_connected(struct relay_link *l, int fd, const struct redirect_dial *d)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    struct policy policy;
    struct secret secret = {0};
    struct link_redirected *r;

    if (link_resolve(l, &policy, &target) < 0) {
        refuse(l, "access was withdrawn");
        return;
    }
    if (d->needs_secret && target.has_secret &&
        store_target_secret(b->store, target.name, &secret) < 0) {
        log_error("secret of target %s: %s", target.name, store_error(b->store));
        refuse(l, "the proxy cannot read its credentials for this target");
        return;
    }
    r = &link_begin(l, LINK_REDIRECTED)->redirected;
    r->is_ok = 1;
    text_copy(r->address, sizeof(r->address), d->address);
    put_key(b->store, &target, d->address, r);
    r->secret.len = secret.len;
    memcpy(r->secret.data, secret.data, secret.len);
    secret_wipe(&secret);
    link_say_fds(l, &fd, 1);
}

static void redirect_dialed(int fd, const char *text, void *arg)
{
    struct redirect_dial *d = arg;
    struct relay_link *l = link_by_serial(d->links, d->serial);
    char sentence[SESSION_TEXT_MAX];

    if (l)
        l->is_redirecting = false;
    if (l && l->state == STATE_SESSION && l->session_id == d->session_id) {
        if (fd >= 0) {
            redirect_connected(l, fd, d);
        } else {
            snprintf(sentence, sizeof(sentence), "%.150s cannot be reached: %.80s", d->address,
                     text);
            refuse(l, sentence);
        }
    }
    if (fd >= 0)
        close(fd);
    free(d);
}

static bool is_host(const char *text)
{
    for (; *text; text++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.:_-", *text))
            return false;
    return true;
}

static bool is_same_host(const char *a, const char *b)
{
    uint8_t x[16], y[16];

    if (network_address(a, x) && network_address(b, y))
        return memcmp(x, y, sizeof(x)) == 0;
    return strcasecmp(a, b) == 0;
}

/* Where it goes, at the target's own port; false after it was refused. */
static bool choose_address(struct relay_link *l, const struct store_target *target,
                           const char *host, char address[SESSION_ADDRESS_MAX])
{
    char own[256], port[8], text[SESSION_TEXT_MAX];
    uint64_t number = 0;

    if (dial_split(target->address, own, sizeof(own), port, sizeof(port)) < 0 ||
        !text_parse_u64(port, &number) || number > UINT16_MAX || !is_host(host)) {
        refuse(l, "the target sends the session on to what is no server's name");
        return false;
    }
    if (!host[0] || is_same_host(host, own)) {
        text_copy(address, SESSION_ADDRESS_MAX, target->address);
        return true;
    }
    if (!policy_allows_destination(l->policy.redirect_to, host, (uint16_t)number)) {
        snprintf(text, sizeof(text),
                 "%.64s sends the session on to %.120s, which is not allowed here (redirect_to)",
                 l->target, host);
        link_note(l, "redirect-refused", text);
        refuse(l, text);
        return false;
    }
    snprintf(address, SESSION_ADDRESS_MAX, strchr(host, ':') ? "[%.200s]:%s" : "%.200s:%s", host,
             port);
    return true;
}

void link_on_redirect(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    struct redirect_dial *d;
    struct store_target target;
    struct policy policy;
    char address[SESSION_ADDRESS_MAX], text[SESSION_TEXT_MAX];

    (void)fds;
    if (l->protocol != PROTOCOL_RDP || l->is_redirecting) {
        log_warn("relay pid=%d asks for a redirection out of turn and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    if (link_resolve(l, &policy, &target) < 0) {
        refuse(l, "access was withdrawn");
        return;
    }
    if (++l->redirects > REDIRECTS_MAX || target.via[0]) {
        snprintf(text, sizeof(text), "%s %s", l->target,
                 target.via[0] ? "lies behind other servers and cannot send a session on"
                               : "sends the session on again and again");
        refuse(l, text);
        return;
    }
    if (!choose_address(l, &target, m->redirect.host, address))
        return;
    d = calloc(1, sizeof(*d));
    if (d) {
        d->links = l->links;
        d->serial = l->serial;
        d->session_id = l->session_id;
        d->needs_secret = m->redirect.needs_secret;
        text_copy(d->address, sizeof(d->address), address);
    }
    if (!d || dial(b->dialer, address, b->config->connect_timeout_s, redirect_dialed, d) < 0) {
        free(d);
        refuse(l, "too many connections are being made; try again");
        return;
    }
    l->is_redirecting = true;
    snprintf(text, sizeof(text), "to %.200s", address);
    link_note(l, "redirected", text);
}
