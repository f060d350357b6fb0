/*
 * What is kept: recordings (their rows; the files are read by the client itself) and the audit log,
 * with those who follow it.
 */
#include "control/control_priv.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/text.h>

#define RECORDINGS_LIMIT 1000
#define EVENTS_LIMIT     50
#define EVENTS_MAX       10000
#define EVENTS_PAGE      500
#define EVENTS_SCAN      200000 /* rows looked at for one reply */

/* ---- recordings ---- */

struct recording_rows {
    json_t *rows;
    size_t limit;
    const char *dir; /* NULL: the caller may not read files */
};

static void hex(char *dst, const uint8_t *data, size_t len)
{
    for (size_t i = 0; i < len; i++)
        snprintf(dst + 2 * i, 3, "%02x", data[i]);
}

static json_t *recording_json(const struct store_recording *rec, const char *dir)
{
    char id[40], session[24], path[4096], chain[65];

    snprintf(session, sizeof(session), "%llu", (unsigned long long)rec->session_id);
    snprintf(id, sizeof(id), rec->channel > 1 ? "%s.%u" : "%s", session, (unsigned)rec->channel);
    snprintf(path, sizeof(path), "%s/%s", dir ? dir : "", rec->path);
    hex(chain, rec->chain, sizeof(rec->chain));
    return json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:o, s:I, s:I, s:s, s:s, s:b}", "id", id,
                     "session", session, "channel", (int)rec->channel, "user", json_null(),
                     "resourceName", json_null(), "path",
                     dir ? control_json_text(path) : json_null(), "started",
                     control_json_time(rec->started_wall_us), "frames", (json_int_t)rec->frames,
                     "bytes", (json_int_t)rec->file_len, "chain", chain, "state",
                     recording_state_name(rec->state), "closed", (int)rec->is_closed);
}

static bool collect_recording(const struct store_recording *rec, void *arg)
{
    struct recording_rows *list = arg;

    json_array_append_new(list->rows, recording_json(rec, list->dir));
    return json_array_size(list->rows) < list->limit;
}

/* Whose it is, from the session; rows of one session stand together, so one look-up serves them. */
static void name_recordings(struct control *c, json_t *rows)
{
    struct session_info info = {0};
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        uint64_t id;
        if (!arg_id(json_object_get(row, "session"), &id))
            continue;
        if (info.id != id && tracker_get(c->tracker, id, &info) < 0)
            continue;
        json_object_set_new(row, "user", control_json_text(info.user));
        json_object_set_new(row, "resourceName", control_json_text(info.target));
    }
}

json_t *control_recordings_json(struct request *r, uint64_t session_id, size_t limit,
                                struct failure *f)
{
    struct control *c = r->control;
    struct recording_rows list = {.rows = json_array(), .limit = limit};
    int result;

    if (r->caller.access >= ACCESS_ADMIN)
        list.dir = c->host.recording_dir(c->host.arg);
    result = store_recordings(c->store, session_id, collect_recording, &list);
    if (result < 0) {
        control_failure_store(f, c->store, result, "cannot list recordings");
        json_decref(list.rows);
        return NULL;
    }
    name_recordings(c, list.rows);
    return list.rows;
}

void control_do_recording_ls(struct request *r)
{
    const struct arg_value *limit = args_get(&r->parsed.args, "limit");
    struct failure f;
    json_t *rows =
        control_recordings_json(r, args_get(&r->parsed.args, "id")->number,
                                limit->is_set ? (size_t)limit->number : RECORDINGS_LIMIT, &f);

    if (rows)
        control_reply_rows(r, rows);
    else
        control_reply_failure(r, &f);
}

struct recording_search {
    uint32_t channel; /* 0: the first there is */
    struct store_recording found;
};

static bool find_recording(const struct store_recording *rec, void *arg)
{
    struct recording_search *search = arg;

    if (search->channel ? rec->channel == search->channel
                        : !search->found.channel || rec->channel < search->found.channel)
        search->found = *rec;
    return true;
}

/* For callers who cannot open it themselves; who read what is an event. */
void control_do_recording_read(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    struct control *c = r->control;
    uint64_t id = args_get(args, "id")->number;
    struct recording_search search = {.channel = (uint32_t)args_get(args, "channel")->number};
    char path[4096];
    int result = store_recordings(c->store, id, find_recording, &search), fd;

    if (result < 0) {
        control_reply_store(r, result, "cannot find the recording");
        return;
    }
    snprintf(path, sizeof(path), "%s/%s", c->host.recording_dir(c->host.arg), search.found.path);
    fd = search.found.channel ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    if (fd < 0) {
        control_reply_error(r, "not_found", "session %llu has no such recording",
                            (unsigned long long)id);
        return;
    }
    control_event(r, "recording-read", "", id, "channel %u", (unsigned)search.found.channel);
    control_reply_file(r, fd);
}

/* ---- events ---- */

static json_t *event_json(const struct store_event *e)
{
    json_t *detail = e->detail[0] ? json_loads(e->detail, 0, NULL) : NULL;
    json_t *event = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id", control_json_id(e->id), "time",
        control_json_time(e->at_wall_us), "kind", control_json_text(e->kind), "user",
        control_json_text_or_null(e->user), "source", control_json_text_or_null(e->source),
        "session", control_json_id(e->session_id), "text", control_json_text(e->text));
    json_object_set_new(event, "detail", detail ? detail : json_null());
    return event;
}

