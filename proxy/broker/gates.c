/*
 * The gates, one a protocol: binds listeners, loads or makes keys, starts the gate programs and
 * starts them again when they die. A gate that is gone costs no session; new connections wait in
 * the listener's queue until the next one accepts. So new keys come with a new gate.
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
#include "proxy/broker/nla.h"
#include "proxy/broker/notify.h"
#include "proxy/broker/probes.h"
#include "proxy/broker/program.h"
#include "proxy/broker/rdp_key.h"
#include "tracker/tracker.h"

#define LISTENERS_MAX LINK_FDS_MAX
#define KEYS_MAX      8
#define LISTEN_QUEUE  512

struct listener {
    char name[128]; /* as configured */
    int fd;
};

struct keys {
    struct secret items[KEYS_MAX];
    size_t count;
};

enum { GATE_SSH, GATE_RDP, GATE_COUNT };

struct gate {
    const struct gate_kind *kind;
    struct gates *all; /* not owned */
    struct listener listeners[LISTENERS_MAX];
    size_t listener_count;
    struct keys keys;
    struct keys fresh;             /* read by gates_bind() for gates_update() */
    struct rdp_key public_keys[2]; /* of the certificate, and of the one before; empty: none */
    char program[512];
    pid_t pid; /* 0: not running */
    int link;
    struct event *link_event;
    struct event *restart_timer;
    bool is_wanted; /* enabled when the broker started */
    bool was_ready; /* once, since then */
    struct link_gate_status status;
};

struct gates {
    struct broker *broker; /* not owned */
    struct gate of[GATE_COUNT];
    struct link_message message; /* scratch */
};

/* What differs between the gates. */
struct gate_kind {
    const char *name, *program;
    bool (*is_enabled)(const struct config *c);
    const struct config_list *(*listen)(const struct config *c);
    const struct config_list *(*trusted)(const struct config *c);
    /* Fills `keys`, making what is missing. */
    int (*load)(const struct gate *g, const struct config *c, struct keys *keys, char *err,
                size_t err_len);
    bool has_new_keys; /* a reload reads them anew */
};

static const struct gate_kind kinds[GATE_COUNT]; /* below */

/* ---- listeners ---- */

static int bind_one(const struct gate *g, const char *name, char *err, size_t err_len)
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
    snprintf(err, err_len, "[%s] listen: %s: %s%s", g->kind->name, name, strerror(errno),
             errno == EADDRINUSE
                 ? "; another program listens there, choose another port or set enabled = no"
                 : "");
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listener_take(struct gate *g, const char *name)
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

