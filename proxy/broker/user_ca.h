/*
 * The trusted CAs of user certificates, from the files that [ssh] user_ca names: one public key a
 * line, as in OpenSSH's .pub files and TrustedUserCAKeys. Made at start and at each reload.
 */
#ifndef BROKER_USER_CA_H
#define BROKER_USER_CA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/errors.h>

#include "proxy/broker/config/config.h"
#include "proxy/broker/user_cert.h"

struct user_cas;

/* ERR_INVALID with "FILE line N: ..." in err; *out is NULL then, and when no file is named. */
MUST_CHECK int user_cas_load(struct user_cas **out, const struct config *c, char *err,
                             size_t err_len);
void user_cas_free(struct user_cas *cas);
/* Did one of them sign it? NULL is none. */
MUST_CHECK bool user_cas_signed(const struct user_cas *cas, const struct user_cert *cert);

#endif
