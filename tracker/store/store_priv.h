/*
 * What the files of the store share: struct store, queries with a sticky error, transactions, the
 * master keys, the history queue. Nobody outside tracker/store includes this, but for the tests of
 * migrations.
 */
#ifndef STORE_PRIV_H
#define STORE_PRIV_H

#include <limits.h>
#include <sqlite3.h>
#include <sys/queue.h>

#include <sallyport/log.h>

#include "tracker/store/statements.h"
#include "tracker/store/store.h"

#define STORE_BUSY_MS        250
#define STORE_IMPATIENT_MS   1000 /* after waiting in vain, nothing waits for so long */
#define STORE_QUEUE_MAX      10000
#define STORE_QUEUE_BUCKETS  1024
#define STORE_RETRY_MS       500        /* after a full disk or an I/O error */
#define STORE_APPLICATION_ID 0x53414C50 /* "SALP" */
#define STORE_PATH_MAX       (PATH_MAX + 64)

#define MASTER_KEY_LEN  32
#define MASTER_KEYS_MAX 64

/* ---- master keys (keyring.c) ---- */

struct master_key {
    uint32_t id;
    uint8_t key[MASTER_KEY_LEN];
};

/* Keys of the key file in its order: the last one is the newest, and encrypts. */
struct keyring {
    char path[PATH_MAX];
    size_t count;
    struct master_key keys[MASTER_KEYS_MAX];
};

/* Read the key file, or make it with one new key when it is absent and may_create. On error a
 * sentence in err. */
MUST_CHECK int keyring_open(struct keyring *ring, const char *path, bool may_create, char *err,
                            size_t err_len);
/* Add a new key, with an id above `above` and all others, to the ring in memory; take it back. */
MUST_CHECK int keyring_grow(struct keyring *ring, uint32_t above, char *err, size_t err_len);
void keyring_shrink(struct keyring *ring);
/* Write the ring to its file: atomic, durable. */
MUST_CHECK int keyring_save(const struct keyring *ring, char *err, size_t err_len);
const struct master_key *keyring_find(const struct keyring *ring, uint32_t id); /* or NULL */
const struct master_key *keyring_newest(const struct keyring *ring);
/* HKDF-SHA256 of a master key for one purpose. */
MUST_CHECK int keyring_derive(const struct master_key *master, const char *purpose,
                              uint8_t key[MASTER_KEY_LEN]);
void keyring_wipe(struct keyring *ring);

/* ---- the history queue (queue.c) ---- */

enum history_kind {
    HISTORY_SESSION_UPDATE,
    HISTORY_SESSION_END,
    HISTORY_SESSION_REOPEN, /* uses session.id only */
    HISTORY_RECORDING,
    HISTORY_LOGIN,
    HISTORY_EVENT
};

struct history_login {
    char name[NAME_MAX_LEN + 1];
    int64_t wall_us;
};

struct history_entry {
    TAILQ_ENTRY(history_entry) order;
    struct history_entry *bucket_next; /* same bucket, older */
    enum history_kind kind;
    bool is_refused; /* the database will never take it; dropped after the commit */
    union {
        struct session_info session;
        struct store_recording recording;
        struct history_login login;
        struct store_event event;
    };
};

struct history_queue {
    TAILQ_HEAD(history_list, history_entry) entries; /* oldest first */
    struct history_entry *buckets[STORE_QUEUE_BUCKETS];
    size_t count;
    uint64_t lost;
    int64_t retry_mono_ms; /* no attempt before this */
    struct log_limit log_limit;
};

void queue_init(struct history_queue *queue);
void queue_finish(struct history_queue *queue);
/* Queue a copy; merged with what is queued about the same thing where the result is the same. */
void queue_push(struct store *s, const struct history_entry *entry);
/* Write all in one transaction; is_last waits for a lock and ignores the pause after an error. */
size_t queue_flush(struct store *s, bool is_last);
/* Lay what is still queued about this session over a row that was read. */
void queue_overlay(const struct store *s, struct store_session *row);

/* ---- the store ---- */

struct store {
    sqlite3 *db;
    sqlite3_stmt *statements[STATEMENT_COUNT];
    int lock_fd; /* data_dir/lock, held for life */
    char data_dir[PATH_MAX];
    char path[STORE_PATH_MAX]; /* of the database */
    char error[1024];
    struct keyring keyring;
    struct history_queue queue;
    int64_t busy_since_ms; /* this wait for a lock */
    int64_t impatient_until_ms;
    bool never_waits;  /* the queue: it comes back */
    bool always_waits; /* a backup, the end */
};

