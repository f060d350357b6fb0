/*
 * Where the parts of the login screen stand, and their pixels; form.h. Everything follows from the
 * size of the screen, so that it is as readable on a large one as on a small one. A picture shows
 * any part of the screen: large screens are drawn piece by piece.
 */
#include <string.h>

#include "proxy/rdp/form.h"

#define GROUND   0x18242fu
#define PANEL    0xf3f5f7u
#define EDGE     0xe8b04au
#define INK      0x1b2733u
#define DIM      0x667482u
#define FIELD    0xffffffu
#define LINE     0xaab4beu
#define ACCENT   0x2a6db0u
#define ON       0xffffffu
#define ERROR    0xb3261eu
#define BUTTON   0xdfe5eau
#define HELD     0xb9c6d2u
#define INACTIVE 0x9fb6ccu

#define STATUS_LINES    3
#define ROWS_MAX        12
#define LABEL_LINES_MAX 4
#define TEXT_MIN        10 /* of the font, at least */
#define CELL_GOOD       8  /* of a line of a picture: phones read it well */
#define CELL_MIN        6
#define CAPS_TEXT       " (Caps Lock is on)"

/* ---- measures ---- */

static struct rect inside(const struct form *f, const struct rect *panel)
{
    int margin = f->size + f->size / 2;

    return (struct rect){panel->x + margin, panel->y + f->size, panel->width - 2 * margin,
                         panel->height - 2 * f->size};
}

/* UTF-8 of the block elements that pictures in texts are made of; the two bits: upper, lower. */
static int block_at(const char *at)
{
    if ((uint8_t)at[0] != 0xe2 || (uint8_t)at[1] != 0x96)
        return -1;
    return (uint8_t)at[2] == 0x80   ? 1
           : (uint8_t)at[2] == 0x84 ? 2
           : (uint8_t)at[2] == 0x88 ? 3
                                    : -1;
}

static bool is_picture(const char *line)
{
    for (; *line && *line != '\n'; line++)
        if (block_at(line) > 0)
            return true;
    return false;
}

static bool has_picture(const struct form *f)
{
    return strstr(f->text, "\xe2\x96\x88") || strstr(f->text, "\xe2\x96\x84");
}

static int panel_width(const struct form *f)
{
    int wanted = f->size * (has_picture(f) ? 60 : 36), room = f->width - f->size;

    return wanted < room ? wanted : room;
}

static int inner_width(const struct form *f)
{
    const struct rect panel = {.width = panel_width(f)};

    return inside(f, &panel).width;
}

/* The next line of the text: a line of a picture is never broken. */
static const char *next_line(const char *at, int size, int room, struct draw_line *out)
{
    const char *end;

    if (!is_picture(at))
        return draw_take_line(at, size, room, out);
    end = strchr(at, '\n');
    *out = (struct draw_line){.start = at, .len = end ? (size_t)(end - at) : strlen(at)};
    return end ? end + 1 : at + out->len;
}

struct line_count {
    int text, picture;
};

static struct line_count count_lines(const char *text, int size, int room)
{
    struct line_count count = {0, 0};
    struct draw_line line;

    while (*text) {
        const char *next = next_line(text, size, room, &line);

        count.picture += is_picture(text);
        count.text += !is_picture(text);
        if (next <= text) /* no room for a single character */
            break;
        text = next;
    }
    return count;
}

static int title_height(const struct form *f)
{
    return draw_line_height(f->size * 4 / 3) + f->size / 2;
}

/* All but text and list. */
static int fixed_height(const struct form *f)
{
    int line = draw_line_height(f->size), fields = f->page == FORM_LOGIN ? 2 : 1;
    int height = 2 * f->size + title_height(f) + STATUS_LINES * line + line * 3 / 2;

    for (int i = 0; i < fields; i++)
        height += f->label_lines[i] * line + line * 3 / 2 + f->size / 2;
    return height + f->size / 2;
}

