/*
 * The player: see play.h. Time runs as a position in the recording; waiting for the next event is
 * waiting for a key with a timeout.
 */
#include "control/cli/play.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <jansson.h>

#include <sallyport/buffer.h>
#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/play_filter.h"
#include "tracker/recording/recording.h"

#define OUT_MAX      (1024 * 1024)
#define OUT_FLUSH    (64 * 1024)
#define SEEK_S       5.0
#define WAIT_MAX_MS  60000
#define NOTICE_MAX   512
#define HINT_MS      1000
#define HINT_SIZE_MS 3000

struct player {
    const char *path;
    struct recording_reader *reader;
    struct recording_event next; /* data is borrowed from the reader */
    bool has_next;
    bool has_pty; /* without one, line ends are bare line feeds */
    struct play_filter filter;
    struct buffer filtered, out;
    double position_s, speed, idle_limit_s;
    bool is_paused, is_stopped;
    int tty; /* keys; -1: none */
    struct termios saved;
    char *text;
    size_t text_len;
};

static volatile sig_atomic_t was_signalled;

static void on_signal(int number)
{
    (void)number;
    was_signalled = 1;
}

/* ---- output ---- */

static void flush(struct player *p)
{
    size_t done = 0;

    while (done < p->out.len && !was_signalled) {
        ssize_t n = write(STDOUT_FILENO, p->out.data + done, p->out.len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            p->is_stopped = true;
            break;
        }
        done += (size_t)n;
    }
    buffer_reset(&p->out);
}

static void put(struct player *p, const char *text)
{
    buffer_put_str(&p->out, text);
}

static void put_output(struct player *p, const uint8_t *data, size_t len)
{
    buffer_reset(&p->filtered);
    play_filter_feed(&p->filter, data, len, &p->filtered);
    for (size_t i = 0; i < p->filtered.len; i++) {
        uint8_t c = p->filtered.data[i];
        if (c == '\n' && !p->has_pty)
            put(p, "\r");
        buffer_put(&p->out, &c, 1);
    }
}

/* What Sallyport showed to the user, as it did: on a line of its own, or on the last line of a
 * full-screen program. */
static void put_notice(struct player *p, const uint8_t *data, size_t len)
{
    char shown[NOTICE_MAX];

    text_escape(shown, sizeof(shown), (const char *)data, len);
    if (p->filter.is_alternate)
        buffer_printf(&p->out, "\0337\033[999;1H\033[0;7m %s \033[0m\033[K\0338", shown);
    else
        buffer_printf(&p->out, "\r\n\0337\033[0;7m %s \033[0m\0338\r\n", shown);
}

static void show(struct player *p, const struct recording_event *e)
{
    switch (e->kind) {
    case RECORDING_EVENT_OUTPUT:
    case RECORDING_EVENT_STDERR:
        put_output(p, e->data, e->len);
        break;
    case RECORDING_EVENT_NOTICE:
        put_notice(p, e->data, e->len);
        break;
    case RECORDING_EVENT_INPUT: /* what came back on the screen is output */
    case RECORDING_EVENT_RESIZE:
        break;
    }
    if (p->out.len >= OUT_FLUSH)
        flush(p);
}

/* ---- the recording ---- */

static bool is_pty(const struct recording_reader *r)
{
    json_t *header = json_loads(recording_reader_header(r), 0, NULL);
    bool no = json_is_false(json_object_get(header, "pty"));

    json_decref(header);
    return !no;
}

static bool open_reader(struct player *p)
{
    recording_reader_close(p->reader);
    p->has_next = false;
    p->reader = recording_reader_open(p->path, p->text, p->text_len);
    if (p->reader)
        p->has_pty = is_pty(p->reader);
    return p->reader != NULL;
}

/* 1 when the next event is there, 0 at the end, negative on error. */
static int look_ahead(struct player *p)
{
    int n = 1;

    if (!p->has_next) {
        n = recording_reader_next(p->reader, &p->next);
        p->has_next = n > 0;
        if (n < 0)
            snprintf(p->text, p->text_len, "%s", error_text(n));
    }
    return n;
}

static bool stop_wanted(const struct player *p)
{
    struct pollfd poll_tty = {.fd = p->tty, .events = POLLIN};
    char c;

    if (was_signalled)
        return true;
    if (p->tty < 0 || poll(&poll_tty, 1, 0) <= 0)
        return false;
    return read(p->tty, &c, 1) == 1 && (c == 'q' || c == 3);
}

