/*
 * The graphics pipeline, [MS-RDPEGFX], on its dynamic channel: as much as a notice needs. Which
 * number the channel has, whether frames flow on it, where one message of the target ends, and a
 * picture of the proxy's own as a surface. What the messages carry is not decoded.
 */
#ifndef RDP_GFX_H
#define RDP_GFX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>

#include "proxy/rdp/draw.h"

struct gfx_state {
    bool is_asked;  /* the target wants to open the channel */
    bool is_open;   /* and the client agreed */
    bool is_live;   /* the client acknowledged a frame: it has capabilities, and draws this way */
    bool is_opaque; /* compressed below the messages: where they end cannot be seen */
    bool is_chunk;  /* a message of drdynvc is not whole: more chunks of it follow */
    uint32_t id;
    uint64_t left;          /* bytes until a message on the channel is whole */
    uint32_t width, height; /* of the last reset that could be read; 0: none */
};

/* data: of the static channel drdynvc, CHANNEL_PDU_HEADER included. Never fail: what cannot be read
 * makes it opaque. True when it is for the graphics channel, so that something was drawn. */
bool gfx_server_scan(struct cursor data, struct gfx_state *g);
void gfx_client_scan(struct cursor data, struct gfx_state *g);

/* The client draws frames of this channel, and not bitmaps. */
static inline bool gfx_is_live(const struct gfx_state *g)
{
    return g->is_open && g->is_live;
}
/* Between two whole messages: something of ours may stand here. */
static inline bool gfx_is_between(const struct gfx_state *g)
{
    return !g->is_opaque && !g->is_chunk && g->left == 0;
}

/*
 * MCS frames for the client's static channel `channel` that show p with its left upper corner at
 * x, y: a surface of our own in a frame of our own. Only when nothing of the target follows: its
 * compressor would be out of step with the client's history.
 */
void gfx_picture_put(struct buffer *b, const struct gfx_state *g, uint16_t channel,
                     const struct picture *p, uint16_t x, uint16_t y);

#endif
