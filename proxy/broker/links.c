/*
 * The relays' links: one record a relay, a small state machine, one table of what a relay may say
 * in which state. Identity is the link's: it is fixed at login and never a field of a message.
 * Routes, recordings and ends go through here to the tracker; the relay's bytes never do.
 */
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <sallyport/activity.h>
#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/dial.h"
#include "proxy/broker/hasher.h"
#include "proxy/broker/recordings.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define HELLO_TIMEOUT_S 10
#define END_DEADLINE_MS 1000 /* docs/link.md: SSH */
#define LEAVE_S         3    /* after CLOSED the process must go: nobody goes on unseen */
#define MESSAGES_A_TURN 32   /* of one relay, so that one cannot starve the rest */
#define LINKS_BACKLOG   1024
#define TALK_BURST      2000 /* messages of one relay at once, and in a second for ever */
#define TALK_PER_S      200
#define TALK_PAUSE_MS   100
#define TARGETS_A_PAGE  64  /* so that a page of long names fits the relay's socket */
#define RECORDINGS_MAX  128 /* open at once for one session; a relay can hold 64 */
#define FAILURES_A_MIN  300 /* rows of failed logins; the rest is counted in one */
#define FDS_RESERVED    32  /* for the store, control, listeners */
#define FDS_A_LINK      4   /* link, pidfd, a recording, a target on its way */

enum link_state {
    STATE_HELLO = 1,    /* connected, has said nothing */
    STATE_LOGIN = 2,    /* not authenticated */
    STATE_CHOOSING = 4, /* authenticated, no target */
    STATE_DIALING = 8,  /* a session, connecting to its target */
    STATE_SESSION = 16,
    STATE_ENDED = 32 /* CLOSED came */
};

struct relay_link {
    TAILQ_ENTRY(relay_link) entry;
    struct links *links; /* not owned */
    uint64_t serial;     /* what jobs remember; never reused */
    enum link_state state;
    int fd;
    int pidfd;
    int32_t pid;
    struct event *event;
    struct event *timer; /* HELLO must come; END's deadline; after CLOSED it must leave */
    struct event *exit;  /* the process is gone; watched after CLOSED only */
    struct event *pause; /* talks too much: read again after this */
    int64_t talk_ms;     /* when talk_left was filled up */
    uint32_t talk_left;
    uint8_t version;
    bool is_adopted;  /* came by the scan */
    bool is_busy;     /* a password is being checked */
    bool is_settled;  /* the gate was told */
    bool is_end_sent; /* END */
    bool is_ready;    /* logged in at the target: its host key is settled */
    char path[128];   /* relay/<pid>.sock, to remove at the end */
    char user[NAME_MAX_LEN + 1];
    char tried_user[NAME_MAX_LEN + 1]; /* of the first attempt */
    char client_address[64];
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];
    uint32_t attempts;
    uint64_t session_id;
    char account[ACCOUNT_MAX_LEN + 1];
    char target[NAME_MAX_LEN + 1];
    struct policy policy;
    uint32_t channel_count; /* open ones */
    int page_fd;            /* between open and ROUTE_RESULT */
    uint8_t protocol;
};
TAILQ_HEAD(link_list, relay_link);

struct links {
    struct broker *broker; /* not owned */
    struct link_list live, dead;
    struct event *accept_event; /* pending while there is room */
    struct event *resume;       /* accepts again after a shortage of descriptors */
    struct event *sweep;
    struct event *failures; /* end of a minute of failed logins of which some have no row */
    uint32_t failure_rows, failures_held;
    int64_t failures_ms; /* when the minute began */
    int listen_fd;
    uint32_t count, max_count;
    uint32_t unanswered; /* adopted ones that have not said HELLO */
    uint64_t adopted;
    uint64_t next_serial;
    struct link_message in, out; /* scratch: messages are large */
};

static void link_drop(struct relay_link *l, const char *why);

/* ---- sending ---- */

static struct link_message *begin(struct relay_link *l, enum link_type type)
{
    struct link_message *m = &l->links->out;

    memset(m, 0, sizeof(*m));
    m->type = (uint8_t)type;
    return m;
}

static void send_fds(struct relay_link *l, const int *fds, size_t count)
{
    static struct log_limit limit;
    struct link_message *m = &l->links->out;
    int r = link_send(l->fd, m, l->version, fds, count);

    /* A full socket means a relay that has stopped reading: END's deadline or the next EOF deals
     * with it; nothing waits here for it. */
    if (r < 0 && log_limit_allows(&limit, 30, "messages to relays"))
        log_warn("relay pid=%d: %s not sent: %s", l->pid, link_type_name(m->type), error_text(r));
    link_message_wipe(m);
}

static void send_plain(struct relay_link *l)
{
    send_fds(l, NULL, 0);
}

static void put_ticket(struct relay_link *l, uint16_t *len, uint8_t *data)
{
    struct ticket t = {.session_id = l->session_id, .pid = l->pid, .attempts = l->attempts};

    text_copy(t.user, sizeof(t.user), l->user);
    *len = (uint16_t)ticket_make(l->links->broker->ticket_key, &t, data);
}

static void event_of(struct relay_link *l, const char *kind, const char *text)
{
    broker_event(l->links->broker, kind, l->user[0] ? l->user : l->tried_user, l->client_address,
                 l->session_id, text);
}