static bool event_fits(const struct event_filter *f, const struct store_event *e)
{
    return (!f->user[0] || !strcmp(f->user, e->user)) &&
           (!f->kind[0] || !strcmp(f->kind, e->kind)) &&
           (!f->session_id || f->session_id == e->session_id) && e->at_wall_us >= f->since_wall_us;
}

struct event_page {
    const struct event_filter *filter;
    json_t *rows; /* NULL: only count */
    uint64_t seen;
    uint64_t last_id;
    uint64_t stop_before; /* 0: none */
    bool is_old;          /* one was older than the filter wants */
};

static bool collect_event(const struct store_event *e, void *arg)
{
    struct event_page *page = arg;

    if (page->stop_before && e->id >= page->stop_before)
        return false;
    page->seen++;
    page->last_id = e->id;
    page->is_old |= page->filter && e->at_wall_us < page->filter->since_wall_us;
    if (page->rows && event_fits(page->filter, e))
        json_array_append_new(page->rows, event_json(e));
    return true;
}

/* Is there an event with a greater id? */
static int is_event_after(struct store *s, uint64_t id, bool *is_there)
{
    struct event_page page = {0};
    int result = store_events(s, 0, id, 1, collect_event, &page);

    *is_there = page.seen > 0;
    return result;
}

/* The newest event's id, 0 for none. Ids only grow, so some forty look-ups by the primary key find
 * it, which saves the store an entry of its own for this one question. */
static int newest_event(struct store *s, uint64_t *id)
{
    uint64_t low = 0, high = 1; /* there is one after low (or none at all), none after high */
    bool is_there;
    int result = is_event_after(s, 0, &is_there);

    *id = 0;
    if (result < 0 || !is_there)
        return result;
    while ((result = is_event_after(s, high, &is_there)) == 0 && is_there) {
        low = high;
        high *= 2;
    }
    while (result == 0 && high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        result = is_event_after(s, middle, &is_there);
        if (is_there)
            low = middle;
        else
            high = middle;
    }
    *id = high;
    return result;
}

/* Put `older` before `rows`, which keeps the newest `limit`. */
static void prepend(json_t *rows, json_t *older, size_t limit)
{
    for (size_t i = json_array_size(older); i-- > 0 && json_array_size(rows) < limit;)
        json_array_insert(rows, 0, json_array_get(older, i));
}

/* The newest `limit` that fit, oldest first: pages from the end backwards. */
static int collect_newest(struct store *s, const struct event_filter *f, size_t limit,
                          uint64_t newest, json_t *rows)
{
    uint64_t before = newest + 1, scanned = 0;

    while (before > 1 && json_array_size(rows) < limit && scanned < EVENTS_SCAN) {
        uint64_t after = before > EVENTS_PAGE ? before - 1 - EVENTS_PAGE : 0;
        struct event_page page = {.filter = f, .rows = json_array(), .stop_before = before};
        int result = store_events(s, 0, after, EVENTS_PAGE, collect_event, &page);
        if (result == 0)
            prepend(rows, page.rows, limit);
        json_decref(page.rows);
        if (result < 0)
            return result;
        if (page.is_old)
            break;
        scanned += EVENTS_PAGE;
        before = after + 1;
    }
    return 0;
}

static void event_filter_from_args(const struct request *r, struct event_filter *f)
{
    const struct arg_values *args = &r->parsed.args;
    const char *user = args_text(args, "user"), *kind = args_text(args, "kind");

    *f = (struct event_filter){.since_wall_us = args_get(args, "since")->time_us,
                               .session_id = args_get(args, "session")->number};
    text_copy(f->user, sizeof(f->user), user ? user : "");
    text_copy(f->kind, sizeof(f->kind), kind ? kind : "");
}

void control_do_event_tail(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    struct control *c = r->control;
    size_t limit = (size_t)args_get(args, "limit")->number;
    struct event_filter filter;
    struct subscription *s = NULL;
    json_t *rows;
    uint64_t newest;
    int result;

    if (!limit)
        limit = args_get(args, "since")->is_set ? EVENTS_MAX : EVENTS_LIMIT;
    event_filter_from_args(r, &filter);
    rows = json_array();
    result = newest_event(c->store, &newest);
    if (result == 0)
        result = collect_newest(c->store, &filter, limit, newest, rows);
    if (result < 0) {
        json_decref(rows);
        control_reply_store(r, result, "cannot read events");
        return;
    }
    if (args_flag(args, "follow")) {
        s = control_subscribe(r, SUBSCRIPTION_EVENTS);
        if (!s) {
            json_decref(rows);
            return;
        }
        s->events = filter;
        s->last_event = newest;
        control_follow_arm(c);
    }
    control_reply_rows(r, rows);
}

void control_follow_events(struct control *c, struct subscription *s)
{
    struct event_page page = {.filter = &s->events, .rows = json_array()};
    json_t *event;
    size_t i;

    if (s->client->caller.access >= ACCESS_AUDIT &&
        store_events(c->store, 0, s->last_event, EVENTS_PAGE, collect_event, &page) == 0 &&
        page.seen) {
        s->last_event = page.last_id;
        json_array_foreach(page.rows, i, event)
        {
            control_publish(s, json_pack("{s:s, s:O}", "type", "event", "event", event));
        }
    }
    json_decref(page.rows);
}
