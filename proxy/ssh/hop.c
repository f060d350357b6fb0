/*
 * One server's login; hop.h. Every failure is a sentence that says which server, what, and where
 * somebody can do something about it, what to do.
 */
#include "proxy/ssh/hop.h"

#include <event2/event.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/cursor.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/blob.h"

#define LOGIN_MS  30000
#define GO_ON     1000 /* beside libssh's SSH_AUTH_ values: this step is done, take the next */
#define STEPS_MAX 24   /* of one turn: a server may play games */

static const char *const auth_names[] = {
    [TARGET_AUTH_NONE] = "no credential",
    [TARGET_AUTH_PASSWORD] = "password",
    [TARGET_AUTH_KEY] = "key",
    [TARGET_AUTH_PASSTHROUGH] = "your password",
    [TARGET_AUTH_AGENT] = "the keys of your agent",
    [TARGET_AUTH_PROMPT] = "no credential",
};

void hop_fail(struct hop *h, const char *fmt, ...)
{
    va_list args;

    if (h->step == HOP_FAILED)
        return;
    va_start(args, fmt);
    vsnprintf(h->text, sizeof(h->text), fmt, args);
    va_end(args);
    h->step = HOP_FAILED;
}

void hop_allow(struct hop *h, int64_t until_ms)
{
    if (until_ms > h->deadline_ms)
        h->deadline_ms = until_ms;
}

/* ---- key exchange ---- */

static bool is_pinned(const struct hop *h)
{
    return h->told->host_key_type[0] != '\0';
}

static void fail_key_exchange(struct hop *h)
{
    char reason[160], text[HOP_TEXT_MAX];

    text_escape(reason, sizeof(reason), h->leg->error, strlen(h->leg->error));
    if (is_pinned(h) && strstr(h->leg->error, "server host key algo")) {
        snprintf(text, sizeof(text),
                 "the host key of %s has changed: it no longer offers a key of type %s", h->name,
                 h->told->host_key_type);
        h->ops->event(h->arg, "host-key-mismatch", text);
        hop_fail(h,
                 "%s; if it was set up anew, an admin pins the new one with: sallyctl target "
                 "set %s --host-key fetch",
                 text, h->name);
    } else if (h->leg->end == LEG_END_LOST) {
        hop_fail(h, "%s closed the connection before the login", h->name);
    } else {
        hop_fail(h, "%s does not speak an SSH that is accepted here: %s", h->name, reason);
    }
}

/* ---- the host key ---- */

static void fail_mismatch(struct hop *h, const uint8_t *blob, size_t len)
{
    char text[SESSION_TEXT_MAX], expected[FINGERPRINT_MAX], got[FINGERPRINT_MAX];

    fingerprint_sha256(expected, h->told->host_key.data, h->told->host_key.len);
    fingerprint_sha256(got, blob, len);
    snprintf(text, sizeof(text), "the host key of %s has changed: expected %s, got %s", h->name,
             expected, got);
    h->ops->event(h->arg, "host-key-mismatch", text);
    hop_fail(h,
             "%s; if it was set up anew, an admin pins the new one with: sallyctl target set %s "
             "--host-key fetch",
             text, h->name);
}

static void prepare(struct hop *h);

static void check_host_key(struct hop *h)
{
    uint8_t blob[LINK_KEY_MAX];
    char type[64];
    size_t len = 0;
    ssh_key key = NULL;

    if (ssh_get_server_publickey(h->leg->ssh, &key) == SSH_OK)
        len = blob_export(key, blob, sizeof(blob));
    ssh_key_free(key);
    if (len == 0 || !blob_type(blob, len, type, sizeof(type))) {
        hop_fail(h, "the host key of %s cannot be read", h->name);
    } else if (h->ops->sees_key && !h->ops->sees_key(h->arg, h, type, blob, len)) {
        return; /* that was all that was wanted, or it failed */
    } else if (is_pinned(h)) {
        if (h->told->host_key.len == len && memcmp(h->told->host_key.data, blob, len) == 0)
            prepare(h);
        else
            fail_mismatch(h, blob, len);
    } else if (h->told->accept_new) {
        h->step = HOP_PINNING;
        h->ops->pin(h->arg, h, type, blob, len);
    } else {
        hop_fail(h,
                 "no host key is pinned for %s; an admin can pin it with: sallyctl target set %s "
                 "--host-key fetch, or --accept-new",
                 h->name, h->name);
    }
}