/* ---- the record's life ---- */

static void link_enter(struct relay_link *l, enum link_state to)
{
    l->state = to;
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct links *all = arg;
    struct relay_link *l;

    (void)fd, (void)what;
    while ((l = TAILQ_FIRST(&all->dead))) {
        TAILQ_REMOVE(&all->dead, l, entry);
        if (l->event)
            event_free(l->event);
        if (l->timer)
            event_free(l->timer);
        if (l->exit)
            event_free(l->exit);
        if (l->pause)
            event_free(l->pause);
        free(l);
    }
}

static void kill_relay(struct relay_link *l)
{
    if (l->pidfd >= 0 && syscall(SYS_pidfd_send_signal, l->pidfd, SIGKILL, NULL, 0) < 0 &&
        errno != ESRCH)
        log_error("relay pid=%d cannot be killed: %s", l->pid, strerror(errno));
}

/* The broker stops: let go of the relay without touching it. */
static void link_release(struct relay_link *l)
{
    struct event *events[] = {l->event, l->timer, l->exit, l->pause};

    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (events[i])
            event_del(events[i]);
    if (l->fd >= 0)
        close(l->fd);
    if (l->pidfd >= 0)
        close(l->pidfd);
    if (l->page_fd >= 0)
        close(l->page_fd);
    l->fd = l->pidfd = l->page_fd = -1;
    TAILQ_REMOVE(&l->links->live, l, entry);
    l->links->count--;
    TAILQ_INSERT_TAIL(&l->links->dead, l, entry);
    event_active(l->links->sweep, 0, 0);
    if (l->links->accept_event)
        event_add(l->links->accept_event, NULL); /* there is room again */
}

static void session_over(struct relay_link *l, enum end_reason reason, const char *author,
                         const char *text)
{
    struct broker *b = l->links->broker;

    if (!l->session_id)
        return;
    recordings_close(b->recordings, l->session_id);
    tracker_closed(b->tracker, l->session_id, reason, author, text);
    l->session_id = 0;
    broker_session_gone(b);
}

static void adoption_answered(struct relay_link *l)
{
    struct links *all = l->links;

    if (!l->is_adopted || l->state != STATE_HELLO || all->unanswered == 0)
        return;
    if (--all->unanswered == 0)
        tracker_close_unclaimed(all->broker->tracker);
}

/* A relay that connected by itself just when it was found by the scan has two links, and closes the
 * older: that is no end. */
static bool has_twin(const struct relay_link *l)
{
    const struct relay_link *other;

    TAILQ_FOREACH (other, &l->links->live, entry)
        if (other != l && other->pid == l->pid && other->fd >= 0)
            return true;
    return false;
}

/* It said CLOSED and closed the link. Its session is over for everybody, so the record stays until
 * the process is gone too, and ends it when its time is up. */
static void link_leave(struct relay_link *l)
{
    event_del(l->event);
    event_del(l->pause);
    close(l->fd);
    l->fd = -1;
    if (event_add(l->exit, NULL) < 0) {
        kill_relay(l);
        link_release(l);
    }
}

/* The relay is gone, or must go. */
static void link_drop(struct relay_link *l, const char *why)
{
    struct broker *b = l->links->broker;

    if (l->fd < 0)
        return;
    if (!l->session_id && has_twin(l)) {
        adoption_answered(l);
        link_release(l);
        return;
    }
    log_debug("relay pid=%d link closed: %s", l->pid, why);
    if (l->state != STATE_ENDED)
        kill_relay(l);
    session_over(l, END_RELAY_CRASHED, "relay", "the relay process of the session died");
    if (!l->is_settled)
        gates_settled(b->gates, l->pid);
    if (l->path[0] && !has_twin(l)) /* a number that is in use again has a new socket */
        unlink(l->path);
    adoption_answered(l);
    if (l->state == STATE_ENDED)
        link_leave(l);
    else
        link_release(l);
}

static void exit_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay_link *l = arg;

    (void)fd, (void)what;
    if (l->fd >= 0)
        link_drop(l, "left"); /* which comes back here */
    else
        link_release(l);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay_link *l = arg;

    (void)fd, (void)what;
    if (l->state == STATE_HELLO) {
        link_drop(l, "said nothing");
        return;
    }
    log_warn("relay pid=%d session=%llu did not %s in time and is killed", l->pid,
             (unsigned long long)l->session_id, l->state == STATE_ENDED ? "leave" : "end");
    kill_relay(l); /* its end of file follows, or its exit */
}

static struct relay_link *link_by_serial(struct links *all, uint64_t serial)
{
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry)
        if (l->serial == serial)
            return l;
    return NULL;
}

/* ---- HELLO ---- */

static void send_welcome(struct relay_link *l)
{
    const struct config *c = l->links->broker->config;
    struct link_welcome *w = &begin(l, LINK_WELCOME)->welcome;

    w->login_grace_s = c->login_grace_s;
    w->auth_attempts = c->auth_attempts;
    w->key_offers = c->key_offers;
    w->keepalive_interval_s = c->ssh_keepalive_interval_s;
    w->keepalive_count = c->ssh_keepalive_count;
    w->broker_lost_after_s = c->broker_lost_after_s;
    text_copy(w->separators, sizeof(w->separators), c->ssh_separators);
    text_copy(w->banner, sizeof(w->banner), c->ssh_banner_text);
    send_plain(l);
}

