/*
 * Connections on their way in: accepting, parking, forking, evicting, reaping. What to do is
 * parking.c's decision; this file does it. It reads nothing that a client sent: it only asks the
 * kernel whether bytes are there. (A load balancer's header is greetings.c's.)
 */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#include "proxy/gate/gate_priv.h"

#define ACCEPTS_A_TURN   32
#define PARKED_PER_PLACE 4
#define DESCRIPTORS_KEPT 64 /* for everything that is no connection */
#define SPOKEN_SIZE      4096

/* ---- limits and listeners ---- */

/* As many as memory and descriptors allow: at the limit of descriptors accept() would fail, and
 * the broker's messages could bring no listeners. */
static uint32_t parked_max(const struct gate *g)
{
    struct rlimit files = {0, 0};
    uint64_t wanted = (uint64_t)g->config.max_unauthenticated * PARKED_PER_PLACE;
    uint64_t kept = DESCRIPTORS_KEPT, room;

    getrlimit(RLIMIT_NOFILE, &files);
    if (g->config.trusted_proxies[0])
        kept += GREETINGS_MAX;
    room = files.rlim_cur > kept * 2 ? files.rlim_cur - kept : files.rlim_cur / 2;
    return (uint32_t)(wanted < room ? wanted : room);
}

void visitors_set_limits(struct gate *g)
{
    struct parking_limits limits = {
        .max_total = g->config.max_unauthenticated,
        .max_per_source = g->config.max_unauthenticated_per_source,
        .max_parked = parked_max(g),
        .login_grace_s = g->config.login_grace_s,
    };

    parking_set_limits(g->parking, &limits);
    greetings_trust(g, g->config.trusted_proxies);
    visitors_update_accepting(g);
    visitors_step(g);
}

void visitors_update_accepting(struct gate *g)
{
    bool is_on = g->is_ready && !g->is_paused && !g->config.is_draining;

    for (size_t i = 0; i < LINK_FDS_MAX; i++) {
        if (!g->listeners[i].event)
            continue;
        if (is_on)
            event_add(g->listeners[i].event, NULL);
        else
            event_del(g->listeners[i].event);
    }
}

/* No descriptors or no memory: try again in a second instead of spinning. */
static void pause_accepting(struct gate *g)
{
    static struct log_limit limit;
    struct timeval second = {1, 0};

    if (log_limit_allows(&limit, 6, "accept"))
        log_error("cannot accept connections: %s; trying again in 1 s", strerror(errno));
    g->is_paused = true;
    visitors_update_accepting(g);
    event_add(g->pause_timer, &second);
}

/* ---- one guest ---- */

/* Out of the books, whatever it still holds. */
static void forget(struct gate *g, struct guest *guest)
{
    if (guest->event)
        event_free(guest->event);
    if (guest->fd >= 0)
        close(guest->fd);
    if (guest->spoken)
        munmap((void *)(uintptr_t)guest->spoken, SPOKEN_SIZE);
    parking_remove(g->parking, guest);
    gate_status_changed(g);
}

/* Once a guest: its bytes stay unread, so a second look would only find them again. */
static void guest_cb(evutil_socket_t fd, short what, void *arg)
{
    struct guest *guest = arg;
    struct gate *g = guest->owner;
    int bytes = 0;

    (void)what;
    if (ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0)
        parking_spoke(g->parking, guest);
    else
        parking_gone(g->parking, guest);
    event_active(g->step_timer, EV_TIMEOUT, 0);
}

static void watch(struct gate *g, struct guest *guest)
{
    struct event *event = event_new(g->base, guest->fd, EV_READ, guest_cb, guest);

    guest->event = event;
    if (!event || event_add(event, NULL) < 0)
        parking_gone(g->parking, guest); /* out of memory: this one goes */
}

