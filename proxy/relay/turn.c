/*
 * Turns of a session; turn.h.
 */
#include "proxy/relay/turn.h"

#include <event2/event.h>

#include <sallyport/clock.h>

static void soon_cb(evutil_socket_t fd, short what, void *arg)
{
    struct turn *t = arg;

    (void)fd, (void)what;
    t->take(t->arg);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct turn *t = arg;

    (void)fd, (void)what;
    t->at_ms = 0;
    t->take(t->arg);
}

int turn_init(struct turn *t, struct event_base *base, void (*take)(void *arg), void *arg)
{
    t->at_ms = 0;
    t->take = take;
    t->arg = arg;
    t->soon = event_new(base, -1, 0, soon_cb, t);
    t->timer = evtimer_new(base, timer_cb, t);
    return t->soon && t->timer ? 0 : ERR_MEMORY;
}

void turn_finish(struct turn *t)
{
    if (t->soon)
        event_free(t->soon);
    if (t->timer)
        event_free(t->timer);
    t->soon = t->timer = NULL;
}

void turn_want(struct turn *t)
{
    event_active(t->soon, EV_TIMEOUT, 0);
}

void turn_want_at(struct turn *t, int64_t at_ms)
{
    int64_t left_ms;
    struct timeval in;

    if (t->at_ms != 0 && t->at_ms <= at_ms)
        return;
    t->at_ms = at_ms;
    left_ms = at_ms - clock_mono_ms();
    left_ms = left_ms < 0 ? 0 : left_ms;
    in.tv_sec = left_ms / 1000;
    in.tv_usec = left_ms % 1000 * 1000 + 500; /* never a hair too early */
    (void)event_add(t->timer, &in);
}
