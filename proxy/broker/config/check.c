/*
 * What values may be, beyond type and range, and what they must not be together. Pure functions:
 * no file, no socket, no name is looked up.
 */
#include "proxy/broker/config/options.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <sallyport/network.h>
#include <sallyport/text.h>

#define LISTEN_HINT "write it like [::]:2222 or 192.0.2.1:2222"

/* run_dir/relay/NUMBER.sock must fit into a socket address; numbers have up to 20 digits. */
#define RUN_DIR_SUFFIX_MAX (sizeof("/relay/18446744073709551615.sock") - 1)
#define SOCKET_PATH_MAX    (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

int config_check_node(const char *text, char *err, size_t err_len)
{
    if (text_is_name(text))
        return 0;
    snprintf(err, err_len, "\"%.64s\" is not a name; use letters, digits, dot, dash and _", text);
    return ERR_INVALID;
}

/* libpam opens /etc/pam.d/NAME: a name, in small letters, and no path. */
int config_check_pam(const char *text, char *err, size_t err_len)
{
    bool is_name = text_is_name(text);

    for (const char *at = text; *at; at++)
        is_name &= *at < 'A' || *at > 'Z';
    if (is_name)
        return 0;
    snprintf(err, err_len,
             "\"%.64s\" is not the name of a PAM service; use small letters, digits, dash and _",
             text);
    return ERR_INVALID;
}

/* The names that useradd and groupadd of Debian and Red Hat make. */
int config_check_account(const char *text, char *err, size_t err_len)
{
    size_t len = strlen(text);

    for (size_t i = 0; i < len; i++) {
        bool is_letter = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
        bool is_later = (text[i] >= '0' && text[i] <= '9') || text[i] == '-' || text[i] == '.';

        if (is_letter || text[i] == '_' || (i > 0 && is_later) ||
            (i > 0 && i == len - 1 && text[i] == '$'))
            continue;
        snprintf(err, err_len, "\"%.64s\" is not the name of a system user or group", text);
        return ERR_INVALID;
    }
    return 0;
}

int config_check_separators(const char *text, char *err, size_t err_len)
{
    for (const char *p = text; *p; p++) {
        if (!strchr("+:#@", *p)) {
            snprintf(err, err_len, "\"%c\" cannot divide a login name; use some of +:#@", *p);
            return ERR_INVALID;
        }
        if (strchr(p + 1, *p)) {
            snprintf(err, err_len, "\"%c\" is given twice; once is enough", *p);
            return ERR_INVALID;
        }
    }
    if (!strchr(text, '+')) {
        snprintf(err, err_len, "+ is missing; it always divides a login name");
        return ERR_INVALID;
    }
    return 0;
}

/* HOST, HOST:PORT, an IPv6 address bare or in brackets. It is printed into users' files. */
int config_check_public_address(const char *text, char *err, size_t err_len)
{
    static const char host[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    static const char v6[] = "0123456789abcdefABCDEF:.";
    bool has_brackets = text[0] == '[', is_v6 = strchr(text, ':') != strrchr(text, ':');
    const char *begin = text + has_brackets;
    size_t len = strspn(begin, has_brackets || is_v6 ? v6 : host);
    const char *end = begin + len;
    struct in6_addr address;
    char copy[64] = "";
    uint64_t port = 22;

    if (len < sizeof(copy))
        memcpy(copy, begin, len);
    if (len > 0 && begin[0] != '-' &&
        (!(has_brackets || is_v6) || inet_pton(AF_INET6, copy, &address) == 1) &&
        (!has_brackets || *end++ == ']') &&
        (*end == '\0' || (*end == ':' && text_parse_u64(end + 1, &port))) && port > 0 &&
        port < 65536)
        return 0;
    snprintf(err, err_len, "\"%.64s\" is no HOST or HOST:PORT", text);
    return ERR_INVALID;
}

/* ---- listen addresses ---- */

struct host_port {
    char host[128];
    const char *port; /* into the text */
};

static int split_listen(const char *text, struct host_port *out, char *err, size_t err_len)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t len = colon ? (size_t)(colon - text) : 0;

    out->port = colon ? colon + 1 : text;
    if (text[0] == '[') {
        if (len < 2 || text[len - 1] != ']') {
            snprintf(err, err_len, "\"%.100s\" has no port behind ]; " LISTEN_HINT, text);
            return ERR_INVALID;
        }
        host = text + 1;
        len -= 2;
    } else if (colon && memchr(text, ':', len)) {
        snprintf(err, err_len, "an IPv6 address stands in brackets; " LISTEN_HINT);
        return ERR_INVALID;
    }
    if (len >= sizeof(out->host)) {
        snprintf(err, err_len, "is too long; " LISTEN_HINT);
        return ERR_INVALID;
    }
    memcpy(out->host, host, len);
    out->host[len] = '\0';
    if (len == 0 || (text[0] != '[' && strcmp(out->host, "*") == 0))
        text_copy(out->host, sizeof(out->host), "::");
    return 0;
}

