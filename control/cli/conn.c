/*
 * The client's side of control.sock: see conn.h.
 */
#include "control/cli/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/secret.h>
#include <sallyport/text.h>

void conn_error_finish(struct conn_error *e)
{
    free(e->message);
    e->message = NULL;
}

static void error_from_json(struct conn_error *e, const json_t *error)
{
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *message = json_string_value(json_object_get(error, "message"));

    text_copy(e->code, sizeof(e->code), code ? code : "failed");
    e->message = strdup(message ? message : "the daemon gave no reason");
}

/* "fd:3": a connection that was made for us. It serves once: what is closed is not made again. */
static int inherited(const char *path, struct conn_error *e)
{
    uint64_t number;

    if (!text_parse_u64(path + strlen("fd:"), &number) || number > 1023 ||
        fcntl((int)number, F_SETFD, FD_CLOEXEC) < 0) {
        e->system = EBADF;
        return -1;
    }
    return (int)number;
}

static int connect_to(const char *path, struct conn_error *e)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd;

    if (strncmp(path, "fd:", 3) == 0)
        return inherited(path, e);
    if (!text_copy(address.sun_path, sizeof(address.sun_path), path)) {
        e->system = ENAMETOOLONG;
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        e->system = errno;
        return -1;
    }
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        e->system = errno;
        close(fd);
        return -1;
    }
    return fd;
}

static int read_hello(struct conn *c, int timeout_ms, struct conn_error *e)
{
    json_t *line = NULL;
    const json_t *error;
    int rc = conn_read(c, timeout_ms, &line);

    if (rc < 0)
        return rc;
    error = json_object_get(line, "error");
    if (error) {
        error_from_json(e, error);
        json_decref(line);
        return ERR_DENIED;
    }
    if (!json_object_get(line, "hello") || json_integer_value(json_object_get(line, "v")) != 1) {
        json_decref(line);
        return ERR_VERSION;
    }
    c->hello = line;
    return 0;
}

int conn_open(struct conn *c, const char *path, int timeout_ms, struct conn_error *e)
{
    int rc;

    memset(c, 0, sizeof(*c));
    memset(e, 0, sizeof(*e));
    buffer_init(&c->in, CONN_LINE_MAX);
    c->fd = connect_to(path, e);
    if (c->fd < 0)
        return ERR_SYSTEM;
    rc = read_hello(c, timeout_ms, e);
    if (rc < 0)
        conn_close(c);
    return rc;
}

void conn_close(struct conn *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    while (c->fd_count > 0)
        close(c->fds[--c->fd_count]);
    json_decref(c->hello);
    c->hello = NULL;
    buffer_finish(&c->in);
}

static int send_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_CLOSED;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

int conn_send(struct conn *c, const char *command, json_t *args, int64_t *id)
{
    json_t *request =
        json_pack("{s:i,s:I,s:s}", "v", 1, "id", (json_int_t)(c->last_id + 1), "command", command);
    char *text = NULL;
    size_t len;
    int rc = ERR_MEMORY;

    if (args && request && json_object_set(request, "args", args) < 0)
        goto out;
    if (request)
        text = json_dumps(request, JSON_COMPACT);
    if (!text)
        goto out;
    *id = ++c->last_id;
    len = strlen(text);
    text[len] = '\n'; /* in place of the NUL: the line is sent by its length */
    rc = send_all(c->fd, text, len + 1);
    memory_wipe(text, len); /* may hold a password */
out:
    free(text);
    json_decref(request);
    json_decref(args);
    return rc;
}

/* Bytes up to the next line end, or -1. Looks at each byte once. */
static ssize_t line_length(struct conn *c)
{
    const uint8_t *end;

    if (c->scanned >= c->in.len)
        return -1;
    end = memchr(c->in.data + c->scanned, '\n', c->in.len - c->scanned);
    if (!end) {
        c->scanned = c->in.len;
        return -1;
    }
    return end - c->in.data;
}

int conn_take_fd(struct conn *c)
{
    int fd;

    if (c->fd_count == 0)
        return -1;
    fd = c->fds[0];
    memmove(c->fds, c->fds + 1, --c->fd_count * sizeof(c->fds[0]));
    return fd;
}

