"""
Beside the desktop: a real login through PAM, clipboard, sound, drives; what scanners find; many at
once; and what is left when a party is killed.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading
import time

import pytest

import harness
import rdp_peers as peers
import rdp_servers as servers
from compat import needs, row
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())


# ---- xrdp as it is installed: PAM, sesman, Xorg, chansrv ----

@pytest.fixture(scope="module")
def login(place):
    if servers.XrdpLogin.missing():
        pytest.skip(servers.XrdpLogin.missing())
    if harness.SANITIZED:
        pytest.skip("one xrdp-sesman at a time on a machine: the plain run has it, and the relay is "
                    "sanitized in test_compat_rdp")
    server = servers.XrdpLogin(place)
    try:
        yield server.start()
    finally:
        server.finish()


@pytest.fixture
def pam(make_rdp, login):
    """A proxy with the target `desk`, which is logged in to with the stored password; no session of
    the account's is left over."""
    p = make_rdp()
    p.do("target", "add", "desk", "--type", "rdp", "--address", login.address, "--account",
         login.account, "--auth", "password", "--secret-stdin", "--accept-new",
         input=login.PASSWORD + "\n")
    yield p.grant("alice", "desk")
    login.end_session()


def desk(clients, place, screen, p, *extra, program="xfreerdp"):
    if program == "rdesktop":
        c = peers.rdesktop(place, screen, p.rdp_port, "alice+desk", PASSWORD, *extra)
        clients.append(c)
        return c
    return connect(clients, place, screen, p, *extra, login="alice+desk")


def shows_desk(login, screen):
    display = login.display
    wait_until(lambda: login.pattern.likeness(screen.picture(), display.picture()) >= 0.97,
               "the account's desktop", 60, every=0.3)
    return display


@row("xfreerdp, rdesktop 1.9 to xrdp 0.9 with PAM, sesman and Xorg")
@pytest.mark.parametrize("program", ["xfreerdp", "rdesktop"])
def test_a_login_with_pam(pam, login, clients, place, screen, program):
    """The user types her own password; the target's account and its password are put in its place."""
    c = desk(clients, place, screen, pam, program=program)
    live = pam.wait_sessions(1, "active")[0]
    assert (live["user"], live["account"]) == ("alice", login.account)
    display = shows_desk(login, screen)
    events = servers.XEvents(place, display.env())
    try:
        wait_until(lambda: events.has_click(300, 200) or
                   c.move(301, 203) or c.move(300, 200, "click", "1"), "a click", every=0.3)
        wait_until(lambda: events.has_key("h") or c.key("h"), "a key", every=0.3)
    finally:
        events.stop()
    assert login.PASSWORD not in pam.log() and PASSWORD not in pam.log()
    pam.do("session", "end", "--all", "-y")
    shows_notice(screen)
    assert ended(pam)["endReason"] == "admin-ended"


@row("xfreerdp to xrdp 0.9 with PAM")
def test_a_login_that_pam_refuses(make_rdp, login, clients, place, screen):
    """A wrong stored password: xrdp shows its own login window with what PAM said, and the user may
    leave; she never sees the account's password."""
    p = make_rdp()
    p.do("target", "add", "desk", "--type", "rdp", "--address", login.address, "--account",
         login.account, "--auth", "password", "--secret-stdin", "--accept-new", input="wrong one\n")
    p.grant("alice", "desk")
    c = desk(clients, place, screen, p)
    p.wait_sessions(1, "active")
    wait_until(lambda: "login failed" in open(login.log_path).read().lower(), "PAM's refusal")
    assert not login.processes()
    c.close_window()
    assert ended(p)["endReason"] == "user-exit"


@row("xfreerdp to xrdp 0.9 with chansrv")
def test_the_clipboard_both_ways(pam, login, clients, place, screen):
    """Text from here to there and back, short and of a megabyte."""
    desk(clients, place, screen, pam, "+clipboard")
    assert "clipboard" in pam.wait_sessions(1, "active")[0]["channels"]
    display = shows_desk(login, screen)
    big = "".join("%06d large " % n for n in range(80000))
    for text in ("from here ä€", big):
        copy_on(screen, text)
        wait_until(lambda: (pasted_on(display) or "").rstrip("\0") == text, "our clipboard there",
                   60, every=0.5)  # chansrv keeps the final NUL of a long text
    for text in ("from there ö€", big[::-1]):
        copy_on(display, text)
        wait_until(lambda: pasted_on(screen) == text, "its clipboard here", 60, every=0.5)


