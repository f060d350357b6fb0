/*
 * `recording ls|play|export`. Where a recording is comes from the daemon; the file itself is read
 * here with the caller's own rights, or, when those do not suffice, comes from the daemon too.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "control/cli/cli.h"
#include "control/cli/desktop_export.h"
#include "control/cli/desktop_play.h"
#include "control/cli/fetch.h"
#include "control/cli/output.h"
#include "control/cli/play.h"
#include "control/cli/simple.h"
#include "control/cli/when.h"
#include "tracker/recording/recording.h"

#define PROGRESS_MS 200
#define VERIFY_MAX  100000 /* recordings of --all: the daemon gives no more */

int cmd_recording_ls(struct cli *cli)
{
    const char *session = cli_value(cli, "session");
    json_t *args = json_object();
    uint64_t number;

    if (session && !text_parse_u64(session, &number)) {
        json_decref(args);
        return cli_usage(cli, "\"%s\" is no session's id; `sallyctl ls --all` shows them", session);
    }
    if (session)
        json_object_set_new(args, "id", json_string(session));
    if (!cli_has(cli, "sort")) /* otherwise the limit comes after the sorting */
        cli_put_option(cli, args, "limit");
    return simple_list(cli, "recording ls", args, &recording_columns);
}

/* ---- which file ---- */

/* "42" or "42.2": the session and the channel (0: the first there is). */
static bool parse_id(const char *text, char *session, size_t len, uint64_t *channel)
{
    size_t dot = strcspn(text, ".");
    uint64_t number;

    *channel = 0;
    if (dot >= len)
        return false;
    memcpy(session, text, dot);
    session[dot] = '\0';
    if (!text_parse_u64(session, &number) || number == 0)
        return false;
    return text[dot] == '\0' || (text_parse_u64(text + dot + 1, channel) && *channel > 0);
}

/* The row of that channel, or the lowest channel's. Borrowed from rows. */
static const json_t *pick(const json_t *rows, uint64_t channel)
{
    const json_t *best = NULL;
    json_int_t lowest = 0;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        json_int_t n = json_integer_value(json_object_get(row, "channel"));
        if (channel ? n == (json_int_t)channel : !best || n < lowest) {
            best = row;
            lowest = n;
        }
    }
    return best;
}

/* Find the row of a recording (a new reference) or tell why there is none. */
static int find(struct cli *cli, const char *id, json_t **found)
{
    char session[32];
    uint64_t channel;
    json_t *rows;
    const json_t *row;
    int rc;

    if (!parse_id(id, session, sizeof(session), &channel))
        return cli_usage(cli,
                         "\"%s\" is no recording's id (42, or 42.2 for its second); `sallyctl "
                         "recording ls` shows them",
                         id);
    rc = cli_call(cli, "recording ls", json_pack("{s:s}", "id", session), &rows);
    if (rc != CLI_DONE)
        return rc;
    row = pick(rows, channel);
    if (!row) {
        if (channel && json_array_size(rows))
            cli_error("session %s has no recording %s; it has %zu", session, id,
                      json_array_size(rows));
        else
            cli_error("session %s has no recording (`sallyctl recording ls` shows those there "
                      "are; transfers such as scp and sftp are not recorded)",
                      session);
        rc = CLI_FAILED;
    } else if (!json_is_string(json_object_get(row, "path"))) {
        cli_error("only admins may read recordings");
        rc = CLI_NOT_PERMITTED;
    } else {
        *found = json_deep_copy(row);
        if (!channel && json_array_size(rows) > 1)
            cli_say("Session %s has %zu recordings; this is the first. The second: %s.2", session,
                    json_array_size(rows), session);
    }
    json_decref(rows);
    return rc;
}

/* The daemon's file, as it is now, in memory that has a name. */
static int fetch_recording(struct cli *cli, const json_t *row, char **path)
{
    struct fetch f = {.name = "the recording", .fd = memfd_create("recording", MFD_CLOEXEC)};
    json_t *args = json_pack("{s:O, s:O}", "id", json_object_get(row, "session"), "channel",
                             json_object_get(row, "channel"));
    int rc;

    if (f.fd < 0 || asprintf(path, "/proc/self/fd/%d", f.fd) < 0) {
        *path = NULL;
        json_decref(args);
        cli_error("out of memory");
        return CLI_FAILED;
    }
    rc = fetch_all(cli, "recording read", args, &f); /* the descriptor stays until we end */
    return rc;
}

