/*
 * Keys to characters; keyboard.h.
 */
#include "proxy/rdp/keyboard.h"

#include <string.h>

#include "proxy/rdp/keymaps/keymaps.h"

/* Scancodes of set 1 that do something. */
enum {
    CODE_ESCAPE = 0x01,
    CODE_BACKSPACE = 0x0e,
    CODE_TAB = 0x0f,
    CODE_ENTER = 0x1c,
    CODE_CTRL = 0x1d,
    CODE_SHIFT_LEFT = 0x2a,
    CODE_SLASH = 0x35,
    CODE_SHIFT_RIGHT = 0x36,
    CODE_ALT = 0x38,
    CODE_CAPS = 0x3a,
    CODE_NUM = 0x45,
    CODE_PAD_FIRST = 0x47,
    CODE_PAD_LAST = 0x53
};

static const struct {
    uint8_t code;
    enum form_key key;
} editing[] = {
    {CODE_ESCAPE, FORM_KEY_ESCAPE},
    {CODE_BACKSPACE, FORM_KEY_BACKSPACE},
    {CODE_TAB, FORM_KEY_TAB},
    {CODE_ENTER, FORM_KEY_ENTER},
};

/* The key pad: with Num Lock it types, without it is the block of keys beside the letters. */
static const struct {
    enum form_key key;
    char number;
} pad[] = {
    {FORM_KEY_HOME, '7'},   {FORM_KEY_UP, '8'},   {FORM_KEY_PAGE_UP, '9'},   {FORM_KEY_NONE, '-'},
    {FORM_KEY_LEFT, '4'},   {FORM_KEY_NONE, '5'}, {FORM_KEY_RIGHT, '6'},     {FORM_KEY_NONE, '+'},
    {FORM_KEY_END, '1'},    {FORM_KEY_DOWN, '2'}, {FORM_KEY_PAGE_DOWN, '3'}, {FORM_KEY_NONE, '0'},
    {FORM_KEY_DELETE, '.'},
};

void keyboard_init(struct keyboard *k, uint32_t layout)
{
    memset(k, 0, sizeof(*k));
    k->own = &keymaps[0];
    for (size_t i = 0; i < keymap_count; i++)
        if (keymaps[i].id == layout) {
            k->own = &keymaps[i];
            break;
        }
    k->map = k->own;
}

bool keyboard_can_toggle(const struct keyboard *k)
{
    return k->own != &keymaps[0];
}

bool keyboard_toggle(struct keyboard *k)
{
    k->map = k->map == k->own ? &keymaps[0] : k->own;
    k->mark = 0;
    return keyboard_can_toggle(k);
}

const char *keyboard_name(const struct keyboard *k)
{
    return k->map->name;
}

/* ---- what is typed ---- */

static bool type(struct form_input *out, uint32_t c)
{
    *out = (struct form_input){.kind = FORM_CHAR, .character = c};
    return c != 0;
}

/* A dead key waits; what comes behind it becomes one with it, or stands for itself. */
static bool type_marked(struct keyboard *k, uint16_t c, struct form_input *out)
{
    uint16_t mark = k->mark;

    if (c >= KEYMAP_DEAD_FIRST) {
        k->mark = c;
        return false;
    }
    k->mark = 0;
    for (size_t i = 0; mark && i < keymap_mark_count; i++)
        if (keymap_marks[i].mark == mark && keymap_marks[i].next == c)
            return type(out, keymap_marks[i].character);
    return type(out, c);
}

/* AltGr is also Ctrl and Alt together, as Windows has it. */
static bool is_altgr(const struct keyboard *k)
{
    return k->altgr || (k->alt && (k->ctrl[0] || k->ctrl[1]));
}

static bool press_letter(struct keyboard *k, uint8_t code, struct form_input *out)
{
    unsigned how = (k->shift[0] || k->shift[1] ? KEYMAP_SHIFT : 0) |
                   (is_altgr(k) ? KEYMAP_ALTGR : 0) | (k->is_caps ? KEYMAP_CAPS : 0);
    uint16_t c = k->map->keys[code][how];

    if (!is_altgr(k) && (k->ctrl[0] || k->ctrl[1] || k->alt))
        return false; /* a shortcut of something else */
    return c && type_marked(k, c, out);
}

