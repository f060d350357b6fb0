/*
 * TLS contexts, the proxy's own certificate, and the self-signed one of the first start. The
 * contexts are made once by the gate and shared by every relay it forks.
 */
#include "proxy/rdp/tls.h"

#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/log.h>
#include <sallyport/network.h>
#include <sallyport/text.h>

#include "proxy/rdp/rdp.h"

#define CHAIN_MAX  8
#define KEY_BITS   2048
#define VALID_DAYS 3650
/* Of TLS 1.2: forward secrecy always, and no CBC: clients of the last ten years have these. */
#define CIPHERS    "ECDHE+AESGCM:ECDHE+CHACHA20"
#define REHEARSAL  16 /* steps of a handshake between two ends that never wait */

static SSL_CTX *server_ctx, *client_ctx; /* one each for the process: relays inherit them */
static X509 *chain[CHAIN_MAX];           /* the certificate itself is the first */
static size_t chain_len;
static EVP_PKEY *private_key;

const char *tls_error(char *dst, size_t len)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = ERR_reason_error_string(code);

    text_copy(dst, len, reason ? reason : "the connection was closed");
    ERR_clear_error();
    return dst;
}

/* ---- loading ---- */

static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return -1;
}

int tls_load(const char *pem, size_t len)
{
    BIO *bio = len > INT32_MAX ? NULL : BIO_new_mem_buf(pem, (int)len);
    size_t before = chain_len;
    EVP_PKEY *key;
    X509 *cert;

    if (!bio)
        return ERR_MEMORY;
    while (chain_len < CHAIN_MAX && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)))
        chain[chain_len++] = cert;
    BIO_free(bio);
    if (!(bio = BIO_new_mem_buf(pem, (int)len)))
        return ERR_MEMORY;
    key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    ERR_clear_error();
    if (key && private_key) {
        log_error("there are two private keys for the RDP certificate");
        EVP_PKEY_free(key);
        return ERR_INVALID;
    }
    if (key)
        private_key = key;
    if (!key && chain_len == before) {
        log_error("a file of the RDP certificate holds neither certificate nor key; it must be PEM "
                  "without a passphrase");
        return ERR_INVALID;
    }
    return 0;
}

static int use_certificate(SSL_CTX *ctx)
{
    char why[128];

    if (chain_len == 0 || !private_key) {
        log_error("the RDP door has no %s", chain_len ? "private key" : "certificate");
        return ERR_NOT_FOUND;
    }
    if (SSL_CTX_use_certificate(ctx, chain[0]) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, private_key) != 1) {
        log_error("the RDP certificate and its key cannot be used together: %s",
                  tls_error(why, sizeof(why)));
        return ERR_INVALID;
    }
    for (size_t i = 1; i < chain_len; i++)
        if (SSL_CTX_add1_chain_cert(ctx, chain[i]) != 1)
            return ERR_MEMORY;
    if (X509_cmp_current_time(X509_get0_notAfter(chain[0])) < 0)
        log_warn("the RDP certificate has expired");
    return 0;
}

/* ---- contexts ---- */

static SSL_CTX *new_context(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);

    if (!ctx || SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
    /* a ticket makes a socket readable without a byte for us: SSL_read() must say so */
    SSL_CTX_clear_mode(ctx, SSL_MODE_AUTO_RETRY);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_read_ahead(ctx, 1); /* a record's head and body, and the next, in one call */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return ctx;
}

static void rehearse(void)
{
    int fds[2];
    SSL *a, *b;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
        return;
    a = tls_server(fds[0]);
    b = tls_client(fds[1], "");
    for (int i = 0; a && b && i < REHEARSAL; i++)
        if (SSL_do_handshake(b) == 1 && SSL_do_handshake(a) == 1)
            break;
        else
            (void)SSL_do_handshake(a);
    SSL_free(a);
    SSL_free(b);
    ERR_clear_error();
    close(fds[0]);
    close(fds[1]);
}

int tls_prepare_client(void)
{
    char why[128];

    client_ctx = new_context(TLS_client_method());
    if (!client_ctx) {
        log_error("no TLS: %s", tls_error(why, sizeof(why)));
        return ERR_CRYPTO;
    }
    SSL_CTX_set_verify(client_ctx, SSL_VERIFY_NONE, NULL); /* the pinned key decides */
    return 0;
}

