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
/* clang-format off: one line a form */
#define END                                            \
    {                                                  \
        NULL, ARG_BOOL, false, false, 0, 0, NULL, NULL \
    }
#define ARG(name, kind, help)                      \
    {                                              \
        name, kind, false, false, 0, 0, NULL, help \
    }
#define NEED(name, kind, help)                    \
    {                                             \
        name, kind, true, false, 0, 0, NULL, help \
    }
#define ARG_RANGE(name, kind, lo, hi, help)          \
    {                                                \
        name, kind, false, false, lo, hi, NULL, help \
    }
#define NEED_RANGE(name, kind, lo, hi, help)        \
    {                                               \
        name, kind, true, false, lo, hi, NULL, help \
    }
#define ARG_ONE_OF(name, choices, help)                     \
    {                                                       \
        name, ARG_CHOICE, false, false, 0, 0, choices, help \
    }
#define NEED_ONE_OF(name, choices, help)                   \
    {                                                      \
        name, ARG_CHOICE, true, false, 0, 0, choices, help \
    }

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
    ROW("reload", ACCESS_ADMIN, reload, args_none, "Read the configuration again."),
    ROW("role add", ACCESS_ADMIN, role_add, args_role_set, "Add a role."),
    ROW("role ls", ACCESS_AUDIT, role_ls, args_none, "List roles."),
    ROW("role rm", ACCESS_ADMIN, role_rm, args_name, "Remove a role that nobody has."),
    ROW("role set", ACCESS_ADMIN, role_set, args_role_set, "Change a role's policy."),
    ROW("role show", ACCESS_AUDIT, role_show, args_name, "Show a role."),
    ROW("session end", ACCESS_SELF, session_end, args_session_end, "End sessions with a notice."),
    ROW("session ls", ACCESS_SELF, session_ls, args_session_ls, "List sessions."),
    ROW("session message", ACCESS_ADMIN, session_message, args_session_message,
        "Show a text in sessions."),
    ROW("session show", ACCESS_SELF, session_show, args_session_show, "Show one session."),
    ROW("session stats", ACCESS_SELF, session_stats, args_none, "Count sessions."),
    ROW("shutdown", ACCESS_ADMIN, shutdown, args_shutdown, "End all sessions, then stop."),
    ROW("status", ACCESS_AUDIT, status, args_none, "The daemon's state."),
    ROW("store rotate-key", ACCESS_ADMIN, store_rotate_key, args_none,
        "Encrypt all secrets under a new key."),
    ROW("target add", ACCESS_ADMIN, target_add, args_target_add, "Add a target."),
    ROW("target ls", ACCESS_AUDIT, target_ls, args_target_ls, "List targets."),
    ROW("target rm", ACCESS_ADMIN, target_rm, args_name, "Remove a target and its grants."),
    ROW("target set", ACCESS_ADMIN, target_set, args_target_set, "Change a target."),
    ROW("target show", ACCESS_AUDIT, target_show, args_name, "Show a target."),
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
