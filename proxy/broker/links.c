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
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/cookies.h"
#include "proxy/broker/dial.h"
#include "proxy/broker/door.h"
#include "proxy/broker/links_parts.h"
#include "proxy/broker/passes.h"
#include "proxy/broker/recordings.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define HELLO_TIMEOUT_S     10
#define END_DEADLINE_SSH_MS 1000 /* docs/link.md */
#define END_DEADLINE_RDP_MS 4000 /* the sentence is drawn and held */
#define END_SPREAD_MS       3    /* more for each one that is ending already */
#define MESSAGES_A_TURN     32   /* of one relay, so that one cannot starve the rest */
#define LINKS_BACKLOG       1024
#define TALK_BURST          2000 /* messages of one relay at once, and in a second for ever */
#define TALK_PER_S          200
#define TALK_PAUSE_MS       100
#define FDS_RESERVED        32 /* for the store, control, listeners */
#define FDS_A_LINK          4  /* link, pidfd, a recording, a target on its way */

/* ---- sending ---- */

struct link_message *link_begin(struct relay_link *l, enum link_type type)
{
    struct link_message *m = &l->links->out;

    memset(m, 0, sizeof(*m));
    m->type = (uint8_t)type;
    return m;
}

void link_say_fds(struct relay_link *l, const int *fds, size_t count)
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

void link_say(struct relay_link *l)
{
    link_say_fds(l, NULL, 0);
}

void link_put_ticket(struct relay_link *l, uint16_t *len, uint8_t *data)
{
    struct ticket t = {.session_id = l->session_id,
                       .pid = l->pid,
                       .attempts = l->attempts,
                       .denies = l->login.cert_denies,
                       .has_second_factor = l->user[0] && l->has_second_factor,
                       .outer_pid = l->outer_pid,
                       .outer_channel = l->outer_channel};

    text_copy(t.user, sizeof(t.user), l->user);
    text_copy(t.jump_target, sizeof(t.jump_target), l->jump_target);
    *len = (uint16_t)ticket_make(l->links->broker->ticket_key, &t, data);
}

void link_note(struct relay_link *l, const char *kind, const char *text)
{
    broker_event(l->links->broker, kind, l->user[0] ? l->user : l->tried_user, l->client_address,
                 l->session_id, text);
}

/* ---- the record's life ---- */

void link_enter(struct relay_link *l, enum link_state to)
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
        link_login_free(l);
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
    link_login_stop(l);
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

