/* Recordings: what goes in comes out byte for byte, and a file that was cut or changed says so. */
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "tracker/recording/recording_priv.h"

static const struct recording_head head_pty = {
    .session_id = 42,
    .channel = 1,
    .started_wall_us = INT64_C(1795325467120000),
    .has_pty = true,
    .cols = 100,
    .rows = 30,
    .user = "alice",
    .account = "root",
    .target = "web01",
    .command = "",
    .term = "xterm-256color",
};

struct frames {
    uint64_t count;
    uint64_t file_len;
    uint8_t chain[RECORDING_CHAIN_LEN];
};

static void on_frame(uint64_t sequence, uint64_t file_len, const uint8_t *chain, void *arg)
{
    struct frames *f = arg;

    assert_int_equal(sequence, f->count + 1);
    assert_true(file_len > f->file_len);
    f->count = sequence;
    f->file_len = file_len;
    memcpy(f->chain, chain, sizeof(f->chain));
}

/* A recording in memory: `fd` stays open for reading it back. */
struct tape {
    int fd;
    struct recording_writer *w;
    struct frames frames;
    int64_t now;
};

static void tape_start_with(struct tape *t, const struct recording_head *head,
                            enum policy_input input)
{
    memset(t, 0, sizeof(*t));
    t->fd = memfd_create("recording", MFD_CLOEXEC);
    assert_true(t->fd >= 0);
    t->now = 5000;
    t->w = recording_writer_create(dup(t->fd), head, input, on_frame, &t->frames);
    assert_non_null(t->w);
}

static void tape_start(struct tape *t)
{
    tape_start_with(t, &head_pty, INPUT_NO);
}

static void out(struct tape *t, const char *text)
{
    assert_int_equal(recording_output(t->w, text, strlen(text), false, t->now), 0);
}

static void typed(struct tape *t, const char *text)
{
    assert_int_equal(recording_input(t->w, text, strlen(text), t->now), 0);
}

static void tape_stop(struct tape *t)
{
    assert_int_equal(recording_close(t->w, "user-exit", t->now), 0);
    recording_writer_destroy(t->w);
    t->w = NULL;
}

