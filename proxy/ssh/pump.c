/*
 * Bytes between the two halves of a channel. libssh's data callback copies into a bounded spool and
 * leaves the rest with libssh, whose window then stays shut: that is the back pressure. A turn
 * writes from the spool to the other half, as much as its window and the output budget take, in
 * whole packets while more is coming. Called from a turn only; the callbacks here only note.
 */
#include "proxy/ssh/session.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "proxy/ssh/watch.h"

#define PACKET      32758u /* what libssh puts into one packet for a peer that takes 32 KiB */
#define SPOOL_FIRST 4096u

/* ---- spools ---- */

static bool spool_reserve(struct spool *s, uint32_t len)
{
    uint32_t cap = s->cap > 0 ? s->cap : SPOOL_FIRST;
    uint8_t *data;

    if (s->start > 0 && s->cap - s->start - s->len < len) {
        memmove(s->data, s->data + s->start, s->len);
        s->start = 0;
    }
    if (s->cap - s->start - s->len >= len && s->data)
        return true;
    while (cap < s->len + len)
        cap *= 2;
    if (!(data = realloc(s->data, cap)))
        return false;
    s->data = data;
    s->cap = cap;
    return true;
}

/* Take at most len bytes; returns how many. */
static uint32_t spool_put(struct spool *s, const void *data, uint32_t len)
{
    uint32_t room = s->len < SPOOL_MAX ? SPOOL_MAX - s->len : 0;
    uint32_t n = len < room ? len : room;

    if (n == 0 || !spool_reserve(s, n))
        return 0;
    memcpy(s->data + s->start + s->len, data, n);
    s->len += n;
    return n;
}

static void spool_drop(struct spool *s, uint32_t n)
{
    s->len -= n;
    s->start = s->len > 0 ? s->start + n : 0;
}

void spool_finish(struct spool *s)
{
    free(s->data);
    *s = (struct spool){0};
}

void pump_relax(struct channel *c)
{
    struct half *halves[] = {&c->user, &c->target};

    for (size_t i = 0; i < 4; i++) {
        struct spool *s = &halves[i / 2]->in[i % 2];

        if (s->len == 0 && s->cap > 0)
            spool_finish(s);
    }
}

/* ---- callbacks: note and return ---- */

static int on_data(ssh_session ssh, ssh_channel ch, void *data, uint32_t len, int is_stderr,
                   void *arg)
{
    struct half *h = arg;
    uint32_t taken = spool_put(&h->in[is_stderr ? 1 : 0], data, len);

    (void)ssh;
    (void)ch;
    h->held[is_stderr ? 1 : 0] = len - taken;
    return (int)taken;
}

static void on_eof(ssh_session ssh, ssh_channel ch, void *arg)
{
    struct half *h = arg;

    (void)ssh;
    (void)ch;
    h->got_eof = true;
}

static void on_close(ssh_session ssh, ssh_channel ch, void *arg)
{
    struct half *h = arg;

    (void)ssh;
    (void)ch;
    h->got_eof = true;
    h->got_close = true;
}

static void on_signal(ssh_session ssh, ssh_channel ch, const char *name, void *arg)
{
    struct half *h = arg;

    (void)ssh;
    (void)ch;
    if (h == &h->channel->user && name)
        request_add_signal(h->channel, name);
}

static void on_agent_request(ssh_session ssh, ssh_channel ch, void *arg)
{
    struct half *h = arg;

    (void)ssh;
    (void)ch;
    h->channel->session->has_agent = true;
    request_add_agent(h->channel);
}

static void on_exit_status(ssh_session ssh, ssh_channel ch, int status, void *arg)
{
    struct half *h = arg;

    (void)ssh;
    (void)ch;
    if (h != &h->channel->target)
        return;
    h->channel->has_status = true;
    h->channel->exit_status = (uint32_t)status;
}

static void on_exit_signal(ssh_session ssh, ssh_channel ch, const char *name, int core,
                           const char *text, const char *language, void *arg)
{
    struct half *h = arg;
    struct channel *c = h->channel;

    (void)ssh;
    (void)ch;
    (void)language;
    if (h != &c->target)
        return;
    c->has_signal = true;
    c->exit_core = core != 0;
    text_copy(c->exit_signal, sizeof(c->exit_signal), name ? name : "");
    text_copy(c->exit_text, sizeof(c->exit_text), text ? text : "");
}

/* libssh answers for itself, with yes where a callback is: so there is none where the policy says
 * no.
 */
static bool takes_agent_requests(const struct half *h)
{
    const struct channel *c = h->channel;

    if (h != &c->user || c->forward)
        return false;
    return c->session->phase != PHASE_RELAYING ||
           refuse_is_allowed(c->session, POLICY_CHANNEL_AGENT);
}

void pump_attach(struct half *h)
{
    h->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = h,
        .channel_data_function = on_data,
        .channel_eof_function = on_eof,
        .channel_close_function = on_close,
        .channel_signal_function = on_signal,
        .channel_exit_status_function = on_exit_status,
        .channel_exit_signal_function = on_exit_signal,
    };
    if (takes_agent_requests(h))
        h->callbacks.channel_auth_agent_req_function = on_agent_request;
    ssh_callbacks_init(&h->callbacks);
    (void)ssh_set_channel_callbacks(h->ssh, &h->callbacks);
}

/* ---- a turn's work ---- */

bool pump_is_empty(const struct half *h)
{
    return h->in[0].len == 0 && h->in[1].len == 0 && h->held[0] == 0 && h->held[1] == 0;
}

/* Fetch what libssh kept; its callback is not called again for it. All of it at once: every read
 * opens the window anew, however much libssh still holds, so that reading in portions would let the
 * peer send faster than we pass on. So a stream holds at most two windows. */
