/*
 * Life without a broker: see alone.h. The broker's tracker decides the same things from the same
 * page while it is there (tracker/), and says them in the same words (notice.h).
 */
#include "proxy/relay/alone.h"

#include <stdio.h>

#include <sallyport/notice.h>
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

const char *alone_sentence(char *dst, size_t dst_len, enum alone_verdict verdict,
                           const struct alone_view *v)
{
    char words[64], lost[128];

    *dst = '\0';
    switch (verdict) {
    case ALONE_WAIT:
        break;
    case ALONE_WARN:
        return notice_idle_warning(dst, dst_len, v->policy);
    case ALONE_END_IDLE:
        return notice_end(dst, dst_len, END_IDLE_TIMEOUT, "policy", "", v->policy);
    case ALONE_END_MAX_DURATION:
        return notice_end(dst, dst_len, END_MAX_DURATION, "policy", "", v->policy);
    case ALONE_END_BROKER_LOST:
        snprintf(lost, sizeof(lost), "Sallyport's broker has been away for %s",
                 text_duration_words(words, sizeof(words), v->broker_lost_after_s));
        return notice_end(dst, dst_len, END_BROKER_LOST, "policy", lost, v->policy);
    }
    return dst;
}
