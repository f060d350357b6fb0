/*
 * One SSH connection: owns the legs and channels, and takes turns. A turn drives both legs, hands
 * out the client's messages, lets every part step, sweeps what is done, and settles the legs. All
 * frees happen here, with nothing of libssh on the stack. This file is the `struct relay_protocol`
 * that proxy/relay runs.
 */
#include "proxy/ssh/session.h"

#include <event2/event.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/blob.h"
#include "proxy/ssh/ssh.h"
#include "proxy/ssh/watch.h"

#define RELAX_MS    15000 /* without keep-alives: how often memory is looked at */
#define DRAIN_MS    2000  /* for what a vanished target still had said */
#define FLUSH_MS    600   /* of the end: for notices to leave */
#define SHOW_MS     50    /* of the end: for the client to show them, at least */
#define LINGER_MS   250   /* of the end: for the peer to close first */
#define RELAX_QUIET 4096  /* bytes between two looks that count as nothing */

static void take_turn(struct session *s);

/* ---- turns and time ---- */

void session_want_turn(struct session *s)
{
    turn_want(&s->turn);
}

void session_want_timer(struct session *s, int64_t at_ms)
{
    turn_want_at(&s->turn, at_ms);
}

void session_wake(void *session)
{
    take_turn(session);
}

/* ---- the client's messages ---- */

static void refuse_message(struct session *s, ssh_message message)
{
    (void)s;
    (void)ssh_message_reply_default(message);
    ssh_message_free(message);
}

static void hand_out(struct session *s, ssh_message message)
{
    switch (ssh_message_type(message)) {
    case SSH_REQUEST_SERVICE:
        user_service(s, message);
        break;
    case SSH_REQUEST_AUTH:
        user_auth(s, message);
        break;
    case SSH_REQUEST_CHANNEL_OPEN:
        channel_open_message(s, message);
        break;
    case SSH_REQUEST_CHANNEL:
        request_message(s, message);
        break;
    case SSH_REQUEST_GLOBAL:
        listen_message(s, message);
        break;
    default:
        refuse_message(s, message);
        break;
    }
}

static void take_messages(struct session *s)
{
    ssh_message message;

    while (s->user.state == LEG_UP && !s->login.message && s->phase < PHASE_ENDING &&
           (message = ssh_message_get(s->user.ssh)))
        hand_out(s, message);
    while (s->target.state == LEG_UP && s->phase == PHASE_RELAYING &&
           (message = ssh_message_get(s->target.ssh))) {
        if (ssh_message_type(message) == SSH_REQUEST_CHANNEL_OPEN)
            forward_target_opens(s, message);
        else
            refuse_message(s, message);
    }
}

/* ---- keep-alive and rest ---- */

static uint64_t received_bytes(const struct session *s)
{
    return (s->user.io ? s->user.io->received : 0) + (s->target.io ? s->target.io->received : 0);
}

/* A connection that went quiet gives the memory of its last burst back. */
static void relax(struct session *s)
{
    uint64_t received = received_bytes(s);
    struct channel *c;

    if (received - s->relaxed_bytes <= RELAX_QUIET)
        return;
    s->relaxed_bytes = received;
    TAILQ_FOREACH (c, &s->channels, link)
        pump_relax(c);
    jump_relax(s);
    malloc_trim(0);
}

static void keep_alive(struct session *s)
{
    uint32_t count = s->limits.keepalive_count;

    if (s->limits.keepalive_interval_s == 0 || s->phase >= PHASE_ENDING || s->phase == PHASE_LOGIN)
        return;
    if (!leg_keepalive(&s->user, count))
        session_end(s, END_NETWORK_LOST, "client", "the client stopped answering", "");
    else if (s->phase == PHASE_RELAYING && /* before, no server answers one, and some hang up */
             !leg_keepalive(&s->target, count))
        session_end(s, END_TARGET_CLOSED, "target", "the target stopped answering",
                    "You have been disconnected: the target stopped answering");
}

