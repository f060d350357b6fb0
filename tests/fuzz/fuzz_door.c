/* A command line of the user's own door: what is taken has words within the line's own text, and
 * each word quoted and put together again gives the same words. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/buffer.h>
#include <sallyport/door.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void require(bool ok)
{
    if (!ok)
        abort();
}

static void put_quoted(struct buffer *out, const char *word)
{
    buffer_put_str(out, "'");
    for (; *word; word++) {
        if (*word == '\'')
            buffer_put_str(out, "'\\''");
        else
            buffer_put(out, word, 1);
    }
    buffer_put_str(out, "' ");
}

static void check_again(const struct door_line *line)
{
    static struct door_line again;
    struct buffer quoted;
    char err[128] = "";

    buffer_init(&quoted, 64 * 1024);
    for (size_t i = 0; i < line->count; i++)
        put_quoted(&quoted, line->words[i]);
    require(line->count == 0 || buffer_cstr(&quoted));
    if (line->count && door_split(&again, buffer_cstr(&quoted), err, sizeof(err)) == 0) {
        require(again.count == line->count);
        for (size_t i = 0; i < line->count; i++)
            require(strcmp(again.words[i], line->words[i]) == 0);
    } else {
        require(line->count == 0 || strstr(err, "too long"));
    }
    buffer_finish(&quoted);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct door_line line;
    const char *argv[DOOR_WORDS_MAX + 8];
    const struct door_word *row;
    char *text = malloc(len + 1), err[128] = "", scratch[64];
    size_t used, count;

    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    memset(&line, 0xaa, sizeof(line));
    if (door_split(&line, text, err, sizeof(err)) < 0) {
        require(err[0] != '\0' && strlen(err) < sizeof(err));
        free(text);
        return 0;
    }
    require(line.count <= DOOR_WORDS_MAX && line.words[line.count] == NULL);
    for (size_t i = 0; i < line.count; i++)
        require(
            line.words[i] >= line.text && line.words[i] < line.text + sizeof(line.text) &&
            memchr(line.words[i], '\0', (size_t)(line.text + sizeof(line.text) - line.words[i])));
    check_again(&line);
    row = door_find(&line, &used);
    require(!row == (used == 0) && used <= line.count);
    if (row) {
        count = door_argv(&line, row, used, scratch, sizeof(scratch), argv, DOOR_WORDS_MAX + 8);
        require(count >= line.count - used && (row->is_admin || count > line.count - used));
    }
    free(text);
    return 0;
}
