/*
 * The life of a relay: waits for WELCOME, hands the client to the protocol, keeps the deadlines,
 * ends once with a reason, and delivers CLOSED. What goes over the link is uplink.c; what goes
 * between the legs is the protocol's. Called by proxy/gate in the forked child.
 */
#include "proxy/relay/relay.h"

#include <errno.h>
#include <event2/event.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/network.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/relay/relay_priv.h"
#include "proxy/relay/sandbox.h"

#define MS                  1000
#define CHOOSING_MAX_S      600 /* a menu that nobody answers */
#define ACK_WAIT_MS         2000
#define ACK_WAIT_ALONE_MS   60000
#define END_DEADLINE_SSH_MS 1000 /* docs/link.md; what the relay gives itself */
#define END_DEADLINE_RDP_MS 4000

/* ---- what a protocol may know ---- */

struct event_base *relay_base(struct relay *r)
{
    return r->base;
}

const struct policy *relay_policy(const struct relay *r)
{
    return &r->policy;
}

uint64_t relay_session_id(const struct relay *r)
{
    return r->session_id;
}

enum end_reason relay_end_reason(const struct relay *r)
{
    return r->is_ending || r->is_finishing ? r->ending.reason : END_NONE;
}

void relay_client_spoke(struct relay *r)
{
    *r->spoken = 1;
}

void relay_narrow(struct relay *r)
{
    if (r->is_narrow)
        return;
    r->is_narrow = true;
    if (sandbox_filter_session() < 0)
        relay_finish(r, END_RELAY_CRASHED, "relay", "the sandbox could not be narrowed");
    malloc_trim(0); /* what two key exchanges needed is not needed while relaying */
}

/* ---- the end ---- */

void relay_forget_session(struct relay *r)
{
    activity_unmap(r->page);
    r->page = NULL;
    if (r->page_fd >= 0)
        close(r->page_fd);
    r->page_fd = -1;
    r->session_id = 0;
    outbox_forget_session(&r->outbox);
    policy_defaults(&r->policy);
    log_set_prefix("%s %s:%u", r->protocol->name, r->client_address, r->client_port);
    relay_enter(r, LINK_PHASE_CHOOSING);
}

void relay_enter(struct relay *r, enum link_phase phase)
{
    static const char *const names[] = {"login", "choosing", "session", "ended"};

    log_debug("%s -> %s", names[r->phase], names[phase]);
    r->phase = phase;
    r->phase_ms = clock_mono_ms();
}

static void set_ending(struct relay *r, enum end_reason reason, const char *author,
                       const char *text)
{
    r->ending.reason = reason;
    text_copy(r->ending.author, sizeof(r->ending.author), author);
    text_copy(r->ending.text, sizeof(r->ending.text), text);
}

void relay_finish(struct relay *r, enum end_reason reason, const char *author, const char *text)
{
    if (r->is_finishing)
        return;
    if (!r->is_ending)
        set_ending(r, reason, author, text);
    r->is_finishing = true; /* the loop's top level does the rest */
}

void relay_end(struct relay *r, enum end_reason reason, const char *author, const char *sentence,
               uint32_t deadline_ms)
{
    if (r->is_ending || r->is_finishing)
        return;
    set_ending(r, reason, author, sentence);
    r->is_ending = true;
    if (!r->self) {
        relay_finish(r, reason, author, sentence);
        return;
    }
    /* a little before the broker would kill us, so that CLOSED still arrives */
    r->end_by_ms = clock_mono_ms() + deadline_ms - deadline_ms / 8;
    r->protocol->end(r->self, sentence, deadline_ms);
}

static void end_by_ourselves(struct relay *r, enum end_reason reason, const char *author,
                             const char *sentence)
{
    relay_end(r, reason, author, sentence,
              r->protocol->protocol == PROTOCOL_RDP ? END_DEADLINE_RDP_MS : END_DEADLINE_SSH_MS);
}

static void close_client(struct relay *r)
{
    if (r->client_fd < 0)
        return;
    event_del(&r->client_readable);
    close(r->client_fd);
    r->client_fd = -1;
}

/* At most so many rows a message and one message now and then; at the end all that is there. */
static void flush_files(struct relay *r, bool is_end)
{
    struct link_message *m;
    int64_t now_ms;

    if (files_is_empty(&r->files) || r->phase == LINK_PHASE_ENDED)
        return;
    now_ms = clock_mono_ms();
    if (!is_end && (now_ms < r->files.next_ms || r->uplink.state != UPLINK_UP ||
                    r->uplink.is_full || r->uplink.version < LINK_FILES_SINCE))
        return;
    do {
        m = uplink_begin(LINK_FILES);
        if (!files_take(&r->files, is_end ? SIZE_MAX : FILES_BATCH_ROWS, &m->files))
            break;
        uplink_put(r, OUTBOX_KEPT);
    } while (is_end);
    r->files.next_ms = now_ms + FILES_EVERY_MS;
}