static void step_time(struct session *s, int64_t now_ms)
{
    int64_t every_ms = (int64_t)s->limits.keepalive_interval_s * 1000;

    if (now_ms >= s->keepalive_at_ms) {
        if (s->keepalive_at_ms != 0) {
            keep_alive(s);
            relax(s);
        }
        s->keepalive_at_ms = now_ms + (every_ms > 0 ? every_ms : RELAX_MS);
    }
    session_want_timer(s, s->keepalive_at_ms);
}

/* ---- how it ends ---- */

void session_end(struct session *s, enum end_reason reason, const char *author, const char *text,
                 const char *sentence)
{
    struct ending *e = &s->ending;

    if (s->phase >= PHASE_ENDING)
        return;
    s->phase = PHASE_ENDING;
    e->reason = reason;
    text_copy(e->author, sizeof(e->author), author);
    text_copy(e->text, sizeof(e->text), text);
    text_copy(e->sentence, sizeof(e->sentence), sentence);
    session_want_turn(s);
}

static void begin_ending(struct session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;
    struct channel *c;

    e->has_begun = true;
    target_stop(s);
    if (e->flush_by_ms == 0)
        e->flush_by_ms = now_ms + FLUSH_MS;
    if (e->sentence[0] != '\0')
        notice_final(s, e->sentence);
    TAILQ_FOREACH (c, &s->channels, link)
        record_close(c);
}

/*
 * A client acts on SSH_MSG_DISCONNECT before it has shown output that came in the same read: so the
 * last words go ahead, with a question behind them that the client answers when it has handled
 * them. True when the goodbye may follow.
 */
static bool has_shown(struct session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;

    if (now_ms >= e->flush_by_ms)
        return true;
    if (jump_any_open(s) && s->user.state == LEG_UP) /* they have last words of their own */
        return false;
    if (leg_has_unsent(&s->user))
        return false;
    if (TAILQ_EMPTY(&s->channels)) /* nothing to show; before the login a question is an error */
        return true;
    if (!e->has_asked) {
        e->has_asked = true;
        e->show_by_ms = now_ms + SHOW_MS;
        leg_ask(&s->user);
        session_want_timer(s, e->show_by_ms);
    }
    return leg_has_answered(&s->user) && (now_ms >= e->show_by_ms || s->user.state != LEG_UP);
}

static void say_bye(struct session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;

    e->has_said = true;
    e->close_by_ms = now_ms + LINGER_MS;
    jump_detach(s);
    channel_detach(s, &s->user);
    channel_detach(s, &s->target);
    leg_disconnect(&s->user, e->sentence[0] ? e->sentence : "Bye");
    target_disconnect(s);
}

static void step_ending(struct session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;

    if (s->phase != PHASE_ENDING)
        return;
    if (!e->has_begun)
        begin_ending(s, now_ms);
    leg_settle(&s->user);
    if (!e->has_said && has_shown(s, now_ms))
        say_bye(s, now_ms);
    if (!e->has_said) {
        session_want_timer(s, e->flush_by_ms);
    } else if (leg_drain(&s->user) || now_ms >= e->close_by_ms) {
        s->phase = PHASE_OVER;
        relay_finish(s->relay, e->reason, e->author, e->text);
    } else {
        session_want_timer(s, e->close_by_ms);
    }
}

static void user_is_gone(struct session *s)
{
    const char *user = s->login.login.user[0] ? s->login.login.user : "client";
    char text[SESSION_TEXT_MAX];

    bool is_used = (s->phase == PHASE_RELAYING && channel_any_open(s)) || jump_any_open(s);

    if (s->user.end == LEG_END_BYE || !is_used) {
        if (s->user.end == LEG_END_ERROR) {
            text_escape(text, sizeof(text), s->user.error, strlen(s->user.error));
            session_end(s, END_NETWORK_LOST, "client", text, "");
            return;
        }
        session_end(s, END_USER_EXIT, user, "the client closed the connection", "");
        return;
    }
    session_end(s, END_NETWORK_LOST, "client", "the client's connection was lost", "");
}

static bool is_drained(const struct session *s)
{
    const struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (!pump_is_empty(&c->target) && !c->user.sent_eof)
            return false;
    }
    return true;
}

