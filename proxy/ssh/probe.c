/*
 * `sallyport-ssh --probe`: try a target out for an admin. The broker starts it with a link at
 * descriptor 3, tells it the servers on the way and hands over the connected socket; it enters a
 * relay's sandbox before the first byte from there, logs in with the code that sessions use, opens
 * a channel, runs `true`, and says each step. One target, then it ends.
 */
#include <event2/event.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/link.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/relay/probing.h"
#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/blob.h"
#include "proxy/ssh/hop.h"
#include "proxy/ssh/ssh.h"
#include "proxy/ssh/way.h"

#define CHANNEL_MS 15000

enum probe_phase { PROBE_PHASE_WAY, PROBE_PHASE_CHANNEL, PROBE_PHASE_COMMAND, PROBE_PHASE_OVER };

struct probe {
    struct event_base *base;
    struct event *timer, *link;
    struct way *way;
    struct leg leg; /* to the target itself */
    struct link_hop *target;
    struct link_message message; /* scratch */
    enum probe_phase phase;
    bool only_key, is_in_turn;
    bool has_shown_key[LINK_HOPS_MAX + 1]; /* by HOP.number */
    ssh_channel channel;
    struct ssh_channel_callbacks_struct callbacks;
    bool has_run, has_status, has_ended;
    int status;
    int64_t until_ms, channel_until_ms, asked_ms;
};

static struct probe the_probe; /* large, and there is one */

/* ---- what it says ---- */

static void PRINTF_LIKE(6, 7) say(struct probe *p, uint8_t hop, enum link_probe_step step,
                                  enum link_probe_result result, bool is_last, const char *fmt, ...)
{
    struct link_probe_step_msg *m = &p->message.probe_step;
    va_list args;

    m->hop = hop;
    m->step = (uint8_t)step;
    m->result = (uint8_t)result;
    m->is_last = is_last;
    va_start(args, fmt);
    vsnprintf(m->text, sizeof(m->text), fmt, args);
    va_end(args);
    if (!probing_say(&p->message) || is_last)
        p->phase = PROBE_PHASE_OVER;
}

/* Everything is well unless it was said otherwise: the probe is over. */
static void say_last(struct probe *p, enum link_probe_step step, enum link_probe_result result,
                     const char *text)
{
    say(p, 0, step, result, true, "%s", text);
}

/* ---- what a login asks for ---- */

static void op_pin(void *arg, struct hop *h, const char *type, const void *blob, size_t len)
{
    (void)arg, (void)type, (void)blob, (void)len;
    hop_pinned(h, true, ""); /* a test changes nothing */
}

static void op_event(void *arg, const char *kind, const char *text)
{
    (void)arg, (void)kind, (void)text;
}

static const struct secret *op_password(void *arg)
{
    (void)arg;
    return NULL;
}

static int op_agent(void *arg, struct hop *h)
{
    (void)arg;
    hop_fail(h, "it is logged in to with the user's own agent");
    return HOP_CANNOT;
}

static int op_ask(void *arg, struct hop *h)
{
    (void)arg;
    hop_fail(h, "it asks questions, which a user would be asked on his terminal");
    return HOP_CANNOT;
}

static void say_exchange(struct probe *p, const struct hop *h)
{
    const char *banner = ssh_get_serverbanner(h->leg->ssh);
    char software[160];

    text_escape(software, sizeof(software), banner ? banner : "", banner ? strlen(banner) : 0);
    say(p, h->number, PROBE_BANNER, PROBE_OK, false, "%s", software);
    say(p, h->number, PROBE_KEY_EXCHANGE, PROBE_OK, false, "%s, %s", ssh_get_kex_algo(h->leg->ssh),
        ssh_get_cipher_in(h->leg->ssh));
}

static const char *judge_key(const struct hop *h, const void *blob, size_t len)
{
    if (h->told->host_key_type[0] == '\0')
        return h->told->accept_new ? "not pinned yet; the first session pins it" : "not pinned";
    return h->told->host_key.len == len && memcmp(h->told->host_key.data, blob, len) == 0
               ? "as pinned"
               : "changed";
}

/* Shown before it is compared; what is wrong with it hop.c says. */
static bool op_sees_key(void *arg, struct hop *h, const char *type, const void *blob, size_t len)
{
    struct probe *p = arg;
    struct link_probe_step_msg *m = &p->message.probe_step;
    bool is_all = p->only_key && h->number == 0;
    char print[FINGERPRINT_MAX];
    const char *judged = judge_key(h, blob, len);
    bool is_ok = is_all || strcmp(judged, "changed") != 0;

    if (!is_all && h->told->host_key_type[0] == '\0' && !h->told->accept_new)
        is_ok = false;
    say_exchange(p, h);
    fingerprint_sha256(print, blob, len);
    if (!is_ok) {
        p->has_shown_key[h->number] = true; /* the failure is its line */
        return true;
    }
    text_copy(m->key_type, sizeof(m->key_type), type);
    m->key.len = (uint16_t)(len <= sizeof(m->key.data) ? len : 0);
    memcpy(m->key.data, blob, m->key.len);
    say(p, h->number, PROBE_HOST_KEY, PROBE_OK, is_all, "%s %s%s%s", type, print,
        is_all ? "" : ", ", is_all ? "" : judged);
    return !is_all;
}

