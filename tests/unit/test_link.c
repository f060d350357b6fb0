/*
 * The link's codec and its sockets. The codec's source is included, so that every row of the table
 * is filled, bounded, cut and damaged without a list of its own here. A few messages are written
 * out by hand, since a table that is wrong agrees with itself.
 *
 * `test_link --corpus DIR` writes the seeds of the fuzzer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "proxy/link/link.c"

#define FILL_SMALL 5 /* bytes of a text or blob */

static struct link_message sent, got;

static void put_at(struct link_message *m, const struct field *f, const void *data, size_t len)
{
    memcpy((uint8_t *)m + f->offset, data, len);
}

/* A number that no two fields share, within the field's bound. */
static uint64_t number_for(const struct field *f, bool is_full)
{
    uint64_t value = UINT64_C(0x0102030405060708) * (f->offset + 1u);

    if (f->kind == FIELD_U64 || f->kind == FIELD_I64)
        return is_full ? UINT64_MAX : value;
    return is_full ? f->max : value % ((uint64_t)f->max + 1);
}

static void fill_field(struct link_message *m, const struct field *f, bool is_full)
{
    uint64_t u64 = number_for(f, is_full);
    uint32_t u32 = (uint32_t)u64;
    uint16_t u16 = (uint16_t)u64;
    uint8_t u8 = (uint8_t)u64;
    size_t text_len = is_full || f->max <= FILL_SMALL ? f->max - 1u : FILL_SMALL;
    struct blob_head *blob = (void *)((uint8_t *)m + f->offset);

    switch ((enum field_kind)f->kind) {
    case FIELD_U8:
        put_at(m, f, &u8, 1);
        break;
    case FIELD_U16:
        put_at(m, f, &u16, 2);
        break;
    case FIELD_U32:
        put_at(m, f, &u32, 4);
        break;
    case FIELD_U64:
    case FIELD_I64:
        put_at(m, f, &u64, 8);
        break;
    case FIELD_TEXT:
        memset((uint8_t *)m + f->offset, 'a' + f->offset % 26, text_len);
        break;
    case FIELD_BLOB:
        blob->len = (uint16_t)(is_full ? f->max : FILL_SMALL);
        memset(blob->data, 0xf0 ^ (f->offset & 0xff), blob->len);
        break;
    case FIELD_POLICY:
        policy_defaults((void *)((uint8_t *)m + f->offset));
        break;
    }
}

/* Fields newer than `version` stay zero, as the reader sees them. */
static void fill(struct link_message *m, uint8_t type, uint8_t version, bool is_full)
{
    memset(m, 0, sizeof(*m));
    m->type = type;
    m->version = version;
    for (size_t i = 0; i < messages[type].field_count; i++)
        if (messages[type].fields[i].since <= version)
            fill_field(m, &messages[type].fields[i], is_full);
}

static void encode(struct buffer *b, const struct link_message *m, uint8_t version)
{
    buffer_init(b, LINK_MESSAGE_MAX);
    link_encode(m, version, b);
    assert_false(b->failed);
}

/* Decode from memory of the exact size, so that a sanitizer sees one byte too far. */
static int decode_exact(struct link_message *m, const uint8_t *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    int result;

    assert_non_null(copy);
    if (len)
        memcpy(copy, data, len);
    result = link_decode(m, copy, len);
    free(copy);
    return result;
}

/* Calls fn for every message, at each version, empty, small and full. */
static void each_message(void (*fn)(const struct link_message *m, uint8_t version))
{
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        if (!messages[type].name)
            continue;
        for (uint8_t version = LINK_VERSION_MIN; version <= LINK_VERSION; version++) {
            fill(&sent, (uint8_t)type, version, false);
            fn(&sent, version);
            fill(&sent, (uint8_t)type, version, true);
            fn(&sent, version);
        }
    }
}

/* ---- by the table ---- */

static void round_trip(const struct link_message *m, uint8_t version)
{
    const struct message_row *row = &messages[m->type];
    struct buffer b;

    encode(&b, m, version);
    memset(&got, 0xaa, sizeof(got)); /* what was there before must not shine through */
    assert_int_equal(decode_exact(&got, b.data, b.len), 0);
    assert_int_equal(got.version, version);
    assert_int_equal(got.type, m->type);
    assert_memory_equal((const uint8_t *)&got + row->offset, (const uint8_t *)m + row->offset,
                        row->len);
    buffer_finish(&b);
}

static void every_message_round_trips(void **unused)
{
    (void)unused;
    each_message(round_trip);
}

