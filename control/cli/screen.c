/*
 * The watched terminal: see screen.h. libvterm keeps the cells; what it does not know of what
 * play_filter lets through (REP, and two spellings) is put into other words on the way.
 */
#include "control/cli/screen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vterm.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "control/cli/play_filter.h"

#define SIZE_MIN       2
#define SIZE_LIMIT     1000
#define REPEAT_MAX     1000
#define FILTER_MAX     (4 * 1024 * 1024)
#define ROW_MAX        (256 * 1024)
#define NOTICE_MAX     512
#define NOTICE_MS      10000
#define REPLACEMENT    0xfffd
#define PARAMETERS_MAX 12 /* of one sequence, for libvterm */
#define ATTRIBUTE_MAX  64 /* bytes of one of SGR */

struct screen {
    VTerm *vt;
    VTermScreen *screen;
    uint16_t cols, rows;
    bool has_pty;
    bool is_cursor_shown;
    struct play_filter filter;
    struct buffer filtered;

    /* the words between filter and emulator */
    char last[5]; /* the last character, for REP */
    size_t last_len;
    VTermPos outside;   /* the cursor of the normal screen, while the alternate one is on */
    char sequence[300]; /* of CSI, from ESC on */
    size_t sequence_len;

    char notice[NOTICE_MAX]; /* the last one, shown on the status line */
    int64_t notice_ms;

    /* what our terminal shows */
    struct buffer *shown; /* one a line */
    uint16_t shown_cols, shown_lines;
    struct buffer line;
};

/* ---- callbacks of libvterm ---- */

static int on_property(VTermProp prop, VTermValue *value, void *arg)
{
    struct screen *s = arg;

    if (prop == VTERM_PROP_CURSORVISIBLE)
        s->is_cursor_shown = value->boolean;
    return 1;
}

static const VTermScreenCallbacks callbacks = {.settermprop = on_property};

/* ---- life ---- */

static uint16_t clamp(uint16_t n)
{
    return n < SIZE_MIN ? SIZE_MIN : n > SIZE_LIMIT ? SIZE_LIMIT : n;
}

struct screen *screen_create(uint16_t cols, uint16_t rows, bool has_pty)
{
    struct screen *s = calloc(1, sizeof(*s));

    if (!s)
        return NULL;
    s->cols = clamp(cols);
    s->rows = clamp(rows);
    s->has_pty = has_pty;
    s->is_cursor_shown = true;
    play_filter_init(&s->filter);
    buffer_init(&s->filtered, FILTER_MAX);
    buffer_init(&s->line, ROW_MAX);
    s->vt = vterm_new(s->rows, s->cols);
    if (!s->vt) {
        screen_destroy(s);
        return NULL;
    }
    vterm_set_utf8(s->vt, 1);
    s->screen = vterm_obtain_screen(s->vt);
    vterm_screen_enable_altscreen(s->screen, 1);
    vterm_screen_set_callbacks(s->screen, &callbacks, s);
    vterm_screen_reset(s->screen, 1);
    return s;
}

static void forget_shown(struct screen *s)
{
    for (size_t i = 0; i < s->shown_lines; i++)
        buffer_finish(&s->shown[i]);
    free(s->shown);
    s->shown = NULL;
    s->shown_lines = s->shown_cols = 0;
}

void screen_destroy(struct screen *s)
{
    if (!s)
        return;
    forget_shown(s);
    if (s->vt)
        vterm_free(s->vt);
    buffer_finish(&s->filtered);
    buffer_finish(&s->line);
    free(s);
}

/* ---- bytes in ---- */

static void emulate(struct screen *s, const char *data, size_t len)
{
    if (len > 0)
        (void)vterm_input_write(s->vt, data, len);
}

static void move_to(struct screen *s, VTermPos to)
{
    char text[32];
    int n = snprintf(text, sizeof(text), "\033[%d;%dH", to.row + 1, to.col + 1);

    emulate(s, text, (size_t)n);
}

/* Inside of the screen, whatever libvterm thinks. */
static VTermPos cursor_of_screen(const struct screen *s)
{
    VTermPos at;

    vterm_state_get_cursorpos(vterm_obtain_state(s->vt), &at);
    at.row = at.row < 0 ? 0 : at.row >= s->rows ? s->rows - 1 : at.row;
    at.col = at.col < 0 ? 0 : at.col >= s->cols ? s->cols - 1 : at.col;
    return at;
}

/* libvterm keeps one saved cursor where terminals keep one a screen and one more for this mode: a
 * program that saves its own on the alternate screen would move the one behind it. */
static void alternate(struct screen *s, bool is_on)
{
    if (is_on)
        s->outside = cursor_of_screen(s);
    emulate(s, is_on ? "\033[?1047h" : "\033[?1047l", 8);
    if (!is_on)
        move_to(s, s->outside);
}

