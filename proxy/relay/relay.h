/*
 * The relay, whatever the protocol: the process of one connection. It owns the link to the broker
 * (and the listening socket through which a restarted broker finds it), the activity page, the
 * policy, login grace, and life without a broker. A protocol (proxy/ssh, later proxy/rdp) owns the
 * two legs and what goes between them; it is a table of functions and is called back with answers.
 *
 * One loop, one thread, nothing freed inside a callback: the protocol's `finish` runs from the top
 * level after relay_finish(). Every request below is remembered until it is answered and repeated
 * to a broker that adopts the relay, so a protocol never sees that the broker was away.
 */
#ifndef RELAY_RELAY_H
#define RELAY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/file_row.h>
#include <sallyport/link.h>
#include <sallyport/policy.h>

struct event_base;
struct relay;

struct relay_protocol {
    enum protocol protocol;
    const char *name; /* "ssh" */

    /* In the relay, before the first byte: client_fd is non-blocking and owned from here. The
     * limits are those of WELCOME. Returns NULL when out of memory. */
    void *(*start)(struct relay *r, int client_fd, const struct link_welcome *limits);

    void (*auth_result)(void *self, const struct link_auth_result *result);
    /* A server on the way to the target, the nearest (number 1, which begins anew) first; all of
     * them come before routed(). fds: the two ends of a pair, non-blocking, owned from here.
     * Secrets as in routed(). NULL for a protocol that goes through no other server. */
    void (*hop)(void *self, const struct link_hop *hop, const int fds[2]);
    /* A question, in answer to relay_auth_keyboard() and relay_auth_answer(). May hold a secret:
     * wiped by the relay when the call returns. NULL: neither is ever called. */
    void (*auth_prompt)(void *self, const struct link_auth_prompt *prompt);
    /* Answers to relay_nla_ask() and relay_nla_login(); fd leads to the process of the attempt,
     * non-blocking, owned from here. auth_result has the end of it. NULL: neither is ever called.
     */
    void (*nla_choice)(void *self, enum link_nla choice);
    void (*nla_begun)(void *self, int fd);
    /* target_fd is connected, non-blocking and owned from here; -1 when !result->is_ok. The secret
     * in result is wiped by the relay when the call returns: copy what is needed, wipe it soon. */
    void (*routed)(void *self, const struct link_route_result *result, int target_fd);
    void (*targets)(void *self, const struct link_target_row *rows, size_t count, size_t total);
    void (*host_key_result)(void *self, bool is_ok, const char *text);
    /* fd is owned from here; -1 unless verdict is LINK_RECORD_YES. */
    void (*recording)(void *self, const struct link_recording *answer, int fd);
    /* fd is non-blocking and owned from here; -1 when !result->is_ok. NULL: nothing jumps. */
    void (*jumped)(void *self, const struct link_jump_result *result, int fd);
    /* In answer to relay_redirect(); as routed(). NULL: it is never called. */
    void (*redirected)(void *self, const struct link_redirected *result, int target_fd);
    void (*notice)(void *self, enum link_notice kind, const char *text);
    /* Somebody wants to look on: fd is a stream socket, non-blocking, owned from here. NULL: the
     * protocol cannot show anything. */
    void (*watch)(void *self, const struct link_watch *watch, int fd);
    void (*watch_end)(void *self, uint64_t watch); /* NULL like watch */
    /* The broker is gone: what only it may permit ends. NULL: there is nothing of that kind. */
    void (*alone)(void *self);
    /* An admin's or a limit's end: show the sentence in the protocol's way, flush, close both legs,
     * then call relay_finish() (any reason: the first one given stays). After deadline_ms the
     * process is killed. */
    void (*end)(void *self, const char *sentence, uint32_t deadline_ms);
    /* A command of the user's own door was started, or was not. fds: the terminal's master and two
     * -1s, or stdin, stdout and stderr, non-blocking, owned from here; all -1 unless
     * result->is_ok. NULL: the protocol has no door. */
    void (*door_result)(void *self, const struct link_door_result *result, const int fds[3]);
    void (*door_exit)(void *self, const struct link_door_exit *end);
    /* The broker went away, and the commands that it had started with it. NULL as above. */
    void (*broker_lost)(void *self);
    /* The session was given back: choosing again. NULL unless relay_back() is called. */
    void (*back)(void *self);
    /* Free everything; called once, last. */
    void (*finish)(void *self);
};

struct event_base *relay_base(struct relay *r);
/* The policy in force, borrowed; it may change at any turn of the loop. */
const struct policy *relay_policy(const struct relay *r);
uint64_t relay_session_id(const struct relay *r); /* 0 before the route */

/* What the client calls itself (SSH version text); goes along with later messages. */
void relay_set_device(struct relay *r, const char *device);

/* Requests; the answer comes through the table above. Text that is too long is cut. */
void relay_auth_password(struct relay *r, const char *user, const char *password);
void relay_auth_key(struct relay *r, const char *user, bool is_signed, const char *key_type,
                    const void *blob, size_t len);
/* keyboard-interactive; answered by auth_prompt or auth_result. False: the broker does not know
 * how. */
