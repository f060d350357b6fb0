/*
 * The writing end of the container, the same for terminals and desktops: one frame of plain bytes
 * is open at most; when it is closed it is compressed, gets its side records, hash and chain, and
 * goes out in one write(). What the plain bytes mean is the business of writer.c (asciicast) and
 * desktop_writer.c (RDP). It runs in the relay, under its filter: write(), mmap() and munmap() are
 * all it calls. It never seeks, truncates or opens. A failed write is final: errno is kept and
 * every later call returns it.
 *
 * Memory: everything a frame needs (text, side records, outgoing segment, compressor) is one
 * mapping that is made with the frame's first byte and unmapped at its end, so that an idle
 * recording holds a few hundred bytes. In bulk, when frames are closed because they are full, the
 * mapping stays for the next one, since mapping it anew would cost more than filling it.
 */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_initStaticCCtx: a compressor in our own mapping */
#include "tracker/recording/recording_priv.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <zstd.h>

#include <sallyport/clock.h>

#define OUT_BYTES  (ZSTD_COMPRESSBOUND(RECORDING_FRAME_BYTES) + SEGMENT_SIDE_BYTES + 2048)
#define WINDOW_LOG 16

/* The mapping. Ordered so that what a small frame touches is few pages. */
struct frame_memory {
    uint8_t plain[RECORDING_FRAME_BYTES];
    uint8_t side[SEGMENT_SIDE_BYTES];
    uint8_t out[OUT_BYTES];
    uint64_t workspace[]; /* the compressor */
};

void segment_init(struct segment_writer *w, int fd, const struct container_head *head,
                  recording_frame_fn on_frame, void *arg)
{
    memset(w, 0, sizeof(*w));
    w->fd = fd;
    w->head = *head;
    w->on_frame = on_frame;
    w->arg = arg;
    w->level = 1;
}

void segment_release(struct segment_writer *w)
{
    if (w->m)
        munmap(w->m, w->m_len);
    w->m = NULL;
    w->plain = NULL;
    w->compressor = NULL;
}

void segment_finish(struct segment_writer *w)
{
    segment_release(w);
    close(w->fd);
}

int segment_fail(struct segment_writer *w, int error)
{
    w->failed = error ? error : EIO;
    w->is_open = false;
    segment_release(w);
    errno = w->failed;
    return ERR_SYSTEM;
}

int segment_check(struct segment_writer *w)
{
    if (w->failed == 0 && w->is_closed)
        w->failed = EBADF;
    if (w->failed == 0)
        return 0;
    errno = w->failed;
    return ERR_SYSTEM;
}

int64_t segment_time(struct segment_writer *w, int64_t now_ms)
{
    if (!w->is_started) {
        w->is_started = true;
        w->start_ms = now_ms;
    }
    if (now_ms - w->start_ms > w->last_ms)
        w->last_ms = now_ms - w->start_ms;
    return w->last_ms;
}

/* Fast levels need no more than level 1 does. */
static ZSTD_compressionParameters compression(void)
{
    ZSTD_compressionParameters p = ZSTD_getCParams(1, RECORDING_FRAME_BYTES, 0);

    p.windowLog = WINDOW_LOG;
    return p;
}

static int map_memory(struct segment_writer *w)
{
    size_t workspace = ZSTD_estimateCCtxSize_usingCParams(compression());

    w->m_len = sizeof(struct frame_memory) + workspace;
    w->m = mmap(NULL, w->m_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (w->m == MAP_FAILED) {
        w->m = NULL;
        return segment_fail(w, errno);
    }
    w->plain = w->m->plain;
    return 0;
}

int segment_open(struct segment_writer *w, int64_t now_ms)
{
    if (!w->m && map_memory(w) < 0)
        return ERR_SYSTEM;
    (void)segment_time(w, now_ms);
    w->is_open = true;
    w->opened_ms = now_ms;
    w->opened_wall_us = clock_wall_us();
    w->plain_len = 0;
    w->event_count = 0;
    w->side = (struct side_log){.data = w->m->side, .record_at = SIZE_MAX};
    return 0;
}

static int write_all(struct segment_writer *w, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(w->fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return segment_fail(w, n < 0 ? errno : ENOSPC);
        data += n;
        len -= (size_t)n;
        w->file_len += (uint64_t)n;
    }
    return 0;
}

static bool sha256(const void *data, size_t len, uint8_t out[RECORDING_CHAIN_LEN])
{
    return EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1;
}

/* A compressor in the mapping. No checksum of its own: the segment's hash covers the frame. */
static ZSTD_CCtx *make_compressor(struct frame_memory *m, size_t m_len)
{
    ZSTD_compressionParameters p = compression();
    ZSTD_CCtx *c =
        ZSTD_initStaticCCtx(m->workspace, m_len - offsetof(struct frame_memory, workspace));

    /* a static compressor begins without its defaults, content size among them */
    if (!c || ZSTD_isError(ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_windowLog, (int)p.windowLog)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_hashLog, (int)p.hashLog)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_chainLog, (int)p.chainLog)))
        return NULL;
    return c;
}

