/*
 * The connection that carries jumps (`ssh -J`, `ssh -W`): each channel that its client opens to
 * somewhere is joined to a stream socket that the broker hands over, behind which another relay of
 * ours sits, or, where the configuration passes things on, the place itself. Nothing is read here
 * of what goes through. Back pressure both ways: what the socket does not take stays with libssh,
 * whose window then stays shut; what the window does not take stays in the socket. Steps of a turn
 * of proxy/ssh/session.c; callbacks only move bytes to the socket, or note.
 */
#include "proxy/ssh/session.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>

#define JUMPS_MAX   64
#define READ_MAX    (256u * 1024u) /* in a turn: it leaves in one call, and fits the cache */
#define OUT_SIZE    (256u * 1024u)
#define PACKET      32758u /* what libssh puts into one packet for a peer that takes 32 KiB */
#define STEP_ROUNDS 4
#define HOST_MAX    255

enum jump_state {
    JUMP_ASKED, /* the broker is asked; the client waits */
    JUMP_OPEN,
    JUMP_DONE /* freed at the end of the turn */
};

struct jump {
    TAILQ_ENTRY(jump) link;
    struct session *session; /* not owned */
    enum jump_state state;
    uint32_t number;
    ssh_message opening; /* owned: the open that waits for its answer */
    ssh_channel ssh;     /* NULL while not open, and after the session is gone */
    struct ssh_channel_callbacks_struct callbacks;
    int fd;
    bool is_passed; /* no relay of ours is behind the socket */
    struct event *readable, *writable;
    bool is_readable, is_armed; /* bytes may be there; `readable` is pending, for good until the
                                   client takes no more */

    /* to the socket: what came in one turn goes out in one call */
    uint8_t *out; /* NULL when nothing waits for long */
    uint32_t out_start, out_len, out_cap;
    uint32_t held; /* what libssh keeps; at most two windows */
    bool got_eof, got_close, is_shut;

    /* to the client */
    uint8_t *in; /* NULL, or what a key exchange kept from being written */
    uint32_t in_start, in_len;
    bool is_ended; /* the socket's end was read */
    bool sent_eof, sent_close;

    uint64_t bytes_in, bytes_out;
    int64_t moved_ms;
};

struct jumps {
    TAILQ_HEAD(, jump) list;
    size_t count;
};

/* ---- from the client to the socket ---- */

/* How much of it the socket took; a broken socket takes everything, as nobody is there. */
static uint32_t put_out(struct jump *j, const void *data, uint32_t len)
{
    ssize_t n = sendto(j->fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n < 0) {
        j->is_ended = true;
        return len;
    }
    j->bytes_in += (uint64_t)n;
    j->moved_ms = clock_mono_ms();
    return (uint32_t)n;
}

static bool reserve_out(struct jump *j, uint32_t cap)
{
    uint8_t *out;

    if (j->out_cap >= cap)
        return true;
    if (!(out = realloc(j->out, cap)))
        return false;
    j->out = out;
    j->out_cap = cap;
    return true;
}

/* Whether the socket took some of it. */
static bool flush_out(struct jump *j)
{
    uint32_t n = put_out(j, j->out + j->out_start, j->out_len);

    j->out_len -= n;
    j->out_start = j->out_len > 0 ? j->out_start + n : 0;
    return n > 0;
}

/* How much of it found a place. */
static uint32_t gather(struct jump *j, const uint8_t *data, uint32_t len)
{
    uint32_t taken = 0;

    if (!reserve_out(j, OUT_SIZE))
        return 0;
    while (taken < len) {
        uint32_t room = j->out_cap - j->out_start - j->out_len;
        uint32_t n = len - taken < room ? len - taken : room;

        memcpy(j->out + j->out_start + j->out_len, data + taken, n);
        j->out_len += n;
        taken += n;
        if (taken < len && !flush_out(j))
            break;
    }
    return taken;
}

/* libssh gives all that it has, what it kept before included. */
static int on_data(ssh_session ssh, ssh_channel ch, void *data, uint32_t len, int is_stderr,
                   void *arg)
{
    struct jump *j = arg;
    uint32_t taken;

    (void)ssh;
    (void)ch;
    if (is_stderr || j->state != JUMP_OPEN)
        return (int)len;
    taken = gather(j, data, len);
    j->held = len - taken;
    return (int)taken;
}

