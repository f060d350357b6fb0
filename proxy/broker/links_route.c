/*
 * The way from a user to a target: grants, limits, the session's row, the connection, and what the
 * relay needs to log in there. Called by the dispatch of links.c.
 */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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

#define TARGETS_A_PAGE 64 /* so that a page of long names fits the relay's socket */
static void route_refused(struct relay_link *l, enum end_reason reason, const char *text)
{
    struct link_route_result *r = &link_begin(l, LINK_ROUTE_RESULT)->route_result;

    r->reason = (uint8_t)reason;
    text_copy(r->text, sizeof(r->text), text);
    policy_defaults(&r->policy); /* unused, but what is not valid is not sent */
    link_say(l);
    link_enter(l, STATE_CHOOSING);
}

static void route_failed(struct relay_link *l, enum end_reason reason, const char *text)
{
    link_session_over(l, reason, reason == END_TARGET_UNREACHABLE ? "target" : "policy", text);
    if (l->page_fd >= 0)
        close(l->page_fd);
    l->page_fd = -1;
    route_refused(l, reason, text);
}

/* Who goes through other servers does so by the accounts that are set there. */
static int send_hop(struct relay_link *l, const struct store_target *hop, uint8_t number)
{
    struct link_message *m = link_begin(l, LINK_HOP);
    int pair[2], r = hops_fill(l->links->broker->store, hop, l->user, number, &m->hop);

    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return ERR_SYSTEM;
    link_say_fds(l, pair, 2);
    close(pair[0]);
    close(pair[1]);
    return 0;
}

/* The servers on the way; false after the route was refused. */
static bool send_hops(struct relay_link *l, const struct store_target *target, const char *dialed)
{
    struct hops *hops = &l->links->hops;
    char text[SESSION_TEXT_MAX];

    if (hops_find(l->links->broker->store, target, hops, text, sizeof(text)) < 0 ||
        strcmp(hops_address(hops, target), dialed) != 0) {
        snprintf(text, sizeof(text), "the way to %s has just changed; connect again", l->target);
        route_failed(l, END_TARGET_UNREACHABLE, text);
        return false;
    }
    for (size_t i = 0; i < hops->count; i++) {
        int r = send_hop(l, &hops->at[i], (uint8_t)(i + 1));

        if (r == 0)
            continue;
        log_error("hop %s of target %s: %s", hops->at[i].name, l->target, error_text(r));
        snprintf(text, sizeof(text), "the proxy cannot read its credentials for %s, on the way",
                 hops->at[i].name);
        route_failed(l, END_TARGET_UNREACHABLE, text);
        return false;
    }
    return true;
}

static void route_connected(struct relay_link *l, int fd, const char *dialed)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    struct policy policy;
    struct session_info info;
    struct secret secret = {0};
    struct link_route_result *r;
    int fds[2];

    /* again, since the target may have changed while it was dialed */
    if (link_resolve(l, &policy, &target) < 0 ||
        tracker_get(b->tracker, l->session_id, &info) < 0) {
        close(fd);
        route_failed(l, END_REVOKED, "access was withdrawn");
        return;
    }
    if (target.has_secret && store_target_secret(b->store, target.name, &secret) < 0) {
        close(fd);
        log_error("secret of target %s: %s", target.name, store_error(b->store));
        route_failed(l, END_TARGET_UNREACHABLE,
                     "the proxy cannot read its credentials for this target");
        return;
    }
    if (!send_hops(l, &target, dialed)) {
        secret_wipe(&secret);
        close(fd);
        return;
    }
    r = &link_begin(l, LINK_ROUTE_RESULT)->route_result;
    r->is_ok = 1;
    r->hops = (uint8_t)l->links->hops.count;
    r->certificate.len = (uint16_t)strlen(target.certificate);
    memcpy(r->certificate.data, target.certificate, r->certificate.len);
    r->session_id = l->session_id;
    r->started_wall_us = info.started_wall_us;
    text_copy(r->account, sizeof(r->account), l->account);
    text_copy(r->target, sizeof(r->target), l->target);
    text_copy(r->address, sizeof(r->address), target.address);
    r->auth = (uint8_t)target.auth;
    r->accept_new = target.accept_new;
    text_copy(r->host_key_type, sizeof(r->host_key_type), target.host_key_type);
    r->host_key.len = (uint16_t)target.host_key_len;
    memcpy(r->host_key.data, target.host_key, target.host_key_len);
    r->secret.len = secret.len;
    memcpy(r->secret.data, secret.data, secret.len);
    secret_wipe(&secret);
    link_put_ticket(l, &r->ticket.len, r->ticket.data);
    r->policy = l->policy;
    r->keeps_cookie = l->keeps_cookie;
    l->has_cookie = l->keeps_cookie; /* until the target gives another one */
    fds[0] = fd;
    fds[1] = l->page_fd;
    link_say_fds(l, fds, 2);
    close(fd);
    close(l->page_fd);
    l->page_fd = -1;
    link_enter(l, STATE_SESSION);
}

