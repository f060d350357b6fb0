/* Recordings of desktops: records come back as they went in, from whole, cut and damaged files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tracker/recording/desktop.h"
#include "tracker/recording/recording_priv.h"

static const struct desktop_head head = {
    .session_id = 42,
    .channel = 1,
    .started_wall_us = INT64_C(1795325467120000),
    .user = "alice",
    .account = "CORP\\bob",
    .target = "win01",
    .client = "LAPTOP-\"1\"",
    .build = 18363,
    .width = 1280,
    .height = 800,
    .bpp = 32,
    .client_security = "TLSv1.3",
    .target_security = "TLSv1.2",
};

struct tape {
    int fd;
    struct desktop_writer *w;
    int64_t now;
    uint64_t frames;
};

static void on_frame(uint64_t sequence, uint64_t file_len, const uint8_t *chain, void *arg)
{
    struct tape *t = arg;

    (void)file_len;
    (void)chain;
    assert_int_equal(sequence, t->frames + 1);
    t->frames = sequence;
}

static void tape_start(struct tape *t)
{
    memset(t, 0, sizeof(*t));
    t->fd = memfd_create("recording", MFD_CLOEXEC);
    assert_true(t->fd >= 0);
    t->now = 7000000;
    t->w = desktop_writer_create(dup(t->fd), &head, on_frame, t);
    assert_non_null(t->w);
}

static void put(struct tape *t, enum desktop_type type, const void *data, size_t len)
{
    assert_int_equal(desktop_write(t->w, type, 0, data, len, t->now), 0);
}

static void tape_stop(struct tape *t)
{
    assert_int_equal(desktop_close(t->w, "user-exit", t->now), 0);
    desktop_writer_destroy(t->w);
    t->w = NULL;
}

static void tape_free(struct tape *t)
{
    desktop_writer_destroy(t->w);
    close(t->fd);
}

static struct recording_reader *tape_read(const struct tape *t)
{
    char err[128] = "", path[64];
    struct recording_reader *r;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd);
    r = recording_reader_open(path, err, sizeof(err));
    if (!r)
        print_error("%s\n", err);
    assert_non_null(r);
    return r;
}

static enum recording_end end_of(const struct recording_reader *r)
{
    char text[256];
    uint64_t frame;

    return recording_reader_end(r, &frame, text, sizeof(text));
}

/* `type.flags@us:len ` of all records. */
static char *records_text(struct recording_reader *r)
{
    static char text[8192];
    struct desktop_record d;
    size_t at = 0;
    int n;

    text[0] = '\0';
    while ((n = recording_reader_next_record(r, &d)) > 0 && at < sizeof(text) - 64)
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%u.%u@%llu:%zu ", d.type, d.flags,
                               (unsigned long long)d.at_us,
                               d.type == DESKTOP_FACTS ? 0 : cursor_left(&d.body));
    assert_int_equal(n, 0);
    return text;
}

static void round_trip(void **state)
{
    static uint8_t large[DESKTOP_BODY_MAX];
    struct tape t;
    struct recording_reader *r;
    struct desktop_record d;
    uint16_t width, height;

    (void)state;
    memset(large, 0x5a, sizeof(large));
    tape_start(&t);
    put(&t, DESKTOP_CHANNELS, "abcdefgh", 8);
    t.now += 1500;
    put(&t, DESKTOP_TARGET, large, sizeof(large)); /* does not fit any more */
    t.now -= 5000;                                 /* never back */
    assert_int_equal(desktop_write(t.w, DESKTOP_TARGET, DESKTOP_OURS, "x", 1, t.now), 0);
    t.now += 10000;
    put(&t, DESKTOP_NOTICE, "", 0);
    tape_stop(&t);
    assert_int_equal(t.frames, 3);
    r = tape_read(&t);
    assert_true(recording_reader_is_desktop(r));
    recording_reader_size(r, &width, &height);
    assert_int_equal(width, 1280);
    assert_int_equal(height, 800);
    assert_non_null(strstr(recording_reader_header(r), "\"client\": \"LAPTOP-\\\"1\\\"\""));
    assert_non_null(strstr(recording_reader_header(r), "\"account\": \"CORP\\\\bob\""));
    assert_string_equal(records_text(r), "1.0@0:0 2.0@0:8 3.0@1500:262128 3.1@1500:1 7.0@6500:0 ");
    assert_int_equal(end_of(r), RECORDING_COMPLETE);
    recording_reader_close(r);
    r = tape_read(&t);
    for (int i = 0; i < 3; i++)
        assert_int_equal(recording_reader_next_record(r, &d), 1);
    assert_memory_equal(d.body.at, large, sizeof(large));
    recording_reader_close(r);
    tape_free(&t);
}

/* The other way of reading, which verifying uses: notices, and the same end. */
static void as_events(void **state)
{
    struct tape t;
    struct recording_reader *r;
    struct recording_event e;

    (void)state;
    tape_start(&t);
    put(&t, DESKTOP_TARGET, "pdu", 3);
    t.now += 2500000;
    put(&t, DESKTOP_NOTICE, "hello", 5);
    tape_stop(&t);
    r = tape_read(&t);
    assert_int_equal(recording_reader_next(r, &e), 1);
    assert_int_equal(e.kind, RECORDING_EVENT_NOTICE);
    assert_int_equal(e.len, 5);
    assert_true(e.at_s > 2.4 && e.at_s < 2.6);
    assert_int_equal(recording_reader_next(r, &e), 0);
    assert_int_equal(end_of(r), RECORDING_COMPLETE);
    recording_reader_close(r);
    tape_free(&t);
}

