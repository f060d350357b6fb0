/*
 * What a file-transfer audit says: one row for each thing that was done to a file, as the relay
 * reads it off the stream, the link carries it (several rows a message), and the broker makes an
 * event of it. proxy/link/file_row.c has the codec.
 */
#ifndef SALLYPORT_FILE_ROW_H
#define SALLYPORT_FILE_ROW_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>
#include <sallyport/errors.h>

#define FILE_PATH_MAX   1024 /* with the NUL; longer ones are cut, and end in "..." */
#define FILE_RESULT_MAX 24

/* id, name, is about a whole command */
#define FILE_OPERATIONS(X)              \
    X(FILE_GET, "get", false)           \
    X(FILE_PUT, "put", false)           \
    X(FILE_GET_PUT, "get+put", false)   \
    X(FILE_RENAME, "rename", false)     \
    X(FILE_REMOVE, "remove", false)     \
    X(FILE_MKDIR, "mkdir", false)       \
    X(FILE_RMDIR, "rmdir", false)       \
    X(FILE_SETSTAT, "setstat", false)   \
    X(FILE_SYMLINK, "symlink", false)   \
    X(FILE_HARDLINK, "hardlink", false) \
    X(FILE_COPY, "copy", false)         \
    X(FILE_SCP, "scp", true)            \
    X(FILE_RSYNC, "rsync", true)        \
    X(FILE_GIT, "git", true)            \
    X(FILE_STOPPED, "stopped", false)   \
    X(FILE_UNLISTED, "unlisted", false)

enum file_operation {
#define X(id, name, is_command) id,
    FILE_OPERATIONS(X)
#undef X
        FILE_OPERATION_COUNT
};

/*
 * channel    of the session, from 1
 * result     "ok", a status of SFTP ("permission-denied"), "unfinished" (the channel ended first),
 *            "exit-1" or "signal-TERM" of a command
 * path       as it was on the wire, any bytes but NUL; FILE_STOPPED: why the audit ended; a
 *            command: its line
 * path2      rename, copy: the new name; symlink, hardlink: what the new name (path) points to;
 *            setstat: what was set ("mode=0644"), when that could be read
 * bytes_in   written by the user; FILE_UNLISTED: how many rows are missing
 * bytes_out  read by the user
 */
struct file_row {
    uint32_t channel;
    uint8_t operation; /* enum file_operation */
    char result[FILE_RESULT_MAX];
    uint64_t bytes_in, bytes_out;
    char path[FILE_PATH_MAX], path2[FILE_PATH_MAX];
};

const char *file_operation_name(enum file_operation operation);
bool file_operation_is_command(enum file_operation operation);

/* Pure codec of one row. take: false on anything that is not a row; the cursor is then as before.
 */
void file_row_put(struct buffer *out, const struct file_row *row);
MUST_CHECK bool file_row_take(struct cursor *in, struct file_row *row);

/* Copy a path of any length and any bytes: cut with "...", NULs become '?'. */
void file_path_copy(char dst[FILE_PATH_MAX], const uint8_t *data, size_t len);

#endif
