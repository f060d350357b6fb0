/*
 * Every SQL statement that the running store uses, one row each: id and text. store.c prepares all
 * of them once at start, so that a schema that does not fit fails there and not in the night. The
 * statements of start-up itself (looking, creating, migrating) are in schema.c. Included by
 * store_priv.h only.
 *
 * Parameters are numbered; a row's comment names them where the text does not.
 */
#ifndef STORE_STATEMENTS_H
#define STORE_STATEMENTS_H

/*
 * The columns of a session: parameter number, member of struct session_info (and column), kind.
 * Three lists by who writes them: at open, while live, at the end. The column at SELECT is the
 * parameter number - 1; the id is parameter SESSION_PARAM_ID.
 */
#define SESSION_OPEN_FIELDS(X) \
    X(1, protocol, PROTOCOL)   \
    X(2, user, TEXT)           \
    X(3, account, TEXT)        \
    X(4, target, TEXT)         \
    X(5, address, TEXT)        \
    X(6, client_address, TEXT) \
    X(7, client_port, INT)     \
    X(8, node, TEXT)           \
    X(9, started_wall_us, INT)
#define SESSION_LIVE_FIELDS(X)        \
    X(10, state, STATE)               \
    X(11, recording, RECORDING)       \
    X(12, device, TEXT)               \
    X(13, location, TEXT)             \
    X(14, channels, TEXT)             \
    X(15, last_activity_wall_us, INT) \
    X(16, duration_s, INT)            \
    X(17, idle_s, INT)                \
    X(18, bytes_in, INT)              \
    X(19, bytes_out, INT)             \
    X(20, is_warned, INT)             \
    X(21, relay_pid, INT)             \
    X(22, planned_wall_us, INT)       \
    X(23, planned_reason, REASON)     \
    X(24, planned_by, TEXT)           \
    X(25, planned_text, TEXT)
#define SESSION_END_FIELDS(X) \
    X(26, end_reason, REASON) \
    X(27, ended_by, TEXT)     \
    X(28, end_text, TEXT)     \
    X(29, ended_wall_us, INT)
#define SESSION_FIELDS(X) SESSION_OPEN_FIELDS(X) SESSION_LIVE_FIELDS(X) SESSION_END_FIELDS(X)

#define SESSION_PARAM_ID       30
#define SESSION_COL_ID         29
#define SESSION_COL_IS_OPEN    30
#define SESSION_COL_RECORDINGS 31

#define FIELD_NAME(n, member, kind)  #member ", "
#define FIELD_PARAM(n, member, kind) "?" #n ", "
#define FIELD_SET(n, member, kind)   #member " = ?" #n ", "

#define SESSION_SELECT                                                                            \
    "SELECT " SESSION_FIELDS(FIELD_NAME) "id, is_open, "                                          \
                                         "(SELECT count(*) FROM recordings r WHERE r.session_id " \
                                         "= s.id) FROM sessions s WHERE "
/* ?1 user, ?2 target, ?3 account, ?4 protocol, ?5 since, ?6 until, ?7 lower-case text, ?8 limit,
 * ?9 smaller ids only ("+": no index for it here, or it would win over the driving one) */
#define SESSION_FILTER                                                                       \
    "(?1 = '' OR user = ?1) AND (?2 = '' OR target = ?2) AND (?3 = '' OR account = ?3) "     \
    "AND (?4 = '' OR protocol = ?4) AND (?5 = 0 OR started_wall_us >= ?5) "                  \
    "AND (?6 = 0 OR started_wall_us < ?6) AND (?7 = '' OR instr(lower(user || char(10) || "  \
    "account || char(10) || target || char(10) || address || char(10) || client_address || " \
    "char(10) || device || char(10) || end_text), ?7) > 0) AND +id < ?9 "                    \
    "ORDER BY id DESC LIMIT ?8"

#define HAS_NT_HASH                                                                     \
    "EXISTS (SELECT 1 FROM secrets x WHERE x.table_name = 'users' AND x.column_name = " \
    "'nt_hash' AND x.row_id = u.id) "

