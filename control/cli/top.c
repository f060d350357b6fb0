/*
 * `session top`: the live sessions on the whole screen (ncurses). A subscription tells when
 * something changes; the counters are fetched again once a second. A daemon that goes away is
 * waited for. The terminal is put back on every way out.
 */
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#define NCURSES_WIDECHAR 1
#include <ncurses.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"
#include "control/cli/session.h"

#define REFRESH_MS      1000
#define REFRESH_BUSY_MS 3000 /* with very many sessions */
#define BUSY_ROWS       500
#define SETTLE_MS       50
#define HELLO_MS        2000
#define INPUT_MAX       200
#define HEAD_LINES      3
#define NAME_EXTRA      20
#define KEY_ESC         27
#define KEY_CTRL(c)     ((c)&0x1f)

enum { COLOUR_ACTIVE = 1, COLOUR_IDLE, COLOUR_CONNECTING, COLOUR_ALARM };

/* Which columns, how wide, and from which width of the screen on. */
static const struct shown {
    const char *head;
    int width, from_width;
} shown[] = {
    {"ID", 6, 0},          {"USER", 12, 0},     {"SOURCE", 15, 0}, {"TYPE", 4, 110},
    {"TARGET", 12, 0},     {"ACCOUNT", 10, 90}, {"STATUS", 10, 0}, {"DURATION", 8, 0},
    {"IDLE", 6, 0},        {"IN", 6, 105},      {"OUT", 6, 105},   {"STARTED", 16, 130},
    {"RECORDING", 9, 140}, {"DEVICE", 20, 160},
};
#define SHOWN_COUNT (sizeof(shown) / sizeof(shown[0]))

struct top {
    struct cli *cli;
    json_t *rows;      /* as listed, sorted */
    char selected[32]; /* id; survives sorting and new rows */
    size_t first;      /* row at the top */
    char search[INPUT_MAX];
    size_t sort; /* into shown */
    bool is_reversed;
    char said[256]; /* last line, until the next key */
    bool is_alarm;
    bool is_lost; /* the daemon */
    int64_t refresh_at_ms;
};

static volatile sig_atomic_t was_signalled;
static bool in_colour;

static void on_signal(int number)
{
    (void)number;
    was_signalled = 1;
}

