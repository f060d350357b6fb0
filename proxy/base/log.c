/*
 * The log of a process: one line an event, escaped as a whole, written with one write(2) so that
 * lines of several processes do not mix. Never stdio, no time zone files, no memory: it works in
 * the narrowest sandbox. Decides nothing about what is worth a line; everybody calls it.
 */
#include <sallyport/log.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define PREFIX_MAX      200
#define TEXT_MAX        3072
#define LINE_MAX_BYTES  4096 /* PIPE_BUF: a pipe takes this whole or not at all */
#define LIMIT_WINDOW_MS 60000

static const struct {
    const char *name; /* in the configuration */
    const char *label;
    int priority;
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", "ERROR", LOG_ERR},
    [LOG_LEVEL_WARN] = {"warn", "WARN", LOG_WARNING},
    [LOG_LEVEL_INFO] = {"info", "INFO", LOG_INFO},
    [LOG_LEVEL_DEBUG] = {"debug", "DEBUG", LOG_DEBUG},
    [LOG_LEVEL_TRACE] = {"trace", "TRACE", LOG_DEBUG},
};

static struct {
    const char *program;
    enum log_sink sink;
    enum log_level level;
    char prefix[PREFIX_MAX + 1]; /* escaped */
    uint64_t dropped;            /* lines the descriptor did not take, not yet reported */
} state = {.program = "sallyport", .level = LOG_LEVEL_INFO};

void log_open(const char *program, enum log_sink sink, enum log_level level)
{
    char warm[TIME_TEXT_MAX];

    state.program = program;
    state.sink = sink;
    log_set_level(level);
    text_time_utc(warm, sizeof(warm), 0); /* glibc reads the zone once: before any sandbox */
    if (sink == LOG_SINK_SYSLOG)
        openlog(program, LOG_PID | LOG_NDELAY, LOG_AUTHPRIV);
}

enum log_sink log_open_as_told(const char *program)
{
    const char *told = getenv("SALLYPORT_LOG"), *name = getenv("SALLYPORT_LOG_LEVEL");
    enum log_sink sink = told && strcmp(told, "syslog") == 0 ? LOG_SINK_SYSLOG : LOG_SINK_STDERR;
    enum log_level level = LOG_LEVEL_INFO;

    if (name)
        (void)log_level_from_text(name, &level);
    log_open(program, sink, level);
    return sink;
}

void log_set_level(enum log_level level)
{
    state.level = level;
}

enum log_level log_get_level(void)
{
    return state.level;
}

bool log_level_from_text(const char *text, enum log_level *out)
{
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        if (strcmp(text, levels[i].name) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

void log_set_prefix(const char *fmt, ...)
{
    char raw[PREFIX_MAX + 1];
    int saved = errno;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(raw, sizeof(raw), fmt, ap);
    va_end(ap);
    text_escape(state.prefix, sizeof(state.prefix), raw, strlen(raw));
    errno = saved;
}

/*
 * One line or nothing. poll() first, since our stderr may be a blocking pipe that nobody reads and
 * is shared with others, so that O_NONBLOCK is not ours to set.
 */
static bool write_line(const char *line, size_t len)
{
    struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
    ssize_t n;

    if (poll(&p, 1, 0) == 0)
        return false;
    do
        n = write(STDERR_FILENO, line, len);
    while (n < 0 && errno == EINTR);
    return n >= 0;
}

/* `text` is escaped already. Longer lines are cut, the newline stays. */
static bool write_text(enum log_level level, const char *text)
{
    char line[LINE_MAX_BYTES], when[TIME_TEXT_MAX];
    int n = snprintf(line, sizeof(line), "%s %s %s[%d]%s%s: %s",
                     text_time_utc(when, sizeof(when), clock_wall_us()), levels[level].label,
                     state.program, (int)getpid(), *state.prefix ? " " : "", state.prefix, text);
    size_t len = n < 0 ? 0 : (size_t)n;

    if (len > sizeof(line) - 1)
        len = sizeof(line) - 1;
    line[len++] = '\n'; /* over the NUL: write(2) takes a length */
    return write_line(line, len);
}

static void emit(enum log_level level, const char *text)
{
    char note[64];

    if (state.sink == LOG_SINK_SYSLOG) {
        syslog(levels[level].priority, "%s%s%s", state.prefix, *state.prefix ? ": " : "", text);
        return;
    }
    if (state.dropped) {
        snprintf(note, sizeof(note), "log lines lost: %" PRIu64, state.dropped);
        if (!write_text(LOG_LEVEL_WARN, note)) {
            state.dropped++;
            return;
        }
        state.dropped = 0;
    }
    if (!write_text(level, text))
        state.dropped++;
}

/* The format's result is escaped as a whole: no caller can forget one argument. */
static void format_escaped(char out[TEXT_MAX], const char *fmt, va_list ap) PRINTF_LIKE(2, 0);

static void format_escaped(char out[TEXT_MAX], const char *fmt, va_list ap)
{
    char raw[TEXT_MAX];
    int n = vsnprintf(raw, sizeof(raw), fmt, ap);

    text_escape(out, TEXT_MAX, raw, n < 0 ? 0 : strlen(raw));
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char text[TEXT_MAX];
    int saved = errno;
    va_list ap;

    if (level > state.level)
        return;
    va_start(ap, fmt);
    format_escaped(text, fmt, ap);
    va_end(ap);
    emit(level, text);
    errno = saved;
}

const char *log_value(char *dst, size_t dst_len, const char *value)
{
    bool is_plain = *value && !strpbrk(value, " =\"'");

    snprintf(dst, dst_len, is_plain ? "%s" : "\"%s\"", value);
    if (is_plain)
        return dst;
    for (char *p = dst + 1; *p; p++)
        if (*p == '"')
            *p = '\'';
    if (strlen(dst) > 1)
        dst[strlen(dst) - 1] = '"'; /* the closing one, also where the value was cut */
    return dst;
}

bool log_limit_allows(struct log_limit *limit, uint32_t per_minute, const char *what)
{
    int64_t now_ms = clock_mono_ms();

    if (limit->window_start_ms == 0 || now_ms - limit->window_start_ms >= LIMIT_WINDOW_MS) {
        if (limit->held_back)
            log_warn("%s: %" PRIu32 " more like this were held back", what, limit->held_back);
        *limit = (struct log_limit){.window_start_ms = now_ms};
    }
    if (limit->written < per_minute) {
        limit->written++;
        return true;
    }
    if (limit->held_back < UINT32_MAX)
        limit->held_back++;
    return false;
}

void die(const char *fmt, ...)
{
    char text[TEXT_MAX], line[TEXT_MAX + 16];
    va_list ap;
    int n;

    va_start(ap, fmt);
    format_escaped(text, fmt, ap);
    va_end(ap);
    if (state.sink == LOG_SINK_SYSLOG)
        emit(LOG_LEVEL_ERROR, text);
    n = snprintf(line, sizeof(line), "error: %s\n", text);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
        exit(1); /* nobody to tell */
    exit(1);
}
