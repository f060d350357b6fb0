/*
 * Policy: the keys that may be set in the configuration and, narrower, on a role, a target or a
 * grant. The narrowest that sets a key wins: grant, then target, then role, then configuration.
 * One list drives parsing, printing, the link's encoding and the manual.
 */
#ifndef SALLYPORT_POLICY_H
#define SALLYPORT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/errors.h>

enum policy_counts { COUNTS_AUTO, COUNTS_INPUT, COUNTS_TRAFFIC };
enum policy_input { INPUT_NO, INPUT_ECHOED, INPUT_ALL };
enum policy_on_failure { ON_FAILURE_TERMINATE, ON_FAILURE_REFUSE, ON_FAILURE_CONTINUE };
enum policy_kind {
    POLICY_DURATION,
    POLICY_COUNT,
    POLICY_SIZE,
    POLICY_BOOL,
    POLICY_CHOICE,
    POLICY_SET,         /* words of the choices, as bits; none and all are words too */
    POLICY_DESTINATIONS /* a text, not a number: see POLICY_TEXTS */
};

/* Bits of `channels`, in the order of its choices. */
enum policy_channel {
    POLICY_CHANNEL_SHELL = 1,
    POLICY_CHANNEL_EXEC = 2,
    POLICY_CHANNEL_SFTP = 4,
    POLICY_CHANNEL_FORWARD = 8,
    POLICY_CHANNEL_REMOTE_FORWARD = 16,
    POLICY_CHANNEL_AGENT = 32,
    POLICY_CHANNEL_X11 = 64,
    POLICY_CHANNEL_STREAMLOCAL = 128
};

/* Bits of `rdp_channels`, in the order of its choices. */
enum policy_rdp_channel {
    POLICY_RDP_CLIPBOARD = 1,
    POLICY_RDP_DRIVES = 2,
    POLICY_RDP_PRINTERS = 4,
    POLICY_RDP_SOUND = 8,
    POLICY_RDP_MICROPHONE = 16,
    POLICY_RDP_CAMERA = 32,
    POLICY_RDP_USB = 64,
    POLICY_RDP_SMARTCARD = 128,
    POLICY_RDP_ALL = 255
};

#define POLICY_TEXT_MAX 512 /* bytes of a text with its NUL */

/*
 * member, key, section of proxy.conf, kind, choices ("a|b"), default, min, max, help. The order is
 * the link's: a new key goes to the end and into policy_key_since().
 */
#define POLICY_KEYS(X)                                                                           \
    X(idle_after, "idle_after", "idle", POLICY_DURATION, NULL, "5m", 0, 31536000,                \
      "Show a session as idle after this long without activity; 0 never does.")                  \
    X(warn_after, "warn_after", "idle", POLICY_DURATION, NULL, "10m", 0, 31536000,               \
      "Warn the user after this long without activity; 0 never does.")                           \
    X(disconnect_after, "disconnect_after", "idle", POLICY_DURATION, NULL, "30m", 0, 31536000,   \
      "End a session after this long without activity; 0 never does.")                           \
    X(counts, "counts", "idle", POLICY_CHOICE, "auto|input|traffic", "auto", 0, 2,               \
      "What counts as activity: input is what the user types, clicks or sends; traffic is data " \
      "either way; auto is input for a terminal or a desktop and traffic for the rest.")         \
    X(sessions_per_user, "sessions_per_user", "limits", POLICY_COUNT, NULL, "50", 0, 100000,     \
      "Live sessions one user may have; 0 is no limit.")                                         \
    X(max_duration, "max_duration", "limits", POLICY_DURATION, NULL, "0", 0, 31536000,           \
      "End a session after this long, active or not; 0 never does.")                             \
    X(max_channels, "channels", "limits", POLICY_COUNT, NULL, "10", 1, 1000,                     \
      "Shells, commands and file transfers that may run on one connection at a time; forwarded " \
      "connections have a limit of their own.")                                                  \
    X(record, "ssh", "recording", POLICY_BOOL, NULL, "yes", 0, 1,                                \
      "Record SSH terminals and the output of commands.")                                        \
    X(input, "input", "recording", POLICY_CHOICE, "no|echoed|all", "no", 0, 2,                   \
      "Keep what the user types: no, only lines that came back on the screen, or all of it, "    \
      "passwords included.")                                                                     \
    X(on_failure, "on_failure", "recording", POLICY_CHOICE, "terminate|refuse|continue",         \
      "terminate", 0, 2,                                                                         \
      "When a recording cannot be written: terminate ends the session and refuses new ones, "    \
      "refuse lets live ones go on unrecorded and refuses new ones, continue does neither.")     \
    X(channels, "channels", "ssh", POLICY_SET,                                                   \
      "shell|exec|sftp|forward|remote-forward|agent|x11|streamlocal",                            \
      "shell exec sftp forward remote-forward agent x11", 0, 255,                                \
      "What a session may be used for: shell; exec, commands, which scp -O, rsync and git are "  \
      "too; sftp; forward (-L, -D, -W); remote-forward (-R); agent (-A); x11 (-X); streamlocal " \
      "(forwarded sockets, which this version cannot do). Or none, or all.")                     \
    X(watch_notice, "watch_notice", "recording", POLICY_BOOL, NULL, "yes", 0, 1,                 \
      "Tell users on their screen when somebody watches their session, or joins it.")            \
    X(rdp_channels, "channels", "rdp", POLICY_SET,                                               \
      "clipboard|drives|printers|sound|microphone|camera|usb|smartcard",                         \
      "clipboard drives printers sound microphone camera usb smartcard", 0, 255,                 \
      "What an RDP session may share between client and target beside the desktop: clipboard; "  \
      "drives (and ports), printers, smartcard; sound; microphone; camera; usb. Or none, or "    \
      "all.")                                                                                    \
    X(record_rdp, "rdp", "recording", POLICY_BOOL, NULL, "yes", 0, 1,                            \
      "Record RDP desktops: what the screen was sent, when keys and buttons were used, and "     \
      "where the pointer was. Which keys they were is kept with input = all only.")