static void target_is_gone(struct session *s, int64_t now_ms)
{
    char sentence[SENTENCE_MAX];

    if (s->drain_by_ms == 0)
        s->drain_by_ms = now_ms + DRAIN_MS;
    if (!is_drained(s) && now_ms < s->drain_by_ms) {
        session_want_timer(s, s->drain_by_ms);
        return;
    }
    if (target_lost_way(s)) {
        snprintf(sentence, sizeof(sentence),
                 "You have been disconnected: %s, on the way to the target, closed the connection",
                 target_lost_way(s));
        session_end(s, END_TARGET_CLOSED, "target", strchr(sentence, ':') + 2, sentence);
        return;
    }
    session_end(s, END_TARGET_CLOSED, "target", "the target closed the connection",
                "You have been disconnected: the target closed the connection");
}

static void check_ends(struct session *s, int64_t now_ms)
{
    if (s->phase >= PHASE_ENDING)
        return;
    if (s->user.state == LEG_DEAD && inner_waits(s, now_ms))
        return;
    if (s->user.state == LEG_DEAD)
        user_is_gone(s);
    else if (s->target.state == LEG_DEAD && s->phase == PHASE_RELAYING)
        target_is_gone(s, now_ms);
    else if (s->target.state == LEG_DEAD && s->phase == PHASE_TARGET)
        session_want_turn(s); /* target_step() has the sentence */
}

/* ---- a turn ---- */

static void look_at_client(struct session *s)
{
    if (!s->has_spoken && s->user.io && s->user.io->received > 0) {
        s->has_spoken = true;
        relay_client_spoke(s->relay);
    }
}

/* Each turn begins with another channel: who comes first could take all that a slow client takes.
 */
static struct channel *first_of_turn(struct session *s)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->number > s->turn_number)
            break;
    }
    c = c ? c : TAILQ_FIRST(&s->channels);
    s->turn_number = c ? c->number : 0;
    return c;
}

static void step_channels(struct session *s, int64_t now_ms)
{
    struct channel *first, *c;

    if (s->phase >= PHASE_ENDING)
        return;
    first = first_of_turn(s);
    for (c = first; c; c = TAILQ_NEXT(c, link))
        channel_step(c, now_ms);
    for (c = TAILQ_FIRST(&s->channels); c != first; c = TAILQ_NEXT(c, link))
        channel_step(c, now_ms);
    channel_sweep(s);
}

static void drive_user(struct session *s)
{
    enum leg_state before = s->user.state;

    overheard_begin();
    leg_drive(&s->user);
    overheard_end(s);
    look_at_client(s);
    if (before == LEG_HANDSHAKE && s->user.state == LEG_UP && !s->is_inner)
        relay_set_device(s->relay, blob_software(ssh_get_clientbanner(s->user.ssh)));
}

static void take_turn(struct session *s)
{
    int64_t now_ms = clock_mono_ms();

    if (s->is_in_turn || s->phase == PHASE_OVER)
        return;
    s->is_in_turn = true;
    leg_cork(&s->user);
    leg_cork(&s->target);
    drive_user(s);
    target_drive(s);
    user_step(s, now_ms);
    listen_step(s); /* before a channel that the target opens for what it agreed to just now */
    take_messages(s);
    target_step(s, now_ms);
    step_channels(s, now_ms);
    watch_step(s, now_ms);
    jump_step(s, now_ms);
    step_time(s, now_ms);
    leg_settle(&s->user);
    target_settle(s);
    check_ends(s, now_ms);
    step_ending(s, now_ms);
    s->is_in_turn = false;
}

/* ---- struct relay_protocol ---- */

/* fd: the client's, or that of the first server on the way to the target. */
static void apply_timeouts(const struct session *s, int fd)
{
    uint64_t ms = (uint64_t)s->limits.keepalive_interval_s * s->limits.keepalive_count * 1000;

    if (ms > 0)
        leg_set_user_timeout(fd, ms > 3600000 ? 3600000 : (uint32_t)ms);
}

static void session_finish(void *self)
{
    struct session *s = self;

    if (!s)
        return;
    if (s->ending.reason == END_NONE) /* the relay ended it without asking us */
        s->ending.reason = relay_end_reason(s->relay);
    user_finish(s);
    target_stop(s); /* before what it stands on */
    channel_free_all(s);
    watch_free_all(s);
    jump_free_all(s);
    listen_free_all(s);
    choose_done(s);
    leg_close(&s->user);
    target_close(s);
    turn_finish(&s->turn);
    free(s);
}

