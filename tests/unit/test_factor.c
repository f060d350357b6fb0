/*
 * Second factors: codes by the vectors of RFC 6238, keys and recovery codes that are used once and
 * survive a restart, the picture, and messages between the broker and sallyport-pam.
 */
#include "store_fixture.h"

#include <sallyport/pam_talk.h>
#include <sys/socket.h>

#include "tracker/factor.h"

static struct store *store_of(void **state)
{
    return ((struct fixture *)*state)->store;
}

/* ---- codes ---- */

static void rfc_vectors(void **state)
{
    static const struct {
        int64_t now_s;
        const char *code; /* the last six of the eight digits of appendix B, SHA-1 */
    } cases[] = {{59, "287082"},         {1111111109, "081804"}, {1111111111, "050471"},
                 {1234567890, "005924"}, {2000000000, "279037"}, {20000000000, "353130"}};
    struct secret key;
    uint64_t step;

    (void)state;
    assert_true(secret_set(&key, "12345678901234567890", 20));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t own = (uint64_t)cases[i].now_s / FACTOR_STEP_S;

        assert_true(factor_code_fits(&key, cases[i].code, cases[i].now_s, &step));
        assert_int_equal(step, own);
        assert_true(factor_code_fits(&key, cases[i].code, cases[i].now_s + 30, &step));
        assert_int_equal(step, own);
        if (own > 0)
            assert_true(factor_code_fits(&key, cases[i].code, cases[i].now_s - 30, &step));
        assert_false(factor_code_fits(&key, cases[i].code, cases[i].now_s + 90, &step));
    }
    assert_true(factor_code_fits(&key, " 081 804 ", 1111111109, &step));
    for (size_t i = 0; i < 6; i++) {
        static const char *const wrong[] = {"", "08180", "0818044", "08180a", "-81804", "081805"};
        assert_false(factor_code_fits(&key, wrong[i], 1111111109, &step));
    }
}

