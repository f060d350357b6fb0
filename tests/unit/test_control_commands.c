/* What the commands do: sessions, users, targets, grants, records, the daemon, apply and dump. */
#include "tests/unit/control_fixture.h"

#include <dirent.h>

#include "control/keys.h"
#include "tracker/factor.h"

/* ---- sessions ---- */

static void a_session_is_shown_as_promised(void **state)
{
    static const char *const fields[] = {
        "id",        "user",        "account",      "resourceName", "resourceType",
        "address",   "startTime",   "endTime",      "duration",     "durationSeconds",
        "status",    "idleSeconds", "lastActivity", "device",       "ipAddress",
        "port",      "location",    "bytesIn",      "bytesOut",     "channels",
        "endReason", "endedBy",     "endText",      "recording",    "flags",
        "node"};
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    uint64_t id = begin_session(f, "alice", "web01");
    json_t *s, *rows;

    tracker_channels(f->tracker, id, "session,forward*2");
    s = must(f, e, "session show", "{\"id\":\"1\"}");
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (!json_object_get(s, fields[i]))
            fail_msg("no %s", fields[i]);
    }
    assert_string_equal(text_of(s, "id"), "1");
    assert_string_equal(text_of(s, "status"), "active");
    assert_string_equal(text_of(s, "resourceName"), "web01");
    assert_string_equal(text_of(s, "location"), "loopback");
    assert_string_equal(text_of(s, "duration"), "0s");
    assert_true(json_is_null(json_object_get(s, "endTime")));
    assert_true(json_is_null(json_object_get(s, "endReason")));
    assert_int_equal(json_array_size(json_object_get(s, "channels")), 3);
    assert_int_equal(strlen(text_of(s, "startTime")), 24);
    assert_int_equal(text_of(s, "startTime")[23], 'Z');
    json_decref(s);
    end_session(f, id);
    s = must(f, e, "session show", "{\"id\":1}");
    assert_string_equal(text_of(s, "status"), "disconnected");
    assert_string_equal(text_of(s, "endReason"), "user-exit");
    assert_string_equal(text_of(s, "endedBy"), "client");
    assert_true(json_is_null(json_object_get(s, "pid")));
    assert_int_equal(strlen(text_of(s, "endTime")), 24);
    json_decref(s);
    rows = must(f, e, "session ls", "");
    assert_int_equal(json_array_size(rows), 0);
    json_decref(rows);
    hang_up(e);
}

static size_t count_rows(struct fixture *f, struct caller_end *e, const char *args)
{
    json_t *rows = must(f, e, "session ls", args);
    size_t count = json_array_size(rows);

    json_decref(rows);
    return count;
}

static void filters_narrow_the_list(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    uint64_t first = begin_session(f, "alice", "web01");

    begin_session(f, "bob", "web01");
    begin_session(f, "bob", "db01");
    end_session(f, first);
    assert_int_equal(count_rows(f, e, ""), 2);
    assert_int_equal(count_rows(f, e, "{\"all\":true}"), 3);
    assert_int_equal(count_rows(f, e, "{\"user\":\"bob\"}"), 2);
    assert_int_equal(count_rows(f, e, "{\"user\":\"alice\"}"), 0);
    assert_int_equal(count_rows(f, e, "{\"user\":\"alice\",\"all\":true}"), 1);
    assert_int_equal(count_rows(f, e, "{\"target\":\"web01\",\"all\":true}"), 2);
    assert_int_equal(count_rows(f, e, "{\"account\":\"root\"}"), 2);
    assert_int_equal(count_rows(f, e, "{\"account\":\"nobody\"}"), 0);
    assert_int_equal(count_rows(f, e, "{\"type\":\"rdp\"}"), 0);
    assert_int_equal(count_rows(f, e, "{\"status\":\"active\"}"), 2);
    assert_int_equal(count_rows(f, e, "{\"status\":\"active\",\"all\":true}"), 2);
    assert_int_equal(count_rows(f, e, "{\"status\":\"disconnected\"}"), 1);
    assert_int_equal(count_rows(f, e, "{\"search\":\"openssh\"}"), 2);
    assert_int_equal(count_rows(f, e, "{\"search\":\"DB0\",\"all\":true}"), 1);
    assert_int_equal(count_rows(f, e, "{\"since\":\"1h\",\"all\":true}"), 3);
    assert_int_equal(count_rows(f, e, "{\"until\":\"1h\",\"all\":true}"), 0);
    assert_int_equal(count_rows(f, e, "{\"since\":\"2199-01-01T00:00:00Z\",\"all\":true}"), 0);
    assert_int_equal(count_rows(f, e, "{\"flagged\":true,\"all\":true}"), 0);
    assert_int_equal(count_rows(f, e, "{\"all\":true,\"limit\":2}"), 2);
    assert_int_equal(count_rows(f, e, "{\"limit\":1}"), 1);
    hang_up(e);
}

static void expect_order(struct fixture *f, struct caller_end *e, const char *args, const char *ids)
{
    json_t *rows = must(f, e, "session ls", args), *row;
    char got[128] = "";
    size_t i;

    json_array_foreach(rows, i, row)
    {
        size_t len = strlen(got);
        snprintf(got + len, sizeof(got) - len, "%s%s", i ? " " : "", text_of(row, "id"));
    }
    if (strcmp(got, ids) != 0)
        fail_msg("%s: got %s, wanted %s", args, got, ids);
    json_decref(rows);
}

static void lists_are_in_order(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    begin_session(f, "carol", "web01");
    begin_session(f, "alice", "web02");
    begin_session(f, "bob", "web03");
    expect_order(f, e, "", "1 2 3");
    expect_order(f, e, "{\"all\":true}", "3 2 1");
    end_session(f, 2);
    expect_order(f, e, "{\"all\":true}", "3 2 1");
    expect_order(f, e, "{\"all\":true,\"sort\":\"user\"}", "2 3 1");
    expect_order(f, e, "{\"all\":true,\"sort\":\"-user\",\"limit\":2}", "1 3");
    expect_order(f, e, "{\"sort\":\"-startTime\"}", "3 1");
    expect_order(f, e, "{\"sort\":\"-id\"}", "3 1");
    expect_order(f, e, "{\"sort\":\"resourceName\"}", "1 3");
    hang_up(e);
}

static void stats_count(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *stats;

    begin_session(f, "alice", "web01");
    begin_session(f, "alice", "web02");
    begin_session(f, "bob", "web02");
    end_session(f, 1);
    stats = must(f, e, "session stats", "");
    assert_int_equal(json_integer_value(json_object_get(stats, "active")), 2);
    assert_int_equal(json_integer_value(json_object_get(stats, "idle")), 0);
    assert_int_equal(json_integer_value(json_object_get(stats, "users")), 2);
    assert_int_equal(json_integer_value(json_object_get(stats, "disconnectedToday")), 1);
    assert_string_equal(text_of(stats, "totalDuration"), "0s");
    assert_int_equal(json_integer_value(json_object_get(json_object_get(stats, "byType"), "ssh")),
                     2);
    json_decref(stats);
    hang_up(e);
}

