/*
 * Somebody looks on: what a terminal shows goes to stream sockets that the broker handed over, as
 * lines of JSON. The first line is
 *
 *   {"watch":1,"session":"42","channel":1,"pty":true,"cols":80,"rows":24,
 *    "recorded":true,"bytes":8123,"sequence":7,"mayType":false}
 *
 * where the first `bytes` of the recording hold everything so far; then events as in a recording,
 * `[seconds,"o","text"]` (o output, r size, m notice; seconds since the terminal was opened; bytes
 * that are no UTF-8 are U+FFFD), and at last {"end":"CODE","text":"..."}: `over` (the terminal is
 * closed), `slow` (the watcher did not read), `broker` (the daemon was restarted), `withdrawn`,
 * `refused`. What a watcher who may type sends goes to the target as it is.
 *
 * Never in the way: each watcher has a bounded queue, and who does not keep up is dropped.
 */
#ifndef SSH_WATCH_H
#define SSH_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>

struct channel;
struct session;

#define WATCHERS_MAX    8 /* of a session */
#define WATCH_QUEUE_MAX (256u * 1024u)
#define WATCH_LINGER_MS 30000 /* for the last words */

/* fd is owned from here. */
void watch_begin(struct session *s, const struct link_watch *watch, int fd);
/* The broker takes the permission back, or the watcher left control.sock. */
void watch_withdraw(struct session *s, uint64_t watch);
/* The broker is gone, which alone may permit it. */
void watch_alone(struct session *s);

/* What the channel's terminal just showed. */
void watch_output(struct channel *c, const void *data, size_t len, bool is_stderr);
void watch_resize(struct channel *c);
void watch_notice(struct channel *c, const char *text);
/* The channel goes away. */
void watch_over(struct channel *c);

/* A turn's work: what was typed, what can be written, who is gone. */
void watch_step(struct session *s, int64_t now_ms);
void watch_free_all(struct session *s);

#endif
