/*
 * Recordings. The first byte chooses: a whole file for the reader, one event line, the side records
 * of an event, or a script of calls for the writer, whose file must then read back byte for byte.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <sallyport/buffer.h>

#include "tracker/recording/recording_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* ---- the reader, over any file ---- */

static void fuzz_file(const uint8_t *data, size_t len)
{
    char text[128];
    uint64_t frame;
    struct recording_event e;
    struct recording_reader *r;
    size_t events = 0;
    double last = 0;
    int fd = memfd_create("fuzz", MFD_CLOEXEC), n;

    check(fd >= 0 && write(fd, data, len) == (ssize_t)len && lseek(fd, 0, SEEK_SET) == 0);
    r = recording_reader_open_fd(fd, text, sizeof(text));
    if (!r)
        return;
    while ((n = recording_reader_next(r, &e)) == 1) {
        check(e.at_s >= last && e.len <= CAST_LINE_MAX && ++events < 10000000);
        check(e.kind != RECORDING_EVENT_RESIZE || (e.cols >= 1 && e.cols <= 1000));
        last = e.at_s;
    }
    (void)recording_reader_end(r, &frame, text, sizeof(text));
    recording_reader_close(r);
}

/* ---- one line ---- */

static void fuzz_line(const uint8_t *data, size_t len)
{
    uint8_t *out = malloc(len + 1);
    struct cast_event e;
    uint16_t cols, rows;

    check(out != NULL);
    if (cast_parse_event(cursor_of(data, len), &e, out, len)) {
        check(e.len < len && e.ms >= 0);
        (void)cast_parse_size(out, e.len, &cols, &rows);
    }
    free(out);
}

/* ---- side records, first a byte that splits records from text ---- */

static void fuzz_side(const uint8_t *data, size_t len)
{
    struct cursor c = cursor_of(data, len), side, body;
    uint8_t records, type, *text;
    uint32_t event;
    size_t text_len;

    if (!cursor_u8(&c, &records) || !cursor_sub(&c, records, &side))
        return;
    text = malloc(cursor_left(&c) + 1);
    check(text != NULL);
    while (container_side_record(&side, &type, &event, &body)) {
        text_len = cursor_left(&c);
        memcpy(text, c.at, text_len);
        if (container_side_apply(body, text, &text_len))
            check(text_len <= cursor_left(&c));
    }
    free(text);
}

/* ---- the writer, and back ---- */

struct expected {
    struct buffer streams[3]; /* output, stderr, input */
    size_t others;
};

/* One call: what, how much time goes by, how much data. */
static bool step(struct recording_writer *w, struct cursor *c, struct expected *x, int64_t *now_ms)
{
    uint8_t what, wait, n;
    const uint8_t *data;
    int64_t due;

    if (!cursor_u8(c, &what) || !cursor_u8(c, &wait) || !cursor_u8(c, &n))
        return false;
    if (n > cursor_left(c))
        n = (uint8_t)cursor_left(c);
    check(cursor_take(c, n, &data));
    *now_ms += wait < 128 ? wait : (wait - 128) * 20;
    switch (what % 6) {
    case 0:
    case 1:
        check(recording_output(w, data, n, what % 6, *now_ms) == 0);
        buffer_put(&x->streams[what % 6], data, n);
        break;
    case 2:
        check(recording_input(w, data, n, *now_ms) == 0);
        buffer_put(&x->streams[2], data, n);
        break;
    case 3:
        check(recording_resize(w, wait, n, *now_ms) == 0);
        x->others++;
        break;
    case 4:
        check(recording_tick(w, *now_ms, &due) == 0);
        break;
    default:
        check(recording_notice(w, "notice", *now_ms) == 0);
        x->others++;
    }
    return true;
}

static void read_back(int fd, const struct expected *x, bool has_input)
{
    static const int stream_of[] = {0, 1, 2, -1, -1};
    char text[128];
    uint64_t frame;
    size_t at[3] = {0}, others = 0;
    struct recording_event e;
    struct recording_reader *r = recording_reader_open_fd(fd, text, sizeof(text));

    check(r != NULL);
    while (recording_reader_next(r, &e) == 1) {
        int s = stream_of[e.kind];

        if (s < 0) {
            others++;
            continue;
        }
        if (s == 2 && !has_input) /* echoed: a part of what was typed, in other words */
            continue;
        check(e.len <= x->streams[s].len - at[s]);
        check(e.len == 0 || memcmp(x->streams[s].data + at[s], e.data, e.len) == 0);
        at[s] += e.len;
    }
    check(recording_reader_end(r, &frame, text, sizeof(text)) == RECORDING_COMPLETE);
    check(at[0] == x->streams[0].len && at[1] == x->streams[1].len && others == x->others);
    check(!has_input || at[2] == x->streams[2].len);
    recording_reader_close(r);
}

static void fuzz_writer(const uint8_t *data, size_t len, enum policy_input input)
{
    struct recording_head head = {.has_pty = true, .cols = 80, .rows = 24, .user = "alice"};
    struct cursor c = cursor_of(data, len);
    struct expected x = {0};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct recording_writer *w = recording_writer_create(dup(fd), &head, input, NULL, NULL);
    int64_t now_ms = 1000;

    check(fd >= 0 && w);
    for (size_t i = 0; i < 3; i++)
        buffer_init(&x.streams[i], 1 << 20);
    while (step(w, &c, &x, &now_ms))
        ;
    check(recording_close(w, "user-exit", now_ms) == 0);
    recording_writer_destroy(w);
    check(lseek(fd, 0, SEEK_SET) == 0);
    read_back(fd, &x, input == INPUT_ALL);
    for (size_t i = 0; i < 3; i++)
        buffer_finish(&x.streams[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    switch (data[0]) {
    case 'l':
        fuzz_line(data + 1, len - 1);
        break;
    case 's':
        fuzz_side(data + 1, len - 1);
        break;
    case 'w':
        fuzz_writer(data + 1, len - 1, INPUT_ALL);
        break;
    case 'e':
        fuzz_writer(data + 1, len - 1, INPUT_ECHOED);
        break;
    default:
        fuzz_file(data, len);
    }
    return 0;
}
