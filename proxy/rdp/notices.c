/*
 * Words over the desktop in use: idle warnings and messages, and the last words. They are bitmap
 * updates between two whole PDUs of the target, and a pointer with a badge. Where the target draws
 * over them they are drawn again when it rests, or now and then when it does not; at the first
 * input they go away, by asking the target to draw anew. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <string.h>
#include <strings.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/banner.h"
#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/le.h"
#include "proxy/rdp/pointer.h"

#define MESSAGE_MS 3000 /* a message stays for this long even under a busy hand */
#define CLEAR_MS   300  /* the target has this long to draw over a notice before the last words */
#define REST_MS    100  /* the target rests: what it covered is drawn again */
#define COVERED_MS 500  /* it does not rest: drawn again all the same, sooner when it is small */
#define BYTES_A_MS 128  /* so much of a user's line */
#define DRAWN_MAX  (6u * 1024u * 1024u)

/* ---- what is known of the desktop ---- */

void rdp_notice_init(struct rdp_session *s)
{
    buffer_init(&s->notice.drawn, DRAWN_MAX);
}

void rdp_notice_finish(struct rdp_session *s)
{
    buffer_finish(&s->notice.drawn);
}

static bool is_live_gfx(const struct rdp_session *s)
{
    return gfx_is_live(&s->notice.gfx);
}

static bool can_draw(const struct rdp_session *s)
{
    return s->desktop.is_active && !s->notice.output.is_open &&
           bitmap_can_show(s->desktop.facts.bpp);
}

bool rdp_notice_must_wait(const struct rdp_session *s)
{
    const struct notice *n = &s->notice;

    return (n->clear_ms && clock_mono_ms() < n->clear_ms) || n->output.is_open ||
           (is_live_gfx(s) && !n->gfx.is_opaque && !gfx_is_between(&n->gfx));
}

static void covered(struct notice *n)
{
    if (!n->is_shown)
        return;
    n->output_ms = clock_mono_ms();
    if (!n->covered_ms)
        n->covered_ms = n->output_ms;
    n->is_touched = true;
}

static void take_output(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    if (n->output.has_drawn)
        covered(n);
    if (cursor_left(&n->output.palette) == PALETTE_LEN) {
        memcpy(n->palette, n->output.palette.at, PALETTE_LEN);
        n->has_palette = true;
    }
    if (!n->output.has_pointer)
        return;
    n->pointer = n->output.pointer;
    n->is_badge_stale = n->has_badge;
    /* a target that does not care for what the client has: its slot, then */
    if (n->pointer.kind == POINTER_CACHED && n->pointer.slot >= n->badge_slot)
        n->badge_slot = 0;
}

void rdp_notice_fastpath(struct rdp_session *s, const struct frame *f)
{
    if (fastpath_output_scan(frame_body(f), &s->notice.output) != PARSE_OK)
        s->notice.output.is_open = false;
    take_output(s);
}

/* Another desktop begins: of the old one nothing is true any more. */
static void forget(struct notice *n)
{
    n->output = (struct output_facts){0};
    n->pointer = (struct pointer){.kind = POINTER_DEFAULT};
    n->has_palette = false;
    n->has_badge = false;
    n->is_forgotten = true;
}

void rdp_notice_leave(struct rdp_session *s)
{
    forget(&s->notice);
    s->notice.gfx = (struct gfx_state){0};
}

void rdp_notice_share(struct rdp_session *s, const struct share_pdu *pdu)
{
    if (pdu->type == SHARE_DEMAND_ACTIVE) {
        forget(&s->notice);
    } else if (pdu->type == SHARE_DATA &&
               (pdu->data_type == DATA_UPDATE || pdu->data_type == DATA_POINTER)) {
        slowpath_output_scan(pdu, &s->notice.output);
        take_output(s);
    }
}

void rdp_notice_dynamic(struct rdp_session *s, struct cursor data)
{
    if (gfx_server_scan(data, &s->notice.gfx))
        covered(&s->notice);
}

