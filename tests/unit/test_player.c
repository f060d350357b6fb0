/* Who may look at a recording that is played: whose connection it is, by the kernel's table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tracker/player/owner.h"

static const char table[] =
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n"
    "   0: 0100007F:0D3D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1\n"
    "   1: 0100007F:0D3D 0100007F:A2C4 01 00000000:00000000 00:00000000 00000000     0        0 2\n"
    "   2: 0100007F:A2C4 0100007F:0D3D 01 00000000:00000000 00:00000000 00000000  1000        0 3\n"
    "   3: 0100007F:A2C5 0100007F:0D3E 01 00000000:00000000 00:00000000 00000000  1001        0 "
    "4\n"
    "   4: 0100007F:A2C7 0100007F:0D3D 05 00000000:00000000 00:00000000 00000000     0        0 0\n"
    "   5: 0100007F:A2C8 0100007F:0D3D 01 00000000:00000000 00:00000000 00000000     0        0 "
    "0\n";

static struct sockaddr_in peer_of(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void the_other_end(void **state)
{
    struct sockaddr_in peer = peer_of(0xa2c4);
    uint32_t uid = 7;

    (void)state;
    assert_true(owner_find(table, &peer, 0x0d3d, &uid)); /* not our own end of it */
    assert_int_equal(uid, 1000);
    assert_false(owner_find(table, &peer, 0x0d3e, &uid)); /* to another port */
    peer = peer_of(0xa2c6);
    assert_false(owner_find(table, &peer, 0x0d3d, &uid));
    assert_false(owner_find("", &peer, 0x0d3d, &uid));
}

/* Whoever connects, says all that there is to say and closes is nobody's, and not root. */
static void one_that_was_closed(void **state)
{
    uint32_t uid = 7;

    (void)state;
    for (uint16_t port = 0xa2c7; port <= 0xa2c8; port++) {
        struct sockaddr_in peer = peer_of(port);

        assert_false(owner_find(table, &peer, 0x0d3d, &uid));
    }
    assert_int_equal(uid, 7);
}

static void a_real_connection(void **state)
{
    struct sockaddr_in a = peer_of(0), peer;
    socklen_t len = sizeof(a), peer_len = sizeof(peer);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int client, server;
    struct owner o;
    uint32_t uid;

    (void)state;
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(owner_init(&o, listener, UINT32_MAX), 0);
    for (int i = 0; i < 2; i++) { /* the table is read anew */
        client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(client, (struct sockaddr *)&a, sizeof(a)), 0);
        server = accept(listener, (struct sockaddr *)&peer, &peer_len);
        assert_true(owner_may(&o, &peer, &uid));
        assert_int_equal(uid, geteuid());
        o.own = 12345;
        assert_int_equal(owner_may(&o, &peer, &uid), geteuid() == 0);
        o.own = geteuid();
        close(client);
        assert_false(owner_may(&o, &peer, &uid));
        close(server);
    }
    close(listener);
    owner_finish(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_other_end),
        cmocka_unit_test(one_that_was_closed),
        cmocka_unit_test(a_real_connection),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
