/*
 * One RDP connection: owns the legs and takes turns. A turn drives both legs, lets every part step,
 * and settles the legs. This file is the `struct relay_protocol` that proxy/relay runs, and the
 * `struct gate_protocol` that proxy/gate does.
 */
#include "proxy/rdp/session.h"

#include <event2/event.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/draw.h"
#include "proxy/rdp/ntlm.h"
#include "proxy/rdp/rdp.h"
#include "proxy/rdp/screen.h"
#include "proxy/rdp/stage.h"
#include "proxy/rdp/tls.h"

#define RELAX_MS    15000
#define RELAX_QUIET 16384 /* bytes between two looks that count as nothing */
#define PASSES_MAX  8     /* in a turn */

static void take_turn(struct rdp_session *s);

/* ---- turns and time ---- */

void rdp_want_turn(struct rdp_session *s)
{
    turn_want(&s->turn);
}

void rdp_want_timer(struct rdp_session *s, int64_t at_ms)
{
    turn_want_at(&s->turn, at_ms);
}

void rdp_wake(void *session)
{
    take_turn(session);
}

enum parse rdp_frame(const struct leg *l, size_t max, struct frame *out)
{
    struct cursor c = rdp_leg_input(l);

    return frame_next(&c, max, out);
}

/* ---- how it ends ---- */

void rdp_end(struct rdp_session *s, enum end_reason reason, const char *author, const char *text,
             const char *sentence)
{
    struct ending *e = &s->ending;

    if (s->phase >= PHASE_ENDING)
        return;
    log_debug("ends: %s by %s: %s", end_reason_name(reason), author, text);
    rdp_record_notice(s, sentence);
    if (!e->is_pending) {
        e->reason = reason;
        text_copy(e->author, sizeof(e->author), author);
        text_copy(e->text, sizeof(e->text), text);
        text_copy(e->sentence, sizeof(e->sentence), sentence);
    }
    rdp_want_turn(s);
    if (!lockstep_can_end(s))
        return;
    e->from = s->phase;
    e->step = END_STEP_BEGIN;
    s->phase = PHASE_ENDING;
}

/* TLS 1.3 lets a client think that it is connected before we have judged its handshake. */
static void user_is_gone(struct rdp_session *s)
{
    const char *user = s->u.login.user[0] ? s->u.login.user : "client";
    char text[SESSION_TEXT_MAX];

    if (s->desktop.is_bye || s->desktop.wants_exit || s->user.is_clean ||
        (s->phase < PHASE_RELAYING && s->redirect.count == 0)) {
        rdp_end(s, END_USER_EXIT, user, "the client closed the connection", "");
        return;
    }
    text_copy(text, sizeof(text), "the client's connection was lost");
    rdp_end(s, END_NETWORK_LOST, "client", text, "");
}

/* And nothing of what it said last waits for a slow client. */
static bool has_lost_target(const struct rdp_session *s)
{
    return s->phase == PHASE_RELAYING && s->target.state == LEG_DEAD && !s->target.is_stopped;
}

static void check_ends(struct rdp_session *s)
{
    if (s->phase >= PHASE_ENDING)
        return;
    if (s->user.state == LEG_DEAD)
        user_is_gone(s);
    else if (!has_lost_target(s))
        return;
    else if (s->desktop.is_bye)
        rdp_end(s, END_USER_EXIT, s->u.login.user, "the client closed the connection", "");
    else if (!rdp_screen_failed(s, "the target closed the connection after the login"))
        rdp_end(s, END_TARGET_CLOSED, "target", "the target closed the connection",
                "You have been disconnected: the target closed the connection");
}

/* ---- a turn ---- */

static void look_at_client(struct rdp_session *s)
{
    if (s->has_spoken || s->user.received == 0)
        return;
    s->has_spoken = true;
    relay_client_spoke(s->relay);
}

