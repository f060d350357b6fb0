/*
 * The gate. First its policy (parking.c) under a clock of our own: limits, order, evictions. Then
 * the program itself in a child, with its sandbox, a fake broker and a fake protocol that greets
 * and echoes: forking, parking, evicting, leaving when the link closes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/link.h>
#include <sallyport/network.h>

#include "proxy/gate/gate.h"
#include "proxy/gate/parking.h"

#define PATIENCE_MS  20000
#define STRANGER     65533
#define GRACE_S      60
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the policy ---- */

static volatile uint8_t mouths[64]; /* what relays would set at the first byte */

static struct parking *make(uint32_t total, uint32_t per_source, uint32_t parked)
{
    struct parking_limits limits = {.max_total = total,
                                    .max_per_source = per_source,
                                    .max_parked = parked,
                                    .login_grace_s = GRACE_S};
    struct parking *p = parking_create(&limits, 1);

    assert_non_null(p);
    for (size_t i = 0; i < COUNT(mouths); i++)
        mouths[i] = 0;
    return p;
}

static struct guest *arrive(struct parking *p, uint8_t source, int64_t now_ms)
{
    struct source_key key = {.family = 4, .address = {10, 0, 0, source}};
    struct guest *g = parking_add(p, &key, now_ms);

    assert_non_null(g);
    return g;
}

static struct guest *expect(struct parking *p, int64_t now_ms, enum parking_what what)
{
    struct parking_step step = parking_next(p, now_ms);

    assert_int_equal(step.what, what);
    return step.guest;
}

/* What the gate does for PARKING_FORK; the pid is the index of its mouth. */
static struct guest *expect_fork(struct parking *p, int64_t now_ms, struct guest *expected, int pid)
{
    struct guest *g = expect(p, now_ms, PARKING_FORK);

    assert_ptr_equal(g, expected);
    mouths[pid] = g->has_spoken;
    parking_forked(p, g, pid, &mouths[pid], now_ms);
    return g;
}

static void wait_until(struct parking *p, int64_t now_ms, int64_t wake_ms)
{
    struct parking_step step = parking_next(p, now_ms);

    assert_int_equal(step.what, PARKING_WAIT);
    assert_int_equal(step.wake_ms, wake_ms);
}

static void forks_at_once_below_the_limits(void **unused)
{
    struct parking *p = make(10, 10, 40);
    struct guest *a = arrive(p, 1, 0), *b = arrive(p, 2, 0);

    (void)unused;
    expect_fork(p, 0, a, 1);
    expect_fork(p, 0, b, 2);
    wait_until(p, 0, GRACE_S * 1000 + PARKING_LEEWAY_MS);
    assert_int_equal(parking_forked_count(p), 2);
    assert_int_equal(parking_parked_count(p), 0);
    assert_ptr_equal(parking_find(p, 2), b);
    assert_null(parking_find(p, 3));
    parking_destroy(p);
}

static void first_come_first_served(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *b = arrive(p, 2, 1), *c = arrive(p, 3, 2);

    (void)unused;
    expect_fork(p, 2, a, 1);
    mouths[1] = 1;
    expect(p, 3, PARKING_WAIT);
    parking_remove(p, a); /* logged in */
    expect_fork(p, 4, b, 2);
    mouths[2] = 1;
    parking_remove(p, b);
    expect_fork(p, 5, c, 3);
    parking_destroy(p);
}

static void who_speaks_goes_first(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *silent = arrive(p, 2, 1), *late = arrive(p, 3, 2),
                 *loud = arrive(p, 4, 3);

    (void)unused;
    expect_fork(p, 3, a, 1);
    mouths[1] = 1;
    parking_spoke(p, loud);
    parking_spoke(p, late); /* spoke later, came earlier */
    expect(p, 4, PARKING_WAIT);
    parking_remove(p, a);
    expect_fork(p, 5, late, 2);
    parking_remove(p, late);
    expect_fork(p, 6, loud, 3);
    parking_remove(p, loud);
    expect_fork(p, 7, silent, 4);
    parking_destroy(p);
}

