/*
 * sallyport-rdp: the RDP gate, started by the broker. By hand it only makes a key with a
 * self-signed certificate and tells its version.
 */
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "proxy/rdp/rdp.h"

static int help(void)
{
    puts("usage: sallyport-rdp --keygen HOST   write a new key and a self-signed certificate\n"
         "                                    for HOST to stdout\n"
         "       sallyport-rdp --version\n"
         "       sallyport-rdp --help\n"
         "Started by sallyportd with --gate it accepts RDP connections, with --probe it tries a\n"
         "target out.");
    return 0;
}

static int version(void)
{
    printf("sallyport-rdp %s (%s)\n", SALLYPORT_VERSION, OpenSSL_version(OPENSSL_VERSION));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return help();
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return version();
    if (argc == 3 && strcmp(argv[1], "--keygen") == 0)
        return rdp_keygen(argv[2]);
    if (argc >= 2 && strcmp(argv[1], "--probe") == 0)
        return rdp_probe_main(argc, argv);
    if (argc < 2 || strcmp(argv[1], "--gate") != 0) {
        fprintf(stderr, "error: sallyportd starts this program; see --help\n");
        return 2;
    }
    return gate_main(argc, argv, &rdp_gate);
}
