/*
 * A session of our own towards a client that has no target yet, to draw in: licensing and
 * capabilities as a server says them, what the client does, and pictures piece by piece as the
 * client takes them. The login screen (screen.c) and last words (ending.c) play on it. When a
 * target takes over, the client is told that the session is deactivated, as at a change of its
 * size.
 */
#ifndef RDP_STAGE_H
#define RDP_STAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/rdp/draw.h"
#include "proxy/rdp/events.h"
#include "proxy/rdp/form.h"

struct rdp_session;

/* Who draws and hears. */
struct stage_actor {
    /* The next rectangle to be drawn, inside the screen; false: none. */
    bool (*next)(void *arg, struct rect *out);
    void (*paint)(void *arg, struct picture *tile, int x, int y);
    void (*input)(void *arg, const struct input_event *e);
    void (*exposed)(void *arg); /* the client wants everything anew */
    void *arg;
};

/* Once Client Info came. False: no memory; true also when it began before. */
bool rdp_stage_begin(struct rdp_session *s);
bool rdp_stage_is_open(const struct rdp_session *s); /* pictures may be sent */
/* actor: copied; NULL: nobody. */
void rdp_stage_play(struct rdp_session *s, const struct stage_actor *actor);
/* What the client said, and the pictures that it takes. Nonsense ends the session. */
void rdp_stage_step(struct rdp_session *s);
/* Behind rdp_leg_settle(): all that was drawn has left, and there is more. */
void rdp_stage_settled(struct rdp_session *s);
/* Empty ground, at once. */
void rdp_stage_clear(struct rdp_session *s);
/* The target's Demand Active follows: deactivate, and forget the stage. */
void rdp_stage_leave(struct rdp_session *s);
void rdp_stage_finish(struct rdp_session *s);

/* The screen that a client asked for, as far as it is one. */
void rdp_stage_size(const struct rdp_session *s, uint16_t *width, uint16_t *height);

#endif
