/*
 * What a relay tells of its live session: channels, recordings, events, its end. Called by the
 * dispatch of links.c.
 */
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/fingerprint.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/dial.h"
#include "proxy/broker/hasher.h"
#include "proxy/broker/links_parts.h"
#include "proxy/broker/recordings.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define LEAVE_S        3   /* after CLOSED the process must go: nobody goes on unseen */
#define RECORDINGS_MAX 128 /* open at once for one session; a relay can hold 64 */
/* The answer to the relay; fd -1: not recorded. */
static void say_recording(struct relay_link *l, uint32_t channel, int fd, const char *text)
{
    struct broker *b = l->links->broker;
    struct link_recording *answer = &link_begin(l, LINK_RECORDING)->recording;
    bool may_go_on = l->policy.on_failure == ON_FAILURE_CONTINUE;

    answer->channel = channel;
    text_copy(answer->text, sizeof(answer->text), text);
    answer->verdict = fd >= 0 ? LINK_RECORD_YES : may_go_on ? LINK_RECORD_NO : LINK_RECORD_REFUSED;
    link_say_fds(l, &fd, fd >= 0 ? 1 : 0);
    if (fd < 0)
        link_note(l, "recording-failed", text);
    tracker_recording(b->tracker, l->session_id,
                      fd >= 0     ? RECORDING_OK
                      : may_go_on ? RECORDING_DEGRADED
                                  : RECORDING_FAILED);
}

static void recording_opened(const struct recordings_answer *a, void *arg)
{
    struct links *all = arg;
    struct relay_link *l = link_by_serial(all, a->serial);

    if (l && l->state == STATE_SESSION && l->session_id == a->session_id)
        say_recording(l, a->channel, a->fd, a->text);
    else if (a->fd >= 0) /* the session ended meanwhile */
        recordings_close_channel(all->broker->recordings, a->session_id, a->channel);
    if (a->fd >= 0)
        close(a->fd);
}

void link_on_record_open(struct relay_link *l, struct link_message *m, int *fds)
{
    struct broker *b = l->links->broker;
    uint32_t channel = m->record_open.channel;

    (void)fds;
    if (channel == 0 || recordings_count(b->recordings, l->session_id) >= RECORDINGS_MAX) {
        log_warn("relay pid=%d session=%llu asks for a recording too many and is ended", l->pid,
                 (unsigned long long)l->session_id);
        link_drop(l, "too many recordings");
        return;
    }
    if (recordings_open(b->recordings, l->session_id, channel, l->protocol == PROTOCOL_RDP,
                        recording_opened, l->links, l->serial) < 0)
        say_recording(l, channel, -1,
                      "this session would be recorded, and too much waits for the disk");
}

static const struct {
    const char *event; /* the word in an event */
    const char *shown; /* the word in a session's channels */
} channel_kinds[CHANNEL_KIND_COUNT] = {
    [CHANNEL_SHELL] = {"shell", "session"},
    [CHANNEL_EXEC] = {"exec", "session"},
    [CHANNEL_TRANSFER] = {"transfer", "session"},
    [CHANNEL_SUBSYSTEM] = {"subsystem", "session"},
    [CHANNEL_FORWARD] = {"forward", "forward"},
    [CHANNEL_REMOTE_FORWARD] = {"remote-forward", "remote-forward"},
    [CHANNEL_AGENT] = {"agent", "agent"},
    [CHANNEL_X11] = {"x11", "x11"},
};

/* "session*2,forward": the kinds that share a word stand together in the table. */
static void tell_channels(const struct relay_link *l)
{
    char channels[CHANNELS_TEXT_MAX] = "";
    size_t at = 0;

    for (size_t kind = 0, next; kind < CHANNEL_KIND_COUNT && at < sizeof(channels); kind = next) {
        uint32_t count = 0;

        for (next = kind; next < CHANNEL_KIND_COUNT &&
                          strcmp(channel_kinds[next].shown, channel_kinds[kind].shown) == 0;
             next++)
            count += l->channel_count[next];
        if (count == 0)
            continue;
        at += (size_t)snprintf(channels + at, sizeof(channels) - at, at ? ",%s" : "%s",
                               channel_kinds[kind].shown);
        if (count > 1 && at < sizeof(channels))
            at += (size_t)snprintf(channels + at, sizeof(channels) - at, "*%u", count);
    }
    tracker_channels(l->links->broker->tracker, l->session_id, channels);
}

static void count_word(struct relay_link *l, const char *word, size_t len, uint64_t count)
{
    for (size_t kind = 0; kind < CHANNEL_KIND_COUNT; kind++) {
        if (strlen(channel_kinds[kind].shown) != len ||
            memcmp(channel_kinds[kind].shown, word, len) != 0)
            continue;
        l->channel_count[kind] += count < CHANNELS_SHOWN_MAX ? (uint32_t)count : CHANNELS_SHOWN_MAX;
        return;
    }
}

void link_count_channels(struct relay_link *l, const char *channels)
{
    memset(l->channel_count, 0, sizeof(l->channel_count));
    while (*channels) {
        size_t len = strcspn(channels, ","), name = strcspn(channels, ",*");
        char number[16];
        uint64_t count = 1;

        snprintf(number, sizeof(number), "%.*s", len > name ? (int)(len - name - 1) : 0,
                 channels + name + (len > name));
        if (len > name && !text_parse_u64(number, &count))
            count = 1;
        count_word(l, channels, name, count);
        channels += len + (channels[len] == ',');
    }
}

