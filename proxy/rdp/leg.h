/*
 * One side of an RDP connection: a socket, TLS over it once that began, what was received and not
 * used yet, and what could not be sent yet. Non-blocking; wakes its session when there is something
 * to do. Whole PDUs go through without a copy: what came is handed on from the same memory.
 */
#ifndef RDP_LEG_H
#define RDP_LEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include <sallyport/cursor.h>
#include <sallyport/errors.h>

struct event;
struct event_base;

/* A frame is 64 KiB at most; beside one that is incomplete there is room for some records. */
#define LEG_IN_MAX   (128u * 1024u)
#define LEG_OUT_HIGH (256u * 1024u) /* the other leg is not read above this */
#define LEG_OUT_LOW  (64u * 1024u)
#define LEG_OUT_MAX  (8u * 1024u * 1024u) /* a notice on a large screen, beside what waits */

enum leg_state {
    LEG_CLOSED,
    LEG_PLAIN,     /* before TLS */
    LEG_HANDSHAKE, /* TLS begins */
    LEG_UP,
    LEG_DEAD /* the peer closed, or it failed: `error` says how */
};

struct leg {
    enum leg_state state; /* leg_enter() sets it */
    const char *name;     /* "user" or "target", for the log */
    int fd;
    SSL *ssl;
    struct event *readable, *writable;
    bool is_stopped; /* rdp_leg_stop(): nothing is read */
    bool is_clean;   /* dead, and TLS was closed before the connection was */
    bool wants_write;
    bool has_more;     /* reading stopped before the socket was empty */
    bool is_due;       /* the socket woke us, and it was not read since */
    uint64_t received; /* payload bytes */
    uint8_t *in, *out;
    size_t in_start, in_len, in_cap;
    size_t out_start, out_len, out_cap;
    char error[128];
    void (*wake)(void *arg);
    void (*tap)(void *arg, const void *data, size_t len); /* NULL, or sees what is sent */
    void *arg;
};

void rdp_leg_init(struct leg *l, const char *name);
/* fd is owned from here. wake(arg) is called from the loop only. */
MUST_CHECK int rdp_leg_open(struct leg *l, int fd, struct event_base *base, void (*wake)(void *arg),
                            void *arg);
/* Close at once; may be called in any state, and twice. Frees what it holds. */
void rdp_leg_close(struct leg *l);

/* Begin TLS; what was received before is not allowed to be more than was used. ssl is owned from
 * here. */
MUST_CHECK int rdp_leg_begin_tls(struct leg *l, SSL *ssl);

/* Read and go on with a handshake, as far as it goes without waiting. */
void rdp_leg_drive(struct leg *l);
/* Send what waits and ask the loop for what is wanted. At the end of every turn. */
void rdp_leg_settle(struct leg *l);

/* What came and was not used: borrowed until rdp_leg_drive(); may be written to. */
static inline struct cursor rdp_leg_input(const struct leg *l)
{
    return cursor_of(l->in ? l->in + l->in_start : NULL, l->in_len);
}
void rdp_leg_use(struct leg *l, size_t len);
/* The same, and nothing of it stays in memory: it held a secret. */
void rdp_leg_use_secret(struct leg *l, size_t len);

/* Send, now or later. Past LEG_OUT_MAX, or without memory, the leg dies. */
void rdp_leg_send(struct leg *l, const void *data, size_t len);
static inline size_t rdp_leg_unsent(const struct leg *l)
{
    return l->out_len;
}

void rdp_leg_stop(struct leg *l, bool is_stopped);
static inline bool rdp_leg_is_alive(const struct leg *l)
{
    return l->state == LEG_PLAIN || l->state == LEG_HANDSHAKE || l->state == LEG_UP;
}

/* TLS close_notify and FIN; then wait for the peer to close. */
void rdp_leg_shutdown(struct leg *l);

/* Give empty buffers back. */
void rdp_leg_relax(struct leg *l);

#endif
