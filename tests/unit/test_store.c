/*
 * The store as a whole: what a new database is like, which ones are refused and left alone, the
 * lock on data_dir, the key file, migrations and backups.
 */
#include "store_fixture.h"

#include <sys/wait.h>

#include "tracker/store/store_priv.h"

#define NOBODY 65534

static struct fixture *fixture_of(void **state)
{
    return (struct fixture *)*state;
}

/* ---- a new database ---- */

static void test_new_database(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[256];
    sqlite3 *db;

    assert_int_equal(mode_of(f->data), 0700);
    assert_int_equal(mode_of(f->db), 0600);
    assert_int_equal(mode_of(f->key), 0600);
    (void)snprintf(path, sizeof(path), "%s.new", f->db);
    assert_false(exists(path));
    db = outsider(f->db);
    assert_string_equal(sql_one(db, "PRAGMA application_id"), "1396788304");
    assert_string_equal(sql_one(db, "PRAGMA user_version"), "3");
    assert_string_equal(sql_one(db, "PRAGMA journal_mode"), "wal");
    assert_string_equal(sql_one(db, "PRAGMA integrity_check"), "ok");
    assert_string_equal(sql_one(db, "SELECT group_concat(name) FROM "
                                    "(SELECT name FROM roles WHERE is_builtin ORDER BY name)"),
                        "admin,auditor,user");
    assert_string_equal(sql_one(db, "SELECT count(*) FROM pragma_table_list "
                                    "WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sql%'"),
                        "0");
    (void)snprintf(path, sizeof(path), "%s-wal", f->db);
    if (exists(path))
        assert_int_equal(mode_of(path), 0600);
    (void)sqlite3_close(db);
    assert_string_equal(sql_one(f->store->db, "PRAGMA foreign_keys"), "1");
    assert_string_equal(sql_one(f->store->db, "PRAGMA synchronous"), "1");
    assert_string_equal(sql_one(f->store->db, "PRAGMA trusted_schema"), "0");
    assert_string_equal(sql_one(f->store->db, "PRAGMA journal_size_limit"), "16777216");
}

static void test_open_again(void **state)
{
    struct fixture *f = fixture_of(state);
    struct store_user user;
    char path[256];

    assert_int_equal(store_user_add(f->store, "alice", "admin"), 0);
    (void)chmod(f->db, 0644);
    fixture_reopen(f);
    assert_int_equal(mode_of(f->db), 0600);
    assert_int_equal(store_user_get(f->store, "alice", &user), 0);
    fixture_close(f);
    (void)snprintf(path, sizeof(path), "%s-wal", f->db);
    assert_false(exists(path)); /* closed well */
}

