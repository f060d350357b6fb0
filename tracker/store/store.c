/*
 * The store as a whole: opening and closing it, the lock that keeps a second broker out, errors,
 * transactions and the little layer over prepared statements that every other file here uses. What
 * the rows mean is in users.c, targets.c, grants.c and history.c.
 */
#include "tracker/store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

static const char *const statement_texts[STATEMENT_COUNT] = {
#define X(id, sql) [id] = sql,
    STATEMENTS(X)
#undef X
};

/* ---- errors ---- */

int store_fail(struct store *s, int code, const char *fmt, ...)
{
    char raw[sizeof(s->error)];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(raw, sizeof(raw), fmt, args);
    va_end(args);
    (void)text_escape(s->error, sizeof(s->error), raw, strlen(raw));
    return code;
}

const char *store_error(const struct store *s)
{
    return s->error;
}

/* The first row that fits wins: extended codes stand before the primary ones. */
static const struct {
    int sql_code;
    bool is_primary;
    int code;
    const char *sentence;
} sql_errors[] = {
    {SQLITE_CONSTRAINT_UNIQUE, false, ERR_EXISTS, "there is one already"},
    {SQLITE_CONSTRAINT_PRIMARYKEY, false, ERR_EXISTS, "there is one already"},
    {SQLITE_CONSTRAINT_FOREIGNKEY, false, ERR_NOT_FOUND, "what it refers to does not exist"},
    {SQLITE_CONSTRAINT, true, ERR_INVALID, "the database refused the value"},
    {SQLITE_TOOBIG, true, ERR_INVALID, "the value is too long"},
    {SQLITE_MISMATCH, true, ERR_INVALID, "the database refused the value"},
    {SQLITE_BUSY, true, ERR_BUSY, "another process holds the database; try again"},
    {SQLITE_LOCKED, true, ERR_BUSY, "another process holds the database; try again"},
    {SQLITE_READONLY, true, ERR_READ_ONLY,
     "the database is read-only: look at its permissions and its file system"},
    {SQLITE_FULL, true, ERR_FULL, "the disk that holds the database is full: free some space"},
    {SQLITE_CORRUPT, true, ERR_CORRUPT, "the database is damaged: restore a backup"},
    {SQLITE_NOTADB, true, ERR_CORRUPT, "the database is damaged: restore a backup"},
    {SQLITE_NOMEM, true, ERR_MEMORY, "out of memory"},
};

static size_t sql_error_row(int sql_code)
{
    size_t count = sizeof(sql_errors) / sizeof(sql_errors[0]);

    for (size_t i = 0; i < count; i++) {
        if (sql_errors[i].sql_code == (sql_errors[i].is_primary ? sql_code & 0xff : sql_code))
            return i;
    }
    return count;
}

int store_code_of(int sql_code)
{
    size_t row = sql_error_row(sql_code);

    return row < sizeof(sql_errors) / sizeof(sql_errors[0]) ? sql_errors[row].code : ERR_SYSTEM;
}

int store_fail_sql(struct store *s, int sql_code)
{
    size_t row = sql_error_row(sql_code);

    if (row < sizeof(sql_errors) / sizeof(sql_errors[0]))
        return store_fail(s, sql_errors[row].code, "%s", sql_errors[row].sentence);
    return store_fail(s, ERR_SYSTEM, "the database %s failed: %s (%d)", s->path,
                      sqlite3_errmsg(s->db), sql_code);
}

/* ---- queries ---- */

struct query query_start(struct store *s, enum statement id)
{
    struct query q = {.store = s, .stmt = s->statements[id], .sql_code = SQLITE_OK};

    return q;
}

static void query_note(struct query *q, int sql_code)
{
    if (q->sql_code == SQLITE_OK)
        q->sql_code = sql_code;
}

void query_bytes(struct query *q, int param, const void *data, size_t len)
{
    /* A NULL pointer would bind NULL. */
    query_note(q, sqlite3_bind_blob64(q->stmt, param, data ? data : "", len, SQLITE_STATIC));
}