static void on_eof(ssh_session ssh, ssh_channel ch, void *arg)
{
    struct jump *j = arg;

    (void)ssh;
    (void)ch;
    j->got_eof = true;
}

static void on_close(ssh_session ssh, ssh_channel ch, void *arg)
{
    struct jump *j = arg;

    (void)ssh;
    (void)ch;
    j->got_eof = true;
    j->got_close = true;
}

static void attach(struct jump *j)
{
    j->callbacks = (struct ssh_channel_callbacks_struct){
        .userdata = j,
        .channel_data_function = on_data,
        .channel_eof_function = on_eof,
        .channel_close_function = on_close,
    };
    ssh_callbacks_init(&j->callbacks);
    (void)ssh_set_channel_callbacks(j->ssh, &j->callbacks);
}

/* All of it at once: every read opens the window anew, so that portions would let the client send
 * faster than the socket takes it. */
static void refill(struct jump *j)
{
    int got;

    if (j->held == 0 || j->out_len > 0)
        return;
    if (!j->ssh || !leg_is_alive(&j->session->user)) {
        j->held = 0;
        return;
    }
    if (!reserve_out(j, j->held))
        return; /* tried again at the next turn; the window stays shut */
    got = ssh_channel_read_timeout(j->ssh, j->out, j->held, 0, 0);
    j->out_start = 0;
    j->out_len = got > 0 ? (uint32_t)got : 0;
    j->held = 0;
}

static void move_in(struct jump *j)
{
    for (int i = 0; i < STEP_ROUNDS && (j->out_len > 0 || j->held > 0); i++) {
        refill(j);
        if (j->out_len == 0 || !flush_out(j))
            break;
    }
    if (j->out_len > 0 || j->held > 0)
        (void)event_add(j->writable, NULL);
    else if (j->got_eof && !j->is_shut) {
        j->is_shut = true;
        (void)shutdown(j->fd, SHUT_WR);
    }
}

/* ---- from the socket to the client ---- */

static uint32_t room_at_client(const struct jump *j)
{
    uint32_t window, room = leg_room(&j->session->user);

    if (!j->ssh || j->sent_eof || room == 0 || !ssh_channel_is_open(j->ssh))
        return 0;
    window = ssh_channel_window_size(j->ssh);
    return window < room ? window : room;
}

/* 0 while keys are changed. */
static uint32_t write_client(struct jump *j, const void *data, uint32_t len)
{
    int n = ssh_channel_write(j->ssh, data, len);

    if (n <= 0)
        return 0;
    j->session->user.unsent += (uint32_t)n;
    j->bytes_out += (uint32_t)n;
    j->moved_ms = clock_mono_ms();
    return (uint32_t)n;
}

static bool write_kept(struct jump *j)
{
    uint32_t room = room_at_client(j), n;

    if (j->in_len == 0)
        return true;
    n = room ? write_client(j, j->in + j->in_start, j->in_len < room ? j->in_len : room) : 0;
    j->in_start += n;
    j->in_len -= n;
    if (j->in_len > 0)
        return false;
    free(j->in);
    j->in = NULL;
    return true;
}

/* Keep what was read and not written; without memory the jump is over. */
static void keep(struct jump *j, const uint8_t *data, uint32_t len)
{
    if (!(j->in = malloc(len))) {
        j->is_ended = j->got_close = true;
        return;
    }
    memcpy(j->in, data, len);
    j->in_start = 0;
    j->in_len = len;
}

/* One read and one write; false when nothing more can be done now. */
static bool move_once(struct jump *j)
{
    static uint8_t bytes[READ_MAX]; /* one for the process; touched as far as it is filled */
    uint32_t room, wanted, taken;
    ssize_t n;

    if (!write_kept(j) || !j->is_readable || j->is_ended || (room = room_at_client(j)) == 0)
        return false;
    if (room > PACKET)
        room -= room % PACKET;
    wanted = room < READ_MAX ? room : READ_MAX;
    n = recvfrom(j->fd, bytes, wanted, MSG_DONTWAIT, NULL, NULL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        j->is_readable = false;
        return false;
    }
    if (n <= 0) {
        j->is_ended = true;
        return false;
    }
    j->is_readable = (uint32_t)n == wanted; /* less: there was no more */
    taken = write_client(j, bytes, (uint32_t)n);
    if (taken < (uint32_t)n)
        keep(j, bytes + taken, (uint32_t)n - taken);
    return true;
}

