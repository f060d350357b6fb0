/*
 * The words for a session that cross folders: its states, why it ended, and what can be said about
 * it in one struct (what `session show` prints).
 */
#ifndef SALLYPORT_SESSION_H
#define SALLYPORT_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/errors.h>
#include <sallyport/login.h>

/* id, name */
#define SESSION_STATES(X)               \
    X(SESSION_CONNECTING, "connecting") \
    X(SESSION_ACTIVE, "active")         \
    X(SESSION_IDLE, "idle")             \
    X(SESSION_DISCONNECTED, "disconnected")

enum session_state {
#define X(id, name) id,
    SESSION_STATES(X)
#undef X
        SESSION_STATE_COUNT
};

/* id, name (CONTRACT: endReason), is an error, what happened (for an operator) */
#define END_REASONS(X)                                                                       \
    X(END_NONE, "none", false, "still there")                                                \
    X(END_USER_EXIT, "user-exit", false, "the user ended it")                                \
    X(END_ADMIN_ENDED, "admin-ended", false, "an admin ended it")                            \
    X(END_SELF_ENDED, "self-ended", false, "the user ended it from elsewhere")               \
    X(END_IDLE_TIMEOUT, "idle-timeout", false, "no activity for too long")                   \
    X(END_MAX_DURATION, "max-duration", false, "maximum duration reached")                   \
    X(END_TARGET_CLOSED, "target-closed", false, "the target closed the connection")         \
    X(END_TARGET_UNREACHABLE, "target-unreachable", true, "the target could not be reached") \
    X(END_NETWORK_LOST, "network-lost", true, "the client's connection was lost")            \
    X(END_POLICY, "policy", true, "refused or ended by policy")                              \
    X(END_REVOKED, "revoked", false, "access was withdrawn")                                 \
    X(END_RECORDING_FAILED, "recording-failed", true, "the recording could not be written")  \
    X(END_RELAY_CRASHED, "relay-crashed", true, "the relay process died")                    \
    X(END_BROKER_LOST, "broker-lost", true, "no broker was there to see the end")            \
    X(END_SHUTDOWN, "shutdown", false, "Sallyport was shut down")

enum end_reason {
#define X(id, name, is_error, text) id,
    END_REASONS(X)
#undef X
        END_REASON_COUNT
};

enum protocol { PROTOCOL_SSH, PROTOCOL_RDP, PROTOCOL_WEB, PROTOCOL_COUNT };

enum recording_state { RECORDING_OFF, RECORDING_OK, RECORDING_DEGRADED, RECORDING_FAILED };

const char *session_state_name(enum session_state s);
const char *end_reason_name(enum end_reason r);
const char *end_reason_text(enum end_reason r);
const char *protocol_name(enum protocol p);
const char *recording_state_name(enum recording_state r);
/* Each returns -1 when the name is not in the list. */
int session_state_from_name(const char *name);
int end_reason_from_name(const char *name);
int protocol_from_name(const char *name);
int recording_state_from_name(const char *name);

#define SESSION_TEXT_MAX    256 /* a sentence for people */
#define SESSION_DEVICE_MAX  128
#define SESSION_ADDRESS_MAX 300 /* HOST:PORT of a target, host up to 255 */
#define CHANNELS_TEXT_MAX   128 /* "session,forward*3" */
#define CHANNELS_SHOWN_MAX  1000

/*
 * Everything about one session, live or ended. Plain data, copied; owns nothing. Text fields hold
 * bytes from outside and are escaped where they are shown.
 */
struct session_info {
    uint64_t id;
    enum protocol protocol;
    enum session_state state;
    enum end_reason end_reason;
    enum recording_state recording;
    char user[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    char target[NAME_MAX_LEN + 1];
    char address[SESSION_ADDRESS_MAX]; /* of the target, HOST:PORT */
    char client_address[64];           /* numeric, without port */
    uint16_t client_port;
    char device[SESSION_DEVICE_MAX];  /* SSH client version, RDP client name */
    char location[128];               /* address class or place; "" when unknown */
    char channels[CHANNELS_TEXT_MAX]; /* open ones by kind: word, or word*count, with commas */
    char ended_by[NAME_MAX_LEN + 16]; /* user, "admin NAME", "broker", "target", "client" */
    char end_text[SESSION_TEXT_MAX];
    char node[NAME_MAX_LEN + 1];
    int64_t started_wall_us;
    int64_t ended_wall_us; /* 0 while live */
    int64_t last_activity_wall_us;
    uint64_t duration_s;
    uint64_t idle_s;
    uint64_t bytes_in; /* user to target, payload after decryption */
    uint64_t bytes_out;
    bool is_warned;
    /* An end that was announced (`session end --in`): when, and as those above then. 0: none. */
    int64_t planned_wall_us;
    enum end_reason planned_reason;
    char planned_by[NAME_MAX_LEN + 16];
    char planned_text[SESSION_TEXT_MAX]; /* the reason an admin gave, may be "" */
    int32_t relay_pid;                   /* 0 when ended */
};

#endif
