"""Playing recordings of RDP sessions: served to real clients, which show what was shown."""
import os
import re
import signal
import subprocess
import time

import pytest

import harness
import rdp_peers as peers
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())


@pytest.fixture
def proxy(make_rdp, xrdp, shadow):
    p = make_rdp()
    add_target(p, "win01", xrdp)
    return add_target(p, "win02", shadow)


class Playing:
    """`recording play`, which says where."""
    def __init__(self, p, recording, *options, env=None):
        self.process = subprocess.Popen(
            [os.path.join(harness.bin_dir(), "sallyctl"), "--socket", p.socket, "recording", "play",
             recording, *options], env=dict(p.env(), **(env or {})), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.said = []
        line = self.read()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        self.port = int(found.group(1)) if found else None

    def stop(self):
        """At the end of a test, however it ended."""
        self.process.terminate()
        self.process.wait(20)

    def read(self):
        self.said.append(self.process.stderr.readline())
        return self.said[-1]

    def finish(self):
        self.said += self.process.communicate(timeout=60)[1].splitlines()
        return "\n".join(self.said)


def record_pattern(p, clients, place, screen, display, *extra, **kw):
    """A session that shows a red window on blue; its picture, and its row."""
    display.paint("#336699")
    c = connect(clients, place, screen, p, *extra, **kw)
    p.wait_sessions(1, "active")
    shows(screen, BLUE, (40, 40, 760, 560), 0.95)
    window = peers.Process(["xterm", "-geometry", "30x8+200+150", "-bg", "#aa2222", "-fg", "white",
                            "-e", "sh", "-c", "echo a recorded text; sleep 60"],
                           os.path.join(place, "xterm.log"), display.env())
    try:
        wait_until(lambda: screen.picture().share(RED, (220, 200, 340, 240)) > 0.9, "the window")
        time.sleep(1)
        picture = screen.picture()
        c.stop()
        return picture, ended(p)
    finally:
        window.stop()
        display.paint("#336699")


def is_same(a, b, box, tolerance=24):
    """How many of the pixels of a box are alike."""
    left, top, right, bottom = box
    points = [(x, y) for y in range(top, bottom, 5) for x in range(left, right, 5)]
    return sum(all(abs(i - j) <= tolerance for i, j in zip(a.at(x, y), b.at(x, y)))
               for x, y in points) / len(points)


SOURCES = {"xrdp": ("win01", []), "legacy": ("win02", ["-gfx"]),
           "avc420": ("win02", ["/gfx:AVC420"])}


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_a_recording_plays(proxy, xrdp, shadow, clients, place, screen, source):
    target, options = SOURCES[source]
    display = (xrdp if source == "xrdp" else shadow).display
    live, row = record_pattern(proxy, clients, place, screen, display, *options,
                               login="alice+" + target, size=(800, 600))
    playing = Playing(proxy, row["id"], "--no-viewer", "--speed", "2")
    clients.append(playing)
    viewer = peers.xfreerdp(place, screen, playing.port, "any", "any", size=(800, 600))
    clients.append(viewer)
    wait_until(lambda: is_same(live, screen.picture(), (40, 40, 760, 560)) > 0.97,
               "the played desktop is as it was", every=0.3)
    said = playing.finish()
    assert playing.process.returncode == 0 and "complete" in said, said
    viewer.wait(20)
    # (this freerdp-shadow speaks a little of it to clients that do not want it, too)
    assert source == "legacy" or ("graphics pipeline" in said) == (source == "avc420"), said


@pytest.mark.parametrize("client", ["rdesktop", "standard security"])
def test_other_viewers(proxy, xrdp, clients, place, screen, client):
    live, row = record_pattern(proxy, clients, place, screen, xrdp.display)
    playing = Playing(proxy, row["id"], "--no-viewer", "--at", "1:00")  # all that came before
    clients.append(playing)
    if client == "rdesktop":
        viewer = peers.rdesktop(place, screen, playing.port, "any", "any")
    else:
        viewer = peers.xfreerdp(place, screen, playing.port, "any", "any", "/sec:rdp")
    clients.append(viewer)
    wait_until(lambda: is_same(live, screen.picture(), (40, 40, 760, 560)) > 0.9,
               "the last picture", every=0.2)
    said = playing.finish()
    assert playing.process.returncode == 0, said


def test_a_viewer_is_started(proxy, xrdp, clients, place, screen):
    live, row = record_pattern(proxy, clients, place, screen, xrdp.display)
    playing = Playing(proxy, row["id"], "--idle-limit", "0.5",
                      env=dict(screen.env(), HOME=place))
    clients.append(playing)
    wait_until(lambda: is_same(live, screen.picture(), (40, 40, 760, 560)) > 0.97,
               "the played desktop is as it was", every=0.3)
    playing.process.send_signal(signal.SIGINT)
    said = playing.finish()
    assert playing.process.returncode == 0, said
    wait_until(lambda: not screen.run("xdotool", "search", "--name", "recording").stdout,
               "the viewer is gone")


def test_others_may_not_look(proxy, xrdp, clients, place, screen):
    if not harness.IS_ROOT:
        pytest.skip("needs another user")
    _, row = record_pattern(proxy, clients, place, screen, xrdp.display)
    playing = Playing(proxy, row["id"], "--no-viewer")
    clients.append(playing)
    subprocess.run(["setpriv", "--reuid", "65534", "--clear-groups", "--regid", "65534",
                    "/usr/bin/python3", "-c", "import socket; s = socket.create_connection(('127.0.0.1', %d));"
                    "print(s.recv(10))" % playing.port], timeout=20, check=True)
    wait_until(lambda: "refused" in playing.read(), "he is told")
    playing.process.send_signal(signal.SIGTERM)
    assert "65534" in playing.finish()
