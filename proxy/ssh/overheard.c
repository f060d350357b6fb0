/*
 * Two requests of a client are refused inside libssh, without a message for us: the forwarding of
 * sockets by the target (streamlocal-forward@openssh.com), which it does not know, and that of the
 * agent where no callback wants it. Its log says so, which is where this listens, while the
 * client's leg is driven. Nothing is decided by it: an unheard refusal is as refused, only untold.
 * Called by session.c.
 */
#include "proxy/ssh/session.h"

#include <string.h>

#if LIBSSH_VERSION_INT >= SSH_VERSION_INT(0, 11, 0)
#define LEVEL SSH_LOG_DEBUG
#else
#define LEVEL SSH_LOG_PROTOCOL
#endif

static const struct overheard_row {
    const char *words;
    enum policy_channel kind;
    const char *what;
} rows[] = {
    {"UNKNOWN SSH_MSG_GLOBAL_REQUEST streamlocal-forward@openssh.com", POLICY_CHANNEL_STREAMLOCAL,
     "forwarding of a socket by the target (-R with a path)"},
    {"Received an auth-agent-req request", POLICY_CHANNEL_AGENT, "agent forwarding"},
};

#define COUNT (sizeof(rows) / sizeof(rows[0]))

static bool has_heard[COUNT];

static void on_log(int level, const char *function, const char *text, void *arg)
{
    (void)level;
    (void)function;
    (void)arg;
    for (size_t i = 0; i < COUNT; i++) {
        if (strstr(text, rows[i].words)) /* the name of the function stands before them */
            has_heard[i] = true;
    }
}

void overheard_begin(void)
{
    (void)ssh_set_log_callback(on_log);
    (void)ssh_set_log_level(LEVEL);
}

/* A request for the agent that is allowed was heard by its callback too. */
static bool is_refused(const struct session *s, const struct overheard_row *row)
{
    if (row->kind != POLICY_CHANNEL_AGENT)
        return true;
    return s->phase == PHASE_RELAYING && !refuse_is_allowed(s, row->kind);
}

void overheard_end(struct session *s)
{
    (void)ssh_set_log_level(SSH_LOG_NOLOG);
    for (size_t i = 0; i < COUNT; i++) {
        if (has_heard[i] && is_refused(s, &rows[i]))
            refuse_tell(s, rows[i].kind, rows[i].what);
        has_heard[i] = false;
    }
}
