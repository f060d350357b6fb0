/*
 * The relay with a fake protocol and a fake broker. The relay runs in a child; its client's socket
 * is also how a test drives the fake protocol (one letter, one call) and reads what it was told
 * (one line a callback). Then the pure parts: the outbox and life alone, under a clock of our own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/activity.h>
#include <sallyport/clock.h>
#include <sallyport/link.h>
#include <sallyport/text.h>

#include "proxy/relay/alone.h"
#include "proxy/relay/outbox.h"
#include "proxy/relay/relay.h"
#include "proxy/relay/sandbox.h"

#define PATIENCE_MS  20000
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- the fake protocol, in the child ---- */

struct fake {
    struct relay *relay;
    int client_fd;
    int target_fd;
    struct event *event;
    uint64_t sequence;
    bool is_stubborn; /* never answers end() */
    bool has_door;
};

static void PRINTF_LIKE(2, 3) tell(struct fake *f, const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(line, sizeof(line) - 1, fmt, ap);
    va_end(ap);
    if (n < 0 || n > (int)sizeof(line) - 2)
        _exit(80);
    line[n] = '\n';
    if (write(f->client_fd, line, (size_t)n + 1) < 0)
        relay_finish(f->relay, END_NETWORK_LOST, "client", "gone");
}

static void say_channel(struct fake *f, uint8_t change)
{
    struct link_channel c = {.channel = 1, .change = change, .exit_status = UINT32_MAX};

    relay_channel(f->relay, &c);
}

static void say_frame(struct fake *f, uint32_t channel)
{
    struct link_frame frame = {.channel = channel, .sequence = ++f->sequence};

    frame.chain.len = 32;
    relay_frame(f->relay, &frame);
}

static void obey(struct fake *f, char letter)
{
    struct link_record_open open = {.channel = 1, .has_pty = 1};
    struct link_door door = {.channel = 3, .command = "sessions"};

    switch (letter) {
    case 'd':
        f->has_door = true;
        tell(f, "door %d", relay_door_open(f->relay, &door));
        break;
    case 'D':
        relay_door_resize(f->relay, 3, 100, 30);
        break;
    case 'x':
        relay_door_close(f->relay, 3);
        break;
    case 'b':
        tell(f, "back %d", relay_back(f->relay, END_TARGET_UNREACHABLE, "web01 said no"));
        break;
    case 'p':
        relay_set_device(f->relay, "fake_1.0");
        relay_auth_password(f->relay, "alice", "secret");
        break;
    case 'k':
    case 's':
        relay_auth_key(f->relay, "alice", letter == 's', "ssh-ed25519", "blob", 4);
        break;
    case 'r':
        relay_route(f->relay, "root", "web01");
        break;
    case 't':
        relay_targets(f->relay, 0);
        break;
    case 'h':
        relay_pin_host_key(f->relay, 0, "ssh-ed25519", "blob", 4);
        break;
    case 'o':
    case 'O':
        open.channel = letter == 'o' ? 1 : 2;
        snprintf(open.term, sizeof(open.term), "xterm");
        relay_record_open(f->relay, &open);
        break;
    case 'y':
        relay_ready(f->relay, "target_2.0");
        break;
    case 'c':
        say_channel(f, LINK_CHANNEL_OPENED);
        break;
    case 'C':
        say_channel(f, LINK_CHANNEL_CLOSED);
        break;
    case 'f':
        say_frame(f, 1);
        break;
    case 'e':
        for (int i = 0; i < 300; i++)
            relay_event(f->relay, "noise", "x");
        break;
    case 'i':
        relay_input(f->relay, 10, true);
        break;
    case 'u':
        relay_output(f->relay, 100, false);
        break;
    case '+':
        relay_hold(f->relay, 1);
        break;
    case '-':
        relay_hold(f->relay, -1);
        break;
    case 'z':
        f->is_stubborn = true;
        break;
    case 'n':
        relay_narrow(f->relay);
        break;
    case 'q':
        relay_finish(f->relay, END_USER_EXIT, "user", "left");
        relay_finish(f->relay, END_POLICY, "nobody", "the second reason counts for nothing");
        break;
    default:
        _exit(81);
    }
    tell(f, "did %c", letter);
}

static void fake_readable(evutil_socket_t fd, short what, void *arg)
{
    struct fake *f = arg;
    char letter;

    (void)what;
    if (read(fd, &letter, 1) == 1)
        obey(f, letter);
    else
        relay_finish(f->relay, END_NETWORK_LOST, "client", "gone");
}

static void *fake_start(struct relay *r, int client_fd, const struct link_welcome *limits)
{
    struct fake *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->relay = r;
    f->client_fd = client_fd;
    f->target_fd = -1;
    f->event = event_new(relay_base(r), client_fd, EV_READ | EV_PERSIST, fake_readable, f);
    event_add(f->event, NULL);
    relay_client_spoke(r);
    tell(f, "start %u", limits->auth_attempts);
    return f;
}

static void fake_auth_result(void *self, const struct link_auth_result *result)
{
    tell(self, "auth %u", result->result);
}

static void fake_routed(void *self, const struct link_route_result *result, int target_fd)
{
    struct fake *f = self;
    int flags = target_fd < 0 ? 0 : fcntl(target_fd, F_GETFL);

    f->target_fd = target_fd;
    tell(f, "routed %u %s nonblock=%d secret=%s session=%u", result->is_ok, result->text,
         (flags & O_NONBLOCK) != 0, (const char *)result->secret.data,
         (unsigned)relay_session_id(f->relay));
}

static void fake_targets(void *self, const struct link_target_row *rows, size_t count, size_t total)
{
    tell(self, "targets %zu of %zu, last %s", count, total, count ? rows[count - 1].target : "-");
}

static void fake_host_key_result(void *self, bool is_ok, const char *text)
{
    tell(self, "pinned %d %s", is_ok, text);
}

