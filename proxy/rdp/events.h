/*
 * Input events of a client, [MS-RDPBCGR] 2.2.8.1.1.3 and 2.2.8.1.2, for a screen of our own: what
 * was pressed and where. Pure functions over bytes from outside; events.c. (What counts as a human
 * at a relayed desktop is input.c's.)
 */
#ifndef RDP_EVENTS_H
#define RDP_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/cursor.h>

enum input_kind {
    INPUT_NONE, /* time stamps and the like */
    INPUT_SCANCODE,
    INPUT_UNICODE,
    INPUT_SYNC,
    INPUT_POINTER,
    INPUT_BUTTONS /* the fourth and fifth button: TS_POINTERX_EVENT */
};

/* TS_SYNC_EVENT */
#define INPUT_SYNC_NUM  0x2u
#define INPUT_SYNC_CAPS 0x4u

/* TS_POINTER_EVENT */
#define INPUT_POINTER_NEGATIVE 0x0100u
#define INPUT_POINTER_WHEEL    0x0200u
#define INPUT_POINTER_HWHEEL   0x0400u
#define INPUT_POINTER_MOVE     0x0800u
#define INPUT_POINTER_BUTTON1  0x1000u
#define INPUT_POINTER_BUTTON2  0x2000u
#define INPUT_POINTER_BUTTON3  0x4000u
#define INPUT_POINTER_DOWN     0x8000u

struct input_event {
    enum input_kind kind;
    bool is_release;   /* of SCANCODE, UNICODE */
    bool is_extended;  /* of SCANCODE: behind 0xe0 or 0xe1 */
    bool is_extended1; /* behind 0xe1 */
    uint16_t code;     /* scancode, or a unit of UTF-16 */
    uint32_t flags;    /* of SYNC, POINTER, BUTTONS: 1 the fourth, 2 the fifth */
    uint16_t x, y;
};

struct input_reader {
    struct cursor c;
    uint16_t left; /* events */
    bool is_fast;
};

/* first: byte 0 of the fast-path PDU, which may count the events; body: behind its length. */
MUST_CHECK bool input_begin_fast(struct input_reader *r, uint8_t first, struct cursor body);
/* body: of a DATA_INPUT PDU. */
MUST_CHECK bool input_begin_slow(struct input_reader *r, struct cursor body);
/* PARSE_OK and the next one; PARSE_MORE behind the last; PARSE_BAD. */
enum parse input_next(struct input_reader *r, struct input_event *out);

#endif
