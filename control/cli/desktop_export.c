/*
 * See desktop_export.h. The result is written beside its place, under a temporary name, and renamed
 * when it is whole; an interrupt leaves nothing behind.
 */
#include "control/cli/desktop_export.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/clock.h>

#include "control/cli/keep.h"
#include "control/cli/output.h"
#include "control/cli/program.h"
#include "control/cli/when.h"
#include "tracker/recording/desktop.h"

#define PROGRAM      "sallyport-export"
#define PROGRESS_MS  200
#define BAR_CELLS    24
#define ARGS_MAX     24
#define NUMBER_LEN   24
#define POSITION_MAX (1000.0 * 3600)

enum kind { KIND_VIDEO, KIND_PICTURE, KIND_THUMBNAIL };

struct work {
    struct cli *cli;
    const char *id, *from, *to;
    enum kind kind;
    bool is_live;
    double from_s, until_s, idle_s; /* until: negative, to the end */

    int in, out, index_in, index_out; /* -1: none */
    struct keep keep;
    char *part; /* the file under its temporary name */

    /* what the program says */
    bool is_done, is_exact;
    unsigned long long at_ms, frames, duration_ms;
    unsigned width, height;
    char note[512], damage[512], error[512];

    bool has_bar;
    int64_t shown_ms;
    int64_t began_ms;
};

static volatile sig_atomic_t stop_signal;

static void on_signal(int number)
{
    stop_signal = number;
}

bool desktop_export_is_for(const char *path)
{
    char err[256];
    struct recording_reader *reader = recording_reader_open(path, err, sizeof(err));
    bool is_desktop = reader && recording_reader_is_desktop(reader);

    if (reader)
        recording_reader_close(reader);
    return is_desktop;
}

static const char *extension(const char *path)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');

    return dot && (!slash || dot > slash) ? dot : "";
}

bool desktop_export_is_name(const char *path)
{
    return strcasecmp(extension(path), ".mp4") == 0 || strcasecmp(extension(path), ".png") == 0;
}

/* ---- what is asked for ---- */

static int get_position(const struct work *w, const char *option, double *value)
{
    const char *text = cli_value(w->cli, option);

    if (!text || (when_parse_position(text, value) && *value >= 0 && *value <= POSITION_MAX))
        return CLI_DONE;
    return cli_usage(w->cli, "--%s takes SS, MM:SS or HH:MM:SS, not \"%s\"", option, text);
}

static int check_name(struct work *w)
{
    const char *end = extension(w->to);

    if (cli_has(w->cli, "thumbnail"))
        w->kind = KIND_THUMBNAIL;
    else
        w->kind = strcasecmp(end, ".mp4") == 0 ? KIND_VIDEO : KIND_PICTURE;
    if (desktop_export_is_name(w->to) &&
        (w->kind != KIND_THUMBNAIL || strcasecmp(end, ".png") == 0))
        return CLI_DONE;
    if (w->kind == KIND_THUMBNAIL)
        return cli_usage(w->cli, "a thumbnail is a picture: name the file .png");
    return cli_usage(w->cli,
                     "recording %s is a desktop's: name the file .mp4 for a video, or .png for a "
                     "picture (--at says of when)",
                     w->id);
}

/* Of options that mean nothing for this kind of file. */
static int refuse(const struct work *w, const char *const *options, const char *what)
{
    for (size_t i = 0; options[i]; i++)
        if (cli_has(w->cli, options[i]))
            return cli_usage(w->cli, "--%s is %s", options[i], what);
    return CLI_DONE;
}

