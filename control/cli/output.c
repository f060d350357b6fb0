/*
 * Printing: see output.h.
 */
#include "control/cli/output.h"

#include <ctype.h>
#include <libsmartcols/libsmartcols.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#include <sallyport/buffer.h>
#include <sallyport/text.h>

#include "control/cli/when.h"

#define CELL_MAX     (64 * 1024)
#define MIN_WIDTH    40
#define PLAN_COLUMNS 40
#define CUT_SOFT     15 /* an IPv4 address is whole */
#define CUT_HARD     5

size_t output_width(const char *text)
{
    size_t width = 0, len = strlen(text);
    mbstate_t state = {0};
    wchar_t wide;

    while (len) {
        size_t n = mbrtowc(&wide, text, len, &state);
        int cells;
        if (n == (size_t)-1 || n == (size_t)-2 || n == 0)
            return width + len;
        cells = wcwidth(wide);
        width += cells > 0 ? (size_t)cells : 0;
        text += n;
        len -= n;
    }
    return width;
}

/* ---- cells ---- */

static void put_list(struct buffer *b, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (i)
            buffer_put_str(b, ", ");
        if (text)
            buffer_put_str(b, text);
    }
}

/* For people: a word that comes again and again is written once, "session, forward x87". */
static void put_runs(struct buffer *b, const json_t *list)
{
    size_t count;

    for (size_t i = 0; i < json_array_size(list); i += count) {
        const json_t *word = json_array_get(list, i);

        for (count = 1; json_equal(word, json_array_get(list, i + count)); count++)
            ;
        if (i)
            buffer_put_str(b, ", ");
        if (json_is_string(word))
            buffer_put_str(b, json_string_value(word));
        if (count > 1)
            buffer_printf(b, " x%zu", count);
    }
}

static void put_scalar(struct buffer *b, const json_t *value)
{
    if (json_is_string(value))
        buffer_put(b, json_string_value(value), json_string_length(value));
    else if (json_is_integer(value))
        buffer_printf(b, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        buffer_printf(b, "%g", json_real_value(value));
    else if (json_is_boolean(value))
        buffer_put_str(b, json_is_true(value) ? "yes" : "no");
}

static void put_policy(struct buffer *b, const json_t *object)
{
    void *at = json_object_iter(json_incref((json_t *)(uintptr_t)object));

    for (bool is_first = true; at; is_first = false) {
        buffer_printf(b, "%s%s=", is_first ? "" : " ", json_object_iter_key(at));
        put_scalar(b, json_object_iter_value(at));
        at = json_object_iter_next((json_t *)(uintptr_t)object, at);
    }
    json_decref((json_t *)(uintptr_t)object);
}

static void put_bytes(struct buffer *b, uint64_t bytes)
{
    static const char units[] = "BKMGTPE";
    double value = (double)bytes;
    size_t unit = 0;

    while (value >= 1024 && units[unit + 1]) {
        value /= 1024;
        unit++;
    }
    if (unit == 0)
        buffer_printf(b, "%llu", (unsigned long long)bytes);
    else
        buffer_printf(b, value < 10 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

static void put_shown(struct buffer *b, const struct column *column, const json_t *value,
                      bool is_short)
{
    char text[64];
    int64_t wall_us;

    switch (column->kind) {
    case COLUMN_TIME:
        if (json_is_string(value) && when_parse_iso(json_string_value(value), &wall_us))
            buffer_put_str(b, when_local(text, sizeof(text), wall_us, is_short));
        break;
    case COLUMN_SECONDS:
        if (json_is_integer(value) && json_integer_value(value) >= 0)
            buffer_put_str(b,
                           text_duration(text, sizeof(text), (uint64_t)json_integer_value(value)));
        break;
    case COLUMN_BYTES:
        if (json_is_integer(value) && json_integer_value(value) >= 0)
            put_bytes(b, (uint64_t)json_integer_value(value));
        break;
    case COLUMN_BOOL:
        if (json_is_true(value))
            buffer_put_str(b, "yes");
        break;
    case COLUMN_LIST:
        put_runs(b, value);
        break;
    case COLUMN_POLICY:
        put_policy(b, value);
        break;
    default:
        put_scalar(b, value);
    }
}

char *output_cell(const struct column *column, const json_t *row, bool is_short)
{
    const json_t *value = json_object_get(row, column->key);
    struct buffer raw, escaped;
    char *text = NULL;

    buffer_init(&raw, CELL_MAX);
    buffer_init(&escaped, CELL_MAX);
    put_shown(&raw, column, value, is_short);
    if (column->kind == COLUMN_SECONDS && strcmp(column->key, "idleSeconds") == 0 &&
        json_is_string(json_object_get(row, "endTime")))
        buffer_reset(&raw); /* an ended session is not idle */
    text_escape_append(&escaped, (const char *)raw.data, raw.len);
    if (!escaped.failed && buffer_cstr(&escaped))
        text = strdup(buffer_cstr(&escaped));
    buffer_finish(&raw);
    buffer_finish(&escaped);
    return text ? text : strdup("?");
}

char *output_raw(const struct column *column, const json_t *row)
{
    const json_t *value = json_object_get(row, column->key);
    struct buffer b;
    char *text;

    buffer_init(&b, CELL_MAX);
    if (column->kind == COLUMN_LIST)
        put_list(&b, value);
    else if (column->kind == COLUMN_POLICY)
        put_policy(&b, value);
    else
        put_scalar(&b, value);
    text = b.len == 0 ? strdup("") : buffer_cstr(&b) ? strdup(buffer_cstr(&b)) : NULL;
    buffer_finish(&b);
    return text;
}

/* ---- tables ---- */

static size_t terminal_width(FILE *stream)
{
    struct winsize size;
    const char *columns = getenv("COLUMNS");
    uint64_t width;

    if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col)
        return size.ws_col;
    if (columns && text_parse_u64(columns, &width) && width >= MIN_WIDTH && width < 10000)
        return (size_t)width;
    return 80;
}

static bool has_value(const json_t *rows, const char *key)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *value = json_object_get(json_array_get(rows, i), key);
        if (value && !json_is_null(value))
            return true;
    }
    return false;
}

