/*
 * The four shapes that most commands have: call and print a list, call and print an object, change
 * something and say so, ask before removing.
 */
#ifndef CONTROL_CLI_SIMPLE_H
#define CONTROL_CLI_SIMPLE_H

#include <stdbool.h>

#include <jansson.h>

#include "control/cli/cli.h"
#include "control/cli/output.h"

/* {"name": first operand} */
json_t *simple_name_args(const struct cli *cli);

/* Each takes args (NULL: none) and returns an exit code. */
int simple_list(struct cli *cli, const char *command, json_t *args, const struct columns *columns);
int simple_object(struct cli *cli, const char *command, json_t *args,
                  const struct columns *columns);
/* `done` goes on after the first operand: "was added". */
int simple_change(struct cli *cli, const char *command, json_t *args, const char *done);

/* Ask before something goes that cannot be had back: "Remove WHAT NAME?". Without a terminal the
 * command itself is the word. */
bool simple_may_remove(struct cli *cli, const char *what);

/* cmd_user.c: a public key from a file, "-", or the key itself; the caller frees. An exit code. */
int key_read(struct cli *cli, const char *from, char **out);

/* Is the first operand fit as a new name? Tells the user when not. */
bool simple_check_name(const struct cli *cli, const char *what);

#endif
