/*
 * Dynamic virtual channels, [MS-RDPEDYC]: only which numbers the graphics and the touch channel
 * have, and whether a client's data is touch or pen, [MS-RDPEI] 2.2.2.6.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define CHANNEL_FIRST       0x00000001u
#define CHANNEL_LAST        0x00000002u
#define CHANNEL_COMPRESSED  0x00200000u
#define STATUS_UNSUCCESSFUL 0xc0000001u
#define CMD_CREATE          1
#define CMD_DATA_FIRST      2
#define CMD_DATA            3
#define CMD_CLOSE           4
#define EVENT_TOUCH         3
#define EVENT_PEN           8

struct message {
    uint8_t cmd, sp, id_len;
    uint32_t channel;
};

/* The command byte and the channel's number, which has 1, 2 or 4 bytes. */
static bool take_head(struct cursor *c, struct message *m)
{
    uint8_t head, low;
    uint16_t middle;

    if (!cursor_u8(c, &head))
        return false;
    m->cmd = head >> 4;
    m->sp = head >> 2 & 3;
    m->id_len = head & 3;
    switch (head & 3) {
    case 0:
        if (!cursor_u8(c, &low))
            return false;
        m->channel = low;
        return true;
    case 1:
        if (!cursor_le16(c, &middle))
            return false;
        m->channel = middle;
        return true;
    case 2:
        return cursor_le32(c, &m->channel);
    default:
        return false;
    }
}

/* The same behind the chunk's head. */
static bool take_message(struct cursor *c, struct message *m)
{
    uint32_t total, flags;

    return cursor_le32(c, &total) && cursor_le32(c, &flags) && flags & CHANNEL_FIRST &&
           !(flags & CHANNEL_COMPRESSED) && take_head(c, m);
}

bool dvc_create_parse(struct cursor message, struct dvc_create *out)
{
    struct message m;
    size_t len;

    if (!take_head(&message, &m) || m.cmd != CMD_CREATE)
        return false;
    out->id_len = m.id_len;
    out->id = m.channel;
    len = strnlen((const char *)message.at, cursor_left(&message));
    if (len >= sizeof(out->name))
        len = sizeof(out->name) - 1; /* a name that is cut begins as the whole does */
    memcpy(out->name, message.at, len);
    out->name[len] = '\0';
    return true;
}

void dvc_refusal_put(struct buffer *b, const struct dvc_create *c)
{
    static const size_t id_bytes[] = {1, 2, 4};
    size_t id_len = id_bytes[c->id_len];

    buffer_put_le32(b, (uint32_t)(1 + id_len + 4));
    buffer_put_le32(b, CHANNEL_FIRST | CHANNEL_LAST);
    buffer_put_u8(b, (uint8_t)(CMD_CREATE << 4 | c->id_len));
    for (size_t i = 0; i < id_len; i++)
        buffer_put_u8(b, (uint8_t)(c->id >> 8 * i));
    buffer_put_le32(b, STATUS_UNSUCCESSFUL);
}

static bool is_name(struct cursor c, const char *name)
{
    size_t len = strlen(name) + 1;

    return cursor_left(&c) >= len && memcmp(c.at, name, len) == 0;
}

void dvc_server_scan(struct cursor data, struct dvc_state *s)
{
    struct message m;

    if (!take_message(&data, &m))
        return;
    if (m.cmd == CMD_CREATE && is_name(data, DVC_NAME_INPUT)) {
        s->input_id = m.channel;
        s->has_input = true;
    } else if (m.cmd == CMD_CREATE && is_name(data, DVC_NAME_GRAPHICS)) {
        s->graphics_id = m.channel;
        s->has_graphics = true;
    } else if (m.cmd == CMD_CLOSE) {
        s->has_input &= m.channel != s->input_id;
        s->has_graphics &= m.channel != s->graphics_id;
    }
}

bool dvc_client_scan(struct cursor data, const struct dvc_state *s)
{
    static const uint8_t len_bytes[] = {1, 2, 4, 4};
    struct message m;
    uint16_t event;

    if (!s->has_input || !take_message(&data, &m) || m.channel != s->input_id)
        return false;
    if (m.cmd == CMD_DATA_FIRST && !cursor_skip(&data, len_bytes[m.sp]))
        return false;
    if (m.cmd != CMD_DATA && m.cmd != CMD_DATA_FIRST)
        return false;
    return cursor_le16(&data, &event) && (event == EVENT_TOUCH || event == EVENT_PEN);
}
