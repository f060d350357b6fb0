/*
 * The database file before the store runs: what the schema is, how an old one becomes the newest,
 * how a new one is made, and how a file is judged without touching it. Called by store_open() only,
 * with the lock of data_dir held, so that nobody else changes what is looked at.
 */
#include "tracker/store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE_MAGIC "SQLite format 3" /* and its NUL: 16 bytes */

/*
 * Steps are history: a released one is never edited, a change is a new step. Texts of people and
 * names are TEXT and may hold bytes that are no UTF-8 (they come back as they were). Enums are kept
 * by name, so that lists may grow in the middle.
 */
const struct schema_step schema_steps[] = {
    {1, "PRAGMA application_id = 1396788304;" /* STORE_APPLICATION_ID */
        "CREATE TABLE roles ("
        " name TEXT PRIMARY KEY NOT NULL,"
        " policy TEXT NOT NULL DEFAULT '',"
        " is_builtin INTEGER NOT NULL DEFAULT 0"
        ") STRICT, WITHOUT ROWID;"
        "INSERT INTO roles (name, is_builtin) VALUES ('admin', 1), ('user', 1), ('auditor', 1);"

        "CREATE TABLE users ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " name TEXT NOT NULL UNIQUE,"
        " role TEXT NOT NULL REFERENCES roles (name),"
        " is_locked INTEGER NOT NULL DEFAULT 0,"
        " hash TEXT NOT NULL DEFAULT ''," /* yescrypt; '' none */
        " local_uid INTEGER UNIQUE,"
        " created_wall_us INTEGER NOT NULL,"
        " last_login_wall_us INTEGER NOT NULL DEFAULT 0"
        ") STRICT;"
        "CREATE INDEX users_role ON users (role);"

        "CREATE TABLE user_keys ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,"
        " type TEXT NOT NULL,"
        " blob BLOB NOT NULL,"
        " fingerprint TEXT NOT NULL,"
        " comment TEXT NOT NULL,"
        " added_wall_us INTEGER NOT NULL,"
        " UNIQUE (user_id, blob)"
        ") STRICT;"

        "CREATE TABLE targets ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " name TEXT NOT NULL UNIQUE,"
        " protocol TEXT NOT NULL,"
        " address TEXT NOT NULL,"
        " account TEXT NOT NULL,"
        " auth TEXT NOT NULL,"
        " accept_new INTEGER NOT NULL,"
        " host_key_type TEXT NOT NULL,"
        " host_key BLOB NOT NULL,"
        " host_key_fingerprint TEXT NOT NULL,"
        " policy TEXT NOT NULL,"
        " created_wall_us INTEGER NOT NULL"
        ") STRICT;"

        /* What the place (table, column, row) of a secret is, its tag knows too: see secrets.c. */
        "CREATE TABLE secrets ("
        " table_name TEXT NOT NULL,"
        " column_name TEXT NOT NULL,"
        " row_id INTEGER NOT NULL,"
        " key_id INTEGER NOT NULL,"
        " nonce BLOB NOT NULL,"
        " ciphertext BLOB NOT NULL,"
        " tag BLOB NOT NULL,"
        " PRIMARY KEY (table_name, column_name, row_id)"
        ") STRICT, WITHOUT ROWID;"

        "CREATE TABLE grants ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " user_id INTEGER REFERENCES users (id) ON DELETE CASCADE,"
        " role TEXT REFERENCES roles (name),"
        " target_id INTEGER REFERENCES targets (id) ON DELETE CASCADE," /* NULL: every target */
        " account TEXT NOT NULL,"
        " policy TEXT NOT NULL,"
        " created_wall_us INTEGER NOT NULL,"
        " CHECK ((user_id IS NULL) <> (role IS NULL))"
        ") STRICT;"
        "CREATE UNIQUE INDEX grants_unique ON grants"
        " (coalesce(user_id, 0), coalesce(role, ''), coalesce(target_id, 0), account);"
        "CREATE INDEX grants_user ON grants (user_id);"
        "CREATE INDEX grants_role ON grants (role);"
        "CREATE INDEX grants_target ON grants (target_id);"

        /* History names users and targets by name: it outlives them. */
        "CREATE TABLE sessions ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " protocol TEXT NOT NULL,"
        " user TEXT NOT NULL,"
        " account TEXT NOT NULL,"
        " target TEXT NOT NULL,"
        " address TEXT NOT NULL,"
        " client_address TEXT NOT NULL,"
        " client_port INTEGER NOT NULL,"
        " node TEXT NOT NULL,"
        " started_wall_us INTEGER NOT NULL,"
        " state TEXT NOT NULL,"
        " recording TEXT NOT NULL,"
        " device TEXT NOT NULL,"
        " location TEXT NOT NULL,"
        " channels TEXT NOT NULL,"
        " last_activity_wall_us INTEGER NOT NULL,"
        " duration_s INTEGER NOT NULL,"
        " idle_s INTEGER NOT NULL,"
        " bytes_in INTEGER NOT NULL,"
        " bytes_out INTEGER NOT NULL,"
        " is_warned INTEGER NOT NULL,"
        " relay_pid INTEGER NOT NULL,"
        " end_reason TEXT NOT NULL,"
        " ended_by TEXT NOT NULL,"
        " end_text TEXT NOT NULL,"
        " ended_wall_us INTEGER NOT NULL,"
        " is_open INTEGER NOT NULL"
        ") STRICT;"
        "CREATE INDEX sessions_started ON sessions (started_wall_us);"
        "CREATE INDEX sessions_ended ON sessions (ended_wall_us);"
        "CREATE INDEX sessions_user ON sessions (user, target, started_wall_us);"
        "CREATE INDEX sessions_target ON sessions (target);"
        "CREATE INDEX sessions_open ON sessions (id) WHERE is_open = 1;"

        "CREATE TABLE recordings ("
        " session_id INTEGER NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,"
        " channel INTEGER NOT NULL,"
        " path TEXT NOT NULL,"
        " started_wall_us INTEGER NOT NULL,"
        " frames INTEGER NOT NULL,"
        " file_len INTEGER NOT NULL,"
        " chain BLOB NOT NULL,"
        " state TEXT NOT NULL,"
        " is_closed INTEGER NOT NULL,"
        " PRIMARY KEY (session_id, channel)"
        ") STRICT, WITHOUT ROWID;"

        "CREATE TABLE events ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " at_wall_us INTEGER NOT NULL,"
        " kind TEXT NOT NULL,"
        " user TEXT NOT NULL,"
        " source TEXT NOT NULL,"
        " session_id INTEGER NOT NULL," /* 0: none; no reference, events outlive sessions */
        " text TEXT NOT NULL"
        ") STRICT;"
        "CREATE INDEX events_at ON events (at_wall_us);"},
    {2, /* how users log in: second factors, PAM, certificates; '' is "as the role says" */
     /* the number is max_channels now: channels is what a session may be used for */
     "UPDATE roles SET policy = trim(replace(' ' || policy, ' channels=', ' max_channels='));"
     "UPDATE targets SET policy = trim(replace(' ' || policy, ' channels=', ' max_channels='));"
     "UPDATE grants SET policy = trim(replace(' ' || policy, ' channels=', ' max_channels='));"
     "ALTER TABLE targets ADD COLUMN via TEXT NOT NULL DEFAULT '';"         /* a target's name */
     "ALTER TABLE targets ADD COLUMN certificate TEXT NOT NULL DEFAULT '';" /* of its key */
     "ALTER TABLE users ADD COLUMN second_factor TEXT NOT NULL DEFAULT '';"
     "ALTER TABLE users ADD COLUMN auth_source TEXT NOT NULL DEFAULT 'local';"
     "ALTER TABLE users ADD COLUMN cert_principals TEXT NOT NULL DEFAULT '';"
     "ALTER TABLE users ADD COLUMN totp_wall_us INTEGER NOT NULL DEFAULT 0;" /* enrolled then */
     "ALTER TABLE users ADD COLUMN totp_step INTEGER NOT NULL DEFAULT 0;"    /* the last one used */
     "ALTER TABLE roles ADD COLUMN second_factor TEXT NOT NULL DEFAULT '';"
     "CREATE TABLE recovery_codes ("
     " user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,"
     " hash BLOB NOT NULL,"
     " PRIMARY KEY (user_id, hash)"
     ") STRICT, WITHOUT ROWID;"
     "CREATE TRIGGER users_secrets AFTER DELETE ON users BEGIN"
     " DELETE FROM secrets WHERE table_name = 'users' AND row_id = old.id;"
     " END;"
     "ALTER TABLE events ADD COLUMN detail TEXT NOT NULL DEFAULT '';" /* a JSON object, or '' */
     "CREATE INDEX events_session ON events (session_id, id) WHERE session_id <> 0;"},
    {3, /* an end that was announced */
     "ALTER TABLE sessions ADD COLUMN planned_wall_us INTEGER NOT NULL DEFAULT 0;"
     "ALTER TABLE sessions ADD COLUMN planned_reason TEXT NOT NULL DEFAULT 'none';"
     "ALTER TABLE sessions ADD COLUMN planned_by TEXT NOT NULL DEFAULT '';"
     "ALTER TABLE sessions ADD COLUMN planned_text TEXT NOT NULL DEFAULT '';"
     /* NLA at the RDP door; the NT hash is a secret, and no older than the password */
     "ALTER TABLE users ADD COLUMN rdp_nla INTEGER NOT NULL DEFAULT 0;"
     "CREATE TRIGGER users_nt_hash AFTER UPDATE OF hash ON users BEGIN"
     " DELETE FROM secrets WHERE table_name = 'users' AND column_name = 'nt_hash'"
     " AND row_id = old.id;"
     " END;"},
};
const size_t schema_step_count = sizeof(schema_steps) / sizeof(schema_steps[0]);

