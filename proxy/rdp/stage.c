/*
 * A session of our own with the client; stage.h. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/stage.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>

#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/le.h"
#include "proxy/rdp/rle.h"
#include "proxy/rdp/session.h"

#define OWN_SHARE_ID      0x000103eau
#define SCREEN_WIDTH_MAX  8192
#define SCREEN_HEIGHT_MAX 8192
#define AHEAD_MAX         (64u * 1024u) /* bytes on their way to a client before more is drawn */
#define TILE_WIDTH        512
#define TILE_BYTES        12000 /* of its pixels, as sent: more than one client chokes on more */
#define UPDATE_BITMAP     1
#define FASTPATH_BITMAP   0x01
#define COMPRESSED_PLAIN  0x0401 /* BITMAP_COMPRESSION, NO_BITMAP_COMPRESSION_HDR */
#define ACTION_REQUEST    1
#define ACTION_COOPERATE  4

struct stage {
    bool is_open; /* the client's fonts came: the last of its handshake */
    bool has_actor;
    bool is_behind; /* the client has not taken all that there is to draw */
    struct stage_actor actor;
    struct rect left; /* of what is being drawn; from its left upper corner on */
    struct rect all;  /* the rectangle that `left` is the rest of */
    uint32_t pixels[TILE_BYTES / 2];
};

static void send_io(struct rdp_session *s, struct buffer *body)
{
    struct buffer b;

    buffer_init(&b, TPKT_MAX);
    mcs_data_put(&b, MCS_DATA_INDICATION, MCS_SERVER_USER, s->u.ids.io_channel, body->data,
                 body->len);
    if (!b.failed && !body->failed)
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    buffer_finish(body);
}

static void send_share(struct rdp_session *s, enum share_data_type type, const void *data,
                       size_t len)
{
    struct buffer b;

    buffer_init(&b, 256);
    share_data_put(&b, MCS_SERVER_USER, OWN_SHARE_ID, type, data, len);
    send_io(s, &b);
}

/* ---- the beginning ---- */

void rdp_stage_size(const struct rdp_session *s, uint16_t *width, uint16_t *height)
{
    const struct gcc_client *c = &s->u.client;

    *width = c->width && c->width <= SCREEN_WIDTH_MAX ? c->width : 1024;
    *height = c->height && c->height <= SCREEN_HEIGHT_MAX ? c->height : 768;
}

bool rdp_stage_begin(struct rdp_session *s)
{
    struct share_facts *f = &s->desktop.facts;
    struct buffer b;

    if (s->stage)
        return true;
    s->stage = calloc(1, sizeof(*s->stage));
    if (!s->stage)
        return false;
    *f = (struct share_facts){.share_id = OWN_SHARE_ID,
                              .bpp = s->u.client.bpp == 15   ? 15
                                     : s->u.client.bpp <= 16 ? 16
                                                             : 24};
    rdp_stage_size(s, &f->width, &f->height);
    buffer_init(&b, 64);
    licence_valid_put(&b);
    send_io(s, &b);
    buffer_init(&b, TPKT_MAX);
    demand_active_put(&b, f);
    send_io(s, &b);
    return true;
}

bool rdp_stage_is_open(const struct rdp_session *s)
{
    return s->stage && s->stage->is_open;
}

void rdp_stage_play(struct rdp_session *s, const struct stage_actor *actor)
{
    if (!s->stage)
        return;
    s->stage->has_actor = actor != NULL;
    s->stage->actor = actor ? *actor : (struct stage_actor){0};
    s->stage->left.height = 0;
}

void rdp_stage_leave(struct rdp_session *s)
{
    struct buffer b;

    buffer_init(&b, 64);
    deactivate_all_put(&b, OWN_SHARE_ID);
    send_io(s, &b);
    s->desktop.is_active = false;
    rdp_stage_finish(s);
}

void rdp_stage_finish(struct rdp_session *s)
{
    free(s->stage);
    s->stage = NULL;
}

/* ---- what the client says ---- */

static void take_confirm(struct rdp_session *s, const struct share_pdu *pdu)
{
    struct share_facts facts;

    if (confirm_active_parse(pdu->body, &facts) == PARSE_OK)
        s->desktop.facts.has_fastpath_output = facts.has_fastpath_output;
}

static void answer_control(struct rdp_session *s, struct cursor body)
{
    static const uint8_t cooperate[] = {ACTION_COOPERATE, 0, 0, 0, 0, 0, 0, 0};
    uint8_t granted[8] = {2, 0, 0, 0, 0xea, 3, 0, 0};
    uint16_t action;

    if (!cursor_le16(&body, &action))
        return;
    put_le16(granted + 2, s->u.user_id);
    if (action == ACTION_REQUEST)
        send_share(s, DATA_CONTROL, granted, sizeof(granted));
    else if (action == ACTION_COOPERATE)
        send_share(s, DATA_CONTROL, cooperate, sizeof(cooperate));
}

