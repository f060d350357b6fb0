/*
 * Jumps: `ssh -J USER@HOST ACCOUNT@TARGET` and what else a client opens from a connection without a
 * target. The connection that carries them (the outer one) is an event; what it carries is a
 * session with a relay of its own, which the gate forks at our word for one end of a socket pair,
 * and which shows the pass that we made for it. Whether the user may go there is asked where it is
 * asked for everybody: in the ROUTE of that relay. Called by the dispatch of links.c.
 */
#include <errno.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/notice.h>
#include <sallyport/text.h>

#include "proxy/broker/dial.h"
#include "proxy/broker/links_parts.h"
#include "proxy/broker/passes.h"
#include "proxy/broker/ticket.h"
#include "tracker/store/store.h"
#include "tracker/tracker.h"

#define JUMPS_PER_LINK 64
#define RELAYS_OF_LINK 128 /* that it has, whatever it says of their ends */
#define CANDIDATES_MAX 16
#define SSH_PORT       22
#define END_OUTER_MS   2000 /* longer than what it carries has to say its last words */
#define REFUSALS_A_MIN 30
#define PAIR_BUFFER    (512 * 1024)

/* ---- where it leads ---- */

enum destination {
    DESTINATION_TARGET,    /* that the user may reach */
    DESTINATION_FORBIDDEN, /* some target has this name or address */
    DESTINATION_OTHER
};

struct candidates {
    const char *host;
    uint16_t port;
    char names[CANDIDATES_MAX][NAME_MAX_LEN + 1];
    bool is_name[CANDIDATES_MAX]; /* else its address was given */
    size_t count;
};

static bool split_address(const char *address, char *host, size_t host_len, uint16_t *port)
{
    char port_text[8];
    uint64_t value;

    if (dial_split(address, host, host_len, port_text, sizeof(port_text)) < 0 ||
        !text_parse_u64(port_text, &value) || value > UINT16_MAX)
        return false;
    *port = (uint16_t)value;
    return true;
}

static void put_address(char *dst, size_t len, const struct link_jump *j)
{
    snprintf(dst, len, strchr(j->host, ':') ? "[%s]:%u" : "%s:%u", j->host, j->port);
}

/* A target goes by its name at its own port or at 22, which is what clients ask for when nobody
 * says otherwise. */
static bool is_port_of(const struct store_target *t, uint16_t port)
{
    char host[SESSION_ADDRESS_MAX];
    uint16_t own = SSH_PORT;

    return port == SSH_PORT || (split_address(t->address, host, sizeof(host), &own) && own == port);
}

/* Clients write host names in small letters, and people give addresses for names. */
static bool look_at_target(const struct store_target *t, void *arg)
{
    struct candidates *c = arg;
    char host[SESSION_ADDRESS_MAX];
    uint16_t port;
    bool is_name = strcasecmp(t->name, c->host) == 0;

    if (t->protocol != PROTOCOL_SSH || (is_name && !is_port_of(t, c->port)))
        return true;
    if (!is_name && (!split_address(t->address, host, sizeof(host), &port) || port != c->port ||
                     strcasecmp(host, c->host) != 0))
        return true;
    c->is_name[c->count] = is_name;
    text_copy(c->names[c->count++], sizeof(c->names[0]), t->name);
    return c->count < CANDIDATES_MAX;
}

static bool may_reach(const struct relay_link *l, const char *target, struct store_target *row)
{
    struct broker *b = l->links->broker;
    struct policy policy = b->config->policy;
    char account[ACCOUNT_MAX_LEN + 1];

    return store_resolve(b->store, l->user, "", target, PROTOCOL_SSH, &policy, row, account) == 0;
}

/* The one candidate of a kind that the user may reach; several are none. */
static bool pick(const struct relay_link *l, const struct candidates *c, bool is_name, char *name)
{
    struct store_target row;
    size_t found = 0;

    for (size_t i = 0; i < c->count; i++) {
        if (c->is_name[i] != is_name || !may_reach(l, c->names[i], &row))
            continue;
        text_copy(name, NAME_MAX_LEN + 1, c->names[i]);
        found++;
    }
    return found == 1;
}

