/*
 * A server's host key, asked for through the daemon and shown to the admin before it is trusted.
 */
#ifndef CONTROL_CLI_TARGET_KEY_H
#define CONTROL_CLI_TARGET_KEY_H

#include "control/cli/cli.h"

/*
 * where        arguments of `target host-key`; taken
 * may_go_on    a server that does not answer is asked about, rather than an error
 * args         gets host_key when the key is the right one
 *
 * With --host-key-fingerprint the key must have it; otherwise the person at the terminal is asked.
 * Returns CLI_DONE, or an exit code after telling the user.
 */
int target_key_fetch(struct cli *cli, json_t *where, bool may_go_on, json_t *args);

#endif
