/*
 * What the tests of control share: a control server over a real store and a real tracker, a host
 * that remembers what it was asked, and clients that speak through the real socket while the loop
 * turns in between. Included by test_control*.c only.
 */
#ifndef CONTROL_FIXTURE_H
#define CONTROL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <jansson.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "control/control_priv.h"

#define PATIENCE_MS 20000
#define STRANGER    54321 /* a uid that nobody has */

#define KEY_ED25519 \
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICaeARbO+/On8Hu+0/p+XmXfCHQGP9PIQ7u8uG7gVh1K"
#define KEY_ED25519_PRINT "SHA256:HjFTKgiSR/ai2ILKRCGHfre+KeAiH4/SuxFe58HyOzY"
#define KEY_OTHER         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOf1Ua97u02zWZDMXrm9VZ52JMFpBkkyzzmK++tOQqZd"
#define HASH_GOOD         "$y$j9T$LdJMENpBABJJ3hIHjB1Bi.$HboGM6qPrsK.StKYGt6KErmUYtioHreJd98oIugoNB6"

struct fixture {
    char dir[64], data[96], key[96], path[96];
    struct event_base *base;
    struct store *store;
    struct tracker *tracker;
    struct control *control;
    /* the fake host */
    int drains, shutdowns, access_changes, ends, notices;
    bool is_draining;
    uint32_t shutdown_in_s;
    bool reload_fails;
    char author[128], notice[600], end_text[600];
    enum end_reason end_reason;
    struct secret password; /* of the hash that was asked for */
    control_hashed_fn hashed;
    void *hashed_arg;
    bool hash_is_full;
    char checked_user[128];
};

static inline void fake_notice(void *relay, bool is_warning, const char *text)
{
    struct fixture *f = (struct fixture *)relay;

    (void)is_warning;
    f->notices++;
    text_copy(f->notice, sizeof(f->notice), text);
}

static inline void fake_end(void *relay, enum end_reason reason, const char *author,
                            const char *text)
{
    struct fixture *f = (struct fixture *)relay;

    f->ends++;
    f->end_reason = reason;
    text_copy(f->author, sizeof(f->author), author);
    text_copy(f->end_text, sizeof(f->end_text), text);
}

static inline void fake_policy(void *relay, const struct policy *policy)
{
    (void)relay;
    (void)policy;
}

static inline void fake_status(void *arg, struct control_status *out)
{
    struct fixture *f = (struct fixture *)arg;

    text_copy(out->version, sizeof(out->version), "0.1.0");
    text_copy(out->node, sizeof(out->node), "node1");
    text_copy(out->listeners, sizeof(out->listeners), "ssh [::]:2222, ssh 127.0.0.1:22");
    out->pid = 4711;
    out->started_wall_us = clock_wall_us();
    out->is_draining = f->is_draining;
    out->sessions = (uint32_t)tracker_count(f->tracker);
}

static inline int fake_reload(void *arg, struct buffer *report)
{
    struct fixture *f = (struct fixture *)arg;

    if (f->reload_fails) {
        buffer_put_str(report, "proxy.conf:3: [idle] no such key\nproxy.conf:4: [x] no section");
        return ERR_INVALID;
    }
    buffer_put_str(report, "[idle] idle_after: 5m -> 10m\n");
    return 0;
}

static inline void fake_drain(void *arg, bool on, const char *author)
{
    struct fixture *f = (struct fixture *)arg;

    f->drains++;
    f->is_draining = on;
    text_copy(f->author, sizeof(f->author), author);
}

static inline void fake_shutdown(void *arg, uint32_t in_s, const char *author)
{
    struct fixture *f = (struct fixture *)arg;

    f->shutdowns++;
    f->shutdown_in_s = in_s;
    text_copy(f->author, sizeof(f->author), author);
}

static inline int fake_hash(void *arg, const struct secret *password, control_hashed_fn done,
                            void *done_arg)
{
    struct fixture *f = (struct fixture *)arg;

    if (f->hash_is_full)
        return ERR_FULL;
    f->password = *password;
    f->hashed = done;
    f->hashed_arg = done_arg;
    return 0;
}

/* The password is "right" or it is not; answers at once, from the next turn of the loop. */
struct fake_check {
    control_checked_fn done;
    void *arg;
    bool is_right;
    struct fixture *fixture;
};

