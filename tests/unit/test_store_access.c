/*
 * Users, keys, roles, targets, secrets and grants: what rows may hold, what goes with what when it
 * is removed, and who may reach what as whom (a table).
 */
#include "store_fixture.h"

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "tracker/store/store_priv.h"

static struct store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

/* Calls of a row callback, as "a b c". */
struct seen {
    char text[1024];
    size_t stop_after; /* 0: never */
    size_t count;
};

static bool see(struct seen *seen, const char *word)
{
    size_t len = strlen(seen->text);

    (void)snprintf(seen->text + len, sizeof(seen->text) - len, "%s%s", len ? " " : "", word);
    return ++seen->count != seen->stop_after;
}

static bool see_user(const struct store_user *u, void *arg)
{
    return see((struct seen *)arg, u->name);
}

static bool see_key(const struct store_key *k, void *arg)
{
    assert_int_equal(k->blob_len, k->fingerprint[7] == 'o' ? 7 : 6);
    assert_int_equal(k->blob[4], 'k');
    return see((struct seen *)arg, k->fingerprint);
}

static bool see_role(const struct store_role *r, void *arg)
{
    return see((struct seen *)arg, r->name);
}

static bool see_target(const struct store_target *t, void *arg)
{
    return see((struct seen *)arg, t->name);
}

static bool see_grant(const struct store_grant *g, void *arg)
{
    char text[400];

    (void)snprintf(text, sizeof(text), "%s>%s:%s", g->subject, g->target, g->account);
    return see((struct seen *)arg, text);
}

static bool see_reach(const struct link_target_row *row, void *arg)
{
    char text[300];

    (void)snprintf(text, sizeof(text), "%s@%s/%lld", row->account, row->target,
                   (long long)row->last_used_wall_us);
    return see((struct seen *)arg, text);
}

/* ---- users ---- */

static void test_users(void **state)
{
    struct store *s = store_of(state);
    struct seen all = {.text = ""}, first = {.stop_after = 1};
    char hash[STORE_HASH_MAX];
    struct store_user u;

    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    assert_int_equal(store_user_add(s, "alice", "admin"), 0);
    assert_int_equal(store_user_add(s, "alice", "user"), ERR_EXISTS);
    assert_non_null(strstr(store_error(s), "\"alice\" already"));
    assert_int_equal(store_user_add(s, "carol", "king"), ERR_NOT_FOUND);
    assert_non_null(strstr(store_error(s), "no role \"king\""));
    assert_int_equal(store_user_add(s, "a b", "user"), ERR_INVALID);
    assert_int_equal(store_user_add(s, "", "user"), ERR_INVALID);

    assert_int_equal(store_user_get(s, "alice", &u), 0);
    assert_string_equal(u.name, "alice");
    assert_string_equal(u.role, "admin");
    assert_false(u.is_locked || u.has_password);
    assert_int_equal(u.local_uid, -1);
    assert_true(u.created_wall_us > 0);
    assert_int_equal(u.last_login_wall_us, 0);
    assert_int_equal(store_user_get(s, "x\x1b[2J", &u), ERR_NOT_FOUND);
    assert_null(strchr(store_error(s), '\x1b')); /* sentences drive no terminal */

    assert_int_equal(store_user_set_role(s, "alice", "auditor"), 0);
    assert_int_equal(store_user_set_role(s, "alice", "king"), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_role(s, "nobody", "user"), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_locked(s, "alice", true), 0);
    assert_int_equal(store_user_set_locked(s, "nobody", true), ERR_NOT_FOUND);
    assert_int_equal(store_user_hash(s, "alice", hash), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_hash(s, "alice", "$y$j9T$salt$hash"), 0);
    assert_int_equal(store_user_hash(s, "alice", hash), 0);
    assert_string_equal(hash, "$y$j9T$salt$hash");
    assert_int_equal(store_user_hash(s, "nobody", hash), ERR_NOT_FOUND);
    assert_int_equal(store_user_get(s, "alice", &u), 0);
    assert_string_equal(u.role, "auditor");
    assert_true(u.is_locked && u.has_password);
    assert_int_equal(store_user_set_hash(s, "alice", ""), 0);
    assert_int_equal(store_user_hash(s, "alice", hash), ERR_NOT_FOUND);

    assert_int_equal(store_users(s, see_user, &all), 0);
    assert_string_equal(all.text, "alice bob");
    assert_int_equal(store_users(s, see_user, &first), 0);
    assert_string_equal(first.text, "alice");

    assert_int_equal(store_user_remove(s, "alice"), 0);
    assert_int_equal(store_user_remove(s, "alice"), ERR_NOT_FOUND);
}

