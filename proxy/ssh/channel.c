/*
 * Pairs of channels: the client opens one at the relay, the relay opens one at the target, then
 * answers. Ends travel in order: data, exit status or signal, end of file, close. Steps of a turn
 * of proxy/ssh/session.c; nothing here is called by libssh.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/watch.h"

#define REFUSALS_A_MIN 30

struct channel *channel_find(struct session *s, ssh_channel user)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (user && c->user.ssh == user)
            return c;
    }
    return NULL;
}

static size_t count_sessions(const struct session *s)
{
    const struct channel *c;
    size_t n = 0;

    TAILQ_FOREACH (c, &s->channels, link)
        n += !c->forward;
    return n;
}

struct channel *channel_create(struct session *s, ssh_message opening)
{
    struct channel *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->session = s;
    c->number = ++s->last_number;
    c->opening = opening;
    c->user.channel = c->target.channel = c;
    c->user.leg = &s->user;
    c->target.leg = &s->target;
    c->cols = 80;
    c->rows = 24;
    STAILQ_INIT(&c->requests);
    buffer_init(&c->notice, 8192);
    TAILQ_INSERT_TAIL(&s->channels, c, link);
    return c;
}

/* A client that goes on asking (a browser behind -D) is refused each time and told of now and then:
 * neither the log nor the store grows with it. */
void channel_refuse(struct session *s, ssh_message message, const char *why)
{
    static struct log_limit limit;

    (void)ssh_message_reply_default(message);
    ssh_message_free(message);
    if (!log_limit_allows(&limit, REFUSALS_A_MIN, "refused channels"))
        return;
    log_info("channel refused: %s", why);
    relay_event(s->relay, "channel-refused", why);
}

void channel_open_message(struct session *s, ssh_message message)
{
    struct channel *c;

    if (s->phase >= PHASE_ENDING || s->phase == PHASE_LOGIN) {
        (void)ssh_message_reply_default(message);
        ssh_message_free(message);
        return;
    }
    if (ssh_message_subtype(message) == SSH_CHANNEL_DIRECT_TCPIP &&
        s->login.login.target[0] == '\0' && s->phase == PHASE_CHOOSING) {
        jump_open_message(s, message);
        return;
    }
    if (ssh_message_subtype(message) != SSH_CHANNEL_SESSION) {
        forward_open_message(s, message);
        return;
    }
    if (count_sessions(s) >= relay_policy(s->relay)->max_channels) {
        channel_refuse(s, message, "too many channels on one connection");
        return;
    }
    if (!(c = channel_create(s, message))) {
        channel_refuse(s, message, "out of memory");
        return;
    }
    if (s->phase == PHASE_CHOOSING && !s->menu_channel)
        channel_accept_local(c);
}

/* ---- opening ---- */

static void release_half(struct half *h)
{
    if (!h->ssh)
        return;
    (void)ssh_remove_channel_callbacks(h->ssh, &h->callbacks); /* libssh may keep the channel */
    ssh_channel_free(h->ssh);
    h->ssh = NULL;
}

/* The half whose side asked for the channel, and the one that is asked for it. */
static struct half *near_half(struct channel *c)
{
    return c->is_reverse ? &c->target : &c->user;
}

static struct half *far_half(struct channel *c)
{
    return c->is_reverse ? &c->user : &c->target;
}

static bool accept_near(struct channel *c)
{
    struct half *h = near_half(c);

    h->ssh = ssh_message_channel_request_open_reply_accept(c->opening);
    ssh_message_free(c->opening);
    c->opening = NULL;
    if (!h->ssh) {
        c->state = CHANNEL_DONE;
        return false;
    }
    pump_attach(h);
    return true;
}

void channel_accept_local(struct channel *c)
{
    if (accept_near(c))
        c->state = CHANNEL_LOCAL;
}

static void begin_open(struct channel *c)
{
    struct half *h = far_half(c);

    if (c->forward && !forward_is_allowed(c))
        return;
    h->ssh = leg_is_alive(h->leg) ? ssh_channel_new(h->leg->ssh) : NULL;
    c->state = h->ssh ? CHANNEL_OPENING : CHANNEL_DONE;
    if (h->ssh)
        pump_attach(h); /* a server that speaks first does so right behind its yes */
}

