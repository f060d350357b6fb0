/*
 * The gates: binds listeners, loads or makes host keys, starts the gate program and starts it again
 * when it dies. A gate that is gone costs no session; new connections wait in the listener's queue
 * until the next one accepts.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/door.h"
#include "proxy/broker/notify.h"
#include "tracker/tracker.h"

#define LISTENERS_MAX LINK_FDS_MAX
#define HOST_KEYS_MAX 8
#define GATE_LINK_FD  3
#define LISTEN_QUEUE  512

struct listener {
    char name[128]; /* as configured */
    int fd;
};

struct gates {
    struct broker *broker; /* not owned */
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    struct secret host_keys[HOST_KEYS_MAX];
    size_t host_key_count;
    char program[512];
    pid_t pid; /* 0: not running */
    int link;
    struct event *link_event;
    struct event *restart_timer;
    bool was_ready; /* once, since the broker started */
    struct link_gate_status status;
    struct link_message message; /* scratch */
};

/* ---- listeners ---- */

static int bind_one(const char *name, char *err, size_t err_len)
{
    struct sockaddr_storage addr;
    socklen_t len;
    int one = 1, zero = 0, fd;

    if (config_parse_listen(name, &addr, &len, err, err_len) < 0)
        return -1;
    fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && addr.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, (struct sockaddr *)&addr, len) == 0 && listen(fd, LISTEN_QUEUE) == 0)
        return fd;
    snprintf(err, err_len, "[ssh] listen: %s: %s%s", name, strerror(errno),
             errno == EADDRINUSE ? "; another program listens there, choose another port" : "");
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listener_take(struct gates *g, const char *name)
{
    for (size_t i = 0; i < g->listener_count; i++) {
        if (g->listeners[i].fd >= 0 && strcmp(g->listeners[i].name, name) == 0) {
            int fd = g->listeners[i].fd;
            g->listeners[i].fd = -1;
            return fd;
        }
    }
    return -1;
}

static void close_listeners(struct listener *rows, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (rows[i].fd >= 0)
            close(rows[i].fd);
}

int gates_bind(struct gates *g, const struct config *c, char *err, size_t err_len)
{
    struct listener fresh[LISTENERS_MAX];
    size_t count = 0, wanted = c->ssh_enabled ? c->ssh_listen.count : 0;
    bool is_taken[LISTENERS_MAX] = {false};

    if (g->broker->is_draining)
        wanted = 0; /* a load balancer sees the port closed */
    if (wanted > LISTENERS_MAX) {
        snprintf(err, err_len, "[ssh] listen: at most %d addresses", LISTENERS_MAX);
        return ERR_INVALID;
    }
    for (; count < wanted; count++) {
        struct listener *l = &fresh[count];

        text_copy(l->name, sizeof(l->name), c->ssh_listen.items[count]);
        l->fd = listener_take(g, l->name);
        is_taken[count] = l->fd >= 0;
        if (l->fd < 0)
            l->fd = bind_one(l->name, err, err_len);
        if (l->fd < 0)
            goto failed;
    }
    close_listeners(g->listeners, g->listener_count);
    memcpy(g->listeners, fresh, sizeof(fresh[0]) * count);
    g->listener_count = count;
    return 0;
failed: /* give back what was taken */
    for (size_t i = 0; i < count; i++) {
        if (!is_taken[i]) {
            close(fresh[i].fd);
            continue;
        }
        for (size_t n = 0; n < g->listener_count; n++)
            if (strcmp(g->listeners[n].name, fresh[i].name) == 0)
                g->listeners[n].fd = fresh[i].fd;
    }
    return ERR_SYSTEM;
}

/* ---- host keys ---- */

