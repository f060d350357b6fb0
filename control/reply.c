/*
 * What goes back to a caller: data, rows, pages of rows, errors, and the JSON of the things that
 * several commands show. It never writes to a socket itself: client.c does. Handlers call it.
 */
#include "control/control_priv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "tracker/location.h"

/* ---- JSON of values ---- */

json_t *control_json_text(const char *text)
{
    char escaped[4096];
    json_t *json = json_string(text);

    /* json_string() says no to what is not UTF-8, which a client may have sent as its version. */
    return json ? json : json_string(text_escape(escaped, sizeof(escaped), text, strlen(text)));
}

json_t *control_json_text_or_null(const char *text)
{
    return text[0] ? control_json_text(text) : json_null();
}

json_t *control_json_time(int64_t wall_us)
{
    char text[TIME_TEXT_MAX];

    return wall_us ? json_string(text_time_utc(text, sizeof(text), wall_us)) : json_null();
}

json_t *control_json_id(uint64_t id)
{
    char text[24];

    if (!id)
        return json_null();
    snprintf(text, sizeof(text), "%llu", (unsigned long long)id);
    return json_string(text);
}

json_t *control_json_policy(const char *overlay_text)
{
    struct policy_overlay overlay = {0};
    json_t *object = json_object();
    char err[256], text[POLICY_TEXT_MAX];

    if (policy_overlay_parse(&overlay, overlay_text, err, sizeof(err)) < 0) {
        log_warn("policy in the store cannot be read error=%s", err);
        return object;
    }
    for (size_t i = 0; i < policy_key_count; i++) {
        const struct policy_key *key = &policy_keys[i];

        if (overlay.set & UINT32_C(1) << i)
            json_object_set_new(object, key->key,
                                json_string(policy_get(&overlay.values, key, text)));
    }
    return object;
}

int control_policy_text(const char *old, json_t *change, char out[STORE_POLICY_TEXT_MAX],
                        struct failure *f)
{
    struct policy_overlay overlay = {0};
    struct buffer text;
    char err[256];
    int result = 0;

    if (old && policy_overlay_parse(&overlay, old, err, sizeof(err)) < 0)
        log_warn("policy in the store is replaced, it could not be read error=\"%s\"", err);
    if (change && arg_policy_merge(&overlay, change, err, sizeof(err)) < 0) {
        failure_set(f, "invalid", "policy: %s", err);
        return ERR_INVALID;
    }
    buffer_init(&text, STORE_POLICY_TEXT_MAX);
    policy_overlay_text(&overlay, &text);
    if (text.failed || !text_copy(out, STORE_POLICY_TEXT_MAX, text.len ? buffer_cstr(&text) : "")) {
        failure_set(f, "invalid", "policy: set fewer keys, the whole is too long");
        result = ERR_INVALID;
    }
    buffer_finish(&text);
    return result;
}

/* "session,forward*3" as an array with one word for each channel. */
static json_t *json_channels(const char *channels)
{
    json_t *array = json_array();

    while (*channels) {
        size_t len = strcspn(channels, ",");
        char one[CHANNELS_TEXT_MAX], *star;
        uint64_t count = 1;

        if (len && len < sizeof(one)) {
            memcpy(one, channels, len);
            one[len] = '\0';
            star = strchr(one, '*');
            if (star) {
                *star = '\0';
                if (!text_parse_u64(star + 1, &count) || count > CHANNELS_SHOWN_MAX)
                    count = CHANNELS_SHOWN_MAX;
            }
            for (uint64_t i = 0; i < count; i++)
                json_array_append_new(array, control_json_text(one));
        }
        channels += len + (channels[len] == ',');
    }
    return array;
}

