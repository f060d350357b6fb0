/* The sentences of notices; see notice.h. */
#include <sallyport/notice.h>

#include <stdbool.h>
#include <stdio.h>

#include <sallyport/text.h>

const char *notice_end(char *dst, size_t dst_len, enum end_reason reason, const char *author,
                       const char *text, const struct policy *policy)
{
    char cause[SESSION_TEXT_MAX], words[64];
    bool adds_text = *text; /* the admin's own words, in brackets behind the cause */

    switch (reason) {
    case END_ADMIN_ENDED:
        snprintf(cause, sizeof(cause), "ended by %s", author);
        break;
    case END_SELF_ENDED:
        snprintf(cause, sizeof(cause), "ended by yourself");
        break;
    case END_SHUTDOWN:
        snprintf(cause, sizeof(cause), "Sallyport is shutting down");
        break;
    case END_IDLE_TIMEOUT:
        snprintf(cause, sizeof(cause), "idle for %s",
                 text_duration_words(words, sizeof(words), policy->disconnect_after));
        break;
    case END_MAX_DURATION:
        snprintf(cause, sizeof(cause), "the maximum duration of %s is reached",
                 text_duration_words(words, sizeof(words), policy->max_duration));
        break;
    default: /* the text is the cause */
        text_copy(cause, sizeof(cause), *text ? text : end_reason_text(reason));
        adds_text = false;
        break;
    }
    if (adds_text)
        snprintf(dst, dst_len, "You have been disconnected: %.*s (%.*s)", 120, cause, 100, text);
    else
        snprintf(dst, dst_len, "You have been disconnected: %.*s", 220, cause);
    return dst;
}

const char *notice_idle_warning(char *dst, size_t dst_len, const struct policy *policy)
{
    char idle[64], left[64];
    uint64_t warn = policy->warn_after, end = policy->disconnect_after;

    text_duration_words(idle, sizeof(idle), warn);
    if (end > warn)
        snprintf(dst, dst_len,
                 "Idle for %s: you will be disconnected in %s unless you press a key.", idle,
                 text_duration_words(left, sizeof(left), end - warn));
    else
        snprintf(dst, dst_len, "Idle for %s.", idle);
    return dst;
}
