/*
 * The filter of recording play: whatever a recording holds, what comes out has only printable
 * UTF-8, the few controls and the sequences of the allow-list (checked here by a second, separate
 * reading), chunks do not matter, and what passed once passes again unchanged.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>

#include "control/cli/play_filter.h"

#define OUT_MAX (16 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void run(const uint8_t *data, size_t len, size_t chunk, struct buffer *out)
{
    struct play_filter f;

    buffer_init(out, OUT_MAX);
    play_filter_init(&f);
    for (size_t at = 0; at < len; at += chunk)
        play_filter_feed(&f, data + at, chunk < len - at ? chunk : len - at, out);
    if (out->failed)
        abort();
}

/* The bytes of one sequence behind ESC, or 0 when it is none that may pass. */
static size_t sequence_len(const uint8_t *s, size_t len)
{
    size_t at = 1;
    bool is_private;

    if (len == 0)
        return 0;
    if (s[0] == '(' || s[0] == ')' || s[0] == '#')
        return len > 1 && strchr("0AB34568", s[1]) ? 2 : 0;
    if (s[0] != '[')
        return strchr("78DEHM", s[0]) ? 1 : 0;
    is_private = len > 1 && s[1] == '?';
    at += is_private;
    while (at < len && ((s[at] >= '0' && s[at] <= '9') || s[at] == ';' || s[at] == ':'))
        at++;
    if (at < len && (s[at] == ' ' || s[at] == '!')) {
        at++;
        return at < len && (s[at] == 'q' || s[at] == 'p') ? at + 1 : 0;
    }
    if (at >= len || !strchr(is_private ? "JKhl" : "@ABCDEFGHIJKLMPSTXZ`abdefghlmrsu", s[at]))
        return 0;
    if (is_private && (s[at] == 'h' || s[at] == 'l')) {
        unsigned long mode = strtoul((const char *)s + 2, NULL, 10);
        if (mode != 5 && mode != 6 && mode != 7 && mode != 12 && mode != 25 && mode != 47 &&
            mode != 1047 && mode != 1048 && mode != 1049)
            return 0;
    }
    return at + 1;
}

static void check(const struct buffer *out)
{
    for (size_t at = 0; at < out->len; at++) {
        uint8_t c = out->data[at];
        if (c == 0x1b) {
            size_t n = sequence_len(out->data + at + 1, out->len - at - 1);
            if (n == 0)
                abort();
            at += n;
        } else if ((c < 0x20 && !(c >= 7 && c <= 15)) || c == 0x7f) {
            abort();
        } else if (c == 0xc2 && at + 1 < out->len && out->data[at + 1] < 0xa0) {
            abort(); /* C1 */
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct buffer whole, pieces, again;

    run(data, len, 65536, &whole);
    run(data, len, 3, &pieces);
    run(whole.data, whole.len, 65536, &again);
    if (whole.len)
        check(&whole);
    if (whole.len != pieces.len || whole.len != again.len)
        abort();
    if (whole.len && (memcmp(whole.data, pieces.data, whole.len) != 0 ||
                      memcmp(whole.data, again.data, whole.len) != 0))
        abort();
    buffer_finish(&whole);
    buffer_finish(&pieces);
    buffer_finish(&again);
    return 0;
}
