/*
 * Looking on in a live session, and joining it: the daemon gives a socket on which the relay shows
 * the terminal, and it goes to the client beside the reply. Nothing of the terminal comes through
 * here.
 */
#include "control/control_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- a reply with descriptors ---- */

void control_passing_finish(struct request *r)
{
    struct passing *p = r->passing;

    if (!p)
        return;
    for (size_t i = 0; i < p->count; i++)
        close(p->fds[i]);
    free(p->line);
    free(p);
    r->passing = NULL;
}

static void reply_fds(struct request *r, json_t *data, const int *fds, size_t count)
{
    json_t *line = json_pack("{s:O, s:b, s:o}", "id", r->parsed.id, "ok", 1, "data", data);
    struct passing *p = calloc(1, sizeof(*p));
    size_t len;

    for (size_t i = 0; i < count && p; i++)
        p->fds[p->count++] = fds[i];
    for (size_t i = 0; i < count && !p; i++)
        close(fds[i]);
    r->passing = p;
    if (p)
        p->line = line ? json_dumps(line, JSON_COMPACT) : NULL;
    json_decref(line);
    if (!p || !p->line) {
        control_passing_finish(r);
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    len = strlen(p->line);
    p->line[len] = '\n'; /* in place of the NUL: the line goes by its length */
    p->len = len + 1;
    control_client_work(r->client);
}

/* One sendmsg(): the line is short, and everything before it was written. What does not fit is an
 * answer too. */
void control_passing_send(struct request *r, int sock)
{
    struct passing *p = r->passing;
    union {
        struct cmsghdr align;
        char data[CMSG_SPACE(sizeof(int) * PASSING_FDS_MAX)];
    } control = {.data = {0}};
    struct iovec part = {.iov_base = p->line, .iov_len = p->len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.data};
    struct cmsghdr *head;
    ssize_t n;

    m.msg_controllen = CMSG_SPACE(sizeof(int) * p->count);
    head = CMSG_FIRSTHDR(&m);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int) * p->count);
    memcpy(CMSG_DATA(head), p->fds, sizeof(int) * p->count);
    do
        n = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    r->state = REQUEST_DONE;
    if (n < 0)
        control_reply_error(r, "busy", "your socket is full; read what was sent before");
    else if ((size_t)n < p->len)
        control_client_kill(r->client);
    control_passing_finish(r);
}

/* ---- session watch, session join ---- */

void control_watches_check(struct control_client *client, enum control_access access)
{
    struct control *c = client->control;
    size_t kept = 0;

    for (size_t i = 0; i < client->watch_count; i++) {
        const struct client_watch *w = &client->watches[i];

        if (access >= w->needs)
            client->watches[kept++] = *w;
        else
            c->host.unwatch(c->host.arg, w->session_id, w->watch);
    }
    client->watch_count = kept;
}

static void watch(struct request *r, bool may_type)
{
    const struct arg_values *args = &r->parsed.args;
    struct control *c = r->control;
    uint64_t id = args_get(args, "id")->number, number;
    uint32_t channel = (uint32_t)args_get(args, "channel")->number;
    char err[SESSION_TEXT_MAX] = "";
    int fds[2], result;

    if (!args_flag(args, "descriptor")) {
        control_reply_error(r, "usage",
                            "the terminal comes on a descriptor beside the reply; a client that "
                            "can take one says \"descriptor\": true, as sallyctl does");
        return;
    }
    if (r->client->watch_count == CONTROL_WATCHES_MAX) {
        control_reply_error(r, "full", "8 watches on one connection are all there may be");
        return;
    }
    if (!c->host.watch) {
        control_reply_error(r, "failed", "this daemon cannot show sessions");
        return;
    }
    result = c->host.watch(c->host.arg, id, &channel, may_type, r->caller.author, fds, &number, err,
                           sizeof(err));
    if (result < 0) {
        control_reply_error(r, result == ERR_NOT_FOUND ? "not_found" : "failed", "%s", err);
        return;
    }
    r->client->watches[r->client->watch_count++] =
        (struct client_watch){id, number, may_type ? ACCESS_ADMIN : ACCESS_AUDIT};
    reply_fds(r,
              json_pack("{s:o, s:o, s:I, s:b, s:b}", "watch", control_json_id(number), "session",
                        control_json_id(id), "channel", (json_int_t)channel, "recording",
                        fds[1] >= 0, "mayType", (int)may_type),
              fds, fds[1] >= 0 ? 2 : 1);
}

void control_do_session_watch(struct request *r)
{
    watch(r, false);
}

void control_do_session_join(struct request *r)
{
    watch(r, true);
}
