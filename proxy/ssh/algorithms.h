/*
 * What both legs negotiate and which keys users may log in with: one list for the offer, the
 * signature and the documentation. Post-quantum key exchange comes first and is left out by a
 * libssh that does not know it.
 */
#ifndef SSH_ALGORITHMS_H
#define SSH_ALGORITHMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#define ALGORITHMS_RSA_MIN_BITS 2048

struct ssh_bind_struct;
struct ssh_session_struct;

/* The user leg: everything that is negotiated, and accepted key types. 0 or ERR_CRYPTO. */
MUST_CHECK int algorithms_set_server(struct ssh_bind_struct *bind);

/* The user leg again, once it is accepted: what a bind has no option for (no compression). */
MUST_CHECK int algorithms_set_accepted(struct ssh_session_struct *ssh);

/* The target leg. host_key_type: the pinned one, so that the target shows the key we know; "" for
 * any of the list. ERR_INVALID when the pinned type is not in the list. */
MUST_CHECK int algorithms_set_client(struct ssh_session_struct *ssh, const char *host_key_type);

/* True when libssh knows a post-quantum key exchange of the list. */
bool algorithms_have_post_quantum(void);

/*
 * Check a user's public key (RFC 4253 §6.6 blob) against the list: its type, and RSA's size.
 * type, of type_len bytes, gets the type's name ("" when it cannot be read). Returns NULL when it
 * may be used, otherwise a sentence.
 */
const char *algorithms_check_key(const uint8_t *blob, size_t len, char *type, size_t type_len);

/* True when name is a host key type that may be pinned ("ssh-ed25519"). */
bool algorithms_is_host_key(const char *name);

#endif