/* "result" of each row of `session end`, in order. */
static void expect_results(struct fixture *f, struct caller_end *e, const char *command,
                           const char *args, const char *results)
{
    json_t *rows = must(f, e, command, args), *row;
    char got[256] = "";
    size_t i;

    json_array_foreach(rows, i, row)
    {
        size_t len = strlen(got);
        snprintf(got + len, sizeof(got) - len, "%s%s=%s", i ? " " : "", text_of(row, "id"),
                 text_of(row, "result"));
    }
    if (strcmp(got, results) != 0)
        fail_msg("%s %s: got %s, wanted %s", command, args, got, results);
    json_decref(rows);
}

static void sessions_are_ended(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    begin_session(f, "alice", "web01");
    begin_session(f, "bob", "web01");
    begin_session(f, "bob", "db01");
    end_session(f, 3);
    expect_results(f, e, "session end", "{\"ids\":[2,\"3\",77,\"2\"],\"dry_run\":true}",
                   "2=would-end 3=already-ended 77=not-found");
    assert_int_equal(f->ends, 0);
    expect_results(f, e, "session end", "{\"ids\":\"2\",\"reason\":\"maintenance\"}", "2=ended");
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->end_reason, END_ADMIN_ENDED);
    assert_string_equal(f->author, geteuid() == 0 ? "admin root" : f->author);
    assert_non_null(strstr(f->end_text, "You have been disconnected"));
    assert_non_null(strstr(f->end_text, "maintenance"));
    assert_true(is_in_events(f, "session-end-asked"));
    end_session(f, 2);
    expect_results(f, e, "session end", "{\"user\":\"alice\",\"in\":\"10m\"}", "1=scheduled");
    assert_int_equal(f->ends, 1);
    assert_int_equal(f->notices, 1); /* told at once that it will */
    expect_results(f, e, "session end", "{\"ids\":[1],\"cancel\":true,\"dry_run\":true}",
                   "1=would-cancel");
    expect_results(f, e, "session end", "{\"ids\":[1],\"cancel\":true}", "1=cancelled");
    assert_int_equal(f->notices, 2);
    expect_results(f, e, "session end", "{\"ids\":[1],\"cancel\":true}", "1=not-announced");
    expect_results(f, e, "session end", "{\"user\":\"nobody\"}", "");
    expect_results(f, e, "session end", "{\"target\":\"web01\"}", "1=ended");
    end_session(f, 1);
    expect_results(f, e, "session end", "{\"all\":true}", "");
    hang_up(e);
}

static void messages_are_shown(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    begin_session(f, "alice", "web01");
    expect_results(f, e, "session message", "{\"ids\":[1,9],\"text\":\"lunch\"}",
                   "1=sent 9=not-found");
    assert_non_null(strstr(f->notice, "lunch"));
    expect_results(f, e, "session message", "{\"all\":true,\"text\":\"tea\"}", "1=sent");
    hang_up(e);
}

static void users_see_their_own(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *self, *auditor;

    if (geteuid() != 0)
        skip();
    must_do(f, admin, "user add", "{\"name\":\"alice\",\"local_uid\":54321}");
    must_do(f, admin, "user add", "{\"name\":\"carol\",\"local_uid\":54323,\"role\":\"auditor\"}");
    begin_session(f, "alice", "web01");
    begin_session(f, "bob", "web01");
    begin_session(f, "bob", "web01");
    end_session(f, 3);
    begin_session(f, "carol", "web01");
    self = meet_as(f, STRANGER, STRANGER);
    assert_int_equal(count_rows(f, self, ""), 1);
    assert_int_equal(count_rows(f, self, "{\"all\":true}"), 1);
    assert_int_equal(count_rows(f, self, "{\"all\":true,\"user\":\"bob\"}"), 0);
    must_fail(f, self, "session show", "{\"id\":2}", "not_found", "");
    must_fail(f, self, "session show", "{\"id\":3}", "not_found", "");
    expect_results(f, self, "session end", "{\"ids\":[2,3,99]}",
                   "2=not-found 3=not-found 99=not-found");
    expect_results(f, self, "session end", "{\"user\":\"bob\"}", "");
    expect_results(f, self, "session end", "{\"all\":true,\"dry_run\":true}", "1=would-end");
    expect_results(f, self, "session end", "{\"ids\":1}", "1=ended");
    assert_int_equal(f->end_reason, END_SELF_ENDED);
    assert_string_equal(f->author, "alice");
    end_session(f, 1);
    json_t *stats = must(f, self, "session stats", "");
    assert_int_equal(json_integer_value(json_object_get(stats, "active")), 0);
    assert_int_equal(json_integer_value(json_object_get(stats, "disconnectedToday")), 1);
    json_decref(stats);
    auditor = meet_as(f, STRANGER + 2, STRANGER);
    assert_int_equal(count_rows(f, auditor, "{\"all\":true}"), 4);
    expect_results(f, auditor, "session end", "{\"ids\":[2,3]}", "2=forbidden 3=forbidden");
    expect_results(f, auditor, "session end", "{\"all\":true,\"dry_run\":true}", "4=would-end");
    hang_up(auditor);
    hang_up(self);
    hang_up(admin);
}

/* The next line must be an event of this type about this session. */
static void expect_event(struct fixture *f, struct caller_end *e, const char *type, const char *id,
                         const char *status)
{
    json_t *line = hear(f, e), *event = json_object_get(line, "event");
    json_t *session = json_object_get(event, "session");

    assert_string_equal(text_of(event, "type"), type);
    assert_string_equal(text_of(session, "id"), id);
    assert_string_equal(text_of(session, "status"), status);
    json_decref(line);
}

static void changes_are_told(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f), *bobs = meet(f), *with_ended = meet(f);

    begin_session(f, "alice", "web01");
    assert_int_equal(count_rows(f, e, "{\"watch\":true}"), 1);
    assert_int_equal(count_rows(f, bobs, "{\"watch\":true,\"user\":\"bob\"}"), 0);
    assert_int_equal(count_rows(f, with_ended, "{\"watch\":true,\"all\":true}"), 1);
    begin_session(f, "bob", "web01");
    expect_event(f, e, "change", "2", "connecting");
    expect_event(f, e, "change", "2", "active");
    expect_event(f, bobs, "change", "2", "connecting");
    expect_event(f, bobs, "change", "2", "active");
    expect_event(f, with_ended, "change", "2", "connecting");
    expect_event(f, with_ended, "change", "2", "active");
    end_session(f, 1);
    expect_event(f, e, "gone", "1", "disconnected");
    expect_event(f, with_ended, "change", "1", "disconnected");
    end_session(f, 2);
    expect_event(f, bobs, "gone", "2", "disconnected"); /* and nothing about alice's before */
    must_do(f, bobs, "ping", "");                       /* others' requests go on */
    hang_up(e);
    hang_up(bobs);
    hang_up(with_ended);
}

/* A change in the middle of a long reply comes after it. */
static void events_wait_for_the_end_of_a_reply(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    size_t events = 0, rows = 0;
    bool is_done = false;

    for (int i = 0; i < 1500; i++)
        end_session(f, begin_session(f, "alice", "web01"));
    must_do(f, e, "session ls", "{\"watch\":true}");
    send_request(f, e, 5000, "session ls", "{\"all\":true,\"limit\":1500}");
    for (int i = 0; i < 3; i++)
        turn(f);
    begin_session(f, "bob", "web01");
    while (events < 2) {
        json_t *line = hear(f, e);
        rows += json_array_size(json_object_get(line, "rows"));
        if (json_object_get(line, "event")) {
            assert_true(is_done);
            events++;
        }
        is_done |= json_is_true(json_object_get(line, "ok"));
        json_decref(line);
    }
    assert_int_equal(rows, 1500);
    hang_up(e);
}

