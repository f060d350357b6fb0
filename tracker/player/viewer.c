/* See viewer.h. */
#include "tracker/player/viewer.h"

#include <string.h>
#include <strings.h>

#include <sallyport/text.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/tls.h"

int viewer_open(struct viewer *v, int fd, const struct desktop_channels *map,
                struct event_base *base, void (*wake)(void *arg), void *arg)
{
    memset(v, 0, sizeof(*v));
    v->map = map;
    for (size_t i = 0; i < map->count; i++)
        if (map->list[i].flags & DESKTOP_CHANNEL_RECORDED &&
            strcasecmp(map->list[i].name, "drdynvc") == 0)
            v->drdynvc = map->list[i].number;
    rdp_leg_init(&v->leg, "viewer");
    return rdp_leg_open(&v->leg, fd, base, wake, arg);
}

void viewer_close(struct viewer *v)
{
    rdp_leg_close(&v->leg);
    v->step = VIEWER_GONE;
}

static void send_all(struct viewer *v, struct buffer *b)
{
    if (b->failed)
        v->step = VIEWER_GONE;
    else
        rdp_leg_send(&v->leg, b->data, b->len);
    buffer_finish(b);
}

/* ---- the connection sequence ---- */

/* TLS where it can be had: some clients insist on it. Otherwise no encryption at all. */
static bool on_x224(struct viewer *v, struct cursor body)
{
    static const uint8_t plain[] = {3, 0, 0, 11, 6, 0xd0, 0, 0, 0x12, 0x34, 0};
    struct x224_request request;
    struct buffer b;
    bool has_tls;

    if (x224_request_parse(body, &request) != PARSE_OK)
        return false;
    has_tls = request.has_negotiation && request.protocols & PROTOCOL_SSL_BIT;
    v->requested = request.protocols;
    buffer_init(&b, 64);
    if (request.has_negotiation)
        x224_confirm_put(&b, X224_EXTENDED_CLIENT_DATA | X224_DYNVC_GFX,
                         has_tls ? PROTOCOL_SSL_BIT : 0);
    else
        buffer_put(&b, plain, sizeof(plain));
    send_all(v, &b);
    v->step = has_tls ? VIEWER_TLS : VIEWER_CONNECT;
    return true;
}

static bool is_taken(const struct desktop_channels *c, uint16_t number)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].number == number)
            return true;
    return number == c->io || number == c->message || number == c->user;
}

/* By name: it asks for other channels than the recorded client did. */
static void number_channels(struct viewer *v, const struct gcc_client *client,
                            struct gcc_server *mine)
{
    uint16_t unused = MCS_GLOBAL_CHANNEL + 1;

    mine->channel_count = client->channel_count;
    for (size_t i = 0; i < client->channel_count; i++) {
        bool is_drdynvc = strcasecmp(client->channels[i].name, "drdynvc") == 0 && v->drdynvc;

        while (!is_drdynvc && is_taken(v->map, unused))
            unused++;
        mine->channels[i] = is_drdynvc ? v->drdynvc : unused++;
        v->has_drdynvc |= is_drdynvc;
    }
}

static bool on_connect(struct viewer *v, struct cursor body)
{
    struct gcc_server mine = {.io_channel = v->map->io};
    struct mcs_connect initial;
    struct gcc_client client;
    struct buffer gcc, b;

    if (mcs_connect_initial_parse(body, &initial) != PARSE_OK ||
        gcc_client_parse(initial.gcc, &client) != PARSE_OK)
        return false;
    text_copy(v->name, sizeof(v->name), client.name);
    number_channels(v, &client, &mine);
    buffer_init(&gcc, TPKT_MAX);
    buffer_init(&b, TPKT_MAX);
    gcc_server_put(&gcc, &mine, v->requested);
    mcs_connect_response_put(&b, initial.parameters[0], gcc.data, gcc.len);
    b.failed |= gcc.failed;
    buffer_finish(&gcc);
    send_all(v, &b);
    v->step = VIEWER_DOMAIN;
    return true;
}

/* Whoever came this far may look: who may connect at all is main.c's. */
static void on_info(struct viewer *v)
{
    struct buffer licence, b;

    buffer_init(&licence, 64);
    buffer_init(&b, 128);
    licence_valid_put(&licence);
    mcs_data_put(&b, MCS_DATA_INDICATION, MCS_SERVER_USER, v->map->io, licence.data, licence.len);
    b.failed |= licence.failed;
    buffer_finish(&licence);
    send_all(v, &b);
    v->step = VIEWER_LIVE;
}

/* What follows a Demand Active is for a client that took it. */
static void on_share(struct viewer *v, struct cursor data)
{
    struct share_pdu pdu;

    while (!cursor_at_end(&data) && share_next(&data, &pdu) == PARSE_OK)
        if (pdu.type == SHARE_CONFIRM_ACTIVE)
            v->must_wait = false;
}

static bool on_domain(struct viewer *v, struct cursor body)
{
    struct mcs_pdu pdu;
    struct buffer b;

    if (mcs_parse(body, &pdu) != PARSE_OK || pdu.type == MCS_ULTIMATUM)
        return false;
    buffer_init(&b, 64);
    if (pdu.type == MCS_ATTACH_REQUEST)
        mcs_attach_confirm_put(&b, v->map->user);
    else if (pdu.type == MCS_JOIN_REQUEST)
        mcs_join_confirm_put(&b, pdu.user, pdu.channel);
    send_all(v, &b);
    if (pdu.type != MCS_DATA_REQUEST || pdu.channel != v->map->io)
        return true;
    if (v->step == VIEWER_DOMAIN)
        on_info(v);
    else
        on_share(v, pdu.data);
    return true;
}