static void fake_recording(void *self, const struct link_recording *answer, int fd)
{
    tell(self, "recording %u verdict=%u fd=%d", answer->channel, answer->verdict, fd);
}

static void fake_notice(void *self, enum link_notice kind, const char *text)
{
    tell(self, "notice %u %s", (unsigned)kind, text);
}

static void fake_end(void *self, const char *sentence, uint32_t deadline_ms)
{
    struct fake *f = self;

    (void)deadline_ms;
    tell(f, "end %s", sentence);
    if (!f->is_stubborn)
        relay_finish(f->relay, END_USER_EXIT, "user", "as END says, not as this says");
}

static void fake_door_result(void *self, const struct link_door_result *result, const int fds[3])
{
    tell(self, "door %u ok=%d status=%d fds=%d%d%d %s", result->channel, result->is_ok,
         result->exit_status, fds[0] >= 0, fds[1] >= 0, fds[2] >= 0, result->text);
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void fake_door_exit(void *self, const struct link_door_exit *end)
{
    tell(self, "door %u over, status %d", end->channel, end->exit_status);
}

static void fake_broker_lost(void *self)
{
    struct fake *f = self;

    if (f->has_door)
        tell(f, "lost");
}

static void fake_back(void *self)
{
    struct fake *f = self;

    tell(f, "back, session=%llu", (unsigned long long)relay_session_id(f->relay));
}

static void fake_finish(void *self)
{
    struct fake *f = self;

    say_frame(f, 7); /* a recording is closed at the very end: said before CLOSED */
    event_free(f->event);
    close(f->client_fd);
    if (f->target_fd >= 0)
        close(f->target_fd);
    free(f);
}

static const struct relay_protocol fake_protocol = {
    .protocol = PROTOCOL_SSH,
    .name = "fake",
    .start = fake_start,
    .auth_result = fake_auth_result,
    .routed = fake_routed,
    .targets = fake_targets,
    .host_key_result = fake_host_key_result,
    .recording = fake_recording,
    .notice = fake_notice,
    .end = fake_end,
    .door_result = fake_door_result,
    .door_exit = fake_door_exit,
    .broker_lost = fake_broker_lost,
    .back = fake_back,
    .finish = fake_finish,
};

/* ---- the rig: a relay in a child, we are its client and its broker ---- */

struct rig {
    pid_t pid;
    int client;
    int link;
    struct sockaddr_un adoption;
    socklen_t adoption_len;
    volatile uint8_t *spoken;
    struct activity_page *page;
    int page_fd;
    uint8_t version;
    struct link_message m; /* the newest that the relay said */
};

static int listen_anywhere(struct sockaddr_un *sun, socklen_t *len)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)sun, sizeof(sa_family_t)), 0); /* autobind */
    assert_int_equal(listen(fd, 4), 0);
    *len = sizeof(*sun);
    assert_int_equal(getsockname(fd, (struct sockaddr *)sun, len), 0);
    return fd;
}

static struct rig *rig_start(bool has_link, uint32_t grace_s, uint32_t broker_uid)
{
    struct rig *g = calloc(1, sizeof(*g));
    int client[2], link[2] = {-1, -1}, listener;

    assert_non_null(g);
    g->page_fd = g->link = -1;
    g->version = LINK_VERSION;
    g->spoken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, client), 0);
    if (has_link)
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, link), 0);
    listener = listen_anywhere(&g->adoption, &g->adoption_len);
    g->pid = fork();
    if (g->pid == 0) {
        struct relay_birth birth = {.client_fd = client[1],
                                    .link_fd = link[1],
                                    .listen_fd = listener,
                                    .broker_uid = broker_uid,
                                    .spoken = g->spoken,
                                    .accepted_mono_ms = clock_mono_ms(),
                                    .login_grace_s = grace_s};

        close(client[0]);
        if (link[0] >= 0)
            close(link[0]);
        free(g);
        _exit(relay_run(&fake_protocol, &birth));
    }
    close(client[1]);
    if (link[1] >= 0)
        close(link[1]);
    close(listener);
    g->client = client[0];
    g->link = link[0];
    return g;
}

static void await_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
}

/* The next message, which must be of this type; descriptors are given back in fds or closed. */
static struct link_message *heard(struct rig *g, enum link_type type, int *fd)
{
    int fds[LINK_FDS_MAX];

    await_readable(g->link);
    assert_int_equal(link_receive(g->link, &g->m, fds), 0);
    if (g->m.type != type)
        print_error("heard %s\n", link_type_name(g->m.type));
    assert_int_equal(g->m.type, type);
    if (fd) {
        *fd = fds[0];
        fds[0] = -1;
    }
    link_close_fds(fds);
    return &g->m;
}

static void say(struct rig *g, const struct link_message *m, const int *fds, size_t count)
{
    assert_int_equal(link_send(g->link, m, g->version, fds, count), 0);
}

static void welcome(struct rig *g, uint32_t lost_after_s)
{
    struct link_message m = {.type = LINK_WELCOME};

    m.welcome = (struct link_welcome){.login_grace_s = 60,
                                      .auth_attempts = 6,
                                      .key_offers = 20,
                                      .broker_lost_after_s = lost_after_s,
                                      .separators = "+"};
    say(g, &m, NULL, 0);
}

/* Lines that the fake protocol tells; `did X` is the answer to every letter. */
static void told(struct rig *g, const char *expected)
{
    char line[1024];
    size_t n = 0;

    for (;;) {
        await_readable(g->client);
        assert_int_equal(read(g->client, &line[n], 1), 1);
        if (line[n] == '\n')
            break;
        assert_true(++n < sizeof(line));
    }
    line[n] = '\0';
    assert_string_equal(line, expected);
}

static void drive(struct rig *g, const char *letters)
{
    char did[] = "did ?";

    for (; *letters; letters++) {
        did[4] = *letters;
        assert_int_equal(write(g->client, letters, 1), 1);
        told(g, did);
    }
}

