/*
 * Secrets at rest: AES-256-GCM under a key derived from a master key, one row of `secrets` for each
 * place (table, column, row) that has one. The place and the key's id are authenticated with the
 * secret, so that a row which somebody moves or copies to another target opens nowhere. Called by
 * targets.c inside its transactions; rotation is store_rotate_key().
 */
#include "tracker/store/store_priv.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>

#include <sallyport/text.h>

#define NONCE_LEN 12
#define TAG_LEN   16
#define PLACE_MAX 192

/* A row of the table `secrets`. */
struct sealed {
    uint32_t key_id;
    uint8_t nonce[NONCE_LEN];
    uint8_t tag[TAG_LEN];
    size_t len;
    uint8_t data[SECRET_MAX];
};

struct place {
    char table[32];
    char column[32];
    uint64_t row;
};

/* "table\0column\0row\0keyid". Returns its length. */
static size_t place_bytes(const struct place *at, uint32_t key_id, char out[PLACE_MAX])
{
    int n = snprintf(out, PLACE_MAX, "%s%c%s%c%llu%c%u", at->table, 0, at->column, 0,
                     (unsigned long long)at->row, 0, key_id);

    return (size_t)n; /* two texts below 32, two numbers: always fits */
}

static int seal(const struct master_key *master, const struct place *at, const struct secret *plain,
                struct sealed *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t key[MASTER_KEY_LEN], end[16];
    char aad[PLACE_MAX];
    size_t aad_len = place_bytes(at, master->id, aad);
    int n = 0, last = 0, r = ERR_CRYPTO;

    out->key_id = master->id;
    out->len = plain->len;
    if (ctx && keyring_derive(master, "secrets", key) == 0 &&
        RAND_bytes(out->nonce, NONCE_LEN) == 1 &&
        EVP_EncryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, out->nonce) == 1 &&
        EVP_EncryptUpdate(ctx, NULL, &n, (const uint8_t *)aad, (int)aad_len) == 1 &&
        EVP_EncryptUpdate(ctx, out->data, &n, plain->data, plain->len) == 1 && n == plain->len &&
        EVP_EncryptFinal_ex(ctx, end, &last) == 1 && last == 0 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, TAG_LEN, out->tag) == 1)
        r = 0;
    EVP_CIPHER_CTX_free(ctx);
    memory_wipe(key, sizeof(key));
    return r;
}

static int unseal(const struct master_key *master, const struct place *at, struct sealed *in,
                  struct secret *plain)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    uint8_t key[MASTER_KEY_LEN], end[16];
    char aad[PLACE_MAX];
    size_t aad_len = place_bytes(at, in->key_id, aad);
    int n = 0, last = 0, r = ERR_CRYPTO;

    secret_wipe(plain);
    if (ctx && keyring_derive(master, "secrets", key) == 0 &&
        EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, in->nonce) == 1 &&
        EVP_DecryptUpdate(ctx, NULL, &n, (const uint8_t *)aad, (int)aad_len) == 1 &&
        EVP_DecryptUpdate(ctx, plain->data, &n, in->data, (int)in->len) == 1 &&
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, TAG_LEN, in->tag) == 1 &&
        EVP_DecryptFinal_ex(ctx, end, &last) == 1 && last == 0) {
        plain->len = (uint16_t)in->len;
        plain->data[plain->len] = 0;
        r = 0;
    }
    EVP_CIPHER_CTX_free(ctx);
    memory_wipe(key, sizeof(key));
    if (r) /* what was decrypted before the tag was found wrong */
        memory_wipe(plain, sizeof(*plain));
    return r;
}

/* The first four columns of a SELECT on `secrets`. */
static bool read_sealed(const struct query *q, struct sealed *out)
{
    size_t nonce_len, tag_len;

    out->key_id = (uint32_t)row_int(q, 0);
    return row_bytes(q, 1, out->nonce, NONCE_LEN, &nonce_len) && nonce_len == NONCE_LEN &&
           row_bytes(q, 2, out->data, sizeof(out->data), &out->len) &&
           row_bytes(q, 3, out->tag, TAG_LEN, &tag_len) && tag_len == TAG_LEN;
}

static int put_at(struct store *s, const struct place *at, const struct secret *plain)
{
    struct sealed sealed;
    struct query q;

    if (seal(keyring_newest(&s->keyring), at, plain, &sealed))
        return store_fail(s, ERR_CRYPTO, "the secret could not be encrypted");
    q = query_start(s, SQL_SECRET_PUT);
    query_text(&q, 1, at->table);
    query_text(&q, 2, at->column);
    query_int(&q, 3, (int64_t)at->row);
    query_int(&q, 4, sealed.key_id);
    query_bytes(&q, 5, sealed.nonce, NONCE_LEN);
    query_bytes(&q, 6, sealed.data, sealed.len);
    query_bytes(&q, 7, sealed.tag, TAG_LEN);
    return query_run(&q, NULL);
}

/* Decrypt a row that was read; is_whole: its lengths were right. */
static int open_sealed(struct store *s, const struct place *at, struct sealed *sealed,
                       bool is_whole, struct secret *plain)
{
    const struct master_key *master = keyring_find(&s->keyring, sealed->key_id);

    if (is_whole && !master)
        return store_fail(s, ERR_CRYPTO,
                          "the secret of %s row %llu needs master key %u, which %s does not hold: "
                          "restore that file, or set the secret again",
                          at->table, (unsigned long long)at->row, sealed->key_id, s->keyring.path);
    if (!is_whole || unseal(master, at, sealed, plain))
        return store_fail(s, ERR_CRYPTO,
                          "the secret of %s row %llu does not open: it was changed or moved, or "
                          "%s is not the file it was encrypted with; set the secret again",
                          at->table, (unsigned long long)at->row, s->keyring.path);
    return 0;
}

