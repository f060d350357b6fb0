/*
 * Whole PDUs both ways. Nothing is decoded: of each PDU the channel is read, the numbers of user
 * and channel are exchanged in place, and runs of PDUs go on in one piece from the memory into
 * which they were decrypted. On the way the few facts are learned that notices, idle times and the
 * end need. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/screen.h"
#include "proxy/rdp/stage.h"

/* MS-RDPBCGR 2.2.5.1.1: reasons with which a target says that its user ended it */
#define ERRINFO_DISCONNECT_BY_USER 0x0bu
#define ERRINFO_LOGOFF_BY_USER     0x0cu

enum verdict { PASS, DROP, STOP /* the session ends: nothing more of this leg */ };

/* One run from one leg to the other. */
struct way {
    struct rdp_session *s;
    struct leg *from, *to;
    enum verdict (*look)(struct rdp_session *s, const struct frame *f, uint8_t *at);
    size_t passed;
};

static enum verdict end_for_nonsense(struct rdp_session *s, bool is_target)
{
    rdp_end(s, is_target ? END_TARGET_CLOSED : END_POLICY, is_target ? "target" : "client",
            is_target ? "the target sent what is not RDP" : "the client sent what is not RDP",
            is_target ? "You have been disconnected: the target sent what is not RDP" : "");
    return STOP;
}

/* ---- numbers ---- */

/* The target's number for the client's channel; 0: leads nowhere. */
static uint16_t to_target(const struct rdp_session *s, uint16_t channel)
{
    if (channel == s->u.ids.io_channel)
        return s->t.ids.io_channel;
    if (s->u.ids.message_channel && channel == s->u.ids.message_channel)
        return s->t.ids.message_channel;
    for (size_t i = 0; i < s->u.ids.channel_count; i++)
        if (s->u.ids.channels[i] == channel)
            return s->t.channels[i];
    return 0;
}

static uint16_t to_user(const struct rdp_session *s, uint16_t channel)
{
    if (channel == s->t.ids.io_channel)
        return s->u.ids.io_channel;
    for (size_t i = 0; i < s->u.ids.channel_count; i++)
        if (s->t.channels[i] == channel && channel)
            return s->u.ids.channels[i];
    if (s->t.ids.message_channel && channel == s->t.ids.message_channel)
        return s->u.ids.message_channel;
    return 0;
}

/* Whether it is the client's static channel of this name. In lock-step the numbers are the
 * target's, in no order. */
static bool is_named(const struct rdp_session *s, uint16_t user_channel, const char *name)
{
    for (size_t i = 0; i < s->u.ids.channel_count; i++)
        if (s->u.ids.channels[i] == user_channel)
            return strcasecmp(s->u.client.channels[i].name, name) == 0;
    return false;
}

static bool is_message_channel(const struct rdp_session *s, uint16_t user_channel)
{
    return s->u.ids.message_channel && user_channel == s->u.ids.message_channel;
}

/* ---- from the client ---- */

static void look_at_confirm(struct rdp_session *s, const struct share_pdu *pdu)
{
    struct share_facts facts;

    if (confirm_active_parse(pdu->body, &facts) != PARSE_OK)
        return;
    s->desktop.facts.has_fastpath_output = facts.has_fastpath_output;
    if (facts.bpp)
        s->desktop.facts.bpp = facts.bpp < s->desktop.facts.bpp || !s->desktop.facts.bpp
                                   ? facts.bpp
                                   : s->desktop.facts.bpp;
}

static void look_at_share_of_user(struct rdp_session *s, const struct share_pdu *pdu)
{
    bool is_human;

    if (pdu->type == SHARE_CONFIRM_ACTIVE) {
        look_at_confirm(s, pdu);
    } else if (pdu->type == SHARE_DATA && !pdu->is_compressed) {
        if (pdu->data_type == DATA_INPUT) {
            rdp_record_slowpath(s, pdu->body);
            if (input_slowpath_scan(pdu->body, &s->desktop.input, &is_human) == PARSE_OK)
                s->desktop.is_human |= is_human;
        } else if (pdu->data_type == DATA_SHUTDOWN_REQUEST)
            s->desktop.wants_exit = true;
    }
}

