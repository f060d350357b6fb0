/*
 * The allow-list of play_filter.h as a small terminal parser (after the state diagram of DEC's
 * VT500 series), without any screen. What passes is written again from its parsed parts, never
 * copied, so that nothing unusual can hide inside a sequence that looks allowed.
 */
#include "control/cli/play_filter.h"

#include <string.h>

#include <sallyport/cursor.h>

#define ESC            0x1b
#define CSI_PARAMS_MAX 32
#define CSI_VALUE_MAX  9999 /* past any screen; terminals clamp, some slowly */
#define REPEAT_MAX     1000
#define REPLACEMENT    "\xef\xbf\xbd"

/* One allowed control sequence: private mark, intermediate, final byte and how many parameters. */
struct csi_rule {
    char mark;         /* '?' or 0 */
    char intermediate; /* or 0 */
    char final;
    uint8_t params_max;
};

static const struct csi_rule csi_rules[] = {
    {0, 0, '@', 1}, /* ICH: insert characters */
    {0, 0, 'A', 1}, /* CUU and the other cursor movements */
    {0, 0, 'B', 1},   {0, 0, 'C', 1},   {0, 0, 'D', 1}, {0, 0, 'E', 1},
    {0, 0, 'F', 1},   {0, 0, 'G', 1},   {0, 0, 'H', 2}, /* CUP */
    {0, 0, 'I', 1},                                     /* CHT: tabs forward */
    {0, 0, 'J', 1},                                     /* ED */
    {0, 0, 'K', 1},                                     /* EL */
    {0, 0, 'L', 1},                                     /* IL, DL: insert and delete lines */
    {0, 0, 'M', 1},   {0, 0, 'P', 1},                   /* DCH: delete characters */
    {0, 0, 'S', 1}, /* SU, SD; SD with five parameters would start mouse tracking */
    {0, 0, 'T', 1},   {0, 0, 'X', 1},  /* ECH */
    {0, 0, 'Z', 1},                    /* CBT: tabs backward */
    {0, 0, '`', 1},                    /* HPA, HPR */
    {0, 0, 'a', 1},   {0, 0, 'b', 1},  /* REP, clamped */
    {0, 0, 'd', 1},                    /* VPA, VPR */
    {0, 0, 'e', 1},   {0, 0, 'f', 2},  /* HVP */
    {0, 0, 'g', 1},                    /* TBC */
    {0, 0, 'h', 8},                    /* SM, RM: see modes */
    {0, 0, 'l', 8},   {0, 0, 'm', 32}, /* SGR */
    {0, 0, 'r', 2},                    /* DECSTBM */
    {0, 0, 's', 0}, /* save and restore the cursor; with parameters `s` sets side margins */
    {0, 0, 'u', 0},   {0, ' ', 'q', 1}, /* DECSCUSR */
    {0, '!', 'p', 0},                   /* DECSTR */
    {'?', 0, 'J', 1},                   /* DECSED, DECSEL */
    {'?', 0, 'K', 1}, {'?', 0, 'h', 8}, /* DECSET, DECRST: see private_modes */
    {'?', 0, 'l', 8},
};

static const uint16_t modes[] = {4 /* insert */};
static const uint16_t private_modes[] = {
    5,    /* reverse screen */
    6,    /* origin */
    7,    /* wrap */
    12,   /* cursor blinks */
    25,   /* cursor is visible */
    47,   /* alternate screen, four spellings */
    1047, /* */
    1048, /* saves the cursor only */
    1049, /* */
};

struct csi {
    char mark, intermediate, final;
    uint32_t params[CSI_PARAMS_MAX];
    bool is_sub[CSI_PARAMS_MAX]; /* a colon stood before it: 4:3, 38:2::1:2:3 */
    bool is_set[CSI_PARAMS_MAX];
    size_t count;
};

void play_filter_init(struct play_filter *f)
{
    memset(f, 0, sizeof(*f));
}

static void put_byte(struct buffer *out, uint8_t c)
{
    buffer_put(out, &c, 1);
}

