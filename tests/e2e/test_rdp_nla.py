"""NLA at the proxy's own RDP door, and lock-step: xfreerdp to xrdp and to freerdp-shadow."""
import hashlib
import os
import signal
import socket
import ssl
import statistics
import struct
import time

import pytest

import harness
import rdp_peers as peers
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

SECRET = "target-secret"
LOGON_FAILURE = "ERRCONNECT_LOGON_FAILURE"
PROTOCOL_SSL, PROTOCOL_HYBRID, PROTOCOL_HYBRID_EX = 1, 2, 8
SSL_REQUIRED, HYBRID_REQUIRED = 1, 5


@pytest.fixture(scope="module")
def guarded(place):
    """A target that insists on NLA."""
    server = peers.Shadow(place, "guarded", security="nla", users={"bob": SECRET, "alice": PASSWORD})
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
def proxy(make_rdp, xrdp, shadow, guarded):
    p = turn_on(make_rdp())
    add_target(p, "win01", xrdp)
    add_target(p, "win02", shadow)
    return add_target(p, "win03", guarded)


def failed_logins(p):
    return [e for e in p.events() if e["kind"] == "login-failed"]


def nla_of(p, user="alice"):
    return p.data("user", "show", user)["rdpNla"]


def in_lockstep(c):
    return c


# ---- sessions ----

@pytest.mark.parametrize("target", ["win01", "win02", "win03"])
@pytest.mark.parametrize("security", ["/sec:nla", ""])
def test_a_desktop(proxy, clients, place, screen, target, security):
    """xrdp by TLS, freerdp-shadow by TLS and by NLA: the client is known before it asks for anything."""
    connect(clients, place, screen, proxy, *filter(None, [security]), login="alice+" + target,
            size=(800, 600))
    live = proxy.wait_sessions(1, "active")[0]
    assert (live["user"], live["account"], live["resourceName"]) == ("alice", "bob", target)
    shows(screen, BLUE, (40, 40, 760, 500), 0.95)
    assert [e["text"] for e in proxy.events() if e["kind"] == "login"] == ["nla"]
    clients[-1].close_window()
    row = ended(proxy)
    assert row["endReason"] == "user-exit" and row["endedBy"] == "alice", row
    log = proxy.log()
    assert SECRET not in log and PASSWORD not in log


def test_wrong_password(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy, "/sec:nla", password="wrong")
    assert c.wait() != 0
    assert LOGON_FAILURE in c.log(), c.log()
    event = wait_until(lambda: failed_logins(proxy), "the event")[0]
    assert event["user"] == "alice" and event["text"].startswith("nla, attempt 1")
    assert proxy.history() == []
