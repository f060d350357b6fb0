/*
 * The tracker: one object a live session, one timer each, and every end through one function. It
 * decides from the activity page and the policy; it never touches a leg and knows relays only
 * through the four verbs that the broker gave it. Ended sessions are history and live in the store.
 */
#include "tracker/tracker.h"

#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/notice.h>
#include <sallyport/text.h>

#include "tracker/location.h"
#include "tracker/store/store.h"

/* Totals of busy sessions go to the store this often, so that a row closed as broker-lost is close
 * to the truth. */
#define CHECKPOINT_S   10
#define PLANNED_MAX_MS (8 * 86400 * 1000LL) /* `--in` goes to a week */

struct tracked {
    TAILQ_ENTRY(tracked) entry;
    struct tracker *tracker; /* not owned */
    struct session_info info;
    struct policy policy;
    struct activity_page *page; /* owned */
    struct event *timer;        /* owned; armed for the nearest deadline */
    void *relay;                /* not owned; NULL once closed */
    int64_t started_mono_ms;
    int64_t planned_mono_ms; /* when info's announced end is due; 0: none */
    uint64_t saved_bytes;    /* in + out at the last checkpoint */
    bool end_asked;          /* END was sent; reason, author and text in info stay */
};
TAILQ_HEAD(tracked_list, tracked);

struct tracker_watch {
    TAILQ_ENTRY(tracker_watch) entry;
    tracker_watch_fn fn;
    void *arg;
    bool is_removed; /* freed by the sweep, never inside a callback */
};
TAILQ_HEAD(watch_list, tracker_watch);

struct tracker {
    struct event_base *base; /* not owned */
    struct store *store;     /* not owned */
    struct tracker_relay_ops ops;
    struct tracked_list live; /* by id */
    struct tracked_list dead; /* freed by the sweep */
    struct watch_list watches;
    struct event *sweep;
    struct event *checkpoint;
    size_t count;
    uint32_t max_sessions;
    char node[NAME_MAX_LEN + 1];
};

static struct tracked *tracked_find(const struct tracker *t, uint64_t id)
{
    struct tracked *s;

    TAILQ_FOREACH (s, &t->live, entry)
        if (s->info.id == id)
            return s;
    return NULL;
}

static void tracked_free(struct tracked *s)
{
    if (s->timer)
        event_free(s->timer);
    activity_unmap(s->page);
    free(s);
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct tracker *t = arg;
    struct tracked *s;
    struct tracker_watch *w, *next;

    (void)fd, (void)what;
    while ((s = TAILQ_FIRST(&t->dead))) {
        TAILQ_REMOVE(&t->dead, s, entry);
        tracked_free(s);
    }
    for (w = TAILQ_FIRST(&t->watches); w; w = next) {
        next = TAILQ_NEXT(w, entry);
        if (w->is_removed) {
            TAILQ_REMOVE(&t->watches, w, entry);
            free(w);
        }
    }
}

/* The relay writes the counters: past what the store and JSON hold they say nothing more. */
static uint64_t bounded(uint64_t bytes)
{
    return bytes < INT64_MAX ? bytes : INT64_MAX;
}

/* Bring the parts of info that the page and the clocks hold up to now. */
static void tracked_refresh(struct tracked *s)
{
    struct session_info *i = &s->info;
    int64_t now = clock_mono_ms();
    int64_t last = activity_last_ms(s->page, now);

    i->bytes_in = bounded(atomic_load_explicit(&s->page->bytes_in, memory_order_relaxed));
    i->bytes_out = bounded(atomic_load_explicit(&s->page->bytes_out, memory_order_relaxed));
    i->duration_s = (uint64_t)(now - s->started_mono_ms) / 1000;
    i->idle_s = (uint64_t)(now - last) / 1000;
    i->last_activity_wall_us = clock_wall_us() - (now - last) * 1000;
}