static void one_source_cannot_take_all(void **unused)
{
    struct parking *p = make(10, 2, 40);
    struct guest *crowd[6], *other;

    (void)unused;
    for (int i = 0; i < 6; i++)
        crowd[i] = arrive(p, 1, 0);
    expect_fork(p, 0, crowd[0], 1);
    expect_fork(p, 0, crowd[1], 2);
    expect(p, 0, PARKING_WAIT);
    other = arrive(p, 2, 1);
    expect_fork(p, 1, other, 3);
    assert_int_equal(parking_parked_count(p), 4);
    parking_destroy(p);
}

static void silent_relays_make_room(void **unused)
{
    struct parking *p = make(2, 2, 40);
    struct guest *a = arrive(p, 1, 0), *b = arrive(p, 2, 0), *c, *d;

    (void)unused;
    expect_fork(p, 0, a, 1);
    expect_fork(p, 100, b, 2);
    c = arrive(p, 3, 200);
    d = arrive(p, 4, 200);
    expect(p, 5000, PARKING_WAIT); /* nobody who waits has said anything */
    parking_spoke(p, c);
    assert_ptr_equal(expect(p, 5000, PARKING_EVICT), a); /* the oldest silent */
    expect(p, 5000, PARKING_WAIT);                       /* one for one */
    parking_spoke(p, d);
    assert_ptr_equal(expect(p, 5000, PARKING_EVICT), b);
    expect(p, 5000, PARKING_WAIT); /* not forked before the place is free */
    parking_remove(p, a);
    expect_fork(p, 5001, c, 3);
    parking_remove(p, b);
    expect_fork(p, 5002, d, 4);
    parking_destroy(p);
}

static void a_relay_gets_a_second_to_hear(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *b;

    (void)unused;
    expect_fork(p, 0, a, 1);
    b = arrive(p, 2, 300);
    parking_spoke(p, b);
    wait_until(p, 300, PARKING_SILENT_MIN_MS);
    mouths[1] = 1; /* it speaks just in time */
    wait_until(p, 1000, 300 + GRACE_S * 1000);
    mouths[1] = 0;
    assert_ptr_equal(expect(p, 1000, PARKING_EVICT), a);
    parking_destroy(p);
}

static void a_full_source_evicts_its_own(void **unused)
{
    struct parking *p = make(10, 1, 40);
    struct guest *other = arrive(p, 2, 0), *a = arrive(p, 1, 1), *b;

    (void)unused;
    expect_fork(p, 1, other, 1);
    expect_fork(p, 1, a, 2);
    b = arrive(p, 1, 2);
    parking_spoke(p, b);
    assert_ptr_equal(expect(p, 3000, PARKING_EVICT), a); /* not the older one from elsewhere */
    expect(p, 3000, PARKING_WAIT);
    parking_remove(p, a);
    expect_fork(p, 3001, b, 3);
    parking_destroy(p);
}

static void too_many_parked(void **unused)
{
    struct parking *p = make(1, 1, 3);
    struct guest *a = arrive(p, 9, 0), *g[4], *h;

    (void)unused;
    expect_fork(p, 0, a, 1);
    mouths[1] = 1;
    for (int i = 0; i < 4; i++)
        g[i] = arrive(p, (uint8_t)(i < 2 ? 1 : i), 1);
    parking_spoke(p, g[0]);
    assert_ptr_equal(expect(p, 1, PARKING_CLOSE), g[1]); /* the oldest silent */
    parking_remove(p, g[1]);
    expect(p, 1, PARKING_WAIT);
    h = arrive(p, 1, 2);
    parking_spoke(p, g[2]);
    parking_spoke(p, g[3]);
    parking_spoke(p, h);
    assert_ptr_equal(expect(p, 2, PARKING_CLOSE), g[0]); /* of the source that has most */
    parking_destroy(p);
}

