/*
 * Channels that are connections passed on: the client's -L, -D and -W, which the target opens to
 * where they go, and those that the target opens towards the client because the client asked it to
 * (-R, -A, -X). What differs from a session's channel is here: who may, to where, how it is opened
 * and what the broker is told; bytes and ends are pump.c's and channel.c's. Steps of a turn.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/destination.h>

#define FORWARDS_MAX 512
#define HOST_LEN_MAX 1024 /* a name has 255 at most; what is longer is refused by nobody else */

static size_t count_forwards(const struct session *s)
{
    const struct channel *c;
    size_t n = 0;

    TAILQ_FOREACH (c, &s->channels, link)
        n += c->forward != NULL;
    return n;
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    free(f->host);
    free(f->origin);
    free(f);
}

static struct forward *forward_new(const char *host, int port, const char *origin, int origin_port)
{
    struct forward *f = calloc(1, sizeof(*f));

    if (!f)
        return NULL;
    f->host = strdup(host ? host : "");
    f->origin = strdup(origin ? origin : "");
    f->port = (uint16_t)port;
    f->origin_port = (uint16_t)origin_port;
    if (f->host && f->origin && strlen(f->host) <= HOST_LEN_MAX &&
        strlen(f->origin) <= HOST_LEN_MAX)
        return f;
    forward_free(f);
    return NULL;
}

/* What an event says of it: "db01:5432", "localhost:8080 from 192.0.2.7:51022". */
static char *describe(const struct forward *f, enum link_channel_kind kind)
{
    char to[DESTINATION_MAX] = "", from[DESTINATION_MAX] = "", text[2 * DESTINATION_MAX + 8];

    if (f->host[0] != '\0' || kind == CHANNEL_FORWARD || kind == CHANNEL_REMOTE_FORWARD)
        destination_text(to, f->host, f->port);
    if (f->origin[0] != '\0' && kind != CHANNEL_FORWARD)
        destination_text(from, f->origin, f->origin_port);
    snprintf(text, sizeof(text), "%s%s%s%s", to, to[0] && from[0] ? " " : "",
             from[0] ? "from " : "", from);
    return strdup(text);
}

/* The channel waits in the list for its turn. */
static void add(struct session *s, ssh_message message, enum link_channel_kind kind,
                const char *host)
{
    struct forward *f =
        forward_new(host, ssh_message_channel_request_open_destination_port(message),
                    ssh_message_channel_request_open_originator(message),
                    ssh_message_channel_request_open_originator_port(message));
    struct channel *c = NULL;

    if (count_forwards(s) >= FORWARDS_MAX) {
        forward_free(f);
        channel_refuse(s, message, "too many forwarded connections");
        return;
    }
    if (!f || !(c = channel_create(s, message))) {
        forward_free(f);
        channel_refuse(s, message, "an address that is too long");
        return;
    }
    c->forward = f;
    c->kind = kind;
    c->is_reverse = kind != CHANNEL_FORWARD;
    c->command = describe(f, kind);
}

void forward_open_message(struct session *s, ssh_message message)
{
    if (ssh_message_subtype(message) == SSH_CHANNEL_DIRECT_TCPIP) {
        add(s, message, CHANNEL_FORWARD, ssh_message_channel_request_open_destination(message));
        return;
    }
    /* libssh shows no more of a type that it does not know, of which clients have this one */
    refuse_tell(s, POLICY_CHANNEL_STREAMLOCAL,
                "forwarding to a socket, or a kind of channel that is not known");
    (void)ssh_message_reply_default(message);
    ssh_message_free(message);
}

void forward_target_opens(struct session *s, ssh_message message)
{
    const char *address;

    switch (ssh_message_subtype(message)) {
    case SSH_CHANNEL_FORWARDED_TCPIP:
        address = listen_find(s, ssh_message_channel_request_open_destination(message),
                              (uint16_t)ssh_message_channel_request_open_destination_port(message));
        if (address)
            add(s, message, CHANNEL_REMOTE_FORWARD, address);
        else
            channel_refuse(s, message, "the target opened a remote-forward that nobody asked for");
        break;
    case SSH_CHANNEL_AUTH_AGENT:
        if (s->passes_agent)
            add(s, message, CHANNEL_AGENT, "");
        else
            channel_refuse(s, message, "the target asked for the agent that nobody forwarded");
        break;
    case SSH_CHANNEL_X11:
        if (s->passes_x11)
            add(s, message, CHANNEL_X11, "");
        else
            channel_refuse(s, message, "the target asked for the display that nobody forwarded");
        break;
    default:
        channel_refuse(s, message, "the target opened a channel that no client offers");
        break;
    }
}

bool forward_is_allowed(struct channel *c)
{
    struct session *s = c->session;
    char what[SESSION_TEXT_MAX];

    if (c->kind != CHANNEL_FORWARD) /* what led to it was allowed */
        return true;
    if (refuse_is_allowed(s, POLICY_CHANNEL_FORWARD) &&
        policy_allows_destination(relay_policy(s->relay)->forward_to, c->forward->host,
                                  c->forward->port))
        return true;
    snprintf(what, sizeof(what), "forwarding to %s", c->command ? c->command : "");
    refuse_tell(s, POLICY_CHANNEL_FORWARD, what);
    (void)ssh_message_reply_default(c->opening);
    ssh_message_free(c->opening);
    c->opening = NULL;
    c->state = CHANNEL_DONE;
    return false;
}

int forward_open(struct channel *c)
{
    const struct forward *f = c->forward;

    switch (c->kind) {
    case CHANNEL_FORWARD:
        return ssh_channel_open_forward(c->target.ssh, f->host, f->port, f->origin, f->origin_port);
    case CHANNEL_REMOTE_FORWARD:
        return ssh_channel_open_reverse_forward(c->user.ssh, f->host, f->port, f->origin,
                                                f->origin_port);
    case CHANNEL_AGENT:
        return ssh_channel_open_auth_agent(c->user.ssh);
    case CHANNEL_X11:
        return ssh_channel_open_x11(c->user.ssh, f->origin, f->origin_port);
    default:
        return SSH_ERROR;
    }
}

void forward_opened(struct channel *c)
{
    c->has_started = true;
    c->is_told = true;
    c->record = RECORD_OFF;
    c->started_ms = clock_mono_ms();
    channel_tell(c, LINK_CHANNEL_OPENED);
}
