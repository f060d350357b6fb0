/*
 * Targets: the servers that may be reached, their pinned host keys and, through secrets.c, what
 * opens them. A row and its secret change in one transaction. Called by control and the broker.
 */
#include "tracker/store/store_priv.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define SECRET_PLACE "targets", "secret"

/* By enum link_target_auth; the names of CONTRACT's --auth. */
static const char *const auth_names[] = {
    [TARGET_AUTH_NONE] = "none",   [TARGET_AUTH_PASSWORD] = "password",
    [TARGET_AUTH_KEY] = "key",     [TARGET_AUTH_PASSTHROUGH] = "passthrough",
    [TARGET_AUTH_AGENT] = "agent", [TARGET_AUTH_PROMPT] = "prompt",
};
#define AUTH_COUNT (sizeof(auth_names) / sizeof(auth_names[0]))

static int no_target(struct store *s, const char *name)
{
    return store_fail(s, ERR_NOT_FOUND, "there is no target \"%s\"", name);
}

/* ---- rows ---- */

static int read_target(struct store *s, const struct query *q, struct store_target *t)
{
    char protocol[16], auth[16];
    int value;

    memset(t, 0, sizeof(*t));
    t->id = row_u64(q, 0);
    row_text(q, 1, t->name, sizeof(t->name));
    row_text(q, 2, protocol, sizeof(protocol));
    row_text(q, 3, t->address, sizeof(t->address));
    row_text(q, 4, t->account, sizeof(t->account));
    row_text(q, 5, auth, sizeof(auth));
    t->has_secret = row_int(q, 6) != 0;
    t->accept_new = row_int(q, 7) != 0;
    row_text(q, 8, t->host_key_type, sizeof(t->host_key_type));
    if (!row_bytes(q, 9, t->host_key, sizeof(t->host_key), &t->host_key_len))
        return store_fail(s, ERR_CORRUPT, "the host key of target \"%s\" is too long", t->name);
    row_text(q, 10, t->host_key_fingerprint, sizeof(t->host_key_fingerprint));
    row_text(q, 11, t->policy, sizeof(t->policy));
    t->created_wall_us = row_int(q, 12);
    row_text(q, 13, t->via, sizeof(t->via));
    row_text(q, 14, t->certificate, sizeof(t->certificate));

    value = protocol_from_name(protocol);
    t->protocol = (enum protocol)value;
    for (t->auth = TARGET_AUTH_NONE; (size_t)t->auth < AUTH_COUNT; t->auth++) {
        if (strcmp(auth, auth_names[t->auth]) == 0)
            break;
    }
    if (value < 0 || (size_t)t->auth == AUTH_COUNT)
        return store_fail(s, ERR_CORRUPT, "the type of target \"%s\" cannot be read", t->name);
    return 0;
}

/* HOST:PORT or [V6]:PORT; what the host is, the resolver says. */
static bool is_address(const char *text)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (!colon || colon == text || strlen(text) >= SESSION_ADDRESS_MAX)
        return false;
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return false;
    }
    if (memchr(text, ':', (size_t)(colon - text)) && (text[0] != '[' || colon[-1] != ']'))
        return false;
    return text_parse_u64(colon + 1, &port) && port >= 1 && port <= 65535;
}

/* What is wrong with a target, or NULL. */
static const char *complaint(const struct store_target *t, const struct secret *secret)
{
    bool has_key = t->host_key_len > 0;

    if (!text_is_name(t->name))
        return "the name of a target is made of A-Z a-z 0-9 . _ -, at most 64 bytes";
    if ((unsigned)t->protocol >= PROTOCOL_COUNT || (size_t)t->auth >= AUTH_COUNT)
        return "the type or the way to log in is unknown";
    if (!is_address(t->address))
        return "the address must be HOST:PORT or [IPV6]:PORT";
    if (t->account[0] && !text_is_account(t->account))
        return "an account is 1 to 128 bytes without '+' and control characters";
    if (t->host_key_len > LINK_KEY_MAX || has_key != (t->host_key_type[0] != '\0') ||
        has_key != (t->host_key_fingerprint[0] != '\0'))
        return "a host key needs its type, its bytes and its fingerprint";
    if (secret && secret->len > SECRET_MAX)
        return "the secret is too long";
    if (t->via[0] && (!text_is_name(t->via) || strcmp(t->via, t->name) == 0))
        return "via is the name of another target";
    return NULL;
}