static struct place place_of(const char *table, const char *column, uint64_t row)
{
    struct place at = {.row = row};

    (void)text_copy(at.table, sizeof(at.table), table);
    (void)text_copy(at.column, sizeof(at.column), column);
    return at;
}

int secret_put(struct store *s, const char *table, const char *column, uint64_t row,
               const struct secret *plain)
{
    struct place at = place_of(table, column, row);

    return put_at(s, &at, plain);
}

int secret_get(struct store *s, const char *table, const char *column, uint64_t row,
               struct secret *plain)
{
    struct place at = place_of(table, column, row);
    struct query q = query_start(s, SQL_SECRET_GET);
    struct sealed sealed;
    bool is_whole;
    int r;

    query_text(&q, 1, at.table);
    query_text(&q, 2, at.column);
    query_int(&q, 3, (int64_t)row);
    r = query_next(&q);
    if (r == 0)
        return store_fail(s, ERR_NOT_FOUND, "there is no secret");
    if (r < 0)
        return r;
    is_whole = read_sealed(&q, &sealed);
    query_end(&q);
    return open_sealed(s, &at, &sealed, is_whole, plain);
}

void secret_get_none(struct store *s, const struct secret *plain)
{
    struct place at = place_of("users", "none", 0);
    struct secret copy = {.len = 0};
    struct sealed sealed;

    if (seal(keyring_newest(&s->keyring), &at, plain, &sealed) == 0)
        (void)open_sealed(s, &at, &sealed, true, &copy);
    secret_wipe(&copy);
}

int secret_remove(struct store *s, const char *table, const char *column, uint64_t row)
{
    struct query q = query_start(s, SQL_SECRET_REMOVE);

    query_text(&q, 1, table);
    query_text(&q, 2, column);
    query_int(&q, 3, (int64_t)row);
    return query_run(&q, NULL);
}

void secret_warn_missing_keys(struct store *s)
{
    struct query q = query_start(s, SQL_SECRET_KEY_IDS);

    while (query_next(&q) == 1) {
        uint32_t id = (uint32_t)row_int(&q, 0);

        if (!keyring_find(&s->keyring, id))
            log_warn("store: master key %u is not in %s: secrets under it cannot be used", id,
                     s->keyring.path);
    }
}

/* ---- rotation ---- */

/* Encrypt one secret that is not under the newest key again. 1: one was done, 0: none is left. */
static int rotate_one(struct store *s)
{
    struct query q = query_start(s, SQL_SECRET_NOT_UNDER);
    struct place at = {.row = 0};
    struct sealed sealed;
    struct secret plain = {.len = 0};
    bool is_whole;
    int r;

    query_int(&q, 1, keyring_newest(&s->keyring)->id);
    r = query_next(&q);
    if (r <= 0)
        return r;
    is_whole = read_sealed(&q, &sealed);
    row_text(&q, 4, at.table, sizeof(at.table));
    row_text(&q, 5, at.column, sizeof(at.column));
    at.row = row_u64(&q, 6);
    query_end(&q);

    r = open_sealed(s, &at, &sealed, is_whole, &plain);
    if (r == 0)
        r = put_at(s, &at, &plain);
    secret_wipe(&plain);
    return r ? r : 1;
}

/* The highest id of a key that some secret is under, in the file or not. */
static int highest_key_id(struct store *s, uint32_t *id)
{
    struct query q = query_start(s, SQL_SECRET_KEY_IDS);
    int r;

    *id = 0;
    while ((r = query_next(&q)) == 1) {
        if (row_u64(&q, 0) <= UINT32_MAX && (uint32_t)row_u64(&q, 0) > *id)
            *id = (uint32_t)row_u64(&q, 0);
    }
    return r;
}

static int rotate_all(struct store *s, uint32_t *count)
{
    char err[sizeof(s->error)];
    uint32_t above;
    int r = highest_key_id(s, &above);

    if (r)
        return r;
    r = keyring_grow(&s->keyring, above, err, sizeof(err));
    if (r)
        return store_fail(s, r, "%s", err);
    while ((r = rotate_one(s)) == 1)
        ++*count;
    if (r == 0) {
        r = keyring_save(&s->keyring, err, sizeof(err));
        if (r)
            (void)store_fail(s, r, "%s", err);
    }
    if (r)
        keyring_shrink(&s->keyring);
    return r;
}

/*
 * The order is what makes a crash harmless: the lock first, all secrets under the new key, then
 * that key in the file for good, and the commit last. Killed anywhere, the file holds every key
 * that a secret in the database is under.
 */
int store_rotate_key(struct store *s, uint32_t *rewritten)
{
    uint32_t count = 0;
    int r = store_begin(s);

    *rewritten = 0;
    if (r)
        return r;
    r = store_finish(s, rotate_all(s, &count));
    if (r)
        return r;
    *rewritten = count;
    log_info("store: master-key=%u secrets=%u", keyring_newest(&s->keyring)->id, count);
    return 0;
}