static bool on_frame(struct viewer *v, const struct frame *f)
{
    if (f->kind == FRAME_FASTPATH)
        return true; /* its input leads nowhere */
    switch (v->step) {
    case VIEWER_X224:
        return on_x224(v, frame_body(f));
    case VIEWER_CONNECT:
        return on_connect(v, frame_body(f));
    case VIEWER_DOMAIN:
    case VIEWER_LIVE:
        return on_domain(v, frame_body(f));
    default:
        return false;
    }
}

void viewer_step(struct viewer *v)
{
    enum parse r = PARSE_OK;

    rdp_leg_drive(&v->leg);
    if (v->step == VIEWER_TLS && v->leg.state == LEG_UP) {
        v->step = VIEWER_CONNECT;
        rdp_leg_drive(&v->leg);
    }
    while (r == PARSE_OK && v->step != VIEWER_GONE) {
        struct cursor c = rdp_leg_input(&v->leg);
        struct frame f;

        r = v->step == VIEWER_TLS ? PARSE_MORE : frame_next(&c, TPKT_MAX, &f);
        if (r == PARSE_BAD || (r == PARSE_OK && !on_frame(v, &f)))
            v->step = VIEWER_GONE;
        else if (r == PARSE_OK)
            rdp_leg_use(&v->leg, f.len);
        if (v->step == VIEWER_TLS && v->leg.state == LEG_PLAIN &&
            rdp_leg_begin_tls(&v->leg, tls_server(v->leg.fd)) < 0)
            v->step = VIEWER_GONE;
    }
    if (!rdp_leg_is_alive(&v->leg))
        v->step = VIEWER_GONE;
}

/* ---- what it is shown ---- */

/* Not the reasons for the end, which would be taken for this one's; nor logons, at whose cookies a
 * client may try itself. A compressed PDU is part of a history that must be followed. */
static bool is_wanted(const struct share_pdu *pdu)
{
    return pdu->type == SHARE_DEMAND_ACTIVE || pdu->type == SHARE_DEACTIVATE_ALL ||
           (pdu->type == SHARE_DATA &&
            (pdu->is_compressed ||
             (pdu->data_type != DATA_SET_ERROR_INFO && pdu->data_type != DATA_SAVE_SESSION_INFO &&
              pdu->data_type != DATA_SHUTDOWN_DENIED)));
}

static void feed_share(struct viewer *v, const struct mcs_pdu *mcs)
{
    struct cursor data = mcs->data;
    struct share_pdu pdu;
    struct buffer b;

    buffer_init(&b, TPKT_MAX);
    while (cursor_left(&data) > 1) {
        const uint8_t *at = data.at;

        if (share_next(&data, &pdu) != PARSE_OK)
            break;
        if (!is_wanted(&pdu))
            continue;
        buffer_reset(&b);
        mcs_data_put(&b, MCS_DATA_INDICATION, mcs->user, mcs->channel, at, pdu.len);
        if (!b.failed)
            rdp_leg_send(&v->leg, b.data, b.len);
        v->must_wait |= pdu.type == SHARE_DEMAND_ACTIVE;
    }
    buffer_finish(&b);
}

/* Servers open the channel for clients that refuse it, too: what counts is that it was used. */
static void look_at_dynamic(struct viewer *v, struct cursor data)
{
    struct dvc_create create;
    struct cursor message;
    struct dvc_head m;
    uint32_t len, flags;

    if (!cursor_le32(&data, &len) || !cursor_le32(&data, &flags) || !(flags & CHANNEL_FIRST))
        return;
    message = data;
    if (!dvc_head_parse(&data, &m))
        return;
    if (m.cmd == DVC_CREATE && dvc_create_parse(message, &create) &&
        strncmp(create.name, DVC_NAME_GRAPHICS, sizeof(create.name)) == 0)
        v->graphics = m.channel;
    else if (m.cmd != DVC_CREATE && m.cmd != DVC_CLOSE && v->graphics && m.channel == v->graphics)
        v->has_graphics = true;
}

static void feed_frame(struct viewer *v, const struct frame *f)
{
    struct mcs_pdu mcs;

    if (f->kind == FRAME_FASTPATH) {
        rdp_leg_send(&v->leg, f->data, f->len);
    } else if (mcs_parse(frame_body(f), &mcs) == PARSE_OK && mcs.type == MCS_DATA_INDICATION) {
        if (mcs.channel == v->map->io) {
            feed_share(v, &mcs);
        } else if (v->drdynvc && mcs.channel == v->drdynvc) {
            look_at_dynamic(v, mcs.data);
            if (v->has_drdynvc)
                rdp_leg_send(&v->leg, f->data, f->len);
        }
    }
}

void viewer_feed(struct viewer *v, struct cursor *pdus)
{
    struct frame f;

    while (viewer_can_take(v)) {
        if (frame_next(pdus, TPKT_MAX, &f) != PARSE_OK) {
            pdus->at = pdus->end; /* what cannot be read is left out */
            return;
        }
        feed_frame(v, &f);
    }
}

void viewer_bye(struct viewer *v)
{
    struct buffer b;

    if (v->step != VIEWER_LIVE)
        return;
    buffer_init(&b, 16);
    mcs_ultimatum_put(&b, MCS_REASON_USER);
    send_all(v, &b);
    rdp_leg_settle(&v->leg);
}
