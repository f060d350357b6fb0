/*
 * What sallyport-nla says and hears: one datagram is one message, every message has the same
 * fields. The broker asks the helper's master for an attempt and hands over two sockets; from then
 * on the process of that attempt talks to the broker through one of them and to the relay through
 * the other. docs/link.md has the order. Pure.
 */
#ifndef SALLYPORT_NLA_TALK_H
#define SALLYPORT_NLA_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

#define NLA_TALK_DATA_MAX 32768u
#define NLA_TALK_MAX      36000u /* of a message on the wire */
#define NLA_HASH_LEN      16

enum nla_talk_type {
    NLA_TALK_START = 1, /* broker to master, with two descriptors (the attempt's, to the broker and
                           to the relay); data: the certificate's SubjectPublicKey */
    /* the attempt and the broker */
    NLA_TALK_WHO,    /* attempt: user and domain as the client sent them, proving nothing yet */
    NLA_TALK_HASH,   /* broker: data: the one NT hash, 16 bytes */
    NLA_TALK_PROVED, /* attempt: the client knows the password; it is told so after this */
    NLA_TALK_DONE,   /* attempt, last: its credentials came too */
    NLA_TALK_FAILED, /* attempt, last, to both: text: why, for the log; data: the client's last
                        TSRequest, for the relay only, may be empty */
    /* the attempt and the relay */
    NLA_TALK_TOKEN, /* either way; data: one TSRequest */
    NLA_TALK_LOGIN, /* attempt, last: user and domain that were proved, and the password */
    NLA_TALK_TYPES
};

struct nla_talk {
    uint8_t type; /* enum nla_talk_type */
    char user[512], domain[512];
    char password[1024];
    char text[160];
    uint16_t data_len;
    uint8_t data[NLA_TALK_DATA_MAX];
};

/* out->failed tells the rest; make it with buffer_init_secret(). */
void nla_talk_encode(const struct nla_talk *m, struct buffer *out);
/* ERR_INVALID for what is not exactly one message. */
MUST_CHECK int nla_talk_decode(struct nla_talk *m, const uint8_t *data, size_t len);

/* Send and receive one, on a SOCK_SEQPACKET socket, blocking or not as the socket is. fds: two that
 * go along, NULL for none. ERR_AGAIN, ERR_CLOSED, ERR_INVALID, ERR_SYSTEM. What was sent or
 * received passes through memory that is wiped; the message is the caller's to wipe. */
MUST_CHECK int nla_talk_send(int sock, const struct nla_talk *m, const int *fds);
/* fds: filled with two descriptors that are the caller's, or -1; NULL: none are taken. */
MUST_CHECK int nla_talk_receive(int sock, struct nla_talk *m, int *fds);

#endif
