/* The pure parts of proxy/ssh: kinds of commands, key rules, blobs, the menu. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sallyport/buffer.h>
#include <sallyport/fingerprint.h>
#include <sallyport/text.h>

#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/blob.h"
#include "proxy/ssh/fiber.h"
#include "proxy/ssh/kind.h"
#include "proxy/ssh/menu.h"

/* ---- fibers ---- */

struct walk {
    char seen[64];
    int depth;
};

static void note(struct walk *w, char c)
{
    w->seen[strlen(w->seen)] = c; /* zeros behind it */
}

static int deep(struct walk *w, int n)
{
    volatile char room[1024]; /* of the fiber's own stack */

    room[0] = (char)n;
    if (n == 0) {
        fiber_yield();
        return w->depth;
    }
    return deep(w, n - 1) + room[0] - n;
}

static void walk(void *arg)
{
    struct walk *w = arg;

    note(w, 'a');
    fiber_yield();
    note(w, 'b');
    w->depth = 7;
    if (deep(w, 100) == 7)
        note(w, 'c');
}

static void test_fiber(void **state)
{
    struct walk one = {"", 0}, two = {"", 0};
    struct fiber *f = fiber_create(walk, &one), *g = fiber_create(walk, &two);

    (void)state;
    assert_non_null(f);
    assert_non_null(g);
    assert_true(fiber_is_done(f)); /* nothing to unwind yet */
    fiber_resume(f);
    assert_string_equal(one.seen, "a");
    fiber_resume(g);
    assert_false(fiber_is_done(f));
    fiber_resume(f);
    assert_string_equal(one.seen, "ab");
    fiber_resume(f);
    assert_string_equal(one.seen, "abc");
    assert_true(fiber_is_done(f));
    fiber_resume(g);
    fiber_resume(g);
    assert_string_equal(two.seen, "abc");
    fiber_destroy(f);
    fiber_destroy(g);
    fiber_destroy(NULL);
}

/* ---- kinds of commands ---- */

struct kind_case {
    const char *command;
    enum link_channel_kind kind;
};

static const struct kind_case kind_cases[] = {
    {"scp -t /tmp", CHANNEL_TRANSFER},
    {"scp -f file", CHANNEL_TRANSFER},
    {"scp -v -r -p -t -- /tmp", CHANNEL_TRANSFER},
    {"scp -rt dir", CHANNEL_TRANSFER},
    {"/usr/bin/scp -d -t .", CHANNEL_TRANSFER},
    {"rsync --server -vlogDtpre.iLsfxCIvu . /srv/", CHANNEL_TRANSFER},
    {"rsync --server --sender -e.LsfxCIvu . x", CHANNEL_TRANSFER},
    {"git-upload-pack '/srv/a.git'", CHANNEL_TRANSFER},
    {"git-receive-pack 'a'", CHANNEL_TRANSFER},
    {"git-upload-archive 'a'", CHANNEL_TRANSFER},
    {"/usr/lib/openssh/sftp-server", CHANNEL_TRANSFER},
    {"/usr/lib/openssh/sftp-server -l INFO", CHANNEL_TRANSFER},
    {"", CHANNEL_EXEC},
    {"   ", CHANNEL_EXEC},
    {"scp", CHANNEL_EXEC},
    {"scp a b:", CHANNEL_EXEC},
    {"scp -- -t x", CHANNEL_EXEC},
    {"scp -t /x; bash", CHANNEL_EXEC},
    {"scp -t /x && bash", CHANNEL_EXEC},
    {"scp -t /x\nbash", CHANNEL_EXEC},
    {"scp -t `bash`", CHANNEL_EXEC},
    {"scp -t $(bash)", CHANNEL_EXEC},
    {"scp -t x | sh", CHANNEL_EXEC},
    {"rsync a b", CHANNEL_EXEC},
    {"rsync --servers x", CHANNEL_EXEC},
    {"git status", CHANNEL_EXEC},
    {"uptime", CHANNEL_EXEC},
    {"myscp -t x", CHANNEL_EXEC},
    {"/usr/bin/scp -t x", CHANNEL_TRANSFER},
    {"/usr/lib/openssh/sftp-server", CHANNEL_TRANSFER},
    {"/usr/libexec/sftp-server", CHANNEL_TRANSFER},
    {"/tmp/x/scp -t x", CHANNEL_EXEC},
    {"./scp -t x", CHANNEL_EXEC},
    {"bin/scp -t x", CHANNEL_EXEC},
    {"/usr/bin/../../tmp/scp -t x", CHANNEL_EXEC},
    {"scpx -t x", CHANNEL_EXEC},
    {"bash -c 'scp -t x'", CHANNEL_EXEC},
    {"PATH=/evil scp -t x", CHANNEL_EXEC},
};

