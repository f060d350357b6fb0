/*
 * CredSSP, [MS-CSSP] 3.1.5, as two state machines without I/O: what the peer sent goes in, what it
 * is to get comes out. Versions 2 to 6; TLS is the caller's, whose public key both sides prove to
 * have seen.
 */
#ifndef RDP_CREDSSP_H
#define RDP_CREDSSP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/cursor.h>

#include "proxy/rdp/ntlm.h"
#include "proxy/rdp/tsrequest.h"

#define CREDSSP_VERSION     6u
#define CREDSSP_VERSION_MIN 2u
#define CREDSSP_KEY_MAX     4096 /* SubjectPublicKey: the bits, not the SubjectPublicKeyInfo */

#define STATUS_LOGON_FAILURE 0xc000006du

struct credssp;

enum credssp_state {
    CREDSSP_FAILED, /* out may hold an error for the peer */
    CREDSSP_MORE,
    CREDSSP_HASH, /* accepting side: credssp_identity(), then credssp_judge() */
    CREDSSP_DONE
};

/* NULL: out of memory, or a name that is no UTF-8. key is the TLS server's SubjectPublicKey. */
struct credssp *credssp_connect(const struct tscredentials *who, const uint8_t *key, size_t len);
struct credssp *credssp_accept(const uint8_t *key, size_t len);
void credssp_finish(struct credssp *c); /* NULL is fine; wipes */

/*
 * Take one whole TSRequest (an empty cursor at the connecting side's beginning) and append what the
 * peer gets to out.
 */
enum credssp_state credssp_step(struct credssp *c, struct cursor message, struct buffer *out);

/* Accepting side, after CREDSSP_HASH. */
bool credssp_identity(struct credssp *c, char user[NTLM_NAME_MAX], char domain[NTLM_NAME_MAX]);
enum credssp_state credssp_judge(struct credssp *c, const uint8_t hash[NTLM_HASH_LEN],
                                 struct buffer *out);
/* Accepting side, after CREDSSP_DONE: what the client delegated; borrowed. */
const struct tscredentials *credssp_credentials(const struct credssp *c);

/* Why it failed: the peer's NTSTATUS, 0 when it gave none, and a sentence's end ("it ..."). */
uint32_t credssp_status(const struct credssp *c);
const char *credssp_why(const struct credssp *c);

#endif
