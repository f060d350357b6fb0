/*
 * What the processes that try a target out have in common (`sallyport-ssh --probe`, `sallyport-rdp
 * --probe`): how the broker starts them, the sandbox that they enter before the first byte from
 * outside, and what the broker tells them. One target, then they end.
 */
#ifndef RELAY_PROBING_H
#define RELAY_PROBING_H

#include <stdbool.h>

#include <sallyport/errors.h>
#include <sallyport/link.h>

#define PROBING_LINK_FD 3

/*
 * Log, arguments, signals, sandbox. warm_up does what needs files. Returns 0, or a negative number
 * after the reason was said: the exit status is -it.
 */
MUST_CHECK int probing_start(int argc, char **argv, int (*warm_up)(void));

/*
 * Wait for what the broker tells: `hop` for each HOP, `begin` for the PROBE, the last. Both may
 * take descriptors by setting them to -1, and return negative when they cannot. message: scratch,
 * wiped.
 */
struct probing_ops {
    int (*hop)(void *arg, struct link_hop *hop, int *fds);
    int (*begin)(void *arg, const struct link_probe *start, int *fds);
};
MUST_CHECK int probing_listen(const struct probing_ops *ops, void *arg,
                              struct link_message *message);

/* Say one step: `m` is filled but for its type, and empty afterwards. False: nobody listens. */
bool probing_say(struct link_message *m);

#endif