static void test_kinds(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(kind_cases) / sizeof(kind_cases[0]); i++) {
        if (kind_of_command(kind_cases[i].command) != kind_cases[i].kind)
            fail_msg("wrong kind of '%s'", kind_cases[i].command);
    }
}

static void test_mosh(void **state)
{
    static const char *const yes[] = {
        "mosh-server new -c 256 -s -l LANG=C.UTF-8",
        "/usr/bin/mosh-server 'new' '-s'",
        "sh -c '[ -n \"$SSH_CONNECTION\" ] && printf \"x\"' ; mosh-server 'new'",
    };
    static const char *const no[] = {"",
                                     "mosh",
                                     "ls -l /usr/bin/mosh-server",
                                     "apt install mosh-server",
                                     "mosh-servers new",
                                     "echo ;mosh-server"};

    (void)state;
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        assert_true(kind_is_mosh(yes[i]));
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        assert_false(kind_is_mosh(no[i]));
}

/* ---- keys ---- */

static void put_string(struct buffer *b, const void *data, size_t len)
{
    buffer_put_be(b, len, 4);
    buffer_put(b, data, len);
}

/* An RSA blob whose modulus has `bits` bits. */
static void put_rsa(struct buffer *b, size_t bits)
{
    uint8_t n[1025] = {0};
    size_t bytes = (bits + 7) / 8;

    n[1] = (uint8_t)(1u << ((bits - 1) % 8)); /* behind a zero, as a positive mpint has it */
    put_string(b, "ssh-rsa", 7);
    put_string(b, "\1\0\1", 3);
    put_string(b, n, bytes + 1);
}

static void test_rsa_size(void **state)
{
    static const struct {
        size_t bits;
        bool is_ok;
    } cases[] = {{1024, false}, {2047, false}, {2048, true}, {3072, true}, {4096, true}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer b;
        char type[64];

        buffer_init(&b, 8192);
        put_rsa(&b, cases[i].bits);
        assert_int_equal(algorithms_check_key(b.data, b.len, type, sizeof(type)) == NULL,
                         cases[i].is_ok);
        assert_string_equal(type, "ssh-rsa");
        for (size_t n = 0; n < b.len; n++) /* cut anywhere it is never taken */
            assert_non_null(algorithms_check_key(b.data, n, type, sizeof(type)));
        buffer_finish(&b);
    }
}

