/* One datagram of the link: whatever decodes must encode to the very same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct link_message m;
    struct buffer b;

    memset(&m, 0xaa, sizeof(m));
    if (link_decode(&m, data, len) < 0)
        return 0;
    buffer_init(&b, LINK_MESSAGE_MAX);
    link_encode(&m, m.version, &b);
    if (b.failed || b.len != len || memcmp(b.data, data, len) != 0)
        abort();
    buffer_finish(&b);
    return 0;
}
