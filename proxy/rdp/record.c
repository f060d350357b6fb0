/*
 * Recording a session: asking the broker before anything of it reaches the target, choosing what of
 * the client's stream is kept, and what happens when it cannot be written; record.h. Of a run of
 * PDUs only framing, channel and share headers are looked at; what is kept goes to the writer in as
 * few pieces as there are gaps. Steps of a turn of proxy/rdp/session.c, and the tap of the client's
 * leg.
 */
#include "proxy/rdp/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#include "proxy/rdp/events.h"
#include "proxy/rdp/le.h"
#include "proxy/relay/recorded.h"
#include "proxy/relay/sandbox.h"
#include "tracker/recording/desktop.h"

#define CHANNEL                 1 /* of the session: an RDP session has one recording */
#define INPUT_BATCH             64
#define CAPABILITY_GENERAL      1 /* 2.2.7.1.1 */
#define CAPABILITY_EXTRA_FLAGS  10
#define AUTORECONNECT_SUPPORTED 0x08
#define RUN_MAX                 (128u * 1024u)
#define WITHHELD_TEXT \
    "a part of the session was compressed where it was not allowed, and is left out"

#define DVC_CAPABILITIES 5

/* Dynamic channels that make pictures, by the beginning of their names. */
static const char *const dynamic_names[] = {
    DVC_NAME_GRAPHICS,
    "Microsoft::Windows::RDS::Video::",
    "Microsoft::Windows::RDS::Geometry",
    "Microsoft::Windows::RDS::MouseCursor",
};

/* ---- failing ---- */

static void give_up(struct rdp_session *s, const char *why)
{
    struct rdp_record *r = &s->record;

    desktop_writer_destroy(r->writer);
    r->writer = NULL;
    r->state = RDP_RECORD_OFF;
    if (recorded_failed(s->relay, CHANNEL, why))
        rdp_end(s, END_RECORDING_FAILED, "broker", RECORDED_FAILED, RECORDED_FAILED_SENTENCE);
}

static void check(struct rdp_session *s, int rc)
{
    if (rc < 0)
        give_up(s, rc == ERR_SYSTEM ? strerror(errno) : error_text(rc));
}

static void put(struct rdp_session *s, enum desktop_type type, uint8_t flags, const void *body,
                size_t len)
{
    if (s->record.writer)
        check(s, desktop_write(s->record.writer, type, flags, body, len, clock_mono_us()));
}

/* ---- beginning ---- */

void rdp_record_ask(struct rdp_session *s)
{
    struct link_record_open request = {.channel = CHANNEL, .kind = CHANNEL_SHELL};

    if (s->record.state != RDP_RECORD_NONE)
        return;
    s->record.state = RDP_RECORD_OFF;
    if (!relay_policy(s->relay)->record_rdp)
        return;
    s->record.state = RDP_RECORD_ASKED;
    relay_record_open(s->relay, &request);
}

bool rdp_record_is_ready(const struct rdp_session *s)
{
    return s->record.state != RDP_RECORD_ASKED;
}

bool rdp_record_reads(const struct rdp_session *s)
{
    return s->record.state == RDP_RECORD_READY || s->record.state == RDP_RECORD_ON;
}

void rdp_record_answer(struct rdp_session *s, const struct link_recording *answer, int fd)
{
    struct rdp_record *r = &s->record;
    const char *text = recorded_refusal(answer);

    if (r->state != RDP_RECORD_ASKED) {
        if (fd >= 0)
            close(fd);
        return;
    }
    r->state = RDP_RECORD_OFF;
    if (answer->verdict == LINK_RECORD_YES && fd >= 0) {
        r->fd = sandbox_reserve_recording_fd(fd);
        if (r->fd < 0) {
            close(fd);
            give_up(s, "no descriptor is left for it");
        } else {
            r->state = RDP_RECORD_READY;
        }
    } else if (answer->verdict != LINK_RECORD_NO) {
        rdp_end(s, END_RECORDING_FAILED, "broker", text, text);
    }
    rdp_want_turn(s);
}

static void on_frame(uint64_t sequence, uint64_t file_len, const uint8_t chain[RECORDING_CHAIN_LEN],
                     void *arg)
{
    struct rdp_session *s = arg;

    recorded_frame(s->relay, CHANNEL, sequence, file_len, chain);
}