static enum destination find_destination(const struct relay_link *l, const struct link_jump *j,
                                         char name[NAME_MAX_LEN + 1])
{
    struct candidates c = {.host = j->host, .port = j->port};
    char address[sizeof(j->host) + 10];
    struct store_target row;

    if (strlen(j->host) <= NAME_MAX_LEN && may_reach(l, j->host, &row) &&
        is_port_of(&row, j->port)) {
        text_copy(name, NAME_MAX_LEN + 1, j->host);
        return DESTINATION_TARGET;
    }
    put_address(address, sizeof(address), j);
    if (store_targets_called(l->links->broker->store, j->host, address, look_at_target, &c) < 0)
        return DESTINATION_FORBIDDEN;
    if (pick(l, &c, true, name) || pick(l, &c, false, name))
        return DESTINATION_TARGET;
    return c.count ? DESTINATION_FORBIDDEN : DESTINATION_OTHER;
}

/* ---- answers ---- */

static void reply(struct relay_link *l, uint32_t channel, int fd, bool is_passed, const char *text)
{
    struct link_jump_result *r = &link_begin(l, LINK_JUMP_RESULT)->jump_result;

    r->channel = channel;
    r->is_ok = fd >= 0;
    r->is_passed = is_passed;
    text_copy(r->text, sizeof(r->text), text);
    link_say_fds(l, &fd, fd >= 0 ? 1 : 0);
}

/* A client that asks again and again is refused each time and told of now and then. */
static void refuse(struct relay_link *l, const struct link_jump *j, const char *why)
{
    static struct log_limit limit;
    char text[SESSION_TEXT_MAX];

    reply(l, j->channel, -1, false, why);
    if (!log_limit_allows(&limit, REFUSALS_A_MIN, "refused jumps"))
        return;
    snprintf(text, sizeof(text), "%.150s:%u: %.80s", j->host, j->port, why);
    log_info("jump refused user=%s source=%s to=%s", l->user, l->client_address, text);
    link_note(l, "jump-refused", text);
}

static void opened(struct relay_link *l, const struct link_jump *j, const char *target)
{
    char text[SESSION_TEXT_MAX];

    if (!l->is_outer)
        link_note(l, "outer-open", l->device);
    l->is_outer = true;
    l->jump_count++;
    if (*target)
        snprintf(text, sizeof(text), "channel=%u to=%.150s:%u target=%s", j->channel, j->host,
                 j->port, target);
    else
        snprintf(text, sizeof(text), "channel=%u to=%.150s:%u passed", j->channel, j->host,
                 j->port);
    link_note(l, "jump-open", text);
}

/* ---- into a relay of its own ---- */

/* A relay for pair[1], which shows a pass for that target. */
static int hand_to_gate(struct relay_link *l, const struct link_jump *j, const char *target, int fd)
{
    struct broker *b = l->links->broker;
    struct pass pass = {.outer_pid = l->pid,
                        .outer_channel = j->channel,
                        .denies = l->login.cert_denies,
                        .has_second_factor = l->has_second_factor};
    struct link_gate_jump jump = {.client_port = l->client_port};
    int r;

    text_copy(pass.user, sizeof(pass.user), l->user);
    text_copy(pass.target, sizeof(pass.target), target);
    r = passes_issue(l->links->passes, &pass, clock_mono_ms());
    if (r < 0)
        return r;
    text_copy(jump.client_address, sizeof(jump.client_address), l->client_address);
    text_copy(jump.device, sizeof(jump.device), l->device);
    jump.pass.len = (uint16_t)pass_make(b->ticket_key, &pass, jump.pass.data);
    r = jump.pass.len ? gates_jump(b->gates, &jump, fd) : ERR_CRYPTO;
    memory_wipe(&jump, sizeof(jump));
    return r;
}

static void begin_relay(struct relay_link *l, const struct link_jump *j, const char *target)
{
    int pair[2], r, size = PAIR_BUFFER;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0) {
        log_error("a jump has no sockets: %s", strerror(errno));
        refuse(l, j, "the proxy has no room for it now");
        return;
    }
    /* twice the default where the system allows no more: fewer wake-ups for the same bytes */
    for (int i = 0; i < 2; i++)
        (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    r = hand_to_gate(l, j, target, pair[1]);
    close(pair[1]);
    if (r < 0) {
        refuse(l, j,
               r == ERR_FULL ? "too many connections are being made; try again"
                             : "the proxy cannot take it now; try again");
    } else {
        reply(l, j->channel, pair[0], false, "");
        opened(l, j, target);
    }
    close(pair[0]);
}

/* ---- passed on, where the configuration wants that ---- */

struct jump_dial {
    struct links *links;
    uint64_t serial;
    struct link_jump jump;
};