static void *session_start(struct relay *r, int client_fd, const struct link_welcome *limits)
{
    struct session *s = calloc(1, sizeof(*s));
    struct event_base *base = relay_base(r);

    if (!s)
        return NULL;
    s->relay = r;
    s->limits = *limits;
    inner_begin(s);
    s->target.state = LEG_CLOSED;
    s->user.state = LEG_CLOSED;
    TAILQ_INIT(&s->channels);
    TAILQ_INIT(&s->watchers);
    if (turn_init(&s->turn, base, session_wake, s) < 0 ||
        leg_open_server(&s->user, session_bind(), client_fd, base, session_wake, s) != 0) {
        session_finish(s);
        return NULL;
    }
    apply_timeouts(s, s->user.fd);
    session_want_turn(s);
    return s;
}

static void session_auth_result(void *self, const struct link_auth_result *result)
{
    user_result(self, result);
}

static void session_auth_prompt(void *self, const struct link_auth_prompt *prompt)
{
    keyboard_prompt(self, prompt);
}

static void session_routed(void *self, const struct link_route_result *result, int target_fd)
{
    struct session *s = self;

    if (result->is_ok && target_fd >= 0) {
        apply_timeouts(s, target_fd);
        target_routed(s, result, target_fd);
    } else if (s->menu_channel) {
        choose_failed(s, result->text);
    } else {
        session_end(s, (enum end_reason)result->reason, "policy", result->text, result->text);
    }
    session_want_turn(s);
}

static void session_targets(void *self, const struct link_target_row *rows, size_t count,
                            size_t total)
{
    choose_targets(self, rows, count, total);
}

static void session_host_key_result(void *self, bool is_ok, const char *text)
{
    target_pinned(self, is_ok, text);
}

static void session_hop(void *self, const struct link_hop *hop, const int fds[2])
{
    target_hop(self, hop, fds);
}

static void session_recording(void *self, const struct link_recording *answer, int fd)
{
    record_answer(self, answer, fd);
}

static void session_jumped(void *self, const struct link_jump_result *result, int fd)
{
    jump_result(self, result, fd);
}

static void session_notice(void *self, enum link_notice kind, const char *text)
{
    (void)kind;
    notice_add(self, text);
}

static void session_door_result(void *self, const struct link_door_result *result, const int fds[3])
{
    door_result(self, result, fds);
}

static void session_door_exit(void *self, const struct link_door_exit *end)
{
    door_exit(self, end);
}

static void session_broker_lost(void *self)
{
    door_broker_lost(self);
}

static void session_back(void *self)
{
    choose_given_back(self);
}

static void session_end_asked(void *self, const char *sentence, uint32_t deadline_ms)
{
    struct session *s = self;
    int64_t now_ms = clock_mono_ms();

    session_end(s, relay_end_reason(s->relay), "policy", sentence, sentence);
    s->ending.flush_by_ms = now_ms + deadline_ms / 2;
}

static void session_watch(void *self, const struct link_watch *watch, int fd)
{
    watch_begin(self, watch, fd);
}

static void session_watch_end(void *self, uint64_t watch)
{
    watch_withdraw(self, watch);
}

static void session_alone(void *self)
{
    watch_alone(self);
}

const struct relay_protocol ssh_protocol = {
    .protocol = PROTOCOL_SSH,
    .name = "ssh",
    .start = session_start,
    .auth_result = session_auth_result,
    .hop = session_hop,
    .auth_prompt = session_auth_prompt,
    .routed = session_routed,
    .targets = session_targets,
    .host_key_result = session_host_key_result,
    .recording = session_recording,
    .jumped = session_jumped,
    .door_result = session_door_result,
    .door_exit = session_door_exit,
    .broker_lost = session_broker_lost,
    .back = session_back,
    .notice = session_notice,
    .watch = session_watch,
    .watch_end = session_watch_end,
    .alone = session_alone,
    .end = session_end_asked,
    .finish = session_finish,
};
