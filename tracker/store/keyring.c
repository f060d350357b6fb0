/*
 * The master keys: one file of ours with a line `ID:BASE64` a key, newest last. Reads, makes and
 * extends it; never shows a key. What is encrypted with them is in secrets.c. A key is never taken
 * out of the file: a backup of the database may still need it.
 */
#include "tracker/store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sallyport/cursor.h>
#include <sallyport/text.h>

#define KEY_FILE_MAX   16384
#define KEY_BASE64_LEN 44 /* of 32 bytes, with one '=' */
#define KEY_LINE_MAX   (10 + 1 + KEY_BASE64_LEN + 1)

_Static_assert(KEY_FILE_MAX >= MASTER_KEYS_MAX * KEY_LINE_MAX, "a full key ring fits its file");

const struct master_key *keyring_find(const struct keyring *ring, uint32_t id)
{
    for (size_t i = 0; i < ring->count; i++) {
        if (ring->keys[i].id == id)
            return &ring->keys[i];
    }
    return NULL;
}

const struct master_key *keyring_newest(const struct keyring *ring)
{
    return ring->count ? &ring->keys[ring->count - 1] : NULL;
}

void keyring_wipe(struct keyring *ring)
{
    memory_wipe(ring->keys, sizeof(ring->keys));
    ring->count = 0;
}

int keyring_derive(const struct master_key *master, const char *purpose,
                   uint8_t key[MASTER_KEY_LEN])
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    struct master_key copy = *master; /* OSSL_PARAM wants memory that is not const */
    char digest[] = "SHA256";
    char info[128] = "";
    OSSL_PARAM params[4];
    int n = snprintf(info, sizeof(info), "sallyport/%s", purpose);
    int r = ERR_CRYPTO;

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0);
    params[1] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, copy.key, sizeof(copy.key));
    params[2] = OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, (size_t)n);
    params[3] = OSSL_PARAM_construct_end();
    /* Two purposes that are cut to the same text would share a key. */
    if (n > 0 && n < (int)sizeof(info) && ctx &&
        EVP_KDF_derive(ctx, key, MASTER_KEY_LEN, params) == 1)
        r = 0;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    memory_wipe(&copy, sizeof(copy));
    return r;
}

/* ---- reading ---- */

/* One line without its newline. False when it is no key, or its id is there already. */
static bool parse_line(struct keyring *ring, struct cursor line)
{
    uint8_t bytes[KEY_BASE64_LEN / 4 * 3];
    const uint8_t *base64;
    struct master_key *slot;
    uint64_t id = 0;
    uint8_t c = 0;
    bool is_good;

    while (cursor_u8(&line, &c) && c >= '0' && c <= '9' && id <= UINT32_MAX)
        id = id * 10 + (uint64_t)(c - '0');
    if (c != ':' || id == 0 || id > UINT32_MAX || ring->count == MASTER_KEYS_MAX ||
        keyring_find(ring, (uint32_t)id) || cursor_left(&line) != KEY_BASE64_LEN ||
        !cursor_take(&line, KEY_BASE64_LEN, &base64) || base64[KEY_BASE64_LEN - 1] != '=' ||
        base64[KEY_BASE64_LEN - 2] == '=')
        return false;
    is_good = EVP_DecodeBlock(bytes, base64, KEY_BASE64_LEN) == (int)sizeof(bytes);
    if (is_good) {
        slot = &ring->keys[ring->count++];
        slot->id = (uint32_t)id;
        memcpy(slot->key, bytes, sizeof(slot->key));
    }
    memory_wipe(bytes, sizeof(bytes));
    return is_good;
}

static int parse_file(struct keyring *ring, struct cursor all, char *err, size_t err_len)
{
    unsigned line_number = 0;
    struct cursor line;

    while (!cursor_at_end(&all)) {
        const uint8_t *newline = memchr(all.at, '\n', cursor_left(&all));
        size_t len = newline ? (size_t)(newline - all.at) : cursor_left(&all);

        line_number++;
        if (!cursor_sub(&all, len, &line))
            break;
        if (newline)
            all.at++;
        if (len == 0 || *line.at == '#')
            continue;
        if (!parse_line(ring, line)) {
            (void)snprintf(err, err_len,
                           "%s:%u: not a key: expected ID:BASE64 with 32 bytes, each ID once, at "
                           "most %d keys; restore the file from a backup",
                           ring->path, line_number, MASTER_KEYS_MAX);
            return ERR_INVALID;
        }
    }
    if (ring->count > 0)
        return 0;
    (void)snprintf(err, err_len, "%s holds no key; restore it from a backup", ring->path);
    return ERR_INVALID;
}

/* Only root or we ourselves may own the file, and nobody else may read it. */
static int check_file(const struct keyring *ring, const struct stat *st, char *err, size_t err_len)
{
    if (!S_ISREG(st->st_mode))
        (void)snprintf(err, err_len, "%s is not a file", ring->path);
    else if (st->st_mode & 077)
        (void)snprintf(err, err_len,
                       "%s can be read by others (mode %04o): run `chmod 600 %s`, and rotate the "
                       "key if somebody may have read it",
                       ring->path, (unsigned)(st->st_mode & 07777), ring->path);
    else if (st->st_uid != 0 && st->st_uid != geteuid())
        (void)snprintf(err, err_len, "%s belongs to uid %u: it must belong to root or to uid %u",
                       ring->path, (unsigned)st->st_uid, (unsigned)geteuid());
    else if (st->st_size > KEY_FILE_MAX)
        (void)snprintf(err, err_len, "%s is too large to be a key file", ring->path);
    else
        return 0;
    return ERR_DENIED;
}