void rdp_notice_dynamic_of_user(struct rdp_session *s, struct cursor data)
{
    bool was_live = is_live_gfx(s);

    gfx_client_scan(data, &s->notice.gfx);
    if (is_live_gfx(s) != was_live)
        log_debug("graphics: %s", was_live ? "bitmaps" : "frames");
}

void rdp_notice_share_of_user(struct rdp_session *s, const struct share_pdu *pdu,
                              const struct frame *f, uint8_t *at)
{
    struct cursor c = pdu->body;
    const uint8_t *set;
    uint8_t allow;

    if (pdu->type == SHARE_CONFIRM_ACTIVE) {
        set = capability_find(SHARE_CONFIRM_ACTIVE, pdu->body, CAPABILITY_POINTER, 6);
        s->notice.badge_slot = set ? pointer_reserve(at + (set - f->data)) : 0;
    } else if (pdu->type == SHARE_DATA && pdu->data_type == DATA_SUPPRESS_OUTPUT &&
               !pdu->is_compressed && cursor_u8(&c, &allow)) {
        s->notice.is_suppressed = !allow;
    }
}

/* ---- writing ---- */

static struct bitmap_target target_of(const struct rdp_session *s)
{
    const struct share_facts *f = &s->desktop.facts;

    return (struct bitmap_target){.bpp = f->bpp,
                                  .palette = s->notice.palette,
                                  .is_fastpath = f->has_fastpath_output,
                                  .share_id = f->share_id,
                                  .io_channel = s->u.ids.io_channel};
}

/* The part of the desktop that the user looks at: the primary monitor of several. A target that
 * draws frames may change the size without another Demand Active. */
static struct gcc_monitor screen_of(const struct rdp_session *s)
{
    const struct gfx_state *g = &s->notice.gfx;
    const struct gcc_monitor *m = &s->u.client.primary;
    struct gcc_monitor all = {.width = s->desktop.facts.width, .height = s->desktop.facts.height};

    if (is_live_gfx(s) && g->width && g->height) {
        all.width = (uint16_t)g->width;
        all.height = (uint16_t)g->height;
    }
    if (m->width && m->left + m->width <= all.width && m->top + m->height <= all.height)
        return *m;
    return all;
}

static void send_user(struct rdp_session *s, const struct buffer *b)
{
    if (!b->failed && b->len)
        rdp_leg_send(&s->user, b->data, b->len);
}

/* ---- the pointer ---- */

static void put_pointer(struct rdp_session *s, bool is_badge)
{
    struct bitmap_target t = target_of(s);
    struct notice *n = &s->notice;
    struct pointer ours = {.kind = POINTER_CACHED, .slot = n->badge_slot};
    struct buffer b;

    buffer_init(&b, TPKT_MAX);
    if (is_badge && !n->has_badge)
        pointer_badge_put(&b, &t, n->badge_slot);
    else
        pointer_put(&b, &t, is_badge ? &ours : &n->pointer);
    send_user(s, &b);
    n->has_badge = is_badge;
    n->is_badge_stale = false;
    buffer_finish(&b);
}

/* A pointer that came compressed cannot be given back. Bitmaps do without a badge, then; where
 * frames cover everything it is worth an arrow in the place of another pointer. */
static bool may_badge(const struct rdp_session *s)
{
    const struct notice *n = &s->notice;

    return n->badge_slot && (n->pointer.kind != POINTER_UNREADABLE || is_live_gfx(s));
}

static void keep_badge(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    if (may_badge(s) && (!n->has_badge || n->is_badge_stale))
        put_pointer(s, true);
    else if (n->is_badge_stale) /* the client shows the target's */
        n->has_badge = n->is_badge_stale = false;
}

/* ---- a notice in a live session ---- */

