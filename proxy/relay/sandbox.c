/*
 * Identity, root and limits of gates and relays. The gate enters the root once and keeps its
 * working directory outside; each relay closes that last way out before it reads a byte. The
 * system call filters are filter.c. Every function here is called from proxy/gate only.
 */
#include "proxy/relay/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "proxy/relay/sandbox_priv.h"

#define RELAY_DESCRIPTORS 300 /* recordings end at 263 */
#define RELAY_MEMORY      (UINT64_C(1) << 30)

bool sandbox_is_off_for_leaks(void)
{
    return SANDBOX_IS_ASAN && getenv("SALLYPORT_LEAK_CHECK");
}

/* Write the sentence; always ERR_SYSTEM, for `return fail(...)`. */
static int PRINTF_LIKE(3, 4) fail(char *err, size_t err_len, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, err_len, fmt, ap);
    va_end(ap);
    return ERR_SYSTEM;
}

/* The three sets of this process become exactly `caps`; the ambient set goes. */
static int set_capabilities(uint64_t caps)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.effective = (uint32_t)caps, .permitted = (uint32_t)caps},
        {.effective = (uint32_t)(caps >> 32), .permitted = (uint32_t)(caps >> 32)},
    };

    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return -1;
    return syscall(SYS_capset, &head, data) == 0 ? 0 : -1;
}

/* The broker gives no CAP_SETPCAP, and with no_new_privs the bounding set has no effect any more:
 * so this is a second lock where it can be had. */
static void clear_bounding_set(void)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return;
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0)
        return -1;
    n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* A user namespace in which we are nobody but ourselves: it lends CAP_SYS_CHROOT. */
static int enter_namespace(char *err, size_t err_len)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[64];

    /* the maps below belong to root while we are not dumpable */
    if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 || unshare(CLONE_NEWUSER) < 0)
        return fail(err, err_len,
                    "this kernel gives ordinary users no user namespaces (%s): start sallyportd "
                    "as root, allow them, or set sandbox = reduced in [proxy]",
                    strerror(errno));
    if (write_file("/proc/self/setgroups", "deny") < 0 && errno != ENOENT)
        return fail(err, err_len,
                    "cannot set up the user namespace (setgroups): %s; or set "
                    "sandbox = reduced in [proxy]",
                    strerror(errno));
    snprintf(map, sizeof(map), "%u %u 1", uid, uid);
    if (write_file("/proc/self/uid_map", map) < 0)
        return fail(err, err_len,
                    "cannot set up the user namespace (uid_map): %s; or set "
                    "sandbox = reduced in [proxy]",
                    strerror(errno));
    snprintf(map, sizeof(map), "%u %u 1", gid, gid);
    if (write_file("/proc/self/gid_map", map) < 0)
        return fail(err, err_len,
                    "cannot set up the user namespace (gid_map): %s; or set "
                    "sandbox = reduced in [proxy]",
                    strerror(errno));
    return 0;
}

static int enter_root(const struct sandbox *s, char *err, size_t err_len)
{
    int r;

    if (!s->is_root) {
        r = enter_namespace(err, err_len);
        if (r < 0)
            return r;
    }
    if (chroot(s->root_dir) < 0)
        return fail(err, err_len,
                    "cannot make %s the root: %s; or set sandbox = reduced in "
                    "[proxy]",
                    s->root_dir, strerror(errno));
    return 0;
}

int sandbox_enter_gate(const struct sandbox *s, char *err, size_t err_len)
{
    uint64_t keep = s->is_root ? UINT64_C(1) << CAP_SETUID | UINT64_C(1) << CAP_SETGID : 0;
    int r;

    if (s->is_root && (s->relay_uid == 0 || s->relay_uid == geteuid()))
        return fail(err, err_len, "relays need a user of their own: set relay_user in [proxy]");
    if (!s->is_root && geteuid() == 0)
        return fail(err, err_len, "a gate that runs as root needs --relay-uid and --relay-gid");
    if (!s->is_reduced) {
        r = enter_root(s, err, err_len);
        if (r < 0)
            return r;
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(err, err_len, "cannot set no_new_privs: %s", strerror(errno));
    clear_bounding_set();
    if (set_capabilities(keep) < 0)
        return fail(err, err_len, "cannot keep CAP_SETUID and CAP_SETGID only: %s",
                    strerror(errno));
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return fail(err, err_len, "cannot become undumpable: %s", strerror(errno));
    return 0;
}

static int become_relay_user(const struct sandbox *s, char *err, size_t err_len)
{
    uid_t before = geteuid();

    if (setgroups(0, NULL) < 0 || setresgid(s->relay_gid, s->relay_gid, s->relay_gid) < 0 ||
        setresuid(s->relay_uid, s->relay_uid, s->relay_uid) < 0)
        return fail(err, err_len, "cannot become uid %u, gid %u: %s", s->relay_uid, s->relay_gid,
                    strerror(errno));
    if (set_capabilities(0) < 0)
        return fail(err, err_len, "cannot drop capabilities: %s", strerror(errno));
    if (setresuid(before, before, before) == 0)
        return fail(err, err_len, "the way back to uid %u is open", before);
    return 0;
}

/* Soft and hard, never above what is there. */
static int limit(int resource, rlim_t value)
{
    struct rlimit now;

    if (getrlimit((__rlimit_resource_t)resource, &now) < 0)
        return -1;
    if (now.rlim_max == RLIM_INFINITY || now.rlim_max > value)
        now.rlim_max = value;
    now.rlim_cur = now.rlim_max;
    return setrlimit((__rlimit_resource_t)resource, &now);
}

static int set_limits(char *err, size_t err_len)
{
    static const struct {
        int resource;
        const char *name;
        rlim_t value;
        bool is_asan_too; /* the sanitizer reserves terabytes of addresses */
    } limits[] = {
        {RLIMIT_NOFILE, "descriptors", RELAY_DESCRIPTORS, true},
        {RLIMIT_NPROC, "processes", 0, true},
        {RLIMIT_CORE, "core files", 0, true},
        {RLIMIT_MSGQUEUE, "message queues", 0, true},
        {RLIMIT_MEMLOCK, "locked memory", 0, true},
        {RLIMIT_AS, "memory", RELAY_MEMORY, false},
    };

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if ((SANDBOX_IS_ASAN && !limits[i].is_asan_too) || sandbox_is_off_for_leaks())
            continue;
        if (limit(limits[i].resource, limits[i].value) < 0)
            return fail(err, err_len, "cannot limit %s: %s", limits[i].name, strerror(errno));
    }
    return 0;
}

int sandbox_enter_relay(const struct sandbox *s, char *err, size_t err_len)
{
    int r;

    if (chdir("/") < 0)
        return fail(err, err_len, "cannot enter the root: %s", strerror(errno));
    if (s->is_root)
        r = become_relay_user(s, err, err_len);
    else
        r = set_capabilities(0) < 0
                ? fail(err, err_len, "cannot drop capabilities: %s", strerror(errno))
                : 0;
    if (r < 0)
        return r;
    /* the leak checker traces the process that it checks */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, sandbox_is_off_for_leaks(), 0, 0, 0) < 0)
        return fail(err, err_len, "cannot give up privileges: %s", strerror(errno));
    return set_limits(err, err_len);
}
