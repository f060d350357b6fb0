/*
 * Pictures as RDP bitmap updates, [MS-RDPBCGR] 2.2.9.1.1.3.1.2: one rectangle an update, in the
 * session's colour depth, each compressed for itself, so that no state of the client is touched.
 */
#ifndef RDP_BITMAP_H
#define RDP_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/buffer.h>

#include "proxy/rdp/draw.h"
#include "proxy/rdp/wire.h"

struct bitmap_target {
    uint16_t bpp;           /* 8, 15, 16, 24 or 32 */
    const uint8_t *palette; /* of 8 bits: PALETTE_LEN bytes, borrowed */
    bool is_fastpath;
    uint32_t share_id;   /* of slow-path updates */
    uint16_t io_channel; /* the same */
};

/* Whether pictures can be shown in this colour depth. */
bool bitmap_can_show(uint16_t bpp);

/* One update: `code` of the fast path, or the PDU type of the slow path round `data`. */
void update_put(struct buffer *b, const struct bitmap_target *t, uint8_t code,
                enum share_data_type type, const void *data, size_t len);

/* A palette of the proxy's own, PALETTE_LEN bytes, and the update that makes it the client's. */
void palette_fill(uint8_t *palette);
void palette_put(struct buffer *b, const struct bitmap_target *t);

/* Frames that draw p with its left upper corner at x, y. */
void bitmap_put(struct buffer *b, const struct bitmap_target *t, const struct picture *p,
                uint16_t x, uint16_t y);

#endif
