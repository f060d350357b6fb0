/*
 * Tickets: what a relay may say of itself to a later broker, under a key that only the broker
 * holds (docs/link.md); and passes, by which the relay of a jump gets in. Pure but for the key.
 */
#ifndef BROKER_TICKET_H
#define BROKER_TICKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/link.h>

/* Beside the kinds of channels in `denies`: the login was by a certificate. What ends by itself may
 * not make something that does not: no key is registered from it. */
#define DENY_KEYS (UINT32_C(1) << 31)

struct ticket {
    char user[NAME_MAX_LEN + 1]; /* "" before authentication */
    uint64_t session_id;
    int32_t pid;
    uint32_t attempts;
    uint32_t denies; /* enum policy_channel: kinds that the login does not permit; DENY_KEYS */
    bool has_second_factor;
    /* of a jump only: the relay that carries it, its channel there, and where it may go */
    int32_t outer_pid; /* 0: no jump */
    uint32_t outer_channel;
    char jump_target[NAME_MAX_LEN + 1];
};

/* Writes at most LINK_TICKET_MAX bytes to out and returns their number. */
size_t ticket_make(const uint8_t key[32], const struct ticket *t, uint8_t *out);
/* ERR_DENIED when it was not made with this key. */
MUST_CHECK int ticket_read(const uint8_t key[32], const uint8_t *data, size_t len,
                           struct ticket *out);

/*
 * A pass: made for one jump, it lets the relay that the gate forks for it in as this user, to this
 * target, once and soon. That it is used once is passes.c's.
 */
struct pass {
    uint64_t nonce;
    int64_t issued_ms; /* clock_mono_ms(), the same for all processes of one boot */
    int32_t outer_pid;
    uint32_t outer_channel;
    uint32_t denies; /* both as in the ticket of the outer one */
    bool has_second_factor;
    char user[NAME_MAX_LEN + 1];
    char target[NAME_MAX_LEN + 1];
};

size_t pass_make(const uint8_t key[32], const struct pass *p, uint8_t *out);
MUST_CHECK int pass_read(const uint8_t key[32], const uint8_t *data, size_t len, struct pass *out);
/* Whether these bytes would be a pass, not a ticket; says nothing of their worth. */
bool pass_is(const uint8_t *data, size_t len);

#endif
