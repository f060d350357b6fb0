/*
 * The two clocks, nothing more. They are vDSO calls, so that they work in every sandbox. Called by
 * everybody who decides (monotonic) or shows (wall) a time.
 */
#include <sallyport/clock.h>

#include <time.h>

int64_t clock_mono_us(void)
{
    struct timespec ts = {0};

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_mono_ms(void)
{
    return clock_mono_us() / 1000;
}

int64_t clock_wall_us(void)
{
    struct timespec ts = {0};

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
