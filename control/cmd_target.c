/*
 * Targets and grants: what may be reached, how the proxy logs in there, and who may. Secrets come
 * in and never go out.
 */
#include "control/control_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#include "control/address.h"
#include "control/keys.h"

const char *control_auth_name(enum link_target_auth auth)
{
    static const char *const names[] = {"none",        "password", "key",
                                        "passthrough", "agent",    "prompt"};

    return names[auth];
}

/* ---- JSON ---- */

struct target_rows {
    struct request *r;
    json_t *rows;
    int protocol; /* -1 any */
    json_t *live; /* name -> live sessions */
};

static bool count_at_target(const struct session_info *s, void *arg)
{
    json_t *counts = arg;
    json_int_t count = json_integer_value(json_object_get(counts, s->target));

    json_object_set_new(counts, s->target, json_integer(count + 1));
    return true;
}

static json_t *count_targets(struct request *r)
{
    json_t *counts = json_object();

    tracker_each(r->control->tracker, count_at_target, counts);
    return counts;
}

static json_t *target_json(const struct store_target *t, const json_t *live)
{
    char *line = t->host_key_len
                     ? public_key_line(t->host_key_type, t->host_key, t->host_key_len, "")
                     : NULL;
    json_t *json = json_pack(
        "{s:s, s:s, s:o, s:o, s:s, s:b, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:I}", "name",
        t->name, "type", protocol_name(t->protocol), "address", control_json_text(t->address),
        "account", control_json_text_or_null(t->account), "auth", control_auth_name(t->auth),
        "hasSecret", (int)t->has_secret, "certificate", control_json_text_or_null(t->certificate),
        "via", control_json_text_or_null(t->via), "acceptNew", (int)t->accept_new, "hostKeyType",
        control_json_text_or_null(t->host_key_type), "hostKey",
        control_json_text_or_null(line ? line : ""), "hostKeyFingerprint",
        control_json_text_or_null(t->host_key_fingerprint), "policy",
        control_json_policy(t->policy), "created", control_json_time(t->created_wall_us),
        "sessions", json_integer_value(json_object_get(live, t->name)));

    free(line);
    return json;
}

static json_t *grant_json(const struct store_grant *g)
{
    return json_pack(
        "{s:o, s:s, s:s, s:o, s:o, s:o}", "id", control_json_id(g->id), "subject", g->subject,
        "target", g->target, "account", control_json_text_or_null(g->account), "policy",
        control_json_policy(g->policy), "created", control_json_time(g->created_wall_us));
}

/* ---- targets ---- */

static bool collect_target(const struct store_target *t, void *arg)
{
    struct target_rows *list = arg;

    if (list->protocol < 0 || list->protocol == (int)t->protocol)
        json_array_append_new(list->rows, target_json(t, list->live));
    return true;
}

void control_do_target_ls(struct request *r)
{
    const char *type = args_text(&r->parsed.args, "type");
    struct target_rows list = {.r = r,
                               .rows = json_array(),
                               .protocol = type ? protocol_from_name(type) : -1,
                               .live = count_targets(r)};
    int result = store_targets(r->control->store, collect_target, &list);

    json_decref(list.live);
    if (result == 0) {
        control_reply_rows(r, list.rows);
        return;
    }
    json_decref(list.rows);
    control_reply_store(r, result, "cannot list targets");
}

static void reply_target(struct request *r, const char *name)
{
    struct store_target t;
    int result = store_target_get(r->control->store, name, &t);
    json_t *live;

    if (result < 0) {
        control_reply_store(r, result, "cannot show the target");
        return;
    }
    live = count_targets(r);
    control_reply_data(r, target_json(&t, live));
    json_decref(live);
}

void control_do_target_show(struct request *r)
{
    reply_target(r, args_text(&r->parsed.args, "name"));
}