static void test_killed_while_creating(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[256];

    assert_int_equal(mkdir(f->data, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s.new", f->db);
    write_file(path, "half", 4, 0600);
    (void)snprintf(path, sizeof(path), "%s.new-wal", f->db);
    write_file(path, "half", 4, 0600);
    write_file(f->db, "", 0, 0600); /* an empty file is no database yet */
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_false(exists(path));
}

/* ---- databases that are refused ---- */

struct refusal {
    const char *name;
    void (*damage)(struct fixture *f);
    enum store_open_result result;
    const char *says;
};

static void make_newer(struct fixture *f)
{
    sql_on(f->db, "PRAGMA user_version = 99");
}

/* A newer schema that is in the WAL only: its writer was killed. */
static void make_newer_in_wal(struct fixture *f)
{
    sqlite3 *db = outsider(f->db);

    (void)sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sql(db, "PRAGMA user_version = 99");
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void make_foreign(struct fixture *f)
{
    (void)unlink(f->db);
    sql_on(f->db, "CREATE TABLE cookies (name TEXT)");
}

static void make_foreign_id(struct fixture *f)
{
    sql_on(f->db, "PRAGMA application_id = 12345");
}

static void make_text(struct fixture *f)
{
    write_file(f->db, "this is a letter, not a database", 32, 0600);
}

static void make_short(struct fixture *f)
{
    assert_int_equal(truncate(f->db, 20480), 0);
}

/* Overwrite from `at` on, as a bad disk would. */
static void scribble(struct fixture *f, off_t at, size_t len)
{
    char junk[4096];
    int fd = open(f->db, O_WRONLY | O_CLOEXEC);

    memset(junk, 0xa5, sizeof(junk));
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, junk, len, at), (ssize_t)len);
    (void)close(fd);
}

static void make_bad_page(struct fixture *f)
{
    scribble(f, 4096 * 2, 4096);
}

static void make_bad_schema(struct fixture *f)
{
    scribble(f, 100, 200);
}

static void make_no_version(struct fixture *f)
{
    sql_on(f->db, "PRAGMA user_version = 0");
}

static void make_lost(struct fixture *f)
{
    make_newer_in_wal(f);
    assert_int_equal(truncate(f->db, 0), 0);
}

static const struct refusal refusals[] = {
    {"newer", make_newer, STORE_OPEN_NEWER, "newer Sallyport"},
    {"newer, in the WAL", make_newer_in_wal, STORE_OPEN_NEWER, "before-v99"},
    {"foreign tables", make_foreign, STORE_OPEN_FOREIGN, "another program"},
    {"foreign id", make_foreign_id, STORE_OPEN_FOREIGN, "another program"},
    {"text", make_text, STORE_OPEN_CORRUPT, "Restore a backup"},
    {"cut", make_short, STORE_OPEN_CORRUPT, "Restore a backup"},
    {"bad page", make_bad_page, STORE_OPEN_CORRUPT, "Restore a backup"},
    {"bad schema", make_bad_schema, STORE_OPEN_CORRUPT, "Restore a backup"},
    {"no version", make_no_version, STORE_OPEN_CORRUPT, "no schema version"},
    {"lost, WAL left", make_lost, STORE_OPEN_CORRUPT, "-wal file holds data"},
};

static void test_refused_untouched(void **state)
{
    struct fixture *f = fixture_of(state);
    char good[256], wal[256], shm[256];

    assert_int_equal(store_user_add(f->store, "alice", "admin"), 0);
    fixture_close(f);
    (void)snprintf(good, sizeof(good), "%s/good", f->dir);
    (void)snprintf(wal, sizeof(wal), "%s-wal", f->db);
    (void)snprintf(shm, sizeof(shm), "%s-shm", f->db);
    copy_file(f->db, good);
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *row = &refusals[i];
        struct sum before, wal_before, after, wal_after;
        bool had_wal;

        (void)unlink(wal);
        (void)unlink(shm);
        copy_file(good, f->db);
        row->damage(f);
        had_wal = exists(wal);
        before = sum_of(f->db);
        wal_before = sum_of(wal);
        for (int again = 0; again < 2; again++) {
            if (fixture_open(f) != row->result)
                fail_msg("%s: opened otherwise: %s", row->name, f->err);
            assert_null(f->store);
            if (!strstr(f->err, row->says) || !strstr(f->err, f->db))
                fail_msg("%s: says: %s", row->name, f->err);
        }
        after = sum_of(f->db);
        wal_after = sum_of(wal);
        assert_memory_equal(&before, &after, sizeof(before));
        assert_memory_equal(&wal_before, &wal_after, sizeof(wal_before));
        assert_int_equal(exists(wal), had_wal);
        assert_int_equal(exists(shm), had_wal); /* nothing was made beside a clean file */
    }
    (void)unlink(wal);
    (void)unlink(shm);
    copy_file(good, f->db);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
}

/* A store that was killed: the WAL is part of it and nothing is lost. */
static void test_open_after_kill(void **state)
{
    struct fixture *f = fixture_of(state);
    struct store_user user;
    char from[256], to[256];

    assert_int_equal(store_user_add(f->store, "alice", "admin"), 0);
    (void)snprintf(from, sizeof(from), "%s-wal", f->db);
    (void)snprintf(to, sizeof(to), "%s/wal", f->dir);
    copy_file(from, to); /* what a kill at this moment leaves */
    (void)snprintf(to, sizeof(to), "%s/db", f->dir);
    copy_file(f->db, to);
    fixture_close(f);
    copy_file(to, f->db);
    (void)snprintf(to, sizeof(to), "%s/wal", f->dir);
    copy_file(to, from);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_int_equal(store_user_get(f->store, "alice", &user), 0);
}