static void rig_meet(struct rig *g)
{
    const struct link_hello *h = &heard(g, LINK_HELLO, NULL)->hello;

    assert_int_equal(h->phase, LINK_PHASE_LOGIN);
    assert_int_equal(h->pid, g->pid);
    welcome(g, 3600);
    told(g, "start 6");
    assert_int_equal(*g->spoken, 1);
}

static void answer_auth(struct rig *g, enum link_auth result, const char *ticket)
{
    struct link_message m = {.type = LINK_AUTH_RESULT};

    m.auth_result.result = (uint8_t)result;
    text_copy(m.auth_result.user, sizeof(m.auth_result.user), "alice");
    m.auth_result.ticket.len = (uint16_t)strlen(ticket);
    memcpy(m.auth_result.ticket.data, ticket, strlen(ticket));
    say(g, &m, NULL, 0);
}

static void rig_log_in(struct rig *g)
{
    drive(g, "p");
    heard(g, LINK_AUTH_PASSWORD, NULL);
    assert_string_equal(g->m.auth_password.user, "alice");
    assert_string_equal(g->m.auth_password.device, "fake_1.0");
    assert_int_equal(g->m.auth_password.password.len, 6);
    answer_auth(g, LINK_AUTH_OK, "ticket-1");
    told(g, "auth 2");
}

static void answer_route(struct rig *g, const struct policy *policy)
{
    struct link_message m = {.type = LINK_ROUTE_RESULT};
    int pair[2];

    g->page = activity_create(42, &g->page_fd);
    assert_non_null(g->page);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    m.route_result.is_ok = 1;
    m.route_result.session_id = 42;
    m.route_result.policy = *policy;
    text_copy(m.route_result.target, sizeof(m.route_result.target), "web01");
    m.route_result.secret.len = 2;
    memcpy(m.route_result.secret.data, "pw", 2);
    m.route_result.ticket.len = 8;
    memcpy(m.route_result.ticket.data, "ticket-2", 8);
    say(g, &m, (int[]){pair[0], g->page_fd}, 2);
    close(pair[0]);
    close(pair[1]);
    told(g, "routed 1  nonblock=1 secret=pw session=42");
}

static void rig_route(struct rig *g, const struct policy *policy)
{
    drive(g, "r");
    heard(g, LINK_ROUTE, NULL);
    assert_string_equal(g->m.route.account, "root");
    assert_string_equal(g->m.route.target, "web01");
    answer_route(g, policy);
    drive(g, "y");
    heard(g, LINK_READY, NULL);
}

static struct policy plain_policy(void)
{
    struct policy p;

    policy_defaults(&p);
    return p;
}

/* A session that is up, with its broker. */
static struct rig *rig_session(const struct policy *policy, uint32_t lost_after_s)
{
    struct rig *g = rig_start(true, 60, getuid());

    heard(g, LINK_HELLO, NULL);
    welcome(g, lost_after_s);
    told(g, "start 6");
    rig_log_in(g);
    rig_route(g, policy);
    return g;
}

static void lose_broker(struct rig *g)
{
    close(g->link);
    g->link = -1;
}

/* A later broker connects; HELLO is left in g->m. */
static void adopt(struct rig *g, enum link_phase phase, int *page_fd)
{
    g->link = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(g->link, (struct sockaddr *)&g->adoption, g->adoption_len), 0);
    heard(g, LINK_HELLO, page_fd);
    assert_int_equal(g->m.hello.phase, phase);
}

static void acknowledge(struct rig *g)
{
    struct link_message m = {.type = LINK_CLOSED_ACK};

    say(g, &m, NULL, 0);
}

static void rig_stop(struct rig *g)
{
    int status;

    assert_int_equal(waitpid(g->pid, &status, 0), g->pid);
    assert_int_equal(status, 0);
    activity_unmap(g->page);
    if (g->page_fd >= 0)
        close(g->page_fd);
    if (g->link >= 0)
        close(g->link);
    close(g->client);
    munmap((void *)(uintptr_t)g->spoken, 4096);
    free(g);
}

/* The relay says CLOSED for this reason, hears the answer and leaves. */
static void rig_closed(struct rig *g, enum end_reason reason)
{
    heard(g, LINK_CLOSED, NULL);
    assert_int_equal(g->m.closed.reason, reason);
    acknowledge(g);
    rig_stop(g);
}

/* ---- tests of the relay ---- */

static void whole_life(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_start(true, 60, getuid());
    struct link_message m = {.type = LINK_NOTICE};

    (void)unused;
    rig_meet(g);
    rig_log_in(g);
    rig_route(g, &p);
    assert_int_equal(fcntl(g->link, F_GETFD) >= 0, 1);
    m.notice.kind = LINK_NOTICE_MESSAGE;
    text_copy(m.notice.text, sizeof(m.notice.text), "hello all");
    say(g, &m, NULL, 0);
    told(g, "notice 1 hello all");
    drive(g, "ciiu");
    assert_int_equal(atomic_load(&g->page->bytes_in), 20);
    assert_int_equal(atomic_load(&g->page->bytes_out), 100);
    assert_int_equal(atomic_load(&g->page->channels_open), 1);
    heard(g, LINK_CHANNEL, NULL);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    assert_int_equal(g->m.frame.channel, 7);
    heard(g, LINK_CLOSED, NULL);
    assert_int_equal(g->m.closed.reason, END_USER_EXIT);
    assert_string_equal(g->m.closed.author, "user");
    assert_string_equal(g->m.closed.text, "left");
    assert_int_equal(g->m.closed.bytes_in, 20);
    assert_int_equal(g->m.closed.bytes_out, 100);
    acknowledge(g);
    rig_stop(g);
}

