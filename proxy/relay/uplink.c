/*
 * The relay's side of the link: HELLO, what the broker may say (one table), sending the outbox in
 * order, and adoption by a later broker. Decides nothing about the session; that is relay.c. The
 * struct events live in the relay, so that nothing is freed inside a callback.
 */
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/relay/relay_priv.h"
#include "proxy/relay/sandbox.h"

#define MESSAGES_A_TURN 32

static struct link_message out, in; /* large: untouched pages cost nothing, stack would */

struct link_message *uplink_begin(enum link_type type)
{
    out.type = (uint8_t)type;
    link_message_wipe(&out); /* only this type's part; forgets the type too */
    out.type = (uint8_t)type;
    return &out;
}

void uplink_put(struct relay *r, enum outbox_kind kind)
{
    static struct log_limit limit;
    int result = r->phase == LINK_PHASE_ENDED ? ERR_CLOSED : outbox_put(&r->outbox, &out, kind);

    if (result < 0 && log_limit_allows(&limit, 10, "link messages"))
        log_warn("%s is not said: %s", link_type_name(out.type), error_text(result));
    link_message_wipe(&out);
}

static void uplink_enter(struct relay *r, enum uplink_state state)
{
    r->uplink.state = state;
    if (state == UPLINK_UP) {
        r->alone_since_ms = 0;
        r->warned_for_ms = 0;
    } else if (!r->alone_since_ms) {
        r->alone_since_ms = clock_mono_ms();
    }
}

/* The protocol, when it may still be told something. */
static void *listener(const struct relay *r)
{
    return r->is_finishing ? NULL : r->self;
}

void uplink_close(struct relay *r)
{
    struct uplink *u = &r->uplink;
    bool was_up = u->state == UPLINK_UP;

    if (u->fd < 0)
        return;
    event_del(&u->readable);
    event_del(&u->writable);
    close(u->fd);
    u->fd = -1;
    u->is_full = false;
    uplink_enter(r, UPLINK_NONE);
    if (was_up && listener(r) && r->protocol->broker_lost)
        r->protocol->broker_lost(r->self);
}

static void lose(struct relay *r, const char *why)
{
    log_debug("the broker is gone: %s", why);
    uplink_close(r);
    if (listener(r) && r->protocol->alone)
        r->protocol->alone(r->self);
}

/* ---- what the broker says ---- */

static void keep_ticket(struct relay *r, uint16_t len, const uint8_t *data)
{
    if (len == 0)
        return;
    r->ticket.len = len;
    memcpy(r->ticket.data, data, len);
}

/* The relay of a jump need not log in: its pass was taken. */
static void take_jump(struct relay *r, const struct link_welcome *w)
{
    keep_ticket(r, w->ticket.len, w->ticket.data);
    if (!r->is_inner || r->phase != LINK_PHASE_LOGIN)
        return;
    text_copy(r->user, sizeof(r->user), w->user);
    relay_enter(r, LINK_PHASE_CHOOSING);
}

static void on_welcome(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    r->uplink.version = m->version; /* never above ours: decode refuses that */
    r->login_grace_s = m->welcome.login_grace_s;
    r->broker_lost_after_s = m->welcome.broker_lost_after_s;
    r->jump_idle_s = m->welcome.jump_idle_s;
    uplink_enter(r, UPLINK_UP);
    if (m->welcome.user[0])
        take_jump(r, &m->welcome);
    relay_start_protocol(r, &m->welcome);
}

static void on_auth_result(struct relay *r, struct link_message *m, int *fds)
{
    struct link_auth_result *a = &m->auth_result;
    bool is_offer = false;

    (void)fds;
    if (!outbox_answer(&r->outbox, LINK_AUTH_PASSWORD, 0, NULL) &&
        !outbox_answer(&r->outbox, LINK_AUTH_KEY, 0, &is_offer) &&
        !outbox_answer(&r->outbox, LINK_AUTH_KEYBOARD, 0, NULL) &&
        !outbox_answer(&r->outbox, LINK_NLA_LOGIN, 0, NULL) &&
        !outbox_answer(&r->outbox, LINK_AUTH_ANSWER, 0, NULL))
        return; /* answered by the broker before this one */
    keep_ticket(r, a->ticket.len, a->ticket.data);
    if (a->result == LINK_AUTH_OK) {
        text_copy(r->user, sizeof(r->user), a->user);
        relay_enter(r, LINK_PHASE_CHOOSING);
    } else if (a->result != LINK_AUTH_OFFER_OK && a->result != LINK_AUTH_PARTIAL && !is_offer) {
        r->attempts++;
    }
    if (listener(r))
        r->protocol->auth_result(r->self, a);
}

