/*
 * The reader of recordings: walks the segments of a file from the front, checks hash and chain as
 * it goes, and gives out events with their exact bytes. A file that was cut plays up to the cut; a
 * damaged segment is left out, said so with a notice, and reading goes on behind it. Whatever the
 * file holds, memory stays below some 8 MiB. Used offline by the command line, never by the relay.
 */
#include "tracker/recording/recording_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <zstd.h>

#include <sallyport/text.h>

#include "tracker/recording/desktop.h"

#define READ_CHUNK (64 * 1024)
#define NOTICE_MAX 160

struct recording_reader {
    int fd;
    uint64_t left; /* bytes of the file that may still be read */
    bool at_eof;

    uint8_t *in; /* what was read and not used yet: [in_at, in_len) */
    size_t in_at, in_len, in_cap;

    char *header;
    struct container_head head;
    ZSTD_DCtx *dctx;

    /* the segment being played */
    uint8_t *plain;
    size_t plain_at, plain_len, plain_cap;
    struct cursor side;
    uint32_t event;
    uint8_t *data; /* of the event handed out */
    size_t data_cap;
    char notice[NOTICE_MAX];
    bool has_notice;
    char author[RECORDING_AUTHOR_MAX + 1]; /* of the event handed out */

    /* what is known so far */
    uint64_t sequence; /* of the last segment */
    uint64_t offset;   /* of the next one, in the file */
    uint8_t chain[RECORDING_CHAIN_LEN];
    int64_t last_ms;
    uint64_t last_us;  /* of a desktop's last record */
    uint64_t bytes[2]; /* output, stderr; of a desktop: of its TARGET records, none */

    bool is_lost; /* after damage: number, place and chain of the next are taken as they are */
    bool is_done;
    size_t cut_bytes; /* of an incomplete segment at the end */
    enum recording_end end_kind;
    uint64_t damaged_frame;
    char damage[NOTICE_MAX];
    bool has_end;
    struct container_end end;
};

static void set_err(char *err, size_t err_len, const char *text)
{
    if (err_len > 0)
        snprintf(err, err_len, "%s", text);
}

/* Grow *data to at least `need` bytes; the content is kept. */
static bool reserve(uint8_t **data, size_t *cap, size_t need)
{
    size_t cap_new = *cap ? *cap : 4096;
    uint8_t *grown;

    if (need <= *cap)
        return true;
    while (cap_new < need)
        cap_new *= 2;
    grown = realloc(*data, cap_new);
    if (!grown)
        return false;
    *data = grown;
    *cap = cap_new;
    return true;
}

/* Read some more behind what is there. 1: something came, 0: end of file, negative: error. */
static int read_more(struct recording_reader *r)
{
    ssize_t n;

    if (r->at_eof)
        return 0;
    if (r->in_at > 0)
        memmove(r->in, r->in + r->in_at, r->in_len - r->in_at);
    r->in_len -= r->in_at;
    r->in_at = 0;
    if (!reserve(&r->in, &r->in_cap, r->in_len + READ_CHUNK))
        return ERR_MEMORY;
    do
        n = read(r->fd, r->in + r->in_len, r->left < READ_CHUNK ? (size_t)r->left : READ_CHUNK);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return ERR_SYSTEM;
    r->left -= (uint64_t)n;
    r->in_len += (size_t)n;
    r->at_eof = n == 0;
    return n > 0;
}

static struct cursor unread(const struct recording_reader *r)
{
    return cursor_of(r->in + r->in_at, r->in_len - r->in_at);
}

static void consume(struct recording_reader *r, const struct cursor *to)
{
    size_t at = (size_t)(to->at - r->in);

    r->offset += at - r->in_at;
    r->in_at = at;
}

/* Remember the first damage, and have each said where it is. Until the next good segment number,
 * place and chain are not known. */