static void set_end(json_t *o, const struct session_info *s, bool is_ended)
{
    bool is_planned = !is_ended && s->planned_wall_us;

    json_object_set_new(o, "endReason",
                        is_ended ? json_string(end_reason_name(s->end_reason)) : json_null());
    json_object_set_new(o, "endedBy",
                        is_ended ? control_json_text_or_null(s->ended_by) : json_null());
    json_object_set_new(o, "endText",
                        is_ended ? control_json_text_or_null(s->end_text) : json_null());
    json_object_set_new(o, "endsAt",
                        is_planned ? control_json_time(s->planned_wall_us) : json_null());
    json_object_set_new(o, "endsBy",
                        is_planned ? control_json_text_or_null(s->planned_by) : json_null());
}

static void set_client(json_t *o, const struct session_info *s)
{
    const char *location = s->location[0] ? s->location : location_of(s->client_address);

    json_object_set_new(o, "device", control_json_text_or_null(s->device));
    json_object_set_new(o, "ipAddress", control_json_text_or_null(s->client_address));
    json_object_set_new(o, "port", s->client_port ? json_integer(s->client_port) : json_null());
    json_object_set_new(o, "location", control_json_text_or_null(location));
}

static void set_times(json_t *o, const struct session_info *s, bool is_ended)
{
    char duration[DURATION_TEXT_MAX];

    json_object_set_new(o, "startTime", control_json_time(s->started_wall_us));
    json_object_set_new(o, "endTime", is_ended ? control_json_time(s->ended_wall_us) : json_null());
    json_object_set_new(o, "duration",
                        json_string(text_duration(duration, sizeof(duration), s->duration_s)));
    json_object_set_new(o, "durationSeconds", json_integer((json_int_t)s->duration_s));
    json_object_set_new(o, "status", json_string(session_state_name(s->state)));
    json_object_set_new(o, "idleSeconds", json_integer(is_ended ? 0 : (json_int_t)s->idle_s));
    json_object_set_new(o, "lastActivity", control_json_time(s->last_activity_wall_us));
}

json_t *control_session_json(const struct session_info *s)
{
    bool is_ended = s->state == SESSION_DISCONNECTED;
    json_t *o = json_object();

    json_object_set_new(o, "id", control_json_id(s->id));
    json_object_set_new(o, "user", control_json_text(s->user));
    json_object_set_new(o, "account", control_json_text(s->account));
    json_object_set_new(o, "resourceName", control_json_text(s->target));
    json_object_set_new(o, "resourceType", json_string(protocol_name(s->protocol)));
    json_object_set_new(o, "address", control_json_text(s->address));
    set_times(o, s, is_ended);
    set_client(o, s);
    json_object_set_new(o, "bytesIn", json_integer((json_int_t)s->bytes_in));
    json_object_set_new(o, "bytesOut", json_integer((json_int_t)s->bytes_out));
    json_object_set_new(o, "channels", json_channels(s->channels));
    set_end(o, s, is_ended);
    json_object_set_new(o, "recording", json_string(recording_state_name(s->recording)));
    json_object_set_new(o, "flags", json_array());
    json_object_set_new(o, "node", control_json_text(s->node));
    json_object_set_new(o, "warned", json_boolean(!is_ended && s->is_warned));
    json_object_set_new(o, "pid",
                        is_ended || !s->relay_pid ? json_null() : json_integer(s->relay_pid));
    return o;
}

json_t *control_error_line(json_t *id, const char *code, const char *text)
{
    return json_pack("{s:o, s:b, s:{s:s, s:o}}", "id", id ? json_incref(id) : json_null(), "ok", 0,
                     "error", "code", code, "message", control_json_text(text));
}

/* ---- answering ---- */

static void finish(struct request *r)
{
    r->state = REQUEST_DONE;
    if (r->free_state)
        r->free_state(r->rows_state);
    r->rows_state = NULL;
    r->free_state = NULL;
}

static void send_line(struct request *r, json_t *line)
{
    if (r->client && line)
        control_client_send(r->client, line);
    json_decref(line);
}

