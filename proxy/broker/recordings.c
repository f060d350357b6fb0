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
#define ANSWER_S      5 /* a disk that does not answer in this time is taken for a broken one */

struct recorded {
    TAILQ_ENTRY(recorded) entry;
    struct store_recording row;
    int fd;          /* the broker's own, for fdatasync */
    bool is_dirty;   /* frames since the last sync was submitted */
    bool is_unsaved; /* the row in the store is behind */
    bool told_short;
};
TAILQ_HEAD(recorded_list, recorded);

/* Who asked the disk for something, and is answered once: with what it said, or at the time. */
struct waiting {
    TAILQ_ENTRY(waiting) entry;
    struct recordings *recordings; /* not owned */
    uint64_t number;
    uint64_t session_id;
    uint32_t channel; /* 0: asked for space only */
    char path[256];
    struct event *timer;
    recordings_answer_fn fn;
    void *arg;
    uint64_t serial;
};
TAILQ_HEAD(waiting_list, waiting);

struct recordings {
    struct event_base *base; /* not owned */
    struct store *store;     /* not owned */
    struct workers *workers; /* not owned */
    struct event *sync_timer, *space_timer;
    struct recorded_list live;
    recordings_short_fn on_short;
    void *arg;
    struct waiting_list waiting;
    uint64_t next_number;
    bool is_asking; /* how much space there is */
    char dir[256];
    int dir_fd;
    uint64_t min_free, free_bytes; /* free_bytes: at the last look */
};

static void space_ask(struct recordings *r);

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
    close(j->fd); /* which may take as long */
}

static void sync_done(struct job *job)
{
    static struct log_limit limit;
    struct sync_job *j = (struct sync_job *)job;

    if (j->error && log_limit_allows(&limit, 6, "failed syncs of recordings"))
        log_error("a recording could not be synced to disk: %s", strerror(j->error));
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
    space_ask(r);
}

/* ---- what the disk is asked, in a thread ---- */

