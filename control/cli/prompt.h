/*
 * Asking the person at the terminal, and reading secrets and files that a command line names.
 */
#ifndef CONTROL_CLI_PROMPT_H
#define CONTROL_CLI_PROMPT_H

#include <stdbool.h>
#include <stddef.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/secret.h>

#include "control/cli/cli.h"

/* True when questions can be asked and answers read: stdin and stderr are a terminal. */
bool prompt_is_possible(void);
/* A question on stderr; default no. True only for y or yes. */
bool prompt_yes(const char *question);
/* The same; the text itself, typed or pasted, is a yes too. */
bool prompt_yes_or(const char *question, const char *text);
/* The answer must be this number, typed out. */
bool prompt_number(const char *question, size_t number);

/* A question on stderr and a line from stdin, whatever that is; "" for an empty one. False at the
 * end of input. */
bool prompt_line(const char *question, char *answer, size_t len);

/* One line from stdin, without its end. Tells the user on failure. */
MUST_CHECK int prompt_stdin_secret(struct secret *out);
/* Twice, without echo, on the terminal. Tells the user on failure (no terminal, not the same). */
MUST_CHECK int prompt_new_password(const char *who, struct secret *out);

/* Once, without echo, on the terminal. ERR_NOT_FOUND, untold, when there is none. */
MUST_CHECK int prompt_password(const char *question, struct secret *out);

/* A whole file ("-" is stdin) of at most max bytes. Tells the user on failure. */
MUST_CHECK int prompt_read_file(const char *path, struct buffer *out);

#endif
