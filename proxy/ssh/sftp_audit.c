/*
 * The audit of an SFTP channel; see sftp_audit.h. Two streams are cut into packets, of which a head
 * is collected; a request is noted with what it will mean, its answer settles it. Consecutive READs
 * or WRITEs of one size of one file are one note, so that a transfer with any number of requests on
 * their way (paramiko asks for a whole file at once) costs a few bytes. Called by pump.c through
 * audit.c.
 */
#include "proxy/ssh/sftp_audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sallyport/text.h>

/* Packet types, draft-ietf-secsh-filexfer-02 §3 and -13 §4.3. */
enum {
    FXP_INIT = 1,
    FXP_VERSION = 2,
    FXP_OPEN = 3,
    FXP_CLOSE = 4,
    FXP_READ = 5,
    FXP_WRITE = 6,
    FXP_SETSTAT = 9,
    FXP_FSETSTAT = 10,
    FXP_REMOVE = 13,
    FXP_MKDIR = 14,
    FXP_RMDIR = 15,
    FXP_RENAME = 18,
    FXP_SYMLINK = 20,
    FXP_LINK = 21, /* version 6 */
    FXP_STATUS = 101,
    FXP_HANDLE = 102,
    FXP_DATA = 103,
    FXP_NAME = 104,
    FXP_ATTRS = 105,
    FXP_EXTENDED = 200,
    FXP_EXTENDED_REPLY = 201
};

#define FXF_READ        1u /* and ACE4_READ_DATA of version 5 and 6 */
#define FXF_WRITE       2u /* and ACE4_WRITE_DATA */
#define ACE_APPEND_DATA 4u /* version 5 and 6 */

#define ATTR_SIZE        1u
#define ATTR_UIDGID      2u
#define ATTR_PERMISSIONS 4u
#define ATTR_ACMODTIME   8u

#define STATUS_OK  0u
#define STATUS_EOF 1u

#define HANDLE_MAX  256              /* §4: "at most 256 bytes" */
#define LENGTH_LEN  4                /* of the length itself */
#define FIRST_LEN   (LENGTH_LEN + 1) /* and of the type */
#define REQUEST_MAX 8704 /* head kept of a request: two paths of PATH_MAX, and a little */
#define REPLY_MAX   (FIRST_LEN + 8 + HANDLE_MAX)

static const char *const status_names[] = {
    "ok",
    "eof",
    "no-such-file",
    "permission-denied",
    "failure",
    "bad-message",
    "no-connection",
    "connection-lost",
    "unsupported",
    "invalid-handle", /* from here: version 4 to 6 */
    "no-such-path",
    "already-exists",
    "write-protect",
    "no-media",
    "no-space",
    "quota-exceeded",
    "unknown-principal",
    "lock-conflict",
    "dir-not-empty",
    "not-a-directory",
    "invalid-filename",
    "link-loop",
    "cannot-delete",
    "invalid-parameter",
    "is-a-directory",
};

struct file {
    TAILQ_ENTRY(file) link;
    uint16_t handle_len;
    uint8_t handle[HANDLE_MAX];
    struct file_row *row; /* owned; its bytes are counted here, its result is the first failure */
    bool has_read, has_written;
};

/* Requests that wait for their answers: one, or a run of consecutive ids. */
struct request {
    TAILQ_ENTRY(request) link;
    uint32_t id, count;
    uint8_t type;
    uint32_t len;         /* of each WRITE */
    struct file *file;    /* not owned; NULL when it is not known (any more) */
    struct file_row *row; /* owned: what will have been done; NULL for what nobody asks about */
};

/* One direction: a packet's head is collected up to `want`, the rest is skipped. */
struct stream {
    uint8_t *head;
    uint32_t have, want;
    uint64_t skip;
};

