/* The broker's small parts: worker pool, sources of failed logins, tickets, addresses, hashes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/secret.h>

#include "proxy/broker/dial.h"
#include "proxy/broker/hasher.h"
#include "proxy/broker/sources.h"
#include "proxy/broker/ticket.h"
#include "proxy/broker/workers.h"

/* ---- workers ---- */

struct counted {
    struct job job;
    int number;
};

static int order[64];
static int order_len;
static atomic_int gate_is_open;

static void counted_run(struct job *job)
{
    (void)job;
    while (!atomic_load(&gate_is_open))
        usleep(1000);
}

static void counted_done(struct job *job)
{
    order[order_len++] = ((struct counted *)job)->number;
    free(job);
}

static struct job *counted_new(int number, uint64_t lane)
{
    struct counted *c = calloc(1, sizeof(*c));

    assert_non_null(c);
    c->number = number;
    c->job.lane = lane;
    c->job.run = counted_run;
    c->job.done = counted_done;
    return &c->job;
}

static void lanes_take_turns(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 1, 8);

    (void)state;
    order_len = 0;
    atomic_store(&gate_is_open, 0);
    assert_int_equal(workers_submit(w, counted_new(1, 7)), 0);
    while (workers_waiting(w) > 0)
        usleep(1000); /* the one thread has it */
    assert_int_equal(workers_submit(w, counted_new(2, 7)), 0);
    assert_int_equal(workers_submit(w, counted_new(3, 7)), 0);
    assert_int_equal(workers_submit(w, counted_new(4, 9)), 0);
    atomic_store(&gate_is_open, 1);
    while (order_len < 4)
        event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 4); /* came last, but it is another's turn */
    workers_destroy(w);
    event_base_free(base);
}

static void full_queue_refuses_and_destroy_delivers(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 1, 2);
    struct job *refused = counted_new(9, 1);

    (void)state;
    order_len = 0;
    atomic_store(&gate_is_open, 0);
    assert_int_equal(workers_submit(w, counted_new(1, 1)), 0);
    while (workers_waiting(w) > 0)
        usleep(1000);
    assert_int_equal(workers_submit(w, counted_new(2, 1)), 0);
    assert_int_equal(workers_submit(w, counted_new(3, 1)), 0);
    assert_int_equal(workers_submit(w, refused), ERR_FULL);
    free(refused);
    atomic_store(&gate_is_open, 1);
    workers_destroy(w);
    assert_int_equal(order_len, 3); /* nothing that was taken is lost */
    event_base_free(base);
}

/* ---- sources ---- */

static void source_is_blocked_alone(void **state)
{
    static struct sources s;
    const struct source_limits l = {10, 60};
    bool is_first;
    int64_t now = 1000;

    (void)state;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(sources_blocked_s(&s, "192.0.2.1", &l, now, &is_first), 0);
        sources_failed(&s, "192.0.2.1", &l, now);
    }
    assert_true(sources_blocked_s(&s, "192.0.2.1", &l, now, &is_first) > 0);
    assert_true(is_first);
    assert_true(sources_blocked_s(&s, "192.0.2.1", &l, now, &is_first) > 0);
    assert_false(is_first); /* one line a burst */
    assert_int_equal(sources_blocked_s(&s, "192.0.2.2", &l, now, &is_first), 0);
    assert_true(sources_blocked_s(&s, "192.0.2.1", &l, now + 10000, &is_first) > 0);
    assert_int_equal(sources_blocked_s(&s, "192.0.2.1", &l, now + 31000, &is_first), 0);
}

struct rows {
    struct source_row of[4];
    size_t count;
};

static bool keep_row(const struct source_row *row, void *arg)
{
    struct rows *rows = arg;

    assert_true(rows->count < 4);
    rows->of[rows->count++] = *row;
    return true;
}

