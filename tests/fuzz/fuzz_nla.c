/*
 * What sallyport-nla reads: messages of a relay that may be anybody's. The input is a run of
 * messages, each with its length before it; the broker's part is played here.
 */
#include <stdlib.h>
#include <string.h>

#include <sallyport/nla_talk.h>

#include "proxy/nla/attempt.h"
#include "proxy/rdp/le.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
const char *__lsan_default_suppressions(void);

/* WinPR loses some bytes of a login that fails; each is a process of its own life. */
const char *__lsan_default_suppressions(void)
{
    return "leak:libwinpr\n";
}

static struct nla_talk message;
static struct attempt_step step;

static void check_codec(const uint8_t *data, size_t len)
{
    struct buffer b;

    if (nla_talk_decode(&message, data, len) < 0)
        return;
    buffer_init(&b, NLA_TALK_MAX);
    nla_talk_encode(&message, &b);
    if (b.failed || b.len != len || memcmp(b.data, data, len) != 0)
        abort();
    buffer_finish(&b);
}

static void answer(struct attempt *a)
{
    if (!step.has_broker || step.broker.type != NLA_TALK_WHO)
        return;
    memset(&message, 0, sizeof(message));
    message.type = NLA_TALK_HASH;
    message.data_len = NLA_HASH_LEN;
    attempt_from_broker(a, &message, &step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[] = "a public key";
    static bool is_prepared;
    struct cursor c = cursor_of(data, size);
    const uint8_t *part;
    struct attempt a;
    uint16_t len;

    if (!is_prepared && ntlm_prepare() < 0)
        abort();
    is_prepared = true;
    check_codec(data, size);
    if (!attempt_begin(&a, key, sizeof(key)))
        abort();
    do {
        if (!cursor_le16(&c, &len) || !cursor_take(&c, len, &part) || len > NLA_TALK_DATA_MAX)
            break;
        memset(&message, 0, sizeof(message));
        message.type = NLA_TALK_TOKEN;
        message.data_len = len;
        memcpy(message.data, part, len);
        attempt_from_relay(&a, &message, &step);
        answer(&a);
        if (step.is_proved || (step.is_over && step.broker.type == NLA_TALK_DONE))
            abort(); /* nobody knows the password */
    } while (!step.is_over);
    attempt_finish(&a);
    return 0;
}