/* The policy that holds for a session now. A session's account may be the default one (which a
 * grant gives without naming it) or one that was asked for. */
static int resolve(struct relay_link *l, struct policy *policy, struct store_target *target)
{
    struct broker *b = l->links->broker;
    char account[ACCOUNT_MAX_LEN + 1];
    int r;

    *policy = b->config->policy;
    r = store_resolve(b->store, l->user, "", l->target, (enum protocol)l->protocol, policy, target,
                      account);
    if (r == 0 && strcmp(account, l->account) == 0)
        return 0;
    *policy = b->config->policy;
    return store_resolve(b->store, l->user, l->account, l->target, (enum protocol)l->protocol,
                         policy, target, account);
}

static bool adopt_session(struct relay_link *l, int page_fd)
{
    struct broker *b = l->links->broker;
    struct store_session row;
    struct store_target target;
    struct activity_page *page;
    struct policy policy;

    if (store_session_get(b->store, l->session_id, &row) < 0 ||
        strcmp(row.info.user, l->user) != 0 || page_fd < 0)
        return false;
    text_copy(l->account, sizeof(l->account), row.info.account);
    text_copy(l->target, sizeof(l->target), row.info.target);
    page = activity_map(page_fd);
    if (!page || page->session_id != l->session_id) {
        activity_unmap(page);
        return false;
    }
    if (resolve(l, &policy, &target) < 0)
        policy = b->config->policy; /* withdrawn meanwhile: links_refresh_policies() ends it */
    if (tracker_adopt(b->tracker, l->session_id, &policy, page, l) < 0) {
        activity_unmap(page);
        return false;
    }
    l->policy = policy;
    l->is_ready = row.info.state != SESSION_CONNECTING;
    l->channel_count = row.info.channels[0] ? 1 : 0;
    for (const char *p = row.info.channels; *p; p++)
        l->channel_count += *p == ',';
    recordings_adopt(b->recordings, l->session_id);
    return true;
}

struct disowned {
    int32_t pid;
    bool is_found;
};

static bool disowned_row(const struct store_session *row, void *arg)
{
    struct disowned *d = arg;

    d->is_found |= row->info.relay_pid == d->pid && row->info.state != SESSION_CONNECTING;
    return !d->is_found;
}

/* An older ticket proves less than was given since: whoever shows it while a session of his is open
 * (and was logged in at its target) wants to go on in it unseen. */
static bool hides_session(const struct relay_link *l)
{
    struct store_session_filter open = {.protocol = -1, .only_open = true};
    struct disowned d = {.pid = l->pid};

    if (l->session_id || !l->user[0])
        return false;
    text_copy(open.user, sizeof(open.user), l->user);
    if (store_sessions(l->links->broker->store, &open, disowned_row, &d) < 0)
        return false;
    return d.is_found;
}

/* A relay from before this broker: believe what its ticket proves. */
static bool adopt(struct relay_link *l, const struct link_hello *h, int page_fd)
{
    struct links *all = l->links;
    struct ticket t;

    if (h->ticket.len == 0)
        return h->session_id == 0 && h->user[0] == '\0'; /* had not logged in */
    if (ticket_read(all->broker->ticket_key, h->ticket.data, h->ticket.len, &t) < 0 ||
        t.pid != l->pid || t.session_id != h->session_id)
        return false;
    text_copy(l->user, sizeof(l->user), t.user);
    l->attempts = t.attempts > l->attempts ? t.attempts : l->attempts;
    l->is_settled = t.user[0] != '\0';
    l->session_id = t.session_id;
    if (l->session_id && !adopt_session(l, page_fd)) {
        l->session_id = 0;
        return false;
    }
    return !hides_session(l);
}

/* What an adopted relay may do follows from what it has proved, not from the phase that it says. */
static enum link_state proved_state(const struct relay_link *l)
{
    if (l->session_id)
        return STATE_SESSION;
    return l->user[0] ? STATE_CHOOSING : STATE_LOGIN;
}

static void on_hello(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_hello *h = &m->hello;

    l->version = m->version < LINK_VERSION ? m->version : LINK_VERSION;
    l->protocol = h->protocol;
    text_copy(l->client_address, sizeof(l->client_address), h->client_address);
    text_copy(l->device, sizeof(l->device), h->device);
    l->client_port = h->client_port;
    l->attempts = h->attempts;
    if ((l->is_adopted && !adopt(l, h, fds[0])) ||
        (!l->is_adopted && (h->session_id || h->user[0] || h->phase != LINK_PHASE_LOGIN))) {
        log_warn("relay pid=%d claims what it cannot prove and is ended", l->pid);
        link_drop(l, "ticket refused");
        return;
    }
    event_del(l->timer);
    if (l->is_adopted)
        l->links->adopted++;
    adoption_answered(l);
    link_enter(l, l->is_adopted ? proved_state(l) : STATE_LOGIN);
    send_welcome(l);
}

/* ---- authentication ---- */

