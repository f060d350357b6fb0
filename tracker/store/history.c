/*
 * History: sessions, recordings and events. Opening a session or a recording is immediate, since
 * nothing begins without its row; the rest is queued (queue.c) and written by history_write().
 * Reads try to flush first and then look through what is still queued, so that an end that was told
 * is never shown as open. Called by the tracker and control.
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

/* ---- fields of a session: one pair of functions a kind ---- */

#define BIND_TEXT(q, n, value)      query_text(q, n, value)
#define BIND_INT(q, n, value)       query_int(q, n, (int64_t)(value))
#define BIND_PROTOCOL(q, n, value)  query_text(q, n, protocol_name(value))
#define BIND_STATE(q, n, value)     query_text(q, n, session_state_name(value))
#define BIND_REASON(q, n, value)    query_text(q, n, end_reason_name(value))
#define BIND_RECORDING(q, n, value) query_text(q, n, recording_state_name(value))

#define READ_TEXT(q, n, member) row_text(q, n, member, sizeof(member))
#define READ_INT(q, n, member)  (member) = (__typeof__(member))row_int(q, n)
#define READ_PROTOCOL(q, n, member) \
    (member) = (enum protocol)row_name(q, n, protocol_from_name, PROTOCOL_SSH)
#define READ_STATE(q, n, member) \
    (member) = (enum session_state)row_name(q, n, session_state_from_name, SESSION_DISCONNECTED)
#define READ_REASON(q, n, member) \
    (member) = (enum end_reason)row_name(q, n, end_reason_from_name, END_NONE)
#define READ_RECORDING(q, n, member) \
    (member) = (enum recording_state)row_name(q, n, recording_state_from_name, RECORDING_OFF)

/* A value of a list by its name; `otherwise` for a name that is not in it. */
static int row_name(const struct query *q, int column, int (*from_name)(const char *),
                    int otherwise)
{
    char name[32];
    int value;

    row_text(q, column, name, sizeof(name));
    value = from_name(name);
    return value < 0 ? otherwise : value;
}

static void bind_all(struct query *q, const struct session_info *info)
{
#define X(n, member, kind) BIND_##kind(q, n, info->member);
    SESSION_FIELDS(X)
#undef X
}

static void bind_live(struct query *q, const struct session_info *info)
{
#define X(n, member, kind) BIND_##kind(q, n, info->member);
    SESSION_LIVE_FIELDS(X)
#undef X
    query_int(q, SESSION_PARAM_ID, (int64_t)info->id);
}

static void bind_end(struct query *q, const struct session_info *info)
{
#define X(n, member, kind) BIND_##kind(q, n, info->member);
    SESSION_END_FIELDS(X)
#undef X
}

static void read_session(const struct query *q, struct store_session *row)
{
    struct session_info *info = &row->info;

    memset(row, 0, sizeof(*row));
#define X(n, member, kind) READ_##kind(q, (n)-1, info->member);
    SESSION_FIELDS(X)
#undef X
    info->id = row_u64(q, SESSION_COL_ID);
    row->is_open = row_int(q, SESSION_COL_IS_OPEN) != 0;
    row->recordings = row_u64(q, SESSION_COL_RECORDINGS);
}

/* ---- sessions ---- */

int store_session_open(struct store *s, struct session_info *info)
{
    struct query q;
    int r;

    info->end_reason = END_NONE;
    info->ended_wall_us = 0;
    info->ended_by[0] = info->end_text[0] = '\0';
    q = query_start(s, SQL_SESSION_OPEN);
    bind_all(&q, info);
    r = query_run(&q, NULL);
    if (r == 0)
        info->id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return r;
}

static void push_session(struct store *s, enum history_kind kind, const struct session_info *info)
{
    struct history_entry entry = {.kind = kind};

    entry.session = *info;
    if (kind == HISTORY_SESSION_END) { /* whatever the caller left: an ended row says so */
        entry.session.state = SESSION_DISCONNECTED;
        entry.session.relay_pid = 0;
        if (entry.session.ended_wall_us == 0)
            entry.session.ended_wall_us = clock_wall_us();
    }
    queue_push(s, &entry);
}

void store_session_update(struct store *s, const struct session_info *info)
{
    push_session(s, HISTORY_SESSION_UPDATE, info);
}

void store_session_end(struct store *s, const struct session_info *info)
{
    push_session(s, HISTORY_SESSION_END, info);
}

void store_session_reopen(struct store *s, uint64_t id)
{
    struct history_entry entry = {.kind = HISTORY_SESSION_REOPEN};

    entry.session.id = id;
    queue_push(s, &entry);
}

