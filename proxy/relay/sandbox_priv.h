/*
 * What sandbox.c and filter.c share.
 */
#ifndef RELAY_SANDBOX_PRIV_H
#define RELAY_SANDBOX_PRIV_H

#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANDBOX_IS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANDBOX_IS_ASAN 1
#endif
#endif
#ifndef SANDBOX_IS_ASAN
#define SANDBOX_IS_ASAN 0
#endif

/* Only in builds with AddressSanitizer, and only when SALLYPORT_LEAK_CHECK is set: the leak
 * checker needs calls that no relay may have. Always false in any other build. */
bool sandbox_is_off_for_leaks(void);

#endif