/* Separators between parameters, and inside of them. */
static size_t count_parameters(const char *params)
{
    size_t n = 1;

    for (; *params; params++)
        n += *params == ';' || *params == ':';
    return n;
}

/* The parameters of SGR, one attribute a sequence: libvterm 0.1 writes past its array of sixteen.
 * 38, 48 and 58 take those that follow with them: ;5;N or ;2;R;G;B. */
static void put_attributes_apart(struct screen *s, char *params)
{
    char one[ATTRIBUTE_MAX + 4], *next = params, *word;
    size_t len = 0, left = 0; /* words that belong to the colour that was begun */
    bool is_open = false;     /* and which kind it is comes next */

    while ((word = strsep(&next, ";"))) {
        if (strlen(word) + len > ATTRIBUTE_MAX - 2 || count_parameters(word) > PARAMETERS_MAX)
            break;
        len += (size_t)snprintf(one + len, sizeof(one) - len, "%s%s", len ? ";" : "\033[", word);
        if (is_open) {
            is_open = false;
            left = !strcmp(word, "5") ? 1 : !strcmp(word, "2") ? 3 : 0;
        } else if (left > 0) {
            left--;
        } else if (!strcmp(word, "38") || !strcmp(word, "48") || !strcmp(word, "58")) {
            is_open = true;
            continue;
        }
        if (left > 0)
            continue;
        one[len++] = 'm';
        emulate(s, one, len);
        len = 0;
    }
}

/* A whole control sequence, as play_filter writes them: ESC [ parameters final. */
static void put_sequence(struct screen *s)
{
    char final = s->sequence[s->sequence_len - 1];
    const char *params = s->sequence + 2;
    unsigned long n;

    s->sequence[s->sequence_len] = '\0';
    if (final == 'b' && (params[0] == 'b' || (params[0] >= '0' && params[0] <= '9'))) {
        n = params[0] == 'b' ? 1 : strtoul(params, NULL, 10);
        for (unsigned long i = 0; i < n && i < REPEAT_MAX; i++)
            emulate(s, s->last, s->last_len);
    } else if (final == 's' && s->sequence_len == 3) {
        emulate(s, "\0337", 2);
    } else if (final == 'u' && s->sequence_len == 3) {
        emulate(s, "\0338", 2);
    } else if (strcmp(params, "?1049h") == 0 || strcmp(params, "?1049l") == 0) {
        alternate(s, final == 'h');
    } else if (strcmp(params, "?47h") == 0 || strcmp(params, "?47l") == 0) {
        emulate(s, final == 'h' ? "\033[?1047h" : "\033[?1047l", 8);
    } else if (final == 'm') {
        s->sequence[s->sequence_len - 1] = '\0';
        put_attributes_apart(s, s->sequence + 2);
    } else if (count_parameters(params) <= PARAMETERS_MAX) {
        emulate(s, s->sequence, s->sequence_len);
    }
    s->sequence_len = 0;
}

static void put_byte(struct screen *s, uint8_t c)
{
    if (s->sequence_len > 0) {
        bool is_csi = s->sequence_len > 1 && s->sequence[1] == '[';

        s->sequence[s->sequence_len++] = (char)c;
        if (is_csi && s->sequence_len > 2 && c >= 0x40 && c <= 0x7e) {
            put_sequence(s);
        } else if (!is_csi && s->sequence_len > 1 && !(s->sequence_len == 2 && c == '[') &&
                   !(c >= 0x20 && c <= 0x2f)) { /* ESC 7, ESC ( B */
            emulate(s, s->sequence, s->sequence_len);
            s->sequence_len = 0;
        } else if (s->sequence_len ==
                   sizeof(s->sequence) - 1) { /* play_filter writes none so long */
            s->sequence_len = 0;
        }
        return;
    }
    if (c == 0x1b) {
        s->sequence[s->sequence_len++] = (char)c;
        return;
    }
    if (c >= 0x20 && c != 0x7f) {
        if ((c & 0xc0) != 0x80 || s->last_len >= sizeof(s->last) - 1)
            s->last_len = 0;
        s->last[s->last_len++] = (char)c;
    }
    if (c == '\n' && !s->has_pty)
        emulate(s, "\r", 1);
    emulate(s, (const char *)&c, 1);
}

