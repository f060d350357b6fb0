/*
 * The gate: start-up as the broker asks for it, the loop, and the link to the broker. Connections
 * are visitors.c's, who may come in is parking.c's, and the child after fork() is birth.c's. The
 * gate lives as long as its link: when that closes it leaves, and its relays live on.
 */
#include "proxy/gate/gate.h"

#include <errno.h>
#include <event2/event.h>
#include <getopt.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/gate/gate_priv.h"

#define STATUS_EVERY_MS 1000
#define MESSAGES_A_TURN 64

static struct gate the_gate; /* large, and there is one */

void gate_leave(struct gate *g, int status)
{
    g->is_leaving = true;
    g->exit_status = status;
    event_base_loopbreak(g->base);
}

/* ---- what we say ---- */

static void say(struct gate *g)
{
    int r = link_send(GATE_LINK_FD, &g->out, g->link_version, NULL, 0);

    if (r == ERR_CLOSED)
        gate_leave(g, 0);
    else if (r < 0) /* a status that is not said now is said with the next change */
        log_debug("%s is not said: %s", link_type_name(g->out.type), error_text(r));
}

static void say_status(struct gate *g)
{
    struct link_gate_status *s = &g->out.gate_status;

    g->out.type = LINK_GATE_STATUS;
    s->unauthenticated = parking_forked_count(g->parking);
    s->parked = parking_parked_count(g->parking);
    s->accepted = g->accepted;
    s->evicted = g->evicted;
    g->status_ms = clock_mono_ms();
    g->is_status_due = false;
    say(g);
}

static void status_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    say_status(arg);
}

void gate_status_changed(struct gate *g)
{
    int64_t wait_ms = g->status_ms + STATUS_EVERY_MS - clock_mono_ms();
    struct timeval in;

    if (g->is_status_due || !g->is_ready)
        return;
    g->is_status_due = true;
    if (wait_ms < 0)
        wait_ms = 0;
    in.tv_sec = wait_ms / 1000;
    in.tv_usec = wait_ms % 1000 * 1000;
    event_add(g->status_timer, &in);
}

/* ---- what the broker says ---- */

static int on_key(struct gate *g, struct link_message *m, int *fds)
{
    int r;

    (void)fds;
    if (g->is_ready)
        return ERR_INVALID; /* new keys come with a new gate */
    r = g->protocol->load_key((const char *)m->gate_key.key.data, m->gate_key.key.len);
    if (r == 0)
        g->key_count++;
    return r;
}

static int on_config(struct gate *g, struct link_message *m, int *fds)
{
    (void)fds;
    g->config = m->gate_config;
    visitors_set_limits(g);
    return 0;
}

/* Everything that needs files is loaded before the root is entered. */
static int get_ready(struct gate *g)
{
    char err[512];
    int r;

    if (g->key_count == 0) {
        log_error("there is no host key");
        return ERR_INVALID;
    }
    r = g->protocol->prepare ? g->protocol->prepare() : 0;
    if (r == 0)
        r = sandbox_prepare();
    if (r < 0)
        return r;
    r = sandbox_enter_gate(&g->sandbox, err, sizeof(err));
    if (r < 0) {
        log_error("%s", err);
        return r;
    }
    malloc_trim(0); /* every relay inherits what is left */
    g->is_ready = true;
    g->out.type = LINK_GATE_READY;
    g->out.gate_ready.pid = (uint32_t)getpid();
    say(g);
    return 0;
}

static int on_listen(struct gate *g, struct link_message *m, int *fds)
{
    int r = visitors_listen(g, fds, m->gate_listen.count);

    if (r == 0 && !g->is_ready) {
        r = get_ready(g);
        if (r == 0)
            visitors_update_accepting(g);
    }
    return r;
}

static int on_settled(struct gate *g, struct link_message *m, int *fds)
{
    (void)fds;
    visitors_settled(g, (int)m->gate_settled.pid);
    return 0;
}

