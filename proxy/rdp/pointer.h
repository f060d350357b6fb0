/*
 * Pointers of the proxy's own, [MS-RDPBCGR] 2.2.9.1.1.4 and 2.2.9.1.2.1: the badge that a user sees
 * while a notice stands, and the way back to the target's pointer.
 */
#ifndef RDP_POINTER_H
#define RDP_POINTER_H

#include <stdint.h>

#include <sallyport/buffer.h>

#include "proxy/rdp/bitmap.h"
#include "proxy/rdp/wire.h"

/* The inside of the capability set of Confirm Active, at least 6 bytes: takes the last slot of the
 * client's cache away from the target, and returns it. 0: there is none to take, and the set is as
 * it was. */
uint16_t pointer_reserve(uint8_t *set);

/* Show what the client has, or the arrow when it is not known. */
void pointer_put(struct buffer *b, const struct bitmap_target *t, const struct pointer *p);

/* An arrow with a sign that something is to be read, which the client keeps in this slot. */
void pointer_badge_put(struct buffer *b, const struct bitmap_target *t, uint16_t slot);

#endif
