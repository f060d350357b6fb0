/*
 * The command table: everything that can be said on control.sock, one row a command, and the rows
 * of their arguments. `help` prints it, request.c looks into it, PROTOCOL.md describes it. The
 * handlers are in the cmd_*.c files.
 */
#include "control/control_priv.h"

#include <string.h>

#include <sallyport/text.h>

#include "control/keys.h"

#define WEEK_S (7 * 86400)
/* One line a form, whatever the formatter thinks. */
/* clang-format off */
#define END                                  {NULL, ARG_BOOL, false, false, 0, 0, NULL, NULL}
#define ARG(name, kind, help)                {name, kind, false, false, 0, 0, NULL, help}
#define NEED(name, kind, help)               {name, kind, true, false, 0, 0, NULL, help}
#define ARG_RANGE(name, kind, lo, hi, help)  {name, kind, false, false, lo, hi, NULL, help}
#define NEED_RANGE(name, kind, lo, hi, help) {name, kind, true, false, lo, hi, NULL, help}
#define ARG_ONE_OF(name, choices, help)      {name, ARG_CHOICE, false, false, 0, 0, choices, help}
#define NEED_ONE_OF(name, choices, help)     {name, ARG_CHOICE, true, false, 0, 0, choices, help}
#define ROW(words, access, name, args, help) {words, access, control_do_##name, args, help}
/* clang-format on */

#define STATUSES "connecting|active|idle|disconnected"
#define AUTHS \
    "none|password|key|passthrough|agent|prompt" /* in the order of enum link_target_auth */

static const struct argument args_none[] = {END};

static const struct argument args_name[] = {
    NEED("name", ARG_NAME, "its name"),
    END,
};

static const struct argument args_apply[] = {
    NEED("document", ARG_OBJECT, "the document: roles, users, targets, grants"),
    ARG("dry_run", ARG_BOOL, "say what would change, change nothing"),
    ARG("prune", ARG_BOOL, "remove what the document does not list"),
    END,
};

static const struct argument args_backup[] = {
    ARG_RANGE("path", ARG_TEXT, 1, 4095, "where the daemon writes it; default: into the reply"),
    END,
};

static const struct argument args_event_tail[] = {
    ARG("since", ARG_TIME, "only events since then"),
    ARG("user", ARG_NAME, "only events about this user"),
    ARG_RANGE("kind", ARG_TEXT, 1, 31, "only events of this kind"),
    ARG("session", ARG_ID, "only events of this session"),
    ARG_RANGE("limit", ARG_NUMBER, 1, 10000, "at most so many, the newest"),
    ARG("follow", ARG_BOOL, "go on with events as they come"),
    END,
};

static const struct argument args_grant_add[] = {
    NEED("subject", ARG_SUBJECT, "a user, or @ and a role"),
    NEED("target", ARG_NAME_OR_ANY, "a target, or * for all"),
    ARG("account", ARG_ACCOUNT, "the account there, * for any; default: the target's"),
    ARG("policy", ARG_POLICY, "policy keys for these sessions"),
    END,
};

static const struct argument args_grant_ls[] = {
    ARG("subject", ARG_SUBJECT, "only grants of this user or @role"),
    ARG("target", ARG_NAME_OR_ANY, "only grants to this target"),
    END,
};

static const struct argument args_grant_rm[] = {
    NEED("id", ARG_ID, "the grant's id, see grant ls"),
    END,
};

static const struct argument args_help[] = {
    ARG_RANGE("command", ARG_TEXT, 1, 64, "only this command, or those that begin so"),
    END,
};

static const struct argument args_recording_ls[] = {
    ARG("id", ARG_ID, "only recordings of this session"),
    ARG_RANGE("limit", ARG_NUMBER, 1, 100000, "at most so many, the newest"),
    END,
};

static const struct argument args_recording_read[] = {
    NEED("id", ARG_ID, "the session"),
    ARG_RANGE("channel", ARG_NUMBER, 1, UINT32_MAX, "which of its recordings; default: the first"),
    END,
};

static const struct argument args_role_set[] = {
    NEED("name", ARG_NAME, "the role's name"),
    ARG("policy", ARG_POLICY, "policy keys for its users"),
    ARG_ONE_OF("second_factor", "no|totp", "must its users have one"),
    END,
};

static const struct argument args_self_key_add[] = {
    NEED_RANGE("key", ARG_SECRET, 1, KEY_LINE_MAX, "a line of a .pub file"),
    END,
};

