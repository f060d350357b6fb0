/*
 * The user logs in: names, passwords, public keys. Passwords and keys are judged by the broker; the
 * relay checks signatures (libssh does), key types, and counts. One request is asked at a time; the
 * queue of libssh keeps what a client sends meanwhile. Steps of a turn of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/blob.h"

/* libssh answers neither a bad signature nor a signature of a type it does not take. */
#define UNANSWERED_MS   3000
#define UNANSWERED_MIN  128 /* a signature is longer; what some send to stay alive is not */
#define LOGIN_BYTES_MAX (1024 * 1024) /* libssh queues what comes while the broker is asked */
#define NAME_IMPOSSIBLE "?" /* goes to the broker, so that its time and its answer are the same */

static void end_login(struct session *s, const char *sentence)
{
    session_end(s, END_POLICY, "policy", sentence, sentence);
}

void user_show(struct session *s, const char *text)
{
    ssh_string banner = ssh_string_from_char(text);

    if (!banner)
        return;
    (void)ssh_send_issue_banner(s->user.ssh, banner);
    ssh_string_free(banner);
}

/* What clients are told may go on. */
static void set_methods(struct session *s, uint8_t methods)
{
    unsigned known = 0;

    s->login.methods = methods ? methods : LINK_METHODS;
    if (s->login.methods & LINK_METHOD_PUBLICKEY)
        known |= SSH_AUTH_METHOD_PUBLICKEY;
    if (s->login.methods & LINK_METHOD_PASSWORD)
        known |= SSH_AUTH_METHOD_PASSWORD;
    if (s->login.methods & LINK_METHOD_KEYBOARD)
        known |= SSH_AUTH_METHOD_INTERACTIVE;
    ssh_set_auth_methods(s->user.ssh, (int)known);
}

void user_service(struct session *s, ssh_message message)
{
    const char *service = ssh_message_service_service(message);
    bool is_known = service && strcmp(service, "ssh-userauth") == 0;

    if (is_known && !s->login.is_accepted) {
        set_methods(s, LINK_METHODS);
        (void)ssh_message_service_reply_success(message);
        if (s->limits.banner[0] != '\0')
            user_show(s, s->limits.banner);
        s->login.is_accepted = true;
        if (s->user.io)
            s->login.handled_bytes = s->user.io->received;
    } else if (!is_known) {
        end_login(s, "This service is not offered here.");
    }
    ssh_message_free(message);
}

/* Keep the first name; false when it changed since. */
static bool check_name(struct user_login *l, const char *separators, const char *name)
{
    size_t len = strlen(name);

    if (l->is_named)
        return len < sizeof(l->name) ? strcmp(l->name, name) == 0 : l->name[0] == '\0';
    l->is_named = true;
    l->user = NAME_IMPOSSIBLE;
    if (!text_copy(l->name, sizeof(l->name), name))
        l->name[0] = '\0';
    else if (login_parse(&l->login, name, len, separators) == 0)
        l->user = l->login.user;
    return true;
}

static void reply_failure(struct session *s, ssh_message message)
{
    (void)ssh_message_reply_default(message);
    ssh_message_free(message);
    if (s->user.io)
        s->login.handled_bytes = s->user.io->received;
}

/* A failed attempt, or an offer too many, ends the connection at the limit. */
static void count_failure(struct session *s, ssh_message message, uint32_t *counter, uint32_t limit)
{
    *counter += 1;
    if (limit > 0 && *counter >= limit) {
        ssh_message_free(message);
        end_login(s, "Too many authentication failures");
        return;
    }
    reply_failure(s, message);
}

static void forget_password(struct user_login *l)
{
    if (!l->password)
        return;
    secret_wipe(l->password);
    free(l->password);
    l->password = NULL;
}

static void ask_password(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;
    const char *password = ssh_message_auth_password(message);

    if (!password || strlen(password) > 1024) {
        count_failure(s, message, &l->failures, s->limits.auth_attempts);
        return;
    }
    forget_password(l);
    if ((l->password = malloc(sizeof(*l->password))))
        (void)secret_set(l->password, password, strlen(password));
    l->message = message;
    l->is_offer = false;
    relay_auth_password(s->relay, l->user, password);
}

static void ask_key(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;
    enum ssh_publickey_state_e state = ssh_message_auth_publickey_state(message);
    uint8_t blob[LINK_KEY_MAX];
    char type[64];
    const char *refused;
    size_t len = blob_export(ssh_message_auth_pubkey(message), blob, sizeof(blob));

    refused = algorithms_check_key(blob, len, type, sizeof(type));
    if (refused || (state != SSH_PUBLICKEY_STATE_NONE && state != SSH_PUBLICKEY_STATE_VALID)) {
        log_debug("key refused type=%s: %s", type, refused ? refused : "bad state");
        count_failure(s, message, &l->offers, s->limits.key_offers);
        return;
    }
    l->message = message;
    l->is_offer = state == SSH_PUBLICKEY_STATE_NONE;
    if (l->methods & LINK_METHOD_PASSWORD) /* otherwise it is the first factor, and stays */
        forget_password(l);
    relay_auth_key(s->relay, l->user, !l->is_offer, type, blob, len);
}

/* Each begins a conversation with the broker, so they are counted like offers. */
static void ask_keyboard(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;

    if (l->methods & LINK_METHOD_PASSWORD)
        forget_password(l);
    if (++l->offers > s->limits.key_offers && s->limits.key_offers > 0) {
        ssh_message_free(message);
        end_login(s, "Too many authentication failures");
    } else if (!keyboard_begin(s, message)) {
        reply_failure(s, message);
    }
}

