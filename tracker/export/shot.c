/* See shot.h. */
#include "tracker/export/shot.h"

#include <stdlib.h>
#include <string.h>

int shot_resize(struct shot *s, uint32_t width, uint32_t height)
{
    size_t len = (size_t)4 * width * height;

    if (width == 0 || height == 0 || width > DECODER_SIZE_MAX || height > DECODER_SIZE_MAX)
        return ERR_INVALID;
    if (len > s->cap) {
        uint8_t *pixels = realloc(s->pixels, len);

        if (!pixels)
            return ERR_MEMORY;
        s->pixels = pixels;
        s->cap = len;
    }
    s->width = width;
    s->height = height;
    return 0;
}

void shot_finish(struct shot *s)
{
    free(s->pixels);
    memset(s, 0, sizeof(*s));
}

int shot_copy(struct shot *dst, const struct decoder_screen *src)
{
    int r = shot_resize(dst, src->width, src->height);
    size_t row = (size_t)4 * src->width;

    if (r < 0)
        return r;
    for (uint32_t y = 0; y < src->height; y++)
        memcpy(dst->pixels + y * row, src->pixels + (size_t)y * src->stride, row);
    return 0;
}

static uint8_t blend(uint8_t under, uint8_t over, uint8_t alpha)
{
    return (uint8_t)((under * (255 - alpha) + over * alpha + 127) / 255);
}

void shot_draw(struct shot *s, const struct decoder_pointer *p, int32_t x, int32_t y)
{
    int64_t left = (int64_t)x - p->hot_x, top = (int64_t)y - p->hot_y;

    if (!p->pixels)
        return;
    for (uint32_t row = 0; row < p->height; row++) {
        for (uint32_t col = 0; col < p->width; col++) {
            const uint8_t *from = p->pixels + 4 * ((size_t)row * p->width + col);
            int64_t at_x = left + col, at_y = top + row;
            uint8_t *to;

            if (at_x < 0 || at_y < 0 || at_x >= s->width || at_y >= s->height)
                continue;
            to = s->pixels + 4 * ((size_t)at_y * s->width + (size_t)at_x);
            for (int i = 0; i < 3; i++)
                to[i] = blend(to[i], from[i], from[3]);
        }
    }
}
