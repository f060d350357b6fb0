/*
 * How a session ends for the client: the target is frozen, the sentence is drawn over the desktop
 * and held, then Set Error Info with the code that fits, so that no client reconnects by itself,
 * the MCS ultimatum, and the end of TLS. A client that has no desktop yet is given one of our own
 * to draw in. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/screen.h"
#include "proxy/rdp/stage.h"

#define SETTLE_MS    600
#define HANDSHAKE_MS 2000
#define HOLD_MS      3000
#define FLUSH_MS     400 /* last words leave, and the client closes first */
#define OWN_SHARE_ID 0x000103eau

/* 2.2.5.1.1; the sentence says the rest */
static const struct {
    enum end_reason reason;
    uint32_t code;
} codes[] = {
    {END_ADMIN_ENDED, 0x01},         /* RPC_INITIATED_DISCONNECT */
    {END_SELF_ENDED, 0x0b},          /* DISCONNECTED_BY_USER */
    {END_IDLE_TIMEOUT, 0x03},        /* IDLE_TIMEOUT */
    {END_MAX_DURATION, 0x04},        /* LOGON_TIMEOUT */
    {END_TARGET_UNREACHABLE, 0x400}, /* CB_DESTINATION_NOT_FOUND */
    {END_POLICY, 0x07},              /* SERVER_DENIED_CONNECTION */
    {END_REVOKED, 0x09},             /* SERVER_INSUFFICIENT_PRIVILEGES */
    {END_RECORDING_FAILED, 0x07},
    {END_USER_EXIT, 0x0c}, /* LOGOFF_BY_USER */
};

static uint32_t code_of(enum end_reason reason)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (codes[i].reason == reason)
            return codes[i].code;
    return 0x01;
}

static void enter(struct rdp_session *s, enum end_step step, int64_t until_ms)
{
    struct ending *e = &s->ending;

    e->step = step;
    e->step_ms = until_ms;
    if (e->deadline_ms && step != END_STEP_FLUSH && e->step_ms > e->deadline_ms - FLUSH_MS)
        e->step_ms = e->deadline_ms - FLUSH_MS;
    rdp_want_timer(s, e->step_ms);
}

static void send_share(struct rdp_session *s, enum share_data_type type, const void *data,
                       size_t len)
{
    struct buffer body, b;

    buffer_init(&body, 256);
    buffer_init(&b, 512);
    share_data_put(&body, MCS_SERVER_USER, s->desktop.facts.share_id, type, data, len);
    mcs_data_put(&b, MCS_DATA_INDICATION, MCS_SERVER_USER, s->u.ids.io_channel, body.data,
                 body.len);
    if (!b.failed && !body.failed)
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    buffer_finish(&body);
}

/* ---- the last words ---- */

/* The client is past Client Info: MCS data means something to it. */
static bool can_hear(const struct rdp_session *s)
{
    return s->user.state == LEG_UP && s->ending.from >= PHASE_AUTH;
}

static void say_bye(struct rdp_session *s)
{
    uint8_t code[4];
    struct buffer b;

    if (can_hear(s) && (s->ending.sentence[0] || (s->stage && !s->desktop.is_bye))) {
        if (!s->desktop.facts.share_id)
            s->desktop.facts.share_id = OWN_SHARE_ID;
        put_le32(code, code_of(s->ending.reason));
        send_share(s, DATA_SET_ERROR_INFO, code, sizeof(code));
        buffer_init(&b, 16);
        mcs_ultimatum_put(&b, MCS_REASON_USER);
        rdp_leg_send(&s->user, b.data, b.len);
        buffer_finish(&b);
    }
    /* the target hears what the client would have said */
    if (s->target.state == LEG_UP && s->t.step == TARGET_DONE && !s->desktop.is_bye) {
        buffer_init(&b, 16);
        mcs_ultimatum_put(&b, MCS_REASON_USER);
        rdp_leg_send(&s->target, b.data, b.len);
        buffer_finish(&b);
    }
    rdp_leg_stop(&s->user, false);
    enter(s, END_STEP_FLUSH, clock_mono_ms() + FLUSH_MS);
}

