/*
 * A leg's bytes: TLS records in and out of one socket without waiting. OpenSSL works on the socket
 * itself, so a record is decrypted straight into the memory from which it goes on, and encrypted
 * straight from there. Called from turns of proxy/rdp/session.c; callbacks only wake.
 */
#include "proxy/rdp/leg.h"

#include <errno.h>
#include <event2/event.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/rdp/tls.h"

#define IN_FIRST      (32u * 1024u)
#define OUT_FIRST     (16u * 1024u)
#define RECORD        (16u * 1024u)
#define TURN_MAX      (64u * 1024u) /* bytes read from one leg in one turn */
#define HASTE         (16u * 1024u) /* the first bytes of a leg are steps that wait for each other */
#define ALIVE_IDLE_S  30
#define ALIVE_EVERY_S 10
#define ALIVE_COUNT   3

static void leg_enter(struct leg *l, enum leg_state to)
{
    static const char *const names[] = {"closed", "plain", "handshake", "up", "dead"};

    log_debug("%s leg: %s -> %s%s%s", l->name, names[l->state], names[to], l->error[0] ? ": " : "",
              l->error);
    l->state = to;
}

static void die_with(struct leg *l, const char *why)
{
    if (!rdp_leg_is_alive(l))
        return;
    text_copy(l->error, sizeof(l->error), why);
    leg_enter(l, LEG_DEAD);
}

static void wake_cb(evutil_socket_t fd, short what, void *arg)
{
    struct leg *l = arg;

    (void)fd, (void)what;
    l->is_due = true;
    l->wake(l->arg);
}

void rdp_leg_init(struct leg *l, const char *name)
{
    memset(l, 0, sizeof(*l));
    l->name = name;
    l->fd = -1;
}

static void set_options(int fd)
{
    int one = 1, idle = ALIVE_IDLE_S, every = ALIVE_EVERY_S, count = ALIVE_COUNT;
    unsigned timeout_ms = (ALIVE_IDLE_S + ALIVE_EVERY_S * ALIVE_COUNT) * 1000; /* of what we sent */

    /* a peer without these (a test's socketpair) does without them */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof(every));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof(timeout_ms));
}

int rdp_leg_open(struct leg *l, int fd, struct event_base *base, void (*wake)(void *arg), void *arg)
{
    l->fd = fd;
    l->wake = wake;
    l->arg = arg;
    set_options(fd);
    l->readable = event_new(base, fd, EV_READ | EV_PERSIST, wake_cb, l);
    l->writable = event_new(base, fd, EV_WRITE | EV_PERSIST, wake_cb, l);
    if (!l->readable || !l->writable) {
        rdp_leg_close(l);
        return ERR_MEMORY;
    }
    leg_enter(l, LEG_PLAIN);
    return 0;
}

/* A login may have gone through it. */
static void release(uint8_t **memory, size_t cap)
{
    if (*memory)
        memory_wipe(*memory, cap);
    free(*memory);
    *memory = NULL;
}

void rdp_leg_close(struct leg *l)
{
    if (l->readable)
        event_free(l->readable);
    if (l->writable)
        event_free(l->writable);
    SSL_free(l->ssl);
    if (l->fd >= 0)
        close(l->fd);
    release(&l->in, l->in_cap);
    release(&l->out, l->out_cap);
    rdp_leg_init(l, l->name);
}

int rdp_leg_begin_tls(struct leg *l, SSL *ssl)
{
    if (!ssl)
        return ERR_MEMORY;
    if (l->state != LEG_PLAIN || l->in_len > 0) {
        SSL_free(ssl);
        return ERR_INVALID;
    }
    l->ssl = ssl;
    leg_enter(l, LEG_HANDSHAKE);
    return 0;
}

/* ---- reading ---- */

