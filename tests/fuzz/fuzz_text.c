/*
 * Text from outside: what is escaped drives no terminal, however it is cut; what the small parsers
 * take is written back to the same value.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/policy.h>
#include <sallyport/text.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool ok)
{
    if (!ok)
        abort();
}

/* Escaping escaped text only doubles backslashes, so everything else in it was harmless. */
static void check_harmless(const char *text, size_t len)
{
    struct buffer twice;
    size_t backslashes = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t c = (uint8_t)text[i];
        require(c >= 0x20 && c != 0x7f);
        backslashes += c == '\\';
    }
    buffer_init(&twice, 1 << 20);
    text_escape_append(&twice, text, len);
    require(!twice.failed && twice.len == len + backslashes);
    buffer_finish(&twice);
}

static void check_escape(const char *text, size_t len)
{
    struct buffer whole;
    char cut[64];

    buffer_init(&whole, 1 << 20);
    text_escape_append(&whole, text, len);
    require(!whole.failed);
    check_harmless((const char *)whole.data, whole.len);
    for (size_t room = 1; room <= sizeof(cut); room += 7) {
        size_t n = strlen(text_escape(cut, room, text, len));

        require(n < room && (n == 0 || memcmp(cut, whole.data, n) == 0));
        check_harmless(cut, n);
    }
    buffer_finish(&whole);
}

static void check_numbers(const char *text)
{
    char written[64];
    uint64_t value, again;

    if (text_parse_size(text, &value))
        require(text_parse_size(text_size(written, sizeof(written), value), &again) &&
                again == value);
    if (text_parse_duration(text, &value)) {
        require(strlen(text_duration(written, sizeof(written), value)) < DURATION_TEXT_MAX);
        text_duration_words(written, sizeof(written), value);
        text_time_utc(written, sizeof(written), (int64_t)value);
    }
    if (text_parse_u64(text, &value))
        require(text_parse_size(text, &again) && again == value);
}

static void check_names(const char *text)
{
    static const char *const names[] = {"idle_after", "warn_after", "listen", "a", ""};
    const char *near = text_nearest(text, names, 5);

    require(!text_is_name(text) || (text_is_account(text) && strlen(text) <= 64));
    require(strcmp(text, "listen") != 0 || near == names[2]);
}

static void check_overlay(const char *text)
{
    struct policy_overlay o, again;
    struct buffer b;
    char err[300];

    if (policy_overlay_parse(&o, text, err, sizeof(err)) < 0) {
        require(o.set == 0 && *err);
        check_harmless(err, strlen(err));
        return;
    }
    buffer_init(&b, 4096);
    policy_overlay_text(&o, &b);
    require(policy_overlay_parse(&again, buffer_cstr(&b), err, sizeof(err)) == 0);
    require(memcmp(&o, &again, sizeof(o)) == 0);
    buffer_finish(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char *text;

    if (len > 4096)
        return 0;
    text = malloc(len + 1);
    if (!text)
        abort();
    memcpy(text, data, len);
    text[len] = 0;
    check_escape((const char *)data, len);
    check_numbers(text);
    check_names(text);
    check_overlay(text);
    free(text);
    return 0;
}
