"""NLA at the proxy's own RDP door, and lock-step: xfreerdp to xrdp and to freerdp-shadow."""
import os
import time

import pytest

import harness
import nla_peer
import rdp_peers as peers
from harness import wait_until
from nla_peer import (HYBRID_REQUIRED, PROTOCOL_HYBRID, PROTOCOL_HYBRID_EX, PROTOCOL_SSL,
                      STATUS_LOGON_FAILURE, NlaClient, error_of, negotiate, ts_request)
from rdp_fixtures import *
from test_rdp_screen import enrolled, shows_error, shows_form, shows_list, type_in

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

SECRET = "target-secret"
LOGON_FAILURE = "ERRCONNECT_LOGON_FAILURE"
ANY = PROTOCOL_SSL | PROTOCOL_HYBRID | PROTOCOL_HYBRID_EX


@pytest.fixture(scope="module")
def guarded(place):
    """A target that insists on NLA."""
    server = peers.Shadow(place, "guarded", security="nla",
                          users={"bob": SECRET, "alice": PASSWORD})
    try:
        server.start()
        server.display.paint("#336699")
        yield server
    finally:
        server.finish()


def turn_on(p, user="alice", password=PASSWORD):
    p.do("user", "set", user, "--rdp-nla", "on", "--password-stdin", input=password + "\n")
    return p


@pytest.fixture
def bare(make_rdp):
    """Without targets, and with as many failures as a test wants."""
    return turn_on(make_rdp({"limits": {"source_failures": "0"}}))


@pytest.fixture
def proxy(make_rdp, xrdp, shadow, guarded):
    p = turn_on(make_rdp())
    add_target(p, "win01", xrdp)
    add_target(p, "win02", shadow)
    return add_target(p, "win03", guarded)


def failures(p, count=1):
    """The texts of so many failed logins, the oldest first."""
    return wait_until(lambda: [e for e in p.events() if e["kind"] == "login-failed"][:count]
                      if len([e for e in p.events() if e["kind"] == "login-failed"]) >= count
                      else None, "%d failed logins" % count)


def nla_of(p, user="alice"):
    return p.json("user", "show", user)["rdpNla"]


def logins(p):
    return [e["text"] for e in p.events() if e["kind"] == "login"]


def gets_nla(p, cookie, protocols=ANY):
    s, verdict, value = negotiate(p.rdp_port, protocols, cookie)
    s.close()
    return (verdict, value) in (("ok", PROTOCOL_HYBRID), ("ok", PROTOCOL_HYBRID_EX))


# ---- sessions ----

@pytest.mark.parametrize("security, target", [("/sec:nla", "win01"), ("/sec:nla", "win02"),
                                              ("/sec:nla", "win03"), ("", "win01")])
def test_a_desktop(proxy, clients, place, screen, target, security):
    """xrdp by TLS, freerdp-shadow by TLS and by NLA; nothing but the cookie says who it is before."""
    c = connect(clients, place, screen, proxy, *filter(None, [security]),
                login="alice+" + target, size=(800, 600))
    live = proxy.wait_sessions(1, "active")[0]
    assert (live["user"], live["account"], live["resourceName"]) == ("alice", "bob", target)
    shows(screen, BLUE, (40, 40, 760, 500), 0.95)
    assert logins(proxy) == ["nla"]
    c.close_window()
    row = ended(proxy)
    assert row["endReason"] == "user-exit" and row["endedBy"] == "alice", row
    log = proxy.log()
    assert SECRET not in log and PASSWORD not in log


def test_the_domain_is_the_target(proxy, clients, place, screen):
    connect(clients, place, screen, proxy, "/sec:nla", "/d:win01", login="alice")
    live = proxy.wait_sessions(1, "active")[0]
    assert (live["account"], live["resourceName"]) == ("bob", "win01")
    shows(screen, BLUE, (40, 60, 700, 500))


def test_without_the_clipboard(proxy, clients, place, screen, xrdp):
    """In lock-step too, what policy forbids leads nowhere: the numbers are the target's but that."""
    proxy.do("target", "set", "win01", "rdp_channels=none")
    connect(clients, place, screen, proxy, "/sec:nla", "+clipboard")
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 10, 1000, 740))
    assert proxy.sessions()[0]["channels"] == ["desktop"]
    copy_on(xrdp.display, "from the target")
    time.sleep(1)
    assert pasted_on(screen) != "from the target"


