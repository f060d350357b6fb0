/* The programs that the broker starts; see program.h. */
#include "proxy/broker/program.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/broker/broker.h"

void program_find(const char *name, const char *folder, char *dst, size_t len)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n > 0) {
        char *slash;

        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            snprintf(dst, len, "%s/%s", self, name);
            if (access(dst, X_OK) == 0)
                return;
        }
    }
    snprintf(dst, len, "%s/%s", folder, name);
}

size_t program_put_sandbox(const struct broker *b, struct program_sandbox *s, const char **argv,
                           size_t n)
{
    snprintf(s->root, sizeof(s->root), "%s/root", b->config->run_dir);
    snprintf(s->relay_uid, sizeof(s->relay_uid), "%u", (unsigned)b->identity.relay_uid);
    snprintf(s->relay_gid, sizeof(s->relay_gid), "%u", (unsigned)b->identity.relay_gid);
    argv[n++] = "--root";
    argv[n++] = s->root;
    if (b->identity.is_root) {
        argv[n++] = "--relay-uid";
        argv[n++] = s->relay_uid;
        argv[n++] = "--relay-gid";
        argv[n++] = s->relay_gid;
    }
    if (b->config->sandbox == CONFIG_SANDBOX_REDUCED)
        argv[n++] = "--reduced";
    argv[n] = NULL;
    return n;
}

void program_become(const struct broker *b, const char *path, const char *const *argv, int link)
{
    static const char *const levels[] = {"error", "warn", "info", "debug", "trace"};
    const struct config *c = b->config;

    if (link != PROGRAM_LINK_FD && dup2(link, PROGRAM_LINK_FD) < 0)
        _exit(127);
    fcntl(PROGRAM_LINK_FD, F_SETFD, 0);
    close_range(PROGRAM_LINK_FD + 1, ~0u, 0);
    if (chdir(c->run_dir) < 0 || identity_prepare_gate(&b->identity) < 0)
        _exit(127);
    setenv("SALLYPORT_LOG_LEVEL", levels[c->log_level], 1);
    setenv("SALLYPORT_LOG", c->log == LOG_SINK_SYSLOG ? "syslog" : "stderr", 1);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(127);
}
