/*
 * What this program may still do once it reads a stranger's bytes: compute, in threads, and read
 * and write the descriptors that it was given. No files, no sockets, no programs, no signals to
 * others, no memory that is executed.
 */
#ifndef EXPORT_SANDBOX_H
#define EXPORT_SANDBOX_H

#include <stddef.h>

#include <sallyport/errors.h>

/* For this process and all its threads; call it before there are any. Root becomes nobody where it
 * may. 0, or
 * ERR_SYSTEM with a sentence. */
MUST_CHECK int export_sandbox_enter(char *err, size_t err_len);

#endif