static void enter(struct play_filter *f, enum play_filter_state state)
{
    f->state = state;
    f->sequence_len = 0;
    f->is_overlong = false;
    f->string_len = 0;
}

static void drop(struct play_filter *f)
{
    f->dropped++;
}

/* The parts of a control sequence; false when it is not one that a terminal would understand. */
static bool csi_parse(const struct play_filter *f, struct csi *csi)
{
    struct cursor c = cursor_of(f->sequence, f->sequence_len);
    uint8_t byte = 0;

    memset(csi, 0, sizeof(*csi));
    if (cursor_left(&c) && *c.at >= '<' && *c.at <= '?') {
        csi->mark = (char)*c.at;
        c.at++;
    }
    while (cursor_u8(&c, &byte) && byte >= '0' && byte <= ';') {
        if (csi->count == 0)
            csi->count = 1;
        if (byte == ';' || byte == ':') {
            if (csi->count == CSI_PARAMS_MAX)
                return false;
            csi->is_sub[csi->count] = byte == ':';
            csi->count++;
            continue;
        }
        uint32_t *value = &csi->params[csi->count - 1];
        csi->is_set[csi->count - 1] = true;
        *value = *value * 10 + (uint32_t)(byte - '0');
        if (*value > CSI_VALUE_MAX)
            *value = CSI_VALUE_MAX;
    }
    if (byte >= 0x20 && byte <= 0x2f) {
        csi->intermediate = (char)byte;
        if (!cursor_u8(&c, &byte))
            return false;
    }
    csi->final = (char)byte;
    return cursor_at_end(&c) && byte >= 0x40 && byte <= 0x7e;
}

static const struct csi_rule *csi_rule(const struct csi *csi)
{
    for (size_t i = 0; i < sizeof(csi_rules) / sizeof(csi_rules[0]); i++) {
        const struct csi_rule *r = &csi_rules[i];
        if (r->mark == csi->mark && r->intermediate == csi->intermediate && r->final == csi->final)
            return csi->count <= r->params_max ? r : NULL;
    }
    return NULL;
}

static bool mode_allowed(const struct csi *csi, uint32_t mode)
{
    const uint16_t *list = csi->mark ? private_modes : modes;
    size_t count = csi->mark ? sizeof(private_modes) / sizeof(private_modes[0])
                             : sizeof(modes) / sizeof(modes[0]);

    for (size_t i = 0; i < count; i++) {
        if (list[i] == mode)
            return true;
    }
    return false;
}

/* Modes pass one by one: what is not in the list falls out of its sequence. */
static void emit_modes(struct play_filter *f, const struct csi *csi, struct buffer *out)
{
    for (size_t i = 0; i < csi->count; i++) {
        uint32_t mode = csi->params[i];
        if (csi->is_sub[i] || !csi->is_set[i] || !mode_allowed(csi, mode)) {
            drop(f);
            continue;
        }
        buffer_printf(out, "\033[%s%u%c", csi->mark ? "?" : "", mode, csi->final);
        if (csi->mark && (mode == 47 || mode == 1047 || mode == 1049))
            f->is_alternate = csi->final == 'h';
    }
}

static void emit_csi(struct play_filter *f, struct buffer *out)
{
    struct csi csi;

    if (f->is_overlong || !csi_parse(f, &csi) || !csi_rule(&csi)) {
        drop(f);
        return;
    }
    if (csi.final == 'h' || csi.final == 'l') {
        emit_modes(f, &csi, out);
        return;
    }
    if (csi.final == 'b' && csi.params[0] > REPEAT_MAX)
        csi.params[0] = REPEAT_MAX;
    buffer_put_str(out, "\033[");
    if (csi.mark)
        put_byte(out, (uint8_t)csi.mark);
    for (size_t i = 0; i < csi.count; i++) {
        if (i)
            put_byte(out, csi.is_sub[i] ? ':' : ';');
        if (csi.is_set[i])
            buffer_printf(out, "%u", csi.params[i]);
    }
    if (csi.intermediate)
        put_byte(out, (uint8_t)csi.intermediate);
    put_byte(out, (uint8_t)csi.final);
}

