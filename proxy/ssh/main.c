/*
 * sallyport-ssh: the SSH gate, started by the broker. By hand it only makes host keys and tells its
 * version.
 */
#include <stdio.h>
#include <string.h>

#include "proxy/ssh/libssh.h"
#include "proxy/ssh/ssh.h"

static int help(void)
{
    puts(
        "usage: sallyport-ssh --keygen ed25519|rsa|ecdsa   write a new private host key to stdout\n"
        "       sallyport-ssh --version\n"
        "       sallyport-ssh --help\n"
        "Started by sallyportd with --gate it accepts SSH connections, with --probe it tries a\n"
        "target out.");
    return 0;
}

static int version(void)
{
    printf("sallyport-ssh %s (libssh %s)\n", SALLYPORT_VERSION, ssh_version(0));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0)
        return help();
    if (argc == 2 && strcmp(argv[1], "--version") == 0)
        return version();
    if (argc == 3 && strcmp(argv[1], "--keygen") == 0)
        return ssh_keygen(argv[2]);
    if (argc >= 2 && strcmp(argv[1], "--probe") == 0)
        return probe_main(argc, argv);
    if (argc < 2 || strcmp(argv[1], "--gate") != 0) {
        fprintf(stderr, "error: sallyportd starts this program; see --help\n");
        return 2;
    }
    return gate_main(argc, argv, &ssh_gate);
}
