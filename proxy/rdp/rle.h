/*
 * Bitmaps in interleaved run-length encoding, [MS-RDPBCGR] 2.2.9.1.1.3.1.2.4, as far as what the
 * proxy draws itself needs it: runs of one color, and pixels as they are.
 */
#ifndef RDP_RLE_H
#define RDP_RLE_H

#include <stdint.h>

#include <sallyport/buffer.h>

#include "proxy/rdp/draw.h"

/* bpp: 15, 16 or 24. The width of p is a multiple of 4. */
void rle_put(struct buffer *b, uint16_t bpp, const struct picture *p);

#endif
