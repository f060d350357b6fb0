/*
 * The checker of arguments: one function a kind, found by the kind's number. It bounds everything a
 * caller may send before a handler sees it. It knows no command and touches nothing but its input;
 * request.c and apply.c call it.
 */
#include "control/args.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

/* What a value looks like, for messages. */
#define QUOTE_LEN 96

void failure_set(struct failure *f, const char *code, const char *fmt, ...)
{
    va_list args;

    f->code = code;
    va_start(args, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, args);
    va_end(args);
}

const char *arg_kind_name(enum arg_kind kind)
{
    static const char *const names[] = {
#define X(id, name) [id] = name,
        ARG_KINDS(X)
#undef X
    };
    return names[kind];
}

bool arg_is_plain(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            return false;
        if (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f) /* C1, which some terminals obey */
            return false;
    }
    return true;
}

bool arg_id(const json_t *json, uint64_t *id)
{
    if (json_is_integer(json)) {
        json_int_t n = json_integer_value(json);
        *id = n > 0 ? (uint64_t)n : 0;
        return n > 0;
    }
    return json_is_string(json) && text_parse_u64(json_string_value(json), id) && *id > 0;
}

/* Two digits (or four) of a date; moves on. */
static bool take_digits(const char **at, size_t count, int *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        *out = *out * 10 + ((*at)[i] - '0');
    }
    *at += count;
    return true;
}

static bool take_char(const char **at, const char *any)
{
    if (!**at || !strchr(any, **at))
        return false;
    (*at)++;
    return true;
}

static int64_t take_fraction_us(const char **at)
{
    int64_t us = 0, unit = 100000;

    for (; **at >= '0' && **at <= '9'; (*at)++, unit /= 10)
        us += (**at - '0') * unit;
    return us;
}

/* Z, or +HH:MM in seconds east. */
static bool take_zone(const char **at, int *offset_s)
{
    int hours, minutes, sign = **at == '-' ? -1 : 1;

    *offset_s = 0;
    if (take_char(at, "Zz"))
        return true;
    if (!take_char(at, "+-") || !take_digits(at, 2, &hours))
        return false;
    take_char(at, ":");
    if (!take_digits(at, 2, &minutes) || hours > 14 || minutes > 59)
        return false;
    *offset_s = sign * (hours * 3600 + minutes * 60);
    return true;
}

static bool parse_iso(const char *text, int64_t *time_us)
{
    struct tm tm = {0}, check;
    const char *at = text;
    int year, month, offset_s;
    int64_t fraction = 0;
    time_t seconds;

    if (!take_digits(&at, 4, &year) || !take_char(&at, "-") || !take_digits(&at, 2, &month) ||
        !take_char(&at, "-") || !take_digits(&at, 2, &tm.tm_mday) || !take_char(&at, "Tt ") ||
        !take_digits(&at, 2, &tm.tm_hour) || !take_char(&at, ":") ||
        !take_digits(&at, 2, &tm.tm_min))
        return false;
    if (take_char(&at, ":")) {
        if (!take_digits(&at, 2, &tm.tm_sec))
            return false;
        if (take_char(&at, ".,"))
            fraction = take_fraction_us(&at);
    }
    if (!take_zone(&at, &offset_s) || *at)
        return false;
    if (year < 1970 || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 59)
        return false;
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    check = tm;
    seconds = timegm(&check);
    if (check.tm_mon != tm.tm_mon || check.tm_mday != tm.tm_mday) /* 31 February */
        return false;
    *time_us = ((int64_t)seconds - offset_s) * 1000000 + fraction;
    return true;
}

bool arg_parse_time(const char *text, int64_t now_us, int64_t *time_us)
{
    uint64_t age_s;

    if (parse_iso(text, time_us))
        return true;
    if (!text_parse_duration(text, &age_s) || age_s > (uint64_t)now_us / 1000000)
        return false;
    *time_us = now_us - (int64_t)age_s * 1000000;
    return true;
}

/* A policy value as the text that policy_overlay_set() reads; false when it can be none. */
static bool policy_value(const json_t *value, char *dst, size_t dst_len)
{
    if (json_is_null(value))
        return text_copy(dst, dst_len, "");
    if (json_is_boolean(value))
        return text_copy(dst, dst_len, json_is_true(value) ? "yes" : "no");
    if (json_is_integer(value))
        return snprintf(dst, dst_len, "%" JSON_INTEGER_FORMAT, json_integer_value(value)) > 0;
    return json_is_string(value) && text_copy(dst, dst_len, json_string_value(value));
}