/* A connection that went quiet gives the memory of its last burst back. */
static void relax(struct rdp_session *s, int64_t now_ms)
{
    uint64_t received = s->user.received + s->target.received;

    if (s->relax_at_ms == 0) {
        if (received - s->relaxed <= RELAX_QUIET)
            return;
        s->relaxed = received;
        s->relax_at_ms = now_ms + RELAX_MS;
    } else if (now_ms >= s->relax_at_ms) {
        s->relax_at_ms = 0;
        if (received - s->relaxed > RELAX_QUIET) { /* still busy: look again */
            s->relaxed = received;
            s->relax_at_ms = now_ms + RELAX_MS;
        } else {
            rdp_leg_relax(&s->user);
            rdp_leg_relax(&s->target);
            malloc_trim(0);
        }
    }
    if (s->relax_at_ms)
        rdp_want_timer(s, s->relax_at_ms);
}

/* What stays in a leg because a turn is bounded is not announced by the socket. */
static bool has_work(const struct leg *l)
{
    return rdp_leg_is_alive(l) && l->has_more && !l->is_stopped && l->in_len < LEG_IN_MAX / 2;
}

/* A side was stopped because the other one is slow, and that one just took all that waited: no
 * socket is left to say so. */
static bool can_go_on(const struct rdp_session *s)
{
    return s->phase == PHASE_RELAYING &&
           ((s->target.is_stopped && rdp_leg_unsent(&s->user) <= LEG_OUT_LOW) ||
            (s->user.is_stopped && !s->stage && rdp_leg_unsent(&s->target) <= LEG_OUT_LOW));
}

static void take_pass(struct rdp_session *s, int64_t now_ms)
{
    rdp_leg_drive(&s->user);
    look_at_client(s);
    rdp_leg_drive(&s->target);
    rdp_user_step(s);
    rdp_screen_step(s);
    rdp_redirect_step(s);
    rdp_target_step(s, now_ms);
    splice_step(s);
    rdp_notice_step(s, now_ms);
    check_ends(s);
    ending_step(s, now_ms);
    rdp_record_tick(s);
    rdp_leg_settle(&s->user);
    rdp_leg_settle(&s->target);
}

/* What comes while we send is taken in the same turn: asking costs less than to sleep and wake. */
static bool has_come_more(struct rdp_session *s, uint64_t user, uint64_t target)
{
    s->user.is_due |= s->user.received > user;
    s->target.is_due |= s->target.received > target;
    return s->phase == PHASE_RELAYING && (s->user.is_due || s->target.is_due);
}

static void take_turn(struct rdp_session *s)
{
    int64_t now_ms = clock_mono_ms();
    uint64_t user, target;
    int passes = 0;

    if (s->is_in_turn || s->phase == PHASE_OVER)
        return;
    s->is_in_turn = true;
    do {
        user = s->user.received;
        target = s->target.received;
        take_pass(s, now_ms);
    } while (++passes < PASSES_MAX && has_come_more(s, user, target));
    if (has_work(&s->user) || has_work(&s->target) || can_go_on(s))
        rdp_want_turn(s);
    rdp_stage_settled(s);
    relax(s, now_ms);
    s->is_in_turn = false;
}

/* ---- struct relay_protocol ---- */

static void session_finish(void *self)
{
    struct rdp_session *s = self;

    if (!s)
        return;
    rdp_record_finish(s);
    rdp_screen_finish(s);
    rdp_stage_finish(s);
    free(s->banner);
    rdp_user_finish(s);
    rdp_target_finish(s);
    rdp_redirect_finish(s);
    front_finish(s);
    rdp_leg_close(&s->user);
    rdp_leg_close(&s->target);
    buffer_finish(&s->desktop.instead);
    rdp_notice_finish(s);
    chunks_finish(&s->desktop.dynamic);
    chunks_finish(&s->desktop.devices);
    turn_finish(&s->turn);
    free(s);
}

