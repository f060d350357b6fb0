/* The trusted CAs; see user_ca.h. */
#include "proxy/broker/user_ca.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/keys.h"

struct user_ca {
    struct user_ca *next;
    uint16_t len;
    uint8_t blob[];
};

struct user_cas {
    struct user_ca *first;
};

static int add(struct user_cas *cas, const struct public_key *key)
{
    struct user_ca *ca = malloc(sizeof(*ca) + key->blob_len);

    if (!ca)
        return ERR_MEMORY;
    ca->len = key->blob_len;
    memcpy(ca->blob, key->blob, key->blob_len);
    ca->next = cas->first;
    cas->first = ca;
    return 0;
}

static int add_line(struct user_cas *cas, const char *line, char *why, size_t why_len)
{
    struct public_key *key;
    int r;

    line += strspn(line, " \t\r");
    if (!*line || *line == '#')
        return 0;
    key = malloc(sizeof(*key));
    if (!key)
        return ERR_MEMORY;
    r = public_key_parse(line, KEY_OF_USER, key, why, why_len);
    r = r ? r : add(cas, key);
    free(key);
    return r;
}

/* One file's text. */
static int add_text(struct user_cas *cas, const char *path, const char *text, char *err,
                    size_t err_len)
{
    char line[KEY_LINE_MAX], why[256] = "out of memory";
    unsigned number = 1;
    int r = 0;

    for (; *text; number++) {
        size_t len = strcspn(text, "\n");

        r = len < sizeof(line) ? 0 : ERR_INVALID;
        if (r == 0) {
            memcpy(line, text, len);
            line[len] = '\0';
            r = add_line(cas, line, why, sizeof(why));
        }
        if (r) {
            snprintf(err, err_len, "[ssh] user_ca: %s line %u: %s", path, number, why);
            return r;
        }
        text += len + (text[len] == '\n');
    }
    return 0;
}

int user_cas_load(struct user_cas **out, const struct config *c, char *err, size_t err_len)
{
    struct user_cas *cas;
    int r = 0;

    *out = NULL;
    if (c->ssh_user_ca_text.count == 0)
        return 0;
    cas = calloc(1, sizeof(*cas));
    if (!cas) {
        snprintf(err, err_len, "out of memory");
        return ERR_MEMORY;
    }
    for (size_t i = 0; r == 0 && i < c->ssh_user_ca_text.count; i++)
        r = add_text(cas, c->ssh_user_ca.items[i], c->ssh_user_ca_text.items[i], err, err_len);
    if (r == 0 && !cas->first) {
        snprintf(err, err_len, "[ssh] user_ca: %s holds no key", c->ssh_user_ca.items[0]);
        r = ERR_INVALID;
    }
    if (r) {
        user_cas_free(cas);
        return r;
    }
    *out = cas;
    return 0;
}

void user_cas_free(struct user_cas *cas)
{
    struct user_ca *ca;

    if (!cas)
        return;
    while ((ca = cas->first)) {
        cas->first = ca->next;
        free(ca);
    }
    free(cas);
}

bool user_cas_signed(const struct user_cas *cas, const struct user_cert *cert)
{
    if (!cas)
        return false;
    for (const struct user_ca *ca = cas->first; ca; ca = ca->next) {
        if (user_cert_is_signed(cert, ca->blob, ca->len))
            return true;
    }
    return false;
}