static void auth_reply(struct relay_link *l, enum link_auth result, const char *text)
{
    struct link_auth_result *a = &begin(l, LINK_AUTH_RESULT)->auth_result;

    a->result = (uint8_t)result;
    text_copy(a->user, sizeof(a->user), l->user);
    text_copy(a->text, sizeof(a->text), text);
    put_ticket(l, &a->ticket.len, a->ticket.data);
    send_plain(l);
}

static struct source_limits source_limits(const struct broker *b)
{
    return (struct source_limits){b->config->source_failures, b->config->source_block_s};
}

static void failures_cb(evutil_socket_t fd, short what, void *arg)
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
        failures_cb(-1, 0, all);
        all->failures_ms = now_ms;
        all->failure_rows = 0;
    }
    if (all->failure_rows < FAILURES_A_MIN) {
        all->failure_rows++;
        event_of(l, "login-failed", text);
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
    event_of(l, "login", method);
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
        event_of(l, "source-blocked", text);
    }
    auth_reply(l, LINK_AUTH_DISCONNECT, text);
    return false;
}

struct password_check {
    struct links *links;
    uint64_t serial;
};

static bool user_may_log_in(struct broker *b, const char *user)
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
    if (is_right && user_may_log_in(l->links->broker, l->tried_user))
        auth_succeeded(l, "password");
    else
        auth_failed(l, "password");
}

static void on_auth_password(struct relay_link *l, struct link_message *m, int *fds)
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

static void on_auth_key(struct relay_link *l, struct link_message *m, int *fds)
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

/* ---- the way to a target ---- */

static void route_refused(struct relay_link *l, enum end_reason reason, const char *text)
{
    struct link_route_result *r = &begin(l, LINK_ROUTE_RESULT)->route_result;

    r->reason = (uint8_t)reason;
    text_copy(r->text, sizeof(r->text), text);
    policy_defaults(&r->policy); /* unused, but what is not valid is not sent */
    send_plain(l);
    link_enter(l, STATE_CHOOSING);
}

static void route_failed(struct relay_link *l, enum end_reason reason, const char *text)
{
    session_over(l, reason, reason == END_TARGET_UNREACHABLE ? "target" : "policy", text);
    if (l->page_fd >= 0)
        close(l->page_fd);
    l->page_fd = -1;
    route_refused(l, reason, text);
}

static void route_connected(struct relay_link *l, int fd)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    struct policy policy;
    struct session_info info;
    struct secret secret = {0};
    struct link_route_result *r;
    int fds[2];

    /* again, since the target may have changed while it was dialed */
    if (resolve(l, &policy, &target) < 0 || tracker_get(b->tracker, l->session_id, &info) < 0) {
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
    r = &begin(l, LINK_ROUTE_RESULT)->route_result;
    r->is_ok = 1;
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
    put_ticket(l, &r->ticket.len, r->ticket.data);
    r->policy = l->policy;
    fds[0] = fd;
    fds[1] = l->page_fd;
    send_fds(l, fds, 2);
    close(fd);
    close(l->page_fd);
    l->page_fd = -1;
    link_enter(l, STATE_SESSION);
}