static void test_local_uids(void **state)
{
    struct store *s = store_of(state);
    struct store_user u;

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    assert_int_equal(store_user_set_uid(s, "alice", 0), 0);
    assert_int_equal(store_user_set_uid(s, "bob", 0), ERR_EXISTS);
    assert_int_equal(store_user_by_uid(s, 0, &u), 0);
    assert_string_equal(u.name, "alice");
    assert_int_equal(store_user_set_uid(s, "alice", -1), 0);
    assert_int_equal(store_user_set_uid(s, "bob", -1), 0); /* many may have none */
    assert_int_equal(store_user_by_uid(s, 0, &u), ERR_NOT_FOUND);
    assert_int_equal(store_user_by_uid(s, -1, &u), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_uid(s, "bob", 4294967295), ERR_INVALID);
    assert_int_equal(store_user_set_uid(s, "nobody", 5), ERR_NOT_FOUND);
}

static void test_logins_are_queued(void **state)
{
    struct store *s = store_of(state);
    struct store_user u;

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    store_user_logged_in(s, "alice", 500);
    store_user_logged_in(s, "alice", 400);
    store_user_logged_in(s, "nobody", 400);
    assert_int_equal(store_queue_len(s, NULL), 2);
    assert_int_equal(store_user_get(s, "alice", &u), 0);
    assert_int_equal(u.last_login_wall_us, 500);
    assert_int_equal(store_queue_len(s, NULL), 0);
}

static void test_keys(void **state)
{
    static const uint8_t blob[] = {0, 0, 0, 1, 'k', 0, 9};
    struct store *s = store_of(state);
    struct seen seen = {.text = ""};
    struct store_user u;
    char id[32];

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    assert_int_equal(store_key_add(s, "alice", "ssh-ed25519", blob, 7, "SHA256:one", "laptop"), 0);
    assert_int_equal(store_key_add(s, "alice", "ssh-ed25519", blob, 7, "SHA256:one", ""),
                     ERR_EXISTS);
    assert_int_equal(store_key_add(s, "alice", "ssh-ed25519", blob, 6, "SHA256:two", ""), 0);
    assert_int_equal(store_key_add(s, "bob", "ssh-ed25519", blob, 5, "SHA256:six", ""), 0);
    assert_int_equal(store_key_add(s, "nobody", "x", blob, 7, "SHA256:one", ""), ERR_NOT_FOUND);
    assert_int_equal(store_key_add(s, "bob", "x", blob, 0, "SHA256:one", ""), ERR_INVALID);
    assert_int_equal(store_key_add(s, "bob", "x", blob, LINK_KEY_MAX + 1, "SHA256:one", ""),
                     ERR_INVALID);

    assert_int_equal(store_key_check(s, "alice", blob, 7), 0);
    assert_int_equal(store_key_check(s, "alice", blob, 5), ERR_NOT_FOUND);
    assert_int_equal(store_key_check(s, "bob", blob, 7), ERR_NOT_FOUND);
    assert_int_equal(store_key_check(s, "nobody", blob, 7), ERR_NOT_FOUND);
    assert_int_equal(store_key_check(s, "alice", blob, 0), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_locked(s, "alice", true), 0);
    assert_int_equal(store_key_check(s, "alice", blob, 7), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_locked(s, "alice", false), 0);

    assert_int_equal(store_keys(s, "alice", see_key, &seen), 0);
    assert_string_equal(seen.text, "SHA256:one SHA256:two");
    assert_int_equal(store_keys(s, "nobody", see_key, &seen), ERR_NOT_FOUND);
    assert_int_equal(store_user_get(s, "alice", &u), 0);
    assert_int_equal(u.key_count, 2);

    assert_int_equal(store_key_remove(s, "bob", "SHA256:one"), ERR_NOT_FOUND); /* not bob's */
    assert_int_equal(store_key_remove(s, "bob", "1"), ERR_NOT_FOUND);
    assert_int_equal(store_key_remove(s, "alice", "SHA256:one"), 0);
    (void)text_copy(id, sizeof(id), sql_one(s->db, "SELECT id FROM user_keys LIMIT 1"));
    assert_int_equal(store_key_remove(s, "alice", id), 0);
    assert_int_equal(store_key_check(s, "alice", blob, 6), ERR_NOT_FOUND);

    assert_int_equal(store_user_remove(s, "bob"), 0); /* takes its keys along */
    assert_string_equal(sql_one(s->db, "SELECT count(*) FROM user_keys"), "0");
}

/* ---- roles ---- */

