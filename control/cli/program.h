/* Programs of ours that sallyctl starts for work of its own. */
#ifndef CONTROL_CLI_PROGRAM_H
#define CONTROL_CLI_PROGRAM_H

#include <stddef.h>

/* Its path: beside sallyctl, as after a build; otherwise where it is installed. It need not exist.
 */
void program_find(const char *name, char *dst, size_t len);

#endif