/* A look at the space, and the making of a file when there is a name. */
struct probe {
    struct job job;
    struct recordings *recordings; /* for the loop's half */
    uint64_t number;               /* of who waits; 0: the space's own round */
    int dir_fd;                    /* a duplicate: the directory may be another one meanwhile */
    uint64_t min_free;
    char day[16], name[64]; /* "" for none */
    bool has_run;
    int error; /* errno */
    uint64_t free_bytes;
    int fd; /* of the file */
};

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
static int open_file(int top, const char *day, const char *name)
{
    int dir, fd = -1;

    if (mkdirat(top, day, 0700) < 0 && errno != EEXIST)
        return -1;
    dir = openat(top, day, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return -1;
    fd = openat(dir, name, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        fd = reopen_empty(dir, name);
    close(dir);
    return fd;
}

static void probe_run(struct job *job)
{
    struct probe *p = (struct probe *)job;
    struct statvfs v;

    p->has_run = true;
    if (fstatvfs(p->dir_fd, &v) < 0) {
        p->error = errno;
        return;
    }
    p->free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
    if (!p->name[0] || p->free_bytes < p->min_free)
        return;
    p->fd = open_file(p->dir_fd, p->day, p->name);
    if (p->fd < 0)
        p->error = errno;
}

static void probe_done(struct job *job);

static int probe_submit(struct recordings *r, uint64_t number, const char *day, const char *name)
{
    struct probe *p = calloc(1, sizeof(*p));

    if (!p)
        return ERR_MEMORY;
    p->job.run = probe_run;
    p->job.done = probe_done;
    p->job.lane = number | (UINT64_C(1) << 62);
    p->recordings = r;
    p->number = number;
    p->min_free = r->min_free;
    p->fd = -1;
    text_copy(p->day, sizeof(p->day), day);
    text_copy(p->name, sizeof(p->name), name);
    p->dir_fd = fcntl(r->dir_fd, F_DUPFD_CLOEXEC, 3);
    if (p->dir_fd >= 0 && workers_submit(r->workers, &p->job) == 0)
        return 0;
    if (p->dir_fd >= 0)
        close(p->dir_fd);
    free(p);
    return ERR_BUSY;
}

static void answer(struct waiting *w, int fd, int result, const char *text)
{
    const struct recordings_answer a = {.serial = w->serial,
                                        .session_id = w->session_id,
                                        .channel = w->channel,
                                        .result = result,
                                        .fd = fd,
                                        .text = text};
    recordings_answer_fn fn = w->fn;
    void *arg = w->arg;

    TAILQ_REMOVE(&w->recordings->waiting, w, entry);
    event_free(w->timer);
    free(w);
    fn(&a, arg);
}

static void late_cb(evutil_socket_t fd, short what, void *arg)
{
    static struct log_limit limit;
    struct waiting *w = arg;

    (void)fd, (void)what;
    if (log_limit_allows(&limit, 6, "slow answers of the recordings' disk"))
        log_error("the disk of %s has not answered for %d s", w->recordings->dir, ANSWER_S);
    answer(w, -1, ERR_SYSTEM, "this session would be recorded, and the disk does not answer");
}

static int ask(struct recordings *r, const struct waiting *what, const char *day, const char *name)
{
    struct waiting *w = malloc(sizeof(*w));
    const struct timeval wait = {ANSWER_S, 0};

    if (!w)
        return ERR_MEMORY;
    *w = *what;
    w->recordings = r;
    w->number = ++r->next_number;
    w->timer = evtimer_new(r->base, late_cb, w);
    if (w->timer && event_add(w->timer, &wait) == 0 && probe_submit(r, w->number, day, name) == 0) {
        TAILQ_INSERT_TAIL(&r->waiting, w, entry);
        return 0;
    }
    if (w->timer)
        event_free(w->timer);
    free(w);
    return ERR_BUSY;
}

/* ---- space ---- */

uint64_t recordings_free_bytes(const struct recordings *r)
{
    return r->free_bytes;
}

static void arm_space(struct recordings *r)
{
    struct timeval tv = {SPACE_EVERY_S, 0};

    if (TAILQ_EMPTY(&r->live))
        event_del(r->space_timer);
    else if (!event_pending(r->space_timer, EV_TIMEOUT, NULL))
        event_add(r->space_timer, &tv);
}

static void space_ask(struct recordings *r)
{
    if (!r->is_asking && probe_submit(r, 0, "", "") == 0)
        r->is_asking = true;
}

static void space_cb(evutil_socket_t fd, short what, void *arg)
{
    struct recordings *r = arg;

    (void)fd, (void)what;
    space_ask(r);
    arm_space(r);
}

static void space_told(struct recordings *r, uint64_t free_bytes)
{
    bool now_short = free_bytes < r->min_free;
    struct recorded *rec;

    r->free_bytes = free_bytes;
    TAILQ_FOREACH (rec, &r->live, entry) {
        if (now_short && !rec->told_short && !rec->row.is_closed)
            r->on_short(rec->row.session_id, r->arg);
        rec->told_short = now_short;
    }
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
    r->base = base;
    r->dir_fd = -1;
    TAILQ_INIT(&r->live);
    TAILQ_INIT(&r->waiting);
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
    struct waiting *w;

    if (!r)
        return;
    while ((w = TAILQ_FIRST(&r->waiting))) /* its thread hangs, and is left behind */
        answer(w, -1, ERR_CLOSED, "");
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
    struct statvfs v;
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
    r->free_bytes = fstatvfs(fd, &v) == 0 ? (uint64_t)v.f_bavail * v.f_frsize : 0;
    text_copy(r->dir, sizeof(r->dir), dir);
    return 0;
}

const char *recordings_dir(const struct recordings *r)
{
    return r->dir;
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

static void file_name(char *dst, size_t len, uint64_t session_id, uint32_t channel, bool is_desktop)
{
    const char *end = is_desktop ? "rdp.zst" : "cast.zst";

    if (channel <= 1)
        snprintf(dst, len, "%llu.%s", (unsigned long long)session_id, end);
    else
        snprintf(dst, len, "%llu.%u.%s", (unsigned long long)session_id, channel, end);
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

int recordings_check(struct recordings *r, recordings_answer_fn fn, void *arg, uint64_t serial)
{
    const struct waiting w = {.fn = fn, .arg = arg, .serial = serial};

    return ask(r, &w, "", "");
}

int recordings_open(struct recordings *r, uint64_t session_id, uint32_t channel, bool is_desktop,
                    recordings_answer_fn fn, void *arg, uint64_t serial)
{
    struct waiting w = {
        .session_id = session_id, .channel = channel, .fn = fn, .arg = arg, .serial = serial};
    time_t now = time(NULL);
    char day[16], name[64];
    struct tm tm;

    gmtime_r(&now, &tm);
    strftime(day, sizeof(day), "%Y-%m-%d", &tm);
    file_name(name, sizeof(name), session_id, channel, is_desktop);
    snprintf(w.path, sizeof(w.path), "%s/%s", day, name);
    return ask(r, &w, day, name);
}

/* The file is there: its row, and a descriptor of our own. */
static int take_file(struct recordings *r, const struct waiting *w, int fd, char *err,
                     size_t err_len)
{
    struct store_recording row = {.session_id = w->session_id,
                                  .channel = w->channel,
                                  .started_wall_us = clock_wall_us(),
                                  .state = RECORDING_OK};
    int own;

    if (find(r, w->session_id, w->channel)) /* asked again: its row is there */
        return 0;
    text_copy(row.path, sizeof(row.path), w->path);
    own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (own >= 0 && store_recording_open(r->store, &row) == 0 && track(r, &row, own))
        return 0;
    snprintf(err, err_len, "this session would be recorded, and %s",
             own < 0 ? "there are no descriptors left" : "the store cannot take it");
    if (own >= 0) {
        log_error("recording %s has no row: %s", w->path, store_error(r->store));
        close(own);
    }
    return ERR_BUSY;
}

static void answer_probe(struct recordings *r, struct waiting *w, const struct probe *p)
{
    char err[SESSION_TEXT_MAX];
    int result;

    if (!p->error && p->free_bytes < p->min_free) {
        answer(w, -1, ERR_FULL,
               "this session would be recorded, and there is no room left to record");
    } else if (p->error) {
        log_error("recording %s/%s cannot be opened: %s", r->dir, w->path, strerror(p->error));
        answer(w, -1, ERR_SYSTEM,
               "this session would be recorded, and its recording cannot be opened");
    } else if (!w->channel) {
        answer(w, -1, 0, "");
    } else if ((result = take_file(r, w, p->fd, err, sizeof(err))) < 0) {
        close(p->fd);
        answer(w, -1, result, err);
    } else {
        answer(w, p->fd, 0, "");
    }
}

static void probe_done(struct job *job)
{
    struct probe *p = (struct probe *)job;
    struct recordings *r = p->recordings;
    struct waiting *w;

    if (!p->has_run)
        p->error = ECANCELED;
    TAILQ_FOREACH (w, &r->waiting, entry)
        if (w->number == p->number)
            break;
    if (p->number == 0)
        r->is_asking = false;
    if (!p->error)
        space_told(r, p->free_bytes);
    if (w)
        answer_probe(r, w, p);
    else if (p->fd >= 0) /* nobody waits any more; asked again it is found empty */
        close(p->fd);
    close(p->dir_fd);
    free(p);
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
    const struct waiting *w;
    uint32_t count = 0;

    TAILQ_FOREACH (rec, &r->live, entry)
        count += rec->row.session_id == session_id;
    TAILQ_FOREACH (w, &r->waiting, entry)
        count += w->session_id == session_id;
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
