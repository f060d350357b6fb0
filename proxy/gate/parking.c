/*
 * The policy of the gate for connections that are not logged in: see parking.h. Lists are scanned:
 * they are as long as the limits allow, a few hundred, and only counts are needed per source.
 */
#include "proxy/gate/parking.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/network.h>

#define BUCKETS 1024 /* a power of two */
#define MS      1000

struct parking_source {
    LIST_ENTRY(parking_source) entry;
    struct source_key key;
    uint32_t forked, evicting, parked, waiting; /* waiting: parked and has spoken */
};

TAILQ_HEAD(guest_list, guest);

struct parking {
    struct parking_limits limits;
    uint64_t seed;
    struct guest_list parked, forked;
    uint32_t forked_count, evicting_count, parked_count, waiting_count, gone_count;
    LIST_HEAD(source_list, parking_source) buckets[BUCKETS];
};

/* ---- sources ---- */

struct source_key source_key_of(const uint8_t address[16])
{
    struct source_key key = {.family = 6};

    if (network_is_v4(address)) {
        key.family = 4;
        memcpy(key.address, address + 12, 4);
    } else {
        memcpy(key.address, address, 8);
    }
    return key;
}

/* Seeded, so that nobody can aim at one bucket. */
static struct source_list *bucket_of(struct parking *p, const struct source_key *key)
{
    uint64_t h = p->seed ^ key->family;

    for (size_t i = 0; i < sizeof(key->address); i++) {
        h = (h ^ key->address[i]) * UINT64_C(0x100000001b3);
        h ^= h >> 29;
    }
    return &p->buckets[h % BUCKETS];
}

static struct parking_source *source_get(struct parking *p, const struct source_key *key)
{
    struct source_list *bucket = bucket_of(p, key);
    struct parking_source *s;

    LIST_FOREACH (s, bucket, entry)
        if (s->key.family == key->family &&
            memcmp(s->key.address, key->address, sizeof(key->address)) == 0)
            return s;
    s = calloc(1, sizeof(*s));
    if (s) {
        s->key = *key;
        LIST_INSERT_HEAD(bucket, s, entry);
    }
    return s;
}

static void source_put(struct parking_source *s)
{
    if (s->forked || s->parked)
        return;
    LIST_REMOVE(s, entry);
    free(s);
}

/* ---- the books ---- */

struct parking *parking_create(const struct parking_limits *limits, uint64_t seed)
{
    struct parking *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->seed = seed;
    TAILQ_INIT(&p->parked);
    TAILQ_INIT(&p->forked);
    parking_set_limits(p, limits);
    return p;
}

void parking_destroy(struct parking *p)
{
    if (!p)
        return;
    while (!TAILQ_EMPTY(&p->parked))
        parking_remove(p, TAILQ_FIRST(&p->parked));
    while (!TAILQ_EMPTY(&p->forked))
        parking_remove(p, TAILQ_FIRST(&p->forked));
    free(p);
}

void parking_set_limits(struct parking *p, const struct parking_limits *limits)
{
    p->limits = *limits;
    if (p->limits.max_total == 0)
        p->limits.max_total = 1;
    if (p->limits.max_per_source == 0)
        p->limits.max_per_source = 1;
}

struct guest *parking_add(struct parking *p, const struct source_key *key, int64_t now_ms)
{
    struct guest *g = calloc(1, sizeof(*g));
    struct parking_source *s = g ? source_get(p, key) : NULL;

    if (!s) {
        free(g);
        return NULL;
    }
    g->source = s;
    g->accepted_ms = now_ms;
    g->fd = -1;
    TAILQ_INSERT_TAIL(&p->parked, g, entry);
    p->parked_count++;
    s->parked++;
    return g;
}

void parking_spoke(struct parking *p, struct guest *g)
{
    if (g->state != GUEST_PARKED || g->has_spoken)
        return;
    g->has_spoken = true;
    p->waiting_count++;
    g->source->waiting++;
}

void parking_gone(struct parking *p, struct guest *g)
{
    if (g->state != GUEST_PARKED || g->is_gone)
        return;
    g->is_gone = true;
    p->gone_count++;
}

/* Guests are watched in the order of their arrival, so the last one tells. */
struct guest *parking_unwatched(struct parking *p)
{
    struct guest *g, *first = NULL;

    TAILQ_FOREACH_REVERSE(g, &p->parked, guest_list, entry)
    {
        if (g->event)
            break;
        first = g;
    }
    return first;
}

static void leave_parked(struct parking *p, struct guest *g)
{
    TAILQ_REMOVE(&p->parked, g, entry);
    p->parked_count--;
    g->source->parked--;
    if (g->has_spoken) {
        p->waiting_count--;
        g->source->waiting--;
    }
    if (g->is_gone)
        p->gone_count--;
}

static void leave_forked(struct parking *p, struct guest *g)
{
    TAILQ_REMOVE(&p->forked, g, entry);
    p->forked_count--;
    g->source->forked--;
    if (g->state == GUEST_EVICTED) {
        p->evicting_count--;
        g->source->evicting--;
    }
}

void parking_forked(struct parking *p, struct guest *g, int pid, const volatile uint8_t *spoken,
                    int64_t now_ms)
{
    leave_parked(p, g);
    g->state = GUEST_FORKED;
    g->forked_ms = now_ms;
    g->pid = pid;
    g->spoken = spoken;
    TAILQ_INSERT_TAIL(&p->forked, g, entry);
    p->forked_count++;
    g->source->forked++;
}

struct guest *parking_find(struct parking *p, int pid)
{
    struct guest *g;

