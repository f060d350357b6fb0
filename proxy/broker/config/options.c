/*
 * The option table of proxy.conf: what exists, of what type, with which default and limits, and
 * whether a reload applies it. Also moves values between text and struct config. Knows nothing of
 * files and lines (load.c) and of documents (document.c).
 */
#include "proxy/broker/config/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/text.h>

#define SECONDS_HOUR 3600
#define SECONDS_DAY  86400

#define MEMBER(m) offsetof(struct config, m), sizeof(((struct config *)0)->m)

const struct option_section option_sections[] = {
    {"proxy", "The daemon itself: where it keeps things, who it runs as, how long it waits."},
    {"ssh",
     "The SSH door. channels and forward_to may also be set on a role, a target or a grant."},
    {"rdp", "The RDP door. channels (there called rdp_channels) "
            "and redirect_to may also be set on a role, a target or a grant."},
    {"control", "The socket that sallyctl speaks to."},
    {"idle", "When a session counts as idle, and what happens then. Each key may also be set on a "
             "role, a target or a grant; the narrowest wins."},
    {"limits", "How much is allowed. sessions_per_user, max_duration and channels (there called "
               "max_channels) may also be set on a role, a target or a grant."},
    {"recording", "What sessions leave behind. ssh and rdp (there called record, which is for "
                  "both, and record_rdp), input and on_failure may also be set on a role, a "
                  "target or a grant."},
};
const size_t option_section_count = sizeof(option_sections) / sizeof(option_sections[0]);

