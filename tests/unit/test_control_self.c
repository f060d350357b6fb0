/* Callers who came by SSH, and what users do for themselves. */
#include "control_fixture.h"

#include <sallyport/secret.h>

/* A connection that speaks for a user, with its greeting read. */
static struct caller_end *visit(struct fixture *f, const char *user, bool may_have_role)
{
    struct caller_end *e = (struct caller_end *)calloc(1, sizeof(*e));
    struct control_guest guest = {.source = "192.0.2.7", .address = "198.51.100.1:2222"};
    int pair[2];

    assert_non_null(e);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    text_copy(guest.user, sizeof(guest.user), user);
    guest.may_have_role = may_have_role;
    assert_int_equal(control_adopt(f->control, pair[0], &guest), 0);
    e->fd = pair[1];
    return e;
}

static void expect_hello(struct fixture *f, struct caller_end *e, const char *access,
                         const char *user)
{
    json_t *line = hear(f, e), *caller = json_object_get(line, "caller");

    assert_string_equal(text_of(caller, "access"), access);
    assert_string_equal(text_of(caller, "user"), user);
    assert_true(json_is_null(json_object_get(caller, "uid")));
    json_decref(line);
}

static struct caller_end *enter(struct fixture *f, const char *user)
{
    struct caller_end *e = visit(f, user, false);

    json_decref(hear(f, e));
    return e;
}

static void expect_turned_away(struct fixture *f, struct caller_end *e)
{
    json_t *line = hear(f, e);

    assert_string_equal(error_code(line), "not_permitted");
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
}

static void guests_have_the_rights_of_users(void **state)
{
    static const struct {
        const char *user;
        bool may_have_role;
        const char *access; /* NULL: turned away */
    } rows[] = {
        {"alice", false, "self"}, {"alice", true, NULL},   {"ann", false, "self"},
        {"ann", true, "admin"},   {"otto", true, "audit"}, {"otto", false, "self"},
        {"lou", false, NULL},     {"lou", true, NULL},     {"nobody", false, NULL},
    };
    struct fixture *f = *state;
    struct caller_end *admin = meet(f);

    must_do(f, admin, "user add", "{\"name\":\"alice\"}");
    must_do(f, admin, "user add", "{\"name\":\"ann\",\"role\":\"admin\"}");
    must_do(f, admin, "user add", "{\"name\":\"otto\",\"role\":\"auditor\"}");
    must_do(f, admin, "user add", "{\"name\":\"lou\",\"role\":\"admin\",\"locked\":true}");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct caller_end *e = visit(f, rows[i].user, rows[i].may_have_role);

        if (!rows[i].access) {
            expect_turned_away(f, e);
            continue;
        }
        expect_hello(f, e, rows[i].access, rows[i].user);
        hang_up(e);
    }
    hang_up(admin);
}

static void what_is_taken_away_acts_at_once(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *e;
    json_t *line;

    must_do(f, admin, "user add", "{\"name\":\"ann\",\"role\":\"admin\"}");
    e = visit(f, "ann", true);
    json_decref(hear(f, e));
    must_do(f, e, "user add", "{\"name\":\"bob\"}");
    must_do(f, admin, "user set", "{\"name\":\"ann\",\"role\":\"user\"}");
    line = hear(f, e);
    assert_string_equal(error_code(line), "not_permitted");
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
    e = enter(f, "ann");
    must_fail(f, e, "user ls", "", "not_permitted", "");
    must_do(f, admin, "user lock", "{\"name\":\"ann\"}");
    line = hear(f, e);
    assert_string_equal(error_code(line), "not_permitted");
    json_decref(line);
    hang_up(e);
    hang_up(admin);
}

static void targets_are_ones_own(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *e;
    json_t *rows, *config;

    must_do(f, admin, "user add", "{\"name\":\"alice\"}");
    must_do(f, admin, "target add",
            "{\"name\":\"web01\",\"type\":\"ssh\",\"address\":\"10.0.0.1\",\"account\":\"root\"}");
    must_do(f, admin, "target add",
            "{\"name\":\"win01\",\"type\":\"rdp\",\"address\":\"10.0.0.2\"}");
    must_do(f, admin, "target add",
            "{\"name\":\"secret\",\"type\":\"ssh\",\"address\":\"10.0.0.3\"}");
    must_do(f, admin, "grant add", "{\"subject\":\"alice\",\"target\":\"web01\"}");
    must_do(f, admin, "grant add", "{\"subject\":\"alice\",\"target\":\"win01\"}");
    must_fail(f, admin, "self targets", "", "not_found", "linked to no proxy user");
    e = enter(f, "alice");
    rows = must(f, e, "self targets", "");
    assert_int_equal(json_array_size(rows), 2);
    assert_string_equal(text_of(json_array_get(rows, 0), "name"), "web01");
    assert_string_equal(text_of(json_array_get(rows, 0), "account"), "root");
    assert_true(json_is_null(json_object_get(json_array_get(rows, 0), "lastUsed")));
    assert_string_equal(text_of(json_array_get(rows, 1), "type"), "rdp");
    json_decref(rows);
    config = must(f, e, "self config", "");
    assert_string_equal(text_of(config, "user"), "alice");
    assert_string_equal(text_of(config, "address"), "198.51.100.1:2222");
    assert_string_equal(text_of(config, "node"), "node1");
    assert_int_equal(json_array_size(json_object_get(config, "targets")), 2);
    json_decref(config);
    must_fail(f, e, "target ls", "", "not_permitted", "");
    must_fail(f, e, "self targets", "{\"name\":\"bob\"}", "invalid", "");
    hang_up(e);
    hang_up(admin);
}

