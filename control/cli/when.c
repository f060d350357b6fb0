/*
 * Times as people type and read them: see when.h.
 */
#include "control/cli/when.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#define US_PER_S 1000000LL

struct moment {
    struct tm tm;
    int64_t fraction_us;
    bool has_zone;
    long offset_s;
};

/* `count` digits; moves *at. */
static bool digits(const char **at, int count, int *value)
{
    *value = 0;
    for (int i = 0; i < count; i++) {
        if ((*at)[i] < '0' || (*at)[i] > '9')
            return false;
        *value = *value * 10 + ((*at)[i] - '0');
    }
    *at += count;
    return true;
}

static bool literal(const char **at, char c)
{
    if (**at != c)
        return false;
    (*at)++;
    return true;
}

static void parse_fraction(const char **at, int64_t *us)
{
    int64_t unit = US_PER_S / 10;

    *us = 0;
    while (**at >= '0' && **at <= '9') {
        *us += (**at - '0') * unit;
        unit /= 10;
        (*at)++;
    }
}

/* HH:MM[:SS[.fraction]] */
static bool parse_clock(const char **at, struct moment *m)
{
    if (!digits(at, 2, &m->tm.tm_hour) || !literal(at, ':') || !digits(at, 2, &m->tm.tm_min))
        return false;
    if (literal(at, ':')) {
        if (!digits(at, 2, &m->tm.tm_sec))
            return false;
        if (literal(at, '.'))
            parse_fraction(at, &m->fraction_us);
    }
    return m->tm.tm_hour < 24 && m->tm.tm_min < 60 && m->tm.tm_sec < 61;
}

static bool parse_date(const char **at, struct moment *m)
{
    int year, month;

    if (!digits(at, 4, &year) || !literal(at, '-') || !digits(at, 2, &month) || !literal(at, '-') ||
        !digits(at, 2, &m->tm.tm_mday))
        return false;
    m->tm.tm_year = year - 1900;
    m->tm.tm_mon = month - 1;
    return month >= 1 && month <= 12 && m->tm.tm_mday >= 1 && m->tm.tm_mday <= 31 && year >= 1970;
}

static bool parse_zone(const char **at, struct moment *m)
{
    int hours, minutes, sign = **at == '-' ? -1 : 1;

    if (literal(at, 'Z')) {
        m->has_zone = true;
        return true;
    }
    if (**at != '+' && **at != '-')
        return true;
    (*at)++;
    if (!digits(at, 2, &hours))
        return false;
    literal(at, ':');
    if (!digits(at, 2, &minutes) || hours > 14 || minutes > 59)
        return false;
    m->has_zone = true;
    m->offset_s = sign * (hours * 3600L + minutes * 60L);
    return true;
}

/* A date (and a time), or a time of today. */
static bool parse_moment(const char *text, struct moment *m)
{
    const char *at = text;
    time_t now = clock_wall_us() / US_PER_S;

    memset(m, 0, sizeof(*m));
    if (parse_date(&at, m)) {
        if (*at == '\0')
            return true;
        if (!literal(&at, ' ') && !literal(&at, 'T'))
            return false;
        return parse_clock(&at, m) && parse_zone(&at, m) && *at == '\0';
    }
    at = text;
    memset(m, 0, sizeof(*m));
    localtime_r(&now, &m->tm);
    m->tm.tm_sec = 0;
    return parse_clock(&at, m) && *at == '\0';
}

static bool moment_us(struct moment *m, int64_t *wall_us)
{
    int day = m->tm.tm_mday;
    time_t t;

    m->tm.tm_isdst = -1;
    t = m->has_zone ? timegm(&m->tm) - m->offset_s : mktime(&m->tm);
    if (m->tm.tm_mday != day) /* 31 April */
        return false;
    *wall_us = t * US_PER_S + m->fraction_us;
    return true;
}