/* With a font of this size: whether it fits, and a picture's lines are not too small. */
static bool measure_text(struct form *f, int size, int room)
{
    struct line_count count = count_lines(f->text, size, inner_width(f));
    int height = count.text * draw_line_height(size);

    f->text_size = size;
    f->cell = 0;
    if (count.picture) {
        f->cell = (room - height) / count.picture & ~1; /* halves are whole pixels */
        f->cell = f->cell > size * 2 ? (size * 2 & ~1) : f->cell < CELL_MIN ? CELL_MIN : f->cell;
    }
    f->text_height = height + count.picture * f->cell + (f->text[0] ? f->size / 2 : 0);
    return f->text_height <= room && (!count.picture || f->cell >= CELL_GOOD);
}

void form_measure(struct form *f)
{
    int room, size = f->size;

    for (unsigned i = 0; i < 2; i++) {
        f->label_lines[i] =
            f->label[i][0] ? count_lines(f->label[i], size, inner_width(f)).text : 1;
        if (f->label_lines[i] > LABEL_LINES_MAX)
            f->label_lines[i] = LABEL_LINES_MAX;
    }
    room = f->height - fixed_height(f);
    while (!measure_text(f, size, room) && size > TEXT_MIN)
        size--;
}

static int button_width(const struct form *f, const char *text)
{
    return draw_text_width(text, strlen(text), f->size) + 2 * f->size;
}

static void place_fields(const struct form *f, const struct rect *in, int y,
                         struct form_layout *out)
{
    int fields = f->page == FORM_LOGIN ? 2 : 1;

    for (int i = 0; i < fields; i++) {
        out->label[i] = (struct rect){in->x, y, in->width, f->label_lines[i] * out->line};
        y += out->label[i].height;
        out->field[i] = (struct rect){in->x, y, in->width, out->line * 3 / 2};
        y += out->field[i].height + f->size / 2;
    }
    if (f->page == FORM_TARGETS)
        out->list = (struct rect){in->x, y, in->width, (int)out->rows * out->row};
}

/* From the bottom up. */
static void place_buttons(const struct form *f, const struct rect *in, struct form_layout *out)
{
    int height = out->line * 3 / 2, y = in->y + in->height - height, x = in->x + in->width;

    x -= button_width(f, f->cancel);
    out->cancel = (struct rect){x, y, button_width(f, f->cancel), height};
    x -= button_width(f, f->ok) + f->size / 2;
    out->ok = (struct rect){x, y, button_width(f, f->ok), height};
    if (f->keyboard[0])
        out->keyboard = (struct rect){in->x, y, f->size * 7, height};
    out->status = (struct rect){in->x, y - STATUS_LINES * out->line - f->size / 4, in->width,
                                STATUS_LINES * out->line};
}

void form_layout(const struct form *f, struct form_layout *out)
{
    int fixed = fixed_height(f), text = f->text_height, room, height;
    struct rect in;

    memset(out, 0, sizeof(*out));
    out->line = draw_line_height(f->size);
    out->row = out->line * 5 / 4;
    room = f->height - fixed;
    if (text > room)
        text = room > 0 ? room : 0;
    if (f->page == FORM_TARGETS) {
        long rows = (room - text - f->size) / out->row;

        out->rows = rows < 1 ? 1 : rows > ROWS_MAX ? ROWS_MAX : (size_t)rows;
    }
    height = fixed + text + (int)out->rows * out->row;
    out->panel = (struct rect){.width = panel_width(f), .height = height};
    out->panel.x = (f->width - out->panel.width) / 2;
    out->panel.y = height < f->height ? (f->height - height) / 2 : 0;
    in = inside(f, &out->panel);
    out->text = (struct rect){in.x, in.y + title_height(f), in.width, text};
    place_fields(f, &in, out->text.y + text, out);
    place_buttons(f, &in, out);
}

/* ---- fields ---- */

