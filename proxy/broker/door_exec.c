/*
 * Starts sallyctl for a user who came by SSH: door_exec.h. Everything that allocates is done before
 * the fork; the child makes system calls only, since the broker has threads. What the process must
 * not be able to do stands in confine().
 */
#include "proxy/broker/door_exec.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <sallyport/text.h>

#if defined(__SANITIZE_ADDRESS__)
#define IS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define IS_ASAN 1
#endif
#endif
#ifndef IS_ASAN
#define IS_ASAN 0
#endif

#define MEMORY_MAX  (UINT64_C(512) << 20)
#define FETCHED_MAX (UINT64_C(256) << 20) /* a recording to play, in memory */
#define FILES_MAX   32
#define ENV_MAX     10
#define HIGH_FD     64 /* above what the child's own descriptors are */
#define CPU_S       600
#define STDIO_COUNT 3

/* ---- the environment ---- */

struct environment {
    char text[ENV_MAX][160];
    char *list[ENV_MAX + 1];
    size_t count;
};

static void put(struct environment *e, const char *name, const char *value)
{
    if (!value || !*value || e->count == ENV_MAX ||
        (size_t)snprintf(e->text[e->count], sizeof(e->text[0]), "%s=%s", name, value) >=
            sizeof(e->text[0]))
        return;
    e->list[e->count] = e->text[e->count];
    e->list[++e->count] = NULL;
}

/* A terminal's type names a file of terminfo: letters only, no path. */
static const char *safe_term(const char *term)
{
    static const char allowed[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+._";

    return term[0] && term[0] != '.' && strspn(term, allowed) == strlen(term) ? term : "dumb";
}

static void fill_environment(struct environment *e, const struct door_exec *x)
{
    const char *lang = getenv("LANG");
    char cols[16];

    e->count = 0;
    e->list[0] = NULL;
    put(e, "SALLYPORT_SOCKET", "fd:3");
    put(e, "LANG", lang && *lang ? lang : "C.UTF-8");
    put(e, "TZ", getenv("TZ"));
    if (x->has_pty) {
        snprintf(cols, sizeof(cols), "%u", x->cols);
        put(e, "TERM", safe_term(x->term));
        put(e, "COLUMNS", cols);
    }
    if (IS_ASAN) {
        put(e, "ASAN_OPTIONS", getenv("ASAN_OPTIONS"));
        put(e, "UBSAN_OPTIONS", getenv("UBSAN_OPTIONS"));
    }
}

/* ---- descriptors ---- */

struct wires {
    int ours[STDIO_COUNT], theirs[STDIO_COUNT]; /* -1: not open; theirs[0] alone for a terminal */
};

static void close_all(int *fds)
{
    for (size_t i = 0; i < STDIO_COUNT; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
}

static int open_terminal(struct wires *w, uint16_t cols, uint16_t rows)
{
    const struct winsize size = {.ws_col = cols, .ws_row = rows};
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);

    w->ours[0] = master;
    if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0 ||
        ioctl(master, TIOCSWINSZ, &size) < 0)
        return ERR_SYSTEM;
    /* by the master, not by a path: what is mounted at /dev/pts does not matter */
    w->theirs[0] = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    return w->theirs[0] < 0 ? ERR_SYSTEM : 0;
}

static int open_pipes(struct wires *w)
{
    for (size_t i = 0; i < STDIO_COUNT; i++) {
        int ends[2];

        if (pipe2(ends, O_CLOEXEC) < 0)
            return ERR_SYSTEM;
        w->ours[i] = i == 0 ? ends[1] : ends[0];
        w->theirs[i] = i == 0 ? ends[0] : ends[1];
        if (fcntl(w->ours[i], F_SETFL, O_NONBLOCK) < 0)
            return ERR_SYSTEM;
    }
    return 0;
}

/* ---- the child: system calls only ---- */

static int limit(int resource, rlim_t value)
{
    const struct rlimit both = {value, value};

    return setrlimit((__rlimit_resource_t)resource, &both);
}

/*
 * The process has its connection and needs no other, and nobody to signal but itself: relays run
 * under the same user, and an unprivileged daemon's control socket would take it for the owner.
 * A short list of what is refused, since exec, the loader and the libraries need the rest; the
 * program is made here by hand, as it holds our own number.
 */
#if defined(__x86_64__)
#define FILTER_ARCH AUDIT_ARCH_X86_64
#define FILTER_MORE 0x40000000u /* the x32 calls, which have the same architecture */
#elif defined(__aarch64__)
#define FILTER_ARCH AUDIT_ARCH_AARCH64
#define FILTER_MORE 0xffffffffu
#endif

#ifdef FILTER_ARCH
#define LOAD(member) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, member))
#define ANSWER(what)   BPF_STMT(BPF_RET | BPF_K, what)
#define SKIP_UNLESS(n) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, n, 0, 1)
#define REFUSE(call)   SKIP_UNLESS(SYS_##call), ANSWER(SECCOMP_RET_ERRNO | EPERM)
/* allowed when the first argument is `value` */
#define ONLY_WITH(call, value)                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 4), LOAD(args[0]), SKIP_UNLESS(value), \
        ANSWER(SECCOMP_RET_ALLOW), ANSWER(SECCOMP_RET_ERRNO | EPERM)

