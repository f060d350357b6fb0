/*
 * What may be shared beside the desktop, by policy `rdp_channels`: whole static channels, devices
 * in rdpdr, and dynamic channels by name. With less than everything, what is not known here is not
 * shared either. Called by target.c before the target is told of the channels, and by splice.c for
 * the PDUs that matter.
 */
#include "proxy/rdp/session.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <sallyport/log.h>

#include "proxy/rdp/le.h"

#define ANY_DEVICE (POLICY_RDP_DRIVES | POLICY_RDP_PRINTERS | POLICY_RDP_SMARTCARD)
#define COMPRESSES 0x3u /* VCCAPS_COMPR_SC and VCCAPS_COMPR_CS_8K */

#define DVC_VERSION_MAX 2

/* What the target says on drdynvc, [MS-RDPEDYC] 2.2. */
enum { SAYS_CREATE = 1, SAYS_DATA_FIRST, SAYS_DATA, SAYS_CLOSE, SAYS_VERSION };

/* One of the words that a channel needs, and what it is called in listings. Servers take names in
 * capitals too. */
static const struct {
    const char *name;
    uint32_t needs;
    const char *shown;
} fixed[] = {
    {"cliprdr", POLICY_RDP_CLIPBOARD, "clipboard"},
    {"rdpdr", ANY_DEVICE, "devices"},
    {"rdpsnd", POLICY_RDP_SOUND, "sound"},
};

/* Part of the desktop: windows of single programs, remote assistance, and what dynamic channels go
 * through. */
static const char *const desktop_channels[] = {"drdynvc", "rail",    "rail_wi",
                                               "rail_ri", "encomsp", "remdesk"};

/* By the beginning of the name; 0: part of the desktop. */
static const struct {
    const char *name;
    uint32_t needs;
} dynamic[] = {
    {"AUDIO_PLAYBACK", POLICY_RDP_SOUND},
    {"AUDIO_INPUT", POLICY_RDP_MICROPHONE},
    {"RDCamera_", POLICY_RDP_CAMERA},
    {"URBDRC", POLICY_RDP_USB},
    {"PNPDR", POLICY_RDP_USB},
    {"FileRedirectorChannel", POLICY_RDP_DRIVES},
    {"WebAuthN_Channel", POLICY_RDP_SMARTCARD},
    {"Microsoft::Windows::RDS::Graphics", 0},
    {"Microsoft::Windows::RDS::Input", 0},
    {"Microsoft::Windows::RDS::CoreInput", 0},
    {"Microsoft::Windows::RDS::MouseCursor", 0},
    {"Microsoft::Windows::RDS::DisplayControl", 0},
    {"Microsoft::Windows::RDS::Geometry", 0},
    {"Microsoft::Windows::RDS::Video::", 0},
    {"Microsoft::Windows::RDS::Telemetry", 0},
    {"ECHO", 0},
};

/* Each device type in rdpdr and the word it needs; ports go with drives. */
static const struct {
    uint32_t type, needs;
} devices[] = {
    {DEVICE_SERIAL | DEVICE_PARALLEL | DEVICE_FILESYSTEM, POLICY_RDP_DRIVES},
    {DEVICE_PRINT, POLICY_RDP_PRINTERS},
    {DEVICE_SMARTCARD, POLICY_RDP_SMARTCARD},
};

static bool is_fixed_allowed(const char *name, uint32_t allowed)
{
    for (size_t n = 0; n < sizeof(fixed) / sizeof(fixed[0]); n++)
        if (strcasecmp(name, fixed[n].name) == 0)
            return fixed[n].needs & allowed;
    for (size_t n = 0; n < sizeof(desktop_channels) / sizeof(desktop_channels[0]); n++)
        if (strcasecmp(name, desktop_channels[n]) == 0)
            return true;
    return allowed == POLICY_RDP_ALL;
}

void channels_choose(struct rdp_session *s, uint64_t allowed)
{
    s->t.allowed = (uint32_t)allowed & POLICY_RDP_ALL;
    for (size_t i = 0; i < s->u.client.channel_count; i++)
        s->t.is_dropped[i] = !is_fixed_allowed(s->u.client.channels[i].name, s->t.allowed);
}

static bool are_all(const struct rdp_session *s)
{
    return s->t.allowed == POLICY_RDP_ALL;
}

bool channels_are_read(const struct rdp_session *s)
{
    return !are_all(s) || rdp_record_reads(s);
}

void channels_describe(const struct rdp_session *s, char *dst, size_t len)
{
    size_t at = (size_t)snprintf(dst, len, "desktop");

    for (size_t n = 0; n < sizeof(fixed) / sizeof(fixed[0]); n++)
        for (size_t i = 0; i < s->u.client.channel_count && at < len; i++)
            if (s->t.channels[i] && strcasecmp(s->u.client.channels[i].name, fixed[n].name) == 0)
                at += (size_t)snprintf(dst + at, len - at, ",%s", fixed[n].shown);
}

