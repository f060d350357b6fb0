/*
 * Fast-path output, 2.2.9.1.2.1: only whether a fragmented update is open after a PDU, because
 * nothing of ours may stand between its fragments.
 */
#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define FRAGMENT_FIRST   2
#define FRAGMENT_NEXT    3
#define COMPRESSION_USED 0x80

enum parse fastpath_output_scan(struct cursor body, bool *is_open)
{
    uint8_t head, compression;
    uint16_t size;

    while (!cursor_at_end(&body)) {
        if (!cursor_u8(&body, &head) ||
            (head & COMPRESSION_USED && !cursor_u8(&body, &compression)) ||
            !cursor_le16(&body, &size) || !cursor_skip(&body, size))
            return PARSE_BAD;
        *is_open = (head >> 4 & 3) == FRAGMENT_FIRST || (head >> 4 & 3) == FRAGMENT_NEXT;
    }
    return PARSE_OK;
}
