/*
 * The second factor of a login, in the keyboard-interactive conversation of links_login.c: a code
 * or a recovery code from those who have one, enrolment for those who must have one and have none.
 * What a code is, is tracker/factor.c's.
 */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/links_parts.h"
#include "tracker/factor.h"

#define ENROL_TRIES  3
#define ENROL_MORE_S 300 /* for a person to find the phone, and to write codes down */
#define BANNER_MAX   8000

/* Wrong codes of one user, from wherever: they all come from somebody who had the first factor. */
const struct source_limits link_code_limits = {10, 600};

static int64_t now_s(void)
{
    return clock_wall_us() / 1000000;
}

/* ---- a code ---- */

static bool may_guess(struct relay_link *l)
{
    struct broker *b = l->links->broker;
    bool is_first;
    uint32_t wait_s = sources_blocked_s(&b->code_failures, l->tried_user, &link_code_limits,
                                        clock_mono_ms(), &is_first);
    char text[160];

    if (!wait_s)
        return true;
    snprintf(text, sizeof(text), "Too many wrong codes for this user: try again in %u s", wait_s);
    if (is_first) {
        log_warn("second factor blocked user=%s source=%s seconds=%u", l->tried_user,
                 l->client_address, wait_s);
        link_note(l, "second-factor-blocked", text);
    }
    link_login_reply(l, LINK_AUTH_DISCONNECT, text);
    return false;
}

static void wrong_code(struct relay_link *l, const char *what, const char *shown)
{
    struct broker *b = l->links->broker;
    char method[96];

    sources_failed(&b->code_failures, l->tried_user, &link_code_limits, clock_mono_ms());
    snprintf(method, sizeof(method), "%s after %s", what, l->login.first);
    link_login_failed(l, method, shown);
}

static void right_code(struct relay_link *l, const char *what)
{
    struct broker *b = l->links->broker;
    char how[160];

    (void)sources_forget(&b->code_failures, l->tried_user, &link_code_limits, clock_mono_ms());
    snprintf(how, sizeof(how), "%s, %s", l->login.first, what);
    l->has_second_factor = true;
    link_logged_in(l, how);
}

static void recovery_code(struct relay_link *l)
{
    struct store_user user;
    char what[64] = "recovery code";

    if (store_user_get(l->links->broker->store, l->tried_user, &user) == 0)
        snprintf(what, sizeof(what), "recovery code, %u left", user.recovery_count);
    right_code(l, what);
}

static void check_code(struct relay_link *l, const char *typed)
{
    switch (factor_check(l->links->broker->store, l->tried_user, typed, now_s())) {
    case FACTOR_CODE:
        right_code(l, "totp");
        break;
    case FACTOR_RECOVERY:
        recovery_code(l);
        break;
    case FACTOR_REPLAYED:
        wrong_code(l, "a used totp code", "This code was used before: wait for the next one.");
        break;
    case FACTOR_WRONG:
        wrong_code(l, "wrong totp code", "");
        break;
    case FACTOR_FAILED:
        log_error("the second factor of %s cannot be checked: %s", l->tried_user,
                  store_error(l->links->broker->store));
        wrong_code(l, "totp not checked", "The code could not be checked; try again.");
        break;
    }
}

/* ---- enrolment ---- */

static int fill_banner(const struct relay_link *l, const struct secret *key, struct buffer *out)
{
    char uri[FACTOR_URI_MAX], text[FACTOR_KEY_TEXT];
    int r = factor_uri(key, l->tried_user, l->links->broker->config->node, uri);

    if (r == 0)
        r = factor_key_text(key, text);
    if (r)
        return r;
    buffer_put_str(out,
                   "\nA second factor is required here, and you have none yet. Scan this with an\n"
                   "authenticator app, or type the key into it:\n\n");
    r = factor_picture(uri, out);
    buffer_printf(out, "\n%s\nkey: %s\n\n", uri, text);
    memory_wipe(uri, sizeof(uri));
    memory_wipe(text, sizeof(text));
    return r;
}

