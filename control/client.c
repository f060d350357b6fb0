/*
 * One connection of control.sock: takes lines, carries out one request at a time, sends replies in
 * pages as fast as the peer reads, keeps events out of the middle of replies, and ends with a
 * sentence. It knows no command; request.c parses and the handlers answer. The server makes and
 * reaps it.
 *
 *   open ──► closing (last words are read, input is thrown away) ──► dead ──► reaped
 *     └───────────────── the socket failed ────────────────────────────┘
 */
#include "control/control_priv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <sallyport/log.h>

#define LINES_A_TURN   16 /* then others get their turn */
#define PAGES_A_TURN   4
#define INPUT_MAX      (CONTROL_LINE_MAX + 65536u)
#define WARNINGS_A_MIN 30

/* Requests whose client went away while the daemon works for them. A list so that a server that
 * goes away can tell them. */
static TAILQ_HEAD(, request) orphans = TAILQ_HEAD_INITIALIZER(orphans);

/* ---- requests ---- */

static void request_free(struct request *r)
{
    if (r->free_state)
        r->free_state(r->rows_state);
    control_parsed_finish(&r->parsed);
    control_passing_finish(r);
    free(r);
}

static void request_orphan(struct request *r)
{
    r->client = NULL;
    TAILQ_INSERT_TAIL(&orphans, r, link);
}

void control_orphans_disown(const struct control *c)
{
    struct request *r;

    TAILQ_FOREACH (r, &orphans, link) {
        if (r->control == c)
            r->control = NULL;
    }
}

void control_request_resume(struct request *r)
{
    r->is_pending = false;
    if (r->client) {
        control_client_work(r->client);
        return;
    }
    TAILQ_REMOVE(&orphans, r, link);
    request_free(r);
}

/* ---- output ---- */

static int dump_to_evbuffer(const char *text, size_t len, void *arg)
{
    return evbuffer_add(arg, text, len);
}

size_t control_client_queued(const struct control_client *client)
{
    return evbuffer_get_length(bufferevent_get_output(client->bev)) +
           evbuffer_get_length(client->held);
}

static void put_line(struct control_client *client, struct evbuffer *out, json_t *line)
{
    static struct log_limit drops;

    if (!line || json_dump_callback(line, dump_to_evbuffer, out, JSON_COMPACT) < 0 ||
        evbuffer_add(out, "\n", 1) < 0) {
        log_warn("control out of memory for a reply uid=%u", (unsigned)client->peer.uid);
        control_client_kill(client);
    } else if (!client->is_closing && control_client_queued(client) > CONTROL_OUTPUT_MAX) {
        if (log_limit_allows(&drops, WARNINGS_A_MIN, "slow control clients"))
            log_warn("control client dropped reason=slow uid=%u pid=%d", (unsigned)client->peer.uid,
                     (int)client->peer.pid);
        control_client_close(client, "full",
                             "more than 4 MiB were waiting to be read; connect again");
    }
}

void control_client_send(struct control_client *client, json_t *line)
{
    if (!client->is_closing && !client->is_dead)
        put_line(client, bufferevent_get_output(client->bev), line);
}

void control_publish(struct subscription *s, json_t *event)
{
    struct control_client *client = s->client;
    bool is_inside = client->current && client->current->state == REQUEST_STREAMING;
    json_t *line = json_pack("{s:O, s:o}", "id", s->id, "event", event);

    if (!client->is_closing && !client->is_dead)
        put_line(client, is_inside ? client->held : bufferevent_get_output(client->bev), line);
    json_decref(line);
}

/* ---- ending ---- */

/* A timeout of nothing comes round on the next turn of the loop, after other descriptors had
 * theirs; event_active() from inside the work would starve them. */
void control_client_work(struct control_client *client)
{
    const struct timeval now = {0};

    /* adding it again would take it off the list of what runs next: whoever sends without a pause
     * would never be looked at */
    if (!event_pending(client->work, EV_TIMEOUT, NULL))
        event_add(client->work, &now);
}