static void failed_attempts_are_counted(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid());

    (void)unused;
    rig_meet(g);
    drive(g, "k"); /* an offer that is refused is no attempt */
    heard(g, LINK_AUTH_KEY, NULL);
    assert_int_equal(g->m.auth_key.is_signed, 0);
    answer_auth(g, LINK_AUTH_DENIED, "t");
    told(g, "auth 0");
    drive(g, "s");
    heard(g, LINK_AUTH_KEY, NULL);
    assert_int_equal(g->m.auth_key.is_signed, 1);
    answer_auth(g, LINK_AUTH_DENIED, "newest");
    told(g, "auth 0");
    lose_broker(g);
    adopt(g, LINK_PHASE_LOGIN, NULL);
    assert_int_equal(g->m.hello.attempts, 1);
    assert_string_equal(g->m.hello.user, "");
    assert_memory_equal(g->m.hello.ticket.data, "newest", 6);
    welcome(g, 3600);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void requests_are_repeated(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_start(true, 60, getuid());

    (void)unused;
    rig_meet(g);
    drive(g, "p");
    heard(g, LINK_AUTH_PASSWORD, NULL);
    lose_broker(g); /* asked, never answered */
    adopt(g, LINK_PHASE_LOGIN, NULL);
    welcome(g, 3600);
    heard(g, LINK_AUTH_PASSWORD, NULL);
    assert_memory_equal(g->m.auth_password.password.data, "secret", 6);
    answer_auth(g, LINK_AUTH_OK, "ticket-1");
    told(g, "auth 2");
    lose_broker(g);
    drive(g, "r"); /* asked while nobody is there */
    adopt(g, LINK_PHASE_CHOOSING, NULL);
    assert_string_equal(g->m.hello.user, "alice");
    assert_memory_equal(g->m.hello.ticket.data, "ticket-1", 8);
    welcome(g, 3600);
    heard(g, LINK_ROUTE, NULL);
    answer_route(g, &p);
    drive(g, "oO");
    heard(g, LINK_RECORD_OPEN, NULL);
    heard(g, LINK_RECORD_OPEN, NULL);
    lose_broker(g);
    adopt(g, LINK_PHASE_SESSION, NULL);
    welcome(g, 3600);
    heard(g, LINK_RECORD_OPEN, NULL);
    assert_int_equal(g->m.record_open.channel, 1);
    heard(g, LINK_RECORD_OPEN, NULL);
    assert_int_equal(g->m.record_open.channel, 2);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void page_goes_to_the_next_broker(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);
    struct activity_page *page;
    int fd;

    (void)unused;
    drive(g, "ff");
    heard(g, LINK_FRAME, NULL);
    heard(g, LINK_FRAME, NULL);
    lose_broker(g);
    drive(g, "iicf");
    adopt(g, LINK_PHASE_SESSION, &fd);
    assert_int_equal(g->m.hello.session_id, 42);
    assert_memory_equal(g->m.hello.ticket.data, "ticket-2", 8);
    page = activity_map(fd);
    assert_non_null(page);
    assert_int_equal(page->session_id, 42);
    assert_int_equal(atomic_load(&page->bytes_in), 20);
    activity_unmap(page);
    close(fd);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL); /* said again: the first may have died with its broker */
    assert_string_equal(g->m.ready.target_version, "target_2.0");
    heard(g, LINK_CHANNEL, NULL);
    heard(g, LINK_FRAME, NULL); /* only the newest */
    assert_int_equal(g->m.frame.sequence, 3);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void targets_come_as_one(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid());
    struct link_message m = {.type = LINK_TARGET_LIST};

    (void)unused;
    rig_meet(g);
    rig_log_in(g);
    drive(g, "t");
    heard(g, LINK_TARGETS, NULL);
    m.target_list.count = 2;
    m.target_list.total = 5;
    say(g, &m, NULL, 0);
    m = (struct link_message){.type = LINK_TARGET_ROW};
    text_copy(m.target_row.target, sizeof(m.target_row.target), "db01");
    say(g, &m, NULL, 0);
    lose_broker(g); /* in the middle of the answer: asked again, told once */
    adopt(g, LINK_PHASE_CHOOSING, NULL);
    welcome(g, 3600);
    heard(g, LINK_TARGETS, NULL);
    m = (struct link_message){.type = LINK_TARGET_LIST};
    m.target_list.count = 1;
    m.target_list.total = 1;
    say(g, &m, NULL, 0);
    m = (struct link_message){.type = LINK_TARGET_ROW};
    text_copy(m.target_row.target, sizeof(m.target_row.target), "web01");
    say(g, &m, NULL, 0);
    told(g, "targets 1 of 1, last web01");
    drive(g, "t");
    heard(g, LINK_TARGETS, NULL);
    m = (struct link_message){.type = LINK_TARGET_LIST};
    say(g, &m, NULL, 0);
    told(g, "targets 0 of 0, last -");
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

/* One letter that says something before "did". */
static void ask(struct rig *g, const char *letter, const char *answer)
{
    char line[16];

    assert_int_equal(write(g->client, letter, 1), 1);
    told(g, answer);
    snprintf(line, sizeof(line), "did %s", letter);
    told(g, line);
}

static void answer_door(struct rig *g, bool is_ok, size_t fd_count)
{
    struct link_message m = {.type = LINK_DOOR_RESULT};
    int fds[3] = {-1, -1, -1};

    m.door_result.channel = 3;
    m.door_result.is_ok = is_ok;
    m.door_result.exit_status = is_ok ? 0 : 2;
    text_copy(m.door_result.text, sizeof(m.door_result.text), is_ok ? "" : "no such word");
    for (size_t i = 0; i < fd_count; i++)
        fds[i] = memfd_create("door", MFD_CLOEXEC);
    say(g, &m, fds, fd_count);
    for (size_t i = 0; i < fd_count; i++)
        close(fds[i]);
}

