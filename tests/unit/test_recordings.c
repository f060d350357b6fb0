/* Recording files as the broker opens them: names, planted files, asking again, little space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sallyport/text.h>

#include "proxy/broker/recordings.h"
#include "proxy/broker/workers.h"
#include "tracker/store/store.h"

struct fixture {
    char dir[64], recordings[96], key[96];
    struct event_base *base;
    struct store *store;
    struct workers *workers;
    struct recordings *r;
    uint64_t session;
    int shortages;
};

static void on_short(uint64_t session_id, void *arg)
{
    struct fixture *f = arg;

    assert_int_equal(session_id, f->session);
    f->shortages++;
}

static void open_recordings(struct fixture *f, uint64_t min_free)
{
    char err[256];

    f->r = recordings_create(f->base, f->store, f->workers, on_short, f);
    assert_non_null(f->r);
    assert_int_equal(recordings_configure(f->r, f->recordings, min_free, err, sizeof(err)), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct session_info info = {.user = "alice", .target = "web01", .started_wall_us = 1};
    char err[512];

    text_copy(f->dir, sizeof(f->dir), "/tmp/test-recordings-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->recordings, sizeof(f->recordings), "%s/recordings", f->dir);
    snprintf(f->key, sizeof(f->key), "%s/store.key", f->dir);
    f->base = event_base_new();
    f->workers = workers_create(f->base, 1, 16);
    assert_int_equal(store_open(&f->store, f->dir, f->key, err, sizeof(err)), STORE_OPEN_OK);
    assert_int_equal(store_session_open(f->store, &info), 0);
    f->session = info.id;
    open_recordings(f, 0);
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    workers_destroy(f->workers);
    recordings_destroy(f->r);
    store_close(f->store);
    event_base_free(f->base);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

struct told {
    struct recordings_answer answer;
    bool has_come;
};

static void on_answer(const struct recordings_answer *a, void *arg)
{
    struct told *t = arg;

    assert_false(t->has_come);
    assert_int_equal(a->serial, 77);
    assert_true((a->result < 0) == (a->text[0] != '\0'));
    t->answer = *a;
    t->has_come = true;
}

static void await(struct fixture *f, const struct told *t)
{
    while (!t->has_come)
        event_base_loop(f->base, EVLOOP_ONCE);
}

static int open_channel(struct fixture *f, uint32_t channel)
{
    struct told t = {.has_come = false};

    assert_int_equal(recordings_open(f->r, f->session, channel, channel == 3, on_answer, &t, 77),
                     0);
    await(f, &t);
    assert_int_equal(t.answer.channel, channel);
    assert_int_equal(t.answer.session_id, f->session);
    assert_true((t.answer.fd >= 0) == (t.answer.result == 0));
    return t.answer.fd;
}

static int check(struct fixture *f)
{
    struct told t = {.has_come = false};

    assert_int_equal(recordings_check(f->r, on_answer, &t, 77), 0);
    await(f, &t);
    assert_int_equal(t.answer.fd, -1);
    return t.answer.result;
}

static bool take_row(const struct store_recording *row, void *arg)
{
    *(struct store_recording *)arg = *row;
    return true;
}

static void append_only_private_and_listed(void **state)
{
    struct fixture *f = *state;
    struct store_recording row = {0};
    struct stat st;
    int fd = open_channel(f, 2);

    assert_true(fd >= 0);
    assert_true(fcntl(fd, F_GETFL) & O_APPEND);
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(store_recordings(f->store, f->session, take_row, &row), 0);
    assert_int_equal(row.channel, 2);
    assert_non_null(strstr(row.path, "/1.2.cast.zst"));
    close(fd);
}

/* The broker was killed between making the file and answering; the relay asks the next one. */
static void asked_again(void **state)
{
    struct fixture *f = *state;
    int fd = open_channel(f, 1);

    close(fd);
    recordings_destroy(f->r);
    open_recordings(f, 0);
    recordings_adopt(f->r, f->session);
    fd = open_channel(f, 1);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_true(open_channel(f, 1) < 0); /* it holds something now: never a second writer */
}

static void planted_files_are_refused(void **state)
{
    static const char *const kinds[] = {"symlink", "hardlink", "fifo", "directory"};
    struct fixture *f = *state;
    char day[160], path[256], victim[96], date[16];
    time_t now = time(NULL);
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%Y-%m-%d", &tm);
    snprintf(day, sizeof(day), "%s/%s", f->recordings, date);
    snprintf(victim, sizeof(victim), "%s/victim", f->dir);
    close(open(victim, O_WRONLY | O_CREAT, 0600));
    assert_int_equal(mkdir(day, 0700), 0);
    for (uint32_t n = 0; n < sizeof(kinds) / sizeof(kinds[0]); n++) {
        struct stat st;

        snprintf(path, sizeof(path), "%s/%llu.%u.cast.zst", day, (unsigned long long)f->session,
                 n + 10);
        assert_int_equal(n == 0   ? symlink(victim, path)
                         : n == 1 ? link(victim, path)
                         : n == 2 ? mkfifo(path, 0600)
                                  : mkdir(path, 0700),
                         0);
        assert_true(open_channel(f, n + 10) < 0);
        assert_int_equal(stat(victim, &st), 0);
        assert_int_equal(st.st_size, 0);
    }
}

static void little_space(void **state)
{
    struct fixture *f = *state;
    int fd = open_channel(f, 1);
    char err[256];

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(check(f), 0);
    assert_int_equal(recordings_configure(f->r, f->recordings, UINT64_C(1) << 50, err, sizeof(err)),
                     0);
    assert_int_equal(check(f), ERR_FULL);
    assert_true(open_channel(f, 2) < 0);
    while (!f->shortages)
        event_base_loop(f->base, EVLOOP_ONCE);
    recordings_close(f->r, f->session);
}

/* Asked while everything comes to its end: told so, once, and nothing is left open. */
static void the_end_answers(void **state)
{
    struct fixture *f = *state;
    struct told t = {.has_come = false};

    assert_int_equal(recordings_open(f->r, f->session, 5, false, on_answer, &t, 77), 0);
    assert_int_equal(recordings_count(f->r, f->session), 1);
    workers_destroy(f->workers); /* which runs it, or says that it was not run */
    f->workers = workers_create(f->base, 1, 16);
    assert_true(t.has_come);
    if (t.answer.fd >= 0)
        close(t.answer.fd);
}

static void frames_only_grow(void **state)
{
    struct fixture *f = *state;
    struct store_recording row = {0};
    uint8_t chain[32] = {7}, other[32] = {9};

    close(open_channel(f, 1));
    recordings_frame(f->r, f->session, 1, 2, 100, chain);
    recordings_frame(f->r, f->session, 1, 1, 50, other);   /* older */
    recordings_frame(f->r, f->session, 1, 3, 100, other);  /* did not grow */
    recordings_frame(f->r, f->session, 9, 3, 1000, other); /* no such channel */
    recordings_close(f->r, f->session);
    store_flush(f->store);
    assert_int_equal(store_recordings(f->store, f->session, take_row, &row), 0);
    assert_int_equal(row.frames, 2);
    assert_int_equal(row.file_len, 100);
    assert_memory_equal(row.chain, chain, 32);
    assert_true(row.is_closed);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(append_only_private_and_listed),
        TEST(asked_again),
        TEST(planted_files_are_refused),
        TEST(little_space),
        TEST(the_end_answers),
        TEST(frames_only_grow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
