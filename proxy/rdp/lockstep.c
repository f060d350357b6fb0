/*
 * Lock-step: NLA told user and target before MCS, so that the target is walked up to MCS first, and
 * from there on each step of the client is taken at the target, whose own numbers the client gets.
 * What fails on the way is a sentence that the client cannot hear yet: it is served on by us up to
 * its Client Info, and told there. Steps of a turn, called by proxy/rdp/target.c.
 */
#include "proxy/rdp/session.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#define EARLY_MAX   16384u
#define JOINS_MAX   128u
#define HEAR_MS     3000   /* for the client to come where it can be told why */
#define DUMMY_FIRST 0xffe0 /* numbers that lead nowhere, downwards */

/* ---- an end that the client cannot hear yet ---- */

static bool has_early_client(const struct rdp_session *s)
{
    if (!s->front.is_known)
        return false;
    return s->phase == PHASE_CONNECT || s->phase == PHASE_JOIN ||
           (s->t.is_lockstep && (s->phase == PHASE_ROUTING || s->phase == PHASE_TARGET));
}

/* The client goes on with us instead of the target. */
static void serve_on(struct rdp_session *s)
{
    enum rdp_target_step step = s->phase == PHASE_TARGET ? s->t.step : TARGET_X224;

    s->t.is_lockstep = false;
    nla_finish(s);
    rdp_leg_close(&s->target);
    if (step < TARGET_CONNECT) {
        s->phase = PHASE_CONNECT;
    } else if (step == TARGET_CONNECT) {
        rdp_user_serve(s);
    } else {
        s->phase = PHASE_JOIN; /* with the target's numbers */
        if (!s->u.user_id)
            s->u.user_id = DUMMY_FIRST + 1;
    }
}

bool lockstep_can_end(struct rdp_session *s)
{
    struct ending *e = &s->ending;

    if (e->is_pending || !e->sentence[0] || s->user.state != LEG_UP || !has_early_client(s))
        return true;
    e->is_pending = true;
    e->step_ms = clock_mono_ms() + HEAR_MS;
    if (s->phase != PHASE_CONNECT && s->phase != PHASE_JOIN)
        serve_on(s);
    rdp_want_timer(s, e->step_ms);
    return false;
}

/* ---- up to MCS ---- */

void lockstep_leave(struct rdp_session *s)
{
    s->t.is_lockstep = false;
    s->phase = PHASE_CONNECT;
    rdp_want_turn(s);
}

void lockstep_wait(struct rdp_session *s)
{
    s->t.step = TARGET_CLIENT;
    rdp_want_turn(s);
}

bool lockstep_take_initial(struct rdp_session *s)
{
    if (!rdp_user_take_initial(s))
        return false;
    channels_choose(s, s->t.allowed); /* now that there are some */
    return true;
}

static bool is_of_target(const struct target_side *t, uint16_t number)
{
    if (number == t->ids.io_channel || number == t->ids.message_channel)
        return true;
    for (size_t i = 0; i < t->ids.channel_count; i++)
        if (t->ids.channels[i] == number)
            return true;
    return false;
}

void lockstep_answered(struct rdp_session *s)
{
    struct user_side *u = &s->u;
    uint16_t dummy = DUMMY_FIRST;

    u->ids = (struct gcc_server){.io_channel = s->t.ids.io_channel,
                                 .message_channel =
                                     u->client.has_message_channel ? s->t.ids.message_channel : 0,
                                 .channel_count = u->client.channel_count};
    for (size_t i = 0; i < u->ids.channel_count; i++) {
        while (is_of_target(&s->t, dummy))
            dummy--;
        u->ids.channels[i] = s->t.channels[i] ? s->t.channels[i] : dummy--;
    }
    s->t.step = TARGET_LOCKSTEP;
    rdp_user_answer_connect(s);
}

/* ---- joins ---- */

static void pass(struct leg *to, struct buffer *b)
{
    rdp_leg_send(to, b->data, b->len);
    buffer_finish(b);
}

static void join(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    const struct user_side *u = &s->u;
    bool is_theirs = pdu->channel == s->t.user_id || is_of_target(&s->t, pdu->channel);
    struct buffer b;

    buffer_init(&b, 64);
    if (is_theirs) {
        mcs_join_request_put(&b, s->t.user_id, pdu->channel);
        pass(&s->target, &b);
        return;
    }
    for (size_t i = 0; i < u->ids.channel_count; i++)
        is_theirs |= u->ids.channels[i] == pdu->channel;
    if (is_theirs) /* it leads nowhere */
        mcs_join_confirm_put(&b, u->user_id, pdu->channel);
    else
        rdp_user_nonsense(s, "channel number");
    pass(&s->user, &b);
}

/* True when it is a Client Info that was kept. */
static bool take(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    struct client_info info;
    struct buffer b;

    buffer_init(&b, 64);
    switch (pdu->type) {
    case MCS_ERECT_DOMAIN:
        mcs_erect_put(&b);
        break;
    case MCS_ATTACH_REQUEST:
        mcs_attach_request_put(&b);
        break;
    case MCS_JOIN_REQUEST:
        join(s, pdu);
        break;
    case MCS_DATA_REQUEST:
        if (s->u.user_id && pdu->channel == s->u.ids.io_channel &&
            rdp_user_keep_info(s, pdu, &info))
            return true;
        rdp_user_nonsense(s, "login");
        break;
    case MCS_ULTIMATUM:
        rdp_end(s, END_USER_EXIT, "client", "the client closed the connection", "");
        break;
    default:
        rdp_user_nonsense(s, "MCS message");
        break;
    }
    if (b.len > 0 && !b.failed)
        rdp_leg_send(&s->target, b.data, b.len);
    buffer_finish(&b);
    return false;
}

bool lockstep_from_user(struct rdp_session *s)
{
    bool is_info = false;
    struct mcs_pdu pdu;
    struct frame f;
    enum parse r;

    while (s->phase == PHASE_TARGET && !is_info &&
           (r = rdp_frame(&s->user, EARLY_MAX, &f)) != PARSE_MORE) {
        if (r != PARSE_OK || f.kind != FRAME_TPKT || mcs_parse(frame_body(&f), &pdu) != PARSE_OK ||
            ++s->u.join_count > JOINS_MAX) {
            rdp_user_nonsense(s, "MCS message");
            return false;
        }
        is_info = take(s, &pdu);
        rdp_leg_use_secret(&s->user, f.len);
    }
    return is_info;
}

void lockstep_from_target(struct rdp_session *s, const struct mcs_pdu *pdu)
{
    char text[SESSION_TEXT_MAX];
    struct buffer b;

    buffer_init(&b, 64);
    if (pdu->type == MCS_ATTACH_CONFIRM && pdu->result == 0 && !s->t.user_id) {
        s->t.user_id = s->u.user_id = pdu->user;
        mcs_attach_confirm_put(&b, pdu->user);
    } else if (pdu->type == MCS_JOIN_CONFIRM && pdu->result == 0 && s->t.user_id) {
        mcs_join_confirm_put(&b, s->t.user_id, pdu->channel);
    } else {
        snprintf(text, sizeof(text), "%s refused a channel of the connection", s->t.name);
        log_info("target login failed: %s", text);
        rdp_end(s, END_TARGET_UNREACHABLE, "target", text, text);
    }
    pass(&s->user, &b);
}
