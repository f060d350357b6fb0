/*
 * What the policy's `channels` does not allow. The SSH protocol answers such a request with a bare
 * no, so the reason goes other ways: a debug message (OpenSSH shows it with -v, PuTTY in its event
 * log), a line on the terminals of the connection, once a kind, or, for what would have run, the
 * stderr of its own channel. Called by request.c, forward.c, listen.c and overheard.c.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/log.h>

#define REFUSALS_A_MIN 30

bool refuse_is_allowed(const struct session *s, enum policy_channel kind)
{
    return (relay_policy(s->relay)->channels & (uint64_t)kind) != 0;
}

static void note(struct session *s, enum policy_channel kind, const char *what)
{
    bool is_known = s->phase == PHASE_RELAYING; /* before, the policy is nobody's */
    bool is_beyond_us =
        kind == POLICY_CHANNEL_STREAMLOCAL && (!is_known || refuse_is_allowed(s, kind));
    static struct log_limit limit;
    char text[SESSION_TEXT_MAX];

    if (!log_limit_allows(&limit, REFUSALS_A_MIN, "refused channels"))
        return;
    snprintf(text, sizeof(text),
             is_beyond_us ? "libssh does not pass it on: %s" : "the policy does not allow %s",
             what);
    log_info("channel refused: %s", text);
    relay_event(s->relay, "channel-refused", text);
}

static void say_debug(struct session *s, const char *what)
{
    static struct log_limit limit;
    char text[SESSION_TEXT_MAX];

    if (s->user.state != LEG_UP || !log_limit_allows(&limit, REFUSALS_A_MIN, "debug messages"))
        return;
    snprintf(text, sizeof(text), "Not allowed here: %s", what);
    (void)ssh_send_debug(s->user.ssh, text, 1);
}

void refuse_tell(struct session *s, enum policy_channel kind, const char *what)
{
    char text[SESSION_TEXT_MAX];

    note(s, kind, what);
    say_debug(s, what);
    if (s->told_refused & (uint64_t)kind)
        return;
    s->told_refused |= (uint64_t)kind;
    snprintf(text, sizeof(text), "Not allowed here: %s.", what);
    notice_add(s, text);
}

void refuse_start(struct channel *c, enum policy_channel kind, const char *what)
{
    char text[SESSION_TEXT_MAX];

    note(c->session, kind, what);
    say_debug(c->session, what);
    snprintf(text, sizeof(text), "Not allowed here: %s.%s", what, c->has_pty ? "\r\n" : "\n");
    (void)pump_show(c, text, strlen(text), true);
    channel_exit_local(c, 1);
}
