/*
 * A login name without a target: a menu on a terminal, otherwise one line of help on stderr and
 * exit status 1. The channel that showed the menu becomes the session's first one: what was asked
 * on it (terminal, environment, shell) is asked again at the target. Steps of a turn.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "proxy/ssh/menu.h"

static void draw(struct channel *c)
{
    struct buffer out;

    buffer_init(&out, 64 * 1024);
    menu_draw(c->session->menu, clock_wall_us(), &out);
    if (!out.failed)
        (void)pump_show(c, out.data, out.len, false);
    buffer_finish(&out);
}

static void help(struct channel *c)
{
    const char *text = c->session->menu_channel
                           ? "choose a target in the other window first\r\n"
                           : "usage: ssh USER+TARGET@HOST (or USER+ACCOUNT+TARGET); targets: "
                             "ssh -t USER@HOST; more: ssh USER@HOST help\r\n";
    size_t len = strlen(text);

    if (!c->has_pty) /* a plain newline where no terminal turns it into one */
        len -= 2;
    (void)pump_show(c, text, len, true);
    if (!c->has_pty)
        (void)pump_show(c, "\n", 1, true);
    channel_exit_local(c, 1);
}

static void begin_menu(struct channel *c)
{
    struct session *s = c->session;

    s->menu = menu_create(s->login.login.user, c->term, c->cols, c->rows);
    if (!s->menu) {
        channel_exit_local(c, 1);
        return;
    }
    s->menu_channel = c;
    draw(c);
    relay_targets(s->relay, 0);
}

void choose_request(struct channel *c, bool starts)
{
    struct session *s = c->session;

    if (ask_request(c, starts))
        return;
    if (c == s->menu_channel && s->menu) {
        menu_resize(s->menu, c->cols, c->rows);
        draw(c);
    } else if (starts && c->has_pty && c->kind == CHANNEL_SHELL && s->phase == PHASE_CHOOSING &&
               !s->menu_channel) {
        begin_menu(c);
    } else if (!starts && c->door) {
        door_resize(c);
    } else if (starts && c->kind == CHANNEL_EXEC && s->phase == PHASE_CHOOSING && door_begin(c)) {
        return;
    } else if (starts) {
        help(c);
    }
}

static void choose(struct channel *c)
{
    struct session *s = c->session;
    const struct link_target_row *row = menu_selected(s->menu);
    char text[SESSION_TEXT_MAX];

    snprintf(text, sizeof(text), "Connecting to %s ...", row->target);
    menu_set_message(s->menu, text);
    if (s->menu->is_dumb) /* a list is not printed again for one line */
        (void)(pump_show(c, "\r\n", 2, false) && pump_show(c, text, strlen(text), false));
    else
        draw(c);
    s->phase = PHASE_ROUTING;
    relay_route(s->relay, row->account, row->target);
}

static void quit(struct channel *c)
{
    struct buffer out;

    buffer_init(&out, 64);
    menu_clear(c->session->menu, &out);
    if (!out.failed)
        (void)pump_show(c, out.data, out.len, false);
    buffer_finish(&out);
    channel_exit_local(c, 0);
}

static void press(struct channel *c, uint8_t key)
{
    struct session *s = c->session;

    if (s->phase != PHASE_CHOOSING) { /* connecting: only leaving is possible */
        if (key == 3)
            quit(c);
        return;
    }
    switch (menu_key(s->menu, key)) {
    case MENU_DRAW:
        draw(c);
        break;
    case MENU_ECHO:
        (void)pump_show(c, s->menu->echo, strlen(s->menu->echo), false);
        break;
    case MENU_CHOSEN:
        choose(c);
        break;
    case MENU_QUIT:
        quit(c);
        break;
    case MENU_NOTHING:
        break;
    }
}

/* Keys go to the menu; what is typed after Enter waits for the target. */
void choose_input(struct channel *c)
{
    struct spool *in = &c->user.in[0];

    if (c != c->session->menu_channel || !c->session->menu)
        return;
    while (in->len > 0 && !c->user.sent_close) {
        uint8_t key = in->data[in->start];

        if (c->session->phase != PHASE_CHOOSING && key != 3)
            break;
        in->start++;
        in->len--;
        press(c, key);
    }
}

void choose_targets(struct session *s, const struct link_target_row *rows, size_t count,
                    size_t total)
{
    if (!s->menu || !s->menu_channel)
        return;
    if (!menu_add(s->menu, rows, count, total)) {
        channel_exit_local(s->menu_channel, 1);
    } else {
        if (!menu_is_complete(s->menu))
            relay_targets(s->relay, (uint32_t)s->menu->count);
        draw(s->menu_channel);
    }
    session_want_turn(s);
}

void choose_failed(struct session *s, const char *text)
{
    if (!s->menu || !s->menu_channel)
        return;
    s->phase = PHASE_CHOOSING;
    menu_set_message(s->menu, text);
    draw(s->menu_channel);
    session_want_turn(s);
}

bool choose_again(struct session *s, const char *text)
{
    if (!s->menu || !s->menu_channel || s->phase != PHASE_TARGET ||
        s->menu_channel->user.got_close || !relay_back(s->relay, END_TARGET_UNREACHABLE, text))
        return false;
    s->phase = PHASE_BACK;
    menu_set_message(s->menu, text);
    return true;
}

void choose_given_back(struct session *s)
{
    if (s->phase != PHASE_BACK)
        return;
    channel_detach(s, &s->target);
    target_close(s);
    s->phase = PHASE_CHOOSING;
    if (s->menu && s->menu_channel)
        draw(s->menu_channel);
    session_want_turn(s);
}

void choose_done(struct session *s)
{
    struct buffer out;

    if (!s->menu)
        return;
    buffer_init(&out, 64);
    menu_clear(s->menu, &out);
    if (!out.failed && s->menu_channel)
        (void)pump_show(s->menu_channel, out.data, out.len, false);
    buffer_finish(&out);
    menu_destroy(s->menu);
    s->menu = NULL;
}
