/*
 * A strip of text for the upper edge of a screen: what is drawn again and again over a desktop
 * whose frames cover it. Knows nothing of RDP.
 */
#ifndef RDP_BANNER_H
#define RDP_BANNER_H

#include <stdint.h>

#include "proxy/rdp/draw.h"

/* As draw_box(), and as small as can be read. */
MUST_CHECK int banner_draw(struct picture *out, const char *text, uint16_t screen_width,
                           uint16_t screen_height);

#endif