static void who_can_be_spared(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *b, *c;

    (void)unused;
    expect_fork(p, 0, a, 1);
    assert_null(parking_sparable(p)); /* a relay is not: its descriptors are its own */
    b = arrive(p, 2, 1);
    c = arrive(p, 3, 2);
    parking_spoke(p, b);
    assert_ptr_equal(parking_sparable(p), c);
    parking_remove(p, c);
    assert_ptr_equal(parking_sparable(p), b);
    parking_destroy(p);
}

static void login_grace_counts_from_accept(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *b = arrive(p, 2, 10);

    (void)unused;
    expect_fork(p, 10, a, 1);
    mouths[1] = 1;
    wait_until(p, 11, 10 + GRACE_S * 1000);
    assert_ptr_equal(expect(p, 10 + GRACE_S * 1000, PARKING_CLOSE), b);
    parking_remove(p, b);
    /* a relay that does not end itself */
    wait_until(p, GRACE_S * 1000 + 10, GRACE_S * 1000 + PARKING_LEEWAY_MS);
    assert_ptr_equal(expect(p, GRACE_S * 1000 + PARKING_LEEWAY_MS, PARKING_EVICT), a);
    expect(p, GRACE_S * 2000, PARKING_WAIT);
    parking_destroy(p);
}

static void who_left_is_closed(void **unused)
{
    struct parking *p = make(1, 1, 40);
    struct guest *a = arrive(p, 1, 0), *b = arrive(p, 2, 0), *c = arrive(p, 3, 0);

    (void)unused;
    expect_fork(p, 0, a, 1);
    mouths[1] = 1;
    assert_ptr_equal(parking_unwatched(p), b);
    b->event = c->event = p;
    assert_null(parking_unwatched(p));
    parking_gone(p, c);
    parking_gone(p, c);
    assert_ptr_equal(expect(p, 0, PARKING_CLOSE), c);
    parking_remove(p, c);
    expect(p, 0, PARKING_WAIT);
    parking_destroy(p);
}

static void lower_limits_end_nobody(void **unused)
{
    struct parking *p = make(5, 5, 40);
    struct parking_limits fewer = {.max_total = 0, .max_parked = 40, .login_grace_s = GRACE_S};
    struct guest *g;

    (void)unused;
    for (int i = 1; i <= 3; i++)
        expect_fork(p, 0, arrive(p, 1, 0), i);
    parking_set_limits(p, &fewer);
    expect(p, 0, PARKING_WAIT);
    g = arrive(p, 2, 1);
    for (int i = 1; i <= 2; i++)
        parking_remove(p, parking_find(p, i));
    expect(p, 1, PARKING_WAIT);
    parking_remove(p, parking_find(p, 3));
    expect_fork(p, 1, g, 4); /* a limit of 0 would lock everybody out: it is 1 */
    parking_destroy(p);
}

/* Two hundred silent connections, then people. */
static void silence_does_not_lock_out(void **unused)
{
    struct parking *p = make(40, 20, 160);
    struct parking_step step;
    int64_t now = 0;
    int pid = 0, served = 0, closed = 0;
    struct guest *person = NULL;

    (void)unused;
    for (int i = 0; i < 200; i++)
        arrive(p, 1, now);
    for (int i = 0; i < 400; i++) {
        if (i % 40 == 20) {
            person = arrive(p, (uint8_t)(i % 80 == 20 ? 1 : 2), now);
            parking_spoke(p, person);
        }
        while ((step = parking_next(p, now)).what != PARKING_WAIT) {
            if (step.what == PARKING_FORK && step.guest->has_spoken) {
                served++;
                parking_remove(p, step.guest); /* logs in at once */
            } else if (step.what == PARKING_FORK) {
                parking_forked(p, step.guest, ++pid, &mouths[0], now);
            } else {
                closed += step.what == PARKING_CLOSE;
                parking_remove(p, step.guest);
            }
        }
        now += 100;
    }
    assert_int_equal(served, 10);
    assert_int_equal(closed, 20 + 1); /* 200 - 20 forked - 160 that may wait; and for the first
                                          person one more */
    parking_destroy(p);
}

