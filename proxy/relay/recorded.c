/* Recording as both protocols see it; see recorded.h. */
#include "proxy/relay/recorded.h"

#include <string.h>

#include <sallyport/log.h>

const char *recorded_refusal(const struct link_recording *answer)
{
    return answer->text[0] ? answer->text : "the session cannot be recorded";
}

void recorded_frame(struct relay *r, uint32_t channel, uint64_t sequence, uint64_t file_len,
                    const uint8_t chain[RECORDING_CHAIN_LEN])
{
    struct link_frame frame = {.channel = channel, .sequence = sequence, .file_len = file_len};

    frame.chain.len = RECORDING_CHAIN_LEN;
    memcpy(frame.chain.data, chain, RECORDING_CHAIN_LEN);
    relay_frame(r, &frame);
}

bool recorded_failed(struct relay *r, uint32_t channel, const char *why)
{
    bool must_end = relay_policy(r)->on_failure == ON_FAILURE_TERMINATE;

    log_warn("recording failed channel=%u: %s", channel, why);
    relay_recording_state(r, channel, must_end ? RECORDING_FAILED : RECORDING_DEGRADED, why);
    return must_end;
}