static void set_damage(struct recording_reader *r, uint64_t frame, const char *what)
{
    snprintf(r->notice, sizeof(r->notice), "[recording: frame %" PRIu64 " is damaged: %s]", frame,
             what);
    r->has_notice = true;
    r->is_lost = true;
    if (r->end_kind == RECORDING_DAMAGED)
        return;
    r->end_kind = RECORDING_DAMAGED;
    r->damaged_frame = frame;
    snprintf(r->damage, sizeof(r->damage), "%s", what);
}

static bool sha256(const void *data, size_t len, uint8_t out[RECORDING_CHAIN_LEN])
{
    return EVP_Digest(data, len, out, NULL, EVP_sha256(), NULL) == 1;
}

static bool chain_fits(const struct recording_reader *r, const struct container_trailer *t)
{
    uint8_t chained[2 * RECORDING_CHAIN_LEN], hash[RECORDING_CHAIN_LEN];

    memcpy(chained, r->chain, sizeof(r->chain));
    memcpy(chained + sizeof(r->chain), t->hash, sizeof(t->hash));
    return sha256(chained, sizeof(chained), hash) && memcmp(hash, t->chain, sizeof(hash)) == 0;
}

/* Hash, number, place and chain of a segment. False: it must not be played. */
static bool is_segment_good(struct recording_reader *r, const struct container_segment *s)
{
    const struct container_trailer *t = &s->trailer;
    uint8_t hash[RECORDING_CHAIN_LEN];
    bool was_lost = r->is_lost;

    if (!sha256(s->start, s->hashed_len, hash) || memcmp(hash, t->hash, sizeof(hash)) != 0) {
        set_damage(r, ++r->sequence, "its hash does not match");
        return false;
    }
    if (r->has_end) {
        set_damage(r, ++r->sequence, "it stands behind the end record");
        return false;
    }
    r->is_lost = false;
    if (s->head.at && t->sequence == 1 && !sha256(s->head.at, cursor_left(&s->head), r->chain))
        memset(r->chain, 0, sizeof(r->chain));
    /* What stands behind a gap is told as such, but it is good. */
    if (!was_lost && (t->sequence != r->sequence + 1 || t->offset != r->offset))
        set_damage(r, r->sequence + 1, "it is missing or not in its place");
    else if (!was_lost && !chain_fits(r, t))
        set_damage(r, t->sequence, "the chain of hashes is broken before it");
    r->is_lost = false;
    r->sequence = t->sequence;
    r->offset = t->offset; /* where it was, whatever is missing before it */
    memcpy(r->chain, t->chain, sizeof(r->chain));
    return true;
}

/* Decode the text of the segment's frame. */
static const char *segment_decode(struct recording_reader *r, const struct container_segment *s)
{
    size_t len = cursor_left(&s->frame), n;
    unsigned long long size;

    r->plain_at = r->plain_len = 0;
    if (len == 0)
        return s->trailer.plain_len ? "its text is missing" : NULL;
    size = ZSTD_getFrameContentSize(s->frame.at, len);
    if (size > CONTAINER_PLAIN_MAX || size != s->trailer.plain_len)
        return "its length is wrong";
    if (!r->dctx)
        r->dctx = ZSTD_createDCtx();
    if (!r->dctx || !reserve(&r->plain, &r->plain_cap, (size_t)size + 1))
        return "there is not enough memory for it";
    n = ZSTD_decompressDCtx(r->dctx, r->plain, (size_t)size, s->frame.at, len);
    if (ZSTD_isError(n) || n != size)
        return "it does not decompress";
    r->plain_len = n;
    return NULL;
}

/* The first record of a desktop: its facts stand for the header line. */
static const char *take_facts(struct recording_reader *r)
{
    struct cursor plain = cursor_of(r->plain, r->plain_len);
    struct desktop_record facts;
    size_t len;

    if (desktop_next(&plain, &facts) != PARSE_OK || facts.type != DESKTOP_FACTS)
        return "it does not begin with its facts";
    len = cursor_left(&facts.body);
    if (len < 2 || facts.body.at[0] != '{' || facts.body.at[len - 1] != '}' ||
        memchr(facts.body.at, 0, len))
        return "its facts are malformed";
    r->header = strndup((const char *)facts.body.at, len);
    return r->header ? NULL : "there is not enough memory for it";
}

