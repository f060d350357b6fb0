/*
 * The one table of what sallyctl can do. Parsing, help, completion and the check against the man
 * page read it; nothing about a command is written twice.
 */
#include <stddef.h>
#include <stdint.h>

#include <sallyport/policy.h>

#include "control/cli/cli.h"

#define MANY UINT32_MAX
#define END                                   \
    {                                         \
        NULL, 0, VALUE_NONE, NULL, NULL, NULL \
    }

static const struct cli_option common_options[] = {
    {"output", 'o', VALUE_CHOICE, "FORMAT", "table|wide|json|jsonl|csv",
     "How to print: table (the default), wide (more columns), json, jsonl (one object a line) or "
     "csv."},
    {"socket", 0, VALUE_TEXT, "PATH", "@files",
     "The daemon's socket; SALLYPORT_SOCKET names it too. Default: /run/sallyport/control.sock."},
    {"help", 'h', VALUE_NONE, NULL, NULL, "Show this help."},
    {"version", 'V', VALUE_NONE, NULL, NULL, "Show the version."},
    END,
};

static const struct cli_option list_options[] = {
    {"quiet", 'q', VALUE_NONE, NULL, NULL, "Print only the ids or names, one a line."},
    {"sort", 0, VALUE_TEXT, "COLUMN", "@columns",
     "Sort by a column; a dash in front of its name reverses, as in --sort=-in."},
    {"limit", 0, VALUE_COUNT, "N", NULL, "Print at most N rows."},
    END,
};

static const struct cli_option yes_options[] = {
    {"yes", 'y', VALUE_NONE, NULL, NULL, "Do not ask."},
    END,
};

static const struct cli_option session_ls_options[] = {
    {"all", 'a', VALUE_NONE, NULL, NULL, "Ended sessions too (history), newest first."},
    {"user", 'u', VALUE_TEXT, "USER", "@users", "Sessions of this user."},
    {"target", 't', VALUE_TEXT, "TARGET", "@targets", "Sessions at this target."},
    {"account", 0, VALUE_TEXT, "ACCOUNT", NULL, "Sessions with this account on the target."},
    {"type", 0, VALUE_CHOICE, "TYPE", "ssh|rdp|web", "Sessions of this protocol."},
    {"status", 0, VALUE_CHOICE, "STATUS", "connecting|active|idle|disconnected",
     "Sessions in this state; disconnected looks into the history."},
    {"since", 0, VALUE_TIME, "TIME", NULL,
     "Begun at or after a local time (\"2026-11-22 10:00\") or an age (2h)."},
    {"until", 0, VALUE_TIME, "TIME", NULL, "Begun before a local time or an age."},
    {"search", 's', VALUE_TEXT, "TEXT", NULL, "Text in any of the fields, case ignored."},
    {"flagged", 0, VALUE_NONE, NULL, NULL, "Only sessions that carry a flag."},
    {"watch", 'w', VALUE_NONE, NULL, NULL,
     "Redraw as things change; with -o jsonl print one event a line."},
    END,
};

static const struct cli_option session_end_options[] = {
    {"user", 'u', VALUE_TEXT, "USER", "@users", "All sessions of this user."},
    {"target", 't', VALUE_TEXT, "TARGET", "@targets", "All sessions at this target."},
    {"all", 'a', VALUE_NONE, NULL, NULL, "All sessions."},
    {"reason", 'r', VALUE_TEXT, "TEXT", NULL, "What the users are told, and the history."},
    {"in", 0, VALUE_DURATION, "DURATION", NULL, "End them later, with a warning now."},
    {"cancel", 0, VALUE_NONE, NULL, NULL, "Take back ends that were announced with --in."},
    {"dry-run", 'n', VALUE_NONE, NULL, NULL, "Only show what would end."},
    END,
};

static const struct cli_option session_message_options[] = {
    {"all", 'a', VALUE_NONE, NULL, NULL, "To all sessions."},
    END,
};