static void test_key_types(void **state)
{
    static const struct {
        const char *type;
        bool is_ok;
    } cases[] = {
        {"ssh-ed25519", true},
        {"ecdsa-sha2-nistp256", true},
        {"ecdsa-sha2-nistp384", true},
        {"ecdsa-sha2-nistp521", true},
        {"sk-ssh-ed25519@openssh.com", true},
        {"sk-ecdsa-sha2-nistp256@openssh.com", true},
        {"ssh-dss", false},
        {"rsa-sha2-256", false},
        {"ssh-ed25519-cert-v01@openssh.com", true}, /* the broker judges it */
        {"ssh-ed25519-cert-v00@openssh.com", false},
        {"ssh-dss-cert-v01@openssh.com", false},
        {"ssh-ed448", false},
        {"", false},
        {"ssh-ed25519,ssh-dss", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct buffer b;
        char type[64];

        buffer_init(&b, 256);
        put_string(&b, cases[i].type, strlen(cases[i].type));
        put_string(&b, "0123456789abcdef0123456789abcdef", 32);
        if ((algorithms_check_key(b.data, b.len, type, sizeof(type)) == NULL) != cases[i].is_ok)
            fail_msg("wrong answer for '%s'", cases[i].type);
        buffer_finish(&b);
    }
}

static void test_key_type_is_bounded(void **state)
{
    struct buffer b;
    char type[64];
    char name[80];

    (void)state;
    memset(name, 'a', sizeof(name));
    buffer_init(&b, 256);
    put_string(&b, name, sizeof(name));
    assert_non_null(algorithms_check_key(b.data, b.len, type, sizeof(type)));
    assert_string_equal(type, "");
    buffer_reset(&b);
    put_string(&b, "ssh-ed\0", 7);
    assert_non_null(algorithms_check_key(b.data, b.len, type, sizeof(type)));
    buffer_finish(&b);
}

static void test_host_key_types(void **state)
{
    (void)state;
    assert_true(algorithms_is_host_key("ssh-ed25519"));
    assert_true(algorithms_is_host_key("ssh-rsa"));
    assert_true(algorithms_is_host_key("ecdsa-sha2-nistp256"));
    assert_false(algorithms_is_host_key("rsa-sha2-256")); /* a signature, not a key */
    assert_false(algorithms_is_host_key("ssh-dss"));
    assert_false(algorithms_is_host_key(""));
    assert_false(algorithms_is_host_key("ssh-ed"));
    assert_false(algorithms_is_host_key("ssh-ed25519,ecdsa-sha2-nistp256"));
}

static void test_libssh_takes_the_lists(void **state)
{
    ssh_bind bind;
    ssh_session ssh;

    (void)state;
    assert_int_equal(ssh_init(), SSH_OK);
    bind = ssh_bind_new();
    ssh = ssh_new();
    assert_non_null(bind);
    assert_non_null(ssh);
    assert_int_equal(algorithms_set_server(bind), 0);
    assert_int_equal(algorithms_set_client(ssh, ""), 0);
    assert_int_equal(algorithms_set_client(ssh, "ssh-rsa"), 0);
    assert_int_equal(algorithms_set_client(ssh, "ssh-dss"), ERR_INVALID);
    (void)algorithms_have_post_quantum();
    ssh_free(ssh);
    ssh_bind_free(bind);
}

static void test_blob(void **state)
{
    static const uint8_t blob[] = {0, 0, 0, 1, 'a', 'x'};
    char type[8], fingerprint[FINGERPRINT_MAX];

    (void)state;
    assert_true(blob_type(blob, sizeof(blob), type, sizeof(type)));
    assert_string_equal(type, "a");
    assert_false(blob_type(blob, 4, type, sizeof(type)));
    assert_string_equal(type, "");
    fingerprint_sha256(fingerprint, "", 0);
    assert_string_equal(fingerprint, "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
    assert_string_equal(blob_software("SSH-2.0-OpenSSH_9.2p1 x"), "OpenSSH_9.2p1 x");
    assert_string_equal(blob_software("SSH-1.99-Old"), "Old");
    assert_string_equal(blob_software(NULL), "");
}

/* ---- the menu ---- */

static struct menu *make_menu(size_t count)
{
    struct menu *m = menu_create("alice", "xterm", 80, 24);
    struct link_target_row row = {.account = "root"};

    assert_non_null(m);
    for (size_t i = 1; i <= count; i++) {
        snprintf(row.target, sizeof(row.target), "%s%02zu", i % 2 ? "web" : "db", i);
        assert_true(menu_add(m, &row, 1, count));
    }
    return m;
}

static enum menu_action type_text(struct menu *m, const char *keys)
{
    enum menu_action last = MENU_NOTHING;

    for (; *keys; keys++)
        last = menu_key(m, (uint8_t)*keys);
    return last;
}

static const char *drawn(const struct menu *m, struct buffer *out)
{
    buffer_reset(out);
    menu_draw(m, 1000000000, out);
    return buffer_cstr(out);
}

static void test_menu_filter(void **state)
{
    struct menu *m = make_menu(20);

    (void)state;
    assert_string_equal(menu_selected(m)->target, "web01");
    assert_int_equal(type_text(m, "db"), MENU_DRAW);
    assert_int_equal(m->shown_count, 10);
    assert_string_equal(menu_selected(m)->target, "db02");
    type_text(m, "zz");
    assert_int_equal(m->shown_count, 0);
    assert_null(menu_selected(m));
    assert_int_equal(type_text(m, "\r"), MENU_DRAW); /* nothing to choose */
    type_text(m, "\177\177");
    assert_int_equal(m->shown_count, 10);
    type_text(m, "\025ROOT"); /* Ctrl-U; accounts count, case does not */
    assert_int_equal(m->shown_count, 20);
    menu_destroy(m);
}

static void test_menu_number(void **state)
{
    struct menu *m = make_menu(20);

    (void)state;
    type_text(m, "2");
    assert_string_equal(menu_selected(m)->target, "db02"); /* not web... with a 2 in it */
    assert_int_equal(type_text(m, "\r"), MENU_CHOSEN);
    type_text(m, "\0252");
    type_text(m, "0");
    assert_string_equal(menu_selected(m)->target, "db20");
    menu_destroy(m);
}

static void test_menu_moves(void **state)
{
    struct menu *m = make_menu(50);

    (void)state;
    type_text(m, "\033[B\033[B\033OA");
    assert_int_equal(m->selected, 1);
    type_text(m, "\033[6~");
    assert_int_equal(m->selected, 21);
    type_text(m, "\033[F");
    assert_int_equal(m->selected, 49);
    type_text(m, "\033[5~\033[H\033[A");
    assert_int_equal(m->selected, 0);
    type_text(m, "\033[1;5C\033[99~\033x"); /* sequences that mean nothing here */
    assert_int_equal(m->selected, 0);
    assert_string_equal(m->filter, "");
    menu_destroy(m);
}

static void test_menu_quits(void **state)
{
    struct menu *m = make_menu(3);

    (void)state;
    assert_int_equal(type_text(m, "q"), MENU_QUIT);
    assert_int_equal(type_text(m, "\003"), MENU_QUIT);
    assert_int_equal(type_text(m, "\004"), MENU_QUIT);
    assert_int_equal(type_text(m, "wq"), MENU_DRAW); /* part of a name */
    assert_string_equal(m->filter, "wq");
    menu_destroy(m);
}

/* The last line's number and the widest line of what was drawn, without escape sequences. */
static void measure(const char *text, size_t *lines, size_t *widest)
{
    size_t width = 0;

    *lines = *widest = 0;
    for (; *text; text++) {
        if (*text == '\033') {
            text += strcspn(text, "HJKhlm");
            width = *text == 'H' ? 0 : width;
        } else if (*text == '\n' || *text == '\r') {
            *lines += *text == '\n';
            width = 0;
        } else {
            width += ((unsigned char)*text & 0xc0) != 0x80;
        }
        *widest = width > *widest ? width : *widest;
    }
}

static void test_menu_draws_within_its_screen(void **state)
{
    static const uint16_t sizes[][2] = {{80, 24}, {40, 10}, {20, 6}, {1, 1}, {132, 50}, {49, 7}};
    struct menu *m = make_menu(200);
    struct buffer out;
    size_t lines, widest;

    (void)state;
    buffer_init(&out, 65536);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) * 2; i++) {
        if (i % 2)
            menu_set_message(m, "a sentence that goes on and on and on and on and on and on and on "
                                "and on and on and on and on and on until it is over");
        menu_resize(m, sizes[i / 2][0], sizes[i / 2][1]);
        measure(drawn(m, &out), &lines, &widest);
        assert_true(lines <= m->lines - 2u); /* the prompt and the keys have their own */
        assert_true(widest < m->cols);
        (void)type_text(m, "w\177"); /* takes the sentence away */
    }
    buffer_finish(&out);
    menu_destroy(m);
}