static struct source_key key_of(const char *text)
{
    uint8_t address[16];

    assert_true(network_address(text, address));
    return source_key_of(address);
}

static void sources_are_addresses_or_networks(void **unused)
{
    struct source_key a = key_of("192.0.2.1"), b = key_of("::ffff:192.0.2.1"),
                      c = key_of("2001:db8:0:1::1"), d = key_of("2001:db8:0:1:ffff::9"),
                      e = key_of("2001:db8:0:2::1"), f = key_of("192.0.2.2");

    (void)unused;
    assert_memory_equal(&a, &b, sizeof(a));
    assert_memory_equal(&c, &d, sizeof(c));
    assert_memory_not_equal(&c, &e, sizeof(c));
    assert_memory_not_equal(&a, &f, sizeof(a));
}

/* ---- the program: a fake protocol that greets and echoes ---- */

struct echo {
    struct relay *relay;
    int fd;
    struct event *event;
};

static void echo_readable(evutil_socket_t fd, short what, void *arg)
{
    struct echo *e = arg;
    char bytes[64];
    ssize_t n = read(fd, bytes, sizeof(bytes));

    (void)what;
    if (n <= 0) {
        relay_finish(e->relay, END_NETWORK_LOST, "client", "gone");
        return;
    }
    relay_client_spoke(e->relay);
    if (bytes[0] == '!')
        abort();
    if (bytes[0] == 'o')
        n = snprintf(bytes, sizeof(bytes), "%d", open("/", O_RDONLY | O_DIRECTORY) >= 0);
    if (write(fd, bytes, (size_t)n) < 0)
        relay_finish(e->relay, END_NETWORK_LOST, "client", "gone");
}

static void *echo_start(struct relay *r, int client_fd, const struct link_welcome *limits)
{
    struct echo *e = calloc(1, sizeof(*e));

    (void)limits;
    if (!e || write(client_fd, "hi\n", 3) != 3)
        return NULL;
    e->relay = r;
    e->fd = client_fd;
    e->event = event_new(relay_base(r), client_fd, EV_READ | EV_PERSIST, echo_readable, e);
    event_add(e->event, NULL);
    return e;
}

static void echo_auth_result(void *self, const struct link_auth_result *result)
{
    (void)self, (void)result;
}

static void echo_end(void *self, const char *sentence, uint32_t deadline_ms)
{
    struct echo *e = self;

    (void)sentence, (void)deadline_ms;
    relay_finish(e->relay, END_NETWORK_LOST, "client", "gone");
}

static void echo_finish(void *self)
{
    struct echo *e = self;

    event_free(e->event);
    close(e->fd);
    free(e);
}

static const struct relay_protocol echo_protocol = {.protocol = PROTOCOL_SSH,
                                                    .name = "echo",
                                                    .start = echo_start,
                                                    .auth_result = echo_auth_result,
                                                    .end = echo_end,
                                                    .finish = echo_finish};

static int load_key(const char *pem, size_t len)
{
    return len == 3 && memcmp(pem, "key", 3) == 0 ? 0 : ERR_INVALID;
}

static const struct gate_protocol gate_protocol = {.relay = &echo_protocol, .load_key = load_key};

struct rig {
    char dir[64];
    pid_t gate;
    int link;         /* the gate's */
    int relay_listen; /* relay.sock */
    int tcp;
    uint16_t port;
    struct link_message m;
};

static void rig_path(const struct rig *r, char dst[128], const char *name)
{
    snprintf(dst, 128, "%s/%.62s", r->dir, name);
}

