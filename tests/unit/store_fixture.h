/*
 * What the tests of the store share: a temporary directory with a data_dir and a key file, a second
 * connection to look behind the store's back, and sums of files. Included by test_store*.c only.
 */
#ifndef STORE_FIXTURE_H
#define STORE_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <openssl/evp.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/log.h>

#include "tracker/store/store.h"

struct fixture {
    char dir[64];
    char data[128];
    char key[128];
    char db[160];
    struct store *store;
    char err[1024];
};

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static inline enum store_open_result fixture_open(struct fixture *f)
{
    f->err[0] = '\0';
    return store_open(&f->store, f->data, f->key, f->err, sizeof(f->err));
}

static inline void fixture_close(struct fixture *f)
{
    store_close(f->store);
    f->store = NULL;
}

static inline void fixture_reopen(struct fixture *f)
{
    fixture_close(f);
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
}

/* A directory, nothing opened. */
static inline int fixture_make(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    log_open("test", LOG_SINK_STDERR, LOG_LEVEL_ERROR);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->data, sizeof(f->data), "%s/data", f->dir);
    (void)snprintf(f->key, sizeof(f->key), "%s/key", f->dir);
    (void)snprintf(f->db, sizeof(f->db), "%s/sallyport.db", f->data);
    *state = f;
    return 0;
}

/* A directory and an open, empty store in it. */
static inline int fixture_setup(void **state)
{
    struct fixture *f;

    (void)fixture_make(state);
    f = (struct fixture *)*state;
    assert_int_equal(fixture_open(f), STORE_OPEN_OK);
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = (struct fixture *)*state;

    fixture_close(f);
    (void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* A connection of somebody else. */
static inline sqlite3 *outsider(const char *path)
{
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    return db;
}

static inline void sql(sqlite3 *db, const char *text)
{
    char *err = NULL;

    if (sqlite3_exec(db, text, NULL, NULL, &err) != SQLITE_OK)
        fail_msg("%s: %s", text, err);
}

/* The first column of the first row, as text; "" for none. */
static inline const char *sql_one(sqlite3 *db, const char *text)
{
    static char value[256];
    sqlite3_stmt *stmt = NULL;
    const char *got = NULL;

    assert_int_equal(sqlite3_prepare_v2(db, text, -1, &stmt, NULL), SQLITE_OK);
    if (sqlite3_step(stmt) == SQLITE_ROW)
        got = (const char *)sqlite3_column_text(stmt, 0);
    (void)snprintf(value, sizeof(value), "%s", got ? got : "");
    (void)sqlite3_finalize(stmt);
    return value;
}

/* Run one statement on a database that no store has open. */
static inline void sql_on(const char *path, const char *text)
{
    sqlite3 *db = outsider(path);

    sql(db, text);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

struct sum {
    unsigned char bytes[32];
};

/* SHA-256 of a file; zeros when there is none. */
static inline struct sum sum_of(const char *path)
{
    struct sum sum = {{0}};
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    unsigned char data[65536];
    ssize_t n;

    assert_non_null(ctx);
    if (fd >= 0) {
        assert_int_equal(EVP_DigestInit_ex(ctx, EVP_sha256(), NULL), 1);
        while ((n = read(fd, data, sizeof(data))) > 0)
            assert_int_equal(EVP_DigestUpdate(ctx, data, (size_t)n), 1);
        assert_int_equal(EVP_DigestFinal_ex(ctx, sum.bytes, NULL), 1);
        (void)close(fd);
    }
    EVP_MD_CTX_free(ctx);
    return sum;
}

static inline void write_file(const char *path, const void *data, size_t len, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(fchmod(fd, mode), 0);
    assert_int_equal(close(fd), 0);
}

/* Read a whole file of at most 4 MiB; the bytes are good until the next call. */
static inline const char *read_whole(const char *path, size_t *len)
{
    static char data[4 << 20];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    assert_true(fd >= 0);
    n = read(fd, data, sizeof(data));
    assert_true(n >= 0 && (size_t)n < sizeof(data));
    (void)close(fd);
    *len = (size_t)n;
    return data;
}

static inline void copy_file(const char *from, const char *to)
{
    size_t len;
    const char *data = read_whole(from, &len);

    write_file(to, data, len, 0600);
}

static inline bool file_holds(const char *path, const char *text)
{
    size_t len;
    const char *data = read_whole(path, &len);

    return memmem(data, len, text, strlen(text)) != NULL;
}

static inline bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static inline mode_t mode_of(const char *path)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

#endif