static void dialed(int fd, const char *text, void *arg)
{
    struct jump_dial *d = arg;
    struct relay_link *l = link_by_serial(d->links, d->serial);

    if (l && l->fd >= 0 && l->state != STATE_ENDED && fd >= 0) {
        reply(l, d->jump.channel, fd, true, "");
        opened(l, &d->jump, "");
    } else if (l && l->fd >= 0 && l->state != STATE_ENDED) {
        refuse(l, &d->jump, text);
    }
    if (fd >= 0)
        close(fd);
    free(d);
}

static void pass_on(struct relay_link *l, const struct link_jump *j)
{
    struct broker *b = l->links->broker;
    struct jump_dial *d = malloc(sizeof(*d));
    char address[sizeof(j->host) + 10];

    put_address(address, sizeof(address), j);
    if (d)
        *d = (struct jump_dial){l->links, l->serial, *j};
    if (!d || dial(b->dialer, address, b->config->connect_timeout_s, dialed, d) < 0) {
        free(d);
        refuse(l, j, "it cannot be dialed");
    }
}

static bool has_room(const struct relay_link *l)
{
    const struct relay_link *inner;
    size_t relays = 0;

    TAILQ_FOREACH (inner, &l->links->live, entry)
        relays += inner->outer_pid == l->pid && strcmp(inner->user, l->user) == 0;
    return l->jump_count < JUMPS_PER_LINK && relays < RELAYS_OF_LINK;
}

void link_on_jump(struct relay_link *l, struct link_message *m, int *fds)
{
    const struct link_jump *j = &m->jump;
    enum config_jump allowed = l->links->broker->config->ssh_jump;
    char name[NAME_MAX_LEN + 1] = "";
    enum destination where;

    (void)fds;
    if (l->outer_pid || l->protocol != PROTOCOL_SSH) {
        link_drop(l, "jumps inside a jump");
        return;
    }
    if (allowed == CONFIG_JUMP_OFF || !has_room(l)) {
        refuse(l, j,
               allowed == CONFIG_JUMP_OFF ? "jumps are switched off here"
                                          : "too many on one connection");
        return;
    }
    where = find_destination(l, j, name);
    if (where == DESTINATION_TARGET)
        begin_relay(l, j, name);
    else if (where == DESTINATION_OTHER && allowed == CONFIG_JUMP_ANY &&
             l->login.cert_denies & POLICY_CHANNEL_FORWARD)
        refuse(l, j, "your certificate does not permit forwarding");
    else if (where == DESTINATION_OTHER && allowed == CONFIG_JUMP_ANY)
        pass_on(l, j);
    else if (j->port == SSH_PORT && text_copy(name, sizeof(name), j->host))
        begin_relay(l, j, name); /* whose ROUTE says the sentence to the client */
    else
        refuse(l, j, "it is no target of yours");
}

/* ---- the relay that shows a pass ---- */

bool link_jump_hello(struct relay_link *l, const struct link_hello *h)
{
    struct broker *b = l->links->broker;
    struct pass pass;

    if (h->session_id || h->user[0] || l->protocol != PROTOCOL_SSH ||
        pass_read(b->ticket_key, h->ticket.data, h->ticket.len, &pass) < 0 ||
        passes_take(l->links->passes, &pass, clock_mono_ms()) < 0)
        return false;
    text_copy(l->user, sizeof(l->user), pass.user);
    l->login.cert_denies = pass.denies;
    l->has_second_factor = pass.has_second_factor;
    l->outer_pid = pass.outer_pid;
    l->outer_channel = pass.outer_channel;
    text_copy(l->jump_target, sizeof(l->jump_target), pass.target);
    l->is_settled = true; /* the gate's limits do not know it */
    return link_user_may_log_in(b, l->user);
}

void link_jump_adopted(struct relay_link *l, const struct ticket *t)
{
    l->outer_pid = t->outer_pid;
    l->outer_channel = t->outer_channel;
    text_copy(l->jump_target, sizeof(l->jump_target), t->jump_target);
}

void link_jump_welcome(struct relay_link *l, struct link_welcome *w)
{
    uint64_t idle_s = l->links->broker->config->policy.disconnect_after;

    w->jump_idle_s = (uint32_t)(idle_s > UINT32_MAX ? UINT32_MAX : idle_s);
    if (!l->outer_pid)
        return;
    text_copy(w->user, sizeof(w->user), l->user);
    text_copy(w->jump_target, sizeof(w->jump_target), l->jump_target);
    link_put_ticket(l, &w->ticket.len, w->ticket.data);
}

