"""What a relay that was taken over can make the broker do, now and across a restart: nothing."""
import base64
import glob
import os
import time

import pytest

import fakerelay
import harness
from fakerelay import Process, Relay
from harness import wait_until


@pytest.fixture
def blob(keys):
    return base64.b64decode(keys.public("alice").split()[1])


@pytest.fixture
def make_process(proxy):
    made = []

    def make():
        made.append(Process(proxy))
        return made[-1]

    yield make
    for p in made:
        p.finish()


@pytest.fixture
def process(make_process):
    return make_process()


@pytest.fixture
def relay(process, blob):
    """In a session of alice at web01, not logged in there yet."""
    r = Relay(process).hello().welcomed()
    assert r.login("alice", blob) == fakerelay.AUTH_OK
    assert r.route("web01")
    yield r
    r.close()


@pytest.mark.parametrize("closes_link", [False, True])
def test_closed_means_gone(proxy, process, relay, closes_link):
    """A session that is over for the list is over: nobody goes on in it unseen."""
    relay.closed(1, "alice")
    relay.hear(fakerelay.CLOSED_ACK)
    assert proxy.sessions() == []
    if closes_link:
        relay.link.close()
    fakerelay.gone(process)
    wait_until(lambda: proxy.json("status")["links"] == 0, "the record is gone")
    assert proxy.history()[0]["endReason"] == "user-exit"


def adopted(proxy, process, relay=None):
    """The link of the next broker, whose daemon was started anew."""
    listener = process.ask(b"listen")
    proxy.kill()
    if relay:
        relay.link.close()
    proxy.start()
    link, _ = listener.accept()
    listener.close()
    link.settimeout(30)
    return Relay(process, link)


@pytest.mark.parametrize("phase", [fakerelay.LOGIN, fakerelay.CHOOSING])
def test_a_session_cannot_be_left_behind(proxy, process, relay, phase, blob):
    """Adopted with a session, it may not log in or ask for a target again."""
    fds = relay.fds[1:2]
    again = adopted(proxy, process, relay)
    again.hello(phase, "alice", relay.session, relay.ticket, fds).welcomed()
    again.say(fakerelay.AUTH_KEY, fakerelay.text("alice") + fakerelay.text("") + b"\1" +
              fakerelay.text("ssh-ed25519") + fakerelay.text(blob))
    fakerelay.gone(process)
    again.close()
    rows = proxy.wait_history(1)
    assert [r["endReason"] for r in rows] == ["relay-crashed"]
    assert proxy.sessions() == []


def test_nobody_is_not_somebody_after_a_restart(proxy, process):
    """Without a ticket it has not logged in, whatever it says."""
    r = Relay(process).hello().welcomed()
    again = adopted(proxy, process, r)
    again.hello(fakerelay.CHOOSING).welcomed()
    again.say(fakerelay.ROUTE, fakerelay.text("") + fakerelay.text("web01"))
    fakerelay.gone(process)
    assert again.is_dropped()
    assert proxy.history() == [] and proxy.sessions() == []


def test_an_older_ticket_hides_no_session(proxy, process, blob):
    """The ticket of the login, shown again when a session has followed."""
    r = Relay(process).hello().welcomed()
    assert r.login("alice", blob) == fakerelay.AUTH_OK
    older = r.ticket
    assert r.route("web01")
    r.say(fakerelay.READY, fakerelay.text("OpenSSH"))
    proxy.wait_sessions(1, "active")
    again = adopted(proxy, process, r)
    again.hello(fakerelay.CHOOSING, "alice", 0, older)
    fakerelay.gone(process)
    again.close()
    r.close()
    assert proxy.wait_history(1)[0]["endReason"] == "broker-lost"


def test_a_ticket_is_bound_to_its_process(proxy, make_process, relay):
    thief = make_process()
    again = adopted(proxy, thief, relay)
    again.hello(fakerelay.SESSION, "alice", relay.session, relay.ticket, relay.fds[1:2])
    fakerelay.gone(thief)