struct route_dial {
    struct links *links;
    uint64_t serial;
    uint64_t session_id;
    char address[SESSION_ADDRESS_MAX]; /* that was dialed */
    char hop[NAME_MAX_LEN + 1];        /* whose it is; "" the target's own */
};

static void dialed(int fd, const char *text, void *arg)
{
    struct route_dial *d = arg;
    struct relay_link *l = link_by_serial(d->links, d->serial);
    char sentence[SESSION_TEXT_MAX];

    if (!l || l->state != STATE_DIALING || l->session_id != d->session_id) {
        if (fd >= 0)
            close(fd);
    } else if (fd < 0) {
        snprintf(sentence, sizeof(sentence), "%s cannot be reached: %s%s%s", l->target, d->hop,
                 d->hop[0] ? ", on the way to it: " : "", text);
        route_failed(l, END_TARGET_UNREACHABLE, sentence);
    } else {
        route_connected(l, fd, d->address);
    }
    free(d);
}

static int open_session(struct relay_link *l, const struct store_target *target, char *err,
                        size_t err_len)
{
    struct broker *b = l->links->broker;
    struct session_info info = {
        .protocol = (enum protocol)l->protocol, .client_port = l->client_port, .relay_pid = l->pid};
    int r;

    text_copy(info.user, sizeof(info.user), l->user);
    text_copy(info.account, sizeof(info.account), l->account);
    text_copy(info.target, sizeof(info.target), l->target);
    text_copy(info.address, sizeof(info.address), target->address);
    text_copy(info.client_address, sizeof(info.client_address), l->client_address);
    text_copy(info.device, sizeof(info.device), l->device);
    err[0] = '\0';
    r = tracker_open(b->tracker, &info, &l->policy, l, &l->page_fd, err, err_len);
    if (r < 0 && !err[0])
        snprintf(err, err_len, "the session cannot be opened: %s", error_text(r));
    l->session_id = r < 0 ? 0 : info.id;
    return r;
}

/* A relay of an older release knows neither agents nor other servers nor certificates, or (before
 * version 4) no login screen. */
static bool is_too_new(const struct relay_link *l, const struct store_target *t)
{
    return (l->version < 3 && (t->auth == TARGET_AUTH_AGENT || t->via[0] || t->certificate[0])) ||
           (l->version < 4 && t->auth == TARGET_AUTH_PROMPT);
}

/* Connect to the first server on the way, or to the target itself. */
static void begin_dial(struct relay_link *l, const struct store_target *target)
{
    struct broker *b = l->links->broker;
    struct hops *hops = &l->links->hops;
    struct route_dial *d = calloc(1, sizeof(*d));
    char text[SESSION_TEXT_MAX];

    if (hops_find(b->store, target, hops, text, sizeof(text)) < 0) {
        free(d);
        route_failed(l, END_TARGET_UNREACHABLE, text);
        return;
    }
    if (hops->count > 0) {
        hops_describe(hops, text, sizeof(text));
        link_note(l, "via", text);
    }
    link_enter(l, STATE_DIALING);
    if (d) {
        d->links = l->links;
        d->serial = l->serial;
        d->session_id = l->session_id;
        text_copy(d->address, sizeof(d->address), hops_address(hops, target));
        text_copy(d->hop, sizeof(d->hop), hops->count > 0 ? hops->at[0].name : "");
    }
    if (!d || dial(b->dialer, d->address, b->config->connect_timeout_s, dialed, d) < 0) {
        free(d);
        route_failed(l, END_TARGET_UNREACHABLE, "too many connections are being made; try again");
    }
}

static void open_route(struct relay_link *l, const struct store_target *target)
{
    char text[SESSION_TEXT_MAX];

    if (open_session(l, target, text, sizeof(text)) < 0) {
        link_note(l, "route-refused", text);
        route_refused(l, END_POLICY, text);
        return;
    }
    begin_dial(l, target);
}

static void refuse_unrecorded(struct relay_link *l, const char *text)
{
    link_note(l, "route-refused", text);
    route_refused(l, END_RECORDING_FAILED, text);
}

/* There is room to record, or not; who the target is may have changed while the disk was asked. */
static void space_told(const struct recordings_answer *a, void *arg)
{
    struct relay_link *l = link_by_serial(arg, a->serial);
    struct store_target target;
    struct policy policy;

    if (!l || !l->is_asking)
        return;
    l->is_asking = false;
    if (l->state != STATE_CHOOSING)
        return;
    if (a->result < 0)
        refuse_unrecorded(l, a->text);
    else if (link_resolve(l, &policy, &target) < 0)
        route_refused(l, END_REVOKED, "access was withdrawn");
    else
        open_route(l, &target);
}