/* A path to read it by, to be freed: the daemon's own file, or what it sends of it to those who may
 * not open that. Explains when there is none. */
static int find_path(struct cli *cli, const json_t *row, char **out)
{
    const char *path = json_string_value(json_object_get(row, "path"));
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    *out = NULL;
    if (fd >= 0) {
        close(fd);
        *out = strdup(path);
        return *out ? CLI_DONE : CLI_FAILED;
    }
    if (errno == EACCES || errno == EPERM)
        return fetch_recording(cli, row, out);
    if (errno == ENOENT)
        cli_error("%s is gone: it was removed, or sallyctl runs on another machine than the daemon",
                  path);
    else
        cli_error("cannot open %s: %s", path, strerror(errno));
    return CLI_FAILED;
}

/* An option that is a position or a number of seconds. */
static int get_seconds(const struct cli *cli, const char *option, bool is_position, double *value)
{
    const char *text = cli_value(cli, option);

    if (!text)
        return CLI_DONE;
    if (is_position ? when_parse_position(text, value) : when_parse_seconds(text, value))
        return CLI_DONE;
    if (is_position)
        return cli_usage(cli, "--%s takes SS, MM:SS or HH:MM:SS, not \"%s\"", option, text);
    return cli_usage(cli, "--%s takes a number such as 2 or 0.5, not \"%s\"", option, text);
}

static bool is_live(struct cli *cli, const json_t *row)
{
    struct conn_error e = {.code = ""};
    const char *status;
    json_t *session = NULL;
    int64_t id;
    bool live = false;

    if (json_is_true(json_object_get(row, "closed")))
        return false;
    if (conn_send(&cli->conn, "session show",
                  json_pack("{s:O}", "id", json_object_get(row, "session")), &id) == 0 &&
        conn_reply(&cli->conn, id, &session, &e) == 0) {
        status = json_string_value(json_object_get(session, "status"));
        live = status && strcmp(status, "disconnected") != 0;
    }
    conn_error_finish(&e);
    json_decref(session);
    return live;
}

/* ---- play ---- */

static int say_end(struct cli *cli, const json_t *row, enum play_result result, const char *text,
                   double position_s)
{
    const char *id = json_string_value(json_object_get(row, "id"));
    unsigned at = (unsigned)position_s;

    switch (result) {
    case PLAY_COMPLETE:
        cli_say("End of recording %s: %s.", id, text);
        return CLI_DONE;
    case PLAY_STOPPED:
        cli_say("Stopped at %02u:%02u. Go on: sallyctl play %s --at %02u:%02u", at / 60, at % 60,
                id, at / 60, at % 60);
        return CLI_DONE;
    case PLAY_CUT:
        if (is_live(cli, row)) {
            cli_say("End of recording %s so far: the session is live.", id);
            return CLI_DONE;
        }
        cli_error("recording %s is not complete: %s", id, text);
        return CLI_FAILED;
    case PLAY_DAMAGED:
        cli_error("recording %s is damaged: %s", id, text);
        return CLI_FAILED;
    default:
        cli_error("recording %s: %s", id, text);
        return CLI_FAILED;
    }
}

/* Of a desktop there is a port; of a terminal the terminal, or raw bytes. */
static int check_play(const struct cli *cli, bool is_desktop)
{
    static const char *const of_desktops[] = {"port", "no-viewer"};
    bool raw = cli_has(cli, "raw");
    const char *id = cli_operand(cli, 0);

    if (is_desktop && raw)
        return cli_usage(cli, "--raw is for terminals; recording %s is a desktop's", id);
    if (is_desktop)
        return CLI_DONE;
    for (size_t i = 0; i < sizeof(of_desktops) / sizeof(of_desktops[0]); i++)
        if (cli_has(cli, of_desktops[i]))
            return cli_usage(cli, "--%s is for desktops; recording %s is a terminal's",
                             of_desktops[i], id);
    if (!raw && !isatty(STDOUT_FILENO))
        return cli_usage(cli,
                         "play needs a terminal; use `sallyctl recording export %s FILE`, or "
                         "--raw for the exact bytes",
                         id);
    if (raw && isatty(STDOUT_FILENO))
        return cli_usage(cli, "--raw does not go onto a terminal, which recorded bytes could "
                              "drive; redirect it, or play without --raw");
    return CLI_DONE;
}

