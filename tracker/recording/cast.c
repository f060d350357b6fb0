/*
 * asciicast lines: the escaping of terminal output into JSON strings (the hot path of recording),
 * the header, and the parser of the event lines that we write. The escaper checks UTF-8 as it goes
 * and notes each invalid byte for the side frame. No I/O; the writer and the reader call it.
 */
#include "tracker/recording/recording_priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* ---- side records ---- */

static void side_u8(struct side_log *side, uint8_t value)
{
    side->data[side->len++] = value;
}

static void side_be32(uint8_t *dst, size_t value)
{
    for (size_t i = 0; i < 4; i++)
        dst[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void side_record(struct side_log *side, uint8_t type, uint32_t event)
{
    side_u8(side, type);
    side_be32(side->data + side->len, 4);
    side_be32(side->data + side->len + 4, event);
    side->len += 8;
}

void side_log_stderr(struct side_log *side, uint32_t event)
{
    side_record(side, SIDE_STDERR, event);
}

void side_log_author(struct side_log *side, uint32_t event, const char *author, size_t len)
{
    size_t at = side->len;

    side_record(side, SIDE_AUTHOR, event);
    side_be32(side->data + at + 1, 4 + len);
    memcpy(side->data + side->len, author, len);
    side->len += len;
}

void side_log_event_end(struct side_log *side)
{
    if (side->record_at != SIZE_MAX)
        side_be32(side->data + side->record_at + 1, side->len - side->record_at - 5);
    side->record_at = SIZE_MAX;
}

/* The byte at `raw` of the event is not UTF-8. */
static void side_log_exact(struct side_log *side, uint32_t event, size_t raw, uint8_t byte)
{
    if (side->record_at == SIZE_MAX) {
        side->record_at = side->len;
        side->run_at = SIZE_MAX;
        side->next_raw = 0;
        side_record(side, SIDE_EXACT, event);
    }
    if (side->run_at == SIZE_MAX || raw != side->next_raw || side->data[side->run_at + 1] == 255) {
        size_t skip = raw - side->next_raw;

        for (; skip > 255; skip -= 255) {
            side_u8(side, 255);
            side_u8(side, 0);
        }
        side->run_at = side->len;
        side_u8(side, (uint8_t)skip);
        side_u8(side, 0);
    }
    side->data[side->run_at + 1]++;
    side_u8(side, byte);
    side->next_raw = raw + 1;
}

/* ---- escaping ---- */

#define U(hex)         \
    {                  \
        "\\u00" hex, 6 \
    }

/* What stands for an ASCII byte that cannot be itself in a JSON string. */
static const struct escape {
    char text[7];
    uint8_t len; /* 0: the byte is itself */
} escapes[128] = {
    U("00"),
    U("01"),
    U("02"),
    U("03"),
    U("04"),
    U("05"),
    U("06"),
    U("07"),
    {"\\b", 2},
    {"\\t", 2},
    {"\\n", 2},
    U("0b"),
    U("0c"),
    {"\\r", 2},
    U("0e"),
    U("0f"),
    U("10"),
    U("11"),
    U("12"),
    U("13"),
    U("14"),
    U("15"),
    U("16"),
    U("17"),
    U("18"),
    U("19"),
    U("1a"),
    U("1b"),
    U("1c"),
    U("1d"),
    U("1e"),
    U("1f"),
    ['"'] = {"\\\"", 2},
    ['\\'] = {"\\\\", 2},
    [0x7F] = U("7f"),
};

/* One bit for each of 16 bytes that is no plain ASCII character. */
#ifdef __SSE2__
static inline uint64_t special16(const uint8_t *p)
{
    __m128i v = _mm_loadu_si128((const void *)p);
    __m128i special = _mm_or_si128(_mm_or_si128(_mm_cmplt_epi8(v, _mm_set1_epi8(0x20)), /* signed */
                                                _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7F))),
                                   _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                                _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));

    return (uint64_t)_mm_movemask_epi8(special);
}
#else
#define ONES  UINT64_C(0x0101010101010101)
#define HIGHS UINT64_C(0x8080808080808080)

