/*
 * The RDP half of gate and relay, as proxy/rdp/main.c hands it to proxy/gate.
 */
#ifndef RDP_RDP_H
#define RDP_RDP_H

#include "proxy/gate/gate.h"

extern const struct relay_protocol rdp_protocol;
extern const struct gate_protocol rdp_gate;

/* `--probe`: try a target out, as the broker asks; returns an exit status. */
int rdp_probe_main(int argc, char **argv);

/* Write a new RSA key and a self-signed certificate for `host` to stdout, PEM, and return an exit
 * status. */
int rdp_keygen(const char *host);

#endif