/* What the row knew as "session" only may be any of the kinds that are shown so. */
static void count_channel(struct relay_link *l, uint8_t kind, uint8_t change)
{
    if (change == LINK_CHANNEL_OPENED && l->channel_count[kind] < CHANNELS_SHOWN_MAX) {
        l->channel_count[kind]++;
    } else if (change == LINK_CHANNEL_CLOSED) {
        for (size_t i = 0; i < CHANNEL_KIND_COUNT; i++) {
            size_t k = (kind + i) % CHANNEL_KIND_COUNT;

            if (l->channel_count[k] == 0 ||
                strcmp(channel_kinds[k].shown, channel_kinds[kind].shown) != 0)
                continue;
            l->channel_count[k]--;
            return;
        }
    }
}

void link_on_channel(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_channel *c = &m->channel;

    (void)fds;
    count_channel(l, c->kind, c->change);
    link_note_channel(l, c, channel_kinds[c->kind].event);
    if (c->has_pty)
        link_note_terminal(l, c->channel, c->change == LINK_CHANNEL_OPENED);
    if (c->change == LINK_CHANNEL_CLOSED) /* its last frame came before */
        recordings_close_channel(l->links->broker->recordings, l->session_id, c->channel);
    tell_channels(l);
}

void link_on_frame(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_frame *f = &m->frame;

    (void)fds;
    if (f->chain.len == sizeof(f->chain.data))
        recordings_frame(l->links->broker->recordings, l->session_id, f->channel, f->sequence,
                         f->file_len, f->chain.data);
}

void link_on_recording_state(struct relay_link *l, struct link_message *m, int *fds)
{
    static struct log_limit limit;
    struct broker *b = l->links->broker;
    const struct link_recording_state *s = &m->recording_state;

    (void)fds;
    if (s->state == RECORDING_FAILED || s->state == RECORDING_DEGRADED) {
        recordings_failed(b->recordings, l->session_id, s->channel);
        link_note(l, "recording-failed", s->text);
        if (log_limit_allows(&limit, 60, "failed recordings"))
            log_error("recording failed session=%llu channel=%u: %s",
                      (unsigned long long)l->session_id, s->channel, s->text);
    }
    tracker_recording(b->tracker, l->session_id, (enum recording_state)s->state);
}

void link_on_resumed(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)m, (void)fds;
    tracker_resumed(l->links->broker->tracker, l->session_id);
}

/* What only the broker can know (logins, ends, pinned keys) is never a relay's to say. */
void link_on_event(struct relay_link *l, struct link_message *m, int *fds)
{
    static const char *const kinds[] = {"host-key-mismatch", "channel-refused", "idle-warning",
                                        "remote-forward", "events-lost"};
    char kind[sizeof(m->event.kind) + 8];
    bool is_known = false;

    (void)fds;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        is_known |= strcmp(m->event.kind, kinds[i]) == 0;
    snprintf(kind, sizeof(kind), "%s%s", is_known ? "" : "relay:", m->event.kind);
    link_note(l, kind, m->event.text);
}

/* Whether a relay may end its session so. That an admin did, or access was withdrawn, is the
 * broker's to know; only one that was told so by an earlier broker brings it along. */
static bool may_say(const struct relay_link *l, const struct link_closed *c)
{
    bool is_of_broker = c->reason == END_ADMIN_ENDED || c->reason == END_SELF_ENDED ||
                        c->reason == END_REVOKED || strncmp(c->author, "admin ", 6) == 0;

    return l->is_adopted || l->is_end_sent || !is_of_broker;
}

/* The target refused the login before anything was started: its session is over, and the user
 * chooses again. Only what was never ready can be given back. */
void link_on_back(struct relay_link *l, struct link_message *m, int *fds)
{
    struct link_back_result *back;

    (void)fds;
    if (l->is_end_sent) /* they crossed: it is told to end, and will */
        return;
    if (l->is_ready) {
        log_warn("relay pid=%d gives a session back that has begun, and is ended", l->pid);
        link_drop(l, "out of order");
        return;
    }
    link_session_over(l, m->back.reason == END_POLICY ? END_POLICY : END_TARGET_UNREACHABLE,
                      "target", m->back.text);
    l->target[0] = l->account[0] = '\0';
    link_enter(l, STATE_CHOOSING);
    back = &link_begin(l, LINK_BACK_RESULT)->back_result;
    link_put_ticket(l, &back->ticket.len, back->ticket.data);
    link_say(l);
}

void link_on_closed(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_closed *c = &m->closed;
    const struct timeval leave = {LEAVE_S, 0};

    (void)fds;
    link_login_left(l);
    event_add(l->timer, &leave);
    event_add(l->exit, NULL);
    /* A stranger's connection writes nothing: his failed attempts are events already. */
    if (!link_jump_closed_note(l, c) && !l->session_id && l->user[0] && c->text[0])
        link_note(l, "connection-closed", c->text);
    if (may_say(l, c)) {
        link_jump_outer_over(l, (enum end_reason)c->reason, c->author, c->text);
        link_session_over(l, (enum end_reason)c->reason, c->author, c->text);
    } else {
        link_jump_outer_over(l, END_NETWORK_LOST, "relay",
                             "the connection that carries it was lost");
        link_session_over(l, END_RELAY_CRASHED, "relay",
                          "the relay gave a reason that is not its own");
    }
    store_flush(l->links->broker->store);
    link_enter(l, STATE_ENDED);
    link_begin(l, LINK_CLOSED_ACK);
    link_say(l);
}