static bool is_shown(const struct cli *cli, const struct column *column, const json_t *rows,
                     bool with_history)
{
    if (column->flags & COLUMN_DETAIL)
        return false;
    if ((column->flags & COLUMN_RARE) && !has_value(rows, column->key))
        return false;
    if ((column->flags & COLUMN_HISTORY) && with_history)
        return true;
    return !(column->flags & (COLUMN_WIDE | COLUMN_HISTORY)) ||
           (cli->format == FORMAT_WIDE && (column->flags & COLUMN_WIDE));
}

static bool is_right(const struct column *column)
{
    return column->kind == COLUMN_NUMBER || column->kind == COLUMN_SECONDS ||
           column->kind == COLUMN_BYTES;
}

/* Colours say what the words say already. */
static const char *cell_colour(const char *key, const char *text)
{
    static const struct {
        const char *text, *colour;
    } colours[] = {
        {"active", "green"},    {"idle", "yellow"},
        {"connecting", "cyan"}, {"disconnected", "darkgray"},
        {"degraded", "yellow"}, {"failed", "red"},
        {"not-found", "red"},   {"forbidden", "red"},
        {"ended", "green"},     {"sent", "green"},
        {"+", "green"},         {"-", "red"},
        {"~", "yellow"},
    };

    if (strcmp(key, "status") != 0 && strcmp(key, "result") != 0 && strcmp(key, "change") != 0 &&
        strcmp(key, "recording") != 0 && strcmp(key, "state") != 0)
        return NULL;
    for (size_t i = 0; i < sizeof(colours) / sizeof(colours[0]); i++) {
        if (strcmp(colours[i].text, text) == 0)
            return colours[i].colour;
    }
    return NULL;
}

/*
 * A table before it is printed: the texts and what becomes of the columns. libsmartcols could cut
 * columns itself, but silently, and an address without its last digits is worse than none.
 */
struct plan {
    const struct column *columns[PLAN_COLUMNS];
    size_t widths[PLAN_COLUMNS];
    size_t column_count, row_count;
    char **cells; /* row by row, owned */
};

static void plan_finish(struct plan *p)
{
    for (size_t i = 0; p->cells && i < p->column_count * p->row_count; i++)
        free(p->cells[i]);
    free(p->cells);
}

