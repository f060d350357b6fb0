/*
 * One PAM conversation; see conversation.h. Opens no PAM session and sets no credentials: nobody
 * gets a process of his own on this machine by logging in to the proxy.
 */
#include "proxy/pam/conversation.h"

#include <security/pam_appl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>

struct talk {
    int sock;
    struct pam_talk message; /* scratch */
};

static void say(struct talk *t, enum pam_talk_type type, bool flag, const char *text)
{
    memset(&t->message, 0, sizeof(t->message));
    t->message.type = (uint8_t)type;
    t->message.flag = flag;
    (void)text_copy(t->message.text, sizeof(t->message.text), text ? text : "");
    if (pam_talk_send(t->sock, &t->message, -1) < 0)
        log_debug("the broker has gone");
}

/* NULL when nobody answers any more. The caller frees; modules wipe what they were given. */
static char *ask(struct talk *t, bool has_echo, const char *text)
{
    char *answer = NULL;

    say(t, PAM_TALK_PROMPT, has_echo, text);
    if (pam_talk_receive(t->sock, &t->message, NULL) == 0 && t->message.type == PAM_TALK_ANSWER)
        answer = strdup(t->message.text);
    memory_wipe(&t->message, sizeof(t->message));
    return answer;
}

static void drop_answers(struct pam_response *answers, int count)
{
    for (int i = 0; i < count; i++) {
        if (!answers[i].resp)
            continue;
        memory_wipe(answers[i].resp, strlen(answers[i].resp));
        free(answers[i].resp);
    }
    free(answers);
}

static int converse(int count, const struct pam_message **messages, struct pam_response **out,
                    void *arg)
{
    struct pam_response *answers;
    struct talk *t = arg;

    if (count <= 0 || count > PAM_MAX_NUM_MSG ||
        !(answers = calloc((size_t)count, sizeof(*answers))))
        return PAM_CONV_ERR;
    for (int i = 0; i < count; i++) {
        int style = messages[i]->msg_style;

        if (style == PAM_TEXT_INFO || style == PAM_ERROR_MSG) {
            say(t, PAM_TALK_INFO, false, messages[i]->msg);
            continue;
        }
        if (style == PAM_PROMPT_ECHO_OFF || style == PAM_PROMPT_ECHO_ON)
            answers[i].resp = ask(t, style == PAM_PROMPT_ECHO_ON, messages[i]->msg);
        if (!answers[i].resp) {
            drop_answers(answers, count);
            return PAM_CONV_ERR;
        }
    }
    *out = answers;
    return PAM_SUCCESS;
}

/* What the user may be told: only about an account whose password was right. */
static const char *sentence_of(int result)
{
    switch (result) {
    case PAM_ACCT_EXPIRED:
        return "Your account has expired.";
    case PAM_NEW_AUTHTOK_REQD:
    case PAM_AUTHTOK_EXPIRED:
        return "Your password has expired and was not changed.";
    case PAM_PERM_DENIED:
        return "You may not log in here now.";
    case PAM_USER_UNKNOWN:
        return "The system does not know your account.";
    default:
        return "The system did not let you in.";
    }
}

static int account_stage(pam_handle_t *pam)
{
    int result = pam_acct_mgmt(pam, 0);

    if (result == PAM_NEW_AUTHTOK_REQD)
        result = pam_chauthtok(pam, PAM_CHANGE_EXPIRED_AUTHTOK) == PAM_SUCCESS
                     ? PAM_SUCCESS
                     : PAM_NEW_AUTHTOK_REQD;
    return result;
}

/* A module may map the user to another name: then it is not who the broker asked about. */
static bool is_same_user(pam_handle_t *pam, const char *user)
{
    const void *item = NULL;

    return pam_get_item(pam, PAM_USER, &item) == PAM_SUCCESS && item && strcmp(item, user) == 0;
}

static int go_through(pam_handle_t *pam, const struct pam_talk *start, const char **sentence)
{
    int result = PAM_SUCCESS;

    *sentence = "";
    if (pam_set_item(pam, PAM_RHOST, start->source) != PAM_SUCCESS ||
        pam_set_item(pam, PAM_TTY, "ssh") != PAM_SUCCESS)
        return PAM_SYSTEM_ERR;
    if (!start->flag)
        result = pam_authenticate(pam, PAM_DISALLOW_NULL_AUTHTOK);
    if (result != PAM_SUCCESS)
        return result;
    result = account_stage(pam);
    if (result != PAM_SUCCESS)
        *sentence = sentence_of(result);
    else if (!is_same_user(pam, start->user))
        result = PAM_USER_UNKNOWN;
    return result;
}

int conversation_run(int sock, const struct pam_talk *start)
{
    struct talk talk = {.sock = sock};
    struct pam_conv conv = {converse, &talk};
    pam_handle_t *pam = NULL;
    const char *sentence = "";
    int result = pam_start(start->service, start->user, &conv, &pam);

    if (result == PAM_SUCCESS)
        result = go_through(pam, start, &sentence);
    if (result != PAM_SUCCESS)
        log_info("pam service=%s user=%s source=%s: %s", start->service, start->user, start->source,
                 pam ? pam_strerror(pam, result) : "cannot begin");
    say(&talk, PAM_TALK_RESULT, result == PAM_SUCCESS, sentence);
    if (pam)
        (void)pam_end(pam, result);
    return result == PAM_SUCCESS ? 0 : 1;
}
