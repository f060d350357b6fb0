/*
 * Sockets below libssh: 256 KiB reads, one send() a turn, no poll() system calls, and no EAGAIN
 * that libssh would take for a broken connection. Stock libssh reads 4 KiB a poll() and recv()
 * pair, which costs a relay a third of its CPU. The program defines recv(), send() and poll(), so
 * that libssh.so resolves to these; descriptors that were not attached go straight to the system.
 *
 * A buffer exists only while it holds bytes, so that an idle relay holds none. One thread.
 */
#ifndef SSH_IO_H
#define SSH_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct io {
    int fd;        /* -1: the slot is free */
    int error;     /* errno of a failed read, reported once the buffer is empty */
    uint8_t *data; /* NULL while nothing is buffered */
    uint32_t start, len;
    uint32_t portion; /* recv() returns no more than this at a time; 0: no such limit */
    bool may_read;    /* set only while its owner wants packets: writes never dispatch reads */
    bool is_drained;  /* the kernel had nothing more; cleared by io_readable() */
    bool is_eof;
    bool is_corked;  /* what libssh writes waits in its buffer, for one send() at the turn's end */
    bool is_blocked; /* the kernel took less than it was given; cleared by io_writable() */
    uint64_t received; /* raw bytes */
};

/* NULL when all slots are taken. The descriptor is borrowed. */
struct io *io_attach(int fd);
/* Also right after libssh closed the descriptor. NULL is fine. */
void io_detach(struct io *io);

/* The event loop saw the descriptor ready. */
void io_readable(struct io *io);
void io_writable(struct io *io);
/* While corked nothing is written and libssh sees a socket that is not ready. */
void io_cork(struct io *io, bool is_corked);

/* One descriptor whose bytes come from and go to somebody else, as if it were a socket: read may
 * take its time, write returns less than 0 and sets errno. Copied; NULL ends it. */
struct io_diversion {
    int fd;
    ssize_t (*read)(void *arg, void *dst, size_t len);
    ssize_t (*write)(void *arg, const void *data, size_t len);
    void *arg;
};
void io_divert(const struct io_diversion *to);

bool io_has_input(const struct io *io); /* bytes or an end are buffered, without a system call */
void io_rest(struct io *io);            /* give an empty buffer back */

#endif
