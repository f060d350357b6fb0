/*
 * See desktop_play.h. Two programs are started: the player, which is ours, and a viewer, which is
 * somebody's RDP client.
 */
#include "control/cli/desktop_play.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "control/cli/program.h"

#define PROGRAM    "sallyport-play"
#define REPORT_MAX 1024
#define VIEWER_MS  3000 /* for a viewer to end by itself */
#define POLL_US    50000
#define PATH_ROOM  512
#define NUMBER_LEN 32

struct playing {
    const struct desktop_play *what;
    pid_t player, viewer; /* 0: none */
    unsigned port, width, height;
    bool has_end;
    unsigned long long at_ms;
    char kind[16];
    char *text;
    size_t text_len;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: reading ends */

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaction(numbers[i], &action, NULL);
}

/* ---- the viewer ---- */

static const char *const viewers[] = {"xfreerdp", "xfreerdp3"};

static bool find_in_path(const char *name, char *dst, size_t len)
{
    const char *at = getenv("PATH");

    while (at && *at) {
        size_t n = strcspn(at, ":");

        snprintf(dst, len, "%.*s/%s", (int)n, at, name);
        if (n > 0 && access(dst, X_OK) == 0)
            return true;
        at += n + (at[n] == ':');
    }
    return false;
}

static bool find_viewer(char *dst, size_t len)
{
    const char *display = getenv("DISPLAY");

    if (!display || !*display)
        return false;
    for (size_t i = 0; i < sizeof(viewers) / sizeof(viewers[0]); i++)
        if (find_in_path(viewers[i], dst, len))
            return true;
    return false;
}

/* What it prints is of nobody's interest. The login is any: who may look was decided before. What
 * is shown is a stranger's: nothing of the viewer's own is shared with it. */