static void subscriptions_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    for (int i = 0; i < CONTROL_SUBSCRIPTIONS_MAX; i++)
        must_do(f, e, i % 2 ? "event tail" : "session ls",
                i % 2 ? "{\"follow\":true}" : "{\"watch\":true}");
    must_fail(f, e, "session ls", "{\"watch\":true}", "full", "8 subscriptions");
    hang_up(e);
    for (int i = 0; i < 100; i++)
        turn(f);
    assert_int_equal(f->control->event_followers, 0);
}

/* ---- users ---- */

static void a_password_is_hashed_elsewhere(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    char hash[STORE_HASH_MAX];
    struct store_user user;
    json_t *line;

    send_request(f, e, 1, "user add", "{\"name\":\"alice\",\"password\":\"hunter2 is long\"}");
    send_request(f, e, 2, "ping", "");
    for (int i = 0; i < 1000 && !f->hashed; i++)
        turn(f);
    assert_non_null(f->hashed);
    assert_string_equal((const char *)f->password.data, "hunter2 is long");
    assert_int_equal(store_user_get(f->store, "alice", &user), ERR_NOT_FOUND);
    f->hashed(HASH_GOOD, f->hashed_arg);
    line = hear(f, e);
    assert_string_equal(text_of(json_object_get(line, "data"), "name"), "alice");
    assert_true(json_is_true(json_object_get(json_object_get(line, "data"), "hasPassword")));
    json_decref(line);
    line = hear(f, e);
    assert_int_equal(json_integer_value(json_object_get(line, "id")), 2);
    json_decref(line);
    assert_int_equal(store_user_hash(f->store, "alice", hash), 0);
    assert_string_equal(hash, HASH_GOOD);
    assert_true(is_in_events(f, "user-add"));
    assert_false(is_in_events(f, "hunter2"));
    assert_false(is_in_events(f, "$y$"));

    f->hash_is_full = true;
    must_fail(f, e, "user passwd", "{\"name\":\"alice\",\"password\":\"x\"}", "busy", "try again");
    f->hash_is_full = false;
    f->hashed = NULL;
    send_request(f, e, 3, "user passwd", "{\"name\":\"alice\",\"password\":\"x\"}");
    for (int i = 0; i < 1000 && !f->hashed; i++)
        turn(f);
    f->hashed("", f->hashed_arg); /* hashing failed */
    line = hear(f, e);
    assert_string_equal(error_code(line), "failed");
    json_decref(line);
    hang_up(e);
}

/* The client goes away while its password is being hashed: the change is made all the same. */
static void a_client_may_vanish(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    struct store_user user;

    send_request(f, e, 1, "user add", "{\"name\":\"alice\",\"password\":\"x\"}");
    for (int i = 0; i < 1000 && !f->hashed; i++)
        turn(f);
    hang_up(e);
    for (int i = 0; i < 100; i++)
        turn(f);
    f->hashed(HASH_GOOD, f->hashed_arg);
    assert_int_equal(store_user_get(f->store, "alice", &user), 0);
    assert_true(user.has_password);
    for (int i = 0; i < 1000 && f->control->client_count; i++)
        turn(f);
    assert_int_equal(f->control->client_count, 0);
}

/* The server goes away while a password is being hashed. */
static void a_server_may_vanish(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    struct store_user user;

    send_request(f, e, 1, "user add", "{\"name\":\"alice\",\"password\":\"x\"}");
    for (int i = 0; i < 1000 && !f->hashed; i++)
        turn(f);
    control_destroy(f->control);
    f->control = NULL;
    f->hashed(HASH_GOOD, f->hashed_arg);
    assert_int_equal(store_user_get(f->store, "alice", &user), ERR_NOT_FOUND);
    hang_up(e);
}

static void users_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data;

    must_do(f, e, "user add",
            "{\"name\":\"alice\",\"role\":\"admin\",\"password_hash\":\"" HASH_GOOD
            "\",\"local_uid\":1234,\"locked\":true}");
    must_fail(f, e, "user add", "{\"name\":\"alice\"}", "exists", "alice");
    must_fail(f, e, "user add", "{\"name\":\"bob\",\"role\":\"usr\"}", "invalid",
              "did you mean user?");
    must_fail(f, e, "user add", "{\"name\":\"bob\",\"local_uid\":1234}", "exists", "linked");
    must_fail(f, e, "user show", "{\"name\":\"bob\"}", "not_found", "bob"); /* no half of him */
    must_fail(f, e, "user add", "{\"name\":\"b\",\"password\":\"x\",\"password_hash\":\"y\"}",
              "usage", "not both");
    must_fail(f, e, "user add", "{\"name\":\"b\",\"password_hash\":\"plain\"}", "invalid",
              "yescrypt");
    must_fail(f, e, "user add", "{\"name\":\"b\",\"password_hash\":\"$1$abcdefgh$rfhkZ5eTMzd\"}",
              "invalid", "yescrypt");
    must_fail(f, e, "user add", "{\"name\":\"b\",\"password_hash\":\"$y$j9T$LdJMENpBABJJ3h\"}",
              "invalid", "yescrypt"); /* a setting without a hash */
    data = must(f, e, "user show", "{\"name\":\"alice\"}");
    assert_string_equal(text_of(data, "role"), "admin");
    assert_true(json_is_true(json_object_get(data, "locked")));
    assert_int_equal(json_integer_value(json_object_get(data, "localUid")), 1234);
    assert_true(json_is_null(json_object_get(data, "lastLogin")));
    assert_int_equal(json_array_size(json_object_get(data, "keys")), 0);
    json_decref(data);
    must_do(f, e, "user set", "{\"name\":\"alice\",\"role\":\"user\",\"local_uid\":null}");
    must_fail(f, e, "user set", "{\"name\":\"alice\"}", "usage", "say what");
    must_fail(f, e, "user set", "{\"name\":\"x\",\"role\":\"user\"}", "not_found", "x");
    must_do(f, e, "user unlock", "{\"name\":\"alice\"}");
    must_do(f, e, "user passwd", "{\"name\":\"alice\",\"remove\":true}");
    data = must(f, e, "user ls", "");
    assert_int_equal(json_array_size(data), 1);
    assert_true(json_is_null(json_object_get(json_array_get(data, 0), "localUid")));
    assert_true(json_is_false(json_object_get(json_array_get(data, 0), "hasPassword")));
    json_decref(data);
    assert_true(f->access_changes >= 3);
    must_do(f, e, "user rm", "{\"name\":\"alice\"}");
    must_fail(f, e, "user rm", "{\"name\":\"alice\"}", "not_found", "alice");
    assert_true(is_in_events(f, "user-rm"));
    hang_up(e);
}

