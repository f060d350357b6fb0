/*
 * Text as a picture: what a user of a desktop is told in the session itself. FreeType with DejaVu
 * Sans when that is installed, a small built-in font otherwise. Knows nothing of RDP.
 */
#ifndef RDP_DRAW_H
#define RDP_DRAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define DRAW_BUILTIN_FIRST  ' '
#define DRAW_BUILTIN_COUNT  95
#define DRAW_BUILTIN_WIDTH  8
#define DRAW_BUILTIN_HEIGHT 16

extern const uint8_t draw_builtin_font[DRAW_BUILTIN_COUNT][DRAW_BUILTIN_HEIGHT];

struct picture {
    uint16_t width, height; /* the width is a multiple of 4 */
    uint32_t *pixels;       /* 0xRRGGBB, row by row from the top; owned */
};

/* Gate, while files can be read: load the font. Without it the built-in one is used. path NULL: the
 * usual place. */
void draw_load_font(const char *path);
/* Tests: forget the font. */
void draw_unload_font(void);

/*
 * A box with `text` (UTF-8) in lines, readable on a screen of this size and never larger than it.
 * Returns 0 and *out (picture_finish() it), or ERR_MEMORY; ERR_INVALID for a screen that is too
 * small for any text.
 */
MUST_CHECK int draw_box(struct picture *out, const char *text, uint16_t screen_width,
                        uint16_t screen_height);
void picture_finish(struct picture *p);

/* ---- for pictures that are laid out elsewhere: form_draw.c ---- */

/* A part of a text that stands in one line. */
struct draw_line {
    const char *start;
    size_t len;
    int width; /* pixels */
};

bool draw_has_font(void); /* otherwise the built-in one, which has ASCII only */
/* size: of the font, in pixels, here and below. */
int draw_line_height(int size);
/* The first line of text in `room` pixels, broken between words; returns where the next one
 * begins. */
const char *draw_take_line(const char *text, int size, int room, struct draw_line *out);
int draw_text_width(const char *text, size_t len, int size);
/* Blended onto the picture; x, y: left upper corner of the line. What is outside is left out. */
void draw_text(struct picture *p, int x, int y, const struct draw_line *line, int size,
               uint32_t ink);
void draw_fill(struct picture *p, int x, int y, int width, int height, uint32_t color);

#endif
