/*
 * `apply`: make roles, users, targets and grants as a document says. First everything is checked
 * and every complaint collected; then each item is compared with the store, and what differs is
 * told and, unless it is a dry run, changed. Nothing is removed without `prune`.
 *
 * A document fits into one request line (1 MiB), which bounds the work of one turn of the loop.
 */
#include "control/control_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/document.h"
#include "control/keys.h"

#define COMPLAINTS_MAX (32 * 1024)

struct apply {
    struct request *r;
    struct store *store;
    bool is_dry, does_prune;
    json_t *sections[SECTION_COUNT]; /* borrowed arrays; NULL when left out */
    json_t *names[SECTION_COUNT];    /* what the document lists, name to item; owned */
    struct buffer complaints;
    json_t *rows;               /* the difference so far; owned */
    struct store_grant *grants; /* what is there, sorted; owned */
    size_t grant_count, grant_cap;
    bool failed_memory;
    int result; /* of the store; the first failure ends it all */
    struct failure failure;
    struct buffer text; /* of the item at hand */
};

/* ---- telling ---- */

static void complain(struct apply *a, enum section section, size_t i, const char *name,
                     const char *text)
{
    char quoted[128];

    buffer_printf(&a->complaints, "%s%s[%zu]", a->complaints.len ? "\n" : "",
                  section_names[section], i);
    if (name)
        buffer_printf(&a->complaints, " \"%s\"",
                      text_escape(quoted, sizeof(quoted), name, strlen(name)));
    buffer_printf(&a->complaints, ": %s", text);
}

