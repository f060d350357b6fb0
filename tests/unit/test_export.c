/* The parts of sallyport-export that need no decoder: index, pictures in memory, the first look. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"
#include "tracker/export/index.h"
#include "tracker/export/sandbox.h"
#include "tracker/export/scan.h"
#include "tracker/export/shot.h"
#include "tracker/recording/recording_priv.h"

#define S       1000000ull
#define IO      1003
#define DRDYNVC 1005

static void fill(struct shot *s, uint32_t width, uint32_t height, uint8_t value)
{
    assert_int_equal(shot_resize(s, width, height), 0);
    memset(s->pixels, value, shot_len(s));
}

/* ---- the index ---- */

static struct cursor bytes_of(int fd)
{
    struct stat st;
    void *at;

    assert_int_equal(fstat(fd, &st), 0);
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(at, MAP_FAILED);
    return cursor_of(at, (size_t)st.st_size);
}

static const struct index_identity identity = {.length = 4711, .tail = {1, 2, 3}};

/* A desktop that stands for 10 s, is busy for 10 s (ten pictures a second), and stands again. */
static int make_index(uint64_t covered_us, uint64_t end_us)
{
    int fd = memfd_create("index", MFD_CLOEXEC);
    struct index_writer *w = index_writer_create(fd, &identity);
    const struct index_end end = {0, covered_us, end_us};
    struct shot s = {NULL, 0, 0, 0};

    assert_non_null(w);
    fill(&s, 64, 48, 1);
    index_writer_add(w, 0, 10 * S, &s);
    for (unsigned i = 0; i < 100; i++) {
        fill(&s, 64, 48, (uint8_t)(100 + i));
        index_writer_add(w, 10 * S + i * S / 10, 10 * S + (i + 1) * S / 10, &s);
    }
    fill(&s, 80, 60, 250);
    index_writer_add(w, 20 * S, 29 * S, &s);
    assert_int_equal(index_writer_finish(w, &end), 0);
    shot_finish(&s);
    return fd;
}

static void test_index_finds(void **state)
{
    static const struct {
        uint64_t at_us;
        uint8_t value;
        bool is_exact;
    } rows[] = {
        {0, 1, true},
        {9 * S, 1, true},
        {10 * S + 1, 100, true},
        {12 * S + 10, 120, true},
        {12 * S + S / 2, 120, false}, /* one a second is kept */
        {19 * S + S / 2, 190, false},
        {25 * S, 250, true},
        {30 * S, 250, false},
    };
    int fd = make_index(30 * S, 30 * S);
    struct cursor file = bytes_of(fd);
    struct shot s = {NULL, 0, 0, 0};
    struct index_key key;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_int_equal(index_find(file, &identity, rows[i].at_us, &s, &key), 0);
        assert_int_equal(s.pixels[0], rows[i].value);
        assert_int_equal(s.pixels[shot_len(&s) - 1], rows[i].value);
        assert_int_equal(rows[i].at_us < key.until_us, rows[i].is_exact);
    }
    assert_int_equal(s.width, 80);
    shot_finish(&s);
    close(fd);
}

static void test_index_refuses(void **state)
{
    struct index_identity other = identity;
    int fd = make_index(20 * S, 30 * S);
    struct cursor file = bytes_of(fd), cut;
    struct shot s = {NULL, 0, 0, 0};
    struct index_key key;
    uint64_t at_us;

    (void)state;
    assert_int_equal(index_find(file, &identity, 21 * S, &s, &key), ERR_NOT_FOUND);
    assert_int_equal(index_longest(file, &identity, &at_us), ERR_NOT_FOUND); /* not of the whole */
    other.tail[0] ^= 1;
    assert_int_equal(index_find(file, &other, S, &s, &key), ERR_NOT_FOUND);
    other = identity;
    other.length++;
    assert_int_equal(index_find(file, &other, S, &s, &key), ERR_NOT_FOUND);
    for (size_t len = 0; len < cursor_left(&file); len += 7) { /* no end, no index */
        cut = cursor_of(file.at, len);
        assert_true(index_find(cut, &identity, S, &s, &key) < 0);
    }
    shot_finish(&s);
    close(fd);
}

static void test_index_longest(void **state)
{
    int fd = make_index(30 * S, 30 * S);
    uint64_t at_us = 1;

    (void)state;
    assert_int_equal(index_longest(bytes_of(fd), &identity, &at_us), 0);
    assert_int_equal(at_us, 0);
    assert_int_equal(index_end_time(bytes_of(fd), &identity, &at_us), 0);
    assert_int_equal(at_us, 30 * S);
    close(fd);
}

