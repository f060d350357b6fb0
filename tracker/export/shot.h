/*
 * One picture in memory: what the desktop showed, with the pointer in it. Four bytes a pixel: blue,
 * green, red, unused; rows without padding.
 */
#ifndef EXPORT_SHOT_H
#define EXPORT_SHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "tracker/export/decoder.h"

struct shot {
    uint8_t *pixels;
    size_t cap;
    uint32_t width, height;
};

static inline size_t shot_len(const struct shot *s)
{
    return (size_t)4 * s->width * s->height;
}

/* Room for a picture of this size; what was in it is lost. */
MUST_CHECK int shot_resize(struct shot *s, uint32_t width, uint32_t height);
void shot_finish(struct shot *s);
MUST_CHECK int shot_copy(struct shot *dst, const struct decoder_screen *src);
/* The hot spot is at x, y; what lies outside is left out. */
void shot_draw(struct shot *s, const struct decoder_pointer *p, int32_t x, int32_t y);

#endif