bool link_jump_refusal(const struct relay_link *l, const char *account, char *text, size_t len)
{
    struct broker *b = l->links->broker;
    struct policy policy = b->config->policy;
    char usual[ACCOUNT_MAX_LEN + 1], shown[64];
    struct store_target row;

    if (!l->outer_pid || store_resolve(b->store, l->user, "", l->jump_target, PROTOCOL_SSH, &policy,
                                       &row, usual) < 0)
        return false;
    text_escape(shown, sizeof(shown), account, strlen(account));
    snprintf(text, len, "you may not be \"%.40s\" at %s; log in as %.100s@%s", shown,
             l->jump_target, usual, l->jump_target);
    return true;
}

/* ---- ends ---- */

static bool is_carried_by(const struct relay_link *inner, const struct relay_link *outer)
{
    return inner->outer_pid == outer->pid && inner->fd >= 0 && !inner->is_detached &&
           strcmp(inner->user, outer->user) == 0;
}

void link_on_jump_closed(struct relay_link *l, struct link_message *m, int *fds)
{
    static const char *const by[] = {"client", "target", "connection"};
    const struct link_jump_closed *c = &m->jump_closed;
    struct relay_link *inner;
    char text[128];

    (void)fds;
    l->is_outer = true;
    if (l->jump_count > 0)
        l->jump_count--;
    snprintf(text, sizeof(text), "channel=%u in=%llu out=%llu by=%s", c->channel,
             (unsigned long long)c->bytes_in, (unsigned long long)c->bytes_out, by[c->by]);
    link_note(l, "jump-close", text);
    if (c->by == LINK_JUMP_BY_OUTER)
        return;
    TAILQ_FOREACH (inner, &l->links->live, entry)
        if (is_carried_by(inner, l) && inner->outer_channel == c->channel)
            inner->is_detached = true; /* it ended for its own reasons, whatever comes now */
}

static void end_inner(struct relay_link *inner, enum end_reason reason, const char *author,
                      const char *text)
{
    struct broker *b = inner->links->broker;

    inner->is_detached = true;
    if (inner->state == STATE_ENDED)
        return;
    if (!inner->session_id)
        links_relay_ops.end(inner, reason, author, text);
    else if (tracker_end(b->tracker, inner->session_id, reason, author, text, 0) < 0)
        log_debug("session %llu is not there to be ended", (unsigned long long)inner->session_id);
}

void link_jump_outer_over(struct relay_link *l, enum end_reason reason, const char *author,
                          const char *text)
{
    struct relay_link *inner;

    if (l->outer_pid || !l->user[0])
        return;
    TAILQ_FOREACH (inner, &l->links->live, entry)
        if (is_carried_by(inner, l))
            end_inner(inner, reason, author, text);
}

bool link_jump_closed_note(struct relay_link *l, const struct link_closed *c)
{
    char text[SESSION_TEXT_MAX];

    if (!l->is_outer && (l->session_id || l->outer_pid || !(c->bytes_in || c->bytes_out)))
        return false;
    snprintf(text, sizeof(text), "%s in=%llu out=%llu: %.150s",
             end_reason_name((enum end_reason)c->reason), (unsigned long long)c->bytes_in,
             (unsigned long long)c->bytes_out, c->text);
    link_note(l, "outer-close", text);
    return true;
}

void link_end_choosing(struct relay_link *l, enum end_reason reason, const char *author,
                       const char *text)
{
    const struct timeval deadline = {END_OUTER_MS / 1000, END_OUTER_MS % 1000 * 1000};
    struct link_end *e;

    if (l->is_end_sent || l->fd < 0)
        return;
    l->is_end_sent = true;
    e = &link_begin(l, LINK_END)->end;
    e->reason = (uint8_t)reason;
    e->deadline_ms = END_OUTER_MS;
    text_copy(e->author, sizeof(e->author), author);
    notice_end(e->text, sizeof(e->text), reason, author, text, &l->links->broker->config->policy);
    link_say(l);
    event_add(l->timer, &deadline);
}

void links_end_choosing(struct links *all, enum end_reason reason, const char *author,
                        const char *text)
{
    struct relay_link *l;

    TAILQ_FOREACH (l, &all->live, entry)
        if (l->state == STATE_CHOOSING && !l->session_id)
            link_end_choosing(l, reason, author, text);
}
