/*
 * Tells the service manager how the daemon is doing (sd_notify's protocol: one datagram a message
 * to NOTIFY_SOCKET), without libsystemd. Without a service manager every call does nothing. Never
 * blocks; what the manager does not take at once is lost, and the next message corrects it.
 */
#ifndef PROXY_BROKER_NOTIFY_H
#define PROXY_BROKER_NOTIFY_H

#include <stdbool.h>
#include <stdint.h>

#include <sallyport/errors.h>

/*
 * Read NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and take them out of the environment, so that
 * no child speaks for the daemon. Call once, before any child exists. Returns true when there is a
 * service manager to speak to.
 */
bool notify_open(void);
void notify_close(void);

/* Sockets and store are open. Also ends what notify_reloading() began. */
void notify_ready(void);
void notify_reloading(void);
void notify_stopping(void);
/* One line for `systemctl status`; cut at 400 bytes, line ends become blanks. */
void notify_status(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* How often notify_watchdog() is due, milliseconds; 0: the manager did not ask for it. */
uint32_t notify_watchdog_interval_ms(void);
void notify_watchdog(void);

#endif
