"""Targets that have less than a desktop usually has."""
import pytest

import rdp_peers as peers
import rdp_script as rdp
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())


def without_channels(count):
    """Numbers `count` of the client's channels, whatever it asked for, as xrdp numbers none with
    allow_channels=false."""
    def script(served):
        served.go("tls")
        served.connect(rdp.connect_response(list(range(1010, 1010 + count))))
        served.names = {}
        served.go("active", after="connect")
        served.ends(60)
    return script


def test_a_target_without_channels(make_rdp, place):
    p = add_target(make_rdp(), "win01", rdp.RawTarget(place, "bare", without_channels(0)))
    client = rdp.RawClient(p.rdp_port).go("active", "alice+win01", PASSWORD)
    live = p.wait_sessions(1, "active")[0]
    wait_until(lambda: p.sessions()[0]["channels"] == ["desktop"], "nothing but a desktop")
    client.say(rdp.chunk(b"into the void"), client.channels["rdpdr"])
    assert p.sessions()[0]["id"] == live["id"]
    client.close()
    assert ended(p)["endReason"] in ("user-exit", "network-lost")


def test_a_target_with_some_channels_only_is_refused(make_rdp, place):
    """Which of them it means nobody knows."""
    p = add_target(make_rdp(), "win01", rdp.RawTarget(place, "some", without_channels(1)))
    client = rdp.RawClient(p.rdp_port)
    client.go("info", "alice+win01", PASSWORD)
    client.error_info()
    row = ended(p)
    assert row["endReason"] == "target-unreachable" and "does not speak RDP" in row["endText"]
