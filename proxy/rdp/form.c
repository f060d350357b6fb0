/*
 * The model of the login screen: what typing and clicking do to its fields, list and buttons;
 * form.h. Where things stand is form_draw.c's.
 */
#include "proxy/rdp/form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#define DOUBLE_CLICK_MS 700
#define WHEEL_ROWS      3

/* ---- what is to be drawn anew ---- */

void form_mark(struct form *f, const struct rect *r)
{
    struct rect *last;
    int right, bottom;

    if (r->width <= 0 || r->height <= 0)
        return;
    if (f->dirty_count < FORM_DIRTY_MAX) {
        f->dirty[f->dirty_count++] = *r;
        return;
    }
    last = &f->dirty[FORM_DIRTY_MAX - 1];
    right = last->x + last->width > r->x + r->width ? last->x + last->width : r->x + r->width;
    bottom = last->y + last->height > r->y + r->height ? last->y + last->height : r->y + r->height;
    last->x = last->x < r->x ? last->x : r->x;
    last->y = last->y < r->y ? last->y : r->y;
    last->width = right - last->x;
    last->height = bottom - last->y;
}

static void mark_all(struct form *f)
{
    f->dirty_count = 1;
    f->dirty[0] = (struct rect){0, 0, f->width, f->height};
}

bool form_take_dirty(struct form *f, struct rect *out)
{
    while (f->dirty_count > 0) {
        struct rect r = f->dirty[0];

        f->dirty_count--;
        memmove(f->dirty, f->dirty + 1, f->dirty_count * sizeof(*f->dirty));
        if (r.x < 0) {
            r.width += r.x;
            r.x = 0;
        }
        if (r.y < 0) {
            r.height += r.y;
            r.y = 0;
        }
        r.width = r.width > f->width - r.x ? f->width - r.x : r.width;
        r.height = r.height > f->height - r.y ? f->height - r.y : r.height;
        if (r.width > 0 && r.height > 0) {
            *out = r;
            return true;
        }
    }
    return false;
}

static struct rect rect_of(const struct form_layout *l, enum form_part part)
{
    switch (part) {
    case FORM_PART_FIELD:
        return l->field[0];
    case FORM_PART_SECOND:
        return l->field[1];
    case FORM_PART_LIST:
        return l->list;
    case FORM_PART_OK:
        return l->ok;
    case FORM_PART_CANCEL:
        return l->cancel;
    case FORM_PART_KEYBOARD:
        return l->keyboard;
    default:
        return (struct rect){0};
    }
}

static void mark_part(struct form *f, enum form_part part)
{
    struct form_layout l;
    struct rect r;

    form_layout(f, &l);
    r = rect_of(&l, part);
    form_mark(f, &r);
}

static void mark_labels(struct form *f)
{
    struct form_layout l;

    form_layout(f, &l);
    form_mark(f, &l.label[0]);
    form_mark(f, &l.label[1]);
}

/* ---- pages ---- */

void form_init(struct form *f, uint16_t width, uint16_t height)
{
    int by_height = height / 40, by_width = width / 48;

    memset(f, 0, sizeof(*f));
    f->width = width;
    f->height = height;
    f->size = by_height < by_width ? by_height : by_width;
    if (f->size < 13)
        f->size = width < 320 || height < 300 ? 9 : 13;
    if (f->size > 60)
        f->size = 60;
}

void form_forget_rows(struct form *f)
{
    free(f->rows);
    free(f->shown);
    f->rows = NULL;
    f->shown = NULL;
    f->count = f->total = f->shown_count = f->selected = f->top = 0;
    f->is_loaded = false;
}

void form_finish(struct form *f)
{
    form_forget_rows(f);
    memory_wipe(f, sizeof(*f));
}

void form_open(struct form *f, enum form_page page, const char *title, const char *text)
{
    static const char *const oks[] = {"Log in", "OK", "Connect"};
    static const char *const cancels[] = {"Disconnect", "Cancel", "Disconnect"};

    f->page = page;
    memory_wipe(f->fields, sizeof(f->fields));
    text_copy(f->title, sizeof(f->title), title);
    text_copy(f->text, sizeof(f->text), text);
    text_copy(f->ok, sizeof(f->ok), oks[page]);
    text_copy(f->cancel, sizeof(f->cancel), cancels[page]);
    f->label[0][0] = f->label[1][0] = f->status[0] = '\0';
    f->is_busy = false;
    f->pressed = FORM_PART_NONE;
    f->focus = FORM_PART_FIELD;
    form_measure(f);
    mark_all(f);
}