static void cut_everywhere(const struct link_message *m, uint8_t version)
{
    struct buffer b;

    encode(&b, m, version);
    for (size_t len = 0; len < b.len; len++) {
        int result;

        if (len > 600 && len % 97 && len + 200 < b.len) /* inside a long text: a sample will do */
            continue;
        result = decode_exact(&got, b.data, len);
        assert_int_equal(result, ERR_INVALID);
    }
    buffer_finish(&b);
}

static void every_cut_is_refused(void **unused)
{
    (void)unused;
    each_message(cut_everywhere);
}

static void with_leftovers(const struct link_message *m, uint8_t version)
{
    struct buffer b;

    encode(&b, m, version);
    buffer_put_be(&b, 0, 1);
    assert_false(b.failed);
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    buffer_finish(&b);
}

static void leftovers_are_refused(void **unused)
{
    (void)unused;
    each_message(with_leftovers);
}

/* Of the default policy. */
static size_t policy_wire_len(size_t keys)
{
    size_t len = 2;

    for (size_t i = 0; i < keys; i++)
        len += policy_is_text(&policy_keys[i]) ? 2 + strlen(policy_keys[i].def) : 8;
    return len;
}

/* Where field `index` begins on the wire. */
static size_t wire_offset(const struct message_row *row, size_t index)
{
    size_t at = 2;

    for (size_t i = 0; i < index; i++) {
        static const uint8_t number_len[] = {1, 2, 4, 8, 8};
        const struct field *f = &row->fields[i];

        if (f->kind <= FIELD_I64)
            at += number_len[f->kind];
        else if (f->kind == FIELD_POLICY)
            at += policy_wire_len(policy_key_count);
        else
            at += 2u + (f->kind == FIELD_TEXT && f->max <= FILL_SMALL ? f->max - 1u : FILL_SMALL);
    }
    return at;
}

static void check_number_bound(const struct message_row *row, size_t i, uint8_t *data, size_t len)
{
    const struct field *f = &row->fields[i];
    size_t at = wire_offset(row, i);

    if (f->kind == FIELD_U8 && f->max < UINT8_MAX) {
        data[at] = (uint8_t)(f->max + 1);
        assert_int_equal(decode_exact(&got, data, len), ERR_INVALID);
        data[at] = UINT8_MAX;
        assert_int_equal(decode_exact(&got, data, len), ERR_INVALID);
        data[at] = (uint8_t)f->max;
        assert_int_equal(decode_exact(&got, data, len), 0);
    } else if (f->kind == FIELD_U32 && f->max < UINT32_MAX) {
        memset(data + at, 0, 4);
        data[at + 3] = (uint8_t)(f->max + 1);
        assert_int_equal(decode_exact(&got, data, len), ERR_INVALID);
        data[at] = 0x80;
        assert_int_equal(decode_exact(&got, data, len), ERR_INVALID);
        memset(data + at, 0, 4);
        assert_int_equal(decode_exact(&got, data, len), 0);
    }
}

static void enums_and_counts_are_bounded(void **unused)
{
    (void)unused;
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        struct buffer b;

        if (!messages[type].name)
            continue;
        fill(&sent, (uint8_t)type, LINK_VERSION, false);
        encode(&b, &sent, LINK_VERSION);
        for (size_t i = 0; i < messages[type].field_count; i++)
            check_number_bound(&messages[type], i, b.data, b.len);
        buffer_finish(&b);
    }
}

/* The message with the bytes of one text or blob replaced by `len` bytes of 'z'. */
static int decode_with_len(const struct message_row *row, size_t index, const struct buffer *b,
                           size_t len, char byte)
{
    size_t at = wire_offset(row, index), old = (size_t)b->data[at] << 8 | b->data[at + 1];
    struct buffer changed;
    int result;

    buffer_init(&changed, LINK_MESSAGE_MAX * 2);
    buffer_put(&changed, b->data, at);
    buffer_put_be(&changed, len, 2);
    for (size_t i = 0; i < len; i++)
        buffer_put_be(&changed, (uint8_t)byte, 1);
    buffer_put(&changed, b->data + at + 2 + old, b->len - at - 2 - old);
    assert_false(changed.failed);
    result = decode_exact(&got, changed.data, changed.len);
    buffer_finish(&changed);
    return result;
}