static void move_out(struct jump *j)
{
    bool is_moving = move_once(j);

    if (is_moving && (j->is_readable || j->in_len > 0))
        session_want_turn(j->session);
    /* with bytes there and no room, the window's opening makes the next turn, not the socket */
    if (!j->is_readable && !j->is_ended && !j->is_armed)
        j->is_armed = event_add(j->readable, NULL) == 0;
    else if (j->is_armed && (j->is_ended || (j->is_readable && !is_moving)))
        j->is_armed = event_del(j->readable) != 0;
}

/* ---- ends ---- */

static void send_ends(struct jump *j)
{
    if (!j->ssh)
        return;
    if (j->is_ended && j->in_len == 0 && !j->sent_eof) {
        (void)ssh_channel_send_eof(j->ssh);
        j->sent_eof = true;
    }
    /* a relay of ours that hangs up hears nothing more; elsewhere one direction may go on */
    if (j->sent_eof && !j->sent_close && (!j->is_passed || j->is_shut || j->got_close)) {
        (void)ssh_channel_close(j->ssh);
        j->sent_close = true;
    }
    /* what it said before is delivered first, as far as anybody takes it */
    if (j->got_close && !j->sent_close && (j->is_ended || (j->out_len == 0 && j->held == 0))) {
        if (!j->sent_eof)
            (void)ssh_channel_send_eof(j->ssh);
        (void)ssh_channel_close(j->ssh);
        j->sent_eof = j->sent_close = true;
    }
}

static bool is_over(const struct jump *j)
{
    return !leg_is_alive(&j->session->user) || (j->sent_close && j->got_close);
}

/* What is passed on has no idle policy but this: nobody would see it. */
static void check_idle(struct jump *j, int64_t now_ms)
{
    int64_t limit_ms = (int64_t)j->session->limits.jump_idle_s * 1000;

    if (!j->is_passed || limit_ms == 0 || j->is_ended)
        return;
    if (now_ms - j->moved_ms >= limit_ms)
        j->is_ended = j->got_close = true;
    else
        session_want_timer(j->session, j->moved_ms + limit_ms);
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct jump *j = arg;

    (void)fd;
    (void)what;
    j->is_readable = true;
    session_wake(j->session);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct jump *j = arg;

    (void)fd;
    (void)what;
    session_wake(j->session);
}

/* ---- the life of one ---- */

static struct jump *jump_create(struct session *s, ssh_message opening)
{
    struct jump *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    if (!s->jumps) {
        if (!(s->jumps = calloc(1, sizeof(*s->jumps)))) {
            free(j);
            return NULL;
        }
        TAILQ_INIT(&s->jumps->list);
    }
    j->session = s;
    j->number = ++s->last_number;
    j->opening = opening;
    j->fd = -1;
    TAILQ_INSERT_TAIL(&s->jumps->list, j, link);
    s->jumps->count++;
    return j;
}

static void tell_closed(struct jump *j)
{
    struct link_jump_closed end = {
        .channel = j->number, .bytes_in = j->bytes_in, .bytes_out = j->bytes_out};

    if (j->is_ended)
        end.by = LINK_JUMP_BY_FAR;
    else
        end.by = j->got_eof ? LINK_JUMP_BY_CLIENT : LINK_JUMP_BY_OUTER;
    relay_jump_closed(j->session->relay, &end);
}

static void jump_destroy(struct jump *j)
{
    struct jumps *all = j->session->jumps;

    TAILQ_REMOVE(&all->list, j, link);
    all->count--;
    if (j->fd >= 0)
        tell_closed(j);
    if (j->opening)
        ssh_message_free(j->opening);
    if (j->ssh) {
        (void)ssh_remove_channel_callbacks(j->ssh, &j->callbacks);
        ssh_channel_free(j->ssh);
    }
    if (j->readable)
        event_free(j->readable);
    if (j->writable)
        event_free(j->writable);
    if (j->fd >= 0)
        close(j->fd);
    free(j->out);
    free(j->in);
    free(j);
}

static void refuse(struct jump *j)
{
    (void)ssh_message_reply_default(j->opening);
    ssh_message_free(j->opening);
    j->opening = NULL;
    j->state = JUMP_DONE;
}