static void exec_gate(const struct rig *r, int link)
{
    char root[128], broker[16], relay[16];
    const char *argv[16] = {"sallyport-echo", "--gate", "--run-dir",    r->dir,
                            "--root",         root,     "--broker-uid", broker};
    size_t n = 8;

    rig_path(r, root, "root");
    snprintf(broker, sizeof(broker), "%u", geteuid());
    snprintf(relay, sizeof(relay), "%d", STRANGER);
    if (geteuid() == 0) {
        argv[n++] = "--relay-uid";
        argv[n++] = relay;
        argv[n++] = "--relay-gid";
        argv[n++] = relay;
    }
    if (dup2(link, 3) < 0)
        _exit(99);
    signal(SIGSEGV, SIG_DFL); /* cmocka's own would run the tests on in a relay that died */
    close_range(4, ~0u, 0);
    setenv("SALLYPORT_LOG_LEVEL", "warn", 1);
    optind = 1;
    _exit(gate_main((int)n, (char **)(uintptr_t)argv, &gate_protocol));
}

static void to_gate(struct rig *r, const struct link_message *m, const int *fds, size_t count)
{
    assert_int_equal(link_send(r->link, m, LINK_VERSION, fds, count), 0);
}

static void configure(struct rig *r, uint32_t total, uint32_t per_source, bool is_draining)
{
    struct link_message m = {.type = LINK_GATE_CONFIG};

    m.gate_config = (struct link_gate_config){.max_unauthenticated = total,
                                              .max_unauthenticated_per_source = per_source,
                                              .login_grace_s = 60,
                                              .is_draining = is_draining};
    to_gate(r, &m, NULL, 0);
}

static void await_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

static struct link_message *from_gate(struct rig *r)
{
    int fds[LINK_FDS_MAX];

    await_readable(r->link);
    assert_int_equal(link_receive(r->link, &r->m, fds), 0);
    return &r->m;
}

static int unix_socket(const struct rig *r, const char *name, struct sockaddr_un *sun)
{
    char path[128];

    rig_path(r, path, name);
    *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(sun->sun_path, sizeof(sun->sun_path), "%.100s", path);
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

static void listen_for_relays(struct rig *r)
{
    struct sockaddr_un sun;

    r->relay_listen = unix_socket(r, "relay.sock", &sun);
    unlink(sun.sun_path);
    assert_int_equal(bind(r->relay_listen, (struct sockaddr *)&sun, sizeof(sun)), 0);
    assert_int_equal(listen(r->relay_listen, 64), 0);
}

static void listen_for_clients(struct rig *r)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);

    r->tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(r->tcp, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(listen(r->tcp, 64), 0);
    assert_int_equal(getsockname(r->tcp, (struct sockaddr *)&sin, &len), 0);
    r->port = ntohs(sin.sin_port);
}

static struct rig *rig_start(uint32_t total, uint32_t per_source)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct link_message m = {.type = LINK_GATE_KEY};
    char path[128];
    int pair[2];

    assert_non_null(r);
    snprintf(r->dir, sizeof(r->dir), "/tmp/sallyport-gate-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    rig_path(r, path, "root");
    assert_int_equal(mkdir(path, 0555), 0);
    rig_path(r, path, "relay");
    assert_int_equal(mkdir(path, 0700), 0);
    listen_for_relays(r);
    listen_for_clients(r);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    r->gate = fork();
    if (r->gate == 0)
        exec_gate(r, pair[1]);
    close(pair[1]);
    r->link = pair[0];
    m.gate_key.key.len = 3;
    memcpy(m.gate_key.key.data, "key", 3);
    to_gate(r, &m, NULL, 0);
    configure(r, total, per_source, false);
    m = (struct link_message){.type = LINK_GATE_LISTEN};
    m.gate_listen.count = 1;
    to_gate(r, &m, &r->tcp, 1);
    await_readable(r->link);
    assert_int_equal(from_gate(r)->type, LINK_GATE_READY);
    assert_int_equal(r->m.gate_ready.pid, r->gate);
    return r;
}

