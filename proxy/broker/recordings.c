/* Recording files as the broker sees them; see recordings.h. */
#include "proxy/broker/recordings.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/broker/workers.h"
#include "tracker/store/store.h"

#define SYNC_EVERY_S  4 /* with a frame that may be 1 s old: power loss takes at most 5 s */
#define SPACE_EVERY_S 1

struct recorded {
    TAILQ_ENTRY(recorded) entry;
    struct store_recording row;
    int fd;          /* the broker's own, for fdatasync */
    bool is_dirty;   /* frames since the last sync was submitted */
    bool is_unsaved; /* the row in the store is behind */
    bool told_short;
};
TAILQ_HEAD(recorded_list, recorded);

struct recordings {
    struct store *store;     /* not owned */
    struct workers *workers; /* not owned */
    struct event *sync_timer, *space_timer;
    struct recorded_list live;
    recordings_short_fn on_short;
    void *arg;
    char dir[256];
    int dir_fd;
    uint64_t min_free;
};

/* ---- sync ---- */

struct sync_job {
    struct job job;
    int fd; /* a duplicate: the session may end meanwhile */
    int error;
};

static void sync_run(struct job *job)
{
    struct sync_job *j = (struct sync_job *)job;

    if (fdatasync(j->fd) < 0)
        j->error = errno;
}

static void sync_done(struct job *job)
{
    static struct log_limit limit;
    struct sync_job *j = (struct sync_job *)job;

    if (j->error && log_limit_allows(&limit, 6, "failed syncs of recordings"))
        log_error("a recording could not be synced to disk: %s", strerror(j->error));
    close(j->fd);
    free(j);
}

static void sync_submit(struct recordings *r, struct recorded *rec)
{
    struct sync_job *j = calloc(1, sizeof(*j));

    if (!j)
        return;
    j->job.run = sync_run;
    j->job.done = sync_done;
    j->job.lane = rec->row.session_id | (UINT64_C(1) << 63);
    j->fd = fcntl(rec->fd, F_DUPFD_CLOEXEC, 3);
    if (j->fd < 0 || workers_submit(r->workers, &j->job) < 0) {
        if (j->fd >= 0)
            close(j->fd);
        free(j);
        return; /* still dirty: the next round tries again */
    }
    rec->is_dirty = false;
}

static void save_row(struct recordings *r, struct recorded *rec)
{
    if (rec->is_unsaved)
        store_recording_update(r->store, &rec->row);
    rec->is_unsaved = false;
}

static void sync_cb(evutil_socket_t fd, short what, void *arg)
{
    struct recordings *r = arg;
    struct recorded *rec;

    (void)fd, (void)what;
    TAILQ_FOREACH (rec, &r->live, entry) {
        if (rec->is_dirty)
            sync_submit(r, rec);
        save_row(r, rec);
    }
}

/* ---- space ---- */

uint64_t recordings_free_bytes(const struct recordings *r)
{
    struct statvfs v;

    if (r->dir_fd < 0 || fstatvfs(r->dir_fd, &v) < 0)
        return 0;
    return (uint64_t)v.f_bavail * v.f_frsize;
}

static bool is_short(const struct recordings *r)
{
    return recordings_free_bytes(r) < r->min_free;
}

static void arm_space(struct recordings *r)
{
    struct timeval tv = {SPACE_EVERY_S, 0};

    if (TAILQ_EMPTY(&r->live))
        event_del(r->space_timer);
    else if (!event_pending(r->space_timer, EV_TIMEOUT, NULL))
        event_add(r->space_timer, &tv);
}

static void space_cb(evutil_socket_t fd, short what, void *arg)
{
    struct recordings *r = arg;
    struct recorded *rec;
    bool now_short = is_short(r);

    (void)fd, (void)what;
    TAILQ_FOREACH (rec, &r->live, entry) {
        if (now_short && !rec->told_short && !rec->row.is_closed)
            r->on_short(rec->row.session_id, r->arg);
        rec->told_short = now_short;
    }
    arm_space(r);
}

/* ---- set-up ---- */

