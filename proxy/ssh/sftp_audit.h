/*
 * What goes over an SFTP channel, read in passing: draft-ietf-secsh-filexfer-02 (version 3) with
 * the extensions of OpenSSH, and versions 4 to 6 (-04 to -13) as far as requests look alike. It is
 * given the bytes that the pump has passed on, in both directions, and says what was done to which
 * file. It can neither change nor delay them.
 *
 * Bounded: file data is never kept (of READ and WRITE only the head is looked at), a request's
 * first 8.5 KiB are; at most SFTP_REQUESTS_MAX groups of unanswered requests and SFTP_FILES_MAX
 * open files are followed, what is more is counted. A stream that is not SFTP ends the audit with
 * one FILE_STOPPED row. Pure but for its memory: no clock, no log, no I/O.
 */
#ifndef SSH_SFTP_AUDIT_H
#define SSH_SFTP_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sallyport/file_row.h>

#define SFTP_REQUESTS_MAX 1024 /* of consecutive READs or WRITEs of one file any number is one */
#define SFTP_FILES_MAX    1024
#define SFTP_PACKET_MAX   (16u * 1024 * 1024) /* OpenSSH: 256 KiB; others allow more */

struct sftp_audit;

/* One thing was done; row->channel is for the callee to fill in. Borrowed for the call. */
typedef void (*sftp_audit_fn)(struct file_row *row, void *arg);

/* NULL: out of memory. */
struct sftp_audit *sftp_audit_create(sftp_audit_fn fn, void *arg);
/* The channel is over: files that are open and requests without an answer are told as
 * "unfinished". Frees; NULL is fine. */
void sftp_audit_destroy(struct sftp_audit *a);

/* The next bytes that the client (is_input) or the server sent. */
void sftp_audit_feed(struct sftp_audit *a, bool is_input, const void *data, size_t len);
/* It met something that is not SFTP, and looks no more. */
bool sftp_audit_is_stopped(const struct sftp_audit *a);

#endif