static void texts_and_blobs_keep_their_caps(void **unused)
{
    (void)unused;
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        const struct message_row *row = &messages[type];
        struct buffer b;

        if (!row->name)
            continue;
        fill(&sent, (uint8_t)type, LINK_VERSION, false);
        encode(&b, &sent, LINK_VERSION);
        for (size_t i = 0; i < row->field_count; i++) {
            const struct field *f = &row->fields[i];
            size_t cap = f->kind == FIELD_TEXT ? f->max - 1u : f->max;

            if (f->kind != FIELD_TEXT && f->kind != FIELD_BLOB)
                continue;
            assert_int_equal(decode_with_len(row, i, &b, 0, 'z'), 0);
            assert_int_equal(decode_with_len(row, i, &b, cap, 'z'), 0);
            assert_int_equal(decode_with_len(row, i, &b, cap + 1, 'z'), ERR_INVALID);
            assert_int_equal(decode_with_len(row, i, &b, 65535, 'z'), ERR_INVALID);
            /* a NUL inside a text would hide what follows it; in a blob it is a byte */
            assert_int_equal(decode_with_len(row, i, &b, 1, 0),
                             f->kind == FIELD_TEXT ? ERR_INVALID : 0);
        }
        buffer_finish(&b);
    }
}

/* A field that was forgotten in the rows would be bytes that no row covers. */
static void rows_cover_their_structs(void **unused)
{
    static uint8_t covered[sizeof(struct link_message)];

    (void)unused;
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        const struct message_row *row = &messages[type];
        size_t hole = 0;

        if (!row->name)
            continue;
        memset(covered, 0, sizeof(covered));
        for (size_t i = 0; i < row->field_count; i++) {
            static const size_t len[] = {1, 2, 4, 8, 8};
            const struct field *f = &row->fields[i];
            size_t n = f->kind <= FIELD_I64      ? len[f->kind]
                       : f->kind == FIELD_TEXT   ? f->max
                       : f->kind == FIELD_POLICY ? sizeof(struct policy)
                                                 : 2 + f->max;

            for (size_t k = 0; k < n; k++)
                assert_int_equal(covered[f->offset + k]++, 0); /* and none twice */
        }
        for (size_t k = row->offset; k < (size_t)row->offset + row->len; k++) {
            hole = covered[k] ? 0 : hole + 1;
            assert_true(hole < 8); /* padding is shorter than an alignment */
        }
    }
}

/* ---- by hand ---- */

static void assert_wire(uint8_t version, const void *want, size_t len)
{
    struct buffer b;

    encode(&b, &sent, version);
    assert_int_equal(b.len, len);
    assert_memory_equal(b.data, want, len);
    buffer_finish(&b);
}

static void the_wire_is_what_the_page_says(void **unused)
{
    (void)unused;
    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_TARGETS;
    sent.targets.offset = 0x01020304;
    assert_wire(1, "\x01\x05\x01\x02\x03\x04", 6);
    assert_wire(2, "\x02\x05\x01\x02\x03\x04", 6);

    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_ROUTE;
    memcpy(sent.route.account, "root", 4);
    memcpy(sent.route.target, "web01", 5);
    assert_wire(2, "\x02\x04\x00\x04root\x00\x05web01", 15);

    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_READY;
    memcpy(sent.ready.target_version, "OpenSSH", 7);
    assert_wire(1, "\x01\x07", 2);
    assert_wire(2, "\x02\x07\x00\x07OpenSSH", 11);

    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_HELLO;
    sent.hello.protocol = PROTOCOL_RDP;
    sent.hello.phase = LINK_PHASE_SESSION;
    sent.hello.pid = 0x11223344;
    memcpy(sent.hello.client_address, "::1", 3);
    sent.hello.client_port = 0xabcd;
    sent.hello.attempts = 2;
    sent.hello.session_id = 42;
    sent.hello.ticket.len = 2;
    memcpy(sent.hello.ticket.data, "\x00\xff", 2);
    assert_wire(2,
                "\x02\x01\x01\x02\x11\x22\x33\x44\x00\x03::1\xab\xcd\x00\x00\x00\x00"
                "\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x2a\x00\x02\x00\xff",
                35);

    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_TARGET_ROW;
    memcpy(sent.target_row.target, "t", 1);
    sent.target_row.last_used_wall_us = -2;
    assert_wire(2, "\x02\x24\x00\x01t\x00\x00\xff\xff\xff\xff\xff\xff\xff\xfe", 15);
}

