/*
 * Words over a desktop in use: what is shown, and what must be known of the target's drawing to
 * show it, to keep it there, and to take it away. Part of struct rdp_session; notices.c is the
 * owner.
 */
#ifndef RDP_NOTICES_H
#define RDP_NOTICES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/buffer.h>

#include "proxy/rdp/gfx.h"
#include "proxy/rdp/wire.h"

#define SENTENCE_MAX 512

struct rdp_session;

struct notice {
    char text[SENTENCE_MAX]; /* waits to be shown; "" none */
    bool is_message;         /* stays for a moment even when somebody types */
    bool is_shown;
    char shown[SENTENCE_MAX];
    int64_t shown_ms;
    uint16_t left, top, right, bottom; /* where it is, inclusive */
    struct buffer drawn;               /* what draws it again; owned */
    bool is_banner;                    /* made for frames */
    bool is_forgotten;                 /* made for a desktop that is no more */
    bool is_touched;                   /* the target drew while it stood */
    int64_t clear_ms;                  /* until then a notice may be drawn over; 0: none was */
    int64_t covered_ms, output_ms;     /* the target drew since: first and last; 0: it did not */
    bool has_badge;                    /* the client shows it as its pointer */
    bool is_badge_stale;               /* but the target set another since */

    /* the desktop, as it would be without a notice */
    struct output_facts output; /* of the last PDU; is_open: nothing may be put between */
    struct gfx_state gfx;
    struct pointer pointer;
    uint16_t badge_slot; /* of the client's pointer cache, ours; 0: none */
    bool is_suppressed;  /* the client asked for no output: its window is not seen */
    bool has_palette;    /* of 8 bits a pixel */
    uint8_t palette[PALETTE_LEN];
};

void rdp_notice_init(struct rdp_session *s);
void rdp_notice_finish(struct rdp_session *s);

/* What the broker wants the user to read. */
void rdp_notice_add(struct rdp_session *s, const char *text, bool is_message);
void rdp_notice_step(struct rdp_session *s, int64_t now_ms);
void rdp_notice_human(struct rdp_session *s);

/* Another target is to come: of this one nothing is true any more. */
void rdp_notice_leave(struct rdp_session *s);

/* What passes, told by splice.c. A frame f stands at `at`, and may be changed. */
void rdp_notice_fastpath(struct rdp_session *s, const struct frame *f);
void rdp_notice_share(struct rdp_session *s, const struct share_pdu *pdu);
void rdp_notice_dynamic(struct rdp_session *s, struct cursor data);
void rdp_notice_dynamic_of_user(struct rdp_session *s, struct cursor data);
void rdp_notice_share_of_user(struct rdp_session *s, const struct share_pdu *pdu,
                              const struct frame *f, uint8_t *at);

/* Before the last words: what is shown goes away. */
void rdp_notice_clear(struct rdp_session *s, int64_t now_ms);
/* The target draws where a notice was, or is in the middle of an update, or of a message that
 * draws. */
bool rdp_notice_must_wait(const struct rdp_session *s);
/* The last words, in each way that the client may draw: nothing of the target may follow. False
 * when there is no way to. */
bool rdp_notice_last(struct rdp_session *s, const char *text);

#endif
