/*
 * Telling file transfers from commands; kind.h. What is taken for a transfer is not recorded, so
 * the rule is narrow: the first word must be one of the table's programs, the option that makes it
 * a server must be there, and nothing in the text may start a second program.
 */
#include "proxy/ssh/kind.h"

#include <stdbool.h>
#include <string.h>

struct transfer {
    const char *program;
    const char *letters;           /* one of them in a cluster of short options: "-rt" */
    const char *option;            /* or this word */
    enum file_operation operation; /* FILE_OPERATION_COUNT: it speaks SFTP */
};

static const struct transfer transfers[] = {
    {"scp", "tf", NULL, FILE_SCP},
    {"rsync", NULL, "--server", FILE_RSYNC},
    {"git-upload-pack", NULL, NULL, FILE_GIT},
    {"git-receive-pack", NULL, NULL, FILE_GIT},
    {"git-upload-archive", NULL, NULL, FILE_GIT},
    {"sftp-server", NULL, NULL, FILE_OPERATION_COUNT},
};

/* The next blank-separated word, or NULL; quotes do not matter for what is asked here. */
static const char *next_word(const char **at, size_t *len)
{
    const char *word = *at + strspn(*at, " \t");

    *len = strcspn(word, " \t");
    *at = word + *len;
    return *len > 0 ? word : NULL;
}

static const char *base_name(const char *word, size_t *len)
{
    for (size_t i = *len; i > 0; i--) {
        if (word[i - 1] == '/') {
            *len -= i;
            return word + i;
        }
    }
    return word;
}

/* A program of that name that the user brought along is a command like any other. */
static bool is_system_folder(const char *folder, size_t len)
{
    static const char *const folders[] = {"/bin/", "/usr/", "/opt/", "/run/current-system/"};

    if (len == 0)
        return true;
    if (memmem(folder, len, "/.", 2)) /* /usr/bin/../../tmp/ */
        return false;
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        size_t n = strlen(folders[i]);

        if (n <= len && memcmp(folder, folders[i], n) == 0)
            return true;
    }
    return false;
}

static const struct transfer *find_transfer(const char *word, size_t len)
{
    const char *name = base_name(word, &len);

    if (!is_system_folder(word, (size_t)(name - word)))
        return NULL;

    for (size_t i = 0; i < sizeof(transfers) / sizeof(transfers[0]); i++) {
        if (strlen(transfers[i].program) == len && memcmp(transfers[i].program, name, len) == 0)
            return &transfers[i];
    }
    return NULL;
}

static bool has_letter(const char *word, size_t len, const char *letters)
{
    if (len < 2 || word[0] != '-' || word[1] == '-')
        return false;
    for (size_t i = 1; i < len; i++) {
        if (strchr(letters, word[i]))
            return true;
    }
    return false;
}

static bool is_server(const struct transfer *t, const char *at)
{
    const char *word;
    size_t len;

    if (!t->letters && !t->option)
        return true;
    while ((word = next_word(&at, &len))) {
        if (len == 2 && memcmp(word, "--", 2) == 0)
            return false;
        if (t->letters && has_letter(word, len, t->letters))
            return true;
        if (t->option && strlen(t->option) == len && memcmp(word, t->option, len) == 0)
            return true;
    }
    return false;
}

/* True when a shell could run something else in passing. Paths with these characters, quoted by
 * careful clients, are then recorded as a command: more than asked for, never less. */
static bool has_shell_syntax(const char *command)
{
    return strpbrk(command, ";&|<>`\n\r(){}") || strstr(command, "$(");
}

static const struct transfer *transfer_of(const char *command)
{
    const struct transfer *t;
    const char *at = command, *word;
    size_t len;

    if (has_shell_syntax(command) || !(word = next_word(&at, &len)))
        return NULL;
    t = find_transfer(word, len);
    return t && is_server(t, at) ? t : NULL;
}

enum link_channel_kind kind_of_command(const char *command)
{
    return transfer_of(command) ? CHANNEL_TRANSFER : CHANNEL_EXEC;
}

/* mosh asks for its server alone, or behind a question that ends in " ;"
 * (--experimental-remote-ip). A command that only mentions it is none of our business. */
bool kind_is_mosh(const char *command)
{
    static const char program[] = "mosh-server";
    const char *at = command, *word;
    bool is_first = true;
    size_t len;

    while ((word = next_word(&at, &len))) {
        bool is_end = word[len - 1] == ';';
        const char *name = base_name(word, &len);

        if (is_first && len == sizeof(program) - 1 && memcmp(name, program, len) == 0)
            return true;
        is_first = is_end;
    }
    return false;
}

bool kind_is_sftp_server(const char *command)
{
    const struct transfer *t = transfer_of(command);

    return t && t->operation == FILE_OPERATION_COUNT;
}

bool kind_transfer_operation(const char *command, enum file_operation *operation)
{
    const struct transfer *t = transfer_of(command);

    if (!t || t->operation == FILE_OPERATION_COUNT)
        return false;
    *operation = t->operation;
    return true;
}
