/*
 * Text as a picture: what a user of a desktop is told in the session itself. FreeType with DejaVu
 * Sans when that is installed, a small built-in font otherwise. Knows nothing of RDP.
 */
#ifndef RDP_DRAW_H
#define RDP_DRAW_H

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

#endif
