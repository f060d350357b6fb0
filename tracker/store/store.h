/*
 * The store: users, roles, targets, grants, their secrets, sessions and events, behind one narrow
 * interface. SQLite (WAL) today; nothing outside tracker/store*.c knows SQL, so that a second
 * implementation passes the same test suite.
 *
 * Reads are immediate. Writes of history (session updates and ends, events) are queued and written
 * in one transaction by store_flush(), which the loop calls once a turn; a database that is locked
 * by another process keeps them queued (bounded) and store_flush() tries again later. Every other
 * write is immediate and returns ERR_BUSY when the database stays locked for 250 ms; while it goes
 * on being locked, only one write a second waits, so that the loop is never held up by many.
 *
 * All calls are made from the broker's loop thread. Rows are copied out; nothing is borrowed.
 * Errors: ERR_BUSY, ERR_NOT_FOUND, ERR_EXISTS, ERR_INVALID, ERR_READ_ONLY, ERR_CORRUPT, ERR_FULL,
 * ERR_SYSTEM; store_error() has a sentence for the operator about the last one.
 */
#ifndef TRACKER_STORE_H
#define TRACKER_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/link.h>
#include <sallyport/policy.h>
#include <sallyport/secret.h>
#include <sallyport/session.h>

struct store;

#define STORE_SCHEMA_VERSION  3
#define STORE_POLICY_TEXT_MAX 1024
#define STORE_DETAIL_MAX      2048
#define STORE_HASH_MAX        384 /* CRYPT_OUTPUT_SIZE */
#define STORE_PRINCIPALS_MAX  512
#define STORE_RECOVERY_COUNT  10
#define STORE_RECOVERY_HASH   32

enum store_open_result {
    STORE_OPEN_OK,
    STORE_OPEN_NEWER,   /* schema of a newer Sallyport: refused, untouched */
    STORE_OPEN_FOREIGN, /* not a Sallyport database: refused, untouched */
    STORE_OPEN_CORRUPT, /* refused, untouched */
    STORE_OPEN_FAILED   /* cannot be opened or written; see err */
};

/*
 * Open data_dir/sallyport.db, creating or migrating it (a copy `sallyport.db.before-vN` is made
 * first). key_file holds the master keys for secrets, one per line, `ID:BASE64(32 bytes)`, newest
 * last; created 0600 when absent and the database holds no secret yet. Blocks; start-up only.
 * On failure *out is NULL and err says what is wrong and what to do.
 */
enum store_open_result store_open(struct store **out, const char *data_dir, const char *key_file,
                                  char *err, size_t err_len);
/* Flushes, closes, frees. NULL is fine. */
void store_close(struct store *s);
const char *store_error(const struct store *s);

/* Write what is queued. Returns the number still queued (0: all written). Cheap when empty. */
size_t store_flush(struct store *s);
/* History writes waiting, and writes lost because the queue (10000) was full. */
size_t store_queue_len(const struct store *s, uint64_t *lost);

/* A consistent copy while running, at `path`, which must not exist. Blocks for its length. */
MUST_CHECK int store_backup(struct store *s, const char *path);

/* Add a new master key and encrypt every secret under it again, in one transaction. */
MUST_CHECK int store_rotate_key(struct store *s, uint32_t *rewritten);

/* ---- users ---- */

struct store_user {
    uint64_t id;
    char name[NAME_MAX_LEN + 1];
    char role[NAME_MAX_LEN + 1];
    bool is_locked;
    bool has_password;
    int64_t local_uid; /* -1: none */
    uint32_t key_count;
    int64_t created_wall_us;
    int64_t last_login_wall_us;                 /* 0: never */
    char second_factor[8];                      /* "no", "totp"; "" as the role says */
    char auth_source[8];                        /* "local" or "pam": who checks the password */
    char cert_principals[STORE_PRINCIPALS_MAX]; /* "a,b" instead of the name; "" the name */
    int64_t totp_wall_us;                       /* enrolled then; 0: has no second factor */
    uint32_t recovery_count;                    /* codes that are left */
    bool has_nla;                               /* may log in by NLA, once there is an NT hash */
    bool has_nt_hash;
};

/* Called for each row; return false to stop. Nothing of the store may be called inside. */
typedef bool (*store_user_fn)(const struct store_user *u, void *arg);