static const struct cli_option session_top_options[] = {
    {"user", 'u', VALUE_TEXT, "USER", "@users", "Sessions of this user."},
    {"target", 't', VALUE_TEXT, "TARGET", "@targets", "Sessions at this target."},
    {"type", 0, VALUE_CHOICE, "TYPE", "ssh|rdp|web", "Sessions of this protocol."},
    {"search", 's', VALUE_TEXT, "TEXT", NULL, "Begin with this filter."},
    {"sort", 0, VALUE_TEXT, "COLUMN", "@columns", "Begin sorted by this column."},
    END,
};

static const struct cli_option recording_ls_options[] = {
    {"session", 0, VALUE_TEXT, "ID", "@sessions", "Recordings of one session."},
    END,
};

static const struct cli_option recording_play_options[] = {
    {"speed", 0, VALUE_TEXT, "FACTOR", NULL, "Play faster or slower: 2, 0.5. Default: 1."},
    {"idle-limit", 0, VALUE_TEXT, "SECONDS", NULL,
     "Shorten pauses to this long; 0 keeps them. Default: 2s."},
    {"at", 0, VALUE_TEXT, "POSITION", NULL, "Begin at SS, MM:SS or HH:MM:SS."},
    {"raw", 0, VALUE_NONE, NULL, NULL,
     "Write the recorded bytes as they are, at once, unfiltered; not onto a terminal."},
    {"port", 0, VALUE_COUNT, "PORT", NULL,
     "Serve a desktop on this loopback port. Default: one that is free."},
    {"no-viewer", 0, VALUE_NONE, NULL, NULL,
     "Of a desktop: start no xfreerdp, but wait for a client."},
    END,
};

static const struct cli_option recording_verify_options[] = {
    {"all", 0, VALUE_NONE, NULL, NULL, "Every recording there is."},
    END,
};

static const struct cli_option recording_export_options[] = {
    {"at", 0, VALUE_TEXT, "POSITION", NULL,
     "Begin at SS, MM:SS or HH:MM:SS; of a picture: the moment. Default: its end."},
    {"from", 0, VALUE_TEXT, "POSITION", NULL, "Of a video: begin there."},
    {"until", 0, VALUE_TEXT, "POSITION", NULL, "Of a video: end there."},
    {"idle-limit", 0, VALUE_TEXT, "SECONDS", NULL,
     "Of a video: shorten pauses to this long. Default: pauses stay."},
    {"exact", 0, VALUE_NONE, NULL, NULL,
     "Of a picture: that very moment, not one up to 2s earlier that is at hand."},
    {"thumbnail", 0, VALUE_NONE, NULL, NULL,
     "A small picture, of what stood on the desktop for longest."},
    {"force", 0, VALUE_NONE, NULL, NULL, "Overwrite FILE."},
    END,
};

#define LOGIN_OPTIONS                                                                            \
    {"second-factor",                                                                            \
     0,                                                                                          \
     VALUE_CHOICE,                                                                               \
     "HOW",                                                                                      \
     "role|no|totp",                                                                             \
     "Must there be one: totp enrols at the next login. Default: as the role says."},            \
        {"auth-source", 0,                                                                       \
         VALUE_CHOICE,  "WHO",                                                                   \
         "local|pam",   "Who checks the password: Sallyport, or the PAM service of [ssh] pam."}, \
        {"rdp-nla",    0,                                                                        \
         VALUE_CHOICE, "WHAT",                                                                   \
         "off|on",     "NLA at the RDP door. On keeps the NT hash of the password, encrypted."}, \
    {                                                                                            \
        "cert-principals", 0, VALUE_TEXT, "LIST", NULL,                                          \
            "Principals of certificates that may log in, with commas; \"\": the name."           \
    }

static const struct cli_option role_options[] = {
    {"second-factor", 0, VALUE_CHOICE, "HOW", "no|totp", "Must its users have one."},
    END,
};

static const struct cli_option self_totp_options[] = {
    {"code", 0, VALUE_TEXT, "CODE", NULL,
     "A code of the present second factor, or a recovery code; asked for without it."},
    END,
};

