/*
 * Error codes that cross modules, one list: code, short text for an operator.
 * Functions return 0 (or a count) on success and one of these, negative, otherwise.
 */
#ifndef SALLYPORT_ERRORS_H
#define SALLYPORT_ERRORS_H

#define MUST_CHECK             __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))

#define ERROR_CODES(X)                                   \
    X(ERR_MEMORY, -1, "out of memory")                   \
    X(ERR_SYSTEM, -2, "system call failed")              \
    X(ERR_INVALID, -3, "invalid value")                  \
    X(ERR_NOT_FOUND, -4, "not found")                    \
    X(ERR_EXISTS, -5, "already exists")                  \
    X(ERR_FULL, -6, "limit reached")                     \
    X(ERR_BUSY, -7, "busy, try again")                   \
    X(ERR_DENIED, -8, "not permitted")                   \
    X(ERR_CORRUPT, -9, "damaged data")                   \
    X(ERR_VERSION, -10, "version not supported")         \
    X(ERR_CLOSED, -11, "closed by the other side")       \
    X(ERR_AGAIN, -12, "nothing there yet")               \
    X(ERR_CRYPTO, -13, "cryptographic operation failed") \
    X(ERR_READ_ONLY, -14, "read-only")

enum error_code {
#define X(name, value, text) name = value,
    ERROR_CODES(X)
#undef X
};

/* Short text of a code; "ok" for values >= 0, "unknown error" for codes not in the list. */
const char *error_text(int code);

#endif
