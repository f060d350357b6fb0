/*
 * The strip is small because it is sent each time the desktop below it moves.
 */
#include "proxy/rdp/banner.h"

#include <stdlib.h>

#define LINES_MAX  4
#define SCREEN_MIN 100
#define FONT_MIN   14
#define FONT_MAX   40
#define EDGE       2
#define GROUND     0x20303fu
#define BORDER     0xe8b04au
#define INK        0xffffffu

static int size_for(uint16_t width, uint16_t height)
{
    int size = height / 48;

    if (size < FONT_MIN)
        size = FONT_MIN;
    if (size > FONT_MAX)
        size = FONT_MAX;
    return size > width / 16 ? width / 16 : size;
}

int banner_draw(struct picture *out, const char *text, uint16_t screen_width,
                uint16_t screen_height)
{
    int size, room, widest = 0, count = 0, line, height;
    struct draw_line lines[LINES_MAX];

    *out = (struct picture){0};
    if (screen_width < SCREEN_MIN || screen_height < SCREEN_MIN)
        return ERR_INVALID;
    size = size_for(screen_width, screen_height);
    room = screen_width * 3 / 5;
    line = draw_line_height(size);
    while (*text && count < LINES_MAX) {
        text = draw_take_line(text, size, room, &lines[count]);
        widest = lines[count].width > widest ? lines[count].width : widest;
        count++;
    }
    height = count * line + size;
    out->width = (uint16_t)((widest + 2 * size + 3) & ~3);
    out->height = (uint16_t)(height < screen_height ? height : screen_height);
    out->pixels = calloc((size_t)out->width * out->height, sizeof(*out->pixels));
    if (!out->pixels)
        return ERR_MEMORY;
    draw_fill(out, 0, 0, out->width, out->height, BORDER);
    draw_fill(out, EDGE, EDGE, out->width - 2 * EDGE, out->height - 2 * EDGE, GROUND);
    for (int i = 0; i < count; i++)
        draw_text(out, (out->width - lines[i].width) / 2, size / 2 + i * line, &lines[i], size,
                  INK);
    return 0;
}
