/*
 * sallyport-play: a recording of a desktop, served on a loopback port to one RDP client, in its own
 * time. sallyctl starts it with the recording on standard input and reads what it says, a line
 * each, on standard output:
 *
 *   listening PORT WIDTH HEIGHT    once
 *   viewer NAME                    somebody looks
 *   refused UID                    somebody else's connection was closed
 *   graphics | no-graphics         it needs the graphics channel, which the viewer knows or not
 *   end MILLISECONDS complete|cut|damaged|stopped|error TEXT
 *
 * Only connections of its own user (or --uid, who called sudo) are served. It runs under a filter
 * that lets it open nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/log.h>
#include <sallyport/text.h>

#include "proxy/rdp/tls.h"
#include "tracker/player/owner.h"
#include "tracker/player/sandbox.h"
#include "tracker/player/viewer.h"
#include "tracker/recording/desktop.h"
#include "tracker/recording/recording_priv.h"

#define HOLD_MS      2000 /* the last picture stays */
#define LEAVE_MS     1000 /* for the viewer to go after the ultimatum */
#define LOGIN_MS     30000
#define NO_UID       UINT32_MAX
#define US_PER_S     1e6
#define TEXT_MAX_LEN 512

enum state {
    WAITING, /* for a viewer */
    SERVING, /* its connection sequence */
    PLAYING,
    HOLDING, /* the last picture */
    LEAVING
};

struct player {
    struct event_base *base;
    struct event *accepting, *timer, *signals[3];
    int listener;
    struct owner owner;
    struct viewer viewer;
    bool has_viewer, has_said_graphics;
    struct desktop_channels channels;

    struct recording_reader *reader;
    struct desktop_record next;
    struct cursor pdus; /* of `next`, not sent yet */
    bool has_next, is_over;
    int error;

    enum state state;
    int64_t state_ms;   /* when it is over; 0: not by time */
    double position_us; /* in the recording */
    int64_t ticked_us;  /* when that was true, on our clock */
    double speed, idle_us;
};

