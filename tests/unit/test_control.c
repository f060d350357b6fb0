/* The control server's socket and protocol: who gets in, what a line may be, how it ends. */
#include "tests/unit/control_fixture.h"

/* ---- the protocol ---- */

static void it_greets_and_answers(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = dial_as(f, geteuid(), getegid());
    json_t *line = hear(f, e), *rows;

    assert_int_equal(json_integer_value(json_object_get(line, "v")), 1);
    assert_string_equal(text_of(line, "node"), "node1");
    assert_string_equal(text_of(json_object_get(line, "caller"), "access"), "admin");
    json_decref(line);
    must_do(f, e, "ping", "");
    rows = must(f, e, "help", "");
    assert_true(json_array_size(rows) > 40);
    json_decref(rows);
    rows = must(f, e, "help", "{\"command\":\"session end\"}");
    assert_int_equal(json_array_size(rows), 1);
    assert_string_equal(text_of(json_array_get(rows, 0), "access"), "self");
    json_decref(rows);
    hang_up(e);
}

static void ids_are_echoed_and_order_is_kept(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *line;

    say_line(f, e,
             "{\"v\":1,\"id\":\"first\",\"command\":\"ping\"}\r\n"
             "{\"v\":1,\"id\":2,\"command\":\"ping\",\"args\":null}\n"
             "{\"v\":1,\"id\":3,\"command\":\"ping\",\"args\":{}}");
    line = hear(f, e);
    assert_string_equal(text_of(line, "id"), "first");
    json_decref(line);
    line = hear(f, e);
    assert_int_equal(json_integer_value(json_object_get(line, "id")), 2);
    json_decref(line);
    line = hear(f, e);
    assert_int_equal(json_integer_value(json_object_get(line, "id")), 3);
    json_decref(line);
    hang_up(e);
}

/* A client that asks, shuts down its side and reads. */
static void half_close_works(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *line;

    send_request(f, e, 5, "session stats", "");
    assert_int_equal(shutdown(e->fd, SHUT_WR), 0);
    line = hear(f, e);
    assert_true(json_is_true(json_object_get(line, "ok")));
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
    turn(f);
    assert_int_equal(f->control->client_count, 0);
}

/* Each is answered with an error and the end; the next client is served. */
static void bad_lines_end_the_connection(void **state)
{
    static const struct {
        const char *line, *message;
    } cases[] = {
        {"garbage", "JSON"},
        {"", "JSON"},
        {"{\"v\":1,\"id\":1,\"command\":\"ping\"", "JSON"},
        {"[1]", "object"},
        {"\"text\"", "JSON"},
        {"{\"v\":1,\"v\":1,\"id\":1,\"command\":\"ping\"}", "JSON"},
        {"{\"v\":1,\"id\":1,\"command\":\"pi\\u0000ng\"}", "JSON"},
        {"{\"v\":1,\"id\":1,\"command\":\"\xff\"}", "JSON"},
        {"{\"v\":1,\"command\":\"ping\"}", "\"id\""},
        {"{\"v\":1,\"id\":1.5,\"command\":\"ping\"}", "\"id\""},
        {"{\"v\":1,\"id\":{},\"command\":\"ping\"}", "\"id\""},
        {"{\"id\":1,\"command\":\"ping\"}", "version 1"},
        {"{\"v\":2,\"id\":1,\"command\":\"ping\"}", "version 1"},
        {"{\"v\":1,\"id\":1,\"args\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "32 levels"},
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct caller_end *e = meet(f);
        json_t *line;

        say_line(f, e, cases[i].line);
        say_line(f, e, "{\"v\":1,\"id\":9,\"command\":\"ping\"}"); /* is not carried out */
        line = hear(f, e);
        assert_string_equal(error_code(line), "protocol");
        if (!strstr(error_message(line), cases[i].message))
            fail_msg("%s: %s", cases[i].line, error_message(line));
        json_decref(line);
        assert_null(hear(f, e));
        hang_up(e);
    }
    struct caller_end *e = meet(f);
    must_do(f, e, "ping", "");
    hang_up(e);
}

/* What was sent is not quoted: it may have been a password. */
static void errors_quote_no_secret(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *line;
    char *dump;

    say_line(f, e,
             "{\"v\":1,\"id\":1,\"command\":\"user passwd\",\"args\":{\"password\":\"hunter2");
    line = hear(f, e);
    dump = json_dumps(line, 0);
    assert_null(strstr(dump, "hunter2"));
    free(dump);
    json_decref(line);
    hang_up(e);
}

static void a_line_of_10_mb_is_refused(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f), *other = meet(f);
    size_t len = 10 << 20;
    char *data = malloc(len);
    json_t *line;

    assert_non_null(data);
    memset(data, 'x', len);
    say_bytes(f, e, data, len);
    line = hear(f, e);
    assert_string_equal(error_code(line), "protocol");
    assert_non_null(strstr(error_message(line), "1 MiB"));
    assert_true(json_is_null(json_object_get(line, "id")));
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
    must_do(f, other, "ping", ""); /* the daemon keeps serving */
    hang_up(other);
    free(data);
}

