/*
 * The daemon itself: its state, reloading, draining, stopping, and the store's file. What is done
 * is the host's (the broker's) or the store's; these are the words for it.
 */
#include "control/control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define REPORT_MAX   (64 * 1024)
#define BACKUP_CHUNK (48 * 1024) /* a multiple of 3: its base64 has no padding inside */

void control_do_ping(struct request *r)
{
    control_reply_data(r, json_object());
}

/* "a, b" as an array. */
static json_t *split_list(const char *text)
{
    json_t *array = json_array();

    while (*text) {
        size_t len = strcspn(text, ",");
        json_array_append_new(array, json_stringn(text, len));
        text += len;
        text += strspn(text, ", ");
    }
    return array;
}

static void set_number(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

void control_do_status(struct request *r)
{
    struct control *c = r->control;
    struct control_status s = {0};
    json_t *o = json_object();

    c->host.status(c->host.arg, &s);
    json_object_set_new(o, "version", control_json_text(s.version));
    json_object_set_new(o, "node", control_json_text(s.node));
    json_object_set_new(o, "pid", json_integer(s.pid));
    json_object_set_new(o, "started", control_json_time(s.started_wall_us));
    json_object_set_new(o, "uptimeSeconds",
                        json_integer((clock_wall_us() - s.started_wall_us) / 1000000));
    json_object_set_new(o, "draining", json_boolean(s.is_draining));
    set_number(o, "sessions", s.sessions);
    set_number(o, "links", s.links);
    set_number(o, "unauthenticated", s.unauthenticated);
    set_number(o, "parked", s.parked);
    set_number(o, "accepted", s.accepted);
    set_number(o, "evicted", s.evicted);
    set_number(o, "adopted", s.adopted);
    set_number(o, "historyQueued", s.history_queued);
    set_number(o, "historyLost", s.history_lost);
    set_number(o, "recordingFree", s.recording_free);
    json_object_set_new(o, "configPath", control_json_text(s.config_path));
    json_object_set_new(o, "configLoaded", control_json_time(s.config_loaded_wall_us));
    json_object_set_new(o, "listeners", split_list(s.listeners));
    set_number(o, "controlClients", c->client_count);
    control_reply_data(r, o);
}

static json_t *lines_json(const char *text)
{
    json_t *array = json_array();

    while (*text) {
        size_t len = strcspn(text, "\n");
        char line[1024];
        if (len && len < sizeof(line)) {
            memcpy(line, text, len);
            line[len] = '\0';
            json_array_append_new(array, control_json_text(line));
        }
        text += len + (text[len] == '\n');
    }
    return array;
}

void control_do_reload(struct request *r)
{
    const struct control_host *host = &r->control->host;
    struct buffer report;
    const char *text;
    int result;

    buffer_init(&report, REPORT_MAX);
    result = host->reload(host->arg, &report);
    text = report.len ? buffer_cstr(&report) : "";
    text = text ? text : "the report is too long; see the log";
    control_event(r, "reload", "", 0, "%s", result < 0 ? "refused" : "done");
    if (result < 0)
        control_reply_error(r, "failed", "%s", text[0] ? text : error_text(result));
    else
        control_reply_data(r, json_pack("{s:o}", "report", lines_json(text)));
    buffer_finish(&report);
}

static void drain(struct request *r, bool on)
{
    const struct control_host *host = &r->control->host;

    host->drain(host->arg, on, r->caller.author);
    control_event(r, on ? "drain" : "undrain", "", 0, "%s", "");
    control_reply_data(r, json_pack("{s:b}", "draining", (int)on));
}

void control_do_drain(struct request *r)
{
    drain(r, true);
}

void control_do_undrain(struct request *r)
{
    drain(r, false);
}

void control_do_shutdown(struct request *r)
{
    const struct control_host *host = &r->control->host;
    uint32_t in_s = (uint32_t)args_get(&r->parsed.args, "in")->number;

    control_event(r, "shutdown", "", 0, "in %u s", (unsigned)in_s);
    control_reply_data(r, json_object()); /* said before, for there may be nobody to say it after */
    host->shutdown(host->arg, in_s, r->caller.author);
}

/* ---- backup ---- */

static void backup_to(struct request *r, const char *path)
{
    struct stat st;
    mode_t umask_was;
    int result;

    if (path[0] != '/') {
        control_reply_error(r, "invalid",
                            "path: give an absolute path, the daemon writes the file; without "
                            "a path the copy comes back in the reply");
        return;
    }
    if (lstat(path, &st) == 0) {
        control_reply_error(r, "exists", "%s is there already; a backup never overwrites", path);
        return;
    }
    umask_was = umask(0177); /* it holds password hashes */
    result = store_backup(r->control->store, path);
    umask(umask_was);
    if (result < 0) {
        control_reply_store(r, result, "cannot write the backup");
        return;
    }
    if (stat(path, &st) < 0)
        st.st_size = 0;
    control_event(r, "backup", "", 0, "%s", path);
    control_reply_data(r, json_pack("{s:o, s:I}", "path", control_json_text(path), "bytes",
                                    (json_int_t)st.st_size));
}

/* A copy in a directory of ours, which nobody else enters and which is gone at once. */
static int copy_in(struct control *c, const char *dir, int *fd)
{
    char holder[PATH_MAX], path[PATH_MAX + 16];
    mode_t umask_was;
    int result;

    *fd = -1;
    if (snprintf(holder, sizeof(holder), "%s/.backup-XXXXXX", dir) >= (int)sizeof(holder) ||
        !mkdtemp(holder))
        return ERR_SYSTEM;
    snprintf(path, sizeof(path), "%s/copy.db", holder);
    umask_was = umask(0177);
    result = store_backup(c->store, path);
    umask(umask_was);
    if (result == 0)
        *fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    (void)unlink(path);
    (void)rmdir(holder);
    return result < 0 ? result : *fd < 0 ? ERR_SYSTEM : 0;
}

struct backup_stream {
    int fd;
};

static void backup_free(void *state)
{
    struct backup_stream *b = state;

    close(b->fd);
    free(b);
}

static int backup_fill(struct request *r, json_t *rows, struct failure *f)
{
    struct backup_stream *b = r->rows_state;
    unsigned char data[BACKUP_CHUNK], text[BACKUP_CHUNK / 3 * 4 + 1];
    size_t len = 0;
    ssize_t n;

    while (len < sizeof(data) && (n = read(b->fd, data + len, sizeof(data) - len)) != 0) {
        if (n < 0) {
            failure_set(f, "failed", "the copy cannot be read back: %s", strerror(errno));
            return ERR_SYSTEM;
        }
        len += (size_t)n;
    }
    if (!len)
        return 0;
    EVP_EncodeBlock(text, data, (int)len);
    json_array_append_new(rows, json_pack("{s:s}", "data", (const char *)text));
    memory_wipe(data, sizeof(data));
    return len == sizeof(data);
}

/* The copy travels in the reply, so that it can be written where the caller may write. */
static void backup_stream(struct request *r)
{
    struct control *c = r->control;
    struct backup_stream *b = calloc(1, sizeof(*b));
    char run_dir[PATH_MAX], *slash;
    int result;

    if (!b) {
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    /* Where recordings go there is room; before the first recording there may be no such place. */
    result = copy_in(c, c->host.recording_dir(c->host.arg), &b->fd);
    text_copy(run_dir, sizeof(run_dir), c->socket_path);
    slash = strrchr(run_dir, '/');
    if (result == ERR_SYSTEM && slash) {
        *slash = '\0';
        result = copy_in(c, run_dir, &b->fd);
    }
    if (result < 0) {
        free(b);
        control_reply_store(r, result, "cannot make the backup");
        return;
    }
    control_event(r, "backup", "", 0, "%s", "to the caller");
    control_reply_stream(r, backup_fill, b, backup_free);
}

void control_reply_file(struct request *r, int fd)
{
    struct backup_stream *b = calloc(1, sizeof(*b));

    if (!b) {
        close(fd);
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    b->fd = fd;
    control_reply_stream(r, backup_fill, b, backup_free);
}

void control_do_backup(struct request *r)
{
    const char *path = args_text(&r->parsed.args, "path");

    if (path)
        backup_to(r, path);
    else
        backup_stream(r);
}

void control_do_store_rotate_key(struct request *r)
{
    uint32_t rewritten = 0;
    int result = store_rotate_key(r->control->store, &rewritten);

    if (result < 0) {
        control_reply_store(r, result, "cannot rotate the key");
        return;
    }
    control_event(r, "store-rotate-key", "", 0, "%u secrets", (unsigned)rewritten);
    control_reply_data(r, json_pack("{s:I}", "rewritten", (json_int_t)rewritten));
}