/* Compress the plain bytes of the frame to `to`; NULL: failed. */
static uint8_t *put_frame(struct segment_writer *w, uint8_t *to)
{
    size_t n;

    if (!w->compressor && !(w->compressor = make_compressor(w->m, w->m_len)))
        return NULL;
    if (ZSTD_isError(ZSTD_CCtx_setParameter(w->compressor, ZSTD_c_compressionLevel, w->level)))
        return NULL;
    n = ZSTD_compress2(w->compressor, to, ZSTD_COMPRESSBOUND(RECORDING_FRAME_BYTES), w->plain,
                       w->plain_len);
    if (ZSTD_isError(n))
        return NULL;
    w->packed_len = n;
    return to + n;
}

int segment_write(struct segment_writer *w, const struct container_end *end)
{
    struct container_trailer t = {
        .sequence = w->sequence + 1,
        .offset = w->file_len,
        .plain_len = (uint32_t)w->plain_len,
        .event_count = w->event_count,
        .first_ms = (uint64_t)(w->opened_ms - w->start_ms),
        .last_ms = (uint64_t)w->last_ms,
        .wall_us = w->opened_wall_us,
    };
    uint8_t *out = w->m->out, *to = out, chained[2 * RECORDING_CHAIN_LEN];

    if (t.first_ms > t.last_ms)
        t.first_ms = t.last_ms;
    if (w->sequence == 0) {
        to = container_put_head(to, &w->head);
        if (!sha256(out + CONTAINER_SKIP_HEADER, CONTAINER_HEAD_LEN, w->chain))
            return segment_fail(w, EIO);
    }
    if (w->plain_len > 0 && !(to = put_frame(w, to)))
        return segment_fail(w, EIO);
    if (w->side.len > 0)
        to = container_put_side(to, w->side.data, w->side.len);
    if (end)
        to = container_put_end(to, end);
    to = container_put_trailer(to, &t);
    memcpy(chained, w->chain, RECORDING_CHAIN_LEN);
    if (!sha256(out, (size_t)(to - out), t.hash))
        return segment_fail(w, EIO);
    memcpy(chained + RECORDING_CHAIN_LEN, t.hash, RECORDING_CHAIN_LEN);
    if (!sha256(chained, sizeof(chained), t.chain))
        return segment_fail(w, EIO);
    to = container_put_hashes(to, &t);
    if (write_all(w, out, (size_t)(to - out)) < 0)
        return ERR_SYSTEM;
    memcpy(w->chain, t.chain, RECORDING_CHAIN_LEN);
    w->sequence++;
    w->is_open = false;
    if (w->on_frame)
        w->on_frame(w->sequence, w->file_len, w->chain, w->arg);
    return 0;
}

int segment_write_full(struct segment_writer *w, int64_t now_ms)
{
    w->kept_until_ms = now_ms + RECORDING_FRAME_MS;
    return segment_write(w, NULL);
}

bool segment_is_old(const struct segment_writer *w, int64_t now_ms)
{
    return w->is_open && now_ms - w->opened_ms >= RECORDING_FRAME_MS;
}

int64_t segment_due(struct segment_writer *w, int64_t now_ms)
{
    if (w->is_open)
        return w->opened_ms + RECORDING_FRAME_MS - now_ms;
    if (w->m && now_ms < w->kept_until_ms)
        return w->kept_until_ms - now_ms;
    segment_release(w);
    return -1;
}
