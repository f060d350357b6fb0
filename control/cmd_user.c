/*
 * Users, their passwords and public keys, and roles. A password is hashed by the daemon's workers,
 * so `user add` and `user passwd` answer later; their client may be gone by then and the change is
 * made all the same.
 */
#include "control/control_priv.h"

#include <crypt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/keys.h"

/* ---- JSON ---- */

static json_t *user_json(struct request *r, const struct store_user *u)
{
    return json_pack(
        "{s:s, s:s, s:b, s:b, s:o, s:I, s:o, s:o, s:I, s:o, s:b, s:s, s:o, s:s}", "name", u->name,
        "role", u->role, "locked", (int)u->is_locked, "hasPassword", (int)u->has_password,
        "localUid", u->local_uid < 0 ? json_null() : json_integer(u->local_uid), "keyCount",
        (json_int_t)u->key_count, "created", control_json_time(u->created_wall_us), "lastLogin",
        control_json_time(u->last_login_wall_us), "sessions",
        (json_int_t)tracker_count_user(r->control->tracker, u->name), "secondFactor",
        control_json_text_or_null(u->second_factor), "totp", u->totp_wall_us != 0, "authSource",
        u->auth_source, "certPrincipals", control_json_text_or_null(u->cert_principals), "rdpNla",
        !u->has_nla      ? "off"
        : u->has_nt_hash ? "on"
                         : "pending");
}

static json_t *key_json(const struct store_key *k)
{
    char *line = public_key_line(k->type, k->blob, k->blob_len, "");
    json_t *json = json_pack("{s:o, s:s, s:s, s:s, s:o, s:o, s:s}", "id", control_json_id(k->id),
                             "user", k->user, "type", k->type, "fingerprint", k->fingerprint,
                             "comment", control_json_text(k->comment), "added",
                             control_json_time(k->added_wall_us), "key", line ? line : "");

    free(line);
    return json;
}

static bool collect_key(const struct store_key *k, void *arg)
{
    json_array_append_new(arg, key_json(k));
    return true;
}

static json_t *role_json(const struct store_role *role)
{
    return json_pack("{s:s, s:b, s:o, s:s}", "name", role->name, "builtin", (int)role->is_builtin,
                     "policy", control_json_policy(role->policy), "secondFactor",
                     role->second_factor[0] ? role->second_factor : "no");
}

/* Whom it is about: `self ...` has no name and is about the caller. */
static const char *name_arg(const struct request *r)
{
    if (control_is_about_self(r))
        return r->caller.user;
    return args_text(&r->parsed.args, "name");
}

static void reply_user(struct request *r, const char *name)
{
    struct store_user user;
    int result = store_user_get(r->control->store, name, &user);

    if (result < 0)
        control_reply_store(r, result, "cannot show user %s", name);
    else
        control_reply_data(r, user_json(r, &user));
}

static bool collect_role_name(const struct store_role *role, void *arg)
{
    json_array_append_new(arg, json_string(role->name));
    return true;
}

/* Is there such a role? Answers with the nearest when there is not. */
static bool is_role(struct request *r, const char *role)
{
    const char *names[64], *nearest;
    struct store_role found;
    json_t *list;
    size_t count;

    if (!role || store_role_get(r->control->store, role, &found) == 0)
        return true;
    list = json_array();
    (void)!store_roles(r->control->store, collect_role_name, list);
    count = json_array_size(list) < 64 ? json_array_size(list) : 64;
    for (size_t i = 0; i < count; i++)
        names[i] = json_string_value(json_array_get(list, i));
    nearest = text_nearest(role, names, count);
    control_reply_error(r, "invalid", "role: there is no role %s%s%s%s", role,
                        nearest ? "; did you mean " : ", see role ls", nearest ? nearest : "",
                        nearest ? "?" : "");
    json_decref(list);
    return false;
}

/* ---- users ---- */

struct user_rows {
    struct request *r;
    json_t *rows;
};

static bool collect_user(const struct store_user *u, void *arg)
{
    struct user_rows *list = arg;

    json_array_append_new(list->rows, user_json(list->r, u));
    return true;
}

void control_do_user_ls(struct request *r)
{
    struct user_rows list = {.r = r, .rows = json_array()};
    int result = store_users(r->control->store, collect_user, &list);

    if (result == 0) {
        control_reply_rows(r, list.rows);
        return;
    }
    json_decref(list.rows);
    control_reply_store(r, result, "cannot list users");
}