/* Room for `len` more bytes; false when the leg holds as much as it may. */
static bool make_room(struct leg *l, size_t len)
{
    size_t cap = l->in_cap ? l->in_cap : IN_FIRST;
    uint8_t *in;

    if (l->in_len == 0)
        l->in_start = 0;
    if (l->in && l->in_cap - l->in_start - l->in_len >= len)
        return true;
    if (l->in_start > 0) {
        memmove(l->in, l->in + l->in_start, l->in_len);
        l->in_start = 0;
    }
    while (cap < l->in_len + len)
        cap *= 2;
    if (l->in && l->in_cap >= cap)
        return true;
    if (cap > LEG_IN_MAX)
        return false;
    in = realloc(l->in, cap);
    if (!in) {
        die_with(l, "out of memory");
        return false;
    }
    l->in = in;
    l->in_cap = cap;
    return true;
}

/* Errors that others left in the thread's queue (a token that is no ASN.1) would be taken for those
 * of the next call on a leg. */
static void begin_call(void)
{
    ERR_clear_error();
    errno = 0;
}

/* What a failed call of OpenSSL means; true when it is only to wait. */
static bool is_waiting(struct leg *l, int r)
{
    int saved = errno;
    char why[128];

    switch (SSL_get_error(l->ssl, r)) {
    case SSL_ERROR_WANT_READ:
        return true;
    case SSL_ERROR_WANT_WRITE:
        l->wants_write = true;
        return true;
    case SSL_ERROR_ZERO_RETURN:
        l->is_clean = true;
        die_with(l, "closed");
        return false;
    case SSL_ERROR_SYSCALL:
        die_with(l, saved ? strerror(saved) : "closed");
        ERR_clear_error();
        return false;
    default:
        die_with(l, tls_error(why, sizeof(why)));
        return false;
    }
}

static ssize_t read_some(struct leg *l, uint8_t *dst, size_t len)
{
    ssize_t n;
    int r;

    if (l->ssl) {
        begin_call();
        r = SSL_read(l->ssl, dst, (int)len);
        if (r <= 0)
            (void)is_waiting(l, r);
        return r;
    }
    n = recv(l->fd, dst, len, 0);
    if (n == 0)
        die_with(l, "closed");
    else if (n < 0 && errno != EAGAIN && errno != EINTR)
        die_with(l, strerror(errno));
    return n;
}

/* The library reads as much at once as a record may have: after less the socket is empty, and
 * asking it again would be in vain. If it is not, it wakes us. */
static bool is_drained(const struct leg *l, size_t got)
{
    return l->ssl && got < RECORD && !SSL_has_pending(l->ssl);
}

/* Records one after another: a run of them goes on in one piece. */
static void read_in(struct leg *l)
{
    size_t got = 0;
    ssize_t n;

    l->has_more = l->is_due = l->wants_write = false;
    while (!l->is_stopped && (l->state == LEG_UP || l->state == LEG_PLAIN)) {
        if (got >= TURN_MAX || !make_room(l, RECORD)) {
            l->has_more = rdp_leg_is_alive(l);
            return;
        }
        n = read_some(l, l->in + l->in_start + l->in_len, RECORD);
        if (n <= 0)
            return;
        l->in_len += (size_t)n;
        l->received += (uint64_t)n;
        got += (size_t)n;
        if (is_drained(l, got))
            return;
    }
}

static void shake_hands(struct leg *l)
{
    int r;

    begin_call();
    l->wants_write = false;
    r = SSL_do_handshake(l->ssl);
    if (r == 1) {
        leg_enter(l, LEG_UP);
        l->has_more = true; /* what came with the handshake's end */
    } else {
        (void)is_waiting(l, r);
    }
}

/* A server that holds its next answer back until the last one is acknowledged (Nagle) would wait
 * for the kernel's timer at every step. The kernel forgets this soon, hence each time. */
