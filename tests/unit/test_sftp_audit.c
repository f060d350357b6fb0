/* The audit of SFTP streams: what becomes a row, and what can go wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>

#include "proxy/relay/files.h"
#include "proxy/ssh/sftp_audit.h"

#define ROWS_MAX 4096

struct fixture {
    struct sftp_audit *audit;
    struct file_row *rows;
    size_t count;
    struct buffer packet;
};

static void on_row(struct file_row *row, void *arg)
{
    struct fixture *f = arg;

    assert_true(f->count < ROWS_MAX);
    f->rows[f->count++] = *row;
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->rows = calloc(ROWS_MAX, sizeof(*f->rows));
    f->audit = sftp_audit_create(on_row, f);
    buffer_init(&f->packet, 1 << 20);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    sftp_audit_destroy(f->audit);
    buffer_finish(&f->packet);
    free(f->rows);
    free(f);
    return 0;
}

/* ---- making packets ---- */

static struct buffer *begin(struct fixture *f, uint8_t type, uint32_t id)
{
    buffer_reset(&f->packet);
    buffer_put_be(&f->packet, 0, 4);
    buffer_put_be(&f->packet, type, 1);
    buffer_put_be(&f->packet, id, 4);
    return &f->packet;
}

static void put(struct buffer *b, const char *text)
{
    buffer_put_be(b, strlen(text), 4);
    buffer_put_str(b, text);
}

static void send(struct fixture *f, bool is_input)
{
    size_t len = f->packet.len - 4;

    for (int i = 0; i < 4; i++)
        f->packet.data[i] = (uint8_t)(len >> (8 * (3 - i)));
    sftp_audit_feed(f->audit, is_input, f->packet.data, f->packet.len);
}

static void status(struct fixture *f, uint32_t id, uint32_t code)
{
    struct buffer *b = begin(f, 101, id);

    buffer_put_be(b, code, 4);
    put(b, "message");
    put(b, "en");
    send(f, false);
}

static void open_file(struct fixture *f, uint32_t id, const char *path, uint32_t flags,
                      const char *handle)
{
    struct buffer *b = begin(f, 3, id);

    put(b, path);
    buffer_put_be(b, flags, 4);
    buffer_put_be(b, 0, 4);
    send(f, true);
    put(begin(f, 102, id), handle);
    send(f, false);
}

static void ask_read(struct fixture *f, uint32_t id, const char *handle)
{
    struct buffer *b = begin(f, 5, id);

    put(b, handle);
    buffer_put_be(b, 0, 8);
    buffer_put_be(b, 32768, 4);
    send(f, true);
}

static void data(struct fixture *f, uint32_t id, uint32_t len)
{
    struct buffer *b = begin(f, 103, id);

    buffer_put_be(b, len, 4);
    for (uint32_t i = 0; i < len; i++)
        buffer_put_be(b, 'x', 1);
    send(f, false);
}

static void ask_write(struct fixture *f, uint32_t id, const char *handle, uint32_t len)
{
    struct buffer *b = begin(f, 6, id);

    put(b, handle);
    buffer_put_be(b, 0, 8);
    buffer_put_be(b, len, 4);
    for (uint32_t i = 0; i < len; i++)
        buffer_put_be(b, 'y', 1);
    send(f, true);
}

static void close_file(struct fixture *f, uint32_t id, const char *handle)
{
    put(begin(f, 4, id), handle);
    send(f, true);
    status(f, id, 0);
}

static void expect(const struct fixture *f, size_t i, enum file_operation operation,
                   const char *result, const char *path, const char *path2)
{
    assert_true(i < f->count);
    assert_string_equal(file_operation_name((enum file_operation)f->rows[i].operation),
                        file_operation_name(operation));
    assert_string_equal(f->rows[i].result, result);
    assert_string_equal(f->rows[i].path, path);
    assert_string_equal(f->rows[i].path2, path2);
}

/* ---- tests ---- */