static void on_auth_prompt(struct relay *r, struct link_message *m, int *fds)
{
    const struct link_auth_prompt *p = &m->auth_prompt;

    (void)fds;
    if (!outbox_answer(&r->outbox, LINK_AUTH_KEYBOARD, 0, NULL) &&
        !outbox_answer(&r->outbox, LINK_AUTH_ANSWER, 0, NULL))
        return;
    if (p->more_s)
        r->login_by_ms = clock_mono_ms() + (int64_t)p->more_s * 1000;
    if (listener(r) && r->protocol->auth_prompt)
        r->protocol->auth_prompt(r->self, p);
}

static void on_nla_choice(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (outbox_answer(&r->outbox, LINK_NLA_ASK, 0, NULL) && listener(r) && r->protocol->nla_choice)
        r->protocol->nla_choice(r->self, (enum link_nla)m->nla_choice.nla);
}

/* Not the answer yet: that is AUTH_RESULT. */
static void on_nla_begun(struct relay *r, struct link_message *m, int *fds)
{
    int flags = fds[0] < 0 ? -1 : fcntl(fds[0], F_GETFL);

    (void)m;
    if (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0 || !listener(r) ||
        !r->protocol->nla_begun)
        return;
    r->protocol->nla_begun(r->self, fds[0]);
    fds[0] = -1;
}