/* The first segment: head, and the header line of its text. */
static const char *take_head(struct recording_reader *r, const struct container_segment *s)
{
    const uint8_t *nl = r->plain_len ? memchr(r->plain, '\n', r->plain_len) : NULL;
    size_t len = nl ? (size_t)(nl - r->plain) : 0;

    if (container_head(s->head, &r->head) != PARSE_OK)
        return "its head is malformed";
    if (recording_reader_is_desktop(r))
        return take_facts(r);
    if (len < 2 || r->plain[0] != '{' || nl[-1] != '}' || memchr(r->plain, 0, len))
        return "it has no header line";
    r->header = strndup((const char *)r->plain, len);
    r->plain_at = len + 1;
    return r->header ? NULL : "there is not enough memory for it";
}

/* Make the segment that was just framed the one that plays. */
static void segment_begin(struct recording_reader *r, const struct container_segment *s)
{
    const char *wrong = NULL;

    r->plain_at = r->plain_len = 0;
    r->event = 0;
    r->side = s->side;
    if (!is_segment_good(r, s))
        return;
    if (!r->header && !s->head.at)
        wrong = "it has no head";
    if (!wrong)
        wrong = segment_decode(r, s);
    if (!wrong && s->head.at)
        wrong = r->header ? "it is not the first but has a head" : take_head(r, s);
    if (!wrong && s->end.at) {
        r->has_end = container_end(s->end, &r->end) == PARSE_OK;
        wrong = r->has_end ? NULL : "its end record is malformed";
    }
    if (wrong) {
        set_damage(r, r->sequence, wrong);
        r->plain_len = 0;
    }
}

/* Skip to behind the next trailer. False: there is none. */
static int resync(struct recording_reader *r)
{
    struct container_trailer t;

    for (;;) {
        struct cursor c = unread(r);
        bool found = container_find_trailer(&c, &t);
        int n;

        consume(r, &c);
        if (found)
            return 1;
        n = read_more(r);
        if (n <= 0) {
            r->in_at = r->in_len;
            return n;
        }
    }
}

/* What is left is no whole segment. Cut, or damaged with more behind it? */
static int segment_broken(struct recording_reader *r, bool is_cut)
{
    struct cursor c = unread(r);
    struct container_trailer t;

    if (is_cut && !container_find_trailer(&c, &t)) {
        r->cut_bytes = r->in_len - r->in_at;
        r->in_at = r->in_len;
        return 0;
    }
    set_damage(r, ++r->sequence, "it is malformed");
    return resync(r);
}

/* 1: a segment plays (or was left out), 0: the end of the file, negative: error. */
static int segment_next(struct recording_reader *r)
{
    for (;;) {
        struct cursor c = unread(r);
        struct container_segment s;
        enum parse p = cursor_at_end(&c) ? PARSE_MORE : container_segment(&c, &s);
        int n;

        if (p == PARSE_OK) {
            segment_begin(r, &s);
            consume(r, &c);
            return 1;
        }
        if (p == PARSE_BAD || r->in_len - r->in_at > CONTAINER_SEGMENT_MAX)
            return segment_broken(r, false);
        n = read_more(r);
        if (n < 0)
            return n;
        if (n == 0)
            return r->in_at == r->in_len ? 0 : segment_broken(r, true);
    }
}

/* ---- events ---- */

static const struct {
    char code;
    enum recording_event_kind kind;
} codes[] = {
    {'o', RECORDING_EVENT_OUTPUT},
    {'i', RECORDING_EVENT_INPUT},
    {'r', RECORDING_EVENT_RESIZE},
    {'m', RECORDING_EVENT_NOTICE},
};

static void count_output(struct recording_reader *r, const struct recording_event *e)
{
    if (e->kind == RECORDING_EVENT_OUTPUT || e->kind == RECORDING_EVENT_STDERR)
        r->bytes[e->kind == RECORDING_EVENT_STDERR] += e->len;
}

