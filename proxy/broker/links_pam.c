/*
 * A login whose password, or whose account, PAM judges: between the relay's link and a conversation
 * of pam.c. Questions go to the user as they come, one at a time.
 */
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/links_parts.h"
#include "proxy/broker/pam.h"

#define CONVERSATIONS_PER_SOURCE 16 /* of the 64 of sallyport-pam */

bool link_is_pam_user(const struct relay_link *l)
{
    struct store_user user;

    return store_user_get(l->links->broker->store, l->tried_user, &user) == 0 && !user.is_locked &&
           strcmp(user.auth_source, "pam") == 0;
}

static void on_info(void *arg, const char *text)
{
    struct relay_link *l = arg;
    char *info = l->login.info;
    size_t len = strlen(info), cap = sizeof(l->login.info);

    if (len > 0 && len + 2 < cap)
        info[len++] = '\n';
    (void)text_copy(info + len, cap - len, text);
}

static void on_prompt(void *arg, bool has_echo, const char *text)
{
    struct relay_link *l = arg;
    struct link_question q = {
        .ask = ASK_PAM, .instruction = l->login.info, .prompt = text, .has_echo = has_echo};
    struct secret *answer = l->login.answer;

    if (answer && !has_echo) {
        l->login.answer = NULL;
        l->login.is_answered = true;
        pam_answer(l->login.pam, answer->data, answer->len);
        secret_wipe(answer);
        free(answer);
        return;
    }
    if (!l->login.is_keyboard) { /* nobody can be asked more than a password here */
        pam_end(l->login.pam);
        l->login.pam = NULL;
        l->is_busy = false;
        link_login_failed(l, l->login.pam_method,
                          "The system asks for more than that: use keyboard-interactive.");
        return;
    }
    l->is_busy = false;
    link_login_ask(l, &q);
    l->login.info[0] = '\0';
}

static void on_result(void *arg, bool is_ok, const char *sentence)
{
    struct relay_link *l = arg;
    char text[SESSION_TEXT_MAX];

    pam_end(l->login.pam);
    l->login.pam = NULL;
    l->is_busy = false;
    text_copy(text, sizeof(text), sentence[0] ? sentence : l->login.info);
    if (is_ok)
        link_first_factor(l, l->login.pam_method);
    else
        link_login_failed(l, l->login.pam_method, text);
}

static const struct pam_answers answers = {on_prompt, on_info, on_result};

/* One source does not take all the places that the helper has. */
static bool source_has_room(const struct relay_link *l)
{
    const struct relay_link *other;
    size_t count = 0;

    TAILQ_FOREACH (other, &l->links->live, entry)
        count += other->login.pam && strcmp(other->client_address, l->client_address) == 0;
    return count < CONVERSATIONS_PER_SOURCE;
}

void link_pam_begin(struct relay_link *l, const char *method, const struct secret *password,
                    bool account_only)
{
    struct broker *b = l->links->broker;

    l->login.pam_method = method;
    l->login.is_answered = false;
    if (password) {
        l->login.answer = malloc(sizeof(*l->login.answer));
        if (l->login.answer)
            *l->login.answer = *password;
    }
    if (!source_has_room(l)) {
        link_login_reply(l, LINK_AUTH_DENIED,
                         "Too many logins from here are being checked; try again");
        return;
    }
    l->login.pam = pam_begin(b->pam, l->tried_user, l->client_address, account_only, &answers, l);
    if (l->login.pam) {
        l->is_busy = true;
        return;
    }
    log_error("login user=%s: PAM checks his password, and %s", l->tried_user,
              b->pam ? "sallyport-pam takes no conversation" : "[ssh] pam is no");
    link_login_failed(l, method, "");
}

void link_pam_answer(struct relay_link *l, const void *text, size_t len)
{
    if (!l->login.pam) {
        link_login_failed(l, "keyboard-interactive", "");
        return;
    }
    l->is_busy = true;
    l->login.is_answered = true;
    pam_answer(l->login.pam, text, len);
}