static void test_roles(void **state)
{
    struct store_grant g = {.subject = "@ops", .target = "*"};
    struct store *s = store_of(state);
    struct seen seen = {.text = ""};
    struct store_role role;
    uint64_t id;

    assert_int_equal(store_role_add(s, "ops"), 0);
    assert_int_equal(store_role_add(s, "ops"), ERR_EXISTS);
    assert_int_equal(store_role_add(s, "@ops"), ERR_INVALID);
    assert_int_equal(store_roles(s, see_role, &seen), 0);
    assert_string_equal(seen.text, "admin auditor ops user");
    assert_int_equal(store_role_get(s, "admin", &role), 0);
    assert_true(role.is_builtin);

    assert_int_equal(store_role_set_policy(s, "ops", "idle_after=10m max_duration=4h"), 0);
    assert_int_equal(store_role_get(s, "ops", &role), 0);
    assert_false(role.is_builtin);
    assert_string_equal(role.policy, "idle_after=10m max_duration=4h");
    assert_int_equal(store_role_set_policy(s, "ops", "idle_aftr=10m"), ERR_INVALID);
    assert_int_equal(store_role_set_policy(s, "none", ""), ERR_NOT_FOUND);
    assert_int_equal(store_role_set_policy(s, "ops", ""), 0);
    assert_int_equal(store_role_get(s, "ops", &role), 0);
    assert_string_equal(role.policy, "");

    assert_int_equal(store_role_remove(s, "user"), ERR_INVALID);
    assert_int_equal(store_role_remove(s, "none"), ERR_NOT_FOUND);
    assert_int_equal(store_user_add(s, "alice", "ops"), 0);
    assert_int_equal(store_role_remove(s, "ops"), ERR_BUSY);
    assert_int_equal(store_user_set_role(s, "alice", "user"), 0);
    assert_int_equal(store_grant_add(s, &g, &id), 0);
    assert_int_equal(store_role_remove(s, "ops"), ERR_BUSY);
    assert_int_equal(store_grant_remove(s, id), 0);
    assert_int_equal(store_role_remove(s, "ops"), 0);
}

/* ---- targets ---- */

static struct store_target target(const char *name, const char *account)
{
    struct store_target t = {.protocol = PROTOCOL_SSH, .auth = TARGET_AUTH_PASSWORD};

    (void)text_copy(t.name, sizeof(t.name), name);
    (void)text_copy(t.address, sizeof(t.address), "10.0.0.1:22");
    (void)text_copy(t.account, sizeof(t.account), account);
    return t;
}

static void add_target(struct store *s, const char *name, const char *account, const char *secret)
{
    struct store_target t = target(name, account);
    struct secret plain = {.len = 0};

    assert_true(secret_set(&plain, secret, strlen(secret)));
    assert_int_equal(store_target_add(s, &t, &plain), 0);
}

static void test_targets(void **state)
{
    struct store *s = store_of(state);
    struct store_target t = target("web01", "DOM\\bob"), got;
    struct seen seen = {.text = ""};

    t.protocol = PROTOCOL_RDP;
    t.auth = TARGET_AUTH_PASSTHROUGH;
    t.accept_new = true;
    (void)text_copy(t.host_key_type, sizeof(t.host_key_type), "ssh-ed25519");
    (void)text_copy(t.host_key_fingerprint, sizeof(t.host_key_fingerprint), "SHA256:abc");
    memset(t.host_key, 0x5a, sizeof(t.host_key));
    t.host_key_len = LINK_KEY_MAX;
    (void)text_copy(t.policy, sizeof(t.policy), "ssh=no");
    assert_int_equal(store_target_add(s, &t, NULL), ERR_INVALID); /* the key is "record" there */
    (void)text_copy(t.policy, sizeof(t.policy), "record=no");
    assert_int_equal(store_target_add(s, &t, NULL), 0);
    assert_int_equal(store_target_add(s, &t, NULL), ERR_EXISTS);
    assert_int_equal(store_target_get(s, "web01", &got), 0);
    assert_int_equal(got.protocol, PROTOCOL_RDP);
    assert_int_equal(got.auth, TARGET_AUTH_PASSTHROUGH);
    assert_true(got.accept_new && !got.has_secret && got.id > 0 && got.created_wall_us > 0);
    assert_string_equal(got.account, "DOM\\bob");
    assert_string_equal(got.address, "10.0.0.1:22");
    assert_string_equal(got.host_key_type, "ssh-ed25519");
    assert_string_equal(got.host_key_fingerprint, "SHA256:abc");
    assert_int_equal(got.host_key_len, LINK_KEY_MAX);
    assert_memory_equal(got.host_key, t.host_key, LINK_KEY_MAX);
    assert_string_equal(got.policy, "record=no");

    add_target(s, "db02", "", "");
    assert_int_equal(store_targets(s, see_target, &seen), 0);
    assert_string_equal(seen.text, "db02 web01");
    seen = (struct seen){.text = ""};
    assert_int_equal(store_targets_called(s, "WEB01", "x:1", see_target, &seen), 0);
    assert_string_equal(seen.text, "web01");
    assert_int_equal(store_targets_called(s, "%", "10.0.0.1:22", see_target, &seen), 0);
    assert_string_equal(seen.text, "web01 db02 web01");
    assert_int_equal(store_targets_called(s, "web0_", "10.0.0.1:2", see_target, &seen), 0);
    assert_int_equal(seen.count, 3);
    assert_int_equal(store_target_get(s, "nope", &got), ERR_NOT_FOUND);
    t = target("nope", "");
    assert_int_equal(store_target_set(s, &t, NULL), ERR_NOT_FOUND);
    assert_int_equal(store_target_remove(s, "nope"), ERR_NOT_FOUND);
    assert_int_equal(store_target_remove(s, "web01"), 0);
    assert_int_equal(store_target_get(s, "web01", &got), ERR_NOT_FOUND);
}

