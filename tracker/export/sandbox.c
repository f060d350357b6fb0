/*
 * See sandbox.h. The relay's filter (proxy/relay/filter.c) is of another kind: there are no threads
 * there, and no positions in files. Calls that are not listed return EPERM; clone3 returns ENOSYS,
 * because its flags cannot be looked at, and glibc then uses clone.
 */
#include "tracker/export/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/relay/sandbox_priv.h"

#define NOBODY      65534
#define MEMORY      ((rlim_t)6 << 30) /* of a desktop of 16384 x 16384 more cannot be decoded */
#define DESCRIPTORS 128

/* What a thread shares with its process: anything that does not say so is a process. */
#define THREAD_FLAGS (CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

/* clang-format off */
static const int allowed[] = {
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(writev),
    SCMP_SYS(pwrite64), SCMP_SYS(lseek), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(dup),
    SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg),
    SCMP_SYS(shutdown), SCMP_SYS(getsockopt), SCMP_SYS(getsockname), SCMP_SYS(getpeername),
    SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6),
    SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),
    SCMP_SYS(eventfd2), SCMP_SYS(pipe2), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime),
    SCMP_SYS(timerfd_gettime),
    SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk),
    SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(set_tid_address),
    SCMP_SYS(membarrier), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
    SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime),
    SCMP_SYS(clock_getres), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(getrandom),
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack), SCMP_SYS(restart_syscall),
    SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getppid), SCMP_SYS(getuid), SCMP_SYS(geteuid),
    SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrusage), SCMP_SYS(uname), SCMP_SYS(sysinfo),
    SCMP_SYS(exit), SCMP_SYS(exit_group),
};
/* clang-format on */

/* libseccomp's own macros leave a field out, which clang minds. */
#define IS(n, value)                                                    \
    {                                                                   \
        .arg = (n), .op = SCMP_CMP_EQ, .datum_a = (value), .datum_b = 0 \
    }
#define MASKED(n, mask, value)                                                      \
    {                                                                               \
        .arg = (n), .op = SCMP_CMP_MASKED_EQ, .datum_a = (mask), .datum_b = (value) \
    }

struct narrow {
    int call;
    unsigned count;
    struct scmp_arg_cmp args[2];
};

static int add_rules(scmp_filter_ctx ctx)
{
    const struct narrow narrow[] = {
        {SCMP_SYS(mmap), 1, {MASKED(2, PROT_EXEC, 0)}},
        {SCMP_SYS(mprotect), 1, {MASKED(2, PROT_EXEC, 0)}},
        {SCMP_SYS(clone), 1, {MASKED(0, THREAD_FLAGS, THREAD_FLAGS)}},
        {SCMP_SYS(prctl), 1, {IS(0, PR_SET_NAME)}},
        {SCMP_SYS(newfstatat), 1, {IS(3, AT_EMPTY_PATH)}},
        {SCMP_SYS(fcntl), 1, {IS(1, F_GETFL)}},
        {SCMP_SYS(fcntl), 1, {IS(1, F_SETFL)}},
        {SCMP_SYS(fcntl), 1, {IS(1, F_GETFD)}},
        {SCMP_SYS(fcntl), 1, {IS(1, F_SETFD)}},
        {SCMP_SYS(ioctl), 1, {IS(1, FIONREAD)}},
        {SCMP_SYS(ioctl), 1, {IS(1, FIONBIO)}},
        {SCMP_SYS(setsockopt), 1, {IS(1, SOL_SOCKET)}},
        /* its own limits may be read; abort() is a signal to itself */
        {SCMP_SYS(prlimit64), 1, {IS(2, 0)}},
        {SCMP_SYS(tgkill), 1, {IS(0, (scmp_datum_t)getpid())}},
    };
    int r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

    for (size_t i = 0; r == 0 && i < sizeof(allowed) / sizeof(allowed[0]); i++)
        r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; r == 0 && i < sizeof(narrow) / sizeof(narrow[0]); i++)
        r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, narrow[i].call, narrow[i].count,
                                   narrow[i].args);
    return r;
}

static int filter(void)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int r = ctx ? add_rules(ctx) : -1;

    if (r == 0) /* threads that a library may have made already */
        r = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = seccomp_load(ctx);
    if (ctx)
        seccomp_release(ctx);
    return r;
}

static int limit(__rlimit_resource_t resource, rlim_t value)
{
    struct rlimit l;

    if (getrlimit(resource, &l) < 0)
        return -1;
    if (l.rlim_max == RLIM_INFINITY || l.rlim_max > value)
        l.rlim_max = value;
    l.rlim_cur = l.rlim_max;
    return setrlimit(resource, &l);
}

int export_sandbox_enter(char *err, size_t err_len)
{
    const char *what = NULL;

    /* a second lock, where it can be had: containers may know no such user */
    if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 ||
                           setresuid(NOBODY, NOBODY, NOBODY) < 0))
        errno = 0;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        what = "give up privileges";
    else if (limit(RLIMIT_CORE, 0) < 0 || limit(RLIMIT_NOFILE, DESCRIPTORS) < 0 ||
             (!SANDBOX_IS_ASAN && limit(RLIMIT_AS, MEMORY) < 0))
        what = "limit memory and descriptors";
    else if (filter() != 0)
        what = "install the system call filter";
    if (!what)
        return 0;
    snprintf(err, err_len, "cannot %s: %s", what, strerror(errno));
    return ERR_SYSTEM;
}
