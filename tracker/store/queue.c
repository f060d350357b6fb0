/*
 * The history queue: session updates and ends, recordings, logins and events wait here and are
 * written in one transaction a turn of the loop, so that no callback of a connection waits for a
 * disk. A locked or full database keeps everything queued, in order and bounded. What a queued row
 * does to the database is in history.c.
 */
#include "tracker/store/store_priv.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>

#define LOG_LINES_PER_MINUTE 6

void queue_init(struct history_queue *queue)
{
    memset(queue, 0, sizeof(*queue));
    TAILQ_INIT(&queue->entries);
}

static void drop_all(struct history_queue *queue)
{
    struct history_entry *e;

    while ((e = TAILQ_FIRST(&queue->entries)) != NULL) {
        TAILQ_REMOVE(&queue->entries, e, order);
        free(e);
    }
    memset(queue->buckets, 0, sizeof(queue->buckets));
    queue->count = 0;
}

void queue_finish(struct history_queue *queue)
{
    drop_all(queue);
}

/* ---- what is about the same thing ---- */

static bool is_session(enum history_kind kind)
{
    return kind == HISTORY_SESSION_UPDATE || kind == HISTORY_SESSION_END ||
           kind == HISTORY_SESSION_REOPEN;
}

static size_t bucket_of(const struct history_entry *e)
{
    uint64_t hash = e->session.id;

    if (e->kind == HISTORY_RECORDING) {
        hash = e->recording.session_id * 31 + e->recording.channel;
    } else if (e->kind == HISTORY_LOGIN) {
        hash = 5381;
        for (const char *p = e->login.name; *p; p++)
            hash = hash * 33 + (uint8_t)*p;
    }
    return hash % STORE_QUEUE_BUCKETS;
}

static bool is_same_thing(const struct history_entry *a, const struct history_entry *b)
{
    if (is_session(a->kind))
        return is_session(b->kind) && a->session.id == b->session.id;
    if (a->kind != b->kind)
        return false;
    if (a->kind == HISTORY_RECORDING)
        return a->recording.session_id == b->recording.session_id &&
               a->recording.channel == b->recording.channel;
    return a->kind == HISTORY_LOGIN && strcmp(a->login.name, b->login.name) == 0;
}

/* The newest queued entry about the same thing, or NULL. */
static struct history_entry *find_newest(const struct history_queue *queue,
                                         const struct history_entry *like)
{
    struct history_entry *e;

    if (like->kind == HISTORY_EVENT)
        return NULL;
    e = queue->buckets[bucket_of(like)];
    while (e && !is_same_thing(like, e))
        e = e->bucket_next;
    return e;
}

/*
 * Merge `next` into `last`, the newest about the same thing; false when both must be written, in
 * order. Right because the statements ignore updates of a row that is not open, and a second end
 * unless the first was broker-lost.
 */
static bool merge(struct history_entry *last, const struct history_entry *next)
{
    switch (next->kind) {
    case HISTORY_SESSION_UPDATE:
        if (last->kind == HISTORY_SESSION_UPDATE)
            last->session = next->session;
        return last->kind != HISTORY_SESSION_REOPEN; /* after an end: nothing to update */
    case HISTORY_SESSION_END:
        if (last->kind == HISTORY_SESSION_REOPEN)
            return false;
        if (last->kind == HISTORY_SESSION_UPDATE || last->session.end_reason == END_BROKER_LOST) {
            last->kind = HISTORY_SESSION_END;
            last->session = next->session;
        }
        return true;
    case HISTORY_RECORDING:
        last->recording = next->recording;
        return true;
    case HISTORY_LOGIN:
        if (next->login.wall_us > last->login.wall_us)
            last->login.wall_us = next->login.wall_us;
        return true;
    case HISTORY_SESSION_REOPEN:
    case HISTORY_EVENT:
        break;
    }
    return false;
}

/* ---- pushing ---- */

/* The end of a session is worth more than an old event. False when there is none to give up. */
static bool evict_event(struct history_queue *queue)
{
    struct history_entry *e;

    TAILQ_FOREACH (e, &queue->entries, order) {
        if (e->kind == HISTORY_EVENT) {
            TAILQ_REMOVE(&queue->entries, e, order); /* events are in no bucket */
            free(e);
            queue->count--;
            queue->lost++;
            return true;
        }
    }
    return false;
}