/* Parameters 1 to 12 of SQL_TARGET_ADD and SQL_TARGET_SET. */
static void bind_target(struct query *q, const struct store_target *t, const char *policy)
{
    query_text(q, 1, t->name);
    query_text(q, 2, protocol_name(t->protocol));
    query_text(q, 3, t->address);
    query_text(q, 4, t->account);
    query_text(q, 5, auth_names[t->auth]);
    query_int(q, 6, t->accept_new);
    query_text(q, 7, t->host_key_type);
    query_bytes(q, 8, t->host_key, t->host_key_len);
    query_text(q, 9, t->host_key_fingerprint);
    query_text(q, 10, policy);
    query_text(q, 11, t->via);
    query_text(q, 12, t->certificate);
}

int store_target_id(struct store *s, const char *name, uint64_t *id)
{
    struct query q = query_start(s, SQL_TARGET_ID);
    int r;

    *id = 0; /* no row has it */
    query_text(&q, 1, name);
    r = query_next(&q);
    if (r == 0)
        return no_target(s, name);
    if (r < 0)
        return r;
    *id = row_u64(&q, 0);
    query_end(&q);
    return 0;
}

static int check_target(struct store *s, const struct store_target *t, const struct secret *secret,
                        char policy[STORE_POLICY_TEXT_MAX])
{
    const char *wrong = complaint(t, secret);

    if (wrong)
        return store_fail(s, ERR_INVALID, "target \"%s\": %s", t->name, wrong);
    return store_policy_text(s, t->policy, policy);
}

/* ---- changing ---- */

static int insert_target(struct store *s, const struct store_target *t, const char *policy,
                         uint64_t *id)
{
    struct query q = query_start(s, SQL_TARGET_ADD);
    int r;

    bind_target(&q, t, policy);
    query_int(&q, 13, clock_wall_us());
    r = query_run(&q, NULL);
    if (r == ERR_EXISTS)
        return store_fail(s, r, "there is a target \"%s\" already", t->name);
    *id = (uint64_t)sqlite3_last_insert_rowid(s->db);
    return r;
}

int store_target_add(struct store *s, const struct store_target *t, const struct secret *secret)
{
    char policy[STORE_POLICY_TEXT_MAX];
    uint64_t id = 0;
    int r = check_target(s, t, secret, policy);

    if (r)
        return r;
    r = store_begin(s);
    if (r)
        return r;
    r = insert_target(s, t, policy, &id);
    if (r == 0 && secret && secret->len > 0)
        r = secret_put(s, SECRET_PLACE, id, secret);
    return store_finish(s, r);
}

static int update_target(struct store *s, const struct store_target *t, const char *policy,
                         const struct secret *secret)
{
    struct query q;
    uint64_t id;
    int r = store_target_id(s, t->name, &id);

    if (r)
        return r;
    q = query_start(s, SQL_TARGET_SET);
    bind_target(&q, t, policy);
    r = query_run(&q, NULL);
    if (r == 0 && secret)
        r = secret->len > 0 ? secret_put(s, SECRET_PLACE, id, secret)
                            : secret_remove(s, SECRET_PLACE, id);
    return r;
}

int store_target_set(struct store *s, const struct store_target *t, const struct secret *secret)
{
    char policy[STORE_POLICY_TEXT_MAX];
    int r = check_target(s, t, secret, policy);

    if (r)
        return r;
    r = store_begin(s);
    return r ? r : store_finish(s, update_target(s, t, policy, secret));
}

/* Nobody would reach what lies behind it any more. */
static int check_nothing_behind(struct store *s, const char *name)
{
    struct query q = query_start(s, SQL_TARGET_BEHIND);
    char behind[NAME_MAX_LEN + 1];
    int r;

    query_text(&q, 1, name);
    r = query_next(&q);
    if (r <= 0)
        return r;
    row_text(&q, 0, behind, sizeof(behind));
    query_end(&q);
    return store_fail(s, ERR_BUSY, "target \"%s\" is on the way to \"%s\": change its via first",
                      name, behind);
}

