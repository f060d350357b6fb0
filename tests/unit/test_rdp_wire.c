/*
 * The RDP wire layer: captured handshakes, each also cut at every byte and with every byte changed,
 * and what is written, byte for byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../fuzz/rdp_walk.h"

#define CORPUS   SALLYPORT_SOURCE_DIR "/tests/fuzz/corpus/rdp/"
#define FILE_MAX 8192

static const char *const files[] = {
    "xfreerdp-xrdp-user", "xfreerdp-xrdp-target", "xfreerdp-shadow-user", "xfreerdp-shadow-target",
    "rdesktop-xrdp-user", "rdesktop-xrdp-target", "xfreerdp-legacy-user", "xfreerdp-legacy-target",
};

static size_t read_file(const char *name, uint8_t *dst)
{
    char path[512];
    FILE *f;
    size_t len;

    snprintf(path, sizeof(path), "%s%s", CORPUS, name);
    f = fopen(path, "rb");
    assert_non_null(f);
    len = fread(dst, 1, FILE_MAX, f);
    fclose(f);
    assert_true(len > 1000);
    return len;
}

static void test_captured_clients(void **state)
{
    static uint8_t bytes[FILE_MAX];
    struct rdp_walk w;

    (void)state;
    rdp_walk(bytes, read_file("xfreerdp-xrdp-user", bytes), &w);
    assert_int_equal(w.x224, 1);
    assert_int_equal(w.connects, 1);
    assert_int_equal(w.infos, 1);
    assert_int_equal(w.confirms, 1);
    assert_string_equal(w.user, "alice+win01");
    assert_int_equal(w.client.width, 640);
    assert_int_equal(w.client.height, 480);
    assert_int_equal(w.client.channel_count, 4);
    assert_true(w.client.has_message_channel);
    assert_true(w.facts.has_fastpath_output);
    assert_true(w.humans >= 1);
    rdp_walk(bytes, read_file("rdesktop-xrdp-user", bytes), &w);
    assert_int_equal(w.client.build, 2600);
    assert_int_equal(w.client.early_flags, 1);
    assert_false(w.client.has_message_channel);
    assert_int_equal(w.infos, 1);
    assert_true(w.frames > 50);
}

static void test_captured_targets(void **state)
{
    static uint8_t bytes[FILE_MAX];
    struct rdp_walk w;

    (void)state;
    rdp_walk(bytes, read_file("xfreerdp-xrdp-target", bytes), &w);
    assert_int_equal(w.x224, 1);
    assert_int_equal(w.connects, 1);
    assert_int_equal(w.server.io_channel, 1003);
    assert_int_equal(w.server.channel_count, 4);
    assert_int_equal(w.server.message_channel, 0);
    assert_int_equal(w.demands, 1);
    assert_int_equal(w.facts.width, 640);
    assert_int_equal(w.facts.height, 480);
    assert_int_equal(w.facts.bpp, 32);
    assert_int_not_equal(w.facts.share_id, 0);
    rdp_walk(bytes, read_file("xfreerdp-shadow-target", bytes), &w);
    assert_int_not_equal(w.server.message_channel, 0);
    assert_true(w.gfx.is_asked);
}

static void test_cut_at_every_byte(void **state)
{
    static uint8_t bytes[FILE_MAX];
    struct rdp_walk w;

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        size_t len = read_file(files[i], bytes);

        for (size_t n = 0; n < len; n++) {
            uint8_t *copy = malloc(n ? n : 1); /* so that one byte too far is noticed */

            memcpy(copy, bytes, n);
            rdp_walk(copy, n, &w);
            free(copy);
        }
    }
}

static void test_every_byte_changed(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    static uint8_t bytes[FILE_MAX];
    struct rdp_walk w;

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        size_t len = read_file(files[i], bytes);

        len = len < 2500 ? len : 2500; /* the handshakes */
        for (size_t n = 1; n < len; n++) {
            uint8_t old = bytes[n];

            for (size_t v = 0; v < sizeof(values); v++) {
                bytes[n] = values[v];
                rdp_walk(bytes, len, &w);
            }
            bytes[n] = old;
        }
    }
}

/* ---- framing ---- */

static enum parse frame(const char *bytes, size_t len, struct frame *f)
{
    struct cursor c = cursor_of(bytes, len);

    return frame_next(&c, TPKT_MAX, f);
}

