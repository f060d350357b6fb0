/*
 * The menu of targets, as a model: rows, filter, selection, keys and drawing. Pure: bytes in, bytes
 * out; proxy/ssh/choose.c connects it to a channel and to the broker.
 */
#ifndef SSH_MENU_H
#define SSH_MENU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>

#define MENU_ROWS_MAX 1000

enum menu_action { MENU_NOTHING, MENU_DRAW, MENU_CHOSEN, MENU_QUIT };

struct menu {
    struct link_target_row *rows; /* owned */
    size_t count, total;          /* total: what the broker has */
    uint16_t *shown;              /* owned: indexes of the rows that match */
    size_t shown_count, selected; /* selected: position in shown */
    char user[NAME_MAX_LEN + 1];
    char filter[NAME_MAX_LEN + 1];
    char message[SESSION_TEXT_MAX];
    uint16_t cols, lines;
    bool is_dumb; /* no cursor control */
    bool is_loaded;
    uint8_t escape; /* of a key sequence: 0, 1 after ESC, 2 after ESC [ or ESC O, 3 digits */
    uint8_t parameter;
};

/* NULL: out of memory. */
struct menu *menu_create(const char *user, const char *term, uint16_t cols, uint16_t lines);
void menu_destroy(struct menu *m);
void menu_resize(struct menu *m, uint16_t cols, uint16_t lines);

/* Append rows as they come from the broker; false when out of memory. */
bool menu_add(struct menu *m, const struct link_target_row *rows, size_t count, size_t total);
bool menu_is_complete(const struct menu *m);
void menu_set_message(struct menu *m, const char *text);

/* One byte from the keyboard. */
enum menu_action menu_key(struct menu *m, uint8_t key);
/* The row that Enter chose; NULL when none is selected. */
const struct link_target_row *menu_selected(const struct menu *m);

void menu_draw(const struct menu *m, struct buffer *out);
/* Leave the screen clean. */
void menu_clear(const struct menu *m, struct buffer *out);

#endif
