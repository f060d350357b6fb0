/*
 * The relay logs in at the target, and at the servers on the way to it: what hop.c and way.c need
 * from a session, and what their outcome means for it. Every failure is a sentence for the user and
 * an event for the admin. Steps of a turn of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/blob.h"
#include "proxy/ssh/hop.h"
#include "proxy/ssh/way.h"

static void fail(struct session *s, const char *sentence)
{
    log_info("target login failed: %s", sentence);
    target_stop(s);
    if (choose_again(s, sentence))
        return;
    session_end(s, END_TARGET_UNREACHABLE, "target", sentence, sentence);
}

/* ---- what a login asks for ---- */

static void op_pin(void *arg, struct hop *h, const char *type, const void *blob, size_t len)
{
    struct session *s = arg;

    relay_pin_host_key(s->relay, h->number, type, blob, len);
}

static void op_event(void *arg, const char *kind, const char *text)
{
    struct session *s = arg;

    relay_event(s->relay, kind, text);
}

static const struct secret *op_password(void *arg)
{
    struct session *s = arg;

    return s->login.password;
}

static int op_agent(void *arg, struct hop *h)
{
    return agent_login(arg, h);
}

static int op_ask(void *arg, struct hop *h)
{
    return ask_questions(arg, h);
}

static const struct hop_ops session_ops = {
    .pin = op_pin,
    .event = op_event,
    .password = op_password,
    .agent = op_agent,
    .ask = op_ask,
};

/* ---- from the broker ---- */

void target_hop(struct session *s, const struct link_hop *hop, const int fds[2])
{
    if (hop->number == 1) { /* the first: what an earlier broker said counts no more */
        way_destroy(s->way);
        s->way = s->phase == PHASE_ROUTING
                     ? way_create(relay_base(s->relay), &session_ops, s, session_wake, s)
                     : NULL;
    }
    if (!s->way || s->phase != PHASE_ROUTING) {
        close(fds[0]);
        close(fds[1]);
    } else if (way_add(s->way, hop, fds) < 0) {
        way_destroy(s->way);
        s->way = NULL;
    }
}

/* The route in the words that every server on the way is told in. */
static struct link_hop *hop_of_route(const struct link_route_result *route)
{
    struct link_hop *h = calloc(1, sizeof(*h));

    if (!h)
        return NULL;
    text_copy(h->target, sizeof(h->target), route->target);
    text_copy(h->account, sizeof(h->account), route->account);
    text_copy(h->address, sizeof(h->address), route->address);
    h->auth = route->auth;
    h->accept_new = route->accept_new;
    text_copy(h->host_key_type, sizeof(h->host_key_type), route->host_key_type);
    h->host_key.len = route->host_key.len;
    memcpy(h->host_key.data, route->host_key.data, route->host_key.len);
    h->secret.len = route->secret.len;
    memcpy(h->secret.data, route->secret.data, route->secret.len);
    h->certificate.len = route->certificate.len;
    memcpy(h->certificate.data, route->certificate.data, route->certificate.len);
    return h;
}

static void begin(struct session *s, const struct link_route_result *route, int fd)
{
    struct link_hop *h = hop_of_route(route);
    int64_t now_ms = clock_mono_ms();

    if (!h) {
        close(fd);
        fail(s, "out of memory");
        return;
    }
    if (way_begin(s->way, h, &s->target, fd, now_ms) < 0)
        fail(s, "out of memory");
    memory_wipe(h, sizeof(*h));
    free(h);
    session_want_turn(s);
}

void target_routed(struct session *s, const struct link_route_result *route, int fd)
{
    if (s->phase != PHASE_ROUTING) {
        close(fd);
        return;
    }
    text_copy(s->account, sizeof(s->account), route->account);
    text_copy(s->target_name, sizeof(s->target_name), route->target);
    if (route->hops == 0) {
        way_destroy(s->way);
        s->way = way_create(relay_base(s->relay), &session_ops, s, session_wake, s);
    }
    s->phase = PHASE_TARGET;
    if (!s->way || way_hop_count(s->way) != route->hops) {
        close(fd);
        fail(s, "the way to the target could not be set up");
        return;
    }
    begin(s, route, fd);
}

void target_pinned(struct session *s, bool is_ok, const char *text)
{
    if (!s->way || s->phase != PHASE_TARGET)
        return;
    hop_pinned(way_at(s->way), is_ok, text);
    session_want_turn(s);
}

/* ---- a turn ---- */

static void succeed(struct session *s)
{
    const char *banner = ssh_get_serverbanner(s->target.ssh);

    way_forget(s->way);
    if (way_hop_count(s->way) == 0) {
        way_destroy(s->way);
        s->way = NULL;
    }
    ask_stop(s);
    if (s->login.password)
        secret_wipe(s->login.password);
    s->phase = PHASE_RELAYING;
    relay_ready(s->relay, blob_software(banner));
    channel_target_is_up(s);
    relay_narrow(s->relay);
}

void target_drive(struct session *s)
{
    if (s->way)
        way_drive(s->way);
    leg_drive(&s->target);
}

void target_settle(struct session *s)
{
    leg_settle(&s->target);
    if (s->way)
        way_settle(s->way);
}

void target_step(struct session *s, int64_t now_ms)
{
    if (s->phase != PHASE_TARGET || !s->way)
        return;
    ask_step(s);
    switch (way_step(s->way, now_ms)) {
    case WAY_IS_THERE:
        succeed(s);
        return;
    case WAY_FAILED:
        fail(s, way_text(s->way));
        return;
    case WAY_GOES:
        session_want_timer(s, way_deadline_ms(s->way));
        return;
    }
}

const char *target_lost_way(const struct session *s)
{
    return s->way ? way_lost(s->way) : NULL;
}

/* ---- the end ---- */

void target_stop(struct session *s)
{
    agent_stop(s);
    ask_stop(s);
    if (s->way)
        way_forget(s->way);
}

void target_disconnect(struct session *s)
{
    target_stop(s);
    leg_disconnect(&s->target, "session ended");
    if (s->way)
        way_disconnect(s->way);
}

void target_close(struct session *s)
{
    target_stop(s);
    leg_close(&s->target);
    way_destroy(s->way);
    s->way = NULL;
    s->wants_user = false;
    s->asking_channel = NULL;
}