struct route_dial {
    struct links *links;
    uint64_t serial;
    uint64_t session_id;
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
        snprintf(sentence, sizeof(sentence), "%s cannot be reached: %s", l->target, text);
        route_failed(l, END_TARGET_UNREACHABLE, sentence);
    } else {
        route_connected(l, fd);
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

static void on_route(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    struct route_dial *d;
    char text[SESSION_TEXT_MAX];
    int r;

    (void)fds;
    if (b->is_draining) {
        route_refused(l, END_SHUTDOWN, "this proxy takes no new sessions now; try again later");
        return;
    }
    text_copy(l->target, sizeof(l->target), m->route.target);
    l->policy = b->config->policy;
    r = store_resolve(b->store, l->user, m->route.account, l->target, (enum protocol)l->protocol,
                      &l->policy, &target, l->account);
    if (r < 0) {
        if (r != ERR_NOT_FOUND && r != ERR_DENIED)
            log_error("target %s cannot be looked up: %s", l->target, store_error(b->store));
        snprintf(text, sizeof(text), "there is no target \"%s\" for you", l->target);
        event_of(l, "route-refused", text);
        route_refused(l, END_POLICY, text);
        return;
    }
    if (l->policy.record && l->policy.on_failure != ON_FAILURE_CONTINUE &&
        recordings_check(b->recordings, text, sizeof(text)) < 0) {
        event_of(l, "route-refused", text);
        route_refused(l, END_RECORDING_FAILED, text);
        return;
    }
    if (open_session(l, &target, text, sizeof(text)) < 0) {
        event_of(l, "route-refused", text);
        route_refused(l, END_POLICY, text);
        return;
    }
    link_enter(l, STATE_DIALING);
    d = malloc(sizeof(*d));
    if (d)
        *d = (struct route_dial){l->links, l->serial, l->session_id};
    if (!d || dial(b->dialer, target.address, b->config->connect_timeout_s, dialed, d) < 0) {
        free(d);
        route_failed(l, END_TARGET_UNREACHABLE, "too many connections are being made; try again");
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

static void on_targets(struct relay_link *l, struct link_message *m, int *fds)
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
    out = begin(l, LINK_TARGET_LIST);
    out->target_list.count = t->count;
    out->target_list.total = t->seen;
    send_plain(l);
    for (uint32_t i = 0; i < t->count; i++) {
        begin(l, LINK_TARGET_ROW)->target_row = t->rows[i];
        send_plain(l);
    }
    free(t);
}

static void on_host_key(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    const struct link_host_key *k = &m->host_key;
    struct link_host_key_result *answer;
    char print[FINGERPRINT_MAX], text[SESSION_TEXT_MAX];
    int r;

    (void)fds;
    if (l->is_ready) {
        log_warn("relay pid=%d pins a host key after the login and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    fingerprint_sha256(print, k->key.data, k->key.len);
    r = store_target_pin(b->store, l->target, k->key_type, k->key.data, k->key.len, print);
    if (r == 0) {
        snprintf(text, sizeof(text), "%s %s %s", l->target, k->key_type, print);
        event_of(l, "host-key-pinned", text);
        log_info("host key pinned target=%s type=%s fingerprint=%s", l->target, k->key_type, print);
    }
    answer = &begin(l, LINK_HOST_KEY_RESULT)->host_key_result;
    answer->is_ok = r == 0;
    text_copy(answer->text, sizeof(answer->text),
              r == 0 ? "" : "the host key of the target could not be pinned");
    send_plain(l);
}

static void on_ready(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)m, (void)fds;
    l->is_ready = true;
    tracker_ready(l->links->broker->tracker, l->session_id);
}

/* ---- a session's life ---- */

static void on_record_open(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    struct link_recording *answer;
    char err[SESSION_TEXT_MAX] = "";
    int fd;

    (void)fds;
    if (m->record_open.channel == 0 ||
        recordings_count(b->recordings, l->session_id) >= RECORDINGS_MAX) {
        log_warn("relay pid=%d session=%llu asks for a recording too many and is ended", l->pid,
                 (unsigned long long)l->session_id);
        link_drop(l, "too many recordings");
        return;
    }
    fd = recordings_open(b->recordings, l->session_id, m->record_open.channel, err, sizeof(err));
    answer = &begin(l, LINK_RECORDING)->recording;
    answer->channel = m->record_open.channel;
    text_copy(answer->text, sizeof(answer->text), err);
    if (fd >= 0)
        answer->verdict = LINK_RECORD_YES;
    else
        answer->verdict =
            l->policy.on_failure == ON_FAILURE_CONTINUE ? LINK_RECORD_NO : LINK_RECORD_REFUSED;
    send_fds(l, &fd, fd >= 0 ? 1 : 0);
    if (fd >= 0) {
        close(fd);
        tracker_recording(b->tracker, l->session_id, RECORDING_OK);
        return;
    }
    event_of(l, "recording-failed", err);
    tracker_recording(b->tracker, l->session_id,
                      l->policy.on_failure == ON_FAILURE_CONTINUE ? RECORDING_DEGRADED
                                                                  : RECORDING_FAILED);
}

static void on_channel(struct relay_link *l, struct link_message *m, int *fds)
{
    static const char *const kinds[] = {"shell", "exec", "transfer", "subsystem"};
    static const char *const events[] = {"channel-open", "channel-close", "channel-refused"};
    const struct link_channel *c = &m->channel;
    char text[512], channels[CHANNELS_TEXT_MAX] = "", status[48] = "";
    size_t at = 0;

    (void)fds;
    if (c->change == LINK_CHANNEL_OPENED && l->channel_count < 1000)
        l->channel_count++;
    else if (c->change == LINK_CHANNEL_CLOSED && l->channel_count > 0)
        l->channel_count--;
    if (c->exit_signal[0])
        snprintf(status, sizeof(status), " signal=%.31s", c->exit_signal);
    else if (c->exit_status != UINT32_MAX)
        snprintf(status, sizeof(status), " exit=%u", c->exit_status);
    if (c->change == LINK_CHANNEL_CLOSED)
        snprintf(text, sizeof(text), "channel=%u %s%s in=%llu out=%llu%s %.300s", c->channel,
                 kinds[c->kind], c->has_pty ? " pty" : "", (unsigned long long)c->bytes_in,
                 (unsigned long long)c->bytes_out, status, c->command);
    else
        snprintf(text, sizeof(text), "channel=%u %s%s %.300s", c->channel, kinds[c->kind],
                 c->has_pty ? " pty" : "", c->command);
    event_of(l, events[c->change], text);
    if (c->change == LINK_CHANNEL_CLOSED) /* its last frame came before */
        recordings_close_channel(l->links->broker->recordings, l->session_id, c->channel);
    for (uint32_t i = 0; i < l->channel_count && at + 9 < sizeof(channels); i++)
        at += (size_t)snprintf(channels + at, sizeof(channels) - at, "%ssession", i ? "," : "");
    tracker_channels(l->links->broker->tracker, l->session_id, channels);
}

static void on_frame(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_frame *f = &m->frame;

    (void)fds;
    if (f->chain.len == sizeof(f->chain.data))
        recordings_frame(l->links->broker->recordings, l->session_id, f->channel, f->sequence,
                         f->file_len, f->chain.data);
}

static void on_recording_state(struct relay_link *l, struct link_message *m, int *fds)
{
    static struct log_limit limit;
    struct broker *b = l->links->broker;
    const struct link_recording_state *s = &m->recording_state;

    (void)fds;
    if (s->state == RECORDING_FAILED || s->state == RECORDING_DEGRADED) {
        recordings_failed(b->recordings, l->session_id, s->channel);
        event_of(l, "recording-failed", s->text);
        if (log_limit_allows(&limit, 60, "failed recordings"))
            log_error("recording failed session=%llu channel=%u: %s",
                      (unsigned long long)l->session_id, s->channel, s->text);
    }
    tracker_recording(b->tracker, l->session_id, (enum recording_state)s->state);
}

static void on_resumed(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)m, (void)fds;
    tracker_resumed(l->links->broker->tracker, l->session_id);
}

/* What only the broker can know (logins, ends, pinned keys) is never a relay's to say. */
static void on_event(struct relay_link *l, struct link_message *m, int *fds)
{
    static const char *const kinds[] = {"host-key-mismatch", "channel-refused", "idle-warning",
                                        "events-lost"};
    char kind[sizeof(m->event.kind) + 8];
    bool is_known = false;

    (void)fds;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        is_known |= strcmp(m->event.kind, kinds[i]) == 0;
    snprintf(kind, sizeof(kind), "%s%s", is_known ? "" : "relay:", m->event.kind);
    event_of(l, kind, m->event.text);
}

/* Whether a relay may end its session so. That an admin did, or access was withdrawn, is the
 * broker's to know; only one that was told so by an earlier broker brings it along. */
static bool may_say(const struct relay_link *l, const struct link_closed *c)
{
    bool is_of_broker = c->reason == END_ADMIN_ENDED || c->reason == END_SELF_ENDED ||
                        c->reason == END_REVOKED || strncmp(c->author, "admin ", 6) == 0;

    return l->is_adopted || l->is_end_sent || !is_of_broker;
}

static void on_closed(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_closed *c = &m->closed;
    const struct timeval leave = {LEAVE_S, 0};

    (void)fds;
    event_add(l->timer, &leave);
    event_add(l->exit, NULL);
    /* A stranger's connection writes nothing: his failed attempts are events already. */
    if (!l->session_id && l->user[0] && c->text[0])
        event_of(l, "connection-closed", c->text);
    if (may_say(l, c))
        session_over(l, (enum end_reason)c->reason, c->author, c->text);
    else
        session_over(l, END_RELAY_CRASHED, "relay", "the relay gave a reason that is not its own");
    store_flush(l->links->broker->store);
    link_enter(l, STATE_ENDED);
    begin(l, LINK_CLOSED_ACK);
    send_plain(l);
}

/* ---- dispatch ---- */

static const struct handler {
    enum link_type type;
    unsigned states; /* in which it may come */
    void (*run)(struct relay_link *l, struct link_message *m, int *fds);
} handlers[] = {
    {LINK_HELLO, STATE_HELLO, on_hello},
    {LINK_AUTH_PASSWORD, STATE_LOGIN, on_auth_password},
    {LINK_AUTH_KEY, STATE_LOGIN, on_auth_key},
    {LINK_ROUTE, STATE_CHOOSING, on_route},
    {LINK_TARGETS, STATE_CHOOSING, on_targets},
    {LINK_HOST_KEY, STATE_SESSION, on_host_key},
    {LINK_READY, STATE_SESSION, on_ready},
    {LINK_RECORD_OPEN, STATE_SESSION, on_record_open},
    {LINK_CHANNEL, STATE_SESSION, on_channel},
    {LINK_FRAME, STATE_SESSION, on_frame},
    {LINK_RECORDING_STATE, STATE_SESSION, on_recording_state},
    {LINK_RESUMED, STATE_SESSION | STATE_DIALING, on_resumed},
    {LINK_EVENT, STATE_CHOOSING | STATE_DIALING | STATE_SESSION, on_event},
    {LINK_CLOSED, STATE_LOGIN | STATE_CHOOSING | STATE_DIALING | STATE_SESSION, on_closed},
};

static void dispatch(struct relay_link *l, struct link_message *m, int *fds)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (handlers[i].type != m->type)
            continue;
        if (!(handlers[i].states & l->state))
            break;
        handlers[i].run(l, m, fds);
        return;
    }
    log_warn("relay pid=%d said %s, which it may not now, and is ended", l->pid,
             link_type_name(m->type));
    link_drop(l, "out of order");
}

