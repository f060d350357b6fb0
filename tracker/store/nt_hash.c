/*
 * NLA at the RDP door: whether a user may, and his NT hash, a secret as good as his password. A
 * trigger of the schema forgets it whenever the password changes. What the hash is, is
 * tracker/nt_hash.c's business.
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#define HASH_PLACE "users", "nt_hash"

static int set(struct store *s, uint64_t id, const char *name, bool is_on)
{
    struct query q = query_start(s, SQL_USER_SET_NLA);
    int r;

    query_text(&q, 1, name);
    query_int(&q, 2, is_on);
    r = query_run(&q, NULL);
    return r || is_on ? r : secret_remove(s, HASH_PLACE, id);
}

int store_user_set_nla(struct store *s, const char *name, bool is_on)
{
    struct store_user user;
    int r = store_user_get(s, name, &user);

    if (r)
        return r;
    if (is_on && strcmp(user.auth_source, "pam") == 0)
        return store_fail(s, ERR_INVALID,
                          "the system checks the password of \"%s\" (auth_source pam): NLA needs "
                          "one that is kept here",
                          name);
    r = store_begin(s);
    return r ? r : store_finish(s, set(s, user.id, name, is_on));
}

int store_user_set_nt_hash(struct store *s, const char *name, const uint8_t hash[STORE_NT_HASH_LEN])
{
    struct store_user user;
    struct secret secret;
    int r = store_user_get(s, name, &user);

    if (r)
        return r;
    if (!user.has_nla)
        return store_fail(s, ERR_INVALID, "NLA is off for \"%s\"", name);
    (void)secret_set(&secret, hash, STORE_NT_HASH_LEN);
    r = store_begin(s);
    if (r == 0)
        r = store_finish(s, secret_put(s, HASH_PLACE, user.id, &secret));
    secret_wipe(&secret);
    return r;
}

int store_user_nt_hash(struct store *s, const char *name, uint8_t hash[STORE_NT_HASH_LEN])
{
    struct store_user user = {.id = 0};
    struct secret secret = {.len = 0};
    int r = store_user_get(s, name, &user);

    if (r == 0)
        r = user.has_nla ? secret_get(s, HASH_PLACE, user.id, &secret) : ERR_NOT_FOUND;
    if (r == 0 && secret.len != STORE_NT_HASH_LEN)
        r = store_fail(s, ERR_CORRUPT, "the NT hash of \"%s\" is none", name);
    if (r == 0) {
        memcpy(hash, secret.data, STORE_NT_HASH_LEN);
    } else {
        memset(hash, 0, STORE_NT_HASH_LEN);
        (void)secret_set(&secret, hash, STORE_NT_HASH_LEN);
        secret_get_none(s, &secret);
    }
    secret_wipe(&secret);
    return r;
}

enum store_nla store_nla_hint(struct store *s, const char *name, bool is_prefix)
{
    struct query q = query_start(s, SQL_NLA_HINT);
    enum store_nla hint = STORE_NLA_UNKNOWN;

    query_text(&q, 1, name);
    query_int(&q, 2, is_prefix);
    if (query_next(&q) != 1)
        return STORE_NLA_UNKNOWN;
    if (row_int(&q, 0) > 0)
        hint = row_int(&q, 1) ? STORE_NLA_YES : STORE_NLA_NO;
    query_end(&q);
    return hint;
}
