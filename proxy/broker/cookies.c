/*
 * A ring of the cookies that ended last; see cookies.h. links_rdp.c asks, links.c tells.
 */
#include "proxy/broker/cookies.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

struct ended {
    bool is_used, is_lost;
    uint8_t cookie[LINK_COOKIE];
    char user[NAME_MAX_LEN + 1], target[NAME_MAX_LEN + 1];
};

struct cookies {
    struct ended rows[COOKIES_MAX];
    size_t next;
};

struct cookies *cookies_create(void)
{
    return calloc(1, sizeof(struct cookies));
}

void cookies_destroy(struct cookies *c)
{
    free(c);
}

/* COOKIES_MAX: it is not known. */
static size_t find(const struct cookies *c, const uint8_t *cookie)
{
    size_t i = 0;

    while (i < COOKIES_MAX &&
           !(c->rows[i].is_used && CRYPTO_memcmp(c->rows[i].cookie, cookie, LINK_COOKIE) == 0))
        i++;
    return i;
}

void cookies_ended(struct cookies *c, const uint8_t cookie[LINK_COOKIE], const char *user,
                   const char *target, bool is_lost)
{
    size_t at = find(c, cookie);
    struct ended *row = &c->rows[at < COOKIES_MAX ? at : c->next];

    if (at == COOKIES_MAX)
        c->next = (c->next + 1) % COOKIES_MAX;
    else if (!row->is_lost)
        return; /* it was ended once: that stays */
    row->is_used = true;
    row->is_lost = is_lost;
    memcpy(row->cookie, cookie, LINK_COOKIE);
    text_copy(row->user, sizeof(row->user), user);
    text_copy(row->target, sizeof(row->target), target);
}

bool cookies_may_return(const struct cookies *c, const uint8_t cookie[LINK_COOKIE],
                        const char *user, const char *target)
{
    size_t at = find(c, cookie);
    const struct ended *row = &c->rows[at < COOKIES_MAX ? at : 0];

    return at < COOKIES_MAX && row->is_lost && strcmp(row->user, user) == 0 &&
           strcmp(row->target, target) == 0;
}