/* Before Demand Active a client has nothing to say but licensing: no second Client Info. */
static enum verdict look_at_io_of_user(struct rdp_session *s, const struct mcs_pdu *pdu,
                                       const struct frame *f, uint8_t *at)
{
    struct cursor c = pdu->data;
    struct share_pdu share;
    uint16_t flags;

    if (!s->desktop.has_demand)
        return cursor_le16(&c, &flags) && flags & SEC_LICENSE_PKT ? PASS : DROP;
    while (!cursor_at_end(&c)) {
        size_t offset = (size_t)(c.at - f->data);

        if (share_next(&c, &share) != PARSE_OK)
            return DROP;
        if (s->desktop.wants_confirm && share.type != SHARE_CONFIRM_ACTIVE)
            return DROP; /* meant for the stage that was */
        s->desktop.wants_confirm = false;
        if (share.type != SHARE_FLOW)
            put_le16(at + offset + SHARE_AT_SOURCE, s->t.user_id);
        if (share.type == SHARE_CONFIRM_ACTIVE) {
            rdp_record_confirm(s, &share, f->data + offset, at + offset);
            if (channels_are_read(s))
                channels_stay_readable(SHARE_CONFIRM_ACTIVE, &share, f, at);
        }
        look_at_share_of_user(s, &share);
        rdp_notice_share_of_user(s, &share, f, at);
    }
    return PASS;
}

static enum verdict answer_join(struct rdp_session *s, uint16_t channel)
{
    struct buffer b;

    buffer_init(&b, 64);
    mcs_join_confirm_put(&b, s->u.user_id, channel);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    return DROP;
}

static enum verdict look_at_data_of_user(struct rdp_session *s, const struct mcs_pdu *pdu,
                                         const struct frame *f, uint8_t *at)
{
    uint16_t channel = to_target(s, pdu->channel);
    enum verdict v = PASS;

    if (channel == 0)
        return DROP;
    if (pdu->channel == s->u.ids.io_channel)
        v = look_at_io_of_user(s, pdu, f, at);
    else if (is_named(s, pdu->channel, "drdynvc")) {
        if (dvc_client_scan(pdu->data, &s->desktop.dvc)) {
            s->desktop.is_human = true;
            rdp_record_touch(s);
        }
        rdp_notice_dynamic_of_user(s, pdu->data);
        if (rdp_dynamic_of_user(s, pdu->data))
            return DROP;
    } else if (is_named(s, pdu->channel, "rdpdr") &&
               channels_filter_devices(s, channel, pdu->data, &s->desktop.instead))
        return DROP;
    put_be16(at + MCS_AT_USER, (uint16_t)(s->t.user_id - MCS_BASE_CHANNEL));
    put_be16(at + MCS_AT_CHANNEL, channel);
    return v;
}

static enum verdict look_at_user(struct rdp_session *s, const struct frame *f, uint8_t *at)
{
    struct mcs_pdu pdu;
    bool is_human;

    if (f->kind == FRAME_FASTPATH) {
        if (!s->desktop.has_demand || s->desktop.wants_confirm)
            return DROP;
        rdp_record_fastpath(s, f->data[0], frame_body(f));
        if (input_fastpath_scan(f->data[0], frame_body(f), &s->desktop.input, &is_human) ==
            PARSE_OK)
            s->desktop.is_human |= is_human;
        return PASS;
    }
    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK)
        return end_for_nonsense(s, false);
    switch (pdu.type) {
    case MCS_DATA_REQUEST:
        return look_at_data_of_user(s, &pdu, f, at);
    case MCS_JOIN_REQUEST:
        return answer_join(s, pdu.channel);
    case MCS_ULTIMATUM:
        s->desktop.is_bye = true;
        return PASS;
    case MCS_ERECT_DOMAIN:
        return DROP;
    default:
        return end_for_nonsense(s, false);
    }
}

/* ---- from the target ---- */

static void tell_desktop(struct rdp_session *s)
{
    const struct share_facts *f = &s->desktop.facts;
    char channels[CHANNELS_TEXT_MAX], text[SESSION_TEXT_MAX];

    channels_describe(s, channels, sizeof(channels));
    snprintf(text, sizeof(text), "%ux%u, %u bpp; client %.60s, build %u, %s; target %s", f->width,
             f->height, f->bpp, s->u.client.name, s->u.client.build, SSL_get_version(s->user.ssl),
             SSL_get_version(s->target.ssl));
    relay_desktop(s->relay, channels, text);
}

