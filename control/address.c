/*
 * Splits and checks HOST:PORT. It resolves nothing: the broker does that off its loop when a
 * session begins. Called by the target commands and by apply.
 */
#include "control/address.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#define HOST_MAX 253 /* RFC 1035 §2.3.4, as text */

static uint16_t usual_port(enum protocol protocol)
{
    return protocol == PROTOCOL_RDP ? 3389 : protocol == PROTOCOL_WEB ? 443 : 22;
}

static bool parse_port(const char *text, uint16_t *port)
{
    uint64_t value;

    if (strlen(text) > 5 || !text_parse_u64(text, &value) || !value || value > 65535)
        return false;
    *port = (uint16_t)value;
    return true;
}

static bool is_zone(const char *zone)
{
    return !zone[0] || text_is_name(zone);
}

/* ADDRESS or ADDRESS%ZONE to its shortest form. */
static bool normal_v6(const char *text, char *dst, size_t dst_len)
{
    size_t len = strcspn(text, "%");
    char plain[INET6_ADDRSTRLEN], shortest[INET6_ADDRSTRLEN];
    struct in6_addr address;
    int n;

    if (len >= sizeof(plain) || (text[len] && !text[len + 1]) ||
        !is_zone(text + len + (text[len] == '%')))
        return false;
    memcpy(plain, text, len);
    plain[len] = '\0';
    if (inet_pton(AF_INET6, plain, &address) != 1 ||
        !inet_ntop(AF_INET6, &address, shortest, sizeof(shortest)))
        return false;
    n = snprintf(dst, dst_len, "[%s%s]", shortest, text + len);
    return n > 0 && (size_t)n < dst_len;
}

/* Letters, digits, - and _ in labels of 1 to 63; covers IPv4 too. */
static bool normal_name(const char *text, char *dst)
{
    size_t label = 0, len = strlen(text);

    if (!len || len > HOST_MAX || text[0] == '-')
        return false;
    for (size_t i = 0; i < len; i++) {
        char ch = text[i];
        if (ch >= 'A' && ch <= 'Z')
            ch = (char)(ch - 'A' + 'a');
        if (ch == '.') {
            if (!label)
                return false;
            label = 0;
        } else if ((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-' || ch == '_') {
            if (++label > 63)
                return false;
        } else {
            return false;
        }
        dst[i] = ch;
    }
    dst[len] = '\0';
    return true;
}

/* All digits and dots must be an IPv4 address: 10.0.0 or 300.1.1.1 is a typing error. */
static bool is_bad_v4(const char *host)
{
    struct in_addr address;

    return !host[strspn(host, "0123456789.")] && inet_pton(AF_INET, host, &address) != 1;
}

/* Cut into host and port text; *is_v6 when there were brackets or several colons. */
static bool split(char *text, char **host, const char **port, bool *is_v6)
{
    char *colon = strchr(text, ':');

    *host = text;
    *port = NULL;
    *is_v6 = false;
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        *host = text + 1;
        *port = end[1] ? end + 2 : NULL;
        *is_v6 = true;
        *end = '\0';
        return true;
    }
    if (colon && strchr(colon + 1, ':')) {
        *is_v6 = true;
        return true;
    }
    if (colon) {
        *colon = '\0';
        *port = colon + 1;
    }
    return true;
}

int address_normalise(const char *text, enum protocol protocol, char out[SESSION_ADDRESS_MAX],
                      char *err, size_t err_len)
{
    char copy[SESSION_ADDRESS_MAX], normal[SESSION_ADDRESS_MAX] = "", *host;
    const char *port_text;
    uint16_t port = usual_port(protocol);
    bool is_v6;

    if (!text_copy(copy, sizeof(copy), text) || !split(copy, &host, &port_text, &is_v6)) {
        text_copy(err, err_len, "an address is HOST, HOST:PORT or [IPV6]:PORT");
        return ERR_INVALID;
    }
    if (is_v6 ? !normal_v6(host, normal, sizeof(normal)) : !normal_name(host, normal)) {
        text_copy(err, err_len,
                  is_v6 ? "that is no IPv6 address; write [2001:db8::1]:22"
                        : "the host's name has characters that no host name has");
        return ERR_INVALID;
    }
    if (!is_v6 && is_bad_v4(normal)) {
        text_copy(err, err_len, "that is no IPv4 address");
        return ERR_INVALID;
    }
    if (port_text && !parse_port(port_text, &port)) {
        text_copy(err, err_len, "a port is a number from 1 to 65535");
        return ERR_INVALID;
    }
    snprintf(out, SESSION_ADDRESS_MAX, "%.*s:%u", HOST_MAX + 10, normal, (unsigned)port);
    return 0;
}