static void tape_free(struct tape *t)
{
    recording_writer_destroy(t->w);
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

/* Every event as text: `o:bytes|`, control characters and bytes above 0x7e as <hh>. */
static char *events_text(struct recording_reader *r)
{
    static const char letters[] = {'o', 'e', 'i', 'r', 'm'};
    static char text[20000];
    size_t at = 0;
    struct recording_event e;

    while (recording_reader_next(r, &e) == 1) {
        at += (size_t)snprintf(text + at, sizeof(text) - at, "%c:", letters[e.kind]);
        for (size_t i = 0; i < e.len && at < sizeof(text) - 16; i++) {
            if (e.data[i] >= 0x20 && e.data[i] < 0x7F)
                text[at++] = (char)e.data[i];
            else
                at += (size_t)snprintf(text + at, sizeof(text) - at, "<%02x>", e.data[i]);
        }
        text[at++] = '|';
    }
    text[at] = '\0';
    return text;
}

static void expect_events(const struct tape *t, const char *wanted)
{
    struct recording_reader *r = tape_read(t);

    assert_string_equal(events_text(r), wanted);
    recording_reader_close(r);
}

static enum recording_end read_end(const struct tape *t, uint64_t *frame, char *text, size_t len)
{
    struct recording_reader *r = tape_read(t);
    struct recording_event e;
    enum recording_end end;
    int n;

    while ((n = recording_reader_next(r, &e)) == 1)
        ;
    assert_int_equal(n, 0);
    end = recording_reader_end(r, frame, text, len);
    recording_reader_close(r);
    return end;
}

static void expect_end(const struct tape *t, enum recording_end wanted)
{
    char text[200];
    uint64_t frame;
    enum recording_end end = read_end(t, &frame, text, sizeof(text));

    if (end != wanted)
        print_error("%s\n", text);
    assert_int_equal(end, wanted);
}

/* ---- the plain things ---- */

static void events_come_back(void **state)
{
    struct tape t;
    struct recording_reader *r;
    struct recording_event e;
    uint16_t cols, rows;
    uint64_t frame;
    char text[200];

    (void)state;
    tape_start(&t);
    out(&t, "hello \"w\\orld\"\r\n");
    t.now += 250;
    assert_int_equal(recording_resize(t.w, 132, 43, t.now), 0);
    out(&t, "\033[1mx\033[0m\177");
    assert_int_equal(recording_notice(t.w, "Idle for 10 minutes", t.now), 0);
    typed(&t, "secret");
    t.now += 1750;
    out(&t, "end");
    tape_stop(&t);
    assert_int_equal(t.frames.count, 2);

    r = tape_read(&t);
    assert_non_null(strstr(recording_reader_header(r), "\"title\": \"alice: root@web01\""));
    assert_non_null(strstr(recording_reader_header(r), "\"env\": {\"TERM\": \"xterm-256color\"}"));
    assert_non_null(strstr(recording_reader_header(r), "\"timestamp\": 1795325467,"));
    assert_null(strstr(recording_reader_header(r), "command"));
    recording_reader_size(r, &cols, &rows);
    assert_int_equal(cols, 100);
    assert_int_equal(rows, 30);
    assert_string_equal(events_text(r),
                        "o:hello \"w\\orld\"<0d><0a>|r:132x43|o:<1b>[1mx<1b>[0m<7f>|"
                        "m:Idle for 10 minutes|o:end|");
    assert_int_equal(recording_reader_end(r, &frame, text, sizeof(text)), RECORDING_COMPLETE);
    assert_string_equal(text, "complete, 2.000 s, ended: user-exit");
    assert_int_equal(frame, 2);
    recording_reader_close(r);

    r = tape_read(&t);
    assert_int_equal(recording_reader_next(r, &e), 1);
    assert_true(e.at_s == 0.0);
    assert_int_equal(recording_reader_next(r, &e), 1);
    assert_true(e.at_s == 0.25);
    assert_int_equal(e.cols, 132);
    assert_int_equal(e.rows, 43);
    recording_reader_close(r);
    tape_free(&t);
}

static void nothing_recorded_is_a_recording(void **state)
{
    struct tape t;

    (void)state;
    tape_start(&t);
    tape_stop(&t);
    expect_events(&t, "");
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

static void same_millisecond_is_one_event(void **state)
{
    struct tape t;

    (void)state;
    tape_start(&t);
    out(&t, "a");
    out(&t, "b");
    t.now++;
    out(&t, "c");
    assert_int_equal(recording_output(t.w, "E", 1, true, t.now), 0);
    assert_int_equal(recording_output(t.w, "F", 1, true, t.now), 0);
    out(&t, "d");
    assert_int_equal(recording_notice(t.w, "n", t.now), 0);
    out(&t, "e");
    tape_stop(&t);
    expect_events(&t, "o:ab|o:c|e:EF|o:d|m:n|o:e|");
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

/* ---- UTF-8 ---- */

static void split_characters_are_joined(void **state)
{
    struct tape t;

    (void)state;
    tape_start(&t);
    out(&t, "a\xE2\x82");
    t.now += 10;
    typed(&t, "x");
    assert_int_equal(recording_notice(t.w, "n", t.now), 0);
    out(&t, "\xAC"
            "b\xF0");
    t.now += 10;
    out(&t, "\x9F");
    t.now += 10;
    out(&t, "\x98");
    t.now += 10;
    out(&t, "\x80");
    out(&t, "\xC3");
    out(&t, "\xE2\x82\xAC");
    out(&t, "\xE2\x82");
    tape_stop(&t);
    expect_events(&t, "o:a|m:n|o:<e2><82><ac>b|o:<f0><9f><98><80><c3><e2><82><ac><e2><82>|");
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

static void invalid_bytes_are_exact(void **state)
{
    static const char nasty[] = "a\xFF\xFE"
                                "b\xC0\x80\xED\xA0\x80\xF4\x90\x80\x80\xEF\xBF\xBD\xC2\x85"
                                "\xE2\x80\xA8\xE2\x80\xA9\xEF\xBF\xBD\xFF";
    struct tape t;
    char *text, wanted[400] = "o:";
    struct recording_reader *r;

    (void)state;
    for (size_t i = 0; i < sizeof(nasty) - 1; i++)
        if (nasty[i] == 'a' || nasty[i] == 'b')
            snprintf(wanted + strlen(wanted), 8, "%c", nasty[i]);
        else
            snprintf(wanted + strlen(wanted), 8, "<%02x>", (uint8_t)nasty[i]);
    snprintf(wanted + strlen(wanted), 8, "|");
    tape_start(&t);
    out(&t, nasty);
    tape_stop(&t);
    r = tape_read(&t);
    text = events_text(r);
    assert_string_equal(text, wanted);
    recording_reader_close(r);
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

static void held_bytes_leave_with_their_frame(void **state)
{
    struct tape t;
    int64_t due;

    (void)state;
    tape_start(&t);
    out(&t, "\xE2");
    assert_int_equal(recording_tick(t.w, t.now + 300, &due), 0);
    assert_int_equal(due, 700);
    assert_int_equal(t.frames.count, 0);
    assert_int_equal(recording_tick(t.w, t.now + 1000, &due), 0);
    assert_int_equal(due, -1);
    assert_int_equal(t.frames.count, 1);
    t.now += 2000;
    out(&t, "\x82\xAC");
    tape_stop(&t);
    expect_events(&t, "o:<e2>|o:<82><ac>|");
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

/* ---- the stream's hash ---- */

static uint64_t seed;

static uint32_t next_random(void)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(seed >> 33);
}

/* Play everything and compare the hash of the output with `wanted`. */
static void expect_hash(const struct tape *t, EVP_MD_CTX *wanted, uint64_t wanted_bytes)
{
    struct recording_reader *r = tape_read(t);
    struct recording_event e;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    uint8_t a[32], b[32];
    uint64_t bytes = 0;

    assert_int_equal(EVP_DigestInit_ex(c, EVP_sha256(), NULL), 1);
    while (recording_reader_next(r, &e) == 1)
        if (e.kind == RECORDING_EVENT_OUTPUT) {
            assert_int_equal(EVP_DigestUpdate(c, e.data, e.len), 1);
            bytes += e.len;
        }
    assert_int_equal(EVP_DigestFinal_ex(c, a, NULL), 1);
    assert_int_equal(EVP_DigestFinal_ex(wanted, b, NULL), 1);
    assert_int_equal(bytes, wanted_bytes);
    assert_memory_equal(a, b, sizeof(a));
    recording_reader_close(r);
    EVP_MD_CTX_free(c);
    EVP_MD_CTX_free(wanted);
    expect_end(t, RECORDING_COMPLETE);
}

/* kind 0: random bytes, 1: letters with some UTF-8 and escapes, 2: half of each */
static void fill(uint8_t *data, size_t len, int kind)
{
    static const char *const pieces[] = {"drwxr-xr-x ",  "\033[01;34m",      "\r\n", "\xC3\xA4",
                                         "\xE2\x94\x80", "\xF0\x9F\x98\x80", "\"",   "total 4096"};
    size_t at = 0;

    while (at < len) {
        if (kind == 0 || (kind == 2 && next_random() % 8 == 0)) {
            data[at++] = (uint8_t)next_random();
        } else {
            const char *piece = pieces[next_random() % 8];
            for (size_t i = 0; piece[i] && at < len; i++)
                data[at++] = (uint8_t)piece[i];
        }
    }
}

static void stream_is_exact(int kind, size_t total, size_t max_write, uint32_t ms_every)
{
    static uint8_t data[65536];
    struct tape t;
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    uint64_t bytes = 0;
    int64_t due;

    seed = (uint64_t)kind * 77 + max_write;
    assert_int_equal(EVP_DigestInit_ex(c, EVP_sha256(), NULL), 1);
    tape_start(&t);
    fill(data, sizeof(data), kind);
    while (bytes < total) {
        size_t n = 1 + next_random() % max_write;
        size_t at = next_random() % (sizeof(data) - n + 1);

        assert_int_equal(EVP_DigestUpdate(c, data + at, n), 1);
        assert_int_equal(recording_output(t.w, data + at, n, false, t.now), 0);
        bytes += n;
        if (next_random() % ms_every == 0)
            t.now += next_random() % 300;
        if (next_random() % 64 == 0)
            assert_int_equal(recording_tick(t.w, t.now, &due), 0);
    }
    tape_stop(&t);
    expect_hash(&t, c, bytes);
    tape_free(&t);
}

static void random_bytes_are_exact(void **state)
{
    (void)state;
    stream_is_exact(0, 4 << 20, 5000, 1);
    stream_is_exact(0, 4 << 20, 65536, 1000);
    stream_is_exact(2, 4 << 20, 300, 2);
    stream_is_exact(1, 4 << 20, 40, 5);
}

static void a_million_writes_of_one_byte(void **state)
{
    (void)state;
    stream_is_exact(1, 500000, 1, 4);
    stream_is_exact(0, 500000, 1, 1000);
}

/* Default 20 MB; set RECORDING_TEST_MB=200 for the long one. */
static void slow_bulk_is_exact(void **state)
{
    const char *mb = getenv("RECORDING_TEST_MB");
    size_t bytes = (mb ? strtoul(mb, NULL, 10) : 20) << 20;

    (void)state;
    stream_is_exact(1, bytes, 65536, 3);
}

/* ---- commands without a pty ---- */

static void command_is_capped(void **state)
{
    static uint8_t data[65536];
    struct recording_head head = head_pty;
    struct recording_reader *r;
    struct recording_event e;
    struct tape t;
    uint64_t bytes[5] = {0};

    (void)state;
    head.has_pty = false;
    head.command = "tar \"c\" .";
    fill(data, sizeof(data), 1);
    tape_start_with(&t, &head, INPUT_NO);
    for (size_t i = 0; i < 300; i++) {
        assert_int_equal(recording_output(t.w, data, 60000, i % 4 == 0, t.now), 0);
        t.now++;
    }
    tape_stop(&t);
    r = tape_read(&t);
    assert_non_null(strstr(recording_reader_header(r), "\"command\": \"tar \\\"c\\\" .\""));
    assert_non_null(strstr(recording_reader_header(r), "\"width\": 80, \"height\": 24"));
    while (recording_reader_next(r, &e) == 1)
        bytes[e.kind] += e.len;
    recording_reader_close(r);
    assert_int_equal(bytes[RECORDING_EVENT_OUTPUT] + bytes[RECORDING_EVENT_STDERR],
                     RECORDING_EXEC_CAP);
    assert_int_equal(bytes[RECORDING_EVENT_NOTICE], strlen("output over the cap is not recorded"));
    assert_true(bytes[RECORDING_EVENT_STDERR] > RECORDING_EXEC_CAP / 5);
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

/* ---- cut and damaged ---- */

/* Five frames of a few events; returns the file in memory. */
static uint8_t *make_file(size_t *len, uint64_t lens[5])
{
    struct tape t;
    uint8_t *data;

    tape_start(&t);
    for (size_t i = 0; i < 5; i++) {
        char text[64];

        snprintf(text, sizeof(text), "frame %zu \xFF%c\r\n", i + 1, (char)('a' + i));
        out(&t, text);
        if (i < 4) {
            int64_t due;

            t.now += 1000;
            assert_int_equal(recording_tick(t.w, t.now, &due), 0);
            lens[i] = t.frames.file_len;
        }
    }
    tape_stop(&t);
    lens[4] = *len = (size_t)t.frames.file_len;
    data = malloc(*len);
    assert_non_null(data);
    assert_int_equal(pread(t.fd, data, *len, 0), *len);
    tape_free(&t);
    return data;
}

static void tape_of(struct tape *t, const uint8_t *data, size_t len)
{
    memset(t, 0, sizeof(*t));
    t->fd = memfd_create("recording", MFD_CLOEXEC);
    assert_true(t->fd >= 0);
    assert_int_equal(write(t->fd, data, len), len);
    assert_int_equal(lseek(t->fd, 0, SEEK_SET), 0);
}

static void cut_anywhere_plays_what_is_there(void **state)
{
    uint64_t lens[5], frame;
    size_t len;
    uint8_t *data = make_file(&len, lens);
    char text[200], *events;

    (void)state;
    for (size_t cut = 0; cut < len; cut++) {
        struct tape t;
        struct recording_reader *r;
        size_t whole = 0, seen = 0;

        while (whole < 5 && lens[whole] <= cut)
            whole++;
        tape_of(&t, data, cut);
        r = tape_read(&t);
        events = events_text(r);
        for (const char *p = events; (p = strstr(p, "o:frame ")); p++)
            seen++;
        assert_int_equal(seen, whole);
        assert_int_equal(recording_reader_end(r, &frame, text, sizeof(text)), RECORDING_CUT);
        assert_int_equal(frame, whole);
        assert_non_null(strstr(text, "cut at "));
        recording_reader_close(r);
        tape_free(&t);
    }
    free(data);
}

static void a_changed_byte_is_found(void **state)
{
    uint64_t lens[5];
    size_t len, n = 0;
    uint8_t *data = make_file(&len, lens);

    (void)state;
    for (size_t i = 0; i < len; i++) {
        char text[200], err[100];
        struct tape t;
        struct recording_reader *r;
        uint64_t frame;
        enum recording_end end;

        while (lens[n] <= i)
            n++;
        data[i] ^= 0x20;
        tape_of(&t, data, len);
        data[i] ^= 0x20;
        r = recording_reader_open_fd(dup(t.fd), err, sizeof(err));
        if (!r) { /* its first letters: no recording at all */
            assert_true(i < 13);
            tape_free(&t);
            continue;
        }
        recording_reader_close(r);
        end = read_end(&t, &frame, text, sizeof(text));
        if (end == RECORDING_CUT && n == 4) { /* the last one lost its trailer */
            tape_free(&t);
            continue;
        }
        if (end != RECORDING_DAMAGED || frame != n + 1)
            print_error("byte %zu of frame %zu: frame %llu: %s\n", i, n + 1,
                        (unsigned long long)frame, text);
        assert_int_equal(end, RECORDING_DAMAGED);
        assert_int_equal(frame, n + 1);
        tape_free(&t);
    }
    free(data);
}

static void damage_is_left_out_and_told(void **state)
{
    uint64_t lens[5];
    size_t len;
    uint8_t *data = make_file(&len, lens);
    struct tape t;

    (void)state;
    data[lens[1] + 20] ^= 1; /* in frame 3 */
    tape_of(&t, data, len);
    expect_events(&t, "o:frame 1 <ff>a<0d><0a>|o:frame 2 <ff>b<0d><0a>|"
                      "m:[recording: frame 3 is damaged: its hash does not match]|"
                      "o:frame 4 <ff>d<0d><0a>|o:frame 5 <ff>e<0d><0a>|");
    tape_free(&t);
    data[lens[1] + 20] ^= 1;

    /* frame 2 was taken out */
    memmove(data + lens[0], data + lens[1], len - lens[1]);
    tape_of(&t, data, len - (lens[1] - lens[0]));
    expect_events(&t, "o:frame 1 <ff>a<0d><0a>|"
                      "m:[recording: frame 2 is damaged: it is missing or not in its place]|"
                      "o:frame 3 <ff>c<0d><0a>|o:frame 4 <ff>d<0d><0a>|o:frame 5 <ff>e<0d><0a>|");
    tape_free(&t);
    free(data);
}

static void what_is_no_recording_is_refused(void **state)
{
    static const char *const texts[] = {"{\"version\": 2, \"width\": 80, \"height\": 24}\n", "x",
                                        "Z*M\030\040\0\0\0XXXXXXXXXXXXXXXX"};
    char err[100];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct tape t;

        tape_of(&t, (const uint8_t *)texts[i], i == 2 ? 24 : strlen(texts[i]));
        assert_null(recording_reader_open_fd(dup(t.fd), err, sizeof(err)));
        assert_string_equal(err, "this is not a Sallyport recording");
        tape_free(&t);
    }
    assert_null(recording_reader_open("/", err, sizeof(err)));
    assert_string_equal(err, "this is not a regular file");
    assert_null(recording_reader_open("/nonexistent/x", err, sizeof(err)));
    assert_string_equal(err, "No such file or directory");
}

static void a_killed_writer_loses_its_open_frame_only(void **state)
{
    struct tape t;
    int status;
    pid_t pid;

    (void)state;
    t.fd = memfd_create("recording", MFD_CLOEXEC);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        t.frames = (struct frames){0};
        t.w = recording_writer_create(t.fd, &head_pty, INPUT_NO, NULL, NULL);
        for (int64_t now = 0; now < 10100; now += 100)
            if (!t.w || recording_output(t.w, "x", 1, false, now) < 0)
                _exit(1);
        raise(SIGKILL);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    t.w = NULL;
    {
        struct recording_reader *r = tape_read(&t);
        struct recording_event e;
        double last = 0;
        size_t events = 0;

        for (; recording_reader_next(r, &e) == 1; events++)
            last = e.at_s;
        recording_reader_close(r);
        assert_int_equal(events, 100);
        assert_true(last == 9.9);
    }
    expect_end(&t, RECORDING_CUT);
    tape_free(&t);
}

/* ---- failure ---- */

static void a_full_disk_fails_for_good(void **state)
{
    struct recording_writer *w;
    int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    int64_t due;

    (void)state;
    assert_true(fd >= 0);
    w = recording_writer_create(fd, &head_pty, INPUT_NO, NULL, NULL);
    assert_non_null(w);
    assert_int_equal(recording_output(w, "x", 1, false, 0), 0);
    errno = 0;
    assert_int_equal(recording_tick(w, 1000, &due), ERR_SYSTEM);
    assert_int_equal(errno, ENOSPC);
    errno = 0;
    assert_int_equal(recording_output(w, "x", 1, false, 1001), ERR_SYSTEM);
    assert_int_equal(errno, ENOSPC);
    assert_int_equal(recording_close(w, "recording-failed", 1002), ERR_SYSTEM);
    recording_writer_destroy(w);
}

static void short_writes_go_on(void **state)
{
    struct tape t;
    struct rlimit limit, old;
    char path[] = "/tmp/recording-test-XXXXXX";
    int fd = mkostemp(path, O_APPEND | O_CLOEXEC);
    uint8_t data[4000];
    struct recording_writer *w;

    (void)state;
    assert_true(fd >= 0);
    seed = 1;
    fill(data, sizeof(data), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    limit = old;
    limit.rlim_cur = 3000; /* the first write is short, the next fails */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    w = recording_writer_create(dup(fd), &head_pty, INPUT_NO, NULL, NULL);
    assert_int_equal(recording_output(w, data, 100, false, 0), 0);
    assert_int_equal(recording_output(w, data, sizeof(data), false, 1000), 0);
    errno = 0;
    assert_int_equal(recording_close(w, "user-exit", 1001), ERR_SYSTEM);
    assert_int_equal(errno, EFBIG);
    recording_writer_destroy(w);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    memset(&t, 0, sizeof(t));
    t.fd = fd;
    assert_int_equal(lseek(fd, 0, SEEK_END), 3000);
    expect_end(&t, RECORDING_CUT);
    tape_free(&t);
    unlink(path);
}

static void idle_holds_no_memory(void **state)
{
    struct tape t;
    int64_t due;

    (void)state;
    tape_start(&t);
    out(&t, "prompt$ ");
    assert_int_equal(recording_tick(t.w, t.now + 1000, &due), 0);
    assert_int_equal(due, -1);
    /* In bulk the mapping stays for a second. */
    for (size_t i = 0; i < 40; i++)
        out(&t, "some text that is the same again and again, some text that is the same\r\n");
    assert_int_equal(recording_tick(t.w, t.now + 2000, &due), 0);
    assert_int_equal(due, -1);
    tape_stop(&t);
    tape_free(&t);
}

/* ---- what was typed ---- */

struct echo_case {
    const char *name;
    const char *script[16]; /* `<` typed, `>` output; NULL ends */
    const char *wanted;     /* the input events */
};

static const struct echo_case echo_cases[] = {
    {"canonical", {"<l", ">l", "<s", ">s", "<\r", ">\r\n", ">file\r\n"}, "ls<0d>|"},
    {"one packet", {"<ls -la\r", ">ls -la\r\n", ">file\r\n"}, "ls -la<0d>|"},
    {"echo in pieces", {"<ls", ">l", "<\r", ">s\r", ">\nfile\r\n"}, "ls<0d>|"},
    {"bracketed paste readline",
     {"<id", ">id", "<\r", ">\r\n\033[?2004l\r", ">uid=0\r\n\033[?2004h$ "},
     "id<0d>|"},
    {"pasted",
     {"<\033[200~echo hi\033[201~", ">\033[7mecho hi\033[27m", "<\r", ">\r\n"},
     "echo hi<0d>|"},
    {"pasted lines", {"<\033[200~a\rb\033[201~", ">a\r\nb", "<\r", ">\r\n"}, ""},
    {"two lines", {"<pwd\rid\r", ">pwd\r\n/root\r\n$ id\r\nuid=0\r\n"}, "pwd<0d>|"},
    {"sudo",
     {"<sudo id", ">sudo id", "<\r", ">\r\n[sudo] password for alice: ", "<hunter2", "<\r",
      ">\r\nuid=0(root)\r\n"},
     "sudo id<0d>|"},
    {"sudo with stars", {"<hunter2", ">*******", "<\r", ">\r\nuid=0(root)\r\n"}, ""},
    {"read -s", {"<hunter2\r", ">thanks\r\n$ ", "<id", ">id", "<\r", ">\r\n"}, "id<0d>|"},
    {"read -s, short", {"<ok\r", ">that is ok\r\n"}, ""},
    {"no echo, then echo", {"<hunter2\r", "<id\r", ">id\r\n"}, ""},
    {"backspace", {"<lsx", ">lsx", "<\177", ">\b \b", "< -l\r", "> -l\r\n"}, "ls -l<0d>|"},
    {"backspace in readline", {"<lsx", ">lsx", "<\177", ">\b\033[K", "<\r", ">\r\n"}, "ls<0d>|"},
    {"kill line", {"<rm x", ">rm x", "<\025", ">\b\b\b\b\033[K", "<ls\r", ">ls\r\n"}, "ls<0d>|"},
    {"kill word", {"<ls foo", ">ls foo", "<\027", ">\b\b\b\033[K", "<b\r", ">b\r\n"}, "ls b<0d>|"},
    {"accents",
     {"<h\xC3\xA9\xC3\xA8", ">h\xC3\xA9\xC3\xA8", "<\177", ">\b\033[K", "<\r", ">\r\n"},
     "h<c3><a9><0d>|"},
    {"arrow", {"<ls", ">ls", "<\033[D", ">\b", "<x", ">\033[1@x", "<\r", ">\r\n"}, ""},
    {"history", {"<\033[A", ">ls -la", "<\r", ">\r\n"}, ""},
    {"interrupted", {"<secret", "<\003", ">^C\r\n$ ", "<ls", ">ls", "<\r", ">\r\n"}, "ls<0d>|"},
    {"tab", {"<cat fo", ">cat fo", "<\t", ">o.txt ", "<-n\r", ">-n\r\n"}, "cat foo.txt -n<0d>|"},
    {"tab at the end", {"<cat fo\t", ">cat foo.txt ", "<\r", ">\r\n"}, "cat foo.txt <0d>|"},
    {"tab with a list",
     {"<cat f", ">cat f", "<\t\t", ">\r\nfa  fb\r\n$ cat f", "<a\r", ">a\r\n"},
     ""},
    {"password with a tab", {"<hunt\ter", "<\r", ">\r\nok\r\n"}, ""},
    {"prompt drawn again", {"<id -u", ">id -u", ">\r\033[K$ id -u", "<\r", ">\r\n"}, "id -u<0d>|"},
    {"vim",
     {"<vim\r", ">vim\r\n", ">\033[?1049h\033[22;0;0t", "<ihello\r", ">hello\r\n", "<\033:wq\r",
      ">\033[?25;1049l$ ", "<ls\r", ">ls\r\n"},
     "vim<0d>|ls<0d>|"},
    {"answers of the terminal",
     {"<\033[?62;c", "<\033]11;rgb:00/00/00\007", "<\033[24;80R", "<ls", ">ls", "<\r", ">\r\n"},
     "ls<0d>|"},
    {"pasted into bash",
     {"<\033[200~echo hi\033[201~", ">\033[7mecho hi\033[27m", "<\r",
      ">\r\033[C\033[Cecho hi\r\n\033[?2004l\r"},
     "echo hi<0d>|"},
    {"wrapped by readline",
     {"<echo abc", ">echo abc", "<d", ">d \r", "<e", ">e", "<\r", ">\r\n"},
     "echo abcde<0d>|"},
    {"a blank at the end", {"<echo abc \r", ">echo abc \r\n"}, "echo abc <0d>|"},
    {"lines in one piece", {"<ab\rcd\r", ">ab\r\ncd\r\n"}, "ab<0d>|cd<0d>|"},
    {"enter only", {"<\r", ">\r\n$ ", "<\r", ">\r\n$ "}, ""},
};

static void echoed_lines_are_kept(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(echo_cases) / sizeof(echo_cases[0]); i++) {
        const struct echo_case *c = &echo_cases[i];
        struct recording_reader *r;
        struct recording_event e;
        char got[400] = "";
        struct tape t;

        tape_start_with(&t, &head_pty, INPUT_ECHOED);
        for (size_t k = 0; c->script[k]; k++) {
            t.now += 20;
            if (c->script[k][0] == '<')
                typed(&t, c->script[k] + 1);
            else
                out(&t, c->script[k] + 1);
        }
        tape_stop(&t);
        r = tape_read(&t);
        while (recording_reader_next(r, &e) == 1)
            for (size_t k = 0; e.kind == RECORDING_EVENT_INPUT && k <= e.len; k++)
                if (k == e.len)
                    snprintf(got + strlen(got), 8, "|");
                else if (e.data[k] < 0x20 || e.data[k] > 0x7E)
                    snprintf(got + strlen(got), 8, "<%02x>", e.data[k]);
                else
                    snprintf(got + strlen(got), 8, "%c", e.data[k]);
        recording_reader_close(r);
        if (strcmp(got, c->wanted) != 0)
            print_error("%s: got %s\n", c->name, got);
        assert_string_equal(got, c->wanted);
        expect_end(&t, RECORDING_COMPLETE);
        tape_free(&t);
    }
}

static void a_line_waits_five_seconds(void **state)
{
    struct tape t;
    int64_t due;

    (void)state;
    tape_start_with(&t, &head_pty, INPUT_ECHOED);
    typed(&t, "hunter2\r");
    assert_int_equal(recording_tick(t.w, t.now + 100, &due), 0);
    assert_int_equal(due, ECHO_PENDING_MS - 100);
    assert_int_equal(recording_tick(t.w, t.now + ECHO_PENDING_MS, &due), 0);
    assert_int_equal(due, -1);
    out(&t, "hunter2\r\n");
    tape_stop(&t);
    expect_events(&t, "o:hunter2<0d><0a>|");
    tape_free(&t);
}

static void long_lines_are_dropped(void **state)
{
    static char line[ECHO_HELD_MAX + 200];
    struct tape t;

    (void)state;
    memset(line, 'x', sizeof(line) - 1);
    tape_start_with(&t, &head_pty, INPUT_ECHOED);
    typed(&t, line);
    out(&t, line);
    typed(&t, "\r");
    out(&t, "\r\n");
    typed(&t, "ls");
    out(&t, "ls");
    typed(&t, "\r");
    out(&t, "\r\n");
    tape_stop(&t);
    {
        struct recording_reader *r = tape_read(&t);
        char *text = events_text(r);

        assert_non_null(strstr(text, "|i:ls<0d>|"));
        assert_null(strstr(text, "i:x"));
        recording_reader_close(r);
    }
    tape_free(&t);
}

static void all_input_is_kept(void **state)
{
    struct tape t;

    (void)state;
    tape_start_with(&t, &head_pty, INPUT_ALL);
    typed(&t, "a\xFF\033[A\xE2");
    typed(&t, "\x82\xAC\r");
    tape_stop(&t);
    expect_events(&t, "i:a<ff><1b>[A<e2><82><ac><0d>|");
    tape_free(&t);
}

/* ---- the lines ---- */

/* What somebody else typed is kept whatever the policy says, and says whose it is. */
static void what_others_type_has_their_name(void **state)
{
    static const char long_text[] = "0123456789";
    struct recording_reader *r;
    struct recording_event e;
    struct tape t;
    size_t named = 0, typed_len = 0;

    (void)state;
    tape_start(&t);
    out(&t, "$ ");
    assert_int_equal(recording_typed(t.w, "admin root", "ls\xff\r", 4, t.now), 0);
    for (int i = 0; i < 3000; i++)
        assert_int_equal(recording_typed(t.w, "admin eve", long_text, 10, ++t.now), 0);
    typed(&t, "secret");
    out(&t, "done");
    tape_stop(&t);
    r = tape_read(&t);
    while (recording_reader_next(r, &e) == 1) {
        if (e.kind != RECORDING_EVENT_INPUT) {
            assert_string_equal(e.author, "");
            continue;
        }
        if (named == 0) {
            assert_string_equal(e.author, "admin root");
            assert_int_equal(e.len, 4);
            assert_memory_equal(e.data, "ls\xff\r", 4);
        } else {
            assert_string_equal(e.author, "admin eve");
            typed_len += e.len;
        }
        named++;
    }
    assert_int_equal(typed_len, 30000);
    recording_reader_close(r);
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

/* A part that was flushed is all there is so far, but for half a character. */
static void a_flushed_part_is_everything_so_far(void **state)
{
    struct recording_position at;
    struct recording_reader *r;
    struct tape t;
    char err[128] = "";

    (void)state;
    tape_start(&t);
    assert_int_equal(recording_flush(t.w, t.now, &at), 0);
    assert_int_equal(at.file_len, 0);
    out(&t, "shown \xe6\x97");
    assert_int_equal(recording_flush(t.w, t.now, &at), 0);
    assert_int_equal(at.sequence, 1);
    assert_int_equal(at.held_len, 2);
    assert_memory_equal(at.held, "\xe6\x97", 2);
    out(&t, "\xa5 later");
    tape_stop(&t);
    assert_true(t.frames.file_len > at.file_len);
    lseek(t.fd, 0, SEEK_SET);
    r = recording_reader_open_part(dup(t.fd), at.file_len, err, sizeof(err));
    assert_non_null(r);
    assert_string_equal(events_text(r), "o:shown |");
    recording_reader_close(r);
    expect_events(&t, "o:shown |o:<e6><97><a5> later|");
    expect_end(&t, RECORDING_COMPLETE);
    tape_free(&t);
}

static void lines_are_parsed_strictly(void **state)
{
    static const struct {
        const char *line;
        bool ok;
        int64_t ms;
        const char *data;
    } cases[] = {
        {"[0.5, \"o\", \"x\"]", true, 500, "x"},
        {"[12,\"o\",\"\"]", true, 12000, ""},
        {"[ 1.23456 , \"i\" , \"\\u0041\\ud83d\\ude00\\/\" ] ", true, 1234, "A\xF0\x9F\x98\x80/"},
        {"[1.0, \"o\", \"x\"", false, 0, NULL},
        {"[1.0, \"o\", \"x]", false, 0, NULL},
        {"[1.0, \"oo\", \"x\"]", false, 0, NULL},
        {"[-1.0, \"o\", \"x\"]", false, 0, NULL},
        {"[1e3, \"o\", \"x\"]", false, 0, NULL},
        {"[999999999999, \"o\", \"x\"]", false, 0, NULL},
        {"[1.0, \"o\", \"\\ud83d\"]", false, 0, NULL},
        {"[1.0, \"o\", \"\\udc00\"]", false, 0, NULL},
        {"[1.0, \"o\", \"\\u12g4\"]", false, 0, NULL},
        {"[1.0, \"o\", \"\\x\"]", false, 0, NULL},
        {"[1.0, \"o\", \"x\"] y", false, 0, NULL},
        {"", false, 0, NULL},
    };
    uint16_t cols, rows;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t data[100];
        struct cast_event e;
        bool ok = cast_parse_event(cursor_of(cases[i].line, strlen(cases[i].line)), &e, data,
                                   sizeof(data));

        if (ok != cases[i].ok)
            print_error("%s\n", cases[i].line);
        assert_int_equal(ok, cases[i].ok);
        if (!ok)
            continue;
        assert_int_equal(e.ms, cases[i].ms);
        assert_int_equal(e.len, strlen(cases[i].data));
        assert_memory_equal(data, cases[i].data, e.len);
    }
    assert_true(cast_parse_size((const uint8_t *)"999999999999x0", 14, &cols, &rows));
    assert_int_equal(cols, 1000);
    assert_int_equal(rows, 1);
    assert_false(cast_parse_size((const uint8_t *)"80", 2, &cols, &rows));
    assert_false(cast_parse_size((const uint8_t *)"80x24x", 6, &cols, &rows));
}

static char *export_text(const struct tape *t, double at_s)
{
    static char text[8192];
    char path[64], err[100] = "";
    FILE *f = fmemopen(text, sizeof(text), "w");

    assert_non_null(f);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", t->fd);
    assert_int_equal(recording_export(path, f, at_s, err, sizeof(err)), 0);
    fclose(f);
    return text;
}

static void export_is_plain_asciicast(void **state)
{
    struct tape t;
    char *text;

    (void)state;
    tape_start(&t);
    out(&t, "one\xFF\r\n");
    t.now += 500;
    assert_int_equal(recording_resize(t.w, 90, 20, t.now), 0);
    t.now += 500;
    out(&t, "two\033[m");
    tape_stop(&t);
    text = export_text(&t, 0);
    assert_non_null(strchr(text, '\n'));
    assert_string_equal(strchr(text, '\n'), "\n[0.000, \"o\", \"one\xEF\xBF\xBD\\r\\n\"]\n"
                                            "[0.500, \"r\", \"90x20\"]\n"
                                            "[1.000, \"o\", \"two\\u001b[m\"]\n");
    text = export_text(&t, 0.75);
    assert_string_equal(strchr(text, '\n'), "\n[0.000, \"r\", \"90x20\"]\n"
                                            "[0.000, \"o\", \"\\u001bc\"]\n"
                                            "[0.250, \"o\", \"two\\u001b[m\"]\n");
    assert_int_equal(ftruncate(t.fd, (off_t)t.frames.file_len - 3), 0);
    text = export_text(&t, 0);
    assert_non_null(strstr(text, "\"m\", \"[recording: cut at "));
    tape_free(&t);
}

/* The real programs read what we write: `zstd -dc | asciinema cat`. */
static void other_programs_read_it(void **state)
{
    char path[] = "/tmp/recording-test-XXXXXX", command[256], got[400], cast[64];
    int fd = mkostemp(path, O_CLOEXEC);
    struct tape t;
    size_t n;
    FILE *p;

    (void)state;
    assert_true(fd >= 0);
    memset(&t, 0, sizeof(t));
    t.w = recording_writer_create(dup(fd), &head_pty, INPUT_ALL, NULL, NULL);
    t.fd = fd;
    out(&t, "h\xC3\xA9llo\xFF \xC2\x85\r\n");
    typed(&t, "x");
    t.now += 1500;
    assert_int_equal(recording_resize(t.w, 90, 20, t.now), 0);
    out(&t, "\xE2\x80\xA8");
    t.now += 1500;
    assert_int_equal(recording_output(t.w, "bye\r\n", 5, false, t.now), 0);
    tape_stop(&t);
    snprintf(
        command, sizeof(command),
        "zstd -dcq %s > %s.cast && LC_ALL=C.UTF-8 script -qec 'asciinema cat %s.cast' /dev/null",
        path, path, path);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(got, 1, sizeof(got) - 1, p);
    got[n] = '\0';
    assert_int_equal(pclose(p), 0);
    assert_string_equal(got, "h\xC3\xA9llo\xEF\xBF\xBD \xC2\x85\r\n\xE2\x80\xA8"
                             "bye\r\n");
    tape_free(&t);
    snprintf(cast, sizeof(cast), "%s.cast", path);
    unlink(cast);
    unlink(path);
}

static bool has_programs(void)
{
    static const char *const paths[] = {"/usr/bin/asciinema", "/usr/bin/zstd", "/usr/bin/script"};
    size_t found = 0;

    for (size_t i = 0; i < 3; i++)
        found += access(paths[i], X_OK) == 0;
    return found == 3;
}

static void other_programs(void **state)
{
    if (!has_programs())
        skip();
    other_programs_read_it(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_back),
        cmocka_unit_test(nothing_recorded_is_a_recording),
        cmocka_unit_test(same_millisecond_is_one_event),
        cmocka_unit_test(split_characters_are_joined),
        cmocka_unit_test(invalid_bytes_are_exact),
        cmocka_unit_test(held_bytes_leave_with_their_frame),
        cmocka_unit_test(random_bytes_are_exact),
        cmocka_unit_test(a_million_writes_of_one_byte),
        cmocka_unit_test(slow_bulk_is_exact),
        cmocka_unit_test(command_is_capped),
        cmocka_unit_test(cut_anywhere_plays_what_is_there),
        cmocka_unit_test(a_changed_byte_is_found),
        cmocka_unit_test(damage_is_left_out_and_told),
        cmocka_unit_test(what_is_no_recording_is_refused),
        cmocka_unit_test(a_killed_writer_loses_its_open_frame_only),
        cmocka_unit_test(a_full_disk_fails_for_good),
        cmocka_unit_test(short_writes_go_on),
        cmocka_unit_test(idle_holds_no_memory),
        cmocka_unit_test(echoed_lines_are_kept),
        cmocka_unit_test(a_line_waits_five_seconds),
        cmocka_unit_test(long_lines_are_dropped),
        cmocka_unit_test(all_input_is_kept),
        cmocka_unit_test(what_others_type_has_their_name),
        cmocka_unit_test(a_flushed_part_is_everything_so_far),
        cmocka_unit_test(lines_are_parsed_strictly),
        cmocka_unit_test(export_is_plain_asciicast),
        cmocka_unit_test(other_programs),
    };

    return cmocka_run_group_tests_name("recording", tests, NULL, NULL);
}
