/* Jumps on paper: tickets that name what carries a relay, passes and that each is taken once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/broker/passes.h"
#include "proxy/broker/ticket.h"

static const uint8_t key[32] = {1, 2, 3}, other_key[32] = {9};

static struct pass pass_of(const char *user)
{
    struct pass p = {.outer_pid = 77, .outer_channel = 3};

    snprintf(p.user, sizeof(p.user), "%s", user);
    snprintf(p.target, sizeof(p.target), "web01");
    return p;
}

static void a_ticket_names_what_carries_it(void **unused)
{
    struct ticket t = {.user = "alice", .session_id = 42, .pid = 7, .outer_pid = 5}, back;
    uint8_t data[LINK_TICKET_MAX];
    size_t len;

    (void)unused;
    t.outer_channel = 9;
    memset(t.jump_target, 't', NAME_MAX_LEN);
    memset(t.user, 'u', NAME_MAX_LEN);
    len = ticket_make(key, &t, data);
    assert_true(len > 0);
    assert_int_equal(ticket_read(key, data, len, &back), 0);
    assert_int_equal(back.session_id, 42);
    assert_int_equal(back.outer_pid, 5);
    assert_int_equal(back.outer_channel, 9);
    assert_string_equal(back.jump_target, t.jump_target);
    assert_string_equal(back.user, t.user);
    assert_int_equal(ticket_read(other_key, data, len, &back), ERR_DENIED);
    t = (struct ticket){.user = "alice", .pid = 7};
    len = ticket_make(key, &t, data);
    assert_int_equal(data[0], 1); /* as earlier versions read it */
    assert_int_equal(ticket_read(key, data, len, &back), 0);
    assert_int_equal(back.outer_pid, 0);
    assert_string_equal(back.jump_target, "");
    assert_true(!back.denies && !back.has_second_factor);
}

static void a_ticket_keeps_what_the_login_was(void **unused)
{
    struct ticket t = {.user = "alice", .pid = 7, .denies = 8 | 64, .has_second_factor = true},
                  back;
    uint8_t data[LINK_TICKET_MAX];
    size_t len;

    (void)unused;
    for (int32_t outer = 0; outer < 2; outer++) {
        t.outer_pid = outer;
        len = ticket_make(key, &t, data);
        assert_int_equal(ticket_read(key, data, len, &back), 0);
        assert_int_equal(back.denies, 8 | 64);
        assert_true(back.has_second_factor);
        assert_int_equal(back.outer_pid, outer);
        assert_string_equal(back.user, "alice");
        for (size_t i = 0; i < len; i++)
            assert_int_equal(ticket_read(key, data, i, &back), ERR_DENIED);
    }
}

static void passes_and_tickets_are_told_apart(void **unused)
{
    struct pass p = pass_of("alice"), back_pass;
    struct ticket t = {.user = "alice", .pid = 7}, back_ticket;
    uint8_t data[LINK_TICKET_MAX];
    size_t len;

    (void)unused;
    p.nonce = UINT64_MAX;
    p.issued_ms = 1234567;
    p.denies = 8;
    p.has_second_factor = true;
    len = pass_make(key, &p, data);
    assert_true(pass_is(data, len));
    assert_false(pass_is(data, 0));
    assert_int_equal(pass_read(key, data, len, &back_pass), 0);
    assert_true(back_pass.nonce == UINT64_MAX && back_pass.issued_ms == 1234567);
    assert_int_equal(back_pass.outer_pid, 77);
    assert_true(back_pass.denies == 8 && back_pass.has_second_factor);
    assert_int_equal(back_pass.outer_channel, 3);
    assert_string_equal(back_pass.user, "alice");
    assert_string_equal(back_pass.target, "web01");
    assert_int_equal(ticket_read(key, data, len, &back_ticket), ERR_DENIED);
    assert_int_equal(pass_read(other_key, data, len, &back_pass), ERR_DENIED);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(pass_read(key, data, i, &back_pass), ERR_DENIED);
        data[i] ^= 0x10;
        assert_int_equal(pass_read(key, data, len, &back_pass), ERR_DENIED);
        data[i] ^= 0x10;
    }
    len = ticket_make(key, &t, data);
    assert_false(pass_is(data, len));
    assert_int_equal(pass_read(key, data, len, &back_pass), ERR_DENIED);
}