static void drop_subscriptions(struct control_client *client)
{
    struct subscription *s;

    control_watches_check(client, ACCESS_ANY);
    while ((s = TAILQ_FIRST(&client->subscriptions))) {
        TAILQ_REMOVE(&client->subscriptions, s, link);
        if (s->kind == SUBSCRIPTION_EVENTS)
            client->control->event_followers--;
        json_decref(s->id);
        free(s->shown);
        free(s);
    }
    client->subscription_count = 0;
}

void control_client_kill(struct control_client *client)
{
    if (client->is_dead)
        return;
    client->is_dead = true;
    bufferevent_disable(client->bev, EV_READ | EV_WRITE);
    event_active(client->control->reaper, EV_TIMEOUT, 0);
}

/* Take no more lines; go once what was said is read. */
static void start_closing(struct control_client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->bev);
    const struct timeval limit = {.tv_sec = CONTROL_CLOSE_S};

    client->is_closing = true;
    evbuffer_drain(client->held, evbuffer_get_length(client->held));
    evbuffer_drain(input, evbuffer_get_length(input));
    bufferevent_setwatermark(client->bev, EV_WRITE, 0, 0);
    event_add(client->timer, &limit);
    control_client_work(client); /* there may be nothing to write, and then no callback */
}

void control_client_close(struct control_client *client, const char *code, const char *text)
{
    json_t *line;

    if (client->is_closing || client->is_dead)
        return;
    start_closing(client);
    line = control_error_line(NULL, code, text);
    put_line(client, bufferevent_get_output(client->bev), line);
    json_decref(line);
}

void control_client_refresh(struct control_client *client)
{
    control_caller_of(client->control, &client->peer, &client->caller);
    control_watches_check(client, client->caller.access);
    if (client->caller.access == ACCESS_ANY)
        control_client_close(client, "not_permitted", client->caller.why);
}

/* ---- carrying out ---- */

static void finish_current(struct control_client *client)
{
    request_free(client->current);
    client->current = NULL;
    if (!client->is_closing)
        bufferevent_write_buffer(client->bev, client->held);
}

static void send_rows(struct request *r, json_t *rows, bool is_last)
{
    json_t *line;

    if (is_last)
        line = json_pack("{s:O, s:b, s:O}", "id", r->parsed.id, "ok", 1, "rows", rows);
    else
        line = json_pack("{s:O, s:O, s:b}", "id", r->parsed.id, "rows", rows, "more", 1);
    control_client_send(r->client, line);
    json_decref(line);
}

static void send_page(struct request *r)
{
    struct failure f = {.code = "failed"};
    json_t *rows = json_array();
    int more = r->fill(r, rows, &f);

    if (more < 0) {
        control_reply_failure(r, &f);
    } else if (!more) {
        send_rows(r, rows, true);
        r->state = REQUEST_DONE;
    } else if (json_array_size(rows)) {
        send_rows(r, rows, false);
    }
    json_decref(rows);
}

/* Go on with the current request. True when it is done and gone. */
static bool advance(struct control_client *client)
{
    struct request *r = client->current;

    if (r->passing && control_client_queued(client) == 0) /* else the write callback comes back */
        control_passing_send(r, bufferevent_getfd(client->bev));
    for (int i = 0; r->state == REQUEST_STREAMING; i++) {
        if (client->is_closing || control_client_queued(client) > CONTROL_OUTPUT_PAUSE)
            return false; /* the write callback comes back */
        if (i == PAGES_A_TURN) {
            control_client_work(client);
            return false;
        }
        send_page(r);
    }
    if (r->state != REQUEST_DONE)
        return false;
    finish_current(client);
    return true;
}