struct sftp_audit {
    sftp_audit_fn fn;
    void *arg;
    uint32_t version;
    bool is_stopped;
    TAILQ_HEAD(file_list, file) files; /* the one used last is first */
    TAILQ_HEAD(request_group_list, request) requests;
    size_t file_count, request_count;
    uint64_t untracked; /* requests that were too many, and have no answer yet */
    uint64_t unlisted;  /* rows that nobody will see */
    struct stream in, out;
    uint8_t in_head[REQUEST_MAX], out_head[REPLY_MAX];
};

/* ---- life ---- */

struct sftp_audit *sftp_audit_create(sftp_audit_fn fn, void *arg)
{
    struct sftp_audit *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->fn = fn;
    a->arg = arg;
    a->version = 3;
    TAILQ_INIT(&a->files);
    TAILQ_INIT(&a->requests);
    a->in.head = a->in_head;
    a->out.head = a->out_head;
    a->in.want = a->out.want = FIRST_LEN;
    return a;
}

bool sftp_audit_is_stopped(const struct sftp_audit *a)
{
    return a->is_stopped;
}

static void drop_request(struct sftp_audit *a, struct request *r)
{
    TAILQ_REMOVE(&a->requests, r, link);
    a->request_count--;
    free(r->row);
    free(r);
}

/* Tell of a file and forget it. */
static void settle_file(struct sftp_audit *a, struct file *f, const char *result)
{
    struct request *r;

    TAILQ_FOREACH (r, &a->requests, link) {
        if (r->file == f)
            r->file = NULL;
    }
    TAILQ_REMOVE(&a->files, f, link);
    a->file_count--;
    if (f->has_read && f->has_written)
        f->row->operation = FILE_GET_PUT;
    else if (f->has_read || f->has_written)
        f->row->operation = f->has_read ? FILE_GET : FILE_PUT;
    if (f->row->result[0] == '\0')
        text_copy(f->row->result, sizeof(f->row->result), result);
    a->fn(f->row, a->arg);
    free(f->row);
    free(f);
}

static void settle_request(struct sftp_audit *a, struct request *r, const char *result)
{
    if (r->row) {
        text_copy(r->row->result, sizeof(r->row->result), result);
        a->fn(r->row, a->arg);
    }
    drop_request(a, r);
}

static void settle_all(struct sftp_audit *a)
{
    struct file_row missing = {.operation = FILE_UNLISTED, .bytes_in = a->unlisted};

    while (!TAILQ_EMPTY(&a->files))
        settle_file(a, TAILQ_FIRST(&a->files), "unfinished");
    while (!TAILQ_EMPTY(&a->requests))
        settle_request(a, TAILQ_FIRST(&a->requests), "unfinished");
    if (a->unlisted)
        a->fn(&missing, a->arg);
    a->unlisted = 0;
}

void sftp_audit_destroy(struct sftp_audit *a)
{
    if (!a)
        return;
    settle_all(a);
    free(a);
}

static void stop(struct sftp_audit *a, const char *why)
{
    struct file_row row = {.operation = FILE_STOPPED};

    if (a->is_stopped)
        return;
    a->is_stopped = true;
    settle_all(a);
    text_copy(row.path, sizeof(row.path), why);
    a->fn(&row, a->arg);
}

/* ---- open files ---- */

static struct file *find_file(struct sftp_audit *a, const uint8_t *handle, size_t len)
{
    struct file *f;

    TAILQ_FOREACH (f, &a->files, link) {
        if (f->handle_len != len || memcmp(f->handle, handle, len) != 0)
            continue;
        if (f != TAILQ_FIRST(&a->files)) {
            TAILQ_REMOVE(&a->files, f, link);
            TAILQ_INSERT_HEAD(&a->files, f, link);
        }
        return f;
    }
    return NULL;
}

/* The row moves from the request to the file. */
static void add_file(struct sftp_audit *a, struct file_row **row, const uint8_t *handle, size_t len)
{
    struct file *f = find_file(a, handle, len);

    if (f) /* a handle that is given out again was closed unseen */
        settle_file(a, f, "unfinished");
    if (a->file_count >= SFTP_FILES_MAX || !(f = calloc(1, sizeof(*f)))) {
        a->unlisted++;
        return;
    }
    f->handle_len = (uint16_t)len;
    memcpy(f->handle, handle, len);
    f->row = *row;
    *row = NULL;
    f->row->result[0] = '\0';
    TAILQ_INSERT_HEAD(&a->files, f, link);
    a->file_count++;
}

