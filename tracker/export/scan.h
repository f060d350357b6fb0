/*
 * A first look at a recording, before anything is decoded: how long it is, how large its desktop
 * gets, and where decoding can begin other than at the front.
 */
#ifndef EXPORT_SCAN_H
#define EXPORT_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "tracker/recording/desktop.h"

struct scan {
    uint64_t end_us;                    /* of the last record, or of the session when it is later */
    uint16_t first_width, first_height; /* of the first desktop */
    uint16_t max_width, max_height;     /* of all of them */
    uint64_t restart_us;     /* the last point up to `until_us` where decoding can begin */
    uint64_t restart_record; /* its number, from 0; 0: only at the front */
    struct desktop_channels channels;
    uint16_t restart_width, restart_height; /* of the desktop there */
    bool is_damaged;
};

/* Reads all of it. until_us: see restart_us. A negative code when there is no desktop in it; err
 * then says so. */
MUST_CHECK int scan_recording(struct recording_reader *reader, uint64_t until_us, struct scan *out,
                              char *err, size_t err_len);

#endif
