/*
 * One CredSSP login, in the process that exists for it: the accepting side, between a relay that
 * carries its messages and a broker that knows hashes.
 */
#ifndef NLA_ATTEMPT_H
#define NLA_ATTEMPT_H

#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/nla_talk.h>

#include "proxy/rdp/credssp.h"

#define ATTEMPT_ROUNDS 8 /* TSRequests of the client: three, and what SPNEGO may add */

/* What a message leads to. At most one goes to each side, the relay's first unless `is_proved`. */
struct attempt_step {
    bool has_relay, has_broker;
    bool is_proved; /* the broker is told before the client can know */
    bool is_over;
    struct nla_talk relay, broker; /* secrets: wipe */
};

struct attempt {
    struct credssp *credssp; /* owned */
    char user[NTLM_NAME_MAX], domain[NTLM_NAME_MAX];
    unsigned rounds;
    bool is_asking; /* the hash is awaited */
};

/* key: the SubjectPublicKey of the certificate that the client sees. False: out of memory. */
bool attempt_begin(struct attempt *a, const uint8_t *key, size_t len);
void attempt_finish(struct attempt *a);

/* Pure but for NTLM's chance: a message of the relay, or of the broker, and what follows. */
void attempt_from_relay(struct attempt *a, const struct nla_talk *m, struct attempt_step *out);
void attempt_from_broker(struct attempt *a, const struct nla_talk *m, struct attempt_step *out);

/* The whole life: sockets are blocking, and closed at the end. Returns the process's exit status.
 */
int attempt_run(int broker, int relay, const uint8_t *key, size_t len);

#endif
