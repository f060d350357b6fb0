/*
 * NLA at the RDP door, for users: on and off, and the NT hash that it needs. The hash is made of a
 * password that is set or that is shown to be the present one, and never leaves the store.
 */
#include "control/control_priv.h"

#include <string.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>

#include "tracker/nt_hash.h"

static const char *wanted(const struct request *r)
{
    return args_text(&r->parsed.args, "rdp_nla");
}

/* ---- the present password ---- */

static void checked(bool is_right, void *arg)
{
    struct request *r = arg;

    r->is_pending = false;
    if (!r->control)
        control_reply_error(r, "failed", "the daemon stopped");
    else if (!is_right)
        control_reply_error(r, "not_permitted",
                            "password: it is not the user's; nothing was changed");
    else
        r->then(r);
    control_request_resume(r);
}

void control_nla_check(struct request *r, const char *name, void (*then)(struct request *r))
{
    const char *password = args_text(&r->parsed.args, "password"), *nla = wanted(r);
    const struct control_host *host = &r->control->host;
    struct secret secret;
    int result;

    if (!password) {
        then(r);
        return;
    }
    if (!nla || strcmp(nla, "on") != 0) {
        control_reply_error(r, "usage",
                            "a password goes with rdp_nla on; to change it: user passwd");
        return;
    }
    r->then = then;
    r->is_pending = true;
    (void)secret_set(&secret, password, strlen(password)); /* its length was checked */
    result = host->check_password(host->arg, name, "", &secret, checked, r);
    secret_wipe(&secret);
    if (result == 0)
        return;
    r->is_pending = false;
    control_reply_error(r, "busy", "too many passwords are being checked; try again");
}

/* ---- the hash ---- */

int control_set_nla(struct request *r, const char *name, const char *source)
{
    const char *nla = wanted(r);
    struct store *store = r->control->store;
    int result = 0;

    if (!nla)
        return 0;
    /* PAM's users cannot have it: who becomes one loses it first, who was one has it last */
    if (strcmp(nla, "on") == 0 && source)
        result = store_user_set_auth_source(store, name, source);
    return result ? result : store_user_set_nla(store, name, strcmp(nla, "on") == 0);
}

void control_keep_nt_hash(struct request *r, const char *name)
{
    const char *password = args_text(&r->parsed.args, "password");
    struct store *store = r->control->store;
    uint8_t hash[NT_HASH_LEN];
    struct store_user user;
    int result;

    if (!password || store_user_get(store, name, &user) < 0 || !user.has_nla)
        return;
    result = nt_hash(password, hash);
    if (result == 0)
        result = store_user_set_nt_hash(store, name, hash);
    else
        log_warn("no NT hash for %s, so NLA stays pending: %s", name,
                 result == ERR_CRYPTO ? "the TLS library has no MD4 (its legacy provider)"
                                      : "the password is too long, or no UTF-8");
    memory_wipe(hash, sizeof(hash));
    if (result == 0)
        control_event(r, "user-set", name, 0, "an NT hash is kept for NLA");
}
