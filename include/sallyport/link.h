/*
 * The link: messages between the broker and a relay, and between the broker and a gate, over
 * SOCK_SEQPACKET UNIX sockets; descriptors ride along (SCM_RIGHTS). docs/link.md has the protocol;
 * this file has the rows. One table drives encoding, decoding, the fuzzer and the documentation's
 * check.
 *
 * On the wire: u8 version, u8 type, then the fields of the row in order. Integers are big-endian,
 * texts and blobs are u16 length + bytes. A field that is newer than the message's version is not
 * there and reads as zero. Bytes left over after the last field: the message is refused.
 */
#ifndef SALLYPORT_LINK_H
#define SALLYPORT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/login.h>
#include <sallyport/policy.h>
#include <sallyport/secret.h>
#include <sallyport/session.h>

#ifndef LINK_VERSION
#define LINK_VERSION 4 /* what each brought: docs/link.md */
#endif
#define LINK_VERSION_MIN 1

#define LINK_MESSAGE_MAX 65536
#define LINK_FDS_MAX     8
#define LINK_TICKET_MAX  256
#define LINK_KEY_MAX     8192 /* public key blob, RFC 4253 §6.6 format */
#define LINK_COMMAND_MAX 4096
#define LINK_FILES_MAX   32768
#define LINK_TARGETS_MAX 200 /* rows in one TARGET_LIST */
#define LINK_JUMP_SINCE  3   /* the version that brought jumps */
#define LINK_NLA_SINCE   4   /* the version that brought NLA at the RDP door */
#define LINK_HOPS_MAX    4   /* servers on the way to a target */
#define LINK_COOKIE      32  /* SHA-256 */

#define LINK_REDIRECT_SINCE 4 /* the version that brought redirections and reconnect cookies */

/* What a relay is doing, as HELLO tells a broker that adopts it. */
enum link_phase { LINK_PHASE_LOGIN, LINK_PHASE_CHOOSING, LINK_PHASE_SESSION, LINK_PHASE_ENDED };

enum link_auth {
    LINK_AUTH_DENIED,
    LINK_AUTH_OFFER_OK,
    LINK_AUTH_OK,
    LINK_AUTH_DISCONNECT,
    LINK_AUTH_PARTIAL /* since version 3: right, and something else must follow */
};

/* Ways to log in that may go on, a set. */
enum link_auth_methods {
    LINK_METHOD_PUBLICKEY = 1,
    LINK_METHOD_PASSWORD = 2,
    LINK_METHOD_KEYBOARD = 4,
    LINK_METHODS = 7
};

/* How to log in at the target. */
enum link_target_auth {
    TARGET_AUTH_NONE,
    TARGET_AUTH_PASSWORD,
    TARGET_AUTH_KEY,
    TARGET_AUTH_PASSTHROUGH,
    TARGET_AUTH_AGENT, /* the user's agent; since version 3 */
    TARGET_AUTH_PROMPT /* RDP: the user is asked for the account's password; since version 4 */
};

/* What is tried when a target is tested, in this order; id, name. */
#define LINK_PROBE_STEPS(X)            \
    X(PROBE_RESOLVE, "resolve")        \
    X(PROBE_CONNECT, "connect")        \
    X(PROBE_BANNER, "banner")          \
    X(PROBE_KEY_EXCHANGE, "handshake") \
    X(PROBE_HOST_KEY, "host-key")      \
    X(PROBE_LOGIN, "login")            \
    X(PROBE_CHANNEL, "channel")        \
    X(PROBE_COMMAND, "command")

enum link_probe_step {
#define X(id, name) id,
    LINK_PROBE_STEPS(X)
#undef X
        PROBE_STEP_COUNT
};

enum link_probe_result { PROBE_OK, PROBE_FAILED, PROBE_SKIPPED, PROBE_RESULT_COUNT };

