/* One-time codes, recovery codes and the picture to scan; see factor.h. */
#include "tracker/factor.h"

#include <liboath/oath.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <qrencode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sallyport/text.h>

#define CODE_BYTES 10 /* 80 bits: a hash of it cannot be guessed backwards */
#define QUIET      2  /* modules around the picture */

/* Small letters and digits that nobody mixes up. */
static const char code_letters[] = "abcdefghijkmnpqrstuvwxyz23456789";

int factor_make_key(struct secret *key)
{
    uint8_t bytes[FACTOR_KEY_LEN];
    int r = RAND_bytes(bytes, sizeof(bytes)) == 1 ? 0 : ERR_CRYPTO;

    if (r == 0 && !secret_set(key, bytes, sizeof(bytes)))
        r = ERR_INVALID;
    memory_wipe(bytes, sizeof(bytes));
    return r;
}

int factor_key_text(const struct secret *key, char text[FACTOR_KEY_TEXT])
{
    char *encoded = NULL;
    size_t len = 0;
    bool fits;

    text[0] = '\0';
    if (oath_base32_encode((const char *)key->data, key->len, &encoded, &len) != OATH_OK)
        return ERR_MEMORY;
    fits = text_copy(text, FACTOR_KEY_TEXT, encoded);
    memory_wipe(encoded, len);
    free(encoded);
    return fits ? 0 : ERR_INVALID;
}

int factor_uri(const struct secret *key, const char *user, const char *node,
               char uri[FACTOR_URI_MAX])
{
    char text[FACTOR_KEY_TEXT];
    int n, r = factor_key_text(key, text);

    if (r)
        return r;
    /* names are made of letters, digits, dot, dash and _: nothing to escape */
    n = snprintf(uri, FACTOR_URI_MAX, "otpauth://totp/Sallyport:%s@%s?secret=%s&issuer=Sallyport",
                 user, node, text);
    memory_wipe(text, sizeof(text));
    return n > 0 && n < FACTOR_URI_MAX ? 0 : ERR_INVALID;
}

/* Is the module light? So is what is around the picture. */
static bool is_light(const QRcode *code, int x, int y)
{
    if (x < 0 || y < 0 || x >= code->width || y >= code->width)
        return y < code->width + QUIET; /* below the margin nothing is drawn */
    return !(code->data[y * code->width + x] & 1);
}

int factor_picture(const char *text, struct buffer *out)
{
    static const char *const blocks[] = {" ", "\u2584", "\u2580", "\u2588"};
    QRcode *code = QRcode_encodeString(text, 0, QR_ECLEVEL_L, QR_MODE_8, 1);

    if (!code)
        return ERR_MEMORY;
    for (int y = -QUIET; y < code->width + QUIET; y += 2) {
        for (int x = -QUIET; x < code->width + QUIET; x++)
            buffer_put_str(
                out, blocks[(is_light(code, x, y) ? 2 : 0) + (is_light(code, x, y + 1) ? 1 : 0)]);
        buffer_put_str(out, "\n");
    }
    QRcode_free(code);
    return out->failed ? ERR_FULL : 0;
}

/* What was typed without the blanks that apps show and people copy; false when it is too long. */
static bool squeeze(const char *typed, char *dst, size_t dst_len)
{
    size_t len = 0;

    for (; *typed; typed++) {
        if (*typed == ' ' || *typed == '\t' || *typed == '\r' || *typed == '\n' || *typed == '-')
            continue;
        if (len + 1 >= dst_len)
            return false;
        dst[len++] = *typed >= 'A' && *typed <= 'Z' ? (char)(*typed - 'A' + 'a') : *typed;
    }
    dst[len] = '\0';
    return true;
}

static bool is_code(const char *text)
{
    return strlen(text) == FACTOR_DIGITS && strspn(text, "0123456789") == FACTOR_DIGITS;
}