#define USER_SELECT                                                                       \
    "SELECT u.id, u.name, u.role, u.is_locked, u.hash <> '', coalesce(u.local_uid, -1), " \
    "(SELECT count(*) FROM user_keys k WHERE k.user_id = u.id), u.created_wall_us, "      \
    "u.last_login_wall_us, u.second_factor, u.auth_source, u.cert_principals, "           \
    "u.totp_wall_us, (SELECT count(*) FROM recovery_codes c WHERE c.user_id = u.id), "    \
    "u.rdp_nla, " HAS_NT_HASH "FROM users u "

#define TARGET_SELECT                                                                    \
    "SELECT t.id, t.name, t.protocol, t.address, t.account, t.auth, "                    \
    "EXISTS (SELECT 1 FROM secrets x WHERE x.table_name = 'targets' "                    \
    "AND x.column_name = 'secret' AND x.row_id = t.id), t.accept_new, t.host_key_type, " \
    "t.host_key, t.host_key_fingerprint, t.policy, t.created_wall_us, t.via, "           \
    "t.certificate FROM targets t "

/* A user's own grant before a role's, a named target before "*", a named account before "*",
 * then the newest. */
#define GRANT_ORDER "g.user_id IS NULL, g.target_id IS NULL, g.account = '*', g.id DESC"

#define RECORDING_SELECT                                                                  \
    "SELECT session_id, channel, path, started_wall_us, frames, file_len, chain, state, " \
    "is_closed FROM recordings "

#define EVENT_SELECT \
    "SELECT id, at_wall_us, kind, user, source, session_id, text, detail FROM events "

