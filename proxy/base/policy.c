/*
 * Policy: the rows of policy.h, and parsing, printing and laying one policy over another by them.
 * It does not know who set what or why; the configuration, the store and the tracker call it.
 */
#include <sallyport/policy.h>

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/destination.h>
#include <sallyport/text.h>

#define RECORD_CONF_KEY "ssh" /* on a target, role or grant the word alone would say nothing */
#define VALUE_TEXT_MAX  64
#define SHOWN_MAX       80 /* bytes of a wrong value that an error repeats */
#define CHOICES_MAX     8
#define SEPARATORS      " \t," /* between the words of a set or of destinations */

#define ROW(member, key, section, kind, choices, def, min, max, help) \
    {#member, section, key, kind, choices, def, min, max, offsetof(struct policy, member), help},
#define ONE(member, key, section, kind, choices, def, min, max, help) +1
#define KEY_COUNT                                                     (POLICY_KEYS(ONE))
#define TEXT_COUNT                                                    (POLICY_TEXTS(ONE))

const struct policy_key policy_keys[] = {POLICY_KEYS(ROW) POLICY_TEXTS(ROW)};
const size_t policy_key_count = sizeof(policy_keys) / sizeof(policy_keys[0]);

static_assert(KEY_COUNT + TEXT_COUNT <= 32, "overlay.set has 32 bits");
static_assert(sizeof(struct policy) == sizeof(uint64_t) * KEY_COUNT + POLICY_TEXT_MAX * TEXT_COUNT,
              "a policy is its keys and nothing else");

uint8_t policy_key_since(const struct policy_key *key)
{
    static const char *const fourth[] = {"redirect_to", "record_rdp"};

    for (size_t i = 0; i < sizeof(fourth) / sizeof(fourth[0]); i++)
        if (strcmp(key->key, fourth[i]) == 0)
            return 4;
    return key - policy_keys < 10 ? 1 : 3;
}

bool policy_is_text(const struct policy_key *key)
{
    return key->kind == POLICY_DESTINATIONS;
}

static uint64_t *value_of(struct policy *p, const struct policy_key *key)
{
    return (uint64_t *)(void *)((uint8_t *)p + key->offset);
}

static char *text_at(struct policy *p, const struct policy_key *key)
{
    return (char *)p + key->offset;
}

static uint64_t get_value(const struct policy *p, const struct policy_key *key)
{
    uint64_t value;

    memcpy(&value, (const uint8_t *)p + key->offset, sizeof(value));
    return value;
}

/* ---- choices: "a|b|c" ---- */

static size_t split_choices(const char *choices, char names[CHOICES_MAX][VALUE_TEXT_MAX],
                            const char *pointers[CHOICES_MAX])
{
    size_t count = 0;

    while (*choices && count < CHOICES_MAX) {
        size_t len = strcspn(choices, "|");

        snprintf(names[count], VALUE_TEXT_MAX, "%.*s", (int)len, choices);
        pointers[count] = names[count];
        count++;
        choices += len + (choices[len] == '|');
    }
    return count;
}

static const char *shown(char dst[SHOWN_MAX], const char *text)
{
    return text_escape(dst, SHOWN_MAX, text, strlen(text));
}

static int parse_choice(const struct policy_key *key, const char *text, uint64_t *value, char *err,
                        size_t err_len)
{
    char names[CHOICES_MAX][VALUE_TEXT_MAX], wrong[SHOWN_MAX];
    const char *pointers[CHOICES_MAX], *near;
    size_t count = split_choices(key->choices, names, pointers);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, names[i]) == 0) {
            *value = i;
            return 0;
        }
    }
    near = text_nearest(text, pointers, count);
    snprintf(err, err_len, "'%s' is not a choice: write one of %s%s%s%s", shown(wrong, text),
             key->choices, near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    return ERR_INVALID;
}

/* ---- sets and destinations: words with blanks or commas between them ---- */

/* The next word, cut to fit; NULL behind the last one. */
static const char *next_word(const char **at, char *dst, size_t dst_len)
{
    const char *word = *at + strspn(*at, SEPARATORS);
    size_t len = strcspn(word, SEPARATORS);

    *at = word + len;
    snprintf(dst, dst_len, "%.*s", (int)(len < dst_len ? len : dst_len), word);
    return len > 0 ? dst : NULL;
}

