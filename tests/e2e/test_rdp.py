"""RDP through the proxy: xfreerdp and rdesktop to xrdp on Xvnc and to freerdp-shadow."""
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

import harness
import rdp_peers as peers
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

GFX = {"legacy": ["-gfx"], "rfx": ["/rfx", "-gfx"], "avc420": ["/gfx:AVC420"],
       "avc444": ["/gfx:AVC444"]}


@pytest.fixture
def proxy(make_rdp, xrdp, shadow):
    p = make_rdp()
    add_target(p, "win01", xrdp)
    return add_target(p, "win02", shadow)


# ---- sessions ----

@pytest.mark.parametrize("program", ["xfreerdp", "rdesktop"])
def test_a_desktop_through_the_proxy(proxy, clients, place, screen, program):
    c = getattr(peers, program)(place, screen, proxy.rdp_port, "alice+win01", PASSWORD)
    clients.append(c)
    live = proxy.wait_sessions(1, "active")[0]
    shows(screen, BLUE, (10, 60, 700, 500))
    assert (live["user"], live["account"], live["resourceName"], live["resourceType"]) == \
        ("alice", "bob", "win01", "rdp")
    assert live["device"] and live["ipAddress"] == "127.0.0.1" and live["recording"] == "ok"
    wait_until(lambda: proxy.sessions()[0]["bytesOut"] > 1000, "bytes are counted")
    if program == "xfreerdp":
        c.close_window()
        row = ended(proxy)
        assert row["endReason"] == "user-exit" and row["endedBy"] == "alice", row
    else:  # does not care for the cross of its window, without a proxy either
        proxy.do("session", "end", "--all", "-y")
        shows_notice(screen)
        assert c.wait() == 1  # "Administrator initiated disconnect"
        assert ended(proxy)["endReason"] == "admin-ended"
    assert "target-secret" not in proxy.log() and PASSWORD not in proxy.log()


@pytest.mark.parametrize("mode", sorted(GFX))
def test_graphics_and_end(proxy, clients, place, screen, mode):
    """Each way of drawing gets through untouched, and the end is drawn over it."""
    c = connect(clients, place, screen, proxy, *GFX[mode], login="alice+win02", size=(800, 600))
    proxy.wait_sessions(1, "active")
    window = (40, 40, 760, 500)
    shows(screen, BLUE, window, 0.95)
    proxy.do("session", "end", "--all", "-y", "--reason", "off duty")
    shows_notice(screen)
    c.wait()
    assert c.error_info() == "RPC_INITIATED_DISCONNECT", c.log()
    row = ended(proxy)
    assert row["endReason"] == "admin-ended" and row["endedBy"] == harness.ADMIN
    assert row["endText"].endswith("(off duty)")
    time.sleep(1)
    assert proxy.sessions() == [] and len(proxy.history()) == 1  # nobody reconnected


def test_keys_and_mouse_arrive(proxy, xrdp, clients, place, screen):
    out = os.path.join(place, "typed")
    term = peers.Process(["xterm", "-geometry", "80x24+100+100", "-e", "sh", "-c",
                          "read line; echo \"$line\" > %s" % out],
                         os.path.join(place, "xterm.log"), xrdp.display.env())
    try:
        wait_until(lambda: xrdp.display.run("xdotool", "search", "--class", "xterm").stdout,
                   "xterm")
        c = connect(clients, place, screen, proxy)
        proxy.wait_sessions(1, "active")
        shows(screen, BLUE, (700, 500, 1000, 740))
        c.move(300, 250, "click", "1")
        wait_until(lambda: "300" in xrdp.display.run("xdotool", "getmouselocation").stdout,
                   "the pointer is there")
        assert screen.run("xdotool", "type", "--delay", "40", "hello 42").returncode == 0
        c.key("Return")
        wait_until(lambda: os.path.exists(out) and open(out).read().strip() == "hello 42",
                   "the text")
    finally:
        term.stop()