static inline void fake_checked(evutil_socket_t fd, short what, void *arg)
{
    struct fake_check *check = (struct fake_check *)arg;

    (void)fd;
    (void)what;
    check->done(check->is_right, check->arg);
    free(check);
}

static inline int fake_check_password(void *arg, const char *user, const char *source,
                                      const struct secret *password, control_checked_fn done,
                                      void *done_arg)
{
    const struct timeval now = {0};
    struct fixture *f = (struct fixture *)arg;
    struct fake_check *check = (struct fake_check *)calloc(1, sizeof(*check));

    (void)source;
    assert_non_null(check);
    text_copy(f->checked_user, sizeof(f->checked_user), user);
    *check = (struct fake_check){done, done_arg, !strcmp((const char *)password->data, "right"), f};
    return event_base_once(f->base, -1, EV_TIMEOUT, fake_checked, check, &now);
}

static inline void fake_access_changed(void *arg, const char *author)
{
    struct fixture *f = (struct fixture *)arg;

    f->access_changes++;
    text_copy(f->author, sizeof(f->author), author);
}

static inline const char *fake_recording_dir(void *arg)
{
    (void)arg;
    return "/var/rec";
}

static inline int fake_check_code(void *arg, const char *user, const char *code)
{
    (void)arg;
    (void)user;
    return !strcmp(code, "123456") ? 0 : !strcmp(code, "full") ? ERR_FULL : ERR_DENIED;
}

static inline void fake_sources(void *arg, control_source_fn fn, void *fn_arg)
{
    const struct control_source rows[] = {{"192.0.2.1", 10, 30}, {"2001:db8::/64", 3, 0}};

    (void)arg;
    for (size_t i = 0; i < 2 && fn(&rows[i], fn_arg); i++)
        ;
}

static inline int fake_source_unblock(void *arg, const char *address, uint32_t *count)
{
    (void)arg;
    *count = 1;
    return address && !strcmp(address, "nonsense") ? ERR_INVALID : 0;
}

/* A server at f->path; NULL with a sentence in err. */
static inline struct control *fixture_serve(struct fixture *f, char *err, size_t err_len)
{
    static const uid_t refused[] = {STRANGER + 1};
    const struct control_host host = {.arg = f,
                                      .status = fake_status,
                                      .reload = fake_reload,
                                      .drain = fake_drain,
                                      .shutdown = fake_shutdown,
                                      .hash_password = fake_hash,
                                      .check_password = fake_check_password,
                                      .access_changed = fake_access_changed,
                                      .recording_dir = fake_recording_dir,
                                      .check_code = fake_check_code,
                                      .sources = fake_sources,
                                      .source_unblock = fake_source_unblock};
    const struct control_options options = {.socket_path = f->path,
                                            .admin_group = "users",
                                            .owner_uid = geteuid(),
                                            .refused_uids = refused,
                                            .refused_uid_count = 1};

    return control_create(f->base, f->tracker, f->store, &host, &options, err, err_len);
}