static int play_path(struct cli *cli, const json_t *row, const char *path,
                     const struct play_options *options)
{
    struct desktop_play desktop = {.id = json_string_value(json_object_get(row, "id")),
                                   .path = path,
                                   .options = options,
                                   .port = cli_value(cli, "port"),
                                   .has_viewer = !cli_has(cli, "no-viewer")};
    bool is_desktop = desktop_export_is_for(path);
    char text[512] = "";
    double position_s = 0;
    enum play_result result;
    int rc = check_play(cli, is_desktop);

    if (rc != CLI_DONE)
        return rc;
    if (is_desktop)
        result = desktop_play(&desktop, text, sizeof(text), &position_s);
    else if (cli_has(cli, "raw"))
        result = play_raw(path, options->at_s, text, sizeof(text));
    else
        result = play_recording(path, options, text, sizeof(text), &position_s);
    return say_end(cli, row, result, text, position_s);
}

static int play_found(struct cli *cli, const json_t *row, const struct play_options *options)
{
    char *path = NULL;
    int rc = find_path(cli, row, &path);

    if (rc == CLI_DONE)
        rc = play_path(cli, row, path, options);
    free(path);
    return rc;
}

int cmd_recording_play(struct cli *cli)
{
    struct play_options options = {.speed = 1, .idle_limit_s = 2, .at_s = 0};
    json_t *row = NULL;
    int rc = get_seconds(cli, "speed", false, &options.speed);

    if (rc == CLI_DONE)
        rc = get_seconds(cli, "idle-limit", false, &options.idle_limit_s);
    if (rc == CLI_DONE)
        rc = get_seconds(cli, "at", true, &options.at_s);
    if (rc != CLI_DONE)
        return rc;
    if (options.speed < PLAY_SPEED_MIN || options.speed > PLAY_SPEED_MAX)
        return cli_usage(cli, "--speed goes from %g to %g", PLAY_SPEED_MIN, PLAY_SPEED_MAX);
    rc = find(cli, cli_operand(cli, 0), &row);
    if (rc == CLI_DONE)
        rc = play_found(cli, row, &options);
    json_decref(row);
    return rc;
}

/* ---- verify ---- */

/* The daemon was told of each frame as it was written. */
static bool is_as_told(const json_t *row, const struct recording_reader *r, uint64_t frames)
{
    const char *told = json_string_value(json_object_get(row, "chain"));
    json_int_t told_frames = json_integer_value(json_object_get(row, "frames"));
    char chain[2 * RECORDING_CHAIN_LEN + 1];

    if (told_frames <= 0 || !told || (uint64_t)told_frames < frames)
        return true;
    for (size_t i = 0; i < RECORDING_CHAIN_LEN; i++)
        snprintf(chain + 2 * i, 3, "%02x", recording_reader_chain(r)[i]);
    return (uint64_t)told_frames == frames && strcmp(chain, told) == 0;
}

/* What is to be said of a file: one word, and in text a sentence. */
static const char *judge(struct cli *cli, const json_t *row, const char *path, char *text,
                         size_t len)
{
    struct recording_reader *r = recording_reader_open(path, text, len);
    const char *word = "damaged";
    struct recording_event e;
    enum recording_end end;
    uint64_t frames;
    int n;

    if (!r)
        return word;
    while ((n = recording_reader_next(r, &e)) > 0)
        ;
    end = recording_reader_end(r, &frames, text, len);
    if (n < 0) {
        snprintf(text, len, "%s", n == ERR_SYSTEM ? strerror(errno) : error_text(n));
    } else if (end == RECORDING_CUT && is_live(cli, row)) {
        word = "live";
    } else if (end != RECORDING_DAMAGED && !is_as_told(row, r, frames)) {
        word = end == RECORDING_CUT ? "cut" : "changed";
        snprintf(text, len, "it is not what was written: the daemon was told of other frames");
    } else if (end != RECORDING_DAMAGED) {
        word = end == RECORDING_CUT ? "cut" : "complete";
    }
    recording_reader_close(r);
    return word;
}

