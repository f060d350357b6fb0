/*
 * Boxes over the desktop in use: idle warnings and messages. Drawn as bitmap updates between two
 * whole PDUs of the target, and taken away at the first input, by asking the target to draw that
 * part anew. Also draws the last words. Steps of a turn of proxy/rdp/session.c.
 */
#include "proxy/rdp/session.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/le.h"

#define MESSAGE_MS 3000 /* a message stays for this long even under a busy hand */
#define DRAWN_MAX  (6u * 1024u * 1024u)

static bool can_draw(const struct rdp_session *s)
{
    const struct desktop *d = &s->desktop;

    return d->is_active && !d->is_fragment && bitmap_can_show(d->facts.bpp);
}

bool rdp_notice_draw(struct rdp_session *s, const char *text, struct notice *where)
{
    const struct share_facts *f = &s->desktop.facts;
    struct bitmap_target target = {.bpp = f->bpp,
                                   .is_fastpath = f->has_fastpath_output,
                                   .share_id = f->share_id,
                                   .io_channel = s->u.ids.io_channel};
    struct picture p;
    struct buffer b;
    bool is_ok;

    if (!can_draw(s) || draw_box(&p, text, f->width, f->height) < 0)
        return false;
    where->left = (uint16_t)((f->width - p.width) / 2);
    where->top = (uint16_t)((f->height - p.height) / 2);
    where->right = (uint16_t)(where->left + p.width - 1);
    where->bottom = (uint16_t)(where->top + p.height - 1);
    buffer_init(&b, DRAWN_MAX);
    bitmap_put(&b, &target, &p, where->left, where->top);
    is_ok = !b.failed;
    if (is_ok)
        rdp_leg_send(&s->user, b.data, b.len);
    buffer_finish(&b);
    picture_finish(&p);
    return is_ok;
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

    if (s->phase != PHASE_RELAYING || !n->text[0] || !can_draw(s))
        return;
    if (!rdp_notice_draw(s, n->text, n))
        log_debug("a notice could not be drawn");
    n->text[0] = '\0';
    n->is_shown = true;
    n->shown_ms = now_ms;
}

/* 2.2.11.2: the target draws this part of the screen again. */
static void refresh(struct rdp_session *s)
{
    const struct notice *n = &s->notice;
    struct buffer body, pdu, b;

    buffer_init(&body, 64);
    buffer_init(&pdu, 128);
    buffer_init(&b, 256);
    buffer_put_le32(&body, 1);
    buffer_put_le16(&body, n->left);
    buffer_put_le16(&body, n->top);
    buffer_put_le16(&body, n->right);
    buffer_put_le16(&body, n->bottom);
    share_data_put(&pdu, s->t.user_id, s->desktop.facts.share_id, DATA_REFRESH_RECT, body.data,
                   body.len);
    mcs_data_put(&b, MCS_DATA_REQUEST, s->t.user_id, s->t.ids.io_channel, pdu.data, pdu.len);
    if (!b.failed && !pdu.failed && !body.failed)
        rdp_leg_send(&s->target, b.data, b.len);
    buffer_finish(&body);
    buffer_finish(&pdu);
    buffer_finish(&b);
}

void rdp_notice_human(struct rdp_session *s)
{
    struct notice *n = &s->notice;

    if (!n->is_shown || (n->is_message && clock_mono_ms() - n->shown_ms < MESSAGE_MS))
        return;
    n->is_shown = false;
    refresh(s);
}
