/*
 * The player of `recording play`: a recording onto the terminal in its own time, with keys for
 * pause, speed, steps and seeking. What it writes goes through play_filter, and the terminal is put
 * back whatever happens.
 */
#ifndef CONTROL_CLI_PLAY_H
#define CONTROL_CLI_PLAY_H

#include <stdbool.h>
#include <stddef.h>

#define PLAY_SPEED_MIN 0.125
#define PLAY_SPEED_MAX 1000.0

struct play_options {
    double speed;
    double idle_limit_s; /* 0: keep pauses as they were */
    double at_s;
};

enum play_result {
    PLAY_COMPLETE, /* played to the end, and the recording is whole */
    PLAY_CUT,      /* played to where it is cut; text explains */
    PLAY_DAMAGED,
    PLAY_STOPPED, /* by a key or a signal */
    PLAY_ERROR    /* text says what */
};

/*
 * Play the file at path; stdout must be a terminal. Keys come from /dev/tty. text gets a sentence
 * about the end, position_s where it was. Blocks for as long as it plays.
 */
enum play_result play_recording(const char *path, const struct play_options *options, char *text,
                                size_t text_len, double *position_s);

/* The exact recorded output, at once, to a file or a pipe. */
enum play_result play_raw(const char *path, double at_s, char *text, size_t text_len);

#endif