static bool plan_fill(struct plan *p, const struct cli *cli, const json_t *rows)
{
    p->row_count = json_array_size(rows);
    p->cells = calloc(p->row_count * p->column_count + 1, sizeof(*p->cells));
    for (size_t c = 0; c < p->column_count; c++)
        p->widths[c] = strlen(p->columns[c]->head);
    for (size_t i = 0; p->cells && i < p->row_count * p->column_count; i++) {
        size_t c = i % p->column_count, width;
        p->cells[i] = output_cell(p->columns[c], json_array_get(rows, i / p->column_count),
                                  cli->format != FORMAT_WIDE);
        if (!p->cells[i])
            return false;
        width = output_width(p->cells[i]);
        p->widths[c] = width > p->widths[c] ? width : p->widths[c];
    }
    return p->cells != NULL;
}

static size_t plan_width(const struct plan *p)
{
    size_t total = 0;

    for (size_t c = 0; c < p->column_count; c++)
        total += p->widths[c] + (c > 0);
    return total;
}

/* Take from the widest columns that may be cut until the table fits or none is wider than floor. */
static void plan_shrink(struct plan *p, size_t width, size_t floor)
{
    while (plan_width(p) > width) {
        size_t widest = p->column_count;
        for (size_t c = 0; c < p->column_count; c++) {
            bool may = (p->columns[c]->flags & COLUMN_TRUNC) && p->widths[c] > floor &&
                       p->widths[c] > strlen(p->columns[c]->head);
            if (may && (widest == p->column_count || p->widths[c] > p->widths[widest]))
                widest = c;
        }
        if (widest == p->column_count)
            return;
        p->widths[widest]--;
    }
}

static void plan_drop(struct plan *p, size_t at)
{
    size_t kept = 0;

    for (size_t i = 0; i < p->row_count * p->column_count; i++) {
        if (i % p->column_count == at)
            free(p->cells[i]);
        else
            p->cells[kept++] = p->cells[i];
    }
    for (size_t c = at; c + 1 < p->column_count; c++) {
        p->columns[c] = p->columns[c + 1];
        p->widths[c] = p->widths[c + 1];
    }
    p->column_count--;
}

/* Make it fit: cut long texts, leave spare columns out, cut harder. */
static void plan_fit(struct plan *p, size_t width)
{
    static const unsigned spares[] = {COLUMN_SPARE1, COLUMN_SPARE2, COLUMN_SPARE3};

    plan_shrink(p, width, CUT_SOFT);
    for (size_t s = 0; s < sizeof(spares) / sizeof(spares[0]); s++) {
        for (size_t c = 0; c < p->column_count && plan_width(p) > width; c++) {
            if (p->columns[c]->flags & spares[s])
                plan_drop(p, c);
        }
    }
    plan_shrink(p, width, CUT_HARD);
}

/* Cut text to `width` cells, the last of them an ellipsis. In place: an ellipsis has 3 bytes, and
 * what it replaces may have one, so the text is made anew. */
static void cut_text(char **text, size_t width)
{
    size_t len = strlen(*text), at = 0, cells = 0;
    mbstate_t state = {0};
    char *cut = NULL;
    wchar_t wide;

    if (output_width(*text) <= width)
        return;
    while (at < len) {
        size_t n = mbrtowc(&wide, *text + at, len - at, &state);
        int w = n == 0 || n > len ? 1 : wcwidth(wide);
        if (cells + (w > 0 ? (size_t)w : 0) + 1 > width)
            break;
        cells += w > 0 ? (size_t)w : 0;
        at += n == 0 || n > len ? 1 : n;
    }
    if (asprintf(&cut, "%.*s%s", (int)at, *text, MB_CUR_MAX > 1 ? "\xe2\x80\xa6" : "~") < 0)
        return;
    free(*text);
    *text = cut;
}

static struct libscols_table *new_table(const struct cli *cli, FILE *stream)
{
    struct libscols_table *table = scols_new_table();

    if (!table)
        return NULL;
    scols_table_set_stream(table, stream);
    scols_table_enable_noencoding(table, 1); /* cells are escaped already */
    scols_table_enable_colors(table, stream == stdout ? cli->is_colour : cli->is_talk_colour);
    scols_table_set_termforce(table, SCOLS_TERMFORCE_NEVER); /* it fits as far as it can */
    return table;
}