struct recordings *recordings_create(struct event_base *base, struct store *store,
                                     struct workers *workers, recordings_short_fn on_short,
                                     void *arg)
{
    struct recordings *r = calloc(1, sizeof(*r));
    struct timeval every = {SYNC_EVERY_S, 0};

    if (!r)
        return NULL;
    r->store = store;
    r->workers = workers;
    r->on_short = on_short;
    r->arg = arg;
    r->dir_fd = -1;
    TAILQ_INIT(&r->live);
    r->sync_timer = event_new(base, -1, EV_PERSIST, sync_cb, r);
    r->space_timer = event_new(base, -1, 0, space_cb, r);
    if (!r->sync_timer || !r->space_timer || event_add(r->sync_timer, &every) < 0) {
        recordings_destroy(r);
        return NULL;
    }
    return r;
}

static void recorded_free(struct recorded *rec)
{
    if (rec->fd >= 0)
        close(rec->fd);
    free(rec);
}

void recordings_destroy(struct recordings *r)
{
    struct recorded *rec;

    if (!r)
        return;
    while ((rec = TAILQ_FIRST(&r->live))) {
        save_row(r, rec);
        TAILQ_REMOVE(&r->live, rec, entry);
        recorded_free(rec);
    }
    if (r->sync_timer)
        event_free(r->sync_timer);
    if (r->space_timer)
        event_free(r->space_timer);
    if (r->dir_fd >= 0)
        close(r->dir_fd);
    free(r);
}

int recordings_configure(struct recordings *r, const char *dir, uint64_t min_free, char *err,
                         size_t err_len)
{
    int fd;

    if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
        snprintf(err, err_len, "[recording] dir: %s cannot be made: %s", dir, strerror(errno));
        return ERR_SYSTEM;
    }
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        snprintf(err, err_len, "[recording] dir: %s cannot be opened: %s", dir, strerror(errno));
        return ERR_SYSTEM;
    }
    if (r->dir_fd >= 0)
        close(r->dir_fd);
    r->dir_fd = fd;
    r->min_free = min_free;
    text_copy(r->dir, sizeof(r->dir), dir);
    return 0;
}

const char *recordings_dir(const struct recordings *r)
{
    return r->dir;
}

int recordings_check(const struct recordings *r, char *err, size_t err_len)
{
    if (!is_short(r))
        return 0;
    snprintf(err, err_len, "this session would be recorded, and there is no room left to record");
    return ERR_FULL;
}

/* ---- a recording's life ---- */

static struct recorded *find(const struct recordings *r, uint64_t session_id, uint32_t channel)
{
    struct recorded *rec;

    TAILQ_FOREACH (rec, &r->live, entry)
        if (rec->row.session_id == session_id && rec->row.channel == channel)
            return rec;
    return NULL;
}

static void file_name(char *dst, size_t len, uint64_t session_id, uint32_t channel)
{
    if (channel <= 1)
        snprintf(dst, len, "%llu.cast.zst", (unsigned long long)session_id);
    else
        snprintf(dst, len, "%llu.%u.cast.zst", (unsigned long long)session_id, channel);
}

/* An empty file of ours that nobody else has a name for: a broker that was killed between making it
 * and answering left it, and the relay asks again. */
static int reopen_empty(int dir, const char *name)
{
    int fd = openat(dir, name, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 && st.st_nlink == 1 &&
        st.st_uid == geteuid() && fcntl(fd, F_SETFL, O_APPEND) == 0)
        return fd;
    close(fd);
    errno = EEXIST;
    return -1;
}

