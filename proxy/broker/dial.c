/*
 * Resolve in a thread, connect in the loop; see dial.h. One call is two objects: the look-up, which
 * a thread may hold long after anybody waits for it, and the dial, which ends in time whatever the
 * name service does.
 */
#include "proxy/broker/dial.h"

#include <errno.h>
#include <event2/event.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/session.h>
#include <sallyport/text.h>

#include "proxy/broker/workers.h"

#define DIALS_MAX  2048
#define TRY_MIN_MS 1000 /* one address has at least this long, if there is as much left */

struct lookup {
    struct job job;
    char host[256];
    char port[16];
    struct addrinfo *list;
    struct dialing *dialing; /* not owned; NULL when nobody waits any more. The loop's alone */
};

struct dialing {
    TAILQ_ENTRY(dialing) entry;
    struct dialer *dialer; /* not owned */
    struct lookup *lookup; /* under way; not owned */
    struct addrinfo *list, *next;
    const struct addrinfo *trying;
    dial_trace_fn trace; /* NULL: nobody wants to know */
    int64_t until_ms;
    int fd, error;
    bool has_begun;          /* with the first address */
    struct event *connected; /* of fd; made anew for each address */
    struct event *timer;     /* the next address, or the end */
    dial_fn done;
    void *arg;
};
TAILQ_HEAD(dialing_list, dialing);

struct dialer {
    struct event_base *base; /* not owned */
    struct workers *workers; /* not owned */
    struct dialing_list live, dead;
    struct event *sweep;
    unsigned count;
};

int dial_split(const char *address, char *host, size_t host_len, char *port, size_t port_len)
{
    const char *colon = strrchr(address, ':');
    const char *begin = address, *end = colon;

    if (!colon || colon == address || !colon[1])
        return ERR_INVALID;
    if (*begin == '[') {
        begin++;
        end--;
        if (end <= begin || *end != ']')
            return ERR_INVALID;
    }
    if ((size_t)(end - begin) >= host_len || strlen(colon + 1) >= port_len)
        return ERR_INVALID;
    memcpy(host, begin, (size_t)(end - begin));
    host[end - begin] = '\0';
    text_copy(port, port_len, colon + 1);
    return 0;
}

static const char *sentence_end(int err)
{
    switch (err) {
    case ECONNREFUSED:
        return "connection refused";
    case ETIMEDOUT:
        return "no answer in time";
    case EHOSTUNREACH:
    case ENETUNREACH:
        return "no route to it";
    default:
        return "cannot connect";
    }
}

/* ---- telling ---- */

static void show_address(const struct addrinfo *a, char *dst, size_t len)
{
    char host[64] = "?", port[16] = "?";

    (void)getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), port, sizeof(port),
                      NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(dst, len, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
}

static void tell_resolved(const struct dialing *g, const char *failure)
{
    char text[SESSION_TEXT_MAX] = "", one[96];
    size_t at = 0;

    if (!g->trace)
        return;
    for (const struct addrinfo *a = g->list; a && at < sizeof(text) - 1; a = a->ai_next) {
        show_address(a, one, sizeof(one));
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? ", " : "", one);
    }
    g->trace(DIAL_RESOLVED, !failure, failure ? failure : text, g->arg);
}

/* The address that is being tried has failed, or connected. */
static void tell_tried(struct dialing *g, const char *failure)
{
    char text[160], one[96];

    if (!g->trace || !g->trying)
        return;
    show_address(g->trying, one, sizeof(one));
    snprintf(text, sizeof(text), "%s%s%s", one, failure ? ": " : "", failure ? failure : "");
    g->trying = NULL;
    g->trace(DIAL_TRIED, !failure, text, g->arg);
}

/* ---- the end of a dial ---- */

