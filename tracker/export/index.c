/* See index.h. Reading is pure but for the memory of pictures. */
#include "tracker/export/index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zstd.h>

#include <sallyport/buffer.h>

#define VERSION       1
#define TYPE_PICTURE  1
#define TYPE_END      2
#define IS_DIFFERENCE 1
#define STILL_US      1000000u        /* what stands this long is kept */
#define EVERY_US      1000000u        /* of a busy desktop, at first */
#define CHAPTER       (INDEX_MAX / 4) /* after each of so many bytes pictures are half as many */
#define WHOLE_EVERY   16              /* pictures: one is kept whole */
#define LEVEL         1

static const char magic[4] = {'S', 'P', 'I', 'X'};

int index_identify(int fd, struct index_identity *out)
{
    struct stat st;

    memset(out, 0, sizeof(*out));
    if (fstat(fd, &st) < 0)
        return ERR_SYSTEM;
    out->length = (uint64_t)st.st_size;
    if (st.st_size >= INDEX_TAIL && pread(fd, out->tail, INDEX_TAIL, st.st_size - INDEX_TAIL) < 0)
        return ERR_SYSTEM;
    return 0;
}

/* ---- reading ---- */

enum parse index_head(struct cursor *c, const struct index_identity *identity)
{
    const uint8_t *bytes, *tail;
    uint64_t length, zero;

    if (!cursor_take(c, 8, &bytes) || memcmp(bytes, magic, sizeof(magic)) != 0 ||
        bytes[4] != VERSION || !cursor_be64(c, &length) || !cursor_take(c, INDEX_TAIL, &tail) ||
        !cursor_be64(c, &zero))
        return PARSE_BAD;
    return length == identity->length && memcmp(tail, identity->tail, INDEX_TAIL) == 0 ? PARSE_OK
                                                                                       : PARSE_BAD;
}

static bool take_picture(struct cursor *c, uint8_t flags, struct index_key *out)
{
    uint32_t zero;

    if (!cursor_be64(c, &out->at_us) || !cursor_be64(c, &out->until_us) ||
        !cursor_be16(c, &out->width) || !cursor_be16(c, &out->height) || !cursor_be32(c, &zero))
        return false;
    out->is_difference = flags & IS_DIFFERENCE;
    out->packed = *c;
    return out->width > 0 && out->height > 0 && out->width <= DECODER_SIZE_MAX &&
           out->height <= DECODER_SIZE_MAX && out->at_us <= out->until_us;
}

enum parse index_next(struct cursor *c, struct index_key *key, struct index_end *end)
{
    struct cursor body;
    uint8_t type, flags;
    uint16_t zero;
    uint32_t len;

    while (cursor_u8(c, &type)) {
        if (!cursor_u8(c, &flags) || !cursor_be16(c, &zero) || !cursor_be32(c, &len) ||
            !cursor_sub(c, len, &body))
            return PARSE_BAD;
        if (type == TYPE_PICTURE)
            return take_picture(&body, flags, key) ? PARSE_OK : PARSE_BAD;
        if (type == TYPE_END)
            return cursor_be64(&body, &end->begin_us) && cursor_be64(&body, &end->covered_us) &&
                           cursor_be64(&body, &end->end_us)
                       ? PARSE_MORE
                       : PARSE_BAD;
    }
    return PARSE_BAD;
}

/* *out is the picture before, or empty. */
static int unpack(const struct index_key *key, struct shot *out)
{
    size_t len = (size_t)4 * key->width * key->height;
    uint8_t *pixels;
    size_t n;

    if (key->is_difference && (out->width != key->width || out->height != key->height))
        return ERR_CORRUPT;
    if (ZSTD_getFrameContentSize(key->packed.at, cursor_left(&key->packed)) != len)
        return ERR_CORRUPT;
    pixels = malloc(len);
    if (!pixels)
        return ERR_MEMORY;
    n = ZSTD_decompress(pixels, len, key->packed.at, cursor_left(&key->packed));
    if (ZSTD_isError(n) || n != len ||
        (!key->is_difference && shot_resize(out, key->width, key->height) < 0)) {
        free(pixels);
        return ERR_CORRUPT;
    }
    for (size_t i = 0; i < len; i++)
        out->pixels[i] = key->is_difference ? out->pixels[i] ^ pixels[i] : pixels[i];
    free(pixels);
    return 0;
}

