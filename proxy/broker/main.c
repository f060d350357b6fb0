/* sallyportd: reads the command line and the configuration, then runs the broker. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/config/config.h"
#include "proxy/broker/user_ca.h"

static void usage(FILE *out)
{
    fputs(
        "usage: sallyportd [-c FILE] [-t | -T] [-h] [-V]\n"
        "  -c FILE  configuration (default " CONFIG_PATH_DEFAULT ")\n"
        "  -t       check the configuration and leave\n"
        "  -T       print the effective configuration and leave\n"
        "  -h       this help\n"
        "  -V       version\n"
        "Runs in the foreground. SIGTERM stops the daemon and leaves sessions alive, SIGINT ends\n"
        "them with a notice, SIGHUP reloads.\n",
        out);
}

static void print_buffer(struct buffer *b, FILE *out)
{
    if (b->len)
        fwrite(b->data, 1, b->len, out);
}

static void print_warnings(const struct config *c)
{
    for (size_t i = 0; i < c->warnings.count; i++)
        fprintf(stderr, "warning: %s\n", c->warnings.items[i]);
}

/* What no option sees by itself: the CAs' files hold public keys. */
static bool check_user_cas(const struct config *c)
{
    struct user_cas *cas;
    char err[1024];
    int r = user_cas_load(&cas, c, err, sizeof(err));

    if (r < 0)
        fprintf(stderr, "%s: %s\n", c->path, err);
    user_cas_free(cas);
    return r == 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"test", no_argument, NULL, 't'},
        {"print", no_argument, NULL, 'T'},        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},      {NULL, 0, NULL, 0}};
    const char *path = CONFIG_PATH_DEFAULT;
    struct config *config = NULL;
    struct buffer text;
    char mode = 0;
    int option;

    while ((option = getopt_long(argc, argv, "c:tThV", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            path = optarg;
            break;
        case 't':
        case 'T':
            mode = (char)option;
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'V':
            puts("sallyportd " SALLYPORT_VERSION);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return 2;
    }
    log_open("sallyportd", LOG_SINK_STDERR, LOG_LEVEL_INFO);
    buffer_init(&text, CONFIG_REPORT_MAX);
    if (config_load(&config, path, &text) < 0) {
        print_buffer(&text, stderr);
        buffer_finish(&text);
        return 1;
    }
    buffer_reset(&text);
    if (mode == 't' && !check_user_cas(config)) {
        buffer_finish(&text);
        config_free(config);
        return 1;
    }
    if (mode) {
        print_warnings(config);
        if (mode == 'T')
            config_print(config, &text);
        else
            buffer_printf(&text, "%s: ok\n", config->path);
        print_buffer(&text, stdout);
        config_free(config);
        buffer_finish(&text);
        return 0;
    }
    buffer_finish(&text);
    log_open("sallyportd", config->log, config->log_level);
    return broker_run(config);
}
