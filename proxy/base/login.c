/*
 * The parser of login names, for bytes that a stranger sent. Pure: no log, no memory, no globals.
 * Whether a user or target exists is not its question; every door calls it.
 */
#include <sallyport/login.h>

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <sallyport/cursor.h>
#include <sallyport/text.h>

#define PARTS_MAX     3
#define LOGIN_LEN_MAX (NAME_MAX_LEN + 1 + ACCOUNT_MAX_LEN + 1 + NAME_MAX_LEN)

/*
 * The one separator that divides this name: 0 when there is none; -1 for a NUL anywhere, and when
 * two different separators are there, since then a part could be read in two ways.
 */
static int find_separator(struct cursor c, const char *separators)
{
    int found = 0;
    uint8_t byte;

    while (cursor_u8(&c, &byte)) {
        if (byte == 0)
            return -1;
        if (!strchr(separators, byte))
            continue;
        if (found && found != byte)
            return -1;
        found = byte;
    }
    return found;
}

/* Copy the next part as a string; false when it is empty or too long. */
static bool take_part(struct cursor *c, int separator, char part[ACCOUNT_MAX_LEN + 1])
{
    size_t len = 0;
    uint8_t byte;

    while (cursor_u8(c, &byte) && byte != separator) {
        if (len == ACCOUNT_MAX_LEN)
            return false;
        part[len++] = (char)byte;
    }
    part[len] = 0;
    return len > 0;
}

static int split(struct cursor c, int separator, char parts[PARTS_MAX][ACCOUNT_MAX_LEN + 1])
{
    int count = 0;

    if (!cursor_left(&c) || c.end[-1] == separator)
        return ERR_INVALID; /* an empty last part */
    while (!cursor_at_end(&c)) {
        if (count == PARTS_MAX || !take_part(&c, separator, parts[count]))
            return ERR_INVALID;
        count++;
    }
    return count;
}

static int fill(struct login *out, char parts[PARTS_MAX][ACCOUNT_MAX_LEN + 1], int count)
{
    const char *user = parts[0];
    const char *account = count == 3 ? parts[1] : "";
    const char *target = count > 1 ? parts[count - 1] : "";

    if (!text_is_name(user) || (*account && !text_is_account(account)) ||
        (*target && !text_is_name(target)))
        return ERR_INVALID;
    if (!text_copy(out->user, sizeof(out->user), user) ||
        !text_copy(out->account, sizeof(out->account), account) ||
        !text_copy(out->target, sizeof(out->target), target))
        return ERR_INVALID;
    return 0;
}

int login_parse(struct login *out, const char *text, size_t len, const char *separators)
{
    char parts[PARTS_MAX][ACCOUNT_MAX_LEN + 1];
    struct cursor c = cursor_of(text, len);
    int separator, count, result;

    memset(out, 0, sizeof(*out));
    if (len < 1 || len > LOGIN_LEN_MAX)
        return ERR_INVALID;
    separator = find_separator(c, separators && *separators ? separators : "+");
    if (separator < 0)
        return ERR_INVALID;
    count = split(c, separator, parts);
    if (count < 0)
        return count;
    result = fill(out, parts, count);
    if (result < 0)
        memset(out, 0, sizeof(*out));
    return result;
}
