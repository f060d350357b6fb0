/*
 * One PAM conversation in the process that exists for it: authentication and account stage, each
 * question as a message to the broker.
 */
#ifndef PAM_CONVERSATION_H
#define PAM_CONVERSATION_H

#include <sallyport/pam_talk.h>

/* sock: connected to the broker, blocking. start: what it asked for. Says RESULT at the end and
 * returns the process's exit status. */
int conversation_run(int sock, const struct pam_talk *start);

#endif