static void keys_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data;

    must_do(f, e, "user add", "{\"name\":\"alice\"}");
    data = must(f, e, "user key add",
                "{\"name\":\"alice\",\"key\":\"" KEY_ED25519 " alice@laptop\\n\"}");
    assert_string_equal(text_of(data, "fingerprint"), KEY_ED25519_PRINT);
    assert_string_equal(text_of(data, "comment"), "alice@laptop");
    assert_string_equal(text_of(data, "key"), KEY_ED25519);
    json_decref(data);
    must_fail(f, e, "user key add", "{\"name\":\"alice\",\"key\":\"" KEY_ED25519 "\"}", "exists",
              "");
    must_fail(f, e, "user key add", "{\"name\":\"bob\",\"key\":\"" KEY_ED25519 "\"}", "not_found",
              "bob");
    must_fail(f, e, "user key add", "{\"name\":\"alice\",\"key\":\"rubbish\"}", "invalid",
              "ssh-ed25519 AAAA");
    must_do(f, e, "user key add", "{\"name\":\"alice\",\"key\":\"" KEY_OTHER "\"}");
    data = must(f, e, "user key ls", "{\"name\":\"alice\"}");
    assert_int_equal(json_array_size(data), 2);
    json_decref(data);
    must_do(f, e, "user key rm", "{\"name\":\"alice\",\"key\":\"" KEY_ED25519_PRINT "\"}");
    must_fail(f, e, "user key rm", "{\"name\":\"alice\",\"key\":\"" KEY_ED25519_PRINT "\"}",
              "not_found", "");
    must_do(f, e, "user key rm", "{\"name\":\"alice\",\"key\":\"2\"}");
    data = must(f, e, "user key ls", "{\"name\":\"alice\"}");
    assert_int_equal(json_array_size(data), 0);
    json_decref(data);
    hang_up(e);
}

/* A code of this key that fits now. */
static void code_of(const char *base32, char code[8])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    struct secret key = {.len = 0};
    unsigned bits = 0, held = 0;
    uint64_t step;

    for (; *base32; base32++) {
        held = held << 5 | (unsigned)(strchr(letters, *base32) - letters);
        bits += 5;
        if (bits < 8)
            continue;
        bits -= 8;
        key.data[key.len++] = (uint8_t)(held >> bits);
    }
    for (unsigned n = 0; n < 1000000; n++) {
        snprintf(code, 8, "%06u", n);
        if (factor_code_fits(&key, code, clock_wall_us() / 1000000, &step))
            return;
    }
    fail_msg("no code fits");
}

static void second_factors_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f), *self;
    char code[8], args[96], key[64];
    json_t *data;

    must_do(f, e, "user add", "{\"name\":\"bob\",\"local_uid\":2001}");
    self = meet_as(f, 2001, 2001);
    must_fail(f, e, "user totp confirm", "{\"name\":\"bob\",\"code\":\"123456\"}", "not_found", "");
    data = must(f, self, "self totp enable", ""); /* who has none needs no code of it */
    text_copy(key, sizeof(key), text_of(data, "secret"));
    assert_non_null(strstr(text_of(data, "uri"), key));
    assert_true(strlen(text_of(data, "picture")) > 1000);
    json_decref(data);
    must_fail(f, self, "self totp confirm", "{\"code\":\"12345\"}", "not_permitted", "clock");
    data = must(f, self, "self totp show", "");
    assert_false(json_is_true(json_object_get(data, "enrolled")));
    json_decref(data);
    code_of(key, code);
    snprintf(args, sizeof(args), "{\"code\":\"%s\"}", code);
    data = must(f, self, "self totp confirm", args);
    assert_int_equal(json_array_size(json_object_get(data, "recoveryCodes")), 10);
    json_decref(data);
    assert_true(is_in_events(f, "totp-enabled") && !is_in_events(f, key));
    /* one's own is changed with a code; an admin, who helps, needs none */
    must_fail(f, self, "self totp disable", "", "usage", "code");
    must_fail(f, self, "self totp enable", "{\"code\":\"999999\"}", "not_permitted", "wrong");
    must_fail(f, self, "self totp recovery", "{\"code\":\"full\"}", "busy", "");
    must_do(f, self, "self totp recovery", "{\"code\":\"123456\"}");
    must_fail(f, self, "user totp disable", "{\"name\":\"bob\"}", "not_permitted", "");
    must_do(f, e, "user totp recovery", "{\"name\":\"bob\"}");
    must_do(f, e, "user totp disable", "{\"name\":\"bob\"}");
    must_fail(f, e, "user totp disable", "{\"name\":\"bob\"}", "not_found", "");
    must_fail(f, e, "self totp show", "", "not_found", "linked");
    must_do(f, e, "user set", "{\"name\":\"bob\",\"second_factor\":\"totp\"}");
    must_fail(f, e, "user set", "{\"name\":\"bob\",\"second_factor\":\"sms\"}", "invalid",
              "role|no|totp");
    must_fail(f, e, "user set", "{\"name\":\"bob\",\"cert_principals\":\"a b\"}", "invalid",
              "blanks");
    data = must(f, self, "self totp show", "");
    assert_true(json_is_true(json_object_get(data, "required")));
    json_decref(data);
    hang_up(self);
    hang_up(e);
}

static void sources_are_let_in_again(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data = must(f, e, "source ls", "");

    assert_int_equal(json_array_size(data), 1);
    assert_string_equal(text_of(json_array_get(data, 0), "address"), "192.0.2.1");
    assert_true(json_is_string(json_object_get(json_array_get(data, 0), "until")));
    json_decref(data);
    data = must(f, e, "source ls", "{\"all\":true}");
    assert_int_equal(json_array_size(data), 2);
    assert_true(json_is_null(json_object_get(json_array_get(data, 1), "until")));
    json_decref(data);
    must_fail(f, e, "source unblock", "", "usage", "");
    must_fail(f, e, "source unblock", "{\"all\":true,\"address\":\"192.0.2.1\"}", "usage", "");
    must_fail(f, e, "source unblock", "{\"address\":\"nonsense\"}", "invalid", "");
    must_do(f, e, "source unblock", "{\"address\":\"192.0.2.1\"}");
    assert_true(is_in_events(f, "192.0.2.1"));
    hang_up(e);
}

static void roles_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data;

    data = must(f, e, "role ls", "");
    assert_int_equal(json_array_size(data), 3);
    json_decref(data);
    data = must(f, e, "role add",
                "{\"name\":\"ops\",\"policy\":{\"idle_after\":\"90m\",\"record\":false,"
                "\"max_channels\":3}}");
    assert_string_equal(text_of(json_object_get(data, "policy"), "idle_after"), "1h30m");
    assert_string_equal(text_of(json_object_get(data, "policy"), "record"), "no");
    assert_string_equal(text_of(json_object_get(data, "policy"), "max_channels"), "3");
    json_decref(data);
    data = must(f, e, "role set",
                "{\"name\":\"ops\",\"policy\":{\"idle_after\":null,\"counts\":\"input\"}}");
    assert_int_equal(json_object_size(json_object_get(data, "policy")), 3);
    assert_string_equal(text_of(json_object_get(data, "policy"), "counts"), "input");
    json_decref(data);
    must_do(f, e, "user add", "{\"name\":\"alice\",\"role\":\"ops\"}");
    must_fail(f, e, "role rm", "{\"name\":\"ops\"}", "busy", "in use");
    must_fail(f, e, "role rm", "{\"name\":\"admin\"}", "failed", "built in");
    must_do(f, e, "user rm", "{\"name\":\"alice\"}");
    must_do(f, e, "grant add", "{\"subject\":\"@ops\",\"target\":\"*\"}");
    must_do(f, e, "role rm", "{\"name\":\"ops\"}");
    data = must(f, e, "grant ls", "");
    assert_int_equal(json_array_size(data), 0);
    json_decref(data);
    must_fail(f, e, "role show", "{\"name\":\"ops\"}", "not_found", "ops");
    hang_up(e);
}

