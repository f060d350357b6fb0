/*
 * Commands of the user's own (`ssh USER@BASTION sessions`): the broker starts them and hands over
 * their descriptors; here bytes go between those and the channel, with back pressure both ways:
 * nothing is read that the client does not take, and what the command does not read stays with the
 * client. Nothing is buffered here but what was read while keys were changed. Steps of a turn;
 * callbacks only note.
 */
#include "proxy/ssh/session.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/text.h>

#define CHUNK        16384u
#define CHUNKS       16 /* of one stream in one turn */
#define TERMINAL_EOF 4  /* ^D */
#define EXIT_LOST    5  /* as sallyctl says "daemon not reachable" */

enum stream { STREAM_OUT, STREAM_ERR, STREAM_COUNT };

struct door {
    struct session *session;   /* not owned */
    int in, out[STREAM_COUNT]; /* -1: closed; of a terminal `in` and the first `out` are one */
    bool is_same;              /* they are: closed once */
    struct event *can_write, *can_read[STREAM_COUNT];
    bool is_ready[STREAM_COUNT]; /* readable, as far as is known */
    uint8_t *kept;               /* NULL, or what a key exchange kept from being written */
    size_t kept_len;
    bool is_kept_err;
    bool is_full; /* the command reads no more just now */
    bool sent_eof;
    bool has_result, is_over; /* is_over: the exit status is known */
    bool is_told;             /* the client has it too */
    uint8_t exit_status;
    char text[512]; /* a line for stderr, or "" */
};

/* ---- asking ---- */

static const char *address_text(const struct sockaddr_storage *ss, char *dst, size_t len)
{
    const struct sockaddr_in *v4 = (const void *)ss;
    const struct sockaddr_in6 *v6 = (const void *)ss;
    char host[INET6_ADDRSTRLEN] = "";

    dst[0] = '\0';
    if (ss->ss_family == AF_INET) {
        inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host));
        snprintf(dst, len, "%s:%u", host, ntohs(v4->sin_port));
    } else if (ss->ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr)) {
        inet_ntop(AF_INET, &v6->sin6_addr.s6_addr[12], host, sizeof(host));
        snprintf(dst, len, "%s:%u", host, ntohs(v6->sin6_port));
    } else if (ss->ss_family == AF_INET6) {
        inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host));
        snprintf(dst, len, "[%s]:%u", host, ntohs(v6->sin6_port));
    }
    return dst;
}

/* What the client connected to, as we see it. */
static void name_server(const struct session *s, char *dst, size_t len)
{
    struct sockaddr_storage ss = {0};
    socklen_t ss_len = sizeof(ss);

    dst[0] = '\0';
    if (s->user.fd >= 0 && getsockname(s->user.fd, (struct sockaddr *)&ss, &ss_len) == 0)
        (void)address_text(&ss, dst, len);
}

bool door_begin(struct channel *c)
{
    struct link_door request = {.channel = c->number,
                                .change = LINK_DOOR_OPEN,
                                .has_pty = c->has_pty,
                                .cols = c->cols,
                                .rows = c->rows};
    struct door *d;

    if (c->door || !c->command || !text_copy(request.command, sizeof(request.command), c->command))
        return false;
    text_copy(request.term, sizeof(request.term), c->term);
    name_server(c->session, request.address, sizeof(request.address));
    if (!(d = calloc(1, sizeof(*d))))
        return false;
    d->session = c->session;
    d->in = d->out[STREAM_OUT] = d->out[STREAM_ERR] = -1;
    if (!relay_door_open(c->session->relay, &request)) {
        free(d);
        return false;
    }
    c->door = d;
    return true;
}

void door_resize(struct channel *c)
{
    if (c->has_pty && !c->door->is_over)
        relay_door_resize(c->session->relay, c->number, c->cols, c->rows);
}

/* ---- descriptors ---- */

static void close_in(struct door *d)
{
    if (d->can_write)
        event_free(d->can_write);
    d->can_write = NULL;
    if (d->in >= 0 && !d->is_same)
        close(d->in);
    d->in = -1;
}

static void close_out(struct door *d, enum stream stream)
{
    if (d->can_read[stream])
        event_free(d->can_read[stream]);
    d->can_read[stream] = NULL;
    if (d->out[stream] >= 0)
        close(d->out[stream]);
    d->out[stream] = -1;
    if (d->is_same)
        close_in(d);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct door *d = arg;

    (void)what;
    for (int i = 0; i < STREAM_COUNT; i++)
        d->is_ready[i] |= d->out[i] == fd;
    session_wake(d->session);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct door *d = arg;

    (void)fd, (void)what;
    d->is_full = false;
    session_wake(d->session);
}

static bool attach(struct door *d, const int fds[3])
{
    struct event_base *base = relay_base(d->session->relay);
    bool is_ok = true;

    d->is_same = fds[1] < 0;
    d->in = fds[0];
    d->out[STREAM_OUT] = d->is_same ? fds[0] : fds[1];
    d->out[STREAM_ERR] = d->is_same ? -1 : fds[2];
    d->can_write = event_new(base, d->in, EV_WRITE, on_writable, d);
    for (int i = 0; i < STREAM_COUNT && is_ok; i++) {
        if (d->out[i] < 0)
            continue;
        d->is_ready[i] = true;
        d->can_read[i] = event_new(base, d->out[i], EV_READ, on_readable, d);
        is_ok = d->can_read[i] != NULL;
    }
    return is_ok && d->can_write;
}

/* ---- what the broker says ---- */

static struct channel *find(struct session *s, uint32_t number)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->number == number && c->door)
            return c;
    }
    return NULL;
}