static void take_author(struct recording_reader *r, struct cursor name)
{
    size_t len = cursor_left(&name);

    len = len < RECORDING_AUTHOR_MAX ? len : RECORDING_AUTHOR_MAX;
    memcpy(r->author, name.at, len);
    r->author[len] = '\0';
}

/* Put the side records of the current event into it. */
static bool apply_side(struct recording_reader *r, struct recording_event *e)
{
    for (;;) {
        struct cursor next = r->side, body;
        uint8_t type;
        uint32_t event;

        if (cursor_at_end(&next))
            return true;
        if (!container_side_record(&next, &type, &event, &body) || event < r->event)
            return false;
        if (event > r->event)
            return true;
        r->side = next;
        if (type == SIDE_EXACT && !container_side_apply(body, r->data, &e->len))
            return false;
        if (type == SIDE_STDERR && e->kind == RECORDING_EVENT_OUTPUT)
            e->kind = RECORDING_EVENT_STDERR;
        if (type == SIDE_AUTHOR && e->kind == RECORDING_EVENT_INPUT)
            take_author(r, body);
    }
}

/* 1: an event, 0: a line that is skipped, negative: malformed. */
static int take_event(struct recording_reader *r, struct cursor line, struct recording_event *e)
{
    struct cast_event parsed;
    size_t i = 0;

    if (cursor_left(&line) > CAST_LINE_MAX ||
        !reserve(&r->data, &r->data_cap, cursor_left(&line)) ||
        !cast_parse_event(line, &parsed, r->data, r->data_cap))
        return ERR_CORRUPT;
    while (i < sizeof(codes) / sizeof(codes[0]) && codes[i].code != parsed.code)
        i++;
    if (parsed.ms > r->last_ms)
        r->last_ms = parsed.ms;
    *e = (struct recording_event){
        .at_s = (double)r->last_ms / 1000.0,
        .data = r->data,
        .len = parsed.len,
        .author = r->author,
    };
    r->author[0] = '\0';
    if (i < sizeof(codes) / sizeof(codes[0]))
        e->kind = codes[i].kind;
    if (!apply_side(r, e))
        return ERR_CORRUPT;
    r->event++;
    if (i == sizeof(codes) / sizeof(codes[0]))
        return 0;
    if (e->kind == RECORDING_EVENT_RESIZE)
        return cast_parse_size(e->data, e->len, &e->cols, &e->rows) ? 1 : ERR_CORRUPT;
    return 1;
}

/* The next line of the segment that plays: 1 an event, 0 none. */
static int line_next(struct recording_reader *r, struct recording_event *e)
{
    while (r->plain_at < r->plain_len) {
        const uint8_t *at = r->plain + r->plain_at;
        const uint8_t *nl = memchr(at, '\n', r->plain_len - r->plain_at);
        size_t len = nl ? (size_t)(nl - at) : r->plain_len - r->plain_at;
        int n = nl ? take_event(r, cursor_of(at, len), e) : ERR_CORRUPT;

        r->plain_at += len + 1;
        if (n > 0) {
            count_output(r, e);
            return 1;
        }
        if (n < 0) {
            set_damage(r, r->sequence, "an event in it is malformed");
            r->plain_at = r->plain_len;
        }
    }
    return 0;
}

/* The whole was played: do the totals agree? */
static void check_end(struct recording_reader *r)
{
    if (r->is_done)
        return;
    r->is_done = true;
    if (r->end_kind == RECORDING_DAMAGED || !r->has_end)
        return;
    if (r->bytes[0] != r->end.output_bytes || r->bytes[1] != r->end.stderr_bytes)
        set_damage(r, r->sequence, "the totals of the end record do not match");
    else if (r->cut_bytes > 0)
        set_damage(r, r->sequence + 1, "there is something behind the end record");
    else
        r->end_kind = RECORDING_COMPLETE;
    r->has_notice = false;
}

/* On to the next segment: 1 something may be there, 0 that was all, negative: error. */
static int advance(struct recording_reader *r)
{
    int n = segment_next(r);

    if (n == 0 && !r->has_notice) {
        check_end(r);
        return 0;
    }
    return n < 0 ? n : 1;
}

