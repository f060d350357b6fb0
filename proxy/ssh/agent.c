/*
 * Logging in at a server with the user's own agent, which his client offers (ssh -A). libssh waits
 * for an agent inside its call, so that call runs as a fiber: where it would wait for the agent it
 * stops, and the relay goes on with everything else until the client's channel has an answer. As
 * long as that lasts the server's leg belongs to the fiber (leg_lend()). Steps of a turn.
 */
#include "proxy/ssh/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#include "proxy/ssh/fiber.h"
#include "proxy/ssh/hop.h"
#include "proxy/ssh/io.h"

#define OFFER_MS  10000          /* for a client to say that it has an agent */
#define ANSWER_MS 60000          /* an agent may ask its owner */
#define BYTES_MAX (512u * 1024u) /* an agent's answer has 256 KiB at most */

enum wait { WAIT_NOTHING, WAIT_AGENT, WAIT_SERVER };

struct agent_login {
    struct session *session; /* not owned */
    struct hop *hop;         /* not owned */
    ssh_channel channel;     /* towards the client */
    struct ssh_channel_callbacks_struct callbacks;
    bool is_open, is_gone, is_cancelled, is_late;
    struct buffer in, out;
    struct fiber *fiber;
    enum wait waits;
    int rc;
    int fd; /* stands for the agent; its bytes are diverted to here */
    int64_t offer_by_ms, answer_by_ms;
};

/* ---- what libssh sees as its agent's socket ---- */

static ssize_t read_agent(void *arg, void *dst, size_t len)
{
    struct agent_login *a = arg;
    size_t n;

    while (a->in.len == 0 && !a->is_gone) {
        a->waits = WAIT_AGENT;
        fiber_yield();
    }
    n = a->in.len < len ? a->in.len : len;
    memcpy(dst, a->in.data, n);
    buffer_consume(&a->in, n);
    return (ssize_t)n;
}

static ssize_t write_agent(void *arg, const void *data, size_t len)
{
    struct agent_login *a = arg;

    buffer_put(&a->out, data, len);
    if (!a->out.failed && !a->is_gone)
        return (ssize_t)len;
    errno = EPIPE;
    return -1;
}

static void run(void *arg)
{
    struct agent_login *a = arg;

    do {
        a->rc = ssh_userauth_agent(a->hop->leg->ssh, a->hop->account);
        if (a->rc != SSH_AUTH_AGAIN)
            break;
        a->waits = WAIT_SERVER;
        fiber_yield();
    } while (!a->is_cancelled);
}

/* ---- the channel to the client ---- */

static int on_data(ssh_session ssh, ssh_channel channel, void *data, uint32_t len, int is_stderr,
                   void *arg)
{
    struct agent_login *a = arg;

    (void)ssh, (void)channel;
    if (!is_stderr)
        buffer_put(&a->in, data, len);
    if (a->in.failed)
        a->is_gone = true;
    return (int)len;
}

static void on_end(ssh_session ssh, ssh_channel channel, void *arg)
{
    struct agent_login *a = arg;

    (void)ssh, (void)channel;
    a->is_gone = true;
}

static void send_out(struct agent_login *a)
{
    uint32_t room, n;
    int sent;

    while (a->out.len > 0 && a->is_open && !a->is_gone) {
        room = ssh_channel_window_size(a->channel);
        n = a->out.len < room ? (uint32_t)a->out.len : room;
        sent = n > 0 ? ssh_channel_write(a->channel, a->out.data, n) : 0;
        if (sent <= 0)
            return;
        a->session->user.unsent += (uint32_t)sent;
        buffer_consume(&a->out, (size_t)sent);
    }
}

/* ---- beginning and end ---- */

static struct agent_login *create(struct session *s, struct hop *h)
{
    struct agent_login *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->session = s;
    a->hop = h;
    a->fd = -1;
    a->offer_by_ms = clock_mono_ms() + OFFER_MS;
    buffer_init_secret(&a->in, BYTES_MAX);
    buffer_init_secret(&a->out, BYTES_MAX);
    return a;
}

static void destroy(struct agent_login *a)
{
    struct session *s = a->session;

    io_divert(NULL);
    fiber_destroy(a->fiber);
    if (a->channel) {
        (void)ssh_remove_channel_callbacks(a->channel, &a->callbacks);
        if (leg_is_alive(&s->user)) {
            if (a->is_open && !a->is_gone) {
                (void)ssh_channel_send_eof(a->channel);
                (void)ssh_channel_close(a->channel);
            }
            ssh_channel_free(a->channel);
        }
    }
    buffer_finish(&a->in);
    buffer_finish(&a->out);
    free(a);
    s->agent = NULL;
}

