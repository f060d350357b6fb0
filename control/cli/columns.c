/*
 * The columns of every list. Heads and keys are what scripts rely on (--sort, CSV): only added to.
 */
#include <stddef.h>

#include "control/cli/output.h"

#define END                        \
    {                              \
        NULL, NULL, COLUMN_TEXT, 0 \
    }

static const struct column session_list[] = {
    {"ID", "id", COLUMN_NUMBER, 0},
    {"USER", "user", COLUMN_TEXT, COLUMN_TRUNC},
    {"SOURCE", "ipAddress", COLUMN_TEXT, COLUMN_TRUNC},
    {"PORT", "port", COLUMN_NUMBER, COLUMN_DETAIL},
    {"LOCATION", "location", COLUMN_TEXT, COLUMN_WIDE | COLUMN_TRUNC},
    {"DEVICE", "device", COLUMN_TEXT, COLUMN_WIDE | COLUMN_TRUNC},
    {"TYPE", "resourceType", COLUMN_TEXT, COLUMN_SPARE1},
    {"TARGET", "resourceName", COLUMN_TEXT, COLUMN_TRUNC},
    {"ADDRESS", "address", COLUMN_TEXT, COLUMN_DETAIL},
    {"ACCOUNT", "account", COLUMN_TEXT, COLUMN_TRUNC | COLUMN_SPARE3},
    {"STARTED", "startTime", COLUMN_TIME, 0},
    {"ENDED", "endTime", COLUMN_TIME, COLUMN_HISTORY},
    {"DURATION", "durationSeconds", COLUMN_SECONDS, 0},
    {"IDLE", "idleSeconds", COLUMN_SECONDS, COLUMN_SPARE2},
    {"ACTIVITY", "lastActivity", COLUMN_TIME, COLUMN_DETAIL},
    {"STATUS", "status", COLUMN_TEXT, 0},
    {"ENDS", "endsAt", COLUMN_TIME, COLUMN_RARE},
    {"ENDSBY", "endsBy", COLUMN_TEXT, COLUMN_DETAIL},
    {"IN", "bytesIn", COLUMN_BYTES, COLUMN_WIDE},
    {"OUT", "bytesOut", COLUMN_BYTES, COLUMN_WIDE},
    {"CHANNELS", "channels", COLUMN_LIST, COLUMN_DETAIL},
    {"RECORDING", "recording", COLUMN_TEXT, COLUMN_WIDE},
    {"REASON", "endReason", COLUMN_TEXT, COLUMN_WIDE | COLUMN_HISTORY},
    {"BY", "endedBy", COLUMN_TEXT, COLUMN_DETAIL},
    {"TEXT", "endText", COLUMN_TEXT, COLUMN_DETAIL},
    {"FLAGS", "flags", COLUMN_LIST, COLUMN_WIDE},
    {"WARNED", "warned", COLUMN_BOOL, COLUMN_DETAIL},
    {"NODE", "node", COLUMN_TEXT, COLUMN_DETAIL},
    {"PID", "pid", COLUMN_NUMBER, COLUMN_DETAIL},
    END,
};
const struct columns session_columns = {"sessions", "id", session_list};

static const struct column user_list[] = {
    {"NAME", "name", COLUMN_TEXT, 0},
    {"ROLE", "role", COLUMN_TEXT, 0},
    {"LOCKED", "locked", COLUMN_BOOL, 0},
    {"PASSWORD", "hasPassword", COLUMN_BOOL, 0},
    {"KEYS", "keyCount", COLUMN_NUMBER, 0},
    {"TOTP", "totp", COLUMN_BOOL, COLUMN_SPARE1},
    {"SECONDFACTOR", "secondFactor", COLUMN_TEXT, COLUMN_WIDE},
    {"AUTHSOURCE", "authSource", COLUMN_TEXT, COLUMN_WIDE},
    {"PRINCIPALS", "certPrincipals", COLUMN_TEXT, COLUMN_WIDE | COLUMN_TRUNC},
    {"UID", "localUid", COLUMN_NUMBER, COLUMN_SPARE1},
    {"SESSIONS", "sessions", COLUMN_NUMBER, 0},
    {"LASTLOGIN", "lastLogin", COLUMN_TIME, 0},
    {"CREATED", "created", COLUMN_TIME, COLUMN_WIDE},
    {"RDPNLA", "rdpNla", COLUMN_TEXT, COLUMN_WIDE},
    END,
};
const struct columns user_columns = {"users", "name", user_list};

