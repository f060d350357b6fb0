/* The public key of the RDP door's certificate: what both sides of a login by NLA prove to see. */
#ifndef BROKER_RDP_KEY_H
#define BROKER_RDP_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/secret.h>

#define RDP_KEY_MAX 4096

/* SubjectPublicKey: the bits, not the SubjectPublicKeyInfo. */
struct rdp_key {
    size_t len; /* 0: none */
    uint8_t data[RDP_KEY_MAX];
};

/* In PEM, the first certificate's. False: there is none. */
bool rdp_key_find(const struct secret *pem, struct rdp_key *out);

#endif