void screen_feed(struct screen *s, const uint8_t *data, size_t len)
{
    buffer_reset(&s->filtered);
    play_filter_feed(&s->filter, data, len, &s->filtered);
    for (size_t i = 0; i < s->filtered.len; i++) {
        const uint8_t *at = s->filtered.data + i;
        size_t n = 0;

        /* a run of plain text goes in one piece; its last character stays for REP */
        while (s->sequence_len == 0 && i + n + 1 < s->filtered.len && at[n] >= 0x20 &&
               at[n] < 0x7f && at[n + 1] >= 0x20 && at[n + 1] < 0x7f)
            n++;
        emulate(s, (const char *)at, n);
        i += n;
        put_byte(s, s->filtered.data[i]);
    }
}

/* As the relay puts it on the user's screen (proxy/relay/terminal.c): a line of its own. On the
 * alternate screen it stands over the last line until the program draws that again, which it does
 * at the next key; here it stands on the status line for a while. */
void screen_notice(struct screen *s, const char *text, size_t len)
{
    char line[NOTICE_MAX + 16];
    VTermPos cursor;
    int n;

    text_escape(s->notice, sizeof(s->notice), text, len);
    s->notice_ms = clock_mono_ms();
    if (s->filter.is_alternate)
        return;
    cursor = cursor_of_screen(s);
    n = snprintf(line, sizeof(line), "\033[0m\r%s%s\r\n", cursor.col > 0 ? "\n" : "", s->notice);
    emulate(s, line, (size_t)n);
    s->notice[0] = '\0';
}

const char *screen_last_notice(const struct screen *s)
{
    return s->notice[0] && clock_mono_ms() - s->notice_ms < NOTICE_MS ? s->notice : "";
}

void screen_resize(struct screen *s, uint16_t cols, uint16_t rows)
{
    VTermPos at;

    s->cols = clamp(cols);
    s->rows = clamp(rows);
    vterm_set_size(s->vt, s->rows, s->cols);
    at = cursor_of_screen(s);
    move_to(s, at); /* libvterm 0.1 may leave it outside */
}

void screen_size(const struct screen *s, uint16_t *cols, uint16_t *rows)
{
    *cols = s->cols;
    *rows = s->rows;
}

/* ---- cells out ---- */

