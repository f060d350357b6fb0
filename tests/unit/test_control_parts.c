/* The pure parts of control: key lines, addresses, times, locations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/address.h"
#include "control/args.h"
#include "control/control_priv.h"
#include "control/keys.h"
#include "tracker/location.h"

#define ED25519 "AAAAC3NzaC1lZDI1NTE5AAAAICaeARbO+/On8Hu+0/p+XmXfCHQGP9PIQ7u8uG7gVh1K"
#define P256                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBOxDoLn2ld9b17Pjc7KOB1F/w0iyurxgwdTGDqvo" \
    "sJpyZmE+G6noHznB1JnPPE1sC/zizjfOjRuBXSq+9arZgzM="
#define P384                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBI9xtDg4jbdsprl6Kfeqa+tKkvyOIqttDKResaXb" \
    "jRxkPe/cgnPeK2Z8LfMPLh3uMBMStTA6fzfwRxBs/pycV+l2sZ44GCjagaIfNEmlOtoUTNUzTfB1pcGFzxzTj0aemw=="
#define P521                                                                                       \
    "AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAFXu9VmwrOdLHK9i3PmDoW4pihyPLZ6YTWd0IyX" \
    "ak5leCOZ/r8NvhWHFbE/dr2ArmLGBkWG/Z27QF7t2C3R+w6BHwH0RrHBjJFZW8b8fyKK4u63S/ZRV9Yq9+P/fNEB5RHH" \
    "Tgr4jZh193eQF+OV2bgRCFG330vdO05iKdwTp9QZ/TMzHQ=="
#define RSA1024                                                                                    \
    "AAAAB3NzaC1yc2EAAAADAQABAAAAgQDHODK94rTDCdexqbmnZXwg0GsTyr5gRh3yjJpYy1LOsPbxRSivqi9V4BGfX4wX" \
    "XgqvvYUWWQ/crU3BEvM9/AuBrLcpGP2zUyVDwi46Jjzd0+ryBSq3h6zB5dnIa12jsvKkkz1udpv2Skrdkmf5ojOwuE96" \
    "opOgF0VWOc6g2iyvvQ=="
#define RSA2048                                                                                    \
    "AAAAB3NzaC1yc2EAAAADAQABAAABAQCnUBkWf5Xk+N2Wy7nqjb3EFEH4dVWu9Zd264NC+ghb4akaOG9wGlQBBOrevaS5" \
    "xbadmyFLh/D9a7BZDmpk16SXV9dZ/+h9tUQjgYSim8EeMnXTuI/WwnkqtOJJtMBisoDlJ3UeDW1KXmOfxNSPYnM7Xonb" \
    "zGu3jbxwv1HLnb08nYmM8O0rZw+RNAr9c4BgT5RkBUp+7HSJGp1jSI3pwQCR7VJXUXRM2jOGc/tpMWbHHI4h1ZCa0LkH" \
    "TiIraXBxodj9GX/0OcKEkZ7fMKnqrL8pZl0uA1teV7an+fHgT2kkM/h3AN6mqAxC7SROq1P/zeaag0ZYi4qCEMZzBiDF" \
    "eILn"

static void good_keys_are_read(void **state)
{
    static const struct {
        const char *line, *type, *print, *comment;
    } cases[] = {
        {"ssh-ed25519 " ED25519, "ssh-ed25519",
         "SHA256:HjFTKgiSR/ai2ILKRCGHfre+KeAiH4/SuxFe58HyOzY", ""},
        {"  ssh-ed25519\t " ED25519 "  alice at the laptop \r\n", "ssh-ed25519",
         "SHA256:HjFTKgiSR/ai2ILKRCGHfre+KeAiH4/SuxFe58HyOzY", "alice at the laptop"},
        {"ecdsa-sha2-nistp256 " P256 " x", "ecdsa-sha2-nistp256",
         "SHA256:lWiOxvH1wf4knxWsrm2l9kTwqbouR2lCMu9CN+5dCnc", "x"},
        {"ecdsa-sha2-nistp384 " P384, "ecdsa-sha2-nistp384",
         "SHA256:IrQu9DHhM5ojXSqmVJTuABIwLsrQQxK02Wx15RBOwns", ""},
        {"ecdsa-sha2-nistp521 " P521, "ecdsa-sha2-nistp521",
         "SHA256:cNV1shKWcJV/ctjR1MuSHwQ3kYj+vgxNXQus/rjLjyc", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct public_key key;
        char err[256] = "", *line;

        if (public_key_parse(cases[i].line, KEY_OF_HOST, &key, err, sizeof(err)) < 0)
            fail_msg("%s: %s", cases[i].line, err);
        assert_string_equal(key.type, cases[i].type);
        assert_string_equal(key.fingerprint, cases[i].print);
        assert_string_equal(key.comment, cases[i].comment);
        line = public_key_line(key.type, key.blob, key.blob_len, "");
        assert_non_null(strstr(cases[i].line, strchr(line, ' ') + 1)); /* and written back */
        free(line);
    }
}