static const struct argument args_self_key_rm[] = {
    NEED_RANGE("key", ARG_TEXT, 1, 100, "the key's id or fingerprint"),
    END,
};

static const struct argument args_self_passwd[] = {
    NEED_RANGE("old", ARG_SECRET, 1, 1024, "the password as it is"),
    NEED_RANGE("password", ARG_SECRET, 1, 1024, "the new password"),
    END,
};

static const struct argument args_session_end[] = {
    ARG("ids", ARG_IDS, "these sessions"),
    ARG("user", ARG_NAME, "all sessions of this user"),
    ARG("target", ARG_NAME, "all sessions at this target"),
    ARG("all", ARG_BOOL, "all sessions"),
    ARG_RANGE("reason", ARG_TEXT, 0, 200, "told to the user"),
    ARG_RANGE("in", ARG_DURATION, 0, WEEK_S, "end them so much later; users are told now"),
    ARG("cancel", ARG_BOOL, "an end that was announced with `in` will not be"),
    ARG("dry_run", ARG_BOOL, "say which, end none"),
    END,
};

static const struct argument args_session_ls[] = {
    ARG("all", ARG_BOOL, "ended sessions too, newest first"),
    ARG("user", ARG_NAME, "of this user"),
    ARG("target", ARG_NAME, "at this target"),
    ARG("account", ARG_ACCOUNT, "as this account"),
    ARG_ONE_OF("type", "ssh|rdp|web", "of this protocol"),
    ARG_ONE_OF("status", STATUSES, "in this state"),
    ARG("since", ARG_TIME, "begun since then"),
    ARG("until", ARG_TIME, "begun before then"),
    ARG_RANGE("search", ARG_TEXT, 0, 128, "with this text anywhere"),
    ARG("flagged", ARG_BOOL, "with an open flag"),
    ARG_RANGE("sort", ARG_TEXT, 1, 32, "by this field; - before it reverses"),
    ARG_RANGE("limit", ARG_NUMBER, 1, 100000, "at most so many"),
    ARG("watch", ARG_BOOL, "go on with changes as they come"),
    END,
};

static const struct argument args_session_message[] = {
    ARG("ids", ARG_IDS, "these sessions"),
    ARG("all", ARG_BOOL, "all sessions"),
    NEED_RANGE("text", ARG_TEXT, 1, 512, "what to tell"),
    END,
};

static const struct argument args_session_watch[] = {
    NEED("id", ARG_ID, "the session's id"),
    ARG_RANGE("channel", ARG_NUMBER, 1, UINT32_MAX, "its channel; default: the newest terminal"),
    ARG("descriptor", ARG_BOOL, "the client takes a descriptor beside the reply"),
    END,
};

static const struct argument args_session_show[] = {
    NEED("id", ARG_ID, "the session's id"),
    END,
};

static const struct argument args_shutdown[] = {
    ARG_RANGE("in", ARG_DURATION, 0, WEEK_S, "end sessions so much later; users are told now"),
    END,
};

#define TARGET_ARGS                                                                             \
    ARG("account", ARG_ACCOUNT, "the account there; default: the user's own name"),             \
        ARG_ONE_OF("auth", AUTHS, "how to log in there"),                                       \
        ARG_RANGE("secret", ARG_SECRET, 0, SECRET_MAX, "the password or the private key"),      \
        ARG_RANGE("certificate", ARG_TEXT, 0, KEY_LINE_MAX, "of the key; \"\" for none"),       \
        ARG_RANGE("via", ARG_TEXT, 0, NAME_MAX_LEN, "the target to go through; \"\" for none"), \
        ARG_RANGE("host_key", ARG_TEXT, 0, KEY_LINE_MAX, "its host key, \"TYPE BASE64\""),      \
        ARG("accept_new", ARG_BOOL, "pin the host key that it shows first"),                    \
        ARG("policy", ARG_POLICY, "policy keys for sessions there")

static const struct argument args_target_add[] = {
    NEED("name", ARG_NAME, "the target's name"),
    NEED_ONE_OF("type", "ssh|rdp", "its protocol"),
    NEED_RANGE("address", ARG_TEXT, 1, 299, "HOST:PORT"),
    TARGET_ARGS,
    END,
};

