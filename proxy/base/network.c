/*
 * Networks and addresses; network.h.
 */
#include <sallyport/network.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include <sallyport/text.h>

static const uint8_t v4_head[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

bool network_is_v4(const uint8_t address[16])
{
    return memcmp(address, v4_head, sizeof(v4_head)) == 0;
}

bool network_address(const char *text, uint8_t out[16])
{
    if (inet_pton(AF_INET6, text, out) == 1)
        return true;
    memcpy(out, v4_head, sizeof(v4_head));
    return inet_pton(AF_INET, text, out + 12) == 1;
}

bool network_address_of(const struct sockaddr *sa, uint8_t out[16], uint16_t *port)
{
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;

    if (sa->sa_family == AF_INET) {
        memcpy(&v4, sa, sizeof(v4));
        memcpy(out, v4_head, sizeof(v4_head));
        memcpy(out + 12, &v4.sin_addr, 4);
        *port = ntohs(v4.sin_port);
        return true;
    }
    if (sa->sa_family != AF_INET6)
        return false;
    memcpy(&v6, sa, sizeof(v6));
    memcpy(out, &v6.sin6_addr, 16);
    *port = ntohs(v6.sin6_port);
    return true;
}

const char *network_address_text(const uint8_t address[16], char *dst)
{
    if (network_is_v4(address))
        inet_ntop(AF_INET, address + 12, dst, NETWORK_TEXT_MAX);
    else
        inet_ntop(AF_INET6, address, dst, NETWORK_TEXT_MAX);
    return dst;
}

int network_parse(const char *text, struct network *out)
{
    char host[NETWORK_TEXT_MAX];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : strlen(text);
    uint64_t bits, most;

    if (len >= sizeof(host))
        return ERR_INVALID;
    memcpy(host, text, len);
    host[len] = '\0';
    if (!network_address(host, out->address))
        return ERR_INVALID;
    out->is_v4 = !strchr(host, ':');
    most = out->is_v4 ? 32 : 128;
    bits = most;
    if (slash && (!text_parse_u64(slash + 1, &bits) || bits > most))
        return ERR_INVALID;
    out->bits = (uint8_t)(bits + 128 - most);
    return 0;
}

bool network_contains(const struct network *n, const uint8_t address[16])
{
    size_t bytes = n->bits / 8;
    uint8_t mask = (uint8_t)(0xff00u >> n->bits % 8);

    if (!n->is_v4 && network_is_v4(address))
        return false;
    return memcmp(n->address, address, bytes) == 0 &&
           (mask == 0 || ((n->address[bytes] ^ address[bytes]) & mask) == 0);
}
