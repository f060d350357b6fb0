/*
 * The relay's half of `session watch` and `session join`; see watch.h. Callbacks of the loop only
 * note; reading, writing and freeing is a turn's work, as everywhere in this folder. The lines are
 * made by the recording's own escaper, once for all watchers of a channel.
 */
#include "proxy/ssh/watch.h"

#include <errno.h>
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/session.h"
#include "tracker/recording/recording_priv.h"

#define LINE_MAX  (CAST_EVENT_MAX * CAST_ESCAPE_MAX + CAST_EVENT_OVERHEAD)
#define TYPED_MAX 4096

struct watcher {
    TAILQ_ENTRY(watcher) link;
    struct session *session; /* not owned */
    struct channel *channel; /* not owned; NULL when it went away */
    struct link_watch asked;
    uint32_t number; /* of the channel */
    int fd;
    struct event *readable, *writable;
    struct buffer out; /* whole lines; the first one may be sent in part */
    uint8_t typed[TYPED_MAX];
    size_t typed_len;
    uint64_t typed_bytes;
    bool is_told;        /* the broker knows that it is over */
    bool has_left;       /* the other side closed */
    bool is_ending;      /* its last words are in `out` */
    int64_t leave_by_ms; /* then */
    char why[SESSION_TEXT_MAX];
};

static char line[LINE_MAX];

/* ---- life ---- */

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct watcher *w = arg;

    (void)fd;
    (void)what;
    session_want_turn(w->session);
}

/* Once, as soon as it is over for the watcher. */
static void tell(struct watcher *w)
{
    struct link_watch_closed closed = {
        .watch = w->asked.watch,
        .channel = w->number,
        .may_type = w->asked.may_type,
        .typed = w->typed_bytes,
    };

    text_copy(closed.who, sizeof(closed.who), w->asked.who);
    text_copy(closed.text, sizeof(closed.text), w->why);
    if (!w->is_told)
        relay_watch_closed(w->session->relay, &closed);
    w->is_told = true;
}

static void forget(struct watcher *w)
{
    struct session *s = w->session;

    tell(w);
    if (w->channel)
        w->channel->watchers--;
    TAILQ_REMOVE(&s->watchers, w, link);
    s->watcher_count--;
    if (w->readable)
        event_free(w->readable);
    if (w->writable)
        event_free(w->writable);
    close(w->fd);
    buffer_finish(&w->out);
    memory_wipe(w->typed, sizeof(w->typed));
    free(w);
}

/* As much as the socket takes. */
static void push(struct watcher *w)
{
    while (w->out.len > 0) {
        ssize_t n = send(w->fd, w->out.data, w->out.len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            event_add(w->writable, NULL);
            return;
        }
        if (n <= 0) {
            w->has_left = true;
            return;
        }
        buffer_consume(&w->out, (size_t)n);
    }
}

/* What was not sent is dropped, but for the line that was begun; then the last line. */
static void end(struct watcher *w, const char *code, const char *text)
{
    const uint8_t *nl;

    if (w->is_ending)
        return;
    w->is_ending = true;
    w->leave_by_ms = clock_mono_ms() + WATCH_LINGER_MS;
    text_copy(w->why, sizeof(w->why), text);
    if (strcmp(code, "slow") == 0) {
        nl = w->out.len ? memchr(w->out.data, '\n', w->out.len) : NULL;
        w->out.len = nl ? (size_t)(nl - w->out.data) + 1 : 0;
    }
    w->out.failed = false;
    w->out.max_len = WATCH_QUEUE_MAX + 1024;
    tell(w);
    buffer_printf(&w->out, "{\"end\":\"%s\",\"text\":\"%s\"}\n", code, text);
    session_want_turn(w->session);
}

static void put(struct watcher *w, const void *data, size_t len)
{
    if (w->is_ending || w->has_left)
        return;
    if (w->out.len + len > WATCH_QUEUE_MAX)
        push(w);
    if (w->out.len + len > WATCH_QUEUE_MAX) {
        end(w, "slow", "this watcher did not read fast enough and was dropped");
        return;
    }
    buffer_put(&w->out, data, len);
    if (w->out.failed)
        end(w, "slow", "out of memory for this watcher");
}

static void put_all(struct channel *c, const void *data, size_t len)
{
    struct watcher *w;

    TAILQ_FOREACH (w, &c->session->watchers, link) {
        if (w->channel == c)
            put(w, data, len);
    }
    session_want_turn(c->session);
}

/* ---- what is shown ---- */

