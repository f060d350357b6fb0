/*
 * Text helpers: escaping what came from outside, durations, sizes, times, names. Pure functions
 * without memory of their own; used by the log, the replies, the configuration and the parsers.
 */
#include <sallyport/text.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sallyport/login.h>

#define ESCAPE_MAX    12 /* \u{10FFFF} and a NUL */
#define NEAREST_MAX   3  /* edits */
#define NEAREST_BYTES 64 /* longer names are not compared */

bool text_copy(char *dst, size_t dst_len, const char *src)
{
    size_t len = strlen(src);
    bool fits = len < dst_len;

    if (dst_len == 0)
        return false;
    if (!fits)
        len = dst_len - 1;
    memcpy(dst, src, len);
    dst[len] = 0;
    return fits;
}

/* ---- escaping ---- */

/*
 * One UTF-8 character of at most `left` bytes: its length, or 0 when it is not valid (RFC 3629 §4:
 * no overlong form, no surrogate, nothing past U+10FFFF).
 */
static size_t utf8_take(const uint8_t *p, size_t left, uint32_t *out)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80             ? 1
                 : (p[0] & 0xe0) == 0xc0 ? 2
                 : (p[0] & 0xf0) == 0xe0 ? 3
                 : (p[0] & 0xf8) == 0xf0 ? 4
                                         : 0;
    uint32_t cp = len == 1 ? p[0] : p[0] & (0x7fu >> len);

    if (len == 0 || len > left)
        return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        cp = cp << 6 | (p[i] & 0x3fu);
    }
    if (cp < smallest[len] || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff))
        return 0;
    *out = cp;
    return len;
}

static bool is_control(uint32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp <= 0x9f);
}

/* What ends a line or turns the reading order around in a terminal or a browser. */
static bool is_layout(uint32_t cp)
{
    return cp == 0x61c || cp == 0x200e || cp == 0x200f || (cp >= 0x2028 && cp <= 0x202e) ||
           (cp >= 0x2066 && cp <= 0x2069);
}

/* Escape the character at p into out. Returns the bytes of src it took, *out_len those it wrote. */
static size_t escape_one(const uint8_t *p, size_t left, char out[ESCAPE_MAX], size_t *out_len)
{
    uint32_t cp = 0;
    size_t len = utf8_take(p, left, &cp);
    int n;

    if (len == 0 || (len == 1 && is_control(cp))) {
        n = snprintf(out, ESCAPE_MAX, "\\x%02x", (unsigned int)*p);
        len = 1;
    } else if (is_control(cp) || is_layout(cp)) {
        n = snprintf(out, ESCAPE_MAX, "\\u{%04" PRIX32 "}", cp);
    } else if (cp == '\\') {
        memcpy(out, "\\\\", 2);
        n = 2;
    } else {
        memcpy(out, p, len);
        n = (int)len;
    }
    *out_len = (size_t)n;
    return len;
}

const char *text_escape(char *dst, size_t dst_len, const char *src, size_t src_len)
{
    const uint8_t *p = (const uint8_t *)src;
    char one[ESCAPE_MAX];
    size_t used = 0, len;

    if (dst_len == 0)
        return "";
    while (src_len) {
        size_t took = escape_one(p, src_len, one, &len);
        if (len >= dst_len - used)
            break;
        memcpy(dst + used, one, len);
        used += len;
        p += took;
        src_len -= took;
    }
    dst[used] = 0;
    return dst;
}

void text_escape_append(struct buffer *b, const char *src, size_t src_len)
{
    const uint8_t *p = (const uint8_t *)src;
    char one[ESCAPE_MAX];
    size_t len;

    while (src_len && !b->failed) {
        size_t took = escape_one(p, src_len, one, &len);
        buffer_put(b, one, len);
        p += took;
        src_len -= took;
    }
}

/* ---- names ---- */

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
}

bool text_is_name(const char *text)
{
    size_t len = 0;

    for (; text[len]; len++)
        if (len == NAME_MAX_LEN || !is_name_byte(text[len]))
            return false;
    return len > 0 && strcmp(text, ".") != 0 && strcmp(text, "..") != 0;
}

bool text_is_account(const char *text)
{
    const uint8_t *p = (const uint8_t *)text;
    size_t left = strnlen(text, ACCOUNT_MAX_LEN + 1);
    uint32_t cp = 0;

    if (left == 0 || left > ACCOUNT_MAX_LEN)
        return false;
    while (left) {
        size_t len = utf8_take(p, left, &cp);
        if (len == 0 || is_control(cp) || cp == '+')
            return false;
        p += len;
        left -= len;
    }
    return true;
}

/* ---- durations ---- */

struct unit {
    char letter;
    const char *word;
    uint64_t seconds;
};

static const struct unit units[] = {/* longest first */
                                    {'d', "day", 86400},
                                    {'h', "hour", 3600},
                                    {'m', "minute", 60},
                                    {'s', "second", 1}};
#define UNIT_COUNT (sizeof(units) / sizeof(units[0]))

