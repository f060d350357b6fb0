/*
 * The indexes that sallyport-export makes of desktops' recordings, kept in the caller's own cache
 * (~/.cache/sallyport): one file a recording, none older than a week, all together bounded. Nothing
 * here fails: what cannot be kept is made anew the next time.
 */
#ifndef CONTROL_CLI_KEEP_H
#define CONTROL_CLI_KEEP_H

#include <stdbool.h>
#include <stddef.h>

struct keep {
    char folder[256]; /* "": there is none */
    char name[96];    /* of the recording as it is now */
    char part[128];   /* the file that is being written, within the folder; "": none */
};

/* id: "42.1"; fd: the recording, borrowed. Also throws away what is too old or too much. */
void keep_find(struct keep *k, const char *id, int fd);
/* What is there to read, or -1. */
int keep_open(const struct keep *k);
/* A new file, to be kept or dropped; or -1. */
int keep_create(struct keep *k);
/* It is whole: it takes the place of all others of this recording. An empty one is dropped. */
void keep_store(struct keep *k, int fd);
void keep_drop(struct keep *k);

#endif
