/*
 * The broker's side of sallyport-pam: starts the helper while the broker still is root, and carries
 * conversations with it. Each conversation is a process of the helper's and a socket here; a link
 * that goes away closes the socket, which ends that process.
 */
#ifndef BROKER_PAM_H
#define BROKER_PAM_H

#include <stdbool.h>
#include <stddef.h>

#include <sallyport/errors.h>

struct event_base;
struct pam_helper;
struct pam_conversation;

/* Called from the loop. The last of a conversation is `result` (is_ok false with an empty sentence
 * too when the helper is gone); from then on it only waits for pam_end(). */
struct pam_answers {
    void (*prompt)(void *arg, bool has_echo, const char *text);
    void (*info)(void *arg, const char *text);
    void (*result)(void *arg, bool is_ok, const char *sentence);
};

/* Start the program `sallyport-pam`, as whoever we are now. NULL with a sentence in err. */
struct pam_helper *pam_helper_create(struct event_base *base, const char *service, char *err,
                                     size_t err_len);
/* Close its link, which ends it; conversations were ended before. NULL is fine. */
void pam_helper_destroy(struct pam_helper *p);
/* SIGCHLD came. */
void pam_helper_reap(struct pam_helper *p);

/* user, source: copied. account_only: no questions, is the account good? NULL: not now. */
struct pam_conversation *pam_begin(struct pam_helper *p, const char *user, const char *source,
                                   bool account_only, const struct pam_answers *answers, void *arg);
/* The answer to the last prompt. text is not kept. */
void pam_answer(struct pam_conversation *c, const void *text, size_t len);
/* At any time, its own callbacks included. NULL is fine. */
void pam_end(struct pam_conversation *c);

#endif