int tls_prepare(void)
{
    char why[128];
    int r;

    if ((r = tls_prepare_client()) < 0)
        return r;
    server_ctx = new_context(TLS_server_method());
    if (!server_ctx || SSL_CTX_set_cipher_list(server_ctx, CIPHERS) != 1) {
        log_error("no TLS: %s", tls_error(why, sizeof(why)));
        return ERR_CRYPTO;
    }
    if ((r = use_certificate(server_ctx)) < 0)
        return r;
    SSL_CTX_set_num_tickets(server_ctx, 0);
    /* what clients send is little, and has passwords in it that we wipe: so must the library */
    SSL_CTX_set_options(server_ctx, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_CLEANSE_PLAINTEXT);
    rehearse();
    return 0;
}

static SSL *new_connection(SSL_CTX *ctx, int fd)
{
    SSL *ssl = SSL_new(ctx);

    if (ssl && SSL_set_fd(ssl, fd) == 1)
        return ssl;
    SSL_free(ssl);
    return NULL;
}

SSL *tls_server(int fd)
{
    SSL *ssl = new_connection(server_ctx, fd);

    if (ssl)
        SSL_set_accept_state(ssl);
    return ssl;
}

static bool is_number(const char *host)
{
    uint8_t address[16];

    return network_address(host, address);
}

SSL *tls_client(int fd, const char *host)
{
    SSL *ssl = new_connection(client_ctx, fd);
    char name[256]; /* the library's macro wants one that may be written to; it copies it */

    if (!ssl)
        return NULL;
    SSL_set_connect_state(ssl);
    if (host[0] && !is_number(host) && text_copy(name, sizeof(name), host))
        (void)SSL_set_tlsext_host_name(ssl, name);
    return ssl;
}

size_t tls_peer_key(const SSL *ssl, uint8_t *dst, size_t cap)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    uint8_t *der = NULL;
    int len = cert ? i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der) : 0;
    size_t n = len > 0 && (size_t)len <= cap ? (size_t)len : 0;

    if (n)
        memcpy(dst, der, n);
    OPENSSL_free(der);
    return n;
}

/* ---- a new certificate ---- */

static bool add_extension(X509 *cert, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);
    bool is_ok = e && X509_add_ext(cert, e, -1) == 1;

    X509_EXTENSION_free(e);
    return is_ok;
}

static bool set_serial(X509 *cert)
{
    uint8_t bytes[16];
    BIGNUM *n;
    bool is_ok;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return false;
    bytes[0] &= 0x7f; /* positive */
    n = BN_bin2bn(bytes, sizeof(bytes), NULL);
    is_ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert));
    BN_free(n);
    return is_ok;
}

static bool fill(X509 *cert, EVP_PKEY *key, const char *host)
{
    X509_NAME *name = X509_get_subject_name(cert);
    char alternative[300];

    snprintf(alternative, sizeof(alternative), "%s:%.250s", is_number(host) ? "IP" : "DNS", host);
    return X509_set_version(cert, 2) == 1 && set_serial(cert) &&
           X509_gmtime_adj(X509_getm_notBefore(cert), -86400) &&
           X509_gmtime_adj(X509_getm_notAfter(cert), VALID_DAYS * 86400L) &&
           X509_set_pubkey(cert, key) == 1 &&
           X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)host, -1, -1,
                                      0) == 1 &&
           X509_set_issuer_name(cert, name) == 1 &&
           add_extension(cert, NID_basic_constraints, "critical,CA:FALSE") &&
           add_extension(cert, NID_key_usage, "digitalSignature,keyEncipherment") &&
           add_extension(cert, NID_ext_key_usage, "serverAuth") &&
           add_extension(cert, NID_subject_alt_name, alternative) &&
           X509_sign(cert, key, EVP_sha256()) > 0;
}

int tls_make(const char *host)
{
    EVP_PKEY *key = EVP_RSA_gen(KEY_BITS);
    X509 *cert = X509_new();

    if (!key || !cert || !fill(cert, key, host)) {
        X509_free(cert);
        EVP_PKEY_free(key);
        return ERR_CRYPTO;
    }
    chain[0] = cert;
    chain_len = 1;
    private_key = key;
    return tls_prepare();
}

int rdp_keygen(const char *host)
{
    EVP_PKEY *key = EVP_RSA_gen(KEY_BITS);
    X509 *cert = X509_new();
    int status = 1;

    if (strlen(host) < 1 || strlen(host) > 64 || !text_is_name(host))
        fprintf(stderr, "error: \"%s\" is not a host name\n", host);
    else if (key && cert && fill(cert, key, host) &&
             PEM_write_PrivateKey(stdout, key, NULL, NULL, 0, NULL, NULL) == 1 &&
             PEM_write_X509(stdout, cert) == 1 && fflush(stdout) == 0)
        status = 0;
    else
        fprintf(stderr, "error: the certificate could not be made or written\n");
    X509_free(cert);
    EVP_PKEY_free(key);
    return status;
}