static int change_host_key(const char *line, struct store_target *t, struct failure *f)
{
    struct public_key key = {0};
    enum key_use use = t->protocol == PROTOCOL_RDP ? KEY_OF_TLS_HOST : KEY_OF_HOST;
    char err[256];

    if (line[0] && public_key_parse(line, use, &key, err, sizeof(err)) < 0) {
        failure_set(f, "invalid", "host_key: %s", err);
        return ERR_INVALID;
    }
    text_copy(t->host_key_type, sizeof(t->host_key_type), key.type);
    text_copy(t->host_key_fingerprint, sizeof(t->host_key_fingerprint), key.fingerprint);
    memcpy(t->host_key, key.blob, key.blob_len);
    t->host_key_len = key.blob_len;
    return 0;
}

static int change_address(const struct arg_values *values, struct store_target *t,
                          struct failure *f)
{
    const char *type = args_text(values, "type"), *address = args_text(values, "address");
    char normal[SESSION_ADDRESS_MAX], err[256];

    if (type)
        t->protocol = (enum protocol)protocol_from_name(type);
    if (!address)
        return 0;
    if (address_normalise(address, t->protocol, normal, err, sizeof(err)) < 0) {
        failure_set(f, "invalid", "address: %s", err);
        return ERR_INVALID;
    }
    text_copy(t->address, sizeof(t->address), normal);
    return 0;
}

/* A certificate belongs to a key, and goes with it. */
static int change_certificate(const struct arg_values *values, struct store_target *t,
                              bool has_new_key, struct failure *f)
{
    const char *line = args_text(values, "certificate");
    char err[256];

    if (line && line[0] && t->auth != TARGET_AUTH_KEY) {
        failure_set(f, "invalid", "certificate: only auth key has one");
        return ERR_INVALID;
    }
    if (line && line[0] &&
        certificate_check(line, t->certificate, sizeof(t->certificate), err, sizeof(err)) < 0) {
        failure_set(f, "invalid", "certificate: %s", err);
        return ERR_INVALID;
    }
    if (t->auth != TARGET_AUTH_KEY || (line && !line[0]) || (!line && has_new_key))
        t->certificate[0] = '\0';
    return 0;
}

static int change_via(const struct arg_values *values, struct store_target *t, struct failure *f)
{
    const char *via = args_text(values, "via");

    if (!via)
        return 0;
    if (via[0] && !text_is_name(via)) {
        failure_set(f, "invalid", "via: give the name of a target");
        return ERR_INVALID;
    }
    if (via[0] && t->protocol != PROTOCOL_SSH) {
        failure_set(f, "invalid", "via: only ssh targets are reached through another one");
        return ERR_INVALID;
    }
    text_copy(t->via, sizeof(t->via), via);
    return 0;
}

/* How to log in and the secret for it go together. */
static int change_login(const struct arg_values *values, bool from_document, struct store_target *t,
                        struct secret *secret, bool *has_change, struct failure *f)
{
    const char *text = args_text(values, "secret");
    const struct arg_value *auth = args_get(values, "auth");
    enum link_target_auth was = t->auth;
    char err[256];
    bool needs;

    if (auth->is_set)
        t->auth = (enum link_target_auth)auth->number; /* the choices stand in the enum's order */
    else if (text && text[0])
        t->auth = private_key_is(text) ? TARGET_AUTH_KEY : TARGET_AUTH_PASSWORD;
    else if (text || !t->name[0])
        t->auth = TARGET_AUTH_PASSTHROUGH;
    if (t->protocol == PROTOCOL_RDP &&
        (t->auth == TARGET_AUTH_KEY || t->auth == TARGET_AUTH_AGENT)) {
        failure_set(f, "invalid",
                    "auth: an rdp target takes password, prompt, passthrough or none");
        return ERR_INVALID;
    }
    if (t->protocol == PROTOCOL_SSH && t->auth == TARGET_AUTH_PROMPT) {
        failure_set(f, "invalid",
                    "auth: only an rdp target takes prompt; what an ssh target asks with "
                    "keyboard-interactive is asked of the user with any");
        return ERR_INVALID;
    }
    needs = t->auth == TARGET_AUTH_PASSWORD || t->auth == TARGET_AUTH_KEY;
    if (text && text[0] && !needs) {
        failure_set(f, "invalid", "secret: auth %s has no use for one", control_auth_name(t->auth));
        return ERR_INVALID;
    }
    if (needs && !from_document && !(text && text[0]) &&
        (text || !t->has_secret || was != t->auth)) {
        failure_set(f, "invalid", "secret: auth %s needs one", control_auth_name(t->auth));
        return ERR_INVALID;
    }
    if (text && text[0] && t->auth == TARGET_AUTH_KEY &&
        private_key_check(text, err, sizeof(err)) < 0) {
        failure_set(f, "invalid", "secret: %s", err);
        return ERR_INVALID;
    }
    if (text && t->auth == TARGET_AUTH_PASSWORD && (strlen(text) > 1024 || strchr(text, '\n'))) {
        failure_set(f, "invalid", "secret: a password is one line of at most 1024 bytes");
        return ERR_INVALID;
    }
    if (change_certificate(values, t, text && text[0], f) < 0)
        return ERR_INVALID;
    *has_change = text || ((!needs || was != t->auth) && t->has_secret);
    t->has_secret = text ? text[0] != '\0' : t->has_secret && !*has_change;
    return secret_set(secret, text ? text : "", text ? strlen(text) : 0) ? 0 : ERR_INVALID;
}

