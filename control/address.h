/* The address of a target as an operator types it, in one normal form. Pure. */
#ifndef CONTROL_ADDRESS_H
#define CONTROL_ADDRESS_H

#include <stddef.h>

#include <sallyport/errors.h>
#include <sallyport/session.h>

/*
 * text  HOST, HOST:PORT, [V6], [V6]:PORT or a bare IPv6 address
 *
 * Writes HOST:PORT or [V6]:PORT, names in lower case, IPv6 in its shortest form, the protocol's
 * usual port when none is given. ERR_INVALID with a sentence.
 */
MUST_CHECK int address_normalise(const char *text, enum protocol protocol,
                                 char out[SESSION_ADDRESS_MAX], char *err, size_t err_len);

#endif
