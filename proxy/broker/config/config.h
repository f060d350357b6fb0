/*
 * The configuration of sallyportd: proxy.conf. One option table (options.c) drives parsing, checks,
 * `-T`, proxy.conf.example and proxy.conf(5). A load fills a fresh struct and never touches the one
 * in use; the broker swaps pointers when a load succeeded. Blocks on the file system: start-up and
 * reload only. It opens no socket, makes no directory and resolves no name.
 */
#ifndef PROXY_BROKER_CONFIG_H
#define PROXY_BROKER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>
#include <sallyport/log.h>
#include <sallyport/policy.h>

#define CONFIG_PATH_DEFAULT   "/etc/sallyport/proxy.conf"
#define CONFIG_FILE_MAX       (1024 * 1024) /* bytes of one file */
#define CONFIG_LINE_MAX       4096          /* bytes of one line, without its newline */
#define CONFIG_DEPTH_MAX      8             /* files that include one another */
#define CONFIG_LIST_MAX       64            /* values of a repeatable option */
#define CONFIG_BANNER_MAX     4000          /* bytes of the banner file */
#define CONFIG_SEPARATORS_MAX 7
#define CONFIG_CA_MAX         65536        /* bytes of a file of CAs */
#define CONFIG_REPORT_MAX     (256 * 1024) /* a good max_len for the buffers below */

enum config_nla { CONFIG_NLA_OPTIONAL, CONFIG_NLA_REQUIRED, CONFIG_NLA_OFF };
enum config_jump { CONFIG_JUMP_TARGETS, CONFIG_JUMP_ANY, CONFIG_JUMP_OFF };
enum config_admin_over_ssh { CONFIG_ADMIN_TOTP, CONFIG_ADMIN_YES, CONFIG_ADMIN_NO };
enum config_sandbox { CONFIG_SANDBOX_FULL, CONFIG_SANDBOX_REDUCED };

/* The values of a repeatable option, in the order of the file; owned by the configuration. */
struct config_list {
    char **items;
    size_t count;
};

/*
 * Texts are never NULL; "" is "not set" where an option has no default. Paths are absolute.
 * Owned by the struct; borrow them for as long as it lives.
 */
struct config {
    char *path; /* of the file itself, absolute */

    /* [proxy] */
    char *node; /* this host's name unless set */
    char *data_dir;
    char *run_dir;
    char *user;
    char *relay_user;
    char *store_key;
    enum log_sink log;
    enum log_level log_level;
    uint32_t shutdown_grace_s;
    uint32_t adopt_grace_s;
    uint32_t broker_lost_after_s;
    uint32_t connect_timeout_s;
    enum config_sandbox sandbox;

    /* [ssh] */
    bool ssh_enabled;
    struct config_list ssh_listen;   /* each passes config_parse_listen() */
    struct config_list ssh_host_key; /* empty: the broker makes keys in data_dir */
    char *ssh_banner;                /* path of the file, "" for none */
    char *ssh_banner_text;           /* its content, checked, at most CONFIG_BANNER_MAX bytes */
    struct config_list ssh_trusted_proxies; /* each passes network_parse() */
    struct config_list ssh_user_ca;         /* paths */
    struct config_list ssh_user_ca_text;    /* the file of each, at most CONFIG_CA_MAX bytes */
    char *ssh_pam;                          /* the PAM service, or "no" */
    uint32_t ssh_keepalive_interval_s;
    uint32_t ssh_keepalive_count;
    char *ssh_separators;
    char *ssh_public_address; /* "" when not set */
    uint32_t ssh_door_timeout_s;
    enum config_jump ssh_jump;

    /* [rdp] */
    bool rdp_enabled;
    struct config_list rdp_listen;
    struct config_list rdp_trusted_proxies;
    char *rdp_certificate; /* "": self-signed, made in data_dir with its key */
    char *rdp_key;         /* "": in the certificate's file */
    enum config_nla rdp_nla;
    char *rdp_separators;

    /* [control] */
    char *control_socket;
    char *admin_group;
    enum config_admin_over_ssh admin_over_ssh;

    /* [limits], besides the policy keys */
    uint32_t max_sessions; /* 0: no limit */
    uint32_t login_grace_s;
    uint32_t max_unauthenticated;
    uint32_t max_unauthenticated_per_source;
    uint32_t auth_attempts;
    uint32_t key_offers;
    uint32_t source_failures; /* 0: no limit */
    uint32_t source_block_s;

    /* [recording], besides the policy keys */
    char *recording_dir;
    uint64_t recording_min_free; /* bytes */

    struct policy policy; /* [idle] and the policy keys of [limits] and [recording] */

    struct config_list warnings; /* sentences for the log and for -t, "FILE:LINE: [section] ..." */
};

/*
 * Read `path` and what it includes into a fresh configuration.
 *
 * errors  all that is wrong, one line each: `FILE:LINE: [section] what (did you mean "x"?)`
 *
 * Returns 0 and *out (config_free() it), or ERR_INVALID, ERR_NOT_FOUND, ERR_SYSTEM, ERR_MEMORY
 * with *out NULL and at least one line in errors.
 */
MUST_CHECK int config_load(struct config **out, const char *path, struct buffer *errors);

/* The same from memory, as if the text were the file `path` (which need not exist). */
MUST_CHECK int config_load_text(struct config **out, const char *path, const char *text, size_t len,
                                struct buffer *errors);

/* NULL is fine. */
void config_free(struct config *c);

/* The effective configuration, every option, as a file that parses back to the same (-T). */
void config_print(const struct config *c, struct buffer *out);

/*
 * What changes from old to fresh, one line each: `[idle] idle_after: 5m -> 10m`; options that a
 * reload cannot apply end with `(needs a restart)`. Returns how many lines; *restarts (may be NULL)
 * counts those of the latter kind.
 */
size_t config_diff(const struct config *old, const struct config *fresh, struct buffer *report,
                   size_t *restarts);

/*
 * Make `fresh` carry the values of `old` for every option that a reload cannot apply, so that what
 * -T, the diff of the next reload and the daemon itself believe stay one. Call after config_diff().
 */
MUST_CHECK int config_keep_fixed(struct config *fresh, const struct config *old);

/* proxy.conf.example, and the options part of proxy.conf(5) as scdoc source. */
void config_example(struct buffer *out);
void config_man(struct buffer *out);

/*
 * `[::]:2222`, `192.0.2.1:22`, `*:2222`, `2222` (the last two: every address, IPv4 and IPv6).
 * Numbers only, no names. Port 0 is refused. On error err has a sentence.
 */
MUST_CHECK int config_parse_listen(const char *text, struct sockaddr_storage *addr, socklen_t *len,
                                   char *err, size_t err_len);

#endif