static void sources_are_slowed_listed_and_forgotten(void **state)
{
    static struct sources s;
    const struct source_limits l = {10, 60}, none = {0, 60};
    static const uint32_t expected[] = {0, 0, 250, 500, 1000, 2000, 2000};
    struct rows rows = {.count = 0};
    bool is_first;

    (void)state;
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        sources_failed(&s, "192.0.2.1", &l, 1000);
        assert_int_equal(sources_delay_ms(&s, "192.0.2.1", &l, 1000), expected[i]);
    }
    assert_int_equal(sources_delay_ms(&s, "192.0.2.1", &none, 1000), 0);
    assert_int_equal(sources_delay_ms(&s, "192.0.2.2", &l, 1000), 0);
    for (int i = 0; i < 10; i++)
        sources_failed(&s, "2001:db8:1:2::5", &l, 1000);
    sources_failed(&s, "alice", &l, 1000); /* a user: no address has this key */
    assert_int_equal(sources_delay_ms(&s, "bob", &l, 1000), 0);
    sources_each(&s, &l, 1000, keep_row, &rows);
    assert_int_equal(rows.count, 3);
    assert_string_equal(rows.of[0].address, "192.0.2.1");
    assert_int_equal(rows.of[0].failures, 7);
    assert_int_equal(rows.of[0].blocked_s, 0);
    assert_string_equal(rows.of[1].address, "2001:db8:1:2::/64");
    assert_in_range(rows.of[1].blocked_s, 30, 33);
    assert_int_equal(sources_forget(&s, "2001:db8:1:2::77", &l, 1000), 1);
    assert_int_equal(sources_blocked_s(&s, "2001:db8:1:2::5", &l, 1000, &is_first), 0);
    assert_int_equal(sources_forget(&s, "203.0.113.1", &l, 1000), 0);
    assert_int_equal(sources_delay_ms(&s, "192.0.2.1", &l, 1000), 2000);
    assert_int_equal(sources_forget(&s, NULL, &l, 1000), 0); /* none is blocked any more */
    rows.count = 0;
    sources_each(&s, &l, 1000, keep_row, &rows);
    assert_int_equal(rows.count, 0);
}

/* Somebody who knocks all the time is let in as soon as somebody who waits. */
static void knocking_does_not_keep_it_full(void **state)
{
    static struct sources s;
    const struct source_limits l = {10, 600};
    bool is_first;
    int64_t now = 1000;

    (void)state;
    for (int i = 0; i < 11; i++)
        sources_failed(&s, "192.0.2.1", &l, now);
    while (sources_blocked_s(&s, "192.0.2.1", &l, now, &is_first) > 0 && now < 700000)
        now += 7;
    assert_in_range(now, 290000, 350000);
}

static void ipv6_source_is_a_64(void **state)
{
    static struct sources s;
    const struct source_limits l = {2, 60};
    bool is_first;

    (void)state;
    sources_failed(&s, "2001:db8::1", &l, 0);
    sources_failed(&s, "2001:db8::ffff:2", &l, 0);
    assert_true(sources_blocked_s(&s, "2001:db8::3", &l, 0, &is_first) > 0);
    assert_int_equal(sources_blocked_s(&s, "2001:db8:0:1::3", &l, 0, &is_first), 0);
    assert_true(sources_lane("2001:db8::1") == sources_lane("2001:db8::2"));
    assert_true(sources_lane("192.0.2.1") == sources_lane("::ffff:192.0.2.1"));
    assert_true(sources_lane("192.0.2.1") != sources_lane("192.0.2.2"));
}

static void sources_stay_bounded(void **state)
{
    static struct sources s;
    const struct source_limits l = {2, 60}, off = {0, 60};
    char address[32];
    bool is_first;

    (void)state;
    for (int i = 0; i < SOURCES_MAX + 100; i++) {
        snprintf(address, sizeof(address), "10.%d.%d.%d", i >> 16, i >> 8 & 255, i & 255);
        sources_failed(&s, address, &l, i);
    }
    assert_int_equal(s.count, SOURCES_MAX);
    for (int i = 0; i < 100; i++)
        sources_failed(&s, "192.0.2.1", &off, 0);
    assert_int_equal(sources_blocked_s(&s, "192.0.2.1", &off, 0, &is_first), 0);
}

/* ---- tickets ---- */