static int get_options(struct work *w)
{
    static const char *const of_video[] = {"from", "until", "idle-limit", NULL};
    static const char *const of_picture[] = {"exact", NULL};
    static const char *const of_time[] = {"at", "from", "until", "idle-limit", "exact", NULL};
    const char *idle = cli_value(w->cli, "idle-limit");
    int rc = check_name(w);

    w->until_s = -1;
    if (rc == CLI_DONE && w->kind == KIND_THUMBNAIL)
        rc = refuse(w, of_time, "not for a thumbnail, which is of the picture that stood longest");
    if (rc == CLI_DONE && w->kind == KIND_PICTURE)
        rc = refuse(w, of_video, "for videos; a picture has --at");
    if (rc == CLI_DONE && w->kind == KIND_VIDEO)
        rc = refuse(w, of_picture, "for pictures; a video is exact");
    if (rc == CLI_DONE)
        rc = get_position(w, "at", w->kind == KIND_PICTURE ? &w->until_s : &w->from_s);
    if (rc == CLI_DONE)
        rc = get_position(w, "from", &w->from_s);
    if (rc == CLI_DONE)
        rc = get_position(w, "until", &w->until_s);
    if (rc == CLI_DONE && idle &&
        (!when_parse_seconds(idle, &w->idle_s) || w->idle_s < 0 || w->idle_s > POSITION_MAX))
        return cli_usage(w->cli, "--idle-limit takes a number such as 2 or 0.5, not \"%s\"", idle);
    if (rc == CLI_DONE && w->until_s >= 0 && w->kind == KIND_VIDEO && w->until_s <= w->from_s)
        return cli_usage(w->cli, "--until must be later than --from");
    return rc;
}

/* ---- files ---- */

static int open_part(struct work *w)
{
    if (!cli_may_use_file(w->to))
        return CLI_FAILED;
    if (!cli_has(w->cli, "force") && access(w->to, F_OK) == 0) {
        cli_error("%s is there already; --force overwrites it", w->to);
        return CLI_FAILED;
    }
    if (asprintf(&w->part, "%s.part-XXXXXX", w->to) < 0) {
        w->part = NULL;
        return CLI_FAILED;
    }
    w->out = mkostemp(w->part, O_CLOEXEC);
    if (w->out >= 0)
        return CLI_DONE;
    cli_error("cannot write %s: %s", w->to, strerror(errno));
    free(w->part);
    w->part = NULL;
    return CLI_FAILED;
}

static int open_files(struct work *w)
{
    int rc;

    w->in = open(w->from, O_RDONLY | O_CLOEXEC);
    if (w->in < 0) {
        cli_error("cannot open %s: %s", w->from, strerror(errno));
        return CLI_FAILED;
    }
    rc = open_part(w);
    if (rc != CLI_DONE)
        return rc;
    keep_find(&w->keep, w->id, w->in);
    w->index_in = keep_open(&w->keep);
    /* not when it would be less than what there is */
    if (!cli_has(w->cli, "exact") && (w->until_s < 0 || w->kind == KIND_PICTURE))
        w->index_out = keep_create(&w->keep);
    return CLI_DONE;
}

static int take_place(struct work *w)
{
    unsigned flags = cli_has(w->cli, "force") ? 0 : RENAME_NOREPLACE;
    int r = renameat2(AT_FDCWD, w->part, AT_FDCWD, w->to, flags);

    if (r < 0 && flags && errno == EINVAL) /* some file systems cannot say so */
        r = rename(w->part, w->to);
    if (r < 0) {
        cli_error("cannot write %s: %s", w->to, strerror(errno));
        return CLI_FAILED;
    }
    free(w->part);
    w->part = NULL;
    return CLI_DONE;
}