/* When the next batch may go; `due` when nothing waits for that alone. */
static int64_t files_due(const struct relay *r, int64_t due)
{
    if (files_is_empty(&r->files) || r->uplink.state != UPLINK_UP || r->uplink.is_full ||
        r->phase == LINK_PHASE_ENDED || r->uplink.version < LINK_FILES_SINCE)
        return due;
    return due == ALONE_NEVER || r->files.next_ms < due ? r->files.next_ms : due;
}

static void queue_closed(struct relay *r)
{
    struct link_closed *c = &uplink_begin(LINK_CLOSED)->closed;

    c->reason = (uint8_t)r->ending.reason;
    text_copy(c->author, sizeof(c->author), r->ending.author);
    text_copy(c->text, sizeof(c->text), r->ending.text);
    if (r->page) {
        c->bytes_in = atomic_load_explicit(&r->page->bytes_in, memory_order_relaxed);
        c->bytes_out = atomic_load_explicit(&r->page->bytes_out, memory_order_relaxed);
    } else {
        c->bytes_in = r->jump_in;
        c->bytes_out = r->jump_out;
    }
    uplink_put(r, OUTBOX_REQUEST);
}

/* Top level: nothing of the protocol is on the stack. */
static void close_connection(struct relay *r)
{
    void *self = r->self;

    r->self = NULL;
    if (self)
        r->protocol->finish(self); /* closes recordings: the last frames are said before CLOSED */
    close_client(r);
    log_debug("over: %s by %s: %s", end_reason_name(r->ending.reason), r->ending.author,
              r->ending.text);
    flush_files(r, true);
    queue_closed(r);
    relay_enter(r, LINK_PHASE_ENDED);
}

/* ---- the beginning ---- */

void relay_start_protocol(struct relay *r, const struct link_welcome *limits)
{
    int fd = r->client_fd;

    if (r->self || r->is_finishing || r->phase == LINK_PHASE_ENDED)
        return;
    event_del(&r->client_readable);
    r->client_fd = -1;
    r->self = r->protocol->start(r, fd, limits);
    if (!r->self) {
        close(fd);
        relay_finish(r, END_RELAY_CRASHED, "relay", "out of memory");
    }
}

/* Before WELCOME: learn whether the client speaks or goes, and leave its bytes alone. Once, since
 * bytes that stay would wake us again and again. */
static void client_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;
    int bytes = 0;

    (void)what;
    if (ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0)
        relay_client_spoke(r);
    else
        relay_finish(r, END_NETWORK_LOST, "client", "the client went away");
}

static void sigterm_cb(evutil_socket_t sig, short what, void *arg)
{
    struct relay *r = arg;

    (void)sig, (void)what;
    if (r->phase == LINK_PHASE_ENDED)
        r->is_over = true;
    else
        end_by_ourselves(r, END_SHUTDOWN, "system",
                         "You have been disconnected: Sallyport is shutting down");
}

static void listen_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    uplink_accept(arg);
}

/* ---- time ---- */

static struct alone_view view_of(const struct relay *r, int64_t now_ms)
{
    return (struct alone_view){
        .since_ms = r->alone_since_ms,
        .started_ms = r->page->started_mono_ms,
        .last_ms = r->is_ready ? activity_last_ms(r->page, now_ms) : now_ms,
        .warned_for_ms = r->warned_for_ms,
        .broker_lost_after_s = r->broker_lost_after_s,
        .policy = &r->policy,
    };
}

/* Without a broker we keep the limits ourselves. Returns when to look again. */
static int64_t look_after_ourselves(struct relay *r, int64_t now_ms)
{
    static const enum end_reason reasons[] = {
        [ALONE_END_IDLE] = END_IDLE_TIMEOUT,
        [ALONE_END_MAX_DURATION] = END_MAX_DURATION,
        [ALONE_END_BROKER_LOST] = END_BROKER_LOST,
    };
    struct alone_view v = view_of(r, now_ms);
    char sentence[SESSION_TEXT_MAX];
    int64_t wake_ms;
    enum alone_verdict verdict = alone_check(&v, now_ms, &wake_ms);

    if (verdict == ALONE_WAIT)
        return wake_ms;
    alone_sentence(sentence, sizeof(sentence), verdict, &v);
    if (verdict != ALONE_WARN) {
        end_by_ourselves(r, reasons[verdict], "policy", sentence);
        return ALONE_NEVER;
    }
    r->warned_for_ms = v.last_ms;
    if (r->self)
        r->protocol->notice(r->self, LINK_NOTICE_WARNING, sentence);
    relay_event(r, "idle-warning", sentence);
    return now_ms;
}