static void doors_are_asked_for_once_more_and_closed(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid());
    struct link_message m = {.type = LINK_DOOR_EXIT};

    (void)unused;
    rig_meet(g);
    rig_log_in(g);
    ask(g, "d", "door 1");
    heard(g, LINK_DOOR, NULL);
    assert_int_equal(g->m.door.change, LINK_DOOR_OPEN);
    assert_string_equal(g->m.door.command, "sessions");
    lose_broker(g); /* not answered yet: asked again */
    told(g, "lost");
    adopt(g, LINK_PHASE_CHOOSING, NULL);
    welcome(g, 3600);
    heard(g, LINK_DOOR, NULL);
    answer_door(g, true, 3);
    told(g, "door 3 ok=1 status=0 fds=111 ");
    drive(g, "D");
    heard(g, LINK_DOOR, NULL);
    assert_int_equal(g->m.door.change, LINK_DOOR_RESIZE);
    assert_int_equal(g->m.door.cols, 100);
    m.door_exit.channel = 3;
    m.door_exit.exit_status = 7;
    say(g, &m, NULL, 0);
    told(g, "door 3 over, status 7");
    drive(g, "x");
    heard(g, LINK_DOOR, NULL);
    assert_int_equal(g->m.door.change, LINK_DOOR_CLOSE);
    lose_broker(g); /* answered and closed: not again */
    told(g, "lost");
    adopt(g, LINK_PHASE_CHOOSING, NULL);
    welcome(g, 3600);
    drive(g, "t");
    heard(g, LINK_TARGETS, NULL);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void a_closed_door_takes_no_answer(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid());
    struct link_message m = {.type = LINK_NOTICE};

    (void)unused;
    rig_meet(g);
    rig_log_in(g);
    ask(g, "d", "door 1");
    heard(g, LINK_DOOR, NULL);
    drive(g, "x");
    heard(g, LINK_DOOR, NULL);
    answer_door(g, true, 3); /* too late: its descriptors are closed, nobody is told */
    m.notice.kind = LINK_NOTICE_MESSAGE;
    text_copy(m.notice.text, sizeof(m.notice.text), "read so far");
    say(g, &m, NULL, 0);
    told(g, "notice 1 read so far");
    ask(g, "d", "door 1");
    heard(g, LINK_DOOR, NULL);
    answer_door(g, true, 0); /* says yes, and brings nothing */
    told(g, "door 3 ok=0 status=1 fds=000 sallyport: the command was not started");
    ask(g, "d", "door 1");
    heard(g, LINK_DOOR, NULL);
    answer_door(g, false, 3); /* says no, and brings something */
    told(g, "door 3 ok=0 status=2 fds=000 no such word");
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void a_session_can_be_given_back(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_start(true, 60, getuid());
    struct link_message m = {.type = LINK_BACK_RESULT};

    (void)unused;
    rig_meet(g);
    rig_log_in(g);
    ask(g, "b", "back 0"); /* there is none */
    drive(g, "r");
    heard(g, LINK_ROUTE, NULL);
    answer_route(g, &p);
    ask(g, "b", "back 1");
    heard(g, LINK_BACK, NULL);
    assert_string_equal(g->m.back.text, "web01 said no");
    m.back_result.ticket.len = 8;
    memcpy(m.back_result.ticket.data, "ticket-3", 8);
    say(g, &m, NULL, 0);
    told(g, "back, session=0");
    lose_broker(g);
    adopt(g, LINK_PHASE_CHOOSING, NULL); /* without a page, and with the newest ticket */
    assert_int_equal(g->m.hello.session_id, 0);
    assert_memory_equal(g->m.hello.ticket.data, "ticket-3", 8);
    welcome(g, 3600);
    rig_route(g, &p);
    ask(g, "b", "back 0"); /* it has begun */
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void recordings_have_reserved_numbers(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);
    struct link_message m = {.type = LINK_RECORDING};
    char line[64];
    int fd = memfd_create("recording", MFD_CLOEXEC);

    (void)unused;
    drive(g, "o");
    heard(g, LINK_RECORD_OPEN, NULL);
    m.recording.channel = 1;
    m.recording.verdict = LINK_RECORD_YES;
    say(g, &m, &fd, 1);
    snprintf(line, sizeof(line), "recording 1 verdict=%d fd=%d", LINK_RECORD_YES,
             SANDBOX_FD_RECORDING);
    told(g, line);
    drive(g, "O");
    heard(g, LINK_RECORD_OPEN, NULL);
    m.recording.channel = 2;
    say(g, &m, NULL, 0); /* yes, but with nothing to write to */
    snprintf(line, sizeof(line), "recording 2 verdict=%d fd=-1", LINK_RECORD_REFUSED);
    told(g, line);
    close(fd);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void send_end(struct rig *g, uint32_t deadline_ms)
{
    struct link_message m = {.type = LINK_END};

    m.end.reason = END_ADMIN_ENDED;
    m.end.deadline_ms = deadline_ms;
    text_copy(m.end.author, sizeof(m.end.author), "admin root");
    text_copy(m.end.text, sizeof(m.end.text), "You have been disconnected: by root");
    say(g, &m, NULL, 0);
}

static void end_wins(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);

    (void)unused;
    send_end(g, 1000);
    told(g, "end You have been disconnected: by root");
    heard(g, LINK_FRAME, NULL);
    heard(g, LINK_CLOSED, NULL);
    assert_int_equal(g->m.closed.reason, END_ADMIN_ENDED);
    assert_string_equal(g->m.closed.author, "admin root");
    assert_string_equal(g->m.closed.text, "You have been disconnected: by root");
    acknowledge(g);
    rig_stop(g);
}

static void end_does_not_wait_for_ever(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);

    (void)unused;
    drive(g, "z");
    send_end(g, 200);
    told(g, "end You have been disconnected: by root");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_ADMIN_ENDED);
}

static void sigterm_is_shutdown(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);

    (void)unused;
    assert_int_equal(kill(g->pid, SIGTERM), 0);
    told(g, "end You have been disconnected: Sallyport is shutting down");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_SHUTDOWN);
}

