/*
 * `session watch` and `session join`: what a terminal shows, from the relay itself. The recording
 * so far is read first, through the same emulator and unseen, so that the screen is there as it is
 * now; then the live lines (proxy/ssh/watch.h) go on where the recording stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <jansson.h>

#include <sallyport/buffer.h>
#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/screen.h"
#include "tracker/recording/recording.h"

#define BACKLOG_MAX    (64 * 1024 * 1024) /* lines that wait to be shown */
#define OUT_MAX        (8 * 1024 * 1024)
#define FRAME_MS       33
#define NOTICE_LOOK_MS 1000
#define HEADER_MS      10000
#define LEAVE_JOIN     0x1d /* Ctrl-] */
#define STATUS_MAX     512

struct watching {
    struct cli *cli;
    bool may_type, is_raw; /* is_raw: lines for a script */
    char session[32];
    char title[128]; /* "alice@web01" */
    int stream, recording;
    struct buffer in;
    size_t scanned;
    json_t *header;
    struct screen *screen;
    struct buffer out;
    int tty; /* keys */
    struct termios saved;
    bool has_terminal; /* ours is taken */
    bool is_over, has_left, needs_draw;
    char why[256]; /* the last line's text */
    char code[32];
    int64_t drawn_ms;
};

static volatile sig_atomic_t was_signalled, was_resized;

static void on_signal(int number)
{
    if (number == SIGWINCH)
        was_resized = 1;
    else
        was_signalled = 1;
}

/* ---- the stream ---- */