void control_do_user_show(struct request *r)
{
    struct store_user user;
    json_t *keys = json_array(), *data;
    int result = store_user_get(r->control->store, name_arg(r), &user);

    if (result == 0)
        result = store_keys(r->control->store, name_arg(r), collect_key, keys);
    if (result < 0) {
        json_decref(keys);
        control_reply_store(r, result, "cannot show user %s", name_arg(r));
        return;
    }
    data = user_json(r, &user);
    json_object_set_new(data, "keys", keys);
    control_reply_data(r, data);
}

int control_hash_check(const char *hash, struct failure *f)
{
    const char *last = strrchr(hash, '$');

    /* Methods that libxcrypt calls good enough, with the hash itself behind the salt: 43 characters
     * at least in all of them. A setting without a hash would be a password that never fits. */
    if (hash[0] == '$' && crypt_checksalt(hash) == CRYPT_SALT_OK && strlen(last) > 43)
        return 0;
    failure_set(
        f, "invalid",
        "password_hash: give a crypt(5) hash of a strong kind, such as mkpasswd -m yescrypt "
        "prints");
    return ERR_INVALID;
}

/* What is to be set, as a password: exactly one way or none. */
static int count_password_ways(const struct arg_values *args)
{
    return args_get(args, "password")->is_set + args_get(args, "password_hash")->is_set;
}

/* Have `password` hashed, then call done. The secret's copies are wiped. */
static void hash_then(struct request *r, control_hashed_fn done)
{
    const char *text = args_text(&r->parsed.args, "password");
    const struct control_host *host = &r->control->host;
    struct secret secret;
    int result;

    if (!secret_set(&secret, text, strlen(text))) {
        control_reply_error(r, "invalid", "password: it is too long");
        return;
    }
    r->is_pending = true;
    result = host->hash_password(host->arg, &secret, done, r);
    secret_wipe(&secret);
    if (result < 0) {
        r->is_pending = false;
        if (result == ERR_FULL)
            control_reply_error(r, "busy", "too many passwords are being hashed; try again");
        else
            control_reply_error(r, "failed", "the password could not be hashed: %s",
                                error_text(result));
    }
}

/* True when the daemon is still there and the hash is one; answers otherwise. */
static bool has_hash(struct request *r, const char *hash)
{
    if (!r->control) {
        control_reply_error(r, "failed", "the daemon stopped");
        return false;
    }
    if (!hash[0]) {
        control_reply_error(r, "failed", "the password could not be hashed; nothing was changed");
        return false;
    }
    return true;
}

/* How the user logs in, as far as the arguments say; the first failure's result. */
static int set_login_keys(struct request *r, const char *name)
{
    const struct arg_values *args = &r->parsed.args;
    const char *factor = args_text(args, "second_factor"), *source = args_text(args, "auth_source"),
               *principals = args_text(args, "cert_principals");
    struct store *store = r->control->store;
    int result = 0;

    if (factor)
        result = store_user_set_second_factor(store, name, strcmp(factor, "role") ? factor : "");
    if (result == 0)
        result = control_set_nla(r, name, source);
    if (result == 0 && source)
        result = store_user_set_auth_source(store, name, source);
    if (result == 0 && principals)
        result = store_user_set_principals(store, name, principals);
    return result;
}

static bool has_login_keys(const struct arg_values *args)
{
    return args_text(args, "second_factor") || args_text(args, "auth_source") ||
           args_text(args, "cert_principals") || args_text(args, "rdp_nla");
}

/* The rest of a new user; the first failure's result. */
static int set_up_user(struct request *r, const char *name, const char *hash)
{
    const struct arg_values *args = &r->parsed.args;
    const struct arg_value *uid = args_get(args, "local_uid");
    struct store *store = r->control->store;
    int result = 0;

    if (args_flag(args, "locked"))
        result = store_user_set_locked(store, name, true);
    if (result == 0 && uid->is_set && !uid->is_null)
        result = store_user_set_uid(store, name, (int64_t)uid->number);
    if (result == 0 && hash[0])
        result = store_user_set_hash(store, name, hash);
    return result ? result : set_login_keys(r, name);
}

static void add_user(struct request *r, const char *hash)
{
    const char *name = name_arg(r), *role = args_text(&r->parsed.args, "role");
    struct store *store = r->control->store;
    struct failure f;
    int result;

    role = role ? role : "user";
    result = store_user_add(store, name, role);
    if (result == 0) {
        result = set_up_user(r, name, hash);
        if (result < 0) { /* no half a user stays */
            control_failure_store(&f, store, result, "cannot add the user");
            if (store_user_remove(store, name) < 0)
                failure_set(&f, "failed", "user %s was added in part; remove it", name);
            control_reply_failure(r, &f);
            return;
        }
    }
    if (result < 0) {
        control_reply_store(r, result, "cannot add user %s", name);
        return;
    }
    control_event(r, "user-add", name, 0, "role %s%s", role, hash[0] ? ", password" : "");
    control_keep_nt_hash(r, name);
    reply_user(r, name);
    control_access_changed(r);
}