static void test_menu_last_used_first(void **state)
{
    struct menu *m = make_menu(4);
    struct link_target_row rows[] = {{.target = "old", .last_used_wall_us = 1},
                                     {.target = "new", .last_used_wall_us = 9}};

    (void)state;
    assert_true(menu_add(m, rows, 2, 6));
    assert_string_equal(m->rows[0].target, "new");
    assert_string_equal(m->rows[1].target, "old");
    assert_string_equal(m->rows[2].target, "web01");
    assert_string_equal(m->rows[5].target, "db04");
    assert_string_equal(menu_selected(m)->target, "new");
    menu_destroy(m);
}

static void test_menu_ago(void **state)
{
    static const struct {
        int64_t s;
        const char *text;
    } rows[] = {{-5, "just now"},      {59, "just now"},        {60, "1m ago"},
                {7199, "1h ago"},      {7200, "2h ago"},        {47 * 3600, "47h ago"},
                {48 * 3600, "2d ago"}, {99 * 86400, "99d ago"}, {100 * 86400, "2026-08-14"}};
    const int64_t now = INT64_C(1795305600); /* 2026-11-22 */
    char text[32];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_string_equal(
            menu_ago(text, sizeof(text), (now - rows[i].s) * 1000000, now * 1000000), rows[i].text);
    assert_string_equal(menu_ago(text, sizeof(text), 0, now), "never");
}

static void test_menu_characters(void **state)
{
    struct menu *m = make_menu(0);
    struct link_target_row row = {.target = "web", .account = "J\xc3\xbcrgen \xe6\x9d\xb1"};
    struct buffer out;

    (void)state;
    assert_int_equal(menu_cells("J\xc3\xbcrgen \xe6\x9d\xb1"), 9); /* a wide one takes two */
    assert_int_equal(menu_cells("e\xcc\x81"), 1);                  /* a combining one none */
    assert_int_equal(menu_fit("\xe6\x9d\xb1\xe6\x9d\xb1", 3), 3);
    assert_int_equal(menu_cells("\xc3"), 1); /* cut off: no reading past the end */
    assert_true(menu_add(m, &row, 1, 1));
    assert_int_equal(menu_key(m, 0xc3), MENU_NOTHING); /* half a character is not drawn */
    assert_int_equal(menu_key(m, 0xbc), MENU_DRAW);
    assert_string_equal(menu_selected(m)->target, "web");
    assert_int_equal(menu_key(m, 127), MENU_DRAW);
    assert_string_equal(m->filter, "");
    buffer_init(&out, 65536);
    menu_resize(m, 20, 6);
    assert_non_null(drawn(m, &out));
    buffer_finish(&out);
    menu_destroy(m);
}

