/* Policy keys: defaults, parsing, what an error says, overlays and which one wins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include <sallyport/destination.h>
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
    assert_int_equal(p.max_channels, 10);
    assert_int_equal(p.channels, POLICY_CHANNEL_SHELL | POLICY_CHANNEL_EXEC | POLICY_CHANNEL_SFTP |
                                     POLICY_CHANNEL_FORWARD | POLICY_CHANNEL_REMOTE_FORWARD |
                                     POLICY_CHANNEL_AGENT | POLICY_CHANNEL_X11);
    assert_string_equal(p.forward_to, "any");
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
    {"channels", "shell", 1, "shell"},
    {"channels", "sftp  exec,shell\tshell", 7, "shell,exec,sftp"},
    {"channels", "remote-forward", 16, "remote-forward"},
    {"channels", "none", 0, "none"},
    {"channels", "all", 255, "shell,exec,sftp,forward,remote-forward,agent,x11,streamlocal"},
};

static void parses_and_writes_values(void **unused)
{
    char err[200], text[POLICY_TEXT_MAX];
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
    {"max_channels=0", "max_channels: '0' is out of range: write a value from 1 to 1000"},
    {"max_channels=many", "max_channels: 'many' is not a number: write decimal digits"},
    {"record=maybe", "record: 'maybe' is not yes or no: write one of them"},
    {"counts=imput",
     "counts: 'imput' is not a choice: write one of auto|input|traffic (did you mean 'input'?)"},
    {"counts=", NULL},
    {"channels=shel",
     "channels: 'shel' is not one of "
     "shell|exec|sftp|forward|remote-forward|agent|x11|streamlocal, none and all (did you mean "
     "'shell'?)"},
    {"channels= , ",
     "channels: needs words of shell|exec|sftp|forward|remote-forward|agent|x11|streamlocal, or "
     "none, or all"},
    {"channels=10", "channels: '10' is not one of "
                    "shell|exec|sftp|forward|remote-forward|agent|x11|streamlocal, none and all"},
    {"forward_to=db01", "forward_to: 'db01' is not a destination: write none, any, or HOST:PORT "
                        "such as db*.corp:5432, "
                        "10.0.0.*:8000-8099 or [fd00::*]:*"},
    {"forward_to=,", "forward_to: needs none, any, or patterns HOST:PORT"},
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

static void sets_and_destinations_have_no_blanks_in_an_overlay(void **unused)
{
    struct policy_overlay o = {0}, again;
    struct policy p;
    struct buffer b;
    char err[200], text[POLICY_TEXT_MAX], list[POLICY_TEXT_MAX + 20];

    (void)unused;
    assert_int_equal(policy_overlay_set(&o, "channels=sftp shell", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "max_channels=3", err, sizeof(err)), 0);
    assert_int_equal(
        policy_overlay_set(&o, "forward_to= db*.corp:5432,  [::1]:* ", err, sizeof(err)), 0);
    buffer_init(&b, 1000);
    policy_overlay_text(&o, &b);
    assert_string_equal(buffer_cstr(&b),
                        "max_channels=3 channels=shell,sftp forward_to=db*.corp:5432,[::1]:*");
    assert_int_equal(policy_overlay_parse(&again, buffer_cstr(&b), err, sizeof(err)), 0);
    assert_memory_equal(&o, &again, sizeof(o));
    buffer_finish(&b);
    policy_defaults(&p);
    policy_apply(&p, &o);
    assert_int_equal(p.channels, POLICY_CHANNEL_SHELL | POLICY_CHANNEL_SFTP);
    assert_string_equal(policy_get(&p, key_of("forward_to"), text), "db*.corp:5432,[::1]:*");
    assert_int_equal(policy_overlay_set(&o, "forward_to=", err, sizeof(err)), 0);
    assert_int_equal(policy_overlay_set(&o, "channels=none", err, sizeof(err)), 0);
    policy_apply(&p, &o);
    assert_int_equal(p.channels, 0);
    assert_string_equal(p.forward_to, "db*.corp:5432,[::1]:*"); /* unset in the overlay */
    memset(list, 'h', sizeof(list));
    memcpy(list, "forward_to=", 11);
    memcpy(list + sizeof(list) - 5, "h:22", 5);
    assert_int_equal(policy_overlay_set(&o, list, err, sizeof(err)), ERR_INVALID);
    assert_string_equal(err, "forward_to: is longer than 511 bytes");
}