/* clang-format off */
static const struct option rows[] = {
    /* section, name, type, flags, member, default, sample, min, max, choices, check, help */
    {"proxy", "node", OPTION_TEXT, OPTION_ONCE | OPTION_DERIVED, MEMBER(node), "", "bastion1",
     1, 64, NULL, config_check_node,
     "The name of this machine in listings and in the history. The default is the host name."},
    {"proxy", "data_dir", OPTION_PATH, OPTION_ONCE, MEMBER(data_dir), "/var/lib/sallyport", NULL,
     1, 3000, NULL, NULL,
     "The folder of the store, of generated host keys and, unless [recording] dir says otherwise, "
     "of recordings."},
    {"proxy", "run_dir", OPTION_PATH, OPTION_ONCE, MEMBER(run_dir), "/run/sallyport", NULL,
     1, 3000, NULL, NULL,
     "The folder of sockets. It must outlive a restart of the daemon, because running sessions are "
     "found through it."},
    {"proxy", "user", OPTION_TEXT, OPTION_ONCE, MEMBER(user), "sallyport", NULL,
     1, 32, NULL, config_check_account,
     "The system user that the gates run as when the daemon is started by root."},
    {"proxy", "relay_user", OPTION_TEXT, OPTION_ONCE, MEMBER(relay_user), "sallyport-relay", NULL,
     1, 32, NULL, config_check_account,
     "The system user that relays, one process a connection, run as when the daemon is started by "
     "root. It must own no file and must not be the same as user."},
    {"proxy", "store_key", OPTION_PATH, OPTION_ONCE, MEMBER(store_key),
     "/etc/sallyport/keys/store.key", NULL, 1, 3000, NULL, NULL,
     "The file with the key that encrypts the targets' secrets in the store; made at the first "
     "start. Keep it outside data_dir, so that a copy of data_dir alone discloses no secret."},
    {"proxy", "log", OPTION_CHOICE, OPTION_ONCE, MEMBER(log), "stderr", NULL,
     0, 1, "stderr|syslog", NULL,
     "Where log lines go. Under systemd, stderr is the journal."},
    {"proxy", "log_level", OPTION_CHOICE, OPTION_RELOAD, MEMBER(log_level), "info", NULL,
     0, 4, "error|warn|info|debug|trace", NULL,
     "The least important kind of line that is written."},
    {"proxy", "shutdown_grace", OPTION_DURATION, OPTION_RELOAD, MEMBER(shutdown_grace_s), "30s",
     NULL, 0, SECONDS_DAY, NULL, NULL,
     "How long sallyctl shutdown and Ctrl-C wait for sessions to end by themselves before they are "
     "ended with a notice."},
    {"proxy", "adopt_grace", OPTION_DURATION, OPTION_ONCE, MEMBER(adopt_grace_s), "10s", NULL,
     1, 600, NULL, NULL,
     "How long a daemon that starts waits for the sessions of the one before; those that do not "
     "answer are then closed as broker-lost."},
    {"proxy", "broker_lost_after", OPTION_DURATION, OPTION_RELOAD, MEMBER(broker_lost_after_s),
     "1h", NULL, 1, 30 * SECONDS_DAY, NULL, NULL,
     "A session ends when no daemon has come back for this long."},
    {"proxy", "connect_timeout", OPTION_DURATION, OPTION_RELOAD, MEMBER(connect_timeout_s), "10s",
     NULL, 1, 300, NULL, NULL,
     "How long connecting to a target may take."},
    {"proxy", "sandbox", OPTION_CHOICE, OPTION_ONCE, MEMBER(sandbox), "full", NULL,
     0, 1, "full|reduced", NULL,
     "full: gates and relays get an empty root folder and a user of their own (or, when the daemon "
     "is started by an ordinary user, a user namespace), and the daemon does not start where that "
     "is not possible. reduced: go on without; relays then keep only the system call filter."},

    {"ssh", "enabled", OPTION_BOOL, OPTION_ONCE, MEMBER(ssh_enabled), "yes", NULL,
     0, 1, NULL, NULL,
     "Open the SSH door."},
    {"ssh", "listen", OPTION_TEXT, OPTION_ONCE | OPTION_REPEAT, MEMBER(ssh_listen), "[::]:2222",
     NULL, 1, 128, NULL, config_check_listen,
     "Address and port to listen on. [::] is every address, IPv6 and IPv4."},
    {"ssh", "host_key", OPTION_PATH, OPTION_ONCE | OPTION_REPEAT | OPTION_UNSET,
     MEMBER(ssh_host_key), "", "/etc/sallyport/ssh_host_ed25519_key", 1, 3000, NULL, NULL,
     "A private host key in OpenSSH's format, without a passphrase. When none is given, keys are "
     "generated in data_dir at the first start."},
    {"ssh", "banner", OPTION_PATH, OPTION_RELOAD | OPTION_UNSET, MEMBER(ssh_banner), "",
     "/etc/sallyport/banner.txt", 1, 3000, NULL, NULL,
     "A text file that is shown before the login, and on the login screen of RDP; 4000 bytes at "
     "most."},
    {"ssh", "user_ca", OPTION_PATH, OPTION_RELOAD | OPTION_REPEAT | OPTION_UNSET,
     MEMBER(ssh_user_ca), "", "/etc/sallyport/user_ca.pub", 1, 3000, NULL, NULL,
     "A file of public keys, one a line as in a .pub file: users with an OpenSSH certificate that "
     "one of these CAs signed may log in. It must name the user (or one of his cert_principals) as "
     "a principal. A reload reads the file again."},
    {"ssh", "pam", OPTION_TEXT, OPTION_ONCE, MEMBER(ssh_pam), "no", NULL,
     1, 63, NULL, config_check_pam,
     "The PAM service (a file in /etc/pam.d) that checks the passwords and accounts of users whose "
     "auth_source is pam. no: there are no such users."},
    {"ssh", "trusted_proxies", OPTION_TEXT, OPTION_RELOAD | OPTION_REPEAT | OPTION_UNSET,
     MEMBER(ssh_trusted_proxies), "", "10.0.0.0/8", 1, 63, NULL, config_check_network,
     "A network of load balancers: connections from there begin with a PROXY protocol header "
     "(version 1 or 2), which says who the client is. From everywhere else a header is refused as "
     "what it is, no SSH."},
    {"ssh", "keepalive_interval", OPTION_DURATION, OPTION_RELOAD, MEMBER(ssh_keepalive_interval_s),
     "15s", NULL, 0, SECONDS_HOUR, NULL, NULL,
     "Ask a silent client or target whether it is there after this long; 0 never does."},
    {"ssh", "keepalive_count", OPTION_COUNT, OPTION_RELOAD, MEMBER(ssh_keepalive_count), "3", NULL,
     1, 100, NULL, NULL,
     "Unanswered questions after which the session ends as network-lost."},
    {"ssh", "jump", OPTION_CHOICE, OPTION_RELOAD, MEMBER(ssh_jump), "targets", NULL,
     0, 2, "targets|any|off", NULL,
     "Where ssh -J USER@PROXY and ssh -W HOST:PORT USER@PROXY may lead. targets: to targets by their "
     "names or addresses, each as a session of its own. any: to everything else that this machine can "
     "reach, itself included, as well; that is passed on and counted, and is no session. off: nowhere."},
    {"ssh", "separators", OPTION_TEXT, OPTION_RELOAD, MEMBER(ssh_separators), "+", NULL,
     1, CONFIG_SEPARATORS_MAX, NULL, config_check_separators,
     "Characters that divide user, account and target in a login name (alice+web01). Any of +:#@; "
     "+ must be one of them."},
    {"ssh", "public_address", OPTION_TEXT, OPTION_RELOAD | OPTION_UNSET,
     MEMBER(ssh_public_address), "", "bastion.example.net:2222", 1, 270, NULL,
     config_check_public_address,
     "HOST or HOST:PORT that users reach this proxy at, for the ssh_config that "
     "ssh USER@HOST config prints. The default is what the client connected to."},
    {"ssh", "door_timeout", OPTION_DURATION, OPTION_RELOAD, MEMBER(ssh_door_timeout_s), "1h", NULL,
     0, 30 * SECONDS_DAY, NULL, NULL,
     "How long a command of a user's own (ssh USER@HOST sessions) may run without a terminal; 0 "
     "is no limit."},

    {"rdp", "enabled", OPTION_BOOL, OPTION_ONCE, MEMBER(rdp_enabled), "yes", NULL,
     0, 1, NULL, NULL,
     "Open the RDP door."},
    {"rdp", "listen", OPTION_TEXT, OPTION_ONCE | OPTION_REPEAT, MEMBER(rdp_listen), "[::]:3389",
     NULL, 1, 128, NULL, config_check_listen,
     "Address and port to listen on. [::] is every address, IPv6 and IPv4."},
    {"rdp", "trusted_proxies", OPTION_TEXT, OPTION_RELOAD | OPTION_REPEAT | OPTION_UNSET,
     MEMBER(rdp_trusted_proxies), "", "10.0.0.0/8", 1, 63, NULL, config_check_network,
     "A network of load balancers, as in [ssh]."},
    {"rdp", "certificate", OPTION_PATH, OPTION_RELOAD | OPTION_UNSET, MEMBER(rdp_certificate), "",
     "/etc/sallyport/rdp.crt", 1, 3000, NULL, NULL,
     "The certificate of the RDP door, PEM, with its chain. When none is given, a self-signed one is "
     "made in data_dir at the first start. A reload reads it again."},
    {"rdp", "key", OPTION_PATH, OPTION_RELOAD | OPTION_UNSET, MEMBER(rdp_key), "",
     "/etc/sallyport/rdp.key", 1, 3000, NULL, NULL,
     "The private key of the certificate, PEM, without a passphrase. Not needed when it stands in the "
     "certificate's file."},
    {"rdp", "nla", OPTION_CHOICE, OPTION_RELOAD, MEMBER(rdp_nla), "optional", NULL,
     0, 2, "optional|required|off", NULL,
     "Network Level Authentication at the door: the client proves the password before it gets a "
     "desktop. For users with rdp_nla on (sallyctl user set NAME --rdp-nla on), whose NT hash is kept, "
     "encrypted. optional: for clients that take nothing else, and for those whose user has it; all "
     "others log in over TLS. required: nobody else gets in. off: nobody by NLA."},
    {"rdp", "separators", OPTION_TEXT, OPTION_RELOAD, MEMBER(rdp_separators), "+", NULL,
     1, CONFIG_SEPARATORS_MAX, NULL, config_check_separators,
     "Characters that divide user, account and target in a login name (alice+win01). Any of +:#@; "
     "+ must be one of them."},

    {"control", "socket", OPTION_PATH, OPTION_ONCE | OPTION_DERIVED, MEMBER(control_socket), "",
     NULL, 1, 3000, NULL, NULL,
     "The path of the socket. The default is control.sock in run_dir."},
    {"control", "admin_over_ssh", OPTION_CHOICE, OPTION_RELOAD, MEMBER(admin_over_ssh), "totp",
     NULL, 0, 2, "totp|yes|no", NULL,
     "Whether admins and auditors may say ssh USER@HOST admin ... with the words of sallyctl. totp: "
     "when a second factor was proved at this login; yes: after any login; no: nobody."},
    {"control", "admin_group", OPTION_TEXT, OPTION_ONCE, MEMBER(admin_group), "sallyport-admin",
     NULL, 1, 32, NULL, config_check_account,
     "Members of this system group are admins, besides root."},

    {"limits", "max_sessions", OPTION_COUNT, OPTION_RELOAD, MEMBER(max_sessions), "2000", NULL,
     0, 1000000, NULL, NULL,
     "Live sessions in all; 0 is no limit."},
    {"limits", "login_grace", OPTION_DURATION, OPTION_RELOAD, MEMBER(login_grace_s), "60s", NULL,
     1, SECONDS_HOUR, NULL, NULL,
     "How long a login may take."},
    {"limits", "max_unauthenticated", OPTION_COUNT, OPTION_RELOAD, MEMBER(max_unauthenticated),
     "100", NULL, 1, 100000, NULL, NULL,
     "Connections that have not logged in yet, in all. More are kept waiting, and the one that has "
     "been silent for longest makes room."},
    {"limits", "max_unauthenticated_per_source", OPTION_COUNT, OPTION_RELOAD,
     MEMBER(max_unauthenticated_per_source), "20", NULL, 1, 100000, NULL, NULL,
     "The same from one address (IPv4) or one /64 network (IPv6)."},
    {"limits", "auth_attempts", OPTION_COUNT, OPTION_RELOAD, MEMBER(auth_attempts), "6", NULL,
     1, 100, NULL, NULL,
     "Passwords and signatures that may fail on one connection."},
    {"limits", "key_offers", OPTION_COUNT, OPTION_RELOAD, MEMBER(key_offers), "20", NULL,
     1, 1000, NULL, NULL,
     "Public keys that a client may offer on one connection without signing."},
    {"limits", "source_failures", OPTION_COUNT, OPTION_RELOAD, MEMBER(source_failures), "10", NULL,
     0, 1000000, NULL, NULL,
     "Failed logins after which an address (IPv6: a /64) is refused for a while; nobody else is, "
     "and no account is locked. 0 is no limit."},
    {"limits", "source_block", OPTION_DURATION, OPTION_RELOAD, MEMBER(source_block_s), "1m", NULL,
     1, SECONDS_DAY, NULL, NULL,
     "How long it takes until all failures of an address are forgotten."},

    {"recording", "dir", OPTION_PATH, OPTION_ONCE | OPTION_DERIVED, MEMBER(recording_dir), "", NULL,
     1, 3000, NULL, NULL,
     "The folder of recordings. The default is recordings in data_dir."},
    {"recording", "min_free", OPTION_SIZE, OPTION_RELOAD, MEMBER(recording_min_free), "256M", NULL,
     0, UINT64_C(1) << 50, NULL, NULL,
     "Recording counts as failed while less than this is free where recordings go; 0 never does."},
};
/* clang-format on */

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static struct option table[OPTION_TABLE_MAX];
static size_t table_count;

