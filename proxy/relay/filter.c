/*
 * The system call filters of a relay, as one table. Built with libseccomp once in the gate and
 * exported, so that a relay only hands finished programs to the kernel. Says nothing about
 * identity or limits: that is sandbox.c.
 *
 * Three programs, because the kernel logs a whole filter or none of it: REFUSED answers EPERM to
 * calls that we know and do not want, silently; LOGIN and SESSION answer ENOSYS to everything that
 * is in no row, and log it. The strictest answer of all programs counts.
 */
#include "proxy/relay/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/sockios.h>

#include <sallyport/log.h>

#include "proxy/relay/sandbox_priv.h"

#define FILTER_INSTRUCTIONS_MAX 4096
#define ARGS_MAX                3

enum program { PROGRAM_REFUSED, PROGRAM_LOGIN, PROGRAM_SESSION, PROGRAM_COUNT };

enum when { LOGIN = 1 << PROGRAM_LOGIN, SESSION = 1 << PROGRAM_SESSION, BOTH = LOGIN | SESSION };

struct arg {
    uint8_t index, op; /* op 0: no condition */
    uint64_t a, b;
};

struct row {
    int call;
    uint8_t when;
    struct arg args[ARGS_MAX]; /* all must hold */
};

/* Comparisons are of 64 bits while the kernel cuts an int to 32. So they are written such that
 * high bits can only make a call refused: EQ, LT, and masks that must be zero. */
#define IS(n, value)             \
    {                            \
        n, SCMP_CMP_EQ, value, 0 \
    }
#define BELOW(n, value)          \
    {                            \
        n, SCMP_CMP_LT, value, 0 \
    }
#define WITHOUT(n, bit)               \
    {                                 \
        n, SCMP_CMP_MASKED_EQ, bit, 0 \
    }
#define RECORDING_RANGE                         \
    {                                           \
        0, SCMP_CMP_GE, SANDBOX_FD_RECORDING, 0 \
    }

#define CALL(name) SCMP_SYS(name)

