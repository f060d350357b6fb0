"""Recordings of RDP sessions: what is kept and what is not, failing disks, damage."""
import contextlib
import os
import signal
import struct
import subprocess
import time

import pytest

import harness
import rdp_peers as peers
import rdp_script as rdp
from harness import wait_until
from rdp_fixtures import *

pytestmark = pytest.mark.skipif(bool(peers.missing()), reason="missing: %s" % peers.missing())

FACTS, CHANNELS, TARGET, CONFIRM, SIZE, INPUT, NOTICE = range(1, 8)


@pytest.fixture
def proxy(make_rdp, xrdp, shadow):
    p = make_rdp()
    add_target(p, "win01", xrdp)
    return add_target(p, "win02", shadow)


def files_of(p):
    return [os.path.join(d, f) for d, _, fs in os.walk(p.recordings) for f in fs]


def plain_of(path):
    """Frames behind a cut one do not count."""
    return subprocess.run(["zstd", "-dcq", path], capture_output=True).stdout


def records_of(p, path=None):
    plain, at, out = plain_of(path or files_of(p)[0]), 0, []
    while at + 16 <= len(plain):
        kind, flags, _, size, us = struct.unpack(">BBHIQ", plain[at:at + 16])
        out.append((kind, flags, us, plain[at + 16:at + 16 + size]))
        at += 16 + size
    assert at == len(plain)
    return out


def bodies(records, kind):
    return [r[3] for r in records if r[0] == kind]


def events_of(records):
    return [struct.unpack(">BBHHH", body[i:i + 8]) for body in bodies(records, INPUT)
            for i in range(0, len(body), 8)]


def test_a_session_is_recorded(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy, "+clipboard", "/sound:sys:fake")
    live = proxy.wait_sessions(1, "active")[0]
    shows(screen, BLUE, (10, 60, 700, 500))
    assert live["recording"] == "ok"
    copy_on(screen, "clipboard-secret")
    c.move(300, 200, "click", "1")
    c.key("x")
    proxy.do("session", "end", "--all", "-y", "--reason", "enough")
    shows_notice(screen)
    row = ended(proxy)
    assert row["recording"] == "ok"
    path, = files_of(proxy)
    assert path.endswith("/%s.rdp.zst" % row["id"]) and os.stat(path).st_mode & 0o077 == 0
    listed, = proxy.json("recording", "ls")
    assert listed["id"] == row["id"] and listed["path"] == path
    records = records_of(proxy)
    facts, = bodies(records, FACTS)
    assert b'"user": "alice"' in facts and b'"target": "win01"' in facts
    assert [r[2] for r in records] == sorted(r[2] for r in records)
    assert len(bodies(records, CHANNELS)) == 1 and bodies(records, CONFIRM)
    assert struct.unpack(">HHH", bodies(records, SIZE)[0][:6]) == (1024, 768, 32)
    assert any(b"(enough)" in text for text in bodies(records, NOTICE))
    assert any(r[0] == TARGET and r[1] == 1 for r in records)  # the notice as it was drawn
    keys = [e for e in events_of(records) if e[0] == 1]
    assert keys and all(e[2] == 0 and e[1] & 0x80 for e in keys)  # that, not which
    assert any(e[0] == 4 and e[2] == 1 and e[3:] == (300, 200) for e in events_of(records))
    plain = plain_of(path)
    for secret in (PASSWORD, "target-secret", "clipboard-secret"):
        for code in ("utf-8", "utf-16-le"):
            assert secret.encode(code) not in plain


@pytest.mark.parametrize("mode", ["-gfx", "/gfx:AVC420"])
def test_graphics_are_recorded(proxy, clients, place, screen, mode):
    c = connect(clients, place, screen, proxy, mode, login="alice+win02", size=(800, 600))
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (40, 40, 760, 500), 0.95)
    c.stop()
    assert ended(proxy)["recording"] == "ok"
    records = records_of(proxy)
    names = {body[i + 8:i + 16].strip(b"\0"): body[i + 2] for body in bodies(records, CHANNELS)
             for i in range(8, len(body), 16)}
    assert names[b"drdynvc"] == 1 and set(names.values()) <= {0, 1}
    pdus = b"".join(bodies(records, TARGET))
    assert mode == "-gfx" or b"Microsoft::Windows::RDS::Graphics" in pdus
    assert b"AUDIO_PLAYBACK" not in pdus and len(pdus) > 2000


@pytest.mark.parametrize("how", ["configuration", "target", "grant"])
def test_what_is_not_recorded(make_rdp, xrdp, clients, place, screen, how):
    p = add_target(make_rdp({"recording": {"rdp": "no"}} if how == "configuration" else None),
                   "win01", xrdp, *(["record=no"] if how == "target" else []))
    if how == "grant":
        p.do("grant", "rm", p.json("grant", "ls")[0]["id"])
        p.do("grant", "add", "alice", "win01", "record_rdp=no")
    c = connect(clients, place, screen, p)
    assert p.wait_sessions(1, "active")[0]["recording"] == "off"
    shows(screen, BLUE, (10, 60, 700, 500))
    c.stop()
    assert ended(p)["recording"] == "off" and files_of(p) == []


def test_keys_with_input_all(make_rdp, xrdp, clients, place, screen):
    p = add_target(make_rdp({"recording": {"input": "all"}}), "win01", xrdp)
    c = connect(clients, place, screen, p)
    p.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 60, 700, 500))
    c.key("x")
    c.key("Left")
    time.sleep(0.5)  # releases
    c.stop()
    ended(p)
    keys = [e[:3] for e in events_of(records_of(p)) if e[0] == 1]
    assert (1, 0, 0x2d) in keys and (1, 1, 0x2d) in keys, keys
    assert (1, 2, 0x4b) in keys, keys  # extended