static bool open_writer(struct rdp_session *s)
{
    const struct gcc_client *c = &s->u.client;
    struct desktop_head head = {
        .session_id = relay_session_id(s->relay),
        .channel = CHANNEL,
        .started_wall_us = clock_wall_us(),
        .user = s->u.login.user,
        .account = s->t.account,
        .target = s->t.name,
        .client = c->name,
        .build = c->build,
        .width = c->width,
        .height = c->height,
        .bpp = c->bpp,
        .client_security = s->user.ssl ? SSL_get_version(s->user.ssl) : "",
        .target_security = s->target.ssl ? SSL_get_version(s->target.ssl) : "",
        .input = (enum policy_input)relay_policy(s->relay)->input,
    };
    struct rdp_record *r = &s->record;

    r->state = RDP_RECORD_ON;
    r->writer = desktop_writer_create(r->fd, &head, on_frame, s);
    r->fd = -1;
    if (!r->writer)
        give_up(s, error_text(ERR_MEMORY));
    return r->writer != NULL;
}

static void put_channels(struct rdp_session *s)
{
    const struct gcc_server *ids = &s->u.ids;
    struct desktop_channels c = {
        .user = s->u.user_id, .io = ids->io_channel, .message = ids->message_channel};
    struct rdp_record *r = &s->record;
    struct buffer b;

    r->io = ids->io_channel;
    for (size_t i = 0; i < ids->channel_count && i < s->u.client.channel_count; i++) {
        const struct gcc_channel *channel = &s->u.client.channels[i];
        bool is_drdynvc = strcasecmp(channel->name, "drdynvc") == 0 && s->t.channels[i];
        struct desktop_channel *row = &c.list[c.count++];

        row->number = ids->channels[i];
        row->options = channel->options;
        row->flags = is_drdynvc         ? DESKTOP_CHANNEL_RECORDED
                     : s->t.channels[i] ? 0
                                        : DESKTOP_CHANNEL_DROPPED;
        memcpy(row->name, channel->name, DESKTOP_NAME_MAX);
        if (is_drdynvc)
            r->drdynvc = row->number;
    }
    buffer_init(&b, 4096);
    desktop_channels_put(&b, &c);
    if (!b.failed)
        put(s, DESKTOP_CHANNELS, 0, b.data, b.len);
    buffer_finish(&b);
}

void rdp_record_begin(struct rdp_session *s)
{
    if (s->record.state == RDP_RECORD_READY && open_writer(s)) {
        s->user.tap = rdp_record_sent;
        put_channels(s);
        rdp_want_turn(s); /* the first frame's time is known now */
    }
}

/* ---- what is kept ---- */

enum keep { KEEP_NOT, KEEP, KEEP_SCRUBBED, KEEP_SIZED };

static bool find_dynamic(const struct rdp_record *r, uint32_t channel, size_t *at)
{
    for (*at = 0; *at < r->dynamic_count; ++*at)
        if (r->dynamic[*at] == channel)
            return true;
    return false;
}

static bool makes_pictures(const char *name)
{
    for (size_t i = 0; i < sizeof(dynamic_names) / sizeof(dynamic_names[0]); i++)
        if (strncasecmp(name, dynamic_names[i], strlen(dynamic_names[i])) == 0)
            return true;
    return false;
}

static bool opens(struct rdp_record *r, struct cursor message)
{
    struct dvc_create create;
    size_t at;

    if (!dvc_create_parse(message, &create) || !makes_pictures(create.name))
        return false;
    if (!find_dynamic(r, create.id, &at)) {
        if (r->dynamic_count == RECORD_DYNAMIC_MAX)
            return false;
        r->dynamic[r->dynamic_count++] = create.id;
    }
    return true;
}

/* A message of drdynvc, as far as its first chunk goes. */
static bool is_message_kept(struct rdp_record *r, struct cursor message)
{
    struct cursor c = message;
    struct dvc_head m;
    size_t at;

    if (!dvc_head_parse(&c, &m))
        return false;
    switch (m.cmd) {
    case DVC_CAPABILITIES:
        return true;
    case DVC_CREATE:
        return opens(r, message);
    case DVC_CLOSE:
        if (!find_dynamic(r, m.channel, &at))
            return false;
        r->dynamic[at] = r->dynamic[--r->dynamic_count];
        return true;
    default:
        return find_dynamic(r, m.channel, &at);
    }
}

