/*
 * Files that must be whole or not be there: copies of the database and the directories that name
 * them. Called by the backup, by migrations and by the key file.
 */
#include "tracker/store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int file_sync_dir(const char *path)
{
    char dir[STORE_PATH_MAX];
    char *slash;
    int fd, r;

    if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
        return ERR_INVALID;
    slash = strrchr(dir, '/');
    if (!slash)
        (void)snprintf(dir, sizeof(dir), ".");
    else
        slash[slash == dir ? 1 : 0] = '\0';
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return ERR_SYSTEM;
    r = fsync(fd) == 0 ? 0 : ERR_SYSTEM;
    (void)close(fd);
    return r;
}

/* Copy all pages in one step: the copy is one moment of the source. Returns SQLite's code. */
static int copy_pages(sqlite3 *db, const char *temp)
{
    sqlite3_backup *backup;
    sqlite3 *to = NULL;
    int rc = sqlite3_open_v2(temp, &to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc == SQLITE_OK) {
        (void)sqlite3_busy_timeout(to, STORE_BUSY_MS);
        backup = sqlite3_backup_init(to, "main", db, "main");
        if (backup) {
            (void)sqlite3_backup_step(backup, -1);
            rc = sqlite3_backup_finish(backup);
        } else {
            rc = sqlite3_errcode(to);
        }
    }
    /* A failed close would leave the end of the copy in memory. */
    if (sqlite3_close(to) != SQLITE_OK && rc == SQLITE_OK)
        rc = SQLITE_IOERR;
    return rc;
}

static int sync_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int r;

    if (fd < 0)
        return -1;
    r = fsync(fd);
    (void)close(fd);
    return r;
}

int database_copy(sqlite3 *db, const char *path, bool may_replace, char *err, size_t err_len)
{
    char temp[STORE_PATH_MAX];
    int fd, rc, r = 0;

    if (snprintf(temp, sizeof(temp), "%s.part", path) >= (int)sizeof(temp)) {
        (void)snprintf(err, err_len, "the path of the copy is too long");
        return ERR_INVALID;
    }
    if (!may_replace && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        (void)snprintf(err, err_len, "%s exists already: name a file that does not", path);
        return ERR_EXISTS;
    }
    (void)unlink(temp); /* of a copy that was killed */
    fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        (void)snprintf(err, err_len, "%s cannot be made: %s", temp, strerror(errno));
        return ERR_SYSTEM;
    }
    (void)close(fd);

    rc = copy_pages(db, temp);
    if (rc != SQLITE_OK) {
        (void)snprintf(err, err_len, "the copy %s failed: %s", path, sqlite3_errstr(rc));
        r = store_code_of(rc);
    } else if (sync_file(temp) != 0 ||
               renameat2(AT_FDCWD, temp, AT_FDCWD, path, may_replace ? 0 : RENAME_NOREPLACE) != 0 ||
               file_sync_dir(path) != 0) {
        r = errno == EEXIST ? ERR_EXISTS : ERR_SYSTEM;
        (void)snprintf(err, err_len, "the copy %s cannot be written: %s", path, strerror(errno));
    }
    if (r)
        (void)unlink(temp);
    return r;
}