static inline int fixture_setup(void **state)
{
    static const struct tracker_relay_ops ops = {fake_notice, fake_end, fake_policy};
    struct fixture *f = (struct fixture *)calloc(1, sizeof(*f));
    char err[512] = "";

    assert_non_null(f);
    log_open("test", LOG_SINK_STDERR, LOG_LEVEL_ERROR);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/control-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(chmod(f->dir, 0755), 0); /* other uids reach the socket */
    (void)snprintf(f->data, sizeof(f->data), "%s/data", f->dir);
    (void)snprintf(f->key, sizeof(f->key), "%s/key", f->dir);
    (void)snprintf(f->path, sizeof(f->path), "%s/control.sock", f->dir);
    f->base = event_base_new();
    assert_int_equal(store_open(&f->store, f->data, f->key, err, sizeof(err)), STORE_OPEN_OK);
    f->tracker = tracker_create(f->base, f->store, &ops, "node1");
    assert_non_null(f->tracker);
    f->control = fixture_serve(f, err, sizeof(err));
    if (!f->control)
        fail_msg("%s", err);
    *state = f;
    return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = (struct fixture *)*state;

    control_destroy(f->control);
    tracker_destroy(f->tracker);
    store_close(f->store);
    event_base_free(f->base);
    (void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* ---- clients ---- */

struct caller_end {
    int fd;
    char *data;
    size_t len, cap;
    bool is_eof;
};

static inline void turn(struct fixture *f)
{
    (void)event_base_loop(f->base, EVLOOP_NONBLOCK);
    (void)store_flush(f->store);
}

/* Connect as a uid; greeting is left unread. Other uids need root. */
static inline struct caller_end *dial_as(struct fixture *f, uid_t uid, gid_t gid)
{
    struct caller_end *e = (struct caller_end *)calloc(1, sizeof(*e));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gid_t gid_was = getegid();
    int result;

    assert_non_null(e);
    e->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(e->fd >= 0);
    text_copy(address.sun_path, sizeof(address.sun_path), f->path);
    if (uid != geteuid()) { /* SO_PEERCRED is what the caller is when it connects */
        assert_int_equal(setgroups(0, NULL), 0);
        assert_int_equal(setegid(gid), 0);
        assert_int_equal(seteuid(uid), 0);
    }
    result = connect(e->fd, (const struct sockaddr *)&address, sizeof(address));
    if (geteuid() != getuid()) {
        assert_int_equal(seteuid(getuid()), 0);
        assert_int_equal(setegid(gid_was), 0);
    }
    assert_int_equal(result, 0);
    turn(f);
    return e;
}

static inline void hang_up(struct caller_end *e)
{
    (void)close(e->fd);
    free(e->data);
    free(e);
}

/* Read what is there, at most `max` bytes. */
static inline void slurp(struct caller_end *e, size_t max)
{
    while (max) {
        ssize_t n;

        if (e->cap - e->len < 65536) {
            e->cap = e->cap * 2 + 65536;
            e->data = (char *)realloc(e->data, e->cap);
            assert_non_null(e->data);
        }
        n = recv(e->fd, e->data + e->len, 65536 < max ? 65536 : max, 0);
        if (n == 0 || (n < 0 && errno == ECONNRESET))
            e->is_eof = true;
        if (n <= 0)
            return;
        e->len += (size_t)n;
        max -= (size_t)n;
    }
}

/* The next line as JSON; NULL at the end of file. The loop turns until one of them is there. */
static inline json_t *hear(struct fixture *f, struct caller_end *e)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;

    for (;;) {
        char *end = e->len ? (char *)memchr(e->data, '\n', e->len) : NULL;
        json_error_t error;
        json_t *line;

        if (end) {
            line = json_loadb(e->data, (size_t)(end - e->data), 0, &error);
            if (!line)
                fail_msg("not JSON: %.*s", (int)(end - e->data), e->data);
            e->len -= (size_t)(end + 1 - e->data);
            memmove(e->data, end + 1, e->len);
            return line;
        }
        if (e->is_eof)
            return NULL;
        if (clock_mono_ms() > deadline)
            fail_msg("nothing was heard");
        turn(f);
        slurp(e, 1 << 20);
    }
}

/* Write all of it while the loop turns; stops when the server hangs up. */
static inline void say_bytes(struct fixture *f, struct caller_end *e, const char *data, size_t len)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;

    while (len) {
        ssize_t n = send(e->fd, data, len, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0) {
            data += n;
            len -= (size_t)n;
        }
        assert_true(clock_mono_ms() < deadline);
        turn(f);
    }
}

static inline void say_line(struct fixture *f, struct caller_end *e, const char *line)
{
    say_bytes(f, e, line, strlen(line));
    say_bytes(f, e, "\n", 1);
}

/* Connect and read the greeting. */
static inline struct caller_end *meet_as(struct fixture *f, uid_t uid, gid_t gid)
{
    struct caller_end *e = dial_as(f, uid, gid);
    json_t *hello = hear(f, e);

    assert_string_equal(json_string_value(json_object_get(hello, "hello")), "sallyport");
    json_decref(hello);
    return e;
}

static inline struct caller_end *meet(struct fixture *f)
{
    return meet_as(f, geteuid(), getegid());
}

static inline void send_request(struct fixture *f, struct caller_end *e, int id,
                                const char *command, const char *args)
{
    json_error_t error;
    json_t *object = json_loads(args && args[0] ? args : "{}", 0, &error), *line;
    char *text;

    if (!object)
        fail_msg("the test's arguments: %s: %s", args, error.text);
    line = json_pack("{s:i, s:i, s:s, s:o}", "v", 1, "id", id, "command", command, "args", object);
    text = json_dumps(line, JSON_COMPACT);
    say_line(f, e, text);
    free(text);
    json_decref(line);
}

