/*
 * From server to server; way.h. A carrier is a server in front of the target: its leg, the channel
 * that it was asked for, and our end of the pair of sockets whose other end is the next leg's.
 * Bytes between the two are passed on within libssh's windows, as pump.c does it. Steps of a turn.
 */
#include "proxy/ssh/way.h"

#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#define IN_LEN     131072u
#define OUT_LEN    (4u * 32758u)   /* whole packets for a peer that takes 32 KiB */
#define HELD_MAX   (2u * 1280000u) /* twice the window that libssh offers */
#define ROUNDS_MAX 8
#define OPEN_MS    30000

struct carrier {
    struct way *way; /* not owned */
    struct leg leg;
    ssh_channel channel; /* NULL until it is open, and after the leg is gone */
    struct ssh_channel_callbacks_struct callbacks;
    int near_fd, far_fd; /* far_fd is the next leg's from way_step() on: -1 */
    struct event *readable, *writable;
    uint8_t *data; /* from the channel, on its way to near_fd */
    uint32_t start, len, cap;
    uint32_t held; /* what libssh keeps, because data is full */
    uint8_t *out;  /* from near_fd: what the channel did not take yet, while its keys change */
    uint32_t out_start, out_len;
    bool is_blocked, got_eof, is_over;
    int64_t open_by_ms; /* 0: not asked yet */
};

struct way {
    struct event_base *base; /* not owned */
    const struct hop_ops *ops;
    void *arg;
    void (*wake)(void *arg);
    void *wake_arg;
    way_trace_fn trace;
    struct hop hops[LINK_HOPS_MAX + 1]; /* the last is the target */
    struct carrier carriers[LINK_HOPS_MAX];
    size_t count; /* of carriers */
    size_t at;    /* in hops */
    bool has_begun, is_there;
    char text[HOP_TEXT_MAX];
};

/* ---- callbacks: note and return ---- */

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct carrier *c = arg;

    (void)fd;
    if (what & EV_WRITE)
        c->is_blocked = false;
    c->way->wake(c->way->wake_arg);
}

static int on_data(ssh_session ssh, ssh_channel channel, void *data, uint32_t len, int is_stderr,
                   void *arg)
{
    struct carrier *c = arg;
    uint32_t room = c->cap - c->start - c->len, n = len < room ? len : room;

    (void)ssh, (void)channel;
    if (is_stderr)
        return (int)len; /* means nothing here */
    memcpy(c->data + c->start + c->len, data, n);
    c->len += n;
    c->held = len - n;
    return (int)n;
}

static void on_end(ssh_session ssh, ssh_channel channel, void *arg)
{
    struct carrier *c = arg;

    (void)ssh, (void)channel;
    c->got_eof = true;
}

/* ---- bytes ---- */

/* Everything that libssh holds at once: refill() of pump.c says why. */
static void refill(struct carrier *c)
{
    uint32_t n = c->held;
    uint8_t *data;
    int got;

    if (n == 0 || c->len > 0 || !c->channel)
        return;
    if (n > c->cap) {
        if (!(data = realloc(c->data, n)))
            return;
        c->data = data;
        c->cap = n;
    }
    got = ssh_channel_read_timeout(c->channel, c->data, n, 0, 0);
    c->start = 0;
    c->len = got > 0 ? (uint32_t)got : 0;
    c->held = 0;
}

/* The next leg sees the end of its connection. */
static void hang_up(struct carrier *c)
{
    if (c->near_fd < 0)
        return;
    event_del(c->readable);
    event_del(c->writable);
    close(c->near_fd);
    c->near_fd = -1;
    c->is_over = true;
}

/* From the server to the next leg. */
static void pump_in(struct carrier *c)
{
    ssize_t n = 0;

    if (c->held > HELD_MAX || (leg_is_alive(&c->leg) && libssh_has_lost_bytes(c->leg.ssh))) {
        log_warn("a server on the way does not keep to its window");
        hang_up(c);
        return;
    }
    refill(c);
    while (c->len > 0 && c->near_fd >= 0 && !c->is_blocked) {
        n = sendto(c->near_fd, c->data + c->start, c->len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            c->is_blocked = event_add(c->writable, NULL) == 0;
            return;
        }
        if (n <= 0) {
            hang_up(c);
            return;
        }
        c->start += (uint32_t)n;
        c->len -= (uint32_t)n;
        if (c->len == 0) {
            c->start = 0;
            refill(c);
        }
    }
    if (c->len == 0 && c->held == 0 && (c->got_eof || !leg_is_alive(&c->leg)))
        hang_up(c);
}

