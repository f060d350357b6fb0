/*
 * Pictures as an MP4 file: H.264, one frame for each picture, shown for as long as the desktop
 * stood so. Encoding has a thread of its own, so that decoding goes on meanwhile.
 */
#ifndef EXPORT_VIDEO_H
#define EXPORT_VIDEO_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "tracker/export/shot.h"

struct video;

/*
 * fd can be written and sought in; borrowed until video_finish(). width, height: of the video, even
 * numbers; a smaller desktop stands at the top left of it, on black. NULL with a sentence in err.
 */
struct video *video_create(int fd, uint32_t width, uint32_t height, char *err, size_t err_len);
/* at_us since the beginning of the video, later than the one before. The picture is copied. */
MUST_CHECK int video_put(struct video *v, const struct shot *s, uint64_t at_us);
/* The last picture stands until end_us. Writes what makes it a file, and frees. On error err has a
 * sentence. */
MUST_CHECK int video_finish(struct video *v, uint64_t end_us, char *err, size_t err_len);
/* The encoder's name, of libavcodec; after video_create(). */
const char *video_encoder(const struct video *v);

#endif