static void add_user_hashed(const char *hash, void *arg)
{
    struct request *r = arg;

    if (has_hash(r, hash))
        add_user(r, hash);
    control_request_resume(r);
}

void control_do_user_add(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *hash = args_text(args, "password_hash");
    struct store_user user;
    struct failure f;

    if (count_password_ways(args) > 1) {
        control_reply_error(r, "usage", "give a password or a password_hash, not both");
    } else if (store_user_get(r->control->store, name_arg(r), &user) == 0) {
        control_reply_error(r, "exists", "there is a user %s already", name_arg(r));
    } else if (!is_role(r, args_text(args, "role"))) {
        return;
    } else if (hash && control_hash_check(hash, &f) < 0) {
        control_reply_failure(r, &f);
    } else if (args_text(args, "password")) {
        hash_then(r, add_user_hashed);
    } else {
        add_user(r, hash ? hash : "");
    }
}

static void set_hash(struct request *r, const char *hash)
{
    int result = store_user_set_hash(r->control->store, name_arg(r), hash);

    if (result < 0) {
        control_reply_store(r, result, "cannot set the password of %s", name_arg(r));
        return;
    }
    control_event(r, "user-passwd", name_arg(r), 0, "%s", hash[0] ? "changed" : "removed");
    control_keep_nt_hash(r, name_arg(r));
    reply_user(r, name_arg(r));
}

static void set_hash_hashed(const char *hash, void *arg)
{
    struct request *r = arg;

    if (has_hash(r, hash))
        set_hash(r, hash);
    control_request_resume(r);
}

void control_set_password(struct request *r)
{
    hash_then(r, set_hash_hashed);
}

void control_do_user_passwd(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *hash = args_text(args, "password_hash");
    struct store_user user;
    struct failure f;
    int result = store_user_get(r->control->store, name_arg(r), &user);

    if (count_password_ways(args) + args_flag(args, "remove") != 1)
        control_reply_error(r, "usage", "give exactly one of password, password_hash and remove");
    else if (result < 0)
        control_reply_store(r, result, "cannot set a password");
    else if (hash && control_hash_check(hash, &f) < 0)
        control_reply_failure(r, &f);
    else if (args_text(args, "password"))
        hash_then(r, set_hash_hashed);
    else
        set_hash(r, hash ? hash : "");
}

/* One change of a user: the store's answer, an event when it was made. */
static int change_role(struct request *r, const char *name, const char *role)
{
    int result = store_user_set_role(r->control->store, name, role);

    if (result == 0)
        control_event(r, "user-set", name, 0, "role %s", role);
    return result;
}

static int change_locked(struct request *r, const char *name, bool is_locked)
{
    int result = store_user_set_locked(r->control->store, name, is_locked);

    if (result == 0)
        control_event(r, is_locked ? "user-lock" : "user-unlock", name, 0, "%s", "");
    return result;
}

static int change_uid(struct request *r, const char *name, const struct arg_value *uid)
{
    int64_t number = uid->is_null ? -1 : (int64_t)uid->number;
    int result = store_user_set_uid(r->control->store, name, number);

    if (result == 0)
        control_event(r, "user-set", name, 0, "local uid %lld", (long long)number);
    return result;
}

static int change_login_keys(struct request *r, const char *name)
{
    const struct arg_values *args = &r->parsed.args;
    const char *factor = args_text(args, "second_factor"), *source = args_text(args, "auth_source"),
               *principals = args_text(args, "cert_principals"), *nla = args_text(args, "rdp_nla");
    int result = set_login_keys(r, name);

    if (result == 0)
        control_event(r, "user-set", name, 0, "%s%s%s%s%s%s%s%s", factor ? "second_factor " : "",
                      factor ? factor : "", source ? " auth_source " : "", source ? source : "",
                      nla ? " rdp_nla " : "", nla ? nla : "", principals ? " cert_principals " : "",
                      principals ? principals : "");
    return result;
}