static const struct cli_option source_ls_options[] = {
    {"all", 'a', VALUE_NONE, NULL, NULL, "Those that failed and are not blocked too."},
    END,
};

static const struct cli_option source_unblock_options[] = {
    {"all", 'a', VALUE_NONE, NULL, NULL, "All of them."},
    END,
};

static const struct cli_option user_add_options[] = {
    {"role", 0, VALUE_TEXT, "ROLE", "@roles", "admin, user, auditor or a role of yours."},
    {"password-stdin", 0, VALUE_NONE, NULL, NULL, "Read the password, one line, from stdin."},
    {"no-password", 0, VALUE_NONE, NULL, NULL, "Do not ask for one: logs in by key only."},
    {"local-uid", 0, VALUE_TEXT, "UID", NULL,
     "Link a local account: it may use sallyctl as this user."},
    {"locked", 0, VALUE_NONE, NULL, NULL, "Locked from the start."},
    LOGIN_OPTIONS,
    END,
};

static const struct cli_option user_set_options[] = {
    {"role", 0, VALUE_TEXT, "ROLE", "@roles", "admin, user, auditor or a role of yours."},
    {"local-uid", 0, VALUE_TEXT, "UID|none", NULL, "Link a local account, or none."},
    LOGIN_OPTIONS,
    {"password-stdin", 0, VALUE_NONE, NULL, NULL,
     "With --rdp-nla on: the present password, one line, so that NLA is on at once."},
    END,
};

static const struct cli_option user_passwd_options[] = {
    {"password-stdin", 0, VALUE_NONE, NULL, NULL, "Read the password, one line, from stdin."},
    {"remove", 0, VALUE_NONE, NULL, NULL, "Take the password away."},
    END,
};

/* clang-format off */
#define TARGET_OPTIONS \
    {"address", 0, VALUE_TEXT, "HOST:PORT", NULL, \
     "Where it is; the port may be left out (22, 3389). IPv6 in brackets."}, \
    {"via", 0, VALUE_TEXT, "TARGET", "@targets", \
     "Go through this ssh target, as it is logged in to there. \"\" takes it away."}, \
    {"account", 0, VALUE_TEXT, "ACCOUNT", NULL, \
     "The login name there; without one the user's own name. \"\" takes it away."}, \
    {"auth", 0, VALUE_CHOICE, "HOW", "password|key|agent|passthrough|prompt|none", \
     "How to log in there: a stored password or key, the agent that the user forwards (ssh -A), the " \
     "password that the user typed, or (rdp) one that the user is asked for."}, \
    {"secret-stdin", 0, VALUE_NONE, NULL, NULL, "Read the password, one line, from stdin."}, \
    {"key-file", 0, VALUE_TEXT, "FILE", "@files", "Read the private key (PEM) from a file."}, \
    {"cert-file", 0, VALUE_TEXT, "FILE", "@files", \
     "Read the certificate of that key (key-cert.pub) from a file; a new key forgets the old one."}, \
    {"host-key", 0, VALUE_TEXT, "KEY|fetch|none", NULL, \
     "The server's public key, \"ssh-ed25519 AAAA...\"; a line of ssh-keyscan will do; of an rdp " \
     "target's certificate \"tls-spki AAAA...\". fetch asks the server and shows it; none forgets it."}, \
    {"host-key-fingerprint", 0, VALUE_TEXT, "SHA256:...", NULL, \
     "Ask the server for its key and take it if its fingerprint is this."}, \
    {"accept-new", 0, VALUE_NONE, NULL, NULL, \
     "Trust the key of the first connection and pin it."}
/* clang-format on */

static const struct cli_option target_add_options[] = {
    {"type", 0, VALUE_CHOICE, "TYPE", "ssh|rdp", "Its protocol. Default: ssh."},
    TARGET_OPTIONS,
    END,
};