static bool find_word(const struct policy_key *key, const char *word, uint64_t *bits)
{
    char names[CHOICES_MAX][VALUE_TEXT_MAX];
    const char *pointers[CHOICES_MAX];
    size_t count = split_choices(key->choices, names, pointers);

    if (strcmp(word, "none") == 0 || strcmp(word, "all") == 0) {
        *bits = word[0] == 'a' ? key->max : 0;
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        *bits = UINT64_C(1) << i;
        if (strcmp(word, names[i]) == 0)
            return true;
    }
    return false;
}

static int parse_set(const struct policy_key *key, const char *text, uint64_t *value, char *err,
                     size_t err_len)
{
    char names[CHOICES_MAX][VALUE_TEXT_MAX], word[VALUE_TEXT_MAX], wrong[SHOWN_MAX];
    const char *pointers[CHOICES_MAX], *near, *at = text;
    uint64_t parsed = 0, bits = 0;
    size_t count = 0;

    while (next_word(&at, word, sizeof(word))) {
        if (!find_word(key, word, &bits)) {
            near = text_nearest(word, pointers, split_choices(key->choices, names, pointers));
            snprintf(err, err_len, "'%s' is not one of %s, none and all%s%s%s", shown(wrong, word),
                     key->choices, near ? " (did you mean '" : "", near ? near : "",
                     near ? "'?)" : "");
            return ERR_INVALID;
        }
        parsed |= bits;
        count++;
    }
    if (count == 0) {
        snprintf(err, err_len, "needs words of %s, or none, or all", key->choices);
        return ERR_INVALID;
    }
    *value = parsed;
    return 0;
}

static const char *set_text(const struct policy_key *key, uint64_t value, char *dst, size_t dst_len)
{
    char names[CHOICES_MAX][VALUE_TEXT_MAX];
    const char *pointers[CHOICES_MAX];
    size_t count = split_choices(key->choices, names, pointers), used = 0;

    snprintf(dst, dst_len, "none");
    for (size_t i = 0; i < count && used < dst_len; i++) {
        if (value & UINT64_C(1) << i)
            used += (size_t)snprintf(dst + used, dst_len - used, "%s%s", used ? "," : "", names[i]);
    }
    return dst;
}

static int check_destinations(const char *text, char *err, size_t err_len)
{
    char word[POLICY_TEXT_MAX], wrong[SHOWN_MAX];
    const char *at = text;
    size_t count = 0;

    if (strlen(text) >= POLICY_TEXT_MAX) {
        snprintf(err, err_len, "is longer than %d bytes", POLICY_TEXT_MAX - 1);
        return ERR_INVALID;
    }
    for (; next_word(&at, word, sizeof(word)); count++) {
        if (strcmp(word, "none") != 0 && !destination_is_pattern(word)) {
            snprintf(err, err_len,
                     "'%s' is not a destination: write none, any, or HOST:PORT such as "
                     "db*.corp:5432, 10.0.0.*:8000-8099 or [fd00::*]:*",
                     shown(wrong, word));
            return ERR_INVALID;
        }
    }
    if (count == 0)
        snprintf(err, err_len, "needs none, any, or patterns HOST:PORT");
    return count ? 0 : ERR_INVALID;
}

/* One separator between words: a stored overlay has none but commas inside a value. */
static void copy_words(char dst[POLICY_TEXT_MAX], const char *text)
{
    char word[POLICY_TEXT_MAX];
    size_t used = 0;

    dst[0] = '\0';
    while (used < POLICY_TEXT_MAX && next_word(&text, word, sizeof(word)))
        used += (size_t)snprintf(dst + used, POLICY_TEXT_MAX - used, "%s%s", used ? "," : "", word);
}

bool policy_allows_destination(const char *list, const char *host, uint16_t port)
{
    char word[POLICY_TEXT_MAX];

    while (next_word(&list, word, sizeof(word))) {
        if (destination_matches(word, host, port))
            return true;
    }
    return false;
}

/* ---- values ---- */

static bool parse_bool(const char *text, uint64_t *value)
{
    static const struct {
        const char *text;
        uint64_t value;
    } words[] = {{"yes", 1}, {"no", 0}, {"on", 1}, {"off", 0}, {"true", 1}, {"false", 0}};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(text, words[i].text) == 0) {
            *value = words[i].value;
            return true;
        }
    }
    return false;
}

static bool parse_plain(enum policy_kind kind, const char *text, uint64_t *value)
{
    switch (kind) {
    case POLICY_DURATION:
        return text_parse_duration(text, value);
    case POLICY_SIZE:
        return text_parse_size(text, value);
    case POLICY_BOOL:
        return parse_bool(text, value);
    case POLICY_COUNT:
    case POLICY_CHOICE:
    case POLICY_SET:
    case POLICY_DESTINATIONS:
        break;
    }
    return text_parse_u64(text, value);
}