static void note_failure(struct file *f, const char *status)
{
    if (f && f->row->result[0] == '\0')
        text_copy(f->row->result, sizeof(f->row->result), status);
}

/* ---- noting requests ---- */

/* NULL: there are too many, or no memory; its answer is then expected by number only. */
static struct request *add_request(struct sftp_audit *a, uint8_t type, uint32_t id)
{
    struct request *r =
        a->request_count < SFTP_REQUESTS_MAX ? calloc(1, sizeof(struct request)) : NULL;

    if (!r) {
        a->untracked++;
        return NULL;
    }
    r->id = id;
    r->count = 1;
    r->type = type;
    TAILQ_INSERT_TAIL(&a->requests, r, link);
    a->request_count++;
    return r;
}

static void add_transfer(struct sftp_audit *a, uint8_t type, uint32_t id, struct file *f,
                         uint32_t len)
{
    struct request *r = TAILQ_LAST(&a->requests, request_group_list);

    if (r && r->type == type && r->file == f && r->len == len && r->id + r->count == id &&
        r->count < UINT32_MAX / 2) {
        r->count++;
        return;
    }
    r = add_request(a, type, id);
    if (r) {
        r->file = f;
        r->len = len;
    }
}

/* A request that becomes a row; NULL when it is only counted. */
static struct file_row *add_row(struct sftp_audit *a, uint8_t type, uint32_t id,
                                enum file_operation operation)
{
    struct request *r = add_request(a, type, id);

    if (r)
        r->row = calloc(1, sizeof(*r->row));
    if (!r || !r->row) {
        a->unlisted++;
        return NULL;
    }
    r->row->operation = (uint8_t)operation;
    return r->row;
}

/* ---- reading requests ---- */

struct text {
    const uint8_t *data;
    size_t len;
    bool is_whole; /* false: the rest is behind the head that we keep */
};

/* A string; one that reaches past the head is taken as far as it is there, and nothing comes after
 * it. False when it is not in the packet either. */
static bool take_text(struct cursor *c, uint64_t rest, struct text *out)
{
    uint32_t len;

    if (!cursor_be32(c, &len) || len > cursor_left(c) + rest)
        return false;
    out->is_whole = len <= cursor_left(c);
    out->len = out->is_whole ? len : cursor_left(c);
    return cursor_take(c, out->len, &out->data);
}

static void keep_path(char dst[FILE_PATH_MAX], const struct text *t)
{
    static const char more[] = "...";
    size_t n;

    file_path_copy(dst, t->data, t->len);
    n = strlen(dst);
    if (!t->is_whole && n + sizeof(more) <= FILE_PATH_MAX)
        memcpy(dst + n, more, sizeof(more));
}

/* What SETSTAT sets, for people; §5. Later versions have other attributes. */
static void describe_attributes(const struct sftp_audit *a, struct cursor *c, char *dst, size_t max)
{
    uint32_t flags, x = 0, y = 0;
    uint64_t size = 0;
    size_t at = 0;

    dst[0] = '\0';
    if (a->version != 3 || !cursor_be32(c, &flags))
        return;
    if ((flags & ATTR_SIZE) && cursor_be64(c, &size))
        at += (size_t)snprintf(dst + at, max - at, "size=%llu ", (unsigned long long)size);
    if ((flags & ATTR_UIDGID) && cursor_be32(c, &x) && cursor_be32(c, &y))
        at += (size_t)snprintf(dst + at, max - at, "uid=%u gid=%u ", x, y);
    if ((flags & ATTR_PERMISSIONS) && cursor_be32(c, &x))
        at += (size_t)snprintf(dst + at, max - at, "mode=%04o ", x & 07777u);
    if ((flags & ATTR_ACMODTIME) && cursor_be32(c, &x) && cursor_be32(c, &y))
        at += (size_t)snprintf(dst + at, max - at, "mtime=%u ", y);
    if (at > 0)
        dst[at - 1] = '\0';
}

