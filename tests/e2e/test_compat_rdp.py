"""
Real clients to real servers: each pair connects, shows what the target's own display shows, and keys
and clicks arrive there.
"""
import itertools
import os
import re
import shutil

import pytest

import harness
import rdp_peers as peers
import rdp_servers as servers
from compat import needs, row
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())


# ---- the proxy of this file, and its targets ----

@pytest.fixture(scope="module")
def proxy(scratch, place):
    """One for all pairs; each test leaves it without sessions."""
    options, port = with_rdp({})
    p = harness.Proxy(scratch, options).start()
    try:
        p.rdp_port = port
        p.add_user("alice", password=PASSWORD).add_user("nora", password=PASSWORD)
        p.do("user", "set", "nora", "--rdp-nla", "on", "--password-stdin", input=PASSWORD + "\n")
        yield p
        p.assert_clean_log()
    finally:
        p.clean_up()


def make_server(proxy, kind, place, name, *more, account="bob", secret="target-secret", **kw):
    if hasattr(kind, "missing") and kind.missing():
        pytest.skip(kind.missing())
    server = kind(place, name, **kw)
    try:
        server.start().paint()
        proxy.do("target", "add", name, "--type", "rdp", "--address", server.address, "--account",
                 account, "--auth", "password", "--secret-stdin", "--accept-new", *more,
                 input=secret + "\n")
        proxy.grant("alice", name).grant("nora", name)
        yield server
    finally:
        server.finish()


@pytest.fixture(scope="module")
def xvnc(proxy, place):
    yield from make_server(proxy, servers.Xvnc, place, "xvnc")


@pytest.fixture(scope="module")
def xorg(proxy, place):
    yield from make_server(proxy, servers.XrdpXorg, place, "xorg")


@pytest.fixture(scope="module")
def shadow(proxy, place):
    yield from make_server(proxy, servers.Shadow, place, "shadow", size="1024x768")


@pytest.fixture(scope="module")
def shadow_nla(proxy, place):
    yield from make_server(proxy, servers.Shadow, place, "shadow-nla", size="1024x768",
                           security="nla", users={"bob": "target-secret"})


@pytest.fixture(scope="module")
def shadow3(proxy, place):
    yield from make_server(proxy, servers.Shadow3, place, "shadow3", size="1024x768")


@pytest.fixture(scope="module")
def weston(proxy, place):
    yield from make_server(proxy, servers.Weston, place, "weston")


# ---- one pair ----

def start_client(program, place, screen, port, user, password, *extra):
    if program == "xfreerdp" and not shutil.which(program):
        pytest.skip("no FreeRDP 2 here")
    if program == "rdesktop":
        return peers.rdesktop(place, screen, port, user, password, *extra)
    argv = ["xfreerdp"] if program == "xfreerdp" else servers.freerdp3("xfreerdp3")
    return peers.Client(
        ["stdbuf", "-oL", *argv, "/v:127.0.0.1:%d" % port, "/u:" + user, "/p:" + password,
         "/cert:ignore", "/size:%dx%d" % screen.size, "-decorations", *extra], place, screen)


def repaints(server, screen, client, codec):
    """The first picture may come before the graphics channel is open; later ones come through it."""
    seeds = itertools.count(2)

    def is_drawn():
        server.paint(next(seeds))
        return wait_until(lambda: server.pattern.likeness(screen.picture(), server.truth()) >= 0.97,
                          "the new picture", every=0.3) and re.search(codec, client.log())

    try:
        wait_until(is_drawn, "a picture by " + codec)
    finally:
        server.paint()


def click(client):
    """Again and again: who looks at it there may be late."""
    client.move(301, 203)
    client.move(300, 200, "click", "1")


