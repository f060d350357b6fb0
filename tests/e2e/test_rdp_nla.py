"""NLA at the proxy's own RDP door, and lock-step: xfreerdp to xrdp and to freerdp-shadow."""
import contextlib
import os
import signal
import socket
import ssl
import struct
import subprocess
import time

import pytest

import fakerelay
import harness
import nla_peer
import rdp_peers as peers
from harness import wait_until
from nla_peer import (HYBRID_REQUIRED, PROTOCOL_HYBRID, PROTOCOL_HYBRID_EX, PROTOCOL_SSL,
                      SSL_REQUIRED, STATUS_LOGON_FAILURE, NlaClient, error_of, negotiate,
                      ts_request)
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

@pytest.mark.parametrize("target", ["win01", "win02", "win03"])
@pytest.mark.parametrize("security", ["/sec:nla", ""])
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


# ---- all that fails looks the same, and costs the same ----

def test_one_answer_for_all(bare):
    p = bare
    for name in ("carol", "dave", "erin"):
        p.add_user(name, password=PASSWORD)
    turn_on(p, "dave").do("user", "lock", "dave")
    p.do("user", "set", "erin", "--rdp-nla", "on")
    answers = [NlaClient(p.rdp_port).fail(user)
               for user in ("alice", "nobody", "carol", "dave", "erin", "x" * 200, "a+b+c+d", "")]
    assert {error_of(a) for a in answers} == {STATUS_LOGON_FAILURE}
    assert len(set(answers)) == 1
    said = {e["user"]: e["text"] for e in failures(p, len(answers))}
    assert said["alice"] == said["nobody"] == "nla, attempt 1"
    assert "rdp-nla" in said["carol"] and "locked" in said["dave"] and "next password" in said["erin"]


def test_each_version(bare):
    """2 to 6, with NTLM as it is and inside SPNEGO: let in, and refused as that version knows."""
    right = 0
    for version in (2, 3, 4, 5, 6):
        for wrap in (False, True):
            for has_mic in (True, False):
                answer = NlaClient(bare.rdp_port).fail("alice", version, wrap, has_mic)
                assert (error_of(answer) if answer else None) == \
                    (None if version in (2, 5) else STATUS_LOGON_FAILURE), (version, wrap, has_mic)
            c = NlaClient(bare.rdp_port, PROTOCOL_HYBRID_EX)
            c.login("alice+win01", PASSWORD, version, wrap)
            assert c.early_result() == 0
            right += 1
            wait_until(lambda: logins(bare) == ["nla"] * right, "the login")
            c.close()


def test_another_certificate(bare):
    """Whoever is in between shows his own key, and what he carries is worth nothing."""
    c = NlaClient(bare.rdp_port)
    assert c.prove("alice", PASSWORD, key=b"\x30" + os.urandom(269)) == b""
    assert failures(bare)[0]["text"] == "nla, attempt 1" and logins(bare) == []


def test_who_is_proved_counts(bare):
    """Not whom the client delegates."""
    bare.add_user("bob", password=PASSWORD)
    c = NlaClient(bare.rdp_port, PROTOCOL_HYBRID_EX)
    c.login("alice", PASSWORD, told=("win01", "bob", "x"))
    assert c.early_result() == 0
    assert [e["user"] for e in bare.events("login")] == ["alice"]


def test_locked_in_between(bare):
    """Between the proof and the credentials: too late for CredSSP to say no, and said after it."""
    c = NlaClient(bare.rdp_port, PROTOCOL_HYBRID_EX)
    assert not error_of(c.prove("alice", PASSWORD))
    bare.do("user", "lock", "alice")
    c.say(ts_request(6, info=c.ntlm.out.seal(nla_peer.ts_credentials("", "alice", PASSWORD))))
    assert c.early_result() == 5
    assert logins(bare) == [] and len(failures(bare)) == 1


def test_nobody_costs_the_same(bare):
    fastest = {}
    for _ in range(12):
        for user in ("alice", "nobody"):
            c = NlaClient(bare.rdp_port)
            began = time.monotonic()
            assert c.fail(user)
            took = time.monotonic() - began
            fastest[user] = min(took, fastest.get(user, 99))
            c.close()
    assert abs(fastest["alice"] - fastest["nobody"]) < max(0.3 * fastest["alice"], 0.003), fastest


def test_who_leaves_early_is_counted(bare):
    """A right password is told before the login is over: leaving then must not be for free."""
    c = NlaClient(bare.rdp_port)
    assert not error_of(c.prove("alice", PASSWORD))
    c.close()
    event = failures(bare)[0]
    assert (event["user"], event["text"]) == ("alice", "nla, left before the answer")
    c = NlaClient(bare.rdp_port)  # and a wrong one counts though nobody waits for the answer
    c.say(ts_request(6, nla_peer.ntlm_negotiate()))
    assert c.hear()
    c.say(ts_request(6, nla_peer.ntlm_authenticate("alice"), os.urandom(48), os.urandom(32)))
    assert failures(bare, 2)[1]["text"] == "nla, attempt 1"
    assert logins(bare) == []


