/* Server Redirection packets and auto-reconnect cookies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/redirection.h"

static void put_text(struct buffer *b, const char *text)
{
    buffer_put_le32(b, (uint32_t)strlen(text) * 2 + 2);
    utf16_put(b, text);
    buffer_put_le16(b, 0);
}

static void put_bytes(struct buffer *b, const char *bytes, size_t len)
{
    buffer_put_le32(b, (uint32_t)len);
    buffer_put(b, bytes, len);
}

static void put_head(struct buffer *b, uint32_t flags)
{
    buffer_init(b, 65536);
    buffer_put_le16(b, SEC_REDIRECTION_PKT);
    buffer_put_le16(b, 0);
    buffer_put_le32(b, 7);
    buffer_put_le32(b, flags);
}

static enum parse parse(const struct buffer *b, struct redirection *r)
{
    return redirection_parse(cursor_of(b->data, b->len), r);
}

static void test_all_fields(void **state)
{
    struct redirection r;
    struct buffer b;

    (void)state;
    put_head(&b, 0x1ff1f | LB_TARGET_FQDN);
    put_text(&b, "10.0.0.7");
    put_bytes(&b, "Cookie: msts=1\r\n", 16);
    put_text(&b, "bob");
    put_text(&b, "CORP");
    put_text(&b, "s3cret");
    put_text(&b, "win.corp");
    put_text(&b, "WIN");
    put_text(&b, "url");
    put_bytes(&b, "guid", 4);
    put_bytes(&b, "cert", 4);
    /* 0x1ff1f also says smart card, no redirect and encrypted: those have no fields */
    b.data[8] &= 0x1f;
    b.data[9] &= (uint8_t)~0x40;
    assert_int_equal(parse(&b, &r), PARSE_OK);
    assert_int_equal(r.session_id, 7);
    assert_string_equal(r.host, ""); /* the token leads to where it was */
    assert_string_equal(r.token, "Cookie: msts=1");
    assert_string_equal(r.user, "bob");
    assert_string_equal(r.domain, "CORP");
    assert_string_equal(r.password, "s3cret");
    assert_int_equal(cursor_left(&r.certificate), 4);
    for (size_t n = 0; n < b.len;
         n++) { /* cut anywhere it is none, and nothing is read behind it */
        uint8_t *copy = malloc(n ? n : 1);

        memcpy(copy, b.data, n);
        assert_int_equal(redirection_parse(cursor_of(copy, n), &r), PARSE_BAD);
        free(copy);
    }
    buffer_finish(&b);
}

static void test_where_to(void **state)
{
    struct redirection r;
    struct buffer b;

    (void)state;
    put_head(&b, LB_TARGET_NET_ADDRESS | LB_TARGET_FQDN);
    put_text(&b, "10.0.0.7");
    put_text(&b, "win.corp");
    assert_int_equal(parse(&b, &r), PARSE_OK);
    assert_string_equal(r.host, "10.0.0.7");
    buffer_finish(&b);
    put_head(&b, LB_TARGET_FQDN);
    put_text(&b, "win.corp");
    assert_int_equal(parse(&b, &r), PARSE_OK);
    assert_string_equal(r.host, "win.corp");
    buffer_finish(&b);
}

static void test_not_ours(void **state)
{
    struct redirection r;
    struct buffer b;
    char long_text[300];

    (void)state;
    put_head(&b, LB_PASSWORD | LB_PASSWORD_IS_PK_ENCRYPTED);
    put_bytes(&b, "\1\2\3", 3);
    assert_int_equal(parse(&b, &r), PARSE_OK);
    assert_string_equal(r.password, "");
    buffer_finish(&b);
    put_head(&b, LB_LOAD_BALANCE_INFO);
    put_bytes(&b, "a\r\nb\r\n", 6);
    assert_int_equal(parse(&b, &r), PARSE_BAD);
    buffer_finish(&b);
    memset(long_text, 'a', sizeof(long_text));
    put_head(&b, LB_LOAD_BALANCE_INFO);
    put_bytes(&b, long_text, X224_TOKEN_MAX);
    assert_int_equal(parse(&b, &r), PARSE_OK);
    assert_int_equal(strlen(r.token), X224_TOKEN_MAX);
    buffer_finish(&b);
    put_head(&b, LB_LOAD_BALANCE_INFO);
    put_bytes(&b, long_text, X224_TOKEN_MAX + 1);
    assert_int_equal(parse(&b, &r), PARSE_BAD);
    buffer_finish(&b);
    long_text[299] = '\0';
    put_head(&b, LB_USERNAME);
    put_text(&b, long_text);
    assert_int_equal(parse(&b, &r), PARSE_BAD);
    buffer_finish(&b);
}

