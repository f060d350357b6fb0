/*
 * Bitmaps of 32 bits a pixel as planes of colors in run-length encoding, [MS-RDPEGDI] 2.2.2.5.1: a
 * box of text becomes a tenth of what it was.
 */
#ifndef RDP_PLANES_H
#define RDP_PLANES_H

#include <sallyport/buffer.h>

#include "proxy/rdp/draw.h"

void planes_put(struct buffer *b, const struct picture *p);

#endif
