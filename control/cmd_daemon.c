/*
 * The daemon itself: its state, reloading, draining, stopping, and the store's file. What is done
 * is the host's (the broker's) or the store's; these are the words for it.
 */
#include "control/control_priv.h"

#include <string.h>
#include <sys/stat.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define REPORT_MAX (64 * 1024)

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

void control_do_backup(struct request *r)
{
    const char *path = args_text(&r->parsed.args, "path");
    struct stat st;
    mode_t umask_was;
    int result;

    if (path[0] != '/') {
        control_reply_error(r, "invalid",
                            "path: give an absolute path; the daemon writes the file");
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