/* DAY/NAME below the directory, made without following anything that was planted there. */
static int open_file(const struct recordings *r, const char *day, const char *name)
{
    int dir, fd = -1;

    if (mkdirat(r->dir_fd, day, 0700) < 0 && errno != EEXIST)
        return -1;
    dir = openat(r->dir_fd, day, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return -1;
    fd = openat(dir, name, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        fd = reopen_empty(dir, name);
    close(dir);
    return fd;
}

static struct recorded *track(struct recordings *r, const struct store_recording *row, int fd)
{
    struct recorded *rec = calloc(1, sizeof(*rec));

    if (!rec)
        return NULL;
    rec->row = *row;
    rec->fd = fd;
    TAILQ_INSERT_TAIL(&r->live, rec, entry);
    arm_space(r);
    return rec;
}

int recordings_open(struct recordings *r, uint64_t session_id, uint32_t channel, char *err,
                    size_t err_len)
{
    struct store_recording row = {.session_id = session_id,
                                  .channel = channel,
                                  .started_wall_us = clock_wall_us(),
                                  .state = RECORDING_OK};
    time_t now = time(NULL);
    char day[16], name[64];
    struct tm tm;
    int fd, own;

    if (recordings_check(r, err, err_len) < 0)
        return ERR_FULL;
    gmtime_r(&now, &tm);
    strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    file_name(name, sizeof(name), session_id, channel);
    snprintf(row.path, sizeof(row.path), "%s/%s", day, name);
    fd = open_file(r, day, name);
    own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own < 0) {
        log_error("recording %s/%s cannot be opened: %s", r->dir, row.path, strerror(errno));
        snprintf(err, err_len,
                 "this session would be recorded, and its recording cannot be opened");
        if (fd >= 0)
            close(fd);
        return ERR_SYSTEM;
    }
    if (find(r, session_id, channel)) { /* asked again: its row is there */
        close(own);
        return fd;
    }
    if (store_recording_open(r->store, &row) < 0 || !track(r, &row, own)) {
        snprintf(err, err_len, "this session would be recorded, and the store cannot take it: %s",
                 store_error(r->store));
        close(own);
        close(fd);
        return ERR_BUSY;
    }
    return fd;
}

static bool adopt_row(const struct store_recording *row, void *arg)
{
    struct recordings *r = arg;
    char path[600];
    int fd;

    if (row->is_closed || find(r, row->session_id, row->channel))
        return true;
    snprintf(path, sizeof(path), "%s/%s", r->dir, row->path);
    fd = open(path, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        log_warn("recording %s is not where it was: %s", path, strerror(errno));
        return true;
    }
    if (!track(r, row, fd))
        close(fd);
    return true;
}

void recordings_adopt(struct recordings *r, uint64_t session_id)
{
    if (store_recordings(r->store, session_id, adopt_row, r) < 0)
        log_warn("recordings of session %llu: %s", (unsigned long long)session_id,
                 store_error(r->store));
}

void recordings_frame(struct recordings *r, uint64_t session_id, uint32_t channel, uint64_t frames,
                      uint64_t file_len, const uint8_t chain[32])
{
    struct recorded *rec = find(r, session_id, channel);

    /* a relay is not trusted: a recording only ever grows */
    if (!rec || frames <= rec->row.frames || file_len <= rec->row.file_len)
        return;
    rec->row.frames = frames;
    rec->row.file_len = file_len;
    memcpy(rec->row.chain, chain, sizeof(rec->row.chain));
    rec->is_dirty = rec->is_unsaved = true;
}

void recordings_failed(struct recordings *r, uint64_t session_id, uint32_t channel)
{
    struct recorded *rec = find(r, session_id, channel);

    if (!rec)
        return;
    rec->row.state = RECORDING_FAILED;
    rec->is_unsaved = true;
}

int recordings_read(const struct recordings *r, uint64_t session_id, uint32_t *channel)
{
    const struct recorded *rec, *found = NULL;

    TAILQ_FOREACH (rec, &r->live, entry) {
        if (rec->row.session_id != session_id || (*channel && rec->row.channel != *channel))
            continue;
        if (!found || rec->row.channel > found->row.channel)
            found = rec;
    }
    if (!found || r->dir_fd < 0)
        return -1;
    *channel = found->row.channel;
    return openat(r->dir_fd, found->row.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
}

uint32_t recordings_count(const struct recordings *r, uint64_t session_id)
{
    const struct recorded *rec;
    uint32_t count = 0;

    TAILQ_FOREACH (rec, &r->live, entry)
        count += rec->row.session_id == session_id;
    return count;
}

static void close_one(struct recordings *r, struct recorded *rec)
{
    rec->row.is_closed = true;
    rec->is_unsaved = true;
    sync_submit(r, rec);
    save_row(r, rec);
    TAILQ_REMOVE(&r->live, rec, entry);
    recorded_free(rec);
}

void recordings_close_channel(struct recordings *r, uint64_t session_id, uint32_t channel)
{
    struct recorded *rec = find(r, session_id, channel);

    if (rec)
        close_one(r, rec);
    arm_space(r);
}

void recordings_close(struct recordings *r, uint64_t session_id)
{
    struct recorded *rec, *next;

    for (rec = TAILQ_FIRST(&r->live); rec; rec = next) {
        next = TAILQ_NEXT(rec, entry);
        if (rec->row.session_id == session_id)
            close_one(r, rec);
    }
    arm_space(r);
}
