/*
 * The `echoed` heuristic: which typed lines came back on the screen. Typed text is held until
 * Enter, the output since its first character is followed as one line of text, and at the line feed
 * behind Enter the two are compared; FORMAT.md has the rule and its limits. In doubt a line is
 * dropped. By construction nothing is kept that did not appear in the output. Pure but for the
 * memory it holds while something is typed, which is bounded and wiped. The writer calls it.
 */
#include "tracker/recording/recording_priv.h"

#include <stdlib.h>
#include <string.h>

#include <sallyport/secret.h>

#define PENDING_MAX   16
#define ENDS_WITH_MIN 4

enum scan { SCAN_GROUND, SCAN_ESC, SCAN_CSI, SCAN_SS3, SCAN_STRING, SCAN_STRING_ESC };

/* A typed line, entered or still being typed. */
struct typed {
    size_t len;
    bool is_lost; /* edited in a way that is not followed, or too long: will be dropped */
    bool has_tab;
    int64_t entered_ms;
};

struct echo_memory {
    uint8_t held[ECHO_HELD_MAX];   /* the pending lines in order, then the current one */
    uint8_t screen[ECHO_HELD_MAX]; /* the output since */
    struct typed pending[PENDING_MAX];
};

struct echo {
    struct echo_memory *m; /* NULL while nothing is typed */
    size_t held_len;
    size_t pending_count;
    struct typed current;
    bool drop_first; /* the first pending line was handed out: forget it at the next call */

    enum scan in_scan; /* of the keyboard's escape sequences */
    uint32_t in_param;
    bool is_pasting; /* between bracketed paste marks */

    enum scan out_scan; /* of the output's */
    uint32_t out_param;
    bool out_private;
    bool out_has_alternate; /* one of several modes is that of the alternate screen */
    bool on_alternate;

    size_t screen_len, screen_pos;
    bool is_wrapping;    /* a blank and CR: how readline goes to the next row */
    bool is_screen_lost; /* the cursor went where one line cannot follow */
    bool is_screen_late; /* a line feed came in the middle of typing */
};

struct echo *echo_create(void)
{
    return calloc(1, sizeof(struct echo));
}

static void echo_release(struct echo *e)
{
    if (!e->m)
        return;
    memory_wipe(e->m, sizeof(*e->m));
    free(e->m);
    e->m = NULL;
    e->held_len = 0;
    e->pending_count = 0;
    e->drop_first = false;
    e->current = (struct typed){0};
}

void echo_destroy(struct echo *e)
{
    if (!e)
        return;
    echo_release(e);
    free(e);
}

static void screen_reset(struct echo *e)
{
    e->screen_len = e->screen_pos = 0;
    e->is_screen_lost = e->is_wrapping = false;
}

static void held_remove(struct echo *e, size_t at, size_t n)
{
    memmove(e->m->held + at, e->m->held + at + n, e->held_len - at - n);
    e->held_len -= n;
    memory_wipe(e->m->held + e->held_len, n);
}

static void pending_remove_first(struct echo *e)
{
    held_remove(e, 0, e->m->pending[0].len);
    e->pending_count--;
    memmove(e->m->pending, e->m->pending + 1, e->pending_count * sizeof(e->m->pending[0]));
}

/* Before anything else of a call: what the last call handed out goes. */
static void forget_kept(struct echo *e)
{
    if (e->drop_first && e->m) {
        pending_remove_first(e);
        screen_reset(e);
    }
    e->drop_first = false;
    if (e->m && e->held_len == 0 && e->pending_count == 0 && !e->current.is_lost)
        echo_release(e);
}

/* ---- what was typed ---- */

static void current_clear(struct echo *e)
{
    if (e->m)
        held_remove(e, e->held_len - e->current.len, e->current.len);
    e->current = (struct typed){0};
}

static void current_lose(struct echo *e)
{
    current_clear(e);
    e->current.is_lost = true;
}

static void current_put(struct echo *e, uint8_t byte)
{
    if (e->current.is_lost)
        return;
    if (!e->m) {
        e->m = calloc(1, sizeof(*e->m));
        if (!e->m) {
            e->current.is_lost = true;
            return;
        }
    }
    if (e->held_len == ECHO_HELD_MAX) {
        current_lose(e);
        return;
    }
    if (e->current.len == 0) {
        e->is_screen_late = false;
        if (e->pending_count == 0)
            screen_reset(e);
    }
    e->m->held[e->held_len++] = byte;
    e->current.len++;
    if (byte == '\t')
        e->current.has_tab = true;
}

