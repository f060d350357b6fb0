/*
 * A growing byte buffer with a cap and a sticky failure flag. Writers append without checking;
 * the caller checks `failed` once at the end. Out of memory and "past the cap" both set it, after
 * which nothing more is appended. All integers are written big-endian.
 */
#ifndef SALLYPORT_BUFFER_H
#define SALLYPORT_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct buffer {
    uint8_t *data;
    size_t len;     /* bytes held */
    size_t cap;     /* bytes allocated */
    size_t max_len; /* never grows past this */
    bool failed;
    bool is_secret; /* wiped before any free, growing included */
};

/* Starts empty and allocates nothing. buffer_finish() frees; the struct may then be used again. */
void buffer_init(struct buffer *b, size_t max_len);
void buffer_init_secret(struct buffer *b, size_t max_len);
void buffer_finish(struct buffer *b);

/* Forget the content, keep the memory and clear `failed`. Secrets are wiped. */
void buffer_reset(struct buffer *b);

void buffer_put(struct buffer *b, const void *data, size_t len);
void buffer_put_str(struct buffer *b, const char *text); /* without the NUL */
void buffer_put_be(struct buffer *b, uint64_t value, size_t bytes);
void buffer_printf(struct buffer *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Drop the first n bytes (n <= len). */
void buffer_consume(struct buffer *b, size_t n);

/* The content as a C string, borrowed until the next change; NULL when failed. Adds a NUL that
 * does not count in len. */
const char *buffer_cstr(struct buffer *b);

#endif
