/*
 * Users, their public keys and their roles. Checks what a row may hold; whether a caller may change
 * it is control's business. Called by control and by the broker's authentication.
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

/* ---- small helpers ---- */

static int no_user(struct store *s, const char *name)
{
    return store_fail(s, ERR_NOT_FOUND, "there is no user \"%s\"", name);
}

static int no_role(struct store *s, const char *name)
{
    return store_fail(s, ERR_NOT_FOUND, "there is no role \"%s\"", name);
}

static int bad_name(struct store *s, const char *what, const char *name)
{
    return store_fail(s, ERR_INVALID,
                      "\"%s\" cannot be the name of a %s: use A-Z a-z 0-9 . _ -, at most %d bytes",
                      name, what, NAME_MAX_LEN);
}

/* Run a statement that must change the row of this user. */
static int run_on_user(struct store *s, struct query *q, const char *name)
{
    int64_t changes;
    int r = query_run(q, &changes);

    return r == 0 && changes == 0 ? no_user(s, name) : r;
}

static void read_user(const struct query *q, struct store_user *u)
{
    memset(u, 0, sizeof(*u));
    u->id = row_u64(q, 0);
    row_text(q, 1, u->name, sizeof(u->name));
    row_text(q, 2, u->role, sizeof(u->role));
    u->is_locked = row_int(q, 3) != 0;
    u->has_password = row_int(q, 4) != 0;
    u->local_uid = row_int(q, 5);
    u->key_count = (uint32_t)row_int(q, 6);
    u->created_wall_us = row_int(q, 7);
    u->last_login_wall_us = row_int(q, 8);
    row_text(q, 9, u->second_factor, sizeof(u->second_factor));
    row_text(q, 10, u->auth_source, sizeof(u->auth_source));
    row_text(q, 11, u->cert_principals, sizeof(u->cert_principals));
    u->totp_wall_us = row_int(q, 12);
    u->recovery_count = (uint32_t)row_int(q, 13);
    u->has_nla = row_int(q, 14) != 0;
    u->has_nt_hash = row_int(q, 15) != 0;
}

/* The one row of a query; 0, or ERR_NOT_FOUND without a sentence. */
static int get_user(struct query *q, struct store_user *out)
{
    int r = query_next(q);

    if (r == 1) {
        read_user(q, out);
        query_end(q);
        return 0;
    }
    return r == 0 ? ERR_NOT_FOUND : r;
}

/* ---- users ---- */

int store_user_add(struct store *s, const char *name, const char *role)
{
    struct query q;
    int r;

    if (!text_is_name(name))
        return bad_name(s, "user", name);
    q = query_start(s, SQL_USER_ADD);
    query_text(&q, 1, name);
    query_text(&q, 2, role);
    query_int(&q, 3, clock_wall_us());
    r = query_run(&q, NULL);
    if (r == ERR_EXISTS)
        return store_fail(s, r, "there is a user \"%s\" already", name);
    return r == ERR_NOT_FOUND ? no_role(s, role) : r;
}

int store_user_get(struct store *s, const char *name, struct store_user *out)
{
    struct query q;
    int r;

    (void)queue_flush(s, false); /* logins are queued */
    q = query_start(s, SQL_USER_GET);
    query_text(&q, 1, name);
    r = get_user(&q, out);
    return r == ERR_NOT_FOUND ? no_user(s, name) : r;
}

int store_user_by_uid(struct store *s, int64_t uid, struct store_user *out)
{
    struct query q = query_start(s, SQL_USER_BY_UID);
    int r;

    query_int(&q, 1, uid);
    r = get_user(&q, out);
    if (r == ERR_NOT_FOUND)
        return store_fail(s, r, "no user is linked to local uid %lld", (long long)uid);
    return r;
}