MUST_CHECK int store_user_add(struct store *s, const char *name, const char *role);
MUST_CHECK int store_user_get(struct store *s, const char *name, struct store_user *out);
MUST_CHECK int store_user_by_uid(struct store *s, int64_t uid, struct store_user *out);
MUST_CHECK int store_users(struct store *s, store_user_fn fn, void *arg);
MUST_CHECK int store_user_remove(struct store *s, const char *name); /* its keys and grants too */
MUST_CHECK int store_user_set_role(struct store *s, const char *name, const char *role);
MUST_CHECK int store_user_set_locked(struct store *s, const char *name, bool locked);
MUST_CHECK int store_user_set_uid(struct store *s, const char *name, int64_t uid);
MUST_CHECK int store_user_set_hash(struct store *s, const char *name, const char *hash);
/* The yescrypt hash; ERR_NOT_FOUND for an unknown user or one without a password. */
MUST_CHECK int store_user_hash(struct store *s, const char *name, char hash[STORE_HASH_MAX]);
void store_user_logged_in(struct store *s, const char *name, int64_t wall_us); /* queued */

/* "no", "totp", or "" for as the role says. */
MUST_CHECK int store_user_set_second_factor(struct store *s, const char *name, const char *factor);
MUST_CHECK int store_user_set_auth_source(struct store *s, const char *name, const char *source);
/* Words without blanks and control characters, with commas between them; "" for the user's name. */
bool store_is_principals(const char *list);
MUST_CHECK int store_user_set_principals(struct store *s, const char *name, const char *list);

/* ---- NLA at the RDP door: the NT hash is encrypted, as it is as good as the password ---- */

#define STORE_NT_HASH_LEN 16

/* Off forgets the hash. On has none until store_user_set_nt_hash(): "pending". */
MUST_CHECK int store_user_set_nla(struct store *s, const char *name, bool is_on);
/* After store_user_set_hash(), which forgets the old one. ERR_INVALID when NLA is off for him. */
MUST_CHECK int store_user_set_nt_hash(struct store *s, const char *name,
                                      const uint8_t hash[STORE_NT_HASH_LEN]);
/* ERR_NOT_FOUND for an unknown user and one without; that costs the same. */
MUST_CHECK int store_user_nt_hash(struct store *s, const char *name,
                                  uint8_t hash[STORE_NT_HASH_LEN]);
/* What is known of a name, or of all that begin with it. */
enum store_nla { STORE_NLA_UNKNOWN, STORE_NLA_NO, STORE_NLA_YES };
enum store_nla store_nla_hint(struct store *s, const char *name, bool is_prefix);

/* ---- second factors: the key is encrypted, recovery codes are hashes (tracker/factor.h) ---- */

/* Hashes of all recovery codes of a user. */
struct store_recovery {
    uint8_t hashes[STORE_RECOVERY_COUNT][STORE_RECOVERY_HASH];
};

struct store_factor {
    bool is_required; /* by the user's own setting, else by the role's */
    bool is_enrolled;
};
MUST_CHECK int store_factor_get(struct store *s, const char *user, struct store_factor *out);
/* A key that was shown and is not confirmed yet; each replaces the one before. */
MUST_CHECK int store_totp_prepare(struct store *s, const char *user, const struct secret *key);
MUST_CHECK int store_totp_prepared(struct store *s, const char *user, struct secret *key);
/* From now on this is the second factor; step is used. Replaces the recovery codes too. */
MUST_CHECK int store_totp_enable(struct store *s, const char *user, const struct secret *key,
                                 uint64_t step, const struct store_recovery *codes);
MUST_CHECK int store_totp_disable(struct store *s, const char *user);
MUST_CHECK int store_totp_key(struct store *s, const char *user, struct secret *key);
/* Use a time step, once: ERR_EXISTS when it or a later one was used. */
MUST_CHECK int store_totp_use(struct store *s, const char *user, uint64_t step);
MUST_CHECK int store_recovery_set(struct store *s, const char *user,
                                  const struct store_recovery *codes);
/* Use a recovery code, once: ERR_NOT_FOUND when it is none. */
MUST_CHECK int store_recovery_use(struct store *s, const char *user,
                                  const uint8_t hash[STORE_RECOVERY_HASH]);

struct store_key {
    uint64_t id;
    char user[NAME_MAX_LEN + 1];
    char type[64];
    char fingerprint[64]; /* SHA256:base64 without padding, as ssh-keygen -l */
    char comment[128];
    int64_t added_wall_us;
    uint16_t blob_len;
    uint8_t blob[LINK_KEY_MAX]; /* RFC 4253 §6.6 format; what a dump and `user key ls` print */
};
typedef bool (*store_key_fn)(const struct store_key *k, void *arg);