/* Drop the last character of the line. */
static void current_pop(struct echo *e)
{
    while (e->current.len > 0) {
        uint8_t byte = e->m->held[e->held_len - 1];

        held_remove(e, e->held_len - 1, 1);
        e->current.len--;
        if ((byte & 0xC0) != 0x80)
            break;
    }
}

static void current_pop_word(struct echo *e)
{
    while (e->current.len > 0 && e->m->held[e->held_len - 1] == ' ')
        current_pop(e);
    while (e->current.len > 0 && e->m->held[e->held_len - 1] != ' ')
        current_pop(e);
}

static void current_enter(struct echo *e, int64_t now_ms)
{
    if (e->is_pasting) { /* a line feed inside the line: not followed */
        current_lose(e);
        return;
    }
    if (!e->m || e->pending_count == PENDING_MAX) {
        echo_release(e);
        e->current = (struct typed){0};
        return;
    }
    e->current.entered_ms = now_ms;
    e->m->pending[e->pending_count++] = e->current;
    e->current = (struct typed){0};
}

static void input_control(struct echo *e, uint8_t byte, int64_t now_ms)
{
    bool is_edit = byte == 0x7F || byte == 0x08 || byte == 0x15 || byte == 0x17;

    if (is_edit && e->current.has_tab) { /* what Tab inserted is not known, so neither is this */
        current_lose(e);
        return;
    }
    switch (byte) {
    case '\r':
    case '\n':
        current_enter(e, now_ms);
        break;
    case '\t':
        current_put(e, byte);
        break;
    case 0x7F: /* backspace */
    case 0x08:
        current_pop(e);
        break;
    case 0x15: /* Ctrl-U */
        if (!e->current.is_lost)
            current_clear(e);
        break;
    case 0x17: /* Ctrl-W */
        current_pop_word(e);
        break;
    case 0x03: /* Ctrl-C, Ctrl-D, Ctrl-Z, Ctrl-\ */
    case 0x04:
    case 0x1A:
    case 0x1C:
        current_clear(e);
        break;
    default:
        current_lose(e);
    }
}

/* The end of a CSI sequence from the keyboard side: a key, or an answer of the terminal. */
static void input_csi(struct echo *e, uint8_t final)
{
    if (final == '~' && (e->in_param == 200 || e->in_param == 201))
        e->is_pasting = e->in_param == 200;
    else if (!strchr("RcIOMmntyu", final))
        current_lose(e);
}

static void input_escape(struct echo *e, uint8_t byte)
{
    switch (e->in_scan) {
    case SCAN_ESC:
        e->in_param = 0;
        e->in_scan = byte == '['                                 ? SCAN_CSI
                     : byte == 'O'                               ? SCAN_SS3
                     : byte == ']' || byte == 'P' || byte == '_' ? SCAN_STRING
                                                                 : SCAN_GROUND;
        if (e->in_scan == SCAN_GROUND) /* Alt and a key */
            current_lose(e);
        break;
    case SCAN_CSI:
        if (byte >= '0' && byte <= '9')
            e->in_param = e->in_param > 9999 ? e->in_param : e->in_param * 10 + (byte - '0');
        else if (byte >= 0x40 && byte <= 0x7E) {
            e->in_scan = SCAN_GROUND;
            input_csi(e, byte);
        } else if (byte < 0x20) {
            e->in_scan = SCAN_GROUND;
        }
        break;
    case SCAN_SS3:
        e->in_scan = SCAN_GROUND;
        current_lose(e);
        break;
    case SCAN_STRING: /* an answer of the terminal */
        e->in_scan = byte == 0x07 ? SCAN_GROUND : byte == 0x1B ? SCAN_STRING_ESC : SCAN_STRING;
        break;
    case SCAN_STRING_ESC:
    case SCAN_GROUND:
        e->in_scan = SCAN_GROUND;
        break;
    }
}

void echo_input(struct echo *e, const uint8_t *data, size_t len, int64_t now_ms)
{
    forget_kept(e);
    if (e->on_alternate) {
        echo_release(e);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (e->in_scan != SCAN_GROUND)
            input_escape(e, data[i]);
        else if (data[i] == 0x1B)
            e->in_scan = SCAN_ESC;
        else if (data[i] < 0x20 || data[i] == 0x7F)
            input_control(e, data[i], now_ms);
        else
            current_put(e, data[i]);
    }
}

