/*
 * Which dynamic channels a target has open in the client: one that sends its session on leaves them
 * behind, and the next target numbers its own from the beginning. So they are closed for it, and
 * the client's answers to that are not for the next one. Called by splice.c and redirect.c.
 */
#include <string.h>
#include <strings.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/redirect.h"
#include "proxy/rdp/session.h"

static bool take_head(struct cursor data, struct dvc_head *head)
{
    uint32_t total, flags;

    return cursor_le32(&data, &total) && cursor_le32(&data, &flags) && flags & CHANNEL_FIRST &&
           !(flags & CHANNEL_COMPRESSED) && dvc_head_parse(&data, head);
}

static bool take_out(struct dynamic_ids *ids, uint32_t id)
{
    for (size_t i = 0; i < ids->count; i++) {
        if (ids->id[i] != id)
            continue;
        ids->id[i] = ids->id[--ids->count];
        return true;
    }
    return false;
}

void rdp_dynamic_of_target(struct rdp_session *s, struct cursor data)
{
    struct dynamic_ids *open = &s->redirect.open;
    struct dvc_head head;

    if (!take_head(data, &head))
        return;
    if (head.cmd == DVC_CREATE || head.cmd == DVC_CLOSE)
        (void)take_out(open, head.channel);
    if (head.cmd == DVC_CREATE && open->count < DYNAMIC_IDS_MAX)
        open->id[open->count++] = head.channel;
}

bool rdp_dynamic_of_user(struct rdp_session *s, struct cursor data)
{
    struct redirect *r = &s->redirect;
    struct dvc_head head;

    if (!take_head(data, &head) || head.cmd != DVC_CLOSE)
        return false;
    if (take_out(&r->closing, head.channel))
        return true;
    (void)take_out(&r->open, head.channel);
    return false;
}

static void send_close(struct rdp_session *s, uint16_t channel, uint32_t id)
{
    uint8_t message[5] = {DVC_CLOSE << 4};
    size_t id_len = id <= UINT8_MAX ? 1 : id <= UINT16_MAX ? 2 : 4;
    uint8_t bytes[4];
    struct buffer b;

    put_le32(bytes, id);
    message[0] |= (uint8_t)(id_len / 2); /* 0, 1, 2 */
    memcpy(message + 1, bytes, id_len);
    buffer_init(&b, 128);
    chunks_put(&b, MCS_DATA_INDICATION, MCS_SERVER_USER, channel, cursor_of(message, 1 + id_len));
    if (!b.failed)
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
}

void rdp_dynamic_close(struct rdp_session *s)
{
    struct redirect *r = &s->redirect;

    for (size_t n = 0; n < s->u.ids.channel_count; n++) {
        if (strcasecmp(s->u.client.channels[n].name, "drdynvc") != 0)
            continue;
        for (size_t i = 0; i < r->open.count; i++)
            send_close(s, s->u.ids.channels[n], r->open.id[i]);
        r->closing = r->open;
    }
    r->open.count = 0;
}