static inline uint64_t special8(const uint8_t *p)
{
    uint64_t v, low, plain;

    memcpy(&v, p, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    v = __builtin_bswap64(v);
#endif
    low = v & ~HIGHS; /* so that no sum carries into the next byte */
    plain = (low + ONES * 0x60) & ((low ^ ONES * 0x7F) + ONES * 0x7F) &
            ((low ^ ONES * '"') + ONES * 0x7F) & ((low ^ ONES * '\\') + ONES * 0x7F) & ~v;
    /* the product has the eight high bits side by side at its top */
    return ((~plain & HIGHS) >> 7) * UINT64_C(0x0102040810204080) >> 56;
}

static inline uint64_t special16(const uint8_t *p)
{
    return special8(p) | special8(p + 8) << 8;
}
#endif

static inline uint64_t special64(const uint8_t *p)
{
    return special16(p) | special16(p + 16) << 16 | special16(p + 32) << 32 |
           special16(p + 48) << 48;
}

/*
 * Escape the ASCII text of a block, of which the special bytes are known, up to the first byte that
 * is not ASCII. Whole blocks are copied, and what is behind the next escape is overwritten: that
 * costs less than to look at lengths. So both sides have room for one block more.
 */
__attribute__((always_inline)) static inline const uint8_t *
escape_block(uint8_t **out, const uint8_t *p, uint64_t special, const size_t block)
{
    const uint8_t *from = p;
    uint8_t *to = *out;

    for (; special; special &= special - 1) {
        const uint8_t *next = p + __builtin_ctzll(special);
        const struct escape *e = &escapes[*next & 0x7F];

        memcpy(to, from, block);
        to += next - from;
        if (*next >= 0x80) {
            *out = to;
            return next;
        }
        memcpy(to, e, sizeof(*e));
        to += e->len;
        from = next + 1;
    }
    memcpy(to, from, block);
    *out = to + (p + block - from);
    return p + block;
}

/* The same for all text up to there; some bytes at the end are left. */
static const uint8_t *escape_blocks(uint8_t **out, const uint8_t *p, const uint8_t *end)
{
    while (end - p >= 2 * 64 && *p < 0x80)
        p = escape_block(out, p, special64(p), 64);
    while (end - p >= 2 * 16 && *p < 0x80)
        p = escape_block(out, p, special16(p), 16);
    return p;
}

static uint8_t *put_u16_escape(uint8_t *to, uint32_t value)
{
    static const char digits[] = "0123456789abcdef";

    *to++ = '\\';
    *to++ = 'u';
    for (int shift = 12; shift >= 0; shift -= 4)
        *to++ = (uint8_t)digits[value >> shift & 15];
    return to;
}

static inline uint8_t *put_ascii(uint8_t *to, uint8_t c)
{
    const struct escape *e = &escapes[c];

    if (e->len == 0) {
        *to = c;
        return to + 1;
    }
    memcpy(to, e->text, e->len);
    return to + e->len;
}

/*
 * Length of the UTF-8 character at p (RFC 3629 §4), of which the first byte is >= 0x80: 0 when it
 * is none, or -1 when the `left` bytes could be the beginning of one.
 */
static int utf8_length(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0], low = 0x80, high = 0xBF;
    size_t need;

    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < need; i++) {
        if (i >= left)
            return -1;
        if (p[i] < low || p[i] > high)
            return 0;
        low = 0x80;
        high = 0xBF;
    }
    return (int)need;
}

static inline bool is_continuation(uint8_t byte)
{
    return (byte & 0xC0) == 0x80;
}

/* The same, quick for the characters that most text consists of. */
static inline int utf8_length_fast(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];

    if (left >= 3 && lead >= 0xE1 && lead < 0xED && is_continuation(p[1]) && is_continuation(p[2]))
        return 3;
    if (left >= 3 && lead >= 0xC2 && lead < 0xE0 && is_continuation(p[1]))
        return 2;
    return utf8_length(p, left);
}

