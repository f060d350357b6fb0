/* Leaky buckets of failed logins; see sources.h. */
#include "proxy/broker/sources.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/network.h>

#define DELAY_FREE     2 /* failures: typing errors happen */
#define DELAY_FIRST_MS 250u
#define DELAY_MAX_MS   2000u

/* Not an address but a user, whose codes are guessed: in a range that no address is in. */
static void key_of_name(const char *name, uint8_t key[16])
{
    uint64_t hash[2] = {14695981039346656037u, 1099511628211u * 31}; /* FNV-1a, twice */

    for (; *name; name++) {
        hash[0] = (hash[0] ^ (uint8_t)*name) * 1099511628211u;
        hash[1] = (hash[1] ^ (uint8_t)*name) * 1099511628211u;
    }
    memcpy(key, hash, 16);
    key[0] = 0xfe; /* fe00::/16 is nobody's */
    key[1] = 0x00;
}

static void key_of(const char *address, uint8_t key[16])
{
    if (!network_address(address, key))
        key_of_name(address, key);
    else if (!network_is_v4(key))
        memset(key + 8, 0, 8); /* a /64 is one source */
}

static void drain(struct source *r, const struct source_limits *l, int64_t now_ms)
{
    int64_t passed = now_ms - r->updated_ms;
    uint64_t gone;

    if (passed <= 0 || !l->drain_s)
        return;
    gone = (uint64_t)passed * l->burst / l->drain_s;
    if (!gone) /* not yet one thousandth: asking often must not keep a bucket full for ever */
        return;
    r->updated_ms = now_ms;
    r->milli_failures = gone >= r->milli_failures ? 0 : r->milli_failures - (uint32_t)gone;
    if (r->milli_failures < l->burst * 500) { /* half: the block is over, and its report */
        r->refused = 0;
        r->is_blocked = false;
    }
}

static struct source *find(struct sources *s, const char *address, const struct source_limits *l,
                           int64_t now_ms, bool make)
{
    uint8_t key[16];
    struct source *quietest = NULL;

    key_of(address, key);
    for (uint32_t i = 0; i < s->count; i++) {
        struct source *r = &s->rows[i];

        if (memcmp(r->key, key, sizeof(key)) == 0) {
            drain(r, l, now_ms);
            return r;
        }
        if (!quietest || r->milli_failures < quietest->milli_failures)
            quietest = r;
    }
    if (!make)
        return NULL;
    if (s->count < SOURCES_MAX)
        quietest = &s->rows[s->count++];
    memset(quietest, 0, sizeof(*quietest));
    memcpy(quietest->key, key, sizeof(key));
    quietest->updated_ms = now_ms;
    return quietest;
}

/* Until half of the bucket has drained. */
static uint32_t blocked_s(const struct source *r, const struct source_limits *l)
{
    uint32_t half = l->burst * 500;
    uint64_t over_ms =
        r->milli_failures > half ? (uint64_t)(r->milli_failures - half) * l->drain_s / l->burst : 0;

    return (uint32_t)(over_ms / 1000 + 1);
}

uint32_t sources_blocked_s(struct sources *s, const char *address, const struct source_limits *l,
                           int64_t now_ms, bool *is_first)
{
    struct source *r;

    *is_first = false;
    if (!l->burst)
        return 0;
    r = find(s, address, l, now_ms, false);
    if (!r || !r->is_blocked)
        return 0;
    *is_first = r->refused++ == 0;
    return blocked_s(r, l);
}

uint32_t sources_delay_ms(struct sources *s, const char *address, const struct source_limits *l,
                          int64_t now_ms)
{
    struct source *r = l->burst ? find(s, address, l, now_ms, false) : NULL;
    uint32_t failures = r ? (r->milli_failures + 999) / 1000 : 0;

    if (failures <= DELAY_FREE)
        return 0;
    failures -= DELAY_FREE + 1;
    return failures < 3 ? DELAY_FIRST_MS << failures : DELAY_MAX_MS;
}

void sources_failed(struct sources *s, const char *address, const struct source_limits *l,
                    int64_t now_ms)
{
    struct source *r;

    if (!l->burst)
        return;
    r = find(s, address, l, now_ms, true);
    r->milli_failures += 1000;
    r->is_blocked |= r->milli_failures >= l->burst * 1000;
    if (r->milli_failures > l->burst * 1000 + 500)
        r->milli_failures = l->burst * 1000 + 500;
}

void sources_succeeded(struct sources *s, const char *address, const struct source_limits *l,
                       int64_t now_ms)
{
    struct source *r = l->burst ? find(s, address, l, now_ms, false) : NULL;

    if (r)
        r->milli_failures = r->milli_failures > 1000 ? r->milli_failures - 1000 : 0;
}

uint32_t sources_forget(struct sources *s, const char *address, const struct source_limits *l,
                        int64_t now_ms)
{
    struct source *one = address ? find(s, address, l, now_ms, false) : NULL;
    uint32_t blocked = 0;

    for (uint32_t i = 0; i < s->count; i++) {
        struct source *r = &s->rows[i];

        if (address && r != one)
            continue;
        drain(r, l, now_ms);
        blocked += r->is_blocked;
        r->milli_failures = r->refused = 0;
        r->is_blocked = false;
    }
    return blocked;
}

static void name_of(const uint8_t key[16], char *dst, size_t dst_len)
{
    char text[NETWORK_TEXT_MAX];

    (void)snprintf(dst, dst_len, network_is_v4(key) ? "%s" : "%s/64",
                   network_address_text(key, text));
}

void sources_each(struct sources *s, const struct source_limits *l, int64_t now_ms, source_fn fn,
                  void *arg)
{
    for (uint32_t i = 0; i < s->count; i++) {
        struct source *r = &s->rows[i];
        struct source_row row = {.blocked_s = 0};

        drain(r, l, now_ms);
        if (!r->milli_failures)
            continue;
        name_of(r->key, row.address, sizeof(row.address));
        row.failures = (r->milli_failures + 999) / 1000;
        if (r->is_blocked && l->burst)
            row.blocked_s = blocked_s(r, l);
        if (!fn(&row, arg))
            return;
    }
}

uint64_t sources_lane(const char *address)
{
    uint8_t key[16];
    uint64_t lane = 14695981039346656037u; /* FNV-1a */

    key_of(address, key);
    for (size_t i = 0; i < sizeof(key); i++)
        lane = (lane ^ key[i]) * 1099511628211u;
    return lane | 1;
}