static void test_frames(void **state)
{
    struct frame f;

    (void)state;
    assert_int_equal(frame("\x03\0\0\x08\x02\xf0\x80\x28rest", 12, &f), PARSE_OK);
    assert_int_equal(f.len, 8);
    assert_int_equal(f.head, 4);
    assert_int_equal(frame("\x03\0\0\x08\x02\xf0\x80", 7, &f), PARSE_MORE);
    assert_int_equal(frame("\x03\0\0\x06\x02\xf0\x80", 7, &f), PARSE_BAD);
    assert_int_equal(frame("\x04\x05\0\0\0", 5, &f), PARSE_OK);
    assert_int_equal(f.kind, FRAME_FASTPATH);
    assert_int_equal(frame("\x04\x80\x05\0\0", 5, &f), PARSE_OK);
    assert_int_equal(f.head, 3);
    assert_int_equal(frame("\x44\x05\0\0\0", 5, &f), PARSE_BAD);
    assert_int_equal(frame("\x04\x01\0\0\0", 5, &f), PARSE_BAD);
    assert_int_equal(frame("GET / HTTP", 10, &f), PARSE_BAD);
    assert_int_equal(frame("", 0, &f), PARSE_MORE);
}

static void test_preconnection(void **state)
{
    static const char v1[] = "\x10\0\0\0\0\0\0\0\x01\0\0\0\x2a\0\0\0\x03\0";
    static const char v2[] = "\x18\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x03\0a\0b\0\0\0";
    struct cursor c = cursor_of(v1, sizeof(v1) - 1);
    struct preconnection p;
    char text[16];

    (void)state;
    assert_int_equal(preconnection_next(&c, &p), PARSE_OK);
    assert_int_equal(p.id, 42);
    assert_int_equal(cursor_left(&c), 2);
    c = cursor_of(v2, sizeof(v2) - 1);
    assert_int_equal(preconnection_next(&c, &p), PARSE_OK);
    assert_true(utf16_to_utf8(p.blob, text, sizeof(text)));
    assert_string_equal(text, "ab");
    c = cursor_of(v2, 20);
    assert_int_equal(preconnection_next(&c, &p), PARSE_MORE);
    assert_int_equal(cursor_left(&c), 20);
    c = cursor_of("\x03\0\0\x13", 4);
    assert_int_equal(preconnection_next(&c, &p), PARSE_BAD);
    c = cursor_of("\xff\xff\xff\xff", 4);
    assert_int_equal(preconnection_next(&c, &p), PARSE_BAD);
}

static void test_x224(void **state)
{
    static const char cookie[] =
        "\x2a\xe0\0\0\0\0\0Cookie: mstshash=alice\r\n\x01\0\x08\0\x0b\0\0\0";
    static const char token[] = "\x1d\xe0\0\0\0\0\0target=win01\r\n\x01\0\x08\0\x03\0\0\0";
    struct x224_request r;
    struct x224_confirm k;
    struct buffer b;

    (void)state;
    assert_int_equal(x224_request_parse(cursor_of(cookie, sizeof(cookie) - 1), &r), PARSE_BAD);
    assert_int_equal(x224_request_parse(cursor_of(token, sizeof(token) - 1), &r), PARSE_BAD);
    buffer_init(&b, 256);
    x224_request_put(&b, "Cookie: mstshash=alice", 3);
    assert_int_equal(b.data[3], b.len);
    assert_int_equal(x224_request_parse(cursor_of(b.data + 4, b.len - 4), &r), PARSE_OK);
    assert_string_equal(r.cookie, "alice");
    assert_int_equal(r.protocols, 3);
    buffer_reset(&b);
    x224_failure_put(&b, 5);
    assert_int_equal(x224_confirm_parse(cursor_of(b.data + 4, b.len - 4), &k), PARSE_OK);
    assert_true(k.is_failure);
    assert_int_equal(k.value, 5);
    assert_non_null(strstr(x224_failure_text(5), "NLA"));
    assert_non_null(x224_failure_text(99));
    buffer_finish(&b);
}

static void test_routing_token(void **state)
{
    struct x224_request r;
    uint8_t bytes[64] = "\0\xe0\0\0\0\0\0target=win01\r\n\x01\0\x08\0\x03\0\0";
    const size_t len = 7 + 14 + 8;

    (void)state;
    bytes[0] = (uint8_t)(len - 1);
    assert_int_equal(x224_request_parse(cursor_of(bytes, len), &r), PARSE_OK);
    assert_string_equal(r.token, "target=win01");
    assert_string_equal(r.cookie, "");
    assert_int_equal(r.protocols, 3);
}

