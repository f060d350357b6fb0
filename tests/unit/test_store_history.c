/*
 * Sessions, recordings and events: rows come back as they were written, the queue merges and keeps
 * what it must, and neither a locked database, a full disk nor kill -9 loses what was flushed.
 */
#include "store_fixture.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include <sallyport/text.h>

#include "tracker/store/store_priv.h"

static struct store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

static struct session_info session(const char *user, const char *target)
{
    struct session_info info = {.protocol = PROTOCOL_SSH, .state = SESSION_CONNECTING};

    (void)text_copy(info.user, sizeof(info.user), user);
    (void)text_copy(info.target, sizeof(info.target), target);
    info.started_wall_us = 1000;
    return info;
}

static uint64_t open_session(struct store *s, struct session_info *info)
{
    assert_int_equal(store_session_open(s, info), 0);
    assert_true(info->id > 0);
    return info->id;
}

static struct store_session get(struct store *s, uint64_t id)
{
    struct store_session row;

    assert_int_equal(store_session_get(s, id, &row), 0);
    assert_int_equal(row.info.id, id);
    return row;
}

/* Every byte of a text that a stranger may send, invalid UTF-8 included; never 0. */
static void fill(char *text, size_t size, unsigned seed)
{
    for (size_t i = 0; i + 1 < size; i++)
        text[i] = (char)(1 + (seed + i * 7) % 255);
    text[size - 1] = '\0';
}

/* A value in every member, all bytes set, so that a column that is forgotten shows. */
static struct session_info full_session(void)
{
    struct session_info info = {.protocol = PROTOCOL_RDP,
                                .state = SESSION_IDLE,
                                .recording = RECORDING_DEGRADED,
                                .client_port = 65535,
                                .started_wall_us = 1763789467120000,
                                .last_activity_wall_us = 1763789467120001,
                                .duration_s = 4000000000,
                                .idle_s = 4000000001,
                                .bytes_in = UINT64_C(9000000000000000001),
                                .bytes_out = UINT64_C(9000000000000000002),
                                .is_warned = true,
                                .relay_pid = 2147483647};

    fill(info.user, sizeof(info.user), 1);
    fill(info.account, sizeof(info.account), 2);
    fill(info.target, sizeof(info.target), 3);
    fill(info.address, sizeof(info.address), 4);
    fill(info.client_address, sizeof(info.client_address), 5);
    fill(info.device, sizeof(info.device), 6);
    fill(info.location, sizeof(info.location), 7);
    fill(info.channels, sizeof(info.channels), 8);
    fill(info.node, sizeof(info.node), 9);
    return info;
}

#define ASSERT_SAME(n, member, kind) assert_memory_equal(&a->member, &b->member, sizeof(a->member));

static void assert_same(const struct session_info *a, const struct session_info *b)
{
    assert_int_equal(a->id, b->id);
    SESSION_FIELDS(ASSERT_SAME)
}

/* ---- sessions ---- */

static void test_session_comes_back(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct session_info info = full_session();
    struct store_session row;

    info.end_reason = END_POLICY; /* not ours to say at the start */
    (void)open_session(f->store, &info);
    assert_int_equal(info.end_reason, END_NONE);
    row = get(f->store, info.id);
    assert_true(row.is_open);
    assert_int_equal(row.recordings, 0);
    assert_same(&row.info, &info);

    info.state = SESSION_ACTIVE;
    info.recording = RECORDING_FAILED;
    fill(info.device, sizeof(info.device), 100);
    fill(info.location, sizeof(info.location), 101);
    fill(info.channels, sizeof(info.channels), 102);
    info.last_activity_wall_us++;
    info.duration_s++;
    info.idle_s = 0;
    info.bytes_in++;
    info.bytes_out++;
    info.is_warned = false;
    info.relay_pid--;
    store_session_update(f->store, &info);
    assert_int_equal(store_flush(f->store), 0);
    row = get(f->store, info.id);
    assert_true(row.is_open);
    assert_same(&row.info, &info);

    info.end_reason = END_ADMIN_ENDED;
    info.ended_wall_us = 1763789467120009;
    fill(info.ended_by, sizeof(info.ended_by), 103);
    fill(info.end_text, sizeof(info.end_text), 104);
    store_session_end(f->store, &info);
    fixture_reopen(f); /* closing flushes */
    row = get(f->store, info.id);
    assert_false(row.is_open);
    info.state = SESSION_DISCONNECTED;
    info.relay_pid = 0;
    assert_same(&row.info, &info);
    assert_int_equal(store_session_get(f->store, info.id + 1, &row), ERR_NOT_FOUND);
}

