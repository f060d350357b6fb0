/*
 * The login screen between the form, the client and the broker; screen.h.
 */
#include "proxy/rdp/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/form.h"
#include "proxy/rdp/keyboard.h"
#include "proxy/rdp/session.h"
#include "proxy/rdp/stage.h"

#define TYPED_MAX (FORM_FIELD_MAX * 4 + 8)

enum screen_asks { ASKS_LOGIN, ASKS_FACTOR, ASKS_TARGET, ASKS_SECRET };

struct screen {
    struct form form;
    struct keyboard keyboard;
    enum screen_asks asks;
    bool has_password; /* typed; the broker's first question is answered with it */
    char fallback[NAME_MAX_LEN +
                  1];            /* the target that the client named elsewhere than in the name */
    char note[SESSION_TEXT_MAX]; /* what went wrong: for the page that comes next */
    char info[FORM_TEXT_MAX];    /* told without a question */
};

static void take_input(void *arg, const struct input_event *e);

/* ---- the stage ---- */

static bool next_dirty(void *arg, struct rect *out)
{
    const struct rdp_session *s = arg;

    return form_take_dirty(&s->screen->form, out);
}

static void paint(void *arg, struct picture *tile, int x, int y)
{
    const struct rdp_session *s = arg;

    form_paint(&s->screen->form, tile, x, y);
}

static void exposed(void *arg)
{
    const struct rdp_session *s = arg;
    struct form *f = &s->screen->form;
    const struct rect all = {0, 0, f->width, f->height};

    f->dirty_count = 0;
    form_mark(f, &all);
}

/* False after the session was ended. */
static bool begin(struct rdp_session *s)
{
    const struct stage_actor actor = {next_dirty, paint, take_input, exposed, s};
    uint16_t width, height;

    if (s->screen)
        return true;
    s->screen = calloc(1, sizeof(*s->screen));
    if (!s->screen || !rdp_stage_begin(s)) {
        rdp_end(s, END_RELAY_CRASHED, "relay", "out of memory", "");
        return false;
    }
    rdp_stage_play(s, &actor);
    rdp_stage_size(s, &width, &height);
    form_init(&s->screen->form, width, height);
    keyboard_init(&s->screen->keyboard, s->u.client.keyboard);
    if (keyboard_can_toggle(&s->screen->keyboard))
        form_set_keyboard(&s->screen->form, keyboard_name(&s->screen->keyboard));
    return true;
}

void rdp_screen_finish(struct rdp_session *s)
{
    if (!s->screen)
        return;
    rdp_stage_play(s, NULL);
    form_finish(&s->screen->form);
    memory_wipe(s->screen, sizeof(*s->screen));
    free(s->screen);
    s->screen = NULL;
}

void rdp_screen_step(struct rdp_session *s)
{
    if (s->stage && s->phase < PHASE_ENDING)
        rdp_stage_step(s);
}

/* The note of the page before. */
static void show_note(struct screen *c)
{
    form_set_status(&c->form, c->note, c->note[0] != '\0', false);
    c->note[0] = '\0';
}

static void say_busy(struct screen *c, const char *text)
{
    form_set_status(&c->form, text, false, true);
}

/* ---- pages ---- */

void rdp_screen_login(struct rdp_session *s, const char *name)
{
    struct login named;
    struct screen *c;

    if (!begin(s))
        return;
    c = s->screen;
    c->asks = ASKS_LOGIN;
    if (login_parse(&named, name, strlen(name), s->separators) < 0 || !named.target[0])
        text_copy(c->fallback, sizeof(c->fallback), s->u.login.target);
    form_open(&c->form, FORM_LOGIN, "Sallyport", s->banner ? s->banner : "");
    form_set_label(&c->form, 0, "User", false);
    form_set_label(&c->form, 1, "Password", true);
    form_set_field(&c->form, 0, name);
    if (name[0])
        form_focus(&c->form, FORM_PART_SECOND);
    s->phase = PHASE_SCREEN;
}

static void ask(struct rdp_session *s, enum screen_asks what, const char *text, const char *label,
                bool is_secret)
{
    struct screen *c = s->screen;
    char title[160];

    snprintf(title, sizeof(title), "Log in as %.64s", s->u.login.user);
    if (what == ASKS_SECRET)
        snprintf(title, sizeof(title), "Log in to %.64s", s->t.name);
    c->asks = what;
    form_open(&c->form, FORM_QUESTION, title, text);
    form_set_label(&c->form, 0, label, is_secret);
    show_note(c);
}

void rdp_screen_ask_secret(struct rdp_session *s)
{
    char label[ACCOUNT_MAX_LEN + 64];

    if (!begin(s))
        return;
    snprintf(label, sizeof(label), "Password of %s", s->t.route->account);
    ask(s, ASKS_SECRET, "", label, true);
}

