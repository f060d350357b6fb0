/*
 * What a session did, as events: files that were got, put or changed, and channels with what ran in
 * them. Each event says the same twice, as a line for people and as a JSON object for programs.
 * Called by the dispatch of links.c. A relay is not trusted: its texts are bytes, and many rows
 * cost it as much as many messages.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include <sallyport/clock.h>
#include <sallyport/file_row.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/links_parts.h"
#include "proxy/broker/recordings.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define ROWS_A_TOKEN 8    /* rows that cost as much as one message, see may_talk() of links.c */
#define QUEUE_FLUSH  4000 /* events that wait: written before more come, or some would be lost */
#define CUT_MAX      400  /* of a text, when a detail is too long for the store */

static json_t *json_bytes(const char *text)
{
    char escaped[4 * LINK_COMMAND_MAX];
    json_t *value = json_string(text); /* NULL when it is not UTF-8 */

    return value ? value : json_string(text_escape(escaped, sizeof(escaped), text, strlen(text)));
}

/* Long texts are cut until the store takes it; "cut" says so. */
static void cut_texts(json_t *detail)
{
    static const char *const names[] = {"path", "path2", "command"};
    char cut[CUT_MAX];

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *text = json_string_value(json_object_get(detail, names[i]));

        if (text && strlen(text) >= CUT_MAX) {
            text_escape(cut, sizeof(cut), text, strlen(text));
            json_object_set_new(detail, names[i], json_string(cut));
        }
    }
    json_object_set_new(detail, "cut", json_true());
}

/* detail is taken over. */
static void note(struct relay_link *l, const char *kind, const char *text, json_t *detail)
{
    struct store_event e = {.at_wall_us = clock_wall_us(), .session_id = l->session_id};
    size_t len = json_dumpb(detail, e.detail, sizeof(e.detail) - 1, JSON_COMPACT);

    if (len >= sizeof(e.detail)) {
        cut_texts(detail);
        memset(e.detail, 0, sizeof(e.detail));
        len = json_dumpb(detail, e.detail, sizeof(e.detail) - 1, JSON_COMPACT);
        if (len >= sizeof(e.detail))
            e.detail[0] = '\0';
    }
    json_decref(detail);
    text_copy(e.kind, sizeof(e.kind), kind);
    text_copy(e.user, sizeof(e.user), l->user);
    text_copy(e.source, sizeof(e.source), l->client_address);
    text_copy(e.text, sizeof(e.text), text);
    store_event_add(l->links->broker->store, &e);
}

/* ---- files ---- */

static bool has_bytes(enum file_operation operation)
{
    return operation <= FILE_GET_PUT || file_operation_is_command(operation);
}

static void note_file(struct relay_link *l, const struct file_row *row)
{
    enum file_operation operation = (enum file_operation)row->operation;
    char text[800], bytes[64] = "";
    const char *arrow = operation == FILE_SETSTAT ? " " : " -> ";
    json_t *detail;

    if (has_bytes(operation))
        snprintf(bytes, sizeof(bytes), " in=%" PRIu64 " out=%" PRIu64, row->bytes_in,
                 row->bytes_out);
    snprintf(text, sizeof(text), "channel=%u %s%s %s %.300s%s%.300s", row->channel,
             file_operation_name(operation), bytes, row->result, row->path,
             row->path2[0] ? arrow : "", row->path2);
    detail = json_pack("{s:I, s:s, s:o, s:o}", "channel", (json_int_t)row->channel, "operation",
                       file_operation_name(operation), "result", json_bytes(row->result), "path",
                       json_bytes(row->path));
    if (row->path2[0])
        json_object_set_new(detail, operation == FILE_SETSTAT ? "set" : "path2",
                            json_bytes(row->path2));
    if (has_bytes(operation)) {
        json_object_set_new(detail, "bytesIn", json_integer((json_int_t)row->bytes_in));
        json_object_set_new(detail, "bytesOut", json_integer((json_int_t)row->bytes_out));
    }
    note(l, "file", text, detail);
}