static void test_ends(void **state)
{
    struct store *s = store_of(state);
    struct session_info info = session("alice", "web01");
    uint64_t id = open_session(s, &info), count;
    struct store_session row;

    info.end_reason = END_USER_EXIT;
    info.ended_wall_us = 5000;
    store_session_end(s, &info);
    assert_int_equal(store_flush(s), 0);
    info.end_reason = END_NETWORK_LOST; /* a second end is ignored, flushed before or not */
    store_session_end(s, &info);
    store_session_end(s, &info);
    store_session_reopen(s, id); /* and so is opening it again */
    info.bytes_in = 9;
    store_session_update(s, &info);
    assert_int_equal(store_flush(s), 0);
    row = get(s, id);
    assert_int_equal(row.info.end_reason, END_USER_EXIT);
    assert_int_equal(row.info.bytes_in, 0);
    assert_false(row.is_open);
    assert_int_equal(store_ended_since(s, 5000, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(store_ended_since(s, 5001, &count), 0);
    assert_int_equal(count, 0);

    info = session("alice", "web01");
    (void)open_session(s, &info);
    info.end_reason = END_USER_EXIT;
    store_session_end(s, &info); /* ended_wall_us 0: now */
    assert_int_equal(store_ended_since(s, 0, &count), 0);
    assert_int_equal(count, 2);
    assert_true(get(s, info.id).info.ended_wall_us > 5000);
}

static void test_broker_lost(void **state)
{
    struct store *s = store_of(state);
    struct session_info info = session("alice", "web01");
    uint64_t id = open_session(s, &info);
    struct store_session row;

    for (int flushed = 0; flushed < 2; flushed++) { /* through the queue's merging, and not */
        info.end_reason = END_BROKER_LOST;
        info.ended_wall_us = 5000;
        (void)text_copy(info.end_text, sizeof(info.end_text), "lost");
        store_session_end(s, &info);
        if (flushed)
            assert_int_equal(store_flush(s), 0);
        assert_int_equal(get(s, id).info.end_reason, END_BROKER_LOST);
        store_session_reopen(s, id);
        if (flushed)
            assert_int_equal(store_flush(s), 0);
        row = get(s, id);
        assert_true(row.is_open);
        assert_int_equal(row.info.state, SESSION_ACTIVE);
        assert_int_equal(row.info.end_reason, END_NONE);
        assert_int_equal(row.info.ended_wall_us, 0);
        assert_string_equal(row.info.end_text, "");
    }
    info.end_reason = END_BROKER_LOST;
    store_session_end(s, &info);
    info.end_reason = END_USER_EXIT; /* a relay that comes back only to say how it ended */
    info.bytes_out = 44;
    store_session_end(s, &info);
    assert_int_equal(store_queue_len(s, NULL), 1);
    row = get(s, id);
    assert_int_equal(row.info.end_reason, END_USER_EXIT);
    assert_int_equal(row.info.bytes_out, 44);
    assert_false(row.is_open);
}

static void test_ids_are_never_used_again(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct session_info info = session("alice", "web01");
    uint64_t last;

    (void)open_session(f->store, &info);
    last = open_session(f->store, &info);
    sql(f->store->db, "DELETE FROM sessions");
    assert_true(open_session(f->store, &info) > last);
    last = info.id;
    sql(f->store->db, "DELETE FROM sessions");
    fixture_reopen(f);
    assert_true(open_session(f->store, &info) > last);
}

/* ---- listing ---- */

struct ids {
    char text[256];
    size_t stop_after;
    size_t count;
};

static bool see_session(const struct store_session *row, void *arg)
{
    struct ids *ids = (struct ids *)arg;
    size_t len = strlen(ids->text);

    (void)snprintf(ids->text + len, sizeof(ids->text) - len, "%s%llu", len ? " " : "",
                   (unsigned long long)row->info.id);
    return ++ids->count != ids->stop_after;
}

/* 1: alice web01 root, 2: bob web01, 3: alice db02 (RDP), 4: Carol db02; 2 and 4 have ended. */
static void four_sessions(struct store *s)
{
    struct session_info info = session("alice", "web01");

    info.started_wall_us = 100;
    (void)text_copy(info.account, sizeof(info.account), "root");
    (void)text_copy(info.address, sizeof(info.address), "10.0.0.11:22");
    (void)text_copy(info.client_address, sizeof(info.client_address), "203.0.113.9");
    (void)open_session(s, &info);
    info = session("bob", "web01");
    info.started_wall_us = 200;
    (void)text_copy(info.device, sizeof(info.device), "OpenSSH_9.2p1 50%");
    (void)open_session(s, &info);
    info.end_reason = END_USER_EXIT;
    (void)text_copy(info.end_text, sizeof(info.end_text), "Logged Out");
    store_session_end(s, &info);
    info = session("alice", "db02");
    info.started_wall_us = 300;
    info.protocol = PROTOCOL_RDP;
    (void)open_session(s, &info);
    info = session("Carol", "db02");
    info.started_wall_us = 400;
    (void)open_session(s, &info);
    info.end_reason = END_IDLE_TIMEOUT;
    store_session_end(s, &info);
}

struct listing {
    struct store_session_filter filter;
    const char *ids;
};

static const struct listing listings[] = {
    {{.protocol = -1}, "4 3 2 1"},
    {{.protocol = -1, .limit = 2}, "4 3"},
    {{.protocol = -1, .before_id = 3}, "2 1"},
    {{.protocol = -1, .before_id = 4, .limit = 2}, "3 2"},
    {{.protocol = -1, .before_id = 1}, ""},
    {{.protocol = -1, .before_id = UINT64_MAX}, "4 3 2 1"},
    {{.protocol = -1, .before_id = 3, .only_open = true}, "1"},
    {{.protocol = -1, .before_id = 2, .user = "alice"}, "1"},
    {{.protocol = -1, .before_id = 2, .target = "web01"}, "1"},
    {{.protocol = -1, .before_id = 4, .since_wall_us = 200}, "3 2"},
    {{.protocol = -1, .only_open = true}, "3 1"},
    {{.protocol = -1, .only_open = true, .user = "alice", .target = "web01"}, "1"},
    {{.protocol = -1, .user = "alice"}, "3 1"},
    {{.protocol = -1, .user = "ALICE"}, ""},
    {{.protocol = -1, .target = "web01"}, "2 1"},
    {{.protocol = -1, .account = "root"}, "1"},
    {{.protocol = PROTOCOL_RDP}, "3"},
    {{.protocol = PROTOCOL_WEB}, ""},
    {{.protocol = -1, .since_wall_us = 200}, "4 3 2"},
    {{.protocol = -1, .until_wall_us = 300}, "2 1"},
    {{.protocol = -1, .since_wall_us = 200, .until_wall_us = 400}, "3 2"},
    {{.protocol = -1, .user = "alice", .since_wall_us = 200}, "3"},
    {{.protocol = -1, .search = "carol"}, "4"},
    {{.protocol = -1, .search = "ALIC"}, "3 1"},
    {{.protocol = -1, .search = "0.0.11:2"}, "1"},
    {{.protocol = -1, .search = "203.0.113"}, "1"},
    {{.protocol = -1, .search = "openssh_9"}, "2"},
    {{.protocol = -1, .search = "logged out"}, "2"},
    {{.protocol = -1, .search = "50%"}, "2"},
    {{.protocol = -1, .search = "5%0"}, ""},
    {{.protocol = -1, .search = "_"}, "2"},
    {{.protocol = -1, .search = "db"}, "4 3"},
    {{.protocol = -1, .search = "roo"}, "1"},
    {{.protocol = -1, .search = "' OR 1=1 --"}, ""},
    {{.protocol = -1, .search = "alice", .only_open = true, .limit = 1}, "3"},
};

static void test_listing(void **state)
{
    struct store *s = store_of(state);
    struct ids first = {.stop_after = 1};

    four_sessions(s);
    for (size_t i = 0; i < sizeof(listings) / sizeof(listings[0]); i++) {
        struct ids ids = {.text = ""};

        assert_int_equal(store_sessions(s, &listings[i].filter, see_session, &ids), 0);
        if (strcmp(ids.text, listings[i].ids) != 0)
            fail_msg("row %zu: \"%s\"", i, ids.text);
    }
    assert_int_equal(store_sessions(s, &listings[0].filter, see_session, &first), 0);
    assert_string_equal(first.text, "4");
}

/* The big table is not read from end to end for the questions that are asked often. */
static void test_listing_uses_indexes(void **state)
{
    static const struct {
        enum statement id;
        const char *index;
    } rows[] = {
        {SQL_SESSIONS_OPEN, "sessions_open"},     {SQL_SESSIONS_USER, "sessions_user"},
        {SQL_SESSIONS_TARGET, "sessions_target"}, {SQL_SESSIONS_SINCE, "sessions_started"},
        {SQL_ENDED_SINCE, "sessions_ended"},      {SQL_REACHABLE, "sessions_user"},
        {SQL_EVENTS_SINCE, "events_at"},
    };
    struct store *s = store_of(state);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[4096];
        sqlite3_stmt *stmt;
        bool is_used = false;

        (void)snprintf(text, sizeof(text), "EXPLAIN QUERY PLAN %s",
                       sqlite3_sql(s->statements[rows[i].id]));
        assert_int_equal(sqlite3_prepare_v2(s->db, text, -1, &stmt, NULL), SQLITE_OK);
        while (sqlite3_step(stmt) == SQLITE_ROW)
            is_used |= strstr((const char *)sqlite3_column_text(stmt, 3), rows[i].index) != NULL;
        (void)sqlite3_finalize(stmt);
        if (!is_used)
            fail_msg("%s is not used by: %s", rows[i].index, text);
    }
}

/* ---- the queue ---- */

static void test_updates_merge(void **state)
{
    struct store *s = store_of(state);
    struct session_info one = session("alice", "web01"), two = session("bob", "web01");
    struct store_event event = {.kind = "note"};

    (void)open_session(s, &one);
    (void)open_session(s, &two);
    for (uint64_t i = 1; i <= 1000; i++) {
        one.bytes_in = two.bytes_out = i;
        store_session_update(s, &one);
        store_session_update(s, &two);
    }
    assert_int_equal(store_queue_len(s, NULL), 2);
    one.end_reason = END_USER_EXIT;
    store_session_end(s, &one);
    store_session_update(s, &one); /* after its end: nothing */
    assert_int_equal(store_queue_len(s, NULL), 2);
    store_event_add(s, &event);
    store_event_add(s, &event); /* events never merge */
    assert_int_equal(store_queue_len(s, NULL), 4);
    assert_int_equal(store_flush(s), 0);
    assert_int_equal(get(s, one.id).info.bytes_in, 1000);
    assert_int_equal(get(s, one.id).info.end_reason, END_USER_EXIT);
    assert_int_equal(get(s, two.id).info.bytes_out, 1000);
    assert_true(get(s, two.id).is_open);
}

static int64_t now_ms(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Call store_flush as the loop would until all is written. */
static void flush_until_written(struct store *s)
{
    int64_t deadline = now_ms() + 5000;

    while (store_flush(s) > 0) {
        assert_true(now_ms() < deadline);
        (void)poll(NULL, 0, 5);
    }
}

static void test_locked_queue(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct session_info info = session("alice", "web01"), other = session("bob", "web01");
    struct store_session_filter open_ones = {.protocol = -1, .only_open = true};
    struct store_event event = {.kind = "session-end"};
    struct store *s = f->store;
    struct ids ids = {.text = ""};
    struct store_session row;
    sqlite3 *db;
    int64_t began;
    uint64_t lost;

    (void)open_session(s, &info);
    (void)open_session(s, &other);
    db = outsider(f->db);
    sql(db, "BEGIN EXCLUSIVE");
    info.end_reason = END_USER_EXIT;
    info.bytes_in = 77;
    store_session_end(s, &info);
    for (int i = 0; i < 100; i++)
        store_event_add(s, &event);
    began = now_ms();
    for (int i = 0; i < 100; i++)
        assert_int_equal(store_flush(s), 101);
    assert_true(now_ms() - began < STORE_BUSY_MS); /* a locked database holds no loop up */
    assert_int_equal(store_session_open(s, &other), ERR_BUSY);

    row = get(s, info.id); /* reads look through the queue */
    assert_false(row.is_open);
    assert_int_equal(row.info.bytes_in, 77);
    assert_int_equal(store_sessions(s, &open_ones, see_session, &ids), 0);
    assert_string_equal(ids.text, "2");

    sql(db, "COMMIT");
    assert_int_equal(store_flush(s), 0);
    assert_int_equal(store_queue_len(s, &lost), 0);
    assert_int_equal(lost, 0);
    assert_string_equal(sql_one(db, "SELECT count(*) FROM events"), "100");
    assert_string_equal(sql_one(db, "SELECT end_reason FROM sessions WHERE id = 1"), "user-exit");
    (void)sqlite3_close(db);
}

static void test_full_disk(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct store_event event = {.kind = "note"};
    struct session_info info = session("alice", "web01");
    struct store *s = f->store;
    char pragma[300];
    uint64_t lost;

    (void)open_session(s, &info);
    (void)snprintf(pragma, sizeof(pragma), "PRAGMA max_page_count = %s",
                   sql_one(s->db, "PRAGMA page_count"));
    sql(s->db, pragma);
    fill(event.text, sizeof(event.text), 3);
    for (int i = 0; i < 50; i++)
        store_event_add(s, &event);
    store_session_update(s, &info);
    assert_int_equal(store_flush(s), 51);
    for (int i = 0; i < 50; i++) {
        struct session_info big = full_session();
        int r = store_session_open(s, &big);

        if (r == ERR_FULL)
            break;
        assert_true(i < 49);
    }
    assert_non_null(strstr(store_error(s), "full"));
    sql(s->db, "PRAGMA max_page_count = 100000");
    flush_until_written(s);
    assert_int_equal(store_queue_len(s, &lost), 0);
    assert_int_equal(lost, 0);
    assert_string_equal(sql_one(s->db, "SELECT count(*) FROM events"), "50");
    assert_string_equal(sql_one(s->db, "PRAGMA integrity_check"), "ok");
}

static void test_read_only_queue(void **state)
{
    struct store_event event = {.kind = "note"};
    struct store *s = store_of(state);

    sql(s->db, "PRAGMA query_only = ON");
    store_event_add(s, &event);
    assert_int_equal(store_flush(s), 1);
    sql(s->db, "PRAGMA query_only = OFF");
    flush_until_written(s);
    assert_string_equal(sql_one(s->db, "SELECT count(*) FROM events"), "1");
}

static void test_queue_is_bounded(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct session_info info = session("alice", "web01");
    struct store_event event = {.kind = "note"};
    struct store *s = f->store;
    sqlite3 *db;
    uint64_t lost;

    (void)open_session(s, &info);
    db = outsider(f->db);
    sql(db, "BEGIN EXCLUSIVE");
    for (int i = 1; i <= STORE_QUEUE_MAX + 5; i++) {
        event.at_wall_us = i;
        store_event_add(s, &event);
    }
    assert_int_equal(store_queue_len(s, &lost), STORE_QUEUE_MAX);
    assert_int_equal(lost, 5);
    info.end_reason = END_USER_EXIT;
    store_session_end(s, &info); /* worth more than the oldest event */
    assert_int_equal(store_queue_len(s, &lost), STORE_QUEUE_MAX);
    assert_int_equal(lost, 6);
    sql(db, "COMMIT");
    assert_int_equal(store_flush(s), 0);
    assert_string_equal(sql_one(db, "SELECT count(*) || ' ' || min(at_wall_us) FROM events"),
                        "9999 2");
    assert_string_equal(sql_one(db, "SELECT end_reason FROM sessions"), "user-exit");
    (void)sqlite3_close(db);
}

/* A row that the database will never take must not hold up the rest. */
static void test_refused_row(void **state)
{
    struct store *s = store_of(state);
    struct store_event event = {.kind = "bad"};
    uint64_t lost;

    sql(s->db, "CREATE TRIGGER t BEFORE INSERT ON events WHEN new.kind = 'bad' "
               "BEGIN SELECT raise(ABORT, 'no'); END");
    store_event_add(s, &event);
    (void)text_copy(event.kind, sizeof(event.kind), "good");
    store_event_add(s, &event);
    assert_int_equal(store_flush(s), 0);
    assert_int_equal(store_queue_len(s, &lost), 0);
    assert_int_equal(lost, 1);
    assert_string_equal(sql_one(s->db, "SELECT group_concat(kind) FROM events"), "good");
}

/* ---- recordings and events ---- */

static bool see_recording(const struct store_recording *r, void *arg)
{
    struct ids *ids = (struct ids *)arg;
    size_t len = strlen(ids->text);

    (void)snprintf(ids->text + len, sizeof(ids->text) - len, "%s%llu.%u=%s/%llu/%02x/%s%s",
                   len ? " " : "", (unsigned long long)r->session_id, r->channel, r->path,
                   (unsigned long long)r->frames, r->chain[31], recording_state_name(r->state),
                   r->is_closed ? "/closed" : "");
    return ++ids->count != ids->stop_after;
}

static void test_recordings(void **state)
{
    struct store *s = store_of(state);
    struct session_info info = session("alice", "web01");
    struct store_recording rec = {.channel = 1, .path = "a.cast", .state = RECORDING_OK};
    struct ids all = {.text = ""}, one = {.text = ""};

    rec.session_id = open_session(s, &info);
    assert_int_equal(store_recording_open(s, &rec), 0);
    assert_int_equal(store_recording_open(s, &rec), ERR_EXISTS);
    rec.channel = 2;
    (void)text_copy(rec.path, sizeof(rec.path), "b.cast");
    assert_int_equal(store_recording_open(s, &rec), 0);
    rec.session_id = 99;
    assert_int_equal(store_recording_open(s, &rec), ERR_NOT_FOUND);
    rec.session_id = open_session(s, &info);
    assert_int_equal(store_recording_open(s, &rec), 0);

    rec.session_id = 1;
    for (uint64_t i = 1; i <= 100; i++) {
        rec.frames = i;
        rec.file_len = i * 1000;
        rec.chain[31] = (uint8_t)i;
        store_recording_update(s, &rec);
    }
    rec.is_closed = true;
    rec.state = RECORDING_FAILED;
    store_recording_update(s, &rec);
    assert_int_equal(store_queue_len(s, NULL), 1);
    assert_int_equal(store_recordings(s, 1, see_recording, &one), 0);
    assert_string_equal(one.text, "1.2=b.cast/100/64/failed/closed 1.1=a.cast/0/00/ok");
    assert_int_equal(store_recordings(s, 0, see_recording, &all), 0);
    assert_string_equal(all.text,
                        "2.2=b.cast/0/00/ok 1.2=b.cast/100/64/failed/closed 1.1=a.cast/0/00/ok");
    assert_int_equal(get(s, 1).recordings, 2);
}

static bool see_event(const struct store_event *e, void *arg)
{
    struct ids *ids = (struct ids *)arg;
    size_t len = strlen(ids->text);

    (void)snprintf(ids->text + len, sizeof(ids->text) - len, "%s%llu@%lld", len ? " " : "",
                   (unsigned long long)e->id, (long long)e->at_wall_us);
    return ++ids->count != ids->stop_after;
}

static void assert_events(struct store *s, int64_t since, uint64_t after, uint32_t limit,
                          const char *text)
{
    struct ids ids = {.text = ""};

    assert_int_equal(store_events(s, since, after, limit, see_event, &ids), 0);
    assert_string_equal(ids.text, text);
}

static bool keep_event(const struct store_event *e, void *arg)
{
    memcpy(arg, e, sizeof(*e));
    return false;
}

static void test_events(void **state)
{
    static const int64_t times[] = {100, 300, 200, 400};
    struct store *s = store_of(state);
    struct store_event e = {.kind = "login-failed", .session_id = 42}, got;

    assert_events(s, 0, 0, 0, "");
    for (size_t i = 0; i < 4; i++) { /* the wall clock may go back; ids do not */
        e.at_wall_us = times[i];
        store_event_add(s, &e);
    }
    assert_events(s, 0, 0, 0, "1@100 2@300 3@200 4@400");
    assert_events(s, 200, 0, 0, "2@300 3@200 4@400");
    assert_events(s, 250, 0, 0, "2@300 4@400");
    assert_events(s, 500, 0, 0, "");
    assert_events(s, 0, 2, 0, "3@200 4@400");
    assert_events(s, 250, 2, 0, "4@400");
    assert_events(s, 0, 0, 2, "1@100 2@300");
    assert_events(s, 200, 0, 1, "2@300");
    assert_events(s, 0, 4, 0, "");

    e.at_wall_us = 500;
    fill(e.kind, sizeof(e.kind), 1);
    fill(e.user, sizeof(e.user), 2);
    fill(e.source, sizeof(e.source), 3);
    fill(e.text, sizeof(e.text), 4);
    store_event_add(s, &e);
    assert_int_equal(store_events(s, 0, 4, 0, keep_event, &got), 0);
    e.id = 5;
    assert_memory_equal(&got, &e, sizeof(e));
    e.at_wall_us = 0; /* now */
    store_event_add(s, &e);
    assert_int_equal(store_events(s, 0, 5, 0, keep_event, &got), 0);
    assert_true(got.at_wall_us > 500);
}

/* ---- kill -9 ---- */

/* Write sessions for ever; say each id once its end is flushed. */
_Noreturn static void write_for_ever(const struct fixture *f, int out)
{
    struct store *s = NULL;
    char err[1024];

    if (store_open(&s, f->data, f->key, err, sizeof(err)) != STORE_OPEN_OK) {
        (void)fprintf(stderr, "child: %s\n", err);
        _exit(1);
    }
    for (;;) {
        struct session_info info = session("alice", "web01");
        struct store_event event = {.kind = "session-end"};

        if (store_session_open(s, &info) != 0)
            _exit(2);
        store_session_update(s, &info);
        (void)store_flush(s);
        info.end_reason = END_USER_EXIT;
        info.bytes_in = info.id;
        event.session_id = info.id;
        store_session_end(s, &info);
        store_event_add(s, &event);
        if (store_flush(s) != 0)
            _exit(3);
        if (write(out, &info.id, sizeof(info.id)) != (ssize_t)sizeof(info.id))
            _exit(4);
    }
}

/* Start a child, kill it after `us` microseconds; counts the ids it promised, the last in *last. */
static size_t kill_a_writer(const struct fixture *f, unsigned us, bool wait_for_first,
                            uint64_t *last)
{
    struct pollfd readable;
    uint64_t id;
    size_t count = 0;
    int fds[2], status;
    pid_t pid;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0)
        write_for_ever(f, fds[1]);
    assert_true(pid > 0);
    (void)close(fds[1]);
    readable = (struct pollfd){.fd = fds[0], .events = POLLIN};
    if (wait_for_first)
        assert_int_equal(poll(&readable, 1, 10000), 1);
    (void)usleep(us);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status)); /* not ended by an error of its own */
    while (read(fds[0], &id, sizeof(id)) == (ssize_t)sizeof(id)) {
        *last = id;
        count++;
    }
    (void)close(fds[0]);
    return count;
}

