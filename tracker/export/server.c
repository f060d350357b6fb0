/*
 * See server.h. One non-blocking socket; whoever calls waits here in poll(), and what the decoder
 * says is read all the time, so that it never blocks on us.
 *
 * How to know that everything was drawn: a request to open a dynamic channel that nobody knows goes
 * the way of all the rest (the I/O thread, then the thread of dynamic channels), and is answered
 * with a refusal when all that came before it has been dealt with.
 */
#include "tracker/export/server.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/buffer.h>
#include <sallyport/clock.h>

#include "proxy/rdp/le.h"
#include "proxy/rdp/wire.h"

#define OUT_MAX       ((size_t)16 * 1024 * 1024)
#define OUT_ENOUGH    (64u * 1024)
#define IN_MAX        (256u * 1024)
#define UNSYNCED_MAX  (256u * 1024) /* the queues of dynamic channels have no limit of their own */
#define PATIENCE_MS   60000
#define READY_POLL_MS 2
#define SYNC_COMMAND  0x12 /* create, with an id of four bytes */
#define SYNC_ID       0x7e000000u
#define SYNC_NAME     "SYNC"
#define DATA_POINTER  0x1b

enum step { STEP_X224, STEP_CONNECT, STEP_DOMAIN, STEP_LIVE };

struct server {
    int fd;
    struct decoder *decoder;            /* not owned */
    const struct desktop_channels *map; /* not owned */
    uint16_t io, drdynvc;               /* channels, as the recorded client knew them */
    bool has_drdynvc;                   /* it is in the recording */
    enum step step;
    uint32_t requested;
    struct buffer in, out, held;
    bool is_active;     /* between Font Map and the next Deactivate All */
    bool was_activated; /* the first time is over, and `held` was sent */
    bool is_chunk_open; /* a message of drdynvc is not complete */
    uint32_t sync, answered;
    size_t unsynced;
};

static bool is_taken(const struct desktop_channels *c, uint16_t number)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->list[i].number == number)
            return true;
    return number == c->io || number == c->message || number == c->user;
}

static void find_drdynvc(struct server *s)
{
    for (size_t i = 0; i < s->map->count; i++) {
        if (strcmp(s->map->list[i].name, "drdynvc") != 0)
            continue;
        s->drdynvc = s->map->list[i].number;
        s->has_drdynvc = true;
        return;
    }
    for (s->drdynvc = MCS_GLOBAL_CHANNEL + 1; is_taken(s->map, s->drdynvc);)
        s->drdynvc++;
}

struct server *server_create(int fd, struct decoder *d, const struct desktop_channels *channels)
{
    struct server *s = calloc(1, sizeof(*s));

    if (!s) {
        close(fd);
        return NULL;
    }
    s->fd = fd;
    s->decoder = d;
    s->map = channels;
    s->io = channels->io;
    buffer_init(&s->in, IN_MAX);
    buffer_init(&s->out, OUT_MAX);
    buffer_init(&s->held, OUT_MAX);
    find_drdynvc(s);
    return s;
}

void server_destroy(struct server *s)
{
    if (!s)
        return;
    buffer_finish(&s->in);
    buffer_finish(&s->out);
    buffer_finish(&s->held);
    close(s->fd);
    free(s);
}

/* ---- what the decoder says ---- */

static int on_connect(struct server *s, struct cursor body)
{
    struct gcc_server mine = {.io_channel = s->io};
    struct mcs_connect initial;
    struct gcc_client client;
    struct buffer gcc;
    uint16_t unused = (uint16_t)(s->drdynvc + 1);

    if (mcs_connect_initial_parse(body, &initial) != PARSE_OK ||
        gcc_client_parse(initial.gcc, &client) != PARSE_OK)
        return ERR_CORRUPT;
    /* by name: it asks for other channels than the recorded client did */
    for (size_t i = 0; i < client.channel_count; i++) {
        while (is_taken(s->map, unused))
            unused++;
        mine.channels[i] = strcmp(client.channels[i].name, "drdynvc") == 0 ? s->drdynvc : unused++;
    }
    mine.channel_count = client.channel_count;
    buffer_init(&gcc, TPKT_MAX);
    gcc_server_put(&gcc, &mine, s->requested);
    mcs_connect_response_put(&s->out, initial.parameters[0], gcc.data, gcc.len);
    s->out.failed |= gcc.failed;
    buffer_finish(&gcc);
    s->step = STEP_DOMAIN;
    return 0;
}

static void on_info(struct server *s)
{
    struct buffer licence;

    buffer_init(&licence, TPKT_MAX);
    licence_valid_put(&licence);
    mcs_data_put(&s->out, MCS_DATA_INDICATION, MCS_SERVER_USER, s->io, licence.data, licence.len);
    buffer_finish(&licence);
    s->step = STEP_LIVE;
}

