/*
 * Public key blobs and version banners; blob.h. Pure but for libssh's export.
 */
#include "proxy/ssh/blob.h"

#include <openssl/evp.h>
#include <string.h>

#include <sallyport/cursor.h>

size_t blob_export(ssh_key key, uint8_t *blob, size_t blob_len)
{
    char *text = NULL;
    size_t len, padding = 0;
    int n;

    if (!key || ssh_pki_export_pubkey_base64(key, &text) != SSH_OK)
        return 0;
    len = strlen(text);
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    n = len / 4 * 3 <= blob_len ? EVP_DecodeBlock(blob, (const uint8_t *)text, (int)len) : -1;
    ssh_string_free_char(text);
    return n > (int)padding ? (size_t)n - padding : 0;
}

bool blob_type(const uint8_t *blob, size_t len, char *type, size_t type_len)
{
    struct cursor c = cursor_of(blob, len), name;
    uint32_t n;

    type[0] = '\0';
    if (!cursor_be32(&c, &n) || n == 0 || n >= type_len || !cursor_sub(&c, n, &name) ||
        memchr(name.at, '\0', n))
        return false;
    memcpy(type, name.at, n);
    type[n] = '\0';
    return true;
}

const char *blob_software(const char *banner)
{
    if (!banner)
        return "";
    if (strncmp(banner, "SSH-2.0-", 8) == 0 || strncmp(banner, "SSH-1.99-", 9) == 0)
        return strchr(banner + 5, '-') + 1;
    return banner;
}