static void step_pinning(struct hop *h)
{
    if (h->pin_answer > 0)
        prepare(h);
    else if (h->pin_answer < 0)
        hop_fail(h, "%s", h->pin_text[0] ? h->pin_text : "the host key was not accepted");
}

void hop_pinned(struct hop *h, bool is_ok, const char *text)
{
    h->pin_answer = is_ok ? 1 : -1;
    text_copy(h->pin_text, sizeof(h->pin_text), text);
}

/* ---- credentials ---- */

static bool skip_string(struct cursor *c)
{
    struct cursor s;
    uint32_t len;

    return cursor_be32(c, &len) && cursor_sub(c, len, &s);
}

/* The parts of a key stand behind its type, those of a certificate behind its type and a nonce
 * (OpenSSH PROTOCOL.certkeys). */
static bool is_certified(ssh_key cert, ssh_key key)
{
    uint8_t a[LINK_KEY_MAX], b[LINK_KEY_MAX];
    struct cursor has, wanted;
    ssh_key public = NULL;

    if (ssh_pki_export_privkey_to_pubkey(key, &public) != SSH_OK)
        return false;
    has = cursor_of(a, blob_export(cert, a, sizeof(a)));
    wanted = cursor_of(b, blob_export(public, b, sizeof(b)));
    ssh_key_free(public);
    return skip_string(&has) && skip_string(&has) && skip_string(&wanted) &&
           cursor_left(&wanted) > 0 && cursor_left(&has) > cursor_left(&wanted) &&
           memcmp(has.at, wanted.at, cursor_left(&wanted)) == 0;
}

static bool import_certificate(struct hop *h)
{
    char line[LINK_KEY_MAX + 1], *blank;
    ssh_key cert = NULL;
    int rc = SSH_ERROR;

    memcpy(line, h->told->certificate.data, h->told->certificate.len);
    line[h->told->certificate.len] = '\0';
    if ((blank = strchr(line, ' '))) {
        *blank = '\0';
        rc = ssh_pki_import_cert_base64(blank + 1, ssh_key_type_from_name(line), &cert);
    }
    if (rc == SSH_OK && !is_certified(cert, h->key))
        rc = SSH_ERROR; /* of another key: libssh would copy it all the same */
    if (rc == SSH_OK)
        rc = ssh_pki_copy_cert_to_privkey(cert, h->key);
    ssh_key_free(cert);
    return rc == SSH_OK;
}

static bool import_key(struct hop *h)
{
    struct secret pem;
    int rc;

    if (!secret_set(&pem, h->told->secret.data, h->told->secret.len))
        return false;
    rc = ssh_pki_import_privkey_base64((const char *)pem.data, NULL, NULL, NULL, &h->key);
    secret_wipe(&pem);
    return rc == SSH_OK;
}

static bool take_password(struct hop *h, const void *data, size_t len)
{
    h->has_password = len > 0 && secret_set(&h->password, data, len);
    return h->has_password;
}