void query_text(struct query *q, int param, const char *text)
{
    query_note(q,
               sqlite3_bind_text64(q->stmt, param, text, strlen(text), SQLITE_STATIC, SQLITE_UTF8));
}

void query_int(struct query *q, int param, int64_t value)
{
    query_note(q, sqlite3_bind_int64(q->stmt, param, value));
}

void query_null(struct query *q, int param)
{
    query_note(q, sqlite3_bind_null(q->stmt, param));
}

void query_end(struct query *q)
{
    (void)sqlite3_reset(q->stmt);
    (void)sqlite3_clear_bindings(q->stmt); /* they are borrowed */
}

int query_next(struct query *q)
{
    int rc = q->sql_code == SQLITE_OK ? sqlite3_step(q->stmt) : q->sql_code;

    if (rc == SQLITE_ROW)
        return 1;
    query_end(q);
    return rc == SQLITE_DONE ? 0 : store_fail_sql(q->store, rc);
}

int query_run(struct query *q, int64_t *changes)
{
    int r;

    while ((r = query_next(q)) == 1)
        continue;
    if (changes)
        *changes = r == 0 ? sqlite3_changes64(q->store->db) : 0;
    return r;
}

void row_text(const struct query *q, int column, char *dst, size_t dst_len)
{
    const char *text = (const char *)sqlite3_column_text(q->stmt, column);

    (void)text_copy(dst, dst_len, text ? text : "");
}

int64_t row_int(const struct query *q, int column)
{
    return sqlite3_column_int64(q->stmt, column);
}

uint64_t row_u64(const struct query *q, int column)
{
    int64_t value = sqlite3_column_int64(q->stmt, column);

    return value > 0 ? (uint64_t)value : 0;
}

bool row_bytes(const struct query *q, int column, void *dst, size_t max, size_t *len)
{
    const void *data = sqlite3_column_blob(q->stmt, column);
    size_t n = (size_t)sqlite3_column_bytes(q->stmt, column);

    *len = 0;
    if (n > max)
        return false;
    if (n > 0 && data)
        memcpy(dst, data, n);
    *len = data ? n : 0;
    return true;
}

/* ---- transactions ---- */

int store_begin(struct store *s)
{
    struct query q = query_start(s, SQL_BEGIN);

    return query_run(&q, NULL);
}

int store_finish(struct store *s, int r)
{
    struct query q = query_start(s, SQL_COMMIT);

    if (r == 0)
        r = query_run(&q, NULL);
    /* A full disk or an I/O error has rolled back already. */
    if (r && !sqlite3_get_autocommit(s->db)) {
        (void)sqlite3_step(s->statements[SQL_ROLLBACK]);
        (void)sqlite3_reset(s->statements[SQL_ROLLBACK]);
    }
    return r;
}

int store_policy_text(struct store *s, const char *text, char out[STORE_POLICY_TEXT_MAX])
{
    struct policy_overlay overlay = {.set = 0};
    char err[512] = "";
    struct buffer canonical;
    int r = policy_overlay_parse(&overlay, text, err, sizeof(err));

    if (r)
        return store_fail(s, ERR_INVALID, "%s", err);
    buffer_init(&canonical, STORE_POLICY_TEXT_MAX);
    policy_overlay_text(&overlay, &canonical);
    if (canonical.failed ||
        !text_copy(out, STORE_POLICY_TEXT_MAX, canonical.len ? buffer_cstr(&canonical) : ""))
        r = store_fail(s, ERR_INVALID, "the policy is longer than %d bytes", STORE_POLICY_TEXT_MAX);
    buffer_finish(&canonical);
    return r;
}

int store_policy_apply(struct store *s, const char *text, const char *whose, struct policy *policy)
{
    struct policy_overlay overlay = {.set = 0};
    char err[512] = "";

    if (policy_overlay_parse(&overlay, text, err, sizeof(err)))
        return store_fail(s, ERR_CORRUPT, "the policy of the %s cannot be read (%s); set it again",
                          whose, err);
    policy_apply(policy, &overlay);
    return 0;
}