/* What stands in a field as it is seen, from a character on. */
static void seen_text(const struct form_field *field, size_t first, size_t end, char *dst,
                      size_t cap)
{
    struct form_field part = {.len = end - first};

    if (field->is_secret) {
        const char *dot = draw_has_font() ? "\u2022" : "*";

        dst[0] = '\0';
        for (size_t i = 0; i < part.len && strlen(dst) + 4 < cap; i++)
            memcpy(dst + strlen(dst), dot, strlen(dot) + 1);
        return;
    }
    memcpy(part.text, field->text + first, part.len * sizeof(*part.text));
    if (!form_field_text(&part, dst, cap))
        dst[0] = '\0';
}

static int seen_width(const struct form *f, const struct form_field *field, size_t first,
                      size_t end)
{
    char text[FORM_FIELD_MAX * 4 + 8];

    seen_text(field, first, end, text, sizeof(text));
    return draw_text_width(text, strlen(text), f->size);
}

static int field_room(const struct form *f, const struct rect *r)
{
    return r->width - f->size;
}

/* The first character that is seen: so that the caret is. */
static size_t first_seen(const struct form *f, const struct form_field *field, const struct rect *r)
{
    size_t first = 0;

    while (first < field->caret && seen_width(f, field, first, field->caret) > field_room(f, r))
        first++;
    return first;
}

size_t form_caret_at(const struct form *f, const struct form_layout *l, unsigned index, int x)
{
    const struct form_field *field = &f->fields[index];
    size_t first = first_seen(f, field, &l->field[index]), at = first;
    int from = l->field[index].x + f->size / 2;

    while (at < field->len &&
           from + (seen_width(f, field, first, at) + seen_width(f, field, first, at + 1)) / 2 <= x)
        at++;
    return at;
}

/* ---- painting ---- */

/* A picture and where its corner stands. */
struct canvas {
    struct picture *p;
    int x, y;
    const struct form *f;
};

static bool is_seen(const struct canvas *c, const struct rect *r)
{
    return r->x < c->x + c->p->width && r->x + r->width > c->x && r->y < c->y + c->p->height &&
           r->y + r->height > c->y;
}

static void box(const struct canvas *c, const struct rect *r, int edge, uint32_t color,
                uint32_t ground)
{
    draw_fill(c->p, r->x - c->x, r->y - c->y, r->width, r->height, color);
    draw_fill(c->p, r->x - c->x + edge, r->y - c->y + edge, r->width - 2 * edge,
              r->height - 2 * edge, ground);
}

/* One line, cut at `room` pixels. */
static void put_text(const struct canvas *c, int x, int y, int room, const char *text, int size,
                     uint32_t ink)
{
    struct draw_line line = {.start = text, .len = strlen(text)};

    while (line.len > 0 && draw_text_width(text, line.len, size) > room)
        do
            line.len--;
        while (line.len > 0 && ((uint8_t)text[line.len] & 0xc0) == 0x80);
    draw_text(c->p, x - c->x, y - c->y, &line, size, ink);
}

/* Wrapped lines in a rectangle. */
static void put_lines(const struct canvas *c, const struct rect *r, const char *text, int size,
                      uint32_t ink)
{
    int height = draw_line_height(size);
    struct draw_line line;

    if (!is_seen(c, r))
        return;
    for (int y = r->y; *text && y + height <= r->y + r->height; y += height) {
        const char *next = draw_take_line(text, size, r->width, &line);

        draw_text(c->p, r->x - c->x, y - c->y, &line, size, ink);
        if (next <= text)
            break;
        text = next;
    }
}

/* A code of an odd number of rows ends in the middle of its last line: no row of black follows. */
static bool is_half(const struct draw_line *line)
{
    for (size_t at = 0; at < line->len; at += 3)
        if (block_at(line->start + at) != 1)
            return false;
    return line->len > 0;
}

/* Light on dark, as it was made; a cell is twice as high as it is wide. */
static void put_picture(const struct canvas *c, int x, int y, const struct draw_line *line)
{
    int half = c->f->cell / 2, height = is_half(line) ? half : c->f->cell;
    const char *end = line->start + line->len;

    for (const char *at = line->start; at < end; x += half) {
        int block = block_at(at);

        draw_fill(c->p, x - c->x, y - c->y, half, height, 0);
        if (block > 0 && block & 1)
            draw_fill(c->p, x - c->x, y - c->y, half, half, 0xffffff);
        if (block > 0 && block & 2)
            draw_fill(c->p, x - c->x, y - c->y + half, half, half, 0xffffff);
        at += block > 0 ? 3 : 1;
    }
}

