/*
 * The model of the target menu; menu.h. Works on 80x24 and on anything down to 20x6; names are
 * escaped, so that a target's name drives no terminal.
 */
#include "proxy/ssh/menu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#define KEY_CTRL_C 3
#define KEY_CTRL_D 4
#define KEY_BS     8
#define KEY_NL     10
#define KEY_CTRL_L 12
#define KEY_CR     13
#define KEY_CTRL_U 21
#define KEY_ESC    27
#define KEY_DEL    127

#define FRAME_LINES 4 /* title, blank, message, prompt */

struct menu *menu_create(const char *user, const char *term, uint16_t cols, uint16_t lines)
{
    struct menu *m = calloc(1, sizeof(*m));

    if (!m)
        return NULL;
    text_copy(m->user, sizeof(m->user), user);
    m->is_dumb = term[0] == '\0' || strcmp(term, "dumb") == 0 || strcmp(term, "unknown") == 0;
    menu_resize(m, cols, lines);
    return m;
}

void menu_destroy(struct menu *m)
{
    if (!m)
        return;
    free(m->rows);
    free(m->shown);
    free(m);
}

void menu_resize(struct menu *m, uint16_t cols, uint16_t lines)
{
    m->cols = cols < 20 ? 20 : cols;
    m->lines = lines < FRAME_LINES + 2 ? FRAME_LINES + 2 : lines;
}

static size_t page_size(const struct menu *m)
{
    return (size_t)m->lines - FRAME_LINES;
}

/* A row is shown when its name or account has the typed text in it, or when that is its number. */
static bool matches(const struct menu *m, size_t index)
{
    const struct link_target_row *row = &m->rows[index];
    char number[24];

    snprintf(number, sizeof(number), "%zu", index + 1);
    return m->filter[0] == '\0' || strcasestr(row->target, m->filter) ||
           strcasestr(row->account, m->filter) || strcmp(number, m->filter) == 0;
}

static void apply_filter(struct menu *m)
{
    uint64_t number = 0;

    m->shown_count = 0;
    m->selected = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (matches(m, i))
            m->shown[m->shown_count++] = (uint16_t)i;
    }
    if (!text_parse_u64(m->filter, &number))
        return;
    for (size_t i = 0; i < m->shown_count; i++) { /* a typed number selects its row */
        if (m->shown[i] + 1u == number)
            m->selected = i;
    }
}

bool menu_add(struct menu *m, const struct link_target_row *rows, size_t count, size_t total)
{
    struct link_target_row *all;
    uint16_t *shown;

    m->is_loaded = true;
    m->total = total;
    if (count > MENU_ROWS_MAX - m->count)
        count = MENU_ROWS_MAX - m->count;
    if (count == 0) {
        m->total = m->count; /* whatever the broker says: there is no more to come */
        return true;
    }
    if (!(all = reallocarray(m->rows, m->count + count, sizeof(*all))))
        return false;
    m->rows = all;
    if (!(shown = reallocarray(m->shown, m->count + count, sizeof(*shown))))
        return false;
    m->shown = shown;
    memcpy(m->rows + m->count, rows, count * sizeof(*rows));
    m->count += count;
    apply_filter(m);
    return true;
}

bool menu_is_complete(const struct menu *m)
{
    return m->is_loaded && (m->count >= m->total || m->count >= MENU_ROWS_MAX);
}

void menu_set_message(struct menu *m, const char *text)
{
    text_escape(m->message, sizeof(m->message), text, strlen(text));
}

const struct link_target_row *menu_selected(const struct menu *m)
{
    return m->selected < m->shown_count ? &m->rows[m->shown[m->selected]] : NULL;
}

/* ---- keys ---- */

static enum menu_action move_by(struct menu *m, long by)
{
    long at = (long)m->selected + by, last = (long)m->shown_count - 1;

    at = at > last ? last : at;
    m->selected = at < 0 ? 0 : (size_t)at;
    return MENU_DRAW;
}

struct escape_key {
    char final;
    uint8_t parameter; /* of "ESC [ n ~" */
    int pages, lines;
};

static const struct escape_key escape_keys[] = {
    {'A', 0, 0, -1},    {'B', 0, 0, 1},    {'~', 5, -1, 0},    {'~', 6, 1, 0},
    {'H', 0, -1000, 0}, {'F', 0, 1000, 0}, {'~', 1, -1000, 0}, {'~', 4, 1000, 0},
};

static enum menu_action end_escape(struct menu *m, uint8_t key)
{
    m->escape = 0;
    for (size_t i = 0; i < sizeof(escape_keys) / sizeof(escape_keys[0]); i++) {
        const struct escape_key *e = &escape_keys[i];

        if (e->final == (char)key && (key != '~' || e->parameter == m->parameter))
            return move_by(m, (long)e->pages * (long)page_size(m) + e->lines);
    }
    return MENU_NOTHING;
}