static const struct cli_option target_set_options[] = {
    TARGET_OPTIONS,
    {"no-accept-new", 0, VALUE_NONE, NULL, NULL, "Trust pinned keys only."},
    {"no-secret", 0, VALUE_NONE, NULL, NULL, "Forget the stored password or key."},
    END,
};

static const struct cli_option self_config_options[] = {
    {"name", 0, VALUE_TEXT, "NAME", NULL,
     "What the targets' names end with there. Default: bastion, as in web01.bastion."},
    END,
};

static const struct cli_option target_test_options[] = {
    {"account", 0, VALUE_TEXT, "ACCOUNT", NULL, "Log in as this account. Default: the target's."},
    END,
};

static const struct cli_option target_rdpfile_options[] = {
    {"user", 'u', VALUE_TEXT, "USER", "@users", "Whose file it is. Needed."},
    {"address", 0, VALUE_TEXT, "HOST[:PORT]", NULL,
     "Where users reach this proxy. Default: this machine's name and the first RDP listener."},
    END,
};

static const struct cli_option target_ls_options[] = {
    {"type", 0, VALUE_CHOICE, "TYPE", "ssh|rdp", "Targets of this protocol."},
    END,
};

static const struct cli_option grant_add_options[] = {
    {"account", 0, VALUE_TEXT, "ACCOUNT", NULL,
     "As which account; '*' is any. Default: the target's."},
    END,
};

static const struct cli_option grant_ls_options[] = {
    {"subject", 0, VALUE_TEXT, "USER|@ROLE", "@subjects", "Grants of this user or role."},
    {"target", 't', VALUE_TEXT, "TARGET", "@targets", "Grants for this target."},
    END,
};

static const struct cli_option event_tail_options[] = {
    {"follow", 'f', VALUE_NONE, NULL, NULL, "Go on with new events as they come."},
    {"since", 0, VALUE_TIME, "TIME", NULL,
     "From a local time (\"2026-11-22 10:00\") or an age (2h) on."},
    {"limit", 0, VALUE_COUNT, "N", NULL, "The newest N. Default: 50."},
    {"user", 'u', VALUE_TEXT, "USER", "@users", "About this user."},
    {"kind", 0, VALUE_TEXT, "KIND", NULL, "Of this kind: login-failed, session-end, ..."},
    {"session", 0, VALUE_TEXT, "ID", "@sessions", "About this session."},
    END,
};

static const struct cli_option apply_options[] = {
    {"file", 'f', VALUE_TEXT, "FILE", "@files", "The file; - is stdin."},
    {"dry-run", 'n', VALUE_NONE, NULL, NULL, "Only show the difference."},
    {"prune", 0, VALUE_NONE, NULL, NULL,
     "Remove what the sections of the file do not list. Asks first."},
    END,
};

static const struct cli_option shutdown_options[] = {
    {"in", 0, VALUE_DURATION, "DURATION", NULL, "Warn now, end the sessions after this long."},
    END,
};