enum link_channel_kind {
    CHANNEL_SHELL,          /* a shell, with or without a pty */
    CHANNEL_EXEC,           /* a command */
    CHANNEL_TRANSFER,       /* a command that speaks a file protocol: scp, rsync, git */
    CHANNEL_SUBSYSTEM,      /* sftp and others */
    CHANNEL_FORWARD,        /* since version 3, as those below: the client's -L, -D, -W */
    CHANNEL_REMOTE_FORWARD, /* the target's, by -R */
    CHANNEL_AGENT,          /* the target's, to the client's ssh-agent */
    CHANNEL_X11,            /* the target's, to the client's display */
    CHANNEL_KIND_COUNT
};

enum link_channel_change { LINK_CHANNEL_OPENED, LINK_CHANNEL_CLOSED, LINK_CHANNEL_REFUSED };

enum link_record { LINK_RECORD_NO, LINK_RECORD_YES, LINK_RECORD_REFUSED };

enum link_notice { LINK_NOTICE_WARNING, LINK_NOTICE_MESSAGE };

/* Who ended what a jump carried. */
enum link_jump_end {
    LINK_JUMP_BY_CLIENT, /* the channel's opener closed it */
    LINK_JUMP_BY_FAR,    /* what it led to did */
    LINK_JUMP_BY_OUTER,  /* the connection that carries it is over */
    LINK_JUMP_END_COUNT
};

/* What a relay asks about a command of the user's own door. */
enum link_door_change { LINK_DOOR_OPEN, LINK_DOOR_RESIZE, LINK_DOOR_CLOSE };

/* What a relay does when a client offers NLA. */
enum link_nla {
    LINK_NLA_OFF,   /* not at this door */
    LINK_NLA_LAST,  /* for a client that takes nothing else */
    LINK_NLA_FIRST, /* for one that takes it */
    LINK_NLA_ONLY   /* or nothing */
};

/* A blob of at most n bytes. */
#define LINK_BLOB(n)     \
    struct {             \
        uint16_t len;    \
        uint8_t data[n]; \
    }

/* ---- relay to broker ---- */

struct link_hello {   /* fd: the activity page, when session_id is not 0 */
    uint8_t protocol; /* enum protocol */
    uint8_t phase;    /* enum link_phase */
    uint32_t pid;     /* for the log only; the broker uses SO_PEERCRED */
    char client_address[64];
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];
    char user[NAME_MAX_LEN + 1];       /* "" before authentication */
    uint32_t attempts;                 /* failed ones so far */
    uint64_t session_id;               /* 0 when none */
    LINK_BLOB(LINK_TICKET_MAX) ticket; /* the newest the broker gave */
};

struct link_auth_password {
    char user[NAME_MAX_LEN + 1];
    char device[SESSION_DEVICE_MAX];
    LINK_BLOB(1024) password;
};

struct link_auth_key {
    char user[NAME_MAX_LEN + 1];
    char device[SESSION_DEVICE_MAX];
    uint8_t is_signed; /* 0: an offer, grants nothing and leaves no trace */
    char key_type[64];
    LINK_BLOB(LINK_KEY_MAX) key;
};

struct link_auth_keyboard { /* since version 3: keyboard-interactive begins */
    char user[NAME_MAX_LEN + 1];
    char device[SESSION_DEVICE_MAX];
};

struct link_auth_answer { /* to AUTH_PROMPT; answered by the next one or by AUTH_RESULT */
    LINK_BLOB(1024) answer;
};

struct link_route {
    char account[ACCOUNT_MAX_LEN + 1]; /* "" for the default */
    char target[NAME_MAX_LEN + 1];
    LINK_BLOB(LINK_COOKIE) cookie; /* since version 4: see RECONNECT; empty: it shows none */
};

struct link_redirect {    /* since version 4; RDP: the target sends the session on; answered by
                             REDIRECTED */
    char host[256];       /* "" or where it was: another session there */
    uint8_t needs_secret; /* the target said no credentials: those of the session are needed anew */
};

struct link_reconnect { /* since version 4; RDP: a client that shows this cookie may go on in this
                           session. A hash of it: what the broker knows opens nothing */
    LINK_BLOB(LINK_COOKIE) cookie;
};

struct link_targets {
    uint32_t offset; /* rows to skip */
};

