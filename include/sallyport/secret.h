/*
 * Secrets in memory: a fixed buffer with a length that is wiped when done. Never logged, never
 * printed with %s. secret_wipe() may be called twice.
 */
#ifndef SALLYPORT_SECRET_H
#define SALLYPORT_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECRET_MAX 8192 /* a PEM private key of RSA 8192 bits fits */

struct secret {
    uint16_t len;
    uint8_t data[SECRET_MAX + 1]; /* always followed by a NUL, for libraries that want strings */
};

void secret_wipe(struct secret *s);
/* False, and an empty secret, when len > SECRET_MAX. */
bool secret_set(struct secret *s, const void *data, size_t len);
/* Wipe any memory; the compiler does not remove it. */
void memory_wipe(void *data, size_t len);

#endif
