/*
 * The relay logs in at the target: key exchange, the host key before any credential, then one
 * method. Every failure is a sentence for the user and an event for the admin. Steps of a turn of
 * proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/blob.h"

#define TARGET_LOGIN_MS 30000
#define LOGIN_GO_ON     1000 /* beside libssh's SSH_AUTH_ values: this step is done, take the next */

static const char *const auth_names[] = {
    [TARGET_AUTH_NONE] = "no credential",
    [TARGET_AUTH_PASSWORD] = "password",
    [TARGET_AUTH_KEY] = "key",
    [TARGET_AUTH_PASSTHROUGH] = "your password",
};

static void fail(struct session *s, const char *sentence)
{
    log_info("target login failed: %s", sentence);
    session_end(s, END_TARGET_UNREACHABLE, "target", sentence, sentence);
}

static void fail_kex(struct session *s)
{
    char text[SESSION_TEXT_MAX], reason[120];
    const char *target = s->out->route.target, *type = s->out->route.host_key_type;

    text_escape(reason, sizeof(reason), s->target.error, strlen(s->target.error));
    if (type[0] != '\0' && strstr(s->target.error, "server host key algo")) {
        snprintf(text, sizeof(text),
                 "the host key of %s has changed: it no longer offers a key of type %s", target,
                 type);
        relay_event(s->relay, "host-key-mismatch", text);
    } else if (s->target.end == LEG_END_LOST) {
        snprintf(text, sizeof(text), "%s closed the connection before the login", target);
    } else {
        snprintf(text, sizeof(text), "%s does not speak an SSH that is accepted here: %s", target,
                 reason);
    }
    fail(s, text);
}

/* ---- the host key ---- */

static void fail_mismatch(struct session *s, const uint8_t *blob, size_t len)
{
    const struct link_route_result *route = &s->out->route;
    char text[SENTENCE_MAX], expected[FINGERPRINT_MAX], got[FINGERPRINT_MAX];

    fingerprint_sha256(expected, route->host_key.data, route->host_key.len);
    fingerprint_sha256(got, blob, len);
    snprintf(text, sizeof(text), "the host key of %s has changed: expected %s, got %s",
             route->target, expected, got);
    relay_event(s->relay, "host-key-mismatch", text);
    snprintf(text, sizeof(text),
             "the host key of %s has changed: expected %s, got %s; an admin can pin the new one "
             "with: sallyctl target set %s --host-key ...",
             route->target, expected, got, route->target);
    fail(s, text);
}

static void fail_unpinned(struct session *s)
{
    char text[SESSION_TEXT_MAX];

    snprintf(text, sizeof(text),
             "no host key is pinned for %s; an admin can pin it with: sallyctl target set %s "
             "--host-key ... or --accept-new",
             s->out->route.target, s->out->route.target);
    fail(s, text);
}

static void ask_credentials(struct session *s);

static void check_host_key(struct session *s)
{
    struct link_route_result *route = &s->out->route;
    uint8_t blob[LINK_KEY_MAX];
    char type[64];
    size_t len = 0;
    ssh_key key = NULL;

    if (ssh_get_server_publickey(s->target.ssh, &key) == SSH_OK)
        len = blob_export(key, blob, sizeof(blob));
    ssh_key_free(key);
    if (len == 0 || !blob_type(blob, len, type, sizeof(type))) {
        fail(s, "the target's host key cannot be read");
    } else if (route->host_key_type[0] != '\0') {
        if (route->host_key.len == len && memcmp(route->host_key.data, blob, len) == 0)
            ask_credentials(s);
        else
            fail_mismatch(s, blob, len);
    } else if (route->accept_new) {
        s->out->step = TARGET_PINNING;
        relay_pin_host_key(s->relay, type, blob, len);
    } else {
        fail_unpinned(s);
    }
}

static void step_kex(struct session *s)
{
    if (s->target.state == LEG_UP)
        check_host_key(s);
}

static void step_pinning(struct session *s)
{
    if (s->out->pin_answer > 0)
        ask_credentials(s);
    else if (s->out->pin_answer < 0)
        fail(s, s->out->pin_text[0] ? s->out->pin_text : "the target's host key was not accepted");
}

