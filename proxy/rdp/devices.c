/*
 * Devices that a client shares through the static channel rdpdr, [MS-RDPEFS] 2.2.2.9: leaves out of
 * its announcement what is not allowed. A device that was never announced is never used.
 */
#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CHUNK_FIRST     0x00000001u
#define CHUNK_LAST      0x00000002u
#define CHUNK_PACKED    0x00200000u
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

enum devices_verdict devices_filter(struct cursor data, uint32_t allowed, struct buffer *b)
{
    uint32_t total, flags;
    uint16_t component, packet;
    size_t at = b->len;

    if (!cursor_le32(&data, &total) || !cursor_le32(&data, &flags) || flags & CHUNK_PACKED)
        return DEVICES_DROP;
    if (!(flags & CHUNK_FIRST))
        return DEVICES_OTHER; /* of something that began and passed */
    if (!cursor_le16(&data, &component) || !cursor_le16(&data, &packet))
        return DEVICES_DROP;
    if (component != COMPONENT_CORE || packet != DEVICE_ANNOUNCE)
        return DEVICES_OTHER;
    if (!(flags & CHUNK_LAST))
        return DEVICES_DROP;
    buffer_put_le32(b, 0); /* its length: below */
    buffer_put_le32(b, flags);
    buffer_put_le16(b, component);
    buffer_put_le16(b, packet);
    if (!put_devices(b, data, allowed))
        return DEVICES_DROP;
    if (!b->failed)
        put_le32(b->data + at, (uint32_t)(b->len - at - 8));
    return b->failed ? DEVICES_DROP : DEVICES_WRITTEN;
}