static void say(struct top *t, bool is_alarm, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void say(struct top *t, bool is_alarm, const char *fmt, ...)
{
    char text[sizeof(t->said)];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    text_escape(t->said, sizeof(t->said), text, strlen(text));
    t->is_alarm = is_alarm;
}

/* ---- the daemon ---- */

static json_t *list_args(const struct top *t)
{
    static const char *const filters[] = {"user", "target", "type"};
    json_t *args = json_object();

    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        cli_put_option(t->cli, args, filters[i]);
    if (t->search[0])
        json_object_set_new(args, "search", json_string(t->search));
    return args;
}

static void lose(struct top *t)
{
    if (t->cli->is_connected)
        conn_close(&t->cli->conn);
    t->cli->is_connected = false;
    t->is_lost = true;
}

/* Carry out a command without a word on stderr, which is the screen. NULL when it failed (said). */
static json_t *call(struct top *t, const char *command, json_t *args)
{
    struct conn_error e = {.code = ""};
    json_t *reply = NULL;
    int64_t id;
    int rc = t->cli->is_connected ? conn_send(&t->cli->conn, command, args, &id) : ERR_CLOSED;

    if (!t->cli->is_connected)
        json_decref(args);
    if (rc == 0)
        rc = conn_reply(&t->cli->conn, id, &reply, &e);
    if (rc < 0) {
        json_decref(reply);
        reply = NULL;
        if (e.code[0])
            say(t, true, "%s", e.message ? e.message : e.code);
        else
            lose(t);
    }
    conn_error_finish(&e);
    return reply;
}

/* Subscribe: events then tell when to list again. */
static bool subscribe(struct top *t)
{
    json_t *args = json_pack("{s:b}", "watch", true), *rows = call(t, "session ls", args);

    json_decref(rows);
    return rows != NULL;
}

static void reconnect(struct top *t)
{
    struct conn_error e = {.code = ""};

    if (conn_open(&t->cli->conn, t->cli->socket_path, HELLO_MS, &e) == 0) {
        t->cli->is_connected = true;
        t->is_lost = !subscribe(t);
    }
    conn_error_finish(&e);
}

static void sort_rows(struct top *t)
{
    char by[64];

    snprintf(by, sizeof(by), "%s%s", t->is_reversed ? "-" : "", shown[t->sort].head);
    if (!output_sort(t->cli, &session_columns, t->rows, by))
        t->sort = 0; /* cannot be: the heads are columns (tested) */
}

static void refetch(struct top *t)
{
    json_t *rows;

    if (t->is_lost)
        reconnect(t);
    rows = t->is_lost ? NULL : call(t, "session ls", list_args(t));
    if (rows) {
        json_decref(t->rows);
        t->rows = rows;
        sort_rows(t);
    }
    t->refresh_at_ms =
        clock_mono_ms() + (json_array_size(t->rows) > BUSY_ROWS ? REFRESH_BUSY_MS : REFRESH_MS);
}

/* ---- drawing ---- */

/* At most `width` cells, cut with an ellipsis, padded; right: to the right. */
static void put_cell(int y, int x, int width, const char *text, bool right)
{
    size_t len = strlen(text), taken = 0;
    bool is_cut = output_width(text) > (size_t)width && width > 1;
    mbstate_t state = {0};
    int cells = 0;

    width -= is_cut;

    while (taken < len) {
        wchar_t wide;
        size_t n = mbrtowc(&wide, text + taken, len - taken, &state);
        int w = n == 0 || n > len ? -1 : wcwidth(wide);
        if (w < 0 || cells + w > width)
            break;
        cells += w;
        taken += n;
    }
    move(y, x);
    if (right)
        printw("%*s", width - cells, "");
    addnstr(text, (int)taken);
    if (is_cut)
        addstr(MB_CUR_MAX > 1 ? "\xe2\x80\xa6" : "~");
    if (!right)
        printw("%*s", width - cells, "");
}

/* How wide each column is on this screen, 0: not shown. What is left over goes to the names. */
static void layout(int widths[SHOWN_COUNT])
{
    int x = 0, extra;

    for (size_t i = 0; i < SHOWN_COUNT; i++) {
        bool fits = COLS >= shown[i].from_width && x + shown[i].width <= COLS;
        widths[i] = fits ? shown[i].width : 0;
        x += fits ? shown[i].width + 1 : 0;
    }
    extra = COLS - x + 1;
    for (size_t i = 0; i < SHOWN_COUNT; i++) {
        bool is_name = strcmp(shown[i].head, "USER") == 0 || strcmp(shown[i].head, "TARGET") == 0;
        if (is_name && widths[i] && extra > 1)
            widths[i] += extra / 2 < NAME_EXTRA ? extra / 2 : NAME_EXTRA;
    }
}

static const struct column *column_of(const struct shown *s)
{
    return output_find(&session_columns, s->head, strlen(s->head));
}

static bool is_right(const struct column *c)
{
    return c->kind == COLUMN_NUMBER || c->kind == COLUMN_SECONDS || c->kind == COLUMN_BYTES;
}

static void draw_heads(const struct top *t)
{
    int x = 0, widths[SHOWN_COUNT];

    layout(widths);

    attron(A_REVERSE);
    mvhline(HEAD_LINES - 1, 0, ' ', COLS);
    for (size_t i = 0; i < SHOWN_COUNT; i++) {
        char head[32];
        if (!widths[i])
            continue;
        snprintf(head, sizeof(head), "%s%s", shown[i].head,
                 i == t->sort ? t->is_reversed ? "-" : "+" : "");
        if (i == t->sort)
            attron(A_BOLD);
        put_cell(HEAD_LINES - 1, x, widths[i], head, is_right(column_of(&shown[i])));
        attroff(A_BOLD);
        x += widths[i] + 1;
    }
    attroff(A_REVERSE);
}

static int status_colour(const json_t *row)
{
    const char *status = json_string_value(json_object_get(row, "status"));

    if (!status || !in_colour)
        return 0;
    if (strcmp(status, "active") == 0)
        return COLOR_PAIR(COLOUR_ACTIVE);
    if (strcmp(status, "idle") == 0)
        return COLOR_PAIR(COLOUR_IDLE);
    return COLOR_PAIR(COLOUR_CONNECTING);
}

static void draw_row(const json_t *row, int y, bool is_selected)
{
    int x = 0, widths[SHOWN_COUNT];

    layout(widths);

    if (is_selected)
        attron(A_REVERSE);
    mvhline(y, 0, ' ', COLS);
    for (size_t i = 0; i < SHOWN_COUNT; i++) {
        const struct column *c = column_of(&shown[i]);
        int colour = strcmp(shown[i].head, "STATUS") == 0 && !is_selected ? status_colour(row) : 0;
        char *text;
        if (!widths[i])
            continue;
        text = output_cell(c, row, true);
        attron(colour);
        put_cell(y, x, widths[i], text ? text : "", is_right(c));
        attroff(colour);
        free(text);
        x += widths[i] + 1;
    }
    attroff(A_REVERSE);
}

static size_t count_status(const json_t *rows, const char *wanted)
{
    size_t count = 0;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *s = json_string_value(json_object_get(json_array_get(rows, i), "status"));
        count += s && strcmp(s, wanted) == 0;
    }
    return count;
}

