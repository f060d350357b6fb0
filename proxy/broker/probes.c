/*
 * One probe: find the way, dial, start the process, collect its steps, answer once. A process that
 * says nothing more is killed at the time limit. See probes.h.
 */
#include "proxy/broker/probes.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/dial.h"
#include "proxy/broker/hops.h"
#include "proxy/broker/program.h"
#include "tracker/store/store.h"

#define PROBES_MAX 8
#define ROWS_MAX   96
#define LOGIN_S    45 /* for all that the process does */
#define FIRST_HOP  1

static const char *const program_names[PROTOCOL_COUNT] = {
    [PROTOCOL_SSH] = "sallyport-ssh",
    [PROTOCOL_RDP] = "sallyport-rdp",
};

struct probe {
    TAILQ_ENTRY(probe) entry;
    struct probes *all; /* not owned */
    struct store_target target;
    struct hops hops;
    char account[ACCOUNT_MAX_LEN + 1];
    bool only_key;
    bool is_dialing; /* `dialed` will come */
    bool is_over;    /* answered; freed by the sweep once nothing refers to it */
    pid_t pid;       /* 0: not running */
    int link;
    struct event *readable, *timer;
    struct control_probe_row rows[ROWS_MAX];
    size_t count;
    char key_type[64];
    uint8_t key[LINK_KEY_MAX];
    size_t key_len;
    control_probed_fn done;
    void *arg;
};
TAILQ_HEAD(probe_list, probe);

struct probes {
    struct broker *broker; /* not owned */
    struct probe_list live, dead;
    struct event *sweep;
    size_t count;
    char programs[PROTOCOL_COUNT][512];
    struct link_message message; /* scratch: large */
};

/* ---- rows and the end ---- */

static const char *name_of(const struct probe *p, uint8_t hop)
{
    return hop >= FIRST_HOP && hop <= p->hops.count ? p->hops.at[hop - 1].name : p->target.name;
}

static void add_row(struct probe *p, uint8_t hop, enum link_probe_step step,
                    enum link_probe_result result, const char *text)
{
    struct control_probe_row *row = &p->rows[p->count];

    if (p->count == ROWS_MAX)
        return;
    p->count++;
    text_copy(row->target, sizeof(row->target), name_of(p, hop));
    row->step = (uint8_t)step;
    row->result = (uint8_t)result;
    text_copy(row->text, sizeof(row->text), text);
}

static void probe_free(struct probe *p)
{
    if (p->readable)
        event_free(p->readable);
    if (p->timer)
        event_free(p->timer);
    if (p->link >= 0)
        close(p->link);
    free(p);
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct probes *all = arg;
    struct probe *p = TAILQ_FIRST(&all->dead), *next;

    (void)fd, (void)what;
    for (; p; p = next) {
        next = TAILQ_NEXT(p, entry);
        if (p->is_dialing || p->pid > 0)
            continue; /* not answered, or not reaped */
        TAILQ_REMOVE(&all->dead, p, entry);
        probe_free(p);
    }
}

/* The one answer. */
static void finish(struct probe *p, bool is_ok)
{
    struct control_probe_report report = {
        .rows = p->rows, .count = p->count, .is_ok = is_ok, .key = p->key, .key_len = p->key_len};

    if (p->is_over)
        return;
    p->is_over = true;
    if (p->readable)
        event_del(p->readable);
    if (p->timer)
        event_del(p->timer);
    if (p->pid > 0)
        kill(p->pid, SIGKILL); /* not reaped yet, so the number is its own */
    TAILQ_REMOVE(&p->all->live, p, entry);
    TAILQ_INSERT_TAIL(&p->all->dead, p, entry);
    p->all->count--;
    event_active(p->all->sweep, 0, 0);
    text_copy(report.key_type, sizeof(report.key_type), p->key_type);
    p->done(&report, p->arg);
}

static void fail(struct probe *p, enum link_probe_step step, const char *text)
{
    add_row(p, p->hops.count ? FIRST_HOP : 0, step, PROBE_FAILED, text);
    finish(p, false);
}

/* ---- what the process says ---- */

static bool is_good(const struct probe *p)
{
    const struct control_probe_row *last = p->count ? &p->rows[p->count - 1] : NULL;

    return last && last->result != PROBE_FAILED;
}

