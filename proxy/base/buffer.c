/*
 * The growing byte buffer. Always allocates one byte more than it may hold, for the NUL of
 * buffer_cstr() and buffer_printf(). Doubles up to its cap; used by everything that writes a
 * message, a reply or a file.
 */
#include <sallyport/buffer.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/secret.h>

#define BUFFER_FIRST 64

void buffer_init(struct buffer *b, size_t max_len)
{
    memset(b, 0, sizeof(*b));
    b->max_len = max_len < SIZE_MAX ? max_len : SIZE_MAX - 1; /* one byte is the NUL's */
}

void buffer_init_secret(struct buffer *b, size_t max_len)
{
    buffer_init(b, max_len);
    b->is_secret = true;
}

static void release(struct buffer *b)
{
    if (b->is_secret)
        memory_wipe(b->data, b->cap);
    free(b->data);
    b->data = NULL;
    b->cap = 0;
}

void buffer_finish(struct buffer *b)
{
    release(b);
    b->len = 0;
    b->failed = false;
}

void buffer_reset(struct buffer *b)
{
    if (b->is_secret)
        memory_wipe(b->data, b->cap);
    b->len = 0;
    b->failed = false;
}

/* realloc() would leave a copy of a secret behind, so that those are moved by hand. */
static bool resize(struct buffer *b, size_t cap)
{
    uint8_t *data;

    if (b->is_secret) {
        data = malloc(cap);
        if (!data)
            return false;
        if (b->len)
            memcpy(data, b->data, b->len);
        release(b);
    } else {
        data = realloc(b->data, cap);
        if (!data)
            return false;
    }
    b->data = data;
    b->cap = cap;
    return true;
}

/* Room for `extra` bytes and a NUL, or the sticky failure. */
static bool reserve(struct buffer *b, size_t extra)
{
    size_t need, cap;

    if (b->failed)
        return false;
    if (b->len > b->max_len || extra > b->max_len - b->len) {
        b->failed = true;
        return false;
    }
    need = b->len + extra + 1;
    if (need <= b->cap)
        return true;
    cap = b->cap ? b->cap : BUFFER_FIRST;
    while (cap < need)
        cap = cap > SIZE_MAX / 2 ? need : cap * 2;
    if (cap > b->max_len + 1)
        cap = b->max_len + 1;
    if (!resize(b, cap)) {
        b->failed = true;
        return false;
    }
    return true;
}

void buffer_put(struct buffer *b, const void *data, size_t len)
{
    if (!reserve(b, len) || !len)
        return;
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

void buffer_put_str(struct buffer *b, const char *text)
{
    buffer_put(b, text, strlen(text));
}

void buffer_put_be(struct buffer *b, uint64_t value, size_t bytes)
{
    uint8_t out[8];

    if (bytes > sizeof(out) || (bytes < sizeof(out) && value >> (8 * bytes))) {
        b->failed = true; /* a value that does not fit is never cut in silence */
        return;
    }
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
    buffer_put(b, out, bytes);
}

void buffer_printf(struct buffer *b, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0) {
        b->failed = true;
        return;
    }
    if (!reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)n;
}

void buffer_consume(struct buffer *b, size_t n)
{
    size_t rest;

    if (!n)
        return;
    if (n > b->len)
        n = b->len;
    rest = b->len - n;
    memmove(b->data, b->data + n, rest);
    if (b->is_secret)
        memory_wipe(b->data + rest, n);
    b->len = rest;
}

const char *buffer_cstr(struct buffer *b)
{
    if (!reserve(b, 0))
        return NULL;
    b->data[b->len] = 0;
    return (const char *)b->data;
}