/* clang-format off */
static const struct row allowed[] = {
    /* bytes; a position is never given, so that a recording can only grow at its end */
    {CALL(read), BOTH, {{0}}}, {CALL(readv), BOTH, {{0}}},
    {CALL(write), BOTH, {{0}}}, {CALL(writev), BOTH, {{0}}},
    {CALL(recvfrom), BOTH, {{0}}}, {CALL(recvmsg), BOTH, {{0}}}, {CALL(recv), BOTH, {{0}}},
    /* MSG_FASTOPEN would be a connect() */
    {CALL(sendto), BOTH, {WITHOUT(3, MSG_FASTOPEN)}},
    {CALL(sendmsg), BOTH, {WITHOUT(2, MSG_FASTOPEN)}},
    {CALL(send), BOTH, {WITHOUT(3, MSG_FASTOPEN)}},
    {CALL(shutdown), BOTH, {{0}}}, {CALL(close), BOTH, {{0}}}, {CALL(close_range), BOTH, {{0}}},
    /* a relay has one listening socket, the one that a later broker adopts it by, and can make no
     * other: accept needs no condition */
    {CALL(accept4), BOTH, {{0}}}, {CALL(accept), BOTH, {{0}}},
    {CALL(getsockname), BOTH, {{0}}}, {CALL(getpeername), BOTH, {{0}}},
    {CALL(getsockopt), BOTH, {{0}}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_KEEPALIVE)}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_LINGER)}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_SNDBUF)}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_RCVBUF)}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_SNDTIMEO)}},
    {CALL(setsockopt), BOTH, {IS(1, SOL_SOCKET), IS(2, SO_RCVTIMEO)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_NODELAY)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_CORK)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_QUICKACK)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_KEEPIDLE)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_KEEPINTVL)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_KEEPCNT)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_USER_TIMEOUT)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_TCP), IS(2, TCP_NOTSENT_LOWAT)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_IP), IS(2, IP_TOS)}},
    {CALL(setsockopt), BOTH, {IS(1, IPPROTO_IPV6), IS(2, IPV6_TCLASS)}},

    /* waiting */
    {CALL(poll), BOTH, {{0}}}, {CALL(ppoll), BOTH, {{0}}},
    {CALL(select), BOTH, {{0}}}, {CALL(pselect6), BOTH, {{0}}}, {CALL(_newselect), BOTH, {{0}}},
    {CALL(epoll_create1), LOGIN, {{0}}}, {CALL(epoll_create), LOGIN, {{0}}},
    {CALL(epoll_ctl), BOTH, {{0}}}, {CALL(epoll_wait), BOTH, {{0}}},
    {CALL(epoll_pwait), BOTH, {{0}}}, {CALL(epoll_pwait2), BOTH, {{0}}},
    {CALL(eventfd2), LOGIN, {{0}}}, {CALL(pipe2), LOGIN, {{0}}}, {CALL(pipe), LOGIN, {{0}}},
    {CALL(timerfd_create), LOGIN, {{0}}}, {CALL(timerfd_settime), BOTH, {{0}}},
    {CALL(signalfd4), LOGIN, {{0}}},
    {CALL(nanosleep), BOTH, {{0}}}, {CALL(clock_nanosleep), BOTH, {{0}}},
    {CALL(restart_syscall), BOTH, {{0}}}, {CALL(sched_yield), BOTH, {{0}}},
    {CALL(futex), BOTH, {{0}}},

    /* descriptors: a copy may only be made in the recordings' range, where no flag can be changed
     * (the flags belong to the open file, not to the number) */
    {CALL(fcntl), BOTH, {IS(1, F_GETFD)}}, {CALL(fcntl), BOTH, {IS(1, F_SETFD)}},
    {CALL(fcntl), BOTH, {IS(1, F_GETFL)}}, {CALL(fcntl), BOTH, {IS(1, F_GET_SEALS)}},
    {CALL(fcntl), BOTH, {BELOW(0, SANDBOX_FD_RECORDING), IS(1, F_SETFL)}},
    {CALL(fcntl), BOTH, {IS(1, F_DUPFD_CLOEXEC), IS(2, SANDBOX_FD_RECORDING)}},
    {CALL(fstat), BOTH, {{0}}},
    {CALL(newfstatat), BOTH, {IS(3, AT_EMPTY_PATH)}}, /* what fstat() is in glibc 2.33 and later */
    {CALL(ioctl), BOTH, {IS(1, FIONREAD)}}, {CALL(ioctl), BOTH, {IS(1, FIONBIO)}},
    {CALL(ioctl), BOTH, {IS(1, SIOCOUTQ)}},

    /* memory, never executable */
    {CALL(mmap), BOTH, {WITHOUT(2, PROT_EXEC)}}, {CALL(mmap2), BOTH, {WITHOUT(2, PROT_EXEC)}},
    {CALL(mprotect), BOTH, {WITHOUT(2, PROT_EXEC)}},
    {CALL(munmap), BOTH, {{0}}}, {CALL(mremap), BOTH, {{0}}}, {CALL(madvise), BOTH, {{0}}},
    {CALL(brk), BOTH, {{0}}},

    /* clocks, chance, signals to ourselves, the end */
    {CALL(clock_gettime), BOTH, {{0}}}, {CALL(clock_getres), BOTH, {{0}}},
    {CALL(clock_gettime64), BOTH, {{0}}}, {CALL(gettimeofday), BOTH, {{0}}},
    {CALL(time), BOTH, {{0}}}, {CALL(getrandom), BOTH, {{0}}},
    {CALL(rt_sigaction), BOTH, {{0}}}, {CALL(rt_sigprocmask), BOTH, {{0}}},
    {CALL(rt_sigreturn), BOTH, {{0}}}, {CALL(sigreturn), BOTH, {{0}}},
    {CALL(sigaltstack), BOTH, {{0}}},
    {CALL(getpid), BOTH, {{0}}}, {CALL(gettid), BOTH, {{0}}}, {CALL(getppid), BOTH, {{0}}},
    {CALL(getuid), BOTH, {{0}}}, {CALL(geteuid), BOTH, {{0}}},
    {CALL(getgid), BOTH, {{0}}}, {CALL(getegid), BOTH, {{0}}},
    {CALL(getrusage), BOTH, {{0}}}, {CALL(uname), LOGIN, {{0}}}, {CALL(sysinfo), BOTH, {{0}}},
    {CALL(sched_getaffinity), BOTH, {{0}}},
    {CALL(exit), BOTH, {{0}}}, {CALL(exit_group), BOTH, {{0}}},

    /* the narrower filter itself */
    {CALL(seccomp), LOGIN, {IS(0, SECCOMP_SET_MODE_FILTER)}},
    {CALL(prctl), LOGIN, {IS(0, PR_SET_NAME)}},
};

