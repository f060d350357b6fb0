/* What a policy leaves out of a client's channels, whatever way their names are written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/rdp/session.h"

static struct rdp_session *with_channels(const char *const *names, size_t count)
{
    struct rdp_session *s = calloc(1, sizeof(*s));

    assert_non_null(s);
    s->u.client.channel_count = count;
    for (size_t i = 0; i < count; i++)
        memcpy(s->u.client.channels[i].name, names[i], strlen(names[i]) + 1);
    return s;
}

static void test_names_in_any_case(void **state)
{
    static const char *const names[] = {"CLIPRDR", "Rdpdr", "rdpSND", "drdynvc", "cliprdr"};
    static const bool sound_only[] = {true, true, false, false, true};
    struct rdp_session *s = with_channels(names, 5);

    (void)state;
    channels_choose(s, POLICY_RDP_SOUND);
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(s->t.is_dropped[i], sound_only[i]);
    channels_choose(s, POLICY_RDP_ALL);
    for (size_t i = 0; i < 5; i++)
        assert_false(s->t.is_dropped[i]);
    free(s);
}

static void test_listed_in_any_case(void **state)
{
    static const char *const names[] = {"CLIPRDR", "rdpdr"};
    struct rdp_session *s = with_channels(names, 2);
    char text[CHANNELS_TEXT_MAX];

    (void)state;
    s->t.channels[0] = 1004;
    channels_describe(s, text, sizeof(text));
    assert_string_equal(text, "desktop,clipboard");
    free(s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_in_any_case),
        cmocka_unit_test(test_listed_in_any_case),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
