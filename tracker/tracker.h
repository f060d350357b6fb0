/*
 * The tracker: the one writer of session state. It knows every live session, its activity page and
 * its deadlines, warns and ends idle ones, and writes history. It lives in the broker; the broker
 * tells it what happened, and gives it four verbs to act on relays. Everyone else (control, later
 * the dashboard) reads snapshots and ends sessions by id.
 *
 * One timer a session, armed for the nearest of: becomes idle, warn, disconnect, maximum length.
 */
#ifndef TRACKER_TRACKER_H
#define TRACKER_TRACKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/activity.h>
#include <sallyport/errors.h>
#include <sallyport/policy.h>
#include <sallyport/session.h>

struct event_base;
struct store;
struct tracker;

/* How the tracker acts on the relay of a session. Each is asynchronous and never fails: a relay
 * that is gone reports tracker_closed() by itself. */
struct tracker_relay_ops {
    void (*notice)(void *relay, bool is_warning, const char *text);
    void (*end)(void *relay, enum end_reason reason, const char *author, const char *text);
    void (*policy)(void *relay, const struct policy *policy);
};

struct tracker *tracker_create(struct event_base *base, struct store *store,
                               const struct tracker_relay_ops *ops, const char *node);
void tracker_destroy(struct tracker *t);

/* ---- what the broker tells ---- */

/*
 * A session begins: writes its row, makes its page. info: id and times are filled in; the rest is
 * copied. relay is what the ops get. *page_fd is the caller's to close. Errors as
 * store_session_open and ERR_FULL for a limit (err has the sentence).
 */
MUST_CHECK int tracker_open(struct tracker *t, struct session_info *info,
                            const struct policy *policy, void *relay, int *page_fd, char *err,
                            size_t err_len);
/* A relay from before this broker is back: page is mapped and checked, ownership moves here.
 * ERR_NOT_FOUND when the row is unknown or was ended for another reason than broker-lost,
 * ERR_EXISTS when a live relay has it. */
MUST_CHECK int tracker_adopt(struct tracker *t, uint64_t id, const struct policy *policy,
                             struct activity_page *page, void *relay);
void tracker_ready(struct tracker *t, uint64_t id);   /* connecting -> active */
void tracker_resumed(struct tracker *t, uint64_t id); /* the relay saw input while idle or warned */
void tracker_channels(struct tracker *t, uint64_t id, const char *channels);
void tracker_device(struct tracker *t, uint64_t id, const char *device); /* known late */
void tracker_recording(struct tracker *t, uint64_t id, enum recording_state state);
/* The end, once: with the relay's own account of it, or reason END_RELAY_CRASHED when it vanished.
 * If an end was asked for before, that reason, author and text stay. */
void tracker_closed(struct tracker *t, uint64_t id, enum end_reason reason, const char *author,
                    const char *text);
/* After adopt_grace: rows that no relay claimed are closed as broker-lost. */
void tracker_close_unclaimed(struct tracker *t);
/* Limits of the configuration changed: new policies were resolved for live sessions by the broker,
 * which calls this for each. */
void tracker_set_policy(struct tracker *t, uint64_t id, const struct policy *policy);
void tracker_set_max_sessions(struct tracker *t, uint32_t max_sessions);

/* ---- what control and others use ---- */

typedef bool (*tracker_fn)(const struct session_info *info, void *arg); /* false stops */
/* Live sessions by id, as they are now. The callback may not change the tracker. */
void tracker_each(struct tracker *t, tracker_fn fn, void *arg);
/* Live: as it is now; ended: from the store. ERR_NOT_FOUND. */
MUST_CHECK int tracker_get(struct tracker *t, uint64_t id, struct session_info *out);
size_t tracker_count(const struct tracker *t);
size_t tracker_count_user(const struct tracker *t, const char *user);

/* End with a notice, now or in `in_s` seconds (the user is told at once that it will). author as in
 * session_info.ended_by; text: the reason an admin gave, may be "". A later announcement takes the
 * place of the one before; it outlives the daemon. ERR_NOT_FOUND when not live. */
MUST_CHECK int tracker_end(struct tracker *t, uint64_t id, enum end_reason reason,
                           const char *author, const char *text, uint32_t in_s);
/* An announced end will not be, and the user is told. ERR_NOT_FOUND when not live or none was. */
MUST_CHECK int tracker_cancel_end(struct tracker *t, uint64_t id);
MUST_CHECK int tracker_message(struct tracker *t, uint64_t id, const char *author,
                               const char *text);

/* Changes: called after each change of a session, with its new state. is_end: it is gone. */
typedef void (*tracker_watch_fn)(const struct session_info *info, bool is_end, void *arg);
struct tracker_watch;
struct tracker_watch *tracker_watch_add(struct tracker *t, tracker_watch_fn fn, void *arg);
void tracker_watch_remove(struct tracker *t, struct tracker_watch *w); /* fine inside a callback */

#endif