void link_session_over(struct relay_link *l, enum end_reason reason, const char *author,
                       const char *text)
{
    struct broker *b = l->links->broker;

    if (!l->session_id)
        return;
    link_cookie_ended(l, reason);
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
void link_drop(struct relay_link *l, const char *why)
{
    struct broker *b = l->links->broker;

    if (l->fd < 0)
        return;
    link_login_left(l);
    door_link_gone(b->door, l->serial);
    if (!l->session_id && has_twin(l)) {
        adoption_answered(l);
        link_release(l);
        return;
    }
    log_debug("relay pid=%d link closed: %s", l->pid, why);
    if (l->state != STATE_ENDED) {
        kill_relay(l);
        link_jump_outer_over(l, END_NETWORK_LOST, "relay",
                             "the connection that carries it was lost");
    }
    link_session_over(l, END_RELAY_CRASHED, "relay", "the relay process of the session died");
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

struct relay_link *link_by_serial(struct links *all, uint64_t serial)
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
    struct link_welcome *w = &link_begin(l, LINK_WELCOME)->welcome;

    w->login_grace_s = c->login_grace_s;
    w->auth_attempts = c->auth_attempts;
    w->key_offers = c->key_offers;
    w->keepalive_interval_s = c->ssh_keepalive_interval_s;
    w->keepalive_count = c->ssh_keepalive_count;
    w->broker_lost_after_s = c->broker_lost_after_s;
    text_copy(w->separators, sizeof(w->separators),
              l->protocol == PROTOCOL_RDP ? c->rdp_separators : c->ssh_separators);
    text_copy(w->banner, sizeof(w->banner), c->ssh_banner_text);
    link_jump_welcome(l, w);
    link_say(l);
}

/* The policy that holds for a session now. A session's account may be the default one (which a
 * grant gives without naming it) or one that was asked for. */
int link_resolve(struct relay_link *l, struct policy *policy, struct store_target *target)
{
    struct broker *b = l->links->broker;
    char account[ACCOUNT_MAX_LEN + 1];
    int r;

    *policy = b->config->policy;
    r = store_resolve(b->store, l->user, "", l->target, (enum protocol)l->protocol, policy, target,
                      account);
    if (r != 0 || strcmp(account, l->account) != 0) {
        *policy = b->config->policy;
        r = store_resolve(b->store, l->user, l->account, l->target, (enum protocol)l->protocol,
                          policy, target, account);
    }
    link_limit_policy(l, policy);
    return r;
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
    if (link_resolve(l, &policy, &target) < 0)
        policy = b->config->policy; /* withdrawn meanwhile: check_access() ends it */
    if (tracker_adopt(b->tracker, l->session_id, &policy, page, l) < 0) {
        activity_unmap(page);
        return false;
    }
    l->policy = policy;
    l->is_ready = row.info.state != SESSION_CONNECTING;
    link_count_channels(l, row.info.channels);
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
    l->login.cert_denies = t.denies;
    l->has_second_factor = t.has_second_factor;
    link_jump_adopted(l, &t);
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

static bool proves_itself(struct relay_link *l, const struct link_hello *h, int page_fd)
{
    if (pass_is(h->ticket.data, h->ticket.len))
        return link_jump_hello(l, h) && !hides_session(l);
    if (l->is_adopted)
        return adopt(l, h, page_fd);
    return !h->session_id && !h->user[0] && h->phase == LINK_PHASE_LOGIN;
}

/* Access that was withdrawn after the scan had found the relay and before it said who it is: nobody
 * ended it then, since nobody knew whose it was. */
static void check_access(struct relay_link *l)
{
    struct broker *b = l->links->broker;
    struct store_target target;
    struct policy policy;
    int r = link_user_may_log_in(b, l->user) ? 0 : ERR_DENIED;

    if (r == 0 && l->session_id)
        r = link_resolve(l, &policy, &target);
    if (r != ERR_DENIED && r != ERR_NOT_FOUND)
        return;
    if (!l->session_id)
        link_end_choosing(l, END_REVOKED, "policy", "access was withdrawn");
    else if (tracker_end(b->tracker, l->session_id, END_REVOKED, "policy", "access was withdrawn",
                         0) < 0)
        log_debug("session %llu ends already", (unsigned long long)l->session_id);
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
    if (!proves_itself(l, h, fds[0])) {
        log_warn("relay pid=%d claims what it cannot prove and is ended", l->pid);
        link_drop(l, "ticket refused");
        return;
    }
    event_del(l->timer);
    if (l->is_adopted)
        l->links->adopted++;
    adoption_answered(l);
    link_enter(l, proved_state(l));
    send_welcome(l);
    if (l->is_adopted && l->user[0])
        check_access(l);
}

/* ---- dispatch ---- */

static const struct handler {
    enum link_type type;
    unsigned states; /* in which it may come */
    void (*run)(struct relay_link *l, struct link_message *m, int *fds);
} handlers[] = {
    {LINK_HELLO, STATE_HELLO, on_hello},
    {LINK_AUTH_PASSWORD, STATE_LOGIN, link_on_auth_password},
    {LINK_AUTH_KEY, STATE_LOGIN, link_on_auth_key},
    {LINK_AUTH_KEYBOARD, STATE_LOGIN, link_on_auth_keyboard},
    {LINK_AUTH_ANSWER, STATE_LOGIN, link_on_auth_answer},
    {LINK_NLA_ASK, STATE_LOGIN, link_on_nla_ask},
    {LINK_NLA_LOGIN, STATE_LOGIN, link_on_nla_login},
    {LINK_ROUTE, STATE_CHOOSING, link_on_route},
    {LINK_TARGETS, STATE_CHOOSING, link_on_targets},
    {LINK_HOST_KEY, STATE_SESSION, link_on_host_key},
    {LINK_READY, STATE_SESSION, link_on_ready},
    {LINK_RECORD_OPEN, STATE_SESSION, link_on_record_open},
    {LINK_CHANNEL, STATE_SESSION, link_on_channel},
    {LINK_FRAME, STATE_SESSION, link_on_frame},
    {LINK_RECORDING_STATE, STATE_SESSION, link_on_recording_state},
    {LINK_JUMP, STATE_CHOOSING | STATE_DIALING | STATE_SESSION, link_on_jump},
    {LINK_JUMP_CLOSED, STATE_CHOOSING | STATE_DIALING | STATE_SESSION, link_on_jump_closed},
    {LINK_RESUMED, STATE_SESSION | STATE_DIALING, link_on_resumed},
    {LINK_DESKTOP, STATE_SESSION, link_on_desktop},
    {LINK_REDIRECT, STATE_SESSION, link_on_redirect},
    {LINK_RECONNECT, STATE_SESSION, link_on_reconnect},
    {LINK_EVENT, STATE_CHOOSING | STATE_DIALING | STATE_SESSION, link_on_event},
    {LINK_FILES, STATE_SESSION, link_on_files},
    {LINK_WATCH_CLOSED, STATE_SESSION, link_on_watch_closed},
    {LINK_DOOR, STATE_CHOOSING | STATE_DIALING | STATE_SESSION, link_on_door},
    {LINK_BACK, STATE_SESSION, link_on_back},
    {LINK_CLOSED, STATE_LOGIN | STATE_CHOOSING | STATE_DIALING | STATE_SESSION, link_on_closed},
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
    all->passes = passes_create(clock_mono_ms());
    all->cookies = cookies_create();
    TAILQ_INIT(&all->live);
    TAILQ_INIT(&all->dead);
    unlink(addr.sun_path); /* the store's lock says that no other broker is here */
    all->sweep = event_new(b->base, -1, 0, sweep_cb, all);
    all->failures = event_new(b->base, -1, 0, link_failures_cb, all);
    all->listen_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (!all->sweep || !all->failures || !all->passes || !all->cookies || all->listen_fd < 0 ||
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
        link_failures_cb(-1, 0, all);
        event_free(all->failures);
    }
    if (all->sweep)
        event_free(all->sweep);
    if (all->listen_fd >= 0)
        close(all->listen_fd);
    passes_destroy(all->passes);
    cookies_destroy(all->cookies);
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
    struct link_notice_msg *n = &link_begin(l, LINK_NOTICE)->notice;

    n->kind = is_warning ? LINK_NOTICE_WARNING : LINK_NOTICE_MESSAGE;
    text_copy(n->text, sizeof(n->text), text);
    link_say(l);
}

/* A thousand relays that end at once share the processors, and each still has a goodbye to say. */
static uint32_t ends_under_way(const struct links *all)
{
    const struct relay_link *l;
    uint32_t n = 0;

    TAILQ_FOREACH (l, &all->live, entry)
        n += l->is_end_sent;
    return n;
}

static void relay_end_op(void *relay, enum end_reason reason, const char *author, const char *text)
{
    struct relay_link *l = relay;
    struct link_end *e = &link_begin(l, LINK_END)->end;
    uint32_t ms = (l->protocol == PROTOCOL_RDP ? END_DEADLINE_RDP_MS : END_DEADLINE_SSH_MS) +
                  ends_under_way(l->links) * END_SPREAD_MS;
    struct timeval deadline = {ms / 1000, ms % 1000 * 1000};

    l->is_end_sent = true;
    e->reason = (uint8_t)reason;
    e->deadline_ms = ms;
    text_copy(e->author, sizeof(e->author), author);
    text_copy(e->text, sizeof(e->text), text);
    link_say(l);
    event_add(l->timer, &deadline);
}

static void relay_policy_op(void *relay, const struct policy *policy)
{
    struct relay_link *l = relay;

    link_begin(l, LINK_POLICY)->policy.policy = *policy;
    link_say(l);
}

const struct tracker_relay_ops links_relay_ops = {relay_notice_op, relay_end_op, relay_policy_op};

/* Idle and limits re-arm live sessions; recording and channels stay as they began. */
static void keep_fixed(struct policy *fresh, const struct policy *old)
{
    fresh->record = old->record;
    fresh->record_rdp = old->record_rdp;
    fresh->input = old->input;
    fresh->on_failure = old->on_failure;
    fresh->channels = old->channels;
    fresh->max_channels = old->max_channels;
    fresh->rdp_channels = old->rdp_channels;
    memcpy(fresh->forward_to, old->forward_to, sizeof(fresh->forward_to));
    memcpy(fresh->redirect_to, old->redirect_to, sizeof(fresh->redirect_to));
}

void links_refresh_policies(struct links *all, bool is_access, const char *author)
{
    struct broker *b = all->broker;
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry) {
        struct store_target target;
        struct policy policy;
        int r;

        if (!l->session_id) {
            if (is_access && l->state == STATE_CHOOSING && !link_user_may_log_in(b, l->user))
                link_end_choosing(l, END_REVOKED, author, "access was withdrawn");
            continue;
        }
        r = link_user_may_log_in(b, l->user) ? link_resolve(l, &policy, &target) : ERR_DENIED;
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
        link_note(l, "recording-short", "less than [recording] min_free is left");
        if (l->policy.on_failure != ON_FAILURE_TERMINATE)
            return;
        tracker_recording(b->tracker, session_id, RECORDING_FAILED);
        if (tracker_end(b->tracker, session_id, END_RECORDING_FAILED, "policy",
                        "there is no room left to record", 0) < 0)
            log_warn("session %llu is not there to be ended", (unsigned long long)session_id);
        return;
    }
}