static void test_targets_behind_targets(void **state)
{
    struct store *s = store_of(state);
    struct store_target t = target("web01", ""), got;

    add_target(s, "gw1", "root", "x");
    t.auth = TARGET_AUTH_AGENT;
    (void)text_copy(t.via, sizeof(t.via), "gw1");
    memset(t.certificate, 'c', LINK_KEY_MAX);
    assert_int_equal(store_target_add(s, &t, NULL), 0);
    assert_int_equal(store_target_get(s, "web01", &got), 0);
    assert_string_equal(got.via, "gw1");
    assert_int_equal(got.auth, TARGET_AUTH_AGENT);
    assert_string_equal(got.certificate, t.certificate);
    assert_int_equal(store_target_remove(s, "gw1"), ERR_BUSY);
    assert_non_null(strstr(store_error(s), "web01"));
    assert_int_equal(store_target_get(s, "gw1", &got), 0);
    assert_true(got.has_secret); /* nothing of it went */
    got = t;
    (void)text_copy(got.via, sizeof(got.via), "web01"); /* itself */
    assert_int_equal(store_target_set(s, &got, NULL), ERR_INVALID);
    t.via[0] = t.certificate[0] = '\0';
    assert_int_equal(store_target_set(s, &t, NULL), 0);
    assert_int_equal(store_target_remove(s, "gw1"), 0);
}

static void test_bad_targets(void **state)
{
    static const char *const addresses[] = {"",       "host",       "host:",      "host:0",
                                            ":22",    "host:65536", "fe80::1:22", "[fe80::1]22",
                                            "a b:22", "host:22x",   "host:22\n"};
    struct store *s = store_of(state);
    struct store_target t;

    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        t = target("web01", "");
        (void)text_copy(t.address, sizeof(t.address), addresses[i]);
        if (store_target_add(s, &t, NULL) != ERR_INVALID)
            fail_msg("address \"%s\" was taken", addresses[i]);
    }
    t = target("web 01", "");
    assert_int_equal(store_target_add(s, &t, NULL), ERR_INVALID);
    t = target("web01", "a+b");
    assert_int_equal(store_target_add(s, &t, NULL), ERR_INVALID);
    t = target("web01", "");
    t.host_key_len = 4; /* without a type */
    assert_int_equal(store_target_add(s, &t, NULL), ERR_INVALID);
    t = target("web01", "");
    t.auth = (enum link_target_auth)17;
    assert_int_equal(store_target_add(s, &t, NULL), ERR_INVALID);
    t = target("web01", "");
    (void)text_copy(t.address, sizeof(t.address), "[fe80::1]:22");
    assert_int_equal(store_target_add(s, &t, NULL), 0);
}

static void assert_secret(struct store *s, const char *name, const char *text)
{
    struct secret secret;

    assert_int_equal(store_target_secret(s, name, &secret), 0);
    assert_int_equal(secret.len, strlen(text));
    assert_string_equal((const char *)secret.data, text);
    secret_wipe(&secret);
}

static void test_secrets(void **state)
{
    struct store *s = store_of(state);
    struct fixture *f = (struct fixture *)*state;
    struct secret secret = {.len = 0}, none = {.len = 0};
    struct store_target t;
    char wal[256];

    (void)snprintf(wal, sizeof(wal), "%s-wal", f->db);
    add_target(s, "web01", "", "correct horse battery staple");
    add_target(s, "db02", "", "");
    assert_secret(s, "web01", "correct horse battery staple");
    assert_int_equal(store_target_secret(s, "db02", &secret), ERR_NOT_FOUND);
    assert_int_equal(store_target_secret(s, "nope", &secret), ERR_NOT_FOUND);
    assert_int_equal(store_target_get(s, "web01", &t), 0);
    assert_true(t.has_secret);

    (void)text_copy(t.address, sizeof(t.address), "10.0.0.2:22");
    assert_int_equal(store_target_set(s, &t, NULL), 0); /* keeps it */
    assert_secret(s, "web01", "correct horse battery staple");
    assert_true(secret_set(&secret, "new", 3));
    assert_int_equal(store_target_set(s, &t, &secret), 0);
    assert_secret(s, "web01", "new");
    assert_int_equal(store_target_set(s, &t, &none), 0); /* removes it */
    assert_int_equal(store_target_get(s, "web01", &t), 0);
    assert_false(t.has_secret);
    assert_string_equal(t.address, "10.0.0.2:22");

    memset(secret.data, 'k', SECRET_MAX);
    secret.len = SECRET_MAX;
    assert_int_equal(store_target_set(s, &t, &secret), 0);
    assert_int_equal(store_target_secret(s, "web01", &none), 0);
    assert_int_equal(none.len, SECRET_MAX);
    assert_memory_equal(none.data, secret.data, SECRET_MAX);
    assert_int_equal(store_target_remove(s, "web01"), 0); /* takes its secret along */
    assert_string_equal(sql_one(s->db, "SELECT count(*) FROM secrets"), "0");

    assert_false(file_holds(f->db, "correct horse") || file_holds(wal, "correct horse"));
}

