/*
 * Two short lists: the nonces that are out, and those of an earlier broker that were shown to this
 * one. Both lose what is past its life at every call, so that neither grows. See passes.h.
 */
#include "proxy/broker/passes.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <sallyport/text.h>

struct known {
    TAILQ_ENTRY(known) entry; /* oldest first */
    uint64_t nonce;
    int64_t issued_ms;
    char user[NAME_MAX_LEN + 1];
};
TAILQ_HEAD(known_list, known);

struct passes {
    int64_t started_ms;
    struct known_list out, shown;
    size_t out_count, shown_count;
};

struct passes *passes_create(int64_t started_ms)
{
    struct passes *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->started_ms = started_ms;
    TAILQ_INIT(&p->out);
    TAILQ_INIT(&p->shown);
    return p;
}

static void forget(struct known_list *list, size_t *count, struct known *k)
{
    TAILQ_REMOVE(list, k, entry);
    *count -= 1;
    free(k);
}

static void expire(struct known_list *list, size_t *count, int64_t now_ms)
{
    struct known *k = TAILQ_FIRST(list), *next;

    for (; k; k = next) {
        next = TAILQ_NEXT(k, entry);
        if (now_ms - k->issued_ms > PASS_LIFE_MS)
            forget(list, count, k);
    }
}

void passes_destroy(struct passes *p)
{
    if (!p)
        return;
    expire(&p->out, &p->out_count, INT64_MAX);
    expire(&p->shown, &p->shown_count, INT64_MAX);
    free(p);
}

static size_t count_of(const struct passes *p, const char *user)
{
    const struct known *k;
    size_t n = 0;

    TAILQ_FOREACH (k, &p->out, entry)
        n += strcmp(k->user, user) == 0;
    return n;
}

static int remember(struct known_list *list, size_t *count, const struct pass *pass)
{
    struct known *k = calloc(1, sizeof(*k));

    if (!k)
        return ERR_MEMORY;
    k->nonce = pass->nonce;
    k->issued_ms = pass->issued_ms;
    text_copy(k->user, sizeof(k->user), pass->user);
    TAILQ_INSERT_TAIL(list, k, entry);
    *count += 1;
    return 0;
}

int passes_issue(struct passes *p, struct pass *pass, int64_t now_ms)
{
    expire(&p->out, &p->out_count, now_ms);
    if (p->out_count >= PASSES_MAX || count_of(p, pass->user) >= PASSES_PER_USER)
        return ERR_FULL;
    if (getentropy(&pass->nonce, sizeof(pass->nonce)) < 0)
        return ERR_SYSTEM;
    pass->issued_ms = now_ms;
    return remember(&p->out, &p->out_count, pass);
}

static struct known *find(const struct known_list *list, uint64_t nonce)
{
    struct known *k;

    TAILQ_FOREACH (k, list, entry) {
        if (k->nonce == nonce)
            return k;
    }
    return NULL;
}

int passes_take(struct passes *p, const struct pass *pass, int64_t now_ms)
{
    struct known *k;

    expire(&p->out, &p->out_count, now_ms);
    expire(&p->shown, &p->shown_count, now_ms);
    if (pass->issued_ms > now_ms || now_ms - pass->issued_ms > PASS_LIFE_MS)
        return ERR_DENIED;
    if ((k = find(&p->out, pass->nonce))) {
        forget(&p->out, &p->out_count, k);
        return 0;
    }
    /* what an earlier broker gave is not on our list, but cannot be younger than we are */
    if (pass->issued_ms >= p->started_ms || find(&p->shown, pass->nonce) ||
        p->shown_count >= PASSES_MAX)
        return ERR_DENIED;
    return remember(&p->shown, &p->shown_count, pass) == 0 ? 0 : ERR_DENIED;
}

size_t passes_count(const struct passes *p)
{
    return p->out_count;
}
