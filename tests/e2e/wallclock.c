/*
 * Preloaded into a proxy by test_clock.py: the wall clock of all its processes is as far off as the
 * number of seconds in the file SP_TEST_CLOCK says, from the moment that it says so. The file is
 * mapped before main(), so that sandboxed relays see it too (libfaketime would open it each time).
 * The monotonic clock is left alone, as by somebody who sets the time.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const _Atomic int64_t none, *offset_s = &none;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("SP_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *map;

    if (fd < 0)
        return;
    map = mmap(NULL, sizeof(*offset_s), PROT_READ, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED)
        offset_s = map;
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    int rc;

    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    rc = real(id, now);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        now->tv_sec += atomic_load(offset_s);
    return rc;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec ts;
    int rc = clock_gettime(CLOCK_REALTIME, &ts);

    (void)zone;
    now->tv_sec = ts.tv_sec;
    now->tv_usec = ts.tv_nsec / 1000;
    return rc;
}

time_t time(time_t *to)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (to)
        *to = ts.tv_sec;
    return ts.tv_sec;
}