/* False when that was all. */
static bool take_step(struct probe *p, const struct link_probe_step_msg *s)
{
    add_row(p, s->hop, (enum link_probe_step)s->step, (enum link_probe_result)s->result, s->text);
    if (s->step == PROBE_HOST_KEY && s->hop == 0 && s->key.len > 0) {
        text_copy(p->key_type, sizeof(p->key_type), s->key_type);
        memcpy(p->key, s->key.data, s->key.len);
        p->key_len = s->key.len;
    }
    return !s->is_last;
}

static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;
    struct link_message *m = &p->all->message;
    int fds[LINK_FDS_MAX];

    (void)what;
    while (!p->is_over) {
        int r = link_receive(fd, m, fds);

        if (r == ERR_AGAIN)
            return;
        if (r == 0)
            link_close_fds(fds);
        if (r < 0 || m->type != LINK_PROBE_STEP) {
            add_row(p, 0, PROBE_LOGIN, PROBE_FAILED,
                    "the process that tried it ended without an answer; see the log");
            finish(p, false);
        } else if (!take_step(p, &m->probe_step)) {
            finish(p, is_good(p));
        }
    }
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;

    (void)fd, (void)what;
    add_row(p, 0, PROBE_LOGIN, PROBE_FAILED, "it was not done in time");
    finish(p, false);
}

/* ---- the process ---- */

/* In the child; started as a gate is, so that it enters the same sandbox. */
static void probe_exec(const struct probes *all, enum protocol protocol, int link)
{
    struct program_sandbox sandbox;
    const char *argv[2 + PROGRAM_SANDBOX_MAX] = {program_names[protocol], "--probe"};

    program_put_sandbox(all->broker, &sandbox, argv, 2);
    program_become(all->broker, all->programs[protocol], argv, link);
}

static int spawn(struct probe *p)
{
    struct timeval limit = {LOGIN_S + 5, 0}; /* the process itself keeps LOGIN_S */
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    p->pid = fork();
    if (p->pid == 0)
        probe_exec(p->all, p->target.protocol, pair[1]);
    close(pair[1]);
    p->link = pair[0];
    if (p->pid < 0) {
        p->pid = 0;
        return ERR_SYSTEM;
    }
    (void)fcntl(p->link, F_SETFL, O_NONBLOCK);
    p->readable = event_new(p->all->broker->base, p->link, EV_READ | EV_PERSIST, link_cb, p);
    p->timer = event_new(p->all->broker->base, -1, 0, timer_cb, p);
    if (!p->readable || !p->timer || event_add(p->readable, NULL) < 0 ||
        event_add(p->timer, &limit) < 0)
        return ERR_MEMORY;
    return 0;
}

static int send_message(struct probe *p, const int *fds, size_t fd_count)
{
    int r = link_send(p->link, &p->all->message, LINK_VERSION, fds, fd_count);

    link_message_wipe(&p->all->message);
    return r;
}

static struct link_message *begin(struct probe *p, enum link_type type)
{
    memset(&p->all->message, 0, sizeof(p->all->message));
    p->all->message.type = (uint8_t)type;
    return &p->all->message;
}

