/*
 * Reaching a target off the loop: resolve HOST:PORT and connect, every address in turn, within one
 * time limit for all of them.
 */
#ifndef BROKER_DIAL_H
#define BROKER_DIAL_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct workers;

/* fd: connected, non-blocking, close-on-exec, owned by the callee; -1 on failure, when text is a
 * sentence's end ("connection refused"). */
typedef void (*dial_fn)(int fd, const char *text, void *arg);

/* The answer comes from the loop. ERR_FULL when too many wait, ERR_INVALID for a bad address. */
MUST_CHECK int dial(struct workers *w, const char *address, uint32_t timeout_s, dial_fn done,
                    void *arg);

/* HOST:PORT or [V6]:PORT into its parts; ERR_INVALID otherwise. */
MUST_CHECK int dial_split(const char *address, char *host, size_t host_len, char *port,
                          size_t port_len);

#endif
