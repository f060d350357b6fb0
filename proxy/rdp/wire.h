/*
 * RDP on the wire, as far as the proxy reads and writes it: framing, the preconnection blob, X.224,
 * MCS, GCC, Client Info, licensing, share control and share data. Pure functions over
 * sallyport/cursor.h: bytes in, struct out, nothing allocated, logged or kept. What a struct
 * borrows points into the parsed bytes. Sections are of [MS-RDPBCGR] unless said.
 */
#ifndef RDP_WIRE_H
#define RDP_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/link.h>

/* ---- framing: frame.c ---- */

#define TPKT_HEADER       4
#define TPKT_MAX          65535
#define FASTPATH_MAX      0x7fff
#define PRECONNECTION_MAX 1024
#define MCS_DATA_HEAD     15 /* TPKT 4, X.224 3, MCS up to 8: what stands before the data, at most */

enum frame_kind { FRAME_TPKT, FRAME_FASTPATH };

struct frame {
    enum frame_kind kind;
    const uint8_t *data; /* the whole frame, borrowed */
    size_t len;
    size_t head; /* bytes before the body */
};

/* The next whole frame, of at most `max` bytes. */
enum parse frame_next(struct cursor *in, size_t max, struct frame *out);
static inline struct cursor frame_body(const struct frame *f)
{
    return cursor_of(f->data + f->head, f->len - f->head);
}

/* The preconnection PDU of [MS-RDPEPS] 2.2.1, version 1 or 2, that may stand before everything.
 * PARSE_BAD also when there is none: nothing was consumed then. */
struct preconnection {
    uint32_t id;
    struct cursor blob; /* UTF-16LE with its NUL, of version 2; empty otherwise */
};
enum parse preconnection_next(struct cursor *in, struct preconnection *out);

/* ---- X.224: x224.c ---- */

#define PROTOCOL_SSL_BIT       0x00000001u
#define PROTOCOL_HYBRID_BIT    0x00000002u
#define PROTOCOL_HYBRID_EX_BIT 0x00000008u

#define X224_EXTENDED_CLIENT_DATA 0x01
#define X224_DYNVC_GFX            0x02

/* 2.2.1.2.2: why no protocol could be agreed on */
#define X224_FAILURE_LIST(X)                                                           \
    X(1, "SSL_REQUIRED_BY_SERVER", "it insists on TLS")                                \
    X(2, "SSL_NOT_ALLOWED_BY_SERVER", "it does not allow TLS")                         \
    X(3, "SSL_CERT_NOT_ON_SERVER", "it has no certificate")                            \
    X(4, "INCONSISTENT_FLAGS", "it found the request inconsistent")                    \
    X(5, "HYBRID_REQUIRED_BY_SERVER",                                                  \
      "it insists on NLA (CredSSP), for which an account and its password are needed") \
    X(6, "SSL_WITH_USER_AUTH_REQUIRED_BY_SERVER", "it insists on a client certificate")
#define X224_FAILURE_SSL_REQUIRED    1
#define X224_FAILURE_HYBRID_REQUIRED 5

/* Which of the protocols that a client offers it gets; 0: none, and *failure says why. */
uint32_t x224_choose(uint32_t offered, enum link_nla nla, uint32_t *failure);
const char *x224_failure_text(uint32_t code); /* the sentence's end, "it ..." */

struct x224_request {
    char cookie[64]; /* of "Cookie: mstshash=", cut; a hint only */
    char token[128]; /* any other routing token, without CRLF; "" when it does not fit */
    bool has_negotiation;
    uint8_t flags;
    uint32_t protocols;
};
enum parse x224_request_parse(struct cursor body, struct x224_request *out);
#define X224_TOKEN_MAX 220 /* its length has one byte for all */
/* token: a cookie or routing token without its CRLF; "" for none. */
void x224_request_put(struct buffer *b, const char *token, uint32_t protocols);

struct x224_confirm {
    bool has_negotiation; /* false: only the old RDP security */
    bool is_failure;
    uint8_t flags;
    uint32_t value; /* selected protocol, or failure code */
};
enum parse x224_confirm_parse(struct cursor body, struct x224_confirm *out);
void x224_confirm_put(struct buffer *b, uint8_t flags, uint32_t protocol);
void x224_failure_put(struct buffer *b, uint32_t code);