def test_late_is_not_too_late(make_proxy, target, keys, blob):
    """An adopted relay that does not answer (its disk stalls) is left alone until it does."""
    proxy = make_proxy({"proxy": {"adopt_grace": "1s"}})
    proxy.add_user("alice", key=keys.make("alice")).add_target(target).grant()
    process = Process(proxy)
    relay = Relay(process).hello().welcomed()
    assert relay.login("alice", blob) == fakerelay.AUTH_OK and relay.route("web01")
    fds = relay.fds[1:2]
    again = adopted(proxy, process, relay)
    assert proxy.wait_history(1)[0]["endReason"] == "broker-lost"
    time.sleep(11)  # longer than a new relay may stay silent
    assert process.is_there()
    again.hello(fakerelay.SESSION, "alice", relay.session, relay.ticket, fds).welcomed()
    assert proxy.wait_sessions(1)[0]["id"] == str(relay.session)
    assert proxy.history() == []
    process.finish()
    relay.close()
    again.close()
    assert proxy.wait_history(1)[0]["endReason"] == "relay-crashed"


def open_files(proxy):
    return len(os.listdir("/proc/%d/fd" % proxy.process.pid))


def test_recordings_of_closed_channels_are_let_go(proxy, relay):
    """One connection with ever new channels (a multiplexing client) costs no descriptor each."""
    before = open_files(proxy)
    for number in range(1, 41):
        relay.record_open(number)
        relay.hear(fakerelay.RECORDING)
        relay.channel(number, 0)
        relay.channel(number, 1)
        while relay.fds:
            os.close(relay.fds.pop())
    wait_until(lambda: open_files(proxy) <= before + 3, "recordings are closed", timeout=10)
    assert len(proxy.sessions()) == 1


def test_recordings_are_bounded(proxy, process, relay):
    before = open_files(proxy)
    with pytest.raises((EOFError, OSError)):
        for number in range(1, 400):
            relay.record_open(number)
            relay.hear(fakerelay.RECORDING)
    fakerelay.gone(process)
    assert len(glob.glob(proxy.recordings + "/*/*")) <= 128
    wait_until(lambda: open_files(proxy) <= before, "all are closed")


def test_channel_zero_is_nobodys_recording(process, relay):
    relay.record_open(0)
    fakerelay.gone(process)


def test_events_are_its_own(proxy, process, relay):
    relay.event("login", "user bob")
    relay.event("host-key-mismatch", "the target's")
    wait_until(lambda: proxy.events("host-key-mismatch"), "events arrive")
    assert [e["text"] for e in proxy.events("relay:login")] == ["user bob"]
    assert all(e["user"] == "alice" for e in proxy.events("relay:login"))
    assert len(proxy.events("login")) == 1


def test_a_stranger_writes_no_events(proxy, process):
    Relay(process).hello().welcomed().event("login", "root")
    fakerelay.gone(process)
    assert [e for e in proxy.events() if "login" in e["kind"]] == []


def test_a_flood_does_not_stop_others(proxy, client, process, relay):
    """More messages than any session has are taken slowly; logins and control go on."""
    relay.link.setblocking(False)
    began, held_up = time.monotonic(), 0
    while time.monotonic() - began < 3:
        try:
            relay.event("idle-warning", "x" * 200)
        except BlockingIOError:
            held_up += 1
            time.sleep(0.005)
    assert held_up > 10
    assert client.ssh("echo fine").stdout == "fine\n"
    assert proxy.ctl("status").returncode == 0
    rows = len(proxy.events("idle-warning"))
    assert rows < 2000 + 200 * (time.monotonic() - began + 1)
    assert process.is_there()


def test_an_end_by_an_admin_cannot_be_claimed(proxy, relay):
    relay.closed(2, "admin root", "You have been disconnected: ended by admin root")
    relay.hear(fakerelay.CLOSED_ACK)
    row = proxy.wait_history(1)[0]
    assert (row["endReason"], row["endedBy"]) == ("relay-crashed", "relay")


def test_failed_logins_of_many_sources_do_not_fill_the_store(proxy, process, blob):
    """Each source stays below its limit; the rows are bounded all the same."""
    wrong = blob[:-4] + b"zzzz"
    links = []  # the broker ends a process with its last link
    for n in range(210):
        links.append(Relay(process, address="2001:db8:%x::1" % n).hello().welcomed())
        for _ in range(2):
            links[-1].login("alice", wrong)
    rows = proxy.events("login-failed")
    assert 200 <= len(rows) <= 310
    proxy.stop()
    proxy.start()
    rows = proxy.events("login-failed")
    assert "120 more failed logins have no row of their own" in [e["text"] for e in rows]


