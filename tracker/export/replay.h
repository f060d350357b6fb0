/*
 * A recording, decoded: reads its records, feeds the decoder, and gives out a picture whenever the
 * desktop has changed, 25 times a second of the recording at most.
 */
#ifndef EXPORT_REPLAY_H
#define EXPORT_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "tracker/export/decoder.h"
#include "tracker/export/scan.h"
#include "tracker/export/shot.h"
#include "tracker/recording/desktop.h"

#define REPLAY_TICK_US 40000u

/*
 * `now` is what the desktop showed from at_us on, `before` (NULL for the first) what it showed
 * until then, from before_us on. Both are borrowed for the call. 0, or a negative code to stop.
 */
typedef int (*replay_picture_fn)(void *arg, uint64_t at_us, const struct shot *now,
                                 uint64_t before_us, const struct shot *before);
/* Once, at the end: the last picture stands from at_us to end_us. */
typedef int (*replay_end_fn)(void *arg, uint64_t at_us, const struct shot *now, uint64_t end_us);
/* Where it is; called often. */
typedef void (*replay_progress_fn)(void *arg, uint64_t at_us);

struct replay {
    struct recording_reader *reader; /* at its beginning; borrowed */
    struct decoder *decoder;         /* made, not started; borrowed */
    int fd;                          /* the other end of the decoder's socketpair; taken */
    const struct scan *scan;         /* borrowed */
    uint64_t from_us;                /* where to begin to decode: 0, or a restart of the scan */
    uint64_t until_us;               /* what comes after this is not decoded */
    replay_picture_fn on_picture;
    replay_end_fn on_end;
    replay_progress_fn on_progress;
    void *arg;
};

/*
 * 0, or a negative code with a sentence in err; a recording without a picture in this part is an
 * error. What cannot be decoded ends it early: then it is 0 with a sentence in err, and the
 * pictures up to there are good.
 */
MUST_CHECK int replay_run(const struct replay *r, char *err, size_t err_len);

#endif