@row("xfreerdp to xrdp 0.9 with chansrv")
def test_sound(pam, login, clients, place, screen):
    """The channel is joined, formats are exchanged and training passes."""
    desk(clients, place, screen, pam, "/sound:sys:fake")
    assert "sound" in pam.wait_sessions(1, "active")[0]["channels"]
    shows_desk(login, screen)
    logs = os.path.join(login.home, ".local", "share", "xrdp")
    wait_until(lambda: "training" in "".join(
        open(os.path.join(logs, n), errors="replace").read().lower() for n in os.listdir(logs)
        if n.startswith("xrdp-chansrv")), "chansrv's training")


@row("rdesktop 1.9 to xrdp 0.9 with chansrv", note="xfreerdp's drives do not appear in this xrdp, "
     "without the proxy either")
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="needs /dev/fuse")
def test_drives(pam, login, clients, place, screen, tmp_path):
    """A folder of the client's is read and written at the target; a policy without drives hides it."""
    share = tmp_path / "share"
    share.mkdir()
    (share / "here.txt").write_text("from the client\n")
    option = ["-r", "disk:share=%s" % share]
    c = desk(clients, place, screen, pam, *option, program="rdesktop")
    assert "devices" in pam.wait_sessions(1, "active")[0]["channels"]
    shows_desk(login, screen)
    there = os.path.join(login.home, login.fuse_name, "share")
    wait_until(lambda: login.as_account("cat", there + "/here.txt").stdout == "from the client\n",
               "the file there", every=0.5)
    done = login.as_account("sh", "-c", "echo 'from the target' > %s/there.txt" % there)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: (share / "there.txt").exists() and
               (share / "there.txt").read_text() == "from the target\n", "the file here")
    c.stop()
    ended(pam)
    login.end_session()
    pam.do("target", "set", "desk", "rdp_channels=clipboard,printers")
    desk(clients, place, screen, pam, *option, program="rdesktop")
    pam.wait_sessions(1, "active")
    shows_desk(login, screen)
    time.sleep(2)  # nothing to wait for: it must not come
    assert login.as_account("cat", there + "/here.txt").returncode != 0


# ---- scanners ----

@pytest.fixture
def door(make_rdp):
    return make_rdp()


@row("nmap 7 rdp-enum-encryption")
@needs("nmap")
def test_nmap_finds_no_rc4(door):
    """TLS, and NLA when it is on, are offered; RDP's own encryption is not."""
    done = harness.run("nmap", "-Pn", "-n", "-p", door.rdp_port, "--script", "+rdp-enum-encryption",
                       "127.0.0.1", timeout=180)
    text = done.stdout
    assert done.returncode == 0 and "Security layer" in text, text + done.stderr
    assert re.search(r"SSL: SUCCESS", text), text
    assert "Native RDP: SUCCESS" not in text and "RDP Encryption level" not in text, text
    assert "RC4" not in text and "FIPS" not in text, text
    wait_until(lambda: door.relays() == [], "its relays are gone")


# What testssl.sh says of a certificate that nobody signed, and of its own openssl.
EXPECTED = {"cert_trust", "cert_chain_of_trust", "cert_validityPeriod", "cert_revocation",
            "engine_problem"}


