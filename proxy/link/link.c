/*
 * The link: one table of rows that encodes and decodes every message, and sending and receiving
 * them with their descriptors. It knows shapes and bounds, not meanings: who may say what when is
 * the broker's, the relay's and the gate's business, who call it. Not for several threads: the
 * receive buffer is one for the process.
 */
#include <sallyport/link.h>

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>

enum field_kind {
    FIELD_U8,
    FIELD_U16,
    FIELD_U32,
    FIELD_U64,
    FIELD_I64,
    FIELD_TEXT,
    FIELD_BLOB,
    FIELD_POLICY
};

/* One field: where it is, what it is, the first version that has it, and its bound: the largest
 * value of a number (u64 and i64 have none), the bytes of a text with its NUL or of a blob. */
struct field {
    uint16_t offset; /* in struct link_message */
    uint8_t kind;
    uint8_t since;
    uint32_t max;
};

struct message_row {
    const char *name;
    const struct field *fields;
    uint8_t field_count;
    bool has_secret; /* a secret or a ticket: wiped wherever it lay */
    uint16_t offset; /* of the member in struct link_message */
    uint16_t len;
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* 0, or an array of negative size when a row's kind is not what the struct has. */
#define CHECKED(ok) (sizeof(char[(ok) ? 1 : -1]) - 1)
#define SIZE_OF(at) sizeof(((struct link_message *)0)->at)
#define NUMBER(at, kind, bytes, since, max)                                                   \
    {                                                                                         \
        offsetof(struct link_message, at) + CHECKED(SIZE_OF(at) == (bytes)), kind, since, max \
    }

#define U8_SINCE(at, since, max) NUMBER(at, FIELD_U8, 1, since, max)
#define U8(at, max)              U8_SINCE(at, 1, max)
#define BOOLEAN(at)              NUMBER(at, FIELD_U8, 1, 1, 1)
#define U16(at)                  NUMBER(at, FIELD_U16, 2, 1, UINT16_MAX)
#define U32(at)                  NUMBER(at, FIELD_U32, 4, 1, UINT32_MAX)
#define U32_MAX(at, max)         NUMBER(at, FIELD_U32, 4, 1, max)
#define U64_SINCE(at, since)     NUMBER(at, FIELD_U64, 8, since, 0)
#define U32_SINCE(at, since)     NUMBER(at, FIELD_U32, 4, since, UINT32_MAX)
#define U64(at)                  U64_SINCE(at, 1)
#define I64(at)                  NUMBER(at, FIELD_I64, 8, 1, 0)
#define TEXT_SINCE(at, since)    NUMBER(at, FIELD_TEXT, SIZE_OF(at), since, SIZE_OF(at))
#define TEXT(at)                 TEXT_SINCE(at, 1)
#define BLOB_SINCE(at, since)    NUMBER(at, FIELD_BLOB, SIZE_OF(at), since, SIZE_OF(at.data))
#define BLOB(at)                 BLOB_SINCE(at, 1)
#define POLICY(at)               NUMBER(at, FIELD_POLICY, sizeof(struct policy), 1, 0)

/* What a LINK_BLOB looks like, whatever its capacity. */
struct blob_head {
    uint16_t len;
    uint8_t data[];
};
static_assert(offsetof(struct blob_head, data) == 2 &&
                  offsetof(struct link_message, hello.ticket.data) -
                          offsetof(struct link_message, hello.ticket) ==
                      2,
              "a blob's bytes follow its length");
static_assert(sizeof(struct link_message) <= UINT16_MAX, "offsets are 16 bits");

/* ---- the rows, in the order of the fields on the wire ---- */

static const struct field fields_hello[] = {
    U8(hello.protocol, PROTOCOL_COUNT - 1),
    U8(hello.phase, LINK_PHASE_ENDED),
    U32(hello.pid),
    TEXT(hello.client_address),
    U16(hello.client_port),
    TEXT(hello.device),
    TEXT(hello.user),
    U32(hello.attempts),
    U64(hello.session_id),
    BLOB(hello.ticket),
};
static const struct field fields_auth_password[] = {
    TEXT(auth_password.user),
    TEXT(auth_password.device),
    BLOB(auth_password.password),
};
static const struct field fields_auth_key[] = {
    TEXT(auth_key.user),     TEXT(auth_key.device), BOOLEAN(auth_key.is_signed),
    TEXT(auth_key.key_type), BLOB(auth_key.key),
};
static const struct field fields_auth_keyboard[] = {
    TEXT(auth_keyboard.user),
    TEXT(auth_keyboard.device),
};
static const struct field fields_auth_answer[] = {BLOB(auth_answer.answer)};
static const struct field fields_route[] = {
    TEXT(route.account),
    TEXT(route.target),
    BLOB_SINCE(route.cookie, 4),
};
static const struct field fields_redirect[] = {
    TEXT(redirect.host),
    BOOLEAN(redirect.needs_secret),
};
static const struct field fields_reconnect[] = {BLOB(reconnect.cookie)};
static const struct field fields_targets[] = {U32(targets.offset)};
static const struct field fields_host_key[] = {
    TEXT(host_key.key_type),
    BLOB(host_key.key),
    U8_SINCE(host_key.hop, 3, LINK_HOPS_MAX),
};
static const struct field fields_probe_step[] = {
    U8(probe_step.hop, LINK_HOPS_MAX),
    U8(probe_step.step, PROBE_STEP_COUNT - 1),
    U8(probe_step.result, PROBE_RESULT_COUNT - 1),
    BOOLEAN(probe_step.is_last),
    TEXT(probe_step.text),
    TEXT(probe_step.key_type),
    BLOB(probe_step.key),
};
static const struct field fields_ready[] = {TEXT_SINCE(ready.target_version, 2)};
static const struct field fields_record_open[] = {
    U32(record_open.channel),        U8(record_open.kind, CHANNEL_KIND_COUNT - 1),
    BOOLEAN(record_open.has_pty),    U16(record_open.cols),
    U16(record_open.rows),           TEXT(record_open.command),
    TEXT_SINCE(record_open.term, 2),
};
static const struct field fields_channel[] = {
    U32(channel.channel),
    U8(channel.change, LINK_CHANNEL_REFUSED),
    U8(channel.kind, CHANNEL_KIND_COUNT - 1),
    BOOLEAN(channel.has_pty),
    TEXT(channel.command),
    U64(channel.bytes_in),
    U64(channel.bytes_out),
    U32(channel.exit_status),
    TEXT(channel.exit_signal),
    U64_SINCE(channel.duration_ms, 3),
};
static const struct field fields_frame[] = {
    U32(frame.channel),
    U64(frame.sequence),
    U64(frame.file_len),
    BLOB(frame.chain),
};
static const struct field fields_recording_state[] = {
    U32(recording_state.channel),
    U8(recording_state.state, RECORDING_FAILED),
    TEXT(recording_state.text),
};
static const struct field fields_resumed[] = {U8(resumed.unused, 0)};
static const struct field fields_desktop[] = {TEXT(desktop.channels), TEXT(desktop.text),
                                              TEXT_SINCE(desktop.device, 4)};
static const struct field fields_nla_ask[] = {TEXT(nla_ask.cookie)};
static const struct field fields_nla_login[] = {TEXT(nla_login.device), BLOB(nla_login.key)};
static const struct field fields_nla_choice[] = {U8(nla_choice.nla, LINK_NLA_ONLY)};
static const struct field fields_nla_begun[] = {U8(nla_begun.unused, 0)};
static const struct field fields_event[] = {TEXT(event.kind), TEXT(event.text)};
static const struct field fields_closed[] = {
    U8(closed.reason, END_REASON_COUNT - 1),
    TEXT(closed.author),
    TEXT(closed.text),
    U64(closed.bytes_in),
    U64(closed.bytes_out),
};
static const struct field fields_door[] = {
    U32(door.channel),     U8(door.change, LINK_DOOR_CLOSE),
    BOOLEAN(door.has_pty), U16(door.cols),
    U16(door.rows),        TEXT(door.term),
    TEXT(door.address),    TEXT(door.command),
};
static const struct field fields_back[] = {U8(back.reason, END_REASON_COUNT - 1), TEXT(back.text)};
static const struct field fields_files[] = {BLOB(files.rows)};
static const struct field fields_watch_closed[] = {
    U64(watch_closed.watch), U32(watch_closed.channel), BOOLEAN(watch_closed.may_type),
    TEXT(watch_closed.who),  U64(watch_closed.typed),   TEXT(watch_closed.text),
};
static const struct field fields_watch_end[] = {U64(watch_end.watch)};
static const struct field fields_watch[] = {
    U64(watch.watch),
    U32(watch.channel),
    BOOLEAN(watch.may_type),
    TEXT(watch.who),
};
static const struct field fields_jump[] = {U32(jump.channel), TEXT(jump.host), U16(jump.port)};
static const struct field fields_jump_closed[] = {
    U32(jump_closed.channel),
    U8(jump_closed.by, LINK_JUMP_END_COUNT - 1),
    U64(jump_closed.bytes_in),
    U64(jump_closed.bytes_out),
};
static const struct field fields_jump_result[] = {
    U32(jump_result.channel),
    BOOLEAN(jump_result.is_ok),
    BOOLEAN(jump_result.is_passed),
    TEXT(jump_result.text),
};
static const struct field fields_welcome[] = {
    U32(welcome.login_grace_s),    U32(welcome.auth_attempts),
    U32(welcome.key_offers),       U32(welcome.keepalive_interval_s),
    U32(welcome.keepalive_count),  U32(welcome.broker_lost_after_s),
    TEXT(welcome.separators),      TEXT(welcome.banner),
    TEXT_SINCE(welcome.user, 3),   TEXT_SINCE(welcome.jump_target, 3),
    BLOB_SINCE(welcome.ticket, 3), U32_SINCE(welcome.jump_idle_s, 3),
};
static const struct field fields_auth_result[] = {
    U8(auth_result.result, LINK_AUTH_PARTIAL),
    TEXT(auth_result.user),
    TEXT(auth_result.text),
    BLOB(auth_result.ticket),
    U8_SINCE(auth_result.methods, 3, LINK_METHODS),
};
static const struct field fields_auth_prompt[] = {
    TEXT(auth_prompt.banner),        TEXT(auth_prompt.instruction), TEXT(auth_prompt.prompt),
    BOOLEAN(auth_prompt.has_prompt), BOOLEAN(auth_prompt.has_echo), U32(auth_prompt.more_s),
};
static const struct field fields_route_result[] = {
    BOOLEAN(route_result.is_ok),
    U8(route_result.reason, END_REASON_COUNT - 1),
    TEXT(route_result.text),
    U64(route_result.session_id),
    I64(route_result.started_wall_us),
    TEXT(route_result.account),
    TEXT(route_result.target),
    TEXT(route_result.address),
    U8(route_result.auth, TARGET_AUTH_PROMPT),
    BOOLEAN(route_result.accept_new),
    TEXT(route_result.host_key_type),
    BLOB(route_result.host_key),
    BLOB(route_result.secret),
    BLOB(route_result.ticket),
    POLICY(route_result.policy),
    U8_SINCE(route_result.hops, 3, LINK_HOPS_MAX),
    BLOB_SINCE(route_result.certificate, 3),
    U8_SINCE(route_result.keeps_cookie, 4, 1),
};
static const struct field fields_redirected[] = {
    BOOLEAN(redirected.is_ok), TEXT(redirected.text),   TEXT(redirected.address),
    BLOB(redirected.host_key), BLOB(redirected.secret),
};
static const struct field fields_hop[] = {
    U8(hop.number, LINK_HOPS_MAX),
    TEXT(hop.target),
    TEXT(hop.account),
    TEXT(hop.address),
    U8(hop.auth, TARGET_AUTH_AGENT),
    BOOLEAN(hop.accept_new),
    TEXT(hop.host_key_type),
    BLOB(hop.host_key),
    BLOB(hop.secret),
    BLOB(hop.certificate),
};
static const struct field fields_probe[] = {
    U8(probe.hops, LINK_HOPS_MAX),
    BOOLEAN(probe.only_key),
    U32(probe.timeout_s),
};
static const struct field fields_target_list[] = {
    U32_MAX(target_list.count, LINK_TARGETS_MAX),
    U32(target_list.total),
};
static const struct field fields_target_row[] = {
    TEXT(target_row.target),
    TEXT(target_row.account),
    I64(target_row.last_used_wall_us),
};
static const struct field fields_host_key_result[] = {
    BOOLEAN(host_key_result.is_ok),
    TEXT(host_key_result.text),
};
static const struct field fields_recording[] = {
    U32(recording.channel),
    U8(recording.verdict, LINK_RECORD_REFUSED),
    TEXT(recording.text),
};
static const struct field fields_notice[] = {
    U8(notice.kind, LINK_NOTICE_MESSAGE),
    TEXT(notice.text),
};
static const struct field fields_policy[] = {POLICY(policy.policy)};
static const struct field fields_end[] = {
    U8(end.reason, END_REASON_COUNT - 1),
    TEXT(end.author),
    TEXT(end.text),
    U32(end.deadline_ms),
};
static const struct field fields_closed_ack[] = {U8(closed_ack.unused, 0)};
static const struct field fields_door_result[] = {
    U32(door_result.channel),
    BOOLEAN(door_result.is_ok),
    U8(door_result.exit_status, UINT8_MAX),
    TEXT(door_result.text),
};
static const struct field fields_door_exit[] = {
    U32(door_exit.channel),
    U8(door_exit.exit_status, UINT8_MAX),
    TEXT(door_exit.text),
};
static const struct field fields_back_result[] = {BLOB(back_result.ticket)};
static const struct field fields_gate_ready[] = {U32(gate_ready.pid)};
static const struct field fields_gate_status[] = {
    U32(gate_status.unauthenticated),
    U32(gate_status.parked),
    U64(gate_status.accepted),
    U64(gate_status.evicted),
};
static const struct field fields_gate_config[] = {
    U32(gate_config.max_unauthenticated),
    U32(gate_config.max_unauthenticated_per_source),
    U32(gate_config.login_grace_s),
    BOOLEAN(gate_config.is_draining),
    TEXT_SINCE(gate_config.trusted_proxies, 3),
};
static const struct field fields_gate_key[] = {BLOB(gate_key.key)};
static const struct field fields_gate_listen[] = {U32_MAX(gate_listen.count, LINK_FDS_MAX)};
static const struct field fields_gate_settled[] = {U32(gate_settled.pid)};
static const struct field fields_gate_jump[] = {
    TEXT(gate_jump.client_address),
    U16(gate_jump.client_port),
    TEXT(gate_jump.device),
    BLOB(gate_jump.pass),
};

#define HAS_SECRET(id)                                                               \
    ((id) == LINK_HELLO || (id) == LINK_AUTH_PASSWORD || (id) == LINK_AUTH_RESULT || \
     (id) == LINK_ROUTE_RESULT || (id) == LINK_BACK_RESULT || (id) == LINK_HOP ||    \
     (id) == LINK_GATE_KEY || (id) == LINK_WELCOME || (id) == LINK_GATE_JUMP ||      \
     (id) == LINK_REDIRECTED || (id) == LINK_AUTH_ANSWER || (id) == LINK_AUTH_PROMPT)

/* Indexed by the number on the wire; rows without a name are not messages. */
static const struct message_row messages[] = {
#define X(id, number, member, from)                    \
    [number] = {#id,                                   \
                fields_##member,                       \
                COUNT(fields_##member),                \
                HAS_SECRET(id),                        \
                offsetof(struct link_message, member), \
                SIZE_OF(member)},
    LINK_MESSAGES(X)
#undef X
};

static const struct message_row *find_message(uint8_t type)
{
    return type < COUNT(messages) && messages[type].name ? &messages[type] : NULL;
}

const char *link_type_name(uint8_t type)
{
    const struct message_row *row = find_message(type);

    return row ? row->name + strlen("LINK_") : "?";
}

/* ---- encoding ---- */

static void put_bytes(struct buffer *out, const void *data, size_t len)
{
    buffer_put_be(out, len, 2);
    buffer_put(out, data, len);
}

static void put_number(struct buffer *out, uint64_t value, uint64_t max, size_t bytes)
{
    if (value > max)
        out->failed = true; /* our own mistake: better not said than refused over there */
    buffer_put_be(out, value, bytes);
}

static void put_text(struct buffer *out, const uint8_t *at, size_t cap)
{
    size_t len = strnlen((const char *)at, cap);

    if (len == cap)
        out->failed = true;
    else
        put_bytes(out, at, len);
}

static size_t policy_keys_at(uint8_t version)
{
    size_t count = 0;

    for (size_t i = 0; i < policy_key_count; i++)
        count += policy_key_since(&policy_keys[i]) <= version;
    return count;
}

static void put_policy(struct buffer *out, const uint8_t *at, uint8_t version)
{
    uint64_t value;

    buffer_put_be(out, policy_keys_at(version), 2);
    for (size_t i = 0; i < policy_key_count; i++) {
        if (policy_key_since(&policy_keys[i]) > version)
            continue;
        if (policy_is_text(&policy_keys[i])) {
            put_text(out, at + policy_keys[i].offset, POLICY_TEXT_MAX);
            continue;
        }
        memcpy(&value, at + policy_keys[i].offset, sizeof(value));
        if (value < policy_keys[i].min || value > policy_keys[i].max)
            out->failed = true;
        buffer_put_be(out, value, sizeof(value));
    }
}

static void put_field(struct buffer *out, const struct field *f, const uint8_t *at, uint8_t version)
{
    const struct blob_head *blob = (const void *)at;
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch ((enum field_kind)f->kind) {
    case FIELD_U8:
        put_number(out, *at, f->max, 1);
        break;
    case FIELD_U16:
        memcpy(&u16, at, sizeof(u16));
        put_number(out, u16, f->max, 2);
        break;
    case FIELD_U32:
        memcpy(&u32, at, sizeof(u32));
        put_number(out, u32, f->max, 4);
        break;
    case FIELD_U64:
    case FIELD_I64: /* two's complement */
        memcpy(&u64, at, sizeof(u64));
        buffer_put_be(out, u64, 8);
        break;
    case FIELD_TEXT:
        put_text(out, at, f->max);
        break;
    case FIELD_BLOB:
        if (blob->len > f->max)
            out->failed = true;
        else
            put_bytes(out, blob->data, blob->len);
        break;
    case FIELD_POLICY:
        put_policy(out, at, version);
        break;
    }
}

static bool is_version(uint8_t version)
{
    return version >= LINK_VERSION_MIN && version <= LINK_VERSION;
}

void link_encode(const struct link_message *m, uint8_t version, struct buffer *out)
{
    const struct message_row *row = find_message(m->type);

    if (!row || !is_version(version)) {
        out->failed = true;
        return;
    }
    buffer_put_be(out, version, 1);
    buffer_put_be(out, m->type, 1);
    for (size_t i = 0; i < row->field_count && !out->failed; i++)
        if (row->fields[i].since <= version)
            put_field(out, &row->fields[i], (const uint8_t *)m + row->fields[i].offset, version);
    if (out->len > LINK_MESSAGE_MAX)
        out->failed = true;
}

/* ---- decoding ---- */

/* u16 length and that many bytes, at most `max`. */
static bool get_bytes(struct cursor *c, size_t max, const uint8_t **data, uint16_t *len)
{
    return cursor_be16(c, len) && *len <= max && cursor_take(c, *len, data);
}

/* The message is zeroed before: the NUL behind a text is there. */
static bool get_text(struct cursor *c, size_t cap, uint8_t *at)
{
    const uint8_t *data;
    uint16_t len;

    if (!get_bytes(c, cap - 1, &data, &len) || memchr(data, 0, len))
        return false;
    memcpy(at, data, len);
    return true;
}

static bool get_blob(struct cursor *c, size_t cap, struct blob_head *blob)
{
    const uint8_t *data;
    uint16_t len;

    if (!get_bytes(c, cap, &data, &len))
        return false;
    memcpy(blob->data, data, len);
    blob->len = len;
    return true;
}

static bool get_policy_text(struct cursor *c, const struct policy_key *key, uint8_t *at)
{
    char why[256];
    uint64_t unused;

    memset(at + key->offset, 0, POLICY_TEXT_MAX);
    return get_text(c, POLICY_TEXT_MAX, at + key->offset) &&
           policy_parse_value(key, (const char *)at + key->offset, &unused, why, sizeof(why)) == 0;
}

/* Exactly the keys of that version: a key that is added brings a version of the link with it. Those
 * that an older one does not have are as if nobody had set them. */
static bool get_policy(struct cursor *c, uint8_t *at, uint8_t version)
{
    uint16_t count;
    uint64_t value;

    if (!cursor_be16(c, &count) || count != policy_keys_at(version))
        return false;
    policy_defaults((void *)at);
    for (size_t i = 0; i < policy_key_count; i++) {
        if (policy_key_since(&policy_keys[i]) > version)
            continue;
        if (policy_is_text(&policy_keys[i])) {
            if (!get_policy_text(c, &policy_keys[i], at))
                return false;
            continue;
        }
        if (!cursor_be64(c, &value) || value < policy_keys[i].min || value > policy_keys[i].max)
            return false;
        memcpy(at + policy_keys[i].offset, &value, sizeof(value));
    }
    return true;
}

static bool get_field(struct cursor *c, const struct field *f, uint8_t *at, uint8_t version)
{
    uint16_t u16;
    uint32_t u32;
    uint64_t u64;

    switch ((enum field_kind)f->kind) {
    case FIELD_U8:
        return cursor_u8(c, at) && *at <= f->max;
    case FIELD_U16:
        if (!cursor_be16(c, &u16) || u16 > f->max)
            return false;
        memcpy(at, &u16, sizeof(u16));
        return true;
    case FIELD_U32:
        if (!cursor_be32(c, &u32) || u32 > f->max)
            return false;
        memcpy(at, &u32, sizeof(u32));
        return true;
    case FIELD_U64:
    case FIELD_I64:
        if (!cursor_be64(c, &u64))
            return false;
        memcpy(at, &u64, sizeof(u64));
        return true;
    case FIELD_TEXT:
        return get_text(c, f->max, at);
    case FIELD_BLOB:
        return get_blob(c, f->max, (void *)at);
    case FIELD_POLICY:
        return get_policy(c, at, version);
    }
    return false;
}

static int decode_fields(struct link_message *m, const struct message_row *row, struct cursor c)
{
    for (size_t i = 0; i < row->field_count; i++) {
        const struct field *f = &row->fields[i];

        if (f->since <= m->version && !get_field(&c, f, (uint8_t *)m + f->offset, m->version))
            return ERR_INVALID;
    }
    return cursor_at_end(&c) ? 0 : ERR_INVALID;
}

int link_decode(struct link_message *m, const uint8_t *data, size_t len)
{
    const struct message_row *row;
    struct cursor c = cursor_of(data, len);
    int result;

    m->version = m->type = 0;
    if (len > LINK_MESSAGE_MAX || !cursor_u8(&c, &m->version))
        return ERR_INVALID;
    if (!is_version(m->version))
        return ERR_VERSION;
    if (!cursor_u8(&c, &m->type))
        return ERR_INVALID;
    row = find_message(m->type);
    if (!row)
        return ERR_INVALID;
    /* only this member, not the whole union: a small message touches little memory */
    memset((uint8_t *)m + row->offset, 0, row->len);
    result = decode_fields(m, row, c);
    if (result < 0)
        link_message_wipe(m);
    return result;
}

void link_message_wipe(struct link_message *m)
{
    const struct message_row *row = find_message(m->type);

    if (row)
        memory_wipe((uint8_t *)m + row->offset, row->len);
    else
        memory_wipe(m, sizeof(*m));
    m->version = m->type = 0;
}

/* ---- sending and receiving ---- */

#define FDS_LEN (sizeof(int) * LINK_FDS_MAX)

/* Room for the credentials too, in case a socket asks for them; so that a few descriptors more
 * than allowed may fit: take_fds() counts. */
union control {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(FDS_LEN) + CMSG_SPACE(sizeof(struct ucred))];
};

static int send_error(int err)
{
    switch (err) {
    case EAGAIN:
    case ENOBUFS:
    case ETOOMANYREFS: /* too many descriptors in flight: they arrive in time */
        return ERR_AGAIN;
    case EPIPE:
    case ECONNRESET:
    case ECONNREFUSED:
    case ENOTCONN:
        return ERR_CLOSED;
    case ENOMEM:
        return ERR_MEMORY;
    default:
        return ERR_SYSTEM;
    }
}

static void attach_fds(struct msghdr *msg, union control *control, const int *fds, size_t count)
{
    struct cmsghdr *head;

    memset(control, 0, sizeof(*control));
    msg->msg_control = control->space;
    msg->msg_controllen = CMSG_SPACE(sizeof(int) * count);
    head = CMSG_FIRSTHDR(msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(head), fds, sizeof(int) * count);
}

static int send_bytes(int sock, struct buffer *b, const int *fds, size_t fd_count)
{
    union control control;
    struct iovec iov = {b->data, b->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    if (fd_count)
        attach_fds(&msg, &control, fds, fd_count);
    do
        n = sendmsg(sock, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? send_error(errno) : 0;
}

int link_send(int sock, const struct link_message *m, uint8_t version, const int *fds,
              size_t fd_count)
{
    const struct message_row *row = find_message(m->type);
    struct buffer b;
    int result = ERR_INVALID;

    if (!row || fd_count > LINK_FDS_MAX)
        return ERR_INVALID;
    if (row->has_secret)
        buffer_init_secret(&b, LINK_MESSAGE_MAX);
    else
        buffer_init(&b, LINK_MESSAGE_MAX);
    link_encode(m, version, &b);
    if (!b.failed)
        result = send_bytes(sock, &b, fds, fd_count);
    buffer_finish(&b);
    return result;
}

/* Take every descriptor out of the control data; false when there were more than allowed. */
static bool take_fds(struct msghdr *msg, int fds[LINK_FDS_MAX])
{
    size_t taken = 0;
    bool fits = true;

    for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
        size_t count;

        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(head) + i * sizeof(int), sizeof(fd));
            if (taken < LINK_FDS_MAX) {
                fds[taken++] = fd;
            } else {
                close(fd);
                fits = false;
            }
        }
    }
    return fits;
}

static int receive_error(int err)
{
    switch (err) {
    case EAGAIN:
        return ERR_AGAIN;
    case ECONNRESET:
    case ENOTCONN:
        return ERR_CLOSED;
    case ENOMEM:
        return ERR_MEMORY;
    default:
        return ERR_SYSTEM;
    }
}

int link_receive(int sock, struct link_message *m, int fds[LINK_FDS_MAX])
{
    static uint8_t scratch[LINK_MESSAGE_MAX]; /* only what arrives is ever touched */
    union control control;
    struct iovec iov = {scratch, sizeof(scratch)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    ssize_t n;
    int result;

    for (size_t i = 0; i < LINK_FDS_MAX; i++)
        fds[i] = -1;
    do
        n = recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return receive_error(errno);
    if (!take_fds(&msg, fds) || msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        result = ERR_INVALID;
    else if (n == 0) /* the end; nobody sends an empty message */
        result = ERR_CLOSED;
    else
        result = link_decode(m, scratch, (size_t)n);
    memory_wipe(scratch, (size_t)n);
    if (result < 0)
        link_close_fds(fds);
    return result;
}

void link_close_fds(int fds[LINK_FDS_MAX])
{
    for (size_t i = 0; i < LINK_FDS_MAX; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}