int control_target_change(const struct arg_values *values, bool from_document,
                          struct store_target *t, struct secret *secret, bool *has_secret_change,
                          struct failure *f)
{
    const char *account = args_text(values, "account"), *line = args_text(values, "host_key");
    const struct arg_value *policy = args_get(values, "policy");
    char policy_text[STORE_POLICY_TEXT_MAX];

    if (account && !strcmp(account, "*")) {
        failure_set(f, "invalid", "account: * is for grants; a target has one account or none");
        return ERR_INVALID;
    }
    if (account)
        text_copy(t->account, sizeof(t->account), account);
    if (args_get(values, "accept_new")->is_set)
        t->accept_new = args_flag(values, "accept_new");
    if (change_address(values, t, f) < 0 || change_via(values, t, f) < 0 ||
        (line && change_host_key(line, t, f) < 0))
        return ERR_INVALID;
    if (policy->is_set) {
        if (control_policy_text(from_document ? NULL : t->policy, policy->json, policy_text, f) < 0)
            return ERR_INVALID;
        text_copy(t->policy, sizeof(t->policy), policy_text);
    }
    return change_login(values, from_document, t, secret, has_secret_change, f);
}

/* For the event: what a target is now, without its secret. */
static void trace_target(struct request *r, const char *kind, const struct store_target *t,
                         bool has_secret_change)
{
    control_event(r, kind, "", 0, "target %s %s %s account %s auth %s%s%s%s%s host key %s%s%s%s",
                  t->name, protocol_name(t->protocol), t->address, t->account[0] ? t->account : "-",
                  control_auth_name(t->auth), has_secret_change ? " secret changed" : "",
                  t->certificate[0] ? " with certificate" : "", t->via[0] ? " via " : "", t->via,
                  t->host_key_len ? t->host_key_fingerprint : "none",
                  t->accept_new ? " accept-new" : "", t->policy[0] ? " policy " : "", t->policy);
}

static void save_target(struct request *r, struct store_target *t, bool is_new)
{
    struct store *store = r->control->store;
    struct secret secret = {0};
    struct failure f;
    bool has_secret_change = false;
    json_t *changes;
    int result;

    if (control_target_change(&r->parsed.args, false, t, &secret, &has_secret_change, &f) < 0) {
        secret_wipe(&secret);
        control_reply_failure(r, &f);
        return;
    }
    text_copy(t->name, sizeof(t->name), args_text(&r->parsed.args, "name"));
    changes = json_pack("{s:s}", t->name, t->via);
    result = t->via[0] ? control_check_vias(r->control, changes, &f) : 0;
    json_decref(changes);
    if (result < 0) {
        secret_wipe(&secret);
        control_reply_failure(r, &f);
        return;
    }
    result = is_new ? store_target_add(store, t, has_secret_change ? &secret : NULL)
                    : store_target_set(store, t, has_secret_change ? &secret : NULL);
    secret_wipe(&secret);
    if (result < 0) {
        control_reply_store(r, result, "cannot %s the target", is_new ? "add" : "set");
        return;
    }
    trace_target(r, is_new ? "target-add" : "target-set", t, has_secret_change);
    reply_target(r, t->name);
    control_access_changed(r);
}

