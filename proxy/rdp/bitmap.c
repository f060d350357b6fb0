/*
 * Bitmap updates of the proxy's own: fast-path where the client takes it, slow-path otherwise.
 */
#include "proxy/rdp/bitmap.h"

#include "proxy/rdp/le.h"
#include "proxy/rdp/planes.h"
#include "proxy/rdp/rle.h"

#define BYTES_MAX        12000 /* of one rectangle: more than one client chokes on larger ones */
#define UPDATE_BITMAP    1
#define FLAG_COMPRESSED  0x0001
#define COMPRESSED_HEAD  8
#define UPDATE_PALETTE   2
#define FASTPATH_BITMAP  0x01
#define FASTPATH_PALETTE 0x02
#define CUBE             6 /* shades of a color in a palette of ours */

bool bitmap_can_show(uint16_t bpp)
{
    return bpp == 8 || bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

/* ---- colors ---- */

static uint32_t distance(const uint8_t *color, uint32_t rgb)
{
    int red = color[0] - (int)(rgb >> 16 & 0xff), green = color[1] - (int)(rgb >> 8 & 0xff),
        blue = color[2] - (int)(rgb & 0xff);

    return (uint32_t)(red * red + green * green + blue * blue);
}

static uint8_t nearest(const uint8_t *palette, uint32_t rgb)
{
    size_t best = 0;

    for (size_t i = 1; i < PALETTE_LEN / 3; i++)
        if (distance(palette + 3 * i, rgb) < distance(palette + 3 * best, rgb))
            best = i;
    return (uint8_t)best;
}

/* Six shades of each color, and greys. */
void palette_fill(uint8_t *palette)
{
    for (unsigned i = 0; i < PALETTE_LEN / 3; i++) {
        unsigned grey = (i - CUBE * CUBE * CUBE) * 6 + 10;

        palette[3 * i] = (uint8_t)(i < CUBE * CUBE * CUBE ? i / (CUBE * CUBE) * 51 : grey);
        palette[3 * i + 1] = (uint8_t)(i < CUBE * CUBE * CUBE ? i / CUBE % CUBE * 51 : grey);
        palette[3 * i + 2] = (uint8_t)(i < CUBE * CUBE * CUBE ? i % CUBE * 51 : grey);
    }
}

void palette_put(struct buffer *b, const struct bitmap_target *t)
{
    struct buffer update;

    buffer_init(&update, PALETTE_LEN + 16);
    buffer_put_le16(&update, UPDATE_PALETTE);
    buffer_put_le16(&update, 0);
    buffer_put_le32(&update, PALETTE_LEN / 3);
    buffer_put(&update, t->palette, PALETTE_LEN);
    update_put(b, t, FASTPATH_PALETTE, DATA_UPDATE, update.data, update.len);
    b->failed |= update.failed;
    buffer_finish(&update);
}

static void put_pixel(struct buffer *b, const struct bitmap_target *t, uint32_t rgb)
{
    uint16_t bpp = t->bpp;
    uint32_t red = rgb >> 16 & 0xff, green = rgb >> 8 & 0xff, blue = rgb & 0xff;
    uint8_t bytes[4] = {(uint8_t)blue, (uint8_t)green, (uint8_t)red, 0xff};

    if (bpp == 8)
        buffer_put_u8(b, nearest(t->palette, rgb));
    else if (bpp == 15)
        buffer_put_le16(b, (uint16_t)(red >> 3 << 10 | green >> 3 << 5 | blue >> 3));
    else if (bpp == 16)
        buffer_put_le16(b, (uint16_t)(red >> 3 << 11 | green >> 2 << 5 | blue >> 3));
    else
        buffer_put(b, bytes, bpp / 8u);
}

/* Rows from the bottom up. None needs padding: the width is a multiple of 4. */
static void put_rows(struct buffer *b, const struct bitmap_target *t, const struct picture *p)
{
    for (size_t row = p->height; row-- > 0;)
        for (size_t x = 0; x < p->width; x++)
            put_pixel(b, t, p->pixels[row * p->width + x]);
}

/* A palette is left alone: nothing to gain at 8 bits. */
static void put_packed(struct buffer *b, const struct bitmap_target *t, const struct picture *p)
{
    if (t->bpp == 32)
        planes_put(b, p);
    else if (t->bpp > 8)
        rle_put(b, t->bpp, p);
    else
        b->failed = true;
}

/* 2.2.9.1.1.3.1.2.2, and 2.2.9.1.1.3.1.2.3 before what is compressed. */
static void put_rectangle(struct buffer *b, const struct bitmap_target *t, const struct picture *p,
                          uint16_t x, uint16_t y, uint16_t first, uint16_t count)
{
    const struct picture part = {
        .width = p->width, .height = count, .pixels = p->pixels + (size_t)p->width * first};
    struct buffer raw, packed;
    bool is_packed;

    buffer_init(&raw, TPKT_MAX);
    buffer_init(&packed, TPKT_MAX);
    put_rows(&raw, t, &part);
    put_packed(&packed, t, &part);
    is_packed = !packed.failed && packed.len + COMPRESSED_HEAD < raw.len;
    buffer_put_le16(b, UPDATE_BITMAP);
    buffer_put_le16(b, 1); /* rectangles */
    buffer_put_le16(b, x);
    buffer_put_le16(b, (uint16_t)(y + first));
    buffer_put_le16(b, (uint16_t)(x + p->width - 1));
    buffer_put_le16(b, (uint16_t)(y + first + count - 1));
    buffer_put_le16(b, p->width);
    buffer_put_le16(b, count);
    buffer_put_le16(b, t->bpp);
    buffer_put_le16(b, is_packed ? FLAG_COMPRESSED : 0);
    if (is_packed) {
        buffer_put_le16(b, (uint16_t)(packed.len + COMPRESSED_HEAD));
        buffer_put_le16(b, 0);
        buffer_put_le16(b, (uint16_t)packed.len);
        buffer_put_le16(b, p->width);
        buffer_put_le16(b, (uint16_t)raw.len);
        buffer_put(b, packed.data, packed.len);
    } else {
        buffer_put_le16(b, (uint16_t)raw.len);
        buffer_put(b, raw.data, raw.len);
    }
    b->failed |= raw.failed;
    buffer_finish(&raw);
    buffer_finish(&packed);
}

void update_put(struct buffer *b, const struct bitmap_target *t, uint8_t code,
                enum share_data_type type, const void *data, size_t len)
{
    struct buffer pdu;

    if (t->is_fastpath) {
        buffer_put_u8(b, 0);
        buffer_put_be(b, 0x8000 | (len + 6), 2);
        buffer_put_u8(b, code);
        buffer_put_le16(b, (uint16_t)len);
        buffer_put(b, data, len);
        return;
    }
    buffer_init(&pdu, TPKT_MAX);
    share_data_put(&pdu, MCS_SERVER_USER, t->share_id, type, data, len);
    mcs_data_put(b, MCS_DATA_INDICATION, MCS_SERVER_USER, t->io_channel, pdu.data, pdu.len);
    b->failed |= pdu.failed;
    buffer_finish(&pdu);
}

void bitmap_put(struct buffer *b, const struct bitmap_target *t, const struct picture *p,
                uint16_t x, uint16_t y)
{
    size_t row_len = (p->width * ((t->bpp + 7u) / 8u) + 3) & ~(size_t)3;
    uint16_t rows = (uint16_t)(row_len < BYTES_MAX ? BYTES_MAX / row_len : 1);
    struct buffer update;

    buffer_init(&update, TPKT_MAX);
    for (uint16_t first = 0; first < p->height; first = (uint16_t)(first + rows)) {
        uint16_t count = p->height - first < rows ? (uint16_t)(p->height - first) : rows;

        buffer_reset(&update);
        put_rectangle(&update, t, p, x, y, first, count);
        update_put(b, t, FASTPATH_BITMAP, DATA_UPDATE, update.data, update.len);
        b->failed |= update.failed;
    }
    buffer_finish(&update);
}