static enum file_operation open_operation(const struct sftp_audit *a, struct cursor *c)
{
    bool reads, writes;
    uint32_t flags;

    if (!cursor_be32(c, &flags))
        return FILE_GET;
    reads = flags & FXF_READ; /* the same bit in all versions, like that of writing */
    writes = flags & (FXF_WRITE | (a->version >= 5 ? ACE_APPEND_DATA : 0));
    if (reads && writes)
        return FILE_GET_PUT;
    return writes ? FILE_PUT : FILE_GET;
}

static bool on_open(struct sftp_audit *a, uint32_t id, struct cursor *c, uint64_t rest)
{
    struct file_row *row;
    struct text path;

    if (!take_text(c, rest, &path))
        return false;
    row = add_row(a, FXP_OPEN, id, FILE_GET);
    if (row) {
        row->operation = (uint8_t)open_operation(a, c);
        keep_path(row->path, &path);
    }
    return true;
}

static bool on_handle_request(struct sftp_audit *a, uint8_t type, uint32_t id, struct cursor *c)
{
    struct text handle;
    struct request *r;
    struct file *f;
    struct file_row *row;

    if (!take_text(c, 0, &handle) || handle.len > HANDLE_MAX)
        return false;
    f = find_file(a, handle.data, handle.len);
    if (type == FXP_FSETSTAT) {
        row = add_row(a, type, id, FILE_SETSTAT);
        if (row) {
            text_copy(row->path, sizeof(row->path), f ? f->row->path : "?");
            describe_attributes(a, c, row->path2, sizeof(row->path2));
        }
        return true;
    }
    r = add_request(a, type, id);
    if (r)
        r->file = f;
    return true;
}

static bool on_transfer(struct sftp_audit *a, uint8_t type, uint32_t id, struct cursor *c,
                        uint64_t rest)
{
    struct text handle;
    uint64_t offset;
    uint32_t len;

    if (!take_text(c, 0, &handle) || handle.len > HANDLE_MAX || !cursor_be64(c, &offset) ||
        !cursor_be32(c, &len))
        return false;
    if (type == FXP_WRITE && len > cursor_left(c) + rest)
        return false;
    add_transfer(a, type, id, find_file(a, handle.data, handle.len), type == FXP_WRITE ? len : 0);
    return true;
}

/* One path, perhaps with attributes. */
static bool on_path(struct sftp_audit *a, uint8_t type, uint32_t id, struct cursor *c,
                    uint64_t rest, enum file_operation operation)
{
    struct file_row *row;
    struct text path;

    if (!take_text(c, rest, &path))
        return false;
    row = add_row(a, type, id, operation);
    if (row) {
        keep_path(row->path, &path);
        if (operation == FILE_SETSTAT)
            describe_attributes(a, c, row->path2, sizeof(row->path2));
    }
    return true;
}

/* Two paths. is_swapped: the second one on the wire is the one that is made. */
static bool on_paths(struct sftp_audit *a, uint8_t type, uint32_t id, struct cursor *c,
                     uint64_t rest, enum file_operation operation, bool is_swapped)
{
    struct text one, two = {.is_whole = false};
    struct file_row *row;

    if (!take_text(c, rest, &one) || (one.is_whole && !take_text(c, rest, &two)))
        return false;
    row = add_row(a, type, id, operation);
    if (row) {
        keep_path(is_swapped ? row->path2 : row->path, &one);
        if (two.data)
            keep_path(is_swapped ? row->path : row->path2, &two);
    }
    return true;
}