def pair(program, clients, place, screen, proxy, server, target, *extra, look=True, codec=None,
         user="alice"):
    """Connect, look, click, type, and leave. codec: a pattern of the client's log that must be
    there when the desktop has changed."""
    before = len(proxy.history())
    c = start_client(program, place, screen, proxy.rdp_port, user + "+" + target, PASSWORD, *extra)
    clients.append(c)
    live = proxy.wait_sessions(1, "active")[0]
    assert (live["user"], live["resourceName"], live["resourceType"]) == (user, target, "rdp")
    assert live["ipAddress"] == "127.0.0.1"
    wait_until(lambda: proxy.sessions()[0]["device"], "the client's name")
    events = server.events()
    try:
        if look:
            wait_until(lambda: server.pattern.likeness(screen.picture(), server.truth()) >= 0.97,
                       "the target's picture", every=0.3)
            assert server.pattern.likeness(server.truth(), server.pattern) >= 0.97
        if codec:
            repaints(server, screen, c, codec)
        wait_until(lambda: events.has_click(300, 200) or click(c), "a click", every=0.3)
        wait_until(lambda: events.has_key("h") or c.key("h"), "a key", every=0.3)
    finally:
        events.stop()
    if program == "rdesktop":  # does not care for the cross of its window
        proxy.do("session", "end", live["id"], "-y")
        shows_notice(screen)
        c.wait()
        expected = ("admin-ended", harness.ADMIN)
    else:
        c.close_window()
        # a client that crashes on its way out (in the decoder) says nothing, and the row that
        expected = ("network-lost", "client") if c.wait() < 0 else ("user-exit", user)
    end = ended(proxy, before + 1)
    assert (end["id"], end["endReason"], end["endedBy"]) == (live["id"], *expected), \
        (end, c.log()[-1000:])


PROGRAMS = ("xfreerdp", "xfreerdp3", "rdesktop")


@row("xfreerdp 2, xfreerdp 3, rdesktop 1.9 to xrdp 0.9 (Xvnc)")
@pytest.mark.parametrize("program", PROGRAMS)
def test_xrdp_on_xvnc(clients, place, screen, proxy, xvnc, program):
    """Desktop, keys and mouse of an xrdp in front of an Xvnc."""
    pair(program, clients, place, screen, proxy, xvnc, "xvnc")


@row("xfreerdp 2, xfreerdp 3, rdesktop 1.9 to xrdp 0.9 (Xorg)")
@pytest.mark.parametrize("program", PROGRAMS)
def test_xrdp_on_xorg(clients, place, screen, proxy, xorg, program):
    """Desktop, keys and mouse of an xrdp in front of an Xorg with xorgxrdp."""
    pair(program, clients, place, screen, proxy, xorg, "xorg")


@row("xfreerdp 2, xfreerdp 3 to freerdp-shadow 2", note="rdesktop connects and types, but draws "
     "nothing of this server, without the proxy either")
@pytest.mark.parametrize("program", PROGRAMS)
def test_freerdp_shadow(clients, place, screen, proxy, shadow, program):
    """Desktop, keys and mouse of a freerdp-shadow over TLS."""
    pair(program, clients, place, screen, proxy, shadow, "shadow",
         look=program != "rdesktop")


@row("xfreerdp 2, xfreerdp 3 to freerdp-shadow 2 with NLA", note="rdesktop as above")
@pytest.mark.parametrize("program", PROGRAMS)
def test_freerdp_shadow_with_nla(clients, place, screen, proxy, shadow_nla, program):
    """Desktop, keys and mouse of a freerdp-shadow that insists on NLA, with the stored password."""
    pair(program, clients, place, screen, proxy, shadow_nla, "shadow-nla",
         look=program != "rdesktop")


@row("xfreerdp 2, xfreerdp 3 to weston 10")
@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_weston(clients, place, screen, proxy, weston, program):
    """Desktop, keys and mouse of weston's RDP backend."""
    pair(program, clients, place, screen, proxy, weston, "weston")


@row("rdesktop 1.9 to weston 10", result="refused", note="weston wants surface commands, which "
     "rdesktop has not; the user is told, the row says `target-closed`")
def test_weston_and_rdesktop(clients, place, screen, proxy, weston):
    """A client that the target turns away."""
    before = len(proxy.history())
    c = peers.rdesktop(place, screen, proxy.rdp_port, "alice+weston", PASSWORD)
    clients.append(c)
    shows_notice(screen)
    c.wait()
    row_of_it = ended(proxy, before + 1)
    assert (row_of_it["endReason"], row_of_it["endedBy"]) == ("target-closed", "target")
    assert "SurfaceCommands" in weston.process.log()


