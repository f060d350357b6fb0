/* Messages of sallyport-nla with the broker and with a relay; see nla_talk.h. Called by all three.
 */
#include <sallyport/nla_talk.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/cursor.h>
#include <sallyport/secret.h>

#define FDS 2

static void put_text(struct buffer *out, const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    if (len == cap)
        out->failed = true;
    buffer_put_be(out, len, 2);
    buffer_put(out, text, len);
}

void nla_talk_encode(const struct nla_talk *m, struct buffer *out)
{
    buffer_put_be(out, m->type, 1);
    put_text(out, m->user, sizeof(m->user));
    put_text(out, m->domain, sizeof(m->domain));
    put_text(out, m->password, sizeof(m->password));
    put_text(out, m->text, sizeof(m->text));
    if (m->data_len > sizeof(m->data))
        out->failed = true;
    else
        buffer_put(out, m->data, m->data_len);
}

static bool get_text(struct cursor *c, char *dst, size_t cap)
{
    const uint8_t *data;
    uint16_t len;

    if (!cursor_be16(c, &len) || len >= cap || !cursor_take(c, len, &data) || memchr(data, 0, len))
        return false;
    memcpy(dst, data, len);
    dst[len] = '\0';
    return true;
}

/* The data is what is left. */
int nla_talk_decode(struct nla_talk *m, const uint8_t *data, size_t len)
{
    struct cursor c = cursor_of(data, len);

    memset(m, 0, sizeof(*m));
    if (cursor_u8(&c, &m->type) && m->type >= NLA_TALK_START && m->type < NLA_TALK_TYPES &&
        get_text(&c, m->user, sizeof(m->user)) && get_text(&c, m->domain, sizeof(m->domain)) &&
        get_text(&c, m->password, sizeof(m->password)) && get_text(&c, m->text, sizeof(m->text)) &&
        cursor_left(&c) <= sizeof(m->data)) {
        m->data_len = (uint16_t)cursor_left(&c);
        memcpy(m->data, c.at, m->data_len);
        return 0;
    }
    memory_wipe(m, sizeof(*m));
    return ERR_INVALID;
}

union some_fds {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(FDS * sizeof(int))];
};

static int error_of(int err)
{
    if (err == EAGAIN || err == ENOBUFS)
        return ERR_AGAIN;
    return err == EPIPE || err == ECONNRESET || err == ENOTCONN ? ERR_CLOSED : ERR_SYSTEM;
}

int nla_talk_send(int sock, const struct nla_talk *m, const int *fds)
{
    union some_fds control = {.space = {0}};
    struct buffer b;
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    bool has_failed;
    ssize_t n = -1;

    buffer_init_secret(&b, NLA_TALK_MAX);
    nla_talk_encode(m, &b);
    if (fds) {
        struct cmsghdr *head;

        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(FDS * sizeof(int));
        memcpy(CMSG_DATA(head), fds, FDS * sizeof(int));
    }
    iov = (struct iovec){b.data, b.len};
    has_failed = b.failed;
    while (!has_failed && (n = sendmsg(sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    buffer_finish(&b);
    if (has_failed)
        return ERR_INVALID;
    return n < 0 ? error_of(errno) : 0;
}

static void drop(int fds[FDS])
{
    for (size_t i = 0; i < FDS; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static void take_fds(struct msghdr *msg, int fds[FDS])
{
    struct cmsghdr *head = CMSG_FIRSTHDR(msg);
    size_t bytes;

    if (!head || head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
        return;
    bytes = head->cmsg_len - CMSG_LEN(0);
    memcpy(fds, CMSG_DATA(head), bytes < FDS * sizeof(int) ? bytes : FDS * sizeof(int));
}

int nla_talk_receive(int sock, struct nla_talk *m, int *fds)
{
    static uint8_t scratch[NLA_TALK_MAX]; /* as link.c: one thread */
    union some_fds control;
    struct iovec iov = {scratch, sizeof(scratch)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    int got[FDS] = {-1, -1}, r = ERR_INVALID;
    ssize_t n;

    if (fds)
        fds[0] = fds[1] = -1;
    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_of(errno);
    take_fds(&msg, got);
    if (n == 0)
        r = ERR_CLOSED;
    else if (!(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        r = nla_talk_decode(m, scratch, (size_t)n);
    memory_wipe(scratch, (size_t)n);
    if (r < 0 || !fds) {
        drop(got);
    } else {
        fds[0] = got[0];
        fds[1] = got[1];
    }
    return r;
}
