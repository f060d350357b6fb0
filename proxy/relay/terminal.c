/*
 * Follows what a target sends to the user's terminal, as far as notices need it: is the output in
 * the middle of something, is the alternate screen on, which modes must be undone at the end. The
 * parser is that of the DEC VT500 without the printing; 8-bit C1 controls are not interpreted,
 * since they are continuation bytes in UTF-8. Pure; the protocols call it for every piece of a
 * terminal's output, so plain text is skipped by memchr().
 */
#include "proxy/relay/terminal.h"

#include <string.h>

#include <sallyport/text.h>

enum {
    STATE_GROUND,
    STATE_ESC,
    STATE_ESC_INTERMEDIATE, /* ESC ( and such: one more byte */
    STATE_CSI,
    STATE_CSI_SOFT_RESET, /* CSI ! */
    STATE_CSI_KEYS,       /* CSI > and CSI =: keyboard protocols */
    STATE_CSI_IGNORE,
    STATE_OSC,     /* ended by BEL or ST */
    STATE_STRING,  /* DCS, APC, PM, SOS: ended by ST */
    STATE_OSC_ESC, /* ESC within: ST, if a backslash follows */
    STATE_STRING_ESC
};

#define ESC "\033"
#define CAN 0x18
#define SUB 0x1A
#define BEL 0x07

#define COLS_DEFAULT 80
#define ROWS_DEFAULT 24

/* In the order of the bits of mouse_modes. */
static const uint16_t mouse_modes[] = {9, 1000, 1002, 1003, 1004, 1005, 1006, 1015};

#define MOUSE_MODE_COUNT (sizeof(mouse_modes) / sizeof(mouse_modes[0]))

void terminal_init(struct terminal *t, uint16_t cols, uint16_t rows)
{
    *t = (struct terminal){.at_line_start = true};
    terminal_resize(t, cols, rows);
}

void terminal_resize(struct terminal *t, uint16_t cols, uint16_t rows)
{
    t->cols = cols ? cols : COLS_DEFAULT;
    t->rows = rows ? rows : ROWS_DEFAULT;
}

bool terminal_is_ground(const struct terminal *t)
{
    return t->state == STATE_GROUND && t->utf8_left == 0;
}

/* ---- what sequences do ---- */

/* DECSTR: what xterm resets; the screen, the mouse and pasting stay. */
static void soft_reset(struct terminal *t)
{
    t->cursor_hidden = t->app_cursor = t->app_keypad = false;
}

/* RIS: as after switching on. */
static void full_reset(struct terminal *t)
{
    terminal_init(t, t->cols, t->rows);
    t->has_escapes = true;
}

static void set_mode(struct terminal *t, uint16_t mode, bool on)
{
    switch (mode) {
    case 1:
        t->app_cursor = on;
        return;
    case 25:
        t->cursor_hidden = !on;
        return;
    case 47:
    case 1047:
    case 1049:
        t->on_alternate = on;
        t->alternate_mode = on ? mode : 0;
        return;
    case 66:
        t->app_keypad = on;
        return;
    case 2004:
        t->bracketed_paste = on;
        return;
    default:
        break;
    }
    for (size_t i = 0; i < MOUSE_MODE_COUNT; i++)
        if (mouse_modes[i] == mode) {
            uint16_t bit = (uint16_t)(1u << i);

            t->mouse_modes = (uint16_t)(on ? t->mouse_modes | bit : t->mouse_modes & ~bit);
        }
}

static void csi_final(struct terminal *t, uint8_t byte)
{
    if (t->is_private && (byte == 'h' || byte == 'l'))
        for (size_t i = 0; i < t->param_count; i++)
            set_mode(t, t->params[i], byte == 'h');
}

/* CSI > Pp ; Pv m sets how xterm encodes keys with modifiers, CSI > flags u and CSI = flags u what
 * kitty sends: both make a shell unusable when they stay on. */
static void csi_keys_final(struct terminal *t, uint8_t byte)
{
    if (byte == 'm' && t->params[0] == 4)
        t->modified_keys = t->param_count > 1 && t->params[1] != 0;
    else if (byte == 'u')
        t->kitty_keys = true;
}

static void esc_final(struct terminal *t, uint8_t byte)
{
    if (byte == 'c')
        full_reset(t);
    else if (byte == '=' || byte == '>')
        t->app_keypad = byte == '=';
}

/* ---- the parser ---- */

static void csi_clear(struct terminal *t)
{
    t->is_private = false;
    t->param_count = 0;
    memset(t->params, 0, sizeof(t->params));
}

static void csi_begin(struct terminal *t)
{
    csi_clear(t);
    t->state = STATE_CSI;
}

static void esc_byte(struct terminal *t, uint8_t byte)
{
    if (byte == '[') {
        csi_begin(t);
    } else if (byte == ']') {
        t->state = STATE_OSC;
    } else if (byte == 'P' || byte == '_' || byte == '^' || byte == 'X') {
        t->state = STATE_STRING;
    } else if (byte >= 0x20 && byte <= 0x2F) {
        t->state = STATE_ESC_INTERMEDIATE;
    } else if (byte >= 0x20) {
        t->state = STATE_GROUND;
        if (byte < 0x7F)
            esc_final(t, byte);
    } /* C0 controls are carried out in the middle of a sequence */
}