static void tell_ready(struct rdp_session *s)
{
    char text[SESSION_DEVICE_MAX];

    snprintf(text, sizeof(text), "RDP, %s %s", SSL_get_version(s->target.ssl),
             SSL_get_cipher_name(s->target.ssl));
    relay_ready(s->relay, text);
    relay_narrow(s->relay);
}

/* The target's desktop follows what the proxy showed so far. */
static void take_over(struct rdp_session *s)
{
    rdp_redirect_arrived(s);
    if (!s->stage)
        return;
    rdp_screen_finish(s);
    rdp_stage_leave(s);
    rdp_user_forget(s);
    s->desktop.wants_confirm = true;
}

static void look_at_demand(struct rdp_session *s, const struct share_pdu *pdu)
{
    struct desktop *d = &s->desktop;
    struct share_facts facts;

    if (demand_active_parse(pdu->body, &facts) != PARSE_OK)
        return;
    take_over(s);
    facts.has_fastpath_output = d->facts.has_fastpath_output; /* the client's to say */
    d->facts = facts;
    log_debug("desktop %ux%u bpp=%u share=%#x", facts.width, facts.height, facts.bpp,
              facts.share_id);
    if (!d->has_demand) {
        d->has_demand = true;
        tell_ready(s);
    }
    tell_desktop(s);
}

/* Never relayed: the client would go beside the proxy. */
static enum verdict redirected(struct rdp_session *s, struct cursor packet)
{
    return rdp_redirect_wanted(s, packet) ? STOP : DROP;
}

static enum verdict look_at_share_of_target(struct rdp_session *s, const struct share_pdu *pdu)
{
    struct desktop *d = &s->desktop;
    struct cursor body = pdu->body;

    switch (pdu->type) {
    case SHARE_DEMAND_ACTIVE:
        look_at_demand(s, pdu);
        break;
    case SHARE_DEACTIVATE_ALL:
        d->is_active = false;
        break;
    case SHARE_REDIRECTION:
        return cursor_skip(&body, 2) ? redirected(s, body) : end_for_nonsense(s, true);
    case SHARE_DATA:
        if (pdu->data_type == DATA_FONT_MAP)
            d->is_active = true;
        else if (pdu->data_type == DATA_SAVE_SESSION_INFO && !pdu->is_compressed)
            rdp_cookie_given(s, pdu->body);
        else if (pdu->data_type == DATA_SET_ERROR_INFO && !pdu->is_compressed &&
                 !error_info_parse(pdu->body, &d->error_info))
            d->error_info = 0;
        break;
    default:
        break;
    }
    return PASS;
}

/* Until Demand Active there is licensing, with a security header whose second half may be anything,
 * where a share control header has its type: only what is one in every respect is taken for one. */
static bool is_share(struct cursor c)
{
    size_t len = cursor_left(&c);
    struct share_pdu share;

    return share_next(&c, &share) == PARSE_OK && share.len == len && share.version == 1 &&
           (share.type == SHARE_DEMAND_ACTIVE || share.type == SHARE_REDIRECTION);
}

/* The client has a licence of ours already, and cannot be asked again. A target that goes through
 * the motions gets an answer to its request; one that means it cannot be reached so. */
static enum verdict answer_licence(struct rdp_session *s, struct cursor head)
{
    char text[SESSION_TEXT_MAX];
    struct buffer body, b;
    uint32_t error;
    enum licence_kind kind = licence_parse(head, &error);

    if (kind == LICENCE_ALERT && error == LICENCE_VALID_CLIENT)
        return DROP;
    if (kind == LICENCE_NEW)
        return DROP;
    if (kind == LICENCE_REQUEST) {
        buffer_init(&body, 1024);
        buffer_init(&b, 2048);
        licence_answer_put(&body);
        mcs_data_put(&b, MCS_DATA_REQUEST, s->t.user_id, s->t.ids.io_channel, body.data, body.len);
        if (!body.failed && !b.failed)
            rdp_leg_send(&s->target, b.data, b.len);
        buffer_finish(&body);
        buffer_finish(&b);
        return DROP;
    }
    snprintf(text, sizeof(text),
             "%s wants to see a licence, which the login screen cannot show: connect again with "
             "user and password entered in your client",
             s->t.name);
    if (!rdp_screen_failed(s, text))
        rdp_end(s, END_TARGET_CLOSED, "target", text, text);
    return STOP;
}

