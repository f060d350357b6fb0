/*
 * The session commands: list, show, count, end, message, and what subscriptions hear. Live sessions
 * come from the tracker, ended ones from the store, in one order. A caller whose access is `self`
 * sees his own user's sessions, as if there were no others.
 */
#include "control/control_priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define HISTORY_LIMIT 1000  /* rows, when the caller sets none */
#define SORT_MAX      10000 /* rows of history that are looked at to sort them */
#define COUNT_MAX     10000 /* newest sessions of one user looked at to count today's */

/* ---- filters ---- */

static bool may_see(const struct caller *caller, const struct session_info *s)
{
    return caller->access >= ACCESS_AUDIT || (caller->user[0] && !strcmp(caller->user, s->user));
}

static bool may_end(const struct caller *caller, const struct session_info *s)
{
    return caller->access >= ACCESS_ADMIN || (caller->user[0] && !strcmp(caller->user, s->user));
}

static bool has_text(const struct session_info *s, const char *text)
{
    char id[24];
    const char *const fields[] = {id,        s->user,     s->account,
                                  s->target, s->address,  s->client_address,
                                  s->device, s->location, s->channels};

    snprintf(id, sizeof(id), "%llu", (unsigned long long)s->id);
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcasestr(fields[i], text))
            return true;
    }
    return false;
}

static bool fits(const struct session_filter *f, const struct session_info *s)
{
    if (s->state == SESSION_DISCONNECTED && !f->has_ended)
        return false;
    return (!f->user[0] || !strcmp(f->user, s->user)) &&
           (!f->target[0] || !strcmp(f->target, s->target)) &&
           (!f->account[0] || !strcmp(f->account, s->account)) &&
           (f->protocol < 0 || f->protocol == (int)s->protocol) &&
           (f->state < 0 || f->state == (int)s->state) &&
           (!f->since_wall_us || s->started_wall_us >= f->since_wall_us) &&
           (!f->until_wall_us || s->started_wall_us < f->until_wall_us) &&
           (!f->search[0] || has_text(s, f->search)) &&
           !f->only_flagged; /* no session has a flag yet */
}

static void copy_arg(char *dst, size_t dst_len, const struct request *r, const char *name)
{
    const char *text = args_text(&r->parsed.args, name);

    text_copy(dst, dst_len, text ? text : "");
}

/* False when nothing can fit: someone else's sessions were asked for. */
static bool filter_from_args(const struct request *r, struct session_filter *f)
{
    const struct arg_values *args = &r->parsed.args;
    const char *type = args_text(args, "type"), *status = args_text(args, "status");

    *f = (struct session_filter){.protocol = -1, .state = -1};
    copy_arg(f->user, sizeof(f->user), r, "user");
    copy_arg(f->target, sizeof(f->target), r, "target");
    copy_arg(f->account, sizeof(f->account), r, "account");
    copy_arg(f->search, sizeof(f->search), r, "search");
    if (type)
        f->protocol = protocol_from_name(type);
    if (status)
        f->state = session_state_from_name(status);
    f->since_wall_us = args_get(args, "since")->time_us;
    f->until_wall_us = args_get(args, "until")->time_us;
    f->only_flagged = args_flag(args, "flagged");
    f->has_ended = args_flag(args, "all") || f->state == SESSION_DISCONNECTED;
    if (r->caller.access >= ACCESS_AUDIT)
        return true;
    if (f->user[0] && strcmp(f->user, r->caller.user) != 0)
        return false;
    return text_copy(f->user, sizeof(f->user), r->caller.user);
}

/* ---- an array of sessions, copied ---- */

struct listing {
    struct session_info *items;
    size_t count, cap, next;
    size_t max; /* stop there */
    bool failed;
    const struct session_filter *filter; /* for collecting; NULL: all */
};

static void listing_free(void *state)
{
    struct listing *l = state;

    free(l->items);
    free(l);
}

