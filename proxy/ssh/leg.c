/*
 * Driving one libssh session; leg.h. Called from the top level of proxy/ssh/session.c only, so that
 * nothing is freed while libssh is on the stack.
 */
#include "proxy/ssh/leg.h"

#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "proxy/ssh/algorithms.h"

#define DRIVE_STEPS \
    64 /* times 4 KiB: what fits the cache, and one busy leg does not starve the other */

#define PACKET_HEAD  4    /* bytes that libssh waits for before it begins a packet, at least */
#define PACKET_STEPS 4096 /* times PACKET_HEAD a turn */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct leg *leg = arg;

    (void)fd;
    (void)what;
    if (leg->io)
        io_readable(leg->io);
    leg->wake(leg->arg);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct leg *leg = arg;

    (void)fd;
    (void)what;
    leg->is_writable_armed = false;
    if (leg->io)
        io_writable(leg->io);
    leg->wake(leg->arg);
}

static int open_common(struct leg *leg, int fd, struct event_base *base, void (*wake)(void *),
                       void *arg)
{
    int one = 1;

    *leg = (struct leg){.state = LEG_HANDSHAKE, .fd = fd, .wake = wake, .arg = arg};
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* not TCP for -J */
    leg->ssh = ssh_new();
    leg->io = io_attach(fd);
    leg->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, leg);
    leg->writable = event_new(base, fd, EV_WRITE, on_writable, leg);
    if (!leg->ssh || !leg->io || !leg->readable || !leg->writable ||
        event_add(leg->readable, NULL) != 0)
        return ERR_MEMORY;
    ssh_set_blocking(leg->ssh, 0);
    /* with a descriptor of ours in the options ssh_disconnect() leaves the closing to us */
    return ssh_options_set(leg->ssh, SSH_OPTIONS_FD, &fd) == SSH_OK ? 0 : ERR_CRYPTO;
}

int leg_open_server(struct leg *leg, ssh_bind bind, int fd, struct event_base *base,
                    void (*wake)(void *), void *arg)
{
    int rc = open_common(leg, fd, base, wake, arg);

    leg->is_server = true;
    if (rc == 0 && ssh_bind_accept_fd(bind, leg->ssh, fd) != SSH_OK)
        rc = ERR_CRYPTO;
    if (rc == 0)
        rc = algorithms_set_accepted(leg->ssh);
    if (rc != 0)
        leg_close(leg);
    return rc;
}

/* Everything that would make libssh look for a file, a user or the environment. */
static int set_client_options(ssh_session ssh)
{
    int no = 0, none = SSH_LOG_NOLOG;

    if (ssh_options_set(ssh, SSH_OPTIONS_PROCESS_CONFIG, &no) != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_SSH_DIR, "/") != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_USER, "user") != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_HOST, "target") != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_KNOWNHOSTS, "/dev/null") != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null") != SSH_OK ||
        ssh_options_set(ssh, SSH_OPTIONS_LOG_VERBOSITY, &none) != SSH_OK)
        return ERR_CRYPTO;
    return 0;
}

int leg_open_client(struct leg *leg, const char *host_key_type, int fd, struct event_base *base,
                    void (*wake)(void *), void *arg)
{
    int rc = open_common(leg, fd, base, wake, arg);

    if (rc == 0)
        rc = set_client_options(leg->ssh);
    if (rc == 0)
        rc = algorithms_set_client(leg->ssh, host_key_type);
    if (rc != 0)
        leg_close(leg);
    return rc;
}

bool leg_is_alive(const struct leg *leg)
{
    return leg->state == LEG_HANDSHAKE || leg->state == LEG_UP;
}

/* The first words of libssh's error decide, since its states do not tell these apart. */
static void set_dead(struct leg *leg)
{
    const char *error = ssh_get_error(leg->ssh);
    const char *bye = "Received SSH_MSG_DISCONNECT";

    text_copy(leg->error, sizeof(leg->error), error ? error : "");
    if (strncmp(leg->error, bye, strlen(bye)) == 0)
        leg->end = LEG_END_BYE;
    else if (strncmp(leg->error, "Socket error", 12) == 0 || leg->error[0] == '\0')
        leg->end = LEG_END_LOST;
    else
        leg->end = LEG_END_ERROR;
    leg->state = LEG_DEAD;
    event_del(leg->readable);
    event_del(leg->writable);
    leg->is_writable_armed = false;
    if (ssh_get_fd(leg->ssh) < 0) { /* libssh closed it: the number may be somebody else's soon */
        io_detach(leg->io);
        leg->io = NULL;
        leg->fd = -1;
    }
}