/* The page and the target's socket, or -1 when the answer cannot be used. */
static int take_route(struct relay *r, const struct link_route_result *route, int *fds)
{
    int target_fd = fds[0];
    int flags = target_fd < 0 ? -1 : fcntl(target_fd, F_GETFL);

    if (flags < 0 || fcntl(target_fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return -1;
    r->page = fds[1] < 0 ? NULL : activity_map(fds[1]);
    if (!r->page)
        return -1;
    r->page_fd = fds[1];
    fds[0] = fds[1] = -1;
    r->session_id = route->session_id;
    r->policy = route->policy;
    log_set_prefix("%s #%" PRIu64 " %s>%s", r->protocol->name, r->session_id, r->user,
                   route->target);
    relay_enter(r, LINK_PHASE_SESSION);
    return target_fd;
}

/* Told before ROUTE_RESULT, which is the answer. */
static void on_hop(struct relay *r, struct link_message *m, int *fds)
{
    if (!listener(r) || !r->protocol->hop || m->hop.number == 0 || fds[0] < 0 || fds[1] < 0)
        return;
    r->protocol->hop(r->self, &m->hop, fds);
    fds[0] = fds[1] = -1;
}

static void on_route_result(struct relay *r, struct link_message *m, int *fds)
{
    struct link_route_result *route = &m->route_result;
    int target_fd = -1;

    if (!outbox_answer(&r->outbox, LINK_ROUTE, 0, NULL))
        return;
    keep_ticket(r, route->ticket.len, route->ticket.data);
    if (route->is_ok) {
        target_fd = take_route(r, route, fds);
        if (target_fd < 0) {
            log_error("ROUTE_RESULT came without a usable socket and page");
            relay_finish(r, END_RELAY_CRASHED, "relay", "the session could not be set up");
            return;
        }
    }
    if (listener(r))
        r->protocol->routed(r->self, route, target_fd);
    else if (target_fd >= 0)
        close(target_fd);
}

static void on_redirected(struct relay *r, struct link_message *m, int *fds)
{
    struct link_redirected *result = &m->redirected;
    int flags = fds[0] < 0 ? -1 : fcntl(fds[0], F_GETFL);

    if (!outbox_answer(&r->outbox, LINK_REDIRECT, 0, NULL) || !listener(r) ||
        !r->protocol->redirected)
        return;
    if (result->is_ok && (flags < 0 || fcntl(fds[0], F_SETFL, flags | O_NONBLOCK) < 0)) {
        result->is_ok = 0;
        text_copy(result->text, sizeof(result->text), "the new connection cannot be used");
    }
    r->protocol->redirected(r->self, result, result->is_ok ? fds[0] : -1);
    if (result->is_ok)
        fds[0] = -1;
}

static void forget_rows(struct relay *r)
{
    free(r->rows);
    r->rows = NULL;
    r->row_count = r->rows_wanted = r->rows_total = 0;
}

static void give_rows(struct relay *r)
{
    if (r->row_count < r->rows_wanted || !outbox_answer(&r->outbox, LINK_TARGETS, 0, NULL))
        return;
    if (listener(r))
        r->protocol->targets(r->self, r->rows, r->row_count, r->rows_total);
    forget_rows(r);
}

static void on_target_list(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    forget_rows(r);
    r->rows = calloc(m->target_list.count + 1, sizeof(*r->rows));
    if (!r->rows) {
        relay_finish(r, END_RELAY_CRASHED, "relay", "out of memory");
        return;
    }
    r->rows_wanted = m->target_list.count;
    r->rows_total = m->target_list.total;
    give_rows(r);
}

static void on_target_row(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (r->row_count >= r->rows_wanted)
        return;
    r->rows[r->row_count++] = m->target_row;
    give_rows(r);
}

static void on_host_key_result(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (outbox_answer(&r->outbox, LINK_HOST_KEY, 0, NULL) && listener(r))
        r->protocol->host_key_result(r->self, m->host_key_result.is_ok, m->host_key_result.text);
}

static void on_recording(struct relay *r, struct link_message *m, int *fds)
{
    struct link_recording *answer = &m->recording;
    int fd = -1;

    if (!outbox_answer(&r->outbox, LINK_RECORD_OPEN, answer->channel, NULL))
        return;
    if (answer->verdict == LINK_RECORD_YES && fds[0] >= 0) {
        fd = sandbox_reserve_recording_fd(fds[0]);
        fds[0] = -1;
    }
    if (answer->verdict == LINK_RECORD_YES && fd < 0) {
        answer->verdict = LINK_RECORD_REFUSED;
        text_copy(answer->text, sizeof(answer->text), "too many recordings are open");
    }
    if (listener(r))
        r->protocol->recording(r->self, answer, fd);
    else if (fd >= 0)
        close(fd);
}

static void on_jump_result(struct relay *r, struct link_message *m, int *fds)
{
    struct link_jump_result *result = &m->jump_result;

    if (!outbox_answer(&r->outbox, LINK_JUMP, result->channel, NULL))
        return;
    if (fds[0] < 0)
        result->is_ok = 0;
    if (!listener(r) || !r->protocol->jumped)
        return;
    if (result->is_ok) {
        r->jump_count++;
        r->has_jumped = true;
    }
    r->protocol->jumped(r->self, result, result->is_ok ? fds[0] : -1);
    if (result->is_ok)
        fds[0] = -1;
}

static void on_door_result(struct relay *r, struct link_message *m, int *fds)
{
    struct link_door_result *result = &m->door_result;
    const int none[3] = {-1, -1, -1};

    if (!outbox_answer(&r->outbox, LINK_DOOR, result->channel, NULL))
        return; /* closed meanwhile */
    if (result->is_ok && fds[0] < 0) {
        result->is_ok = 0;
        result->exit_status = 1;
        text_copy(result->text, sizeof(result->text), "sallyport: the command was not started");
    }
    if (!listener(r) || !r->protocol->door_result)
        return;
    r->protocol->door_result(r->self, result, result->is_ok ? fds : none);
    if (result->is_ok)
        fds[0] = fds[1] = fds[2] = -1;
}

static void on_door_exit(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (listener(r) && r->protocol->door_exit)
        r->protocol->door_exit(r->self, &m->door_exit);
}

static void on_back_result(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (!outbox_answer(&r->outbox, LINK_BACK, 0, NULL))
        return;
    keep_ticket(r, m->back_result.ticket.len, m->back_result.ticket.data);
    relay_forget_session(r);
    if (listener(r) && r->protocol->back)
        r->protocol->back(r->self);
}

static void on_notice(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (listener(r) && !r->is_ending)
        r->protocol->notice(r->self, (enum link_notice)m->notice.kind, m->notice.text);
}

static void on_watch(struct relay *r, struct link_message *m, int *fds)
{
    int fd = fds[0];

    fds[0] = -1;
    if (fd < 0)
        return;
    if (listener(r) && r->protocol->watch && !r->is_ending)
        r->protocol->watch(r->self, &m->watch, fd);
    else
        close(fd); /* an end of file is an answer too */
}

static void on_watch_end(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    if (listener(r) && r->protocol->watch_end)
        r->protocol->watch_end(r->self, m->watch_end.watch);
}

static void on_policy(struct relay *r, struct link_message *m, int *fds)
{
    (void)fds;
    r->policy = m->policy.policy;
}

static void on_end(struct relay *r, struct link_message *m, int *fds)
{
    const struct link_end *e = &m->end;

    (void)fds;
    relay_end(r, (enum end_reason)e->reason, e->author, e->text, e->deadline_ms);
}

static void on_closed_ack(struct relay *r, struct link_message *m, int *fds)
{
    (void)m, (void)fds;
    if (outbox_answer(&r->outbox, LINK_CLOSED, 0, NULL))
        r->is_over = true;
}

static const struct {
    enum link_type type;
    void (*run)(struct relay *r, struct link_message *m, int *fds);
} handlers[] = {
    {LINK_WELCOME, on_welcome},
    {LINK_AUTH_RESULT, on_auth_result},
    {LINK_HOP, on_hop},
    {LINK_AUTH_PROMPT, on_auth_prompt},
    {LINK_NLA_CHOICE, on_nla_choice},
    {LINK_NLA_BEGUN, on_nla_begun},
    {LINK_ROUTE_RESULT, on_route_result},
    {LINK_REDIRECTED, on_redirected},
    {LINK_TARGET_LIST, on_target_list},
    {LINK_TARGET_ROW, on_target_row},
    {LINK_HOST_KEY_RESULT, on_host_key_result},
    {LINK_RECORDING, on_recording},
    {LINK_JUMP_RESULT, on_jump_result},
    {LINK_DOOR_RESULT, on_door_result},
    {LINK_DOOR_EXIT, on_door_exit},
    {LINK_BACK_RESULT, on_back_result},
    {LINK_NOTICE, on_notice},
    {LINK_POLICY, on_policy},
    {LINK_WATCH, on_watch},
    {LINK_WATCH_END, on_watch_end},
    {LINK_END, on_end},
    {LINK_CLOSED_ACK, on_closed_ack},
};

static bool dispatch(struct relay *r, struct link_message *m, int *fds)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        if (handlers[i].type != m->type)
            continue;
        handlers[i].run(r, m, fds);
        return true;
    }
    return false;
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;
    int fds[LINK_FDS_MAX];

    (void)what;
    for (int i = 0; i < MESSAGES_A_TURN && r->uplink.fd == fd && !r->is_over; i++) {
        int result = link_receive(fd, &in, fds);
        bool is_known;

        if (result == ERR_AGAIN)
            return;
        if (result < 0) {
            lose(r, error_text(result));
            return;
        }
        is_known = dispatch(r, &in, fds);
        link_message_wipe(&in); /* secrets, tickets */
        link_close_fds(fds);
        if (!is_known) {
            log_warn("the broker said what only others say");
            lose(r, "wrong message");
        }
    }
}