static void too_large_is_refused(void **state)
{
    static uint8_t large[DESKTOP_BODY_MAX + 1];
    struct tape t;

    (void)state;
    tape_start(&t);
    assert_int_equal(desktop_write(t.w, DESKTOP_TARGET, 0, large, sizeof(large), t.now),
                     ERR_SYSTEM);
    assert_int_equal(errno, E2BIG);
    tape_free(&t);
}

/* A frame a second; then cut at every byte: what was whole before is there. */
static void cut_anywhere(void **state)
{
    struct tape t;
    struct recording_reader *r;
    struct stat st;
    int64_t due;

    (void)state;
    tape_start(&t);
    for (int i = 0; i < 4; i++) {
        put(&t, DESKTOP_TARGET, "0123456789", 10);
        assert_int_equal(desktop_tick(t.w, t.now, &due), 0);
        assert_int_equal(due, 1000);
        t.now += 1000000;
    }
    tape_stop(&t);
    assert_int_equal(t.frames, 4);
    assert_int_equal(fstat(t.fd, &st), 0);
    for (off_t len = st.st_size - 1; len >= 48; len -= 7) {
        char text[256], err[64];
        uint64_t frame;
        int copy = dup(t.fd);

        assert_int_equal(ftruncate(t.fd, len), 0);
        assert_int_equal(lseek(copy, 0, SEEK_SET), 0);
        r = recording_reader_open_fd(copy, err, sizeof(err));
        assert_non_null(r);
        (void)records_text(r);
        assert_int_equal(recording_reader_end(r, &frame, text, sizeof(text)), RECORDING_CUT);
        assert_true(frame < 4);
        recording_reader_close(r);
    }
    tape_free(&t);
}

static void damage_is_told(void **state)
{
    struct tape t;
    struct recording_reader *r;
    struct desktop_record d;
    struct stat st;
    size_t damaged = 0, pdus = 0;
    uint8_t *map;

    (void)state;
    tape_start(&t);
    for (int i = 0; i < 5; i++) {
        put(&t, DESKTOP_TARGET, "0123456789", 10);
        t.now += 1100000;
    }
    tape_stop(&t);
    assert_int_equal(fstat(t.fd, &st), 0);
    map = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, t.fd, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    *(uint8_t *)memmem(map + st.st_size / 2, (size_t)st.st_size / 2, "0123456789", 10) = '!';
    munmap(map, (size_t)st.st_size);
    r = tape_read(&t);
    while (recording_reader_next_record(r, &d) > 0) {
        damaged += d.type == DESKTOP_NOTICE && d.flags & DESKTOP_DAMAGED;
        pdus += d.type == DESKTOP_TARGET;
    }
    assert_int_equal(damaged, 1);
    assert_int_equal(pdus, 4);
    assert_int_equal(end_of(r), RECORDING_DAMAGED);
    recording_reader_close(r);
    tape_free(&t);
}

static void full_disk(void **state)
{
    struct desktop_writer *w;
    int64_t now = 1000000;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    w = desktop_writer_create(fd, &head, NULL, NULL);
    assert_int_equal(desktop_write(w, DESKTOP_TARGET, 0, "x", 1, now), 0);
    assert_int_equal(desktop_write(w, DESKTOP_TARGET, 0, "x", 1, now + 1000000), ERR_SYSTEM);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(desktop_close(w, "user-exit", now), ERR_SYSTEM);
    assert_int_equal(errno, ENOSPC);
    desktop_writer_destroy(w);
}

static void bodies(void **state)
{
    struct desktop_channels c = {.user = 1007, .io = 1003, .count = 2}, d;
    struct desktop_input i = {DESKTOP_INPUT_WHEEL, DESKTOP_INPUT_HORIZONTAL, 0xffff, 3, 4}, j;
    struct desktop_size s = {1920, 1080, 32, 0x103ea}, t;
    uint8_t bytes[DESKTOP_SIZE_LEN];
    struct cursor at;
    struct buffer b;

    (void)state;
    buffer_init(&b, 4096);
    c.list[0] = (struct desktop_channel){1004, DESKTOP_CHANNEL_RECORDED, 0x80800000, "drdynvc"};
    c.list[1] = (struct desktop_channel){1005, DESKTOP_CHANNEL_DROPPED, 0, "eightchr"};
    desktop_channels_put(&b, &c);
    assert_int_equal(desktop_channels_parse(cursor_of(b.data, b.len), &d), PARSE_OK);
    assert_memory_equal(&c.list[1], &d.list[1], sizeof(c.list[1]));
    assert_int_equal(d.count, 2);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(desktop_channels_parse(cursor_of(b.data, n), &d), PARSE_BAD);
    buffer_finish(&b);

    desktop_input_put(bytes, &i);
    at = cursor_of(bytes, DESKTOP_INPUT_LEN);
    assert_int_equal(desktop_input_next(&at, &j), PARSE_OK);
    assert_memory_equal(&i, &j, sizeof(i));
    assert_int_equal(desktop_input_next(&at, &j), PARSE_MORE);
    at = cursor_of(bytes, 5);
    assert_int_equal(desktop_input_next(&at, &j), PARSE_BAD);

    desktop_size_put(bytes, &s);
    assert_int_equal(desktop_size_parse(cursor_of(bytes, sizeof(bytes)), &t), PARSE_OK);
    assert_memory_equal(&s, &t, sizeof(s));
    assert_int_equal(desktop_size_parse(cursor_of(bytes, 11), &t), PARSE_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),     cmocka_unit_test(as_events),
        cmocka_unit_test(cut_anywhere),   cmocka_unit_test(too_large_is_refused),
        cmocka_unit_test(damage_is_told), cmocka_unit_test(full_disk),
        cmocka_unit_test(bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