static bool fork_guest(struct gate *g, struct guest *guest)
{
    struct birth birth = {
        .client_fd = guest->fd, .client = guest->client, .accepted_ms = guest->accepted_ms};
    /* a page for each, that no other relay has: a relay that is taken over lies for itself only */
    void *spoken =
        mmap(NULL, SPOKEN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = -1;

    if (spoken == MAP_FAILED)
        return false;
    birth.spoken = spoken;
    *birth.spoken = guest->has_spoken;
    pid = fork();
    if (pid == 0)
        birth_run(g, &birth);
    if (pid < 0) {
        munmap(spoken, SPOKEN_SIZE);
        return false;
    }
    madvise(spoken, SPOKEN_SIZE, MADV_DONTFORK);
    if (guest->event)
        event_free(guest->event);
    guest->event = NULL;
    close(guest->fd);
    guest->fd = -1;
    parking_forked(g->parking, guest, pid, birth.spoken, clock_mono_ms());
    gate_status_changed(g);
    return true;
}

int visitors_jump(struct gate *g, int fd, const struct link_gate_jump *jump)
{
    const struct birth birth = {.client_fd = fd, .accepted_ms = clock_mono_ms(), .jump = jump};
    pid_t pid = fork();

    if (pid == 0)
        birth_run(g, &birth);
    return pid < 0 ? ERR_SYSTEM : 0;
}

/* ---- what is due ---- */

/* Our child, not reaped yet, so the number is its own. The relay has another uid: we take that for
 * the moment instead of holding CAP_KILL, which would reach every process of the machine. */
static void kill_child(const struct gate *g, pid_t pid)
{
    uid_t own = geteuid();

    if (g->sandbox.is_root && seteuid(g->sandbox.relay_uid) < 0)
        log_error("cannot take uid %u: %s", g->sandbox.relay_uid, strerror(errno));
    if (kill(pid, SIGKILL) < 0)
        log_error("relay pid=%d cannot be ended: %s", (int)pid, strerror(errno));
    if (g->sandbox.is_root && seteuid(own) < 0)
        die("cannot take uid %u back: %s", own, strerror(errno));
}

static void evict(struct gate *g, struct guest *guest)
{
    static struct log_limit limit;

    if (log_limit_allows(&limit, 20, "evictions"))
        log_info("relay pid=%d evicted: %s", guest->pid,
                 *guest->spoken ? "not logged in for too long" : "silent while others wait");
    kill_child(g, guest->pid);
    g->evicted++;
    gate_status_changed(g);
}

static void arm_step(struct gate *g, int64_t wake_ms)
{
    int64_t left_ms = wake_ms - clock_mono_ms();
    struct timeval in;

    if (wake_ms == PARKING_NEVER) {
        event_del(g->step_timer);
        return;
    }
    if (left_ms < 0)
        left_ms = 0;
    in.tv_sec = left_ms / 1000;
    in.tv_usec = left_ms % 1000 * 1000 + 500; /* never a hair too early */
    event_add(g->step_timer, &in);
}

void visitors_step(struct gate *g)
{
    struct parking_step step;
    struct guest *guest;

    while ((step = parking_next(g->parking, clock_mono_ms())).what != PARKING_WAIT) {
        if (step.what == PARKING_CLOSE) {
            forget(g, step.guest);
        } else if (step.what == PARKING_EVICT) {
            evict(g, step.guest);
        } else if (!fork_guest(g, step.guest)) {
            pause_accepting(g); /* which comes back here */
            break;
        }
    }
    while ((guest = parking_unwatched(g->parking)))
        watch(g, guest);
    arm_step(g, step.what == PARKING_WAIT ? step.wake_ms : PARKING_NEVER);
}

void visitors_settled(struct gate *g, int pid)
{
    struct guest *guest = parking_find(g->parking, pid);

    if (!guest)
        return;
    forget(g, guest);
    visitors_step(g);
}

static void log_end(pid_t pid, int status)
{
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;

    if (sig && sig != SIGKILL && sig != SIGTERM)
        log_error("relay pid=%d died of signal %d (%s)", (int)pid, sig, strsignal(sig));
    else
        log_debug("relay pid=%d left, status %#x", (int)pid, (unsigned)status);
}

void visitors_reap(struct gate *g)
{
    struct guest *guest;
    pid_t pid;
    int status;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        log_end(pid, status);
        guest = parking_find(g->parking, pid);
        if (guest)
            forget(g, guest);
    }
    if (g->parking)
        visitors_step(g);
}

/* ---- accepting ---- */

/* Errors of the one connection that was next, which Linux reports here; accept(2). */
static bool is_client_gone(int err)
{
    static const int errors[] = {ECONNABORTED, EINTR,     EPROTO,       EPERM,       ENETDOWN,
                                 ENOPROTOOPT,  EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, ENONET};

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        if (err == errors[i])
            return true;
    return false;
}

/* Out of descriptors: one that waits goes, so that somebody else may come. */
static bool make_room(struct gate *g)
{
    struct guest *guest = parking_sparable(g->parking);

    if (!guest || (errno != EMFILE && errno != ENFILE))
        return false;
    forget(g, guest);
    return true;
}

void visitors_admit(struct gate *g, int fd, const struct client_name *from)
{
    struct source_key key = source_key_of(from->address);
    struct guest *guest = parking_add(g->parking, &key, clock_mono_ms());

    if (!guest) {
        close(fd);
        return;
    }
    guest->fd = fd;
    guest->client = *from;
    guest->owner = g;
    g->accepted++;
    gate_status_changed(g);
}

static void receive(struct gate *g, int fd, const struct sockaddr_storage *ss)
{
    struct client_name from = {0};

    if (!network_address_of((const struct sockaddr *)ss, from.address, &from.port))
        close(fd);
    else if (!greetings_await(g, fd, &from))
        visitors_admit(g, fd, &from);
}

static void accept_cb(evutil_socket_t listener, short what, void *arg)
{
    struct gate *g = arg;

    (void)what;
    for (int i = 0; i < ACCEPTS_A_TURN && !g->is_paused; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof(from);
        int fd = accept4(listener, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0)
            receive(g, fd, &from);
        else if (errno == EAGAIN)
            break;
        else if (!is_client_gone(errno) && !make_room(g))
            pause_accepting(g);
    }
    visitors_step(g);
}

static void close_listeners(struct gate *g)
{
    for (size_t i = 0; i < LINK_FDS_MAX; i++) {
        if (g->listeners[i].event)
            event_free(g->listeners[i].event);
        if (g->listeners[i].fd >= 0)
            close(g->listeners[i].fd);
        g->listeners[i] = (struct listener){.fd = -1};
    }
}

int visitors_listen(struct gate *g, int *fds, size_t count)
{
    close_listeners(g);
    for (size_t i = 0; i < count && i < LINK_FDS_MAX; i++) {
        struct listener *l = &g->listeners[i];

        l->fd = fds[i];
        fds[i] = -1;
        if (evutil_make_socket_nonblocking(l->fd) < 0)
            return ERR_INVALID;
        l->event = event_new(g->base, l->fd, EV_READ | EV_PERSIST, accept_cb, g);
        if (!l->event)
            return ERR_MEMORY;
    }
    visitors_update_accepting(g);
    return 0;
}

void visitors_destroy(struct gate *g)
{
    close_listeners(g);
    greetings_destroy(g);
    parking_destroy(g->parking);
    g->parking = NULL;
}
