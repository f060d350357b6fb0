/*
 * Two clocks. Decisions (idle, limits, deadlines) use the monotonic one, milliseconds since boot,
 * which is the same for every process of the machine. The wall clock, microseconds since 1970 UTC,
 * is for display and history only.
 */
#ifndef SALLYPORT_CLOCK_H
#define SALLYPORT_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in milliseconds. Never fails, never goes back, survives clock changes. */
int64_t clock_mono_ms(void);
int64_t clock_mono_us(void); /* the same clock */

/* CLOCK_REALTIME in microseconds since 1970 UTC. */
int64_t clock_wall_us(void);

#endif
