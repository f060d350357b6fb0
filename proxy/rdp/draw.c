/*
 * Boxes of text: measures words, breaks lines, and blends glyphs onto a plain ground. The font file
 * is the machine's own, read once by the gate; relays share its memory.
 */
#include "proxy/rdp/draw.h"

#include <ft2build.h>
#include FT_FREETYPE_H
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>

#define FONT_PATH  "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
#define FONT_MAX   (4u * 1024u * 1024u)
#define LINES_MAX  12
#define SCREEN_MIN 100
#define GROUND     0x20303fu
#define BORDER     0xe8b04au
#define INK        0xffffffu

static FT_Library library;
static FT_Face face;
static uint8_t *font_data;

/* ---- the font ---- */

static uint8_t *read_all(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rbe");
    uint8_t *data = f ? malloc(FONT_MAX) : NULL;

    *len = data ? fread(data, 1, FONT_MAX, f) : 0;
    if (f)
        fclose(f);
    if (*len == 0 || *len == FONT_MAX) {
        free(data);
        return NULL;
    }
    return data;
}

void draw_load_font(const char *path)
{
    size_t len;

    draw_unload_font();
    font_data = read_all(path ? path : FONT_PATH, &len);
    if (font_data && FT_Init_FreeType(&library) == 0 &&
        FT_New_Memory_Face(library, font_data, (FT_Long)len, 0, &face) == 0)
        return;
    draw_unload_font();
    log_info("no font at %s: texts in pictures use the built-in one", path ? path : FONT_PATH);
}

void draw_unload_font(void)
{
    if (face)
        FT_Done_Face(face);
    if (library)
        FT_Done_FreeType(library);
    free(font_data);
    face = NULL;
    library = NULL;
    font_data = NULL;
}

/* ---- text ---- */

/* What a box is laid out with. */
struct style {
    int size;   /* of the font, in pixels */
    int scale;  /* of the built-in font */
    int line;   /* height of a line */
    int margin; /* between border and text */
};

static struct style style_of(int size)
{
    struct style s = {.size = size};

    s.scale = s.size < 24 ? 1 : s.size / 12;
    s.line = face ? s.size * 3 / 2 : (DRAW_BUILTIN_HEIGHT + 4) * s.scale;
    s.margin = s.size;
    if (face)
        FT_Set_Pixel_Sizes(face, 0, (FT_UInt)s.size);
    return s;
}

/* The next code point; what is not UTF-8 is a question mark. */
static uint32_t next_char(const char **at)
{
    const uint8_t *p = (const uint8_t *)*at;
    size_t more = *p < 0x80 ? 0 : *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
    uint32_t cp = more == 0 ? *p : *p & (0x3fu >> more);

    for (size_t i = 1; i <= more; i++) {
        if ((p[i] & 0xc0) != 0x80 || (*p & 0xc0) == 0x80) {
            *at += 1;
            return '?';
        }
        cp = cp << 6 | (p[i] & 0x3f);
    }
    *at += more + 1;
    return cp;
}

static int char_width(const struct style *s, uint32_t cp)
{
    if (!face)
        return DRAW_BUILTIN_WIDTH * s->scale;
    if (FT_Load_Char(face, cp, FT_LOAD_DEFAULT) != 0)
        return s->size / 2;
    return (int)(face->glyph->advance.x >> 6);
}

/* One line of at most `max` pixels, broken between words where there are any. */
static const char *take_line(const struct style *s, const char *at, int max, struct draw_line *out)
{
    const char *space = NULL, *next;
    int width = 0, space_width = 0;

    while (*at == ' ')
        at++;
    out->start = at;
    while (*at && *at != '\n') {
        next = at;
        int w = char_width(s, next_char(&next));

        if (width + w > max && at != out->start) {
            if (space) {
                at = space;
                width = space_width;
            }
            break;
        }
        if (*at == ' ') {
            space = at;
            space_width = width;
        }
        width += w;
        at = next;
    }
    out->len = (size_t)(at - out->start);
    out->width = width;
    return *at == '\n' ? at + 1 : at;
}

static uint32_t blend(uint32_t ground, uint32_t ink, uint32_t alpha)
{
    uint32_t out = 0;

    for (unsigned shift = 0; shift < 24; shift += 8) {
        uint32_t a = ground >> shift & 0xff, b = ink >> shift & 0xff;

        out |= (a * (255 - alpha) + b * alpha) / 255 << shift;
    }
    return out;
}

static void dot(struct picture *p, int x, int y, uint32_t ink, uint32_t alpha)
{
    uint32_t *at;

    if (x < 0 || y < 0 || x >= p->width || y >= p->height || alpha == 0)
        return;
    at = &p->pixels[(size_t)y * p->width + (size_t)x];
    *at = blend(*at, ink, alpha);
}

static void draw_glyph(struct picture *p, int x, int baseline, uint32_t ink)
{
    const FT_Bitmap *b = &face->glyph->bitmap;

    for (unsigned row = 0; row < b->rows; row++)
        for (unsigned col = 0; col < b->width; col++)
            dot(p, x + face->glyph->bitmap_left + (int)col,
                baseline - face->glyph->bitmap_top + (int)row, ink,
                b->buffer[(size_t)row * (size_t)b->pitch + col]);
}

