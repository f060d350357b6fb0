/*
 * Argument rows of commands, and the one checker that reads a JSON object by them. Pure: JSON in,
 * values or a sentence out. Handlers never look at the object itself, so what reaches them has a
 * kind and a bound.
 */
#ifndef CONTROL_ARGS_H
#define CONTROL_ARGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <sallyport/errors.h>
#include <sallyport/policy.h>

#define ARGS_MAX    16
#define ARG_IDS_MAX 10000

/* id, name in `help` */
#define ARG_KINDS(X)                                                                   \
    X(ARG_NAME, "name")         /* text_is_name */                                     \
    X(ARG_NAME_OR_ANY, "name")  /* the same, or "*" */                                 \
    X(ARG_SUBJECT, "subject")   /* a name, or "@" and a name */                        \
    X(ARG_ACCOUNT, "account")   /* text_is_account, or "" */                           \
    X(ARG_TEXT, "text")         /* UTF-8 without control characters, min..max bytes */ \
    X(ARG_SECRET, "secret")     /* any text, min..max bytes */                         \
    X(ARG_CHOICE, "choice")     /* one of `choices`, "a|b" */                          \
    X(ARG_BOOL, "bool")         /* */                                                  \
    X(ARG_NUMBER, "number")     /* min..max */                                         \
    X(ARG_ID, "id")             /* 1.. */                                              \
    X(ARG_IDS, "ids")           /* one id or an array of them */                       \
    X(ARG_DURATION, "duration") /* seconds, min..max */                                \
    X(ARG_TIME, "time")         /* microseconds since 1970 */                          \
    X(ARG_POLICY, "policy")     /* an object of policy keys, each checked */           \
    X(ARG_OBJECT, "object")     /* any object */                                       \
    X(ARG_TEXTS, "texts")       /* an array of texts, each min..max bytes */

enum arg_kind {
#define X(id, name) id,
    ARG_KINDS(X)
#undef X
};

struct argument {
    const char *name;
    enum arg_kind kind;
    bool is_required;
    bool takes_null;     /* null is a value ("none"); elsewhere null is as good as left out */
    uint64_t min, max;   /* as the kind says */
    const char *choices; /* ARG_CHOICE */
    const char *help;
};

struct arg_value {
    bool is_set;
    bool is_null;
    bool flag;        /* ARG_BOOL */
    uint64_t number;  /* ARG_NUMBER, ARG_ID, ARG_DURATION; ARG_CHOICE: its place */
    int64_t time_us;  /* ARG_TIME */
    const char *text; /* borrowed from the JSON */
    json_t *json;     /* borrowed; arrays and objects */
};

struct arg_values {
    const struct argument *rows;
    struct arg_value values[ARGS_MAX];
};

/* Why not: a code of PROTOCOL.md and a sentence. */
struct failure {
    const char *code; /* static */
    char text[512];
};

void failure_set(struct failure *f, const char *code, const char *fmt, ...) PRINTF_LIKE(3, 4);

/*
 * rows    ends with a row without a name; at most ARGS_MAX rows
 * object  borrowed, as long as the values are used; NULL is an empty one
 *
 * Returns 0 or ERR_INVALID with *f filled in.
 */
MUST_CHECK int args_check(const struct argument *rows, json_t *object, struct arg_values *out,
                          struct failure *f);

/* The value of a row, which must exist. */
const struct arg_value *args_get(const struct arg_values *values, const char *name);
/* Short forms: NULL or the text; false or the flag. */
const char *args_text(const struct arg_values *values, const char *name);
bool args_flag(const struct arg_values *values, const char *name);

const char *arg_kind_name(enum arg_kind kind);
/* One id of an ARG_IDS element: a decimal text or an integer, not 0. */
MUST_CHECK bool arg_id(const json_t *json, uint64_t *id);
/* ISO 8601 with Z or an offset, or an age. now_us: the wall clock. */
MUST_CHECK bool arg_parse_time(const char *text, int64_t now_us, int64_t *time_us);
/* Set what the object names in an overlay: ERR_INVALID with a sentence. */
MUST_CHECK int arg_policy_merge(struct policy_overlay *o, json_t *object, char *err,
                                size_t err_len);
/* True for UTF-8 (which jansson has checked) without C0, DEL and C1. */
bool arg_is_plain(const char *text);

#endif
