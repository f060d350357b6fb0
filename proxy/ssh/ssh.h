/*
 * The SSH half of gate and relay, as proxy/ssh/main.c hands it to proxy/gate.
 */
#ifndef SSH_SSH_H
#define SSH_SSH_H

#include "proxy/gate/gate.h"

extern const struct relay_protocol ssh_protocol;
extern const struct gate_protocol ssh_gate;

/* `--probe`: try a target out, as the broker asks; returns an exit status. */
int probe_main(int argc, char **argv);
/* What a probe's handshakes need from files, and build at first use. 0, or a negative error. */
int probe_warm_up(void);

/* Write a new private key ("ed25519", "ecdsa" or "rsa") to stdout and return an exit status. */
int ssh_keygen(const char *type);

#endif