static bool make(struct rdp_session *s, const char *text)
{
    struct gcc_monitor screen = screen_of(s);
    struct bitmap_target t = target_of(s);
    struct notice *n = &s->notice;
    struct picture p;
    bool is_made;

    n->is_banner = is_live_gfx(s);
    if ((t.bpp == 8 && !n->has_palette) ||
        (n->is_banner ? banner_draw(&p, text, screen.width, screen.height)
                      : draw_box(&p, text, screen.width, screen.height)) < 0)
        return false;
    n->left = (uint16_t)(screen.left + (screen.width - p.width) / 2);
    n->top = (uint16_t)(screen.top + (n->is_banner ? 0 : (screen.height - p.height) / 2));
    n->right = (uint16_t)(n->left + p.width - 1);
    n->bottom = (uint16_t)(n->top + p.height - 1);
    buffer_reset(&n->drawn);
    bitmap_put(&n->drawn, &t, &p, n->left, n->top);
    is_made = !n->drawn.failed;
    picture_finish(&p);
    return is_made;
}

static void put_drawn(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    send_user(s, &n->drawn);
    n->covered_ms = n->output_ms = 0;
    n->is_forgotten = false;
}

/* 2.2.11.2, 2.2.11.3: the target draws this part of the screen again. */
static void put_rectangle(struct buffer *b, uint8_t first, const struct notice *n)
{
    buffer_put_le32(b, first);
    buffer_put_le16(b, n->left);
    buffer_put_le16(b, n->top);
    buffer_put_le16(b, n->right);
    buffer_put_le16(b, n->bottom);
}

static void ask(struct rdp_session *s, enum share_data_type type, const struct buffer *body)
{
    struct buffer pdu, b;

    buffer_init(&pdu, 128);
    buffer_init(&b, 256);
    share_data_put(&pdu, s->t.user_id, s->desktop.facts.share_id, type, body->data, body->len);
    mcs_data_put(&b, MCS_DATA_REQUEST, s->t.user_id, s->t.ids.io_channel, pdu.data, pdu.len);
    if (!b.failed && !pdu.failed && !body->failed)
        rdp_leg_send(&s->target, b.data, b.len);
    buffer_finish(&pdu);
    buffer_finish(&b);
}

/* Output off and on again makes a target draw everything, as when a client's window is seen again;
 * one whose window is not seen is left alone. */
static void refresh(struct rdp_session *s)
{
    const struct share_facts *f = &s->desktop.facts;
    struct notice *n = &s->notice;
    struct buffer body;

    if (n->is_touched && !n->is_banner) { /* it may have moved a part of it elsewhere */
        n->left = n->top = 0;
        n->right = (uint16_t)(f->width - 1);
        n->bottom = (uint16_t)(f->height - 1);
    }
    buffer_init(&body, 64);
    if (f->has_suppress && !n->is_suppressed && (n->is_banner || !f->has_refresh)) {
        buffer_put_le32(&body, 0);
        ask(s, DATA_SUPPRESS_OUTPUT, &body);
        buffer_reset(&body);
        put_rectangle(&body, 1, n);
        ask(s, DATA_SUPPRESS_OUTPUT, &body);
        buffer_reset(&body);
    }
    put_rectangle(&body, 1, n);
    ask(s, DATA_REFRESH_RECT, &body);
    buffer_finish(&body);
}

static void take_away(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    n->is_shown = false;
    if (n->has_badge)
        put_pointer(s, false);
    refresh(s);
    n->is_touched = false;
    buffer_finish(&n->drawn);
}

static void show(struct rdp_session *s, int64_t now_ms)
{
    struct notice *n = &s->notice;

    if (n->is_shown)
        take_away(s);
    text_copy(n->shown, sizeof(n->shown), n->text);
    n->text[0] = '\0';
    n->is_shown = true;
    n->shown_ms = now_ms;
    if (make(s, n->shown))
        put_drawn(s);
    else
        log_debug("a notice could not be drawn");
    keep_badge(s);
}