/* However long the recording, the file ends. */
static void test_index_is_bounded(void **state)
{
    int fd = memfd_create("index", MFD_CLOEXEC);
    struct index_writer *w = index_writer_create(fd, &identity);
    const struct index_end end = {0, 1000 * S, 1000 * S};
    struct shot s = {NULL, 0, 0, 0};
    struct stat st;

    (void)state;
    assert_int_equal(shot_resize(&s, 512, 512), 0);
    for (unsigned i = 0; i < 400; i++) {
        uint32_t x = i * 2654435761u + 1;

        for (size_t k = 0; k < shot_len(&s); k++) {
            x = x * 1664525u + 1013904223u;
            s.pixels[k] = (uint8_t)(x >> 24);
        }
        index_writer_add(w, i * S, (i + 1) * S, &s);
    }
    assert_int_equal(index_writer_finish(w, &end), 0);
    assert_int_equal(fstat(fd, &st), 0);
    assert_in_range(st.st_size, INDEX_MAX / 2, INDEX_MAX + 2 * 1024 * 1024);
    shot_finish(&s);
    close(fd);
}

/* ---- pictures ---- */

static void test_pointer_is_clipped(void **state)
{
    static const uint8_t red[] = {0, 0, 255, 255, 0, 0, 255, 128, 0, 0, 255, 0, 0, 0, 255, 255};
    const struct decoder_pointer p = {.pixels = red, .width = 2, .height = 2, .hot_x = 1};
    struct shot s = {NULL, 0, 0, 0};

    (void)state;
    fill(&s, 4, 4, 100);
    shot_draw(&s, &p, 0, 3); /* half of it is left of the screen, half below */
    assert_int_equal(s.pixels[4 * 12], 50);
    assert_int_equal(s.pixels[4 * 12 + 2], 178);
    shot_draw(&s, &p, 65535, 65535);
    shot_draw(&s, &p, 2, 1);
    assert_int_equal(s.pixels[4 * 5 + 2], 255);
    assert_int_equal(s.pixels[4 * 9 + 2], 100); /* transparent */
    assert_int_equal(s.pixels[4 * 10 + 2], 255);
    assert_int_equal(shot_resize(&s, 0, 5), ERR_INVALID);
    assert_int_equal(shot_resize(&s, 5, 100000), ERR_INVALID);
    shot_finish(&s);
}

/* ---- the first look ---- */

static struct desktop_writer *begin(int fd)
{
    const struct desktop_head head = {.session_id = 42, .channel = 1, .width = 800, .height = 600};
    const struct desktop_channels channels = {
        .user = 1007,
        .io = IO,
        .count = 1,
        .list = {{.number = DRDYNVC, .flags = DESKTOP_CHANNEL_RECORDED, .name = "drdynvc"}},
    };
    struct desktop_writer *w = desktop_writer_create(dup(fd), &head, NULL, NULL);
    struct buffer b;

    assert_non_null(w);
    buffer_init(&b, 4096);
    desktop_channels_put(&b, &channels);
    assert_int_equal(desktop_write(w, DESKTOP_CHANNELS, 0, b.data, b.len, 0), 0);
    buffer_finish(&b);
    return w;
}

static void put_size(struct desktop_writer *w, uint16_t width, uint16_t height, int64_t at_us)
{
    const struct desktop_size size = {width, height, 32, 0x103ea};
    uint8_t body[DESKTOP_SIZE_LEN];

    desktop_size_put(body, &size);
    assert_int_equal(desktop_write(w, DESKTOP_SIZE, 0, body, sizeof(body), at_us), 0);
}

/* One update of fast-path, compressed when flags are not 0. */
static void put_update(struct desktop_writer *w, uint8_t code, uint8_t flags, int64_t at_us)
{
    uint8_t plain[] = {0, 9, code, 4, 0, 1, 2, 3, 4}, packed[] = {0, 10, 0, 0, 4, 0, 1, 2, 3, 4};

    packed[2] = code | 0x80;
    packed[3] = flags;
    assert_int_equal(desktop_write(w, DESKTOP_TARGET, 0, flags ? packed : plain,
                                   flags ? sizeof(packed) : sizeof(plain), at_us),
                     0);
}

static void put_graphics(struct desktop_writer *w, int64_t at_us)
{
    static const char name[] = DVC_NAME_GRAPHICS;
    struct buffer data, pdu;

    buffer_init(&data, 4096);
    buffer_init(&pdu, 4096);
    buffer_put_le32(&data, 2 + sizeof(name));
    buffer_put_le32(&data, 3);
    buffer_put_u8(&data, 0x10);
    buffer_put_u8(&data, 7);
    buffer_put(&data, name, sizeof(name));
    mcs_data_put(&pdu, MCS_DATA_INDICATION, MCS_SERVER_USER, DRDYNVC, data.data, data.len);
    assert_int_equal(desktop_write(w, DESKTOP_TARGET, 0, pdu.data, pdu.len, at_us), 0);
    buffer_finish(&data);
    buffer_finish(&pdu);
}

