/*
 * How users log in beyond a password and keys: who checks it, certificates' principals, the second
 * factor with its key, the last time step that was used, and recovery codes. It keeps; what a code
 * is, is tracker/factor.c's business.
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define KEY_PLACE     "users", "totp"
#define NEW_KEY_PLACE "users", "totp_new"

static bool is_factor(const char *text)
{
    return text[0] == '\0' || strcmp(text, "no") == 0 || strcmp(text, "totp") == 0;
}

/* One column of one named row. */
static int set_text(struct store *s, enum statement id, const char *what, const char *name,
                    const char *text)
{
    struct query q = query_start(s, id);
    int64_t changes;
    int r;

    query_text(&q, 1, name);
    query_text(&q, 2, text);
    r = query_run(&q, &changes);
    if (r == 0 && changes == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no %s \"%s\"", what, name);
    return r;
}

int store_user_set_second_factor(struct store *s, const char *name, const char *factor)
{
    if (!is_factor(factor))
        return store_fail(s, ERR_INVALID, "\"%s\" is no second factor: no or totp", factor);
    return set_text(s, SQL_USER_SET_FACTOR, "user", name, factor);
}

int store_role_set_second_factor(struct store *s, const char *name, const char *factor)
{
    if (!is_factor(factor))
        return store_fail(s, ERR_INVALID, "\"%s\" is no second factor: no or totp", factor);
    return set_text(s, SQL_ROLE_SET_FACTOR, "role", name, factor);
}

int store_user_set_auth_source(struct store *s, const char *name, const char *source)
{
    struct store_user user;

    if (strcmp(source, "pam") == 0 && store_user_get(s, name, &user) == 0 && user.has_nla)
        return store_fail(
            s, ERR_INVALID,
            "NLA is on for \"%s\", which the system's passwords cannot do: set rdp_nla "
            "off first",
            name);
    if (strcmp(source, "local") != 0 && strcmp(source, "pam") != 0)
        return store_fail(s, ERR_INVALID, "\"%s\" checks no passwords: local or pam", source);
    return set_text(s, SQL_USER_SET_SOURCE, "user", name, source);
}

bool store_is_principals(const char *list)
{
    size_t word = 0;

    if (!list[0])
        return true;
    if (strlen(list) >= STORE_PRINCIPALS_MAX)
        return false;
    for (const char *at = list; *at; at++) {
        unsigned char byte = (unsigned char)*at;

        if (byte <= ' ' || byte == 0x7f || (byte == ',' && !word))
            return false;
        word = byte == ',' ? 0 : word + 1;
    }
    return word > 0;
}

int store_user_set_principals(struct store *s, const char *name, const char *list)
{
    if (!store_is_principals(list))
        return store_fail(s, ERR_INVALID,
                          "principals are words with commas between them and without blanks, "
                          "at most %d bytes",
                          STORE_PRINCIPALS_MAX - 1);
    return set_text(s, SQL_USER_SET_PRINCIPALS, "user", name, list);
}

int store_factor_get(struct store *s, const char *user, struct store_factor *out)
{
    struct query q = query_start(s, SQL_FACTOR_GET);
    char own[8], role[8];
    int r;

    *out = (struct store_factor){true, false}; /* whoever does not look at the result is denied */
    query_text(&q, 1, user);
    r = query_next(&q);
    if (r == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no user \"%s\"", user);
    if (r < 0)
        return r;
    row_text(&q, 0, own, sizeof(own));
    row_text(&q, 1, role, sizeof(role));
    out->is_enrolled = row_int(&q, 2) != 0;
    query_end(&q);
    out->is_required = strcmp(own[0] ? own : role, "totp") == 0;
    return 0;
}

/* ---- the key ---- */

int store_totp_prepare(struct store *s, const char *user, const struct secret *key)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    r = store_begin(s);
    return r ? r : store_finish(s, secret_put(s, NEW_KEY_PLACE, id, key));
}

int store_totp_prepared(struct store *s, const char *user, struct secret *key)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    return r ? r : secret_get(s, NEW_KEY_PLACE, id, key);
}

int store_totp_key(struct store *s, const char *user, struct secret *key)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    return r ? r : secret_get(s, KEY_PLACE, id, key);
}

static int set_totp(struct store *s, uint64_t id, int64_t wall_us, uint64_t step)
{
    struct query q = query_start(s, SQL_TOTP_SET);

    query_int(&q, 1, (int64_t)id);
    query_int(&q, 2, wall_us);
    query_int(&q, 3, (int64_t)step);
    return query_run(&q, NULL);
}

static int clear_codes(struct store *s, uint64_t id)
{
    struct query q = query_start(s, SQL_RECOVERY_CLEAR);

    query_int(&q, 1, (int64_t)id);
    return query_run(&q, NULL);
}

static int put_codes(struct store *s, uint64_t id, const struct store_recovery *codes)
{
    int r = clear_codes(s, id);

    for (size_t i = 0; r == 0 && i < STORE_RECOVERY_COUNT; i++) {
        struct query q = query_start(s, SQL_RECOVERY_ADD);

        query_int(&q, 1, (int64_t)id);
        query_bytes(&q, 2, codes->hashes[i], STORE_RECOVERY_HASH);
        r = query_run(&q, NULL);
    }
    return r;
}

static int enable(struct store *s, uint64_t id, const struct secret *key, uint64_t step,
                  const struct store_recovery *codes)
{
    int r = secret_put(s, KEY_PLACE, id, key);

    if (r == 0)
        r = secret_remove(s, NEW_KEY_PLACE, id);
    if (r == 0)
        r = set_totp(s, id, clock_wall_us(), step);
    return r ? r : put_codes(s, id, codes);
}

int store_totp_enable(struct store *s, const char *user, const struct secret *key, uint64_t step,
                      const struct store_recovery *codes)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    r = store_begin(s);
    return r ? r : store_finish(s, enable(s, id, key, step, codes));
}

static int disable(struct store *s, uint64_t id)
{
    int r = secret_remove(s, KEY_PLACE, id);

    if (r == 0)
        r = secret_remove(s, NEW_KEY_PLACE, id);
    if (r == 0)
        r = set_totp(s, id, 0, 0);
    return r ? r : clear_codes(s, id);
}

int store_totp_disable(struct store *s, const char *user)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    r = store_begin(s);
    return r ? r : store_finish(s, disable(s, id));
}

/* ---- use, once ---- */

int store_totp_use(struct store *s, const char *user, uint64_t step)
{
    struct query q;
    int64_t changes;
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    q = query_start(s, SQL_TOTP_USE);
    query_int(&q, 1, (int64_t)id);
    query_int(&q, 2, (int64_t)step);
    r = query_run(&q, &changes);
    return r == 0 && changes == 0 ? store_fail(s, ERR_EXISTS, "this code was used before") : r;
}

int store_recovery_set(struct store *s, const char *user, const struct store_recovery *codes)
{
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    r = store_begin(s);
    return r ? r : store_finish(s, put_codes(s, id, codes));
}

int store_recovery_use(struct store *s, const char *user, const uint8_t hash[STORE_RECOVERY_HASH])
{
    struct query q;
    int64_t changes;
    uint64_t id;
    int r = store_user_id(s, user, &id);

    if (r)
        return r;
    q = query_start(s, SQL_RECOVERY_USE);
    query_int(&q, 1, (int64_t)id);
    query_bytes(&q, 2, hash, STORE_RECOVERY_HASH);
    r = query_run(&q, &changes);
    return r == 0 && changes == 0 ? store_fail(s, ERR_NOT_FOUND, "this is no recovery code") : r;
}