/* One that cannot be forked is the client's loss, who sees it closed, and no reason to leave. */
static int on_jump(struct gate *g, struct link_message *m, int *fds)
{
    if (!g->is_ready || fds[0] < 0)
        return ERR_INVALID;
    if (visitors_jump(g, fds[0], &m->gate_jump) < 0)
        log_error("a jump cannot be taken: %s", strerror(errno));
    return 0;
}

static const struct {
    enum link_type type;
    int (*run)(struct gate *g, struct link_message *m, int *fds);
} handlers[] = {
    {LINK_GATE_KEY, on_key},         {LINK_GATE_CONFIG, on_config}, {LINK_GATE_LISTEN, on_listen},
    {LINK_GATE_SETTLED, on_settled}, {LINK_GATE_JUMP, on_jump},
};

static int dispatch(struct gate *g, int *fds)
{
    for (size_t i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
        if (handlers[i].type == g->in.type)
            return handlers[i].run(g, &g->in, fds);
    return ERR_INVALID;
}

static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gate *g = arg;
    int fds[LINK_FDS_MAX];

    (void)what;
    for (int i = 0; i < MESSAGES_A_TURN && !g->is_leaving; i++) {
        int r = link_receive(fd, &g->in, fds);
        uint8_t type = g->in.type;

        if (r == ERR_AGAIN)
            return;
        if (r < 0) {
            log_debug("the broker's link is over: %s", error_text(r));
            gate_leave(g, r == ERR_CLOSED ? 0 : 1);
            return;
        }
        g->link_version = g->in.version;
        r = dispatch(g, fds);
        link_message_wipe(&g->in); /* host keys */
        link_close_fds(fds);
        if (r < 0) {
            log_error("%s: %s", link_type_name(type), error_text(r));
            gate_leave(g, 1);
        }
    }
}

/* ---- timers and signals ---- */

static void step_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    visitors_step(arg);
}

static void pause_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gate *g = arg;

    (void)fd, (void)what;
    g->is_paused = false;
    visitors_update_accepting(g);
    visitors_step(g);
}

/* Signals come by descriptor: libevent's own handling is left to the relays' loops. */
static void signal_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gate *g = arg;
    struct signalfd_siginfo info;
    bool has_children = false;

    (void)what;
    while (read(fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD)
            has_children = true;
        else
            gate_leave(g, 0);
    }
    if (has_children)
        visitors_reap(g);
}

static int take_signals(struct gate *g)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the broker */
    signal(SIGHUP, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    if (sigprocmask(SIG_BLOCK, &set, &g->old_mask) < 0)
        return -1;
    sigdelset(&g->old_mask, SIGTERM);
    sigdelset(&g->old_mask, SIGCHLD);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void libevent_log(int severity, const char *text)
{
    log_write(severity >= EVENT_LOG_WARN ? LOG_LEVEL_WARN : LOG_LEVEL_DEBUG, "libevent: %s", text);
}

/* ---- start ---- */

static const struct option options[] = {
    {"gate", no_argument, NULL, 'G'},
    {"run-dir", required_argument, NULL, 'd'},
    {"root", required_argument, NULL, 'r'},
    {"relay-uid", required_argument, NULL, 'u'},
    {"relay-gid", required_argument, NULL, 'g'},
    {"broker-uid", required_argument, NULL, 'b'},
    {"reduced", no_argument, NULL, 'R'},
    {NULL, 0, NULL, 0},
};

static bool parse_id(const char *text, uint32_t *id)
{
    uint64_t value;

    if (!text_parse_u64(text, &value) || value >= UINT32_MAX)
        return false;
    *id = (uint32_t)value;
    return true;
}

static bool take_option(struct gate *g, int option, const char *value, const char **run_dir)
{
    switch (option) {
    case 'G':
        return true;
    case 'd':
        *run_dir = value;
        return true;
    case 'r':
        g->sandbox.root_dir = value;
        return true;
    case 'u':
        g->sandbox.is_root = true;
        return parse_id(value, &g->sandbox.relay_uid);
    case 'g':
        return parse_id(value, &g->sandbox.relay_gid);
    case 'b':
        return parse_id(value, &g->broker_uid);
    case 'R':
        g->sandbox.is_reduced = true;
        return true;
    default:
        return false;
    }
}

static bool parse_arguments(struct gate *g, int argc, char **argv)
{
    const char *run_dir = NULL;
    int option;

    g->broker_uid = UINT32_MAX;
    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0)
        if (!take_option(g, option, optarg, &run_dir))
            return false;
    if (optind != argc || !run_dir || !g->sandbox.root_dir || g->broker_uid == UINT32_MAX ||
        (g->sandbox.is_root && g->sandbox.relay_gid == 0))
        return false;
    if (chdir(run_dir) < 0)
        die("cannot enter %s: %s", run_dir, strerror(errno));
    return true;
}

