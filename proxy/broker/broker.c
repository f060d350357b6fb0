/*
 * The broker: start-up in the order that privileges and locks demand, signals, reload, drain and
 * the end. It owns every part and ties them together; what they do is in their own files.
 */
#include "proxy/broker/broker.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "control/control.h"
#include "proxy/broker/dial.h"
#include "proxy/broker/door.h"
#include "proxy/broker/hasher.h"
#include "proxy/broker/host_login.h"
#include "proxy/broker/nla.h"
#include "proxy/broker/notify.h"
#include "proxy/broker/pam.h"
#include "proxy/broker/probes.h"
#include "proxy/broker/recordings.h"
#include "proxy/broker/user_ca.h"
#include "proxy/broker/workers.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define NAME_THREADS  32
#define SYNC_THREADS  4
#define HASH_QUEUE    512
#define NAME_QUEUE    2048
#define SYNC_QUEUE    4096
#define REPORT_MAX    (256 * 1024)
#define STORE_RETRY_S 1

void broker_event(struct broker *b, const char *kind, const char *user, const char *source,
                  uint64_t session_id, const char *text)
{
    struct store_event e = {.at_wall_us = clock_wall_us(), .session_id = session_id};

    text_copy(e.kind, sizeof(e.kind), kind);
    text_copy(e.user, sizeof(e.user), user);
    text_copy(e.source, sizeof(e.source), source);
    text_copy(e.text, sizeof(e.text), text);
    store_event_add(b->store, &e);
}

/* ---- reload ---- */

static int apply_config(struct broker *b, struct config *fresh, char *err, size_t err_len)
{
    struct config *old = b->config;
    struct user_cas *cas = NULL;
    int r = config_keep_fixed(fresh, old);

    if (r < 0) {
        snprintf(err, err_len, "out of memory");
        return r;
    }
    if ((r = user_cas_load(&cas, fresh, err, err_len)) < 0 ||
        (r = gates_bind(b->gates, fresh, err, err_len)) < 0 ||
        (r = recordings_configure(b->recordings, fresh->recording_dir, fresh->recording_min_free,
                                  err, err_len)) < 0) {
        user_cas_free(cas);
        return r;
    }
    b->config = fresh;
    user_cas_free(b->user_cas);
    b->user_cas = cas;
    b->loaded_wall_us = clock_wall_us();
    log_set_level(fresh->log_level);
    tracker_set_max_sessions(b->tracker, fresh->max_sessions);
    gates_update(b->gates);
    links_refresh_policies(b->links, false, "policy");
    door_rights_changed(b->door);
    config_free(old);
    return 0;
}

static void log_lines(enum log_level level, const char *prefix, const struct buffer *text)
{
    const char *at = (const char *)text->data, *end = at + text->len;

    while (at < end) {
        const char *eol = memchr(at, '\n', (size_t)(end - at));
        size_t len = (size_t)((eol ? eol : end) - at);

        log_write(level, "%s%.*s", prefix, (int)len, at);
        at += len + 1;
    }
}

/* SIGHUP and `reload`: the report is what changed, or all that is wrong. */
static int reload(void *arg, struct buffer *report)
{
    struct broker *b = arg;
    struct config *fresh = NULL;
    char err[512];
    size_t changes;
    int r;

    notify_reloading();
    r = config_load(&fresh, b->config->path, report);
    if (r < 0) {
        log_error("reload refused, the old configuration stays:");
        log_lines(LOG_LEVEL_ERROR, "  ", report);
        notify_ready();
        return r;
    }
    changes = config_diff(b->config, fresh, report, NULL);
    r = apply_config(b, fresh, err, sizeof(err));
    if (r < 0) {
        config_free(fresh);
        buffer_reset(report);
        buffer_printf(report, "%s\n", err);
        log_error("reload refused, the old configuration stays: %s", err);
    } else {
        log_info("reloaded changes=%zu", changes);
        log_lines(LOG_LEVEL_INFO, "  ", report);
    }
    notify_ready();
    return r;
}

/* ---- drain and end ---- */

