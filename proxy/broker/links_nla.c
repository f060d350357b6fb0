/*
 * A login by NLA: which clients get it, and the broker's part of an attempt. The process of the
 * attempt (nla.c) says who the client claims to be, gets that one user's hash, and says whether he
 * proved it: the relay, which carries the client's messages, is not asked. Whoever cannot log in so
 * (no such user, no hash, locked) is given a hash of chance: it costs the same, and the answer is
 * the same.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/login.h>
#include <sallyport/text.h>

#include "proxy/broker/links_parts.h"
#include "proxy/broker/nla.h"
#include "tracker/store/store.h"

#define COOKIE_CUT      9 /* bytes after which mstsc cuts a name; others send it whole */
#define NAME_IMPOSSIBLE "?"

/* ---- which security ---- */

/* The user's part of a cookie: what is behind a domain and before what else a login name has.
 * Returns whether the name may go on. */
static bool name_of(const char *cookie, const char *separators, char *dst, size_t len)
{
    const char *back = strrchr(cookie, '\\'), *start = back ? back + 1 : cookie;
    size_t n = strcspn(start, separators);

    text_copy(dst, n < len ? n + 1 : len, start);
    return !start[n] && strlen(cookie) == COOKIE_CUT;
}

/* A coin that always falls the same way for a name: strangers who try names cannot tell those of
 * users who have NLA from those that are nobody's. A name that may be cut has another coin than the
 * whole one, or a difference between both would say that there is a user who begins so. */
static bool coin(const struct broker *b, const char *name, bool is_cut)
{
    static const char purpose[] = "nla cookie";
    uint8_t text[sizeof(purpose) + NAME_MAX_LEN], digest[EVP_MAX_MD_SIZE] = {0};
    size_t len = strnlen(name, NAME_MAX_LEN);

    memcpy(text, purpose, sizeof(purpose));
    memcpy(text + sizeof(purpose), name, len);
    (void)HMAC(EVP_sha256(), b->ticket_key, sizeof(b->ticket_key), text, sizeof(purpose) + len,
               digest, NULL);
    return digest[is_cut] & 1;
}

static enum link_nla choose(const struct relay_link *l, const char *cookie)
{
    struct broker *b = l->links->broker;
    char name[NAME_MAX_LEN + 1];
    bool is_cut;

    if (b->config->rdp_nla == CONFIG_NLA_REQUIRED)
        return LINK_NLA_ONLY;
    if (b->config->rdp_nla == CONFIG_NLA_OFF || l->protocol != PROTOCOL_RDP ||
        !nla_helper_start(b->nla))
        return LINK_NLA_OFF;
    if (!cookie[0])
        return LINK_NLA_LAST;
    is_cut = name_of(cookie, b->config->rdp_separators, name, sizeof(name));
    switch (store_nla_hint(b->store, name, is_cut)) {
    case STORE_NLA_YES:
        return LINK_NLA_FIRST;
    case STORE_NLA_NO:
        return LINK_NLA_LAST;
    case STORE_NLA_UNKNOWN:
        break;
    }
    return coin(b, name, is_cut) ? LINK_NLA_FIRST : LINK_NLA_LAST;
}

void link_on_nla_ask(struct relay_link *l, struct link_message *m, int *fds)
{
    uint8_t nla = (uint8_t)choose(l, m->nla_ask.cookie);

    (void)fds;
    link_begin(l, LINK_NLA_CHOICE)->nla_choice.nla = nla;
    link_say(l);
}

/* ---- the attempt ---- */