static size_t certificate(const char *base64, uint8_t der[REDIRECTION_CERT_MAX])
{
    struct buffer b;
    size_t n;

    buffer_init(&b, 65536);
    utf16_put(&b, base64);
    buffer_put_le16(&b, 0);
    n = redirection_certificate(cursor_of(b.data, b.len), der);
    buffer_finish(&b);
    return n;
}

static void test_certificate(void **state)
{
    static uint8_t der[REDIRECTION_CERT_MAX];
    static char text[REDIRECTION_CERT_MAX * 2];

    (void)state;
    /* 32, 1, 5, "hello" */
    assert_int_equal(certificate("IAAAAAEAAAAFAAAAaGVsbG8=", der), 5);
    assert_memory_equal(der, "hello", 5);
    assert_int_equal(certificate("IAAAAAEAAAAGAAAAaGVsbG8=", der), 0); /* a length that lies */
    assert_int_equal(certificate("IQAAAAEAAAAFAAAAaGVsbG8=", der), 0); /* another element */
    assert_int_equal(certificate("IAAAAAEAAAAFAAAAaGVsbG8", der), 0);
    assert_int_equal(certificate("====", der), 0);
    assert_int_equal(certificate("", der), 0);
    memset(text, 'A', sizeof(text) - 1);
    assert_int_equal(certificate(text, der), 0);
}

/* ---- cookies ---- */

static const uint8_t given[] = {3,  0, 0, 0, 38, 0, 1, 0, 0,  0,  28, 0,  0,  0,
                                28, 0, 0, 0, 1,  0, 0, 0, 5,  0,  0,  0,  0,  1,
                                2,  3, 4, 5, 6,  7, 8, 9, 10, 11, 12, 13, 14, 15};
/* HMAC-MD5 of 32 zeroes under 0, 1, 2 ... 15 */
static const uint8_t verifier[16] = {0xb6, 0x39, 0xc8, 0x73, 0x16, 0x38, 0x61, 0x8b,
                                     0x70, 0x79, 0x72, 0xaa, 0x6e, 0x96, 0xcf, 0x90};

static void put_info(struct buffer *b, size_t cookie_len)
{
    static const uint8_t zeroes[200];

    buffer_init(b, 65536);
    buffer_put_le16(b, SEC_INFO_PKT);
    buffer_put_le16(b, 0);
    buffer_put_le32(b, 0);
    buffer_put_le32(b, INFO_UNICODE);
    buffer_put(b, zeroes, 20); /* five empty texts */
    buffer_put_le16(b, 2);
    buffer_put_le16(b, 2);
    buffer_put(b, zeroes, 2);
    buffer_put_le16(b, 4);
    buffer_put(b, zeroes, 4);
    buffer_put(b, zeroes, 172 + 8);
    buffer_put_le16(b, (uint16_t)cookie_len);
    if (cookie_len == 28) {
        buffer_put_le32(b, 28);
        buffer_put_le32(b, 1);
        buffer_put_le32(b, 5);
        buffer_put(b, verifier, sizeof(verifier));
    } else {
        buffer_put(b, zeroes, cookie_len);
    }
    buffer_put(b, "tail", 4);
}

static void test_cookie_comes_back(void **state)
{
    uint8_t a[LINK_COOKIE], c[LINK_COOKIE];
    struct client_info info;
    struct buffer b;

    (void)state;
    assert_true(arc_given(cursor_of(given, sizeof(given)), a));
    for (size_t n = 0; n < sizeof(given); n++)
        assert_false(arc_given(cursor_of(given, n), c));
    put_info(&b, 28);
    assert_int_equal(client_info_parse(cursor_of(b.data, b.len), &info), PARSE_OK);
    assert_true(arc_shown(&info, c));
    assert_memory_equal(a, c, sizeof(a));
    buffer_finish(&b);
}

static void test_cookie_is_taken_out(void **state)
{
    static const size_t lens[] = {28, 5};
    uint8_t hash[LINK_COOKIE];
    struct client_info info;
    struct buffer b;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        size_t len;

        put_info(&b, lens[i]);
        assert_int_equal(client_info_parse(cursor_of(b.data, b.len), &info), PARSE_OK);
        len = arc_strip(b.data, b.len, &info);
        assert_int_equal(len, b.len - lens[i]);
        assert_memory_equal(b.data + len - 6, "\0\0tail", 6);
        assert_int_equal(client_info_parse(cursor_of(b.data, len), &info), PARSE_OK);
        assert_false(arc_shown(&info, hash));
        assert_int_equal(arc_strip(b.data, len, &info), len);
        buffer_finish(&b);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_fields),        cmocka_unit_test(test_where_to),
        cmocka_unit_test(test_not_ours),          cmocka_unit_test(test_certificate),
        cmocka_unit_test(test_cookie_comes_back), cmocka_unit_test(test_cookie_is_taken_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