/* Just below the limit is fine: an array of spaces and an unknown command. */
static void a_long_line_is_taken(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    size_t len = 1000 * 1000;
    char *data = malloc(len + 1);
    json_t *line;

    assert_non_null(data);
    memset(data, ' ', len);
    data[len] = '\0';
    say_bytes(f, e, data, len);
    say_line(f, e, "{\"v\":1,\"id\":1,\"command\":\"ping\"}");
    line = hear(f, e);
    assert_true(json_is_true(json_object_get(line, "ok")));
    json_decref(line);
    hang_up(e);
    free(data);
}

static void half_a_line_times_out(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e;
    json_t *line;

    assert_int_equal(f->control->line_ms, 10000);
    f->control->line_ms = 100;
    e = meet(f);
    must_do(f, e, "ping", ""); /* whole lines are in no hurry */
    say_bytes(f, e, "{\"v\":1,", 7);
    line = hear(f, e);
    assert_string_equal(error_code(line), "protocol");
    assert_non_null(strstr(error_message(line), "not finished"));
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
}

static void mistakes_are_explained(void **state)
{
    static const struct {
        const char *command, *args, *code, *message;
    } cases[] = {
        {"session lss", "", "usage", "did you mean session ls?"},
        {"nonsense", "", "usage", "the command help"},
        {"session ls", "{\"usr\":\"a\"}", "invalid", "did you mean user?"},
        {"session ls", "{\"user\":5}", "invalid", "user: give a name"},
        {"session ls", "{\"user\":\"a b\"}", "invalid", "user: give a name"},
        {"session ls", "{\"type\":\"telnet\"}", "invalid", "ssh|rdp|web"},
        {"session ls", "{\"all\":\"yes\"}", "invalid", "true or false"},
        {"session ls", "{\"limit\":0}", "invalid", "1 to 100000"},
        {"session ls", "{\"limit\":-5}", "invalid", "1 to 100000"},
        {"session ls", "{\"since\":\"yesterday\"}", "invalid", "2026-11-22T05:31:07Z"},
        {"session ls", "{\"sort\":\"duratoin\"}", "invalid", "did you mean duration?"},
        {"session ls", "{\"watch\":true,\"limit\":3}", "usage", "neither"},
        {"session ls", "{\"search\":\"a\\u0007\"}", "invalid", "control characters"},
        {"session show", "", "usage", "id is missing"},
        {"session show", "{\"id\":0}", "invalid", "id: give"},
        {"session show", "{\"id\":\"4x\"}", "invalid", "id: give"},
        {"session show", "{\"id\":99}", "not_found", "session ls --all"},
        {"session end", "", "usage", "exactly one"},
        {"session end", "{\"ids\":[1],\"all\":true}", "usage", "exactly one"},
        {"session end", "{\"ids\":[]}", "invalid", "ids"},
        {"session end", "{\"ids\":[\"x\"]}", "invalid", "ids"},
        {"session end", "{\"all\":true,\"in\":\"30d\"}", "invalid", "duration"},
        {"session message", "{\"text\":\"x\"}", "usage", "exactly one"},
        {"user add", "{\"name\":\"a/b\"}", "invalid", "name: give"},
        {"user add", "{\"name\":\"..\"}", "invalid", "name: give"},
        {"target set", "{\"name\":\"t\",\"policy\":{\"idle_aftr\":\"1m\"}}", "invalid", "policy"},
        {"target set", "{\"name\":\"t\",\"policy\":{\"idle_after\":[]}}", "invalid", "policy"},
        {"backup", "{\"path\":\"x\"}", "invalid", "absolute"},
    };
    struct fixture *f = *state;
    struct caller_end *e = meet(f);

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        must_fail(f, e, cases[i].command, cases[i].args, cases[i].code, cases[i].message);
    say_line(f, e, "{\"v\":1,\"id\":1,\"command\":\"ping\",\"arg\":{}}");
    json_t *line = hear(f, e);
    assert_string_equal(error_code(line), "usage");
    json_decref(line);
    must_do(f, e, "ping", ""); /* the connection lives on */
    hang_up(e);
}

