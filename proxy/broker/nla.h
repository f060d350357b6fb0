/*
 * The broker's side of sallyport-nla: starts the helper, and carries attempts with it. Each attempt
 * is a process of the helper's and a socket here; a link that goes away closes the socket, which
 * ends that process. What an attempt says comes from that process and from nobody else: a relay has
 * no way to it but the client's messages.
 */
#ifndef BROKER_NLA_H
#define BROKER_NLA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <sallyport/errors.h>
#include <sallyport/nla_talk.h>

struct broker;
struct nla_helper;
struct nla_attempt;

/* Called from the loop. `over` is the last; from then on it only waits for nla_attempt_end(). */
struct nla_events {
    /* As the client wrote them, once; answer with nla_attempt_hash(). */
    void (*who)(void *arg, const char *user, const char *domain);
    void (*proved)(void *arg); /* the hash was right; once, and after it was given */
    /* why: for the log, when it failed. */
    void (*over)(void *arg, bool is_ok, const char *why);
};

/* Starts nothing yet. NULL: out of memory. */
struct nla_helper *nla_helper_create(struct broker *b);
/* Close its link, which ends it; attempts were ended before. NULL is fine. */
void nla_helper_destroy(struct nla_helper *h);
/* Start the program unless it runs; at most once a second. False, after a line in the log. */
bool nla_helper_start(struct nla_helper *h);
/* SIGCHLD came for pid: true when it was the helper. */
bool nla_helper_reaped(struct nla_helper *h, pid_t pid);

/* key: SubjectPublicKey of the certificate that the client sees. *relay_fd: the relay's end, the
 * caller's. NULL: not now. */
struct nla_attempt *nla_attempt_begin(struct nla_helper *h, const void *key, size_t len,
                                      const struct nla_events *events, void *arg, int *relay_fd);
void nla_attempt_hash(struct nla_attempt *a, const uint8_t hash[NLA_HASH_LEN]);
/* At any time, its own events included. NULL is fine. */
void nla_attempt_end(struct nla_attempt *a);

#endif