static void dialing_free(struct dialing *g)
{
    if (g->connected)
        event_free(g->connected);
    if (g->timer)
        event_free(g->timer);
    if (g->list)
        freeaddrinfo(g->list);
    free(g);
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct dialer *d = arg;
    struct dialing *g;

    (void)fd, (void)what;
    while ((g = TAILQ_FIRST(&d->dead))) {
        TAILQ_REMOVE(&d->dead, g, entry);
        dialing_free(g);
    }
}

static void stop_trying(struct dialing *g)
{
    if (g->connected)
        event_del(g->connected);
    if (g->fd >= 0)
        close(g->fd);
    g->fd = -1;
}

/* The one end: fd is the caller's from here. */
static void finish(struct dialing *g, int fd, const char *text)
{
    struct dialer *d = g->dialer;

    if (g->connected)
        event_del(g->connected);
    event_del(g->timer);
    g->fd = -1;
    if (g->lookup)
        g->lookup->dialing = NULL;
    g->lookup = NULL;
    TAILQ_REMOVE(&d->live, g, entry);
    TAILQ_INSERT_TAIL(&d->dead, g, entry);
    d->count--;
    event_active(d->sweep, 0, 0);
    g->done(fd, text, g->arg);
}

/* ---- connecting ---- */

static unsigned addresses_left(const struct dialing *g)
{
    unsigned n = 0;

    for (const struct addrinfo *a = g->next; a; a = a->ai_next)
        n++;
    return n;
}

/* One that does not answer leaves time for those behind it. */
static void arm_timer(struct dialing *g)
{
    int64_t left = g->until_ms - clock_mono_ms();
    int64_t share = left / (addresses_left(g) + 1);
    struct timeval in;

    if (share < TRY_MIN_MS)
        share = left < TRY_MIN_MS ? left : TRY_MIN_MS;
    if (share < 0)
        share = 0;
    in.tv_sec = share / 1000;
    in.tv_usec = share % 1000 * 1000;
    event_add(g->timer, &in);
}

static void connected_cb(evutil_socket_t fd, short what, void *arg);

/* 0: connected or on its way; else errno. */
static int try_one(struct dialing *g, const struct addrinfo *a)
{
    int flags = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK;

    g->fd = socket(a->ai_family, flags, a->ai_protocol);
    if (g->fd < 0)
        return errno;
    if (connect(g->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
        return errno;
    if (g->connected)
        event_free(g->connected);
    g->connected = event_new(g->dialer->base, g->fd, EV_WRITE, connected_cb, g);
    return g->connected && event_add(g->connected, NULL) == 0 ? 0 : ENOMEM;
}

static void try_next(struct dialing *g)
{
    stop_trying(g);
    tell_tried(g, sentence_end(g->error));
    while (g->next && clock_mono_ms() < g->until_ms) {
        const struct addrinfo *a = g->next;
        int err;

        g->next = a->ai_next;
        g->trying = a;
        err = try_one(g, a);
        if (err == 0) {
            arm_timer(g);
            return;
        }
        g->error = err;
        stop_trying(g);
        tell_tried(g, sentence_end(err));
    }
    finish(g, -1, sentence_end(g->next ? ETIMEDOUT : g->error));
}

static void connected_cb(evutil_socket_t fd, short what, void *arg)
{
    struct dialing *g = arg;
    socklen_t len = sizeof(g->error);

    (void)what;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &g->error, &len) == 0 && g->error == 0) {
        tell_tried(g, NULL);
        finish(g, fd, "");
    } else {
        event_active(g->timer, 0, 0); /* the next one, and not from its own callback */
    }
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct dialing *g = arg;

    (void)fd;
    if (what & EV_TIMEOUT)
        g->error = ETIMEDOUT;
    if (g->lookup) {
        tell_resolved(g, "its name does not resolve in time");
        finish(g, -1, "its name does not resolve in time");
    } else {
        if (!g->has_begun)
            tell_resolved(g, NULL);
        g->has_begun = true;
        try_next(g);
    }
}