static void versions_outside_are_refused(void **unused)
{
    const uint8_t next[] = {LINK_VERSION + 1, LINK_TARGETS, 0, 0, 0, 0};
    struct buffer b;

    (void)unused;
    assert_int_equal(link_decode(&got, (const uint8_t *)"\x00\x05\0\0\0\0", 6), ERR_VERSION);
    assert_int_equal(link_decode(&got, next, sizeof(next)), ERR_VERSION);
    assert_int_equal(link_decode(&got, (const uint8_t *)"\xff", 1), ERR_VERSION);
    assert_int_equal(link_decode(&got, (const uint8_t *)"", 0), ERR_INVALID);
    memset(&sent, 0, sizeof(sent));
    sent.type = LINK_TARGETS;
    for (unsigned int version = 0; version < 256; version++) {
        buffer_init(&b, LINK_MESSAGE_MAX);
        link_encode(&sent, (uint8_t)version, &b);
        assert_int_equal(b.failed, version < LINK_VERSION_MIN || version > LINK_VERSION);
        buffer_finish(&b);
    }
}

static void unknown_types_are_refused(void **unused)
{
    size_t known = 0, rows = 0;

    (void)unused;
#define X(id, number, member, from) rows++;
    LINK_MESSAGES(X)
#undef X
    for (unsigned int type = 0; type < 256; type++) {
        uint8_t data[2] = {LINK_VERSION, (uint8_t)type};

        if (strcmp(link_type_name((uint8_t)type), "?") != 0)
            known++;
        else
            assert_int_equal(link_decode(&got, data, 2), ERR_INVALID);
    }
    assert_int_equal(known, rows);
    assert_string_equal(link_type_name(LINK_HELLO), "HELLO");
    assert_string_equal(link_type_name(LINK_GATE_SETTLED), "GATE_SETTLED");
    assert_string_equal(link_type_name(255), "?");
}

static bool encode_fails(void)
{
    struct buffer b;
    bool failed;

    buffer_init(&b, LINK_MESSAGE_MAX);
    link_encode(&sent, LINK_VERSION, &b);
    failed = b.failed;
    buffer_finish(&b);
    return failed;
}

static void our_own_mistakes_are_not_sent(void **unused)
{
    (void)unused;
    fill(&sent, LINK_EVENT, LINK_VERSION, false);
    memset(sent.event.kind, 'x', sizeof(sent.event.kind)); /* no NUL */
    assert_true(encode_fails());
    fill(&sent, LINK_FRAME, LINK_VERSION, false);
    sent.frame.chain.len = 33;
    assert_true(encode_fails());
    fill(&sent, LINK_END, LINK_VERSION, false);
    sent.end.reason = END_REASON_COUNT;
    assert_true(encode_fails());
    fill(&sent, LINK_POLICY, LINK_VERSION, false);
    sent.policy.policy.counts = 3;
    assert_true(encode_fails());
    sent.type = 200;
    assert_true(encode_fails());
}

static void policies_are_exact(void **unused)
{
    struct buffer b;

    (void)unused;
    fill(&sent, LINK_POLICY, LINK_VERSION, false);
    encode(&b, &sent, LINK_VERSION);
    assert_int_equal(b.len, 2 + policy_wire_len(policy_key_count));
    b.data[3]++; /* one key more than this build has, even when its bytes follow */
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    buffer_put_be(&b, 0, 8);
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    b.data[3] = (uint8_t)(policy_key_count - 1);
    assert_int_equal(decode_exact(&got, b.data, b.len - 8 - 5), ERR_INVALID);
    buffer_finish(&b);
    encode(&b, &sent, LINK_VERSION);
    b.data[b.len - 1] = '\1'; /* "any", the last text, is no pattern now */
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    buffer_finish(&b);
    encode(&b, &sent, LINK_VERSION);
    b.data[4] = 0xff; /* idle_after past its maximum */
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    buffer_finish(&b);
}

static void an_older_policy_has_the_newer_defaults(void **unused)
{
    struct buffer b;

    (void)unused;
    fill(&sent, LINK_POLICY, LINK_VERSION, false);
    sent.policy.policy.idle_after = 7;
    sent.policy.policy.channels = 0;
    memcpy(sent.policy.policy.forward_to, "h:1", 4);
    encode(&b, &sent, 2);
    assert_int_equal(b.len, 2 + policy_wire_len(10));
    assert_int_equal(decode_exact(&got, b.data, b.len), 0);
    assert_int_equal(got.policy.policy.idle_after, 7);
    assert_int_equal(got.policy.policy.channels, 127);
    assert_string_equal(got.policy.policy.forward_to, "any");
    buffer_finish(&b);
    encode(&b, &sent, 3);
    assert_int_equal(decode_exact(&got, b.data, b.len), 0);
    assert_int_equal(got.policy.policy.channels, 0);
    assert_string_equal(got.policy.policy.forward_to, "h:1");
    buffer_finish(&b);
}