/* One request, its final reply; pages are put together in "rows". */
static inline json_t *ask(struct fixture *f, struct caller_end *e, const char *command,
                          const char *args)
{
    static int id;
    json_t *rows = json_array(), *line;

    send_request(f, e, ++id, command, args);
    for (;;) {
        line = hear(f, e);
        if (!line)
            fail_msg("%s: the connection ended", command);
        assert_int_equal(json_integer_value(json_object_get(line, "id")), id);
        assert_null(json_object_get(line, "event"));
        json_array_extend(rows, json_object_get(line, "rows"));
        if (json_object_get(line, "ok"))
            break;
        assert_true(json_is_true(json_object_get(line, "more")));
        json_decref(line);
    }
    if (json_object_get(line, "rows") || json_array_size(rows))
        json_object_set(line, "rows", rows);
    json_decref(rows);
    return line;
}

static inline const char *error_code(json_t *line)
{
    const char *code = json_string_value(json_object_get(json_object_get(line, "error"), "code"));

    return code ? code : "none";
}

static inline const char *error_message(json_t *line)
{
    const char *text =
        json_string_value(json_object_get(json_object_get(line, "error"), "message"));

    return text ? text : "";
}

/* A request that must succeed: its data or rows (new reference). */
static inline json_t *must(struct fixture *f, struct caller_end *e, const char *command,
                           const char *args)
{
    json_t *line = ask(f, e, command, args), *what;

    if (!json_is_true(json_object_get(line, "ok")))
        fail_msg("%s %s: %s: %s", command, args, error_code(line), error_message(line));
    what = json_object_get(line, "data");
    what = json_incref(what ? what : json_object_get(line, "rows"));
    json_decref(line);
    return what;
}

static inline void must_do(struct fixture *f, struct caller_end *e, const char *command,
                           const char *args)
{
    json_decref(must(f, e, command, args));
}

/* A request that must fail with this code and this text somewhere in its message. */
static inline void must_fail(struct fixture *f, struct caller_end *e, const char *command,
                             const char *args, const char *code, const char *text)
{
    json_t *line = ask(f, e, command, args);

    if (strcmp(error_code(line), code) != 0 || !strstr(error_message(line), text))
        fail_msg("%s %s: got %s: %s; wanted %s: ...%s...", command, args, error_code(line),
                 error_message(line), code, text);
    json_decref(line);
}

static inline const char *text_of(json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));

    return text ? text : "(null)";
}

/* Does this text stand anywhere in the audit log? */
static inline bool find_text(const struct store_event *e, void *arg)
{
    const char **text = (const char **)arg;

    if (strstr(e->text, *text) || strstr(e->kind, *text))
        *text = NULL;
    return *text != NULL;
}

static inline bool is_in_events(struct fixture *f, const char *text)
{
    (void)store_flush(f->store);
    assert_int_equal(store_events(f->store, 0, 0, 10000, find_text, &text), 0);
    return text == NULL;
}

/* A live session, active. */
static inline uint64_t begin_session(struct fixture *f, const char *user, const char *target)
{
    struct session_info i = {.protocol = PROTOCOL_SSH, .relay_pid = 99, .client_port = 51022};
    struct policy p;
    char err[256] = "";
    int fd = -1;

    policy_defaults(&p);
    text_copy(i.user, sizeof(i.user), user);
    text_copy(i.account, sizeof(i.account), "root");
    text_copy(i.target, sizeof(i.target), target);
    text_copy(i.address, sizeof(i.address), "10.0.0.11:22");
    text_copy(i.client_address, sizeof(i.client_address), "127.0.0.1");
    text_copy(i.device, sizeof(i.device), "OpenSSH_9.2p1");
    assert_int_equal(tracker_open(f->tracker, &i, &p, f, &fd, err, sizeof(err)), 0);
    (void)close(fd);
    tracker_ready(f->tracker, i.id);
    return i.id;
}

static inline void end_session(struct fixture *f, uint64_t id)
{
    tracker_closed(f->tracker, id, END_USER_EXIT, "client", "");
    (void)store_flush(f->store);
}

#endif
