/*
 * What a relay has said or wants to say to its broker, in order. Messages are kept encoded, in as
 * little memory as they need; requests stay until they are answered, and the newest of what a
 * later broker must know stays for good, so that an adoption is one rewind. Bounded: of what may
 * be lost the oldest goes first, and is counted. Does no I/O: uplink.c sends.
 */
#ifndef RELAY_OUTBOX_H
#define RELAY_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <sallyport/link.h>

#define OUTBOX_SOFT_MAX   256  /* past it events go */
#define OUTBOX_HARD_MAX   1024 /* past it everything that is not a request goes */
#define OUTBOX_LATEST_MAX 64   /* said already, kept for the next broker */

enum outbox_kind {
    OUTBOX_REQUEST, /* until outbox_answer() */
    OUTBOX_LATEST,  /* one of its type and channel; the newest is said again after an adoption */
    OUTBOX_KEPT,    /* said once, not dropped before OUTBOX_HARD_MAX */
    OUTBOX_EVENT    /* said once, dropped first */
};

struct outbox_item {
    TAILQ_ENTRY(outbox_item) entry;
    uint32_t channel; /* 0 when the message has none */
    uint8_t type;     /* enum link_type */
    uint8_t kind;
    bool is_sent;
    bool is_offer; /* AUTH_KEY without a signature: its refusal is no failed attempt */
    size_t len;
    uint8_t data[]; /* in LINK_VERSION; wiped before it is freed */
};

struct outbox {
    TAILQ_HEAD(outbox_list, outbox_item) items;
    size_t count;
    uint64_t lost; /* dropped since outbox_take_lost() */
};

void outbox_init(struct outbox *o);
void outbox_finish(struct outbox *o);

/* Queue m. ERR_INVALID when it cannot be encoded (our own mistake), ERR_MEMORY, ERR_FULL. */
MUST_CHECK int outbox_put(struct outbox *o, const struct link_message *m, enum outbox_kind kind);

/* The first message that is not sent, or NULL. */
struct outbox_item *outbox_next(const struct outbox *o);
/* The link took it: forgets it unless it is to stay. */
void outbox_sent(struct outbox *o, struct outbox_item *item);

/* The oldest request of `type` (and channel, unless 0) was answered: forgets it. False when there
 * was none. *is_offer may be NULL. */
bool outbox_answer(struct outbox *o, uint8_t type, uint32_t channel, bool *is_offer);

/* The session was given back: what was to be said of it to a later broker, and asked, is nothing to
 * the next session. */
void outbox_forget_session(struct outbox *o);

/* Another broker: everything that is still here has to be said again. */
void outbox_rewind(struct outbox *o);

uint64_t outbox_take_lost(struct outbox *o);

#endif