const struct cli_command cli_commands[] = {
    /* nouns together, in the order of the help */
    {"session ls", "ls", "", "", 0, 0, CLI_LIST, session_ls_options, cmd_session_ls,
     "List live sessions; --all adds the history."},
    {"session show", NULL, "ID", "@sessions", 1, 1, 0, NULL, cmd_session_show,
     "Show everything about one session."},
    {"session stats", NULL, "", "", 0, 0, 0, NULL, cmd_session_stats,
     "Count sessions, users and time."},
    {"session end", "end", "[ID...]", "@sessions", 0, MANY, CLI_YES, session_end_options,
     cmd_session_end, "End sessions, with a notice to their users."},
    {"session message", NULL, "ID... TEXT", "@sessions", 1, MANY, 0, session_message_options,
     cmd_session_message, "Show a text inside live sessions."},
    {"session watch", NULL, "ID[.CHANNEL]", "@sessions", 1, 1, 0, NULL, cmd_session_watch,
     "Look on in a live session: its terminal, as it is now; q leaves."},
    {"session join", NULL, "ID[.CHANNEL]", "@sessions", 1, 1, 0, NULL, cmd_session_join,
     "Look on in a live session, and type in it; Ctrl-] leaves."},
    {"session top", "top", "", "", 0, 0, 0, session_top_options, cmd_session_top,
     "A live table on the whole screen."},
    {"recording ls", NULL, "", "", 0, 0, CLI_LIST, recording_ls_options, cmd_recording_ls,
     "List recordings, newest first."},
    {"recording play", "play", "ID", "@recordings", 1, 1, 0, recording_play_options,
     cmd_recording_play,
     "Play a recording (42, or 42.2 for the second): a terminal's in the terminal, a desktop's for "
     "an RDP client."},
    {"recording verify", NULL, "[ID...]", "@recordings", 0, MANY, 0, recording_verify_options,
     cmd_recording_verify,
     "Prove that recordings are whole and unchanged: all of a session's, or --all."},
    {"recording export", NULL, "ID FILE", "@recordings @files", 2, 2, 0, recording_export_options,
     cmd_recording_export,
     "Write a recording: a terminal's as asciicast v2 (FILE - is stdout), a desktop's as .mp4 or "
     ".png."},
    {"user add", NULL, "NAME", "", 1, 1, 0, user_add_options, cmd_user_add,
     "Add a user; asks for the password on a terminal."},
    {"user ls", NULL, "", "", 0, 0, CLI_LIST, NULL, cmd_user_ls, "List users."},
    {"user show", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_user_show,
     "Show a user with his keys."},
    {"user set", NULL, "NAME", "@users", 1, 1, 0, user_set_options, cmd_user_set,
     "Change a user's role or local account."},
    {"user passwd", NULL, "NAME", "@users", 1, 1, 0, user_passwd_options, cmd_user_passwd,
     "Set a user's password; asks for it on a terminal."},
    {"user lock", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_user_lock,
     "Lock a user out; live sessions end."},
    {"user unlock", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_user_unlock, "Let a user in again."},
    {"user rm", NULL, "NAME", "@users", 1, 1, CLI_YES, NULL, cmd_user_rm,
     "Remove a user with his keys and grants."},
    {"user key add", NULL, "NAME [FILE|-|KEY]", "@users @files", 1, 2, 0, NULL, cmd_user_key_add,
     "Register a public key: a file (- or nothing: stdin), or the key itself in quotes."},
    {"user key ls", NULL, "NAME", "@users", 1, 1, CLI_LIST, NULL, cmd_user_key_ls,
     "List a user's keys."},
    {"user key rm", NULL, "NAME ID|FINGERPRINT", "@users @keys", 2, 2, 0, NULL, cmd_user_key_rm,
     "Remove one of a user's keys."},
    {"user totp enable", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_totp_enable,
     "Give a user a second factor: a picture for his app, then a code of it."},
    {"user totp confirm", NULL, "NAME CODE", "@users", 2, 2, 0, NULL, cmd_totp_confirm,
     "Confirm it later, with its first code; prints recovery codes."},
    {"user totp disable", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_totp_disable,
     "Take a user's second factor away."},
    {"user totp show", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_totp_show,
     "Say whether a user has a second factor, and must."},
    {"user totp recovery", NULL, "NAME", "@users", 1, 1, 0, NULL, cmd_totp_recovery,
     "Print new recovery codes for a user; the old ones are worth nothing then."},
    {"role add", NULL, "NAME [KEY=VALUE...]", "", 1, MANY, CLI_POLICY, role_options, cmd_role_add,
     "Add a role with a policy."},
    {"role ls", NULL, "", "", 0, 0, CLI_LIST, NULL, cmd_role_ls, "List roles."},
    {"role show", NULL, "NAME", "@roles", 1, 1, 0, NULL, cmd_role_show, "Show a role's policy."},
    {"role set", NULL, "NAME KEY=VALUE...", "@roles @policy", 1, MANY, CLI_POLICY, role_options,
     cmd_role_set, "Change a role's policy; an empty VALUE takes a key away."},
    {"role rm", NULL, "NAME", "@roles", 1, 1, CLI_YES, NULL, cmd_role_rm,
     "Remove a role that nobody has."},
    {"target add", NULL, "NAME [KEY=VALUE...]", "", 1, MANY, CLI_POLICY, target_add_options,
     cmd_target_add, "Add a target."},
    {"target ls", NULL, "", "", 0, 0, CLI_LIST, target_ls_options, cmd_target_ls, "List targets."},
    {"target show", NULL, "NAME", "@targets", 1, 1, 0, NULL, cmd_target_show, "Show a target."},
    {"target rdpfile", NULL, "NAME", "@targets", 1, 1, 0, target_rdpfile_options,
     cmd_target_rdpfile, "Print an .rdp file that connects a user to an RDP target."},
    {"target test", NULL, "NAME", "@targets", 1, 1, 0, target_test_options, cmd_target_test,
     "Connect and log in at a target, and show how each step went."},
    {"target set", NULL, "NAME [KEY=VALUE...]", "@targets @policy", 1, MANY, CLI_POLICY,
     target_set_options, cmd_target_set, "Change a target; an empty VALUE takes a key away."},
    {"target rm", NULL, "NAME", "@targets", 1, 1, CLI_YES, NULL, cmd_target_rm,
     "Remove a target with its grants."},
    {"grant add", NULL, "USER|@ROLE TARGET|'*' [KEY=VALUE...]", "@subjects @targets @policy", 2,
     MANY, CLI_POLICY, grant_add_options, cmd_grant_add,
     "Let a user or a role reach a target, or all of them."},
    {"grant ls", NULL, "", "", 0, 0, CLI_LIST, grant_ls_options, cmd_grant_ls, "List grants."},
    {"grant rm", NULL, "ID", "@grants", 1, 1, CLI_YES, NULL, cmd_grant_rm, "Withdraw a grant."},
    {"self targets", NULL, "", "", 0, 0, CLI_LIST, NULL, cmd_self_targets,
     "List what you may reach as the proxy user you are, last used first."},
    {"self config", NULL, "", "", 0, 0, 0, self_config_options, cmd_self_config,
     "Print an ssh_config for what you may reach."},
    {"self passwd", NULL, "", "", 0, 0, 0, NULL, cmd_self_passwd,
     "Change your own password; without a terminal old, new and new again are three lines of "
     "stdin."},
    {"self key add", NULL, "[FILE|-|KEY]", "@files", 0, 1, 0, NULL, cmd_self_key_add,
     "Register a public key of yours; a file, the key in quotes, or stdin."},
    {"self key ls", NULL, "", "", 0, 0, CLI_LIST, NULL, cmd_self_key_ls, "List your public keys."},
    {"self key rm", NULL, "ID|FINGERPRINT", "", 1, 1, 0, NULL, cmd_self_key_rm,
     "Remove one of your public keys."},
    {"self totp enable", NULL, "", "", 0, 0, 0, self_totp_options, cmd_totp_enable,
     "Give yourself a second factor: a picture for your app, then a code of it."},
    {"self totp confirm", NULL, "CODE", "", 1, 1, 0, NULL, cmd_totp_confirm,
     "Confirm it later, with its first code; prints recovery codes."},
    {"self totp disable", NULL, "", "", 0, 0, 0, self_totp_options, cmd_totp_disable,
     "Take your second factor away."},
    {"self totp show", NULL, "", "", 0, 0, 0, NULL, cmd_totp_show,
     "Say whether you have a second factor, and must."},
    {"self totp recovery", NULL, "", "", 0, 0, 0, self_totp_options, cmd_totp_recovery,
     "Print new recovery codes of yours; the old ones are worth nothing then."},
    {"self help", NULL, "[WORD...]", "", 0, 3, CLI_LOCAL | CLI_HIDDEN, NULL, cmd_self_help,
     "What `ssh USER@BASTION` takes."},
    {"source ls", NULL, "", "", 0, 0, CLI_LIST, source_ls_options, cmd_source_ls,
     "List addresses that are blocked after failed logins."},
    {"source unblock", NULL, "[ADDRESS]", "@sources", 0, 1, 0, source_unblock_options,
     cmd_source_unblock, "Let a blocked address try again at once."},
    {"event tail", NULL, "", "", 0, 0, 0, event_tail_options, cmd_event_tail,
     "Show the newest events: logins, refusals, sessions, changes."},
    {"apply", NULL, "", "", 0, 0, CLI_YES, apply_options, cmd_apply,
     "Make users, roles, targets and grants what a file says; prints the difference."},
    {"dump", NULL, "", "", 0, 0, 0, NULL, cmd_dump,
     "Print users, roles, targets and grants as a file for apply, without secrets."},
    {"status", NULL, "", "", 0, 0, 0, NULL, cmd_status, "Show how the daemon is."},
    {"reload", NULL, "", "", 0, 0, 0, NULL, cmd_reload, "Read the configuration again."},
    {"drain", NULL, "", "", 0, 0, 0, NULL, cmd_drain, "Take no new sessions; live ones go on."},
    {"undrain", NULL, "", "", 0, 0, 0, NULL, cmd_undrain, "Take new sessions again."},
    {"shutdown", NULL, "", "", 0, 0, CLI_YES, shutdown_options, cmd_shutdown,
     "End all sessions with a notice and stop the daemon."},
    {"backup", NULL, "FILE", "@files", 1, 1, 0, NULL, cmd_backup,
     "Copy the store, consistently, while it runs."},
    {"store rotate-key", NULL, "", "", 0, 0, CLI_YES, NULL, cmd_store_rotate_key,
     "Make a new master key and encrypt every secret under it again."},
    {"help", NULL, "[WORD...]", "", 0, 3, CLI_LOCAL, NULL, cmd_help, "Show help on a command."},
};
const size_t cli_command_count = sizeof(cli_commands) / sizeof(cli_commands[0]);