static void tracked_announce(struct tracked *s, bool is_end)
{
    struct tracker_watch *w;

    if (!is_end)
        tracked_refresh(s);
    TAILQ_FOREACH (w, &s->tracker->watches, entry)
        if (!w->is_removed)
            w->fn(&s->info, is_end, w->arg);
}

/* The only assignment of a state after the session was made. */
static void tracked_enter(struct tracked *s, enum session_state to)
{
    if (s->info.state == to)
        return;
    log_debug("session id=%llu state %s -> %s", (unsigned long long)s->info.id,
              session_state_name(s->info.state), session_state_name(to));
    s->info.state = to;
    if (to == SESSION_DISCONNECTED)
        return; /* tracker_closed tells */
    tracked_refresh(s);
    store_session_update(s->tracker->store, &s->info);
    tracked_announce(s, false);
}

static void tracked_event(struct tracked *s, const char *kind, const char *text)
{
    struct store_event e = {.at_wall_us = clock_wall_us(), .session_id = s->info.id};

    text_copy(e.kind, sizeof(e.kind), kind);
    text_copy(e.user, sizeof(e.user), s->info.user);
    text_copy(e.source, sizeof(e.source), s->info.client_address);
    text_copy(e.text, sizeof(e.text), text);
    store_event_add(s->tracker->store, &e);
}

/* ---- deadlines ---- */

static void nearest(int64_t *due, int64_t candidate)
{
    if (*due < 0 || candidate < *due)
        *due = candidate;
}

/* Arm the one timer for whatever comes first. */
static void tracked_arm(struct tracked *s)
{
    const struct policy *p = &s->policy;
    int64_t now = clock_mono_ms();
    int64_t last = activity_last_ms(s->page, now);
    int64_t due = -1;
    struct timeval tv;

    if (s->end_asked) {
        event_del(s->timer);
        return;
    }
    if (s->planned_mono_ms)
        nearest(&due, s->planned_mono_ms);
    if (p->max_duration)
        nearest(&due, s->started_mono_ms + (int64_t)p->max_duration * 1000);
    if (s->info.state != SESSION_CONNECTING) {
        if (p->idle_after && s->info.state == SESSION_ACTIVE)
            nearest(&due, last + (int64_t)p->idle_after * 1000);
        if (p->warn_after && !s->info.is_warned)
            nearest(&due, last + (int64_t)p->warn_after * 1000);
        if (p->disconnect_after)
            nearest(&due, last + (int64_t)p->disconnect_after * 1000);
    }
    if (due < 0) {
        event_del(s->timer);
        return;
    }
    due = due > now ? due - now : 0;
    tv.tv_sec = (time_t)(due / 1000);
    tv.tv_usec = (suseconds_t)(due % 1000 * 1000 + 500); /* never a hair too early */
    event_add(s->timer, &tv);
}

static void tracked_warn(struct tracked *s)
{
    char text[256];

    s->info.is_warned = true;
    notice_idle_warning(text, sizeof(text), &s->policy);
    s->tracker->ops.notice(s->relay, true, text);
    tracked_event(s, "idle-warning", text);
    tracked_announce(s, false);
}

static void tracked_end(struct tracked *s, enum end_reason reason, const char *author,
                        const char *text)
{
    char sentence[SESSION_TEXT_MAX];

    if (s->end_asked)
        return;
    s->end_asked = true;
    s->info.end_reason = reason;
    text_copy(s->info.ended_by, sizeof(s->info.ended_by), author);
    notice_end(sentence, sizeof(sentence), reason, author, text, &s->policy);
    text_copy(s->info.end_text, sizeof(s->info.end_text), sentence);
    tracked_arm(s);
    s->tracker->ops.end(s->relay, reason, author, sentence);
}