/* The other side said no: who asked is told, or, behind the menu, the channel just ends. */
static void open_refused(struct channel *c)
{
    const char *who = c->is_reverse ? "the client" : "the target", *to = c->command;
    char why[SESSION_TEXT_MAX];

    snprintf(why, sizeof(why), "%s%s%s refused it", to ? to : "", to ? ": " : "", who);
    if (c->opening) {
        channel_refuse(c->session, c->opening, why);
        c->opening = NULL;
        c->state = CHANNEL_DONE;
        return;
    }
    channel_exit_local(c, 1);
}

static void step_opening(struct channel *c)
{
    struct half *h = far_half(c);
    int rc = SSH_ERROR;

    if (h->ssh && leg_is_alive(h->leg))
        rc = c->forward ? forward_open(c) : ssh_channel_open_session(h->ssh);
    if (rc == SSH_AGAIN)
        return;
    if (rc != SSH_OK) {
        release_half(h);
        open_refused(c);
        return;
    }
    if (!c->opening || accept_near(c))
        c->state = CHANNEL_OPEN;
    if (c->forward && c->state == CHANNEL_OPEN)
        forward_opened(c);
}

void channel_target_is_up(struct session *s)
{
    struct channel *c;

    choose_done(s);
    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->state == CHANNEL_WAITING ||
            (c->state == CHANNEL_LOCAL && (c == s->menu_channel || c == s->asking_channel)))
            begin_open(c);
    }
    s->menu_channel = s->asking_channel = NULL;
}

/* ---- ends ---- */

static void send_exit(struct channel *c)
{
    if (c->sent_status || !c->user.ssh || c->user.sent_close)
        return;
    if (c->has_status)
        (void)ssh_channel_request_send_exit_status(c->user.ssh, (int)c->exit_status);
    if (c->has_signal)
        (void)ssh_channel_request_send_exit_signal(c->user.ssh, c->exit_signal, c->exit_core,
                                                   c->exit_text, "");
    c->sent_status = c->has_status || c->has_signal;
}

static void send_eof(struct half *to)
{
    if (to->sent_eof || !to->ssh)
        return;
    (void)ssh_channel_send_eof(to->ssh);
    to->sent_eof = true;
}

static void send_close(struct half *to)
{
    if (to->sent_close || !to->ssh)
        return;
    send_eof(to); /* close alone would wait for the output buffer and not be sent */
    (void)ssh_channel_close(to->ssh);
    to->sent_close = true;
}

/* Everything that one side sent has reached the other: its ends may follow. */
static void pass_ends(struct half *from, struct half *to)
{
    struct channel *c = from->channel;
    bool is_target = from == &c->target;

    if (!pump_is_empty(from) || (!is_target && !STAILQ_EMPTY(&c->requests) && !from->got_close))
        return;
    if (is_target)
        send_exit(c);
    if (from->got_eof)
        send_eof(to);
    if (from->got_close)
        send_close(to);
}

static bool is_half_gone(const struct half *h)
{
    return !h->ssh || !leg_is_alive(h->leg) || (h->sent_close && h->got_close);
}

bool channel_is_ended(const struct channel *c)
{
    return is_half_gone(&c->user) && is_half_gone(&c->target) && pump_is_empty(&c->target);
}

void channel_exit_local(struct channel *c, uint32_t status)
{
    c->has_status = true;
    c->exit_status = status;
    send_exit(c);
    send_close(&c->user);
}

static void keep_hold(struct channel *c)
{
    bool wanted = c->has_started && !c->forward && !c->has_pty && !c->has_status &&
                  !c->has_signal && !c->target.got_close &&
                  (c->kind == CHANNEL_EXEC || c->kind == CHANNEL_TRANSFER) &&
                  relay_policy(c->session->relay)->counts == COUNTS_AUTO;

    if (wanted == c->is_holding)
        return;
    c->is_holding = wanted;
    relay_hold(c->session->relay, wanted ? 1 : -1);
}

/* The client closed, as OpenSSH does once both directions have ended. What the target still sends
 * has nowhere to go, but its exit status has: the answer waits for it, as in sshd. */
static void answer_close(struct channel *c)
{
    if (!c->user.got_close || (c->has_started && !c->has_status && !c->has_signal &&
                               !c->target.got_close && !is_half_gone(&c->target)))
        return;
    send_exit(c);
    send_close(&c->user);
}