static const struct column totp_list[] = {
    {"USER", "user", COLUMN_TEXT, 0},
    {"ENROLLED", "enrolled", COLUMN_BOOL, 0},
    {"REQUIRED", "required", COLUMN_BOOL, 0},
    {"SINCE", "since", COLUMN_TIME, 0},
    {"RECOVERYCODES", "recoveryCodes", COLUMN_NUMBER, 0},
    END,
};
const struct columns totp_columns = {"second factors", "user", totp_list};

static const struct column source_list[] = {
    {"ADDRESS", "address", COLUMN_TEXT, 0},
    {"FAILURES", "failures", COLUMN_NUMBER, 0},
    {"BLOCKED", "blocked", COLUMN_BOOL, 0},
    {"UNTIL", "until", COLUMN_TIME, 0},
    END,
};
const struct columns source_columns = {"sources", "address", source_list};

static const struct column key_list[] = {
    {"ID", "id", COLUMN_NUMBER, 0},
    {"USER", "user", COLUMN_TEXT, COLUMN_WIDE},
    {"TYPE", "type", COLUMN_TEXT, 0},
    {"FINGERPRINT", "fingerprint", COLUMN_TEXT, 0},
    {"COMMENT", "comment", COLUMN_TEXT, COLUMN_TRUNC},
    {"ADDED", "added", COLUMN_TIME, COLUMN_SPARE1},
    {"KEY", "key", COLUMN_TEXT, COLUMN_DETAIL},
    END,
};
const struct columns key_columns = {"keys", "id", key_list};

static const struct column role_list[] = {
    {"NAME", "name", COLUMN_TEXT, 0},
    {"BUILTIN", "builtin", COLUMN_BOOL, 0},
    {"SECONDFACTOR", "secondFactor", COLUMN_TEXT, 0},
    {"POLICY", "policy", COLUMN_POLICY, COLUMN_TRUNC},
    END,
};
const struct columns role_columns = {"roles", "name", role_list};

static const struct column target_list[] = {
    {"NAME", "name", COLUMN_TEXT, 0},
    {"TYPE", "type", COLUMN_TEXT, 0},
    {"ADDRESS", "address", COLUMN_TEXT, COLUMN_TRUNC},
    {"ACCOUNT", "account", COLUMN_TEXT, COLUMN_TRUNC},
    {"AUTH", "auth", COLUMN_TEXT, 0},
    {"SECRET", "hasSecret", COLUMN_BOOL, 0},
    {"VIA", "via", COLUMN_TEXT, COLUMN_TRUNC},
    {"CERTIFICATE", "certificate", COLUMN_TEXT, COLUMN_DETAIL},
    {"HOSTKEY", "hostKeyFingerprint", COLUMN_TEXT, COLUMN_WIDE},
    {"HOSTKEYTYPE", "hostKeyType", COLUMN_TEXT, COLUMN_DETAIL},
    {"PUBLICKEY", "hostKey", COLUMN_TEXT, COLUMN_DETAIL},
    {"ACCEPTNEW", "acceptNew", COLUMN_BOOL, COLUMN_WIDE},
    {"SESSIONS", "sessions", COLUMN_NUMBER, COLUMN_SPARE1},
    {"POLICY", "policy", COLUMN_POLICY, COLUMN_TRUNC},
    {"CREATED", "created", COLUMN_TIME, COLUMN_WIDE},
    END,
};
const struct columns target_columns = {"targets", "name", target_list};

