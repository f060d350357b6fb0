/*
 * Commands of the user's own door: door.h. One record a process; it is made at LINK_DOOR, told of
 * at its end (SIGCHLD), and ended with its channel, its link, or after its time. Never more than a
 * few at once for one user, and some places are kept for admins.
 */
#include "proxy/broker/door.h"

#include <event2/event.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/door.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "control/control.h"
#include "proxy/broker/broker.h"
#include "proxy/broker/door_exec.h"
#include "proxy/broker/links_parts.h"
#include "proxy/broker/program.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"

#define COMMANDS_MAX      32 /* at once, in all: half of what the control socket serves */
#define COMMANDS_PER_USER 8
#define COMMANDS_KEPT     4 /* for admin words, whoever else is there */
#define REFUSED_USAGE     2 /* exit codes as sallyctl's */
#define REFUSED_BUSY      1
#define REFUSED_RIGHTS    4
#define WORDS_IN_EVENT    96

/* Why it was ended from here. */
enum command_end { COMMAND_RUNS, COMMAND_OVERDUE, COMMAND_WITHDRAWN };

struct door_command {
    TAILQ_ENTRY(door_command) entry;
    struct door *door;    /* not owned */
    uint64_t link_serial; /* 0: nobody wants to hear of its end */
    uint32_t channel;
    pid_t pid;
    int master; /* of its terminal, for the size; -1 none */
    struct event *timer;
    enum command_end end;
    bool is_admin;
    char user[NAME_MAX_LEN + 1];
};

struct door {
    struct broker *broker; /* not owned */
    TAILQ_HEAD(, door_command) commands;
    size_t count;
    char program[512];
};

struct door *door_create(struct broker *b)
{
    struct door *d = calloc(1, sizeof(*d));

    if (!d)
        return NULL;
    d->broker = b;
    TAILQ_INIT(&d->commands);
    program_find("sallyctl", SALLYPORT_BINDIR, d->program, sizeof(d->program));
    if (access(d->program, X_OK) < 0)
        log_warn("%s is not there: users have no commands of their own over SSH", d->program);
    return d;
}

static void forget(struct door_command *c)
{
    TAILQ_REMOVE(&c->door->commands, c, entry);
    c->door->count--;
    if (c->master >= 0)
        close(c->master);
    if (c->timer)
        event_free(c->timer);
    free(c);
}

/* Its record goes when it is reaped; until then the number is its own. */
static void end_command(struct door_command *c)
{
    if (kill(c->pid, SIGKILL) < 0)
        log_debug("command pid=%d is gone already", (int)c->pid);
}

void door_destroy(struct door *d)
{
    struct door_command *c;

    if (!d)
        return;
    while ((c = TAILQ_FIRST(&d->commands))) {
        end_command(c);
        forget(c);
    }
    free(d);
}

void door_link_gone(struct door *d, uint64_t link_serial)
{
    struct door_command *c;

    if (!d)
        return;
    TAILQ_FOREACH (c, &d->commands, entry) {
        if (c->link_serial != link_serial)
            continue;
        c->link_serial = 0;
        end_command(c);
    }
}

void door_describe(const struct broker *b, struct control_status *out)
{
    const struct config *c = b->config;
    const char *listen = c->ssh_listen.count ? c->ssh_listen.items[0] : "";
    const char *port = strrchr(listen, ':');

    text_copy(out->ssh_address, sizeof(out->ssh_address), c->ssh_public_address);
    snprintf(out->ssh_fallback, sizeof(out->ssh_fallback), "%s:%s", c->node,
             port && port[1] ? port + 1 : "22");
}

/* ---- ends ---- */

