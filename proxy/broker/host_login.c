/* What commands ask about logins; see host_login.h. */
#include "proxy/broker/host_login.h"

#include <string.h>

#include <sallyport/clock.h>
#include <sallyport/network.h>
#include <sallyport/text.h>

#include "proxy/broker/broker.h"
#include "proxy/broker/links_parts.h"
#include "tracker/factor.h"

int host_check_code(void *arg, const char *user, const char *code)
{
    struct broker *b = arg;
    bool is_first;

    if (sources_blocked_s(&b->code_failures, user, &link_code_limits, clock_mono_ms(), &is_first))
        return ERR_FULL;
    switch (factor_check(b->store, user, code, clock_wall_us() / 1000000)) {
    case FACTOR_CODE:
    case FACTOR_RECOVERY:
        return 0;
    case FACTOR_WRONG:
    case FACTOR_REPLAYED:
        sources_failed(&b->code_failures, user, &link_code_limits, clock_mono_ms());
        return ERR_DENIED;
    case FACTOR_FAILED:
        break;
    }
    return ERR_SYSTEM;
}

struct pass_on {
    control_source_fn fn;
    void *arg;
};

static bool pass_row(const struct source_row *row, void *arg)
{
    const struct pass_on *to = arg;
    const struct control_source source = {row->address, row->failures, row->blocked_s};

    return to->fn(&source, to->arg);
}

void host_sources(void *arg, control_source_fn fn, void *fn_arg)
{
    struct broker *b = arg;
    const struct source_limits l = {b->config->source_failures, b->config->source_block_s};
    struct pass_on to = {fn, fn_arg};

    sources_each(&b->sources, &l, clock_mono_ms(), pass_row, &to);
}

int host_source_unblock(void *arg, const char *address, uint32_t *count)
{
    struct broker *b = arg;
    const struct source_limits l = {b->config->source_failures, b->config->source_block_s};
    char plain[64], *slash;
    uint8_t scratch[16];

    if (!address) {
        *count = sources_forget(&b->sources, NULL, &l, clock_mono_ms());
        return 0;
    }
    if (!text_copy(plain, sizeof(plain), address))
        return ERR_INVALID;
    slash = strchr(plain, '/'); /* as the list shows them */
    if (slash && strcmp(slash, "/64") == 0)
        *slash = '\0';
    if (!network_address(plain, scratch))
        return ERR_INVALID;
    *count = sources_forget(&b->sources, plain, &l, clock_mono_ms());
    return 0;
}