_Static_assert(STORE_APPLICATION_ID == 1396788304, "the schema has this number in its text");

/* ---- small helpers ---- */

static void say(char *err, size_t err_len, const char *fmt, ...) PRINTF_LIKE(3, 4);

static void say(char *err, size_t err_len, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(err, err_len, fmt, args);
    va_end(args);
}

/* The first column of the first row, as a number. Returns SQLITE_ROW or an error. */
static int sql_number(sqlite3 *db, const char *sql, int64_t *out)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(stmt, 0);
    (void)sqlite3_finalize(stmt);
    return rc;
}

/* The same as text, cut to fit. */
static int sql_word(sqlite3 *db, const char *sql, char *dst, size_t dst_len)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        say(dst, dst_len, "%s", (const char *)sqlite3_column_text(stmt, 0));
    (void)sqlite3_finalize(stmt);
    return rc;
}

static bool is_damage(int sql_code)
{
    return (sql_code & 0xff) == SQLITE_CORRUPT || (sql_code & 0xff) == SQLITE_NOTADB;
}

static off_t size_of(const char *path, const char *suffix)
{
    char full[STORE_PATH_MAX];
    struct stat st;

    (void)snprintf(full, sizeof(full), "%s%s", path, suffix);
    return stat(full, &st) == 0 ? st.st_size : -1;
}

