/*
 * The child between fork() and relay_run(): lets go of everything of the gate, makes the two
 * sockets that a relay needs while it still may, enters the sandbox, and becomes a relay. A step
 * that fails is logged and ends the process; the client sees its connection close.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <sallyport/log.h>

#include "proxy/gate/gate_priv.h"
#include "proxy/relay/sandbox_priv.h"

#define FIRST_FD       3
#define ADOPTION_QUEUE 4
#define CONNECT_WAIT_S 5 /* for a broker that is there but busy */

static void reset_signals(const struct gate *g)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGUSR2};

    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigprocmask(SIG_SETMASK, &g->old_mask, NULL);
}

/* Everything but standard descriptors, the log's socket and the client. The client moves down
 * first; what it is moved onto is the gate's link. */
static int close_inherited(const struct gate *g, int client_fd)
{
    int client = dup3(client_fd, FIRST_FD, SOCK_CLOEXEC);
    unsigned int log_fd = g->log_fd > FIRST_FD ? (unsigned int)g->log_fd : FIRST_FD;

    if (client < 0)
        return -1;
    if (log_fd > FIRST_FD + 1)
        close_range(FIRST_FD + 1, log_fd - 1, 0);
    close_range(log_fd + 1, ~0u, 0);
    return client;
}

/* Where a later broker finds this relay. */
static int listen_for_brokers(void)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "relay/%d.sock", (int)getpid());
    unlink(sun.sun_path); /* of an earlier process with our number */
    umask(0177);
    if (fd >= 0 && bind(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0 &&
        listen(fd, ADOPTION_QUEUE) == 0)
        return fd;
    log_error("relay: cannot listen at %s: %s", sun.sun_path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Passwords go over this link: only to the broker's user, whoever bound the name. */
static bool is_broker(const struct gate *g, int fd)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == g->broker_uid)
        return true;
    log_error("relay: uid %u serves relay.sock and is not the broker", (unsigned)cred.uid);
    return false;
}

/* -1 when there is no broker now: it will adopt us. */
static int connect_broker(const struct gate *g)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "relay.sock"};
    struct timeval wait = {CONNECT_WAIT_S, 0};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 &&
        connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0) {
        if (is_broker(g, fd))
            return fd;
        close(fd);
        return -1;
    }
    log_warn("relay: no broker at %s: %s; waiting for one", sun.sun_path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static void enter_sandbox(const struct gate *g)
{
    char err[256];

    if (sandbox_enter_relay(&g->sandbox, err, sizeof(err)) < 0) {
        log_error("relay: %s", err);
        _exit(1);
    }
    if (sandbox_filter_login() < 0)
        _exit(1); /* logged there */
}

void birth_run(const struct gate *g, const struct birth *b)
{
    static volatile uint8_t unwatched; /* nobody asks whether a jump's client has spoken */
    struct relay_birth birth = {
        .broker_uid = g->broker_uid,
        .spoken = b->spoken ? b->spoken : &unwatched,
        .accepted_mono_ms = b->accepted_ms,
        .login_grace_s = g->config.login_grace_s,
        .jump = b->jump,
        .client_address = b->client.address,
        .client_port = b->client.port,
    };
    int status;

    reset_signals(g);
    prctl(PR_SET_NAME, "sallyport-relay", 0, 0, 0);
    birth.client_fd = close_inherited(g, b->client_fd);
    if (birth.client_fd < 0 || (birth.listen_fd = listen_for_brokers()) < 0)
        _exit(1);
    birth.link_fd = connect_broker(g);
    enter_sandbox(g);
    status = relay_run(g->protocol->relay, &birth);
    if (sandbox_is_off_for_leaks())
        exit(status); /* the leak checker runs at exit() */
    _exit(status);    /* nothing of the gate's is ours to clean up */
}