static void grace_is_over(struct relay *r)
{
    char text[SESSION_TEXT_MAX], words[64];

    snprintf(text, sizeof(text), "You have been disconnected: not logged in within %s",
             text_duration_words(words, sizeof(words), r->login_grace_s));
    end_by_ourselves(r, END_POLICY, "policy", text);
}

/* When a connection without a session is over. One that carries jumps is not, and stays for more of
 * them as long as a session may be idle; never without limit, as nobody would see it. */
static int64_t choosing_due(const struct relay *r)
{
    uint32_t limit_s = CHOOSING_MAX_S;

    if (r->jump_count > 0 || r->door_count > 0)
        return ALONE_NEVER;
    if (r->is_inner)
        return r->accepted_ms + (int64_t)r->login_grace_s * MS;
    if (r->has_jumped && r->jump_idle_s > 0 && r->jump_idle_s < limit_s)
        limit_s = r->jump_idle_s;
    return r->phase_ms + (int64_t)limit_s * MS;
}

static void choosing_is_over(struct relay *r)
{
    char text[SESSION_TEXT_MAX], words[64];
    int64_t waited_s = (clock_mono_ms() - r->phase_ms) / MS;

    if (r->is_inner) {
        grace_is_over(r);
        return;
    }
    if (!r->has_jumped)
        text_copy(text, sizeof(text), "You have been disconnected: no target was chosen in time");
    else
        snprintf(text, sizeof(text), "You have been disconnected: nothing was open for %s",
                 text_duration_words(words, sizeof(words), (uint64_t)waited_s));
    end_by_ourselves(r, END_POLICY, "policy", text);
}

/* In the session itself there is nothing to wait for while a broker is there: it keeps the limits,
 * and an idle relay sleeps. */
static int64_t watch_phase(struct relay *r, int64_t now_ms)
{
    int64_t due = ALONE_NEVER;

    switch (r->phase) {
    case LINK_PHASE_LOGIN:
        due = r->accepted_ms + (int64_t)r->login_grace_s * MS;
        due = due < r->login_by_ms ? r->login_by_ms : due;
        if (now_ms >= due)
            grace_is_over(r);
        break;
    case LINK_PHASE_CHOOSING:
        due = choosing_due(r);
        if (now_ms >= due)
            choosing_is_over(r);
        break;
    case LINK_PHASE_SESSION:
        if (r->alone_since_ms)
            due = look_after_ourselves(r, now_ms);
        break;
    case LINK_PHASE_ENDED:
        break;
    }
    return due;
}

static int64_t watch_ending(struct relay *r, int64_t now_ms)
{
    int64_t due = ALONE_NEVER;

    if (r->phase == LINK_PHASE_ENDED) {
        if (r->uplink.state == UPLINK_NONE)
            due = r->phase_ms + (r->session_id ? ACK_WAIT_ALONE_MS : 0);
        else if (r->leave_by_ms)
            due = r->leave_by_ms;
        else
            due = r->leave_by_ms = now_ms + ACK_WAIT_MS;
        if (r->uplink.state == UPLINK_NONE)
            r->leave_by_ms = 0; /* the next broker has its own two seconds */
        if (now_ms >= due)
            r->is_over = true;
    } else if (r->is_ending && r->end_by_ms) {
        due = r->end_by_ms;
        if (now_ms >= due)
            relay_finish(r, END_NONE, "", "");
    }
    return due;
}

static int64_t look_at_clock(struct relay *r)
{
    int64_t now_ms, due;

    if (r->phase == LINK_PHASE_SESSION && !r->is_ending && !r->alone_since_ms)
        return ALONE_NEVER; /* the way of every packet: not even a look at the clock */
    now_ms = clock_mono_ms();
    due = r->is_ending || r->phase == LINK_PHASE_ENDED ? watch_ending(r, now_ms)
                                                       : watch_phase(r, now_ms);
    return due;
}

