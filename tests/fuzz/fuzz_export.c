/*
 * sallyport-export before its decoder. The first byte chooses: an index file, or what a TARGET
 * record holds, on its way through the server's end of the decoder's connection. The decoder is
 * played here, and is always ready.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tracker/export/index.h"
#include "tracker/export/server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define SCREEN_MAX (1u << 20) /* larger pictures only cost time here */

bool decoder_is_ready(const struct decoder *d)
{
    (void)d;
    return true;
}

bool decoder_has_failed(const struct decoder *d)
{
    (void)d;
    return false;
}

static void fuzz_index(struct cursor file)
{
    static const struct index_identity identity = {.length = 4711, .tail = {1, 2, 3}};
    struct shot s = {NULL, 0, 0, 0};
    struct cursor c = file;
    struct index_key key;
    struct index_end end;
    uint64_t at_us = 0;
    int r;

    if (index_head(&c, &identity) != PARSE_OK)
        return;
    while (index_next(&c, &key, &end) == PARSE_OK)
        if ((uint64_t)key.width * key.height > SCREEN_MAX)
            return;
    if (index_longest(file, &identity, &at_us) < 0)
        at_us = 12000000;
    r = index_find(file, &identity, at_us, &s, &key);
    if (r == 0 && (key.at_us > at_us || s.width != key.width || !s.pixels))
        abort();
    shot_finish(&s);
}

static void fuzz_target(struct cursor pdus)
{
    static const struct desktop_channels channels = {
        .user = 1007, .io = 1003, .count = 1, .list = {{.number = 1005, .name = "drdynvc"}}};
    int pair[2];
    struct server *s;
    int r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    s = server_create(pair[0], NULL, &channels);
    if (!s)
        abort();
    /* what is written stays in the socket: it is less than that holds */
    r = server_feed(s, pdus);
    if (r > 0)
        abort();
    (void)server_can_sync(s);
    server_destroy(s);
    close(pair[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct cursor c;

    if (len == 0 || len > 65536)
        return 0;
    c = cursor_of(data + 1, len - 1);
    if (data[0] & 1)
        fuzz_target(c);
    else
        fuzz_index(c);
    return 0;
}