void rdp_screen_choose(struct rdp_session *s)
{
    struct screen *c;
    char title[160];

    if (!begin(s))
        return;
    c = s->screen;
    c->asks = ASKS_TARGET;
    snprintf(title, sizeof(title), "Choose a target, %.64s", s->u.login.user);
    form_open(&c->form, FORM_TARGETS, title, "");
    form_set_label(&c->form, 0, "Type to filter", false);
    show_note(c);
    form_forget_rows(&c->form);
    s->phase = PHASE_SCREEN;
    relay_targets(s->relay, 0);
}

void rdp_screen_targets(struct rdp_session *s, const struct link_target_row *rows, size_t count,
                        size_t total)
{
    struct screen *c = s->screen;

    if (!c || c->asks != ASKS_TARGET || form_rows_are_complete(&c->form))
        return;
    if (!form_add_rows(&c->form, rows, count, total))
        rdp_end(s, END_RELAY_CRASHED, "relay", "out of memory", "");
    else if (!form_rows_are_complete(&c->form))
        relay_targets(s->relay, (uint32_t)c->form.count);
    rdp_want_turn(s);
}

/* ---- the login ---- */

void rdp_screen_factor(struct rdp_session *s)
{
    if (!begin(s))
        return;
    if (!s->screen->form.title[0])
        ask(s, ASKS_FACTOR, "", "", true); /* the question takes its place */
    s->phase = PHASE_AUTH;
    say_busy(s->screen, "Checking ...");
    if (!relay_auth_keyboard(s->relay, s->u.login.user))
        rdp_end(s, END_POLICY, "policy", "the login failed",
                "You need a second factor, which this proxy cannot ask for now.");
}

bool rdp_screen_denied(struct rdp_session *s, const struct link_auth_result *result)
{
    struct screen *c = s->screen;
    const char *text = result->text;

    if (!c || result->result == LINK_AUTH_DISCONNECT)
        return false;
    c->has_password = false;
    if (result->methods == LINK_METHOD_KEYBOARD) { /* the first factor was right */
        text_copy(c->note, sizeof(c->note), text[0] ? text : "That was not right.");
        rdp_screen_factor(s);
        return true;
    }
    if (c->asks != ASKS_LOGIN) { /* it began elsewhere, or with other questions */
        text_copy(c->note, sizeof(c->note), text[0] ? text : "The login failed.");
        rdp_screen_login(s, s->u.login.user);
        show_note(c);
        return true;
    }
    form_clear_field(&c->form, 1);
    form_focus(&c->form, FORM_PART_SECOND);
    form_set_status(&c->form, text[0] ? text : "Wrong user name or password.", true, false);
    s->phase = PHASE_SCREEN;
    return true;
}

static void answer(struct rdp_session *s, const void *text, size_t len)
{
    s->phase = PHASE_AUTH;
    relay_auth_answer(s->relay, text, len);
}

/* What PAM or we tell, with or without a question. */
static void add_info(struct screen *c, const char *text)
{
    size_t len = strlen(c->info);

    while (*text == '\n')
        text++;
    if (!*text)
        return;
    if (len > 0 && c->info[len - 1] != '\n' && len + 1 < sizeof(c->info)) {
        c->info[len++] = '\n';
        c->info[len] = '\0';
    }
    text_copy(c->info + len, sizeof(c->info) - len, text);
}

void rdp_screen_prompt(struct rdp_session *s, const struct link_auth_prompt *p)
{
    struct screen *c = s->screen;
    const struct secret *password = s->u.password;

    if (!c || s->phase != PHASE_AUTH)
        return;
    add_info(c, p->banner);
    add_info(c, p->instruction);
    if (!p->has_prompt) {
        answer(s, "", 0);
    } else if (c->has_password && !p->has_echo && password) {
        c->has_password = false;
        answer(s, password->data, password->len);
    } else {
        c->has_password = false;
        ask(s, ASKS_FACTOR, c->info, p->prompt, !p->has_echo);
        memory_wipe(c->info, sizeof(c->info));
        s->phase = PHASE_SCREEN;
    }
    rdp_want_turn(s);
}

static void log_in(struct rdp_session *s)
{
    struct screen *c = s->screen;
    char name[TYPED_MAX], password[TYPED_MAX];
    const char *user;

    if (!form_field_text(&c->form.fields[0], name, sizeof(name)))
        name[0] = '\0';
    if (!form_field_text(&c->form.fields[1], password, sizeof(password)))
        password[0] = '\0';
    user = rdp_user_name(s, name, c->fallback);
    rdp_user_keep_password(&s->u, password);
    c->has_password = true;
    s->phase = PHASE_AUTH;
    say_busy(c, "Checking ...");
    if (!relay_auth_keyboard(s->relay, user))
        relay_auth_password(s->relay, user, password);
    memory_wipe(password, sizeof(password));
}