void agent_stop(struct session *s)
{
    struct agent_login *a = s->agent;

    if (!a)
        return;
    a->is_gone = a->is_cancelled = true;
    while (a->fiber && !fiber_is_done(a->fiber)) /* libssh gives up at the end of the "file" */
        fiber_resume(a->fiber);
    leg_lend(a->hop->leg, false);
    destroy(a);
}

/* ---- a turn's work ---- */

/* Has the client said that there is one? ssh says so before it asks for a shell or a command. */
static bool is_offered(struct session *s, struct hop *h)
{
    int64_t by_ms = s->agent->offer_by_ms;

    if (s->has_agent)
        return true;
    ask_for_channel(s);
    if (s->asking_has_started || clock_mono_ms() >= by_ms) {
        hop_fail(h,
                 "%s is logged in to with your own agent, and your client offers none: start one, "
                 "add your key (ssh-add) and connect with ssh -A",
                 h->name);
        return false;
    }
    session_want_timer(s, by_ms);
    hop_allow(h, by_ms + ANSWER_MS);
    return false;
}

static bool open_channel(struct session *s, struct hop *h)
{
    struct agent_login *a = s->agent;
    int rc;

    if (!a->channel) {
        a->channel = ssh_channel_new(s->user.ssh);
        a->answer_by_ms = clock_mono_ms() + ANSWER_MS;
        hop_allow(h, a->answer_by_ms + OFFER_MS);
    }
    rc = a->channel ? ssh_channel_open_auth_agent(a->channel) : SSH_ERROR;
    if (rc == SSH_AGAIN) {
        session_want_timer(s, a->answer_by_ms);
        return false;
    }
    if (rc != SSH_OK) {
        hop_fail(h,
                 "%s is logged in to with your own agent, and your client does not let the proxy "
                 "ask it: is ssh-agent running?",
                 h->name);
        return false;
    }
    a->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = a,
        .channel_data_function = on_data,
        .channel_eof_function = on_end,
        .channel_close_function = on_end,
    };
    ssh_callbacks_init(&a->callbacks);
    (void)ssh_set_channel_callbacks(a->channel, &a->callbacks);
    a->is_open = true;
    return true;
}

static bool begin(struct agent_login *a)
{
    const struct io_diversion to = {-1, read_agent, write_agent, a};
    struct io_diversion diversion = to;

    a->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->fd < 0)
        return false;
    if (ssh_set_agent_socket(a->hop->leg->ssh, a->fd) != SSH_OK) {
        close(a->fd);
        return false;
    }
    diversion.fd = a->fd; /* closed by libssh, with its session */
    io_divert(&diversion);
    a->fiber = fiber_create(run, a);
    return a->fiber != NULL;
}

static int finish(struct session *s, struct hop *h)
{
    struct agent_login *a = s->agent;
    int rc = a->rc;
    bool is_late = a->is_late, is_gone = a->is_gone;

    destroy(a);
    if (rc == SSH_AUTH_SUCCESS || rc == SSH_AUTH_PARTIAL || !leg_is_alive(h->leg))
        return rc;
    if (is_late)
        hop_fail(h, "your agent did not answer in time, so that nobody logs in at %s", h->name);
    else if (is_gone)
        hop_fail(h, "the connection to your agent was closed during the login at %s", h->name);
    else
        return SSH_AUTH_DENIED;
    return HOP_CANNOT;
}

static int go_on(struct session *s, struct hop *h)
{
    struct agent_login *a = s->agent;
    int64_t now_ms = clock_mono_ms();

    send_out(a);
    if (a->waits == WAIT_AGENT && a->in.len == 0 && !a->is_gone) {
        if (now_ms < a->answer_by_ms) {
            session_want_timer(s, a->answer_by_ms);
            return SSH_AUTH_AGAIN;
        }
        a->is_late = a->is_gone = true;
    }
    a->waits = WAIT_NOTHING;
    leg_lend(h->leg, false);
    fiber_resume(a->fiber);
    if (fiber_is_done(a->fiber))
        return finish(s, h);
    if (a->waits == WAIT_AGENT) {
        leg_lend(h->leg, true);
        a->answer_by_ms = now_ms + ANSWER_MS;
        hop_allow(h, a->answer_by_ms + OFFER_MS);
        session_want_timer(s, a->answer_by_ms);
        send_out(a);
    }
    return SSH_AUTH_AGAIN;
}

int agent_login(struct session *s, struct hop *h)
{
    if (!s->agent && !(s->agent = create(s, h))) {
        hop_fail(h, "out of memory");
        return HOP_CANNOT;
    }
    if (!s->agent->is_open && (!is_offered(s, h) || !open_channel(s, h)))
        return h->step == HOP_FAILED ? HOP_CANNOT : SSH_AUTH_AGAIN;
    if (!s->agent->fiber && !begin(s->agent)) {
        hop_fail(h, "out of memory");
        return HOP_CANNOT;
    }
    return go_on(s, h);
}