/* Activity came: neither idle nor warned any more. */
static void tracked_resume(struct tracked *s)
{
    activity_unflag(s->page, ACTIVITY_FLAG_IDLE | ACTIVITY_FLAG_WARNED);
    if (s->info.is_warned) {
        s->info.is_warned = false;
        tracked_announce(s, false);
    }
    tracked_enter(s, SESSION_ACTIVE);
    tracked_arm(s);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct tracked *s = arg;
    const struct policy *p = &s->policy;
    int64_t now = clock_mono_ms();
    int64_t last = activity_last_ms(s->page, now);
    int64_t idle_ms = now - last;

    (void)fd, (void)what;
    if (s->planned_mono_ms && now >= s->planned_mono_ms) {
        tracked_end(s, s->info.planned_reason, s->info.planned_by, s->info.planned_text);
        return;
    }
    if (p->max_duration && now - s->started_mono_ms >= (int64_t)p->max_duration * 1000) {
        tracked_end(s, END_MAX_DURATION, "policy", "");
        return;
    }
    if (s->info.state != SESSION_CONNECTING) {
        if (p->disconnect_after && idle_ms >= (int64_t)p->disconnect_after * 1000) {
            if (activity_flag(s->page, ACTIVITY_FLAG_IDLE, last))
                tracked_end(s, END_IDLE_TIMEOUT, "policy", "");
            else /* at the last moment; the flag is gone, so the relay may not say RESUMED */
                tracked_resume(s);
            return;
        }
        if (p->idle_after && idle_ms >= (int64_t)p->idle_after * 1000 &&
            s->info.state == SESSION_ACTIVE && activity_flag(s->page, ACTIVITY_FLAG_IDLE, last))
            tracked_enter(s, SESSION_IDLE);
        if (p->warn_after && idle_ms >= (int64_t)p->warn_after * 1000 && !s->info.is_warned &&
            activity_flag(s->page, ACTIVITY_FLAG_WARNED, last))
            tracked_warn(s);
    }
    tracked_arm(s);
}

static void checkpoint_cb(evutil_socket_t fd, short what, void *arg)
{
    struct tracker *t = arg;
    struct tracked *s;

    (void)fd, (void)what;
    TAILQ_FOREACH (s, &t->live, entry) {
        uint64_t bytes;

        tracked_refresh(s);
        bytes = s->info.bytes_in + s->info.bytes_out;
        if (bytes == s->saved_bytes)
            continue;
        s->saved_bytes = bytes;
        store_session_update(t->store, &s->info);
    }
}

/* ---- life ---- */

struct tracker *tracker_create(struct event_base *base, struct store *store,
                               const struct tracker_relay_ops *ops, const char *node)
{
    struct tracker *t = calloc(1, sizeof(*t));
    struct timeval every = {CHECKPOINT_S, 0};

    if (!t)
        return NULL;
    t->base = base;
    t->store = store;
    t->ops = *ops;
    text_copy(t->node, sizeof(t->node), node);
    TAILQ_INIT(&t->live);
    TAILQ_INIT(&t->dead);
    TAILQ_INIT(&t->watches);
    t->sweep = event_new(base, -1, 0, sweep_cb, t);
    t->checkpoint = event_new(base, -1, EV_PERSIST, checkpoint_cb, t);
    if (!t->sweep || !t->checkpoint || event_add(t->checkpoint, &every) < 0) {
        tracker_destroy(t);
        return NULL;
    }
    return t;
}

void tracker_destroy(struct tracker *t)
{
    struct tracked *s;
    struct tracker_watch *w;

    if (!t)
        return;
    TAILQ_FOREACH (w, &t->watches, entry)
        w->is_removed = true;
    if (t->checkpoint && !TAILQ_EMPTY(&t->live))
        checkpoint_cb(-1, 0, t);
    while ((s = TAILQ_FIRST(&t->live))) {
        TAILQ_REMOVE(&t->live, s, entry);
        tracked_free(s);
    }
    sweep_cb(-1, 0, t);
    if (t->sweep)
        event_free(t->sweep);
    if (t->checkpoint)
        event_free(t->checkpoint);
    free(t);
}