static void arm_timer(struct relay *r, int64_t due_ms)
{
    struct timeval in;
    int64_t left_ms;

    if (due_ms == r->timer_ms)
        return;
    r->timer_ms = due_ms;
    if (due_ms == ALONE_NEVER) {
        event_del(&r->timer);
        return;
    }
    left_ms = due_ms - clock_mono_ms();
    if (left_ms < 0)
        left_ms = 0;
    in.tv_sec = left_ms / MS;
    in.tv_usec = left_ms % MS * MS + 500; /* never a hair too early */
    event_add(&r->timer, &in);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct relay *r = arg;

    (void)fd, (void)what;
    r->timer_ms = ALONE_NEVER; /* turn() looks at the clock */
}

/* ---- the loop ---- */

/* After each round of events, with no callback on the stack. */
static void turn(struct relay *r)
{
    int64_t due;

    do {
        look_at_clock(r);
        if (r->is_finishing && r->phase != LINK_PHASE_ENDED)
            close_connection(r);
        flush_files(r, false);
        uplink_flush(r);
        due = files_due(r, look_at_clock(r)); /* again: the link may have broken just now */
    } while (r->is_finishing && r->phase != LINK_PHASE_ENDED);
    arm_timer(r, due);
}

/* The client of a jump is the one at the other end of the connection that carries it. */
static void name_inner_client(struct relay *r, const struct link_gate_jump *jump)
{
    r->is_inner = true;
    text_copy(r->client_address, sizeof(r->client_address), jump->client_address);
    r->client_port = jump->client_port;
    text_copy(r->device, sizeof(r->device), jump->device);
    r->ticket.len = jump->pass.len;
    memcpy(r->ticket.data, jump->pass.data, jump->pass.len);
}

static void name_client(struct relay *r, const struct relay_birth *birth)
{
    text_copy(r->client_address, sizeof(r->client_address), "?");
    if (birth->client_address)
        network_address_text(birth->client_address, r->client_address);
    r->client_port = birth->client_port;
}

static struct relay *relay_create(const struct relay_protocol *protocol,
                                  const struct relay_birth *birth)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (!r || !(r->base = event_base_new())) {
        free(r);
        return NULL;
    }
    r->protocol = protocol;
    r->spoken = birth->spoken;
    r->client_fd = birth->client_fd;
    r->listen_fd = birth->listen_fd;
    r->broker_uid = birth->broker_uid;
    r->accepted_ms = birth->accepted_mono_ms;
    r->login_grace_s = birth->login_grace_s;
    r->page_fd = -1;
    r->timer_ms = ALONE_NEVER;
    policy_defaults(&r->policy);
    outbox_init(&r->outbox);
    files_init(&r->files);
    if (birth->jump)
        name_inner_client(r, birth->jump);
    else
        name_client(r, birth);
    log_set_prefix("%s %s:%u", protocol->name, r->client_address, r->client_port);
    event_assign(&r->timer, r->base, -1, 0, timer_cb, r);
    event_assign(&r->client_readable, r->base, r->client_fd, EV_READ, client_cb, r);
    event_assign(&r->listen_readable, r->base, r->listen_fd, EV_READ | EV_PERSIST, listen_cb, r);
    event_assign(&r->sigterm, r->base, SIGTERM, EV_SIGNAL | EV_PERSIST, sigterm_cb, r);
    uplink_init(r);
    return r;
}

static void relay_destroy(struct relay *r)
{
    uplink_close(r);
    close_client(r);
    event_del(&r->timer);
    event_del(&r->listen_readable);
    event_del(&r->sigterm);
    close(r->listen_fd);
    activity_unmap(r->page);
    if (r->page_fd >= 0)
        close(r->page_fd);
    outbox_finish(&r->outbox);
    files_finish(&r->files);
    free(r->rows);
    event_base_free(r->base);
    memory_wipe(&r->ticket, sizeof(r->ticket));
    free(r);
}

int relay_run(const struct relay_protocol *protocol, const struct relay_birth *birth)
{
    struct relay *r = relay_create(protocol, birth);

    if (!r) {
        log_error("out of memory");
        return 1;
    }
    if (event_add(&r->client_readable, NULL) < 0 || event_add(&r->listen_readable, NULL) < 0 ||
        event_add(&r->sigterm, NULL) < 0) {
        log_error("out of memory");
        relay_destroy(r);
        return 1;
    }
    if (birth->link_fd >= 0)
        uplink_use(r, birth->link_fd);
    turn(r);
    while (!r->is_over) {
        if (event_base_loop(r->base, EVLOOP_ONCE) < 0) {
            log_error("the event loop broke: %s", strerror(errno));
            break;
        }
        turn(r);
    }
    relay_destroy(r);
    return 0;
}
