/*
 * libfreerdp as a decoder: a client without a window, on one end of a socketpair. What it was sent
 * is in a picture in memory. The other end is server.c's.
 */
#ifndef EXPORT_DECODER_H
#define EXPORT_DECODER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define DECODER_SIZE_MAX 16384 /* pixels of a side */

struct decoder;

/* Loads what the library wants from files, so call it before the sandbox. fd is one end of a
 * socketpair, owned from here on, also on failure. NULL: the library cannot be made to work. */
struct decoder *decoder_create(int fd);
/* Begin, in a thread of the decoder's own, with a desktop of this size. */
MUST_CHECK int decoder_start(struct decoder *d, uint16_t width, uint16_t height);
/* The first activation is behind it: everything may be sent. */
bool decoder_is_ready(const struct decoder *d);
/* It gave up, and no more can be decoded. */
bool decoder_has_failed(const struct decoder *d);

/* What follows holds only while the decoder has nothing left to do: between server_sync() and the
 * next bytes that it is sent. */

struct decoder_screen {
    const uint8_t *pixels; /* blue, green, red, unused; borrowed */
    uint32_t stride, width, height;
};
/* False: there is none yet. */
MUST_CHECK bool decoder_screen(const struct decoder *d, struct decoder_screen *out);
/* Whether anything was drawn, or the pointer became another one, since the last call. */
bool decoder_take_change(struct decoder *d);

struct decoder_pointer {
    const uint8_t *pixels; /* blue, green, red, alpha; NULL: hidden. Borrowed */
    uint32_t width, height;
    uint32_t hot_x, hot_y;
};
void decoder_pointer(const struct decoder *d, struct decoder_pointer *out);
/* Where the target put the pointer since the last call, if it did. */
bool decoder_take_position(struct decoder *d, uint16_t *x, uint16_t *y);

#endif