static void check_alive(struct leg *leg)
{
    if (leg_is_alive(leg) && (ssh_get_status(leg->ssh) & (SSH_CLOSED | SSH_CLOSED_ERROR)))
        set_dead(leg);
}

/* libssh makes the client's descriptor blocking when it sees it connected. */
static void restore_nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && !(flags & O_NONBLOCK))
        (void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void step_handshake(struct leg *leg)
{
    int rc = leg->is_server ? ssh_handle_key_exchange(leg->ssh) : ssh_connect(leg->ssh);

    if (rc == SSH_ERROR) {
        set_dead(leg);
        return;
    }
    restore_nonblocking(leg->fd);
    if (!leg->poll) { /* libssh has its own poll context only after the first step */
        leg->poll = ssh_event_new();
        if (!leg->poll || ssh_event_add_session(leg->poll, leg->ssh) != SSH_OK)
            set_dead(leg);
    }
    if (rc == SSH_OK && leg->state == LEG_HANDSHAKE)
        leg->state = LEG_UP;
}

void leg_cork(struct leg *leg)
{
    if (leg_is_alive(leg))
        io_cork(leg->io, true);
}

/* Fewer bytes than the head of any packet: what follows a packet in one read never begins the next
 * one, whose beginning would overwrite it. */
static void drive_by_packet(struct leg *leg)
{
    int rc = SSH_OK;

    leg->io->portion = PACKET_HEAD;
    for (int i = 0; i < PACKET_STEPS && rc == SSH_OK && leg->on_packet; i++) {
        rc = ssh_event_dopoll(leg->poll, 0);
        if (!leg->on_packet(leg->packet_arg))
            leg->on_packet = NULL;
    }
    leg->io->portion = 0;
}

void leg_drive(struct leg *leg)
{
    int rc = SSH_OK;

    if (!leg_is_alive(leg) || leg->is_lent)
        return;
    leg->io->may_read = true;
    if (leg->on_packet)
        drive_by_packet(leg);
    for (int i = 0; i < DRIVE_STEPS && rc == SSH_OK && leg->poll && !leg->on_packet; i++)
        rc = ssh_event_dopoll(leg->poll, 0);
    check_alive(leg);
    if (leg->state == LEG_HANDSHAKE)
        step_handshake(leg);
    if (leg->io)
        leg->io->may_read = false;
}

void leg_watch_packets(struct leg *leg, bool (*fn)(void *arg), void *arg)
{
    leg->on_packet = fn;
    leg->packet_arg = arg;
}

static void flush(struct leg *leg)
{
    int rc = SSH_OK;

    while (rc == SSH_OK && !leg->io->is_blocked &&
           (ssh_get_poll_flags(leg->ssh) & SSH_WRITE_PENDING))
        rc = ssh_event_dopoll(leg->poll, 0);
    check_alive(leg);
}

void leg_lend(struct leg *leg, bool is_lent)
{
    if (leg->is_lent == is_lent)
        return;
    leg->is_lent = is_lent;
    if (!leg_is_alive(leg))
        return;
    if (is_lent) { /* what comes waits in the socket, without waking anybody */
        (void)event_del(leg->readable);
        return;
    }
    (void)event_add(leg->readable, NULL);
    event_active(leg->readable, EV_READ, 0);
}

void leg_settle(struct leg *leg)
{
    if (!leg_is_alive(leg) || leg->is_lent)
        return;
    check_alive(leg);
    if (leg_is_alive(leg) && leg->io)
        io_cork(leg->io, false);
    if (leg_is_alive(leg) && leg->poll)
        flush(leg);
    if (!leg_is_alive(leg))
        return;
    if (!leg_has_unsent(leg)) {
        if (leg->unsent >= LEG_BUDGET) /* somebody waits for room, and nothing else may happen */
            event_active(leg->readable, EV_READ, 0);
        leg->unsent = 0;
    }
    if (leg->io->is_blocked && !leg->is_writable_armed)
        leg->is_writable_armed = event_add(leg->writable, NULL) == 0;
    if (io_has_input(leg->io))
        event_active(leg->readable, EV_READ, 0); /* the kernel does not know of these bytes */
    else
        io_rest(leg->io);
}

bool leg_has_unsent(const struct leg *leg)
{
    return leg_is_alive(leg) && (ssh_get_status(leg->ssh) & SSH_WRITE_PENDING);
}

uint32_t leg_room(const struct leg *leg)
{
    return leg->state != LEG_UP || leg->unsent >= LEG_BUDGET ? 0 : LEG_BUDGET - leg->unsent;
}

/*
 * Is no keep-alive's answer awaited (any more)? libssh keeps one global request at a time, tells
 * nobody whether that of a keep-alive was answered, and any other call for a global request sends
 * nothing while one is under way but returns what became of it: so ask with one.
 */
static bool take_answer(struct leg *leg)
{
    if (leg->is_probing && ssh_channel_cancel_forward(leg->ssh, "", 0) != SSH_AGAIN)
        leg->is_probing = false;
    return !leg->is_probing;
}

bool leg_begin_request(struct leg *leg)
{
    if (leg->state != LEG_UP || leg->is_asking || !take_answer(leg))
        return false;
    leg->is_asking = true;
    return true;
}

void leg_end_request(struct leg *leg)
{
    leg->is_asking = false;
}

bool leg_keepalive(struct leg *leg, uint32_t count)
{
    if (leg->state != LEG_UP || leg->is_lent)
        return true;
    if (leg->io->received != leg->seen_bytes) {
        leg->seen_bytes = leg->io->received;
        leg->unanswered = 0;
        (void)take_answer(leg);
        return true;
    }
    if (leg->unanswered >= count)
        return false;
    leg->unanswered++;
    if (!leg->is_asking && take_answer(leg)) { /* a request that is under way will do as well */
        ssh_send_keepalive(leg->ssh);
        leg->is_probing = true;
    }
    return true;
}

void leg_ask(struct leg *leg)
{
    if (leg->state != LEG_UP)
        return;
    leg->asked_bytes = leg->io->received;
    if (!leg->is_asking && take_answer(leg)) {
        ssh_send_keepalive(leg->ssh);
        leg->is_probing = true;
    }
    leg_settle(leg);
}

bool leg_has_answered(const struct leg *leg)
{
    return leg->state != LEG_UP || leg->io->received != leg->asked_bytes;
}

void leg_set_user_timeout(int fd, uint32_t ms)
{
    if (fd >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms));
}

