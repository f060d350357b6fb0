/*
 * Small readings of SSH data: public key blobs and version banners.
 */
#ifndef SSH_BLOB_H
#define SSH_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/ssh/libssh.h"

/* The RFC 4253 §6.6 blob of a key; 0 when it cannot be had or does not fit. */
size_t blob_export(ssh_key key, uint8_t *blob, size_t blob_len);

/* The type's name that a blob begins with; false (and "") when it cannot be read. */
bool blob_type(const uint8_t *blob, size_t len, char *type, size_t type_len);

/* What stands behind "SSH-2.0-" in a version line, borrowed; "" for NULL. */
const char *blob_software(const char *banner);

#endif