void control_reply_data(struct request *r, json_t *data)
{
    if (!data) {
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    send_line(r, json_pack("{s:O, s:b, s:o}", "id", r->parsed.id, "ok", 1, "data", data));
    finish(r);
}

static void reply_error_text(struct request *r, const char *code, const char *text)
{
    send_line(r, control_error_line(r->parsed.id, code, text));
    finish(r);
}

void control_reply_error(struct request *r, const char *code, const char *fmt, ...)
{
    va_list args;
    char *text = NULL;

    va_start(args, fmt);
    if (vasprintf(&text, fmt, args) < 0)
        text = NULL;
    va_end(args);
    reply_error_text(r, code, text ? text : "out of memory");
    free(text);
}

void control_reply_failure(struct request *r, const struct failure *f)
{
    reply_error_text(r, f->code, f->text);
}

void control_failure_store(struct failure *f, struct store *s, int result, const char *what)
{
    static const struct {
        int result;
        const char *code;
    } codes[] = {
        {ERR_BUSY, "busy"}, {ERR_NOT_FOUND, "not_found"}, {ERR_EXISTS, "exists"},
        {ERR_FULL, "full"}, {ERR_READ_ONLY, "read_only"}, {ERR_INVALID, "invalid"},
    };
    const char *code = "failed", *text = store_error(s);

    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (codes[i].result == result)
            code = codes[i].code;
    }
    failure_set(f, code, "%s: %s", what, text && text[0] ? text : error_text(result));
}

void control_reply_store(struct request *r, int result, const char *fmt, ...)
{
    struct failure f;
    char what[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    control_failure_store(&f, r->control->store, result, what);
    control_reply_failure(r, &f);
}

/* ---- rows that are all there: cut into pages ---- */

struct whole {
    json_t *rows;
    size_t next;
};

static void whole_free(void *state)
{
    struct whole *w = state;

    json_decref(w->rows);
    free(w);
}

static int whole_fill(struct request *r, json_t *rows, struct failure *f)
{
    struct whole *w = r->rows_state;
    size_t count = json_array_size(w->rows);

    (void)f;
    for (size_t i = 0; i < CONTROL_PAGE_ROWS && w->next < count; i++)
        json_array_append(rows, json_array_get(w->rows, w->next++));
    return w->next < count;
}

void control_reply_rows(struct request *r, json_t *rows)
{
    struct whole *w = calloc(1, sizeof(*w));

    if (!w || !rows) {
        free(w);
        json_decref(rows);
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    w->rows = rows;
    control_reply_stream(r, whole_fill, w, whole_free);
}

void control_reply_stream(struct request *r, rows_fn fill, void *state, void (*free_state)(void *))
{
    r->fill = fill;
    r->rows_state = state;
    r->free_state = free_state;
    r->state = REQUEST_STREAMING;
}

/* ---- traces of what was done ---- */

void control_event(struct request *r, const char *kind, const char *user, uint64_t session_id,
                   const char *fmt, ...)
{
    struct store_event e = {.at_wall_us = clock_wall_us(), .session_id = session_id};
    char text[384], quoted[sizeof(text) + 2], author[LOG_VALUE_MAX], source[LOG_VALUE_MAX];
    va_list args;

    if (!r->control)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    text_copy(e.kind, sizeof(e.kind), kind);
    text_copy(e.user, sizeof(e.user), user);
    if (r->caller.is_guest)
        text_copy(e.source, sizeof(e.source), r->caller.source);
    else
        snprintf(e.source, sizeof(e.source), "local uid %u", (unsigned)r->caller.uid);
    snprintf(e.text, sizeof(e.text), "%s%s%s", r->caller.author, text[0] ? ": " : "", text);
    store_event_add(r->control->store, &e);
    log_info("control event=%s author=%s source=%s %s%s%stext=%s", kind,
             log_value(author, sizeof(author), r->caller.author),
             log_value(source, sizeof(source), e.source), user[0] ? "user=" : "", user,
             user[0] ? " " : "", log_value(quoted, sizeof(quoted), text));
}

void control_access_changed(struct request *r)
{
    struct control *c = r->control;
    struct control_client *client, *next;

    for (client = TAILQ_FIRST(&c->clients); client; client = next) {
        next = TAILQ_NEXT(client, link);
        control_client_refresh(client);
    }
    c->host.access_changed(c->host.arg, r->caller.author);
}