void form_set_label(struct form *f, unsigned field, const char *text, bool is_secret)
{
    text_copy(f->label[field], sizeof(f->label[field]), text);
    f->fields[field].is_secret = is_secret;
    form_measure(f);
    mark_all(f);
}

/* Lays nothing out anew: the line for it is always there. */
void form_set_status(struct form *f, const char *text, bool is_error, bool is_busy)
{
    struct form_layout l;

    text_copy(f->status, sizeof(f->status), text);
    f->is_error = is_error;
    form_layout(f, &l);
    form_mark(f, &l.status);
    if (f->is_busy != is_busy) {
        f->is_busy = is_busy;
        form_mark(f, &l.ok);
        mark_part(f, f->focus);
    }
}

void form_set_caps(struct form *f, bool is_caps)
{
    if (f->is_caps == is_caps)
        return;
    f->is_caps = is_caps;
    mark_labels(f);
}

void form_set_keyboard(struct form *f, const char *name)
{
    text_copy(f->keyboard, sizeof(f->keyboard), name);
    mark_part(f, FORM_PART_KEYBOARD);
}

void form_focus(struct form *f, enum form_part part)
{
    if (f->focus == part)
        return;
    mark_part(f, f->focus);
    f->focus = part;
    mark_part(f, part);
}

/* ---- fields ---- */

static struct form_field *focused_field(struct form *f)
{
    return f->focus == FORM_PART_FIELD    ? &f->fields[0]
           : f->focus == FORM_PART_SECOND ? &f->fields[1]
                                          : NULL;
}

