/*
 * Rows and objects of the daemon as tables, JSON, JSON lines or CSV, from one list of columns.
 * JSON is the daemon's objects as they are; tables (libsmartcols) and CSV go by the columns. All
 * text in tables is escaped: it came from outside. Times are local in tables, ISO 8601 UTC in CSV
 * and JSON.
 */
#ifndef CONTROL_CLI_OUTPUT_H
#define CONTROL_CLI_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include <jansson.h>

#include "control/cli/cli.h"

enum column_kind {
    COLUMN_TEXT,
    COLUMN_NUMBER,
    COLUMN_TIME,    /* ISO text */
    COLUMN_SECONDS, /* number, shown as a duration text */
    COLUMN_BYTES,   /* number, shown with a unit */
    COLUMN_BOOL,    /* yes or nothing */
    COLUMN_LIST,    /* array of texts */
    COLUMN_POLICY   /* object of keys and values */
};

#define COLUMN_WIDE    1U  /* only with -o wide (and in CSV, and for one object) */
#define COLUMN_HISTORY 2U  /* only when ended sessions are listed too (and as above) */
#define COLUMN_TRUNC   4U  /* may be cut, with an ellipsis, when the terminal is narrow */
#define COLUMN_DETAIL  8U  /* only in CSV and for one object */
#define COLUMN_SPARE1  16U /* left out when the terminal is narrow: these first, then the next */
#define COLUMN_SPARE2  32U
#define COLUMN_SPARE3  64U
#define COLUMN_RARE    128U /* only when a row has a value for it */

struct column {
    const char *head; /* in tables; also what --sort takes */
    const char *key;  /* of the object; the header in CSV, and what --sort takes too */
    enum column_kind kind;
    unsigned flags;
};

struct columns {
    const char *what;          /* "sessions", for "No sessions." */
    const char *id;            /* the key that -q prints */
    const struct column *list; /* ends with a NULL head */
};

/* Print a list. Sorts and cuts (--sort, --limit) unless is_sorted says that the daemon did. rows is
 * borrowed but may be reordered. Returns an exit code. */
int output_rows(struct cli *cli, const struct columns *columns, json_t *rows, bool with_history,
                bool is_sorted);
/* One object: a line for each column that has a value, or JSON. */
int output_object(struct cli *cli, const struct columns *columns, const json_t *object);
/* Rows as a table of text on `stream`, whatever -o says (for talk, and inside other output). */
void output_table(struct cli *cli, FILE *stream, const struct columns *columns, const json_t *rows,
                  bool with_history);

/* One object or row as JSON (-o json: indented; -o jsonl: a line). */
void output_json(const struct cli *cli, const json_t *value);

/* The text of a cell of a table, in a new string (NULL: no memory), escaped. */
char *output_cell(const struct column *column, const json_t *row, bool is_short);
/* The raw text of a cell in CSV, unquoted. */
char *output_raw(const struct column *column, const json_t *row);

/* A CSV field: quoted as RFC 4180 says; one that a spreadsheet would take for a formula (it begins
 * with = + - @, a tab or a carriage return, and is no number) gets an apostrophe in front. */
void output_csv_field(FILE *out, const char *text);

/* Sort rows by a column named by head or key; '-' in front reverses. False: no such column (told).
 */
MUST_CHECK bool output_sort(const struct cli *cli, const struct columns *columns, json_t *rows,
                            const char *by);
/* The column named by its head or key, case ignored; NULL when there is none. */
const struct column *output_find(const struct columns *columns, const char *name, size_t len);

/* Width on a screen, in cells. */
size_t output_width(const char *text);

extern const struct columns session_columns, step_columns;
extern const struct columns user_columns, key_columns, role_columns, target_columns, grant_columns;
extern const struct columns event_columns, recording_columns, status_columns, stats_columns;
extern const struct columns command_columns, file_columns, totp_columns, source_columns;
extern const struct columns result_columns, change_columns, reach_columns;

#endif