def test_passthrough(proxy, clients, place, screen, guarded):
    """What the client delegated logs in at the target, whose NLA wants it."""
    proxy.do("target", "add", "win04", "--type", "rdp", "--address", guarded.address, "--account",
             "alice", "--auth", "passthrough", "--accept-new")
    proxy.grant("alice", "win04")
    connect(clients, place, screen, proxy, "/sec:nla", login="alice+win04", size=(800, 600))
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (40, 40, 760, 500), 0.95)


def test_an_end_is_drawn(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy, "/sec:nla")
    live = proxy.wait_sessions(1, "active")[0]
    shows(screen, BLUE, (10, 10, 1000, 740))
    proxy.do("session", "end", live["id"], "-y")
    shows_notice(screen)
    c.wait()
    assert ended(proxy)["endReason"] == "admin-ended"


def test_a_restart_of_the_broker(proxy, clients, place, screen):
    connect(clients, place, screen, proxy, "/sec:nla")
    live = proxy.wait_sessions(1, "active")[0]
    proxy.kill()
    proxy.start()
    again = proxy.wait_sessions(1, "active")[0]
    assert again["id"] == live["id"] and again["pid"] == live["pid"]
    connect(clients, place, screen, proxy, "/sec:nla", login="alice+win02")
    proxy.wait_sessions(2, "active")


def test_a_file_for_mstsc(proxy):
    """A routing token would take the cookie's place, by which NLA is chosen."""
    text = proxy.do("target", "rdpfile", "win01", "--user", "alice", "--address", "bastion")
    assert "username:s:alice+win01\n" in text and "enablecredsspsupport:i:1\n" in text
    assert "loadbalanceinfo" not in text
    assert "enablecredsspsupport:i:0\n" in proxy.do("target", "rdpfile", "win01", "--user", "nobody")


# ---- what must be asked ----

def test_a_second_factor(proxy, clients, place, screen):
    """NLA cannot ask: the client is served on to a screen that can."""
    app = enrolled(proxy, "alice")
    connect(clients, place, screen, proxy, "/sec:nla")
    shows_form(screen)
    type_in(screen, app.wrong_code(), "Return")
    shows_error(screen)
    type_in(screen, app.code(), "Return")
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (40, 60, 700, 500))
    assert logins(proxy) == ["nla, totp"]


def test_the_target(proxy, clients, place, screen):
    connect(clients, place, screen, proxy, "/sec:nla", login="alice")
    shows_list(screen)
    type_in(screen, "win01", "Return")
    assert proxy.wait_sessions(1, "active")[0]["resourceName"] == "win01"
    shows(screen, BLUE, (40, 60, 700, 500))


def test_the_password_of_the_account(proxy, clients, place, screen, guarded):
    proxy.do("target", "add", "win06", "--type", "rdp", "--address", guarded.address, "--account",
             "bob", "--auth", "prompt", "--accept-new")
    proxy.grant("alice", "win06")
    connect(clients, place, screen, proxy, "/sec:nla", login="alice+win06", size=(800, 600))
    shows_form(screen)
    type_in(screen, SECRET, "Return")
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (250, 250, 500, 500))


# ---- refusals ----

def test_wrong_password(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy, "/sec:nla", password="wrong")
    assert c.wait() != 0
    assert LOGON_FAILURE in c.log(), c.log()
    event = failures(proxy)[0]
    assert event["user"] == "alice" and event["text"] == "nla, attempt 1"
    assert proxy.history() == [] and logins(proxy) == []


def test_a_block_counts_nla(make_rdp, clients, place, screen, xrdp):
    p = add_target(turn_on(make_rdp({"limits": {"source_failures": "3"}})), "win01", xrdp)
    for _ in range(6):  # the bucket drains as time goes by
        c = NlaClient(p.rdp_port)
        c.say(ts_request(6, nla_peer.ntlm_negotiate()))
        if error_of(c.hear()) == STATUS_LOGON_FAILURE:
            break  # at once
        c.say(ts_request(6, nla_peer.ntlm_authenticate("alice"), os.urandom(48), os.urandom(32)))
        assert error_of(c.hear()) == STATUS_LOGON_FAILURE
    else:
        raise AssertionError("never blocked")
    c = connect(clients, place, screen, p, "/sec:nla")  # the right password does not help now
    c.wait()
    assert LOGON_FAILURE in c.log(), c.log()
    wait_until(lambda: p.events("source-blocked"), "the event")
    assert logins(p) == [] and failures(p, 3)


