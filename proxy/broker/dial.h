/*
 * Reaching targets off the loop: HOST:PORT is resolved in a worker thread (an address in figures
 * needs none), then connected to from the loop, every address in turn, within one time limit for
 * all of it. A target that does not answer holds no thread, so it delays no other.
 */
#ifndef BROKER_DIAL_H
#define BROKER_DIAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct dialer;
struct event_base;
struct workers;

/* fd: connected, non-blocking, close-on-exec, owned by the callee; -1 on failure, when text is a
 * sentence's end ("connection refused"). */
typedef void (*dial_fn)(int fd, const char *text, void *arg);

/* workers: for look-ups. NULL when out of memory. */
struct dialer *dialer_create(struct event_base *base, struct workers *workers);
/* After its workers are destroyed: what is under way fails, and its callers are told. */
void dialer_destroy(struct dialer *d);

/* The answer comes from the loop, later. ERR_FULL when too many are under way, ERR_INVALID for a
 * bad address. */
MUST_CHECK int dial(struct dialer *d, const char *address, uint32_t timeout_s, dial_fn done,
                    void *arg);

/* The same, told step by step before done: the addresses of the name, then each that was tried. */
enum dial_step { DIAL_RESOLVED, DIAL_TRIED };
typedef void (*dial_trace_fn)(enum dial_step step, bool is_ok, const char *text, void *arg);
MUST_CHECK int dial_traced(struct dialer *d, const char *address, uint32_t timeout_s,
                           dial_trace_fn trace, dial_fn done, void *arg);

/* HOST:PORT or [V6]:PORT into its parts; ERR_INVALID otherwise. */
MUST_CHECK int dial_split(const char *address, char *host, size_t host_len, char *port,
                          size_t port_len);

#endif
