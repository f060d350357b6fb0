/*
 * Bitmap updates of the proxy's own: fast-path where the client takes it, slow-path otherwise.
 */
#include "proxy/rdp/bitmap.h"

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define BYTES_MAX       12000 /* of one rectangle: more than one client chokes on larger ones */
#define UPDATE_BITMAP   1
#define RECTANGLE_HEAD  18
#define FASTPATH_BITMAP 0x01

bool bitmap_can_show(uint16_t bpp)
{
    return bpp == 15 || bpp == 16 || bpp == 24 || bpp == 32;
}

static void put_pixel(struct buffer *b, uint16_t bpp, uint32_t rgb)
{
    uint32_t red = rgb >> 16 & 0xff, green = rgb >> 8 & 0xff, blue = rgb & 0xff;
    uint8_t bytes[4] = {(uint8_t)blue, (uint8_t)green, (uint8_t)red, 0xff};

    if (bpp == 15)
        buffer_put_le16(b, (uint16_t)(red >> 3 << 10 | green >> 3 << 5 | blue >> 3));
    else if (bpp == 16)
        buffer_put_le16(b, (uint16_t)(red >> 3 << 11 | green >> 2 << 5 | blue >> 3));
    else
        buffer_put(b, bytes, bpp / 8u);
}

/* Rows from the bottom up, each padded to four bytes. */
static void put_rows(struct buffer *b, uint16_t bpp, const struct picture *p, uint16_t first,
                     uint16_t count)
{
    for (int row = first + count - 1; row >= first; row--) {
        size_t start = b->len;

        for (size_t x = 0; x < p->width; x++)
            put_pixel(b, bpp, p->pixels[(size_t)row * p->width + x]);
        while ((b->len - start) % 4)
            buffer_put_u8(b, 0);
    }
}

static void put_rectangle(struct buffer *b, uint16_t bpp, const struct picture *p, uint16_t x,
                          uint16_t y, uint16_t first, uint16_t count)
{
    size_t at = b->len + 4 + RECTANGLE_HEAD - 2, start;

    buffer_put_le16(b, UPDATE_BITMAP);
    buffer_put_le16(b, 1); /* rectangles */
    buffer_put_le16(b, x);
    buffer_put_le16(b, (uint16_t)(y + first));
    buffer_put_le16(b, (uint16_t)(x + p->width - 1));
    buffer_put_le16(b, (uint16_t)(y + first + count - 1));
    buffer_put_le16(b, p->width);
    buffer_put_le16(b, count);
    buffer_put_le16(b, bpp);
    buffer_put_le16(b, 0); /* flags: not compressed */
    buffer_put_le16(b, 0); /* length: below */
    start = b->len;
    put_rows(b, bpp, p, first, count);
    if (!b->failed)
        put_le16(b->data + at, (uint16_t)(b->len - start));
}

static void put_frame(struct buffer *b, const struct bitmap_target *t, const struct buffer *update)
{
    struct buffer pdu;

    if (t->is_fastpath) {
        buffer_put_u8(b, 0);
        buffer_put_be(b, 0x8000 | (update->len + 6), 2);
        buffer_put_u8(b, FASTPATH_BITMAP);
        buffer_put_le16(b, (uint16_t)update->len);
        buffer_put(b, update->data, update->len);
        return;
    }
    buffer_init(&pdu, TPKT_MAX);
    share_data_put(&pdu, MCS_SERVER_USER, t->share_id, DATA_UPDATE, update->data, update->len);
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
        put_rectangle(&update, t->bpp, p, x, y, first, count);
        put_frame(b, t, &update);
        b->failed |= update.failed;
    }
    buffer_finish(&update);
}
