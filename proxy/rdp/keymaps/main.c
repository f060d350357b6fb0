/*
 * sallyport-keymaps: a program of the build. It asks libxkbcommon what the keys of each keyboard
 * layout type, and prints that as C for proxy/rdp/keyboard.c: relays can open no files. What is by
 * hand here is only which layout of xkb-data a layout of Windows is.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <xkbcommon/xkbcommon-compose.h>
#include <xkbcommon/xkbcommon.h>

#include "proxy/rdp/keymaps/keymaps.h"

#define EVDEV_OFFSET 8 /* from a scancode to a keycode of XKB */
#define MARKS_MAX    64
#define CHARS_MAX    4096

/* [MS-LCID] and the layouts of Windows; what is not here is the first one. */
static const struct {
    uint32_t id;
    const char *layout, *variant;
} layouts[] = {
    {0x0409, "us", ""},           {0x00020409, "us", "intl"},   {0x00010409, "us", "dvorak"},
    {0x0809, "gb", ""},           {0x0452, "gb", "extd"},       {0x1809, "ie", ""},
    {0x0407, "de", ""},           {0x0c07, "de", ""},           {0x0807, "ch", ""},
    {0x100c, "ch", "fr"},         {0x1007, "ch", ""},           {0x040c, "fr", ""},
    {0x080c, "be", ""},           {0x0813, "be", ""},           {0x1009, "ca", "fr-legacy"},
    {0x0c0c, "ca", "fr-legacy"},  {0x00011009, "ca", "multix"}, {0x0410, "it", ""},
    {0x0810, "ch", "fr"},         {0x040a, "es", ""},           {0x0c0a, "es", ""},
    {0x080a, "latam", ""},        {0x0816, "pt", ""},           {0x0416, "br", ""},
    {0x00010416, "br", ""},       {0x0413, "nl", ""},           {0x0406, "dk", ""},
    {0x0414, "no", ""},           {0x0814, "no", ""},           {0x041d, "se", ""},
    {0x040b, "fi", ""},           {0x083b, "no", "smi"},        {0x040f, "is", ""},
    {0x0438, "fo", ""},           {0x0425, "ee", ""},           {0x0426, "lv", ""},
    {0x0427, "lt", ""},           {0x0415, "pl", ""},           {0x00010415, "pl", "qwertz"},
    {0x0405, "cz", ""},           {0x00010405, "cz", "qwerty"}, {0x041b, "sk", ""},
    {0x0001041b, "sk", "qwerty"}, {0x040e, "hu", ""},           {0x0418, "ro", ""},
    {0x041a, "hr", ""},           {0x0424, "si", ""},           {0x0c1a, "rs", ""},
    {0x081a, "rs", "latin"},      {0x141a, "ba", ""},           {0x042f, "mk", ""},
    {0x041c, "al", ""},           {0x0402, "bg", ""},           {0x0408, "gr", ""},
    {0x041f, "tr", ""},           {0x0001041f, "tr", "f"},      {0x0419, "ru", "winkeys"},
    {0x0422, "ua", ""},           {0x0423, "by", ""},           {0x043f, "kz", ""},
    {0x0437, "ge", ""},           {0x042b, "am", ""},           {0x040d, "il", ""},
    {0x0401, "ara", ""},          {0x0429, "ir", ""},           {0x0439, "in", ""},
    {0x041e, "th", ""},           {0x042a, "vn", ""},           {0x0411, "jp", ""},
    {0x0412, "kr", ""},           {0x0804, "us", ""},           {0x0404, "us", ""},
    {0x043a, "mt", ""},           {0x0440, "kg", ""},           {0x0450, "mn", ""},
};
#define LAYOUT_COUNT (sizeof(layouts) / sizeof(layouts[0]))

/* What may stand for one key in one state. Dead keys are numbered where no character is. */
static xkb_keysym_t marks[MARKS_MAX];
static size_t mark_count;
static uint16_t chars[CHARS_MAX];
static size_t char_count;

static bool is_dead(xkb_keysym_t sym)
{
    return sym >= 0xfe50 && sym <= 0xfe93;
}

static uint16_t number_mark(xkb_keysym_t sym)
{
    for (size_t i = 0; i < mark_count; i++)
        if (marks[i] == sym)
            return (uint16_t)(KEYMAP_DEAD_FIRST + i);
    if (mark_count == MARKS_MAX)
        return 0;
    marks[mark_count++] = sym;
    return (uint16_t)(KEYMAP_DEAD_FIRST + mark_count - 1);
}

static void note_char(uint16_t c)
{
    for (size_t i = 0; i < char_count; i++)
        if (chars[i] == c)
            return;
    if (char_count < CHARS_MAX)
        chars[char_count++] = c;
}

