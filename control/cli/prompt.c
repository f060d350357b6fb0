/*
 * Asking the person at the terminal: see prompt.h.
 */
#include "control/cli/prompt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <termios.h>
#include <unistd.h>

#include <sallyport/text.h>

#define PASSWORD_MAX 1024

bool prompt_is_possible(void)
{
    return isatty(STDIN_FILENO) && isatty(STDERR_FILENO);
}

static bool read_answer(const char *question, char *answer, size_t len)
{
    size_t n;

    fflush(stdout);
    fprintf(stderr, "%s ", question);
    fflush(stderr);
    if (!fgets(answer, (int)len, stdin)) {
        fputc('\n', stderr);
        return false;
    }
    n = strlen(answer);
    while (n && (answer[n - 1] == '\n' || answer[n - 1] == ' '))
        answer[--n] = '\0';
    return true;
}

bool prompt_yes(const char *question)
{
    char answer[64];

    return read_answer(question, answer, sizeof(answer)) &&
           (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0);
}

bool prompt_yes_or(const char *question, const char *text)
{
    char answer[128];

    return read_answer(question, answer, sizeof(answer)) &&
           (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0 ||
            strcmp(answer, text) == 0);
}

bool prompt_number(const char *question, size_t number)
{
    char answer[64];
    uint64_t typed;

    return read_answer(question, answer, sizeof(answer)) && text_parse_u64(answer, &typed) &&
           typed == number;
}

bool prompt_line(const char *question, char *answer, size_t len)
{
    return read_answer(question, answer, len);
}

/* A line by single bytes, so that nothing behind it is swallowed or left in a stdio buffer. */
static int read_line(int fd, struct secret *out)
{
    out->len = 0;
    for (;;) {
        uint8_t c;
        ssize_t n = read(fd, &c, 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_SYSTEM;
        if (n == 0 || c == '\n')
            break;
        if (out->len >= PASSWORD_MAX)
            return ERR_FULL;
        out->data[out->len++] = c;
    }
    if (out->len && out->data[out->len - 1] == '\r')
        out->len--;
    out->data[out->len] = 0;
    return 0;
}

static int check_line(int rc, const struct secret *out)
{
    if (rc == ERR_SYSTEM)
        cli_error("cannot read: %s", strerror(errno));
    else if (rc < 0)
        cli_error("the password is longer than %d bytes", PASSWORD_MAX);
    else if (out->len == 0)
        cli_error("the password is empty");
    else
        return 0;
    return rc < 0 ? rc : ERR_INVALID;
}

int prompt_stdin_secret(struct secret *out)
{
    if (isatty(STDIN_FILENO))
        fputs("Password (it will show): ", stderr);
    return check_line(read_line(STDIN_FILENO, out), out);
}

/* ---- without echo ---- */

static struct termios saved;
static int saved_fd = -1;

static void restore_echo(void)
{
    if (saved_fd >= 0)
        tcsetattr(saved_fd, TCSAFLUSH, &saved);
    saved_fd = -1;
}

/* ^C in the middle: the terminal must echo again. */
static void on_signal(int number)
{
    restore_echo();
    signal(number, SIG_DFL);
    raise(number);
}

static int ask_hidden(const char *question, struct secret *out)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    struct termios silent;
    int rc;

    if (fd < 0 || tcgetattr(fd, &saved) < 0) {
        if (fd >= 0)
            close(fd);
        return ERR_NOT_FOUND;
    }
    saved_fd = fd;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    silent = saved;
    silent.c_lflag &= ~(tcflag_t)(ECHO | ECHOE | ECHOK);
    silent.c_lflag |= ICANON | ISIG;
    tcsetattr(fd, TCSAFLUSH, &silent);
    fprintf(stderr, "%s", question);
    fflush(stderr);
    rc = read_line(fd, out);
    restore_echo();
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    fputc('\n', stderr);
    close(fd);
    return check_line(rc, out);
}

int prompt_new_password(const char *who, struct secret *out)
{
    char question[160], shown[96];
    struct secret again = {0};
    int rc;

    if (!prompt_is_possible())
        return ERR_NOT_FOUND;
    snprintf(question, sizeof(question),
             "Password for %s: ", text_escape(shown, sizeof(shown), who, strlen(who)));
    rc = ask_hidden(question, out);
    if (rc == 0)
        rc = ask_hidden("The same again: ", &again);
    if (rc == 0 && (again.len != out->len || memcmp(again.data, out->data, out->len) != 0)) {
        cli_error("the two passwords differ; nothing was changed");
        rc = ERR_INVALID;
    }
    secret_wipe(&again);
    if (rc < 0)
        secret_wipe(out);
    return rc;
}

int prompt_password(const char *question, struct secret *out)
{
    return prompt_is_possible() ? ask_hidden(question, out) : ERR_NOT_FOUND;
}

int prompt_read_file(const char *path, struct buffer *out)
{
    bool is_stdin = strcmp(path, "-") == 0;
    uint8_t chunk[16384];
    ssize_t n = -1;
    int fd;

    if (!cli_may_use_file(path))
        return ERR_DENIED;
    fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        cli_error("cannot open %s: %s", path, strerror(errno));
        return ERR_SYSTEM;
    }
    while (!out->failed &&
           ((n = read(fd, chunk, sizeof(chunk))) > 0 || (n < 0 && errno == EINTR))) {
        if (n > 0)
            buffer_put(out, chunk, (size_t)n);
    }
    memory_wipe(chunk, sizeof(chunk));
    if (n < 0)
        cli_error("cannot read %s: %s", path, strerror(errno));
    else if (out->failed)
        cli_error("%s is larger than %zu bytes", path, out->max_len);
    if (!is_stdin)
        close(fd);
    return n < 0 || out->failed ? ERR_SYSTEM : 0;
}