static enum keep keep_dynamic(struct rdp_session *s, struct cursor data)
{
    struct rdp_record *r = &s->record;
    struct cursor c = data;
    uint32_t total, flags;

    if (!cursor_le32(&c, &total) || !cursor_le32(&c, &flags))
        return KEEP_NOT;
    if (flags & CHANNEL_COMPRESSED) {
        if (r->unreadable++ == 0)
            rdp_record_notice(s, WITHHELD_TEXT);
        return KEEP_NOT;
    }
    if (flags & CHANNEL_FIRST)
        r->is_kept = is_message_kept(r, c);
    return r->is_kept ? KEEP : KEEP_NOT;
}

/* Before the first Demand Active there is licensing, which is none of a recording's business. */
static enum keep keep_io(struct rdp_session *s, struct cursor data)
{
    enum keep keep = s->record.has_demand ? KEEP : KEEP_NOT;
    size_t len = cursor_left(&data);
    struct share_pdu share;

    while (cursor_left(&data) > 1 && share_next(&data, &share) == PARSE_OK) {
        if (!s->record.has_demand &&
            (share.type != SHARE_DEMAND_ACTIVE || share.version != 1 || share.len != len))
            return KEEP_NOT;
        if (share.type == SHARE_REDIRECTION)
            return KEEP_NOT;
        if (share.type == SHARE_DEMAND_ACTIVE)
            keep = KEEP_SIZED;
        else if (share.type == SHARE_DATA && share.data_type == DATA_SAVE_SESSION_INFO)
            keep = KEEP_SCRUBBED;
    }
    return keep;
}

static enum keep keep_frame(struct rdp_session *s, const struct frame *f)
{
    const struct rdp_record *r = &s->record;
    struct mcs_pdu pdu;

    if (f->kind == FRAME_FASTPATH)
        return r->has_demand ? KEEP : KEEP_NOT;
    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK || pdu.type != MCS_DATA_INDICATION)
        return KEEP_NOT;
    if (pdu.channel == r->io)
        return keep_io(s, pdu.data);
    if (pdu.channel == r->drdynvc && r->drdynvc)
        return keep_dynamic(s, pdu.data);
    return KEEP_NOT;
}

/* ---- what was sent ---- */

static void put_pdus(struct rdp_session *s, const uint8_t *from, const uint8_t *to)
{
    if (to > from)
        put(s, DESKTOP_TARGET, s->record.is_theirs ? 0 : DESKTOP_OURS, from, (size_t)(to - from));
}

/* What a Demand Active says is told before it. */
static void put_size(struct rdp_session *s, const struct frame *f)
{
    uint8_t body[DESKTOP_SIZE_LEN];
    struct share_facts facts;
    struct share_pdu share;
    struct mcs_pdu pdu;

    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK)
        return;
    while (share_next(&pdu.data, &share) == PARSE_OK) {
        if (share.type != SHARE_DEMAND_ACTIVE ||
            demand_active_parse(share.body, &facts) != PARSE_OK)
            continue;
        s->record.has_demand = true;
        desktop_size_put(body, &(struct desktop_size){.width = facts.width,
                                                      .height = facts.height,
                                                      .bpp = facts.bpp,
                                                      .share_id = facts.share_id});
        put(s, DESKTOP_SIZE, 0, body, sizeof(body));
    }
}

/* The same PDU without the secret of automatic reconnection. There is none in a compressed one: see
 * has_bulk(). */
static void put_scrubbed(struct rdp_session *s, const struct frame *f)
{
    struct logon_cookie cookie;
    struct share_pdu share;
    struct mcs_pdu pdu;
    struct buffer copy;

    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK)
        return;
    buffer_init_secret(&copy, TPKT_MAX);
    buffer_put(&copy, f->data, f->len);
    while (!copy.failed && cursor_left(&pdu.data) > 1 && share_next(&pdu.data, &share) == PARSE_OK)
        if (share.type == SHARE_DATA && share.data_type == DATA_SAVE_SESSION_INFO &&
            !share.is_compressed && logon_cookie_parse(share.body, &cookie))
            memset(copy.data + (cookie.bits - f->data), 0, LOGON_COOKIE_BITS);
    if (!copy.failed)
        put_pdus(s, copy.data, copy.data + copy.len);
    buffer_finish(&copy);
}