static void keys_are_ones_own(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *e;
    const char *found = "192.0.2.7";
    json_t *key, *rows;
    char args[512];

    must_do(f, admin, "user add", "{\"name\":\"alice\"}");
    must_do(f, admin, "user add", "{\"name\":\"bob\"}");
    must_do(f, admin, "user key add", "{\"name\":\"bob\",\"key\":\"" KEY_OTHER "\"}");
    e = enter(f, "alice");
    key = must(f, e, "self key add", "{\"key\":\"" KEY_ED25519 " laptop\"}");
    assert_string_equal(text_of(key, "user"), "alice");
    assert_string_equal(text_of(key, "fingerprint"), KEY_ED25519_PRINT);
    rows = must(f, e, "self key ls", "");
    assert_int_equal(json_array_size(rows), 1);
    json_decref(rows);
    must_fail(f, e, "self key add", "{\"key\":\"x\"}", "invalid", "");
    must_fail(f, e, "self key rm", "{\"key\":\"1\"}", "not_found", ""); /* bob's */
    (void)snprintf(args, sizeof(args), "{\"key\":\"%s\"}", text_of(key, "id"));
    must_do(f, e, "self key rm", args);
    json_decref(key);
    must_fail(f, e, "user key add", "{\"name\":\"bob\",\"key\":\"" KEY_ED25519 "\"}",
              "not_permitted", "");
    must_fail(f, e, "self key add", "{\"name\":\"bob\",\"key\":\"" KEY_ED25519 "\"}", "invalid",
              "");
    rows = must(f, admin, "event tail", "{\"kind\":\"user-key-rm\"}");
    assert_string_equal(text_of(json_array_get(rows, 0), "source"), found);
    json_decref(rows);
    hang_up(e);
    hang_up(admin);
}

static void finish_hash(struct fixture *f, const char *hash)
{
    for (int i = 0; i < 1000 && !f->hashed; i++)
        turn(f);
    assert_non_null(f->hashed);
    f->hashed(hash, f->hashed_arg);
    f->hashed = NULL;
}

static void a_password_needs_the_old_one(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *e;
    char hash[STORE_HASH_MAX];
    json_t *line;

    must_do(f, admin, "user add", "{\"name\":\"alice\",\"password_hash\":\"" HASH_GOOD "\"}");
    must_do(f, admin, "user add", "{\"name\":\"carl\"}");
    e = enter(f, "alice");
    must_fail(f, e, "self passwd", "{\"old\":\"wrong\",\"password\":\"long enough\"}",
              "not_permitted", "old password is wrong");
    assert_string_equal(f->checked_user, "alice");
    must_fail(f, e, "self passwd", "{\"old\":\"right\",\"password\":\"short\"}", "invalid", "8");
    must_fail(f, e, "self passwd", "{\"old\":\"right\"}", "usage", "");
    must_fail(f, e, "self passwd", "{\"old\":\"same same\",\"password\":\"same same\"}", "invalid",
              "is the old one");
    send_request(f, e, 77, "self passwd", "{\"old\":\"right\",\"password\":\"long enough\"}");
    finish_hash(f, "$y$new");
    assert_string_equal((const char *)f->password.data, "long enough");
    line = hear(f, e);
    assert_true(json_is_true(json_object_get(line, "ok")));
    json_decref(line);
    assert_int_equal(store_user_hash(f->store, "alice", hash), 0);
    assert_string_equal(hash, "$y$new");
    f->hash_is_full = true;
    must_fail(f, e, "self passwd", "{\"old\":\"right\",\"password\":\"another one\"}", "busy", "");
    f->hash_is_full = false;
    hang_up(e);
    e = enter(f, "carl");
    must_fail(f, e, "self passwd", "{\"old\":\"right\",\"password\":\"long enough\"}", "not_found",
              "no password");
    hang_up(e);
    hang_up(admin);
}

/* The client goes while its old password is checked: it is changed, or it is not, and nothing is
 * left behind. */
static void a_client_goes_meanwhile(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *e;

    must_do(f, admin, "user add", "{\"name\":\"alice\",\"password_hash\":\"" HASH_GOOD "\"}");
    for (int i = 0; i < 2; i++) {
        e = enter(f, "alice");
        send_request(f, e, 1, "self passwd",
                     i ? "{\"old\":\"wrong\",\"password\":\"long enough\"}"
                       : "{\"old\":\"right\",\"password\":\"long enough\"}");
        hang_up(e);
        for (int n = 0; n < 50; n++)
            turn(f);
        if (i == 0 && f->hashed)
            finish_hash(f, "$y$new");
    }
    must_do(f, admin, "ping", "");
    hang_up(admin);
}

static void guests_leave_room_for_admins(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *ends[CONTROL_CLIENTS_MAX];
    struct control_guest guest = {.user = "alice"};
    size_t count = 0;
    int pair[2];

    must_do(f, admin, "user add", "{\"name\":\"alice\"}");
    for (;; count++) {
        assert_true(count < CONTROL_CLIENTS_MAX);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
        if (control_adopt(f->control, pair[0], &guest) < 0)
            break;
        ends[count] = (struct caller_end *)calloc(1, sizeof(*ends[0]));
        assert_non_null(ends[count]);
        ends[count]->fd = pair[1];
    }
    (void)close(pair[1]);
    assert_int_equal(count, CONTROL_CLIENTS_MAX - CONTROL_CLIENTS_KEPT - 1);
    hang_up(meet(f));
    while (count)
        hang_up(ends[--count]);
    hang_up(admin);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(guests_have_the_rights_of_users, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(what_is_taken_away_acts_at_once, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(targets_are_ones_own, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(keys_are_ones_own, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(a_password_needs_the_old_one, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(a_client_goes_meanwhile, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(guests_leave_room_for_admins, fixture_setup,
                                        fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
