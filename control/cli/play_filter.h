/*
 * What a recording may do to the terminal that plays it: an allow-list. A pure state machine, bytes
 * in, bytes out; recordings come from strangers' screens, so this is fuzzed.
 *
 * Passed: printable text in valid UTF-8, BEL BS HT LF VT FF CR SO SI, cursor movement, erasing,
 * inserting and deleting, colours and attributes, scroll regions, tabs, line drawing, cursor shape
 * and visibility, wrap, origin and insert mode, the alternate screen. Everything else is dropped
 * and counted: control strings (OSC with the clipboard and titles, DCS, APC, PM, SOS), questions a
 * terminal would answer (DA, DSR, ENQ, window reports, DECRQSS), mouse, focus, paste and keyboard
 * modes, printing, character sets beyond ASCII and line drawing, 8-bit controls.
 */
#ifndef CONTROL_CLI_PLAY_FILTER_H
#define CONTROL_CLI_PLAY_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>

#define PLAY_FILTER_SEQUENCE_MAX 256           /* a longer control sequence is dropped whole */
#define PLAY_FILTER_STRING_MAX   (1024 * 1024) /* a longer control string is taken for text again */

enum play_filter_state {
    PLAY_GROUND,
    PLAY_ESCAPE,
    PLAY_CSI,
    PLAY_STRING,       /* inside OSC, DCS, APC, PM or SOS: nothing gets out */
    PLAY_STRING_ESCAPE /* ESC seen inside one: "\" ends it */
};

struct play_filter {
    enum play_filter_state state;
    uint8_t introducer;                         /* of the control string: ']' 'P' '_' '^' 'X' */
    uint8_t sequence[PLAY_FILTER_SEQUENCE_MAX]; /* after ESC, or after CSI */
    size_t sequence_len;
    bool is_overlong; /* of the sequence being read: more than fits */
    size_t string_len;
    uint8_t utf8[4]; /* a character that is not complete yet */
    size_t utf8_len, utf8_need;
    bool is_alternate; /* the alternate screen is on, as far as what was passed says */
    uint64_t dropped;  /* sequences, strings and controls left out */
    uint64_t unclosed; /* control strings without an end: they hid text from every screen */
};

void play_filter_init(struct play_filter *f);

/* Appends to out what may pass. A sequence cut at the end of data goes on with the next call. */
void play_filter_feed(struct play_filter *f, const uint8_t *data, size_t len, struct buffer *out);

/* Appends what brings the terminal back to normal after a playback, whatever was passed. */
void play_filter_reset(struct play_filter *f, struct buffer *out);

#endif