void rdp_record_sent(void *arg, const void *data, size_t len)
{
    struct rdp_session *s = arg;
    struct cursor c = cursor_of(data, len);
    const uint8_t *from = data;
    struct frame f;

    if (!s->record.writer)
        return;
    while (frame_next(&c, TPKT_MAX, &f) == PARSE_OK) {
        enum keep keep = keep_frame(s, &f);

        if (keep == KEEP && (size_t)(c.at - from) <= RUN_MAX)
            continue;
        put_pdus(s, from, f.data);
        from = keep == KEEP ? f.data : c.at;
        if (keep == KEEP_SCRUBBED) {
            put_scrubbed(s, &f);
        } else if (keep == KEEP_SIZED) {
            put_size(s, &f);
            from = f.data;
        }
    }
    put_pdus(s, from, c.at);
}

/* ---- what the client says ---- */

/*
 * Whether the target compresses what it says, Save Session Info too, which could not be scrubbed
 * then without following all of it. Where pictures have a channel with a compression of its own,
 * nothing is lost without; where not, it is ten times less, and the target is told that the client
 * does not reconnect by itself, so that it gives no cookie.
 */
static bool has_bulk(const struct rdp_session *s)
{
    return !(s->t.has_graphics && s->u.client.early_flags & CS_EARLY_DYNVC_GFX);
}

uint32_t rdp_record_info_flags(const struct rdp_session *s, uint32_t flags)
{
    return rdp_record_reads(s) && !has_bulk(s) ? flags & ~INFO_COMPRESSION : flags;
}

void rdp_record_confirm(struct rdp_session *s, const struct share_pdu *share, const uint8_t *start,
                        uint8_t *at)
{
    const uint8_t *set = capability_find(SHARE_CONFIRM_ACTIVE, share->body, CAPABILITY_GENERAL,
                                         CAPABILITY_EXTRA_FLAGS + 2);

    put(s, DESKTOP_CONFIRM, 0, start, share->len);
    if (set && rdp_record_reads(s) && has_bulk(s))
        at[set - start + CAPABILITY_EXTRA_FLAGS] &= (uint8_t)~AUTORECONNECT_SUPPORTED;
}

static uint16_t button_of(uint32_t flags)
{
    if (flags & INPUT_POINTER_BUTTON1)
        return 1;
    return flags & INPUT_POINTER_BUTTON2 ? 2 : flags & INPUT_POINTER_BUTTON3 ? 3 : 0;
}

static bool take_pointer(const struct input_event *e, struct desktop_input *out)
{
    uint16_t button = button_of(e->flags);

    out->x = e->x;
    out->y = e->y;
    if (e->flags & (INPUT_POINTER_WHEEL | INPUT_POINTER_HWHEEL)) { /* 9 bits, two's complement */
        out->kind = DESKTOP_INPUT_WHEEL;
        out->flags = e->flags & INPUT_POINTER_HWHEEL ? DESKTOP_INPUT_HORIZONTAL : 0;
        out->code = (uint16_t)(e->flags & 0xff);
        if (e->flags & INPUT_POINTER_NEGATIVE)
            out->code = (uint16_t)(out->code | 0xff00);
        return true;
    }
    out->kind = button ? DESKTOP_INPUT_BUTTON : DESKTOP_INPUT_MOVE;
    out->code = button;
    if (button && !(e->flags & INPUT_POINTER_DOWN))
        out->flags = DESKTOP_INPUT_RELEASE;
    return button || e->flags & INPUT_POINTER_MOVE;
}

/* Which key it was says its prefix, too. */
static uint8_t prefix_of(const struct input_event *e)
{
    if (e->is_extended1)
        return DESKTOP_INPUT_EXTENDED1;
    return e->is_extended ? DESKTOP_INPUT_EXTENDED : 0;
}