class NegotiatingPort:
    """A port behind which TLS begins at once: it says RDP's first words to the door and then only
    carries bytes. testssl.sh does not know RDP."""
    REQUEST = b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x01\0\0\0"

    def __init__(self, door):
        self.door = door
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with contextlib.suppress(OSError), client, \
                socket.create_connection(("127.0.0.1", self.door), 20) as door:
            door.sendall(self.REQUEST)
            if len(door.recv(19)) == 19:
                back = threading.Thread(target=self.carry, args=(door, client), daemon=True)
                back.start()
                self.carry(client, door)
                back.join()

    @staticmethod
    def carry(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def stop(self):
        self.listener.close()


TESTSSL = shutil.which("testssl") or shutil.which("testssl.sh")


@row("testssl.sh 3", note="nothing worse than that the certificate is self-signed")
@pytest.mark.skipif(not TESTSSL, reason="needs testssl.sh")
@pytest.mark.skipif(harness.SANITIZED, reason="what OpenSSL is told is the same in the plain run; "
                    "half a thousand handshakes take minutes here")
def test_testssl(make_rdp, tmp_path):
    """The door's TLS behind RDP's negotiation: protocols, ciphers, known holes, certificate."""
    p = make_rdp({"limits": {"source_failures": "0"}})
    out = tmp_path / "found.json"
    relay = NegotiatingPort(p.rdp_port)
    try:
        done = harness.run(TESTSSL, "--quiet", "--warnings", "off", "--nodns", "none",
                           "--color", "0", "--jsonfile", out, "-p", "-S", "-s", "-U",
                           "127.0.0.1:%d" % relay.port, timeout=500)
    finally:
        relay.stop()
    found = json.loads(out.read_text())
    bad = [f for f in found if f["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL")
           and f["id"] not in EXPECTED]
    assert len(found) > 20, done.stdout[-3000:]
    assert bad == [], bad


# ---- many at once ----

HOW_MANY = 6 if harness.SANITIZED else 20  # a sanitized relay takes much more memory and time


def window_of(screen, client):
    return wait_until(lambda: screen.run("xdotool", "search", "--all", "--pid", client.pid, "--name",
                                         "FreeRDP").stdout.split(), "a window", 60)[-1]


@row("xfreerdp to xrdp 0.9 and freerdp-shadow 2")
def test_twenty_at_once(make_rdp, xrdp, shadow, clients, place, screen):
    """Twenty desktops at once (six in the sanitized run): each window shows its own target, all are
    listed, and `session end --all` reaches every user."""
    p = make_rdp({"limits": {"sessions_per_user": "0"}})
    for n in range(HOW_MANY):
        add_target(p, "win%02d" % n, (xrdp, shadow)[n % 2])
    shadow.display.paint("#aa2222")
    for n in range(HOW_MANY):
        connect(clients, place, screen, p, "/timeout:60000", *([] if n % 4 < 2 else ["-gfx"]),
                login="alice+win%02d" % n, size=(xrdp, shadow)[n % 2].display.size)
        if n % 4 == 3:  # so many programs that start at once only wait for each other
            p.wait_sessions(n + 1, "active")
    rows = p.wait_sessions(HOW_MANY, "active")
    assert {s["resourceName"] for s in rows} == {"win%02d" % n for n in range(HOW_MANY)}
    assert len({s["pid"] for s in rows}) == HOW_MANY
    for n, c in enumerate(clients):  # one after the other comes to the front
        assert screen.run("xdotool", "windowraise", window_of(screen, c)).returncode == 0
        shows(screen, (BLUE, RED)[n % 2], (20, 20, 780, 580), 0.95)
    done = p.json("session", "end", "--all", "-y")
    assert len(done) == HOW_MANY
    shows_notice(screen)
    for c in clients:
        c.wait()
        assert c.error_info() == "RPC_INITIATED_DISCONNECT", c.log()
    ended(p, HOW_MANY)
    assert {s["endReason"] for s in p.history()} == {"admin-ended"}


# ---- a party dies ----

@row("xfreerdp to xrdp 0.9")
@pytest.mark.parametrize("party", ["gate", "broker and gate"])
def test_a_killed_gate(make_rdp, xrdp, clients, place, screen, party):
    """kill -9 of the gate, alone or with the broker: the session lives on, the door is back, and an
    admin ends the session with a notice."""
    p = add_target(make_rdp(), "win01", xrdp)
    c = connect(clients, place, screen, p)
    live = p.wait_sessions(1, "active")[0]
    shows(screen, BLUE, (10, 10, 1000, 740))
    gates = [pid for pid in harness.children(p.process.pid) if "sallyport-rdp" in
             open("/proc/%d/cmdline" % pid).read()]
    assert len(gates) == 1, gates
    if party == "gate":
        os.kill(gates[0], signal.SIGKILL)
    else:
        p.kill()
        for pid in gates:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        p.start()
    wait_until(lambda: peers.is_loopback_listening(p.rdp_port), "the door is back")
    again = p.wait_sessions(1, "active")[0]
    assert (again["id"], again["pid"]) == (live["id"], live["pid"])
    xrdp.display.paint("#aa2222")
    try:
        shows(screen, RED, (10, 10, 1000, 740))
    finally:
        xrdp.display.paint("#336699")
    p.do("session", "end", live["id"], "-y")
    shows_notice(screen)
    c.wait()
    assert ended(p)["endReason"] == "admin-ended"
    connect(clients, place, screen, p)
    p.wait_sessions(1, "active")