static void set_draining(struct broker *b, bool on)
{
    char err[512];

    if (b->is_draining == on)
        return;
    b->is_draining = on;
    if (gates_bind(b->gates, b->config, err, sizeof(err)) < 0)
        log_error("%s", err);
    gates_update(b->gates);
}

static void host_drain(void *arg, bool on, const char *author)
{
    struct broker *b = arg;

    log_info("%s by %s", on ? "draining" : "accepting again", author);
    set_draining(b, on);
}

static void stop_now(struct broker *b)
{
    b->stop = BROKER_STOPS;
    event_base_loopbreak(b->base);
}

/* Sessions are over; what is left are menus and connections that carried jumps. */
static void stop_for_good(struct broker *b)
{
    links_end_choosing(b->links, END_SHUTDOWN, "broker", "");
    stop_now(b);
}

struct end_all {
    struct broker *broker;
    uint64_t ids[64];
    size_t count;
};

static bool collect_live(const struct session_info *info, void *arg)
{
    struct end_all *e = arg;

    if (info->end_reason == END_NONE)
        e->ids[e->count++] = info->id;
    return e->count < sizeof(e->ids) / sizeof(e->ids[0]);
}

static void end_all_sessions(struct broker *b)
{
    struct end_all e = {.broker = b};

    do {
        e.count = 0;
        tracker_each(b->tracker, collect_live, &e);
        for (size_t i = 0; i < e.count; i++)
            if (tracker_end(b->tracker, e.ids[i], END_SHUTDOWN, "broker", "", 0) < 0)
                break;
    } while (e.count == sizeof(e.ids) / sizeof(e.ids[0]));
}

/* The grace is over: end what is left; the second time, leave whatever happens. */
static void stop_timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    struct timeval last = {3, 0};

    (void)fd, (void)what;
    if (tracker_count(b->tracker) == 0 || b->stop == BROKER_STOPS) {
        stop_for_good(b);
        return;
    }
    end_all_sessions(b);
    b->stop = BROKER_STOPS; /* broker_session_gone() or this timer again */
    event_add(b->stop_timer, &last);
}

void broker_session_gone(struct broker *b)
{
    if (b->stop != BROKER_RUNS && tracker_count(b->tracker) == 0)
        stop_for_good(b);
}

void broker_shutdown(struct broker *b, uint32_t grace_s, const char *author)
{
    struct timeval grace = {(time_t)grace_s, 0};
    size_t live = tracker_count(b->tracker);

    if (b->stop != BROKER_RUNS) { /* asked twice: no more waiting */
        stop_timer_cb(-1, 0, b);
        return;
    }
    b->stop = BROKER_DRAINS_TO_STOP;
    notify_stopping();
    log_info("shutting down by=%s sessions=%zu grace=%us", author, live, grace_s);
    set_draining(b, true);
    if (live == 0)
        stop_for_good(b);
    else
        event_add(b->stop_timer, &grace);
}

static void host_shutdown(void *arg, uint32_t in_s, const char *author)
{
    broker_shutdown(arg, in_s, author);
}

/* ---- what commands ask of the daemon ---- */

static void host_status(void *arg, struct control_status *out)
{
    struct broker *b = arg;

    memset(out, 0, sizeof(*out));
    text_copy(out->version, sizeof(out->version), SALLYPORT_VERSION);
    text_copy(out->node, sizeof(out->node), b->config->node);
    text_copy(out->config_path, sizeof(out->config_path), b->config->path);
    out->pid = getpid();
    out->started_wall_us = b->started_wall_us;
    out->config_loaded_wall_us = b->loaded_wall_us;
    out->is_draining = b->is_draining;
    out->sessions = (uint32_t)tracker_count(b->tracker);
    links_count(b->links, &out->links, &out->adopted);
    gates_count(b->gates, &out->unauthenticated, &out->parked, &out->accepted, &out->evicted);
    gates_describe(b->gates, out->listeners, sizeof(out->listeners));
    door_describe(b, out);
    out->history_queued = store_queue_len(b->store, &out->history_lost);
    out->recording_free = recordings_free_bytes(b->recordings);
}