static struct scan finish(struct desktop_writer *w, int fd, uint64_t until_us)
{
    struct recording_reader *reader;
    struct scan scan;
    char err[200];

    assert_int_equal(desktop_close(w, "user-exit", 9 * 1000000), 0);
    desktop_writer_destroy(w);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    reader = recording_reader_open_fd(fd, err, sizeof(err));
    assert_non_null(reader);
    assert_int_equal(scan_recording(reader, until_us, &scan, err, sizeof(err)), 0);
    recording_reader_close(reader);
    return scan;
}

/* What comes between the first desktop and the second decides. */
static void test_restarts(void **state)
{
    static const struct {
        const char *what;
        uint8_t before_code, before_flags, after_flags;
        bool has_graphics;
        uint64_t until_us, restart_us;
    } rows[] = {
        {"no compression", 1, 0, 0, false, 9 * S, 4 * S},
        {"the compressor begins anew", 1, 0x20, 0xa0, false, 9 * S, 4 * S},
        {"the compressor goes on", 1, 0x20, 0x20, false, 9 * S, 0},
        {"graphics pipeline", 1, 0, 0, true, 9 * S, 0},
        {"surface commands", 4, 0, 0, false, 9 * S, 0},
        {"too late", 1, 0, 0, false, 3 * S, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = memfd_create("recording", MFD_CLOEXEC);
        struct desktop_writer *w = begin(fd);
        struct scan scan;

        put_size(w, 1024, 768, 1 * S);
        put_update(w, rows[i].before_code, rows[i].before_flags, 2 * S);
        if (rows[i].has_graphics)
            put_graphics(w, 3 * S);
        put_size(w, 800, 900, 4 * S);
        put_update(w, 1, rows[i].after_flags, 5 * S);
        put_update(w, 1, rows[i].after_flags ? 0x20 : 0, 6 * S);
        scan = finish(w, fd, rows[i].until_us);
        if (scan.restart_us != rows[i].restart_us)
            fail_msg("%s: restart at %llu", rows[i].what, (unsigned long long)scan.restart_us);
        assert_int_equal(scan.restart_record > 0, rows[i].restart_us > 0);
        assert_int_equal(scan.max_width, 1024);
        assert_int_equal(scan.max_height, 900);
        assert_int_equal(scan.first_height, 768);
        assert_int_equal(scan.end_us, 9 * S); /* it stood still */
    }
}

static void test_no_desktop(void **state)
{
    int fd = memfd_create("recording", MFD_CLOEXEC);
    struct desktop_writer *w = begin(fd);
    struct recording_reader *reader;
    struct scan scan;
    char err[200];

    (void)state;
    assert_int_equal(desktop_close(w, "target-closed", 1), 0);
    desktop_writer_destroy(w);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    reader = recording_reader_open_fd(fd, err, sizeof(err));
    assert_non_null(reader);
    assert_int_equal(scan_recording(reader, 0, &scan, err, sizeof(err)), ERR_NOT_FOUND);
    assert_non_null(strstr(err, "no picture"));
    recording_reader_close(reader);
}

/* ---- the sandbox ---- */

static void *set_flag(void *flag)
{
    *(int *)flag = 1;
    return NULL;
}

/* What may be done afterwards: a bit each, in a process of its own. */
static int try_things(void)
{
    char err[200];
    pthread_t thread;
    int flag = 0, done = 0;

    if (export_sandbox_enter(err, sizeof(err)) < 0)
        return 1;
    if (open("/etc/hostname", O_RDONLY) >= 0 || open("/tmp", O_RDONLY | O_DIRECTORY) >= 0)
        done |= 2;
    if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || socket(AF_INET, SOCK_DGRAM, 0) >= 0)
        done |= 4;
    if (fork() >= 0)
        done |= 8;
    if (kill(getppid(), 0) == 0)
        done |= 16;
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
        done |= 32;
    /* its own work goes on */
    if (pthread_create(&thread, NULL, set_flag, &flag) != 0 || pthread_join(thread, NULL) != 0 ||
        flag != 1)
        done |= 64;
    return done;
}

static void test_sandbox(void **state)
{
    pid_t pid = fork();
    int status = 0;

    (void)state;
    if (pid == 0)
        _exit(try_things());
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_finds),        cmocka_unit_test(test_index_refuses),
        cmocka_unit_test(test_index_longest),      cmocka_unit_test(test_index_is_bounded),
        cmocka_unit_test(test_pointer_is_clipped), cmocka_unit_test(test_restarts),
        cmocka_unit_test(test_no_desktop),         cmocka_unit_test(test_sandbox),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
