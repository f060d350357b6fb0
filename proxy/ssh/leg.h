/*
 * One leg: a libssh session on a connected socket, driven by readiness. It knows nothing of users,
 * targets or channels. libssh may close the descriptor by itself; the leg notices and lets go.
 */
#ifndef SSH_LEG_H
#define SSH_LEG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "proxy/ssh/io.h"
#include "proxy/ssh/libssh.h"

struct event;
struct event_base;

#define LEG_BUDGET (1024u * 1024u) /* bytes that may wait in libssh's output buffer */

enum leg_state {
    LEG_NONE,      /* not opened yet */
    LEG_HANDSHAKE, /* key exchange is running */
    LEG_UP,
    LEG_DEAD,  /* the connection is over; `end` says how */
    LEG_CLOSED /* everything freed */
};

enum leg_end {
    LEG_END_NONE,
    LEG_END_BYE,  /* the peer sent SSH_MSG_DISCONNECT */
    LEG_END_LOST, /* end of file or a socket error without it */
    LEG_END_ERROR /* libssh refused what the peer sent */
};

struct leg {
    enum leg_state state;
    enum leg_end end;
    bool is_server;
    int fd;
    ssh_session ssh;
    ssh_event poll; /* from the first handshake step on */
    struct io *io;
    struct event *readable, *writable;
    bool is_writable_armed;
    uint32_t unsent;     /* written since the output buffer was last empty */
    uint64_t seen_bytes; /* io->received at the last keep-alive */
    uint32_t unanswered; /* keep-alives in a row without a byte from the peer */
    bool is_probing;     /* a keep-alive of ours waits for its answer */
    bool is_lent;
    bool is_asking;               /* another global request of ours does; see leg_begin_request() */
    bool (*on_packet)(void *arg); /* see leg_watch_packets() */
    void *packet_arg;
    uint64_t asked_bytes; /* io->received at leg_ask() */
    char error[200];      /* libssh's words, for the log and for sentences */
    void (*wake)(void *arg);
    void *arg;
};

/* Start the server side on an accepted socket, or the client side on a connected one; fd is owned
 * from here. wake(arg) is called from the loop when the socket is ready. ERR_MEMORY or ERR_CRYPTO,
 * with the leg closed. account: for libssh's own use; host_key_type: see algorithms.h. */
MUST_CHECK int leg_open_server(struct leg *leg, ssh_bind bind, int fd, struct event_base *base,
                               void (*wake)(void *), void *arg);
MUST_CHECK int leg_open_client(struct leg *leg, const char *host_key_type, int fd,
                               struct event_base *base, void (*wake)(void *), void *arg);

/* Read and dispatch what is there, up to a budget, and go on with the handshake. */
void leg_drive(struct leg *leg);
/* A turn begins: what is written stays with libssh until leg_settle(). A send() a packet would wake
 * the peer, and cost a system call, four to eight times as often. */
void leg_cork(struct leg *leg);
/* After anything was written: send what the socket takes, and arm events. */
void leg_settle(struct leg *leg);

/* While it is lent nobody else drives, settles or asks it: a call of libssh's is in the middle. */
void leg_lend(struct leg *leg, bool is_lent);

bool leg_is_alive(const struct leg *leg); /* handshake or up */
bool leg_has_unsent(const struct leg *leg);
/* Bytes that may be written now without piling up more than LEG_BUDGET. */
uint32_t leg_room(const struct leg *leg);

/* One keep-alive interval passed: probes a silent peer. Returns false when `count` went by without
 * an answer. */
MUST_CHECK bool leg_keepalive(struct leg *leg, uint32_t count);
/* Ask the peer, logged in and with a channel, for a sign of life now; was there one since? A peer
 * that answers has handled what was sent before. */
void leg_ask(struct leg *leg);
bool leg_has_answered(const struct leg *leg);
/* Global requests of ours, one at a time as libssh has it, keep-alives among them: true when one
 * may be sent now; none of the leg's own is until leg_end_request(). */
MUST_CHECK bool leg_begin_request(struct leg *leg);
void leg_end_request(struct leg *leg);
/* Hand libssh so little at a time that at most one packet is handled between two calls of fn, until
 * it returns false: for the one answer that libssh looks up in the last packet. Slow. */
void leg_watch_packets(struct leg *leg, bool (*fn)(void *arg), void *arg);
void leg_set_user_timeout(int fd, uint32_t ms);

/* Say SSH_MSG_DISCONNECT with text; every channel of libssh's is gone after this. The socket stays
 * open for reading so that the text is not lost to a reset; then leg_close(). */
void leg_disconnect(struct leg *leg, const char *text);
/* After leg_disconnect(): throw away what still comes. True when the peer has closed. */
bool leg_drain(struct leg *leg);
void leg_close(struct leg *leg);

#endif