static void close_files(struct work *w)
{
    const int fds[] = {w->in, w->out, w->index_in, w->index_out};

    if (w->part)
        (void)unlink(w->part);
    free(w->part);
    keep_drop(&w->keep);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* ---- what the program says ---- */

static void put_time(char *dst, size_t len, unsigned long long ms)
{
    unsigned s = (unsigned)(ms / 1000);

    snprintf(dst, len, "%02u:%02u:%02u", s / 3600, s / 60 % 60, s % 60);
}

static void show_bar(struct work *w, unsigned long long at_ms, unsigned long long end_ms)
{
    int64_t now = clock_mono_ms();
    char bar[BAR_CELLS + 1], at[16], end[16];
    size_t full = end_ms ? (size_t)(at_ms * BAR_CELLS / end_ms) : 0;
    double factor = (double)at_ms / (double)(now > w->began_ms ? now - w->began_ms : 1);

    if (!w->has_bar || now - w->shown_ms < PROGRESS_MS)
        return;
    w->shown_ms = now;
    full = full > BAR_CELLS ? BAR_CELLS : full;
    memset(bar, '#', full);
    memset(bar + full, '.', BAR_CELLS - full);
    bar[BAR_CELLS] = '\0';
    put_time(at, sizeof(at), at_ms);
    put_time(end, sizeof(end), end_ms);
    fprintf(stderr, "\r[%s] %s of %s, %.1f x real time ", bar, at, end, factor);
}

static void copy_line(char *dst, size_t len, const char *from)
{
    snprintf(dst, len, "%.*s", (int)strcspn(from, "\n"), from);
}

static void on_line(struct work *w, const char *line)
{
    unsigned long long at_ms, end_ms;
    int is_exact;

    if (sscanf(line, "progress %llu %llu", &at_ms, &end_ms) == 2) {
        show_bar(w, at_ms, end_ms);
    } else if (sscanf(line, "done %llu %u %u %llu %llu %d", &w->at_ms, &w->width, &w->height,
                      &w->frames, &w->duration_ms, &is_exact) == 6) {
        w->is_done = true;
        w->is_exact = is_exact;
    } else if (strncmp(line, "note ", 5) == 0) {
        copy_line(w->note, sizeof(w->note), line + 5);
    } else if (strncmp(line, "damaged ", 8) == 0) {
        copy_line(w->damage, sizeof(w->damage), line + 8);
    } else if (strncmp(line, "error ", 6) == 0) {
        copy_line(w->error, sizeof(w->error), line + 6);
    }
}

static void listen_to(struct work *w, int fd)
{
    FILE *lines = fdopen(fd, "r");
    char line[1024];

    if (!lines) {
        close(fd);
        return;
    }
    while (!stop_signal && fgets(line, sizeof(line), lines))
        on_line(w, line);
    fclose(lines);
    if (w->has_bar && w->shown_ms)
        fputs("\r\033[K", stderr);
}

/* ---- the program ---- */

struct args {
    const char *list[ARGS_MAX];
    char numbers[ARGS_MAX][NUMBER_LEN];
    size_t count;
};

static void put_number(struct args *a, const char *option, unsigned long long value)
{
    char *text = a->numbers[a->count];

    snprintf(text, NUMBER_LEN, "%llu", value);
    a->list[a->count++] = option;
    a->list[a->count++] = text;
}

static void put_fd(struct args *a, const char *option, int fd)
{
    if (fd < 0)
        return;
    put_number(a, option, (unsigned long long)fd);
    fcntl(fd, F_SETFD, 0); /* this one goes with it */
}

static unsigned long long milliseconds(double s)
{
    return (unsigned long long)llround(s * 1000);
}

static void make_args(struct work *w, struct args *a, const char *path, int report)
{
    static const char *const modes[] = {"--video", "--picture", "--thumbnail"};

    a->list[a->count++] = path;
    a->list[a->count++] = modes[w->kind];
    put_fd(a, "--in", w->in);
    put_fd(a, "--out", w->out);
    put_fd(a, "--report", report);
    put_fd(a, "--index-in", w->index_in);
    put_fd(a, "--index-out", w->index_out);
    if (w->from_s > 0)
        put_number(a, "--from-ms", milliseconds(w->from_s));
    if (w->until_s >= 0)
        put_number(a, "--until-ms", milliseconds(w->until_s));
    if (w->idle_s > 0)
        put_number(a, "--idle-ms", milliseconds(w->idle_s));
    if (cli_has(w->cli, "exact"))
        a->list[a->count++] = "--exact";
    a->list[a->count] = NULL;
}

static void become_program(struct work *w, const char *path, int report)
{
    struct args args = {.count = 0};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* it has nobody to work for then */
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        _exit(126);
    make_args(w, &args, path, report);
    execv(path, (char *const *)(uintptr_t)args.list);
    _exit(127);
}

static int say_ended(const struct work *w, int status)
{
    if (w->error[0])
        cli_error("cannot export recording %s: %s", w->id, w->error);
    else if (WIFSIGNALED(status))
        cli_error("cannot export recording %s: the decoder died of it (signal %d); nothing was "
                  "written",
                  w->id, WTERMSIG(status));
    else
        cli_error("cannot export recording %s: " PROGRAM " ended with status %d", w->id,
                  WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    return CLI_FAILED;
}

static int start(struct work *w, pid_t *pid, int *report)
{
    char path[512];
    int ends[2];

    program_find(PROGRAM, path, sizeof(path));
    if (access(path, X_OK) < 0) {
        cli_error("%s is not there: this Sallyport was built without it (it needs the FreeRDP and "
                  "FFmpeg libraries)",
                  path);
        return CLI_FAILED;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        cli_error("cannot start %s: %s", path, strerror(errno));
        return CLI_FAILED;
    }
    fflush(NULL);
    *pid = fork();
    if (*pid == 0)
        become_program(w, path, ends[1]);
    close(ends[1]);
    *report = ends[0];
    if (*pid > 0)
        return CLI_DONE;
    cli_error("cannot start %s: %s", path, strerror(errno));
    close(ends[0]);
    return CLI_FAILED;
}

static void catch_signals(void (*handler)(int))
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = handler}; /* no SA_RESTART: reading ends */

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaction(numbers[i], &action, NULL);
}

