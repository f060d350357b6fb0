/* Leaky buckets of failed logins; see sources.h. */
#include "proxy/broker/sources.h"

#include <arpa/inet.h>
#include <string.h>

static void key_of(const char *address, uint8_t key[16])
{
    static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

    memset(key, 0, 16);
    if (inet_pton(AF_INET6, address, key) == 1) {
        if (memcmp(key, v4_prefix, sizeof(v4_prefix)) != 0)
            memset(key + 8, 0, 8); /* a /64 is one source */
        return;
    }
    memcpy(key, v4_prefix, sizeof(v4_prefix));
    if (inet_pton(AF_INET, address, key + 12) != 1)
        memset(key, 0, 16);
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
    if (r->milli_failures < l->burst * 500) /* half: one report while somebody goes on guessing */
        r->refused = 0;
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

uint32_t sources_blocked_s(struct sources *s, const char *address, const struct source_limits *l,
                           int64_t now_ms, bool *is_first)
{
    struct source *r;
    uint64_t over_ms;

    *is_first = false;
    if (!l->burst)
        return 0;
    r = find(s, address, l, now_ms, false);
    if (!r || r->milli_failures < l->burst * 1000)
        return 0;
    *is_first = r->refused++ == 0;
    over_ms = (uint64_t)(r->milli_failures - l->burst * 1000) * l->drain_s / l->burst;
    return (uint32_t)(over_ms / 1000 + 1);
}

void sources_failed(struct sources *s, const char *address, const struct source_limits *l,
                    int64_t now_ms)
{
    struct source *r;

    if (!l->burst)
        return;
    r = find(s, address, l, now_ms, true);
    r->milli_failures += 1000;
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

uint64_t sources_lane(const char *address)
{
    uint8_t key[16];
    uint64_t lane = 14695981039346656037u; /* FNV-1a */

    key_of(address, key);
    for (size_t i = 0; i < sizeof(key); i++)
        lane = (lane ^ key[i]) * 1099511628211u;
    return lane | 1;
}
