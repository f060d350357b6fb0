/*
 * What a service manager receives: messages, both kinds of socket, the watchdog's interval.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/broker/notify.h"

static int manager_fd = -1;
static char manager_path[64];

/* Bind a manager's socket and name it in the environment. */
static void listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    else
        len++;
    manager_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(manager_fd >= 0);
    assert_int_equal(bind(manager_fd, (struct sockaddr *)&address, len), 0);
    setenv("NOTIFY_SOCKET", name, 1);
}

static int teardown(void **state)
{
    (void)state;
    notify_close();
    if (manager_fd >= 0)
        close(manager_fd);
    manager_fd = -1;
    if (manager_path[0])
        unlink(manager_path);
    manager_path[0] = '\0';
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return 0;
}

static const char *received(void)
{
    static char text[1024];
    ssize_t n = recv(manager_fd, text, sizeof(text) - 1, MSG_DONTWAIT);

    assert_true(n >= 0);
    text[n] = '\0';
    return text;
}

static void send_one_of_each(void)
{
    long long usec = 0;

    assert_true(notify_open());
    assert_null(getenv("NOTIFY_SOCKET"));
    notify_ready();
    assert_string_equal(received(), "READY=1");
    notify_status("%d sessions\nREADY=0", 3);
    assert_string_equal(received(), "STATUS=3 sessions READY=0");
    notify_reloading();
    assert_int_equal(sscanf(received(), "RELOADING=1\nMONOTONIC_USEC=%lld", &usec), 1);
    assert_true(usec > 0);
    notify_watchdog();
    assert_string_equal(received(), "WATCHDOG=1");
    notify_stopping();
    assert_string_equal(received(), "STOPPING=1");
}

static void test_abstract_socket(void **state)
{
    char name[64];

    (void)state;
    snprintf(name, sizeof(name), "@sallyport-test-notify-%d", (int)getpid());
    listen_at(name);
    send_one_of_each();
}

static void test_socket_with_a_path(void **state)
{
    (void)state;
    snprintf(manager_path, sizeof(manager_path), "/tmp/test-notify-%d", (int)getpid());
    listen_at(manager_path);
    send_one_of_each();
}

static void test_nobody_to_tell(void **state)
{
    (void)state;
    assert_false(notify_open());
    notify_ready();
    notify_status("nothing");
    assert_int_equal(notify_watchdog_interval_ms(), 0);
    setenv("NOTIFY_SOCKET", "relative", 1);
    assert_false(notify_open());
}

static void test_status_is_cut(void **state)
{
    char big[2000];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    test_nobody_to_tell(state);
    snprintf(manager_path, sizeof(manager_path), "/tmp/test-notify-%d", (int)getpid());
    listen_at(manager_path);
    assert_true(notify_open());
    notify_status("%s", big);
    assert_int_equal(strlen(received()), 399);
}

static void test_watchdog_interval(void **state)
{
    char pid[32];

    (void)state;
    snprintf(manager_path, sizeof(manager_path), "/tmp/test-notify-%d", (int)getpid());
    listen_at(manager_path);
    setenv("WATCHDOG_USEC", "30000000", 1);
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    assert_true(notify_open());
    assert_int_equal(notify_watchdog_interval_ms(), 15000);
    assert_null(getenv("WATCHDOG_USEC"));

    setenv("NOTIFY_SOCKET", manager_path, 1);
    setenv("WATCHDOG_USEC", "30000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    assert_true(notify_open());
    assert_int_equal(notify_watchdog_interval_ms(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_abstract_socket, teardown),
        cmocka_unit_test_teardown(test_socket_with_a_path, teardown),
        cmocka_unit_test_teardown(test_nobody_to_tell, teardown),
        cmocka_unit_test_teardown(test_status_is_cut, teardown),
        cmocka_unit_test_teardown(test_watchdog_interval, teardown),
    };

    return cmocka_run_group_tests_name("notify", tests, NULL, NULL);
}
