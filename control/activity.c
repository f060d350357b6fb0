/*
 * What was done in a session, for `session show`: the commands that ran and the files that were
 * got, put or changed, put together from the session's events. The newest of each, and how many
 * there are; `event tail --session ID` has them all.
 */
#include "control/control_priv.h"

#include <string.h>

#define LISTED_MAX 500 /* of each, the newest */
#define SCAN_PAGE  2000
#define SCAN_MAX   200000 /* events of one session that are looked at */

struct activity {
    json_t *files, *commands;
    uint64_t file_count, command_count; /* all that there are */
    uint64_t skip_files, skip_commands; /* older ones, in the second pass */
    uint64_t seen, last_id;
    bool is_counting;
};

static json_t *start_of(const struct store_event *e, const json_t *detail)
{
    json_t *ms = json_object_get(detail, "durationMs");

    return ms ? control_json_time(e->at_wall_us - (int64_t)json_integer_value(ms) * 1000)
              : control_json_time(e->at_wall_us);
}

/* A channel that was closed takes the place of its opening, which says less. */
static void put_command(struct activity *a, json_t *row)
{
    json_int_t channel = json_integer_value(json_object_get(row, "channel"));

    for (size_t i = json_array_size(a->commands); i-- > 0;) {
        json_t *old = json_array_get(a->commands, i);

        if (json_integer_value(json_object_get(old, "channel")) == channel &&
            json_is_null(json_object_get(old, "ended"))) {
            json_array_set_new(a->commands, i, row);
            return;
        }
    }
    json_array_append_new(a->commands, row);
}

/* Forwarded connections are channels too, and events only. The fields stand in this order. */
static bool is_command(const struct store_event *e)
{
    static const char *const kinds[] = {"shell", "exec", "transfer", "subsystem"};
    const char *kind = strstr(e->detail, ",\"kind\":\"");

    for (size_t i = 0; kind && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(kind + 9, kinds[i], strlen(kinds[i])) == 0 && kind[9 + strlen(kinds[i])] == '"')
            return true;
    return false;
}

static void add_command(struct activity *a, const struct store_event *e, bool is_end)
{
    json_t *row = json_loads(e->detail, 0, NULL);

    if (!json_is_object(row)) {
        json_decref(row);
        return;
    }
    json_object_set_new(row, "started", start_of(e, row));
    json_object_set_new(row, "ended", is_end ? control_json_time(e->at_wall_us) : json_null());
    put_command(a, row);
}

static void add_file(struct activity *a, const struct store_event *e)
{
    json_t *row = json_loads(e->detail, 0, NULL);

    if (json_is_object(row))
        json_object_set_new(row, "time", control_json_time(e->at_wall_us));
    if (json_is_object(row))
        json_array_append(a->files, row);
    json_decref(row);
}

static bool look(const struct store_event *e, void *arg)
{
    struct activity *a = arg;
    bool is_open = strcmp(e->kind, "channel-open") == 0;
    bool is_close = strcmp(e->kind, "channel-close") == 0;

    a->seen++;
    a->last_id = e->id;
    if (strcmp(e->kind, "file") == 0) {
        if (a->is_counting)
            a->file_count++;
        else if (a->skip_files > 0)
            a->skip_files--;
        else
            add_file(a, e);
    } else if ((is_open || is_close) && is_command(e)) {
        if (a->is_counting)
            a->command_count += is_open;
        else if (is_open && a->skip_commands > 0)
            a->skip_commands--;
        else if (a->skip_commands == 0)
            add_command(a, e, is_close);
    }
    return true;
}

static int scan(struct store *s, uint64_t id, struct activity *a)
{
    uint64_t before;
    int result;

    a->seen = a->last_id = 0;
    do {
        before = a->seen;
        result = store_events_of(s, id, a->last_id, SCAN_PAGE, look, a);
    } while (result == 0 && a->seen - before == SCAN_PAGE && a->seen < SCAN_MAX);
    return result;
}

int control_activity_put(struct request *r, uint64_t session_id, json_t *data)
{
    struct activity a = {.is_counting = true};
    int result = scan(r->control->store, session_id, &a);

    if (result < 0)
        return result;
    a.is_counting = false;
    a.skip_files = a.file_count > LISTED_MAX ? a.file_count - LISTED_MAX : 0;
    a.skip_commands = a.command_count > LISTED_MAX ? a.command_count - LISTED_MAX : 0;
    a.files = json_array();
    a.commands = json_array();
    result = scan(r->control->store, session_id, &a);
    json_object_set_new(data, "commandsTotal", json_integer((json_int_t)a.command_count));
    json_object_set_new(data, "commands", a.commands);
    json_object_set_new(data, "filesTotal", json_integer((json_int_t)a.file_count));
    json_object_set_new(data, "files", a.files);
    return result;
}
