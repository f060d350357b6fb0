/*
 * Grants, and the question they answer: what may this user do there, as whom, under which policy.
 * Fails closed: what cannot be read is refused. Called by control (rows) and by the broker for each
 * login (store_resolve, store_reachable).
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

/* ---- rows ---- */

/* A grant with its names looked up. */
struct grant_ids {
    bool is_role;
    uint64_t user_id;   /* unless is_role */
    const char *role;   /* when is_role; borrowed */
    uint64_t target_id; /* 0: every target */
};

static int look_up(struct store *s, const struct store_grant *g, struct grant_ids *ids)
{
    struct store_role role;
    int r;

    memset(ids, 0, sizeof(*ids));
    ids->is_role = g->subject[0] == '@';
    ids->role = g->subject + 1;
    r = ids->is_role ? store_role_get(s, ids->role, &role)
                     : store_user_id(s, g->subject, &ids->user_id);
    if (r == 0 && strcmp(g->target, "*") != 0)
        r = store_target_id(s, g->target, &ids->target_id);
    return r;
}

static int insert_grant(struct store *s, const struct grant_ids *ids, const char *account,
                        const char *policy)
{
    struct query q = query_start(s, SQL_GRANT_ADD);

    if (ids->is_role) {
        query_null(&q, 1);
        query_text(&q, 2, ids->role);
    } else {
        query_int(&q, 1, (int64_t)ids->user_id);
        query_null(&q, 2);
    }
    if (ids->target_id)
        query_int(&q, 3, (int64_t)ids->target_id);
    else
        query_null(&q, 3);
    query_text(&q, 4, account);
    query_text(&q, 5, policy);
    query_int(&q, 6, clock_wall_us());
    return query_run(&q, NULL);
}

int store_grant_add(struct store *s, const struct store_grant *g, uint64_t *id)
{
    char policy[STORE_POLICY_TEXT_MAX];
    struct grant_ids ids;
    int r;

    if (g->account[0] && !text_is_account(g->account))
        return store_fail(s, ERR_INVALID,
                          "an account is 1 to 128 bytes without '+' and control characters");
    r = store_policy_text(s, g->policy, policy);
    if (r == 0)
        r = look_up(s, g, &ids);
    if (r == 0)
        r = insert_grant(s, &ids, g->account, policy);
    if (r == ERR_EXISTS)
        return store_fail(s, r,
                          "%s has a grant for target %s and this account already: remove it to "
                          "change its policy",
                          g->subject, g->target);
    if (r == 0 && id)
        *id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return r;
}

