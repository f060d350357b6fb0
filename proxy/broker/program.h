/* Where the programs that the broker starts are. */
#ifndef BROKER_PROGRAM_H
#define BROKER_PROGRAM_H

#include <stddef.h>

/* Beside this program in a build tree, in libexec in an installation. */
void program_find(const char *name, char *dst, size_t len);

#endif
