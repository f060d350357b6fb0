/*
 * Notices on terminals: warnings and messages between two pieces of output, and the last words. A
 * channel without a terminal is never written to: its bytes belong to a protocol. Steps of a turn
 * of proxy/ssh/session.c.
 */
#include "proxy/ssh/session.h"

#include <string.h>

#include <sallyport/text.h>

#define RETRY_MS   200  /* output stands inside a sequence, or the window is shut */
#define STUCK_MS   3000 /* output that stops inside a sequence for so long is cut short */
#define NUDGE_MS   50   /* before each of the two window changes that make a program draw anew */
#define NOTICE_MAX 8192

static bool is_screen(const struct channel *c)
{
    return c->has_pty && c->has_started && c->state == CHANNEL_OPEN && !c->user.sent_eof;
}

void notice_add(struct session *s, const char *text)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        if (is_screen(c))
            buffer_put(&c->notice, text, strlen(text) + 1);
    }
    session_want_turn(s);
}

/* Between two pieces of output, or after one that does not go on. */
static bool is_moment(struct channel *c, int64_t now_ms)
{
    if (terminal_is_ground(&c->terminal)) {
        c->stuck_at_ms = 0;
        return true;
    }
    if (c->stuck_at_ms == 0 || c->stuck_bytes != c->bytes_out) {
        c->stuck_at_ms = now_ms;
        c->stuck_bytes = c->bytes_out;
    }
    return now_ms - c->stuck_at_ms >= STUCK_MS;
}

/* Show the oldest text; false when this is not the moment. */
static bool show_next(struct channel *c, int64_t now_ms)
{
    const char *text = (const char *)c->notice.data;
    struct buffer out;
    bool needs_redraw = false, is_shown;

    if (!is_moment(c, now_ms))
        return false;
    buffer_init(&out, NOTICE_MAX);
    terminal_abandon(&c->terminal, &out);
    terminal_notice(&c->terminal, text, &out, &needs_redraw);
    is_shown = !out.failed && pump_show(c, out.data, out.len, false);
    buffer_finish(&out);
    if (!is_shown)
        return false;
    c->needs_redraw |= needs_redraw;
    record_notice(c, text);
    buffer_consume(&c->notice, strlen(text) + 1);
    return true;
}

static void step_redraw(struct channel *c, int64_t now_ms)
{
    if (c->redraw_at_ms == 0)
        return;
    if (now_ms < c->redraw_at_ms) {
        session_want_timer(c->session, c->redraw_at_ms);
        return;
    }
    c->redraw_at_ms = 0;
    if (!c->is_shrunk &&
        !c->terminal.on_alternate) /* the program is gone, and the notice with it */
        return;
    c->is_shrunk = !c->is_shrunk;
    if (c->is_shrunk) {
        c->redraw_at_ms = now_ms + NUDGE_MS;
        session_want_timer(c->session, c->redraw_at_ms);
    }
    request_add_resize(c, c->cols, (uint16_t)(c->is_shrunk ? c->rows - 1 : c->rows));
    session_want_turn(c->session);
}

void notice_step(struct channel *c, int64_t now_ms)
{
    step_redraw(c, now_ms);
    if (c->notice.failed)
        buffer_reset(&c->notice);
    if (!is_screen(c))
        return;
    while (c->notice.len > 0) {
        if (!show_next(c, now_ms)) {
            session_want_timer(c->session, now_ms + RETRY_MS);
            return;
        }
    }
}

/* A full-screen program does not know that the notice is there: a change of the window's size makes
 * it draw everything again. Done at the next key, so that the notice is not wiped unread, and a
 * moment behind it: less throws a key away when SIGWINCH comes while it is read. */
void notice_user_key(struct channel *c, int64_t now_ms)
{
    if (!c->needs_redraw || c->redraw_at_ms != 0 || c->rows < 2)
        return;
    c->needs_redraw = false;
    c->redraw_at_ms = now_ms + NUDGE_MS;
    session_want_timer(c->session, c->redraw_at_ms);
}

void notice_final(struct session *s, const char *text)
{
    struct channel *c;

    TAILQ_FOREACH (c, &s->channels, link) {
        struct buffer out;

        if (!is_screen(c) && c != s->menu_channel && !(c == s->asking_channel && c->has_pty))
            continue;
        buffer_init(&out, NOTICE_MAX);
        terminal_final_notice(&c->terminal, text, &out);
        if (!out.failed && pump_show(c, out.data, out.len, false))
            record_notice(c, text);
        buffer_finish(&out);
    }
}