/* ---- targets and grants ---- */

static void targets_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    struct secret secret;
    json_t *data;

    data = must(f, e, "target add",
                "{\"name\":\"web01\",\"type\":\"ssh\",\"address\":\"WEB.Example.org\","
                "\"account\":\"root\",\"secret\":\"pa$$ word\",\"host_key\":\"" KEY_ED25519
                " x\",\"policy\":{\"idle_after\":\"1m\"}}");
    assert_string_equal(text_of(data, "address"), "web.example.org:22");
    assert_string_equal(text_of(data, "auth"), "password");
    assert_string_equal(text_of(data, "hostKeyFingerprint"), KEY_ED25519_PRINT);
    assert_string_equal(text_of(data, "hostKey"), KEY_ED25519);
    assert_true(json_is_true(json_object_get(data, "hasSecret")));
    assert_string_equal(text_of(json_object_get(data, "policy"), "idle_after"), "1m");
    json_decref(data);
    assert_int_equal(store_target_secret(f->store, "web01", &secret), 0);
    assert_string_equal((const char *)secret.data, "pa$$ word");
    assert_false(is_in_events(f, "pa$$"));
    must_fail(f, e, "target add", "{\"name\":\"web01\",\"type\":\"ssh\",\"address\":\"x\"}",
              "exists", "web01");

    data = must(f, e, "target set",
                "{\"name\":\"web01\",\"address\":\"[2001:DB8:0::1]:2222\",\"account\":\"\","
                "\"policy\":{\"counts\":\"traffic\"}}");
    assert_string_equal(text_of(data, "address"), "[2001:db8::1]:2222");
    assert_true(json_is_null(json_object_get(data, "account")));
    assert_int_equal(json_object_size(json_object_get(data, "policy")), 2);
    assert_true(json_is_true(json_object_get(data, "hasSecret")));
    json_decref(data);
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"auth\":\"key\"}", "invalid", "needs one");
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"auth\":\"none\",\"secret\":\"x\"}",
              "invalid", "no use");
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"auth\":\"magic\"}", "invalid",
              "none|password|key|passthrough");
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"account\":\"*\"}", "invalid", "grants");
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"address\":\"a:b:c\"}", "invalid", "IPv6");
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"host_key\":\"ssh-dss AAAA\"}", "invalid",
              "DSA");
    must_fail(f, e, "target set", "{\"name\":\"none\",\"account\":\"x\"}", "not_found", "none");
    data = must(f, e, "target set",
                "{\"name\":\"web01\",\"auth\":\"passthrough\",\"host_key\":\"\","
                "\"accept_new\":true}");
    assert_true(json_is_false(json_object_get(data, "hasSecret")));
    assert_true(json_is_true(json_object_get(data, "acceptNew")));
    assert_true(json_is_null(json_object_get(data, "hostKey")));
    json_decref(data);
    assert_int_not_equal(store_target_secret(f->store, "web01", &secret), 0);

    data = must(f, e, "target set",
                "{\"name\":\"web01\",\"secret\":\"-----BEGIN PRIVATE KEY-----\\nMC4CAQ\\n"
                "-----END PRIVATE KEY-----\\n\"}");
    assert_string_equal(text_of(data, "auth"), "key");
    json_decref(data);
    must_fail(f, e, "target set", "{\"name\":\"web01\",\"auth\":\"key\",\"secret\":\"pass\"}",
              "invalid", "no private key");
    begin_session(f, "alice", "web01");
    data = must(f, e, "target ls", "{\"type\":\"ssh\"}");
    assert_int_equal(json_integer_value(json_object_get(json_array_get(data, 0), "sessions")), 1);
    json_decref(data);
    data = must(f, e, "target ls", "{\"type\":\"rdp\"}");
    assert_int_equal(json_array_size(data), 0);
    json_decref(data);
    must_do(f, e, "target rm", "{\"name\":\"web01\"}");
    must_fail(f, e, "target show", "{\"name\":\"web01\"}", "not_found", "web01");
    hang_up(e);
}

#define NEW(name, more) "{\"name\":\"" name "\",\"type\":\"ssh\",\"address\":\"h\"" more "}"

static void targets_lie_behind_each_other(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data;

    must_do(f, e, "target add", NEW("a", ""));
    must_do(f, e, "target add", NEW("b", ",\"via\":\"a\""));
    must_do(f, e, "target add", NEW("c", ",\"via\":\"b\""));
    must_do(f, e, "target add", NEW("d", ",\"via\":\"c\""));
    must_do(f, e, "target add", NEW("e", ",\"via\":\"d\""));
    must_fail(f, e, "target add", NEW("f", ",\"via\":\"e\""), "invalid", "more than 4");
    must_do(f, e, "target add", NEW("y", ""));
    must_fail(f, e, "target set", "{\"name\":\"a\",\"via\":\"y\"}", "invalid", "more than 4");
    must_fail(f, e, "target set", "{\"name\":\"a\",\"via\":\"c\"}", "invalid", "itself");
    must_fail(f, e, "target set", "{\"name\":\"a\",\"via\":\"none\"}", "invalid", "no target");
    must_fail(f, e, "target set", "{\"name\":\"a\",\"via\":\"a b\"}", "invalid", "via");
    must_fail(f, e, "target rm", "{\"name\":\"c\"}", "busy", "\"d\"");
    must_do(f, e, "target add", "{\"name\":\"w\",\"type\":\"rdp\",\"address\":\"h\"}");
    must_fail(f, e, "target set", "{\"name\":\"w\",\"via\":\"a\"}", "invalid", "ssh");
    must_fail(f, e, "target set", "{\"name\":\"y\",\"via\":\"w\"}", "invalid", "no ssh target");
    /* a document is looked at as a whole: what would be a loop halfway is none in the end */
    must_fail(f, e, "apply", "{\"document\":{\"targets\":[{\"name\":\"a\",\"via\":\"b\"}]}}",
              "invalid", "itself");
    must_do(f, e, "apply",
            "{\"document\":{\"targets\":[{\"name\":\"a\",\"via\":\"b\"},"
            "{\"name\":\"b\",\"via\":\"\"},{\"name\":\"c\",\"via\":\"\"}]}}");
    data = must(f, e, "target show", "{\"name\":\"a\"}");
    assert_string_equal(text_of(data, "via"), "b");
    json_decref(data);
    /* removing goes from the far end */
    must_do(f, e, "apply", "{\"document\":{\"targets\":[]},\"prune\":true}");
    data = must(f, e, "target ls", "");
    assert_int_equal(json_array_size(data), 0);
    json_decref(data);
    hang_up(e);
}