/* Asked for by libraries in the ordinary course of things, or by somebody who took us over: the
 * answer is EPERM, and nothing is logged. */
static const struct row refused[] = {
    {CALL(open), 0, {{0}}}, {CALL(openat), 0, {{0}}}, {CALL(openat2), 0, {{0}}},
    {CALL(creat), 0, {{0}}}, {CALL(stat), 0, {{0}}}, {CALL(lstat), 0, {{0}}},
    {CALL(statx), 0, {{0}}}, {CALL(access), 0, {{0}}}, {CALL(faccessat), 0, {{0}}},
    {CALL(faccessat2), 0, {{0}}}, {CALL(readlink), 0, {{0}}}, {CALL(readlinkat), 0, {{0}}},
    {CALL(getcwd), 0, {{0}}}, {CALL(chdir), 0, {{0}}}, {CALL(fchdir), 0, {{0}}},
    {CALL(unlink), 0, {{0}}}, {CALL(unlinkat), 0, {{0}}}, {CALL(rename), 0, {{0}}},
    {CALL(renameat), 0, {{0}}}, {CALL(renameat2), 0, {{0}}},
    {CALL(socket), 0, {{0}}}, {CALL(socketpair), 0, {{0}}}, {CALL(connect), 0, {{0}}},
    {CALL(bind), 0, {{0}}}, {CALL(listen), 0, {{0}}},
    {CALL(kill), 0, {{0}}}, {CALL(tkill), 0, {{0}}}, {CALL(tgkill), 0, {{0}}},
    {CALL(pidfd_open), 0, {{0}}}, {CALL(pidfd_send_signal), 0, {{0}}},
    {CALL(pidfd_getfd), 0, {{0}}}, {CALL(ptrace), 0, {{0}}},
    {CALL(process_vm_readv), 0, {{0}}}, {CALL(process_vm_writev), 0, {{0}}},
    {CALL(execve), 0, {{0}}}, {CALL(execveat), 0, {{0}}},
    {CALL(clone), 0, {{0}}}, {CALL(clone3), 0, {{0}}}, {CALL(fork), 0, {{0}}},
    {CALL(vfork), 0, {{0}}}, {CALL(unshare), 0, {{0}}}, {CALL(setns), 0, {{0}}},
    {CALL(lseek), 0, {{0}}}, {CALL(ftruncate), 0, {{0}}}, {CALL(truncate), 0, {{0}}},
    {CALL(fallocate), 0, {{0}}}, {CALL(pwrite64), 0, {{0}}}, {CALL(pwritev), 0, {{0}}},
    {CALL(pwritev2), 0, {{0}}}, {CALL(sendfile), 0, {{0}}}, {CALL(splice), 0, {{0}}},
    {CALL(copy_file_range), 0, {{0}}},
    {CALL(dup), 0, {{0}}}, {CALL(dup2), 0, {{0}}}, {CALL(dup3), 0, {{0}}},
    {CALL(io_uring_setup), 0, {{0}}}, {CALL(io_uring_enter), 0, {{0}}},
    {CALL(fcntl), 0, {RECORDING_RANGE, IS(1, F_SETFL)}},
    {CALL(prlimit64), 0, {{0}}}, {CALL(getrlimit), 0, {{0}}}, {CALL(setrlimit), 0, {{0}}},
};
/* clang-format on */

static struct sock_fprog programs[PROGRAM_COUNT];