static void test_kill_while_writing(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    size_t promised = 0;
    uint64_t last = 0;
    unsigned seed = 7;

    for (int round = 0; round < 50; round++) {
        char query[128];
        sqlite3 *db;

        seed = seed * 1103515245u + 12345u;
        promised += kill_a_writer(f, (seed >> 16) % 8000, true, &last);
        db = outsider(f->db);
        assert_string_equal(sql_one(db, "PRAGMA integrity_check"), "ok");
        (void)snprintf(query, sizeof(query),
                       "SELECT count(*) >= %zu FROM sessions WHERE is_open = 0 AND bytes_in = id "
                       "AND end_reason = 'user-exit'",
                       promised);
        assert_string_equal(sql_one(db, query), "1");
        (void)snprintf(query, sizeof(query), "SELECT count(*) >= %zu FROM events", promised);
        assert_string_equal(sql_one(db, query), "1");
        (void)snprintf(query, sizeof(query), "SELECT is_open FROM sessions WHERE id = %llu",
                       (unsigned long long)last);
        assert_string_equal(sql_one(db, query), "0");
        if (round % 2) /* every other time the next writer finds the WAL as the kill left it */
            (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
    }
    assert_true(promised >= 50);
}

static void test_kill_while_starting(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    uint64_t last = 0;

    for (unsigned round = 0; round < 20; round++) {
        (void)snprintf(f->data, sizeof(f->data), "%s/data%u", f->dir, round);
        (void)snprintf(f->key, sizeof(f->key), "%s/key%u", f->dir, round);
        (void)kill_a_writer(f, 250 * round, false, &last);
        if (fixture_open(f) != STORE_OPEN_OK)
            fail_msg("round %u: %s", round, f->err);
        assert_string_equal(sql_one(f->store->db, "PRAGMA integrity_check"), "ok");
        fixture_close(f);
    }
}

int main(void)
{
#define OPENED(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_teardown)
    const struct CMUnitTest tests[] = {
        OPENED(test_session_comes_back),
        OPENED(test_ends),
        OPENED(test_broker_lost),
        OPENED(test_ids_are_never_used_again),
        OPENED(test_listing),
        OPENED(test_listing_uses_indexes),
        OPENED(test_updates_merge),
        OPENED(test_locked_queue),
        OPENED(test_full_disk),
        OPENED(test_read_only_queue),
        OPENED(test_queue_is_bounded),
        OPENED(test_refused_row),
        OPENED(test_recordings),
        OPENED(test_events),
        CLOSED(test_kill_while_writing),
        CLOSED(test_kill_while_starting),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