int config_parse_listen(const char *text, struct sockaddr_storage *addr, socklen_t *len, char *err,
                        size_t err_len)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    struct host_port part;
    uint64_t port;

    if (split_listen(text, &part, err, err_len) < 0)
        return ERR_INVALID;
    if (!text_parse_u64(part.port, &port) || port < 1 || port > 65535) {
        snprintf(err, err_len, "\"%.100s\" is not a port from 1 to 65535; " LISTEN_HINT, part.port);
        return ERR_INVALID;
    }
    if (getaddrinfo(part.host, part.port, &hints, &found) != 0 || !found) {
        snprintf(err, err_len, "\"%.100s\" is not an address in numbers; " LISTEN_HINT, part.host);
        return ERR_INVALID;
    }
    memset(addr, 0, sizeof(*addr));
    memcpy(addr, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int config_check_listen(const char *text, char *err, size_t err_len)
{
    struct sockaddr_storage addr;
    socklen_t len;

    return config_parse_listen(text, &addr, &len, err, err_len);
}

int config_check_network(const char *text, char *err, size_t err_len)
{
    struct network network;

    if (network_parse(text, &network) == 0)
        return 0;
    snprintf(err, err_len,
             "\"%.60s\" is no network; write an address or ADDRESS/BITS, such as 10.0.0.0/8 or "
             "2001:db8::/32",
             text);
    return ERR_INVALID;
}

/* ---- across options ---- */

PRINTF_LIKE(4, 5)
static void tell(void (*how)(void *, const struct option *, const char *),
                 const struct config_report *report, const char *where, const char *fmt, ...)
{
    char section[32], text[OPTION_ERROR_MAX];
    const char *dot = strchr(where, '.');
    const struct option *o;
    va_list args;

    snprintf(section, sizeof(section), "%.*s", (int)(dot - where), where);
    o = option_find(section, dot + 1, NULL);
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (o)
        how(report->arg, o, text);
}

static void check_idle(const struct config *c, const struct config_report *report)
{
    uint64_t warn = c->policy.warn_after;
    uint64_t end = c->policy.disconnect_after;
    char warn_text[DURATION_TEXT_MAX], end_text[DURATION_TEXT_MAX];

    if (warn == 0 || end == 0 || warn <= end)
        return;
    text_duration(warn_text, sizeof(warn_text), warn);
    text_duration(end_text, sizeof(end_text), end);
    tell(report->error, report, "idle.disconnect_after",
         "%s is shorter than warn_after (%s), so nobody would be warned; make it longer, or set "
         "warn_after = 0",
         end_text, warn_text);
}

static bool is_below(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    return strncmp(path, dir, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

static void check_paths(const struct config *c, const struct config_report *report)
{
    if (strlen(c->run_dir) + RUN_DIR_SUFFIX_MAX > SOCKET_PATH_MAX)
        tell(report->error, report, "proxy.run_dir",
             "is %zu bytes long, too long for the sockets in it; choose one of at most %zu bytes",
             strlen(c->run_dir), SOCKET_PATH_MAX - RUN_DIR_SUFFIX_MAX);
    if (strlen(c->control_socket) > SOCKET_PATH_MAX)
        tell(report->error, report, "control.socket",
             "is %zu bytes long, too long for a socket; choose one of at most %zu bytes",
             strlen(c->control_socket), SOCKET_PATH_MAX);
    if (strcmp(c->data_dir, "/") == 0)
        tell(report->error, report, "proxy.data_dir", "cannot be /; choose a folder of its own");
    if (strcmp(c->run_dir, "/") == 0)
        tell(report->error, report, "proxy.run_dir", "cannot be /; choose a folder of its own");
    else if (strcmp(c->run_dir, c->data_dir) == 0)
        tell(report->error, report, "proxy.run_dir",
             "is data_dir too; choose a folder of its own, one that a reboot empties");
    if (is_below(c->store_key, c->data_dir))
        tell(report->warning, report, "proxy.store_key",
             "lies inside data_dir, so whoever copies data_dir can read the targets' secrets; "
             "keep it elsewhere");
}

static bool is_same_listen(const char *a, const char *b)
{
    struct sockaddr_storage addr_a, addr_b;
    socklen_t len_a, len_b;
    char err[OPTION_ERROR_MAX];

    return config_parse_listen(a, &addr_a, &len_a, err, sizeof(err)) == 0 &&
           config_parse_listen(b, &addr_b, &len_b, err, sizeof(err)) == 0 && len_a == len_b &&
           memcmp(&addr_a, &addr_b, len_a) == 0;
}

static void check_listen_of(const struct config_list *list, const char *name,
                            const struct config_report *report)
{
    for (size_t i = 0; i < list->count; i++)
        for (size_t j = i + 1; j < list->count; j++)
            if (is_same_listen(list->items[i], list->items[j]))
                tell(report->error, report, name, "%s and %s are the same; remove one",
                     list->items[i], list->items[j]);
}

static void check_listen(const struct config *c, const struct config_report *report)
{
    check_listen_of(&c->ssh_listen, "ssh.listen", report);
    check_listen_of(&c->rdp_listen, "rdp.listen", report);
    if (!c->ssh_enabled || !c->rdp_enabled)
        return;
    for (size_t i = 0; i < c->rdp_listen.count; i++)
        for (size_t j = 0; j < c->ssh_listen.count; j++)
            if (is_same_listen(c->rdp_listen.items[i], c->ssh_listen.items[j]))
                tell(report->error, report, "rdp.listen", "%s is in [ssh] listen too",
                     c->rdp_listen.items[i]);
}

static void check_rdp(const struct config *c, const struct config_report *report)
{
    if (c->rdp_key[0] && !c->rdp_certificate[0])
        tell(report->error, report, "rdp.key", "is set without a certificate; set both or none");
}

static void check_limits(const struct config *c, const struct config_report *report)
{
    if (c->max_unauthenticated_per_source > c->max_unauthenticated)
        tell(report->warning, report, "limits.max_unauthenticated_per_source",
             "%u is more than max_unauthenticated (%u) allows in all, so one source can take "
             "every place",
             c->max_unauthenticated_per_source, c->max_unauthenticated);
    if (c->max_sessions > 0 && c->policy.sessions_per_user > c->max_sessions)
        tell(report->warning, report, "limits.max_sessions",
             "%u is less than what one user may have (sessions_per_user is %llu)", c->max_sessions,
             (unsigned long long)c->policy.sessions_per_user);
}

void config_check_all(const struct config *c, const struct config_report *report)
{
    check_idle(c, report);
    check_paths(c, report);
    check_listen(c, report);
    check_rdp(c, report);
    check_limits(c, report);
    if (strcmp(c->user, c->relay_user) == 0)
        tell(report->error, report, "proxy.relay_user",
             "is the same as user; relays need a user of their own, or they could stop the gates");
    else if (strcmp(c->relay_user, "root") == 0 || strcmp(c->user, "root") == 0)
        tell(report->error, report,
             strcmp(c->user, "root") == 0 ? "proxy.user" : "proxy.relay_user",
             "cannot be root; name a system user without rights");
}