    TAILQ_FOREACH (g, &p->forked, entry)
        if (g->pid == pid)
            return g;
    return NULL;
}

void parking_remove(struct parking *p, struct guest *g)
{
    if (g->state == GUEST_PARKED)
        leave_parked(p, g);
    else
        leave_forked(p, g);
    source_put(g->source);
    free(g);
}

uint32_t parking_forked_count(const struct parking *p)
{
    return p->forked_count;
}

uint32_t parking_parked_count(const struct parking *p)
{
    return p->parked_count;
}

/* ---- decisions, each: a guest for which something is due, or NULL ---- */

static bool is_silent(const struct guest *g)
{
    return !*g->spoken;
}

static void not_later(int64_t *wake_ms, int64_t at_ms)
{
    if (at_ms < *wake_ms)
        *wake_ms = at_ms;
}

static struct guest *gone_parked(struct parking *p)
{
    struct guest *g;

    if (p->gone_count == 0)
        return NULL;
    TAILQ_FOREACH (g, &p->parked, entry)
        if (g->is_gone)
            return g;
    return NULL;
}

static struct guest *overdue_parked(struct parking *p, int64_t now_ms, int64_t *wake_ms)
{
    struct guest *g = TAILQ_FIRST(&p->parked); /* the oldest */
    int64_t due;

    if (!g)
        return NULL;
    due = g->accepted_ms + (int64_t)p->limits.login_grace_s * MS;
    not_later(wake_ms, due);
    return now_ms >= due ? g : NULL;
}

/* The oldest that has said nothing goes first; when all have, the oldest one of the source that has
 * most, so that a crowd from one place cannot push out everybody else. */
struct guest *parking_sparable(struct parking *p)
{
    struct guest *g, *worst = NULL;

    TAILQ_FOREACH (g, &p->parked, entry) {
        if (!g->has_spoken)
            return g;
        if (!worst || g->source->parked > worst->source->parked)
            worst = g;
    }
    return worst;
}

/* The first that fits: those that have spoken before those that have not. */
static struct guest *next_to_fork(struct parking *p)
{
    struct guest *g, *silent = NULL;

    if (p->forked_count >= p->limits.max_total)
        return NULL;
    TAILQ_FOREACH (g, &p->parked, entry) {
        if (g->source->forked >= p->limits.max_per_source)
            continue;
        if (g->has_spoken)
            return g;
        if (!silent)
            silent = g;
        if (p->waiting_count == 0)
            break;
    }
    return silent;
}

/* The oldest relay that has heard nothing, of one source or (NULL) of all. */
static struct guest *oldest_silent(struct parking *p, const struct parking_source *source,
                                   int64_t now_ms, int64_t *wake_ms)
{
    struct guest *g;

    TAILQ_FOREACH (g, &p->forked, entry) {
        if (g->state != GUEST_FORKED || !is_silent(g) || (source && g->source != source))
            continue;
        if (now_ms - g->forked_ms >= PARKING_SILENT_MIN_MS)
            return g;
        not_later(wake_ms, g->forked_ms + PARKING_SILENT_MIN_MS);
        return NULL; /* the others are younger */
    }
    return NULL;
}

/* Somebody who speaks waits for somebody who does not. One eviction for each that waits: those
 * under way count. */
static struct guest *next_to_evict(struct parking *p, int64_t now_ms, int64_t *wake_ms)
{
    struct guest *g, *victim;

    if (p->waiting_count == 0)
        return NULL;
    TAILQ_FOREACH (g, &p->parked, entry) {
        struct parking_source *s = g->source;

        if (!g->has_spoken)
            continue;
        if (s->forked >= p->limits.max_per_source) {
            if (s->evicting >= s->waiting)
                continue;
            victim = oldest_silent(p, s, now_ms, wake_ms);
        } else {
            if (p->evicting_count >= p->waiting_count)
                continue;
            victim = oldest_silent(p, NULL, now_ms, wake_ms);
        }
        if (victim)
            return victim;
    }
    return NULL;
}

/* A relay ends itself at login grace; one that does not is stuck, or not ours any more. */
static struct guest *overdue_forked(struct parking *p, int64_t now_ms, int64_t *wake_ms)
{
    struct guest *g;

    TAILQ_FOREACH (g, &p->forked, entry) {
        int64_t due = g->accepted_ms + (int64_t)p->limits.login_grace_s * MS + PARKING_LEEWAY_MS;

        if (g->state == GUEST_EVICTED)
            continue;
        if (now_ms >= due)
            return g;
        not_later(wake_ms, due);
    }
    return NULL;
}

static struct parking_step evict(struct parking *p, struct guest *g)
{
    g->state = GUEST_EVICTED;
    p->evicting_count++;
    g->source->evicting++;
    return (struct parking_step){.what = PARKING_EVICT, .guest = g};
}

struct parking_step parking_next(struct parking *p, int64_t now_ms)
{
    struct parking_step step = {.what = PARKING_WAIT, .wake_ms = PARKING_NEVER};

    if ((step.guest = gone_parked(p)) || (step.guest = overdue_parked(p, now_ms, &step.wake_ms)))
        step.what = PARKING_CLOSE;
    else if ((step.guest = next_to_fork(p)))
        step.what = PARKING_FORK;
    else if (p->parked_count > p->limits.max_parked && (step.guest = parking_sparable(p)))
        step.what = PARKING_CLOSE;
    else if ((step.guest = overdue_forked(p, now_ms, &step.wake_ms)) ||
             (step.guest = next_to_evict(p, now_ms, &step.wake_ms)))
        return evict(p, step.guest);
    return step;
}