/* What the target covered; and after a new desktop, or another way of drawing, all of it. */
static void keep(struct rdp_session *s, int64_t now_ms)
{
    struct notice *n = &s->notice;
    int64_t due = n->output_ms + REST_MS, most = (int64_t)(n->drawn.len / BYTES_A_MS);

    keep_badge(s);
    if (n->is_forgotten || n->is_banner != is_live_gfx(s)) {
        if (!n->is_forgotten) /* the way of drawing changed: the place, too */
            refresh(s);
        if (make(s, n->shown))
            put_drawn(s);
        n->is_forgotten = false;
        return;
    }
    if (!n->covered_ms)
        return;
    if (due > n->covered_ms + (most < COVERED_MS ? most : COVERED_MS))
        due = n->covered_ms + (most < COVERED_MS ? most : COVERED_MS);
    if (now_ms >= due)
        put_drawn(s);
    else
        rdp_want_timer(s, due);
}

void rdp_notice_add(struct rdp_session *s, const char *text, bool is_message)
{
    if (s->phase != PHASE_RELAYING)
        return;
    text_copy(s->notice.text, sizeof(s->notice.text), text);
    s->notice.is_message = is_message;
    rdp_want_turn(s);
}

void rdp_notice_step(struct rdp_session *s, int64_t now_ms)
{
    struct notice *n = &s->notice;

    if (s->phase != PHASE_RELAYING || !can_draw(s))
        return;
    if (n->text[0])
        show(s, now_ms);
    else if (n->is_shown)
        keep(s, now_ms);
}

void rdp_notice_human(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    if (n->is_shown && !(n->is_message && clock_mono_ms() - n->shown_ms < MESSAGE_MS) &&
        s->desktop.is_active)
        take_away(s);
}

/* ---- the last words ---- */

void rdp_notice_clear(struct rdp_session *s, int64_t now_ms)
{
    if (!s->notice.is_shown)
        return;
    take_away(s);
    s->notice.clear_ms = now_ms + CLEAR_MS;
    rdp_want_timer(s, s->notice.clear_ms);
}

/* The client's number of the channel that dynamic channels live in; 0: it has none. */
static uint16_t dynamic_channel(const struct rdp_session *s)
{
    for (size_t i = 0; i < s->u.ids.channel_count; i++)
        if (strcasecmp(s->u.client.channels[i].name, "drdynvc") == 0)
            return s->u.ids.channels[i];
    return 0;
}

static void put_bitmap(struct rdp_session *s, const struct picture *p, uint16_t x, uint16_t y)
{
    struct bitmap_target t = target_of(s);
    struct notice *n = &s->notice;

    buffer_reset(&n->drawn);
    if (t.bpp == 8 && !n->has_palette) {
        palette_fill(n->palette);
        palette_put(&n->drawn, &t);
    }
    bitmap_put(&n->drawn, &t, p, x, y);
    send_user(s, &n->drawn);
}

static void put_surface(struct rdp_session *s, const struct picture *p, uint16_t x, uint16_t y)
{
    struct notice *n = &s->notice;
    uint16_t channel = dynamic_channel(s);

    if (!channel || !is_live_gfx(s) || !gfx_is_between(&n->gfx))
        return;
    buffer_reset(&n->drawn);
    gfx_picture_put(&n->drawn, &n->gfx, channel, p, x, y);
    send_user(s, &n->drawn);
    log_debug("the last words are a surface, too");
}

bool rdp_notice_last(struct rdp_session *s, const char *text)
{
    struct gcc_monitor screen = screen_of(s);
    struct picture p;
    uint16_t x, y;

    if (!can_draw(s) || draw_box(&p, text, screen.width, screen.height) < 0)
        return false;
    x = (uint16_t)(screen.left + (screen.width - p.width) / 2);
    y = (uint16_t)(screen.top + (screen.height - p.height) / 2);
    if (s->notice.has_badge)
        put_pointer(s, false);
    put_bitmap(s, &p, x, y);
    put_surface(s, &p, x, y);
    picture_finish(&p);
    buffer_finish(&s->notice.drawn);
    s->notice.is_shown = false;
    return true;
}
