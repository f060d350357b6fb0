/* The broker's end of an attempt by NLA: what a process that was taken over can say to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event.h>

#define SALLYPORT_LIBEXECDIR "/nonexistent" /* the program is not started */
#include "proxy/broker/nla.c"               /* the helper's link is a pair of ours */

static const uint8_t hash[NLA_HASH_LEN] = {1};

struct fixture {
    struct broker broker;
    struct nla_helper *helper;
    struct nla_attempt *attempt;
    int helpers, relay, process; /* its ends */
    unsigned asked, proved, over;
    bool gives_hash, is_ok;
};

static struct nla_talk m;

static void on_who(void *arg, const char *user, const char *domain)
{
    struct fixture *f = arg;

    (void)user, (void)domain;
    f->asked++;
    if (f->gives_hash)
        nla_attempt_hash(f->attempt, hash);
}

static void on_proved(void *arg)
{
    ((struct fixture *)arg)->proved++;
}

static void on_over(void *arg, bool is_ok, const char *why)
{
    struct fixture *f = arg;

    (void)why;
    f->over++;
    f->is_ok = is_ok;
}

static void start(struct fixture *f)
{
    static const struct nla_events events = {on_who, on_proved, on_over};
    int pair[2], fds[2];

    memset(f, 0, sizeof(*f));
    f->gives_hash = true;
    f->broker.base = event_base_new();
    f->helper = nla_helper_create(&f->broker);
    assert_non_null(f->helper);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    f->helper->pid = getpid();
    f->helper->link = pair[0];
    f->helpers = pair[1];
    f->attempt = nla_attempt_begin(f->helper, "key", 3, &events, f, &f->relay);
    assert_non_null(f->attempt);
    assert_int_equal(nla_talk_receive(f->helpers, &m, fds), 0);
    assert_int_equal(m.type, NLA_TALK_START);
    f->process = fds[0];
    close(fds[1]);
}

static void end(struct fixture *f)
{
    nla_attempt_end(f->attempt);
    nla_helper_destroy(f->helper);
    event_base_free(f->broker.base);
    close(f->helpers);
    close(f->relay);
    close(f->process);
}

static void say(struct fixture *f, enum nla_talk_type type)
{
    memset(&m, 0, sizeof(m));
    m.type = (uint8_t)type;
    memcpy(m.user, "alice", 5);
    if (!f->over)
        assert_int_equal(nla_talk_send(f->process, &m, NULL), 0);
    event_base_loop(f->broker.base, EVLOOP_NONBLOCK);
}

static void in_order(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    say(&f, NLA_TALK_WHO);
    assert_int_equal(nla_talk_receive(f.process, &m, NULL), 0);
    assert_int_equal(m.type, NLA_TALK_HASH);
    assert_memory_equal(m.data, hash, sizeof(hash));
    say(&f, NLA_TALK_PROVED);
    assert_int_equal(f.proved, 1);
    say(&f, NLA_TALK_DONE);
    assert_true(f.over == 1 && f.is_ok);
    end(&f);
}

/* Or it would get everybody's. */
static void one_hash_only(void **state)
{
    struct fixture f;

    (void)state;
    start(&f);
    say(&f, NLA_TALK_WHO);
    assert_int_equal(nla_talk_receive(f.process, &m, NULL), 0);
    say(&f, NLA_TALK_WHO);
    assert_int_equal(f.asked, 1);
    assert_true(f.over == 1 && !f.is_ok);
    end(&f);
}

static void nothing_is_proved_before(void **state)
{
    static const enum nla_talk_type first[] = {NLA_TALK_PROVED, NLA_TALK_DONE};
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        for (int is_asking = 0; is_asking < 2; is_asking++) {
            start(&f);
            f.gives_hash = false;
            if (is_asking)
                say(&f, NLA_TALK_WHO);
            say(&f, first[i]);
            assert_int_equal(f.proved, 0);
            assert_true(f.over == 1 && !f.is_ok);
            end(&f);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(one_hash_only),
        cmocka_unit_test(nothing_is_proved_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