/* The user's hash, or what is there. Returns why it is not his, for the admin; "" for nothing. */
static const char *find_hash(struct broker *b, const char *name, uint8_t hash[NLA_HASH_LEN],
                             bool *is_own)
{
    uint8_t own[NLA_HASH_LEN];
    struct store_user user;
    int r = store_user_nt_hash(b->store, name, own);
    bool is_known = store_user_get(b->store, name, &user) == 0;

    *is_own = r == 0 && is_known && !user.is_locked && strcmp(user.auth_source, "pam") != 0;
    if (*is_own)
        memcpy(hash, own, NLA_HASH_LEN);
    memory_wipe(own, sizeof(own));
    if (!is_known)
        return "";
    if (user.is_locked)
        return ", locked";
    if (strcmp(user.auth_source, "pam") == 0)
        return ", which PAM's users cannot";
    if (!user.has_nla)
        return ", which is off for this user (user set --rdp-nla on)";
    if (r == 0)
        return "";
    if (r == ERR_NOT_FOUND)
        return ", for which no hash is stored yet: it comes with the next password";
    log_error("the NT hash of %s cannot be read: %s", name, store_error(b->store));
    return ", and the hash cannot be read";
}

static void on_who(void *arg, const char *user, const char *domain)
{
    struct relay_link *l = arg;
    struct broker *b = l->links->broker;
    char device[SESSION_DEVICE_MAX];
    uint8_t hash[NLA_HASH_LEN];
    struct login login;
    const char *name = NAME_IMPOSSIBLE;

    (void)domain; /* may name the target, which is no question of who it is */
    if (login_parse(&login, user, strlen(user), b->config->rdp_separators) == 0)
        name = login.user;
    text_copy(device, sizeof(device), l->device);
    if (!link_login_may_try(l, name, device)) {
        link_login_stop(l);
        l->is_busy = false;
        return;
    }
    if (RAND_bytes(hash, NLA_HASH_LEN) != 1) { /* a hash that can be known would be a way in */
        link_login_stop(l);
        l->is_busy = false;
        link_login_reply(l, LINK_AUTH_DISCONNECT, "NLA cannot be had now; try again");
        return;
    }
    l->login.nla_note = find_hash(b, name, hash, &l->login.nla_is_own);
    l->login.nla_state = NLA_JUDGED;
    nla_attempt_hash(l->login.nla, hash);
    memory_wipe(hash, sizeof(hash));
}

static void on_proved(void *arg)
{
    struct relay_link *l = arg;

    l->login.nla_state = NLA_PROVED;
}

static void on_over(void *arg, bool is_ok, const char *why)
{
    struct relay_link *l = arg;
    char method[128];

    l->is_busy = false;
    if (is_ok && l->login.nla_is_own) { /* nobody proves a hash of chance, whatever is said */
        link_first_factor(l, "nla");
    } else if (l->login.nla_state == NLA_ASKED) { /* no name, so no attempt at one's password */
        log_info("nla source=%s: the client's login is not understood: %s", l->client_address, why);
        link_login_stop(l);
        link_login_reply(l, LINK_AUTH_DISCONNECT, "the client's NLA is not understood");
    } else {
        snprintf(method, sizeof(method), "nla%s", l->login.nla_note);
        log_debug("nla user=%s: %s", l->tried_user, why);
        link_login_failed(l, method, "");
    }
}

bool link_nla_is_untold(const struct relay_link *l)
{
    return l->login.nla && l->login.nla_state != NLA_ASKED;
}

void link_on_nla_login(struct relay_link *l, struct link_message *m, int *fds)
{
    static const struct nla_events events = {on_who, on_proved, on_over};
    const struct link_nla_login *n = &m->nla_login;
    struct broker *b = l->links->broker;
    int fd;

    (void)fds;
    if (!link_login_begin(l, "", n->device, false))
        return;
    if (b->config->rdp_nla != CONFIG_NLA_OFF && l->protocol == PROTOCOL_RDP &&
        gates_has_rdp_key(b->gates, n->key.data, n->key.len))
        l->login.nla = nla_attempt_begin(b->nla, n->key.data, n->key.len, &events, l, &fd);
    if (!l->login.nla) {
        log_warn("relay pid=%d: NLA cannot be had now", l->pid);
        link_login_reply(l, LINK_AUTH_DISCONNECT, "NLA cannot be had now; try again");
        return;
    }
    l->is_busy = true;
    l->login.nla_state = NLA_ASKED;
    l->login.nla_is_own = false;
    link_begin(l, LINK_NLA_BEGUN);
    link_say_fds(l, &fd, 1);
    close(fd);
}