static uint16_t typed(struct xkb_state *state, xkb_keycode_t key)
{
    xkb_keysym_t sym = xkb_state_key_get_one_sym(state, key);
    uint32_t c;

    if (is_dead(sym))
        return number_mark(sym);
    c = xkb_state_key_get_utf32(state, key);
    if (c < 0x20 || c == 0x7f || c >= KEYMAP_DEAD_FIRST)
        return 0;
    note_char((uint16_t)c);
    return (uint16_t)c;
}

static xkb_mod_mask_t bit(struct xkb_keymap *map, const char *name)
{
    xkb_mod_index_t index = xkb_keymap_mod_get_index(map, name);

    return index == XKB_MOD_INVALID ? 0 : (xkb_mod_mask_t)1 << index;
}

static bool print_layout(struct xkb_context *context, size_t at)
{
    const struct xkb_rule_names names = {.rules = "evdev",
                                         .model = "pc105",
                                         .layout = layouts[at].layout,
                                         .variant = layouts[at].variant};
    struct xkb_keymap *map =
        xkb_keymap_new_from_names(context, &names, XKB_KEYMAP_COMPILE_NO_FLAGS);
    struct xkb_state *state = map ? xkb_state_new(map) : NULL;
    bool is_ok = state != NULL;

    printf("    {%#x, \"%s\", {\n", layouts[at].id, layouts[at].layout);
    for (xkb_keycode_t key = 0; is_ok && key < KEYMAP_KEYS; key++) {
        printf("        {");
        for (unsigned how = 0; how < KEYMAP_STATES; how++) {
            xkb_mod_mask_t held = (how & KEYMAP_SHIFT ? bit(map, XKB_MOD_NAME_SHIFT) : 0) |
                                  (how & KEYMAP_ALTGR ? bit(map, "Mod5") : 0);
            xkb_mod_mask_t locked = how & KEYMAP_CAPS ? bit(map, XKB_MOD_NAME_CAPS) : 0;

            xkb_state_update_mask(state, held, 0, locked, 0, 0, 0);
            printf("%s%#x", how ? ", " : "", typed(state, key + EVDEV_OFFSET));
        }
        printf("},\n");
    }
    printf("    }},\n");
    xkb_state_unref(state);
    xkb_keymap_unref(map);
    return is_ok;
}

/* The one character that the two make; 0 when they make none. */
static uint32_t composed(struct xkb_compose_state *state, xkb_keysym_t mark, uint16_t c)
{
    xkb_keysym_t sym;
    uint32_t out = 0;

    xkb_compose_state_reset(state);
    xkb_compose_state_feed(state, mark);
    xkb_compose_state_feed(state, xkb_utf32_to_keysym(c));
    if (xkb_compose_state_get_status(state) != XKB_COMPOSE_COMPOSED)
        return 0;
    sym = xkb_compose_state_get_one_sym(state);
    if (sym != XKB_KEY_NoSymbol)
        out = xkb_keysym_to_utf32(sym);
    return out < KEYMAP_DEAD_FIRST ? out : 0;
}

static bool print_marks(struct xkb_context *context)
{
    struct xkb_compose_table *table =
        xkb_compose_table_new_from_locale(context, "en_US.UTF-8", XKB_COMPOSE_COMPILE_NO_FLAGS);
    struct xkb_compose_state *state =
        table ? xkb_compose_state_new(table, XKB_COMPOSE_STATE_NO_FLAGS) : NULL;

    if (!state) {
        fprintf(stderr, "sallyport-keymaps: no compose table of X: is libx11-data installed?\n");
        return false;
    }
    printf("const struct keymap_mark keymap_marks[] = {\n");
    for (size_t m = 0; m < mark_count; m++)
        for (size_t i = 0; i < char_count; i++) {
            uint32_t c = composed(state, marks[m], chars[i]);

            if (c)
                printf("    {%#zx, %#x, %#x},\n", KEYMAP_DEAD_FIRST + m, chars[i], c);
        }
    printf(
        "};\nconst size_t keymap_mark_count = sizeof(keymap_marks) / sizeof(keymap_marks[0]);\n");
    xkb_compose_state_unref(state);
    xkb_compose_table_unref(table);
    return true;
}

int main(void)
{
    struct xkb_context *context = xkb_context_new(XKB_CONTEXT_NO_ENVIRONMENT_NAMES);
    bool is_ok = context != NULL;

    printf("/* Made by sallyport-keymaps from xkb-data. */\n"
           "#include \"proxy/rdp/keymaps/keymaps.h\"\n\n"
           "const struct keymap keymaps[] = {\n");
    for (size_t i = 0; is_ok && i < LAYOUT_COUNT; i++) {
        is_ok = print_layout(context, i);
        if (!is_ok)
            fprintf(stderr, "sallyport-keymaps: xkb-data has no layout %s(%s)\n", layouts[i].layout,
                    layouts[i].variant);
    }
    printf("};\nconst size_t keymap_count = sizeof(keymaps) / sizeof(keymaps[0]);\n\n");
    is_ok = is_ok && print_marks(context);
    xkb_context_unref(context);
    return is_ok ? 0 : 1;
}