static void *session_start(struct relay *r, int client_fd, const struct link_welcome *limits)
{
    struct rdp_session *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->relay = r;
    text_copy(s->separators, sizeof(s->separators), limits->separators);
    s->banner = limits->banner[0] ? strdup(limits->banner) : NULL;
    buffer_init(&s->desktop.instead, TPKT_MAX);
    rdp_notice_init(s);
    chunks_init(&s->desktop.dynamic);
    chunks_init(&s->desktop.devices);
    front_init(s);
    rdp_leg_init(&s->user, "user");
    rdp_leg_init(&s->target, "target");
    if (turn_init(&s->turn, relay_base(r), rdp_wake, s) < 0 ||
        rdp_leg_open(&s->user, client_fd, relay_base(r), rdp_wake, s) < 0) {
        s->user.fd = -1; /* the relay closes it */
        session_finish(s);
        return NULL;
    }
    rdp_want_turn(s);
    return s;
}

static void session_auth_result(void *self, const struct link_auth_result *result)
{
    rdp_user_result(self, result);
}

static void session_nla_choice(void *self, enum link_nla choice)
{
    front_chosen(self, choice);
}

static void session_nla_begun(void *self, int fd)
{
    front_begun(self, fd);
}

static void session_routed(void *self, const struct link_route_result *result, int target_fd)
{
    struct rdp_session *s = self;
    char sentence[SENTENCE_MAX];

    if (result->is_ok && target_fd >= 0) {
        rdp_target_routed(s, result, target_fd);
    } else if (!rdp_screen_refused(s, result->text)) {
        text_copy(sentence, sizeof(sentence), result->text);
        rdp_end(s, (enum end_reason)result->reason, "policy", result->text, sentence);
    }
    rdp_want_turn(s);
}

static void session_auth_prompt(void *self, const struct link_auth_prompt *prompt)
{
    rdp_screen_prompt(self, prompt);
}

static void session_targets(void *self, const struct link_target_row *rows, size_t count,
                            size_t total)
{
    rdp_screen_targets(self, rows, count, total);
}

static void session_back(void *self)
{
    rdp_screen_given_back(self);
}

static void session_redirected(void *self, const struct link_redirected *result, int target_fd)
{
    rdp_redirect_result(self, result, target_fd);
}

static void session_host_key_result(void *self, bool is_ok, const char *text)
{
    rdp_target_pinned(self, is_ok, text);
}

static void session_recording(void *self, const struct link_recording *answer, int fd)
{
    rdp_record_answer(self, answer, fd);
}

static void session_notice(void *self, enum link_notice kind, const char *text)
{
    rdp_record_notice(self, text);
    rdp_notice_add(self, text, kind == LINK_NOTICE_MESSAGE);
}

static void session_end_asked(void *self, const char *sentence, uint32_t deadline_ms)
{
    struct rdp_session *s = self;

    rdp_end(s, relay_end_reason(s->relay), "policy", sentence, sentence);
    s->ending.deadline_ms = clock_mono_ms() + deadline_ms - deadline_ms / 8;
}

const struct relay_protocol rdp_protocol = {
    .protocol = PROTOCOL_RDP,
    .name = "rdp",
    .start = session_start,
    .auth_result = session_auth_result,
    .auth_prompt = session_auth_prompt,
    .nla_choice = session_nla_choice,
    .nla_begun = session_nla_begun,
    .routed = session_routed,
    .redirected = session_redirected,
    .targets = session_targets,
    .host_key_result = session_host_key_result,
    .recording = session_recording,
    .notice = session_notice,
    .end = session_end_asked,
    .back = session_back,
    .finish = session_finish,
};

/* ---- struct gate_protocol ---- */

static int prepare(void)
{
    draw_load_font(NULL);
    if (ntlm_prepare() < 0)
        return ERR_CRYPTO;
    return tls_prepare();
}

const struct gate_protocol rdp_gate = {
    .relay = &rdp_protocol,
    .load_key = tls_load,
    .prepare = prepare,
};