static int verify_row(struct cli *cli, const json_t *row, json_t *results)
{
    char text[512] = "", *path = NULL;
    const char *word = "damaged";
    int fetched;
    int rc = find_path(cli, row, &path);

    if (rc == CLI_DONE)
        word = judge(cli, row, path, text, sizeof(text));
    else
        snprintf(text, sizeof(text), "it cannot be read");
    if (path && sscanf(path, "/proc/self/fd/%d", &fetched) == 1)
        close(fetched); /* there may be many */
    free(path);
    json_array_append_new(results, json_pack("{s:O, s:s, s:s}", "id", json_object_get(row, "id"),
                                             "result", word, "text", text));
    return strcmp(word, "complete") == 0 || strcmp(word, "live") == 0 ? CLI_DONE : CLI_FAILED;
}

/* Rows of one session, of one channel of it (of 42.2), or all there are. */
static int verify_some(struct cli *cli, const char *id, json_t *results)
{
    char session[32];
    uint64_t channel = 0;
    json_t *rows, *args = json_object();
    int rc, worst = CLI_DONE;
    size_t seen = 0;

    if (id && !parse_id(id, session, sizeof(session), &channel)) {
        json_decref(args);
        return cli_usage(cli, "\"%s\" is no recording's id; `sallyctl recording ls` shows them",
                         id);
    }
    if (id)
        json_object_set_new(args, "id", json_string(session));
    else
        json_object_set_new(args, "limit", json_integer(VERIFY_MAX));
    rc = cli_call(cli, "recording ls", args, &rows);
    if (rc != CLI_DONE)
        return rc;
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);

        if (channel && json_integer_value(json_object_get(row, "channel")) != (json_int_t)channel)
            continue;
        seen++;
        rc = json_is_string(json_object_get(row, "path")) ? verify_row(cli, row, results)
                                                          : CLI_NOT_PERMITTED;
        worst = rc != CLI_DONE ? rc : worst;
    }
    if (json_array_size(rows) == VERIFY_MAX)
        cli_say("Only the newest %d were looked at.", VERIFY_MAX);
    json_decref(rows);
    if (worst == CLI_NOT_PERMITTED)
        cli_error("only admins may read recordings");
    else if (id && !seen)
        cli_error("there is no recording %s", id);
    return id && !seen ? CLI_FAILED : worst;
}

int cmd_recording_verify(struct cli *cli)
{
    static const struct column list[] = {{"ID", "id", COLUMN_TEXT, 0},
                                         {"RESULT", "result", COLUMN_TEXT, 0},
                                         {"TEXT", "text", COLUMN_TEXT, COLUMN_TRUNC},
                                         {NULL, NULL, COLUMN_TEXT, 0}};
    static const struct columns columns = {"recordings", "id", list};
    bool all = cli_has(cli, "all");
    json_t *results = json_array();
    int worst = CLI_DONE, rc;

    if (all == (cli->args.operand_count > 0)) {
        json_decref(results);
        return cli_usage(cli, "name recordings, or --all");
    }
    if (all)
        worst = verify_some(cli, NULL, results);
    for (size_t i = 0; i < cli->args.operand_count; i++) {
        rc = verify_some(cli, cli_operand(cli, i), results);
        worst = rc != CLI_DONE ? rc : worst;
    }
    rc = worst;
    if (json_array_size(results) || (all && worst == CLI_DONE))
        rc = output_rows(cli, &columns, results, false, true);
    json_decref(results);
    return worst != CLI_DONE ? worst : rc;
}

/* ---- export ---- */

/* Counts what is written and shows it, so that a long export is seen to go on. */
struct progress {
    int fd;
    uint64_t bytes;
    int64_t shown_ms;
    bool is_shown;
};