static void closed_waits_for_a_broker(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);
    char byte;

    (void)unused;
    lose_broker(g);
    drive(g, "iq");
    await_readable(g->client);
    assert_int_equal(read(g->client, &byte, 1), 0); /* the client is let go at once */
    adopt(g, LINK_PHASE_ENDED, NULL);
    assert_int_equal(g->m.hello.session_id, 42);
    lose_broker(g); /* and this one dies before it has answered */
    adopt(g, LINK_PHASE_ENDED, NULL);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL);
    heard(g, LINK_FRAME, NULL);
    heard(g, LINK_CLOSED, NULL);
    assert_int_equal(g->m.closed.bytes_in, 10);
    assert_int_equal(g->m.closed.reason, END_USER_EXIT);
    acknowledge(g);
    rig_stop(g);
}

static void login_without_broker_ends_with_nobody_to_tell(void **unused)
{
    struct rig *g = rig_start(false, 1, getuid());
    char byte;

    (void)unused;
    assert_int_equal(write(g->client, "x", 1), 1);
    await_readable(g->client);
    assert_int_equal(read(g->client, &byte, 1) <= 0, 1); /* login grace */
    assert_int_equal(*g->spoken, 1);
    rig_stop(g);
}

static void waits_for_its_first_broker(void **unused)
{
    struct rig *g = rig_start(false, 60, getuid());

    (void)unused;
    adopt(g, LINK_PHASE_LOGIN, NULL);
    welcome(g, 3600);
    told(g, "start 6");
    rig_log_in(g);
    close(g->client);
    g->client = dup(STDERR_FILENO);
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_NETWORK_LOST);
}

static void client_that_leaves_early_is_noticed(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid());

    (void)unused;
    heard(g, LINK_HELLO, NULL);
    shutdown(g->client, SHUT_WR);
    welcome(g, 3600);
    /* either before or after WELCOME: CLOSED comes */
    for (;;) {
        int fds[LINK_FDS_MAX];

        await_readable(g->link);
        assert_int_equal(link_receive(g->link, &g->m, fds), 0);
        if (g->m.type == LINK_CLOSED)
            break;
    }
    assert_int_equal(g->m.closed.reason, END_NETWORK_LOST);
    acknowledge(g);
    rig_stop(g);
}

static void only_the_broker_adopts(void **unused)
{
    struct rig *g = rig_start(true, 60, getuid() + 1);
    int stranger = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    char byte;

    (void)unused;
    rig_meet(g);
    assert_int_equal(connect(stranger, (struct sockaddr *)&g->adoption, g->adoption_len), 0);
    await_readable(stranger);
    assert_int_equal(read(stranger, &byte, 1), 0);
    close(stranger);
    rig_log_in(g); /* the true link is untouched */
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void newest_broker_wins(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);
    int old = g->link, fds[LINK_FDS_MAX];

    (void)unused;
    adopt(g, LINK_PHASE_SESSION, NULL);
    await_readable(old);
    assert_int_equal(link_receive(old, &g->m, fds), ERR_CLOSED);
    close(old);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void speaks_what_the_broker_speaks(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_start(true, 60, getuid());

    (void)unused;
    heard(g, LINK_HELLO, NULL);
    assert_int_equal(g->m.version, LINK_VERSION);
    g->version = LINK_VERSION_MIN;
    welcome(g, 3600);
    told(g, "start 6");
    rig_log_in(g);
    assert_int_equal(g->m.version, LINK_VERSION_MIN);
    rig_route(g, &p);
    assert_string_equal(g->m.ready.target_version, ""); /* not in version 1 */
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void events_are_dropped_and_counted(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);
    int noise = 0;

    (void)unused;
    lose_broker(g);
    drive(g, "ceC");
    adopt(g, LINK_PHASE_SESSION, NULL);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL);
    heard(g, LINK_CHANNEL, NULL);
    assert_int_equal(g->m.channel.change, LINK_CHANNEL_OPENED);
    for (;; noise++) {
        int fds[LINK_FDS_MAX];

        await_readable(g->link);
        assert_int_equal(link_receive(g->link, &g->m, fds), 0);
        if (g->m.type != LINK_EVENT)
            break;
        assert_string_equal(g->m.event.kind, "noise");
    }
    assert_int_equal(g->m.type, LINK_CHANNEL);
    assert_int_equal(g->m.channel.change, LINK_CHANNEL_CLOSED);
    heard(g, LINK_EVENT, NULL);
    assert_string_equal(g->m.event.kind, "events-lost");
    assert_int_equal(strtol(g->m.event.text, NULL, 10) + noise, 300);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void resumes_are_said(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 3600);

    (void)unused;
    assert_true(activity_flag(g->page, ACTIVITY_FLAG_IDLE, clock_mono_ms()));
    drive(g, "i");
    heard(g, LINK_RESUMED, NULL);
    activity_unflag(g->page, ACTIVITY_FLAG_IDLE);
    drive(g, "+");
    assert_int_equal(atomic_load(&g->page->holds_active), 1);
    drive(g, "-");
    assert_int_equal(atomic_load(&g->page->holds_active), 0);
    drive(g, "q");
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_USER_EXIT);
}

static void narrowed_relay_goes_on(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g;

    (void)unused;
    g = rig_session(&p, 3600);
    drive(g, "n"); /* as root this needs no no_new_privs, as a user it fails: both must end well */
    if (geteuid() == 0) {
        lose_broker(g);
        drive(g, "i");
        adopt(g, LINK_PHASE_SESSION, NULL);
        welcome(g, 3600);
        heard(g, LINK_READY, NULL);
        drive(g, "q");
        heard(g, LINK_FRAME, NULL);
        rig_closed(g, END_USER_EXIT);
        return;
    }
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_RELAY_CRASHED);
}

/* ---- alone ---- */