static int read_key(struct gates *g, const char *path, char *err, size_t err_len)
{
    struct secret *key = &g->host_keys[g->host_key_count];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, key->data, SECRET_MAX);

    if (n <= 0 || n == SECRET_MAX) {
        snprintf(err, err_len, "host key %s: %s%s", path,
                 n < 0 ? strerror(errno) : "not a private key",
                 n < 0 && errno == EACCES ? " (it is read as [proxy] user)" : "");
        if (fd >= 0)
            close(fd);
        return ERR_INVALID;
    }
    close(fd);
    key->len = (uint16_t)n;
    key->data[n] = '\0';
    g->host_key_count++;
    return 0;
}

/* `sallyport-ssh --keygen TYPE` writes a new key to its standard output: the broker links no SSH.
 */
static int make_key(const struct gates *g, const char *type, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int status = -1;
    pid_t pid;

    if (fd < 0)
        return ERR_SYSTEM;
    pid = fork();
    if (pid == 0) {
        dup2(fd, STDOUT_FILENO);
        execl(g->program, "sallyport-ssh", "--keygen", type, (char *)NULL);
        _exit(127);
    }
    if (pid > 0)
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            ;
    if (pid < 0 || status != 0 || fsync(fd) < 0) {
        close(fd);
        unlink(path);
        return ERR_SYSTEM;
    }
    close(fd);
    return 0;
}

static int load_host_keys(struct gates *g, char *err, size_t err_len)
{
    static const char *const types[] = {"ed25519", "rsa"};
    const struct config *c = g->broker->config;
    char path[512];
    int r;

    for (size_t i = 0; i < c->ssh_host_key.count && i < HOST_KEYS_MAX; i++)
        if ((r = read_key(g, c->ssh_host_key.items[i], err, err_len)) < 0)
            return r;
    if (g->host_key_count)
        return 0;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        snprintf(path, sizeof(path), "%s/ssh_host_%s_key", c->data_dir, types[i]);
        if (access(path, F_OK) < 0) {
            if (make_key(g, types[i], path) < 0) {
                snprintf(err, err_len, "host key %s cannot be made with %s --keygen", path,
                         g->program);
                return ERR_SYSTEM;
            }
            log_info("made host key %s", path);
        }
        if ((r = read_key(g, path, err, err_len)) < 0)
            return r;
    }
    return 0;
}

/* ---- the process ---- */

/* Beside this program in a build tree, in libexec in an installation. */
static void find_program(char *dst, size_t len)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n > 0) {
        char *slash;

        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            snprintf(dst, len, "%s/%s", self, name);
            if (access(dst, X_OK) == 0)
                return;
        }
    }
    snprintf(dst, len, "%s/sallyport-ssh", SALLYPORT_LIBEXECDIR);
}