/* Take what is there; false at its end. */
static bool fill(struct watching *w)
{
    uint8_t chunk[65536];

    while (w->in.len < BACKLOG_MAX) {
        ssize_t n = recv(w->stream, chunk, sizeof(chunk), MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return true;
        if (n <= 0)
            return false;
        buffer_put(&w->in, chunk, (size_t)n);
        if (w->in.failed)
            return false;
    }
    return true;
}

/* The next whole line, without its end; borrowed until next_line_done(). NULL: none. */
static const char *next_line(struct watching *w, size_t *len)
{
    const uint8_t *nl = NULL;

    if (w->scanned < w->in.len)
        nl = memchr(w->in.data + w->scanned, '\n', w->in.len - w->scanned);
    if (!nl)
        return NULL;
    *len = (size_t)(nl - (w->in.data + w->scanned));
    return (const char *)w->in.data + w->scanned;
}

static void next_line_done(struct watching *w, size_t len)
{
    w->scanned += len + 1;
}

static void drop_used(struct watching *w)
{
    buffer_consume(&w->in, w->scanned);
    w->scanned = 0;
}

static bool read_header(struct watching *w)
{
    struct pollfd p = {.fd = w->stream, .events = POLLIN};
    int64_t until = clock_mono_ms() + HEADER_MS;
    const char *line;
    size_t len;

    while (!(line = next_line(w, &len))) {
        int64_t left = until - clock_mono_ms();

        if (left <= 0 || (poll(&p, 1, (int)left) > 0 && !fill(w) && !next_line(w, &len)))
            return false;
    }
    w->header = json_loadb(line, len, 0, NULL);
    if (!w->is_raw)
        next_line_done(w, len);
    return json_is_object(w->header);
}

static uint16_t number_of(const json_t *o, const char *key)
{
    json_int_t n = json_integer_value(json_object_get(o, key));

    return n < 1 ? 1 : n > 1000 ? 1000 : (uint16_t)n;
}

/* ---- what was shown before ---- */

static void show_recorded(struct watching *w, const struct recording_event *e)
{
    switch (e->kind) {
    case RECORDING_EVENT_OUTPUT:
    case RECORDING_EVENT_STDERR:
        screen_feed(w->screen, e->data, e->len);
        break;
    case RECORDING_EVENT_NOTICE:
        screen_notice(w->screen, (const char *)e->data, e->len);
        break;
    case RECORDING_EVENT_RESIZE:
        screen_resize(w->screen, e->cols, e->rows);
        break;
    case RECORDING_EVENT_INPUT:
        break;
    }
}

/* Meanwhile the live lines are taken off the relay's hands, or it would drop us. */
static void replay(struct watching *w)
{
    json_int_t bytes = json_integer_value(json_object_get(w->header, "bytes"));
    struct recording_reader *r;
    struct recording_event e;
    char err[256] = "";
    uint16_t cols, rows;
    size_t count = 0;

    if (w->recording < 0 || !json_is_true(json_object_get(w->header, "recorded"))) {
        cli_say("This session is not recorded: what was shown before is not known.");
        return;
    }
    if (bytes <= 0) {
        close(w->recording);
        w->recording = -1;
        return;
    }
    r = recording_reader_open_part(w->recording, (uint64_t)bytes, err, sizeof(err));
    w->recording = -1;
    if (!r) {
        cli_say("The recording so far cannot be read: %s. What was shown before is not known.",
                err);
        return;
    }
    recording_reader_size(r, &cols, &rows);
    screen_resize(w->screen, cols, rows);
    while (recording_reader_next(r, &e) > 0 && !was_signalled) {
        show_recorded(w, &e);
        if (++count % 64 == 0)
            (void)fill(w);
    }
    recording_reader_close(r);
}

/* ---- live ---- */

static void take_end(struct watching *w, const json_t *line)
{
    const char *code = json_string_value(json_object_get(line, "end"));
    const char *text = json_string_value(json_object_get(line, "text"));

    text_copy(w->code, sizeof(w->code), code ? code : "");
    text_copy(w->why, sizeof(w->why), text ? text : "");
    w->is_over = true;
}

static void take_event(struct watching *w, const json_t *line)
{
    const char *code = json_string_value(json_array_get(line, 1));
    const json_t *text = json_array_get(line, 2);
    unsigned cols, rows;

    if (!code || !json_is_string(text))
        return;
    w->needs_draw = true;
    if (code[0] == 'o')
        screen_feed(w->screen, (const uint8_t *)json_string_value(text), json_string_length(text));
    else if (code[0] == 'm')
        screen_notice(w->screen, json_string_value(text), json_string_length(text));
    else if (code[0] == 'r' && sscanf(json_string_value(text), "%4ux%4u", &cols, &rows) == 2)
        screen_resize(w->screen, (uint16_t)cols, (uint16_t)rows);
}

static void take_lines(struct watching *w)
{
    const char *line;
    size_t len;

    while (!w->is_over && (line = next_line(w, &len))) {
        json_t *value = json_loadb(line, len, JSON_ALLOW_NUL, NULL);

        if (w->is_raw) {
            fwrite(line, 1, len, stdout);
            fputc('\n', stdout);
        }
        if (json_is_object(value) && json_object_get(value, "end"))
            take_end(w, value);
        else if (json_is_array(value) && !w->is_raw)
            take_event(w, value);
        json_decref(value);
        next_line_done(w, len);
    }
    drop_used(w);
    if (w->is_raw && fflush(stdout) != 0)
        w->has_left = true; /* nobody reads any more */
}

/* ---- our terminal ---- */

static void flush(struct watching *w)
{
    size_t done = 0;

    while (done < w->out.len) {
        ssize_t n = write(STDOUT_FILENO, w->out.data + done, w->out.len - done);

        if (n < 0 && errno == EINTR && !was_signalled)
            continue;
        if (n < 0) {
            w->has_left = true;
            break;
        }
        done += (size_t)n;
    }
    buffer_reset(&w->out);
}

static void draw(struct watching *w)
{
    struct winsize size = {.ws_col = 80, .ws_row = 24};
    const char *notice = screen_last_notice(w->screen), *key = w->may_type ? "Ctrl-]" : "q";
    char status[STATUS_MAX];
    uint16_t cols, rows;

    (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
    screen_size(w->screen, &cols, &rows);
    if (notice[0])
        snprintf(status, sizeof(status), " %s leaves  %s", key, notice);
    else
        snprintf(status, sizeof(status), " %s leaves  %ux%u%s  session %s  %s %s", key, cols, rows,
                 cols > size.ws_col || rows + 1 > size.ws_row ? " (does not fit)" : "", w->session,
                 w->may_type ? "joined" : "watching", w->title);
    screen_draw(w->screen, size.ws_col, size.ws_row, status, &w->out);
    flush(w);
    w->needs_draw = false;
    w->drawn_ms = clock_mono_ms();
}

static void terminal_begin(struct watching *w)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct termios raw;

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGWINCH, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    if (w->is_raw)
        return;
    signal(SIGTSTP, SIG_IGN);
    w->tty = isatty(STDIN_FILENO) ? dup(STDIN_FILENO) : open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (w->tty >= 0 && tcgetattr(w->tty, &w->saved) == 0) {
        raw = w->saved;
        cfmakeraw(&raw);
        tcsetattr(w->tty, TCSADRAIN, &raw);
    }
    screen_enter(&w->out);
    w->has_terminal = true;
    flush(w);
}

static void terminal_end(struct watching *w)
{
    if (!w->has_terminal)
        return;
    was_signalled = 0; /* these last bytes must get out */
    screen_leave(&w->out);
    flush(w);
    if (w->tty >= 0) {
        tcsetattr(w->tty, TCSADRAIN, &w->saved);
        close(w->tty);
    }
}

/* ---- keys ---- */

static void send_keys(struct watching *w, const char *keys, size_t len)
{
    while (len > 0) {
        ssize_t n = send(w->stream, keys, len, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* its last words are on the way */
        keys += n;
        len -= (size_t)n;
    }
}

static void take_keys(struct watching *w, int fd)
{
    char keys[1024];
    ssize_t n = read(fd, keys, sizeof(keys));

    if (n <= 0) {
        if (n < 0 && errno == EINTR)
            return;
        if (w->is_raw)
            w->tty = -1; /* nothing more to type: go on looking */
        else
            w->has_left = true;
        return;
    }
    if (w->is_raw) {
        send_keys(w, keys, (size_t)n);
        return;
    }
    for (ssize_t i = 0; i < n; i++) {
        bool leaves = w->may_type ? keys[i] == LEAVE_JOIN : keys[i] == 'q' || keys[i] == 3;

        if (!leaves)
            continue;
        w->has_left = true;
        n = i;
    }
    if (w->may_type)
        send_keys(w, keys, (size_t)n);
}

/* ---- the loop ---- */

static int wait_ms(const struct watching *w)
{
    int64_t left;

    if (!w->needs_draw) /* a notice goes away after a while */
        return w->screen && screen_last_notice(w->screen)[0] ? NOTICE_LOOK_MS : -1;
    left = w->drawn_ms + FRAME_MS - clock_mono_ms();
    return left < 0 ? 0 : (int)left;
}

static void look_on(struct watching *w)
{
    while (!w->is_over && !w->has_left && !was_signalled) {
        struct pollfd p[2] = {{.fd = w->stream, .events = POLLIN},
                              {.fd = w->tty, .events = POLLIN}};
        int n = poll(p, 2, wait_ms(w));

        if (w->screen && (was_resized || (n == 0 && !w->needs_draw))) {
            if (was_resized)
                screen_redraw(w->screen);
            was_resized = 0;
            w->needs_draw = true;
        }
        if (n > 0 && p[1].revents)
            take_keys(w, w->tty);
        if (n > 0 && p[0].revents && !fill(w)) {
            take_lines(w);
            if (!w->is_over)
                text_copy(w->why, sizeof(w->why), "the session's process is gone");
            w->is_over = true;
        }
        take_lines(w);
        if (w->needs_draw && !w->is_raw && clock_mono_ms() - w->drawn_ms >= FRAME_MS)
            draw(w);
    }
    if (w->needs_draw && !w->is_raw && !was_signalled && w->is_over)
        draw(w);
}

static int run(struct watching *w)
{
    if (!read_header(w)) {
        cli_error("session %s: nothing came from it; is it still there?", w->session);
        return CLI_FAILED;
    }
    if (w->is_raw) {
        w->tty = w->may_type ? STDIN_FILENO : -1;
        terminal_begin(w);
        take_lines(w);
        look_on(w);
    } else if (json_object_get(w->header, "end")) {
        take_end(w, w->header);
    } else {
        w->screen = screen_create(number_of(w->header, "cols"), number_of(w->header, "rows"),
                                  json_is_true(json_object_get(w->header, "pty")));
        if (!w->screen) {
            cli_error("out of memory");
            return CLI_FAILED;
        }
        replay(w);
        screen_resize(w->screen, number_of(w->header, "cols"), number_of(w->header, "rows"));
        terminal_begin(w);
        w->needs_draw = true;
        take_lines(w);
        look_on(w);
        terminal_end(w);
    }
    if (w->is_over && !w->is_raw)
        cli_say("Session %s: %s.", w->session, w->why);
    return w->is_over && strcmp(w->code, "over") != 0 ? CLI_FAILED : CLI_DONE;
}

/* ---- commands ---- */

/* "42" or "42.2" */
static json_t *parse_id(const char *id, char *session, size_t len)
{
    size_t dot = strcspn(id, ".");
    uint64_t number, channel = 0;
    json_t *args;

    if (dot >= len)
        return NULL;
    memcpy(session, id, dot);
    session[dot] = '\0';
    if (!text_parse_u64(session, &number) || number == 0 ||
        (id[dot] && (!text_parse_u64(id + dot + 1, &channel) || channel == 0)))
        return NULL;
    args = json_pack("{s:s, s:b}", "id", session, "descriptor", 1);
    if (channel)
        json_object_set_new(args, "channel", json_integer((json_int_t)channel));
    return args;
}

/* Whose terminal it is, for the status line. */
static void name_it(struct watching *w)
{
    json_t *session = NULL;
    const char *user, *target;
    char escaped[160];

    if (cli_call(w->cli, "session show", json_pack("{s:s}", "id", w->session), &session) !=
        CLI_DONE)
        return;
    user = json_string_value(json_object_get(session, "user"));
    target = json_string_value(json_object_get(session, "resourceName"));
    snprintf(escaped, sizeof(escaped), "%s at %s", user ? user : "?", target ? target : "?");
    text_escape(w->title, sizeof(w->title), escaped, strlen(escaped));
    json_decref(session);
}

static int watch(struct cli *cli, bool may_type)
{
    struct watching w = {
        .cli = cli, .may_type = may_type, .stream = -1, .recording = -1, .tty = -1};
    json_t *args = parse_id(cli_operand(cli, 0), w.session, sizeof(w.session)), *reply = NULL;
    int rc;

    w.is_raw = cli->format == FORMAT_JSONL;
    if (!args)
        return cli_usage(cli,
                         "\"%s\" is no session's id (42, or 42.2 for its second channel); "
                         "`sallyctl ls` shows them",
                         cli_operand(cli, 0));
    if (!w.is_raw && (cli->format != FORMAT_TABLE || !isatty(STDOUT_FILENO))) {
        json_decref(args);
        return cli_usage(cli, "this draws on a terminal; without one use -o jsonl");
    }
    rc = cli_call(cli, may_type ? "session join" : "session watch", args, &reply);
    if (rc != CLI_DONE)
        return rc;
    w.stream = conn_take_fd(&cli->conn);
    w.recording = conn_take_fd(&cli->conn);
    json_decref(reply);
    if (w.stream < 0) {
        cli_error("the daemon sent no descriptor");
        return CLI_FAILED;
    }
    was_signalled = was_resized = 0;
    buffer_init(&w.in, BACKLOG_MAX + 1024 * 1024);
    buffer_init(&w.out, OUT_MAX);
    name_it(&w);
    rc = run(&w);
    screen_destroy(w.screen);
    json_decref(w.header);
    buffer_finish(&w.in);
    buffer_finish(&w.out);
    close(w.stream);
    if (w.recording >= 0)
        close(w.recording);
    return rc;
}

int cmd_session_watch(struct cli *cli)
{
    return watch(cli, false);
}

int cmd_session_join(struct cli *cli)
{
    return watch(cli, true);
}
