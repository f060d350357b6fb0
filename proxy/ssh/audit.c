/*
 * The file-transfer audit of a channel: SFTP is read in passing, scp, rsync and git are one row at
 * their end. Rows go to the broker through the relay's collector; nothing here can stop or change
 * a byte. Called by request.c (something runs), pump.c (bytes went by) and channel.c (it is over).
 */
#include "proxy/ssh/session.h"

#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#include "proxy/ssh/kind.h"
#include "proxy/ssh/sftp_audit.h"

static void on_row(struct file_row *row, void *arg)
{
    struct channel *c = arg;

    row->channel = c->number;
    relay_file(c->session->relay, row);
}

void audit_start(struct channel *c)
{
    const char *command = c->command ? c->command : "";
    bool is_sftp = (c->kind == CHANNEL_SUBSYSTEM && strcmp(command, "sftp") == 0) ||
                   (c->kind == CHANNEL_TRANSFER && kind_is_sftp_server(command));

    if (is_sftp)
        c->audit = sftp_audit_create(on_row, c);
}

void audit_bytes(struct channel *c, bool is_input, const void *data, size_t len)
{
    if (c->audit)
        sftp_audit_feed(c->audit, is_input, data, len);
}

/* Whole commands: what they did to which file is theirs to know. */
static void tell_command(struct channel *c)
{
    struct file_row row = {.bytes_in = c->bytes_in, .bytes_out = c->bytes_out};
    enum file_operation operation;

    if (!c->command || !kind_transfer_operation(c->command, &operation))
        return;
    row.operation = (uint8_t)operation;
    file_path_copy(row.path, (const uint8_t *)c->command, strlen(c->command));
    if (c->has_signal)
        snprintf(row.result, sizeof(row.result), "signal-%.16s", c->exit_signal);
    else if (!c->has_status)
        text_copy(row.result, sizeof(row.result), "unfinished");
    else if (c->exit_status != 0)
        snprintf(row.result, sizeof(row.result), "exit-%u", c->exit_status);
    else
        text_copy(row.result, sizeof(row.result), "ok");
    on_row(&row, c);
}

void audit_close(struct channel *c)
{
    if (c->audit)
        sftp_audit_destroy(c->audit);
    else if (c->has_started && c->kind == CHANNEL_TRANSFER)
        tell_command(c);
    c->audit = NULL;
}