static ssize_t progress_write(void *arg, const char *data, size_t len)
{
    struct progress *p = arg;
    int64_t now = clock_mono_ms();
    ssize_t n;

    do {
        n = write(p->fd, data, len);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return 0; /* what fopencookie() takes for an error */
    p->bytes += (uint64_t)n;
    if (p->is_shown && now - p->shown_ms >= PROGRESS_MS) {
        fprintf(stderr, "\r%.1f MB written", (double)p->bytes / 1e6);
        p->shown_ms = now;
    }
    return n;
}

static int open_export(const struct cli *cli, const char *path)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (cli_has(cli, "force") ? O_TRUNC : O_EXCL);
    int fd;

    if (strcmp(path, "-") == 0)
        return dup(STDOUT_FILENO);
    if (!cli_may_use_file(path))
        return -1;
    fd = open(path, flags, 0600);
    if (fd < 0 && errno == EEXIST)
        cli_error("%s is there already; --force overwrites it", path);
    else if (fd < 0)
        cli_error("cannot write %s: %s", path, strerror(errno));
    return fd;
}

static int export_to(const char *from, int fd, double at_s)
{
    struct progress progress = {.fd = fd, .is_shown = isatty(STDERR_FILENO) && fd != STDOUT_FILENO};
    char err[512] = "";
    FILE *out;
    int rc;

    progress.is_shown = progress.is_shown && !isatty(fd);
    out = fopencookie(&progress, "w", (cookie_io_functions_t){.write = progress_write});
    if (!out)
        return CLI_FAILED;
    progress.shown_ms = clock_mono_ms();
    rc = recording_export(from, out, at_s, err, sizeof(err));
    if (fclose(out) != 0 && rc == 0) {
        rc = ERR_SYSTEM;
        snprintf(err, sizeof(err), "%s", strerror(errno));
    }
    if (progress.is_shown)
        fputs("\r\033[K", stderr);
    if (rc < 0)
        cli_error("cannot export: %s", err);
    return rc < 0 ? CLI_FAILED : CLI_DONE;
}

/* A terminal's: asciicast. */
static int export_terminal(struct cli *cli, const json_t *row, const char *from, const char *to)
{
    static const char *const of_desktops[] = {"from", "until", "idle-limit", "thumbnail", "exact"};
    const char *id = json_string_value(json_object_get(row, "id"));
    bool is_file = strcmp(to, "-") != 0;
    double at_s = 0;
    int rc = get_seconds(cli, "at", true, &at_s), fd;

    for (size_t i = 0; rc == CLI_DONE && i < sizeof(of_desktops) / sizeof(of_desktops[0]); i++)
        if (cli_has(cli, of_desktops[i]))
            return cli_usage(cli, "--%s is for desktops; recording %s is a terminal's",
                             of_desktops[i], id);
    if (rc == CLI_DONE && desktop_export_is_name(to))
        return cli_usage(cli, "recording %s is a terminal's: name the file .cast (asciicast v2)",
                         id);
    if (rc != CLI_DONE)
        return rc;
    fd = open_export(cli, to);
    if (fd < 0)
        return CLI_FAILED;
    rc = export_to(from, fd, at_s);
    close(fd);
    if (rc != CLI_DONE && is_file)
        unlink(to); /* half of it would look whole */
    if (rc == CLI_DONE && is_file)
        cli_say("%s written. Play it anywhere: asciinema play %s", to, to);
    return rc;
}

/* The file says it; one that cannot be read at all has a name still. */
static bool is_desktop(const json_t *row, const char *from)
{
    static const char end[] = ".rdp.zst";
    const char *path = json_string_value(json_object_get(row, "path"));
    size_t len = strlen(path);

    return desktop_export_is_for(from) ||
           (len >= sizeof(end) && strcmp(path + len - (sizeof(end) - 1), end) == 0);
}

static int export_found(struct cli *cli, const json_t *row, const char *to)
{
    const char *id = json_string_value(json_object_get(row, "id"));
    char *from = NULL;
    int rc = find_path(cli, row, &from);

    if (rc == CLI_DONE && is_desktop(row, from))
        rc = desktop_export(cli, id, from, to, is_live(cli, row));
    else if (rc == CLI_DONE)
        rc = export_terminal(cli, row, from, to);
    free(from);
    return rc;
}

int cmd_recording_export(struct cli *cli)
{
    const char *to = cli_operand(cli, 1);
    json_t *row = NULL;
    int rc;

    if (strcmp(to, "-") == 0 && isatty(STDOUT_FILENO))
        return cli_usage(cli, "an export does not go onto a terminal; redirect it, or name a file");
    rc = find(cli, cli_operand(cli, 0), &row);
    if (rc == CLI_DONE)
        rc = export_found(cli, row, to);
    json_decref(row);
    return rc;
}