static struct option option_of_policy(const struct policy_key *key)
{
    struct option o = {
        .section = key->section,
        .name = key->conf_key,
        .type = (enum option_type)key->kind,
        .flags = OPTION_RELOAD,
        .offset = offsetof(struct config, policy) + key->offset,
        .size = sizeof(uint64_t),
        .def = key->def,
        .min = key->min,
        .max = key->max,
        .choices = key->choices,
        .help = key->help,
    };

    return o;
}

/* Rows of a section stand together, the policy keys first: they are what people look for. */
static void table_build(void)
{
    for (size_t s = 0; s < option_section_count; s++) {
        const char *section = option_sections[s].name;

        for (size_t i = 0; i < policy_key_count && table_count < OPTION_TABLE_MAX; i++)
            if (strcmp(policy_keys[i].section, section) == 0)
                table[table_count++] = option_of_policy(&policy_keys[i]);
        for (size_t i = 0; i < ROW_COUNT && table_count < OPTION_TABLE_MAX; i++)
            if (strcmp(rows[i].section, section) == 0)
                table[table_count++] = rows[i];
    }
}

size_t option_count(void)
{
    if (table_count == 0)
        table_build();
    return table_count;
}

const struct option *option_at(size_t index)
{
    return index < option_count() ? &table[index] : NULL;
}