static void put_banner(const struct canvas *c, const struct rect *r)
{
    int size = c->f->text_size, height = draw_line_height(size);
    const char *text = c->f->text;
    struct draw_line line;

    if (!is_seen(c, r))
        return;
    for (int y = r->y, step; *text; y += step) {
        const char *next = next_line(text, size, r->width, &line);

        step = is_picture(text) ? c->f->cell : height;
        if (y + step > r->y + r->height)
            break;
        if (is_picture(text))
            put_picture(c, r->x, y, &line);
        else
            draw_text(c->p, r->x - c->x, y - c->y, &line, size, INK);
        if (next <= text)
            break;
        text = next;
    }
}

static void put_field(const struct canvas *c, const struct form_layout *l, unsigned index)
{
    const struct form *f = c->f;
    const struct form_field *field = &f->fields[index];
    const struct rect *r = &l->field[index];
    bool has_focus = !f->is_busy && f->focus == (index ? FORM_PART_SECOND : FORM_PART_FIELD);
    int edge = f->size / 10 + 1, y = r->y + (r->height - l->line) / 2 + f->size / 8;
    char text[FORM_FIELD_MAX * 4 + 8];
    struct rect caret;
    size_t first;

    if (!is_seen(c, r))
        return;
    box(c, r, has_focus ? edge + 1 : edge, has_focus ? ACCENT : LINE, FIELD);
    first = first_seen(f, field, r);
    seen_text(field, first, field->len, text, sizeof(text));
    put_text(c, r->x + f->size / 2, y, field_room(f, r), text, f->size, INK);
    memory_wipe(text, sizeof(text));
    if (!has_focus)
        return;
    caret = (struct rect){r->x + f->size / 2 + seen_width(f, field, first, field->caret),
                          r->y + r->height / 5, f->size / 10 + 1, r->height * 3 / 5};
    draw_fill(c->p, caret.x - c->x, caret.y - c->y, caret.width, caret.height, INK);
}

static void put_label(const struct canvas *c, const struct form_layout *l, unsigned index)
{
    const struct form *f = c->f;
    const struct rect *r = &l->label[index];
    int width;

    put_lines(c, r, f->label[index], f->size, INK);
    if (!f->is_caps || !f->fields[index].is_secret || f->label_lines[index] != 1)
        return;
    width = draw_text_width(f->label[index], strlen(f->label[index]), f->size);
    put_text(c, r->x + width, r->y, r->width - width, CAPS_TEXT, f->size, ERROR);
}

static void put_row(const struct canvas *c, const struct form_layout *l, size_t at, int width)
{
    const struct form *f = c->f;
    const struct link_target_row *row = &f->rows[f->shown[at]];
    int y = l->list.y + (int)(at - f->top) * l->row, margin = f->size / 2;
    bool is_selected = at == f->selected;
    const struct rect r = {l->list.x, y, width, l->row};

    if (!is_seen(c, &r))
        return;
    if (is_selected)
        draw_fill(c->p, r.x + 2 - c->x, r.y - c->y, r.width - 4, r.height,
                  f->focus == FORM_PART_LIST || f->focus == FORM_PART_FIELD ? ACCENT : INACTIVE);
    y += l->row / 10;
    put_text(c, r.x + margin, y, width / 2 - margin, row->target, f->size, is_selected ? ON : INK);
    put_text(c, r.x + width / 2, y, width / 2 - margin, row->account, f->size,
             is_selected ? ON : DIM);
}

static const char *empty_text(const struct form *f)
{
    return !f->is_loaded   ? "..."
           : f->count == 0 ? "There is no target that you may reach."
                           : "No target matches.";
}