static void pause_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay_link *l = arg;

    (void)fd, (void)what;
    event_add(l->event, NULL);
}

/* One more message? A relay that says more than any session has to say is read more slowly, so
 * that it cannot fill the store or keep the loop from others; nothing that it says is lost. */
static bool may_talk(struct relay_link *l)
{
    const struct timeval pause = {0, TALK_PAUSE_MS * 1000};
    int64_t now_ms = clock_mono_ms();
    uint64_t earned = (uint64_t)(now_ms - l->talk_ms) * TALK_PER_S / 1000;

    if (earned) {
        l->talk_ms = now_ms;
        l->talk_left =
            (uint32_t)(earned < TALK_BURST - l->talk_left ? l->talk_left + earned : TALK_BURST);
    }
    if (l->talk_left)
        return true;
    event_del(l->event);
    event_add(l->pause, &pause);
    return false;
}

static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay_link *l = arg;
    struct link_message *m = &l->links->in;

    (void)fd, (void)what;
    for (int i = 0; i < MESSAGES_A_TURN && l->fd >= 0; i++) {
        int fds[LINK_FDS_MAX];
        int r;

        if (!may_talk(l))
            return;
        r = link_receive(l->fd, m, fds);

        if (r == ERR_AGAIN)
            return;
        if (r < 0) {
            if (r != ERR_CLOSED)
                log_warn("relay pid=%d: %s", l->pid, error_text(r));
            link_drop(l, error_text(r));
            return;
        }
        l->talk_left--;
        dispatch(l, m, fds);
        link_message_wipe(m);
        link_close_fds(fds);
    }
}