static void only_keys_have_certificates(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    must_fail(f, e, "target add", NEW("a", ",\"auth\":\"agent\",\"certificate\":\"x\""), "invalid",
              "only auth key");
    must_fail(f, e, "target add",
              NEW("a", ",\"secret\":\"-----BEGIN PRIVATE KEY-----\\nMC4CAQ\\n"
                       "-----END PRIVATE KEY-----\\n\",\"certificate\":\"ssh-ed25519 AAAA\""),
              "invalid", "no certificate");
    must_do(f, e, "target add", NEW("a", ",\"auth\":\"agent\""));
    must_fail(f, e, "target set", "{\"name\":\"a\",\"secret\":\"x\",\"auth\":\"agent\"}", "invalid",
              "no use");
    hang_up(e);
}

/* A daemon that tries targets at once. */
static int try_target(void *arg, const struct store_target *t, const char *account, bool only_key,
                      control_probed_fn done, void *done_arg)
{
    static const uint8_t key[] = {0,   0,   0,   11,  's', 's', 'h', '-',
                                  'e', 'd', '2', '5', '5', '1', '9'};
    struct control_probe_row rows[] = {
        {"gw", PROBE_RESOLVE, PROBE_OK, "10.0.0.1:22"},
        {"web01", PROBE_LOGIN, PROBE_FAILED, "refused"},
    };
    struct control_probe_report report = {
        .rows = rows, .count = 2, .is_ok = only_key, .key = key, .key_len = sizeof(key)};

    (void)arg;
    assert_true(!only_key || strcmp(account, "nobody") == 0);
    assert_true(t->address[0] != '\0');
    (void)text_copy(report.key_type, sizeof(report.key_type), "ssh-ed25519");
    if (strcmp(t->address, "full:22") == 0)
        return ERR_FULL;
    done(&report, done_arg);
    return 0;
}

static void targets_are_tried(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data, *step;

    must_do(f, e, "target add", NEW("web01", ""));
    must_fail(f, e, "target test", "{\"name\":\"web01\",\"account\":\"root\"}", "failed", "cannot");
    f->control->host.probe = try_target;
    must_fail(f, e, "target test", "{\"name\":\"none\"}", "not_found", "none");
    must_fail(f, e, "target test", "{\"name\":\"web01\"}", "usage", "account");
    data = must(f, e, "target test", "{\"name\":\"web01\",\"account\":\"root\"}");
    assert_true(json_is_false(json_object_get(data, "ok")));
    step = json_array_get(json_object_get(data, "steps"), 1);
    assert_string_equal(text_of(step, "step"), "login");
    assert_string_equal(text_of(step, "result"), "failed");
    json_decref(data);
    assert_true(is_in_events(f, "target-test"));
    data = must(f, e, "target host-key", "{\"address\":\"h\"}");
    assert_string_equal(text_of(data, "hostKey"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5");
    json_decref(data);
    must_fail(f, e, "target host-key", "{}", "usage", "address");
    must_fail(f, e, "target host-key", "{\"address\":\"a:b:c\"}", "invalid", "address");
    must_fail(f, e, "target host-key", "{\"address\":\"full\"}", "busy", "too many");
    hang_up(e);
}

static void grants_are_managed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *data;

    must_do(f, e, "user add", "{\"name\":\"alice\"}");
    must_do(f, e, "role add", "{\"name\":\"ops\"}");
    must_do(f, e, "target add", "{\"name\":\"web01\",\"type\":\"ssh\",\"address\":\"h\"}");
    data = must(f, e, "grant add",
                "{\"subject\":\"alice\",\"target\":\"web01\",\"account\":\"DOM\\\\bob\","
                "\"policy\":{\"max_duration\":\"4h\"}}");
    assert_string_equal(text_of(data, "account"), "DOM\\bob");
    assert_string_equal(text_of(data, "id"), "1");
    json_decref(data);
    must_do(f, e, "grant add", "{\"subject\":\"@ops\",\"target\":\"*\",\"account\":\"*\"}");
    must_fail(f, e, "grant add", "{\"subject\":\"@ops\",\"target\":\"*\",\"account\":\"*\"}",
              "exists", "@ops");
    must_fail(f, e, "grant add", "{\"subject\":\"@nobody\",\"target\":\"*\"}", "not_found",
              "nobody");
    must_fail(f, e, "grant add", "{\"subject\":\"bob\",\"target\":\"*\"}", "not_found", "bob");
    must_fail(f, e, "grant add", "{\"subject\":\"alice\",\"target\":\"x\"}", "not_found", "x");
    must_fail(f, e, "grant add", "{\"subject\":\"alice\",\"target\":\"*\",\"account\":\"a+b\"}",
              "invalid", "account");
    data = must(f, e, "grant ls", "{\"subject\":\"@ops\"}");
    assert_int_equal(json_array_size(data), 1);
    json_decref(data);
    must_do(f, e, "grant rm", "{\"id\":1}");
    must_fail(f, e, "grant rm", "{\"id\":1}", "not_found", "1");
    assert_true(is_in_events(f, "grant-rm"));
    hang_up(e);
}

/* ---- records ---- */

static void events_are_told(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f), *follower = meet(f);
    json_t *rows, *line;

    for (int i = 0; i < 1200; i++) {
        struct store_event event = {.at_wall_us = clock_wall_us(), .session_id = 7};
        snprintf(event.text, sizeof(event.text), "number %d", i);
        text_copy(event.kind, sizeof(event.kind), i % 2 ? "odd" : "even");
        text_copy(event.user, sizeof(event.user), "alice");
        store_event_add(f->store, &event);
    }
    (void)store_flush(f->store);
    rows = must(f, e, "event tail", "");
    assert_int_equal(json_array_size(rows), 50);
    assert_string_equal(text_of(json_array_get(rows, 0), "text"), "number 1150");
    assert_string_equal(text_of(json_array_get(rows, 49), "text"), "number 1199");
    json_decref(rows);
    rows = must(f, e, "event tail", "{\"kind\":\"even\",\"limit\":550}");
    assert_int_equal(json_array_size(rows), 550);
    assert_string_equal(text_of(json_array_get(rows, 549), "text"), "number 1198");
    json_decref(rows);
    rows = must(f, e, "event tail", "{\"since\":\"1h\",\"user\":\"alice\",\"session\":\"7\"}");
    assert_int_equal(json_array_size(rows), 1200);
    json_decref(rows);
    rows = must(f, e, "event tail", "{\"since\":\"1h\",\"user\":\"bob\"}");
    assert_int_equal(json_array_size(rows), 0);
    json_decref(rows);

    must_do(f, follower, "event tail", "{\"follow\":true,\"limit\":1,\"kind\":\"user-add\"}");
    must_do(f, e, "role add", "{\"name\":\"ops\"}"); /* another kind */
    must_do(f, e, "user add", "{\"name\":\"alice\"}");
    line = hear(f, follower);
    rows = json_object_get(line, "event");
    assert_string_equal(text_of(rows, "type"), "event");
    rows = json_object_get(rows, "event");
    assert_string_equal(text_of(rows, "kind"), "user-add");
    assert_string_equal(text_of(rows, "user"), "alice");
    assert_non_null(strstr(text_of(rows, "source"), "local uid"));
    json_decref(line);
    hang_up(e);
    hang_up(follower);
}