/* Settings that protect us from what a file may hold; before anything of it is run. */
static void harden(sqlite3 *db)
{
    (void)sqlite3_extended_result_codes(db, 1);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
    (void)sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
}

/* ---- looking ---- */

/* "file:" URI of a path, its special characters escaped. */
static void immutable_uri(char *dst, size_t dst_len, const char *path)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = (size_t)snprintf(dst, dst_len, "file:");

    for (const char *p = path; *p && n + 16 < dst_len; p++) {
        if (strchr("%?#", *p)) {
            dst[n++] = '%';
            dst[n++] = hex[(unsigned char)*p >> 4];
            dst[n++] = hex[(unsigned char)*p & 15];
        } else {
            dst[n++] = *p;
        }
    }
    (void)snprintf(dst + n, dst_len - n, "?immutable=1");
}

/*
 * Open to look. A database that was closed well has no WAL, and `immutable` keeps SQLite from
 * making any file beside it. After a crash the WAL is part of the truth: it is read, but no
 * checkpoint is made, so that neither file changes (only -shm, which is an index of the WAL).
 */
static int open_to_look(const char *path, bool has_wal, sqlite3 **db)
{
    char uri[STORE_PATH_MAX * 3];
    int rc;

    if (has_wal) {
        rc = sqlite3_open_v2(path, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
        if (rc == SQLITE_OK)
            (void)sqlite3_db_config(*db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    } else {
        immutable_uri(uri, sizeof(uri), path);
        rc = sqlite3_open_v2(uri, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                             NULL);
    }
    if (rc == SQLITE_OK) {
        harden(*db);
        (void)sqlite3_busy_timeout(*db, STORE_BUSY_MS);
    }
    return rc;
}

static enum store_open_result corrupt(const char *path, const char *detail, char *err, size_t len)
{
    say(err, len,
        "the database %s is damaged (%s); it was left untouched. Restore a backup in its place "
        "(and remove %s-wal and %s-shm), or move it away to begin with an empty one",
        path, detail, path, path);
    return STORE_OPEN_CORRUPT;
}

static enum store_open_result look_failed(const char *path, sqlite3 *db, int rc, char *err,
                                          size_t len)
{
    if (is_damage(rc))
        return corrupt(path, db ? sqlite3_errmsg(db) : sqlite3_errstr(rc), err, len);
    say(err, len, "the database %s cannot be read: %s", path,
        db ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
    return STORE_OPEN_FAILED;
}

/* Whose is it, how old, is it whole: in this order, as each answer needs the one before. */
static enum store_open_result judge(const char *path, sqlite3 *db, bool has_wal,
                                    struct schema_look *out, char *err, size_t len)
{
    int64_t id = 0, version = 0, tables = 0, secrets = 0;
    char verdict[200] = "";
    int rc;

    if ((rc = sql_number(db, "PRAGMA application_id", &id)) != SQLITE_ROW ||
        (rc = sql_number(db, "PRAGMA user_version", &version)) != SQLITE_ROW ||
        (rc = sql_number(db, "SELECT count(*) FROM sqlite_schema", &tables)) != SQLITE_ROW)
        return look_failed(path, db, rc, err, len);
    if (id == 0 && tables == 0 && !has_wal) {
        out->is_new = true;
        return STORE_OPEN_OK;
    }
    if (id != STORE_APPLICATION_ID) {
        say(err, len,
            "%s is a database of another program; it was left untouched. Move it away, or set "
            "another data_dir",
            path);
        return STORE_OPEN_FOREIGN;
    }
    if (version > STORE_SCHEMA_VERSION) {
        say(err, len,
            "the database %s is of a newer Sallyport (schema %lld, this one knows %d); it was left "
            "untouched. Start the newer version, or restore the copy sallyport.db.before-v%lld "
            "that it made",
            path, (long long)version, STORE_SCHEMA_VERSION, (long long)version);
        return STORE_OPEN_NEWER;
    }
    if ((rc = sql_word(db, "PRAGMA quick_check(1)", verdict, sizeof(verdict))) != SQLITE_ROW)
        return look_failed(path, db, rc, err, len);
    if (strcmp(verdict, "ok") != 0 || version < 1)
        return corrupt(path, version < 1 ? "it has no schema version" : verdict, err, len);
    if ((rc = sql_number(db, "SELECT count(*) FROM secrets", &secrets)) != SQLITE_ROW)
        return look_failed(path, db, rc, err, len);
    out->secret_count = (uint64_t)secrets;
    return STORE_OPEN_OK;
}

/* True when the file begins as every SQLite database does; *err_no when it cannot be read. */
static bool has_magic(const char *path, int *err_no)
{
    char head[sizeof(DATABASE_MAGIC)] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    *err_no = errno;
    if (fd < 0)
        return false;
    n = read(fd, head, sizeof(head));
    *err_no = n < 0 ? errno : 0;
    (void)close(fd);
    return n == (ssize_t)sizeof(head) && memcmp(head, DATABASE_MAGIC, sizeof(head)) == 0;
}

enum store_open_result schema_look(const char *path, struct schema_look *out, char *err,
                                   size_t err_len)
{
    bool has_wal = size_of(path, "-wal") > 0;
    enum store_open_result result;
    sqlite3 *db = NULL;
    int rc, err_no;

    memset(out, 0, sizeof(*out));
    if (size_of(path, "") <= 0) {
        if (has_wal) /* a new database would swallow the WAL of the lost one */
            return corrupt(path, "it is missing or empty, but its -wal file holds data", err,
                           err_len);
        out->is_new = true;
        return STORE_OPEN_OK;
    }
    if (!has_magic(path, &err_no)) {
        if (err_no == 0)
            return corrupt(path, "it is not a database", err, err_len);
        say(err, err_len, "the database %s cannot be read: %s", path, strerror(err_no));
        return STORE_OPEN_FAILED;
    }
    rc = open_to_look(path, has_wal, &db);
    result = rc == SQLITE_OK ? judge(path, db, has_wal, out, err, err_len)
                             : look_failed(path, db, rc, err, err_len);
    (void)sqlite3_close(db);
    return result;
}

/* ---- opening ---- */

int schema_open(const char *path, sqlite3 **db, char *err, size_t err_len)
{
    char mode[16] = "";
    int rc = sqlite3_open_v2(path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc == SQLITE_OK) {
        harden(*db);
        (void)sqlite3_busy_timeout(*db, STORE_BUSY_MS);
        rc = sql_word(*db, "PRAGMA journal_mode = WAL", mode, sizeof(mode));
        if (rc == SQLITE_ROW && strcmp(mode, "wal") != 0) {
            say(err, err_len,
                "the file system of %s cannot hold a database in WAL mode; data_dir must be on a "
                "local disk",
                path);
            goto failed;
        }
        if (rc == SQLITE_ROW)
            rc = sqlite3_exec(*db,
                              "PRAGMA synchronous = NORMAL;"
                              "PRAGMA foreign_keys = ON;"
                              "PRAGMA journal_size_limit = 16777216;"
                              "PRAGMA cell_size_check = ON;"
                              "PRAGMA temp_store = MEMORY;"
                              "PRAGMA secure_delete = FAST;",
                              NULL, NULL, NULL);
    }
    if (rc == SQLITE_OK && sqlite3_db_readonly(*db, "main") == 0)
        return 0;
    say(err, err_len, "the database %s cannot be opened for writing: %s", path,
        rc == SQLITE_OK ? "it is read-only" : sqlite3_errmsg(*db));
failed:
    (void)sqlite3_close(*db);
    *db = NULL;
    return ERR_SYSTEM;
}

/* ---- migrating ---- */

static int run_step(sqlite3 *db, const struct schema_step *step, char *err, size_t err_len)
{
    char pragma[64];
    int64_t broken;
    int rc;

    (void)snprintf(pragma, sizeof(pragma), "PRAGMA user_version = %d; COMMIT", step->version);
    rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, step->sql, NULL, NULL, NULL);
    if (rc == SQLITE_OK && sql_number(db, "PRAGMA foreign_key_check", &broken) == SQLITE_ROW)
        rc = SQLITE_CONSTRAINT_FOREIGNKEY; /* it returns a row only for a broken reference */
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, pragma, NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return 0;
    say(err, err_len, "the database could not be changed to schema %d: %s; nothing was changed",
        step->version, sqlite3_errmsg(db));
    if (!sqlite3_get_autocommit(db))
        (void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
    return store_code_of(rc);
}

int schema_migrate(sqlite3 *db, const char *path, const struct schema_step *steps,
                   size_t step_count, char *err, size_t err_len)
{
    int newest = steps[step_count - 1].version;
    char copy[STORE_PATH_MAX];
    int64_t version;
    int r = 0;

    if (sql_number(db, "PRAGMA user_version", &version) != SQLITE_ROW) {
        say(err, err_len, "the database %s cannot be read: %s", path, sqlite3_errmsg(db));
        return ERR_SYSTEM;
    }
    if (version >= newest)
        return 0;
    if (version > 0) {
        (void)snprintf(copy, sizeof(copy), "%s.before-v%d", path, newest);
        r = database_copy(db, copy, true, err, err_len);
        if (r)
            return r;
        log_info("store: database=%s schema=%lld->%d copy=%s", path, (long long)version, newest,
                 copy);
    }
    /* A step may rebuild a table; references are checked as a whole at its end. */
    (void)sqlite3_exec(db, "PRAGMA foreign_keys = OFF", NULL, NULL, NULL);
    for (size_t i = 0; i < step_count && r == 0; i++) {
        if (steps[i].version > version)
            r = run_step(db, &steps[i], err, err_len);
    }
    (void)sqlite3_exec(db, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
    return r;
}

static int fill_new(const char *temp, char *err, size_t err_len)
{
    sqlite3 *db = NULL;
    int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int r;

    if (fd < 0) {
        say(err, err_len, "%s cannot be made: %s", temp, strerror(errno));
        return ERR_SYSTEM;
    }
    (void)close(fd);
    r = schema_open(temp, &db, err, err_len);
    if (r == 0)
        r = schema_migrate(db, temp, schema_steps, schema_step_count, err, err_len);
    if (sqlite3_close(db) != SQLITE_OK && r == 0) { /* moves the WAL into the file */
        say(err, err_len, "%s cannot be written", temp);
        r = ERR_SYSTEM;
    }
    return r;
}

static void remove_new(const char *temp)
{
    static const char *const suffixes[] = {"", "-wal", "-shm", "-journal"};
    char full[STORE_PATH_MAX + 16];

    for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
        (void)snprintf(full, sizeof(full), "%s%s", temp, suffixes[i]);
        (void)unlink(full);
    }
}

int schema_create(const char *path, char *err, size_t err_len)
{
    char temp[STORE_PATH_MAX];
    int r;

    (void)snprintf(temp, sizeof(temp), "%s.new", path);
    remove_new(temp); /* of a start that was killed */
    r = fill_new(temp, err, err_len);
    if (r == 0 && (rename(temp, path) != 0 || file_sync_dir(path) != 0)) {
        say(err, err_len, "%s cannot be made: %s", path, strerror(errno));
        r = ERR_SYSTEM;
    }
    if (r)
        remove_new(temp);
    return r;
}