static void test_menu_without_cursor(void **state)
{
    struct menu *m = menu_create("alice", "dumb", 80, 24);
    struct link_target_row rows[] = {{.target = "web"}, {.target = "web2"}, {.target = "db"}};
    struct buffer out;

    (void)state;
    assert_non_null(m);
    assert_true(menu_add(m, rows, 3, 3));
    buffer_init(&out, 65536);
    assert_null(strchr(drawn(m, &out), '\033'));
    assert_non_null(strstr(buffer_cstr(&out), "   1) web"));
    assert_int_equal(menu_key(m, 'w'), MENU_ECHO);
    assert_string_equal(m->echo, "w");
    assert_int_equal(menu_key(m, '\r'), MENU_DRAW); /* two fit: they are listed */
    assert_int_equal(type_text(m, "eb"), MENU_ECHO);
    assert_int_equal(menu_key(m, '\r'), MENU_CHOSEN); /* named in full */
    assert_string_equal(menu_selected(m)->target, "web");
    (void)menu_key(m, 21);
    assert_int_equal(menu_key(m, '3'), MENU_ECHO);
    assert_int_equal(menu_key(m, '\r'), MENU_CHOSEN);
    assert_string_equal(menu_selected(m)->target, "db");
    buffer_finish(&out);
    menu_destroy(m);
}

static void test_menu_escapes(void **state)
{
    struct menu *m = menu_create("alice", "xterm", 80, 24);
    struct link_target_row row = {.target = "a\033[31mb", .account = "x\r\ny"};
    struct buffer out;
    const char *text;

    (void)state;
    buffer_init(&out, 65536);
    assert_non_null(strstr(drawn(m, &out), "...")); /* the list is on its way */
    assert_true(menu_add(m, &row, 1, 1));
    menu_set_message(m, "no\033]0;x\a");
    text = drawn(m, &out);
    assert_null(strstr(text, "\033[31m"));
    assert_null(strstr(text, "\033]0"));
    assert_null(strstr(text, "x\r\ny"));
    buffer_finish(&out);
    menu_destroy(m);
}

static void test_menu_rows_are_bounded(void **state)
{
    struct menu *m = make_menu(0);
    struct link_target_row rows[200] = {0};

    (void)state;
    assert_false(menu_is_complete(m));
    for (int i = 0; i < 8; i++)
        assert_true(menu_add(m, rows, 200, 100000));
    assert_int_equal(m->count, MENU_ROWS_MAX);
    assert_true(menu_is_complete(m));
    menu_destroy(m);
}

/* Any bytes from a keyboard: no crash, and drawing stays possible. */
static void test_menu_noise(void **state)
{
    struct menu *m = make_menu(30);
    struct buffer out;
    unsigned seed = 7;

    (void)state;
    buffer_init(&out, 65536);
    for (int i = 0; i < 20000; i++) {
        seed = seed * 1103515245u + 12345u;
        (void)menu_key(m, (uint8_t)(seed >> 16));
        if (i % 100 == 0)
            assert_non_null(drawn(m, &out));
    }
    buffer_finish(&out);
    menu_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fiber),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_mosh),
        cmocka_unit_test(test_rsa_size),
        cmocka_unit_test(test_key_types),
        cmocka_unit_test(test_key_type_is_bounded),
        cmocka_unit_test(test_host_key_types),
        cmocka_unit_test(test_libssh_takes_the_lists),
        cmocka_unit_test(test_blob),
        cmocka_unit_test(test_menu_filter),
        cmocka_unit_test(test_menu_number),
        cmocka_unit_test(test_menu_moves),
        cmocka_unit_test(test_menu_quits),
        cmocka_unit_test(test_menu_draws_within_its_screen),
        cmocka_unit_test(test_menu_last_used_first),
        cmocka_unit_test(test_menu_ago),
        cmocka_unit_test(test_menu_characters),
        cmocka_unit_test(test_menu_without_cursor),
        cmocka_unit_test(test_menu_escapes),
        cmocka_unit_test(test_menu_rows_are_bounded),
        cmocka_unit_test(test_menu_noise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