static void a_file_is_one_row(void **state)
{
    struct fixture *f = *state;

    open_file(f, 1, "/a", 1, "h");
    ask_read(f, 2, "h");
    ask_read(f, 3, "h");
    data(f, 2, 32768);
    data(f, 3, 100);
    ask_read(f, 4, "h");
    status(f, 4, 1);
    assert_int_equal(f->count, 0);
    close_file(f, 5, "h");
    assert_int_equal(f->count, 1);
    expect(f, 0, FILE_GET, "ok", "/a", "");
    assert_int_equal(f->rows[0].bytes_out, 32868);
    assert_int_equal(f->rows[0].bytes_in, 0);
}

static void writes_count_when_they_worked(void **state)
{
    struct fixture *f = *state;

    open_file(f, 1, "/b", 0x1a, "h");
    for (uint32_t i = 0; i < 64; i++)
        ask_write(f, 10 + i, "h", 1000);
    for (uint32_t i = 64; i-- > 1;) /* in the wrong order, too */
        status(f, 10 + i, 0);
    status(f, 10, 4);
    close_file(f, 99, "h");
    expect(f, 0, FILE_PUT, "failure", "/b", "");
    assert_int_equal(f->rows[0].bytes_in, 63000);
}

static void both_ways_and_neither(void **state)
{
    struct fixture *f = *state;

    open_file(f, 1, "/c", 3, "h");
    ask_read(f, 2, "h");
    data(f, 2, 7);
    ask_write(f, 3, "h", 5);
    status(f, 3, 0);
    close_file(f, 4, "h");
    expect(f, 0, FILE_GET_PUT, "ok", "/c", "");
    open_file(f, 5, "/empty", 0x1a, "h");
    close_file(f, 6, "h");
    expect(f, 1, FILE_PUT, "ok", "/empty", "");
    begin(f, 3, 7);
    put(&f->packet, "/no");
    buffer_put_be(&f->packet, 1, 4);
    buffer_put_be(&f->packet, 0, 4);
    send(f, true);
    status(f, 7, 3);
    expect(f, 2, FILE_GET, "permission-denied", "/no", "");
}

static void names_are_changed(void **state)
{
    struct fixture *f = *state;
    struct buffer *b;

    b = begin(f, 18, 1), put(b, "/a"), put(b, "/b"), send(f, true), status(f, 1, 0);
    b = begin(f, 13, 2), put(b, "/a"), send(f, true), status(f, 2, 2);
    b = begin(f, 14, 3), put(b, "/d"), buffer_put_be(b, 0, 4), send(f, true), status(f, 3, 0);
    b = begin(f, 15, 4), put(b, "/d"), send(f, true), status(f, 4, 0);
    b = begin(f, 20, 5), put(b, "to"), put(b, "/link"), send(f, true), status(f, 5, 0);
    b = begin(f, 9, 6), put(b, "/m"), buffer_put_be(b, 4, 4), buffer_put_be(b, 0100644, 4);
    send(f, true), status(f, 6, 0);
    b = begin(f, 200, 7), put(b, "posix-rename@openssh.com"), put(b, "/x"), put(b, "/y");
    send(f, true), status(f, 7, 0);
    b = begin(f, 200, 8), put(b, "hardlink@openssh.com"), put(b, "/old"), put(b, "/new");
    send(f, true), status(f, 8, 0);
    b = begin(f, 200, 9), put(b, "statvfs@openssh.com"), put(b, "/"), send(f, true);
    begin(f, 201, 9), send(f, false);
    expect(f, 0, FILE_RENAME, "ok", "/a", "/b");
    expect(f, 1, FILE_REMOVE, "no-such-file", "/a", "");
    expect(f, 2, FILE_MKDIR, "ok", "/d", "");
    expect(f, 3, FILE_RMDIR, "ok", "/d", "");
    expect(f, 4, FILE_SYMLINK, "ok", "/link", "to");
    expect(f, 5, FILE_SETSTAT, "ok", "/m", "mode=0644");
    expect(f, 6, FILE_RENAME, "ok", "/x", "/y");
    expect(f, 7, FILE_HARDLINK, "ok", "/new", "/old");
    assert_int_equal(f->count, 8);
}

