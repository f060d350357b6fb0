/*
 * The rehearsal of warm.h: both ends of one connection over a socket pair, with the algorithms that
 * relays use, up to the end of the key exchange. Called once by the gate, before it enters its
 * root, while files can still be read.
 */
#include "proxy/ssh/warm.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/ssh/algorithms.h"

#define STEPS_MAX 200

struct rehearsal {
    ssh_session server, client;
    int fds[2];
};

static int set_up(struct rehearsal *r, ssh_bind bind)
{
    int no = 0;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, r->fds) < 0)
        return -1;
    r->server = ssh_new();
    r->client = ssh_new();
    if (!r->server || !r->client)
        return -1;
    ssh_set_blocking(r->server, 0);
    ssh_set_blocking(r->client, 0);
    if (ssh_options_set(r->client, SSH_OPTIONS_PROCESS_CONFIG, &no) != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_HOST, "warm") != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_USER, "warm") != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_SSH_DIR, "/") != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_KNOWNHOSTS, "/dev/null") != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_GLOBAL_KNOWNHOSTS, "/dev/null") != SSH_OK ||
        ssh_options_set(r->client, SSH_OPTIONS_FD, &r->fds[1]) != SSH_OK ||
        algorithms_set_client(r->client, "") != 0)
        return -1;
    return ssh_bind_accept_fd(bind, r->server, r->fds[0]) == SSH_OK ? 0 : -1;
}

static void play(struct rehearsal *r)
{
    int a = SSH_AGAIN, b = SSH_AGAIN;

    for (int i = 0; i < STEPS_MAX && (a == SSH_AGAIN || b == SSH_AGAIN); i++) {
        if (a == SSH_AGAIN)
            a = ssh_handle_key_exchange(r->server);
        if (b == SSH_AGAIN)
            b = ssh_connect(r->client);
        if (a == SSH_ERROR || b == SSH_ERROR)
            return;
    }
}

void warm_up(ssh_bind bind)
{
    struct rehearsal r = {.fds = {-1, -1}};

    if (set_up(&r, bind) == 0)
        play(&r);
    for (int i = 0; i < 2; i++) { /* libssh closes a descriptor that it was given in the end */
        ssh_session s = i == 0 ? r.server : r.client;

        if (s && ssh_get_fd(s) == r.fds[i])
            r.fds[i] = -1;
        ssh_free(s);
        if (r.fds[i] >= 0)
            close(r.fds[i]);
    }
}
