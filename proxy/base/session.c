/*
 * The names of what session.h lists: states, end reasons, protocols, recording states. Nothing
 * about live sessions is here; those are the tracker's.
 */
#include <sallyport/session.h>

#include <stddef.h>
#include <string.h>

static const char *const state_names[] = {
#define X(id, name) [id] = name,
    SESSION_STATES(X)
#undef X
};

static const char *const reason_names[] = {
#define X(id, name, is_error, text) [id] = name,
    END_REASONS(X)
#undef X
};

static const char *const reason_texts[] = {
#define X(id, name, is_error, text) [id] = text,
    END_REASONS(X)
#undef X
};

static const char *const protocol_names[] = {
    [PROTOCOL_SSH] = "ssh", [PROTOCOL_RDP] = "rdp", [PROTOCOL_WEB] = "web"};

static const char *const recording_names[] = {[RECORDING_OFF] = "off",
                                              [RECORDING_OK] = "ok",
                                              [RECORDING_DEGRADED] = "degraded",
                                              [RECORDING_FAILED] = "failed"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const char *name_of(const char *const *names, size_t count, unsigned int i)
{
    return i < count ? names[i] : "unknown";
}

static int find_name(const char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return (int)i;
    return -1;
}

const char *session_state_name(enum session_state s)
{
    return name_of(state_names, COUNT(state_names), (unsigned int)s);
}

const char *end_reason_name(enum end_reason r)
{
    return name_of(reason_names, COUNT(reason_names), (unsigned int)r);
}

const char *end_reason_text(enum end_reason r)
{
    return name_of(reason_texts, COUNT(reason_texts), (unsigned int)r);
}

const char *protocol_name(enum protocol p)
{
    return name_of(protocol_names, COUNT(protocol_names), (unsigned int)p);
}

const char *recording_state_name(enum recording_state r)
{
    return name_of(recording_names, COUNT(recording_names), (unsigned int)r);
}

int session_state_from_name(const char *name)
{
    return find_name(state_names, COUNT(state_names), name);
}

int end_reason_from_name(const char *name)
{
    return find_name(reason_names, COUNT(reason_names), name);
}

int protocol_from_name(const char *name)
{
    return find_name(protocol_names, COUNT(protocol_names), name);
}

int recording_state_from_name(const char *name)
{
    return find_name(recording_names, COUNT(recording_names), name);
}