void channels_stay_readable(enum share_type which, const struct share_pdu *pdu,
                            const struct frame *f, uint8_t *at)
{
    const uint8_t *set = capability_find(which, pdu->body, CAPABILITY_VIRTUAL_CHANNEL, 4);

    if (set)
        at[set - f->data] &= (uint8_t)~COMPRESSES;
}

/* ---- dynamic channels ---- */

static void refuse(struct rdp_session *s, uint16_t channel, const struct dvc_create *create)
{
    struct buffer data, b;

    log_debug("dynamic channel refused by policy");
    buffer_init(&data, 64);
    buffer_init(&b, 128);
    dvc_refusal_put(&data, create);
    mcs_data_put(&b, MCS_DATA_REQUEST, s->t.user_id, channel, data.data, data.len);
    if (!data.failed && !b.failed)
        rdp_leg_send(&s->target, b.data, b.len);
    buffer_finish(&data);
    buffer_finish(&b);
}

static bool is_dynamic_allowed(const char *name, uint32_t allowed)
{
    for (size_t i = 0; i < sizeof(dynamic) / sizeof(dynamic[0]); i++)
        if (strncasecmp(name, dynamic[i].name, strlen(dynamic[i].name)) == 0)
            return !dynamic[i].needs || dynamic[i].needs & allowed;
    return false;
}

/* Version 2 is all that may be spoken: it knows neither compressed data nor other ways to carry
 * channels, [MS-RDPEDYC] 2.2. */
static enum chunks_verdict judge_dynamic(struct cursor begin, bool is_all)
{
    uint8_t head;

    if (!cursor_u8(&begin, &head))
        return is_all ? CHUNKS_PASS : CHUNKS_DROP;
    switch (head >> 4) {
    case SAYS_CREATE:
    case SAYS_VERSION:
        return CHUNKS_WHOLE;
    case SAYS_DATA_FIRST:
    case SAYS_DATA:
    case SAYS_CLOSE:
        return CHUNKS_PASS;
    default:
        return CHUNKS_DROP;
    }
}

/* The target's offer of a version: at most 2. */
static bool lower_version(struct cursor message, uint8_t *at)
{
    uint16_t version;

    if (!cursor_skip(&message, 2) || !cursor_le16(&message, &version))
        return false;
    if (version > DVC_VERSION_MAX)
        put_le16(at + 2, DVC_VERSION_MAX);
    return true;
}

/* May this message of the target's go on? at: where it may be changed. */
static bool may_pass(struct rdp_session *s, uint16_t channel, struct cursor message, uint8_t *at)
{
    struct dvc_create create;

    if (cursor_at_end(&message))
        return true;
    if (*message.at >> 4 == SAYS_VERSION)
        return lower_version(message, at);
    if (!memchr(message.at, 0, cursor_left(&message)) || !dvc_create_parse(message, &create))
        return false;
    if (are_all(s) || is_dynamic_allowed(create.name, s->t.allowed))
        return true;
    refuse(s, channel, &create);
    return false;
}

bool channels_block_dynamic(struct rdp_session *s, const struct mcs_pdu *pdu, uint16_t user_channel,
                            const struct frame *f, uint8_t *at)
{
    struct chunks *c = &s->desktop.dynamic;
    struct cursor message;

    if (!channels_are_read(s))
        return false;
    switch (chunks_take(c, pdu->data, judge_dynamic, &message)) {
    case CHUNKS_PASS:
        return false;
    case CHUNKS_DROP:
        return true;
    case CHUNKS_WHOLE:
        break;
    }
    if (message.at >= f->data && message.at < f->data + f->len) /* one chunk, where it lies */
        return !may_pass(s, pdu->channel, message, at + (message.at - f->data));
    if (may_pass(s, pdu->channel, message, c->held.data))
        chunks_put(&s->desktop.instead, MCS_DATA_INDICATION, MCS_SERVER_USER, user_channel,
                   message);
    return true;
}

/* ---- devices ---- */

bool channels_filter_devices(struct rdp_session *s, uint16_t channel, struct cursor data,
                             struct buffer *instead)
{
    struct cursor message;
    struct buffer filtered;
    uint32_t types = 0;

    if (are_all(s))
        return false;
    switch (chunks_take(&s->desktop.devices, data, devices_judge, &message)) {
    case CHUNKS_PASS:
        return false;
    case CHUNKS_DROP:
        return true;
    case CHUNKS_WHOLE:
        break;
    }
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        if (devices[i].needs & s->t.allowed)
            types |= devices[i].type;
    buffer_init(&filtered, CHUNKS_HELD_MAX);
    if (devices_filter(message, types, &filtered))
        chunks_put(instead, MCS_DATA_REQUEST, s->t.user_id, channel,
                   cursor_of(filtered.data, filtered.len));
    buffer_finish(&filtered);
    return true;
}
