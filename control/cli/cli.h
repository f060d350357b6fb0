/*
 * sallyctl: what its files share. One command table (commands.c) drives parsing, help, completion
 * and the check against the man page; args.c parses, conn.c speaks to the daemon, output.c prints,
 * and the cmd_*.c files hold a handler for each row. Data goes to stdout, talk to stderr.
 */
#ifndef CONTROL_CLI_CLI_H
#define CONTROL_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include <sallyport/errors.h>

#include "control/cli/conn.h"

#define CLI_DEFAULT_SOCKET "/run/sallyport/control.sock"

/* What every script may rely on. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_SOME_FAILED = 3,
    CLI_NOT_PERMITTED = 4,
    CLI_UNREACHABLE = 5
};

enum cli_format { FORMAT_TABLE, FORMAT_WIDE, FORMAT_JSON, FORMAT_JSONL, FORMAT_CSV };

/* How an option's value is checked before anything is sent. */
enum cli_value { VALUE_NONE, VALUE_TEXT, VALUE_CHOICE, VALUE_COUNT, VALUE_DURATION, VALUE_TIME };

struct cli_option {
    const char *name;    /* without dashes; '_' and '-' are the same on the line */
    char letter;         /* 0: none */
    enum cli_value kind; /* VALUE_NONE: a flag */
    const char *metavar; /* in help */
    const char *choices; /* "a|b" of a VALUE_CHOICE; otherwise what completes it: "@users" .. */
    const char *help;
};

#define CLI_LIST   1U /* -q, --sort, --limit */
#define CLI_POLICY 2U /* KEY=VALUE words and --KEY VALUE of the policy keys */
#define CLI_YES    4U /* -y */
#define CLI_LOCAL  8U /* runs without the daemon */
#define CLI_HIDDEN 16U

struct cli;

struct cli_command {
    const char *words;    /* "session ls" */
    const char *shortcut; /* "ls", or NULL */
    const char *operands; /* "ID..." in help; "" for none */
    const char *complete; /* what completes each operand, by place: "@users @targets"; the last
                             repeats */
    uint32_t operands_min, operands_max;
    unsigned flags;
    const struct cli_option *options; /* ends with a NULL name; NULL: none of its own */
    int (*run)(struct cli *cli);
    const char *help;
};

extern const struct cli_command cli_commands[];
extern const size_t cli_command_count;

/* The options of a command one after the other (its own, those its flags bring, the common ones):
 * NULL behind the last. command NULL: the common ones only. */
const struct cli_option *cli_option_at(const struct cli_command *command, size_t index);
/* The long option made from a policy key. */
const struct cli_option *cli_policy_option(size_t key_index);

struct cli_given {
    const struct cli_option *option;
    const char *value; /* borrowed from argv; NULL for a flag */
};

struct cli_args {
    const struct cli_command *command; /* NULL: only words that begin one, see noun */
    const char *noun;                  /* "session" of `sallyctl session --help` */
    const char **operands;
    size_t operand_count;
    struct cli_given *given;
    size_t given_count;
};

/*
 * Parse a whole line (argv[0] is skipped). Pure but for memory. Returns 0, or ERR_INVALID with a
 * sentence that says what to do in err, or ERR_MEMORY. Finish in any case. With --help, --version
 * or no word at all the operands are not checked.
 */
MUST_CHECK int cli_args_parse(struct cli_args *a, int argc, const char *const *argv, char *err,
                              size_t err_len);
void cli_args_finish(struct cli_args *a);
bool cli_args_has(const struct cli_args *a, const char *option);
/* NULL when it was not given. */
const char *cli_args_value(const struct cli_args *a, const char *option);

struct cli {
    struct cli_args args;
    struct conn conn;
    bool is_connected;
    enum cli_format format;
    const char *socket_path;
    bool is_colour;      /* of stdout */
    bool is_talk_colour; /* of stderr */
};

int cli_main(int argc, char **argv);

/* Runs at the bastion for somebody who came by SSH (SALLYPORT_SOCKET=fd:N): there are no files of
 * his here, and no other socket. */
bool cli_is_door(void);
/* False, told, when a file cannot be meant: at the door only "-" can. */
bool cli_may_use_file(const char *path);

/* Talk: one line to stderr, "sallyctl: ..." for errors. Text from outside is escaped, line by
 * line. */
void cli_error(const char *fmt, ...) PRINTF_LIKE(1, 2);
void cli_say(const char *fmt, ...) PRINTF_LIKE(1, 2);
/* An error with what to do, and the command's help as the next step: returns CLI_USAGE. */
int cli_usage(const struct cli *cli, const char *fmt, ...) PRINTF_LIKE(2, 3);

