/*
 * A target that sends its session on, 2.2.13 of [MS-RDPBCGR]: followed on the target's leg, with
 * the client kept where it is. Also what is to be remembered for it of the login, and the reconnect
 * cookies, which lead round the login as well.
 */
#ifndef RDP_REDIRECT_H
#define RDP_REDIRECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>
#include <sallyport/secret.h>

struct cursor;
struct rdp_session;
struct redirection;

#define DYNAMIC_IDS_MAX 64 /* of those that are not remembered nothing is closed */
struct dynamic_ids {
    size_t count;
    uint32_t id[DYNAMIC_IDS_MAX];
};

struct redirect {
    unsigned count;
    bool is_asked;          /* the broker connects */
    bool has_licence;       /* the client's licensing is over */
    bool is_licensed;       /* and that of a second target is answered here */
    struct redirection *to; /* owned, secret: while it is followed */
    uint8_t *key;           /* owned: of the certificate that the next server must show; or NULL */
    size_t key_len;
    /* of the login */
    char account[ACCOUNT_MAX_LEN + 1];
    uint8_t auth; /* enum link_target_auth */
    char address[SESSION_ADDRESS_MAX];
    uint8_t *info; /* owned: the client's Client Info without credentials */
    size_t info_len;
    struct secret *password;          /* owned: until the first desktop */
    uint32_t share_id;                /* the client's, from before; 0 none */
    struct dynamic_ids open, closing; /* dynamic channels in the client; dynamic.c */
};

/* Client Info goes to the target with this password: keep what another target would need, before it
 * is forgotten. */
void rdp_redirect_keep(struct rdp_session *s, const char *password);
/* packet: RDP_SERVER_REDIRECTION_PACKET. True: it is followed, or the session ends. */
bool rdp_redirect_wanted(struct rdp_session *s, struct cursor packet);
void rdp_redirect_step(struct rdp_session *s);
void rdp_redirect_result(struct rdp_session *s, const struct link_redirected *result, int fd);
/* The target's desktop is there: a client that has one from before is told that this is over. */
void rdp_redirect_arrived(struct rdp_session *s);
void rdp_redirect_reset(struct rdp_session *s); /* another target is chosen */
void rdp_redirect_finish(struct rdp_session *s);

/* Is the leg's target one to which the session was sent on, and this its key? */
enum redirect_key { REDIRECT_KEY_UNKNOWN, REDIRECT_KEY_RIGHT, REDIRECT_KEY_WRONG };
enum redirect_key rdp_redirect_judge_key(struct rdp_session *s, const uint8_t *key, size_t len);

/* ---- dynamic.c: data on drdynvc, CHANNEL_PDU_HEADER included ---- */
void rdp_dynamic_of_target(struct rdp_session *s, struct cursor data);
/* True: it is an answer to rdp_dynamic_close(), and not for the target. */
bool rdp_dynamic_of_user(struct rdp_session *s, struct cursor data);
/* Tell the client that those of the old target are closed. */
void rdp_dynamic_close(struct rdp_session *s);

/* Cookies: that which the client shows, before the route; what becomes of it, after; and the
 * target's. */
void rdp_cookie_shown(struct rdp_session *s);
void rdp_cookie_judged(struct rdp_session *s, bool may_pass);
void rdp_cookie_given(struct rdp_session *s, struct cursor body);

#endif
