/* Server Redirection, its certificate, and reconnect cookies of both sides. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/rdp/redirection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void strip(const uint8_t *data, size_t len)
{
    struct client_info info;
    uint8_t hash[LINK_COOKIE], *copy = malloc(len ? len : 1);
    size_t left;

    assert(copy);
    memcpy(copy, data, len);
    if (client_info_parse(cursor_of(copy, len), &info) == PARSE_OK) {
        (void)!arc_shown(&info, hash);
        left = arc_strip(copy, len, &info);
        assert(left <= len);
        assert(client_info_parse(cursor_of(copy, left), &info) == PARSE_OK);
        assert(!arc_shown(&info, hash));
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t der[REDIRECTION_CERT_MAX];
    struct redirection r;
    uint8_t hash[LINK_COOKIE];

    if (redirection_parse(cursor_of(data, len), &r) == PARSE_OK) {
        assert(strlen(r.token) <= X224_TOKEN_MAX && strlen(r.host) < sizeof(r.host));
        assert(redirection_certificate(r.certificate, der) <= sizeof(der));
    }
    (void)!arc_given(cursor_of(data, len), hash);
    strip(data, len);
    return 0;
}
