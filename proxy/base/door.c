/*
 * The words of the user's own door, and how a command line becomes one of them: door.h.
 */
#include <sallyport/door.h>

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

const struct door_word door_words[] = {
    /* in the order of the help; a word of two before the one that it begins with */
    {"sessions", "[OPTION...]", "session ls", false,
     "Your live sessions; --all adds your history."},
    {"end", "ID...", "session end --yes", false, "End sessions of yours."},
    {"targets", "[OPTION...]", "self targets", false, "What you may reach, and when you last did."},
    {"config", "[--name NAME]", "self config", false,
     "An ssh_config for all of it: put it into a file, then ssh -F FILE TARGET.bastion."},
    {"passwd", "", "self passwd", false,
     "Change your password; without a terminal three lines from stdin: old, new, new."},
    {"keys add", "[KEY]", "self key add", false,
     "Register a public key: ssh USER@HOST keys add < id_ed25519.pub"},
    {"keys rm", "ID|FINGERPRINT", "self key rm", false, "Remove a public key of yours."},
    {"keys ls", "[OPTION...]", "self key ls", false, "Your public keys; so does keys alone."},
    {"keys", "", "self key ls", false, NULL},
    {"totp enable", "[--code CODE]", "self totp enable", false,
     "Give yourself a second factor; with ssh -t it is easiest to read."},
    {"totp confirm", "CODE", "self totp confirm", false,
     "Confirm it with the first code of your app."},
    {"totp disable", "[--code CODE]", "self totp disable", false,
     "Take it away; a code is asked for."},
    {"totp recovery", "[--code CODE]", "self totp recovery", false, "New recovery codes."},
    {"totp show", "", "self totp show", false, "Have you a second factor; so does totp alone."},
    {"totp", "", "self totp show", false, NULL},
    {"admin", "WORD...", "", true, "For admins and auditors: any words of sallyctl."},
    {"help", "[WORD...]", "self help", false, "This list, or the options of a word."},
};
const size_t door_word_count = sizeof(door_words) / sizeof(door_words[0]);

/* ---- splitting ---- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static int fail(char *err, size_t err_len, const char *text)
{
    text_copy(err, err_len, text);
    return ERR_INVALID;
}

/* The end of a quoted part that begins behind `at`; its bytes go to *to. NULL: it has no end. */
static const char *take_quoted(const char *at, char quote, char **to)
{
    for (; *at && *at != quote; at++) {
        if (quote == '"' && *at == '\\' && at[1] && strchr("\"\\$`", at[1]))
            at++;
        *(*to)++ = *at;
    }
    return *at ? at + 1 : NULL;
}

/* One word from `at` on, NUL-terminated at *to; NULL with a sentence. */
static const char *take_word(const char *at, char **to, char *err, size_t err_len)
{
    char what[96];

    while (at && *at && !is_blank(*at)) {
        if (*at == '\'' || *at == '"') {
            at = take_quoted(at + 1, *at, to);
        } else if (strchr("|&;<>()", *at)) {
            snprintf(
                what, sizeof(what),
                "\"%c\" does nothing here, there is no shell: quote it, or use it on your side",
                *at);
            (void)fail(err, err_len, what);
            return NULL;
        } else {
            if (*at == '\\' && at[1])
                at++;
            *(*to)++ = *at++;
        }
    }
    if (!at) {
        (void)fail(err, err_len, "a quote has no end");
        return NULL;
    }
    *(*to)++ = '\0';
    return at;
}

int door_split(struct door_line *line, const char *command, char *err, size_t err_len)
{
    const char *at = command;
    char *to = line->text;

    line->count = 0;
    line->words[0] = NULL;
    if (strlen(command) >= sizeof(line->text))
        return fail(err, err_len, "the command is too long");
    for (const char *c = command; *c; c++) {
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f)
            return fail(err, err_len, "a command is one line without control characters");
    }
    while (is_blank(*at))
        at++;
    while (*at) {
        if (line->count == DOOR_WORDS_MAX)
            return fail(err, err_len, "the command has too many words");
        line->words[line->count] = to;
        at = take_word(at, &to, err, err_len);
        if (!at)
            return ERR_INVALID;
        line->words[++line->count] = NULL;
        while (is_blank(*at))
            at++;
    }
    return 0;
}

/* ---- the table ---- */

/* How many words of the line a row's word is; 0 when it is another. */
static size_t matches(const struct door_line *line, const char *word)
{
    size_t n = 0;

    while (*word) {
        size_t len = strcspn(word, " ");

        if (n >= line->count || strlen(line->words[n]) != len ||
            strncmp(line->words[n], word, len) != 0)
            return 0;
        word += len + (word[len] == ' ');
        n++;
    }
    return n;
}

const struct door_word *door_find(const struct door_line *line, size_t *used)
{
    for (size_t i = 0; i < door_word_count; i++) {
        *used = matches(line, door_words[i].word);
        if (*used)
            return &door_words[i];
    }
    *used = 0;
    return NULL;
}

size_t door_argv(const struct door_line *line, const struct door_word *row, size_t used,
                 char *scratch, size_t scratch_len, const char **argv, size_t cap)
{
    size_t count = 0;
    char *save = NULL;

    text_copy(scratch, scratch_len, row->words);
    for (char *word = strtok_r(scratch, " ", &save); word && count < cap;
         word = strtok_r(NULL, " ", &save))
        argv[count++] = word;
    for (size_t i = used; i < line->count && count < cap; i++)
        argv[count++] = line->words[i];
    return count;
}

void door_list(char *dst, size_t dst_len, bool has_admin)
{
    size_t at = 0, len;
    const char *last = "";

    dst[0] = '\0';
    for (size_t i = 0; i < door_word_count && at < dst_len; i++) {
        const char *word = door_words[i].word;

        len = strcspn(word, " ");
        if ((door_words[i].is_admin && !has_admin) ||
            (strncmp(last, word, len) == 0 && strlen(last) >= len))
            continue;
        at += (size_t)snprintf(dst + at, dst_len - at, "%s%.*s", at ? ", " : "", (int)len, word);
        last = word;
    }
}