static void rig_stop(struct rig *r)
{
    static const char *const names[] = {"relay.sock", "root", "relay"};
    char path[128];
    int status;

    close(r->link);
    assert_int_equal(waitpid(r->gate, &status, 0), r->gate);
    assert_int_equal(status, 0);
    close(r->relay_listen);
    close(r->tcp);
    for (size_t i = 0; i < COUNT(names); i++) {
        rig_path(r, path, names[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(r->dir), 0);
    free(r);
}

static int call(const struct rig *r)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                              .sin_port = htons(r->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    return fd;
}

struct peer {
    int link;
    pid_t pid;
};

static void greet(struct rig *r, int link)
{
    struct link_message m = {.type = LINK_WELCOME};
    int fds[LINK_FDS_MAX];

    await_readable(link);
    assert_int_equal(link_receive(link, &r->m, fds), 0);
    assert_int_equal(r->m.type, LINK_HELLO);
    m.welcome.login_grace_s = 60;
    assert_int_equal(link_send(link, &m, LINK_VERSION, NULL, 0), 0);
}

/* The next relay that says HELLO. */
static struct peer meet(struct rig *r)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);
    struct peer p;

    await_readable(r->relay_listen);
    p.link = accept4(r->relay_listen, NULL, NULL, SOCK_CLOEXEC);
    assert_true(p.link >= 0);
    assert_int_equal(getsockopt(p.link, SOL_SOCKET, SO_PEERCRED, &cred, &len), 0);
    p.pid = cred.pid;
    greet(r, p.link);
    assert_int_equal(r->m.hello.pid, p.pid);
    assert_string_equal(r->m.hello.client_address, "127.0.0.1");
    return p;
}

static void read_text(int fd, const char *expected)
{
    char text[64] = "";
    size_t n = 0;

    while (n < strlen(expected)) {
        await_readable(fd);
        assert_int_equal(read(fd, &text[n], 1), 1);
        n++;
    }
    assert_string_equal(text, expected);
}

static void read_end(int fd)
{
    char byte;

    await_readable(fd);
    assert_true(read(fd, &byte, 1) <= 0);
}

/* The broker's duty when a relay is gone. */
static void remove_socket(const struct rig *r, pid_t pid)
{
    char name[64], path[128];

    snprintf(name, sizeof(name), "relay/%d.sock", (int)pid);
    rig_path(r, path, name);
    assert_int_equal(unlink(path), 0);
}

/* The client hangs up and its relay goes. */
static void part(struct rig *r, struct peer *p, int client)
{
    struct link_message m = {.type = LINK_CLOSED_ACK};
    int fds[LINK_FDS_MAX];

    close(client);
    await_readable(p->link);
    if (link_receive(p->link, &r->m, fds) == 0) {
        assert_int_equal(r->m.type, LINK_CLOSED);
        assert_int_equal(link_send(p->link, &m, LINK_VERSION, NULL, 0), 0);
        read_end(p->link);
    }
    close(p->link);
    remove_socket(r, p->pid);
}

static void status_until(struct rig *r, uint32_t unauthenticated, uint32_t parked)
{
    do
        assert_int_equal(from_gate(r)->type, LINK_GATE_STATUS);
    while (r->m.gate_status.unauthenticated != unauthenticated ||
           r->m.gate_status.parked != parked);
}

static void settle(struct rig *r, pid_t pid)
{
    struct link_message m = {.type = LINK_GATE_SETTLED};

    m.gate_settled.pid = (uint32_t)pid;
    to_gate(r, &m, NULL, 0);
}

static bool has_line(pid_t pid, const char *line)
{
    char path[64], text[4096] = "";
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    close(fd);
    return n > 0 && strstr(text, line) != NULL;
}

/* ---- tests of the program ---- */