static void print_plan(const struct cli *cli, FILE *stream, struct plan *p)
{
    struct libscols_table *table = new_table(cli, stream);

    if (!table)
        return;
    for (size_t c = 0; c < p->column_count; c++)
        scols_table_new_column(table, p->columns[c]->head, 0,
                               is_right(p->columns[c]) ? SCOLS_FL_RIGHT : 0);
    for (size_t i = 0; i < p->row_count; i++) {
        struct libscols_line *line = scols_table_new_line(table, NULL);
        for (size_t c = 0; line && c < p->column_count; c++) {
            char **text = &p->cells[i * p->column_count + c];
            const char *colour = cell_colour(p->columns[c]->key, *text);
            cut_text(text, p->widths[c]);
            if (colour)
                scols_cell_set_color(scols_line_get_cell(line, c), colour);
            if (**text)
                scols_line_set_data(line, c, *text);
        }
    }
    scols_print_table(table);
    scols_unref_table(table);
}

void output_table(struct cli *cli, FILE *stream, const struct columns *columns, const json_t *rows,
                  bool with_history)
{
    struct plan p = {.column_count = 0};

    for (const struct column *c = columns->list; c->head && p.column_count < PLAN_COLUMNS; c++) {
        if (is_shown(cli, c, rows, with_history))
            p.columns[p.column_count++] = c;
    }
    if (plan_fill(&p, cli, rows)) {
        if (isatty(fileno(stream)) && cli->format != FORMAT_WIDE)
            plan_fit(&p, terminal_width(stream));
        print_plan(cli, stream, &p);
    }
    plan_finish(&p);
}

/* ---- CSV and JSON ---- */

static bool is_number(const char *text)
{
    const char *at = text + (*text == '-' || *text == '+');
    size_t digits = strspn(at, "0123456789.");

    return digits > 0 && at[digits] == '\0';
}

void output_csv_field(FILE *out, const char *text)
{
    bool is_formula = *text && strchr("=+-@\t\r", *text) && !is_number(text);

    if (!is_formula && !strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    if (is_formula)
        fputc('\'', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void print_csv(const struct columns *columns, const json_t *rows)
{
    for (const struct column *c = columns->list; c->head; c++)
        printf("%s%s", c == columns->list ? "" : ",", c->key);
    fputs("\r\n", stdout);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (const struct column *c = columns->list; c->head; c++) {
            char *text = output_raw(c, json_array_get(rows, i));
            if (c != columns->list)
                fputc(',', stdout);
            output_csv_field(stdout, text ? text : "");
            free(text);
        }
        fputs("\r\n", stdout);
    }
}

void output_json(const struct cli *cli, const json_t *value)
{
    size_t flags = cli->format == FORMAT_JSONL ? JSON_COMPACT : JSON_INDENT(2);

    json_dumpf(value, stdout, flags | JSON_ENCODE_ANY);
    fputc('\n', stdout);
}

static void print_jsonl(const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_dumpf(json_array_get(rows, i), stdout, JSON_COMPACT);
        fputc('\n', stdout);
    }
}

/* ---- sorting ---- */

const struct column *output_find(const struct columns *columns, const char *name, size_t len)
{
    for (const struct column *c = columns->list; c->head; c++) {
        if ((strlen(c->head) == len && strncasecmp(c->head, name, len) == 0) ||
            (strlen(c->key) == len && strncasecmp(c->key, name, len) == 0))
            return c;
    }
    return NULL;
}

struct sort {
    const char *key;
    int direction;
};

struct sort_row {
    json_t *row;
    size_t place;
    const struct sort *sort;
};

static int compare_values(const json_t *a, const json_t *b)
{
    uint64_t x, y;

    if (json_is_number(a) && json_is_number(b)) {
        double d = json_number_value(a) - json_number_value(b);
        return d < 0 ? -1 : d > 0;
    }
    if (json_is_string(a) && json_is_string(b)) { /* ids are decimal texts */
        const char *s = json_string_value(a), *t = json_string_value(b);
        if (text_parse_u64(s, &x) && text_parse_u64(t, &y))
            return x < y ? -1 : x > y;
        return strcasecmp(s, t);
    }
    if (json_is_boolean(a) && json_is_boolean(b))
        return (int)json_is_true(a) - (int)json_is_true(b);
    return (int)!json_is_null(a) - (int)!json_is_null(b);
}

static int compare_rows(const void *a, const void *b)
{
    const struct sort_row *x = a, *y = b;
    int order = compare_values(json_object_get(x->row, x->sort->key),
                               json_object_get(y->row, y->sort->key));

    if (order)
        return order * x->sort->direction;
    return x->place < y->place ? -1 : x->place > y->place; /* stable */
}

static int tell_columns(const struct cli *cli, const struct columns *columns, const char *by)
{
    const char *names[64];
    char shown[128], list[1024] = "";
    const char *near;
    size_t count = 0;

    for (const struct column *c = columns->list; c->head && count < 64; c++) {
        size_t len = strlen(list);
        snprintf(list + len, sizeof(list) - len, "%s%s", count ? ", " : "", c->head);
        names[count++] = c->head;
    }
    for (size_t i = 0; i < sizeof(shown) - 1 && i <= strlen(by); i++)
        shown[i] = (char)toupper((unsigned char)by[i]);
    shown[sizeof(shown) - 1] = '\0';
    near = text_nearest(shown, names, count);
    if (near)
        return cli_usage(cli, "no column \"%s\" (did you mean %s?)", by, near);
    return cli_usage(cli, "no column \"%s\"; there are %s", by, list);
}

bool output_sort(const struct cli *cli, const struct columns *columns, json_t *rows, const char *by)
{
    struct sort sort = {.direction = *by == '-' ? -1 : 1};
    size_t count = json_array_size(rows);
    const struct column *column;
    struct sort_row *list;

    by += *by == '-';
    column = output_find(columns, by, strlen(by));
    if (!column) {
        tell_columns(cli, columns, by);
        return false;
    }
    sort.key = column->key;
    list = calloc(count + 1, sizeof(*list));
    if (!list)
        return true;
    for (size_t i = 0; i < count; i++)
        list[i] = (struct sort_row){json_incref(json_array_get(rows, i)), i, &sort};
    qsort(list, count, sizeof(*list), compare_rows);
    json_array_clear(rows);
    for (size_t i = 0; i < count; i++)
        json_array_append_new(rows, list[i].row);
    free(list);
    return true;
}

/* ---- lists and objects ---- */

static void print_ids(const struct columns *columns, const json_t *rows)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *id = json_string_value(json_object_get(json_array_get(rows, i), columns->id));
        char shown[512];
        if (id)
            puts(text_escape(shown, sizeof(shown), id, strlen(id)));
    }
}

