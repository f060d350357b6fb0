/*
 * The codec of file rows, which travel several in one FILES message of the link. Pure; the relay
 * writes them, the broker reads them and the fuzzer of both tries them.
 */
#include <sallyport/file_row.h>

#include <string.h>

static const struct {
    const char *name;
    bool is_command;
} operations[] = {
#define X(id, name, is_command) {name, is_command},
    FILE_OPERATIONS(X)
#undef X
};

const char *file_operation_name(enum file_operation operation)
{
    return operation < FILE_OPERATION_COUNT ? operations[operation].name : "?";
}

bool file_operation_is_command(enum file_operation operation)
{
    return operation < FILE_OPERATION_COUNT && operations[operation].is_command;
}

void file_path_copy(char dst[FILE_PATH_MAX], const uint8_t *data, size_t len)
{
    static const char more[] = "...";
    size_t n = len < FILE_PATH_MAX ? len : FILE_PATH_MAX - sizeof(more);

    for (size_t i = 0; i < n; i++)
        dst[i] = data[i] ? (char)data[i] : '?';
    dst[n] = '\0';
    if (n < len)
        memcpy(dst + n, more, sizeof(more));
}

static void put_text(struct buffer *out, const char *text, size_t max)
{
    size_t len = strnlen(text, max - 1);

    buffer_put_be(out, len, 2);
    buffer_put(out, text, len);
}

void file_row_put(struct buffer *out, const struct file_row *row)
{
    buffer_put_be(out, row->operation, 1);
    buffer_put_be(out, row->channel, 4);
    buffer_put_be(out, row->bytes_in, 8);
    buffer_put_be(out, row->bytes_out, 8);
    put_text(out, row->result, sizeof(row->result));
    put_text(out, row->path, sizeof(row->path));
    put_text(out, row->path2, sizeof(row->path2));
}

static bool take_text(struct cursor *in, char *dst, size_t max)
{
    const uint8_t *data;
    uint16_t len;

    if (!cursor_be16(in, &len) || len >= max || !cursor_take(in, len, &data) ||
        memchr(data, 0, len))
        return false;
    memcpy(dst, data, len);
    dst[len] = '\0';
    return true;
}

bool file_row_take(struct cursor *in, struct file_row *row)
{
    struct cursor c = *in;

    if (!cursor_u8(&c, &row->operation) || row->operation >= FILE_OPERATION_COUNT ||
        !cursor_be32(&c, &row->channel) || !cursor_be64(&c, &row->bytes_in) ||
        !cursor_be64(&c, &row->bytes_out) || !take_text(&c, row->result, sizeof(row->result)) ||
        !take_text(&c, row->path, sizeof(row->path)) ||
        !take_text(&c, row->path2, sizeof(row->path2)))
        return false;
    *in = c;
    return true;
}