static void gate_exec(const struct gates *g, int link)
{
    const struct broker *b = g->broker;
    const struct config *c = b->config;
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace"};
    char root[512], broker_uid[16], relay_uid[16], relay_gid[16];
    const char *argv[20];
    size_t n = 0;

    snprintf(root, sizeof(root), "%s/root", c->run_dir);
    snprintf(broker_uid, sizeof(broker_uid), "%u", (unsigned)b->identity.uid);
    snprintf(relay_uid, sizeof(relay_uid), "%u", (unsigned)b->identity.relay_uid);
    snprintf(relay_gid, sizeof(relay_gid), "%u", (unsigned)b->identity.relay_gid);
    argv[n++] = "sallyport-ssh";
    argv[n++] = "--gate";
    argv[n++] = "--run-dir";
    argv[n++] = c->run_dir;
    argv[n++] = "--root";
    argv[n++] = root;
    argv[n++] = "--broker-uid";
    argv[n++] = broker_uid;
    if (b->identity.is_root) {
        argv[n++] = "--relay-uid";
        argv[n++] = relay_uid;
        argv[n++] = "--relay-gid";
        argv[n++] = relay_gid;
    }
    if (c->sandbox == CONFIG_SANDBOX_REDUCED)
        argv[n++] = "--reduced";
    argv[n] = NULL;
    if (link != GATE_LINK_FD && dup2(link, GATE_LINK_FD) < 0)
        _exit(127);
    fcntl(GATE_LINK_FD, F_SETFD, 0);
    close_range(GATE_LINK_FD + 1, ~0u, 0);
    if (chdir(c->run_dir) < 0 || identity_prepare_gate(&b->identity) < 0)
        _exit(127);
    setenv("SALLYPORT_LOG_LEVEL", levels[c->log_level], 1);
    setenv("SALLYPORT_LOG", c->log == LOG_SINK_SYSLOG ? "syslog" : "stderr", 1);
    execv(g->program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

static void gate_send(struct gates *g, const int *fds, size_t fd_count)
{
    int r = link_send(g->link, &g->message, LINK_VERSION, fds, fd_count);

    if (r < 0)
        log_error("gate: %s not sent: %s", link_type_name(g->message.type), error_text(r));
}

static void send_config(struct gates *g)
{
    const struct config *c = g->broker->config;

    memset(&g->message, 0, sizeof(g->message));
    g->message.type = LINK_GATE_CONFIG;
    g->message.gate_config.max_unauthenticated = c->max_unauthenticated;
    g->message.gate_config.max_unauthenticated_per_source = c->max_unauthenticated_per_source;
    g->message.gate_config.login_grace_s = c->login_grace_s;
    g->message.gate_config.is_draining = g->broker->is_draining;
    gate_send(g, NULL, 0);
}

static void send_listeners(struct gates *g)
{
    int fds[LISTENERS_MAX];

    for (size_t i = 0; i < g->listener_count; i++)
        fds[i] = g->listeners[i].fd;
    memset(&g->message, 0, sizeof(g->message));
    g->message.type = LINK_GATE_LISTEN;
    g->message.gate_listen.count = (uint32_t)g->listener_count;
    gate_send(g, fds, g->listener_count);
}

static void send_keys(struct gates *g)
{
    for (size_t i = 0; i < g->host_key_count; i++) {
        memset(&g->message, 0, sizeof(g->message));
        g->message.type = LINK_GATE_KEY;
        g->message.gate_key.key.len = g->host_keys[i].len;
        memcpy(g->message.gate_key.key.data, g->host_keys[i].data, g->host_keys[i].len);
        gate_send(g, NULL, 0);
        link_message_wipe(&g->message);
    }
}

void gates_update(struct gates *g)
{
    if (g->link < 0)
        return;
    send_config(g);
    send_listeners(g);
}

static void gate_lost(struct gates *g)
{
    struct timeval second = {1, 0};

    if (g->link_event)
        event_free(g->link_event);
    g->link_event = NULL;
    if (g->link >= 0)
        close(g->link);
    g->link = -1;
    memset(&g->status, 0, sizeof(g->status));
    if (!g->was_ready && tracker_count(g->broker->tracker) == 0) {
        /* not an accident but a set-up that cannot work: refuse, rather than try for ever */
        log_error("cannot start: the gate left before it was ready, for the reason it gave above");
        g->broker->exit_status = 1;
        g->broker->stop = BROKER_STOPS;
        event_base_loopbreak(g->broker->base);
    }
    if (g->broker->stop != BROKER_STOPS) {
        log_error("the gate is gone; starting it again");
        event_add(g->restart_timer, &second);
    }
}

static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gates *g = arg;
    int fds[LINK_FDS_MAX];
    int r = link_receive(fd, &g->message, fds);

    (void)what;
    if (r == ERR_AGAIN)
        return;
    if (r < 0) {
        gate_lost(g);
        return;
    }
    link_close_fds(fds);
    if (g->message.type == LINK_GATE_STATUS) {
        g->status = g->message.gate_status;
    } else if (g->message.type == LINK_GATE_READY) {
        if (!g->was_ready)
            notify_ready();
        g->was_ready = true;
        log_info("gate ready pid=%u", g->message.gate_ready.pid);
    }
}

static int spawn(struct gates *g)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    g->pid = fork();
    if (g->pid == 0)
        gate_exec(g, pair[1]);
    close(pair[1]);
    if (g->pid < 0) {
        g->pid = 0;
        close(pair[0]);
        return ERR_SYSTEM;
    }
    fcntl(pair[0], F_SETFL, O_NONBLOCK);
    g->link = pair[0];
    g->link_event = event_new(g->broker->base, g->link, EV_READ | EV_PERSIST, link_cb, g);
    if (!g->link_event || event_add(g->link_event, NULL) < 0)
        return ERR_MEMORY;
    send_keys(g);
    send_config(g);
    send_listeners(g);
    return 0;
}