/* ---- accepting and adopting ---- */

/* A handle of the process at the other end, or -1. Its number is its own only while it lives; once
 * it does not, nor does its end of the socket: so that is asked after the handle was taken. */
static int open_pidfd(int fd, pid_t pid)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    if (pidfd >= 0 && poll(&p, 1, 0) != 0) {
        close(pidfd);
        return -1;
    }
    return pidfd;
}

static struct relay_link *link_new(struct links *all, int fd, bool is_adopted)
{
    struct relay_link *l = calloc(1, sizeof(*l));
    const struct config *c = all->broker->config;
    struct timeval hello = {HELLO_TIMEOUT_S, 0};
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (!l || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
        (cred.uid != all->broker->identity.uid && cred.uid != all->broker->identity.relay_uid)) {
        free(l);
        close(fd);
        return NULL;
    }
    if (is_adopted && c->broker_lost_after_s > HELLO_TIMEOUT_S)
        hello.tv_sec = c->broker_lost_after_s;
    l->links = all;
    l->serial = ++all->next_serial;
    l->state = STATE_HELLO;
    l->fd = fd;
    l->pid = cred.pid;
    l->pidfd = open_pidfd(fd, cred.pid);
    l->page_fd = -1;
    l->version = LINK_VERSION;
    l->is_adopted = is_adopted;
    snprintf(l->path, sizeof(l->path), "relay/%d.sock", (int)cred.pid);
    l->event = event_new(all->broker->base, fd, EV_READ | EV_PERSIST, link_cb, l);
    l->timer = event_new(all->broker->base, -1, 0, timer_cb, l);
    l->exit = event_new(all->broker->base, l->pidfd, EV_READ, exit_cb, l);
    l->pause = event_new(all->broker->base, -1, 0, pause_cb, l);
    l->talk_ms = clock_mono_ms();
    l->talk_left = TALK_BURST;
    TAILQ_INSERT_TAIL(&all->live, l, entry);
    all->count++;
    all->unanswered += is_adopted;
    /* A relay that is adopted answers when it can (a stalled disk may hold it) and is not ended for
     * being late; but not later than it would end by itself, alone. */
    if (!l->event || !l->timer || !l->exit || !l->pause || l->pidfd < 0 ||
        event_add(l->event, NULL) < 0 || event_add(l->timer, &hello) < 0) {
        link_drop(l, "no memory or process");
        return NULL;
    }
    return l;
}

/* Relays beyond what our descriptors allow wait in the socket's queue; control always answers. */
static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
    static struct log_limit limit;
    struct links *all = arg;
    struct timeval second = {1, 0};

    (void)what;
    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        int link;

        if (all->count >= all->max_count) {
            if (log_limit_allows(&limit, 1, "waits for room"))
                log_warn("%u relays are all that the limit on open files allows; raise it",
                         all->max_count);
            event_del(all->accept_event);
            return;
        }
        link = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (link < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                event_del(all->accept_event); /* or the loop would spin */
                event_add(all->resume, &second);
            }
            return;
        }
        link_new(all, link, false);
    }
}

static void resume_cb(evutil_socket_t fd, short what, void *arg)
{
    struct links *all = arg;

    (void)fd, (void)what;
    event_add(all->accept_event, NULL);
}

static int connect_relay(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0 || !text_copy(addr.sun_path, sizeof(addr.sun_path), path) ||
        connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

size_t links_adopt(struct links *all)
{
    DIR *dir = opendir("relay");
    struct dirent *entry;
    size_t found = 0;

    all->unanswered++; /* the scan itself: nothing is unclaimed before it is over */
    while (dir && (entry = readdir(dir))) {
        char path[300];
        int fd;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "relay/%s", entry->d_name);
        fd = connect_relay(path);
        if (fd < 0) {
            if (errno == ECONNREFUSED)
                unlink(path); /* its relay is gone */
            continue;
        }
        found += link_new(all, fd, true) != NULL;
    }
    if (dir)
        closedir(dir);
    if (--all->unanswered == 0)
        tracker_close_unclaimed(all->broker->tracker);
    return found;
}