/* Show at once everything up to `to_s`. */
static void catch_up(struct player *p, double to_s)
{
    size_t shown = 0;

    while (look_ahead(p) > 0 && p->next.at_s <= to_s && !p->is_stopped) {
        show(p, &p->next);
        p->has_next = false;
        if (++shown % 256 == 0) /* a long way: keys for stopping still work */
            p->is_stopped = stop_wanted(p);
    }
    p->position_s = to_s;
    flush(p);
}

static void seek(struct player *p, double to_s)
{
    if (to_s < 0)
        to_s = 0;
    if (to_s < p->position_s) {
        play_filter_reset(&p->filter, &p->out);
        play_filter_init(&p->filter);
        put(p, "\033[2J\033[H");
        if (!open_reader(p)) {
            p->is_stopped = true;
            return;
        }
    }
    catch_up(p, to_s);
}

/* ---- keys ---- */

static void handle_key(struct player *p, const char *key, size_t len)
{
    if (len >= 3 && key[0] == '\033' && (key[1] == '[' || key[1] == 'O')) {
        if (key[2] == 'C')
            seek(p, p->position_s + SEEK_S);
        else if (key[2] == 'D')
            seek(p, p->position_s - SEEK_S);
        return;
    }
    switch (key[0]) {
    case ' ':
    case 'p':
        p->is_paused = !p->is_paused;
        break;
    case '.':
    case 's':
        p->is_paused = true;
        if (look_ahead(p) > 0)
            catch_up(p, p->next.at_s);
        break;
    case '+':
    case '=':
        p->speed = p->speed * 2 > PLAY_SPEED_MAX ? PLAY_SPEED_MAX : p->speed * 2;
        break;
    case '-':
        p->speed = p->speed / 2 < PLAY_SPEED_MIN ? PLAY_SPEED_MIN : p->speed / 2;
        break;
    case '0':
        seek(p, 0);
        break;
    case 'q':
    case 3: /* ^C */
        p->is_stopped = true;
        break;
    default:
        break;
    }
}

/* Wait for a key or `ms` (-1: for ever). */
static void wait_key(struct player *p, int ms)
{
    struct pollfd poll_tty = {.fd = p->tty, .events = POLLIN};
    char key[32];
    ssize_t n;

    if (poll(&poll_tty, p->tty >= 0 ? 1 : 0, ms) <= 0 || was_signalled) {
        p->is_stopped = p->is_stopped || was_signalled;
        return;
    }
    n = read(p->tty, key, sizeof(key));
    if (n > 0)
        handle_key(p, key, (size_t)n);
    else if (n == 0 || errno != EINTR)
        p->is_stopped = true; /* the terminal is gone */
}

/* Let time pass until the next event is due. */
static void wait_next(struct player *p)
{
    while (!p->is_stopped && p->has_next && (p->is_paused || p->position_s < p->next.at_s)) {
        int64_t before = clock_mono_ms();
        double left_ms = (p->next.at_s - p->position_s) * 1000 / p->speed, speed = p->speed;
        bool was_paused = p->is_paused;
        double was_at = p->position_s;
        int ms = left_ms > WAIT_MAX_MS ? WAIT_MAX_MS : (int)left_ms + 1;
        wait_key(p, was_paused ? -1 : ms);
        if (!was_paused && p->position_s >= was_at && p->position_s <= was_at)
            p->position_s += (double)(clock_mono_ms() - before) / 1000 * speed;
        if (!p->has_next && !p->is_stopped && look_ahead(p) <= 0)
            return;
    }
}

static int play_all(struct player *p)
{
    int n = 0;

    while (!p->is_stopped && (n = look_ahead(p)) > 0) {
        if (p->idle_limit_s > 0 && p->next.at_s - p->position_s > p->idle_limit_s)
            p->position_s = p->next.at_s - p->idle_limit_s;
        flush(p);
        wait_next(p);
        if (p->is_stopped || !p->has_next || p->next.at_s > p->position_s)
            continue;
        show(p, &p->next);
        p->has_next = false;
    }
    return n;
}

/* ---- the terminal ---- */

