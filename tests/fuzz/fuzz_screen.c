/* A watched terminal: two bytes of size, then what it shows. Whatever that is, what is drawn holds
 * no sequence but those of the drawing itself. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>

#include "control/cli/screen.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
    if (!ok)
        abort();
}

/* ESC [, perhaps ?, numbers, and H K J m h or l. */
static size_t sequence_len(const uint8_t *s, size_t len)
{
    size_t at = 1;

    if (len < 2 || s[0] != '[')
        return 0;
    at += s[1] == '?';
    while (at < len && ((s[at] >= '0' && s[at] <= '9') || s[at] == ';'))
        at++;
    return at < len && strchr("HKJmhl", s[at]) ? at + 1 : 0;
}

static void check_drawing(const struct buffer *out)
{
    for (size_t i = 0; i < out->len; i++) {
        uint8_t c = out->data[i];

        if (c == 0x1b) {
            size_t n = sequence_len(out->data + i + 1, out->len - i - 1);

            check(n > 0);
            i += n;
        } else {
            check(c >= 0x20 && c != 0x7f);
            check(!(c == 0xc2 && i + 1 < out->len && out->data[i + 1] < 0xa0)); /* C1 */
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct screen *s;
    struct buffer out;
    size_t at = 2;

    if (len < 2 || len > 20000)
        return 0;
    s = screen_create(data[0], data[1], data[0] & 1);
    buffer_init(&out, 64 * 1024 * 1024);
    check(s != NULL);
    while (at < len) {
        size_t n = 1 + data[at] % 64;

        n = n < len - at ? n : len - at;
        screen_feed(s, data + at, n);
        if (n % 7 == 0)
            screen_resize(s, (uint16_t)(data[at] % 150), (uint16_t)(n * 2));
        if (n % 11 == 0)
            screen_notice(s, (const char *)data + at, n);
        if (n % 5 == 0)
            screen_draw(s, (uint16_t)(20 + n), (uint16_t)(5 + n / 2), "status", &out);
        at += n;
    }
    screen_draw(s, 80, 25, "status", &out);
    check(!out.failed);
    check_drawing(&out);
    screen_destroy(s);
    buffer_finish(&out);
    return 0;
}
