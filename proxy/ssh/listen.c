/*
 * What the target listens for on the client's behalf: tcpip-forward and cancel-tcpip-forward, which
 * are answered in the order in which they came, since their answers carry no number. The target is
 * asked for one at a time, as libssh has it. Steps of a turn of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/destination.h>
#include <sallyport/log.h>

#define ADDRESS_MAX   255
#define ASKED_MAX     256 /* that wait for their answer */
#define LISTENERS_MAX 128
#define MENU_MS       5000 /* for a client without a target to open a terminal */

struct asked {
    STAILQ_ENTRY(asked) link;
    ssh_message message; /* owned */
    char *address;
    uint16_t port; /* 0: any */
    bool is_cancel;
    bool is_wrong; /* to be refused, when it is its turn */
    bool is_sent;  /* the target was asked */
    int64_t came_ms;
};

struct listener {
    STAILQ_ENTRY(listener) link;
    char *address;
    uint16_t port; /* that the target listens on */
};

struct listens {
    STAILQ_HEAD(, asked) asked;
    STAILQ_HEAD(, listener) listeners;
    size_t asked_count, listener_count;
    bool is_done; /* the head's answer is here: */
    int answer;   /* SSH_OK or SSH_ERROR */
    int bound;    /* the port, where any was asked for */
};

/* ---- from the client ---- */

static struct listens *get_listens(struct session *s)
{
    if (!s->listens && (s->listens = calloc(1, sizeof(*s->listens)))) {
        STAILQ_INIT(&s->listens->asked);
        STAILQ_INIT(&s->listens->listeners);
    }
    return s->listens;
}

static void asked_free(struct asked *a)
{
    ssh_message_free(a->message);
    free(a->address);
    free(a);
}

static bool add_asked(struct session *s, ssh_message message, int type)
{
    struct listens *l = get_listens(s);
    const char *address = ssh_message_global_request_address(message);
    struct asked *a;

    if (!l || l->asked_count >= ASKED_MAX || !(a = calloc(1, sizeof(*a))))
        return false;
    if (!(a->address = strdup(address ? address : ""))) {
        free(a);
        return false;
    }
    a->message = message;
    a->came_ms = clock_mono_ms();
    a->port = (uint16_t)ssh_message_global_request_port(message); /* libssh has no more of it */
    a->is_cancel = type == SSH_GLOBAL_REQUEST_CANCEL_TCPIP_FORWARD;
    a->is_wrong = (!a->is_cancel && type != SSH_GLOBAL_REQUEST_TCPIP_FORWARD) || !address ||
                  strlen(address) > ADDRESS_MAX;
    STAILQ_INSERT_TAIL(&l->asked, a, link);
    l->asked_count++;
    return true;
}

void listen_message(struct session *s, ssh_message message)
{
    if (s->phase != PHASE_LOGIN && s->phase < PHASE_ENDING &&
        add_asked(s, message, ssh_message_subtype(message))) {
        session_want_turn(s);
        return;
    }
    ssh_message_free(message);
    if (s->phase < PHASE_ENDING) /* without an answer the later ones would be taken for its */
        session_end(s, END_POLICY, "policy", "too many requests wait for their answer",
                    "You have been disconnected: too many requests wait for their answer");
}

/* ---- what the target listens for ---- */

static struct listener *find_listener(const struct listens *l, const char *address, uint16_t port)
{
    struct listener *at;

    STAILQ_FOREACH (at, &l->listeners, link) {
        if (at->port == port && strcmp(at->address, address) == 0)
            return at;
    }
    return NULL;
}

/* Servers differ in what they call the address: asked for "localhost", some say "127.0.0.1" later.
 * A port that was asked for under one address only says enough. */
const char *listen_find(const struct session *s, const char *address, uint16_t port)
{
    const struct listener *at, *found = NULL;
    size_t count = 0;

    if (!s->listens)
        return NULL;
    found = address ? find_listener(s->listens, address, port) : NULL;
    if (found)
        return found->address;
    STAILQ_FOREACH (at, &s->listens->listeners, link) {
        if (at->port != port)
            continue;
        found = at;
        count++;
    }
    return count == 1 ? found->address : NULL;
}

static void add_listener(struct listens *l, const char *address, uint16_t port)
{
    struct listener *at;

    if (find_listener(l, address, port) || !(at = calloc(1, sizeof(*at))))
        return;
    if (!(at->address = strdup(address))) {
        free(at);
        return;
    }
    at->port = port;
    STAILQ_INSERT_TAIL(&l->listeners, at, link);
    l->listener_count++;
}

static void drop_listener(struct listens *l, struct listener *at)
{
    STAILQ_REMOVE(&l->listeners, at, listener, link);
    l->listener_count--;
    free(at->address);
    free(at);
}

/* ---- one after another ---- */

static void answer(struct session *s, bool is_ok, uint16_t port)
{
    struct listens *l = s->listens;
    struct asked *a = STAILQ_FIRST(&l->asked);

    if (is_ok)
        (void)ssh_message_global_request_reply_success(a->message, port);
    else
        (void)ssh_message_reply_default(a->message);
    STAILQ_REMOVE_HEAD(&l->asked, link);
    l->asked_count--;
    asked_free(a);
}

