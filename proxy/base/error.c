/*
 * The short texts of the error codes, for an operator. Made from the one list in errors.h; every
 * module that reports an ERR_* code calls it.
 */
#include <sallyport/errors.h>

const char *error_text(int code)
{
    if (code >= 0)
        return "ok";
    switch (code) {
#define X(name, value, text) \
    case name:               \
        return text;
        ERROR_CODES(X)
#undef X
    default:
        return "unknown error";
    }
}
