"""The clock is set an hour forward or back: no session is ended, warned or measured wrongly."""
import datetime
import json
import mmap
import os
import shutil
import struct
import time

import pytest

import harness
from harness import wait_until

IDLE = {"idle_after": "5m", "warn_after": "10m", "disconnect_after": "20m"}
QUICK = ("idle_after=1s", "warn_after=2s", "disconnect_after=5s")


class Clock:
    """How far the wall clock of a proxy's processes is off."""
    def __init__(self, proxy):
        self.path = os.path.join(proxy.dir, "clock")
        with open(self.path, "wb") as f:
            f.write(struct.pack("=q", 0))
        os.chmod(self.path, 0o644)
        with open(self.path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 8)
        library = shutil.copy(os.path.join(harness.BUILD, "wallclock.so"), proxy.dir)
        os.chmod(library, 0o755)
        plain = proxy.env

        def env():
            return dict(plain(), LD_PRELOAD=library, SP_TEST_CLOCK=self.path,
                        ASAN_OPTIONS="detect_leaks=0:verify_asan_link_order=0")
        proxy.env = env

    def set(self, seconds):
        self.map[:] = struct.pack("=q", seconds)


def of_json(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


@pytest.fixture
def clocked(make_proxy, target, keys):
    """A proxy and its clock; alice may reach web01, and hasty01 with short times."""
    p = make_proxy({"idle": IDLE, "limits": {"max_duration": "30m"}}, start=False)
    p.clock = Clock(p)
    p.start().add_user("alice", key=keys.make("alice"))
    p.add_target(target).grant().add_target(target, "hasty01").grant("alice", "hasty01", *QUICK)
    return p


@pytest.mark.parametrize("jump", [3600, -3600], ids=["forward", "back"])
def test_wall_clock_jumps(clocked, keys, scratch, jump):
    p = clocked
    client = harness.Client(p, key=keys.make("alice"))
    shell = client.shell()
    command = client.popen("echo begun; sleep 1000")
    assert command.stdout.readline() == b"begun\n"
    client.target = "hasty01"
    hasty = client.shell()
    typed = time.monotonic()
    hasty.send("x")
    p.wait_sessions(3)
    p.clock.set(jump)
    for pid in (p.process.pid, p.gate(), *p.relays()):  # all of them see it
        with open("/proc/%d/maps" % pid) as f:
            assert p.clock.path in f.read()
    assert abs(of_json(p.sessions()[0]["lastActivity"]) - time.time() - jump) < 60
    # a deadline that was running, and one that begins after the jump, pass when they should
    hasty.expect_exact("Idle for 2 seconds: you will be disconnected in 3 seconds")
    hasty.expect_exact("You have been disconnected: idle for 5 seconds")
    assert 4.5 < time.monotonic() - typed < 20
    later = client.shell()
    later.expect_exact("You have been disconnected: idle for 5 seconds")
    rows = p.wait_history(2)
    assert [s["endReason"] for s in rows] == ["idle-timeout"] * 2
    assert all(4 <= s["durationSeconds"] < 30 for s in rows), rows
    live = p.sessions()
    assert [s["status"] for s in live] == ["active"] * 2
    assert all(s["durationSeconds"] < 60 and s["idleSeconds"] < 60 for s in live), live
    assert len(p.events("idle-warning")) == 2
    shell.sendline("echo still-$((1+1))")
    shell.expect("still-2")
    # a broker that starts in the new time takes the sessions over as they are
    p.kill()
    p.start()
    live = p.wait_sessions(2)
    assert all(s["durationSeconds"] < 90 and s["idleSeconds"] < 90 for s in live), live
    shell.sendline("exit")
    shell.expect(harness.pexpect.EOF)
    command.terminate()
    command.communicate()
    wait_until(lambda: len(p.history()) == 4, "all are ended")
    ends = {s["id"]: s for s in p.history()}
    mine = ends[min(ends, key=int)]
    assert mine["endReason"] == "user-exit" and mine["durationSeconds"] < 90
    path = os.path.join(scratch, harness.random_name())
    p.do("recording", "export", mine["id"], path)
    with open(path) as f:
        times = [json.loads(line)[0] for line in list(f)[1:]]
    assert times == sorted(times) and 0 <= times[0] and times[-1] < 90
