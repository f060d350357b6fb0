"""Recordings of much: 200 MB, a million small writes; and how often they reach the disk."""
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

import harness
from harness import wait_until

MILLION = """
import os
for i in range(1000000):
    os.write(1, bytes([i * 7 % 251]))
"""


def sha256_of(stream):
    digest, total = hashlib.sha256(), 0
    for piece in iter(lambda: stream.read(1 << 20), b""):
        digest.update(piece)
        total += len(piece)
    return digest.hexdigest(), total


def recorded(proxy, session):
    """SHA-256 and length of what `play --raw` gives, which also checks every hash of the chain."""
    p = subprocess.Popen([os.path.join(harness.bin_dir(), "sallyctl"), "--socket", proxy.socket,
                          "recording", "play", session, "--raw"], stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, env=proxy.env(), stdin=subprocess.DEVNULL)
    result = sha256_of(p.stdout)
    assert p.wait() == 0, p.stderr.read()
    return result


def test_200_mb(proxy, client, scratch):
    """Half of it text, half any bytes: what the target sent, what came, what is kept."""
    block = os.path.join(scratch, harness.random_name())
    sent = hashlib.sha256()
    with open(block, "wb") as f:
        f.write(os.urandom(1000000))
        text = "".join("%d some line of a log that goes on and on ä€\n" % i for i in range(30000))
        f.write(text.encode()[:1000000])
    with open(block, "rb") as f:
        data = f.read()
    times = 10 if harness.SANITIZED else 100
    for _ in range(times):
        sent.update(data)
    p = client.popen("stty raw -echo; for i in $(seq %d); do cat %s; done" % (times, block),
                     flags=("-tt",), stderr=subprocess.DEVNULL)
    assert sha256_of(p.stdout) == (sent.hexdigest(), times * len(data))
    p.communicate()
    row = proxy.wait_history(1)[0]
    assert row["recording"] == "ok" and row["bytesOut"] == times * len(data)
    assert recorded(proxy, row["id"]) == (sent.hexdigest(), times * len(data))


def test_a_million_writes(proxy, client, scratch):
    program = os.path.join(scratch, harness.random_name())
    with open(program, "w") as f:
        f.write(MILLION)
    sent = hashlib.sha256(bytes(i * 7 % 251 for i in range(1000000))).hexdigest()
    p = client.popen("stty raw -echo; exec %s %s" % (sys.executable, program), flags=("-tt",),
                     stderr=subprocess.DEVNULL)
    assert sha256_of(p.stdout) == (sent, 1000000)
    p.communicate()
    row = proxy.wait_history(1)[0]
    assert recorded(proxy, row["id"]) == (sent, 1000000)


def test_power_loss_bound(proxy, client):
    """While frames arrive the broker syncs in time, and only then."""
    if not shutil.which("strace"):
        pytest.skip("no strace")
    shell = client.shell()
    trace = os.path.join(proxy.dir, "trace")
    s = subprocess.Popen(["strace", "-f", "-ttt", "-y", "-o", trace, "-e", "trace=fdatasync,fsync",
                          "-p", str(proxy.process.pid)], stderr=subprocess.DEVNULL)
    try:
        status = "/proc/%d/status" % proxy.process.pid
        wait_until(lambda: "TracerPid:\t%d\n" % s.pid in open(status).read(), "strace is there")

        def synced():
            with open(trace) as f:
                return [float(m) for m in re.findall(
                    r"^\d+ +([0-9.]+) fdatasync\(\d+<[^>]*\.cast\.zst>", f.read(), re.M)]

        began = time.time()
        shell.sendline("for i in $(seq 90); do echo tick-$i-; sleep 0.2; done")
        shell.expect("tick-90-", timeout=60)
        ended = time.time()
        wait_until(lambda: synced() and synced()[-1] > ended - 1, "the last frame is synced", 15)
        during = [t for t in synced() if began < t < ended]
        gaps = [b - a for a, b in zip([began] + during, during)]
        assert len(during) >= 3 and max(gaps) < 4.9, gaps  # with the 1 s of a frame: 5 s
        quiet_from = len(synced())
        time.sleep(6)  # nothing to wait for: that nothing happens is the point
        assert len(synced()) - quiet_from <= 1  # the prompt's frame, at most
    finally:
        s.terminate()
        s.wait()
