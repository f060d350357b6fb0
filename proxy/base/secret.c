/*
 * Secrets in fixed memory: setting and wiping. Does not lock pages and does not encrypt. Called by
 * whoever holds a password, a private key or a buffer that held one.
 */
#include <sallyport/secret.h>

#include <string.h>

void memory_wipe(void *data, size_t len)
{
    if (data && len)
        explicit_bzero(data, len);
}

void secret_wipe(struct secret *s)
{
    memory_wipe(s, sizeof(*s));
}

bool secret_set(struct secret *s, const void *data, size_t len)
{
    secret_wipe(s);
    if (len > SECRET_MAX)
        return false;
    if (len)
        memcpy(s->data, data, len);
    s->data[len] = 0;
    s->len = (uint16_t)len;
    return true;
}
