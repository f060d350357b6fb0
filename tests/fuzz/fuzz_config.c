/*
 * proxy.conf from memory: whatever the bytes are, the parser refuses with a reason or yields a
 * configuration that prints, parses back and equals itself.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/broker/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_round_trip(const struct config *c)
{
    struct config *again = NULL;
    struct buffer text, errors;

    buffer_init(&text, CONFIG_REPORT_MAX * 4);
    buffer_init(&errors, CONFIG_REPORT_MAX);
    config_print(c, &text);
    if (text.failed ||
        config_load_text(&again, "/nonexistent/proxy.conf", (const char *)text.data, text.len,
                         &errors) < 0 ||
        config_diff(c, again, &errors, NULL) != 0)
        abort();
    config_free(again);
    buffer_finish(&text);
    buffer_finish(&errors);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config *c = NULL;
    struct buffer errors;
    int r;

    /* The parser is the subject, not the files of this machine. */
    if (memmem(data, size, "include", 7) || memmem(data, size, "banner", 6))
        return 0;
    buffer_init(&errors, CONFIG_REPORT_MAX);
    r = config_load_text(&c, "/nonexistent/proxy.conf", (const char *)data, size, &errors);
    if ((r == 0) != (c != NULL) || (r < 0 && errors.len == 0))
        abort();
    if (c)
        check_round_trip(c);
    config_free(c);
    buffer_finish(&errors);
    return 0;
}