static const struct argument args_target_host_key[] = {
    ARG("name", ARG_NAME, "the target; or, for one that is not there yet:"),
    ARG_RANGE("address", ARG_TEXT, 1, 299, "HOST:PORT"),
    ARG_RANGE("via", ARG_TEXT, 0, NAME_MAX_LEN, "the target to go through"),
    ARG_ONE_OF("type", "ssh|rdp", "its protocol, when it is not there yet; ssh without"),
    END,
};

static const struct argument args_target_ls[] = {
    ARG_ONE_OF("type", "ssh|rdp", "of this protocol"),
    END,
};

static const struct argument args_target_set[] = {
    NEED("name", ARG_NAME, "the target's name"),
    ARG_ONE_OF("type", "ssh|rdp", "its protocol"),
    ARG_RANGE("address", ARG_TEXT, 1, 299, "HOST:PORT"),
    TARGET_ARGS,
    END,
};

static const struct argument args_target_test[] = {
    NEED("name", ARG_NAME, "the target's name"),
    ARG("account", ARG_ACCOUNT, "log in as this account; default: the target's"),
    END,
};

static const struct argument args_source_ls[] = {
    ARG("all", ARG_BOOL, "those that are not blocked too"),
    END,
};

static const struct argument args_source_unblock[] = {
    ARG_RANGE("address", ARG_TEXT, 2, 63, "this address (IPv6: its /64)"),
    ARG("all", ARG_BOOL, "all of them"),
    END,
};

/* Of one's own: a code of the second factor that is there. */
static const struct argument args_self_totp[] = {
    ARG_RANGE("code", ARG_SECRET, 1, 64, "a code of the present one, or a recovery code"),
    END,
};

static const struct argument args_self_totp_confirm[] = {
    NEED_RANGE("code", ARG_SECRET, 1, 64, "the first code of the new one"),
    END,
};

static const struct argument args_user_totp_confirm[] = {
    NEED("name", ARG_NAME, "the user's name"),
    NEED_RANGE("code", ARG_SECRET, 1, 64, "the first code of the new one"),
    END,
};

#define LOGIN_ARGS                                                                          \
    ARG_ONE_OF("second_factor", "role|no|totp", "must one be had; role: as the role says"), \
        ARG_ONE_OF("auth_source", "local|pam", "who checks the password"),                  \
        ARG_ONE_OF("rdp_nla", "off|on", "NLA at the RDP door, for which a hash is kept"),   \
        ARG_RANGE("cert_principals", ARG_TEXT, 0, STORE_PRINCIPALS_MAX - 1,                 \
                  "principals of certificates, with commas; \"\": the name")

static const struct argument args_user_add[] = {
    NEED("name", ARG_NAME, "the user's name"),
    ARG("role", ARG_NAME, "admin, user, auditor or another role"),
    ARG_RANGE("password", ARG_SECRET, 1, 1024, "the password"),
    ARG_RANGE("password_hash", ARG_TEXT, 1, STORE_HASH_MAX - 1, "a crypt(5) hash of it"),
    {"local_uid", ARG_NUMBER, false, true, 0, UINT32_MAX - 1, NULL,
     "the local account that is this user on the control socket; null for none"},
    ARG("locked", ARG_BOOL, "may not log in"),
    LOGIN_ARGS,
    END,
};

static const struct argument args_user_key_add[] = {
    NEED("name", ARG_NAME, "the user's name"),
    NEED_RANGE("key", ARG_SECRET, 1, KEY_LINE_MAX, "a line of a .pub file"),
    END,
};

static const struct argument args_user_key_rm[] = {
    NEED("name", ARG_NAME, "the user's name"),
    NEED_RANGE("key", ARG_TEXT, 1, 100, "the key's id or fingerprint"),
    END,
};

static const struct argument args_user_passwd[] = {
    NEED("name", ARG_NAME, "the user's name"),
    ARG_RANGE("password", ARG_SECRET, 1, 1024, "the new password"),
    ARG_RANGE("password_hash", ARG_TEXT, 1, STORE_HASH_MAX - 1, "a crypt(5) hash of it"),
    ARG("remove", ARG_BOOL, "no password any more"),
    END,
};

static const struct argument args_user_set[] = {
    NEED("name", ARG_NAME, "the user's name"),
    ARG("role", ARG_NAME, "admin, user, auditor or another role"),
    {"local_uid", ARG_NUMBER, false, true, 0, UINT32_MAX - 1, NULL,
     "the local account that is this user on the control socket; null for none"},
    ARG("locked", ARG_BOOL, "may not log in"),
    LOGIN_ARGS,
    ARG_RANGE("password", ARG_SECRET, 1, 1024, "the one that there is, with rdp_nla on"),
    END,
};

