/*
 * Tickets: what a relay may say of itself to a later broker, under a key that only the broker
 * holds (docs/link.md). Pure but for the key.
 */
#ifndef BROKER_TICKET_H
#define BROKER_TICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/link.h>

struct ticket {
    char user[NAME_MAX_LEN + 1]; /* "" before authentication */
    uint64_t session_id;
    int32_t pid;
    uint32_t attempts;
};

/* Writes at most LINK_TICKET_MAX bytes to out and returns their number. */
size_t ticket_make(const uint8_t key[32], const struct ticket *t, uint8_t *out);
/* ERR_DENIED when it was not made with this key. */
MUST_CHECK int ticket_read(const uint8_t key[32], const uint8_t *data, size_t len,
                           struct ticket *out);

#endif
