/* A login by NLA in parts: the helper's messages, one attempt, the hash, and who gets NLA at all.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <sallyport/nla_talk.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/broker/rdp_key.h"
#include "proxy/nla/attempt.h"
#include "proxy/rdp/wire.h"
#include "tracker/nt_hash.h"

/* WinPR loses some bytes of a login whose password is wrong; each is a process of its own life. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libwinpr\n";
}

static const uint8_t key[] = "a public key, which is a run of bytes for CredSSP";
static const struct tscredentials who = {"DOM", "alice+win01", "a p\xc3\xa4ssword"};

/* ---- messages ---- */

static struct nla_talk m, got; /* large */

static void fill(void)
{
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_LOGIN;
    text_copy(m.user, sizeof(m.user), "alice");
    text_copy(m.domain, sizeof(m.domain), "win01");
    text_copy(m.password, sizeof(m.password), "secret");
    text_copy(m.text, sizeof(m.text), "why");
    m.data_len = 3;
    memcpy(m.data, "\1\2\3", 3);
}

/* By fields: what is between them may hold anything. */
static void assert_same(void)
{
    assert_int_equal(got.type, m.type);
    assert_memory_equal(got.user, m.user, sizeof(m.user));
    assert_memory_equal(got.domain, m.domain, sizeof(m.domain));
    assert_memory_equal(got.password, m.password, sizeof(m.password));
    assert_memory_equal(got.text, m.text, sizeof(m.text));
    assert_int_equal(got.data_len, m.data_len);
    assert_memory_equal(got.data, m.data, sizeof(m.data));
}

static void test_talk(void **state)
{
    struct buffer b;

    (void)state;
    fill();
    buffer_init_secret(&b, NLA_TALK_MAX);
    nla_talk_encode(&m, &b);
    assert_false(b.failed);
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), 0);
    assert_same();
    for (size_t n = 0; n < b.len; n++) /* the data is what is left: a shorter one is another one */
        assert_int_equal(nla_talk_decode(&got, b.data, n), n < b.len - 3 ? ERR_INVALID : 0);
    b.data[0] = 0;
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), ERR_INVALID);
    b.data[0] = NLA_TALK_TYPES;
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), ERR_INVALID);
    b.data[0] = NLA_TALK_LOGIN;
    b.data[4] = '\0'; /* inside a name */
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), ERR_INVALID);
    buffer_finish(&b);
}

static void test_talk_largest(void **state)
{
    struct buffer b;

    (void)state;
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_FAILED;
    memset(m.user, 'x', sizeof(m.user) - 1);
    memset(m.domain, 'x', sizeof(m.domain) - 1);
    memset(m.password, 'x', sizeof(m.password) - 1);
    memset(m.text, 'x', sizeof(m.text) - 1);
    memset(m.data, 'x', sizeof(m.data));
    m.data_len = NLA_TALK_DATA_MAX;
    buffer_init_secret(&b, NLA_TALK_MAX);
    nla_talk_encode(&m, &b);
    assert_false(b.failed);
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), 0);
    assert_same();
    buffer_put(&b, "y", 1);
    assert_int_equal(nla_talk_decode(&got, b.data, b.len), ERR_INVALID);
    buffer_reset(&b);
    m.text[sizeof(m.text) - 1] = 'x';
    nla_talk_encode(&m, &b);
    assert_true(b.failed);
    buffer_finish(&b);
}

static void test_talk_descriptors(void **state)
{
    int pair[2], sent[2], fds[2];

    (void)state;
    fill();
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
    assert_int_equal(nla_talk_receive(pair[0], &got, fds), ERR_AGAIN);
    assert_int_equal(pipe(sent), 0);
    assert_int_equal(nla_talk_send(pair[1], &m, sent), 0);
    assert_int_equal(nla_talk_receive(pair[0], &got, fds), 0);
    assert_same();
    assert_true(fds[0] >= 0 && fds[1] >= 0);
    assert_int_equal(write(fds[1], "z", 1), 1);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(nla_talk_send(pair[1], &m, sent), 0);
    assert_int_equal(nla_talk_receive(pair[0], &got, NULL), 0); /* nobody wants them: closed */
    close(sent[0]);
    close(sent[1]);
    assert_int_equal(send(pair[1], "\1\0", 2, 0), 2);
    assert_int_equal(nla_talk_receive(pair[0], &got, fds), ERR_INVALID);
    close(pair[1]);
    assert_int_equal(nla_talk_receive(pair[0], &got, fds), ERR_CLOSED);
    close(pair[0]);
}

/* ---- one attempt ---- */

struct fixture {
    struct attempt attempt;
    struct credssp *client;
    struct attempt_step step;
    struct buffer out;
    enum credssp_state state;
};

static int begin(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_true(attempt_begin(&f->attempt, key, sizeof(key)));
    f->client = credssp_connect(&who, key, sizeof(key));
    assert_non_null(f->client);
    buffer_init_secret(&f->out, TSREQUEST_MAX);
    *state = f;
    return 0;
}

