/* The tables of document.h. `has_password` and `has_secret` are what a dump says to its reader. */
#include "control/document.h"

#include "control/keys.h"
#include "tracker/store/store.h"

/* clang-format off */
#define END {NULL, ARG_BOOL, false, false, 0, 0, NULL, NULL}
/* clang-format on */

const char *const section_names[SECTION_COUNT] = {"roles", "users", "targets", "grants"};

static const struct argument role_rows[] = {
    {"name", ARG_NAME, true, false, 0, 0, NULL, "the role's name"},
    {"policy", ARG_POLICY, false, false, 0, 0, NULL, NULL},
    {"second_factor", ARG_CHOICE, false, false, 0, 0, "no|totp", NULL},
    END,
};

static const struct argument user_rows[] = {
    {"name", ARG_NAME, true, false, 0, 0, NULL, "the user's name"},
    {"role", ARG_NAME, false, false, 0, 0, NULL, NULL},
    {"locked", ARG_BOOL, false, false, 0, 0, NULL, NULL},
    {"local_uid", ARG_NUMBER, false, true, 0, UINT32_MAX - 1, NULL, NULL},
    {"password_hash", ARG_TEXT, false, false, 1, STORE_HASH_MAX - 1, NULL, NULL},
    {"has_password", ARG_BOOL, false, false, 0, 0, NULL, NULL},
    {"second_factor", ARG_CHOICE, false, false, 0, 0, "role|no|totp", NULL},
    {"auth_source", ARG_CHOICE, false, false, 0, 0, "local|pam", NULL},
    {"rdp_nla", ARG_CHOICE, false, false, 0, 0, "off|on", NULL},
    {"cert_principals", ARG_TEXT, false, false, 0, STORE_PRINCIPALS_MAX - 1, NULL, NULL},
    {"keys", ARG_TEXTS, false, false, 1, KEY_LINE_MAX, NULL, NULL},
    END,
};

static const struct argument target_rows[] = {
    {"name", ARG_NAME, true, false, 0, 0, NULL, "the target's name"},
    {"type", ARG_CHOICE, false, false, 0, 0, "ssh|rdp", NULL},
    {"address", ARG_TEXT, false, false, 1, 299, NULL, NULL},
    {"account", ARG_ACCOUNT, false, false, 0, 0, NULL, NULL},
    {"auth", ARG_CHOICE, false, false, 0, 0, "none|password|key|passthrough|agent|prompt", NULL},
    {"secret", ARG_SECRET, false, false, 0, SECRET_MAX, NULL, NULL},
    {"certificate", ARG_TEXT, false, false, 0, KEY_LINE_MAX, NULL, NULL},
    {"via", ARG_TEXT, false, false, 0, NAME_MAX_LEN, NULL, NULL},
    {"has_secret", ARG_BOOL, false, false, 0, 0, NULL, NULL},
    {"host_key", ARG_TEXT, false, false, 0, KEY_LINE_MAX, NULL, NULL},
    {"accept_new", ARG_BOOL, false, false, 0, 0, NULL, NULL},
    {"policy", ARG_POLICY, false, false, 0, 0, NULL, NULL},
    END,
};

static const struct argument grant_rows[] = {
    {"subject", ARG_SUBJECT, true, false, 0, 0, NULL, "a user, or @ and a role"},
    {"target", ARG_NAME_OR_ANY, true, false, 0, 0, NULL, "a target, or *"},
    {"account", ARG_ACCOUNT, false, false, 0, 0, NULL, NULL},
    {"policy", ARG_POLICY, false, false, 0, 0, NULL, NULL},
    END,
};

const struct argument *const section_rows[SECTION_COUNT] = {role_rows, user_rows, target_rows,
                                                            grant_rows};
