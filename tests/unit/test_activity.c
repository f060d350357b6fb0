/* The activity page: seals, what is refused, clamping, and that no wake-up is missed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/activity.h>
#include <sallyport/clock.h>

#define RACE_ROUNDS 20000

static struct activity_page *page;
static int page_fd;

static int make_page(void **unused)
{
    (void)unused;
    page = activity_create(42, &page_fd);
    return page ? 0 : -1;
}

static int drop_page(void **unused)
{
    (void)unused;
    activity_unmap(page);
    close(page_fd);
    return 0;
}

static void starts_full_of_facts(void **unused)
{
    int64_t now = clock_mono_ms();

    (void)unused;
    assert_int_equal(page->magic, ACTIVITY_MAGIC);
    assert_int_equal(page->session_id, 42);
    assert_in_range(page->started_mono_ms, now - 10000, now);
    assert_int_equal(activity_last_ms(page, now), page->started_mono_ms);
    assert_int_equal(atomic_load(&page->bytes_in), 0);
    assert_true(fcntl(page_fd, F_GETFD) & FD_CLOEXEC);
}

static void cannot_be_cut_or_grown(void **unused)
{
    (void)unused;
    assert_int_equal(ftruncate(page_fd, 0), -1);
    assert_int_equal(errno, EPERM);
    assert_int_equal(ftruncate(page_fd, ACTIVITY_SIZE * 2), -1);
    assert_int_equal(fcntl(page_fd, F_ADD_SEALS, F_SEAL_WRITE), -1); /* the seals are sealed */
}