/* The answer to a request of server_sync(). */
static void on_dynamic(struct server *s, struct cursor data)
{
    uint32_t len, flags, id;
    uint8_t command;

    if (cursor_le32(&data, &len) && cursor_le32(&data, &flags) && cursor_u8(&data, &command) &&
        command == SYNC_COMMAND && cursor_le32(&data, &id) && (id & 0xff000000u) == SYNC_ID)
        s->answered = id & 0xffffffu;
}

static int on_domain(struct server *s, struct cursor body)
{
    struct mcs_pdu pdu;

    if (mcs_parse(body, &pdu) != PARSE_OK)
        return ERR_CORRUPT;
    switch (pdu.type) {
    case MCS_ATTACH_REQUEST:
        mcs_attach_confirm_put(&s->out, s->map->user);
        break;
    case MCS_JOIN_REQUEST:
        mcs_join_confirm_put(&s->out, pdu.user, pdu.channel);
        break;
    case MCS_DATA_REQUEST:
        if (s->step == STEP_DOMAIN && pdu.channel == s->io)
            on_info(s);
        else if (pdu.channel == s->drdynvc)
            on_dynamic(s, pdu.data);
        break;
    case MCS_ULTIMATUM:
        return ERR_CLOSED;
    default:
        break;
    }
    return 0;
}

static int on_frame(struct server *s, const struct frame *f)
{
    struct x224_request request;

    if (f->kind == FRAME_FASTPATH)
        return 0; /* input: there is none */
    switch (s->step) {
    case STEP_X224:
        if (x224_request_parse(frame_body(f), &request) != PARSE_OK)
            return ERR_CORRUPT;
        s->requested = request.protocols;
        x224_confirm_put(&s->out, X224_EXTENDED_CLIENT_DATA | X224_DYNVC_GFX, 0);
        s->step = STEP_CONNECT;
        return 0;
    case STEP_CONNECT:
        return on_connect(s, frame_body(f));
    default:
        return on_domain(s, frame_body(f));
    }
}

static int read_some(struct server *s)
{
    uint8_t bytes[16 * 1024];
    ssize_t n = read(s->fd, bytes, sizeof(bytes));
    struct cursor c;
    struct frame f;
    enum parse p;
    int r = 0;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0)
        return ERR_CLOSED;
    buffer_put(&s->in, bytes, (size_t)n);
    if (s->in.failed)
        return ERR_CORRUPT;
    c = cursor_of(s->in.data, s->in.len);
    while (r == 0 && (p = frame_next(&c, TPKT_MAX, &f)) == PARSE_OK)
        r = on_frame(s, &f);
    if (r == 0 && p == PARSE_BAD)
        r = ERR_CORRUPT;
    buffer_consume(&s->in, (size_t)(c.at - s->in.data));
    return r < 0 ? r : 1;
}

static int write_some(struct server *s)
{
    ssize_t n = send(s->fd, s->out.data, s->out.len, MSG_NOSIGNAL);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : ERR_CLOSED;
    buffer_consume(&s->out, (size_t)n);
    return 1;
}

/* One turn; deadline moves whenever something happens. */
static int turn(struct server *s, int64_t *deadline, int wait_ms)
{
    struct pollfd p = {.fd = s->fd, .events = POLLIN};
    int r = 0;

    if (s->out.failed)
        return ERR_MEMORY;
    if (s->out.len > 0)
        p.events |= POLLOUT;
    if (poll(&p, 1, wait_ms) < 0 && errno != EINTR)
        return ERR_SYSTEM;
    if (p.revents & (POLLIN | POLLHUP | POLLERR))
        r = read_some(s);
    if (r >= 0 && p.revents & POLLOUT) {
        int w = write_some(s);

        r = w < 0 ? w : r | w;
    }
    if (r < 0)
        return r;
    if (r > 0)
        *deadline = clock_mono_ms() + PATIENCE_MS;
    if (decoder_has_failed(s->decoder))
        return ERR_CLOSED;
    return clock_mono_ms() < *deadline ? 0 : ERR_BUSY;
}

static int flush_to(struct server *s, size_t left)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    int r = 0;

    while (r == 0 && s->out.len > left)
        r = turn(s, &deadline, PATIENCE_MS);
    return s->out.failed ? ERR_MEMORY : r;
}

int server_connect(struct server *s)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    int r = 0;

    while (r == 0 && s->step != STEP_LIVE)
        r = turn(s, &deadline, PATIENCE_MS);
    return r;
}

/* ---- what the decoder is told ---- */

static bool is_wanted(const struct share_pdu *pdu)
{
    switch (pdu->type) {
    case SHARE_DEMAND_ACTIVE:
    case SHARE_DEACTIVATE_ALL:
        return true;
    case SHARE_DATA: /* a compressed one is part of a history that must be followed */
        return pdu->is_compressed || pdu->data_type == DATA_UPDATE ||
               pdu->data_type == DATA_POINTER || pdu->data_type == DATA_SYNCHRONIZE ||
               pdu->data_type == DATA_CONTROL || pdu->data_type == DATA_FONT_MAP;
    default: /* licensing too, which reads as nonsense here */
        return false;
    }
}