/* ---- what we say ---- */

static void writable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;

    (void)fd, (void)what;
    r->uplink.is_full = false; /* uplink_flush() runs at the end of this turn */
}

static int say_hello(struct relay *r)
{
    struct link_message *m = uplink_begin(LINK_HELLO);
    struct link_hello *h = &m->hello;
    int result;

    h->protocol = (uint8_t)r->protocol->protocol;
    h->phase = (uint8_t)r->phase;
    h->pid = (uint32_t)getpid();
    text_copy(h->client_address, sizeof(h->client_address), r->client_address);
    h->client_port = r->client_port;
    text_copy(h->device, sizeof(h->device), r->device);
    text_copy(h->user, sizeof(h->user), r->user);
    h->attempts = r->attempts;
    h->session_id = r->session_id;
    h->ticket.len = r->ticket.len;
    memcpy(h->ticket.data, r->ticket.data, r->ticket.len);
    result = link_send(r->uplink.fd, m, LINK_VERSION, &r->page_fd, r->session_id ? 1 : 0);
    link_message_wipe(m);
    return result;
}

void uplink_init(struct relay *r)
{
    r->uplink.fd = -1;
    uplink_enter(r, UPLINK_NONE);
}

void uplink_use(struct relay *r, int fd)
{
    struct uplink *u = &r->uplink;
    int result;

    uplink_close(r);
    forget_rows(r); /* TARGETS is asked again */
    u->fd = fd;
    u->version = LINK_VERSION;
    event_assign(&u->readable, r->base, fd, EV_READ | EV_PERSIST, readable_cb, r);
    event_assign(&u->writable, r->base, fd, EV_WRITE, writable_cb, r);
    if (event_add(&u->readable, NULL) < 0) {
        lose(r, "out of memory");
        return;
    }
    outbox_rewind(&r->outbox);
    result = say_hello(r);
    if (result < 0)
        lose(r, error_text(result));
    else
        uplink_enter(r, UPLINK_HELLO);
}