static int bind_all(struct gate *g, const struct config *c, char *err, size_t err_len)
{
    const struct config_list *list = g->kind->listen(c);
    struct listener fresh[LISTENERS_MAX];
    size_t count = 0, wanted = g->kind->is_enabled(c) ? list->count : 0;
    bool is_taken[LISTENERS_MAX] = {false};

    if (g->all->broker->is_draining)
        wanted = 0; /* a load balancer sees the port closed */
    if (wanted > LISTENERS_MAX) {
        snprintf(err, err_len, "[%s] listen: at most %d addresses", g->kind->name, LISTENERS_MAX);
        return ERR_INVALID;
    }
    for (; count < wanted; count++) {
        struct listener *l = &fresh[count];

        text_copy(l->name, sizeof(l->name), list->items[count]);
        l->fd = listener_take(g, l->name);
        is_taken[count] = l->fd >= 0;
        if (l->fd < 0)
            l->fd = bind_one(g, l->name, err, err_len);
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

static void keys_wipe(struct keys *k)
{
    for (size_t i = 0; i < k->count; i++)
        secret_wipe(&k->items[i]);
    k->count = 0;
}

/* A running gate's keys as the fresh configuration has them, when a reload may change them. */
static int read_fresh_keys(struct gate *g, const struct config *c, char *err, size_t err_len)
{
    keys_wipe(&g->fresh);
    if (!g->kind->has_new_keys || g->keys.count == 0)
        return 0;
    return g->kind->load(g, c, &g->fresh, err, err_len);
}

int gates_bind(struct gates *g, const struct config *c, char *err, size_t err_len)
{
    int r = 0;

    for (size_t i = 0; i < GATE_COUNT && r == 0; i++)
        if ((r = read_fresh_keys(&g->of[i], c, err, err_len)) == 0)
            r = bind_all(&g->of[i], c, err, err_len);
    return r;
}

/* ---- keys ---- */

static int read_key(struct keys *keys, const char *path, char *err, size_t err_len)
{
    struct secret *key = &keys->items[keys->count];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, key->data, SECRET_MAX);

    if (n <= 0 || n == SECRET_MAX) {
        snprintf(err, err_len, "key file %s: %s%s", path,
                 n < 0 ? strerror(errno) : "not a private key",
                 n < 0 && errno == EACCES ? " (it is read as [proxy] user)" : "");
        if (fd >= 0)
            close(fd);
        return ERR_INVALID;
    }
    close(fd);
    key->len = (uint16_t)n;
    key->data[n] = '\0';
    keys->count++;
    return 0;
}

/* `PROGRAM --keygen WHAT` writes a new key to its standard output: the broker links no SSH. */
static int make_key(const struct gate *g, const char *what, const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int status = -1;
    pid_t pid;

    if (fd < 0)
        return ERR_SYSTEM;
    pid = fork();
    if (pid == 0) {
        dup2(fd, STDOUT_FILENO);
        execl(g->program, g->kind->program, "--keygen", what, (char *)NULL);
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

static int make_and_read(const struct gate *g, const char *what, const char *path,
                         struct keys *keys, char *err, size_t err_len)
{
    if (access(path, F_OK) < 0) {
        if (make_key(g, what, path) < 0) {
            snprintf(err, err_len, "key file %s cannot be made with %s --keygen", path, g->program);
            return ERR_SYSTEM;
        }
        log_info("made key file %s", path);
    }
    return read_key(keys, path, err, err_len);
}

static int load_ssh_keys(const struct gate *g, const struct config *c, struct keys *keys, char *err,
                         size_t err_len)
{
    static const char *const types[] = {"ed25519", "rsa"};
    char path[512];
    int r = 0;

    for (size_t i = 0; i < c->ssh_host_key.count && i < KEYS_MAX && r == 0; i++)
        r = read_key(keys, c->ssh_host_key.items[i], err, err_len);
    if (c->ssh_host_key.count)
        return r;
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]) && r == 0; i++) {
        snprintf(path, sizeof(path), "%s/ssh_host_%s_key", c->data_dir, types[i]);
        r = make_and_read(g, types[i], path, keys, err, err_len);
    }
    return r;
}

/* The certificate's file may hold the key too. */
static int load_rdp_keys(const struct gate *g, const struct config *c, struct keys *keys, char *err,
                         size_t err_len)
{
    char path[512];
    int r;

    if (c->rdp_certificate[0]) {
        r = read_key(keys, c->rdp_certificate, err, err_len);
        if (r == 0 && c->rdp_key[0])
            r = read_key(keys, c->rdp_key, err, err_len);
        return r;
    }
    snprintf(path, sizeof(path), "%s/rdp_certificate.pem", c->data_dir);
    return make_and_read(g, c->node, path, keys, err, err_len);
}

static bool ssh_is_enabled(const struct config *c)
{
    return c->ssh_enabled;
}

static bool rdp_is_enabled(const struct config *c)
{
    return c->rdp_enabled;
}

static const struct config_list *ssh_listen(const struct config *c)
{
    return &c->ssh_listen;
}

static const struct config_list *rdp_listen(const struct config *c)
{
    return &c->rdp_listen;
}

static const struct config_list *ssh_trusted(const struct config *c)
{
    return &c->ssh_trusted_proxies;
}

static const struct config_list *rdp_trusted(const struct config *c)
{
    return &c->rdp_trusted_proxies;
}

static const struct gate_kind kinds[GATE_COUNT] = {
    [GATE_SSH] = {"ssh", "sallyport-ssh", ssh_is_enabled, ssh_listen, ssh_trusted, load_ssh_keys,
                  false},
    [GATE_RDP] = {"rdp", "sallyport-rdp", rdp_is_enabled, rdp_listen, rdp_trusted, load_rdp_keys,
                  true},
};