static size_t put_utf8(char *dst, uint32_t c)
{
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        dst[0] = (char)(0xc0 | c >> 6);
        dst[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        dst[0] = (char)(0xe0 | c >> 12);
        dst[1] = (char)(0x80 | (c >> 6 & 0x3f));
        dst[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    dst[0] = (char)(0xf0 | c >> 18);
    dst[1] = (char)(0x80 | (c >> 12 & 0x3f));
    dst[2] = (char)(0x80 | (c >> 6 & 0x3f));
    dst[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

bool form_field_text(const struct form_field *field, char *dst, size_t cap)
{
    size_t len = 0;

    for (size_t i = 0; i < field->len; i++) {
        if (len + 4 >= cap) {
            memory_wipe(dst, cap);
            return false;
        }
        len += put_utf8(dst + len, field->text[i]);
    }
    dst[len] = '\0';
    return true;
}

void form_clear_field(struct form *f, unsigned field)
{
    bool is_secret = f->fields[field].is_secret;

    memory_wipe(&f->fields[field], sizeof(f->fields[field]));
    f->fields[field].is_secret = is_secret;
    mark_part(f, field ? FORM_PART_SECOND : FORM_PART_FIELD);
}

/* Only what a keyboard types can be in a field: nothing that is invisible or ends a text. */
static bool is_typed(uint32_t c)
{
    return c >= 0x20 && (c < 0x7f || c >= 0xa0) && (c < 0xd800 || c >= 0xe000) && c <= 0x10ffff;
}

static bool insert(struct form_field *field, uint32_t c)
{
    if (!is_typed(c) || field->len == FORM_FIELD_MAX)
        return false;
    memmove(field->text + field->caret + 1, field->text + field->caret,
            (field->len - field->caret) * sizeof(*field->text));
    field->text[field->caret++] = c;
    field->len++;
    return true;
}

static bool erase(struct form_field *field, size_t at)
{
    if (at >= field->len)
        return false;
    memmove(field->text + at, field->text + at + 1, (field->len - at - 1) * sizeof(*field->text));
    field->text[--field->len] = 0;
    return true;
}

void form_set_field(struct form *f, unsigned field, const char *utf8)
{
    struct form_field *to = &f->fields[field];

    form_clear_field(f, field);
    while (*utf8) {
        const uint8_t *p = (const uint8_t *)utf8;
        size_t more = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
        uint32_t c = more == 0 ? *p : *p & (0x3fu >> more);

        for (size_t i = 1; i <= more; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return;
            c = c << 6 | (p[i] & 0x3f);
        }
        if (!insert(to, c))
            return;
        utf8 += more + 1;
    }
}

/* ---- the list ---- */

static bool matches(const struct form *f, const struct link_target_row *row)
{
    char filter[FORM_FIELD_MAX * 4 + 1];

    return !form_field_text(&f->fields[0], filter, sizeof(filter)) || filter[0] == '\0' ||
           strcasestr(row->target, filter) || strcasestr(row->account, filter);
}

/* The selected row is one that is seen. */
static void scroll_to_selected(struct form *f)
{
    struct form_layout l;

    form_layout(f, &l);
    if (f->selected < f->top)
        f->top = f->selected;
    else if (l.rows && f->selected >= f->top + l.rows)
        f->top = f->selected - l.rows + 1;
    mark_part(f, FORM_PART_LIST);
}

static void apply_filter(struct form *f)
{
    f->shown_count = f->selected = f->top = 0;
    for (size_t i = 0; i < f->count; i++)
        if (matches(f, &f->rows[i]))
            f->shown[f->shown_count++] = (uint16_t)i;
    mark_part(f, FORM_PART_LIST);
}

static void insert_row(struct form *f, const struct link_target_row *row)
{
    size_t at = f->count;

    while (at > 0 && f->rows[at - 1].last_used_wall_us < row->last_used_wall_us)
        at--;
    memmove(f->rows + at + 1, f->rows + at, (f->count - at) * sizeof(*f->rows));
    f->rows[at] = *row;
    f->count++;
}

bool form_add_rows(struct form *f, const struct link_target_row *rows, size_t count, size_t total)
{
    struct link_target_row *all;
    uint16_t *shown;

    f->is_loaded = true;
    f->total = total;
    if (count > FORM_ROWS_MAX - f->count)
        count = FORM_ROWS_MAX - f->count;
    if (count == 0) {
        f->total = f->count; /* whatever the broker says: there is no more to come */
        mark_part(f, FORM_PART_LIST);
        return true;
    }
    if (!(all = reallocarray(f->rows, f->count + count, sizeof(*all))))
        return false;
    f->rows = all;
    if (!(shown = reallocarray(f->shown, f->count + count, sizeof(*shown))))
        return false;
    f->shown = shown;
    for (size_t i = 0; i < count; i++)
        insert_row(f, &rows[i]);
    apply_filter(f);
    return true;
}

bool form_rows_are_complete(const struct form *f)
{
    return f->is_loaded && (f->count >= f->total || f->count >= FORM_ROWS_MAX);
}

const struct link_target_row *form_selected(const struct form *f)
{
    return f->page == FORM_TARGETS && f->selected < f->shown_count ? &f->rows[f->shown[f->selected]]
                                                                   : NULL;
}

static void move_by(struct form *f, long by)
{
    long at = (long)f->selected + by, last = (long)f->shown_count - 1;

    at = at > last ? last : at;
    f->selected = at < 0 ? 0 : (size_t)at;
    scroll_to_selected(f);
}

/* True when the key was one for the list. */
static bool key_in_list(struct form *f, enum form_key key)
{
    struct form_layout l;
    long page;

    if (f->page != FORM_TARGETS)
        return false;
    form_layout(f, &l);
    page = (long)l.rows;
    switch (key) {
    case FORM_KEY_UP:
        move_by(f, -1);
        return true;
    case FORM_KEY_DOWN:
        move_by(f, 1);
        return true;
    case FORM_KEY_PAGE_UP:
        move_by(f, -page);
        return true;
    case FORM_KEY_PAGE_DOWN:
        move_by(f, page);
        return true;
    case FORM_KEY_HOME:
    case FORM_KEY_END:
        if (f->focus != FORM_PART_LIST)
            return false;
        move_by(f, key == FORM_KEY_HOME ? -(long)FORM_ROWS_MAX : (long)FORM_ROWS_MAX);
        return true;
    default:
        return false;
    }
}

/* ---- keys ---- */

static const enum form_part orders[][FORM_PARTS_MAX] = {
    [FORM_LOGIN] = {FORM_PART_FIELD, FORM_PART_SECOND, FORM_PART_OK, FORM_PART_CANCEL},
    [FORM_QUESTION] = {FORM_PART_FIELD, FORM_PART_OK, FORM_PART_CANCEL},
    [FORM_TARGETS] = {FORM_PART_FIELD, FORM_PART_LIST, FORM_PART_OK, FORM_PART_CANCEL},
};

static void focus_next(struct form *f, bool is_back)
{
    const enum form_part *order = orders[f->page];
    size_t count = 0, at = 0;

    while (count < FORM_PARTS_MAX && order[count] != FORM_PART_NONE)
        count++;
    for (size_t i = 0; i < count; i++)
        if (order[i] == f->focus)
            at = i;
    form_focus(f, order[(at + (is_back ? count - 1 : 1)) % count]);
}

static enum form_action submit(struct form *f)
{
    return f->page == FORM_TARGETS && !form_selected(f) ? FORM_NOTHING : FORM_SUBMIT;
}

/* From the user to the password that is still missing; else it is all there. */
static enum form_action enter(struct form *f)
{
    if (f->focus == FORM_PART_CANCEL)
        return FORM_CANCEL;
    if (f->page == FORM_LOGIN && f->fields[0].len == 0) {
        form_focus(f, FORM_PART_FIELD);
        return FORM_NOTHING;
    }
    if (f->page == FORM_LOGIN && f->fields[1].len == 0) {
        form_focus(f, FORM_PART_SECOND);
        return FORM_NOTHING;
    }
    return submit(f);
}

static enum form_action edited(struct form *f, bool has_changed)
{
    if (!has_changed)
        return FORM_NOTHING;
    mark_part(f, f->focus);
    if (f->is_error)
        form_set_status(f, "", false, false);
    if (f->page == FORM_TARGETS)
        apply_filter(f);
    return FORM_NOTHING;
}

static void move_caret(struct form *f, struct form_field *field, size_t to)
{
    field->caret = to > field->len ? field->len : to;
    mark_part(f, f->focus);
}

static enum form_action edit(struct form *f, struct form_field *field, enum form_key key)
{
    switch (key) {
    case FORM_KEY_LEFT:
        move_caret(f, field, field->caret ? field->caret - 1 : 0);
        return FORM_NOTHING;
    case FORM_KEY_RIGHT:
        move_caret(f, field, field->caret + 1);
        return FORM_NOTHING;
    case FORM_KEY_HOME:
        move_caret(f, field, 0);
        return FORM_NOTHING;
    case FORM_KEY_END:
        move_caret(f, field, field->len);
        return FORM_NOTHING;
    case FORM_KEY_BACKSPACE:
        return edited(f, field->caret && erase(field, --field->caret));
    case FORM_KEY_DELETE:
        return edited(f, erase(field, field->caret));
    default:
        return FORM_NOTHING;
    }
}

/* A filter goes first, then the whole screen. */
static enum form_action escape(struct form *f)
{
    if (f->page != FORM_TARGETS || f->fields[0].len == 0)
        return FORM_CANCEL;
    form_clear_field(f, 0);
    return edited(f, true);
}

static enum form_action press_key(struct form *f, const struct form_input *in)
{
    struct form_field *field = focused_field(f);

    if (in->key == FORM_KEY_ESCAPE)
        return f->is_busy ? FORM_CANCEL : escape(f);
    if (f->is_busy)
        return FORM_NOTHING;
    if (in->key == FORM_KEY_ENTER)
        return enter(f);
    if (in->key == FORM_KEY_TAB) {
        focus_next(f, in->is_shift);
        return FORM_NOTHING;
    }
    if (key_in_list(f, in->key))
        return FORM_NOTHING;
    if (!field && (in->key == FORM_KEY_UP || in->key == FORM_KEY_LEFT))
        focus_next(f, true);
    else if (!field && (in->key == FORM_KEY_DOWN || in->key == FORM_KEY_RIGHT))
        focus_next(f, false);
    else if (f->page == FORM_LOGIN && (in->key == FORM_KEY_UP || in->key == FORM_KEY_DOWN))
        form_focus(f, in->key == FORM_KEY_UP ? FORM_PART_FIELD : FORM_PART_SECOND);
    else if (field)
        return edit(f, field, in->key);
    return FORM_NOTHING;
}

/* A letter on the list goes to its filter; a blank on a button presses it. */
static enum form_action press_char(struct form *f, uint32_t c)
{
    struct form_field *field = focused_field(f);

    if (f->is_busy)
        return FORM_NOTHING;
    if (!field && c == ' ' && f->focus != FORM_PART_LIST)
        return enter(f);
    if (!field && f->page == FORM_TARGETS) {
        form_focus(f, FORM_PART_FIELD);
        field = focused_field(f);
    }
    return field ? edited(f, insert(field, c)) : FORM_NOTHING;
}

/* ---- the mouse ---- */

static bool is_in(const struct rect *r, int x, int y)
{
    return x >= r->x && y >= r->y && x < r->x + r->width && y < r->y + r->height;
}

static enum form_part part_at(const struct form_layout *l, int x, int y)
{
    for (enum form_part part = FORM_PART_FIELD; part <= FORM_PART_KEYBOARD; part++) {
        struct rect r = rect_of(l, part);

        if (is_in(&r, x, y))
            return part;
    }
    return FORM_PART_NONE;
}

static enum form_action click_row(struct form *f, const struct form_layout *l,
                                  const struct form_input *in)
{
    size_t row = f->top + (size_t)((in->y - l->list.y) / l->row);
    bool is_second =
        row == f->clicked && f->clicked_ms && in->now_ms - f->clicked_ms < DOUBLE_CLICK_MS;

    form_focus(f, FORM_PART_LIST);
    f->clicked = row;
    f->clicked_ms = in->now_ms;
    if (row >= f->shown_count)
        return FORM_NOTHING;
    f->selected = row;
    scroll_to_selected(f);
    return is_second ? FORM_SUBMIT : FORM_NOTHING;
}

static enum form_action press_at(struct form *f, const struct form_input *in)
{
    struct form_layout l;
    enum form_part part;

    form_layout(f, &l);
    part = part_at(&l, in->x, in->y);
    if (f->is_busy && part != FORM_PART_CANCEL)
        return FORM_NOTHING;
    switch (part) {
    case FORM_PART_FIELD:
    case FORM_PART_SECOND:
        form_focus(f, part);
        move_caret(f, focused_field(f),
                   form_caret_at(f, &l, part == FORM_PART_SECOND ? 1 : 0, in->x));
        break;
    case FORM_PART_LIST:
        return click_row(f, &l, in);
    case FORM_PART_KEYBOARD:
        return FORM_TOGGLE_KEYBOARD;
    case FORM_PART_OK:
    case FORM_PART_CANCEL:
        f->pressed = part;
        form_focus(f, part);
        mark_part(f, part);
        break;
    default:
        break;
    }
    return FORM_NOTHING;
}

static enum form_action release_at(struct form *f, const struct form_input *in)
{
    enum form_part held = f->pressed;
    struct form_layout l;

    if (held == FORM_PART_NONE)
        return FORM_NOTHING;
    f->pressed = FORM_PART_NONE;
    mark_part(f, held);
    form_layout(f, &l);
    if (part_at(&l, in->x, in->y) != held)
        return FORM_NOTHING;
    if (held == FORM_PART_CANCEL)
        return FORM_CANCEL;
    return f->is_busy ? FORM_NOTHING : enter(f);
}

static void turn_wheel(struct form *f, int rows)
{
    struct form_layout l;
    long top = (long)f->top + rows * WHEEL_ROWS, last;

    form_layout(f, &l);
    if (f->page != FORM_TARGETS || l.rows == 0)
        return;
    last = (long)f->shown_count - (long)l.rows;
    top = top > last ? last : top;
    f->top = top < 0 ? 0 : (size_t)top;
    mark_part(f, FORM_PART_LIST);
}

enum form_action form_input(struct form *f, const struct form_input *in)
{
    switch (in->kind) {
    case FORM_CHAR:
        return press_char(f, in->character);
    case FORM_KEY:
        return press_key(f, in);
    case FORM_PRESS:
        return press_at(f, in);
    case FORM_RELEASE:
        return release_at(f, in);
    case FORM_WHEEL:
        turn_wheel(f, in->rows < 0 ? -1 : in->rows > 0);
        return FORM_NOTHING;
    }
    return FORM_NOTHING;
}
