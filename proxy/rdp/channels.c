/*
 * What may be shared beside the desktop, by policy `rdp_channels`: whole static channels, devices
 * in rdpdr, and dynamic channels by name. Called by target.c before the target is told of the
 * channels, and by splice.c for the PDUs that matter.
 */
#include "proxy/rdp/session.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <sallyport/log.h>

#include "proxy/rdp/le.h"

#define ANY_DEVICE (POLICY_RDP_DRIVES | POLICY_RDP_PRINTERS | POLICY_RDP_SMARTCARD)
#define COMPRESSES 0x3u /* VCCAPS_COMPR_SC and VCCAPS_COMPR_CS_8K */

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

/* By the beginning of the name. */
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
};

/* Each device type in rdpdr and the word it needs; ports go with drives. */
static const struct {
    uint32_t type, needs;
} devices[] = {
    {DEVICE_SERIAL | DEVICE_PARALLEL | DEVICE_FILESYSTEM, POLICY_RDP_DRIVES},
    {DEVICE_PRINT, POLICY_RDP_PRINTERS},
    {DEVICE_SMARTCARD, POLICY_RDP_SMARTCARD},
};

void channels_choose(struct rdp_session *s, uint64_t allowed)
{
    s->t.allowed = (uint32_t)allowed & POLICY_RDP_ALL;
    for (size_t i = 0; i < s->u.client.channel_count; i++)
        for (size_t n = 0; n < sizeof(fixed) / sizeof(fixed[0]); n++)
            if (strcasecmp(s->u.client.channels[i].name, fixed[n].name) == 0)
                s->t.is_dropped[i] = !(fixed[n].needs & s->t.allowed);
}

bool channels_are_all(const struct rdp_session *s)
{
    return s->t.allowed == POLICY_RDP_ALL;
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

bool channels_block_dynamic(struct rdp_session *s, uint16_t channel, struct cursor data)
{
    struct dvc_create create;

    if (channels_are_all(s) || !dvc_create_parse(data, &create))
        return false;
    for (size_t i = 0; i < sizeof(dynamic) / sizeof(dynamic[0]); i++) {
        if (strncasecmp(create.name, dynamic[i].name, strlen(dynamic[i].name)) != 0 ||
            dynamic[i].needs & s->t.allowed)
            continue;
        refuse(s, channel, &create);
        return true;
    }
    return false;
}

bool channels_filter_devices(struct rdp_session *s, uint16_t channel, struct cursor data,
                             struct buffer *instead)
{
    enum devices_verdict v;
    struct buffer filtered;
    uint32_t types = 0;

    if (channels_are_all(s))
        return false;
    for (size_t i = 0; i < sizeof(devices) / sizeof(devices[0]); i++)
        if (devices[i].needs & s->t.allowed)
            types |= devices[i].type;
    buffer_init(&filtered, TPKT_MAX);
    v = devices_filter(data, types, &filtered);
    if (v == DEVICES_WRITTEN)
        mcs_data_put(instead, MCS_DATA_REQUEST, s->t.user_id, channel, filtered.data, filtered.len);
    buffer_finish(&filtered);
    return v != DEVICES_OTHER;
}