static uint32_t room_at(const struct carrier *c)
{
    uint32_t window = ssh_channel_window_size(c->channel), room = leg_room(&c->leg);

    return window < room ? window : room;
}

/* False when the channel takes no more now. */
static bool flush_out(struct carrier *c)
{
    while (c->out_len > 0) {
        uint32_t room = room_at(c), len = c->out_len < room ? c->out_len : room;
        int n = len > 0 ? ssh_channel_write(c->channel, c->out + c->out_start, len) : 0;

        if (n <= 0)
            return false;
        c->leg.unsent += (uint32_t)n;
        c->out_start += (uint32_t)n;
        c->out_len -= (uint32_t)n;
    }
    c->out_start = 0;
    return true;
}

/* From the next leg to the server: what does not fit stays in the socket. */
static void pump_out(struct carrier *c)
{
    for (int i = 0; i < ROUNDS_MAX && c->channel && c->near_fd >= 0; i++) {
        uint32_t room;
        ssize_t n;

        if (!flush_out(c) || (room = room_at(c)) == 0) {
            event_del(c->readable); /* a window, room or new keys wake us by the leg */
            return;
        }
        n = recvfrom(c->near_fd, c->out, room < OUT_LEN ? room : OUT_LEN, MSG_DONTWAIT, NULL, NULL);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            break;
        if (n <= 0) {
            (void)ssh_channel_send_eof(c->channel);
            hang_up(c);
            return;
        }
        c->out_len = (uint32_t)n;
    }
    if (c->near_fd < 0)
        return;
    if (c->channel && !flush_out(c)) /* of the last round: an empty socket would not say so */
        event_del(c->readable);
    else
        (void)event_add(c->readable, NULL);
}

/* ---- carriers ---- */

static int carrier_init(struct carrier *c, struct way *w, const int fds[2])
{
    *c = (struct carrier){.way = w, .near_fd = fds[0], .far_fd = fds[1], .cap = IN_LEN};
    c->leg.state = LEG_CLOSED;
    c->data = malloc(IN_LEN);
    c->out = malloc(OUT_LEN);
    c->readable = event_new(w->base, c->near_fd, EV_READ | EV_PERSIST, on_ready, c);
    c->writable = event_new(w->base, c->near_fd, EV_WRITE, on_ready, c);
    return c->data && c->out && c->readable && c->writable ? 0 : ERR_MEMORY;
}

/* libssh frees the channel with its session. */
static void drop_channel(struct carrier *c)
{
    if (c->channel)
        (void)ssh_remove_channel_callbacks(c->channel, &c->callbacks);
    c->channel = NULL;
}

static void carrier_finish(struct carrier *c)
{
    if (c->readable)
        event_free(c->readable);
    if (c->writable)
        event_free(c->writable);
    drop_channel(c);
    leg_close(&c->leg);
    if (c->near_fd >= 0)
        close(c->near_fd);
    if (c->far_fd >= 0)
        close(c->far_fd);
    free(c->data);
    free(c->out);
}

/* ---- making it ---- */

struct way *way_create(struct event_base *base, const struct hop_ops *ops, void *arg,
                       void (*wake)(void *), void *wake_arg)
{
    struct way *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->base = base;
    w->ops = ops;
    w->arg = arg;
    w->wake = wake;
    w->wake_arg = wake_arg;
    return w;
}

int way_add(struct way *w, const struct link_hop *told, const int fds[2])
{
    struct carrier *c = &w->carriers[w->count];
    int r = w->count < LINK_HOPS_MAX && !w->has_begun ? 0 : ERR_FULL;

    if (r < 0) {
        close(fds[0]);
        close(fds[1]);
        return r;
    }
    r = carrier_init(c, w, fds);
    if (r == 0)
        r = hop_init(&w->hops[w->count], told, &c->leg, w->ops, w->arg);
    if (r < 0)
        carrier_finish(c);
    else
        w->count++;
    return r;
}