/* ---- what came back ---- */

static bool is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

static void screen_back(struct echo *e, uint32_t n)
{
    for (; n > 0 && e->screen_pos > 0; n--)
        do
            e->screen_pos--;
        while (e->screen_pos > 0 && is_continuation(e->m->screen[e->screen_pos]));
}

static size_t screen_char_len(const struct echo *e)
{
    size_t end = e->screen_pos;

    if (end < e->screen_len)
        end++;
    while (end < e->screen_len && is_continuation(e->m->screen[end]))
        end++;
    return end - e->screen_pos;
}

static void screen_delete(struct echo *e, uint32_t n)
{
    for (; n > 0 && e->screen_pos < e->screen_len; n--) {
        size_t k = screen_char_len(e);

        memmove(e->m->screen + e->screen_pos, e->m->screen + e->screen_pos + k,
                e->screen_len - e->screen_pos - k);
        e->screen_len -= k;
    }
}

static void screen_insert(struct echo *e, uint8_t byte)
{
    if (e->screen_len >= ECHO_HELD_MAX - 1) { /* one left for the carriage return */
        e->is_screen_lost = true;
        return;
    }
    memmove(e->m->screen + e->screen_pos + 1, e->m->screen + e->screen_pos,
            e->screen_len - e->screen_pos);
    e->m->screen[e->screen_pos++] = byte;
    e->screen_len++;
}

static void screen_put(struct echo *e, uint8_t byte)
{
    if (e->is_wrapping) { /* it was no blank of the line */
        screen_back(e, 1);
        screen_delete(e, 1);
        e->is_wrapping = false;
    }
    if (!is_continuation(byte))
        screen_delete(e, 1);
    screen_insert(e, byte);
}

static void screen_csi(struct echo *e, uint8_t final)
{
    uint32_t n = e->out_param ? e->out_param : 1;

    switch (final) {
    case 'm':
    case 'h':
    case 'l':
    case 'n':
    case 'c':
    case 'q':
    case 't':
        break;
    case 'K':
    case 'J':
        if (e->out_param == 0)
            e->screen_len = e->screen_pos;
        else
            e->is_screen_lost = true;
        break;
    case 'C':
        for (; n > 0 && e->screen_pos < e->screen_len; n--)
            e->screen_pos += screen_char_len(e);
        if (n > 0) /* over what stands there and is not known: something, but not the line */
            screen_put(e, ' ');
        break;
    case 'D':
        screen_back(e, n);
        break;
    case 'P':
        screen_delete(e, n);
        break;
    default: /* the cursor moves, or the screen changes in a way that one line cannot tell */
        e->is_screen_lost = true;
    }
}

static bool has_in_order(const uint8_t *screen, size_t screen_len, const uint8_t *line, size_t len)
{
    size_t at = 0, from = 0, last;

    for (last = len; last > 0 && line[last - 1] != '\t'; last--)
        ;
    if (len - last > screen_len ||
        memcmp(screen + screen_len - (len - last), line + last, len - last) != 0)
        return false;
    while (from < last) {
        const uint8_t *tab = memchr(line + from, '\t', last - from);
        size_t n = (size_t)(tab - (line + from));
        const uint8_t *found = memmem(screen + at, screen_len - at, line + from, n);

        if (!found || (from == 0 && (found != screen || n == 0)))
            return false;
        at = (size_t)(found - screen) + n;
        from += n + 1;
    }
    return len - last <= screen_len - at;
}

/* Did the first pending line come back? Sets what the event shows. */
static bool echo_decide(struct echo *e, const uint8_t **line, size_t *line_len)
{
    const struct typed *t = &e->m->pending[0];
    const uint8_t *held = e->m->held, *screen = e->m->screen;
    size_t screen_len = e->screen_pos;

    if (t->is_lost || t->len == 0 || e->is_screen_lost || t->len > screen_len)
        return false;
    if (t->has_tab) {
        if (e->is_screen_late || !has_in_order(screen, screen_len, held, t->len))
            return false;
    } else if (memcmp(screen + screen_len - t->len, held, t->len) != 0 ||
               (screen_len != t->len && t->len < ENDS_WITH_MIN)) {
        return false;
    } else {
        /* the typed line stands at the end of the screen's: hand that out */
        memmove(e->m->screen, held, t->len);
        screen_len = t->len;
    }
    e->m->screen[screen_len++] = '\r';
    *line = e->m->screen;
    *line_len = screen_len;
    return true;
}

