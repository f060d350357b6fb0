/*
 * `recording export` of a desktop: sallyport-export does the work, in a sandbox of its own; here
 * are the file that comes of it, the progress bar, and the index that is kept.
 */
#ifndef CONTROL_CLI_DESKTOP_EXPORT_H
#define CONTROL_CLI_DESKTOP_EXPORT_H

#include <stdbool.h>

#include "control/cli/cli.h"

/* Whether the recording at this path is one of a desktop. */
bool desktop_export_is_for(const char *path);
/* Whether a file of this name is a video or a picture. */
bool desktop_export_is_name(const char *path);

/* id: "42.1", in sentences and in the cache; from: a path to read it by; is_live: it is not over.
 * Returns an exit code, after telling. */
int desktop_export(struct cli *cli, const char *id, const char *from, const char *to, bool is_live);

#endif
