/*
 * What only relays of RDP sessions tell. Called by the dispatch of links.c.
 */
#include "proxy/broker/links_parts.h"
#include "tracker/tracker.h"

void link_on_desktop(struct relay_link *l, struct link_message *m, int *fds)
{
    (void)fds;
    tracker_channels(l->links->broker->tracker, l->session_id, m->desktop.channels);
    link_note(l, "desktop", m->desktop.text);
}
