/* A user certificate from a stranger: whatever it is, reading and judging it stays inside; what is
 * signed was read before; what lets in names the principal that was asked for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/broker/user_cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static bool is_inside(const struct cursor *c, const uint8_t *data, size_t len)
{
    return c->at >= data && c->end <= data + len && c->at <= c->end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const addresses[] = {"10.1.2.3", "2001:db8::7", "127.0.0.1"};
    struct user_cert c;
    char text[256];

    if (user_cert_parse(data, len, &c) < 0)
        return 0;
    require(user_cert_is(data, len));
    require(is_inside(&c.key_id, data, len) && is_inside(&c.principals, data, len) &&
            is_inside(&c.options, data, len) && is_inside(&c.ca, data, len) &&
            is_inside(&c.signature, data, len) && is_inside(&c.signed_part, data, len));
    require(!user_cert_is_signed(&c, data, len)); /* no certificate is a CA */
    (void)!user_cert_is_signed(&c, c.ca.at, cursor_left(&c.ca));
    user_cert_describe(&c, text, sizeof(text));
    require(strlen(text) < sizeof(text));
    for (size_t i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++) {
        if (!user_cert_refusal(&c, "alice", addresses[i], 1800000000, text, sizeof(text)))
            require(c.kind == 1 && memmem(c.principals.at, cursor_left(&c.principals), "alice", 5));
        require(user_cert_refusal(&c, "", addresses[i], 1800000000, text, sizeof(text)) == text);
    }
    return 0;
}
