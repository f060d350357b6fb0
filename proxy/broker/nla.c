/* Attempts with sallyport-nla; see nla.h. */
#include "proxy/broker/nla.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/secret.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/program.h"

#define PROGRAM        "sallyport-nla"
#define START_EVERY_MS 1000

struct nla_helper {
    struct broker *broker; /* not owned */
    pid_t pid;             /* 0: is not there */
    int link;
    int64_t tried_ms; /* to start it */
    TAILQ_HEAD(, nla_attempt) dead;
    struct event *sweep; /* frees them */
};

struct nla_attempt {
    TAILQ_ENTRY(nla_attempt) entry; /* of the dead */
    struct nla_helper *helper;      /* not owned */
    int fd;                         /* -1: is dead */
    struct event *readable;
    struct nla_events events;
    void *arg;
    bool has_asked, has_hash; /* a process that was taken over may ask for more */
    bool is_proved, is_over;
};

static struct nla_talk message; /* scratch, wiped after use; large */

/* ---- the helper ---- */

static void become(const struct broker *b, const char *path, int link)
{
    struct program_sandbox sandbox;
    const char *argv[1 + PROGRAM_SANDBOX_MAX] = {PROGRAM};

    program_put_sandbox(b, &sandbox, argv, 1);
    program_become(b, path, argv, link);
}

static int spawn(struct nla_helper *h)
{
    char path[512];
    int pair[2];

    program_find(PROGRAM, SALLYPORT_LIBEXECDIR, path, sizeof(path));
    if (access(path, X_OK) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    h->pid = fork();
    if (h->pid == 0)
        become(h->broker, path, pair[1]);
    close(pair[1]);
    if (h->pid < 0 || fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
        close(pair[0]);
        h->pid = h->pid < 0 ? 0 : h->pid;
        return ERR_SYSTEM;
    }
    if (h->link >= 0)
        close(h->link);
    h->link = pair[0];
    return 0;
}

bool nla_helper_start(struct nla_helper *h)
{
    int64_t now_ms = clock_mono_ms();

    if (h->pid > 0)
        return true;
    if (h->tried_ms && now_ms - h->tried_ms < START_EVERY_MS)
        return false;
    h->tried_ms = now_ms;
    if (spawn(h) == 0)
        return true;
    log_error("%s cannot be started, so nobody can log in by NLA: %s", PROGRAM, strerror(errno));
    return false;
}

bool nla_helper_reaped(struct nla_helper *h, pid_t pid)
{
    if (!h || pid != h->pid)
        return false;
    log_error("%s is gone; the next login by NLA starts it again", PROGRAM);
    h->pid = 0;
    return true;
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct nla_helper *h = arg;
    struct nla_attempt *a;

    (void)fd, (void)what;
    while ((a = TAILQ_FIRST(&h->dead))) {
        TAILQ_REMOVE(&h->dead, a, entry);
        event_free(a->readable);
        free(a);
    }
}

struct nla_helper *nla_helper_create(struct broker *b)
{
    struct nla_helper *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    h->broker = b;
    h->link = -1;
    TAILQ_INIT(&h->dead);
    h->sweep = event_new(b->base, -1, 0, sweep_cb, h);
    if (h->sweep)
        return h;
    free(h);
    return NULL;
}

void nla_helper_destroy(struct nla_helper *h)
{
    if (!h)
        return;
    if (h->link >= 0)
        close(h->link);
    sweep_cb(-1, 0, h);
    event_free(h->sweep);
    free(h);
}

/* ---- an attempt ---- */

static void finish(struct nla_attempt *a, bool is_ok, const char *why)
{
    if (a->is_over)
        return;
    a->is_over = true;
    event_del(a->readable);
    a->events.over(a->arg, is_ok, why);
}

static void take(struct nla_attempt *a)
{
    switch ((enum nla_talk_type)message.type) {
    case NLA_TALK_WHO:
        if (a->has_asked) {
            finish(a, false, "it is out of step");
            break;
        }
        a->has_asked = true;
        a->events.who(a->arg, message.user, message.domain);
        break;
    case NLA_TALK_PROVED:
        if (!a->has_hash || a->is_proved) {
            finish(a, false, "it is out of step");
            break;
        }
        a->is_proved = true;
        a->events.proved(a->arg);
        break;
    case NLA_TALK_DONE:
        finish(a, a->is_proved, "it is out of step");
        break;
    case NLA_TALK_FAILED:
        finish(a, false, message.text);
        break;
    case NLA_TALK_START:
    case NLA_TALK_HASH:
    case NLA_TALK_TOKEN:
    case NLA_TALK_LOGIN:
    case NLA_TALK_TYPES:
        finish(a, false, "it is out of step");
        break;
    }
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct nla_attempt *a = arg;
    int r = nla_talk_receive(fd, &message, NULL);

    (void)what;
    if (r == ERR_AGAIN)
        return;
    if (r < 0)
        finish(a, false, "its process is gone");
    else
        take(a);
    memory_wipe(&message, sizeof(message));
}

static struct nla_attempt *attempt_new(struct nla_helper *h, int fd,
                                       const struct nla_events *events, void *arg)
{
    struct nla_attempt *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->helper = h;
    a->fd = fd;
    a->events = *events;
    a->arg = arg;
    a->readable = event_new(h->broker->base, fd, EV_READ | EV_PERSIST, readable_cb, a);
    if (a->readable && event_add(a->readable, NULL) == 0)
        return a;
    if (a->readable)
        event_free(a->readable);
    free(a);
    return NULL;
}

struct nla_attempt *nla_attempt_begin(struct nla_helper *h, const void *key, size_t len,
                                      const struct nla_events *events, void *arg, int *relay_fd)
{
    int ours[2] = {-1, -1}, relays[2] = {-1, -1}, theirs[2];
    struct nla_attempt *a = NULL;

    *relay_fd = -1;
    if (!h || !nla_helper_start(h) || len > sizeof(message.data) ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ours) < 0)
        return NULL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, relays) == 0 &&
        fcntl(ours[0], F_SETFL, O_NONBLOCK) == 0) {
        theirs[0] = ours[1];
        theirs[1] = relays[1];
        memset(&message, 0, sizeof(message));
        message.type = NLA_TALK_START;
        message.data_len = (uint16_t)len;
        memcpy(message.data, key, len);
        if (nla_talk_send(h->link, &message, theirs) == 0)
            a = attempt_new(h, ours[0], events, arg);
    }
    close(ours[1]);
    if (relays[1] >= 0)
        close(relays[1]);
    if (a) {
        *relay_fd = relays[0];
        return a;
    }
    close(ours[0]);
    if (relays[0] >= 0)
        close(relays[0]);
    return NULL;
}

void nla_attempt_hash(struct nla_attempt *a, const uint8_t hash[NLA_HASH_LEN])
{
    if (a->is_over)
        return;
    a->has_hash = true;
    memset(&message, 0, sizeof(message));
    message.type = NLA_TALK_HASH;
    message.data_len = NLA_HASH_LEN;
    memcpy(message.data, hash, NLA_HASH_LEN);
    if (nla_talk_send(a->fd, &message, NULL) < 0)
        log_debug("an attempt takes no hash"); /* its end follows */
    memory_wipe(&message, sizeof(message));
}

void nla_attempt_end(struct nla_attempt *a)
{
    if (!a || a->fd < 0)
        return;
    event_del(a->readable);
    close(a->fd);
    a->fd = -1;
    a->is_over = true;
    TAILQ_INSERT_TAIL(&a->helper->dead, a, entry);
    event_active(a->helper->sweep, 0, 0);
}
