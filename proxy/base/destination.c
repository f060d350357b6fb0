/*
 * Patterns of destinations; destination.h. Used by the policy for its key forward_to and by the SSH
 * relay for what it shows.
 */
#include <sallyport/destination.h>

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#define PORT_MAX_DIGITS 5

struct pattern {
    const char *host;
    size_t host_len;
    uint32_t low, high; /* ports */
};

static bool parse_port(const char **at, uint32_t *port)
{
    size_t digits = strspn(*at, "0123456789");

    if (digits == 0 || digits > PORT_MAX_DIGITS)
        return false;
    *port = 0;
    for (size_t i = 0; i < digits; i++)
        *port = *port * 10 + (uint32_t)((*at)[i] - '0');
    *at += digits;
    return *port <= UINT16_MAX;
}

static bool parse_ports(const char *at, struct pattern *p)
{
    if (strcmp(at, "*") == 0) {
        p->low = 0;
        p->high = UINT16_MAX;
        return true;
    }
    if (!parse_port(&at, &p->low))
        return false;
    p->high = p->low;
    if (*at == '-') {
        at++;
        if (!parse_port(&at, &p->high))
            return false;
    }
    return *at == '\0' && p->low <= p->high;
}

/* The colon before the port: behind the bracket, or the only one. */
static const char *find_colon(const char *text)
{
    const char *colon = strrchr(text, ':');

    if (!colon || colon == text)
        return NULL;
    if (text[0] == '[')
        return colon[-1] == ']' ? colon : NULL;
    return strchr(text, ':') == colon ? colon : NULL;
}

static bool parse(const char *text, struct pattern *p)
{
    const char *colon;

    if (strcmp(text, "any") == 0) {
        *p = (struct pattern){"*", 1, 0, UINT16_MAX};
        return true;
    }
    colon = find_colon(text);
    if (!colon)
        return false;
    p->host = text;
    p->host_len = (size_t)(colon - text);
    if (text[0] == '[') {
        p->host++;
        p->host_len -= 2;
    }
    return p->host_len > 0 && parse_ports(colon + 1, p);
}

bool destination_is_pattern(const char *text)
{
    struct pattern p;

    for (const char *at = text; *at; at++) {
        if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f || *at == ',' || *at == '!')
            return false;
    }
    return parse(text, &p);
}

static bool is_same(char a, char b)
{
    return a == '?' || tolower((unsigned char)a) == tolower((unsigned char)b);
}

/* Greedy with one point of return: linear in practice, never worse than a product of the lengths,
 * and without recursion that a client's long name could drive. */
static bool matches(const char *pattern, size_t len, const char *text)
{
    size_t p = 0, star = len, mark = 0, t = 0;

    while (text[t]) {
        if (p < len && pattern[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < len && is_same(pattern[p], text[t])) {
            p++;
            t++;
        } else if (star < len) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < len && pattern[p] == '*')
        p++;
    return p == len;
}

bool destination_matches(const char *pattern, const char *host, uint16_t port)
{
    struct pattern p;

    return destination_is_pattern(pattern) && parse(pattern, &p) && port >= p.low &&
           port <= p.high && matches(p.host, p.host_len, host);
}

const char *destination_text(char dst[DESTINATION_MAX], const char *host, uint16_t port)
{
    char shown[DESTINATION_MAX - 10];
    bool has_colon = strchr(host, ':') != NULL;

    text_escape(shown, sizeof(shown), host, strlen(host));
    snprintf(dst, DESTINATION_MAX, "%s%s%s:%u", has_colon ? "[" : "", shown, has_colon ? "]" : "",
             port);
    return dst;
}
