/*
 * The proxy's own host keys: loaded once by the gate, before it enters its root, and used by every
 * relay it forks. Also makes new ones for the broker's first start.
 */
#include "proxy/ssh/ssh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/log.h>
#include <sallyport/secret.h>

#include "proxy/ssh/algorithms.h"
#include "proxy/ssh/session.h"
#include "proxy/ssh/warm.h"

static ssh_bind bind_keys; /* one for the process: relays inherit it */
static size_t key_count;

ssh_bind session_bind(void)
{
    return bind_keys;
}

static int create_bind(void)
{
    bool no = false;
    int quiet = SSH_LOG_NOLOG;

    if (bind_keys)
        return 0;
    (void)ssh_init();
    (void)ssh_set_log_level(SSH_LOG_NOLOG);
    bind_keys = ssh_bind_new();
    if (!bind_keys)
        return ERR_MEMORY;
    if (ssh_bind_options_set(bind_keys, SSH_BIND_OPTIONS_PROCESS_CONFIG, &no) != SSH_OK ||
        ssh_bind_options_set(bind_keys, SSH_BIND_OPTIONS_LOG_VERBOSITY, &quiet) != SSH_OK ||
        ssh_bind_options_set(bind_keys, SSH_BIND_OPTIONS_BANNER, "Sallyport") != SSH_OK)
        return ERR_CRYPTO;
    return algorithms_set_server(bind_keys);
}

/* libssh wants a string. */
static ssh_key import_key(const char *pem, size_t len)
{
    struct secret text;
    ssh_key key = NULL;

    if (!secret_set(&text, pem, len))
        return NULL;
    if (ssh_pki_import_privkey_base64((const char *)text.data, NULL, NULL, NULL, &key) != SSH_OK)
        key = NULL;
    secret_wipe(&text);
    return key;
}

static int load_key(const char *pem, size_t len)
{
    int rc = create_bind();
    ssh_key key;

    if (rc != 0) {
        log_error("libssh takes none of our algorithms");
        return rc;
    }
    if (!(key = import_key(pem, len))) {
        log_error("a host key cannot be read: it must be PEM or OpenSSH text without a passphrase");
        return ERR_INVALID;
    }
    if (ssh_bind_options_set(bind_keys, SSH_BIND_OPTIONS_IMPORT_KEY, key) != SSH_OK) {
        log_error("a host key of type %s is not accepted", ssh_key_type_to_char(ssh_key_type(key)));
        ssh_key_free(key);
        return ERR_INVALID;
    }
    key_count++; /* the bind owns the key now */
    return 0;
}

static int prepare(void)
{
    if (key_count == 0) {
        log_error("there is no host key");
        return ERR_NOT_FOUND;
    }
    if (!algorithms_have_post_quantum())
        log_info("this libssh has no post-quantum key exchange: OpenSSH 10.1 and newer warn");
    warm_up(bind_keys);
    return 0;
}

const struct gate_protocol ssh_gate = {
    .relay = &ssh_protocol,
    .load_key = load_key,
    .prepare = prepare,
};

/* A rehearsal wants a server, and a server wants a key; this one is nobody's. */
int probe_warm_up(void)
{
    ssh_key key = NULL;
    int rc = create_bind();

    if (rc == 0 && (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &key) != SSH_OK ||
                    ssh_bind_options_set(bind_keys, SSH_BIND_OPTIONS_IMPORT_KEY, key) != SSH_OK))
        rc = ERR_CRYPTO;
    if (rc == 0)
        warm_up(bind_keys);
    else
        log_error("probe: libssh cannot be set up");
    return rc;
}

/* ---- new keys ---- */

struct key_kind {
    const char *name;
    enum ssh_keytypes_e type;
    int bits;
};

static const struct key_kind kinds[] = {
    {"ed25519", SSH_KEYTYPE_ED25519, 0},
    {"ecdsa", SSH_KEYTYPE_ECDSA_P256, 256},
    {"rsa", SSH_KEYTYPE_RSA, 3072},
};

static int print_key(const struct key_kind *kind)
{
    ssh_key key = NULL;
    char *text = NULL;
    int status = 1;

    if (ssh_pki_generate(kind->type, kind->bits, &key) == SSH_OK &&
        ssh_pki_export_privkey_base64(key, NULL, NULL, NULL, &text) == SSH_OK) {
        status = fputs(text, stdout) < 0 || fflush(stdout) != 0;
        memory_wipe(text, strlen(text));
    }
    ssh_string_free_char(text);
    ssh_key_free(key);
    if (status != 0)
        fprintf(stderr, "error: the key could not be made or written\n");
    return status;
}

int ssh_keygen(const char *type)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(kinds[i].name, type) == 0)
            return print_key(&kinds[i]);
    }
    fprintf(stderr, "error: unknown key type '%s': one of ed25519, ecdsa, rsa\n", type);
    return 2;
}
