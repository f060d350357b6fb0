/*
 * The sentences of notices, as CONTRACT fixes them: one source for the tracker, which decides while
 * there is a broker, and for a relay that is alone. Pure.
 */
#ifndef SALLYPORT_NOTICE_H
#define SALLYPORT_NOTICE_H

#include <stddef.h>

#include <sallyport/policy.h>
#include <sallyport/session.h>

/* "You have been disconnected: idle for 30 minutes". author as in session_info.ended_by; text: an
 * admin's own words, put in brackets behind the cause, or, for reasons whose cause is only known to
 * the caller, the cause itself; may be "". Cut to SESSION_TEXT_MAX. Returns dst. */
const char *notice_end(char *dst, size_t dst_len, enum end_reason reason, const char *author,
                       const char *text, const struct policy *policy);

/* "Idle for 10 minutes: you will be disconnected in 20 minutes unless you press a key." Returns
 * dst. */
const char *notice_idle_warning(char *dst, size_t dst_len, const struct policy *policy);

#endif