/* ---- the process ---- */

static void gate_exec(const struct gate *g, int link)
{
    const struct broker *b = g->all->broker;
    struct program_sandbox sandbox;
    char broker_uid[16];
    const char *argv[6 + PROGRAM_SANDBOX_MAX];
    size_t n = 0;

    snprintf(broker_uid, sizeof(broker_uid), "%u", (unsigned)b->identity.uid);
    argv[n++] = g->kind->program;
    argv[n++] = "--gate";
    argv[n++] = "--run-dir";
    argv[n++] = b->config->run_dir;
    argv[n++] = "--broker-uid";
    argv[n++] = broker_uid;
    program_put_sandbox(b, &sandbox, argv, n);
    program_become(b, g->program, argv, link);
}

static void gate_send(struct gate *g, const int *fds, size_t fd_count)
{
    const struct link_message *m = &g->all->message;
    int r = link_send(g->link, m, LINK_VERSION, fds, fd_count);

    if (r < 0)
        log_error("gate %s: %s not sent: %s", g->kind->name, link_type_name(m->type),
                  error_text(r));
}

static struct link_message *gate_begin(struct gate *g, enum link_type type)
{
    struct link_message *m = &g->all->message;

    memset(m, 0, sizeof(*m));
    m->type = (uint8_t)type;
    return m;
}

/* With commas between; the configuration checked that each is short and that there are few. */
static void put_list(char *dst, size_t len, const struct config_list *list)
{
    size_t at = 0;

    dst[0] = '\0';
    for (size_t i = 0; i < list->count && at < len; i++)
        at += (size_t)snprintf(dst + at, len - at, "%s%s", i ? "," : "", list->items[i]);
}

static void send_config(struct gate *g)
{
    const struct config *c = g->all->broker->config;
    struct link_gate_config *out = &gate_begin(g, LINK_GATE_CONFIG)->gate_config;

    out->max_unauthenticated = c->max_unauthenticated;
    out->max_unauthenticated_per_source = c->max_unauthenticated_per_source;
    out->login_grace_s = c->login_grace_s;
    out->is_draining = g->all->broker->is_draining;
    put_list(out->trusted_proxies, sizeof(out->trusted_proxies), g->kind->trusted(c));
    gate_send(g, NULL, 0);
}

static void send_listeners(struct gate *g)
{
    int fds[LISTENERS_MAX];

    for (size_t i = 0; i < g->listener_count; i++)
        fds[i] = g->listeners[i].fd;
    gate_begin(g, LINK_GATE_LISTEN)->gate_listen.count = (uint32_t)g->listener_count;
    gate_send(g, fds, g->listener_count);
}

static void send_keys(struct gate *g)
{
    for (size_t i = 0; i < g->keys.count; i++) {
        struct link_message *m = gate_begin(g, LINK_GATE_KEY);

        m->gate_key.key.len = g->keys.items[i].len;
        memcpy(m->gate_key.key.data, g->keys.items[i].data, g->keys.items[i].len);
        gate_send(g, NULL, 0);
        link_message_wipe(m);
    }
}

static bool have_keys_changed(const struct gate *g)
{
    const struct keys *a = &g->keys, *b = &g->fresh;

    if (a->count != b->count)
        return b->count > 0;
    for (size_t i = 0; i < a->count; i++)
        if (a->items[i].len != b->items[i].len ||
            memcmp(a->items[i].data, b->items[i].data, a->items[i].len) != 0)
            return true;
    return false;
}

/* What the clients of the RDP door see. */
static void find_public_key(struct gate *g)
{
    struct rdp_key *key = &g->public_keys[0];

    key->len = 0;
    for (size_t i = 0; g->kind == &kinds[GATE_RDP] && i < g->keys.count && !key->len; i++)
        (void)rdp_key_find(&g->keys.items[i], key);
}

bool gates_has_rdp_key(const struct gates *all, const void *key, size_t len)
{
    const struct gate *g = &all->of[GATE_RDP];

    for (size_t i = 0; i < 2; i++)
        if (len > 0 && g->public_keys[i].len == len &&
            memcmp(g->public_keys[i].data, key, len) == 0)
            return true;
    return false;
}

