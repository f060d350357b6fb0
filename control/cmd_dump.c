/*
 * `dump`: roles, users, targets and grants as items of the document that `apply` takes. Holds no
 * secret: not a hash, not a password, not a key's private half.
 */
#include "control/control_priv.h"

#include <stdlib.h>

#include "control/document.h"
#include "control/keys.h"

struct dump {
    json_t *rows;
    enum section section;
};

static void add(struct dump *d, json_t *item)
{
    json_array_append_new(
        d->rows, json_pack("{s:s, s:o}", "section", section_names[d->section], "item", item));
}

static bool dump_role(const struct store_role *role, void *arg)
{
    add(arg, json_pack("{s:s, s:o, s:s}", "name", role->name, "policy",
                       control_json_policy(role->policy), "second_factor",
                       role->second_factor[0] ? role->second_factor : "no"));
    return true;
}

/* Keys are filled in afterwards: the store answers one question at a time. */
static bool dump_user(const struct store_user *u, void *arg)
{
    add(arg, json_pack("{s:s, s:s, s:b, s:o, s:b, s:s, s:s, s:s, s:o}", "name", u->name, "role",
                       u->role, "locked", (int)u->is_locked, "local_uid",
                       u->local_uid < 0 ? json_null() : json_integer(u->local_uid), "has_password",
                       (int)u->has_password, "second_factor",
                       u->second_factor[0] ? u->second_factor : "role", "auth_source",
                       u->auth_source, "rdp_nla", u->has_nla ? "on" : "off", "cert_principals",
                       control_json_text(u->cert_principals)));
    return true;
}

static bool dump_key(const struct store_key *k, void *arg)
{
    char *line = public_key_line(k->type, k->blob, k->blob_len, k->comment);

    json_array_append_new(arg, control_json_text(line ? line : ""));
    free(line);
    return true;
}

static int dump_keys(struct store *store, json_t *rows)
{
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        json_t *item = json_object_get(row, "item"), *keys;
        int result;

        if (json_object_get(item, "has_password") == NULL)
            continue; /* not a user */
        keys = json_array();
        result =
            store_keys(store, json_string_value(json_object_get(item, "name")), dump_key, keys);
        json_object_set_new(item, "keys", keys);
        if (result < 0)
            return result;
    }
    return 0;
}

static bool dump_target(const struct store_target *t, void *arg)
{
    char *line = t->host_key_len
                     ? public_key_line(t->host_key_type, t->host_key, t->host_key_len, "")
                     : NULL;

    add(arg, json_pack("{s:s, s:s, s:o, s:o, s:s, s:b, s:s, s:s, s:b, s:s, s:o}", "name", t->name,
                       "type", protocol_name(t->protocol), "address", control_json_text(t->address),
                       "account", control_json_text(t->account), "auth", control_auth_name(t->auth),
                       "has_secret", (int)t->has_secret, "certificate", t->certificate, "via",
                       t->via, "accept_new", (int)t->accept_new, "host_key", line ? line : "",
                       "policy", control_json_policy(t->policy)));
    free(line);
    return true;
}

static bool dump_grant(const struct store_grant *g, void *arg)
{
    add(arg,
        json_pack("{s:s, s:s, s:o, s:o}", "subject", g->subject, "target", g->target, "account",
                  control_json_text(g->account), "policy", control_json_policy(g->policy)));
    return true;
}

void control_do_dump(struct request *r)
{
    struct store *store = r->control->store;
    struct dump d = {.rows = json_array(), .section = SECTION_ROLES};
    int result = store_roles(store, dump_role, &d);

    d.section = SECTION_USERS;
    if (result == 0)
        result = store_users(store, dump_user, &d);
    if (result == 0)
        result = dump_keys(store, d.rows);
    d.section = SECTION_TARGETS;
    if (result == 0)
        result = store_targets(store, dump_target, &d);
    d.section = SECTION_GRANTS;
    if (result == 0)
        result = store_grants(store, dump_grant, &d);
    if (result < 0) {
        json_decref(d.rows);
        control_reply_store(r, result, "cannot dump");
        return;
    }
    control_reply_rows(r, d.rows);
}