static void say(const char *fmt, ...) PRINTF_LIKE(1, 2);
static void say(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

static void enter(struct player *p, enum state state, int64_t for_ms)
{
    p->state = state;
    p->state_ms = for_ms ? clock_mono_ms() + for_ms : 0;
}

static void arm(struct player *p, double wait_us)
{
    struct timeval tv;

    if (wait_us < 0)
        wait_us = 0;
    if (wait_us > 3600 * US_PER_S)
        wait_us = 3600 * US_PER_S;
    tv.tv_sec = (time_t)(wait_us / US_PER_S);
    tv.tv_usec = (suseconds_t)(wait_us - (double)tv.tv_sec * US_PER_S);
    event_add(p->timer, &tv);
}

/* ---- the recording ---- */

/* The next TARGET; false at the end. */
static bool look_ahead(struct player *p)
{
    int n = 1;

    while (!p->has_next && (n = recording_reader_next_record(p->reader, &p->next)) > 0)
        if (p->next.type == DESKTOP_TARGET) {
            p->pdus = p->next.body;
            p->has_next = true;
        }
    if (n < 0)
        p->error = n;
    return p->has_next;
}

static bool find_channels(struct player *p)
{
    struct desktop_record record;

    while (recording_reader_next_record(p->reader, &record) > 0)
        if (record.type == DESKTOP_CHANNELS)
            return desktop_channels_parse(record.body, &p->channels) == PARSE_OK;
    return false;
}

/* Time goes by while the viewer can take what it brings. */
static void let_time_pass(struct player *p)
{
    int64_t now_us = clock_mono_us();

    if (viewer_can_take(&p->viewer))
        p->position_us += (double)(now_us - p->ticked_us) * p->speed;
    p->ticked_us = now_us;
}

static void play(struct player *p)
{
    while (viewer_can_take(&p->viewer)) {
        double at_us;

        if (!look_ahead(p)) {
            p->is_over = true;
            enter(p, HOLDING, HOLD_MS);
            return;
        }
        at_us = (double)p->next.at_us;
        if (p->idle_us > 0 && at_us - p->position_us > p->idle_us)
            p->position_us = at_us - p->idle_us;
        if (at_us > p->position_us) {
            arm(p, (at_us - p->position_us) / p->speed);
            return;
        }
        viewer_feed(&p->viewer, &p->pdus);
        p->has_next = !cursor_at_end(&p->pdus);
    }
}

static void say_end(struct player *p)
{
    static const char *const words[] = {"complete", "cut", "damaged"};
    char text[TEXT_MAX_LEN];
    uint64_t frame;
    enum recording_end end = recording_reader_end(p->reader, &frame, text, sizeof(text));
    unsigned long long at_ms = (unsigned long long)(p->position_us / 1000);

    if (p->error)
        say("end %llu error %s", at_ms,
            p->error == ERR_SYSTEM ? strerror(errno) : error_text(p->error));
    else if (!p->is_over)
        say("end %llu stopped", at_ms);
    else
        say("end %llu %s %s", at_ms, words[end], text);
}

/* ---- the viewer ---- */

static void take_turn(void *arg);

static void forget_viewer(struct player *p)
{
    if (p->has_viewer)
        viewer_close(&p->viewer);
    p->has_viewer = false;
}

static void leave(struct player *p)
{
    viewer_bye(&p->viewer);
    enter(p, LEAVING, LEAVE_MS);
}

/* It left. Before it was shown anything another may come. */
static void viewer_is_gone(struct player *p)
{
    forget_viewer(p);
    if (p->state == SERVING) {
        enter(p, WAITING, 0);
        event_add(p->accepting, NULL);
    } else {
        event_base_loopbreak(p->base);
    }
}

static void say_graphics(struct player *p)
{
    if (p->has_said_graphics || !p->viewer.has_graphics)
        return;
    p->has_said_graphics = true;
    say(p->viewer.has_drdynvc ? "graphics" : "no-graphics");
}

static void begin_playing(struct player *p)
{
    char name[sizeof(p->viewer.name) * 4];

    say("viewer %s", text_escape(name, sizeof(name), p->viewer.name, strlen(p->viewer.name)));
    p->ticked_us = clock_mono_us();
    enter(p, PLAYING, 0);
}

static void take_turn(void *arg)
{
    struct player *p = arg;

    if (!p->has_viewer)
        return;
    viewer_step(&p->viewer);
    if (p->viewer.step == VIEWER_GONE) {
        viewer_is_gone(p);
        return;
    }
    if (p->state == SERVING && p->viewer.step == VIEWER_LIVE)
        begin_playing(p);
    if (p->state == PLAYING) {
        let_time_pass(p);
        play(p);
        say_graphics(p);
    }
    if (p->state_ms && clock_mono_ms() >= p->state_ms) {
        if (p->state == HOLDING && rdp_leg_unsent(&p->viewer.leg) == 0) {
            leave(p);
        } else if (p->state != HOLDING) {
            viewer_is_gone(p);
            return;
        }
    }
    if (p->state_ms)
        arm(p, (double)(p->state_ms - clock_mono_ms()) * 1000 + 1000);
    rdp_leg_settle(&p->viewer.leg);
}

static void timer_cb(evutil_socket_t fd, short what, void *arg)
{
    (void)fd, (void)what;
    take_turn(arg);
}

static void accept_cb(evutil_socket_t fd, short what, void *arg)
{
    struct player *p = arg;
    struct sockaddr_in peer;
    socklen_t len = sizeof(peer);
    int client = accept4(fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    uint32_t uid;

    (void)what;
    if (client < 0)
        return;
    if (!owner_may(&p->owner, &peer, &uid)) {
        say("refused %lld", uid == NO_UID ? -1 : (long long)uid);
        close(client);
        return;
    }
    if (viewer_open(&p->viewer, client, &p->channels, p->base, take_turn, p) < 0)
        return;
    p->has_viewer = true;
    event_del(p->accepting);
    enter(p, SERVING, LOGIN_MS);
    take_turn(p);
}

/* A second one ends at once. */
static void signal_cb(evutil_socket_t number, short what, void *arg)
{
    struct player *p = arg;

    (void)number, (void)what;
    if (p->has_viewer && p->state != LEAVING && p->viewer.step == VIEWER_LIVE) {
        leave(p);
        arm(p, LEAVE_MS * 1000.0);
    } else {
        event_base_loopbreak(p->base);
    }
}

/* ---- setting up ---- */

static int listen_on(uint16_t port, uint16_t *actual)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;

    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 4) == 0 &&
        getsockname(fd, (struct sockaddr *)&a, &len) == 0) {
        *actual = ntohs(a.sin_port);
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool make_events(struct player *p)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    bool is_ok;

    p->base = event_base_new();
    if (!p->base)
        return false;
    p->accepting = event_new(p->base, p->listener, EV_READ | EV_PERSIST, accept_cb, p);
    p->timer = evtimer_new(p->base, timer_cb, p);
    is_ok = p->accepting && p->timer && event_add(p->accepting, NULL) == 0;
    for (size_t i = 0; is_ok && i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        p->signals[i] = evsignal_new(p->base, numbers[i], signal_cb, p);
        is_ok = p->signals[i] && event_add(p->signals[i], NULL) == 0;
    }
    return is_ok;
}