const struct option *option_find(const char *section, const char *name, size_t *index)
{
    for (size_t i = 0; i < option_count(); i++) {
        if (strcmp(table[i].section, section) != 0 || strcmp(table[i].name, name) != 0)
            continue;
        if (index)
            *index = i;
        return &table[i];
    }
    return NULL;
}

const char *option_section_of(const char *name)
{
    for (size_t i = 0; i < option_count(); i++)
        if (strcmp(table[i].name, name) == 0)
            return table[i].section;
    return NULL;
}

const char *option_nearest(const char *section, const char *name)
{
    const char *names[OPTION_TABLE_MAX];
    size_t count = 0;

    for (size_t i = 0; i < option_count(); i++)
        if (strcmp(table[i].section, section) == 0)
            names[count++] = table[i].name;
    return text_nearest(name, names, count);
}

const char *option_nearest_section(const char *name)
{
    const char *names[OPTION_TABLE_MAX];

    for (size_t i = 0; i < option_section_count; i++)
        names[i] = option_sections[i].name;
    return text_nearest(name, names, option_section_count);
}

/* ---- lists and paths ---- */

int config_list_add(struct config_list *list, const char *text)
{
    char **items = realloc(list->items, (list->count + 1) * sizeof(*items));

    if (!items)
        return ERR_MEMORY;
    list->items = items;
    items[list->count] = strdup(text);
    if (!items[list->count])
        return ERR_MEMORY;
    list->count++;
    return 0;
}