/* True when the head was refused or is settled without the target. */
static bool settle_here(struct session *s, const struct asked *a)
{
    struct listens *l = s->listens;
    char to[DESTINATION_MAX], what[SESSION_TEXT_MAX];
    bool is_ok = true;

    destination_text(to, a->address, a->port);
    if (a->is_wrong) {
        is_ok = false;
    } else if (a->is_cancel) {
        is_ok = find_listener(l, a->address, a->port) != NULL;
    } else if (!refuse_is_allowed(s, POLICY_CHANNEL_REMOTE_FORWARD)) {
        snprintf(what, sizeof(what), "forwarding from %.200s of the target", to);
        refuse_tell(s, POLICY_CHANNEL_REMOTE_FORWARD, what);
        is_ok = false;
    } else if (l->listener_count >= LISTENERS_MAX) {
        log_info("channel refused: too many ports are forwarded by the target");
        relay_event(s->relay, "channel-refused", "too many ports are forwarded by the target");
        is_ok = false;
    }
    if (!is_ok)
        answer(s, false, 0);
    return !is_ok;
}

/* Ask the target for the head, or how it is going; true when its answer is here. */
static bool ask(struct session *s)
{
    struct listens *l = s->listens;
    const struct asked *a = STAILQ_FIRST(&l->asked);

    if (!l->is_done && s->target.state == LEG_UP) {
        l->answer = a->is_cancel
                        ? ssh_channel_cancel_forward(s->target.ssh, a->address, a->port)
                        : ssh_channel_listen_forward(s->target.ssh, a->address, a->port, &l->bound);
        l->is_done = l->answer != SSH_AGAIN;
    }
    return l->is_done;
}

/* libssh takes the port from the last packet that it read, whichever that was: so it must not read
 * another one before this has looked. */
static bool on_packet(void *arg)
{
    return !ask(arg);
}

static bool send_head(struct session *s, struct asked *a)
{
    struct listens *l = s->listens;

    if (!leg_begin_request(&s->target))
        return false; /* the answer to a keep-alive brings the next turn */
    a->is_sent = true;
    l->is_done = false;
    l->bound = 0;
    if (!a->is_cancel && a->port == 0)
        leg_watch_packets(&s->target, on_packet, s);
    return true;
}

static void finish_head(struct session *s, struct asked *a)
{
    struct listens *l = s->listens;
    uint16_t port = a->port > 0 ? a->port : (uint16_t)l->bound;
    bool is_ok = l->answer == SSH_OK;
    char to[DESTINATION_MAX], text[SESSION_TEXT_MAX];

    leg_end_request(&s->target);
    if (is_ok && a->is_cancel) {
        struct listener *at = find_listener(l, a->address, a->port);

        if (at)
            drop_listener(l, at);
    } else if (is_ok && !a->is_cancel) {
        is_ok = l->bound >= 0 && l->bound <= UINT16_MAX && port > 0;
        if (is_ok)
            add_listener(l, a->address, port);
    }
    destination_text(to, a->address, port);
    snprintf(text, sizeof(text), "%.200s %s", to, a->is_cancel ? "no longer" : "on the target");
    if (is_ok)
        relay_event(s->relay, "remote-forward", text);
    else
        log_info("the target does not forward from %s", to);
    answer(s, is_ok, port);
}

/* Without a target: one may be chosen from the menu, but who shows none (ssh -N) waits for nothing.
 */
static void step_choosing(struct session *s)
{
    struct asked *a = STAILQ_FIRST(&s->listens->asked);
    int64_t until_ms = a ? a->came_ms + MENU_MS : 0;

    if (!a || s->menu_channel)
        return;
    if (clock_mono_ms() < until_ms) {
        session_want_timer(s, until_ms);
        return;
    }
    while (!STAILQ_EMPTY(&s->listens->asked))
        answer(s, false, 0);
}

void listen_step(struct session *s)
{
    struct asked *a;

    if (s->listens && s->phase == PHASE_CHOOSING)
        step_choosing(s);
    if (!s->listens || s->phase != PHASE_RELAYING || s->target.state != LEG_UP)
        return;
    while ((a = STAILQ_FIRST(&s->listens->asked))) {
        if (!a->is_sent && settle_here(s, a))
            continue;
        if (!a->is_sent && !send_head(s, a))
            return;
        if (!ask(s))
            return;
        finish_head(s, a);
    }
}

void listen_free_all(struct session *s)
{
    struct listens *l = s->listens;
    struct asked *a;
    struct listener *at;

    if (!l)
        return;
    while ((a = STAILQ_FIRST(&l->asked))) {
        STAILQ_REMOVE_HEAD(&l->asked, link);
        asked_free(a);
    }
    while ((at = STAILQ_FIRST(&l->listeners)))
        drop_listener(l, at);
    free(l);
    s->listens = NULL;
}
