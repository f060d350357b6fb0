/*
 * The outbox of a relay: see outbox.h. A list and two bounds; called by uplink.c and requests.c.
 */
#include "proxy/relay/outbox.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/secret.h>

void outbox_init(struct outbox *o)
{
    TAILQ_INIT(&o->items);
    o->count = 0;
    o->lost = 0;
}

static void drop(struct outbox *o, struct outbox_item *item)
{
    TAILQ_REMOVE(&o->items, item, entry);
    o->count--;
    memory_wipe(item->data, item->len);
    free(item);
}

void outbox_finish(struct outbox *o)
{
    while (!TAILQ_EMPTY(&o->items))
        drop(o, TAILQ_FIRST(&o->items));
}

static uint32_t channel_of(const struct link_message *m)
{
    switch (m->type) {
    case LINK_RECORD_OPEN:
        return m->record_open.channel;
    case LINK_CHANNEL:
        return m->channel.channel;
    case LINK_FRAME:
        return m->frame.channel;
    case LINK_RECORDING_STATE:
        return m->recording_state.channel;
    case LINK_DOOR:
        return m->door.channel;
    case LINK_JUMP:
        return m->jump.channel;
    default:
        return 0;
    }
}

static int make_item(const struct link_message *m, enum outbox_kind kind, struct outbox_item **out)
{
    struct outbox_item *item = NULL;
    struct buffer b;
    int result;

    buffer_init_secret(&b, LINK_MESSAGE_MAX);
    link_encode(m, LINK_VERSION, &b);
    if (!b.failed)
        item = calloc(1, sizeof(*item) + b.len);
    if (item) {
        item->type = m->type;
        item->kind = (uint8_t)kind;
        item->channel = channel_of(m);
        item->is_offer = m->type == LINK_AUTH_KEY && !m->auth_key.is_signed;
        item->len = b.len;
        memcpy(item->data, b.data, b.len);
    }
    *out = item;
    result = item ? 0 : b.failed ? ERR_INVALID : ERR_MEMORY;
    buffer_finish(&b);
    return result;
}

/* The oldest one of a kind, or NULL. */
static struct outbox_item *oldest(const struct outbox *o, enum outbox_kind kind, bool is_sent)
{
    struct outbox_item *item;

    TAILQ_FOREACH (item, &o->items, entry)
        if (item->kind == kind && item->is_sent == is_sent)
            return item;
    return NULL;
}

static void make_room(struct outbox *o)
{
    struct outbox_item *victim = oldest(o, OUTBOX_EVENT, false);

    if (!victim && o->count >= OUTBOX_HARD_MAX)
        victim = oldest(o, OUTBOX_KEPT, false);
    if (!victim && o->count >= OUTBOX_HARD_MAX)
        victim = oldest(o, OUTBOX_LATEST, false);
    if (!victim)
        return;
    drop(o, victim);
    o->lost++;
}

static void drop_older(struct outbox *o, const struct outbox_item *newer)
{
    struct outbox_item *item, *next;

    for (item = TAILQ_FIRST(&o->items); item; item = next) {
        next = TAILQ_NEXT(item, entry);
        if (item->kind == OUTBOX_LATEST && item->type == newer->type &&
            item->channel == newer->channel)
            drop(o, item);
    }
}

/* Many channels one after another leave one each: only some are worth saying twice. */
static void limit_latest(struct outbox *o)
{
    size_t said = 0;
    struct outbox_item *item, *first = NULL;

    TAILQ_FOREACH (item, &o->items, entry) {
        if (item->kind != OUTBOX_LATEST || !item->is_sent)
            continue;
        if (!first)
            first = item;
        said++;
    }
    if (first && said > OUTBOX_LATEST_MAX)
        drop(o, first);
}

int outbox_put(struct outbox *o, const struct link_message *m, enum outbox_kind kind)
{
    struct outbox_item *item;
    int r = make_item(m, kind, &item);

    if (r < 0)
        return r;
    if (kind == OUTBOX_LATEST)
        drop_older(o, item);
    if (o->count >= OUTBOX_SOFT_MAX)
        make_room(o);
    if (o->count >= OUTBOX_HARD_MAX) {
        free(item);
        return ERR_FULL;
    }
    TAILQ_INSERT_TAIL(&o->items, item, entry);
    o->count++;
    return 0;
}

struct outbox_item *outbox_next(const struct outbox *o)
{
    struct outbox_item *item;

    TAILQ_FOREACH (item, &o->items, entry)
        if (!item->is_sent)
            return item;
    return NULL;
}

void outbox_sent(struct outbox *o, struct outbox_item *item)
{
    item->is_sent = true;
    if (item->kind == OUTBOX_KEPT || item->kind == OUTBOX_EVENT)
        drop(o, item);
    else if (item->kind == OUTBOX_LATEST)
        limit_latest(o);
}

bool outbox_answer(struct outbox *o, uint8_t type, uint32_t channel, bool *is_offer)
{
    struct outbox_item *item;

    TAILQ_FOREACH (item, &o->items, entry) {
        if (item->kind != OUTBOX_REQUEST || item->type != type ||
            (channel && item->channel != channel))
            continue;
        if (is_offer)
            *is_offer = item->is_offer;
        drop(o, item);
        return true;
    }
    return false;
}

/* All that is OUTBOX_LATEST is of a session. */
static bool is_of_session(const struct outbox_item *item)
{
    return item->kind == OUTBOX_LATEST ||
           (item->kind == OUTBOX_REQUEST &&
            (item->type == LINK_RECORD_OPEN || item->type == LINK_HOST_KEY));
}

void outbox_forget_session(struct outbox *o)
{
    struct outbox_item *item, *next;

    for (item = TAILQ_FIRST(&o->items); item; item = next) {
        next = TAILQ_NEXT(item, entry);
        if (is_of_session(item))
            drop(o, item);
    }
}

void outbox_rewind(struct outbox *o)
{
    struct outbox_item *item;

    TAILQ_FOREACH (item, &o->items, entry)
        item->is_sent = false;
}

uint64_t outbox_take_lost(struct outbox *o)
{
    uint64_t lost = o->lost;

    o->lost = 0;
    return lost;
}