MUST_CHECK int store_key_add(struct store *s, const char *user, const char *type,
                             const uint8_t *blob, size_t blob_len, const char *fingerprint,
                             const char *comment);
MUST_CHECK int store_keys(struct store *s, const char *user, store_key_fn fn, void *arg);
/* id or fingerprint */
MUST_CHECK int store_key_remove(struct store *s, const char *user, const char *which);
/* 0 when this blob is registered for this user, and the user is not locked. Constant in what it
 * tells: ERR_NOT_FOUND for unknown users, locked users and unknown keys alike. */
MUST_CHECK int store_key_check(struct store *s, const char *user, const uint8_t *blob, size_t len);

/* ---- roles (admin, user and auditor always exist) ---- */

struct store_role {
    char name[NAME_MAX_LEN + 1];
    char policy[STORE_POLICY_TEXT_MAX];
    bool is_builtin;
    char second_factor[8]; /* "no", "totp"; "" is no */
};
typedef bool (*store_role_fn)(const struct store_role *r, void *arg);
MUST_CHECK int store_role_add(struct store *s, const char *name);
MUST_CHECK int store_role_get(struct store *s, const char *name, struct store_role *out);
MUST_CHECK int store_roles(struct store *s, store_role_fn fn, void *arg);
MUST_CHECK int store_role_set_policy(struct store *s, const char *name, const char *policy);
MUST_CHECK int store_role_set_second_factor(struct store *s, const char *name, const char *factor);
MUST_CHECK int store_role_remove(struct store *s, const char *name); /* ERR_BUSY while in use */

/* ---- targets ---- */

struct store_target {
    uint64_t id;
    char name[NAME_MAX_LEN + 1];
    enum protocol protocol;
    char address[SESSION_ADDRESS_MAX]; /* HOST:PORT, [V6]:PORT */
    char account[ACCOUNT_MAX_LEN + 1]; /* default account; "" means the user's own name */
    enum link_target_auth auth;
    bool has_secret;
    bool accept_new;
    char host_key_type[64]; /* "" when none is pinned */
    uint8_t host_key[LINK_KEY_MAX];
    size_t host_key_len;
    char host_key_fingerprint[64];
    char policy[STORE_POLICY_TEXT_MAX];
    int64_t created_wall_us;
    char via[NAME_MAX_LEN + 1];         /* the target that is logged in to first; "" none */
    char certificate[LINK_KEY_MAX + 1]; /* of the private key, "TYPE BASE64"; "" none */
};
typedef bool (*store_target_fn)(const struct store_target *t, void *arg);

/* id, has_secret and created are ignored. */
MUST_CHECK int store_target_add(struct store *s, const struct store_target *t,
                                const struct secret *secret);
/* Rewrites every column but name and id; secret NULL keeps the stored one, an empty one removes. */
MUST_CHECK int store_target_set(struct store *s, const struct store_target *t,
                                const struct secret *secret);
MUST_CHECK int store_target_get(struct store *s, const char *name, struct store_target *out);
MUST_CHECK int store_targets(struct store *s, store_target_fn fn, void *arg);
/* Those with this name or this address (HOST:PORT as it is stored), in whatever case; 64 at most.
 */
MUST_CHECK int store_targets_called(struct store *s, const char *name, const char *address,
                                    store_target_fn fn, void *arg);
/* ERR_BUSY while it is on the way to another one. */
MUST_CHECK int store_target_remove(struct store *s, const char *name);
/* Decrypts; the caller wipes. ERR_CRYPTO when the key is missing or the row was moved. */
MUST_CHECK int store_target_secret(struct store *s, const char *name, struct secret *out);
/* Pin only when none is pinned and accept_new is set; ERR_EXISTS when another key is pinned. */
MUST_CHECK int store_target_pin(struct store *s, const char *name, const char *type,
                                const uint8_t *blob, size_t len, const char *fingerprint);

/* ---- grants ---- */

struct store_grant {
    uint64_t id;
    char subject[NAME_MAX_LEN + 2];    /* user or "@role" */
    char target[NAME_MAX_LEN + 1];     /* or "*" */
    char account[ACCOUNT_MAX_LEN + 1]; /* "" the target's default, "*" any */
    char policy[STORE_POLICY_TEXT_MAX];
    int64_t created_wall_us;
};
typedef bool (*store_grant_fn)(const struct store_grant *g, void *arg);
MUST_CHECK int store_grant_add(struct store *s, const struct store_grant *g, uint64_t *id);
MUST_CHECK int store_grants(struct store *s, store_grant_fn fn, void *arg);
MUST_CHECK int store_grant_set_policy(struct store *s, uint64_t id, const char *policy);
MUST_CHECK int store_grant_remove(struct store *s, uint64_t id);

