/* CredSSP between our two sides: every version, wrong passwords, wrong keys, broken messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <sallyport/secret.h>

#include "proxy/rdp/credssp.h"

/* WinPR loses some bytes of a login whose password is wrong; each is a process of its own life. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libwinpr\n";
}

static const uint8_t key[] = "a public key, which is a run of bytes for CredSSP";
static const struct tscredentials who = {"DOM", "alice", "a p\xc3\xa4ssword"};

struct login {
    uint32_t version;     /* both sides are made to believe in it */
    bool is_wrapped;      /* the client speaks SPNEGO */
    const char *password; /* what the server knows */
    const uint8_t *key;   /* what the server sees */
    size_t key_len;
};

/* As a proxy would that changes versions, and as an old Windows that wraps what it says. */
static void pass_on(struct buffer *b, const struct login *l, bool is_of_client)
{
    struct buffer keep, token;
    struct tsrequest r;
    bool is_wrapped;

    buffer_init(&keep, TSREQUEST_MAX);
    buffer_init(&token, TSREQUEST_MAX);
    assert_int_equal(tsrequest_parse(cursor_of(b->data, b->len), &r, &keep), PARSE_OK);
    r.version = l->version;
    if (l->is_wrapped && cursor_left(&r.nego_token) && is_of_client) {
        spnego_wrap(&token, r.nego_token.at, cursor_left(&r.nego_token));
        r.nego_token = cursor_of(token.data, token.len);
    } else if (l->is_wrapped && cursor_left(&r.nego_token)) {
        r.nego_token = spnego_unwrap(r.nego_token, &is_wrapped);
        assert_true(is_wrapped);
    }
    buffer_reset(b);
    tsrequest_put(b, &r);
    assert_false(b->failed);
    buffer_finish(&keep);
    buffer_finish(&token);
}

static enum credssp_state run(const struct login *l, struct credssp **client,
                              struct credssp **server)
{
    char user[NTLM_NAME_MAX], domain[NTLM_NAME_MAX];
    uint8_t hash[NTLM_HASH_LEN];
    struct buffer a, b;
    enum credssp_state c = CREDSSP_MORE, s = CREDSSP_MORE;

    buffer_init(&a, TSREQUEST_MAX);
    buffer_init(&b, TSREQUEST_MAX);
    *client = credssp_connect(&who, key, sizeof(key));
    *server = credssp_accept(l->key ? l->key : key, l->key ? l->key_len : sizeof(key));
    assert_non_null(*client);
    assert_non_null(*server);
    while (c == CREDSSP_MORE && s == CREDSSP_MORE) {
        buffer_reset(&a);
        c = credssp_step(*client, cursor_of(b.data, b.len), &a);
        if (a.len == 0)
            break;
        pass_on(&a, l, true);
        buffer_reset(&b);
        s = credssp_step(*server, cursor_of(a.data, a.len), &b);
        if (s == CREDSSP_HASH) {
            assert_true(credssp_identity(*server, user, domain));
            assert_string_equal(user, "alice");
            assert_string_equal(domain, "DOM");
            assert_true(ntlm_hash(l->password ? l->password : who.password, hash));
            s = credssp_judge(*server, hash, &b);
            if (s == CREDSSP_FAILED && b.len) { /* the client learns why */
                buffer_reset(&a);
                assert_int_equal(credssp_step(*client, cursor_of(b.data, b.len), &a),
                                 CREDSSP_FAILED);
            }
        }
        if (b.len && s == CREDSSP_MORE)
            pass_on(&b, l, false);
    }
    buffer_finish(&a);
    buffer_finish(&b);
    return c == CREDSSP_FAILED ? c : s;
}

static void logs_in_by_every_version(void **state)
{
    (void)state;
    for (uint32_t v = 2; v <= 6; v++) {
        for (int wrapped = 0; wrapped < 2; wrapped++) {
            struct login l = {.version = v, .is_wrapped = wrapped};
            struct credssp *client, *server;

            assert_int_equal(run(&l, &client, &server), CREDSSP_DONE);
            assert_string_equal(credssp_credentials(server)->user, who.user);
            assert_string_equal(credssp_credentials(server)->domain, who.domain);
            assert_string_equal(credssp_credentials(server)->password, who.password);
            credssp_finish(client);
            credssp_finish(server);
        }
    }
}

static void refuses_a_wrong_password(void **state)
{
    (void)state;
    for (uint32_t v = 2; v <= 6; v++) {
        struct login l = {.version = v, .password = "another"};
        struct credssp *client, *server;

        assert_int_equal(run(&l, &client, &server), CREDSSP_FAILED);
        assert_string_equal(credssp_why(server), "its user or password is wrong");
        if (v != 2 && v != 5) {
            assert_int_equal(credssp_status(client), STATUS_LOGON_FAILURE);
            assert_string_equal(credssp_why(client), "it does not accept the user or password");
        }
        assert_string_equal(credssp_credentials(server)->password, "");
        credssp_finish(client);
        credssp_finish(server);
    }
}