static int finish(void **state)
{
    struct fixture *f = *state;

    attempt_finish(&f->attempt);
    credssp_finish(f->client);
    buffer_finish(&f->out);
    free(f);
    return 0;
}

/* What the client says next, after `in`, goes to the attempt. */
static void say(struct fixture *f, const struct nla_talk *in)
{
    struct cursor c = in ? cursor_of(in->data, in->data_len) : cursor_of(NULL, 0);

    buffer_reset(&f->out);
    f->state = credssp_step(f->client, c, &f->out);
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_TOKEN;
    m.data_len = (uint16_t)f->out.len;
    memcpy(m.data, f->out.data, f->out.len);
    attempt_from_relay(&f->attempt, &m, &f->step);
}

static void give(struct fixture *f, const char *password)
{
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_HASH;
    m.data_len = NLA_HASH_LEN;
    assert_true(ntlm_hash(password, m.data));
    attempt_from_broker(&f->attempt, &m, &f->step);
}

static void up_to_hash(struct fixture *f)
{
    say(f, NULL);
    assert_true(f->step.has_relay && !f->step.has_broker && !f->step.is_over);
    got = f->step.relay;
    say(f, &got);
    assert_true(!f->step.has_relay && f->step.has_broker && !f->step.is_over);
    assert_int_equal(f->step.broker.type, NLA_TALK_WHO);
    assert_string_equal(f->step.broker.user, "alice+win01");
    assert_string_equal(f->step.broker.domain, "DOM");
    assert_string_equal(f->step.broker.password, "");
}

static void test_right(void **state)
{
    struct fixture *f = *state;

    up_to_hash(f);
    give(f, who.password);
    assert_true(f->step.has_relay && f->step.has_broker && !f->step.is_over);
    assert_true(f->step.is_proved); /* the broker first: the client will know */
    assert_int_equal(f->step.broker.type, NLA_TALK_PROVED);
    got = f->step.relay;
    say(f, &got);
    assert_int_equal(f->state, CREDSSP_DONE);
    assert_true(f->step.is_over && !f->step.is_proved);
    assert_int_equal(f->step.relay.type, NLA_TALK_LOGIN);
    assert_string_equal(f->step.relay.user, "alice+win01");
    assert_string_equal(f->step.relay.password, who.password);
    assert_int_equal(f->step.broker.type, NLA_TALK_DONE);
    assert_string_equal(f->step.broker.password, "");
}

static void assert_failed(const struct fixture *f, bool has_last)
{
    assert_true(f->step.is_over && f->step.has_relay && f->step.has_broker && !f->step.is_proved);
    assert_int_equal(f->step.relay.type, NLA_TALK_FAILED);
    assert_int_equal(f->step.broker.type, NLA_TALK_FAILED);
    assert_int_equal(f->step.relay.data_len > 0, has_last);
    assert_int_equal(f->step.broker.data_len, 0);
    assert_true(f->step.broker.text[0]);
}

static void test_wrong(void **state)
{
    struct fixture *f = *state;

    up_to_hash(f);
    give(f, "another");
    assert_failed(f, true);
    got = f->step.relay;
    buffer_reset(&f->out);
    assert_int_equal(credssp_step(f->client, cursor_of(got.data, got.data_len), &f->out),
                     CREDSSP_FAILED);
    assert_int_equal(credssp_status(f->client), STATUS_LOGON_FAILURE);
}

static void test_out_of_step(void **state)
{
    struct fixture *f = *state;

    give(f, who.password); /* nobody asked */
    assert_failed(f, false);
    for (uint8_t type = 0; type <= NLA_TALK_TYPES; type++) {
        if (type == NLA_TALK_TOKEN)
            continue;
        memset(&m, 0, sizeof(m));
        m.type = type;
        attempt_from_relay(&f->attempt, &m, &f->step);
        assert_failed(f, false);
        if (type == NLA_TALK_HASH)
            continue;
        attempt_from_broker(&f->attempt, &m, &f->step);
        assert_failed(f, false);
    }
}

/* While the broker is asked the client has nothing to say. */
static void test_impatient(void **state)
{
    struct fixture *f = *state;

    up_to_hash(f);
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_TOKEN;
    attempt_from_relay(&f->attempt, &m, &f->step);
    assert_failed(f, false);
}

static void test_hash_of_another_length(void **state)
{
    struct fixture *f = *state;

    up_to_hash(f);
    memset(&m, 0, sizeof(m));
    m.type = NLA_TALK_HASH;
    m.data_len = NLA_HASH_LEN - 1;
    attempt_from_broker(&f->attempt, &m, &f->step);
    assert_failed(f, false);
}

/* The first message again and again: WinPR begins anew, we do not for ever. */
static void test_rounds(void **state)
{
    struct fixture *f = *state;
    unsigned rounds = 0;

    say(f, NULL);
    got = m;
    while (!f->step.is_over && ++rounds < 100)
        attempt_from_relay(&f->attempt, &got, &f->step);
    assert_true(rounds <= ATTEMPT_ROUNDS);
}

/* ---- the hash ---- */