/* The old gate leaves when its link closes; its relays stay with the keys that they know. */
static void use_fresh_keys(struct gate *g)
{
    struct timeval now = {0, 0};

    if (have_keys_changed(g)) {
        log_info("new keys: the %s gate starts again", g->kind->name);
        g->public_keys[1] = g->public_keys[0];
        keys_wipe(&g->keys);
        g->keys = g->fresh;
        find_public_key(g);
        if (g->link_event)
            event_free(g->link_event);
        g->link_event = NULL;
        if (g->link >= 0)
            close(g->link);
        g->link = -1;
        event_add(g->restart_timer, &now);
    }
    keys_wipe(&g->fresh);
}

void gates_update(struct gates *all)
{
    for (size_t i = 0; i < GATE_COUNT; i++) {
        struct gate *g = &all->of[i];

        use_fresh_keys(g);
        if (g->link < 0)
            continue;
        send_config(g);
        send_listeners(g);
    }
}

bool gates_are_ready(const struct gates *all)
{
    for (size_t i = 0; i < GATE_COUNT; i++)
        if (all->of[i].is_wanted && !all->of[i].was_ready)
            return false;
    return true;
}

static void gate_lost(struct gate *g)
{
    struct broker *b = g->all->broker;
    struct timeval second = {1, 0};

    if (g->link_event)
        event_free(g->link_event);
    g->link_event = NULL;
    if (g->link >= 0)
        close(g->link);
    g->link = -1;
    memset(&g->status, 0, sizeof(g->status));
    if (!g->was_ready && tracker_count(b->tracker) == 0) {
        /* not an accident but a set-up that cannot work: refuse, rather than try for ever */
        log_error("cannot start: the %s gate left before it was ready, for the reason it gave "
                  "above",
                  g->kind->name);
        b->exit_status = 1;
        b->stop = BROKER_STOPS;
        event_base_loopbreak(b->base);
    }
    if (b->stop != BROKER_STOPS) {
        log_error("the %s gate is gone; starting it again", g->kind->name);
        event_add(g->restart_timer, &second);
    }
}

static void gate_ready(struct gate *g, uint32_t pid)
{
    bool was_complete = gates_are_ready(g->all);

    g->was_ready = true;
    log_info("gate %s ready pid=%u", g->kind->name, pid);
    if (!was_complete && gates_are_ready(g->all))
        notify_ready();
}

static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gate *g = arg;
    struct link_message *m = &g->all->message;
    int fds[LINK_FDS_MAX];
    int r = link_receive(fd, m, fds);

    (void)what;
    if (r == ERR_AGAIN)
        return;
    if (r < 0) {
        gate_lost(g);
        return;
    }
    link_close_fds(fds);
    if (m->type == LINK_GATE_STATUS)
        g->status = m->gate_status;
    else if (m->type == LINK_GATE_READY)
        gate_ready(g, m->gate_ready.pid);
}

static int spawn(struct gate *g)
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
    g->link_event = event_new(g->all->broker->base, g->link, EV_READ | EV_PERSIST, link_cb, g);
    if (!g->link_event || event_add(g->link_event, NULL) < 0)
        return ERR_MEMORY;
    send_keys(g);
    send_config(g);
    send_listeners(g);
    return 0;
}

static void restart_cb(evutil_socket_t fd, short what, void *arg)
{
    struct gate *g = arg;

    (void)fd, (void)what;
    if (spawn(g) < 0) {
        struct timeval second = {1, 0};

        log_error("the %s gate cannot be started: %s", g->kind->name, strerror(errno));
        event_add(g->restart_timer, &second);
    }
}

void gates_reap(struct gates *all)
{
    pid_t pid;
    int status;

    /* also one whose link was lost long before it left, when the next has its place */
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (probes_reaped(all->broker->probes, pid, status) ||
            nla_helper_reaped(all->broker->nla, pid) || door_reaped(all->broker->door, pid, status))
            continue;
        if (WIFEXITED(status))
            log_warn("gate pid=%d left with status %d", (int)pid, WEXITSTATUS(status));
        else
            log_warn("gate pid=%d ended by signal %d", (int)pid, WTERMSIG(status));
        for (size_t i = 0; i < GATE_COUNT; i++)
            if (pid == all->of[i].pid)
                all->of[i].pid = 0;
    }
}

