/*
 * The way to a target: the servers in front of it, each logged in to through the one before, and
 * the target itself. Each hands on what belongs to the next through a channel (direct-tcpip) and a
 * pair of sockets, so that every login is the same code over a leg of its own. The target's leg
 * belongs to the caller; those in front of it are here, and live as long as the way.
 */
#ifndef SSH_WAY_H
#define SSH_WAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>

#include "proxy/ssh/hop.h"

struct event_base;
struct way;

enum way_state { WAY_GOES, WAY_IS_THERE, WAY_FAILED };

/* What happens on the way, for who wants to tell. May be NULL. */
typedef void (*way_trace_fn)(void *arg, const struct hop *h, enum hop_step before);

/* wake(wake_arg): something is to be done, from callbacks of the loop. NULL: out of memory. */
struct way *way_create(struct event_base *base, const struct hop_ops *ops, void *arg,
                       void (*wake)(void *), void *wake_arg);
/* The next server on the way (number > 0, with the pair of sockets that lie behind it; owned from
 * here), nearest first. ERR_FULL, ERR_MEMORY. */
MUST_CHECK int way_add(struct way *w, const struct link_hop *told, const int fds[2]);
/* The target and its leg, then the connected socket: begins. fd is owned from here. */
MUST_CHECK int way_begin(struct way *w, const struct link_hop *target, struct leg *leg, int fd,
                         int64_t now_ms);
void way_trace(struct way *w, way_trace_fn trace);

/* A turn: bytes towards the target's leg before it is driven, a step, bytes away after it was
 * settled. drive and settle go on for as long as the session lives. */
void way_drive(struct way *w);
enum way_state way_step(struct way *w, int64_t now_ms);
void way_settle(struct way *w);

/* Where it failed, and the sentence for the user (it names a server that is not the target). */
const char *way_text(const struct way *w);
/* After it was there: the server whose connection was lost, or NULL. */
const char *way_lost(const struct way *w);
/* When a login is over for good unless something happens. */
int64_t way_deadline_ms(const struct way *w);
struct hop *way_hop(struct way *w, uint8_t number); /* NULL: there is none */
/* The server that is being logged in to, or failed; the target at the end. */
struct hop *way_at(struct way *w);
size_t way_hop_count(const struct way *w); /* in front of the target */

/* Wipe what was needed to log in. */
void way_forget(struct way *w);
/* Say goodbye to every server in front, the target's leg having been disconnected before. */
void way_disconnect(struct way *w);
/* After the target's leg is closed. NULL is fine. */
void way_destroy(struct way *w);

#endif