int way_begin(struct way *w, const struct link_hop *target, struct leg *leg, int fd, int64_t now_ms)
{
    int r = hop_init(&w->hops[w->count], target, leg, w->ops, w->arg);

    if (r < 0) {
        close(fd);
        return r;
    }
    w->has_begun = true;
    hop_begin(&w->hops[0], fd, w->base, w->wake, w->wake_arg, now_ms);
    return 0;
}

void way_trace(struct way *w, way_trace_fn trace)
{
    w->trace = trace;
}

/* ---- stepping ---- */

static struct hop *target_of(struct way *w)
{
    return &w->hops[w->count];
}

/* The sentence for who wanted the target, and may never have heard of the server in between. */
static enum way_state failed(struct way *w)
{
    const struct hop *h = &w->hops[w->at];

    if (w->text[0])
        return WAY_FAILED;
    if (w->at < w->count)
        snprintf(w->text, sizeof(w->text), "%.64s cannot be reached through %.64s: %.340s",
                 target_of(w)->name, h->name, h->text);
    else
        text_copy(w->text, sizeof(w->text), h->text);
    return WAY_FAILED;
}

/* "Channel opening failure: channel 43 error (2) Connection refused": what the server said. */
static void fail_open(struct way *w, struct hop *h)
{
    const char *error = ssh_get_error(w->carriers[w->at].leg.ssh);
    const char *said = error ? strstr(error, ") ") : NULL;
    char reason[160];

    said = said && said[2] ? said + 2 : "it does not forward connections";
    text_escape(reason, sizeof(reason), said, strlen(said));
    hop_fail(h, "%s does not get through to %s: %s", h->name, w->hops[w->at + 1].address, reason);
}

static bool split_address(const char *address, char *host, size_t host_len, int *port)
{
    const char *colon = strrchr(address, ':');
    size_t len = colon ? (size_t)(colon - address) : 0;
    uint64_t number;

    if (len >= 2 && address[0] == '[' && address[len - 1] == ']') {
        address++;
        len -= 2;
    }
    if (len == 0 || len >= host_len || !text_parse_u64(colon + 1, &number) || number > 65535)
        return false;
    memcpy(host, address, len);
    host[len] = '\0';
    *port = (int)number;
    return true;
}

/* Before it is open: a server that speaks first does so right behind the answer. */
static bool make_channel(struct carrier *c)
{
    c->channel = ssh_channel_new(c->leg.ssh);
    if (!c->channel)
        return false;
    c->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = c,
        .channel_data_function = on_data,
        .channel_eof_function = on_end,
        .channel_close_function = on_end,
    };
    ssh_callbacks_init(&c->callbacks);
    (void)ssh_set_channel_callbacks(c->channel, &c->callbacks);
    return true;
}

/* Logged in at a server in front: ask it for the way on. True when the next may begin. */
static bool open_way_on(struct way *w, int64_t now_ms)
{
    struct carrier *c = &w->carriers[w->at];
    struct hop *h = &w->hops[w->at];
    char host[SESSION_ADDRESS_MAX];
    int port = 0, rc = SSH_ERROR;

    if (c->open_by_ms == 0) {
        c->open_by_ms = now_ms + OPEN_MS;
        if (!make_channel(c)) {
            hop_fail(h, "out of memory");
            return false;
        }
    }
    if (leg_is_alive(&c->leg) &&
        split_address(w->hops[w->at + 1].address, host, sizeof(host), &port))
        rc = ssh_channel_open_forward(c->channel, host, port, "127.0.0.1", 0);
    if (rc == SSH_AGAIN && now_ms < c->open_by_ms)
        return false;
    if (rc == SSH_OK) {
        (void)event_add(c->readable, NULL);
        return true;
    }
    if (rc == SSH_AGAIN)
        hop_fail(h, "%s does not get through to %s in time", h->name, w->hops[w->at + 1].address);
    else
        fail_open(w, h);
    return false;
}