static void ticket_round_trip_and_forgery(void **state)
{
    uint8_t key[32] = {1}, other[32] = {2}, data[LINK_TICKET_MAX];
    struct ticket t = {.user = "alice", .session_id = 42, .pid = 7, .attempts = 3}, back;
    size_t len = ticket_make(key, &t, data);

    (void)state;
    assert_true(len > 0);
    assert_int_equal(ticket_read(key, data, len, &back), 0);
    assert_string_equal(back.user, "alice");
    assert_int_equal(back.session_id, 42);
    assert_int_equal(back.pid, 7);
    assert_int_equal(back.attempts, 3);
    assert_int_equal(ticket_read(other, data, len, &back), ERR_DENIED);
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 1;
        assert_int_equal(ticket_read(key, data, len, &back), ERR_DENIED);
        data[i] ^= 1;
        assert_int_equal(ticket_read(key, data, i, &back), ERR_DENIED);
    }
}

/* ---- addresses ---- */

static void addresses_split(void **state)
{
    char host[64], port[8];

    (void)state;
    assert_int_equal(dial_split("web01.example:22", host, sizeof(host), port, sizeof(port)), 0);
    assert_string_equal(host, "web01.example");
    assert_string_equal(port, "22");
    assert_int_equal(dial_split("[::1]:2222", host, sizeof(host), port, sizeof(port)), 0);
    assert_string_equal(host, "::1");
    assert_int_equal(dial_split("web01", host, sizeof(host), port, sizeof(port)), ERR_INVALID);
    assert_int_equal(dial_split(":22", host, sizeof(host), port, sizeof(port)), ERR_INVALID);
    assert_int_equal(dial_split("[::1:22", host, sizeof(host), port, sizeof(port)), ERR_INVALID);
    assert_int_equal(dial_split("a:123456789", host, sizeof(host), port, sizeof(port)),
                     ERR_INVALID);
}

/* ---- dialing ---- */

static int dialed_fd, dialed_count;
static char dialed_text[128];

static void dialed(int fd, const char *text, void *arg)
{
    (void)arg;
    dialed_fd = fd;
    dialed_count++;
    snprintf(dialed_text, sizeof(dialed_text), "%s", text);
    if (fd >= 0)
        close(fd);
}

/* A listener on loopback; full: nobody accepts and the queue is full, so that SYNs are dropped. */
static int listener(char *address, size_t len, int *held, size_t held_count)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t sin_len = sizeof(sin);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(fd, held_count ? 0 : 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&sin, &sin_len), 0);
    snprintf(address, len, "127.0.0.1:%u", ntohs(sin.sin_port));
    for (size_t i = 0; i < held_count; i++) {
        held[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(held[i], (struct sockaddr *)&sin, sizeof(sin)) < 0)
            assert_int_equal(errno, EINPROGRESS);
    }
    return fd;
}

static void dial_and_wait(struct event_base *base, struct dialer *d, const char *address,
                          uint32_t timeout_s)
{
    dialed_count = 0;
    assert_int_equal(dial(d, address, timeout_s, dialed, NULL), 0);
    assert_int_equal(dialed_count, 0); /* never from within the call */
    while (!dialed_count)
        event_base_loop(base, EVLOOP_ONCE);
}

static void targets_are_dialed(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 2, 8);
    struct dialer *d = dialer_create(base, w);
    char address[64], name[64];
    int fd = listener(address, sizeof(address), NULL, 0);

    (void)state;
    dial_and_wait(base, d, address, 5);
    assert_true(dialed_fd >= 0);
    snprintf(name, sizeof(name), "localhost%s", strchr(address, ':'));
    dial_and_wait(base, d, name, 5); /* ::1 may be first, and refuse */
    assert_true(dialed_fd >= 0);
    close(fd);
    dial_and_wait(base, d, address, 5);
    assert_int_equal(dialed_fd, -1);
    assert_string_equal(dialed_text, "connection refused");
    assert_int_equal(dial(d, "nonsense", 5, dialed, NULL), ERR_INVALID);
    workers_destroy(w);
    dialer_destroy(d);
    event_base_free(base);
}

