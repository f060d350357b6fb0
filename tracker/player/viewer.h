/*
 * The RDP client that looks at a recording, served up to where the recorded PDUs begin to mean
 * something to it: X.224, TLS when it offers that, MCS with the recorded numbers, any login, the
 * end of licensing. Which of the recorded PDUs it gets is decided here too: those that draw and
 * those that (re)activate.
 */
#ifndef PLAYER_VIEWER_H
#define PLAYER_VIEWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/cursor.h>

#include "proxy/rdp/leg.h"
#include "proxy/rdp/wire.h"
#include "tracker/recording/desktop.h"

enum viewer_step {
    VIEWER_X224,
    VIEWER_TLS,
    VIEWER_CONNECT,
    VIEWER_DOMAIN,
    VIEWER_LIVE,
    VIEWER_GONE
};

struct viewer {
    struct leg leg;
    enum viewer_step step;
    const struct desktop_channels *map; /* not owned */
    uint32_t requested;                 /* protocols of its X.224 request */
    bool has_drdynvc;                   /* it knows dynamic channels */
    uint16_t drdynvc;                   /* the recorded number; 0: none */
    bool must_wait;                     /* for its answer to a Demand Active */
    uint32_t graphics;                  /* number of the graphics channel; 0: none */
    bool has_graphics;                  /* which was used */
    char name[64];
};

/* fd is owned from here; wake(arg) from the loop. Negative: out of memory. */
MUST_CHECK int viewer_open(struct viewer *v, int fd, const struct desktop_channels *map,
                           struct event_base *base, void (*wake)(void *arg), void *arg);
void viewer_close(struct viewer *v);

/* Read what it says and answer; VIEWER_GONE when it left or spoke nonsense. */
void viewer_step(struct viewer *v);

/* VIEWER_LIVE: send the frames of a TARGET body, as far as the viewer can take them: the rest stays
 * in *pdus. */
void viewer_feed(struct viewer *v, struct cursor *pdus);
static inline bool viewer_can_take(const struct viewer *v)
{
    return v->step == VIEWER_LIVE && !v->must_wait && rdp_leg_unsent(&v->leg) <= LEG_OUT_HIGH;
}

/* That was all. */
void viewer_bye(struct viewer *v);

#endif