static int host_hash_password(void *arg, const struct secret *password, control_hashed_fn done,
                              void *done_arg)
{
    struct broker *b = arg;

    return hasher_make(b->hash_workers, password, done, done_arg);
}

struct self_check {
    struct broker *broker;
    char source[64];
    control_checked_fn done;
    void *arg;
};

static void self_checked(bool is_right, void *arg)
{
    struct self_check *check = arg;
    struct broker *b = check->broker;
    const struct source_limits l = {b->config->source_failures, b->config->source_block_s};

    /* twice: whoever is logged in was forgiven one for that, each time */
    for (int i = 0; i < 2 && !is_right && check->source[0]; i++)
        sources_failed(&b->sources, check->source, &l, clock_mono_ms());
    check->done(is_right, check->arg);
    free(check);
}

static int host_check_password(void *arg, const char *user, const char *source,
                               const struct secret *password, control_checked_fn done,
                               void *done_arg)
{
    struct broker *b = arg;
    const struct source_limits l = {b->config->source_failures, b->config->source_block_s};
    struct self_check *check;
    char hash[STORE_HASH_MAX] = "";
    bool is_first;
    int r;

    if (source[0] && sources_blocked_s(&b->sources, source, &l, clock_mono_ms(), &is_first))
        return ERR_FULL;
    check = malloc(sizeof(*check));
    if (!check)
        return ERR_MEMORY;
    *check = (struct self_check){.broker = b, .done = done, .arg = done_arg};
    text_copy(check->source, sizeof(check->source), source);
    if (store_user_hash(b->store, user, hash) < 0)
        hash[0] = '\0';
    r = hasher_check(b->hash_workers, hash, password->data, password->len,
                     sources_lane(source[0] ? source : "127.0.0.1"), self_checked, check);
    memory_wipe(hash, sizeof(hash));
    if (r < 0)
        free(check);
    return r;
}

static void host_access_changed(void *arg, const char *author)
{
    struct broker *b = arg;

    links_refresh_policies(b->links, true, author);
}

static int host_watch(void *arg, uint64_t session_id, uint32_t *channel, bool may_type,
                      const char *who, int fds[2], uint64_t *watch, char *err, size_t err_len)
{
    const struct links_watch ask = {session_id, *channel, may_type, who};
    struct links_watching watching;
    struct broker *b = arg;
    int r = links_watch(b->links, &ask, &watching, err, err_len);

    if (r < 0)
        return r;
    *channel = watching.channel;
    *watch = watching.watch;
    fds[0] = watching.stream;
    fds[1] = watching.recording;
    return 0;
}

static void host_unwatch(void *arg, uint64_t session_id, uint64_t watch)
{
    struct broker *b = arg;

    if (b->stop != BROKER_STOPS) /* the relays will notice, and say so in other words */
        links_watch_end(b->links, session_id, watch);
}

static const char *host_recording_dir(void *arg)
{
    struct broker *b = arg;

    return recordings_dir(b->recordings);
}

static int host_probe(void *arg, const struct store_target *target, const char *account,
                      bool only_key, control_probed_fn done, void *done_arg)
{
    struct broker *b = arg;

    return probes_start(b->probes, target, account, only_key, done, done_arg);
}

/* ---- signals and the clock ---- */

static void signal_cb(evutil_socket_t sig, short what, void *arg)
{
    struct broker *b = arg;
    struct buffer report;

    (void)what;
    switch (sig) {
    case SIGTERM:
        log_info("stopping; sessions go on without a broker sessions=%zu",
                 tracker_count(b->tracker));
        notify_stopping();
        stop_now(b);
        break;
    case SIGINT:
        broker_shutdown(b, b->config->shutdown_grace_s, "SIGINT");
        break;
    case SIGHUP:
        buffer_init(&report, REPORT_MAX);
        if (reload(b, &report) < 0)
            log_debug("reload failed");
        buffer_finish(&report);
        break;
    case SIGCHLD:
        pam_helper_reap(b->pam); /* first: the gates take whoever is left */
        gates_reap(b->gates);
        break;
    default:
        break;
    }
}

