/*
 * Requests on a channel: what the client asks for before and while something runs. libssh can have
 * one request under way on a channel, so each channel has a queue whose head is sent to the target
 * and whose answer goes back as it came. Without a target they are answered here and kept, to be
 * asked again once one is chosen. Steps of a turn; signals come from a callback and only queue.
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/ssh/kind.h"

#define MOSH_TEXT      "mosh needs UDP, which does not pass this proxy: use ssh"
#define TEXT_MAX       65536 /* of a command; libssh's packets are below 256 KiB */
#define NAME_MAX_BYTES 256
#define SIZE_MAX_CELLS 1000
#define COOKIE_MAX     1024

struct request_row {
    int subtype; /* of libssh's message; -1 for none */
    const char *name;
    bool starts; /* something runs after it, and it comes once */
    /* Take the message's fields; false when they are not acceptable. */
    bool (*read)(struct channel *c, struct request *r);
    int (*send)(struct channel *c, struct request *r); /* SSH_OK, SSH_AGAIN or SSH_ERROR */
};

static char *copy_text(const char *text, size_t max)
{
    return text && strlen(text) <= max ? strdup(text) : NULL;
}

static uint16_t clamp_cells(int n, uint16_t otherwise)
{
    if (n <= 0)
        return otherwise;
    return n > SIZE_MAX_CELLS ? SIZE_MAX_CELLS : (uint16_t)n;
}

/* ---- one group for each row of the table ---- */

static bool read_pty(struct channel *c, struct request *r)
{
    if (c->has_pty || c->has_started)
        return false;
    r->text = copy_text(ssh_message_channel_request_pty_term(r->message), sizeof(c->term) - 1);
    r->cols = clamp_cells(ssh_message_channel_request_pty_width(r->message), 80);
    r->rows = clamp_cells(ssh_message_channel_request_pty_height(r->message), 24);
    return r->text != NULL;
}

static void set_pty(struct channel *c, const struct request *r)
{
    c->has_pty = true;
    text_copy(c->term, sizeof(c->term), r->text);
    c->cols = r->cols;
    c->rows = r->rows;
    terminal_init(&c->terminal, c->cols, c->rows);
}

static int send_pty(struct channel *c, struct request *r)
{
    int rc = ssh_channel_request_pty_size(c->target.ssh, r->text, r->cols, r->rows);

    if (rc == SSH_OK)
        set_pty(c, r);
    return rc;
}

static bool read_env(struct channel *c, struct request *r)
{
    if (c->env_count >= CHANNEL_ENV_MAX)
        return false;
    r->text = copy_text(ssh_message_channel_request_env_name(r->message), NAME_MAX_BYTES);
    r->value = copy_text(ssh_message_channel_request_env_value(r->message), 4096);
    if (!r->text || !r->value)
        return false;
    c->env_count++;
    return true;
}

static int send_env(struct channel *c, struct request *r)
{
    return ssh_channel_request_env(c->target.ssh, r->text, r->value);
}

static bool read_resize(struct channel *c, struct request *r)
{
    r->cols = clamp_cells(ssh_message_channel_request_pty_width(r->message), c->cols);
    r->rows = clamp_cells(ssh_message_channel_request_pty_height(r->message), c->rows);
    return true;
}

static void resized(struct channel *c, const struct request *r)
{
    if (!c->has_pty)
        return;
    c->cols = r->cols;
    c->rows = r->rows;
    terminal_resize(&c->terminal, c->cols, c->rows);
    record_resize(c);
}

static int send_resize(struct channel *c, struct request *r)
{
    if (!r->is_own)
        resized(c, r);
    return ssh_channel_change_pty_size(c->target.ssh, r->cols, r->rows);
}

static bool read_shell(struct channel *c, struct request *r)
{
    (void)r;
    c->kind = CHANNEL_SHELL;
    return true;
}

static int send_shell(struct channel *c, struct request *r)
{
    (void)r;
    return ssh_channel_request_shell(c->target.ssh);
}

static bool read_exec(struct channel *c, struct request *r)
{
    r->text = copy_text(ssh_message_channel_request_command(r->message), TEXT_MAX);
    if (!r->text)
        return false;
    c->kind = kind_of_command(r->text);
    return true;
}

static int send_exec(struct channel *c, struct request *r)
{
    return ssh_channel_request_exec(c->target.ssh, r->text);
}

static bool read_subsystem(struct channel *c, struct request *r)
{
    r->text = copy_text(ssh_message_channel_request_subsystem(r->message), NAME_MAX_BYTES);
    if (!r->text)
        return false;
    c->kind = CHANNEL_SUBSYSTEM;
    return true;
}

static int send_subsystem(struct channel *c, struct request *r)
{
    return ssh_channel_request_subsystem(c->target.ssh, r->text);
}

static int send_signal(struct channel *c, struct request *r)
{
    return ssh_channel_request_send_signal(c->target.ssh, r->text);
}