# ---- each way of drawing ----

# What a client is told, for xfreerdp 2 and 3, and how its log names what it was sent then.
SHADOW_MODES = {
    "legacy": (["-gfx"], ["-gfx"], r"(?s)\A(?!.*codec(ID |=))"),
    "remotefx": (["/rfx", "-gfx"], ["/rfx", "-gfx"], r"codecID 3"),
    "avc420": (["/gfx:AVC420"], ["/gfx:AVC420"], r"codec=(11|RDPGFX_CODECID_AVC420)\b"),
    "avc444": (["/gfx:AVC444"], ["/gfx:AVC444"], r"codec=(15|RDPGFX_CODECID_AVC444)"),
}
SHADOW3_MODES = {
    "progressive": (["-gfx"], ["/gfx:progressive"], r"codec=(9|RDPGFX_CODECID_CAPROGRESSIVE)\b"),
    "rfx": (None, ["/gfx:RFX:on,AVC420:off,AVC444:off"], r"codec=RDPGFX_CODECID_CAVIDEO\b"),
}


def pair_by_codec(program, mode, clients, place, screen, proxy, server, target):
    options = mode[0] if program == "xfreerdp" else mode[1]
    if options is None:
        pytest.skip("this client has no such mode")
    pair(program, clients, place, screen, proxy, server, target, *options, "/log-level:TRACE",
         codec=mode[2])


@row("xfreerdp 2, xfreerdp 3 to freerdp-shadow 2")
@pytest.mark.parametrize("program", PROGRAMS[:2])
@pytest.mark.parametrize("mode", sorted(SHADOW_MODES))
def test_codecs(clients, place, screen, proxy, shadow, program, mode):
    """Bitmaps, RemoteFX, and the graphics pipeline with AVC420 and AVC444."""
    pair_by_codec(program, SHADOW_MODES[mode], clients, place, screen, proxy, shadow, "shadow")


@row("xfreerdp 2, xfreerdp 3 to freerdp-shadow 3")
@pytest.mark.parametrize("program", PROGRAMS[:2])
@pytest.mark.parametrize("mode", sorted(SHADOW3_MODES))
def test_progressive(clients, place, screen, proxy, shadow3, program, mode):
    """The graphics pipeline with progressive RemoteFX, and with plain RemoteFX (xfreerdp 3)."""
    pair_by_codec(program, SHADOW3_MODES[mode], clients, place, screen, proxy, shadow3, "shadow3")


# ---- another size ----

@row("xfreerdp 2, xfreerdp 3 to xrdp 0.9 (Xvnc)")
@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_a_new_size(clients, place, screen, proxy, xvnc, program):
    """`/dynamic-resolution`: the desktop follows the window."""
    c = start_client(program, place, screen, proxy.rdp_port, "alice+xvnc", PASSWORD,
                     "/dynamic-resolution", "/size:800x600")
    clients.append(c)
    live = proxy.wait_sessions(1, "active")[0]
    wait_until(lambda: "800x600" in xvnc.display.run("xdpyinfo").stdout, "the first size")
    window = wait_until(lambda: screen.run("xdotool", "search", "--name", "FreeRDP").stdout.split(),
                        "a window")[-1]
    try:
        assert screen.run("xdotool", "windowsize", window, "960", "704").returncode == 0
        wait_until(lambda: "960x704" in xvnc.display.run("xdpyinfo").stdout, "the new size")
        pattern = servers.Pattern((960, 704), 3)
        pattern.write_xbm(os.path.join(place, "size.xbm"))
        assert xvnc.display.run(*pattern.xsetroot(os.path.join(place, "size.xbm"))).returncode == 0
        wait_until(lambda: pattern.likeness(screen.picture(), xvnc.truth()) >= 0.97,
                   "the target's picture", every=0.3)
    finally:
        c.close_window()
        proxy.wait_sessions(0)
        xvnc.paint()
    assert proxy.history()[-1]["id"] == live["id"]


