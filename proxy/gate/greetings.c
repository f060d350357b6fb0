/*
 * Connections from load balancers, until their PROXY header is there: it says whose limits count
 * and who the client is. Nobody else's first bytes are looked at. Bounded in number and in time;
 * what comes through goes on to visitors_admit() as if the client had connected itself.
 */
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#include "proxy/gate/gate_priv.h"
#include "proxy/gate/proxy_header.h"

#define GREETING_S 5 /* for all of it, however it drips */

struct greeting {
    TAILQ_ENTRY(greeting) entry;
    struct gate *gate; /* not owned */
    int fd;
    struct event *event;
    int64_t began_ms;
    struct client_name balancer;
};

void greetings_init(struct gate *g)
{
    TAILQ_INIT(&g->greetings);
}

static void drop(struct greeting *w)
{
    TAILQ_REMOVE(&w->gate->greetings, w, entry);
    w->gate->greeting_count--;
    if (w->event)
        event_free(w->event);
    if (w->fd >= 0)
        close(w->fd);
    free(w);
}

static void refuse(struct greeting *w, const char *why)
{
    static struct log_limit limit;
    char address[NETWORK_TEXT_MAX];

    if (log_limit_allows(&limit, 12, "connections without a PROXY header"))
        log_warn("connection from the trusted proxy %s closed: %s",
                 network_address_text(w->balancer.address, address), why);
    drop(w);
}

/* Wake when there is more than this; otherwise bytes that are left in the socket would spin. */
static void wait_for_more(const struct greeting *w, size_t have)
{
    int more = (int)have + 1;

    (void)setsockopt(w->fd, SOL_SOCKET, SO_RCVLOWAT, &more, sizeof(more));
}

static void admit(struct greeting *w, const struct proxy_header *h, size_t len)
{
    struct client_name name = w->balancer;
    struct gate *g = w->gate;
    uint8_t header[PROXY_HEADER_MAX];
    int fd = w->fd;

    wait_for_more(w, 0);
    if (recv(fd, header, len, MSG_DONTWAIT) != (ssize_t)len) {
        refuse(w, "its header could not be read");
        return;
    }
    if (!h->is_own) {
        memcpy(name.address, h->address, sizeof(name.address));
        name.port = h->port;
    }
    w->fd = -1;
    drop(w);
    visitors_admit(g, fd, &name);
    visitors_step(g);
}

static void greeting_cb(evutil_socket_t fd, short what, void *arg)
{
    struct greeting *w = arg;
    uint8_t data[PROXY_HEADER_MAX];
    struct cursor c;
    struct proxy_header h;
    enum parse r;
    ssize_t n;

    if ((what & EV_TIMEOUT) || clock_mono_ms() - w->began_ms > GREETING_S * 1000) {
        refuse(w, "no PROXY header came in time");
        return;
    }
    n = recv(fd, data, sizeof(data), MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) { /* a health check, usually */
        drop(w);
        return;
    }
    c = cursor_of(data, (size_t)n);
    r = proxy_header_parse(&c, &h);
    if (r == PARSE_MORE)
        wait_for_more(w, (size_t)n);
    else if (r == PARSE_OK)
        admit(w, &h, (size_t)(c.at - data));
    else
        refuse(w, "what it sent first is no PROXY header");
}

bool greetings_await(struct gate *g, int fd, const struct client_name *balancer)
{
    const struct timeval wait = {GREETING_S, 0};
    struct greeting *w;
    bool is_trusted = false;

    for (size_t i = 0; i < g->trusted_count && !is_trusted; i++)
        is_trusted = network_contains(&g->trusted[i], balancer->address);
    if (!is_trusted)
        return false;
    if (g->greeting_count >= GREETINGS_MAX)
        drop(TAILQ_FIRST(&g->greetings));
    w = calloc(1, sizeof(*w));
    if (!w) {
        close(fd);
        return true;
    }
    *w = (struct greeting){.gate = g, .fd = fd, .began_ms = clock_mono_ms(), .balancer = *balancer};
    TAILQ_INSERT_TAIL(&g->greetings, w, entry);
    g->greeting_count++;
    w->event = event_new(g->base, fd, EV_READ | EV_PERSIST, greeting_cb, w);
    if (!w->event || event_add(w->event, &wait) < 0)
        drop(w);
    return true;
}

void greetings_trust(struct gate *g, const char *networks)
{
    char text[sizeof(g->config.trusted_proxies)], *at = text, *word;

    memcpy(text, networks, strlen(networks) + 1);
    g->trusted_count = 0;
    while ((word = strsep(&at, ",")))
        if (*word && g->trusted_count < TRUSTED_MAX &&
            network_parse(word, &g->trusted[g->trusted_count]) == 0)
            g->trusted_count++;
}

void greetings_destroy(struct gate *g)
{
    while (!TAILQ_EMPTY(&g->greetings))
        drop(TAILQ_FIRST(&g->greetings));
}
