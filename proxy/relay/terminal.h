/*
 * What the relay must know of the terminal it writes to: whether a full-screen program holds the
 * alternate screen, whether output stands in the middle of an escape sequence or a character, and
 * which modes would leave the user's terminal unusable. Follows the target's output byte by byte;
 * it is no emulator and keeps no screen. Pure: no allocation, no I/O; fuzzed.
 */
#ifndef RELAY_TERMINAL_H
#define RELAY_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>

struct terminal {
    uint8_t state;     /* of the parser */
    uint8_t utf8_left; /* continuation bytes still to come */
    uint8_t param_count;
    bool is_private; /* CSI ? */
    uint16_t params[8];
    bool on_alternate; /* alternate screen (modes 47, 1047, 1049) */
    bool cursor_hidden;
    bool bracketed_paste;
    bool app_cursor, app_keypad;
    bool at_line_start; /* nothing printed since the last newline (a guess on a normal screen) */
    bool has_escapes;   /* the target ever sent one */
    bool modified_keys; /* xterm's modifyOtherKeys */
    bool kitty_keys;    /* kitty's keyboard protocol */
    uint16_t alternate_mode; /* by which the alternate screen was entered */
    uint16_t mouse_modes;    /* bit set of 9, 1000, 1002, 1003, 1004, 1005, 1006, 1015 */
    uint16_t cols, rows;
};

void terminal_init(struct terminal *t, uint16_t cols, uint16_t rows);
void terminal_resize(struct terminal *t, uint16_t cols, uint16_t rows);
void terminal_output(struct terminal *t, const uint8_t *data, size_t len);

/* True when text may be put in now: not inside a sequence, a string or a character. */
bool terminal_is_ground(const struct terminal *t);

/* Output stopped inside a sequence and does not go on: append what cuts it short, which makes true
 * that text may be put in now. What the target sends of it later is text. */
void terminal_abandon(struct terminal *t, struct buffer *out);

/*
 * Append what shows `text` (plain, escaped inside) to the user. On a normal screen: a line of its
 * own. On the alternate screen: the last line, reverse video, cut to the width, cursor saved and
 * restored; the caller nudges a redraw later (*needs_redraw).
 */
void terminal_notice(struct terminal *t, const char *text, struct buffer *out, bool *needs_redraw);

/* Append the final notice: leaves the alternate screen, undoes every mode above, then the text on
 * a line of its own. */
void terminal_final_notice(struct terminal *t, const char *text, struct buffer *out);

#endif