/* Set the sentence of the last error (escaped: names may hold anything) and return `code`. */
int store_fail(struct store *s, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* The same for what SQLite returned: maps the code and finds a sentence. */
int store_fail_sql(struct store *s, int sql_code);
int store_code_of(int sql_code);

MUST_CHECK int store_begin(struct store *s); /* BEGIN IMMEDIATE */
/* Ends the transaction: COMMIT when r is 0, ROLLBACK otherwise; returns the first error. */
MUST_CHECK int store_finish(struct store *s, int r);

/*
 * A prepared statement in use. Errors stick: bind without checking, then run or step, which
 * returns the first error. Texts and blobs are borrowed until query_end().
 */
struct query {
    struct store *store; /* not owned */
    sqlite3_stmt *stmt;  /* not owned */
    int sql_code;        /* first failure of a bind */
};

struct query query_start(struct store *s, enum statement id);
void query_text(struct query *q, int param, const char *text);
void query_bytes(struct query *q, int param, const void *data, size_t len);
void query_int(struct query *q, int param, int64_t value);
void query_null(struct query *q, int param);
/* 1: a row is there; 0: no more (ended); negative: error (ended). */
MUST_CHECK int query_next(struct query *q);
/* Run to the end; the number of rows changed goes to *changes (may be NULL). Ends the query. */
MUST_CHECK int query_run(struct query *q, int64_t *changes);
void query_end(struct query *q);

void row_text(const struct query *q, int column, char *dst, size_t dst_len);
int64_t row_int(const struct query *q, int column);
uint64_t row_u64(const struct query *q, int column);
/* False when the column holds more than `max` bytes. */
MUST_CHECK bool row_bytes(const struct query *q, int column, void *dst, size_t max, size_t *len);

/* ---- shared by the parts ---- */

/* 0 and the id of a named row, ERR_NOT_FOUND with a sentence otherwise. */
MUST_CHECK int store_user_id(struct store *s, const char *name, uint64_t *id);
MUST_CHECK int store_target_id(struct store *s, const char *name, uint64_t *id);
/* ERR_INVALID with a sentence when the text is none; the text as the store keeps it. */
MUST_CHECK int store_policy_text(struct store *s, const char *text,
                                 char out[STORE_POLICY_TEXT_MAX]);
/* Lay the policy text of a row over *policy. A row that does not parse is ERR_CORRUPT: whoever
 * asks then denies. */
MUST_CHECK int store_policy_apply(struct store *s, const char *text, const char *whose,
                                  struct policy *policy);

/* Secrets by place (secrets.c); inside the caller's transaction. */
MUST_CHECK int secret_put(struct store *s, const char *table, const char *column, uint64_t row,
                          const struct secret *plain);
MUST_CHECK int secret_get(struct store *s, const char *table, const char *column, uint64_t row,
                          struct secret *plain);
/* What secret_get() costs, where there is none. */
void secret_get_none(struct store *s, const struct secret *plain);
MUST_CHECK int secret_remove(struct store *s, const char *table, const char *column, uint64_t row);
void secret_warn_missing_keys(struct store *s);

/* Writing queued rows (history.c, users.c); return SQLite's idea of an error as ERR_*. */
MUST_CHECK int history_write(struct store *s, const struct history_entry *entry);

/* ---- files (files.c) ---- */

/* fsync the directory that holds path. */
MUST_CHECK int file_sync_dir(const char *path);
/* Copy a live database to `path` (mode 0600, durable, all or nothing). Without `may_replace` an
 * existing file is ERR_EXISTS. */
MUST_CHECK int database_copy(sqlite3 *db, const char *path, bool may_replace, char *err,
                             size_t err_len);

/* ---- the schema (schema.c) ---- */

struct schema_step {
    int version; /* 1, 2, ... without gaps */
    const char *sql;
};

struct schema_look {
    bool is_new; /* nothing there yet */
    uint64_t secret_count;
};

/* Look at the database without changing a byte of it. */
enum store_open_result schema_look(const char *path, struct schema_look *out, char *err,
                                   size_t err_len);
/* Make a new database under a temporary name and rename it: there is never half of one. */
MUST_CHECK int schema_create(const char *path, char *err, size_t err_len);
/* Open read-write with all settings of ours. */
MUST_CHECK int schema_open(const char *path, sqlite3 **db, char *err, size_t err_len);
/* Bring a database of ours to the newest step, each step in a transaction, after a copy. */
MUST_CHECK int schema_migrate(sqlite3 *db, const char *path, const struct schema_step *steps,
                              size_t step_count, char *err, size_t err_len);
extern const struct schema_step schema_steps[];
extern const size_t schema_step_count;

#endif