static const struct command commands[] = {
    /* keep alphabetized: help prints in this order */
    ROW("apply", ACCESS_ADMIN, apply, args_apply, "Make the store as a document says."),
    ROW("backup", ACCESS_ADMIN, backup, args_backup, "Copy the store while running."),
    ROW("drain", ACCESS_ADMIN, drain, args_none, "Take no new connections."),
    ROW("dump", ACCESS_AUDIT, dump, args_none, "Roles, users, targets and grants, no secrets."),
    ROW("event tail", ACCESS_AUDIT, event_tail, args_event_tail, "The audit log."),
    ROW("grant add", ACCESS_ADMIN, grant_add, args_grant_add, "Let a user or role reach a target."),
    ROW("grant ls", ACCESS_AUDIT, grant_ls, args_grant_ls, "List grants."),
    ROW("grant rm", ACCESS_ADMIN, grant_rm, args_grant_rm, "Withdraw a grant."),
    ROW("help", ACCESS_ANY, help, args_help, "List the commands you may run."),
    ROW("ping", ACCESS_ANY, ping, args_none, "Is anybody there?"),
    ROW("recording ls", ACCESS_AUDIT, recording_ls, args_recording_ls, "List recordings."),
    ROW("recording read", ACCESS_ADMIN, recording_read, args_recording_read,
        "The bytes of a recording."),
    ROW("reload", ACCESS_ADMIN, reload, args_none, "Read the configuration again."),
    ROW("role add", ACCESS_ADMIN, role_add, args_role_set, "Add a role."),
    ROW("role ls", ACCESS_AUDIT, role_ls, args_none, "List roles."),
    ROW("role rm", ACCESS_ADMIN, role_rm, args_name, "Remove a role that nobody has."),
    ROW("role set", ACCESS_ADMIN, role_set, args_role_set, "Change a role's policy."),
    ROW("role show", ACCESS_AUDIT, role_show, args_name, "Show a role."),
    ROW("self config", ACCESS_SELF, self_config, args_none, "What an ssh_config of yours needs."),
    ROW("self key add", ACCESS_SELF, self_key_add, args_self_key_add, "Add a public key of yours."),
    ROW("self key ls", ACCESS_SELF, self_key_ls, args_none, "List your public keys."),
    ROW("self key rm", ACCESS_SELF, self_key_rm, args_self_key_rm, "Remove a key of yours."),
    ROW("self passwd", ACCESS_SELF, self_passwd, args_self_passwd, "Change your password."),
    ROW("self targets", ACCESS_SELF, self_targets, args_none, "List what you may reach."),
    ROW("self totp confirm", ACCESS_SELF, user_totp_confirm, args_self_totp_confirm,
        "Confirm your new second factor."),
    ROW("self totp disable", ACCESS_SELF, user_totp_disable, args_self_totp,
        "Take your second factor away."),
    ROW("self totp enable", ACCESS_SELF, user_totp_enable, args_self_totp,
        "Begin a second factor of yours."),
    ROW("self totp recovery", ACCESS_SELF, user_totp_recovery, args_self_totp,
        "New recovery codes for you."),
    ROW("self totp show", ACCESS_SELF, user_totp_show, args_none, "Say whether you have one."),
    ROW("session end", ACCESS_SELF, session_end, args_session_end, "End sessions with a notice."),
    ROW("session join", ACCESS_ADMIN, session_join, args_session_watch,
        "Watch a terminal of a live session, and type in it."),
    ROW("session ls", ACCESS_SELF, session_ls, args_session_ls, "List sessions."),
    ROW("session message", ACCESS_ADMIN, session_message, args_session_message,
        "Show a text in sessions."),
    ROW("session show", ACCESS_SELF, session_show, args_session_show, "Show one session."),
    ROW("session stats", ACCESS_SELF, session_stats, args_none, "Count sessions."),
    ROW("session watch", ACCESS_AUDIT, session_watch, args_session_watch,
        "Watch a terminal of a live session."),
    ROW("shutdown", ACCESS_ADMIN, shutdown, args_shutdown, "End all sessions, then stop."),
    ROW("source ls", ACCESS_AUDIT, source_ls, args_source_ls,
        "List addresses that failed logins block."),
    ROW("source unblock", ACCESS_ADMIN, source_unblock, args_source_unblock,
        "Let an address try again."),
    ROW("status", ACCESS_AUDIT, status, args_none, "The daemon's state."),
    ROW("store rotate-key", ACCESS_ADMIN, store_rotate_key, args_none,
        "Encrypt all secrets under a new key."),
    ROW("target add", ACCESS_ADMIN, target_add, args_target_add, "Add a target."),
    ROW("target host-key", ACCESS_ADMIN, target_host_key, args_target_host_key,
        "Ask a server for its host key, or its certificate's."),
    ROW("target ls", ACCESS_AUDIT, target_ls, args_target_ls, "List targets."),
    ROW("target rm", ACCESS_ADMIN, target_rm, args_name, "Remove a target and its grants."),
    ROW("target set", ACCESS_ADMIN, target_set, args_target_set, "Change a target."),
    ROW("target show", ACCESS_AUDIT, target_show, args_name, "Show a target."),
    ROW("target test", ACCESS_ADMIN, target_test, args_target_test,
        "Log in at a target, step by step."),
    ROW("undrain", ACCESS_ADMIN, undrain, args_none, "Take new connections again."),
    ROW("user add", ACCESS_ADMIN, user_add, args_user_add, "Add a user."),
    ROW("user key add", ACCESS_ADMIN, user_key_add, args_user_key_add, "Add a public key."),
    ROW("user key ls", ACCESS_AUDIT, user_key_ls, args_name, "List a user's public keys."),
    ROW("user key rm", ACCESS_ADMIN, user_key_rm, args_user_key_rm, "Remove a public key."),
    ROW("user lock", ACCESS_ADMIN, user_lock, args_name, "Let a user log in no more."),
    ROW("user ls", ACCESS_AUDIT, user_ls, args_none, "List users."),
    ROW("user passwd", ACCESS_ADMIN, user_passwd, args_user_passwd, "Change a password."),
    ROW("user rm", ACCESS_ADMIN, user_rm, args_name, "Remove a user, his keys and grants."),
    ROW("user set", ACCESS_ADMIN, user_set, args_user_set, "Change a user."),
    ROW("user show", ACCESS_AUDIT, user_show, args_name, "Show a user."),
    ROW("user totp confirm", ACCESS_ADMIN, user_totp_confirm, args_user_totp_confirm,
        "Confirm a user's new second factor."),
    ROW("user totp disable", ACCESS_ADMIN, user_totp_disable, args_name,
        "Take a user's second factor away."),
    ROW("user totp enable", ACCESS_ADMIN, user_totp_enable, args_name,
        "Begin a second factor for a user."),
    ROW("user totp recovery", ACCESS_ADMIN, user_totp_recovery, args_name,
        "New recovery codes for a user."),
    ROW("user totp show", ACCESS_AUDIT, user_totp_show, args_name, "Say whether a user has one."),
    ROW("user unlock", ACCESS_ADMIN, user_unlock, args_name, "Let a user log in again."),
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

const struct command *control_command_table(size_t *count)
{
    *count = COMMAND_COUNT;
    return commands;
}

const struct command *control_command_find(const char *words)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (!strcmp(commands[i].words, words))
            return &commands[i];
    }
    return NULL;
}

