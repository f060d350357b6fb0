/*
 * The player's sandbox: no files, no connections but those that come, no programs.
 */
#ifndef PLAYER_SANDBOX_H
#define PLAYER_SANDBOX_H

#include <stddef.h>

#include <sallyport/errors.h>

/* Everything is open that will be needed. On error err says why. */
MUST_CHECK int player_sandbox_enter(char *err, size_t err_len);

#endif