/* ---- MCS: mcs.c ---- */

#define MCS_GLOBAL_CHANNEL 1003
#define MCS_BASE_CHANNEL   1001
#define MCS_SERVER_USER    1002
#define MCS_CHANNELS_MAX   31 /* static virtual channels, 2.2.1.3.4 */

#define MCS_REASON_PROVIDER 1 /* rn-provider-initiated */
#define MCS_REASON_USER     3 /* rn-user-requested */

enum mcs_type {
    MCS_ERECT_DOMAIN = 1,
    MCS_ULTIMATUM = 8,
    MCS_ATTACH_REQUEST = 10,
    MCS_ATTACH_CONFIRM = 11,
    MCS_JOIN_REQUEST = 14,
    MCS_JOIN_CONFIRM = 15,
    MCS_DATA_REQUEST = 25,
    MCS_DATA_INDICATION = 26
};

struct mcs_pdu {
    enum mcs_type type;
    uint8_t result; /* of confirms; 0 is success. Of the ultimatum: its reason */
    uint16_t user;  /* initiator */
    uint16_t channel;
    struct cursor data;
};
/* body: what follows the TPKT header. */
enum parse mcs_parse(struct cursor body, struct mcs_pdu *out);

/* In a whole frame that parsed as DATA_REQUEST or DATA_INDICATION: where these two stand. */
#define MCS_AT_USER    8
#define MCS_AT_CHANNEL 10

void mcs_erect_put(struct buffer *b);
void mcs_attach_request_put(struct buffer *b);
void mcs_attach_confirm_put(struct buffer *b, uint16_t user);
void mcs_join_request_put(struct buffer *b, uint16_t user, uint16_t channel);
void mcs_join_confirm_put(struct buffer *b, uint16_t user, uint16_t channel);
void mcs_ultimatum_put(struct buffer *b, uint8_t reason);
/* A whole frame round `len` bytes of data; type is MCS_DATA_REQUEST or MCS_DATA_INDICATION. */
void mcs_data_put(struct buffer *b, enum mcs_type type, uint16_t user, uint16_t channel,
                  const void *data, size_t len);

/* Connect Initial and Connect Response; T.125 §7, in BER. */
struct mcs_connect {
    struct cursor parameters[3]; /* target, minimum, maximum: contents of the three sequences */
    struct cursor gcc;           /* user data */
};
enum parse mcs_connect_initial_parse(struct cursor body, struct mcs_connect *out);
enum parse mcs_connect_response_parse(struct cursor body, uint8_t *result, struct cursor *gcc);
void mcs_connect_initial_put(struct buffer *b, const struct mcs_connect *c, const void *gcc,
                             size_t len);
/* parameters: echoed from the client's target parameters */
void mcs_connect_response_put(struct buffer *b, struct cursor parameters, const void *gcc,
                              size_t len);

/* ---- GCC: gcc.c ---- */

enum gcc_type {
    CS_CORE = 0xc001,
    CS_SECURITY = 0xc002,
    CS_NET = 0xc003,
    CS_CLUSTER = 0xc004,
    CS_MONITOR = 0xc005,
    CS_MSGCHANNEL = 0xc006,
    CS_MONITOR_EX = 0xc008,
    CS_MULTITRANSPORT = 0xc00a,
    SC_CORE = 0x0c01,
    SC_SECURITY = 0x0c02,
    SC_NET = 0x0c03,
    SC_MSGCHANNEL = 0x0c04
};

#define CS_EARLY_ERRINFO          0x0001
#define CS_EARLY_DYNVC_GFX        0x0100
#define CS_EARLY_SKIP_CHANNELJOIN 0x0800

struct gcc_channel {
    char name[9];
    uint32_t options;
};

