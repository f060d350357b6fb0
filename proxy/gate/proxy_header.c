/*
 * The PROXY protocol, versions 1 (a line of text) and 2 (binary); proxy_header.h. Section numbers
 * are those of its specification, "The PROXY protocol", HAProxy 2020.
 */
#include "proxy/gate/proxy_header.h"

#include <string.h>

#include <sallyport/network.h>
#include <sallyport/text.h>

#define V1_MAX 107 /* 2.1, with the CRLF */

static const uint8_t v2_signature[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                         0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

/* Whether what is there can still become `what`; *is_whole: it is all there. */
static bool begins_as(const struct cursor *c, const void *what, size_t len, bool *is_whole)
{
    size_t n = cursor_left(c) < len ? cursor_left(c) : len;

    *is_whole = n == len;
    return memcmp(c->at, what, n) == 0;
}

/* ---- version 2: 2.2 ---- */

static bool take_v2_addresses(struct cursor *body, uint8_t family, struct proxy_header *out)
{
    const uint8_t *from, *to;
    uint16_t from_port, to_port;
    size_t len = family == 0x11 ? 4 : 16;

    if (family != 0x11 && family != 0x21) { /* UNSPEC, datagrams, UNIX sockets */
        out->is_own = true;
        return true;
    }
    if (!cursor_take(body, len, &from) || !cursor_take(body, len, &to) ||
        !cursor_be16(body, &from_port) || !cursor_be16(body, &to_port))
        return false;
    memset(out->address, 0, sizeof(out->address));
    if (len == 4)
        out->address[10] = out->address[11] = 0xff;
    memcpy(out->address + 16 - len, from, len);
    out->port = from_port;
    return true;
}

static enum parse parse_v2(struct cursor *c, struct proxy_header *out)
{
    struct cursor in = *c, body;
    const uint8_t *signature;
    uint8_t command, family;
    uint16_t len;

    if (!cursor_take(&in, sizeof(v2_signature), &signature) || !cursor_u8(&in, &command) ||
        !cursor_u8(&in, &family) || !cursor_be16(&in, &len))
        return PARSE_MORE;
    if (command >> 4 != 2 || (command & 0xf) > 1 || len > PROXY_HEADER_MAX - 16)
        return PARSE_BAD;
    if (!cursor_sub(&in, len, &body))
        return PARSE_MORE;
    if ((command & 0xf) == 0)
        out->is_own = true;
    else if (!take_v2_addresses(&body, family, out))
        return PARSE_BAD;
    *c = in;
    return PARSE_OK;
}

/* ---- version 1: 2.1 ---- */

/* Single blanks between words, and nothing but words. */
static char *next_word(char **at)
{
    char *word = *at, *blank;

    if (!word || !*word)
        return NULL;
    blank = strchr(word, ' ');
    if (blank)
        *blank = '\0';
    *at = blank ? blank + 1 : NULL;
    return *word ? word : NULL;
}

static bool take_port(const char *text, uint16_t *port)
{
    uint64_t value;

    if (!text || !text_parse_u64(text, &value) || value > 65535)
        return false;
    *port = (uint16_t)value;
    return true;
}

static bool parse_line(char *line, struct proxy_header *out)
{
    char *at = line, *family, *from, *to, *from_port, *to_port;
    uint8_t ignored[16];
    uint16_t port;

    (void)next_word(&at); /* PROXY */
    family = next_word(&at);
    if (!family)
        return false;
    if (strcmp(family, "UNKNOWN") == 0) {
        out->is_own = true;
        return true;
    }
    from = next_word(&at);
    to = next_word(&at);
    from_port = next_word(&at);
    to_port = next_word(&at);
    return (strcmp(family, "TCP4") == 0 || strcmp(family, "TCP6") == 0) && from && to && !at &&
           !strchr(from, ':') == (family[3] == '4') && network_address(from, out->address) &&
           network_address(to, ignored) && take_port(from_port, &out->port) &&
           take_port(to_port, &port);
}

static enum parse parse_v1(struct cursor *c, struct proxy_header *out)
{
    size_t left = cursor_left(c), most = left < V1_MAX ? left : V1_MAX;
    const uint8_t *end = memchr(c->at, '\n', most);
    char line[V1_MAX + 1];
    size_t len;

    if (!end)
        return left < V1_MAX ? PARSE_MORE : PARSE_BAD;
    len = (size_t)(end - c->at);
    if (len < 1 || c->at[len - 1] != '\r' || memchr(c->at, '\0', len))
        return PARSE_BAD;
    memcpy(line, c->at, len - 1);
    line[len - 1] = '\0';
    if (!parse_line(line, out))
        return PARSE_BAD;
    c->at = end + 1;
    return PARSE_OK;
}

enum parse proxy_header_parse(struct cursor *c, struct proxy_header *out)
{
    bool is_whole;

    memset(out, 0, sizeof(*out));
    if (cursor_at_end(c))
        return PARSE_MORE;
    if (begins_as(c, v2_signature, sizeof(v2_signature), &is_whole))
        return is_whole ? parse_v2(c, out) : PARSE_MORE;
    if (begins_as(c, "PROXY ", 6, &is_whole))
        return is_whole ? parse_v1(c, out) : PARSE_MORE;
    return PARSE_BAD;
}