void link_on_route(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    char text[SESSION_TEXT_MAX];
    int r;

    (void)fds;
    if (l->is_asking) {
        log_warn("relay pid=%d asks for a second route and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    if (l->outer_pid && strcmp(l->jump_target, m->route.target) != 0) {
        log_warn("relay pid=%d jumps to another target than it said and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    if (b->is_draining) {
        route_refused(l, END_SHUTDOWN, "this proxy takes no new sessions now; try again later");
        return;
    }
    text_copy(l->target, sizeof(l->target), m->route.target);
    l->keeps_cookie = link_cookie_may_return(l, &m->route);
    l->policy = b->config->policy;
    r = store_resolve(b->store, l->user, m->route.account, l->target, (enum protocol)l->protocol,
                      &l->policy, &target, l->account);
    link_limit_policy(l, &l->policy);
    if (r < 0) {
        if (r != ERR_NOT_FOUND && r != ERR_DENIED)
            log_error("target %s cannot be looked up: %s", l->target, store_error(b->store));
        if (!link_jump_refusal(l, m->route.account, text, sizeof(text)))
            snprintf(text, sizeof(text), "there is no target \"%s\" for you", l->target);
        link_note(l, "route-refused", text);
        route_refused(l, END_POLICY, text);
        return;
    }
    if (is_too_new(l, &target)) {
        snprintf(text, sizeof(text),
                 "this connection began before an upgrade: connect again to reach %s", l->target);
        route_refused(l, END_POLICY, text);
        return;
    }
    if (!(l->protocol == PROTOCOL_RDP ? l->policy.record_rdp : l->policy.record) ||
        l->policy.on_failure == ON_FAILURE_CONTINUE) {
        open_route(l, &target);
    } else if (recordings_check(b->recordings, space_told, l->links, l->serial) == 0) {
        l->is_asking = true;
    } else {
        refuse_unrecorded(l, "this session would be recorded, and too much waits for the disk");
    }
}

struct target_rows {
    struct link_target_row rows[TARGETS_A_PAGE];
    uint32_t offset, seen, count;
};

static bool collect_target(const struct link_target_row *row, void *arg)
{
    struct target_rows *t = arg;

    if (t->seen++ >= t->offset && t->count < TARGETS_A_PAGE)
        t->rows[t->count++] = *row;
    return true;
}

void link_on_targets(struct relay_link *l, struct link_message *m, int *fds)
{
    struct target_rows *t = calloc(1, sizeof(*t));
    struct link_message *out;

    (void)fds;
    if (!t)
        return;
    t->offset = m->targets.offset;
    if (store_reachable(l->links->broker->store, l->user, (enum protocol)l->protocol,
                        collect_target, t) < 0)
        t->count = t->seen = 0;
    out = link_begin(l, LINK_TARGET_LIST);
    out->target_list.count = t->count;
    out->target_list.total = t->seen;
    link_say(l);
    for (uint32_t i = 0; i < t->count; i++) {
        link_begin(l, LINK_TARGET_ROW)->target_row = t->rows[i];
        link_say(l);
    }
    free(t);
}

/* The server on the way to the link's target, as things are now; NULL for none. */
static const char *hop_name(struct relay_link *l, uint8_t number)
{
    struct hops *hops = &l->links->hops;
    struct store_target target;
    char text[SESSION_TEXT_MAX];

    if (store_target_get(l->links->broker->store, l->target, &target) < 0 ||
        hops_find(l->links->broker->store, &target, hops, text, sizeof(text)) < 0 ||
        number > hops->count)
        return NULL;
    return hops->at[number - 1].name;
}

void link_on_host_key(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    const struct link_host_key *k = &m->host_key;
    struct link_host_key_result *answer;
    char print[FINGERPRINT_MAX], text[SESSION_TEXT_MAX];
    const char *whose;
    int r;

    (void)fds;
    whose = k->hop == 0 ? l->target : hop_name(l, k->hop);
    if (l->is_ready || !whose) {
        log_warn("relay pid=%d pins a host key after the login and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    fingerprint_sha256(print, k->key.data, k->key.len);
    r = store_target_pin(b->store, whose, k->key_type, k->key.data, k->key.len, print);
    if (r == 0) {
        snprintf(text, sizeof(text), "%s %s %s", whose, k->key_type, print);
        link_note(l, "host-key-pinned", text);
        log_info("host key pinned target=%s type=%s fingerprint=%s", whose, k->key_type, print);
    }
    answer = &link_begin(l, LINK_HOST_KEY_RESULT)->host_key_result;
    answer->is_ok = r == 0;
    text_copy(answer->text, sizeof(answer->text),
              r == 0 ? "" : "the host key of the target could not be pinned");
    link_say(l);
}

void link_on_ready(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)m, (void)fds;
    l->is_ready = true;
    tracker_ready(l->links->broker->tracker, l->session_id);
}