#define STATEMENTS(X)                                                                              \
    /* transactions */                                                                             \
    X(SQL_BEGIN, "BEGIN IMMEDIATE")                                                                \
    X(SQL_COMMIT, "COMMIT")                                                                        \
    X(SQL_ROLLBACK, "ROLLBACK")                                                                    \
    /* roles */                                                                                    \
    X(SQL_ROLE_ADD, "INSERT INTO roles (name) VALUES (?1)")                                        \
    X(SQL_ROLE_GET, "SELECT name, policy, is_builtin, second_factor FROM roles WHERE name = ?1")   \
    X(SQL_ROLES, "SELECT name, policy, is_builtin, second_factor FROM roles ORDER BY name")        \
    X(SQL_ROLE_SET_POLICY, "UPDATE roles SET policy = ?2 WHERE name = ?1")                         \
    X(SQL_ROLE_SET_FACTOR, "UPDATE roles SET second_factor = ?2 WHERE name = ?1")                  \
    X(SQL_ROLE_REMOVE, "DELETE FROM roles WHERE name = ?1 AND is_builtin = 0")                     \
    /* users */                                                                                    \
    X(SQL_USER_ADD, "INSERT INTO users (name, role, created_wall_us) VALUES (?1, ?2, ?3)")         \
    X(SQL_USER_GET, USER_SELECT "WHERE u.name = ?1")                                               \
    X(SQL_USER_BY_UID, USER_SELECT "WHERE u.local_uid = ?1")                                       \
    X(SQL_USERS, USER_SELECT "ORDER BY u.name")                                                    \
    X(SQL_USER_REMOVE, "DELETE FROM users WHERE name = ?1")                                        \
    X(SQL_USER_SET_ROLE, "UPDATE users SET role = ?2 WHERE name = ?1")                             \
    X(SQL_USER_SET_LOCKED, "UPDATE users SET is_locked = ?2 WHERE name = ?1")                      \
    X(SQL_USER_SET_UID, "UPDATE users SET local_uid = ?2 WHERE name = ?1")                         \
    X(SQL_USER_SET_HASH, "UPDATE users SET hash = ?2 WHERE name = ?1")                             \
    X(SQL_USER_SET_FACTOR, "UPDATE users SET second_factor = ?2 WHERE name = ?1")                  \
    X(SQL_USER_SET_SOURCE, "UPDATE users SET auth_source = ?2 WHERE name = ?1")                    \
    X(SQL_USER_SET_PRINCIPALS, "UPDATE users SET cert_principals = ?2 WHERE name = ?1")            \
    X(SQL_USER_SET_NLA, "UPDATE users SET rdp_nla = ?2 WHERE name = ?1")                           \
    X(SQL_NLA_HINT, "SELECT count(*), coalesce(max(u.rdp_nla AND " HAS_NT_HASH "), 0) FROM users " \
                    "u WHERE u.name = ?1 OR (?2 AND substr(u.name, 1, length(?1)) = ?1)")          \
    X(SQL_USER_HASH, "SELECT hash FROM users WHERE name = ?1 AND hash <> ''")                      \
    X(SQL_USER_LOGGED_IN,                                                                          \
      "UPDATE users SET last_login_wall_us = ?2 WHERE name = ?1 AND last_login_wall_us < ?2")      \
    /* second factors */                                                                           \
    X(SQL_FACTOR_GET, "SELECT u.second_factor, r.second_factor, u.totp_wall_us FROM users u "      \
                      "JOIN roles r ON r.name = u.role WHERE u.name = ?1")                         \
    X(SQL_TOTP_SET, "UPDATE users SET totp_wall_us = ?2, totp_step = ?3 WHERE id = ?1")            \
    X(SQL_TOTP_USE, "UPDATE users SET totp_step = ?2 WHERE id = ?1 AND totp_step < ?2")            \
    X(SQL_RECOVERY_CLEAR, "DELETE FROM recovery_codes WHERE user_id = ?1")                         \
    X(SQL_RECOVERY_ADD, "INSERT INTO recovery_codes (user_id, hash) VALUES (?1, ?2)")              \
    X(SQL_RECOVERY_USE, "DELETE FROM recovery_codes WHERE user_id = ?1 AND hash = ?2")             \
    /* public keys of users */                                                                     \
    X(SQL_KEY_ADD,                                                                                 \
      "INSERT INTO user_keys (user_id, type, blob, fingerprint, comment, added_wall_us) "          \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6)")                                                           \
    X(SQL_KEYS,                                                                                    \
      "SELECT k.id, u.name, k.type, k.fingerprint, k.comment, k.added_wall_us, k.blob "            \
      "FROM user_keys k JOIN users u ON u.id = k.user_id WHERE u.name = ?1 ORDER BY k.id")         \
    X(SQL_KEY_REMOVE,                                                                              \
      "DELETE FROM user_keys WHERE user_id = ?1 AND (id = ?2 OR fingerprint = ?3)")                \
    X(SQL_KEY_CHECK, "SELECT 1 FROM user_keys k JOIN users u ON u.id = k.user_id "                 \
                     "WHERE u.name = ?1 AND u.is_locked = 0 AND k.blob = ?2")                      \
    /* targets; ?1 name .. ?13 as bind_target() in targets.c */                                    \
    X(SQL_TARGET_ADD,                                                                              \
      "INSERT INTO targets (name, protocol, address, account, auth, accept_new, host_key_type, "   \
      "host_key, host_key_fingerprint, policy, via, certificate, created_wall_us) "                \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)")                           \
    X(SQL_TARGET_SET,                                                                              \
      "UPDATE targets SET protocol = ?2, address = ?3, account = ?4, auth = ?5, "                  \
      "accept_new = ?6, host_key_type = ?7, host_key = ?8, host_key_fingerprint = ?9, "            \
      "policy = ?10, via = ?11, certificate = ?12 WHERE name = ?1")                                \
    X(SQL_TARGET_GET, TARGET_SELECT "WHERE t.name = ?1")                                           \
    X(SQL_TARGET_ID, "SELECT id FROM targets WHERE name = ?1")                                     \
    X(SQL_TARGETS, TARGET_SELECT "ORDER BY t.name")                                                \
    X(SQL_TARGETS_CALLED,                                                                          \
      TARGET_SELECT "WHERE t.name = ?1 COLLATE NOCASE OR t.address = ?2 COLLATE NOCASE "           \
                    "ORDER BY t.name LIMIT 64")                                                    \
    X(SQL_TARGET_BEHIND, "SELECT name FROM targets WHERE via = ?1 ORDER BY name LIMIT 1")          \
    X(SQL_TARGET_REMOVE, "DELETE FROM targets WHERE id = ?1")                                      \
    X(SQL_TARGET_PIN,                                                                              \
      "UPDATE targets SET host_key_type = ?2, host_key = ?3, host_key_fingerprint = ?4 "           \
      "WHERE name = ?1 AND length(host_key) = 0 AND accept_new = 1")                               \
    /* secrets; ?1 table, ?2 column, ?3 row */                                                     \
    X(SQL_SECRET_PUT,                                                                              \
      "INSERT OR REPLACE INTO secrets (table_name, column_name, row_id, key_id, nonce, "           \
      "ciphertext, tag) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")                                      \
    X(SQL_SECRET_GET, "SELECT key_id, nonce, ciphertext, tag FROM secrets "                        \
                      "WHERE table_name = ?1 AND column_name = ?2 AND row_id = ?3")                \
    X(SQL_SECRET_REMOVE,                                                                           \
      "DELETE FROM secrets WHERE table_name = ?1 AND column_name = ?2 AND row_id = ?3")            \
    X(SQL_SECRET_NOT_UNDER,                                                                        \
      "SELECT key_id, nonce, ciphertext, tag, table_name, column_name, row_id FROM secrets "       \
      "WHERE key_id <> ?1 LIMIT 1")                                                                \
    X(SQL_SECRET_KEY_IDS, "SELECT DISTINCT key_id FROM secrets")                                   \
    /* grants */                                                                                   \
    X(SQL_GRANT_ADD,                                                                               \
      "INSERT INTO grants (user_id, role, target_id, account, policy, created_wall_us) "           \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6)")                                                           \
    X(SQL_GRANTS,                                                                                  \
      "SELECT g.id, coalesce(u.name, '@' || g.role), coalesce(t.name, '*'), g.account, g.policy, " \
      "g.created_wall_us FROM grants g LEFT JOIN users u ON u.id = g.user_id "                     \
      "LEFT JOIN targets t ON t.id = g.target_id ORDER BY g.id")                                   \
    X(SQL_GRANT_REMOVE, "DELETE FROM grants WHERE id = ?1")                                        \
    X(SQL_GRANT_SET_POLICY, "UPDATE grants SET policy = ?2 WHERE id = ?1")                         \
    /* ?1 user id, ?2 role, ?3 target id, ?4 account asked for, ?5 the target's default account */ \
    X(SQL_RESOLVE,                                                                                 \
      "SELECT g.account, g.policy FROM grants g WHERE (g.user_id = ?1 OR g.role = ?2) "            \
      "AND (g.target_id = ?3 OR g.target_id IS NULL) AND (?4 = '' OR g.account = '*' "             \
      "OR g.account = ?4 OR (g.account = '' AND ?4 = ?5)) ORDER BY " GRANT_ORDER " LIMIT 1")       \
    /* ?1 user id, ?2 role, ?3 protocol, ?4 user name */                                           \
    X(SQL_REACHABLE,                                                                               \
      "SELECT t.name, t.account, g.account, (SELECT coalesce(max(s.started_wall_us), 0) "          \
      "FROM sessions s WHERE s.user = ?4 AND s.target = t.name) FROM targets t "                   \
      "JOIN grants g ON g.target_id = t.id OR g.target_id IS NULL "                                \
      "WHERE t.protocol = ?3 AND (g.user_id = ?1 OR g.role = ?2) "                                 \
      "ORDER BY t.name, " GRANT_ORDER)                                                             \
    /* sessions; parameters as the field lists above */                                            \
    X(SQL_SESSION_OPEN, "INSERT INTO sessions (" SESSION_FIELDS(                                   \
                            FIELD_NAME) "is_open) VALUES (" SESSION_FIELDS(FIELD_PARAM) "1)")      \
    X(SQL_SESSION_UPDATE, "UPDATE sessions SET " SESSION_LIVE_FIELDS(                              \
                              FIELD_SET) "is_open = 1 WHERE id = ?30 AND is_open = 1")             \
    X(SQL_SESSION_END,                                                                             \
      "UPDATE sessions SET " SESSION_LIVE_FIELDS(FIELD_SET) SESSION_END_FIELDS(                    \
          FIELD_SET) "is_open = 0 WHERE id = ?30 AND (is_open = 1 OR end_reason = "                \
                     "'broker-lost')")                                                             \
    X(SQL_SESSION_REOPEN,                                                                          \
      "UPDATE sessions SET is_open = 1, state = 'active', end_reason = 'none', ended_by = '', "    \
      "end_text = '', ended_wall_us = 0 WHERE id = ?1 AND is_open = 0 "                            \
      "AND end_reason = 'broker-lost'")                                                            \
    X(SQL_SESSION_GET, SESSION_SELECT "id = ?1")                                                   \
    /* one driving index each; the rest of the filter is the same */                               \
    X(SQL_SESSIONS, SESSION_SELECT "id < ?9 AND " SESSION_FILTER)                                  \
    X(SQL_SESSIONS_OPEN, SESSION_SELECT "is_open = 1 AND id < ?9 AND " SESSION_FILTER)             \
    X(SQL_SESSIONS_USER, SESSION_SELECT "user = ?1 AND " SESSION_FILTER)                           \
    X(SQL_SESSIONS_TARGET, SESSION_SELECT "target = ?2 AND id < ?9 AND " SESSION_FILTER)           \
    X(SQL_SESSIONS_SINCE, SESSION_SELECT "id < ?9 AND id >= (SELECT min(+id) FROM sessions WHERE " \
                                         "started_wall_us >= ?5) AND " SESSION_FILTER)             \
    X(SQL_ENDED_SINCE,                                                                             \
      "SELECT count(*) FROM sessions WHERE ended_wall_us >= ?1 AND ended_wall_us > 0")             \
    /* recordings */                                                                               \
    X(SQL_RECORDING_OPEN,                                                                          \
      "INSERT INTO recordings (session_id, channel, path, started_wall_us, frames, file_len, "     \
      "chain, state, is_closed) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")                      \
    X(SQL_RECORDING_UPDATE,                                                                        \
      "UPDATE recordings SET frames = ?5, file_len = ?6, chain = ?7, state = ?8, is_closed = ?9 "  \
      "WHERE session_id = ?1 AND channel = ?2")                                                    \
    X(SQL_RECORDINGS, RECORDING_SELECT "ORDER BY session_id DESC, channel DESC")                   \
    X(SQL_RECORDINGS_OF, RECORDING_SELECT "WHERE session_id = ?1 ORDER BY channel DESC")           \
    /* events */                                                                                   \
    X(SQL_EVENT_ADD,                                                                               \
      "INSERT INTO events (at_wall_us, kind, user, source, session_id, text, detail) "             \
      "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")                                                       \
    /* ?1 after id, ?2 since, ?3 limit. The first is for following: ids only. */                   \
    X(SQL_EVENTS_AFTER, EVENT_SELECT "WHERE id > ?1 AND at_wall_us >= ?2 ORDER BY id LIMIT ?3")    \
    X(SQL_EVENTS_SINCE,                                                                            \
      EVENT_SELECT "WHERE id >= (SELECT min(+id) FROM events WHERE at_wall_us >= ?2) "             \
                   "AND id > ?1 AND at_wall_us >= ?2 ORDER BY id LIMIT ?3")                        \
    /* ?1 session, ?2 after id, ?3 limit */                                                        \
    X(SQL_EVENTS_OF,                                                                               \
      EVENT_SELECT "WHERE session_id = ?1 AND session_id <> 0 AND id > ?2 ORDER BY id LIMIT ?3")

enum statement {
#define X(id, sql) id,
    STATEMENTS(X)
#undef X
        STATEMENT_COUNT
};

#endif