static void slow_alone_it_warns_and_ends_idle(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g;

    (void)unused;
    p.warn_after = 1;
    p.disconnect_after = 2;
    g = rig_session(&p, 3600);
    lose_broker(g);
    told(g, "notice 0 Idle for 1 second: you will be disconnected in 1 second unless you press a "
            "key.");
    drive(g, "i"); /* a key: warned anew, from here */
    told(g, "notice 0 Idle for 1 second: you will be disconnected in 1 second unless you press a "
            "key.");
    told(g, "end You have been disconnected: idle for 2 seconds");
    adopt(g, LINK_PHASE_ENDED, NULL);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL);
    heard(g, LINK_EVENT, NULL);
    assert_string_equal(g->m.event.kind, "idle-warning");
    heard(g, LINK_EVENT, NULL);
    heard(g, LINK_FRAME, NULL);
    heard(g, LINK_CLOSED, NULL);
    assert_int_equal(g->m.closed.reason, END_IDLE_TIMEOUT);
    assert_string_equal(g->m.closed.author, "policy");
    acknowledge(g);
    rig_stop(g);
}

static void slow_alone_for_too_long(void **unused)
{
    struct policy p = plain_policy();
    struct rig *g = rig_session(&p, 1);

    (void)unused;
    lose_broker(g);
    told(g, "end You have been disconnected: Sallyport's broker has been away for 1 second");
    adopt(g, LINK_PHASE_ENDED, NULL);
    welcome(g, 3600);
    heard(g, LINK_READY, NULL);
    heard(g, LINK_FRAME, NULL);
    rig_closed(g, END_BROKER_LOST);
}

static const struct {
    const char *what;
    int64_t last_s, warned_s, now_s;
    uint32_t lost_after_s;
    uint64_t warn, idle, longest;
    enum alone_verdict verdict;
    int64_t wake_s; /* -1: never, -2: does not matter */
} lonely[] = {
    /* since 1000, started 500 */
    {"nothing is limited", 900, 0, 99999, 0, 0, 0, 0, ALONE_WAIT, -1},
    {"nearest is the warning", 1000, 0, 1100, 3600, 600, 1800, 0, ALONE_WAIT, 1600},
    {"time to warn", 1000, 0, 1600, 3600, 600, 1800, 0, ALONE_WARN, -2},
    {"warned already", 1000, 1000, 1600, 3600, 600, 1800, 0, ALONE_WAIT, 2800},
    {"typed since the warning", 1500, 1000, 1600, 3600, 600, 1800, 0, ALONE_WAIT, 2100},
    {"idle", 1000, 1000, 2800, 3600, 600, 1800, 0, ALONE_END_IDLE, -2},
    {"nobody warns without an end", 1000, 0, 1600, 3600, 600, 0, 0, ALONE_WARN, -2},
    {"a warning after the end", 1000, 0, 1100, 3600, 900, 600, 0, ALONE_WAIT, 1600},
    {"too long alone", 4500, 0, 4600, 3600, 600, 1800, 0, ALONE_END_BROKER_LOST, -2},
    {"maximum before all", 1000, 0, 9000, 3600, 600, 1800, 7200, ALONE_END_MAX_DURATION, -2},
    {"maximum is near", 1650, 0, 1660, 3600, 600, 1800, 1200, ALONE_WAIT, 1700},
};

static void alone_table(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(lonely); i++) {
        struct policy p = {.warn_after = lonely[i].warn,
                           .disconnect_after = lonely[i].idle,
                           .max_duration = lonely[i].longest};
        struct alone_view v = {.since_ms = 1000 * 1000,
                               .started_ms = 500 * 1000,
                               .last_ms = lonely[i].last_s * 1000,
                               .warned_for_ms = lonely[i].warned_s * 1000,
                               .broker_lost_after_s = lonely[i].lost_after_s,
                               .policy = &p};
        int64_t wake_ms;
        enum alone_verdict verdict = alone_check(&v, lonely[i].now_s * 1000, &wake_ms);

        if (verdict != lonely[i].verdict)
            print_error("%s\n", lonely[i].what);
        assert_int_equal(verdict, lonely[i].verdict);
        if (lonely[i].wake_s >= -1)
            assert_int_equal(wake_ms, lonely[i].wake_s < 0 ? ALONE_NEVER : lonely[i].wake_s * 1000);
    }
}

static void alone_sentences(void **unused)
{
    struct policy p = {.warn_after = 600, .disconnect_after = 1800, .max_duration = 14400};
    struct alone_view v = {.policy = &p, .broker_lost_after_s = 3600};
    char s[SESSION_TEXT_MAX];

    (void)unused;
    assert_string_equal(alone_sentence(s, sizeof(s), ALONE_WARN, &v),
                        "Idle for 10 minutes: you will be disconnected in 20 minutes unless you "
                        "press a key.");
    assert_string_equal(alone_sentence(s, sizeof(s), ALONE_END_IDLE, &v),
                        "You have been disconnected: idle for 30 minutes");
    assert_string_equal(alone_sentence(s, sizeof(s), ALONE_END_MAX_DURATION, &v),
                        "You have been disconnected: the maximum duration of 4 hours is reached");
    assert_string_equal(alone_sentence(s, sizeof(s), ALONE_END_BROKER_LOST, &v),
                        "You have been disconnected: Sallyport's broker has been away for 1 hour");
    p.disconnect_after = 0;
    assert_string_equal(alone_sentence(s, sizeof(s), ALONE_WARN, &v), "Idle for 10 minutes.");
}

/* ---- the outbox ---- */

static void put(struct outbox *o, enum link_type type, uint32_t channel, enum outbox_kind kind,
                int expected)
{
    struct link_message m = {.type = (uint8_t)type};

    if (type == LINK_FRAME)
        m.frame.channel = channel;
    else if (type == LINK_CHANNEL)
        m.channel.channel = channel;
    else if (type == LINK_RECORD_OPEN)
        m.record_open.channel = channel;
    assert_int_equal(outbox_put(o, &m, kind), expected);
}

static void send_all(struct outbox *o)
{
    struct outbox_item *item;

    while ((item = outbox_next(o)))
        outbox_sent(o, item);
}

