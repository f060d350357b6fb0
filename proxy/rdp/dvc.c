/*
 * Dynamic virtual channels, [MS-RDPEDYC]: only which number the touch channel has, and
 * whether a client's data is touch or pen, [MS-RDPEI] 2.2.2.6.
 */
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define STATUS_UNSUCCESSFUL 0xc0000001u
#define EVENT_TOUCH         3
#define EVENT_PEN           8

bool dvc_head_parse(struct cursor *c, struct dvc_head *m)
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

/* The chunk's head, and what dvc_head_parse() takes. */
static bool take_message(struct cursor *c, struct dvc_head *m)
{
    uint32_t total, flags;

    return cursor_le32(c, &total) && cursor_le32(c, &flags) && flags & CHANNEL_FIRST &&
           !(flags & CHANNEL_COMPRESSED) && dvc_head_parse(c, m);
}

bool dvc_create_parse(struct cursor message, struct dvc_create *out)
{
    struct dvc_head m;
    size_t len;

    if (!dvc_head_parse(&message, &m) || m.cmd != DVC_CREATE)
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
    buffer_put_u8(b, (uint8_t)(DVC_CREATE << 4 | c->id_len));
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
    struct dvc_head m;

    if (!take_message(&data, &m))
        return;
    if (m.cmd == DVC_CREATE && is_name(data, DVC_NAME_INPUT)) {
        s->input_id = m.channel;
        s->has_input = true;
    } else if (m.cmd == DVC_CLOSE) {
        s->has_input &= m.channel != s->input_id;
    }
}

bool dvc_client_scan(struct cursor data, const struct dvc_state *s)
{
    static const uint8_t len_bytes[] = {1, 2, 4, 4};
    struct dvc_head m;
    uint16_t event;

    if (!s->has_input || !take_message(&data, &m) || m.channel != s->input_id)
        return false;
    if (m.cmd == DVC_DATA_FIRST && !cursor_skip(&data, len_bytes[m.sp]))
        return false;
    if (m.cmd != DVC_DATA && m.cmd != DVC_DATA_FIRST)
        return false;
    return cursor_le16(&data, &event) && (event == EVENT_TOUCH || event == EVENT_PEN);
}