/* What a client says of itself. */
struct gcc_client {
    uint32_t version, build;
    uint16_t width, height;
    uint16_t bpp;
    uint16_t early_flags; /* 0 when the block is too short for them */
    uint32_t keyboard;    /* keyboardLayout */
    char name[64];        /* UTF-8 */
    bool has_message_channel;
    bool has_channels; /* its block came, which may be empty */
    /* Where the primary monitor is, from the corner of all of them; width 0: there is one only. */
    struct gcc_monitor {
        uint16_t left, top, width, height;
    } primary;
    size_t channel_count;
    struct gcc_channel channels[MCS_CHANNELS_MAX];
    struct cursor blocks; /* all of them, as sent */
};
enum parse gcc_client_parse(struct cursor gcc, struct gcc_client *out);

/* The client's blocks as the target gets them. */
struct gcc_patch {
    uint32_t selected;      /* what the target chose: CS_CORE.serverSelectedProtocol */
    bool has_extended;      /* it takes monitor and message channel blocks */
    uint32_t session_id;    /* of a redirection: CS_CLUSTER.RedirectedSessionID; 0 none */
    const bool *is_dropped; /* one a channel of `channel_count` */
};
void gcc_client_put(struct buffer *b, const struct gcc_client *c, const struct gcc_patch *p);

struct gcc_server {
    uint16_t io_channel;
    uint16_t message_channel; /* 0: none */
    uint32_t method, level;   /* of SC_SECURITY: both 0 under TLS */
    size_t channel_count;
    uint16_t channels[MCS_CHANNELS_MAX];
};
enum parse gcc_server_parse(struct cursor gcc, struct gcc_server *out);
/* requested: what the client asked for in X.224, echoed */
void gcc_server_put(struct buffer *b, const struct gcc_server *s, uint32_t requested);

/* ---- Client Info: info.c ---- */

#define SEC_TRANSPORT_REQ       0x0002
#define SEC_INFO_PKT            0x0040
#define SEC_LICENSE_PKT         0x0080
#define SEC_REDIRECTION_PKT     0x0400
#define INFO_AUTOLOGON          0x00000008u
#define INFO_UNICODE            0x00000010u
#define INFO_COMPRESSION        0x00000080u
#define INFO_LOGONERRORS        0x00010000u
#define INFO_PASSWORD_IS_SC_PIN 0x00040000u
#define INFO_USING_SAVED_CREDS  0x00100000u

#define INFO_TEXT_MAX 1024 /* bytes of each text on the wire */

struct client_info {
    uint32_t code_page, flags;
    struct cursor domain, user, password, shell, directory; /* as sent, without NUL */
    struct cursor extended;                                 /* all that follows, as sent */
};
/* data: of a DATA_REQUEST on the I/O channel, basic security header included. */
enum parse client_info_parse(struct cursor data, struct client_info *out);
/* One text of it as UTF-8 with NUL: false when it is not valid or does not fit. */
MUST_CHECK bool client_info_text(const struct client_info *i, struct cursor text, char *dst,
                                 size_t cap);
/* The same with other credentials, always INFO_UNICODE. Texts are UTF-8. b should hold secrets. */
void client_info_put(struct buffer *b, const struct client_info *i, const char *domain,
                     const char *user, const char *password);

/* UTF-16LE to UTF-8 and back; false and "" when invalid or too long. A NUL ends the first. */
MUST_CHECK bool utf16_to_utf8(struct cursor in, char *dst, size_t cap);
void utf16_put(struct buffer *b, const char *utf8); /* without NUL; sets failed when invalid */

/* ---- licensing and sharing: share.c ---- */

enum share_type {
    SHARE_DEMAND_ACTIVE = 1,
    SHARE_CONFIRM_ACTIVE = 3,
    SHARE_DEACTIVATE_ALL = 6,
    SHARE_DATA = 7,
    SHARE_REDIRECTION = 10,
    SHARE_FLOW = 0xffff /* not a type of the wire: the 8 bytes of T.128 flow control */
};

