/* See video.h. */
#include "tracker/export/video.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/opt.h>
#include <libswscale/swscale.h>

#define IO_BUFFER  (64 * 1024)
#define TIME_BASE  1000 /* milliseconds */
#define GOP_FRAMES 250  /* at most between two frames that a player can begin at */
#define SLOTS      2

struct slot {
    AVFrame *frame; /* in the encoder's colours */
    int64_t at_ms;
};

struct video {
    int fd;
    uint32_t width, height;
    AVFormatContext *format;
    AVIOContext *io;
    AVCodecContext *codec;
    AVStream *stream;
    AVPacket *packet;
    AVPacket *last; /* its duration is known when the next one comes */
    bool has_last;
    int64_t last_put_ms;
    bool has_put;
    struct SwsContext *sws;
    struct shot canvas;
    uint32_t drawn_width, drawn_height; /* of the desktop on the canvas */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct slot slots[SLOTS];
    unsigned filled, first; /* slots that wait to be encoded */
    bool is_over;
    int failed; /* an error of libav */
};

/* ---- the file ---- */

#if LIBAVFORMAT_VERSION_MAJOR >= 61
typedef const uint8_t *io_bytes;
#else
typedef uint8_t *io_bytes;
#endif

static int io_write(void *opaque, io_bytes data, int len)
{
    const struct video *v = opaque;
    int done = 0;

    while (done < len) {
        ssize_t n = write(v->fd, data + done, (size_t)(len - done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return AVERROR(n < 0 ? errno : ENOSPC);
        done += (int)n;
    }
    return len;
}

static int64_t io_seek(void *opaque, int64_t offset, int whence)
{
    const struct video *v = opaque;
    off_t at = whence == AVSEEK_SIZE ? -1 : lseek(v->fd, offset, whence);

    return at < 0 ? AVERROR(EINVAL) : at;
}

/* ---- the encoder ---- */

/* What libavcodec may have that runs in software; the rest wants devices. */
static const AVCodec *find_encoder(void)
{
    static const char *const names[] = {"libx264", "libopenh264"};
    const AVCodec *codec = NULL;

    for (size_t i = 0; !codec && i < sizeof(names) / sizeof(names[0]); i++)
        codec = avcodec_find_encoder_by_name(names[i]);
    return codec;
}

static void set_up_codec(struct video *v)
{
    AVCodecContext *c = v->codec;

    c->width = (int)v->width;
    c->height = (int)v->height;
    c->pix_fmt = AV_PIX_FMT_YUV420P;
    c->time_base = (AVRational){1, TIME_BASE};
    c->framerate = (AVRational){25, 1};
    c->gop_size = GOP_FRAMES;
    c->max_b_frames = 0;
    c->thread_count = 1;
    c->color_range = AVCOL_RANGE_MPEG;
    c->colorspace = AVCOL_SPC_BT709;
    c->color_primaries = AVCOL_PRI_BT709;
    c->color_trc = AVCOL_TRC_IEC61966_2_1;
    if (v->format->oformat->flags & AVFMT_GLOBALHEADER)
        c->flags |= AV_CODEC_FLAG_GLOBAL_HEADER;
    if (strcmp(c->codec->name, "libx264") == 0) {
        (void)av_opt_set(c->priv_data, "preset", "ultrafast", 0);
        (void)av_opt_set(c->priv_data, "tune", "zerolatency", 0);
        (void)av_opt_set(c->priv_data, "crf", "23", 0);
    } else {
        c->bit_rate = 2000 * 1000;
    }
}

/* Colours as the stream says they are: BT.709. */
static bool make_converter(struct video *v)
{
    const int *bt709 = sws_getCoefficients(SWS_CS_ITU709);

    v->sws =
        sws_getContext((int)v->width, (int)v->height, AV_PIX_FMT_BGR0, (int)v->width,
                       (int)v->height, AV_PIX_FMT_YUV420P, SWS_FAST_BILINEAR, NULL, NULL, NULL);
    if (!v->sws || sws_setColorspaceDetails(v->sws, bt709, 1, bt709, 0, 0, 1 << 16, 1 << 16) < 0)
        return false;
    for (size_t i = 0; i < SLOTS; i++) {
        AVFrame *frame = v->slots[i].frame = av_frame_alloc();

        if (!frame)
            return false;
        frame->format = AV_PIX_FMT_YUV420P;
        frame->width = (int)v->width;
        frame->height = (int)v->height;
        frame->color_range = AVCOL_RANGE_MPEG;
        frame->colorspace = AVCOL_SPC_BT709;
        if (av_frame_get_buffer(frame, 0) < 0)
            return false;
    }
    return true;
}

/* The packet's duration is only known now. */
static int write_last(struct video *v, int64_t until_ms)
{
    if (!v->has_last)
        return 0;
    v->has_last = false;
    v->last->duration = until_ms > v->last->pts ? until_ms - v->last->pts : 1;
    v->last->stream_index = v->stream->index;
    av_packet_rescale_ts(v->last, v->codec->time_base, v->stream->time_base);
    return av_write_frame(v->format, v->last);
}

static int take_packets(struct video *v)
{
    int r;

    while ((r = avcodec_receive_packet(v->codec, v->packet)) == 0) {
        r = write_last(v, v->packet->pts);
        if (r < 0)
            return r;
        av_packet_unref(v->last);
        av_packet_move_ref(v->last, v->packet);
        v->has_last = true;
    }
    return r == AVERROR(EAGAIN) || r == AVERROR_EOF ? 0 : r;
}

static int encode(struct video *v, struct slot *slot)
{
    int r;

    slot->frame->pts = slot->at_ms;
    slot->frame->pict_type = AV_PICTURE_TYPE_NONE;
    r = avcodec_send_frame(v->codec, slot->frame);
    return r < 0 ? r : take_packets(v);
}

static void *run(void *arg)
{
    struct video *v = arg;
    int r = 0;

    pthread_mutex_lock(&v->lock);
    while (true) {
        while (v->filled == 0 && !v->is_over)
            pthread_cond_wait(&v->changed, &v->lock);
        if (v->filled == 0)
            break;
        pthread_mutex_unlock(&v->lock);
        if (r >= 0)
            r = encode(v, &v->slots[v->first]);
        pthread_mutex_lock(&v->lock);
        v->failed = r < 0 ? r : 0;
        v->first = (v->first + 1) % SLOTS;
        v->filled--;
        pthread_cond_signal(&v->changed);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

/* ---- from outside ---- */

static bool open_file(struct video *v)
{
    uint8_t *buffer = av_malloc(IO_BUFFER);

    v->io = buffer ? avio_alloc_context(buffer, IO_BUFFER, 1, v, NULL, io_write, io_seek) : NULL;
    if (!v->io) {
        av_free(buffer);
        return false;
    }
    v->io->seekable = AVIO_SEEKABLE_NORMAL;
    v->format->pb = v->io;
    v->stream = avformat_new_stream(v->format, NULL);
    if (!v->stream)
        return false;
    v->stream->time_base = v->codec->time_base;
    return avcodec_parameters_from_context(v->stream->codecpar, v->codec) >= 0 &&
           avformat_write_header(v->format, NULL) >= 0;
}

static void destroy(struct video *v)
{
    if (v->has_thread) {
        pthread_mutex_lock(&v->lock);
        v->is_over = true;
        pthread_cond_signal(&v->changed);
        pthread_mutex_unlock(&v->lock);
        pthread_join(v->thread, NULL);
    }
    for (size_t i = 0; i < SLOTS; i++)
        av_frame_free(&v->slots[i].frame);
    sws_freeContext(v->sws);
    avcodec_free_context(&v->codec);
    av_packet_free(&v->packet);
    av_packet_free(&v->last);
    if (v->io)
        av_freep(&v->io->buffer);
    avio_context_free(&v->io);
    avformat_free_context(v->format);
    shot_finish(&v->canvas);
    free(v);
}

static bool set_up(struct video *v, const AVCodec *codec)
{
    if (avformat_alloc_output_context2(&v->format, NULL, "mp4", NULL) < 0)
        return false;
    v->codec = avcodec_alloc_context3(codec);
    v->packet = av_packet_alloc();
    v->last = av_packet_alloc();
    if (!v->codec || !v->packet || !v->last || shot_resize(&v->canvas, v->width, v->height) < 0)
        return false;
    set_up_codec(v);
    return avcodec_open2(v->codec, codec, NULL) == 0 && make_converter(v) && open_file(v);
}

struct video *video_create(int fd, uint32_t width, uint32_t height, char *err, size_t err_len)
{
    const AVCodec *codec = find_encoder();
    struct video *v;

    if (!codec) {
        snprintf(err, err_len, "libavcodec has no H.264 encoder here (libx264 or libopenh264)");
        return NULL;
    }
    v = calloc(1, sizeof(*v));
    if (!v)
        return NULL;
    v->fd = fd;
    v->width = width;
    v->height = height;
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    v->has_thread = set_up(v, codec) && pthread_create(&v->thread, NULL, run, v) == 0;
    if (!v->has_thread) {
        snprintf(err, err_len, "libavcodec's encoder %s cannot make a video of %ux%u", codec->name,
                 width, height);
        destroy(v);
        return NULL;
    }
    return v;
}

/* What was on the canvas outside of the desktop belongs to a larger one before it. */
static void paint(struct video *v, const struct shot *s)
{
    uint32_t width = s->width < v->width ? s->width : v->width;
    uint32_t height = s->height < v->height ? s->height : v->height;

    if (width != v->drawn_width || height != v->drawn_height)
        memset(v->canvas.pixels, 0, shot_len(&v->canvas));
    v->drawn_width = width;
    v->drawn_height = height;
    for (uint32_t y = 0; y < height; y++)
        memcpy(v->canvas.pixels + (size_t)4 * y * v->width, s->pixels + (size_t)4 * y * s->width,
               (size_t)4 * width);
}

static void convert(struct video *v, const struct shot *s, AVFrame *frame)
{
    const uint8_t *from[4] = {s->pixels};
    const int stride[4] = {(int)v->width * 4};

    if (s->width != v->width || s->height != v->height) {
        paint(v, s);
        from[0] = v->canvas.pixels;
    }
    sws_scale(v->sws, from, stride, 0, (int)v->height, frame->data, frame->linesize);
}

int video_put(struct video *v, const struct shot *s, uint64_t at_us)
{
    int64_t at_ms = (int64_t)(at_us / 1000);
    struct slot *slot;
    int failed;

    if (v->has_put && at_ms <= v->last_put_ms)
        at_ms = v->last_put_ms + 1;
    pthread_mutex_lock(&v->lock);
    while (v->filled == SLOTS && !v->failed)
        pthread_cond_wait(&v->changed, &v->lock);
    slot = &v->slots[(v->first + v->filled) % SLOTS];
    failed = v->failed;
    pthread_mutex_unlock(&v->lock);
    /* the encoder may still hold what it was given last */
    if (failed || av_frame_make_writable(slot->frame) < 0)
        return failed ? ERR_SYSTEM : ERR_MEMORY;
    convert(v, s, slot->frame);
    slot->at_ms = at_ms;
    v->has_put = true;
    v->last_put_ms = at_ms;
    pthread_mutex_lock(&v->lock);
    v->filled++;
    pthread_cond_signal(&v->changed);
    pthread_mutex_unlock(&v->lock);
    return 0;
}

static int finish(struct video *v, int64_t end_ms)
{
    int r = v->failed;

    if (r >= 0)
        r = avcodec_send_frame(v->codec, NULL);
    if (r >= 0)
        r = take_packets(v);
    if (r >= 0)
        r = write_last(v, end_ms);
    if (r >= 0)
        r = av_write_trailer(v->format);
    avio_flush(v->io);
    return r < 0 ? r : v->io->error;
}

int video_finish(struct video *v, uint64_t end_us, char *err, size_t err_len)
{
    char text[AV_ERROR_MAX_STRING_SIZE] = "";
    int r;

    pthread_mutex_lock(&v->lock);
    v->is_over = true;
    pthread_cond_signal(&v->changed);
    pthread_mutex_unlock(&v->lock);
    pthread_join(v->thread, NULL);
    v->has_thread = false;
    r = finish(v, (int64_t)(end_us / 1000));
    if (r < 0) {
        (void)av_strerror(r, text, sizeof(text));
        snprintf(err, err_len, "cannot write the video: %s", text);
    }
    destroy(v);
    return r < 0 ? ERR_SYSTEM : 0;
}

const char *video_encoder(const struct video *v)
{
    return v->codec->codec->name;
}