# ---- NLA at the door ----

@row("xfreerdp 2, xfreerdp 3 to xrdp 0.9 (TLS) and freerdp-shadow 2 (NLA)")
@pytest.mark.parametrize("program", PROGRAMS[:2])
@pytest.mark.parametrize("back", ["tls", "nla"])
def test_nla_at_the_door(clients, place, screen, proxy, xvnc, shadow_nla, program, back):
    """The client insists on NLA; the target has TLS, or insists on NLA itself."""
    server, target = (xvnc, "xvnc") if back == "tls" else (shadow_nla, "shadow-nla")
    pair(program, clients, place, screen, proxy, server, target, "/sec:nla", user="nora")


@row("xfreerdp 2, xfreerdp 3", result="refused", note="the client says that the logon failed")
@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_nla_with_a_wrong_password(clients, place, screen, proxy, xvnc, program):
    """NLA refuses before there is a desktop; no session, an event."""
    before = len(proxy.events("login-failed"))
    c = start_client(program, place, screen, proxy.rdp_port, "nora+xvnc", "wrong", "/sec:nla")
    clients.append(c)
    c.wait()
    assert "LOGON_FAILURE" in c.log(), c.log()
    assert len(proxy.events("login-failed")) == before + 1 and proxy.sessions() == []


# ---- files that are double-clicked ----

@row("xfreerdp 2, xfreerdp 3 with the .rdp file of `sallyctl target rdpfile`")
@pytest.mark.parametrize("program", PROGRAMS[:2])
def test_an_rdp_file(clients, place, screen, proxy, xvnc, program):
    """The file says where, who and which target; only the password is asked for."""
    path = os.path.join(place, "xvnc.rdp")
    with open(path, "w") as f:
        f.write(proxy.do("target", "rdpfile", "xvnc", "--user", "alice", "--address",
                         "127.0.0.1:%d" % proxy.rdp_port))
    argv = ["xfreerdp"] if program == "xfreerdp" else servers.freerdp3("xfreerdp3")
    clients.append(peers.Client([*argv, path, "/p:" + PASSWORD, "/cert:ignore", "-decorations",
                                 "/size:1024x768"], place, screen))
    live = proxy.wait_sessions(1, "active")[0]
    assert (live["user"], live["resourceName"]) == ("alice", "xvnc")
    wait_until(lambda: xvnc.pattern.likeness(screen.picture(), xvnc.truth()) >= 0.97,
               "the target's picture", every=0.3)
    clients[0].close_window()
    proxy.wait_sessions(0)


REMMINA = """[remmina]
name=xvnc
protocol=RDP
server=127.0.0.1:%d
username=alice+xvnc
password=%s
cert_ignore=1
resolution_mode=2
resolution_width=1024
resolution_height=768
viewmode=4
"""


@row("Remmina 1.4 to xrdp 0.9")
@needs("remmina")
@needs("dbus-run-session", "dbus-daemon")
def test_remmina(place, screen, proxy, xvnc, tmp_path):
    """`remmina -c FILE.remmina`: the desktop, and the notice at its end."""
    before = len(proxy.history())
    path = tmp_path / "xvnc.remmina"
    path.write_text(REMMINA % (proxy.rdp_port, PASSWORD))
    env = dict(screen.env(), HOME=str(tmp_path), XDG_RUNTIME_DIR=str(tmp_path), GDK_BACKEND="x11",
               NO_AT_BRIDGE="1", LC_ALL="C.UTF-8")
    c = peers.Process(["dbus-run-session", "--", "remmina", "-c", path],
                      os.path.join(place, "remmina.log"), env)
    try:
        live = proxy.wait_sessions(1, "active")[0]
        assert (live["user"], live["resourceName"]) == ("alice", "xvnc")
        wait_until(lambda: xvnc.pattern.likeness(screen.picture(), xvnc.truth()) >= 0.9,
                   "the target's picture", every=0.3)  # a bar of its own is at the top
        proxy.do("session", "end", live["id"], "-y")
        shows_notice(screen)
        assert ended(proxy, before + 1)["endReason"] == "admin-ended"
    finally:
        c.stop()