static const char *how_to_write(enum policy_kind kind)
{
    static const char *const hints[] = {
        [POLICY_DURATION] = "a duration: write 30s, 10m, 4h, 2d, 1h30m or 0",
        [POLICY_COUNT] = "a number: write decimal digits",
        [POLICY_SIZE] = "a size: write 4096, 64K, 256M or 1G",
        [POLICY_BOOL] = "yes or no: write one of them",
        [POLICY_CHOICE] = "a choice",
    };
    return hints[kind];
}

int policy_parse_value(const struct policy_key *key, const char *text, uint64_t *value, char *err,
                       size_t err_len)
{
    char wrong[SHOWN_MAX], low[VALUE_TEXT_MAX], high[VALUE_TEXT_MAX];
    uint64_t parsed = 0;

    if (key->kind == POLICY_CHOICE)
        return parse_choice(key, text, value, err, err_len);
    if (key->kind == POLICY_SET)
        return parse_set(key, text, value, err, err_len);
    if (key->kind == POLICY_DESTINATIONS) {
        *value = 0;
        return check_destinations(text, err, err_len);
    }
    if (!parse_plain(key->kind, text, &parsed)) {
        snprintf(err, err_len, "'%s' is not %s", shown(wrong, text), how_to_write(key->kind));
        return ERR_INVALID;
    }
    if (parsed < key->min || parsed > key->max) {
        snprintf(err, err_len, "'%s' is out of range: write a value from %s to %s",
                 shown(wrong, text), policy_value_text(key, key->min, low, sizeof(low)),
                 policy_value_text(key, key->max, high, sizeof(high)));
        return ERR_INVALID;
    }
    *value = parsed;
    return 0;
}

/* Exact and without blanks, so that it parses back: 5400 is 1h30m. */
static void duration_text(uint64_t seconds, char *dst, size_t dst_len)
{
    static const struct {
        uint64_t seconds;
        char letter;
    } parts[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
    size_t used = 0;

    snprintf(dst, dst_len, "0");
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        uint64_t n = seconds / parts[i].seconds;
        int written;

        if (!n || used >= dst_len)
            continue;
        written = snprintf(dst + used, dst_len - used, "%" PRIu64 "%c", n, parts[i].letter);
        used += (size_t)written;
        seconds %= parts[i].seconds;
    }
}

const char *policy_value_text(const struct policy_key *key, uint64_t value, char *dst,
                              size_t dst_len)
{
    char names[CHOICES_MAX][VALUE_TEXT_MAX];
    const char *pointers[CHOICES_MAX];

    switch (key->kind) {
    case POLICY_DURATION:
        duration_text(value, dst, dst_len);
        return dst;
    case POLICY_SIZE:
        return text_size(dst, dst_len, value);
    case POLICY_BOOL:
        snprintf(dst, dst_len, "%s", value ? "yes" : "no");
        return dst;
    case POLICY_CHOICE:
        if (value < split_choices(key->choices, names, pointers)) {
            snprintf(dst, dst_len, "%s", names[value]);
            return dst;
        }
        break;
    case POLICY_SET:
        return set_text(key, value, dst, dst_len);
    case POLICY_COUNT:
    case POLICY_DESTINATIONS:
        break;
    }
    snprintf(dst, dst_len, "%" PRIu64, value);
    return dst;
}

int policy_set(struct policy *p, const struct policy_key *key, const char *text, char *err,
               size_t err_len)
{
    uint64_t value = 0;
    int result = policy_parse_value(key, text, &value, err, err_len);

    if (result < 0)
        return result;
    if (policy_is_text(key))
        copy_words(text_at(p, key), text);
    else
        *value_of(p, key) = value;
    return 0;
}

const char *policy_get(const struct policy *p, const struct policy_key *key,
                       char dst[POLICY_TEXT_MAX])
{
    if (!policy_is_text(key))
        return policy_value_text(key, get_value(p, key), dst, POLICY_TEXT_MAX);
    memcpy(dst, (const char *)p + key->offset, POLICY_TEXT_MAX);
    dst[POLICY_TEXT_MAX - 1] = '\0';
    return dst;
}

/* As it is before it is set. */
static void clear(struct policy *p, const struct policy_key *key)
{
    memset((uint8_t *)p + key->offset, 0, policy_is_text(key) ? POLICY_TEXT_MAX : sizeof(uint64_t));
}

