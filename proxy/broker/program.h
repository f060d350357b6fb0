/* The programs that the broker starts: where they are, and becoming one of the sandboxed ones. */
#ifndef BROKER_PROGRAM_H
#define BROKER_PROGRAM_H

#include <stddef.h>

struct broker;

/* Beside this program in a build tree, in `folder` in an installation. */
void program_find(const char *name, const char *folder, char *dst, size_t len);

/* The arguments that tell such a program of its root, and of the user that its relays get; with a
 * NULL behind. argv has room for PROGRAM_SANDBOX_MAX more from n on. Returns the new n. */
#define PROGRAM_SANDBOX_MAX 9
struct program_sandbox {
    char root[512], relay_uid[16], relay_gid[16]; /* what argv points to */
};
size_t program_put_sandbox(const struct broker *b, struct program_sandbox *s, const char **argv,
                           size_t n);

/* In a forked child: become `path`, with `link` as its descriptor 3 and no other but the standard
 * ones, in run_dir, with the gate's capabilities and the broker's log. */
#define PROGRAM_LINK_FD 3
_Noreturn void program_become(const struct broker *b, const char *path, const char *const *argv,
                              int link);

#endif
