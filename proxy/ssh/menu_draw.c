/*
 * How the menu of targets looks: menu.h. Works on 80x24 and on anything down to 20x6; names are
 * escaped, so that a target's name drives no terminal, and cut at whole characters. A terminal that
 * cannot move its cursor gets a numbered list.
 *
 *   Targets of alice: type to filter
 *           TARGET        ACCOUNT   USED     TYPE
 *   >   1)  web01         root      2h ago   ssh
 *       2)  db02          root      never    ssh
 *   db02 cannot be reached: connection refused          only when there is something to say
 *   [2 of 2] > _
 *   Up Down PgUp PgDn Home End  Enter: connect  ^U: clear  ^C: leave
 */
#include "proxy/ssh/menu.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sallyport/text.h>

#define NUMBER_CELLS  7 /* "> 999) " */
#define USED_CELLS    10
#define TYPE_CELLS    4
#define ACCOUNT_CELLS 20 /* at most */
#define WIDE_COLS     50 /* from here on with the type */
#define TITLE_LINES   2
#define PROMPT_LINES  2

/* ---- widths ---- */

static const struct {
    uint32_t from, to;
    uint8_t cells;
} widths[] = {
    {0x0300, 0x036f, 0},   {0x1100, 0x115f, 2}, {0x200b, 0x200f, 0}, {0x20d0, 0x20ff, 0},
    {0x2e80, 0xa4cf, 2},   {0xac00, 0xd7a3, 2}, {0xf900, 0xfaff, 2}, {0xfe00, 0xfe0f, 0},
    {0xfe30, 0xfe6f, 2},   {0xff00, 0xff60, 2}, {0xffe0, 0xffe6, 2}, {0x1f300, 0x1faff, 2},
    {0x20000, 0x3fffd, 2},
};

/* The length of the character at p, valid UTF-8 or not; its cells. */
static size_t character(const char *p, size_t *cells)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t len = u[0] < 0x80 ? 1 : u[0] >= 0xf0 ? 4 : u[0] >= 0xe0 ? 3 : u[0] >= 0xc0 ? 2 : 1;
    uint32_t cp = len == 1 ? u[0] : u[0] & (0xffu >> (len + 1));

    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xc0) != 0x80) {
            len = i; /* cut off */
            break;
        }
        cp = cp << 6 | (u[i] & 0x3f);
    }
    *cells = 1;
    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        if (cp >= widths[i].from && cp <= widths[i].to)
            *cells = widths[i].cells;
    }
    return len;
}

size_t menu_fit(const char *text, size_t cells)
{
    size_t at = 0, used = 0, wide;

    while (text[at]) {
        size_t len = character(text + at, &wide);

        if (used + wide > cells)
            break;
        used += wide;
        at += len;
    }
    return at;
}

size_t menu_cells(const char *text)
{
    size_t cells = 0, wide;

    while (*text) {
        text += character(text, &wide);
        cells += wide;
    }
    return cells;
}

const char *menu_ago(char *dst, size_t dst_len, int64_t wall_us, int64_t now_wall_us)
{
    int64_t s = (now_wall_us - wall_us) / 1000000;
    time_t at = (time_t)(wall_us / 1000000);
    struct tm tm;

    if (wall_us <= 0)
        text_copy(dst, dst_len, "never");
    else if (s < 60)
        text_copy(dst, dst_len, "just now");
    else if (s < 3600)
        snprintf(dst, dst_len, "%dm ago", (int)(s / 60));
    else if (s < 48 * 3600)
        snprintf(dst, dst_len, "%dh ago", (int)(s / 3600));
    else if (s < 100 * 86400)
        snprintf(dst, dst_len, "%dd ago", (int)(s / 86400));
    else if (!gmtime_r(&at, &tm) || strftime(dst, dst_len, "%Y-%m-%d", &tm) == 0)
        text_copy(dst, dst_len, "long ago");
    return dst;
}

/* ---- lines ---- */

/* What is left of a line that must not reach the last column: it would wrap on some terminals. */
static size_t line_cells(const struct menu *m)
{
    return (size_t)m->cols - 1;
}

static void end_line(const struct menu *m, struct buffer *out)
{
    buffer_put_str(out, m->is_dumb ? "\r\n" : "\033[K\r\n");
}