static void relays_are_sandboxed(void **unused)
{
    struct rig *r = rig_start(10, 10);
    int client = call(r);
    struct peer p = meet(r);

    (void)unused;
    read_text(client, "hi\n");
    assert_true(has_line(p.pid, "Seccomp:\t2"));
    assert_true(has_line(p.pid, "NoNewPrivs:\t1"));
    assert_true(has_line(p.pid, "CapEff:\t0000000000000000"));
    assert_true(has_line(p.pid, "CapPrm:\t0000000000000000"));
    assert_true(has_line(p.pid, "Name:\tsallyport-relay"));
    assert_true(has_line(r->gate, "NoNewPrivs:\t1"));
    if (geteuid() == 0) {
        assert_true(has_line(p.pid, "Uid:\t65533\t65533\t65533\t65533"));
        assert_true(has_line(r->gate, "CapEff:\t00000000000000c0")); /* SETUID, SETGID */
    } else {
        assert_true(has_line(r->gate, "CapEff:\t0000000000000000"));
    }
    assert_int_equal(write(client, "o", 1), 1);
    read_text(client, "0");
    part(r, &p, client);
    status_until(r, 0, 0);
    assert_int_equal(r->m.gate_status.accepted, 1);
    rig_stop(r);
}

static void parked_until_a_login(void **unused)
{
    struct rig *r = rig_start(1, 1);
    int first = call(r), second, third;
    struct peer a = meet(r), b;

    (void)unused;
    read_text(first, "hi\n");
    assert_int_equal(write(first, "x", 1), 1); /* not silent: nobody evicts it */
    read_text(first, "x");
    second = call(r);
    third = call(r);
    status_until(r, 1, 2);
    close(third); /* a parked one that goes is noticed */
    status_until(r, 1, 1);
    settle(r, a.pid);
    b = meet(r);
    read_text(second, "hi\n");
    part(r, &b, second);
    part(r, &a, first);
    status_until(r, 0, 0);
    rig_stop(r);
}

static void slow_silent_one_is_evicted(void **unused)
{
    struct rig *r = rig_start(1, 1);
    int silent = call(r), loud;
    struct peer a = meet(r), b;

    (void)unused;
    read_text(silent, "hi\n");
    loud = call(r);
    assert_int_equal(write(loud, "me", 2), 2);
    read_end(silent);
    read_end(a.link);
    b = meet(r);
    read_text(loud, "hi\nme");
    part(r, &b, loud);
    close(a.link);
    remove_socket(r, a.pid);
    close(silent);
    status_until(r, 0, 0);
    assert_int_equal(r->m.gate_status.evicted, 1);
    rig_stop(r);
}

static void relays_outlive_the_gate(void **unused)
{
    struct rig *r = rig_start(10, 10);
    int client = call(r), status;
    struct peer p = meet(r);

    (void)unused;
    read_text(client, "hi\n");
    close(r->link);
    assert_int_equal(waitpid(r->gate, &status, 0), r->gate);
    assert_int_equal(status, 0);
    assert_int_equal(write(client, "still", 5), 5);
    read_text(client, "still");
    part(r, &p, client);
    r->gate = fork(); /* for rig_stop() */
    if (r->gate == 0)
        _exit(0);
    r->link = dup(STDERR_FILENO);
    rig_stop(r);
}

/* As a broker that starts: look into the folder until a relay is there that answers. */
static struct peer adopt(const struct rig *r)
{
    struct sockaddr_un sun;
    struct peer p = {.link = -1};
    char path[128], name[300];

