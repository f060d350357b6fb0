/*
 * Following `via` from a target to the server that the proxy itself connects to. Called when a
 * session is routed and when a target is tried.
 */
#include "proxy/broker/hops.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

int hops_find(struct store *s, const struct store_target *target, struct hops *out, char *err,
              size_t err_len)
{
    char name[NAME_MAX_LEN + 1];

    out->count = 0;
    text_copy(name, sizeof(name), target->via);
    while (name[0]) {
        int r;

        if (out->count == LINK_HOPS_MAX || strcmp(name, target->name) == 0) {
            snprintf(err, err_len, "more than %d servers, or a loop, are on the way to %s",
                     LINK_HOPS_MAX, target->name);
            return ERR_INVALID;
        }
        /* found from the target outwards, used from the proxy inwards */
        memmove(&out->at[1], &out->at[0], out->count * sizeof(out->at[0]));
        r = store_target_get(s, name, &out->at[0]);
        if (r < 0 || out->at[0].protocol != PROTOCOL_SSH) {
            snprintf(err, err_len, "%s, on the way to %s, %s", name, target->name,
                     r < 0 ? "is no target any more" : "is no ssh target");
            return r < 0 ? r : ERR_INVALID;
        }
        out->count++;
        text_copy(name, sizeof(name), out->at[0].via);
    }
    return 0;
}

const char *hops_address(const struct hops *h, const struct store_target *target)
{
    return h->count > 0 ? h->at[0].address : target->address;
}

void hops_describe(const struct hops *h, char *dst, size_t len)
{
    size_t at = 0;

    dst[0] = '\0';
    for (size_t i = 0; i < h->count && at < len; i++)
        at += (size_t)snprintf(dst + at, len - at, "%s%s", i ? ", " : "", h->at[i].name);
}

int hops_fill(struct store *s, const struct store_target *t, const char *account, uint8_t number,
              struct link_hop *out)
{
    struct secret secret = {0};
    int r = t->has_secret ? store_target_secret(s, t->name, &secret) : 0;

    if (r < 0)
        return r;
    out->number = number;
    text_copy(out->target, sizeof(out->target), t->name);
    text_copy(out->account, sizeof(out->account), t->account[0] ? t->account : account);
    text_copy(out->address, sizeof(out->address), t->address);
    out->auth = (uint8_t)t->auth;
    out->accept_new = t->accept_new;
    text_copy(out->host_key_type, sizeof(out->host_key_type), t->host_key_type);
    out->host_key.len = (uint16_t)t->host_key_len;
    memcpy(out->host_key.data, t->host_key, t->host_key_len);
    out->secret.len = secret.len;
    memcpy(out->secret.data, secret.data, secret.len);
    out->certificate.len = (uint16_t)strlen(t->certificate);
    memcpy(out->certificate.data, t->certificate, out->certificate.len);
    secret_wipe(&secret);
    return 0;
}