static size_t put_event(struct channel *c, char code, const uint8_t *data, size_t len, bool is_last)
{
    struct cast_out out = {.side = NULL};
    size_t used;

    out.at = cast_event_begin((uint8_t *)line, clock_mono_ms() - c->started_ms, code);
    used = cast_escape(&out, data, len, is_last);
    out.at = cast_event_end(out.at);
    if (used > 0)
        put_all(c, line, (size_t)(out.at - (uint8_t *)line));
    return used;
}

/* The character that the last bytes began and these end. Returns the bytes that went into it. */
static size_t complete(struct channel *c, const uint8_t *data, size_t len)
{
    uint8_t joined[8];
    size_t was = c->watch_held_len, more = len < 3 ? len : 3, used;

    memcpy(joined, c->watch_held, was);
    memcpy(joined + was, data, more);
    used = put_event(c, 'o', joined, was + more, false);
    if (used <= was) { /* still only a beginning, or bytes that were never one */
        if (used == 0 && was + more < sizeof(c->watch_held)) {
            memcpy(c->watch_held, joined, was + more);
            c->watch_held_len = was + more;
            return more;
        }
        (void)put_event(c, 'o', joined + used, was - used, true);
        c->watch_held_len = 0;
        return 0;
    }
    c->watch_held_len = 0;
    return used - was;
}

void watch_output(struct channel *c, const void *data, size_t len, bool is_stderr)
{
    const uint8_t *at = data;

    if (c->watchers == 0)
        return;
    while (len > 0) {
        size_t n = len < CAST_EVENT_MAX ? len : CAST_EVENT_MAX, used;

        if (c->watch_held_len > 0 && !is_stderr) {
            used = complete(c, at, len);
        } else {
            used = put_event(c, 'o', at, n, is_stderr);
            if (used < n && n == len && n - used < sizeof(c->watch_held)) {
                c->watch_held_len = n - used;
                memcpy(c->watch_held, at + used, n - used);
                used = n;
            }
        }
        at += used;
        len -= used;
    }
}

void watch_resize(struct channel *c)
{
    char text[16];
    int len;

    if (c->watchers == 0)
        return;
    len = snprintf(text, sizeof(text), "%ux%u", c->cols, c->rows);
    (void)put_event(c, 'r', (const uint8_t *)text, (size_t)len, true);
}

void watch_notice(struct channel *c, const char *text)
{
    size_t len = strlen(text);

    if (c->watchers > 0)
        (void)put_event(c, 'm', (const uint8_t *)text, len < 1024 ? len : 1024, true);
}

void watch_over(struct channel *c)
{
    struct watcher *w;

    if (c->watchers == 0)
        return;
    TAILQ_FOREACH (w, &c->session->watchers, link) {
        if (w->channel != c)
            continue;
        end(w, "over", "the terminal was closed");
        push(w);
        w->channel = NULL;
    }
    c->watchers = 0;
}

void watch_alone(struct session *s)
{
    struct watcher *w;

    TAILQ_FOREACH (w, &s->watchers, link)
        end(w, "broker",
            "the daemon stopped or was restarted; the session goes on: watch it again");
}

void watch_withdraw(struct session *s, uint64_t watch)
{
    struct watcher *w;

    TAILQ_FOREACH (w, &s->watchers, link) {
        if (w->asked.watch == watch)
            end(w, "withdrawn", "the permission to look on was withdrawn");
    }
}

/* ---- beginning ---- */

static bool can_be_watched(const struct channel *c)
{
    return c->state == CHANNEL_OPEN && c->has_started &&
           (c->has_pty || c->kind == CHANNEL_SHELL || c->kind == CHANNEL_EXEC);
}

/* The channel that was asked for, or the newest terminal, or the newest command. */
static struct channel *choose(struct session *s, uint32_t number)
{
    struct channel *c, *found = NULL;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (!can_be_watched(c) || (number && c->number != number))
            continue;
        if (!found || c->has_pty || !found->has_pty)
            found = c;
    }
    return found;
}