static int next_line(struct recording_reader *r, struct recording_event *e)
{
    for (;;) {
        int n;

        if (r->has_notice) {
            r->has_notice = false;
            *e = (struct recording_event){
                .at_s = (double)r->last_ms / 1000.0,
                .kind = RECORDING_EVENT_NOTICE,
                .data = (const uint8_t *)r->notice,
                .len = strlen(r->notice),
                .author = "",
            };
            return 1;
        }
        if (line_next(r, e))
            return 1;
        if (r->has_notice)
            continue;
        n = advance(r);
        if (n <= 0)
            return n;
    }
}

/* ---- records of a desktop ---- */

bool recording_reader_is_desktop(const struct recording_reader *r)
{
    return r->head.flags & CONTAINER_DESKTOP;
}

/* The next record of the segment that plays: 1 a record, 0 none. */
static int record_next(struct recording_reader *r, struct desktop_record *out)
{
    struct cursor c = cursor_of(r->plain + r->plain_at, r->plain_len - r->plain_at);

    if (r->plain_at >= r->plain_len)
        return 0;
    if (desktop_next(&c, out) != PARSE_OK) {
        set_damage(r, r->sequence, "a record in it is malformed");
        r->plain_at = r->plain_len;
        return 0;
    }
    r->plain_at = (size_t)(c.at - r->plain);
    if (out->at_us < r->last_us)
        out->at_us = r->last_us;
    r->last_us = out->at_us;
    r->last_ms = (int64_t)(out->at_us / 1000);
    if (out->type == DESKTOP_TARGET)
        r->bytes[0] += cursor_left(&out->body);
    return 1;
}

int recording_reader_next_record(struct recording_reader *r, struct desktop_record *out)
{
    for (;;) {
        int n;

        if (r->has_notice) {
            r->has_notice = false;
            *out = (struct desktop_record){
                .type = DESKTOP_NOTICE,
                .flags = DESKTOP_DAMAGED,
                .at_us = r->last_us,
                .body = cursor_of(r->notice, strlen(r->notice)),
            };
            return 1;
        }
        if (record_next(r, out))
            return 1;
        if (r->has_notice)
            continue;
        n = advance(r);
        if (n <= 0)
            return n;
    }
}

static int next_notice(struct recording_reader *r, struct recording_event *e)
{
    struct desktop_record record;
    int n;

    do
        n = recording_reader_next_record(r, &record);
    while (n > 0 && record.type != DESKTOP_NOTICE);
    if (n > 0)
        *e = (struct recording_event){
            .at_s = (double)record.at_us / 1e6,
            .kind = RECORDING_EVENT_NOTICE,
            .data = record.body.at,
            .len = cursor_left(&record.body),
            .author = "",
        };
    return n;
}

int recording_reader_next(struct recording_reader *r, struct recording_event *e)
{
    return recording_reader_is_desktop(r) ? next_notice(r, e) : next_line(r, e);
}

enum recording_end recording_reader_end(const struct recording_reader *r, uint64_t *frame,
                                        char *text, size_t text_len)
{
    double at_s = (double)r->last_ms / 1000.0;

    *frame = r->end_kind == RECORDING_DAMAGED ? r->damaged_frame : r->sequence;
    if (text_len == 0)
        return r->end_kind;
    if (r->end_kind == RECORDING_DAMAGED)
        snprintf(text, text_len, "frame %" PRIu64 " is damaged: %s", r->damaged_frame, r->damage);
    else if (r->end_kind == RECORDING_CUT)
        snprintf(text, text_len, "cut at %.3f s: %s", at_s,
                 r->cut_bytes ? "the last frame is incomplete" : "there is no end record");
    else {
        char reason[256];

        text_escape(reason, sizeof(reason), r->end.reason, strlen(r->end.reason));
        snprintf(text, text_len, "complete, %.3f s, ended: %s", (double)r->end.duration_ms / 1000.0,
                 reason);
    }
    return r->end_kind;
}

const uint8_t *recording_reader_chain(const struct recording_reader *r)
{
    return r->chain;
}

/* ---- opening ---- */