enum share_data_type {
    DATA_UPDATE = 0x02,
    DATA_CONTROL = 0x14,
    DATA_POINTER = 0x1b,
    DATA_INPUT = 0x1c,
    DATA_SYNCHRONIZE = 0x1f,
    DATA_REFRESH_RECT = 0x21,
    DATA_SUPPRESS_OUTPUT = 0x23,
    DATA_SHUTDOWN_REQUEST = 0x24,
    DATA_SHUTDOWN_DENIED = 0x25,
    DATA_SAVE_SESSION_INFO = 0x26,
    DATA_FONT_LIST = 0x27,
    DATA_FONT_MAP = 0x28,
    DATA_SET_ERROR_INFO = 0x2f
};

struct share_pdu {
    enum share_type type;
    uint8_t version; /* of the protocol: 1 */
    uint16_t source;
    uint32_t share_id;  /* of DATA only; the capability PDUs have parsers of their own */
    uint8_t data_type;  /* of DATA */
    bool is_compressed; /* of DATA: the body is not readable */
    struct cursor body; /* behind the share control header, or the share data header */
    size_t len;         /* of all of it */
};
/* Several may stand in one MCS PDU: takes the next. */
enum parse share_next(struct cursor *data, struct share_pdu *out);

#define SHARE_AT_SOURCE 4 /* offset of pduSource in a share control header */

/* The facts that notices need, of Demand Active and of Confirm Active. */
struct share_facts {
    uint32_t share_id;
    uint16_t bpp, width, height; /* of the bitmap capability; 0 when there is none */
    bool has_fastpath_output;
    bool has_refresh, has_suppress; /* of Demand Active: it redraws when asked in this way */
};
enum parse demand_active_parse(struct cursor body, struct share_facts *out);
enum parse confirm_active_parse(struct cursor body, struct share_facts *out);

#define CAPABILITY_POINTER         8
#define CAPABILITY_VIRTUAL_CHANNEL 20
/* In the body of one of the two: the inside of the set of this type, or NULL when there is none, or
 * it has fewer than `least` bytes. */
const uint8_t *capability_find(enum share_type which, struct cursor body, uint16_t type,
                               size_t least);

MUST_CHECK bool error_info_parse(struct cursor body, uint32_t *code);

/* [MS-RDPBCGR] 2.2.1.12.1.1: bMsgType, as far as a server says it */
enum licence_kind {
    LICENCE_REQUEST = 0x01,
    LICENCE_CHALLENGE = 0x02,
    LICENCE_NEW = 0x03,
    LICENCE_UPGRADE = 0x04,
    LICENCE_ALERT = 0xff,
    LICENCE_NONE = 0 /* not to be read */
};
#define LICENCE_VALID_CLIENT 7u
/* c: behind the security header's flags. *error: of an ALERT. */
enum licence_kind licence_parse(struct cursor c, uint32_t *error);

/* Bodies of MCS data; the caller wraps them (mcs_data_put). */
void licence_valid_put(struct buffer *b);
/* Answers a request for a licence as one that has none: a New Licence Request, [MS-RDPELE] 2.2.2.2,
 * of nothing but zeroes, for targets that do not look inside. */
void licence_answer_put(struct buffer *b);
void demand_active_put(struct buffer *b, const struct share_facts *f);
void deactivate_all_put(struct buffer *b, uint32_t share_id);
void share_data_put(struct buffer *b, uint16_t source, uint32_t share_id, enum share_data_type type,
                    const void *body, size_t len);

/* ---- logons: logon.c ---- */

#define LOGON_COOKIE_BITS 16

struct logon_cookie { /* ARC_SC_PRIVATE_PACKET, 2.2.4.2 */
    uint32_t logon_id;
    const uint8_t *bits; /* LOGON_COOKIE_BITS random bytes: who has them can reconnect; borrowed */
};
/* body: of a DATA_SAVE_SESSION_INFO. False: there is no cookie in it. */
MUST_CHECK bool logon_cookie_parse(struct cursor body, struct logon_cookie *out);

/* ---- fast-path output: fastpath.c ---- */

/* What a client shows as its pointer, as far as updates can be read. */
enum pointer_kind { POINTER_DEFAULT, POINTER_HIDDEN, POINTER_CACHED, POINTER_UNREADABLE };
struct pointer {
    enum pointer_kind kind;
    uint16_t slot; /* of CACHED */
};

