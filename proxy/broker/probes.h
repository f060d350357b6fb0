/*
 * Trying a target out: connect as a session would, then hand the socket to a process of its own
 * (`sallyport-ssh --probe`, `sallyport-rdp --probe`) that logs in there and says how each step
 * went. The broker itself parses nothing of it. Answers come from the loop.
 */
#ifndef BROKER_PROBES_H
#define BROKER_PROBES_H

#include <stdbool.h>
#include <sys/types.h>

#include <sallyport/errors.h>

#include "control/control.h"

struct broker;
struct probes;
struct store_target;

/* NULL when out of memory. */
struct probes *probes_create(struct broker *b);
/* Ends what is under way; its callers are told. NULL is fine. */
void probes_destroy(struct probes *p);

/* See struct control_host. target is copied. */
MUST_CHECK int probes_start(struct probes *p, const struct store_target *target,
                            const char *account, bool only_key, control_probed_fn done, void *arg);

/* SIGCHLD: was this process one of ours? */
bool probes_reaped(struct probes *p, pid_t pid, int status);

#endif