static bool on_copy_data(struct sftp_audit *a, uint32_t id, struct cursor *c)
{
    struct file *from, *to;
    struct file_row *row;
    struct text handle;
    uint64_t n;

    if (!take_text(c, 0, &handle) || handle.len > HANDLE_MAX)
        return false;
    from = find_file(a, handle.data, handle.len);
    if (!cursor_be64(c, &n) || !cursor_be64(c, &n) || !take_text(c, 0, &handle) ||
        handle.len > HANDLE_MAX)
        return false;
    to = find_file(a, handle.data, handle.len);
    row = add_row(a, FXP_EXTENDED, id, FILE_COPY);
    if (row) {
        text_copy(row->path, sizeof(row->path), from ? from->row->path : "?");
        text_copy(row->path2, sizeof(row->path2), to ? to->row->path : "?");
    }
    return true;
}

static bool is_text(const struct text *t, const char *name)
{
    return t->is_whole && t->len == strlen(name) && memcmp(t->data, name, t->len) == 0;
}

/* OpenSSH's PROTOCOL file, section 4; copy-file is what WinSCP asks servers of version 5 for. */
static bool on_extended(struct sftp_audit *a, uint32_t id, struct cursor *c, uint64_t rest)
{
    struct text name;

    if (!take_text(c, rest, &name))
        return false;
    if (is_text(&name, "posix-rename@openssh.com"))
        return on_paths(a, FXP_EXTENDED, id, c, rest, FILE_RENAME, false);
    if (is_text(&name, "hardlink@openssh.com"))
        return on_paths(a, FXP_EXTENDED, id, c, rest, FILE_HARDLINK, true);
    if (is_text(&name, "copy-file"))
        return on_paths(a, FXP_EXTENDED, id, c, rest, FILE_COPY, false);
    if (is_text(&name, "lsetstat@openssh.com"))
        return on_path(a, FXP_EXTENDED, id, c, rest, FILE_SETSTAT);
    if (is_text(&name, "copy-data"))
        return on_copy_data(a, id, c);
    (void)add_request(a, FXP_EXTENDED, id);
    return true;
}

/* §6.3 has the link first; OpenSSH's server takes the target first, and clients follow it. */
static bool on_symlink(struct sftp_audit *a, uint32_t id, struct cursor *c, uint64_t rest)
{
    return on_paths(a, FXP_SYMLINK, id, c, rest, FILE_SYMLINK, a->version <= 3);
}

static bool on_link(struct sftp_audit *a, uint32_t id, struct cursor *c, uint64_t rest)
{
    struct file_row *row;
    struct request *r;
    uint8_t is_symbolic = 0;

    if (!on_paths(a, FXP_LINK, id, c, rest, FILE_HARDLINK, false))
        return false;
    r = TAILQ_LAST(&a->requests, request_group_list);
    row = r && r->id == id ? r->row : NULL;
    if (row && cursor_u8(c, &is_symbolic) && is_symbolic)
        row->operation = FILE_SYMLINK;
    return true;
}

static bool on_request(struct sftp_audit *a, uint8_t type, struct cursor *c, uint64_t rest)
{
    uint32_t id;

    if (!cursor_be32(c, &id))
        return false;
    switch (type) {
    case FXP_INIT: /* id is the client's version; the server's counts */
        return true;
    case FXP_OPEN:
        return on_open(a, id, c, rest);
    case FXP_CLOSE:
    case FXP_FSETSTAT:
        return on_handle_request(a, type, id, c);
    case FXP_READ:
    case FXP_WRITE:
        return on_transfer(a, type, id, c, rest);
    case FXP_SETSTAT:
        return on_path(a, type, id, c, rest, FILE_SETSTAT);
    case FXP_REMOVE:
        return on_path(a, type, id, c, rest, FILE_REMOVE);
    case FXP_MKDIR:
        return on_path(a, type, id, c, rest, FILE_MKDIR);
    case FXP_RMDIR:
        return on_path(a, type, id, c, rest, FILE_RMDIR);
    case FXP_RENAME:
        return on_paths(a, type, id, c, rest, FILE_RENAME, false);
    case FXP_SYMLINK:
        return on_symlink(a, id, c, rest);
    case FXP_LINK:
        return on_link(a, id, c, rest);
    case FXP_EXTENDED:
        return on_extended(a, id, c, rest);
    default: /* looks, which nobody asks about; and what is not known yet */
        (void)add_request(a, type, id);
        return true;
    }
}

