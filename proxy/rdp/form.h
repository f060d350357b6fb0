/*
 * The login screen as a model: pages with fields, a list, buttons and a line for what is wrong
 * (form.c), where things stand on a screen of any size, and pixels (form_draw.c). Pure: input in,
 * rectangles to be drawn anew out. proxy/rdp/screen.c connects it to a client and to the broker.
 */
#ifndef RDP_FORM_H
#define RDP_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>
#include <sallyport/secret.h>

#include "proxy/rdp/draw.h"

#define FORM_FIELD_MAX 256 /* characters */
#define FORM_ROWS_MAX  1000
#define FORM_TEXT_MAX  9600 /* a banner and an instruction of the broker's */
#define FORM_DIRTY_MAX 8
#define FORM_PARTS_MAX 5

enum form_page {
    FORM_LOGIN,    /* user, password */
    FORM_QUESTION, /* one field */
    FORM_TARGETS   /* a filter, a list */
};

/* What can be typed into or clicked at. */
enum form_part {
    FORM_PART_NONE,
    FORM_PART_FIELD,  /* the user, the answer, the filter */
    FORM_PART_SECOND, /* the password */
    FORM_PART_LIST,
    FORM_PART_OK,
    FORM_PART_CANCEL,
    FORM_PART_KEYBOARD /* which layout is in use; by mouse only */
};

enum form_key {
    FORM_KEY_NONE,
    FORM_KEY_TAB,
    FORM_KEY_ENTER,
    FORM_KEY_ESCAPE,
    FORM_KEY_UP,
    FORM_KEY_DOWN,
    FORM_KEY_LEFT,
    FORM_KEY_RIGHT,
    FORM_KEY_HOME,
    FORM_KEY_END,
    FORM_KEY_PAGE_UP,
    FORM_KEY_PAGE_DOWN,
    FORM_KEY_BACKSPACE,
    FORM_KEY_DELETE
};

enum form_input_kind { FORM_CHAR, FORM_KEY, FORM_PRESS, FORM_RELEASE, FORM_WHEEL };

struct form_input {
    enum form_input_kind kind;
    enum form_key key;
    bool is_shift;
    uint32_t character;
    int x, y;       /* of PRESS, RELEASE */
    int rows;       /* of WHEEL: down is positive */
    int64_t now_ms; /* of PRESS: two soon after each other at one row choose it */
};

enum form_action { FORM_NOTHING, FORM_SUBMIT, FORM_CANCEL, FORM_TOGGLE_KEYBOARD };

struct rect {
    int x, y, width, height;
};

struct form_field {
    uint32_t text[FORM_FIELD_MAX]; /* code points */
    size_t len, caret;
    bool is_secret; /* shown as dots */
};

struct form {
    enum form_page page;
    int width, height; /* of the screen */
    int size;          /* of the font */
    char title[160];
    char text[FORM_TEXT_MAX]; /* above the fields; lines of block characters are pictures */
    char label[2][600];
    /* form_measure(): of the text its font, a line of its picture, its height */
    int text_size, cell, text_height, label_lines[2];
    char ok[32], cancel[32];
    char keyboard[16]; /* "" not shown */
    char status[SESSION_TEXT_MAX * 2];
    bool is_error; /* the status is what went wrong */
    bool is_busy;  /* waits for an answer: only Cancel does something */
    bool is_caps;
    struct form_field fields[2];
    enum form_part focus;
    enum form_part pressed; /* a button that the mouse holds */
    /* of FORM_TARGETS */
    struct link_target_row *rows; /* owned; last used first */
    size_t count, total;
    uint16_t *shown; /* owned: indexes of the rows that match */
    size_t shown_count, selected, top;
    bool is_loaded;
    size_t clicked; /* the row of the last click */
    int64_t clicked_ms;
    struct rect dirty[FORM_DIRTY_MAX];
    size_t dirty_count;
};

/* Zeroes and a size; nothing is drawn yet. The form holds secrets: form_finish() wipes it. */
void form_init(struct form *f, uint16_t width, uint16_t height);
void form_finish(struct form *f);

/* Begin a page, with empty fields. Everything is drawn anew. */
void form_open(struct form *f, enum form_page page, const char *title, const char *text);
void form_set_label(struct form *f, unsigned field, const char *text, bool is_secret);
void form_set_field(struct form *f, unsigned field, const char *utf8);
void form_set_status(struct form *f, const char *text, bool is_error, bool is_busy);
void form_set_caps(struct form *f, bool is_caps);
void form_set_keyboard(struct form *f, const char *name);
void form_focus(struct form *f, enum form_part part);

/* What was typed, as UTF-8; false and "" when it does not fit. */
MUST_CHECK bool form_field_text(const struct form_field *field, char *dst, size_t cap);
void form_clear_field(struct form *f, unsigned field);

/* Rows of the list, as they come; false when out of memory. */
MUST_CHECK bool form_add_rows(struct form *f, const struct link_target_row *rows, size_t count,
                              size_t total);
bool form_rows_are_complete(const struct form *f);
void form_forget_rows(struct form *f);
const struct link_target_row *form_selected(const struct form *f); /* NULL: none */

enum form_action form_input(struct form *f, const struct form_input *in);

/* The next rectangle to be drawn anew, inside the screen; false when there is none. */
bool form_take_dirty(struct form *f, struct rect *out);
void form_mark(struct form *f, const struct rect *r);

/* ---- form_draw.c ---- */

/* Where things stand; widths of 0 for what is not there. */
struct form_layout {
    int line; /* its height */
    struct rect panel, text, label[2], field[2], list, status, ok, cancel, keyboard;
    int row;     /* height of a row of the list */
    size_t rows; /* that are seen */
};

/* After title, text or a label: how many lines they take, and in which size. */
void form_measure(struct form *f);
void form_layout(const struct form *f, struct form_layout *out);
/* The caret for a click at x into a field. */
size_t form_caret_at(const struct form *f, const struct form_layout *l, unsigned field, int x);
/* Draw what the picture shows, whose left upper corner is at x, y of the screen. */
void form_paint(const struct form *f, struct picture *tile, int x, int y);
/* The ground behind everything, alone. */
void form_paint_ground(struct picture *tile);

#endif