static void terminal_begin(struct player *p, int hint_ms)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct termios raw;
    struct winsize size;

    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGTSTP, SIG_IGN);
    p->tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (p->tty >= 0 && tcgetattr(p->tty, &p->saved) == 0) {
        raw = p->saved;
        raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO | ISIG | IEXTEN);
        raw.c_iflag &= ~(tcflag_t)(IXON | ICRNL);
        raw.c_oflag &= ~(tcflag_t)OPOST;
        raw.c_cc[VMIN] = 1;
        raw.c_cc[VTIME] = 0;
        tcsetattr(p->tty, TCSADRAIN, &raw);
    }
    if (p->tty >= 0) {
        struct pollfd poll_tty = {.fd = p->tty, .events = POLLIN};
        poll(&poll_tty, 1, hint_ms); /* a key begins at once, and acts */
    }
    /* what is on the screen moves into the scrollback, and the recording gets a clean one */
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_row == 0)
        size.ws_row = 24;
    for (unsigned i = 0; i < size.ws_row; i++)
        put(p, "\r\n");
    put(p, "\033[H");
    flush(p);
}

static void terminal_end(struct player *p)
{
    was_signalled = 0; /* these last bytes must get out */
    play_filter_reset(&p->filter, &p->out);
    put(p, "\r\n");
    flush(p);
    if (p->tty >= 0) {
        tcsetattr(p->tty, TCSADRAIN, &p->saved);
        close(p->tty);
    }
}

/* Keys, and the size when it does not fit. Returns how long that takes to read: the playback has
 * the whole screen. */
static int hints(const struct player *p)
{
    struct winsize size;
    uint16_t cols, rows;
    int read_ms = HINT_MS;

    recording_reader_size(p->reader, &cols, &rows);
    if (p->has_pty && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col &&
        (cols > size.ws_col || rows > size.ws_row)) {
        cli_say("The recorded screen is %ux%u and this terminal %ux%u: it will look broken; make "
                "the terminal larger.",
                cols, rows, size.ws_col, size.ws_row);
        read_ms = HINT_SIZE_MS;
    }
    cli_say("Keys: space pauses, . steps, left and right 5 s, + and - speed, 0 the start, q ends.");
    return read_ms;
}

static enum play_result end_of(const struct player *p)
{
    uint64_t frame;

    switch (recording_reader_end(p->reader, &frame, p->text, p->text_len)) {
    case RECORDING_COMPLETE:
        return PLAY_COMPLETE;
    case RECORDING_CUT:
        return PLAY_CUT;
    default:
        return PLAY_DAMAGED;
    }
}

enum play_result play_recording(const char *path, const struct play_options *options, char *text,
                                size_t text_len, double *position_s)
{
    struct player p = {.path = path, .tty = -1, .text = text, .text_len = text_len};
    enum play_result result = PLAY_ERROR;
    uint64_t unclosed;
    int n;

    p.speed = options->speed;
    p.idle_limit_s = options->idle_limit_s;
    was_signalled = 0;
    buffer_init(&p.filtered, OUT_MAX);
    buffer_init(&p.out, OUT_MAX);
    play_filter_init(&p.filter);
    if (open_reader(&p)) {
        terminal_begin(&p, hints(&p));
        if (options->at_s > 0)
            catch_up(&p, options->at_s);
        n = play_all(&p);
        flush(&p);
        unclosed = p.filter.unclosed;
        terminal_end(&p);
        result = p.is_stopped ? PLAY_STOPPED : n < 0 ? PLAY_ERROR : end_of(&p);
        if (unclosed)
            cli_say("%llu control strings had no end; what they hid is only in an export.",
                    (unsigned long long)unclosed);
    }
    *position_s = p.position_s;
    recording_reader_close(p.reader);
    buffer_finish(&p.filtered);
    buffer_finish(&p.out);
    return result;
}

enum play_result play_raw(const char *path, double at_s, char *text, size_t text_len)
{
    struct player p = {.path = path, .tty = -1, .text = text, .text_len = text_len};
    enum play_result result = PLAY_ERROR;
    int n = 0;

    if (!open_reader(&p))
        return PLAY_ERROR;
    while ((n = look_ahead(&p)) > 0) {
        const struct recording_event *e = &p.next;
        bool is_output = e->kind == RECORDING_EVENT_OUTPUT || e->kind == RECORDING_EVENT_STDERR;
        if (is_output && e->at_s >= at_s && fwrite(e->data, 1, e->len, stdout) != e->len) {
            snprintf(text, text_len, "cannot write: %s", strerror(errno));
            break;
        }
        p.has_next = false;
    }
    if (n == 0)
        result = end_of(&p);
    recording_reader_close(p.reader);
    return result;
}
