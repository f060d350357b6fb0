/*
 * The start of a process that tries a target out; see probing.h.
 */
#include "proxy/relay/probing.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/relay/sandbox.h"

static bool parse_arguments(struct sandbox *sandbox, int argc, char **argv)
{
    static const struct option options[] = {
        {"probe", no_argument, NULL, 'P'},           {"root", required_argument, NULL, 'r'},
        {"relay-uid", required_argument, NULL, 'u'}, {"relay-gid", required_argument, NULL, 'g'},
        {"reduced", no_argument, NULL, 'R'},         {NULL, 0, NULL, 0},
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
        } else if (option != 'P') {
            return false;
        }
    }
    return optind == argc && sandbox->root_dir;
}

/* Everything that needs files before, everything from outside after. */
static int enter_sandbox(const struct sandbox *sandbox, int (*warm_up)(void))
{
    char err[512];

    if (warm_up() < 0 || sandbox_prepare() < 0)
        return ERR_SYSTEM;
    if (sandbox_enter_gate(sandbox, err, sizeof(err)) < 0 ||
        sandbox_enter_relay(sandbox, err, sizeof(err)) < 0) {
        log_error("probe: %s", err);
        return ERR_SYSTEM;
    }
    return sandbox_filter_login();
}

int probing_start(int argc, char **argv, int (*warm_up)(void))
{
    struct sandbox sandbox = {0};

    (void)log_open_as_told("sallyport-probe");
    if (!parse_arguments(&sandbox, argc, argv)) {
        fprintf(stderr, "error: %s --probe is started by sallyportd, not by hand\n", argv[0]);
        return -2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGINT, SIG_IGN); /* Ctrl-C is for the broker */
    prctl(PR_SET_NAME, "sallyport-probe", 0, 0, 0);
    return enter_sandbox(&sandbox, warm_up) < 0 ? -1 : 0;
}

/* Waits for each: nothing else goes on yet. */
int probing_listen(const struct probing_ops *ops, void *arg, struct link_message *message)
{
    struct pollfd readable = {PROBING_LINK_FD, POLLIN, 0};
    int fds[LINK_FDS_MAX], r = 0;

    for (int i = 0; i <= LINK_HOPS_MAX + 1 && r == 0; i++) {
        bool is_start;

        if (poll(&readable, 1, -1) < 0 || (r = link_receive(PROBING_LINK_FD, message, fds)) < 0)
            return ERR_CLOSED;
        is_start = message->type == LINK_PROBE;
        if (is_start)
            r = ops->begin(arg, &message->probe, fds);
        else
            r = message->type == LINK_HOP ? ops->hop(arg, &message->hop, fds) : ERR_INVALID;
        link_message_wipe(message);
        link_close_fds(fds);
        if (is_start)
            return r;
    }
    return r < 0 ? r : ERR_INVALID;
}

bool probing_say(struct link_message *m)
{
    int r;

    m->type = LINK_PROBE_STEP;
    r = link_send(PROBING_LINK_FD, m, LINK_VERSION, NULL, 0);
    memset(m, 0, sizeof(*m));
    return r == 0;
}
