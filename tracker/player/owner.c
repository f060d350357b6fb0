/* See owner.h. */
#include "tracker/player/owner.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TABLE_MAX ((size_t)8 * 1024 * 1024)
#define CHUNK     ((size_t)64 * 1024)

int owner_init(struct owner *o, int listener, uint32_t other)
{
    struct sockaddr_in a;
    socklen_t len = sizeof(a);

    o->own = geteuid();
    o->other = other;
    o->fd = open("/proc/net/tcp", O_RDONLY | O_CLOEXEC);
    if (o->fd < 0 || getsockname(listener, (struct sockaddr *)&a, &len) < 0)
        return ERR_SYSTEM;
    o->port = ntohs(a.sin_port);
    return 0;
}

void owner_finish(struct owner *o)
{
    if (o->fd >= 0)
        close(o->fd);
    o->fd = -1;
}

#define ESTABLISHED 1

/* A line: "  12: 0100007F:A2C4 0100007F:0D3D 01 00000000:00000000 00:00000000 00000000  1000 0 77"
 * with the inode last. One that was closed while it waited here has none, and its owner reads as
 * root. */
bool owner_find(const char *table, const struct sockaddr_in *peer, uint16_t port, uint32_t *uid)
{
    for (const char *line = table; line; line = strchr(line, '\n')) {
        unsigned local_port, remote_port, state;
        unsigned long long inode;
        uint32_t local, remote, found;

        line += *line == '\n';
        if (sscanf(line,
                   " %*u: %8" SCNx32 ":%4x %8" SCNx32 ":%4x %2x %*x:%*x %*x:%*x %*x %" SCNu32
                   " %*u %llu",
                   &local, &local_port, &remote, &remote_port, &state, &found, &inode) == 7 &&
            state == ESTABLISHED && inode != 0 && local == peer->sin_addr.s_addr &&
            local_port == ntohs(peer->sin_port) && remote == htonl(INADDR_LOOPBACK) &&
            remote_port == port) {
            *uid = found;
            return true;
        }
    }
    return false;
}

static char *read_table(int fd)
{
    size_t len = 0, cap = CHUNK;
    char *text = malloc(cap + 1), *grown;
    ssize_t n = 1;

    while (text && (n = read(fd, text + len, cap - len)) > 0) {
        len += (size_t)n;
        if (len < cap)
            continue;
        grown = cap < TABLE_MAX ? realloc(text, 2 * cap + 1) : NULL;
        if (!grown)
            break;
        text = grown;
        cap *= 2;
    }
    if (text)
        text[len] = '\0';
    return text;
}

bool owner_may(const struct owner *o, const struct sockaddr_in *peer, uint32_t *uid)
{
    char *table = lseek(o->fd, 0, SEEK_SET) == 0 ? read_table(o->fd) : NULL;

    *uid = UINT32_MAX;
    if (!table || !owner_find(table, peer, o->port, uid))
        *uid = UINT32_MAX;
    free(table);
    return *uid != UINT32_MAX && (*uid == o->own || *uid == 0 || *uid == o->other);
}
