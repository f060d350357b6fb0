/*
 * keyboard-interactive on the user leg (RFC 4256): the broker's questions go to the client one at a
 * time, the answers back. What is asked and why is the broker's; the relay only carries it. Steps
 * of proxy/ssh/user.c.
 */
#include "proxy/ssh/session.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

static void drop_prompt(struct user_login *l)
{
    if (l->prompt)
        memory_wipe(l->prompt, sizeof(*l->prompt));
    free(l->prompt);
    l->prompt = NULL;
}

void keyboard_forget(struct user_login *l)
{
    drop_prompt(l);
    l->is_asked = false;
}

bool keyboard_begin(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;

    if (!relay_auth_keyboard(s->relay, l->user))
        return false;
    l->message = message;
    l->is_offer = false;
    return true;
}

/* The first thing that was typed unseen is the password, for a target that wants the same one. */
static void keep_password(struct user_login *l, const char *text)
{
    if (l->has_echo || l->password || !(l->methods & LINK_METHOD_PASSWORD))
        return;
    l->password = malloc(sizeof(*l->password));
    if (l->password)
        (void)secret_set(l->password, text, strlen(text));
}

bool keyboard_answer(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;
    const char *text = NULL;

    if (!l->is_asked)
        return false;
    l->is_asked = false;
    if (ssh_userauth_kbdint_getnanswers(s->user.ssh) == 1)
        text = ssh_userauth_kbdint_getanswer(s->user.ssh, 0);
    if (!text || strlen(text) > sizeof(((struct link_auth_answer *)0)->answer.data))
        text = ""; /* a wrong answer, judged and counted like any other */
    keep_password(l, text);
    l->message = message;
    relay_auth_answer(s->relay, text, strlen(text));
    return true;
}

void keyboard_prompt(struct session *s, const struct link_auth_prompt *prompt)
{
    struct user_login *l = &s->login;

    if (!l->message)
        return;
    drop_prompt(l);
    l->prompt = malloc(sizeof(*l->prompt));
    if (l->prompt)
        *l->prompt = *prompt;
    else
        relay_finish(s->relay, END_RELAY_CRASHED, "relay", "out of memory");
    session_want_turn(s);
}

void keyboard_step(struct session *s)
{
    struct user_login *l = &s->login;
    struct link_auth_prompt *p = l->prompt;
    const char *prompts[1];
    char echo[1];

    if (!p || !l->message)
        return;
    prompts[0] = p->prompt;
    echo[0] = p->has_echo ? 1 : 0;
    if (p->banner[0])
        user_show(s, p->banner);
    l->has_echo = p->has_echo;
    l->is_asked = true;
    (void)ssh_message_auth_interactive_request(l->message, "", p->instruction, p->has_prompt,
                                               prompts, echo);
    ssh_message_free(l->message);
    l->message = NULL;
    if (s->user.io)
        l->handled_bytes = s->user.io->received;
    drop_prompt(l);
}