static void recordings_are_listed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f), *auditor;
    struct store_recording rec = {.channel = 1, .started_wall_us = 1, .state = RECORDING_OK};
    json_t *rows, *row;

    rec.session_id = begin_session(f, "alice", "web01");
    text_copy(rec.path, sizeof(rec.path), "2026/1.cast.zst");
    assert_int_equal(store_recording_open(f->store, &rec), 0);
    rec.channel = 2;
    text_copy(rec.path, sizeof(rec.path), "2026/1.2.cast.zst");
    assert_int_equal(store_recording_open(f->store, &rec), 0);
    rows = must(f, e, "recording ls", "{\"id\":1}");
    assert_int_equal(json_array_size(rows), 2);
    row = json_array_get(rows, 0);
    assert_string_equal(text_of(row, "id"), "1.2"); /* newest first */
    assert_string_equal(text_of(row, "path"), "/var/rec/2026/1.2.cast.zst");
    assert_string_equal(text_of(row, "user"), "alice");
    assert_int_equal(strlen(text_of(row, "chain")), 64);
    assert_string_equal(text_of(json_array_get(rows, 1), "id"), "1");
    json_decref(rows);
    if (geteuid() == 0) {
        must_do(f, e, "user add", "{\"name\":\"carol\",\"local_uid\":54323,\"role\":\"auditor\"}");
        auditor = meet_as(f, STRANGER + 2, STRANGER);
        rows = must(f, auditor, "recording ls", "");
        assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "path")));
        json_decref(rows);
        hang_up(auditor);
    }
    rows = must(f, e, "session show", "{\"id\":1}");
    assert_int_equal(json_array_size(json_object_get(rows, "recordings")), 2);
    json_decref(rows);
    hang_up(e);
}

/* ---- the daemon ---- */

static int files_in(const char *path)
{
    DIR *dir = opendir(path);
    int count = 0;

    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count;
}

static void the_daemon_is_governed(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    char args[256], path[128];
    struct stat st;
    json_t *data;

    data = must(f, e, "status", "");
    assert_int_equal(json_array_size(json_object_get(data, "listeners")), 2);
    assert_int_equal(json_integer_value(json_object_get(data, "controlClients")), 1);
    json_decref(data);
    data = must(f, e, "reload", "");
    assert_int_equal(json_array_size(json_object_get(data, "report")), 1);
    json_decref(data);
    f->reload_fails = true;
    must_fail(f, e, "reload", "", "failed", "proxy.conf:4");
    must_do(f, e, "drain", "");
    assert_true(f->is_draining);
    must_do(f, e, "undrain", "");
    assert_false(f->is_draining);
    snprintf(path, sizeof(path), "%s/copy.db", f->dir);
    snprintf(args, sizeof(args), "{\"path\":\"%s\"}", path);
    data = must(f, e, "backup", args);
    assert_true(json_integer_value(json_object_get(data, "bytes")) > 0);
    json_decref(data);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    must_fail(f, e, "backup", args, "exists", "never overwrites");
    data = must(f, e, "backup", "{}"); /* the same bytes in the reply, and nothing left behind */
    assert_int_equal(json_array_size(data), (st.st_size + 48 * 1024 - 1) / (48 * 1024));
    assert_int_equal(strncmp(text_of(json_array_get(data, 0), "data"), "U1FMaXRlIGZvcm1hdCAz", 20),
                     0); /* "SQLite format 3" */
    json_decref(data);
    assert_int_equal(files_in(f->dir), 4); /* data, key, control.sock, copy.db */
    must_do(f, e, "target add",
            "{\"name\":\"t\",\"type\":\"ssh\",\"address\":\"h\",\"secret\":\"s\"}");
    data = must(f, e, "store rotate-key", "");
    assert_int_equal(json_integer_value(json_object_get(data, "rewritten")), 1);
    json_decref(data);
    hang_up(e);
}

/* ---- apply and dump ---- */

#define DOCUMENT                                                                              \
    "{\"roles\":[{\"name\":\"ops\",\"policy\":{\"idle_after\":\"10m\"}}],"                    \
    "\"users\":[{\"name\":\"alice\",\"role\":\"ops\",\"local_uid\":1000,\"password_hash\":"   \
    "\"" HASH_GOOD "\",\"keys\":[\"" KEY_ED25519 " a@b\",\"" KEY_OTHER "\"]},"                \
    "{\"name\":\"bob\",\"locked\":true}],"                                                    \
    "\"targets\":[{\"name\":\"web01\",\"type\":\"ssh\",\"address\":\"10.0.0.1\",\"account\":" \
    "\"root\",\"secret\":\"sesame\",\"host_key\":\"" KEY_ED25519 "\"}],"                      \
    "\"grants\":[{\"subject\":\"@ops\",\"target\":\"*\",\"account\":\"*\"},"                  \
    "{\"subject\":\"bob\",\"target\":\"web01\",\"policy\":{\"record\":false}}]}"

/* "+users:alice ..." of an apply. */
static void expect_changes(struct fixture *f, struct caller_end *e, const char *document,
                           const char *options, const char *changes)
{
    char *args = NULL, got[1024] = "";
    json_t *rows, *row;
    size_t i;

    assert_true(asprintf(&args, "{\"document\":%s%s}", document, options) > 0);
    rows = must(f, e, "apply", args);
    free(args);
    json_array_foreach(rows, i, row)
    {
        size_t len = strlen(got);
        snprintf(got + len, sizeof(got) - len, "%s%s%s:%s", i ? "; " : "", text_of(row, "change"),
                 text_of(row, "section"), text_of(row, "name"));
    }
    if (strcmp(got, changes) != 0) {
        char *dump = json_dumps(rows, 0);
        fail_msg("got %s, wanted %s\n%s", got, changes, dump);
    }
    json_decref(rows);
}

/* A dump as a document, as its client puts it together. */
static char *dumped(struct fixture *f, struct caller_end *e)
{
    json_t *rows = must(f, e, "dump", ""), *document = json_object(), *row;
    char *text;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        const char *section = text_of(row, "section");
        if (!json_object_get(document, section))
            json_object_set_new(document, section, json_array());
        json_array_append(json_object_get(document, section), json_object_get(row, "item"));
    }
    text = json_dumps(document, JSON_COMPACT);
    json_decref(document);
    json_decref(rows);
    return text;
}

static void a_document_is_applied(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    struct secret secret;
    char *first, *second;
    int changes;

    expect_changes(f, e, DOCUMENT, ",\"dry_run\":true",
                   "+roles:ops; +users:alice; +users:bob; +targets:web01; +grants:@ops *; "
                   "+grants:bob web01");
    assert_int_equal(f->access_changes, 0);
    expect_changes(f, e, DOCUMENT, "",
                   "+roles:ops; +users:alice; +users:bob; +targets:web01; +grants:@ops *; "
                   "+grants:bob web01");
    assert_int_equal(f->access_changes, 1);
    assert_int_equal(store_target_secret(f->store, "web01", &secret), 0);
    assert_string_equal((const char *)secret.data, "sesame");
    expect_changes(f, e, DOCUMENT, "", "");
    expect_changes(f, e, DOCUMENT, ",\"prune\":true", "");
    changes = f->access_changes;
    assert_true(is_in_events(f, "apply"));
    assert_false(is_in_events(f, "sesame"));
    assert_false(is_in_events(f, "$y$"));

    first = dumped(f, e);
    assert_null(strstr(first, "sesame"));
    assert_null(strstr(first, "$y$"));
    assert_non_null(strstr(first, KEY_ED25519 " a@b"));
    expect_changes(f, e, first, ",\"prune\":true", ""); /* a dump changes nothing */
    second = dumped(f, e);
    assert_string_equal(first, second);
    assert_int_equal(f->access_changes, changes);
    free(first);
    free(second);
    hang_up(e);
}