void user_auth(struct session *s, ssh_message message)
{
    struct user_login *l = &s->login;
    const char *name = ssh_message_auth_user(message);

    l->unanswered_at_ms = 0;
    if (s->phase != PHASE_LOGIN) { /* RFC 4252 §5.3: ignored after success */
        ssh_message_free(message);
        return;
    }
    if (s->is_inner && l->is_accepted) {
        inner_auth(s, message);
        return;
    }
    if (l->is_accepted && ssh_message_subtype(message) == SSH_AUTH_METHOD_INTERACTIVE &&
        ssh_message_auth_kbdint_is_response(message)) { /* has no name */
        if (!keyboard_answer(s, message))
            count_failure(s, message, &l->offers, s->limits.key_offers);
        return;
    }
    keyboard_forget(l); /* another request ends a conversation (RFC 4256 §3.1) */
    if (!l->is_accepted || !name || !check_name(l, s->limits.separators, name)) {
        ssh_message_free(message);
        end_login(s, "The user name must not change during a login.");
        return;
    }
    switch (ssh_message_subtype(message)) {
    case SSH_AUTH_METHOD_PASSWORD:
        ask_password(s, message);
        break;
    case SSH_AUTH_METHOD_PUBLICKEY:
        ask_key(s, message);
        break;
    case SSH_AUTH_METHOD_INTERACTIVE:
        ask_keyboard(s, message);
        break;
    default: /* "none" lists the methods; counted, so that nobody asks for ever */
        count_failure(s, message, &l->offers, s->limits.key_offers);
        break;
    }
}

void user_result(struct session *s, const struct link_auth_result *result)
{
    if (!s->login.message)
        return;
    s->login.result = *result;
    s->login.has_result = true;
    session_want_turn(s);
}

static void succeed(struct session *s)
{
    struct user_login *l = &s->login;

    (void)ssh_message_auth_reply_success(l->message, 0);
    ssh_message_free(l->message);
    l->message = NULL;
    if (l->login.target[0] == '\0') {
        s->phase = PHASE_CHOOSING;
        return;
    }
    s->phase = PHASE_ROUTING;
    relay_route(s->relay, l->login.account, l->login.target);
}

/* A sentence about what was refused, ahead of the refusal. */
static void show_reason(struct session *s)
{
    char text[SESSION_TEXT_MAX + 2];

    if (s->login.result.text[0] == '\0')
        return;
    text_copy(text, sizeof(text) - 1, s->login.result.text);
    text[strlen(text) + 1] = '\0';
    text[strlen(text)] = '\n';
    user_show(s, text);
}

static void apply_result(struct session *s)
{
    struct user_login *l = &s->login;
    ssh_message message = l->message;

    l->has_result = false;
    if (s->user.io)
        l->handled_bytes = s->user.io->received;
    if (l->result.result == LINK_AUTH_OK && !l->is_offer && l->login.user[0] != '\0') {
        succeed(s);
        return;
    }
    l->message = NULL;
    if (l->result.result == LINK_AUTH_DENIED)
        show_reason(s);
    if (!l->is_offer)
        set_methods(s, l->result.methods);
    if (l->result.result == LINK_AUTH_PARTIAL) {
        (void)ssh_message_auth_reply_success(message, 1);
        ssh_message_free(message);
    } else if (l->result.result == LINK_AUTH_DISCONNECT) {
        ssh_message_free(message);
        end_login(s, l->result.text[0] ? l->result.text : "Too many authentication failures");
    } else if (l->is_offer && l->result.result == LINK_AUTH_OFFER_OK) {
        (void)ssh_message_auth_reply_pk_ok_simple(message);
        ssh_message_free(message);
    } else if (l->is_offer) {
        count_failure(s, message, &l->offers, s->limits.key_offers);
    } else {
        if (l->methods & LINK_METHOD_PASSWORD)
            forget_password(l);
        count_failure(s, message, &l->failures, s->limits.auth_attempts);
    }
}

/* Bytes that made no message, with nothing asked: libssh dropped a request without an answer. */
static void watch_unanswered(struct session *s, int64_t now_ms)
{
    struct user_login *l = &s->login;

    if (!l->is_accepted || l->message || s->user.state != LEG_UP)
        return;
    if (l->unanswered_at_ms == 0 && s->user.io->received < l->handled_bytes + UNANSWERED_MIN) {
        l->handled_bytes = s->user.io->received;
    } else if (l->unanswered_at_ms == 0) {
        l->unanswered_at_ms = now_ms + UNANSWERED_MS;
        session_want_timer(s, l->unanswered_at_ms);
    } else if (l->unanswered_at_ms != 0 && now_ms >= l->unanswered_at_ms) {
        end_login(s, "The signature or the type of the key was not accepted: offer the key first, "
                     "or use an ssh-ed25519 key.");
    } else if (l->unanswered_at_ms != 0) {
        session_want_timer(s, l->unanswered_at_ms);
    }
}

void user_step(struct session *s, int64_t now_ms)
{
    if (s->phase != PHASE_LOGIN)
        return;
    if (s->user.io && s->user.io->received > LOGIN_BYTES_MAX) {
        end_login(s, "Too much was sent before the login.");
        return;
    }
    if (s->login.has_result)
        apply_result(s);
    keyboard_step(s);
    if (s->phase == PHASE_LOGIN)
        watch_unanswered(s, now_ms);
}

void user_finish(struct session *s)
{
    if (s->login.message)
        ssh_message_free(s->login.message);
    s->login.message = NULL;
    forget_password(&s->login);
    keyboard_forget(&s->login);
}