struct link_host_key { /* asks to pin the key of an accept-new target; answered by HOST_KEY_RESULT
                        */
    char key_type[64];
    LINK_BLOB(LINK_KEY_MAX) key;
    uint8_t hop; /* since version 3: whose; 0 the target's, else HOP.number */
};

/* A probe's: one step of a test of a target. */
struct link_probe_step_msg {
    uint8_t hop;    /* HOP.number, 0 the target itself */
    uint8_t step;   /* enum link_probe_step */
    uint8_t result; /* enum link_probe_result */
    uint8_t is_last;
    char text[SESSION_TEXT_MAX];
    char key_type[64]; /* HOST_KEY: what the server showed; "" for nothing */
    LINK_BLOB(LINK_KEY_MAX) key;
};

struct link_ready { /* logged in at the target: connecting becomes active */
    char target_version[SESSION_DEVICE_MAX]; /* since version 2 */
};

struct link_record_open {
    uint32_t channel; /* 1 for the first of the session */
    uint8_t kind;     /* enum link_channel_kind; of RDP it says nothing */
    uint8_t has_pty;
    uint16_t cols, rows;
    char command[LINK_COMMAND_MAX];
    char term[64]; /* since version 2 */
};

struct link_channel {
    uint32_t channel;
    uint8_t change; /* enum link_channel_change */
    uint8_t kind;
    uint8_t has_pty;
    char command[LINK_COMMAND_MAX]; /* exec: the command line; subsystem: its name; forwards: the
                                       destination */
    uint64_t bytes_in, bytes_out;
    uint32_t exit_status; /* UINT32_MAX: none was sent */
    char exit_signal[32];
    uint64_t duration_ms; /* since version 3: CLOSED: since it was opened */
};

struct link_frame { /* a recording frame was written */
    uint32_t channel;
    uint64_t sequence;
    uint64_t file_len;
    LINK_BLOB(32) chain; /* SHA-256, see tracker/FORMAT.md */
};

struct link_recording_state {
    uint32_t channel;
    uint8_t state; /* enum recording_state */
    char text[SESSION_TEXT_MAX];
};

struct link_resumed {
    uint8_t unused;
};

struct link_event {
    char kind[32];
    char text[SESSION_TEXT_MAX];
};

struct link_desktop { /* since version 3; RDP: the capabilities were exchanged, anew at each size */
    char channels[CHANNELS_TEXT_MAX]; /* "desktop,clipboard,sound" */
    char text[SESSION_TEXT_MAX];      /* client, size, security of both legs */
    char device[SESSION_DEVICE_MAX];  /* since version 4: behind NLA, the client says it late */
};

struct link_nla_ask { /* since version 4; RDP: is NLA for this client? Answered by NLA_CHOICE */
    char cookie[64];  /* as the client sent it, which proves nothing; "" none */
};

struct link_nla_login { /* since version 4: NLA begins: answered by NLA_BEGUN, and by AUTH_RESULT */
    char device[SESSION_DEVICE_MAX];
    LINK_BLOB(LINK_KEY_MAX) key; /* SubjectPublicKey of the certificate that the client sees */
};

struct link_closed {
    uint8_t reason; /* enum end_reason */
    char author[NAME_MAX_LEN + 16];
    char text[SESSION_TEXT_MAX];
    uint64_t bytes_in, bytes_out;
};

struct link_jump { /* since version 3: `ssh -J`, `ssh -W`: a way to a target beside the session */
    uint32_t channel;
    char host[256]; /* as the client names it */
    uint16_t port;
};

struct link_jump_closed { /* since version 3 */
    uint32_t channel;
    uint8_t by; /* enum link_jump_end */
    uint64_t bytes_in, bytes_out;
};

struct link_door { /* since version 3: the user's own door, `ssh USER@HOST sessions` */
    uint32_t channel;
    uint8_t change; /* enum link_door_change; what follows goes with OPEN, the size with RESIZE */
    uint8_t has_pty;
    uint16_t cols, rows;
    char term[64];
    char address[96]; /* HOST:PORT that the client connected to: for `config` only */
    char command[LINK_COMMAND_MAX];
};

struct link_back {  /* since version 3: the login at the target failed before anything was started;
                       the session is over and another target may be chosen */
    uint8_t reason; /* enum end_reason */
    char text[SESSION_TEXT_MAX];
};