/* From the last whole picture up to the one that answers. */
static int unpack_until(struct cursor from, uint64_t at_us, struct shot *out, struct index_key *key)
{
    struct index_key next;
    struct index_end end;
    int r = ERR_NOT_FOUND;

    while (index_next(&from, &next, &end) == PARSE_OK && next.at_us <= at_us) {
        *key = next;
        r = unpack(key, out);
        if (r < 0)
            return r;
    }
    return r;
}

int index_find(struct cursor file, const struct index_identity *identity, uint64_t at_us,
               struct shot *out, struct index_key *key)
{
    struct cursor whole = {NULL, NULL};
    struct index_end end;
    struct index_key next;
    enum parse p;

    if (index_head(&file, identity) != PARSE_OK)
        return ERR_NOT_FOUND;
    while (true) {
        struct cursor at = file;

        p = index_next(&file, &next, &end);
        if (p != PARSE_OK)
            break;
        if (!next.is_difference && next.at_us <= at_us)
            whole = at;
    }
    if (p == PARSE_BAD)
        return ERR_CORRUPT;
    if (!whole.at || at_us > end.covered_us)
        return ERR_NOT_FOUND;
    return unpack_until(whole, at_us, out, key);
}

int index_longest(struct cursor file, const struct index_identity *identity, uint64_t *at_us)
{
    struct index_end end = {0, 0, 0};
    uint64_t longest = 0;
    struct index_key key;
    bool has_any = false;
    enum parse p;

    if (index_head(&file, identity) != PARSE_OK)
        return ERR_NOT_FOUND;
    while ((p = index_next(&file, &key, &end)) == PARSE_OK) {
        if (has_any && key.until_us - key.at_us <= longest)
            continue;
        has_any = true;
        longest = key.until_us - key.at_us;
        *at_us = key.at_us;
    }
    if (p == PARSE_BAD)
        return ERR_CORRUPT;
    return has_any && end.begin_us == 0 && end.covered_us >= end.end_us ? 0 : ERR_NOT_FOUND;
}

int index_end_time(struct cursor file, const struct index_identity *identity, uint64_t *end_us)
{
    struct index_end end = {0, 0, 0};
    struct index_key key;
    enum parse p;

    if (index_head(&file, identity) != PARSE_OK)
        return ERR_NOT_FOUND;
    while ((p = index_next(&file, &key, &end)) == PARSE_OK)
        ;
    *end_us = end.end_us;
    return p == PARSE_MORE && end.covered_us >= end.end_us ? 0 : ERR_NOT_FOUND;
}

/* ---- writing ---- */

struct index_writer {
    int fd;
    bool failed;
    uint64_t len;
    struct shot last; /* what was kept last */
    uint64_t last_us;
    size_t count;
    uint8_t *difference, *packed;
    size_t cap, packed_cap;
};

static void write_bytes(struct index_writer *w, const void *data, size_t len)
{
    const uint8_t *at = data;

    while (len > 0 && !w->failed) {
        ssize_t n = write(w->fd, at, len);

        if (n < 0 && errno == EINTR)
            continue;
        w->failed = n <= 0;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
            w->len += (uint64_t)n;
        }
    }
}

static void write_record(struct index_writer *w, uint8_t type, uint8_t flags,
                         const struct buffer *head, const void *data, size_t len)
{
    struct buffer b;

    buffer_init(&b, 64);
    buffer_put_be(&b, type, 1);
    buffer_put_be(&b, flags, 1);
    buffer_put_be(&b, 0, 2);
    buffer_put_be(&b, head->len + len, 4);
    buffer_put(&b, head->data, head->len);
    if (b.failed || head->failed)
        w->failed = true;
    else
        write_bytes(w, b.data, b.len);
    buffer_finish(&b);
    write_bytes(w, data, len);
}