static void begin_next(struct way *w, int64_t now_ms)
{
    int fd = w->carriers[w->at].far_fd;

    w->carriers[w->at].far_fd = -1;
    w->at++;
    hop_begin(&w->hops[w->at], fd, w->base, w->wake, w->wake_arg, now_ms);
}

/* A server behind which something is being logged in to is gone. */
static bool has_lost(struct way *w)
{
    for (size_t i = 0; i < w->at && i < w->count; i++) {
        if (leg_is_alive(&w->carriers[i].leg))
            continue;
        w->at = i;
        w->hops[i].step = HOP_IN;
        hop_fail(&w->hops[i], "%s closed the connection", w->hops[i].name);
        return true;
    }
    return false;
}

enum way_state way_step(struct way *w, int64_t now_ms)
{
    for (size_t i = 0; i <= w->count; i++) {
        struct hop *h = &w->hops[w->at];
        enum hop_step before = h->step;

        if (w->is_there)
            return WAY_IS_THERE;
        if (h->step == HOP_FAILED || has_lost(w))
            return failed(w);
        hop_step(h, now_ms);
        if (w->trace && h->step != before)
            w->trace(w->arg, h, before);
        if (h->step == HOP_FAILED)
            return failed(w);
        if (h->step != HOP_IN)
            return WAY_GOES;
        if (w->at == w->count) {
            w->is_there = true;
            return WAY_IS_THERE;
        }
        if (open_way_on(w, now_ms))
            begin_next(w, now_ms);
        else
            return h->step == HOP_FAILED ? failed(w) : WAY_GOES;
    }
    return WAY_GOES;
}

void way_drive(struct way *w)
{
    for (size_t i = 0; i < w->count; i++) {
        struct carrier *c = &w->carriers[i];

        if (c->leg.state == LEG_CLOSED)
            return;
        leg_drive(&c->leg);
        if (c->leg.state == LEG_DEAD)
            c->held = 0; /* went with the connection */
        pump_in(c);
        leg_settle(&c->leg);
    }
}

void way_settle(struct way *w)
{
    for (size_t i = w->count; i-- > 0;) {
        struct carrier *c = &w->carriers[i];

        if (c->leg.state == LEG_CLOSED)
            continue;
        if (c->leg.state == LEG_UP)
            pump_out(c);
        else if (c->near_fd >= 0)
            event_del(c->readable); /* nobody takes it */
        leg_settle(&c->leg);
    }
}

/* ---- looking ---- */

const char *way_text(const struct way *w)
{
    return w->text;
}

const char *way_lost(const struct way *w)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->carriers[i].leg.state == LEG_DEAD)
            return w->hops[i].name;
    }
    return NULL;
}

int64_t way_deadline_ms(const struct way *w)
{
    int64_t deadline = w->hops[w->at].deadline_ms;

    return w->at < w->count && w->carriers[w->at].open_by_ms ? w->carriers[w->at].open_by_ms
                                                             : deadline;
}

struct hop *way_hop(struct way *w, uint8_t number)
{
    for (size_t i = 0; w->has_begun && i <= w->count; i++) {
        if (w->hops[i].number == number)
            return &w->hops[i];
    }
    return NULL;
}

struct hop *way_at(struct way *w)
{
    return &w->hops[w->at];
}

size_t way_hop_count(const struct way *w)
{
    return w->count;
}

/* ---- the end ---- */

void way_forget(struct way *w)
{
    for (size_t i = 0; i <= w->count; i++)
        hop_forget(&w->hops[i]);
}

void way_disconnect(struct way *w)
{
    way_settle(w); /* the last words of those behind */
    for (size_t i = w->count; i-- > 0;) {
        drop_channel(&w->carriers[i]);
        hang_up(&w->carriers[i]); /* the one behind has said its words */
        leg_disconnect(&w->carriers[i].leg, "session ended");
        if (i > 0)
            way_settle(w);
    }
}

void way_destroy(struct way *w)
{
    if (!w)
        return;
    way_forget(w);
    for (size_t i = w->count; i-- > 0;)
        carrier_finish(&w->carriers[i]);
    free(w);
}
