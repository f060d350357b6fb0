/*
 * From key presses of a client to what they type and do: scancodes by the layout that the client
 * named, with Shift, Caps Lock, Num Lock, AltGr and dead keys, and characters sent as such. Pure;
 * the layouts are tables of the build (keymaps/keymaps.h).
 */
#ifndef RDP_KEYBOARD_H
#define RDP_KEYBOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/rdp/events.h"
#include "proxy/rdp/form.h"

struct keymap;

struct keyboard {
    const struct keymap *own, *map;     /* the client's, the one in use; both static */
    bool shift[2], ctrl[2], alt, altgr; /* held: left and right */
    bool is_caps, is_num;
    uint16_t mark; /* a dead key that waits for its letter; 0 none */
    uint16_t high; /* the first half of a character of UTF-16 */
};

/* layout: keyboardLayout of CS_CORE; one that is not known is the US one. */
void keyboard_init(struct keyboard *k, uint32_t layout);
/* Between the client's layout and the US one; false when they are the same. */
bool keyboard_toggle(struct keyboard *k);
bool keyboard_can_toggle(const struct keyboard *k);
const char *keyboard_name(const struct keyboard *k); /* "de" */

/* What the event means for a form: true and *out (FORM_CHAR or FORM_KEY), or false. Not for
 * INPUT_POINTER. */
bool keyboard_event(struct keyboard *k, const struct input_event *e, struct form_input *out);

#endif