struct gates *gates_create(struct broker *b, char *err, size_t err_len)
{
    struct gates *all = calloc(1, sizeof(*all));

    if (!all) {
        snprintf(err, err_len, "out of memory");
        return NULL;
    }
    all->broker = b;
    for (size_t i = 0; i < GATE_COUNT; i++) {
        struct gate *g = &all->of[i];

        g->kind = &kinds[i];
        g->all = all;
        g->link = -1;
        g->is_wanted = g->kind->is_enabled(b->config);
        g->restart_timer = event_new(b->base, -1, 0, restart_cb, g);
        program_find(g->kind->program, SALLYPORT_LIBEXECDIR, g->program, sizeof(g->program));
        if (!g->restart_timer || (g->is_wanted && access(g->program, X_OK) < 0)) {
            snprintf(err, err_len, "%s: %s", g->program, strerror(errno));
            gates_destroy(all);
            return NULL;
        }
    }
    return all;
}

int gates_start(struct gates *all, char *err, size_t err_len)
{
    int r = 0;

    for (size_t i = 0; i < GATE_COUNT && r == 0; i++) {
        struct gate *g = &all->of[i];

        if (!g->is_wanted)
            continue;
        r = g->kind->load(g, all->broker->config, &g->keys, err, err_len);
        find_public_key(g);
        if (r == 0 && (r = spawn(g)) < 0)
            snprintf(err, err_len, "%s cannot be started: %s", g->program, strerror(errno));
    }
    return r;
}

static void gate_finish(struct gate *g)
{
    close_listeners(g->listeners, g->listener_count);
    if (g->link_event)
        event_free(g->link_event);
    if (g->link >= 0)
        close(g->link); /* the gate exits at this */
    if (g->restart_timer)
        event_free(g->restart_timer);
    keys_wipe(&g->keys);
    keys_wipe(&g->fresh);
}

void gates_destroy(struct gates *all)
{
    if (!all)
        return;
    for (size_t i = 0; i < GATE_COUNT; i++)
        if (all->of[i].kind)
            gate_finish(&all->of[i]);
    free(all);
}

/* Which gate forked it is not asked: a number that a gate does not know means nothing to it. */
void gates_settled(struct gates *all, int32_t pid)
{
    for (size_t i = 0; i < GATE_COUNT; i++) {
        if (all->of[i].link < 0)
            continue;
        gate_begin(&all->of[i], LINK_GATE_SETTLED)->gate_settled.pid = (uint32_t)pid;
        gate_send(&all->of[i], NULL, 0);
    }
}

int gates_jump(struct gates *all, const struct link_gate_jump *jump, int fd)
{
    struct gate *g = &all->of[GATE_SSH];
    int r;

    if (g->link < 0)
        return ERR_AGAIN;
    gate_begin(g, LINK_GATE_JUMP)->gate_jump = *jump;
    r = link_send(g->link, &all->message, LINK_VERSION, &fd, 1);
    link_message_wipe(&all->message);
    return r;
}

void gates_describe(const struct gates *all, char *dst, size_t len)
{
    size_t at = 0;

    dst[0] = '\0';
    for (size_t i = 0; i < GATE_COUNT; i++) {
        const struct gate *g = &all->of[i];

        for (size_t n = 0; n < g->listener_count && at < len; n++)
            at += (size_t)snprintf(dst + at, len - at, "%s%s %s", at ? ", " : "", g->kind->name,
                                   g->listeners[n].name);
    }
}

void gates_count(const struct gates *all, uint32_t *unauthenticated, uint32_t *parked,
                 uint64_t *accepted, uint64_t *evicted)
{
    *unauthenticated = *parked = 0;
    *accepted = *evicted = 0;
    for (size_t i = 0; i < GATE_COUNT; i++) {
        *unauthenticated += all->of[i].status.unauthenticated;
        *parked += all->of[i].status.parked;
        *accepted += all->of[i].status.accepted;
        *evicted += all->of[i].status.evicted;
    }
}
