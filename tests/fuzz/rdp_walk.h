/*
 * One side's bytes of an RDP connection through every parser that a relay would use on them, and
 * what was parsed through the writers. The fuzzer and the unit test share it: the first byte of the
 * input says the side, 0 the client's, 1 the target's.
 */
#ifndef RDP_WALK_H
#define RDP_WALK_H

#include <assert.h>
#include <string.h>

#include "proxy/rdp/chunks.h"
#include "proxy/rdp/gfx.h"

struct rdp_walk {
    size_t frames, x224, connects, data, fastpath, infos, demands, confirms, shares, humans;
    struct gcc_client client;
    struct gcc_server server;
    struct share_facts facts;
    char user[INFO_TEXT_MAX];
    struct input_state input;
    struct dvc_state dvc;
    struct gfx_state gfx;
    struct output_facts output;
};

static void walk_info(struct cursor data, struct rdp_walk *w)
{
    struct client_info info;
    struct buffer b;

    if (client_info_parse(data, &info) != PARSE_OK)
        return;
    w->infos++;
    if (client_info_text(&info, info.user, w->user, sizeof(w->user))) {
        buffer_init_secret(&b, TPKT_MAX);
        client_info_put(&b, &info, "dom", w->user, "secret");
        if (!b.failed) /* what we write we can read */
            assert(client_info_parse(cursor_of(b.data, b.len), &info) == PARSE_OK);
        buffer_finish(&b);
    }
}

static void walk_shares(struct cursor data, struct rdp_walk *w)
{
    struct logon_cookie cookie;
    struct share_pdu share;
    uint32_t error;
    bool is_human;

    (void)licence_parse(data, &error);
    while (share_next(&data, &share) == PARSE_OK) {
        w->shares++;
        slowpath_output_scan(&share, &w->output);
        if (share.type == SHARE_DEMAND_ACTIVE)
            w->demands += demand_active_parse(share.body, &w->facts) == PARSE_OK;
        else if (share.type == SHARE_CONFIRM_ACTIVE)
            w->confirms += confirm_active_parse(share.body, &w->facts) == PARSE_OK;
        else if (share.type == SHARE_DATA && share.data_type == DATA_INPUT)
            w->humans +=
                input_slowpath_scan(share.body, &w->input, &is_human) == PARSE_OK && is_human;
        else if (share.type == SHARE_DATA && share.data_type == DATA_SAVE_SESSION_INFO &&
                 logon_cookie_parse(share.body, &cookie))
            assert(cookie.bits >= share.body.at &&
                   cookie.bits + LOGON_COOKIE_BITS <= share.body.end);
    }
}

static void walk_gcc(const struct mcs_connect *c, struct rdp_walk *w)
{
    bool is_dropped[MCS_CHANNELS_MAX] = {false, true};
    struct gcc_patch patch = {.selected = 1, .is_dropped = is_dropped};
    struct gcc_client again;
    struct buffer gcc, b;

    if (gcc_client_parse(c->gcc, &w->client) != PARSE_OK)
        return;
    w->connects++;
    buffer_init(&gcc, TPKT_MAX);
    buffer_init(&b, TPKT_MAX);
    gcc_client_put(&gcc, &w->client, &patch);
    mcs_connect_initial_put(&b, c, gcc.data, gcc.len);
    if (!gcc.failed)
        assert(gcc_client_parse(cursor_of(gcc.data, gcc.len), &again) == PARSE_OK);
    buffer_finish(&gcc);
    buffer_finish(&b);
}

static void walk_channels(struct cursor data)
{
    struct dvc_create create;
    struct chunks chunks;
    struct cursor message;
    struct buffer b;

    buffer_init(&b, 4 * TPKT_MAX);
    chunks_init(&chunks);
    if (chunks_take(&chunks, data, devices_judge, &message) == CHUNKS_WHOLE) {
        if (dvc_create_parse(message, &create))
            dvc_refusal_put(&b, &create);
        buffer_reset(&b);
        if (devices_filter(message, DEVICE_PRINT, &b))
            assert(b.len <= cursor_left(&message));
        chunks_put(&b, MCS_DATA_REQUEST, 1007, 1004, message);
    }
    chunks_finish(&chunks);
    buffer_finish(&b);
}

static void walk_tpkt(struct cursor body, struct rdp_walk *w)
{
    struct x224_request request;
    struct x224_confirm confirm;
    struct mcs_connect connect;
    struct mcs_pdu pdu;
    struct cursor gcc;
    uint8_t result;

    w->x224 += x224_request_parse(body, &request) == PARSE_OK ||
               x224_confirm_parse(body, &confirm) == PARSE_OK;
    if (mcs_connect_initial_parse(body, &connect) == PARSE_OK)
        walk_gcc(&connect, w);
    if (mcs_connect_response_parse(body, &result, &gcc) == PARSE_OK)
        w->connects += gcc_server_parse(gcc, &w->server) == PARSE_OK;
    if (mcs_parse(body, &pdu) != PARSE_OK)
        return;
    if (pdu.type == MCS_DATA_REQUEST || pdu.type == MCS_DATA_INDICATION) {
        w->data++;
        walk_info(pdu.data, w);
        walk_shares(pdu.data, w);
        dvc_server_scan(pdu.data, &w->dvc);
        gfx_server_scan(pdu.data, &w->gfx);
        gfx_client_scan(pdu.data, &w->gfx);
        walk_channels(pdu.data);
        w->humans += dvc_client_scan(pdu.data, &w->dvc);
    }
}

static void rdp_walk(const uint8_t *bytes, size_t len, struct rdp_walk *w)
{
    struct cursor c = cursor_of(bytes, len);
    struct preconnection blob;
    char text[128];
    struct frame f;
    uint8_t side;
    bool flag;

    memset(w, 0, sizeof(*w));
    if (!cursor_u8(&c, &side))
        return;
    if (preconnection_next(&c, &blob) == PARSE_OK && utf16_to_utf8(blob.blob, text, sizeof(text)))
        assert(strlen(text) < sizeof(text));
    while (frame_next(&c, TPKT_MAX, &f) == PARSE_OK) {
        w->frames++;
        if (f.kind == FRAME_TPKT) {
            walk_tpkt(frame_body(&f), w);
            continue;
        }
        w->fastpath++;
        if (side & 1)
            (void)!(fastpath_output_scan(frame_body(&f), &w->output) == PARSE_OK);
        else
            w->humans +=
                input_fastpath_scan(f.data[0], frame_body(&f), &w->input, &flag) == PARSE_OK &&
                flag;
    }
}

#endif