static void version_6_is_understood(void **state)
{
    struct fixture *f = *state;
    struct buffer *b;

    begin(f, 2, 6), send(f, false);
    b = begin(f, 3, 1), put(b, "/w"), buffer_put_be(b, 2, 4), buffer_put_be(b, 0, 4);
    send(f, true), put(begin(f, 102, 1), "h"), send(f, false);
    close_file(f, 2, "h");
    expect(f, 0, FILE_PUT, "ok", "/w", "");
    b = begin(f, 21, 3), put(b, "/new"), put(b, "/old"), buffer_put_be(b, 1, 1);
    send(f, true), status(f, 3, 0);
    expect(f, 1, FILE_SYMLINK, "ok", "/new", "/old");
    b = begin(f, 18, 4), put(b, "/1"), put(b, "/2"), buffer_put_be(b, 1, 4);
    send(f, true), status(f, 4, 11);
    expect(f, 2, FILE_RENAME, "already-exists", "/1", "/2");
}

static void what_does_not_end_is_unfinished(void **state)
{
    struct fixture *f = *state;

    open_file(f, 1, "/a", 0x1a, "h");
    ask_write(f, 2, "h", 10);
    status(f, 2, 0);
    put(begin(f, 13, 3), "/b");
    send(f, true);
    sftp_audit_destroy(f->audit);
    f->audit = NULL;
    expect(f, 0, FILE_PUT, "unfinished", "/a", "");
    expect(f, 1, FILE_REMOVE, "unfinished", "/b", "");
    assert_int_equal(f->rows[0].bytes_in, 10);
}

static void a_whole_file_is_asked_for_at_once(void **state)
{
    struct fixture *f = *state;

    open_file(f, 1, "/big", 1, "h");
    for (uint32_t i = 0; i < 100000; i++)
        ask_read(f, 10 + i, "h");
    for (uint32_t i = 0; i < 100000; i++)
        data(f, 10 + i, 10);
    close_file(f, 5, "h");
    expect(f, 0, FILE_GET, "ok", "/big", "");
    assert_int_equal(f->rows[0].bytes_out, 1000000);
    assert_int_equal(f->count, 1);
}

static void too_many_are_counted(void **state)
{
    struct fixture *f = *state;

    for (uint32_t i = 0; i < SFTP_REQUESTS_MAX + 50; i++)
        put(begin(f, 13, i), "/x"), send(f, true);
    for (uint32_t i = 0; i < SFTP_REQUESTS_MAX + 50; i++)
        status(f, i, 0);
    assert_false(sftp_audit_is_stopped(f->audit));
    assert_int_equal(f->count, SFTP_REQUESTS_MAX);
    sftp_audit_destroy(f->audit);
    f->audit = NULL;
    expect(f, SFTP_REQUESTS_MAX, FILE_UNLISTED, "", "", "");
    assert_int_equal(f->rows[SFTP_REQUESTS_MAX].bytes_in, 50);
}

static void long_paths_are_cut(void **state)
{
    static char path[200001];
    struct fixture *f = *state;
    struct buffer *b;

    memset(path, 'p', sizeof(path) - 1);
    path[3000] = '\0';
    b = begin(f, 18, 1), put(b, path), put(b, "/b"), send(f, true), status(f, 1, 0);
    assert_int_equal(strlen(f->rows[0].path), FILE_PATH_MAX - 1);
    assert_string_equal(f->rows[0].path + FILE_PATH_MAX - 4, "...");
    assert_string_equal(f->rows[0].path2, "/b");
    path[3000] = 'p'; /* longer than what is kept of a request */
    b = begin(f, 18, 2), put(b, path), put(b, "/b"), send(f, true), status(f, 2, 0);
    assert_string_equal(f->rows[1].path2, "");
    put(begin(f, 13, 3), "/next"), send(f, true), status(f, 3, 0);
    expect(f, 2, FILE_REMOVE, "ok", "/next", "");
}

