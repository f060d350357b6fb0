/* Messages between the broker and sallyport-pam; see pam_talk.h. Called by both. */
#include <sallyport/pam_talk.h>

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/cursor.h>
#include <sallyport/secret.h>

static void put_text(struct buffer *out, const char *text, size_t cap)
{
    size_t len = strnlen(text, cap);

    if (len == cap)
        out->failed = true;
    buffer_put_be(out, len, 2);
    buffer_put(out, text, len);
}

void pam_talk_encode(const struct pam_talk *m, struct buffer *out)
{
    buffer_put_be(out, m->type, 1);
    buffer_put_be(out, m->flag, 1);
    put_text(out, m->service, sizeof(m->service));
    put_text(out, m->user, sizeof(m->user));
    put_text(out, m->source, sizeof(m->source));
    put_text(out, m->text, sizeof(m->text));
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

int pam_talk_decode(struct pam_talk *m, const uint8_t *data, size_t len)
{
    struct cursor c = cursor_of(data, len);

    memset(m, 0, sizeof(*m));
    if (cursor_u8(&c, &m->type) && m->type >= PAM_TALK_START && m->type < PAM_TALK_TYPES &&
        cursor_u8(&c, &m->flag) && m->flag <= 1 && get_text(&c, m->service, sizeof(m->service)) &&
        get_text(&c, m->user, sizeof(m->user)) && get_text(&c, m->source, sizeof(m->source)) &&
        get_text(&c, m->text, sizeof(m->text)) && cursor_at_end(&c))
        return 0;
    memory_wipe(m, sizeof(*m));
    return ERR_INVALID;
}

union one_fd {
    struct cmsghdr align;
    uint8_t space[CMSG_SPACE(sizeof(int))];
};

static int error_of(int err)
{
    if (err == EAGAIN || err == ENOBUFS)
        return ERR_AGAIN;
    return err == EPIPE || err == ECONNRESET || err == ENOTCONN ? ERR_CLOSED : ERR_SYSTEM;
}

int pam_talk_send(int sock, const struct pam_talk *m, int fd)
{
    union one_fd control = {.space = {0}};
    struct buffer b;
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n = -1;

    buffer_init_secret(&b, PAM_TALK_MAX);
    pam_talk_encode(m, &b);
    if (fd >= 0) {
        struct cmsghdr *head;

        msg.msg_control = control.space;
        msg.msg_controllen = sizeof(control.space);
        head = CMSG_FIRSTHDR(&msg);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(head), &fd, sizeof(fd));
    }
    errno = EINVAL;
    iov = (struct iovec){b.data, b.len};
    while (!b.failed && (n = sendmsg(sock, &msg, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    buffer_finish(&b);
    return n < 0 ? error_of(errno) : 0;
}

/* The one descriptor, when one came. */
static int take_fd(struct msghdr *msg)
{
    struct cmsghdr *head = CMSG_FIRSTHDR(msg);
    int fd = -1;

    if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS &&
        head->cmsg_len == CMSG_LEN(sizeof(fd)))
        memcpy(&fd, CMSG_DATA(head), sizeof(fd));
    return fd;
}

int pam_talk_receive(int sock, struct pam_talk *m, int *fd)
{
    uint8_t scratch[PAM_TALK_MAX];
    union one_fd control;
    struct iovec iov = {scratch, sizeof(scratch)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    int got, r = ERR_INVALID;
    ssize_t n;

    if (fd)
        *fd = -1;
    do
        n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_of(errno);
    got = take_fd(&msg);
    if (n == 0)
        r = ERR_CLOSED;
    else if (!(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        r = pam_talk_decode(m, scratch, (size_t)n);
    memory_wipe(scratch, sizeof(scratch));
    if (got >= 0 && (r < 0 || !fd))
        close(got);
    else if (got >= 0)
        *fd = got;
    return r;
}