static void over(struct door *d, uint8_t exit_status, const char *text)
{
    if (d->is_over)
        return;
    d->is_over = true;
    d->exit_status = exit_status;
    text_copy(d->text, sizeof(d->text), text);
    session_want_turn(d->session);
}

void door_result(struct session *s, const struct link_door_result *result, const int fds[3])
{
    struct channel *c = find(s, result->channel);

    if (!c || c->door->has_result) {
        for (int i = 0; i < 3; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        return;
    }
    c->door->has_result = true;
    if (!result->is_ok)
        over(c->door, result->exit_status, result->text);
    else if (!attach(c->door, fds))
        over(c->door, 1, "sallyport: out of memory");
    session_want_turn(s);
}

void door_exit(struct session *s, const struct link_door_exit *end)
{
    struct channel *c = find(s, end->channel);

    if (c)
        over(c->door, end->exit_status, end->text);
}

void door_broker_lost(struct session *s)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (c->door && c->door->has_result) /* one that was not started yet is asked for again */
            over(c->door, EXIT_LOST,
                 "sallyport: the proxy was restarted and ended the command; run it again");
    }
}

/* ---- a turn's work ---- */

/* Keep what was read and not written: while keys are changed no room is seen to be missing. */
static void keep(struct door *d, const uint8_t *data, size_t len, bool is_err)
{
    if (!(d->kept = malloc(len))) {
        session_end(d->session, END_RELAY_CRASHED, "relay", "output was lost", "");
        return;
    }
    memcpy(d->kept, data, len);
    d->kept_len = len;
    d->is_kept_err = is_err;
}

static void drop_kept(struct door *d)
{
    free(d->kept);
    d->kept = NULL;
}

/* False while something is kept: a turn comes with the new keys. */
static bool show_kept(struct channel *c)
{
    struct door *d = c->door;

    if (d->kept && pump_show(c, d->kept, d->kept_len, d->is_kept_err))
        drop_kept(d);
    return !d->kept;
}

/* From the command to the client. */
static void drain(struct channel *c, enum stream stream)
{
    struct door *d = c->door;
    uint8_t chunk[CHUNK];

    if (!show_kept(c))
        return;
    for (int i = 0; i < CHUNKS && d->out[stream] >= 0 && d->is_ready[stream]; i++) {
        uint32_t room = pump_room(c);
        ssize_t n;

        if (room == 0) /* a turn comes when the client takes more */
            return;
        n = read(d->out[stream], chunk, room < CHUNK ? room : CHUNK);
        if (n > 0 && !pump_show(c, chunk, (size_t)n, stream == STREAM_ERR)) {
            keep(d, chunk, (size_t)n, stream == STREAM_ERR);
            return;
        }
        if (n < 0 && errno == EAGAIN)
            d->is_ready[stream] = false;
        else if (n == 0 || (n < 0 && errno != EINTR)) /* EIO: the terminal has nobody left */
            close_out(d, stream);
    }
    if (d->out[stream] < 0)
        return;
    if (d->is_ready[stream])
        session_want_turn(d->session);
    else
        (void)event_add(d->can_read[stream], NULL);
}

static void take(struct spool *in, size_t n)
{
    in->len -= (uint32_t)n;
    in->start = in->len > 0 ? in->start + (uint32_t)n : 0;
}

/* All that the client typed is with the command: so may its end be. */
static void pass_eof(struct door *d)
{
    const uint8_t eof = TERMINAL_EOF;

    if (!d->is_same)
        close_in(d);
    else if (write(d->in, &eof, 1) < 0)
        d->is_full = errno == EAGAIN;
    d->sent_eof = !d->is_full;
}

/* From the client to the command. */
static void feed(struct channel *c)
{
    struct spool *in = &c->user.in[0];
    struct door *d = c->door;

    for (int i = 0; i < CHUNKS && d->in >= 0 && !d->is_full; i++) {
        ssize_t n;

        pump_refill(&c->user, 0);
        if (in->len == 0)
            break;
        n = write(d->in, in->data + in->start, in->len);
        if (n > 0)
            take(in, (size_t)n);
        else if (n < 0 && errno == EAGAIN)
            d->is_full = true;
        else if (n < 0 && errno != EINTR)
            close_in(d);
    }
    if (d->in >= 0 && in->len == 0 && c->user.got_eof && !d->sent_eof && pump_is_empty(&c->user))
        pass_eof(d);
    if (d->in >= 0 && d->is_full)
        (void)event_add(d->can_write, NULL);
    else if (d->in >= 0 && in->len > 0)
        session_want_turn(d->session);
}

/* Its last line and its exit status, behind all that it said. */
static void finish(struct channel *c)
{
    struct door *d = c->door;
    char line[sizeof(d->text) + 2];

    if (d->is_told)
        return;
    if (d->text[0]) {
        snprintf(line, sizeof(line), "%s%s", d->text, c->has_pty ? "\r\n" : "\n");
        if (!pump_show(c, line, strlen(line), true))
            return; /* a turn comes when there is room, or with new keys */
    }
    d->is_told = true;
    channel_exit_local(c, d->exit_status);
}

void door_step(struct channel *c)
{
    struct door *d = c->door;

    if (d->has_result && !d->is_told) {
        drain(c, STREAM_OUT);
        drain(c, STREAM_ERR);
        feed(c);
    }
    if (d->is_over && d->out[STREAM_OUT] < 0 && d->out[STREAM_ERR] < 0)
        finish(c);
}

void door_free(struct channel *c)
{
    struct door *d = c->door;

    if (!d)
        return;
    close_in(d);
    close_out(d, STREAM_OUT);
    close_out(d, STREAM_ERR);
    drop_kept(d);
    relay_door_close(c->session->relay, c->number);
    free(d);
    c->door = NULL;
}
