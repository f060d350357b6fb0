/*
 * `recording play` of a desktop: sallyport-play serves the recording to an RDP client on a loopback
 * port; here are what the user is told, and the client that is started when there is a display.
 */
#ifndef CONTROL_CLI_DESKTOP_PLAY_H
#define CONTROL_CLI_DESKTOP_PLAY_H

#include <stdint.h>

#include "control/cli/cli.h"
#include "control/cli/play.h"

struct desktop_play {
    const char *id, *path;
    const struct play_options *options;
    const char *port; /* NULL: any */
    bool has_viewer;  /* one is started */
};

/* As play_recording(), which see. */
enum play_result desktop_play(const struct desktop_play *what, char *text, size_t text_len,
                              double *position_s);

#endif