static int watch_signals(struct broker *b)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
        b->signals[i] = evsignal_new(b->base, signals[i], signal_cb, b);
        if (!b->signals[i] || event_add(b->signals[i], NULL) < 0)
            return ERR_MEMORY;
    }
    return 0;
}

/* Once a second: a store that was locked is tried again, and systemd hears that we live. */
static void tick_cb(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;
    size_t count = tracker_count(b->tracker);

    (void)fd, (void)what;
    store_flush(b->store);
    if (count != b->told_count)
        notify_status("%zu sessions%s", count, b->is_draining ? ", draining" : "");
    b->told_count = count;
    notify_watchdog();
}

static void adopt_timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct broker *b = arg;

    (void)fd, (void)what;
    tracker_close_unclaimed(b->tracker);
}

/* Less than min_free is left: what the session's policy says. */
static void recordings_short(uint64_t session_id, void *arg)
{
    struct broker *b = arg;

    links_recording_short(b->links, session_id);
}

/* ---- start-up ---- */

static void parent_of(const char *path, char *dst, size_t len)
{
    char *slash;

    text_copy(dst, len, path);
    slash = strrchr(dst, '/');
    if (slash && slash != dst)
        *slash = '\0';
}

/* As root, while it still may: the folders, each of its user. */
static int make_dirs(struct broker *b, char *err, size_t err_len)
{
    const struct config *c = b->config;
    char root[512], relay[512], key_dir[512];
    struct stat st;
    int r;

    snprintf(root, sizeof(root), "%s/root", c->run_dir);
    snprintf(relay, sizeof(relay), "%s/relay", c->run_dir);
    parent_of(c->store_key, key_dir, sizeof(key_dir));
    if ((r = identity_make_dir(&b->identity, c->data_dir, 0700, err, err_len)) < 0 ||
        (r = identity_make_dir(&b->identity, c->run_dir, 0755, err, err_len)) < 0 ||
        (r = identity_make_dir(&b->identity, relay, 0700, err, err_len)) < 0 ||
        (r = identity_make_dir(&b->identity, root, 0555, err, err_len)) < 0)
        return r;
    if (stat(key_dir, &st) < 0)
        r = identity_make_dir(&b->identity, key_dir, 0700, err, err_len);
    return r;
}