/* Add a word to what is said about the item at hand. */
static void say(struct apply *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
static void say(struct apply *a, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    buffer_printf(&a->text, "%s%s", a->text.len ? ", " : "", text);
}

/* One row, and an event when it was done. Forgets the words. */
static void tell(struct apply *a, char change, enum section section, const char *name)
{
    const char mark[2] = {change, '\0'};
    const char *text = a->text.len ? buffer_cstr(&a->text) : "";

    text = text ? text : "...";
    json_array_append_new(a->rows,
                          json_pack("{s:s, s:s, s:o, s:o}", "change", mark, "section",
                                    section_names[section], "name", control_json_text(name), "text",
                                    control_json_text(text)));
    if (!a->is_dry)
        control_event(a->r, "apply", section == SECTION_USERS ? name : "", 0, "%s %s %s%s%s", mark,
                      section_names[section], name, text[0] ? ": " : "", text);
    buffer_reset(&a->text);
}

/* A call of the store; true when it went well. */
static bool done(struct apply *a, int result, enum section section, const char *name)
{
    char what[256];

    if (result >= 0)
        return true;
    a->result = result;
    snprintf(what, sizeof(what), "stopped at %s %s", section_names[section], name);
    control_failure_store(&a->failure, a->store, result, what);
    return false;
}

/* ---- checking ---- */

static const char *item_name(json_t *item)
{
    const char *name = json_string_value(json_object_get(item, "name"));

    return name ? name : json_string_value(json_object_get(item, "subject"));
}

static void grant_key(const struct arg_values *values, char *dst, size_t dst_len)
{
    const char *account = args_text(values, "account");

    snprintf(dst, dst_len, "%s %s %s", args_text(values, "subject"), args_text(values, "target"),
             account ? account : "");
}

static bool is_listed(const struct apply *a, enum section section, const char *name)
{
    return json_object_get(a->names[section], name) != NULL;
}

/* Will there be one when all is done? */
static bool will_exist(struct apply *a, enum section section, const char *name)
{
    struct store_role role;
    struct store_user user;
    struct store_target target;

    if (is_listed(a, section, name))
        return true;
    if (section == SECTION_ROLES)
        return store_role_get(a->store, name, &role) == 0 &&
               !(a->does_prune && a->sections[section] && !role.is_builtin);
    if (a->does_prune && a->sections[section])
        return false;
    return section == SECTION_USERS ? store_user_get(a->store, name, &user) == 0
                                    : store_target_get(a->store, name, &target) == 0;
}

static bool check_reference(struct apply *a, enum section section, const char *name, char *why,
                            size_t why_len)
{
    static const char *const words[] = {"role", "user", "target", "grant"};

    if (will_exist(a, section, name))
        return true;
    snprintf(why, why_len, "there is no %s %s", words[section], name);
    return false;
}

static bool check_user(struct apply *a, const struct arg_values *v, char *why, size_t why_len)
{
    const char *role = args_text(v, "role"), *hash = args_text(v, "password_hash");
    const char *principals = args_text(v, "cert_principals");
    const struct arg_value *uid = args_get(v, "local_uid");
    struct store_user other;
    struct public_key key;
    struct failure f;
    json_t *line;
    size_t i;

    if (role && !check_reference(a, SECTION_ROLES, role, why, why_len))
        return false;
    if (hash && control_hash_check(hash, &f) < 0)
        return text_copy(why, why_len, f.text) && false;
    if (principals && !store_is_principals(principals)) {
        snprintf(why, why_len, "cert_principals: words without blanks, with commas between them");
        return false;
    }
    if (uid->is_set && !uid->is_null &&
        store_user_by_uid(a->store, (int64_t)uid->number, &other) == 0 &&
        strcmp(other.name, args_text(v, "name")) != 0) {
        snprintf(why, why_len, "local_uid %llu is linked to %s; unlink it first",
                 (unsigned long long)uid->number, other.name);
        return false;
    }
    json_array_foreach(args_get(v, "keys")->json, i, line)
    {
        if (public_key_parse(json_string_value(line), KEY_OF_USER, &key, why, why_len) < 0)
            return false;
    }
    return true;
}

static bool check_target(struct apply *a, const struct arg_values *v, char *why, size_t why_len)
{
    struct store_target t = {0};
    struct secret secret = {0};
    struct failure f;
    bool has_change = false, is_ok;

    if (store_target_get(a->store, args_text(v, "name"), &t) < 0) {
        t = (struct store_target){0};
        if (!args_text(v, "type") || !args_text(v, "address"))
            return text_copy(why, why_len, "a new target needs type and address") && false;
    }
    is_ok = control_target_change(v, true, &t, &secret, &has_change, &f) == 0;
    secret_wipe(&secret);
    if (!is_ok)
        text_copy(why, why_len, f.text);
    return is_ok;
}

static bool check_grant(struct apply *a, const struct arg_values *v, char *why, size_t why_len)
{
    const char *subject = args_text(v, "subject"), *target = args_text(v, "target");
    bool is_role = subject[0] == '@';

    return check_reference(a, is_role ? SECTION_ROLES : SECTION_USERS, subject + is_role, why,
                           why_len) &&
           (!strcmp(target, "*") || check_reference(a, SECTION_TARGETS, target, why, why_len));
}

/* Names first, for items refer to each other. */
static void collect_names(struct apply *a, enum section section)
{
    struct arg_values values;
    char key[NAME_MAX_LEN * 2 + ACCOUNT_MAX_LEN + 8];
    struct failure f;
    json_t *item;
    size_t i;

    json_array_foreach(a->sections[section], i, item)
    {
        const char *name;

        if (!json_is_object(item)) {
            complain(a, section, i, NULL, "give an object");
            continue;
        }
        if (args_check(section_rows[section], item, &values, &f) < 0) {
            complain(a, section, i, item_name(item), f.text);
            continue;
        }
        name = item_name(item);
        if (section == SECTION_GRANTS) {
            grant_key(&values, key, sizeof(key));
            name = key;
        }
        if (is_listed(a, section, name))
            complain(a, section, i, name, "it is listed twice");
        json_object_set(a->names[section], name, item);
    }
}

static void check_section(struct apply *a, enum section section)
{
    struct arg_values v;
    struct failure f;
    char why[400];
    json_t *item;
    size_t i;

    json_array_foreach(a->sections[section], i, item)
    {
        bool is_ok = true;

        if (!json_is_object(item) || args_check(section_rows[section], item, &v, &f) < 0)
            continue; /* complained about already */
        if (section == SECTION_USERS)
            is_ok = check_user(a, &v, why, sizeof(why));
        else if (section == SECTION_TARGETS)
            is_ok = check_target(a, &v, why, sizeof(why));
        else if (section == SECTION_GRANTS)
            is_ok = check_grant(a, &v, why, sizeof(why));
        if (!is_ok)
            complain(a, section, i, item_name(item), why);
    }
}

static bool note_role_of_user(const struct store_user *u, void *arg)
{
    json_array_append_new(arg, json_pack("{s:s, s:s}", "user", u->name, "role", u->role));
    return true;
}

static bool note_role_of_grant(const struct store_grant *g, void *arg)
{
    if (g->subject[0] == '@')
        json_array_append_new(arg,
                              json_pack("{s:s, s:s}", "user", g->subject, "role", g->subject + 1));
    return true;
}

/* Roles that are to be pruned and yet stay in use by what the document does not mention. */
static void check_roles_in_use(struct apply *a)
{
    json_t *uses, *use;
    size_t i;

    if (!a->does_prune || !a->sections[SECTION_ROLES])
        return;
    uses = json_array();
    if (store_users(a->store, note_role_of_user, uses) < 0 ||
        (!a->sections[SECTION_GRANTS] && store_grants(a->store, note_role_of_grant, uses) < 0))
        buffer_put_str(&a->complaints, "the store cannot be read now; try again");
    json_array_foreach(uses, i, use)
    {
        const char *user = json_string_value(json_object_get(use, "user"));
        const char *role = json_string_value(json_object_get(use, "role"));
        json_t *item = json_object_get(a->names[SECTION_USERS], user);
        bool is_pruned = user[0] != '@' && a->sections[SECTION_USERS] && !item;

        if (!is_pruned && !json_object_get(item, "role") && !will_exist(a, SECTION_ROLES, role))
            buffer_printf(&a->complaints, "%sroles: %s is not listed but is still used by %s%s",
                          a->complaints.len ? "\n" : "", role,
                          user[0] == '@' ? "grants to " : "user ", user);
    }
    json_decref(uses);
}

static void find_sections(struct apply *a, json_t *document)
{
    const char *key, *nearest;
    char quoted[96];
    json_t *value;

    json_object_foreach(document, key, value)
    {
        int section = -1;
        for (int s = 0; s < SECTION_COUNT; s++) {
            if (!strcmp(key, section_names[s]))
                section = s;
        }
        if (section >= 0 && json_is_array(value)) {
            a->sections[section] = value;
            continue;
        }
        nearest = text_nearest(key, section_names, SECTION_COUNT);
        text_escape(quoted, sizeof(quoted), key, strlen(key));
        buffer_printf(&a->complaints, "%s\"%s\"%s%s%s", a->complaints.len ? "\n" : "", quoted,
                      section >= 0 ? ": give an array of items" : ": no such section",
                      section < 0 && nearest ? "; did you mean " : "",
                      section < 0 && nearest ? nearest : "");
    }
}

/* Whatever stays after a prune must not go through what was removed. */
static bool note_via_left(const struct store_target *t, void *arg)
{
    if (t->via[0])
        json_object_set_new(arg, t->name, json_string(t->via));
    return true;
}

/* The ways through other targets, as they will be. */
static void check_vias(struct apply *a)
{
    json_t *changes = json_object(), *there = json_object(), *item, *via;
    const char *name;
    struct failure f;

    json_object_foreach(a->names[SECTION_TARGETS], name, item)
    {
        via = json_object_get(item, "via");
        if (json_is_string(via))
            json_object_set(changes, name, via);
    }
    if (a->does_prune && a->sections[SECTION_TARGETS] &&
        store_targets(a->store, note_via_left, there) == 0) {
        json_object_foreach(there, name, via)
        {
            if (is_listed(a, SECTION_TARGETS, name) && !json_object_get(changes, name))
                json_object_set(changes, name, via);
        }
    }
    json_object_foreach(changes, name, via)
    {
        const char *to = json_string_value(via);
        char why[200];

        if (to[0] && !check_reference(a, SECTION_TARGETS, to, why, sizeof(why)))
            buffer_printf(&a->complaints, "%stargets: %s: via: %s", a->complaints.len ? "\n" : "",
                          name, why);
    }
    if (a->complaints.len == 0 && control_check_vias(a->r->control, changes, &f) < 0)
        buffer_put_str(&a->complaints, f.text);
    json_decref(changes);
    json_decref(there);
}

static bool check_document(struct apply *a, json_t *document)
{
    find_sections(a, document);
    for (int s = 0; s < SECTION_COUNT; s++)
        collect_names(a, (enum section)s);
    for (int s = 0; s < SECTION_COUNT; s++)
        check_section(a, (enum section)s);
    check_roles_in_use(a);
    check_vias(a);
    return a->complaints.len == 0 && !a->complaints.failed;
}

/* ---- roles ---- */

static bool apply_role_factor(struct apply *a, const struct arg_values *v,
                              const struct store_role *role, const char *name)
{
    const char *factor = args_text(v, "second_factor");

    if (!factor || !strcmp(factor, role->second_factor[0] ? role->second_factor : "no"))
        return true;
    say(a, "second_factor %s", factor);
    return a->is_dry ||
           done(a, store_role_set_second_factor(a->store, name, factor), SECTION_ROLES, name);
}

static bool apply_role(struct apply *a, const struct arg_values *v)
{
    const char *name = args_text(v, "name");
    const struct arg_value *policy = args_get(v, "policy");
    char text[STORE_POLICY_TEXT_MAX] = "";
    struct store_role role = {0};
    bool is_new = store_role_get(a->store, name, &role) < 0;

    if (policy->is_set && control_policy_text(NULL, policy->json, text, &a->failure) < 0)
        return false;
    if (is_new || (policy->is_set && strcmp(role.policy, text) != 0)) {
        say(a, "policy %s", text[0] ? text : "none");
        if (!a->is_dry &&
            ((is_new && !done(a, store_role_add(a->store, name), SECTION_ROLES, name)) ||
             !done(a, store_role_set_policy(a->store, name, text), SECTION_ROLES, name)))
            return false;
    }
    if (!apply_role_factor(a, v, &role, name))
        return false;
    if (!a->text.len)
        return true;
    tell(a, is_new ? '+' : '~', SECTION_ROLES, name);
    return true;
}

/* ---- users ---- */

static bool see_key(const struct store_key *k, void *arg)
{
    json_object_set_new(arg, k->fingerprint, json_true());
    return true;
}

/* Fingerprints of the keys a user has, as a set. */
static json_t *keys_there(struct apply *a, const char *name)
{
    json_t *prints = json_object();

    if (store_keys(a->store, name, see_key, prints) < 0)
        json_object_clear(prints); /* a new user, in a dry run */
    return prints;
}

static bool add_keys(struct apply *a, const char *name, json_t *lines, json_t *there,
                     json_t *listed)
{
    struct public_key key;
    char err[256];
    json_t *line;
    size_t i;

    json_array_foreach(lines, i, line)
    {
        if (public_key_parse(json_string_value(line), KEY_OF_USER, &key, err, sizeof(err)) < 0)
            continue; /* was checked */
        json_object_set_new(listed, key.fingerprint, json_true());
        if (json_object_get(there, key.fingerprint))
            continue;
        json_object_set_new(there, key.fingerprint, json_true()); /* listed twice: added once */
        say(a, "+key %s", key.fingerprint);
        if (!a->is_dry && !done(a,
                                store_key_add(a->store, name, key.type, key.blob, key.blob_len,
                                              key.fingerprint, key.comment),
                                SECTION_USERS, name))
            return false;
    }
    return true;
}

static bool remove_keys(struct apply *a, const char *name, json_t *there, json_t *listed)
{
    const char *print;
    json_t *value;

    json_object_foreach(there, print, value)
    {
        if (json_object_get(listed, print))
            continue;
        say(a, "-key %s", print);
        if (!a->is_dry && !done(a, store_key_remove(a->store, name, print), SECTION_USERS, name))
            return false;
    }
    return true;
}

static bool apply_keys(struct apply *a, const struct arg_values *v, const char *name)
{
    json_t *lines = args_get(v, "keys")->json, *there, *listed;
    bool is_ok;

    if (!lines)
        return true;
    there = keys_there(a, name);
    listed = json_object();
    is_ok = add_keys(a, name, lines, there, listed) &&
            (!a->does_prune || remove_keys(a, name, there, listed));
    json_decref(there);
    json_decref(listed);
    return is_ok;
}

static bool apply_role_of_user(struct apply *a, const struct store_user *u, const char *role)
{
    if (!role || !strcmp(u->role, role))
        return true;
    say(a, "role %s", role);
    return a->is_dry ||
           done(a, store_user_set_role(a->store, u->name, role), SECTION_USERS, u->name);
}

static bool apply_lock(struct apply *a, const struct store_user *u, const struct arg_value *locked)
{
    if (!locked->is_set || locked->flag == u->is_locked)
        return true;
    say(a, locked->flag ? "locked" : "unlocked");
    return a->is_dry ||
           done(a, store_user_set_locked(a->store, u->name, locked->flag), SECTION_USERS, u->name);
}

static bool apply_uid(struct apply *a, const struct store_user *u, const struct arg_value *uid)
{
    int64_t number = uid->is_null ? -1 : (int64_t)uid->number;

    if (!uid->is_set || number == u->local_uid)
        return true;
    say(a, uid->is_null ? "no local uid" : "local uid %lld", (long long)number);
    return a->is_dry ||
           done(a, store_user_set_uid(a->store, u->name, number), SECTION_USERS, u->name);
}

static bool apply_hash(struct apply *a, const struct store_user *u, const char *hash)
{
    char there[STORE_HASH_MAX] = "";
    bool is_same;

    if (!hash)
        return true;
    is_same = store_user_hash(a->store, u->name, there) == 0 && !strcmp(there, hash);
    memory_wipe(there, sizeof(there));
    if (is_same)
        return true;
    say(a, "password changed");
    return a->is_dry ||
           done(a, store_user_set_hash(a->store, u->name, hash), SECTION_USERS, u->name);
}

/* One text of how a user logs in; NULL: is not said. */
static bool apply_text(struct apply *a, const char *name, const char *what, const char *was,
                       const char *is, int (*set)(struct store *, const char *, const char *))
{
    if (!is || !strcmp(was, is))
        return true;
    say(a, "%s %s", what, is[0] ? is : "none");
    return a->is_dry || done(a, set(a->store, name, is), SECTION_USERS, name);
}

static int set_factor(struct store *s, const char *name, const char *factor)
{
    return store_user_set_second_factor(s, name, strcmp(factor, "role") ? factor : "");
}

static int set_nla(struct store *s, const char *name, const char *state)
{
    return store_user_set_nla(s, name, strcmp(state, "on") == 0);
}

/* Off before another thing is, and on after it: PAM's users cannot have it. */
static bool apply_nla(struct apply *a, const struct store_user *u, const struct arg_values *v,
                      const char *state)
{
    const char *wanted = args_text(v, "rdp_nla");

    return !wanted || strcmp(wanted, state) != 0 ||
           apply_text(a, u->name, "rdp_nla", u->has_nla ? "on" : "off", wanted, set_nla);
}

static bool apply_login(struct apply *a, const struct store_user *u, const struct arg_values *v)
{
    return apply_nla(a, u, v, "off") &&
           apply_text(a, u->name, "second_factor", u->second_factor[0] ? u->second_factor : "role",
                      args_text(v, "second_factor"), set_factor) &&
           apply_text(a, u->name, "auth_source", u->auth_source, args_text(v, "auth_source"),
                      store_user_set_auth_source) &&
           apply_nla(a, u, v, "on") &&
           apply_text(a, u->name, "cert_principals", u->cert_principals,
                      args_text(v, "cert_principals"), store_user_set_principals);
}

static bool apply_user(struct apply *a, const struct arg_values *v)
{
    const char *name = args_text(v, "name"), *role = args_text(v, "role");
    struct store_user user = {.local_uid = -1};
    bool is_new = store_user_get(a->store, name, &user) < 0;

    if (is_new) {
        user = (struct store_user){.local_uid = -1};
        text_copy(user.name, sizeof(user.name), name);
        text_copy(user.role, sizeof(user.role), role ? role : "user");
        text_copy(user.auth_source, sizeof(user.auth_source), "local");
        say(a, "role %s", user.role);
        if (!a->is_dry && !done(a, store_user_add(a->store, name, user.role), SECTION_USERS, name))
            return false;
    }
    /* The lock first: a user who is to be locked is never open in between. */
    if (!apply_lock(a, &user, args_get(v, "locked")) || !apply_role_of_user(a, &user, role) ||
        !apply_uid(a, &user, args_get(v, "local_uid")) ||
        !apply_hash(a, &user, args_text(v, "password_hash")) || !apply_login(a, &user, v) ||
        !apply_keys(a, v, name))
        return false;
    if (is_new || a->text.len)
        tell(a, is_new ? '+' : '~', SECTION_USERS, name);
    return true;
}

/* ---- targets ---- */

static void say_text(struct apply *a, const char *what, const char *was, const char *is)
{
    if (strcmp(was, is) != 0)
        say(a, "%s %s", what, is[0] ? is : "none");
}

static void say_target(struct apply *a, const struct store_target *was,
                       const struct store_target *is)
{
    if (was->protocol != is->protocol || !was->name[0])
        say(a, "type %s", protocol_name(is->protocol));
    say_text(a, "address", was->address, is->address);
    say_text(a, "account", was->account, is->account);
    if (was->auth != is->auth || !was->name[0])
        say(a, "auth %s", control_auth_name(is->auth));
    say_text(a, "via", was->via, is->via);
    if (strcmp(was->certificate, is->certificate) != 0)
        say(a, is->certificate[0] ? "certificate changed" : "no certificate");
    say_text(a, "host key", was->host_key_fingerprint, is->host_key_fingerprint);
    if (was->accept_new != is->accept_new)
        say(a, "accept_new %s", is->accept_new ? "yes" : "no");
    say_text(a, "policy", was->policy, is->policy);
}

/* Does the store hold this secret? One that cannot be read is another. */
static bool is_secret_there(struct apply *a, const char *name, const struct secret *secret)
{
    struct secret there;
    bool is_same = store_target_secret(a->store, name, &there) == 0 && there.len == secret->len &&
                   !memcmp(there.data, secret->data, there.len);

    secret_wipe(&there);
    return is_same;
}

static bool save_target(struct apply *a, const struct store_target *was, struct store_target *is,
                        const struct secret *secret)
{
    const char *name = is->name;
    bool is_new = !was->name[0];

    say_target(a, was, is);
    if (secret)
        say(a, secret->len ? "secret changed" : "secret removed");
    else if (is_new && (is->auth == TARGET_AUTH_PASSWORD || is->auth == TARGET_AUTH_KEY))
        say(a, "its secret is missing: give it with target set");
    if (!is_new && !a->text.len)
        return true;
    if (!a->is_dry && !done(a,
                            is_new ? store_target_add(a->store, is, secret)
                                   : store_target_set(a->store, is, secret),
                            SECTION_TARGETS, name))
        return false;
    tell(a, is_new ? '+' : '~', SECTION_TARGETS, name);
    return true;
}

static bool apply_target(struct apply *a, const struct arg_values *v)
{
    const char *name = args_text(v, "name");
    struct store_target was = {0}, is;
    struct secret secret = {0};
    bool has_change = false, is_ok;

    if (store_target_get(a->store, name, &was) < 0)
        was = (struct store_target){0};
    is = was;
    if (control_target_change(v, true, &is, &secret, &has_change, &a->failure) < 0) {
        secret_wipe(&secret);
        return false;
    }
    text_copy(is.name, sizeof(is.name), name);
    if (has_change && was.name[0] &&
        (secret.len ? is_secret_there(a, name, &secret) : !was.has_secret))
        has_change = false;
    if (has_change && !was.name[0] && !secret.len)
        has_change = false;
    is_ok = save_target(a, &was, &is, has_change ? &secret : NULL);
    secret_wipe(&secret);
    return is_ok;
}

/* ---- grants ---- */

static bool keep_grant(const struct store_grant *g, void *arg)
{
    struct apply *a = arg;

    if (a->grant_count == a->grant_cap) {
        size_t cap = a->grant_cap ? a->grant_cap * 2 : 64;
        struct store_grant *bigger = reallocarray(a->grants, cap, sizeof(*bigger));
        if (!bigger) {
            a->failed_memory = true;
            return false;
        }
        a->grants = bigger;
        a->grant_cap = cap;
    }
    a->grants[a->grant_count++] = *g;
    return true;
}

static int compare_grants(const void *pa, const void *pb)
{
    const struct store_grant *a = pa, *b = pb;
    int order = strcmp(a->subject, b->subject);

    if (!order)
        order = strcmp(a->target, b->target);
    return order ? order : strcmp(a->account, b->account);
}

static bool load_grants(struct apply *a)
{
    int result = store_grants(a->store, keep_grant, a);

    if (a->failed_memory)
        result = ERR_MEMORY;
    if (!done(a, result, SECTION_GRANTS, "list"))
        return false;
    if (a->grant_count)
        qsort(a->grants, a->grant_count, sizeof(*a->grants), compare_grants);
    return true;
}

static const struct store_grant *find_grant(const struct apply *a, const struct store_grant *g)
{
    return a->grant_count
               ? bsearch(g, a->grants, a->grant_count, sizeof(*a->grants), compare_grants)
               : NULL;
}

static bool apply_grant(struct apply *a, const struct arg_values *v)
{
    const char *account = args_text(v, "account");
    const struct arg_value *policy = args_get(v, "policy");
    char name[NAME_MAX_LEN * 2 + 16];
    struct store_grant g = {0};
    const struct store_grant *there;
    int result;

    text_copy(g.subject, sizeof(g.subject), args_text(v, "subject"));
    text_copy(g.target, sizeof(g.target), args_text(v, "target"));
    text_copy(g.account, sizeof(g.account), account ? account : "");
    if (policy->is_set && control_policy_text(NULL, policy->json, g.policy, &a->failure) < 0)
        return false;
    there = find_grant(a, &g);
    if (there && (!policy->is_set || !strcmp(there->policy, g.policy)))
        return true;
    snprintf(name, sizeof(name), "%s %s", g.subject, g.target);
    if (g.account[0])
        say(a, "account %s", g.account);
    if (g.policy[0] || there)
        say(a, "policy %s", g.policy[0] ? g.policy : "none");
    if (!a->is_dry) {
        result = there ? store_grant_set_policy(a->store, there->id, g.policy)
                       : store_grant_add(a->store, &g, NULL);
        if (!done(a, result, SECTION_GRANTS, name))
            return false;
    }
    tell(a, there ? '~' : '+', SECTION_GRANTS, name);
    return true;
}

/* ---- pruning ---- */

static bool prune_grants(struct apply *a)
{
    for (size_t i = 0; i < a->grant_count; i++) {
        const struct store_grant *g = &a->grants[i];
        char key[NAME_MAX_LEN * 2 + ACCOUNT_MAX_LEN + 8], name[NAME_MAX_LEN * 2 + 16];

        snprintf(key, sizeof(key), "%s %s %s", g->subject, g->target, g->account);
        if (is_listed(a, SECTION_GRANTS, key))
            continue;
        snprintf(name, sizeof(name), "%s %s", g->subject, g->target);
        if (g->account[0])
            say(a, "account %s", g->account);
        if (!a->is_dry && !done(a, store_grant_remove(a->store, g->id), SECTION_GRANTS, name))
            return false;
        tell(a, '-', SECTION_GRANTS, name);
    }
    return true;
}

static bool note_user(const struct store_user *u, void *arg)
{
    json_array_append_new(arg, json_string(u->name));
    return true;
}

static bool note_target(const struct store_target *t, void *arg)
{
    json_array_append_new(arg, json_string(t->name));
    return true;
}

static bool note_role(const struct store_role *role, void *arg)
{
    if (!role->is_builtin)
        json_array_append_new(arg, json_string(role->name));
    return true;
}

static int list_names(struct apply *a, enum section section, json_t *names)
{
    switch (section) {
    case SECTION_ROLES:
        return store_roles(a->store, note_role, names);
    case SECTION_USERS:
        return store_users(a->store, note_user, names);
    default:
        return store_targets(a->store, note_target, names);
    }
}

static int remove_named(struct apply *a, enum section section, const char *name)
{
    switch (section) {
    case SECTION_ROLES:
        return store_role_remove(a->store, name);
    case SECTION_USERS:
        return store_user_remove(a->store, name);
    default:
        return store_target_remove(a->store, name);
    }
}

/* One of a section; false when it ended everything. *is_left: it has to wait for another. */
static bool prune_one(struct apply *a, enum section section, const char *name, bool may_wait,
                      bool *is_left)
{
    int result = a->is_dry ? 0 : remove_named(a, section, name);

    *is_left = result == ERR_BUSY && section == SECTION_TARGETS && may_wait;
    if (*is_left)
        return true;
    if (!done(a, result, section, name))
        return false;
    tell(a, '-', section, name);
    return true;
}

/* A target goes after those that are reached through it. */
static bool prune_section(struct apply *a, enum section section)
{
    json_t *names = json_array(), *item;
    bool is_ok = done(a, list_names(a, section, names), section, "list"), is_left;
    size_t i;

    for (int pass = 0; pass <= LINK_HOPS_MAX; pass++) {
        json_array_foreach(names, i, item)
        {
            const char *name = json_string_value(item);

            if (!is_ok || !name || is_listed(a, section, name))
                continue;
            is_ok = prune_one(a, section, name, pass < LINK_HOPS_MAX, &is_left);
            if (!is_left)
                json_array_set_new(names, i, json_null());
        }
    }
    json_decref(names);
    return is_ok;
}

/* ---- all of it ---- */

static bool apply_section(struct apply *a, enum section section)
{
    static bool (*const appliers[])(struct apply *, const struct arg_values *) = {
        apply_role, apply_user, apply_target, apply_grant};
    struct arg_values values;
    json_t *item;
    size_t i;

    json_array_foreach(a->sections[section], i, item)
    {
        if (args_check(section_rows[section], item, &values, &a->failure) < 0 ||
            !appliers[section](a, &values))
            return false;
    }
    return true;
}

/* Grants go before what they refer to, and come after it. */
static bool apply_all(struct apply *a)
{
    for (int s = 0; s < SECTION_GRANTS; s++) {
        if (!apply_section(a, (enum section)s))
            return false;
    }
    if (a->sections[SECTION_GRANTS]) {
        if (!load_grants(a) || (a->does_prune && !prune_grants(a)) ||
            !apply_section(a, SECTION_GRANTS))
            return false;
    }
    for (int s = SECTION_TARGETS; a->does_prune && s >= 0; s--) {
        if (a->sections[s] && !prune_section(a, (enum section)s))
            return false;
    }
    return true;
}

/* The rows, then the failure that ended it. */
struct partial {
    json_t *rows;
    size_t next;
    struct failure failure;
};

static void partial_free(void *state)
{
    struct partial *p = state;

    json_decref(p->rows);
    free(p);
}

static int partial_fill(struct request *r, json_t *rows, struct failure *f)
{
    struct partial *p = r->rows_state;

    for (size_t i = 0; i < CONTROL_PAGE_ROWS && p->next < json_array_size(p->rows); i++)
        json_array_append(rows, json_array_get(p->rows, p->next++));
    if (json_array_size(rows))
        return 1;
    *f = p->failure;
    return ERR_SYSTEM;
}

static void reply_partial(struct request *r, struct apply *a)
{
    struct partial *p = calloc(1, sizeof(*p));

    if (!p) {
        control_reply_failure(r, &a->failure);
        return;
    }
    p->rows = json_incref(a->rows);
    p->failure = a->failure;
    control_reply_stream(r, partial_fill, p, partial_free);
}

static void run(struct request *r, struct apply *a)
{
    bool is_ok;

    if (!check_document(a, args_get(&r->parsed.args, "document")->json)) {
        control_reply_error(r, "invalid", "%s",
                            a->complaints.failed ? "there are too many mistakes to tell"
                                                 : buffer_cstr(&a->complaints));
        return;
    }
    is_ok = apply_all(a);
    if (is_ok)
        control_reply_rows(r, json_incref(a->rows));
    else
        reply_partial(r, a);
    if (!a->is_dry && json_array_size(a->rows))
        control_access_changed(r);
}

void control_do_apply(struct request *r)
{
    struct apply *a = calloc(1, sizeof(*a));

    if (!a) {
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    a->r = r;
    a->store = r->control->store;
    a->is_dry = args_flag(&r->parsed.args, "dry_run");
    a->does_prune = args_flag(&r->parsed.args, "prune");
    a->rows = json_array();
    a->failure.code = "failed";
    buffer_init(&a->complaints, COMPLAINTS_MAX);
    buffer_init(&a->text, 4096);
    for (int s = 0; s < SECTION_COUNT; s++)
        a->names[s] = json_object();
    run(r, a);
    for (int s = 0; s < SECTION_COUNT; s++)
        json_decref(a->names[s]);
    buffer_finish(&a->complaints);
    buffer_finish(&a->text);
    json_decref(a->rows);
    free(a->grants);
    free(a);
}