const struct command *control_command_nearest(const char *words)
{
    const char *names[COMMAND_COUNT], *nearest;

    for (size_t i = 0; i < COMMAND_COUNT; i++)
        names[i] = commands[i].words;
    nearest = text_nearest(words, names, COMMAND_COUNT);
    return nearest ? control_command_find(nearest) : NULL;
}

static json_t *argument_json(const struct argument *a)
{
    return json_pack("{s:s, s:s, s:b, s:s?, s:s}", "name", a->name, "kind", arg_kind_name(a->kind),
                     "required", (int)a->is_required, "choices", a->choices, "help", a->help);
}

static json_t *command_json(const struct command *command)
{
    json_t *args = json_array();

    for (const struct argument *a = command->args; a->name; a++)
        json_array_append_new(args, argument_json(a));
    return json_pack("{s:s, s:s, s:s, s:o}", "command", command->words, "access",
                     control_access_name(command->access), "help", command->help, "args", args);
}

void control_do_help(struct request *r)
{
    const char *only = args_text(&r->parsed.args, "command");
    json_t *rows = json_array();

    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (commands[i].access <= r->caller.access &&
            (!only || !strncmp(commands[i].words, only, strlen(only))))
            json_array_append_new(rows, command_json(&commands[i]));
    }
    control_reply_rows(r, rows);
}