static void outbox_keeps_what_matters(void **unused)
{
    struct outbox o;

    (void)unused;
    outbox_init(&o);
    for (uint32_t i = 1; i <= 200; i++)
        put(&o, LINK_CHANNEL, i, OUTBOX_KEPT, 0);
    for (int i = 0; i < 500; i++)
        put(&o, LINK_EVENT, 0, OUTBOX_EVENT, 0);
    assert_int_equal(o.count, OUTBOX_SOFT_MAX);
    assert_int_equal(outbox_take_lost(&o), 200 + 500 - OUTBOX_SOFT_MAX);
    assert_int_equal(outbox_take_lost(&o), 0);
    for (uint32_t i = 0; i < 2000; i++)
        put(&o, LINK_CHANNEL, i, OUTBOX_KEPT, 0);
    assert_int_equal(o.count, OUTBOX_HARD_MAX);
    assert_int_equal(outbox_next(&o)->type, LINK_CHANNEL);
    outbox_finish(&o);
}

static void outbox_never_drops_requests(void **unused)
{
    struct outbox o;

    (void)unused;
    outbox_init(&o);
    for (uint32_t i = 1; i <= OUTBOX_HARD_MAX; i++)
        put(&o, LINK_RECORD_OPEN, i, OUTBOX_REQUEST, 0);
    put(&o, LINK_EVENT, 0, OUTBOX_EVENT, ERR_FULL);
    put(&o, LINK_RECORD_OPEN, 5000, OUTBOX_REQUEST, ERR_FULL);
    send_all(&o);
    assert_int_equal(o.count, OUTBOX_HARD_MAX);
    assert_true(outbox_answer(&o, LINK_RECORD_OPEN, 700, NULL));
    assert_false(outbox_answer(&o, LINK_RECORD_OPEN, 700, NULL));
    assert_false(outbox_answer(&o, LINK_ROUTE, 0, NULL));
    outbox_finish(&o);
}

static void outbox_repeats_the_newest(void **unused)
{
    struct outbox o;
    struct outbox_item *item;
    size_t again = 0;

    (void)unused;
    outbox_init(&o);
    put(&o, LINK_FRAME, 1, OUTBOX_LATEST, 0);
    put(&o, LINK_FRAME, 1, OUTBOX_LATEST, 0);
    put(&o, LINK_EVENT, 0, OUTBOX_EVENT, 0);
    assert_int_equal(o.count, 2);
    send_all(&o);
    assert_int_equal(o.count, 1);
    outbox_rewind(&o);
    item = outbox_next(&o);
    assert_non_null(item);
    assert_int_equal(item->type, LINK_FRAME);
    for (uint32_t i = 0; i < 300; i++) {
        put(&o, LINK_FRAME, i, OUTBOX_LATEST, 0);
        send_all(&o);
    }
    assert_int_equal(o.count, OUTBOX_LATEST_MAX);
    outbox_rewind(&o);
    while ((item = outbox_next(&o))) {
        assert_int_equal(item->channel, 300 - OUTBOX_LATEST_MAX + again++);
        outbox_sent(&o, item);
    }
    outbox_finish(&o);
}

/* A session that was given back: a later broker would take what was left of it for nonsense. */
static void outbox_forgets_a_session(void **unused)
{
    struct outbox o;

    (void)unused;
    outbox_init(&o);
    put(&o, LINK_FRAME, 1, OUTBOX_LATEST, 0);
    put(&o, LINK_RECORD_OPEN, 1, OUTBOX_REQUEST, 0);
    put(&o, LINK_EVENT, 0, OUTBOX_EVENT, 0);
    put(&o, LINK_TARGETS, 0, OUTBOX_REQUEST, 0);
    outbox_forget_session(&o);
    assert_int_equal(o.count, 2);
    assert_int_equal(outbox_next(&o)->type, LINK_EVENT);
    assert_false(outbox_answer(&o, LINK_RECORD_OPEN, 0, NULL));
    assert_true(outbox_answer(&o, LINK_TARGETS, 0, NULL));
    outbox_finish(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_life),
        cmocka_unit_test(failed_attempts_are_counted),
        cmocka_unit_test(requests_are_repeated),
        cmocka_unit_test(page_goes_to_the_next_broker),
        cmocka_unit_test(targets_come_as_one),
        cmocka_unit_test(doors_are_asked_for_once_more_and_closed),
        cmocka_unit_test(a_closed_door_takes_no_answer),
        cmocka_unit_test(a_session_can_be_given_back),
        cmocka_unit_test(recordings_have_reserved_numbers),
        cmocka_unit_test(end_wins),
        cmocka_unit_test(end_does_not_wait_for_ever),
        cmocka_unit_test(sigterm_is_shutdown),
        cmocka_unit_test(closed_waits_for_a_broker),
        cmocka_unit_test(login_without_broker_ends_with_nobody_to_tell),
        cmocka_unit_test(waits_for_its_first_broker),
        cmocka_unit_test(client_that_leaves_early_is_noticed),
        cmocka_unit_test(only_the_broker_adopts),
        cmocka_unit_test(newest_broker_wins),
        cmocka_unit_test(speaks_what_the_broker_speaks),
        cmocka_unit_test(events_are_dropped_and_counted),
        cmocka_unit_test(resumes_are_said),
        cmocka_unit_test(narrowed_relay_goes_on),
        cmocka_unit_test(slow_alone_it_warns_and_ends_idle),
        cmocka_unit_test(slow_alone_for_too_long),
        cmocka_unit_test(alone_table),
        cmocka_unit_test(alone_sentences),
        cmocka_unit_test(outbox_keeps_what_matters),
        cmocka_unit_test(outbox_never_drops_requests),
        cmocka_unit_test(outbox_repeats_the_newest),
        cmocka_unit_test(outbox_forgets_a_session),
    };

    signal(SIGPIPE, SIG_IGN);
    close_range(3, ~0u, 0); /* the reserved numbers must be free */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