static int delete_target(struct store *s, const char *name)
{
    struct query q;
    uint64_t id;
    int r = store_target_id(s, name, &id);

    if (r == 0)
        r = check_nothing_behind(s, name);
    if (r)
        return r;
    r = secret_remove(s, SECRET_PLACE, id);
    if (r)
        return r;
    q = query_start(s, SQL_TARGET_REMOVE); /* grants for it go by cascade */
    query_int(&q, 1, (int64_t)id);
    return query_run(&q, NULL);
}

int store_target_remove(struct store *s, const char *name)
{
    int r = store_begin(s);

    return r ? r : store_finish(s, delete_target(s, name));
}

/* ---- reading ---- */

int store_target_get(struct store *s, const char *name, struct store_target *out)
{
    struct query q = query_start(s, SQL_TARGET_GET);
    int r;

    query_text(&q, 1, name);
    r = query_next(&q);
    if (r == 0)
        return no_target(s, name);
    if (r < 0)
        return r;
    r = read_target(s, &q, out);
    query_end(&q);
    return r;
}

static int give_targets(struct store *s, struct query *q, store_target_fn fn, void *arg)
{
    struct store_target t;
    int r;

    while ((r = query_next(q)) == 1) {
        r = read_target(s, q, &t);
        if (r || !fn(&t, arg)) {
            query_end(q);
            return r;
        }
    }
    return r;
}

int store_targets(struct store *s, store_target_fn fn, void *arg)
{
    struct query q = query_start(s, SQL_TARGETS);

    return give_targets(s, &q, fn, arg);
}

int store_targets_called(struct store *s, const char *name, const char *address, store_target_fn fn,
                         void *arg)
{
    struct query q = query_start(s, SQL_TARGETS_CALLED);

    query_text(&q, 1, name);
    query_text(&q, 2, address);
    return give_targets(s, &q, fn, arg);
}

int store_target_secret(struct store *s, const char *name, struct secret *out)
{
    uint64_t id;
    int r = store_target_id(s, name, &id);

    memory_wipe(out, sizeof(*out)); /* whatever happens, nothing of an earlier call stays */
    if (r)
        return r;
    r = secret_get(s, SECRET_PLACE, id, out);
    if (r == ERR_NOT_FOUND)
        return store_fail(s, r, "target \"%s\" has no secret", name);
    return r;
}

/* ---- pinning ---- */

/* The target's key was not pinned by the statement: why. */
static int explain_pin(struct store *s, const char *name, const char *type, const uint8_t *blob,
                       size_t len)
{
    struct store_target t;
    int r = store_target_get(s, name, &t);

    if (r)
        return r;
    if (t.host_key_len == 0)
        return store_fail(s, ERR_DENIED,
                          "target \"%s\" has no host key and does not accept new ones: give its "
                          "key with --host-key, or set --accept-new",
                          name);
    if (t.host_key_len == len && memcmp(t.host_key, blob, len) == 0 &&
        strcmp(t.host_key_type, type) == 0)
        return 0;
    return store_fail(s, ERR_EXISTS, "target \"%s\" has another host key (%s)", name,
                      t.host_key_fingerprint);
}

int store_target_pin(struct store *s, const char *name, const char *type, const uint8_t *blob,
                     size_t len, const char *fingerprint)
{
    struct store_target limits;
    struct query q;
    int64_t changes;
    int r;

    if (len == 0 || len > LINK_KEY_MAX || !type[0] ||
        strlen(type) >= sizeof(limits.host_key_type) || !fingerprint[0] ||
        strlen(fingerprint) >= sizeof(limits.host_key_fingerprint))
        return store_fail(s, ERR_INVALID, "the host key of target \"%s\" is not one", name);
    q = query_start(s, SQL_TARGET_PIN);
    query_text(&q, 1, name);
    query_text(&q, 2, type);
    query_bytes(&q, 3, blob, len);
    query_text(&q, 4, fingerprint);
    r = query_run(&q, &changes);
    if (r || changes > 0)
        return r;
    return explain_pin(s, name, type, blob, len);
}
