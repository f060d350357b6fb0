/* A login name, with the default separator and with all of them: what is taken is made of names,
 * and put together again it is the input. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/login.h>
#include <sallyport/text.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void check(const struct login *l, const char *data, size_t len, const char *separators)
{
    char joined[sizeof(*l) + 2];
    bool found = false;
    int n;

    require(text_is_name(l->user) && (!*l->target || text_is_name(l->target)));
    require(!*l->account || (text_is_account(l->account) && *l->target));
    for (const char *s = separators; *s && !found; s++) {
        if (*l->account)
            n = snprintf(joined, sizeof(joined), "%s%c%s%c%s", l->user, *s, l->account, *s,
                         l->target);
        else if (*l->target)
            n = snprintf(joined, sizeof(joined), "%s%c%s", l->user, *s, l->target);
        else
            n = snprintf(joined, sizeof(joined), "%s", l->user);
        found = (size_t)n == len && memcmp(joined, data, len) == 0;
    }
    require(found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const separators[] = {"+", "+:#@", "@"};
    static const struct login nothing;
    const char *text = (const char *)data;
    struct login l;

    for (size_t i = 0; i < sizeof(separators) / sizeof(separators[0]); i++) {
        memset(&l, 0xaa, sizeof(l));
        if (login_parse(&l, text, len, separators[i]) == 0)
            check(&l, text, len, separators[i]);
        else
            require(memcmp(&l, &nothing, sizeof(l)) == 0);
    }
    return 0;
}
