/*
 * Interleaved run-length encoding; rle.h. Rows go from the bottom up, and runs from one into the
 * next.
 */
#include "proxy/rdp/rle.h"

#include "proxy/rdp/le.h"

#define COLOR_RUN        0x60 /* the length in five bits, or behind it less 32 */
#define COLOR_IMAGE      0x80
#define MEGA_COLOR_RUN   0xf3
#define MEGA_COLOR_IMAGE 0xf4
#define SHORT_MAX        31u
#define MIDDLE_MAX       (255u + 32u)
#define LONG_MAX         0xffffu
#define RUN_MIN          3u /* shorter ones are no shorter as runs */

struct encoder {
    struct buffer *b;
    uint16_t bpp;
    const struct picture *p;
    size_t count; /* pixels */
};

/* In the order of the encoding. */
static uint32_t pixel_at(const struct encoder *e, size_t at)
{
    size_t row = e->p->height - 1u - at / e->p->width;

    return e->p->pixels[row * e->p->width + at % e->p->width];
}

static void put_pixel(const struct encoder *e, uint32_t rgb)
{
    uint32_t red = rgb >> 16 & 0xff, green = rgb >> 8 & 0xff, blue = rgb & 0xff;
    uint8_t bytes[3] = {(uint8_t)blue, (uint8_t)green, (uint8_t)red};

    if (e->bpp == 15)
        buffer_put_le16(e->b, (uint16_t)(red >> 3 << 10 | green >> 3 << 5 | blue >> 3));
    else if (e->bpp == 16)
        buffer_put_le16(e->b, (uint16_t)(red >> 3 << 11 | green >> 2 << 5 | blue >> 3));
    else
        buffer_put(e->b, bytes, sizeof(bytes));
}

static void put_order(const struct encoder *e, uint8_t code, uint8_t mega, size_t len)
{
    if (len <= SHORT_MAX) {
        buffer_put_u8(e->b, (uint8_t)(code | len));
    } else if (len <= MIDDLE_MAX) {
        buffer_put_u8(e->b, code);
        buffer_put_u8(e->b, (uint8_t)(len - 32));
    } else {
        buffer_put_u8(e->b, mega);
        buffer_put_le16(e->b, (uint16_t)len);
    }
}

static size_t run_at(const struct encoder *e, size_t at)
{
    uint32_t color = pixel_at(e, at);
    size_t len = 1;

    while (at + len < e->count && len < LONG_MAX && pixel_at(e, at + len) == color)
        len++;
    return len;
}

/* Up to where the next run is worth it. */
static size_t image_at(const struct encoder *e, size_t at)
{
    size_t len = 0;

    while (at + len < e->count && len < LONG_MAX) {
        size_t run = run_at(e, at + len);

        if (run >= RUN_MIN)
            break;
        len = len + run < LONG_MAX ? len + run : LONG_MAX;
    }
    return len;
}

void rle_put(struct buffer *b, uint16_t bpp, const struct picture *p)
{
    const struct encoder e = {b, bpp, p, (size_t)p->width * p->height};

    for (size_t at = 0; at < e.count && !b->failed;) {
        size_t len = run_at(&e, at);

        if (len >= RUN_MIN) {
            put_order(&e, COLOR_RUN, MEGA_COLOR_RUN, len);
            put_pixel(&e, pixel_at(&e, at));
            at += len;
            continue;
        }
        len = image_at(&e, at);
        put_order(&e, COLOR_IMAGE, MEGA_COLOR_IMAGE, len);
        for (size_t end = at + len; at < end; at++)
            put_pixel(&e, pixel_at(&e, at));
    }
}
