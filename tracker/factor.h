/*
 * The second factor: one-time codes by RFC 6238 (liboath), recovery codes, and the picture that an
 * authenticator app scans. Knows the store, which keeps what is used so that nothing is used twice,
 * and no connection: logins and commands call it. Blocks on the store only.
 */
#ifndef TRACKER_FACTOR_H
#define TRACKER_FACTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/secret.h>

#include "tracker/store/store.h"

#define FACTOR_KEY_LEN   20 /* RFC 4226 §4 R6 */
#define FACTOR_DIGITS    6
#define FACTOR_STEP_S    30
#define FACTOR_WINDOW    1  /* steps before and after now */
#define FACTOR_KEY_TEXT  40 /* base32, NUL included */
#define FACTOR_URI_MAX   320
#define FACTOR_CODE_TEXT 24 /* "abcd-efgh-ijkl-mnop" */

struct factor_codes {
    char text[STORE_RECOVERY_COUNT][FACTOR_CODE_TEXT];
};

/* A new random key. */
MUST_CHECK int factor_make_key(struct secret *key);
/* The key as people type it into an app. */
MUST_CHECK int factor_key_text(const struct secret *key, char text[FACTOR_KEY_TEXT]);
/* otpauth://totp/... */
MUST_CHECK int factor_uri(const struct secret *key, const char *user, const char *node,
                          char uri[FACTOR_URI_MAX]);
/* The picture of a text as lines of half blocks in UTF-8, light on dark. */
MUST_CHECK int factor_picture(const char *text, struct buffer *out);

/* Is `code` right for this key now? *step is the one that it belongs to. Blanks are skipped. */
MUST_CHECK bool factor_code_fits(const struct secret *key, const char *code, int64_t now_s,
                                 uint64_t *step);

enum factor_answer { FACTOR_WRONG, FACTOR_REPLAYED, FACTOR_CODE, FACTOR_RECOVERY, FACTOR_FAILED };

/* What somebody typed, for a user who is enrolled: a code or a recovery code. What is right is used
 * up in the store before this returns; FACTOR_FAILED: the store could not. */
enum factor_answer factor_check(struct store *s, const char *user, const char *typed,
                                int64_t now_s);

/* Take the key into use after its first code was right: writes new recovery codes to *codes, which
 * the caller shows once and wipes. */
MUST_CHECK int factor_enable(struct store *s, const char *user, const struct secret *key,
                             uint64_t step, struct factor_codes *codes);
MUST_CHECK int factor_new_codes(struct store *s, const char *user, struct factor_codes *codes);

#endif
