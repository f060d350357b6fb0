/*
 * sallyport-pam: asks PAM for the broker. The broker starts it while it still is root, since PAM's
 * modules want root and whatever they load should live in no process that holds anything. This
 * master parses one kind of message from the broker and forks: one conversation, one process. It
 * ends with the broker.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/pam_talk.h>
#include <sallyport/secret.h>

#include "proxy/pam/conversation.h"

#define LINK_FD           3
#define CONVERSATIONS_MAX 64
#define CONVERSATION_S    300 /* a person may look for a device */

static atomic_int running; /* the handler counts down at any moment */

/* A conversation is over. */
static void on_child(int number)
{
    int saved = errno;

    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        running--;
    errno = saved;
}

/* In the child: nothing of the master's but the conversation. */
static int serve(int fd, const struct pam_talk *start)
{
    close(LINK_FD);
    signal(SIGCHLD, SIG_DFL); /* modules fork and wait */
    signal(SIGPIPE, SIG_DFL);
    if (prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0) < 0)
        return 1;
    alarm(CONVERSATION_S);
    return conversation_run(fd, start);
}

static void refuse(int fd, const char *why)
{
    struct pam_talk result = {.type = PAM_TALK_RESULT};

    (void)text_copy(result.text, sizeof(result.text), why);
    if (pam_talk_send(fd, &result, -1) < 0)
        log_debug("the broker has gone");
}

static void begin(int fd, const struct pam_talk *start)
{
    pid_t pid;

    if (running >= CONVERSATIONS_MAX) {
        log_warn("%d PAM conversations are under way; one more is refused", CONVERSATIONS_MAX);
        refuse(fd, "Too many are logging in just now; try again.");
        return;
    }
    pid = fork();
    if (pid == 0)
        _exit(serve(fd, start));
    if (pid < 0) {
        log_error("fork: %s", strerror(errno));
        refuse(fd, "");
        return;
    }
    running++;
}

static bool is_start(const struct pam_talk *m, int fd)
{
    return m->type == PAM_TALK_START && fd >= 0 && m->service[0] && text_is_name(m->user);
}

static int run_master(void)
{
    struct pam_talk m;
    int fd, r;

    while ((r = pam_talk_receive(LINK_FD, &m, &fd)) != ERR_CLOSED) {
        if (r == 0 && is_start(&m, fd))
            begin(fd, &m);
        else if (r == ERR_SYSTEM)
            break;
        if (fd >= 0)
            close(fd);
        memory_wipe(&m, sizeof(m));
    }
    return 0;
}

/* What modules see of the environment: nothing that the daemon was started with. */
static void clean_environment(void)
{
    const char *level = getenv("SALLYPORT_LOG_LEVEL"), *sink = getenv("SALLYPORT_LOG");
    enum log_level wanted = LOG_LEVEL_INFO;

    if (level && strcmp(level, "debug") == 0)
        wanted = LOG_LEVEL_DEBUG;
    log_open("sallyport-pam",
             sink && strcmp(sink, "syslog") == 0 ? LOG_SINK_SYSLOG : LOG_SINK_STDERR, wanted);
    clearenv();
    setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
}

int main(int argc, char **argv)
{
    struct stat st;

    (void)argv;
    if (argc != 1 || fstat(LINK_FD, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        fputs("sallyport-pam is started by sallyportd.\n", stderr);
        return 2;
    }
    fcntl(LINK_FD, F_SETFD, FD_CLOEXEC);
    clean_environment();
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, on_child);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the broker, whose end is ours */
    signal(SIGHUP, SIG_IGN);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || chdir("/") < 0)
        return 1;
    umask(077);
    return run_master();
}