struct index_writer *index_writer_create(int fd, const struct index_identity *identity)
{
    struct index_writer *w = calloc(1, sizeof(*w));
    struct buffer b;

    if (!w)
        return NULL;
    w->fd = fd;
    buffer_init(&b, 64);
    buffer_put(&b, magic, sizeof(magic));
    buffer_put_be(&b, (uint32_t)VERSION << 24, 4);
    buffer_put_be(&b, identity->length, 8);
    buffer_put(&b, identity->tail, INDEX_TAIL);
    buffer_put_be(&b, 0, 8);
    if (b.failed)
        w->failed = true;
    else
        write_bytes(w, b.data, b.len);
    buffer_finish(&b);
    return w;
}

static bool make_room(struct index_writer *w, size_t len)
{
    uint8_t *difference, *packed;

    if (len <= w->cap)
        return true;
    difference = realloc(w->difference, len);
    if (difference)
        w->difference = difference;
    packed = realloc(w->packed, ZSTD_compressBound(len));
    if (packed)
        w->packed = packed;
    if (!difference || !packed)
        return false;
    w->cap = len;
    w->packed_cap = ZSTD_compressBound(len);
    return true;
}

/* What is compressed: the picture, or what is different in it. */
static const uint8_t *choose(struct index_writer *w, const struct shot *s, bool is_difference)
{
    size_t len = shot_len(s);

    if (!is_difference)
        return s->pixels;
    for (size_t i = 0; i < len; i++)
        w->difference[i] = s->pixels[i] ^ w->last.pixels[i];
    return w->difference;
}

static void keep(struct index_writer *w, uint64_t at_us, uint64_t until_us, const struct shot *s)
{
    bool is_difference =
        w->count % WHOLE_EVERY != 0 && w->last.width == s->width && w->last.height == s->height;
    const struct decoder_screen same = {s->pixels, s->width * 4, s->width, s->height};
    size_t n, len = shot_len(s);
    struct buffer head;

    if (!make_room(w, len)) {
        w->failed = true;
        return;
    }
    n = ZSTD_compress(w->packed, w->packed_cap, choose(w, s, is_difference), len, LEVEL);
    buffer_init(&head, 64);
    buffer_put_be(&head, at_us, 8);
    buffer_put_be(&head, until_us, 8);
    buffer_put_be(&head, s->width, 2);
    buffer_put_be(&head, s->height, 2);
    buffer_put_be(&head, 0, 4);
    if (ZSTD_isError(n) || shot_copy(&w->last, &same) < 0)
        w->failed = true;
    else
        write_record(w, TYPE_PICTURE, is_difference ? IS_DIFFERENCE : 0, &head, w->packed, n);
    buffer_finish(&head);
    w->last_us = at_us;
    w->count = is_difference ? w->count + 1 : 1;
}

void index_writer_add(struct index_writer *w, uint64_t at_us, uint64_t until_us,
                      const struct shot *s)
{
    uint64_t rarer = w->len / CHAPTER;
    bool is_due = w->count == 0 || at_us - w->last_us >= (uint64_t)EVERY_US << rarer;

    if (w->failed || w->len >= INDEX_MAX)
        return;
    if (is_due || until_us - at_us >= (uint64_t)STILL_US << rarer)
        keep(w, at_us, until_us, s);
}

int index_writer_finish(struct index_writer *w, const struct index_end *end)
{
    struct buffer head;
    bool failed;

    buffer_init(&head, 64);
    buffer_put_be(&head, end->begin_us, 8);
    buffer_put_be(&head, end->covered_us, 8);
    buffer_put_be(&head, end->end_us, 8);
    write_record(w, TYPE_END, 0, &head, NULL, 0);
    buffer_finish(&head);
    failed = w->failed;
    shot_finish(&w->last);
    free(w->difference);
    free(w->packed);
    free(w);
    return failed ? ERR_SYSTEM : 0;
}