/* ---- opening ---- */

static int refuse_data_dir(struct store *s, int err_no)
{
    return store_fail(s, ERR_SYSTEM,
                      "data_dir %s is not writable for uid %u (%s): give it to the user that "
                      "sallyportd runs as, or set another data_dir",
                      s->data_dir, (unsigned)geteuid(), strerror(err_no));
}

static int refuse_second(struct store *s, int fd)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    uint64_t pid;

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (!text_parse_u64(text, &pid))
        return store_fail(s, ERR_BUSY,
                          "another sallyportd uses this data_dir (%s): stop it, or set another "
                          "data_dir",
                          s->data_dir);
    return store_fail(s, ERR_BUSY,
                      "another sallyportd (pid %llu) uses this data_dir (%s): stop it, or set "
                      "another data_dir",
                      (unsigned long long)pid, s->data_dir);
}

/* The kernel gives the lock back when the process dies, however it dies. */
static int take_lock(struct store *s)
{
    char path[STORE_PATH_MAX], pid[32];
    int fd, n;

    if (mkdir(s->data_dir, 0700) != 0 && errno != EEXIST)
        return store_fail(s, ERR_SYSTEM, "data_dir %s cannot be made: %s", s->data_dir,
                          strerror(errno));
    (void)snprintf(path, sizeof(path), "%s/lock", s->data_dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return refuse_data_dir(s, errno);
    if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        int r = errno == EWOULDBLOCK ? refuse_second(s, fd) : refuse_data_dir(s, errno);

        (void)close(fd);
        return r;
    }
    s->lock_fd = fd;
    /* The pid is for people; the lock itself is what counts, so a full disk does not matter. */
    n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, pid, (size_t)n, 0) != n)
        log_warn("store: the pid could not be written to %s: %s", path, strerror(errno));
    /* An existing lock file does not prove that new files (the WAL) can be made beside it. */
    if (faccessat(AT_FDCWD, s->data_dir, W_OK | X_OK, AT_EACCESS) != 0)
        return refuse_data_dir(s, errno);
    return 0;
}

/* Secrets and hashes are in it: nobody else reads it, whatever made it so. */
static void tighten_mode(const struct store *s)
{
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    char path[STORE_PATH_MAX + 8];
    struct stat st;

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", s->path, suffixes[i]);
        if (stat(path, &st) != 0 || (st.st_mode & 077) == 0)
            continue;
        log_warn("store: %s had mode %04o, which lets others in; it is 0600 now", path,
                 (unsigned)(st.st_mode & 07777));
        if (chmod(path, 0600) != 0)
            log_warn("store: %s: %s", path, strerror(errno));
    }
}

/*
 * While another process holds the lock; nonzero tries again. The loop waits here, so once it has
 * waited in vain, the next ones fail at once for a while: a lock that is held for a minute then
 * takes a fifth of the loop's time at most, however many sessions want to be written.
 */
static int on_busy(void *arg, int tries)
{
    const struct timespec pause = {0, 5000000};
    struct store *s = arg;
    int64_t now_ms = clock_mono_ms();

    if (tries == 0)
        s->busy_since_ms = now_ms;
    if (s->never_waits || (now_ms < s->impatient_until_ms && !s->always_waits))
        return 0;
    if (now_ms - s->busy_since_ms >= STORE_BUSY_MS) {
        s->impatient_until_ms = now_ms + STORE_IMPATIENT_MS;
        return 0;
    }
    nanosleep(&pause, NULL);
    return 1;
}

static int prepare_all(struct store *s)
{
    for (size_t i = 0; i < STATEMENT_COUNT; i++) {
        int rc = sqlite3_prepare_v3(s->db, statement_texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->statements[i], NULL);

        if (rc != SQLITE_OK)
            return store_fail(s, store_code_of(rc),
                              "the database %s does not fit this Sallyport: %s", s->path,
                              sqlite3_errmsg(s->db));
    }
    return 0;
}