static void draw_summary(const struct top *t)
{
    const char *node = json_string_value(json_object_get(t->cli->conn.hello, "node"));
    size_t count = json_array_size(t->rows);
    char line[512], name[80] = "", search[INPUT_MAX * 2] = "";

    if (node)
        text_escape(name, sizeof(name), node, strlen(node));
    snprintf(line, sizeof(line),
             "Sallyport %s   %zu session%s: %zu active, %zu idle, %zu connecting", name, count,
             count == 1 ? "" : "s", count_status(t->rows, "active"), count_status(t->rows, "idle"),
             count_status(t->rows, "connecting"));
    attron(A_BOLD);
    put_cell(0, 0, COLS, line, false);
    attroff(A_BOLD);
    if (t->is_lost) {
        attron(in_colour ? COLOR_PAIR(COLOUR_ALARM) : A_STANDOUT);
        put_cell(1, 0, COLS, "The daemon is not reachable; trying again every second.", false);
        attroff(in_colour ? COLOR_PAIR(COLOUR_ALARM) : A_STANDOUT);
        return;
    }
    text_escape(search, sizeof(search), t->search, strlen(t->search));
    snprintf(line, sizeof(line), "%s%s", t->search[0] ? "Filter: " : "", search);
    put_cell(1, 0, COLS, line, false);
}

static void draw_foot(const struct top *t)
{
    const char *keys = "q quit  e end  m message  / filter  s,S sort  r reverse  arrows move";

    if (t->said[0]) {
        int attr = !t->is_alarm ? A_BOLD : in_colour ? COLOR_PAIR(COLOUR_ALARM) : A_STANDOUT;
        attron(attr);
        put_cell(LINES - 1, 0, COLS - 1, t->said, false);
        attroff(attr);
    } else {
        attron(A_DIM);
        put_cell(LINES - 1, 0, COLS - 1, keys, false);
        attroff(A_DIM);
    }
}

static const char *row_id(const struct top *t, size_t index)
{
    const char *id = json_string_value(json_object_get(json_array_get(t->rows, index), "id"));

    return id ? id : "";
}

static size_t selected_index(const struct top *t)
{
    for (size_t i = 0; i < json_array_size(t->rows); i++) {
        if (strcmp(row_id(t, i), t->selected) == 0)
            return i;
    }
    return 0;
}

