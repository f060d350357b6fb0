"""NLA at the proxy's own RDP door, by a client that can be as rude as it likes, and by relays that
were taken over."""
import base64
import contextlib
import os
import signal
import socket
import struct
import subprocess
import time

import pytest

import fakerelay
import harness
import nla_peer
import rdp_peers as peers
from harness import wait_until
from nla_peer import (PROTOCOL_HYBRID, PROTOCOL_HYBRID_EX, PROTOCOL_SSL, SSL_REQUIRED,
                      STATUS_LOGON_FAILURE, NlaClient, error_of, negotiate, ts_request)
from rdp_fixtures import PASSWORD, make_rdp  # pylint: disable=unused-import
from test_rdp_nla import ANY, bare, failures, gets_nla, logins, turn_on  # pylint: disable=unused-import

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())


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
    assert event["user"] == "alice"
    assert event["text"] in ("nla, left before the answer",  # as the relay's end is seen first,
                             "nla, attempt 1"), event        # or that of the attempt
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


# ---- passwords ----

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


def test_there_are_no_keys(bare, take_over, keys):
    """A key is judged by its public half: whoever knows that may not log in here."""
    bare.do("user", "key", "add", "alice", bare.mine(keys.make("alice") + ".pub"))
    blob = base64.b64decode(keys.public("alice").split()[1])
    for is_signed in (0, 1):
        relay = take_over()
        with pytest.raises((EOFError, ConnectionError)):
            relay.login("alice", blob, is_signed)
    assert logins(bare) == []