def test_what_may_be_shared(make_rdp, xrdp, clients, place, screen):
    """
    Clipboard text comes from the target, or not; what is shared is listed. (The other direction
    does not work between this xfreerdp and this xrdp without a proxy either.)
    """
    p = add_target(make_rdp(), "win01", xrdp)
    c = connect(clients, place, screen, p, "+clipboard", "/sound:sys:fake")
    live = p.wait_sessions(1, "active")[0]
    assert live["channels"][:2] == ["desktop", "clipboard"] and "sound" in live["channels"]
    event = p.events("desktop")[0]
    assert "1024x768, 32 bpp" in event["text"] and "TLSv1.3" in event["text"]
    shows(screen, BLUE, (10, 10, 1000, 740))
    copy_on(xrdp.display, "from the target")
    wait_until(lambda: pasted_on(screen) == "from the target", "the target's clipboard here",
               every=0.5)
    c.stop()
    ended(p)
    p.do("grant", "rm", p.json("grant", "ls")[0]["id"])
    p.do("grant", "add", "alice", "win01", "rdp_channels=printers")
    copy_on(screen, "unchanged")
    connect(clients, place, screen, p, "+clipboard", "/sound:sys:fake", "/drive:share," + place)
    live = p.wait_sessions(1, "active")[0]
    assert live["channels"] == ["desktop", "devices"]
    shows(screen, BLUE, (10, 10, 1000, 740))
    copy_on(xrdp.display, "a secret")
    time.sleep(2)  # nothing to wait for: it must not come
    assert pasted_on(screen) == "unchanged"


def test_two_at_once(proxy, clients, place, screen):
    connect(clients, place, screen, proxy, size=(500, 400))
    connect(clients, place, screen, proxy, login="alice+win02", size=(500, 400))
    rows = proxy.wait_sessions(2, "active")
    assert {r["resourceName"] for r in rows} == {"win01", "win02"}
    proxy.do("session", "end", rows[0]["id"], "-y")
    wait_until(lambda: len(proxy.sessions()) == 1, "one is left")
    assert proxy.sessions()[0]["id"] == rows[1]["id"]


def test_the_account_in_the_login_name(make_rdp, xrdp, clients, place, screen):
    p = make_rdp()
    p.do("target", "add", "win01", "--type", "rdp", "--address", xrdp.address, "--auth",
         "passthrough", "--accept-new")
    p.grant("alice", "win01", "--account", "Administrator")
    connect(clients, place, screen, p, login="alice+Administrator+win01")
    assert p.wait_sessions(1, "active")[0]["account"] == "Administrator"


@pytest.mark.parametrize("how", ["domain", "token"])
def test_the_target_from_elsewhere(proxy, clients, place, screen, how):
    extra = ["/d:win01"] if how == "domain" else ["/load-balance-info:target=win01"]
    connect(clients, place, screen, proxy, *extra, login="alice")
    assert proxy.wait_sessions(1, "active")[0]["resourceName"] == "win01"


def test_a_new_size(proxy, xrdp, clients, place, screen):
    """Deactivation, another Demand Active: the session goes on, and a notice fits the new size."""
    connect(clients, place, screen, proxy, "/dynamic-resolution", size=(640, 480))
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 10, 600, 450))
    window = screen.run("xdotool", "search", "--name", "FreeRDP").stdout.split()[-1]
    assert screen.run("xdotool", "windowsize", window, "900", "700").returncode == 0
    wait_until(lambda: "900x700" in xrdp.display.run("xdpyinfo").stdout, "the desktop follows")
    xrdp.display.paint("#336699")
    shows(screen, BLUE, (10, 10, 880, 680))
    proxy.do("session", "end", "--all", "-y")
    shows_notice(screen)
    assert ended(proxy)["endReason"] == "admin-ended"


# ---- notices ----

QUICK = {"idle_after": "1s", "warn_after": "3s", "disconnect_after": "20s"}


def test_idle_is_what_no_human_does(make_rdp, xrdp, clients, place, screen):
    """The target draws all the time, in a corner; that and releases of keys do not count."""
    p = add_target(make_rdp({"idle": QUICK}), "win01", xrdp)
    clock = peers.Process(["xterm", "-geometry", "20x3+5+5", "-e", "sh", "-c",
                           "while :; do date +%s.%N; sleep 0.2; done"],
                          os.path.join(place, "clock.log"), xrdp.display.env())
    try:
        c = connect(clients, place, screen, p)
        p.wait_sessions(1, "active")
        p.wait_sessions(1, "idle")
        shows_notice(screen)
        points = iter(range(100, 700, 20))

        def moved():  # the first move only tells where the pointer is
            c.move(next(points), 600)
            return p.sessions()[0]["status"] == "active"

        wait_until(moved, "the moving pointer counts")
        shows_notice(screen)  # idle again
        c.wait()
    finally:
        clock.stop()
        xrdp.display.paint("#336699")
    assert c.error_info() == "IDLE_TIMEOUT", c.log()
    row = ended(p)
    assert row["endReason"] == "idle-timeout"
    assert row["endText"] == "You have been disconnected: idle for 20 seconds"
    assert len(p.events("idle-warning")) == 2