static void greet(struct watcher *w, struct channel *c)
{
    struct recording_position at = {0};
    bool is_recorded = record_flush(c, &at);

    if (c->watchers == 0) {
        memcpy(c->watch_held, at.held, at.held_len);
        c->watch_held_len = at.held_len;
    }
    c->watchers++;
    w->channel = c;
    w->number = c->number;
    buffer_printf(&w->out,
                  "{\"watch\":1,\"session\":\"%" PRIu64 "\",\"channel\":%u,\"pty\":%s,\"cols\":%u,"
                  "\"rows\":%u,\"recorded\":%s,\"bytes\":%" PRIu64 ",\"sequence\":%" PRIu64
                  ",\"mayType\":%s}\n",
                  relay_session_id(w->session->relay), c->number, c->has_pty ? "true" : "false",
                  c->cols, c->rows, is_recorded ? "true" : "false", at.file_len, at.sequence,
                  w->asked.may_type ? "true" : "false");
    if (w->asked.may_type && !is_recorded) {
        end(w, "refused",
            "this terminal is not recorded, so nobody else than its user may type in it");
    } else if (w->asked.may_type) {
        char text[SESSION_TEXT_MAX];

        snprintf(text, sizeof(text), "%s joined this session and may type", w->asked.who);
        record_mark(c, text);
    }
}

void watch_begin(struct session *s, const struct link_watch *watch, int fd)
{
    struct watcher *w = calloc(1, sizeof(*w));
    struct channel *c = choose(s, watch->channel);

    if (!w) {
        close(fd);
        return;
    }
    w->session = s;
    w->asked = *watch;
    w->fd = fd;
    buffer_init(&w->out, WATCH_QUEUE_MAX + 1024);
    w->readable = event_new(relay_base(s->relay), fd, EV_READ | EV_PERSIST, on_event, w);
    w->writable = event_new(relay_base(s->relay), fd, EV_WRITE, on_event, w);
    TAILQ_INSERT_TAIL(&s->watchers, w, link);
    s->watcher_count++;
    if (!w->readable || !w->writable || event_add(w->readable, NULL) < 0)
        w->has_left = true;
    else if (s->watcher_count > WATCHERS_MAX)
        end(w, "refused", "eight are watching this session already");
    else if (!c)
        end(w, "refused",
            watch->channel ? "no terminal and no command runs in that channel"
                           : "neither a terminal nor a command runs in this session");
    else
        greet(w, c);
    session_want_turn(s);
}

/* ---- typing ---- */

/* A program that asked for them gets application cursor keys; the joined terminal does not know. */
static void fit_keys(const struct channel *c, uint8_t *data, size_t len)
{
    if (!c->has_pty || !c->terminal.app_cursor)
        return;
    for (size_t i = 0; i + 2 < len; i++) {
        if (data[i] == 0x1b && data[i + 1] == '[' && data[i + 2] && strchr("ABCDHF", data[i + 2]))
            data[i + 1] = 'O';
    }
}

static void take_typed(struct watcher *w)
{
    struct channel *c = w->channel;
    size_t n;

    if (w->typed_len == 0 || !c)
        return;
    n = pump_type(c, w->typed, w->typed_len);
    if (n == 0)
        return;
    w->typed_bytes += n;
    record_typed(c, w->asked.who, w->typed, n);
    memmove(w->typed, w->typed + n, w->typed_len - n);
    w->typed_len -= n;
}

static void hear(struct watcher *w)
{
    uint8_t scrap[512];

    for (int i = 0; i < 8 && !w->has_left; i++) {
        bool types = w->asked.may_type && w->channel && !w->is_ending;
        uint8_t *to = types ? w->typed + w->typed_len : scrap;
        size_t room = types ? sizeof(w->typed) - w->typed_len : sizeof(scrap);
        ssize_t n = room ? recv(w->fd, to, room, MSG_DONTWAIT) : -1;

        if (room == 0) {
            event_del(w->readable); /* the target does not take it: neither do we */
            return;
        }
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
            w->has_left = true;
        if (n <= 0)
            return;
        if (types) {
            fit_keys(w->channel, to, (size_t)n);
            w->typed_len += (size_t)n;
        }
    }
}

void watch_step(struct session *s, int64_t now_ms)
{
    struct watcher *w = TAILQ_FIRST(&s->watchers), *next;

    for (; w; w = next) {
        next = TAILQ_NEXT(w, link);
        if (w->readable && !event_pending(w->readable, EV_READ, NULL) && w->typed_len == 0)
            event_add(w->readable, NULL);
        hear(w);
        take_typed(w);
        push(w);
        if (w->has_left || (w->is_ending && (w->out.len == 0 || now_ms >= w->leave_by_ms)))
            forget(w);
        else if (w->is_ending)
            session_want_timer(s, w->leave_by_ms);
    }
}

void watch_free_all(struct session *s)
{
    while (!TAILQ_EMPTY(&s->watchers)) {
        struct watcher *w = TAILQ_FIRST(&s->watchers);

        end(w, "over", "the session is over");
        push(w);
        forget(w);
    }
}