static bool is_permitted(struct control_client *client, struct request *r)
{
    static struct log_limit refusals;
    const struct command *command = r->parsed.command;

    if (!command || client->caller.access >= command->access)
        return true;
    if (log_limit_allows(&refusals, WARNINGS_A_MIN, "commands not permitted"))
        log_warn("control refused uid=%u command=\"%s\"", (unsigned)client->peer.uid,
                 command->words);
    control_reply_error(r, "not_permitted", "%s needs %s access; you have %s", command->words,
                        control_access_name(command->access),
                        control_access_name(client->caller.access));
    return false;
}

static void answer_bad(struct control_client *client, struct request *r, const struct failure *f)
{
    control_reply_failure(r, f);
    if (!strcmp(f->code, "protocol")) /* who knows what the next line would be */
        start_closing(client);
}

static void carry_out(struct control_client *client, const char *line, size_t len)
{
    struct request *r = calloc(1, sizeof(*r));
    struct failure f;
    int result;

    if (!r) {
        control_client_kill(client);
        return;
    }
    r->control = client->control;
    r->client = client;
    client->current = r;
    result = control_parse(line, len, &r->parsed, &f);
    control_client_refresh(client);
    if (client->is_closing)
        return;
    r->caller = client->caller;
    if (!is_permitted(client, r))
        return;
    if (result < 0) {
        answer_bad(client, r, &f);
        return;
    }
    r->parsed.command->run(r);
    assert(r->state != REQUEST_WAITING || r->is_pending || r->passing);
}

/* ---- lines ---- */

/* Passwords come this way: nothing of a line stays in the memory that libevent frees. */
static void wipe_and_drain(struct evbuffer *input, size_t len)
{
    struct evbuffer_iovec parts[64];
    size_t left = len;

    while (left) {
        int n = evbuffer_peek(input, (ev_ssize_t)left, NULL, parts, 64);
        size_t done = 0;

        for (int i = 0; i < n && i < 64 && done < left; i++) {
            size_t part = parts[i].iov_len < left - done ? parts[i].iov_len : left - done;
            memory_wipe(parts[i].iov_base, part);
            done += part;
        }
        if (!done)
            break;
        evbuffer_drain(input, done);
        left -= done;
    }
}

static void time_line(struct control_client *client, bool is_begun)
{
    const unsigned ms = client->control->line_ms;
    const struct timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (is_begun == client->is_line_timed)
        return;
    client->is_line_timed = is_begun;
    if (is_begun)
        event_add(client->timer, &limit);
    else
        event_del(client->timer);
}

/* The length of the next whole line, newline included; 0 when there is none (yet, or any more). */
static size_t next_line(struct control_client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->bev);
    size_t len = evbuffer_get_length(input);
    struct evbuffer_ptr at;

    if (client->scanned < len) {
        evbuffer_ptr_set(input, &at, client->scanned, EVBUFFER_PTR_SET);
        at = evbuffer_search(input, "\n", 1, &at);
        client->scanned = at.pos < 0 ? len : (size_t)at.pos;
    } else {
        at.pos = -1;
    }
    if (client->scanned > CONTROL_LINE_MAX) {
        client->scanned = 0;
        control_client_close(client, "protocol", "a request line is at most 1 MiB long");
        return 0;
    }
    if (at.pos < 0) {
        time_line(client, len > 0 && !client->is_eof);
        return 0;
    }
    time_line(client, false);
    client->scanned = 0;
    return (size_t)at.pos + 1;
}

static void take_line(struct control_client *client, size_t len)
{
    struct evbuffer *input = bufferevent_get_input(client->bev);
    char *line = malloc(len);
    size_t text_len = len - 1;

    if (!line) {
        control_client_kill(client);
        return;
    }
    evbuffer_copyout(input, line, len);
    wipe_and_drain(input, len);
    if (text_len && line[text_len - 1] == '\r')
        text_len--;
    carry_out(client, line, text_len);
    memory_wipe(line, len);
    free(line);
}

