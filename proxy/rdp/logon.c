/*
 * What a target says of a logon, 2.2.10.1: only where the secret of automatic reconnection lies.
 */
#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define INFO_TYPE_EXTENDED 3 /* INFOTYPE_LOGON_EXTENDED_INFO */
#define FIELD_COOKIE       1 /* LOGON_EX_AUTORECONNECTCOOKIE: always the first field */
#define COOKIE_LEN         28
#define COOKIE_VERSION     1

bool logon_cookie_parse(struct cursor body, struct logon_cookie *out)
{
    uint32_t type, present, field_len, len, version;
    uint16_t info_len;

    return cursor_le32(&body, &type) && type == INFO_TYPE_EXTENDED &&
           cursor_le16(&body, &info_len) && cursor_le32(&body, &present) &&
           present & FIELD_COOKIE && cursor_le32(&body, &field_len) && field_len >= COOKIE_LEN &&
           cursor_le32(&body, &len) && len == COOKIE_LEN && cursor_le32(&body, &version) &&
           version == COOKIE_VERSION && cursor_le32(&body, &out->logon_id) &&
           cursor_take(&body, LOGON_COOKIE_BITS, &out->bits);
}