static void put_line(const struct menu *m, struct buffer *out, const char *text)
{
    buffer_put(out, text, menu_fit(text, line_cells(m)));
    end_line(m, out);
}

/* A cell of a table: cut or filled to `cells`, and a blank. */
static void put_cell(struct buffer *out, const char *text, size_t cells)
{
    size_t len = menu_fit(text, cells), used = 0, wide;

    for (size_t at = 0; at < len; used += wide)
        at += character(text + at, &wide);
    buffer_put(out, text, len);
    for (; used <= cells; used++)
        buffer_put_str(out, " ");
}

static void put_text_cell(struct buffer *out, const char *text, size_t cells)
{
    char escaped[SESSION_TEXT_MAX * 4];

    text_escape(escaped, sizeof(escaped), text, strlen(text));
    put_cell(out, escaped, cells);
}

struct layout {
    size_t target, account, used, type; /* cells; 0: not shown */
};

static size_t at_most(size_t n, size_t max)
{
    return n < max ? n : max;
}

/* As wide as what is in them, within what there is. */
static struct layout lay_out(const struct menu *m)
{
    size_t left = line_cells(m) - NUMBER_CELLS, target = sizeof("TARGET"), account = 0;
    struct layout l = {.account = 0};

    for (size_t i = 0; i < m->count; i++) {
        size_t cells = menu_cells(m->rows[i].target);

        target = cells > target ? cells : target;
        cells = menu_cells(m->rows[i].account);
        account = cells > account ? cells : account;
    }
    if (m->cols >= WIDE_COLS)
        l.type = TYPE_CELLS;
    if (m->cols >= 30)
        l.used = USED_CELLS;
    left -= (l.type ? l.type + 1 : 0) + (l.used ? l.used + 1 : 0);
    account = at_most(account > sizeof("ACCOUNT") ? account : sizeof("ACCOUNT"), ACCOUNT_CELLS);
    l.account = at_most(account, left / 3);
    if (l.account < 5)
        l.account = 0;
    l.target = at_most(target, left - (l.account ? l.account + 1 : 0) - 1);
    return l;
}

static void put_row(const struct menu *m, const struct layout *l, struct buffer *out,
                    size_t position, int64_t now_wall_us)
{
    const struct link_target_row *row = &m->rows[m->shown[position]];
    bool is_selected = position == m->selected && !m->is_dumb;
    char number[16], ago[32];

    snprintf(number, sizeof(number), "%c%4u)", is_selected ? '>' : ' ', m->shown[position] + 1u);
    buffer_put_str(out, is_selected ? "\033[1m" : "");
    put_cell(out, number, NUMBER_CELLS - 1);
    put_text_cell(out, row->target, l->target);
    if (l->account)
        put_text_cell(out, row->account, l->account);
    if (l->used)
        put_cell(out, menu_ago(ago, sizeof(ago), row->last_used_wall_us, now_wall_us), l->used);
    if (l->type)
        put_cell(out, "ssh", l->type);
    buffer_put_str(out, is_selected ? "\033[0m" : "");
    end_line(m, out);
}

static void put_heading(const struct menu *m, const struct layout *l, struct buffer *out)
{
    char line[256];

    snprintf(line, sizeof(line), "Targets of %s: type to filter", m->user);
    put_line(m, out, line);
    put_cell(out, "", NUMBER_CELLS - 1);
    put_cell(out, "TARGET", l->target);
    if (l->account)
        put_cell(out, "ACCOUNT", l->account);
    if (l->used)
        put_cell(out, "LAST USED", l->used);
    if (l->type)
        put_cell(out, "TYPE", l->type);
    end_line(m, out);
}

static void put_page(const struct menu *m, struct buffer *out, int64_t now_wall_us)
{
    const struct layout l = lay_out(m);
    size_t page = m->is_dumb ? m->shown_count : menu_page_size(m);
    size_t first = page ? m->selected / page * page : 0;

    put_heading(m, &l, out);
    for (size_t i = first; i < first + page && i < m->shown_count; i++)
        put_row(m, &l, out, i, now_wall_us);
    if (m->shown_count == 0)
        put_line(m, out,
                 !m->is_loaded   ? "  ..."
                 : m->count == 0 ? "  There is no target that you may reach."
                                 : "  No target matches.");
}

