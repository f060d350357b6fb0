/*
 * The broker's parts, as its own files see them: one struct that owns them all. Nothing outside
 * proxy/broker includes this.
 */
#ifndef BROKER_BROKER_H
#define BROKER_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>
#include <sallyport/link.h>

#include "proxy/broker/config/config.h"
#include "proxy/broker/privileges.h"
#include "proxy/broker/sources.h"

struct control;
struct control_status;
struct dialer;
struct door;
struct event;
struct event_base;
struct gates;
struct links;
struct nla_helper;
struct probes;
struct pam_helper;
struct recordings;
struct store;
struct tracker;
struct user_cas;
struct workers;

enum broker_stop { BROKER_RUNS, BROKER_STOPS, BROKER_DRAINS_TO_STOP };

struct broker {
    struct event_base *base;
    struct config *config;
    struct identity identity;
    struct store *store;
    struct tracker *tracker;
    struct control *control;
    struct gates *gates;
    struct links *links;
    struct door *door;
    struct recordings *recordings;
    struct probes *probes;
    struct workers *hash_workers; /* CPU: one thread a core */
    struct workers *name_workers; /* waiting for name servers: many */
    struct dialer *dialer;
    struct workers *sync_workers; /* disks: a few */
    struct sources sources;
    struct sources code_failures; /* by user, see links_factor.c */
    struct user_cas *user_cas;    /* NULL: none are trusted */
    struct pam_helper *pam;       /* NULL: [ssh] pam is no */
    struct nla_helper *nla;
    uint8_t ticket_key[32];
    size_t max_fds;
    int64_t started_wall_us;
    int64_t loaded_wall_us; /* of the configuration */
    bool is_draining;
    size_t told_count; /* sessions, as the service manager last heard */
    enum broker_stop stop;
    int exit_status;
    int run_lock;             /* run_dir/broker.lock, held for life */
    struct event *stop_timer; /* end of shutdown_grace */
    struct event *adopt_timer;
    struct event *signals[5];
    struct event *tick; /* store queue, status, watchdog */
};

/* ---- gates.c ---- */

struct gates *gates_create(struct broker *b, char *err, size_t err_len);
void gates_destroy(struct gates *g);
/* Bind what the configuration lists, before privileges are given up; keeps what is bound already.
 * On failure nothing changed. */
MUST_CHECK int gates_bind(struct gates *g, const struct config *c, char *err, size_t err_len);
/* Make or load keys and start the gate programs. */
MUST_CHECK int gates_start(struct gates *g, char *err, size_t err_len);
/* Send configuration and listeners anew (reload, drain). */
void gates_update(struct gates *g);
/* Every gate that is enabled was ready once. */
bool gates_are_ready(const struct gates *g);
/* Is it the SubjectPublicKey of the RDP gate's certificate, or of the one before? */
bool gates_has_rdp_key(const struct gates *g, const void *key, size_t len);
void gates_settled(struct gates *g, int32_t pid);
/* Have a relay forked for fd (borrowed). ERR_AGAIN while there is no gate. */
MUST_CHECK int gates_jump(struct gates *g, const struct link_gate_jump *jump, int fd);
void gates_reap(struct gates *g); /* SIGCHLD */
void gates_describe(const struct gates *g, char *dst, size_t len);
void gates_count(const struct gates *g, uint32_t *unauthenticated, uint32_t *parked,
                 uint64_t *accepted, uint64_t *evicted);

/* ---- links.c ---- */

struct links *links_create(struct broker *b, char *err, size_t err_len);
/* Let go of every relay; what was begun for one finds none. Before the workers end. */
void links_release(struct links *l);
void links_destroy(struct links *l);
/* Connect to every relay that an earlier broker left. Returns how many answered the connect. */
size_t links_adopt(struct links *l);
/* Resolve the policy of every live session again. is_access: also end those that are not permitted
 * any more, as `revoked`. */
void links_refresh_policies(struct links *l, bool is_access, const char *author);
/* End the connections that have no session: menus, and those that carry jumps. */
void links_end_choosing(struct links *l, enum end_reason reason, const char *author,
                        const char *text);
/* Less than min_free is left where this session records: what its policy says happens. */
void links_recording_short(struct links *l, uint64_t session_id);
/* Somebody looks on in a live session, or types in it too. */
struct links_watch {
    uint64_t session_id;
    uint32_t channel; /* 0: the newest terminal */
    bool may_type;
    const char *who; /* as an author */
};
struct links_watching {
    uint64_t watch;
    uint32_t channel; /* 0: not known here */
    int stream;       /* the caller's: what is shown, see proxy/ssh/watch.h */
    int recording;    /* the caller's: to read what was shown so far; -1 none */
};
/* ERR_NOT_FOUND, ERR_VERSION or ERR_SYSTEM, with a sentence. */
MUST_CHECK int links_watch(struct links *l, const struct links_watch *ask,
                           struct links_watching *out, char *err, size_t err_len);
void links_watch_end(struct links *l, uint64_t session_id, uint64_t watch);
void links_count(const struct links *l, uint32_t *links, uint64_t *adopted);
extern const struct tracker_relay_ops links_relay_ops;

/* ---- broker.c ---- */

/* Runs until stopped; returns the exit status. config is owned from here. */
int broker_run(struct config *config);
/* Begin to stop: SIGINT and `shutdown`. */
void broker_shutdown(struct broker *b, uint32_t grace_s, const char *author);
void broker_event(struct broker *b, const char *kind, const char *user, const char *source,
                  uint64_t session_id, const char *text);
void broker_session_gone(struct broker *b); /* a drain may be over */

#endif