static size_t page(void)
{
    return LINES > HEAD_LINES + 1 ? (size_t)(LINES - HEAD_LINES - 1) : 1;
}

static void draw(struct top *t)
{
    size_t count = json_array_size(t->rows), at = selected_index(t), lines = page();

    if (at < t->first)
        t->first = at;
    if (at >= t->first + lines)
        t->first = at - lines + 1;
    if (count <= lines)
        t->first = 0;
    if (count)
        text_copy(t->selected, sizeof(t->selected), row_id(t, at));
    erase();
    draw_summary(t);
    draw_heads(t);
    for (size_t i = 0; i < lines && t->first + i < count; i++)
        draw_row(json_array_get(t->rows, t->first + i), HEAD_LINES + (int)i, t->first + i == at);
    if (count == 0 && !t->is_lost)
        mvaddstr(HEAD_LINES + 1 < LINES ? HEAD_LINES + 1 : HEAD_LINES, 2,
                 t->search[0] ? "No session fits the filter." : "No live sessions.");
    draw_foot(t);
    refresh();
}

/* ---- asking on the last line ---- */

/* What a key does to a line of input; 1 accepted, -1 given up, 0 go on. */
static int edit(int kind, wint_t key, char *value, size_t *used, size_t len)
{
    char bytes[MB_LEN_MAX];
    mbstate_t state = {0};
    size_t n;

    if (kind == ERR)
        return 0;
    if ((kind == OK && (key == '\n' || key == '\r')) || (kind != OK && key == KEY_ENTER))
        return 1;
    if (kind == OK && (key == KEY_ESC || key == KEY_CTRL('c')))
        return -1;
    if ((kind != OK && key == KEY_BACKSPACE) || (kind == OK && (key == 127 || key == 8))) {
        while (*used && ((unsigned char)value[--*used] & 0xc0) == 0x80)
            continue;
        value[*used] = '\0';
    } else if (kind == OK && key == KEY_CTRL('u')) {
        value[ *used = 0] = '\0';
    } else if (kind == OK && key >= ' ') {
        n = wcrtomb(bytes, (wchar_t)key, &state);
        if (n != (size_t)-1 && *used + n < len) {
            memcpy(value + *used, bytes, n);
            value[ *used += n] = '\0';
        }
    }
    return 0;
}

/* A line of input; false when it was given up with Esc. */
static bool ask_line(struct top *t, const char *label, char *value, size_t len)
{
    size_t used = strlen(value);
    int done = 0;

    curs_set(1);
    timeout(-1);
    while (done == 0 && !was_signalled) {
        char whole[INPUT_MAX * 2 + 160];
        wint_t key;
        int kind;
        snprintf(whole, sizeof(whole), "%s%s", label, value);
        draw(t);
        put_cell(LINES - 1, 0, COLS - 1, whole, false);
        move(LINES - 1, (int)output_width(whole) < COLS ? (int)output_width(whole) : COLS - 1);
        refresh();
        kind = get_wch(&key);
        done = edit(kind, key, value, &used, len);
    }
    timeout(0);
    curs_set(0);
    return done > 0;
}

static bool ask_yes(struct top *t, const char *question)
{
    char answer[8] = "";

    return ask_line(t, question, answer, sizeof(answer)) &&
           (strcmp(answer, "y") == 0 || strcmp(answer, "yes") == 0);
}

/* What a row's session is called in questions. */
static void describe(const struct top *t, char *dst, size_t len)
{
    const json_t *row = json_array_get(t->rows, selected_index(t));
    const char *user = json_string_value(json_object_get(row, "user"));
    const char *target = json_string_value(json_object_get(row, "resourceName"));

    snprintf(dst, len, "session %s (%s at %s)", t->selected, user ? user : "?",
             target ? target : "?");
}

