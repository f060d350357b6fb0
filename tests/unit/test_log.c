/* The log: the shape of a line, escaping, levels, what happens when nobody reads, and die(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/log.h>

static int pipe_fds[2], saved_stderr;
static char captured[1 << 17];

/* stderr becomes a pipe that blocks its writer when full, as under a supervisor. */
static int capture(void **unused)
{
    (void)unused;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        return -1;
    fcntl(pipe_fds[0], F_SETFL, O_NONBLOCK);
    saved_stderr = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
    dup2(pipe_fds[1], STDERR_FILENO);
    log_open("sallyportd", LOG_SINK_STDERR, LOG_LEVEL_INFO);
    log_set_prefix("%s", "");
    return 0;
}

static int release(void **unused)
{
    (void)unused;
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    return 0;
}

/* Everything that was written since the last call. */
static const char *output(void)
{
    size_t len = 0;
    ssize_t n;

    while ((n = read(pipe_fds[0], captured + len, sizeof(captured) - 1 - len)) > 0)
        len += (size_t)n;
    captured[len] = 0;
    return captured;
}

static size_t line_count(const char *text)
{
    size_t lines = 0;

    for (; *text; text++)
        lines += *text == '\n';
    return lines;
}

static void assert_matches(const char *text, const char *pattern)
{
    regex_t regex;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&regex, text, 0, NULL, 0) != 0)
        fail_msg("'%s' does not match '%s'", text, pattern);
    regfree(&regex);
}

#define TIME_PATTERN "^20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z "

static void writes_one_line(void **unused)
{
    char pattern[200];

    (void)unused;
    log_info("session open user=%s port=%d", "alice", 22);
    snprintf(pattern, sizeof(pattern),
             TIME_PATTERN "INFO sallyportd\\[%d\\]: session open user=alice port=22\n$",
             (int)getpid());
    assert_matches(output(), pattern);
    log_set_prefix("ssh #%d %s", 42, "alice>web01");
    log_warn("slow");
    assert_matches(output(),
                   TIME_PATTERN "WARN sallyportd\\[[0-9]+\\] ssh #42 alice>web01: slow\n$");
    log_set_prefix("%s", "");
    log_error("again");
    assert_matches(output(), TIME_PATTERN "ERROR sallyportd\\[[0-9]+\\]: again\n$");
}

static void escapes_everything(void **unused)
{
    (void)unused;
    log_set_prefix("%s", "a\nb\x1b[0m");
    log_info("device=%s", "evil\n2026 ERROR fake\r\x1b[2J\xc2\x9b\xe2\x80\xae\xff\\");
    assert_int_equal(line_count(output()), 1);
    assert_non_null(strstr(captured,
                           "] a\\x0ab\\x1b[0m: device=evil\\x0a2026 ERROR fake\\x0d\\x1b[2J"
                           "\\u{009B}\\u{202E}\\xff\\\\\n"));
}

static void long_lines_are_cut(void **unused)
{
    char big[10000];

    (void)unused;
    memset(big, '\n', sizeof(big)); /* each becomes four bytes */
    big[sizeof(big) - 1] = 0;
    log_info("%s", big);
    assert_int_equal(line_count(output()), 1);
    assert_true(strlen(captured) <= PIPE_BUF);
    memset(big, 'x', sizeof(big) - 1);
    log_set_prefix("%s", big);
    log_info("%s", big);
    assert_int_equal(line_count(output()), 1);
    assert_true(strlen(captured) <= PIPE_BUF);
    assert_int_equal(captured[strlen(captured) - 1], '\n');
}