/* A row that is moved, copied or changed opens nowhere. */
static void test_secrets_stay_where_they_are(void **state)
{
    static const char *const changes[] = {
        "UPDATE secrets SET row_id = (SELECT id FROM targets WHERE name = 'db02')",
        "UPDATE secrets SET ciphertext = zeroblob(7)",
        "UPDATE secrets SET tag = zeroblob(16)",
        "UPDATE secrets SET tag = zeroblob(15)",
        "UPDATE secrets SET nonce = zeroblob(12)",
        "UPDATE secrets SET nonce = zeroblob(13)",
        "UPDATE secrets SET key_id = 2",
        "UPDATE secrets SET ciphertext = zeroblob(9000)",
        "UPDATE secrets SET ciphertext = x''",
    };
    struct store *s = store_of(state);
    struct store_target t;
    struct secret secret;

    add_target(s, "web01", "", "");
    add_target(s, "db02", "", "");
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        const char *victim = i == 0 ? "db02" : "web01";

        sql(s->db, "DELETE FROM secrets");
        assert_true(secret_set(&secret, "hunter2", 7));
        t = target("web01", "");
        assert_int_equal(store_target_set(s, &t, &secret), 0);
        assert_secret(s, "web01", "hunter2");
        sql(s->db, changes[i]);
        if (store_target_secret(s, victim, &secret) != ERR_CRYPTO)
            fail_msg("%s: opened", changes[i]);
        assert_int_equal(secret.len, 0);
        for (size_t k = 0; k < sizeof(secret.data); k++)
            assert_int_equal(secret.data[k], 0);
    }
}

static void test_pinning(void **state)
{
    static const uint8_t key[] = "key", other[] = "yek";
    struct store *s = store_of(state);
    struct store_target t;

    t = target("web01", "");
    t.accept_new = true;
    assert_int_equal(store_target_add(s, &t, NULL), 0);
    add_target(s, "db02", "", "");
    assert_int_equal(store_target_pin(s, "db02", "ssh-ed25519", key, 3, "SHA256:k"), ERR_DENIED);
    assert_int_equal(store_target_pin(s, "nope", "ssh-ed25519", key, 3, "SHA256:k"), ERR_NOT_FOUND);
    assert_int_equal(store_target_pin(s, "web01", "ssh-ed25519", key, 0, "SHA256:k"), ERR_INVALID);
    assert_int_equal(store_target_pin(s, "web01", "ssh-ed25519", key, 3, "SHA256:k"), 0);
    assert_int_equal(store_target_pin(s, "web01", "ssh-ed25519", key, 3, "SHA256:k"), 0);
    assert_int_equal(store_target_pin(s, "web01", "ssh-ed25519", other, 3, "SHA256:y"), ERR_EXISTS);
    assert_non_null(strstr(store_error(s), "SHA256:k"));
    assert_int_equal(store_target_get(s, "web01", &t), 0);
    assert_string_equal(t.host_key_type, "ssh-ed25519");
    assert_string_equal(t.host_key_fingerprint, "SHA256:k");
    assert_int_equal(t.host_key_len, 3);
    assert_memory_equal(t.host_key, key, 3);
}

/* ---- grants ---- */

static uint64_t grant(struct store *s, const char *subject, const char *target_name,
                      const char *account, const char *policy)
{
    struct store_grant g = {.id = 0};
    uint64_t id = 0;
    int r;

    (void)text_copy(g.subject, sizeof(g.subject), subject);
    (void)text_copy(g.target, sizeof(g.target), target_name);
    (void)text_copy(g.account, sizeof(g.account), account);
    (void)text_copy(g.policy, sizeof(g.policy), policy);
    r = store_grant_add(s, &g, &id);
    if (r)
        fail_msg("grant %s>%s:%s: %s", subject, target_name, account, store_error(s));
    assert_true(id > 0);
    return id;
}