/* An older broker would take these for nonsense; what they tell is lost to it. */
static bool is_beyond(const struct relay *r, const struct outbox_item *item)
{
    if (r->uplink.version < LINK_REDIRECT_SINCE &&
        (item->type == LINK_REDIRECT || item->type == LINK_RECONNECT))
        return true;
    if (r->uplink.version >= 3)
        return false;
    return item->type == LINK_FILES || item->type == LINK_WATCH_CLOSED ||
           (out.type == LINK_CHANNEL && out.channel.kind > CHANNEL_SUBSYSTEM);
}

static int send_item(struct relay *r, const struct outbox_item *item)
{
    int result = link_decode(&out, item->data, item->len);

    if (result == 0 && !is_beyond(r, item))
        result = link_send(r->uplink.fd, &out, r->uplink.version, NULL, 0);
    link_message_wipe(&out);
    return result;
}

/* When there is room again, so that this line costs no other. */
static bool confess_losses(struct relay *r)
{
    uint64_t lost = r->phase == LINK_PHASE_ENDED ? 0 : outbox_take_lost(&r->outbox);
    struct link_event *e;

    if (!lost)
        return false;
    e = &uplink_begin(LINK_EVENT)->event;
    text_copy(e->kind, sizeof(e->kind), "events-lost");
    snprintf(e->text, sizeof(e->text), "%" PRIu64 " events were dropped while no broker was there",
             lost);
    uplink_put(r, OUTBOX_EVENT);
    return true;
}

/* False when the link takes no more now. */
static bool say_next(struct relay *r, struct outbox_item *item)
{
    int result = send_item(r, item);

    switch (result) {
    case ERR_AGAIN:
        r->uplink.is_full = event_add(&r->uplink.writable, NULL) == 0;
        return false;
    case ERR_CLOSED:
    case ERR_SYSTEM:
        lose(r, error_text(result));
        return false;
    case ERR_MEMORY:
        relay_finish(r, END_RELAY_CRASHED, "relay", "out of memory");
        return false;
    default:
        if (result < 0)
            log_error("%s cannot be said: %s", link_type_name(item->type), error_text(result));
        outbox_sent(&r->outbox, item);
        return true;
    }
}

void uplink_flush(struct relay *r)
{
    struct outbox_item *item;

    if (r->uplink.state != UPLINK_UP || r->uplink.is_full)
        return;
    do {
        while ((item = outbox_next(&r->outbox)))
            if (!say_next(r, item))
                return;
    } while (confess_losses(r));
}

/* ---- adoption ---- */

void uplink_accept(struct relay *r)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);
    int fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 || cred.uid != r->broker_uid) {
        log_warn("uid %u is not the broker and may not adopt this relay", cred.uid);
        close(fd);
        return;
    }
    log_debug("adopted by the broker with pid %d", (int)cred.pid);
    uplink_use(r, fd);
}