static void bad_keys_are_explained(void **state)
{
    static const struct {
        const char *line, *why;
    } cases[] = {
        {"", "no key type"},
        {"hello", "no key type"},
        {"ssh-ed25519", "cut or damaged"},
        {"ssh-ed25519 " ED25519 "x", "cut or damaged"},
        {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAICaeARbO+/On8Hu+", "damaged"},
        {"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI!aeARbO+/On8Hu+", "cut or damaged"},
        {"ssh-ed25519 AAAA", "inside differ"},
        {"ssh-ed25519 " P256, "inside differ"},
        {"ssh-rsa " ED25519, "inside differ"},
        {"ssh-rsa " RSA1024, "2048"},
        {"ssh-dss AAAAB3NzaC1kc3M=", "DSA"},
        {"ssh-ed25519-cert-v01@openssh.com AAAA", "certificates"},
        {"from=\"10.0.0.1\" ssh-ed25519 " ED25519, "options"},
        {"no-pty,no-X11-forwarding ssh-ed25519 " ED25519, "options"},
        {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", "private key"},
        {"ssh-ed25519 " ED25519 " a\nssh-ed25519 " ED25519, "one key"},
        {"ssh-ed25519 " ED25519 " \x1b[31m", "control characters"},
        {"sk-ssh-ed25519@openssh.com AAAA", "users' keys"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct public_key key;
        char err[256] = "";

        assert_int_equal(public_key_parse(cases[i].line, KEY_OF_HOST, &key, err, sizeof(err)),
                         ERR_INVALID);
        if (!strstr(err, cases[i].why))
            fail_msg("%s: %s", cases[i].line, err);
    }
}

/* A blob cut at each byte, and with each length byte altered, is refused or read, never overrun. */
static void cut_keys_are_refused(void **state)
{
    struct public_key whole, key;
    char err[256];
    uint8_t blob[LINK_KEY_MAX];

    (void)state;
    assert_int_equal(public_key_parse("ssh-rsa " RSA2048, KEY_OF_USER, &whole, err, sizeof(err)),
                     0);
    for (size_t len = 0; len < whole.blob_len; len++) {
        char *line = public_key_line(whole.type, whole.blob, len, "");
        assert_int_equal(public_key_parse(line, KEY_OF_USER, &key, err, sizeof(err)), ERR_INVALID);
        free(line);
    }
    for (size_t i = 0; i < 32; i++) {
        char *line;
        memcpy(blob, whole.blob, whole.blob_len);
        blob[i] ^= 0xff;
        line = public_key_line(whole.type, blob, whole.blob_len, "");
        (void)!public_key_parse(line, KEY_OF_USER, &key, err, sizeof(err));
        free(line);
    }
}

#define CERT_TYPE "ssh-ed25519-cert-v01@openssh.com"
#define CERT_BASE64                                                                    \
    "AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAIOx0mxcSzAHuEB2M84JextZhTIjm" \
    "mf2nC3ACBeL3aKsYAAAAIFz0pIcfWU2tRcrWCrrbswA+MlxU+jvEt755dRdCBHJbAAAAAAAAAAAAAAAB" \
    "AAAAAXQAAAAIAAAABHJvb3QAAAAAAAAAAP//////////AAAAAAAAAIIAAAAVcGVybWl0LVgxMS1mb3J3" \
    "YXJkaW5nAAAAAAAAABdwZXJtaXQtYWdlbnQtZm9yd2FyZGluZwAAAAAAAAAWcGVybWl0LXBvcnQtZm9y" \
    "d2FyZGluZwAAAAAAAAAKcGVybWl0LXB0eQAAAAAAAAAOcGVybWl0LXVzZXItcmMAAAAAAAAAAAAAADMA" \
    "AAALc3NoLWVkMjU1MTkAAAAgR/QQ3KIE+3M8+x7xRW/wJYBmWfXhN7UgUer/eGKjlZEAAABTAAAAC3Nz" \
    "aC1lZDI1NTE5AAAAQHaHBja174dNeHH6Z652ZCKntLos8sHUCpL6I3xaKXaGbv5G8346T9OsnaLwBVbB" \
    "Wq/dOexVKvI95g0sHEiErA8="

static void certificates_are_looked_at(void **state)
{
    static const char whole[] = CERT_TYPE " " CERT_BASE64;
    static const char *const bad[] = {
        "",
        "ssh-ed25519 AAAA",
        CERT_TYPE,
        CERT_TYPE " ",
        CERT_TYPE " AAAA",
        "ssh-rsa-cert-v01@openssh.com " CERT_BASE64,
        "-cert-v01@openssh.com " CERT_BASE64,
        CERT_TYPE " AAA" CERT_BASE64,
    };
    char line[LINK_KEY_MAX + 1], err[256];

    (void)state;
    assert_int_equal(certificate_check(whole, line, sizeof(line), err, sizeof(err)), 0);
    assert_string_equal(line, whole);
    assert_int_equal(certificate_check("  " CERT_TYPE "\t" CERT_BASE64 " a comment\n", line,
                                       sizeof(line), err, sizeof(err)),
                     0);
    assert_string_equal(line, whole);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (certificate_check(bad[i], line, sizeof(line), err, sizeof(err)) != ERR_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
    }
    assert_int_equal(certificate_check(whole, line, 64, err, sizeof(err)), ERR_INVALID);
    assert_non_null(strstr(err, "too long"));
}

static void private_keys_are_looked_at(void **state)
{
    char err[256];

    (void)state;
    assert_int_equal(private_key_check("-----BEGIN PRIVATE KEY-----\nMC4C\n"
                                       "-----END PRIVATE KEY-----\n",
                                       err, sizeof(err)),
                     0);
    assert_int_equal(
        private_key_check("-----BEGIN OPENSSH PRIVATE KEY-----\n"
                          "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
                          "-----END OPENSSH PRIVATE KEY-----\n",
                          err, sizeof(err)),
        0);
    assert_int_equal(
        private_key_check("-----BEGIN OPENSSH PRIVATE KEY-----\n"
                          "b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABAnS48oKe\n"
                          "-----END OPENSSH PRIVATE KEY-----\n",
                          err, sizeof(err)),
        ERR_INVALID);
    assert_non_null(strstr(err, "passphrase"));
    assert_int_equal(private_key_check("-----BEGIN ENCRYPTED PRIVATE KEY-----\nMC4C\n"
                                       "-----END ENCRYPTED PRIVATE KEY-----\n",
                                       err, sizeof(err)),
                     ERR_INVALID);
    assert_int_equal(private_key_check("hunter2", err, sizeof(err)), ERR_INVALID);
    assert_int_equal(private_key_check("-----BEGIN PRIVATE KEY-----\nMC4C", err, sizeof(err)),
                     ERR_INVALID);
}

static void addresses_get_one_form(void **state)
{
    static const struct {
        const char *text, *normal; /* NULL: refused */
    } cases[] = {
        {"web01", "web01:22"},
        {"Web01.Example.ORG:2222", "web01.example.org:2222"},
        {"10.0.0.1", "10.0.0.1:22"},
        {"10.0.0.1:3389", "10.0.0.1:3389"},
        {"a_b-c.example.", "a_b-c.example.:22"},
        {"::1", "[::1]:22"},
        {"2001:DB8::0:1", "[2001:db8::1]:22"},
        {"[2001:db8::1]", "[2001:db8::1]:22"},
        {"[::1]:65535", "[::1]:65535"},
        {"[fe80::1%eth0]:22", "[fe80::1%eth0]:22"},
        {"", NULL},
        {":22", NULL},
        {"web01:", NULL},
        {"web01:0", NULL},
        {"web01:65536", NULL},
        {"web01:22x", NULL},
        {"web01:+22", NULL},
        {"web 01", NULL},
        {"web..01", NULL},
        {"-oProxyCommand=x", NULL},
        {"user@web01", NULL},
        {"web01/x", NULL},
        {"300.1.1.1", NULL},
        {"10.0.0", NULL},
        {"[::1", NULL},
        {"[::1]22", NULL},
        {"[web01]:22", NULL},
        {"1:2:3", NULL},
        {"[fe80::1%]:22", NULL},
        {"[fe80::1%a/b]:22", NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[SESSION_ADDRESS_MAX] = "", err[256] = "";
        int result = address_normalise(cases[i].text, PROTOCOL_SSH, out, err, sizeof(err));

        if (cases[i].normal ? result < 0 || strcmp(out, cases[i].normal) != 0 : result == 0)
            fail_msg("%s: %s %s", cases[i].text, out, err);
        assert_int_equal(err[0] != '\0', result < 0);
    }
    char out[SESSION_ADDRESS_MAX], err[256];
    assert_int_equal(address_normalise("win01", PROTOCOL_RDP, out, err, sizeof(err)), 0);
    assert_string_equal(out, "win01:3389");
    char label[80];
    memset(label, 'a', sizeof(label));
    label[79] = '\0';
    assert_int_equal(address_normalise(label, PROTOCOL_SSH, out, err, sizeof(err)), ERR_INVALID);
}

static void times_are_read(void **state)
{
    static const int64_t now = INT64_C(1763789467000000); /* 2025-11-22T05:31:07Z */
    static const struct {
        const char *text;
        int64_t us; /* -1: refused */
    } cases[] = {
        {"2025-11-22T05:31:07Z", INT64_C(1763789467000000)},
        {"2025-11-22T05:31:07.120Z", INT64_C(1763789467120000)},
        {"2025-11-22T05:31:07.1234567Z", INT64_C(1763789467123456)},
        {"2025-11-22T05:31Z", INT64_C(1763789460000000)},
        {"2025-11-22T07:31:07+02:00", INT64_C(1763789467000000)},
        {"2025-11-22T00:01:07-0530", INT64_C(1763789467000000)},
        {"1970-01-01T00:00:00Z", 0},
        {"2024-02-29T00:00:00Z", INT64_C(1709164800000000)},
        {"1h", INT64_C(1763785867000000)},
        {"0", INT64_C(1763789467000000)},
        {"2025-02-29T00:00:00Z", -1},
        {"2025-13-01T00:00:00Z", -1},
        {"2025-00-01T00:00:00Z", -1},
        {"2025-11-22T24:00:00Z", -1},
        {"2025-11-22T05:31:07", -1}, /* whose time? */
        {"2025-11-22", -1},
        {"2025-11-22T05:31:07Zx", -1},
        {"2025-11-22T05:31:07+15:00", -1},
        {"yesterday", -1},
        {"", -1},
        {"99999999999d", -1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t us = -1;
        bool is_ok = arg_parse_time(cases[i].text, now, &us);

        if (is_ok != (cases[i].us >= 0) || (is_ok && us != cases[i].us))
            fail_msg("%s: %d %lld", cases[i].text, is_ok, (long long)us);
    }
}

static void addresses_have_a_class(void **state)
{
    static const struct {
        const char *address, *name;
    } cases[] = {
        {"127.0.0.1", "loopback"},
        {"::1", "loopback"},
        {"10.1.2.3", "private"},
        {"172.16.0.1", "private"},
        {"172.31.255.255", "private"},
        {"172.32.0.1", "public"},
        {"192.168.1.1", "private"},
        {"100.64.0.1", "carrier-nat"},
        {"100.127.255.255", "carrier-nat"},
        {"100.128.0.1", "public"},
        {"169.254.1.1", "link-local"},
        {"fe80::1%eth0", "link-local"},
        {"fd00::1", "unique-local"},
        {"fc00::1", "unique-local"},
        {"203.0.113.9", "documentation"},
        {"2001:db8::1", "documentation"},
        {"224.0.0.1", "multicast"},
        {"ff02::1", "multicast"},
        {"8.8.8.8", "public"},
        {"2a00::1", "public"},
        {"::ffff:10.0.0.1", "private"},
        {"::ffff:8.8.8.8", "public"},
        {"0.0.0.0", ""},
        {"::", ""},
        {"", ""},
        {"web01", ""},
        {"10.0.0.1:22", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_string_equal(location_of(cases[i].address), cases[i].name);
    assert_string_equal(location_of(NULL), "");
}

/* Every command and every argument of the table stands in PROTOCOL.md, as `word`. */
static void the_page_and_the_table_agree(void **state)
{
    static char page[256 * 1024];
    FILE *file = fopen(SALLYPORT_SOURCE_DIR "/control/PROTOCOL.md", "re");
    const struct command *table;
    size_t count, len;

    (void)state;
    assert_non_null(file);
    len = fread(page, 1, sizeof(page) - 1, file);
    assert_true(len > 0 && len < sizeof(page) - 1);
    page[len] = '\0';
    fclose(file);
    table = control_command_table(&count);
    for (size_t i = 0; i < count; i++) {
        char word[80], *row;
        snprintf(word, sizeof(word), "`%s`", table[i].words);
        row = strstr(page, word);
        if (!row)
            fail_msg("no %s in PROTOCOL.md", word);
        for (const struct argument *a = table[i].args; a->name; a++) {
            snprintf(word, sizeof(word), "`%s`", a->name);
            if (!strstr(page, word))
                fail_msg("%s: no %s in PROTOCOL.md", table[i].words, word);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_keys_are_read),
        cmocka_unit_test(bad_keys_are_explained),
        cmocka_unit_test(cut_keys_are_refused),
        cmocka_unit_test(private_keys_are_looked_at),
        cmocka_unit_test(certificates_are_looked_at),
        cmocka_unit_test(addresses_get_one_form),
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(addresses_have_a_class),
        cmocka_unit_test(the_page_and_the_table_agree),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