static void draw_builtin(struct picture *p, const struct style *s, uint32_t cp, int x, int y,
                         uint32_t ink)
{
    const uint8_t *rows;

    if (cp < DRAW_BUILTIN_FIRST || cp >= DRAW_BUILTIN_FIRST + DRAW_BUILTIN_COUNT)
        cp = '?';
    rows = draw_builtin_font[cp - DRAW_BUILTIN_FIRST];
    for (int row = 0; row < DRAW_BUILTIN_HEIGHT * s->scale; row++)
        for (int col = 0; col < DRAW_BUILTIN_WIDTH * s->scale; col++)
            if (rows[row / s->scale] & 0x80 >> col / s->scale)
                dot(p, x + col, y + row, ink, 255);
}

static void draw_line(struct picture *p, const struct style *s, const struct draw_line *l, int x,
                      int y, uint32_t ink)
{
    const char *at = l->start, *end = l->start + l->len;

    while (at < end && x < p->width) {
        uint32_t cp = next_char(&at);
        int width = char_width(s, cp);

        if (x + width + s->size < 0) { /* left of a picture that shows a part only */
            x += width;
            continue;
        }
        if (!face)
            draw_builtin(p, s, cp, x, y, ink);
        else if (FT_Load_Char(face, cp, FT_LOAD_RENDER) == 0)
            draw_glyph(p, x, y + s->size, ink);
        x += width;
    }
}

/* ---- single lines ---- */

bool draw_has_font(void)
{
    return face != NULL;
}

int draw_line_height(int size)
{
    return style_of(size).line;
}

const char *draw_take_line(const char *text, int size, int room, struct draw_line *out)
{
    struct style s = style_of(size);

    return take_line(&s, text, room, out);
}

int draw_text_width(const char *text, size_t len, int size)
{
    struct style s = style_of(size);
    const char *end = text + len;
    int width = 0;

    while (text < end)
        width += char_width(&s, next_char(&text));
    return width;
}

void draw_text(struct picture *p, int x, int y, const struct draw_line *line, int size,
               uint32_t ink)
{
    struct style s = style_of(size);

    if (y < p->height && y + s.line > 0)
        draw_line(p, &s, line, x, y, ink);
}

void draw_fill(struct picture *p, int x, int y, int width, int height, uint32_t color)
{
    int right = x + width < p->width ? x + width : p->width;
    int bottom = y + height < p->height ? y + height : p->height;

    for (int row = y < 0 ? 0 : y; row < bottom; row++)
        for (int col = x < 0 ? 0 : x; col < right; col++)
            p->pixels[(size_t)row * p->width + (size_t)col] = color;
}

/* ---- the box ---- */

/* A line of some fifty characters is a third of a usual screen, and legible on a large one. */
static struct style style_for(uint16_t width, uint16_t height)
{
    int size = height / 40;

    if (size < 15)
        size = 15;
    if (size > 54)
        size = 54;
    if (size > width / 16)
        size = width / 16;
    return style_of(size);
}

static void fill(struct picture *p)
{
    int edge = p->height / 40 + 2;

    for (int y = 0; y < p->height; y++)
        for (int x = 0; x < p->width; x++) {
            bool is_edge = x < edge || y < edge || x >= p->width - edge || y >= p->height - edge;

            p->pixels[(size_t)y * p->width + (size_t)x] = is_edge ? BORDER : GROUND;
        }
}

int draw_box(struct picture *out, const char *text, uint16_t screen_width, uint16_t screen_height)
{
    struct style s;
    struct draw_line lines[LINES_MAX];
    size_t count = 0;
    int widest = 0, room, height;

    *out = (struct picture){0};
    if (screen_width < SCREEN_MIN || screen_height < SCREEN_MIN)
        return ERR_INVALID;
    s = style_for(screen_width, screen_height);
    room = s.size * 28;
    if (room > screen_width - 4 * s.margin)
        room = screen_width - 4 * s.margin;
    while (*text && count < LINES_MAX) {
        text = take_line(&s, text, room, &lines[count]);
        if (lines[count].width > widest)
            widest = lines[count].width;
        count++;
    }
    height = (int)count * s.line + 2 * s.margin;
    if (height > screen_height)
        height = screen_height;
    out->width = (uint16_t)((widest + 2 * s.margin + 3) & ~3);
    out->height = (uint16_t)height;
    out->pixels = calloc((size_t)out->width * out->height, sizeof(*out->pixels));
    if (!out->pixels)
        return ERR_MEMORY;
    fill(out);
    for (size_t i = 0; i < count; i++)
        draw_line(out, &s, &lines[i], (out->width - lines[i].width) / 2, s.margin + (int)i * s.line,
                  INK);
    return 0;
}

void picture_finish(struct picture *p)
{
    free(p->pixels);
    *p = (struct picture){0};
}
