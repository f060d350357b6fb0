/*
 * NTLM by WinPR's SSPI, which neither blocks nor opens anything once ntlm_prepare() ran. The only
 * file of the folder that knows WinPR, and with it what differs between its versions 2 and 3.
 */
#ifndef RDP_NTLM_H
#define RDP_NTLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

#define NTLM_HASH_LEN  16 /* NTOWFv1: MD4 of the password in UTF-16LE, MS-NLMP 3.3.1 */
#define NTLM_TOKEN_MAX 16384u
#define NTLM_NAME_MAX  512 /* user and domain, UTF-8 */

struct ntlm;

enum ntlm_state {
    NTLM_FAILED,
    NTLM_MORE, /* out is for the peer, whose answer comes to the next step */
    NTLM_HASH, /* accepting side: who it is is known; the token waits for ntlm_judge() with that
                * user's hash */
    NTLM_DONE  /* both sides have a key; out may still be for the peer */
};

/*
 * Gate, before the sandbox: loads what MD4 and RC4 come from, and plays a whole login with itself.
 * Negative after the reason was logged.
 */
MUST_CHECK int ntlm_prepare(void);

/* The hash that the accepting side needs. False when the library cannot. */
bool ntlm_hash(const char *password, uint8_t hash[NTLM_HASH_LEN]);

/* One login; NULL: out of memory, or not UTF-8. The password is copied, and wiped by the end. */
struct ntlm *ntlm_connect(const char *domain, const char *user, const char *password);
struct ntlm *ntlm_accept(void);
void ntlm_finish(struct ntlm *n); /* NULL is fine */

/* Take the peer's token (none at the connecting side's first step) and append ours to out. */
enum ntlm_state ntlm_step(struct ntlm *n, const uint8_t *token, size_t len, struct buffer *out);

/* After NTLM_HASH: the names as the client sent them; the hash depends on neither's spelling being
 * changed. */
bool ntlm_identity(struct ntlm *n, char user[NTLM_NAME_MAX], char domain[NTLM_NAME_MAX]);
enum ntlm_state ntlm_judge(struct ntlm *n, const uint8_t hash[NTLM_HASH_LEN]);

/* After NTLM_DONE: signature and ciphertext, appended; each call is the next message of its way. */
bool ntlm_seal(struct ntlm *n, const uint8_t *data, size_t len, struct buffer *out);
bool ntlm_unseal(struct ntlm *n, const uint8_t *data, size_t len, struct buffer *out);

#endif