static void work_open(struct control_client *client)
{
    for (int i = 0; !client->is_closing && !client->is_dead; i++) {
        size_t len;

        if (client->current && !advance(client))
            return;
        if (control_client_queued(client) > CONTROL_OUTPUT_PAUSE)
            return;
        if (i == LINES_A_TURN) {
            control_client_work(client);
            return;
        }
        len = next_line(client);
        if (!len)
            break;
        take_line(client, len);
    }
    if (client->is_eof && !client->is_closing && !client->current)
        start_closing(client);
}

static void work_closing(struct control_client *client)
{
    if (evbuffer_get_length(bufferevent_get_output(client->bev)))
        return;
    if (client->is_eof)
        control_client_kill(client);
    else /* closing with unread input would cost the peer our last words */
        shutdown(bufferevent_getfd(client->bev), SHUT_WR);
}

/* A full input that nobody may take from now (replies are waiting) is not read into any more.
 * libevent's own high mark is not enough: it calls on_read again and again while it is passed. */
static void pace_reading(struct control_client *client)
{
    bool is_full =
        !client->is_closing && evbuffer_get_length(bufferevent_get_input(client->bev)) >= INPUT_MAX;
    bool is_reading = bufferevent_get_enabled(client->bev) & EV_READ;

    if (is_full && is_reading)
        bufferevent_disable(client->bev, EV_READ);
    else if (!is_full && !is_reading && !client->is_eof) /* after the end it would only spin */
        bufferevent_enable(client->bev, EV_READ);
}

static void on_work(evutil_socket_t fd, short what, void *arg)
{
    struct control_client *client = arg;

    (void)fd;
    (void)what;
    if (!client->is_dead && !client->is_closing)
        work_open(client);
    if (!client->is_dead && client->is_closing)
        work_closing(client);
    if (!client->is_dead)
        pace_reading(client);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct control_client *client = arg;

    (void)fd;
    (void)what;
    if (client->is_closing)
        control_client_kill(client);
    else
        control_client_close(client, "protocol", "a line was not finished within 10 s");
}

static void on_read(struct bufferevent *bev, void *arg)
{
    struct control_client *client = arg;

    if (client->is_closing) {
        struct evbuffer *input = bufferevent_get_input(bev);
        evbuffer_drain(input, evbuffer_get_length(input));
        return;
    }
    control_client_work(client);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    (void)bev;
    control_client_work(arg);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct control_client *client = arg;

    (void)bev;
    if ((what & BEV_EVENT_EOF) && (what & BEV_EVENT_READING)) {
        client->is_eof = true;
        drop_subscriptions(client);
        control_client_work(client);
    } else if (what & (BEV_EVENT_ERROR | BEV_EVENT_EOF)) {
        control_client_kill(client);
    }
}

/* ---- life ---- */

static void greet(struct control_client *client)
{
    struct control_status status = {0};
    const struct control_host *host = &client->control->host;
    json_t *line;

    host->status(host->arg, &status);
    line = json_pack("{s:s, s:i, s:s, s:o, s:{s:o, s:o, s:s, s:o}}", "hello", "sallyport", "v",
                     CONTROL_PROTOCOL_VERSION, "version", SALLYPORT_VERSION, "node",
                     control_json_text(status.node), "caller", "uid",
                     client->caller.is_guest ? json_null()
                                             : json_integer((json_int_t)client->caller.uid),
                     "name", control_json_text(client->caller.name), "access",
                     control_access_name(client->caller.access), "user",
                     control_json_text_or_null(client->caller.user));
    control_client_send(client, line);
    json_decref(line);
}