    rig_path(r, path, "relay");
    while (p.link < 0) {
        DIR *dir = opendir(path);
        struct dirent *entry;

        assert_non_null(dir);
        while (p.link < 0 && (entry = readdir(dir))) {
            if (entry->d_name[0] == '.')
                continue;
            snprintf(name, sizeof(name), "relay/%s", entry->d_name);
            p.pid = (pid_t)strtol(entry->d_name, NULL, 10);
            p.link = unix_socket(r, name, &sun);
            if (connect(p.link, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
                close(p.link);
                p.link = -1;
            }
        }
        closedir(dir);
        sched_yield();
    }
    return p;
}

static void relay_without_broker_is_adopted(void **unused)
{
    struct rig *r = rig_start(10, 10);
    struct peer p;
    int client;

    (void)unused;
    close(r->relay_listen);
    client = call(r);
    status_until(r, 1, 0);
    p = adopt(r);
    greet(r, p.link);
    assert_int_equal(r->m.hello.phase, LINK_PHASE_LOGIN);
    read_text(client, "hi\n");
    part(r, &p, client);
    r->relay_listen = dup(STDERR_FILENO);
    rig_stop(r);
}

static void listeners_are_replaced_and_drained(void **unused)
{
    struct rig *r = rig_start(10, 10);
    struct link_message m = {.type = LINK_GATE_LISTEN};
    int old = r->tcp, client, waiting;
    struct peer p;
    struct pollfd nothing;

    (void)unused;
    listen_for_clients(r);
    m.gate_listen.count = 1;
    to_gate(r, &m, &r->tcp, 1);
    client = call(r);
    p = meet(r);
    read_text(client, "hi\n");
    configure(r, 10, 10, true);
    status_until(r, 1, 0);
    waiting = call(r); /* by the kernel only */
    nothing = (struct pollfd){.fd = r->relay_listen, .events = POLLIN};
    assert_int_equal(poll(&nothing, 1, 100), 0);
    assert_int_equal(write(client, "a", 1), 1); /* live ones go on */
    read_text(client, "a");
    part(r, &p, client);
    configure(r, 10, 10, false);
    p = meet(r);
    read_text(waiting, "hi\n");
    part(r, &p, waiting);
    close(old);
    rig_stop(r);
}

static void crash_is_reaped(void **unused)
{
    struct rig *r = rig_start(10, 10);
    int client = call(r);
    struct peer p = meet(r);

    (void)unused;
    read_text(client, "hi\n");
    assert_int_equal(write(client, "!", 1), 1);
    read_end(client);
    read_end(p.link);
    close(p.link);
    status_until(r, 0, 0);
    remove_socket(r, p.pid);
    close(client);
    rig_stop(r);
}

static void without_keys_it_refuses(void **unused)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct link_message m = {.type = LINK_GATE_LISTEN};
    int pair[2], status;

    (void)unused;
    assert_non_null(r);
    snprintf(r->dir, sizeof(r->dir), "/tmp");
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    r->gate = fork();
    if (r->gate == 0)
        exec_gate(r, pair[1]);
    close(pair[1]);
    r->link = pair[0];
    configure(r, 1, 1, false);
    to_gate(r, &m, NULL, 0);
    assert_int_equal(waitpid(r->gate, &status, 0), r->gate);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    close(r->link);
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forks_at_once_below_the_limits),
        cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(who_speaks_goes_first),
        cmocka_unit_test(one_source_cannot_take_all),
        cmocka_unit_test(silent_relays_make_room),
        cmocka_unit_test(a_relay_gets_a_second_to_hear),
        cmocka_unit_test(a_full_source_evicts_its_own),
        cmocka_unit_test(too_many_parked),
        cmocka_unit_test(who_can_be_spared),
        cmocka_unit_test(login_grace_counts_from_accept),
        cmocka_unit_test(who_left_is_closed),
        cmocka_unit_test(lower_limits_end_nobody),
        cmocka_unit_test(silence_does_not_lock_out),
        cmocka_unit_test(sources_are_addresses_or_networks),
        cmocka_unit_test(relays_are_sandboxed),
        cmocka_unit_test(parked_until_a_login),
        cmocka_unit_test(slow_silent_one_is_evicted),
        cmocka_unit_test(relays_outlive_the_gate),
        cmocka_unit_test(relay_without_broker_is_adopted),
        cmocka_unit_test(listeners_are_replaced_and_drained),
        cmocka_unit_test(crash_is_reaped),
        cmocka_unit_test(without_keys_it_refuses),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
