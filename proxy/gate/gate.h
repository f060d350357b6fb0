/*
 * The gate, whatever the protocol: accepts connections on listeners that the broker opened, limits
 * how many unauthenticated ones there are, and forks a relay for each. It reads nothing that a
 * client sent. The program of a protocol (proxy/ssh/main.c) calls gate_main() with its row.
 */
#ifndef GATE_GATE_H
#define GATE_GATE_H

#include <stddef.h>

#include "proxy/relay/relay.h"

struct gate_protocol {
    const struct relay_protocol *relay;

    /* Keep one host key (PEM or OpenSSH text, len bytes, not NUL-terminated; the caller wipes it).
     * Called once a key, before prepare(). Returns 0, or a negative error after logging why. */
    int (*load_key)(const char *pem, size_t len);

    /* After the keys, before the root is entered: load everything that needs files (providers,
     * moduli, time zone) and warm what every relay would otherwise build for itself. Returns 0, or
     * a negative error after logging why. NULL when there is nothing to do. */
    int (*prepare)(void);
};

/*
 * Run `PROGRAM --gate --run-dir DIR --root DIR [--relay-uid N --relay-gid N] [--reduced]
 * --broker-uid N` with the broker's link at descriptor 3, and return the exit status. The relays
 * (forked children) do not come back here.
 */
int gate_main(int argc, char **argv, const struct gate_protocol *p);

#endif