static void each_pass_is_taken_once(void **unused)
{
    struct passes *all = passes_create(1000);
    struct pass a = pass_of("alice"), b = pass_of("alice");

    (void)unused;
    assert_int_equal(passes_issue(all, &a, 2000), 0);
    assert_int_equal(passes_issue(all, &b, 2000), 0);
    assert_true(a.nonce != b.nonce);
    assert_int_equal(a.issued_ms, 2000);
    assert_int_equal(passes_count(all), 2);
    assert_int_equal(passes_take(all, &b, 2001), 0);
    assert_int_equal(passes_take(all, &b, 2001), ERR_DENIED);
    assert_int_equal(passes_take(all, &a, 2001), 0);
    assert_int_equal(passes_take(all, &a, 2001), ERR_DENIED);
    assert_int_equal(passes_count(all), 0);
    passes_destroy(all);
}

static void a_pass_lives_for_a_minute(void **unused)
{
    struct passes *all = passes_create(1000);
    struct pass a = pass_of("alice"), b = pass_of("alice");

    (void)unused;
    assert_int_equal(passes_issue(all, &a, 2000), 0);
    assert_int_equal(passes_issue(all, &b, 2000), 0);
    assert_int_equal(passes_take(all, &a, 2000 + PASS_LIFE_MS), 0);
    assert_int_equal(passes_take(all, &b, 2001 + PASS_LIFE_MS), ERR_DENIED);
    assert_int_equal(passes_count(all), 0);
    b.issued_ms = 10 * 1000 * 1000; /* of the future */
    assert_int_equal(passes_take(all, &b, 3000), ERR_DENIED);
    passes_destroy(all);
}

static void an_earlier_brokers_pass_is_taken_once(void **unused)
{
    struct passes *before = passes_create(1000), *after;
    struct pass a = pass_of("alice"), forged = pass_of("alice");

    (void)unused;
    assert_int_equal(passes_issue(before, &a, 2000), 0);
    passes_destroy(before);
    after = passes_create(3000);
    assert_int_equal(passes_take(after, &a, 3001), 0);
    assert_int_equal(passes_take(after, &a, 3002), ERR_DENIED);
    forged.nonce = a.nonce + 1;
    forged.issued_ms = 3000; /* would be of ours, and is not */
    assert_int_equal(passes_take(after, &forged, 3002), ERR_DENIED);
    assert_int_equal(passes_take(after, &a, 2001 + PASS_LIFE_MS), ERR_DENIED);
    passes_destroy(after);
}

static void they_are_bounded(void **unused)
{
    struct passes *all = passes_create(0);
    struct pass p = pass_of("alice");
    char name[16];

    (void)unused;
    for (int i = 0; i < PASSES_PER_USER; i++)
        assert_int_equal(passes_issue(all, &p, 5), 0);
    assert_int_equal(passes_issue(all, &p, 5), ERR_FULL);
    for (size_t i = PASSES_PER_USER; i < PASSES_MAX; i++) {
        snprintf(name, sizeof(name), "u%zu", i / PASSES_PER_USER);
        p = pass_of(name);
        assert_int_equal(passes_issue(all, &p, 5), 0);
    }
    p = pass_of("zoe");
    assert_int_equal(passes_issue(all, &p, 5), ERR_FULL);
    assert_int_equal(passes_issue(all, &p, 6 + PASS_LIFE_MS), 0);
    assert_int_equal(passes_count(all), 1);
    passes_destroy(all);
    passes_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticket_names_what_carries_it),
        cmocka_unit_test(a_ticket_keeps_what_the_login_was),
        cmocka_unit_test(passes_and_tickets_are_told_apart),
        cmocka_unit_test(each_pass_is_taken_once),
        cmocka_unit_test(a_pass_lives_for_a_minute),
        cmocka_unit_test(an_earlier_brokers_pass_is_taken_once),
        cmocka_unit_test(they_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
