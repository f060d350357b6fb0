/*
 * recv(), send() and poll() as libssh sees them; io.h says why. Called by libssh for the two legs
 * and, through the linker, by anything else in the program that uses these names: those calls are
 * passed on unchanged.
 */
#undef _FORTIFY_SOURCE /* its inline wrappers have the names that are defined here */

#include "proxy/ssh/io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define IO_BUFFER 262144u
#define IO_SLOTS  8 /* the user, the target and the servers on the way */

static struct io slots[IO_SLOTS] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1},
                                    {.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
static struct io_diversion diversion = {.fd = -1};

static struct io *find(int fd)
{
    for (size_t i = 0; i < IO_SLOTS; i++) {
        if (slots[i].fd == fd && fd >= 0)
            return &slots[i];
    }
    return NULL;
}

struct io *io_attach(int fd)
{
    for (size_t i = 0; i < IO_SLOTS; i++) {
        if (slots[i].fd < 0) {
            slots[i] = (struct io){.fd = fd};
            return &slots[i];
        }
    }
    return NULL;
}

void io_detach(struct io *io)
{
    if (!io)
        return;
    free(io->data);
    *io = (struct io){.fd = -1};
}

void io_divert(const struct io_diversion *to)
{
    diversion = to ? *to : (struct io_diversion){.fd = -1};
}

void io_readable(struct io *io)
{
    io->is_drained = false;
}

void io_cork(struct io *io, bool is_corked)
{
    io->is_corked = is_corked;
}

void io_writable(struct io *io)
{
    io->is_blocked = false;
}

bool io_has_input(const struct io *io)
{
    return io->len > 0 || io->is_eof || io->error != 0;
}

void io_rest(struct io *io)
{
    if (io->len > 0 || !io->data)
        return;
    free(io->data);
    io->data = NULL;
}

/* True when recv() has something to return. A short read means that the kernel has no more; epoll
 * is level triggered, so nothing is lost by not asking again. */
static bool fill(struct io *io)
{
    ssize_t n;

    if (io_has_input(io))
        return true;
    if (io->is_drained)
        return false;
    if (!io->data && !(io->data = malloc(IO_BUFFER))) {
        io->error = ENOMEM;
        return true;
    }
    do {
        n = recvfrom(io->fd, io->data, IO_BUFFER, MSG_DONTWAIT, NULL, NULL);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN) {
        io->is_drained = true;
        return false;
    }
    if (n < 0)
        io->error = errno;
    else if (n == 0)
        io->is_eof = true;
    else
        io->received += (uint64_t)n;
    io->start = 0;
    io->len = n > 0 ? (uint32_t)n : 0;
    io->is_drained = io->len < IO_BUFFER;
    return true;
}

static short ready_events(struct io *io, short events)
{
    short ready = 0;

    if ((events & POLLIN) && io->may_read && fill(io))
        ready = POLLIN;
    if ((events & POLLOUT) && !io->is_blocked && !io->is_corked)
        ready = (short)(ready | POLLOUT);
    return ready;
}

static int poll_system(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct timespec ts = {timeout_ms / 1000, timeout_ms % 1000 * 1000000L};

    return ppoll(fds, count, timeout_ms < 0 ? NULL : &ts, NULL);
}

#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* the system's header says "write only" */
#endif
int poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    struct io *io = count == 1 ? find(fds[0].fd) : NULL;

    if (!io)
        return poll_system(fds, count, timeout_ms);
    fds[0].revents = ready_events(io, fds[0].events);
    if (fds[0].revents != 0)
        return 1;
    return timeout_ms == 0 ? 0 : poll_system(fds, count, timeout_ms);
}
#pragma GCC diagnostic pop

ssize_t recv(int fd, void *dst, size_t len, int flags)
{
    struct io *io = find(fd);
    size_t n;

    if (!io && fd >= 0 && fd == diversion.fd)
        return diversion.read(diversion.arg, dst, len);
    if (!io)
        return recvfrom(fd, dst, len, flags, NULL, NULL);
    if (!fill(io)) {
        errno = EAGAIN;
        return -1;
    }
    if (io->len > 0) {
        n = len < io->len ? len : io->len;
        n = io->portion > 0 && n > io->portion ? io->portion : n;
        memcpy(dst, io->data + io->start, n);
        io->start += (uint32_t)n;
        io->len -= (uint32_t)n;
        return (ssize_t)n;
    }
    if (io->error != 0) {
        errno = io->error;
        return -1;
    }
    return 0;
}

/* libssh treats 0 as "nothing yet, ask again when writable", and EAGAIN as the end. */
ssize_t send(int fd, const void *data, size_t len, int flags)
{
    struct io *io = find(fd);
    ssize_t n;

    if (!io && fd >= 0 && fd == diversion.fd)
        return diversion.write(diversion.arg, data, len);
    if (!io)
        return sendto(fd, data, len, flags, NULL, 0);
    if (io->is_corked)
        return 0;
    do {
        n = sendto(fd, data, len, flags | MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        n = 0;
    if (n >= 0 && (size_t)n < len)
        io->is_blocked = true;
    return n;
}