static void restart_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gates *g = arg;

    (void)fd, (void)what;
    if (spawn(g) < 0) {
        struct timeval second = {1, 0};

        log_error("the gate cannot be started: %s", strerror(errno));
        event_add(g->restart_timer, &second);
    }
}

void gates_reap(struct gates *g)
{
    pid_t pid;
    int status;

    /* also one whose link was lost long before it left, when the next has its place */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (WIFEXITED(status))
            log_warn("gate pid=%d left with status %d", (int)pid, WEXITSTATUS(status));
        else
            log_warn("gate pid=%d ended by signal %d", (int)pid, WTERMSIG(status));
        if (pid == g->pid)
            g->pid = 0;
    }
}

struct gates *gates_create(struct broker *b, char *err, size_t err_len)
{
    struct gates *g = calloc(1, sizeof(*g));

    if (!g) {
        snprintf(err, err_len, "out of memory");
        return NULL;
    }
    g->broker = b;
    g->link = -1;
    g->restart_timer = event_new(b->base, -1, 0, restart_cb, g);
    find_program(g->program, sizeof(g->program));
    if (!g->restart_timer || access(g->program, X_OK) < 0) {
        snprintf(err, err_len, "%s: %s", g->program, strerror(errno));
        gates_destroy(g);
        return NULL;
    }
    return g;
}

int gates_start(struct gates *g, char *err, size_t err_len)
{
    int r;

    if (!g->broker->config->ssh_enabled)
        return 0;
    r = load_host_keys(g, err, err_len);
    if (r == 0 && (r = spawn(g)) < 0)
        snprintf(err, err_len, "%s cannot be started: %s", g->program, strerror(errno));
    return r;
}

void gates_destroy(struct gates *g)
{
    if (!g)
        return;
    close_listeners(g->listeners, g->listener_count);
    if (g->link_event)
        event_free(g->link_event);
    if (g->link >= 0)
        close(g->link); /* the gate exits at this */
    if (g->restart_timer)
        event_free(g->restart_timer);
    for (size_t i = 0; i < g->host_key_count; i++)
        secret_wipe(&g->host_keys[i]);
    free(g);
}

void gates_settled(struct gates *g, int32_t pid)
{
    if (g->link < 0)
        return;
    memset(&g->message, 0, sizeof(g->message));
    g->message.type = LINK_GATE_SETTLED;
    g->message.gate_settled.pid = (uint32_t)pid;
    gate_send(g, NULL, 0);
}

void gates_describe(const struct gates *g, char *dst, size_t len)
{
    size_t at = 0;

    dst[0] = '\0';
    for (size_t i = 0; i < g->listener_count && at < len; i++)
        at += (size_t)snprintf(dst + at, len - at, "%sssh %s", i ? ", " : "", g->listeners[i].name);
}

void gates_count(const struct gates *g, uint32_t *unauthenticated, uint32_t *parked,
                 uint64_t *accepted, uint64_t *evicted)
{
    *unauthenticated = g->status.unauthenticated;
    *parked = g->status.parked;
    *accepted = g->status.accepted;
    *evicted = g->status.evicted;
}
        if (probes_reaped(all->broker->probes, pid, status) ||
            door_reaped(all->broker->door, pid, status))
            continue;