static int other_page(size_t size, int seals, uint32_t magic, uint32_t version)
{
    uint32_t head[2] = {magic, version};
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void maps_only_what_is_a_page(void **unused)
{
    const int all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    const struct {
        size_t size;
        int seals;
        uint32_t magic, version;
        bool is_good;
    } pages[] = {
        {ACTIVITY_SIZE, all, ACTIVITY_MAGIC, ACTIVITY_VERSION, true},
        {ACTIVITY_SIZE, all, ACTIVITY_MAGIC + 1, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE, all, ACTIVITY_MAGIC, ACTIVITY_VERSION + 1, false},
        {ACTIVITY_SIZE - 1, all, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE + 1, all, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE, F_SEAL_SHRINK, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE, F_SEAL_SHRINK | F_SEAL_GROW, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE, F_SEAL_GROW | F_SEAL_SEAL, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
        {ACTIVITY_SIZE, all | F_SEAL_WRITE, ACTIVITY_MAGIC, ACTIVITY_VERSION, false},
    };
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    (void)unused;
    for (size_t i = 0; i < sizeof(pages) / sizeof(pages[0]); i++) {
        int fd = other_page(pages[i].size, pages[i].seals, pages[i].magic, pages[i].version);
        struct activity_page *mapped = activity_map(fd);

        assert_int_equal(mapped != NULL, pages[i].is_good);
        activity_unmap(mapped);
        close(fd);
    }
    assert_null(activity_map(null_fd));
    assert_null(activity_map(-1));
    close(null_fd);
    activity_unmap(NULL);
}

static void counts_and_stamps(void **unused)
{
    int64_t t = page->started_mono_ms;

    (void)unused;
    assert_false(activity_input(page, 10, true, t + 5));
    assert_false(activity_input(page, 5, false, t + 6)); /* counted, but no activity */
    assert_false(activity_output(page, 100, false, t + 7));
    assert_int_equal(atomic_load(&page->bytes_in), 15);
    assert_int_equal(atomic_load(&page->bytes_out), 100);
    assert_int_equal(atomic_load(&page->last_input_ms), t + 6);
    assert_int_equal(atomic_load(&page->last_output_ms), t + 7);
    assert_int_equal(activity_last_ms(page, t + 50), t + 5);
    assert_false(activity_output(page, 1, true, t + 8));
    assert_int_equal(activity_last_ms(page, t + 50), t + 8);
}

static void says_when_it_wakes(void **unused)
{
    int64_t t = page->started_mono_ms;

    (void)unused;
    assert_true(activity_flag(page, ACTIVITY_FLAG_IDLE, activity_last_ms(page, t + 100)));
    assert_false(activity_output(page, 1, false, t + 101)); /* no activity wakes nobody */
    assert_true(activity_input(page, 1, true, t + 102));
    assert_true(activity_input(page, 1, true, t + 103)); /* until the broker took it back */
    activity_unflag(page, ACTIVITY_FLAG_IDLE | ACTIVITY_FLAG_WARNED);
    assert_false(activity_input(page, 1, true, t + 104));
}

static void newer_activity_refuses_the_flag(void **unused)
{
    int64_t t = page->started_mono_ms, seen = activity_last_ms(page, t + 100);

    (void)unused;
    assert_true(activity_flag(page, ACTIVITY_FLAG_IDLE, seen));
    assert_true(activity_input(page, 1, true, t + 101));
    assert_false(activity_flag(page, ACTIVITY_FLAG_WARNED, seen));
    assert_int_equal(atomic_load(&page->flags), ACTIVITY_FLAG_IDLE); /* the other one stays */
    atomic_store(&page->holds_active, 1);
    assert_false(activity_flag(page, ACTIVITY_FLAG_WARNED, t + 1000));
}

static void a_lying_relay_is_clamped(void **unused)
{
    int64_t t = page->started_mono_ms, now = t + 1000;

    (void)unused;
    atomic_store(&page->last_activity_ms, INT64_MAX);
    assert_int_equal(activity_last_ms(page, now), now);
    atomic_store(&page->last_activity_ms, INT64_MIN);
    assert_int_equal(activity_last_ms(page, now), t);
    page->started_mono_ms = INT64_MAX;
    assert_int_equal(activity_last_ms(page, now), now);
    page->started_mono_ms = INT64_MIN; /* now - last must not overflow */
    assert_int_equal(activity_last_ms(page, now), 0);
    page->started_mono_ms = t;
    atomic_store(&page->holds_active, 1);
    assert_int_equal(activity_last_ms(page, now), now);
    atomic_store(&page->holds_active, 100000);
    assert_int_equal(activity_last_ms(page, now), now);
    atomic_store(&page->holds_active, 100001); /* not a count any more */
    assert_int_equal(activity_last_ms(page, now), t);
    atomic_store(&page->holds_active, UINT32_MAX);
    assert_int_equal(activity_last_ms(page, now), t);
}

static void totals_outlive_a_killed_relay(void **unused)
{
    int status;
    pid_t pid = fork();

    (void)unused;
    if (pid == 0) {
        struct activity_page *mine = activity_map(page_fd);
        uint64_t sum = 0;

        for (unsigned int i = 1; mine && i <= 1000; i++)
            sum += !activity_input(mine, i, true, page->started_mono_ms + i);
        kill(getpid(), sum == 1000 ? SIGKILL : SIGTERM);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(atomic_load(&page->bytes_in), 500500);
    assert_int_equal(activity_last_ms(page, INT64_MAX), page->started_mono_ms + 1000);
}

/* ---- the race: both sides at once, many times ---- */

static pthread_barrier_t barrier;
static bool relay_saw[RACE_ROUNDS];

static void *relay_side(void *arg)
{
    int64_t t = *(const int64_t *)arg;

    for (int i = 0; i < RACE_ROUNDS; i++) {
        pthread_barrier_wait(&barrier);
        relay_saw[i] = activity_input(page, 1, true, t + i + 1);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void no_wake_up_is_missed(void **unused)
{
    int64_t t = page->started_mono_ms;
    size_t flagged = 0;
    pthread_t thread;

    (void)unused;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, relay_side, &t), 0);
    for (int i = 0; i < RACE_ROUNDS; i++) {
        bool is_set;

        pthread_barrier_wait(&barrier);
        is_set = activity_flag(page, ACTIVITY_FLAG_IDLE, t + i);
        pthread_barrier_wait(&barrier);
        /* a flag that stands without the relay knowing would be somebody cut while typing */
        assert_true(!is_set || relay_saw[i]);
        assert_int_equal(atomic_load(&page->flags), is_set ? ACTIVITY_FLAG_IDLE : 0);
        activity_unflag(page, ACTIVITY_FLAG_IDLE);
        flagged += is_set;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    pthread_barrier_destroy(&barrier);
    print_message("the flag stood in %zu of %d rounds\n", flagged, RACE_ROUNDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(starts_full_of_facts, make_page, drop_page),
        cmocka_unit_test_setup_teardown(cannot_be_cut_or_grown, make_page, drop_page),
        cmocka_unit_test_setup_teardown(maps_only_what_is_a_page, make_page, drop_page),
        cmocka_unit_test_setup_teardown(counts_and_stamps, make_page, drop_page),
        cmocka_unit_test_setup_teardown(says_when_it_wakes, make_page, drop_page),
        cmocka_unit_test_setup_teardown(newer_activity_refuses_the_flag, make_page, drop_page),
        cmocka_unit_test_setup_teardown(a_lying_relay_is_clamped, make_page, drop_page),
        cmocka_unit_test_setup_teardown(totals_outlive_a_killed_relay, make_page, drop_page),
        cmocka_unit_test_setup_teardown(no_wake_up_is_missed, make_page, drop_page),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
