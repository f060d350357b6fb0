/*
 * What a relay can no longer do, proved from inside: a child enters the same sandbox as a relay
 * and tries. Runs as root (uid drop and chroot) and as an ordinary user (user namespace); cases
 * that the machine does not allow (no root, no namespaces) are skipped, and say so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sallyport/link.h>

#include "proxy/relay/sandbox.h"
#include "proxy/relay/sandbox_priv.h"

#define NOBODY   65534
#define STRANGER 65533 /* the relay's uid when we are root */
#define SKIPPED  77

static char dir[64], root_dir[96], recording[96];

/* ---- what a child tries; each returns 0 when the sandbox held ---- */

struct world {
    int recording_fd; /* at its reserved number */
    pid_t victim;     /* a process of the same uid */
    int sock;         /* one end of a connected stream pair */
};

static int is_denied(long r)
{
    return r < 0 && (errno == EPERM || errno == ENOSYS || errno == EACCES);
}

static int cannot_open(const struct world *w)
{
    (void)w;
    return is_denied(open("/", O_RDONLY | O_DIRECTORY)) &&
                   is_denied(open("/etc/passwd", O_RDONLY)) &&
                   is_denied(syscall(SYS_open, "/dev/null", O_RDONLY)) &&
                   is_denied(open("new", O_CREAT | O_WRONLY, 0600))
               ? 0
               : 1;
}

static int cannot_connect(const struct world *w)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX, .sun_path = "relay.sock"};

    return is_denied(socket(AF_INET, SOCK_STREAM, 0)) &&
                   is_denied(socket(AF_UNIX, SOCK_SEQPACKET, 0)) &&
                   is_denied(connect(w->sock, (struct sockaddr *)&sun, sizeof(sun))) &&
                   is_denied(bind(w->sock, (struct sockaddr *)&sun, sizeof(sun))) &&
                   is_denied(listen(w->sock, 1)) &&
                   is_denied(
                       sendto(w->sock, "x", 1, MSG_FASTOPEN, (struct sockaddr *)&sun, sizeof(sun)))
               ? 0
               : 1;
}

static int cannot_signal(const struct world *w)
{
    return is_denied(kill(w->victim, SIGTERM)) && is_denied(kill(-1, 0)) &&
                   is_denied(syscall(SYS_tgkill, w->victim, w->victim, SIGTERM)) &&
                   is_denied(syscall(SYS_tkill, w->victim, SIGTERM)) &&
                   is_denied(syscall(SYS_pidfd_open, w->victim, 0)) &&
                   is_denied(ptrace(PTRACE_ATTACH, w->victim, NULL, NULL)) &&
                   is_denied(syscall(SYS_process_vm_readv, w->victim, NULL, 0, NULL, 0, 0))
               ? 0
               : 1;
}

static int recording_only_grows(const struct world *w)
{
    int fd = w->recording_fd;
    int flags = fcntl(fd, F_GETFL);
    struct iovec part = {.iov_base = (char[]){"x"}, .iov_len = 1};

    if (fd != SANDBOX_FD_RECORDING || flags < 0 || !(flags & O_APPEND))
        return 1;
    if (write(fd, "more", 4) != 4)
        return 2;
    if (!is_denied(ftruncate(fd, 0)) || !is_denied(lseek(fd, 0, SEEK_SET)) ||
        !is_denied(pwrite(fd, "x", 1, 0)) || !is_denied(pwritev(fd, &part, 1, 0)) ||
        !is_denied(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4)))
        return 3;
    if (!is_denied(fcntl(fd, F_SETFL, flags & ~O_APPEND)))
        return 4;
    /* high bits that the kernel would cut off */
    if (!is_denied(syscall(SYS_fcntl, UINT64_C(0x100000000) + (uint64_t)fd, F_SETFL, 0)))
        return 5;
    /* a copy elsewhere shares the flags */
    if (!is_denied(dup(fd)) || !is_denied(dup2(fd, 50)) || !is_denied(dup3(fd, 50, O_CLOEXEC)) ||
        !is_denied(fcntl(fd, F_DUPFD, 50)) || !is_denied(fcntl(fd, F_DUPFD_CLOEXEC, 50)))
        return 6;
    if (fcntl(fd, F_DUPFD_CLOEXEC, SANDBOX_FD_RECORDING) != SANDBOX_FD_RECORDING + 1 ||
        !is_denied(fcntl(SANDBOX_FD_RECORDING + 1, F_SETFL, 0)))
        return 7;
    if (!is_denied(syscall(SYS_sendfile, fd, fd, NULL, 1)) ||
        !is_denied(syscall(SYS_copy_file_range, fd, NULL, fd, NULL, 1, 0)) ||
        !is_denied(syscall(SYS_splice, w->sock, NULL, fd, NULL, 1, 0)))
        return 8;
    return fcntl(fd, F_GETFL) == flags ? 0 : 9;
}

