/*
 * A terminal that somebody watches: what its session shows goes in as bytes, and its cells are
 * drawn on ours, whatever size that has. Nothing of what comes in is ever written out as it is: it
 * passes play_filter, then an emulator (libvterm), and what is drawn is made anew from the cells.
 */
#ifndef CONTROL_CLI_SCREEN_H
#define CONTROL_CLI_SCREEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>

struct screen;

/* NULL: out of memory. has_pty: without one, line ends are bare line feeds. */
struct screen *screen_create(uint16_t cols, uint16_t rows, bool has_pty);
void screen_destroy(struct screen *s);

void screen_feed(struct screen *s, const uint8_t *data, size_t len);
/* What Sallyport showed to the user. */
void screen_notice(struct screen *s, const char *text, size_t len);
/* One that a full-screen program hides, for some seconds; "" when there is none. */
const char *screen_last_notice(const struct screen *s);
void screen_resize(struct screen *s, uint16_t cols, uint16_t rows);
void screen_size(const struct screen *s, uint16_t *cols, uint16_t *rows);

/*
 * Append what brings our terminal of cols x lines up to date: the part of the screen that fits (the
 * one with the cursor), and `status` in reverse on the last line. Draws the difference to the last
 * time; after screen_redraw() or another size everything.
 */
void screen_draw(struct screen *s, uint16_t cols, uint16_t lines, const char *status,
                 struct buffer *out);
void screen_redraw(struct screen *s);

/* Take our terminal, and give it back. */
void screen_enter(struct buffer *out);
void screen_leave(struct buffer *out);

#endif