bool relay_auth_keyboard(struct relay *r, const char *user);
void relay_auth_answer(struct relay *r, const void *text, size_t len);
/* RDP: is NLA for a client with this cookie? False: the broker knows no NLA. */
bool relay_nla_ask(struct relay *r, const char *cookie);
/* Begin a login by NLA; key: SubjectPublicKey of our certificate. */
void relay_nla_login(struct relay *r, const void *key, size_t len);
void relay_route(struct relay *r, const char *account, const char *target);
/* RDP: the hash of the reconnect cookie that the client showed goes along with relay_route(). */
void relay_show_cookie(struct relay *r, const uint8_t cookie[LINK_COOKIE]);
/* RDP: the target sends the session on; host "" is where it was. False: the broker does not know
 * how. */
bool relay_redirect(struct relay *r, const char *host, bool needs_secret);
void relay_targets(struct relay *r, uint32_t offset);
/* hop: number of a server on the way, 0 the target. */
void relay_pin_host_key(struct relay *r, uint8_t hop, const char *key_type, const void *blob,
                        size_t len);
void relay_record_open(struct relay *r, const struct link_record_open *request);

/* Ask for a way to host:port from a connection without a target; answered by `jumped`. False: the
 * broker does not know how. */
bool relay_jump(struct relay *r, uint32_t channel, const char *host, uint16_t port);
/* A jump that was granted has ended. While there is one, no target need be chosen. */
void relay_jump_closed(struct relay *r, const struct link_jump_closed *end);

/* The user's own door, without a target. False: the broker does not know how. While a command runs
 * no target need be chosen; close every one that was opened, however it ended. */
bool relay_door_open(struct relay *r, const struct link_door *request);
void relay_door_resize(struct relay *r, uint32_t channel, uint16_t cols, uint16_t rows);
void relay_door_close(struct relay *r, uint32_t channel);
/* The target refused the login, and nothing was started: give the session back; answered by `back`.
 * False: the broker does not know how. */
bool relay_back(struct relay *r, enum end_reason reason, const char *text);

/* Told to the broker; queued (bounded, oldest events dropped and counted) while there is none. */
void relay_ready(struct relay *r, const char *target_version);
void relay_channel(struct relay *r, const struct link_channel *change);
void relay_frame(struct relay *r, const struct link_frame *frame);
void relay_recording_state(struct relay *r, uint32_t channel, enum recording_state state,
                           const char *text);
void relay_event(struct relay *r, const char *kind, const char *text);
/* RDP: what is shared, comma separated, and what an admin wants to know of both legs. */
void relay_desktop(struct relay *r, const char *channels, const char *text);
/* RDP: the hash of the reconnect cookie that the target gave the client. */
void relay_reconnect(struct relay *r, const uint8_t cookie[LINK_COOKIE]);
void relay_watch_closed(struct relay *r, const struct link_watch_closed *closed);
/* What was done to a file; goes in batches, see files.h. */
void relay_file(struct relay *r, const struct file_row *row);

/* Count bytes into the page; is_activity as the policy and the channel's kind say. Cheap enough
 * for every packet. bytes 0 only stamps. */
void relay_input(struct relay *r, size_t bytes, bool is_activity);
void relay_output(struct relay *r, size_t bytes, bool is_activity);
/* +1 when a channel begins that is active by itself (a running command under `auto`), -1 when it
 * ends. */
void relay_hold(struct relay *r, int change);

/* The connection is over. The first call decides reason, author and text; the rest are ignored, and
 * an END of the broker that came earlier wins over all. May be called anywhere: the end itself runs
 * from the top of the loop. */
void relay_finish(struct relay *r, enum end_reason reason, const char *author, const char *text);
/* Why it ends, once that is decided; END_NONE before. */
enum end_reason relay_end_reason(const struct relay *r);

/* Both legs are up: put the narrower system call filter on. Once. */
void relay_narrow(struct relay *r);

/* What the gate gives a relay at birth. */
struct relay_birth {
    int client_fd;                 /* the accepted socket */
    const uint8_t *client_address; /* 16 bytes as in sallyport/network.h, NULL: unknown; borrowed
                                      for the call */
    uint16_t client_port;
    int link_fd;              /* connected to the broker's relay.sock, nothing said yet; -1 when
                                 the broker is away: it will adopt */
    int listen_fd;            /* bound and listening in run_dir/relay/, for a later broker */
    uint32_t broker_uid;      /* who may connect to listen_fd */
    volatile uint8_t *spoken; /* shared with the gate: set to 1 at the client's first byte */
    int64_t accepted_mono_ms; /* login grace counts from here */
    uint32_t login_grace_s;   /* until WELCOME says otherwise */
    const struct link_gate_jump *jump; /* NULL, or whose connection carries client_fd; borrowed for
                                          the call */
};

/* Run the relay of one accepted connection in this (forked, sandboxed) process and return its exit
 * status. All descriptors are owned from here. */
int relay_run(const struct relay_protocol *protocol, const struct relay_birth *birth);

/* The protocol saw the client's first byte. */
void relay_client_spoke(struct relay *r);

#endif
