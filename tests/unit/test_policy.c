/* Policy keys: defaults, parsing, what an error says, overlays and which one wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <sallyport/policy.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct policy_key *key_of(const char *name)
{
    for (size_t i = 0; i < policy_key_count; i++)
        if (strcmp(policy_keys[i].key, name) == 0)
            return &policy_keys[i];
    fail_msg("no key %s", name);
    return NULL;
}

static void has_the_defaults_of_the_contract(void **unused)
{
    struct policy p;

    (void)unused;
    memset(&p, 0xff, sizeof(p));
    policy_defaults(&p);
    assert_int_equal(p.idle_after, 300);
    assert_int_equal(p.warn_after, 600);
    assert_int_equal(p.disconnect_after, 1800);
    assert_int_equal(p.counts, COUNTS_AUTO);
    assert_int_equal(p.sessions_per_user, 50);
    assert_int_equal(p.max_duration, 0);
    assert_int_equal(p.channels, 10);
    assert_int_equal(p.record, 1);
    assert_int_equal(p.input, INPUT_NO);
    assert_int_equal(p.on_failure, ON_FAILURE_TERMINATE);
}

static void record_has_another_name_in_the_configuration(void **unused)
{
    (void)unused;
    assert_string_equal(key_of("record")->conf_key, "ssh");
    assert_string_equal(key_of("record")->section, "recording");
    assert_string_equal(key_of("idle_after")->conf_key, "idle_after");
}

static const struct {
    const char *key, *text;
    uint64_t value;
    const char *written;
} values[] = {
    {"idle_after", "90m", 5400, "1h30m"},
    {"idle_after", "90", 90, "1m30s"},
    {"idle_after", "0", 0, "0"},
    {"idle_after", "365d", 31536000, "365d"},
    {"counts", "input", COUNTS_INPUT, "input"},
    {"counts", "traffic", COUNTS_TRAFFIC, "traffic"},
    {"sessions_per_user", "100000", 100000, "100000"},
    {"record", "no", 0, "no"},
    {"record", "on", 1, "yes"},
    {"on_failure", "continue", ON_FAILURE_CONTINUE, "continue"},
};

static void parses_and_writes_values(void **unused)
{
    char err[200], text[64];
    uint64_t value, again;

    (void)unused;
    for (size_t i = 0; i < COUNT(values); i++) {
        const struct policy_key *key = key_of(values[i].key);

        assert_int_equal(policy_parse_value(key, values[i].text, &value, err, sizeof(err)), 0);
        assert_int_equal(value, values[i].value);
        assert_string_equal(policy_value_text(key, value, text, sizeof(text)), values[i].written);
        assert_int_equal(policy_parse_value(key, text, &again, err, sizeof(err)), 0);
        assert_int_equal(again, value);
    }
    assert_string_equal(policy_value_text(key_of("counts"), 9, text, sizeof(text)), "9");
}

static const struct {
    const char *assignment, *says;
} wrong[] = {
    {"idle_after=soon", "idle_after: 'soon' is not a duration: write 30s, 10m, 4h, 2d, 1h30m or 0"},
    {"idle_after=366d", "idle_after: '366d' is out of range: write a value from 0 to 365d"},
    {"channels=0", "channels: '0' is out of range: write a value from 1 to 1000"},
    {"channels=many", "channels: 'many' is not a number: write decimal digits"},
    {"record=maybe", "record: 'maybe' is not yes or no: write one of them"},
    {"counts=imput",
     "counts: 'imput' is not a choice: write one of auto|input|traffic (did you mean 'input'?)"},
    {"counts=", NULL},
    {"idle_aftr=5m", "'idle_aftr' is not a policy key (did you mean 'idle_after'?)"},
    {"ssh=yes", "'ssh' is not a policy key (did you mean 'record'?)"},
    {"bananas=5", "'bananas' is not a policy key"},
    {"a\x1b[m=5", "'a\\x1b[m' is not a policy key"},
    {"idle_after", "'idle_after' is not a setting: write KEY=VALUE, such as idle_after=10m"},
    {"=5m", "'=5m' is not a setting: write KEY=VALUE, such as idle_after=10m"},
    {"", "'' is not a setting: write KEY=VALUE, such as idle_after=10m"},
};

static void errors_say_what_to_do(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        struct policy_overlay o = {0};
        char err[256] = "";
        int result = policy_overlay_set(&o, wrong[i].assignment, err, sizeof(err));

        assert_int_equal(result, wrong[i].says ? ERR_INVALID : 0);
        assert_string_equal(err, wrong[i].says ? wrong[i].says : "");
        assert_int_equal(o.set, 0);
    }
}

static void overlays_are_text_and_back(void **unused)
{
    struct policy_overlay o = {0}, again;
    struct buffer b;
    char err[200];

    (void)unused;
    assert_int_equal(policy_overlay_set(&o, "max_duration=4h", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "idle_after=10m", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "record=no", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "input=all", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "input=", err, sizeof(err)), 0);
    buffer_init(&b, 1000);
    policy_overlay_text(&o, &b);
    assert_string_equal(buffer_cstr(&b), "idle_after=10m max_duration=4h record=no");
    assert_int_equal(policy_overlay_parse(&again, buffer_cstr(&b), err, sizeof(err)), 0);
    assert_memory_equal(&o, &again, sizeof(o));
    buffer_finish(&b);
    assert_int_equal(policy_overlay_parse(&again, "  ", err, sizeof(err)), 0);
    assert_int_equal(again.set, 0);
    assert_int_equal(policy_overlay_parse(&again, "idle_after=1m nonsense", err, sizeof(err)),
                     ERR_INVALID);
    assert_int_equal(again.set, 0);
}

static void the_last_one_laid_over_wins(void **unused)
{
    struct policy_overlay role, grant;
    struct policy p;
    char err[200];

    (void)unused;
    policy_defaults(&p);
    assert_int_equal(policy_overlay_parse(&role, "idle_after=1m warn_after=2m", err, sizeof(err)),
                     0);
    assert_int_equal(policy_overlay_parse(&grant, "warn_after=0 record=no", err, sizeof(err)), 0);
    policy_apply(&p, &role);
    policy_apply(&p, &grant);
    assert_int_equal(p.idle_after, 60);
    assert_int_equal(p.warn_after, 0); /* set to 0 is set */
    assert_int_equal(p.record, 0);
    assert_int_equal(p.disconnect_after, 1800);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_defaults_of_the_contract),
        cmocka_unit_test(record_has_another_name_in_the_configuration),
        cmocka_unit_test(parses_and_writes_values),
        cmocka_unit_test(errors_say_what_to_do),
        cmocka_unit_test(overlays_are_text_and_back),
        cmocka_unit_test(the_last_one_laid_over_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