static void test_mcs(void **state)
{
    static const uint8_t ultimatum[] = {3, 0, 0, 9, 2, 0xf0, 0x80, 0x21, 0x80};
    struct mcs_pdu pdu;
    struct buffer b;

    (void)state;
    buffer_init(&b, TPKT_MAX);
    mcs_ultimatum_put(&b, MCS_REASON_USER);
    assert_int_equal(b.len, sizeof(ultimatum));
    assert_memory_equal(b.data, ultimatum, sizeof(ultimatum));
    assert_int_equal(mcs_parse(cursor_of(b.data + 4, b.len - 4), &pdu), PARSE_OK);
    assert_int_equal(pdu.type, MCS_ULTIMATUM);
    assert_int_equal(pdu.result, MCS_REASON_USER);
    for (size_t len = 0; len < 0x8100; len += 127) {
        static uint8_t data[0x8200];

        buffer_reset(&b);
        mcs_data_put(&b, MCS_DATA_REQUEST, 1007, 1003, data, len);
        assert_int_equal(b.failed, len > 0x7fff);
        if (b.failed)
            break;
        assert_int_equal(mcs_parse(cursor_of(b.data + 4, b.len - 4), &pdu), PARSE_OK);
        assert_int_equal(pdu.user, 1007);
        assert_int_equal(pdu.channel, 1003);
        assert_int_equal(cursor_left(&pdu.data), len);
        assert_int_equal(b.data[MCS_AT_USER] << 8 | b.data[MCS_AT_USER + 1], 6);
        assert_int_equal(b.data[MCS_AT_CHANNEL] << 8 | b.data[MCS_AT_CHANNEL + 1], 1003);
    }
    buffer_finish(&b);
}

static void test_channels_31_and_32(void **state)
{
    static uint8_t bytes[FILE_MAX], blocks[1024];
    struct gcc_client c = {0};
    struct gcc_patch patch = {.has_extended = true, .is_dropped = (bool[MCS_CHANNELS_MAX]){false}};
    struct rdp_walk w;
    struct buffer b;

    (void)state;
    rdp_walk(bytes, read_file("xfreerdp-xrdp-user", bytes), &w);
    memcpy(blocks, w.client.blocks.at, cursor_left(&w.client.blocks));
    for (size_t count = 31; count <= 32; count++) {
        struct gcc_client many = w.client;

        many.channel_count = count < 32 ? count : 31;
        for (size_t i = 0; i < many.channel_count; i++)
            snprintf(many.channels[i].name, sizeof(many.channels[i].name), "ch%02u",
                     (unsigned)(i % 100));
        buffer_init(&b, TPKT_MAX);
        gcc_client_put(&b, &many, &patch);
        assert_false(b.failed);
        if (count == 32) { /* the count lies */
            uint8_t *net = memmem(b.data, b.len, "\x03\xc0", 2);

            assert_non_null(net);
            net[4] = 32;
        }
        assert_int_equal(gcc_client_parse(cursor_of(b.data, b.len), &c),
                         count == 31 ? PARSE_OK : PARSE_BAD);
        buffer_finish(&b);
    }
    /* a name without an end */
    {
        uint8_t *name = memmem(blocks, sizeof(blocks), "cliprdr", 8);

        assert_non_null(name);
        name[7] = 'x';
        buffer_init(&b, TPKT_MAX);
        w.client.blocks = cursor_of(blocks, cursor_left(&w.client.blocks));
        memcpy(w.client.channels[0].name, "12345678", 8);
        gcc_client_put(&b, &w.client, &patch);
        assert_int_equal(gcc_client_parse(cursor_of(b.data, b.len), &c), PARSE_BAD);
        buffer_finish(&b);
    }
}