/* ---- the directory ---- */

static void test_second_broker(void **state)
{
    struct fixture *f = fixture_of(state);
    struct store *second = NULL;
    char err[1024] = "", pid[64];

    (void)snprintf(pid, sizeof(pid), "another sallyportd (pid %ld) uses this data_dir",
                   (long)getpid());
    assert_int_equal(store_open(&second, f->data, f->key, err, sizeof(err)), STORE_OPEN_FAILED);
    assert_null(second);
    assert_non_null(strstr(err, pid));
    assert_int_equal(store_user_add(f->store, "alice", "admin"), 0); /* the first is unharmed */
    fixture_reopen(f);                                               /* and leaves no lock */
}

/* Permission bits do not hold root back: try as nobody. 0: refused with this sentence. */
static int open_as_nobody(const struct fixture *f, const char *says)
{
    struct store *store = NULL;
    char err[1024] = "";
    enum store_open_result result;

    if (geteuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
        return 2;
    result = store_open(&store, f->data, f->key, err, sizeof(err));
    if (result != STORE_OPEN_FAILED || !strstr(err, says) || !strstr(err, f->data)) {
        (void)fprintf(stderr, "result %d: %s\n", (int)result, err);
        return 1;
    }
    return 0;
}

static void check_as_nobody(const struct fixture *f, const char *says)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(open_as_nobody(f, says));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_read_only_data_dir(void **state)
{
    struct fixture *f = fixture_of(state);
    struct sum before, after;
    char lock[256];

    fixture_close(f);
    before = sum_of(f->db);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(f->data, 0555), 0);
    check_as_nobody(f, "is not writable");
    (void)snprintf(lock, sizeof(lock), "%s/lock", f->data);
    assert_int_equal(chmod(lock, 0666), 0); /* a lock file that can be written proves nothing */
    check_as_nobody(f, "is not writable");
    assert_int_equal(unlink(lock), 0);
    check_as_nobody(f, "is not writable");
    assert_int_equal(chmod(f->data, 0700), 0);
    after = sum_of(f->db);
    assert_memory_equal(&before, &after, sizeof(before));
}

static void test_data_dir_cannot_be_made(void **state)
{
    struct fixture *f = fixture_of(state);

    (void)snprintf(f->data, sizeof(f->data), "%s/no/such/place", f->dir);
    assert_int_equal(fixture_open(f), STORE_OPEN_FAILED);
    assert_non_null(strstr(f->err, "cannot be made"));
}

/* ---- the key file ---- */

