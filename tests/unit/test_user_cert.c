/*
 * User certificates, made by ssh-keygen (the fuzzer's corpus): read, each signature checked with
 * its CA, cut and altered everywhere, and what each says about who may come in when and from where.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/broker/user_cert.h"

#define NOW 1800000000 /* 2027 */

static uint8_t blob[8192];
static size_t blob_len;

static void load(const char *name)
{
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/user_cert/%s", SALLYPORT_SOURCE_DIR, name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("cannot open %s", path);
    blob_len = fread(blob, 1, sizeof(blob), f);
    fclose(f);
    assert_true(blob_len > 100 && blob_len < sizeof(blob));
}

static struct user_cert parsed(const char *name)
{
    struct user_cert c;

    load(name);
    assert_int_equal(user_cert_parse(blob, blob_len, &c), 0);
    assert_true(user_cert_is(blob, blob_len));
    return c;
}

static bool is_signed(const struct user_cert *c)
{
    return user_cert_is_signed(c, c->ca.at, cursor_left(&c->ca));
}

static void every_kind_is_read(void **state)
{
    static const struct {
        const char *name, *type;
        unsigned permits;
    } cases[] = {
        {"ed25519", "ssh-ed25519-cert-v01@openssh.com", 15},
        {"ecdsa", "ecdsa-sha2-nistp256-cert-v01@openssh.com", 15},
        {"ecdsa521", "ecdsa-sha2-nistp521-cert-v01@openssh.com", 0},
        {"rsa", "ssh-rsa-cert-v01@openssh.com", 15},
        {"sk", "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", 15},
        {"sk-ed25519", "sk-ssh-ed25519-cert-v01@openssh.com", 15},
        {"by-sk", "ssh-ed25519-cert-v01@openssh.com", 15},
        {"options", "ssh-ed25519-cert-v01@openssh.com", 7},
    };
    char text[128], wanted[128];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct user_cert c = parsed(cases[i].name);

        assert_string_equal(c.type, cases[i].type);
        assert_int_equal(c.permits, cases[i].permits);
        assert_int_equal(c.serial, 42);
        assert_int_equal(c.kind, 1);
        user_cert_describe(&c, text, sizeof(text));
        snprintf(wanted, sizeof(wanted), "ID \"id of %s\" serial 42", cases[i].name);
        assert_string_equal(text, wanted);
        if (!is_signed(&c))
            fail_msg("%s: the signature does not fit", cases[i].name);
    }
}

static void a_signature_is_of_one_ca(void **state)
{
    static const char *const names[] = {"ed25519", "ecdsa", "rsa", "by-sk"};
    uint8_t ca[4][2048];
    size_t len[4];

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct user_cert c = parsed(names[i]);

        len[i] = cursor_left(&c.ca);
        memcpy(ca[i], c.ca.at, len[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        struct user_cert c = parsed(names[i]);

        for (size_t k = 0; k < 4; k++)
            assert_int_equal(user_cert_is_signed(&c, ca[k], len[k]), i == k);
        assert_false(user_cert_is_signed(&c, ca[i], len[i] - 1));
        /* a trusted CA named inside, by somebody who does not have its key */
        c.ca = cursor_of(ca[(i + 1) % 4], len[(i + 1) % 4]);
        assert_false(is_signed(&c));
    }
}

/* Cut anywhere it is none; altered anywhere it is none, or not signed. */
static void damage_is_seen(void **state)
{
    static const char *const names[] = {"ed25519", "ecdsa", "rsa", "sk", "by-sk", "options"};
    struct user_cert c;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        load(names[i]);
        for (size_t len = 0; len < blob_len; len++)
            assert_int_equal(user_cert_parse(blob, len, &c), ERR_INVALID);
        for (size_t at = 0; at < blob_len; at++) {
            blob[at] ^= 0x41;
            if (user_cert_parse(blob, blob_len, &c) == 0 && is_signed(&c))
                fail_msg("%s: byte %zu may be anything", names[i], at);
            blob[at] ^= 0x41;
        }
        blob[blob_len] = 0;
        assert_int_equal(user_cert_parse(blob, blob_len + 1, &c), ERR_INVALID);
    }
}

static void who_when_and_where(void **state)
{
    static const struct {
        const char *name, *principals, *address;
        int64_t now_s;
        const char *why; /* NULL: lets in */
    } cases[] = {
        {"ed25519", "alice", "10.0.0.1", NOW, NULL},
        {"ed25519", "ops", "10.0.0.1", NOW, NULL},
        {"ed25519", "x,ops", "10.0.0.1", 0, NULL},
        {"ed25519", "bob", "10.0.0.1", NOW, "principal"},
        {"ed25519", "alic", "10.0.0.1", NOW, "principal"},
        {"ed25519", "alice,", "10.0.0.1", NOW, NULL},
        {"ed25519", "", "10.0.0.1", NOW, "principal"},
        {"nobody", "alice", "10.0.0.1", NOW, "principal"},
        {"nobody", "", "10.0.0.1", NOW, "principal"},
        {"dated", "alice", "10.0.0.1", NOW, NULL},
        {"dated", "alice", "10.0.0.1", 1577836800, NULL}, /* its first second */
        {"dated", "alice", "10.0.0.1", 1577836799, "not valid yet"},
        {"dated", "alice", "10.0.0.1", 1893455999, NULL},
        {"dated", "alice", "10.0.0.1", 1893456000, "expired at 2030-01-01T00:00:00"},
        {"dated", "alice", "10.0.0.1", -5, "not valid yet"},
        {"options", "alice", "10.255.255.255", NOW, NULL},
        {"options", "alice", "192.0.2.7", NOW, NULL},
        {"options", "alice", "2001:db8:ffff::1", NOW, NULL},
        {"options", "alice", "11.0.0.0", NOW, "may not be used from 11.0.0.0"},
        {"options", "alice", "192.0.2.8", NOW, "may not be used from"},
        {"options", "alice", "2001:db9::", NOW, "may not be used from"},
        {"options", "alice", "?", NOW, "may not be used from"},
        {"forced", "alice", "10.0.0.1", NOW, "force-command"},
        {"unknown", "alice", "10.0.0.1", NOW, "future@example.com"},
        {"host", "alice", "10.0.0.1", NOW, "host certificate"},
    };
    char why[256];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct user_cert c = parsed(cases[i].name);
        const char *got = user_cert_refusal(&c, cases[i].principals, cases[i].address,
                                            cases[i].now_s, why, sizeof(why));

        if (!got != !cases[i].why || (got && !strstr(got, cases[i].why)))
            fail_msg("%s for \"%s\" from %s at %lld: %s", cases[i].name, cases[i].principals,
                     cases[i].address, (long long)cases[i].now_s, got ? got : "lets in");
    }
}

static void what_is_no_certificate(void **state)
{
    static const uint8_t key[] = "\0\0\0\013ssh-ed25519\0\0\0\040aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    struct user_cert c;

    (void)state;
    assert_false(user_cert_is(key, sizeof(key) - 1));
    assert_false(user_cert_is(key, 3));
    assert_int_equal(user_cert_parse(key, sizeof(key) - 1, &c), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_read),     cmocka_unit_test(a_signature_is_of_one_ca),
        cmocka_unit_test(damage_is_seen),         cmocka_unit_test(who_when_and_where),
        cmocka_unit_test(what_is_no_certificate),
    };

    return cmocka_run_group_tests_name("user_cert", tests, NULL, NULL);
}