static void test_grants(void **state)
{
    static const struct {
        struct store_grant grant;
        int result;
    } bad[] = {
        {{.subject = "nobody", .target = "web01"}, ERR_NOT_FOUND},
        {{.subject = "@nobody", .target = "web01"}, ERR_NOT_FOUND},
        {{.subject = "alice", .target = "nope"}, ERR_NOT_FOUND},
        {{.subject = "alice", .target = "web01", .account = "a+b"}, ERR_INVALID},
        {{.subject = "alice", .target = "web01", .policy = "nonsense=1"}, ERR_INVALID},
        {{.subject = "", .target = "web01"}, ERR_NOT_FOUND},
        {{.subject = "alice", .target = "web01", .account = "root"}, ERR_EXISTS},
        {{.subject = "@admin", .target = "*"}, ERR_EXISTS},
    };
    struct store *s = store_of(state);
    struct seen seen = {.text = ""}, left = {.text = ""};
    uint64_t id;

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    add_target(s, "web01", "", "");
    add_target(s, "db02", "", "");
    (void)grant(s, "alice", "web01", "root", "idle_after=1m");
    (void)grant(s, "@admin", "*", "", "");
    (void)grant(s, "bob", "db02", "*", "");
    id = grant(s, "bob", "web01", "", "");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        uint64_t none = 0;

        assert_int_equal(store_grant_add(s, &bad[i].grant, &none), bad[i].result);
        assert_int_equal(none, 0);
    }
    assert_int_equal(store_grants(s, see_grant, &seen), 0);
    assert_string_equal(seen.text, "alice>web01:root @admin>*: bob>db02:* bob>web01:");
    assert_int_equal(store_grant_set_policy(s, id, "record=no  idle_after=1m"), 0);
    assert_string_equal(sql_one(s->db, "SELECT policy FROM grants WHERE id = 4"),
                        "idle_after=1m record=no");
    assert_int_equal(store_grant_set_policy(s, id, "nonsense"), ERR_INVALID);
    assert_int_equal(store_grant_remove(s, id), 0);
    assert_int_equal(store_grant_remove(s, id), ERR_NOT_FOUND);
    assert_int_equal(store_grant_set_policy(s, id, ""), ERR_NOT_FOUND);
    assert_int_equal(store_user_remove(s, "alice"), 0); /* grants go with users and targets */
    assert_int_equal(store_target_remove(s, "db02"), 0);
    assert_int_equal(store_grants(s, see_grant, &left), 0);
    assert_string_equal(left.text, "@admin>*:");
}

/* ---- resolving ---- */

#define GRANTS_MAX 5

struct resolve_row {
    const char *name;
    const char *grants[GRANTS_MAX][3]; /* subject, target, account; in this order */
    const char *target;
    const char *account;
    int result;
    const char *account_out;
    int winner; /* index in grants */
};

/* alice and locked have role user; web01 has account "www", db02 none, win01 is RDP. */
static const struct resolve_row resolve_rows[] = {
    {"no grant", {{0}}, "web01", "", ERR_DENIED, NULL, 0},
    {"unknown target", {{"alice", "*", "*"}}, "nope", "", ERR_NOT_FOUND, NULL, 0},
    {"other protocol", {{"alice", "*", "*"}}, "win01", "", ERR_NOT_FOUND, NULL, 0},
    {"someone else's", {{"bob", "web01", "*"}}, "web01", "", ERR_DENIED, NULL, 0},
    {"another role's", {{"@admin", "*", "*"}}, "web01", "", ERR_DENIED, NULL, 0},
    {"another target's", {{"alice", "db02", "*"}}, "web01", "", ERR_DENIED, NULL, 0},

    {"default: the target's", {{"alice", "web01", ""}}, "web01", "", 0, "www", 0},
    {"default: the user's name", {{"alice", "db02", ""}}, "db02", "", 0, "alice", 0},
    {"default: the grant's", {{"alice", "web01", "root"}}, "web01", "", 0, "root", 0},
    {"default of any: the target's", {{"alice", "web01", "*"}}, "web01", "", 0, "www", 0},
    {"default of any: the name", {{"alice", "db02", "*"}}, "db02", "", 0, "alice", 0},

    {"named, allowed", {{"alice", "web01", "root"}}, "web01", "root", 0, "root", 0},
    {"named, another", {{"alice", "web01", "root"}}, "web01", "www", ERR_DENIED, NULL, 0},
    {"named, default only", {{"alice", "web01", ""}}, "web01", "root", ERR_DENIED, NULL, 0},
    {"named, is the default", {{"alice", "web01", ""}}, "web01", "www", 0, "www", 0},
    {"named, is the user", {{"alice", "db02", ""}}, "db02", "alice", 0, "alice", 0},
    {"named, not the user", {{"alice", "web01", ""}}, "web01", "alice", ERR_DENIED, NULL, 0},
    {"named, any", {{"alice", "web01", "*"}}, "web01", "DOM\\x", 0, "DOM\\x", 0},

    {"role", {{"@user", "web01", ""}}, "web01", "", 0, "www", 0},
    {"role, every target", {{"@user", "*", ""}}, "web01", "", 0, "www", 0},
    {"own before role",
     {{"alice", "*", "*"}, {"@user", "web01", "root"}},
     "web01",
     "root",
     0,
     "root",
     0},
    {"own before role, default",
     {{"@user", "web01", "root"}, {"alice", "*", ""}},
     "web01",
     "",
     0,
     "www",
     1},
    {"named target before *",
     {{"alice", "web01", "*"}, {"alice", "*", "root"}},
     "web01",
     "root",
     0,
     "root",
     0},
    {"named account before *",
     {{"alice", "web01", "root"}, {"alice", "web01", "*"}},
     "web01",
     "root",
     0,
     "root",
     0},
    {"named account before *, default",
     {{"alice", "web01", "root"}, {"alice", "web01", "*"}},
     "web01",
     "",
     0,
     "root",
     0},
    {"the target's default before *",
     {{"alice", "web01", ""}, {"alice", "web01", "*"}},
     "web01",
     "www",
     0,
     "www",
     0},
    {"newest", {{"alice", "web01", "root"}, {"alice", "web01", "adm"}}, "web01", "", 0, "adm", 1},
    {"newest, of those that fit",
     {{"alice", "web01", "root"}, {"alice", "web01", "adm"}},
     "web01",
     "root",
     0,
     "root",
     0},
    {"a fit lower down",
     {{"alice", "web01", "root"}, {"@user", "*", "*"}},
     "web01",
     "bin",
     0,
     "bin",
     1},
    {"all levels",
     {{"@user", "*", "*"},
      {"@user", "*", "root"},
      {"@user", "web01", "*"},
      {"alice", "*", "*"},
      {"alice", "web01", "*"}},
     "web01",
     "root",
     0,
     "root",
     4},
};