static bool listing_add(struct listing *l, const struct session_info *s)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        struct session_info *bigger = reallocarray(l->items, cap, sizeof(*bigger));
        if (!bigger) {
            l->failed = true;
            return false;
        }
        l->items = bigger;
        l->cap = cap;
    }
    l->items[l->count++] = *s;
    return l->count < l->max;
}

static bool collect_live(const struct session_info *s, void *arg)
{
    struct listing *l = arg;

    return l->filter && !fits(l->filter, s) ? true : listing_add(l, s);
}

static int listing_fill(struct request *r, json_t *rows, struct failure *f)
{
    struct listing *l = r->rows_state;

    (void)f;
    for (size_t i = 0; i < CONTROL_PAGE_ROWS && l->next < l->count; i++)
        json_array_append_new(rows, control_session_json(&l->items[l->next++]));
    return l->next < l->count;
}

/* ---- history: the store's rows, newest first, a page a turn ---- */

struct history {
    struct session_filter filter;
    uint64_t before_id;
    uint64_t left;                     /* rows the caller may still have */
    struct subscription *subscription; /* not owned; NULL without watch */
};

/* The next page of rows, fitting or not; live ones as they are now. The page is full when there
 * may be more. */
static int history_page(struct control *c, const struct session_filter *f, uint64_t *before_id,
                        struct listing *page);

static bool collect_row(const struct store_session *row, void *arg)
{
    struct listing *l = arg;
    struct session_info info = row->info;

    if (row->is_open && info.state == SESSION_DISCONNECTED)
        info.state = SESSION_ACTIVE;
    return listing_add(l, &info);
}

static int history_page(struct control *c, const struct session_filter *f, uint64_t *before_id,
                        struct listing *page)
{
    struct store_session_filter rows = {.protocol = f->protocol,
                                        .since_wall_us = f->since_wall_us,
                                        .until_wall_us = f->until_wall_us,
                                        .before_id = *before_id,
                                        .limit = CONTROL_PAGE_ROWS};
    int result;

    text_copy(rows.user, sizeof(rows.user), f->user);
    text_copy(rows.target, sizeof(rows.target), f->target);
    text_copy(rows.account, sizeof(rows.account), f->account);
    *page = (struct listing){.max = CONTROL_PAGE_ROWS};
    result = store_sessions(c->store, &rows, collect_row, page);
    if (result == 0 && page->failed)
        result = ERR_MEMORY;
    for (size_t i = 0; result == 0 && i < page->count; i++) {
        struct session_info live, *row = &page->items[i];
        *before_id = row->id;
        if (row->state != SESSION_DISCONNECTED && tracker_get(c->tracker, row->id, &live) == 0)
            *row = live;
    }
    return result;
}

static int history_fill(struct request *r, json_t *rows, struct failure *f)
{
    struct history *h = r->rows_state;
    struct listing page;
    int result = history_page(r->control, &h->filter, &h->before_id, &page);
    bool is_more = page.count == CONTROL_PAGE_ROWS;

    if (result < 0)
        control_failure_store(f, r->control->store, result, "cannot read the history");
    for (size_t i = 0; result == 0 && i < page.count && h->left; i++) {
        const struct session_info *s = &page.items[i];
        if (!fits(&h->filter, s))
            continue;
        json_array_append_new(rows, control_session_json(s));
        h->left--;
        if (h->subscription && s->state != SESSION_DISCONNECTED)
            control_shown_add(h->subscription, s->id);
    }
    free(page.items);
    return result < 0 ? result : is_more && h->left;
}

/* ---- sorting ---- */

enum column_kind { COLUMN_TEXT, COLUMN_U64, COLUMN_I64, COLUMN_ENUM, COLUMN_U16 };