struct link_files { /* since version 3: what was done to files, rows of file_row.h */
    LINK_BLOB(LINK_FILES_MAX) rows;
};

struct link_watch_closed { /* since version 3: nobody looks any more */
    uint64_t watch;
    uint32_t channel; /* 0: it never began */
    uint8_t may_type; /* as WATCH said, like the next: the broker may be another one by now */
    char who[NAME_MAX_LEN + 16];
    uint64_t typed; /* bytes that he typed */
    char text[SESSION_TEXT_MAX];
};

/* ---- broker to relay ---- */

struct link_welcome {
    uint32_t login_grace_s, auth_attempts, key_offers;
    uint32_t keepalive_interval_s, keepalive_count;
    uint32_t broker_lost_after_s;
    char separators[8];
    char banner[4096];
    /* since version 3: a jump's relay is logged in already, and may go to one target only */
    char user[NAME_MAX_LEN + 1]; /* "" for all others, which log in */
    char jump_target[NAME_MAX_LEN + 1];
    LINK_BLOB(LINK_TICKET_MAX) ticket;
    uint32_t jump_idle_s; /* how long a connection stays that carries jumps and has none open */
};

struct link_auth_result {
    uint8_t result; /* enum link_auth */
    char user[NAME_MAX_LEN + 1];
    char text[SESSION_TEXT_MAX];
    LINK_BLOB(LINK_TICKET_MAX) ticket;
    uint8_t methods; /* since version 3: those that may go on; 0: all */
};

struct link_auth_prompt { /* since version 3 */
    char banner[8192];    /* shown before the question as it is, lines and all; "" nothing */
    char instruction[1024];
    char prompt[512];
    uint8_t has_prompt; /* 0: nothing is asked, an empty answer comes back */
    uint8_t has_echo;
    uint32_t more_s; /* the login may take so much longer from now on */
};

struct link_route_result { /* fds: the connected socket, the activity page */
    uint8_t is_ok;
    uint8_t reason; /* enum end_reason when not ok */
    char text[SESSION_TEXT_MAX];
    uint64_t session_id;
    int64_t started_wall_us;
    char account[ACCOUNT_MAX_LEN + 1];
    char target[NAME_MAX_LEN + 1];
    char address[SESSION_ADDRESS_MAX];
    uint8_t auth; /* enum link_target_auth */
    uint8_t accept_new;
    char host_key_type[64]; /* "" when none is pinned */
    LINK_BLOB(LINK_KEY_MAX) host_key;
    LINK_BLOB(SECRET_MAX) secret; /* password or PEM private key; wiped by both sides */
    LINK_BLOB(LINK_TICKET_MAX) ticket;
    struct policy policy;
    uint8_t hops;                        /* since version 3: HOP messages that came before */
    LINK_BLOB(LINK_KEY_MAX) certificate; /* since version 3: of the key; one line of text */
    uint8_t keeps_cookie; /* since version 4: ROUTE.cookie is good, and may go on to the target */
};

struct link_redirected { /* since version 4; fd: the connected socket */
    uint8_t is_ok;
    char text[SESSION_TEXT_MAX]; /* when not ok */
    char address[SESSION_ADDRESS_MAX];
    LINK_BLOB(LINK_KEY_MAX) host_key; /* the key that is pinned for it; empty: none */
    LINK_BLOB(SECRET_MAX) secret;     /* the stored password, when asked for */
};

/* One server that lies on the way to the target, the nearest first, before ROUTE_RESULT; since
 * version 3. fds: a pair of stream sockets, for what goes on through a channel of this server. A
 * probe is told its target in the same words, as number 0, without descriptors. */