static const struct column reach_list[] = {
    {"NAME", "name", COLUMN_TEXT, 0},
    {"TYPE", "type", COLUMN_TEXT, 0},
    {"ACCOUNT", "account", COLUMN_TEXT, COLUMN_TRUNC},
    {"LASTUSED", "lastUsed", COLUMN_TIME, 0},
    END,
};
const struct columns reach_columns = {"targets", "name", reach_list};

static const struct column step_list[] = {
    {"TARGET", "target", COLUMN_TEXT, 0},
    {"STEP", "step", COLUMN_TEXT, 0},
    {"RESULT", "result", COLUMN_TEXT, 0},
    {"TEXT", "text", COLUMN_TEXT, 0},
    END,
};
const struct columns step_columns = {"steps", "step", step_list};

static const struct column grant_list[] = {
    {"ID", "id", COLUMN_NUMBER, 0},
    {"SUBJECT", "subject", COLUMN_TEXT, 0},
    {"TARGET", "target", COLUMN_TEXT, 0},
    {"ACCOUNT", "account", COLUMN_TEXT, COLUMN_TRUNC},
    {"POLICY", "policy", COLUMN_POLICY, COLUMN_TRUNC},
    {"CREATED", "created", COLUMN_TIME, COLUMN_WIDE},
    END,
};
const struct columns grant_columns = {"grants", "id", grant_list};

static const struct column event_list[] = {
    {"ID", "id", COLUMN_NUMBER, COLUMN_WIDE},
    {"TIME", "time", COLUMN_TIME, 0},
    {"KIND", "kind", COLUMN_TEXT, 0},
    {"USER", "user", COLUMN_TEXT, COLUMN_TRUNC},
    {"SOURCE", "source", COLUMN_TEXT, COLUMN_TRUNC},
    {"SESSION", "session", COLUMN_NUMBER, 0},
    {"TEXT", "text", COLUMN_TEXT, COLUMN_TRUNC},
    END,
};
const struct columns event_columns = {"events", "id", event_list};

static const struct column recording_list[] = {
    {"ID", "id", COLUMN_NUMBER, 0},
    {"USER", "user", COLUMN_TEXT, COLUMN_TRUNC},
    {"TARGET", "resourceName", COLUMN_TEXT, COLUMN_TRUNC},
    {"STARTED", "started", COLUMN_TIME, 0},
    {"SIZE", "bytes", COLUMN_BYTES, 0},
    {"FRAMES", "frames", COLUMN_NUMBER, COLUMN_WIDE},
    {"STATE", "state", COLUMN_TEXT, 0},
    {"CLOSED", "closed", COLUMN_BOOL, COLUMN_SPARE1},
    {"SESSION", "session", COLUMN_NUMBER, COLUMN_DETAIL},
    {"CHANNEL", "channel", COLUMN_NUMBER, COLUMN_DETAIL},
    {"PATH", "path", COLUMN_TEXT, COLUMN_WIDE},
    {"CHAIN", "chain", COLUMN_TEXT, COLUMN_DETAIL},
    END,
};
const struct columns recording_columns = {"recordings", "id", recording_list};

static const struct column command_list[] = {
    {"STARTED", "started", COLUMN_TIME, 0},
    {"CHANNEL", "channel", COLUMN_NUMBER, 0},
    {"KIND", "kind", COLUMN_TEXT, 0},
    {"PTY", "pty", COLUMN_BOOL, COLUMN_SPARE1},
    {"LASTED", "lasted", COLUMN_TEXT, 0},
    {"IN", "bytesIn", COLUMN_BYTES, 0},
    {"OUT", "bytesOut", COLUMN_BYTES, 0},
    {"EXIT", "exit", COLUMN_TEXT, 0},
    {"COMMAND", "command", COLUMN_TEXT, COLUMN_TRUNC},
    END,
};
const struct columns command_columns = {"commands", "channel", command_list};

