/*
 * The control server's socket: binds it without trampling on anything, accepts, refuses strangers
 * and crowds with a sentence, and reaps clients. What a client says is client.c's business.
 * The broker creates one and destroys it.
 */
#include "control/control_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#define BACKLOG         64
#define FOLLOW_MS       250
#define ACCEPT_AGAIN_MS 1000
#define REFUSALS_A_MIN  30

/* ---- the socket file ---- */

static bool is_served(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool served;

    if (fd < 0)
        return true; /* cannot tell: hands off */
    served = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
             errno == EAGAIN; /* its backlog is full */
    close(fd);
    return served;
}

/* Make room at the path: only a dead socket of our own is removed. */
static int clear_path(const struct sockaddr_un *address, char *err, size_t err_len)
{
    const char *path = address->sun_path;
    struct stat st;

    if (lstat(path, &st) < 0) {
        if (errno == ENOENT)
            return 0;
        snprintf(err, err_len, "%s: %s", path, strerror(errno));
        return ERR_SYSTEM;
    }
    if (!S_ISSOCK(st.st_mode) || (st.st_uid != geteuid() && geteuid() != 0)) {
        snprintf(err, err_len,
                 "%s is there and is not a socket of ours; remove it or set [control] socket",
                 path);
        return ERR_EXISTS;
    }
    if (is_served(address)) {
        snprintf(err, err_len, "another sallyportd serves %s; stop it or use another run_dir",
                 path);
        return ERR_BUSY;
    }
    if (unlink(path) < 0) {
        snprintf(err, err_len, "cannot remove the old socket %s: %s", path, strerror(errno));
        return ERR_SYSTEM;
    }
    return 0;
}