/* ESC, intermediates, final; f->sequence holds what stands behind ESC. */
static void emit_escape(struct play_filter *f, struct buffer *out)
{
    static const char *const allowed[] = {
        "7",  "8",  "D",  "E",  "H",  "M",  /* DECSC DECRC IND NEL HTS RI */
        "(0", "(A", "(B", ")0", ")A", ")B", /* ASCII, UK and line drawing as G0 and G1 */
        "#3", "#4", "#5", "#6", "#8",       /* double sizes, DECALN */
    };

    if (f->sequence_len == 1 && f->sequence[0] == 'c') { /* RIS would clear the scrollback too */
        f->is_alternate = false;
        buffer_put_str(out, "\033[?1049l\033[!p\033[?7h\033[2J\033[1;1H");
        return;
    }
    for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++) {
        if (!f->is_overlong && strlen(allowed[i]) == f->sequence_len &&
            memcmp(allowed[i], f->sequence, f->sequence_len) == 0) {
            put_byte(out, ESC);
            buffer_put_str(out, allowed[i]);
            return;
        }
    }
    drop(f);
}

static void begin_string(struct play_filter *f, uint8_t introducer)
{
    drop(f);
    enter(f, PLAY_STRING);
    f->introducer = introducer;
}

/* The same control as ESC and `final`: what the 8-bit C1 range means. */
static void escape_final(struct play_filter *f, uint8_t final, struct buffer *out)
{
    switch (final) {
    case '[':
        enter(f, PLAY_CSI);
        return;
    case ']':
    case 'P':
    case 'X':
    case '^':
    case '_':
        begin_string(f, final);
        return;
    default:
        break;
    }
    if (f->sequence_len < sizeof(f->sequence))
        f->sequence[f->sequence_len++] = final;
    else
        f->is_overlong = true;
    emit_escape(f, out);
    enter(f, PLAY_GROUND);
}

static void control(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (c >= 0x07 && c <= 0x0f) /* BEL BS HT LF VT FF CR SO SI */
        put_byte(out, c);
    else if (c != 0)
        drop(f);
}

static bool utf8_is_valid(const uint8_t *s, size_t len, uint32_t *codepoint)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t v = len == 2 ? s[0] & 0x1fU : len == 3 ? s[0] & 0x0fU : s[0] & 0x07U;

    for (size_t i = 1; i < len; i++)
        v = v << 6 | (s[i] & 0x3fU);
    *codepoint = v;
    return v >= least[len] && v <= 0x10ffff && !(v >= 0xd800 && v <= 0xdfff);
}

static void utf8_end(struct play_filter *f, struct buffer *out)
{
    uint32_t codepoint = 0;
    bool is_valid = f->utf8_len == f->utf8_need && utf8_is_valid(f->utf8, f->utf8_len, &codepoint);
    size_t len = f->utf8_len;

    f->utf8_len = f->utf8_need = 0;
    if (!is_valid) {
        buffer_put_str(out, REPLACEMENT);
        return;
    }
    if (codepoint >= 0x80 && codepoint <= 0x9f) { /* C1: some terminals obey these in UTF-8 too */
        enter(f, PLAY_ESCAPE);
        escape_final(f, (uint8_t)(codepoint - 0x40), out);
        return;
    }
    buffer_put(out, f->utf8, len);
}

static void ground(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (c == ESC) {
        enter(f, PLAY_ESCAPE);
    } else if (c < 0x20) {
        control(f, c, out);
    } else if (c < 0x7f) {
        put_byte(out, c);
    } else if (c == 0x7f) {
        drop(f);
    } else if (c >= 0xc2 && c <= 0xf4) {
        f->utf8[0] = c;
        f->utf8_len = 1;
        f->utf8_need = c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    } else {
        buffer_put_str(out, REPLACEMENT);
    }
}