static void test_client_info(void **state)
{
    const uint8_t shell[] = {'s', 0, 'h', 0}, extended[] = {2, 0, 4, 0, 'a', 0, 0, 0};
    struct client_info in = {.code_page = 0x409,
                             .flags = INFO_UNICODE | INFO_USING_SAVED_CREDS | 1,
                             .shell = cursor_of(shell, sizeof(shell)),
                             .extended = cursor_of(extended, sizeof(extended))},
                       out;
    char text[64];
    struct buffer b;

    (void)state;
    buffer_init_secret(&b, TPKT_MAX);
    client_info_put(&b, &in, "DOM", "b\xc3\xbc\xf0\x9f\x94\x91", "pa\xc3\x9f");
    assert_false(b.failed);
    assert_int_equal(client_info_parse(cursor_of(b.data, b.len), &out), PARSE_OK);
    assert_int_equal(out.flags, INFO_UNICODE | INFO_AUTOLOGON | INFO_LOGONERRORS | 1);
    assert_true(client_info_text(&out, out.user, text, sizeof(text)));
    assert_string_equal(text, "b\xc3\xbc\xf0\x9f\x94\x91");
    assert_true(client_info_text(&out, out.password, text, sizeof(text)));
    assert_string_equal(text, "pa\xc3\x9f");
    assert_int_equal(cursor_left(&out.shell), sizeof(shell));
    assert_int_equal(cursor_left(&out.extended), sizeof(extended));
    for (size_t i = 12; i < 22; i++) { /* lying lengths */
        uint8_t old = b.data[i];

        for (unsigned v = 0; v < 256; v++) {
            b.data[i] = (uint8_t)v;
            if (client_info_parse(cursor_of(b.data, b.len), &out) == PARSE_OK)
                (void)!client_info_text(&out, out.user, text, sizeof(text));
        }
        b.data[i] = old;
    }
    buffer_reset(&b);
    client_info_put(&b, &in, "", "bad \xff", "x");
    assert_true(b.failed);
    buffer_finish(&b);
}

static void test_utf16(void **state)
{
    char text[8];

    (void)state;
    assert_false(utf16_to_utf8(cursor_of("\x00\xd8", 2), text, sizeof(text))); /* half a pair */
    assert_false(utf16_to_utf8(cursor_of("\x00\xdc\x00\xd8", 4), text, sizeof(text)));
    assert_false(utf16_to_utf8(cursor_of("a", 1), text, sizeof(text)));
    assert_false(utf16_to_utf8(cursor_of("a\0b\0c\0d\0e\0", 10), text, sizeof(text)));
    assert_true(utf16_to_utf8(cursor_of("a\0\0\0c\0", 6), text, sizeof(text)));
    assert_string_equal(text, "a");
}

/* ---- share ---- */

static void test_share(void **state)
{
    static const uint8_t deactivate[] = {6, 0, 0x16, 0, 0xef, 3};
    static const uint8_t flow[] = {0, 0x80, 0x42, 0, 0, 0, 0xea, 3};
    struct share_facts facts = {.share_id = 0x103ea, .bpp = 24, .width = 800, .height = 600}, got;
    struct share_pdu share;
    struct cursor c;
    struct buffer b;

    (void)state;
    c = cursor_of(deactivate, sizeof(deactivate));
    assert_int_equal(share_next(&c, &share), PARSE_OK);
    assert_int_equal(share.type, SHARE_DEACTIVATE_ALL);
    c = cursor_of(flow, sizeof(flow));
    assert_int_equal(share_next(&c, &share), PARSE_OK);
    assert_int_equal(share.type, SHARE_FLOW);
    buffer_init(&b, TPKT_MAX);
    demand_active_put(&b, &facts);
    share_data_put(&b, MCS_SERVER_USER, 0x103ea, DATA_SET_ERROR_INFO, "\x03\0\0\0", 4);
    c = cursor_of(b.data, b.len);
    assert_int_equal(share_next(&c, &share), PARSE_OK);
    assert_int_equal(share.type, SHARE_DEMAND_ACTIVE);
    assert_int_equal(demand_active_parse(share.body, &got), PARSE_OK);
    assert_int_equal(got.share_id, 0x103ea);
    assert_int_equal(got.bpp, 24);
    assert_int_equal(got.width, 800);
    assert_int_equal(got.height, 600);
    assert_int_equal(share_next(&c, &share), PARSE_OK);
    assert_int_equal(share.data_type, DATA_SET_ERROR_INFO);
    assert_int_equal(share.share_id, 0x103ea);
    assert_true(cursor_at_end(&c));
    assert_int_equal(share_next(&c, &share), PARSE_BAD);
    buffer_finish(&b);
}