static int run(struct work *w)
{
    int status = 0, report, rc;
    pid_t pid;

    w->began_ms = clock_mono_ms();
    w->has_bar = isatty(STDERR_FILENO);
    catch_signals(on_signal);
    rc = start(w, &pid, &report);
    if (rc != CLI_DONE)
        return rc;
    listen_to(w, report);
    if (stop_signal)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (stop_signal)
        return CLI_FAILED;
    return w->is_done && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? CLI_DONE
                                                                       : say_ended(w, status);
}

/* ---- what came of it ---- */

static void print_json(const struct work *w)
{
    static const char *const kinds[] = {"video", "picture", "thumbnail"};
    json_t *o = json_pack("{s:s, s:s, s:s, s:f, s:i, s:i, s:b}", "recording", w->id, "file", w->to,
                          "kind", kinds[w->kind], "at", (double)w->at_ms / 1000, "width",
                          (int)w->width, "height", (int)w->height, "exact", w->is_exact);

    if (w->kind == KIND_VIDEO) {
        json_object_set_new(o, "pictures", json_integer((json_int_t)w->frames));
        json_object_set_new(o, "seconds", json_real((double)w->duration_ms / 1000));
    }
    json_object_set_new(o, "damaged", w->damage[0] ? json_string(w->damage) : json_null());
    output_json(w->cli, o);
    json_decref(o);
}

static void say_done(const struct work *w)
{
    char at[16], duration[16];

    put_time(at, sizeof(at), w->at_ms);
    put_time(duration, sizeof(duration), w->duration_ms);
    if (w->kind == KIND_VIDEO)
        cli_say("%s written: %s of video, %llu pictures.", w->to, duration, w->frames);
    else if (w->is_exact)
        cli_say("%s written: the desktop at %s.", w->to, at);
    else
        cli_say(
            "%s written: the desktop at %s, the picture at hand that is nearest before; --exact "
            "takes the very moment.",
            w->to, at);
}

static int finish(struct work *w)
{
    int rc = take_place(w);

    if (rc != CLI_DONE)
        return rc;
    if (w->index_out >= 0)
        keep_store(&w->keep, w->index_out);
    if (w->cli->format == FORMAT_JSON || w->cli->format == FORMAT_JSONL)
        print_json(w);
    else
        say_done(w);
    if (w->damage[0]) {
        cli_error("recording %s is damaged, pictures may be wrong or missing: %s", w->id,
                  w->damage);
        return CLI_FAILED;
    }
    if (w->is_live)
        cli_say("The session is live: this is what there is so far.");
    else if (w->note[0])
        cli_say("Recording %s is not complete: %s", w->id, w->note);
    return CLI_DONE;
}

int desktop_export(struct cli *cli, const char *id, const char *from, const char *to, bool is_live)
{
    struct work w = {.cli = cli, .id = id, .from = from, .to = to, .is_live = is_live};
    int rc;

    w.in = w.out = w.index_in = w.index_out = -1;
    rc = get_options(&w);
    if (rc != CLI_DONE)
        return rc;
    rc = open_files(&w);
    if (rc == CLI_DONE)
        rc = run(&w);
    if (rc == CLI_DONE)
        rc = finish(&w);
    close_files(&w);
    catch_signals(SIG_DFL);
    if (stop_signal)
        raise(stop_signal);
    return rc;
}