#define PARAM_MAX (sizeof(((struct terminal *)0)->params) / sizeof(uint16_t))

static void csi_param(struct terminal *t, uint8_t byte)
{
    uint16_t *param;

    if (t->param_count == 0)
        t->param_count = 1;
    if (byte == ';' || byte == ':') {
        if (t->param_count <= PARAM_MAX)
            t->param_count++;
        return;
    }
    if (t->param_count > PARAM_MAX) /* more than we look at */
        return;
    param = &t->params[t->param_count - 1];
    *param = (uint16_t)(*param > 6000 ? 6001 : *param * 10 + (byte - '0'));
}

static void csi_end(struct terminal *t, uint8_t byte)
{
    uint8_t state = t->state;

    if (t->param_count > PARAM_MAX)
        t->param_count = PARAM_MAX;
    t->state = STATE_GROUND;
    if (state == STATE_CSI)
        csi_final(t, byte);
    else if (state == STATE_CSI_SOFT_RESET && byte == 'p')
        soft_reset(t);
    else if (state == STATE_CSI_KEYS)
        csi_keys_final(t, byte);
    csi_clear(t);
}

static void csi_byte(struct terminal *t, uint8_t byte)
{
    if (byte >= 0x40 && byte <= 0x7E)
        csi_end(t, byte);
    else if ((byte >= '0' && byte <= ';'))
        csi_param(t, byte);
    else if (byte == '?' && t->state == STATE_CSI && t->param_count == 0)
        t->is_private = true;
    else if ((byte == '>' || byte == '=') && t->state == STATE_CSI && t->param_count == 0)
        t->state = STATE_CSI_KEYS;
    else if (byte == '!' && t->state == STATE_CSI && t->param_count == 0)
        t->state = STATE_CSI_SOFT_RESET;
    else if (byte >= 0x20 && byte <= 0x3F)
        t->state = STATE_CSI_IGNORE;
    else if (byte >= 0x80)
        t->state = STATE_GROUND;
}

static void string_byte(struct terminal *t, uint8_t byte)
{
    if (byte == 0x1B)
        t->state = t->state == STATE_OSC ? STATE_OSC_ESC : STATE_STRING_ESC;
    else if (byte == BEL && t->state == STATE_OSC)
        t->state = STATE_GROUND;
}

/* Behind an ESC in a string. Two of them stand for one within a string that is passed on to an
 * outer terminal (tmux, screen); anything but a backslash cuts the string short. */
static void string_esc_byte(struct terminal *t, uint8_t byte)
{
    if (byte == '\\') {
        t->state = STATE_GROUND;
    } else if (byte == 0x1B && t->state == STATE_STRING_ESC) {
        t->state = STATE_STRING;
    } else {
        t->state = STATE_ESC;
        if (byte != 0x1B)
            esc_byte(t, byte);
    }
}

static void sequence_byte(struct terminal *t, uint8_t byte)
{
    if (byte == CAN || byte == SUB) {
        t->state = STATE_GROUND;
        return;
    }
    switch (t->state) {
    case STATE_OSC:
    case STATE_STRING:
        string_byte(t, byte);
        return;
    case STATE_OSC_ESC:
    case STATE_STRING_ESC:
        string_esc_byte(t, byte);
        return;
    default:
        break;
    }
    if (byte == 0x1B) {
        t->state = STATE_ESC;
        return;
    }
    switch (t->state) {
    case STATE_ESC:
        esc_byte(t, byte);
        break;
    case STATE_ESC_INTERMEDIATE:
        if (byte >= 0x30)
            t->state = STATE_GROUND;
        break;
    default:
        csi_byte(t, byte);
    }
}

static bool is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* How many bytes the text lacks of its last character. */
static uint8_t utf8_missing(const uint8_t *data, size_t len)
{
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        uint8_t byte = data[len - back];
        size_t need = byte < 0xC2 || byte > 0xF4 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;

        if (!is_continuation(byte))
            return (uint8_t)(need > back ? need - back : 0);
    }
    return 0;
}

/* Text and controls without an ESC. */
static void ground_text(struct terminal *t, const uint8_t *data, size_t len)
{
    size_t end = len;

    while (t->utf8_left > 0 && len > 0 && is_continuation(*data)) {
        t->utf8_left--;
        data++;
        len--;
        end--;
        t->at_line_start = false;
    }
    if (len == 0)
        return;
    t->utf8_left = utf8_missing(data, len);
    while (end > 0 && data[end - 1] < 0x20 && data[end - 1] != '\n')
        end--;
    if (end > 0)
        t->at_line_start = data[end - 1] == '\n';
}

/*
 * Behind an ESC: most sequences are colours, a CSI with numbers, and nothing that is followed here
 * changes by one of those without a private mark. Returns what is behind it, NULL when it is
 * something else or not there in full.
 */
