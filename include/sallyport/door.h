/*
 * The user's own door: what `ssh USER@BASTION WORD...` may say without a target, in one table that
 * maps each word to words of sallyctl. The broker splits and maps a command line by it, sallyctl
 * prints it as help. Pure functions.
 */
#ifndef SALLYPORT_DOOR_H
#define SALLYPORT_DOOR_H

#include <stdbool.h>
#include <stddef.h>

#include <sallyport/errors.h>
#include <sallyport/link.h>

#define DOOR_WORDS_MAX 128

struct door_word {
    const char *word;     /* "keys add": one word or two */
    const char *operands; /* in help */
    const char *words;    /* of sallyctl, in front of what follows; "" for `admin` */
    bool is_admin;        /* with the rights of the user's role, after a second factor */
    const char *help;
};

extern const struct door_word door_words[];
extern const size_t door_word_count;

/* A command line in words. */
struct door_line {
    const char *words[DOOR_WORDS_MAX + 1]; /* into text; NULL behind the last */
    size_t count;
    char text[LINK_COMMAND_MAX];
};

/*
 * Split as a POSIX shell would, without expanding anything: blanks divide words; '...', "..." and
 * a backslash quote. What a shell would act on (| & ; < > ( ) or a line's end, unquoted) and
 * control characters are refused. ERR_INVALID with a sentence.
 */
MUST_CHECK int door_split(struct door_line *line, const char *command, char *err, size_t err_len);

/* The row that the first words of a line say; *used: how many of them. NULL: no such word, or no
 * word at all. */
const struct door_word *door_find(const struct door_line *line, size_t *used);

/* What sallyctl is to be called with for a line: its argv without the first, pointing into the
 * table's texts (split into `scratch`) and the line. Returns the count, at most cap. */
size_t door_argv(const struct door_line *line, const struct door_word *row, size_t used,
                 char *scratch, size_t scratch_len, const char **argv, size_t cap);

/* "sessions, end, targets, ...": each first word once. */
void door_list(char *dst, size_t dst_len, bool has_admin);

#endif