# ---- which security ----

def test_the_choice(bare):
    p = bare
    p.add_user("bob", password=PASSWORD)
    p.add_user("alexandra", password=PASSWORD)
    p.add_user("alexandra.long", password=PASSWORD)
    turn_on(p, "alexandra.long")
    assert gets_nla(p, "alice") and gets_nla(p, "alice+win01") and gets_nla(p, "alice+win")
    assert gets_nla(p, "CORP\\alice") and gets_nla(p, "alexandra")
    assert not gets_nla(p, "bob") and not gets_nla(p, "") and not gets_nla(p, "bob+win01")
    assert gets_nla(p, "bob", PROTOCOL_HYBRID) and gets_nla(p, "", PROTOCOL_HYBRID)
    assert not gets_nla(p, "alice", PROTOCOL_SSL)
    names = ["stranger%d" % n for n in range(40)]
    first = [gets_nla(p, n) for n in names]
    assert 5 < sum(first) < 35, "strangers' names look like anybody's"
    assert [gets_nla(p, n) for n in names] == first
    s, verdict, value = negotiate(p.rdp_port, ANY, "alice")
    assert (verdict, value) == ("ok", PROTOCOL_HYBRID_EX)
    s.close()


def test_off(bare):
    bare.set({"rdp": {"nla": "off"}})
    bare.do("reload")
    assert not gets_nla(bare, "alice")
    _, verdict, code = negotiate(bare.rdp_port, PROTOCOL_HYBRID, "alice")
    assert (verdict, code) == ("failure", SSL_REQUIRED)
    bare.set({"rdp": {"nla": "optional"}})
    bare.do("reload")
    assert gets_nla(bare, "alice")


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


def test_what_is_kept_and_shown(bare, tmp_path):
    p = bare
    hashed = subprocess.run([peers.WINPR_HASH, "-u", "alice", "-p", PASSWORD], capture_output=True,
                            text=True, check=True).stdout.strip()[-32:]
    everything = "".join(p.do(*words) for words in (
        ("dump",), ("user", "show", "alice", "-o", "json"), ("user", "ls", "-o", "wide"),
        ("event", "tail")))
    assert hashed.lower() not in everything.lower() + p.log().lower()
    copy = str(tmp_path / "copy.db")
    p.do("backup", copy)
    stored = open(copy, "rb").read()
    assert bytes.fromhex(hashed) not in stored and b"nt_hash" in stored
    dumped = p.json("dump")
    assert [u["rdp_nla"] for u in dumped["users"] if u["name"] == "alice"] == ["on"]
    assert "alice" not in p.do("apply", "-f", "-", input=p.do("dump"))


def test_pam_users_have_none(bare):
    bare.add_user("carol")
    bare.do("user", "set", "carol", "--auth-source", "pam")
    done = bare.ctl("user", "set", "carol", "--rdp-nla", "on")
    assert done.returncode and "the system checks the password" in done.stderr
    done = bare.ctl("user", "set", "alice", "--auth-source", "pam")
    assert done.returncode and "set rdp_nla off first" in done.stderr


# ---- rudeness, and what dies ----

def is_alone(p):
    """Nothing but one relay noticed."""
    wait_until(lambda: p.relays() == [], "the relay left")
    assert error_of(NlaClient(p.rdp_port).fail("alice")) == STATUS_LOGON_FAILURE