/* ---- reading answers ---- */

static const char *status_name(uint32_t code)
{
    return code < sizeof(status_names) / sizeof(status_names[0]) ? status_names[code] : "failure";
}

/* Take one id out of its group: what is left may be two groups. False: no memory. */
static bool take_one(struct sftp_audit *a, struct request *r, uint32_t id)
{
    uint32_t before = id - r->id, after = r->count - before - 1;
    struct request *rest;

    if (before > 0 && after > 0) {
        if (a->request_count >= SFTP_REQUESTS_MAX || !(rest = calloc(1, sizeof(*rest)))) {
            a->untracked += after;
        } else {
            *rest = *r; /* a group of more than one has no row */
            rest->id = id + 1;
            rest->count = after;
            TAILQ_INSERT_AFTER(&a->requests, r, rest, link);
            a->request_count++;
        }
        r->count = before;
        return true;
    }
    if (before == 0)
        r->id++;
    r->count--;
    return r->count > 0;
}

static void answer_transfer(struct request *r, uint8_t type, uint32_t value)
{
    struct file *f = r->file;

    if (!f)
        return;
    if (r->type == FXP_READ) {
        f->has_read |= type == FXP_DATA;
        if (type == FXP_DATA)
            f->row->bytes_out += value;
        else if (value != STATUS_EOF)
            note_failure(f, status_name(value));
        return;
    }
    f->has_written = true;
    if (type == FXP_STATUS && value == STATUS_OK)
        f->row->bytes_in += r->len;
    else
        note_failure(f, status_name(value));
}

static void answer_open(struct sftp_audit *a, struct request *r, uint8_t type, uint32_t value,
                        struct cursor *c)
{
    const uint8_t *handle;

    if (!r->row)
        return;
    if (type == FXP_HANDLE && cursor_take(c, value, &handle)) {
        add_file(a, &r->row, handle, value);
        return;
    }
    text_copy(r->row->result, sizeof(r->row->result), status_name(value));
    a->fn(r->row, a->arg);
}

static void answer(struct sftp_audit *a, struct request *r, uint8_t type, uint32_t value,
                   struct cursor *c)
{
    switch (r->type) {
    case FXP_OPEN:
        answer_open(a, r, type, value, c);
        break;
    case FXP_CLOSE:
        if (r->file)
            settle_file(a, r->file, status_name(type == FXP_STATUS ? value : STATUS_OK));
        break;
    default:
        if (r->row) {
            text_copy(r->row->result, sizeof(r->row->result),
                      status_name(type == FXP_STATUS ? value : STATUS_OK));
            a->fn(r->row, a->arg);
        }
        break;
    }
    drop_request(a, r);
}

static bool on_reply(struct sftp_audit *a, uint8_t type, struct cursor *c, uint64_t rest)
{
    uint32_t id, value = 0;
    struct request *r;

    if (!cursor_be32(c, &id))
        return false;
    if (type == FXP_VERSION) {
        a->version = id;
        return true;
    }
    if (type != FXP_STATUS && type != FXP_HANDLE && type != FXP_DATA && type != FXP_NAME &&
        type != FXP_ATTRS && type != FXP_EXTENDED_REPLY)
        return false;
    if (type <= FXP_DATA && !cursor_be32(c, &value))
        return false;
    if ((type == FXP_DATA || type == FXP_HANDLE) && value > cursor_left(c) + rest)
        return false;
    if (type == FXP_HANDLE && value > HANDLE_MAX)
        return false;
    TAILQ_FOREACH (r, &a->requests, link) {
        if (id - r->id < r->count)
            break;
    }
    if (!r) {
        if (a->untracked == 0)
            return false;
        a->untracked--;
        return true;
    }
    if (r->type == FXP_READ || r->type == FXP_WRITE) {
        answer_transfer(r, type, value);
        if (!take_one(a, r, id))
            drop_request(a, r);
        return true;
    }
    answer(a, r, type, value, c);
    return true;
}

