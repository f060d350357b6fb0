/*
 * The client's side of control.sock (control/PROTOCOL.md): connect, send a request, read lines.
 * Blocking; the daemon's lines are bounded. Prints nothing: cli.c tells the user.
 */
#ifndef CONTROL_CLI_CONN_H
#define CONTROL_CLI_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

#define CONN_LINE_MAX (16 * 1024 * 1024)
#define CONN_ROWS_MAX 1000000
#define CONN_HELLO_MS 10000
#define CONN_FDS_MAX  2

struct conn {
    int fd;
    struct buffer in;
    size_t scanned; /* bytes of `in` known to hold no line end */
    json_t *hello;
    int64_t last_id;
    int fds[CONN_FDS_MAX]; /* descriptors that came and nobody took yet; owned */
    size_t fd_count;
};

/* Why something failed: the protocol's code ("" when the daemon said nothing) and a sentence. */
struct conn_error {
    char code[32];
    char *message; /* owned; may be several lines; NULL: none */
    int system;    /* errno of a failed connect, 0 otherwise */
};

void conn_error_finish(struct conn_error *e);

/* Connect to a socket's path, or take the connected descriptor of "fd:N", and read the greeting
 * within timeout_ms. 0, or negative with e filled: ERR_SYSTEM (see
 * e->system), ERR_DENIED, ERR_CLOSED, ERR_AGAIN (no answer in time), ERR_VERSION. */
MUST_CHECK int conn_open(struct conn *c, const char *path, int timeout_ms, struct conn_error *e);
void conn_close(struct conn *c);

/* The oldest descriptor that came beside a reply, the caller's from here; -1: there is none. */
int conn_take_fd(struct conn *c);

/* args is taken, also on failure; NULL for none. *id is the request's number. */
MUST_CHECK int conn_send(struct conn *c, const char *command, json_t *args, int64_t *id);

/* The next line as an object (a new reference) within timeout_ms (-1: for ever). 0, ERR_AGAIN,
 * ERR_CLOSED or ERR_CORRUPT. A signal returns ERR_AGAIN early. */
MUST_CHECK int conn_read(struct conn *c, int timeout_ms, json_t **line);

/*
 * Read the reply to request `id`, its pages put together: *reply is rows (an array) or data. Lines
 * of other requests are skipped. 0, or negative with e filled when the daemon refused (e->code) or
 * went away; *reply then holds the rows that came before, or NULL.
 */
MUST_CHECK int conn_reply(struct conn *c, int64_t id, json_t **reply, struct conn_error *e);
/* The same, page by page, for what is too long to hold: 1 when *reply has rows and more follow. */
MUST_CHECK int conn_page(struct conn *c, int64_t id, json_t **reply, struct conn_error *e);

#endif