static void test_fragments(void **state)
{
    struct output_facts facts = {.is_open = true};

    (void)state;
    assert_int_equal(fastpath_output_scan(cursor_of("\x01\x01\0x", 4), &facts), PARSE_OK);
    assert_false(facts.is_open);
    assert_int_equal(fastpath_output_scan(cursor_of("\x21\x01\0x", 4), &facts), PARSE_OK);
    assert_true(facts.is_open);
    assert_int_equal(fastpath_output_scan(cursor_of("\xb1\x20\x01\0x", 5), &facts), PARSE_OK);
    assert_true(facts.is_open);
    assert_int_equal(fastpath_output_scan(cursor_of("\x11\x01\0x\x01\x00\x00", 7), &facts),
                     PARSE_OK);
    assert_false(facts.is_open);
    assert_int_equal(fastpath_output_scan(cursor_of("\x01\x05\0x", 4), &facts), PARSE_BAD);
}

/* ---- input ---- */

static bool fast(struct input_state *s, uint8_t first, const char *bytes, size_t len)
{
    bool is_human;

    assert_int_equal(input_fastpath_scan(first, cursor_of(bytes, len), s, &is_human), PARSE_OK);
    return is_human;
}

static void test_humans(void **state)
{
    struct input_state s = {0};
    bool is_human;

    (void)state;
    assert_true(fast(&s, 0x04, "\x00\x1e", 2));      /* a key */
    assert_false(fast(&s, 0x04, "\x01\x1e", 2));     /* its release */
    assert_false(fast(&s, 0x04, "\x60", 1));         /* synchronize */
    assert_false(fast(&s, 0x04, "\xc0\1\2\3\4", 5)); /* QoE time stamp */
    assert_true(fast(&s, 0x04,
                     "\x80"
                     "a\0",
                     3));                                            /* unicode */
    assert_false(fast(&s, 0x04, "\x20\x00\x08\x64\x00\x64\x00", 7)); /* the first point */
    assert_false(fast(&s, 0x04, "\x20\x00\x08\x65\x00\x65\x00", 7)); /* a tremble */
    assert_true(fast(&s, 0x04, "\x20\x00\x08\x74\x00\x64\x00", 7));  /* a move */
    assert_false(fast(&s, 0x04, "\x20\x00\x08\x74\x00\x64\x00", 7)); /* again */
    assert_true(fast(&s, 0x04, "\x20\x00\x90\x74\x00\x64\x00", 7));  /* a button */
    assert_false(fast(&s, 0x04, "\x20\x00\x10\x74\x00\x64\x00", 7)); /* its release */
    assert_true(fast(&s, 0x04, "\x20\x78\x02\x00\x00\x00\x00", 7));  /* the wheel */
    assert_true(fast(&s, 0x08, "\x01\x1e\x00\x1e", 4));              /* two events */
    assert_true(fast(&s, 0x00, "\x01\x00\x1e", 3));                  /* counted behind */
    assert_int_equal(input_fastpath_scan(0x04, cursor_of("\x00", 1), &s, &is_human), PARSE_BAD);
    assert_int_equal(input_fastpath_scan(0x04, cursor_of("\xe0\0", 2), &s, &is_human), PARSE_BAD);
    assert_int_equal(
        input_slowpath_scan(cursor_of("\1\0\0\0tttt\x04\0\0\0\x1e\0\0\0", 16), &s, &is_human),
        PARSE_OK);
    assert_true(is_human);
    assert_int_equal(
        input_slowpath_scan(cursor_of("\1\0\0\0tttt\x04\0\0\x80\x1e\0\0\0", 16), &s, &is_human),
        PARSE_OK);
    assert_false(is_human);
}

static void test_touch(void **state)
{
    static const char create[] = "\x30\0\0\0\x03\0\0\0\x10\x07" DVC_NAME_INPUT;
    static const char touch[] = "\x08\0\0\0\x03\0\0\0\x30\x07\x03\0\x06\0\0\0";
    static const char ready[] = "\x08\0\0\0\x03\0\0\0\x30\x07\x02\0\x06\0\0\0";
    static const char shut[] = "\x02\0\0\0\x03\0\0\0\x40\x07";
    struct dvc_state s = {0};

    (void)state;
    assert_false(dvc_client_scan(cursor_of(touch, sizeof(touch) - 1), &s));
    dvc_server_scan(cursor_of(create, sizeof(create)), &s);
    assert_true(s.has_input);
    assert_true(dvc_client_scan(cursor_of(touch, sizeof(touch) - 1), &s));
    assert_false(dvc_client_scan(cursor_of(ready, sizeof(ready) - 1), &s));
    dvc_server_scan(cursor_of(shut, sizeof(shut) - 1), &s);
    assert_false(dvc_client_scan(cursor_of(touch, sizeof(touch) - 1), &s));
}