static void change_user(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *name = name_arg(r), *role = args_text(args, "role");
    const struct arg_value *uid = args_get(args, "local_uid"), *locked = args_get(args, "locked");
    int result = 0;

    if (role)
        result = change_role(r, name, role);
    if (result == 0 && uid->is_set)
        result = change_uid(r, name, uid);
    if (result == 0 && locked->is_set)
        result = change_locked(r, name, locked->flag);
    if (result == 0 && has_login_keys(args))
        result = change_login_keys(r, name);
    if (result == 0)
        control_keep_nt_hash(r, name);
    if (result < 0)
        control_reply_store(r, result, "cannot set user %s", name);
    else
        reply_user(r, name);
    control_access_changed(r);
}

void control_do_user_set(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *role = args_text(args, "role");

    if (!role && !args_get(args, "local_uid")->is_set && !args_get(args, "locked")->is_set &&
        !has_login_keys(args))
        control_reply_error(r, "usage",
                            "say what to set: role, local_uid, locked, second_factor, auth_source, "
                            "rdp_nla or cert_principals");
    else if (is_role(r, role))
        control_nla_check(r, name_arg(r), change_user);
}

static void lock(struct request *r, bool is_locked)
{
    int result = change_locked(r, name_arg(r), is_locked);

    if (result < 0) {
        control_reply_store(r, result, "cannot %s the user", is_locked ? "lock" : "unlock");
        return;
    }
    reply_user(r, name_arg(r));
    control_access_changed(r);
}

void control_do_user_lock(struct request *r)
{
    lock(r, true);
}

void control_do_user_unlock(struct request *r)
{
    lock(r, false);
}

void control_do_user_rm(struct request *r)
{
    int result = store_user_remove(r->control->store, name_arg(r));

    if (result < 0) {
        control_reply_store(r, result, "cannot remove the user");
        return;
    }
    control_event(r, "user-rm", name_arg(r), 0, "%s", "");
    control_reply_data(r, json_object());
    control_access_changed(r);
}

/* ---- public keys ---- */

void control_do_user_key_ls(struct request *r)
{
    json_t *rows = json_array();
    int result = store_keys(r->control->store, name_arg(r), collect_key, rows);

    if (result == 0) {
        control_reply_rows(r, rows);
        return;
    }
    json_decref(rows);
    control_reply_store(r, result, "cannot list keys");
}

struct key_search {
    const char *which; /* id or fingerprint */
    json_t *found;
    struct store_key key;
};

static bool find_key(const struct store_key *k, void *arg)
{
    struct key_search *search = arg;
    char id[24];

    snprintf(id, sizeof(id), "%llu", (unsigned long long)k->id);
    if (strcmp(k->fingerprint, search->which) != 0 && strcmp(id, search->which) != 0)
        return true;
    search->found = key_json(k);
    search->key = *k;
    return false;
}

void control_do_user_key_add(struct request *r)
{
    struct store *store = r->control->store;
    struct key_search search = {0};
    struct public_key key;
    char err[256];
    int result;

    if (public_key_parse(args_text(&r->parsed.args, "key"), KEY_OF_USER, &key, err, sizeof(err)) <
        0) {
        control_reply_error(r, "invalid", "key: %s", err);
        return;
    }
    result = store_key_add(store, name_arg(r), key.type, key.blob, key.blob_len, key.fingerprint,
                           key.comment);
    search.which = key.fingerprint;
    if (result == 0)
        result = store_keys(store, name_arg(r), find_key, &search);
    if (result < 0 || !search.found) {
        json_decref(search.found);
        control_reply_store(r, result, "cannot add the key");
        return;
    }
    control_event(r, "user-key-add", name_arg(r), 0, "%s %s", key.type, key.fingerprint);
    control_reply_data(r, search.found);
}

void control_do_user_key_rm(struct request *r)
{
    struct key_search search = {.which = args_text(&r->parsed.args, "key")};
    struct store *store = r->control->store;
    int result = store_keys(store, name_arg(r), find_key, &search);

    json_decref(search.found);
    if (result == 0)
        result = store_key_remove(store, name_arg(r), search.which);
    if (result < 0) {
        control_reply_store(r, result, "cannot remove the key");
        return;
    }
    control_event(r, "user-key-rm", name_arg(r), 0, "%s %s", search.key.type,
                  search.key.fingerprint);
    control_reply_data(r, json_object());
}

/* ---- roles ---- */

static bool collect_role(const struct store_role *role, void *arg)
{
    json_array_append_new(arg, role_json(role));
    return true;
}

