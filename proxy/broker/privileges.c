/* Users, capabilities and directories at start-up; see privileges.h. */
#include "proxy/broker/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pwd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const int broker_caps[] = {CAP_SETUID, CAP_SETGID, CAP_SYS_CHROOT, CAP_KILL,
                                  CAP_NET_BIND_SERVICE};
#define GATE_CAPS 3 /* the first of them */

static int set_caps(size_t count, bool inheritable)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}, {0}};

    for (size_t i = 0; i < count; i++) {
        uint32_t bit = UINT32_C(1) << (broker_caps[i] % 32);
        struct __user_cap_data_struct *d = &data[broker_caps[i] / 32];

        d->permitted |= bit;
        d->effective |= bit;
        if (inheritable)
            d->inheritable |= bit;
    }
    return syscall(SYS_capset, &head, data) < 0 ? ERR_SYSTEM : 0;
}

static int find_user(const char *name, uid_t *uid, gid_t *gid, char *err, size_t err_len)
{
    const struct passwd *p = getpwnam(name);

    if (!p) {
        snprintf(err, err_len,
                 "there is no system user \"%s\"; make it with: useradd --system --user-group "
                 "--no-create-home --shell /usr/sbin/nologin %s",
                 name, name);
        return ERR_NOT_FOUND;
    }
    *uid = p->pw_uid;
    *gid = p->pw_gid;
    return 0;
}

int identity_find(struct identity *id, const char *user, const char *relay_user, char *err,
                  size_t err_len)
{
    int r;

    memset(id, 0, sizeof(*id));
    id->is_root = geteuid() == 0;
    id->uid = id->relay_uid = getuid();
    id->gid = id->relay_gid = getgid();
    if (!id->is_root)
        return 0;
    if ((r = find_user(user, &id->uid, &id->gid, err, err_len)) < 0 ||
        (r = find_user(relay_user, &id->relay_uid, &id->relay_gid, err, err_len)) < 0)
        return r;
    if (id->uid == 0 || id->relay_uid == 0 || id->uid == id->relay_uid) {
        snprintf(err, err_len, "[proxy] user and relay_user must be two users, and neither root");
        return ERR_INVALID;
    }
    return 0;
}

int identity_take(const struct identity *id, char *err, size_t err_len)
{
    size_t count = sizeof(broker_caps) / sizeof(broker_caps[0]);

    if (!id->is_root)
        return 0;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++) {
        bool is_kept = false;

        for (size_t i = 0; i < count; i++)
            is_kept |= broker_caps[i] == cap;
        if (!is_kept && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            goto failed;
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
        setresgid(id->gid, id->gid, id->gid) < 0 || setresuid(id->uid, id->uid, id->uid) < 0 ||
        set_caps(count, false) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        goto failed;
    return 0;
failed:
    snprintf(err, err_len, "cannot become user %u: %s", (unsigned)id->uid, strerror(errno));
    return ERR_SYSTEM;
}

int identity_prepare_gate(const struct identity *id)
{
    if (!id->is_root)
        return 0;
    if (set_caps(GATE_CAPS, true) < 0)
        return ERR_SYSTEM;
    for (size_t i = 0; i < GATE_CAPS; i++)
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, broker_caps[i], 0, 0) < 0)
            return ERR_SYSTEM;
    return 0;
}

/* By descriptor: nobody puts a link in the place of what was looked at. */
static int take_dir(const struct identity *id, int fd, const char *path, bool is_made, mode_t mode,
                    char *err, size_t err_len)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || (st.st_uid != id->uid && st.st_uid != 0)) {
        snprintf(err, err_len, "%s is not a directory of user %u; move it away or give it to him",
                 path, (unsigned)id->uid);
        return ERR_INVALID;
    }
    if (!is_made && st.st_mode & S_IWOTH) {
        snprintf(err, err_len,
                 "%s can be written by everybody, who could replace what is in it; "
                 "take that away (chmod o-w) or set another directory",
                 path);
        return ERR_INVALID;
    }
    /* umask may have cut the mode, and root made it */
    if ((is_made && fchmod(fd, mode) < 0) ||
        (id->is_root && st.st_uid == 0 && fchown(fd, id->uid, id->gid) < 0)) {
        snprintf(err, err_len, "%s: %s", path, strerror(errno));
        return ERR_SYSTEM;
    }
    return 0;
}

int identity_make_dir(const struct identity *id, const char *path, mode_t mode, char *err,
                      size_t err_len)
{
    bool is_made = mkdir(path, mode) == 0;
    int fd, r;

    if (!is_made && errno != EEXIST) {
        snprintf(err, err_len, "%s cannot be made: %s", path, strerror(errno));
        return ERR_SYSTEM;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        snprintf(err, err_len, "%s is not a directory of user %u; move it away or give it to him",
                 path, (unsigned)id->uid);
        return ERR_INVALID;
    }
    r = take_dir(id, fd, path, is_made, mode, err, err_len);
    close(fd);
    return r;
}
