/*
 * The server's end of the decoder's connection: RDP without any encryption, up to and including
 * licensing, and after that what the recording holds. Which PDUs the decoder gets is decided here:
 * those that draw, and those that (re)activate.
 */
#ifndef EXPORT_SERVER_H
#define EXPORT_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/cursor.h>
#include <sallyport/errors.h>

#include "tracker/export/decoder.h"
#include "tracker/recording/desktop.h"

struct server;

/* fd is the other end of the decoder's, owned from here on, also on failure. Both borrowed. */
struct server *server_create(int fd, struct decoder *d, const struct desktop_channels *channels);
void server_destroy(struct server *s);

/* Everything below blocks until it is done: 0, ERR_CLOSED when the decoder gave up, ERR_BUSY when
 * it did not answer for a minute. */

/* The connection sequence; the decoder was started. */
MUST_CHECK int server_connect(struct server *s);
/* The body of a TARGET record. What cannot be read in it is left out. */
MUST_CHECK int server_feed(struct server *s, struct cursor pdus);
/* Whether server_sync() can be: not in the middle of a (re)activation or of a message. */
bool server_can_sync(const struct server *s);
/* Wait until the decoder has drawn everything that it was fed. */
MUST_CHECK int server_sync(struct server *s);

#endif
