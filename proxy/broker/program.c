/* Where the programs that the broker starts are; see program.h. */
#include "proxy/broker/program.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

void program_find(const char *name, char *dst, size_t len)
{
    char self[400];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    if (n > 0) {
        char *slash;

        self[n] = '\0';
        slash = strrchr(self, '/');
        if (slash) {
            *slash = '\0';
            snprintf(dst, len, "%s/%s", self, name);
            if (access(dst, X_OK) == 0)
                return;
        }
    }
    snprintf(dst, len, "%s/%s", SALLYPORT_LIBEXECDIR, name);
}