int store_users(struct store *s, store_user_fn fn, void *arg)
{
    struct store_user user;
    struct query q;
    int r;

    (void)queue_flush(s, false);
    q = query_start(s, SQL_USERS);
    while ((r = query_next(&q)) == 1) {
        read_user(&q, &user);
        if (!fn(&user, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_user_id(struct store *s, const char *name, uint64_t *id)
{
    struct store_user user;
    struct query q = query_start(s, SQL_USER_GET);
    int r;

    *id = 0; /* no row has it */
    query_text(&q, 1, name);
    r = get_user(&q, &user);
    if (r == 0)
        *id = user.id;
    return r == ERR_NOT_FOUND ? no_user(s, name) : r;
}

int store_user_remove(struct store *s, const char *name)
{
    struct query q = query_start(s, SQL_USER_REMOVE);

    query_text(&q, 1, name);
    return run_on_user(s, &q, name);
}

int store_user_set_role(struct store *s, const char *name, const char *role)
{
    struct query q = query_start(s, SQL_USER_SET_ROLE);
    int64_t changes;
    int r;

    query_text(&q, 1, name);
    query_text(&q, 2, role);
    r = query_run(&q, &changes);
    if (r == ERR_NOT_FOUND)
        return no_role(s, role);
    return r == 0 && changes == 0 ? no_user(s, name) : r;
}

int store_user_set_locked(struct store *s, const char *name, bool locked)
{
    struct query q = query_start(s, SQL_USER_SET_LOCKED);

    query_text(&q, 1, name);
    query_int(&q, 2, locked);
    return run_on_user(s, &q, name);
}

int store_user_set_uid(struct store *s, const char *name, int64_t uid)
{
    struct query q;
    int r;

    if (uid < -1 || uid >= (int64_t)UINT32_MAX) /* (uid_t)-1 means none */
        return store_fail(s, ERR_INVALID, "%lld is not a local uid", (long long)uid);
    q = query_start(s, SQL_USER_SET_UID);
    query_text(&q, 1, name);
    if (uid < 0)
        query_null(&q, 2);
    else
        query_int(&q, 2, uid);
    r = run_on_user(s, &q, name);
    if (r == ERR_EXISTS)
        return store_fail(s, r, "local uid %lld is linked to another user", (long long)uid);
    return r;
}

int store_user_set_hash(struct store *s, const char *name, const char *hash)
{
    struct query q;

    if (!hash)
        hash = ""; /* no password from now on */
    if (strlen(hash) >= STORE_HASH_MAX)
        return store_fail(s, ERR_INVALID, "the password hash is too long");
    q = query_start(s, SQL_USER_SET_HASH);
    query_text(&q, 1, name);
    query_text(&q, 2, hash);
    return run_on_user(s, &q, name);
}

int store_user_hash(struct store *s, const char *name, char hash[STORE_HASH_MAX])
{
    struct query q = query_start(s, SQL_USER_HASH);
    int r;

    hash[0] = '\0';
    query_text(&q, 1, name);
    r = query_next(&q);
    if (r == 0)
        return store_fail(s, ERR_NOT_FOUND, "\"%s\" has no password", name);
    if (r < 0)
        return r;
    row_text(&q, 0, hash, STORE_HASH_MAX);
    query_end(&q);
    return 0;
}

void store_user_logged_in(struct store *s, const char *name, int64_t wall_us)
{
    struct history_entry entry = {.kind = HISTORY_LOGIN};

    (void)text_copy(entry.login.name, sizeof(entry.login.name), name);
    entry.login.wall_us = wall_us;
    queue_push(s, &entry);
}

/* ---- public keys ---- */

int store_key_add(struct store *s, const char *user, const char *type, const uint8_t *blob,
                  size_t blob_len, const char *fingerprint, const char *comment)
{
    struct store_key limits;
    struct query q;
    uint64_t id;
    int r;

    if (blob_len == 0 || blob_len > LINK_KEY_MAX || !type[0] || !fingerprint[0] ||
        strlen(type) >= sizeof(limits.type) || strlen(fingerprint) >= sizeof(limits.fingerprint) ||
        strlen(comment) >= sizeof(limits.comment))
        return store_fail(s, ERR_INVALID,
                          "the public key, its type or its comment is empty or too long");
    r = store_user_id(s, user, &id);
    if (r)
        return r;
    q = query_start(s, SQL_KEY_ADD);
    query_int(&q, 1, (int64_t)id);
    query_text(&q, 2, type);
    query_bytes(&q, 3, blob, blob_len);
    query_text(&q, 4, fingerprint);
    query_text(&q, 5, comment);
    query_int(&q, 6, clock_wall_us());
    r = query_run(&q, NULL);
    return r == ERR_EXISTS ? store_fail(s, r, "\"%s\" has the key %s already", user, fingerprint)
                           : r;
}

int store_keys(struct store *s, const char *user, store_key_fn fn, void *arg)
{
    struct store_key key;
    struct query q;
    size_t blob_len;
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    q = query_start(s, SQL_KEYS);
    query_text(&q, 1, user);
    while ((r = query_next(&q)) == 1) {
        memset(&key, 0, sizeof(key));
        key.id = row_u64(&q, 0);
        row_text(&q, 1, key.user, sizeof(key.user));
        row_text(&q, 2, key.type, sizeof(key.type));
        row_text(&q, 3, key.fingerprint, sizeof(key.fingerprint));
        row_text(&q, 4, key.comment, sizeof(key.comment));
        key.added_wall_us = row_int(&q, 5);
        if (!row_bytes(&q, 6, key.blob, sizeof(key.blob), &blob_len)) {
            query_end(&q);
            return store_fail(s, ERR_CORRUPT, "key %llu of \"%s\" is too long",
                              (unsigned long long)key.id, user);
        }
        key.blob_len = (uint16_t)blob_len;
        if (!fn(&key, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_key_remove(struct store *s, const char *user, const char *which)
{
    struct query q;
    int64_t changes;
    uint64_t user_id, id;
    int r = store_user_id(s, user, &user_id);

    if (r)
        return r;
    if (!text_parse_u64(which, &id) || id > INT64_MAX)
        id = 0; /* no row has it */
    q = query_start(s, SQL_KEY_REMOVE);
    query_int(&q, 1, (int64_t)user_id);
    query_int(&q, 2, (int64_t)id);
    query_text(&q, 3, which);
    r = query_run(&q, &changes);
    if (r == 0 && changes == 0)
        return store_fail(s, ERR_NOT_FOUND, "\"%s\" has no key \"%s\"", user, which);
    return r;
}

int store_key_check(struct store *s, const char *user, const uint8_t *blob, size_t len)
{
    struct query q = query_start(s, SQL_KEY_CHECK);
    int r;

    query_text(&q, 1, user);
    query_bytes(&q, 2, blob, len);
    r = query_next(&q);
    if (r == 1) {
        query_end(&q);
        return 0;
    }
    return r == 0 ? store_fail(s, ERR_NOT_FOUND, "this key opens nothing for \"%s\"", user) : r;
}

/* ---- roles ---- */

static void read_role(const struct query *q, struct store_role *role)
{
    memset(role, 0, sizeof(*role));
    row_text(q, 0, role->name, sizeof(role->name));
    row_text(q, 1, role->policy, sizeof(role->policy));
    role->is_builtin = row_int(q, 2) != 0;
    row_text(q, 3, role->second_factor, sizeof(role->second_factor));
}

int store_role_add(struct store *s, const char *name)
{
    struct query q;
    int r;

    if (!text_is_name(name))
        return bad_name(s, "role", name);
    q = query_start(s, SQL_ROLE_ADD);
    query_text(&q, 1, name);
    r = query_run(&q, NULL);
    return r == ERR_EXISTS ? store_fail(s, r, "there is a role \"%s\" already", name) : r;
}

int store_role_get(struct store *s, const char *name, struct store_role *out)
{
    struct query q = query_start(s, SQL_ROLE_GET);
    int r;

    query_text(&q, 1, name);
    r = query_next(&q);
    if (r == 0)
        return no_role(s, name);
    if (r < 0)
        return r;
    read_role(&q, out);
    query_end(&q);
    return 0;
}

int store_roles(struct store *s, store_role_fn fn, void *arg)
{
    struct query q = query_start(s, SQL_ROLES);
    struct store_role role;
    int r;

    while ((r = query_next(&q)) == 1) {
        read_role(&q, &role);
        if (!fn(&role, arg)) {
            query_end(&q);
            return 0;
        }
    }
    return r;
}

int store_role_set_policy(struct store *s, const char *name, const char *policy)
{
    char text[STORE_POLICY_TEXT_MAX];
    struct query q;
    int64_t changes;
    int r = store_policy_text(s, policy, text);

    if (r)
        return r;
    q = query_start(s, SQL_ROLE_SET_POLICY);
    query_text(&q, 1, name);
    query_text(&q, 2, text);
    r = query_run(&q, &changes);
    return r == 0 && changes == 0 ? no_role(s, name) : r;
}

int store_role_remove(struct store *s, const char *name)
{
    struct store_role role;
    struct query q;
    int r = store_role_get(s, name, &role);

    if (r)
        return r;
    if (role.is_builtin)
        return store_fail(s, ERR_INVALID, "the role \"%s\" is built in and stays", name);
    q = query_start(s, SQL_ROLE_REMOVE);
    query_text(&q, 1, name);
    r = query_run(&q, NULL);
    if (r == ERR_NOT_FOUND) /* users or grants refer to it */
        return store_fail(s, ERR_BUSY,
                          "the role \"%s\" is in use: give its users another role and remove its "
                          "grants first",
                          name);
    return r;
}