int arg_policy_merge(struct policy_overlay *o, json_t *object, char *err, size_t err_len)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        char text[POLICY_TEXT_MAX], assignment[POLICY_TEXT_MAX + 96], quoted[QUOTE_LEN];
        int n;

        text_escape(quoted, sizeof(quoted), key, strlen(key));
        if (strchr(key, '=') || !policy_value(value, text, sizeof(text))) {
            snprintf(err, err_len, "%s: give a short text, a number, true, false or null", quoted);
            return ERR_INVALID;
        }
        n = snprintf(assignment, sizeof(assignment), "%s=%s", key, text);
        if (n < 0 || (size_t)n >= sizeof(assignment)) {
            snprintf(err, err_len, "no policy key %s", quoted);
            return ERR_INVALID;
        }
        if (policy_overlay_set(o, assignment, err, err_len) < 0)
            return ERR_INVALID;
    }
    return 0;
}

/* ---- one checker a kind: fills *v, or says in `why` what to give instead ---- */

typedef bool (*check_fn)(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                         size_t why_len);

static bool want(char *why, size_t why_len, const char *text)
{
    text_copy(why, why_len, text);
    return false;
}

static bool check_name(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                       size_t why_len)
{
    v->text = json_string_value(json);
    if (v->text && row->kind == ARG_NAME_OR_ANY && !strcmp(v->text, "*"))
        return true;
    if (v->text && text_is_name(v->text + (row->kind == ARG_SUBJECT && v->text[0] == '@')))
        return true;
    return want(why, why_len,
                row->kind == ARG_SUBJECT
                    ? "a user's name, or @ and a role's name, made of A-Z a-z 0-9 . _ -"
                : row->kind == ARG_NAME_OR_ANY
                    ? "a name made of A-Z a-z 0-9 . _ - (64 bytes at most), or *"
                    : "a name made of A-Z a-z 0-9 . _ - (64 bytes at most)");
}

static bool check_account(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                          size_t why_len)
{
    (void)row;
    v->text = json_string_value(json);
    if (v->text && (!v->text[0] || text_is_account(v->text)))
        return true;
    return want(why, why_len, "an account of at most 128 bytes without + and control characters");
}

static bool check_text(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                       size_t why_len)
{
    size_t len = json_string_length(json);

    v->text = json_string_value(json);
    if (v->text && len >= row->min && len <= row->max &&
        (row->kind == ARG_SECRET || arg_is_plain(v->text)))
        return true;
    snprintf(why, why_len, "a text of %llu to %llu bytes%s", (unsigned long long)row->min,
             (unsigned long long)row->max,
             row->kind == ARG_SECRET ? "" : " without control characters");
    return false;
}

static bool check_choice(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                         size_t why_len)
{
    const char *at = row->choices;

    v->text = json_string_value(json);
    while (v->text && *at) {
        size_t len = strcspn(at, "|");
        if (strlen(v->text) == len && !memcmp(at, v->text, len))
            return true;
        v->number++;
        at += len + (at[len] == '|');
    }
    snprintf(why, why_len, "one of %s", row->choices);
    return false;
}

static bool check_bool(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                       size_t why_len)
{
    (void)row;
    v->flag = json_is_true(json);
    return json_is_boolean(json) || want(why, why_len, "true or false");
}

static bool check_number(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                         size_t why_len)
{
    bool is_number = false;

    if (json_is_integer(json) && json_integer_value(json) >= 0) {
        v->number = (uint64_t)json_integer_value(json);
        is_number = true;
    } else if (json_is_string(json)) {
        is_number = text_parse_u64(json_string_value(json), &v->number);
    }
    if (is_number && v->number >= row->min && v->number <= row->max)
        return true;
    snprintf(why, why_len, "a number from %llu to %llu", (unsigned long long)row->min,
             (unsigned long long)row->max);
    return false;
}

static bool check_id(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                     size_t why_len)
{
    (void)row;
    return arg_id(json, &v->number) || want(why, why_len, "an id, a number above 0");
}

static bool check_ids(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                      size_t why_len)
{
    size_t i;
    json_t *item;
    uint64_t id;

    (void)row;
    v->json = json;
    if (!json_is_array(json))
        return arg_id(json, &id) || want(why, why_len, "an id or an array of ids");
    if (!json_array_size(json) || json_array_size(json) > ARG_IDS_MAX)
        return want(why, why_len, "1 to 10000 ids");
    json_array_foreach(json, i, item)
    {
        if (!arg_id(item, &id))
            return want(why, why_len, "ids, numbers above 0");
    }
    return true;
}

static bool check_duration(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                           size_t why_len)
{
    char max[DURATION_TEXT_MAX];
    bool is_duration = false;

    if (json_is_integer(json) && json_integer_value(json) >= 0) {
        v->number = (uint64_t)json_integer_value(json);
        is_duration = true;
    } else if (json_is_string(json)) {
        is_duration = text_parse_duration(json_string_value(json), &v->number);
    }
    if (is_duration && v->number >= row->min && v->number <= row->max)
        return true;
    snprintf(why, why_len, "a duration such as 30s, 10m or 1h30m, at most %s",
             text_duration(max, sizeof(max), row->max));
    return false;
}