/* ---- the target ---- */

void rdp_screen_connecting(struct rdp_session *s, const char *target)
{
    char text[SESSION_TEXT_MAX];

    if (!s->screen)
        return;
    snprintf(text, sizeof(text), "Connecting to %s ...", target);
    say_busy(s->screen, text);
}

bool rdp_screen_refused(struct rdp_session *s, const char *text)
{
    if (!s->screen || s->phase != PHASE_ROUTING)
        return false;
    text_copy(s->screen->note, sizeof(s->screen->note), text);
    rdp_screen_choose(s);
    return true;
}

bool rdp_screen_failed(struct rdp_session *s, const char *text)
{
    bool is_before = s->phase == PHASE_TARGET ||
                     (s->phase == PHASE_RELAYING && s->stage && !s->desktop.has_demand);

    if (!s->screen || !is_before)
        return false;
    rdp_record_give_back(s); /* before the broker closes it */
    if (s->phase >= PHASE_ENDING)
        return true;
    if (!relay_back(s->relay, END_TARGET_UNREACHABLE, text))
        return false;
    text_copy(s->screen->note, sizeof(s->screen->note), text);
    rdp_leg_stop(&s->target, true);
    s->phase = PHASE_BACK;
    return true;
}

void rdp_screen_given_back(struct rdp_session *s)
{
    if (s->phase != PHASE_BACK)
        return;
    rdp_target_reset(s);
    rdp_screen_choose(s);
    rdp_want_turn(s);
}

static void choose(struct rdp_session *s)
{
    const struct link_target_row *row = form_selected(&s->screen->form);

    if (!row)
        return;
    rdp_screen_connecting(s, row->target);
    s->phase = PHASE_ROUTING;
    relay_route(s->relay, row->account, row->target);
}

/* ---- what the user does ---- */

static void submit(struct rdp_session *s)
{
    struct screen *c = s->screen;
    char text[TYPED_MAX];

    switch (c->asks) {
    case ASKS_LOGIN:
        log_in(s);
        return;
    case ASKS_TARGET:
        choose(s);
        return;
    case ASKS_FACTOR:
    case ASKS_SECRET:
        break;
    }
    if (!form_field_text(&c->form.fields[0], text, sizeof(text)))
        text[0] = '\0';
    if (c->asks == ASKS_SECRET) {
        rdp_screen_connecting(s, s->t.name);
        rdp_target_secret(s, text);
    } else {
        say_busy(c, "Checking ...");
        answer(s, text, strlen(text));
    }
    memory_wipe(text, sizeof(text));
}

static void leave(struct rdp_session *s)
{
    const char *user = s->u.login.user[0] ? s->u.login.user : "client";

    if (s->screen->asks == ASKS_SECRET && !s->screen->form.is_busy &&
        rdp_screen_failed(s, "no password was given"))
        return;
    rdp_end(s, END_USER_EXIT, user, "the user left the login screen", "");
}

static void act(struct rdp_session *s, enum form_action action)
{
    struct screen *c = s->screen;

    switch (action) {
    case FORM_SUBMIT:
        if (!c->form.is_busy)
            submit(s);
        break;
    case FORM_CANCEL:
        leave(s);
        break;
    case FORM_TOGGLE_KEYBOARD:
        if (keyboard_toggle(&c->keyboard))
            form_set_keyboard(&c->form, keyboard_name(&c->keyboard));
        break;
    case FORM_NOTHING:
        break;
    }
}

static bool pointer_input(const struct input_event *e, struct form_input *out)
{
    *out = (struct form_input){.x = e->x, .y = e->y};
    if (e->flags & INPUT_POINTER_WHEEL) {
        out->kind = FORM_WHEEL;
        out->rows = e->flags & INPUT_POINTER_NEGATIVE ? 1 : -1;
        return true;
    }
    if (!(e->flags & INPUT_POINTER_BUTTON1))
        return false;
    out->kind = e->flags & INPUT_POINTER_DOWN ? FORM_PRESS : FORM_RELEASE;
    out->now_ms = clock_mono_ms();
    return true;
}

static void take_input(void *arg, const struct input_event *e)
{
    struct rdp_session *s = arg;
    struct screen *c = s->screen;
    struct form_input in;
    bool is_some =
        e->kind == INPUT_POINTER ? pointer_input(e, &in) : keyboard_event(&c->keyboard, e, &in);

    form_set_caps(&c->form, c->keyboard.is_caps);
    if (is_some)
        act(s, form_input(&c->form, &in));
    memory_wipe(&in, sizeof(in));
}
