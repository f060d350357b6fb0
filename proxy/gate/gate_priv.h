/*
 * The gate's insides, shared by gate.c (start, loop, the broker's link), visitors.c (accepting and
 * acting on what parking.c decides) and birth.c (the child between fork and relay_run()).
 */
#ifndef GATE_GATE_PRIV_H
#define GATE_GATE_PRIV_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include <sallyport/link.h>
#include <sallyport/network.h>

#include "proxy/gate/gate.h"
#include "proxy/gate/parking.h"
#include "proxy/relay/sandbox.h"

#define GATE_LINK_FD  3
#define TRUSTED_MAX   64  /* networks of load balancers */
#define GREETINGS_MAX 512 /* at once; the oldest goes when one more comes */

struct event;
struct event_base;

struct listener {
    int fd;
    struct event *event;
};

struct greeting;
TAILQ_HEAD(greeting_list, greeting);

struct gate {
    const struct gate_protocol *protocol;
    struct sandbox sandbox;
    uint32_t broker_uid;
    int log_fd;        /* syslog's socket, which relays keep; -1 */
    sigset_t old_mask; /* what relays get back */
    struct event_base *base;

    struct event *link_event, *signal_event, *step_timer, *pause_timer, *status_timer;
    uint8_t link_version;
    struct link_message in, out; /* scratch: messages are large */

    bool is_ready;  /* keys loaded, root entered */
    bool is_paused; /* no descriptor or memory: accepting stops for a second */
    bool is_leaving;
    int exit_status;
    uint32_t key_count;
    struct link_gate_config config;
    struct listener listeners[LINK_FDS_MAX];

    struct network trusted[TRUSTED_MAX]; /* whose connections begin with a PROXY header */
    size_t trusted_count;
    struct greeting_list greetings;
    uint32_t greeting_count;

    struct parking *parking;
    uint64_t accepted, evicted;
    int64_t status_ms; /* when GATE_STATUS was said last */
    bool is_status_due;
};

/* gate.c */
void gate_leave(struct gate *g, int status);
void gate_status_changed(struct gate *g);

/* visitors.c */
void visitors_set_limits(struct gate *g);
int visitors_listen(struct gate *g, int *fds, size_t count); /* takes the descriptors */
void visitors_update_accepting(struct gate *g);
void visitors_step(struct gate *g); /* do what is due, arm the timer for the rest */
void visitors_reap(struct gate *g);
void visitors_settled(struct gate *g, int pid);
/* Fork a relay for fd (borrowed), which the broker sends: its user is logged in, so that no limit
 * of strangers counts it. */
MUST_CHECK int visitors_jump(struct gate *g, int fd, const struct link_gate_jump *jump);
/* A connection of that client (fd is owned from here); visitors_step() follows. */
void visitors_admit(struct gate *g, int fd, const struct client_name *from);
void visitors_destroy(struct gate *g);

/* greetings.c: connections from load balancers, until their header is there */
void greetings_init(struct gate *g);
void greetings_trust(struct gate *g, const char *networks); /* with commas between */
/* False: comes from nobody who is trusted; otherwise fd is owned from here. */
bool greetings_await(struct gate *g, int fd, const struct client_name *balancer);
void greetings_destroy(struct gate *g);

/* birth.c: the child's half of fork(). */
struct birth {
    int client_fd;
    struct client_name client;
    volatile uint8_t *spoken;
    int64_t accepted_ms;
    const struct link_gate_jump *jump; /* NULL: the client's own connection */
};
_Noreturn void birth_run(const struct gate *g, const struct birth *b);

#endif