void config_list_free(struct config_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    list->items = NULL;
    list->count = 0;
}

/* Only what means the same for every file system: `..` is left alone, because of links. */
static void path_tidy(char *path)
{
    char *to = path;

    for (const char *from = path; *from;) {
        if (from[0] == '/' && from[1] == '/') {
            from++;
        } else if (from[0] == '/' && from[1] == '.' && (from[2] == '/' || from[2] == '\0')) {
            from += 2;
        } else {
            *to++ = *from++;
        }
    }
    while (to > path + 1 && to[-1] == '/')
        to--;
    if (to == path)
        *to++ = '/';
    *to = '\0';
}

char *config_path_join(const char *base_dir, const char *path)
{
    size_t len = strlen(base_dir) + strlen(path) + 2;
    char *joined = malloc(len);

    if (!joined)
        return NULL;
    if (path[0] == '/')
        snprintf(joined, len, "%s", path);
    else
        snprintf(joined, len, "%s/%s", base_dir, path);
    path_tidy(joined);
    return joined;
}

/* ---- values ---- */

static void *member_of(struct config *c, const struct option *o)
{
    return (char *)c + o->offset;
}

static const void *member_in(const struct config *c, const struct option *o)
{
    return (const char *)c + o->offset;
}

static bool is_number(const struct option *o)
{
    return o->type < OPTION_DESTINATIONS;
}

/* Numbers are parsed and printed by the policy's code, so that a grant and proxy.conf read alike.
 */
static struct policy_key key_of(const struct option *o)
{
    struct policy_key key = {
        .key = o->name,
        .section = o->section,
        .conf_key = o->name,
        .kind = (enum policy_kind)o->type,
        .choices = o->choices,
        .def = o->def,
        .min = o->min,
        .max = o->max,
        .help = o->help,
    };

    return key;
}

/* A text that lies in the policy itself; its offset there. */
static bool is_policy_text(const struct option *o)
{
    return o->type == OPTION_DESTINATIONS;
}

static struct policy_key text_key_of(const struct option *o)
{
    struct policy_key key = key_of(o);

    key.offset = o->offset - offsetof(struct config, policy);
    return key;
}

static const char *policy_text_in(const struct config *c, const struct option *o)
{
    return (const char *)member_in(c, o);
}

static void number_store(struct config *c, const struct option *o, uint64_t value)
{
    uint8_t v8 = (uint8_t)value;
    uint32_t v32 = (uint32_t)value;

    if (o->size == sizeof(v8))
        memcpy(member_of(c, o), &v8, sizeof(v8));
    else if (o->size == sizeof(v32))
        memcpy(member_of(c, o), &v32, sizeof(v32));
    else
        memcpy(member_of(c, o), &value, sizeof(value));
}