static void expose(struct stage *stage)
{
    if (stage->is_open && stage->has_actor)
        stage->actor.exposed(stage->actor.arg);
}

/* Nothing that a reader of input may not read leaves this. */
static void nonsense(struct rdp_session *s)
{
    rdp_end(s, END_POLICY, "client", "the client sent what is not RDP", "");
}

static void hear(struct rdp_session *s, struct input_reader *r)
{
    struct input_event e;
    enum parse p = PARSE_MORE;

    while (s->stage && s->phase < PHASE_ENDING && (p = input_next(r, &e)) == PARSE_OK)
        if (s->stage->is_open && s->stage->has_actor)
            s->stage->actor.input(s->stage->actor.arg, &e);
    if (p == PARSE_BAD)
        nonsense(s);
}

/* 1.3.1.1: synchronize, control twice, fonts */
static void take_data(struct rdp_session *s, const struct share_pdu *pdu)
{
    static const uint8_t synchronize[] = {1, 0, 0xea, 3}, font_map[] = {0, 0, 0, 0, 3, 0, 4, 0};
    struct input_reader r;
    struct cursor c = pdu->body;
    uint8_t is_allowed = 0;

    switch (pdu->data_type) {
    case DATA_SYNCHRONIZE:
        send_share(s, DATA_SYNCHRONIZE, synchronize, sizeof(synchronize));
        break;
    case DATA_CONTROL:
        answer_control(s, pdu->body);
        break;
    case DATA_FONT_LIST:
        send_share(s, DATA_FONT_MAP, font_map, sizeof(font_map));
        s->stage->is_open = s->desktop.is_active = true;
        expose(s->stage);
        break;
    case DATA_INPUT:
        if (input_begin_slow(&r, pdu->body))
            hear(s, &r);
        else
            nonsense(s);
        break;
    case DATA_REFRESH_RECT:
        expose(s->stage);
        break;
    case DATA_SUPPRESS_OUTPUT:
        if (cursor_u8(&c, &is_allowed) && is_allowed)
            expose(s->stage);
        break;
    case DATA_SHUTDOWN_REQUEST:
        rdp_end(s, END_USER_EXIT, s->u.login.user[0] ? s->u.login.user : "client",
                "the client closed the connection", "");
        break;
    default:
        break;
    }
}

static void take_share(struct rdp_session *s, struct cursor data)
{
    struct share_pdu share;

    while (s->stage && cursor_left(&data) > 1 && share_next(&data, &share) == PARSE_OK) {
        if (share.type == SHARE_CONFIRM_ACTIVE)
            take_confirm(s, &share);
        else if (share.type == SHARE_DATA && !share.is_compressed)
            take_data(s, &share);
    }
}

static void take_join(struct rdp_session *s, uint16_t channel)
{
    struct buffer b;

    buffer_init(&b, 64);
    mcs_join_confirm_put(&b, s->u.user_id, channel);
    rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
}

/* Channels lead nowhere yet. */
static void take_frame(struct rdp_session *s, const struct frame *f)
{
    struct input_reader r;
    struct mcs_pdu pdu;

    if (f->kind == FRAME_FASTPATH) {
        if (input_begin_fast(&r, f->data[0], frame_body(f)))
            hear(s, &r);
        else
            nonsense(s);
        return;
    }
    if (mcs_parse(frame_body(f), &pdu) != PARSE_OK) {
        nonsense(s);
    } else if (pdu.type == MCS_DATA_REQUEST) {
        if (pdu.channel == s->u.ids.io_channel)
            take_share(s, pdu.data);
    } else if (pdu.type == MCS_JOIN_REQUEST) {
        take_join(s, pdu.channel);
    } else if (pdu.type == MCS_ULTIMATUM) {
        s->desktop.is_bye = true;
        rdp_end(s, END_USER_EXIT, s->u.login.user[0] ? s->u.login.user : "client",
                "the client closed the connection", "");
    }
}

/* ---- drawing ---- */

