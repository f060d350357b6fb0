/*
 * PDUs that say where a client may go by itself: Server Redirection, 2.2.13.1 of [MS-RDPBCGR], and
 * the auto-reconnect cookies of Save Session Info and Client Info, 2.2.4. Pure functions over the
 * cursor, as in wire.h.
 */
#ifndef RDP_REDIRECTION_H
#define RDP_REDIRECTION_H

#include <sallyport/link.h>

#include "proxy/rdp/wire.h"

#define REDIRECTION_TEXT_MAX 256
#define REDIRECTION_CERT_MAX 8192 /* DER */

/* RedirFlags */
#define LB_TARGET_NET_ADDRESS       0x00000001u
#define LB_LOAD_BALANCE_INFO        0x00000002u
#define LB_USERNAME                 0x00000004u
#define LB_DOMAIN                   0x00000008u
#define LB_PASSWORD                 0x00000010u
#define LB_SMARTCARD_LOGON          0x00000040u
#define LB_NOREDIRECT               0x00000080u
#define LB_TARGET_FQDN              0x00000100u
#define LB_PASSWORD_IS_PK_ENCRYPTED 0x00004000u

/* Fields that are not there are empty. Texts are UTF-8. */
struct redirection {
    uint32_t session_id, flags;
    char host[REDIRECTION_TEXT_MAX]; /* where to: the address, or its name; "": where it was */
    char token[X224_TOKEN_MAX + 1];  /* LoadBalanceInfo, without the line's end */
    char user[REDIRECTION_TEXT_MAX], domain[REDIRECTION_TEXT_MAX];
    char password[REDIRECTION_TEXT_MAX]; /* secret; "" also when it is encrypted */
    struct cursor certificate;           /* borrowed: the field as sent */
};

/* data: RDP_SERVER_REDIRECTION_PACKET, from its Flags on. */
enum parse redirection_parse(struct cursor data, struct redirection *out);
/* The certificate of TARGET_CERTIFICATE_CONTAINER, 2.2.13.1.2, as DER. Returns its length, 0 when
 * there is none that can be read. */
size_t redirection_certificate(struct cursor field, uint8_t der[REDIRECTION_CERT_MAX]);

/* ---- auto-reconnect ---- */

/* body: of a Save Session Info PDU. True when it gives the client a cookie, whose hash is put. */
MUST_CHECK bool arc_given(struct cursor body, uint8_t hash[LINK_COOKIE]);
/* info: a whole Client Info, basic security header included. True when it shows a cookie. */
MUST_CHECK bool arc_shown(const struct client_info *info, uint8_t hash[LINK_COOKIE]);
/* Take it out of the Client Info in `data`, which `info` was parsed from. Returns the new length.
 */
size_t arc_strip(uint8_t *data, size_t len, const struct client_info *info);

#endif
