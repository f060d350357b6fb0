/*
 * What the keys of a keyboard type, by the layouts of Windows: tables that the build makes from
 * xkb-data (keymaps/main.c). Read by proxy/rdp/keyboard.c only.
 */
#ifndef RDP_KEYMAPS_H
#define RDP_KEYMAPS_H

#include <stddef.h>
#include <stdint.h>

#define KEYMAP_KEYS       0x80    /* scancodes of set 1, without the extended ones */
#define KEYMAP_DEAD_FIRST 0xe000u /* from here a number stands for a dead key */

/* In which state a key is pressed. */
#define KEYMAP_SHIFT  1u
#define KEYMAP_ALTGR  2u
#define KEYMAP_CAPS   4u
#define KEYMAP_STATES 8u

struct keymap {
    uint32_t id;                               /* CS_CORE keyboardLayout */
    const char *name;                          /* "de" */
    uint16_t keys[KEYMAP_KEYS][KEYMAP_STATES]; /* a character, a dead key, or 0 */
};
extern const struct keymap keymaps[]; /* the first one is for those that are not known */
extern const size_t keymap_count;

/* A dead key and the character that is typed next make one. */
struct keymap_mark {
    uint16_t mark, next, character;
};
extern const struct keymap_mark keymap_marks[];
extern const size_t keymap_mark_count;

#endif