static void send_tile(struct rdp_session *s, const struct picture *p, int x, int y)
{
    const struct share_facts *f = &s->desktop.facts;
    struct bitmap_target target = {.bpp = f->bpp,
                                   .is_fastpath = f->has_fastpath_output,
                                   .share_id = f->share_id,
                                   .io_channel = s->u.ids.io_channel};
    int right = x + p->width - 1 < f->width ? x + p->width - 1 : f->width - 1;
    struct buffer update, b;

    buffer_init(&update, FASTPATH_MAX - 16);
    buffer_init(&b, TPKT_MAX);
    buffer_put_le16(&update, UPDATE_BITMAP);
    buffer_put_le16(&update, 1); /* rectangles */
    buffer_put_le16(&update, (uint16_t)x);
    buffer_put_le16(&update, (uint16_t)y);
    buffer_put_le16(&update, (uint16_t)right);
    buffer_put_le16(&update, (uint16_t)(y + p->height - 1));
    buffer_put_le16(&update, p->width);
    buffer_put_le16(&update, p->height);
    buffer_put_le16(&update, f->bpp);
    buffer_put_le16(&update, COMPRESSED_PLAIN);
    buffer_put_le16(&update, 0); /* length: below */
    rle_put(&update, f->bpp, p);
    if (!update.failed) {
        put_le16(update.data + 20, (uint16_t)(update.len - 22));
        update_put(&b, &target, FASTPATH_BITMAP, DATA_UPDATE, update.data, update.len);
    }
    if (!update.failed && !b.failed)
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&update);
    buffer_finish(&b);
}

/* Bitmaps are a multiple of four pixels wide; what that is too much is drawn as well. */
static bool next_rectangle(struct stage *stage)
{
    struct rect r;

    if (!stage->has_actor || !stage->actor.next(stage->actor.arg, &r))
        return false;
    r.width += r.x & 3;
    r.x &= ~3;
    stage->all = stage->left = r;
    return true;
}

/* One tile; tiles go from left to right in bands, bands from above. All of a band are as high as
 * the widest may be. */
static void draw_tile(struct rdp_session *s)
{
    struct stage *stage = s->stage;
    struct rect *left = &stage->left, *all = &stage->all;
    int widest = all->width < TILE_WIDTH ? (all->width + 3) & ~3 : TILE_WIDTH;
    int width = left->width < TILE_WIDTH ? left->width : TILE_WIDTH;
    int rows = TILE_BYTES / (widest * (s->desktop.facts.bpp == 24 ? 3 : 2));
    struct picture p = {.width = (uint16_t)((width + 3) & ~3), .pixels = stage->pixels};

    rows = rows > left->height ? left->height : rows;
    p.height = (uint16_t)rows;
    stage->actor.paint(stage->actor.arg, &p, left->x, left->y);
    send_tile(s, &p, left->x, left->y);
    left->x += width;
    left->width -= width;
    if (left->width > 0)
        return;
    left->x = all->x;
    left->width = all->width;
    left->y += rows;
    left->height -= rows;
}

static void draw(struct rdp_session *s, size_t ahead)
{
    struct stage *stage = s->stage;

    stage->is_behind = false;
    while (rdp_leg_is_alive(&s->user) && (stage->left.height > 0 || next_rectangle(stage))) {
        if (rdp_leg_unsent(&s->user) >= ahead) {
            stage->is_behind = true;
            break;
        }
        draw_tile(s);
    }
}

void rdp_stage_settled(struct rdp_session *s)
{
    if (s->stage && s->stage->is_behind && rdp_leg_unsent(&s->user) == 0)
        rdp_want_turn(s);
}

void rdp_stage_step(struct rdp_session *s)
{
    struct frame f;
    enum parse r = PARSE_MORE;

    while (s->stage && (r = rdp_frame(&s->user, TPKT_MAX, &f)) == PARSE_OK) {
        take_frame(s, &f);
        rdp_leg_use_secret(&s->user, f.len);
    }
    if (r == PARSE_BAD)
        nonsense(s);
    if (rdp_stage_is_open(s))
        draw(s, AHEAD_MAX);
}

/* ---- empty ground ---- */

static bool next_all(void *arg, struct rect *out)
{
    struct rect *all = arg;

    *out = *all;
    all->height = 0;
    return out->height > 0;
}

static void paint_ground(void *arg, struct picture *tile, int x, int y)
{
    (void)arg, (void)x, (void)y;
    form_paint_ground(tile);
}

void rdp_stage_clear(struct rdp_session *s)
{
    struct rect all = {0, 0, s->desktop.facts.width, s->desktop.facts.height};
    const struct stage_actor ground = {.next = next_all, .paint = paint_ground, .arg = &all};

    if (!rdp_stage_is_open(s))
        return;
    rdp_stage_play(s, &ground);
    draw(s, LEG_OUT_MAX);
    rdp_stage_play(s, NULL);
}