static void put_list(const struct canvas *c, const struct form_layout *l)
{
    const struct form *f = c->f;
    const struct rect *r = &l->list;
    bool has_focus = !f->is_busy && f->focus == FORM_PART_LIST;
    int bar = f->shown_count > l->rows ? f->size / 2 + 2 : 0, edge = f->size / 10 + 1;
    struct rect around = {r->x - edge, r->y - edge, r->width + 2 * edge, r->height + 2 * edge};

    if (!is_seen(c, &around))
        return;
    box(c, &around, edge, has_focus ? ACCENT : LINE, FIELD);
    if (f->shown_count == 0)
        put_text(c, r->x + f->size / 2, r->y + l->row / 10, r->width - f->size, empty_text(f),
                 f->size, DIM);
    for (size_t i = f->top; i < f->shown_count && i < f->top + l->rows; i++)
        put_row(c, l, i, r->width - bar);
    if (bar) {
        int height = (int)((size_t)r->height * l->rows / f->shown_count);
        int y = (int)((size_t)r->height * f->top / f->shown_count);

        draw_fill(c->p, r->x + r->width - bar - c->x, r->y - c->y, bar, r->height, BUTTON);
        draw_fill(c->p, r->x + r->width - bar - c->x, r->y + y - c->y, bar,
                  height < f->size ? f->size : height, DIM);
    }
}

static void put_button(const struct canvas *c, const struct form_layout *l, enum form_part part)
{
    const struct form *f = c->f;
    bool is_ok = part == FORM_PART_OK, is_dead = is_ok && f->is_busy;
    const struct rect *r = is_ok ? &l->ok : &l->cancel;
    const char *text = is_ok ? f->ok : f->cancel;
    bool has_focus = f->focus == part || (is_ok && f->focus != FORM_PART_CANCEL);
    uint32_t ground = f->pressed == part ? HELD : is_ok && !is_dead ? ACCENT : BUTTON;

    if (!is_seen(c, r))
        return;
    box(c, r, f->size / 10 + 1, has_focus && !is_dead ? INK : LINE, ground);
    put_text(c, r->x + f->size, r->y + (r->height - l->line) / 2 + f->size / 8, r->width, text,
             f->size,
             is_dead            ? DIM
             : ground == ACCENT ? ON
                                : INK);
}

static void put_keyboard(const struct canvas *c, const struct form_layout *l)
{
    const struct rect *r = &l->keyboard;
    char text[48] = "Keyboard: ";

    if (!c->f->keyboard[0] || !is_seen(c, r))
        return;
    draw_fill(c->p, r->x - c->x, r->y - c->y, r->width, r->height, PANEL);
    memcpy(text + strlen(text), c->f->keyboard, strlen(c->f->keyboard) + 1);
    put_text(c, r->x, r->y + (r->height - l->line) / 2 + c->f->size / 8, r->width, text, c->f->size,
             DIM);
}

void form_paint_ground(struct picture *tile)
{
    draw_fill(tile, 0, 0, tile->width, tile->height, GROUND);
}

void form_paint(const struct form *f, struct picture *tile, int x, int y)
{
    const struct canvas c = {tile, x, y, f};
    struct form_layout l;
    struct rect in;

    form_paint_ground(tile);
    form_layout(f, &l);
    if (!is_seen(&c, &l.panel))
        return;
    box(&c, &l.panel, f->size / 5 + 1, EDGE, PANEL);
    in = inside(f, &l.panel);
    put_text(&c, in.x, in.y, in.width, f->title, f->size * 4 / 3, INK);
    put_banner(&c, &l.text);
    for (unsigned i = 0; i < (f->page == FORM_LOGIN ? 2u : 1u); i++) {
        put_label(&c, &l, i);
        put_field(&c, &l, i);
    }
    if (f->page == FORM_TARGETS)
        put_list(&c, &l);
    put_lines(&c, &l.status, f->status, f->size, f->is_error ? ERROR : DIM);
    put_button(&c, &l, FORM_PART_OK);
    put_button(&c, &l, FORM_PART_CANCEL);
    put_keyboard(&c, &l);
}