static const struct {
    const char *pattern;
    bool is_pattern;
    const char *host;
    uint16_t port;
    bool matches;
} destinations[] = {
    {"any", true, "x", 1, true},
    {"any", true, "::1", 65535, true},
    {"db01:5432", true, "db01", 5432, true},
    {"db01:5432", true, "DB01", 5432, true},
    {"db01:5432", true, "db01", 5433, false},
    {"db01:5432", true, "db012", 5432, false},
    {"db01:5432", true, "db01.", 5432, false},
    {"db*.corp:*", true, "db-7.corp", 1, true},
    {"db*.corp:*", true, "db.corp.evil", 1, false},
    {"db*.corp:*", true, "db.corp.corp", 1, true},
    {"*:443", true, "", 443, true},
    {"*:443", true, "anything", 443, true},
    {"10.0.?.*:80-90", true, "10.0.7.255", 90, true},
    {"10.0.?.*:80-90", true, "10.0.77.255", 80, false},
    {"10.0.?.*:80-90", true, "10.0.7.1", 91, false},
    {"[::1]:22", true, "::1", 22, true},
    {"[fd00::*]:22", true, "fd00::1:2", 22, true},
    {"::1:22", false, "::1", 22, false},
    {"db01", false, "db01", 22, false},
    {":22", false, "", 22, false},
    {"[]:22", false, "", 22, false},
    {"h:", false, "h", 0, false},
    {"h:65536", false, "h", 0, false},
    {"h:90-80", false, "h", 85, false},
    {"h:1-", false, "h", 1, false},
    {"h:-1", false, "h", 1, false},
    {"h:0x16", false, "h", 22, false},
    {"!h:22", false, "h", 22, false},
    {"a\x01:22", false, "a", 22, false},
    {"*a*a*a*a*a*a*a*a*b:1", true, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 1, false},
};

static void destinations_match(void **unused)
{
    (void)unused;
    for (size_t i = 0; i < COUNT(destinations); i++) {
        bool is_pattern = destination_is_pattern(destinations[i].pattern);
        bool is_match = destination_matches(destinations[i].pattern, destinations[i].host,
                                            destinations[i].port);

        if (is_pattern != destinations[i].is_pattern || is_match != destinations[i].matches)
            fail_msg("%s and %s:%u", destinations[i].pattern, destinations[i].host,
                     destinations[i].port);
    }
    assert_true(policy_allows_destination("a:1, b:2", "b", 2));
    assert_false(policy_allows_destination("a:1,b:2", "b", 1));
    assert_false(policy_allows_destination("", "b", 1));
}

static void destinations_are_shown(void **unused)
{
    char text[DESTINATION_MAX], host[400];

    (void)unused;
    assert_string_equal(destination_text(text, "db01", 5432), "db01:5432");
    assert_string_equal(destination_text(text, "::1", 80), "[::1]:80");
    assert_string_equal(destination_text(text, "a\033b", 1), "a\\x1bb:1");
    memset(host, 'h', sizeof(host));
    host[sizeof(host) - 1] = '\0';
    assert_true(strlen(destination_text(text, host, 65535)) < sizeof(text));
    assert_string_equal(text + strlen(text) - 6, ":65535");
}

static void older_links_know_fewer_keys(void **unused)
{
    (void)unused;
    assert_int_equal(policy_key_since(key_of("idle_after")), 1);
    assert_int_equal(policy_key_since(key_of("on_failure")), 1);
    assert_int_equal(policy_key_since(key_of("channels")), 3);
    assert_int_equal(policy_key_since(key_of("forward_to")), 3);
    assert_int_equal(policy_key_since(key_of("redirect_to")), 4);
    assert_int_equal(policy_key_since(key_of("record_rdp")), 4);
}

/* `record` on a target, role or grant is for terminals and desktops. */
static void record_is_for_both(void **unused)
{
    static const struct {
        const char *first, *second;
        unsigned ssh, rdp;
    } rows[] = {{"idle_after=1m", NULL, 1, 1},
                {"record=no", NULL, 0, 0},
                {"record_rdp=no", NULL, 1, 0},
                {"record=no", "record_rdp=yes", 0, 1},
                {"record_rdp=no", "record=yes", 1, 0}};

    (void)unused;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct policy_overlay o = {0};
        struct policy p;
        char err[200];

        policy_defaults(&p);
        assert_int_equal(policy_overlay_set(&o, rows[i].first, err, sizeof(err)), 0);
        if (rows[i].second)
            assert_int_equal(policy_overlay_set(&o, rows[i].second, err, sizeof(err)), 0);
        policy_apply(&p, &o);
        assert_int_equal(p.record, rows[i].ssh);
        assert_int_equal(p.record_rdp, rows[i].rdp);
    }
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
        cmocka_unit_test(sets_and_destinations_have_no_blanks_in_an_overlay),
        cmocka_unit_test(destinations_match),
        cmocka_unit_test(destinations_are_shown),
        cmocka_unit_test(older_links_know_fewer_keys),
        cmocka_unit_test(the_last_one_laid_over_wins),
        cmocka_unit_test(record_is_for_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