def test_shutdown_tells_the_user(proxy, clients, place, screen):
    connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 10, 1000, 740))
    proxy.do("shutdown", "--in", "0s")
    shows_notice(screen)
    assert proxy.process.wait(20) == 0


# ---- refusals ----

def refused(clients, place, screen, p, code, *extra, look=True, **kw):
    c = connect(clients, place, screen, p, *extra, **kw)
    if look:
        shows_notice(screen)
    c.wait()
    assert c.error_info() == code, c.log()
    return c


def test_a_wrong_password(proxy, clients, place, screen):
    refused(clients, place, screen, proxy, "SERVER_DENIED_CONNECTION", password="wrong")
    assert proxy.history() == [] and len(proxy.events("login-failed")) == 1


def test_no_such_target(proxy, clients, place, screen):
    refused(clients, place, screen, proxy, "SERVER_DENIED_CONNECTION", login="alice+nowhere")
    assert proxy.history() == []


def test_a_target_that_is_down(make_rdp, clients, place, screen):
    p = make_rdp()
    p.do("target", "add", "win01", "--type", "rdp", "--address",
         "127.0.0.1:%d" % harness.free_port(), "--account", "bob", "--auth", "passthrough",
         "--accept-new")
    p.grant("alice", "win01")
    refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND")
    assert ended(p)["endReason"] == "target-unreachable"


def test_a_changed_certificate(place, make_rdp, clients, screen):
    server = peers.Xrdp(place, "changing")
    try:
        server.start()
        p = add_target(make_rdp(), "win01", server)
        c = connect(clients, place, screen, p)
        p.wait_sessions(1, "active")
        c.close_window()
        ended(p)
        assert len(p.events("host-key-pinned")) == 1
        server.stop()
        server.certificate, server.key = peers.make_certificate(server.dir, "other")
        server.start()
        refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND")
        row = ended(p, 2)
        assert row["endReason"] == "target-unreachable" and "has changed" in row["endText"]
        assert len(p.events("host-key-mismatch")) == 1
    finally:
        server.finish()


@pytest.mark.parametrize("password", ["target-secret", "not the secret"])
def test_a_target_that_insists_on_nla(place, make_rdp, clients, screen, password):
    """CredSSP with the account's stored password, or a sentence that says what was wrong."""
    server = peers.Shadow(place, harness.random_name(), security="nla", users={"bob": password})
    try:
        p = add_target(make_rdp(), "win01", server.start())
        server.display.paint("#336699")
        if password == "target-secret":
            connect(clients, place, screen, p, "-gfx", size=(800, 600))
            p.wait_sessions(1, "active")
            shows(screen, BLUE, (250, 250, 500, 500))
        else:
            refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND")
            row = ended(p)
            assert row["endReason"] == "target-unreachable", row
            assert "win01 cannot be logged in to" in row["endText"] or \
                "win01 broke the login off" in row["endText"], row
        assert "target-secret" not in p.log()
    finally:
        server.finish()


def test_nla_needs_a_password_of_ours(place, make_rdp, clients, screen):
    server = peers.Shadow(place, harness.random_name(), security="nla", users={"bob": "secret"})
    try:
        p = add_target(make_rdp(), "win01", server.start(), auth=("--auth", "none"))
        refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND")
        assert "it insists on NLA" in ended(p)["endText"]
    finally:
        server.finish()


def test_a_limit(make_rdp, xrdp, clients, place, screen):
    p = add_target(make_rdp({"limits": {"sessions_per_user": "1"}}), "win01", xrdp)
    connect(clients, place, screen, p, size=(400, 300))
    p.wait_sessions(1, "active")
    c = connect(clients, place, screen, p, size=(800, 600))
    c.wait()
    assert c.error_info() == "SERVER_DENIED_CONNECTION", c.log()
    assert len(p.sessions()) == 1