static int send_hop(struct probe *p, const struct store_target *t, uint8_t number)
{
    struct store *store = p->all->broker->store;
    int pair[2], r = hops_fill(store, t, p->account, number, &begin(p, LINK_HOP)->hop);

    if (r < 0)
        return r;
    if (number == 0) {
        text_copy(p->all->message.hop.account, sizeof(p->all->message.hop.account), p->account);
        return send_message(p, NULL, 0);
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return ERR_SYSTEM;
    r = send_message(p, pair, 2);
    close(pair[0]);
    close(pair[1]);
    return r;
}

static int hand_over(struct probe *p, int fd)
{
    struct link_probe *start;
    int r = spawn(p);

    for (size_t i = 0; i < p->hops.count && r == 0; i++)
        r = send_hop(p, &p->hops.at[i], (uint8_t)(i + FIRST_HOP));
    if (r == 0)
        r = send_hop(p, &p->target, 0);
    if (r < 0)
        return r;
    start = &begin(p, LINK_PROBE)->probe;
    start->hops = (uint8_t)p->hops.count;
    start->only_key = p->only_key;
    start->timeout_s = LOGIN_S;
    return send_message(p, &fd, 1);
}

/* ---- reaching it ---- */

static void traced(enum dial_step step, bool is_ok, const char *text, void *arg)
{
    struct probe *p = arg;

    if (!p->is_over)
        add_row(p, p->hops.count ? FIRST_HOP : 0,
                step == DIAL_RESOLVED ? PROBE_RESOLVE : PROBE_CONNECT,
                is_ok ? PROBE_OK : PROBE_FAILED, text);
}

static void dialed(int fd, const char *text, void *arg)
{
    struct probe *p = arg;
    char sentence[128];
    int r;

    p->is_dialing = false;
    if (p->is_over) {
        event_active(p->all->sweep, 0, 0);
    } else if (fd < 0) {
        if (is_good(p) || p->count == 0) /* the last try has said it otherwise */
            fail(p, PROBE_CONNECT, text);
        finish(p, false);
    } else if ((r = hand_over(p, fd)) < 0) {
        snprintf(sentence, sizeof(sentence), "it cannot be tried: %s", error_text(r));
        fail(p, PROBE_BANNER, sentence);
    }
    if (fd >= 0)
        close(fd);
}

int probes_start(struct probes *all, const struct store_target *target, const char *account,
                 bool only_key, control_probed_fn done, void *arg)
{
    struct broker *b = all->broker;
    char sentence[SESSION_TEXT_MAX];
    struct probe *p;
    int r;

    if (!program_names[target->protocol])
        return ERR_INVALID;
    if (all->count >= PROBES_MAX)
        return ERR_FULL;
    if (!(p = calloc(1, sizeof(*p))))
        return ERR_MEMORY;
    p->all = all;
    p->link = -1;
    p->target = *target;
    p->only_key = only_key;
    p->done = done;
    p->arg = arg;
    text_copy(p->account, sizeof(p->account), account);
    if (hops_find(b->store, target, &p->hops, sentence, sizeof(sentence)) < 0) {
        p->hops.count = 0;
        text_copy(p->target.address, sizeof(p->target.address), "");
    }
    TAILQ_INSERT_TAIL(&all->live, p, entry);
    all->count++;
    if (!p->target.address[0]) {
        fail(p, PROBE_RESOLVE, sentence);
        return 0;
    }
    r = dial_traced(b->dialer, hops_address(&p->hops, &p->target), b->config->connect_timeout_s,
                    traced, dialed, p);
    p->is_dialing = r == 0;
    if (r < 0) {
        TAILQ_REMOVE(&all->live, p, entry);
        all->count--;
        probe_free(p);
    }
    return r;
}

/* ---- all of them ---- */

struct probes *probes_create(struct broker *b)
{
    struct probes *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->broker = b;
    TAILQ_INIT(&all->live);
    TAILQ_INIT(&all->dead);
    for (size_t i = 0; i < PROTOCOL_COUNT; i++)
        if (program_names[i])
            program_find(program_names[i], SALLYPORT_LIBEXECDIR, all->programs[i],
                         sizeof(all->programs[i]));
    all->sweep = event_new(b->base, -1, 0, sweep_cb, all);
    if (!all->sweep) {
        free(all);
        return NULL;
    }
    return all;
}

void probes_destroy(struct probes *all)
{
    struct probe *p;

    if (!all)
        return;
    while ((p = TAILQ_FIRST(&all->live)))
        fail(p, PROBE_CONNECT, "the proxy stops");
    while ((p = TAILQ_FIRST(&all->dead))) { /* the dialer is gone, and has told */
        TAILQ_REMOVE(&all->dead, p, entry);
        probe_free(p);
    }
    event_free(all->sweep);
    free(all);
}

static bool forget_pid(struct probe_list *list, pid_t pid)
{
    struct probe *p;

    TAILQ_FOREACH (p, list, entry) {
        if (p->pid == pid) {
            p->pid = 0; /* its link's end is what counts */
            return true;
        }
    }
    return false;
}

bool probes_reaped(struct probes *all, pid_t pid, int status)
{
    if (!all || (!forget_pid(&all->live, pid) && !forget_pid(&all->dead, pid)))
        return false;
    if (status != 0)
        log_debug("probe pid=%d ended with status %d", (int)pid, status);
    event_active(all->sweep, 0, 0);
    return true;
}