static void people_and_places(struct store *s)
{
    struct store_target win = target("win01", "");

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    add_target(s, "web01", "www", "");
    add_target(s, "db02", "", "");
    win.protocol = PROTOCOL_RDP;
    assert_int_equal(store_target_add(s, &win, NULL), 0);
}

static void test_resolve(void **state)
{
    struct store *s = store_of(state);

    people_and_places(s);
    for (size_t i = 0; i < sizeof(resolve_rows) / sizeof(resolve_rows[0]); i++) {
        const struct resolve_row *row = &resolve_rows[i];
        char account[ACCOUNT_MAX_LEN + 1] = "?";
        struct store_target t;
        struct policy policy;
        int r;

        sql(s->db, "DELETE FROM grants");
        for (size_t g = 0; g < GRANTS_MAX && row->grants[g][0]; g++) {
            char mark[64]; /* the policy tells which one won */

            (void)snprintf(mark, sizeof(mark), "sessions_per_user=%zu", 1000 + g);
            (void)grant(s, row->grants[g][0], row->grants[g][1], row->grants[g][2], mark);
        }
        policy_defaults(&policy);
        r = store_resolve(s, "alice", row->account, row->target, PROTOCOL_SSH, &policy, &t,
                          account);
        if (r != row->result)
            fail_msg("%s: %d (%s)", row->name, r, store_error(s));
        if (r) {
            assert_string_equal(account, "");
            assert_int_equal(policy.sessions_per_user, 50);
            continue;
        }
        if (strcmp(account, row->account_out) != 0 ||
            policy.sessions_per_user != 1000u + (unsigned)row->winner)
            fail_msg("%s: account \"%s\", grant %d", row->name, account,
                     (int)policy.sessions_per_user - 1000);
        assert_string_equal(t.name, row->target);
    }
}

static void test_resolve_users(void **state)
{
    struct store *s = store_of(state);
    char account[ACCOUNT_MAX_LEN + 1];
    struct policy policy = {.idle_after = 7};
    struct store_target t;
    struct seen seen = {.text = ""};

    people_and_places(s);
    (void)grant(s, "@user", "*", "", "");
    assert_int_equal(store_resolve(s, "nobody", "", "web01", PROTOCOL_SSH, &policy, &t, account),
                     ERR_NOT_FOUND);
    assert_int_equal(store_resolve(s, "bob", "", "web01", PROTOCOL_SSH, &policy, &t, account), 0);
    assert_int_equal(store_user_set_locked(s, "bob", true), 0);
    assert_int_equal(store_resolve(s, "bob", "", "web01", PROTOCOL_SSH, &policy, &t, account),
                     ERR_DENIED);
    assert_int_equal(store_reachable(s, "bob", PROTOCOL_SSH, see_reach, &seen), ERR_DENIED);
    assert_int_equal(store_reachable(s, "nobody", PROTOCOL_SSH, see_reach, &seen), ERR_NOT_FOUND);
    assert_int_equal(seen.count, 0);

    /* A policy that cannot be read denies, and leaves the caller's as it was. */
    sql(s->db, "UPDATE roles SET policy = 'idle_after=3m' WHERE name = 'user'");
    sql(s->db, "UPDATE targets SET policy = 'garbage'");
    assert_int_equal(store_resolve(s, "alice", "", "web01", PROTOCOL_SSH, &policy, &t, account),
                     ERR_CORRUPT);
    assert_int_equal(policy.idle_after, 7);
    assert_string_equal(account, "");
}