static bool read_x11(struct channel *c, struct request *r)
{
    const char *protocol = ssh_message_channel_request_x11_auth_protocol(r->message);
    const char *cookie = ssh_message_channel_request_x11_auth_cookie(r->message);

    (void)c;
    r->text = copy_text(protocol, NAME_MAX_BYTES);
    r->value = copy_text(cookie, COOKIE_MAX);
    r->is_single = ssh_message_channel_request_x11_single_connection(r->message) != 0;
    r->screen = (uint32_t)ssh_message_channel_request_x11_screen_number(r->message);
    return r->text && r->value;
}

static int send_x11(struct channel *c, struct request *r)
{
    int rc =
        ssh_channel_request_x11(c->target.ssh, r->is_single, r->text, r->value, (int)r->screen);

    if (rc == SSH_OK)
        c->session->passes_x11 = true;
    return rc;
}

static int send_agent(struct channel *c, struct request *r)
{
    int rc = ssh_channel_request_auth_agent(c->target.ssh);

    (void)r;
    if (rc == SSH_OK)
        c->session->passes_agent = true;
    return rc;
}

static const struct request_row rows[] = {
    {SSH_CHANNEL_REQUEST_PTY, "pty-req", false, read_pty, send_pty},
    {SSH_CHANNEL_REQUEST_ENV, "env", false, read_env, send_env},
    {SSH_CHANNEL_REQUEST_WINDOW_CHANGE, "window-change", false, read_resize, send_resize},
    {SSH_CHANNEL_REQUEST_SHELL, "shell", true, read_shell, send_shell},
    {SSH_CHANNEL_REQUEST_EXEC, "exec", true, read_exec, send_exec},
    {SSH_CHANNEL_REQUEST_SUBSYSTEM, "subsystem", true, read_subsystem, send_subsystem},
    {SSH_CHANNEL_REQUEST_X11, "x11-req", false, read_x11, send_x11},
    {-1, "signal", false, NULL, send_signal},
    {-1, "auth-agent-req", false, NULL, send_agent},
};

#define ROW_PTY    (&rows[0])
#define ROW_RESIZE (&rows[2])
#define ROW_X11    (&rows[6])
#define ROW_SIGNAL (&rows[7])
#define ROW_AGENT  (&rows[8])

static const struct request_row *find_row(int subtype)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].subtype == subtype && rows[i].read)
            return &rows[i];
    }
    return NULL; /* break, and what libssh does not know */
}

/* ---- the queue ---- */

static void request_free(struct request *r)
{
    if (r->message)
        ssh_message_free(r->message);
    free(r->text);
    free(r->value);
    free(r);
}

static void drop_head(struct channel *c)
{
    struct request *r = STAILQ_FIRST(&c->requests);

    STAILQ_REMOVE_HEAD(&c->requests, link);
    c->request_count--;
    request_free(r);
}

void request_clear(struct channel *c)
{
    while (!STAILQ_EMPTY(&c->requests))
        drop_head(c);
}

static void append(struct channel *c, struct request *r)
{
    STAILQ_INSERT_TAIL(&c->requests, r, link);
    c->request_count++;
}

static void answer(struct request *r, bool is_ok)
{
    if (!r->message)
        return;
    if (is_ok)
        (void)ssh_message_channel_request_reply_success(r->message);
    else
        (void)ssh_message_reply_default(r->message);
    ssh_message_free(r->message);
    r->message = NULL;
}

static void add_own(struct channel *c, const struct request_row *row, const char *text,
                    uint16_t cols, uint16_t lines)
{
    struct request *r;

    if (c->request_count >= CHANNEL_QUEUE_MAX || !(r = calloc(1, sizeof(*r))))
        return;
    r->row = row;
    r->is_own = true;
    r->cols = cols;
    r->rows = lines;
    if (text && !(r->text = strdup(text))) {
        free(r);
        return;
    }
    append(c, r);
}

void request_add_signal(struct channel *c, const char *name)
{
    if (strlen(name) <= 32)
        add_own(c, ROW_SIGNAL, name, 0, 0);
}

void request_add_agent(struct channel *c)
{
    add_own(c, ROW_AGENT, NULL, 0, 0);
}

void request_add_resize(struct channel *c, uint16_t cols, uint16_t lines)
{
    add_own(c, ROW_RESIZE, NULL, cols, lines);
}

/* ---- from the client ---- */

static bool has_start(const struct channel *c)
{
    const struct request *r;

    STAILQ_FOREACH (r, &c->requests, link) {
        if (r->row->starts)
            return true;
    }
    return c->has_started;
}

static void resize_kept_pty(struct channel *c)
{
    struct request *r;

    STAILQ_FOREACH (r, &c->requests, link) {
        if (r->row == ROW_PTY) {
            r->cols = c->cols;
            r->rows = c->rows;
        }
    }
}

/* Without a target: say yes, keep it for later, and let the menu see it. */
static void take_local(struct channel *c, struct request *r)
{
    const struct request_row *row = r->row;

    if (row == ROW_PTY)
        set_pty(c, r);
    answer(r, true);
    if (row == ROW_RESIZE) {
        resized(c, r);
        resize_kept_pty(c);
        request_free(r);
    } else {
        append(c, r);
    }
    if (row->starts || row == ROW_RESIZE)
        choose_request(c, row->starts);
}

