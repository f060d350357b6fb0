/*
 * What a protocol may ask and tell: each function fills one message and queues it. Sending,
 * repeating and answers are uplink.c's.
 */
#include <sallyport/clock.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include <stdatomic.h>
#include <string.h>

#include "proxy/relay/relay_priv.h"

/* RESUMED is repeated until the broker has cleared the flag; no more often than this. Less than
 * the shortest time after which a flag can be set again (one second). */
#define RESUMED_EVERY_MS 100

void relay_set_device(struct relay *r, const char *device)
{
    text_copy(r->device, sizeof(r->device), device);
}

/* A blob of the link; one that does not fit becomes empty, which nobody takes for the real one. */
static uint16_t fit(uint8_t *dst, size_t cap, const void *data, size_t len)
{
    if (len > cap)
        return 0;
    memcpy(dst, data, len);
    return (uint16_t)len;
}

void relay_auth_password(struct relay *r, const char *user, const char *password)
{
    struct link_auth_password *a = &uplink_begin(LINK_AUTH_PASSWORD)->auth_password;

    text_copy(a->user, sizeof(a->user), user);
    text_copy(a->device, sizeof(a->device), r->device);
    a->password.len = fit(a->password.data, sizeof(a->password.data), password, strlen(password));
    uplink_put(r, OUTBOX_REQUEST);
}

void relay_auth_key(struct relay *r, const char *user, bool is_signed, const char *key_type,
                    const void *blob, size_t len)
{
    struct link_auth_key *a = &uplink_begin(LINK_AUTH_KEY)->auth_key;

    text_copy(a->user, sizeof(a->user), user);
    text_copy(a->device, sizeof(a->device), r->device);
    a->is_signed = is_signed;
    text_copy(a->key_type, sizeof(a->key_type), key_type);
    a->key.len = fit(a->key.data, sizeof(a->key.data), blob, len);
    uplink_put(r, OUTBOX_REQUEST);
}

