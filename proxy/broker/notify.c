/*
 * sd_notify's protocol, as systemd documents it for those who do not link with libsystemd
 * (sd_notify(3), "Notes"). Called by the broker's main loop only.
 */
#include "proxy/broker/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/text.h>

#define STATUS_TEXT_MAX 400

static struct {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un address;
    socklen_t address_len;
    uint64_t watchdog_us; /* 0: not asked for */
} manager = {.fd = -1};

/* A path, or with a leading @ an abstract name, whose first byte is NUL and whose end is its
 * length. */
static bool address_from(const char *text)
{
    size_t len = strlen(text);

    if ((text[0] != '/' && text[0] != '@') || len < 2 || len >= sizeof(manager.address.sun_path))
        return false;
    manager.address.sun_family = AF_UNIX;
    memcpy(manager.address.sun_path, text, len + 1);
    manager.address_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (text[0] == '@')
        manager.address.sun_path[0] = '\0';
    else
        manager.address_len++;
    return true;
}

static uint64_t watchdog_from_environment(void)
{
    const char *usec = getenv("WATCHDOG_USEC");
    const char *pid = getenv("WATCHDOG_PID");
    uint64_t value, whom;

    if (!usec || !text_parse_u64(usec, &value))
        return 0;
    if (pid && (!text_parse_u64(pid, &whom) || whom != (uint64_t)getpid()))
        return 0;
    return value;
}

bool notify_open(void)
{
    const char *address = getenv("NOTIFY_SOCKET");

    notify_close();
    if (address && address_from(address)) {
        manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        manager.watchdog_us = watchdog_from_environment();
    } else if (address) {
        log_warn("NOTIFY_SOCKET names no socket: %s", address);
    }
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
    return manager.fd >= 0;
}

void notify_close(void)
{
    if (manager.fd >= 0)
        close(manager.fd);
    memset(&manager, 0, sizeof(manager));
    manager.fd = -1;
}

static void tell(const char *text)
{
    if (manager.fd < 0)
        return;
    if (sendto(manager.fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT,
               (const struct sockaddr *)&manager.address, manager.address_len) < 0)
        log_debug("the service manager did not take a message: %s", strerror(errno));
}

void notify_ready(void)
{
    tell("READY=1");
}

/* systemd 253 and later (Type=notify-reload) match the reload with its request by this clock. */
void notify_reloading(void)
{
    struct timespec now = {0};
    char text[80];

    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(text, sizeof(text), "RELOADING=1\nMONOTONIC_USEC=%lld",
             (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
    tell(text);
}

void notify_stopping(void)
{
    tell("STOPPING=1");
}

void notify_status(const char *fmt, ...)
{
    char text[STATUS_TEXT_MAX] = "STATUS=";
    size_t used = strlen(text);
    va_list args;

    va_start(args, fmt);
    vsnprintf(text + used, sizeof(text) - used, fmt, args);
    va_end(args);
    for (char *p = text; *p; p++)
        if (*p == '\n')
            *p = ' ';
    tell(text);
}

/* Half the limit, as sd_watchdog_enabled(3) advises. */
uint32_t notify_watchdog_interval_ms(void)
{
    uint64_t ms = manager.watchdog_us / 2000;

    if (manager.watchdog_us == 0)
        return 0;
    return ms == 0 ? 1 : ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

void notify_watchdog(void)
{
    tell("WATCHDOG=1");
}