static uint64_t number_load(const struct config *c, const struct option *o)
{
    uint8_t v8 = 0;
    uint32_t v32 = 0;
    uint64_t v64 = 0;

    if (o->size == sizeof(v8)) {
        memcpy(&v8, member_in(c, o), sizeof(v8));
        return v8;
    }
    if (o->size == sizeof(v32)) {
        memcpy(&v32, member_in(c, o), sizeof(v32));
        return v32;
    }
    memcpy(&v64, member_in(c, o), sizeof(v64));
    return v64;
}

static const char *const *text_in(const struct config *c, const struct option *o)
{
    return (const char *const *)member_in(c, o);
}

static char **text_of(struct config *c, const struct option *o)
{
    return (char **)member_of(c, o);
}

static const struct config_list *list_in(const struct config *c, const struct option *o)
{
    return (const struct config_list *)member_in(c, o);
}

static struct config_list *list_of(struct config *c, const struct option *o)
{
    return (struct config_list *)member_of(c, o);
}

static int list_gain(struct config *c, const struct option *o, const char *text, char *err,
                     size_t err_len)
{
    struct config_list *list = list_of(c, o);

    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i], text) == 0) {
            snprintf(err, err_len, "this value was already given; remove one of the two lines");
            return ERR_INVALID;
        }
    }
    if (list->count >= CONFIG_LIST_MAX) {
        snprintf(err, err_len, "more than %d values; remove some", CONFIG_LIST_MAX);
        return ERR_INVALID;
    }
    return config_list_add(list, text);
}

static int text_check(const struct option *o, const char *text, char *err, size_t err_len)
{
    if (text[0] == '\0') {
        if ((o->flags & OPTION_UNSET) && !(o->flags & OPTION_REPEAT))
            return 0;
        snprintf(err, err_len, "needs a value%s",
                 o->flags & OPTION_REPEAT ? "; remove the line to use the default" : "");
        return ERR_INVALID;
    }
    if (strlen(text) > o->max) {
        snprintf(err, err_len, "is longer than %llu bytes; choose a shorter one",
                 (unsigned long long)o->max);
        return ERR_INVALID;
    }
    if (o->type == OPTION_PATH && text[0] == '~') {
        snprintf(err, err_len, "a path cannot begin with ~; write the whole path");
        return ERR_INVALID;
    }
    return o->check ? o->check(text, err, err_len) : 0;
}

static int text_set(struct config *c, const struct option *o, const char *text,
                    const char *base_dir, char *err, size_t err_len)
{
    char *value;
    int r = text_check(o, text, err, err_len);

    if (r < 0)
        return r;
    value =
        o->type == OPTION_PATH && text[0] != '\0' ? config_path_join(base_dir, text) : strdup(text);
    if (!value)
        return ERR_MEMORY;
    if (value[0] != '\0' && strchr(" \t", value[strlen(value) - 1])) { /* -T could not show it */
        snprintf(err, err_len, "\"%.200s\" ends with a blank; choose another name", value);
        free(value);
        return ERR_INVALID;
    }
    if (o->flags & OPTION_REPEAT) {
        r = list_gain(c, o, value, err, err_len);
        free(value);
        return r;
    }
    free(*text_of(c, o));
    *text_of(c, o) = value;
    return 0;
}

int option_set(struct config *c, const struct option *o, const char *text, const char *base_dir,
               char *err, size_t err_len)
{
    uint64_t value;
    struct policy_key key = is_policy_text(o) ? text_key_of(o) : key_of(o);
    int r;

    if (!is_number(o) && !is_policy_text(o))
        return text_set(c, o, text, base_dir, err, err_len);
    if (text[0] == '\0') {
        snprintf(err, err_len, "needs a value");
        return ERR_INVALID;
    }
    if (is_policy_text(o))
        return policy_set(&c->policy, &key, text, err, err_len);
    r = policy_parse_value(&key, text, &value, err, err_len);
    if (r < 0)
        return r;
    number_store(c, o, value);
    return 0;
}

size_t option_value_count(const struct config *c, const struct option *o)
{
    return o->flags & OPTION_REPEAT ? list_in(c, o)->count : 1;
}

/* In a file, blanks read better between words than the commas of a stored policy. */
static void put_words(struct buffer *out, const char *text)
{
    for (const char *at = text; *at; at++)
        buffer_put(out, *at == ',' ? " " : at, 1);
}