/*
 * What a user may do at a target: the target row, the account that results and the policy overlays
 * (role, target, grant) laid over *policy, narrowest last. account "" asks for the default: the
 * grant's, else the target's, else the user's name. Among several fitting grants: a user's own
 * before a role's, a named target before "*", a named account before "*", then the newest.
 * ERR_NOT_FOUND for unknown, ERR_DENIED for forbidden: callers tell users the same for both.
 */
MUST_CHECK int store_resolve(struct store *s, const char *user, const char *account,
                             const char *target, enum protocol protocol, struct policy *policy,
                             struct store_target *out, char account_out[ACCOUNT_MAX_LEN + 1]);
/* Every target of that protocol the user may reach, by name; account is the default one. */
typedef bool (*store_reach_fn)(const struct link_target_row *row, void *arg);
MUST_CHECK int store_reachable(struct store *s, const char *user, enum protocol protocol,
                               store_reach_fn fn, void *arg);

/* ---- sessions ---- */

struct store_session {
    struct session_info info;
    uint64_t recordings; /* how many were opened */
    bool is_open;        /* no end was written yet */
};

/* Immediate: a session does not begin without its row. Assigns info->id, never reused. */
MUST_CHECK int store_session_open(struct store *s, struct session_info *info);
/* Queued: state, totals, channels, device, recording of a live one. */
void store_session_update(struct store *s, const struct session_info *info);
/* Queued: the end. A second end of the same row is ignored unless it was broker-lost. */
void store_session_end(struct store *s, const struct session_info *info);
/* Queued: open a broker-lost row again (its relay turned up). */
void store_session_reopen(struct store *s, uint64_t id);
MUST_CHECK int store_session_get(struct store *s, uint64_t id, struct store_session *out);

struct store_session_filter {
    char user[NAME_MAX_LEN + 1]; /* "" any; likewise below */
    char target[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1];
    int protocol;                         /* -1 any */
    int64_t since_wall_us, until_wall_us; /* of the start; 0: open */
    char search[128]; /* substring of user, account, target, address, device.. */
    bool only_open;
    uint64_t before_id; /* only smaller ids, to page on; 0: all */
    uint32_t limit;     /* 0: none; newest (highest id) first */
};
typedef bool (*store_session_fn)(const struct store_session *row, void *arg);
MUST_CHECK int store_sessions(struct store *s, const struct store_session_filter *f,
                              store_session_fn fn, void *arg);
/* Sessions that ended since wall_us. */
MUST_CHECK int store_ended_since(struct store *s, int64_t wall_us, uint64_t *count);

/* ---- recordings (one row a recording) ---- */

struct store_recording {
    uint64_t session_id;
    uint32_t channel;
    char path[256]; /* relative to the recording directory */
    int64_t started_wall_us;
    uint64_t frames;
    uint64_t file_len;
    uint8_t chain[32]; /* head of the chain after `frames` */
    enum recording_state state;
    bool is_closed;
};
typedef bool (*store_recording_fn)(const struct store_recording *r, void *arg);
MUST_CHECK int store_recording_open(struct store *s, const struct store_recording *r);
void store_recording_update(struct store *s, const struct store_recording *r); /* queued */
/* session_id 0: all; newest first */
MUST_CHECK int store_recordings(struct store *s, uint64_t session_id, store_recording_fn fn,
                                void *arg);

/* ---- events ---- */

struct store_event {
    uint64_t id;
    int64_t at_wall_us;
    char kind[32]; /* "login-failed", "session-open", "session-end", ... */
    char user[NAME_MAX_LEN + 1];
    char source[80];     /* client address, or "local uid N" */
    uint64_t session_id; /* 0: none */
    char text[512];
    char detail[STORE_DETAIL_MAX]; /* the same as a JSON object, for programs; "" for none */
};
typedef bool (*store_event_fn)(const struct store_event *e, void *arg);
void store_event_add(struct store *s, const struct store_event *e); /* queued; id is ignored */
/* Oldest first; after_id for following. */
MUST_CHECK int store_events(struct store *s, int64_t since_wall_us, uint64_t after_id,
                            uint32_t limit, store_event_fn fn, void *arg);
/* The same of one session, oldest first. */
MUST_CHECK int store_events_of(struct store *s, uint64_t session_id, uint64_t after_id,
                               uint32_t limit, store_event_fn fn, void *arg);

#endif
