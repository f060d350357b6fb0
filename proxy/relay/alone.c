/*
 * Life without a broker: see alone.h. The broker's tracker decides the same things from the same
 * page while it is there (tracker/), so the sentences here must stay those of tracker_end_sentence.
 */
#include "proxy/relay/alone.h"

#include <stdio.h>

#include <sallyport/text.h>

#define MS 1000

/* start + seconds, ALONE_NEVER for 0 (which switches a limit off). */
static int64_t after(int64_t start_ms, uint64_t seconds)
{
    return seconds ? start_ms + (int64_t)seconds * MS : ALONE_NEVER;
}

static int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

enum alone_verdict alone_check(const struct alone_view *v, int64_t now_ms, int64_t *wake_ms)
{
    int64_t lost = after(v->since_ms, v->broker_lost_after_s);
    int64_t longest = after(v->started_ms, v->policy->max_duration);
    int64_t idle = after(v->last_ms, v->policy->disconnect_after);
    int64_t warn = after(v->last_ms, v->policy->warn_after);

    *wake_ms = now_ms;
    if (now_ms >= longest)
        return ALONE_END_MAX_DURATION;
    if (now_ms >= idle)
        return ALONE_END_IDLE;
    if (now_ms >= lost)
        return ALONE_END_BROKER_LOST;
    if (warn >= idle || v->warned_for_ms == v->last_ms)
        warn = ALONE_NEVER;
    if (now_ms >= warn)
        return ALONE_WARN;
    *wake_ms = earlier(earlier(longest, idle), earlier(lost, warn));
    return ALONE_WAIT;
}

static const char *warning(char *dst, size_t dst_len, const struct policy *p)
{
    char idle[64], left[64];

    text_duration_words(idle, sizeof(idle), p->warn_after);
    if (p->disconnect_after > p->warn_after)
        snprintf(dst, dst_len,
                 "Idle for %s: you will be disconnected in %s unless you press a key.", idle,
                 text_duration_words(left, sizeof(left), p->disconnect_after - p->warn_after));
    else
        snprintf(dst, dst_len, "Idle for %s.", idle);
    return dst;
}

const char *alone_sentence(char *dst, size_t dst_len, enum alone_verdict verdict,
                           const struct alone_view *v)
{
    char words[64];

    *dst = '\0';
    switch (verdict) {
    case ALONE_WAIT:
        break;
    case ALONE_WARN:
        return warning(dst, dst_len, v->policy);
    case ALONE_END_IDLE:
        snprintf(dst, dst_len, "You have been disconnected: idle for %s",
                 text_duration_words(words, sizeof(words), v->policy->disconnect_after));
        break;
    case ALONE_END_MAX_DURATION:
        snprintf(dst, dst_len, "You have been disconnected: the maximum duration of %s is reached",
                 text_duration_words(words, sizeof(words), v->policy->max_duration));
        break;
    case ALONE_END_BROKER_LOST:
        snprintf(dst, dst_len,
                 "You have been disconnected: Sallyport's broker has been away for %s",
                 text_duration_words(words, sizeof(words), v->broker_lost_after_s));
        break;
    }
    return dst;
}