static void sees_somebody_in_between(void **state)
{
    static const uint8_t other[] = "the public key of somebody else, of any length";

    (void)state;
    for (uint32_t v = 2; v <= 6; v++) {
        struct login l = {.version = v, .key = other, .key_len = sizeof(other)};
        struct credssp *client, *server;

        assert_int_equal(run(&l, &client, &server), CREDSSP_FAILED);
        assert_non_null(strstr(credssp_why(server), "somebody may be in between"));
        credssp_finish(client);
        credssp_finish(server);
    }
}

/* Each byte of each message of a login is cut away and changed: nobody gets in, nothing breaks. */
static void broken_messages_let_nobody_in(void **state)
{
    struct login l = {.version = 6};
    struct buffer first;

    (void)state;
    (void)l;
    buffer_init(&first, TSREQUEST_MAX);
    struct credssp *client = credssp_connect(&who, key, sizeof(key));

    assert_int_equal(credssp_step(client, cursor_of(NULL, 0), &first), CREDSSP_MORE);
    credssp_finish(client);
    for (size_t i = 0; i < 2 * first.len; i++) {
        struct credssp *server = credssp_accept(key, sizeof(key));
        struct buffer copy, out;
        enum credssp_state s;

        buffer_init(&copy, TSREQUEST_MAX);
        buffer_init(&out, TSREQUEST_MAX);
        buffer_put(&copy, first.data, i < first.len ? i : first.len);
        if (i >= first.len)
            copy.data[i - first.len] ^= 0x55;
        s = credssp_step(server, cursor_of(copy.data, copy.len), &out);
        assert_true(s == CREDSSP_FAILED || (s == CREDSSP_MORE && i >= first.len));
        buffer_finish(&copy);
        buffer_finish(&out);
        credssp_finish(server);
    }
    buffer_finish(&first);
}

static void frames(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
        enum parse r;
        size_t len;
    } rows[] = {
        {"", 0, PARSE_MORE, 0},
        {"\x30", 1, PARSE_MORE, 0},
        {"\x30\x02\x01", 3, PARSE_MORE, 0},
        {"\x30\x02\x01\x00", 4, PARSE_OK, 4},
        {"\x30\x02\x01\x00\xff", 5, PARSE_OK, 4},
        {"\x30\x81\x01\x00", 4, PARSE_OK, 4},
        {"\x30\x82\x00\x01\x00", 5, PARSE_OK, 5},
        {"\x31\x02\x01\x00", 4, PARSE_BAD, 0},
        {"\x30\x80\x01\x00", 4, PARSE_BAD, 0},
        {"\x30\x84\x00\x00\x00\x01\x00", 7, PARSE_BAD, 0},
        {"\x30\x83\xff\xff\xff", 5, PARSE_BAD, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cursor c = cursor_of(rows[i].bytes, rows[i].n);
        size_t len = 0;

        assert_int_equal(tsrequest_frame(&c, TSREQUEST_MAX, &len), rows[i].r);
        if (rows[i].r == PARSE_OK)
            assert_int_equal(len, rows[i].len);
    }
}

/* Windows's answer to a wrong password, as it was seen on the wire. */
static void reads_an_error(void **state)
{
    static const uint8_t wire[] = {0x30, 0x0d, 0xa0, 0x03, 0x02, 0x01, 0x06, 0xa4,
                                   0x06, 0x02, 0x04, 0xc0, 0x00, 0x00, 0x6d};
    struct tsrequest r = {0};
    struct buffer keep, b;

    (void)state;
    buffer_init(&keep, 256);
    buffer_init(&b, 256);
    assert_int_equal(tsrequest_parse(cursor_of(wire, sizeof(wire)), &r, &keep), PARSE_OK);
    assert_true(r.has_error && r.error_code == STATUS_LOGON_FAILURE && r.version == 6);
    tsrequest_put(&b, &r);
    assert_int_equal(b.len, sizeof(wire));
    assert_memory_equal(b.data, wire, sizeof(wire));
    buffer_finish(&keep);
    buffer_finish(&b);
}

static int prepare(void **state)
{
    (void)state;
    return ntlm_prepare();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames),
        cmocka_unit_test(reads_an_error),
        cmocka_unit_test(logs_in_by_every_version),
        cmocka_unit_test(refuses_a_wrong_password),
        cmocka_unit_test(sees_somebody_in_between),
        cmocka_unit_test(broken_messages_let_nobody_in),
    };

    return cmocka_run_group_tests(tests, prepare, NULL);
}