/* The largest unit that fits; and for hours and days the amount of the next smaller one. */
static size_t two_units(uint64_t seconds, uint64_t *first, uint64_t *second)
{
    size_t i = 0;

    while (i + 1 < UNIT_COUNT && seconds < units[i].seconds)
        i++;
    *first = seconds / units[i].seconds;
    *second = i < 2 ? seconds % units[i].seconds / units[i + 1].seconds : 0;
    return i;
}

const char *text_duration(char *dst, size_t dst_len, uint64_t seconds)
{
    uint64_t first, second;
    size_t i = two_units(seconds, &first, &second);

    if (second)
        snprintf(dst, dst_len, "%" PRIu64 "%c %" PRIu64 "%c", first, units[i].letter, second,
                 units[i + 1].letter);
    else
        snprintf(dst, dst_len, "%" PRIu64 "%c", first, units[i].letter);
    return dst;
}

const char *text_duration_words(char *dst, size_t dst_len, uint64_t seconds)
{
    uint64_t first, second;
    size_t i = two_units(seconds, &first, &second);

    if (second)
        snprintf(dst, dst_len, "%" PRIu64 " %s%s %" PRIu64 " %s%s", first, units[i].word,
                 first == 1 ? "" : "s", second, units[i + 1].word, second == 1 ? "" : "s");
    else
        snprintf(dst, dst_len, "%" PRIu64 " %s%s", first, units[i].word, first == 1 ? "" : "s");
    return dst;
}

/* Decimal digits at *text, at least one; moves *text behind them. */
static bool take_number(const char **text, uint64_t *value)
{
    const char *p = *text;
    uint64_t v = 0;

    if (*p < '0' || *p > '9')
        return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(v, (uint64_t)10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
            return false;
    *text = p;
    *value = v;
    return true;
}

bool text_parse_u64(const char *text, uint64_t *value)
{
    uint64_t v;

    if (!take_number(&text, &v) || *text)
        return false;
    *value = v;
    return true;
}

bool text_parse_duration(const char *text, uint64_t *seconds)
{
    uint64_t total = 0, part;
    size_t next = 0; /* units come once each, longest first: 1h30m, not 30m1h */

    if (text_parse_u64(text, seconds))
        return true;
    do {
        if (!take_number(&text, &part))
            return false;
        while (next < UNIT_COUNT && units[next].letter != *text)
            next++;
        if (next == UNIT_COUNT || __builtin_mul_overflow(part, units[next].seconds, &part) ||
            __builtin_add_overflow(total, part, &total))
            return false;
        next++;
        text++;
    } while (*text);
    *seconds = total;
    return true;
}

/* ---- sizes and times ---- */

static const char size_letters[] = "KMGT"; /* each 1024 times the one before */

bool text_parse_size(const char *text, uint64_t *bytes)
{
    uint64_t value;
    const char *letter;

    if (!take_number(&text, &value))
        return false;
    if (*text) {
        char upper = (char)(*text >= 'a' && *text <= 'z' ? *text - 'a' + 'A' : *text);
        letter = strchr(size_letters, upper);
        if (!letter || text[1])
            return false;
        for (const char *p = size_letters; p <= letter; p++)
            if (__builtin_mul_overflow(value, (uint64_t)1024, &value))
                return false;
    }
    *bytes = value;
    return true;
}

const char *text_size(char *dst, size_t dst_len, uint64_t bytes)
{
    const char *letter = NULL;

    while (bytes && bytes % 1024 == 0 && (!letter || letter[1])) {
        letter = letter ? letter + 1 : size_letters;
        bytes /= 1024;
    }
    snprintf(dst, dst_len, "%" PRIu64 "%.1s", bytes, letter ? letter : "");
    return dst;
}

const char *text_time_utc(char *dst, size_t dst_len, int64_t wall_us)
{
    int64_t ms = wall_us / 1000 - (wall_us % 1000 < 0); /* towards the past, also before 1970 */
    int64_t milli = ms % 1000 < 0 ? ms % 1000 + 1000 : ms % 1000;
    time_t seconds = (ms - milli) / 1000;
    struct tm tm = {0};

    gmtime_r(&seconds, &tm);
    snprintf(dst, dst_len, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (int)milli);
    return dst;
}

/* ---- did you mean ---- */

static size_t smallest_of(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;

    return m < c ? m : c;
}

/* Levenshtein distance with one row; both texts are at most NEAREST_BYTES long. */
static size_t edit_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    size_t row[NEAREST_BYTES + 1];

    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t above = row[j];
            row[j] = smallest_of(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[b_len];
}

const char *text_nearest(const char *text, const char *const *names, size_t count)
{
    const char *best = NULL;
    size_t best_distance = NEAREST_MAX + 1;
    size_t len = strnlen(text, NEAREST_BYTES + 1);

    if (len == 0 || len > NEAREST_BYTES)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t name_len = strnlen(names[i], NEAREST_BYTES + 1);
        size_t longer = name_len > len ? name_len : len;
        size_t distance;

        if (name_len > NEAREST_BYTES)
            continue;
        distance = edit_distance(text, len, names[i], name_len);
        /* three edits make any three letters into any others: half of the name has to be there */
        if (distance < best_distance && distance * 2 <= longer) {
            best_distance = distance;
            best = names[i];
        }
    }
    return best;
}