/* Both sides of a forwarded connection are alike: who closed is done with it. */
static void step_forward(struct channel *c)
{
    pump_step(c);
    pass_ends(&c->user, &c->target);
    pass_ends(&c->target, &c->user);
    if (c->user.got_close)
        send_close(&c->user);
    if (c->target.got_close)
        send_close(&c->target);
}

static void step_open(struct channel *c, int64_t now_ms)
{
    request_step(c);
    pump_step(c);
    notice_step(c, now_ms);
    pass_ends(&c->user, &c->target);
    pass_ends(&c->target, &c->user);
    answer_close(c);
    if (c->target.got_close && pump_is_empty(&c->target))
        send_close(&c->target);
    keep_hold(c);
    record_tick(c, now_ms);
}

static void step_local(struct channel *c)
{
    if (c->user.got_close) {
        send_close(&c->user);
        return;
    }
    if (c->door)
        door_step(c);
    else
        choose_input(c);
}

void channel_step(struct channel *c, int64_t now_ms)
{
    if (c->state == CHANNEL_WAITING && c->session->phase == PHASE_RELAYING)
        begin_open(c);
    if (c->state == CHANNEL_OPENING)
        step_opening(c);
    if (c->state == CHANNEL_LOCAL)
        step_local(c);
    if (c->state == CHANNEL_OPEN && c->forward)
        step_forward(c);
    else if (c->state == CHANNEL_OPEN)
        step_open(c, now_ms);
    if (c->state >= CHANNEL_LOCAL && channel_is_ended(c))
        c->state = CHANNEL_DONE;
}

/* ---- going ---- */

void channel_tell(struct channel *c, enum link_channel_change change)
{
    struct link_channel told = {
        .channel = c->number,
        .change = (uint8_t)change,
        .kind = (uint8_t)c->kind,
        .has_pty = c->has_pty,
        .exit_status = UINT32_MAX,
    };

    text_copy(told.command, sizeof(told.command), c->command ? c->command : "");
    if (change == LINK_CHANNEL_CLOSED) {
        told.bytes_in = c->bytes_in;
        told.bytes_out = c->bytes_out;
        told.exit_status = c->has_status ? c->exit_status : UINT32_MAX;
        told.duration_ms = (uint64_t)(clock_mono_ms() - c->started_ms);
        text_copy(told.exit_signal, sizeof(told.exit_signal), c->exit_signal);
    }
    relay_channel(c->session->relay, &told);
}

static void channel_destroy(struct channel *c)
{
    struct session *s = c->session;

    TAILQ_REMOVE(&s->channels, c, link);
    if (s->menu_channel == c) {
        s->menu_channel = NULL;
        choose_done(s);
    }
    door_free(c);
    if (s->asking_channel == c)
        s->asking_channel = NULL;
    if (c->is_holding)
        relay_hold(s->relay, -1);
    record_close(c);
    audit_close(c);
    watch_over(c);
    if (c->is_told)
        channel_tell(c, LINK_CHANNEL_CLOSED);
    request_clear(c); /* before their channel */
    if (c->opening)
        ssh_message_free(c->opening);
    release_half(&c->user);
    release_half(&c->target);
    for (int i = 0; i < 2; i++) {
        spool_finish(&c->user.in[i]);
        spool_finish(&c->target.in[i]);
    }
    buffer_finish(&c->notice);
    forward_free(c->forward);
    free(c->command);
    free(c);
}

void channel_sweep(struct session *s)
{
    struct channel *c = TAILQ_FIRST(&s->channels), *next;

    for (; c; c = next) {
        next = TAILQ_NEXT(c, link);
        if (c->state == CHANNEL_DONE)
            channel_destroy(c);
    }
}

/* Let go without a word: an SSH_MSG_CHANNEL_CLOSE before the SSH_MSG_DISCONNECT makes a client
 * leave before it has read why. libssh frees the channels with their session. */
static void forget_half(struct half *h)
{
    if (h->ssh)
        (void)ssh_remove_channel_callbacks(h->ssh, &h->callbacks);
    h->ssh = NULL;
}

void channel_detach(struct session *s, const struct leg *leg)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (leg == &s->user) {
            request_clear(c);
            forget_half(&c->user);
        } else {
            forget_half(&c->target);
        }
    }
}

void channel_free_all(struct session *s)
{
    while (!TAILQ_EMPTY(&s->channels))
        channel_destroy(TAILQ_FIRST(&s->channels));
}

bool channel_any_open(const struct session *s)
{
    const struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (!c->user.got_close)
            return true;
    }
    return false;
}