static void tracked_insert(struct tracker *t, struct tracked *s)
{
    struct tracked *after;

    TAILQ_FOREACH_REVERSE(after, &t->live, tracked_list, entry)
    {
        if (after->info.id < s->info.id)
            break;
    }
    if (after)
        TAILQ_INSERT_AFTER(&t->live, after, s, entry);
    else
        TAILQ_INSERT_HEAD(&t->live, s, entry);
    t->count++;
}

static struct tracked *tracked_new(struct tracker *t, const struct policy *policy, void *relay)
{
    struct tracked *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->tracker = t;
    s->policy = *policy;
    s->relay = relay;
    s->timer = event_new(t->base, -1, 0, timer_cb, s);
    if (!s->timer) {
        free(s);
        return NULL;
    }
    return s;
}

static int check_limits(const struct tracker *t, const char *user, const struct policy *policy,
                        char *err, size_t err_len)
{
    if (t->max_sessions && t->count >= t->max_sessions) {
        snprintf(err, err_len, "all %u sessions of this proxy are in use; try again later",
                 t->max_sessions);
        return ERR_FULL;
    }
    if (policy->sessions_per_user &&
        tracker_count_user(t, user) >= (size_t)policy->sessions_per_user) {
        snprintf(err, err_len, "you have %llu sessions, which is the limit; end one first",
                 (unsigned long long)policy->sessions_per_user);
        return ERR_FULL;
    }
    return 0;
}

static void log_open_line(const struct session_info *i)
{
    char account[LOG_VALUE_MAX], device[LOG_VALUE_MAX];

    log_info("session open id=%llu type=%s user=%s account=%s target=%s address=%s source=%s "
             "port=%u device=%s pid=%d",
             (unsigned long long)i->id, protocol_name(i->protocol), i->user,
             log_value(account, sizeof(account), i->account), i->target, i->address,
             i->client_address, i->client_port, log_value(device, sizeof(device), i->device),
             i->relay_pid);
}

int tracker_open(struct tracker *t, struct session_info *info, const struct policy *policy,
                 void *relay, int *page_fd, char *err, size_t err_len)
{
    struct tracked *s;
    int r = check_limits(t, info->user, policy, err, err_len);

    if (r < 0)
        return r;
    s = tracked_new(t, policy, relay);
    if (!s)
        return ERR_MEMORY;
    info->state = SESSION_CONNECTING;
    info->end_reason = END_NONE;
    info->started_wall_us = clock_wall_us();
    info->last_activity_wall_us = info->started_wall_us;
    text_copy(info->node, sizeof(info->node), t->node);
    text_copy(info->location, sizeof(info->location), location_of(info->client_address));
    r = store_session_open(t->store, info);
    if (r < 0) {
        snprintf(err, err_len, "the session could not be written to the store (%s)",
                 store_error(t->store));
        tracked_free(s);
        return r;
    }
    s->info = *info;
    s->page = activity_create(info->id, page_fd);
    if (!s->page) {
        snprintf(err, err_len, "no memory for the session");
        info->end_reason = END_POLICY;
        info->state = SESSION_DISCONNECTED;
        info->ended_wall_us = clock_wall_us();
        text_copy(info->end_text, sizeof(info->end_text), err);
        store_session_end(t->store, info);
        tracked_free(s);
        return ERR_SYSTEM;
    }
    s->started_mono_ms = s->page->started_mono_ms;
    tracked_insert(t, s);
    log_open_line(&s->info);
    tracked_event(s, "session-open", s->info.target);
    tracked_arm(s);
    tracked_announce(s, false);
    return 0;
}

/* When an announced end is due; never 0, and bounded, whatever the clock on the wall did. */
static int64_t planned_mono(int64_t wall_us, int64_t now)
{
    int64_t in_ms = (wall_us - clock_wall_us()) / 1000;

    if (in_ms < 0)
        in_ms = 0;
    return now + (in_ms < PLANNED_MAX_MS ? in_ms : PLANNED_MAX_MS) + 1;
}

