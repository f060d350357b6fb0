/*
 * Logging. One line an event, `key=value`, text from outside escaped inside the logger. Each
 * process has one log with a prefix that names what it serves ("ssh #42 alice>web01"), set by the
 * owner of that fact and added to every line, so that callers never repeat it.
 *
 * Goes to a file descriptor (stderr by default) or to syslog. errno is preserved by every call.
 * Never blocks for long: a line that the descriptor does not take at once is dropped and counted.
 */
#ifndef SALLYPORT_LOG_H
#define SALLYPORT_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARN,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
    LOG_LEVEL_TRACE
};

enum log_sink { LOG_SINK_STDERR, LOG_SINK_SYSLOG };

/* program names the process in each line ("sallyportd"); borrowed for ever. */
void log_open(const char *program, enum log_sink sink, enum log_level level);
/* The same as the daemon says by the environment of what it starts: SALLYPORT_LOG ("syslog" or
 * else stderr) and SALLYPORT_LOG_LEVEL. Returns the sink. */
enum log_sink log_open_as_told(const char *program);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
bool log_level_from_text(const char *text, enum log_level *out);

/* The prefix of every later line; copied (cut at 200 bytes). "" for none. */
void log_set_prefix(const char *fmt, ...) PRINTF_LIKE(1, 2);

void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_trace(...) log_write(LOG_LEVEL_TRACE, __VA_ARGS__)

/*
 * The value of a key in a line: as it is when it is one plain word, otherwise in quotes, with the
 * quotes inside it made single ones, so that no value reads as another key. Returns dst.
 */
const char *log_value(char *dst, size_t dst_len, const char *value);

#define LOG_VALUE_MAX 300 /* room for what sessions carry */

/*
 * A rate limit for what a stranger can trigger: at most `per_minute` lines, then one line that
 * counts the rest. Keep one static struct per message.
 */
struct log_limit {
    int64_t window_start_ms;
    uint32_t written;
    uint32_t held_back;
};
bool log_limit_allows(struct log_limit *limit, uint32_t per_minute, const char *what);

/* Print "error: TEXT" and leave with status 1. Only at start-up and when going on is not safe. */
_Noreturn void die(const char *fmt, ...) PRINTF_LIKE(1, 2);

#endif