@pytest.mark.parametrize("target, words", [("nowhere", "no access"), ("win09", "no access")])
def test_a_forbidden_target_is_a_screen(proxy, clients, place, screen, xrdp, target, words):
    """In lock-step the client is nowhere yet when it is refused: it is served on, and told."""
    proxy.do("target", "add", "win09", "--type", "rdp", "--address", xrdp.address, "--accept-new")
    c = connect(clients, place, screen, proxy, "/sec:nla", login="alice+" + target)
    shows_notice(screen)
    c.wait()
    assert c.error_info() == "SERVER_DENIED_CONNECTION", c.log()
    assert logins(proxy) == ["nla"]


def test_a_target_that_is_down_is_a_screen(proxy, clients, place, screen):
    proxy.do("target", "add", "down", "--type", "rdp", "--address",
             "127.0.0.1:%d" % harness.free_port(), "--account", "bob", "--auth", "password",
             "--secret-stdin", "--accept-new", input="x\n")
    proxy.grant("alice", "down")
    connect(clients, place, screen, proxy, "/sec:nla", login="alice+down")
    shows_notice(screen)
    clients[-1].wait()
    assert ended(proxy)["endReason"] == "target-unreachable"


def test_a_wrong_password_at_the_target(proxy, clients, place, screen, guarded):
    """NLA on both sides, and the second one fails: the sentence says whose password it is."""
    proxy.do("target", "add", "win05", "--type", "rdp", "--address", guarded.address, "--account",
             "bob", "--auth", "password", "--secret-stdin", "--accept-new", input="wrong\n")
    proxy.grant("alice", "win05")
    connect(clients, place, screen, proxy, "/sec:nla", login="alice+win05")
    shows_notice(screen)
    clients[-1].wait()
    row = ended(proxy)
    assert row["endReason"] == "target-unreachable" and "win05" in row["endText"]


# ---- which security ----

def test_required(make_rdp, clients, place, screen, xrdp):
    p = add_target(turn_on(make_rdp({"rdp": {"nla": "required"}})), "win01", xrdp)
    _, verdict, code = negotiate(p.rdp_port, PROTOCOL_SSL)
    assert (verdict, code) == ("failure", HYBRID_REQUIRED)
    assert gets_nla(p, "anybody") and gets_nla(p, "")
    connect(clients, place, screen, p)
    p.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 10, 1000, 740))


# ---- passwords ----

def test_on_pending_off(bare, place, screen, clients):
    p = bare
    assert nla_of(p) == "on"
    p.do("user", "passwd", "alice", "--password-stdin", input="another one\n")
    assert nla_of(p) == "on"
    assert error_of(NlaClient(p.rdp_port).fail("alice")) == STATUS_LOGON_FAILURE
    c = connect(clients, place, screen, p, "/sec:nla", password=PASSWORD)
    c.wait()
    assert LOGON_FAILURE in c.log()
    c = connect(clients, place, screen, p, "/sec:nla", login="alice+nowhere", password="another one")
    c.wait()
    assert LOGON_FAILURE not in c.log() and logins(p) == ["nla"]
    p.do("user", "set", "alice", "--rdp-nla", "off")
    assert nla_of(p) == "off" and not gets_nla(p, "alice")
    said = p.ctl("user", "set", "alice", "--rdp-nla", "on").stderr
    assert "from the next time that the password is set" in said
    assert nla_of(p) == "pending" and not gets_nla(p, "alice")
    done = p.ctl("user", "set", "alice", "--rdp-nla", "on", "--password-stdin", input="wrong\n")
    assert done.returncode != 0 and nla_of(p) == "pending"
    c = connect(clients, place, screen, p, login="alice+nowhere", password="another one")
    c.wait()  # by TLS, with the password: from here on there is a hash
    assert nla_of(p) == "on" and gets_nla(p, "alice")
    p.do("user", "passwd", "alice", "--remove")
    assert nla_of(p) == "pending"
