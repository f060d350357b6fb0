/* Password hashing in worker threads; see hasher.h. */
#include "proxy/broker/hasher.h"

#include <crypt.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#include "proxy/broker/workers.h"

#define HASH_PREFIX "$y$" /* yescrypt */
#define HASH_COST   7     /* $y$jBT$: some 80 ms here; hashes of other costs verify all the same */

struct hash_job {
    struct job job;
    struct crypt_data *crypt;
    char hash[CRYPT_OUTPUT_SIZE];
    char password[1025];
    bool is_right;
    hasher_check_fn checked;
    hasher_make_fn made;
    void *arg;
};

static char dummy_hash[CRYPT_OUTPUT_SIZE];

static void make_hash(struct crypt_data *data, const char *password, char out[CRYPT_OUTPUT_SIZE])
{
    char setting[CRYPT_GENSALT_OUTPUT_SIZE];
    const char *hash = NULL;

    out[0] = '\0';
    if (crypt_gensalt_rn(HASH_PREFIX, HASH_COST, NULL, 0, setting, sizeof(setting)))
        hash = crypt_r(password, setting, data);
    if (hash && hash[0] != '*')
        text_copy(out, CRYPT_OUTPUT_SIZE, hash);
}

int hasher_init(void)
{
    struct crypt_data *data = calloc(1, sizeof(*data));

    if (!data)
        return ERR_MEMORY;
    make_hash(data, "nobody has this password", dummy_hash);
    free(data);
    return dummy_hash[0] ? 0 : ERR_CRYPTO;
}

static void run_check(struct job *job)
{
    struct hash_job *j = (struct hash_job *)job;
    bool is_known = j->hash[0] != '\0';
    const char *against = is_known ? j->hash : dummy_hash;
    const char *got = crypt_r(j->password, against, j->crypt);

    j->is_right = got && got[0] != '*' && strlen(got) == strlen(against) &&
                  CRYPTO_memcmp(got, against, strlen(against)) == 0 && is_known;
}

static void run_make(struct job *job)
{
    struct hash_job *j = (struct hash_job *)job;

    make_hash(j->crypt, j->password, j->hash);
}

static void job_free(struct hash_job *j)
{
    if (!j)
        return;
    if (j->crypt) {
        memory_wipe(j->crypt, sizeof(*j->crypt));
        free(j->crypt);
    }
    memory_wipe(j, sizeof(*j));
    free(j);
}

static void job_done(struct job *job)
{
    struct hash_job *j = (struct hash_job *)job;

    if (j->checked)
        j->checked(j->is_right, j->arg);
    if (j->made)
        j->made(j->hash, j->arg);
    job_free(j);
}

static struct hash_job *job_new(const void *password, size_t len)
{
    struct hash_job *j = calloc(1, sizeof(*j));

    if (!j)
        return NULL;
    j->crypt = calloc(1, sizeof(*j->crypt));
    /* A NUL inside would cut the password: such a one is never right. */
    if (!j->crypt || len >= sizeof(j->password) || memchr(password, '\0', len)) {
        job_free(j);
        return NULL;
    }
    memcpy(j->password, password, len);
    j->job.done = job_done;
    return j;
}

static int submit(struct workers *w, struct hash_job *j)
{
    int r = workers_submit(w, &j->job);

    if (r < 0)
        job_free(j);
    return r;
}

int hasher_check(struct workers *w, const char *hash, const void *password, size_t len,
                 uint64_t lane, hasher_check_fn done, void *arg)
{
    struct hash_job *j = job_new(password, len);

    if (!j)
        return ERR_INVALID;
    text_copy(j->hash, sizeof(j->hash), hash);
    j->job.run = run_check;
    j->job.lane = lane;
    j->checked = done;
    j->arg = arg;
    return submit(w, j);
}

int hasher_make(struct workers *w, const struct secret *password, hasher_make_fn done, void *arg)
{
    struct hash_job *j = job_new(password->data, password->len);

    if (!j)
        return ERR_INVALID;
    j->job.run = run_make;
    j->job.lane = 1;
    j->made = done;
    j->arg = arg;
    return submit(w, j);
}
