/*
 * `user totp ...` and `self totp ...`: second factors. The first is an admin's, who helps somebody
 * that lost his; the second one's own, where whoever has a second factor already shows a code of it
 * before it changes. Keys and recovery codes are shown once, to the one who asked, and are in no
 * event.
 */
#include "control/control_priv.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "tracker/factor.h"

#define PICTURE_MAX 16384

/* Whom it is about; NULL after an answer. */
static const char *about(struct request *r, struct store_user *user)
{
    const char *name =
        control_is_about_self(r) ? r->caller.user : args_text(&r->parsed.args, "name");
    int result;

    if (!name[0]) {
        control_reply_error(r, "not_found",
                            "your account is linked to no proxy user; an admin can link it: "
                            "sallyctl user set NAME --local-uid UID");
        return NULL;
    }
    result = store_user_get(r->control->store, name, user);
    if (result == 0)
        return user->name;
    control_reply_store(r, result, "cannot look at user %s", name);
    return NULL;
}

/* Somebody who is about to change his own: a code of the one he has. True when he may. */
static bool may_change(struct request *r, const struct store_user *user)
{
    const struct control_host *host = &r->control->host;
    const char *code;
    int result;

    if (!control_is_about_self(r) || !user->totp_wall_us)
        return true;
    code = args_text(&r->parsed.args, "code");
    if (!code || !code[0]) {
        control_reply_error(r, "usage",
                            "you have a second factor already: give a code of it, or a recovery "
                            "code");
        return false;
    }
    result = host->check_code(host->arg, user->name, code);
    if (result == 0)
        return true;
    control_event(r, "totp-refused", user->name, 0, "%s: wrong code", r->parsed.command->words);
    control_reply_error(r, result == ERR_FULL ? "busy" : "not_permitted",
                        result == ERR_FULL ? "too many wrong codes; try again later"
                                           : "this code is wrong, or was used before; nothing was "
                                             "changed");
    return false;
}

static json_t *codes_json(const struct factor_codes *codes)
{
    json_t *list = json_array();

    for (size_t i = 0; i < STORE_RECOVERY_COUNT; i++)
        json_array_append_new(list, json_string(codes->text[i]));
    return list;
}

/* ---- show ---- */

static void show(struct request *r)
{
    struct store_factor factor;
    struct store_user user;
    int result;

    if (!about(r, &user))
        return;
    result = store_factor_get(r->control->store, user.name, &factor);
    if (result < 0) {
        control_reply_store(r, result, "cannot look at user %s", user.name);
        return;
    }
    control_reply_data(r, json_pack("{s:s, s:b, s:b, s:o, s:I}", "user", user.name, "enrolled",
                                    (int)factor.is_enrolled, "required", (int)factor.is_required,
                                    "since", control_json_time(user.totp_wall_us), "recoveryCodes",
                                    (json_int_t)user.recovery_count));
}

/* ---- enable, confirm ---- */

static json_t *enable_json(const struct secret *key, const char *user, const char *node)
{
    char uri[FACTOR_URI_MAX], text[FACTOR_KEY_TEXT];
    struct buffer picture;
    json_t *json = NULL;

    buffer_init_secret(&picture, PICTURE_MAX);
    if (factor_key_text(key, text) == 0 && factor_uri(key, user, node, uri) == 0 &&
        factor_picture(uri, &picture) == 0 && buffer_cstr(&picture))
        json = json_pack("{s:s, s:s, s:s, s:s}", "user", user, "secret", text, "uri", uri,
                         "picture", buffer_cstr(&picture));
    buffer_finish(&picture);
    memory_wipe(uri, sizeof(uri));
    memory_wipe(text, sizeof(text));
    return json;
}

static void enable(struct request *r)
{
    const struct control_host *host = &r->control->host;
    struct control_status status = {0};
    struct secret key = {.len = 0};
    struct store_user user;
    int result;

    if (!about(r, &user) || !may_change(r, &user))
        return;
    host->status(host->arg, &status);
    result = factor_make_key(&key);
    if (result == 0)
        result = store_totp_prepare(r->control->store, user.name, &key);
    if (result < 0)
        control_reply_store(r, result, "cannot prepare a second factor for %s", user.name);
    else
        control_reply_data(r, enable_json(&key, user.name, status.node));
    secret_wipe(&key);
}

static void confirm_key(struct request *r, const char *user, const struct secret *key,
                        uint64_t step)
{
    struct factor_codes codes;
    int result = factor_enable(r->control->store, user, key, step, &codes);

    if (result < 0) {
        control_reply_store(r, result, "cannot keep the second factor of %s", user);
    } else {
        control_event(r, "totp-enabled", user, 0, "%s", "");
        control_reply_data(
            r, json_pack("{s:s, s:o}", "user", user, "recoveryCodes", codes_json(&codes)));
    }
    memory_wipe(&codes, sizeof(codes));
}

static void confirm(struct request *r)
{
    const char *code = args_text(&r->parsed.args, "code");
    struct secret key = {.len = 0};
    struct store_user user;
    uint64_t step;

    if (!about(r, &user))
        return;
    if (store_totp_prepared(r->control->store, user.name, &key) < 0)
        control_reply_error(r, "not_found", "nothing is to be confirmed; begin with totp enable");
    else if (!factor_code_fits(&key, code, clock_wall_us() / 1000000, &step))
        control_reply_error(r, "not_permitted",
                            "this code does not fit; is the clock of the device right?");
    else
        confirm_key(r, user.name, &key, step);
    secret_wipe(&key);
}

/* ---- disable, recovery ---- */

static void disable(struct request *r)
{
    struct store_user user;
    int result;

    if (!about(r, &user) || !may_change(r, &user))
        return;
    if (!user.totp_wall_us) {
        control_reply_error(r, "not_found", "%s has no second factor", user.name);
        return;
    }
    result = store_totp_disable(r->control->store, user.name);
    if (result < 0) {
        control_reply_store(r, result, "cannot take the second factor of %s away", user.name);
        return;
    }
    control_event(r, "totp-disabled", user.name, 0, "%s", "");
    control_reply_data(r, json_pack("{s:s}", "user", user.name));
}

static void recovery(struct request *r)
{
    struct factor_codes codes;
    struct store_user user;
    int result;

    if (!about(r, &user) || !may_change(r, &user))
        return;
    if (!user.totp_wall_us) {
        control_reply_error(r, "not_found", "%s has no second factor", user.name);
        return;
    }
    result = factor_new_codes(r->control->store, user.name, &codes);
    if (result < 0) {
        control_reply_store(r, result, "cannot make new recovery codes for %s", user.name);
    } else {
        control_event(r, "totp-recovery", user.name, 0, "%s", "new recovery codes");
        control_reply_data(
            r, json_pack("{s:s, s:o}", "user", user.name, "recoveryCodes", codes_json(&codes)));
    }
    memory_wipe(&codes, sizeof(codes));
}

/* ---- the two doors ---- */

void control_do_user_totp_show(struct request *r)
{
    show(r);
}

void control_do_user_totp_enable(struct request *r)
{
    enable(r);
}

void control_do_user_totp_confirm(struct request *r)
{
    confirm(r);
}

void control_do_user_totp_disable(struct request *r)
{
    disable(r);
}

void control_do_user_totp_recovery(struct request *r)
{
    recovery(r);
}
