/*
 * Planes in run-length encoding; planes.h. Rows go from the bottom up, and no run from one into the
 * next.
 */
#include "proxy/rdp/planes.h"

#include "proxy/rdp/le.h"

#define FORMAT_RLE      0x10
#define FORMAT_NO_ALPHA 0x20
#define RAW_MAX         15u
#define RUN_MIN         3u
#define RUN_SHORT       15u
#define RUN_MIDDLE      16u
#define RUN_LONG        32u
#define RUN_MAX         47u

struct row {
    const struct picture *p;
    unsigned shift; /* of the color in a pixel */
    size_t at;      /* from the bottom */
};

static uint8_t color_at(const struct row *r, size_t row, size_t x)
{
    return (uint8_t)(r->p->pixels[(r->p->height - 1u - row) * r->p->width + x] >> r->shift);
}

/* What stands in a plane: colors in the first row, then differences to the row before with the sign
 * in the lowest bit. */
static uint8_t value_at(const struct row *r, size_t x)
{
    uint8_t now = color_at(r, r->at, x);
    int delta;

    if (r->at == 0)
        return now;
    delta = (int8_t)(now - color_at(r, r->at - 1, x));
    return (uint8_t)(delta >= 0 ? delta * 2 : -delta * 2 - 1);
}

static size_t run_at(const struct row *r, size_t x, uint8_t value)
{
    size_t n = 0;

    while (n < RUN_MAX && x + n < r->p->width && value_at(r, x + n) == value)
        n++;
    return n;
}

/* 2.2.2.5.1.2: up to 15 values, then a run of the last of them; at the start of a row that is 0.
 * Long runs have no values of their own. */
static void put_row(struct buffer *b, const struct row *r)
{
    uint8_t raw[RAW_MAX], last = 0;
    size_t x = 0;

    while (x < r->p->width) {
        size_t raws = 0, run = run_at(r, x, last);

        while (run < RUN_MIN && raws < RAW_MAX && x < r->p->width) {
            last = raw[raws++] = value_at(r, x++);
            run = run_at(r, x, last);
        }
        if (run < RUN_MIN)
            run = 0;
        if (raws > 0 && run > RUN_SHORT)
            run = RUN_SHORT;
        if (run <= RUN_SHORT)
            buffer_put_u8(b, (uint8_t)(raws << 4 | run));
        else
            buffer_put_u8(b, (uint8_t)(run < RUN_LONG ? (run - RUN_MIDDLE) << 4 | 1
                                                      : (run - RUN_LONG) << 4 | 2));
        buffer_put(b, raw, raws);
        x += run;
    }
}

void planes_put(struct buffer *b, const struct picture *p)
{
    buffer_put_u8(b, FORMAT_RLE | FORMAT_NO_ALPHA);
    for (unsigned shift = 24; shift > 0; shift -= 8) /* red first */
        for (size_t row = 0; row < p->height; row++)
            put_row(b, &(struct row){p, shift - 8, row});
}