static void acknowledge(const struct leg *l)
{
    int one = 1;

    if (l->received < HASTE)
        (void)setsockopt(l->fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

void rdp_leg_drive(struct leg *l)
{
    if (l->state == LEG_HANDSHAKE)
        shake_hands(l);
    if ((l->state == LEG_UP || l->state == LEG_PLAIN) && (l->is_due || l->has_more)) {
        read_in(l);
        acknowledge(l);
    }
}

void rdp_leg_use(struct leg *l, size_t len)
{
    if (!l->in) /* what stood there was a reason to close it */
        return;
    l->in_start += len;
    l->in_len -= len;
}

void rdp_leg_use_secret(struct leg *l, size_t len)
{
    if (l->in)
        memory_wipe(l->in + l->in_start, len);
    rdp_leg_use(l, len);
}

/* ---- writing ---- */

static ssize_t write_some(struct leg *l, const uint8_t *data, size_t len)
{
    ssize_t n;
    int r;

    if (l->ssl) {
        begin_call();
        r = SSL_write(l->ssl, data, (int)len);
        if (r <= 0)
            (void)is_waiting(l, r);
        return r;
    }
    n = send(l->fd, data, len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        die_with(l, strerror(errno));
    return n;
}

static bool can_write(const struct leg *l)
{
    return l->state == LEG_UP || l->state == LEG_PLAIN;
}

static void flush_out(struct leg *l)
{
    while (can_write(l) && l->out_len > 0) {
        ssize_t n = write_some(l, l->out + l->out_start, l->out_len);

        if (n <= 0)
            return;
        l->out_start += (size_t)n;
        l->out_len -= (size_t)n;
    }
    if (l->out_len == 0)
        l->out_start = 0;
}

static void keep(struct leg *l, const uint8_t *data, size_t len)
{
    size_t cap = l->out_cap ? l->out_cap : OUT_FIRST;
    uint8_t *out;

    if (l->out_start > 0 && l->out_cap - l->out_start - l->out_len < len) {
        memmove(l->out, l->out + l->out_start, l->out_len);
        l->out_start = 0;
    }
    while (cap < l->out_start + l->out_len + len)
        cap *= 2;
    if (cap > l->out_cap || !l->out) {
        out = cap > LEG_OUT_MAX ? NULL : realloc(l->out, cap);
        if (!out) {
            die_with(l, "too much waits to be sent");
            return;
        }
        l->out = out;
        l->out_cap = cap;
    }
    memcpy(l->out + l->out_start + l->out_len, data, len);
    l->out_len += len;
}

void rdp_leg_send(struct leg *l, const void *data, size_t len)
{
    const uint8_t *at = data;
    size_t all = len;

    if (l->out_len > 0)
        flush_out(l);
    while (l->out_len == 0 && len > 0 && can_write(l)) {
        ssize_t n = write_some(l, at, len);

        if (n <= 0)
            break;
        at += n;
        len -= (size_t)n;
    }
    if (len > 0 && rdp_leg_is_alive(l))
        keep(l, at, len);
    if (l->tap)
        l->tap(l->arg, data, all);
}

/* ---- the loop ---- */

void rdp_leg_stop(struct leg *l, bool is_stopped)
{
    if (l->is_stopped && !is_stopped)
        l->has_more = true; /* records may lie in the library already, which no socket announces */
    l->is_stopped = is_stopped;
}

void rdp_leg_settle(struct leg *l)
{
    if (l->fd < 0)
        return;
    if (can_write(l))
        flush_out(l);
    if (rdp_leg_is_alive(l) && !l->is_stopped && !(l->has_more))
        event_add(l->readable, NULL);
    else
        event_del(l->readable);
    if (rdp_leg_is_alive(l) && (l->wants_write || l->out_len > 0))
        event_add(l->writable, NULL);
    else
        event_del(l->writable);
}

void rdp_leg_shutdown(struct leg *l)
{
    if (!rdp_leg_is_alive(l))
        return;
    if (l->ssl && l->state == LEG_UP) {
        (void)SSL_shutdown(l->ssl);
        ERR_clear_error();
    }
    (void)shutdown(l->fd, SHUT_WR);
}

void rdp_leg_relax(struct leg *l)
{
    if (l->in_len == 0 && l->in) {
        release(&l->in, l->in_cap);
        l->in_cap = l->in_start = 0;
    }
    if (l->out_len == 0 && l->out) {
        release(&l->out, l->out_cap);
        l->out_cap = l->out_start = 0;
    }
}
