/*
 * `self ...`: what a user does about his own user, whoever he is: what he may reach, his password,
 * his public keys, and what an ssh_config of his needs. The user is the caller's, never an
 * argument; keys and passwords are changed by the same code as an admin's changes (cmd_user.c).
 */
#include "control/control_priv.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#define SELF_KEYS_MAX     100 /* that a user may register himself */
#define SELF_PASSWORD_MIN 8

bool control_is_about_self(const struct request *r)
{
    return strncmp(r->parsed.command->words, "self ", 5) == 0;
}

/* A caller who is a proxy user; answers when he is none. */
static bool is_somebody(struct request *r)
{
    if (r->caller.user[0])
        return true;
    control_reply_error(r, "not_found",
                        "your account is linked to no proxy user; an admin can link it: "
                        "sallyctl user set NAME --local-uid UID");
    return false;
}

/* ---- what may be reached ---- */

struct reach {
    json_t *rows;
    enum protocol protocol;
};

static bool collect_target(const struct link_target_row *row, void *arg)
{
    struct reach *reach = arg;

    json_array_append_new(reach->rows,
                          json_pack("{s:o, s:s, s:o, s:o}", "name", control_json_text(row->target),
                                    "type", protocol_name(reach->protocol), "account",
                                    control_json_text(row->account), "lastUsed",
                                    control_json_time(row->last_used_wall_us)));
    return true;
}

/* Every target of the caller, by protocol and name; NULL after an error was answered. */
static json_t *reachable(struct request *r)
{
    static const enum protocol protocols[] = {PROTOCOL_SSH, PROTOCOL_RDP};
    struct reach reach = {.rows = json_array()};
    int result = 0;

    for (size_t i = 0; i < sizeof(protocols) / sizeof(protocols[0]) && result == 0; i++) {
        reach.protocol = protocols[i];
        result = store_reachable(r->control->store, r->caller.user, protocols[i], collect_target,
                                 &reach);
    }
    if (result == 0)
        return reach.rows;
    json_decref(reach.rows);
    control_reply_store(r, result, "cannot list targets");
    return NULL;
}

void control_do_self_targets(struct request *r)
{
    json_t *rows = is_somebody(r) ? reachable(r) : NULL;

    if (rows)
        control_reply_rows(r, rows);
}

void control_do_self_config(struct request *r)
{
    const struct control_host *host = &r->control->host;
    const struct control_guest *guest = &r->client->peer.guest;
    struct control_status status = {0};
    const char *address;
    json_t *rows = is_somebody(r) ? reachable(r) : NULL;

    if (!rows)
        return;
    host->status(host->arg, &status);
    address = status.ssh_address[0] ? status.ssh_address
              : guest->address[0]   ? guest->address
                                    : status.ssh_fallback;
    control_reply_data(r,
                       json_pack("{s:o, s:o, s:o, s:o}", "user", control_json_text(r->caller.user),
                                 "node", control_json_text(status.node), "address",
                                 control_json_text(address), "targets", rows));
}

/* ---- the password ---- */

static void old_checked(bool is_right, void *arg)
{
    struct request *r = arg;

    r->is_pending = false;
    if (!r->control) {
        control_reply_error(r, "failed", "the daemon stopped");
    } else if (!is_right) {
        control_event(r, "user-passwd-refused", r->caller.user, 0, "%s",
                      "the old password was wrong");
        control_reply_error(r, "not_permitted", "the old password is wrong; nothing was changed");
    } else {
        control_set_password(r);
    }
    if (!r->is_pending)
        control_request_resume(r);
}

static bool is_good_password(struct request *r, const char *old, const char *fresh)
{
    if (strlen(fresh) < SELF_PASSWORD_MIN)
        control_reply_error(r, "invalid", "password: it needs %d characters or more",
                            SELF_PASSWORD_MIN);
    else if (strcmp(old, fresh) == 0)
        control_reply_error(r, "invalid", "password: the new one is the old one");
    else
        return true;
    return false;
}

void control_do_self_passwd(struct request *r)
{
    const char *old = args_text(&r->parsed.args, "old");
    const char *fresh = args_text(&r->parsed.args, "password");
    const struct control_host *host = &r->control->host;
    struct store_user user;
    struct secret secret;
    int result;

    if (!is_somebody(r) || !is_good_password(r, old, fresh))
        return;
    result = store_user_get(r->control->store, r->caller.user, &user);
    if (result < 0 || !user.has_password) {
        control_reply_error(r, "not_found",
                            "you have no password to change; an admin can set one: "
                            "sallyctl user passwd %s",
                            r->caller.user);
        return;
    }
    (void)secret_set(&secret, old, strlen(old)); /* its length was checked with the arguments */
    r->is_pending = true;
    result =
        host->check_password(host->arg, r->caller.user, r->caller.source, &secret, old_checked, r);
    secret_wipe(&secret);
    if (result == 0)
        return;
    r->is_pending = false;
    control_reply_error(r, "busy", "too many passwords are being checked; try again");
}

/* ---- public keys ---- */

void control_do_self_key_ls(struct request *r)
{
    if (is_somebody(r))
        control_do_user_key_ls(r);
}

void control_do_self_key_add(struct request *r)
{
    struct store_user user;

    if (!is_somebody(r))
        return;
    if (r->client->peer.is_guest && r->client->peer.guest.may_not_add_keys)
        control_reply_error(r, "not_permitted",
                            "you logged in by a certificate: a key that stays is registered by an "
                            "admin, or from a login by password or key");
    else if (store_user_get(r->control->store, r->caller.user, &user) == 0 &&
             user.key_count >= SELF_KEYS_MAX)
        control_reply_error(r, "full", "you have %d keys already; remove one first", SELF_KEYS_MAX);
    else
        control_do_user_key_add(r);
}

void control_do_self_key_rm(struct request *r)
{
    if (is_somebody(r))
        control_do_user_key_rm(r);
}