static const struct column {
    const char *name;
    enum column_kind kind;
    size_t offset;
} columns[] = {
/* keep alphabetized */
#define COLUMN(name, kind, member)                        \
    {                                                     \
        name, kind, offsetof(struct session_info, member) \
    }
    COLUMN("account", COLUMN_TEXT, account),
    COLUMN("address", COLUMN_TEXT, address),
    COLUMN("bytesIn", COLUMN_U64, bytes_in),
    COLUMN("bytesOut", COLUMN_U64, bytes_out),
    COLUMN("channels", COLUMN_TEXT, channels),
    COLUMN("device", COLUMN_TEXT, device),
    COLUMN("duration", COLUMN_U64, duration_s),
    COLUMN("durationSeconds", COLUMN_U64, duration_s),
    COLUMN("endReason", COLUMN_ENUM, end_reason),
    COLUMN("endTime", COLUMN_I64, ended_wall_us),
    COLUMN("endedBy", COLUMN_TEXT, ended_by),
    COLUMN("id", COLUMN_U64, id),
    COLUMN("idleSeconds", COLUMN_U64, idle_s),
    COLUMN("ipAddress", COLUMN_TEXT, client_address),
    COLUMN("lastActivity", COLUMN_I64, last_activity_wall_us),
    COLUMN("location", COLUMN_TEXT, location),
    COLUMN("node", COLUMN_TEXT, node),
    COLUMN("port", COLUMN_U16, client_port),
    COLUMN("recording", COLUMN_ENUM, recording),
    COLUMN("resourceName", COLUMN_TEXT, target),
    COLUMN("resourceType", COLUMN_ENUM, protocol),
    COLUMN("startTime", COLUMN_I64, started_wall_us),
    COLUMN("status", COLUMN_ENUM, state),
    COLUMN("user", COLUMN_TEXT, user),
#undef COLUMN
};
#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

struct order {
    const struct column *column;
    bool is_reversed;
};

static int64_t column_number(const struct column *column, const struct session_info *s)
{
    const char *at = (const char *)s + column->offset;

    switch (column->kind) {
    case COLUMN_I64:
        return *(const int64_t *)(const void *)at;
    case COLUMN_U64:
        return (int64_t) * (const uint64_t *)(const void *)at;
    case COLUMN_U16:
        return *(const uint16_t *)(const void *)at;
    case COLUMN_ENUM:
        return *(const int *)(const void *)at;
    case COLUMN_TEXT:
        break;
    }
    return 0;
}

static int compare(const void *pa, const void *pb, void *arg)
{
    const struct session_info *a = pa, *b = pb;
    const struct order *order = arg;
    int result;

    if (order->column->kind == COLUMN_TEXT) {
        result = strcmp((const char *)a + order->column->offset,
                        (const char *)b + order->column->offset);
    } else {
        int64_t na = column_number(order->column, a), nb = column_number(order->column, b);
        result = (na > nb) - (na < nb);
    }
    if (!result)
        result = (a->id > b->id) - (a->id < b->id);
    return order->is_reversed ? -result : result;
}

/* True without a `sort` too (order->column is NULL then). */
static bool order_from_args(struct request *r, struct order *order)
{
    const char *name = args_text(&r->parsed.args, "sort"), *names[COLUMN_COUNT], *nearest;
    char quoted[64];

    *order = (struct order){0};
    if (!name)
        return true;
    order->is_reversed = name[0] == '-';
    name += order->is_reversed;
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        names[i] = columns[i].name;
        if (!strcmp(columns[i].name, name))
            order->column = &columns[i];
    }
    if (order->column)
        return true;
    nearest = text_nearest(name, names, COLUMN_COUNT);
    control_reply_error(r, "invalid", "sort: no field \"%s\"; did you mean %s?",
                        text_escape(quoted, sizeof(quoted), name, strlen(name)),
                        nearest ? nearest : "startTime");
    return false;
}

/* ---- session ls ---- */

static struct subscription *start_watch(struct request *r, const struct session_filter *f)
{
    struct subscription *s = control_subscribe(r, SUBSCRIPTION_SESSIONS);

    if (s)
        s->sessions = *f;
    return s;
}