/* More than was asked for is closed. */
static void keep_fds(struct conn *c, struct msghdr *m)
{
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (c->fd_count < CONN_FDS_MAX)
                c->fds[c->fd_count++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t receive(struct conn *c, void *data, size_t len)
{
    union {
        struct cmsghdr align;
        char data[CMSG_SPACE(sizeof(int) * CONN_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = data, .iov_len = len};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control.data,
                       .msg_controllen = sizeof(control.data)};
    ssize_t n = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);

    if (n > 0)
        keep_fds(c, &m);
    return n;
}

static int fill(struct conn *c, int timeout_ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    uint8_t chunk[65536];
    ssize_t n;
    int ready = poll(&p, 1, timeout_ms);

    if (ready < 0)
        return errno == EINTR ? ERR_AGAIN : ERR_CLOSED;
    if (ready == 0)
        return ERR_AGAIN;
    n = receive(c, chunk, sizeof(chunk));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return ERR_AGAIN;
    if (n <= 0)
        return ERR_CLOSED;
    buffer_put(&c->in, chunk, (size_t)n);
    return c->in.failed ? ERR_CORRUPT : 0;
}

int conn_read(struct conn *c, int timeout_ms, json_t **line)
{
    int64_t until = clock_mono_ms() + timeout_ms;
    ssize_t len;

    while ((len = line_length(c)) < 0) {
        int64_t left = timeout_ms < 0 ? -1 : until - clock_mono_ms();
        int rc = timeout_ms >= 0 && left < 0 ? ERR_AGAIN : fill(c, (int)left);
        if (rc < 0)
            return rc;
    }
    *line = json_loadb((const char *)c->in.data, (size_t)len, 0, NULL);
    buffer_consume(&c->in, (size_t)len + 1);
    c->scanned = 0;
    if (!json_is_object(*line)) {
        json_decref(*line);
        return ERR_CORRUPT;
    }
    return 0;
}

/* One line of the reply into *reply: 1 more to come, 0 done, negative on error. */
static int reply_line(const json_t *line, int64_t id, json_t **reply, struct conn_error *e)
{
    const json_t *error = json_object_get(line, "error");
    const json_t *of = json_object_get(line, "id");
    json_t *rows = json_object_get(line, "rows");
    json_t *data = json_object_get(line, "data");

    if (error && (json_is_null(of) || json_integer_value(of) == id)) {
        error_from_json(e, error);
        return ERR_INVALID;
    }
    if (!json_is_integer(of) || json_integer_value(of) != id || json_object_get(line, "event"))
        return 1;
    if (rows) {
        if (!*reply)
            *reply = json_array();
        if (!*reply || json_array_extend(*reply, rows) < 0 ||
            json_array_size(*reply) > CONN_ROWS_MAX)
            return ERR_MEMORY;
    } else if (data) {
        json_decref(*reply);
        *reply = json_incref(data);
    }
    return json_is_true(json_object_get(line, "ok")) ? 0 : 1;
}

/* Lines until the reply is whole (0), or, when pages are wanted, has rows (1). */
static int read_lines(struct conn *c, int64_t id, bool is_paged, json_t **reply,
                      struct conn_error *e)
{
    int rc;

    *reply = NULL;
    memset(e, 0, sizeof(*e));
    do {
        json_t *line = NULL;
        rc = conn_read(c, -1, &line);
        if (rc == ERR_AGAIN) {
            rc = 1;
            continue;
        }
        if (rc == 0) {
            rc = reply_line(line, id, reply, e);
            json_decref(line);
        }
    } while (rc > 0 && !(is_paged && *reply));
    if (rc == 0 && !*reply)
        *reply = json_object();
    return rc;
}

int conn_reply(struct conn *c, int64_t id, json_t **reply, struct conn_error *e)
{
    return read_lines(c, id, false, reply, e);
}

int conn_page(struct conn *c, int64_t id, json_t **reply, struct conn_error *e)
{
    return read_lines(c, id, true, reply, e);
}