static int add_row(scmp_filter_ctx ctx, uint32_t action, const struct row *row)
{
    struct scmp_arg_cmp args[ARGS_MAX];
    unsigned int count = 0;

    while (count < ARGS_MAX && row->args[count].op) {
        const struct arg *arg = &row->args[count];

        args[count] = (struct scmp_arg_cmp){.arg = arg->index,
                                            .op = (enum scmp_compare)arg->op,
                                            .datum_a = arg->a,
                                            .datum_b = arg->b};
        count++;
    }
    return seccomp_rule_add_array(ctx, action, row->call, count, args);
}

static int add_rows(scmp_filter_ctx ctx, enum program program)
{
    int r = 0;

    if (program == PROGRAM_REFUSED) {
        for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]) && r == 0; i++)
            r = add_row(ctx, SCMP_ACT_ERRNO(EPERM), &refused[i]);
        return r;
    }
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]) && r == 0; i++)
        if (allowed[i].when & (1u << program))
            r = add_row(ctx, SCMP_ACT_ALLOW, &allowed[i]);
    /* answered by REFUSED without a line in the log, so not ours to answer */
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]) && r == 0; i++)
        r = add_row(ctx, SCMP_ACT_ALLOW, &refused[i]);
    return r;
}

/* libseccomp writes programs to descriptors only. */
static int read_program(int fd, struct sock_fprog *out)
{
    struct stat st;
    size_t count;

    if (fstat(fd, &st) < 0 || st.st_size <= 0)
        return ERR_SYSTEM;
    count = (size_t)st.st_size / sizeof(struct sock_filter);
    if (count > FILTER_INSTRUCTIONS_MAX)
        return ERR_FULL;
    out->filter = calloc(count, sizeof(struct sock_filter));
    if (!out->filter)
        return ERR_MEMORY;
    if (pread(fd, out->filter, count * sizeof(struct sock_filter), 0) != st.st_size)
        return ERR_SYSTEM;
    out->len = (unsigned short)count;
    return 0;
}

static int build(enum program program)
{
    uint32_t other = program == PROGRAM_REFUSED ? SCMP_ACT_ALLOW : SCMP_ACT_ERRNO(ENOSYS);
    scmp_filter_ctx ctx = seccomp_init(other);
    int fd = memfd_create("filter", MFD_CLOEXEC);
    int r = ERR_SYSTEM;

    if (!ctx || fd < 0)
        goto out;
    /* a tree over the numbers instead of a ladder; the kernel's own cache does the rest */
    if (seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2) < 0)
        log_debug("libseccomp cannot optimize filters");
    if (add_rows(ctx, program) < 0 || seccomp_export_bpf(ctx, fd) < 0)
        goto out;
    r = read_program(fd, &programs[program]);
out:
    if (ctx)
        seccomp_release(ctx);
    if (fd >= 0)
        close(fd);
    return r;
}

int sandbox_prepare(void)
{
    for (int i = 0; i < PROGRAM_COUNT; i++) {
        int r = programs[i].len ? 0 : build((enum program)i);

        if (r < 0) {
            log_error("cannot build the system call filter: %s", error_text(r));
            return r;
        }
    }
    return 0;
}

static int install(enum program program, unsigned long flags)
{
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &programs[program]) == 0)
        return 0;
    log_error("cannot install the system call filter: %s", strerror(errno));
    return ERR_SYSTEM;
}

int sandbox_filter_login(void)
{
    int r = sandbox_prepare();

    if (r < 0 || sandbox_is_off_for_leaks())
        return r;
    r = install(PROGRAM_LOGIN, SECCOMP_FILTER_FLAG_LOG);
    return r < 0 ? r : install(PROGRAM_REFUSED, 0);
}

int sandbox_filter_session(void)
{
    int r = sandbox_prepare();

    if (r < 0 || sandbox_is_off_for_leaks())
        return r;
    return install(PROGRAM_SESSION, SECCOMP_FILTER_FLAG_LOG);
}

int sandbox_reserve_recording_fd(int fd)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, SANDBOX_FD_RECORDING);

    close(fd);
    if (moved < SANDBOX_FD_RECORDING + SANDBOX_FD_RECORDING_COUNT)
        return moved;
    close(moved);
    return -1;
}