/* ---- the login ---- */

static void forget_secrets(struct session *s)
{
    if (!s->out)
        return;
    secret_wipe(&s->out->password);
    memory_wipe(s->out->route.secret.data, sizeof(s->out->route.secret.data));
    ssh_key_free(s->out->key);
    free(s->out);
    s->out = NULL;
    if (s->login.password)
        secret_wipe(s->login.password);
}

static void fail_login(struct session *s, const char *why)
{
    char text[SESSION_TEXT_MAX], account[128]; /* so that `why` always fits */
    const struct link_route_result *route = &s->out->route;

    text_escape(account, sizeof(account), route->account, strlen(route->account));
    snprintf(text, sizeof(text), "%s refused the login of %s (%s)", route->target, account, why);
    fail(s, text);
}

static bool import_key(struct session *s)
{
    struct link_route_result *route = &s->out->route;
    struct secret pem;
    int rc;

    if (!secret_set(&pem, route->secret.data, route->secret.len))
        return false;
    rc = ssh_pki_import_privkey_base64((const char *)pem.data, NULL, NULL, NULL, &s->out->key);
    secret_wipe(&pem);
    return rc == SSH_OK;
}

/* Bring the credential into the form of its method; false after a failure was said. */
static bool prepare_credential(struct session *s)
{
    struct link_route_result *route = &s->out->route;

    switch ((enum link_target_auth)route->auth) {
    case TARGET_AUTH_NONE:
        return true;
    case TARGET_AUTH_PASSWORD:
        if (secret_set(&s->out->password, route->secret.data, route->secret.len))
            return true;
        break;
    case TARGET_AUTH_KEY:
        if (import_key(s))
            return true;
        fail(s, "the key that is stored for the target cannot be used");
        return false;
    case TARGET_AUTH_PASSTHROUGH:
        if (s->login.password && s->login.password->len > 0 &&
            secret_set(&s->out->password, s->login.password->data, s->login.password->len))
            return true;
        fail(s, "this target wants your own password: log in with a password, not with a key");
        return false;
    default:
        break;
    }
    fail(s, "no credential is stored for the target");
    return false;
}

static bool is_clean_account(const char *account)
{
    for (const char *c = account; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    }
    return account[0] != '\0';
}

static void ask_credentials(struct session *s)
{
    if (!is_clean_account(s->out->route.account))
        fail(s, "the account's name cannot be used");
    else if (prepare_credential(s))
        s->out->step = TARGET_NONE;
}

static void succeed(struct session *s)
{
    const char *banner = ssh_get_serverbanner(s->target.ssh);

    forget_secrets(s);
    s->phase = PHASE_RELAYING;
    relay_ready(s->relay, blob_software(banner));
    channel_target_is_up(s);
    relay_narrow(s->relay);
}

/* The first request asks for nothing and lists what the target takes. */
static int try_none(struct session *s)
{
    int rc = ssh_userauth_none(s->target.ssh, s->out->route.account);

    if (rc == SSH_AUTH_DENIED || rc == SSH_AUTH_PARTIAL) {
        s->out->step = TARGET_METHOD;
        return s->out->route.auth == TARGET_AUTH_NONE ? SSH_AUTH_DENIED : LOGIN_GO_ON;
    }
    return rc;
}

static int try_method(struct session *s)
{
    const char *account = s->out->route.account;
    int methods = ssh_userauth_list(s->target.ssh, account);

    if (s->out->route.auth == TARGET_AUTH_KEY)
        return ssh_userauth_publickey(s->target.ssh, account, s->out->key);
    if (!(methods & (int)SSH_AUTH_METHOD_PASSWORD) &&
        (methods & (int)SSH_AUTH_METHOD_INTERACTIVE)) {
        s->out->step = TARGET_PROMPT;
        return LOGIN_GO_ON;
    }
    return ssh_userauth_password(s->target.ssh, account, (const char *)s->out->password.data);
}