/* Keys whose value is a text; they follow the others in every list. */
#define POLICY_TEXTS(X)                                                                          \
    X(forward_to, "forward_to", "ssh", POLICY_DESTINATIONS, NULL, "any", 0, POLICY_TEXT_MAX - 1, \
      "Where forwarded connections may go, as the target sees it: any, or HOST:PORT with * and " \
      "? in HOST, and * or a range such as 8000-8099 for PORT. Names are compared as the "       \
      "client writes them.")                                                                     \
    X(redirect_to, "redirect_to", "rdp", POLICY_DESTINATIONS, NULL, "none", 0,                   \
      POLICY_TEXT_MAX - 1,                                                                       \
      "Other servers to which an RDP target may send a session on: none, any, or HOST:PORT as "  \
      "in forward_to. To another session of the same address it always may.")

struct policy {
#define X(member, key, section, kind, choices, def, min, max, help) uint64_t member;
    POLICY_KEYS(X)
#undef X
#define X(member, key, section, kind, choices, def, min, max, help) char member[POLICY_TEXT_MAX];
    POLICY_TEXTS(X)
#undef X
};

/* A policy in which only some keys are set: bit n of `set` is the n-th key of the list. */
struct policy_overlay {
    uint32_t set;
    struct policy values;
};

struct policy_key {
    const char *key; /* as typed on a target, role or grant; "record" for recording.ssh */
    const char *section;
    const char *conf_key;
    enum policy_kind kind;
    const char *choices;
    const char *def;
    uint64_t min, max;
    size_t offset; /* of the member in struct policy */
    const char *help;
};

extern const struct policy_key policy_keys[];
extern const size_t policy_key_count;

/* The built-in defaults. */
void policy_defaults(struct policy *p);

/* The first version of the link whose peers know the key. */
uint8_t policy_key_since(const struct policy_key *key);

/* Parse one value as a row says. On error writes a sentence that says what to do to err; it does
 * not name the key, which has two names: the caller does. A text is checked only, *value is 0. */
MUST_CHECK int policy_parse_value(const struct policy_key *key, const char *text, uint64_t *value,
                                  char *err, size_t err_len);
const char *policy_value_text(const struct policy_key *key, uint64_t value, char *dst,
                              size_t dst_len);

bool policy_is_text(const struct policy_key *key);
/* Parse and store a value of any kind; nothing changes on an error. */
MUST_CHECK int policy_set(struct policy *p, const struct policy_key *key, const char *text,
                          char *err, size_t err_len);
/* The value of a key as policy_set() would take it; dst has POLICY_TEXT_MAX bytes. Without blanks:
 * the words of a set have commas between them. */
const char *policy_get(const struct policy *p, const struct policy_key *key,
                       char dst[POLICY_TEXT_MAX]);

/* May a forwarded connection go to this host and port? `list` as forward_to has it. */
bool policy_allows_destination(const char *list, const char *host, uint16_t port);

/* Set KEY=VALUE in an overlay; an empty VALUE unsets the key. */
MUST_CHECK int policy_overlay_set(struct policy_overlay *o, const char *assignment, char *err,
                                  size_t err_len);
/* Overlay as text, "idle_after=10m max_duration=4h", and back. This is what the store keeps. */
void policy_overlay_text(const struct policy_overlay *o, struct buffer *out);
MUST_CHECK int policy_overlay_parse(struct policy_overlay *o, const char *text, char *err,
                                    size_t err_len);
/* Lay o over p: keys set in o replace those of p. `record` is for desktops too, where `record_rdp`
 * does not say otherwise. */
void policy_apply(struct policy *p, const struct policy_overlay *o);

#endif