void policy_defaults(struct policy *p)
{
    char err[256];

    memset(p, 0, sizeof(*p));
    for (size_t i = 0; i < policy_key_count; i++)
        if (policy_set(p, &policy_keys[i], policy_keys[i].def, err, sizeof(err)) < 0)
            abort(); /* our own table is wrong: the first test says so */
}

/* ---- overlays ---- */

static int find_key(const char *name, size_t *index, char *err, size_t err_len)
{
    const char *names[sizeof(policy_keys) / sizeof(policy_keys[0])], *near;
    char wrong[SHOWN_MAX];

    for (size_t i = 0; i < policy_key_count; i++) {
        names[i] = policy_keys[i].key;
        if (strcmp(name, names[i]) == 0) {
            *index = i;
            return 0;
        }
    }
    near =
        strcmp(name, RECORD_CONF_KEY) == 0 ? "record" : text_nearest(name, names, policy_key_count);
    snprintf(err, err_len, "'%s' is not a policy key%s%s%s", shown(wrong, name),
             near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    return ERR_INVALID;
}

int policy_overlay_set(struct policy_overlay *o, const char *assignment, char *err, size_t err_len)
{
    const char *equals = strchr(assignment, '=');
    char name[VALUE_TEXT_MAX], wrong[SHOWN_MAX], why[256];
    size_t i = 0;
    int result;

    if (!equals || equals == assignment || (size_t)(equals - assignment) >= sizeof(name)) {
        snprintf(err, err_len, "'%s' is not a setting: write KEY=VALUE, such as idle_after=10m",
                 shown(wrong, assignment));
        return ERR_INVALID;
    }
    snprintf(name, sizeof(name), "%.*s", (int)(equals - assignment), assignment);
    result = find_key(name, &i, err, err_len);
    if (result < 0)
        return result;
    if (!equals[1]) {
        o->set &= ~(UINT32_C(1) << i);
        clear(&o->values, &policy_keys[i]);
        return 0;
    }
    result = policy_set(&o->values, &policy_keys[i], equals + 1, why, sizeof(why));
    if (result < 0) {
        snprintf(err, err_len, "%s: %s", name, why);
        return result;
    }
    o->set |= UINT32_C(1) << i;
    return 0;
}

void policy_overlay_text(const struct policy_overlay *o, struct buffer *out)
{
    char text[POLICY_TEXT_MAX];
    const char *blank = "";

    for (size_t i = 0; i < policy_key_count; i++) {
        const struct policy_key *key = &policy_keys[i];

        if (!(o->set & UINT32_C(1) << i))
            continue;
        buffer_printf(out, "%s%s=%s", blank, key->key, policy_get(&o->values, key, text));
        blank = " ";
    }
}

int policy_overlay_parse(struct policy_overlay *o, const char *text, char *err, size_t err_len)
{
    char word[VALUE_TEXT_MAX + POLICY_TEXT_MAX], wrong[SHOWN_MAX];
    int result;

    memset(o, 0, sizeof(*o));
    for (;;) {
        size_t len;

        text += strspn(text, " ");
        if (!*text)
            return 0;
        len = strcspn(text, " ");
        if (len >= sizeof(word)) {
            snprintf(err, err_len, "'%s' is too long for a setting", shown(wrong, text));
            result = ERR_INVALID;
            break;
        }
        snprintf(word, sizeof(word), "%.*s", (int)len, text);
        result = policy_overlay_set(o, word, err, err_len);
        if (result < 0)
            break;
        text += len;
    }
    memset(o, 0, sizeof(*o));
    return result;
}

static bool is_set(const struct policy_overlay *o, size_t offset)
{
    size_t i = 0;

    while (policy_keys[i].offset != offset)
        i++;
    return o->set & UINT32_C(1) << i;
}

void policy_apply(struct policy *p, const struct policy_overlay *o)
{
    for (size_t i = 0; i < policy_key_count; i++) {
        const struct policy_key *key = &policy_keys[i];

        if (o->set & UINT32_C(1) << i)
            memcpy((uint8_t *)p + key->offset, (const uint8_t *)&o->values + key->offset,
                   policy_is_text(key) ? POLICY_TEXT_MAX : sizeof(uint64_t));
    }
    if (is_set(o, offsetof(struct policy, record)) &&
        !is_set(o, offsetof(struct policy, record_rdp)))
        p->record_rdp = o->values.record;
}