/* Keyboard-interactive with one hidden question takes the password; anything else is a refusal. */
static int try_prompt(struct session *s)
{
    int rc = ssh_userauth_kbdint(s->target.ssh, s->out->route.account, NULL);
    char echo = 0;

    if (rc != SSH_AUTH_INFO)
        return rc;
    if (ssh_userauth_kbdint_getnprompts(s->target.ssh) == 0)
        return LOGIN_GO_ON; /* an empty round: answer it and go on */
    if (ssh_userauth_kbdint_getnprompts(s->target.ssh) != 1 || s->out->has_prompted ||
        !ssh_userauth_kbdint_getprompt(s->target.ssh, 0, &echo) || echo != 0)
        return SSH_AUTH_DENIED;
    s->out->has_prompted = true;
    if (ssh_userauth_kbdint_setanswer(s->target.ssh, 0, (const char *)s->out->password.data) < 0)
        return SSH_AUTH_ERROR;
    return LOGIN_GO_ON;
}

static void step_login(struct session *s)
{
    int rc = LOGIN_GO_ON;

    for (int i = 0; i < 8 && rc == LOGIN_GO_ON; i++) { /* bounded: a target may play games */
        if (s->out->step == TARGET_NONE)
            rc = try_none(s);
        else if (s->out->step == TARGET_METHOD)
            rc = try_method(s);
        else
            rc = try_prompt(s);
    }
    if (rc == SSH_AUTH_SUCCESS)
        succeed(s);
    else if (rc == SSH_AUTH_PARTIAL)
        fail_login(s, "it wants more than one proof");
    else if (rc == SSH_AUTH_DENIED || rc == LOGIN_GO_ON)
        fail_login(s, auth_names[s->out->route.auth]);
    else if (rc == SSH_AUTH_ERROR && leg_is_alive(&s->target))
        fail_login(s, "it broke off the login");
}

/* ---- from outside ---- */

void target_routed(struct session *s, const struct link_route_result *route, int fd)
{
    struct target_login *out;
    const char *type = route->host_key_type;

    if (s->phase != PHASE_ROUTING || !(out = s->out = calloc(1, sizeof(*out)))) {
        close(fd);
        return;
    }
    text_copy(s->account, sizeof(s->account), route->account);
    text_copy(s->target_name, sizeof(s->target_name), route->target);
    out->route = *route;
    out->step = TARGET_KEX;
    out->deadline_ms = clock_mono_ms() + TARGET_LOGIN_MS;
    s->phase = PHASE_TARGET;
    session_want_timer(s, out->deadline_ms);
    if (type[0] != '\0' && !algorithms_is_host_key(type)) {
        close(fd);
        fail(s, "the host key that is pinned for the target is of a type that is not accepted");
    } else if (leg_open_client(&s->target, type, fd, relay_base(s->relay), session_wake, s) != 0) {
        fail(s, "out of memory");
    }
}

void target_pinned(struct session *s, bool is_ok, const char *text)
{
    if (!s->out)
        return;
    s->out->pin_answer = is_ok ? 1 : -1;
    text_copy(s->out->pin_text, sizeof(s->out->pin_text), text);
    session_want_turn(s);
}

void target_step(struct session *s, int64_t now_ms)
{
    char text[SESSION_TEXT_MAX];

    if (s->phase != PHASE_TARGET)
        return;
    if (s->target.state == LEG_DEAD) {
        if (s->out->step == TARGET_KEX)
            fail_kex(s);
        else
            fail_login(s, "it closed the connection");
        return;
    }
    if (now_ms >= s->out->deadline_ms) {
        snprintf(text, sizeof(text), "%s did not finish the login in time", s->out->route.target);
        fail(s, text);
        return;
    }
    session_want_timer(s, s->out->deadline_ms);
    if (s->out->step == TARGET_KEX)
        step_kex(s);
    if (s->out->step == TARGET_PINNING)
        step_pinning(s);
    if (s->phase == PHASE_TARGET && s->out->step >= TARGET_NONE)
        step_login(s);
}

void target_finish(struct session *s)
{
    forget_secrets(s);
}
