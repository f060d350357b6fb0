"""
Fixtures and steps that the RDP tests share: `from rdp_fixtures import *`. Servers and the client's
display live as long as a test file, proxies and clients as long as a test.
"""
# pylint: disable=redefined-outer-name
import os
import subprocess
import tempfile

import pytest

import harness
import rdp_peers as peers
from harness import wait_until

__all__ = ["BLUE", "PASSWORD", "RED", "add_target", "clients", "connect", "copy_on", "ended",
           "make_rdp", "pasted_on", "place", "screen", "shadow", "shows", "shows_notice",
           "with_rdp", "xrdp"]

PASSWORD = "S3cret! paß"
BLUE, RED = (0x33, 0x66, 0x99), (0xaa, 0x22, 0x22)


@pytest.fixture(scope="module")
def place(scratch):
    return tempfile.mkdtemp(prefix="rdp-", dir=scratch)


@pytest.fixture(scope="module")
def xrdp(place):
    server = peers.Xrdp(place)
    try:
        server.start()
        server.display.paint("#336699")
        yield server
    finally:
        server.finish()


@pytest.fixture(scope="module")
def shadow(place):
    server = peers.Shadow(place)
    try:
        server.start()
        server.display.paint("#336699")
        yield server
    finally:
        server.finish()


@pytest.fixture(scope="module")
def screen(place):
    display = peers.Display(place, "1024x768")
    yield display
    display.stop()


@pytest.fixture
def clients():
    made = []
    yield made
    for c in made:
        c.stop()


def with_rdp(options):
    """(options with an RDP door on a free port, the port)"""
    options = dict(options or {})
    port = harness.free_port()
    options["rdp"] = dict({"enabled": "yes", "listen": "127.0.0.1:%d" % port},
                          **options.get("rdp", {}))
    return options, port


@pytest.fixture
def make_rdp(make_proxy):
    def make(options=None, **kw):
        options, port = with_rdp(options)
        p = make_proxy(options, **kw)
        p.rdp_port = port
        p.add_user("alice", password=PASSWORD)
        return p
    return make


def add_target(p, name, server, *more, auth=("--auth", "password", "--secret-stdin")):
    p.do("target", "add", name, "--type", "rdp", "--address", server.address, "--account", "bob",
         *auth, "--accept-new", *more, input="target-secret\n")
    return p.grant("alice", name)


def connect(clients, place, screen, p, *extra, login="alice+win01", password=PASSWORD, size=None):
    c = peers.xfreerdp(place, screen, p.rdp_port, login, password, *extra, size=size)
    clients.append(c)
    return c


def shows(screen, color, box=None, least=0.98):
    return wait_until(lambda: screen.picture().share(color, box) >= least,
                      "the screen is %s" % (color,), every=0.3)


def shows_notice(screen):
    return wait_until(lambda: screen.picture().has_notice(), "a notice on the screen", every=0.2)


def ended(p, count=1):
    wait_until(lambda: p.sessions() == [] and p.relays() == [], "list and relays are empty")
    return p.wait_history(count)[-1]


def copy_on(display, text):
    subprocess.run(["xclip", "-i", "-selection", "clipboard"], input=text.encode(), check=True,
                   timeout=20, env=dict(os.environ, **display.env()), stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)  # it stays behind as the owner of the text


def pasted_on(display):
    try:
        return display.run("xclip", "-o", "-selection", "clipboard", timeout=3).stdout
    except subprocess.TimeoutExpired:
        return None
