/*
 * The badge is a usual arrow, so that it can go on pointing, with an amber disc beside it. It is
 * drawn here and not read from a file: relays read none.
 */
#include "proxy/rdp/pointer.h"

#include "proxy/rdp/le.h"

#define SIDE           32
#define MASK_LEN       (SIDE * SIDE / 8)
#define PIXELS_LEN     (SIDE * SIDE * 4)
#define OPAQUE         0xff000000u
#define AMBER          (OPAQUE | 0xe8b04au)
#define DARK           (OPAQUE | 0x20303fu)
#define WHITE          (OPAQUE | 0xffffffu)
#define BLACK          OPAQUE
#define SLOW_SYSTEM    1
#define SLOW_CACHED    7
#define SLOW_NEW       8
#define FAST_NULL      5
#define FAST_DEFAULT   6
#define FAST_CACHED    10
#define FAST_NEW       11
#define SYSTEM_NULL    0u
#define SYSTEM_DEFAULT 0x7f00u

uint16_t pointer_reserve(uint8_t *set)
{
    uint16_t color = (uint16_t)(set[2] | set[3] << 8), slots = (uint16_t)(set[4] | set[5] << 8);

    if (slots < 2)
        return 0;
    slots--;
    put_le16(set + 4, slots);
    if (color > slots) /* the older pointers live in the same cache */
        put_le16(set + 2, slots);
    return slots;
}

/* 2.2.9.1.1.4 has a head that the fast path has not; the rest is the same. */
static void put(struct buffer *b, const struct bitmap_target *t, uint8_t fast, uint16_t slow,
                const struct buffer *body)
{
    struct buffer pdu;

    if (t->is_fastpath) {
        update_put(b, t, fast, DATA_POINTER, body->data, body->len);
        return;
    }
    buffer_init(&pdu, TPKT_MAX);
    buffer_put_le16(&pdu, slow);
    buffer_put_le16(&pdu, 0);
    buffer_put(&pdu, body->data, body->len);
    update_put(b, t, fast, DATA_POINTER, pdu.data, pdu.len);
    b->failed |= pdu.failed;
    buffer_finish(&pdu);
}

void pointer_put(struct buffer *b, const struct bitmap_target *t, const struct pointer *p)
{
    bool is_hidden = p->kind == POINTER_HIDDEN;
    struct buffer body;

    buffer_init(&body, 8);
    if (p->kind == POINTER_CACHED) {
        buffer_put_le16(&body, p->slot);
        put(b, t, FAST_CACHED, SLOW_CACHED, &body);
    } else if (t->is_fastpath) {
        put(b, t, is_hidden ? FAST_NULL : FAST_DEFAULT, SLOW_SYSTEM, &body);
    } else {
        buffer_put_le32(&body, is_hidden ? SYSTEM_NULL : SYSTEM_DEFAULT);
        put(b, t, FAST_DEFAULT, SLOW_SYSTEM, &body);
    }
    b->failed |= body.failed;
    buffer_finish(&body);
}

/* ---- the badge ---- */

#define ARROW_ROWS 19

/* One row: how far the white goes, and where in it the black begins and ends. */
static const char *const arrow[ARROW_ROWS] = {
    "#",         "##",        "#.#",        "#..#",        "#...#",        "#....#",   "#.....#",
    "#......#",  "#.......#", "#........#", "#.........#", "#......#####", "#...#..#", "#..##..#",
    "#.#  #..#", "##   #..#", "#     #..#", "      #..#",  "       ##",
};

/* A disc with a rim; 0 outside. Distances are of centres of pixels, in halves, squared. */
static uint32_t disc_at(int x, int y)
{
    const int center = 2 * 21, radius = 2 * 10, rim = 2 * 8;
    int dx = 2 * x + 1 - center, dy = 2 * y + 1 - center;
    int distance = dx * dx + dy * dy;

    if (distance > radius * radius)
        return 0;
    if (distance > rim * rim)
        return DARK;
    /* the exclamation mark */
    if (x >= 20 && x <= 21 && ((y >= 15 && y <= 22) || (y >= 25 && y <= 26)))
        return DARK;
    return AMBER;
}

static uint32_t pixel_at(int x, int y)
{
    uint32_t disc = disc_at(x, y);
    char c = ' ';

    for (int i = 0; y < ARROW_ROWS && i <= x; i++) {
        c = arrow[y][i];
        if (c == '\0')
            break;
    }
    if (y < ARROW_ROWS && (c == '#' || c == '.'))
        return c == '#' ? BLACK : WHITE;
    return disc;
}

void pointer_badge_put(struct buffer *b, const struct bitmap_target *t, uint16_t slot)
{
    uint8_t mask[MASK_LEN] = {0};
    struct buffer body;

    buffer_init(&body, PIXELS_LEN + MASK_LEN + 64);
    buffer_put_le16(&body, 32); /* bits a pixel */
    buffer_put_le16(&body, slot);
    buffer_put_le16(&body, 0); /* hot spot */
    buffer_put_le16(&body, 0);
    buffer_put_le16(&body, SIDE);
    buffer_put_le16(&body, SIDE);
    buffer_put_le16(&body, MASK_LEN);
    buffer_put_le16(&body, PIXELS_LEN);
    for (int row = 0; row < SIDE; row++) /* from the bottom up */
        for (int x = 0; x < SIDE; x++) {
            uint32_t pixel = pixel_at(x, SIDE - 1 - row);

            buffer_put_le32(&body, pixel);
            if (!pixel)
                mask[row * SIDE / 8 + x / 8] |= (uint8_t)(0x80 >> x % 8);
        }
    buffer_put(&body, mask, sizeof(mask));
    put(b, t, FAST_NEW, SLOW_NEW, &body);
    b->failed |= body.failed;
    buffer_finish(&body);
}