static void flush(struct rdp_session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;
    bool is_sent = !rdp_leg_is_alive(&s->user) || rdp_leg_unsent(&s->user) == 0;

    rdp_leg_use(&s->user, s->user.in_len);
    if (is_sent) {
        rdp_leg_shutdown(&s->user);
        rdp_leg_shutdown(&s->target);
    }
    if (rdp_leg_is_alive(&s->user) && now_ms < e->step_ms) {
        rdp_want_timer(s, e->step_ms);
        return;
    }
    s->phase = PHASE_OVER;
    relay_finish(s->relay, e->reason, e->author, e->text);
}

static void draw_and_hold(struct rdp_session *s)
{
    if (!rdp_notice_last(s, s->ending.sentence)) {
        log_debug("the last words could not be drawn");
        say_bye(s);
        return;
    }
    enter(s, END_STEP_HOLD, clock_mono_ms() + HOLD_MS);
}

/* What the client still does is not the target's business any more. */
static void hold(struct rdp_session *s, int64_t now_ms)
{
    rdp_leg_use(&s->user, s->user.in_len);
    if (now_ms >= s->ending.step_ms || !rdp_leg_is_alive(&s->user))
        say_bye(s);
    else
        rdp_want_timer(s, s->ending.step_ms);
}

static void settle(struct rdp_session *s, int64_t now_ms)
{
    splice_settle(s);
    if (!rdp_notice_must_wait(s) || now_ms >= s->ending.step_ms || !rdp_leg_is_alive(&s->target)) {
        rdp_leg_stop(&s->target, true);
        draw_and_hold(s);
    }
}

/* ---- a session of our own ---- */

static void wait_for_stage(struct rdp_session *s)
{
    if (!rdp_stage_begin(s))
        say_bye(s);
    else
        enter(s, END_STEP_HANDSHAKE, clock_mono_ms() + HANDSHAKE_MS);
}

static void handshake(struct rdp_session *s, int64_t now_ms)
{
    rdp_stage_step(s);
    if (rdp_stage_is_open(s)) {
        rdp_stage_clear(s);
        draw_and_hold(s);
    } else if (now_ms >= s->ending.step_ms || !rdp_leg_is_alive(&s->user)) {
        say_bye(s);
    } else {
        rdp_want_timer(s, s->ending.step_ms);
    }
}

/* ---- from outside ---- */

static void begin(struct rdp_session *s, int64_t now_ms)
{
    const struct desktop *d = &s->desktop;

    rdp_screen_finish(s);
    rdp_user_forget(s);
    if (s->ending.deadline_ms)
        rdp_want_timer(s, s->ending.deadline_ms);
    if (!s->ending.sentence[0] || !can_hear(s)) {
        say_bye(s);
    } else if (s->stage || (s->ending.from < PHASE_RELAYING && !s->redirect.share_id)) {
        wait_for_stage(s);
    } else if (d->is_active) {
        rdp_notice_clear(s, now_ms);
        enter(s, END_STEP_SETTLE, now_ms + SETTLE_MS);
    } else {
        say_bye(s); /* licensing or capabilities are half said: no way to draw */
    }
}

void ending_step(struct rdp_session *s, int64_t now_ms)
{
    struct ending *e = &s->ending;

    if (s->phase != PHASE_ENDING)
        return;
    if (e->step == END_STEP_BEGIN)
        begin(s, now_ms);
    if (e->step == END_STEP_SETTLE)
        settle(s, now_ms);
    if (e->step == END_STEP_HANDSHAKE)
        handshake(s, now_ms);
    if (e->step == END_STEP_HOLD)
        hold(s, now_ms);
    if (e->step == END_STEP_FLUSH)
        flush(s, now_ms);
}