void control_client_start(struct control *c, int fd, const struct peer *peer,
                          const struct caller *caller)
{
    struct control_client *client = calloc(1, sizeof(*client));

    if (!client) {
        evutil_closesocket(fd);
        return;
    }
    client->control = c;
    client->peer = *peer;
    client->caller = *caller;
    TAILQ_INIT(&client->subscriptions);
    client->held = evbuffer_new();
    client->work = event_new(c->base, -1, 0, on_work, client);
    client->timer = event_new(c->base, -1, 0, on_timer, client);
    client->bev = bufferevent_socket_new(c->base, fd, BEV_OPT_CLOSE_ON_FREE);
    TAILQ_INSERT_TAIL(&c->clients, client, link);
    c->client_count++;
    if (!client->bev)
        evutil_closesocket(fd);
    if (!client->held || !client->work || !client->timer || !client->bev) {
        control_client_destroy(client); /* no callback of its own can be running yet */
        return;
    }
    bufferevent_setcb(client->bev, on_read, on_write, on_event, client);
    bufferevent_setwatermark(client->bev, EV_READ, 0, INPUT_MAX);
    bufferevent_setwatermark(client->bev, EV_WRITE, CONTROL_OUTPUT_PAUSE / 2, 0);
    bufferevent_enable(client->bev, EV_READ | EV_WRITE);
    greet(client);
}

/* What is still in the buffer goes out if the peer's socket has room: the answer to `shutdown`. */
static void flush_last_words(struct control_client *client)
{
    struct evbuffer *output = bufferevent_get_output(client->bev);

    if (client->is_dead || !evbuffer_get_length(output))
        return;
    evbuffer_unfreeze(output, 1);
    (void)evbuffer_write(output, bufferevent_getfd(client->bev));
    evbuffer_freeze(output, 1);
}

void control_client_destroy(struct control_client *client)
{
    struct control *c = client->control;

    TAILQ_REMOVE(&c->clients, client, link);
    c->client_count--;
    drop_subscriptions(client);
    if (client->current && client->current->is_pending)
        request_orphan(client->current);
    else if (client->current)
        request_free(client->current);
    if (client->bev) {
        flush_last_words(client);
        bufferevent_free(client->bev);
    }
    if (client->work)
        event_free(client->work);
    if (client->timer)
        event_free(client->timer);
    if (client->held)
        evbuffer_free(client->held);
    free(client);
}

/* ---- subscriptions ---- */

struct subscription *control_subscribe(struct request *r, enum subscription_kind kind)
{
    struct control_client *client = r->client;
    struct subscription *s;

    if (client->subscription_count >= CONTROL_SUBSCRIPTIONS_MAX) {
        control_reply_error(r, "full", "a connection has at most %d subscriptions; open another",
                            CONTROL_SUBSCRIPTIONS_MAX);
        return NULL;
    }
    s = calloc(1, sizeof(*s));
    if (!s) {
        control_reply_error(r, "failed", "out of memory");
        return NULL;
    }
    s->kind = kind;
    s->client = client;
    s->id = json_incref(r->parsed.id);
    TAILQ_INSERT_TAIL(&client->subscriptions, s, link);
    client->subscription_count++;
    if (kind == SUBSCRIPTION_EVENTS)
        client->control->event_followers++;
    return s;
}

static size_t shown_place(const struct subscription *s, uint64_t id)
{
    size_t low = 0, high = s->shown_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (s->shown[middle] < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool control_shown_add(struct subscription *s, uint64_t id)
{
    size_t at = shown_place(s, id);

    if (at < s->shown_count && s->shown[at] == id)
        return true;
    if (s->shown_count == s->shown_cap) {
        size_t cap = s->shown_cap ? s->shown_cap * 2 : 64;
        uint64_t *bigger = reallocarray(s->shown, cap, sizeof(*bigger));
        if (!bigger)
            return false;
        s->shown = bigger;
        s->shown_cap = cap;
    }
    memmove(s->shown + at + 1, s->shown + at, (s->shown_count - at) * sizeof(*s->shown));
    s->shown[at] = id;
    s->shown_count++;
    return true;
}

bool control_shown_remove(struct subscription *s, uint64_t id)
{
    size_t at = shown_place(s, id);

    if (at == s->shown_count || s->shown[at] != id)
        return false;
    s->shown_count--;
    memmove(s->shown + at, s->shown + at + 1, (s->shown_count - at) * sizeof(*s->shown));
    return true;
}