static int cannot_exec_or_fork(const struct world *w)
{
    char *argv[] = {(char[]){"sh"}, NULL};
    void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)w;
    if (code == MAP_FAILED)
        return 1;
    return is_denied(execv("/bin/sh", argv)) && is_denied(fork()) &&
                   is_denied(unshare(CLONE_NEWUSER)) &&
                   is_denied(mprotect(code, 4096, PROT_READ | PROT_EXEC)) &&
                   mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
                       MAP_FAILED &&
                   is_denied(syscall(SYS_io_uring_setup, 1, NULL)) &&
                   is_denied(syscall(SYS_bpf, 0, NULL, 0))
               ? 0
               : 2;
}

static int is_nobody(const struct world *w)
{
    struct rlimit files;

    (void)w;
    if (geteuid() == 0 || prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0)
        return 1;
    if (!is_denied(setuid(0)) || !is_denied(syscall(SYS_setgroups, 0, NULL)))
        return 2;
    return is_denied(getrlimit(RLIMIT_NOFILE, &files)) ? 0 : 3;
}

/* What libraries need goes on working. */
static int can_relay(const struct world *w)
{
    char byte = 0;
    int flags = fcntl(w->sock, F_GETFL);
    struct stat st;
    void *memory = malloc(1 << 20);

    if (!memory || flags < 0 || fcntl(w->sock, F_SETFL, flags | O_NONBLOCK) < 0)
        return 1;
    memset(memory, 1, 1 << 20);
    free(memory);
    if (send(w->sock, "x", 1, MSG_NOSIGNAL) != 1 || read(w->sock, &byte, 1) != 1 || byte != 'y')
        return 2;
    if (read(w->sock, &byte, 1) >= 0 || errno != EAGAIN)
        return 3;
    return fstat(w->sock, &st) == 0 && S_ISSOCK(st.st_mode) ? 0 : 4;
}

static const struct attempt {
    const char *name;
    int (*run)(const struct world *w);
} attempts[] = {
    {"open", cannot_open},         {"connect", cannot_connect},
    {"signal", cannot_signal},     {"recording", recording_only_grows},
    {"exec", cannot_exec_or_fork}, {"privileges", is_nobody},
    {"relay", can_relay},
};

/* ---- the child ---- */

static void complain(const char *what)
{
    if (write(STDERR_FILENO, what, strlen(what)) < 0 || write(STDERR_FILENO, "\n", 1) < 0)
        _exit(99);
}

static void become(uid_t uid)
{
    if (uid && (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0))
        _exit(98);
}