static void list_history(struct request *r, const struct session_filter *f, uint64_t limit)
{
    struct history *h = calloc(1, sizeof(*h));

    if (!h) {
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    h->filter = *f;
    h->left = limit ? limit : HISTORY_LIMIT;
    if (args_flag(&r->parsed.args, "watch")) {
        h->subscription = start_watch(r, f);
        if (!h->subscription) {
            free(h);
            return;
        }
    }
    control_reply_stream(r, history_fill, h, free);
}

/* Everything that may be sorted; 0 or an error of the store. */
static int collect_history(struct control *c, const struct session_filter *f, struct listing *l)
{
    uint64_t before_id = 0;
    size_t seen = 0;
    struct listing page;

    do {
        int result = history_page(c, f, &before_id, &page);
        for (size_t i = 0; result == 0 && i < page.count; i++) {
            if (fits(f, &page.items[i]))
                listing_add(l, &page.items[i]);
        }
        free(page.items);
        if (result < 0)
            return result;
        seen += page.count;
    } while (page.count == CONTROL_PAGE_ROWS && seen < SORT_MAX && l->count < l->max);
    return 0;
}

static void list_array(struct request *r, const struct session_filter *f, struct order *order,
                       uint64_t limit)
{
    struct listing *l = calloc(1, sizeof(*l));
    int result = 0;

    if (!l) {
        control_reply_error(r, "failed", "out of memory");
        return;
    }
    l->filter = f;
    l->max = SORT_MAX;
    if (f->has_ended)
        result = collect_history(r->control, f, l);
    else
        tracker_each(r->control->tracker, collect_live, l);
    l->filter = NULL; /* f is the caller's */
    if (result < 0 || l->failed) {
        listing_free(l);
        control_reply_store(r, result < 0 ? result : ERR_MEMORY, "cannot list sessions");
        return;
    }
    if (order->column)
        qsort_r(l->items, l->count, sizeof(*l->items), compare, order);
    if (limit && l->count > limit)
        l->count = limit;
    if (args_flag(&r->parsed.args, "watch")) {
        struct subscription *s = start_watch(r, f);
        for (size_t i = 0; s && i < l->count; i++)
            control_shown_add(s, l->items[i].id);
        if (!s) {
            listing_free(l);
            return;
        }
    }
    control_reply_stream(r, listing_fill, l, listing_free);
}

void control_do_session_ls(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    uint64_t limit = args_get(args, "limit")->number;
    struct session_filter filter;
    struct order order;

    if (!order_from_args(r, &order))
        return;
    if (args_flag(args, "watch") && (limit || order.column)) {
        control_reply_error(r, "usage", "watch goes with neither limit nor sort");
        return;
    }
    if (!filter_from_args(r, &filter))
        control_reply_rows(r, json_array());
    else if (filter.has_ended && !order.column)
        list_history(r, &filter, limit);
    else
        list_array(r, &filter, &order, limit);
}

void control_session_changed(const struct session_info *info, bool is_end, void *arg)
{
    struct control *c = arg;
    struct control_client *client;

    TAILQ_FOREACH (client, &c->clients, link) {
        struct subscription *s;
        TAILQ_FOREACH (s, &client->subscriptions, link) {
            bool does_fit = s->kind == SUBSCRIPTION_SESSIONS && fits(&s->sessions, info) &&
                            may_see(&client->caller, info) && (!is_end || s->sessions.has_ended);
            bool was_shown = s->kind == SUBSCRIPTION_SESSIONS && !(does_fit && !is_end) &&
                             control_shown_remove(s, info->id);
            if (does_fit && !is_end)
                control_shown_add(s, info->id);
            if (does_fit || was_shown)
                control_publish(s, json_pack("{s:s, s:o}", "type", does_fit ? "change" : "gone",
                                             "session", control_session_json(info)));
        }
    }
}

/* ---- session show, stats ---- */

void control_do_session_show(struct request *r)
{
    uint64_t id = args_get(&r->parsed.args, "id")->number;
    struct session_info info;
    int result = tracker_get(r->control->tracker, id, &info);
    struct failure f;
    json_t *data, *recordings;

    if (result == 0 && !may_see(&r->caller, &info))
        result = ERR_NOT_FOUND;
    if (result == ERR_NOT_FOUND) {
        control_reply_error(r, "not_found", "no session %llu; see session ls --all",
                            (unsigned long long)id);
        return;
    }
    if (result < 0) {
        control_reply_store(r, result, "session %llu", (unsigned long long)id);
        return;
    }
    data = control_session_json(&info);
    result = control_activity_put(r, id, data);
    if (result < 0) {
        json_decref(data);
        control_reply_store(r, result, "session %llu", (unsigned long long)id);
        return;
    }
    if (r->caller.access >= ACCESS_AUDIT) {
        recordings = control_recordings_json(r, id, 1000, &f);
        if (recordings)
            json_object_set_new(data, "recordings", recordings);
    }
    control_reply_data(r, data);
}

struct counts {
    const struct caller *caller;
    uint64_t by_state[SESSION_STATE_COUNT];
    uint64_t by_type[PROTOCOL_COUNT];
    uint64_t duration_s;
    json_t *users; /* a set of names */
};

static bool count_live(const struct session_info *s, void *arg)
{
    struct counts *counts = arg;

    if (!may_see(counts->caller, s))
        return true;
    counts->by_state[s->state]++;
    counts->by_type[s->protocol]++;
    counts->duration_s += s->duration_s;
    json_object_set_new(counts->users, s->user, json_true());
    return true;
}

static int64_t local_midnight_us(void)
{
    time_t now = (time_t)(clock_wall_us() / 1000000);
    struct tm tm;

    if (!localtime_r(&now, &tm))
        return 0;
    tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
    tm.tm_isdst = -1;
    return (int64_t)mktime(&tm) * 1000000;
}

/* One user's, for those who see no others: the store counts all users' only. */
static int count_own_ended(struct request *r, int64_t since_us, uint64_t *count)
{
    struct session_filter f = {.protocol = -1, .state = -1, .has_ended = true};
    uint64_t before_id = 0;
    struct listing page;
    size_t seen = 0;

    text_copy(f.user, sizeof(f.user), r->caller.user);
    *count = 0;
    do {
        int result = history_page(r->control, &f, &before_id, &page);
        for (size_t i = 0; result == 0 && i < page.count; i++)
            *count += page.items[i].state == SESSION_DISCONNECTED &&
                      page.items[i].ended_wall_us >= since_us;
        free(page.items);
        if (result < 0)
            return result;
        seen += page.count;
    } while (page.count == CONTROL_PAGE_ROWS && seen < COUNT_MAX);
    return 0;
}

static json_t *stats_json(const struct counts *counts, uint64_t ended_today)
{
    char duration[DURATION_TEXT_MAX];
    json_t *by_type = json_object();

    for (int p = 0; p < PROTOCOL_COUNT; p++)
        json_object_set_new(by_type, protocol_name((enum protocol)p),
                            json_integer((json_int_t)counts->by_type[p]));
    return json_pack("{s:I, s:I, s:I, s:I, s:s, s:I, s:I, s:o}", "active",
                     (json_int_t)counts->by_state[SESSION_ACTIVE], "idle",
                     (json_int_t)counts->by_state[SESSION_IDLE], "connecting",
                     (json_int_t)counts->by_state[SESSION_CONNECTING], "disconnectedToday",
                     (json_int_t)ended_today, "totalDuration",
                     text_duration(duration, sizeof(duration), counts->duration_s),
                     "totalDurationSeconds", (json_int_t)counts->duration_s, "users",
                     (json_int_t)json_object_size(counts->users), "byType", by_type);
}

void control_do_session_stats(struct request *r)
{
    struct counts counts = {.caller = &r->caller, .users = json_object()};
    uint64_t ended = 0;
    int result = r->caller.access >= ACCESS_AUDIT
                     ? store_ended_since(r->control->store, local_midnight_us(), &ended)
                     : count_own_ended(r, local_midnight_us(), &ended);

    tracker_each(r->control->tracker, count_live, &counts);
    if (result < 0)
        control_reply_store(r, result, "cannot count today's sessions");
    else
        control_reply_data(r, stats_json(&counts, ended));
    json_decref(counts.users);
}

/* ---- session end, message ---- */

static json_t *result_row(uint64_t id, const struct session_info *s, const char *result,
                          const char *text)
{
    return json_pack("{s:o, s:o, s:o, s:s, s:s}", "id", control_json_id(id), "user",
                     s ? control_json_text(s->user) : json_null(), "resourceName",
                     s ? control_json_text(s->target) : json_null(), "result", result, "text",
                     text);
}

/* True when nobody above the caller announced an end; otherwise a row says so. */
static bool may_replan(struct request *r, const struct session_info *s, json_t *rows)
{
    char text[SESSION_TEXT_MAX];

    if (r->caller.access >= ACCESS_ADMIN || !s->planned_wall_us ||
        s->planned_reason == END_SELF_ENDED)
        return true;
    snprintf(text, sizeof(text), "%s announced its end", s->planned_by);
    json_array_append_new(rows, result_row(s->id, s, "forbidden", text));
    return false;
}

static void end_one(struct request *r, const struct session_info *s, json_t *rows)
{
    const struct arg_values *args = &r->parsed.args;
    uint32_t in_s = (uint32_t)args_get(args, "in")->number;
    const char *text = args_text(args, "reason");
    bool is_admin = r->caller.access >= ACCESS_ADMIN;
    int result;

    text = text ? text : "";
    if (in_s && !may_replan(r, s, rows))
        return;
    if (args_flag(args, "dry_run")) {
        json_array_append_new(rows, result_row(s->id, s, "would-end", ""));
        return;
    }
    result = tracker_end(r->control->tracker, s->id, is_admin ? END_ADMIN_ENDED : END_SELF_ENDED,
                         r->caller.author, text, in_s);
    if (result < 0) {
        json_array_append_new(rows, result_row(s->id, s,
                                               result == ERR_NOT_FOUND ? "already-ended" : "failed",
                                               result == ERR_NOT_FOUND ? "" : error_text(result)));
        return;
    }
    control_event(r, "session-end-asked", s->user, s->id, "%s", text);
    json_array_append_new(rows, result_row(s->id, s, in_s ? "scheduled" : "ended", ""));
}

static void cancel_one(struct request *r, const struct session_info *s, json_t *rows)
{
    bool is_dry = args_flag(&r->parsed.args, "dry_run");

    if (!may_replan(r, s, rows))
        return;
    if (is_dry ? !s->planned_wall_us : tracker_cancel_end(r->control->tracker, s->id) < 0) {
        json_array_append_new(rows, result_row(s->id, s, "not-announced", ""));
        return;
    }
    if (!is_dry)
        control_event(r, "session-end-cancelled", s->user, s->id, "%s", "");
    json_array_append_new(rows, result_row(s->id, s, is_dry ? "would-cancel" : "cancelled", ""));
}

static void message_one(struct request *r, const struct session_info *s, json_t *rows)
{
    const char *text = args_text(&r->parsed.args, "text");
    int result = tracker_message(r->control->tracker, s->id, r->caller.author, text);

    if (result < 0) {
        json_array_append_new(rows, result_row(s->id, s,
                                               result == ERR_NOT_FOUND ? "already-ended" : "failed",
                                               result == ERR_NOT_FOUND ? "" : error_text(result)));
        return;
    }
    control_event(r, "session-message", s->user, s->id, "%s", text);
    json_array_append_new(rows, result_row(s->id, s, "sent", ""));
}

typedef void (*act_fn)(struct request *r, const struct session_info *s, json_t *rows);

static void act_on_id(struct request *r, uint64_t id, act_fn act, json_t *rows)
{
    struct session_info info;
    int result = tracker_get(r->control->tracker, id, &info);

    if (result < 0 || !may_see(&r->caller, &info))
        json_array_append_new(
            rows,
            result_row(id, NULL, result < 0 && result != ERR_NOT_FOUND ? "failed" : "not-found",
                       result < 0 && result != ERR_NOT_FOUND ? error_text(result) : ""));
    else if (!may_end(&r->caller, &info))
        json_array_append_new(rows, result_row(id, &info, "forbidden", "not your session"));
    else if (info.state == SESSION_DISCONNECTED)
        json_array_append_new(rows, result_row(id, &info, "already-ended", ""));
    else
        act(r, &info, rows);
}

static void act_on_ids(struct request *r, json_t *ids, act_fn act, json_t *rows)
{
    json_t *item, *seen;
    size_t i;
    uint64_t id = 0;

    if (!json_is_array(ids)) {
        if (arg_id(ids, &id))
            act_on_id(r, id, act, rows);
        return;
    }
    seen = json_object();
    json_array_foreach(ids, i, item)
    {
        char key[24];
        if (!arg_id(item, &id))
            continue;
        snprintf(key, sizeof(key), "%llu", (unsigned long long)id);
        if (json_object_get(seen, key))
            continue; /* once is enough, and leaves one event */
        json_object_set_new(seen, key, json_true());
        act_on_id(r, id, act, rows);
    }
    json_decref(seen);
}

/* Copied first: ending a session changes the tracker's list. */
static bool act_on_live(struct request *r, const struct session_filter *f, act_fn act, json_t *rows)
{
    struct listing l = {.max = SIZE_MAX, .filter = f};

    tracker_each(r->control->tracker, collect_live, &l);
    for (size_t i = 0; i < l.count; i++) {
        if (may_end(&r->caller, &l.items[i]))
            act(r, &l.items[i], rows);
    }
    free(l.items);
    return !l.failed;
}

void control_do_session_end(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    struct session_filter f = {.protocol = -1, .state = -1};
    json_t *rows;
    int ways = args_get(args, "ids")->is_set + args_get(args, "user")->is_set +
               args_get(args, "target")->is_set + args_flag(args, "all");
    act_fn act;

    if (ways != 1) {
        control_reply_error(r, "usage", "say which: exactly one of ids, user, target and all");
        return;
    }
    if (args_flag(args, "cancel") &&
        (args_get(args, "in")->is_set || args_get(args, "reason")->is_set)) {
        control_reply_error(r, "usage", "cancel goes with neither in nor reason");
        return;
    }
    act = args_flag(args, "cancel") ? cancel_one : end_one;
    rows = json_array();
    copy_arg(f.user, sizeof(f.user), r, "user");
    copy_arg(f.target, sizeof(f.target), r, "target");
    if (args_get(args, "ids")->is_set)
        act_on_ids(r, args_get(args, "ids")->json, act, rows);
    else if (!act_on_live(r, &f, act, rows)) {
        json_decref(rows);
        rows = NULL; /* no memory */
    }
    control_reply_rows(r, rows);
}

void control_do_session_message(struct request *r)
{
    const struct arg_values *args = &r->parsed.args;
    struct session_filter f = {.protocol = -1, .state = -1};
    json_t *rows;

    if (args_get(args, "ids")->is_set == args_flag(args, "all")) {
        control_reply_error(r, "usage", "say which: exactly one of ids and all");
        return;
    }
    rows = json_array();
    if (args_get(args, "ids")->is_set)
        act_on_ids(r, args_get(args, "ids")->json, message_one, rows);
    else if (!act_on_live(r, &f, message_one, rows)) {
        json_decref(rows);
        rows = NULL;
    }
    control_reply_rows(r, rows);
}
