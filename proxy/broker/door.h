/*
 * The user's own door: commands without a target (`ssh USER@BASTION sessions`). Each runs the
 * installed sallyctl as a process of its own, with a control connection that speaks for the link's
 * user. Who may say what is decided here and in the control server; the words are in
 * <sallyport/door.h>.
 */
#ifndef BROKER_DOOR_H
#define BROKER_DOOR_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct control_status;
struct door;

struct door *door_create(struct broker *b); /* NULL: out of memory */
/* Ends every command; their users are told by their relays. NULL is fine. */
void door_destroy(struct door *d);

/* The relay of this link is gone: so are its commands. */
void door_link_gone(struct door *d, uint64_t link_serial);
/* Admin words that are running end where they may not be said any more. */
void door_rights_changed(struct door *d);
/* A child of the broker ended; true when it was one of the door's. */
bool door_reaped(struct door *d, pid_t pid, int status);
/* Where users reach the SSH door, for `self config`. */
void door_describe(const struct broker *b, struct control_status *out);

#endif