static void say_result(struct top *t, json_t *rows, const char *what)
{
    const json_t *row = json_array_get(rows, 0);
    const char *result = json_string_value(json_object_get(row, "result"));
    const char *text = json_string_value(json_object_get(row, "text"));

    if (rows)
        say(t, false, "%s: %s%s%s", what, result ? result : "?", text && *text ? ", " : "",
            text ? text : "");
    json_decref(rows);
}

static void end_selected(struct top *t)
{
    char what[200], question[256], reason[INPUT_MAX] = "", id[32];
    json_t *args;

    if (json_array_size(t->rows) == 0)
        return;
    text_copy(id, sizeof(id), t->selected);
    describe(t, what, sizeof(what));
    snprintf(question, sizeof(question), "End %s? [y/N] ", what);
    if (!ask_yes(t, question)) {
        say(t, false, "Nothing was ended.");
        return;
    }
    if (!ask_line(t, "Reason (Enter for none, Esc to keep the session): ", reason,
                  sizeof(reason))) {
        say(t, false, "Nothing was ended.");
        return;
    }
    args = json_pack("{s:[s]}", "ids", id);
    if (reason[0])
        json_object_set_new(args, "reason", json_string(reason));
    say_result(t, call(t, "session end", args), what);
}

static void message_selected(struct top *t)
{
    char what[200], label[256], text[INPUT_MAX] = "", id[32];

    if (json_array_size(t->rows) == 0)
        return;
    text_copy(id, sizeof(id), t->selected);
    describe(t, what, sizeof(what));
    snprintf(label, sizeof(label), "To %s: ", what);
    if (!ask_line(t, label, text, sizeof(text)) || !text[0]) {
        say(t, false, "Nothing was sent.");
        return;
    }
    say_result(t, call(t, "session message", json_pack("{s:[s],s:s}", "ids", id, "text", text)),
               what);
}

/* ---- keys ---- */

static void select_row(struct top *t, size_t at)
{
    size_t count = json_array_size(t->rows);

    if (count)
        text_copy(t->selected, sizeof(t->selected), row_id(t, at < count ? at : count - 1));
}

static bool move_key(struct top *t, int key)
{
    size_t at = selected_index(t), step = page();

    switch (key) {
    case KEY_UP:
    case 'k':
        select_row(t, at ? at - 1 : 0);
        return true;
    case KEY_DOWN:
    case 'j':
        select_row(t, at + 1);
        return true;
    case KEY_PPAGE:
        select_row(t, at > step ? at - step : 0);
        return true;
    case KEY_NPAGE:
        select_row(t, at + step);
        return true;
    case KEY_HOME:
    case 'g':
        select_row(t, 0);
        return true;
    case KEY_END:
    case 'G':
        select_row(t, SIZE_MAX);
        return true;
    default:
        return false;
    }
}

/* The next column that is on the screen. */
static void sort_by_next(struct top *t, size_t step)
{
    do {
        t->sort = (t->sort + step) % SHOWN_COUNT;
    } while (COLS < shown[t->sort].from_width);
    sort_rows(t);
}

/* False to leave. */
static bool handle_key(struct top *t, int key)
{
    t->said[0] = '\0';
    if (move_key(t, key))
        return true;
    switch (key) {
    case 'q':
    case KEY_CTRL('c'):
        return false;
    case 'e':
        end_selected(t);
        t->refresh_at_ms = 0;
        break;
    case 'm':
        message_selected(t);
        break;
    case '/':
        if (!ask_line(t, "Filter: ", t->search, sizeof(t->search)))
            t->search[0] = '\0';
        t->refresh_at_ms = 0;
        break;
    case KEY_CTRL('l'):
        clearok(stdscr, TRUE);
        break;
    case 's':
        sort_by_next(t, 1);
        break;
    case 'S':
        sort_by_next(t, SHOWN_COUNT - 1);
        break;
    case 'r':
        t->is_reversed = !t->is_reversed;
        sort_rows(t);
        break;
    default:
        break;
    }
    return true;
}

