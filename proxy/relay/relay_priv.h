/*
 * The relay's insides, shared by relay.c (its life), uplink.c (the broker's side of it) and
 * requests.c (what a protocol may ask). One struct, owned by relay_run().
 */
#ifndef RELAY_RELAY_PRIV_H
#define RELAY_RELAY_PRIV_H

#include <event2/event_struct.h>

#include <sallyport/activity.h>
#include <sallyport/link.h>

#include "proxy/relay/alone.h"
#include "proxy/relay/files.h"
#include "proxy/relay/outbox.h"
#include "proxy/relay/relay.h"

/* The link to a broker. WELCOME makes it up: before it only HELLO may be said. */
enum uplink_state { UPLINK_NONE, UPLINK_HELLO, UPLINK_UP };

struct uplink {
    enum uplink_state state; /* uplink_enter() sets it */
    int fd;
    uint8_t version; /* what that broker and we both speak */
    struct event readable, writable;
    bool is_full; /* waiting for `writable` */
};

/* Why and how the connection ends; the first to say so decides. */
struct ending {
    enum end_reason reason;
    char author[NAME_MAX_LEN + 16];
    char text[SESSION_TEXT_MAX];
};

struct relay {
    const struct relay_protocol *protocol;
    void *self; /* the protocol's own; NULL before WELCOME and after finish */
    struct event_base *base;
    volatile uint8_t *spoken;

    /* the client, until the protocol owns the socket */
    int client_fd;
    struct event client_readable;
    char client_address[64];
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];
    bool shows_cookie;
    uint8_t cookie[LINK_COOKIE]; /* relay_show_cookie() */

    /* the broker */
    struct uplink uplink;
    struct outbox outbox;
    struct files files; /* rows that wait for their batch */
    int listen_fd;
    struct event listen_readable;
    uint32_t broker_uid;
    int64_t alone_since_ms; /* 0: a broker is there */
    int64_t warned_for_ms;  /* see alone.h */
    int64_t resumed_ms;     /* when RESUMED was said last */

    /* who and where; relay_enter() sets phase */
    enum link_phase phase;
    char user[NAME_MAX_LEN + 1];
    uint32_t attempts;
    uint64_t session_id;
    bool is_ready;
    int page_fd;
    struct activity_page *page;
    struct policy policy;
    LINK_BLOB(LINK_TICKET_MAX) ticket;
    uint32_t login_grace_s, broker_lost_after_s;
    bool is_inner;        /* client_fd is a jump's */
    uint32_t jump_idle_s; /* how long we stay without a jump, having carried some */
    uint32_t jump_count;  /* granted and not ended */
    bool has_jumped;
    uint64_t jump_in, jump_out; /* of those that ended */

    uint32_t door_count; /* commands of the user's own that are open */

    /* the answer to TARGETS while its rows arrive */
    struct link_target_row *rows;
    size_t row_count, rows_wanted, rows_total;

    /* time: one timer for the nearest deadline */
    struct event timer;
    int64_t timer_ms; /* armed for; ALONE_NEVER when not */
    int64_t accepted_ms;
    int64_t login_by_ms; /* a question gave more time than the login grace; 0 none did */
    int64_t phase_ms;    /* when phase was entered */
    int64_t end_by_ms;   /* the protocol's time to end; 0 when it was not asked */
    int64_t leave_by_ms; /* in LINK_PHASE_ENDED: not waiting for CLOSED_ACK any longer */

    struct event sigterm;
    bool is_ending;    /* protocol->end() was called; `ending` is set */
    bool is_finishing; /* relay_finish() was called; `ending` is set */
    bool is_over;      /* nothing is left to wait for */
    bool is_narrow;
    struct ending ending;
};

/* relay.c */
void relay_enter(struct relay *r, enum link_phase phase);
/* End with a notice: what an END of the broker, SIGTERM and the limits have in common. */
void relay_end(struct relay *r, enum end_reason reason, const char *author, const char *sentence,
               uint32_t deadline_ms);
/* The first WELCOME: hand the client to the protocol. */
void relay_start_protocol(struct relay *r, const struct link_welcome *limits);

/* The session is over and the connection is not. */
void relay_forget_session(struct relay *r);

/* uplink.c */
void uplink_init(struct relay *r);
void uplink_use(struct relay *r, int fd); /* owned from here; the old link, if any, goes */
void uplink_close(struct relay *r);
void uplink_flush(struct relay *r); /* once a turn: say what can be said */
void uplink_accept(struct relay *r);
/* Scratch for a message to send: messages are large, and there is one at a time. */
struct link_message *uplink_begin(enum link_type type);
void uplink_put(struct relay *r, enum outbox_kind kind); /* queues the scratch and wipes it */

#endif