/* ---- who gets in ---- */

static void expect_refusal(struct fixture *f, uid_t uid, gid_t gid, const char *why)
{
    struct caller_end *e = dial_as(f, uid, gid);
    json_t *line = hear(f, e);

    assert_string_equal(error_code(line), "not_permitted");
    if (!strstr(error_message(line), why))
        fail_msg("%s", error_message(line));
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
}

static void expect_access(struct fixture *f, uid_t uid, gid_t gid, const char *access,
                          const char *user)
{
    struct caller_end *e = dial_as(f, uid, gid);
    json_t *line = hear(f, e), *caller = json_object_get(line, "caller");

    assert_string_equal(text_of(caller, "access"), access);
    assert_string_equal(text_of(caller, "user"), user);
    json_decref(line);
    hang_up(e);
    turn(f);
}

static void uids_decide(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f);
    struct group *group = getgrnam("users");

    if (geteuid() != 0)
        skip();
    expect_refusal(f, STRANGER, STRANGER, "neither");
    expect_refusal(f, STRANGER + 1, STRANGER, "relays");
    must_do(f, admin, "user add", "{\"name\":\"alice\",\"local_uid\":54321}");
    expect_access(f, STRANGER, STRANGER, "self", "alice");
    must_do(f, admin, "user set", "{\"name\":\"alice\",\"role\":\"auditor\"}");
    expect_access(f, STRANGER, STRANGER, "audit", "alice");
    must_do(f, admin, "user set", "{\"name\":\"alice\",\"role\":\"admin\"}");
    expect_access(f, STRANGER, STRANGER, "admin", "alice");
    must_do(f, admin, "user lock", "{\"name\":\"alice\"}");
    expect_refusal(f, STRANGER, STRANGER, "locked");
    must_do(f, admin, "user unlock", "{\"name\":\"alice\"}");
    must_do(f, admin, "user set", "{\"name\":\"alice\",\"local_uid\":null}");
    expect_refusal(f, STRANGER, STRANGER, "neither");
    must_do(f, admin, "user set", "{\"name\":\"alice\",\"local_uid\":54322}");
    expect_refusal(f, STRANGER + 1, STRANGER, "relays"); /* linked or not */
    assert_non_null(group);                              /* "users" is there on every Debian */
    expect_access(f, STRANGER, group->gr_gid, "admin", "(null)");
    hang_up(admin);
}

static void every_command_checks_access(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *self, *auditor;
    const struct command *table;
    size_t count, refused_self = 0, refused_audit = 0;

    if (geteuid() != 0)
        skip();
    must_do(f, admin, "user add", "{\"name\":\"alice\",\"local_uid\":54321}");
    must_do(f, admin, "user add", "{\"name\":\"bob\",\"local_uid\":54323,\"role\":\"auditor\"}");
    self = meet_as(f, STRANGER, STRANGER);
    auditor = meet_as(f, STRANGER + 2, STRANGER);
    table = control_command_table(&count);
    for (size_t i = 0; i < count; i++) {
        json_t *line = ask(f, self, table[i].words, "{}");
        bool is_refused = !strcmp(error_code(line), "not_permitted");

        assert_int_equal(is_refused, table[i].access > ACCESS_SELF);
        refused_self += is_refused;
        json_decref(line);
        line = ask(f, auditor, table[i].words, "{}");
        is_refused = !strcmp(error_code(line), "not_permitted");
        assert_int_equal(is_refused, table[i].access > ACCESS_AUDIT);
        refused_audit += is_refused;
        json_decref(line);
        if (i) /* help prints in this order */
            assert_true(strcmp(table[i - 1].words, table[i].words) < 0);
    }
    assert_true(refused_self > refused_audit && refused_audit > 10);
    json_t *rows = must(f, self, "help", "");
    assert_int_equal(json_array_size(rows), count - refused_self);
    json_decref(rows);
    hang_up(self);
    hang_up(auditor);
    hang_up(admin);
}