static void cut(json_t *rows, const char *limit)
{
    uint64_t count;

    if (!limit || !text_parse_u64(limit, &count))
        return;
    while (json_array_size(rows) > count)
        json_array_remove(rows, json_array_size(rows) - 1);
}

int output_rows(struct cli *cli, const struct columns *columns, json_t *rows, bool with_history,
                bool is_sorted)
{
    const char *by = cli_value(cli, "sort");

    if (by && !is_sorted && !output_sort(cli, columns, rows, by))
        return CLI_USAGE;
    if (!is_sorted)
        cut(rows, cli_value(cli, "limit"));
    if (cli_has(cli, "quiet")) {
        print_ids(columns, rows);
        return CLI_DONE;
    }
    switch (cli->format) {
    case FORMAT_JSON:
        output_json(cli, rows);
        break;
    case FORMAT_JSONL:
        print_jsonl(rows);
        break;
    case FORMAT_CSV:
        print_csv(columns, rows);
        break;
    default:
        if (json_array_size(rows))
            output_table(cli, stdout, columns, rows, with_history);
        else
            cli_say("No %s.", columns->what);
    }
    return CLI_DONE;
}

int output_object(struct cli *cli, const struct columns *columns, const json_t *object)
{
    size_t width = 0;

    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        output_json(cli, object);
        return CLI_DONE;
    }
    if (cli->format == FORMAT_CSV) {
        json_t *rows = json_pack("[O]", object);
        print_csv(columns, rows);
        json_decref(rows);
        return CLI_DONE;
    }
    for (const struct column *c = columns->list; c->head; c++)
        width = strlen(c->head) > width ? strlen(c->head) : width;
    for (const struct column *c = columns->list; c->head; c++) {
        char *text = output_cell(c, object, false);
        if (text && (*text || cli->format == FORMAT_WIDE))
            printf("%-*s  %s\n", (int)width, c->head, text);
        free(text);
    }
    return CLI_DONE;
}