/* Bring the credential into the form of its method; false after a failure was said. */
static bool prepare_credential(struct hop *h)
{
    const struct secret *own = h->ops->password(h->arg);

    switch ((enum link_target_auth)h->told->auth) {
    case TARGET_AUTH_NONE:
    case TARGET_AUTH_AGENT:
    case TARGET_AUTH_PROMPT: /* of RDP targets only */
        return true;
    case TARGET_AUTH_PASSWORD:
        if (take_password(h, h->told->secret.data, h->told->secret.len))
            return true;
        break;
    case TARGET_AUTH_KEY:
        if (h->told->secret.len == 0)
            break;
        if (!import_key(h)) {
            hop_fail(h, "the key that is stored for %s cannot be used", h->name);
            return false;
        }
        if (h->told->certificate.len == 0 || import_certificate(h))
            return true;
        hop_fail(h, "the certificate that is stored for %s does not fit its key", h->name);
        return false;
    case TARGET_AUTH_PASSTHROUGH:
        if (own && take_password(h, own->data, own->len))
            return true;
        hop_fail(h, "%s wants your own password: log in with a password, not with a key or by -J",
                 h->name);
        return false;
    }
    hop_fail(h, "no credential is stored for %s", h->name);
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

static void prepare(struct hop *h)
{
    if (!is_clean_account(h->account))
        hop_fail(h, "the account's name cannot be used at %s", h->name);
    else if (prepare_credential(h))
        h->step = HOP_NONE;
}

/* ---- the login ---- */

static void fail_login(struct hop *h, const char *why)
{
    char account[160];

    text_escape(account, sizeof(account), h->account, strlen(h->account));
    hop_fail(h, "%s refused the login of %s (%s)", h->name, account, why);
}

static void note_method(struct hop *h, const char *name)
{
    size_t at = strlen(h->method);

    snprintf(h->method + at, sizeof(h->method) - at, "%s%s", at ? ", " : "", name);
}

/* The next method that the server takes and that we have something for. */
static int choose_method(struct hop *h, bool is_first)
{
    int methods = ssh_userauth_list(h->leg->ssh, h->account);
    bool takes_password = (methods & (int)SSH_AUTH_METHOD_PASSWORD) != 0;
    bool takes_questions = (methods & (int)SSH_AUTH_METHOD_INTERACTIVE) != 0;
    bool takes_keys = is_first || (methods & (int)SSH_AUTH_METHOD_PUBLICKEY) != 0;

    if (h->key && !h->has_used_key && takes_keys)
        h->step = HOP_KEY;
    else if (h->told->auth == TARGET_AUTH_AGENT && !h->has_used_agent && takes_keys)
        h->step = HOP_AGENT;
    else if (h->has_password && !h->has_used_password && (takes_password || !takes_questions))
        h->step = HOP_PASSWORD;
    else if (takes_questions)
        h->step = HOP_PROMPT;
    else
        return SSH_AUTH_PARTIAL;
    return GO_ON;
}

/* The first request asks for nothing and lists what the server takes. */
static int try_none(struct hop *h)
{
    int rc = ssh_userauth_none(h->leg->ssh, h->account);

    if (rc == SSH_AUTH_SUCCESS)
        note_method(h, "none");
    if (rc != SSH_AUTH_DENIED && rc != SSH_AUTH_PARTIAL)
        return rc;
    rc = choose_method(h, true);
    return rc == SSH_AUTH_PARTIAL ? SSH_AUTH_DENIED : rc;
}

/* A method has come to its end: is something else wanted? */
static int after(struct hop *h, int rc, const char *name)
{
    if (rc == SSH_AUTH_SUCCESS || rc == SSH_AUTH_PARTIAL)
        note_method(h, name);
    return rc == SSH_AUTH_PARTIAL ? choose_method(h, false) : rc;
}

static int try_key(struct hop *h)
{
    int rc = ssh_userauth_publickey(h->leg->ssh, h->account, h->key);

    if (rc != SSH_AUTH_AGAIN)
        h->has_used_key = true;
    return after(h, rc, h->told->certificate.len ? "certificate" : "key");
}

static int try_agent(struct hop *h)
{
    int rc = h->ops->agent(h->arg, h);

    if (rc != SSH_AUTH_AGAIN)
        h->has_used_agent = true;
    return after(h, rc, "agent");
}

static int try_password(struct hop *h)
{
    int rc = ssh_userauth_password(h->leg->ssh, h->account, (const char *)h->password.data);

    if (rc != SSH_AUTH_AGAIN)
        h->has_used_password = true;
    return after(h, rc, "password");
}

/* One hidden question, the first, is the one for the password. */
static bool is_for_password(struct hop *h)
{
    char echo = 1;

    return h->has_password && !h->has_used_password && !h->has_answered &&
           ssh_userauth_kbdint_getnprompts(h->leg->ssh) == 1 &&
           ssh_userauth_kbdint_getprompt(h->leg->ssh, 0, &echo) && echo == 0;
}

static int try_prompt(struct hop *h)
{
    int rc = ssh_userauth_kbdint(h->leg->ssh, h->account, NULL);

    if (rc != SSH_AUTH_INFO)
        return after(h, rc, "keyboard-interactive");
    if (ssh_userauth_kbdint_getnprompts(h->leg->ssh) == 0)
        return GO_ON; /* an empty round: answer it and go on */
    if (!is_for_password(h)) {
        h->step = HOP_QUESTION;
        return GO_ON;
    }
    h->has_answered = true;
    if (ssh_userauth_kbdint_setanswer(h->leg->ssh, 0, (const char *)h->password.data) < 0)
        return SSH_AUTH_ERROR;
    return GO_ON;
}

static int ask_user(struct hop *h)
{
    int rc = h->ops->ask(h->arg, h);

    if (rc != SSH_AUTH_INFO)
        return rc;
    h->step = HOP_PROMPT;
    return GO_ON;
}

static int try_once(struct hop *h)
{
    switch (h->step) {
    case HOP_NONE:
        return try_none(h);
    case HOP_KEY:
        return try_key(h);
    case HOP_AGENT:
        return try_agent(h);
    case HOP_PASSWORD:
        return try_password(h);
    case HOP_PROMPT:
        return try_prompt(h);
    case HOP_QUESTION:
        return ask_user(h);
    default:
        return HOP_CANNOT;
    }
}

static const char *what_was_refused(const struct hop *h)
{
    if (h->step == HOP_PROMPT && !h->has_answered)
        return "the answers";
    if (h->step == HOP_KEY && h->told->certificate.len > 0)
        return "key with certificate";
    return auth_names[h->told->auth];
}

static void step_login(struct hop *h)
{
    int rc = GO_ON;

    for (int i = 0; i < STEPS_MAX && rc == GO_ON; i++)
        rc = try_once(h);
    if (rc == SSH_AUTH_SUCCESS) {
        h->step = HOP_IN;
        hop_forget(h);
    } else if (rc == SSH_AUTH_PARTIAL) {
        fail_login(h, "it wants more than one proof");
    } else if (rc == SSH_AUTH_DENIED || rc == GO_ON) {
        fail_login(h, what_was_refused(h));
    } else if (rc == SSH_AUTH_ERROR && leg_is_alive(h->leg)) {
        fail_login(h, "it broke off the login");
    }
}

/* ---- from outside ---- */

int hop_init(struct hop *h, const struct link_hop *told, struct leg *leg, const struct hop_ops *ops,
             void *arg)
{
    *h = (struct hop){.number = told->number, .leg = leg, .ops = ops, .arg = arg};
    text_copy(h->name, sizeof(h->name), told->target);
    text_copy(h->account, sizeof(h->account), told->account);
    text_copy(h->address, sizeof(h->address), told->address);
    if (!(h->told = malloc(sizeof(*h->told))))
        return ERR_MEMORY;
    *h->told = *told;
    return 0;
}

void hop_begin(struct hop *h, int fd, struct event_base *base, void (*wake)(void *), void *wake_arg,
               int64_t now_ms)
{
    const char *type = h->told->host_key_type;

    h->step = HOP_KEY_EXCHANGE;
    h->deadline_ms = now_ms + LOGIN_MS;
    if (type[0] != '\0' && !algorithms_is_host_key(type)) {
        close(fd);
        hop_fail(h, "the host key that is pinned for %s is of a type that is not accepted",
                 h->name);
    } else if (leg_open_client(h->leg, type, fd, base, wake, wake_arg) != 0) {
        hop_fail(h, "out of memory");
    } else {
        event_active(h->leg->readable, EV_READ, 0); /* its first words are ours */
    }
}

void hop_step(struct hop *h, int64_t now_ms)
{
    if (h->step == HOP_WAITING || h->step >= HOP_IN)
        return;
    if (h->leg->state == LEG_DEAD) {
        if (h->step == HOP_KEY_EXCHANGE)
            fail_key_exchange(h);
        else
            fail_login(h, "it closed the connection");
        return;
    }
    if (now_ms >= h->deadline_ms) {
        hop_fail(h, "%s did not finish the login in time", h->name);
        return;
    }
    if (h->step == HOP_KEY_EXCHANGE && h->leg->state == LEG_UP)
        check_host_key(h);
    if (h->step == HOP_PINNING)
        step_pinning(h);
    if (h->step >= HOP_NONE && h->step < HOP_IN)
        step_login(h);
}

void hop_forget(struct hop *h)
{
    secret_wipe(&h->password);
    h->has_password = false;
    ssh_key_free(h->key);
    h->key = NULL;
    if (h->told)
        memory_wipe(h->told, sizeof(*h->told));
    free(h->told);
    h->told = NULL;
}
