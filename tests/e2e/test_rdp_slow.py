"""Sides that take nothing for a while, and then all at once: nothing stalls, and nothing is lost."""
import struct
import threading
import time

import pytest

import rdp_peers as peers
import rdp_script as rdp
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

UNRECORDED = {"recording": {"rdp": "no"}}  # a recording has a timer, which would wake what sleeps
COUNT, SIZE = 1500, 15000  # more than both kernels' buffers and the relay's hold


def pieces(share):
    filling = b"x" * SIZE
    for i in range(COUNT):
        yield rdp.share_data(0x99, struct.pack("<I", i) + filling, share)


def take(side):
    """The numbers of all pieces, in the order in which they came."""
    got = []
    while len(got) < COUNT:
        _, body = side.data()
        if body[2:4] == b"\x17\0" and body[14] == 0x99:
            got.append(struct.unpack("<I", body[18:22])[0])
    return got


def waits(sent):
    """Until whoever sends cannot: what was sent stays the same."""
    def is_held():
        before = sent[0]
        time.sleep(0.5)
        return 0 < before == sent[0] < COUNT

    wait_until(is_held, "the sender to be held")


def send(side, body_of, sent):
    for body in body_of:
        side.say(body)
        sent[0] += 1


@pytest.mark.parametrize("end", ["stays", "leaves"])
def test_a_client_that_reads_late(make_rdp, place, end):
    sent, may_leave = [0], threading.Event()

    def script(served):
        served.go()
        served.sock.settimeout(60)
        send(served, pieces(served.share), sent)
        if end == "stays":
            may_leave.wait(60)

    p = add_target(make_rdp(UNRECORDED), "win01", rdp.RawTarget(place, "fast", script))
    client = rdp.RawClient(p.rdp_port).go("active", "alice+win01", PASSWORD)
    p.wait_sessions(1, "active")
    waits(sent)
    assert take(client) == list(range(COUNT))
    may_leave.set()
    client.error_info()
    assert ended(p)["endReason"] == "target-closed"
    client.close()


def test_a_target_that_reads_late(make_rdp, place):
    sent, got, may_read = [0], [], threading.Event()

    def script(served):
        served.go()
        may_read.wait(60)
        served.sock.settimeout(60)
        got.extend(take(served))
        served.stay()

    p = add_target(make_rdp(UNRECORDED), "win01", rdp.RawTarget(place, "late", script))
    client = rdp.RawClient(p.rdp_port).go("active", "alice+win01", PASSWORD)
    p.wait_sessions(1, "active")
    client.sock.settimeout(60)
    thread = threading.Thread(target=send, args=(client, pieces(client.share), sent), daemon=True)
    thread.start()
    waits(sent)
    may_read.set()
    wait_until(lambda: len(got) == COUNT, "all that the client sent")
    assert got == list(range(COUNT))
    thread.join()
    client.bye()
    assert ended(p)["endReason"] == "user-exit"