static void count_loss(struct history_queue *queue, const char *why)
{
    queue->lost++;
    if (log_limit_allows(&queue->log_limit, LOG_LINES_PER_MINUTE, "history lost"))
        log_error("store: a history row is lost lost=%llu reason=\"%s\"",
                  (unsigned long long)queue->lost, why);
}

void queue_push(struct store *s, const struct history_entry *entry)
{
    struct history_queue *queue = &s->queue;
    struct history_entry *e = find_newest(queue, entry);
    size_t bucket;

    if (e && merge(e, entry))
        return;
    if (queue->count >= STORE_QUEUE_MAX && (entry->kind == HISTORY_EVENT || !evict_event(queue))) {
        count_loss(queue, "the queue is full");
        return;
    }
    e = malloc(sizeof(*e));
    if (!e) {
        count_loss(queue, error_text(ERR_MEMORY));
        return;
    }
    *e = *entry;
    e->bucket_next = NULL;
    e->is_refused = false;
    TAILQ_INSERT_TAIL(&queue->entries, e, order);
    queue->count++;
    if (e->kind != HISTORY_EVENT) {
        bucket = bucket_of(e);
        e->bucket_next = queue->buckets[bucket];
        queue->buckets[bucket] = e;
    }
}

/* ---- flushing ---- */

/* An error of the row itself: the database would refuse it again for ever. */
static bool is_refusal(int r)
{
    return r == ERR_EXISTS || r == ERR_NOT_FOUND || r == ERR_INVALID;
}

static int write_all(struct store *s, size_t *refused)
{
    struct history_entry *e;

    *refused = 0;
    TAILQ_FOREACH (e, &s->queue.entries, order) {
        int r = history_write(s, e);

        e->is_refused = is_refusal(r);
        if (e->is_refused)
            ++*refused;
        else if (r)
            return r;
    }
    return 0;
}

/* A lock is tried for without waiting: the loop has sessions to serve, and comes back. */
static int begin_now(struct store *s, bool may_wait)
{
    int r;

    s->never_waits = !may_wait;
    s->always_waits = may_wait;
    r = store_begin(s);
    s->never_waits = s->always_waits = false;
    return r;
}

size_t queue_flush(struct store *s, bool is_last)
{
    struct history_queue *queue = &s->queue;
    int64_t now = clock_mono_ms();
    size_t refused = 0;
    int r;

    if (queue->count == 0 || (now < queue->retry_mono_ms && !is_last))
        return queue->count;
    r = begin_now(s, is_last);
    if (r == 0)
        r = store_finish(s, write_all(s, &refused));
    if (r) {
        if (r != ERR_BUSY)
            queue->retry_mono_ms = now + STORE_RETRY_MS;
        if (log_limit_allows(&queue->log_limit, LOG_LINES_PER_MINUTE, "history not written"))
            log_warn("store: history waits queued=%zu reason=\"%s\"", queue->count, s->error);
        return queue->count;
    }
    if (refused > 0) {
        queue->lost += refused - 1;
        count_loss(queue, s->error);
    }
    queue->retry_mono_ms = 0;
    drop_all(queue);
    return 0;
}

/* ---- reading through the queue ---- */

static void overlay(struct store_session *row, const struct history_entry *e)
{
    struct session_info *to = &row->info;
    const struct session_info *from = &e->session;
    bool may_end = row->is_open || to->end_reason == END_BROKER_LOST;

#define X(n, member, kind) memcpy(&to->member, &from->member, sizeof(to->member));
    if (e->kind == HISTORY_SESSION_UPDATE && row->is_open) {
        SESSION_LIVE_FIELDS(X)
    } else if (e->kind == HISTORY_SESSION_END && may_end) {
        SESSION_LIVE_FIELDS(X)
        SESSION_END_FIELDS(X)
        row->is_open = false;
    } else if (e->kind == HISTORY_SESSION_REOPEN && !row->is_open && may_end) {
        row->is_open = true;
        to->state = SESSION_ACTIVE;
        to->end_reason = END_NONE;
        to->ended_by[0] = to->end_text[0] = '\0';
        to->ended_wall_us = 0;
    }
#undef X
}

void queue_overlay(const struct store *s, struct store_session *row)
{
    struct history_entry like = {.kind = HISTORY_SESSION_UPDATE};
    const struct history_entry *e;

    like.session.id = row->info.id;
    if (!find_newest(&s->queue, &like))
        return;
    TAILQ_FOREACH (e, &s->queue.entries, order) {
        if (is_same_thing(&like, e))
            overlay(row, e);
    }
}
