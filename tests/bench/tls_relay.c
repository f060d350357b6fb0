/*
 * The measure for what a relay between two TLS connections costs: decrypt here, encrypt there, and
 * nothing else. One process and one loop for all its connections, libevent and OpenSSL without
 * waiting, a record is sent on from the memory into which it was decrypted. It lets the X.224
 * negotiation of RDP through, behind which TLS begins on both sides, with the TLS that a relay of
 * Sallyport has: 1.3 where both can, no tickets, read-ahead. For tests/bench/rdp.py.
 *
 *     tls_relay PORT TARGET_PORT CERTIFICATE KEY      (loopback only)
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RECORD   16384
#define TPKT_MAX 512

struct side {
    struct pair *pair;
    struct side *other;
    int fd;
    SSL *ssl;
    bool is_up, is_waiting; /* for the other side to take what is in `data` */
    struct event *readable, *writable;
    size_t start, len; /* of what came here and did not go on yet */
    unsigned char data[RECORD];
};

struct pair {
    struct side client, target;
};

static struct event_base *base;
static SSL_CTX *server_ctx, *client_ctx;
static unsigned short target_port;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void finish_side(struct side *s)
{
    event_free(s->readable);
    event_free(s->writable);
    SSL_free(s->ssl);
    close(s->fd);
}

static void finish(struct pair *p)
{
    finish_side(&p->client);
    finish_side(&p->target);
    free(p);
}

/* True when it is only to wait; then the loop wakes us. */
static bool waits(struct side *s, int r)
{
    switch (SSL_get_error(s->ssl, r)) {
    case SSL_ERROR_WANT_READ:
        return true;
    case SSL_ERROR_WANT_WRITE:
        event_add(s->writable, NULL);
        return true;
    default:
        ERR_clear_error();
        return false;
    }
}

/* Send on what `from` holds; false when the connection is over. */
static bool send_on(struct side *from)
{
    struct side *to = from->other;

    while (from->len > 0) {
        int n = SSL_write(to->ssl, from->data + from->start, (int)from->len);

        if (n <= 0) {
            from->is_waiting = true;
            event_del(from->readable);
            event_add(to->writable, NULL);
            return waits(to, n);
        }
        from->start += (size_t)n;
        from->len -= (size_t)n;
    }
    from->start = 0;
    if (from->is_waiting) {
        from->is_waiting = false;
        event_add(from->readable, NULL);
    }
    return true;
}

/* Records as long as there are any and the other side takes them. */
static bool pass(struct side *from)
{
    while (!from->is_waiting) {
        int n = SSL_read(from->ssl, from->data, RECORD);

        if (n <= 0)
            return waits(from, n);
        from->len = (size_t)n;
        if (!send_on(from))
            return false;
    }
    return true;
}

/* What came before the other side was ready lies in the library, which no socket announces. */
static bool shake_hands(struct side *s)
{
    int r = SSL_do_handshake(s->ssl);

    if (r != 1)
        return waits(s, r);
    s->is_up = true;
    return !s->other->is_up || (pass(s) && pass(s->other));
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct side *s = arg;

    (void)fd, (void)what;
    if (!s->is_up ? !shake_hands(s) : s->other->is_up && !pass(s))
        finish(s->pair);
}

static void writable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct side *s = arg;

    (void)fd, (void)what;
    if (!s->is_up ? !shake_hands(s) : !send_on(s->other) || !pass(s->other))
        finish(s->pair);
}

/* ---- a new connection: one TPKT each way, then TLS. Waiting is good enough for that. ---- */

static bool copy_tpkt(int from, int to)
{
    unsigned char tpkt[TPKT_MAX];
    size_t len;

    if (recv(from, tpkt, 4, MSG_WAITALL) != 4)
        return false;
    len = (size_t)tpkt[2] << 8 | tpkt[3];
    return len > 4 && len <= sizeof(tpkt) &&
           recv(from, tpkt + 4, len - 4, MSG_WAITALL) == (ssize_t)(len - 4) &&
           send(to, tpkt, len, MSG_NOSIGNAL) == (ssize_t)len;
}

static int dial(unsigned short port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void init_side(struct side *s, struct side *other, struct pair *p, int fd, SSL_CTX *ctx)
{
    int one = 1;

    s->pair = p;
    s->other = other;
    s->fd = fd;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (!(s->ssl = SSL_new(ctx)) || SSL_set_fd(s->ssl, fd) != 1)
        die("SSL_new");
    s->readable = event_new(base, fd, EV_READ | EV_PERSIST, readable_cb, s);
    s->writable = event_new(base, fd, EV_WRITE, writable_cb, s);
    if (!s->readable || !s->writable)
        die("event_new");
    event_add(s->readable, NULL);
}

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC), target = dial(target_port);
    struct pair *p;

    (void)what, (void)arg;
    if (client < 0 || target < 0 || !copy_tpkt(client, target) || !copy_tpkt(target, client)) {
        if (client >= 0)
            close(client);
        if (target >= 0)
            close(target);
        return;
    }
    if (!(p = calloc(1, sizeof(*p))))
        die("calloc");
    init_side(&p->client, &p->target, p, client, server_ctx);
    init_side(&p->target, &p->client, p, target, client_ctx);
    SSL_set_accept_state(p->client.ssl);
    SSL_set_connect_state(p->target.ssl);
    if (!shake_hands(&p->target))
        finish(p);
}

/* ---- start ---- */

static SSL_CTX *new_context(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    if (!ctx)
        die("SSL_CTX_new");
    SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    return ctx;
}

static int listen_on(unsigned short port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 64) < 0)
        die("listen");
    return fd;
}

int main(int argc, char **argv)
{
    struct event *accepts;

    if (argc != 5) {
        fprintf(stderr, "usage: tls_relay PORT TARGET_PORT CERTIFICATE KEY\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    target_port = (unsigned short)strtoul(argv[2], NULL, 10);
    server_ctx = new_context(TLS_server_method());
    client_ctx = new_context(TLS_client_method());
    if (SSL_CTX_use_certificate_file(server_ctx, argv[3], SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_use_PrivateKey_file(server_ctx, argv[4], SSL_FILETYPE_PEM) != 1)
        die("the certificate");
    if (!(base = event_base_new()))
        die("event_base_new");
    accepts = event_new(base, listen_on((unsigned short)strtoul(argv[1], NULL, 10)),
                        EV_READ | EV_PERSIST, accept_cb, NULL);
    if (!accepts || event_add(accepts, NULL) < 0)
        die("event_new");
    event_base_dispatch(base);
    return 0;
}