void jump_open_message(struct session *s, ssh_message message)
{
    const char *host = ssh_message_channel_request_open_destination(message);
    int port = ssh_message_channel_request_open_destination_port(message);
    struct jump *j;

    if (!host || *host == '\0' || strlen(host) > HOST_MAX || port < 1 || port > UINT16_MAX ||
        (s->jumps && s->jumps->count >= JUMPS_MAX) || !(j = jump_create(s, message))) {
        (void)ssh_message_reply_default(message);
        ssh_message_free(message);
        return;
    }
    if (!relay_jump(s->relay, j->number, host, (uint16_t)port))
        refuse(j);
}

/* The client's open is answered and the two are joined; false when that is not possible. */
static bool join(struct jump *j, int fd)
{
    struct event_base *base = relay_base(j->session->relay);

    j->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, j);
    j->writable = event_new(base, fd, EV_WRITE, on_writable, j);
    if (!j->readable || !j->writable)
        return false;
    j->ssh = ssh_message_channel_request_open_reply_accept(j->opening);
    ssh_message_free(j->opening);
    j->opening = NULL;
    if (!j->ssh)
        return false;
    attach(j);
    j->state = JUMP_OPEN;
    return true;
}

void jump_result(struct session *s, const struct link_jump_result *result, int fd)
{
    struct jump *j;

    TAILQ_FOREACH (j, &s->jumps->list, link) {
        if (j->number == result->channel && j->state == JUMP_ASKED)
            break;
    }
    session_want_turn(s);
    if (!j) { /* cannot be, since none is let go while it is asked for */
        if (fd >= 0)
            close(fd);
        return;
    }
    if (!result->is_ok) {
        log_info("jump refused: %s", result->text);
        refuse(j);
        return;
    }
    j->fd = fd;
    j->is_passed = result->is_passed;
    j->moved_ms = clock_mono_ms();
    if (!join(j, fd))
        j->state = JUMP_DONE;
}

static void step_one(struct jump *j, int64_t now_ms)
{
    if (j->ssh && leg_is_alive(&j->session->user) &&
        (j->held > HELD_MAX || libssh_has_lost_bytes(j->session->user.ssh))) {
        const char *text = "the client does not keep to its window";

        session_end(j->session, END_POLICY, "policy", text, text);
        return;
    }
    move_in(j);
    move_out(j);
    check_idle(j, now_ms);
    send_ends(j);
    if (is_over(j))
        j->state = JUMP_DONE;
}

void jump_step(struct session *s, int64_t now_ms)
{
    struct jump *j, *next;

    if (!s->jumps || s->phase == PHASE_OVER)
        return;
    for (j = TAILQ_FIRST(&s->jumps->list); j; j = next) {
        next = TAILQ_NEXT(j, link);
        if (j->state == JUMP_OPEN && leg_is_alive(&s->user))
            step_one(j, now_ms);
        if (j->state == JUMP_DONE)
            jump_destroy(j);
    }
    if ((j = TAILQ_FIRST(&s->jumps->list))) { /* who comes first could take all of a slow client */
        TAILQ_REMOVE(&s->jumps->list, j, link);
        TAILQ_INSERT_TAIL(&s->jumps->list, j, link);
    }
}

bool jump_any_open(const struct session *s)
{
    const struct jump *j;

    if (!s->jumps)
        return false;
    TAILQ_FOREACH (j, &s->jumps->list, link) {
        if (j->state == JUMP_OPEN && !j->got_close)
            return true;
    }
    return false;
}

void jump_relax(struct session *s)
{
    struct jump *j;

    if (!s->jumps)
        return;
    TAILQ_FOREACH (j, &s->jumps->list, link) {
        if (j->out_len > 0)
            continue;
        free(j->out);
        j->out = NULL;
        j->out_cap = 0;
    }
}

void jump_detach(struct session *s)
{
    struct jump *j;

    if (!s->jumps)
        return;
    TAILQ_FOREACH (j, &s->jumps->list, link) {
        if (j->opening)
            refuse(j);
        if (j->ssh)
            (void)ssh_remove_channel_callbacks(j->ssh, &j->callbacks);
        j->ssh = NULL;
    }
}

void jump_free_all(struct session *s)
{
    if (!s->jumps)
        return;
    while (!TAILQ_EMPTY(&s->jumps->list))
        jump_destroy(TAILQ_FIRST(&s->jumps->list));
    free(s->jumps);
    s->jumps = NULL;
}
