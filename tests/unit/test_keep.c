/* Where indexes of recordings are kept: in a folder of one's own, and in no other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/cli/keep.h"

static char folder[] = "/tmp/test_keep-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int make_file(const char *name)
{
    int fd = open(in_folder(name), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char text[64] = "";

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text)), sizeof(text));
    return fd;
}

static void one_of_our_own(void **state)
{
    int fd = make_file("recording"), kept;
    struct keep k;

    (void)state;
    keep_find(&k, "42.1", fd);
    assert_string_equal(k.folder, in_folder("sallyport"));
    kept = keep_create(&k);
    assert_true(kept >= 0);
    keep_drop(&k);
    close(kept);
    close(fd);
    assert_int_equal(rmdir(in_folder("sallyport")), 0);
}

/* What is old enough to go does not go there. */
static void one_that_leads_elsewhere(void **state)
{
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    int fd = make_file("recording"), other;
    struct keep k;

    (void)state;
    assert_int_equal(mkdir(in_folder("other"), 0700), 0);
    other = make_file("other/old.index");
    assert_int_equal(futimens(other, times), 0);
    assert_int_equal(symlink("other", in_folder("sallyport")), 0);
    keep_find(&k, "42.1", fd);
    assert_string_equal(k.folder, "");
    assert_int_equal(keep_create(&k), -1);
    assert_int_equal(keep_open(&k), -1);
    assert_int_equal(access(in_folder("other/old.index"), F_OK), 0);
    close(other);
    close(fd);
    assert_int_equal(unlink(in_folder("other/old.index")), 0);
    assert_int_equal(rmdir(in_folder("other")), 0);
    assert_int_equal(unlink(in_folder("sallyport")), 0);
}

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) && setenv("XDG_CACHE_HOME", folder, 1) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(in_folder("recording"));
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_our_own),
        cmocka_unit_test(one_that_leads_elsewhere),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