#define PALETTE_LEN 768 /* 256 times red, green, blue */

/* What notices need to know of the target's drawing. */
struct output_facts {
    bool is_open;     /* a fragmented update is: stays from one PDU to the next */
    bool has_drawn;   /* of this PDU: more than pointers */
    bool has_pointer; /* of this PDU: a shape was set */
    struct pointer pointer;
    struct cursor palette; /* of this PDU: PALETTE_LEN bytes, borrowed; or empty */
};
/* PARSE_BAD when the updates of this output PDU do not fill it exactly. */
enum parse fastpath_output_scan(struct cursor body, struct output_facts *out);
/* The same for a DATA PDU of the slow path, which is never a part of an update. */
void slowpath_output_scan(const struct share_pdu *pdu, struct output_facts *out);

/* ---- what a human does: input.c ---- */

struct input_state {
    int32_t x, y;
    bool has_point;
};
/* True in *is_human when a key or button went down, a wheel turned or the pointer really moved.
 * first: byte 0 of the fast-path PDU, which may count the events. */
enum parse input_fastpath_scan(uint8_t first, struct cursor body, struct input_state *s,
                               bool *is_human);
/* body: of a DATA_INPUT PDU. */
enum parse input_slowpath_scan(struct cursor body, struct input_state *s, bool *is_human);

/* ---- dynamic channels: dvc.c ---- */

#define CHANNEL_FIRST      0x00000001u /* 2.2.6.1.1: of a chunk of a static channel */
#define CHANNEL_LAST       0x00000002u
#define CHANNEL_COMPRESSED 0x00200000u

#define DVC_NAME_GRAPHICS "Microsoft::Windows::RDS::Graphics"
#define DVC_NAME_INPUT    "Microsoft::Windows::RDS::Input"

struct dvc_state {
    uint32_t input_id; /* of the touch channel while it is open; has_input */
    bool has_input;
};
/* Command and number at the head of a message; 2.2.1 */
enum dvc_command {
    DVC_CREATE = 1,
    DVC_DATA_FIRST = 2,
    DVC_DATA = 3,
    DVC_CLOSE = 4,
    DVC_DATA_FIRST_COMPRESSED = 6,
    DVC_DATA_COMPRESSED = 7
};
struct dvc_head {
    uint8_t cmd, sp, id_len; /* the latter two as sent: 0, 1, 2 for 1, 2, 4 bytes */
    uint32_t channel;
};
/* c: behind the CHANNEL_PDU_HEADER of a first chunk. */
MUST_CHECK bool dvc_head_parse(struct cursor *c, struct dvc_head *out);

/* A request of the target's to open a channel; name is borrowed. False when it is none. */
struct dvc_create {
    uint8_t id_len; /* as sent: 0, 1, 2 for 1, 2, 4 bytes */
    uint32_t id;
    char name[128];
};
MUST_CHECK bool dvc_create_parse(struct cursor message, struct dvc_create *out);
/* The client's answer that it could not: data of the static channel drdynvc. */
void dvc_refusal_put(struct buffer *b, const struct dvc_create *c);

/* data: of the static channel drdynvc, CHANNEL_PDU_HEADER included. Never fails: what cannot be
 * read is not tracked. */
void dvc_server_scan(struct cursor data, struct dvc_state *s);
/* True when it carries touch or pen. */
bool dvc_client_scan(struct cursor data, const struct dvc_state *s);

/* ---- devices: devices.c, [MS-RDPEFS] ---- */

enum device_type {
    DEVICE_SERIAL = 0x01,
    DEVICE_PARALLEL = 0x02,
    DEVICE_PRINT = 0x04,
    DEVICE_FILESYSTEM = 0x08,
    DEVICE_SMARTCARD = 0x20
};

/* message: a whole one of the static channel rdpdr, from the client, that announces devices: puts
 * it to b without those whose type is not in `allowed`. False: it is none, or cannot be read. Which
 * messages those are: devices_judge() in chunks.h. */
MUST_CHECK bool devices_filter(struct cursor message, uint32_t allowed, struct buffer *b);

#endif
