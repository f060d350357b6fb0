/*
 * The menu of targets, as a model: rows, filter, selection, keys (menu.c) and drawing
 * (menu_draw.c). Pure: bytes in, bytes out; proxy/ssh/choose.c connects it to a channel and to the
 * broker.
 */
#ifndef SSH_MENU_H
#define SSH_MENU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>

#define MENU_ROWS_MAX 1000
#define MENU_COLS_MIN 20
#define MENU_ROWS_MIN 6

/* MENU_ECHO: a terminal without cursor control shows what was typed, see menu_echo(). */
enum menu_action { MENU_NOTHING, MENU_DRAW, MENU_ECHO, MENU_CHOSEN, MENU_QUIT };

struct menu {
    struct link_target_row *rows; /* owned; last used first, then as they came */
    size_t count, total;          /* total: what the broker has */
    uint16_t *shown;              /* owned: indexes of the rows that match */
    size_t shown_count, selected; /* selected: position in shown */
    char user[NAME_MAX_LEN + 1];
    char filter[NAME_MAX_LEN + 1];      /* UTF-8; its last character may be on its way */
    char message[SESSION_TEXT_MAX * 4]; /* escaped */
    char echo[8];
    uint16_t cols, lines;
    bool is_dumb; /* no cursor control: a numbered list */
    bool is_loaded;
    uint8_t escape; /* of a key sequence: 0, 1 after ESC, 2 after ESC [ or ESC O, 3 digits */
    uint8_t parameter;
};

/* NULL: out of memory. */
struct menu *menu_create(const char *user, const char *term, uint16_t cols, uint16_t lines);
void menu_destroy(struct menu *m);
void menu_resize(struct menu *m, uint16_t cols, uint16_t lines);

/* Take rows as they come from the broker; false when out of memory. */
bool menu_add(struct menu *m, const struct link_target_row *rows, size_t count, size_t total);
bool menu_is_complete(const struct menu *m);
/* A sentence above the prompt, until the next key. */
void menu_set_message(struct menu *m, const char *text);

/* One byte from the keyboard. */
enum menu_action menu_key(struct menu *m, uint8_t key);
/* The row that Enter chose; NULL when none is selected. */
const struct link_target_row *menu_selected(const struct menu *m);

/* now_wall_us: for "2h ago". */
void menu_draw(const struct menu *m, int64_t now_wall_us, struct buffer *out);
/* Leave the screen clean. */
void menu_clear(const struct menu *m, struct buffer *out);

/* For menu.c: rows on one page as it is now, and how many lines the message takes. */
size_t menu_page_size(const struct menu *m);

/* "2h ago", "never"; for tests too. */
const char *menu_ago(char *dst, size_t dst_len, int64_t wall_us, int64_t now_wall_us);
/* Cells that UTF-8 text takes on a terminal (wide characters two, combining ones none), and the
 * bytes of it that fit into `cells`. */
size_t menu_cells(const char *text);
size_t menu_fit(const char *text, size_t cells);

#endif