/* ---- cutting the streams ---- */

/* The types are asked for by name where the head is short or data follows; all others are kept as
 * far as there is room. */
static uint32_t wanted_head(const struct stream *s, bool is_input, uint32_t packet_len)
{
    static const uint32_t reply_len = FIRST_LEN + 8;
    uint32_t whole = packet_len + LENGTH_LEN, want, max = is_input ? REQUEST_MAX : REPLY_MAX;
    uint8_t type = s->head[LENGTH_LEN];

    if (is_input && (type == FXP_READ || type == FXP_WRITE)) /* id, length of the handle */
        want = s->have < FIRST_LEN + 8 ? FIRST_LEN + 8 : s->want;
    else if (!is_input && type != FXP_HANDLE)
        want = reply_len;
    else
        want = max;
    return want < whole ? want : whole;
}

/* The rest of a READ's or WRITE's head, once the handle's length is known. */
static uint32_t transfer_head(const struct stream *s, uint32_t packet_len)
{
    struct cursor c = cursor_of(s->head + FIRST_LEN + 4, 4);
    uint32_t handle_len, want, whole = packet_len + LENGTH_LEN;

    if (!cursor_be32(&c, &handle_len) || handle_len > HANDLE_MAX)
        return s->have; /* on_transfer() refuses it */
    want = FIRST_LEN + 8 + handle_len + 12;
    return want < whole ? want : whole;
}

static void packet(struct sftp_audit *a, struct stream *s, bool is_input, uint32_t packet_len)
{
    struct cursor c = cursor_of(s->head + FIRST_LEN, s->have - FIRST_LEN);
    uint8_t type = s->head[LENGTH_LEN];
    bool is_good;

    s->skip = packet_len + LENGTH_LEN - s->have;
    is_good = is_input ? on_request(a, type, &c, s->skip) : on_reply(a, type, &c, s->skip);
    s->have = 0;
    s->want = FIRST_LEN;
    if (!is_good)
        stop(a, is_input ? "the client sent something that is not SFTP"
                         : "the server sent something that is not SFTP");
}

/* `want` bytes are there: ask for more, or take the packet. */
static void head_is_full(struct sftp_audit *a, struct stream *s, bool is_input)
{
    struct cursor c = cursor_of(s->head, LENGTH_LEN);
    uint8_t type = s->head[LENGTH_LEN];
    uint32_t len, want;

    if (!cursor_be32(&c, &len) || len < 1 || len > SFTP_PACKET_MAX) {
        stop(a, is_input ? "the client sent a packet of an impossible length"
                         : "the server sent a packet of an impossible length");
        return;
    }
    want = wanted_head(s, is_input, len);
    if (is_input && (type == FXP_READ || type == FXP_WRITE) && s->have == FIRST_LEN + 8)
        want = transfer_head(s, len);
    if (want > s->have)
        s->want = want;
    else
        packet(a, s, is_input, len);
}

void sftp_audit_feed(struct sftp_audit *a, bool is_input, const void *data, size_t len)
{
    struct stream *s = is_input ? &a->in : &a->out;
    const uint8_t *at = data;

    while (len > 0 && !a->is_stopped) {
        size_t n = s->skip > 0 ? (s->skip < len ? (size_t)s->skip : len) : s->want - s->have;

        n = n < len ? n : len;
        if (s->skip > 0) {
            s->skip -= n;
        } else {
            memcpy(s->head + s->have, at, n);
            s->have += (uint32_t)n;
        }
        at += n;
        len -= n;
        if (s->skip == 0 && s->have == s->want)
            head_is_full(a, s, is_input);
    }
}