static int read_file(struct keyring *ring, int fd, char *err, size_t err_len)
{
    uint8_t data[KEY_FILE_MAX];
    size_t len = 0;
    struct stat st;
    ssize_t n = 1;
    int r;

    if (fstat(fd, &st) != 0) {
        (void)snprintf(err, err_len, "%s cannot be read: %s", ring->path, strerror(errno));
        return ERR_SYSTEM;
    }
    r = check_file(ring, &st, err, err_len);
    if (r)
        return r;
    while (len < sizeof(data) && (n = read(fd, data + len, sizeof(data) - len)) > 0)
        len += (size_t)n;
    if (n < 0) {
        (void)snprintf(err, err_len, "%s cannot be read: %s", ring->path, strerror(errno));
        r = ERR_SYSTEM;
    } else {
        r = parse_file(ring, cursor_of(data, len), err, err_len);
    }
    memory_wipe(data, sizeof(data));
    return r;
}

/* ---- writing ---- */

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return ERR_SYSTEM;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int write_temp(const char *temp, const struct buffer *text)
{
    int fd, r;

    (void)unlink(temp); /* of a write that was killed */
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return ERR_SYSTEM;
    r = write_all(fd, text->data, text->len);
    if (r == 0 && fsync(fd) != 0)
        r = ERR_SYSTEM;
    if (close(fd) != 0)
        r = ERR_SYSTEM;
    return r;
}

/* Replace the file by the ring's keys: a reader, or a crash, sees the old one or the new one. */
int keyring_save(const struct keyring *ring, char *err, size_t err_len)
{
    char base64[KEY_BASE64_LEN + 1];
    char temp[PATH_MAX + 8];
    struct buffer text;
    int r;

    buffer_init_secret(&text, KEY_FILE_MAX);
    for (size_t i = 0; i < ring->count; i++) {
        (void)EVP_EncodeBlock((unsigned char *)base64, ring->keys[i].key, MASTER_KEY_LEN);
        buffer_printf(&text, "%u:%s\n", ring->keys[i].id, base64);
    }
    memory_wipe(base64, sizeof(base64));
    (void)snprintf(temp, sizeof(temp), "%s.new", ring->path);
    r = text.failed ? ERR_MEMORY : write_temp(temp, &text);
    if (r == 0 && (rename(temp, ring->path) != 0 || file_sync_dir(ring->path) != 0))
        r = ERR_SYSTEM;
    if (r) {
        const char *why = r == ERR_MEMORY ? error_text(r) : strerror(errno);
        const struct passwd *self = getpwuid(geteuid());

        (void)snprintf(err, err_len,
                       "the key file %s cannot be written: %s; its folder must be writable for "
                       "the user %s",
                       ring->path, why, self ? self->pw_name : "of this daemon");
        (void)unlink(temp);
    }
    buffer_finish(&text);
    return r;
}

int keyring_grow(struct keyring *ring, uint32_t above, char *err, size_t err_len)
{
    struct master_key *slot;
    uint32_t id = above;

    for (size_t i = 0; i < ring->count; i++)
        id = ring->keys[i].id > id ? ring->keys[i].id : id;
    if (ring->count == MASTER_KEYS_MAX || id == UINT32_MAX) {
        (void)snprintf(err, err_len,
                       "%s is full (%d keys): remove the oldest lines, which only old backups need",
                       ring->path, MASTER_KEYS_MAX);
        return ERR_FULL;
    }
    slot = &ring->keys[ring->count];
    slot->id = id + 1;
    if (RAND_bytes(slot->key, MASTER_KEY_LEN) != 1) {
        (void)snprintf(err, err_len, "no random bytes for a new key");
        return ERR_CRYPTO;
    }
    ring->count++;
    return 0;
}

void keyring_shrink(struct keyring *ring)
{
    memory_wipe(&ring->keys[--ring->count], sizeof(ring->keys[0]));
}

int keyring_open(struct keyring *ring, const char *path, bool may_create, char *err, size_t err_len)
{
    int fd, r;

    memset(ring, 0, sizeof(*ring));
    if (!text_copy(ring->path, sizeof(ring->path), path)) {
        (void)snprintf(err, err_len, "the path of the key file is too long");
        return ERR_INVALID;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT && may_create) {
        r = keyring_grow(ring, 0, err, err_len);
        if (r == 0)
            r = keyring_save(ring, err, err_len);
        if (r)
            keyring_wipe(ring);
        return r;
    }
    if (fd < 0) {
        if (errno == ENOENT)
            (void)snprintf(err, err_len,
                           "the key file %s is missing, and the database holds secrets that only "
                           "its keys can open: restore it from a backup, or set store_key",
                           path);
        else
            (void)snprintf(err, err_len, "the key file %s cannot be read: %s", path,
                           strerror(errno));
        return ERR_SYSTEM;
    }
    r = read_file(ring, fd, err, err_len);
    (void)close(fd);
    if (r)
        keyring_wipe(ring);
    return r;
}