struct links *links_create(struct broker *b, char *err, size_t err_len)
{
    struct links *all = calloc(1, sizeof(*all));
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = "relay.sock"};

    if (!all) {
        snprintf(err, err_len, "out of memory");
        return NULL;
    }
    all->broker = b;
    all->max_count = b->max_fds > FDS_RESERVED + FDS_A_LINK
                         ? (uint32_t)((b->max_fds - FDS_RESERVED) / FDS_A_LINK)
                         : 1;
    all->listen_fd = -1;
    TAILQ_INIT(&all->live);
    TAILQ_INIT(&all->dead);
    unlink(addr.sun_path); /* the store's lock says that no other broker is here */
    all->sweep = event_new(b->base, -1, 0, sweep_cb, all);
    all->failures = event_new(b->base, -1, 0, failures_cb, all);
    all->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!all->sweep || !all->failures || all->listen_fd < 0 ||
        bind(all->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        chmod(addr.sun_path, 0600) < 0 || listen(all->listen_fd, LINKS_BACKLOG) < 0) {
        snprintf(err, err_len, "%s/relay.sock: %s", b->config->run_dir, strerror(errno));
        links_destroy(all);
        return NULL;
    }
    all->accept_event = event_new(b->base, all->listen_fd, EV_READ | EV_PERSIST, accept_cb, all);
    all->resume = event_new(b->base, -1, 0, resume_cb, all);
    if (!all->accept_event || !all->resume || event_add(all->accept_event, NULL) < 0) {
        snprintf(err, err_len, "out of memory");
        links_destroy(all);
        return NULL;
    }
    return all;
}

void links_release(struct links *all)
{
    struct relay_link *l;

    if (!all)
        return;
    if (all->accept_event)
        event_free(all->accept_event);
    all->accept_event = NULL;
    while ((l = TAILQ_FIRST(&all->live)))
        link_release(l);
    sweep_cb(-1, 0, all);
}

void links_destroy(struct links *all)
{
    if (!all)
        return;
    links_release(all);
    if (all->resume)
        event_free(all->resume);
    if (all->failures) {
        failures_cb(-1, 0, all);
        event_free(all->failures);
    }
    if (all->sweep)
        event_free(all->sweep);
    if (all->listen_fd >= 0)
        close(all->listen_fd);
    free(all);
}

void links_count(const struct links *all, uint32_t *links, uint64_t *adopted)
{
    *links = all->count;
    *adopted = all->adopted;
}

/* ---- what the tracker asks ---- */

static void relay_notice_op(void *relay, bool is_warning, const char *text)
{
    struct relay_link *l = relay;
    struct link_notice_msg *n = &begin(l, LINK_NOTICE)->notice;

    n->kind = is_warning ? LINK_NOTICE_WARNING : LINK_NOTICE_MESSAGE;
    text_copy(n->text, sizeof(n->text), text);
    send_plain(l);
}

static void relay_end_op(void *relay, enum end_reason reason, const char *author, const char *text)
{
    struct relay_link *l = relay;
    struct link_end *e = &begin(l, LINK_END)->end;
    struct timeval deadline = {END_DEADLINE_MS / 1000, 0};

    l->is_end_sent = true;
    e->reason = (uint8_t)reason;
    e->deadline_ms = END_DEADLINE_MS;
    text_copy(e->author, sizeof(e->author), author);
    text_copy(e->text, sizeof(e->text), text);
    send_plain(l);
    event_add(l->timer, &deadline);
}

static void relay_policy_op(void *relay, const struct policy *policy)
{
    struct relay_link *l = relay;

    begin(l, LINK_POLICY)->policy.policy = *policy;
    send_plain(l);
}

const struct tracker_relay_ops links_relay_ops = {relay_notice_op, relay_end_op, relay_policy_op};

/* Idle and limits re-arm live sessions; recording and channels stay as they began. */
static void keep_fixed(struct policy *fresh, const struct policy *old)
{
    fresh->record = old->record;
    fresh->input = old->input;
    fresh->on_failure = old->on_failure;
    fresh->channels = old->channels;
}

void links_refresh_policies(struct links *all, bool is_access, const char *author)
{
    struct broker *b = all->broker;
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry) {
        struct store_target target;
        struct policy policy;
        int r;

        if (!l->session_id)
            continue;
        r = user_may_log_in(b, l->user) ? resolve(l, &policy, &target) : ERR_DENIED;
        if (r == 0) {
            keep_fixed(&policy, &l->policy);
            l->policy = policy;
            tracker_set_policy(b->tracker, l->session_id, &policy);
        } else if (is_access && (r == ERR_DENIED || r == ERR_NOT_FOUND)) {
            if (tracker_end(b->tracker, l->session_id, END_REVOKED, author, "access was withdrawn",
                            0) < 0)
                log_warn("session %llu is not there to be ended",
                         (unsigned long long)l->session_id);
        }
    }
}

void links_recording_short(struct links *all, uint64_t session_id)
{
    struct broker *b = all->broker;
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry) {
        if (l->session_id != session_id)
            continue;
        event_of(l, "recording-short", "less than [recording] min_free is left");
        if (l->policy.on_failure != ON_FAILURE_TERMINATE)
            return;
        tracker_recording(b->tracker, session_id, RECORDING_FAILED);
        if (tracker_end(b->tracker, session_id, END_RECORDING_FAILED, "policy",
                        "there is no room left to record", 0) < 0)
            log_warn("session %llu is not there to be ended", (unsigned long long)session_id);
        return;
    }
}