bool cli_has(const struct cli *cli, const char *option);
const char *cli_value(const struct cli *cli, const char *option);
const char *cli_operand(const struct cli *cli, size_t index); /* NULL past the last */

/*
 * Carry out one command of the daemon. args is taken (NULL: none). Returns CLI_DONE with *reply
 * holding rows or data (the caller json_decref()s), or an exit code after it has told the user.
 */
MUST_CHECK int cli_call(struct cli *cli, const char *command, json_t *args, json_t **reply);
int cli_connect(struct cli *cli);
/* What to tell about a failed call, and the exit code that goes with it. */
int cli_report(const struct cli *cli, int error, const struct conn_error *e);

/* Put option `name` into args under the protocol's name (dry-run: dry_run); nothing when it was
 * not given. Flags become true, counts numbers, times ISO UTC. */
void cli_put_option(const struct cli *cli, json_t *args, const char *name);
/* The policy of KEY=VALUE operands from `first` on and of --KEY VALUE options as an object; NULL
 * with a usage error told. */
json_t *cli_policy_args(const struct cli *cli, size_t first);

/* Print help of a command, of a noun or of everything (both NULL). */
void cli_help(void *stream, const struct cli_command *command, const char *noun);
/* `sallyctl __complete WORD...`: what the last word may be. */
int cli_complete(struct cli *cli, int argc, const char *const *argv);

/* The handlers, by file. */
int cmd_session_ls(struct cli *cli);
int cmd_session_show(struct cli *cli);
int cmd_session_stats(struct cli *cli);
int cmd_session_message(struct cli *cli);
int cmd_session_end(struct cli *cli);
int cmd_session_top(struct cli *cli);
int cmd_session_watch(struct cli *cli);
int cmd_session_join(struct cli *cli);
int cmd_recording_ls(struct cli *cli);
int cmd_recording_play(struct cli *cli);
int cmd_recording_export(struct cli *cli);
int cmd_recording_verify(struct cli *cli);
int cmd_user_add(struct cli *cli);
int cmd_user_ls(struct cli *cli);
int cmd_user_show(struct cli *cli);
int cmd_user_set(struct cli *cli);
int cmd_user_passwd(struct cli *cli);
int cmd_user_lock(struct cli *cli);
int cmd_user_unlock(struct cli *cli);
int cmd_user_rm(struct cli *cli);
int cmd_user_key_add(struct cli *cli);
int cmd_user_key_ls(struct cli *cli);
int cmd_user_key_rm(struct cli *cli);
int cmd_totp_confirm(struct cli *cli); /* of a user, or of oneself; likewise below */
int cmd_totp_disable(struct cli *cli);
int cmd_totp_enable(struct cli *cli);
int cmd_totp_recovery(struct cli *cli);
int cmd_totp_show(struct cli *cli);
int cmd_source_ls(struct cli *cli);
int cmd_source_unblock(struct cli *cli);
int cmd_role_add(struct cli *cli);
int cmd_role_ls(struct cli *cli);
int cmd_role_show(struct cli *cli);
int cmd_role_set(struct cli *cli);
int cmd_role_rm(struct cli *cli);
int cmd_target_add(struct cli *cli);
int cmd_target_ls(struct cli *cli);
int cmd_target_show(struct cli *cli);
int cmd_target_test(struct cli *cli);
int cmd_target_rdpfile(struct cli *cli);
int cmd_target_set(struct cli *cli);
int cmd_target_rm(struct cli *cli);
int cmd_grant_add(struct cli *cli);
int cmd_grant_ls(struct cli *cli);
int cmd_grant_rm(struct cli *cli);
int cmd_event_tail(struct cli *cli);
int cmd_apply(struct cli *cli);
int cmd_dump(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_reload(struct cli *cli);
int cmd_drain(struct cli *cli);
int cmd_undrain(struct cli *cli);
int cmd_shutdown(struct cli *cli);
int cmd_backup(struct cli *cli);
int cmd_store_rotate_key(struct cli *cli);
int cmd_self_targets(struct cli *cli);
int cmd_self_config(struct cli *cli);
int cmd_self_passwd(struct cli *cli);
int cmd_self_key_add(struct cli *cli);
int cmd_self_key_ls(struct cli *cli);
int cmd_self_key_rm(struct cli *cli);
int cmd_self_help(struct cli *cli);
int cmd_help(struct cli *cli);

#endif