static const struct hop_ops probe_ops = {
    .pin = op_pin,
    .event = op_event,
    .password = op_password,
    .agent = op_agent,
    .ask = op_ask,
    .sees_key = op_sees_key,
};

/* ---- the way ---- */

static void trace(void *arg, const struct hop *h, enum hop_step before)
{
    struct probe *p = arg;

    (void)before;
    if (h->step == HOP_IN)
        say(p, h->number, PROBE_LOGIN, PROBE_OK, false, "%s by %s", h->account, h->method);
}

/* Which step a failed login had come to. */
static enum link_probe_step step_of(const struct probe *p, const struct hop *h)
{
    const char *banner = h->leg->ssh ? ssh_get_serverbanner(h->leg->ssh) : NULL;

    if (p->has_shown_key[h->number] || strstr(h->text, "the host key of"))
        return PROBE_HOST_KEY;
    if (h->step == HOP_FAILED && h->method[0])
        return PROBE_CHANNEL; /* logged in, and no way on */
    if (h->leg->ssh && ssh_get_kex_algo(h->leg->ssh))
        return PROBE_LOGIN;
    return banner && banner[0] ? PROBE_KEY_EXCHANGE : PROBE_BANNER;
}

/* A login that only a user can do is no failure: there is nothing to try. */
static bool is_users_own(const struct hop *h)
{
    return h->told &&
           (h->told->auth == TARGET_AUTH_AGENT || h->told->auth == TARGET_AUTH_PASSTHROUGH);
}

static void failed(struct probe *p)
{
    struct hop *h = way_at(p->way);
    enum link_probe_step step = step_of(p, h);

    if (step == PROBE_KEY_EXCHANGE)
        say(p, h->number, PROBE_BANNER, PROBE_OK, false, "it speaks SSH");
    if (step == PROBE_LOGIN && is_users_own(h))
        say(p, h->number, PROBE_LOGIN, PROBE_SKIPPED, true,
            "it is logged in to with the user's own %s: only a session can try",
            h->told->auth == TARGET_AUTH_AGENT ? "agent" : "password");
    else
        say(p, h->number, step, PROBE_FAILED, true, "%.250s", h->text);
}

/* ---- behind the login ---- */

static void on_status(ssh_session ssh, ssh_channel channel, int status, void *arg)
{
    struct probe *p = arg;

    (void)ssh, (void)channel;
    p->has_status = true;
    p->status = status;
}

static void on_close(ssh_session ssh, ssh_channel channel, void *arg)
{
    struct probe *p = arg;

    (void)ssh, (void)channel;
    p->has_ended = true;
}

static void listen_to_channel(struct probe *p)
{
    p->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = p,
        .channel_exit_status_function = on_status,
        .channel_close_function = on_close,
    };
    ssh_callbacks_init(&p->callbacks);
    (void)ssh_set_channel_callbacks(p->channel, &p->callbacks);
}

static void open_channel(struct probe *p, int64_t now_ms)
{
    int rc;

    if (!p->channel) {
        p->channel = ssh_channel_new(p->leg.ssh);
        p->channel_until_ms = now_ms + CHANNEL_MS;
    }
    rc = p->channel ? ssh_channel_open_session(p->channel) : SSH_ERROR;
    if (rc == SSH_OK) {
        say(p, 0, PROBE_CHANNEL, PROBE_OK, false, "session");
        listen_to_channel(p);
        p->phase = PROBE_PHASE_COMMAND;
        p->asked_ms = now_ms;
    } else if (rc != SSH_AGAIN || p->leg.state != LEG_UP || now_ms >= p->channel_until_ms) {
        say_last(p, PROBE_CHANNEL, PROBE_FAILED, "it opens no session channel");
    }
}

static void run_command(struct probe *p, int64_t now_ms)
{
    bool may_wait = p->leg.state == LEG_UP && now_ms < p->channel_until_ms;
    char text[120];
    int rc;

    if (!p->has_run) {
        rc = ssh_channel_request_exec(p->channel, "true");
        p->has_run = rc == SSH_OK;
        if (rc == SSH_AGAIN && may_wait)
            return;
        if (rc != SSH_OK) {
            say_last(p, PROBE_COMMAND, PROBE_FAILED, "it refuses to run a command (true)");
            return;
        }
    }
    if (!p->has_status && !p->has_ended && may_wait)
        return;
    if (p->has_status)
        snprintf(text, sizeof(text), "true: exit status %d after %lld ms", p->status,
                 (long long)(now_ms - p->asked_ms));
    else
        text_copy(text, sizeof(text), "true ended without an exit status");
    say_last(p, PROBE_COMMAND, p->has_status && p->status == 0 ? PROBE_OK : PROBE_FAILED, text);
}