static void finish(struct player *p)
{
    forget_viewer(p);
    for (size_t i = 0; i < sizeof(p->signals) / sizeof(p->signals[0]); i++)
        if (p->signals[i])
            event_free(p->signals[i]);
    if (p->accepting)
        event_free(p->accepting);
    if (p->timer)
        event_free(p->timer);
    if (p->base)
        event_base_free(p->base);
    if (p->listener >= 0)
        close(p->listener);
    owner_finish(&p->owner);
    recording_reader_close(p->reader);
}

static int fail(const char *what)
{
    say("end 0 error %s", what);
    return 1;
}

static int run(struct player *p, uint16_t port, uint32_t uid)
{
    char err[256] = "";
    uint16_t actual, width, height;

    p->reader = recording_reader_open_fd(dup(STDIN_FILENO), err, sizeof(err));
    if (!p->reader)
        return fail(err);
    if (!recording_reader_is_desktop(p->reader) || !find_channels(p))
        return fail("it holds no pictures: the session ended before there were any");
    if (tls_make("localhost") < 0)
        return fail("no certificate could be made");
    p->listener = listen_on(port, &actual);
    if (p->listener < 0) {
        snprintf(err, sizeof(err), "port %u on 127.0.0.1 cannot be used: %s", port,
                 strerror(errno));
        return fail(err);
    }
    if (owner_init(&p->owner, p->listener, uid) < 0)
        return fail("who connects cannot be found out: /proc/net/tcp cannot be read");
    if (!make_events(p))
        return fail("out of memory");
    if (player_sandbox_enter(err, sizeof(err)) < 0)
        return fail(err);
    recording_reader_size(p->reader, &width, &height);
    say("listening %u %u %u", actual, width, height);
    event_base_dispatch(p->base);
    say_end(p);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"port", required_argument, NULL, 'p'}, {"speed", required_argument, NULL, 's'},
        {"at", required_argument, NULL, 'a'},   {"idle", required_argument, NULL, 'i'},
        {"uid", required_argument, NULL, 'u'},  {NULL, 0, NULL, 0}};
    struct player p = {.listener = -1, .speed = 1, .owner = {.fd = -1}};
    uint64_t port = 0, uid = NO_UID;
    int option, status;

    signal(SIGPIPE, SIG_IGN);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            if (!text_parse_u64(optarg, &port) || port > 65535)
                return fail("--port takes a number up to 65535");
            break;
        case 's':
            p.speed = strtod(optarg, NULL);
            break;
        case 'a':
            p.position_us = strtod(optarg, NULL) * US_PER_S;
            break;
        case 'i':
            p.idle_us = strtod(optarg, NULL) * US_PER_S;
            break;
        case 'u':
            if (!text_parse_u64(optarg, &uid) || uid > UINT32_MAX)
                return fail("--uid takes a number");
            break;
        default:
            return fail("sallyport-play is started by sallyctl");
        }
    }
    if (!(p.speed > 0) || !(p.position_us >= 0) || !(p.idle_us >= 0))
        return fail("speed, position or pause makes no sense");
    status = run(&p, (uint16_t)port, (uint32_t)uid);
    finish(&p);
    return status;
}
