/* Login names from strangers: what is taken, and everything that is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include <sallyport/login.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *text;
    const char *separators;
    const char *user, *account, *target;
} good[] = {
    {"alice", "+", "alice", "", ""},
    {"alice+web01", "+", "alice", "", "web01"},
    {"alice+root+web01", "+", "alice", "root", "web01"},
    {"alice+DOM\\bob+win01", "+", "alice", "DOM\\bob", "win01"},
    {"alice+J\xc3\xb6rg+win01", "+", "alice", "J\xc3\xb6rg", "win01"},
    {"alice+a:b#c@d+win01", "+", "alice", "a:b#c@d", "win01"},
    {"alice:web01", "+:#@", "alice", "", "web01"},
    {"alice@root@web01", "+:#@", "alice", "root", "web01"},
    {"alice#root#web01", "+:#@", "alice", "root", "web01"},
    {"alice+web01", "", "alice", "", "web01"},
    {"alice+web01", NULL, "alice", "", "web01"},
    {"a.b_c-d", "+", "a.b_c-d", "", ""},
};

static void takes_logins(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(good); i++) {
        struct login l;

        assert_int_equal(login_parse(&l, good[i].text, strlen(good[i].text), good[i].separators),
                         0);
        assert_string_equal(l.user, good[i].user);
        assert_string_equal(l.account, good[i].account);
        assert_string_equal(l.target, good[i].target);
    }
}

static const struct {
    const char *text;
    size_t len;
    const char *separators;
} bad[] = {
    {"", 0, "+"},
    {"+", 1, "+"},
    {"alice+", 6, "+"},
    {"+web01", 6, "+"},
    {"alice++web01", 12, "+"},
    {"alice+root+", 11, "+"},
    {"a+b+c+d", 7, "+"},
    {"a+b+c+", 6, "+"},
    {"alice@root+web01", 16, "+:#@"}, /* two different separators: two ways to read it */
    {"alice+a@b+web01", 15, "+:#@"},
    {"alice:a+b:web01", 15, ":"}, /* no account has a plus */
    {"alice:web01", 11, "+"},
    {"al ice", 6, "+"},
    {"alice+web/01", 12, "+"},
    {"..", 2, "+"},
    {"alice+..", 8, "+"},
    {"alice+a\tb+web", 13, "+"},
    {"alice+a\xff+web", 12, "+"},
    {"al\0ce", 5, "+"},
    {"alice\0", 6, "+"},
    {"\0alice", 6, "+"},
    {"alice+\0+web", 11, "+"},
    {"\xc3\xa9", 2, "+"},
};

static void refuses_the_rest(void **unused)
{
    static const struct login nothing;

    (void)unused;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct login l;

        memset(&l, 'x', sizeof(l));
        assert_int_equal(login_parse(&l, bad[i].text, bad[i].len, bad[i].separators), ERR_INVALID);
        assert_memory_equal(&l, &nothing, sizeof(l));
    }
}

static void keeps_its_limits(void **unused)
{
    char name[NAME_MAX_LEN + 2], account[ACCOUNT_MAX_LEN + 2], text[400];
    struct login l;
    int n;

    (void)unused;
    memset(name, 'n', sizeof(name));
    memset(account, 'a', sizeof(account));
    n = snprintf(text, sizeof(text), "%.64s+%.128s+%.64s", name, account, name);
    assert_int_equal(login_parse(&l, text, (size_t)n, "+"), 0);
    assert_int_equal(strlen(l.user), 64);
    assert_int_equal(strlen(l.account), 128);
    assert_int_equal(strlen(l.target), 64);
    n = snprintf(text, sizeof(text), "%.65s+t", name);
    assert_int_equal(login_parse(&l, text, (size_t)n, "+"), ERR_INVALID);
    n = snprintf(text, sizeof(text), "u+%.129s+t", account);
    assert_int_equal(login_parse(&l, text, (size_t)n, "+"), ERR_INVALID);
    n = snprintf(text, sizeof(text), "u+%.65s", name);
    assert_int_equal(login_parse(&l, text, (size_t)n, "+"), ERR_INVALID);
    memset(text, 'x', sizeof(text));
    assert_int_equal(login_parse(&l, text, sizeof(text), "+"), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_logins),
        cmocka_unit_test(refuses_the_rest),
        cmocka_unit_test(keeps_its_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