/* ---- the loop ---- */

static void arm(struct probe *p, int64_t now_ms)
{
    struct timeval in = {0, 200000}; /* short: an admin waits, and it lives for seconds */

    if (now_ms >= p->until_ms && p->phase != PROBE_PHASE_OVER) {
        struct hop *h = way_at(p->way);

        say(p, h->number, PROBE_LOGIN, PROBE_FAILED, true, "it was not done in time");
    }
    (void)event_add(p->timer, &in);
}

static void turn(void *arg)
{
    struct probe *p = arg;
    int64_t now_ms = clock_mono_ms();

    if (p->is_in_turn || p->phase == PROBE_PHASE_OVER)
        return;
    p->is_in_turn = true;
    way_drive(p->way);
    leg_drive(&p->leg);
    if (p->phase == PROBE_PHASE_WAY) {
        enum way_state state = way_step(p->way, now_ms);

        if (state == WAY_FAILED && p->phase != PROBE_PHASE_OVER)
            failed(p);
        else if (state == WAY_IS_THERE)
            p->phase = PROBE_PHASE_CHANNEL;
    }
    if (p->phase == PROBE_PHASE_CHANNEL)
        open_channel(p, now_ms);
    if (p->phase == PROBE_PHASE_COMMAND)
        run_command(p, now_ms);
    leg_settle(&p->leg);
    way_settle(p->way);
    arm(p, now_ms);
    if (p->phase == PROBE_PHASE_OVER)
        event_base_loopbreak(p->base);
    p->is_in_turn = false;
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    turn(arg);
}

/* Nothing is said to a probe once it has begun: this is the broker's end, or its change of mind. */
static void link_cb(evutil_socket_t fd, short what, void *arg)
{
    struct probe *p = arg;

    (void)fd, (void)what;
    p->phase = PROBE_PHASE_OVER;
}

/* ---- the start ---- */

static int take_hop(void *arg, struct link_hop *hop, int *fds)
{
    struct probe *p = arg;
    int r = 0;

    if (hop->number > 0) {
        if (fds[0] < 0 || fds[1] < 0)
            return ERR_INVALID;
        r = way_add(p->way, hop, fds);
        fds[0] = fds[1] = -1;
    } else if (!p->target && (p->target = malloc(sizeof(*p->target)))) {
        *p->target = *hop;
    }
    return r;
}

static int begin(void *arg, const struct link_probe *start, int *fds)
{
    struct probe *p = arg;
    int fd = fds[0], flags = fd < 0 ? -1 : fcntl(fd, F_GETFL), r;

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 || !p->target ||
        way_hop_count(p->way) != start->hops)
        return ERR_INVALID;
    fds[0] = -1;
    p->only_key = start->only_key;
    if (p->only_key) /* any key is of interest, not only one like the old one */
        p->target->host_key_type[0] = '\0';
    p->until_ms = clock_mono_ms() + (int64_t)start->timeout_s * 1000;
    way_trace(p->way, trace);
    r = way_begin(p->way, p->target, &p->leg, fd, clock_mono_ms());
    memory_wipe(p->target, sizeof(*p->target));
    return r;
}

int probe_main(int argc, char **argv)
{
    struct probe *p = &the_probe;
    static const struct probing_ops ops = {take_hop, begin};
    int r = probing_start(argc, argv, probe_warm_up);

    if (r < 0)
        return -r;
    p->leg.state = LEG_CLOSED;
    p->base = event_base_new();
    p->timer = p->base ? event_new(p->base, -1, 0, timer_cb, p) : NULL;
    p->way = p->timer ? way_create(p->base, &probe_ops, p, turn, p) : NULL;
    if (!p->way || probing_listen(&ops, p, &p->message) < 0) {
        log_error("probe: it cannot begin");
        return 1;
    }
    p->link = event_new(p->base, PROBING_LINK_FD, EV_READ, link_cb, p);
    if (!p->link || event_add(p->link, NULL) < 0)
        return 1;
    turn(p);
    while (p->phase != PROBE_PHASE_OVER)
        if (event_base_loop(p->base, EVLOOP_ONCE) < 0)
            return 1;
    leg_disconnect(&p->leg, "tried");
    way_disconnect(p->way);
    way_forget(p->way);
    return 0; /* what is left goes with the process */
}