static void expect_stop(struct fixture *f)
{
    assert_true(sftp_audit_is_stopped(f->audit));
    assert_int_equal(f->rows[f->count - 1].operation, FILE_STOPPED);
    f->count = 0;
    put(begin(f, 13, 77), "/x"), send(f, true), status(f, 77, 0);
    assert_int_equal(f->count, 0);
}

static void nonsense_ends_the_audit_once(void **state)
{
    struct fixture *f = *state;

    sftp_audit_feed(f->audit, false, "Welcome to this host\r\n", 22);
    expect_stop(f);
}

static void lying_lengths_end_the_audit(void **state)
{
    struct fixture *f = *state;
    struct buffer *b;

    open_file(f, 1, "/a", 0x1a, "h");
    b = begin(f, 6, 2), put(b, "h"), buffer_put_be(b, 0, 8), buffer_put_be(b, 0x7fffffff, 4);
    send(f, true);
    expect(f, 0, FILE_PUT, "unfinished", "/a", "");
    expect_stop(f);
}

static void answers_to_nothing_end_the_audit(void **state)
{
    struct fixture *f = *state;

    status(f, 4711, 0);
    expect_stop(f);
}

/* ---- the collector ---- */

static void rows_travel_in_batches(void **state)
{
    static struct link_files message;
    static struct file_row row, got;
    struct files files;
    size_t rows = 0, messages = 0;

    (void)state;
    files_init(&files);
    for (int i = 0; i < 10000; i++) {
        row = (struct file_row){.channel = 1, .operation = FILE_PUT, .bytes_in = (uint64_t)i};
        snprintf(row.path, sizeof(row.path), "/srv/files/number-%d", i);
        files_add(&files, &row);
    }
    while (files_take(&files, FILES_BATCH_ROWS, &message)) {
        struct cursor c = cursor_of(message.rows.data, message.rows.len);

        messages++;
        while (!cursor_at_end(&c)) {
            assert_true(file_row_take(&c, &got));
            assert_int_equal(got.bytes_in, rows);
            rows++;
        }
    }
    assert_int_equal(rows, 10000);
    assert_true(messages < 100);
    assert_true(files_is_empty(&files));
    files_finish(&files);
}

static void what_does_not_fit_is_counted(void **state)
{
    static struct link_files message;
    static struct file_row row, got;
    struct files files;
    size_t rows = 0, missing = 0;

    (void)state;
    files_init(&files);
    memset(row.path, 'a', 1000);
    row.operation = FILE_REMOVE;
    for (int i = 0; i < 5000; i++)
        files_add(&files, &row);
    assert_true(files.pending.len <= FILES_PENDING_MAX && files.lost > 0);
    while (files_take(&files, SIZE_MAX, &message)) {
        struct cursor c = cursor_of(message.rows.data, message.rows.len);

        while (!cursor_at_end(&c)) {
            assert_true(file_row_take(&c, &got));
            if (got.operation == FILE_UNLISTED)
                missing += got.bytes_in;
            else
                rows++;
        }
    }
    assert_int_equal(rows + missing, 5000);
    assert_true(rows > 900);
    files_finish(&files);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_file_is_one_row),
        TEST(writes_count_when_they_worked),
        TEST(both_ways_and_neither),
        TEST(names_are_changed),
        TEST(version_6_is_understood),
        TEST(what_does_not_end_is_unfinished),
        TEST(a_whole_file_is_asked_for_at_once),
        TEST(too_many_are_counted),
        TEST(long_paths_are_cut),
        TEST(nonsense_ends_the_audit_once),
        TEST(lying_lengths_end_the_audit),
        TEST(answers_to_nothing_end_the_audit),
        cmocka_unit_test(rows_travel_in_batches),
        cmocka_unit_test(what_does_not_fit_is_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
