/*
 * Login names: user [ "+" account ] "+" target | user. Pure parser for bytes a stranger sent;
 * fuzzed. Used by every door, so that SSH and RDP agree.
 */
#ifndef SALLYPORT_LOGIN_H
#define SALLYPORT_LOGIN_H

#include <stddef.h>

#include <sallyport/errors.h>

#define NAME_MAX_LEN    64
#define ACCOUNT_MAX_LEN 128

struct login {
    char user[NAME_MAX_LEN + 1];
    char account[ACCOUNT_MAX_LEN + 1]; /* "" when the login names none */
    char target[NAME_MAX_LEN + 1];     /* "" when the login names none */
};

/*
 * text        len bytes, not NUL-terminated, any content
 * separators  characters that divide the parts, "+" by default
 *
 * Returns 0 or ERR_INVALID (bad characters, empty part, too long, too many parts, ambiguous
 * separators: two different ones in one name). On error *out is zeroed.
 */
MUST_CHECK int login_parse(struct login *out, const char *text, size_t len, const char *separators);

#endif