/* ---- the message and the prompt ---- */

/* Bytes of the message that one line takes: up to a blank, if there is one. *skip: with it. */
static size_t message_line(const struct menu *m, const char *at, size_t *skip)
{
    size_t len = menu_fit(at, line_cells(m)), blank = len;

    *skip = len;
    if (at[len] == '\0')
        return len;
    while (blank > 0 && at[blank] != ' ')
        blank--;
    if (blank == 0)
        return len;
    *skip = blank + 1;
    return blank;
}

static size_t message_lines(const struct menu *m)
{
    size_t spare = (size_t)m->lines - TITLE_LINES - PROMPT_LINES - 1; /* one row always shows */
    size_t most = at_most((size_t)m->lines / 3, spare), lines = 0, skip;

    for (const char *at = m->message; *at && lines < most; at += skip) {
        (void)message_line(m, at, &skip);
        lines++;
    }
    return lines;
}

size_t menu_page_size(const struct menu *m)
{
    size_t frame = TITLE_LINES + PROMPT_LINES + message_lines(m);

    return m->lines > frame ? m->lines - frame : 1;
}

static void put_message(const struct menu *m, struct buffer *out)
{
    const char *at = m->message;
    size_t skip;

    for (size_t i = message_lines(m); i > 0; i--, at += skip) {
        buffer_put(out, at, message_line(m, at, &skip));
        end_line(m, out);
    }
}

/* The end of what was typed, when all of it does not fit. */
static void put_filter(const struct menu *m, struct buffer *out, size_t cells)
{
    char escaped[sizeof(m->filter) * 8];
    const char *at = escaped;
    size_t wide;

    text_escape(escaped, sizeof(escaped), m->filter, strlen(m->filter));
    while (menu_cells(at) > cells)
        at += character(at, &wide);
    buffer_put_str(out, at);
}

static void put_prompt(const struct menu *m, struct buffer *out)
{
    size_t page = menu_page_size(m), pages = (m->shown_count + page - 1) / page;
    char line[96];
    size_t cells;

    if (pages > 1 && m->cols >= 30 && !m->is_dumb)
        snprintf(line, sizeof(line), "[%zu of %zu, page %zu/%zu] > ", m->shown_count, m->count,
                 m->selected / page + 1, pages);
    else
        snprintf(line, sizeof(line), "[%zu of %zu] > ", m->shown_count, m->count);
    cells = menu_cells(line);
    buffer_put_str(out, line);
    put_filter(m, out, line_cells(m) > cells ? line_cells(m) - cells : 0);
}

static void put_keys(const struct menu *m, struct buffer *out)
{
    const char *text = m->cols >= 68
                           ? "Up Down PgUp PgDn Home End  Enter: connect  ^U: clear  ^C: leave"
                       : m->cols >= 38 ? "Enter: connect  ^U: clear  ^C: leave"
                                       : "Enter ^U ^C";

    buffer_put(out, text, menu_fit(text, line_cells(m)));
}

static void draw_list(const struct menu *m, int64_t now_wall_us, struct buffer *out)
{
    buffer_put_str(out, "\r\n");
    put_page(m, out, now_wall_us);
    put_message(m, out);
    put_line(m, out, "A number or a part of a name, then Enter; ^C leaves.");
    put_prompt(m, out);
}

void menu_draw(const struct menu *m, int64_t now_wall_us, struct buffer *out)
{
    char move[32];

    if (m->is_dumb) {
        draw_list(m, now_wall_us, out);
        return;
    }
    buffer_put_str(out, "\033[?25l\033[H"); /* no cursor running about; no blank screen between */
    put_page(m, out, now_wall_us);
    put_message(m, out);
    buffer_put_str(out, "\033[J");
    snprintf(move, sizeof(move), "\033[%u;1H", m->lines);
    buffer_put_str(out, move);
    put_keys(m, out);
    snprintf(move, sizeof(move), "\033[%u;1H\033[?25h", m->lines - 1u);
    buffer_put_str(out, move);
    put_prompt(m, out);
}

void menu_clear(const struct menu *m, struct buffer *out)
{
    buffer_put_str(out, m->is_dumb ? "\r\n" : "\033[H\033[2J");
}