/* ---- looking up ---- */

static int look_up(struct lookup *l, int flags)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};

    if (getaddrinfo(l->host, l->port, &hints, &l->list) == 0)
        return 0;
    l->list = NULL;
    return ERR_NOT_FOUND;
}

static void run(struct job *job)
{
    (void)look_up((struct lookup *)job, 0);
}

static void looked_up(struct job *job)
{
    struct lookup *l = (struct lookup *)job;
    struct dialing *g = l->dialing;

    if (g) {
        g->lookup = NULL;
        g->list = g->next = l->list;
        l->list = NULL;
        tell_resolved(g, g->list ? NULL : "its name does not resolve");
        g->has_begun = true;
        if (g->list)
            try_next(g);
        else
            finish(g, -1, "its name does not resolve");
    }
    if (l->list)
        freeaddrinfo(l->list);
    free(l);
}

/* An address in figures at once, a name in a thread. */
static int begin(struct dialing *g, struct lookup *l)
{
    struct timeval whole = {0, 0};
    int64_t left = g->until_ms - clock_mono_ms();

    if (look_up(l, AI_NUMERICHOST) == 0) {
        g->list = g->next = l->list;
        free(l);
        event_active(g->timer, 0, 0);
        return 0;
    }
    /* one lane a name: one that does not resolve cannot hold every thread while others wait */
    for (const char *p = l->host; *p; p++)
        l->job.lane = l->job.lane * 131 + (uint8_t)*p;
    l->job.lane |= 1;
    l->job.run = run;
    l->job.done = looked_up;
    l->dialing = g;
    g->lookup = l;
    whole.tv_sec = left / 1000;
    whole.tv_usec = left % 1000 * 1000;
    if (event_add(g->timer, &whole) < 0)
        return ERR_MEMORY;
    return workers_submit(g->dialer->workers, &l->job);
}

int dial(struct dialer *d, const char *address, uint32_t timeout_s, dial_fn fn, void *arg)
{
    return dial_traced(d, address, timeout_s, NULL, fn, arg);
}

int dial_traced(struct dialer *d, const char *address, uint32_t timeout_s, dial_trace_fn trace,
                dial_fn fn, void *arg)
{
    struct lookup *l = calloc(1, sizeof(*l));
    struct dialing *g = calloc(1, sizeof(*g));
    int r = ERR_MEMORY;

    if (g) {
        g->dialer = d;
        g->fd = -1;
        g->until_ms = clock_mono_ms() + (int64_t)timeout_s * 1000;
        g->trace = trace;
        g->done = fn;
        g->arg = arg;
        g->timer = event_new(d->base, -1, 0, timer_cb, g);
    }
    if (l && g && g->timer)
        r = dial_split(address, l->host, sizeof(l->host), l->port, sizeof(l->port));
    if (r == 0 && d->count >= DIALS_MAX)
        r = ERR_FULL;
    if (r == 0 && (r = begin(g, l)) == 0) {
        TAILQ_INSERT_TAIL(&d->live, g, entry);
        d->count++;
        return 0;
    }
    if (g)
        dialing_free(g);
    free(l);
    return r;
}

/* ---- the dialer ---- */

struct dialer *dialer_create(struct event_base *base, struct workers *workers)
{
    struct dialer *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->base = base;
    d->workers = workers;
    TAILQ_INIT(&d->live);
    TAILQ_INIT(&d->dead);
    d->sweep = event_new(base, -1, 0, sweep_cb, d);
    if (!d->sweep) {
        free(d);
        return NULL;
    }
    return d;
}

void dialer_destroy(struct dialer *d)
{
    struct dialing *g;

    if (!d)
        return;
    while ((g = TAILQ_FIRST(&d->live))) {
        stop_trying(g);
        finish(g, -1, "the proxy stops");
    }
    sweep_cb(-1, 0, d);
    event_free(d->sweep);
    free(d);
}