/* ---- the loop ---- */

/* Swallow what came from the daemon; something changed, so list again soon. */
static void read_events(struct top *t)
{
    int64_t soon = clock_mono_ms() + SETTLE_MS;
    json_t *line = NULL;
    int rc;

    do {
        rc = conn_read(&t->cli->conn, 0, &line);
        if (rc == 0)
            json_decref(line);
    } while (rc == 0);
    if (rc < 0 && rc != ERR_AGAIN)
        lose(t);
    if (t->refresh_at_ms > soon)
        t->refresh_at_ms = soon;
}

static void wait_turn(struct top *t)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = t->cli->conn.fd, .events = POLLIN}};
    int64_t left = t->refresh_at_ms - clock_mono_ms();

    if (poll(fds, t->cli->is_connected ? 2 : 1, left > 0 ? (int)left : 0) > 0) {
        if (t->cli->is_connected && fds[1].revents)
            read_events(t);
        if (fds[0].revents & (POLLHUP | POLLERR))
            was_signalled = 1; /* the terminal is gone */
    }
}

static void run(struct top *t)
{
    for (bool go_on = true; go_on && !was_signalled;) {
        int key;
        if (clock_mono_ms() >= t->refresh_at_ms)
            refetch(t);
        draw(t);
        wait_turn(t);
        timeout(0);
        while (go_on && !was_signalled && (key = getch()) != ERR)
            go_on = handle_key(t, key);
    }
}

static void screen_begin(const struct cli *cli)
{
    struct sigaction action = {.sa_handler = on_signal};

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    set_escdelay(50);
    raw();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    in_colour = cli->is_colour && has_colors();
    if (in_colour) {
        start_color();
        use_default_colors();
        init_pair(COLOUR_ACTIVE, COLOR_GREEN, -1);
        init_pair(COLOUR_IDLE, COLOR_YELLOW, -1);
        init_pair(COLOUR_CONNECTING, COLOR_CYAN, -1);
        init_pair(COLOUR_ALARM, COLOR_RED, -1);
    }
}

/* --sort COLUMN as a place in shown. False when there is no such column (told). */
static bool first_sort(struct top *t)
{
    const char *by = cli_value(t->cli, "sort");
    const struct column *wanted;
    json_t *none;
    bool ok;

    if (!by)
        return true;
    t->is_reversed = *by == '-';
    by += *by == '-';
    wanted = output_find(&session_columns, by, strlen(by));
    for (size_t i = 0; wanted && i < SHOWN_COUNT; i++) {
        if (column_of(&shown[i]) == wanted) {
            t->sort = i;
            return true;
        }
    }
    if (wanted) {
        cli_usage(t->cli, "top does not show %s, so it cannot sort by it", wanted->head);
        return false;
    }
    none = json_array();
    ok = output_sort(t->cli, &session_columns, none, by); /* tells which there are */
    json_decref(none);
    return ok;
}

int cmd_session_top(struct cli *cli)
{
    struct top t = {.cli = cli};
    const char *search = cli_value(cli, "search");
    SCREEN *screen;
    int rc;

    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return cli_usage(cli, "top needs a terminal; in a script use `sallyctl ls -o json`");
    if (!first_sort(&t))
        return CLI_USAGE;
    if (search)
        text_copy(t.search, sizeof(t.search), search);
    rc = cli_connect(cli);
    if (rc != CLI_DONE)
        return rc;
    screen = newterm(NULL, stdout, stdin); /* initscr() would exit by itself */
    if (!screen) {
        cli_error("this terminal (TERM=%s) cannot be driven; use `sallyctl ls -w`",
                  getenv("TERM") ? getenv("TERM") : "");
        return CLI_FAILED;
    }
    screen_begin(cli);
    t.rows = json_array();
    t.is_lost = !subscribe(&t);
    run(&t);
    endwin();
    delscreen(screen);
    json_decref(t.rows);
    return CLI_DONE;
}