/* Part of the first activation, which the decoder must see before anything else. */
static bool is_activation(const struct share_pdu *pdu)
{
    return pdu->type != SHARE_DATA || pdu->data_type == DATA_SYNCHRONIZE ||
           pdu->data_type == DATA_CONTROL || pdu->data_type == DATA_FONT_MAP;
}

static void put(struct server *s, bool must_wait, const void *data, size_t len)
{
    buffer_put(must_wait && !s->was_activated ? &s->held : &s->out, data, len);
}

/* The library is ready a while after the Font Map; then it gets what had to wait. */
static int finish_activation(struct server *s)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    int r = 0;

    while (r == 0 && (s->out.len > 0 || !decoder_is_ready(s->decoder)))
        r = turn(s, &deadline, READY_POLL_MS);
    if (r < 0)
        return r;
    s->was_activated = true;
    buffer_put(&s->out, s->held.data, s->held.len);
    s->out.failed |= s->held.failed;
    buffer_finish(&s->held);
    return flush_to(s, OUT_ENOUGH);
}

static int put_share(struct server *s, const struct mcs_pdu *mcs, const struct share_pdu *pdu,
                     const uint8_t *data)
{
    struct buffer b;

    buffer_init(&b, TPKT_MAX);
    mcs_data_put(&b, MCS_DATA_INDICATION, mcs->user, mcs->channel, data, pdu->len);
    put(s, !is_activation(pdu), b.data, b.len);
    s->out.failed |= b.failed;
    buffer_finish(&b);
    if (pdu->type == SHARE_DEMAND_ACTIVE || pdu->type == SHARE_DEACTIVATE_ALL)
        s->is_active = false;
    if (pdu->type != SHARE_DATA || pdu->data_type != DATA_FONT_MAP)
        return 0; /* the type can be read of a compressed one too */
    s->is_active = true;
    return s->was_activated ? 0 : finish_activation(s);
}

/* Several PDUs may stand in one. */
static int feed_share(struct server *s, const struct mcs_pdu *mcs)
{
    struct cursor data = mcs->data;
    struct share_pdu pdu;
    int r = 0;

    while (r == 0 && !cursor_at_end(&data)) {
        const uint8_t *at = data.at;

        if (share_next(&data, &pdu) != PARSE_OK)
            return 0;
        if (is_wanted(&pdu))
            r = put_share(s, mcs, &pdu, at);
    }
    return r;
}

static void feed_dynamic(struct server *s, const struct frame *f, struct cursor data)
{
    uint32_t len, flags;

    if (!cursor_le32(&data, &len) || !cursor_le32(&data, &flags))
        return;
    s->is_chunk_open = !(flags & CHANNEL_LAST);
    put(s, true, f->data, f->len);
}

static int feed_frame(struct server *s, const struct frame *f)
{
    struct mcs_pdu mcs;

    if (f->kind == FRAME_FASTPATH) {
        put(s, true, f->data, f->len);
        return 0;
    }
    if (mcs_parse(frame_body(f), &mcs) != PARSE_OK || mcs.type != MCS_DATA_INDICATION)
        return 0;
    if (mcs.channel == s->io)
        return feed_share(s, &mcs);
    if (s->has_drdynvc && mcs.channel == s->drdynvc)
        feed_dynamic(s, f, mcs.data);
    return 0;
}

int server_feed(struct server *s, struct cursor pdus)
{
    size_t len = cursor_left(&pdus);
    struct frame f;
    int r = 0;

    while (r == 0 && frame_next(&pdus, TPKT_MAX, &f) == PARSE_OK)
        r = feed_frame(s, &f);
    if (r == 0)
        r = flush_to(s, OUT_ENOUGH);
    s->unsynced += len;
    if (r == 0 && s->unsynced > UNSYNCED_MAX && server_can_sync(s))
        r = server_sync(s);
    return r;
}

bool server_can_sync(const struct server *s)
{
    return s->is_active && s->was_activated && !s->is_chunk_open;
}

int server_sync(struct server *s)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    struct buffer b;
    int r = 0;

    s->sync = (s->sync + 1) & 0xffffffu;
    s->unsynced = 0;
    buffer_init(&b, TPKT_MAX);
    buffer_put_le32(&b, 5 + sizeof(SYNC_NAME));
    buffer_put_le32(&b, CHANNEL_FIRST | CHANNEL_LAST);
    buffer_put_u8(&b, SYNC_COMMAND);
    buffer_put_le32(&b, SYNC_ID | s->sync);
    buffer_put(&b, SYNC_NAME, sizeof(SYNC_NAME));
    mcs_data_put(&s->out, MCS_DATA_INDICATION, MCS_SERVER_USER, s->drdynvc, b.data, b.len);
    s->out.failed |= b.failed;
    buffer_finish(&b);
    while (r == 0 && s->answered != s->sync)
        r = turn(s, &deadline, PATIENCE_MS);
    return r;
}