static bool take_event(const struct input_event *e, bool has_keys, struct desktop_input *out)
{
    *out = (struct desktop_input){0};
    switch (e->kind) {
    case INPUT_SCANCODE:
    case INPUT_UNICODE:
        out->kind = e->kind == INPUT_SCANCODE ? DESKTOP_INPUT_KEY : DESKTOP_INPUT_UNICODE;
        out->flags = (uint8_t)((e->is_release ? DESKTOP_INPUT_RELEASE : 0) |
                               (has_keys ? prefix_of(e) : DESKTOP_INPUT_WITHHELD));
        out->code = has_keys ? e->code : 0;
        return true;
    case INPUT_POINTER:
        return take_pointer(e, out);
    case INPUT_BUTTONS:
        *out = (struct desktop_input){
            .kind = DESKTOP_INPUT_BUTTON, .code = e->flags & 1 ? 4 : 5, .x = e->x, .y = e->y};
        out->flags = e->flags & INPUT_POINTER_DOWN ? 0 : DESKTOP_INPUT_RELEASE;
        return true;
    default:
        return false;
    }
}

static void put_events(struct rdp_session *s, struct input_reader *reader)
{
    bool has_keys = relay_policy(s->relay)->input == INPUT_ALL;
    uint8_t bodies[INPUT_BATCH * DESKTOP_INPUT_LEN];
    struct desktop_input out;
    struct input_event e;
    size_t len = 0;

    while (input_next(reader, &e) == PARSE_OK) {
        if (!take_event(&e, has_keys, &out))
            continue;
        desktop_input_put(bodies + len, &out);
        len += DESKTOP_INPUT_LEN;
        if (len == sizeof(bodies)) {
            put(s, DESKTOP_INPUT, 0, bodies, len);
            len = 0;
        }
    }
    if (len > 0)
        put(s, DESKTOP_INPUT, 0, bodies, len);
}

void rdp_record_fastpath(struct rdp_session *s, uint8_t first, struct cursor body)
{
    struct input_reader reader;

    if (s->record.writer && input_begin_fast(&reader, first, body))
        put_events(s, &reader);
}

void rdp_record_slowpath(struct rdp_session *s, struct cursor body)
{
    struct input_reader reader;

    if (s->record.writer && input_begin_slow(&reader, body))
        put_events(s, &reader);
}

void rdp_record_touch(struct rdp_session *s)
{
    uint8_t body[DESKTOP_INPUT_LEN];

    desktop_input_put(body, &(struct desktop_input){.kind = DESKTOP_INPUT_TOUCH});
    put(s, DESKTOP_INPUT, 0, body, sizeof(body));
}

void rdp_record_notice(struct rdp_session *s, const char *text)
{
    if (text[0])
        put(s, DESKTOP_NOTICE, 0, text, strlen(text));
}

/* ---- time, and the end ---- */

void rdp_record_tick(struct rdp_session *s)
{
    int64_t now_us = clock_mono_us(), due_ms = -1;

    if (!s->record.writer)
        return;
    check(s, desktop_tick(s->record.writer, now_us, &due_ms));
    if (s->record.writer && due_ms >= 0)
        rdp_want_timer(s, now_us / 1000 + due_ms + 1);
}

static void end_with(struct rdp_session *s, enum end_reason reason)
{
    struct rdp_record *r = &s->record;

    if (r->state == RDP_RECORD_READY)
        (void)open_writer(s);
    if (!r->writer)
        return;
    if (desktop_close(r->writer, end_reason_name(reason), clock_mono_us()) < 0) {
        give_up(s, strerror(errno));
        return;
    }
    desktop_writer_destroy(r->writer);
    r->writer = NULL;
    r->state = RDP_RECORD_OFF;
}

void rdp_record_give_back(struct rdp_session *s)
{
    end_with(s, END_TARGET_UNREACHABLE);
    s->user.tap = NULL;
    s->record = (struct rdp_record){.state = RDP_RECORD_NONE};
}

void rdp_record_finish(struct rdp_session *s)
{
    enum end_reason reason = s->ending.reason;

    end_with(s, reason == END_NONE ? END_USER_EXIT : reason);
}
