/* Conversations with sallyport-pam; see pam.h. */
#include "proxy/broker/pam.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/pam_talk.h>
#include <sallyport/secret.h>

#include "proxy/broker/program.h"

#define HELPER_LINK_FD 3

struct pam_helper {
    struct event_base *base; /* not owned */
    char service[64];
    pid_t pid; /* 0: is gone */
    int link;
    TAILQ_HEAD(, pam_conversation) dead;
    struct event *sweep; /* frees them */
};

struct pam_conversation {
    TAILQ_ENTRY(pam_conversation) entry; /* of the dead */
    struct pam_helper *helper;           /* not owned */
    int fd;                              /* -1: is dead */
    struct event *readable;
    struct pam_answers answers;
    void *arg;
    bool is_over;
};

/* ---- the helper ---- */

static void helper_exec(const char *program, int link)
{
    if (link != HELPER_LINK_FD && dup2(link, HELPER_LINK_FD) < 0)
        _exit(127);
    fcntl(HELPER_LINK_FD, F_SETFD, 0);
    close_range(HELPER_LINK_FD + 1, ~0u, 0);
    execl(program, "sallyport-pam", (char *)NULL);
    _exit(127);
}

static int spawn(struct pam_helper *p, const char *program)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return ERR_SYSTEM;
    p->pid = fork();
    if (p->pid == 0)
        helper_exec(program, pair[1]);
    close(pair[1]);
    p->link = pair[0];
    if (p->pid < 0) {
        p->pid = 0;
        return ERR_SYSTEM;
    }
    return fcntl(p->link, F_SETFL, O_NONBLOCK) < 0 ? ERR_SYSTEM : 0;
}

static void sweep_cb(evutil_socket_t fd, short what, void *arg)
{
    struct pam_helper *p = arg;
    struct pam_conversation *c;

    (void)fd, (void)what;
    while ((c = TAILQ_FIRST(&p->dead))) {
        TAILQ_REMOVE(&p->dead, c, entry);
        event_free(c->readable);
        free(c);
    }
}

struct pam_helper *pam_helper_create(struct event_base *base, const char *service, char *err,
                                     size_t err_len)
{
    struct pam_helper *p = calloc(1, sizeof(*p));
    char program[512];

    if (!p) {
        snprintf(err, err_len, "out of memory");
        return NULL;
    }
    p->base = base;
    p->link = -1;
    TAILQ_INIT(&p->dead);
    p->sweep = event_new(base, -1, 0, sweep_cb, p);
    (void)text_copy(p->service, sizeof(p->service), service);
    program_find("sallyport-pam", SALLYPORT_LIBEXECDIR, program, sizeof(program));
    if (!p->sweep || access(program, X_OK) < 0 || spawn(p, program) < 0) {
        snprintf(err, err_len, "[ssh] pam: %s cannot be started: %s", program, strerror(errno));
        pam_helper_destroy(p);
        return NULL;
    }
    return p;
}

void pam_helper_destroy(struct pam_helper *p)
{
    if (!p)
        return;
    if (p->link >= 0)
        close(p->link);
    sweep_cb(-1, 0, p);
    if (p->sweep)
        event_free(p->sweep);
    free(p);
}

void pam_helper_reap(struct pam_helper *p)
{
    int status;

    if (!p || p->pid <= 0 || waitpid(p->pid, &status, WNOHANG) != p->pid)
        return;
    p->pid = 0;
    log_error("sallyport-pam is gone: users whose password PAM checks cannot log in until the "
              "daemon is started again");
}

/* ---- a conversation ---- */

static void finish(struct pam_conversation *c, bool is_ok, const char *sentence)
{
    if (c->is_over)
        return;
    c->is_over = true;
    event_del(c->readable);
    c->answers.result(c->arg, is_ok, sentence);
}

static void readable_cb(evutil_socket_t fd, short what, void *arg)
{
    struct pam_conversation *c = arg;
    struct pam_talk m;
    int r = pam_talk_receive(fd, &m, NULL);

    (void)what;
    if (r == ERR_AGAIN)
        return;
    if (r < 0) {
        log_warn("a PAM conversation broke off");
        finish(c, false, "");
        return;
    }
    switch ((enum pam_talk_type)m.type) {
    case PAM_TALK_PROMPT:
        c->answers.prompt(c->arg, m.flag, m.text);
        break;
    case PAM_TALK_INFO:
        c->answers.info(c->arg, m.text);
        break;
    case PAM_TALK_RESULT:
        finish(c, m.flag, m.text);
        break;
    case PAM_TALK_START:
    case PAM_TALK_ANSWER:
    case PAM_TALK_TYPES:
        finish(c, false, "");
        break;
    }
}

static struct pam_conversation *conversation_new(struct pam_helper *p, int fd,
                                                 const struct pam_answers *answers, void *arg)
{
    struct pam_conversation *c = calloc(1, sizeof(*c));

    if (!c)
        return NULL;
    c->helper = p;
    c->fd = fd;
    c->answers = *answers;
    c->arg = arg;
    c->readable = event_new(p->base, fd, EV_READ | EV_PERSIST, readable_cb, c);
    if (!c->readable || event_add(c->readable, NULL) < 0) {
        if (c->readable)
            event_free(c->readable);
        free(c);
        return NULL;
    }
    return c;
}

struct pam_conversation *pam_begin(struct pam_helper *p, const char *user, const char *source,
                                   bool account_only, const struct pam_answers *answers, void *arg)
{
    struct pam_talk start = {.type = PAM_TALK_START, .flag = account_only};
    struct pam_conversation *c = NULL;
    int pair[2];

    if (!p || p->pid <= 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return NULL;
    (void)text_copy(start.service, sizeof(start.service), p->service);
    (void)text_copy(start.user, sizeof(start.user), user);
    (void)text_copy(start.source, sizeof(start.source), source);
    if (fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0 && pam_talk_send(p->link, &start, pair[1]) == 0)
        c = conversation_new(p, pair[0], answers, arg);
    close(pair[1]);
    if (!c)
        close(pair[0]);
    return c;
}

void pam_answer(struct pam_conversation *c, const void *text, size_t len)
{
    struct pam_talk m = {.type = PAM_TALK_ANSWER};

    if (c->is_over)
        return;
    /* an answer with a NUL inside, or too long, is no password: PAM says so after its work */
    if (len <= PAM_TALK_TEXT_MAX && !memchr(text, '\0', len))
        memcpy(m.text, text, len);
    if (pam_talk_send(c->fd, &m, -1) < 0)
        log_debug("a PAM conversation takes no answer"); /* its end follows */
    memory_wipe(&m, sizeof(m));
}

void pam_end(struct pam_conversation *c)
{
    if (!c || c->fd < 0)
        return;
    event_del(c->readable);
    close(c->fd);
    c->fd = -1;
    c->is_over = true;
    TAILQ_INSERT_TAIL(&c->helper->dead, c, entry);
    event_active(c->helper->sweep, 0, 0);
}
