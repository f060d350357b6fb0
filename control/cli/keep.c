/* See keep.h. */
#include "control/cli/keep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX    ".index"
#define PART      ".part-"
#define AGE_MAX_S (7 * 24 * 3600)
#define BYTES_MAX ((off_t)256 * 1024 * 1024)
#define TAIL      32

/* "DIR/sallyport", made when it is missing. One of somebody else is not used: for root in a user's
 * environment it may lead anywhere, and files are removed there. */
static bool find_folder(struct keep *k)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char parent[200];
    struct stat st;

    if (cache && cache[0] == '/')
        snprintf(parent, sizeof(parent), "%s", cache);
    else if (home && home[0] == '/')
        snprintf(parent, sizeof(parent), "%s/.cache", home);
    else
        return false;
    snprintf(k->folder, sizeof(k->folder), "%s/sallyport", parent);
    (void)mkdir(parent, 0700);
    if (mkdir(k->folder, 0700) < 0 && errno != EEXIST)
        return false;
    return lstat(k->folder, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static bool path_of(const struct keep *k, const char *name, char *dst, size_t len)
{
    int n = snprintf(dst, len, "%s/%s", k->folder, name);

    return k->folder[0] && name[0] && n > 0 && (size_t)n < len;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), end_len = strlen(end);

    return len > end_len && strcmp(text + len - end_len, end) == 0;
}

struct old {
    char name[128];
    time_t used;
    off_t bytes;
};

/* One file of ours; others are not touched. */
static bool look_at(const struct keep *k, const char *name, struct old *out)
{
    char path[512];
    struct stat st;

    if ((!ends_with(name, SUFFIX) && !strstr(name, PART)) || strlen(name) >= sizeof(out->name) ||
        !path_of(k, name, path, sizeof(path)) || lstat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    snprintf(out->name, sizeof(out->name), "%s", name);
    out->used = st.st_mtime;
    out->bytes = st.st_size;
    return true;
}

static void remove_file(const struct keep *k, const char *name)
{
    char path[512];

    if (path_of(k, name, path, sizeof(path)))
        (void)unlink(path);
}

/* The oldest one goes; false: nothing had to. */
static bool clean_once(const struct keep *k, time_t now)
{
    struct old oldest = {.used = 0}, at;
    off_t sum = 0;
    bool has_any = false;
    DIR *dir = opendir(k->folder);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL) {
        if (!look_at(k, entry->d_name, &at))
            continue;
        sum += at.bytes;
        if (!has_any || at.used < oldest.used)
            oldest = at;
        has_any = true;
    }
    if (dir)
        closedir(dir);
    if (!has_any || (sum <= BYTES_MAX && now - oldest.used <= AGE_MAX_S))
        return false;
    remove_file(k, oldest.name);
    return true;
}

/* The recording's last bytes are the head of its chain. */
static bool name_recording(struct keep *k, const char *id, int fd)
{
    uint8_t tail[TAIL];
    struct stat st;
    int n;

    if (fstat(fd, &st) < 0 || st.st_size < TAIL ||
        pread(fd, tail, sizeof(tail), st.st_size - TAIL) != TAIL)
        return false;
    n = snprintf(k->name, sizeof(k->name), "%.40s-", id);
    for (size_t i = 0; i < 8; i++)
        n += snprintf(k->name + n, sizeof(k->name) - (size_t)n, "%02x", tail[i]);
    snprintf(k->name + n, sizeof(k->name) - (size_t)n, SUFFIX);
    return true;
}

void keep_find(struct keep *k, const char *id, int fd)
{
    memset(k, 0, sizeof(*k));
    if (strchr(id, '/') || !name_recording(k, id, fd) || !find_folder(k)) {
        k->folder[0] = '\0';
        return;
    }
    while (clean_once(k, time(NULL)))
        ;
}

int keep_open(const struct keep *k)
{
    char path[512];
    int fd;

    if (!path_of(k, k->name, path, sizeof(path)))
        return -1;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0)
        (void)utimensat(AT_FDCWD, path, NULL, 0); /* it is used: the oldest ones go first */
    return fd;
}

int keep_create(struct keep *k)
{
    char path[512];
    int fd;

    snprintf(k->part, sizeof(k->part), "%s" PART "%ld", k->name, (long)getpid());
    if (!path_of(k, k->part, path, sizeof(path))) {
        k->part[0] = '\0';
        return -1;
    }
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        k->part[0] = '\0';
    return fd;
}

/* Those of the same recording, when it was shorter. */
static void remove_others(const struct keep *k)
{
    size_t id_len = (size_t)(strchr(k->name, '-') - k->name) + 1;
    DIR *dir = opendir(k->folder);
    const struct dirent *entry;

    while (dir && (entry = readdir(dir)) != NULL)
        if (strncmp(entry->d_name, k->name, id_len) == 0 && ends_with(entry->d_name, SUFFIX) &&
            strcmp(entry->d_name, k->name) != 0)
            remove_file(k, entry->d_name);
    if (dir)
        closedir(dir);
}

void keep_store(struct keep *k, int fd)
{
    char from[512], to[512];
    struct stat st;

    if (fstat(fd, &st) < 0 || st.st_size == 0 || !path_of(k, k->part, from, sizeof(from)) ||
        !path_of(k, k->name, to, sizeof(to)) || rename(from, to) < 0) {
        keep_drop(k);
        return;
    }
    k->part[0] = '\0';
    remove_others(k);
}

void keep_drop(struct keep *k)
{
    if (k->part[0])
        remove_file(k, k->part);
    k->part[0] = '\0';
}
