/*
 * The login screen: who it is, a second factor, which target, the target's own password; asked of a
 * client in a session of our own, and what went wrong is said there. Steps and callbacks of a turn
 * of proxy/rdp/session.c; the form is form.h, the session stage.h.
 */
#ifndef RDP_SCREEN_H
#define RDP_SCREEN_H

#include <stdbool.h>
#include <stddef.h>

#include <sallyport/link.h>

struct rdp_session;

/* The client sent no password. name: as it sent it. */
void rdp_screen_login(struct rdp_session *s, const char *name);
/* The first factor was right, and there is another. */
void rdp_screen_factor(struct rdp_session *s);
/* An attempt on the screen failed: true when the screen goes on. */
bool rdp_screen_denied(struct rdp_session *s, const struct link_auth_result *result);
/* Logged in. */
void rdp_screen_choose(struct rdp_session *s); /* no target was named */
void rdp_screen_connecting(struct rdp_session *s, const char *target);
/* There is no way to the target, or it failed before its desktop: true when the user is told on the
 * screen, and may choose again. */
bool rdp_screen_refused(struct rdp_session *s, const char *text);
bool rdp_screen_failed(struct rdp_session *s, const char *text);
/* The account's password at the target is asked for; rdp_target_secret() is called with it. */
void rdp_screen_ask_secret(struct rdp_session *s);

/* From the broker. */
void rdp_screen_prompt(struct rdp_session *s, const struct link_auth_prompt *prompt);
void rdp_screen_targets(struct rdp_session *s, const struct link_target_row *rows, size_t count,
                        size_t total);
void rdp_screen_given_back(struct rdp_session *s);

void rdp_screen_step(struct rdp_session *s);
/* The target's desktop takes over; also at the end. Wipes what was typed. */
void rdp_screen_finish(struct rdp_session *s);

#endif
