/*
 * Recordings of desktops. The first byte chooses: a file for the reader, the plain bytes of a frame
 * with every body parsed, or a script for the writer, whose file must then read back record by
 * record.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tracker/recording/desktop.h"
#include "tracker/recording/recording_priv.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void take_body(const struct desktop_record *d)
{
    struct desktop_channels channels;
    struct desktop_input input;
    struct desktop_size size;
    struct cursor body = d->body;
    size_t events = 0;

    if (d->type == DESKTOP_CHANNELS && desktop_channels_parse(body, &channels) == PARSE_OK)
        check(channels.count <= DESKTOP_CHANNELS_MAX);
    if (d->type == DESKTOP_SIZE)
        (void)desktop_size_parse(body, &size);
    if (d->type == DESKTOP_INPUT) {
        while (desktop_input_next(&body, &input) == PARSE_OK)
            events++;
        check(events == cursor_left(&d->body) / DESKTOP_INPUT_LEN);
    }
}

static void fuzz_file(const uint8_t *data, size_t len)
{
    char text[128];
    uint64_t frame, last = 0;
    struct desktop_record d;
    struct recording_reader *r;
    size_t records = 0;
    int fd = memfd_create("fuzz", MFD_CLOEXEC);

    check(fd >= 0 && write(fd, data, len) == (ssize_t)len && lseek(fd, 0, SEEK_SET) == 0);
    r = recording_reader_open_fd(fd, text, sizeof(text));
    if (!r)
        return;
    while (recording_reader_next_record(r, &d) == 1) {
        check(d.at_us >= last && ++records < 10000000);
        last = d.at_us;
        take_body(&d);
    }
    (void)recording_reader_end(r, &frame, text, sizeof(text));
    recording_reader_close(r);
}

static void fuzz_plain(const uint8_t *data, size_t len)
{
    struct cursor plain = cursor_of(data, len);
    struct desktop_record d;

    while (desktop_next(&plain, &d) == PARSE_OK)
        take_body(&d);
}

/* One record for each three bytes: type, time that goes by, bytes that follow (times 64 in large
 * ones, out of zeros). */
static bool script_next(struct cursor *c, enum desktop_type *type, int64_t *now, const uint8_t **at,
                        size_t *len)
{
    static const uint8_t zeros[255 * 1024];
    uint8_t what, wait, n;

    if (!cursor_u8(c, &what) || !cursor_u8(c, &wait) || !cursor_u8(c, &n))
        return false;
    *type = (enum desktop_type)(what % 6 + DESKTOP_CHANNELS);
    *now += wait * 8000;
    *len = what & 0x80 ? n * 1024u : n;
    *at = zeros;
    if (what & 0x80)
        return true;
    *len = *len < cursor_left(c) ? *len : cursor_left(c);
    return cursor_take(c, *len, at);
}

static void fuzz_writer(const uint8_t *data, size_t len)
{
    struct desktop_head head = {.user = "alice", .target = "win01", .width = 1024, .height = 768};
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    struct desktop_writer *w = desktop_writer_create(dup(fd), &head, NULL, NULL);
    struct cursor c = cursor_of(data, len);
    struct recording_reader *r;
    struct desktop_record d;
    enum desktop_type type;
    const uint8_t *at;
    int64_t now = 5, due;
    char text[128];
    uint64_t frame;
    size_t n;

    check(fd >= 0 && w);
    while (script_next(&c, &type, &now, &at, &n)) {
        check(desktop_write(w, type, 0, at, n, now) == 0);
        check(desktop_tick(w, now, &due) == 0);
    }
    check(desktop_close(w, "user-exit", now) == 0);
    desktop_writer_destroy(w);
    check(lseek(fd, 0, SEEK_SET) == 0);
    r = recording_reader_open_fd(fd, text, sizeof(text));
    check(r && recording_reader_next_record(r, &d) == 1 && d.type == DESKTOP_FACTS);
    c = cursor_of(data, len);
    while (script_next(&c, &type, &now, &at, &n)) {
        check(recording_reader_next_record(r, &d) == 1 && d.type == type);
        check(cursor_left(&d.body) == n && (n == 0 || memcmp(d.body.at, at, n) == 0));
    }
    check(recording_reader_next_record(r, &d) == 0);
    check(recording_reader_end(r, &frame, text, sizeof(text)) == RECORDING_COMPLETE);
    recording_reader_close(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len == 0)
        return 0;
    if (data[0] == 'p')
        fuzz_plain(data + 1, len - 1);
    else if (data[0] == 'w')
        fuzz_writer(data + 1, len - 1);
    else
        fuzz_file(data, len);
    return 0;
}