void control_do_target_add(struct request *r)
{
    struct store_target t = {0}; /* its name is filled in last: "" says that it is new */

    save_target(r, &t, true);
}

void control_do_target_set(struct request *r)
{
    struct store_target t;
    int result = store_target_get(r->control->store, args_text(&r->parsed.args, "name"), &t);

    if (result < 0)
        control_reply_store(r, result, "cannot set the target");
    else
        save_target(r, &t, false);
}

void control_do_target_rm(struct request *r)
{
    const char *name = args_text(&r->parsed.args, "name");
    int result = store_target_remove(r->control->store, name);

    if (result < 0) {
        control_reply_store(r, result, "cannot remove the target");
        return;
    }
    control_event(r, "target-rm", "", 0, "target %s", name);
    control_reply_data(r, json_object());
    control_access_changed(r);
}

/* ---- grants ---- */

struct grant_rows {
    json_t *rows;
    const char *subject, *target; /* NULL any */
    uint64_t id;                  /* 0 any */
    struct store_grant last;
};

static bool collect_grant(const struct store_grant *g, void *arg)
{
    struct grant_rows *list = arg;

    if ((!list->subject || !strcmp(list->subject, g->subject)) &&
        (!list->target || !strcmp(list->target, g->target)) && (!list->id || list->id == g->id)) {
        json_array_append_new(list->rows, grant_json(g));
        list->last = *g;
    }
    return true;
}

void control_do_grant_ls(struct request *r)
{
    struct grant_rows list = {.rows = json_array(),
                              .subject = args_text(&r->parsed.args, "subject"),
                              .target = args_text(&r->parsed.args, "target")};
    int result = store_grants(r->control->store, collect_grant, &list);

    if (result == 0) {
        control_reply_rows(r, list.rows);
        return;
    }
    json_decref(list.rows);
    control_reply_store(r, result, "cannot list grants");
}

void control_do_grant_add(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    const char *account = args_text(args, "account");
    struct grant_rows list = {.rows = json_array()};
    struct store_grant g = {0};
    struct failure f;
    int result;

    text_copy(g.subject, sizeof(g.subject), args_text(args, "subject"));
    text_copy(g.target, sizeof(g.target), args_text(args, "target"));
    text_copy(g.account, sizeof(g.account), account ? account : "");
    if (control_policy_text(NULL, args_get(args, "policy")->json, g.policy, &f) < 0) {
        json_decref(list.rows);
        control_reply_failure(r, &f);
        return;
    }
    result = store_grant_add(r->control->store, &g, &list.id);
    if (result == 0)
        result = store_grants(r->control->store, collect_grant, &list);
    if (result < 0) {
        control_reply_store(r, result, "cannot add the grant");
    } else {
        control_event(r, "grant-add", g.subject[0] == '@' ? "" : g.subject, 0,
                      "grant %llu: %s may reach %s as %s%s%s", (unsigned long long)list.id,
                      g.subject, g.target, g.account[0] ? g.account : "its account",
                      g.policy[0] ? ", policy " : "", g.policy);
        control_reply_data(r, json_incref(json_array_get(list.rows, 0)));
        control_access_changed(r);
    }
    json_decref(list.rows);
}

void control_do_grant_rm(struct request *r)
{
    struct grant_rows list = {.rows = json_array(), .id = args_get(&r->parsed.args, "id")->number};
    int result = store_grants(r->control->store, collect_grant, &list);

    json_decref(list.rows);
    if (result == 0)
        result = store_grant_remove(r->control->store, list.id);
    if (result < 0) {
        control_reply_store(r, result, "cannot remove the grant");
        return;
    }
    control_event(r, "grant-rm", list.last.subject[0] == '@' ? "" : list.last.subject, 0,
                  "grant %llu: %s to %s", (unsigned long long)list.id, list.last.subject,
                  list.last.target);
    control_reply_data(r, json_object());
    control_access_changed(r);
}
