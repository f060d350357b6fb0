/*
 * What the broker and sallyport-pam say to each other: one datagram is one message, every message
 * has the same fields. The broker asks the helper's master for a conversation and hands one end of
 * a socketpair over; from then on it talks to the process of that conversation. docs/link.md has
 * the order. Pure.
 */
#ifndef SALLYPORT_PAM_TALK_H
#define SALLYPORT_PAM_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/text.h>

#define PAM_TALK_TEXT_MAX 1024
#define PAM_TALK_MAX      2048 /* of a message on the wire */

enum pam_talk_type {
    PAM_TALK_START = 1, /* broker to master, with one descriptor: service, user, source; flag: the
                           account stage only */
    PAM_TALK_PROMPT,    /* conversation to broker: text; flag: what is typed may be shown */
    PAM_TALK_INFO,      /* the same: text to show */
    PAM_TALK_RESULT,    /* the same, last: flag: 1 is in; text: a sentence for the user, or "" */
    PAM_TALK_ANSWER,    /* broker to conversation: text */
    PAM_TALK_TYPES
};

struct pam_talk {
    uint8_t type; /* enum pam_talk_type */
    uint8_t flag;
    char service[64];
    char user[72];
    char source[64];
    char text[PAM_TALK_TEXT_MAX + 1];
};

/* out->failed tells the rest; make it with buffer_init_secret(). */
void pam_talk_encode(const struct pam_talk *m, struct buffer *out);
/* ERR_INVALID for what is not exactly one message. */
MUST_CHECK int pam_talk_decode(struct pam_talk *m, const uint8_t *data, size_t len);

/* Send and receive one, on a SOCK_SEQPACKET socket, blocking or not as the socket is. fd: goes
 * along, -1 for none. ERR_AGAIN, ERR_CLOSED, ERR_INVALID, ERR_SYSTEM. */
MUST_CHECK int pam_talk_send(int sock, const struct pam_talk *m, int fd);
MUST_CHECK int pam_talk_receive(int sock, struct pam_talk *m, int *fd);

#endif