static const uint8_t *skip_plain_csi(const uint8_t *data, const uint8_t *end)
{
    if (data == end || *data != '[')
        return NULL;
    do
        data++;
    while (data < end && *data >= '0' && *data <= ';');
    return data < end && *data >= 0x40 && *data <= 0x7E ? data + 1 : NULL;
}

static const uint8_t *ground(struct terminal *t, const uint8_t *data, const uint8_t *end)
{
    const uint8_t *esc = memchr(data, 0x1B, (size_t)(end - data)), *behind;

    ground_text(t, data, (size_t)((esc ? esc : end) - data));
    if (!esc)
        return end;
    t->utf8_left = 0;
    t->has_escapes = true;
    behind = skip_plain_csi(esc + 1, end);
    if (behind) {
        csi_clear(t);
        return behind;
    }
    t->state = STATE_ESC;
    return esc + 1;
}

void terminal_output(struct terminal *t, const uint8_t *data, size_t len)
{
    const uint8_t *end = data + len;

    while (data < end) {
        if (t->state == STATE_GROUND)
            data = ground(t, data, end);
        else
            sequence_byte(t, *data++);
    }
}

/* ---- notices ---- */

/* The length of `text` that fits in `cols` columns. What may be wide counts as two. */
static size_t fitting(const char *text, size_t len, size_t cols)
{
    size_t used = 0, i = 0;

    while (i < len) {
        size_t from = i;
        uint8_t lead = (uint8_t)text[i++];

        while (i < len && is_continuation((uint8_t)text[i]))
            i++;
        used += lead < 0xE1 ? 1 : 2;
        if (used > cols)
            return from;
    }
    return len;
}

static void notice_on_alternate(const struct terminal *t, const char *text, struct buffer *out)
{
    struct buffer escaped;

    buffer_init(&escaped, 8192);
    text_escape_append(&escaped, text, strlen(text));
    /* Save the cursor with its attributes, character sets and origin mode, leave those, and write
     * over the last line. */
    buffer_printf(out, ESC "7" ESC "[?6l" ESC "(B\017" ESC "[%u;1H" ESC "[0m" ESC "[2K" ESC "[7m",
                  t->rows);
    buffer_put(out, escaped.data, fitting((const char *)escaped.data, escaped.len, t->cols));
    buffer_put_str(out, ESC "[0m" ESC "8");
    if (escaped.failed)
        out->failed = true;
    buffer_finish(&escaped);
}

static void notice_line(struct terminal *t, const char *text, struct buffer *out)
{
    if (t->has_escapes) /* a terminal that never got one may not know them */
        buffer_put_str(out, ESC "[0m");
    buffer_put_str(out, t->at_line_start ? "\r" : "\r\n");
    text_escape_append(out, text, strlen(text));
    buffer_put_str(out, "\r\n");
    t->at_line_start = true;
}

void terminal_notice(struct terminal *t, const char *text, struct buffer *out, bool *needs_redraw)
{
    *needs_redraw = t->on_alternate;
    if (t->on_alternate)
        notice_on_alternate(t, text, out);
    else
        notice_line(t, text, out);
}

static void undo_keys(const struct terminal *t, struct buffer *out)
{
    if (t->kitty_keys)
        buffer_put_str(out, ESC "[<99u");
}

static void leave_alternate(struct terminal *t, struct buffer *out)
{
    if (!t->on_alternate)
        return;
    undo_keys(t, out); /* each screen has its own */
    buffer_printf(out, ESC "[r" ESC "[?%ul", t->alternate_mode);
    t->at_line_start = false;
}

void terminal_abandon(struct terminal *t, struct buffer *out)
{
    if (t->state != STATE_GROUND) /* ST by itself does nothing */
        buffer_put_str(out, "\030" ESC "\\");
    t->state = STATE_GROUND;
    t->utf8_left = 0; /* a terminal shows a replacement for the character that has no end */
}

void terminal_final_notice(struct terminal *t, const char *text, struct buffer *out)
{
    terminal_abandon(t, out);
    leave_alternate(t, out);
    undo_keys(t, out);
    for (size_t i = 0; i < MOUSE_MODE_COUNT; i++)
        if (t->mouse_modes & 1u << i)
            buffer_printf(out, ESC "[?%ul", mouse_modes[i]);
    if (t->bracketed_paste)
        buffer_put_str(out, ESC "[?2004l");
    if (t->app_cursor)
        buffer_put_str(out, ESC "[?1l");
    if (t->app_keypad)
        buffer_put_str(out, ESC ">");
    if (t->modified_keys)
        buffer_put_str(out, ESC "[>4m");
    if (t->cursor_hidden)
        buffer_put_str(out, ESC "[?25h");
    if (t->has_escapes) /* character sets to ASCII; notice_line() resets the attributes */
        buffer_put_str(out, ESC "(B\017");
    notice_line(t, text, out);
    terminal_init(t, t->cols, t->rows);
}