bool factor_code_fits(const struct secret *key, const char *code, int64_t now_s, uint64_t *step)
{
    char digits[FACTOR_CODE_TEXT];
    int place = 0;

    return squeeze(code, digits, sizeof(digits)) && is_code(digits) &&
           oath_totp_validate3((const char *)key->data, key->len, (time_t)now_s, FACTOR_STEP_S, 0,
                               FACTOR_WINDOW, &place, step, digits) >= 0;
}

/* ---- recovery codes ---- */

/* Bound to the user: the same code of another one is another hash. */
static int hash_code(const char *user, const char *squeezed, uint8_t hash[STORE_RECOVERY_HASH])
{
    char text[NAME_MAX_LEN + FACTOR_CODE_TEXT + 32];
    unsigned int len = STORE_RECOVERY_HASH;
    int n = snprintf(text, sizeof(text), "sallyport recovery code\n%s\n%s", user, squeezed);
    bool ok = n > 0 && (size_t)n < sizeof(text) &&
              EVP_Digest(text, (size_t)n, hash, &len, EVP_sha256(), NULL) == 1;

    memory_wipe(text, sizeof(text));
    return ok ? 0 : ERR_CRYPTO;
}

static int make_code(char text[FACTOR_CODE_TEXT])
{
    uint8_t bytes[CODE_BYTES * 8 / 5];
    size_t len = 0;

    if (RAND_bytes(bytes, sizeof(bytes)) != 1)
        return ERR_CRYPTO;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        if (i > 0 && i % 4 == 0)
            text[len++] = '-';
        text[len++] = code_letters[bytes[i] % 32];
    }
    text[len] = '\0';
    memory_wipe(bytes, sizeof(bytes));
    return 0;
}

static int make_codes(const char *user, struct factor_codes *codes, struct store_recovery *hashes)
{
    char squeezed[FACTOR_CODE_TEXT];
    int r = 0;

    for (size_t i = 0; r == 0 && i < STORE_RECOVERY_COUNT; i++) {
        r = make_code(codes->text[i]);
        if (r == 0 && squeeze(codes->text[i], squeezed, sizeof(squeezed)))
            r = hash_code(user, squeezed, hashes->hashes[i]);
    }
    memory_wipe(squeezed, sizeof(squeezed));
    return r;
}

int factor_enable(struct store *s, const char *user, const struct secret *key, uint64_t step,
                  struct factor_codes *codes)
{
    struct store_recovery hashes;
    int r = make_codes(user, codes, &hashes);

    return r ? r : store_totp_enable(s, user, key, step, &hashes);
}

int factor_new_codes(struct store *s, const char *user, struct factor_codes *codes)
{
    struct store_recovery hashes;
    int r = make_codes(user, codes, &hashes);

    return r ? r : store_recovery_set(s, user, &hashes);
}

/* ---- checking ---- */

static enum factor_answer check_code(struct store *s, const char *user, const char *digits,
                                     int64_t now_s)
{
    struct secret key = {.len = 0};
    enum factor_answer answer = FACTOR_WRONG;
    uint64_t step;
    int r = store_totp_key(s, user, &key);

    if (r) {
        answer = FACTOR_FAILED;
    } else if (factor_code_fits(&key, digits, now_s, &step)) {
        r = store_totp_use(s, user, step);
        answer = r == 0 ? FACTOR_CODE : r == ERR_EXISTS ? FACTOR_REPLAYED : FACTOR_FAILED;
    }
    secret_wipe(&key);
    return answer;
}

enum factor_answer factor_check(struct store *s, const char *user, const char *typed, int64_t now_s)
{
    char text[FACTOR_CODE_TEXT];
    uint8_t hash[STORE_RECOVERY_HASH];
    int r;

    if (!squeeze(typed, text, sizeof(text)) || !text[0])
        return FACTOR_WRONG;
    if (is_code(text))
        return check_code(s, user, text, now_s);
    if (hash_code(user, text, hash) < 0)
        return FACTOR_FAILED;
    memory_wipe(text, sizeof(text));
    r = store_recovery_use(s, user, hash);
    return r == 0 ? FACTOR_RECOVERY : r == ERR_NOT_FOUND ? FACTOR_WRONG : FACTOR_FAILED;
}