/* Somebody of the uid that the relay will have: only the filter stands between them. */
static pid_t start_victim(uid_t uid)
{
    int ready[2];
    char byte;
    pid_t pid;

    if (pipe2(ready, O_CLOEXEC) < 0)
        _exit(91);
    pid = fork();
    if (pid == 0) {
        become(uid);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (write(ready[1], "r", 1) == 1)
            pause();
        _exit(0);
    }
    if (pid < 0 || read(ready[0], &byte, 1) != 1)
        _exit(91);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static struct world make_world(uid_t relay_uid)
{
    struct world w = {.victim = start_victim(relay_uid)};
    int pair[2];
    int fd = open(recording, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        _exit(97);
    if (write(pair[1], "y", 1) != 1)
        _exit(96);
    w.recording_fd = sandbox_reserve_recording_fd(fd);
    w.sock = pair[0];
    return w;
}

static int child(uid_t uid, const struct sandbox *s, bool is_session, const struct attempt *a)
{
    struct world w = make_world(s->is_root ? s->relay_uid : uid);
    char err[256];

    become(uid);
    if (sandbox_prepare() < 0)
        return 95;
    if (sandbox_enter_gate(s, err, sizeof(err)) < 0) {
        complain(err);
        return strstr(err, "sandbox = reduced") ? SKIPPED : 94;
    }
    if (sandbox_enter_relay(s, err, sizeof(err)) < 0) {
        complain(err);
        return 93;
    }
    if (sandbox_filter_login() < 0 || (is_session && sandbox_filter_session() < 0))
        return 92;
    return a->run(&w);
}

static int status_of(pid_t pid)
{
    int status;

    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void try_all(uid_t uid, const struct sandbox *s)
{
    for (size_t i = 0; i < 2 * sizeof(attempts) / sizeof(attempts[0]); i++) {
        const struct attempt *a = &attempts[i / 2];
        pid_t pid = fork();
        int status;

        if (pid == 0)
            _exit(child(uid, s, i % 2, a));
        status = status_of(pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == SKIPPED)
            skip();
        if (status != 0)
            print_error("%s, %s filter: status %#x\n", a->name, i % 2 ? "session" : "login",
                        (unsigned)status);
        assert_int_equal(status, 0);
    }
}

/* ---- tests ---- */

static void as_root(void **unused)
{
    struct sandbox s = {
        .is_root = true, .relay_uid = STRANGER, .relay_gid = STRANGER, .root_dir = root_dir};

    (void)unused;
    if (geteuid() != 0)
        skip();
    try_all(0, &s);
}

static void as_ordinary_user(void **unused)
{
    struct sandbox s = {.root_dir = root_dir};

    (void)unused;
    try_all(geteuid() == 0 ? NOBODY : 0, &s);
}

static void reduced(void **unused)
{
    struct sandbox s = {.is_reduced = true, .root_dir = root_dir};
    struct sandbox with_root = {
        .is_reduced = true, .is_root = true, .relay_uid = STRANGER, .relay_gid = STRANGER};

    (void)unused;
    try_all(geteuid() == 0 ? NOBODY : 0, &s);
    if (geteuid() == 0)
        try_all(0, &with_root);
}

static void root_needs_a_user(void **unused)
{
    struct sandbox s = {.is_root = true, .root_dir = root_dir};
    char err[256] = "";

    (void)unused;
    assert_int_equal(sandbox_enter_gate(&s, err, sizeof(err)), ERR_SYSTEM);
    assert_non_null(strstr(err, "relay_user"));
    if (geteuid() != 0)
        return;
    s.is_root = false;
    assert_int_equal(sandbox_enter_gate(&s, err, sizeof(err)), ERR_SYSTEM);
    assert_non_null(strstr(err, "--relay-uid"));
}

static int without_root(const struct sandbox *s)
{
    char err[256] = "";

    become(geteuid() == 0 ? NOBODY : 0);
    return sandbox_enter_gate(s, err, sizeof(err)) < 0 && strstr(err, "sandbox = reduced") ? 0 : 1;
}

static void error_names_the_way_out(void **unused)
{
    struct sandbox s = {.root_dir = "/nowhere/at/all"};
    pid_t pid = fork();

    (void)unused;
    if (pid == 0)
        _exit(without_root(&s));
    assert_int_equal(status_of(pid), 0);
}

static void abort_ends_the_process(void **unused)
{
    pid_t pid = fork();
    int status;

    (void)unused;
    if (pid == 0) {
        struct rlimit none = {0, 0};

        if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            sandbox_filter_login() < 0)
            _exit(90);
        signal(SIGSEGV, SIG_DFL); /* the sanitizer has its own */
        abort();
    }
    status = status_of(pid);
    assert_true(WIFSIGNALED(status));
}

static void reserved_numbers_run_out(void **unused)
{
    int fds[SANDBOX_FD_RECORDING_COUNT];

    (void)unused;
    for (int i = 0; i < SANDBOX_FD_RECORDING_COUNT; i++) {
        fds[i] = sandbox_reserve_recording_fd(dup(STDERR_FILENO));
        assert_int_equal(fds[i], SANDBOX_FD_RECORDING + i);
    }
    assert_int_equal(sandbox_reserve_recording_fd(dup(STDERR_FILENO)), -1);
    close(fds[5]);
    assert_int_equal(sandbox_reserve_recording_fd(dup(STDERR_FILENO)), fds[5]);
    for (int i = 0; i < SANDBOX_FD_RECORDING_COUNT; i++)
        close(fds[i]);
}

static int make_places(void **unused)
{
    int fd;

    (void)unused;
    snprintf(dir, sizeof(dir), "/tmp/sallyport-sandbox-XXXXXX");
    if (!mkdtemp(dir) || chmod(dir, 0755) < 0)
        return -1;
    snprintf(root_dir, sizeof(root_dir), "%s/root", dir);
    snprintf(recording, sizeof(recording), "%s/recording", dir);
    fd = open(recording, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || mkdir(root_dir, 0555) < 0)
        return -1;
    return close(fd);
}

static int remove_places(void **unused)
{
    (void)unused;
    return unlink(recording) || rmdir(root_dir) || rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_root),
        cmocka_unit_test(as_ordinary_user),
        cmocka_unit_test(reduced),
        cmocka_unit_test(root_needs_a_user),
        cmocka_unit_test(error_names_the_way_out),
        cmocka_unit_test(abort_ends_the_process),
        cmocka_unit_test(reserved_numbers_run_out),
    };

    close_range(3, ~0u, 0); /* what the caller left open may stand in the reserved range */
    return cmocka_run_group_tests(tests, make_places, remove_places);
}