int store_session_get(struct store *s, uint64_t id, struct store_session *out)
{
    struct query q;
    int r;

    (void)queue_flush(s, false);
    q = query_start(s, SQL_SESSION_GET);
    query_int(&q, 1, (int64_t)id);
    r = query_next(&q);
    if (r == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no session %llu", (unsigned long long)id);
    if (r < 0)
        return r;
    read_session(&q, out);
    query_end(&q);
    queue_overlay(s, out);
    return 0;
}

/* The statement whose driving index leaves the fewest rows to look at. */
static enum statement sessions_statement(const struct store_session_filter *f)
{
    if (f->only_open)
        return SQL_SESSIONS_OPEN;
    if (f->user[0])
        return SQL_SESSIONS_USER;
    if (f->target[0])
        return SQL_SESSIONS_TARGET;
    return f->since_wall_us ? SQL_SESSIONS_SINCE : SQL_SESSIONS;
}

/* As SQLite's lower(): ASCII only. */
static void lower(char *dst, size_t dst_len, const char *src)
{
    (void)text_copy(dst, dst_len, src);
    for (char *p = dst; *p; p++)
        *p = (char)(*p >= 'A' && *p <= 'Z' ? *p + ('a' - 'A') : *p);
}

int store_sessions(struct store *s, const struct store_session_filter *f, store_session_fn fn,
                   void *arg)
{
    bool has_protocol = f->protocol >= 0 && f->protocol < PROTOCOL_COUNT;
    char search[sizeof(f->search)];
    struct store_session row;
    struct query q;
    int r;

    lower(search, sizeof(search), f->search);
    (void)queue_flush(s, false);
    q = query_start(s, sessions_statement(f));
    query_text(&q, 1, f->user);
    query_text(&q, 2, f->target);
    query_text(&q, 3, f->account);
    query_text(&q, 4, has_protocol ? protocol_name((enum protocol)f->protocol) : "");
    query_int(&q, 5, f->since_wall_us);
    query_int(&q, 6, f->until_wall_us);
    query_text(&q, 7, search);
    query_int(&q, 8, f->limit ? (int64_t)f->limit : -1);
    query_int(&q, 9, f->before_id && f->before_id < INT64_MAX ? (int64_t)f->before_id : INT64_MAX);
    while ((r = query_next(&q)) == 1) {
        read_session(&q, &row);
        queue_overlay(s, &row);
        if (f->only_open && !row.is_open)
            continue; /* its end is queued */
        if (!fn(&row, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_ended_since(struct store *s, int64_t wall_us, uint64_t *count)
{
    struct query q;
    int r;

    *count = 0;
    (void)queue_flush(s, false);
    q = query_start(s, SQL_ENDED_SINCE);
    query_int(&q, 1, wall_us);
    r = query_next(&q);
    if (r == 1) {
        *count = row_u64(&q, 0);
        query_end(&q);
        r = 0;
    }
    return r;
}

/* ---- recordings ---- */

static void bind_recording(struct query *q, const struct store_recording *rec)
{
    query_int(q, 1, (int64_t)rec->session_id);
    query_int(q, 2, rec->channel);
    query_int(q, 5, (int64_t)rec->frames);
    query_int(q, 6, (int64_t)rec->file_len);
    query_bytes(q, 7, rec->chain, sizeof(rec->chain));
    query_text(q, 8, recording_state_name(rec->state));
    query_int(q, 9, rec->is_closed);
}

int store_recording_open(struct store *s, const struct store_recording *rec)
{
    struct query q = query_start(s, SQL_RECORDING_OPEN);
    int r;

    bind_recording(&q, rec);
    query_text(&q, 3, rec->path);
    query_int(&q, 4, rec->started_wall_us);
    r = query_run(&q, NULL);
    if (r == ERR_NOT_FOUND)
        return store_fail(s, r, "there is no session %llu", (unsigned long long)rec->session_id);
    if (r == ERR_EXISTS)
        return store_fail(s, r, "session %llu has a recording of channel %u already",
                          (unsigned long long)rec->session_id, rec->channel);
    return r;
}

void store_recording_update(struct store *s, const struct store_recording *rec)
{
    struct history_entry entry = {.kind = HISTORY_RECORDING};

    entry.recording = *rec;
    queue_push(s, &entry);
}

static void read_recording(const struct query *q, struct store_recording *rec)
{
    size_t len;

    memset(rec, 0, sizeof(*rec));
    rec->session_id = row_u64(q, 0);
    rec->channel = (uint32_t)row_int(q, 1);
    row_text(q, 2, rec->path, sizeof(rec->path));
    rec->started_wall_us = row_int(q, 3);
    rec->frames = row_u64(q, 4);
    rec->file_len = row_u64(q, 5);
    if (!row_bytes(q, 6, rec->chain, sizeof(rec->chain), &len))
        memset(rec->chain, 0, sizeof(rec->chain)); /* fits no file: verification will say so */
    READ_RECORDING(q, 7, rec->state);
    rec->is_closed = row_int(q, 8) != 0;
}

int store_recordings(struct store *s, uint64_t session_id, store_recording_fn fn, void *arg)
{
    struct store_recording rec;
    struct query q;
    int r;

    (void)queue_flush(s, false);
    q = query_start(s, session_id ? SQL_RECORDINGS_OF : SQL_RECORDINGS);
    if (session_id)
        query_int(&q, 1, (int64_t)session_id);
    while ((r = query_next(&q)) == 1) {
        read_recording(&q, &rec);
        if (!fn(&rec, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

/* ---- events ---- */

void store_event_add(struct store *s, const struct store_event *e)
{
    struct history_entry entry = {.kind = HISTORY_EVENT};

    entry.event = *e;
    if (entry.event.at_wall_us == 0)
        entry.event.at_wall_us = clock_wall_us();
    queue_push(s, &entry);
}

static void read_event(const struct query *q, struct store_event *e)
{
    memset(e, 0, sizeof(*e));
    e->id = row_u64(q, 0);
    e->at_wall_us = row_int(q, 1);
    row_text(q, 2, e->kind, sizeof(e->kind));
    row_text(q, 3, e->user, sizeof(e->user));
    row_text(q, 4, e->source, sizeof(e->source));
    e->session_id = row_u64(q, 5);
    row_text(q, 6, e->text, sizeof(e->text));
    row_text(q, 7, e->detail, sizeof(e->detail));
}

int store_events(struct store *s, int64_t since_wall_us, uint64_t after_id, uint32_t limit,
                 store_event_fn fn, void *arg)
{
    bool by_time = since_wall_us > 0 && after_id == 0;
    struct store_event e;
    struct query q;
    int r;

    (void)queue_flush(s, false);
    q = query_start(s, by_time ? SQL_EVENTS_SINCE : SQL_EVENTS_AFTER);
    query_int(&q, 1, (int64_t)after_id);
    query_int(&q, 2, since_wall_us);
    query_int(&q, 3, limit ? (int64_t)limit : -1);
    while ((r = query_next(&q)) == 1) {
        read_event(&q, &e);
        if (!fn(&e, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_events_of(struct store *s, uint64_t session_id, uint64_t after_id, uint32_t limit,
                    store_event_fn fn, void *arg)
{
    struct store_event e;
    struct query q;
    int r;

    (void)queue_flush(s, false);
    q = query_start(s, SQL_EVENTS_OF);
    query_int(&q, 1, (int64_t)session_id);
    query_int(&q, 2, (int64_t)after_id);
    query_int(&q, 3, limit ? (int64_t)limit : -1);
    while ((r = query_next(&q)) == 1) {
        read_event(&q, &e);
        if (!fn(&e, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

/* ---- writing what was queued ---- */

static int write_session(struct store *s, enum statement id, const struct session_info *info)
{
    struct query q = query_start(s, id);

    if (id == SQL_SESSION_REOPEN) {
        query_int(&q, 1, (int64_t)info->id);
    } else {
        bind_live(&q, info);
        if (id == SQL_SESSION_END)
            bind_end(&q, info);
    }
    return query_run(&q, NULL);
}

static int write_recording(struct store *s, const struct store_recording *rec)
{
    struct query q = query_start(s, SQL_RECORDING_UPDATE);

    bind_recording(&q, rec);
    return query_run(&q, NULL);
}

static int write_login(struct store *s, const struct history_login *login)
{
    struct query q = query_start(s, SQL_USER_LOGGED_IN);

    query_text(&q, 1, login->name);
    query_int(&q, 2, login->wall_us);
    return query_run(&q, NULL);
}

static int write_event(struct store *s, const struct store_event *e)
{
    struct query q = query_start(s, SQL_EVENT_ADD);

    query_int(&q, 1, e->at_wall_us);
    query_text(&q, 2, e->kind);
    query_text(&q, 3, e->user);
    query_text(&q, 4, e->source);
    query_int(&q, 5, (int64_t)e->session_id);
    query_text(&q, 6, e->text);
    query_text(&q, 7, e->detail);
    return query_run(&q, NULL);
}

int history_write(struct store *s, const struct history_entry *entry)
{
    switch (entry->kind) {
    case HISTORY_SESSION_UPDATE:
        return write_session(s, SQL_SESSION_UPDATE, &entry->session);
    case HISTORY_SESSION_END:
        return write_session(s, SQL_SESSION_END, &entry->session);
    case HISTORY_SESSION_REOPEN:
        return write_session(s, SQL_SESSION_REOPEN, &entry->session);
    case HISTORY_RECORDING:
        return write_recording(s, &entry->recording);
    case HISTORY_LOGIN:
        return write_login(s, &entry->login);
    case HISTORY_EVENT:
        return write_event(s, &entry->event);
    }
    return 0;
}