/* The log is opened before anything else so that its socket's number is known. */
static void open_log(struct gate *g, const char *name)
{
    static char program[32];
    struct stat st;
    int next = dup(STDERR_FILENO);
    bool is_syslog;

    snprintf(program, sizeof(program), "sallyport-%s", name);
    if (next >= 0)
        close(next);
    is_syslog = log_open_as_told(program) == LOG_SINK_SYSLOG;
    g->log_fd = is_syslog && next >= 0 && fstat(next, &st) == 0 && S_ISSOCK(st.st_mode) ? next : -1;
}

static void raise_descriptors(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        if (files.rlim_max < SANDBOX_FD_RECORDING + SANDBOX_FD_RECORDING_COUNT)
            log_warn("only %llu descriptors are allowed: sessions cannot be recorded; raise the "
                     "limit (LimitNOFILE, ulimit -n) to 1024 or more",
                     (unsigned long long)files.rlim_max);
    }
}

static bool build(struct gate *g)
{
    struct parking_limits none = {0};
    uint64_t seed = 0;
    int signals = take_signals(g);

    if (getrandom(&seed, sizeof(seed), 0) < 0)
        seed = (uint64_t)clock_mono_ms();
    for (size_t i = 0; i < LINK_FDS_MAX; i++)
        g->listeners[i].fd = -1;
    g->link_version = LINK_VERSION;
    greetings_init(g);
    event_set_log_callback(libevent_log);
    g->parking = parking_create(&none, seed);
    g->base = event_base_new();
    if (signals < 0 || !g->parking || !g->base)
        return false;
    g->link_event = event_new(g->base, GATE_LINK_FD, EV_READ | EV_PERSIST, link_cb, g);
    g->signal_event = event_new(g->base, signals, EV_READ | EV_PERSIST, signal_cb, g);
    g->step_timer = event_new(g->base, -1, 0, step_cb, g);
    g->pause_timer = event_new(g->base, -1, 0, pause_cb, g);
    g->status_timer = event_new(g->base, -1, 0, status_cb, g);
    return g->link_event && g->signal_event && g->step_timer && g->pause_timer && g->status_timer &&
           event_add(g->link_event, NULL) == 0 && event_add(g->signal_event, NULL) == 0;
}

static void destroy(struct gate *g)
{
    struct event *events[] = {g->link_event, g->signal_event, g->step_timer, g->pause_timer,
                              g->status_timer};

    visitors_destroy(g);
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (events[i])
            event_free(events[i]);
    if (g->base)
        event_base_free(g->base);
}

int gate_main(int argc, char **argv, const struct gate_protocol *p)
{
    struct gate *g = &the_gate;

    memset(g, 0, sizeof(*g));
    g->protocol = p;
    open_log(g, p->relay->name);
    if (!parse_arguments(g, argc, argv)) {
        fprintf(stderr, "error: %s --gate is started by sallyportd, not by hand\n", argv[0]);
        return 2;
    }
    raise_descriptors();
    if (!build(g)) {
        log_error("out of memory");
        destroy(g);
        return 1;
    }
    while (!g->is_leaving)
        if (event_base_loop(g->base, EVLOOP_ONCE) < 0)
            gate_leave(g, 1);
    destroy(g);
    return g->exit_status;
}