static void test_dynamic_refused(void **state)
{
    static const char create[] = "\x11\x07\x01"
                                 "AUDIO_INPUT";
    struct dvc_create c;
    struct buffer b;

    (void)state;
    assert_true(dvc_create_parse(cursor_of(create, sizeof(create)), &c));
    assert_string_equal(c.name, "AUDIO_INPUT");
    assert_int_equal(c.id, 0x107);
    buffer_init(&b, 64);
    dvc_refusal_put(&b, &c);
    assert_int_equal(b.len, 15);
    assert_memory_equal(b.data, "\x07\0\0\0\x03\0\0\0\x11\x07\x01\x01\0\0\xc0", 15);
    buffer_finish(&b);
    assert_false(dvc_create_parse(cursor_of(create, 2), &c));
    for (size_t n = 0; n < sizeof(create); n++) { /* a name without its end */
        char *copy = malloc(n ? n : 1);

        memcpy(copy, create, n);
        (void)!dvc_create_parse(cursor_of(copy, n), &c);
        free(copy);
    }
}

static void test_capability(void **state)
{
    struct share_facts facts = {.share_id = 1, .bpp = 24, .width = 800, .height = 600};
    struct share_pdu share;
    struct buffer b;
    struct cursor c;
    const uint8_t *set;

    (void)state;
    buffer_init(&b, TPKT_MAX);
    demand_active_put(&b, &facts);
    c = cursor_of(b.data, b.len);
    assert_int_equal(share_next(&c, &share), PARSE_OK);
    set = capability_find(SHARE_DEMAND_ACTIVE, share.body, CAPABILITY_VIRTUAL_CHANNEL, 4);
    assert_non_null(set);
    assert_int_equal(set[4] | set[5] << 8, 1600); /* behind the flags */
    assert_null(capability_find(SHARE_DEMAND_ACTIVE, share.body, CAPABILITY_VIRTUAL_CHANNEL, 99));
    assert_null(capability_find(SHARE_DEMAND_ACTIVE, share.body, 77, 0));
    buffer_finish(&b);
}

/* What a server says of licences when the client has one already, and the answer to a request. */
static void test_licences(void **state)
{
    static const uint8_t alert[] = {0, 0, 0xff, 3, 16, 0, 7, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0};
    static const uint8_t request[] = {0, 0, 1, 3, 6, 0};
    struct buffer b;
    uint32_t error;

    (void)state;
    assert_int_equal(licence_parse(cursor_of(alert, sizeof(alert)), &error), LICENCE_ALERT);
    assert_int_equal(error, LICENCE_VALID_CLIENT);
    assert_int_equal(licence_parse(cursor_of(alert, 9), &error), LICENCE_NONE);
    assert_int_equal(licence_parse(cursor_of(request, sizeof(request)), &error), LICENCE_REQUEST);
    assert_int_equal(error, 0);
    for (size_t len = 0; len < sizeof(request); len++)
        assert_int_equal(licence_parse(cursor_of(request, len), &error), LICENCE_NONE);
    buffer_init(&b, 1024);
    licence_answer_put(&b);
    assert_int_equal(b.len, 4 + 256);
    assert_int_equal(b.data[4], 0x13);
    assert_int_equal(b.data[6] | b.data[7] << 8, 256);
    buffer_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_captured_clients),
        cmocka_unit_test(test_captured_targets),
        cmocka_unit_test(test_cut_at_every_byte),
        cmocka_unit_test(test_every_byte_changed),
        cmocka_unit_test(test_frames),
        cmocka_unit_test(test_preconnection),
        cmocka_unit_test(test_x224),
        cmocka_unit_test(test_routing_token),
        cmocka_unit_test(test_mcs),
        cmocka_unit_test(test_channels_31_and_32),
        cmocka_unit_test(test_client_info),
        cmocka_unit_test(test_utf16),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_fragments),
        cmocka_unit_test(test_humans),
        cmocka_unit_test(test_touch),
        cmocka_unit_test(test_dynamic_refused),
        cmocka_unit_test(test_capability),
        cmocka_unit_test(test_licences),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