void pump_refill(struct half *h, int stream)
{
    struct spool *s = &h->in[stream];
    uint32_t n = h->held[stream];
    int got;

    if (n == 0 || s->len > 0)
        return;
    if (!h->ssh || !leg_is_alive(h->leg)) {
        h->held[stream] = 0; /* went with the connection */
        return;
    }
    if (!spool_reserve(s, n))
        return;
    got = ssh_channel_read_timeout(h->ssh, s->data, n, stream, 0);
    s->start = 0;
    s->len = got > 0 ? (uint32_t)got : 0;
    h->held[stream] = 0;
}

static bool can_write(const struct half *h)
{
    return h->ssh && !h->sent_eof && h->leg->state == LEG_UP && ssh_channel_is_open(h->ssh);
}

static uint32_t room_at(const struct half *h)
{
    uint32_t window = ssh_channel_window_size(h->ssh), room = leg_room(h->leg);

    return window < room ? window : room;
}

/* Write to a half; returns the bytes that it took (0 while its side changes keys). */
static uint32_t write_some(struct half *to, const void *data, uint32_t len, int stream)
{
    uint32_t room = room_at(to);
    int n;

    len = len < room ? len : room;
    if (len == 0)
        return 0;
    n = stream ? ssh_channel_write_stderr(to->ssh, data, len)
               : ssh_channel_write(to->ssh, data, len);
    if (n <= 0)
        return 0;
    to->leg->unsent += (uint32_t)n;
    return (uint32_t)n;
}

static bool counts_as_activity(const struct channel *c, bool is_input)
{
    uint64_t counts = relay_policy(c->session->relay)->counts;

    return is_input || counts == COUNTS_TRAFFIC || (counts == COUNTS_AUTO && !c->has_pty);
}

/* What was passed on is counted, recorded and, on a terminal, followed. */
static void account(struct channel *c, bool is_input, const void *data, uint32_t len, int stream)
{
    if (is_input) {
        c->bytes_in += len;
        relay_input(c->session->relay, len, counts_as_activity(c, true));
        record_input(c, data, len);
        audit_bytes(c, true, data, len);
        if (c->needs_redraw)
            notice_user_key(c, clock_mono_ms());
        return;
    }
    c->bytes_out += len;
    relay_output(c->session->relay, len, counts_as_activity(c, false));
    if (c->has_pty)
        terminal_output(&c->terminal, data, len);
    record_output(c, data, len, stream == 1);
    watch_output(c, data, len, stream == 1);
    if (stream == 0)
        audit_bytes(c, false, data, len);
}

/* Pass on what one spool holds; true when bytes moved. */
static bool move(struct half *from, struct half *to, int stream)
{
    struct spool *s = &from->in[stream];
    bool is_input = from == &from->channel->user;
    uint32_t n, len;

    pump_refill(from, stream);
    if (s->len == 0)
        return false;
    if (!can_write(to)) {
        if (to->ssh && !to->sent_eof && !to->got_close && leg_is_alive(to->leg))
            return false;
        spool_drop(s, s->len); /* nobody is there to take it */
        return true;
    }
    len = s->len;
    if (len > PACKET && from->leg->io && io_has_input(from->leg->io))
        len -= len % PACKET;
    n = write_some(to, s->data + s->start, len, stream);
    if (n == 0)
        return false;
    account(from->channel, is_input, s->data + s->start, n, stream);
    spool_drop(s, n);
    return true;
}

/* The client left before anything ran: what it typed has no place to go. */
static void discard(struct half *h)
{
    h->in[0].len = h->in[0].start = 0;
    h->in[1].len = h->in[1].start = 0;
    h->held[0] = h->held[1] = 0;
}

/* Extended data from a client means nothing. */
static void discard_stderr(struct half *user)
{
    pump_refill(user, 1);
    spool_drop(&user->in[1], user->in[1].len);
}

static void police(const struct half *h)
{
    struct session *s = h->channel->session;
    const char *text = "the other side does not keep to its window";

    if (h->held[0] > HELD_MAX || h->held[1] > HELD_MAX ||
        (leg_is_alive(h->leg) && libssh_has_lost_bytes(h->leg->ssh)))
        session_end(s, END_POLICY, "policy", text, text);
}

void pump_step(struct channel *c)
{
    bool has_moved = true;

    police(&c->user);
    police(&c->target);
    for (int i = 0; i < 8 && has_moved; i++) {
        has_moved = move(&c->target, &c->user, 0);
        has_moved |= move(&c->target, &c->user, 1);
        discard_stderr(&c->user);
        if (!c->has_started && c->user.got_close)
            discard(&c->user);
        if (c->has_started) /* what is typed ahead waits until the target runs something */
            has_moved |= move(&c->user, &c->target, 0);
    }
    if (has_moved)
        session_want_turn(c->session);
}

uint32_t pump_room(const struct channel *c)
{
    return can_write(&c->user) ? room_at(&c->user) : 0;
}

size_t pump_type(struct channel *c, const void *data, size_t len)
{
    uint32_t n = 0;

    if (c->has_started && can_write(&c->target))
        n = write_some(&c->target, data, (uint32_t)(len < PACKET ? len : PACKET), 0);
    if (n > 0) {
        c->bytes_in += n;
        relay_input(c->session->relay, n, false); /* it says nothing about the user */
    }
    return n;
}

bool pump_show(struct channel *c, const void *data, size_t len, bool is_stderr)
{
    struct half *to = &c->user;

    if (!can_write(to) || len > room_at(to) || len > UINT32_MAX)
        return false;
    return write_some(to, data, (uint32_t)len, is_stderr) == len;
}