static void test_policy_overlays(void **state)
{
    struct store *s = store_of(state);
    char account[ACCOUNT_MAX_LEN + 1];
    struct store_target t;
    struct policy policy;

    people_and_places(s);
    assert_int_equal(
        store_role_set_policy(s, "user",
                              "idle_after=1m warn_after=2m disconnect_after=3m max_channels=1"),
        0);
    t = target("web01", "www");
    (void)text_copy(t.policy, sizeof(t.policy), "warn_after=20m disconnect_after=30m record=no");
    assert_int_equal(store_target_set(s, &t, NULL), 0);
    (void)grant(s, "alice", "web01", "", "disconnect_after=300m record=yes");
    policy_defaults(&policy);
    policy.max_duration = 77; /* the configuration's */
    assert_int_equal(store_resolve(s, "alice", "", "web01", PROTOCOL_SSH, &policy, &t, account), 0);
    assert_int_equal(policy.idle_after, 60);
    assert_int_equal(policy.warn_after, 20 * 60);
    assert_int_equal(policy.disconnect_after, 300 * 60);
    assert_int_equal(policy.max_channels, 1);
    assert_int_equal(policy.record, 1);
    assert_int_equal(policy.max_duration, 77);
}

static void test_reachable(void **state)
{
    struct store *s = store_of(state);
    struct session_info info = {.protocol = PROTOCOL_SSH, .started_wall_us = 900};
    struct seen none = {.text = ""}, ssh = {.text = ""}, rdp = {.text = ""};
    struct seen first = {.stop_after = 1};

    people_and_places(s);
    add_target(s, "aaa", "root", "");
    assert_int_equal(store_reachable(s, "alice", PROTOCOL_SSH, see_reach, &none), 0);
    assert_int_equal(none.count, 0);
    (void)grant(s, "@user", "*", "", "");
    (void)grant(s, "alice", "web01", "adm", "");
    (void)grant(s, "alice", "web01", "*", "");
    (void)grant(s, "bob", "aaa", "bin", "");
    (void)text_copy(info.user, sizeof(info.user), "alice");
    (void)text_copy(info.target, sizeof(info.target), "web01");
    assert_int_equal(store_session_open(s, &info), 0);
    info.started_wall_us = 800;
    assert_int_equal(store_session_open(s, &info), 0);
    assert_int_equal(store_reachable(s, "alice", PROTOCOL_SSH, see_reach, &ssh), 0);
    assert_string_equal(ssh.text, "root@aaa/0 alice@db02/0 adm@web01/900");
    assert_int_equal(store_reachable(s, "alice", PROTOCOL_RDP, see_reach, &rdp), 0);
    assert_string_equal(rdp.text, "alice@win01/0");
    assert_int_equal(store_reachable(s, "alice", PROTOCOL_SSH, see_reach, &first), 0);
    assert_string_equal(first.text, "root@aaa/0");
}

/* Another process holds the database: a write says so after its 250 ms, a read goes on. */
static void test_locked(void **state)
{
    struct fixture *f = (struct fixture *)*state;
    struct store *s = f->store;
    struct store_user u;
    sqlite3 *db = outsider(f->db);
    int64_t began;

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    add_target(s, "web01", "", "x");
    sql(db, "BEGIN EXCLUSIVE");
    assert_int_equal(store_user_add(s, "bob", "user"), ERR_BUSY);
    began = clock_mono_ms(); /* one has waited in vain: a crowd behind it does not hold the loop */
    for (int i = 0; i < 100; i++)
        assert_int_equal(store_user_add(s, "bob", "user"), ERR_BUSY);
    assert_true(clock_mono_ms() - began < 1000);
    assert_non_null(strstr(store_error(s), "another process"));
    assert_int_equal(store_target_remove(s, "web01"), ERR_BUSY);
    assert_int_equal(store_user_get(s, "alice", &u), 0);
    assert_secret(s, "web01", "x");
    sql(db, "COMMIT");
    (void)sqlite3_close(db);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    assert_int_equal(store_target_remove(s, "web01"), 0);
}

static void test_read_only(void **state)
{
    struct store *s = store_of(state);

    sql(s->db, "PRAGMA query_only = ON");
    assert_int_equal(store_user_add(s, "bob", "user"), ERR_READ_ONLY);
    sql(s->db, "PRAGMA query_only = OFF");
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(test_users),
        T(test_local_uids),
        T(test_logins_are_queued),
        T(test_keys),
        T(test_roles),
        T(test_targets),
        T(test_bad_targets),
        T(test_targets_behind_targets),
        T(test_secrets),
        T(test_secrets_stay_where_they_are),
        T(test_pinning),
        T(test_grants),
        T(test_resolve),
        T(test_resolve_users),
        T(test_policy_overlays),
        T(test_reachable),
        T(test_locked),
        T(test_read_only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