bool relay_auth_keyboard(struct relay *r, const char *user)
{
    struct link_auth_keyboard *a;

    if (r->uplink.version < 3)
        return false;
    a = &uplink_begin(LINK_AUTH_KEYBOARD)->auth_keyboard;
    text_copy(a->user, sizeof(a->user), user);
    text_copy(a->device, sizeof(a->device), r->device);
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_auth_answer(struct relay *r, const void *text, size_t len)
{
    struct link_auth_answer *a = &uplink_begin(LINK_AUTH_ANSWER)->auth_answer;

    a->answer.len = fit(a->answer.data, sizeof(a->answer.data), text, len);
    uplink_put(r, OUTBOX_REQUEST);
}

bool relay_nla_ask(struct relay *r, const char *cookie)
{
    if (r->uplink.version < LINK_NLA_SINCE)
        return false;
    text_copy(uplink_begin(LINK_NLA_ASK)->nla_ask.cookie,
              sizeof(((struct link_nla_ask *)0)->cookie), cookie);
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_nla_login(struct relay *r, const void *key, size_t len)
{
    struct link_nla_login *n = &uplink_begin(LINK_NLA_LOGIN)->nla_login;

    text_copy(n->device, sizeof(n->device), r->device);
    n->key.len = fit(n->key.data, sizeof(n->key.data), key, len);
    uplink_put(r, OUTBOX_REQUEST);
}

void relay_route(struct relay *r, const char *account, const char *target)
{
    struct link_route *route = &uplink_begin(LINK_ROUTE)->route;

    text_copy(route->account, sizeof(route->account), account);
    text_copy(route->target, sizeof(route->target), target);
    if (r->shows_cookie)
        route->cookie.len = fit(route->cookie.data, LINK_COOKIE, r->cookie, LINK_COOKIE);
    uplink_put(r, OUTBOX_REQUEST);
}

void relay_show_cookie(struct relay *r, const uint8_t cookie[LINK_COOKIE])
{
    memcpy(r->cookie, cookie, LINK_COOKIE);
    r->shows_cookie = true;
}

bool relay_redirect(struct relay *r, const char *host, bool needs_secret)
{
    struct link_redirect *redirect;

    if (r->uplink.state == UPLINK_UP && r->uplink.version < LINK_REDIRECT_SINCE)
        return false;
    redirect = &uplink_begin(LINK_REDIRECT)->redirect;
    if (!text_copy(redirect->host, sizeof(redirect->host), host))
        return false;
    redirect->needs_secret = needs_secret;
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_targets(struct relay *r, uint32_t offset)
{
    uplink_begin(LINK_TARGETS)->targets.offset = offset;
    uplink_put(r, OUTBOX_REQUEST);
}

void relay_pin_host_key(struct relay *r, uint8_t hop, const char *key_type, const void *blob,
                        size_t len)
{
    struct link_host_key *k = &uplink_begin(LINK_HOST_KEY)->host_key;

    k->hop = hop;

    text_copy(k->key_type, sizeof(k->key_type), key_type);
    k->key.len = fit(k->key.data, sizeof(k->key.data), blob, len);
    uplink_put(r, OUTBOX_REQUEST);
}

void relay_record_open(struct relay *r, const struct link_record_open *request)
{
    uplink_begin(LINK_RECORD_OPEN)->record_open = *request;
    uplink_put(r, OUTBOX_REQUEST);
}

#define LINK_DOOR_SINCE 3

static bool knows_doors(const struct relay *r)
{
    return r->uplink.state != UPLINK_UP || r->uplink.version >= LINK_DOOR_SINCE;
}

bool relay_door_open(struct relay *r, const struct link_door *request)
{
    if (!knows_doors(r))
        return false;
    uplink_begin(LINK_DOOR)->door = *request;
    r->door_count++;
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_door_resize(struct relay *r, uint32_t channel, uint16_t cols, uint16_t rows)
{
    struct link_door *d;

    if (r->uplink.state != UPLINK_UP || r->uplink.version < LINK_DOOR_SINCE)
        return;
    d = &uplink_begin(LINK_DOOR)->door;
    d->channel = channel;
    d->change = LINK_DOOR_RESIZE;
    d->cols = cols;
    d->rows = rows;
    uplink_put(r, OUTBOX_EVENT);
}

void relay_door_close(struct relay *r, uint32_t channel)
{
    struct link_door *d;

    if (r->door_count > 0 && --r->door_count == 0)
        r->phase_ms = clock_mono_ms(); /* from here a target must be chosen in time */
    (void)outbox_answer(&r->outbox, LINK_DOOR, channel, NULL); /* if it was not: not again */
    if (r->uplink.state != UPLINK_UP || r->uplink.version < LINK_DOOR_SINCE)
        return; /* no broker: no command */
    d = &uplink_begin(LINK_DOOR)->door;
    d->channel = channel;
    d->change = LINK_DOOR_CLOSE;
    uplink_put(r, OUTBOX_KEPT);
}

bool relay_back(struct relay *r, enum end_reason reason, const char *text)
{
    struct link_back *b;

    if (!knows_doors(r) || r->is_ready || r->phase != LINK_PHASE_SESSION)
        return false;
    b = &uplink_begin(LINK_BACK)->back;
    b->reason = (uint8_t)reason;
    text_copy(b->text, sizeof(b->text), text);
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_ready(struct relay *r, const char *target_version)
{
    struct link_ready *ready = &uplink_begin(LINK_READY)->ready;

    text_copy(ready->target_version, sizeof(ready->target_version), target_version);
    r->is_ready = true;
    uplink_put(r, OUTBOX_LATEST);
}

/* The page's counter of open channels has one writer, this one. */
static void count_channel(struct relay *r, uint8_t change)
{
    uint32_t open;

    if (!r->page || change == LINK_CHANNEL_REFUSED)
        return;
    open = atomic_load_explicit(&r->page->channels_open, memory_order_relaxed);
    if (change == LINK_CHANNEL_OPENED)
        open++;
    else if (open)
        open--;
    atomic_store_explicit(&r->page->channels_open, open, memory_order_relaxed);
}

void relay_channel(struct relay *r, const struct link_channel *change)
{
    uplink_begin(LINK_CHANNEL)->channel = *change;
    count_channel(r, change->change);
    uplink_put(r, OUTBOX_KEPT);
}

void relay_frame(struct relay *r, const struct link_frame *frame)
{
    uplink_begin(LINK_FRAME)->frame = *frame;
    uplink_put(r, OUTBOX_LATEST);
}

void relay_recording_state(struct relay *r, uint32_t channel, enum recording_state state,
                           const char *text)
{
    struct link_recording_state *s = &uplink_begin(LINK_RECORDING_STATE)->recording_state;

    s->channel = channel;
    s->state = (uint8_t)state;
    text_copy(s->text, sizeof(s->text), text);
    uplink_put(r, OUTBOX_LATEST);
}

void relay_desktop(struct relay *r, const char *channels, const char *text)
{
    struct link_desktop *d = &uplink_begin(LINK_DESKTOP)->desktop;

    text_copy(d->channels, sizeof(d->channels), channels);
    text_copy(d->text, sizeof(d->text), text);
    text_copy(d->device, sizeof(d->device), r->device);
    uplink_put(r, OUTBOX_LATEST);
}

void relay_reconnect(struct relay *r, const uint8_t cookie[LINK_COOKIE])
{
    struct link_reconnect *c = &uplink_begin(LINK_RECONNECT)->reconnect;

    c->cookie.len = fit(c->cookie.data, LINK_COOKIE, cookie, LINK_COOKIE);
    uplink_put(r, OUTBOX_LATEST);
}

void relay_event(struct relay *r, const char *kind, const char *text)
{
    struct link_event *e = &uplink_begin(LINK_EVENT)->event;

    text_copy(e->kind, sizeof(e->kind), kind);
    text_copy(e->text, sizeof(e->text), text);
    uplink_put(r, OUTBOX_EVENT);
}

void relay_watch_closed(struct relay *r, const struct link_watch_closed *closed)
{
    uplink_begin(LINK_WATCH_CLOSED)->watch_closed = *closed;
    uplink_put(r, OUTBOX_KEPT);
}

void relay_file(struct relay *r, const struct file_row *row)
{
    files_add(&r->files, row); /* the turn that follows sends it, or sets the timer */
}

bool relay_jump(struct relay *r, uint32_t channel, const char *host, uint16_t port)
{
    struct link_jump *j;

    if (r->uplink.state == UPLINK_UP && r->uplink.version < LINK_JUMP_SINCE)
        return false;
    j = &uplink_begin(LINK_JUMP)->jump;
    j->channel = channel;
    j->port = port;
    if (!text_copy(j->host, sizeof(j->host), host))
        return false;
    uplink_put(r, OUTBOX_REQUEST);
    return true;
}

void relay_jump_closed(struct relay *r, const struct link_jump_closed *end)
{
    r->jump_in += end->bytes_in;
    r->jump_out += end->bytes_out;
    if (r->jump_count > 0 && --r->jump_count == 0)
        r->phase_ms = clock_mono_ms(); /* from here we wait for the next one */
    uplink_begin(LINK_JUMP_CLOSED)->jump_closed = *end;
    uplink_put(r, OUTBOX_KEPT);
}

/* A broker that is away reads the page when it is back. */
static void say_resumed(struct relay *r, int64_t now_ms)
{
    if (r->uplink.state != UPLINK_UP || now_ms - r->resumed_ms < RESUMED_EVERY_MS)
        return;
    r->resumed_ms = now_ms;
    uplink_begin(LINK_RESUMED);
    uplink_put(r, OUTBOX_EVENT);
}

void relay_input(struct relay *r, size_t bytes, bool is_activity)
{
    int64_t now_ms;

    if (!r->page)
        return;
    now_ms = clock_mono_ms();
    if (activity_input(r->page, bytes, is_activity, now_ms))
        say_resumed(r, now_ms);
}

void relay_output(struct relay *r, size_t bytes, bool is_activity)
{
    int64_t now_ms;

    if (!r->page)
        return;
    now_ms = clock_mono_ms();
    if (activity_output(r->page, bytes, is_activity, now_ms))
        say_resumed(r, now_ms);
}

void relay_hold(struct relay *r, int change)
{
    uint32_t holds;

    if (!r->page)
        return;
    holds = atomic_load_explicit(&r->page->holds_active, memory_order_relaxed);
    if (change > 0)
        holds++;
    else if (holds)
        holds--;
    /* the end of a command is activity too: idle counts from here, not from its last input */
    relay_output(r, 0, true);
    atomic_store_explicit(&r->page->holds_active, holds, memory_order_relaxed);
}