/* Two brokers with a data_dir each and one run_dir would end each other's relays. */
static int lock_run_dir(struct broker *b, char *err, size_t err_len)
{
    b->run_lock = open("broker.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->run_lock >= 0 && flock(b->run_lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    if (b->run_lock >= 0 && errno == EWOULDBLOCK)
        snprintf(err, err_len,
                 "another sallyportd uses this run_dir (%s): stop it, or set another "
                 "run_dir",
                 b->config->run_dir);
    else
        snprintf(err, err_len, "%s/broker.lock: %s", b->config->run_dir, strerror(errno));
    return ERR_BUSY;
}

/*
 * The key of the relays' tickets lives where the relays' sockets live, and as long: tickets of the
 * last boot are worth nothing, those of the last broker are.
 */
static int load_ticket_key(struct broker *b, char *err, size_t err_len)
{
    static const char path[] = "ticket.key"; /* in run_dir, our working directory */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n;

    if (fd >= 0) {
        n = read(fd, b->ticket_key, sizeof(b->ticket_key));
        close(fd);
        if (n == (ssize_t)sizeof(b->ticket_key))
            return 0;
        unlink(path);
    }
    if (getentropy(b->ticket_key, sizeof(b->ticket_key)) < 0)
        return ERR_SYSTEM;
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    n = fd < 0 ? -1 : write(fd, b->ticket_key, sizeof(b->ticket_key));
    if (fd >= 0)
        close(fd);
    if (n == (ssize_t)sizeof(b->ticket_key))
        return 0;
    snprintf(err, err_len, "%s/%s cannot be written: %s", b->config->run_dir, path,
             strerror(errno));
    return ERR_SYSTEM;
}

static int open_parts(struct broker *b, char *err, size_t err_len)
{
    const struct config *c = b->config;
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (store_open(&b->store, c->data_dir, c->store_key, err, err_len) != STORE_OPEN_OK)
        return ERR_SYSTEM;
    if (lock_run_dir(b, err, err_len) < 0)
        return ERR_BUSY;
    err[0] = '\0';
    b->hash_workers = workers_create(b->base, cpus > 0 ? (unsigned)cpus : 1, HASH_QUEUE);
    b->name_workers = workers_create(b->base, NAME_THREADS, NAME_QUEUE);
    b->sync_workers = workers_create(b->base, SYNC_THREADS, SYNC_QUEUE);
    b->dialer = dialer_create(b->base, b->name_workers);
    b->tracker = tracker_create(b->base, b->store, &links_relay_ops, c->node);
    b->recordings = recordings_create(b->base, b->store, b->sync_workers, recordings_short, b);
    b->probes = probes_create(b);
    if (!b->hash_workers || !b->name_workers || !b->dialer || !b->probes || !b->sync_workers ||
        !b->tracker || !b->recordings || hasher_init() < 0) {
        snprintf(err, err_len, "out of memory");
        return ERR_MEMORY;
    }
    tracker_set_max_sessions(b->tracker, c->max_sessions);
    if (load_ticket_key(b, err, err_len) < 0)
        return ERR_SYSTEM;
    return recordings_configure(b->recordings, c->recording_dir, c->recording_min_free, err,
                                err_len);
}

static int open_control(struct broker *b, char *err, size_t err_len)
{
    const uid_t refused[] = {b->identity.relay_uid};
    const struct control_options options = {
        .socket_path = b->config->control_socket,
        .admin_group = b->config->admin_group,
        .owner_uid = b->identity.is_root ? (uid_t)-1 : b->identity.uid,
        .refused_uids = refused,
        .refused_uid_count = b->identity.is_root ? 1 : 0,
    };
    const struct control_host host = {
        .arg = b,
        .status = host_status,
        .reload = reload,
        .drain = host_drain,
        .shutdown = host_shutdown,
        .hash_password = host_hash_password,
        .check_password = host_check_password,
        .access_changed = host_access_changed,
        .recording_dir = host_recording_dir,
        .watch = host_watch,
        .unwatch = host_unwatch,
        .check_code = host_check_code,
        .sources = host_sources,
        .source_unblock = host_source_unblock,
        .probe = host_probe,
    };

    b->control = control_create(b->base, b->tracker, b->store, &host, &options, err, err_len);
    return b->control ? 0 : ERR_SYSTEM;
}

/* Descriptors: as many as we may have. */
static void raise_limits(struct broker *b)
{
    struct rlimit files;

    b->max_fds = 1024;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        b->max_fds = files.rlim_max > 1000000 ? 1000000 : (size_t)files.rlim_max;
    }
}

/* As long as we are root, if we are: PAM's modules want to be. */
static int start_pam(struct broker *b, char *err, size_t err_len)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace"};
    const struct config *c = b->config;

    if (strcmp(c->ssh_pam, "no") == 0)
        return 0;
    setenv("SALLYPORT_LOG_LEVEL", levels[c->log_level], 1);
    setenv("SALLYPORT_LOG", c->log == LOG_SINK_SYSLOG ? "syslog" : "stderr", 1);
    b->pam = pam_helper_create(b->base, c->ssh_pam, err, err_len);
    return b->pam ? 0 : ERR_SYSTEM;
}

/* Now rather than at the first login, so that a failure is seen; a reload may turn NLA on. */
static void start_nla(struct broker *b)
{
    if (b->config->rdp_enabled && b->config->rdp_nla != CONFIG_NLA_OFF)
        (void)nla_helper_start(b->nla); /* logged there */
}