void option_value_text(const struct config *c, const struct option *o, size_t index,
                       struct buffer *out)
{
    char text[128];
    struct policy_key key = key_of(o);

    if (is_number(o))
        put_words(out, policy_value_text(&key, number_load(c, o), text, sizeof(text)));
    else if (is_policy_text(o))
        put_words(out, policy_text_in(c, o));
    else if (o->flags & OPTION_REPEAT)
        buffer_put_str(out, list_in(c, o)->items[index]);
    else
        buffer_put_str(out, *text_in(c, o));
}

void option_values_line(const struct config *c, const struct option *o, struct buffer *out)
{
    size_t count = option_value_count(c, o);
    size_t before = out->len;

    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            buffer_put_str(out, ", ");
        option_value_text(c, o, i, out);
    }
    if (out->len == before)
        buffer_put_str(out, "\"\"");
}

bool option_is_equal(const struct config *a, const struct config *b, const struct option *o)
{
    if (is_number(o))
        return number_load(a, o) == number_load(b, o);
    if (is_policy_text(o))
        return strcmp(policy_text_in(a, o), policy_text_in(b, o)) == 0;
    if (!(o->flags & OPTION_REPEAT))
        return strcmp(*text_in(a, o), *text_in(b, o)) == 0;
    if (list_in(a, o)->count != list_in(b, o)->count)
        return false;
    for (size_t i = 0; i < list_in(a, o)->count; i++)
        if (strcmp(list_in(a, o)->items[i], list_in(b, o)->items[i]) != 0)
            return false;
    return true;
}

int option_copy(struct config *to, const struct config *from, const struct option *o)
{
    struct config_list list = {0};
    char *text;

    if (is_number(o)) {
        number_store(to, o, number_load(from, o));
        return 0;
    }
    if (is_policy_text(o)) {
        memcpy(member_of(to, o), member_in(from, o), POLICY_TEXT_MAX);
        return 0;
    }
    if (!(o->flags & OPTION_REPEAT)) {
        text = strdup(*text_in(from, o));
        if (!text)
            return ERR_MEMORY;
        free(*text_of(to, o));
        *text_of(to, o) = text;
        return 0;
    }
    for (size_t i = 0; i < list_in(from, o)->count; i++) {
        if (config_list_add(&list, list_in(from, o)->items[i]) < 0) {
            config_list_free(&list);
            return ERR_MEMORY;
        }
    }
    config_list_free(list_of(to, o));
    *list_of(to, o) = list;
    return 0;
}

void option_free(struct config *c, const struct option *o)
{
    if (is_number(o) || is_policy_text(o))
        return;
    if (o->flags & OPTION_REPEAT) {
        config_list_free(list_of(c, o));
        return;
    }
    free(*text_of(c, o));
    *text_of(c, o) = NULL;
}

/* ---- defaults ---- */

static int derive_path(char **path, const char *dir, const char *name)
{
    free(*path);
    *path = config_path_join(dir, name);
    return *path ? 0 : ERR_MEMORY;
}

/* Cut to what a name may be; a host without a usable name is "sallyport". */
static int derive_node(char **node)
{
    char host[65] = "";

    if (gethostname(host, sizeof(host) - 1) < 0 || !text_is_name(host))
        text_copy(host, sizeof(host), "sallyport");
    free(*node);
    *node = strdup(host);
    return *node ? 0 : ERR_MEMORY;
}

static int option_derive(struct config *c, const struct option *o)
{
    if (o->offset == offsetof(struct config, node))
        return derive_node(&c->node);
    if (o->offset == offsetof(struct config, control_socket))
        return derive_path(&c->control_socket, c->run_dir, "control.sock");
    return derive_path(&c->recording_dir, c->data_dir, "recordings");
}

int option_set_defaults(struct config *c, const bool *is_set)
{
    char err[OPTION_ERROR_MAX];

    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = &table[i];
        int r = 0;

        if (is_set && is_set[i])
            continue;
        if (o->flags & OPTION_DERIVED) /* of members that stand earlier in the table */
            r = option_derive(c, o);
        else if (o->def[0] != '\0' || !(o->flags & OPTION_REPEAT))
            r = option_set(c, o, o->def, "/", err, sizeof(err));
        if (r < 0)
            return r;
    }
    return 0;
}