static void a_refused_message_leaves_no_secret(void **unused)
{
    struct buffer b;

    (void)unused;
    fill(&sent, LINK_AUTH_PASSWORD, LINK_VERSION, false);
    encode(&b, &sent, LINK_VERSION);
    buffer_put_be(&b, 0, 1);
    assert_int_equal(decode_exact(&got, b.data, b.len), ERR_INVALID);
    for (size_t i = 0; i < sizeof(got.auth_password); i++)
        assert_int_equal(((const uint8_t *)&got.auth_password)[i], 0);
    buffer_finish(&b);
    link_message_wipe(&sent);
    assert_int_equal(sent.auth_password.password.len, 0);
    assert_int_equal(sent.auth_password.password.data[0], 0);
    assert_int_equal(sent.type, 0);
}

/* ---- sockets ---- */

static void make_pair(int pair[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
}

static void close_pair(int pair[2])
{
    close(pair[0]);
    close(pair[1]);
}

static size_t open_fds(void)
{
    size_t count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static bool same_file(int a, int b)
{
    struct stat x, y;

    assert_int_equal(fstat(a, &x), 0);
    assert_int_equal(fstat(b, &y), 0);
    return x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}

static void every_message_passes_a_socket(void **unused)
{
    int pair[2], fds[LINK_FDS_MAX];

    (void)unused;
    make_pair(pair);
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        const struct message_row *row = &messages[type];

        if (!row->name)
            continue;
        fill(&sent, (uint8_t)type, LINK_VERSION, true);
        assert_int_equal(link_send(pair[0], &sent, LINK_VERSION, NULL, 0), 0);
        assert_int_equal(link_receive(pair[1], &got, fds), 0);
        assert_int_equal(got.type, type);
        assert_memory_equal((const uint8_t *)&got + row->offset,
                            (const uint8_t *)&sent + row->offset, row->len);
        for (size_t i = 0; i < LINK_FDS_MAX; i++)
            assert_int_equal(fds[i], -1);
    }
    assert_int_equal(link_receive(pair[1], &got, fds), ERR_AGAIN);
    close_pair(pair);
}

static void descriptors_ride_along(void **unused)
{
    int pair[2], mine[LINK_FDS_MAX], fds[LINK_FDS_MAX];
    size_t before = open_fds();

    (void)unused;
    make_pair(pair);
    for (size_t i = 0; i < LINK_FDS_MAX; i++) {
        int ends[2];

        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        mine[i] = ends[0];
        close(ends[1]);
    }
    fill(&sent, LINK_GATE_LISTEN, LINK_VERSION, true);
    for (size_t count = 0; count <= LINK_FDS_MAX; count++) {
        assert_int_equal(link_send(pair[0], &sent, LINK_VERSION, mine, count), 0);
        assert_int_equal(link_receive(pair[1], &got, fds), 0);
        for (size_t i = 0; i < LINK_FDS_MAX; i++) {
            if (i >= count) {
                assert_int_equal(fds[i], -1);
                continue;
            }
            assert_true(same_file(fds[i], mine[i]));
            assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        }
        link_close_fds(fds);
        assert_int_equal(fds[0], -1);
    }
    assert_int_equal(link_send(pair[0], &sent, LINK_VERSION, mine, LINK_FDS_MAX + 1), ERR_INVALID);
    link_close_fds(mine);
    close_pair(pair);
    assert_int_equal(open_fds(), before);
}

/* Raw bytes with `count` copies of stdin's descriptor. */
static void send_raw(int sock, const void *data, size_t len, size_t count)
{
    union {
        struct cmsghdr align;
        uint8_t space[CMSG_SPACE(sizeof(int) * 64)];
    } control = {0};
    union {
        const void *from;
        void *to;
    } bytes = {data};
    struct iovec iov = {bytes.to, len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *head;
    int fd = STDERR_FILENO;

    if (count) {
        msg.msg_control = control.space;
        msg.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * count);
        for (size_t i = 0; i < count; i++)
            memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof(fd));
    }
    assert_int_equal(sendmsg(sock, &msg, 0), (ssize_t)len);
}