static void key_texts(void **state)
{
    struct secret key, other;
    char text[FACTOR_KEY_TEXT], uri[FACTOR_URI_MAX];

    (void)state;
    assert_true(secret_set(&key, "12345678901234567890", 20));
    assert_int_equal(factor_key_text(&key, text), 0);
    assert_string_equal(text, "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
    assert_int_equal(factor_uri(&key, "alice", "bastion1", uri), 0);
    assert_string_equal(uri, "otpauth://totp/Sallyport:alice@bastion1?secret="
                             "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sallyport");
    assert_int_equal(factor_make_key(&key), 0);
    assert_int_equal(factor_make_key(&other), 0);
    assert_int_equal(key.len, FACTOR_KEY_LEN);
    assert_memory_not_equal(key.data, other.data, FACTOR_KEY_LEN);
}

/* As wide in every line, light around, and not higher than a terminal. */
static void the_picture(void **state)
{
    struct buffer b;
    const char *line;
    size_t width = 0, lines = 0;

    (void)state;
    buffer_init(&b, 16384);
    assert_int_equal(factor_picture("otpauth://totp/Sallyport:alice@bastion1?secret="
                                    "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sallyport",
                                    &b),
                     0);
    for (line = buffer_cstr(&b); *line; lines++) {
        const char *end = strchr(line, '\n');
        size_t cells = 0;

        assert_non_null(end);
        for (; line < end; line += *line == ' ' ? 1 : 3)
            cells++;
        assert_true(lines == 0 || cells == width);
        width = cells;
        line = end + 1;
    }
    assert_in_range(lines, 18, 24);
    assert_in_range(width, 37, 49);
    assert_memory_equal(b.data, "\xe2\x96\x88", 3); /* light */
    buffer_finish(&b);
}

/* ---- in the store ---- */

static uint64_t step_now(const struct secret *key, int64_t now_s, char code[8])
{
    uint64_t step;

    for (unsigned n = 0; n < 1000000; n++) {
        snprintf(code, 8, "%06u", n);
        if (factor_code_fits(key, code, now_s, &step) && step == (uint64_t)now_s / FACTOR_STEP_S)
            return step;
    }
    fail_msg("no code fits");
    return 0;
}

static void used_once(void **state)
{
    struct store *s = store_of(state);
    struct factor_codes codes, fresh;
    struct secret key, got;
    struct store_factor factor;
    struct store_user user;
    char code[8];
    int64_t now_s = 1800000000;
    uint64_t step;

    assert_int_equal(store_user_add(s, "alice", "user"), 0);
    assert_int_equal(store_user_add(s, "bob", "user"), 0);
    assert_int_equal(factor_check(s, "alice", "123456", now_s), FACTOR_FAILED);
    assert_int_equal(factor_make_key(&key), 0);
    assert_int_equal(store_totp_prepare(s, "alice", &key), 0);
    assert_int_equal(store_totp_prepared(s, "alice", &got), 0);
    assert_memory_equal(got.data, key.data, key.len);
    assert_int_equal(store_factor_get(s, "alice", &factor), 0);
    assert_false(factor.is_enrolled || factor.is_required);
    step = step_now(&key, now_s, code);
    assert_int_equal(factor_enable(s, "alice", &key, step - 1, &codes), 0);
    assert_int_equal(store_factor_get(s, "alice", &factor), 0);
    assert_true(factor.is_enrolled && !factor.is_required);
    assert_true(store_totp_prepared(s, "alice", &got) < 0);
    assert_int_equal(factor_check(s, "alice", code, now_s), FACTOR_CODE);
    assert_int_equal(factor_check(s, "alice", code, now_s), FACTOR_REPLAYED);
    fixture_reopen(*state);
    s = store_of(state);
    assert_int_equal(factor_check(s, "alice", code, now_s + 30), FACTOR_REPLAYED);
    /* recovery codes: once, of this user, as people type them */
    assert_int_equal(factor_check(s, "bob", codes.text[0], now_s), FACTOR_WRONG);
    assert_int_equal(factor_check(s, "alice", codes.text[0], now_s), FACTOR_RECOVERY);
    assert_int_equal(factor_check(s, "alice", codes.text[0], now_s), FACTOR_WRONG);
    for (char *c = codes.text[1]; *c; c++)
        *c = *c == '-' ? ' ' : (char)(*c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    assert_int_equal(factor_check(s, "alice", codes.text[1], now_s), FACTOR_RECOVERY);
    assert_int_equal(store_user_get(s, "alice", &user), 0);
    assert_int_equal(user.recovery_count, STORE_RECOVERY_COUNT - 2);
    assert_int_equal(factor_new_codes(s, "alice", &fresh), 0);
    assert_int_equal(factor_check(s, "alice", codes.text[2], now_s), FACTOR_WRONG);
    assert_int_equal(factor_check(s, "alice", fresh.text[2], now_s), FACTOR_RECOVERY);
    assert_int_equal(factor_check(s, "alice", "", now_s), FACTOR_WRONG);
    assert_int_equal(store_totp_disable(s, "alice"), 0);
    assert_int_equal(factor_check(s, "alice", fresh.text[3], now_s), FACTOR_WRONG);
    assert_true(store_totp_key(s, "alice", &got) < 0);
}

static void required_by_user_or_role(void **state)
{
    static const struct {
        const char *user, *role;
        bool is_required;
    } cases[] = {{"", "", false},    {"", "totp", true},   {"no", "totp", false},
                 {"totp", "", true}, {"totp", "no", true}, {"no", "no", false}};
    struct store *s = store_of(state);
    struct store_factor factor;

    assert_int_equal(store_role_add(s, "ops"), 0);
    assert_int_equal(store_user_add(s, "alice", "ops"), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(store_user_set_second_factor(s, "alice", cases[i].user), 0);
        assert_int_equal(store_role_set_second_factor(s, "ops", cases[i].role), 0);
        assert_int_equal(store_factor_get(s, "alice", &factor), 0);
        assert_int_equal(factor.is_required, cases[i].is_required);
    }
    assert_int_equal(store_user_set_second_factor(s, "alice", "sms"), ERR_INVALID);
    assert_int_equal(store_role_set_second_factor(s, "nobody", "totp"), ERR_NOT_FOUND);
    assert_int_equal(store_user_set_auth_source(s, "alice", "ldap"), ERR_INVALID);
    assert_int_equal(store_user_set_auth_source(s, "alice", "pam"), 0);
    assert_int_equal(store_user_set_principals(s, "alice", "a, b"), ERR_INVALID);
    assert_int_equal(store_user_set_principals(s, "alice", ",a"), ERR_INVALID);
    assert_int_equal(store_user_set_principals(s, "alice", "a,"), ERR_INVALID);
    assert_int_equal(store_user_set_principals(s, "alice", "a,b@example.com"), 0);
    assert_int_equal(store_factor_get(s, "nobody", &factor), ERR_NOT_FOUND);
    assert_true(factor.is_required); /* who does not look at the result denies */
}

static void keys_go_with_their_user(void **state)
{
    struct fixture *f = *state;
    struct secret key;
    struct factor_codes codes;
    uint32_t rewritten;
    sqlite3 *db;

    assert_int_equal(store_user_add(f->store, "alice", "user"), 0);
    assert_int_equal(factor_make_key(&key), 0);
    assert_int_equal(factor_enable(f->store, "alice", &key, 1, &codes), 0);
    assert_int_equal(store_totp_prepare(f->store, "alice", &key), 0);
    assert_int_equal(store_rotate_key(f->store, &rewritten), 0);
    assert_int_equal(rewritten, 2);
    assert_int_equal(factor_check(f->store, "alice", codes.text[0], 0), FACTOR_RECOVERY);
    assert_int_equal(store_user_remove(f->store, "alice"), 0);
    db = outsider(f->db);
    assert_string_equal(sql_one(db, "SELECT count(*) FROM secrets"), "0");
    assert_string_equal(sql_one(db, "SELECT count(*) FROM recovery_codes"), "0");
    (void)sqlite3_close(db);
}

/* ---- messages of sallyport-pam ---- */

static void pam_messages(void **state)
{
    struct pam_talk m = {.type = PAM_TALK_PROMPT, .flag = 1}, got;
    struct buffer b;
    int pair[2], fd, one[2];

    (void)state;
    (void)text_copy(m.service, sizeof(m.service), "sallyport");
    (void)text_copy(m.user, sizeof(m.user), "alice");
    memset(m.text, 'x', PAM_TALK_TEXT_MAX);
    buffer_init(&b, PAM_TALK_MAX);
    pam_talk_encode(&m, &b);
    assert_false(b.failed);
    assert_int_equal(pam_talk_decode(&got, b.data, b.len), 0);
    assert_memory_equal(&got, &m, sizeof(m));
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(pam_talk_decode(&got, b.data, len), ERR_INVALID);
    b.data[0] = PAM_TALK_TYPES;
    assert_int_equal(pam_talk_decode(&got, b.data, b.len), ERR_INVALID);
    b.data[0] = PAM_TALK_PROMPT;
    b.data[1] = 2;
    assert_int_equal(pam_talk_decode(&got, b.data, b.len), ERR_INVALID);
    b.data[1] = 1;
    b.data[b.len - 3] = 0; /* a NUL in a text */
    assert_int_equal(pam_talk_decode(&got, b.data, b.len), ERR_INVALID);
    buffer_finish(&b);

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, one), 0);
    assert_int_equal(pam_talk_receive(pair[1], &got, &fd), ERR_AGAIN);
    assert_int_equal(pam_talk_send(pair[0], &m, one[0]), 0);
    assert_int_equal(pam_talk_receive(pair[1], &got, &fd), 0);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(pam_talk_send(pair[0], &m, -1), 0);
    assert_int_equal(pam_talk_receive(pair[1], &got, NULL), 0);
    close(pair[0]);
    assert_int_equal(pam_talk_receive(pair[1], &got, &fd), ERR_CLOSED);
    assert_int_equal(pam_talk_send(pair[1], &m, -1), ERR_CLOSED);
    close(pair[1]);
    close(one[0]);
    close(one[1]);
}

#define STORED(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_vectors),    cmocka_unit_test(key_texts),
        cmocka_unit_test(the_picture),    STORED(used_once),
        STORED(required_by_user_or_role), STORED(keys_go_with_their_user),
        cmocka_unit_test(pam_messages),
    };

    return cmocka_run_group_tests_name("factor", tests, NULL, NULL);
}
