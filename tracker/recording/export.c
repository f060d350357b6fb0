/*
 * A recording as plain asciicast v2, for any player. Exact bytes of invalid UTF-8 become U+FFFD,
 * as asciicast cannot hold them. The command line calls it.
 */
#include "tracker/recording/recording_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct exporter {
    FILE *out;
    double at_s;
    bool has_begun; /* the first event of the wanted part was seen */
    uint16_t cols, rows;
    uint8_t *line;
    size_t line_cap;
};

static char event_code(enum recording_event_kind kind)
{
    static const char codes[] = {
        [RECORDING_EVENT_OUTPUT] = 'o', [RECORDING_EVENT_STDERR] = 'o',
        [RECORDING_EVENT_INPUT] = 'i',  [RECORDING_EVENT_RESIZE] = 'r',
        [RECORDING_EVENT_NOTICE] = 'm',
    };

    return codes[kind];
}

static int put_line(struct exporter *x, double at_s, char code, const uint8_t *data, size_t len)
{
    size_t need = CAST_ESCAPE_MAX * len + CAST_EVENT_OVERHEAD;
    struct cast_out out;

    if (need > x->line_cap) {
        uint8_t *grown = realloc(x->line, need);

        if (!grown)
            return ERR_MEMORY;
        x->line = grown;
        x->line_cap = need;
    }
    out = (struct cast_out){.at = cast_event_begin(x->line, (int64_t)(at_s * 1000 + 0.5), code)};
    (void)cast_escape(&out, data, len, true);
    out.at = cast_event_end(out.at);
    len = (size_t)(out.at - x->line);
    return fwrite(x->line, 1, len, x->out) == len ? 0 : ERR_SYSTEM;
}

static int put_text(struct exporter *x, double at_s, char code, const char *text)
{
    return put_line(x, at_s, code, (const uint8_t *)text, strlen(text));
}

static int put_size(struct exporter *x, double at_s, uint16_t cols, uint16_t rows)
{
    char text[16];

    snprintf(text, sizeof(text), "%ux%u", cols, rows);
    return put_text(x, at_s, 'r', text);
}

/* A part from the middle: a clean screen of the size of that moment. */
static int begin_part(struct exporter *x)
{
    if (x->has_begun)
        return 0;
    x->has_begun = true;
    if (x->at_s <= 0)
        return 0;
    if (put_size(x, 0, x->cols, x->rows) < 0)
        return ERR_SYSTEM;
    return put_text(x, 0, 'o', "\033c");
}

static int put_event(struct exporter *x, const struct recording_event *e)
{
    int r;

    if (e->kind == RECORDING_EVENT_RESIZE) {
        x->cols = e->cols;
        x->rows = e->rows;
    }
    if (e->at_s < x->at_s)
        return 0;
    r = begin_part(x);
    if (r < 0)
        return r;
    if (e->kind == RECORDING_EVENT_RESIZE)
        return put_size(x, e->at_s - x->at_s, e->cols, e->rows);
    return put_line(x, e->at_s - x->at_s, event_code(e->kind), e->data, e->len);
}

/* What is not complete says so at its end. */
static int put_end(struct exporter *x, const struct recording_reader *r, double last_s)
{
    char why[224], text[256];
    uint64_t frame;

    if (recording_reader_end(r, &frame, why, sizeof(why)) == RECORDING_COMPLETE)
        return 0;
    snprintf(text, sizeof(text), "[recording: %s]", why);
    return put_text(x, last_s > x->at_s ? last_s - x->at_s : 0, 'm', text);
}

static int export_events(struct exporter *x, struct recording_reader *r)
{
    struct recording_event e;
    double last_s = 0;
    int n;

    recording_reader_size(r, &x->cols, &x->rows);
    if (fprintf(x->out, "%s\n", recording_reader_header(r)) < 0)
        return ERR_SYSTEM;
    while ((n = recording_reader_next(r, &e)) > 0) {
        last_s = e.at_s;
        n = put_event(x, &e);
        if (n < 0)
            return n;
    }
    if (n < 0)
        return n;
    n = put_end(x, r, last_s);
    return n < 0 ? n : fflush(x->out) == 0 ? 0 : ERR_SYSTEM;
}

int recording_export(const char *path, void *out_file, double at_s, char *err, size_t err_len)
{
    struct exporter x = {.out = out_file, .at_s = at_s};
    struct recording_reader *r = recording_reader_open(path, err, err_len);
    int n;

    if (!r)
        return ERR_CORRUPT;
    n = export_events(&x, r);
    if (n < 0 && err_len > 0)
        snprintf(err, err_len, "%s", n == ERR_SYSTEM ? strerror(errno) : error_text(n));
    free(x.line);
    recording_reader_close(r);
    return n;
}
