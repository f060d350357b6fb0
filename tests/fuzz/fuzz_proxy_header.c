/* The PROXY protocol's header: never past its end, and the same however much follows it. */
#include <stdlib.h>
#include <string.h>

#include "proxy/gate/proxy_header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor c = cursor_of(data, size), again;
    struct proxy_header h, other;
    size_t used;

    if (proxy_header_parse(&c, &h) != PARSE_OK)
        return 0;
    used = (size_t)(c.at - data);
    if (used > size || used == 0)
        abort();
    again = cursor_of(data, used);
    if (proxy_header_parse(&again, &other) != PARSE_OK || memcmp(&h, &other, sizeof(h)) != 0)
        abort();
    again = cursor_of(data, used - 1);
    if (proxy_header_parse(&again, &other) == PARSE_OK)
        abort();
    return 0;
}