static const struct column file_list[] = {
    {"TIME", "time", COLUMN_TIME, 0},
    {"CHANNEL", "channel", COLUMN_NUMBER, COLUMN_SPARE1},
    {"OPERATION", "operation", COLUMN_TEXT, 0},
    {"RESULT", "result", COLUMN_TEXT, 0},
    {"IN", "bytesIn", COLUMN_BYTES, 0},
    {"OUT", "bytesOut", COLUMN_BYTES, 0},
    {"PATH", "path", COLUMN_TEXT, COLUMN_TRUNC},
    {"TO", "to", COLUMN_TEXT, COLUMN_TRUNC},
    END,
};
const struct columns file_columns = {"files", "path", file_list};

static const struct column status_list[] = {
    {"Version", "version", COLUMN_TEXT, 0},
    {"Node", "node", COLUMN_TEXT, 0},
    {"Pid", "pid", COLUMN_NUMBER, 0},
    {"Started", "started", COLUMN_TIME, 0},
    {"Up", "uptimeSeconds", COLUMN_SECONDS, 0},
    {"Draining", "draining", COLUMN_BOOL, 0},
    {"Listeners", "listeners", COLUMN_LIST, 0},
    {"Sessions", "sessions", COLUMN_NUMBER, 0},
    {"Relays", "links", COLUMN_NUMBER, 0},
    {"Unauthenticated", "unauthenticated", COLUMN_NUMBER, 0},
    {"Parked", "parked", COLUMN_NUMBER, 0},
    {"Accepted", "accepted", COLUMN_NUMBER, 0},
    {"Evicted", "evicted", COLUMN_NUMBER, 0},
    {"Adopted", "adopted", COLUMN_NUMBER, 0},
    {"History waiting", "historyQueued", COLUMN_NUMBER, 0},
    {"History lost", "historyLost", COLUMN_NUMBER, 0},
    {"Free for recordings", "recordingFree", COLUMN_BYTES, 0},
    {"Configuration", "configPath", COLUMN_TEXT, 0},
    {"Loaded", "configLoaded", COLUMN_TIME, 0},
    {"Control clients", "controlClients", COLUMN_NUMBER, 0},
    END,
};
const struct columns status_columns = {"status", "node", status_list};

static const struct column stats_list[] = {
    {"Active", "active", COLUMN_NUMBER, 0},
    {"Idle", "idle", COLUMN_NUMBER, 0},
    {"Connecting", "connecting", COLUMN_NUMBER, 0},
    {"Disconnected today", "disconnectedToday", COLUMN_NUMBER, 0},
    {"Total duration", "totalDuration", COLUMN_TEXT, 0},
    {"Users", "users", COLUMN_NUMBER, 0},
    {"By type", "byType", COLUMN_POLICY, 0},
    END,
};
const struct columns stats_columns = {"statistics", "active", stats_list};

static const struct column result_list[] = {
    {"ID", "id", COLUMN_NUMBER, 0},
    {"USER", "user", COLUMN_TEXT, 0},
    {"TARGET", "resourceName", COLUMN_TEXT, 0},
    {"RESULT", "result", COLUMN_TEXT, 0},
    {"TEXT", "text", COLUMN_TEXT, COLUMN_TRUNC},
    END,
};
const struct columns result_columns = {"results", "id", result_list};

static const struct column change_list[] = {
    {"CHANGE", "change", COLUMN_TEXT, 0},
    {"SECTION", "section", COLUMN_TEXT, 0},
    {"NAME", "name", COLUMN_TEXT, 0},
    {"TEXT", "text", COLUMN_TEXT, 0},
    END,
};
const struct columns change_columns = {"changes", "name", change_list};