/* Long options of the policy keys, made at the first use: --idle-after for idle_after. */
#define POLICY_OPTIONS_MAX 32
static struct cli_option policy_options[POLICY_OPTIONS_MAX];
static char policy_names[POLICY_OPTIONS_MAX][32];

const struct cli_option *cli_policy_option(size_t key_index)
{
    struct cli_option *o;

    if (key_index >= policy_key_count || key_index >= POLICY_OPTIONS_MAX)
        return NULL;
    o = &policy_options[key_index];
    if (!o->name) {
        const struct policy_key *key = &policy_keys[key_index];
        char *name = policy_names[key_index];
        for (size_t i = 0; key->key[i] && i + 1 < sizeof(policy_names[0]); i++)
            name[i] = key->key[i];
        for (size_t i = 0; name[i]; i++)
            name[i] = name[i] == '_' ? '-' : name[i];
        *o = (struct cli_option){.name = name,
                                 .kind = VALUE_TEXT,
                                 .metavar = "VALUE",
                                 .choices = key->choices,
                                 .help = key->help};
    }
    return o;
}

static const struct cli_option *option_in(const struct cli_option *list, size_t *index)
{
    for (; list && list->name; list++) {
        if (*index == 0)
            return list;
        (*index)--;
    }
    return NULL;
}

const struct cli_option *cli_option_at(const struct cli_command *command, size_t index)
{
    const struct cli_option *o = NULL;
    unsigned flags = command ? command->flags : 0;

    if (command)
        o = option_in(command->options, &index);
    if (!o && (flags & CLI_YES))
        o = option_in(yes_options, &index);
    if (!o && (flags & CLI_LIST))
        o = option_in(list_options, &index);
    if (!o && (flags & CLI_POLICY)) {
        o = cli_policy_option(index);
        if (!o)
            index -= policy_key_count;
    }
    return o ? o : option_in(common_options, &index);
}