static enum menu_action escape_key(struct menu *m, uint8_t key)
{
    if (m->escape == 1) {
        m->escape = key == '[' || key == 'O' ? 2 : 0;
        m->parameter = 0;
        return MENU_NOTHING;
    }
    if (key >= '0' && key <= '9') {
        m->parameter = (uint8_t)(m->parameter * 10 + (key - '0'));
        return MENU_NOTHING;
    }
    if (key == ';' || key < 0x40) /* more parameters of a sequence that means nothing here */
        return MENU_NOTHING;
    return end_escape(m, key);
}

static enum menu_action edit_filter(struct menu *m, uint8_t key)
{
    size_t len = strlen(m->filter);

    if (key == KEY_BS || key == KEY_DEL) {
        if (len > 0)
            m->filter[len - 1] = '\0';
    } else if (key == KEY_CTRL_U) {
        m->filter[0] = '\0';
    } else if (len + 1 < sizeof(m->filter)) {
        m->filter[len] = (char)key;
        m->filter[len + 1] = '\0';
    }
    m->message[0] = '\0';
    apply_filter(m);
    return MENU_DRAW;
}

enum menu_action menu_key(struct menu *m, uint8_t key)
{
    if (m->escape > 0)
        return escape_key(m, key);
    if (key == KEY_ESC) {
        m->escape = 1;
        return MENU_NOTHING;
    }
    if (key == KEY_CTRL_C || key == KEY_CTRL_D || (key == 'q' && m->filter[0] == '\0'))
        return MENU_QUIT;
    if (key == KEY_CR || key == KEY_NL)
        return menu_selected(m) ? MENU_CHOSEN : MENU_DRAW;
    if (key == KEY_CTRL_L)
        return MENU_DRAW;
    if (key == KEY_BS || key == KEY_DEL || key == KEY_CTRL_U || (key > ' ' && key < KEY_DEL))
        return edit_filter(m, key);
    return MENU_NOTHING;
}

/* ---- drawing ---- */

/* One line, cut to the width (bytes; a cut character goes as a whole). */
static void put_line(const struct menu *m, struct buffer *out, const char *text)
{
    size_t len = strlen(text), max = (size_t)m->cols - 1;

    if (len > max) {
        len = max;
        while (len > 0 && ((unsigned char)text[len] & 0xc0) == 0x80)
            len--;
    }
    buffer_put(out, text, len);
    buffer_put_str(out, "\r\n");
}

static void put_row(const struct menu *m, struct buffer *out, size_t position)
{
    const struct link_target_row *row = &m->rows[m->shown[position]];
    char line[512], target[260], account[400], when[TIME_TEXT_MAX] = "never used";

    if (row->last_used_wall_us > 0) {
        text_time_utc(when, sizeof(when), row->last_used_wall_us);
        when[10] = '\0'; /* the date */
    }
    text_escape(target, sizeof(target), row->target, strlen(row->target));
    text_escape(account, sizeof(account), row->account, strlen(row->account));
    snprintf(line, sizeof(line), "%c %3u) %-24s %-16.64s %s", position == m->selected ? '>' : ' ',
             m->shown[position] + 1u, target, account, when);
    put_line(m, out, line);
}

static void put_title(const struct menu *m, struct buffer *out)
{
    char line[256];

    snprintf(line, sizeof(line),
             "Targets of %s: type to filter, Enter connects, q or Ctrl-C leaves", m->user);
    put_line(m, out, line);
    put_line(m, out, "");
}

static void put_page(const struct menu *m, struct buffer *out)
{
    size_t page = page_size(m), first = m->selected / page * page;

    for (size_t i = first; i < first + page && i < m->shown_count; i++)
        put_row(m, out, i);
    if (m->shown_count == 0)
        put_line(m, out,
                 !m->is_loaded   ? "  ..."
                 : m->count == 0 ? "  There is no target that you may reach."
                                 : "  No target matches.");
}

static void put_prompt(const struct menu *m, struct buffer *out)
{
    size_t page = page_size(m), pages = (m->shown_count + page - 1) / page;
    char line[256];

    put_line(m, out, m->message);
    if (pages > 1)
        snprintf(line, sizeof(line), "[%zu of %zu, page %zu/%zu: PgUp PgDn] > %s", m->shown_count,
                 m->count, m->selected / page + 1, pages, m->filter);
    else
        snprintf(line, sizeof(line), "[%zu of %zu] > %s", m->shown_count, m->count, m->filter);
    buffer_put_str(out, line);
}

void menu_draw(const struct menu *m, struct buffer *out)
{
    buffer_put_str(out, m->is_dumb ? "\r\n" : "\033[H\033[2J");
    put_title(m, out);
    put_page(m, out);
    put_prompt(m, out);
}

void menu_clear(const struct menu *m, struct buffer *out)
{
    buffer_put_str(out, m->is_dumb ? "\r\n" : "\033[H\033[2J");
}