static void note_licence(struct rdp_session *s, struct cursor head)
{
    uint32_t error = 0;
    enum licence_kind kind = licence_parse(head, &error);

    if (kind == LICENCE_NEW || (kind == LICENCE_ALERT && error == LICENCE_VALID_CLIENT))
        s->redirect.has_licence = true;
}

static enum verdict look_at_io_of_target(struct rdp_session *s, const struct mcs_pdu *pdu,
                                         const struct frame *f, uint8_t *at)
{
    struct cursor c = pdu->data, head = c;
    struct share_pdu share;
    enum verdict v = PASS;
    uint16_t flags;

    if (!s->desktop.has_demand && !is_share(c)) {
        if (!cursor_le16(&head, &flags))
            return DROP;
        if ((s->stage || s->redirect.is_licensed) && flags & SEC_LICENSE_PKT)
            return answer_licence(s, head);
        if (flags & SEC_LICENSE_PKT)
            note_licence(s, head);
        return flags & SEC_LICENSE_PKT                                ? PASS
               : flags & SEC_REDIRECTION_PKT && cursor_skip(&head, 2) ? redirected(s, head)
                                                                      : DROP;
    }
    while (v == PASS && cursor_left(&c) > 1) {
        if (share_next(&c, &share) != PARSE_OK)
            return end_for_nonsense(s, true);
        if (share.type == SHARE_DEMAND_ACTIVE && channels_are_read(s))
            channels_stay_readable(SHARE_DEMAND_ACTIVE, &share, f, at);
        v = look_at_share_of_target(s, &share);
        rdp_notice_share(s, &share);
    }
    return v;
}

static enum verdict look_at_data_of_target(struct rdp_session *s, const struct mcs_pdu *pdu,
                                           const struct frame *f, uint8_t *at)
{
    uint16_t channel = to_user(s, pdu->channel), flags;
    struct cursor head = pdu->data;
    enum verdict v = PASS;

    if (channel == 0)
        return DROP;
    if (channel == s->u.ids.io_channel)
        v = look_at_io_of_target(s, pdu, f, at);
    else if (is_message_channel(s, channel))
        v = cursor_le16(&head, &flags) && flags & SEC_TRANSPORT_REQ ? DROP : PASS;
    else if (is_named(s, channel, "drdynvc")) {
        if (channels_block_dynamic(s, pdu, channel, f, at))
            return DROP;
        dvc_server_scan(pdu->data, &s->desktop.dvc);
        rdp_notice_dynamic(s, pdu->data);
        rdp_dynamic_of_target(s, pdu->data);
    }
    put_be16(at + MCS_AT_CHANNEL, channel);
    return v;
}

/* It said the ultimatum, which the client gets: no words of ours are needed. */
static enum verdict target_says_bye(struct rdp_session *s)
{
    const char *user = s->u.login.user;
    char text[SESSION_TEXT_MAX];

    if (s->stage) {
        snprintf(text, sizeof(text), "%s ended the connection after the login", s->t.name);
        if (!rdp_screen_failed(s, text))
            rdp_end(s, END_TARGET_CLOSED, "target", text, text);
        return STOP;
    }
    if (s->desktop.error_info == ERRINFO_LOGOFF_BY_USER ||
        s->desktop.error_info == ERRINFO_DISCONNECT_BY_USER) {
        rdp_end(s, END_USER_EXIT, user, "the user ended the session at the target", "");
    } else {
        if (s->desktop.error_info)
            snprintf(text, sizeof(text), "the target ended the session (reason %#x)",
                     s->desktop.error_info);
        else
            text_copy(text, sizeof(text), "the target ended the session");
        rdp_end(s, END_TARGET_CLOSED, "target", text, "");
    }
    return PASS;
}

static enum verdict look_at_target(struct rdp_session *s, const struct frame *f, uint8_t *at)
{
    struct mcs_pdu pdu;

