/*
 * Devices that a client shares through the static channel rdpdr, [MS-RDPEFS] 2.2.2.9: leaves out of
 * its announcement what is not allowed. A device that was never announced is never used.
 */
#include "proxy/rdp/chunks.h"
#include "proxy/rdp/le.h"

#define COMPONENT_CORE  0x4472
#define DEVICE_ANNOUNCE 0x4441
#define DEVICE_HEAD     20 /* type, id, name, length of its data */

/* Copy those that may stay; false when the list is damaged. */
static bool put_devices(struct buffer *b, struct cursor c, uint32_t allowed)
{
    uint32_t count, kept = 0, type, id, len;
    size_t at = b->len;
    const uint8_t *start;

    if (!cursor_le32(&c, &count))
        return false;
    buffer_put_le32(b, 0);
    for (uint32_t i = 0; i < count; i++) {
        start = c.at;
        if (!cursor_le32(&c, &type) || !cursor_le32(&c, &id) || !cursor_skip(&c, 8) ||
            !cursor_le32(&c, &len) || !cursor_skip(&c, len))
            return false;
        if (type & allowed) {
            buffer_put(b, start, DEVICE_HEAD + (size_t)len);
            kept++;
        }
    }
    if (!b->failed)
        put_le32(b->data + at, kept);
    return true;
}

static bool take_head(struct cursor *c, bool *is_announce)
{
    uint16_t component, packet;

    if (!cursor_le16(c, &component) || !cursor_le16(c, &packet))
        return false;
    *is_announce = component == COMPONENT_CORE && packet == DEVICE_ANNOUNCE;
    return true;
}

enum chunks_verdict devices_judge(struct cursor begin, bool is_all)
{
    bool is_announce;

    if (!take_head(&begin, &is_announce)) /* too short to say what it will be */
        return is_all ? CHUNKS_PASS : CHUNKS_DROP;
    return is_announce ? CHUNKS_WHOLE : CHUNKS_PASS;
}

bool devices_filter(struct cursor message, uint32_t allowed, struct buffer *b)
{
    bool is_announce;

    if (!take_head(&message, &is_announce) || !is_announce)
        return false;
    buffer_put_le16(b, COMPONENT_CORE);
    buffer_put_le16(b, DEVICE_ANNOUNCE);
    return put_devices(b, message, allowed) && !b->failed;
}
