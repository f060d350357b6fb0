/*
 * One picture as a PNG file.
 */
#ifndef EXPORT_PICTURE_H
#define EXPORT_PICTURE_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "tracker/export/shot.h"

#define PICTURE_THUMBNAIL_WIDTH 320u

/* Writes s to fd; max_width 0: as large as it is, otherwise smaller ones stay as they are. 0, or
 * ERR_SYSTEM (errno of the write), ERR_MEMORY, ERR_NOT_FOUND (libavcodec has no PNG encoder). */
MUST_CHECK int picture_write(const struct shot *s, uint32_t max_width, int fd);

#endif