int tracker_adopt(struct tracker *t, uint64_t id, const struct policy *policy,
                  struct activity_page *page, void *relay)
{
    struct store_session row;
    struct tracked *s;
    int64_t now = clock_mono_ms();
    int r;

    if (tracked_find(t, id))
        return ERR_EXISTS;
    r = store_session_get(t->store, id, &row);
    if (r < 0)
        return r;
    if (!row.is_open && row.info.end_reason != END_BROKER_LOST)
        return ERR_NOT_FOUND;
    s = tracked_new(t, policy, relay);
    if (!s)
        return ERR_MEMORY;
    if (!row.is_open)
        store_session_reopen(t->store, id);
    s->info = row.info;
    s->info.end_reason = END_NONE;
    s->info.ended_wall_us = 0;
    s->info.ended_by[0] = s->info.end_text[0] = '\0';
    s->page = page;
    s->started_mono_ms = page->started_mono_ms < now ? page->started_mono_ms : now;
    if (s->started_mono_ms < 0)
        s->started_mono_ms = 0;
    if (s->info.state == SESSION_DISCONNECTED)
        s->info.state = SESSION_ACTIVE;
    if (s->info.planned_wall_us) /* by the clock on the wall: it ran on while nobody was here */
        s->planned_mono_ms = planned_mono(s->info.planned_wall_us, now);
    s->info.is_warned = atomic_load(&page->flags) & ACTIVITY_FLAG_WARNED;
    if (s->info.state == SESSION_IDLE && !(atomic_load(&page->flags) & ACTIVITY_FLAG_IDLE))
        s->info.state = SESSION_ACTIVE;
    tracked_insert(t, s);
    tracked_refresh(s);
    log_info("session adopted id=%llu user=%s target=%s", (unsigned long long)id, s->info.user,
             s->info.target);
    store_session_update(t->store, &s->info);
    tracked_arm(s);
    tracked_announce(s, false);
    return 0;
}

void tracker_ready(struct tracker *t, uint64_t id)
{
    struct tracked *s = tracked_find(t, id);

    if (!s || s->info.state != SESSION_CONNECTING)
        return;
    tracked_enter(s, SESSION_ACTIVE);
    tracked_arm(s);
}

void tracker_resumed(struct tracker *t, uint64_t id)
{
    struct tracked *s = tracked_find(t, id);

    if (s && s->info.state != SESSION_CONNECTING)
        tracked_resume(s);
}

void tracker_channels(struct tracker *t, uint64_t id, const char *channels)
{
    struct tracked *s = tracked_find(t, id);

    if (!s)
        return;
    text_copy(s->info.channels, sizeof(s->info.channels), channels);
    store_session_update(t->store, &s->info);
    tracked_announce(s, false);
}

void tracker_device(struct tracker *t, uint64_t id, const char *device)
{
    struct tracked *s = tracked_find(t, id);

    if (!s || strcmp(s->info.device, device) == 0)
        return;
    text_copy(s->info.device, sizeof(s->info.device), device);
    store_session_update(t->store, &s->info);
    tracked_announce(s, false);
}

void tracker_recording(struct tracker *t, uint64_t id, enum recording_state state)
{
    struct tracked *s = tracked_find(t, id);

    if (!s || s->info.recording == state)
        return;
    s->info.recording = state;
    store_session_update(t->store, &s->info);
    tracked_announce(s, false);
}

