/*
 * sallyport-options: prints what is generated from the option table. For the build, the checks and
 * packagers; not installed.
 */
#include <stdio.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/log.h>

#include "proxy/broker/config/config.h"

int main(int argc, char **argv)
{
    struct buffer out;

    buffer_init(&out, CONFIG_REPORT_MAX);
    if (argc == 2 && strcmp(argv[1], "--example") == 0) {
        config_example(&out);
    } else if (argc == 2 && strcmp(argv[1], "--man") == 0) {
        config_man(&out);
    } else {
        fprintf(stderr, "usage: sallyport-options --example | --man\n");
        return 2;
    }
    if (out.failed || fwrite(out.data, 1, out.len, stdout) != out.len || fflush(stdout) != 0)
        die("cannot write the document");
    buffer_finish(&out);
    return 0;
}