static int start(struct broker *b, char *err, size_t err_len)
{
    const struct config *c = b->config;
    struct timeval grace = {(time_t)c->adopt_grace_s, 0}, second = {STORE_RETRY_S, 0};
    size_t found;
    int r;

    raise_limits(b);
    notify_open();
    if ((r = identity_find(&b->identity, c->user, c->relay_user, err, err_len)) < 0 ||
        (r = make_dirs(b, err, err_len)) < 0)
        return r;
    b->base = event_base_new();
    if (!b->base)
        return ERR_MEMORY;
    b->stop_timer = event_new(b->base, -1, 0, stop_timer_cb, b);
    b->adopt_timer = event_new(b->base, -1, 0, adopt_timer_cb, b);
    b->tick = event_new(b->base, -1, EV_PERSIST, tick_cb, b);
    b->gates = gates_create(b, err, err_len);
    if (!b->gates)
        return ERR_SYSTEM;
    if ((r = user_cas_load(&b->user_cas, c, err, err_len)) < 0 ||
        (r = start_pam(b, err, err_len)) < 0 || (r = identity_take(&b->identity, err, err_len)) < 0)
        return r;
    umask(0077);
    if (chdir(c->run_dir) < 0) {
        snprintf(err, err_len, "%s: %s", c->run_dir, strerror(errno));
        return ERR_SYSTEM;
    }
    /* the store's lock comes before any port or socket: a second broker disturbs nothing */
    if ((r = open_parts(b, err, err_len)) < 0 || (r = gates_bind(b->gates, c, err, err_len)) < 0 ||
        (r = watch_signals(b)) < 0)
        return r;
    b->nla = nla_helper_create(b);
    b->door = door_create(b);
    b->links = links_create(b, err, err_len);
    if (!b->links || !b->door || !b->nla)
        return ERR_SYSTEM;
    found = links_adopt(b->links);
    if ((r = open_control(b, err, err_len)) < 0 || (r = gates_start(b->gates, err, err_len)) < 0)
        return r;
    start_nla(b);
    event_add(b->adopt_timer, &grace);
    event_add(b->tick, &second);
    log_info("started version=%s node=%s pid=%d relays_found=%zu data_dir=%s", SALLYPORT_VERSION,
             c->node, (int)getpid(), found, c->data_dir);
    if (gates_are_ready(b->gates))
        notify_ready(); /* there are none; otherwise when they are */
    return 0;
}

static void finish(struct broker *b)
{
    door_destroy(b->door);
    b->door = NULL;
    control_destroy(b->control);
    links_release(b->links);
    gates_destroy(b->gates);
    workers_destroy(b->name_workers);
    dialer_destroy(b->dialer);
    probes_destroy(b->probes);
    workers_destroy(b->hash_workers);
    workers_destroy(b->sync_workers);
    recordings_destroy(b->recordings);
    links_destroy(b->links); /* after all whose answers look for a link */
    pam_helper_destroy(b->pam);
    nla_helper_destroy(b->nla);
    user_cas_free(b->user_cas);
    tracker_destroy(b->tracker);
    store_close(b->store);
    for (size_t i = 0; i < sizeof(b->signals) / sizeof(b->signals[0]); i++)
        if (b->signals[i])
            event_free(b->signals[i]);
    if (b->stop_timer)
        event_free(b->stop_timer);
    if (b->adopt_timer)
        event_free(b->adopt_timer);
    if (b->tick)
        event_free(b->tick);
    if (b->base)
        event_base_free(b->base);
    config_free(b->config);
    if (b->run_lock >= 0)
        close(b->run_lock);
    notify_close();
    memory_wipe(b, sizeof(*b));
    free(b);
}

int broker_run(struct config *config)
{
    struct broker *b = calloc(1, sizeof(*b));
    char err[1024] = "";
    int status = 0;

    if (!b)
        die("out of memory");
    mallopt(M_ARENA_MAX, 2); /* worker threads come and go */
    b->config = config;
    b->run_lock = -1;
    b->started_wall_us = b->loaded_wall_us = clock_wall_us();
    for (size_t i = 0; i < config->warnings.count; i++)
        log_warn("%s", config->warnings.items[i]);
    if (start(b, err, sizeof(err)) < 0) {
        log_error("cannot start: %s", err[0] ? err : strerror(errno));
        status = 1;
    } else {
        while (!event_base_got_break(b->base)) {
            if (event_base_loop(b->base, EVLOOP_ONCE) < 0)
                break;
            store_flush(b->store); /* what this turn of the loop queued */
        }
        status = b->exit_status;
        log_info("stopped");
    }
    finish(b);
    return status;
}