static void keeps_levels_and_errno(void **unused)
{
    enum log_level level;

    (void)unused;
    errno = EXDEV;
    log_debug("hidden");
    assert_string_equal(output(), "");
    log_set_level(LOG_LEVEL_TRACE);
    assert_int_equal(log_get_level(), LOG_LEVEL_TRACE);
    errno = EXDEV;
    log_trace("shown");
    assert_int_equal(errno, EXDEV);
    assert_matches(output(), " TRACE .*: shown\n$");
    close(STDERR_FILENO);
    errno = EXDEV;
    log_error("nowhere");
    assert_int_equal(errno, EXDEV);
    assert_true(log_level_from_text("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_from_text("loud", &level));
}

static void a_full_pipe_does_not_block(void **unused)
{
    size_t lines, lost = 0;

    (void)unused;
    log_info("before"); /* reports what an earlier test lost */
    output();
    alarm(30); /* a write that blocks would hang here */
    for (int i = 0; i < 5000; i++)
        log_info("line %d of a process whose reader sleeps", i);
    alarm(0);
    lines = line_count(output());
    assert_in_range(lines, 100, 4999);
    log_info("after");
    assert_int_equal(sscanf(strstr(output(), "log lines lost: "), "log lines lost: %zu", &lost), 1);
    assert_int_equal(lines + lost, 5000); /* each was written or counted */
    assert_matches(strchr(captured, '\n') + 1, ": after\n$");
    assert_int_equal(line_count(captured), 2);
}

static void lines_of_two_processes_do_not_mix(void **unused)
{
    char payload[1000];
    size_t lines = 0;
    FILE *in;
    pid_t pid;

    (void)unused;
    memset(payload, 'p', sizeof(payload));
    payload[sizeof(payload) - 1] = 0;
    pid = fork();
    for (int i = 0; i < 30; i++)
        log_info("%s", payload);
    if (pid == 0)
        _exit(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    output();
    in = fmemopen(captured, strlen(captured), "r");
    assert_non_null(in);
    for (char line[2048]; fgets(line, sizeof(line), in); lines++) {
        if (strstr(line, "log lines lost"))
            continue;
        assert_matches(line, TIME_PATTERN "INFO sallyportd\\[[0-9]+\\]: p+\n$");
        assert_int_equal(strlen(strstr(line, ": p")), 2 + 999 + 1);
    }
    fclose(in);
    assert_true(lines >= 30);
}

static void strangers_are_limited(void **unused)
{
    struct log_limit limit = {0};
    int allowed = 0;

    (void)unused;
    for (int i = 0; i < 100; i++)
        allowed += log_limit_allows(&limit, 5, "bad banner");
    assert_int_equal(allowed, 5);
    assert_string_equal(output(), "");
    limit.window_start_ms -= 60000; /* a minute later */
    assert_true(log_limit_allows(&limit, 5, "bad banner"));
    assert_matches(output(), " WARN .*: bad banner: 95 more like this were held back\n$");
    assert_int_equal(limit.held_back, 0);
}

static void dies_with_one_line(void **unused)
{
    int status;
    pid_t pid = fork();

    (void)unused;
    if (pid == 0)
        die("cannot open %s", "a\nb");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    assert_string_equal(output(), "error: cannot open a\\x0ab\n");
}

/* What a stranger or an admin writes cannot become another key of the line. */
static void values_stay_values(void **unused)
{
    char out[12];

    (void)unused;
    assert_string_equal(log_value(out, sizeof(out), "web01"), "web01");
    assert_string_equal(log_value(out, sizeof(out), ""), "\"\"");
    assert_string_equal(log_value(out, sizeof(out), "a by=x"), "\"a by=x\"");
    assert_string_equal(log_value(out, sizeof(out), "a\" b=\""), "\"a' b='\"");
    assert_string_equal(log_value(out, sizeof(out), "a text that is cut"), "\"a text th\"");
    assert_string_equal(log_value(out, 2, "a b"), "\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_one_line, capture, release),
        cmocka_unit_test_setup_teardown(escapes_everything, capture, release),
        cmocka_unit_test(values_stay_values),
        cmocka_unit_test_setup_teardown(long_lines_are_cut, capture, release),
        cmocka_unit_test_setup_teardown(keeps_levels_and_errno, capture, release),
        cmocka_unit_test_setup_teardown(a_full_pipe_does_not_block, capture, release),
        cmocka_unit_test_setup_teardown(lines_of_two_processes_do_not_mix, capture, release),
        cmocka_unit_test_setup_teardown(strangers_are_limited, capture, release),
        cmocka_unit_test_setup_teardown(dies_with_one_line, capture, release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
