/*
 * What the files about sessions share.
 */
#ifndef CONTROL_CLI_SESSION_H
#define CONTROL_CLI_SESSION_H

#include <stdbool.h>

#include <jansson.h>

#include "control/cli/cli.h"

/* A decimal number above 0. */
bool session_is_id(const char *text);

/* Print a result per id; CLI_SOME_FAILED when one failed. are_named: the user named the ids, so
 * that one which has ended already is a failure. */
int session_print_results(struct cli *cli, json_t *rows, bool are_named);

#endif