static struct request *read_message(struct channel *c, ssh_message message)
{
    const struct request_row *row = find_row(ssh_message_subtype(message));
    struct request *r;

    if (!row || !row->read || c->forward || c->request_count >= CHANNEL_QUEUE_MAX ||
        (row->starts && has_start(c)) || !(r = calloc(1, sizeof(*r))))
        return NULL;
    r->row = row;
    r->message = message;
    if (row->read(c, r))
        return r;
    r->message = NULL; /* the caller refuses it */
    request_free(r);
    return NULL;
}

void request_message(struct session *s, ssh_message message)
{
    struct channel *c = channel_find(s, ssh_message_channel_request_channel(message));
    /* what has its exit status and our close behind it runs nothing any more */
    bool is_open = c && c->state != CHANNEL_DONE && !c->user.sent_close;
    struct request *r = is_open ? read_message(c, message) : NULL;

    if (!r) {
        (void)ssh_message_reply_default(message);
        ssh_message_free(message);
        return;
    }
    if (r->row->starts) {
        free(c->command);
        c->command = strdup(r->text ? r->text : "");
    }
    if (c->state == CHANNEL_LOCAL) {
        take_local(c, r);
        return;
    }
    append(c, r);
}

/* ---- to the target ---- */

static void started(struct channel *c, bool is_ok)
{
    c->has_started = is_ok;
    c->is_told = is_ok;
    c->started_ms = clock_mono_ms();
    if (!is_ok && c->record == RECORD_OFF)
        c->record = RECORD_NONE; /* what is started instead may have to be recorded */
    if (is_ok)
        audit_start(c);
    channel_tell(c, is_ok ? LINK_CHANNEL_OPENED : LINK_CHANNEL_REFUSED);
}

/* What a request asks for, as the policy has it; 0: nothing that it knows. */
static unsigned kind_of_request(const struct channel *c, const struct request *r)
{
    if (r->row == ROW_X11)
        return POLICY_CHANNEL_X11;
    if (r->row == ROW_AGENT)
        return POLICY_CHANNEL_AGENT;
    if (!r->row->starts)
        return 0;
    if (c->kind == CHANNEL_SHELL)
        return POLICY_CHANNEL_SHELL;
    if (c->kind == CHANNEL_SUBSYSTEM && c->command && strcmp(c->command, "sftp") == 0)
        return POLICY_CHANNEL_SFTP;
    return POLICY_CHANNEL_EXEC; /* other subsystems too: programs of the target by another name */
}

static const char *refused_text(unsigned kind)
{
    switch (kind) {
    case POLICY_CHANNEL_X11:
        return "X11 forwarding";
    case POLICY_CHANNEL_AGENT:
        return "agent forwarding";
    case POLICY_CHANNEL_SHELL:
        return "a shell";
    case POLICY_CHANNEL_SFTP:
        return "sftp";
    default:
        return "a command";
    }
}

/* True when the policy does not allow the request, which is answered then: with yes, when something
 * would start, as a client that is told no does not show what came on stderr. */
static bool refuse(struct channel *c, struct request *r)
{
    unsigned kind = kind_of_request(c, r);

    if (kind == 0 || refuse_is_allowed(c->session, kind))
        return false;
    answer(r, r->row->starts);
    if (r->row->starts)
        refuse_start(c, kind, refused_text(kind));
    else
        refuse_tell(c->session, kind, refused_text(kind));
    drop_head(c);
    return true;
}

/* mosh runs its server over SSH and then leaves SSH for UDP: past the proxy, or into nothing. The
 * user is told why, where the server's first words would stand. */
static void refuse_mosh(struct channel *c, struct request *r)
{
    const char *text = MOSH_TEXT "\r\n";

    log_info("command refused: " MOSH_TEXT);
    relay_event(c->session->relay, "channel-refused", MOSH_TEXT);
    answer(r, true);
    drop_head(c);
    (void)pump_show(c, text, strlen(text), !c->has_pty);
    channel_exit_local(c, 1);
}

void request_step(struct channel *c)
{
    struct request *r;

    while (c->state == CHANNEL_OPEN && (r = STAILQ_FIRST(&c->requests))) {
        int rc = SSH_ERROR;

        if (c->target.leg->state != LEG_UP || c->target.sent_close ||
            (c->target.got_close && c->user.sent_close))
            return;
        if (r->row->starts && r->text && kind_is_mosh(r->text)) {
            refuse_mosh(c, r);
            return;
        }
        if (!r->is_sent && refuse(c, r))
            continue;
        if (!r->is_sent && !c->target.got_close && r->row->starts && !record_is_ready(c))
            return;
        if (r->is_sent || !c->target.got_close)
            rc = r->row->send(c, r); /* once more after a close: its answer came just before */
        if (rc == SSH_AGAIN && !c->target.got_close) {
            r->is_sent = true;
            return;
        }
        if (r->row->starts)
            started(c, rc == SSH_OK);
        answer(r, rc == SSH_OK);
        drop_head(c);
    }
}