static void log_close_line(const struct session_info *i)
{
    char account[LOG_VALUE_MAX], by[LOG_VALUE_MAX], text[LOG_VALUE_MAX];
    char duration[DURATION_TEXT_MAX], took[DURATION_TEXT_MAX + 2];

    text_duration(duration, sizeof(duration), i->duration_s);
    log_info("session close id=%llu type=%s user=%s account=%s target=%s source=%s reason=%s "
             "by=%s duration=%s seconds=%llu bytes_in=%llu bytes_out=%llu text=%s",
             (unsigned long long)i->id, protocol_name(i->protocol), i->user,
             log_value(account, sizeof(account), i->account), i->target, i->client_address,
             end_reason_name(i->end_reason), log_value(by, sizeof(by), i->ended_by),
             log_value(took, sizeof(took), duration), (unsigned long long)i->duration_s,
             (unsigned long long)i->bytes_in, (unsigned long long)i->bytes_out,
             log_value(text, sizeof(text), i->end_text));
}

void tracker_closed(struct tracker *t, uint64_t id, enum end_reason reason, const char *author,
                    const char *text)
{
    struct tracked *s = tracked_find(t, id);
    struct session_info *i;

    if (!s)
        return;
    i = &s->info;
    tracked_refresh(s);
    if (!s->end_asked) {
        i->end_reason = reason;
        text_copy(i->ended_by, sizeof(i->ended_by), author);
        text_copy(i->end_text, sizeof(i->end_text), *text ? text : end_reason_text(reason));
        s->end_asked = true;
    }
    i->ended_wall_us = clock_wall_us();
    i->relay_pid = 0;
    tracked_enter(s, SESSION_DISCONNECTED);
    store_session_end(t->store, i);
    tracked_event(s, "session-end", i->end_text);
    log_close_line(i);
    event_del(s->timer);
    s->relay = NULL;
    TAILQ_REMOVE(&t->live, s, entry);
    t->count--;
    TAILQ_INSERT_TAIL(&t->dead, s, entry);
    tracked_announce(s, true);
    event_active(t->sweep, 0, 0);
}

struct unclaimed {
    struct tracker *tracker;
    struct session_info *rows;
    size_t count, cap;
};

static bool unclaimed_row(const struct store_session *row, void *arg)
{
    struct unclaimed *u = arg;

    if (tracked_find(u->tracker, row->info.id))
        return true;
    if (u->count == u->cap) {
        size_t cap = u->cap ? u->cap * 2 : 64;
        struct session_info *rows = reallocarray(u->rows, cap, sizeof(*rows));

        if (!rows)
            return false; /* the rest is closed at the next start */
        u->rows = rows;
        u->cap = cap;
    }
    u->rows[u->count++] = row->info;
    return true;
}

void tracker_close_unclaimed(struct tracker *t)
{
    struct store_session_filter open = {.protocol = -1, .only_open = true};
    struct unclaimed u = {.tracker = t};

    store_flush(t->store);
    if (store_sessions(t->store, &open, unclaimed_row, &u) < 0)
        log_error("open sessions could not be read: %s", store_error(t->store));
    for (size_t n = 0; n < u.count; n++) {
        struct session_info *i = &u.rows[n];

        i->state = SESSION_DISCONNECTED;
        i->end_reason = END_BROKER_LOST;
        i->ended_wall_us = clock_wall_us();
        i->relay_pid = 0;
        text_copy(i->ended_by, sizeof(i->ended_by), "broker");
        text_copy(i->end_text, sizeof(i->end_text),
                  "the session ended while no broker was there to see it");
        store_session_end(t->store, i);
        log_info("session close id=%llu user=%s target=%s reason=%s", (unsigned long long)i->id,
                 i->user, i->target, end_reason_name(i->end_reason));
    }
    free(u.rows);
}

void tracker_set_policy(struct tracker *t, uint64_t id, const struct policy *policy)
{
    struct tracked *s = tracked_find(t, id);

    if (!s || memcmp(&s->policy, policy, sizeof(*policy)) == 0)
        return;
    s->policy = *policy;
    t->ops.policy(s->relay, policy);
    tracked_arm(s);
}

void tracker_set_max_sessions(struct tracker *t, uint32_t max_sessions)
{
    t->max_sessions = max_sessions;
}

/* ---- reading and ending ---- */