static int bind_socket(const char *path, char *err, size_t err_len)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t umask_was;
    int fd, result;

    if (!text_copy(address.sun_path, sizeof(address.sun_path), path)) {
        snprintf(err, err_len, "%s is too long for a socket (107 bytes at most)", path);
        return -1;
    }
    if (clear_path(&address, err, err_len) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        snprintf(err, err_len, "socket: %s", strerror(errno));
        return -1;
    }
    umask_was = umask(0111); /* 0666: peer credentials decide, see PROTOCOL.md */
    result = bind(fd, (const struct sockaddr *)&address, sizeof(address));
    umask(umask_was);
    if (result < 0 || listen(fd, BACKLOG) < 0) {
        snprintf(err, err_len, "cannot listen on %s: %s", path, strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

/* ---- accepting ---- */

/* One line and good-bye, for peers that never become clients. */
static void turn_away(int fd, const char *code, const char *text)
{
    json_t *line = control_error_line(NULL, code, text);
    char *dump = line ? json_dumps(line, JSON_COMPACT) : NULL;

    if (dump) {
        size_t len = strlen(dump);
        dump[len] = '\n'; /* in place of the NUL: one send, one line */
        (void)!send(fd, dump, len + 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    free(dump);
    json_decref(line);
    close(fd);
}

static size_t clients_of(const struct control *c, uid_t uid)
{
    const struct control_client *client;
    size_t count = 0;

    TAILQ_FOREACH (client, &c->clients, link) {
        count += !client->peer.is_guest && client->peer.uid == uid;
    }
    return count;
}

static bool has_room(const struct control *c, const struct caller *caller)
{
    size_t kept = caller->access == ACCESS_ADMIN ? 0 : CONTROL_CLIENTS_KEPT;

    return c->client_count + kept < CONTROL_CLIENTS_MAX;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                      int address_len, void *arg)
{
    static struct log_limit refusals;
    struct control *c = arg;
    struct caller caller = {0};
    struct peer peer;

    (void)listener;
    (void)address;
    (void)address_len;
    if (control_peer_of(fd, &peer) < 0) {
        close(fd);
        return;
    }
    control_caller_of(c, &peer, &caller);
    if (caller.access == ACCESS_ANY) {
        if (log_limit_allows(&refusals, REFUSALS_A_MIN, "refused on the control socket"))
            log_warn("control refused uid=%u pid=%d reason=\"%s\"", (unsigned)peer.uid,
                     (int)peer.pid, caller.why);
        turn_away(fd, "not_permitted", caller.why);
    } else if (!has_room(c, &caller)) {
        turn_away(fd, "full", "64 clients are connected already; try again later");
    } else if (!control_is_uncounted(c, peer.uid) &&
               clients_of(c, peer.uid) >= CONTROL_CLIENTS_PER_UID) {
        turn_away(fd, "full", "16 clients of your account are connected already");
    } else {
        control_client_start(c, fd, &peer, &caller);
    }
}

int control_adopt(struct control *c, int fd, const struct control_guest *guest)
{
    struct peer peer = {.uid = (uid_t)-1, .gid = (gid_t)-1, .is_guest = true, .guest = *guest};
    struct caller caller = {0};
    size_t before = c->client_count;

    control_caller_of(c, &peer, &caller);
    if (!has_room(c, &caller)) {
        close(fd);
        return ERR_FULL;
    }
    if (caller.access == ACCESS_ANY) {
        turn_away(fd, "not_permitted", caller.why);
        return 0;
    }
    control_client_start(c, fd, &peer, &caller);
    return c->client_count > before ? 0 : ERR_MEMORY;
}

/* Out of descriptors: a listener that stays ready would spin. */
static void on_accept_error(struct evconnlistener *listener, void *arg)
{
    const struct timeval later = {.tv_usec = 0, .tv_sec = ACCEPT_AGAIN_MS / 1000};
    struct control *c = arg;

    log_error("control cannot accept error=\"%s\"", strerror(errno));
    evconnlistener_disable(listener);
    event_add(c->accept_again, &later);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;

    (void)fd;
    (void)what;
    evconnlistener_enable(c->listener);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    struct control_client *client, *next;

    (void)fd;
    (void)what;
    for (client = TAILQ_FIRST(&c->clients); client; client = next) {
        next = TAILQ_NEXT(client, link);
        if (client->is_dead)
            control_client_destroy(client);
    }
}

/* Events are rows that any part of the broker writes; followers look for new ones. Does nothing,
 * and costs four wake-ups a second, only while somebody follows. */
static void on_follow(evutil_socket_t fd, short what, void *arg)
{
    struct control *c = arg;
    struct control_client *client;

    (void)fd;
    (void)what;
    TAILQ_FOREACH (client, &c->clients, link) {
        struct subscription *s;
        TAILQ_FOREACH (s, &client->subscriptions, link) {
            if (s->kind == SUBSCRIPTION_EVENTS)
                control_follow_events(c, s);
        }
    }
    control_follow_arm(c);
}

void control_follow_arm(struct control *c)
{
    const struct timeval interval = {.tv_usec = FOLLOW_MS * 1000};

    if (c->event_followers && !event_pending(c->follow, EV_TIMEOUT, NULL))
        event_add(c->follow, &interval);
}

/* ---- life ---- */

/* jansson's memory holds passwords on their way in: wiped before it is given back. */
static void wiping_free(void *memory)
{
    if (memory)
        memory_wipe(memory, malloc_usable_size(memory));
    free(memory);
}

static bool copy_options(struct control *c, const struct control_options *options)
{
    c->owner_uid = options->owner_uid;
    c->socket_path = strdup(options->socket_path);
    if (options->admin_group && options->admin_group[0]) {
        c->admin_group = strdup(options->admin_group);
        if (!c->admin_group)
            return false;
    }
    c->refused_uids = calloc(options->refused_uid_count + 1, sizeof(*c->refused_uids));
    if (!c->refused_uids || !c->socket_path)
        return false;
    c->refused_uid_count = options->refused_uid_count;
    if (options->refused_uid_count)
        memcpy(c->refused_uids, options->refused_uids,
               options->refused_uid_count * sizeof(*c->refused_uids));
    return true;
}

static void warn_missing_group(const struct control *c)
{
    struct group entry, *found = NULL;
    char scratch[16384];

    if (c->admin_group &&
        (getgrnam_r(c->admin_group, &entry, scratch, sizeof(scratch), &found) != 0 || !found))
        log_warn("control admin_group=%s does not exist: only root%s an admin here", c->admin_group,
                 c->owner_uid != (uid_t)-1 && c->owner_uid ? " and the daemon's owner are" : " is");
}

static bool make_events(struct control *c, int fd)
{
    c->reaper = event_new(c->base, -1, 0, on_reap, c);
    c->follow = event_new(c->base, -1, 0, on_follow, c);
    c->accept_again = event_new(c->base, -1, 0, on_accept_again, c);
    c->watch = tracker_watch_add(c->tracker, control_session_changed, c);
    if (!c->reaper || !c->follow || !c->accept_again || !c->watch)
        return false;
    c->listener = evconnlistener_new(c->base, on_accept, c,
                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!c->listener)
        return false;
    evconnlistener_set_error_cb(c->listener, on_accept_error);
    return true;
}

struct control *control_create(struct event_base *base, struct tracker *tracker,
                               struct store *store, const struct control_host *host,
                               const struct control_options *options, char *err, size_t err_len)
{
    struct control *c = calloc(1, sizeof(*c));
    struct stat st;
    int fd;

    if (!c) {
        text_copy(err, err_len, "out of memory");
        return NULL;
    }
    c->base = base;
    c->tracker = tracker;
    c->store = store;
    c->host = *host;
    c->line_ms = CONTROL_LINE_MS;
    TAILQ_INIT(&c->clients);
    if (!copy_options(c, options)) {
        text_copy(err, err_len, "out of memory");
        control_destroy(c);
        return NULL;
    }
    json_set_alloc_funcs(malloc, wiping_free);
    signal(SIGPIPE, SIG_IGN); /* a client that went away is an error of write(), not our end */
    fd = bind_socket(c->socket_path, err, err_len);
    if (fd < 0) {
        control_destroy(c);
        return NULL;
    }
    if (lstat(c->socket_path, &st) == 0) {
        c->socket_dev = st.st_dev;
        c->socket_ino = st.st_ino;
    }
    if (!make_events(c, fd)) {
        text_copy(err, err_len, "out of memory");
        if (!c->listener)
            close(fd);
        control_destroy(c);
        return NULL;
    }
    warn_missing_group(c);
    return c;
}

void control_destroy(struct control *c)
{
    struct control_client *client;
    struct stat st;

    if (!c)
        return;
    while ((client = TAILQ_FIRST(&c->clients)))
        control_client_destroy(client);
    control_orphans_disown(c);
    if (c->watch)
        tracker_watch_remove(c->tracker, c->watch);
    if (c->listener)
        evconnlistener_free(c->listener);
    if (c->reaper)
        event_free(c->reaper);
    if (c->follow)
        event_free(c->follow);
    if (c->accept_again)
        event_free(c->accept_again);
    if (c->socket_ino && lstat(c->socket_path, &st) == 0 && st.st_ino == c->socket_ino &&
        st.st_dev == c->socket_dev)
        unlink(c->socket_path);
    free(c->socket_path);
    free(c->admin_group);
    free(c->refused_uids);
    free(c);
}
