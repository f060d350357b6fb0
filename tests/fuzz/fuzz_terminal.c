/* Target output of any kind: the follower keeps its state sound, pieces make no difference, and
 * what a final notice sends leaves it in the ground state with every mode off. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/relay/terminal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(bool ok)
{
    if (!ok)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct terminal t, pieces, outer;
    struct buffer out;
    bool redraw;
    size_t at = 0;

    terminal_init(&t, 80, 24);
    terminal_output(&t, data, len);
    terminal_init(&pieces, 80, 24);
    while (at < len) {
        size_t n = 1 + data[at] % 5;

        n = n < len - at ? n : len - at;
        terminal_output(&pieces, data + at, n);
        at += n;
    }
    check(memcmp(&t, &pieces, sizeof(t)) == 0);
    check(t.utf8_left <= 3 && t.param_count <= sizeof(t.params) / sizeof(t.params[0]) + 1);

    /* The user's terminal, seen by a second follower, gets the same and then the notices. */
    outer = t;
    buffer_init(&out, 4096);
    if (terminal_is_ground(&t)) {
        terminal_notice(&t, "Idle for 10 minutes", &out, &redraw);
        terminal_output(&outer, out.data, out.len);
        check(terminal_is_ground(&outer) && outer.on_alternate == t.on_alternate);
        buffer_reset(&out);
    }
    terminal_final_notice(&t, "You have been disconnected", &out);
    check(!out.failed);
    terminal_output(&outer, out.data, out.len);
    check(terminal_is_ground(&outer) && outer.at_line_start);
    check(!outer.on_alternate && !outer.cursor_hidden && !outer.bracketed_paste);
    check(!outer.app_cursor && !outer.app_keypad && !outer.mouse_modes && !outer.modified_keys);
    buffer_finish(&out);
    return 0;
}