def test_an_old_client_is_told(proxy):
    """No negotiation, or none of TLS: RDP_NEG_FAILURE, SSL_REQUIRED_BY_SERVER."""
    for request in (b"\x03\0\0\x0b\x06\xe0\0\0\0\0\0",
                    b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\0\0\0\0"):
        with socket.create_connection(("127.0.0.1", proxy.rdp_port), 10) as s:
            s.settimeout(10)
            s.sendall(request)
            assert s.recv(100)[11:] == b"\x03\0\x08\0\x01\0\0\0"
            assert s.recv(100) == b""


# ---- faults ----

def test_the_client_is_killed(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    os.killpg(c.pid, signal.SIGKILL)
    row = ended(proxy)
    assert row["endReason"] == "network-lost" and row["endedBy"] == "client"


def test_the_target_dies(place, make_rdp, clients, screen):
    server = peers.Xrdp(place, "dying")
    try:
        p = add_target(make_rdp(), "win01", server.start())
        server.display.paint("#336699")
        c = connect(clients, place, screen, p)
        p.wait_sessions(1, "active")
        shows(screen, BLUE, (10, 10, 1000, 740))
        os.killpg(server.process.pid, signal.SIGKILL)
        shows_notice(screen)
        c.wait()
        row = ended(p)
        assert row["endReason"] == "target-closed" and row["endedBy"] == "target"
    finally:
        server.finish()


def test_the_relay_is_killed(proxy, clients, place, screen):
    connect(clients, place, screen, proxy)
    live = proxy.wait_sessions(1, "active")[0]
    clients[-1].stop()  # it would come back at once
    ended(proxy)
    c = peers.rdesktop(place, screen, proxy.rdp_port, "alice+win01", PASSWORD)
    clients.append(c)
    live = proxy.wait_sessions(1, "active")[0]
    os.kill(live["pid"], signal.SIGKILL)
    assert ended(proxy, 2)["endReason"] == "relay-crashed"


def test_the_broker_is_killed(proxy, clients, place, screen):
    """The session lives on, is found again, and can be ended."""
    c = connect(clients, place, screen, proxy)
    live = proxy.wait_sessions(1, "active")[0]
    shows(screen, BLUE, (10, 10, 1000, 740))
    proxy.kill()
    proxy.start()
    again = proxy.wait_sessions(1, "active")[0]
    assert again["id"] == live["id"] and again["pid"] == live["pid"]
    proxy.do("session", "end", again["id"], "-y")
    shows_notice(screen)
    c.wait()
    assert ended(proxy)["endReason"] == "admin-ended"


def test_a_new_certificate(make_rdp, xrdp, clients, place, screen):
    """A reload reads it again; sessions do not notice."""
    where = os.path.join(place, "own")
    os.makedirs(where, exist_ok=True)
    os.chmod(place, 0o755)
    cert, key = peers.make_certificate(where, "first")
    pem = os.path.join(where, "door.pem")

    def put(*files):
        with open(pem, "w") as f:
            f.write("".join(open(x).read() for x in files))
        os.chmod(pem, 0o644)

    put(cert, key)
    p = add_target(make_rdp({"rdp": {"certificate": pem}}), "win01", xrdp)
    connect(clients, place, screen, p, size=(400, 300))
    p.wait_sessions(1, "active")
    assert subject(p) == "first"
    put(*peers.make_certificate(where, "second"))
    p.do("reload")
    wait_until(lambda: subject(p) == "second", "the new certificate")
    assert len(p.sessions()) == 1
    with open(pem, "w") as f:
        f.write("nonsense")  # nobody asked for it to be read
    connect(clients, place, screen, p, size=(400, 300))
    p.wait_sessions(2, "active")


def tls(port):
    """A TLS connection behind the negotiation, as an RDP client has it."""
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.settimeout(20)
    s.sendall(b"\x03\0\0\x13\x0e\xe0\0\0\0\0\0\x01\0\x08\0\x01\0\0\0")
    assert s.recv(19)[11:] == b"\x02\x03\x08\0\x01\0\0\0"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(s)


def subject(p):
    try:
        with tls(p.rdp_port) as s:
            der = s.getpeercert(True)
    except (OSError, AssertionError):
        return None
    text = subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-subject"], input=der,
                          capture_output=True, check=True).stdout.decode()
    return text.replace(" ", "").split("CN=")[1].strip()


# ---- bad input ----

def is_closed(s):
    try:
        while s.recv(4096):
            pass
        return True
    except (TimeoutError, socket.timeout):
        return False
    except OSError:
        return True


GARBAGE = [b"GET / HTTP/1.0\r\n\r\n", os.urandom(600), b"\x03\0\xff\xff" + b"A" * 3000,
           b"\x03\0\0\x07\x02\xf0\x80", b"\x03\0\0\x03", b"\0" * 64,
           b"\x10\0\0\0" + b"\0" * 11 + b"\x07",
           b"SSH-2.0-x\r\n"]


def test_garbage_ends_one_connection(proxy, clients, place, screen):
    for data in GARBAGE:
        with socket.create_connection(("127.0.0.1", proxy.rdp_port), 10) as s:
            s.settimeout(20)
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            assert is_closed(s), data[:20]
    for data in GARBAGE + [b"\x03\0\0\x08\x02\xf0\x80\x28",
                           b"\x03\0\x10\0\x02\xf0\x80\x7f\x65" + b"z" * 4087]:
        with tls(proxy.rdp_port) as s:
            s.sendall(data)
            try:
                s.unwrap()
            except OSError:
                pass
    wait_until(lambda: proxy.relays() == [], "all relays are gone")
    connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")


ANSWERS = {
    "nothing": b"", "ssh": b"SSH-2.0-OpenSSH_9.2\r\n", "noise": os.urandom(400),
    "old": b"\x03\0\0\x0b\x06\xd0\0\0\0\0\0",
    "failure": b"\x03\0\0\x13\x0e\xd0\0\0\0\0\0\x03\0\x08\0\x05\0\0\0",
    "alert": b"\x03\0\0\x13\x0e\xd0\0\0\0\0\0\x02\0\x08\0\x01\0\0\0\x15\x03\x01\0\x02\x02\x28",
}


@pytest.mark.parametrize("answer", sorted(ANSWERS))
def test_a_target_that_answers_nonsense(make_rdp, clients, place, screen, answer):
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        s, _ = server.accept()
        s.recv(1000)
        s.sendall(ANSWERS[answer])
        time.sleep(0.2)
        s.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    p = make_rdp()
    p.do("target", "add", "win01", "--type", "rdp", "--address",
         "127.0.0.1:%d" % server.getsockname()[1], "--account", "bob", "--auth",
         "passthrough", "--accept-new")
    p.grant("alice", "win01")
    refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND", look=False)
    row = ended(p)
    assert row["endReason"] == "target-unreachable" and row["endText"]
    thread.join(5)
    server.close()


def test_an_rdp_file(proxy, xrdp, clients, place, screen):
    text = proxy.do("target", "rdpfile", "win01", "--user", "alice", "--address",
                    "127.0.0.1:%d" % proxy.rdp_port)
    assert "loadbalanceinfo:s:target=win01\n" in text and "username:s:alice\n" in text
    path = os.path.join(place, "win01.rdp")
    with open(path, "w") as f:
        f.write(text)
    clients.append(peers.Client([peers.XFREERDP, path, "/p:" + PASSWORD, "/cert:ignore",
                                 "/size:800x600"], place, screen))
    row = proxy.wait_sessions(1, "active")[0]
    assert (row["user"], row["resourceName"]) == ("alice", "win01")
    assert "127.0.0.1" not in proxy.do("target", "rdpfile", "win01", "--user", "alice")
    assert proxy.ctl("target", "rdpfile", "win01").returncode == 2


def test_a_pinned_certificate(make_rdp, xrdp, clients, place, screen):
    """Pinned by hand: what `target show` prints is what `target add` takes."""
    der = subprocess.run("openssl x509 -in %s -noout -pubkey | openssl pkey -pubin -outform der |"
                         "base64 -w0" % xrdp.certificate, shell=True, capture_output=True,
                         check=True, text=True).stdout
    p = make_rdp()
    p.do("target", "add", "win01", "--type", "rdp", "--address", xrdp.address, "--account", "bob",
         "--auth", "passthrough", "--host-key", "tls-spki " + der)
    assert p.json("target", "show", "win01")["hostKey"] == "tls-spki " + der
    p.grant("alice", "win01")
    connect(clients, place, screen, p)
    p.wait_sessions(1, "active")
    for line in ("tls-spki AAAA", "ssh-ed25519 " + der, "tls-spki " + der[:-8]):
        done = p.ctl("target", "set", "win01", "--host-key", line)
        assert done.returncode != 0, line
    done = p.ctl("target", "set", "win01", "--auth", "agent")
    assert "an rdp target takes password, prompt, passthrough or none" in done.stderr


def test_an_unpinned_target(make_rdp, xrdp, clients, place, screen):
    p = make_rdp()
    p.do("target", "add", "win01", "--type", "rdp", "--address", xrdp.address, "--account", "bob",
         "--auth", "passthrough")
    p.grant("alice", "win01")
    refused(clients, place, screen, p, "CB_DESTINATION_NOT_FOUND")
    assert "no certificate is pinned" in ended(p)["endText"]
