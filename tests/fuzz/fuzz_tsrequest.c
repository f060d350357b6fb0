/* CredSSP's messages, from either side: parsed, written again, and parsed to the same. */
#include <stdlib.h>
#include <string.h>

#include <sallyport/secret.h>

#include "proxy/rdp/tsrequest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(struct cursor a, struct cursor b)
{
    if (cursor_left(&a) != cursor_left(&b) ||
        (cursor_left(&a) && memcmp(a.at, b.at, cursor_left(&a)) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor in = cursor_of(data, size);
    struct buffer keep, keep_again, out;
    struct tscredentials who;
    struct tsrequest r, again;
    bool is_wrapped;
    size_t len = 0;

    buffer_init(&keep, TSREQUEST_MAX);
    buffer_init(&keep_again, TSREQUEST_MAX);
    buffer_init(&out, 2 * TSREQUEST_MAX);
    if (tsrequest_frame(&in, TSREQUEST_MAX, &len) == PARSE_OK && len > size)
        abort();
    if (tsrequest_parse(in, &r, &keep) == PARSE_OK) {
        tsrequest_put(&out, &r);
        if (out.failed ||
            tsrequest_parse(cursor_of(out.data, out.len), &again, &keep_again) != PARSE_OK)
            abort();
        if (r.version != again.version || r.has_error != again.has_error ||
            r.error_code != again.error_code || r.has_nonce != again.has_nonce)
            abort();
        same(r.nego_token, again.nego_token);
        same(r.auth_info, again.auth_info);
        same(r.pub_key_auth, again.pub_key_auth);
        (void)spnego_unwrap(r.nego_token, &is_wrapped);
    }
    (void)tscredentials_parse(in, &who);
    memory_wipe(&who, sizeof(who));
    buffer_finish(&keep);
    buffer_finish(&keep_again);
    buffer_finish(&out);
    return 0;
}