static bool press_key(const struct keyboard *k, enum form_key key, struct form_input *out)
{
    *out =
        (struct form_input){.kind = FORM_KEY, .key = key, .is_shift = k->shift[0] || k->shift[1]};
    return key != FORM_KEY_NONE;
}

static bool press_pad(struct keyboard *k, uint8_t code, bool is_extended, struct form_input *out)
{
    size_t i = (size_t)code - CODE_PAD_FIRST;

    if (!is_extended && (k->is_num || pad[i].number == '-' || pad[i].number == '+'))
        return type(out, (uint32_t)pad[i].number);
    return press_key(k, pad[i].key, out);
}

/* ---- what is held ---- */

static bool hold(struct keyboard *k, uint8_t code, bool is_extended, bool is_down)
{
    switch (code) {
    case CODE_SHIFT_LEFT: /* behind 0xe0 it belongs to other keys and means nothing */
        k->shift[0] = is_extended ? k->shift[0] : is_down;
        return true;
    case CODE_SHIFT_RIGHT:
        k->shift[1] = is_extended ? k->shift[1] : is_down;
        return true;
    case CODE_CTRL:
        k->ctrl[is_extended] = is_down;
        return true;
    case CODE_ALT:
        *(is_extended ? &k->altgr : &k->alt) = is_down;
        return true;
    case CODE_CAPS:
        k->is_caps ^= is_down;
        return true;
    case CODE_NUM:
        k->is_num ^= is_down && !is_extended;
        return true;
    default:
        return false;
    }
}

static bool scancode(struct keyboard *k, const struct input_event *e, struct form_input *out)
{
    uint8_t code = (uint8_t)e->code;

    if (e->code >= KEYMAP_KEYS || hold(k, code, e->is_extended, !e->is_release) || e->is_release)
        return false;
    for (size_t i = 0; i < sizeof(editing) / sizeof(editing[0]); i++)
        if (editing[i].code == code && (!e->is_extended || code == CODE_ENTER))
            return press_key(k, editing[i].key, out);
    if (code >= CODE_PAD_FIRST && code <= CODE_PAD_LAST)
        return press_pad(k, code, e->is_extended, out);
    if (e->is_extended)
        return code == CODE_SLASH && type(out, '/');
    return press_letter(k, code, out);
}

static bool unicode(struct keyboard *k, const struct input_event *e, struct form_input *out)
{
    uint16_t high = k->high;

    if (e->is_release)
        return false;
    k->high = 0;
    if (e->code >= 0xd800 && e->code < 0xdc00) {
        k->high = e->code;
        return false;
    }
    if (e->code >= 0xdc00 && e->code < 0xe000)
        return high && type(out, 0x10000u + ((high & 0x3ffu) << 10 | (e->code & 0x3ffu)));
    switch (e->code) { /* some clients send these so, too */
    case '\b':
        return press_key(k, FORM_KEY_BACKSPACE, out);
    case '\t':
        return press_key(k, FORM_KEY_TAB, out);
    case '\r':
    case '\n':
        return press_key(k, FORM_KEY_ENTER, out);
    default:
        return e->code >= 0x20 && type(out, e->code);
    }
}

/* After it all keys are up: those that are held are told anew. */
static bool synchronise(struct keyboard *k, uint32_t flags)
{
    k->shift[0] = k->shift[1] = k->ctrl[0] = k->ctrl[1] = k->alt = k->altgr = false;
    k->is_caps = flags & INPUT_SYNC_CAPS;
    k->is_num = flags & INPUT_SYNC_NUM;
    return false;
}

bool keyboard_event(struct keyboard *k, const struct input_event *e, struct form_input *out)
{
    switch (e->kind) {
    case INPUT_SCANCODE:
        return scancode(k, e, out);
    case INPUT_UNICODE:
        return unicode(k, e, out);
    case INPUT_SYNC:
        return synchronise(k, e->flags);
    default:
        return false;
    }
}