static bool parse_word(const char *text, int64_t *wall_us)
{
    struct moment m = {0};
    time_t now = clock_wall_us() / US_PER_S;

    if (strcmp(text, "now") == 0) {
        *wall_us = now * US_PER_S;
        return true;
    }
    if (strcmp(text, "today") != 0 && strcmp(text, "yesterday") != 0)
        return false;
    localtime_r(&now, &m.tm);
    m.tm.tm_hour = m.tm.tm_min = m.tm.tm_sec = 0;
    m.tm.tm_isdst = -1;
    if (*text == 'y')
        m.tm.tm_mday--;
    *wall_us = mktime(&m.tm) * US_PER_S;
    return true;
}

bool when_parse(const char *text, int64_t *wall_us, char *err, size_t err_len)
{
    struct moment m;
    uint64_t age;
    char shown[128];
    size_t len = strlen(text);
    bool has_unit = len > 1 && strchr("smhdw", text[len - 1]);

    if (parse_word(text, wall_us))
        return true;
    if (parse_moment(text, &m) && moment_us(&m, wall_us))
        return true;
    if (has_unit && text_parse_duration(text, &age) && age < UINT32_MAX) {
        *wall_us = clock_wall_us() - (int64_t)age * US_PER_S;
        return true;
    }
    snprintf(err, err_len,
             "\"%s\" is no time; give a local time such as \"2026-11-22 10:00\", or an age such as "
             "2h",
             text_escape(shown, sizeof(shown), text, len));
    return false;
}

bool when_parse_iso(const char *text, int64_t *wall_us)
{
    struct moment m;

    return parse_moment(text, &m) && m.has_zone && moment_us(&m, wall_us);
}

/* Digits with an optional fraction; moves *at. At most nine digits, so that nothing overflows. */
static bool parse_decimal(const char **at, double *value)
{
    double unit = 0.1;
    int count = 0;

    *value = 0;
    for (; **at >= '0' && **at <= '9' && count < 9; count++)
        *value = *value * 10 + (*(*at)++ - '0');
    if (literal(at, '.')) {
        for (; **at >= '0' && **at <= '9' && count < 9; count++, unit /= 10)
            *value += unit * (*(*at)++ - '0');
    }
    return count > 0;
}

bool when_parse_position(const char *text, double *seconds)
{
    const char *at = text;
    double total = 0, part;
    int parts = 0;

    if (!strchr(text, ':'))
        return when_parse_seconds(text, seconds);
    do {
        if (!parse_decimal(&at, &part) || (parts && part >= 60))
            return false;
        total = total * 60 + part;
    } while (++parts < 3 && literal(&at, ':'));
    *seconds = total;
    return *at == '\0' && parts >= 2;
}

bool when_parse_seconds(const char *text, double *seconds)
{
    static const struct {
        const char *unit;
        double factor;
    } units[] = {{"", 1}, {"s", 1}, {"ms", 0.001}, {"m", 60}, {"h", 3600}};
    const char *at = text;
    double value;

    if (!parse_decimal(&at, &value))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(at, units[i].unit) == 0) {
            *seconds = value * units[i].factor;
            return true;
        }
    }
    return false;
}

const char *when_local(char *dst, size_t dst_len, int64_t wall_us, bool is_short)
{
    time_t t = wall_us / US_PER_S, now = clock_wall_us() / US_PER_S;
    struct tm tm, today;
    bool is_today;
    size_t n;

    if (!localtime_r(&t, &tm) || !localtime_r(&now, &today)) {
        snprintf(dst, dst_len, "?");
        return dst;
    }
    is_today = tm.tm_year == today.tm_year && tm.tm_yday == today.tm_yday;
    if (!is_short)
        n = strftime(dst, dst_len, "%Y-%m-%d %H:%M:%S", &tm);
    else if (is_today)
        n = strftime(dst, dst_len, "%H:%M:%S", &tm);
    else
        n = strftime(dst, dst_len, "%Y-%m-%d %H:%M", &tm);
    if (n == 0)
        snprintf(dst, dst_len, "?");
    return dst;
}
