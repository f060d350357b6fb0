/*
 * The login screen under any input: the first bytes choose the screen, the layout and the page, the
 * rest are input PDUs of a client, as it would send them.
 */
#include <stdlib.h>
#include <string.h>

#include "proxy/rdp/events.h"
#include "proxy/rdp/form.h"
#include "proxy/rdp/keyboard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint32_t pixels[64 * 16];

static void show(struct form *f)
{
    struct picture tile = {.width = 64, .height = 16, .pixels = pixels};
    char text[FORM_FIELD_MAX * 4 + 8];
    struct rect r;

    while (form_take_dirty(f, &r)) {
        if (r.x < 0 || r.y < 0 || r.x + r.width > f->width || r.y + r.height > f->height)
            abort();
        form_paint(f, &tile, r.x, r.y);
        form_paint(f, &tile, r.x + r.width - 64, r.y + r.height - 16);
    }
    for (unsigned i = 0; i < 2; i++)
        if (!form_field_text(&f->fields[i], text, sizeof(text)) ||
            f->fields[i].caret > f->fields[i].len)
            abort();
    if (f->page == FORM_TARGETS && f->shown_count && !form_selected(f))
        abort();
}

static void press(struct form *f, struct keyboard *k, const struct input_event *e, int64_t now_ms)
{
    struct form_input in = {.x = e->x, .y = e->y, .now_ms = now_ms};

    if (e->kind == INPUT_POINTER) {
        in.kind = e->flags & INPUT_POINTER_WHEEL  ? FORM_WHEEL
                  : e->flags & INPUT_POINTER_DOWN ? FORM_PRESS
                                                  : FORM_RELEASE;
        in.rows = e->flags & INPUT_POINTER_NEGATIVE ? 1 : -1;
    } else if (!keyboard_event(k, e, &in)) {
        return;
    }
    if (form_input(f, &in) == FORM_TOGGLE_KEYBOARD)
        (void)keyboard_toggle(k);
    form_set_caps(f, k->is_caps);
}

static void open_page(struct form *f, uint8_t how)
{
    static const struct link_target_row rows[] = {{.target = "win01", .account = "bob"},
                                                  {.target = "win02"},
                                                  {.target = "web", .account = "x"}};

    form_open(f, (enum form_page)(how % 3), "Title",
              how & 4 ? "a text\n\xe2\x96\x88\xe2\x96\x84\n" : "");
    form_set_label(f, 0, "First", false);
    form_set_label(f, 1, "Second", true);
    form_set_keyboard(f, "de");
    for (int i = 0; i < how / 8; i++)
        if (!form_add_rows(f, rows, 3, 100))
            abort();
    form_set_status(f, "status", how & 1, how == 255);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const uint32_t layouts[] = {0x409, 0x407, 0x40c, 0x419, 0x20409, 0};
    struct input_reader r;
    struct input_event e;
    struct keyboard k;
    struct form f;
    int64_t now_ms = 0;

    if (len < 8)
        return 0;
    form_init(&f, (uint16_t)(1 + (data[0] | data[1] << 8) % 8192),
              (uint16_t)(1 + (data[2] | data[3] << 8) % 8192));
    keyboard_init(&k, layouts[data[4] % 6]);
    open_page(&f, data[5]);
    if (data[6] & 1 ? input_begin_slow(&r, cursor_of(data + 7, len - 7))
                    : input_begin_fast(&r, 0, cursor_of(data + 7, len - 7)))
        while (input_next(&r, &e) == PARSE_OK) {
            press(&f, &k, &e, now_ms += 300);
            show(&f);
        }
    form_finish(&f);
    return 0;
}
