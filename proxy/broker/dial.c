/* Resolve and connect in a worker thread; see dial.h. */
#include "proxy/broker/dial.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/session.h>
#include <sallyport/text.h>

#include "proxy/broker/workers.h"

struct dial_job {
    struct job job;
    char host[256];
    char port[16];
    uint32_t timeout_s;
    int fd;
    char text[128];
    dial_fn done;
    void *arg;
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

/* Connect within what is left of the time; returns the descriptor or -1 with errno. */
static int connect_one(const struct addrinfo *a, int64_t until_ms)
{
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, a->ai_protocol);
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    int err = 0;
    socklen_t len = sizeof(err);

    if (fd < 0)
        return -1;
    if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
        return fd;
    err = errno;
    if (err == EINPROGRESS) {
        int64_t left = until_ms - clock_mono_ms();
        int ready = poll(&p, 1, left > 0 ? (int)left : 0);

        if (ready > 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0)
            return fd;
        if (ready == 0)
            err = ETIMEDOUT;
    }
    close(fd);
    errno = err;
    return -1;
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

static void run(struct job *job)
{
    struct dial_job *j = (struct dial_job *)job;
    int64_t until = clock_mono_ms() + (int64_t)j->timeout_s * 1000;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;

    if (getaddrinfo(j->host, j->port, &hints, &list) != 0) {
        text_copy(j->text, sizeof(j->text), "its name does not resolve");
        return;
    }
    for (const struct addrinfo *a = list; a && j->fd < 0; a = a->ai_next) {
        if (clock_mono_ms() >= until) {
            errno = ETIMEDOUT;
            break;
        }
        j->fd = connect_one(a, until);
    }
    if (j->fd < 0)
        text_copy(j->text, sizeof(j->text), sentence_end(errno));
    freeaddrinfo(list);
}

static void done(struct job *job)
{
    struct dial_job *j = (struct dial_job *)job;

    j->done(j->fd, j->text, j->arg);
    free(j);
}

int dial(struct workers *w, const char *address, uint32_t timeout_s, dial_fn fn, void *arg)
{
    struct dial_job *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return ERR_MEMORY;
    j->fd = -1;
    j->timeout_s = timeout_s;
    j->done = fn;
    j->arg = arg;
    j->job.run = run;
    j->job.done = done;
    r = dial_split(address, j->host, sizeof(j->host), j->port, sizeof(j->port));
    /* one lane a target: a dead one cannot hold every thread while others wait */
    for (const char *p = address; *p; p++)
        j->job.lane = j->job.lane * 131 + (uint8_t)*p;
    j->job.lane |= 1;
    if (r == 0)
        r = workers_submit(w, &j->job);
    if (r < 0)
        free(j);
    return r;
}
