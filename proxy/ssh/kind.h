/*
 * What a command is: a person's command, or one end of a file transfer. Pure; decides about
 * recording only for channels without a terminal (a terminal is always recorded).
 */
#ifndef SSH_KIND_H
#define SSH_KIND_H

#include <stdbool.h>

#include <sallyport/file_row.h>
#include <sallyport/link.h>

/* CHANNEL_TRANSFER for scp -t/-f, rsync --server, git's three and sftp-server; CHANNEL_EXEC for the
 * rest. The command must be that program alone: a ';', a '&' and the like make it a command. */
enum link_channel_kind kind_of_command(const char *command);

/* mosh's start of its server, whose UDP would go past the proxy, unseen. */
bool kind_is_mosh(const char *command);
/* A CHANNEL_TRANSFER that speaks SFTP, as a client's `-s /path/to/sftp-server` makes it. */
bool kind_is_sftp_server(const char *command);
/* What the audit calls one of the others; false when it is none. */
bool kind_transfer_operation(const char *command, enum file_operation *operation);

#endif
