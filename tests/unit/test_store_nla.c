/* The store's part of NLA: a hash that is never older than the password, and hints. */
#include "store_fixture.h"

static uint8_t hash[STORE_NT_HASH_LEN] = "0123456789abcde", got[STORE_NT_HASH_LEN];

static struct store_user user_of(struct fixture *f, const char *name)
{
    struct store_user user;

    assert_int_equal(store_user_get(f->store, name, &user), 0);
    return user;
}

static void test_on_and_off(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_user_add(f->store, "alice", "user"), 0);
    assert_false(user_of(f, "alice").has_nla);
    assert_int_equal(store_user_nt_hash(f->store, "alice", got), ERR_NOT_FOUND);
    assert_int_equal(store_user_nt_hash(f->store, "nobody", got), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_nt_hash(f->store, "alice", hash), ERR_INVALID);
    assert_int_equal(store_user_set_nla(f->store, "nobody", true), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), 0);
    assert_true(user_of(f, "alice").has_nla && !user_of(f, "alice").has_nt_hash);
    assert_int_equal(store_user_nt_hash(f->store, "alice", got), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_nt_hash(f->store, "alice", hash), 0);
    assert_true(user_of(f, "alice").has_nt_hash);
    fixture_reopen(f);
    assert_int_equal(store_user_nt_hash(f->store, "alice", got), 0);
    assert_memory_equal(got, hash, sizeof(hash));
    assert_int_equal(store_user_set_nla(f->store, "alice", false), 0);
    assert_false(user_of(f, "alice").has_nt_hash);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), 0);
    assert_int_equal(store_user_nt_hash(f->store, "alice", got), ERR_NOT_FOUND);
}

/* Whatever changes the password. */
static void test_forgotten_with_the_password(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_user_add(f->store, "alice", "user"), 0);
    assert_int_equal(store_user_add(f->store, "bob", "user"), 0);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), 0);
    assert_int_equal(store_user_set_nla(f->store, "bob", true), 0);
    assert_int_equal(store_user_set_nt_hash(f->store, "alice", hash), 0);
    assert_int_equal(store_user_set_nt_hash(f->store, "bob", hash), 0);
    assert_int_equal(store_user_set_hash(f->store, "alice", "$y$other"), 0);
    assert_false(user_of(f, "alice").has_nt_hash);
    assert_true(user_of(f, "alice").has_nla && user_of(f, "bob").has_nt_hash);
    assert_int_equal(store_user_set_role(f->store, "bob", "auditor"), 0);
    assert_int_equal(store_user_nt_hash(f->store, "bob", got), 0);
    assert_int_equal(store_user_remove(f->store, "bob"), 0);
    assert_int_equal(store_user_add(f->store, "bob", "user"), 0);
    assert_int_equal(store_user_set_nla(f->store, "bob", true), 0);
    assert_int_equal(store_user_nt_hash(f->store, "bob", got), ERR_NOT_FOUND);
}

static void test_rotated(void **state)
{
    struct fixture *f = *state;
    uint32_t rewritten;

    assert_int_equal(store_user_add(f->store, "alice", "user"), 0);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), 0);
    assert_int_equal(store_user_set_nt_hash(f->store, "alice", hash), 0);
    assert_int_equal(store_rotate_key(f->store, &rewritten), 0);
    assert_int_equal(rewritten, 1);
    assert_int_equal(store_user_nt_hash(f->store, "alice", got), 0);
    assert_memory_equal(got, hash, sizeof(hash));
}

static void test_not_for_pam(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(store_user_add(f->store, "alice", "user"), 0);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), 0);
    assert_int_equal(store_user_set_auth_source(f->store, "alice", "pam"), ERR_INVALID);
    assert_int_equal(store_user_set_nla(f->store, "alice", false), 0);
    assert_int_equal(store_user_set_auth_source(f->store, "alice", "pam"), 0);
    assert_int_equal(store_user_set_nla(f->store, "alice", true), ERR_INVALID);
    assert_int_equal(store_user_set_nla(f->store, "alice", false), 0);
}

static void test_hint(void **state)
{
    static const char *const names[] = {"alexandra", "alexandra.long", "bob", "carol"};
    struct fixture *f = *state;

    for (size_t i = 0; i < 4; i++)
        assert_int_equal(store_user_add(f->store, names[i], "user"), 0);
    assert_int_equal(store_user_set_nla(f->store, "alexandra.long", true), 0);
    assert_int_equal(store_user_set_nla(f->store, "carol", true), 0); /* pending */
    assert_int_equal(store_nla_hint(f->store, "alexandra", true), STORE_NLA_NO);
    assert_int_equal(store_user_set_nt_hash(f->store, "alexandra.long", hash), 0);
    assert_int_equal(store_nla_hint(f->store, "alexandra", false), STORE_NLA_NO);
    assert_int_equal(store_nla_hint(f->store, "alexandra", true), STORE_NLA_YES);
    assert_int_equal(store_nla_hint(f->store, "alexandra.long", false), STORE_NLA_YES);
    assert_int_equal(store_nla_hint(f->store, "bob", false), STORE_NLA_NO);
    assert_int_equal(store_nla_hint(f->store, "carol", false), STORE_NLA_NO);
    assert_int_equal(store_nla_hint(f->store, "nobody", false), STORE_NLA_UNKNOWN);
    assert_int_equal(store_nla_hint(f->store, "%", true), STORE_NLA_UNKNOWN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_on_and_off, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_with_the_password, fixture_setup,
                                        fixture_teardown),
        cmocka_unit_test_setup_teardown(test_rotated, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_not_for_pam, fixture_setup, fixture_teardown),
        cmocka_unit_test_setup_teardown(test_hint, fixture_setup, fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