bool cast_is_partial(const uint8_t *data, size_t len)
{
    return len > 0 && len <= 3 && data[0] >= 0x80 && utf8_length(data, len) < 0;
}

/* A whole character of n >= 2 bytes. Some are line ends or controls to some reader: escaped. */
static inline uint8_t *put_char(uint8_t *to, const uint8_t *p, size_t n)
{
    if (p[0] == 0xC2 && p[1] < 0xA0)
        return put_u16_escape(to, p[1]);
    if (n == 3 && p[0] == 0xE2 && p[1] == 0x80 && (p[2] == 0xA8 || p[2] == 0xA9))
        return put_u16_escape(to, 0x2028u + (p[2] & 1u));
    to[0] = p[0]; /* memcpy() would be a call */
    to[1] = p[1];
    if (n > 2)
        to[2] = p[2];
    if (n > 3)
        to[3] = p[3];
    return to + n;
}

size_t cast_escape(struct cast_out *out, const uint8_t *data, size_t len, bool is_last)
{
    const uint8_t *p = data, *end = data + len;
    uint8_t *to = out->at;

    while (p < end) {
        int n;

        if (*p < 0x80) {
            p = escape_blocks(&to, p, end);
            if (*p < 0x80)
                to = put_ascii(to, *p++);
            continue;
        }
        n = utf8_length_fast(p, (size_t)(end - p));
        if (n < 0 && !is_last)
            break;
        if (n <= 0) {
            if (out->side)
                side_log_exact(out->side, out->event, out->raw + (size_t)(p - data), *p);
            memcpy(to, "\xEF\xBF\xBD", 3);
            to += 3;
            p++;
            continue;
        }
        to = put_char(to, p, (size_t)n);
        p += n;
    }
    out->at = to;
    out->raw += (size_t)(p - data);
    return (size_t)(p - data);
}

/* ---- lines ---- */

uint8_t *cast_event_begin(uint8_t *dst, int64_t ms, char code)
{
    char digits[24];
    size_t n = 0;
    uint64_t s = (uint64_t)ms / 1000;
    unsigned frac = (unsigned)((uint64_t)ms % 1000);

    do
        digits[n++] = (char)('0' + s % 10);
    while (s /= 10);
    *dst++ = '[';
    while (n > 0)
        *dst++ = (uint8_t)digits[--n];
    *dst++ = '.';
    *dst++ = (uint8_t)('0' + frac / 100);
    *dst++ = (uint8_t)('0' + frac / 10 % 10);
    *dst++ = (uint8_t)('0' + frac % 10);
    memcpy(dst, ", \"", 3);
    dst[3] = (uint8_t)code;
    memcpy(dst + 4, "\", \"", 4);
    return dst + 8;
}

uint8_t *cast_event_end(uint8_t *dst)
{
    memcpy(dst, "\"]\n", 3);
    return dst + 3;
}

uint8_t *cast_member(uint8_t *to, const char *key, const char *text)
{
    struct cast_out out = {.at = to};

    if (!text || !*text)
        return to;
    memcpy(out.at, ", \"", 3);
    out.at += 3;
    memcpy(out.at, key, strlen(key));
    out.at += strlen(key);
    memcpy(out.at, "\": \"", 4);
    out.at += 4;
    cast_escape(&out, (const uint8_t *)text, strlen(text), true);
    *out.at = '"';
    return out.at + 1;
}

static uint8_t *header_title(uint8_t *to, const struct recording_head *h)
{
    const char *parts[] = {h->user, ": ", h->account, h->account && *h->account ? "@" : "",
                           h->target};
    struct cast_out out = {.at = to};

    memcpy(out.at, ", \"title\": \"", 12);
    out.at += 12;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (parts[i])
            cast_escape(&out, (const uint8_t *)parts[i], strlen(parts[i]), true);
    *out.at = '"';
    return out.at + 1;
}

