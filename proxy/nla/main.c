/*
 * sallyport-nla: the accepting side of NLA for the broker and its relays. A login by NLA needs the
 * user's NT hash before the user is known to be honest, and no relay may hold one. So this master,
 * in a gate's sandbox, prepares what NTLM wants from the file system, parses one kind of message
 * from the broker and forks: one attempt, one process, in a relay's sandbox, with one hash. It ends
 * with the broker.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
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
#include <sallyport/secret.h>
#include <sallyport/text.h>

#include "proxy/nla/attempt.h"
#include "proxy/rdp/ntlm.h"
#include "proxy/relay/sandbox.h"

#define LINK_FD      3
#define ATTEMPTS_MAX 256
#define ATTEMPT_S    180 /* longer than any login grace is sensible */

static atomic_int running; /* the handler counts down at any moment */

/* An attempt is over. */
static void on_child(int number)
{
    int saved = errno;

    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        running--;
    errno = saved;
}

/* In the child: nothing of the master's but the attempt. */
static int serve(const struct sandbox *sandbox, const int fds[2], const struct nla_talk *start)
{
    char err[256];

    close(LINK_FD);
    signal(SIGCHLD, SIG_DFL);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return 1;
    alarm(ATTEMPT_S);
    if (sandbox_enter_relay(sandbox, err, sizeof(err)) < 0) {
        log_error("nla: %s", err);
        return 1;
    }
    if (sandbox_filter_login() < 0)
        return 1;
    return attempt_run(fds[0], fds[1], start->data, start->data_len);
}

static void begin(const struct sandbox *sandbox, const int fds[2], const struct nla_talk *start)
{
    static struct log_limit limit;
    pid_t pid;

    if (running >= ATTEMPTS_MAX) {
        if (log_limit_allows(&limit, 5, "attempts past the limit"))
            log_warn("%d logins by NLA are under way; one more is refused", ATTEMPTS_MAX);
        return;
    }
    running++; /* before the child can be gone */
    pid = fork();
    if (pid == 0)
        _exit(serve(sandbox, fds, start));
    if (pid < 0) {
        running--;
        log_error("fork: %s", strerror(errno));
    }
}

static int run_master(const struct sandbox *sandbox)
{
    static struct nla_talk m;
    int fds[2], r;

    while ((r = nla_talk_receive(LINK_FD, &m, fds)) != ERR_CLOSED) {
        if (r == 0 && m.type == NLA_TALK_START && fds[0] >= 0 && fds[1] >= 0)
            begin(sandbox, fds, &m);
        else if (r == ERR_SYSTEM)
            break;
        for (size_t i = 0; i < 2; i++)
            if (fds[i] >= 0)
                close(fds[i]); /* the broker and the relay see an end unless a child has it */
    }
    return 0;
}

static bool parse_arguments(struct sandbox *sandbox, int argc, char **argv)
{
    static const struct option options[] = {
        {"root", required_argument, NULL, 'r'},
        {"relay-uid", required_argument, NULL, 'u'},
        {"relay-gid", required_argument, NULL, 'g'},
        {"reduced", no_argument, NULL, 'R'},
        {NULL, 0, NULL, 0},
    };
    uint64_t id = 0;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
        if ((option == 'u' || option == 'g') && (!text_parse_u64(optarg, &id) || id >= UINT32_MAX))
            return false;
        if (option == 'u') {
            sandbox->is_root = true;
            sandbox->relay_uid = (uid_t)id;
        } else if (option == 'g') {
            sandbox->relay_gid = (gid_t)id;
        } else if (option == 'r') {
            sandbox->root_dir = optarg;
        } else if (option == 'R') {
            sandbox->is_reduced = true;
        } else {
            return false;
        }
    }
    return optind == argc && sandbox->root_dir;
}

int main(int argc, char **argv)
{
    struct sandbox sandbox = {0};
    struct stat st;
    char err[512];

    if (!parse_arguments(&sandbox, argc, argv) || fstat(LINK_FD, &st) < 0 ||
        !S_ISSOCK(st.st_mode)) {
        fputs("sallyport-nla is started by sallyportd.\n", stderr);
        return 2;
    }
    fcntl(LINK_FD, F_SETFD, FD_CLOEXEC);
    (void)log_open_as_told("sallyport-nla");
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, on_child);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the broker, whose end is ours */
    signal(SIGHUP, SIG_IGN);
    prctl(PR_SET_NAME, "sallyport-nla", 0, 0, 0);
    if (ntlm_prepare() < 0 || sandbox_prepare() < 0)
        return 1; /* logged there */
    if (sandbox_enter_gate(&sandbox, err, sizeof(err)) < 0) {
        log_error("nla: %s", err);
        return 1;
    }
    umask(077);
    return run_master(&sandbox);
}