struct link_hop {
    uint8_t number; /* from 1 */
    char target[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    char address[SESSION_ADDRESS_MAX];
    uint8_t auth; /* enum link_target_auth */
    uint8_t accept_new;
    char host_key_type[64]; /* "" when none is pinned */
    LINK_BLOB(LINK_KEY_MAX) host_key;
    LINK_BLOB(SECRET_MAX) secret;
    LINK_BLOB(LINK_KEY_MAX) certificate;
};

struct link_probe { /* to a probe, behind its HOPs; fd: the socket to the first of them */
    uint8_t hops;
    uint8_t only_key; /* stop at the target's host key, and say it */
    uint32_t timeout_s;
};

struct link_target_row {
    char target[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    int64_t last_used_wall_us; /* 0: never */
};

struct link_target_list { /* rows follow as LINK_TARGET_ROW messages, `count` of them */
    uint32_t count;
    uint32_t total;
};

struct link_host_key_result {
    uint8_t is_ok;
    char text[SESSION_TEXT_MAX];
};

struct link_recording { /* fd: the recording, when verdict is YES */
    uint32_t channel;
    uint8_t verdict; /* enum link_record */
    char text[SESSION_TEXT_MAX];
};

struct link_notice_msg {
    uint8_t kind; /* enum link_notice */
    char text[1024];
};

struct link_policy {
    struct policy policy;
};

struct link_end {
    uint8_t reason;
    char author[NAME_MAX_LEN + 16];
    char text[SESSION_TEXT_MAX]; /* the whole sentence the user sees */
    uint32_t deadline_ms;
};

struct link_closed_ack { /* CLOSED is in the store: the relay may go */
    uint8_t unused;
};

struct link_jump_result { /* since version 3. fd: a stream socket that leads there */
    uint32_t channel;
    uint8_t is_ok;
    uint8_t is_passed; /* no relay of ours is at the other end */
    char text[SESSION_TEXT_MAX];
};

struct link_door_result { /* since version 3. fds: the master of a terminal, or the ends of stdin,
                             stdout and stderr; none when not ok */
    uint32_t channel;
    uint8_t is_ok;
    uint8_t exit_status; /* when not ok */
    char text[512];      /* when not ok: one line for stderr */
};

struct link_door_exit { /* since version 3: the command is over */
    uint32_t channel;
    uint8_t exit_status;
    char text[SESSION_TEXT_MAX]; /* a line for stderr, or "" */
};

struct link_back_result { /* since version 3: choosing again */
    LINK_BLOB(LINK_TICKET_MAX) ticket;
};

struct link_watch {   /* since version 3; fd: our end of a stream socket, see proxy/ssh/watch.h */
    uint64_t watch;   /* for WATCH_CLOSED */
    uint32_t channel; /* 0: the terminal that was opened last */
    uint8_t may_type;
    char who[NAME_MAX_LEN + 16];
};

struct link_nla_choice { /* since version 4 */
    uint8_t nla;         /* enum link_nla */
};

struct link_nla_begun { /* since version 4; fd: to the process of this attempt, see nla_talk.h */
    uint8_t unused;
};

struct link_watch_end { /* since version 3: he may not look on any more, or does not want to */
    uint64_t watch;
};

/* ---- broker and gate ---- */

struct link_gate_config {
    uint32_t max_unauthenticated, max_unauthenticated_per_source, login_grace_s;
    uint8_t is_draining;
    char trusted_proxies[3072]; /* networks, commas between, whose connections begin with a PROXY
                                   header; since version 3 */
};

struct link_gate_key { /* one host key, private, as PEM/OpenSSH text */
    LINK_BLOB(SECRET_MAX) key;
};

struct link_gate_listen { /* fds: the whole new set of listeners; replaces the old one */
    uint32_t count;
};

struct link_gate_ready { /* gate: keys are loaded, the root is entered, accepting */
    uint32_t pid;
};

struct link_gate_settled { /* broker: this relay is authenticated, or gone */
    uint32_t pid;
};

struct link_gate_status { /* gate, at changes, at most once a second */
    uint32_t unauthenticated, parked;
    uint64_t accepted, evicted;
};

struct link_gate_jump { /* broker, since version 3: fork a relay for the fd, whoever waits */
    char client_address[64];
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];
    LINK_BLOB(LINK_TICKET_MAX) pass; /* what the relay says in its HELLO */
};

/* id, wire number, struct, from ('R' relay, 'B' broker to relay, 'g' gate, 'G' broker to gate) */
#define LINK_MESSAGES(X)                              \
    X(LINK_HELLO, 1, hello, 'R')                      \
    X(LINK_AUTH_PASSWORD, 2, auth_password, 'R')      \
    X(LINK_AUTH_KEY, 3, auth_key, 'R')                \
    X(LINK_ROUTE, 4, route, 'R')                      \
    X(LINK_TARGETS, 5, targets, 'R')                  \
    X(LINK_HOST_KEY, 6, host_key, 'R')                \
    X(LINK_READY, 7, ready, 'R')                      \
    X(LINK_RECORD_OPEN, 8, record_open, 'R')          \
    X(LINK_CHANNEL, 9, channel, 'R')                  \
    X(LINK_FRAME, 10, frame, 'R')                     \
    X(LINK_RECORDING_STATE, 11, recording_state, 'R') \
    X(LINK_RESUMED, 12, resumed, 'R')                 \
    X(LINK_EVENT, 13, event, 'R')                     \
    X(LINK_CLOSED, 14, closed, 'R')                   \
    X(LINK_PROBE_STEP, 25, probe_step, 'R')           \
    X(LINK_AUTH_KEYBOARD, 23, auth_keyboard, 'R')     \
    X(LINK_AUTH_ANSWER, 24, auth_answer, 'R')         \
    X(LINK_DOOR, 27, door, 'R')                       \
    X(LINK_BACK, 28, back, 'R')                       \
    X(LINK_FILES, 29, files, 'R')                     \
    X(LINK_WATCH_CLOSED, 30, watch_closed, 'R')       \
    X(LINK_JUMP, 20, jump, 'R')                       \
    X(LINK_JUMP_CLOSED, 21, jump_closed, 'R')         \
    X(LINK_DESKTOP, 68, desktop, 'R')                 \
    X(LINK_REDIRECT, 76, redirect, 'R')               \
    X(LINK_RECONNECT, 77, reconnect, 'R')             \
    X(LINK_NLA_ASK, 71, nla_ask, 'R')                 \
    X(LINK_NLA_LOGIN, 72, nla_login, 'R')             \
    X(LINK_WELCOME, 32, welcome, 'B')                 \
    X(LINK_AUTH_RESULT, 33, auth_result, 'B')         \
    X(LINK_ROUTE_RESULT, 34, route_result, 'B')       \
    X(LINK_TARGET_LIST, 35, target_list, 'B')         \
    X(LINK_TARGET_ROW, 36, target_row, 'B')           \
    X(LINK_HOST_KEY_RESULT, 37, host_key_result, 'B') \
    X(LINK_RECORDING, 38, recording, 'B')             \
    X(LINK_NOTICE, 39, notice, 'B')                   \
    X(LINK_POLICY, 40, policy, 'B')                   \
    X(LINK_END, 41, end, 'B')                         \
    X(LINK_CLOSED_ACK, 42, closed_ack, 'B')           \
    X(LINK_HOP, 53, hop, 'B')                         \
    X(LINK_PROBE, 54, probe, 'B')                     \
    X(LINK_AUTH_PROMPT, 50, auth_prompt, 'B')         \
    X(LINK_DOOR_RESULT, 57, door_result, 'B')         \
    X(LINK_DOOR_EXIT, 58, door_exit, 'B')             \
    X(LINK_BACK_RESULT, 59, back_result, 'B')         \
    X(LINK_WATCH, 60, watch, 'B')                     \
    X(LINK_WATCH_END, 61, watch_end, 'B')             \
    X(LINK_JUMP_RESULT, 47, jump_result, 'B')         \
    X(LINK_REDIRECTED, 103, redirected, 'B')          \
    X(LINK_NLA_CHOICE, 98, nla_choice, 'B')           \
    X(LINK_NLA_BEGUN, 99, nla_begun, 'B')             \
    X(LINK_GATE_READY, 64, gate_ready, 'g')           \
    X(LINK_GATE_STATUS, 65, gate_status, 'g')         \
    X(LINK_GATE_CONFIG, 80, gate_config, 'G')         \
    X(LINK_GATE_KEY, 81, gate_key, 'G')               \
    X(LINK_GATE_LISTEN, 82, gate_listen, 'G')         \
    X(LINK_GATE_SETTLED, 83, gate_settled, 'G')       \
    X(LINK_GATE_JUMP, 84, gate_jump, 'G')

enum link_type {
#define X(id, number, member, from) id = number,
    LINK_MESSAGES(X)
#undef X
};

struct link_message {
    uint8_t version; /* of the sender; set by decode, ignored by encode (which is told) */
    uint8_t type;    /* enum link_type */
    union {
        struct link_hello hello;
        struct link_auth_password auth_password;
        struct link_auth_key auth_key;
        struct link_route route;
        struct link_targets targets;
        struct link_host_key host_key;
        struct link_ready ready;
        struct link_record_open record_open;
        struct link_channel channel;
        struct link_frame frame;
        struct link_recording_state recording_state;
        struct link_resumed resumed;
        struct link_event event;
        struct link_closed closed;
        struct link_desktop desktop;
        struct link_redirect redirect;
        struct link_redirected redirected;
        struct link_reconnect reconnect;
        struct link_nla_ask nla_ask;
        struct link_nla_login nla_login;
        struct link_nla_choice nla_choice;
        struct link_nla_begun nla_begun;
        struct link_probe_step_msg probe_step;
        struct link_auth_keyboard auth_keyboard;
        struct link_auth_answer auth_answer;
        struct link_door door;
        struct link_back back;
        struct link_files files;
        struct link_watch_closed watch_closed;
        struct link_jump jump;
        struct link_jump_closed jump_closed;
        struct link_jump_result jump_result;
        struct link_welcome welcome;
        struct link_auth_result auth_result;
        struct link_route_result route_result;
        struct link_target_list target_list;
        struct link_target_row target_row;
        struct link_hop hop;
        struct link_probe probe;
        struct link_host_key_result host_key_result;
        struct link_recording recording;
        struct link_notice_msg notice;
        struct link_policy policy;
        struct link_end end;
        struct link_closed_ack closed_ack;
        struct link_auth_prompt auth_prompt;
        struct link_door_result door_result;
        struct link_door_exit door_exit;
        struct link_back_result back_result;
        struct link_watch watch;
        struct link_watch_end watch_end;
        struct link_gate_ready gate_ready;
        struct link_gate_status gate_status;
        struct link_gate_config gate_config;
        struct link_gate_key gate_key;
        struct link_gate_listen gate_listen;
        struct link_gate_settled gate_settled;
        struct link_gate_jump gate_jump;
    };
};

const char *link_type_name(uint8_t type); /* "HELLO"; "?" when unknown */

/*
 * Pure codec. encode writes m as `version` would say it; the buffer's `failed` tells the rest.
 * decode takes one whole datagram: ERR_INVALID on anything that is not exactly one message,
 * ERR_VERSION on a version outside [LINK_VERSION_MIN, LINK_VERSION]. Texts come out
 * NUL-terminated; a text with a NUL inside is refused.
 */
void link_encode(const struct link_message *m, uint8_t version, struct buffer *out);
MUST_CHECK int link_decode(struct link_message *m, const uint8_t *data, size_t len);

/*
 * Send one message with up to LINK_FDS_MAX descriptors (borrowed). Never blocks: ERR_AGAIN when
 * the socket is full, ERR_CLOSED when the other side is gone. Secrets are wiped from the scratch
 * memory.
 */
MUST_CHECK int link_send(int sock, const struct link_message *m, uint8_t version, const int *fds,
                         size_t fd_count);

/*
 * Receive one message. fds[LINK_FDS_MAX] is filled with -1 or descriptors that the caller then
 * owns (close-on-exec set). Returns 0, ERR_AGAIN, ERR_CLOSED, ERR_INVALID or ERR_VERSION (any
 * descriptors are closed on error). Never blocks.
 */
MUST_CHECK int link_receive(int sock, struct link_message *m, int fds[LINK_FDS_MAX]);

/* Close every descriptor that is not -1 and set it to -1. */
void link_close_fds(int fds[LINK_FDS_MAX]);

/* Wipe a message that may hold a secret. */
void link_message_wipe(struct link_message *m);

#endif