static size_t text_len(const char *text)
{
    return text ? strlen(text) : 0;
}

uint8_t *cast_header(const struct recording_head *h, size_t *len)
{
    /* user, account and target stand in the title as well */
    size_t texts = 2 * (text_len(h->user) + text_len(h->account) + text_len(h->target)) +
                   text_len(h->command) + text_len(h->term);
    size_t room = CAST_ESCAPE_MAX * texts + 512;
    uint8_t *line = malloc(room), *to;
    int n;

    if (!line)
        return NULL;
    n = snprintf((char *)line, room,
                 "{\"version\": 2, \"width\": %u, \"height\": %u, \"timestamp\": %" PRId64
                 ", \"session\": \"%" PRIu64 "\", \"channel\": %" PRIu32 ", \"pty\": %s",
                 h->cols, h->rows, h->started_wall_us / 1000000, h->session_id, h->channel,
                 h->has_pty ? "true" : "false");
    to = header_title(line + n, h);
    to = cast_member(to, "user", h->user);
    to = cast_member(to, "account", h->account);
    to = cast_member(to, "target", h->target);
    to = cast_member(to, "command", h->command);
    if (h->term && *h->term) {
        memcpy(to, ", \"env\": {", 10);
        /* the first member has no comma before it */
        uint8_t *member = to + 10, *after = cast_member(member, "TERM", h->term);
        memmove(member, member + 2, (size_t)(after - member) - 2);
        to = after - 2;
        *to++ = '}';
    }
    *to++ = '}';
    *to++ = '\n';
    *len = (size_t)(to - line);
    return line;
}

/* ---- parsing ---- */

static void skip_blanks(struct cursor *c)
{
    while (!cursor_at_end(c) && (*c->at == ' ' || *c->at == '\t'))
        c->at++;
}

static bool take_char(struct cursor *c, char wanted)
{
    skip_blanks(c);
    if (cursor_at_end(c) || *c->at != (uint8_t)wanted)
        return false;
    c->at++;
    return true;
}

/* Seconds with a fraction, to milliseconds. By hand: strtod() obeys the locale. */
static bool take_seconds(struct cursor *c, int64_t *ms)
{
    uint64_t whole = 0, frac = 0, scale = 100;
    bool any = false;

    skip_blanks(c);
    for (; !cursor_at_end(c) && *c->at >= '0' && *c->at <= '9'; c->at++, any = true) {
        whole = whole * 10 + (uint64_t)(*c->at - '0');
        if (whole > UINT64_C(100000000000)) /* three thousand years */
            return false;
    }
    if (any && !cursor_at_end(c) && *c->at == '.')
        for (c->at++; !cursor_at_end(c) && *c->at >= '0' && *c->at <= '9'; c->at++, scale /= 10)
            frac += (uint64_t)(*c->at - '0') * scale;
    *ms = (int64_t)(whole * 1000 + frac);
    return any;
}

static bool take_hex4(struct cursor *c, uint32_t *out)
{
    const uint8_t *p;
    uint32_t v = 0;

    if (!cursor_take(c, 4, &p))
        return false;
    for (size_t i = 0; i < 4; i++) {
        uint8_t d = p[i];

        if (d >= '0' && d <= '9')
            v = v << 4 | (uint32_t)(d - '0');
        else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
            v = v << 4 | (uint32_t)((d | 0x20) - 'a' + 10);
        else
            return false;
    }
    *out = v;
    return true;
}

static size_t utf8_encode(uint8_t *to, uint32_t v)
{
    if (v < 0x80) {
        to[0] = (uint8_t)v;
        return 1;
    }
    if (v < 0x800) {
        to[0] = (uint8_t)(0xC0 | v >> 6);
        to[1] = (uint8_t)(0x80 | (v & 0x3F));
        return 2;
    }
    if (v < 0x10000) {
        to[0] = (uint8_t)(0xE0 | v >> 12);
        to[1] = (uint8_t)(0x80 | (v >> 6 & 0x3F));
        to[2] = (uint8_t)(0x80 | (v & 0x3F));
        return 3;
    }
    to[0] = (uint8_t)(0xF0 | v >> 18);
    to[1] = (uint8_t)(0x80 | (v >> 12 & 0x3F));
    to[2] = (uint8_t)(0x80 | (v >> 6 & 0x3F));
    to[3] = (uint8_t)(0x80 | (v & 0x3F));
    return 4;
}