static void test_nt_hash(void **state)
{
    static const uint8_t known[NT_HASH_LEN] = {0x88, 0x46, 0xf7, 0xea, 0xee, 0x8f, 0xb1, 0x17,
                                               0xad, 0x06, 0xbd, 0xd8, 0x30, 0xb7, 0x58, 0x6c};
    static const char *const passwords[] = {"password", "p\xc3\xa4\xc3\x9f", "\xe2\x82\xac",
                                            "\xf0\x9f\x94\x91 key"};
    uint8_t ours[NT_HASH_LEN], theirs[NTLM_HASH_LEN];
    char longest[NT_HASH_PASSWORD_MAX + 2];

    (void)state;
    assert_int_equal(nt_hash("password", ours), 0);
    assert_memory_equal(ours, known, NT_HASH_LEN);
    for (size_t i = 0; i < sizeof(passwords) / sizeof(passwords[0]); i++) {
        assert_int_equal(nt_hash(passwords[i], ours), 0);
        assert_true(ntlm_hash(passwords[i], theirs));
        assert_memory_equal(ours, theirs, NT_HASH_LEN);
    }
    assert_int_equal(nt_hash("", ours), ERR_INVALID);
    assert_int_equal(nt_hash("\xff\xfe", ours), ERR_INVALID);
    assert_int_equal(nt_hash("cut \xc3", ours), ERR_INVALID);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_int_equal(nt_hash(longest, ours), ERR_INVALID);
    longest[sizeof(longest) - 2] = '\0';
    assert_int_equal(nt_hash(longest, ours), 0);
}

/* ---- which security ---- */

static void test_choose(void **state)
{
    enum { SSL_ = PROTOCOL_SSL_BIT, HY = PROTOCOL_HYBRID_BIT, EX = PROTOCOL_HYBRID_EX_BIT };
    static const struct {
        uint32_t offered;
        uint32_t chosen[4]; /* off, last, first, only */
    } rows[] = {
        {0, {0, 0, 0, 0}},
        {SSL_, {SSL_, SSL_, SSL_, 0}},
        {HY, {0, HY, HY, HY}},
        {EX, {0, EX, EX, EX}},
        {SSL_ | HY, {SSL_, SSL_, HY, HY}},
        {HY | EX, {0, EX, EX, EX}},
        {SSL_ | HY | EX, {SSL_, SSL_, EX, EX}},
        {4 | 16, {0, 0, 0, 0}}, /* RDSTLS, AAD */
    };
    uint32_t failure;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (unsigned nla = LINK_NLA_OFF; nla <= LINK_NLA_ONLY; nla++) {
            assert_int_equal(x224_choose(rows[i].offered, (enum link_nla)nla, &failure),
                             rows[i].chosen[nla]);
            assert_int_equal(failure, nla == LINK_NLA_ONLY ? X224_FAILURE_HYBRID_REQUIRED
                                                           : X224_FAILURE_SSL_REQUIRED);
        }
    assert_int_equal(x224_choose(SSL_, (enum link_nla)9, &failure), 0);
}

/* ---- the door's key ---- */

static void test_door_key(void **state)
{
    EVP_PKEY *pair = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    BIO *bio = BIO_new(BIO_s_mem());
    const ASN1_BIT_STRING *bits;
    struct secret pem = {.len = 0};
    struct rdp_key found;
    char *text;
    long len;

    (void)state;
    assert_int_equal(X509_set_pubkey(certificate, pair), 1);
    X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    assert_true(X509_sign(certificate, pair, EVP_sha256()) > 0);
    assert_int_equal(PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(PEM_write_bio_X509(bio, certificate), 1);
    len = BIO_get_mem_data(bio, &text);
    assert_true(secret_set(&pem, text, (size_t)len));
    assert_true(rdp_key_find(&pem, &found));
    bits = X509_get0_pubkey_bitstr(certificate);
    assert_int_equal(found.len, ASN1_STRING_length(bits));
    assert_memory_equal(found.data, ASN1_STRING_get0_data(bits), found.len);
    assert_true(secret_set(&pem, "nothing", 7));
    assert_false(rdp_key_find(&pem, &found));
    assert_int_equal(found.len, 0);
    secret_wipe(&pem);
    BIO_free(bio);
    X509_free(certificate);
    EVP_PKEY_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_talk),
        cmocka_unit_test(test_talk_largest),
        cmocka_unit_test(test_talk_descriptors),
        cmocka_unit_test_setup_teardown(test_right, begin, finish),
        cmocka_unit_test_setup_teardown(test_wrong, begin, finish),
        cmocka_unit_test_setup_teardown(test_out_of_step, begin, finish),
        cmocka_unit_test_setup_teardown(test_impatient, begin, finish),
        cmocka_unit_test_setup_teardown(test_hash_of_another_length, begin, finish),
        cmocka_unit_test_setup_teardown(test_rounds, begin, finish),
        cmocka_unit_test(test_nt_hash),
        cmocka_unit_test(test_choose),
        cmocka_unit_test(test_door_key),
    };

    if (ntlm_prepare() < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
