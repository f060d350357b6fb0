/*
 * The recording of a session: record.c. What is sent to the client passes by here on its way, in
 * the runs in which it goes; what makes pictures is kept, as tracker/FORMAT.md says. Beside it what
 * the client confirmed and did. All of it is nothing while there is no recording.
 */
#ifndef RDP_RECORD_H
#define RDP_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/link.h>

#include "proxy/rdp/wire.h"

#define RECORD_DYNAMIC_MAX 16 /* channels that make pictures, open at once */

struct desktop_writer;
struct rdp_session;

enum rdp_record_state {
    RDP_RECORD_NONE, /* not asked yet */
    RDP_RECORD_ASKED,
    RDP_RECORD_READY, /* the file is there */
    RDP_RECORD_ON,
    RDP_RECORD_OFF
};

struct rdp_record {
    enum rdp_record_state state;
    int fd;                        /* READY: owned */
    struct desktop_writer *writer; /* ON: owned */
    bool is_theirs;                /* what is being sent is the target's, not drawn by us */
    bool has_demand;               /* pictures can come */
    uint16_t io, drdynvc;          /* the client's numbers; 0: none */
    uint32_t dynamic[RECORD_DYNAMIC_MAX];
    size_t dynamic_count;
    bool is_kept; /* the message of drdynvc that is open */
    uint64_t unreadable;
};

/* Ask the broker, when policy wants a recording. Once the target is known. */
void rdp_record_ask(struct rdp_session *s);
/* Whether the session may go on to its target: the answer came, or nobody asked. */
bool rdp_record_is_ready(const struct rdp_session *s);
/* Whether PDUs have to stay readable for the recording: no compression of channels and the like. */
bool rdp_record_reads(const struct rdp_session *s);
/* fd is owned from here. */
void rdp_record_answer(struct rdp_session *s, const struct link_recording *answer, int fd);
/* Both sides' numbers are known: what follows is recorded. */
void rdp_record_begin(struct rdp_session *s);

/* The client's leg sent this: whole PDUs. arg is the session. */
void rdp_record_sent(void *arg, const void *data, size_t len);
/* The client's Confirm Active, whose share control header begins at `start`; may be changed at
 * `at`.
 */
void rdp_record_confirm(struct rdp_session *s, const struct share_pdu *share, const uint8_t *start,
                        uint8_t *at);
/* Of the Client Info for the target. */
uint32_t rdp_record_info_flags(const struct rdp_session *s, uint32_t flags);
/* Input of the client: a fast-path PDU, or the body of a DATA_INPUT. */
void rdp_record_fastpath(struct rdp_session *s, uint8_t first, struct cursor body);
void rdp_record_slowpath(struct rdp_session *s, struct cursor body);
void rdp_record_touch(struct rdp_session *s);
/* What the user is shown in words. */
void rdp_record_notice(struct rdp_session *s, const char *text);

void rdp_record_tick(struct rdp_session *s);
/* The session goes back, and another one may follow, with a recording of its own. May end all. */
void rdp_record_give_back(struct rdp_session *s);
void rdp_record_finish(struct rdp_session *s);

#endif