void control_do_role_ls(struct request *r)
{
    json_t *rows = json_array();
    int result = store_roles(r->control->store, collect_role, rows);

    if (result == 0) {
        control_reply_rows(r, rows);
        return;
    }
    json_decref(rows);
    control_reply_store(r, result, "cannot list roles");
}

void control_do_role_show(struct request *r)
{
    struct store_role role;
    int result = store_role_get(r->control->store, name_arg(r), &role);

    if (result < 0)
        control_reply_store(r, result, "cannot show the role");
    else
        control_reply_data(r, role_json(&role));
}

static void set_role_policy(struct request *r, const char *kind)
{
    struct store *store = r->control->store;
    json_t *change = args_get(&r->parsed.args, "policy")->json;
    const char *factor = args_text(&r->parsed.args, "second_factor");
    char policy[STORE_POLICY_TEXT_MAX];
    struct store_role role;
    struct failure f;
    int result = store_role_get(store, name_arg(r), &role);

    if (result == 0 && control_policy_text(role.policy, change, policy, &f) < 0) {
        control_reply_failure(r, &f);
        return;
    }
    if (result == 0)
        result = store_role_set_policy(store, name_arg(r), policy);
    if (result == 0 && factor)
        result = store_role_set_second_factor(store, name_arg(r), factor);
    if (result == 0)
        result = store_role_get(store, name_arg(r), &role);
    if (result < 0) {
        control_reply_store(r, result, "cannot set the role");
        return;
    }
    control_event(r, kind, "", 0, "role %s policy %s%s%s", name_arg(r),
                  role.policy[0] ? role.policy : "none", factor ? " second_factor " : "",
                  factor ? factor : "");
    control_reply_data(r, role_json(&role));
    control_access_changed(r);
}

void control_do_role_add(struct request *r)
{
    int result = store_role_add(r->control->store, name_arg(r));

    if (result < 0)
        control_reply_store(r, result, "cannot add the role");
    else
        set_role_policy(r, "role-add");
}

void control_do_role_set(struct request *r)
{
    if (args_get(&r->parsed.args, "policy")->is_set ||
        args_get(&r->parsed.args, "second_factor")->is_set)
        set_role_policy(r, "role-set");
    else
        control_reply_error(r, "usage", "say what to set: policy or second_factor");
}

struct role_uses {
    const char *role;
    char user[NAME_MAX_LEN + 1]; /* one who has it, "" for none */
    json_t *grants;              /* ids of grants to it */
};

static bool see_user_of_role(const struct store_user *u, void *arg)
{
    struct role_uses *uses = arg;

    if (strcmp(u->role, uses->role) != 0)
        return true;
    text_copy(uses->user, sizeof(uses->user), u->name);
    return false;
}

static bool see_grant_to_role(const struct store_grant *g, void *arg)
{
    struct role_uses *uses = arg;

    if (g->subject[0] == '@' && !strcmp(g->subject + 1, uses->role))
        json_array_append_new(uses->grants, json_integer((json_int_t)g->id));
    return true;
}

/* A role that nobody has: its grants go with it, as a user's do with him. */
static int remove_role(struct request *r, const struct role_uses *uses)
{
    struct store *store = r->control->store;
    json_t *id;
    size_t i;

    json_array_foreach(uses->grants, i, id)
    {
        int result = store_grant_remove(store, (uint64_t)json_integer_value(id));
        if (result < 0)
            return result;
        control_event(r, "grant-rm", "", 0, "grant %lld: @%s", (long long)json_integer_value(id),
                      uses->role);
    }
    return store_role_remove(store, uses->role);
}

void control_do_role_rm(struct request *r)
{
    struct role_uses uses = {.role = name_arg(r), .grants = json_array()};
    struct store *store = r->control->store;
    struct store_role role;
    int result = store_role_get(store, uses.role, &role);

    if (result == 0)
        result = store_users(store, see_user_of_role, &uses);
    if (result == 0)
        result = store_grants(store, see_grant_to_role, &uses);
    if (result == 0 && role.is_builtin) {
        control_reply_error(r, "failed", "the role %s is built in and stays", uses.role);
    } else if (result == 0 && uses.user[0]) {
        control_reply_error(r, "busy",
                            "the role %s is in use, by %s for one; give its users another role "
                            "first",
                            uses.role, uses.user);
    } else if (result < 0 || (result = remove_role(r, &uses)) < 0) {
        control_reply_store(r, result, "cannot remove the role");
    } else {
        control_event(r, "role-rm", "", 0, "role %s", uses.role);
        control_reply_data(r, json_object());
        control_access_changed(r);
    }
    json_decref(uses.grants);
}
