/*
 * The sandbox of gates and relays: identity, root, limits and system call filters.
 *
 * Installed as root the gate keeps the broker's uid with CAP_SETUID and CAP_SETGID only, and each
 * relay becomes `relay_user`. Run as an ordinary user a user namespace stands in for both.
 * `reduced` skips the root and the namespace; rlimits, no_new_privs and the filters always apply.
 */
#ifndef RELAY_SANDBOX_H
#define RELAY_SANDBOX_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include <sallyport/errors.h>

struct sandbox {
    bool is_reduced;
    bool is_root; /* started by root: uids below apply */
    uid_t relay_uid;
    gid_t relay_gid;
    const char *root_dir; /* an empty directory, relative to run_dir or absolute */
};

/* Gate: enter the root, keeping the working directory (run_dir) so that relative socket paths
 * still work. On error err says what to do ("... or set sandbox = reduced"). */
MUST_CHECK int sandbox_enter_gate(const struct sandbox *s, char *err, size_t err_len);

/* Relay, right after fork and before the first byte: working directory into the root, own uid, no
 * capabilities, no_new_privs, rlimits, not dumpable. */
MUST_CHECK int sandbox_enter_relay(const struct sandbox *s, char *err, size_t err_len);

/* Gate: build the filters once, so that no relay pays for it. The two calls below do it when this
 * was not called. */
MUST_CHECK int sandbox_prepare(void);

/*
 * The filters; each may only be narrowed. Calls that we know and refuse return EPERM. Unknown ones
 * return ENOSYS and leave a line in the kernel's log (an audit record of type 1326 with the call's
 * number; nothing on a kernel without audit), which the kernel limits by itself.
 */
MUST_CHECK int sandbox_filter_login(void);
MUST_CHECK int sandbox_filter_session(void);

/* Recording descriptors live at [SANDBOX_FD_RECORDING, +SANDBOX_FD_RECORDING_COUNT): F_SETFL on
 * them is denied by the filters. Moves fd there (closing the original); -1 when none is free. */
#define SANDBOX_FD_RECORDING       200
#define SANDBOX_FD_RECORDING_COUNT 64
int sandbox_reserve_recording_fd(int fd);

#endif