static void put_codepoint(struct buffer *out, uint32_t c)
{
    bool is_control = c < 0x20 || (c >= 0x7f && c < 0xa0);
    bool turns_text = (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
                      (c >= 0x2066 && c <= 0x2069) || c == 0xfeff;

    if (is_control || turns_text || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
        c = REPLACEMENT;
    if (c < 0x80) {
        buffer_put_be(out, c, 1);
    } else if (c < 0x800) {
        buffer_put_be(out, 0xc0 | c >> 6, 1);
        buffer_put_be(out, 0x80 | (c & 0x3f), 1);
    } else if (c < 0x10000) {
        buffer_put_be(out, 0xe0 | c >> 12, 1);
        buffer_put_be(out, 0x80 | (c >> 6 & 0x3f), 1);
        buffer_put_be(out, 0x80 | (c & 0x3f), 1);
    } else {
        buffer_put_be(out, 0xf0 | c >> 18, 1);
        buffer_put_be(out, 0x80 | (c >> 12 & 0x3f), 1);
        buffer_put_be(out, 0x80 | (c >> 6 & 0x3f), 1);
        buffer_put_be(out, 0x80 | (c & 0x3f), 1);
    }
}

static void put_colour(struct buffer *out, const VTermColor *c, bool is_fg)
{
    if (is_fg ? VTERM_COLOR_IS_DEFAULT_FG(c) : VTERM_COLOR_IS_DEFAULT_BG(c))
        return;
    if (VTERM_COLOR_IS_INDEXED(c))
        buffer_printf(out, ";%d;5;%u", is_fg ? 38 : 48, c->indexed.idx);
    else
        buffer_printf(out, ";%d;2;%u;%u;%u", is_fg ? 38 : 48, c->rgb.red, c->rgb.green,
                      c->rgb.blue);
}

static void put_attributes(struct buffer *out, const VTermScreenCell *cell)
{
    buffer_put_str(out, "\033[0");
    if (cell->attrs.bold)
        buffer_put_str(out, ";1");
    if (cell->attrs.italic)
        buffer_put_str(out, ";3");
    if (cell->attrs.underline)
        buffer_put_str(out, ";4");
    if (cell->attrs.blink)
        buffer_put_str(out, ";5");
    if (cell->attrs.reverse)
        buffer_put_str(out, ";7");
    if (cell->attrs.strike)
        buffer_put_str(out, ";9");
    put_colour(out, &cell->fg, true);
    put_colour(out, &cell->bg, false);
    buffer_put_str(out, "m");
}

static bool looks_same(const VTermScreenCell *a, const VTermScreenCell *b)
{
    return a->attrs.bold == b->attrs.bold && a->attrs.italic == b->attrs.italic &&
           a->attrs.underline == b->attrs.underline && a->attrs.blink == b->attrs.blink &&
           a->attrs.reverse == b->attrs.reverse && a->attrs.strike == b->attrs.strike &&
           vterm_color_is_equal(&a->fg, &b->fg) && vterm_color_is_equal(&a->bg, &b->bg);
}

/* One row of the screen from column `from`, `cols` wide, into s->line. */
static void make_row(struct screen *s, int row, int from, int cols)
{
    VTermScreenCell cell, last = {.width = 0};
    int used = 0;

    buffer_reset(&s->line);
    while (used < cols && from + used < s->cols) {
        VTermPos at = {.row = row, .col = from + used};
        int width;

        if (!vterm_screen_get_cell(s->screen, at, &cell))
            break;
        width = cell.width > 1 ? 2 : 1;
        if (last.width == 0 || !looks_same(&cell, &last))
            put_attributes(&s->line, &cell);
        last = cell;
        last.width = 1;
        if (cell.chars[0] == 0 || cell.chars[0] == (uint32_t)-1 || used + width > cols) {
            buffer_put_str(&s->line, " ");
            width = 1;
        } else {
            for (int i = 0; i < VTERM_MAX_CHARS_PER_CELL && cell.chars[i]; i++)
                put_codepoint(&s->line, cell.chars[i]);
        }
        used += width;
    }
}

/* Line `at` of our terminal shall show what s->line holds. */
static void show_line(struct screen *s, uint16_t at, bool is_full, struct buffer *out)
{
    struct buffer *was = &s->shown[at];

    if (was->data && was->len == s->line.len &&
        (was->len == 0 || memcmp(was->data, s->line.data, was->len) == 0))
        return;
    buffer_printf(out, "\033[%u;1H", at + 1u);
    buffer_put(out, s->line.data, s->line.len);
    buffer_put_str(out, is_full ? "\033[0m" : "\033[0m\033[K");
    buffer_reset(was);
    buffer_put(was, s->line.data, s->line.len);
    if (s->line.len == 0)
        buffer_put_str(was, "");
}

static bool prepare(struct screen *s, uint16_t cols, uint16_t lines, struct buffer *out)
{
    if (s->shown && s->shown_cols == cols && s->shown_lines == lines)
        return true;
    forget_shown(s);
    s->shown = calloc(lines, sizeof(*s->shown));
    if (!s->shown)
        return false;
    s->shown_cols = cols;
    s->shown_lines = lines;
    for (uint16_t i = 0; i < lines; i++)
        buffer_init(&s->shown[i], ROW_MAX);
    buffer_put_str(out, "\033[0m\033[2J");
    return true;
}

/* The first row or column to show, so that the cursor is among them. */
static int offset(int cursor, int size, int room)
{
    int first = cursor >= room ? cursor - room + 1 : 0;

    if (size <= room)
        return 0;
    return first > size - room ? size - room : first;
}

static void put_status(struct screen *s, uint16_t cols, const char *status)
{
    size_t len = strnlen(status, cols);

    buffer_reset(&s->line);
    buffer_put_str(&s->line, "\033[0;7m");
    buffer_put(&s->line, status, len);
    for (size_t i = len; i < cols; i++)
        buffer_put_str(&s->line, " ");
}

void screen_draw(struct screen *s, uint16_t cols, uint16_t lines, const char *status,
                 struct buffer *out)
{
    VTermPos cursor;
    int room = lines - 1, first_row, first_col;

    if (cols < 2 || lines < 2 || !prepare(s, cols, lines, out))
        return;
    cursor = cursor_of_screen(s);
    first_row = offset(cursor.row, s->rows, room);
    first_col = offset(cursor.col, s->cols, cols);
    buffer_put_str(out, "\033[?25l");
    for (int i = 0; i < room; i++) {
        buffer_reset(&s->line);
        if (first_row + i < s->rows)
            make_row(s, first_row + i, first_col, cols);
        show_line(s, (uint16_t)i, first_row + i < s->rows && s->cols - first_col >= cols, out);
    }
    put_status(s, cols, status);
    show_line(s, (uint16_t)room, true, out);
    if (s->is_cursor_shown && cursor.row - first_row < room && cursor.col - first_col < cols)
        buffer_printf(out, "\033[%d;%dH\033[?25h", cursor.row - first_row + 1,
                      cursor.col - first_col + 1);
}

void screen_redraw(struct screen *s)
{
    forget_shown(s);
}

void screen_enter(struct buffer *out)
{
    buffer_put_str(out, "\033[?1049h\033[?7l\033[0m\033[2J");
}

void screen_leave(struct buffer *out)
{
    buffer_put_str(out, "\033[0m\033[?7h\033[?25h\033[?1049l");
}
