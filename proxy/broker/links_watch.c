/*
 * Looking on: the broker makes a socketpair, hands one end to the relay and the other, with the
 * recording so far, to whoever asked on control.sock. What is shown never passes through here. Who
 * looked, and for how long, is an event. Called by broker.c for control, and by the dispatch of
 * links.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/links_parts.h"
#include "proxy/broker/recordings.h"
#include "tracker/tracker.h"

#define WATCH_SINCE 3 /* version of the link */

/* ---- which terminals are there ---- */

void link_note_terminal(struct relay_link *l, uint32_t channel, bool is_open)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->terminal_count; i++)
        if (l->terminals[i] != channel)
            l->terminals[kept++] = l->terminals[i];
    if (is_open && kept == LINK_TERMINALS_MAX) {
        memmove(l->terminals, l->terminals + 1, (kept - 1) * sizeof(l->terminals[0]));
        kept--;
    }
    if (is_open)
        l->terminals[kept++] = channel;
    l->terminal_count = (uint8_t)kept;
}

static struct relay_link *find_session(struct links *all, uint64_t session_id)
{
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry)
        if (l->fd >= 0 && l->session_id == session_id && l->state == STATE_SESSION)
            return l;
    return NULL;
}

/* ---- beginning ---- */

static void tell_user(struct relay_link *l, const char *who, bool may_type)
{
    struct link_notice_msg *n;

    if (!l->policy.watch_notice)
        return;
    n = &link_begin(l, LINK_NOTICE)->notice;
    n->kind = LINK_NOTICE_MESSAGE;
    snprintf(n->text, sizeof(n->text),
             may_type ? "%s joined this session and may type in it" : "%s is watching this session",
             who);
    link_say(l);
}

/* Hand over one end; *fd is the other. */
static int hand_over(struct relay_link *l, uint64_t watch, uint32_t channel, bool may_type,
                     const char *who, int *fd)
{
    struct link_watch *w;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) { /* the relay may not, later */
        close(pair[0]);
        close(pair[1]);
        return ERR_SYSTEM;
    }
    w = &link_begin(l, LINK_WATCH)->watch;
    w->watch = watch;
    w->channel = channel;
    w->may_type = may_type;
    text_copy(w->who, sizeof(w->who), who);
    link_say_fds(l, &pair[0], 1);
    close(pair[0]);
    *fd = pair[1];
    return 0;
}

int links_watch(struct links *all, const struct links_watch *ask, struct links_watching *out,
                char *err, size_t err_len)
{
    struct relay_link *l = find_session(all, ask->session_id);
    char text[SESSION_TEXT_MAX];

    out->stream = out->recording = -1;
    if (!l || l->is_end_sent) {
        snprintf(err, err_len, "session %" PRIu64 " is not live", ask->session_id);
        return ERR_NOT_FOUND;
    }
    if (l->version < WATCH_SINCE) {
        snprintf(err, err_len,
                 "session %" PRIu64 " was begun by an older version, which cannot be watched",
                 ask->session_id);
        return ERR_VERSION;
    }
    out->channel = ask->channel;
    if (!out->channel && l->terminal_count > 0)
        out->channel = l->terminals[l->terminal_count - 1];
    out->watch = ++all->next_watch;
    if (hand_over(l, out->watch, out->channel, ask->may_type, ask->who, &out->stream) < 0) {
        snprintf(err, err_len, "cannot make a socket: %s", strerror(errno));
        return ERR_SYSTEM;
    }
    out->recording = recordings_read(all->broker->recordings, ask->session_id, &out->channel);
    tell_user(l, ask->who, ask->may_type);
    snprintf(text, sizeof(text), "watch=%" PRIu64 " channel=%u %s", out->watch, out->channel,
             ask->who);
    link_note(l, ask->may_type ? "join-open" : "watch-open", text);
    log_info("session=%" PRIu64 " %s by %s", ask->session_id, ask->may_type ? "joined" : "watched",
             ask->who);
    return 0;
}

/* ---- the end ---- */

void links_watch_end(struct links *all, uint64_t session_id, uint64_t watch)
{
    struct relay_link *l = find_session(all, session_id);

    if (!l || l->version < WATCH_SINCE)
        return;
    link_begin(l, LINK_WATCH_END)->watch_end.watch = watch;
    link_say(l);
}

void link_on_watch_closed(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_watch_closed *c = &m->watch_closed;
    char text[512], typed[48] = "";

    (void)fds;
    if (c->may_type)
        snprintf(typed, sizeof(typed), " typed=%" PRIu64, c->typed);
    snprintf(text, sizeof(text), "watch=%" PRIu64 " channel=%u%s %s%s%.300s", c->watch, c->channel,
             typed, c->who, c->text[0] ? ": " : "", c->text);
    link_note(l, c->may_type ? "join-close" : "watch-close", text);
}
