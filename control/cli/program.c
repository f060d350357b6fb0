/* See program.h. */
#include "control/cli/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void program_find(const char *name, char *dst, size_t len)
{
    ssize_t n = readlink("/proc/self/exe", dst, len - 1);
    char *slash;

    dst[n > 0 ? n : 0] = '\0';
    slash = strrchr(dst, '/');
    if (slash && (size_t)(slash + 1 - dst) + strlen(name) < len) {
        snprintf(slash + 1, len - (size_t)(slash + 1 - dst), "%s", name);
        if (access(dst, X_OK) == 0)
            return;
    }
    snprintf(dst, len, "%s/%s", SALLYPORT_LIBEXECDIR, name);
}
