/*
 * Bytes that come in a reply: commands whose rows are {"data":"BASE64"}.
 */
#ifndef CONTROL_CLI_FETCH_H
#define CONTROL_CLI_FETCH_H

#include <jansson.h>

#include "control/cli/cli.h"

struct fetch {
    const char *name; /* of what is written, in sentences */
    int fd;           /* borrowed */
    long long bytes;  /* written so far */
};

/* Carry out `command` (args is taken, NULL for none) and write what comes. The connection is open.
 * An exit code, after telling. */
int fetch_all(struct cli *cli, const char *command, json_t *args, struct fetch *f);

#endif
