/*
 * The activity page: making and checking it, the relay's stamps and the broker's flags. It decides
 * nothing: what idle means is the tracker's. The relay's fields have one writer, so that a load
 * and a store do for a counter; only the flag protocol of activity.h needs order.
 */
#include <sallyport/activity.h>

#include <assert.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/clock.h>

#define SEALS     (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
#define HOLDS_MAX 100000u /* more is not a count but a relay that lies: then 0 */

static_assert(sizeof(struct activity_page) <= ACTIVITY_SIZE, "the page is one page");
static_assert(ATOMIC_LLONG_LOCK_FREE == 2 && ATOMIC_INT_LOCK_FREE == 2,
              "a lock would not be shared between processes");

static void *map_shared(int fd)
{
    void *at = mmap(NULL, ACTIVITY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return at == MAP_FAILED ? NULL : at;
}

struct activity_page *activity_create(uint64_t session_id, int *fd)
{
    struct activity_page *page = NULL;
    int64_t now_ms = clock_mono_ms();
    int made = memfd_create("sallyport-activity", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    *fd = -1;
    if (made < 0)
        return NULL;
    if (ftruncate(made, ACTIVITY_SIZE) < 0 || !(page = map_shared(made)) ||
        fcntl(made, F_ADD_SEALS, SEALS) < 0) {
        activity_unmap(page);
        close(made);
        return NULL;
    }
    page->magic = ACTIVITY_MAGIC;
    page->version = ACTIVITY_VERSION;
    page->session_id = session_id;
    page->started_mono_ms = now_ms;
    page->started_wall_us = clock_wall_us();
    atomic_store(&page->last_input_ms, now_ms);
    atomic_store(&page->last_output_ms, now_ms);
    atomic_store(&page->last_activity_ms, now_ms);
    *fd = made;
    return page;
}

struct activity_page *activity_map(int fd)
{
    struct activity_page *page;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    /* without the seals the other side could cut the file and a read here would be SIGBUS */
    if (seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size != ACTIVITY_SIZE)
        return NULL;
    page = map_shared(fd);
    if (!page)
        return NULL;
    if (page->magic != ACTIVITY_MAGIC || page->version != ACTIVITY_VERSION) {
        activity_unmap(page);
        return NULL;
    }
    return page;
}

void activity_unmap(struct activity_page *page)
{
    if (page)
        munmap(page, ACTIVITY_SIZE);
}

static void count_bytes(_Atomic uint64_t *counter, uint64_t bytes)
{
    uint64_t was = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, was + bytes, memory_order_relaxed);
}

/* Store, fence, load: with the broker's own store, fence, load one of the two always sees. */
static bool stamp_activity(struct activity_page *page, int64_t now_ms)
{
    atomic_store_explicit(&page->last_activity_ms, now_ms, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    return atomic_load_explicit(&page->flags, memory_order_relaxed) != 0;
}

bool activity_input(struct activity_page *page, uint64_t bytes, bool is_activity, int64_t now_ms)
{
    count_bytes(&page->bytes_in, bytes);
    atomic_store_explicit(&page->last_input_ms, now_ms, memory_order_relaxed);
    return is_activity && stamp_activity(page, now_ms);
}

bool activity_output(struct activity_page *page, uint64_t bytes, bool is_activity, int64_t now_ms)
{
    count_bytes(&page->bytes_out, bytes);
    atomic_store_explicit(&page->last_output_ms, now_ms, memory_order_relaxed);
    return is_activity && stamp_activity(page, now_ms);
}

static bool is_held(const struct activity_page *page)
{
    uint32_t holds = atomic_load_explicit(&page->holds_active, memory_order_relaxed);

    return holds > 0 && holds <= HOLDS_MAX;
}

bool activity_flag(struct activity_page *page, uint32_t flag, int64_t seen_ms)
{
    atomic_fetch_or_explicit(&page->flags, flag, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
    if (!is_held(page) &&
        atomic_load_explicit(&page->last_activity_ms, memory_order_relaxed) <= seen_ms)
        return true;
    activity_unflag(page, flag);
    return false;
}

void activity_unflag(struct activity_page *page, uint32_t flags)
{
    atomic_fetch_and_explicit(&page->flags, ~flags, memory_order_relaxed);
}

int64_t activity_last_ms(const struct activity_page *page, int64_t now_ms)
{
    /* read once: the relay can write the whole page, also what it should not */
    int64_t started_ms = *(const volatile int64_t *)&page->started_mono_ms;
    int64_t last_ms = atomic_load_explicit(&page->last_activity_ms, memory_order_relaxed);

    if (is_held(page) || last_ms > now_ms)
        return now_ms;
    if (started_ms < 0) /* differences with now must not overflow, whatever was written */
        started_ms = 0;
    if (last_ms < started_ms)
        last_ms = started_ms;
    return last_ms < now_ms ? last_ms : now_ms;
}