/* A lock acts on connections that are there already. */
static void a_lock_closes_connections(void **state)
{
    struct fixture *f = *state;
    struct caller_end *admin = meet(f), *self;
    json_t *line;

    if (geteuid() != 0)
        skip();
    must_do(f, admin, "user add", "{\"name\":\"alice\",\"local_uid\":54321}");
    self = meet_as(f, STRANGER, STRANGER);
    must_do(f, self, "session ls", "{\"watch\":true}");
    must_do(f, admin, "user lock", "{\"name\":\"alice\"}");
    line = hear(f, self);
    assert_string_equal(error_code(line), "not_permitted");
    json_decref(line);
    assert_null(hear(f, self));
    hang_up(self);
    hang_up(admin);
}

static void crowds_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct caller_end *ends[CONTROL_CLIENTS_MAX + 1], *admin = meet(f);
    size_t own = 0;
    json_t *line;

    if (geteuid() == 0) { /* one uid has its own, smaller cap */
        must_do(f, admin, "user add", "{\"name\":\"alice\",\"local_uid\":54321}");
        while (own < CONTROL_CLIENTS_PER_UID)
            ends[own++] = meet_as(f, STRANGER, STRANGER);
        ends[own] = dial_as(f, STRANGER, STRANGER);
        line = hear(f, ends[own]);
        assert_string_equal(error_code(line), "full");
        json_decref(line);
        hang_up(ends[own]);
    }
    while (own < CONTROL_CLIENTS_MAX - 1)
        ends[own++] = meet(f);
    ends[own] = dial_as(f, geteuid(), getegid());
    line = hear(f, ends[own]);
    assert_string_equal(error_code(line), "full");
    json_decref(line);
    assert_null(hear(f, ends[own]));
    hang_up(ends[own]);
    while (own)
        hang_up(ends[--own]);
    must_do(f, admin, "ping", "");
    for (int i = 0; i < 1000 && f->control->client_count > 1; i++)
        turn(f);
    assert_int_equal(f->control->client_count, 1);
    hang_up(admin);
}

/* Linked users of one machine together cannot keep the admin out. */
static void places_are_kept_for_admins(void **state)
{
    struct fixture *f = *state;
    struct caller_end *ends[CONTROL_CLIENTS_MAX], *admin = meet(f), *second;
    char args[64];
    size_t count = 0;
    json_t *line;

    if (geteuid() != 0)
        skip();
    for (unsigned n = 0; n < 4; n++) {
        snprintf(args, sizeof(args), "{\"name\":\"user%u\",\"local_uid\":%u}", n,
                 STRANGER + 10 + n);
        must_do(f, admin, "user add", args);
    }
    while (count < CONTROL_CLIENTS_MAX - CONTROL_CLIENTS_KEPT - 1) {
        uid_t uid = STRANGER + 10 + (uid_t)count / CONTROL_CLIENTS_PER_UID;

        ends[count++] = meet_as(f, uid, uid);
    }
    ends[count] = dial_as(f, STRANGER + 13, STRANGER + 13);
    line = hear(f, ends[count]);
    assert_string_equal(error_code(line), "full");
    json_decref(line);
    hang_up(ends[count]);
    second = meet(f);
    must_do(f, second, "ping", "");
    hang_up(second);
    while (count)
        hang_up(ends[--count]);
    hang_up(admin);
}

/* ---- back pressure ---- */