static bool check_time(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                       size_t why_len)
{
    (void)row;
    if (json_is_integer(json) && json_integer_value(json) >= 0 &&
        json_integer_value(json) < INT64_MAX / 1000000) {
        v->time_us = json_integer_value(json) * 1000000;
        return true;
    }
    if (json_is_string(json) &&
        arg_parse_time(json_string_value(json), clock_wall_us(), &v->time_us))
        return true;
    return want(why, why_len, "a time such as 2026-11-22T05:31:07Z, or an age such as 2h");
}

static bool check_policy(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                         size_t why_len)
{
    struct policy_overlay scratch = {0};

    (void)row;
    v->json = json;
    if (!json_is_object(json))
        return want(why, why_len, "an object of policy keys");
    return arg_policy_merge(&scratch, json, why, why_len) == 0;
}

static bool check_object(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                         size_t why_len)
{
    (void)row;
    v->json = json;
    return json_is_object(json) || want(why, why_len, "an object");
}

static bool check_texts(const struct argument *row, json_t *json, struct arg_value *v, char *why,
                        size_t why_len)
{
    size_t i;
    json_t *item;

    v->json = json;
    if (!json_is_array(json) || json_array_size(json) > 1000)
        return want(why, why_len, "an array of at most 1000 texts");
    json_array_foreach(json, i, item)
    {
        struct arg_value one;
        if (!check_text(row, item, &one, why, why_len))
            return false;
    }
    return true;
}

static const check_fn checks[] = {
    [ARG_NAME] = check_name,       [ARG_NAME_OR_ANY] = check_name, [ARG_SUBJECT] = check_name,
    [ARG_ACCOUNT] = check_account, [ARG_TEXT] = check_text,        [ARG_SECRET] = check_text,
    [ARG_CHOICE] = check_choice,   [ARG_BOOL] = check_bool,        [ARG_NUMBER] = check_number,
    [ARG_ID] = check_id,           [ARG_IDS] = check_ids,          [ARG_DURATION] = check_duration,
    [ARG_TIME] = check_time,       [ARG_POLICY] = check_policy,    [ARG_OBJECT] = check_object,
    [ARG_TEXTS] = check_texts,
};

static int row_index(const struct argument *rows, const char *name)
{
    for (int i = 0; rows[i].name; i++) {
        assert(i < ARGS_MAX);
        if (!strcmp(rows[i].name, name))
            return i;
    }
    return -1;
}

static int unknown_argument(const struct argument *rows, const char *name, struct failure *f)
{
    const char *names[ARGS_MAX] = {0}, *nearest;
    char quoted[QUOTE_LEN];
    size_t count = 0;

    for (; rows[count].name; count++)
        names[count] = rows[count].name;
    nearest = text_nearest(name, names, count);
    text_escape(quoted, sizeof(quoted), name, strlen(name));
    failure_set(f, "invalid", "no argument \"%s\"%s%s%s", quoted, nearest ? "; did you mean " : "",
                nearest ? nearest : "", nearest ? "?" : "");
    return ERR_INVALID;
}

static int check_one(const struct argument *row, json_t *json, struct arg_value *v,
                     struct failure *f)
{
    char why[320] = "";

    if (json_is_null(json)) {
        v->is_null = v->is_set = row->takes_null;
        return 0;
    }
    if (!checks[row->kind](row, json, v, why, sizeof(why))) {
        failure_set(f, "invalid", row->kind == ARG_POLICY ? "%s: %s" : "%s: give %s", row->name,
                    why);
        return ERR_INVALID;
    }
    v->is_set = true;
    return 0;
}

int args_check(const struct argument *rows, json_t *object, struct arg_values *out,
               struct failure *f)
{
    const char *key;
    json_t *value;

    *out = (struct arg_values){.rows = rows};
    json_object_foreach(object, key, value)
    {
        int i = row_index(rows, key);
        if (i < 0)
            return unknown_argument(rows, key, f);
        if (check_one(&rows[i], value, &out->values[i], f) < 0)
            return ERR_INVALID;
    }
    for (int i = 0; rows[i].name; i++) {
        if (rows[i].is_required && !out->values[i].is_set) {
            failure_set(f, "usage", "%s is missing: %s", rows[i].name, rows[i].help);
            return ERR_INVALID;
        }
    }
    return 0;
}

const struct arg_value *args_get(const struct arg_values *values, const char *name)
{
    int i = row_index(values->rows, name);

    assert(i >= 0); /* a handler that asks for what its row does not have */
    return &values->values[i];
}

const char *args_text(const struct arg_values *values, const char *name)
{
    const struct arg_value *v = args_get(values, name);

    return v->is_set && !v->is_null ? v->text : NULL;
}

bool args_flag(const struct arg_values *values, const char *name)
{
    return args_get(values, name)->flag;
}
