/*
 * A session that came through a jump: its client is logged in already, by the connection that
 * carries it, so that any way to log in succeeds at once, and the name it gives is the account at
 * the target. When that connection goes, the broker says why before we call it lost. Steps of a
 * turn of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <string.h>

#include <sallyport/text.h>

#define WORD_MS 1000 /* for the broker to say what became of the outer connection */

void inner_begin(struct session *s)
{
    struct user_login *l = &s->login;

    if (s->limits.user[0] == '\0')
        return;
    s->is_inner = true;
    s->limits.banner[0] = '\0'; /* was shown by the outer connection */
    l->is_named = true;
    text_copy(l->login.user, sizeof(l->login.user), s->limits.user);
    text_copy(l->login.target, sizeof(l->login.target), s->limits.jump_target);
    l->user = l->login.user;
}

void inner_auth(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;
    const char *name = ssh_message_auth_user(message);

    if (!name || !text_is_account(name) ||
        !text_copy(l->login.account, sizeof(l->login.account), name)) {
        ssh_message_free(message);
        session_end(s, END_POLICY, "policy", "an impossible account name",
                    "The user name of a jump is the account at the target: 1 to 128 bytes without "
                    "'+' and control characters.");
        return;
    }
    (void)ssh_message_auth_reply_success(message, 0);
    ssh_message_free(message);
    s->phase = PHASE_ROUTING;
    relay_route(s->relay, l->login.account, l->login.target);
}

bool inner_waits(struct session *s, int64_t now_ms)
{
    if (!s->is_inner || s->user.end != LEG_END_LOST)
        return false;
    if (s->outer_word_by_ms == 0)
        s->outer_word_by_ms = now_ms + WORD_MS;
    if (now_ms >= s->outer_word_by_ms)
        return false;
    session_want_timer(s, s->outer_word_by_ms);
    return true;
}
