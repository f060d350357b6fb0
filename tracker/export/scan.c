/*
 * See scan.h.
 *
 * A restart is a Demand Active behind which nothing depends on what came before it. Drawing orders
 * begin anew there by the protocol, caches too. Two histories go on, though: the graphics
 * pipeline's (a dynamic channel that outlives the reactivation), so no restart once that was
 * opened; and the bulk compressor's, so the first compressed PDU behind it must say PACKET_FLUSHED.
 */
#include "tracker/export/scan.h"

#include <stdio.h>
#include <string.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define SIDE_MAX               16384
#define DURATION_MAX_MS        ((uint64_t)366 * 24 * 3600 * 1000)
#define UPDATE_SURFCMDS        4
#define PACKET_COMPRESSED      0x20
#define PACKET_FLUSHED         0x80
#define FASTPATH_IS_COMPRESSED 0x80 /* bits 6 and 7 of an updateHeader are 2 */

struct walk {
    struct scan *out;
    uint64_t until_us;
    uint16_t drdynvc;
    bool has_codecs;    /* the graphics pipeline was opened, or a surface command came */
    bool has_candidate; /* no compressed PDU has come since */
    uint64_t candidate_us, candidate_record;
    struct desktop_size candidate;
};

static void accept(struct walk *w)
{
    if (w->has_candidate && w->candidate_us <= w->until_us) {
        w->out->restart_us = w->candidate_us;
        w->out->restart_record = w->candidate_record;
        w->out->restart_width = w->candidate.width;
        w->out->restart_height = w->candidate.height;
    }
    w->has_candidate = false;
}

static void on_compressed(struct walk *w, uint8_t flags)
{
    if (flags & PACKET_FLUSHED)
        accept(w);
    w->has_candidate = false;
}

static void walk_fastpath(struct walk *w, struct cursor body)
{
    uint8_t head, flags;
    uint16_t size;

    while (cursor_u8(&body, &head)) {
        flags = 0;
        if ((head & 0xf) == UPDATE_SURFCMDS)
            w->has_codecs = true;
        if (head & FASTPATH_IS_COMPRESSED && !cursor_u8(&body, &flags))
            return;
        if (!cursor_le16(&body, &size) || !cursor_skip(&body, size))
            return;
        if (flags & PACKET_COMPRESSED)
            on_compressed(w, flags);
    }
}

/* The flags of compression stand in the share data header, six bytes behind the share id. */
static void walk_share(struct walk *w, struct cursor data)
{
    struct share_pdu pdu;

    while (!cursor_at_end(&data)) {
        const uint8_t *at = data.at;

        if (share_next(&data, &pdu) != PARSE_OK)
            return;
        if (pdu.type == SHARE_DATA && pdu.is_compressed && pdu.len > 15)
            on_compressed(w, at[15]);
    }
}

static bool is_graphics(struct cursor data)
{
    struct dvc_create create;

    return cursor_skip(&data, 8) && dvc_create_parse(data, &create) && /* CHANNEL_PDU_HEADER */
           strcmp(create.name, DVC_NAME_GRAPHICS) == 0;
}

static void walk_target(struct walk *w, struct cursor pdus)
{
    struct mcs_pdu mcs;
    struct frame f;

    while (frame_next(&pdus, TPKT_MAX, &f) == PARSE_OK) {
        if (f.kind == FRAME_FASTPATH) {
            walk_fastpath(w, frame_body(&f));
            continue;
        }
        if (mcs_parse(frame_body(&f), &mcs) != PARSE_OK || mcs.type != MCS_DATA_INDICATION)
            continue;
        if (mcs.channel == w->out->channels.io && w->has_candidate)
            walk_share(w, mcs.data);
        else if (mcs.channel == w->drdynvc && is_graphics(mcs.data))
            w->has_codecs = true;
    }
}

static void on_size(struct walk *w, const struct desktop_record *r, uint64_t number)
{
    struct scan *out = w->out;
    struct desktop_size size;

    if (desktop_size_parse(r->body, &size) != PARSE_OK || size.width == 0 || size.height == 0 ||
        size.width > SIDE_MAX || size.height > SIDE_MAX)
        return;
    accept(w); /* nothing compressed came since the last one */
    if (out->first_width == 0) {
        out->first_width = size.width;
        out->first_height = size.height;
    } else if (!w->has_codecs) {
        w->has_candidate = true;
        w->candidate_us = r->at_us;
        w->candidate_record = number;
        w->candidate = size;
    }
    out->max_width = size.width > out->max_width ? size.width : out->max_width;
    out->max_height = size.height > out->max_height ? size.height : out->max_height;
}

static void on_channels(struct walk *w, const struct desktop_record *r)
{
    struct desktop_channels *c = &w->out->channels;

    if (desktop_channels_parse(r->body, c) != PARSE_OK)
        return;
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->list[i].name, "drdynvc") == 0)
            w->drdynvc = c->list[i].number;
}

/* A desktop may stand still at its end for as long as there can be a session. */
static uint64_t last_of(uint64_t record_us, uint64_t duration_ms)
{
    return duration_ms <= DURATION_MAX_MS && duration_ms * 1000 > record_us ? duration_ms * 1000
                                                                            : record_us;
}

int scan_recording(struct recording_reader *reader, uint64_t until_us, struct scan *out, char *err,
                   size_t err_len)
{
    struct walk w = {.out = out, .until_us = until_us};
    struct desktop_record r;
    uint64_t number = 0;
    int n;

    memset(out, 0, sizeof(*out));
    while ((n = recording_reader_next_record(reader, &r)) > 0) {
        if (r.type == DESKTOP_CHANNELS)
            on_channels(&w, &r);
        else if (r.type == DESKTOP_SIZE)
            on_size(&w, &r, number);
        else if (r.type == DESKTOP_TARGET)
            walk_target(&w, r.body);
        else if (r.type == DESKTOP_NOTICE && r.flags & DESKTOP_DAMAGED)
            out->is_damaged = true;
        out->end_us = r.at_us;
        number++;
    }
    accept(&w);
    out->end_us = last_of(out->end_us, recording_reader_duration_ms(reader));
    if (n < 0)
        snprintf(err, err_len, "cannot read the recording: %s", error_text(n));
    else if (out->channels.io == 0 || out->first_width == 0)
        snprintf(err, err_len, "there is no picture in it: the session ended before its desktop");
    else
        return 0;
    return n < 0 ? n : ERR_NOT_FOUND;
}