/* Pages wait for a client that reads slowly; nothing is lost and little is queued. */
static void pages_wait_for_a_slow_reader(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    size_t rows = 0, pages = 0;
    int small = 4096;

    (void)setsockopt(e->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    for (int i = 0; i < 1900; i++)
        end_session(f, begin_session(f, "alice", "web01"));
    send_request(f, e, 7, "session ls", "{\"all\":true,\"limit\":5000}");
    for (int i = 0; i < 200; i++)
        turn(f);
    assert_int_equal(f->control->client_count, 1);
    assert_true(control_client_queued(TAILQ_FIRST(&f->control->clients)) <
                CONTROL_OUTPUT_PAUSE + 256 * 1024);
    for (bool is_done = false; !is_done;) {
        json_t *line = hear(f, e);
        assert_non_null(line);
        is_done = json_is_true(json_object_get(line, "ok"));
        rows += json_array_size(json_object_get(line, "rows"));
        pages++;
        json_decref(line);
    }
    assert_int_equal(rows, 1900);
    assert_true(pages >= 1900 / CONTROL_PAGE_ROWS);
    hang_up(e);
}

/* Events for one who never reads: dropped with a reason, memory bounded. */
static void a_deaf_subscriber_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    uint64_t id = begin_session(f, "alice", "web01");
    bool was_told = false;
    json_t *line;

    must_do(f, e, "session ls", "{\"watch\":true}");
    for (int i = 0;
         i < 40000 && f->control->client_count && !TAILQ_FIRST(&f->control->clients)->is_closing;
         i++) {
        tracker_channels(f->tracker, id, i % 2 ? "session" : "session,session");
        if (i % 64 == 0)
            turn(f);
    }
    assert_true(TAILQ_FIRST(&f->control->clients)->is_closing);
    while ((line = hear(f, e))) {
        was_told = !strcmp(error_code(line), "full");
        json_decref(line);
    }
    assert_true(was_told); /* the last line says why */
    hang_up(e);
    end_session(f, id);
}

/* ---- the socket file ---- */

static void serve_again(struct fixture *f, const char *why)
{
    char err[512] = "";

    f->control = fixture_serve(f, err, sizeof(err));
    if (!why && !f->control)
        fail_msg("%s", err);
    if (why && (f->control || !strstr(err, why)))
        fail_msg("got \"%s\", wanted \"%s\"", err, why);
}

static void leave_stale_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    text_copy(address.sun_path, sizeof(address.sun_path), path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
}

static void the_path_is_treated_with_care(void **state)
{
    struct fixture *f = *state;
    struct control *first = f->control;
    struct stat st;
    char elsewhere[128];
    int fd;

    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);
    serve_again(f, "another sallyportd");
    control_destroy(first);
    assert_int_equal(access(f->path, F_OK), -1);

    leave_stale_socket(f->path);
    serve_again(f, NULL);
    control_destroy(f->control);

    fd = open(f->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    serve_again(f, "not a socket of ours");
    assert_int_equal(unlink(f->path), 0);

    snprintf(elsewhere, sizeof(elsewhere), "%s/elsewhere", f->dir);
    leave_stale_socket(elsewhere);
    assert_int_equal(symlink(elsewhere, f->path), 0);
    serve_again(f, "not a socket of ours");
    assert_int_equal(unlink(f->path), 0);
    serve_again(f, NULL);

    /* Somebody replaced our socket: it is not ours to remove. */
    assert_int_equal(unlink(f->path), 0);
    leave_stale_socket(f->path);
    control_destroy(f->control);
    f->control = NULL;
    assert_int_equal(access(f->path, F_OK), 0);
}

/* The answer to a last request goes out although the server goes away at once. */
static void last_words_are_delivered(void **state)
{
    struct fixture *f = *state;
    struct caller_end *e = meet(f);
    json_t *line;

    send_request(f, e, 1, "shutdown", "{\"in\":\"5m\"}");
    for (int i = 0; i < 1000 && !f->shutdowns; i++)
        turn(f);
    assert_int_equal(f->shutdowns, 1);
    assert_int_equal(f->shutdown_in_s, 300);
    control_destroy(f->control);
    f->control = NULL;
    line = hear(f, e);
    assert_true(json_is_true(json_object_get(line, "ok")));
    json_decref(line);
    assert_null(hear(f, e));
    hang_up(e);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        TEST(it_greets_and_answers),
        TEST(ids_are_echoed_and_order_is_kept),
        TEST(half_close_works),
        TEST(bad_lines_end_the_connection),
        TEST(errors_quote_no_secret),
        TEST(a_line_of_10_mb_is_refused),
        TEST(a_long_line_is_taken),
        TEST(half_a_line_times_out),
        TEST(mistakes_are_explained),
        TEST(uids_decide),
        TEST(every_command_checks_access),
        TEST(a_lock_closes_connections),
        TEST(crowds_are_bounded),
        TEST(places_are_kept_for_admins),
        TEST(pages_wait_for_a_slow_reader),
        TEST(a_deaf_subscriber_is_dropped),
        TEST(the_path_is_treated_with_care),
        TEST(last_words_are_delivered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