/* A line feed. True when a line came back: it stays until the next call. */
static bool echo_line_feed(struct echo *e, const uint8_t **line, size_t *line_len)
{
    if (e->pending_count > 0) {
        e->drop_first = true;
        if (echo_decide(e, line, line_len))
            return true;
        forget_kept(e);
        return false;
    }
    e->is_screen_late = true;
    screen_reset(e);
    return false;
}

static bool is_alternate_mode(const struct echo *e)
{
    return e->out_private && (e->out_param == 1049 || e->out_param == 1047 || e->out_param == 47);
}

static void output_csi(struct echo *e, uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        e->out_param = e->out_param > 99999 ? e->out_param : e->out_param * 10 + (byte - '0');
    } else if (byte == '?') {
        e->out_private = true;
    } else if (byte == ';') {
        /* several modes in one sequence: look at each */
        e->out_has_alternate |= is_alternate_mode(e);
        e->out_param = 0;
    } else if (byte >= 0x40 && byte <= 0x7E) {
        e->out_scan = SCAN_GROUND;
        if ((byte == 'h' || byte == 'l') && (e->out_has_alternate || is_alternate_mode(e)))
            e->on_alternate = byte == 'h';
        else if (e->m)
            screen_csi(e, byte);
    } else if (byte == 0x1B) {
        e->out_scan = SCAN_ESC;
    } else if (byte == 0x18 || byte == 0x1A) { /* CAN, SUB */
        e->out_scan = SCAN_GROUND;
    }
}

static void output_escape(struct echo *e, uint8_t byte)
{
    switch (e->out_scan) {
    case SCAN_ESC:
        e->out_param = 0;
        e->out_private = e->out_has_alternate = false;
        if (byte == '[')
            e->out_scan = SCAN_CSI;
        else if (byte == ']' || byte == 'P' || byte == '_' || byte == '^' || byte == 'X')
            e->out_scan = SCAN_STRING;
        else if (byte >= 0x30)
            e->out_scan = SCAN_GROUND;
        if (byte == 'c')
            e->on_alternate = false;
        break;
    case SCAN_CSI:
        output_csi(e, byte);
        break;
    case SCAN_STRING:
        e->out_scan = byte == 0x07 || byte == 0x18 || byte == 0x1A ? SCAN_GROUND
                      : byte == 0x1B                               ? SCAN_STRING_ESC
                                                                   : SCAN_STRING;
        break;
    default:
        e->out_scan = SCAN_GROUND;
    }
}

size_t echo_output(struct echo *e, const uint8_t *data, size_t len, const uint8_t **line,
                   size_t *line_len)
{
    size_t i = 0;

    *line = NULL;
    forget_kept(e);
    while (i < len) {
        uint8_t byte = data[i++];

        if (e->out_scan != SCAN_GROUND) {
            output_escape(e, byte);
            if (e->on_alternate)
                echo_release(e);
        } else if (byte == 0x1B) {
            e->out_scan = SCAN_ESC;
        } else if (!e->m) { /* nothing typed: only look for escape sequences */
            const uint8_t *esc = memchr(data + i, 0x1B, len - i);

            i = esc ? (size_t)(esc - data) : len;
        } else if (byte == '\n') {
            if (echo_line_feed(e, line, line_len))
                return i;
        } else if (byte == '\r') {
            e->is_wrapping = e->screen_pos > 0 && e->screen_pos == e->screen_len &&
                             e->m->screen[e->screen_pos - 1] == ' ';
        } else if (byte == 0x08) {
            screen_back(e, 1);
        } else if (byte >= 0x20 && byte != 0x7F) {
            screen_put(e, byte);
        }
    }
    return i;
}

int64_t echo_tick(struct echo *e, int64_t now_ms)
{
    forget_kept(e);
    while (e->pending_count > 0) {
        int64_t left = e->m->pending[0].entered_ms + ECHO_PENDING_MS - now_ms;

        if (left > 0)
            return left;
        pending_remove_first(e);
    }
    forget_kept(e);
    return -1;
}