int store_grants(struct store *s, store_grant_fn fn, void *arg)
{
    struct query q = query_start(s, SQL_GRANTS);
    struct store_grant g;
    int r;

    while ((r = query_next(&q)) == 1) {
        memset(&g, 0, sizeof(g));
        g.id = row_u64(&q, 0);
        row_text(&q, 1, g.subject, sizeof(g.subject));
        row_text(&q, 2, g.target, sizeof(g.target));
        row_text(&q, 3, g.account, sizeof(g.account));
        row_text(&q, 4, g.policy, sizeof(g.policy));
        g.created_wall_us = row_int(&q, 5);
        if (!fn(&g, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_grant_remove(struct store *s, uint64_t id)
{
    struct query q = query_start(s, SQL_GRANT_REMOVE);
    int64_t changes;
    int r;

    query_int(&q, 1, (int64_t)id);
    r = query_run(&q, &changes);
    if (r == 0 && changes == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no grant %llu", (unsigned long long)id);
    return r;
}

int store_grant_set_policy(struct store *s, uint64_t id, const char *policy)
{
    char text[STORE_POLICY_TEXT_MAX];
    struct query q;
    int64_t changes;
    int r = store_policy_text(s, policy, text);

    if (r)
        return r;
    q = query_start(s, SQL_GRANT_SET_POLICY);
    query_int(&q, 1, (int64_t)id);
    query_text(&q, 2, text);
    r = query_run(&q, &changes);
    if (r == 0 && changes == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no grant %llu", (unsigned long long)id);
    return r;
}

/* ---- resolving ---- */

/* A user who may be let in at all. */
static int get_usable_user(struct store *s, const char *name, struct store_user *user)
{
    int r = store_user_get(s, name, user);

    if (r == 0 && user->is_locked)
        return store_fail(s, ERR_DENIED, "user \"%s\" is locked", name);
    return r;
}

/* The account of a login that names none: the grant's, else the target's, else the user's name. */
static const char *default_account(const char *grant, const char *target, const char *user)
{
    if (grant[0] && strcmp(grant, "*") != 0)
        return grant;
    return target[0] ? target : user;
}

/* The grant that counts: its account and policy. ERR_DENIED when none fits. */
static int find_grant(struct store *s, const struct store_user *user, const char *account,
                      const struct store_target *target, struct store_grant *out)
{
    struct query q = query_start(s, SQL_RESOLVE);
    int r;

    query_int(&q, 1, (int64_t)user->id);
    query_text(&q, 2, user->role);
    query_int(&q, 3, (int64_t)target->id);
    query_text(&q, 4, account);
    query_text(&q, 5, default_account("", target->account, user->name));
    r = query_next(&q);
    if (r == 0)
        return store_fail(s, ERR_DENIED, "no grant lets \"%s\" reach \"%s\" as \"%s\"", user->name,
                          target->name, account);
    if (r < 0)
        return r;
    row_text(&q, 0, out->account, sizeof(out->account));
    row_text(&q, 1, out->policy, sizeof(out->policy));
    query_end(&q);
    return 0;
}

/* Lay role, target and grant over *policy, all or nothing. */
static int overlay_policies(struct store *s, const char *role_name,
                            const struct store_target *target, const struct store_grant *grant,
                            struct policy *policy)
{
    struct policy result = *policy;
    struct store_role role;
    int r = store_role_get(s, role_name, &role);

    if (r == 0)
        r = store_policy_apply(s, role.policy, "role", &result);
    if (r == 0)
        r = store_policy_apply(s, target->policy, "target", &result);
    if (r == 0)
        r = store_policy_apply(s, grant->policy, "grant", &result);
    if (r == 0)
        *policy = result;
    return r;
}

int store_resolve(struct store *s, const char *user, const char *account, const char *target,
                  enum protocol protocol, struct policy *policy, struct store_target *out,
                  char account_out[ACCOUNT_MAX_LEN + 1])
{
    struct store_grant grant = {.id = 0};
    struct store_user who;
    int r = get_usable_user(s, user, &who);

    account_out[0] = '\0';
    if (r == 0)
        r = store_target_get(s, target, out);
    if (r == 0 && out->protocol != protocol)
        r = store_fail(s, ERR_NOT_FOUND, "target \"%s\" is not reached by %s", target,
                       protocol_name(protocol));
    if (r == 0)
        r = find_grant(s, &who, account, out, &grant);
    if (r == 0)
        r = overlay_policies(s, who.role, out, &grant, policy);
    if (r == 0)
        (void)text_copy(account_out, ACCOUNT_MAX_LEN + 1,
                        account[0] ? account
                                   : default_account(grant.account, out->account, who.name));
    return r;
}

int store_reachable(struct store *s, const char *user, enum protocol protocol, store_reach_fn fn,
                    void *arg)
{
    char name[NAME_MAX_LEN + 1], target_account[ACCOUNT_MAX_LEN + 1];
    char grant_account[ACCOUNT_MAX_LEN + 1];
    struct link_target_row row = {.target = ""};
    struct store_user who;
    struct query q;
    int r = get_usable_user(s, user, &who);

    if (r)
        return r;
    q = query_start(s, SQL_REACHABLE);
    query_int(&q, 1, (int64_t)who.id);
    query_text(&q, 2, who.role);
    query_text(&q, 3, protocol_name(protocol));
    query_text(&q, 4, who.name);
    while ((r = query_next(&q)) == 1) {
        row_text(&q, 0, name, sizeof(name));
        if (strcmp(name, row.target) == 0)
            continue; /* the first grant of a target is the one that counts */
        row_text(&q, 1, target_account, sizeof(target_account));
        row_text(&q, 2, grant_account, sizeof(grant_account));
        (void)text_copy(row.target, sizeof(row.target), name);
        (void)text_copy(row.account, sizeof(row.account),
                        default_account(grant_account, target_account, who.name));
        row.last_used_wall_us = row_int(&q, 3);
        if (!fn(&row, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}
