/* The tracker over a real store and real pages, with a relay that only remembers what it was told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <event2/event.h>
#include <ftw.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sallyport/clock.h>
#include <sallyport/text.h>

#include "tracker/store/store.h"
#include "tracker/tracker.h"

struct fake_relay {
    int warnings, messages, ends, policies;
    enum end_reason reason;
    char text[512];
};

static void fake_notice(void *relay, bool is_warning, const char *text)
{
    struct fake_relay *f = relay;

    if (is_warning)
        f->warnings++;
    else
        f->messages++;
    text_copy(f->text, sizeof(f->text), text);
}

static void fake_end(void *relay, enum end_reason reason, const char *author, const char *text)
{
    struct fake_relay *f = relay;

    (void)author;
    f->ends++;
    f->reason = reason;
    text_copy(f->text, sizeof(f->text), text);
}

static void fake_policy(void *relay, const struct policy *policy)
{
    (void)policy;
    ((struct fake_relay *)relay)->policies++;
}

static const struct tracker_relay_ops ops = {fake_notice, fake_end, fake_policy};

struct fixture {
    char dir[64];
    char key[96];
    struct event_base *base;
    struct store *store;
    struct tracker *tracker;
};

static void open_all(struct fixture *f)
{
    char err[512];

    assert_int_equal(store_open(&f->store, f->dir, f->key, err, sizeof(err)), STORE_OPEN_OK);
    f->tracker = tracker_create(f->base, f->store, &ops, "node1");
    assert_non_null(f->tracker);
}

static void close_all(struct fixture *f)
{
    tracker_destroy(f->tracker);
    store_close(f->store);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    text_copy(f->dir, sizeof(f->dir), "/tmp/test-tracker-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->key, sizeof(f->key), "%s/store.key", f->dir);
    f->base = event_base_new();
    open_all(f);
    *state = f;
    return 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close_all(f);
    event_base_free(f->base);
    nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* Opens a session of alice; returns its id and the relay's view of the page. */
static uint64_t open_session(struct fixture *f, const struct policy *p, struct fake_relay *relay,
                             struct activity_page **page)
{
    struct session_info i = {.protocol = PROTOCOL_SSH, .relay_pid = 1};
    char err[256] = "";
    int fd = -1;

    text_copy(i.user, sizeof(i.user), "alice");
    text_copy(i.target, sizeof(i.target), "web01");
    text_copy(i.client_address, sizeof(i.client_address), "192.0.2.1");
    assert_int_equal(tracker_open(f->tracker, &i, p, relay, &fd, err, sizeof(err)), 0);
    *page = activity_map(fd);
    assert_non_null(*page);
    close(fd);
    return i.id;
}

static struct policy quick(void)
{
    struct policy p;

    policy_defaults(&p);
    p.idle_after = 1;
    p.warn_after = 1;
    p.disconnect_after = 2;
    return p;
}

static enum session_state state_of(struct fixture *f, uint64_t id)
{
    struct session_info i;

    assert_int_equal(tracker_get(f->tracker, id, &i), 0);
    return i.state;
}

static void spin(struct fixture *f, const int *until)
{
    while (!*until)
        event_base_loop(f->base, EVLOOP_ONCE);
    store_flush(f->store);
}

static void idle_warns_then_ends(void **state)
{
    struct fixture *f = *state;
    struct policy p = quick();
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id = open_session(f, &p, &relay, &page);
    struct session_info i;
    int64_t began = clock_mono_ms();

    assert_int_equal(state_of(f, id), SESSION_CONNECTING);
    tracker_ready(f->tracker, id);
    assert_int_equal(state_of(f, id), SESSION_ACTIVE);
    spin(f, &relay.warnings);
    assert_true(clock_mono_ms() - began >= 950); /* a loop's clock is a little older than ours */
    assert_string_equal(relay.text, "Idle for 1 second: you will be disconnected in 1 second "
                                    "unless you press a key.");
    assert_int_equal(state_of(f, id), SESSION_IDLE);
    spin(f, &relay.ends);
    assert_true(clock_mono_ms() - began >= 1950);
    assert_int_equal(relay.reason, END_IDLE_TIMEOUT);
    assert_string_equal(relay.text, "You have been disconnected: idle for 2 seconds");
    tracker_closed(f->tracker, id, END_USER_EXIT, "client", "anything");
    assert_int_equal(tracker_get(f->tracker, id, &i), 0);
    assert_int_equal(i.state, SESSION_DISCONNECTED);
    assert_int_equal(i.end_reason, END_IDLE_TIMEOUT); /* the reason that was asked for stays */
    activity_unmap(page);
}