void tracker_each(struct tracker *t, tracker_fn fn, void *arg)
{
    struct tracked *s;

    TAILQ_FOREACH (s, &t->live, entry) {
        tracked_refresh(s);
        if (!fn(&s->info, arg))
            return;
    }
}

int tracker_get(struct tracker *t, uint64_t id, struct session_info *out)
{
    struct tracked *s = tracked_find(t, id);
    struct store_session row;
    int r;

    if (s) {
        tracked_refresh(s);
        *out = s->info;
        return 0;
    }
    store_flush(t->store);
    r = store_session_get(t->store, id, &row);
    if (r < 0)
        return r;
    *out = row.info;
    return 0;
}

size_t tracker_count(const struct tracker *t)
{
    return t->count;
}

size_t tracker_count_user(const struct tracker *t, const char *user)
{
    const struct tracked *s;
    size_t n = 0;

    TAILQ_FOREACH (s, &t->live, entry)
        n += strcmp(s->info.user, user) == 0;
    return n;
}

/* An end was announced or is not any more: say, keep and wait for it. */
static void tracked_planned(struct tracked *s)
{
    store_session_update(s->tracker->store, &s->info);
    tracked_announce(s, false);
    tracked_arm(s);
}

int tracker_end(struct tracker *t, uint64_t id, enum end_reason reason, const char *author,
                const char *text, uint32_t in_s)
{
    struct tracked *s = tracked_find(t, id);
    char sentence[SESSION_TEXT_MAX], notice[512], words[64];
    const char *cause;

    if (!s)
        return ERR_NOT_FOUND;
    if (s->end_asked)
        return 0;
    if (in_s == 0) {
        tracked_end(s, reason, author, text);
        return 0;
    }
    notice_end(sentence, sizeof(sentence), reason, author, text, &s->policy);
    cause = strstr(sentence, ": ");
    snprintf(notice, sizeof(notice), "You will be disconnected in %s%s",
             text_duration_words(words, sizeof(words), in_s), cause ? cause : "");
    s->planned_mono_ms = clock_mono_ms() + (int64_t)in_s * 1000;
    s->info.planned_wall_us = clock_wall_us() + (int64_t)in_s * 1000000;
    s->info.planned_reason = reason;
    text_copy(s->info.planned_by, sizeof(s->info.planned_by), author);
    text_copy(s->info.planned_text, sizeof(s->info.planned_text), text);
    t->ops.notice(s->relay, true, notice);
    tracked_planned(s);
    return 0;
}

int tracker_cancel_end(struct tracker *t, uint64_t id)
{
    struct tracked *s = tracked_find(t, id);

    if (!s || s->end_asked || !s->planned_mono_ms)
        return ERR_NOT_FOUND;
    s->planned_mono_ms = s->info.planned_wall_us = 0;
    s->info.planned_reason = END_NONE;
    s->info.planned_by[0] = s->info.planned_text[0] = '\0';
    t->ops.notice(s->relay, false, "You will not be disconnected: the announced end was cancelled");
    tracked_planned(s);
    return 0;
}

int tracker_message(struct tracker *t, uint64_t id, const char *author, const char *text)
{
    struct tracked *s = tracked_find(t, id);
    char line[1024];

    if (!s)
        return ERR_NOT_FOUND;
    snprintf(line, sizeof(line), "Message from %s: %s", author, text);
    t->ops.notice(s->relay, false, line);
    tracked_event(s, "message", line);
    return 0;
}

struct tracker_watch *tracker_watch_add(struct tracker *t, tracker_watch_fn fn, void *arg)
{
    struct tracker_watch *w = calloc(1, sizeof(*w));

    if (!w)
        return NULL;
    w->fn = fn;
    w->arg = arg;
    TAILQ_INSERT_TAIL(&t->watches, w, entry);
    return w;
}

void tracker_watch_remove(struct tracker *t, struct tracker_watch *w)
{
    if (!w)
        return;
    w->is_removed = true;
    event_active(t->sweep, 0, 0);
}
