/*
 * Logging in at one SSH server: a target, or one that lies on the way to it. Key exchange, the host
 * key before any credential, then the methods that the server asks for, as far as what is stored
 * (or the user) can answer them. A state machine over a leg that somebody else drives: a session
 * (target.c) and a probe (probe.c) use it. It opens no channel.
 */
#ifndef SSH_HOP_H
#define SSH_HOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>
#include <sallyport/secret.h>

#include "proxy/ssh/leg.h"
#include "proxy/ssh/libssh.h"

struct hop;

enum hop_step {
    HOP_WAITING, /* not begun */
    HOP_KEY_EXCHANGE,
    HOP_PINNING, /* accept-new: the key is being pinned */
    HOP_NONE,    /* the "none" method, which lists the others */
    HOP_KEY,     /* then one of them, and what the server wants beside it */
    HOP_PASSWORD,
    HOP_AGENT,
    HOP_PROMPT,   /* keyboard-interactive: asked for questions */
    HOP_QUESTION, /* the user is being asked */
    HOP_IN,
    HOP_FAILED /* text says why */
};

/* What an operation below may say beside libssh's SSH_AUTH_ values. */
#define HOP_CANNOT   2001 /* hop_fail() was called */
#define HOP_TEXT_MAX 512

/* What logging in needs from around it. */
struct hop_ops {
    /* Pin a new host key; hop_pinned() follows. */
    void (*pin)(void *arg, struct hop *h, const char *type, const void *blob, size_t len);
    void (*event)(void *arg, const char *kind, const char *text);
    /* The user's own password, borrowed; NULL when there is none. */
    const struct secret *(*password)(void *arg);
    /* Go on with a login by the user's agent: an SSH_AUTH_ value, or HOP_CANNOT. */
    int (*agent)(void *arg, struct hop *h);
    /* Ask the user what the server asks (ssh_userauth_kbdint_*): SSH_AUTH_AGAIN while he thinks,
     * SSH_AUTH_INFO when the answers are set, or HOP_CANNOT. */
    int (*ask)(void *arg, struct hop *h);
    /* Is this key good enough? NULL: only the pinned one, as sessions do. */
    bool (*sees_key)(void *arg, struct hop *h, const char *type, const void *blob, size_t len);
};

struct hop {
    char name[NAME_MAX_LEN + 1];
    uint8_t number; /* as in HOP: 0 the target itself */
    char account[ACCOUNT_MAX_LEN + 1], address[SESSION_ADDRESS_MAX];
    struct link_hop *told; /* owned, holds secrets: gone once logged in */
    struct leg *leg;       /* not owned */
    const struct hop_ops *ops;
    void *arg; /* of ops */
    enum hop_step step;
    ssh_key key;
    struct secret password;
    bool has_password;
    bool has_used_key, has_used_password, has_used_agent; /* each method gets one chance */
    bool has_answered; /* the stored password has answered a question */
    int pin_answer;    /* 0 none yet, 1 yes, -1 no */
    char pin_text[SESSION_TEXT_MAX];
    int64_t deadline_ms; /* 0: not begun */
    char text[HOP_TEXT_MAX];
    char method[80]; /* what let us in: "key", "password, keyboard-interactive" */
};

/* told is copied. ERR_MEMORY. */
MUST_CHECK int hop_init(struct hop *h, const struct link_hop *told, struct leg *leg,
                        const struct hop_ops *ops, void *arg);
/* The socket is connected: begin. fd is owned from here. Failures are steps like others. */
void hop_begin(struct hop *h, int fd, struct event_base *base, void (*wake)(void *), void *wake_arg,
               int64_t now_ms);
/* One turn. */
void hop_step(struct hop *h, int64_t now_ms);
void hop_pinned(struct hop *h, bool is_ok, const char *text);
void hop_fail(struct hop *h, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The user needs time: at least so long from now. */
void hop_allow(struct hop *h, int64_t until_ms);
/* Wipe secrets. Frees nothing of the leg. */
void hop_forget(struct hop *h);

#endif