const char *recording_reader_header(const struct recording_reader *r)
{
    return r->header;
}

static uint16_t clamp_size(uint16_t v)
{
    return v < 1 ? 1 : v > 1000 ? 1000 : v;
}

void recording_reader_size(const struct recording_reader *r, uint16_t *cols, uint16_t *rows)
{
    *cols = recording_reader_is_desktop(r) ? r->head.cols : clamp_size(r->head.cols);
    *rows = recording_reader_is_desktop(r) ? r->head.rows : clamp_size(r->head.rows);
}

uint64_t recording_reader_duration_ms(const struct recording_reader *r)
{
    return r->has_end ? r->end.duration_ms : 0;
}

void recording_reader_close(struct recording_reader *r)
{
    if (!r)
        return;
    if (r->fd >= 0)
        close(r->fd);
    ZSTD_freeDCtx(r->dctx);
    free(r->in);
    free(r->header);
    free(r->plain);
    free(r->data);
    free(r);
}

/* Does the file begin as ours? An empty or very short one was cut. */
static const char *check_beginning(const struct recording_reader *r)
{
    static const uint8_t wanted[] = {0x5A, 0x2A, 0x4D, 0x18};
    struct cursor c = unread(r);
    size_t len = cursor_left(&c);

    if (memcmp(c.at, wanted, len < 4 ? len : 4) != 0 ||
        (len >= 12 && memcmp(c.at + CONTAINER_SKIP_HEADER, "SPRC", 4) != 0))
        return "this is not a Sallyport recording";
    if (len > 12 && c.at[12] != CONTAINER_VERSION)
        return "the recording was written by a newer Sallyport; use that one's sallyctl";
    return NULL;
}

/* Of the head alone, for a recording whose first text is lost. */
static bool make_header(struct recording_reader *r)
{
    uint16_t cols, rows;

    if (r->head.cols == 0) {
        r->head.cols = 80;
        r->head.rows = 24;
    }
    recording_reader_size(r, &cols, &rows);
    if (asprintf(&r->header, "{\"version\": 2, \"width\": %u, \"height\": %u}", cols, rows) < 0)
        r->header = NULL;
    return r->header != NULL;
}

static int begin(struct recording_reader *r, char *err, size_t err_len)
{
    const char *wrong;
    int n;

    do
        n = read_more(r);
    while (n > 0 && r->in_len < CONTAINER_SKIP_HEADER + CONTAINER_HEAD_LEN);
    if (n >= 0 && (wrong = check_beginning(r))) {
        set_err(err, err_len, wrong);
        return ERR_CORRUPT;
    }
    while (n >= 0 && !r->header && !r->is_lost && (n = segment_next(r)) > 0)
        ;
    if (n < 0) {
        set_err(err, err_len, n == ERR_SYSTEM ? strerror(errno) : error_text(n));
        return n;
    }
    if (!r->header && !make_header(r)) {
        set_err(err, err_len, error_text(ERR_MEMORY));
        return ERR_MEMORY;
    }
    return 0;
}

struct recording_reader *recording_reader_open_fd(int fd, char *err, size_t err_len)
{
    return recording_reader_open_part(fd, UINT64_MAX, err, err_len);
}

struct recording_reader *recording_reader_open_part(int fd, uint64_t file_len, char *err,
                                                    size_t err_len)
{
    struct recording_reader *r = calloc(1, sizeof(*r));
    struct stat st;

    if (!r) {
        close(fd);
        set_err(err, err_len, error_text(ERR_MEMORY));
        return NULL;
    }
    r->fd = fd;
    r->left = file_len;
    r->end_kind = RECORDING_CUT;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        set_err(err, err_len, "this is not a regular file");
    else if (begin(r, err, err_len) == 0)
        return r;
    recording_reader_close(r);
    return NULL;
}

struct recording_reader *recording_reader_open(const char *path, char *err, size_t err_len)
{
    /* not blocking, in case it is a pipe */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0) {
        set_err(err, err_len, strerror(errno));
        return NULL;
    }
    return recording_reader_open_fd(fd, err, err_len);
}