static void say_exit(struct relay_link *l, const struct door_command *c, int status)
{
    struct link_door_exit *e = &link_begin(l, LINK_DOOR_EXIT)->door_exit;
    char words[64];

    e->channel = c->channel;
    e->exit_status = (uint8_t)(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    if (c->end == COMMAND_WITHDRAWN)
        snprintf(e->text, sizeof(e->text),
                 "sallyport: ended, since admin words are not for this login any more");
    else if (c->end == COMMAND_OVERDUE)
        snprintf(e->text, sizeof(e->text), "sallyport: ended, since it took longer than %s",
                 text_duration_words(words, sizeof(words),
                                     l->links->broker->config->ssh_door_timeout_s));
    else if (WIFSIGNALED(status) && WTERMSIG(status) != SIGINT && WTERMSIG(status) != SIGPIPE)
        snprintf(e->text, sizeof(e->text), "sallyport: the command was ended by signal %d",
                 WTERMSIG(status));
    else if (WIFEXITED(status) && WEXITSTATUS(status) >= 126)
        snprintf(e->text, sizeof(e->text), "sallyport: the command cannot be started here");
    link_say(l);
}

bool door_reaped(struct door *d, pid_t pid, int status)
{
    struct door_command *c;
    struct relay_link *l;

    if (!d)
        return false;
    TAILQ_FOREACH (c, &d->commands, entry)
        if (c->pid == pid)
            break;
    if (!c)
        return false;
    l = c->link_serial ? link_by_serial(d->broker->links, c->link_serial) : NULL;
    if (l && l->fd >= 0)
        say_exit(l, c, status);
    if (WIFEXITED(status) && WEXITSTATUS(status) >= 126)
        log_error("%s cannot be started for a user (status %d)", d->program, WEXITSTATUS(status));
    forget(c);
    return true;
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    struct door_command *c = arg;

    (void)fd, (void)what;
    c->end = COMMAND_OVERDUE;
    end_command(c);
}

/* ---- who may say what ---- */

/* Why not: the exit status and a line for stderr. */
struct refusal {
    uint8_t exit_status;
    char text[512];
};

static bool PRINTF_LIKE(3, 4) refuse(struct refusal *why, uint8_t exit_status, const char *fmt, ...)
{
    va_list ap;

    why->exit_status = exit_status;
    va_start(ap, fmt);
    vsnprintf(why->text, sizeof(why->text), fmt, ap);
    va_end(ap);
    return false;
}

static bool has_role(const struct relay_link *l)
{
    struct store_user user;

    return store_user_get(l->links->broker->store, l->user, &user) == 0 && !user.is_locked &&
           (strcmp(user.role, "admin") == 0 || strcmp(user.role, "auditor") == 0);
}

static bool may_be_admin(const struct relay_link *l, struct refusal *why)
{
    if (!has_role(l))
        return refuse(why, REFUSED_RIGHTS, "admin: you are neither an admin nor an auditor");
    switch (l->links->broker->config->admin_over_ssh) {
    case CONFIG_ADMIN_YES:
        return true;
    case CONFIG_ADMIN_TOTP:
        return l->has_second_factor ||
               refuse(why, REFUSED_RIGHTS,
                      "admin: it takes a second factor at the login, and this one had none, or "
                      "the daemon was started anew since ([control] admin_over_ssh)");
    default:
        return refuse(why, REFUSED_RIGHTS,
                      "admin: switched off over SSH here ([control] admin_over_ssh)");
    }
}

void door_rights_changed(struct door *d)
{
    struct door_command *c;
    struct refusal why;

    TAILQ_FOREACH (c, &d->commands, entry) {
        const struct relay_link *l = link_by_serial(d->broker->links, c->link_serial);

        if (!c->is_admin || c->end != COMMAND_RUNS || !l || may_be_admin(l, &why))
            continue;
        c->end = COMMAND_WITHDRAWN;
        end_command(c);
    }
}

static bool has_room(const struct door *d, const struct relay_link *l, bool is_admin,
                     struct refusal *why)
{
    const struct door_command *c;
    size_t mine = 0;

    TAILQ_FOREACH (c, &d->commands, entry)
        mine += strcmp(c->user, l->user) == 0;
    if (mine >= COMMANDS_PER_USER)
        return refuse(why, REFUSED_BUSY,
                      "%d commands of yours are running already; try again when one has ended",
                      COMMANDS_PER_USER);
    if (d->count + (is_admin ? 0 : COMMANDS_KEPT) >= COMMANDS_MAX)
        return refuse(why, REFUSED_BUSY, "too many commands are running here; try again later");
    return true;
}

/* The row of the table that a line says, or a refusal. */
static const struct door_word *understand(const struct relay_link *l, const char *command,
                                          struct door_line *line, size_t *used, struct refusal *why)
{
    const struct door_word *row;
    char err[128], list[160], word[64];

    if (door_split(line, command, err, sizeof(err)) < 0) {
        (void)refuse(why, REFUSED_USAGE, "%s", err);
        return NULL;
    }
    row = door_find(line, used);
    if (!row) {
        door_list(list, sizeof(list), has_role(l));
        text_escape(word, sizeof(word), line->count ? line->words[0] : "",
                    line->count ? strlen(line->words[0]) : 0);
        (void)refuse(why, REFUSED_USAGE,
                     "no command \"%s\" here: there are %s; for a target: ssh USER+TARGET@HOST",
                     word, list);
    }
    return row;
}

/* ---- starting ---- */

/* What was asked, for the audit log: of the user's own words the first (what follows may be a
 * secret in the wrong place), of an admin's those that name the command. */
static void note(struct relay_link *l, const struct door_line *line, size_t used, bool is_admin)
{
    char text[WORDS_IN_EVENT] = "";
    size_t count = is_admin ? used + 2 : used, at = 0;

    for (size_t i = 0; i < count && i < line->count && at + 1 < sizeof(text); i++) {
        if (i >= used && line->words[i][0] == '-')
            break;
        at +=
            (size_t)snprintf(text + at, sizeof(text) - at, "%s%.40s", i ? " " : "", line->words[i]);
    }
    link_note(l, "door", text);
}

static int connect_control(struct relay_link *l, const struct link_door *asked, bool is_admin,
                           int *theirs)
{
    struct control_guest guest = {.may_have_role = is_admin,
                                  .may_not_add_keys = l->login.cert_denies & DENY_KEYS};
    int pair[2], r;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    text_copy(guest.user, sizeof(guest.user), l->user);
    text_copy(guest.source, sizeof(guest.source), l->client_address);
    text_copy(guest.address, sizeof(guest.address), asked->address);
    *theirs = pair[1];
    if (fcntl(pair[0], F_SETFL, O_NONBLOCK) < 0) {
        close(pair[0]);
        r = ERR_SYSTEM;
    } else {
        r = control_adopt(l->links->broker->control, pair[0], &guest);
    }
    if (r < 0)
        close(pair[1]);
    return r;
}

static struct door_command *add_command(struct door *d, const struct relay_link *l,
                                        const struct link_door *asked, const struct door_process *p,
                                        bool is_admin)
{
    struct door_command *c = calloc(1, sizeof(*c));
    uint32_t limit_s = d->broker->config->ssh_door_timeout_s;
    const struct timeval limit = {(time_t)limit_s, 0};

    if (!c)
        return NULL;
    c->door = d;
    c->link_serial = l->serial;
    c->channel = asked->channel;
    c->pid = p->pid;
    c->is_admin = is_admin;
    c->master = asked->has_pty ? fcntl(p->fds[0], F_DUPFD_CLOEXEC, 3) : -1;
    text_copy(c->user, sizeof(c->user), l->user);
    TAILQ_INSERT_TAIL(&d->commands, c, entry);
    d->count++;
    if (!asked->has_pty && limit_s) {
        c->timer = event_new(d->broker->base, -1, 0, timer_cb, c);
        if (c->timer)
            event_add(c->timer, &limit);
    }
    return c;
}

static int run(struct door *d, struct relay_link *l, const struct link_door *asked,
               const char *const *argv, bool is_admin)
{
    struct door_exec e = {.identity = &d->broker->identity,
                          .program = d->program,
                          .argv = argv,
                          .has_pty = asked->has_pty,
                          .cols = asked->cols,
                          .rows = asked->rows,
                          .term = asked->term};
    struct door_process p;
    int r = connect_control(l, asked, is_admin, &e.control_fd);

    if (r < 0)
        return r;
    r = door_exec(&e, &p);
    close(e.control_fd);
    if (r < 0)
        return r;
    if (!add_command(d, l, asked, &p, is_admin)) {
        kill(p.pid, SIGKILL); /* reaped as nobody's */
        r = ERR_MEMORY;
    } else {
        struct link_door_result *result = &link_begin(l, LINK_DOOR_RESULT)->door_result;

        result->channel = asked->channel;
        result->is_ok = 1;
        link_say_fds(l, p.fds, asked->has_pty ? 1 : 3);
    }
    for (size_t i = 0; i < sizeof(p.fds) / sizeof(p.fds[0]); i++)
        if (p.fds[i] >= 0)
            close(p.fds[i]);
    return r;
}

static bool open_command(struct door *d, struct relay_link *l, const struct link_door *asked,
                         struct refusal *why)
{
    const char *argv[DOOR_WORDS_MAX + 8] = {"sallyctl"};
    const struct door_word *row;
    struct door_line line;
    char scratch[64];
    size_t used, count;

    row = understand(l, asked->command, &line, &used, why);
    if (!row || !has_room(d, l, row->is_admin, why))
        return false;
    if (row->is_admin && !may_be_admin(l, why)) {
        link_note(l, "door-refused", why->text);
        return false;
    }
    count = door_argv(&line, row, used, scratch, sizeof(scratch), argv + 1, DOOR_WORDS_MAX + 6);
    argv[count + 1] = NULL;
    note(l, &line, used, row->is_admin);
    if (run(d, l, asked, argv, row->is_admin) < 0)
        return refuse(why, REFUSED_BUSY, "the command cannot be started now; try again");
    return true;
}

/* ---- the message ---- */

static void resize(const struct door_command *c, uint16_t cols, uint16_t rows)
{
    const struct winsize size = {.ws_col = cols, .ws_row = rows};

    if (c->master >= 0 && ioctl(c->master, TIOCSWINSZ, &size) < 0)
        log_debug("a terminal cannot be resized");
}

static struct door_command *find(const struct door *d, const struct relay_link *l, uint32_t channel)
{
    struct door_command *c;

    TAILQ_FOREACH (c, &d->commands, entry)
        if (c->link_serial == l->serial && c->channel == channel)
            return c;
    return NULL;
}

static void open_message(struct door *d, struct relay_link *l, const struct link_door *asked)
{
    struct refusal why = {.exit_status = REFUSED_BUSY};
    struct link_door_result *result;

    if (l->state != STATE_CHOOSING)
        (void)refuse(&why, REFUSED_BUSY, "there is a target already");
    else if (open_command(d, l, asked, &why))
        return;
    result = &link_begin(l, LINK_DOOR_RESULT)->door_result;
    result->channel = asked->channel;
    result->exit_status = why.exit_status;
    text_copy(result->text, sizeof(result->text), why.text);
    link_say(l);
}

void link_on_door(struct relay_link *l, struct link_message *m, int *fds)
{
    struct door *d = l->links->broker->door;
    struct door_command *c = find(d, l, m->door.channel);

    (void)fds;
    if (m->door.change == LINK_DOOR_OPEN) {
        open_message(d, l, &m->door);
    } else if (c && m->door.change == LINK_DOOR_RESIZE) {
        resize(c, m->door.cols, m->door.rows);
    } else if (c) {
        c->link_serial = 0;
        end_command(c);
    }
}