static void test_key_file_refused(void **state)
{
    static const struct {
        const char *text;
        mode_t mode;
        const char *says;
    } rows[] = {
        {"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0640, "chmod 600"},
        {"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0604, "chmod 600"},
        {"", 0600, "holds no key"},
        {"# only talk\n", 0600, "holds no key"},
        {"1:AAAA\n", 0600, ":1: not a key"},
        {"one:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0600, ":1: not a key"},
        {"0:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0600, ":1: not a key"},
        {"4294967296:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0600, ":1: not a key"},
        {"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==\n", 0600, ":1: not a key"},
        {"1:AAAAAAAAAAAAAAAA*AAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 0600, ":1: not a key"},
        {"1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
         "1:BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
         0600, ":2: not a key"},
    };
    struct fixture *f = fixture_of(state);

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        write_file(f->key, rows[i].text, strlen(rows[i].text), rows[i].mode);
        assert_int_equal(fixture_open(f), STORE_OPEN_FAILED);
        if (!strstr(f->err, rows[i].says) || !strstr(f->err, f->key))
            fail_msg("row %zu says: %s", i, f->err);
        assert_false(exists(f->db)); /* no database without its keys */
    }
}

/* The text of target web01's secret; the store has one row "web01" with it. */
static void add_secret(struct fixture *f, const char *text)
{
    struct store_target t = {.protocol = PROTOCOL_SSH, .auth = TARGET_AUTH_PASSWORD};
    struct secret secret = {.len = 0};

    (void)snprintf(t.name, sizeof(t.name), "web01");
    (void)snprintf(t.address, sizeof(t.address), "10.0.0.1:22");
    assert_true(secret_set(&secret, text, strlen(text)));
    assert_int_equal(store_target_add(f->store, &t, &secret), 0);
}

static void assert_secret(struct fixture *f, const char *text)
{
    struct secret secret;

    assert_int_equal(store_target_secret(f->store, "web01", &secret), 0);
    assert_string_equal((const char *)secret.data, text);
    assert_int_equal(secret.len, strlen(text));
    secret_wipe(&secret);
}

static void test_key_file_missing(void **state)
{
    struct fixture *f = fixture_of(state);
    char aside[256];

    fixture_close(f);
    assert_int_equal(unlink(f->key), 0); /* no secret yet: a new one is fine */
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    add_secret(f, "hunter2");
    fixture_close(f);
    (void)snprintf(aside, sizeof(aside), "%s/aside", f->dir);
    assert_int_equal(rename(f->key, aside), 0);
    assert_int_equal(fixture_open(f), STORE_OPEN_FAILED);
    assert_non_null(strstr(f->err, "restore it from a backup"));
    assert_false(exists(f->key));
    assert_int_equal(rename(aside, f->key), 0);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_secret(f, "hunter2");
}

static size_t lines_of(const char *path)
{
    FILE *file = fopen(path, "re");
    size_t lines = 0;
    int c;

    assert_non_null(file);
    while ((c = fgetc(file)) != EOF)
        lines += c == '\n';
    (void)fclose(file);
    return lines;
}

static void write_more_key(const char *path)
{
    static const char line[] = "3:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, line, sizeof(line) - 1), sizeof(line) - 1);
    (void)close(fd);
}

static void test_rotation(void **state)
{
    struct fixture *f = fixture_of(state);
    uint32_t rewritten = 0;
    sqlite3 *db;

    add_secret(f, "hunter2");
    db = outsider(f->db); /* busy: no key is added */
    sql(db, "BEGIN EXCLUSIVE");
    assert_int_equal(store_rotate_key(f->store, &rewritten), ERR_BUSY);
    assert_int_equal(lines_of(f->key), 1);
    sql(db, "COMMIT");

    assert_int_equal(store_rotate_key(f->store, &rewritten), 0);
    assert_int_equal(rewritten, 1);
    assert_int_equal(lines_of(f->key), 2);
    assert_int_equal(mode_of(f->key), 0600);
    assert_string_equal(sql_one(db, "SELECT key_id FROM secrets"), "2");
    (void)sqlite3_close(db);
    assert_secret(f, "hunter2");
    fixture_reopen(f);
    assert_secret(f, "hunter2");

    /* Killed between the file and the commit: the file has one key more than anybody uses. */
    fixture_close(f);
    write_more_key(f->key);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_secret(f, "hunter2");
    assert_int_equal(store_rotate_key(f->store, &rewritten), 0);
    assert_int_equal(rewritten, 1);
    assert_int_equal(lines_of(f->key), 4);
    assert_secret(f, "hunter2");
}

/* A key file that lacks the newest key opens; the secret does not, and rotation loses nothing. */
static void test_rotation_with_a_key_missing(void **state)
{
    struct fixture *f = fixture_of(state);
    char old[256], both[256];
    struct secret secret;
    uint32_t rewritten;

    add_secret(f, "hunter2");
    (void)snprintf(old, sizeof(old), "%s/old-key", f->dir);
    (void)snprintf(both, sizeof(both), "%s/both", f->dir);
    copy_file(f->key, old);
    assert_int_equal(store_rotate_key(f->store, &rewritten), 0);
    copy_file(f->key, both);
    fixture_close(f);
    copy_file(old, f->key);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_int_equal(store_target_secret(f->store, "web01", &secret), ERR_CRYPTO);
    assert_non_null(strstr(store_error(f->store), "needs master key 2"));
    assert_int_equal(store_rotate_key(f->store, &rewritten), ERR_CRYPTO);
    assert_int_equal(lines_of(f->key), 1);
    fixture_close(f);
    copy_file(both, f->key);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    assert_secret(f, "hunter2");
}

/* ---- migrations ---- */

static const struct schema_step steps_good[] = {
    {1, "CREATE TABLE a (x INTEGER PRIMARY KEY) STRICT; INSERT INTO a VALUES (7);"
        "CREATE TABLE b (y INTEGER REFERENCES a (x)) STRICT; INSERT INTO b VALUES (7);"},
    {2, "ALTER TABLE a ADD COLUMN z TEXT NOT NULL DEFAULT 'new'"},
    {3, "CREATE TABLE c (w TEXT) STRICT"},
};
static const struct schema_step steps_bad[] = {
    {1, "SELECT 1"},
    {2, "ALTER TABLE a ADD COLUMN z TEXT NOT NULL DEFAULT 'new'"},
    {3, "CREATE TABLE c (w TEXT) STRICT; INSERT INTO nowhere VALUES (1)"},
};
static const struct schema_step steps_orphan[] = {
    {1, "SELECT 1"}, {2, "DELETE FROM a"}, /* b still refers to it */
};

static sqlite3 *open_raw(const char *path)
{
    char err[512] = "";
    sqlite3 *db = NULL;

    write_file(path, "", 0, 0600);
    if (schema_open(path, &db, err, sizeof(err)) != 0)
        fail_msg("%s", err);
    return db;
}

static void test_migrations(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[256], copy[256], err[512] = "";
    sqlite3 *db, *before;

    (void)snprintf(path, sizeof(path), "%s/old.db", f->dir);
    (void)snprintf(copy, sizeof(copy), "%s/old.db.before-v3", f->dir);
    db = open_raw(path);
    assert_int_equal(schema_migrate(db, path, steps_good, 1, err, sizeof(err)), 0);
    assert_false(exists(copy)); /* nothing to keep before the first */

    assert_int_not_equal(schema_migrate(db, path, steps_bad, 3, err, sizeof(err)), 0);
    assert_non_null(strstr(err, "schema 3"));
    assert_string_equal(sql_one(db, "PRAGMA user_version"), "2"); /* whole steps only */
    assert_string_equal(sql_one(db, "SELECT count(*) FROM sqlite_schema WHERE name = 'c'"), "0");
    before = outsider(copy);
    assert_string_equal(sql_one(before, "PRAGMA user_version"), "1");
    assert_string_equal(sql_one(before, "SELECT x FROM a"), "7");
    assert_string_equal(sql_one(before, "PRAGMA integrity_check"), "ok");
    (void)sqlite3_close(before);
    assert_int_equal(mode_of(copy), 0600);

    assert_int_equal(schema_migrate(db, path, steps_good, 3, err, sizeof(err)), 0);
    assert_string_equal(sql_one(db, "PRAGMA user_version"), "3");
    assert_string_equal(sql_one(db, "SELECT z FROM a"), "new");
    assert_string_equal(sql_one(db, "PRAGMA foreign_keys"), "1");
    assert_int_equal(schema_migrate(db, path, steps_good, 3, err, sizeof(err)), 0);
    (void)sqlite3_close(db);
}

static void test_migration_checks_references(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[256], err[512] = "";
    sqlite3 *db;

    (void)snprintf(path, sizeof(path), "%s/old.db", f->dir);
    db = open_raw(path);
    assert_int_equal(schema_migrate(db, path, steps_good, 1, err, sizeof(err)), 0);
    assert_int_not_equal(schema_migrate(db, path, steps_orphan, 2, err, sizeof(err)), 0);
    assert_string_equal(sql_one(db, "PRAGMA user_version"), "1");
    assert_string_equal(sql_one(db, "SELECT x FROM a"), "7");
    (void)sqlite3_close(db);
}

static void test_steps_have_no_gaps(void **state)
{
    (void)state;
    for (size_t i = 0; i < schema_step_count; i++)
        assert_int_equal(schema_steps[i].version, i + 1);
    assert_int_equal(schema_step_count, STORE_SCHEMA_VERSION);
}

/* What was the number of channels is max_channels: channels says now what they may be. */
static void test_policies_of_schema_1(void **state)
{
    struct fixture *f = fixture_of(state);
    char path[256], err[512];
    sqlite3 *db;

    (void)snprintf(path, sizeof(path), "%s/one.db", f->dir);
    db = open_raw(path);
    assert_int_equal(schema_migrate(db, path, schema_steps, 1, err, sizeof(err)), 0);
    assert_int_equal(
        sqlite3_exec(db,
                     "UPDATE roles SET policy = 'channels=3 record=no' WHERE name = 'admin';"
                     "UPDATE roles SET policy = 'idle_after=1m channels=7' WHERE name = 'user';"
                     "UPDATE roles SET policy = 'idle_after=1m' WHERE name = 'auditor';",
                     NULL, NULL, NULL),
        SQLITE_OK);
    assert_int_equal(schema_migrate(db, path, schema_steps, schema_step_count, err, sizeof(err)),
                     0);
    assert_string_equal(sql_one(db, "SELECT policy FROM roles WHERE name = 'admin'"),
                        "max_channels=3 record=no");
    assert_string_equal(sql_one(db, "SELECT policy FROM roles WHERE name = 'user'"),
                        "idle_after=1m max_channels=7");
    assert_string_equal(sql_one(db, "SELECT policy FROM roles WHERE name = 'auditor'"),
                        "idle_after=1m");
    (void)sqlite3_close(db);
}

/* ---- backups ---- */

static void test_backup(void **state)
{
    struct fixture *f = fixture_of(state);
    struct store_event event = {.kind = "login-failed"};
    char path[256], data[256], err[1024];
    struct store *copy = NULL;
    struct store_user user;
    struct secret secret;
    sqlite3 *db;

    assert_int_equal(store_user_add(f->store, "alice", "admin"), 0);
    add_secret(f, "hunter2");
    store_event_add(f->store, &event); /* queued: the backup has it */
    (void)snprintf(data, sizeof(data), "%s/restored", f->dir);
    assert_int_equal(mkdir(data, 0700), 0);
    (void)snprintf(path, sizeof(path), "%s/restored/sallyport.db", f->dir);
    assert_int_equal(store_backup(f->store, path), 0);
    assert_int_equal(mode_of(path), 0600);
    assert_int_equal(store_backup(f->store, path), ERR_EXISTS);
    assert_int_equal(store_user_add(f->store, "later", "user"), 0);

    db = outsider(path);
    assert_string_equal(sql_one(db, "SELECT count(*) FROM events"), "1");
    (void)sqlite3_close(db);
    assert_int_equal(store_open(&copy, data, f->key, err, sizeof(err)), STORE_OPEN_OK);
    assert_int_equal(store_user_get(copy, "alice", &user), 0);
    assert_int_equal(store_user_get(copy, "later", &user), ERR_NOT_FOUND);
    assert_int_equal(store_target_secret(copy, "web01", &secret), 0);
    assert_string_equal((const char *)secret.data, "hunter2");
    store_close(copy);

    (void)snprintf(path, sizeof(path), "%s/no/where.db", f->dir);
    assert_int_equal(store_backup(f->store, path), ERR_SYSTEM);
    assert_non_null(strstr(store_error(f->store), "where.db"));
}

int main(void)
{
#define OPENED(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
#define CLOSED(test) cmocka_unit_test_setup_teardown(test, fixture_make, fixture_teardown)
    const struct CMUnitTest tests[] = {
        OPENED(test_new_database),
        OPENED(test_open_again),
        CLOSED(test_killed_while_creating),
        OPENED(test_refused_untouched),
        OPENED(test_open_after_kill),
        OPENED(test_second_broker),
        OPENED(test_read_only_data_dir),
        CLOSED(test_data_dir_cannot_be_made),
        CLOSED(test_key_file_refused),
        OPENED(test_key_file_missing),
        OPENED(test_rotation),
        OPENED(test_rotation_with_a_key_missing),
        CLOSED(test_migrations),
        CLOSED(test_migration_checks_references),
        CLOSED(test_steps_have_no_gaps),
        CLOSED(test_policies_of_schema_1),
        OPENED(test_backup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