void leg_disconnect(struct leg *leg, const char *text)
{
    if (leg_is_alive(leg)) {
        leg_settle(leg); /* only an empty output buffer lets the message out at once */
        if (leg_is_alive(leg)) {
            (void)ssh_session_set_disconnect_message(leg->ssh, text);
            ssh_disconnect(leg->ssh);
            (void)shutdown(leg->fd, SHUT_WR);
        }
    }
    if (leg->state == LEG_NONE || leg->state == LEG_CLOSED || leg->state == LEG_DEAD)
        return;
    leg->state = LEG_DEAD;
    event_del(leg->writable);
    leg->is_writable_armed = false;
}

bool leg_drain(struct leg *leg)
{
    char waste[4096];
    ssize_t n = 0;

    if (leg->state != LEG_DEAD || leg->fd < 0)
        return true;
    for (int i = 0; i < 64; i++) {
        n = recvfrom(leg->fd, waste, sizeof(waste), MSG_DONTWAIT, NULL, NULL);
        if (n <= 0)
            break;
    }
    return n == 0;
}

void leg_close(struct leg *leg)
{
    if (leg->state == LEG_CLOSED)
        return;
    if (leg->readable)
        event_free(leg->readable);
    if (leg->writable)
        event_free(leg->writable);
    if (leg->ssh) {
        if (leg->poll)
            (void)ssh_event_remove_session(leg->poll, leg->ssh);
        if (ssh_get_fd(leg->ssh) >= 0)
            leg->fd = -1; /* ssh_free() closes it */
        ssh_free(leg->ssh);
    }
    if (leg->poll)
        ssh_event_free(leg->poll);
    io_detach(leg->io);
    if (leg->fd >= 0)
        close(leg->fd);
    *leg = (struct leg){.state = LEG_CLOSED, .fd = -1};
}