/* A hundred who wait for a dead target hold nothing that another needs. */
static void dead_target_delays_nobody(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 2, 8);
    struct dialer *d = dialer_create(base, w);
    char dead[64], alive[64];
    int held[4], dead_fd = listener(dead, sizeof(dead), held, 4);
    int fd = listener(alive, sizeof(alive), NULL, 0);
    int64_t began = clock_mono_ms();

    (void)state;
    for (int i = 0; i < 100; i++)
        assert_int_equal(dial(d, dead, 60, dialed, NULL), 0);
    dial_and_wait(base, d, alive, 60);
    assert_true(dialed_fd >= 0);
    assert_true(clock_mono_ms() - began < 10000);
    dial_and_wait(base, d, dead, 1);
    assert_string_equal(dialed_text, "no answer in time");
    dialed_count = 0;
    workers_destroy(w);
    dialer_destroy(d); /* those under way are told */
    assert_int_equal(dialed_count, 100);
    for (int i = 0; i < 4; i++)
        close(held[i]);
    close(dead_fd);
    close(fd);
    event_base_free(base);
}

/* What hangs keeps its pool: it is left behind on purpose, and no leak. */
static struct workers *volatile left_behind;

static void destroy_does_not_wait_for_what_hangs(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 1, 8);
    int64_t began = clock_mono_ms();

    (void)state;
    order_len = 0;
    atomic_store(&gate_is_open, 0);
    assert_int_equal(workers_submit(w, counted_new(1, 1)), 0);
    while (workers_waiting(w) > 0)
        usleep(1000);
    assert_int_equal(workers_submit(w, counted_new(2, 1)), 0);
    left_behind = w;
    workers_destroy(w);
    assert_true(clock_mono_ms() - began < 5000);
    assert_int_equal(order_len, 1); /* the queued one is told; the one that hangs is left behind */
    assert_int_equal(order[0], 2);
    atomic_store(&gate_is_open, 1);
    event_base_free(base);
}

static void fingerprint_is_openssh_s(void **state)
{
    char print[FINGERPRINT_MAX];

    (void)state;
    assert_string_equal(fingerprint_sha256(print, "", 0),
                        "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
}

/* ---- hashes ---- */

static char made_hash[512];
static int check_result;

static void made(const char *hash, void *arg)
{
    (void)arg;
    snprintf(made_hash, sizeof(made_hash), "%s", hash);
}

static void checked(bool is_right, void *arg)
{
    (void)arg;
    check_result = is_right;
}

static bool check(struct event_base *base, struct workers *w, const char *hash,
                  const char *password, size_t len)
{
    check_result = -1;
    if (hasher_check(w, hash, password, len, 1, checked, NULL) < 0)
        return false;
    while (check_result < 0)
        event_base_loop(base, EVLOOP_ONCE);
    return check_result == 1;
}

static void hashes_verify(void **state)
{
    struct event_base *base = event_base_new();
    struct workers *w = workers_create(base, 2, 8);
    struct secret s;

    (void)state;
    assert_int_equal(hasher_init(), 0);
    assert_true(secret_set(&s, "correct horse", 13));
    assert_int_equal(hasher_make(w, &s, made, NULL), 0);
    while (!made_hash[0])
        event_base_loop(base, EVLOOP_ONCE);
    assert_memory_equal(made_hash, "$y$", 3);
    assert_true(check(base, w, made_hash, "correct horse", 13));
    assert_false(check(base, w, made_hash, "correct horsf", 13));
    assert_false(check(base, w, "", "nobody has this password", 24)); /* the dummy's own */
    assert_false(check(base, w, made_hash, "correct horse\0x", 15));
    secret_wipe(&s);
    workers_destroy(w);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lanes_take_turns),
        cmocka_unit_test(full_queue_refuses_and_destroy_delivers),
        cmocka_unit_test(source_is_blocked_alone),
        cmocka_unit_test(sources_are_slowed_listed_and_forgotten),
        cmocka_unit_test(knocking_does_not_keep_it_full),
        cmocka_unit_test(ipv6_source_is_a_64),
        cmocka_unit_test(sources_stay_bounded),
        cmocka_unit_test(ticket_round_trip_and_forgery),
        cmocka_unit_test(addresses_split),
        cmocka_unit_test(targets_are_dialed),
        cmocka_unit_test(dead_target_delays_nobody),
        cmocka_unit_test(fingerprint_is_openssh_s),
        cmocka_unit_test(hashes_verify),
        cmocka_unit_test(destroy_does_not_wait_for_what_hangs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