/* Controls inside a sequence act at once, as in a terminal; true when c was one. */
static bool inside_control(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (c == 0x18 || c == 0x1a) { /* CAN, SUB: forget the sequence */
        drop(f);
        enter(f, PLAY_GROUND);
    } else if (c == ESC) {
        drop(f);
        enter(f, PLAY_ESCAPE);
    } else if (c < 0x20) {
        control(f, c, out);
    } else if (c == 0x7f) {
        drop(f);
    } else if (c > 0x7f) { /* not part of any sequence: it is text again */
        drop(f);
        enter(f, PLAY_GROUND);
        ground(f, c, out);
    } else {
        return false;
    }
    return true;
}

static void collect(struct play_filter *f, uint8_t c)
{
    if (f->sequence_len < sizeof(f->sequence))
        f->sequence[f->sequence_len++] = c;
    else
        f->is_overlong = true;
}

static void escape(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (inside_control(f, c, out))
        return;
    if (c >= 0x20 && c <= 0x2f) {
        collect(f, c);
    } else if (f->sequence_len == 0) {
        escape_final(f, c, out);
    } else {
        collect(f, c);
        emit_escape(f, out);
        enter(f, PLAY_GROUND);
    }
}

static void csi_byte(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (inside_control(f, c, out))
        return;
    collect(f, c);
    if (c >= 0x40 && c <= 0x7e) {
        emit_csi(f, out);
        enter(f, PLAY_GROUND);
    }
}

/*
 * Inside a control string. It ends at ST, at CAN or SUB, an OSC at BEL too; and so that nobody can
 * hide the rest of a session behind an introducer that is never closed, at a line's end (DCS, which
 * carries pictures with line ends, at PLAY_FILTER_STRING_MAX).
 */
static void string_byte(struct play_filter *f, uint8_t c, struct buffer *out)
{
    f->string_len++;
    if (f->state == PLAY_STRING_ESCAPE) {
        enter(f, PLAY_ESCAPE);
        if (c == '\\')
            enter(f, PLAY_GROUND);
        else
            escape(f, c, out);
        return;
    }
    if (c == ESC) {
        f->state = PLAY_STRING_ESCAPE;
    } else if (c == 0x18 || c == 0x1a || (c == 0x07 && f->introducer == ']')) {
        enter(f, PLAY_GROUND);
    } else if (c == '\n' && f->introducer != 'P') {
        f->unclosed++;
        enter(f, PLAY_GROUND);
        control(f, c, out);
    } else if (f->string_len >= PLAY_FILTER_STRING_MAX) {
        f->unclosed++;
        enter(f, PLAY_GROUND);
    }
}

static void feed_byte(struct play_filter *f, uint8_t c, struct buffer *out)
{
    if (f->utf8_need) {
        if (c >= 0x80 && c <= 0xbf) {
            f->utf8[f->utf8_len++] = c;
            if (f->utf8_len == f->utf8_need)
                utf8_end(f, out);
            return;
        }
        utf8_end(f, out); /* cut short; c begins something new */
    }
    switch (f->state) {
    case PLAY_GROUND:
        ground(f, c, out);
        break;
    case PLAY_ESCAPE:
        escape(f, c, out);
        break;
    case PLAY_CSI:
        csi_byte(f, c, out);
        break;
    case PLAY_STRING:
    case PLAY_STRING_ESCAPE:
        string_byte(f, c, out);
        break;
    }
}

void play_filter_feed(struct play_filter *f, const uint8_t *data, size_t len, struct buffer *out)
{
    for (size_t i = 0; i < len; i++)
        feed_byte(f, data[i], out);
}

void play_filter_reset(struct play_filter *f, struct buffer *out)
{
    if (f->is_alternate) /* leaving it when it is not on would move the cursor */
        buffer_put_str(out, "\033[?1049l");
    f->is_alternate = false;
    enter(f, PLAY_GROUND);
    f->utf8_len = f->utf8_need = 0;
    buffer_put_str(out, "\017\033(B\033)B\033[!p\033[0m\033[?5l\033[?7h\033[?25h\033[4l\033[0 q");
}