static void note_row(struct relay_link *l, const struct file_row *row)
{
    char text[512];

    switch ((enum file_operation)row->operation) {
    case FILE_STOPPED:
        snprintf(text, sizeof(text), "channel=%u %.400s; what it does to files is not listed",
                 row->channel, row->path);
        note(l, "audit-stopped", text,
             json_pack("{s:I, s:o}", "channel", (json_int_t)row->channel, "reason",
                       json_bytes(row->path)));
        break;
    case FILE_UNLISTED:
        snprintf(text, sizeof(text), "%" PRIu64 " files or changes of files are not listed",
                 row->bytes_in);
        note(l, "audit-incomplete", text,
             json_pack("{s:I}", "unlisted", (json_int_t)row->bytes_in));
        break;
    default:
        note_file(l, row);
        break;
    }
}

void link_on_files(struct relay_link *l, struct link_message *m, int *fds)
{
    struct store *store = l->links->broker->store;
    struct cursor c = cursor_of(m->files.rows.data, m->files.rows.len);
    struct file_row row;
    uint32_t count = 0;
    uint64_t lost;

    (void)fds;
    while (!cursor_at_end(&c)) {
        if (!file_row_take(&c, &row)) {
            log_warn("relay pid=%d session=%llu said something about files that cannot be read",
                     l->pid, (unsigned long long)l->session_id);
            link_drop(l, "bad row");
            return;
        }
        note_row(l, &row);
        count++;
    }
    count /= ROWS_A_TOKEN;
    l->talk_left -= count < l->talk_left ? count : l->talk_left;
    if (store_queue_len(store, &lost) > QUEUE_FLUSH)
        (void)store_flush(store);
}

/* ---- channels ---- */

static json_t *channel_detail(const struct link_channel *c, const char *kind)
{
    json_t *detail = json_pack("{s:I, s:s, s:b, s:o}", "channel", (json_int_t)c->channel, "kind",
                               kind, "pty", (int)c->has_pty, "command", json_bytes(c->command));

    if (c->change != LINK_CHANNEL_CLOSED)
        return detail;
    json_object_set_new(detail, "bytesIn", json_integer((json_int_t)c->bytes_in));
    json_object_set_new(detail, "bytesOut", json_integer((json_int_t)c->bytes_out));
    json_object_set_new(detail, "durationMs", json_integer((json_int_t)c->duration_ms));
    json_object_set_new(detail, "exitStatus",
                        c->exit_status == UINT32_MAX ? json_null()
                                                     : json_integer((json_int_t)c->exit_status));
    json_object_set_new(detail, "exitSignal",
                        c->exit_signal[0] ? json_bytes(c->exit_signal) : json_null());
    return detail;
}

void link_note_channel(struct relay_link *l, const struct link_channel *c, const char *kind)
{
    static const char *const events[] = {"channel-open", "channel-close", "channel-refused"};
    char text[512], status[48] = "", lasted[48] = "";

    if (c->exit_signal[0])
        snprintf(status, sizeof(status), " signal=%.31s", c->exit_signal);
    else if (c->exit_status != UINT32_MAX)
        snprintf(status, sizeof(status), " exit=%u", c->exit_status);
    if (l->version >= 3)
        snprintf(lasted, sizeof(lasted), " lasted=%" PRIu64 ".%03us", c->duration_ms / 1000,
                 (unsigned)(c->duration_ms % 1000));
    if (c->change == LINK_CHANNEL_CLOSED)
        snprintf(text, sizeof(text), "channel=%u %s%s in=%" PRIu64 " out=%" PRIu64 "%s%s %.300s",
                 c->channel, kind, c->has_pty ? " pty" : "", c->bytes_in, c->bytes_out, status,
                 lasted, c->command);
    else
        snprintf(text, sizeof(text), "channel=%u %s%s %.300s", c->channel, kind,
                 c->has_pty ? " pty" : "", c->command);
    note(l, events[c->change], text, channel_detail(c, kind));
}