    if (f->kind == FRAME_FASTPATH) {
        rdp_notice_fastpath(s, f);
        return s->desktop.has_demand ? PASS : DROP;
    }
    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK)
        return end_for_nonsense(s, true);
    if (pdu.type == MCS_DATA_INDICATION)
        return look_at_data_of_target(s, &pdu, f, at);
    if (pdu.type == MCS_ULTIMATUM)
        return target_says_bye(s);
    return DROP;
}

/* ---- runs ---- */

static bool is_over(const struct way *w)
{
    return w->s->phase != PHASE_RELAYING;
}

/* The tap of the client's leg must know whose it is. */
static void hand_on(const struct way *w, const void *data, size_t len)
{
    w->s->record.is_theirs = w->to == &w->s->user;
    rdp_leg_send(w->to, data, len);
    w->s->record.is_theirs = false;
}

/* Hand on what passes in as few pieces as there are gaps. */
static void run(struct way *w)
{
    struct buffer *instead = &w->s->desktop.instead;
    struct cursor c = rdp_leg_input(w->from);
    const uint8_t *start = c.at, *begin = c.at;
    bool can_go_on = true;
    struct frame f;
    enum parse r;

    while (can_go_on && (r = frame_next(&c, TPKT_MAX, &f)) != PARSE_MORE) {
        uint8_t *at = w->from->in + w->from->in_start + (f.data - begin);
        enum verdict v = r == PARSE_OK ? w->look(w->s, &f, at)
                                       : end_for_nonsense(w->s, w->from == &w->s->target);

        if (r != PARSE_OK)
            break;
        if (v != PASS) { /* send what is before it; go on behind it */
            if (f.data > start)
                hand_on(w, start, (size_t)(f.data - start));
            w->passed += (size_t)(f.data - start);
            start = c.at;
            if (instead->len && !instead->failed)
                hand_on(w, instead->data, instead->len);
            buffer_reset(instead);
        }
        can_go_on = v != STOP && !is_over(w);
    }
    if (c.at > start)
        hand_on(w, start, (size_t)(c.at - start));
    w->passed += (size_t)(c.at - start);
    rdp_leg_use(w->from, (size_t)(c.at - begin));
}

/* The slow side stops the fast one. */
static bool is_held(struct leg *from, const struct leg *to)
{
    size_t mark = from->is_stopped ? LEG_OUT_LOW : LEG_OUT_HIGH;

    rdp_leg_stop(from, rdp_leg_unsent(to) > mark);
    return from->is_stopped;
}

static bool counts_traffic(const struct rdp_session *s)
{
    return relay_policy(s->relay)->counts == COUNTS_TRAFFIC;
}

static void run_to_user(struct rdp_session *s)
{
    struct way w = {.s = s, .from = &s->target, .to = &s->user, .look = look_at_target};

    run(&w);
    if (w.passed)
        relay_output(s->relay, w.passed, counts_traffic(s));
}

static void run_to_target(struct rdp_session *s)
{
    struct way w = {.s = s, .from = &s->user, .to = &s->target, .look = look_at_user};

    s->desktop.is_human = false;
    run(&w);
    if (s->desktop.is_human)
        rdp_notice_human(s);
    if (w.passed)
        relay_input(s->relay, w.passed, s->desktop.is_human || counts_traffic(s));
}

void splice_step(struct rdp_session *s)
{
    if (s->phase != PHASE_RELAYING)
        return;
    if (!is_held(&s->target, &s->user))
        run_to_user(s);
    if (s->phase == PHASE_RELAYING && !s->stage && !is_held(&s->user, &s->target))
        run_to_target(s);
}

void splice_settle(struct rdp_session *s)
{
    const struct way w = {.s = s, .from = &s->target, .to = &s->user};
    struct cursor c = rdp_leg_input(&s->target);
    struct frame f;

    while (rdp_notice_must_wait(s) && frame_next(&c, TPKT_MAX, &f) == PARSE_OK) {
        uint8_t *at = s->target.in + s->target.in_start;

        if (look_at_target(s, &f, at) == PASS)
            hand_on(&w, f.data, f.len);
        rdp_leg_use(&s->target, f.len);
    }
}
