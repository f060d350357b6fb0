/*
 * Pictures as RDP bitmap updates, [MS-RDPBCGR] 2.2.9.1.1.3.1.2: uncompressed, one rectangle an
 * update, in the session's colour depth, so that no state of the client's decoders is touched.
 */
#ifndef RDP_BITMAP_H
#define RDP_BITMAP_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/buffer.h>

#include "proxy/rdp/draw.h"

struct bitmap_target {
    uint16_t bpp; /* 15, 16, 24 or 32 */
    bool is_fastpath;
    uint32_t share_id;   /* of slow-path updates */
    uint16_t io_channel; /* the same */
};

/* Whether pictures can be shown in this colour depth (a palette is not touched). */
bool bitmap_can_show(uint16_t bpp);

/* Frames that draw p with its left upper corner at x, y. */
void bitmap_put(struct buffer *b, const struct bitmap_target *t, const struct picture *p,
                uint16_t x, uint16_t y);

#endif