static void any_key_clears_the_warning(void **state)
{
    struct fixture *f = *state;
    struct policy p = quick();
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id;

    p.disconnect_after = 3600;
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    spin(f, &relay.warnings);
    assert_true(activity_input(page, 1, true, clock_mono_ms())); /* says: tell the broker */
    tracker_resumed(f->tracker, id);
    assert_int_equal(state_of(f, id), SESSION_ACTIVE);
    assert_false(activity_input(page, 1, true, clock_mono_ms()));
    relay.warnings = 0;
    spin(f, &relay.warnings); /* and warns again after the next silence */
    activity_unmap(page);
}

static void input_postpones_everything(void **state)
{
    struct fixture *f = *state;
    struct policy p = quick();
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id = open_session(f, &p, &relay, &page);
    int64_t until = clock_mono_ms() + 2500;
    struct timeval soon = {0, 100000};

    tracker_ready(f->tracker, id);
    while (clock_mono_ms() < until) {
        if (activity_input(page, 3, true, clock_mono_ms()))
            tracker_resumed(f->tracker, id);
        event_base_loopexit(f->base, &soon);
        event_base_dispatch(f->base);
    }
    assert_int_equal(relay.warnings, 0);
    assert_int_equal(relay.ends, 0);
    activity_unmap(page);
}

static void running_command_is_not_idle(void **state)
{
    struct fixture *f = *state;
    struct policy p = quick();
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id = open_session(f, &p, &relay, &page);
    struct timeval long_enough = {2, 500000};

    tracker_ready(f->tracker, id);
    atomic_store(&page->holds_active, 1);
    event_base_loopexit(f->base, &long_enough);
    event_base_dispatch(f->base);
    assert_int_equal(relay.warnings + relay.ends, 0);
    assert_int_equal(state_of(f, id), SESSION_ACTIVE);
    activity_unmap(page);
}

static void maximum_duration_ends_an_active_one(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id;

    policy_defaults(&p);
    p.max_duration = 1;
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    spin(f, &relay.ends);
    assert_int_equal(relay.reason, END_MAX_DURATION);
    activity_unmap(page);
}

static void end_in_announces_then_ends(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    uint64_t id;

    policy_defaults(&p);
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    assert_int_equal(tracker_end(f->tracker, id, END_ADMIN_ENDED, "admin root", "maintenance", 1),
                     0);
    assert_int_equal(relay.warnings, 1);
    assert_string_equal(relay.text,
                        "You will be disconnected in 1 second: ended by admin root (maintenance)");
    assert_int_equal(relay.ends, 0);
    spin(f, &relay.ends);
    assert_string_equal(relay.text,
                        "You have been disconnected: ended by admin root (maintenance)");
    assert_int_equal(tracker_end(f->tracker, 4711, END_ADMIN_ENDED, "x", "", 0), ERR_NOT_FOUND);
    activity_unmap(page);
}

static void an_announced_end_can_be_taken_back(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    struct session_info now;
    uint64_t id;

    policy_defaults(&p);
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    assert_int_equal(tracker_cancel_end(f->tracker, id), ERR_NOT_FOUND); /* none was */
    assert_int_equal(tracker_end(f->tracker, id, END_ADMIN_ENDED, "admin root", "work", 3600), 0);
    assert_int_equal(tracker_get(f->tracker, id, &now), 0);
    assert_true(now.planned_wall_us > clock_wall_us());
    assert_string_equal(now.planned_by, "admin root");
    assert_int_equal(tracker_cancel_end(f->tracker, id), 0);
    assert_non_null(strstr(relay.text, "will not be disconnected"));
    assert_int_equal(tracker_get(f->tracker, id, &now), 0);
    assert_int_equal(now.planned_wall_us, 0);
    assert_string_equal(now.planned_by, "");
    assert_int_equal(relay.ends, 0);
    activity_unmap(page);
}

