/*
 * What recording is to both protocols: reports of written frames, and what it means when a
 * recording cannot be written any more. The writers are tracker/recording's; who feeds them is
 * proxy/ssh's and proxy/rdp's record.c.
 */
#ifndef RELAY_RECORDED_H
#define RELAY_RECORDED_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/relay/relay.h"
#include "tracker/recording/recording.h"

#define RECORDED_FAILED "the recording could not be written"
#define RECORDED_FAILED_SENTENCE \
    "You have been disconnected: the recording could not be written" /* to the user */

/* What the broker's answer says when it says nothing. */
const char *recorded_refusal(const struct link_recording *answer);

/* A frame of the channel's recording was written: the broker is told. */
void recorded_frame(struct relay *r, uint32_t channel, uint64_t sequence, uint64_t file_len,
                    const uint8_t chain[RECORDING_CHAIN_LEN]);

/* A write failed: log it and tell the broker. True: policy wants the session to end. */
bool recorded_failed(struct relay *r, uint32_t channel, const char *why);

#endif