def test_a_key_behind_e1(make_rdp, place):
    """Pause, which is not Ctrl and Num Lock."""
    p = add_target(make_rdp({"recording": {"input": "all"}}), "win01", rdp.RawTarget(place, "pause"))
    c = rdp.RawClient(p.rdp_port).go("active", "alice+win01", PASSWORD)
    p.wait_sessions(1, "active")
    c.send(b"\x08\x06\x04\x1d\x02\x1d")  # fast-path: behind E1, and behind E0
    c.say(rdp.share_data(0x1c, struct.pack("<HHIHHHH", 1, 0, 0, 4, 0x200, 0x1d, 0), c.share, c.user))
    c.bye()
    ended(p)
    assert [e[:3] for e in events_of(records_of(p))] == [(1, 4, 0x1d), (1, 2, 0x1d), (1, 4, 0x1d)]


def test_a_finger(make_rdp, place):
    """Touch comes through a dynamic channel: that it was used is kept, and counts as use."""
    def script(served):
        served.go()
        served.say(rdp.chunk(b"\x10\x05" + b"Microsoft::Windows::RDS::Input\0"), served.names["drdynvc"])
        served.stay()

    p = add_target(make_rdp(), "win01", rdp.RawTarget(place, "touch", script))
    c = rdp.RawClient(p.rdp_port).go("active", "alice+win01", PASSWORD)
    while c.data()[0] != c.channels["drdynvc"]:
        pass
    c.say(rdp.chunk(b"\x30\x05" + struct.pack("<HIB", 3, 7, 0)), c.channels["drdynvc"])
    c.say(rdp.chunk(b"\x30\x05" + struct.pack("<HI", 5, 6)), c.channels["drdynvc"])  # hovering is over
    c.bye()
    ended(p)
    assert [e[0] for e in events_of(records_of(p))] == [6]


def test_a_killed_relay_leaves_what_was(proxy, clients, place, screen):
    connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 60, 700, 500))
    wait_until(lambda: os.path.getsize(files_of(proxy)[0]) > 1000, "a frame is written")
    size = os.path.getsize(files_of(proxy)[0])
    os.kill(proxy.relays()[0], signal.SIGKILL)
    row = ended(proxy)
    assert row["endReason"] == "relay-crashed"
    assert os.path.getsize(files_of(proxy)[0]) >= size
    assert bodies(records_of(proxy), TARGET)


def test_the_broker_comes_back(proxy, clients, place, screen):
    """Frames that were written meanwhile count; the recording goes on and ends whole."""
    c = connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 60, 700, 500))
    proxy.kill()
    c.move(200, 200)
    time.sleep(1.5)
    proxy.start()
    proxy.wait_sessions(1)
    wait_until(lambda: proxy.sessions()[0]["recording"] == "ok", "it is recorded")
    c.move(400, 300)
    c.stop()
    ended(proxy)
    row, = proxy.json("recording", "ls")
    assert row["closed"] and row["bytes"] == os.path.getsize(files_of(proxy)[0])


# ---- failing ----

@pytest.fixture
def small_disk(scratch):
    if not harness.IS_ROOT:
        pytest.skip("mounting needs root")
    path = os.path.join(scratch, harness.random_name())
    os.mkdir(path, 0o777)
    if harness.run("mount", "-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs", path).returncode:
        pytest.skip("cannot mount")
    yield path
    harness.run("umount", "-l", path)


@pytest.mark.parametrize("policy", ["terminate", "continue"])
def test_full_disk(make_rdp, xrdp, clients, place, screen, small_disk, policy):
    p = add_target(make_rdp({"recording": {"dir": small_disk + "/rec", "min_free": "0",
                                           "on_failure": policy}}), "win01", xrdp)
    c = connect(clients, place, screen, p)
    assert p.wait_sessions(1, "active")[0]["recording"] == "ok"
    shows(screen, BLUE, (10, 60, 700, 500))
    with open(os.path.join(small_disk, "filler"), "wb") as f, contextlib.suppress(OSError):
        while True:
            os.write(f.fileno(), bytes(4096))
    c.move(300, 300)  # something to record
    if policy == "terminate":
        shows_notice(screen)
        row = ended(p)
        assert row["endReason"] == "recording-failed" and row["recording"] == "failed"
        assert "could not be written" in row["endText"] and p.events("recording-failed")
    else:
        wait_until(lambda: p.sessions()[0]["recording"] == "degraded", "it is listed as degraded")
        c.stop()
        assert ended(p)["recording"] == "degraded"


def test_no_room_no_session(make_rdp, xrdp, clients, place, screen, small_disk):
    p = add_target(make_rdp({"recording": {"dir": small_disk + "/rec", "min_free": "20M"}}),
                   "win01", xrdp)
    connect(clients, place, screen, p)
    shows_notice(screen)
    assert p.events("route-refused") or p.history()[0]["endReason"] == "recording-failed"
    assert files_of(p) == []


def test_damage_and_cuts_are_found(proxy, clients, place, screen):
    c = connect(clients, place, screen, proxy)
    proxy.wait_sessions(1, "active")
    shows(screen, BLUE, (10, 60, 700, 500))
    c.move(300, 300)
    time.sleep(1.5)
    c.stop()
    row = ended(proxy)
    assert "complete" in proxy.do("recording", "verify", row["id"])
    path, = files_of(proxy)
    with open(path, "rb") as f:
        whole = f.read()
    for changed, word in ((whole[:len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) +
                           whole[len(whole) // 2 + 1:], "damaged"), (whole[:-200], "cut")):
        with open(path, "wb") as f:
            f.write(changed)
        r = proxy.ctl("recording", "verify", "--all")
        assert r.returncode == 1 and word in r.stdout, (r.stdout, r.stderr)