def test_pages_of_long_names_arrive(proxy, process, blob):
    """The menu's list fits the link, however long the names are."""
    lines = ""
    for n in range(150):
        lines += "".join(["target add t%s%03d --type ssh --address 127.0.0.1:1 --auth none "
                          "--account %s\n" % ("x" * 60, n, "y" * 128)])
    for line in lines.splitlines()[:150]:
        proxy.do(*line.split())
    proxy.grant("alice", "*")
    r = Relay(process).hello().welcomed()
    assert r.login("alice", blob) == fakerelay.AUTH_OK
    seen, total = 0, 1
    while seen < total:
        r.say(fakerelay.TARGETS, seen.to_bytes(4, "big"))
        time.sleep(0.3)  # nobody reads while the rows are sent
        head = r.hear(fakerelay.TARGET_LIST)
        count, total = int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big")
        for _ in range(count):
            r.hear(fakerelay.TARGET_ROW)
        assert count > 0
        seen += count
    assert total == 151
    assert "not sent" not in proxy.log()


def test_refused_channels_do_not_fill_the_log(proxy, keys):
    import paramiko
    c = paramiko.SSHClient()
    c.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    c.connect("127.0.0.1", proxy.port, "alice+web01", key_filename=keys.make("alice"),
              allow_agent=False, look_for_keys=False)
    for _ in range(200):
        with pytest.raises(paramiko.ChannelException):
            c.get_transport().open_channel("direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 2))
    _, out, _ = c.exec_command("echo on")
    assert out.read() == b"on\n"
    c.close()
    proxy.wait_history(1)
    assert 1 <= len(proxy.events("channel-refused")) <= 30
    assert proxy.log().count("channel refused:") <= 30


def test_a_dead_target_delays_nobody(make_proxy, target, keys, blob, dead):
    """Forty sessions wait for it; others connect at once, and the daemon stops at once."""
    p = make_proxy({"proxy": {"connect_timeout": "60s"}})
    p.add_user("alice", key=keys.make("alice")).add_target(target).grant("alice", "*")
    p.do("target", "add", "dead01", "--type", "ssh", "--address", dead, "--auth", "none")
    process = Process(p)
    links = []
    for _ in range(40):
        links.append(Relay(process).hello().welcomed())
        assert links[-1].login("alice", blob) == fakerelay.AUTH_OK
        links[-1].say(fakerelay.ROUTE, fakerelay.text("") + fakerelay.text("dead01"))
    p.wait_sessions(40, "connecting")
    began = time.monotonic()
    assert harness.Client(p, key=keys.make("alice")).ssh("echo here").stdout == "here\n"
    assert time.monotonic() - began < 20
    began = time.monotonic()
    assert p.stop() == 0
    assert time.monotonic() - began < 5
    assert process.is_there()
    process.finish()


def test_a_command_of_the_door_ends_with_its_link(proxy, process, blob):
    """Whoever keeps a second link keeps no command of the first one."""
    r = Relay(process).hello().welcomed()
    assert r.login("alice", blob) == fakerelay.AUTH_OK
    assert r.door(1, "passwd", has_pty=1)[0]

    def commands():
        return [pid for pid in harness.children(proxy.process.pid)
                if open("/proc/%d/comm" % pid).read().startswith("sallyctl")]
    wait_until(commands, "it runs")
    other = Relay(process).hello().welcomed()
    r.link.close()
    wait_until(lambda: not commands(), "it ends")
    assert process.is_there()
    other.close()
    r.close()


@pytest.mark.parametrize("phase", [fakerelay.CHOOSING, fakerelay.SESSION])
def test_a_lock_before_it_says_hello_again(proxy, process, blob, phase):
    """Found by the next broker, and slow to say whose it is: what was withdrawn meanwhile is."""
    r = Relay(process).hello().welcomed()
    assert r.login("alice", blob) == fakerelay.AUTH_OK
    if phase == fakerelay.SESSION:
        assert r.route("web01")
        r.say(fakerelay.READY, fakerelay.text("OpenSSH"))
        proxy.wait_sessions(1, "active")
    again = adopted(proxy, process, r)
    proxy.do("user", "lock", "alice")
    again.hello(phase, "alice", r.session, r.ticket, r.fds[1:2]).welcomed()
    again.hear(fakerelay.END)
    fakerelay.gone(process)
    again.close()
    r.close()
    if phase == fakerelay.SESSION:
        wait_until(lambda: proxy.wait_history(1)[0]["endReason"] != "", "it has ended")
    assert proxy.sessions() == []
