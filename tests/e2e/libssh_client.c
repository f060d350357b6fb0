/*
 * A client on libssh, for the compatibility tests:
 *   libssh-client PORT USER password|key SECRET exec COMMAND    its output and exit status
 *   libssh-client PORT USER password|key SECRET put FROM TO     a file by SFTP
 *   libssh-client PORT USER password|key SECRET get FROM TO
 * Any host key will do; SECRET is a password or the path of a private key.
 */
#define SSH_SUPPRESS_DEPRECATED 1 /* what replaces it came with 0.11 */
#include <fcntl.h>
#include <libssh/libssh.h>
#include <libssh/sftp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(ssh_session ssh, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, ssh_get_error(ssh));
    return 255;
}

static int log_in(ssh_session ssh, const char *method, const char *secret)
{
    ssh_key key = NULL;
    int rc;

    if (strcmp(method, "password") == 0)
        return ssh_userauth_password(ssh, NULL, secret);
    if (ssh_pki_import_privkey_file(secret, NULL, NULL, NULL, &key) != SSH_OK)
        return SSH_AUTH_ERROR;
    rc = ssh_userauth_publickey(ssh, NULL, key);
    ssh_key_free(key);
    return rc;
}

static int run(ssh_session ssh, const char *command)
{
    ssh_channel channel = ssh_channel_new(ssh);
    char data[16384];
    int n, status;

    if (!channel || ssh_channel_open_session(channel) != SSH_OK ||
        ssh_channel_request_exec(channel, command) != SSH_OK)
        return fail(ssh, "exec");
    for (int is_stderr = 0; is_stderr < 2; is_stderr++) {
        while ((n = ssh_channel_read(channel, data, sizeof(data), is_stderr)) > 0)
            fwrite(data, 1, (size_t)n, is_stderr ? stderr : stdout);
    }
    status = ssh_channel_get_exit_status(channel);
    ssh_channel_send_eof(channel);
    ssh_channel_close(channel);
    ssh_channel_free(channel);
    return status;
}

/* Between a local file and a remote one, in the direction that `is_put` says. */
static int copy(ssh_session ssh, const char *from, const char *to, int is_put)
{
    sftp_session sftp = sftp_new(ssh);
    FILE *local = fopen(is_put ? from : to, is_put ? "rb" : "wb");
    sftp_file remote = NULL;
    static char data[32768];
    ssize_t n = -1;

    if (sftp && local && sftp_init(sftp) == SSH_OK)
        remote = sftp_open(sftp, is_put ? to : from,
                           is_put ? O_WRONLY | O_CREAT | O_TRUNC : O_RDONLY, 0600);
    if (!remote)
        return fail(ssh, "sftp");
    if (is_put) {
        while ((n = (ssize_t)fread(data, 1, sizeof(data), local)) > 0 &&
               sftp_write(remote, data, (size_t)n) == n) {
        }
    } else {
        while ((n = sftp_read(remote, data, sizeof(data))) > 0 &&
               fwrite(data, 1, (size_t)n, local) == (size_t)n) {
        }
    }
    if (sftp_close(remote) != SSH_OK || fclose(local) != 0)
        n = -1;
    sftp_free(sftp);
    return n == 0 ? 0 : fail(ssh, "copy");
}

int main(int argc, char **argv)
{
    ssh_session ssh = ssh_new();
    int status, no = 0;

    if (argc < 7 || !ssh || (strcmp(argv[5], "exec") != 0 && argc < 8))
        return 254;
    ssh_options_set(ssh, SSH_OPTIONS_PROCESS_CONFIG, &no);
    ssh_options_set(ssh, SSH_OPTIONS_HOST, "127.0.0.1");
    ssh_options_set(ssh, SSH_OPTIONS_PORT_STR, argv[1]);
    ssh_options_set(ssh, SSH_OPTIONS_USER, argv[2]);
    if (ssh_connect(ssh) != SSH_OK)
        status = fail(ssh, "connect");
    else if (log_in(ssh, argv[3], argv[4]) != SSH_AUTH_SUCCESS)
        status = fail(ssh, "login");
    else if (strcmp(argv[5], "exec") == 0)
        status = run(ssh, argv[6]);
    else
        status = copy(ssh, argv[6], argv[7], strcmp(argv[5], "put") == 0);
    ssh_disconnect(ssh);
    ssh_free(ssh);
    return status;
}