static void limits_refuse(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    struct session_info i = {.protocol = PROTOCOL_SSH};
    char err[256] = "";
    int fd = -1;

    policy_defaults(&p);
    p.sessions_per_user = 1;
    open_session(f, &p, &relay, &page);
    text_copy(i.user, sizeof(i.user), "alice");
    assert_int_equal(tracker_open(f->tracker, &i, &p, &relay, &fd, err, sizeof(err)), ERR_FULL);
    assert_non_null(strstr(err, "you have 1 session"));
    p.sessions_per_user = 0;
    tracker_set_max_sessions(f->tracker, 1);
    assert_int_equal(tracker_open(f->tracker, &i, &p, &relay, &fd, err, sizeof(err)), ERR_FULL);
    assert_int_equal(tracker_count(f->tracker), 1);
    activity_unmap(page);
}

static void totals_survive_the_relay(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    struct store_session row;
    uint64_t id;

    policy_defaults(&p);
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    assert_false(activity_input(page, 1234, true, clock_mono_ms()));
    assert_false(activity_output(page, 98765, false, clock_mono_ms()));
    activity_unmap(page); /* as a killed relay does */
    tracker_closed(f->tracker, id, END_RELAY_CRASHED, "relay", "");
    store_flush(f->store);
    assert_int_equal(store_session_get(f->store, id, &row), 0);
    assert_int_equal(row.info.bytes_in, 1234);
    assert_int_equal(row.info.bytes_out, 98765);
    assert_int_equal(row.info.end_reason, END_RELAY_CRASHED);
}

static void restart_adopts_or_closes(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *kept, *lost;
    struct store_session row;
    struct session_info i;
    uint64_t kept_id, lost_id;

    policy_defaults(&p);
    kept_id = open_session(f, &p, &relay, &kept);
    lost_id = open_session(f, &p, &relay, &lost);
    tracker_ready(f->tracker, kept_id);
    tracker_ready(f->tracker, lost_id);
    assert_false(activity_input(kept, 5, true, clock_mono_ms()));
    store_flush(f->store);
    close_all(f);
    open_all(f); /* the next broker */
    assert_int_equal(tracker_adopt(f->tracker, kept_id, &p, kept, &relay), 0);
    assert_int_equal(tracker_adopt(f->tracker, kept_id, &p, kept, &relay), ERR_EXISTS);
    assert_int_equal(tracker_adopt(f->tracker, 999, &p, kept, &relay), ERR_NOT_FOUND);
    tracker_close_unclaimed(f->tracker);
    store_flush(f->store);
    assert_int_equal(store_session_get(f->store, lost_id, &row), 0);
    assert_int_equal(row.info.end_reason, END_BROKER_LOST);
    assert_int_equal(tracker_get(f->tracker, kept_id, &i), 0);
    assert_int_equal(i.state, SESSION_ACTIVE);
    assert_int_equal(i.bytes_in, 5);
    /* late, but alive: the row is opened again and it is not ended for being late */
    assert_int_equal(tracker_adopt(f->tracker, lost_id, &p, lost, &relay), 0);
    store_flush(f->store);
    assert_int_equal(store_session_get(f->store, lost_id, &row), 0);
    assert_true(row.is_open);
    assert_int_equal(relay.ends, 0);
}

struct watched {
    int changes, ends;
};

static void on_change(const struct session_info *info, bool is_end, void *arg)
{
    struct watched *w = arg;

    (void)info;
    if (is_end)
        w->ends++;
    else
        w->changes++;
}

static void watchers_hear_changes(void **state)
{
    struct fixture *f = *state;
    struct policy p;
    struct fake_relay relay = {0};
    struct activity_page *page;
    struct watched w = {0};
    struct tracker_watch *watch = tracker_watch_add(f->tracker, on_change, &w);
    uint64_t id;

    policy_defaults(&p);
    id = open_session(f, &p, &relay, &page);
    tracker_ready(f->tracker, id);
    tracker_closed(f->tracker, id, END_USER_EXIT, "alice", "");
    assert_true(w.changes >= 2);
    assert_int_equal(w.ends, 1);
    tracker_watch_remove(f->tracker, watch);
    open_session(f, &p, &relay, &page);
    assert_int_equal(w.ends, 1);
    activity_unmap(page);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(idle_warns_then_ends),
        TEST(any_key_clears_the_warning),
        TEST(input_postpones_everything),
        TEST(running_command_is_not_idle),
        TEST(maximum_duration_ends_an_active_one),
        TEST(end_in_announces_then_ends),
        TEST(an_announced_end_can_be_taken_back),
        TEST(limits_refuse),
        TEST(totals_survive_the_relay),
        TEST(restart_adopts_or_closes),
        TEST(watchers_hear_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
