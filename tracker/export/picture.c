/* See picture.h: libswscale turns and shrinks, libavcodec packs. */
#include "tracker/export/picture.h"

#include <errno.h>
#include <unistd.h>

#include <libavcodec/avcodec.h>
#include <libavutil/imgutils.h>
#include <libswscale/swscale.h>

#define PNG_LEVEL 4 /* of 9: a desktop in some 40 ms */

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_SYSTEM;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static AVFrame *make_frame(const struct shot *s, uint32_t max_width)
{
    uint32_t width = s->width, height = s->height;
    const uint8_t *from[4] = {s->pixels};
    const int stride[4] = {(int)s->width * 4};
    AVFrame *frame = av_frame_alloc();
    struct SwsContext *sws;

    if (max_width && width > max_width) {
        height = (uint32_t)((uint64_t)height * max_width / width);
        height = height ? height : 1;
        width = max_width;
    }
    sws = sws_getContext((int)s->width, (int)s->height, AV_PIX_FMT_BGR0, (int)width, (int)height,
                         AV_PIX_FMT_RGB24, SWS_AREA, NULL, NULL, NULL);
    if (frame) {
        frame->format = AV_PIX_FMT_RGB24;
        frame->width = (int)width;
        frame->height = (int)height;
    }
    if (!frame || !sws || av_frame_get_buffer(frame, 0) < 0)
        av_frame_free(&frame);
    else
        sws_scale(sws, from, stride, 0, (int)s->height, frame->data, frame->linesize);
    sws_freeContext(sws);
    return frame;
}

static int encode(AVCodecContext *c, AVFrame *frame, int fd)
{
    AVPacket *packet = av_packet_alloc();
    int r = ERR_MEMORY;

    if (packet && avcodec_send_frame(c, frame) == 0 && avcodec_send_frame(c, NULL) == 0 &&
        avcodec_receive_packet(c, packet) == 0)
        r = write_all(fd, packet->data, (size_t)packet->size);
    av_packet_free(&packet);
    return r;
}

int picture_write(const struct shot *s, uint32_t max_width, int fd)
{
    const AVCodec *codec = avcodec_find_encoder(AV_CODEC_ID_PNG);
    AVCodecContext *c = codec ? avcodec_alloc_context3(codec) : NULL;
    AVFrame *frame;
    int r = ERR_MEMORY;

    if (!codec)
        return ERR_NOT_FOUND;
    frame = make_frame(s, max_width);
    if (c && frame) {
        c->width = frame->width;
        c->height = frame->height;
        c->pix_fmt = AV_PIX_FMT_RGB24;
        c->time_base = (AVRational){1, 1};
        c->compression_level = PNG_LEVEL;
        c->thread_count = 1;
        if (avcodec_open2(c, codec, NULL) == 0)
            r = encode(c, frame, fd);
    }
    av_frame_free(&frame);
    avcodec_free_context(&c);
    return r;
}