/* Behind `\u`. A pair of surrogates is one character; a lone one is none. */
static bool take_unicode(struct cursor *c, uint8_t *to, size_t *n)
{
    uint32_t v, low;
    const uint8_t *p;

    if (!take_hex4(c, &v))
        return false;
    if (v >= 0xDC00 && v <= 0xDFFF)
        return false;
    if (v >= 0xD800 && v <= 0xDBFF) {
        if (!cursor_take(c, 2, &p) || p[0] != '\\' || p[1] != 'u' || !take_hex4(c, &low) ||
            low < 0xDC00 || low > 0xDFFF)
            return false;
        v = 0x10000 + ((v - 0xD800) << 10) + (low - 0xDC00);
    }
    *n = utf8_encode(to, v);
    return true;
}

/* Behind a backslash: always shorter than what it stands for. */
static bool take_escape(struct cursor *c, uint8_t *to, size_t *n)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *found;
    uint8_t letter;

    if (!cursor_u8(c, &letter))
        return false;
    if (letter == 'u')
        return take_unicode(c, to, n);
    found = letter ? strchr(letters, letter) : NULL;
    if (!found)
        return false;
    *to = (uint8_t)values[found - letters];
    *n = 1;
    return true;
}

/* A JSON string, unescaped into data; never longer than its text. */
static bool take_string(struct cursor *c, uint8_t *data, size_t cap, size_t *len)
{
    size_t at = 0;

    if (!take_char(c, '"') || cap < cursor_left(c))
        return false;
    while (!cursor_at_end(c)) {
        const uint8_t *run = c->at;
        size_t n;

        while (!cursor_at_end(c) && *c->at != '"' && *c->at != '\\' && *c->at >= 0x20)
            c->at++;
        memcpy(data + at, run, (size_t)(c->at - run));
        at += (size_t)(c->at - run);
        if (cursor_at_end(c) || *c->at < 0x20)
            return false;
        if (*c->at++ == '"') {
            *len = at;
            return true;
        }
        if (!take_escape(c, data + at, &n))
            return false;
        at += n;
    }
    return false;
}

bool cast_parse_event(struct cursor line, struct cast_event *e, uint8_t *data, size_t data_cap)
{
    size_t code_len;

    if (cursor_left(&line) > CAST_LINE_MAX || data_cap < cursor_left(&line))
        return false;
    if (!take_char(&line, '[') || !take_seconds(&line, &e->ms) || !take_char(&line, ',') ||
        !take_string(&line, data, data_cap, &code_len) || code_len != 1)
        return false;
    e->code = (char)data[0];
    if (!take_char(&line, ',') || !take_string(&line, data, data_cap, &e->len) ||
        !take_char(&line, ']'))
        return false;
    skip_blanks(&line);
    return cursor_at_end(&line);
}

static bool take_dimension(struct cursor *c, uint16_t *out)
{
    uint32_t v = 0;
    bool any = false;

    for (; !cursor_at_end(c) && *c->at >= '0' && *c->at <= '9'; c->at++, any = true)
        v = v > 100000 ? v : v * 10 + (uint32_t)(*c->at - '0');
    *out = (uint16_t)(v < 1 ? 1 : v > 1000 ? 1000 : v);
    return any;
}

bool cast_parse_size(const uint8_t *data, size_t len, uint16_t *cols, uint16_t *rows)
{
    struct cursor c = cursor_of(data, len);

    return take_dimension(&c, cols) && take_char(&c, 'x') && take_dimension(&c, rows) &&
           cursor_at_end(&c);
}