NONSENSE = [
    b"\x30\x84\x7f\xff\xff\xff", b"\x30\x82\xff\xff" + bytes(3000), b"\0" * 100,
    b"GET / HTTP/1.0\r\n\r\n", b"\x30\x80", ts_request(1, b"NTLMSSP\0"), ts_request(6, b"A" * 30000),
    ts_request(6, b"NTLMSSP\0" + bytes(8)), ts_request(6), ts_request(6, info=b"B" * 200),
    ts_request(6, b"NTLMSSP\0\3\0\0\0" + b"\xff" * 100), ts_request(6, nla_peer.spnego(b"")),
    b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0"]


def test_nonsense(bare):
    for what in NONSENSE:
        c = NlaClient(bare.rdp_port)
        c.say(what)
        while c.hear():
            pass
    is_alone(bare)
    assert failures(bare)[0]["text"] == "nla, attempt 1" and len(failures(bare)) == 1, \
        "nonsense names nobody, so it is nobody's attempt"
    for line in ("NLA cannot be understood", "NLA is not understood"):
        assert line in bare.log()


def test_silence_and_rest(bare):
    c = NlaClient(bare.rdp_port)
    c.say(ts_request(6, nla_peer.ntlm_negotiate())[:20])
    c.close()
    again = NlaClient(bare.rdp_port)
    for _ in range(20):  # for ever at the beginning
        with contextlib.suppress(OSError):
            again.say(ts_request(6, nla_peer.ntlm_negotiate()))
    while again.hear():
        pass
    is_alone(bare)


def attempts(p):
    """Processes of sallyport-nla beside its master."""
    return [pid for pid in harness.children(masters(p)[0])] if masters(p) else []


def masters(p):
    found = []
    for pid in harness.children(p.process.pid):
        with contextlib.suppress(OSError), open("/proc/%d/comm" % pid) as f:
            if f.read().strip() == "sallyport-nla":
                found.append(pid)
    return found


def test_an_attempt_is_killed(bare):
    c = NlaClient(bare.rdp_port)
    c.say(ts_request(6, nla_peer.ntlm_negotiate()))
    assert c.hear()
    victim = wait_until(lambda: attempts(bare), "the process of the attempt")[0]
    with open("/proc/%d/status" % victim) as f:
        status = f.read()
    assert "Seccomp:\t2" in status or harness.SANITIZED
    os.kill(victim, signal.SIGKILL)
    answer = c.hear()
    assert error_of(answer) == STATUS_LOGON_FAILURE and c.is_closed()
    is_alone(bare)


def test_the_helper_is_killed(bare):
    os.kill(masters(bare)[0], signal.SIGKILL)
    wait_until(lambda: "sallyport-nla is gone" in bare.log(), "the log says so")
    time.sleep(1.1)  # it is started again at most once a second
    assert error_of(NlaClient(bare.rdp_port).fail("alice")) == STATUS_LOGON_FAILURE


def test_the_broker_goes_in_between(bare):
    c = NlaClient(bare.rdp_port)
    c.say(ts_request(6, nla_peer.ntlm_negotiate()))
    assert c.hear()
    bare.kill()
    bare.start()
    assert error_of(c.hear()) == STATUS_LOGON_FAILURE and c.is_closed()
    is_alone(bare)


# ---- a relay that was taken over ----

NLA_ASK, NLA_LOGIN, NLA_CHOICE, NLA_BEGUN = 71, 72, 98, 99


@pytest.fixture
def take_over(bare, monkeypatch):
    monkeypatch.setattr(fakerelay, "VERSION", 4)
    made = []

    def take():
        made.append(fakerelay.Process(bare))
        relay = fakerelay.Relay(made[-1])
        relay.say(fakerelay.HELLO, struct.pack(">BBI", 1, fakerelay.LOGIN, 1) +
                  fakerelay.text("192.0.2.7") + struct.pack(">H", 7) + fakerelay.text("fake") +
                  fakerelay.text("") + struct.pack(">IQ", 0, 0) + fakerelay.text(b""))
        return relay.welcomed()
    yield take
    for process in made:
        process.finish()


def door_key(p):
    c = NlaClient(p.rdp_port)
    key = nla_peer.public_key(c.tls.getpeercert(True))
    c.close()
    return key


def login_body(key):
    return fakerelay.text("device") + fakerelay.text(key)


def talk(kind, data=b"", user="", domain="", password=""):
    return bytes([kind]) + b"".join(fakerelay.text(t) for t in (user, domain, password, "")) + data


def test_a_foreign_key_is_refused(take_over):
    """Or a login that somebody makes elsewhere could be carried here."""
    relay = take_over()
    relay.say(NLA_LOGIN, login_body(b"\x30\x03" + os.urandom(100)))
    assert relay.hear(fakerelay.AUTH_RESULT)[0] == fakerelay.AUTH_DISCONNECT


def test_a_relay_cannot_claim_a_login(bare, take_over):
    """Whatever it says to the process of the attempt, as if it were the broker or that process."""
    key = door_key(bare)
    for kind in range(12):
        relay = take_over()
        relay.say(NLA_LOGIN, login_body(key))
        relay.hear(NLA_BEGUN)
        with socket.socket(fileno=relay.fds.pop()) as s:
            s.settimeout(20)
            s.send(talk(kind, bytes(16), "alice", "", PASSWORD))
            answer = s.recv(65536)
            assert answer == b"" or answer[0] == 6, answer
        assert relay.hear(fakerelay.AUTH_RESULT)[0] == fakerelay.AUTH_DISCONNECT
        relay.say(fakerelay.ROUTE, fakerelay.text("") + fakerelay.text("win01"))
        with pytest.raises((EOFError, ConnectionError)):
            relay.hear(fakerelay.ROUTE_RESULT)
    assert logins(bare) == []
