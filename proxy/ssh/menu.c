/*
 * The model of the target menu, and its keys; menu.h. Drawing is menu_draw.c.
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
    m->cols = cols < MENU_COLS_MIN ? MENU_COLS_MIN : cols;
    m->lines = lines < MENU_ROWS_MIN ? MENU_ROWS_MIN : lines;
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

/* Last used first; those of the same time as they come. */
static void insert_row(struct menu *m, const struct link_target_row *row)
{
    size_t at = m->count;

    while (at > 0 && m->rows[at - 1].last_used_wall_us < row->last_used_wall_us)
        at--;
    memmove(m->rows + at + 1, m->rows + at, (m->count - at) * sizeof(*m->rows));
    m->rows[at] = *row;
    m->count++;
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
    for (size_t i = 0; i < count; i++)
        insert_row(m, &rows[i]);
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
            return move_by(m, (long)e->pages * (long)menu_page_size(m) + e->lines);
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

/* ---- what is typed ---- */

/* A character of UTF-8 has come in part only. */
static bool is_partial(const char *text)
{
    size_t len = strlen(text), back = 0, wanted;
    unsigned char lead;

    while (back < len && back < 3 && ((unsigned char)text[len - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back == len)
        return false;
    lead = (unsigned char)text[len - 1 - back];
    wanted = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    return back < wanted;
}

static void drop_character(struct menu *m)
{
    size_t len = strlen(m->filter);

    while (len > 0 && ((unsigned char)m->filter[len - 1] & 0xc0) == 0x80)
        len--;
    m->filter[len > 0 ? len - 1 : 0] = '\0';
}

static enum menu_action edited(struct menu *m, const char *echo)
{
    m->message[0] = '\0';
    apply_filter(m);
    if (!m->is_dumb)
        return is_partial(m->filter) ? MENU_NOTHING : MENU_DRAW;
    text_copy(m->echo, sizeof(m->echo), echo);
    return MENU_ECHO;
}

static enum menu_action edit_filter(struct menu *m, uint8_t key)
{
    const char typed[2] = {(char)key, '\0'};
    size_t len = strlen(m->filter);

    if (key == KEY_CTRL_U) {
        m->filter[0] = '\0';
        return edited(m, "^U\r\n> ");
    }
    if (key == KEY_BS || key == KEY_DEL) {
        drop_character(m);
        return edited(m, len > 0 ? "\b \b" : "");
    }
    if (len + 1 >= sizeof(m->filter))
        return MENU_NOTHING;
    text_copy(m->filter + len, 2, typed);
    return edited(m, typed);
}

/* `q` leaves while nothing is typed, unless it may be the beginning of a name. */
static bool is_quit(const struct menu *m, uint8_t key)
{
    if (key == KEY_CTRL_C || key == KEY_CTRL_D)
        return true;
    if (key != 'q' || m->filter[0] != '\0')
        return false;
    for (size_t i = 0; i < m->count; i++) {
        if (strcasestr(m->rows[i].target, "q") || strcasestr(m->rows[i].account, "q"))
            return false;
    }
    return true;
}

/* In a numbered list Enter chooses what is meant without doubt, and otherwise lists what fits. */
static enum menu_action enter(struct menu *m)
{
    uint64_t number;

    if (!menu_selected(m))
        return MENU_DRAW;
    if (!m->is_dumb || m->shown_count == 1)
        return MENU_CHOSEN;
    if (text_parse_u64(m->filter, &number) && m->shown[m->selected] + 1u == number)
        return MENU_CHOSEN;
    for (size_t i = 0; i < m->shown_count; i++) {
        if (strcmp(m->rows[m->shown[i]].target, m->filter) == 0) {
            m->selected = i;
            return MENU_CHOSEN;
        }
    }
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
    if (is_quit(m, key))
        return MENU_QUIT;
    if (key == KEY_CR || key == KEY_NL)
        return enter(m);
    if (key == KEY_CTRL_L)
        return MENU_DRAW;
    if (key == KEY_BS || key == KEY_DEL || key == KEY_CTRL_U || key > ' ')
        return edit_filter(m, key);
    return MENU_NOTHING;
}