static void become_viewer(const struct playing *p, const char *path)
{
    char to[NUMBER_LEN], size[NUMBER_LEN], title[64];
    const char *args[] = {
        path, to,    "/u:viewer", "/p:any", "/cert:ignore", "-auto-reconnect", "-clipboard",
        size, title, "/bpp:32",   NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    snprintf(to, sizeof(to), "/v:127.0.0.1:%u", p->port);
    snprintf(size, sizeof(size), "/size:%ux%u", p->width, p->height);
    snprintf(title, sizeof(title), "/t:recording %.32s", p->what->id);
    if (null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && dup2(null, 2) >= 0)
        execv(path, (char *const *)(uintptr_t)args);
    _exit(127);
}

static void start_viewer(struct playing *p)
{
    char path[PATH_ROOM];

    if (!p->what->has_viewer || !find_viewer(path, sizeof(path)))
        return;
    fflush(NULL);
    p->viewer = fork();
    if (p->viewer == 0)
        become_viewer(p, path);
    if (p->viewer < 0)
        p->viewer = 0;
}

/* It sees the end by itself; one that does not is ended. */
static void end_viewer(struct playing *p)
{
    for (int waited_us = 0; p->viewer && waited_us < VIEWER_MS * 1000; waited_us += POLL_US) {
        if (waitpid(p->viewer, NULL, WNOHANG) != 0)
            p->viewer = 0;
        else
            usleep(POLL_US);
    }
    if (p->viewer) {
        kill(p->viewer, SIGTERM);
        while (waitpid(p->viewer, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    p->viewer = 0;
}

/* ---- what the player says ---- */

static void say_where(const struct playing *p)
{
    if (p->viewer) {
        cli_say("Recording %s is shown by %s, from 127.0.0.1:%u. Interrupt to stop.", p->what->id,
                viewers[0], p->port);
        return;
    }
    cli_say("Recording %s waits on 127.0.0.1:%u for an RDP client of yours; any user and password "
            "will do:",
            p->what->id, p->port);
    cli_say("  xfreerdp /v:127.0.0.1:%u /u:any /p:any /cert:ignore /size:%ux%u", p->port, p->width,
            p->height);
    cli_say("  mstsc /v:127.0.0.1:%u /w:%u /h:%u", p->port, p->width, p->height);
}

static void on_line(struct playing *p, char *line)
{
    char name[256];
    long long uid;
    int at = 0;

    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "listening %u %u %u", &p->port, &p->width, &p->height) == 3) {
        start_viewer(p);
        say_where(p);
    } else if (sscanf(line, "viewer %255[^\n]", name) == 1) {
        cli_say("Shown to %s.", name);
    } else if (sscanf(line, "refused %lld", &uid) == 1) {
        cli_say("A connection of %s (%lld) was refused: only yours may look.",
                uid < 0 ? "an unknown user" : "another user", uid);
    } else if (strcmp(line, "graphics") == 0) {
        cli_say("The session used the graphics pipeline: what stays black, this client's codecs do "
                "not know.");
    } else if (strcmp(line, "no-graphics") == 0) {
        cli_say("The session used the graphics pipeline, which this client does not know: most of "
                "it is missing. xfreerdp knows it.");
    } else if (sscanf(line, "end %llu %15s %n", &p->at_ms, p->kind, &at) >= 2) {
        p->has_end = true;
        snprintf(p->text, p->text_len, "%s", at > 0 ? line + at : "");
    }
}

static void listen_to(struct playing *p, int fd)
{
    FILE *lines = fdopen(fd, "r");
    char line[REPORT_MAX];

    if (!lines) {
        close(fd);
        return;
    }
    while (fgets(line, sizeof(line), lines) || (errno == EINTR && stop_signal)) {
        if (stop_signal && !p->has_end) { /* it takes its leave of the viewer */
            kill(p->player, SIGTERM);
            stop_signal = 0;
            clearerr(lines);
            continue;
        }
        on_line(p, line);
        errno = 0;
    }
    fclose(lines);
}

/* ---- the player ---- */

static void become_player(const struct playing *p, const char *path, int in, int out)
{
    char speed[NUMBER_LEN], at[NUMBER_LEN], idle[NUMBER_LEN];
    const struct play_options *o = p->what->options;
    const char *sudo = geteuid() == 0 ? getenv("SUDO_UID") : NULL;
    const char *args[16] = {path, "--speed", speed, "--at", at, "--idle", idle};
    size_t count = 7;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    snprintf(speed, sizeof(speed), "%f", o->speed);
    snprintf(at, sizeof(at), "%f", o->at_s);
    snprintf(idle, sizeof(idle), "%f", o->idle_limit_s);
    if (p->what->port) {
        args[count++] = "--port";
        args[count++] = p->what->port;
    }
    if (sudo) {
        args[count++] = "--uid";
        args[count++] = sudo;
    }
    if (dup2(in, STDIN_FILENO) >= 0 && dup2(out, STDOUT_FILENO) >= 0)
        execv(path, (char *const *)(uintptr_t)args);
    _exit(127);
}

static bool start_player(struct playing *p, int in, int *report)
{
    char path[PATH_ROOM];
    int ends[2];

    program_find(PROGRAM, path, sizeof(path));
    if (pipe2(ends, O_CLOEXEC) < 0) {
        snprintf(p->text, p->text_len, "cannot start %s: %s", path, strerror(errno));
        return false;
    }
    fflush(NULL);
    p->player = fork();
    if (p->player == 0)
        become_player(p, path, in, ends[1]);
    close(ends[1]);
    *report = ends[0];
    if (p->player > 0)
        return true;
    snprintf(p->text, p->text_len, "cannot start %s: %s", path, strerror(errno));
    close(ends[0]);
    return false;
}

static enum play_result result_of(const struct playing *p, int status)
{
    static const struct {
        const char *kind;
        enum play_result result;
    } rows[] = {{"complete", PLAY_COMPLETE},
                {"cut", PLAY_CUT},
                {"damaged", PLAY_DAMAGED},
                {"stopped", PLAY_STOPPED},
                {"error", PLAY_ERROR}};

    for (size_t i = 0; p->has_end && i < sizeof(rows) / sizeof(rows[0]); i++)
        if (strcmp(p->kind, rows[i].kind) == 0)
            return rows[i].result;
    if (WIFSIGNALED(status))
        snprintf(p->text, p->text_len, PROGRAM " died of signal %d", WTERMSIG(status));
    else
        snprintf(p->text, p->text_len, PROGRAM " ended with status %d",
                 WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return PLAY_ERROR;
}

enum play_result desktop_play(const struct desktop_play *what, char *text, size_t text_len,
                              double *position_s)
{
    struct playing p = {.what = what, .text = text, .text_len = text_len};
    int in = open(what->path, O_RDONLY | O_CLOEXEC), report, status = 0;

    if (in < 0) {
        snprintf(text, text_len, "%s", strerror(errno));
        return PLAY_ERROR;
    }
    catch_signals();
    if (!start_player(&p, in, &report)) {
        close(in);
        return PLAY_ERROR;
    }
    close(in);
    listen_to(&p, report);
    while (waitpid(p.player, &status, 0) < 0 && errno == EINTR)
        ;
    end_viewer(&p);
    *position_s = (double)p.at_ms / 1000;
    return result_of(&p, status);
}