/* refused with O_CREAT; the accumulator is lost otherwise */
#define MAKES_FILES(call, flags)                                                                \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_##call, 0, 4), LOAD(flags),                         \
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_CREAT, 0, 1), ANSWER(SECCOMP_RET_ERRNO | EPERM), \
        ANSWER(SECCOMP_RET_ALLOW)
#ifdef SYS_open
#define MAKES_FILES_BY_PATH MAKES_FILES(open, args[1]), REFUSE(creat),
#else
#define MAKES_FILES_BY_PATH
#endif

static int refuse_calls(void)
{
    const uint32_t self = (uint32_t)getpid();
    struct sock_filter code[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FILTER_ARCH, 1, 0),
        ANSWER(SECCOMP_RET_KILL_PROCESS),
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, FILTER_MORE, 0, 1),
        ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
        REFUSE(socket),
        REFUSE(connect),
        REFUSE(bind),
        REFUSE(ptrace),
        REFUSE(process_vm_readv),
        REFUSE(process_vm_writev),
        REFUSE(pidfd_open),
        REFUSE(pidfd_getfd),
        REFUSE(pidfd_send_signal),
        REFUSE(rt_sigqueueinfo),
        REFUSE(rt_tgsigqueueinfo),
        REFUSE(tkill),
        REFUSE(io_uring_setup), /* whose calls no filter sees */
        MAKES_FILES(openat, args[2]),
        MAKES_FILES_BY_PATH REFUSE(openat2),
        ONLY_WITH(kill, self),
        LOAD(nr),
        ONLY_WITH(tgkill, self),
        LOAD(nr),
        ONLY_WITH(prlimit64, 0), /* its own; another's limits would end it as a signal does */
        ANSWER(SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};

    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0 ? 0 : -1;
}
#else
static int refuse_calls(void)
{
    return 0; /* another architecture: the rest of confine() must do */
}
#endif

/* The relays' user (or, unprivileged, our own), no way back, no processes, no files to make, gone
 * with the broker. Raw calls: glibc's would speak to threads that a forked child does not have. */
static int confine(const struct identity *id, pid_t parent)
{
    if (id->is_root && (syscall(SYS_setgroups, 0, NULL) < 0 ||
                        syscall(SYS_setresgid, id->relay_gid, id->relay_gid, id->relay_gid) < 0 ||
                        syscall(SYS_setresuid, id->relay_uid, id->relay_uid, id->relay_uid) < 0))
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || getppid() != parent)
        return -1;
    if (limit(RLIMIT_NPROC, 0) < 0 || limit(RLIMIT_CORE, 0) < 0 ||
        limit(RLIMIT_FSIZE, FETCHED_MAX) < 0 || limit(RLIMIT_NOFILE, FILES_MAX) < 0 ||
        limit(RLIMIT_CPU, CPU_S) < 0 || (!IS_ASAN && limit(RLIMIT_AS, MEMORY_MAX) < 0))
        return -1;
    return chdir("/") < 0 ? -1 : refuse_calls();
}

/* Out of the way first: a number that is wanted may be one that is in use. */
static int arrange(const struct wires *w, int control_fd, bool has_pty)
{
    int high[STDIO_COUNT + 1];

    for (int i = 0; i < STDIO_COUNT; i++)
        high[i] = fcntl(w->theirs[has_pty ? 0 : i], F_DUPFD_CLOEXEC, HIGH_FD);
    high[STDIO_COUNT] = fcntl(control_fd, F_DUPFD_CLOEXEC, HIGH_FD);
    for (int i = 0; i <= STDIO_COUNT; i++) {
        if (high[i] < 0 || dup2(high[i], i) < 0)
            return -1;
    }
    return close_range(DOOR_CONTROL_FD + 1, ~0u, 0);
}

static void reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int number = 1; number < NSIG; number++)
        sigaction(number, &standard, NULL); /* refused for two of them, which is right */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child(const struct door_exec *e, const struct wires *w, char *const *env, pid_t parent)
{
    reset_signals();
    if (setsid() < 0 || arrange(w, e->control_fd, e->has_pty) < 0 ||
        (e->has_pty && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0) || confine(e->identity, parent) < 0)
        _exit(126);
    execve(e->program, (char *const *)(uintptr_t)e->argv, env);
    _exit(127);
}

int door_exec(const struct door_exec *e, struct door_process *out)
{
    struct wires w = {{-1, -1, -1}, {-1, -1, -1}};
    struct environment env;
    pid_t parent = getpid();

    fill_environment(&env, e);
    if ((e->has_pty ? open_terminal(&w, e->cols, e->rows) : open_pipes(&w)) < 0)
        goto failed;
    out->pid = fork();
    if (out->pid == 0)
        child(e, &w, env.list, parent);
    if (out->pid < 0)
        goto failed;
    close_all(w.theirs);
    memcpy(out->fds, w.ours, sizeof(out->fds));
    return 0;
failed:
    close_all(w.theirs);
    close_all(w.ours);
    return ERR_SYSTEM;
}