static int open_database(struct store *s, bool is_new)
{
    char err[sizeof(s->error)] = "";
    int r = 0;

    if (is_new)
        r = schema_create(s->path, err, sizeof(err));
    else
        tighten_mode(s);
    if (r == 0)
        r = schema_open(s->path, &s->db, err, sizeof(err));
    if (r == 0)
        r = schema_migrate(s->db, s->path, schema_steps, schema_step_count, err, sizeof(err));
    if (r)
        return store_fail(s, r, "%s", err);
    sqlite3_busy_handler(s->db, on_busy, s);
    return prepare_all(s);
}

static enum store_open_result open_all(struct store *s, const char *data_dir, const char *key_file)
{
    char err[sizeof(s->error)] = "";
    struct schema_look look;
    enum store_open_result result;

    if (!text_copy(s->data_dir, sizeof(s->data_dir), data_dir)) {
        (void)store_fail(s, ERR_INVALID, "the path of data_dir is too long");
        return STORE_OPEN_FAILED;
    }
    (void)snprintf(s->path, sizeof(s->path), "%s/sallyport.db", s->data_dir);
    if (take_lock(s))
        return STORE_OPEN_FAILED;
    result = schema_look(s->path, &look, err, sizeof(err));
    if (result != STORE_OPEN_OK) {
        (void)store_fail(s, ERR_CORRUPT, "%s", err);
        return result;
    }
    if (keyring_open(&s->keyring, key_file, look.secret_count == 0, err, sizeof(err))) {
        (void)store_fail(s, ERR_CRYPTO, "%s", err);
        return STORE_OPEN_FAILED;
    }
    if (open_database(s, look.is_new))
        return STORE_OPEN_FAILED;
    secret_warn_missing_keys(s);
    return STORE_OPEN_OK;
}

enum store_open_result store_open(struct store **out, const char *data_dir, const char *key_file,
                                  char *err, size_t err_len)
{
    struct store *s = calloc(1, sizeof(*s));
    enum store_open_result result = STORE_OPEN_FAILED;

    *out = NULL;
    if (!s) {
        (void)snprintf(err, err_len, "%s", error_text(ERR_MEMORY));
        return result;
    }
    s->lock_fd = -1;
    queue_init(&s->queue);
    result = open_all(s, data_dir, key_file);
    if (result == STORE_OPEN_OK) {
        s->error[0] = '\0';
        *out = s;
    } else {
        (void)snprintf(err, err_len, "%s", s->error);
        store_close(s);
    }
    return result;
}

void store_close(struct store *s)
{
    size_t left;

    if (!s)
        return;
    if (s->db) {
        left = queue_flush(s, true);
        if (left > 0)
            log_error("store: closed with history unwritten rows=%zu reason=\"%s\"", left,
                      s->error);
    }
    for (size_t i = 0; i < STATEMENT_COUNT; i++)
        (void)sqlite3_finalize(s->statements[i]);
    (void)sqlite3_close(s->db);
    queue_finish(&s->queue);
    keyring_wipe(&s->keyring);
    if (s->lock_fd >= 0)
        (void)close(s->lock_fd); /* last: the database is closed for the next one */
    free(s);
}

int store_backup(struct store *s, const char *path)
{
    char err[sizeof(s->error)] = "";
    int r;

    (void)queue_flush(s, true); /* what stays queued belongs to a later backup */
    r = database_copy(s->db, path, false, err, sizeof(err));
    return r ? store_fail(s, r, "%s", err) : 0;
}

size_t store_flush(struct store *s)
{
    return queue_flush(s, false);
}

size_t store_queue_len(const struct store *s, uint64_t *lost)
{
    if (lost)
        *lost = s->queue.lost;
    return s->queue.count;
}
