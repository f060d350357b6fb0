/*
 * Recording files, the broker's half: opens them, watches the space that is left, syncs them off
 * the loop at most every 5 s, and keeps the chain's head in the store. The relay writes.
 */
#ifndef BROKER_RECORDINGS_H
#define BROKER_RECORDINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

struct event_base;
struct recordings;
struct store;
struct workers;

/* A live session's recordings have less than min_free left: called once a shortage and session. */
typedef void (*recordings_short_fn)(uint64_t session_id, void *arg);

struct recordings *recordings_create(struct event_base *base, struct store *store,
                                     struct workers *workers, recordings_short_fn on_short,
                                     void *arg);
void recordings_destroy(struct recordings *r);

/* Where recordings go and the reserve to leave; copied. Makes the directory (0700). ERR_SYSTEM
 * leaves what was set before. */
MUST_CHECK int recordings_configure(struct recordings *r, const char *dir, uint64_t min_free,
                                    char *err, size_t err_len);
const char *recordings_dir(const struct recordings *r);
/* At the last look, some seconds ago at most. */
uint64_t recordings_free_bytes(const struct recordings *r);

/* The disk is asked in a thread, since it may hang; the answer comes from the loop, once, in 5 s.
 */
struct recordings_answer {
    uint64_t serial;     /* the asker's */
    uint64_t session_id; /* of recordings_open() */
    uint32_t channel;
    int result;       /* 0, or negative; ERR_CLOSED: everything is coming to its end */
    int fd;           /* the file of a channel, the callee's; -1: none */
    const char *text; /* why not, a sentence for the user; borrowed */
};
typedef void (*recordings_answer_fn)(const struct recordings_answer *a, void *arg);

/* May a new recording begin? Negative: could not even ask, and fn is not called. */
MUST_CHECK int recordings_check(struct recordings *r, recordings_answer_fn fn, void *arg,
                                uint64_t serial);
/* Open the file of a channel: O_APPEND|O_EXCL|O_NOFOLLOW below a directory of the day, .cast.zst
 * or, of a desktop, .rdp.zst. Negative: could not even ask, and fn is not called. */
MUST_CHECK int recordings_open(struct recordings *r, uint64_t session_id, uint32_t channel,
                               bool is_desktop, recordings_answer_fn fn, void *arg,
                               uint64_t serial);
/* A broker that restarted takes the session's recordings up again. */
void recordings_adopt(struct recordings *r, uint64_t session_id);
void recordings_frame(struct recordings *r, uint64_t session_id, uint32_t channel, uint64_t frames,
                      uint64_t file_len, const uint8_t chain[32]);
void recordings_failed(struct recordings *r, uint64_t session_id, uint32_t channel);
/* A descriptor to read what is being recorded of a session, -1 when there is nothing or it cannot
 * be opened. *channel 0: the newest that is open, which is then said there. */
int recordings_read(const struct recordings *r, uint64_t session_id, uint32_t *channel);
/* How many of a session are open here, or about to be. */
uint32_t recordings_count(const struct recordings *r, uint64_t session_id);
/* The channel is over: last sync, row closed, descriptor given back. */
void recordings_close_channel(struct recordings *r, uint64_t session_id, uint32_t channel);
/* The session is over: the same for all that are left. */
void recordings_close(struct recordings *r, uint64_t session_id);

#endif