static void bad_packets_leak_no_descriptor(void **unused)
{
    static uint8_t big[LINK_MESSAGE_MAX + 1];
    int pair[2], fds[LINK_FDS_MAX];
    size_t before;

    (void)unused;
    make_pair(pair);
    before = open_fds();
    send_raw(pair[0], "\x02\x05\0\0", 4, 3); /* cut */
    assert_int_equal(link_receive(pair[1], &got, fds), ERR_INVALID);
    assert_int_equal(fds[0], -1);
    send_raw(pair[0], "\x09\x05\0\0\0\0", 6, 3);
    assert_int_equal(link_receive(pair[1], &got, fds), ERR_VERSION);
    for (size_t count = LINK_FDS_MAX + 1; count < LINK_FDS_MAX + 40; count++) {
        send_raw(pair[0], "\x02\x05\0\0\0\0", 6, count); /* more than allowed */
        assert_int_equal(link_receive(pair[1], &got, fds), ERR_INVALID);
        assert_int_equal(fds[0], -1);
    }
    memset(big, 2, sizeof(big));
    send_raw(pair[0], big, sizeof(big), 1);
    assert_int_equal(link_receive(pair[1], &got, fds), ERR_INVALID);
    assert_int_equal(open_fds(), before);
    send_raw(pair[0], "\x02\x05\0\0\0\0", 6, 0); /* the socket still works */
    assert_int_equal(link_receive(pair[1], &got, fds), 0);
    close_pair(pair);
}

static void ends_are_told_apart(void **unused)
{
    int pair[2], fds[LINK_FDS_MAX], result = 0;

    (void)unused;
    make_pair(pair);
    fill(&sent, LINK_WELCOME, LINK_VERSION, true);
    for (int i = 0; i < 100000 && result == 0; i++)
        result = link_send(pair[0], &sent, LINK_VERSION, NULL, 0);
    assert_int_equal(result, ERR_AGAIN); /* full, and it did not block */
    while ((result = link_receive(pair[1], &got, fds)) == 0)
        assert_int_equal(got.type, LINK_WELCOME);
    assert_int_equal(result, ERR_AGAIN);
    close(pair[0]);
    assert_int_equal(link_receive(pair[1], &got, fds), ERR_CLOSED);
    assert_int_equal(link_send(pair[1], &sent, LINK_VERSION, NULL, 0), ERR_CLOSED);
    close(pair[1]);
    assert_int_equal(link_send(-1, &sent, LINK_VERSION, NULL, 0), ERR_SYSTEM);
    assert_int_equal(link_receive(-1, &got, fds), ERR_SYSTEM);
}

/* ---- seeds for the fuzzer ---- */

static int write_corpus(const char *dir)
{
    for (unsigned int type = 0; type < COUNT(messages); type++) {
        for (uint8_t version = LINK_VERSION_MIN; version <= LINK_VERSION; version++) {
            char path[4096];
            struct buffer b;
            FILE *f;

            /* only rows that differ need a seed of an older version */
            if (!messages[type].name ||
                (version < LINK_VERSION && type != LINK_READY && type != LINK_RECORD_OPEN))
                continue;
            fill(&sent, (uint8_t)type, version, false);
            buffer_init(&b, LINK_MESSAGE_MAX);
            link_encode(&sent, version, &b);
            snprintf(path, sizeof(path), "%s/%s.%u", dir, link_type_name((uint8_t)type),
                     (unsigned int)version);
            f = fopen(path, "wb");
            if (!f || b.failed || fwrite(b.data, 1, b.len, f) != b.len || fclose(f) != 0) {
                perror(path);
                return 1;
            }
            buffer_finish(&b);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_round_trips),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(leftovers_are_refused),
        cmocka_unit_test(enums_and_counts_are_bounded),
        cmocka_unit_test(texts_and_blobs_keep_their_caps),
        cmocka_unit_test(rows_cover_their_structs),
        cmocka_unit_test(the_wire_is_what_the_page_says),
        cmocka_unit_test(versions_outside_are_refused),
        cmocka_unit_test(unknown_types_are_refused),
        cmocka_unit_test(our_own_mistakes_are_not_sent),
        cmocka_unit_test(policies_are_exact),
        cmocka_unit_test(an_older_policy_has_the_newer_defaults),
        cmocka_unit_test(a_refused_message_leaves_no_secret),
        cmocka_unit_test(every_message_passes_a_socket),
        cmocka_unit_test(descriptors_ride_along),
        cmocka_unit_test(bad_packets_leak_no_descriptor),
        cmocka_unit_test(ends_are_told_apart),
    };
    if (argc == 3 && strcmp(argv[1], "--corpus") == 0)
        return write_corpus(argv[2]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