static void begin_enrolment(struct relay_link *l)
{
    struct link_question q = {.ask = ASK_ENROL,
                              .prompt = "Code that the app shows: ",
                              .has_echo = true,
                              .more_s = ENROL_MORE_S};
    struct buffer banner;
    int r = 0;

    if (!l->login.key) { /* a second try shows the same */
        l->login.key = calloc(1, sizeof(*l->login.key));
        r = l->login.key ? factor_make_key(l->login.key) : ERR_MEMORY;
    }
    buffer_init_secret(&banner, BANNER_MAX);
    if (r == 0)
        r = fill_banner(l, l->login.key, &banner);
    q.banner = r == 0 ? buffer_cstr(&banner) : NULL;
    l->login.tries = 0;
    if (q.banner)
        link_login_ask(l, &q);
    else
        link_login_reply(l, LINK_AUTH_DISCONNECT, "A second factor cannot be set up now");
    buffer_finish(&banner);
}

static void show_codes(struct relay_link *l, const struct factor_codes *codes)
{
    struct link_question q = {.ask = ASK_CODES_KEPT,
                              .prompt = "Press Enter when you have kept them: ",
                              .has_echo = true,
                              .more_s = ENROL_MORE_S};
    struct buffer banner;

    buffer_init_secret(&banner, BANNER_MAX);
    buffer_put_str(&banner,
                   "\nThat is your second factor from now on. These recovery codes let you in "
                   "when you have\nlost it, each of them once. They are not shown again:\n\n");
    for (size_t i = 0; i < STORE_RECOVERY_COUNT; i++)
        buffer_printf(&banner, "  %s%s", codes->text[i], i % 2 ? "\n" : "");
    buffer_put_str(&banner, "\n");
    q.banner = buffer_cstr(&banner);
    link_login_ask(l, &q);
    buffer_finish(&banner);
}

static void enrol(struct relay_link *l, uint64_t step)
{
    struct broker *b = l->links->broker;
    struct store_factor factor;
    struct factor_codes codes;

    /* two who know the first factor may be here at once: the one who was faster has it for good */
    if (store_factor_get(b->store, l->tried_user, &factor) < 0 || factor.is_enrolled) {
        link_login_failed(l, "enrolment", "A second factor was set up meanwhile: use that one.");
        return;
    }
    if (factor_enable(b->store, l->tried_user, l->login.key, step, &codes) < 0) {
        log_error("no second factor for %s: %s", l->tried_user, store_error(b->store));
        link_login_failed(l, "enrolment", "The second factor could not be kept; try again.");
        return;
    }
    link_note(l, "totp-enabled", "at the login");
    show_codes(l, &codes);
    memory_wipe(&codes, sizeof(codes));
}

static void check_enrolment(struct relay_link *l, const char *typed)
{
    static const struct link_question again = {
        .ask = ASK_ENROL,
        .instruction = "That code does not fit. Is the clock of the device right?",
        .prompt = "Code that the app shows: ",
        .has_echo = true,
        .more_s = ENROL_MORE_S};
    uint64_t step;

    if (!l->login.key) {
        link_login_reply(l, LINK_AUTH_DENIED, "");
        return;
    }
    if (factor_code_fits(l->login.key, typed, now_s(), &step))
        enrol(l, step);
    else if (++l->login.tries < ENROL_TRIES)
        link_login_ask(l, &again);
    else
        link_login_failed(l, "enrolment", "");
}

/* ---- the doors of this file ---- */

void link_factor_ask(struct relay_link *l)
{
    static const struct link_question code = {.ask = ASK_CODE, .prompt = "Verification code: "};
    struct store_factor factor;

    if (store_factor_get(l->links->broker->store, l->tried_user, &factor) < 0)
        link_login_failed(l, "second factor", "");
    else if (!factor.is_enrolled)
        begin_enrolment(l);
    else if (may_guess(l))
        link_login_ask(l, &code);
}

void link_factor_answer(struct relay_link *l, const char *text)
{
    enum link_ask ask = l->login.ask;

    l->login.ask = ASK_NOTHING;
    if (ask == ASK_ENROL)
        check_enrolment(l, text);
    else if (ask == ASK_CODES_KEPT)
        right_code(l, "totp, enrolled");
    else if (may_guess(l)) /* again: many may have been asked before the first one failed */
        check_code(l, text);
}