/* A dump put into an empty store: everything but the secrets. */
static void a_dump_restores(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    char *dump;

    expect_changes(f, e, DOCUMENT, "",
                   "+roles:ops; +users:alice; +users:bob; +targets:web01; +grants:@ops *; "
                   "+grants:bob web01");
    dump = dumped(f, e);
    expect_changes(f, e, "{\"roles\":[],\"users\":[],\"targets\":[],\"grants\":[]}",
                   ",\"prune\":true",
                   "-grants:@ops *; -grants:bob web01; -targets:web01; -users:alice; -users:bob; "
                   "-roles:ops");
    expect_changes(f, e, dump, "",
                   "+roles:ops; +users:alice; +users:bob; +targets:web01; +grants:@ops *; "
                   "+grants:bob web01");
    expect_changes(f, e, dump, "", "");
    assert_true(is_in_events(f, "its secret is missing"));
    must_do(f, e, "target set", "{\"name\":\"web01\",\"secret\":\"again\"}");
    free(dump);
    hang_up(e);
}

static void a_document_changes_things(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    expect_changes(f, e, DOCUMENT, "",
                   "+roles:ops; +users:alice; +users:bob; +targets:web01; +grants:@ops *; "
                   "+grants:bob web01");
    /* What is left out keeps its value. */
    expect_changes(f, e, "{\"users\":[{\"name\":\"alice\"}],\"targets\":[{\"name\":\"web01\"}]}",
                   "", "");
    expect_changes(f, e,
                   "{\"roles\":[{\"name\":\"ops\",\"policy\":{}}],"
                   "\"users\":[{\"name\":\"bob\",\"locked\":false,\"role\":\"ops\"},"
                   "{\"name\":\"alice\",\"local_uid\":null,\"keys\":[\"" KEY_OTHER "\"]}],"
                   "\"targets\":[{\"name\":\"web01\",\"address\":\"10.0.0.2:23\"}],"
                   "\"grants\":[{\"subject\":\"bob\",\"target\":\"web01\",\"policy\":{}}]}",
                   "", "~roles:ops; ~users:bob; ~users:alice; ~targets:web01; ~grants:bob web01");
    expect_changes(f, e, "{\"users\":[{\"name\":\"alice\",\"keys\":[\"" KEY_OTHER "\"]}]}",
                   ",\"prune\":true,\"dry_run\":true", "~users:alice; -users:bob");
    expect_changes(f, e, "{\"users\":[{\"name\":\"alice\",\"keys\":[\"" KEY_OTHER "\"]}]}",
                   ",\"prune\":true", "~users:alice; -users:bob");
    must_fail(f, e, "apply", "{\"document\":{\"roles\":[]},\"prune\":true}", "invalid",
              "ops is not listed but is still used by user alice");
    must_fail(f, e, "apply", "{\"document\":{\"roles\":[]},\"prune\":true}", "invalid",
              "ops is not listed but is still used by grants to @ops");
    expect_changes(
        f, e, "{\"grants\":[],\"roles\":[],\"users\":[{\"name\":\"alice\",\"role\":\"user\"}]}",
        ",\"prune\":true", "~users:alice; -grants:@ops *; -roles:ops");
    hang_up(e);
}

static void a_bad_document_changes_nothing(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *line = ask(f, e, "apply",
                       "{\"document\":{\"users\":[{\"name\":\"alice\"},{\"name\":\"bob\","
                       "\"role\":\"opps\"},{\"nam\":\"x\"},{\"name\":\"alice\"},7,"
                       "{\"name\":\"k\",\"keys\":[\"rubbish\"]},"
                       "{\"name\":\"p\",\"password\":\"x\"}],"
                       "\"targets\":[{\"name\":\"t\"},{\"name\":\"u\",\"type\":\"ssh\","
                       "\"address\":\"h\",\"auth\":\"none\",\"secret\":\"x\"}],"
                       "\"grants\":[{\"subject\":\"carol\",\"target\":\"*\"},"
                       "{\"subject\":\"alice\",\"target\":\"web\"}],\"userz\":[]}}");
    static const char *const complaints[] = {
        "\"userz\": no such section; did you mean users",
        "users[1] \"bob\": there is no role opps",
        "users[2]: no argument \"nam\"; did you mean name?",
        "users[3] \"alice\": it is listed twice",
        "users[4]: give an object",
        "users[5] \"k\": \"rubbish\" is no key type",
        "users[6] \"p\": no argument \"password\"",
        "targets[0] \"t\": a new target needs type and address",
        "targets[1] \"u\": secret: auth none has no use for one",
        "grants[0] \"carol\": there is no user carol",
        "grants[1] \"alice\": there is no target web",
    };
    struct store_user user;

    assert_string_equal(error_code(line), "invalid");
    for (size_t i = 0; i < sizeof(complaints) / sizeof(complaints[0]); i++) {
        if (!strstr(error_message(line), complaints[i]))
            fail_msg("no \"%s\" in:\n%s", complaints[i], error_message(line));
    }
    json_decref(line);
    assert_int_equal(store_user_get(f->store, "alice", &user), ERR_NOT_FOUND);
    assert_int_equal(f->access_changes, 0);
    /* Pruning a role away that the document's own users need is found before anything is done. */
    must_do(f, e, "role add", "{\"name\":\"ops\"}");
    must_fail(f, e, "apply",
              "{\"document\":{\"roles\":[],\"users\":[{\"name\":\"a\",\"role\":\"ops\"}]},"
              "\"prune\":true}",
              "invalid", "there is no role ops");
    hang_up(e);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_session_is_shown_as_promised),
        TEST(filters_narrow_the_list),
        TEST(lists_are_in_order),
        TEST(stats_count),
        TEST(sessions_are_ended),
        TEST(messages_are_shown),
        TEST(users_see_their_own),
        TEST(changes_are_told),
        TEST(events_wait_for_the_end_of_a_reply),
        TEST(subscriptions_are_bounded),
        TEST(a_password_is_hashed_elsewhere),
        TEST(a_client_may_vanish),
        TEST(a_server_may_vanish),
        TEST(users_are_managed),
        TEST(keys_are_managed),
        TEST(second_factors_are_managed),
        TEST(sources_are_let_in_again),
        TEST(roles_are_managed),
        TEST(targets_are_managed),
        TEST(targets_lie_behind_each_other),
        TEST(only_keys_have_certificates),
        TEST(targets_are_tried),
        TEST(grants_are_managed),
        TEST(events_are_told),
        TEST(recordings_are_listed),
        TEST(the_daemon_is_governed),
        TEST(a_document_is_applied),
        TEST(a_dump_restores),
        TEST(a_document_changes_things),
        TEST(a_bad_document_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
